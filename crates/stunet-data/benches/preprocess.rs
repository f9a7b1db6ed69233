//! Reading, preprocessing and writing of a torso CT, 300 x 512 x 512 voxels at 1.0 x 0.8 x 0.8 mm to
//! 1.5 mm.
//!
//! `cargo bench --bench preprocess [-- FOLDER]` prints a line of JSON per task, with
//! the process's peak memory so far; with a folder that holds `ct.nii.gz`, files are read and written
//! there. `scripts/bench_export.py` runs nnU-Net's own code, nibabel and SimpleITK on the same.
#![allow(missing_docs, clippy::disallowed_macros, clippy::unwrap_used)]

use ndarray::Array4;
use std::path::PathBuf;
use std::time::Instant;
use stunet_data::geometry::Geometry;
use stunet_data::image::{RawImage, Voxels};
use stunet_data::labels::LabelMap;
use stunet_data::nifti;
use stunet_data::plans::{Plans, Reference};
use stunet_data::preprocess::preprocess_scan;

const SHAPE: [usize; 3] = [300, 512, 512];

fn main() {
    let folder = std::env::args().skip(1).find(|a| !a.starts_with('-')).map(PathBuf::from);
    let geometry = Geometry::axis_aligned(SHAPE, [1.0, 0.8, 0.8]).unwrap();
    let [z, y, x] = SHAPE;
    let data = Array4::from_shape_fn((1, z, y, x), |(_, z, y, x)| {
        ((x * 7 + y * 13 + z * 29) % 2001) as i16 - 1000
    });
    let scan = RawImage { voxels: Voxels::I16(data), geometry: geometry.clone() };
    for (name, reference) in [("v1", Reference::NnUNetV1), ("v2", Reference::NnUNetV28)] {
        let plans = Plans { reference, ..Plans::totalsegmentator() };
        for _ in 0..3 {
            timed(&format!("preprocess {name}"), 0, || {
                preprocess_scan(&scan, &plans).unwrap();
            });
        }
    }
    drop(scan);
    let Some(folder) = folder else { return };
    let path = folder.join("ct.nii.gz");
    let scan = nifti::read_scan(&[&path]).unwrap();
    let (bytes, geometry) = (scan.bytes(), scan.geometry.clone());
    let Voxels::I16(data) = scan.voxels else { panic!("a CT in 16 bits") };
    // As a labelmap: few values in large pieces, as labels are.
    let labels = data.index_axis(ndarray::Axis(0), 0).mapv(|v| (v / 64).clamp(0, 40) as u16);
    let map = LabelMap::new(labels, geometry).unwrap();
    for _ in 0..3 {
        timed("read ct.nii.gz", bytes, || {
            nifti::read_scan(&[&path]).unwrap();
        });
    }
    let out = folder.join("labels_stunet.nii.gz");
    for _ in 0..3 {
        timed("write labels.nii.gz", bytes / 2, || {
            nifti::write_labelmap(&out, &map, 40).unwrap();
        });
    }
    eprintln!("{} bytes written", std::fs::metadata(&out).unwrap().len());
}

fn timed(task: &str, bytes: u64, work: impl FnOnce()) {
    let (clock, cpu) = (Instant::now(), cpu_secs());
    work();
    let (wall, cpu) = (clock.elapsed().as_secs_f64(), cpu_secs() - cpu);
    println!(
        "{{\"program\": \"stunet\", \"task\": \"{task}\", \"threads\": {}, \"wall_secs\": {wall:.3}, \
         \"cpu_secs\": {cpu:.2}, \"mb_per_sec\": {:.0}, \"mb_per_cpu_sec\": {:.0}, \"peak_bytes\": {}}}",
        rayon::current_num_threads(),
        bytes as f64 / 1e6 / wall,
        bytes as f64 / 1e6 / cpu.max(0.01),
        peak_bytes(),
    );
}

/// The process's high-water mark (Linux); 0 elsewhere.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes =
        line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    kilobytes.unwrap_or(0) << 10
}

/// User and system time of the process (Linux: clock ticks of 10 ms); 0 elsewhere.
fn cpu_secs() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(") ").next().unwrap_or_default();
    let ticks = fields.split(' ').skip(11).take(2);
    ticks.filter_map(|t| t.parse::<f64>().ok()).sum::<f64>() / 100.0
}
