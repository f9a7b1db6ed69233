//! Stored probabilities: classes × volume on disk, written without holding it.
//!
//! Rows come from the restore in the order in which they become final. A few of them make a piece,
//! which is compressed as soon as it is whole: as a chunk of a Zarr array, or into a spool from which
//! nnU-Net's `.npz` is written class after class.

mod npz;
mod pieces;
mod zarr;

use crate::blend::softmax;
use crate::error::InferError;
use half::f16;
use npz::Spool;
use pieces::Pieces;
use serde::Serialize;
use std::path::{Path, PathBuf};
use stunet_data::files;
use zarr::ZarrZip;

pub(crate) use pieces::ROWS as ROWS_PER_PIECE;

/// In which form probabilities are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProbabilityFormat {
    /// A Zarr (version 2) array in a `.zarr.zip`, chunk by chunk as they become final.
    #[default]
    Zarr,
    /// nnU-Net's `.npz`, all classes in one array; needs the room on disk twice.
    Npz,
}

impl ProbabilityFormat {
    /// Ending of its files.
    pub fn ending(self) -> &'static str {
        match self {
            Self::Zarr => "zarr.zip",
            Self::Npz => "npz",
        }
    }
}

/// What is stored for the values of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProbabilityKind {
    /// The values are probabilities: array `softmax` in f16, in the cropped frame (nnU-Net v1).
    AsTheyAre,
    /// Softmax of logits over the classes: array `probabilities` in f32, in the image's frame
    /// (nnU-Net v2; where a reader turned the image, nnU-Net leaves it turned, and we do not).
    Softmax,
    /// Sigmoid of logits, for regions: array `probabilities` in f32, in the image's frame.
    Sigmoid,
    /// The values of a network that gives no logits: array `probabilities` in f32, in the image's
    /// frame.
    Kept {
        /// Whether outside the crop the first class has 1, as background for certain; else 0.
        background: bool,
    },
}

impl ProbabilityKind {
    fn array_name(self) -> &'static str {
        match self {
            Self::AsTheyAre => "softmax",
            Self::Softmax | Self::Sigmoid | Self::Kept { .. } => "probabilities",
        }
    }

    fn bytes_per_value(self) -> usize {
        match self {
            Self::AsTheyAre => 2,
            Self::Softmax | Self::Sigmoid | Self::Kept { .. } => 4,
        }
    }

    /// Turns a row `[C, width]` of predicted values into what is stored.
    pub(crate) fn apply(self, values: &[f32], width: usize, out: &mut [f32]) {
        out.copy_from_slice(values);
        match self {
            Self::AsTheyAre | Self::Kept { .. } => {}
            Self::Softmax => softmax(out, width),
            Self::Sigmoid => out.iter_mut().for_each(|v| *v = 1.0 / (1.0 + (-*v).exp())),
        }
    }
}

/// Where the cropped, transposed volume of the network lies in the array that is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Axis `i` of the stored array is axis `transpose_backward[i]` of the network's.
    pub transpose_backward: [usize; 3],
    /// Whether axis `i` of the stored array runs against it.
    pub flipped: [bool; 3],
    /// Shape of the stored array's volume, in its own axis order.
    pub shape: [usize; 3],
    /// Voxels before the crop within it, in its own axis order: at its end where it is flipped.
    pub lower: [usize; 3],
}

impl Frame {
    /// Place of the network's first voxel in the stored array, row after row, and how far a step along
    /// each of the network's axes leads there.
    pub(crate) fn strides(&self) -> (usize, [isize; 3]) {
        let [_, b, c] = self.shape;
        let (mut first, mut step) = (0, [0; 3]);
        for (axis, stride) in [b * c, c, 1].into_iter().enumerate() {
            let (to, lower) = (self.transpose_backward[axis], self.lower[axis]);
            if self.flipped[axis] {
                first += (self.shape[axis] - 1 - lower) * stride;
                step[to] = -(stride as isize);
            } else {
                first += lower * stride;
                step[to] = stride as isize;
            }
        }
        (first, step)
    }
}

/// Probabilities on their way to a file.
pub struct ProbabilityFile {
    kind: ProbabilityKind,
    target: PathBuf,
    pieces: Pieces,
    store: Store,
}

enum Store {
    Zarr(Box<ZarrZip>),
    Npz(Spool),
}

/// What is stored: classes × cropped volume, in the network's axis order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    pub kind: ProbabilityKind,
    pub num_classes: usize,
    /// `[z, y, x]`.
    pub shape: [usize; 3],
}

impl ProbabilityFile {
    /// Room for probabilities `[C, z, y, x]` of the cropped volume, to be stored as `target`.
    ///
    /// # Errors
    /// When no temporary file can be made beside `target`.
    pub fn create(
        target: &Path,
        format: ProbabilityFormat,
        kind: ProbabilityKind,
        num_classes: usize,
        shape: [usize; 3],
    ) -> Result<Self, InferError> {
        let extent = Extent { kind, num_classes, shape };
        let store = match format {
            ProbabilityFormat::Zarr => {
                ZarrZip::create(target, extent).map(|zip| Store::Zarr(Box::new(zip)))
            }
            ProbabilityFormat::Npz => Spool::create(target, extent).map(Store::Npz),
        };
        let store = store.map_err(InferError::io("cannot write probabilities", target))?;
        Ok(Self { kind, target: target.to_owned(), pieces: Pieces::new(extent), store })
    }

    /// Takes a row of values `[C, width]` that begins at column `x`.
    pub(crate) fn put_row(
        &self,
        [z, y]: [usize; 2],
        x: usize,
        values: &[f32],
        width: usize,
    ) -> Result<(), InferError> {
        let mut probabilities = vec![0.0; values.len()];
        self.kind.apply(values, width, &mut probabilities);
        let Some(piece) = self.pieces.put([z, y, x], &probabilities, width) else {
            return Ok(());
        };
        let put = match &self.store {
            Store::Zarr(zip) => zip.put(&piece),
            Store::Npz(spool) => spool.put(&piece),
        };
        put.map_err(InferError::io("cannot write probabilities", &self.target))
    }

    /// Completes the file, with a note as the archive's comment, and moves it into place; returns its
    /// path.
    ///
    /// # Errors
    /// When it cannot be written; nothing is left behind then.
    pub fn finish(self, frame: &Frame, note: Option<&str>) -> Result<PathBuf, InferError> {
        let archive = match self.store {
            Store::Zarr(zip) => zip.finish(frame, note),
            Store::Npz(spool) => spool.finish(frame, note),
        };
        archive
            .and_then(|archive| files::finish(archive, &self.target))
            .map_err(InferError::io("cannot write probabilities", &self.target))?;
        Ok(self.target)
    }
}

/// Values as they are stored.
fn to_bytes(kind: ProbabilityKind, values: &[f32]) -> Vec<u8> {
    match kind {
        ProbabilityKind::AsTheyAre => {
            values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect()
        }
        _ => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    fn value(c: usize, z: usize, y: usize, x: usize) -> f32 {
        (c * 1000 + z * 500 + y * 10 + x) as f32 / 4.0
    }

    const CLASSES: usize = 2;
    const SHAPE: [usize; 3] = [2, 11, 5];

    /// Rows in any order, each in two parts.
    fn file(target: &Path, format: ProbabilityFormat) -> ProbabilityFile {
        let kind = ProbabilityKind::AsTheyAre;
        let file = ProbabilityFile::create(target, format, kind, CLASSES, SHAPE).unwrap();
        for y in [3, 0, 1, 2, 10, 4, 9, 5, 6, 7, 8] {
            for z in [1, 0] {
                for (x, width) in [(2, 3), (0, 2)] {
                    let row: Vec<f32> = (0..CLASSES)
                        .flat_map(|c| (x..x + width).map(move |x| value(c, z, y, x)))
                        .collect();
                    file.put_row([z, y], x, &row, width).unwrap();
                }
            }
        }
        file
    }

    #[test]
    fn npz_holds_what_was_put_in() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("case.npz");
        for flipped in [[false; 3], [true, false, true]] {
            // Stored axes (a, b, c) are the network's (x, z, y), one voxel of margin below a.
            let frame = Frame {
                transpose_backward: [2, 0, 1],
                flipped,
                shape: [6, 2, 11],
                lower: [1, 0, 0],
            };
            let path =
                file(&target, ProbabilityFormat::Npz).finish(&frame, Some("a note")).unwrap();
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file");
            let array = stunet_testing::oracle::Npz::open(&path).f32("softmax");
            assert_eq!(array.shape(), [2, 6, 2, 11]);
            let array = array.into_dimensionality::<ndarray::Ix4>().unwrap();
            for ((c, a, b, d), v) in array.indexed_iter() {
                let a = if flipped[0] { 5 - a } else { a };
                let d = if flipped[2] { 10 - d } else { d };
                let expected = if a == 0 { 0.0 } else { value(c, b, d, a - 1) };
                assert_eq!(*v, expected, "{c} {a} {b} {d}");
            }
        }
    }

    #[test]
    fn zarr_holds_what_was_put_in() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("case.zarr.zip");
        let frame = Frame {
            transpose_backward: [0, 1, 2],
            flipped: [false; 3],
            shape: SHAPE,
            lower: [0; 3],
        };
        let path = file(&target, ProbabilityFormat::Zarr).finish(&frame, Some("a note")).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file");
        let mut zip = zip::ZipArchive::new(std::fs::File::open(path).unwrap()).unwrap();
        assert_eq!(zip.comment(), b"a note");
        let mut read = |name: &str| {
            let mut bytes = Vec::new();
            zip.by_name(name).unwrap().read_to_end(&mut bytes).unwrap();
            bytes
        };
        let header: serde_json::Value = serde_json::from_slice(&read(".zarray")).unwrap();
        assert_eq!(header["shape"], serde_json::json!([2, 2, 11, 5]));
        assert_eq!(header["chunks"], serde_json::json!([2, 1, 8, 5]));
        assert_eq!(header["dtype"], "<f2");
        for (z, block) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let packed = read(&format!("0.{z}.{block}.0"));
            let mut bytes = Vec::new();
            flate2::read::ZlibDecoder::new(&packed[..]).read_to_end(&mut bytes).unwrap();
            assert_eq!(bytes.len(), 2 * 8 * 5 * 2, "chunks at the edge are padded");
            for (i, raw) in bytes.chunks_exact(2).enumerate() {
                let (c, y, x) = (i / 40, i / 5 % 8 + block * 8, i % 5);
                let expected = if y < 11 { value(c, z, y, x) } else { 0.0 };
                let found = f16::from_le_bytes([raw[0], raw[1]]).to_f32();
                assert_eq!(found, expected, "{c} {z} {y} {x}");
            }
        }
    }
}
