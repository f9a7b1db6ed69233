//! Initial parameters.

use crate::{ModelError, ParameterKind, ParameterSource, ParameterSpec};
use burn::tensor::TensorData;

/// How a network begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Initialisation {
    /// nnU-Net v1: He normal for a leaky slope of 0.01, biases zero.
    NnUNetV1,
    /// PyTorch's default, which STU-Net's nnU-Net v2 trainer leaves in place: uniform within
    /// `1 / sqrt(fan_in)` for weights and biases.
    PyTorchDefault,
}

impl Initialisation {
    /// Initial parameters as a source, drawn in the order they are asked for.
    pub fn source(self, seed: u64) -> impl ParameterSource {
        Initialiser::new(self, seed)
    }
}

/// A source of initial parameters: one seed gives the same values on every device.
pub(crate) struct Initialiser {
    initialisation: Initialisation,
    random: SplitMix,
}

impl Initialiser {
    pub(crate) fn new(initialisation: Initialisation, seed: u64) -> Self {
        Self { initialisation, random: SplitMix(seed) }
    }
}

impl ParameterSource for Initialiser {
    fn parameter(&mut self, spec: &ParameterSpec) -> Result<TensorData, ModelError> {
        let count: usize = spec.shape.iter().product();
        let random = &mut self.random;
        let mut uniform = |bound: f64| (0..count).map(|_| random.uniform(bound)).collect();
        let values: Vec<f32> = match (spec.kind, self.initialisation) {
            (ParameterKind::NormWeight, _) => vec![1.0; count],
            (ParameterKind::NormBias, _) => vec![0.0; count],
            (ParameterKind::ConvBias { .. }, Initialisation::NnUNetV1) => vec![0.0; count],
            (ParameterKind::ConvBias { fan_in }, Initialisation::PyTorchDefault) => {
                uniform((1.0 / fan_in as f64).sqrt())
            }
            (ParameterKind::ConvWeight, Initialisation::PyTorchDefault) => {
                uniform((1.0 / fan_in(spec) as f64).sqrt())
            }
            (ParameterKind::ConvWeight, Initialisation::NnUNetV1) => {
                let slope = 1e-2f64;
                let std = (2.0 / ((1.0 + slope * slope) * fan_in(spec) as f64)).sqrt();
                (0..count).map(|_| random.normal(std)).collect()
            }
        };
        Ok(TensorData::new(values, spec.shape.clone()))
    }
}

fn fan_in(spec: &ParameterSpec) -> usize {
    spec.shape.iter().skip(1).product()
}

/// splitmix64: small, fast, and the same everywhere.
struct SplitMix(u64);

impl SplitMix {
    /// Uniform in [0, 1).
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    fn uniform(&mut self, bound: f64) -> f32 {
        ((2.0 * self.unit() - 1.0) * bound) as f32
    }

    /// Box–Muller; one of the pair is enough here.
    fn normal(&mut self, std: f64) -> f32 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        (radius * (std::f64::consts::TAU * self.unit()).cos() * std) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(initialisation: Initialisation, kind: ParameterKind, seed: u64) -> Vec<f32> {
        let shape =
            if kind == ParameterKind::ConvWeight { vec![64, 8, 3, 3, 3] } else { vec![4096] };
        let (part, stage, sees_image) = (crate::NetworkPart::Encoder, 0, false);
        let spec = ParameterSpec { name: "x".into(), shape, kind, part, stage, sees_image };
        let data = Initialiser::new(initialisation, seed).parameter(&spec).unwrap();
        data.try_to_vec().unwrap()
    }

    fn std(values: &[f32]) -> f64 {
        let n = values.len() as f64;
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        (values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n).sqrt()
    }

    #[test]
    fn spread_is_the_references() {
        let check = |initialisation, kind, expected: f64| {
            let found = std(&values(initialisation, kind, 3));
            assert!((found / expected - 1.0).abs() < 0.03, "{found} instead of {expected}");
        };
        let bias = ParameterKind::ConvBias { fan_in: 216 };
        check(Initialisation::NnUNetV1, ParameterKind::ConvWeight, (2.0f64 / 216.0).sqrt());
        // A uniform spread has a third of its squared bound as variance.
        check(Initialisation::PyTorchDefault, ParameterKind::ConvWeight, (1.0f64 / 648.0).sqrt());
        check(Initialisation::PyTorchDefault, bias, (1.0f64 / 648.0).sqrt());
        assert!(values(Initialisation::NnUNetV1, bias, 3).iter().all(|&v| v == 0.0));
    }

    #[test]
    fn one_seed_one_network() {
        let draw = |seed| values(Initialisation::NnUNetV1, ParameterKind::ConvWeight, seed);
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }
}
