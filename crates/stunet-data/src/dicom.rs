//! DICOM series: folders, zip archives, and files of one or of many frames.
//!
//! 1. [`find`] looks through everything below a path and returns the [`Series`] in it.
//! 2. [`Found::choose`] picks the one that is meant, or says which there are.
//! 3. [`Series::read`] puts its slices into their order in space and decodes them.
//!
//! * Geometry: `ImagePositionPatient`, `ImageOrientationPatient` and `PixelSpacing`, per frame where
//!   a file has many. Names of files, `InstanceNumber`, `SliceThickness` and `SliceLocation` do not
//!   count. The grid is that of SimpleITK, slices in rising order along their normal.
//! * Values: the bits that are stored, with their sign, times each slice's own `RescaleSlope` plus
//!   `RescaleIntercept`. `MONOCHROME1` asks for an inverted *display* and changes no value; padding
//!   values are values.
//! * Pixels: uncompressed in either byte order, deflated, RLE, JPEG (8 bits, or without loss),
//!   JPEG-LS, JPEG 2000. Others are named in the error.
//!
//! A series that is no regular volume (slices missing, doubled, tilted, unevenly spaced, turned
//! against each other) is refused in one line that says where, as long as its reader has not been
//! told to go on ([`Series::read`]).
//!
//! Labels of a series go back into DICOM by [`Series::source`] and [`Derived`]: as segmentations
//! (binary, or label maps) and as RT structure sets.
//!
//! Nothing that names a person is shown: not the patient's name, number or date of birth, nor those of
//! the staff. A [`Source`] takes them from file to file, as an output belongs to the same patient. Paths
//! may hold such; they stand at the end of errors only.

mod dataset;
mod found;
mod frames;
mod header;
mod out;
mod parse;
mod place;
mod series;
mod stack;
mod syntax;
mod volume;

pub use found::Found;
pub use out::{Derived, DicomProvenance, SegmentationKind, Source, note_in_memory, read_note};
pub use series::Series;

use crate::error::{DataError, Result};
use crate::image::RawImage;
use dicom_core::{DataDictionary, Tag};
use dicom_dictionary_std::StandardDataDictionary;
use std::path::Path;

/// A scan that was read, and what is to be said of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Scan {
    /// One channel.
    pub image: RawImage,
    /// What was left out or made up, one sentence each.
    pub notes: Vec<String>,
}

/// Looks for series in a file, in a zip archive, or in a folder and everything below it.
///
/// Headers are read, pixels are not. Files that are no DICOM images are counted.
///
/// # Errors
/// When the path cannot be read, or a single file is no DICOM file.
pub fn find(path: &Path) -> Result<Found> {
    found::find(place::places(path)?)
}

/// As [`find`], of files in memory.
///
/// # Errors
/// As [`find`].
pub fn find_in_memory<B: AsRef<[u8]>>(files: &[B]) -> Result<Found> {
    found::find(files.iter().map(|bytes| place::Place::Memory(bytes.as_ref().into())).collect())
}

/// Whether a path may hold DICOM: a zip archive, or a file that says so. Of a folder see [`find`].
pub fn is_dicom(path: &Path) -> bool {
    !path.is_dir() && (place::is_zip(path) || place::has_mark(path))
}

/// An element whose value cannot be used.
fn bad_value(tag: Tag, expected: impl Into<String>, found: &str) -> DataError {
    let name = StandardDataDictionary.by_tag(tag).map_or("an element", |entry| entry.alias);
    DataError::UnsupportedDicom {
        what: format!("{name}: expected {}, found {}", expected.into(), syntax::shown(found)),
    }
}

#[cfg(test)]
mod tests;
