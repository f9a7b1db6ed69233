//! Where patches are extracted, with foreground oversampling.

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

/// The lower corner of a crop in a case; the crop may extend past the case on any side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CropPosition {
    /// First voxel, `[z, y, x]`, in voxels of the case.
    pub lower: [isize; 3],
    /// The class whose voxel lies in the middle, if one was asked for and occurs.
    pub class: Option<u16>,
}

/// Draws where a crop lies.
///
/// A free crop lies anywhere within the case and the margin by which it is larger than the patch
/// that is later cut from its middle, so that patches reach every border. A forced crop is centred
/// on a random voxel of a random class. It is clamped at the lower edge and may extend past the upper
/// edge, as in the reference. If there is an ignore label, free crops are centred on an annotated voxel.
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
    ) -> CropPosition {
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
        CropPosition { lower, class }
    }
}

fn annotated(locations: &ClassLocations) -> Option<u16> {
    (!locations.get(ANNOTATED).is_empty()).then_some(ANNOTATED)
}

#[cfg(test)]
mod tests {
    use super::*;
    use chacha20::ChaCha8Rng;
    use rand::SeedableRng;
    use std::collections::BTreeMap;

    fn check(axis: (usize, usize, usize), expected: (isize, isize)) {
        let (n, crop, patch) = axis;
        let sampler = PatchSampler::new([crop; 3], [patch; 3]);
        assert_eq!(sampler.bounds([n; 3]), [expected; 3]);
    }

    /// Held against `get_bbox` of the reference by hand.
    #[test]
    fn bounds_reach_every_border() {
        check((300, 205, 128), (-39, 134));
        check((128, 128, 128), (0, 0));
        check((100, 128, 128), (-14, -14));
        check((101, 128, 128), (-14, -13));
        check((10, 51, 32), (-21, -20));
    }

    #[test]
    fn forced_crops_are_centred_and_may_stick_out_above() {
        let sampler = PatchSampler::new([10, 10, 10], [8, 8, 8]);
        let at = |voxel: [u32; 3]| {
            let locations = ClassLocations::new(BTreeMap::from([(4, vec![voxel])]));
            let mut rng = ChaCha8Rng::seed_from_u64(1);
            sampler.sample([20, 20, 20], &locations, true, &mut rng)
        };
        assert_eq!(at([10, 12, 7]), CropPosition { lower: [5, 7, 2], class: Some(4) });
        assert_eq!(at([0, 19, 4]), CropPosition { lower: [-1, 14, -1], class: Some(4) });
    }

    #[test]
    fn without_foreground_forced_crops_are_free() {
        let sampler = PatchSampler::new([4; 3], [4; 3]);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let nothing = ClassLocations::new(BTreeMap::from([(2, Vec::new())]));
        let lowers: std::collections::BTreeSet<_> = (0..50)
            .map(|_| sampler.sample([9, 9, 9], &nothing, true, &mut rng))
            .inspect(|placement| assert_eq!(placement.class, None))
            .map(|placement| placement.lower)
            .collect();
        assert!(lowers.len() > 30);
    }

    /// With an ignore label free crops look at annotated voxels, forced ones at foreground.
    #[test]
    fn unannotated_regions_are_avoided() {
        let sampler = PatchSampler::new([4; 3], [4; 3]);
        let voxels = BTreeMap::from([(1, vec![[8, 8, 8]]), (ANNOTATED, vec![[2, 3, 4]])]);
        let locations = ClassLocations::new(voxels);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut lower = |forced| sampler.sample([20; 3], &locations, forced, &mut rng).lower;
        assert_eq!(lower(false), [0, 1, 2]);
        assert_eq!(lower(true), [6, 6, 6]);
    }
}
