//! NRRD: `.nrrd`, or `.nhdr` with its voxels in a second file; raw or packed by gzip.
//!
//! # Source
//! The format's description (teem.sourceforge.net/nrrd/format.html), and `itkNrrdImageIO.cxx` of ITK 5
//! for what it means: directions and origin in `space`, RAS and LAS turned to ITK's LPS.
//!
//! # Deviations
//! Axes that are no axes of space (lists, vectors, colours), text and bzip2, voxels in several files,
//! and positions that are said without a space (`axis mins`) are refused.

use crate::error::{DataError, Result};
use crate::files;
use crate::geometry::{Axes, Geometry};
use crate::gzip::ParallelGzip;
use crate::voxels::{LabelBytes, Layout, Packing, Source, Values, Volume, check_finite};
use flate2::Compression;
use nifti::NiftiType;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// Longest header that is read.
const MAX_HEADER: u64 = 1 << 16;
/// Key of the note that an output carries.
const NOTE: &str = "stunet_record";

struct Header {
    fields: BTreeMap<String, String>,
    /// Pairs of keys and values of whoever wrote the file.
    pairs: BTreeMap<String, String>,
    /// Bytes up to the voxels.
    length: u64,
}

fn bad(key: &str, expected: &str, found: &str) -> DataError {
    DataError::BadHeader {
        format: "NRRD",
        key: key.to_owned(),
        expected: expected.to_owned(),
        found: found.chars().map(|c| if c.is_control() { ' ' } else { c }).take(60).collect(),
    }
}

/// A field's name as it is looked up: old names and capitals are not told apart.
fn canonical(name: &str) -> String {
    let name = name.trim().to_lowercase();
    match name.as_str() {
        "centerings" => "centers".to_owned(),
        "datafile" => "data file".to_owned(),
        "lineskip" => "line skip".to_owned(),
        "byteskip" => "byte skip".to_owned(),
        "axismins" => "axis mins".to_owned(),
        _ => name,
    }
}

impl Header {
    fn read(mut source: impl Read) -> Result<Self> {
        let mut bytes = Vec::new();
        let read = |e| DataError::io("read", e);
        source.by_ref().take(MAX_HEADER).read_to_end(&mut bytes).map_err(read)?;
        if !bytes.starts_with(b"NRRD000") {
            let start = bytes.iter().take(8).map(|b| *b as char).collect::<String>();
            return Err(bad("the first line", "NRRD0001 to NRRD0005", &start));
        }
        let (mut fields, mut pairs, mut at) = (BTreeMap::new(), BTreeMap::new(), 0);
        while let Some(end) = bytes[at..].iter().position(|byte| *byte == b'\n') {
            let line = String::from_utf8_lossy(&bytes[at..at + end]).into_owned();
            let line = line.trim_end_matches('\r');
            at += end + 1;
            match (line.split_once(":="), line.split_once(": ")) {
                _ if line.is_empty() => return Ok(Self { fields, pairs, length: at as u64 }),
                _ if line.starts_with('#') || line.starts_with("NRRD000") => {}
                (Some((key, value)), _) => {
                    pairs.insert(key.to_owned(), value.to_owned());
                }
                (_, Some((name, value))) => {
                    fields.insert(canonical(name), value.trim().to_owned());
                }
                _ => return Err(bad("a line", "FIELD: VALUE or KEY:=VALUE", line)),
            }
        }
        // A header in a file of its own may end with the file.
        match fields.contains_key("data file") {
            true => Ok(Self { fields, pairs, length: bytes.len() as u64 }),
            false => Err(bad("the header", "an empty line at its end", "none")),
        }
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(String::as_str)
    }

    fn needed(&self, name: &str) -> Result<&str> {
        self.field(name).ok_or_else(|| bad(name, "a value", "nothing"))
    }

    fn geometry(&self, sheared: bool) -> Result<Geometry> {
        let dimension = self.needed("dimension")?;
        if dimension != "3" {
            return Err(bad("dimension", "3, one file per channel", dimension));
        }
        let kinds = self.field("kinds").unwrap_or_default();
        let spatial = |kind: &str| matches!(kind, "domain" | "space" | "???" | "none");
        if !kinds.split_whitespace().all(spatial) {
            return Err(bad("kinds", "three axes of space", kinds));
        }
        let sizes = self.needed("sizes")?;
        let lengths: Vec<usize> =
            sizes.split_whitespace().map(|n| n.parse().unwrap_or(0)).collect();
        let &[x, y, z] = &lengths[..] else { return Err(bad("sizes", "3 numbers", sizes)) };
        let Some(space) = self.field("space") else { return self.without_space([z, y, x]) };
        let signs = match space.to_lowercase().as_str() {
            "left-posterior-superior" | "lps" => [1.0, 1.0, 1.0],
            "right-anterior-superior" | "ras" => [-1.0, -1.0, 1.0],
            "left-anterior-superior" | "las" => [1.0, -1.0, 1.0],
            _ => {
                let expected = "left-posterior-superior, right-anterior-superior or \
                                left-anterior-superior";
                return Err(bad("space", expected, space));
            }
        };
        let directions = self.needed("space directions")?;
        let columns = vectors(directions).and_then(|v| <[[f64; 3]; 3]>::try_from(v).ok());
        let columns =
            columns.ok_or_else(|| bad("space directions", "3 vectors of 3 numbers", directions))?;
        let origin = match self.field("space origin") {
            None => [0.0; 3],
            Some(text) => match vectors(text).as_deref() {
                Some(&[origin]) => origin,
                _ => return Err(bad("space origin", "a vector of 3 numbers", text)),
            },
        };
        let axes = std::array::from_fn(|r| std::array::from_fn(|c| signs[r] * columns[c][r]));
        let origin = std::array::from_fn(|r| signs[r] * origin[r]);
        Geometry::from_axes([z, y, x], Axes { axes, origin, what: "space directions" }, sheared)
    }

    /// Axes of ITK's own, with the distances that are said.
    fn without_space(&self, shape: [usize; 3]) -> Result<Geometry> {
        for field in ["space dimension", "axis mins", "space directions"] {
            if let Some(found) = self.field(field) {
                return Err(bad(
                    field,
                    "a space by its name, such as left-posterior-superior",
                    found,
                ));
            }
        }
        let spacing = match self.field("spacings") {
            None => [1.0; 3],
            Some(text) => {
                let numbers: Option<Vec<f64>> =
                    text.split_whitespace().map(|word| word.parse().ok()).collect();
                let numbers = numbers.and_then(|numbers| <[f64; 3]>::try_from(numbers).ok());
                let [dx, dy, dz] = numbers.ok_or_else(|| bad("spacings", "3 numbers", text))?;
                [dz, dy, dx]
            }
        };
        Geometry::axis_aligned(shape, spacing)
    }

    fn layout(&self) -> Result<(NiftiType, bool, Packing)> {
        let found = self.needed("type")?;
        let of = type_of(found).ok_or_else(|| {
            bad("type", "an integer or a float of 8 to 64 bits, such as short", found)
        })?;
        let little = match (self.field("endian"), of.size_of()) {
            (_, 1) | (Some("little"), _) => true,
            (Some("big"), _) => false,
            (found, _) => return Err(bad("endian", "little or big", found.unwrap_or("nothing"))),
        };
        let packing = match self.needed("encoding")? {
            "raw" => Packing::None,
            "gzip" | "gz" => Packing::Gzip,
            other => return Err(bad("encoding", "raw or gzip", other)),
        };
        for field in ["line skip", "byte skip"] {
            if let Some(found) = self.field(field).filter(|found| *found != "0") {
                return Err(bad(field, "0", found));
            }
        }
        Ok((of, little, packing))
    }

    fn voxels(&self, path: &Path) -> Result<PathBuf> {
        match self.field("data file") {
            None => Ok(path.to_owned()),
            // A header is no way to any file of the machine.
            Some(name) if files::is_plain_name(name) && !name.contains(['%', ' ']) => {
                Ok(path.with_file_name(name))
            }
            Some(name) if files::is_plain_name(name) && path.with_file_name(name).exists() => {
                Ok(path.with_file_name(name))
            }
            Some(other) => Err(bad("data file", "one file beside the header", other)),
        }
    }
}

/// Vectors such as `(1,0,0) (0,1,0)`.
fn vectors(text: &str) -> Option<Vec<[f64; 3]>> {
    let parts = text.split(')').map(str::trim).filter(|part| !part.is_empty());
    let vector = |part: &str| {
        let numbers = part.strip_prefix('(')?.split(',').map(|n| n.trim().parse().ok());
        <[f64; 3]>::try_from(numbers.collect::<Option<Vec<f64>>>()?).ok()
    };
    parts.map(vector).collect()
}

fn type_of(name: &str) -> Option<NiftiType> {
    Some(match name {
        "signed char" | "int8" | "int8_t" => NiftiType::Int8,
        "uchar" | "unsigned char" | "uint8" | "uint8_t" => NiftiType::Uint8,
        "short" | "short int" | "signed short" | "signed short int" | "int16" | "int16_t" => {
            NiftiType::Int16
        }
        "ushort" | "unsigned short" | "unsigned short int" | "uint16" | "uint16_t" => {
            NiftiType::Uint16
        }
        "int" | "signed int" | "int32" | "int32_t" => NiftiType::Int32,
        "uint" | "unsigned int" | "uint32" | "uint32_t" => NiftiType::Uint32,
        "longlong"
        | "long long"
        | "long long int"
        | "signed long long"
        | "signed long long int"
        | "int64"
        | "int64_t" => NiftiType::Int64,
        "ulonglong" | "unsigned long long" | "unsigned long long int" | "uint64" | "uint64_t" => {
            NiftiType::Uint64
        }
        "float" => NiftiType::Float32,
        "double" => NiftiType::Float64,
        _ => return None,
    })
}

/// The grid of a file.
pub(crate) fn geometry(path: &Path, sheared: bool) -> Result<Geometry> {
    Header::read(files::open(path)?)?.geometry(sheared)
}

/// The note of a file, if it carries one.
pub(crate) fn note(path: &Path) -> Result<Option<String>> {
    Ok(Header::read(files::open(path)?)?.pairs.remove(NOTE))
}

/// The file with the voxels: the header itself, or the one that it names.
pub(crate) fn voxels_of(path: &Path) -> Result<PathBuf> {
    Header::read(files::open(path)?)?.voxels(path)
}

/// Reads and checks everything.
pub(crate) fn read(path: &Path, sheared: bool) -> Result<Volume> {
    let header = Header::read(files::open(path)?)?;
    let at = header.voxels(path)?;
    if !at.exists() {
        return Err(DataError::MissingFile { what: "the file of voxels of this header" }.at(path));
    }
    let skip = if at == path { header.length } else { 0 };
    volume(&header, sheared, |packing| Source::behind(&at, skip, packing)).map_err(|e| e.at(&at))
}

/// As [`read`], of a file in memory that holds its voxels.
pub(crate) fn read_bytes(bytes: &[u8]) -> Result<Volume> {
    let header = Header::read(bytes)?;
    if header.field("data file").is_some() {
        return Err(DataError::MissingFile { what: "the file of voxels of this header" });
    }
    volume(&header, false, |packing| Source::behind_in(bytes, header.length, packing))
}

fn volume<'a>(
    header: &Header,
    sheared: bool,
    source: impl FnOnce(Packing) -> Result<Source<'a>>,
) -> Result<Volume> {
    let geometry = header.geometry(sheared)?;
    let (of, little, packing) = header.layout()?;
    let shape = geometry.shape();
    let dims = shape.map(|n| n as i64);
    let count = shape.iter().try_fold(1usize, |n, length| n.checked_mul(*length));
    let count =
        count.filter(|count| count.checked_mul(8).is_some()).ok_or(DataError::BadDimensions {
            expected: "a volume that fits into memory",
            found: dims.to_vec(),
        })?;
    let mut source = source(packing)?;
    let voxels = source.voxels(&Layout { of, little, scaling: None, count, dims: &dims })?;
    source.finish()?;
    if let Values::Single(values) = &voxels {
        check_finite(values, shape)?;
    }
    Ok(Volume { voxels, num_channels: 1, geometry })
}

/// Writes a volume of labels or bytes, packed by gzip; of a `.nhdr` the voxels first, beside it.
pub(crate) fn write(
    path: &Path,
    volume: &LabelBytes<'_>,
    geometry: &Geometry,
    note: Option<&str>,
) -> Result<()> {
    let io = |e| DataError::io("write", e);
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let data = name.strip_suffix(".nhdr").map(|stem| format!("{stem}.raw.gz"));
    let head = head(volume, geometry, (data.as_deref(), note));
    let voxels = |file: &mut dyn Write| {
        let mut packed = ParallelGzip::new(file, Compression::new(3)).map_err(io)?;
        volume.write_to(&mut packed).map_err(io)?;
        packed.finish().map_err(io)
    };
    if let Some(data) = &data {
        files::write(&path.with_file_name(data), |file| voxels(file))?;
        return files::write(path, |file| file.write_all(head.as_bytes()).map_err(io));
    }
    files::write(path, |file| {
        file.write_all(head.as_bytes()).map_err(io)?;
        voxels(file)
    })
}

fn head(
    volume: &LabelBytes<'_>,
    geometry: &Geometry,
    (data, note): (Option<&str>, Option<&str>),
) -> String {
    let [dz, dy, dx] = geometry.voxel_size_mm();
    let [z, y, x] = geometry.shape();
    let direction = geometry.direction();
    let vector = |v: [f64; 3]| format!("({})", v.map(|v| v.to_string()).join(","));
    let axis = |c: usize, step: f64| vector([0, 1, 2].map(|r| direction[r][c] * step));
    let of = if volume.bytes_each() == 1 { "unsigned char" } else { "unsigned short" };
    let data = data.map_or(String::new(), |name| format!("data file: {name}\n"));
    let note = note.map_or(String::new(), |note| {
        let line: String = note.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        format!("{NOTE}:={line}\n")
    });
    format!(
        "NRRD0004\n# Complete NRRD file format specification at:\n\
         # http://teem.sourceforge.net/nrrd/format.html\ntype: {of}\ndimension: 3\n\
         space: left-posterior-superior\nsizes: {x} {y} {z}\n\
         space directions: {} {} {}\nkinds: domain domain domain\nendian: little\n\
         encoding: gzip\nspace origin: {}\n{data}{note}\n",
        axis(0, dx),
        axis(1, dy),
        axis(2, dz),
        vector(geometry.origin_mm()),
    )
}
