//! Arrays in NumPy's format: their header, and boxes of their values.

use super::{Cell, Number, Source, bad_value, wrong};
use crate::error::Result;
use ndarray::Array4;
use std::io::{Error, ErrorKind, Read};

/// Longest header that is read.
const MAX_HEADER: usize = 1 << 16;

/// What the header of an array says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NpyHeader {
    /// How numbers are stored.
    pub number: Number,
    /// Length along every axis, the last one fastest.
    pub shape: Vec<usize>,
}

fn bad(expected: &str, found: impl std::fmt::Display) -> Error {
    let found: String = found.to_string().chars().take(120).collect();
    Error::new(ErrorKind::InvalidData, format!("expected {expected}, found {found}"))
}

/// Reads the header; the values follow.
///
/// # Errors
/// When it is none, is of rows in Fortran's order, or of numbers that are not read here.
///
/// # Source
/// `numpy.lib.format`, versions 1 to 3.
pub fn header(from: &mut impl Read) -> std::io::Result<NpyHeader> {
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
    let number = descr
        .and_then(Number::of)
        .ok_or_else(|| bad("little-endian numbers such as '<f4' or '<i2'", &text))?;
    if !after("fortran_order").is_some_and(|rest| rest.starts_with("False")) {
        return Err(bad("rows in C's order ('fortran_order': False)", &text));
    }
    let shape = after("shape").and_then(|rest| rest.strip_prefix('(')?.split(')').next());
    let shape: Option<Vec<usize>> = shape.and_then(|shape| {
        shape.split(',').map(str::trim).filter(|n| !n.is_empty()).map(|n| n.parse().ok()).collect()
    });
    let shape = shape.ok_or_else(|| bad("a shape", &text))?;
    let values = shape.iter().try_fold(number.bytes(), |product, n| product.checked_mul(*n));
    if shape.contains(&0) || values.is_none_or(|bytes| bytes > isize::MAX as usize) {
        return Err(bad("axes of a volume", format!("{shape:?}")));
    }
    Ok(NpyHeader { number, shape })
}

/// The header that NumPy writes for an array in single precision.
pub fn header_of(shape: &[usize]) -> Vec<u8> {
    let axes: Vec<String> = shape.iter().map(ToString::to_string).collect();
    let comma = if axes.len() == 1 { "," } else { "" };
    let axes = format!("({}{comma})", axes.join(", "));
    let mut text = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {axes}, }}");
    const PREFIX: usize = 10;
    let length = (PREFIX + text.len() + 1).next_multiple_of(64);
    text.extend(std::iter::repeat_n(' ', length - PREFIX - text.len() - 1));
    text.push('\n');
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend_from_slice(&(text.len() as u16).to_le_bytes());
    header.extend_from_slice(text.as_bytes());
    header
}

/// An array of four axes in a file.
#[derive(Debug)]
pub(super) struct Npy {
    source: Source,
    number: Number,
    shape: [usize; 4],
    /// Where the values begin.
    values: u64,
}

impl Npy {
    pub fn open(source: Source) -> Result<Self> {
        let mut start = Vec::new();
        source.read(0, source.length.min(MAX_HEADER as u64 + 12) as usize, &mut start)?;
        let mut rest = &start[..];
        let found = header(&mut rest).map_err(|e| match e.kind() {
            ErrorKind::UnexpectedEof => {
                let found = format!("{} bytes: truncated", source.length);
                wrong("an array of NumPy", found)
            }
            _ => wrong("an array of NumPy that can be read", e.to_string()),
        })?;
        let values = (start.len() - rest.len()) as u64;
        let shape: [usize; 4] = found.shape[..].try_into().map_err(|_| {
            wrong("an array of four axes: channel, z, y, x", format!("shape {:?}", found.shape))
        })?;
        // The product was checked with the header.
        let expected = values + (shape.iter().product::<usize>() * found.number.bytes()) as u64;
        if source.length != expected {
            let found = format!("{}: truncated or damaged", source.length);
            return Err(wrong(format!("{expected} bytes for shape {shape:?}"), found));
        }
        Ok(Self { source, number: found.number, shape, values })
    }

    pub fn shape(&self) -> [usize; 4] {
        self.shape
    }

    pub fn number(&self) -> Number {
        self.number
    }

    /// Reads a box that lies within the array: of every plane the rows from first to last.
    pub fn read<T: Cell>(&self, first: [usize; 4], out: &mut Array4<T>) -> Result<()> {
        let [_, depth, height, width] = self.shape;
        let (_, _, rows, columns) = out.dim();
        let each = self.number.bytes();
        let mut bytes = Vec::new();
        for (c, mut channel) in out.outer_iter_mut().enumerate() {
            for (z, mut plane) in channel.outer_iter_mut().enumerate() {
                let row = ((first[0] + c) * depth + first[1] + z) * height + first[2];
                let begin = self.values + ((row * width + first[3]) * each) as u64;
                let count = ((rows - 1) * width + columns) * each;
                self.source.read(begin, count, &mut bytes)?;
                for (y, mut line) in plane.outer_iter_mut().enumerate() {
                    let line = line.as_slice_mut().expect("a fresh array is contiguous");
                    let from = &bytes[y * width * each..][..columns * each];
                    self.number.decode(from, line).map_err(bad_value)?;
                }
            }
        }
        Ok(())
    }
}
