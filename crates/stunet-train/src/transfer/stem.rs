//! The stem where pre-trained weights are for other input channels.

use burn::tensor::TensorData;
use serde::{Deserialize, Serialize};
use stunet_model::{ModelError, ParameterSpec};

/// How the two convolutions that see the image begin, where the file's see other channels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StemAdaptation {
    /// Channel `i` takes the file's channel `i`, in a circle: one channel is repeated for all. Every
    /// channel is used from the first step on. STU-Net's scripts for fine-tuning do the same, from one
    /// channel to several.
    #[default]
    Repeat,
    /// Every channel takes the mean of the file's.
    Average,
    /// The file's channels come first, and further ones begin at 0: the network begins as it was for
    /// the first channels, and learns of the others what they add.
    First,
    /// Nothing is taken; the stem is initialised.
    New,
}

impl StemAdaptation {
    /// For the end of a sentence.
    pub(super) fn told(self, [from, to]: [usize; 2], divided: bool) -> String {
        let share = match (divided, from) {
            (false, _) => String::new(),
            (true, 1) => format!(" and divided by {to}"),
            (true, _) => format!(" and divided by {to}/{from}"),
        };
        match (self, from) {
            (Self::Repeat, 1) => format!("repeated for every channel{share}"),
            (Self::Repeat, _) => format!("for {from} channels repeated for {to}{share}"),
            (Self::Average, _) => format!("for {from} channels averaged for {to}{share}"),
            (Self::First, _) if from < to => {
                format!("for the first {from} of {to} channels, 0 for the others")
            }
            (Self::First, _) => format!("for the first {to} of {from} channels"),
            (Self::New, _) => "initialised".to_owned(),
        }
    }

    /// Whether several channels may take the place of one.
    pub(super) fn divides(self) -> bool {
        matches!(self, Self::Repeat | Self::Average)
    }

    /// The weight for the channels of `spec`, made of one for `channels`.
    ///
    /// `First` is never divided: what it takes it takes as it is.
    pub(super) fn adapt(
        self,
        file: &TensorData,
        spec: &ParameterSpec,
        channels: usize,
        divide: bool,
    ) -> Result<TensorData, ModelError> {
        let [out, wanted, kernel @ ..] = &spec.shape[..] else {
            unreachable!("a convolution's weight has five axes")
        };
        let size: usize = kernel.iter().product();
        let divisor = match divide && self.divides() {
            true => *wanted as f32 / channels as f32,
            false => 1.0,
        };
        let values: Vec<f32> = file.iter::<f32>().collect();
        let mut adapted = Vec::with_capacity(out * wanted * size);
        for filter in values.chunks_exact(channels * size) {
            let channel = |index: usize| &filter[index * size..(index + 1) * size];
            let mean =
                |at: usize| (0..channels).map(|c| channel(c)[at]).sum::<f32>() / channels as f32;
            for index in 0..*wanted {
                match self {
                    Self::Repeat => {
                        adapted.extend(channel(index % channels).iter().map(|v| v / divisor))
                    }
                    Self::Average => adapted.extend((0..size).map(|at| mean(at) / divisor)),
                    Self::First if index < channels => adapted.extend(channel(index)),
                    Self::First | Self::New => adapted.resize(adapted.len() + size, 0.0),
                }
            }
        }
        Ok(TensorData::new(adapted, spec.shape.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stunet_model::StuNetConfig;

    fn check(how: StemAdaptation, from: usize, to: usize, divide: bool, expected: &[f32]) {
        let spec = StuNetConfig::small(to, 2).with_width([1; 6]).parameter_specs();
        // The skip convolution, one voxel large.
        let spec =
            spec.into_iter().find(|spec| spec.name == "encoder.stages.0.0.skip.weight").unwrap();
        let file = TensorData::new((1..=from).map(|v| v as f32).collect(), [1, from, 1, 1, 1]);
        let found = how.adapt(&file, &spec, from, divide).unwrap();
        assert_eq!(found.iter::<f32>().collect::<Vec<_>>(), expected, "{how:?} {from} {to}");
    }

    #[test]
    fn channels_are_made_of_channels() {
        use StemAdaptation::{Average, First, Repeat};
        check(Repeat, 1, 3, false, &[1.0, 1.0, 1.0]);
        check(Repeat, 1, 4, true, &[0.25; 4]);
        check(Repeat, 2, 5, false, &[1.0, 2.0, 1.0, 2.0, 1.0]);
        check(Repeat, 4, 2, false, &[1.0, 2.0]);
        check(Repeat, 2, 4, true, &[0.5, 1.0, 0.5, 1.0]);
        check(Average, 4, 2, false, &[2.5, 2.5]);
        check(Average, 4, 2, true, &[5.0, 5.0]);
        check(First, 1, 3, true, &[1.0, 0.0, 0.0]);
        check(First, 3, 2, false, &[1.0, 2.0]);
    }
}
