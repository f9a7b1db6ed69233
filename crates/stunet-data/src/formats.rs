//! Files of volumes, whatever their format: NIfTI, MetaImage, NRRD.
//!
//! Read by [`crate::nifti::Opener`] and [`crate::nifti::Reader`], which know the format by the name; written
//! here, the format again by the name.

use crate::error::{DataError, Result};
use crate::geometry::Geometry;
use crate::labels::{CompactLabelMap, LabelSet, LabelVoxels};
use crate::voxels::LabelBytes;
use crate::{metaimage, nifti, nrrd};
use ndarray::Array3;
use std::path::{Path, PathBuf};

/// Endings of the files that are read, as they are spelled.
pub const ENDINGS: [&str; 10] =
    [".nii.gz", ".nii", ".hdr", ".img", ".hdr.gz", ".img.gz", ".mha", ".mhd", ".nrrd", ".nhdr"];

/// Endings of the files that labels are written to.
const WRITTEN: [&str; 6] = [".nii.gz", ".nii", ".mha", ".mhd", ".nrrd", ".nhdr"];

/// A file's name without the ending of a volume, and that ending; none for other files.
///
/// ```
/// use stunet_data::formats::split_ending;
/// assert_eq!(split_ending("case_0000.mha"), Some(("case_0000", ".mha")));
/// assert_eq!(split_ending("notes.txt"), None);
/// ```
pub fn split_ending(name: &str) -> Option<(&str, &'static str)> {
    ENDINGS.into_iter().find_map(|ending| Some((name.strip_suffix(ending)?, ending)))
}

/// The ending of a name that labels may be written to.
pub fn written_ending(path: &Path) -> Option<&'static str> {
    let name = path.file_name()?.to_str()?;
    WRITTEN.into_iter().find(|ending| name.ends_with(ending))
}

/// The files that writing to a name makes: the file, and that of the voxels of a header.
pub fn files_written(path: &Path) -> Vec<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let pairs = [(".mhd", ".zraw"), (".nhdr", ".raw.gz")];
    let voxels = pairs.into_iter().find_map(|(header, voxels)| {
        Some(path.with_file_name(format!("{}{voxels}", name.strip_suffix(header)?)))
    });
    [path.to_owned()].into_iter().chain(voxels).collect()
}

/// The ending in which labels of a scan are written: that of the scan, or `.nii.gz` for NIfTI.
pub fn ending_of_labels(scan: &Path) -> &'static str {
    match written_ending(scan) {
        Some(ending) if !ending.starts_with(".nii") => ending,
        _ => ".nii.gz",
    }
}

/// The files that an image's file stands for: itself, or a header and the voxels beside it.
pub fn files_of(path: &Path) -> Vec<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let voxels = match split_ending(&name) {
        Some((_, ".mhd")) => metaimage::voxels_of(path),
        Some((_, ".nhdr")) => nrrd::voxels_of(path),
        _ => return nifti::files_of(path),
    };
    let voxels = voxels.ok().filter(|voxels| voxels != path);
    [path.to_owned()].into_iter().chain(voxels).collect()
}

/// Writes the labels of a prediction; the ending of the name decides on the format. As
/// [`nifti::write_compact_labelmap`].
///
/// # Errors
/// As there.
pub fn write_compact_labelmap(
    path: &Path,
    labels: &CompactLabelMap,
    max_label: u16,
    note: Option<&str>,
) -> Result<()> {
    let narrow = LabelVoxels::bytes_each(max_label) == 1;
    match &labels.voxels {
        _ if is_nifti(path) => nifti::write_compact_labelmap(path, labels, max_label, note),
        LabelVoxels::Bytes(values) if narrow => {
            write(path, &LabelBytes::Bytes(values), &labels.geometry, note)
        }
        LabelVoxels::Bytes(_) => {
            let words = labels.voxels.to_words();
            write(path, &LabelBytes::Words(&words, false), &labels.geometry, note)
        }
        LabelVoxels::Words(values) => {
            let narrow = narrow && values.iter().all(|v| *v <= u16::from(u8::MAX));
            write(path, &LabelBytes::Words(values, narrow), &labels.geometry, note)
        }
    }
}

/// As [`write_compact_labelmap`], with the names of the labels where the format has a place for them:
/// in NIfTI, as [`nifti::write_named_labelmap`].
///
/// # Errors
/// As [`write_compact_labelmap`].
pub fn write_named_labelmap(
    path: &Path,
    labels: &CompactLabelMap,
    names: &LabelSet,
    note: Option<&str>,
) -> Result<()> {
    match is_nifti(path) {
        true => nifti::write_named_labelmap(path, labels, names, note),
        false => write_compact_labelmap(path, labels, names.max_value(), note),
    }
}

/// Writes a volume of bytes, such as how sure each label is; the ending of the name decides on the
/// format. As [`nifti::write_bytes`].
///
/// # Errors
/// As there.
pub fn write_bytes(
    path: &Path,
    volume: &Array3<u8>,
    geometry: &Geometry,
    note: Option<&str>,
) -> Result<()> {
    match is_nifti(path) {
        true => nifti::write_bytes(path, volume, geometry, note),
        false => write(path, &LabelBytes::Bytes(volume), geometry, note),
    }
}

fn is_nifti(path: &Path) -> bool {
    !matches!(written_ending(path), Some(".mha" | ".mhd" | ".nrrd" | ".nhdr"))
}

fn write(
    path: &Path,
    volume: &LabelBytes<'_>,
    geometry: &Geometry,
    note: Option<&str>,
) -> Result<()> {
    if geometry.is_plane() {
        let what = "number of dimensions";
        let (expected, found) = ("3, as planes are written as NIfTI".to_owned(), "2".to_owned());
        return Err(DataError::Mismatch { what, expected, found }.at(path));
    }
    match written_ending(path) {
        Some(".mha" | ".mhd") => metaimage::write(path, volume, geometry, note),
        _ => nrrd::write(path, volume, geometry, note),
    }
}

/// The notes that a file carries: one of a volume, or an object of DICOM (feature `dicom`).
///
/// # Errors
/// As far as reading its header goes.
pub fn read_notes(path: &Path) -> Result<Vec<String>> {
    #[cfg(feature = "dicom")]
    if path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("dcm")) {
        return crate::dicom::read_note(path).map(|note| note.into_iter().collect());
    }
    let notes = match written_ending(path) {
        Some(".mha" | ".mhd") => metaimage::note(path).map(|note| note.into_iter().collect()),
        Some(".nrrd" | ".nhdr") => nrrd::note(path).map(|note| note.into_iter().collect()),
        _ => nifti::read_notes(path),
    };
    notes.map_err(|e| e.at(path))
}

#[cfg(test)]
mod tests;
