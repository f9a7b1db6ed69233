//! A folder of phantoms, as nnU-Net wants its raw datasets.

use super::{Phantom, STRUCTURES, ScanOptions, scan};
use crate::nifti_bytes::NiftiBytes;
use std::io;
use std::ops::Range;
use std::path::Path;

/// What a dataset of phantoms holds.
#[derive(Clone, Debug)]
pub struct DatasetOptions<'a> {
    /// One case per seed.
    pub seeds: Range<u64>,
    /// How they are scanned.
    pub scan: ScanOptions,
    /// Which structures are labelled, 1 first.
    pub structures: &'a [&'a str],
}

impl Default for DatasetOptions<'_> {
    /// Four phantoms of the default scan with all structures.
    fn default() -> Self {
        Self { seeds: 0..4, scan: ScanOptions::default(), structures: &STRUCTURES }
    }
}

/// Writes `dataset.json` (nnU-Net v2), `imagesTr/phantom_SEED_0000.nii` and
/// `labelsTr/phantom_SEED.nii` under `folder`.
///
/// # Errors
/// When a folder or file cannot be written.
///
/// # Panics
/// When a structure is not known.
pub fn write_dataset(folder: &Path, options: &DatasetOptions<'_>) -> io::Result<()> {
    for part in ["imagesTr", "labelsTr"] {
        std::fs::create_dir_all(folder.join(part))?;
    }
    let mut labels = serde_json::Map::new();
    labels.insert("background".to_owned(), 0.into());
    for (index, name) in options.structures.iter().enumerate() {
        labels.insert((*name).to_owned(), (index + 1).into());
    }
    let dataset = serde_json::json!({
        "name": "phantoms",
        "channel_names": {"0": "CT"},
        "labels": labels,
        "numTraining": options.seeds.end.saturating_sub(options.seeds.start),
        "file_ending": ".nii",
    });
    std::fs::write(folder.join("dataset.json"), format!("{dataset:#}\n"))?;
    for seed in options.seeds.clone() {
        let phantom = scan(seed, &options.scan).with_structures(options.structures);
        let image = folder.join(format!("imagesTr/phantom_{seed:04}_0000.nii"));
        std::fs::write(image, file(&phantom, phantom.image.iter().copied().collect()).bytes())?;
        let values = phantom.labels.iter().map(|&label| f32::from(label)).collect();
        let labels = folder.join(format!("labelsTr/phantom_{seed:04}.nii"));
        std::fs::write(labels, file(&phantom, values).bytes())?;
    }
    Ok(())
}

fn file(phantom: &Phantom, values: Vec<f32>) -> NiftiBytes {
    let [z, y, x] = [0, 1, 2].map(|axis| phantom.image.shape()[axis] as i16);
    let [dz, dy, dx] = phantom.spacing_mm;
    let spacing = [dx, dy, dz];
    // LPS to RAS
    let sign = [-1.0, -1.0, 1.0];
    let affine = std::array::from_fn(|row| {
        std::array::from_fn(|column| {
            let value = match column {
                3 => phantom.origin_mm[row],
                column => phantom.direction[row][column] * spacing[column],
            };
            (sign[row] * value) as f32
        })
    });
    NiftiBytes {
        size_xyz: [x, y, z],
        channels: 1,
        spacing_xyz: spacing.map(|mm| mm as f32),
        affine,
        values,
    }
}
