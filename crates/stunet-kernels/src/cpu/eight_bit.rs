//! Convolutions of eight-bit numbers, and what lies between them, for prediction.
//!
//! Values are `u8` with a scale and a code for 0 of each channel ([`EightBitCodes`]), weights `i8` with a scale of each
//! output ([`EightBitConv`]); the scales of the input are multiplied into the weights. Sums of products are exact, in
//! 32 bits. A convolution writes them in half precision, with what a norm asks of them ([`EightBitSums`]): mean,
//! variance and range need no pass of their own, and as norm and activation are monotone, the range of what follows them
//! is known before it is computed. Channels lie innermost, so that four inputs of a voxel are four bytes beside each
//! other, and sixteen outputs are a vector.
//!
//! What a border of codes of 0 adds to a sum is one number for each output.

#[allow(clippy::needless_range_loop, reason = "indices name voxels and vectors")]
mod conv;
mod lanes;
#[allow(clippy::needless_range_loop, reason = "as above")]
mod norm;
#[cfg(test)]
mod tests;
#[allow(clippy::needless_range_loop, reason = "as above")]
mod volume;
mod weights;

pub use conv::EightBitSums;
pub use norm::EightBitResidual;
pub use volume::{EightBitCodes, EightBitValues};
pub use weights::EightBitConv;

use super::tensor;
use crate::eight_bit::norm::EightBitNorm;
use burn::tensor::TensorData;
use lanes::DotProducts;

/// Whether the machine has instructions for them.
pub(crate) fn has_instructions() -> bool {
    DotProducts::best() != DotProducts::Plain
}

impl EightBitSums {
    /// [`normed_with`](Self::normed_with) in single precision, `[1, C, z, y, x]`, of as many channels as the norm has.
    ///
    /// # Panics
    /// As [`normed_with`](Self::normed_with).
    pub fn normed_planes(
        &self,
        norm: &EightBitNorm,
        residual: &EightBitResidual<'_>,
    ) -> TensorData {
        let [z, y, x] = self.size;
        let output = self.planes_by(DotProducts::best(), norm, residual);
        tensor::data(output, [1, norm.weight.len(), z, y, x])
    }
}
