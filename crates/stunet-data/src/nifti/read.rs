//! Bytes to voxels, in one pass and in pieces.

use super::header::{self, Header};
use super::{names, note, orientation};
use crate::error::{DataError, Result};
use crate::geometry::Geometry;
use flate2::read::MultiGzDecoder;
use nifti::NiftiType::{
    self, Float32, Float64, Int8, Int16, Int32, Int64, Uint8, Uint16, Uint32, Uint64,
};
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::Path;

/// A file's voxels as the file means them, x fastest, channels slowest.
pub(super) struct Volume {
    pub voxels: Values,
    pub num_channels: usize,
    pub geometry: Geometry,
}

/// Voxels on their way from bytes: small whole numbers for as long as all of them are.
pub(super) enum Values {
    Small(Vec<i16>),
    Single(Vec<f32>),
}

impl Values {
    fn len(&self) -> usize {
        match self {
            Self::Small(values) => values.len(),
            Self::Single(values) => values.len(),
        }
    }

    /// The values in single precision.
    pub fn into_single(self) -> Vec<f32> {
        match self {
            Self::Small(values) => values.into_iter().map(f32::from).collect(),
            Self::Single(values) => values,
        }
    }

    /// Appends another file's.
    pub fn append(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::Small(values), Self::Small(more)) => values.extend_from_slice(&more),
            (Self::Single(values), more) => values.extend(more.into_single()),
            (Self::Small(values), Self::Single(more)) => {
                let mut all: Vec<f32> = values.iter().map(|v| f32::from(*v)).collect();
                all.extend(more);
                *self = Self::Single(all);
            }
        }
    }
}

/// Bytes converted at a time; a multiple of every voxel size.
const PIECE: usize = 1 << 18;
/// Deflate cannot pack more than 1032 bytes into one; a little is added for headers.
const MAX_RATIO: u64 = 1100;

/// Reads the header only.
pub(super) fn read_grid(path: &Path) -> Result<(Geometry, usize)> {
    let (_, header) = open(path)?;
    let (channels, shape) = header.shape()?;
    Ok((orientation::geometry(&header, shape)?, channels))
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
            Self::Bytes(bytes) => Source::of(bytes)?.header(true),
        }
    }

    /// Reads and checks everything.
    pub fn volume(self) -> Result<Volume> {
        match self {
            Self::File(path) => read_volume(path),
            Self::Bytes(bytes) => read_bytes(bytes, None),
        }
    }
}

/// Reads and checks everything.
fn read_volume(path: &Path) -> Result<Volume> {
    let (source, header) = open(path)?;
    let voxels_at = match header.two_files {
        true => names::voxels_of(&names::header_of(path)?)?,
        false => path.to_owned(),
    };
    volume(source, header, || Source::open(&voxels_at)).map_err(|e| e.at(&voxels_at))
}

/// As [`read_volume`], from memory; `voxels` are those of a header that is a file of its own.
pub(super) fn read_bytes(bytes: &[u8], voxels: Option<&[u8]>) -> Result<Volume> {
    let mut start = Source::of(bytes)?;
    let header = start.header(voxels.is_none())?;
    volume(start, header, || Source::of(voxels.unwrap_or_default()))
}

fn volume<'a>(
    mut source: Source<'a>,
    header: Header,
    voxel_source: impl FnOnce() -> Result<Source<'a>>,
) -> Result<Volume> {
    let (num_channels, shape) = header.shape()?;
    let data_type = header.data_type()?;
    let geometry = orientation::geometry(&header, shape)?;
    if header.two_files {
        source = voxel_source()?;
    }
    source.skip_to(header.vox_offset)?;
    let num_voxels = num_channels * shape.iter().product::<usize>();
    let voxels = source.voxels(&header, num_voxels, data_type)?;
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
    let header = source.header(names::is_one_file(&at)).map_err(|e| e.at(&at))?;
    Ok((source, header))
}

/// A plain or compressed file, told apart by its first bytes.
struct Source<'a> {
    reader: Box<dyn Read + 'a>,
    compressed: bool,
    file_size: u64,
    position: u64,
}

impl<'a> Source<'a> {
    fn open(path: &Path) -> Result<Self> {
        let read = |e| DataError::io("read", e);
        let file = crate::files::open(path)?;
        let metadata = file.metadata().map_err(read)?;
        Self::new(BufReader::with_capacity(PIECE, file), metadata.len())
    }

    fn of(bytes: &'a [u8]) -> Result<Self> {
        Self::new(bytes, bytes.len() as u64)
    }

    fn new(mut reader: impl BufRead + 'a, file_size: u64) -> Result<Self> {
        let start = reader.fill_buf().map_err(|e| DataError::io("read", e))?;
        let compressed = start.starts_with(&[0x1f, 0x8b]);
        Ok(Self {
            reader: match compressed {
                true => Box::new(MultiGzDecoder::new(reader)),
                false => Box::new(reader),
            },
            compressed,
            file_size,
            position: 0,
        })
    }

    /// Fills as much of `buffer` as there is.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.reader.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(self.broken(e)),
            }
        }
        self.position += filled as u64;
        Ok(filled)
    }

    fn broken(&self, error: std::io::Error) -> DataError {
        use ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
        match error.kind() {
            UnexpectedEof if self.compressed => {
                DataError::BadGzip { reason: "the file ends early".to_owned() }
            }
            InvalidData | InvalidInput if self.compressed => {
                DataError::BadGzip { reason: error.to_string() }
            }
            _ => DataError::io("read", error),
        }
    }

    fn header(&mut self, one_file: bool) -> Result<Header> {
        let short = |found: usize| DataError::NotNifti {
            expected: "a header of 348 or 540 bytes",
            found: format!("{found} bytes"),
        };
        let mut bytes = [0; header::SIZE_2];
        let found = self.fill(&mut bytes[..4])?;
        if found < 4 {
            return Err(short(found));
        }
        let first = [bytes[0], bytes[1], bytes[2], bytes[3]];
        let (size, little) = header::size_of_header(first)?;
        let found = 4 + self.fill(&mut bytes[4..size])?;
        if found < size {
            return Err(short(found));
        }
        header::parse(&bytes[..size], little, one_file)
    }

    fn skip_to(&mut self, offset: u64) -> Result<()> {
        let gap = offset - self.position.min(offset);
        let skipped = std::io::copy(&mut (&mut self.reader).take(gap), &mut std::io::sink())
            .map_err(|e| self.broken(e))?;
        self.position += skipped;
        if skipped < gap {
            return Err(DataError::Truncated { expected: offset, found: self.position });
        }
        Ok(())
    }

    fn voxels(&mut self, header: &Header, count: usize, of: NiftiType) -> Result<Values> {
        let size = of.size_of();
        let expected = count as u64 * size as u64;
        let at_most = match self.compressed {
            true => self.file_size.saturating_mul(MAX_RATIO),
            false => self.file_size.saturating_sub(self.position),
        };
        if expected > at_most {
            return Err(DataError::Truncated {
                expected,
                found: if self.compressed { 0 } else { at_most },
            });
        }
        let reserve = |_| DataError::BadDimensions {
            expected: "a volume that fits into memory",
            found: header.dims.clone(),
        };
        let (scaling, little) = (header.scaling(), header.little_endian);
        let mut voxels = if is_small(of, scaling) {
            let mut values = Vec::new();
            values.try_reserve_exact(count).map_err(reserve)?;
            Values::Small(values)
        } else {
            let mut values = Vec::new();
            values.try_reserve_exact(count).map_err(reserve)?;
            Values::Single(values)
        };
        let mut piece = vec![0; PIECE.min(count * size)];
        while voxels.len() < count {
            let want = piece.len().min((count - voxels.len()) * size);
            let found = self.fill(&mut piece[..want])?;
            let whole = &piece[..found - found % size];
            voxels = match voxels {
                Values::Single(mut values) => {
                    convert((of, little), whole, scaling, &mut values);
                    Values::Single(values)
                }
                Values::Small(mut values) => {
                    if convert_small((of, little), whole, scaling, &mut values) {
                        Values::Small(values)
                    } else {
                        // What has been converted so far is exact in single precision, too.
                        let mut wide = Vec::new();
                        wide.try_reserve_exact(count).map_err(reserve)?;
                        wide.extend(values.iter().map(|v| f32::from(*v)));
                        convert((of, little), whole, scaling, &mut wide);
                        Values::Single(wide)
                    }
                }
            };
            if found < want {
                return Err(DataError::Truncated {
                    expected,
                    found: voxels.len() as u64 * size as u64 + (found % size) as u64,
                });
            }
        }
        Ok(voxels)
    }

    /// Reads a compressed file to its end, where its checksum stands.
    fn finish(mut self) -> Result<()> {
        let mut rest = vec![0; PIECE];
        while self.compressed {
            match self.fill(&mut rest) {
                Ok(0) => break,
                // Padding behind the last member is harmless; a wrong checksum is not.
                Err(DataError::BadGzip { reason }) if reason.contains("header") => break,
                result => result?,
            };
        }
        Ok(())
    }
}

/// Whether the file's type and scaling may give small whole numbers only.
fn is_small(of: NiftiType, scaling: Option<(f64, f64)>) -> bool {
    let whole = scaling.is_none_or(|(slope, inter)| {
        slope.fract() == 0.0
            && inter.fract() == 0.0
            && slope.abs() < 32768.0
            && inter.abs() < 32768.0
    });
    whole && matches!(of, Uint8 | Int8 | Int16 | Uint16)
}

/// Converts a piece; false, and nothing is added, when a value is no small whole number.
fn convert_small(
    (of, little): (NiftiType, bool),
    bytes: &[u8],
    scaling: Option<(f64, f64)>,
    to: &mut Vec<i16>,
) -> bool {
    let (slope, inter) = scaling.map_or((1, 0), |(slope, inter)| (slope as i32, inter as i32));
    let before = to.len();
    let mut fits = true;
    macro_rules! push {
        ($type:ty) => {
            to.extend(bytes.chunks_exact(size_of::<$type>()).map(|raw| {
                let raw = raw.try_into().expect("pieces have the type's length");
                let value = match little {
                    true => <$type>::from_le_bytes(raw),
                    false => <$type>::from_be_bytes(raw),
                };
                let value = i32::from(value) * slope + inter;
                fits &= value as i16 as i32 == value;
                value as i16
            }))
        };
    }
    match of {
        Uint8 => push!(u8),
        Int8 => push!(i8),
        Int16 => push!(i16),
        _ => push!(u16),
    }
    if !fits {
        to.truncate(before);
    }
    fits
}

fn convert(
    (of, little): (NiftiType, bool),
    bytes: &[u8],
    scaling: Option<(f64, f64)>,
    to: &mut Vec<f32>,
) {
    macro_rules! push {
        ($type:ty) => {{
            let values = bytes.chunks_exact(size_of::<$type>()).map(|raw| {
                let raw = raw.try_into().expect("pieces have the type's length");
                match little {
                    true => <$type>::from_le_bytes(raw),
                    false => <$type>::from_be_bytes(raw),
                }
            });
            match scaling {
                // As ITK: in double precision, then cut to single.
                Some((slope, inter)) => {
                    to.extend(values.map(|v| (v as f64 * slope + inter) as f32))
                }
                None => to.extend(values.map(|v| v as f32)),
            }
        }};
    }
    match of {
        Uint8 => push!(u8),
        Int8 => push!(i8),
        Int16 => push!(i16),
        Uint16 => push!(u16),
        Int32 => push!(i32),
        Uint32 => push!(u32),
        Float32 => push!(f32),
        Float64 => push!(f64),
        Int64 => push!(i64),
        Uint64 => push!(u64),
        _ => unreachable!("Header::data_type refuses other types"),
    }
}

fn check_finite(voxels: &[f32], shape: [usize; 3]) -> Result<()> {
    let bad = |v: &f32| !v.is_finite();
    let Some(at) = voxels.iter().position(bad) else {
        return Ok(());
    };
    let [z, y, x] = shape;
    Err(DataError::NonFiniteVoxels {
        count: voxels.iter().filter(|v| bad(v)).count(),
        first: [at / (z * y * x), at / (y * x) % z, at / x % y, at % x],
    })
}
