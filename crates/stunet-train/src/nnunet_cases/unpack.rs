//! Arrays out of nnU-Net's archives (`.npz`).

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use stunet_data::error::{DataError, Result};
use stunet_data::files;
use zip::ZipArchive;

/// The array of the image; in nnU-Net 1 with the labels as its last channel.
pub(super) const IMAGE: &str = "data.npy";
/// The array of the labels in nnU-Net 2.
pub(super) const SEGMENTATION: &str = "seg.npy";

/// Whether an archive has labels of their own, as nnU-Net 2 writes it.
pub(super) fn has_labels(path: &Path) -> Result<bool> {
    Ok(open(path)?.index_for_name(SEGMENTATION).is_some())
}

/// Copies an array, which is a whole `.npy` file, out of its archive.
pub(super) fn array(archive: &Path, name: &str, to: &Path) -> Result<()> {
    let mut zip = open(archive)?;
    let mut array = zip
        .by_name(name)
        .map_err(|e| super::wrong(format!("an archive with {name}"), e.to_string()).at(archive))?;
    files::sweep([to]);
    files::write(to, |file| {
        let copied = std::io::copy(&mut array, file);
        copied.map(drop).map_err(|source| DataError::Io { action: "unpack", source }.at(archive))
    })
}

fn open(path: &Path) -> Result<ZipArchive<BufReader<File>>> {
    let file = BufReader::new(files::open(path)?);
    ZipArchive::new(file)
        .map_err(|e| super::wrong("an archive of NumPy (.npz)", e.to_string()).at(path))
}
