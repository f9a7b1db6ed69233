//! How numbers are stored, and what they are read as.

use half::f16;

/// How a number is stored, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    /// Half precision.
    Half,
    /// Single precision.
    Single,
    /// Double precision.
    Double,
    /// A byte from -128 on.
    Int8,
    /// A byte from 0 on.
    UInt8,
    /// Two bytes, signed.
    Int16,
    /// Two bytes, from 0 on.
    UInt16,
    /// Four bytes, signed.
    Int32,
    /// Eight bytes, signed.
    Int64,
}

impl Number {
    /// By its name in NumPy, such as `<f4`; none for other numbers, or for other orders of bytes.
    pub fn of(name: &str) -> Option<Self> {
        Some(match name {
            "<f2" => Self::Half,
            "<f4" => Self::Single,
            "<f8" => Self::Double,
            "|i1" | "<i1" => Self::Int8,
            "|u1" | "<u1" => Self::UInt8,
            "<i2" => Self::Int16,
            "<u2" => Self::UInt16,
            "<i4" => Self::Int32,
            "<i8" => Self::Int64,
            _ => return None,
        })
    }

    /// Bytes of a number.
    pub fn bytes(self) -> usize {
        match self {
            Self::Int8 | Self::UInt8 => 1,
            Self::Half | Self::Int16 | Self::UInt16 => 2,
            Self::Single | Self::Int32 => 4,
            Self::Double | Self::Int64 => 8,
        }
    }

    /// True where numbers have a fraction.
    pub fn is_float(self) -> bool {
        matches!(self, Self::Half | Self::Single | Self::Double)
    }

    /// Reads as many numbers as `out` has room for.
    ///
    /// # Errors
    /// A value that `T` does not have.
    pub fn decode<T: Cell>(self, bytes: &[u8], out: &mut [T]) -> Result<(), f64> {
        match self {
            Self::Half => each(bytes, out, |b| f16::from_le_bytes(b).to_f64()),
            Self::Single => each(bytes, out, |b| f64::from(f32::from_le_bytes(b))),
            Self::Double => each(bytes, out, f64::from_le_bytes),
            Self::Int8 => each(bytes, out, |b| f64::from(i8::from_le_bytes(b))),
            Self::UInt8 => each(bytes, out, |b| f64::from(u8::from_le_bytes(b))),
            Self::Int16 => each(bytes, out, |b| f64::from(i16::from_le_bytes(b))),
            Self::UInt16 => each(bytes, out, |b| f64::from(u16::from_le_bytes(b))),
            Self::Int32 => each(bytes, out, |b| f64::from(i32::from_le_bytes(b))),
            Self::Int64 => each(bytes, out, |b| i64::from_le_bytes(b) as f64),
        }
    }
}

fn each<T: Cell, const N: usize>(
    bytes: &[u8],
    out: &mut [T],
    number: impl Fn([u8; N]) -> f64,
) -> Result<(), f64> {
    for (out, bytes) in out.iter_mut().zip(bytes.as_chunks::<N>().0) {
        *out = T::of(number(*bytes))?;
    }
    Ok(())
}

/// What numbers are read as: intensities (`f32`, `f64`) or labels (`i16`).
pub trait Cell: Copy + Default + Send + Sync {
    /// The value, or the same number as an error where there is none such.
    ///
    /// # Errors
    /// A label that is no whole number of 16 bits.
    fn of(number: f64) -> Result<Self, f64>;
}

impl Cell for f32 {
    #[inline(always)]
    fn of(number: f64) -> Result<Self, f64> {
        Ok(number as Self)
    }
}

impl Cell for f64 {
    #[inline(always)]
    fn of(number: f64) -> Result<Self, f64> {
        Ok(number)
    }
}

impl Cell for i16 {
    #[inline(always)]
    fn of(number: f64) -> Result<Self, f64> {
        let label = number as Self;
        if f64::from(label) == number { Ok(label) } else { Err(number) }
    }
}
