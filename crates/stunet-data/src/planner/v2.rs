//! Plans of nnU-Net 2: the configurations 2d, 3d_fullres and, for large images, 3d_lowres.

mod format;

use super::memory;
use super::pooling::{Rule, Topology};
use super::shrink::{Steps, shrink_to_fit};
use super::{Frame, PlanOptions, PlanSummary, REFERENCE_MEMORY_GB};
use crate::dataset::RawDataset;
use crate::error::Result;
use crate::fingerprint::Fingerprint;
use crate::fingerprint::statistics::median_of;
use crate::plans::{self, Plans};
use crate::reference::{ArchitectureFormat, Reference};
use serde_json::{Map, Value, json};

/// Voxels of feature maps that fit the reference memory, in 3-D and 2-D.
const REFERENCE_VOXELS: [f64; 2] = [560e6, 85e6];
/// Batch sizes those numbers are for.
const REFERENCE_BATCH: [f64; 2] = [2.0, 12.0];
/// Smallest batch.
const MIN_BATCH: f64 = 2.0;
/// Share of the dataset that one batch may hold.
const MAX_SHARE: f64 = 0.05;
/// Share of the median image below which a patch asks for a low resolution.
const LOWRES_SHARE: f64 = 0.25;
/// Factor of each step towards the low resolution.
const LOWRES_STEP: f64 = 1.03;

pub(super) fn plan(
    dataset: &RawDataset,
    fingerprint: &Fingerprint,
    frame: &Frame,
    options: &PlanOptions,
    notes: &mut Vec<String>,
) -> Result<Value> {
    let planner = Planner::new(dataset, fingerprint, options)?;
    let spacing = frame.transposed(frame.spacing_mm);
    let median_shape = frame.transposed(resampled_median_shape(fingerprint, frame));
    let total = product(&median_shape) * planner.num_cases;
    let mut configurations = Map::new();
    let flat = planner.configuration("2d", &spacing[1..], &median_shape[1..], total)?;
    configurations.insert("2d".to_owned(), planner.json(&flat, true));
    if median_shape[0] == 1.0 {
        notes.push("the images are one slice thick: there is no 3-D configuration".to_owned());
    } else {
        let full = planner.configuration("3d_fullres", &spacing, &median_shape, total)?;
        let low = planner.low_resolution(&full)?;
        let full = planner.json(&full, low.is_some());
        if let Some(low) = &low {
            let mut json = planner.json(low, false);
            json["next_stage"] = json!("3d_cascade_fullres");
            // Rounded there, so they are integers.
            json["median_image_size_in_voxels"] = json!(integers(&low.median_shape));
            configurations.insert("3d_lowres".to_owned(), json);
        }
        configurations.insert("3d_fullres".to_owned(), full);
        if low.is_some() {
            let cascade = json!({"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"});
            configurations.insert("3d_cascade_fullres".to_owned(), cascade);
        }
    }
    let original_shape = frame.transposed(medians(&fingerprint.shapes_after_crop, |n| n as f64));
    Ok(json!({
        "dataset_name": dataset.name(),
        "plans_name": options.plans_name,
        "original_median_spacing_after_transp":
            frame.transposed(medians(&fingerprint.spacings_mm, |s| s)),
        "original_median_shape_after_transp": integers(&original_shape),
        "image_reader_writer": dataset.info().reader,
        "transpose_forward": frame.transpose,
        "transpose_backward": frame.backward(),
        "configurations": configurations,
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": fingerprint.foreground_json(),
    }))
}

pub(super) fn summaries(json: &Value, dataset: &Value) -> Result<Vec<PlanSummary>> {
    let mut found = Vec::new();
    for name in ["3d_lowres", "3d_fullres"] {
        if json["configurations"].get(name).is_none() {
            continue;
        }
        let configuration = plans::Configuration::of(json, name)?;
        let entry = configuration.entries();
        let flat = entry.get("pool_op_kernel_sizes");
        let strides = flat.or_else(|| entry.pointer("/architecture/arch_kwargs/strides"));
        let median_shape = entry["median_image_size_in_voxels"].as_array().into_iter().flatten();
        found.push(PlanSummary {
            configuration: name.to_owned(),
            plans: Plans::from_v2_json(json, dataset, name)?,
            num_poolings: strides.and_then(Value::as_array).map_or(0, |s| s.len() - 1),
            median_shape: median_shape.filter_map(Value::as_f64).collect(),
        });
    }
    Ok(found)
}

/// One configuration; lists have two or three axes.
struct Configuration {
    name: &'static str,
    spacing: Vec<f64>,
    median_shape: Vec<f64>,
    network: Topology,
    batch_size: usize,
}

/// What all configurations share.
struct Planner<'a> {
    options: &'a PlanOptions,
    num_cases: f64,
    num_labels: usize,
    schemes: Vec<&'static str>,
    use_mask: Vec<bool>,
    steps: Steps,
}

impl<'a> Planner<'a> {
    fn new(
        dataset: &RawDataset,
        fingerprint: &Fingerprint,
        options: &'a PlanOptions,
    ) -> Result<Self> {
        let names = &dataset.info().channel_names;
        let schemes: Vec<_> = names.iter().map(|name| scheme(name, options.reference)).collect();
        let cropped = fingerprint.median_relative_size_after_cropping < 0.75;
        let use_mask = schemes.iter().map(|s| cropped && *s == Z_SCORE).collect();
        let labels = dataset.json()["labels"].as_object();
        Ok(Self {
            options,
            num_cases: dataset.cases().len() as f64,
            num_labels: labels.map_or(0, Map::len),
            schemes,
            use_mask,
            steps: Steps::new(),
        })
    }

    /// `total` is the number of voxels of the dataset.
    fn configuration(
        &self,
        name: &'static str,
        spacing: &[f64],
        median_shape: &[f64],
        total: f64,
    ) -> Result<Configuration> {
        let axes = spacing.len();
        let index = 3 - axes;
        let reference = REFERENCE_VOXELS[index] * (self.options.memory_gb / REFERENCE_MEMORY_GB);
        let batch = REFERENCE_BATCH[index];
        let conventions = &self.options.reference.conventions().planning;
        let fits = |estimate: u64| match conventions.smallest_batch_fits {
            true => estimate as f64 / batch * MIN_BATCH <= reference,
            false => estimate as f64 <= reference,
        };
        let (network, estimate) = shrink_to_fit(
            Rule::V2,
            spacing,
            &first_patch(spacing, median_shape),
            median_shape,
            |network| memory::plain_unet(network, self.num_labels),
            (fits, &self.steps),
        )?;
        let fitting = (reference / estimate as f64 * batch).round_ties_even();
        let voxels: f64 = network.patch.iter().map(|n| *n as f64).product();
        let covering = (total * MAX_SHARE / voxels).round_ties_even();
        Ok(Configuration {
            name,
            spacing: spacing.to_vec(),
            median_shape: median_shape.to_vec(),
            network,
            batch_size: fitting.min(covering).max(MIN_BATCH) as usize,
        })
    }

    /// A coarser spacing at which a patch holds a quarter of the image, if one is needed. Axes more
    /// than twice as fine as the coarsest are coarsened first.
    fn low_resolution(&self, full: &Configuration) -> Result<Option<Configuration>> {
        let voxels = |c: &Configuration| c.network.patch.iter().map(|n| *n as f64).product::<f64>();
        let mut spacing = full.spacing.clone();
        let (mut in_patch, mut in_median) = (voxels(full), product(&full.median_shape));
        let mut low = None;
        while in_patch / in_median < LOWRES_SHARE {
            coarsen(&mut spacing, LOWRES_STEP);
            let shape = scaled(&full.median_shape, &full.spacing, &spacing);
            in_median = product(&shape);
            let rounded: Vec<f64> = shape.iter().map(|n| n.round_ties_even()).collect();
            let total = in_median * self.num_cases;
            let found = self.configuration("3d_lowres", &spacing, &rounded, total)?;
            in_patch = voxels(&found);
            low = Some(found);
        }
        let gain = product(&full.median_shape) / in_median;
        let conventions = &self.options.reference.conventions().planning;
        Ok(low.filter(|_| gain >= conventions.low_resolution_gain))
    }

    fn json(&self, c: &Configuration, batch_dice: bool) -> Value {
        let mut json = json!({
            "data_identifier": format!("{}_{}", self.options.plans_name, c.name),
            "preprocessor_name": "DefaultPreprocessor",
            "batch_size": c.batch_size,
            "patch_size": c.network.patch,
            "median_image_size_in_voxels": c.median_shape,
            "spacing": c.spacing,
            "normalization_schemes": self.schemes,
            "use_mask_for_norm": self.use_mask,
        });
        let parts = match self.options.reference.conventions().planning.architecture {
            ArchitectureFormat::Nested => {
                [format::resampling(), json!({"architecture": format::architecture(&c.network)})]
            }
            ArchitectureFormat::Flat => {
                [format::flat_architecture(&c.network), format::resampling()]
            }
        };
        for part in parts.into_iter().chain([json!({"batch_dice": batch_dice})]) {
            if let (Some(json), Value::Object(part)) = (json.as_object_mut(), part) {
                json.extend(part);
            }
        }
        json
    }
}

const Z_SCORE: &str = "ZScoreNormalization";

/// A name that is not known is no unit.
fn scheme(channel: &str, reference: Reference) -> &'static str {
    const SCHEMES: [(&str, &str); 5] = [
        ("CT", "CTNormalization"),
        ("noNorm", "NoNormalization"),
        ("zscore", Z_SCORE),
        ("rescale_to_0_1", "RescaleTo01Normalization"),
        ("rgb_to_0_1", "RGBTo01Normalization"),
    ];
    let any_case = reference.conventions().planning.channel_names_in_any_case;
    let known = |name: &str| name == channel || any_case && name.eq_ignore_ascii_case(channel);
    SCHEMES.into_iter().find(|(name, _)| known(name)).map_or(Z_SCORE, |(_, scheme)| scheme)
}

/// An isotropic patch of the volume of 256³ (2-D: 2048²) voxels, cut to the median shape.
fn first_patch(spacing: &[f64], median_shape: &[f64]) -> Vec<f64> {
    let axes = spacing.len() as f64;
    let edge: f64 = if spacing.len() == 2 { 2048.0 } else { 256.0 };
    let density: Vec<f64> = spacing.iter().map(|s| 1.0 / s).collect();
    let scale = (edge.powf(axes) / product(&density)).powf(1.0 / axes);
    let patch = density.iter().map(|d| (d * scale).round_ties_even());
    patch.zip(median_shape).map(|(n, most)| n.min(*most)).collect()
}

/// Steps towards a coarser spacing: the axes that are more than twice as fine as the coarsest, or
/// else all of them.
pub(super) fn coarsen(spacing: &mut [f64], factor: f64) {
    let coarsest = spacing.iter().copied().fold(f64::MIN, f64::max);
    let all = spacing.iter().all(|s| coarsest / s <= 2.0);
    for s in spacing {
        if all || coarsest / *s > 2.0 {
            *s *= factor;
        }
    }
}

pub(super) fn scaled(shape: &[f64], from: &[f64], to: &[f64]) -> Vec<f64> {
    shape.iter().zip(from.iter().zip(to)).map(|(n, (from, to))| from / to * n).collect()
}

pub(super) fn product(values: &[f64]) -> f64 {
    values.iter().product()
}

fn integers(values: &[f64]) -> Vec<usize> {
    values.iter().map(|v| v.round_ties_even() as usize).collect()
}

fn medians<T: Copy>(cases: &[[T; 3]], value: impl Fn(T) -> f64) -> [f64; 3] {
    [0, 1, 2].map(|axis| median_of(&cases.iter().map(|c| value(c[axis])).collect::<Vec<_>>()))
}

/// Median of the shapes at the target spacing, each rounded, in the files' frame.
fn resampled_median_shape(fingerprint: &Fingerprint, frame: &Frame) -> [f64; 3] {
    let cases = fingerprint.spacings_mm.iter().zip(&fingerprint.shapes_after_crop);
    let shapes: Vec<[f64; 3]> = cases
        .map(|(spacing, shape)| {
            [0, 1, 2].map(|axis| {
                let scale = spacing[axis] / frame.spacing_mm[axis];
                (scale * shape[axis] as f64).round_ties_even()
            })
        })
        .collect();
    medians(&shapes, |n| n)
}
