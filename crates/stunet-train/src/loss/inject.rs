//! Handing a gradient that was computed by hand to autodiff.

use burn::tensor::Tensor;

/// A scalar whose gradient with respect to `tensor` is `gradient`; its own value means nothing.
///
/// The scalar is an inner product, taken as a product of matrices: forward it reads both operands
/// and stores a number per channel, backward it writes one tensor of the size of `tensor`. The
/// obvious `(tensor * gradient).sum()` stores a product of that size forward as well, and expands
/// ones to it backward.
///
/// # Shapes
/// Both `[N, C, Z, Y, X]`; `gradient` without autodiff.
pub(crate) fn with_gradient(tensor: Tensor<5>, gradient: Tensor<5>) -> Tensor<1> {
    let [n, c, z, y, x] = tensor.dims();
    assert_eq!(gradient.dims(), [n, c, z, y, x], "a gradient of another shape");
    let row: Tensor<3> = tensor.reshape([n * c, 1, z * y * x]);
    let column: Tensor<3> = gradient.reshape([n * c, z * y * x, 1]);
    // The device's own dtype may be wider than the operands': the terms of all scales are added.
    row.matmul(column).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, Distribution, Tolerance};

    #[test]
    fn the_gradient_arrives_unchanged() {
        let device = Device::flex();
        let shape = [2, 3, 4, 5, 7];
        let gradient = Tensor::<5>::random(shape, Distribution::Uniform(-1.0, 1.0), &device);
        let leaf = Tensor::<5>::ones(shape, &device.clone().autodiff()).require_grad();
        // Through an operation before it, as a network would be.
        let grads = with_gradient(leaf.clone() * 2.0, gradient.clone()).backward();
        let found = leaf.grad(&grads).unwrap().into_data();
        let expected = (gradient * 2.0).into_data();
        found.assert_approx_eq::<f32>(&expected, Tolerance::absolute(0.0));
    }
}
