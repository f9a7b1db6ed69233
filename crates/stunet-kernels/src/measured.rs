//! What a convolution gives to a norm.

use burn::tensor::Tensor;

/// Features that a norm alone will read, and what it need not read again.
///
/// A convolution finds the moments of its result while that is still in registers or in a cache, which saves the norm a
/// pass over memory: on a GPU, and on the processor where no gradient is wanted and small kernels are filtered. There the
/// channels of a voxel may lie side by side in memory, as the norm's next reader takes them.
#[derive(Debug)]
#[must_use = "a norm reads it"]
pub struct Measured {
    pub(crate) features: Tensor<5>,
    /// Of pieces of the features, as the device's norm takes them.
    #[cfg_attr(not(feature = "_own"), allow(dead_code))] // Burn's norm takes none.
    pub(crate) moments: Option<Tensor<4>>,
}

impl Measured {
    /// The dimensions of the features, `[N, C, Z, Y, X]`.
    #[must_use]
    pub fn dims(&self) -> [usize; 5] {
        self.features.dims()
    }
}

impl From<Tensor<5>> for Measured {
    /// Features of which nothing is known.
    fn from(features: Tensor<5>) -> Self {
        Self { features, moments: None }
    }
}
