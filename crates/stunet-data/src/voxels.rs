//! Voxels on their way from the bytes of a file, whatever its format: in one pass and in pieces.

use crate::error::{DataError, Result};
use crate::geometry::Geometry;
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use ndarray::Array3;
use nifti::NiftiType::{
    self, Float32, Float64, Int8, Int16, Int32, Int64, Uint8, Uint16, Uint32, Uint64,
};
use std::io::{BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::Path;

/// How voxels are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    /// Not at all.
    None,
    Gzip,
    Zlib,
}

/// How voxels lie in a file.
pub(crate) struct Layout<'a> {
    pub of: NiftiType,
    pub little: bool,
    /// Slope and intercept.
    pub scaling: Option<(f64, f64)>,
    pub count: usize,
    /// The header's dimensions, for errors.
    pub dims: &'a [i64],
}

/// A file's voxels as the file means them, x fastest, channels slowest.
pub(crate) struct Volume {
    pub voxels: Values,
    pub num_channels: usize,
    pub geometry: Geometry,
}

/// Voxels on their way from bytes: small whole numbers for as long as all of them are.
pub(crate) enum Values {
    Small(Vec<i16>),
    Single(Vec<f32>),
}

impl Values {
    /// How many there are.
    pub fn len(&self) -> usize {
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

/// Labels on their way to a file, x fastest: a byte each, or two in little endian.
pub(crate) enum LabelBytes<'a> {
    Bytes(&'a Array3<u8>),
    /// Whether all of them fit into a byte.
    Words(&'a Array3<u16>, bool),
}

impl LabelBytes<'_> {
    /// Bytes of a voxel.
    pub fn bytes_each(&self) -> usize {
        match self {
            Self::Bytes(_) | Self::Words(_, true) => 1,
            Self::Words(_, false) => 2,
        }
    }

    /// Writes all of them.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_to(&self, out: &mut impl Write) -> std::io::Result<()> {
        const FITS: &str = "standard layout is contiguous";
        let mut piece = Vec::with_capacity(PIECE);
        match self {
            Self::Bytes(values) => {
                out.write_all(values.as_standard_layout().as_slice().expect(FITS))?;
            }
            Self::Words(values, narrow) => {
                let values = values.as_standard_layout();
                for part in values.as_slice().expect(FITS).chunks(PIECE / 2) {
                    piece.clear();
                    match narrow {
                        true => piece.extend(part.iter().map(|v| *v as u8)),
                        false => piece.extend(part.iter().flat_map(|v| v.to_le_bytes())),
                    }
                    out.write_all(&piece)?;
                }
            }
        }
        Ok(())
    }
}

/// A plain or compressed file, told apart by its first bytes.
pub(crate) struct Source<'a> {
    reader: Box<dyn Read + 'a>,
    compressed: bool,
    file_size: u64,
    /// Bytes that were read or passed over, once unpacked.
    pub position: u64,
}

impl<'a> Source<'a> {
    /// A file from its beginning.
    pub fn open(path: &Path) -> Result<Self> {
        let read = |e| DataError::io("read", e);
        let file = crate::files::open(path)?;
        let metadata = file.metadata().map_err(read)?;
        Self::new(BufReader::with_capacity(PIECE, file), metadata.len())
    }

    /// A file in memory.
    pub fn of(bytes: &'a [u8]) -> Result<Self> {
        Self::new(bytes, bytes.len() as u64)
    }

    /// What lies behind a header in a file: `at` bytes from its beginning, packed as it says.
    ///
    /// # Errors
    /// When the file cannot be read, or is shorter than that.
    pub fn behind(path: &Path, at: u64, packing: Packing) -> Result<Self> {
        let read = |e| DataError::io("read", e);
        let mut file = crate::files::open(path)?;
        let length = file.metadata().map_err(read)?.len();
        if length < at {
            return Err(DataError::Truncated { expected: at, found: length });
        }
        file.seek(SeekFrom::Start(at)).map_err(read)?;
        Self::packed(BufReader::with_capacity(PIECE, file), length - at, packing)
    }

    /// As [`Source::behind`], of a file in memory.
    ///
    /// # Errors
    /// As there.
    pub fn behind_in(bytes: &'a [u8], at: u64, packing: Packing) -> Result<Self> {
        let rest = usize::try_from(at).ok().and_then(|at| bytes.get(at..));
        let found = bytes.len() as u64;
        let rest = rest.ok_or(DataError::Truncated { expected: at, found })?;
        Self::packed(rest, rest.len() as u64, packing)
    }

    fn packed(reader: impl BufRead + 'a, file_size: u64, packing: Packing) -> Result<Self> {
        Ok(Self {
            reader: match packing {
                Packing::None => Box::new(reader),
                Packing::Gzip => Box::new(MultiGzDecoder::new(reader)),
                Packing::Zlib => Box::new(ZlibDecoder::new(reader)),
            },
            compressed: packing != Packing::None,
            file_size,
            position: 0,
        })
    }

    fn new(mut reader: impl BufRead + 'a, file_size: u64) -> Result<Self> {
        let start = reader.fill_buf().map_err(|e| DataError::io("read", e))?;
        let packing = match start.starts_with(&[0x1f, 0x8b]) {
            true => Packing::Gzip,
            false => Packing::None,
        };
        Self::packed(reader, file_size, packing)
    }

    /// Fills as much of `buffer` as there is.
    pub fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
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

    /// Passes over what stands before a place.
    pub fn skip_to(&mut self, offset: u64) -> Result<()> {
        let gap = offset - self.position.min(offset);
        let skipped = std::io::copy(&mut (&mut self.reader).take(gap), &mut std::io::sink())
            .map_err(|e| self.broken(e))?;
        self.position += skipped;
        if skipped < gap {
            return Err(DataError::Truncated { expected: offset, found: self.position });
        }
        Ok(())
    }

    /// The voxels from here on.
    ///
    /// # Errors
    /// When they are not there: nothing is allocated on a header's word alone.
    pub fn voxels(&mut self, layout: &Layout<'_>) -> Result<Values> {
        let &Layout { of, little, scaling, count, dims } = layout;
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
            found: dims.to_vec(),
        };
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
    pub fn finish(mut self) -> Result<()> {
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

/// Fails where a voxel is NaN or infinite; `shape` is that of one channel.
pub(crate) fn check_finite(voxels: &[f32], shape: [usize; 3]) -> Result<()> {
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
