//! The header of an array in NumPy's format, and its values.

use half::f16;
use std::io::{Error, ErrorKind, Read, Result};

/// Longest header that is read.
const MAX_HEADER: usize = 1 << 16;

/// How numbers are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    Half,
    Single,
    Double,
}

impl Number {
    /// By its name in NumPy, such as `<f4`.
    pub fn of(name: &str) -> Option<Self> {
        match name {
            "<f2" => Some(Self::Half),
            "<f4" => Some(Self::Single),
            "<f8" => Some(Self::Double),
            _ => None,
        }
    }

    pub fn bytes(self) -> usize {
        match self {
            Self::Half => 2,
            Self::Single => 4,
            Self::Double => 8,
        }
    }

    /// Appends the numbers that these bytes are.
    pub fn decode(self, bytes: &[u8], into: &mut Vec<f64>) {
        match self {
            Self::Half => into
                .extend(bytes.as_chunks::<2>().0.iter().map(|b| f64::from(f16::from_le_bytes(*b)))),
            Self::Single => into
                .extend(bytes.as_chunks::<4>().0.iter().map(|b| f64::from(f32::from_le_bytes(*b)))),
            Self::Double => {
                into.extend(bytes.as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)));
            }
        }
    }
}

/// What the header says of an array of four axes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub number: Number,
    /// `[C, z, y, x]`.
    pub shape: [usize; 4],
}

fn bad(expected: &str, found: impl std::fmt::Display) -> Error {
    let found: String = found.to_string().chars().take(120).collect();
    Error::new(ErrorKind::InvalidData, format!("expected {expected}, found {found}"))
}

/// Reads the header; the values follow.
///
/// # Source
/// `numpy.lib.format`, versions 1 to 3.
pub(super) fn header(from: &mut impl Read) -> Result<Header> {
    let mut start = [0; 8];
    from.read_exact(&mut start)?;
    if &start[..6] != b"\x93NUMPY" {
        return Err(bad("an array of NumPy", "other bytes"));
    }
    let length = if start[6] == 1 {
        let mut bytes = [0; 2];
        from.read_exact(&mut bytes)?;
        usize::from(u16::from_le_bytes(bytes))
    } else {
        let mut bytes = [0; 4];
        from.read_exact(&mut bytes)?;
        u32::from_le_bytes(bytes) as usize
    };
    if length > MAX_HEADER {
        return Err(bad("a header of at most 65536 bytes", length));
    }
    let mut text = vec![0; length];
    from.read_exact(&mut text)?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let after = |key: &str| {
        let (_, rest) = text.split_once(&format!("'{key}':"))?;
        Some(rest.trim_start())
    };
    let descr = after("descr").and_then(|rest| rest.strip_prefix('\'')?.split('\'').next());
    let number =
        descr.and_then(Number::of).ok_or_else(|| bad("floats ('<f4', '<f2', '<f8')", &text))?;
    if !after("fortran_order").is_some_and(|rest| rest.starts_with("False")) {
        return Err(bad("rows in C's order ('fortran_order': False)", &text));
    }
    let shape = after("shape").and_then(|rest| rest.strip_prefix('(')?.split(')').next());
    let shape: Option<Vec<usize>> = shape.and_then(|shape| {
        shape.split(',').map(str::trim).filter(|n| !n.is_empty()).map(|n| n.parse().ok()).collect()
    });
    let shape: [usize; 4] = shape
        .and_then(|shape| shape.try_into().ok())
        .ok_or_else(|| bad("four axes: class, z, y, x", &text))?;
    let values = shape.iter().try_fold(number.bytes(), |product, n| product.checked_mul(*n));
    if shape.contains(&0) || values.is_none_or(|bytes| bytes > isize::MAX as usize) {
        return Err(bad("axes of a volume", format!("{shape:?}")));
    }
    Ok(Header { number, shape })
}

/// The header that NumPy writes for such an array in single precision.
pub(super) fn header_of([c, z, y, x]: [usize; 4]) -> Vec<u8> {
    let mut text =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({c}, {z}, {y}, {x}), }}");
    const PREFIX: usize = 10;
    let length = (PREFIX + text.len() + 1).next_multiple_of(64);
    text.extend(std::iter::repeat_n(' ', length - PREFIX - text.len() - 1));
    text.push('\n');
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend_from_slice(&(text.len() as u16).to_le_bytes());
    header.extend_from_slice(text.as_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Vec<u8> {
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((text.len() as u16).to_le_bytes());
        bytes.extend(text.as_bytes());
        bytes
    }

    #[test]
    fn headers() {
        let shape = [3, 4, 5, 6];
        let expected = Header { number: Number::Single, shape };
        assert_eq!(header(&mut &header_of(shape)[..]).unwrap(), expected);
        let half = "{'shape': (3, 4, 5, 6), 'fortran_order': False, 'descr': '<f2'}";
        let expected = Header { number: Number::Half, shape };
        assert_eq!(header(&mut &file(half)[..]).unwrap(), expected);
        let refused = |text: &str, words: &str| {
            let message = header(&mut &file(text)[..]).unwrap_err().to_string();
            assert!(message.contains(words), "{message}");
        };
        refused(&half.replace("False", "True"), "C's order");
        refused(&half.replace("<f2", "<i4"), "floats");
        refused(&half.replace(", 6", ""), "four axes");
        refused(&half.replace('6', "0"), "axes of a volume");
        refused(&half.replace('6', "9223372036854775807"), "axes of a volume");
        refused("", "floats");
        assert!(header(&mut &b"\x93NUMPX\x01\x00aaaa"[..]).is_err());
        assert!(header(&mut &b"\x93NUMPY\x02\x00\xff\xff\xff\xff"[..]).is_err());
        assert!(header(&mut &b"\x93NU"[..]).is_err());
    }

    #[test]
    fn numbers() {
        let mut found = Vec::new();
        Number::Half.decode(&f16::from_f32(0.5).to_le_bytes(), &mut found);
        Number::Single.decode(&0.25f32.to_le_bytes(), &mut found);
        Number::Double.decode(&0.125f64.to_le_bytes(), &mut found);
        assert_eq!(found, [0.5, 0.25, 0.125]);
    }
}
