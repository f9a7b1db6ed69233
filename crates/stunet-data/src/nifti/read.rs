//! Bytes to voxels, in one pass and in pieces.

use super::header::{self, Header};
use super::{names, note, orientation};
use crate::error::{DataError, Result};
use crate::geometry::Geometry;
use crate::voxels::{Layout, Source, Values, Volume, check_finite};
use std::path::Path;

/// Reads the header only.
pub(super) fn read_grid(path: &Path, sheared: bool) -> Result<(Geometry, usize)> {
    let (_, header) = open(path)?;
    let (channels, shape) = header.shape()?;
    Ok((orientation::geometry(&header, shape, sheared)?, channels))
}

/// Reads the comments in the header's extensions.
pub(super) fn read_notes(path: &Path) -> Result<Vec<String>> {
    let (mut source, header) = open(path)?;
    let gap = header.vox_offset.saturating_sub(source.position).min(note::MAX_BYTES as u64);
    let mut bytes = vec![0; gap as usize];
    let found = source.fill(&mut bytes)?;
    Ok(note::decode(&bytes[..found], header.little_endian))
}

/// What a volume is read from.
#[derive(Clone, Copy)]
pub(super) enum Input<'a> {
    /// A file, or one of a header and its voxels.
    File(&'a Path),
    /// The contents of one file.
    Bytes(&'a [u8]),
}

impl Input<'_> {
    /// Reads the header, for whoever sees another grid in it.
    pub fn header(self) -> Result<Header> {
        match self {
            Self::File(path) => open(path).map(|(_, header)| header),
            Self::Bytes(bytes) => header_of(&mut Source::of(bytes)?, true),
        }
    }

    /// Reads and checks everything.
    pub fn volume(self, sheared: bool) -> Result<Volume> {
        match self {
            Self::File(path) => read_volume(path, sheared),
            Self::Bytes(bytes) => {
                let mut start = Source::of(bytes)?;
                let header = header_of(&mut start, true)?;
                volume((start, header), sheared, || Source::of(&[]))
            }
        }
    }
}

/// Reads and checks everything.
fn read_volume(path: &Path, sheared: bool) -> Result<Volume> {
    let (source, header) = open(path)?;
    let voxels_at = match header.two_files {
        true => names::voxels_of(&names::header_of(path)?)?,
        false => path.to_owned(),
    };
    volume((source, header), sheared, || Source::open(&voxels_at)).map_err(|e| e.at(&voxels_at))
}

/// As [`read_volume`], from memory; `voxels` are those of a header that is a file of its own.
pub(super) fn read_bytes(bytes: &[u8], voxels: Option<&[u8]>) -> Result<Volume> {
    let mut start = Source::of(bytes)?;
    let header = header_of(&mut start, voxels.is_none())?;
    volume((start, header), false, || Source::of(voxels.unwrap_or_default()))
}

fn volume<'a>(
    (mut source, header): (Source<'a>, Header),
    sheared: bool,
    voxel_source: impl FnOnce() -> Result<Source<'a>>,
) -> Result<Volume> {
    let (num_channels, shape) = header.shape()?;
    let data_type = header.data_type()?;
    let geometry = orientation::geometry(&header, shape, sheared)?;
    if header.two_files {
        source = voxel_source()?;
    }
    source.skip_to(header.vox_offset)?;
    let num_voxels = num_channels * shape.iter().product::<usize>();
    let voxels = source.voxels(&Layout {
        of: data_type,
        little: header.little_endian,
        scaling: header.scaling(),
        count: num_voxels,
        dims: &header.dims,
    })?;
    source.finish()?;
    if let Values::Single(values) = &voxels {
        check_finite(values, shape)?;
    }
    Ok(Volume { voxels, num_channels, geometry })
}

/// Opens the file with the header, which may be the one beside `path`.
fn open(path: &Path) -> Result<(Source<'static>, Header)> {
    let at = names::header_of(path)?;
    let mut source = Source::open(&at)?;
    let header = header_of(&mut source, names::is_one_file(&at)).map_err(|e| e.at(&at))?;
    Ok((source, header))
}

fn header_of(source: &mut Source<'_>, one_file: bool) -> Result<Header> {
    header_with_bytes(source, one_file).map(|(header, _)| header)
}

/// The header at the beginning of a file, and its bytes.
pub(super) fn header_with_bytes(
    source: &mut Source<'_>,
    one_file: bool,
) -> Result<(Header, Vec<u8>)> {
    let short = |found: usize| DataError::NotNifti {
        expected: "a header of 348 or 540 bytes",
        found: format!("{found} bytes"),
    };
    let mut bytes = vec![0; header::SIZE_2];
    let found = source.fill(&mut bytes[..4])?;
    if found < 4 {
        return Err(short(found));
    }
    let first = [bytes[0], bytes[1], bytes[2], bytes[3]];
    let (size, little) = header::size_of_header(first)?;
    let found = 4 + source.fill(&mut bytes[4..size])?;
    if found < size {
        return Err(short(found));
    }
    let header = header::parse(&bytes[..size], little, one_file)?;
    bytes.truncate(size);
    Ok((header, bytes))
}
