//! Gaussian noise.

use super::uniform;
use chacha20::ChaCha8Rng;
use ndarray::Array4;
use rand::{Rng, RngExt, SeedableRng};
use rand_distr::StandardNormal;

/// Adds Gaussian noise, of one standard deviation for all channels.
///
/// # Source
/// `GaussianNoiseTransform`. Its `noise_variance` is used as the standard deviation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Noise {
    /// How often.
    pub probability: f64,
    /// Range of the standard deviation.
    pub std: (f64, f64),
}

/// Noise that was drawn: the same voxels every time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NoiseParams {
    /// Standard deviation.
    pub std: f64,
    /// Seed of the voxels.
    pub seed: u64,
}

impl Noise {
    /// Draws whether, how strong, and a seed.
    pub fn sample(&self, rng: &mut impl Rng) -> Option<NoiseParams> {
        let fires = rng.random_bool(self.probability);
        fires.then(|| NoiseParams { std: uniform(self.std, rng), seed: rng.random() })
    }
}

/// Adds the noise.
pub fn noise(params: &NoiseParams, image: &mut Array4<f32>) {
    let mut rng = ChaCha8Rng::seed_from_u64(params.seed);
    let std = params.std as f32;
    for value in image {
        let normal: f32 = rng.sample(StandardNormal);
        *value += std * normal;
    }
}
