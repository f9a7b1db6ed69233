//! MetaImage: `.mha`, or `.mhd` with its voxels in a second file.
//!
//! # Source
//! MetaIO as ITK 5 has it (`metaImage.cxx`, `itkMetaImageIO.cxx`): keys and their older names, axes as
//! the rows of `TransformMatrix`, millimetres in ITK's own frame (LPS). `AnatomicalOrientation`,
//! `CenterOfRotation` and the mapping of elements to intensities change nothing, there and here.
//!
//! # Deviations
//! Voxels in pieces (`LIST`, patterns of names), colours, vectors and images of two dimensions are
//! refused.

use crate::error::{DataError, Result};
use crate::files;
use crate::geometry::{Axes, Geometry};
use crate::voxels::{LabelBytes, Layout, Packing, Source, Volume, check_finite};
use flate2::{Compression, write::ZlibEncoder};
use nifti::NiftiType;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// Longest header that is read.
const MAX_HEADER: u64 = 1 << 16;
/// Key of the note that an output carries.
const NOTE: &str = "StunetRecord";

/// A header, and where its voxels are.
struct Header {
    keys: BTreeMap<String, String>,
    /// Bytes up to the line's end of `ElementDataFile`.
    length: u64,
}

fn bad(key: &str, expected: &str, found: &str) -> DataError {
    DataError::BadHeader {
        format: "MetaImage",
        key: key.to_owned(),
        expected: expected.to_owned(),
        found: found.chars().map(|c| if c.is_control() { ' ' } else { c }).take(60).collect(),
    }
}

impl Header {
    fn read(mut source: impl Read) -> Result<Self> {
        let mut bytes = Vec::new();
        let read = |e| DataError::io("read", e);
        source.by_ref().take(MAX_HEADER).read_to_end(&mut bytes).map_err(read)?;
        let (mut keys, mut at) = (BTreeMap::new(), 0);
        while let Some(end) = bytes[at..].iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(&bytes[at..at + end]).into_owned();
            at += end + 1;
            let Some((key, value)) = line.split_once('=') else {
                if line.trim().is_empty() {
                    continue;
                }
                return Err(bad("a line", "KEY = VALUE", &line));
            };
            let (key, value) = (key.trim().to_owned(), value.trim().to_owned());
            let last = key == "ElementDataFile";
            keys.insert(key, value);
            if last {
                return Ok(Self { keys, length: at as u64 });
            }
        }
        Err(bad("ElementDataFile", "the last line of the header", "nothing"))
    }

    fn text(&self, names: &[&str]) -> Option<&str> {
        names.iter().find_map(|name| self.keys.get(*name)).map(String::as_str)
    }

    fn flag(&self, names: &[&str]) -> bool {
        let text = self.text(names).unwrap_or_default();
        text.starts_with(['T', 't', '1'])
    }

    fn numbers<const N: usize>(&self, names: &[&str]) -> Result<Option<[f64; N]>> {
        let Some(text) = self.text(names) else { return Ok(None) };
        let numbers: Option<Vec<f64>> =
            text.split_whitespace().map(|word| word.parse().ok()).collect();
        let numbers = numbers.and_then(|numbers| numbers.try_into().ok());
        numbers.map(Some).ok_or_else(|| bad(names[0], &format!("{N} number(s)"), text))
    }

    fn geometry(&self, sheared: bool) -> Result<Geometry> {
        let dims = self.text(&["NDims"]).unwrap_or_default();
        if dims != "3" {
            return Err(bad("NDims", "3", dims));
        }
        let sizes = self.numbers::<3>(&["DimSize"])?;
        let sizes = sizes.ok_or_else(|| bad("DimSize", "3 numbers", "nothing"))?;
        let whole = |v: f64| (v >= 1.0 && v.fract() == 0.0 && v < 1e9).then_some(v as usize);
        let [x, y, z] = sizes.map(whole);
        let shape = [z, y, x].map(|n| n.unwrap_or(0));
        let matrix = self.numbers::<9>(&["TransformMatrix", "Rotation", "Orientation"])?;
        let m = matrix.unwrap_or([1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]);
        let spacing = self.numbers::<3>(&["ElementSpacing", "ElementSize"])?;
        let spacing = spacing.unwrap_or([1.0; 3]);
        if spacing.iter().any(|s| !(s.is_finite() && *s > 0.0)) {
            let [dx, dy, dz] = spacing;
            return Err(DataError::BadSpacing { found: [dz, dy, dx] });
        }
        let origin = self.numbers::<3>(&["Offset", "Position", "Origin"])?.unwrap_or([0.0; 3]);
        // A row of the matrix is an axis of the voxels.
        let axes = std::array::from_fn(|r| std::array::from_fn(|c| m[3 * c + r] * spacing[c]));
        Geometry::from_axes(shape, Axes { axes, origin, what: "TransformMatrix" }, sheared)
    }

    fn layout(&self) -> Result<(NiftiType, bool)> {
        let channels = self.text(&["ElementNumberOfChannels"]).unwrap_or("1");
        if channels != "1" {
            let expected = "1, one file per channel";
            return Err(bad("ElementNumberOfChannels", expected, channels));
        }
        if self.text(&["BinaryData"]).is_some() && !self.flag(&["BinaryData"]) {
            return Err(bad("BinaryData", "True", "text"));
        }
        let found = self.text(&["ElementType"]).unwrap_or_default();
        let of = TYPES.iter().find(|(name, _)| *name == found).map(|(_, of)| *of);
        let of = of.ok_or_else(|| {
            bad("ElementType", "an integer or a float of 8 to 64 bits, such as MET_SHORT", found)
        })?;
        Ok((of, !self.flag(&["BinaryDataByteOrderMSB", "ElementByteOrderMSB"])))
    }
}

const TYPES: [(&str, NiftiType); 12] = [
    ("MET_UCHAR", NiftiType::Uint8),
    ("MET_CHAR", NiftiType::Int8),
    ("MET_SHORT", NiftiType::Int16),
    ("MET_USHORT", NiftiType::Uint16),
    ("MET_INT", NiftiType::Int32),
    ("MET_UINT", NiftiType::Uint32),
    // Four bytes wherever it was written.
    ("MET_LONG", NiftiType::Int32),
    ("MET_ULONG", NiftiType::Uint32),
    ("MET_LONG_LONG", NiftiType::Int64),
    ("MET_ULONG_LONG", NiftiType::Uint64),
    ("MET_FLOAT", NiftiType::Float32),
    ("MET_DOUBLE", NiftiType::Float64),
];

/// The grid of a file.
pub(crate) fn geometry(path: &Path, sheared: bool) -> Result<Geometry> {
    Header::read(files::open(path)?)?.geometry(sheared)
}

/// The note of a file, if it carries one.
pub(crate) fn note(path: &Path) -> Result<Option<String>> {
    let header = Header::read(files::open(path)?)?;
    Ok(header.text(&[NOTE]).map(str::to_owned))
}

/// The file with the voxels: the header itself, or the one that it names.
pub(crate) fn voxels_of(path: &Path) -> Result<PathBuf> {
    let header = Header::read(files::open(path)?)?;
    beside(path, header.text(&["ElementDataFile"]).unwrap_or_default())
}

fn beside(path: &Path, name: &str) -> Result<PathBuf> {
    if matches!(name, "LOCAL" | "Local" | "local") {
        return Ok(path.to_owned());
    }
    // A header is no way to any file of the machine.
    if !files::is_plain_name(name) || name.starts_with("LIST") || name.contains('%') {
        return Err(bad("ElementDataFile", "LOCAL or one file beside the header", name));
    }
    Ok(path.with_file_name(name))
}

/// Reads and checks everything.
pub(crate) fn read(path: &Path, sheared: bool) -> Result<Volume> {
    let header = Header::read(files::open(path)?)?;
    let at = beside(path, header.text(&["ElementDataFile"]).unwrap_or_default())?;
    let inside = at == path;
    if !inside && !at.exists() {
        return Err(DataError::MissingFile { what: "the file of voxels of this header" }.at(path));
    }
    volume(&header, sheared, |skip, packing| {
        Source::behind(&at, if inside { header.length } else { skip }, packing)
    })
    .map_err(|e| e.at(&at))
}

/// As [`read`], of a file in memory that holds its voxels.
pub(crate) fn read_bytes(bytes: &[u8]) -> Result<Volume> {
    let header = Header::read(bytes)?;
    if beside(Path::new("-"), header.text(&["ElementDataFile"]).unwrap_or_default())?
        != Path::new("-")
    {
        return Err(DataError::MissingFile { what: "the file of voxels of this header" });
    }
    volume(&header, false, |_, packing| Source::behind_in(bytes, header.length, packing))
}

fn volume<'a>(
    header: &Header,
    sheared: bool,
    source: impl FnOnce(u64, Packing) -> Result<Source<'a>>,
) -> Result<Volume> {
    let geometry = header.geometry(sheared)?;
    let (of, little) = header.layout()?;
    let shape = geometry.shape();
    let dims = shape.map(|n| n as i64);
    let skip = header.text(&["HeaderSize"]).unwrap_or("0");
    let skip = skip.parse::<u64>().map_err(|_| bad("HeaderSize", "0 or more bytes", skip))?;
    let packing = if header.flag(&["CompressedData"]) { Packing::Zlib } else { Packing::None };
    let mut source = source(skip, packing)?;
    let count = shape.iter().try_fold(1usize, |n, length| n.checked_mul(*length));
    let count =
        count.filter(|count| count.checked_mul(8).is_some()).ok_or(DataError::BadDimensions {
            expected: "a volume that fits into memory",
            found: dims.to_vec(),
        })?;
    let layout = Layout { of, little, scaling: None, count, dims: &dims };
    let voxels = source.voxels(&layout)?;
    source.finish()?;
    if let crate::voxels::Values::Single(values) = &voxels {
        check_finite(values, shape)?;
    }
    Ok(Volume { voxels, num_channels: 1, geometry })
}

/// Writes a volume of labels or bytes, packed by zlib; of a `.mhd` the voxels first, beside it.
pub(crate) fn write(
    path: &Path,
    volume: &LabelBytes<'_>,
    geometry: &Geometry,
    note: Option<&str>,
) -> Result<()> {
    let io = |e| DataError::io("write", e);
    let mut packed = ZlibEncoder::new(Vec::new(), Compression::new(3));
    volume.write_to(&mut packed).map_err(io)?;
    let packed = packed.finish().map_err(io)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let stem = name.strip_suffix(".mhd");
    let data = stem.map_or("LOCAL".to_owned(), |stem| format!("{stem}.zraw"));
    let head = head(volume, geometry, (packed.len(), note, &data));
    if stem.is_some() {
        files::write(&path.with_file_name(&data), |file| file.write_all(&packed).map_err(io))?;
        return files::write(path, |file| file.write_all(head.as_bytes()).map_err(io));
    }
    files::write(path, |file| {
        file.write_all(head.as_bytes()).map_err(io)?;
        file.write_all(&packed).map_err(io)
    })
}

fn head(
    volume: &LabelBytes<'_>,
    geometry: &Geometry,
    (packed, note, data): (usize, Option<&str>, &str),
) -> String {
    let [dz, dy, dx] = geometry.voxel_size_mm();
    let [z, y, x] = geometry.shape();
    let direction = geometry.direction();
    let axis = |c: usize| [0, 1, 2].map(|r| direction[r][c].to_string()).join(" ");
    let of = if volume.bytes_each() == 1 { "MET_UCHAR" } else { "MET_USHORT" };
    let note = note.map_or(String::new(), |note| {
        let line: String = note.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        format!("{NOTE} = {line}\n")
    });
    format!(
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n\
         CompressedData = True\nCompressedDataSize = {packed}\n\
         TransformMatrix = {} {} {}\nOffset = {}\nCenterOfRotation = 0 0 0\n\
         AnatomicalOrientation = RAI\nElementSpacing = {dx} {dy} {dz}\nDimSize = {x} {y} {z}\n\
         {note}ElementType = {of}\nElementDataFile = {data}\n",
        axis(0),
        axis(1),
        axis(2),
        geometry.origin_mm().map(|v| v.to_string()).join(" "),
    )
}
