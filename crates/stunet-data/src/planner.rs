//! From a dataset's fingerprint to a plan: spacing, axes, patch, pooling, batch, normalisation.
//!
//! The rules are nnU-Net's, of version 1 (`ExperimentPlanner3D_v21`) or 2 (`ExperimentPlanner`),
//! and so are the plans: the JSON that [`Planned::json`] holds is the reference's own, field by
//! field. [`Plans`] reads it back.
//!
//! They plan for nnU-Net's plain networks. STU-Net takes the patch, the batch and the first five
//! poolings, and its own widths; [`Planned::notes`] says where that changes the plan.
//!
//! # Deviations
//! * Where two axes of the patch are equally large beside the median shape, the later one is
//!   reduced, which is what NumPy's sort does for so few numbers.
//! * A memory target scales the estimates of version 1 as version 2 does; version 1 has none.
//! * `list_of_npz_files` (version 1) names `CASE.npz` without the folder of a cropped copy, which is
//!   not made here, and `preprocessed_data_folder` is the dataset's name.
//! * Version 1 stops with a Python error where the median image is exactly four patches; here there
//!   is no low resolution then.

mod memory;
mod pooling;
mod shrink;
mod v1;
mod v2;

use crate::dataset::RawDataset;
use crate::error::{DataError, Result, invalid};
use crate::fingerprint::statistics::percentile_of;
use crate::fingerprint::{Fingerprint, ForegroundIntensity};
use crate::plans::{NUM_STRIDES, Plans, TrainedOrientation, keys};
use crate::reference::{FileFormat, Reference};
use serde_json::Value;
use std::path::Path;

/// Memory the reference's estimates are for, GB.
pub const REFERENCE_MEMORY_GB: f64 = 8.0;
/// How much coarser an axis must be than the others to count as anisotropic.
const ANISOTROPY: f64 = 3.0;

/// What the user may choose.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanOptions {
    /// Whose rules and format.
    pub reference: Reference,
    /// GPU memory to plan for, GB.
    pub memory_gb: f64,
    /// Name of the plans, which becomes a part of the names of preprocessed data (version 2).
    pub plans_name: String,
    /// Spacing to work at instead of the rule's, mm `[z, y, x]` of the files.
    pub spacing_mm: Option<[f64; 3]>,
}

impl PlanOptions {
    /// The reference's defaults.
    pub fn new(reference: Reference) -> Self {
        Self {
            reference,
            memory_gb: REFERENCE_MEMORY_GB,
            plans_name: "nnUNetPlans".to_owned(),
            spacing_mm: None,
        }
    }

    fn check(&self) -> Result<()> {
        if !(self.memory_gb.is_finite() && self.memory_gb > 0.0) {
            return Err(invalid("plans", "memory", "GB above 0", self.memory_gb));
        }
        match self.spacing_mm {
            Some(found) if found.iter().any(|s| !(s.is_finite() && *s > 0.0)) => {
                Err(DataError::BadSpacing { found })
            }
            _ => Ok(()),
        }
    }
}

/// A finished plan.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    json: Value,
    dataset: Value,
    reference: Reference,
    orientation: Option<TrainedOrientation>,
    notes: Vec<String>,
}

/// One configuration of a plan, in the frame of the network.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanSummary {
    /// Its name: `3d_fullres`, `3d_lowres`.
    pub configuration: String,
    /// The plan as training and inference read it: five strides.
    pub plans: Plans,
    /// Poolings the reference planned, which need not be five.
    pub num_poolings: usize,
    /// Median shape of the images at the plan's spacing, voxels.
    pub median_shape: Vec<f64>,
}

/// Plans for a dataset.
///
/// # Errors
/// When the fingerprint has another number of cases or channels than the dataset, lacks the
/// intensities a CT needs, or `dataset.json` asks for another reader or (version 1) for regions or
/// an ignore label.
///
/// # Source
/// nnU-Net 1.7 `experiment_planner_baseline_3DUNet_v21.py`; nnU-Net 2
/// `default_experiment_planner.py`.
pub fn plan(
    dataset: &RawDataset,
    fingerprint: &Fingerprint,
    options: &PlanOptions,
) -> Result<Planned> {
    options.check()?;
    check_fingerprint(dataset, fingerprint)?;
    let mut notes = dataset.notes().to_vec();
    let frame = Frame::new(fingerprint, options);
    let json = match options.reference.conventions().files {
        FileFormat::V1 => v1::plan(dataset, fingerprint, &frame, options)?,
        FileFormat::V2 => v2::plan(dataset, fingerprint, &frame, options, &mut notes)?,
    };
    let orientations = dataset.orientations();
    notes.extend(orientations.note());
    let mut planned = Planned {
        json,
        dataset: dataset.json().clone(),
        reference: options.reference,
        orientation: orientations.trained(),
        notes,
    };
    for summary in planned.summaries()? {
        planned.notes.extend(summary.note());
    }
    Ok(planned)
}

impl Planned {
    /// The plan in the reference's own format: `nnUNetPlans.json` of version 2, or the content of
    /// version 1's pickle.
    pub fn json(&self) -> &Value {
        &self.json
    }

    /// How the axes of the dataset's images run; none where no header could be read.
    pub fn orientation(&self) -> Option<TrainedOrientation> {
        self.orientation
    }

    /// What is written: the plan in the reference's own format, and one entry of ours, which the
    /// reference passes over ([`keys::ORIENTATION`]).
    pub fn content(&self) -> Value {
        let mut json = self.json.clone();
        if let (Some(of), Some(entries)) = (self.orientation, json.as_object_mut()) {
            entries.insert(keys::ORIENTATION.to_owned(), serde_json::json!(of));
        }
        json
    }

    /// What was assumed, and what STU-Net makes of the plan, one sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The 3-D configurations, coarse before fine.
    ///
    /// # Errors
    /// When the plan cannot be read back.
    pub fn summaries(&self) -> Result<Vec<PlanSummary>> {
        let json = self.content();
        match self.reference.conventions().files {
            FileFormat::V1 => v1::summaries(&json),
            FileFormat::V2 => v2::summaries(&json, &self.dataset),
        }
    }

    /// Writes the plan ([`Planned::content`]) as JSON. Configurations of one's own in a file that is there are kept, as
    /// the reference does (version 2).
    ///
    /// # Errors
    /// When the file cannot be written, or the one that is there cannot be read.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut json = self.content();
        if self.reference.conventions().files == FileFormat::V2 && path.exists() {
            let old: Value = crate::files::read_json(path)?;
            let kept = old.get("configurations").and_then(Value::as_object).into_iter().flatten();
            let new = json.get_mut("configurations").and_then(Value::as_object_mut);
            if let Some(new) = new {
                for (name, configuration) in kept {
                    new.entry(name).or_insert_with(|| configuration.clone());
                }
            }
        }
        crate::files::save_json(path, &json)
    }
}

impl PlanSummary {
    /// STU-Net's rule, where it changes the plan.
    fn note(&self) -> Option<String> {
        let found = self.num_poolings;
        let how = match found {
            NUM_STRIDES => return None,
            found if found > NUM_STRIDES => "the last ones are dropped",
            _ => "it is filled up with stages that halve nothing",
        };
        Some(format!(
            "{}: STU-Net has {NUM_STRIDES} pooling stages, this plan {found}: {how}",
            self.configuration
        ))
    }
}

fn check_fingerprint(dataset: &RawDataset, fingerprint: &Fingerprint) -> Result<()> {
    let (expected, found) = (dataset.cases().len(), fingerprint.num_cases());
    if expected != found {
        return Err(invalid("fingerprint", "spacings", format!("{expected} cases"), found));
    }
    let expected = dataset.info().channel_names.len();
    match &fingerprint.foreground {
        Some(channels) if channels.len() != expected => {
            let expected = format!("{expected} channel(s)");
            Err(invalid("fingerprint", "intensities", expected, channels.len()))
        }
        Some(channels) => {
            channels.iter().zip(&dataset.info().channel_names).enumerate().try_for_each(
                |(c, (intensity, name))| match name.eq_ignore_ascii_case("CT") {
                    true => check_intensity(c, intensity),
                    false => Ok(()),
                },
            )
        }
        None => Ok(()),
    }
}

/// The normalisation of a CT uses these numbers.
fn check_intensity(channel: usize, i: &ForegroundIntensity) -> Result<()> {
    let used = [
        ("mean", i.mean),
        ("std", i.std),
        ("percentile_00_5", i.percentile_00_5),
        ("percentile_99_5", i.percentile_99_5),
    ];
    let Some((name, _)) = used.into_iter().find(|(_, value)| !value.is_finite()) else {
        return Ok(());
    };
    let key = format!("foreground_intensity_properties_per_channel.{channel}.{name}");
    Err(invalid("fingerprint", key, "a number, as the channel is a CT", "null or NaN"))
}

/// What both versions decide alike: the target spacing, and which axis comes first.
struct Frame {
    /// mm, `[z, y, x]` of the files.
    spacing_mm: [f64; 3],
    /// Axis of the files that becomes axis 0, 1, 2.
    transpose: [usize; 3],
}

impl Frame {
    fn new(fingerprint: &Fingerprint, options: &PlanOptions) -> Self {
        let spacing_mm = options.spacing_mm.unwrap_or_else(|| target_spacing(fingerprint));
        let coarsest = largest(&spacing_mm);
        let mut transpose = [coarsest; 3];
        let others = (0..3).filter(|axis| *axis != coarsest);
        transpose[1..].iter_mut().zip(others).for_each(|(slot, axis)| *slot = axis);
        Self { spacing_mm, transpose }
    }

    fn transposed<T: Copy>(&self, values: [T; 3]) -> [T; 3] {
        self.transpose.map(|axis| values[axis])
    }

    fn backward(&self) -> [usize; 3] {
        crate::plans::inverse(self.transpose)
    }
}

/// The median of every axis; of a coarse axis with few slices the 10th percentile, but not finer
/// than the others.
fn target_spacing(fingerprint: &Fingerprint) -> [f64; 3] {
    let spacings =
        |axis: usize| fingerprint.spacings_mm.iter().map(|s| s[axis]).collect::<Vec<_>>();
    let sizes = |axis: usize| {
        fingerprint.shapes_after_crop.iter().map(|s| s[axis] as f64).collect::<Vec<_>>()
    };
    let mut target = [0, 1, 2].map(|axis| percentile_of(&spacings(axis), 0.5));
    let size = [0, 1, 2].map(|axis| percentile_of(&sizes(axis), 0.5));
    let worst = largest(&target);
    let others = || (0..3).filter(|axis| *axis != worst);
    let coarsest_other = others().map(|axis| target[axis]).fold(f64::MIN, f64::max);
    let smallest_other = others().map(|axis| size[axis]).fold(f64::MAX, f64::min);
    if target[worst] > ANISOTROPY * coarsest_other && size[worst] * ANISOTROPY < smallest_other {
        let finer = percentile_of(&spacings(worst), 0.1);
        target[worst] = if finer < coarsest_other { coarsest_other + 1e-5 } else { finer };
    }
    target
}

/// The first of the largest.
fn largest(values: &[f64]) -> usize {
    let first = |best: usize, i: usize| if values[i] > values[best] { i } else { best };
    (1..values.len()).fold(0, first)
}

#[cfg(test)]
mod tests {
    //! Expected values: the planners of nnU-Net 1.7.1, 2.2 and 2.8.1 on the same fingerprints.
    use super::*;
    use Reference::{NnUNetV1 as V1, NnUNetV22 as V22, NnUNetV28 as V28};
    use serde_json::json;

    /// A dataset whose volumes nobody opens, and five labels.
    fn dataset(cases: usize, edit: impl FnOnce(&mut Value)) -> RawDataset {
        let folder = tempfile::tempdir().unwrap();
        let mut json = json!({
            "channel_names": {"0": "CT"},
            "labels": {"background": 0, "a": 1, "b": 2, "c": 3, "d": 4},
            "numTraining": cases,
            "file_ending": ".nii"
        });
        edit(&mut json);
        std::fs::write(folder.path().join("dataset.json"), json.to_string()).unwrap();
        std::fs::create_dir(folder.path().join("imagesTr")).unwrap();
        for case in 0..cases {
            std::fs::write(folder.path().join(format!("imagesTr/{case}_0000.nii")), b"").unwrap();
        }
        RawDataset::open(folder.path()).unwrap()
    }

    fn fingerprint(spacing: [f64; 3], shape: [usize; 3], cases: usize) -> Fingerprint {
        let intensity = ForegroundIntensity {
            mean: 40.0,
            std: 100.0,
            median: 50.0,
            min: -1000.0,
            max: 1200.0,
            percentile_00_5: -900.0,
            percentile_99_5: 800.0,
        };
        Fingerprint {
            shapes_after_crop: vec![shape; cases],
            spacings_mm: vec![spacing; cases],
            median_relative_size_after_cropping: 1.0,
            relative_sizes: Vec::new(),
            foreground: Some(vec![intensity]),
        }
    }

    type Case = ([f64; 3], [usize; 3], usize, f64);
    const LARGE: Case = ([1.0, 0.8, 0.8], [300, 512, 512], 20, 8.0);
    const COARSE: Case = ([0.5, 4.0, 0.5], [400, 40, 320], 40, 8.0);
    const MEDIUM: Case = ([1.5, 1.5, 1.5], [200, 240, 240], 30, 8.0);
    const SMALL: Case = ([1.5, 1.5, 1.5], [128, 128, 128], 200, 24.0);

    fn planned((spacing, shape, cases, memory_gb): Case, reference: Reference) -> Planned {
        let options = PlanOptions { memory_gb, ..PlanOptions::new(reference) };
        plan(&dataset(cases, |_| {}), &fingerprint(spacing, shape, cases), &options).unwrap()
    }

    /// Patch, batch, poolings and spacing of one configuration.
    fn check(
        case: Case,
        reference: Reference,
        configuration: &str,
        expected: ([usize; 3], usize, usize, [f64; 3]),
    ) {
        let planned = planned(case, reference);
        let summaries = planned.summaries().unwrap();
        let found = summaries.iter().find(|s| s.configuration == configuration).unwrap();
        let plans = &found.plans;
        let what = format!("{case:?} {reference:?} {configuration}");
        let (patch, batch, poolings, spacing) = expected;
        assert_eq!((plans.patch_size, plans.batch_size), (patch, batch), "{what}");
        assert_eq!((found.num_poolings, plans.spacing_mm), (poolings, spacing), "{what}");
    }

    #[test]
    fn large_images_have_a_low_resolution() {
        let patch = [96, 160, 160];
        let lowest = [2.032_794_106_460_404_5, 1.626_235_285_168_323, 1.626_235_285_168_323];
        for reference in [V22, V28] {
            check(LARGE, reference, "3d_fullres", (patch, 2, 5, [1.0, 0.8, 0.8]));
            check(LARGE, reference, "3d_lowres", (patch, 2, 5, lowest));
            let json = planned(LARGE, reference).json()["configurations"].clone();
            assert_eq!(json["3d_lowres"]["median_image_size_in_voxels"], json!([148, 252, 252]));
            assert_eq!(json["3d_lowres"]["batch_dice"], false);
            assert_eq!(json["3d_fullres"]["batch_dice"], true);
            assert_eq!(json["3d_cascade_fullres"]["previous_stage"], "3d_lowres");
        }
        let lowest = [2.006_763_368_395_386, 1.605_410_694_716_307_6, 1.605_410_694_716_307_6];
        check(LARGE, V1, "3d_lowres", (patch, 2, 5, lowest));
        check(LARGE, V1, "3d_fullres", (patch, 2, 5, [1.0, 0.8, 0.8]));
    }

    #[test]
    fn a_small_gain_is_dropped_by_some() {
        check(MEDIUM, V22, "3d_lowres", ([128; 3], 2, 5, [1.688_263_215; 3]));
        for reference in [V28, V1] {
            assert_eq!(planned(MEDIUM, reference).summaries().unwrap().len(), 1);
        }
    }

    #[test]
    fn the_coarse_axis_comes_first() {
        let spacing = [4.0, 0.5, 0.5];
        check(COARSE, V28, "3d_fullres", ([28, 256, 224], 2, 5, spacing));
        check(COARSE, V1, "3d_fullres", ([28, 256, 224], 2, 6, spacing));
        let planned = planned(COARSE, V1);
        assert_eq!(planned.json()["transpose_forward"], json!([1, 0, 2]));
        assert_eq!(planned.json()["plans_per_stage"]["0"]["do_dummy_2D_data_aug"], true);
        let note =
            "3d_fullres: STU-Net has 5 pooling stages, this plan 6: the last ones are dropped";
        assert_eq!(planned.notes(), [note]);
    }

    #[test]
    fn more_memory_is_a_larger_batch() {
        for reference in [V22, V28] {
            check(SMALL, reference, "3d_fullres", ([128; 3], 7, 5, [1.5; 3]));
            let json = planned(SMALL, reference).json()["configurations"]["2d"].clone();
            assert_eq!(json["batch_size"], 591);
        }
        check((SMALL.0, SMALL.1, SMALL.2, 8.0), V1, "3d_fullres", ([128; 3], 2, 5, [1.5; 3]));
    }

    #[test]
    fn a_chosen_spacing() {
        let options = PlanOptions { spacing_mm: Some([2.0, 2.0, 2.5]), ..PlanOptions::new(V28) };
        let (spacing, shape, cases, _) = SMALL;
        let fingerprint = fingerprint(spacing, shape, cases);
        let planned = plan(&dataset(cases, |_| {}), &fingerprint, &options).unwrap();
        assert_eq!(planned.json()["transpose_forward"], json!([2, 0, 1]));
        assert_eq!(planned.summaries().unwrap()[0].plans.spacing_mm, [2.5, 2.0, 2.0]);
    }

    #[test]
    fn one_slice_is_planned_in_2d() {
        let planned = planned(([5.0, 0.5, 0.5], [1, 200, 200], 5, 8.0), V28);
        assert!(planned.summaries().unwrap().is_empty());
        assert!(planned.notes()[0].contains("one slice"), "{:?}", planned.notes());
    }

    #[test]
    fn configurations_of_ones_own_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("nnUNetPlans.json");
        let own = json!({"configurations": {"mine": {"inherits_from": "3d_fullres"}, "2d": {}}});
        std::fs::write(&path, own.to_string()).unwrap();
        let planned = planned(SMALL, V28);
        planned.save(&path).unwrap();
        let saved: Value = crate::files::read_json(&path).unwrap();
        assert_eq!(saved["configurations"]["mine"], own["configurations"]["mine"]);
        assert_eq!(saved["configurations"]["2d"], planned.json()["configurations"]["2d"]);
    }

    fn refused(edit: impl FnOnce(&mut Value), options: &PlanOptions, words: &str) {
        let fingerprint = fingerprint([1.0; 3], [64; 3], 3);
        let message = plan(&dataset(3, edit), &fingerprint, options).unwrap_err().to_string();
        assert!(message.contains(words), "expected {words:?}, found {message:?}");
    }

    /// NaN, which Python writes into fingerprints, where it is used and where it is not.
    #[test]
    fn statistics_that_are_no_numbers() {
        let mut measured = fingerprint([1.5; 3], [128; 3], 5);
        measured.foreground.as_mut().unwrap()[0].std = f64::NAN;
        for reference in [Reference::NnUNetV22, Reference::NnUNetV28] {
            let options = PlanOptions::new(reference);
            let message = plan(&dataset(5, |_| {}), &measured, &options).unwrap_err().to_string();
            let words = "fingerprint: foreground_intensity_properties_per_channel.0.std: expected";
            assert!(message.starts_with(words), "{message}");
            let mr = dataset(5, |json| json["channel_names"] = json!({"0": "MR"}));
            let planned = plan(&mr, &measured, &options).unwrap();
            let written = &planned.json()["foreground_intensity_properties_per_channel"]["0"];
            assert_eq!((&written["std"], &written["mean"]), (&json!(null), &json!(40.0)));
            assert!(!planned.summaries().unwrap().is_empty());
        }
    }

    #[test]
    fn what_cannot_be_planned_is_refused() {
        let [v1, v2] = [V1, V28].map(PlanOptions::new);
        refused(|j| j["labels"]["ignore"] = json!(5), &v1, "found an ignore label");
        refused(|j| j["channel_names"]["1"] = json!("PET"), &v2, "expected 2 channel(s), found 1");
        refused(|_| {}, &PlanOptions { memory_gb: 0.0, ..v2.clone() }, "GB above 0");
        let spacing_mm = Some([1.0, 0.0, 1.0]);
        refused(|_| {}, &PlanOptions { spacing_mm, ..v2.clone() }, "spacing must be");
        let fingerprint = fingerprint([1.0; 3], [64; 3], 4);
        let message = plan(&dataset(3, |_| {}), &fingerprint, &v2).unwrap_err().to_string();
        assert!(message.contains("expected 3 cases, found 4"), "{message}");
    }
}
