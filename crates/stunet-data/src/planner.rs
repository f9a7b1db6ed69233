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
use crate::fingerprint::Fingerprint;
use crate::fingerprint::statistics::percentile_of;
use crate::plans::{NUM_STRIDES, Plans, Reference};
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
    let json = match options.reference {
        Reference::NnUNetV1 => v1::plan(dataset, fingerprint, &frame, options)?,
        _ => v2::plan(dataset, fingerprint, &frame, options, &mut notes)?,
    };
    let mut planned =
        Planned { json, dataset: dataset.json().clone(), reference: options.reference, notes };
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

    /// What was assumed, and what STU-Net makes of the plan, one sentence each.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The 3-D configurations, coarse before fine.
    ///
    /// # Errors
    /// When the plan cannot be read back.
    pub fn summaries(&self) -> Result<Vec<PlanSummary>> {
        match self.reference {
            Reference::NnUNetV1 => v1::summaries(&self.json),
            _ => v2::summaries(&self.json, &self.dataset),
        }
    }

    /// Writes the plan as JSON. Configurations of one's own in a file that is there are kept, as
    /// the reference does (version 2).
    ///
    /// # Errors
    /// When the file cannot be written, or the one that is there cannot be read.
    pub fn save(&self, path: &Path) -> Result<()> {
        let mut json = self.json.clone();
        if self.reference != Reference::NnUNetV1 && path.exists() {
            let old: Value = crate::plans::load_json(path)?;
            let kept = old.get("configurations").and_then(Value::as_object).into_iter().flatten();
            let new = json.get_mut("configurations").and_then(Value::as_object_mut);
            if let Some(new) = new {
                for (name, configuration) in kept {
                    new.entry(name).or_insert_with(|| configuration.clone());
                }
            }
        }
        crate::plans::save_json(path, &json)
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
        _ => Ok(()),
    }
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
