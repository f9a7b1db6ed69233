//! Augmentation of training patches: random parameters are drawn first, then applied deterministically.
//!
//! [`Augmentation::sample`] draws [`Params`]; [`Augmentation::apply`] carries them out and is a pure
//! function. Two recipes: [`Augmentation::v1`], with which the published models were trained, and
//! [`Augmentation::v2`], nnU-Net's of today. Their order is fixed:
//!
//! rotation and scaling, noise, blur, brightness, contrast, low resolution, gamma of the inverted
//! image, gamma, mirroring, mask, removal of label -1.
//!
//! ```
//! use rand::SeedableRng;
//! use stunet_data::augment::Augmentation;
//! let augmentation = Augmentation::v1([128, 128, 128]);
//! assert_eq!(augmentation.crop_size(), [205, 205, 205]);
//! let draw = |seed| augmentation.sample(1, &mut chacha20::ChaCha8Rng::seed_from_u64(seed));
//! assert_eq!(draw(7), draw(7));
//! ```

mod blur;
mod crop;
mod intensity;
mod low_resolution;
mod mirror;
mod noise;
mod power;
mod pyramid;
mod spatial;

pub use blur::{Blur, blur};
pub use crop::Crop;
pub use intensity::{Brightness, Contrast, Gamma, brightness, contrast, gamma};
pub use low_resolution::{LowResolution, low_resolution};
pub use mirror::{Mirror, mirror_image, mirror_labels};
pub use noise::{Noise, NoiseParams, noise};
pub use pyramid::{deep_supervision_scales, downsample_labels, target_pyramid};
pub use spatial::{LabelOrder, Spatial, SpatialParams, crop_size, transform};

use crop::OUTSIDE;
use ndarray::{Array3, Array4, ArrayViewMut3, Axis};
use rand::{Rng, RngExt};

/// Whose arithmetic the transforms follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flavour {
    /// nnU-Net 1.7.1 (and 2.2) with batchgenerators 0.25.
    V1,
    /// nnU-Net 2.8 with batchgeneratorsv2.
    V2,
}

/// An augmented (or plainly cropped) patch.
#[derive(Clone, Debug, PartialEq)]
pub struct Patch {
    /// `[C, Z, Y, X]`.
    pub image: Array4<f32>,
    /// `[Z, Y, X]`; no -1 is left.
    pub labels: Array3<i16>,
}

/// A value per channel, none for a channel that is spared; empty where the transform did not fire.
pub type PerChannel<T> = Vec<Option<T>>;

/// What was drawn for one patch.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Params {
    /// Rotation and scaling.
    pub spatial: SpatialParams,
    /// Gaussian noise.
    pub noise: Option<NoiseParams>,
    /// Standard deviations of the blur in voxels, `[z, y, x]`.
    pub blur: PerChannel<[f64; 3]>,
    /// Factors of the brightness.
    pub brightness: PerChannel<f64>,
    /// Factors of the contrast.
    pub contrast: PerChannel<f64>,
    /// Factors of the resolution.
    pub low_resolution: PerChannel<f64>,
    /// Exponents for the inverted image.
    pub gamma_inverted: PerChannel<f64>,
    /// Exponents.
    pub gamma: PerChannel<f64>,
    /// Axes that are mirrored, `[z, y, x]`.
    pub mirror: [bool; 3],
}

/// The random transforms of a recipe.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Transforms {
    /// Rotation and scaling.
    pub spatial: Spatial,
    /// Gaussian noise.
    pub noise: Noise,
    /// Gaussian blur.
    pub blur: Blur,
    /// Brightness.
    pub brightness: Brightness,
    /// Contrast.
    pub contrast: Contrast,
    /// Low resolution.
    pub low_resolution: LowResolution,
    /// Gamma of the inverted image.
    pub gamma_inverted: Gamma,
    /// Gamma.
    pub gamma: Gamma,
    /// Mirroring.
    pub mirror: Mirror,
}

/// A recipe for patches of one size.
#[derive(Clone, Debug, PartialEq)]
pub struct Augmentation {
    flavour: Flavour,
    patch_size: [usize; 3],
    crop_size: [usize; 3],
    transforms: Option<Transforms>,
    masked_channels: Vec<bool>,
}

impl Augmentation {
    /// The recipe of nnU-Net 1 (`moreDA`), with which the published models were trained.
    ///
    /// Patches that are more than three times as wide as high are rotated and scaled slice by slice.
    pub fn v1(patch_size: [usize; 3]) -> Self {
        Self::of(Flavour::V1, patch_size)
    }

    /// The recipe of nnU-Net 2.8.
    pub fn v2(patch_size: [usize; 3]) -> Self {
        Self::of(Flavour::V2, patch_size)
    }

    /// No transform: patches as they are, for validation.
    pub fn none(patch_size: [usize; 3]) -> Self {
        Self {
            flavour: Flavour::V1,
            patch_size,
            crop_size: patch_size,
            transforms: None,
            masked_channels: Vec::new(),
        }
    }

    fn of(flavour: Flavour, patch_size: [usize; 3]) -> Self {
        let flat = spatial::is_flat(patch_size);
        Self {
            flavour,
            patch_size,
            crop_size: crop_size(patch_size, flat),
            transforms: Some(Transforms::of(flavour, flat)),
            masked_channels: Vec::new(),
        }
    }

    /// Sets voxels outside the nonzero region (label -1) back to 0, in the channels that were
    /// normalised within it.
    #[must_use]
    pub fn with_masked_channels(mut self, masked: Vec<bool>) -> Self {
        self.masked_channels = masked;
        self
    }

    /// The same recipe with other mirroring: none where left and right must not be confused.
    #[must_use]
    pub fn with_mirroring(mut self, mirror: Mirror) -> Self {
        if let Some(transforms) = &mut self.transforms {
            transforms.mirror = mirror;
        }
        self
    }

    /// Size of the patches, `[z, y, x]`.
    pub fn patch_size(&self) -> [usize; 3] {
        self.patch_size
    }

    /// Size of the crop that a patch is made from: larger where the patch is rotated.
    pub fn crop_size(&self) -> [usize; 3] {
        self.crop_size
    }

    /// The random transforms, unless patches stay as they are.
    pub fn transforms(&self) -> Option<&Transforms> {
        self.transforms.as_ref()
    }

    /// Draws what happens to one patch.
    pub fn sample(&self, num_channels: usize, rng: &mut impl Rng) -> Params {
        let Some(transforms) = &self.transforms else {
            return Params::default();
        };
        Params {
            spatial: transforms.spatial.sample(rng),
            noise: transforms.noise.sample(rng),
            blur: transforms.blur.sample(num_channels, rng),
            brightness: transforms.brightness.sample(num_channels, rng),
            contrast: transforms.contrast.sample(num_channels, rng),
            low_resolution: transforms.low_resolution.sample(num_channels, rng),
            gamma_inverted: transforms.gamma_inverted.sample(num_channels, rng),
            gamma: transforms.gamma.sample(num_channels, rng),
            mirror: transforms.mirror.sample(rng),
        }
    }

    /// Carries out what was drawn. Only the part of the crop that is needed is read.
    ///
    /// # Panics
    /// When the parameters were drawn for another number of channels.
    pub fn apply(&self, params: &Params, crop: &Crop<'_>) -> Patch {
        let (mut image, labels) = self.place(&params.spatial, crop);
        self.recolour(params, &mut image);
        let mut image = mirror_image(image, params.mirror);
        let mut labels = mirror_labels(labels, params.mirror);
        for (mut channel, masked) in image.outer_iter_mut().zip(&self.masked_channels) {
            if *masked {
                channel.zip_mut_with(&labels, |v, l| *v = if *l == OUTSIDE { 0.0 } else { *v });
            }
        }
        labels.mapv_inplace(|l| if l == OUTSIDE { 0 } else { l });
        Patch { image, labels }
    }

    fn place(&self, params: &SpatialParams, crop: &Crop<'_>) -> (Array4<f32>, Array3<i16>) {
        match &self.transforms {
            Some(t) if !params.is_identity() => {
                transform(&t.spatial, params, crop, self.crop_size, self.patch_size)
            }
            _ => crop.centre(self.crop_size, self.patch_size),
        }
    }

    /// Everything that changes voxel values and leaves them where they are.
    fn recolour(&self, params: &Params, image: &mut Array4<f32>) {
        let (flavour, flat) =
            (self.flavour, self.transforms.is_some_and(|t| t.spatial.slice_by_slice));
        if let Some(params) = &params.noise {
            noise(params, image);
        }
        each(image, &params.blur, |channel, sigma| blur(channel, *sigma, flavour));
        each(image, &params.brightness, |channel, factor| brightness(channel, *factor));
        each(image, &params.contrast, |channel, factor| contrast(channel, *factor));
        each(image, &params.low_resolution, |channel, scale| {
            low_resolution(channel, *scale, flat, flavour);
        });
        each(image, &params.gamma_inverted, |channel, exponent| {
            gamma(channel, *exponent, true, flavour);
        });
        each(image, &params.gamma, |channel, exponent| gamma(channel, *exponent, false, flavour));
    }
}

impl Transforms {
    /// The reference's probabilities and ranges; slice by slice for flat patches.
    pub fn of(flavour: Flavour, slice_by_slice: bool) -> Self {
        Self {
            spatial: Spatial::of(flavour, slice_by_slice),
            noise: Noise { probability: 0.1, std: (0.0, 0.1) },
            blur: Blur {
                probability: 0.2,
                per_channel: 0.5,
                sigma: (0.5, 1.0),
                one_sigma: flavour == Flavour::V1,
            },
            brightness: Brightness {
                probability: 0.15,
                factor: (0.75, 1.25),
                balanced: flavour == Flavour::V2,
            },
            contrast: Contrast { probability: 0.15, factor: (0.75, 1.25) },
            low_resolution: LowResolution {
                probability: 0.25,
                per_channel: 0.5,
                scale: (0.5, 1.0),
            },
            gamma_inverted: Gamma { probability: 0.1, exponent: (0.7, 1.5) },
            gamma: Gamma { probability: 0.3, exponent: (0.7, 1.5) },
            mirror: Mirror { probabilities: [0.5; 3] },
        }
    }
}

fn each<T>(
    image: &mut Array4<f32>,
    params: &PerChannel<T>,
    mut run: impl FnMut(&mut ArrayViewMut3<'_, f32>, &T),
) {
    assert!(
        params.is_empty() || params.len() == image.len_of(Axis(0)),
        "parameters of {} channels for an image of {}",
        params.len(),
        image.len_of(Axis(0)),
    );
    for (mut channel, params) in image.outer_iter_mut().zip(params) {
        if let Some(params) = params {
            run(&mut channel, params);
        }
    }
}

/// Draws a value for every channel, or for each with a probability; none where it does not fire.
fn per_channel<T, R: Rng>(
    probability: f64,
    per_channel: f64,
    num_channels: usize,
    rng: &mut R,
    mut draw: impl FnMut(&mut R) -> T,
) -> PerChannel<T> {
    if !rng.random_bool(probability) {
        return Vec::new();
    }
    (0..num_channels).map(|_| rng.random_bool(per_channel).then(|| draw(rng))).collect()
}

fn uniform(range: (f64, f64), rng: &mut impl Rng) -> f64 {
    rng.random_range(range.0..=range.1)
}

/// Below 1 and above 1 equally often, whatever their shares of the range.
fn balanced(range: (f64, f64), rng: &mut impl Rng) -> f64 {
    if rng.random_bool(0.5) && range.0 < 1.0 {
        uniform((range.0, 1.0), rng)
    } else {
        uniform((range.0.max(1.0), range.1), rng)
    }
}

#[cfg(test)]
mod tests;
