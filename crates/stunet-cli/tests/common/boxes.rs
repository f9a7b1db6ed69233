//! A dataset of small boxes, planned and prepared for training.

use std::ops::ControlFlow;
use std::path::PathBuf;

use serde_json::{Value, json};
use stunet::data::dataset::RawDataset;
use stunet::data::plans::Plans;
use stunet::data::store::{FillOptions, Place, fill};
use stunet_testing::nifti_bytes::NiftiBytes;

use super::Scene;

/// Name of the dataset.
pub const DATASET: &str = "Dataset001_Boxes";
/// Configuration of its plans.
pub const CONFIGURATION: &str = "3d_fullres";
/// Its cases.
pub const CASES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// A prepared dataset of small boxes, raw files included; nothing in it is anybody's.
pub fn dataset() -> Scene {
    let scene = Scene::new();
    let raw = format!("nnUNet_raw/{DATASET}");
    let size = [20i16, 18, 12];
    for (index, case) in CASES.iter().enumerate() {
        let inside = |x: usize, y: usize, z: usize| {
            (4 + index..10 + index).contains(&x) && (3..11).contains(&y) && (2..9).contains(&z)
        };
        let voxels = || {
            let [nx, ny, nz] = size.map(|n| n as usize);
            (0..nx * ny * nz).map(move |i| (i % nx, i / nx % ny, i / nx / ny))
        };
        let mut image = NiftiBytes::ramp(size);
        image.values = voxels()
            .enumerate()
            .map(|(i, (x, y, z))| 100.0 * f32::from(u8::from(inside(x, y, z))) + (i % 17) as f32)
            .collect();
        let mut labels = NiftiBytes::ramp(size);
        labels.values = voxels().map(|(x, y, z)| f32::from(u8::from(inside(x, y, z)))).collect();
        scene.file(&format!("{raw}/imagesTr/{case}_0000.nii"), &image.bytes());
        scene.file(&format!("{raw}/labelsTr/{case}.nii"), &labels.bytes());
    }
    let description = json!({
        "channel_names": { "0": "MR" }, "labels": { "background": 0, "box": 1 },
        "numTraining": CASES.len(), "file_ending": ".nii",
    });
    let prepared = format!("nnUNet_preprocessed/{DATASET}");
    for folder in [&raw, &prepared] {
        scene.file(&format!("{folder}/dataset.json"), description.to_string().as_bytes());
    }
    let plans = plans();
    scene.file(&format!("{prepared}/nnUNetPlans.json"), plans.to_string().as_bytes());
    let plans = Plans::from_v2_json(&plans, &description, CONFIGURATION).unwrap();
    let raw = RawDataset::open(&scene.path(&raw)).unwrap();
    let cases = (raw.info(), raw.cases());
    let report =
        fill(
            &store(&scene),
            &plans,
            cases,
            &FillOptions::default(),
            &|_| ControlFlow::Continue(()),
        );
    assert_eq!(report.unwrap().failures().count(), 0);
    scene
}

/// The folder of its prepared cases.
pub fn store(scene: &Scene) -> PathBuf {
    let dataset = scene.path(&format!("nnUNet_preprocessed/{DATASET}"));
    Place::new(&dataset, &format!("nnUNetPlans_{CONFIGURATION}")).own
}

/// Its plans.
pub fn plans() -> Value {
    json!({
        "plans_name": "nnUNetPlans", "transpose_forward": [0, 1, 2], "stunet_orientation": "RAS",
        "foreground_intensity_properties_per_channel": {},
        "configurations": { CONFIGURATION: {
            "data_identifier": format!("nnUNetPlans_{CONFIGURATION}"),
            "batch_size": 2, "batch_dice": true, "patch_size": [8, 16, 16],
            "spacing": [3.0, 3.0, 3.0], "normalization_schemes": ["ZScoreNormalization"],
            "use_mask_for_norm": [false],
            "pool_op_kernel_sizes":
                [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2], [1, 1, 2], [1, 1, 1]],
        }},
    })
}
