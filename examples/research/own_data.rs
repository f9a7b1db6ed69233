//! Data of one's own instead of files: training cases that are unpacked from a database of bytes when
//! a patch is cut from them, with the voxels of every class drawn once.
#![allow(clippy::disallowed_macros, reason = "examples print")]

use ndarray::Array3;
use std::sync::atomic::{AtomicUsize, Ordering};
use stunet::data::DataError;
use stunet::data::augment::Augmentation;
use stunet::data::geometry::Geometry;
use stunet::data::labels::{CompactLabelMap, LabelVoxels};
use stunet::data::loader::{LoaderConfig, batch};
use stunet::data::nifti;
use stunet::data::sample::LazyCases;

/// What a database would hold of one case: image and labels as `.nii.gz`.
struct Entry {
    image: Vec<u8>,
    labels: Vec<u8>,
}

/// A bright ball, packed.
fn entry(radius: usize) -> Result<Entry, DataError> {
    let inside = |at: [usize; 3]| at.iter().map(|v| v.abs_diff(16).pow(2)).sum::<usize>();
    let ball =
        |value: u8| {
            Array3::from_shape_fn([32; 3], |(z, y, x)| {
                if inside([z, y, x]) < radius * radius { value } else { 0 }
            })
        };
    let packed = |voxels| {
        let geometry = Geometry::axis_aligned([32; 3], [1.5; 3])?;
        let volume = CompactLabelMap { voxels: LabelVoxels::Bytes(voxels), geometry };
        nifti::labelmap_to_bytes(&volume, 255, None, true)
    };
    Ok(Entry { image: packed(ball(200))?, labels: packed(ball(1))? })
}

/// Batches drawn from the database: the share of patches with foreground, and how often a case was
/// unpacked.
pub fn run(steps: u64) -> anyhow::Result<(f64, usize)> {
    let database = (4..8).map(entry).collect::<Result<Vec<_>, _>>()?;
    let unpacked = AtomicUsize::new(0);
    let names = (0..database.len()).map(|index| format!("case {index}")).collect();
    let cases = LazyCases::new(names, |index| {
        unpacked.fetch_add(1, Ordering::Relaxed);
        let image = nifti::read_scan_bytes(&database[index].image, None)?.into_image().data;
        let labels = nifti::read_labelmap_bytes(&database[index].labels, None)?;
        Ok(((image - 100.0) / 50.0, labels.data.mapv(|label| label as i16)))
    });
    let loader = LoaderConfig::new(Augmentation::none([8; 3]), 2, &[]);
    let (mut found, mut patches) = (0usize, 0usize);
    for step in 0..steps {
        for patch in batch(&cases, &loader, step)?.patches {
            found += usize::from(patch.targets[0].iter().any(|label| *label > 0));
            patches += 1;
        }
    }
    Ok((found as f64 / patches as f64, unpacked.into_inner()))
}

#[allow(dead_code, reason = "the tests call `run`")]
fn main() -> anyhow::Result<()> {
    let (share, unpacked) = run(20)?;
    println!("{share:.2} of the patches have foreground; {unpacked} cases unpacked");
    Ok(())
}
