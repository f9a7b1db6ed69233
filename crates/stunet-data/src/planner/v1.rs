//! Plans of nnU-Net 1: one stage, or a low resolution before it for large images.

use super::memory;
use super::pooling::{Rule, Topology};
use super::shrink::{Steps, shrink_to_fit};
use super::v2::{coarsen, product, scaled};
use super::{ANISOTROPY, Frame, PlanOptions, PlanSummary, REFERENCE_MEMORY_GB};
use crate::dataset::RawDataset;
use crate::dataset::convert::check_plain;
use crate::error::Result;
use crate::fingerprint::statistics::median_of;
use crate::fingerprint::{Fingerprint, by_number};
use crate::plans::Plans;
use serde_json::{Map, Value, json};

/// Voxels of feature maps that fit, at 30 features and at the 32 that are planned with.
const REFERENCE_VOXELS: f64 = 520e6 * memory::BASE_FEATURES as f64 / 30.0;
/// Batch size that number is for, and the smallest.
const REFERENCE_BATCH: f64 = 2.0;
/// Share of the dataset that one batch may hold.
const MAX_SHARE: f64 = 0.05;
/// Edge of the first patch along the coarsest axis, voxels.
const FIRST_EDGE: f64 = 512.0;
/// How many patches the image of the low resolution holds.
const LOWRES_PATCHES: f64 = 4.0;
/// Factor of each step towards the low resolution.
const LOWRES_STEP: f64 = 1.01;

pub(super) fn plan(
    dataset: &RawDataset,
    fingerprint: &Fingerprint,
    frame: &Frame,
    options: &PlanOptions,
) -> Result<Value> {
    let info = dataset.info();
    check_plain(dataset)?;
    let planner = Planner {
        num_cases: dataset.cases().len() as f64,
        num_channels: info.channel_names.len(),
        num_classes: info.classes().len() + 1,
        full_spacing: frame.transposed(frame.spacing_mm),
        median_shape: frame.transposed(median_shape(fingerprint, frame)),
        reference: REFERENCE_VOXELS * options.memory_gb / REFERENCE_MEMORY_GB,
        steps: Steps::new(),
    };
    let full = planner.stage(&planner.full_spacing)?;
    let mut stages = vec![full];
    if let Some(low) = planner.low_resolution(frame, &stages[0])? {
        stages.insert(0, low);
    }
    let cropped = fingerprint.median_relative_size_after_cropping < 0.75;
    let channels = || info.channel_names.iter();
    let schemes = channels().map(|name| match name.as_str() {
        "CT" | "ct" => json!("CT"),
        "noNorm" => json!("noNorm"),
        _ => json!("nonCT"),
    });
    let files = dataset.case_names().into_iter().map(|name| name + ".npz");
    Ok(json!({
        "num_stages": stages.len(),
        "num_modalities": info.channel_names.len(),
        "modalities": by_number(channels().map(|name| json!(name))),
        "normalization_schemes": by_number(schemes),
        "dataset_properties": fingerprint.to_v1_json(info),
        "list_of_npz_files": files.collect::<Vec<_>>(),
        "original_spacings": fingerprint.spacings_mm,
        "original_sizes": fingerprint.shapes_after_crop,
        "preprocessed_data_folder": dataset.name(),
        "num_classes": info.classes().len(),
        "all_classes": info.classes(),
        "base_num_features": memory::BASE_FEATURES,
        "use_mask_for_norm": by_number(channels().map(|n| json!(cropped && !n.contains("CT")))),
        "keep_only_largest_region": null,
        "min_region_size_per_class": null,
        "min_size_per_class": null,
        "transpose_forward": frame.transpose,
        "transpose_backward": frame.backward(),
        "data_identifier": "nnUNetData_plans_v2.1",
        "plans_per_stage": by_number(stages.iter().map(|stage| planner.json(stage))),
        "preprocessor_name": "GenericPreprocessor",
        "conv_per_stage": memory::CONVOLUTIONS,
    }))
}

pub(super) fn summaries(json: &Value) -> Result<Vec<PlanSummary>> {
    let stages = json["plans_per_stage"].as_object().map_or(0, Map::len);
    let mut found = Vec::new();
    for stage in 0..stages {
        let entry = &json["plans_per_stage"][stage.to_string()];
        // The entry of the trainer's arguments that chooses the stage.
        let init = json!([null, null, null, null, null, stage]);
        let mut plans = Plans::from_v1_json(&json!({"init": init, "plans": json}))?;
        let low = stage + 1 < stages;
        plans.configuration = if low { "3d_lowres" } else { "3d_fullres" }.to_owned();
        let median_shape = entry["median_patient_size_in_voxels"].as_array().into_iter().flatten();
        found.push(PlanSummary {
            configuration: plans.configuration.clone(),
            plans,
            num_poolings: entry["pool_op_kernel_sizes"].as_array().map_or(0, Vec::len),
            median_shape: median_shape.filter_map(Value::as_f64).collect(),
        });
    }
    Ok(found)
}

/// Median of the shapes at the target spacing, not rounded, in the files' frame.
fn median_shape(fingerprint: &Fingerprint, frame: &Frame) -> [f64; 3] {
    [0, 1, 2].map(|axis| {
        let cases = fingerprint.spacings_mm.iter().zip(&fingerprint.shapes_after_crop);
        let target = frame.spacing_mm[axis];
        let lengths = cases.map(|(spacing, shape)| spacing[axis] / target * shape[axis] as f64);
        median_of(&lengths.collect::<Vec<_>>())
    })
}

/// One stage; everything in the network's frame.
struct Stage {
    spacing: [f64; 3],
    median_shape: Vec<f64>,
    network: Topology,
    batch_size: usize,
}

struct Planner {
    num_cases: f64,
    num_channels: usize,
    /// With background.
    num_classes: usize,
    full_spacing: [f64; 3],
    /// Not rounded.
    median_shape: [f64; 3],
    /// Voxels of feature maps that fit.
    reference: f64,
    steps: Steps,
}

impl Planner {
    fn stage(&self, spacing: &[f64; 3]) -> Result<Stage> {
        let median_shape = scaled(&self.median_shape, &self.full_spacing, spacing);
        let median_shape: Vec<f64> = median_shape.iter().map(|n| n.round_ties_even()).collect();
        let (network, estimate) = shrink_to_fit(
            Rule::V1,
            spacing,
            &first_patch(spacing, &median_shape),
            &median_shape,
            |network| memory::generic_unet(network, self.num_channels, self.num_classes),
            (|estimate| estimate as f64 <= self.reference, &self.steps),
        )?;
        let fitting = ((self.reference / estimate as f64).max(1.0) * REFERENCE_BATCH).floor();
        let total = product(&median_shape) * self.num_cases;
        let covering = (MAX_SHARE * total / voxels(&network)).round_ties_even();
        let batch_size = fitting.min(covering.max(REFERENCE_BATCH)) as usize;
        Ok(Stage { spacing: *spacing, median_shape, network, batch_size })
    }

    /// A coarser spacing at which the image holds four patches, if the image holds more; kept where
    /// it has less than half the voxels.
    fn low_resolution(&self, frame: &Frame, full: &Stage) -> Result<Option<Stage>> {
        // Along the files' axes, as in the reference: products depend on their order.
        let shape = untransposed(self.median_shape, frame);
        let mut spacing = frame.spacing_mm;
        let (mut in_image, mut in_patch) = (product(&shape), voxels(&full.network));
        let mut low = None;
        while in_image > LOWRES_PATCHES * in_patch {
            coarsen(&mut spacing, LOWRES_STEP);
            in_image = product(&scaled(&shape, &frame.spacing_mm, &spacing));
            let stage = self.stage(&frame.transposed(spacing))?;
            in_patch = voxels(&stage.network);
            low = Some(stage);
        }
        Ok(low.filter(|low| 2.0 * product(&low.median_shape) < product(&full.median_shape)))
    }

    fn json(&self, stage: &Stage) -> Value {
        let patch = &stage.network.patch;
        let longest = patch.iter().copied().max().unwrap_or(0);
        let median_shape: Vec<usize> = stage.median_shape.iter().map(|n| *n as usize).collect();
        json!({
            "batch_size": stage.batch_size,
            "num_pool_per_axis": stage.network.num_pool,
            "patch_size": patch,
            "median_patient_size_in_voxels": median_shape,
            "current_spacing": stage.spacing,
            "original_spacing": self.full_spacing,
            "do_dummy_2D_data_aug": longest as f64 / patch[0] as f64 > ANISOTROPY,
            "pool_op_kernel_sizes": stage.network.strides,
            "conv_kernel_sizes": stage.network.kernels,
        })
    }
}

fn untransposed(values: [f64; 3], frame: &Frame) -> [f64; 3] {
    frame.backward().map(|axis| values[axis])
}

fn voxels(network: &Topology) -> f64 {
    network.patch.iter().map(|n| *n as f64).product()
}

/// An isotropic patch with 512 voxels along the coarsest axis, cut to the median shape.
fn first_patch(spacing: &[f64; 3], median_shape: &[f64]) -> Vec<f64> {
    let density = spacing.map(|s| 1.0 / s);
    let mean = (density[0] + density[1] + density[2]) / 3.0;
    let relative = density.map(|d| d / mean);
    let scale = 1.0 / relative.iter().copied().fold(f64::MAX, f64::min) * FIRST_EDGE;
    let patch = relative.iter().map(|r| (r * scale).round_ties_even());
    patch.zip(median_shape).map(|(n, most)| n.min(*most)).collect()
}
