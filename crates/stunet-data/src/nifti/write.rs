//! Voxels to bytes. A file appears under its name only once it is complete.

use super::header::{SIZE_1, SIZE_2};
use super::note::Said;
use super::{note, orientation};
use crate::error::{DataError, Result};
use crate::files;
use crate::geometry::Geometry;
use crate::gzip::ParallelGzip;
use crate::image::Image;
use crate::labels::{CompactLabelMap, LabelMap, LabelSet, LabelVoxels};
use flate2::Compression;
use ndarray::Array3;
use nifti::{NiftiType, XForm};
use std::io::Write;
use std::path::Path;

/// Writes a labelmap with exactly its geometry (a plane as two dimensions), as u8, or u16 where `max_label` needs it.
///
/// `max_label` is the largest value the label set knows, so that all files of a model have one
/// type; larger values in the map widen the type as well. The ending decides: `.nii` or `.nii.gz`.
///
/// # Errors
/// When the folder is missing or not writable, the disk is full, or the ending is another one.
/// Nothing is left under `path` then.
pub fn write_labelmap(path: &Path, labels: &LabelMap, max_label: u16) -> Result<()> {
    words(&mut Target::File(path), (&labels.data, &labels.geometry), max_label, Said::default())
}

/// As [`write_labelmap`], for the labels of a prediction; a note goes into an extension of the header,
/// where [`read_notes`](super::read_notes) finds it.
///
/// # Errors
/// As [`write_labelmap`].
pub fn write_compact_labelmap(
    path: &Path,
    labels: &CompactLabelMap,
    max_label: u16,
    note: Option<&str>,
) -> Result<()> {
    compact(&mut Target::File(path), labels, max_label, Said { note, names: None })
}

/// As [`write_compact_labelmap`], with the names of the labels, in an extension that TotalSegmentator
/// reads.
///
/// # Errors
/// As [`write_labelmap`].
pub fn write_named_labelmap(
    path: &Path,
    labels: &CompactLabelMap,
    names: &LabelSet,
    note: Option<&str>,
) -> Result<()> {
    let said = Said { note, names: Some(names) };
    compact(&mut Target::File(path), labels, names.max_value(), said)
}

/// As [`write_compact_labelmap`], into memory: the bytes of a `.nii.gz` if `compressed`, else of a
/// `.nii`.
///
/// # Errors
/// When memory runs out.
pub fn labelmap_to_bytes(
    labels: &CompactLabelMap,
    max_label: u16,
    note: Option<&str>,
    compressed: bool,
) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let said = Said { note, names: None };
    compact(&mut Target::Memory(&mut bytes, compressed), labels, max_label, said)?;
    Ok(bytes)
}

/// Where a volume goes.
enum Target<'a> {
    /// A file, compressed as its name says.
    File(&'a Path),
    /// Memory, compressed or not.
    Memory(&'a mut Vec<u8>, bool),
}

fn compact(
    target: &mut Target<'_>,
    labels: &CompactLabelMap,
    max_label: u16,
    said: Said<'_>,
) -> Result<()> {
    let CompactLabelMap { voxels, geometry } = labels;
    match voxels {
        LabelVoxels::Bytes(values) if LabelVoxels::bytes_each(max_label) == 1 => {
            bytes(target, values, geometry, said)
        }
        LabelVoxels::Bytes(_) => words(target, (&voxels.to_words(), geometry), max_label, said),
        LabelVoxels::Words(values) => words(target, (values, geometry), max_label, said),
    }
}

fn words(
    target: &mut Target<'_>,
    (labels, geometry): (&Array3<u16>, &Geometry),
    max_label: u16,
    said: Said<'_>,
) -> Result<()> {
    let largest = labels.iter().copied().max().unwrap_or(0).max(max_label);
    let values = labels.as_standard_layout();
    let values = values.as_slice().expect("standard layout is contiguous");
    if largest <= u16::from(u8::MAX) {
        write(
            target,
            Head { geometry, channels: 1, datatype: NiftiType::Uint8, said },
            values,
            |v| [*v as u8],
        )
    } else {
        write(
            target,
            Head { geometry, channels: 1, datatype: NiftiType::Uint16, said },
            values,
            |v| v.to_le_bytes(),
        )
    }
}

/// Writes an image as 32-bit floats, channels on the fourth axis.
///
/// # Errors
/// As [`write_labelmap`].
pub fn write_image(path: &Path, image: &Image) -> Result<()> {
    let values = image.data.as_standard_layout();
    let values = values.as_slice().expect("standard layout is contiguous");
    let (geometry, channels) = (&image.geometry, image.num_channels());
    let head = Head { geometry, channels, datatype: NiftiType::Float32, said: Said::default() };
    write(&mut Target::File(path), head, values, |v| v.to_le_bytes())
}

/// Writes a volume of bytes, such as how sure each label is, with a note as in
/// [`write_compact_labelmap`].
///
/// # Errors
/// As [`write_labelmap`].
pub fn write_bytes(
    path: &Path,
    volume: &Array3<u8>,
    geometry: &Geometry,
    note: Option<&str>,
) -> Result<()> {
    bytes(&mut Target::File(path), volume, geometry, Said { note, names: None })
}

fn bytes(
    target: &mut Target<'_>,
    volume: &Array3<u8>,
    geometry: &Geometry,
    said: Said<'_>,
) -> Result<()> {
    let values = volume.as_standard_layout();
    let values = values.as_slice().expect("standard layout is contiguous");
    write(target, Head { geometry, channels: 1, datatype: NiftiType::Uint8, said }, values, |v| {
        [*v]
    })
}

/// Labels and CT shrink little more at higher levels, which take several times as long.
pub(super) const LEVEL: Compression = Compression::new(3);

/// What stands before the voxels.
#[derive(Clone, Copy)]
struct Head<'a> {
    geometry: &'a Geometry,
    channels: usize,
    datatype: NiftiType,
    said: Said<'a>,
}

fn write<T, const N: usize>(
    target: &mut Target<'_>,
    head: Head<'_>,
    values: &[T],
    to_bytes: impl Fn(&T) -> [u8; N],
) -> Result<()> {
    match target {
        Target::File(path) => {
            let compressed = is_compressed(path).map_err(|e| e.at(path))?;
            files::write(path, |file| encode(file, compressed, head, values, to_bytes))
        }
        Target::Memory(bytes, compressed) => {
            encode(&mut **bytes, *compressed, head, values, to_bytes)
        }
    }
}

/// What the ending of a name asks for.
pub(super) fn is_compressed(path: &Path) -> Result<bool> {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    match (name.ends_with(".nii.gz"), name.ends_with(".nii")) {
        (true, _) => Ok(true),
        (_, true) => Ok(false),
        _ => Err(DataError::UnsupportedNifti {
            what: "expected a file name ending in .nii or .nii.gz".to_owned(),
        }),
    }
}

fn encode<T, const N: usize>(
    mut out: impl Write,
    compressed: bool,
    head: Head<'_>,
    values: &[T],
    to_bytes: impl Fn(&T) -> [u8; N],
) -> Result<()> {
    let shape = head.geometry.shape();
    if shape.iter().product::<usize>() * head.channels != values.len() {
        return Err(DataError::Mismatch {
            what: "number of voxels",
            expected: format!("{shape:?} × {}", head.channels),
            found: values.len().to_string(),
        });
    }
    let header = header(head);
    let body = |out: &mut dyn Write| -> std::io::Result<()> {
        out.write_all(&header)?;
        let mut piece = Vec::with_capacity(N << 16);
        for chunk in values.chunks(1 << 16) {
            piece.clear();
            chunk.iter().for_each(|v| piece.extend_from_slice(&to_bytes(v)));
            out.write_all(&piece)?;
        }
        Ok(())
    };
    let written = match compressed {
        true => ParallelGzip::new(out, LEVEL).and_then(|mut packed| {
            body(&mut packed)?;
            packed.finish()
        }),
        false => body(&mut out),
    };
    written.map_err(|e| DataError::io("write", e))
}

/// A version 1 header, or version 2 where an axis is too long for it.
fn header(head: Head<'_>) -> Vec<u8> {
    let [z, y, x] = head.geometry.shape();
    let dims = [x, y, z, head.channels];
    let num_dims = match head.channels {
        1 if head.geometry.is_plane() => 2,
        1 => 3,
        _ => 4,
    };
    let extension = note::encode(head.said);
    let mut bytes = if dims.iter().any(|n| *n > i16::MAX as usize) {
        header_2(head.geometry, num_dims, dims, head.datatype, SIZE_2 + extension.len())
    } else {
        header_1(head.geometry, num_dims, dims, head.datatype, SIZE_1 + extension.len())
    };
    bytes.extend(extension);
    bytes
}

/// Quaternion, offset and rows of the affine.
struct Forms {
    pixdim: [f64; 5],
    quaternion: [f64; 3],
    offset: [f64; 3],
    sform: [[f64; 4]; 3],
}

fn forms(geometry: &Geometry) -> Forms {
    let affine = geometry.world_from_voxel();
    let [dz, dy, dx] = geometry.voxel_size_mm();
    let axes = std::array::from_fn(|r| std::array::from_fn(|c| affine[r][c] / [dx, dy, dz][c]));
    let (quaternion, qfac) = orientation::quaternion(&axes);
    Forms {
        pixdim: [qfac, dx, dy, dz, 1.0],
        quaternion,
        offset: std::array::from_fn(|r| affine[r][3]),
        sform: [affine[0], affine[1], affine[2]],
    }
}

fn code_and_bits(datatype: NiftiType) -> (i16, i16) {
    (datatype as i16, 8 * datatype.size_of() as i16)
}

const XFORM_SCANNER: i16 = XForm::ScannerAnat as i16;
const UNITS_MM: u8 = 2;

fn header_1(
    g: &Geometry,
    num_dims: i16,
    dims: [usize; 4],
    datatype: NiftiType,
    voxels_at: usize,
) -> Vec<u8> {
    let mut bytes = vec![0; SIZE_1];
    let mut put = |at: usize, raw: &[u8]| bytes[at..at + raw.len()].copy_from_slice(raw);
    let forms = forms(g);
    let (code, bits) = code_and_bits(datatype);
    put(0, &(SIZE_1 as i32).to_le_bytes());
    put(38, b"r");
    put(40, &num_dims.to_le_bytes());
    for axis in 0..7 {
        let n = dims.get(axis).map_or(1, |n| *n as i16);
        put(42 + 2 * axis, &n.to_le_bytes());
    }
    put(70, &code.to_le_bytes());
    put(72, &bits.to_le_bytes());
    let f32s = |values: &[f64]| -> Vec<u8> {
        values.iter().flat_map(|v| (*v as f32).to_le_bytes()).collect()
    };
    put(76, &f32s(&forms.pixdim));
    put(108, &f32s(&[voxels_at as f64, 1.0, 0.0]));
    put(123, &[UNITS_MM]);
    put(252, &XFORM_SCANNER.to_le_bytes());
    put(254, &XFORM_SCANNER.to_le_bytes());
    put(256, &f32s(&forms.quaternion));
    put(268, &f32s(&forms.offset));
    put(280, &f32s(forms.sform.as_flattened()));
    put(344, b"n+1\0");
    bytes
}

fn header_2(
    g: &Geometry,
    num_dims: i16,
    dims: [usize; 4],
    datatype: NiftiType,
    voxels_at: usize,
) -> Vec<u8> {
    let mut bytes = vec![0; SIZE_2];
    let mut put = |at: usize, raw: &[u8]| bytes[at..at + raw.len()].copy_from_slice(raw);
    let forms = forms(g);
    let (code, bits) = code_and_bits(datatype);
    put(0, &(SIZE_2 as i32).to_le_bytes());
    put(4, b"n+2\0\r\n\x1a\n");
    put(12, &code.to_le_bytes());
    put(14, &bits.to_le_bytes());
    put(16, &i64::from(num_dims).to_le_bytes());
    for axis in 0..7 {
        let n = dims.get(axis).map_or(1, |n| *n as i64);
        put(24 + 8 * axis, &n.to_le_bytes());
    }
    let f64s =
        |values: &[f64]| -> Vec<u8> { values.iter().flat_map(|v| v.to_le_bytes()).collect() };
    put(104, &f64s(&forms.pixdim));
    put(168, &(voxels_at as i64).to_le_bytes());
    put(176, &f64s(&[1.0, 0.0]));
    put(344, &i32::from(XFORM_SCANNER).to_le_bytes());
    put(348, &i32::from(XFORM_SCANNER).to_le_bytes());
    put(352, &f64s(&forms.quaternion));
    put(376, &f64s(&forms.offset));
    put(400, &f64s(forms.sform.as_flattened()));
    put(500, &i32::from(UNITS_MM).to_le_bytes());
    bytes
}
