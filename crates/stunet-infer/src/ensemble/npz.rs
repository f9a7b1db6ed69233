//! Members in nnU-Net's `.npz`: read side by side, class after class.

use super::npy::{self, Header};
use super::v1;
use super::{Vote, add, differs, open_archive};
use crate::InferError;
use half::f16;
use ndarray::Array3;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use stunet_data::array_file::Number;
use stunet_data::files;
use stunet_data::labels::LabelSet;
use stunet_model::weights::muted::Muted;
use tempfile::NamedTempFile;
use zip::write::SimpleFileOptions;

/// The array of nnU-Net 2.
const ARRAY: &str = "probabilities.npy";
/// Voxels that are read at a time.
const VOXELS: usize = 1 << 16;

pub(super) fn ensemble(
    members: &[PathBuf],
    labels: &LabelSet,
    merged: Option<&Path>,
) -> Result<Array3<u16>, InferError> {
    let mut archives =
        members.iter().map(|path| open_archive(path)).collect::<Result<Vec<_>, _>>()?;
    let is_v1 = archives[0].index_for_name(v1::ARRAY).is_some();
    let array = if is_v1 { v1::ARRAY } else { ARRAY };
    let mut arrays = Vec::new();
    for (archive, path) in archives.iter_mut().zip(members) {
        arrays.push(archive.by_name(array).map_err(|_| {
            let expected = match is_v1 {
                true => "an archive with softmax.npy, as the first member has (nnU-Net 1)",
                false => "an archive with probabilities.npy, as nnU-Net 2 writes it",
            };
            differs(path, expected, "none")
        })?);
    }
    let headers = headers(&mut arrays, members)?;
    let shape = headers[0].shape;
    let cropped = is_v1.then(|| v1::properties(&members[0], shape)).transpose()?;
    let own_order = cropped.as_ref().and_then(|cropped| cropped.regions.as_deref());
    let outputs = own_order.map_or(labels.num_outputs(), <[u16]>::len);
    if shape[0] != outputs {
        let expected = format!("{outputs} outputs, as the labels are");
        return Err(differs(&members[0], expected, shape[0].to_string()));
    }
    if let Some(path) = merged.filter(|_| is_v1) {
        return Err(differs(path, "members of nnU-Net 2, to store their mean", "nnU-Net 1's"));
    }
    let mut out = merged.map(|path| Merged::create(path, shape)).transpose()?;
    let num_voxels: usize = shape[1..].iter().product();
    let mut vote = Vote::new(own_order.or(labels.region_order()), num_voxels);
    // NumPy's mean of values in half precision is one itself.
    let half = is_v1 && headers.iter().all(|header| header.number == Number::Half);
    let mut side_by_side = SideBySide::new(arrays, headers, members);
    for output in 0..shape[0] {
        for first in (0..num_voxels).step_by(VOXELS) {
            let mean = side_by_side.mean(VOXELS.min(num_voxels - first))?;
            if half {
                mean.iter_mut().for_each(|value| *value = f16::from_f32(*value).to_f32());
            }
            vote.take(output, first, mean);
            if let Some(out) = &mut out {
                out.put(mean)?;
            }
        }
    }
    if let Some(out) = out {
        out.finish()?;
    }
    let [_, z, y, x] = shape;
    let decided = Array3::from_shape_vec((z, y, x), vote.decided).expect("a label for each voxel");
    Ok(match cropped {
        Some(cropped) => cropped.placed(decided),
        None => decided,
    })
}

/// The headers of all arrays, which have one shape.
fn headers(arrays: &mut [impl Read], members: &[PathBuf]) -> Result<Vec<Header>, InferError> {
    let mut headers: Vec<Header> = Vec::new();
    for (array, path) in arrays.iter_mut().zip(members) {
        let header = npy::header(array).map_err(at(path))?;
        let first = headers.first().unwrap_or(&header).shape;
        if header.shape != first {
            return Err(differs(path, format!("shape {first:?}"), format!("{:?}", header.shape)));
        }
        headers.push(header);
    }
    Ok(headers)
}

/// Arrays that are read together.
struct SideBySide<'a, R> {
    arrays: Vec<R>,
    headers: Vec<Header>,
    members: &'a [PathBuf],
    sum: Vec<f32>,
    bytes: Vec<u8>,
    values: Vec<f64>,
}

impl<'a, R: Read> SideBySide<'a, R> {
    fn new(arrays: Vec<R>, headers: Vec<Header>, members: &'a [PathBuf]) -> Self {
        let (sum, bytes, values) = Default::default();
        Self { arrays, headers, members, sum, bytes, values }
    }

    /// The mean of the next `count` values of all.
    fn mean(&mut self, count: usize) -> Result<&mut [f32], InferError> {
        self.sum.resize(count, 0.0);
        self.values.resize(count, 0.0);
        for (index, array) in self.arrays.iter_mut().enumerate() {
            let number = self.headers[index].number;
            self.bytes.resize(count * number.bytes(), 0);
            array.read_exact(&mut self.bytes).map_err(at(&self.members[index]))?;
            let decoded = number.decode(&self.bytes, &mut self.values);
            decoded.expect("every number is one in double precision");
            add(&mut self.sum, &self.values, index == 0);
        }
        let count = self.arrays.len() as f32;
        self.sum.iter_mut().for_each(|sum| *sum /= count);
        Ok(&mut self.sum)
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> InferError {
    InferError::io("cannot read probabilities", path)
}

/// The mean, on its way to a file.
struct Merged {
    target: PathBuf,
    file: NamedTempFile,
    zip: zip::ZipWriter<Muted<BufWriter<File>>>,
}

impl Merged {
    fn create(target: &Path, shape: [usize; 4]) -> Result<Self, InferError> {
        let create = || -> io::Result<Self> {
            let file = files::unfinished(target)?;
            let mut zip = zip::ZipWriter::new(Muted::new(BufWriter::new(file.reopen()?)));
            let options = SimpleFileOptions::default()
                .compression_method(zip::CompressionMethod::Deflated)
                .compression_level(Some(1))
                .large_file(true);
            zip.start_file(ARRAY, options)?;
            zip.write_all(&npy::header_of(&shape))?;
            Ok(Self { target: target.to_owned(), file, zip })
        };
        create().map_err(InferError::io("cannot write probabilities", target))
    }

    fn put(&mut self, values: &[f32]) -> Result<(), InferError> {
        let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.zip
            .write_all(&bytes)
            .map_err(InferError::io("cannot write probabilities", &self.target))
    }

    fn finish(self) -> Result<(), InferError> {
        let Self { target, file, zip } = self;
        let finish = || -> io::Result<()> {
            let writer = zip.finish()?.into_inner()?;
            writer.into_inner().map_err(|e| e.into_error())?.sync_all()?;
            files::finish(file, &target)
        };
        finish().map_err(InferError::io("cannot write probabilities", &target))
    }
}
