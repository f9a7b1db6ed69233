//! Bytes of a frame to its samples.

mod compressed;
mod rle;

use super::dataset::Dataset;
use super::header::Format;
use super::parse::Pixels;
use super::syntax::Codec;
use crate::error::{DataError, Result};
use dicom_dictionary_std::tags;
use std::borrow::Cow;

/// The pixels of one file.
pub(super) struct FilePixels<'a> {
    pub format: &'a Format,
    /// The file, or what it holds if it is deflated.
    pub bytes: &'a [u8],
    pub pixels: &'a Pixels,
    /// The file's table of frames that are longer than 4 GB.
    pub long_table: Option<&'a [u8]>,
}

impl<'a> FilePixels<'a> {
    pub fn new(format: &'a Format, bytes: &'a [u8], pixels: &'a Pixels, root: &'a Dataset) -> Self {
        Self { format, bytes, pixels, long_table: root.bytes(tags::EXTENDED_OFFSET_TABLE) }
    }

    /// Fails where the file is too short for its frames, as far as their bytes are told.
    pub fn check_size(&self) -> Result<()> {
        let (expected, end) = (self.format.bytes(), self.bytes.len() as u64);
        let found = match self.pixels {
            Pixels::Native { at, length, .. } => u64::from(*length).min(end.saturating_sub(*at)),
            Pixels::Pieces { pieces, .. } if !pieces.is_empty() => return Ok(()),
            _ => 0,
        };
        match found >= expected {
            true => Ok(()),
            false => Err(DataError::Truncated { expected, found }),
        }
    }

    /// The samples of a frame: the bits that are stored, with their sign.
    pub fn frame(&self, index: usize) -> Result<Vec<i32>> {
        let packed = self.packed(index)?;
        let cells = match self.format.syntax.codec {
            Codec::Native => self.native(&packed)?,
            Codec::Rle => rle::decode(&packed, self.format)?,
            Codec::Jpeg => compressed::jpeg(&packed, self.format)?,
            Codec::JpegLs => compressed::jpeg_ls(&packed, self.format)?,
            Codec::Jpeg2000 => compressed::jpeg_2000(&packed, self.format)?,
            Codec::Unknown => return Err(self.format.syntax.refused()),
        };
        Ok(stored(cells, self.format))
    }

    /// The bytes of a frame as they are in the file.
    fn packed(&self, index: usize) -> Result<Cow<'a, [u8]>> {
        let Format { rows, columns, num_frames, bits_allocated, .. } = *self.format;
        let size = rows * columns * usize::from(bits_allocated / 8);
        match self.pixels {
            Pixels::None => Err(DataError::Truncated { expected: size as u64, found: 0 }),
            Pixels::Native { at, .. } => {
                let at = *at + (size * index) as u64;
                self.part(at, size as u64).map(Cow::Borrowed)
            }
            Pixels::Pieces { pieces, .. } if pieces.len() == num_frames => {
                let (at, length) = pieces[index];
                self.part(at, length.into()).map(Cow::Borrowed)
            }
            Pixels::Pieces { pieces, .. } => {
                let from = self.first_piece(index)?;
                let to = match index + 1 < num_frames {
                    true => self.first_piece(index + 1)?,
                    false => pieces.len(),
                };
                let mut all = Vec::new();
                for (at, length) in pieces.get(from..to).unwrap_or_default() {
                    all.extend_from_slice(self.part(*at, (*length).into())?);
                }
                Ok(Cow::Owned(all))
            }
        }
    }

    fn part(&self, at: u64, length: u64) -> Result<&'a [u8]> {
        let rest = usize::try_from(at).ok().and_then(|at| self.bytes.get(at..)).unwrap_or_default();
        let part = usize::try_from(length).ok().and_then(|length| rest.get(..length));
        part.ok_or(DataError::Truncated { expected: length, found: rest.len() as u64 })
    }

    /// The piece in which a frame begins, by the table of the file.
    fn first_piece(&self, index: usize) -> Result<usize> {
        let Pixels::Pieces { table, pieces } = self.pixels else { return Ok(0) };
        if index == 0 {
            return Ok(0);
        }
        let missing = || {
            let what = format!(
                "expected a piece for every frame or a table of them, found {} pieces for {} frames",
                pieces.len(),
                self.format.num_frames
            );
            DataError::UnsupportedDicom { what }
        };
        let offset = match (self.long_table, table) {
            (Some(long), _) if long.len() >= 8 => long
                .chunks_exact(8)
                .nth(index)
                .and_then(|raw| raw.try_into().ok())
                .map(u64::from_le_bytes),
            (_, Some((at, length))) => {
                let table = self.part(*at, (*length).into())?;
                let raw = table.chunks_exact(4).nth(index).and_then(|raw| raw.try_into().ok());
                raw.map(u32::from_le_bytes).map(u64::from)
            }
            _ => None,
        };
        // Offsets are counted from the first piece's header, which has 8 bytes.
        let (first, offset) = (pieces.first().ok_or_else(missing)?.0, offset.ok_or_else(missing)?);
        let at = first.checked_add(offset).ok_or_else(missing)?;
        pieces.iter().position(|(place, _)| *place == at).ok_or_else(missing)
    }

    /// Cells of the bits that are allocated.
    fn native(&self, bytes: &[u8]) -> Result<Vec<u32>> {
        let Format { rows, columns, bits_allocated, .. } = *self.format;
        let (big, size) = (self.format.is_big(), rows * columns * usize::from(bits_allocated / 8));
        let found = bytes.len() as u64;
        // A piece may be filled up to an even length.
        let bytes =
            bytes.get(..size).ok_or(DataError::Truncated { expected: size as u64, found })?;
        Ok(match bits_allocated {
            8 => {
                let mut cells: Vec<u32> = bytes.iter().map(|byte| u32::from(*byte)).collect();
                if big && matches!(self.pixels, Pixels::Native { words: true, .. }) {
                    // Two samples are one word there.
                    cells.chunks_exact_mut(2).for_each(|pair| pair.swap(0, 1));
                }
                cells
            }
            16 => {
                let word = |raw: &[u8]| u32::from(u16::from_le_bytes([raw[0], raw[1]]));
                let big_word = |raw: &[u8]| u32::from(u16::from_be_bytes([raw[0], raw[1]]));
                let words = bytes.chunks_exact(2);
                if big { words.map(big_word).collect() } else { words.map(word).collect() }
            }
            _ => {
                let four = |raw: &[u8]| [raw[0], raw[1], raw[2], raw[3]];
                let words = bytes.chunks_exact(4).map(four);
                let read = if big { u32::from_be_bytes } else { u32::from_le_bytes };
                words.map(read).collect()
            }
        })
    }
}

/// Cells to the numbers that their stored bits are.
fn stored(cells: Vec<u32>, format: &Format) -> Vec<i32> {
    // Stored bits are moved to the top and back, which cuts what lies above and below them, and
    // spreads the sign.
    let up = 31 - u32::from(format.high_bit);
    let down = 32 - u32::from(format.bits_stored);
    let signed = |cell: u32| ((cell << up) as i32) >> down;
    let unsigned = |cell: u32| ((cell << up) >> down) as i32;
    match format.signed {
        true => cells.into_iter().map(signed).collect(),
        false => cells.into_iter().map(unsigned).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::syntax::Syntax;
    use super::*;

    fn format(bits_allocated: u16, bits_stored: u16, high_bit: u16, signed: bool) -> Format {
        let syntax = Syntax::of("1.2.840.10008.1.2.1");
        let (rows, columns, num_frames) = (1, 4, 1);
        Format { syntax, rows, columns, bits_allocated, bits_stored, high_bit, signed, num_frames }
    }

    #[test]
    fn bits_that_are_stored() {
        let check = |format: Format, cells: [u32; 4], expected: [i32; 4]| {
            assert_eq!(stored(cells.to_vec(), &format), expected, "{format:?}");
        };
        check(format(16, 16, 15, true), [0, 1, 0xffff, 0x8000], [0, 1, -1, -32768]);
        check(format(16, 16, 15, false), [0, 1, 0xffff, 0x8000], [0, 1, 65535, 32768]);
        // Overlays in the upper bits are cut off.
        check(format(16, 12, 11, false), [0xf001, 0xfff, 0x1000, 7], [1, 4095, 0, 7]);
        check(format(16, 12, 11, true), [0xf001, 0xfff, 0x800, 0x7ff], [1, -1, -2048, 2047]);
        // Samples in the upper bits.
        check(format(16, 12, 15, false), [0x0010, 0xfff0, 0x000f, 0x7ff0], [1, 4095, 0, 2047]);
        check(format(8, 8, 7, true), [0, 127, 128, 255], [0, 127, -128, -1]);
        check(format(32, 32, 31, true), [0, 1, u32::MAX, 1 << 31], [0, 1, -1, i32::MIN]);
    }
}
