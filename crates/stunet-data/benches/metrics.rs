//! Surface distances and lesions of pairs of masks, for `scripts/metrics-check`.
//!
//! `cargo bench -p stunet-data --bench metrics -- FOLDER` reads `cases.json`, a list of
//! `{"name", "spacing_mm", "plane"}`, and for each of them `NAME_reference.npy` and
//! `NAME_prediction.npy` (bytes, `[z, y, x]`); it writes `ours.json` with scores, seconds and the
//! number of threads.
#![allow(missing_docs, clippy::disallowed_macros, clippy::disallowed_methods, clippy::unwrap_used)]

use ndarray::Array3;
use ndarray_npy::read_npy;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Instant;
use stunet_data::files;
use stunet_data::metrics::{
    LesionCounts, LesionRules, MaskPair, SurfaceDefinition, SurfaceRules, SurfaceScores,
};

const TOLERANCES_MM: [f64; 3] = [0.5, 1.0, 3.0];

fn main() {
    let Some(folder) = std::env::args().skip(1).find(|word| !word.starts_with('-')) else {
        println!("expected a folder with cases.json: see scripts/metrics-check");
        return;
    };
    let folder = Path::new(&folder);
    let cases: Vec<Value> = files::read_json(&folder.join("cases.json")).unwrap();
    let measured: Vec<Value> = cases.iter().map(|case| measure(folder, case)).collect();
    let result = json!({ "threads": rayon::current_num_threads(), "cases": measured });
    files::save_json(&folder.join("ours.json"), &result).unwrap();
}

fn measure(folder: &Path, case: &Value) -> Value {
    let mask = |which: &str| -> Array3<bool> {
        let name = format!("{}_{which}.npy", case["name"].as_str().unwrap());
        read_npy::<_, Array3<u8>>(folder.join(name)).unwrap().mapv(|v| v != 0)
    };
    let (reference, prediction) = (mask("reference"), mask("prediction"));
    let spacing: Vec<f64> = serde_json::from_value(case["spacing_mm"].clone()).unwrap();
    let spacing: [f64; 3] = spacing.try_into().unwrap();
    let plane = case["plane"].as_bool().unwrap();
    let surface = |definition, tolerances: &[f64]| {
        let rules = SurfaceRules { definition, tolerances_mm: tolerances.to_vec() };
        let start = Instant::now();
        let masks = MaskPair::new(reference.view(), prediction.view());
        let scores = SurfaceScores::of(&masks, spacing, plane, &rules);
        json!({
            "secs": start.elapsed().as_secs_f64(),
            "hausdorff": scores.hausdorff_mm,
            "hausdorff95": scores.hausdorff95_mm,
            "mean_distance": scores.mean_distance_mm,
            "nsd": scores.nsd,
        })
    };
    let masks = MaskPair::new(reference.view(), prediction.view());
    let lesions = LesionCounts::of(&masks, &LesionRules::default());
    json!({
        "name": case["name"],
        "voxels": surface(SurfaceDefinition::VoxelCentres, &[]),
        "surfels": surface(SurfaceDefinition::Surfels, &TOLERANCES_MM),
        "lesions": [lesions.reference, lesions.prediction, lesions.detected, lesions.confirmed],
    })
}
