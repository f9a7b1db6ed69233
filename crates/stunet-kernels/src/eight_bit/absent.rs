//! The types without operators for the processor: nobody has a value of them.
#![allow(
    missing_docs,
    clippy::missing_docs_in_private_items,
    reason = "as the types that there are"
)]

use super::norm::EightBitNorm;
use burn::tensor::TensorData;

const ABSENT: &str =
    "operators for the processor are not compiled in, and nothing asks for eight bits";

/// Has no value.
enum Never {}

macro_rules! absent {
    ($residual:ident: $($name:ident)*) => {
        $(pub struct $name(Never);)*

        pub enum $residual<'a> {
            Values(&'a EightBitValues),
            Convolved { conv: &'a EightBitConv, parts: &'a [&'a EightBitCodes], stride: [usize; 3] },
            Image { values: &'a [f32], weight: &'a [f32], bias: &'a [f32] },
        }
    };
}

absent!(EightBitResidual: EightBitCodes EightBitConv EightBitSums EightBitValues);

impl EightBitCodes {
    pub fn of_normed(_: &[f32], _: [usize; 3], _: &EightBitNorm) -> Self {
        unreachable!("{ABSENT}")
    }

    pub fn size(&self) -> [usize; 3] {
        match self.0 {}
    }

    pub fn is_finite(&self) -> bool {
        match self.0 {}
    }
}

impl EightBitConv {
    pub fn new(_: &[f32], _: &[f32], _: &[usize], _: usize) -> Self {
        unreachable!("{ABSENT}")
    }

    pub fn sums(&self, _: &[&EightBitCodes], _: [usize; 3]) -> EightBitSums {
        match self.0 {}
    }

    pub fn values(&self, _: &[&EightBitCodes]) -> EightBitValues {
        match self.0 {}
    }

    pub fn outputs(&self) -> usize {
        match self.0 {}
    }

    pub fn bytes(&self) -> u64 {
        match self.0 {}
    }
}

impl EightBitSums {
    pub fn normed(&self, _: &EightBitNorm) -> EightBitCodes {
        match self.0 {}
    }

    pub fn normed_with(self, _: &EightBitNorm, _: &EightBitResidual<'_>) -> EightBitValues {
        match self.0 {}
    }

    pub fn normed_planes(&self, _: &EightBitNorm, _: &EightBitResidual<'_>) -> TensorData {
        match self.0 {}
    }
}

impl EightBitValues {
    pub fn size(&self) -> [usize; 3] {
        match self.0 {}
    }

    pub fn codes(&self, _: [usize; 3]) -> EightBitCodes {
        match self.0 {}
    }
}
