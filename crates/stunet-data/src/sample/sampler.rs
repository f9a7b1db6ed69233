//! Where patches are cut, with foreground oversampling.

use super::{ANNOTATED, ClassLocations};
use rand::{Rng, RngExt};

/// True for the samples of a batch that must show foreground: the last ones.
///
/// # Source
/// `get_do_oversample`: `not i < round(batch_size * (1 - share))`, halves rounded to even. A batch of
/// one never oversamples a third.
///
/// ```
/// use stunet_data::sample::is_forced;
/// assert_eq!([0, 1].map(|i| is_forced(i, 2, 0.33)), [false, true]);
/// ```
pub fn is_forced(sample: usize, batch_size: usize, share: f64) -> bool {
    let free = (batch_size as f64 * (1.0 - share)).round_ties_even();
    sample as f64 >= free
}

/// The lower corner of a crop in a case; the crop may stick out on any side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placement {
    /// First voxel, `[z, y, x]`, in voxels of the case.
    pub lower: [isize; 3],
    /// The class whose voxel lies in the middle, if one was asked for and occurs.
    pub class: Option<u16>,
}

/// Draws where a crop lies.
///
/// A free crop lies anywhere within the case and the margin by which it is larger than the patch
/// that is later cut from its middle, so that patches reach every border. A forced crop is centred
/// on a drawn voxel of a drawn class; below it is held to the same bound, above it may stick out, as
/// in the reference. Where an ignore label makes whole regions worthless, free crops are centred on
/// an annotated voxel.
///
/// # Source
/// `DataLoader3D.generate_train_batch` of nnU-Net 1.7.1, `nnUNetDataLoader.get_bbox` of 2.8.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PatchSampler {
    crop_size: [usize; 3],
    patch_size: [usize; 3],
}

impl PatchSampler {
    /// Crops of `crop_size` from which patches of `patch_size` are made.
    ///
    /// # Panics
    /// When the patch is larger than the crop along an axis.
    pub fn new(crop_size: [usize; 3], patch_size: [usize; 3]) -> Self {
        let inside = std::iter::zip(crop_size, patch_size).all(|(crop, patch)| patch <= crop);
        assert!(inside, "a patch of {patch_size:?} does not fit in a crop of {crop_size:?}");
        Self { crop_size, patch_size }
    }

    /// Lowest and highest corner along each axis, both included.
    pub fn bounds(&self, shape: [usize; 3]) -> [(isize, isize); 3] {
        std::array::from_fn(|axis| {
            let [n, crop, patch] =
                [shape, self.crop_size, self.patch_size].map(|s| s[axis] as isize);
            let padding = (crop - patch).max(crop - n);
            // Python's `-padding // 2` rounds down.
            (-((padding + 1) / 2), n + padding / 2 + padding % 2 - crop)
        })
    }

    /// Draws a crop of a case of `shape`.
    pub fn sample(
        &self,
        shape: [usize; 3],
        locations: &ClassLocations,
        forced: bool,
        rng: &mut impl Rng,
    ) -> Placement {
        let bounds = self.bounds(shape);
        let class = if forced {
            let foreground: Vec<u16> = locations.present().filter(|c| *c != ANNOTATED).collect();
            match foreground.len() {
                0 => annotated(locations),
                count => Some(foreground[rng.random_range(0..count)]),
            }
        } else {
            annotated(locations)
        };
        let lower = match class.map(|class| locations.get(class)) {
            Some(voxels) => {
                let voxel = voxels[rng.random_range(0..voxels.len())];
                std::array::from_fn(|axis| {
                    let centred = voxel[axis] as isize - (self.crop_size[axis] / 2) as isize;
                    centred.max(bounds[axis].0)
                })
            }
            None => bounds.map(|(low, high)| rng.random_range(low as i64..=high as i64) as isize),
        };
        Placement { lower, class }
    }
}

fn annotated(locations: &ClassLocations) -> Option<u16> {
    (!locations.get(ANNOTATED).is_empty()).then_some(ANNOTATED)
}
