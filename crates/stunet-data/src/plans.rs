//! Plans: spacing, axis order, normalisation, window size, and which nnU-Net version's arithmetic applies.

mod configuration;
pub mod keys;
mod orientation;
mod v1;
mod v2;

pub use crate::reference::{Accumulation, Reference};
pub use configuration::Configuration;
pub use orientation::{OrientationChoice, SeenOrientation, TrainedOrientation};

use crate::compare::Differences;
use crate::error::{DataError, Result, invalid};
use crate::files;
use crate::geometry::Orientation;
use crate::nifti::Reader;
use crate::preprocess::resample::Resampling;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;

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
    /// The caller's own: see [`Preprocessor`](crate::preprocess::Preprocessor). Without it the plans
    /// can be read, and no image prepared by them.
    Own,
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
    /// Which of nnU-Net's readers opens the images: some turn them.
    pub reader: Reader,
    /// How the axes of the training images ran, as the reader gave them; none where nobody has said.
    pub orientation: Option<TrainedOrientation>,
    /// Which configuration of the source these plans are, such as `3d_fullres`.
    pub configuration: String,
    /// Window of inference and patch of training, voxels in the network's frame.
    pub patch_size: [usize; 3],
    /// Spacing the network works at, mm in the network's frame.
    pub spacing_mm: [f64; 3],
    /// Axis of the file that becomes network axis 0, 1, 2.
    pub transpose_forward: [usize; 3],
    /// Strides of the encoder's stages after the first; five of an STU-Net.
    pub strides: Vec<[usize; 3]>,
    /// Input channels.
    pub channels: Vec<ChannelPlan>,
    /// Spatial axes of the network's frame that test-time mirroring flips.
    pub mirror_axes: Vec<usize>,
    /// Resample the coarse axis apart: decided by the spacing unless forced.
    pub force_separate_z: Option<bool>,
    /// Whose functions resample.
    pub resampling: Resampling,
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
    ///
    /// They were trained on TotalSegmentator's images as these are published, whose axes run RAS:
    /// TotalSegmentator brings every image there by nibabel's `as_closest_canonical`.
    pub fn totalsegmentator() -> Self {
        Self {
            reference: Reference::NnUNetV1,
            accumulation: Accumulation::F32,
            reader: Reader::SimpleItk,
            orientation: Some(TrainedOrientation::all(Orientation::RAS)),
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
            resampling: Resampling::default(),
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
        Self::from_v2_json_with(plans, dataset, configuration, &[])
    }

    /// As [`from_v2_json`](Self::from_v2_json), where the schemes of normalisation named in `own` are
    /// ones that the caller has: their channels get [`Normalization::Own`].
    ///
    /// # Errors
    /// As [`from_v2_json`](Self::from_v2_json).
    pub fn from_v2_json_with(
        plans: &Value,
        dataset: &Value,
        configuration: &str,
        own: &[&str],
    ) -> Result<Self> {
        let mut plans = v2::import(plans, dataset, configuration, own)?;
        plans.strides = five_strides(plans.strides, &mut plans.notes);
        plans.checked()
    }

    /// As [`from_v2_json`](Self::from_v2_json), with as many strides as the plans have: for networks
    /// that are built as the plans say, where STU-Net always has five.
    ///
    /// # Errors
    /// As [`from_v2_json`](Self::from_v2_json).
    pub fn from_v2_json_as_planned(
        plans: &Value,
        dataset: &Value,
        configuration: &str,
    ) -> Result<Self> {
        v2::import(plans, dataset, configuration, &[])?.checked()
    }

    /// Every entry in which two plans differ, these first. That only one of them says how the axes of
    /// the training images ran is no difference: earlier versions and nnU-Net do not say it.
    ///
    /// # Errors
    /// When an entry cannot be written as JSON.
    pub fn differences(&self, other: &Self) -> Result<Differences> {
        let found = crate::compare::differences(self, other)?;
        Ok(match (self.orientation, other.orientation) {
            (Some(_), Some(_)) => found,
            _ => found.without(&["orientation"]),
        })
    }

    /// The strides of an STU-Net, which has five.
    ///
    /// # Errors
    /// When the plans have another number: they are those of another network.
    pub fn stunet_strides(&self) -> Result<[[usize; 3]; NUM_STRIDES]> {
        self.strides.clone().try_into().map_err(|found: Vec<[usize; 3]>| {
            let expected = "five triples, as STU-Net has";
            invalid("plans", "strides", expected, format_args!("{found:?}"))
        })
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
        // Memory is counted in voxels from here on: no product of these may overflow.
        if self.patch_size.iter().map(|n| *n as f64).product::<f64>() > MAX_PATCH {
            return bad("patch_size", "a window of at most 2^31 voxels", &self.patch_size);
        }
        if self.num_outputs.is_some_and(|n| !(1..=MAX_OUTPUTS).contains(&n)) {
            return bad("num_outputs", "1 to 65536", &self.num_outputs);
        }
        if self.spacing_mm.iter().any(|s| !(*s > 0.0 && *s <= MAX_SPACING)) {
            let expected = format!("three lengths above 0, at most {MAX_SPACING} mm");
            return bad("spacing_mm", &expected, &self.spacing_mm);
        }
        let mut axes = self.transpose_forward;
        axes.sort_unstable();
        if axes != [0, 1, 2] {
            return bad("transpose_forward", "an order of 0, 1, 2", &self.transpose_forward);
        }
        if self.strides.len() > MAX_STRIDES
            || self.strides.iter().flatten().any(|s| !(1..=16).contains(s))
        {
            return bad("strides", "at most fifteen triples of 1 to 16", &self.strides);
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
        files::read_json(path)
    }

    /// Writes our own `plans.json`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        files::save_json(path, self)
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

/// Most voxels of a window: one of 1290³ fits no machine's network.
const MAX_PATCH: f64 = (1u64 << 31) as f64;
/// Labels are 16 bits wide.
const MAX_OUTPUTS: usize = 1 << 16;
/// Largest spacing of a plan, in mm: far beyond any unit that people write spacings in, and below it
/// every volume has a size.
const MAX_SPACING: f64 = 1e6;

/// The reader that nnU-Net 2's `plans.json` names, for whoever needs no configuration of it.
///
/// # Errors
/// When the reader or the label manager is not known here.
pub fn v2_reader(plans: &Value) -> Result<Reader> {
    v2::reader(plans)
}

/// Most strides of a plan: 16^15 is the largest product that a length can have.
const MAX_STRIDES: usize = 15;
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
            let found = match self.value.get(key) {
                // What Python writes as NaN is null here.
                Some(_) => "null or NaN",
                None => "nothing",
            };
            invalid(self.file, path.trim_start_matches('.'), "an entry", found)
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

/// What plans of nnU-Net say of the axes of their training images, in an entry of ours.
fn orientation_of(plans: &Entry<'_>) -> Result<Option<TrainedOrientation>> {
    let expected =
        "three letters such as \"RAS\", or {\"majority\": \"RAS\", \"unanimous\": false}";
    plans.find(keys::ORIENTATION).map(|entry| entry.parse(expected)).transpose()
}

const FORMAT: &str = "stunet-plans";

#[derive(Serialize, Deserialize)]
struct RawPlans {
    format: String,
    version: u32,
    reference: Reference,
    accumulation: Accumulation,
    /// Left out where it is the usual one.
    #[serde(default, skip_serializing_if = "is_usual")]
    reader: Reader,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    orientation: Option<TrainedOrientation>,
    configuration: String,
    patch_size: [usize; 3],
    spacing_mm: [f64; 3],
    transpose_forward: [usize; 3],
    strides: Vec<[usize; 3]>,
    channels: Vec<ChannelPlan>,
    mirror_axes: Vec<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    force_separate_z: Option<bool>,
    /// Left out where it is the usual one.
    #[serde(default, skip_serializing_if = "is_usual_resampling")]
    resampling: Resampling,
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

fn is_usual(reader: &Reader) -> bool {
    *reader == Reader::default()
}

fn is_usual_resampling(resampling: &Resampling) -> bool {
    *resampling == Resampling::default()
}

impl TryFrom<RawPlans> for Plans {
    type Error = DataError;

    fn try_from(raw: RawPlans) -> Result<Self> {
        files::check_format("plans", (&raw.format, raw.version), FORMAT)?;
        Self {
            reference: raw.reference,
            accumulation: raw.accumulation,
            reader: raw.reader,
            orientation: raw.orientation,
            configuration: raw.configuration,
            patch_size: raw.patch_size,
            spacing_mm: raw.spacing_mm,
            transpose_forward: raw.transpose_forward,
            strides: raw.strides,
            channels: raw.channels,
            mirror_axes: raw.mirror_axes,
            force_separate_z: raw.force_separate_z,
            resampling: raw.resampling,
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
            reader: p.reader,
            orientation: p.orientation,
            configuration: p.configuration,
            patch_size: p.patch_size,
            spacing_mm: p.spacing_mm,
            transpose_forward: p.transpose_forward,
            strides: p.strides,
            channels: p.channels,
            mirror_axes: p.mirror_axes,
            force_separate_z: p.force_separate_z,
            resampling: p.resampling,
            batch_size: p.batch_size,
            num_outputs: p.num_outputs,
            notes: p.notes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn v1() -> Value {
        json!({
            "init": ["", 0, "", "", false, 0, true, false, true],
            "plans": {
                "num_modalities": 2,
                "modalities": {"0": "CT", "1": "MR"},
                "normalization_schemes": {"0": "CT", "1": "nonCT"},
                "use_mask_for_norm": {"0": false, "1": true},
                "num_classes": 3,
                "transpose_forward": [2, 0, 1],
                "dataset_properties": {"intensityproperties": {"0": {
                    "mean": 33.5, "sd": 310.25, "percentile_00_5": -950.0, "percentile_99_5": 900.0
                }}},
                "plans_per_stage": {"0": {
                    "batch_size": 2,
                    "patch_size": [64, 96, 128],
                    "current_spacing": [3.0, 1.0, 0.5],
                    "pool_op_kernel_sizes": [[1, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2]]
                }}
            }
        })
    }

    #[test]
    fn v1_plans_from_a_model_pickle() {
        let plans = Plans::from_v1_json(&v1()).unwrap();
        assert_eq!(plans.reference, Reference::NnUNetV1);
        assert_eq!(plans.patch_size, [64, 96, 128]);
        assert_eq!(plans.spacing_mm, [3.0, 1.0, 0.5]);
        assert_eq!(plans.transpose_backward(), [1, 2, 0]);
        assert_eq!(plans.num_outputs, Some(4));
        assert_eq!(plans.channels[0].scheme, Normalization::Ct);
        assert_eq!(plans.channels[0].intensity.unwrap().std, 310.25);
        assert_eq!(plans.channels[1].scheme, Normalization::ZScore);
        assert!(plans.channels[1].use_mask);
        // Four poolings become five, and that is said.
        assert_eq!(plans.strides[4], [1, 1, 1]);
        assert!(plans.notes[0].contains("4 pooling stages"), "{:?}", plans.notes);
        let bare = &v1()["plans"];
        assert_eq!(Plans::from_v1_json(bare).unwrap(), plans);
    }

    #[test]
    fn too_many_poolings_are_cut() {
        let mut json = v1();
        json["plans"]["plans_per_stage"]["0"]["pool_op_kernel_sizes"] =
            json!([[2, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2], [1, 2, 2], [1, 1, 2]]);
        let plans = Plans::from_v1_json(&json).unwrap();
        assert_eq!(plans.strides.len(), 5);
        assert_eq!(plans.strides[4], [1, 2, 2]);
        assert!(plans.notes[0].contains("6 pooling stages"), "{:?}", plans.notes);
    }

    fn refused(edit: impl Fn(&mut Value), expected: &str) {
        let mut json = v1();
        edit(&mut json);
        let message = Plans::from_v1_json(&json).unwrap_err().to_string();
        assert!(message.contains(expected), "expected {expected:?}, found {message:?}");
    }

    #[test]
    fn bad_v1_plans_are_refused_by_key() {
        let stage = |json: &mut Value, key: &str, value: Value| {
            json["plans"]["plans_per_stage"]["0"][key] = value;
        };
        refused(|j| j["plans"]["plans_per_stage"] = Value::Null, "plans_per_stage: expected");
        refused(|j| j["init"][5] = json!(3), "plans_per_stage.3");
        refused(|j| stage(j, "patch_size", json!([64, 96])), "plans_per_stage.0.patch_size");
        refused(|j| stage(j, "patch_size", json!([64, 96, 100])), "a multiple of 16");
        refused(|j| stage(j, "current_spacing", json!([0.0, 1.0, 1.0])), "spacing_mm");
        refused(|j| stage(j, "current_spacing", json!([3.0, 1e308, 1.0])), "at most 1000000 mm");
        refused(|j| j["plans"]["transpose_forward"] = json!([0, 0, 1]), "transpose_forward");
        refused(|j| j["plans"]["num_modalities"] = json!(0), "num_modalities");
        refused(|j| j["plans"]["dataset_properties"] = Value::Null, "CT normalisation");
        refused(
            |j| j["plans"]["num_classes"] = json!(u64::MAX),
            "num_outputs: expected 1 to 65536",
        );
        refused(|j| stage(j, "patch_size", json!([1u64 << 40, 8, 8])), "at most 2^31 voxels");
    }

    fn v2(configuration: Value) -> Value {
        json!({
            "transpose_forward": [0, 1, 2],
            "foreground_intensity_properties_per_channel": {"0": {
                "mean": 33.5, "std": 310.25, "percentile_00_5": -950.0, "percentile_99_5": 900.0
            }},
            "configurations": {
                "base": {
                    "batch_size": 2,
                    "patch_size": [32, 96, 112],
                    "spacing": [4.5, 0.8, 0.8],
                    "normalization_schemes": ["CTNormalization"],
                    "use_mask_for_norm": [false],
                    "resampling_fn_data_kwargs": {"order": 3, "order_z": 0, "force_separate_z": null}
                },
                "3d_fullres": configuration
            }
        })
    }

    fn configuration_flat() -> Value {
        json!({"inherits_from": "base", "pool_op_kernel_sizes": [[1, 1, 1], [2, 2, 2]]})
    }

    fn dataset() -> Value {
        json!({"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": 1, "b": 2}})
    }

    /// A scheme that stunet does not have is refused unless the caller has it.
    #[test]
    fn own_schemes_are_read_where_they_are_supplied() {
        let pools = json!([[1, 1, 1], [1, 2, 2], [1, 2, 2], [2, 2, 2], [2, 2, 2]]);
        let mut plans = v2(json!({"inherits_from": "base", "pool_op_kernel_sizes": pools}));
        plans["configurations"]["base"]["normalization_schemes"] = json!(["HistogramMatching"]);
        let import = |own: &[&str]| Plans::from_v2_json_with(&plans, &dataset(), "3d_fullres", own);
        let line = import(&["Other"]).unwrap_err().to_string();
        assert!(line.contains("HistogramMatching"), "{line}");
        let plans = import(&["HistogramMatching"]).unwrap();
        assert_eq!(plans.channels[0].scheme, Normalization::Own);
    }

    #[test]
    fn v2_plans_flat_and_nested() {
        let pools = json!([[1, 1, 1], [1, 2, 2], [1, 2, 2], [2, 2, 2], [2, 2, 2]]);
        let flat = json!({"inherits_from": "base", "pool_op_kernel_sizes": pools});
        let nested = json!({
            "inherits_from": "base",
            "architecture": {"arch_kwargs": {"strides": pools}}
        });
        let import = |c| Plans::from_v2_json(&v2(c), &dataset(), "3d_fullres").unwrap();
        let (flat, nested) = (import(flat), import(nested));
        assert_eq!(flat.reference, Reference::NnUNetV22);
        assert_eq!(nested.reference, Reference::NnUNetV28);
        assert_eq!(flat.accumulation, Accumulation::F16);
        assert_eq!(flat.strides, [[1, 2, 2], [1, 2, 2], [2, 2, 2], [2, 2, 2], [1, 1, 1]]);
        assert_eq!(flat.num_outputs, Some(3));
        assert_eq!(flat.channels[0].name, "CT");
        assert_eq!(Plans { reference: Reference::NnUNetV28, ..flat }, nested);
    }

    /// As nnU-Net's planners with PyTorch's resampling write it.
    #[test]
    fn resampling_by_pytorch() {
        let mut child = json!({
            "inherits_from": "base",
            "pool_op_kernel_sizes": [[1, 1, 1], [2, 2, 2]]
        });
        for what in ["data", "seg", "probabilities"] {
            child[format!("resampling_fn_{what}")] = json!("resample_torch_fornnunet");
            child[format!("resampling_fn_{what}_kwargs")] = json!({
                "is_seg": what == "seg", "force_separate_z": false,
                "memefficient_seg_resampling": false
            });
        }
        let plans = Plans::from_v2_json(&v2(child), &dataset(), "3d_fullres").unwrap();
        assert_eq!((plans.resampling, plans.force_separate_z), (Resampling::Torch, Some(false)));
        let written = serde_json::to_value(&plans).unwrap();
        assert_eq!(written["resampling"], "resample_torch_fornnunet");
        assert_eq!(serde_json::from_value::<Plans>(written).unwrap(), plans);
        let usual = serde_json::to_value(Plans::totalsegmentator()).unwrap();
        assert!(usual.get("resampling").is_none(), "files of before stay what they are");
    }

    #[test]
    fn bad_v2_plans_are_refused_by_key() {
        let check = |edit: Value, expected: &str| {
            let mut c = json!({
                "inherits_from": "base",
                "pool_op_kernel_sizes": [[1, 1, 1], [2, 2, 2]]
            });
            c.as_object_mut().unwrap().extend(edit.as_object().unwrap().clone());
            let found = Plans::from_v2_json(&v2(c), &dataset(), "3d_fullres");
            let message = found.unwrap_err().to_string();
            assert!(message.contains(expected), "expected {expected:?}, found {message:?}");
        };
        check(json!({"patch_size": [96, 112]}), "patch_size: expected three lengths");
        check(json!({"previous_stage": "3d_lowres"}), "cascade");
        check(json!({"inherits_from": "3d_fullres"}), "inherit");
        check(json!({"inherits_from": "absent"}), "3d_fullres.inherits_from: expected one of base");
        check(json!({"pool_op_kernel_sizes": [[2, 2, 2]]}), "starts with [1, 1, 1]");
        check(json!({"normalization_schemes": ["Other"]}), "five schemes");
        check(json!({"use_mask_for_norm": []}), "use_mask_for_norm");
        check(json!({"resampling_fn_seg_kwargs": {"order": 0}}), "resampling_fn_seg_kwargs.order");
        check(json!({"resampling_fn_seg_kwargs": {}}), "expected order 1");
        let data = |edit: Value| {
            let mut arguments = json!({"order": 3, "order_z": 0});
            arguments.as_object_mut().unwrap().extend(edit.as_object().unwrap().clone());
            json!({"resampling_fn_data_kwargs": arguments})
        };
        check(data(json!({"is_seg": true})), "data_kwargs.is_seg: expected is_seg false");
        check(data(json!({"order_z": 1})), "data_kwargs.order_z");
        check(
            data(json!({"separate_z_anisotropy_threshold": 2})),
            "separate_z_anisotropy_threshold 3",
        );
        check(data(json!({"force_separate_z": "yes"})), "true, false or null");
        let functions = |of: [&str; 3]| {
            let [data, seg, probabilities] = of;
            json!({
                "resampling_fn_data": data, "resampling_fn_seg": seg,
                "resampling_fn_probabilities": probabilities,
            })
        };
        let (usual, torch) = ("resample_data_or_seg_to_shape", "resample_torch_fornnunet");
        check(
            functions(["no_resampling_hack", usual, usual]),
            "or resample_torch_fornnunet, found",
        );
        check(
            functions([torch, usual, torch]),
            "resampling_fn_seg: expected resample_torch_fornnunet",
        );
        let mut edit = functions([torch; 3]);
        edit["resampling_fn_seg_kwargs"] = json!({"memefficient_seg_resampling": true});
        check(edit.clone(), "memefficient_seg_resampling false");
        edit["resampling_fn_seg_kwargs"] = json!({"mode": "nearest"});
        check(edit, "mode \"linear\"");
        check(
            json!({
                "resampling_fn_data_kwargs": {"order": 3, "force_separate_z": true},
                "resampling_fn_seg_kwargs": {"order": 1, "force_separate_z": false},
            }),
            "the same force_separate_z",
        );
        check(json!({"preprocessor_name": "Mine"}), "DefaultPreprocessor");
        check(json!({"resampling_fn_data": "resample_torch"}), "resampling_fn_data");
    }

    #[test]
    fn what_plans_ask_for_by_name() {
        let check = |edit: Value, expected: Result<Reader, &str>| {
            let mut plans = v2(configuration_flat());
            plans.as_object_mut().unwrap().extend(edit.as_object().unwrap().clone());
            let found = Plans::from_v2_json(&plans, &dataset(), "3d_fullres");
            match (found, expected) {
                (Ok(found), Ok(expected)) => assert_eq!(found.reader, expected),
                (Err(error), Err(words)) => {
                    assert!(error.to_string().contains(words), "{words:?} in {error}")
                }
                (found, expected) => panic!("expected {expected:?}, found {found:?}"),
            }
        };
        check(json!({}), Ok(Reader::SimpleItk));
        for reader in Reader::ALL {
            check(json!({"image_reader_writer": reader.name()}), Ok(reader));
            check(json!({"image_reader_writer": reader}), Ok(reader));
        }
        for other in ["NaturalImage2DIO", "Tiff3DIO", "MyReader", ""] {
            check(json!({"image_reader_writer": other}), Err("image_reader_writer"));
        }
        check(json!({"image_reader_writer": 3}), Err("a reader's name"));
        check(json!({"label_manager": "LabelManager"}), Ok(Reader::SimpleItk));
        check(json!({"label_manager": "Mine"}), Err("label_manager: expected LabelManager"));
        check(json!({"transpose_backward": [0, 1, 2]}), Ok(Reader::SimpleItk));
        check(json!({"transpose_backward": [1, 0, 2]}), Err("which undoes transpose_forward"));
        check(json!({"transpose_backward": "x"}), Err("which undoes transpose_forward"));
    }

    #[test]
    fn what_nobody_acts_on_is_mentioned() {
        let mut plans = v2(configuration_flat());
        plans["remark"] = json!("by hand");
        plans["configurations"]["3d_fullres"]["patchsize"] = json!([1, 2, 3]);
        let found = Plans::from_v2_json(&plans, &dataset(), "3d_fullres").unwrap();
        let notes = found.notes.join("; ");
        assert!(notes.contains("keys of the plans") && notes.contains("remark"), "{notes}");
        assert!(notes.contains("keys of the configuration"), "{notes}");
        assert!(notes.contains("patchsize"), "{notes}");
    }

    #[test]
    fn saved_and_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plans.json");
        let plans = Plans::from_v1_json(&v1()).unwrap();
        plans.save(&path).unwrap();
        assert_eq!(Plans::load(&path).unwrap(), plans);
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, text.replace("[\n    64,", "[\n    63,")).unwrap();
        let message = Plans::load(&path).unwrap_err().to_string();
        assert!(message.contains("a multiple of"), "{message}");
        assert!(message.ends_with("plans.json"), "{message}");
    }

    #[test]
    fn spacings_survive_json_to_the_last_bit() {
        // Spacings of NIfTI files are single precision and have long decimals.
        for thousandths in 1..10_000u16 {
            let spacing = f64::from(f32::from(thousandths) * 1e-3);
            let text = serde_json::to_string(&spacing).unwrap();
            assert_eq!(serde_json::from_str::<f64>(&text).unwrap(), spacing, "{text}");
            let value: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(value.as_f64(), Some(spacing), "{text}");
        }
    }
}
