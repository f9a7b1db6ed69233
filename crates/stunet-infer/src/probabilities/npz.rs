//! nnU-Net's `.npz`: one array, class after class, by way of a compressed spool.

use super::pieces::{Piece, ROWS};
use super::{Extent, Frame, ProbabilityKind, to_bytes};
use flate2::Compression;
use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use half::f16;
use std::fs::File;
use std::io::{BufWriter, Read, Result, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use stunet_data::files;
use stunet_model::weights::muted::Muted;
use tempfile::NamedTempFile;
use zip::write::SimpleFileOptions;

/// Pieces by class, each compressed alone, in the order in which they came.
pub(super) struct Spool {
    extent: Extent,
    target: PathBuf,
    file: NamedTempFile,
    written: Mutex<Written>,
}

struct Written {
    /// Bytes so far.
    length: u64,
    /// Place and length of every piece, `[class, z, block]`.
    index: Vec<(u64, u32)>,
}

impl Spool {
    pub fn create(target: &Path, extent: Extent) -> Result<Self> {
        let [depth, height, _] = extent.shape;
        let index = vec![(0, 0); extent.num_classes * depth * height.div_ceil(ROWS)];
        let file = files::unfinished(target)?;
        let target = target.to_owned();
        Ok(Self { extent, target, file, written: Mutex::new(Written { length: 0, index }) })
    }

    /// Compresses a piece, on the caller's thread, and appends it.
    pub fn put(&self, piece: &Piece) -> Result<()> {
        let Extent { kind, shape: [depth, height, width], .. } = self.extent;
        let mut packed = Vec::new();
        let mut lengths = Vec::new();
        for class in piece.values.chunks_exact(ROWS * width) {
            let before = packed.len();
            let mut encoder = DeflateEncoder::new(&mut packed, Compression::fast());
            encoder.write_all(&to_bytes(kind, &class[..piece.num_rows * width]))?;
            encoder.finish()?;
            lengths.push((packed.len() - before) as u32);
        }
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let mut file = self.file.as_file();
        file.write_all(&packed)?;
        for (class, length) in lengths.into_iter().enumerate() {
            let at = (class * depth + piece.z) * height.div_ceil(ROWS) + piece.block;
            written.index[at] = (written.length, length);
            written.length += u64::from(length);
        }
        Ok(())
    }

    pub fn finish(self, frame: &Frame, note: Option<&str>) -> Result<NamedTempFile> {
        let archive = files::unfinished(&self.target)?;
        let mut zip = zip::ZipWriter::new(Muted::new(BufWriter::new(archive.reopen()?)));
        // Level 1: probabilities are mostly zeros or noise, and this is the slowest step.
        let options = SimpleFileOptions::default()
            .compression_method(zip::CompressionMethod::Deflated)
            .compression_level(Some(1))
            .large_file(true);
        zip.start_file(format!("{}.npy", self.extent.kind.array_name()), options)?;
        zip.write_all(&self.header(frame.shape))?;
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        for class in 0..self.extent.num_classes {
            let outside = outside(self.extent.kind, class);
            let mut placed = outside.repeat(frame.shape.iter().product());
            self.place(class, &written.index, frame, &mut placed)?;
            zip.write_all(&placed)?;
        }
        if let Some(note) = note {
            zip.set_comment(note)?;
        }
        zip.finish()?.into_inner()?.into_inner().map_err(|e| e.into_error())?.sync_all()?;
        drop(written);
        Ok(archive)
    }

    /// One class's volume, transposed back and pasted into `frame`.
    fn place(
        &self,
        class: usize,
        index: &[(u64, u32)],
        frame: &Frame,
        out: &mut [u8],
    ) -> Result<()> {
        let Extent { kind, shape: [depth, height, width], .. } = self.extent;
        let size = kind.bytes_per_value();
        let blocks = height.div_ceil(ROWS);
        let (first, step) = frame.strides();
        let mut file: &File = self.file.as_file();
        let (mut packed, mut rows) = (Vec::new(), Vec::new());
        for z in 0..depth {
            for block in 0..blocks {
                let (at, length) = index[(class * depth + z) * blocks + block];
                packed.resize(length as usize, 0);
                file.seek(SeekFrom::Start(at))?;
                file.read_exact(&mut packed)?;
                rows.clear();
                DeflateDecoder::new(&packed[..]).read_to_end(&mut rows)?;
                for (row, values) in rows.chunks_exact(width * size).enumerate() {
                    let place = |x: usize| {
                        let voxel = [z, block * ROWS + row, x];
                        let along = |axis: usize| voxel[axis] as isize * step[axis];
                        first.wrapping_add_signed(along(0) + along(1) + along(2))
                    };
                    for (x, value) in values.chunks_exact(size).enumerate() {
                        let to = place(x) * size;
                        out[to..to + size].copy_from_slice(value);
                    }
                }
            }
        }
        Ok(())
    }

    /// The header of an `.npy` file, version 1.0, padded to 64 bytes.
    fn header(&self, [a, b, c]: [usize; 3]) -> Vec<u8> {
        let classes = self.extent.num_classes;
        let size = self.extent.kind.bytes_per_value();
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
    let certain = ProbabilityKind::Kept { background: true };
    let value =
        if [ProbabilityKind::Softmax, certain].contains(&kind) && class == 0 { 1f32 } else { 0.0 };
    match kind {
        ProbabilityKind::AsTheyAre => f16::from_f32(value).to_le_bytes().to_vec(),
        _ => value.to_le_bytes().to_vec(),
    }
}
