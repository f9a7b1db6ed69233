//! The bytes of one case: a safetensors file with checksums.
//!
//! Values follow the header at a multiple of 64 bytes, four-byte types first, so that every array
//! can be used where it lies in the map. The header holds two CRC-32: one of the values, and one of
//! itself, taken with zeros in its place.

use super::NewCase;
use super::recipe::{CASE_FORMAT, fnv};
use crate::error::{DataError, Result};
use crate::files;
use crate::plans::Plans;
use crate::preprocess::Trace;
use crate::sample::ClassLocations;
use ndarray::{ArrayView3, ArrayView4};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorInfo};
use serde_json::{Map, Value, json};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};

const FORMAT: &str = "stunet-case";
/// The values begin at a multiple of this: whole cache lines, and more than any element needs.
const ALIGNMENT: usize = 64;

const IMAGE: &str = "image";
const LABELS: &str = "labels";
const LOCATIONS: &str = "locations.";
/// What the header's own checksum is summed with.
const NO_CRC: &str = "00000000";
/// Where it stands: quotes within strings are escaped, so this occurs nowhere else.
const CRC_KEY: &str = "\"header_crc32\":\"";

/// Ending of a case's file.
pub fn suffix() -> &'static str {
    ".safetensors"
}

/// Tells apart the states of a case's source files, by their names, sizes and times.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stamp(String);

impl Stamp {
    /// The present state of these files.
    ///
    /// # Errors
    /// When one is missing or cannot be asked.
    pub fn of<'a>(files: impl IntoIterator<Item = &'a PathBuf>) -> Result<Self> {
        let mut text = String::new();
        for file in files {
            let of = std::fs::metadata(file).map_err(|e| DataError::io_at("read", e, file))?;
            let modified = of.modified().ok();
            let since = modified.and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
            let nanoseconds = since.map_or(0, |t| t.as_nanos());
            let name = file.file_name().unwrap_or_default().display();
            text += &format!("{name}\n{}\n{nanoseconds}\n", of.len());
        }
        Ok(Self(fnv(text.as_bytes())))
    }
}

/// An error about a case's file: expected, found.
pub(super) fn wrong(expected: impl Into<String>, found: impl Into<String>) -> DataError {
    DataError::StoredCase { expected: expected.into(), found: found.into() }
}

/// An array on its way into a file.
struct Part<'a> {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Cow<'a, [u8]>,
}

/// Writes a case; returns the size of the file.
///
/// # Panics
/// When image and labels have different shapes.
pub(super) fn write(path: &Path, case: &NewCase<'_>, digest: &str) -> Result<u64> {
    assert_eq!(&case.image.shape()[1..], case.labels.shape(), "labels lie on the image's grid");
    little_endian()?;
    let image = case.image.as_standard_layout();
    let labels = case.labels.as_standard_layout();
    let contiguous = "standard layout is contiguous";
    let mut parts = vec![Part {
        name: IMAGE.to_owned(),
        dtype: Dtype::F32,
        shape: case.image.shape().to_vec(),
        bytes: bytemuck::cast_slice(image.as_slice().expect(contiguous)).into(),
    }];
    for label in case.locations.present() {
        let voxels = case.locations.get(label);
        parts.push(Part {
            name: format!("{LOCATIONS}{label}"),
            dtype: Dtype::U32,
            shape: vec![voxels.len(), 3],
            bytes: bytemuck::cast_slice(voxels.as_flattened()).into(),
        });
    }
    parts.push(Part {
        name: LABELS.to_owned(),
        dtype: Dtype::I16,
        shape: case.labels.shape().to_vec(),
        bytes: bytemuck::cast_slice(labels.as_slice().expect(contiguous)).into(),
    });
    let header = header(case, digest, &parts)?;
    files::write(path, |file| {
        let mut body = || -> std::io::Result<()> {
            file.write_all(&(header.len() as u64).to_le_bytes())?;
            file.write_all(&header)?;
            parts.iter().try_for_each(|part| file.write_all(&part.bytes))
        };
        body().map_err(|e| DataError::io("write", e))
    })?;
    let values: usize = parts.iter().map(|part| part.bytes.len()).sum();
    Ok((8 + header.len() + values) as u64)
}

fn header(case: &NewCase<'_>, digest: &str, parts: &[Part<'_>]) -> Result<Vec<u8>> {
    let mut values = crc32fast::Hasher::new();
    parts.iter().for_each(|part| values.update(&part.bytes));
    let mut entries = Map::new();
    let about = json!({
        "format": FORMAT,
        "version": CASE_FORMAT.to_string(),
        "name": case.name,
        "digest": digest,
        "stamp": case.stamp.0,
        "trace": serde_json::to_string(case.trace)?,
        "values_crc32": format!("{:08x}", values.finalize()),
        "header_crc32": NO_CRC,
    });
    entries.insert("__metadata__".to_owned(), about);
    let mut at = 0;
    for part in parts {
        let end = at + part.bytes.len();
        let entry = json!({ "dtype": part.dtype, "shape": part.shape, "data_offsets": [at, end] });
        entries.insert(part.name.clone(), entry);
        at = end;
    }
    let mut header = Value::Object(entries).to_string().into_bytes();
    // The length of the header itself takes eight bytes; the format pads with spaces.
    header.resize((header.len() + 8).next_multiple_of(ALIGNMENT) - 8, b' ');
    let crc32 = format!("{:08x}", crc32fast::hash(&header));
    let place = crc_place(&header).expect("the entry was just written");
    header[place].copy_from_slice(crc32.as_bytes());
    Ok(header)
}

/// Where the header's own checksum stands.
fn crc_place(header: &[u8]) -> Option<Range<usize>> {
    let key = CRC_KEY.as_bytes();
    let start = header.windows(key.len()).position(|window| window == key)? + key.len();
    (start + NO_CRC.len() <= header.len()).then_some(start..start + NO_CRC.len())
}

/// What a file's header says, checked against the file's length.
#[derive(Debug)]
pub(super) struct Layout {
    pub name: String,
    pub digest: String,
    pub stamp: Stamp,
    pub trace: Trace,
    shape: [usize; 4],
    image: Range<usize>,
    labels: Range<usize>,
    locations: Vec<(u16, Range<usize>)>,
    /// Where the values begin.
    values: usize,
    values_crc32: String,
}

impl Layout {
    /// Reads the header of a whole file; everything is checked but the values themselves.
    pub fn read(file: &[u8]) -> Result<Self> {
        little_endian()?;
        let (length, metadata) = SafeTensors::read_metadata(file).map_err(|e| {
            wrong("a complete safetensors file", format!("{} bytes ({e})", file.len()))
        })?;
        let about = metadata.metadata().clone().unwrap_or_default();
        check_kind(&about)?;
        check_header(&file[8..8 + length], &about)?;
        let values = 8 + length;
        if !values.is_multiple_of(ALIGNMENT) {
            return Err(wrong("values at a multiple of 64 bytes", values.to_string()));
        }
        let text = |key: &str| {
            let value = about.get(key).cloned();
            value.ok_or_else(|| wrong(format!("an entry {key}"), "none"))
        };
        let mut arrays = Arrays { found: metadata.tensors(), values };
        let (image_shape, image) = arrays.take(IMAGE, Dtype::F32)?;
        let (labels_shape, labels) = arrays.take(LABELS, Dtype::I16)?;
        let shape: [usize; 4] = image_shape
            .as_slice()
            .try_into()
            .map_err(|_| wrong("an image of four axes", format!("{image_shape:?}")))?;
        if labels_shape != shape[1..] {
            return Err(wrong(format!("labels {:?}", &shape[1..]), format!("{labels_shape:?}")));
        }
        let trace: Trace = serde_json::from_str(&text("trace")?)?;
        if trace.network_shape() != shape[1..] {
            let expected = format!("an image {:?}, as its trace", trace.network_shape());
            return Err(wrong(expected, format!("{:?}", &shape[1..])));
        }
        Ok(Self {
            name: text("name")?,
            digest: text("digest")?,
            stamp: Stamp(text("stamp")?),
            trace,
            shape,
            image,
            labels,
            locations: arrays.locations()?,
            values,
            values_crc32: text("values_crc32")?,
        })
    }

    /// Compares what a case shares with its recipe: the digest is only text.
    pub fn check_plans(&self, plans: &Plans) -> Result<()> {
        if self.shape[0] != plans.num_channels() {
            let expected = format!("an image of {} channels, as the plans", plans.num_channels());
            return Err(wrong(expected, self.shape[0].to_string()));
        }
        if !self.trace.follows(plans) {
            let expected = "a trace with the axes, spacing and version of the plans";
            return Err(wrong(expected, format!("{:?}", self.trace)));
        }
        Ok(())
    }

    /// Holds the values against their checksum, and the locations against the shape.
    pub fn verify(&self, file: &[u8]) -> Result<()> {
        let found = format!("{:08x}", crc32fast::hash(&file[self.values..]));
        if found != self.values_crc32 {
            let expected = format!("values with checksum {}", self.values_crc32);
            return Err(wrong(expected, format!("{found}: corrupt")));
        }
        let inside = |v: &[u32; 3]| (0..3).all(|axis| (v[axis] as usize) < self.shape[axis + 1]);
        for (label, range) in &self.locations {
            if let Some(voxel) = triples(&file[range.clone()]).iter().find(|v| !inside(v)) {
                let expected = format!("voxels of label {label} within {:?}", &self.shape[1..]);
                return Err(wrong(expected, format!("{voxel:?}")));
            }
        }
        Ok(())
    }

    pub fn image<'a>(&self, file: &'a [u8]) -> ArrayView4<'a, f32> {
        let values = bytemuck::cast_slice(&file[self.image.clone()]);
        ArrayView4::from_shape(self.shape, values).expect("reading checked the length")
    }

    pub fn labels<'a>(&self, file: &'a [u8]) -> ArrayView3<'a, i16> {
        let [_, z, y, x] = self.shape;
        let values = bytemuck::cast_slice(&file[self.labels.clone()]);
        ArrayView3::from_shape([z, y, x], values).expect("reading checked the length")
    }

    pub fn locations(&self, file: &[u8]) -> ClassLocations {
        let of =
            |(label, range): &(u16, Range<usize>)| (*label, triples(&file[range.clone()]).to_vec());
        ClassLocations::new(self.locations.iter().map(of).collect::<BTreeMap<_, _>>())
    }
}

fn triples(bytes: &[u8]) -> &[[u32; 3]] {
    bytemuck::cast_slice::<u8, u32>(bytes).as_chunks().0
}

fn check_kind(about: &HashMap<String, String>) -> Result<()> {
    let found = |key| about.get(key).map_or("none", String::as_str).to_owned();
    if found("format") != FORMAT {
        return Err(wrong(format!("format {FORMAT}"), format!("{:.60}", found("format"))));
    }
    if found("version") != CASE_FORMAT.to_string() {
        return Err(wrong(format!("version {CASE_FORMAT}"), format!("{:.60}", found("version"))));
    }
    Ok(())
}

fn check_header(header: &[u8], about: &HashMap<String, String>) -> Result<()> {
    let expected = about.get("header_crc32").map_or("none", String::as_str);
    let mut bare = header.to_vec();
    let found = crc_place(header).map(|place| {
        bare[place].copy_from_slice(NO_CRC.as_bytes());
        format!("{:08x}", crc32fast::hash(&bare))
    });
    if found.as_deref() != Some(expected) {
        let found = found.unwrap_or_else(|| "none".to_owned());
        return Err(wrong(format!("a header with checksum {expected:.60}"), found + ": corrupt"));
    }
    Ok(())
}

/// The arrays of a file, taken out one by one.
struct Arrays<'a> {
    found: HashMap<String, &'a TensorInfo>,
    values: usize,
}

impl Arrays<'_> {
    fn take(&mut self, name: &str, dtype: Dtype) -> Result<(Vec<usize>, Range<usize>)> {
        let info =
            self.found.remove(name).ok_or_else(|| wrong(format!("an array {name}"), "none"))?;
        if info.dtype != dtype {
            return Err(wrong(format!("{name} as {dtype:?}"), format!("{:?}", info.dtype)));
        }
        let (start, end) = info.data_offsets;
        let range = self.values + start..self.values + end;
        if range.is_empty() || !range.start.is_multiple_of(dtype.bitsize() / 8) {
            let expected = format!("{name} with aligned values");
            return Err(wrong(expected, format!("bytes {start} to {end}")));
        }
        Ok((info.shape.clone(), range))
    }

    /// Everything that is left has to be locations.
    fn locations(mut self) -> Result<Vec<(u16, Range<usize>)>> {
        let mut found = Vec::new();
        let names: Vec<String> = self.found.keys().cloned().collect();
        for name in names {
            // One spelling only: `locations.1` and `locations.01` would be one label's.
            let number = |text: &str| text.parse().ok().filter(|l: &u16| l.to_string() == text);
            let label = name.strip_prefix(LOCATIONS).and_then(number);
            let label = label.ok_or_else(|| wrong("known arrays only", format!("{name:.60}")))?;
            let (shape, range) = self.take(&name, Dtype::U32)?;
            if !matches!(shape[..], [_, 3]) {
                return Err(wrong(format!("{name} as triples"), format!("{shape:?}")));
            }
            found.push((label, range));
        }
        found.sort_unstable_by_key(|(label, _)| *label);
        Ok(found)
    }
}

/// Files are used where they lie, so their byte order has to be the machine's.
fn little_endian() -> Result<()> {
    match cfg!(target_endian = "little") {
        true => Ok(()),
        false => Err(wrong("a little-endian machine", "a big-endian one")),
    }
}
