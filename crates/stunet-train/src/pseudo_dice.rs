//! Pseudo-Dice: the overlap of patches, counted over a whole epoch's validation.
//!
//! Not the Dice of cases: patches are cut at random and overlap. It is cheap, and it tells whether
//! a run learns.

use burn::tensor::{Int, Tensor};
use stunet_model::read;

/// True positives, false positives and false negatives of every foreground class or region.
///
/// # Source
/// nnU-Net 1.7.1 `run_online_evaluation` and `finish_online_evaluation`; nnU-Net 2
/// `validation_step` and `on_validation_epoch_end`.
///
/// # Deviations
/// Counted in integers; the reference sums in f32 on the device and loses voxels of large classes.
///
/// ```
/// use stunet_train::pseudo_dice::Overlap;
/// let mut overlap = Overlap::of_classes(3, None);
/// overlap.add(&[0, 1, 1, 2], &[0, 1, 2, 2]);
/// assert_eq!(overlap.dice(), [Some(2.0 / 3.0), Some(2.0 / 3.0)]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap {
    counts: Vec<Counts>,
    regions: Option<Vec<Vec<i32>>>,
    ignore: Option<i32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    both: u64,
    predicted_only: u64,
    true_only: u64,
}

impl Overlap {
    /// For classes that exclude each other, background included in their number.
    pub fn of_classes(num_classes: usize, ignore: Option<i32>) -> Self {
        let counts = vec![Counts::default(); num_classes.saturating_sub(1)];
        Self { counts, regions: None, ignore }
    }

    /// For regions, each the label values it covers.
    pub fn of_regions(regions: Vec<Vec<i32>>, ignore: Option<i32>) -> Self {
        let counts = vec![Counts::default(); regions.len()];
        Self { counts, regions: Some(regions), ignore }
    }

    /// Takes up one batch.
    ///
    /// # Shapes
    /// Logits `[N, C, Z, Y, X]` at full resolution, targets `[N, Z, Y, X]`.
    pub fn add_batch(&mut self, logits: Tensor<5>, targets: &Tensor<4, Int>) {
        let truth: Vec<i32> = read(targets.clone()).iter::<i32>().collect();
        if self.regions.is_none() {
            let predicted: Vec<i32> = read(logits.argmax(1)).iter::<i32>().collect();
            return self.add(&predicted, &truth);
        }
        for region in 0..self.counts.len() {
            let logits = logits.clone().narrow(1, region, 1);
            // A probability above one half.
            let inside = read(logits.greater_elem(0.0).int());
            let inside: Vec<bool> = inside.iter::<i32>().map(|v| v != 0).collect();
            self.add_region(region, &inside, &truth);
        }
    }

    /// Takes up predicted and true classes, voxel by voxel.
    ///
    /// # Panics
    /// When the lengths differ.
    pub fn add(&mut self, predicted: &[i32], truth: &[i32]) {
        assert_eq!(predicted.len(), truth.len(), "one truth for every prediction");
        for (&p, &t) in predicted.iter().zip(truth) {
            if self.ignore == Some(t) {
                continue;
            }
            let index = |class: i32| usize::try_from(class - 1).ok();
            if p == t {
                if let Some(class) = index(p) {
                    self.counts[class].both += 1;
                }
            } else {
                if let Some(class) = index(p) {
                    self.counts[class].predicted_only += 1;
                }
                if let Some(class) = index(t) {
                    self.counts[class].true_only += 1;
                }
            }
        }
    }

    /// Takes up one region.
    fn add_region(&mut self, region: usize, inside: &[bool], truth: &[i32]) {
        assert_eq!(inside.len(), truth.len(), "one truth for every prediction");
        let values = self.regions.as_ref().map_or(&[][..], |regions| &regions[region]);
        let counts = &mut self.counts[region];
        for (&p, t) in inside.iter().zip(truth) {
            if self.ignore == Some(*t) {
                continue;
            }
            match (p, values.contains(t)) {
                (true, true) => counts.both += 1,
                (true, false) => counts.predicted_only += 1,
                (false, true) => counts.true_only += 1,
                (false, false) => {}
            }
        }
    }

    /// Dice of every foreground class or region; none where nothing was there or predicted.
    pub fn dice(&self) -> Vec<Option<f64>> {
        let dice = |c: &Counts| {
            let total = 2 * c.both + c.predicted_only + c.true_only;
            (total > 0).then(|| (2 * c.both) as f64 / total as f64)
        };
        self.counts.iter().map(dice).collect()
    }

    /// Mean over those that have one.
    pub fn mean(&self) -> Option<f64> {
        let known: Vec<f64> = self.dice().into_iter().flatten().collect();
        (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData};

    #[test]
    fn counts_add_up_over_batches() {
        let mut overlap = Overlap::of_classes(4, None);
        overlap.add(&[1, 1, 0, 2], &[1, 0, 1, 2]);
        overlap.add(&[1, 2], &[1, 2]);
        assert_eq!(overlap.dice(), [Some(2.0 / 3.0), Some(1.0), None]);
        assert_eq!(overlap.mean(), Some((2.0 / 3.0 + 1.0) / 2.0));
        assert_eq!(Overlap::of_classes(4, None).mean(), None);
    }

    #[test]
    fn ignored_voxels_do_not_count() {
        let mut overlap = Overlap::of_classes(3, Some(3));
        overlap.add(&[1, 1, 2, 0], &[1, 3, 3, 3]);
        assert_eq!(overlap.dice(), [Some(1.0), None]);
    }

    #[test]
    fn the_largest_logit_is_the_prediction() {
        let device = Device::flex();
        // Voxels along x with the largest logit at class 0, 2, 1.
        let logits = [[5.0, 0.0, 1.0], [0.0, 1.0, 2.0], [1.0, 4.0, 0.0f32]];
        let logits = TensorData::new(logits.concat(), [1, 3, 1, 1, 3]);
        let targets = TensorData::new(vec![0i32, 2, 2], [1, 1, 1, 3]);
        let mut overlap = Overlap::of_classes(3, None);
        overlap.add_batch(Tensor::from_data(logits, &device), &Tensor::from_data(targets, &device));
        assert_eq!(overlap.dice(), [Some(0.0), Some(2.0 / 3.0)]);
    }

    #[test]
    fn regions_overlap() {
        let device = Device::flex();
        let logits = TensorData::new(vec![1.0f32, -1.0, 0.1, -3.0, 2.0, 0.0], [1, 2, 1, 1, 3]);
        let targets = TensorData::new(vec![1i32, 2, 0], [1, 1, 1, 3]);
        let mut overlap = Overlap::of_regions(vec![vec![1, 2], vec![2]], None);
        overlap.add_batch(Tensor::from_data(logits, &device), &Tensor::from_data(targets, &device));
        // Predicted {0, 2} of the true {0, 1}, and {1} of {1}.
        assert_eq!(overlap.dice(), [Some(0.5), Some(1.0)]);
    }
}
