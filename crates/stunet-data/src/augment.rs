//! From a crop of a case to a training patch: chance apart from action.
//!
//! [`Augmentation::sample`] draws [`Params`], [`Augmentation::apply`] carries them out.

mod crop;
mod pyramid;

pub use crop::Crop;
pub use pyramid::{deep_supervision_scales, downsample_labels, target_pyramid};

use ndarray::{Array3, Array4};
use rand::Rng;

/// An augmented (or plainly cropped) patch.
#[derive(Clone, Debug, PartialEq)]
pub struct Patch {
    /// `[C, Z, Y, X]`.
    pub image: Array4<f32>,
    /// `[Z, Y, X]`; no -1 is left.
    pub labels: Array3<i16>,
}

/// What was drawn for one patch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Params {}

/// A recipe of random transforms for patches of one size.
#[derive(Clone, Debug, PartialEq)]
pub struct Augmentation {
    patch_size: [usize; 3],
    crop_size: [usize; 3],
}

impl Augmentation {
    /// No transform: patches as they are, for validation.
    pub fn none(patch_size: [usize; 3]) -> Self {
        Self { patch_size, crop_size: patch_size }
    }

    /// Size of the patches, `[z, y, x]`.
    pub fn patch_size(&self) -> [usize; 3] {
        self.patch_size
    }

    /// Size of the crop that a patch is made from: larger where the patch is rotated.
    pub fn crop_size(&self) -> [usize; 3] {
        self.crop_size
    }

    /// Draws what happens to one patch.
    pub fn sample(&self, num_channels: usize, rng: &mut impl Rng) -> Params {
        let _ = (num_channels, rng);
        Params {}
    }

    /// Carries it out.
    pub fn apply(&self, params: &Params, crop: &Crop<'_>) -> Patch {
        let _ = params;
        let (image, mut labels) = crop.centre(self.crop_size, self.patch_size);
        labels.mapv_inplace(|l| if l == -1 { 0 } else { l });
        Patch { image, labels }
    }
}
