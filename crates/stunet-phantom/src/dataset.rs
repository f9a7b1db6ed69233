//! A folder of phantoms, as nnU-Net wants its raw datasets.

use super::{PhantomCase, STRUCTURES, ScanOptions};
use std::ops::Range;
use std::path::Path;
use stunet_data::{DataError, Result, files, nifti};

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

/// Writes `imagesTr/phantom_SEED_0000.nii.gz`, `labelsTr/phantom_SEED.nii.gz` and, when all of them are
/// there, `dataset.json` (nnU-Net 2) under `folder`.
///
/// `done` hears of every case when it is written.
///
/// # Errors
/// When a folder or file cannot be written.
///
/// # Panics
/// When a structure is not one of [`STRUCTURES`].
pub fn write_dataset(
    folder: &Path,
    options: &DatasetOptions<'_>,
    done: &mut dyn FnMut(&PhantomCase),
) -> Result<()> {
    for part in ["imagesTr", "labelsTr"] {
        let path = folder.join(part);
        let failed = |source| DataError::Io { action: "make", source }.at(&path);
        std::fs::create_dir_all(&path).map_err(failed)?;
    }
    let highest = u16::try_from(options.structures.len()).unwrap_or(u16::MAX);
    for seed in options.seeds.clone() {
        let case = PhantomCase::of(seed, &options.scan, options.structures);
        nifti::write_image(
            &folder.join(format!("imagesTr/{}_0000.nii.gz", case.name)),
            &case.image,
        )?;
        let labels = folder.join(format!("labelsTr/{}.nii.gz", case.name));
        nifti::write_labelmap(&labels, &case.truth, highest)?;
        done(&case);
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
        "file_ending": ".nii.gz",
    });
    files::save_json(&folder.join("dataset.json"), &dataset)
}
