//! Members in nnU-Net's `.npz`: read side by side, class after class.

use super::npy::{self, Header};
use super::{Vote, add, differs};
use crate::InferError;
use ndarray::Array3;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use stunet_data::files;
use stunet_data::labels::LabelSet;
use stunet_model::weights::muted::Muted;
use tempfile::NamedTempFile;
use zip::ZipArchive;
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
    let mut archives = members.iter().map(|path| open(path)).collect::<Result<Vec<_>, _>>()?;
    let mut arrays = Vec::new();
    for (archive, path) in archives.iter_mut().zip(members) {
        arrays.push(archive.by_name(ARRAY).map_err(|_| {
            let expected = "an archive with probabilities.npy, as nnU-Net 2 writes it";
            differs(path, expected, "none")
        })?);
    }
    let mut headers: Vec<Header> = Vec::new();
    for (array, path) in arrays.iter_mut().zip(members) {
        let header = npy::header(array).map_err(at(path))?;
        let first = headers.first().unwrap_or(&header).shape;
        if header.shape != first {
            return Err(differs(path, format!("shape {first:?}"), format!("{:?}", header.shape)));
        }
        headers.push(header);
    }
    let shape = headers[0].shape;
    if shape[0] != labels.num_outputs() {
        let expected = format!("{} outputs, as dataset.json has them", labels.num_outputs());
        return Err(differs(&members[0], expected, shape[0].to_string()));
    }
    let mut out = merged.map(|path| Merged::create(path, shape)).transpose()?;
    let num_voxels: usize = shape[1..].iter().product();
    let mut vote = Vote::new(labels, num_voxels);
    let (mut sum, mut bytes, mut values) = (Vec::new(), Vec::new(), Vec::new());
    for output in 0..shape[0] {
        for first in (0..num_voxels).step_by(VOXELS) {
            let count = VOXELS.min(num_voxels - first);
            sum.resize(count, 0.0);
            for (index, array) in arrays.iter_mut().enumerate() {
                let number = headers[index].number;
                bytes.resize(count * number.bytes(), 0);
                array.read_exact(&mut bytes).map_err(at(&members[index]))?;
                values.clear();
                number.decode(&bytes, &mut values);
                add(&mut sum, &values, index == 0);
            }
            sum.iter_mut().for_each(|sum| *sum /= members.len() as f32);
            vote.take(output, first, &sum);
            if let Some(out) = &mut out {
                out.put(&sum)?;
            }
        }
    }
    if let Some(out) = out {
        out.finish()?;
    }
    let [_, z, y, x] = shape;
    Ok(Array3::from_shape_vec((z, y, x), vote.decided).expect("a label for each voxel"))
}

fn open(path: &Path) -> Result<ZipArchive<BufReader<File>>, InferError> {
    ZipArchive::new(BufReader::new(files::open(path)?))
        .map_err(|e| differs(path, "a zip archive", e.to_string()))
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
            zip.write_all(&npy::header_of(shape))?;
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
