//! Handing a gradient that was computed by hand to autodiff.

use burn::tensor::Tensor;

/// A scalar whose gradient with respect to `tensor` is `gradient`; its own value means nothing.
///
/// This is how a loss hands over a gradient that it has computed itself: the backward pass of the
/// scalar delivers it, and nothing of the size of the tensor is computed or stored besides.
///
/// # Shapes
/// Both `[N, C, Z, Y, X]`; `gradient` without autodiff.
///
/// # Panics
/// When the shapes differ.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// let device = Device::flex();
/// let leaf = Tensor::<5>::ones([1, 1, 2, 2, 2], &device.clone().autodiff()).require_grad();
/// let gradient = Tensor::<5>::ones([1, 1, 2, 2, 2], &device) * 3.0;
/// let grads = stunet_kernels::with_gradient(leaf.clone() * 2.0, gradient).backward();
/// assert_eq!(leaf.grad(&grads).unwrap().sum().into_scalar::<f32>(), 8.0 * 6.0);
/// ```
pub fn with_gradient(tensor: Tensor<5>, gradient: Tensor<5>) -> Tensor<1> {
    assert_eq!(gradient.dims(), tensor.dims(), "a gradient of another shape");
    #[cfg(feature = "_own")]
    if crate::own::takes(&tensor).is_some() && tensor.dtype() == gradient.dtype() {
        use crate::operators::Operators;
        use burn::backend::Dispatch;
        let gradient = if tensor.device().is_autodiff() { gradient.autodiff() } else { gradient };
        let (tensor, gradient) = (tensor.into_dispatch(), gradient.into_dispatch());
        return Tensor::from_dispatch(Dispatch::stunet_with_gradient(tensor, gradient));
    }
    product(tensor, gradient)
}

/// An inner product, taken as a product of matrices: forward it reads both operands and stores a
/// number per channel, backward it writes one tensor of the size of `tensor`. The obvious
/// `(tensor * gradient).sum()` stores a product of that size forward as well, and expands ones to it
/// backward.
fn product(tensor: Tensor<5>, gradient: Tensor<5>) -> Tensor<1> {
    let [n, c, z, y, x] = tensor.dims();
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
        check(with_gradient, 1.0);
        check(product, 1.0);
    }

    /// As where losses are added with weights.
    #[test]
    fn what_comes_from_above_scales_it() {
        check(|tensor, gradient| with_gradient(tensor, gradient) * 0.25, 0.25);
    }

    fn check(injected: impl Fn(Tensor<5>, Tensor<5>) -> Tensor<1>, factor: f64) {
        let device = Device::flex();
        let shape = [2, 3, 4, 5, 7];
        let gradient = Tensor::<5>::random(shape, Distribution::Uniform(-1.0, 1.0), &device);
        let leaf = Tensor::<5>::ones(shape, &device.clone().autodiff()).require_grad();
        // Through an operation before it, as a network would be.
        let grads = injected(leaf.clone() * 2.0, gradient.clone()).backward();
        let found = leaf.grad(&grads).unwrap().into_data();
        let expected = (gradient * (2.0 * factor)).into_data();
        found.assert_approx_eq::<f32>(&expected, Tolerance::absolute(0.0));
    }
}
