//! The family of networks as a table, and one member's configuration.

use crate::ModelError;
use burn::config::{Config, config_to_json};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Stages of the encoder, bottleneck included.
pub const NUM_STAGES: usize = 6;
/// Upsampling stages, one between each two stages.
pub const NUM_UPSAMPLINGS: usize = NUM_STAGES - 1;

/// The published sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StuNetSize {
    /// 14.6 M parameters.
    Small,
    /// 58.26 M parameters.
    Base,
    /// 440.3 M parameters.
    Large,
    /// 1457.33 M parameters.
    Huge,
}

impl StuNetSize {
    /// All sizes, smallest first.
    pub const ALL: [Self; 4] = [Self::Small, Self::Base, Self::Large, Self::Huge];

    /// Depth (blocks per stage) and width (features per stage): the whole family.
    ///
    /// # Source
    /// Huang et al., "STU-Net: Scalable and Transferable Medical Image Segmentation Models
    /// Empowered by Large-Scale Supervised Pre-training", table 1.
    pub const fn depth_and_width(self) -> (usize, [usize; NUM_STAGES]) {
        match self {
            Self::Small => (1, [16, 32, 64, 128, 256, 256]),
            Self::Base => (1, [32, 64, 128, 256, 512, 512]),
            Self::Large => (2, [64, 128, 256, 512, 1024, 1024]),
            Self::Huge => (3, [96, 192, 384, 768, 1536, 1536]),
        }
    }

    /// The name used on the command line and in checkpoints: `small`, `base`, `large`, `huge`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Base => "base",
            Self::Large => "large",
            Self::Huge => "huge",
        }
    }
}

/// One network: everything that decides its parameters and its arithmetic.
///
/// A Burn [`Config`]: saved and loaded by it, and the module is made by
/// [`init`](Self::init). The trait is implemented by hand, since the derived one would
/// take a file with unknown keys for this network.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// use stunet_model::{StuNetConfig, cost};
/// assert_eq!(cost::num_parameters(&StuNetConfig::base(1, 105)), 58_262_669);
///
/// let device = Device::flex();
/// let config = StuNetConfig::small(1, 3).with_width([2, 2, 4, 4, 8, 8]);
/// let network = config.init(&device);
/// assert_eq!(network.forward(Tensor::ones([1, 1, 16, 16, 64], &device)).dims()[1], 3);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StuNetConfig {
    /// Input channels.
    pub in_channels: usize,
    /// Classes, background included.
    pub num_classes: usize,
    /// Features of each stage, finest first.
    pub width: [usize; NUM_STAGES],
    /// Residual blocks of each stage; the decoder repeats them.
    pub depth: [usize; NUM_STAGES],
    /// Stride into each stage after the first, `[z, y, x]`.
    pub strides: [[usize; 3]; NUM_UPSAMPLINGS],
}

impl StuNetConfig {
    /// The strides of the published models: the last pools along x only.
    pub const PUBLISHED_STRIDES: [[usize; 3]; NUM_UPSAMPLINGS] =
        [[2, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2], [1, 1, 2]];

    /// A published size with the published strides.
    pub fn new(size: StuNetSize, in_channels: usize, num_classes: usize) -> Self {
        let (depth, width) = size.depth_and_width();
        Self {
            in_channels,
            num_classes,
            width,
            depth: [depth; NUM_STAGES],
            strides: Self::PUBLISHED_STRIDES,
        }
    }

    /// STU-Net-S.
    pub fn small(in_channels: usize, num_classes: usize) -> Self {
        Self::new(StuNetSize::Small, in_channels, num_classes)
    }

    /// STU-Net-B.
    pub fn base(in_channels: usize, num_classes: usize) -> Self {
        Self::new(StuNetSize::Base, in_channels, num_classes)
    }

    /// STU-Net-L.
    pub fn large(in_channels: usize, num_classes: usize) -> Self {
        Self::new(StuNetSize::Large, in_channels, num_classes)
    }

    /// STU-Net-H.
    pub fn huge(in_channels: usize, num_classes: usize) -> Self {
        Self::new(StuNetSize::Huge, in_channels, num_classes)
    }

    /// The same network with other numbers of features, finest stage first.
    #[must_use]
    pub fn with_width(self, width: [usize; NUM_STAGES]) -> Self {
        Self { width, ..self }
    }

    /// The same network with other numbers of residual blocks, finest stage first.
    #[must_use]
    pub fn with_depth(self, depth: [usize; NUM_STAGES]) -> Self {
        Self { depth, ..self }
    }

    /// The same network with other strides, finest first, `[z, y, x]`.
    #[must_use]
    pub fn with_strides(self, strides: [[usize; 3]; NUM_UPSAMPLINGS]) -> Self {
        Self { strides, ..self }
    }

    /// The published size this configuration has, if any.
    pub fn size(&self) -> Option<StuNetSize> {
        StuNetSize::ALL.into_iter().find(|size| {
            let (depth, width) = size.depth_and_width();
            self.width == width && self.depth == [depth; NUM_STAGES]
        })
    }

    /// The factor by which the bottleneck is smaller than the input, `[z, y, x]`; patch sizes are
    /// multiples of it.
    pub fn total_stride(&self) -> [usize; 3] {
        let mut total = [1; 3];
        for stride in self.strides {
            for (t, s) in total.iter_mut().zip(stride) {
                *t *= s;
            }
        }
        total
    }

    /// Spatial size of every stage for an input of size `input`, `[z, y, x]`.
    pub fn stage_sizes(&self, input: [usize; 3]) -> [[usize; 3]; NUM_STAGES] {
        let mut sizes = [input; NUM_STAGES];
        for (stage, stride) in self.strides.iter().enumerate() {
            for axis in 0..3 {
                sizes[stage + 1][axis] = sizes[stage][axis].div_ceil(stride[axis]);
            }
        }
        sizes
    }

    /// Checks what a network needs.
    ///
    /// # Errors
    /// [`ModelError::Config`] naming the field, when a count is zero or beyond reason.
    pub fn validate(&self) -> Result<(), ModelError> {
        const MOST: usize = 1 << 16;
        let count =
            |what, values: &[usize], most| match values.iter().find(|v| !(1..=most).contains(*v)) {
                Some(found) => Err(ModelError::config(what, format!("1 to {most}"), found)),
                None => Ok(()),
            };
        count("in_channels", &[self.in_channels], MOST)?;
        count("num_classes", &[self.num_classes], MOST)?;
        count("width", &self.width, MOST)?;
        count("depth", &self.depth, 64)?;
        count("strides", self.strides.as_flattened(), 8)
    }

    /// Checks that a patch fits the network: every axis a multiple of the total stride, and more
    /// than one voxel left at the bottleneck.
    ///
    /// # Errors
    /// [`ModelError::Config`] with the sizes.
    pub fn validate_patch(&self, patch: [usize; 3]) -> Result<(), ModelError> {
        let total = self.total_stride();
        if (0..3).any(|axis| patch[axis] == 0 || !patch[axis].is_multiple_of(total[axis])) {
            return Err(ModelError::config("patch size", format!("multiples of {total:?}"), patch));
        }
        let bottleneck = self.stage_sizes(patch)[NUM_STAGES - 1];
        if bottleneck.iter().product::<usize>() < 2 {
            let expected = "more than one voxel at the bottleneck".to_string();
            return Err(ModelError::config("patch size", expected, patch));
        }
        Ok(())
    }
}

impl Config for StuNetConfig {}

/// As JSON, like every Burn configuration.
impl fmt::Display for StuNetConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&config_to_json(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saved_and_loaded_as_burn_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        let config = StuNetConfig::large(2, 7).with_depth([1, 2, 3, 1, 2, 3]);
        config.save(&path).unwrap();
        assert_eq!(StuNetConfig::load(&path).unwrap(), config);
        assert_eq!(StuNetConfig::load_binary(config.to_string().as_bytes()).unwrap(), config);
        // The shape of the object in `network.json`.
        let json: serde_json::Value = serde_json::from_str(&config.to_string()).unwrap();
        let expected = serde_json::json!({
            "in_channels": 2, "num_classes": 7, "width": [64, 128, 256, 512, 1024, 1024],
            "depth": [1, 2, 3, 1, 2, 3],
            "strides": [[2, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2], [1, 1, 2]]
        });
        assert_eq!(json, expected);
        let unknown = config.to_string().replace("\"depth\"", "\"activation\": 1, \"depth\"");
        let error = StuNetConfig::load_binary(unknown.as_bytes()).unwrap_err().to_string();
        assert!(error.contains("unknown field `activation`"), "{error}");
    }

    #[test]
    fn sizes_by_name() {
        let by_name = [
            StuNetConfig::small(1, 2),
            StuNetConfig::base(1, 2),
            StuNetConfig::large(1, 2),
            StuNetConfig::huge(1, 2),
        ];
        assert_eq!(by_name, StuNetSize::ALL.map(|size| StuNetConfig::new(size, 1, 2)));
        let other = StuNetConfig::small(1, 2).with_strides([[1; 3]; 5]).with_width([1; 6]);
        assert_eq!((other.strides, other.width), ([[1; 3]; 5], [1; 6]));
    }

    #[test]
    fn published_bottleneck_is_8_8_4() {
        let config = StuNetConfig::small(1, 105);
        assert_eq!(config.total_stride(), [16, 16, 32]);
        assert_eq!(config.stage_sizes([128; 3])[5], [8, 8, 4]);
        assert_eq!(config.size(), Some(StuNetSize::Small));
    }

    #[test]
    fn bad_configurations_name_the_field() {
        let check = |config: StuNetConfig, word: &str| {
            let text = config.validate().unwrap_err().to_string();
            assert!(text.contains(word), "{text}");
        };
        let good = StuNetConfig::small(1, 2);
        good.validate().unwrap();
        check(StuNetConfig { in_channels: 0, ..good.clone() }, "in_channels");
        check(StuNetConfig { num_classes: 0, ..good.clone() }, "num_classes");
        check(StuNetConfig { width: [0; 6], ..good.clone() }, "width");
        check(StuNetConfig { depth: [0; 6], ..good.clone() }, "depth");
        check(StuNetConfig { strides: [[0, 1, 1]; 5], ..good.clone() }, "strides");
        assert!(good.validate_patch([32; 3]).is_ok());
        assert!(good.validate_patch([16, 16, 32]).is_err());
        assert!(good.validate_patch([32, 32, 48]).is_err());
    }
}
