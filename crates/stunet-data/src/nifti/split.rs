//! A file of several volumes as one file for each, voxel bytes unchanged.

use super::header::{SIZE_1, SIZE_2};
use super::read::header_with_bytes;
use super::write::{LEVEL, is_compressed};
use crate::error::{DataError, Result};
use crate::files;
use crate::gzip::ParallelGzip;
use crate::voxels::Source;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Writes every volume of a NIfTI file (`.nii`, `.nii.gz`) to a file of its own, named by `path_of` its
/// number: what nnU-Net's conversion of the Medical Segmentation Decathlon does. Type, scaling and
/// geometry are those of the file; its extensions are left out. Returns the number of volumes.
///
/// # Errors
/// When the file cannot be read as NIfTI, holds vectors, has its voxels in a file of their own, or a
/// file cannot be written.
pub fn split_volumes(file: &Path, path_of: impl Fn(usize) -> PathBuf) -> Result<usize> {
    split(file, path_of).map_err(|error| error.at(file))
}

fn split(file: &Path, path_of: impl Fn(usize) -> PathBuf) -> Result<usize> {
    let mut source = Source::open(file)?;
    let (header, mut bytes) = header_with_bytes(&mut source, true)?;
    let (channels, shape) = header.shape()?;
    if header.two_files || header.dims.len() > 4 {
        let what = "expected volumes on the fourth axis, and voxels in the same file".to_owned();
        return Err(DataError::UnsupportedNifti { what });
    }
    let type_bytes = header.data_type()?.size_of();
    let length = shape.iter().product::<usize>() * type_bytes;
    describe_one_volume(&mut bytes, header.little_endian);
    source.skip_to(header.vox_offset)?;
    let mut voxels = Vec::new();
    for channel in 0..channels {
        read_exactly(&mut source, &mut voxels, length)?;
        let path = path_of(channel);
        let packed = is_compressed(&path)?;
        files::write(&path, |out| {
            let written = match packed {
                true => ParallelGzip::new(out, LEVEL).and_then(|mut gzip| {
                    gzip.write_all(&bytes)?;
                    gzip.write_all(&voxels)?;
                    gzip.finish()
                }),
                false => out.write_all(&bytes).and_then(|()| out.write_all(&voxels)),
            };
            written.map_err(|error| DataError::io("write", error))
        })?;
    }
    source.finish()?;
    Ok(channels)
}

/// Fills `voxels` in pieces, so that nothing is allocated on a header's word alone.
fn read_exactly(source: &mut Source<'_>, voxels: &mut Vec<u8>, length: usize) -> Result<()> {
    const PIECE: usize = 1 << 24;
    voxels.clear();
    while voxels.len() < length {
        let at = voxels.len();
        let piece = PIECE.min(length - at);
        voxels.resize(at + piece, 0);
        let found = source.fill(&mut voxels[at..])?;
        if found < piece {
            return Err(DataError::Mismatch {
                what: "bytes of voxels",
                expected: length.to_string(),
                found: (at + found).to_string(),
            });
        }
    }
    Ok(())
}

/// Changes a header to three axes, and appends that no extension follows.
fn describe_one_volume(bytes: &mut Vec<u8>, little: bool) {
    let (size, first) = (bytes.len(), if little { 1 } else { 0 });
    match size {
        SIZE_2 => {
            let mut put = |at: usize, value: i64| {
                let raw = if first == 1 { value.to_le_bytes() } else { value.to_be_bytes() };
                bytes[at..at + 8].copy_from_slice(&raw);
            };
            put(16, 3);
            (4..8).for_each(|axis| put(16 + 8 * axis, 1));
            put(168, (SIZE_2 + 4) as i64);
        }
        _ => {
            let mut put = |at: usize, value: i16| {
                let raw = if first == 1 { value.to_le_bytes() } else { value.to_be_bytes() };
                bytes[at..at + 2].copy_from_slice(&raw);
            };
            put(40, 3);
            (4..8).for_each(|axis| put(40 + 2 * axis, 1));
            let offset = (SIZE_1 + 4) as f32;
            let raw = if little { offset.to_le_bytes() } else { offset.to_be_bytes() };
            bytes[108..112].copy_from_slice(&raw);
        }
    }
    bytes.extend([0; 4]);
}
