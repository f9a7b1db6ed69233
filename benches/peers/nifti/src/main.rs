//! The crate `nifti` and this project's own reading and writing of voxels, on the same volume in one run.
//!
//! ```console
//! $ cargo run --release --manifest-path benches/peers/nifti/Cargo.toml
//! ```
//!
//! A CT of 300 × 512 × 512 voxels as 16-bit integers and its labels as bytes. Medians of five, in
//! seconds of the clock and of the processor; both use zlib-rs.

use ndarray::{Array3, Array4, Axis};
use nifti::writer::WriterOptions;
use nifti::{IntoNdArray, NiftiHeader, NiftiObject, ReaderOptions};
use std::path::Path;
use std::time::Instant;
use stunet_data::geometry::Geometry;
use stunet_data::image::{Image, Voxels};
use stunet_data::labels::LabelMap;

const SHAPE: [usize; 3] = [300, 512, 512];

/// A noisy ball, as integers.
fn ct() -> Array3<i16> {
    let mut noise = 1u32;
    Array3::from_shape_fn(SHAPE, |(z, y, x)| {
        noise ^= noise << 13;
        noise ^= noise >> 17;
        noise ^= noise << 5;
        let [a, b, c] = [(z, 150.0, 0.6), (y, 256.0, 1.0), (x, 256.0, 1.0)]
            .map(|(at, centre, scale)| ((at as f32 - centre) / scale).powi(2));
        let inside = a + b + c < 200.0 * 200.0;
        if inside { 40 + (noise % 64) as i16 } else { -1000 + (noise % 16) as i16 }
    })
}

/// Processor seconds of this process.
fn processor() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at).and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

fn time(what: &str, mut work: impl FnMut()) {
    let mut rows: Vec<(f64, f64)> = (0..5)
        .map(|_| {
            let (clock, busy) = (Instant::now(), processor());
            work();
            (clock.elapsed().as_secs_f64(), processor() - busy)
        })
        .collect();
    rows.sort_by(|a, b| a.0.total_cmp(&b.0));
    println!("| {what} | {:.2} | {:.2} |", rows[2].0, rows[2].1);
}

fn read_with_the_crate(path: &Path) -> Array4<f32> {
    let object = ReaderOptions::new().read_file(path).expect("the crate reads");
    let volume = object.into_volume().into_ndarray::<f32>().expect("voxels");
    // The file's axes are x, y, z; ours are c, z, y, x.
    let volume = volume.into_dimensionality::<ndarray::Ix3>().expect("three axes");
    volume.reversed_axes().as_standard_layout().into_owned().insert_axis(Axis(0))
}

fn main() {
    let folder = tempfile::tempdir().expect("a folder");
    let at = |name: &str| folder.path().join(name);
    let ct = ct();
    // Organs as blocks, with borders as rough as a network's.
    let labels = Array3::from_shape_fn(SHAPE, |(z, y, x)| {
        let rough = usize::from(ct[[z, y, x]] % 32 == 0);
        match ct[[z, y, x]] > 0 {
            true => (1 + (z / 20 * 7 + (y + rough) / 40 * 3 + (x + rough) / 30) % 104) as u16,
            false => 0,
        }
    });
    let bytes = labels.mapv(|v| v as u8);
    let geometry = Geometry::axis_aligned(SHAPE, [1.0, 0.8, 0.8]).expect("a grid");
    let map = LabelMap::new(labels, geometry.clone()).expect("one grid");
    let floats = ct.mapv(f32::from);
    let image = Image::new(floats.clone().insert_axis(Axis(0)), geometry).expect("one grid");
    let header = NiftiHeader { pixdim: [1.0, 0.8, 0.8, 1.0, 1.0, 1.0, 1.0, 1.0], ..NiftiHeader::default() };
    let write = |path: &Path, gz: bool| {
        let options = WriterOptions::new(path).reference_header(&header);
        if gz { options.compression_level(flate2::Compression::new(3)) } else { options }
    };
    for (name, gz) in [("ct.nii", false), ("ct.nii.gz", true)] {
        write(&at(name), gz).write_nifti(&ct.view().reversed_axes()).expect("the crate writes");
    }
    println!("| Task | seconds | processor seconds |\n|---|---:|---:|");
    for name in ["ct.nii", "ct.nii.gz"] {
        let path = at(name);
        let scan = stunet_data::nifti::read_scan(&[&path]).expect("ours reads");
        assert!(matches!(scan.voxels, Voxels::I16(_)));
        assert!(scan.into_image().data == read_with_the_crate(&path), "both read the same");
        time(&format!("read {name}, nifti crate, to f32 [C, Z, Y, X]"), || drop(read_with_the_crate(&path)));
        time(&format!("read {name}, ours, to f32 [C, Z, Y, X]"), || {
            drop(stunet_data::nifti::read_image(&[&path]).expect("ours reads"));
        });
        time(&format!("read {name}, ours, to i16"), || {
            drop(stunet_data::nifti::read_scan(&[&path]).expect("ours reads"));
        });
    }
    for (name, gz) in [("labels.nii", false), ("labels.nii.gz", true)] {
        let (theirs, ours) = (at(&format!("theirs-{name}")), at(&format!("ours-{name}")));
        time(&format!("write {name}, nifti crate"), || {
            write(&theirs, gz).write_nifti(&bytes.view().reversed_axes()).expect("the crate writes");
        });
        time(&format!("write {name}, ours (and fsync)"), || {
            stunet_data::nifti::write_labelmap(&ours, &map, 255).expect("ours writes");
        });
        let both = [&theirs, &ours].map(|path| stunet_data::nifti::read_labelmap(path).expect("labels").data);
        assert!(both[0] == both[1], "both wrote the same");
    }
    let (theirs, ours) = (at("theirs.nii"), at("ours.nii"));
    time("write an image of f32, .nii, nifti crate", || {
        write(&theirs, false).write_nifti(&floats.view().reversed_axes()).expect("the crate writes");
    });
    time("write an image of f32, .nii, ours (and fsync)", || {
        stunet_data::nifti::write_image(&ours, &image).expect("ours writes");
    });
}
