//! Learning rates by layer: a factor for every parameter.

use crate::error::{Result, TrainError};
use crate::parts::Parts;
use stunet_model::{NUM_STAGES, NUM_UPSAMPLINGS, NetworkPart, ParameterSpec};

/// What the learning rate of each parameter is multiplied by.
///
/// ```
/// use stunet_model::StuNetConfig;
/// use stunet_train::rates::LayerRates;
/// let rates = LayerRates { decay: 0.5, factors: vec![("stage0".parse()?, 0.1)] };
/// let specs = StuNetConfig::small(1, 2).parameter_specs();
/// let [first, last] = [&specs[0], specs.last().unwrap()];
/// assert_eq!(rates.of(last), 1.0);
/// // Eleven stages away from the heads.
/// assert!((rates.of(first) - 0.1 * 0.5f64.powi(11)).abs() < 1e-18);
/// # Ok::<(), stunet_train::TrainError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct LayerRates {
    /// Factor of every stage compared to the next one towards the output. The heads have 1, the finest
    /// stage of the decoder the decay, and so on down the decoder and up the encoder, to its eleventh
    /// power at the image.
    pub decay: f64,
    /// Factors of parts, beside the decay. A parameter that several name has the product.
    pub factors: Vec<(Parts, f64)>,
}

/// One rate for all.
impl Default for LayerRates {
    fn default() -> Self {
        Self { decay: 1.0, factors: Vec::new() }
    }
}

impl LayerRates {
    /// The factor of a parameter.
    pub fn of(&self, spec: &ParameterSpec) -> f64 {
        let named = self.factors.iter().filter(|(parts, _)| parts.contains(spec));
        self.decay.powi(distance(spec)) * named.map(|(_, factor)| factor).product::<f64>()
    }

    /// True where all have the same.
    pub fn is_uniform(&self) -> bool {
        self.decay == 1.0 && self.factors.is_empty()
    }

    /// For the end of a sentence, where they are not all the same.
    pub(crate) fn describe(&self) -> Option<String> {
        let mut text = match self.decay {
            1.0 if self.factors.is_empty() => return None,
            1.0 => "rate".to_owned(),
            decay => format!("rate times {decay:?} per stage towards the image"),
        };
        for (parts, factor) in &self.factors {
            text += &format!(", times {factor:?} in {parts}");
        }
        Some(text)
    }

    pub(crate) fn check(&self) -> Result<()> {
        let all = self.factors.iter().map(|(_, factor)| *factor).chain([self.decay]);
        match all.into_iter().find(|factor| !(factor.is_finite() && *factor > 0.0)) {
            None => Ok(()),
            Some(found) => {
                let expected = "above 0 (a part that is not to learn is frozen instead)";
                Err(TrainError::setting("factor of the learning rate", expected, found))
            }
        }
    }
}

/// Stages between a parameter and the output, along the way that the features take.
fn distance(spec: &ParameterSpec) -> i32 {
    let stages = match spec.part {
        NetworkPart::Head => 0,
        NetworkPart::Upsampling | NetworkPart::Decoder => 1 + spec.stage,
        NetworkPart::Encoder => NUM_UPSAMPLINGS + NUM_STAGES - spec.stage,
    };
    stages as i32
}

#[cfg(test)]
mod tests {
    use super::*;
    use stunet_model::StuNetConfig;

    #[test]
    fn factors_fall_towards_the_image() {
        let rates = LayerRates { decay: 0.5, factors: Vec::new() };
        let specs = StuNetConfig::small(1, 2).parameter_specs();
        let check = |name: &str, power: i32| {
            let spec = specs.iter().find(|spec| spec.name == name).unwrap();
            assert_eq!(rates.of(spec), 0.5f64.powi(power), "{name}");
        };
        check("decoder.heads.0.weight", 0);
        check("decoder.heads.4.bias", 0);
        check("decoder.stages.4.0.conv1.weight", 1);
        check("decoder.upsample.0.weight", 5);
        check("encoder.stages.5.0.norm1.weight", 6);
        check("encoder.stages.0.0.skip.weight", 11);
        assert!(LayerRates::default().is_uniform() && !rates.is_uniform());
        for decay in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(LayerRates { decay, ..LayerRates::default() }.check().is_err());
        }
    }
}
