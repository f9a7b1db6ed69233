//! Names of NIfTI files: one file, or a header with its voxels in a second one beside it.

use crate::error::{DataError, Result};
use std::path::{Path, PathBuf};

/// Endings of the files that are read, as they are spelled.
pub const ENDINGS: [&str; 6] = [".nii.gz", ".nii", ".hdr", ".img", ".hdr.gz", ".img.gz"];

/// A file's name without the ending of a NIfTI file, and that ending; none for other files.
///
/// ```
/// use stunet_data::nifti::split_ending;
/// assert_eq!(split_ending("case_0000.nii.gz"), Some(("case_0000", ".nii.gz")));
/// assert_eq!(split_ending("notes.txt"), None);
/// ```
pub fn split_ending(name: &str) -> Option<(&str, &'static str)> {
    ENDINGS.into_iter().find_map(|ending| Some((name.strip_suffix(ending)?, ending)))
}

/// True for voxels whose header lies beside them: a folder's listing names the header, which stands
/// for both.
pub fn has_header_beside(path: &Path) -> bool {
    beside(path, ["img", "img.gz"], ["hdr", "hdr.gz"]).is_some_and(|header| header.exists())
}

/// The files that an image's file stands for: itself, or a header and the voxels beside it.
pub fn files_of(path: &Path) -> Vec<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let pair = split_ending(&name).is_some() && !is_one_file(path);
    match header_of(path) {
        Ok(header) if pair => {
            let voxels = voxels_of(&header).ok();
            [header].into_iter().chain(voxels).collect()
        }
        _ => vec![path.to_owned()],
    }
}

/// The file with the header: the one beside a file of voxels, else the file itself.
pub(super) fn header_of(path: &Path) -> Result<PathBuf> {
    match beside(path, ["img", "img.gz"], ["hdr", "hdr.gz"]) {
        Some(header) if header.exists() => Ok(header),
        // Whoever named a file that is not there hears that first.
        Some(_) if path.exists() => {
            Err(DataError::MissingFile { what: "the header (.hdr) of this file of voxels" }
                .at(path))
        }
        _ => Ok(path.to_owned()),
    }
}

/// The file of voxels beside a header.
pub(super) fn voxels_of(header: &Path) -> Result<PathBuf> {
    let there = beside(header, ["hdr", "hdr.gz"], ["img", "img.gz"]);
    let voxels = there.unwrap_or_else(|| header.with_extension("img"));
    if voxels.exists() {
        return Ok(voxels);
    }
    Err(DataError::MissingFile { what: "the file of voxels (.img) of this header" }.at(header))
}

/// Whether the name says that header and voxels are in this one file. It decides, as in ITK; the
/// header of some such files says otherwise.
pub(super) fn is_one_file(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    matches!(split_ending(&name), Some((_, ".nii" | ".nii.gz")))
}

/// The other file of a pair: the first that is there, else the first.
fn beside(path: &Path, from: [&str; 2], to: [&str; 2]) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    let stem = from.into_iter().find_map(|ending| name.strip_suffix(ending)?.strip_suffix('.'))?;
    let [first, second] = to.map(|ending| path.with_file_name(format!("{stem}.{ending}")));
    Some(if !first.exists() && second.exists() { second } else { first })
}
