//! The sum of the squares of all values of several tensors.

use burn::tensor::Tensor;

/// The sum of the squares of all values; none where no operator of this crate computes it: it is written for GPUs alone.
///
/// One kernel for each tensor, which is read once, and one wait for the device. Squares are added in single precision over
/// some thousand values and in double precision over all of them, always in the same order.
///
/// # Shapes
/// Tensors of any length, without autodiff, of one device.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// let x = Tensor::<1>::ones([5], &Device::flex());
/// assert!(stunet_kernels::sum_of_squares(&[x]).is_none());
/// ```
#[must_use]
pub fn sum_of_squares(tensors: &[Tensor<1>]) -> Option<f64> {
    #[cfg(feature = "gpu")]
    if crate::gpu::squares_of(tensors) {
        return Some(crate::gpu::sum_of_squares(tensors));
    }
    let _ = tensors;
    None
}
