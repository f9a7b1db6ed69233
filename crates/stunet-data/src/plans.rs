//! What a model wants to see: spacing, axes, intensities, window, and whose arithmetic to follow.

mod v1;
mod v2;

use crate::error::{DataError, Result, invalid};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;

/// Which implementation's arithmetic is reproduced.
///
/// The three disagree in the order of preprocessing, in what is averaged over windows and in the
/// precision of the accumulators, so a model is tied to the one it was trained with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reference {
    /// nnU-Net 1.7: the published STU-Net models.
    #[serde(rename = "nnunet-1.7")]
    NnUNetV1,
    /// nnU-Net 2.2, the second code base of STU-Net.
    #[serde(rename = "nnunet-2.2")]
    NnUNetV22,
    /// nnU-Net 2.8.
    #[serde(rename = "nnunet-2.8")]
    NnUNetV28,
}

impl Reference {
    /// True for nnU-Net 1.
    pub fn is_v1(self) -> bool {
        self == Self::NnUNetV1
    }
}

/// Precision in which window predictions are summed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Accumulation {
    /// Single precision: the better choice, and the default of our own models.
    F32,
    /// Half precision, rounded after every window as nnU-Net 2 does: for equal voxels.
    F16,
}

/// How the intensities of one channel are normalised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Normalization {
    /// Clip to the training set's percentiles, then its mean and standard deviation.
    Ct,
    /// Clip to the training set's percentiles, then mean and standard deviation of the volume's own
    /// voxels between them (nnU-Net 1's `CT2`).
    CtPerVolume,
    /// Mean and standard deviation of the volume (nnU-Net 1's `nonCT`).
    ZScore,
    /// Unchanged.
    None,
    /// Minimum to 0, maximum to 1.
    RescaleZeroToOne,
    /// Divided by 255.
    RgbToZeroOne,
}

/// Intensities of the training set's foreground.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Intensity {
    /// Mean.
    pub mean: f64,
    /// Standard deviation.
    pub std: f64,
    /// 0.5th percentile.
    pub percentile_00_5: f64,
    /// 99.5th percentile.
    pub percentile_99_5: f64,
}

/// One input channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChannelPlan {
    /// Modality, such as `CT`.
    pub name: String,
    /// Normalisation.
    pub scheme: Normalization,
    /// Take statistics from the nonzero region only.
    #[serde(default)]
    pub use_mask: bool,
    /// Statistics of the training set, which the CT schemes need.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intensity: Option<Intensity>,
}

/// The recipe of one model.
///
/// # Shapes
/// Patch, spacing and strides are in the network's frame, which is the file's `[z, y, x]` after
/// `transpose_forward`.
///
/// ```
/// use stunet_data::plans::Plans;
/// let plans = Plans::totalsegmentator();
/// assert_eq!(plans.patch_size, [128, 128, 128]);
/// assert_eq!(plans.strides.last(), Some(&[1, 1, 2]));
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "RawPlans", into = "RawPlans")]
pub struct Plans {
    /// Whose arithmetic is reproduced.
    pub reference: Reference,
    /// Precision of the sums over windows.
    pub accumulation: Accumulation,
    /// Which configuration of the source these plans are, such as `3d_fullres`.
    pub configuration: String,
    /// Window of inference and patch of training, voxels in the network's frame.
    pub patch_size: [usize; 3],
    /// Spacing the network works at, mm in the network's frame.
    pub spacing_mm: [f64; 3],
    /// Axis of the file that becomes network axis 0, 1, 2.
    pub transpose_forward: [usize; 3],
    /// Strides of encoder stages 1 to 5.
    pub strides: Vec<[usize; 3]>,
    /// Input channels.
    pub channels: Vec<ChannelPlan>,
    /// Spatial axes of the network's frame that test-time mirroring flips.
    pub mirror_axes: Vec<usize>,
    /// Resample the coarse axis apart: decided by the spacing unless forced.
    pub force_separate_z: Option<bool>,
    /// Samples per training batch.
    pub batch_size: usize,
    /// Number of the network's outputs, where the source says so.
    pub num_outputs: Option<usize>,
    /// What was changed or assumed on import, one sentence each.
    pub notes: Vec<String>,
}

impl Plans {
    /// The plan of the published models (`*_ep4k`), which come without a plan of their own.
    ///
    /// Intensities are normalised by each volume's own mean and standard deviation: the published
    /// models are *not* CT-normalised.
    pub fn totalsegmentator() -> Self {
        Self {
            reference: Reference::NnUNetV1,
            accumulation: Accumulation::F32,
            configuration: "3d_fullres".to_owned(),
            patch_size: [128; 3],
            spacing_mm: [1.5; 3],
            transpose_forward: [0, 1, 2],
            strides: vec![[2, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2], [1, 1, 2]],
            channels: vec![ChannelPlan {
                name: "nonCT".to_owned(),
                scheme: Normalization::ZScore,
                use_mask: false,
                intensity: None,
            }],
            mirror_axes: vec![0, 1, 2],
            force_separate_z: None,
            batch_size: 2,
            num_outputs: Some(105),
            notes: Vec::new(),
        }
    }

    /// Reads nnU-Net 1's plans, converted from their pickle to JSON: `plans.pkl` or the whole
    /// content of a `.model.pkl`.
    ///
    /// The stage is the one the trainer was started with, else the last (full resolution).
    ///
    /// # Errors
    /// When an entry is missing or malformed; the published `plans.pkl` alone has no stages.
    pub fn from_v1_json(value: &Value) -> Result<Self> {
        v1::import(value)?.checked()
    }

    /// Reads one configuration of nnU-Net 2's `plans.json`, beside its `dataset.json`.
    ///
    /// Plans with flat keys are taken for version 2.2, plans with `architecture.arch_kwargs` for
    /// 2.8; set [`Plans::reference`] afterwards to choose otherwise.
    ///
    /// # Errors
    /// When an entry is missing, malformed or not supported (2-D, cascades, other resampling).
    pub fn from_v2_json(plans: &Value, dataset: &Value, configuration: &str) -> Result<Self> {
        v2::import(plans, dataset, configuration)?.checked()
    }

    /// Network axis that holds file axis 0, 1, 2: the inverse of `transpose_forward`.
    pub fn transpose_backward(&self) -> [usize; 3] {
        inverse(self.transpose_forward)
    }

    /// Number of input channels.
    pub fn num_channels(&self) -> usize {
        self.channels.len()
    }

    /// The same plans, checked.
    ///
    /// # Errors
    /// Names the first entry that cannot be used.
    pub fn checked(self) -> Result<Self> {
        let bad = |key, expected: &str, found: &dyn std::fmt::Debug| {
            Err(invalid("plans", key, expected, format_args!("{found:?}")))
        };
        if self.patch_size.contains(&0) {
            return bad("patch_size", "three lengths above 0", &self.patch_size);
        }
        if self.spacing_mm.iter().any(|s| !(s.is_finite() && *s > 0.0)) {
            return bad("spacing_mm", "three lengths above 0", &self.spacing_mm);
        }
        let mut axes = self.transpose_forward;
        axes.sort_unstable();
        if axes != [0, 1, 2] {
            return bad("transpose_forward", "an order of 0, 1, 2", &self.transpose_forward);
        }
        if self.strides.len() != NUM_STRIDES
            || self.strides.iter().flatten().any(|s| !(1..=16).contains(s))
        {
            return bad("strides", "five triples of 1 to 16", &self.strides);
        }
        for axis in 0..3 {
            let total: usize = self.strides.iter().map(|s| s[axis]).product();
            if !self.patch_size[axis].is_multiple_of(total) {
                let expected = format!("a multiple of {total} along axis {axis}");
                return bad("patch_size", &expected, &self.patch_size);
            }
        }
        if self.channels.is_empty() {
            return bad("channels", "at least one", &0);
        }
        for channel in &self.channels {
            channel.check()?;
        }
        let sorted = self.mirror_axes.windows(2).all(|w| w[0] < w[1]);
        if !sorted || self.mirror_axes.iter().any(|a| *a > 2) {
            return bad("mirror_axes", "ascending axes of 0, 1, 2", &self.mirror_axes);
        }
        Ok(self)
    }

    /// Reads our own `plans.json`.
    ///
    /// # Errors
    /// When the file is missing or malformed.
    pub fn load(path: &Path) -> Result<Self> {
        load_json(path)
    }

    /// Writes our own `plans.json`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        save_json(path, self)
    }
}

impl ChannelPlan {
    fn check(&self) -> Result<()> {
        let needs = matches!(self.scheme, Normalization::Ct | Normalization::CtPerVolume);
        match self.intensity {
            None if needs => Err(invalid(
                "plans",
                format!("channels.{}.intensity", self.name),
                "statistics of the training set (CT normalisation)",
                "none",
            )),
            Some(i)
                if ![i.mean, i.std, i.percentile_00_5, i.percentile_99_5]
                    .iter()
                    .all(|v| v.is_finite()) =>
            {
                Err(invalid(
                    "plans",
                    format!("channels.{}.intensity", self.name),
                    "finite statistics",
                    format_args!("{i:?}"),
                ))
            }
            _ => Ok(()),
        }
    }
}

/// STU-Net has five strided encoder stages, whatever the plan says.
pub const NUM_STRIDES: usize = 5;

/// Cuts or fills the plan's strides to five, as STU-Net does, and says so.
fn five_strides(mut strides: Vec<[usize; 3]>, notes: &mut Vec<String>) -> Vec<[usize; 3]> {
    let found = strides.len();
    if found != NUM_STRIDES {
        let how = if found > NUM_STRIDES {
            "the last ones are dropped"
        } else {
            "filled up with [1, 1, 1]"
        };
        notes
            .push(format!("the plan has {found} pooling stages, STU-Net has {NUM_STRIDES}: {how}"));
        strides.resize(NUM_STRIDES, [1, 1, 1]);
    }
    strides
}

pub(crate) fn inverse(order: [usize; 3]) -> [usize; 3] {
    let mut inverse = [0; 3];
    for (to, from) in order.into_iter().enumerate() {
        inverse[from] = to;
    }
    inverse
}

/// Access to JSON entries with errors that name the file and the key.
struct Entry<'a> {
    file: &'static str,
    value: &'a Value,
    path: String,
}

impl<'a> Entry<'a> {
    fn root(file: &'static str, value: &'a Value) -> Self {
        Self { file, value, path: String::new() }
    }

    fn find(&self, key: &str) -> Option<Entry<'a>> {
        let value = self.value.get(key).filter(|v| !v.is_null())?;
        let path = match self.path.as_str() {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        };
        Some(Entry { file: self.file, value, path })
    }

    fn get(&self, key: &str) -> Result<Entry<'a>> {
        let missing = || {
            let path = format!("{}.{key}", self.path);
            invalid(self.file, path.trim_start_matches('.'), "an entry", "nothing")
        };
        self.find(key).ok_or_else(missing)
    }

    fn bad(&self, expected: &str) -> DataError {
        let mut found = self.value.to_string();
        if found.len() > 80 {
            let cut = (0..=80).rev().find(|i| found.is_char_boundary(*i));
            found.truncate(cut.unwrap_or(0));
            found.push_str("...");
        }
        invalid(self.file, self.path.clone(), expected, found)
    }

    fn parse<T: DeserializeOwned>(&self, expected: &str) -> Result<T> {
        T::deserialize(self.value).map_err(|_| self.bad(expected))
    }
}

pub(crate) fn load_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = std::fs::read_to_string(path).map_err(|e| DataError::io("read", e).at(path))?;
    serde_json::from_str(&text).map_err(|e| DataError::Json(e).at(path))
}

pub(crate) fn save_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let mut text = serde_json::to_string_pretty(value).map_err(|e| DataError::Json(e).at(path))?;
    text.push('\n');
    crate::nifti::write_then_rename(path, |file| {
        std::io::Write::write_all(file, text.as_bytes()).map_err(|e| DataError::io("write", e))
    })
}

pub(crate) fn check_format(
    file: &'static str,
    found: (&str, u32),
    expected: &'static str,
) -> Result<()> {
    match found {
        (format, 1) if format == expected => Ok(()),
        (format, version) => Err(invalid(
            file,
            "format",
            format!("{expected} version 1"),
            format_args!("{format} version {version}"),
        )),
    }
}

const FORMAT: &str = "stunet-plans";

#[derive(Serialize, Deserialize)]
struct RawPlans {
    format: String,
    version: u32,
    reference: Reference,
    accumulation: Accumulation,
    configuration: String,
    patch_size: [usize; 3],
    spacing_mm: [f64; 3],
    transpose_forward: [usize; 3],
    strides: Vec<[usize; 3]>,
    channels: Vec<ChannelPlan>,
    mirror_axes: Vec<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    force_separate_z: Option<bool>,
    #[serde(default = "default_batch_size")]
    batch_size: usize,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    num_outputs: Option<usize>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
}

fn default_batch_size() -> usize {
    2
}

impl TryFrom<RawPlans> for Plans {
    type Error = DataError;

    fn try_from(raw: RawPlans) -> Result<Self> {
        check_format("plans", (&raw.format, raw.version), FORMAT)?;
        Self {
            reference: raw.reference,
            accumulation: raw.accumulation,
            configuration: raw.configuration,
            patch_size: raw.patch_size,
            spacing_mm: raw.spacing_mm,
            transpose_forward: raw.transpose_forward,
            strides: raw.strides,
            channels: raw.channels,
            mirror_axes: raw.mirror_axes,
            force_separate_z: raw.force_separate_z,
            batch_size: raw.batch_size,
            num_outputs: raw.num_outputs,
            notes: raw.notes,
        }
        .checked()
    }
}

impl From<Plans> for RawPlans {
    fn from(p: Plans) -> Self {
        Self {
            format: FORMAT.to_owned(),
            version: 1,
            reference: p.reference,
            accumulation: p.accumulation,
            configuration: p.configuration,
            patch_size: p.patch_size,
            spacing_mm: p.spacing_mm,
            transpose_forward: p.transpose_forward,
            strides: p.strides,
            channels: p.channels,
            mirror_axes: p.mirror_axes,
            force_separate_z: p.force_separate_z,
            batch_size: p.batch_size,
            num_outputs: p.num_outputs,
            notes: p.notes,
        }
    }
}
