//! Transposed convolution whose blocks do not overlap.

pub(crate) mod reference;

use crate::Algorithm;
use crate::steps::note;
use burn::tensor::Tensor;

/// Transposed convolution whose stride is its kernel: every voxel becomes a block of voxels.
///
/// # Shapes
/// `x` is `[N, Cin, Z, Y, X]`, `weight` `[Cin, Cout, KZ, KY, KX]`, `bias` `[Cout]`; the result is
/// `[N, Cout, KZ Z, KY Y, KX X]`.
///
/// # Panics
/// When the channel counts disagree.
///
/// # Deviations
/// On the processor it is a convolution of single voxels, with an output for every voxel of the
/// block, whose outputs are then interleaved: the same products in the same sums.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// let device = Device::flex();
/// let x = Tensor::<5>::ones([1, 2, 4, 4, 6], &device);
/// let weight = Tensor::<5>::ones([2, 3, 1, 2, 2], &device);
/// let bias = Tensor::<1>::zeros([3], &device);
/// assert_eq!(stunet_kernels::conv_transpose3d(x, weight, bias).dims(), [1, 3, 4, 8, 12]);
/// ```
pub fn conv_transpose3d(x: Tensor<5>, weight: Tensor<5>, bias: Tensor<1>) -> Tensor<5> {
    #[cfg(feature = "_own")]
    if !x.dims().contains(&0) && !weight.dims().contains(&0) && own_takes(&x, &weight, &bias) {
        return interleaved(x, weight, bias);
    }
    note("conv_transpose3d", Algorithm::Reference, x.dims(), Some(weight.dims()));
    reference::conv_transpose3d(x, weight, bias)
}

/// Whether operators of this crate compute all of it.
#[cfg(feature = "_own")]
fn own_takes(x: &Tensor<5>, weight: &Tensor<5>, bias: &Tensor<1>) -> bool {
    use crate::own::takes;
    takes(x).is_some_and(|own| takes(weight) == Some(own) && takes(bias) == Some(own))
}

#[cfg(feature = "_own")]
fn interleaved(x: Tensor<5>, weight: Tensor<5>, bias: Tensor<1>) -> Tensor<5> {
    use crate::operators::Operators;
    use burn::backend::Dispatch;
    let [inputs, outputs, kz, ky, kx] = weight.dims();
    let voxels = kz * ky * kx;
    // Every output of a block is an output channel; those of one channel lie together.
    let weight = weight.permute([1, 2, 3, 4, 0]).reshape([outputs * voxels, inputs, 1, 1, 1]);
    let bias = bias.reshape([outputs, 1]).expand([outputs, voxels]).reshape([outputs * voxels]);
    let channels = crate::conv3d(x, weight, bias, [1; 3]);
    if voxels == 1 {
        return channels;
    }
    note("interleave", Algorithm::Fused, channels.dims(), None);
    Tensor::from_dispatch(Dispatch::stunet_interleave(channels.into_dispatch(), [kz, ky, kx]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData, Tolerance};

    fn random(shape: [usize; 5], device: &Device) -> Tensor<5> {
        let count: usize = shape.iter().product();
        let values: Vec<f32> =
            (0..count).map(|i| ((i * 7919 % 1013) as f32 / 506.0 - 1.0).sin()).collect();
        Tensor::from_data(TensorData::new(values, shape), device)
    }

    /// Each voxel of a block by hand: the sum over channels of voxel times weight.
    #[test]
    fn blocks_by_hand() {
        let device = Device::flex();
        let (x, weight) = (random([1, 2, 2, 3, 2], &device), random([2, 3, 1, 2, 3], &device));
        let bias = Tensor::<1>::from_data([0.5f32, -1.0, 2.0], &device);
        let found = conv_transpose3d(x.clone(), weight.clone(), bias);
        assert_eq!(found.dims(), [1, 3, 2, 6, 6]);
        let [found, x, weight] =
            [found, x, weight].map(|t| t.into_data().try_to_vec::<f32>().unwrap());
        for (at, value) in found.iter().enumerate() {
            let (channel, z, row, column) = (at / 72, at / 36 % 2, at / 6 % 6, at % 6);
            let expected: f32 = (0..2)
                .map(|c| {
                    let voxel = ((c * 2 + z) * 3 + row / 2) * 2 + column / 3;
                    let tap = ((c * 3 + channel) * 2 + row % 2) * 3 + column % 3;
                    x[voxel] * weight[tap]
                })
                .sum::<f32>()
                + [0.5, -1.0, 2.0][channel];
            assert!((value - expected).abs() < 1e-5, "{at}: {value} {expected}");
        }
    }

    #[test]
    fn values_and_gradients_are_burns() {
        for kernel in [[2, 2, 2], [1, 2, 2], [1, 1, 1], [3, 1, 2]] {
            let run = |operator: &dyn Fn(Tensor<5>, Tensor<5>, Tensor<1>) -> Tensor<5>| {
                let device = Device::flex().autodiff();
                let [z, y, w] = kernel;
                let x = random([2, 3, 4, 5, 6], &device).require_grad();
                let weight = random([3, 4, z, y, w], &device).require_grad();
                let bias =
                    Tensor::<1>::from_data([1.0f32, 0.5, -0.25, 2.0], &device).require_grad();
                let out = operator(x.clone(), weight.clone(), bias.clone());
                let grads = (out.clone() * random(out.dims(), &device)).sum().backward();
                [
                    out.into_data(),
                    x.grad(&grads).unwrap().into_data(),
                    weight.grad(&grads).unwrap().into_data(),
                    bias.grad(&grads).unwrap().into_data(),
                ]
            };
            let found = run(&conv_transpose3d);
            let expected = run(&reference::conv_transpose3d);
            for (found, expected) in found.iter().zip(&expected) {
                found.assert_approx_eq::<f32>(expected, Tolerance::default());
            }
        }
    }
}
