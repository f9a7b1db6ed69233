//! Files of arrays that nnU-Net keeps preprocessed cases in: `.b2nd` (Blosc2) and `.npy` (NumPy).
//!
//! Arrays have four axes, channel, z, y, x. A [box](ArrayFile::read) of voxels is read on its own: of a
//! compressed file only the blocks that it touches are unpacked, of others only its rows are read.
//!
//! ```no_run
//! use stunet_data::array_file::ArrayFile;
//! let file = ArrayFile::open("nnUNetPlans_3d_fullres/liver_007.b2nd".as_ref())?;
//! let [_, z, y, x] = file.shape();
//! let middle = file.read::<f32>([0, z / 2, 0, 0], [1, 1, y, x])?;
//! println!("the middle slice has mean {:?}", middle.mean());
//! # Ok::<(), stunet_data::DataError>(())
//! ```
//!
//! # Source
//! Formats of C-Blosc2: `README_CFRAME_FORMAT`, `README_CHUNK_FORMAT`, `README_B2ND_METALAYER`; of NumPy:
//! `numpy.lib.format`. nnU-Net 2.8.1, `nnunet_dataset.py`, says what of them it writes: contiguous frames,
//! LZ4 (HC) or Zstandard, with shuffled bytes or without.

mod b2nd;
mod blosclz;
mod chunk;
pub mod npy;
mod number;

pub use number::{Cell, Number};

use crate::error::{DataError, Result};
use crate::files;
use crate::zeroed::zeroed;
use b2nd::B2nd;
use ndarray::Array4;
use npy::Npy;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Longest box that is read at once, in voxels.
const MAX_BOX: usize = isize::MAX as usize / 8;

/// An open file with an array of four axes; no voxel is read yet.
#[derive(Debug)]
pub struct ArrayFile {
    path: PathBuf,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    B2nd(B2nd),
    Npy(Npy),
}

impl ArrayFile {
    /// Opens a `.b2nd` or `.npy` file, whichever its name says, and reads its header.
    ///
    /// # Errors
    /// When the file is missing, damaged, truncated, or packed in a way that nnU-Net does not use.
    pub fn open(path: &Path) -> Result<Self> {
        let open = || -> Result<Kind> {
            let source = Source::open(path)?;
            Ok(match path.extension().is_some_and(|ending| ending == "npy") {
                true => Kind::Npy(Npy::open(source)?),
                false => Kind::B2nd(B2nd::open(source)?),
            })
        };
        let kind = open().map_err(|e| e.at(path))?;
        Ok(Self { path: path.to_owned(), kind })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Length along every axis, `[c, z, y, x]`.
    pub fn shape(&self) -> [usize; 4] {
        match &self.kind {
            Kind::B2nd(file) => file.shape(),
            Kind::Npy(file) => file.shape(),
        }
    }

    /// How its numbers are stored.
    pub fn number(&self) -> Number {
        match &self.kind {
            Kind::B2nd(file) => file.number(),
            Kind::Npy(file) => file.number(),
        }
    }

    /// Reads a box of `size` voxels from `first` on.
    ///
    /// # Errors
    /// When the box reaches beyond the array, the file is damaged, or a value is no whole number where
    /// labels are wanted.
    pub fn read<T: Cell>(&self, first: [usize; 4], size: [usize; 4]) -> Result<Array4<T>> {
        let shape = self.shape();
        let read = || -> Result<Array4<T>> {
            let inside =
                (0..4).all(|a| first[a].checked_add(size[a]).is_some_and(|end| end <= shape[a]));
            let count = size.iter().try_fold(1usize, |n, s| n.checked_mul(*s));
            if !inside || count.is_none_or(|count| count > MAX_BOX) {
                return Err(wrong(
                    format!("a box within {shape:?}"),
                    format!("{size:?} voxels from {first:?} on"),
                ));
            }
            let mut out = zeroed(size);
            match &self.kind {
                _ if out.is_empty() => {}
                Kind::B2nd(file) => file.read(first, &mut out)?,
                Kind::Npy(file) => file.read(first, &mut out)?,
            }
            Ok(out)
        };
        read().map_err(|e| e.at(&self.path))
    }
}

/// An error about such a file: expected, found.
fn wrong(expected: impl Into<String>, found: impl Into<String>) -> DataError {
    DataError::StoredCase { expected: expected.into(), found: found.into() }
}

/// A value that does not fit.
fn bad_value(found: f64) -> DataError {
    wrong("labels that are whole numbers from -32768 to 32767", found.to_string())
}

/// A file of which parts are read; several threads may ask.
#[derive(Debug)]
struct Source {
    file: Mutex<std::fs::File>,
    length: u64,
}

impl Source {
    fn open(path: &Path) -> Result<Self> {
        let file = files::open(path)?;
        let length = file.metadata().map_err(|e| DataError::io("read", e))?.len();
        Ok(Self { file: Mutex::new(file), length })
    }

    /// Reads `count` bytes from `at` on; nothing is allocated for bytes that are not there.
    fn read(&self, at: u64, count: usize, into: &mut Vec<u8>) -> Result<()> {
        let end = at.checked_add(count as u64);
        if end.is_none_or(|end| end > self.length) {
            let expected = format!("{count} bytes from byte {at} on");
            return Err(wrong(expected, format!("a file of {} bytes: truncated", self.length)));
        }
        into.resize(count, 0);
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let read = file.seek(SeekFrom::Start(at)).and_then(|_| file.read_exact(into));
        read.map_err(|e| DataError::io("read", e))
    }
}

#[cfg(test)]
mod tests;
