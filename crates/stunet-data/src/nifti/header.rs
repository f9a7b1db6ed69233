//! The fixed part of a NIfTI file: 348 bytes (version 1) or 540 (version 2).
//!
//! The crate [`nifti`] reads version 1 and names the types; it has no version 2.

use crate::error::{DataError, Result};
use nifti::{Endianness, NiftiHeader, NiftiType};

/// Bytes of a version 1 header.
pub(super) const SIZE_1: usize = 348;
/// Bytes of a version 2 header.
pub(super) const SIZE_2: usize = 540;

/// The fields that matter here, axes in the file's order x, y, z.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Header {
    pub version: u8,
    pub little_endian: bool,
    /// Voxels lie in a file of their own.
    pub two_files: bool,
    /// What the voxels stand for, such as vectors or tensors.
    pub intent: i32,
    /// NIfTI's code; [`Header::data_type`] says what it stands for.
    pub datatype: i16,
    /// `dim[1..=dim[0]]`.
    pub dims: Vec<i64>,
    /// `pixdim[0..=3]`; the first holds the sign of the third axis of the qform.
    pub pixdim: [f64; 4],
    pub vox_offset: u64,
    pub slope: f64,
    pub intercept: f64,
    pub units: i32,
    pub qform_code: i32,
    pub sform_code: i32,
    pub quaternion: [f64; 3],
    pub q_offset: [f64; 3],
    pub sform: [[f64; 4]; 3],
}

/// Bytes read in the file's byte order.
struct Fields<'a> {
    bytes: &'a [u8],
    little: bool,
}

macro_rules! field {
    ($name:ident, $type:ty) => {
        fn $name(&self, at: usize) -> $type {
            let raw = self.bytes[at..at + size_of::<$type>()]
                .try_into()
                .expect("the slice has the type's length");
            if self.little { <$type>::from_le_bytes(raw) } else { <$type>::from_be_bytes(raw) }
        }
    };
}

impl Fields<'_> {
    field!(i16, i16);
    field!(i32, i32);
    field!(i64, i64);
    field!(f64, f64);

    fn f64s<const N: usize>(&self, at: usize) -> [f64; N] {
        std::array::from_fn(|i| self.f64(at + 8 * i))
    }
}

/// Length of the header that starts with these four bytes, and its byte order.
pub(super) fn size_of_header(first: [u8; 4]) -> Result<(usize, bool)> {
    for (size, version) in [(SIZE_1, 348), (SIZE_2, 540)] {
        if i32::from_le_bytes(first) == version {
            return Ok((size, true));
        }
        if i32::from_be_bytes(first) == version {
            return Ok((size, false));
        }
    }
    Err(DataError::NotNifti {
        expected: "a header size of 348 or 540",
        found: i32::from_le_bytes(first).to_string(),
    })
}

/// Reads a header of either version. The name of a file may say that it holds its voxels itself.
pub(super) fn parse(bytes: &[u8], little: bool, one_file: bool) -> Result<Header> {
    let header = match bytes.len() {
        SIZE_1 => parse_1(bytes, little, one_file)?,
        _ => parse_2(&Fields { bytes, little }, one_file)?,
    };
    let smallest = if header.two_files { 0 } else { bytes.len() as u64 };
    if header.vox_offset < smallest {
        return Err(DataError::NotNifti {
            expected: "voxels behind the header",
            found: format!("voxel offset {}", header.vox_offset),
        });
    }
    Ok(header)
}

fn parse_1(bytes: &[u8], little: bool, one_file: bool) -> Result<Header> {
    let two_files = magic(&bytes[344..348], *b"n+1\0", *b"ni1\0")? && !one_file;
    let header = NiftiHeader::from_reader(bytes).map_err(|e| DataError::NotNifti {
        expected: "a header of NIfTI-1",
        found: e.to_string(),
    })?;
    // The number of dimensions decides the byte order, as in the NIfTI library; where it is none in
    // either order, the size of the header does.
    let little_endian = header.endianness == Endianness::Little;
    let swapped = little_endian != little && !(1..=7).contains(&header.dim[0]);
    let dims = header.dim.map(|n| i64::from(if swapped { n.swap_bytes() } else { n } as i16));
    Ok(Header {
        version: 1,
        little_endian,
        two_files,
        intent: header.intent_code.into(),
        datatype: header.datatype,
        dims: used_dims(&dims)?,
        pixdim: std::array::from_fn(|i| header.pixdim[i].into()),
        vox_offset: offset_or(header.vox_offset.into(), two_files, SIZE_1),
        slope: header.scl_slope.into(),
        intercept: header.scl_inter.into(),
        units: header.xyzt_units.into(),
        qform_code: header.qform_code.into(),
        sform_code: header.sform_code.into(),
        quaternion: [header.quatern_b, header.quatern_c, header.quatern_d].map(f64::from),
        q_offset: [header.quatern_x, header.quatern_y, header.quatern_z].map(f64::from),
        sform: [header.srow_x, header.srow_y, header.srow_z].map(|row| row.map(f64::from)),
    })
}

fn parse_2(f: &Fields<'_>, one_file: bool) -> Result<Header> {
    let two_files = magic(&f.bytes[4..8], *b"n+2\0", *b"ni2\0")? && !one_file;
    let dims: Vec<i64> = (0..8).map(|i| f.i64(16 + 8 * i)).collect();
    Ok(Header {
        version: 2,
        little_endian: f.little,
        two_files,
        intent: f.i32(504),
        datatype: f.i16(12),
        dims: used_dims(&dims)?,
        pixdim: f.f64s(104),
        vox_offset: offset_or(f.i64(168) as f64, two_files, SIZE_2),
        slope: f.f64(176),
        intercept: f.f64(184),
        units: f.i32(500),
        qform_code: f.i32(344),
        sform_code: f.i32(348),
        quaternion: f.f64s(352),
        q_offset: f.f64s(376),
        sform: [f.f64s(400), f.f64s(432), f.f64s(464)],
    })
}

fn magic(found: &[u8], one_file: [u8; 4], two_files: [u8; 4]) -> Result<bool> {
    if found == one_file || found == two_files {
        return Ok(found == two_files);
    }
    Err(DataError::NotNifti {
        expected: "the magic bytes n+1, ni1, n+2 or ni2 (Analyze 7.5 has none: convert the file to \
                   NIfTI)",
        found: found.escape_ascii().to_string(),
    })
}

/// An offset of 0 in a single file means right behind the header and its four extension bytes.
fn offset_or(offset: f64, two_files: bool, header: usize) -> u64 {
    if !two_files && offset == 0.0 {
        header as u64 + 4
    } else {
        // Saturates: NaN and negative offsets become 0, which is refused for single files.
        offset as u64
    }
}

/// A length of 0 behind the second counts as 1, as in the NIfTI library and so in ITK. A plane
/// without columns or rows holds nothing: it is refused, where ITK reads one row of it.
fn used_dims(dims: &[i64]) -> Result<Vec<i64>> {
    let bad = |expected| DataError::BadDimensions { expected, found: dims.to_vec() };
    let count = usize::try_from(dims[0]).unwrap_or(0);
    if !(2..=7).contains(&count) {
        return Err(bad("2 to 7 dimensions"));
    }
    let mut used = dims[1..=count].to_vec();
    used[2..].iter_mut().filter(|n| **n == 0).for_each(|n| *n = 1);
    if used.iter().any(|n| *n < 1) {
        return Err(bad("at least one voxel along every axis"));
    }
    Ok(used)
}

/// Voxels that are no channels of intensities, by their intent; ITK refuses or turns them.
fn tensor(intent: i32) -> Option<&'static str> {
    match intent {
        1004 => Some("matrices"),
        1005 => Some("symmetric matrices"),
        1006 => Some("displacements"),
        _ => None,
    }
}

impl Header {
    /// Number of channels and shape `[z, y, x]`.
    pub fn shape(&self) -> Result<(usize, [usize; 3])> {
        let at = |i: usize| self.dims.get(i).copied().unwrap_or(1);
        // Vectors are stored on the fifth axis, time and channels on the fourth.
        let channels = at(3).checked_mul(at(4));
        let total = (0..7).try_fold(1i64, |n, i| n.checked_mul(at(i)));
        let bad = |expected| DataError::BadDimensions { expected, found: self.dims.clone() };
        if let Some(name) = tensor(self.intent) {
            let what = format!("expected intensities or labels, found {name} ({})", self.intent);
            return Err(DataError::UnsupportedNifti { what });
        }
        if at(5) != 1 || at(6) != 1 || (at(3) != 1 && at(4) != 1) {
            return Err(bad("three spatial axes and one of channels"));
        }
        let fits = total.and_then(|n| n.checked_mul(8)).is_some();
        match (channels, fits) {
            (Some(channels), true) => {
                Ok((channels as usize, [at(2), at(1), at(0)].map(|n| n as usize)))
            }
            _ => Err(bad("a volume that fits into memory")),
        }
    }

    /// True for an image of two dimensions, whatever stands behind them.
    pub fn is_plane(&self) -> bool {
        self.dims.len() == 2
    }

    /// What the code of the data type stands for.
    ///
    /// # Errors
    /// When voxels are no integers or floats of 8 to 64 bits.
    pub fn data_type(&self) -> Result<NiftiType> {
        use NiftiType::{Complex64, Complex128, Complex256, Float128, Rgb24, Rgba32};
        let code = self.datatype;
        let known = NiftiHeader { datatype: code, ..NiftiHeader::default() }.data_type();
        let name = match known {
            Ok(Complex64 | Complex128 | Complex256) => format!("complex numbers ({code})"),
            Ok(Rgb24 | Rgba32) => format!("colours ({code})"),
            Ok(Float128) => format!("128-bit floats ({code})"),
            Ok(known) => return Ok(known),
            Err(_) if code == 1 => "bits (1)".to_owned(),
            Err(_) => format!("code {code}"),
        };
        Err(DataError::UnsupportedNifti {
            what: format!("expected integers or floats of 8 to 64 bits, found data type {name}"),
        })
    }

    /// Slope and intercept, where they change anything.
    ///
    /// # Source
    /// `itkNiftiImageIO.cxx`: values that are not finite count as 0, and a slope of 0 as 1.
    pub fn scaling(&self) -> Option<(f64, f64)> {
        let finite = |v: f64| if v.is_finite() { v } else { 0.0 };
        let (slope, intercept) = (finite(self.slope), finite(self.intercept));
        let slope = if slope.abs() < f64::EPSILON { 1.0 } else { slope };
        let changes = (slope - 1.0).abs() > f64::EPSILON || intercept.abs() > f64::EPSILON;
        changes.then_some((slope, intercept))
    }
}
