//! Augmentation of training patches: random parameters are drawn first, then applied deterministically.
//!
//! [`Augmentation::sample`] draws [`AugmentationParams`]; [`Augmentation::apply`] carries them out and
//! is a pure function. Two recipes: [`Augmentation::v1`], with which the published models were trained,
//! and [`Augmentation::v2`], nnU-Net's of today. Their order:
//!
//! rotation and scaling, noise, blur, brightness, contrast, low resolution, gamma of the inverted
//! image, gamma, mirroring, mask, removal of label -1.
//!
//! Either can be changed: [`Augmentation::with_transforms`] sets probabilities and ranges,
//! [`Augmentation::with_steps`] removes, reorders and adds steps; a step of one's own is a
//! [`PatchTransform`].
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
mod own;
mod power;
mod pyramid;
mod spatial;
mod transforms;

pub use blur::{Blur, blur};
pub use crop::Crop;
pub use intensity::{Brightness, Contrast, Gamma, brightness, contrast, gamma};
pub use low_resolution::{LowResolution, low_resolution};
pub use mirror::{Mirror, mirror_image, mirror_labels};
pub use noise::{Noise, NoiseParams, noise};
pub use own::{PatchRng, PatchTransform, PatchViewMut};
pub use pyramid::{deep_supervision_scales, downsample_labels, target_pyramid};
pub use rand;
pub use spatial::{LabelOrder, Spatial, SpatialParams, crop_size, transform};
pub use transforms::{AugmentationStep, Transforms};

use crate::error::Result;
use crate::reference::{AugmentationConventions, Reference};
use crop::OUTSIDE;
use ndarray::{Array3, Array4, ArrayViewMut3, Axis};
use rand::{Rng, RngExt, SeedableRng};

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
pub struct AugmentationParams {
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
    /// Seeds of the random streams of steps of one's own, in their order; a step without one is left
    /// out.
    pub own: Vec<u64>,
}

/// A recipe for patches of one size.
#[derive(Clone, Debug, PartialEq)]
pub struct Augmentation {
    conventions: &'static AugmentationConventions,
    patch_size: [usize; 3],
    crop_size: [usize; 3],
    transforms: Transforms,
    steps: Vec<AugmentationStep>,
    masked_channels: Vec<bool>,
}

impl Augmentation {
    /// The recipe of nnU-Net 1 (`moreDA`), with which the published models were trained.
    ///
    /// Patches that are more than three times as wide as high are rotated and scaled slice by slice.
    pub fn v1(patch_size: [usize; 3]) -> Self {
        Self::of(Reference::NnUNetV1, patch_size)
    }

    /// The recipe of nnU-Net 2.8.
    pub fn v2(patch_size: [usize; 3]) -> Self {
        Self::of(Reference::NnUNetV28, patch_size)
    }

    /// No transform: patches as they are, for validation.
    pub fn none(patch_size: [usize; 3]) -> Self {
        Self { steps: Vec::new(), ..Self::v1(patch_size) }.with_crop()
    }

    /// The recipe of a version of nnU-Net.
    pub fn of(reference: Reference, patch_size: [usize; 3]) -> Self {
        let conventions = reference.conventions().training.augmentation;
        Self {
            conventions,
            patch_size,
            crop_size: patch_size,
            transforms: Transforms::of(conventions, spatial::is_flat(patch_size)),
            steps: AugmentationStep::all(),
            masked_channels: Vec::new(),
        }
        .with_crop()
    }

    /// Rotation needs a larger crop.
    fn with_crop(mut self) -> Self {
        self.crop_size = match self.steps.contains(&AugmentationStep::Spatial) {
            true => self.transforms.spatial.crop_size(self.patch_size),
            false => self.patch_size,
        };
        self
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
        self.transforms.mirror = mirror;
        self
    }

    /// The same steps with other probabilities and ranges.
    ///
    /// ```
    /// use stunet_data::augment::{Augmentation, Gamma, Transforms};
    /// let recipe = Augmentation::v1([96; 3]);
    /// let published = *recipe.transforms();
    /// let gamma = Gamma { probability: 0.5, ..published.gamma };
    /// let recipe = recipe.with_transforms(Transforms { gamma, ..published })?;
    /// assert_eq!(recipe.transforms().gamma.probability, 0.5);
    /// # Ok::<(), stunet_data::error::DataError>(())
    /// ```
    ///
    /// # Errors
    /// When a probability is not between 0 and 1, or a range is empty or not finite.
    pub fn with_transforms(mut self, transforms: Transforms) -> Result<Self> {
        transforms.check()?;
        self.transforms = transforms;
        Ok(self.with_crop())
    }

    /// The same recipe with other steps: those that are left out are removed, the others are done in
    /// the order given. Without [`AugmentationStep::Spatial`] a patch is cut as it is.
    ///
    /// # Errors
    /// When a built-in step occurs twice, or [`AugmentationStep::Spatial`], which cuts the patch, is not the
    /// first.
    pub fn with_steps(mut self, steps: impl IntoIterator<Item = AugmentationStep>) -> Result<Self> {
        self.steps = steps.into_iter().collect();
        AugmentationStep::check(&self.steps)?;
        Ok(self.with_crop())
    }

    /// Size of the patches, `[z, y, x]`.
    pub fn patch_size(&self) -> [usize; 3] {
        self.patch_size
    }

    /// Size of the crop that a patch is made from: larger where the patch is rotated.
    pub fn crop_size(&self) -> [usize; 3] {
        self.crop_size
    }

    /// Probabilities and ranges of the built-in transforms; those that are no step have no effect.
    pub fn transforms(&self) -> &Transforms {
        &self.transforms
    }

    /// The steps, in their order.
    pub fn steps(&self) -> &[AugmentationStep] {
        &self.steps
    }

    /// The recipe in one line: its name, or its steps with all that is not the reference's. Runs of
    /// training are told apart by it.
    pub fn describe(&self) -> String {
        let stock = Transforms::of(self.conventions, spatial::is_flat(self.patch_size));
        let name = self.conventions.name;
        match &self.steps[..] {
            [] => "none".to_owned(),
            steps if steps == AugmentationStep::all() && self.transforms == stock => {
                name.to_owned()
            }
            steps => {
                let steps = steps.iter().map(|step| step.describe(&self.transforms, &stock));
                format!("{name}: {}", steps.collect::<Vec<_>>().join(", "))
            }
        }
    }

    /// Draws what happens to one patch. Steps of one's own draw from streams of their own, so that
    /// adding one changes nothing else.
    pub fn sample(&self, num_channels: usize, rng: &mut impl Rng) -> AugmentationParams {
        let (t, mut params) = (&self.transforms, AugmentationParams::default());
        for step in &self.steps {
            match step {
                AugmentationStep::Spatial => params.spatial = t.spatial.sample(rng),
                AugmentationStep::Noise => params.noise = t.noise.sample(rng),
                AugmentationStep::Blur => params.blur = t.blur.sample(num_channels, rng),
                AugmentationStep::Brightness => {
                    params.brightness = t.brightness.sample(num_channels, rng)
                }
                AugmentationStep::Contrast => {
                    params.contrast = t.contrast.sample(num_channels, rng)
                }
                AugmentationStep::LowResolution => {
                    params.low_resolution = t.low_resolution.sample(num_channels, rng);
                }
                AugmentationStep::GammaInverted => {
                    params.gamma_inverted = t.gamma_inverted.sample(num_channels, rng);
                }
                AugmentationStep::Gamma => params.gamma = t.gamma.sample(num_channels, rng),
                AugmentationStep::Mirror => params.mirror = t.mirror.sample(rng),
                AugmentationStep::Own(_) => {}
            }
        }
        // Last, so that the others are drawn as if there were none of these.
        let own = self.steps.iter().filter(|step| matches!(step, AugmentationStep::Own(_)));
        params.own = own.map(|_| rng.random()).collect();
        params
    }

    /// What [`apply`](Self::apply) reads of a crop for these parameters: its first voxel, in voxels of the
    /// crop, and its size.
    pub fn reach(&self, params: &AugmentationParams) -> ([usize; 3], [usize; 3]) {
        let (crop, patch) = (self.crop_size, self.patch_size);
        match params.spatial.is_identity() {
            true => (crop::middle(crop, patch), patch),
            false => spatial::reach(&self.transforms.spatial, &params.spatial, crop, patch),
        }
    }

    /// Carries out what was drawn. Only the part of the crop that is [needed](Self::reach) is read.
    ///
    /// # Panics
    /// When the parameters were drawn for another number of channels.
    pub fn apply(&self, params: &AugmentationParams, crop: &Crop<'_>) -> Patch {
        let (image, labels) = self.place(&params.spatial, crop);
        let mut patch = Patch { image, labels };
        let mut seeds = params.own.iter();
        for step in &self.steps {
            match step {
                AugmentationStep::Own(transform) => {
                    let Some(seed) = seeds.next() else { continue };
                    let rng = &mut PatchRng::seed_from_u64(*seed);
                    let (image, labels) = (patch.image.view_mut(), patch.labels.view_mut());
                    transform.apply(PatchViewMut { image, labels }, rng);
                }
                AugmentationStep::Mirror => {
                    patch.image = mirror_image(patch.image, params.mirror);
                    patch.labels = mirror_labels(patch.labels, params.mirror);
                }
                step => self.recolour(step, params, &mut patch.image),
            }
        }
        let Patch { image, labels } = &mut patch;
        for (mut channel, masked) in image.outer_iter_mut().zip(&self.masked_channels) {
            if *masked {
                channel.zip_mut_with(labels, |v, l| *v = if *l == OUTSIDE { 0.0 } else { *v });
            }
        }
        labels.mapv_inplace(|l| if l == OUTSIDE { 0 } else { l });
        patch
    }

    fn place(&self, params: &SpatialParams, crop: &Crop<'_>) -> (Array4<f32>, Array3<i16>) {
        match params.is_identity() {
            true => crop.centre(self.crop_size, self.patch_size),
            false => {
                let spatial = &self.transforms.spatial;
                transform(spatial, params, crop, self.crop_size, self.patch_size)
            }
        }
    }

    /// The steps that change voxel values and leave them where they are.
    fn recolour(
        &self,
        step: &AugmentationStep,
        params: &AugmentationParams,
        image: &mut Array4<f32>,
    ) {
        let (own, flat) = (self.conventions, self.transforms.spatial.slice_by_slice);
        match step {
            AugmentationStep::Noise => {
                if let Some(params) = &params.noise {
                    noise(params, image);
                }
            }
            AugmentationStep::Blur => {
                each(image, &params.blur, |c, sigma| blur(c, *sigma, own.blur))
            }
            AugmentationStep::Brightness => {
                each(image, &params.brightness, |c, factor| brightness(c, *factor))
            }
            AugmentationStep::Contrast => {
                each(image, &params.contrast, |c, factor| contrast(c, *factor))
            }
            AugmentationStep::LowResolution => {
                each(image, &params.low_resolution, |channel, scale| {
                    low_resolution(channel, *scale, flat, own.order);
                })
            }
            AugmentationStep::GammaInverted => {
                each(image, &params.gamma_inverted, |channel, exponent| {
                    gamma(channel, *exponent, true, own.gamma);
                })
            }
            AugmentationStep::Gamma => each(image, &params.gamma, |channel, exponent| {
                gamma(channel, *exponent, false, own.gamma);
            }),
            AugmentationStep::Spatial | AugmentationStep::Mirror | AugmentationStep::Own(_) => {}
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
