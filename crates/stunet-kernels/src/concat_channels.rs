//! Concatenation along the channel axis.

use burn::tensor::Tensor;

/// Concatenates two tensors along the channel axis, `first` before `second`.
///
/// # Shapes
/// `[N, C1, Z, Y, X]` and `[N, C2, Z, Y, X]` give `[N, C1 + C2, Z, Y, X]`.
///
/// # Panics
/// When batch or spatial sizes differ.
pub fn concat_channels(first: Tensor<5>, second: Tensor<5>) -> Tensor<5> {
    Tensor::cat(vec![first, second], 1)
}
