//! Which transforms, with which probabilities and ranges, in which order.

use super::{
    Blur, Brightness, Contrast, Gamma, LowResolution, Mirror, Noise, PatchTransform, Spatial,
};
use crate::error::{DataError, Result};
use crate::reference::AugmentationConventions;
use std::fmt::{self, Debug};
use std::sync::Arc;

/// Probabilities and ranges of the built-in transforms.
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

impl Transforms {
    /// The reference's probabilities and ranges; slice by slice for flat patches.
    pub fn of(conventions: &'static AugmentationConventions, slice_by_slice: bool) -> Self {
        Self {
            spatial: Spatial::of(conventions, slice_by_slice),
            noise: Noise { probability: 0.1, std: (0.0, 0.1) },
            blur: Blur {
                probability: 0.2,
                per_channel: 0.5,
                sigma: (0.5, 1.0),
                one_sigma: conventions.one_sigma,
            },
            brightness: Brightness {
                probability: 0.15,
                factor: (0.75, 1.25),
                balanced: conventions.balanced_brightness,
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

    /// What cannot be drawn is refused before anything is.
    pub(super) fn check(&self) -> Result<()> {
        let Self {
            spatial,
            noise,
            blur,
            brightness,
            contrast,
            low_resolution,
            gamma_inverted,
            gamma,
            mirror,
        } = self;
        let probabilities = [
            ("rotation", spatial.rotation_probability),
            ("scaling", spatial.scaling_probability),
            ("noise", noise.probability),
            ("blur", blur.probability),
            ("blur per channel", blur.per_channel),
            ("brightness", brightness.probability),
            ("contrast", contrast.probability),
            ("low resolution", low_resolution.probability),
            ("low resolution per channel", low_resolution.per_channel),
            ("gamma of the inverted image", gamma_inverted.probability),
            ("gamma", gamma.probability),
            ("mirroring along z", mirror.probabilities[0]),
            ("mirroring along y", mirror.probabilities[1]),
            ("mirroring along x", mirror.probabilities[2]),
        ];
        let ranges = [
            (
                "largest angle of rotation",
                Bounds::FROM_ZERO,
                (spatial.max_angle, spatial.max_angle),
            ),
            ("scaling", Bounds::about_one(spatial.flavour.balanced_scale), spatial.scale),
            ("noise", Bounds::FROM_ZERO, noise.std),
            ("blur", Bounds { most: LARGEST_SIGMA, ..Bounds::ABOVE_ZERO }, blur.sigma),
            ("brightness", Bounds::about_one(brightness.balanced), brightness.factor),
            ("contrast", Bounds::about_one(true), contrast.factor),
            ("low resolution", Bounds { most: 1.0, ..Bounds::ABOVE_ZERO }, low_resolution.scale),
            ("gamma of the inverted image", Bounds::about_one(true), gamma_inverted.exponent),
            ("gamma", Bounds::about_one(true), gamma.exponent),
        ];
        for (what, probability) in probabilities {
            if !(0.0..=1.0).contains(&probability) {
                return Err(refused(what, "a probability of 0 to 1", probability));
            }
        }
        for (what, bounds, (low, high)) in ranges {
            if !bounds.hold(low, high) {
                return Err(refused(what, bounds.to_string(), format_args!("{low} to {high}")));
            }
        }
        Ok(())
    }
}

/// Voxels; the kernel is eight times as long.
const LARGEST_SIGMA: f64 = 64.0;
/// Far beyond what any transform has a use for; differences of such numbers are finite.
const LARGEST: f64 = 1e6;

/// Where a range may lie.
struct Bounds {
    /// The lower end is above 0, not 0.
    above_zero: bool,
    most: f64,
    /// Half of the values are drawn above 1, and so there have to be some.
    reaches_one: bool,
}

impl Bounds {
    const FROM_ZERO: Self = Self { above_zero: false, most: LARGEST, reaches_one: false };
    const ABOVE_ZERO: Self = Self { above_zero: true, ..Self::FROM_ZERO };

    fn about_one(balanced: bool) -> Self {
        Self { reaches_one: balanced, ..Self::ABOVE_ZERO }
    }

    fn hold(&self, low: f64, high: f64) -> bool {
        let begins = if self.above_zero { low > 0.0 } else { low >= 0.0 };
        begins && low <= high && high <= self.most && (!self.reaches_one || high >= 1.0)
    }
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let from = if self.above_zero { "above 0" } else { "from 0" };
        write!(f, "a range from low to high, {from}, up to {}", self.most)?;
        if self.reaches_one { write!(f, ", that ends at 1 or above") } else { Ok(()) }
    }
}

fn refused(what: &str, expected: impl Into<String>, found: impl fmt::Display) -> DataError {
    DataError::Augmentation {
        what: what.to_owned(),
        expected: expected.into(),
        found: found.to_string(),
    }
}

/// One step of a recipe: a built-in transform, or one's own.
#[derive(Clone, Debug)]
pub enum AugmentationStep {
    /// Rotation and scaling, which cut the patch from its crop: the first, if at all.
    Spatial,
    /// Gaussian noise.
    Noise,
    /// Gaussian blur.
    Blur,
    /// Brightness.
    Brightness,
    /// Contrast.
    Contrast,
    /// Low resolution.
    LowResolution,
    /// Gamma of the inverted image.
    GammaInverted,
    /// Gamma.
    Gamma,
    /// Mirroring.
    Mirror,
    /// One's own.
    Own(Arc<dyn PatchTransform>),
}

/// Steps of one's own are equal when their descriptions are.
impl PartialEq for AugmentationStep {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Own(a), Self::Own(b)) => a.describe() == b.describe(),
            _ => std::mem::discriminant(self) == std::mem::discriminant(other),
        }
    }
}

impl AugmentationStep {
    /// A step of one's own.
    pub fn own(transform: impl PatchTransform + 'static) -> Self {
        Self::Own(Arc::new(transform))
    }

    /// All built-in ones, in the reference's order.
    pub fn all() -> Vec<Self> {
        use AugmentationStep::*;
        vec![
            Spatial,
            Noise,
            Blur,
            Brightness,
            Contrast,
            LowResolution,
            GammaInverted,
            Gamma,
            Mirror,
        ]
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Spatial => "rotation and scaling",
            Self::Noise => "noise",
            Self::Blur => "blur",
            Self::Brightness => "brightness",
            Self::Contrast => "contrast",
            Self::LowResolution => "low resolution",
            Self::GammaInverted => "gamma of the inverted image",
            Self::Gamma => "gamma",
            Self::Mirror => "mirror",
            Self::Own(_) => "own",
        }
    }

    /// Its name, with its settings where they are not the reference's.
    pub(super) fn describe(&self, own: &Transforms, stock: &Transforms) -> String {
        let of = |own: &dyn Debug, stock: &dyn Debug| {
            let (own, stock) = (format!("{own:?}"), format!("{stock:?}"));
            match own == stock {
                true => self.name().to_owned(),
                false => format!("{} with {own}", self.name()),
            }
        };
        match self {
            Self::Spatial => of(&own.spatial, &stock.spatial),
            Self::Noise => of(&own.noise, &stock.noise),
            Self::Blur => of(&own.blur, &stock.blur),
            Self::Brightness => of(&own.brightness, &stock.brightness),
            Self::Contrast => of(&own.contrast, &stock.contrast),
            Self::LowResolution => of(&own.low_resolution, &stock.low_resolution),
            Self::GammaInverted => of(&own.gamma_inverted, &stock.gamma_inverted),
            Self::Gamma => of(&own.gamma, &stock.gamma),
            Self::Mirror => of(&own.mirror, &stock.mirror),
            Self::Own(transform) => transform.describe(),
        }
    }

    pub(super) fn check(steps: &[Self]) -> Result<()> {
        if let Some(place) = steps.iter().skip(1).position(|step| *step == Self::Spatial) {
            let found = format!("step {}", place + 2);
            return Err(refused("rotation and scaling", "the first step, or none", found));
        }
        for (index, step) in steps.iter().enumerate() {
            if !matches!(step, Self::Own(_)) && steps[..index].contains(step) {
                return Err(refused(step.name(), "once among the steps", "twice"));
            }
        }
        Ok(())
    }
}
