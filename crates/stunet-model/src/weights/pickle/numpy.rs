//! The little of `numpy` that plans and checkpoints contain.

use super::error::{StepResult, unexpected};
use super::value::{Array, Elements, Value};

/// A `numpy` dtype: kind, bytes per element, byte order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dtype {
    kind: Kind,
    size: usize,
    big_endian: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Bool,
    Int,
    UInt,
    Float,
    Bytes,
    Text,
}

/// Longest text or byte string of a fixed-width dtype, in bytes.
const MAX_TEXT: usize = 1 << 20;

impl Dtype {
    /// Reads names such as `f8`, `i8`, `b1`, `<U5`.
    pub(super) fn parse(name: &str) -> StepResult<Self> {
        let bad = || unexpected("a numeric or text numpy dtype", format!("`{name:.32}`"));
        let (big_endian, plain) = match name.as_bytes() {
            [b'>', ..] => (true, &name[1..]),
            [b'<' | b'=' | b'|', ..] => (false, &name[1..]),
            _ => (false, name),
        };
        let kind = match plain.as_bytes().first() {
            Some(b'b' | b'?') => Kind::Bool,
            Some(b'i') => Kind::Int,
            Some(b'u') => Kind::UInt,
            Some(b'f') => Kind::Float,
            Some(b'S') => Kind::Bytes,
            Some(b'U') => Kind::Text,
            _ => return Err(bad()),
        };
        let count = match &plain[1..] {
            "" if kind == Kind::Bool => 1,
            digits => digits.parse::<usize>().map_err(|_| bad())?,
        };
        let (size, fits) = match kind {
            Kind::Bool => (count, count == 1),
            Kind::Int | Kind::UInt => (count, matches!(count, 1 | 2 | 4 | 8)),
            Kind::Float => (count, matches!(count, 2 | 4 | 8)),
            Kind::Bytes => (count, count <= MAX_TEXT),
            Kind::Text => (count.saturating_mul(4), count <= MAX_TEXT / 4),
        };
        if !fits {
            return Err(bad());
        }
        Ok(Self { kind, size, big_endian })
    }

    /// Applies the byte order that a dtype's pickled state names.
    pub(super) fn with_byte_order(self, order: &str) -> StepResult<Self> {
        let big_endian = match order {
            "<" | "|" | "=" => false,
            ">" => true,
            other => return Err(unexpected("a byte order", format!("`{other:.8}`"))),
        };
        Ok(Self { big_endian, ..self })
    }

    /// The name `numpy` gives it.
    pub(super) fn name(self) -> String {
        let (letter, count) = match self.kind {
            Kind::Bool => ('b', self.size),
            Kind::Int => ('i', self.size),
            Kind::UInt => ('u', self.size),
            Kind::Float => ('f', self.size),
            Kind::Bytes => ('S', self.size),
            Kind::Text => ('U', self.size / 4),
        };
        let order = if self.big_endian { '>' } else { '<' };
        format!("{order}{letter}{count}")
    }

    /// Bytes per element.
    pub(super) fn size(self) -> usize {
        self.size
    }

    /// True for texts and byte strings.
    pub(super) fn is_text(self) -> bool {
        matches!(self.kind, Kind::Bytes | Kind::Text)
    }

    /// One element.
    pub(super) fn scalar(self, bytes: &[u8]) -> StepResult<Value> {
        if bytes.len() != self.size {
            let found = format!("{} bytes for {} per element", bytes.len(), self.size);
            return Err(unexpected("the bytes of one numpy scalar", found));
        }
        let mut wide = [0u8; 8];
        if matches!(self.kind, Kind::Int | Kind::UInt | Kind::Float) {
            wide[..self.size].copy_from_slice(bytes);
            if self.big_endian {
                wide[..self.size].reverse();
            }
        }
        let unsigned = u64::from_le_bytes(wide);
        Ok(match self.kind {
            Kind::Bool => Value::Bool(bytes[0] != 0),
            Kind::UInt => Value::Int(unsigned.into()),
            Kind::Int => {
                let unused = 64 - 8 * self.size as u32;
                Value::Int((((unsigned << unused) as i64) >> unused).into())
            }
            Kind::Float => Value::Float(match self.size {
                2 => half::f16::from_bits(unsigned as u16).to_f64(),
                4 => f32::from_bits(unsigned as u32).into(),
                _ => f64::from_bits(unsigned),
            }),
            Kind::Bytes => {
                let end = bytes.iter().rposition(|&b| b != 0).map_or(0, |i| i + 1);
                Value::Bytes(bytes[..end].to_vec())
            }
            Kind::Text => Value::Str(self.text(bytes)?),
        })
    }

    fn text(self, bytes: &[u8]) -> StepResult<String> {
        let mut text = String::new();
        for code in bytes.as_chunks::<4>().0 {
            let code =
                if self.big_endian { u32::from_be_bytes(*code) } else { u32::from_le_bytes(*code) };
            text.push(char::from_u32(code).ok_or_else(|| {
                unexpected("Unicode text in a numpy array", format!("code {code:#x}"))
            })?);
        }
        // numpy pads with zeros and drops them on reading.
        text.truncate(text.trim_end_matches('\0').len());
        Ok(text)
    }

    /// All elements of an array, row-major.
    pub(super) fn array(self, shape: &[usize], fortran: bool, bytes: &[u8]) -> StepResult<Array> {
        let count = count(shape)?;
        if count.checked_mul(self.size) != Some(bytes.len()) || self.size == 0 {
            return Err(unexpected(
                "as many bytes as a numpy array's shape and dtype ask for",
                format!("{} bytes for shape {shape:?}", bytes.len()),
            ));
        }
        let elements = bytes.chunks_exact(self.size).map(|b| self.scalar(b));
        let values = match self.kind {
            Kind::Float => Elements::Floats(arranged(shape, fortran, elements, |v| match v {
                Value::Float(v) => Some(v),
                _ => None,
            })?),
            Kind::Int | Kind::UInt if !(self.kind == Kind::UInt && self.size == 8) => {
                Elements::Ints(arranged(shape, fortran, elements, |v| v.as_i64())?)
            }
            _ => Elements::Values(arranged(shape, fortran, elements, Some)?),
        };
        Ok(Array { shape: shape.to_vec(), values })
    }
}

/// Elements in row-major order; those that `kind` does not take are refused.
fn arranged<T: Clone>(
    shape: &[usize],
    fortran: bool,
    elements: impl Iterator<Item = StepResult<Value>>,
    kind: impl Fn(Value) -> Option<T>,
) -> StepResult<Vec<T>> {
    let bad = || unexpected("elements of one kind in a numpy array", "others");
    let stored =
        elements.map(|element| kind(element?).ok_or_else(bad)).collect::<StepResult<Vec<T>>>()?;
    Ok(if fortran && shape.len() > 1 { row_major(shape, &stored) } else { stored })
}

/// Number of elements; a product that overflows is refused.
pub(super) fn count(shape: &[usize]) -> StepResult<usize> {
    shape
        .iter()
        .try_fold(1usize, |n, &l| n.checked_mul(l))
        .ok_or_else(|| unexpected("a shape that fits in memory", format!("{shape:?}")))
}

/// Elements of an array and lists around them; saturates.
///
/// An axis of length 0 ends the lists, not those before it.
pub(super) fn num_values(shape: &[usize]) -> usize {
    let levels = shape.iter().scan(1usize, |lists, &length| {
        *lists = lists.saturating_mul(length);
        Some(*lists)
    });
    levels.fold(1, usize::saturating_add)
}

fn row_major<T: Clone>(shape: &[usize], stored: &[T]) -> Vec<T> {
    let mut index = vec![0usize; shape.len()];
    let mut out = Vec::with_capacity(stored.len());
    for _ in 0..stored.len() {
        let at = index.iter().zip(shape).rev().fold(0, |at, (i, l)| at * l + i);
        out.push(stored[at].clone());
        for (i, l) in index.iter_mut().zip(shape).rev() {
            *i += 1;
            if *i < *l {
                break;
            }
            *i = 0;
        }
    }
    out
}
