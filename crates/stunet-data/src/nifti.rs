//! NIfTI-1 and NIfTI-2 files: volumes in, labelmaps out, with the geometry of the input.
//!
//! * One file (`.nii`, `.nii.gz`), or a header with its voxels (`.hdr` and `.img`, either of which may
//!   be named),
//! * integers and floats of 8 to 64 bits, either byte order, `scl_slope` and `scl_inter`,
//! * 2-D, 3-D, or 4-D with channels on the fourth axis, or one file per channel,
//! * orientation by the rules of ITK 5, which nnU-Net reads with: see `nifti/orientation.rs`; or as
//!   another of nnU-Net's readers sees it ([`Reader`]).
//!
//! Headers are read as ITK reads them: 354 of them are held against its record in
//! `nifti/tests/itk_headers.json`. What is refused here although ITK takes it says so: a spacing that is
//! zero or not finite (1 mm for ITK), an offset within the header, voxels that are not there, complex
//! numbers and colours, Analyze 7.5.
//!
//! Nothing is allocated on a header's word alone, and nothing half-written is left behind.

mod header;
mod names;
mod nibabel;
mod note;
mod opener;
mod orientation;
mod read;
mod reader;
mod split;
mod write;

pub use names::{ENDINGS, files_of, has_header_beside, split_ending};
pub use opener::Opener;
pub use reader::{Reader, in_file};
pub use split::split_volumes;
pub use write::{
    labelmap_to_bytes, write_bytes, write_compact_labelmap, write_image, write_labelmap,
    write_named_labelmap,
};

use crate::error::{DataError, Result};
use crate::geometry::{Geometry, Leniency};
use crate::image::{Image, RawImage, Voxels};
use crate::labels::LabelMap;
use crate::voxels::{Values, Volume};
use ndarray::{Array3, Array4};
use std::path::{Path, PathBuf};

/// Reads one 3-D or 4-D file, or the channel files of a case in channel order.
///
/// # Shapes
/// `[C, Z, Y, X]`: channels of 4-D files and of several files follow each other.
///
/// # Errors
/// When a file is missing, truncated, damaged or no NIfTI file, its affine is singular or sheared,
/// its spacing zero, a voxel NaN or infinite, or the files do not share one grid.
pub fn read_image<P: AsRef<Path>>(files: &[P]) -> Result<Image> {
    read_scan(files).map(RawImage::into_image)
}

/// As [`read_image`], in half the memory where the voxels are small whole numbers, as in CT.
///
/// # Errors
/// As [`read_image`].
pub fn read_scan<P: AsRef<Path>>(files: &[P]) -> Result<RawImage> {
    Reader::default().read_scan(files)
}

/// One scan of the channels of several files, each with its name.
fn scan_of(
    mut volumes: impl Iterator<Item = Result<(Volume, PathBuf)>>,
    leniency: &Leniency,
) -> Result<RawImage> {
    let (mut volume, _) = volumes.next().unwrap_or(Err(DataError::NoCases))?;
    for next in volumes {
        let (next, file) = next?;
        volume
            .geometry
            .check_same_grid_within(&next.geometry, leniency)
            .map_err(|e| e.at(&file))?;
        volume.num_channels += next.num_channels;
        volume.voxels.append(next.voxels);
    }
    Ok(into_scan(volume))
}

fn into_scan(volume: Volume) -> RawImage {
    let [z, y, x] = volume.geometry.shape();
    let shape = (volume.num_channels, z, y, x);
    const FITS: &str = "the reader returns as many voxels as the shape says";
    let voxels = match volume.voxels {
        Values::Small(values) => Voxels::I16(Array4::from_shape_vec(shape, values).expect(FITS)),
        Values::Single(values) => Voxels::F32(Array4::from_shape_vec(shape, values).expect(FITS)),
    };
    RawImage { voxels, geometry: volume.geometry }
}

/// As [`read_scan`], from the bytes of one file, or of a header and of the `voxels` beside it.
///
/// # Errors
/// As [`read_image`].
pub fn read_scan_bytes(bytes: &[u8], voxels: Option<&[u8]>) -> Result<RawImage> {
    read::read_bytes(bytes, voxels).map(into_scan)
}

/// As [`read_labelmap`], from the bytes of one file, or of a header and of the `voxels` beside it.
///
/// # Errors
/// As [`read_labelmap`].
pub fn read_labelmap_bytes(bytes: &[u8], voxels: Option<&[u8]>) -> Result<LabelMap> {
    let volume = read::read_bytes(bytes, voxels)?;
    LabelMap::new(to_labels(&volume)?, volume.geometry)
}

/// Reads a labelmap: whole numbers from 0 to 65535, one channel.
///
/// # Errors
/// As [`read_image`], and when a voxel is no label.
pub fn read_labelmap(file: &Path) -> Result<LabelMap> {
    Reader::default().read_labelmap(file)
}

/// Reads the notes of a file: comments in its header's extensions.
///
/// # Errors
/// As [`read_image`], as far as the header goes.
pub fn read_notes(file: &Path) -> Result<Vec<String>> {
    read::read_notes(file).map_err(|e| e.at(file))
}

/// Reads only the grid and the number of channels of a file.
///
/// # Errors
/// As [`read_image`], as far as the header goes.
pub fn read_geometry(file: &Path) -> Result<(Geometry, usize)> {
    Reader::default().read_geometry(file)
}

fn to_labels(volume: &Volume) -> Result<Array3<u16>> {
    if volume.num_channels != 1 {
        return Err(DataError::ChannelCount { expected: 1, found: volume.num_channels });
    }
    let values: Vec<u16> = match &volume.voxels {
        Values::Small(values) => {
            if let Some(found) = values.iter().find(|v| **v < 0) {
                return Err(DataError::NotALabel { found: f64::from(*found) });
            }
            values.iter().map(|v| *v as u16).collect()
        }
        Values::Single(values) => {
            let bad = |v: &&f32| !(**v >= 0.0 && **v <= 65535.0 && v.fract() == 0.0);
            if let Some(found) = values.iter().find(bad) {
                return Err(DataError::NotALabel { found: f64::from(*found) });
            }
            values.iter().map(|v| *v as u16).collect()
        }
    };
    Ok(Array3::from_shape_vec(volume.geometry.shape(), values)
        .expect("the reader returns as many voxels as the shape says"))
}

#[cfg(test)]
#[path = "nifti/tests/itk.rs"]
mod itk_tests;
#[cfg(test)]
mod tests;
