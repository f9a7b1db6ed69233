//! Connected parts, clean-up and measurements of labelmaps, for `scripts/statistics-check`.
//!
//! `cargo bench -p stunet-data --bench labels -- FOLDER` reads `cases.json`, a list of
//! `{"name", "connectivity", "runs"}` with `NAME_labels.npy` (bytes, `[z, y, x]`) and, where there are
//! intensities, `NAME_image.npy` (16-bit integers or single precision) and `affine`. It
//! writes `NAME_parts.npy`, `NAME_filled.npy` and `ours.json` with measurements and seconds.
#![allow(missing_docs, clippy::disallowed_macros, clippy::disallowed_methods, clippy::unwrap_used)]

use ndarray::{Array3, Axis};
use ndarray_npy::{read_npy, write_npy};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Instant;
use stunet_data::cleanup::CleanUp;
use stunet_data::components::{Connectivity, LabelComponents};
use stunet_data::files;
use stunet_data::geometry::{Affine, Geometry};
use stunet_data::image::{RawImage, Voxels};
use stunet_data::labels::{CompactLabelMap, LabelChoice, LabelVoxels};
use stunet_data::statistics::{CaseStatistics, StatisticsInput};

fn main() {
    let Some(folder) = std::env::args().skip(1).find(|word| !word.starts_with('-')) else {
        println!("expected a folder with cases.json: see scripts/statistics-check");
        return;
    };
    let folder = Path::new(&folder);
    let cases: Vec<Value> = files::read_json(&folder.join("cases.json")).unwrap();
    let measured: Vec<Value> = cases.iter().map(|case| measure(folder, case)).collect();
    let result = json!({ "threads": rayon::current_num_threads(), "cases": measured });
    files::save_json(&folder.join("ours.json"), &result).unwrap();
}

/// The least of several runs, in seconds, and what the last gave.
fn timed<T>(runs: u64, run: impl Fn() -> T) -> (f64, T) {
    let mut best = f64::INFINITY;
    let mut once = || {
        let start = Instant::now();
        let result = run();
        best = best.min(start.elapsed().as_secs_f64());
        result
    };
    (1..runs).for_each(|_| drop(once()));
    let last = once();
    (best, last)
}

fn measure(folder: &Path, case: &Value) -> Value {
    let name = case["name"].as_str().unwrap();
    let file = |what: &str| folder.join(format!("{name}_{what}.npy"));
    let runs = case["runs"].as_u64().unwrap_or(1);
    let labels = LabelVoxels::Bytes(read_npy::<_, Array3<u8>>(file("labels")).unwrap());
    let geometry = geometry(&labels, case);
    let connectivity =
        Connectivity::of_neighbours(case["connectivity"].as_u64().unwrap() as u32).unwrap();
    let (parts_secs, volume) = timed(runs, || LabelComponents::of(&labels, connectivity).volume());
    let (z, y, x) = shape(&labels);
    write_npy(file("parts"), &Array3::from_shape_vec((z, y, x), volume.to_vec()).unwrap()).unwrap();
    let map = CompactLabelMap { voxels: labels, geometry: geometry.clone() };
    let clean = CleanUp { holes: LabelChoice::All, ..CleanUp::default() };
    let (fill_secs, filled) = timed(runs, || {
        let mut map = map.clone();
        clean.apply(&mut map);
        map
    });
    write_npy(file("filled"), &filled.voxels.to_words()).unwrap();
    let image = file("image").exists().then(|| image(&file("image"), geometry));
    let measured = StatisticsInput { image: image.as_ref(), confidence: None };
    let (secs, found) = timed(runs, || CaseStatistics::of(name, &map, &[], measured).unwrap());
    json!({
        "name": name, "parts_secs": parts_secs, "fill_secs": fill_secs, "statistics_secs": secs,
        "statistics": found,
    })
}

fn shape(labels: &LabelVoxels) -> (usize, usize, usize) {
    match labels {
        LabelVoxels::Bytes(voxels) => voxels.dim(),
        LabelVoxels::Words(voxels) => voxels.dim(),
    }
}

fn geometry(labels: &LabelVoxels, case: &Value) -> Geometry {
    let (z, y, x) = shape(labels);
    let affine: Option<Affine> = serde_json::from_value(case["affine"].clone()).ok();
    match affine {
        Some(affine) => Geometry::from_world_from_voxel([z, y, x], &affine).unwrap(),
        None => Geometry::axis_aligned([z, y, x], [1.0; 3]).unwrap(),
    }
}

fn image(path: &Path, geometry: Geometry) -> RawImage {
    let voxels = match read_npy::<_, Array3<i16>>(path) {
        Ok(volume) => Voxels::I16(volume.insert_axis(Axis(0))),
        Err(_) => Voxels::F32(read_npy::<_, Array3<f32>>(path).unwrap().insert_axis(Axis(0))),
    };
    RawImage { voxels, geometry }
}
