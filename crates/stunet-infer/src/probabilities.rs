//! `--save-probabilities`: an `.npz` of classes × volume, written without holding it.
//!
//! Planes arrive lowest first with all their classes, the archive wants class after class: planes
//! go to their places in a temporary file, which is then read class by class into the archive.

use crate::blend::softmax;
use crate::error::InferError;
use half::f16;
use rayon::prelude::*;
use std::io::{BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;
use zip::write::SimpleFileOptions;

/// What is stored for the values of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbabilityKind {
    /// The values are probabilities: array `softmax` in f16, in the cropped frame (nnU-Net v1).
    AsTheyAre,
    /// Softmax of logits over the classes: array `probabilities` in f32, in the image's frame
    /// (nnU-Net v2).
    Softmax,
    /// Sigmoid of logits, for regions: array `probabilities` in f32, in the image's frame.
    Sigmoid,
}

impl ProbabilityKind {
    fn array_name(self) -> &'static str {
        match self {
            Self::AsTheyAre => "softmax",
            Self::Softmax | Self::Sigmoid => "probabilities",
        }
    }

    fn bytes_per_value(self) -> usize {
        match self {
            Self::AsTheyAre => 2,
            Self::Softmax | Self::Sigmoid => 4,
        }
    }

    /// Turns a row `[C, width]` of predicted values into what is stored.
    pub(crate) fn apply(self, values: &[f32], width: usize, out: &mut [f32]) {
        out.copy_from_slice(values);
        match self {
            Self::AsTheyAre => {}
            Self::Softmax => softmax(out, width, &mut Vec::new(), &mut Vec::new()),
            Self::Sigmoid => out.iter_mut().for_each(|v| *v = 1.0 / (1.0 + (-*v).exp())),
        }
    }
}

/// Where the cropped, transposed volume of the network lies in the array that is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Axis `i` of the stored array is axis `transpose_backward[i]` of the network's.
    pub transpose_backward: [usize; 3],
    /// Shape of the stored array's volume, in its own axis order.
    pub shape: [usize; 3],
    /// First voxel of the crop within it, in its own axis order.
    pub lower: [usize; 3],
}

/// Probabilities on their way to a file.
pub struct ProbabilityFile {
    kind: ProbabilityKind,
    target: PathBuf,
    raw: NamedTempFile,
    num_classes: usize,
    shape: [usize; 3],
    plane: Vec<f32>,
}

impl ProbabilityFile {
    /// Room for probabilities `[C, z, y, x]` of the cropped volume, to be stored as `target`.
    ///
    /// # Errors
    /// When no temporary file can be made beside `target`.
    pub fn create(
        target: &Path,
        kind: ProbabilityKind,
        num_classes: usize,
        shape: [usize; 3],
    ) -> Result<Self, InferError> {
        let folder = match target.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let raw = NamedTempFile::new_in(folder)
            .map_err(InferError::io("cannot write probabilities", target))?;
        Ok(Self {
            kind,
            target: target.to_owned(),
            raw,
            num_classes,
            shape,
            plane: vec![0.0; num_classes * shape[1] * shape[2]],
        })
    }

    pub(crate) fn kind(&self) -> ProbabilityKind {
        self.kind
    }

    /// Rows `[C, width]` of the plane that is filled next.
    pub(crate) fn rows(&mut self, width: usize) -> rayon::slice::ChunksMut<'_, f32> {
        self.plane.par_chunks_mut(self.num_classes * width)
    }

    /// Puts the filled plane in its place.
    pub(crate) fn write_plane(&mut self, z: usize) -> Result<(), InferError> {
        let [depth, height, width] = self.shape;
        let size = self.kind.bytes_per_value();
        let mut bytes = Vec::with_capacity(height * width * size);
        let file = self.raw.as_file_mut();
        for class in 0..self.num_classes {
            bytes.clear();
            for row in self.plane.chunks_exact(self.num_classes * width) {
                for &value in &row[class * width..(class + 1) * width] {
                    match self.kind {
                        ProbabilityKind::AsTheyAre => {
                            bytes.extend_from_slice(&f16::from_f32(value).to_le_bytes());
                        }
                        _ => bytes.extend_from_slice(&value.to_le_bytes()),
                    }
                }
            }
            let at = (class * depth + z) * height * width * size;
            file.seek(SeekFrom::Start(at as u64))
                .and_then(|_| file.write_all(&bytes))
                .map_err(InferError::io("cannot write probabilities", &self.target))?;
        }
        Ok(())
    }

    /// Writes the archive and moves it into place; returns its path.
    ///
    /// # Errors
    /// When it cannot be written; nothing is left behind then.
    pub fn finish(mut self, frame: &Frame) -> Result<PathBuf, InferError> {
        let target = std::mem::take(&mut self.target);
        self.write_archive(&target, frame)
            .and_then(|archive| archive.persist(&target).map_err(|e| e.error).map(drop))
            .map_err(InferError::io("cannot write probabilities", &target))?;
        Ok(target)
    }

    fn write_archive(&mut self, target: &Path, frame: &Frame) -> std::io::Result<NamedTempFile> {
        let folder = self.raw.path().parent().unwrap_or(Path::new("."));
        let archive = NamedTempFile::new_in(folder)?;
        let mut zip = zip::ZipWriter::new(BufWriter::new(archive.reopen()?));
        // Level 1: probabilities are mostly zeros or noise, and this is the slowest step.
        let options = SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Deflated)
            .compression_level(Some(1))
            .large_file(true);
        debug_assert!(!target.as_os_str().is_empty());
        zip.start_file(format!("{}.npy", self.kind.array_name()), options)?;
        zip.write_all(&self.header(frame.shape))?;

        let size = self.kind.bytes_per_value();
        let file = self.raw.as_file_mut();
        file.flush()?;
        file.seek(SeekFrom::Start(0))?;
        let mut raw = BufReader::new(&*file);
        let mut class = vec![0; self.shape.iter().product::<usize>() * size];
        for index in 0..self.num_classes {
            raw.read_exact(&mut class)?;
            let outside = outside(self.kind, index);
            zip.write_all(&place(&class, self.shape, frame, &outside))?;
        }
        zip.finish()?.into_inner().map_err(|e| e.into_error())?.sync_all()?;
        Ok(archive)
    }

    /// The header of an `.npy` file, version 1.0, padded to 64 bytes.
    fn header(&self, [a, b, c]: [usize; 3]) -> Vec<u8> {
        let classes = self.num_classes;
        let size = self.kind.bytes_per_value();
        let mut text = format!(
            "{{'descr': '<f{size}', 'fortran_order': False, 'shape': ({classes}, {a}, {b}, {c}), }}"
        );
        const PREFIX: usize = 10;
        let length = (PREFIX + text.len() + 1).next_multiple_of(64);
        text.extend(std::iter::repeat_n(' ', length - PREFIX - text.len() - 1));
        text.push('\n');
        let mut header = b"\x93NUMPY\x01\x00".to_vec();
        header.extend_from_slice(&(text.len() as u16).to_le_bytes());
        header.extend_from_slice(text.as_bytes());
        header
    }
}

/// What lies outside the crop: background for certain, as nnU-Net v2 writes it.
fn outside(kind: ProbabilityKind, class: usize) -> Vec<u8> {
    let value = if kind == ProbabilityKind::Softmax && class == 0 { 1f32 } else { 0.0 };
    match kind {
        ProbabilityKind::AsTheyAre => f16::from_f32(value).to_le_bytes().to_vec(),
        _ => value.to_le_bytes().to_vec(),
    }
}

/// One class's volume, transposed back and pasted into `frame`.
fn place(class: &[u8], shape: [usize; 3], frame: &Frame, outside: &[u8]) -> Vec<u8> {
    let size = outside.len();
    let strides = [shape[1] * shape[2], shape[2], 1];
    let stride = frame.transpose_backward.map(|axis| strides[axis]);
    let extent = frame.transpose_backward.map(|axis| shape[axis]);
    let mut out = outside.repeat(frame.shape.iter().product());
    for i in 0..extent[0] {
        for j in 0..extent[1] {
            let row = ((frame.lower[0] + i) * frame.shape[1] + frame.lower[1] + j) * frame.shape[2]
                + frame.lower[2];
            for k in 0..extent[2] {
                let from = (i * stride[0] + j * stride[1] + k * stride[2]) * size;
                let to = (row + k) * size;
                out[to..to + size].copy_from_slice(&class[from..from + size]);
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archive_holds_what_was_put_in() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("case.npz");
        let (classes, shape) = (2, [2, 3, 5]);
        let mut file =
            ProbabilityFile::create(&target, ProbabilityKind::AsTheyAre, classes, shape).unwrap();
        let value =
            |c: usize, z: usize, y: usize, x: usize| (c * 1000 + z * 100 + y * 10 + x) as f32;
        for z in 0..2 {
            for (y, row) in file.plane.chunks_exact_mut(classes * 5).enumerate() {
                for (i, v) in row.iter_mut().enumerate() {
                    *v = value(i / 5, z, y, i % 5);
                }
            }
            file.write_plane(z).unwrap();
        }
        // Stored axes (a, b, c) are the network's (x, z, y), one voxel of margin below a.
        let frame = Frame { transpose_backward: [2, 0, 1], shape: [6, 2, 3], lower: [1, 0, 0] };
        let path = file.finish(&frame).unwrap();
        assert_eq!(
            std::fs::read_dir(folder.path()).unwrap().count(),
            1,
            "temporary files are gone"
        );

        let array = stunet_testing::oracle::Npz::open(&path).f32("softmax");
        assert_eq!(array.shape(), [2, 6, 2, 3]);
        for ((c, a, b, d), v) in array.into_dimensionality::<ndarray::Ix4>().unwrap().indexed_iter()
        {
            let expected = if a == 0 { 0.0 } else { value(c, b, d, a - 1) };
            assert_eq!(*v, expected, "{c} {a} {b} {d}");
        }
    }
}
