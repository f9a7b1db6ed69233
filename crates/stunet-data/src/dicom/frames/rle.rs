//! Run lengths, as DICOM packs a frame with them: a plane of bytes after the other, the highest first.
//!
//! # Source
//! DICOM PS3.5, annex G. Not the adapter of `dicom-transfer-syntax-registry`, which panics on damaged
//! frames and allocates what their first bytes say.

use super::super::header::Format;
use crate::error::{DataError, Result};

/// Bytes of the table of planes.
const TABLE: usize = 64;

/// The cells of a frame.
pub(super) fn decode(packed: &[u8], format: &Format) -> Result<Vec<u32>> {
    let (count, planes) = (format.rows * format.columns, usize::from(format.bits_allocated / 8));
    let bad = |what: String| DataError::BadPixels { codec: "RLE", reason: what };
    let word = |index: usize| -> Option<usize> {
        let raw = packed.get(4 * index..4 * index + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(raw)).ok()
    };
    if packed.len() < TABLE || word(0) != Some(planes) {
        let found = word(0).map_or("nothing".to_owned(), |n| n.to_string());
        return Err(bad(format!("expected {planes} plane(s) of bytes, found {found}")));
    }
    let mut cells = vec![0u32; count];
    for plane in 0..planes {
        let begin = word(1 + plane).unwrap_or(0);
        let end = match plane + 1 < planes {
            true => word(2 + plane).unwrap_or(0),
            false => packed.len(),
        };
        let segment = packed.get(begin..end).filter(|_| begin >= TABLE);
        let segment =
            segment.ok_or_else(|| bad(format!("plane {plane} lies outside the frame")))?;
        let found = unpack(segment, &mut cells);
        if found < count {
            return Err(bad(format!("expected {count} bytes in plane {plane}, found {found}")));
        }
    }
    Ok(cells)
}

/// Appends a byte to every cell, and returns how many had one.
fn unpack(mut packed: &[u8], cells: &mut [u32]) -> usize {
    let mut filled = 0;
    let mut put = |byte: u8, filled: &mut usize| {
        if let Some(cell) = cells.get_mut(*filled) {
            *cell = *cell << 8 | u32::from(byte);
            *filled += 1;
        }
    };
    while let Some((&head, rest)) = packed.split_first() {
        packed = match (head as i8, rest.first()) {
            (length @ 0.., _) => {
                let literal = &rest[..rest.len().min(length as usize + 1)];
                literal.iter().for_each(|byte| put(*byte, &mut filled));
                &rest[literal.len()..]
            }
            (-128, _) => rest,
            (length, Some(byte)) => {
                (0..1 - i32::from(length)).for_each(|_| put(*byte, &mut filled));
                &rest[1..]
            }
            (_, None) => rest,
        };
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_and_literals() {
        let mut cells = [0; 8];
        // Three literals, a byte that says nothing, a run of four, and one literal more than asked.
        let packed = [2, 1, 2, 3, 0x80, 0xfd, 9, 3, 7, 7, 7, 7];
        assert_eq!(unpack(&packed, &mut cells), 8);
        assert_eq!(cells, [1, 2, 3, 9, 9, 9, 9, 7]);
        assert_eq!(unpack(&[0xff], &mut cells), 0);
        assert_eq!(unpack(&[5, 1], &mut cells), 1);
    }
}
