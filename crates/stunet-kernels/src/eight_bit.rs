//! Convolutions of eight-bit numbers on the processor, for prediction.
//!
//! A network is put together of these: [`EightBitConv`] makes [`EightBitSums`] of [`EightBitCodes`]; with an
//! [`EightBitNorm`] they become codes again, or with an [`EightBitResidual`] [`EightBitValues`], which are kept where
//! something is added to them and become codes as well. How: see the implementation, `cpu/eight_bit.rs`.
//!
//! Without the feature `cpu` there are no values of these types, and no way to make one.

#[cfg(not(feature = "cpu"))]
mod absent;
pub(crate) mod norm;

#[cfg(not(feature = "cpu"))]
pub use absent::{EightBitCodes, EightBitConv, EightBitResidual, EightBitSums, EightBitValues};

#[cfg(feature = "cpu")]
pub use crate::cpu::eight_bit::{
    EightBitCodes, EightBitConv, EightBitResidual, EightBitSums, EightBitValues,
};
pub use norm::EightBitNorm;
