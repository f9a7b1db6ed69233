//! Transforms of one's own.

use chacha20::ChaCha8Rng;
use ndarray::{ArrayViewMut3, ArrayViewMut4};
use std::fmt;

/// The random stream of a transform of one's own: the same values on every machine and in every
/// version. [`rand`](super::rand)'s traits draw from it.
pub type PatchRng = ChaCha8Rng;

/// A patch in work.
#[derive(Debug)]
pub struct PatchViewMut<'a> {
    /// `[C, Z, Y, X]`, normalised intensities.
    pub image: ArrayViewMut4<'a, f32>,
    /// `[Z, Y, X]`; -1 outside the nonzero region, which becomes 0 after the last step.
    pub labels: ArrayViewMut3<'a, i16>,
}

/// A random transform of patches, as a step of an [`Augmentation`](super::Augmentation).
///
/// Whatever is random has to come from the stream that is passed: it belongs to the patch and the
/// step, so that a run is a function of its settings, whatever the number of threads, and goes on from a
/// checkpoint as if it had not been interrupted.
///
/// ```
/// use stunet_data::augment::rand::RngExt;
/// use stunet_data::augment::{Augmentation, PatchRng, PatchTransform, PatchViewMut, AugmentationStep};
///
/// /// Adds the same number to all voxels.
/// #[derive(Debug)]
/// struct Shift(f32);
///
/// impl PatchTransform for Shift {
///     fn describe(&self) -> String {
///         format!("shift by up to {}", self.0)
///     }
///
///     fn apply(&self, mut patch: PatchViewMut<'_>, rng: &mut PatchRng) {
///         patch.image += rng.random_range(-self.0..=self.0);
///     }
/// }
///
/// let recipe = Augmentation::v2([64; 3]);
/// let steps = recipe.steps().to_vec().into_iter().chain([AugmentationStep::own(Shift(0.5))]);
/// let recipe = recipe.with_steps(steps)?;
/// assert!(recipe.describe().ends_with("mirror, shift by up to 0.5"));
/// # Ok::<(), stunet_data::error::DataError>(())
/// ```
pub trait PatchTransform: fmt::Debug + Send + Sync {
    /// Name and settings in one line: runs of training are told apart by it.
    fn describe(&self) -> String;

    /// Changes a patch, or leaves it as it is.
    fn apply(&self, patch: PatchViewMut<'_>, rng: &mut PatchRng);
}
