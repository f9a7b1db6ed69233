//! Convolution in three dimensions.

pub(crate) mod reference;

#[cfg(feature = "_own")]
use crate::operators::{Affine, Operators, Parts};
#[cfg(feature = "_own")]
use crate::own::{Own, takes};
use crate::steps::note;
use crate::{Algorithm, Measured};
#[cfg(feature = "_own")]
use burn::backend::Dispatch;
use burn::tensor::Tensor;

/// Convolves (cross-correlates, as every deep-learning library does) with an odd kernel.
///
/// The padding is half the kernel, so that stride 1 keeps the spatial size and stride `s` gives
/// `ceil(size / s)`.
///
/// # Shapes
/// `x` is `[N, Cin, Z, Y, X]`, `weight` `[Cout, Cin, KZ, KY, KX]`, all odd, `bias` `[Cout]`; the
/// result is `[N, Cout, ceil(Z / sz), ceil(Y / sy), ceil(X / sx)]`.
///
/// # Panics
/// When the channel counts disagree or a stride is zero.
///
/// # Deviations
/// The operators of this crate know kernels of 3 and 1 voxels along every axis; larger kernels are left
/// to Burn's operator. Of 3 along some axes and 1 along others, as in `1 × 3 × 3`, the processor's makes
/// 3 along all of them, with zeros beside.
///
/// ```
/// use burn::tensor::{Device, Tensor};
/// let device = Device::flex();
/// let x = Tensor::<5>::ones([1, 1, 4, 4, 6], &device);
/// let weight = Tensor::<5>::ones([2, 1, 3, 3, 3], &device);
/// let bias = Tensor::<1>::zeros([2], &device);
/// assert_eq!(stunet_kernels::conv3d(x, weight, bias, [1, 2, 2]).dims(), [1, 2, 4, 2, 3]);
/// ```
pub fn conv3d(x: Tensor<5>, weight: Tensor<5>, bias: Tensor<1>, stride: [usize; 3]) -> Tensor<5> {
    #[cfg(feature = "_own")]
    if let Some(own) = own_takes(&[&x], &weight, &bias, stride) {
        let (weight, algorithm) = prepare(own, x.dims(), weight, stride);
        note("conv3d", algorithm, x.dims(), Some(weight.dims()));
        return own_conv3d(x, None, weight, bias, stride);
    }
    note("conv3d", Algorithm::Reference, x.dims(), Some(weight.dims()));
    reference::conv3d(x, weight, bias, stride)
}

/// [`conv3d`], for a norm alone to read: with its moments, where the device finds them on the way.
///
/// # Shapes
/// As [`conv3d`].
///
/// # Panics
/// As [`conv3d`].
///
/// # Deviations
/// Where the device finds moments, the gradient of the bias is zero: the norm takes away whatever the bias
/// adds. Elsewhere it is what rounding leaves of that zero.
pub fn conv3d_measured(
    x: Tensor<5>,
    weight: Tensor<5>,
    bias: Tensor<1>,
    stride: [usize; 3],
) -> Measured {
    #[cfg(feature = "_own")]
    if let Some(own) = own_measures(&[&x], &weight, &bias, stride) {
        let (weight, algorithm) = prepare(own, x.dims(), weight, stride);
        note("conv3d", algorithm, x.dims(), Some(weight.dims()));
        return own_measured(x, None, weight, bias, stride);
    }
    conv3d(x, weight, bias, stride).into()
}

/// [`conv3d`] of the concatenation of two tensors along the channels, `first` before `second`.
///
/// On the processor a large convolution of single voxels is written over `first`, if it has as many
/// channels as the result and nobody else holds it.
///
/// # Shapes
/// `first` is `[N, C1, Z, Y, X]`, `second` `[N, C2, Z, Y, X]`, `weight` `[Cout, C1 + C2, K, K, K]`.
///
/// # Panics
/// As [`conv3d`], and when batch or spatial sizes differ.
pub fn conv3d_joined(
    first: Tensor<5>,
    second: Tensor<5>,
    weight: Tensor<5>,
    bias: Tensor<1>,
    stride: [usize; 3],
) -> Tensor<5> {
    let joined = joined_dims(&first, &second);
    #[cfg(feature = "_own")]
    if let Some(own) = own_takes(&[&first, &second], &weight, &bias, stride) {
        let (weight, algorithm) = prepare(own, joined, weight, stride);
        note("conv3d_joined", algorithm, joined, Some(weight.dims()));
        return own_conv3d(first, Some(second), weight, bias, stride);
    }
    note("conv3d_joined", Algorithm::Reference, joined, Some(weight.dims()));
    reference::conv3d_joined(first, second, weight, bias, stride)
}

/// [`conv3d_joined`], for a norm alone to read: see [`conv3d_measured`].
///
/// # Shapes
/// As [`conv3d_joined`].
///
/// # Panics
/// As [`conv3d_joined`].
pub fn conv3d_joined_measured(
    first: Tensor<5>,
    second: Tensor<5>,
    weight: Tensor<5>,
    bias: Tensor<1>,
    stride: [usize; 3],
) -> Measured {
    #[cfg(feature = "_own")]
    if let Some(own) = own_measures(&[&first, &second], &weight, &bias, stride) {
        let joined = joined_dims(&first, &second);
        let (weight, algorithm) = prepare(own, joined, weight, stride);
        note("conv3d_joined", algorithm, joined, Some(weight.dims()));
        return own_measured(first, Some(second), weight, bias, stride);
    }
    conv3d_joined(first, second, weight, bias, stride).into()
}

/// The weight of a convolution, the same values, in the order in memory that the device's operators read
/// it in: what is prepared once need not be rearranged for every forward pass. Tensors of other ranks stay
/// as they are.
///
/// # Shapes
/// `[Cout, Cin, KZ, KY, KX]` in and out.
#[must_use]
pub fn prepared<const D: usize>(weight: Tensor<D>) -> Tensor<D> {
    #[cfg(feature = "gpu")]
    if D == 5 && takes(&weight) == Some(Own::Gpu) && !weight.dims().contains(&0) {
        return Tensor::from_dispatch(Dispatch::stunet_prepared(weight.into_dispatch()));
    }
    weight
}

/// The dimensions of two tensors as if they were one.
fn joined_dims(first: &Tensor<5>, second: &Tensor<5>) -> [usize; 5] {
    let without_channels = |[n, _, z, y, x]: [usize; 5]| [n, z, y, x];
    assert_eq!(
        without_channels(first.dims()),
        without_channels(second.dims()),
        "tensors to be joined differ beyond their channels"
    );
    let mut joined = first.dims();
    joined[1] += second.dims()[1];
    joined
}

/// The convolution by an operator of this crate.
#[cfg(feature = "_own")]
fn own_conv3d(
    first: Tensor<5>,
    second: Option<Tensor<5>>,
    weight: Tensor<5>,
    bias: Tensor<1>,
    stride: [usize; 3],
) -> Tensor<5> {
    let parts = Parts::of(first.into_dispatch(), second.map(Tensor::into_dispatch));
    let (weight, bias) = (weight.into_dispatch(), bias.into_dispatch());
    Tensor::from_dispatch(Dispatch::stunet_conv3d(parts, weight, bias, stride))
}

/// The convolution with its moments.
#[cfg(feature = "_own")]
fn own_measured(
    first: Tensor<5>,
    second: Option<Tensor<5>>,
    weight: Tensor<5>,
    bias: Tensor<1>,
    stride: [usize; 3],
) -> Measured {
    let parts = Parts::of(first.into_dispatch(), second.map(Tensor::into_dispatch));
    let (weight, bias) = (weight.into_dispatch(), bias.into_dispatch());
    let (features, moments) = Dispatch::stunet_conv3d_measured(parts, weight, bias, stride);
    let moments = moments.into_option().map(Tensor::from_dispatch);
    Measured { features: Tensor::from_dispatch(features), moments }
}

/// Whose operator of this crate computes this convolution of the parts of an input.
#[cfg(feature = "_own")]
pub(crate) fn own_takes(
    parts: &[&Tensor<5>],
    weight: &Tensor<5>,
    bias: &Tensor<1>,
    stride: [usize; 3],
) -> Option<Own> {
    let [_, _, kz, ky, kx] = weight.dims();
    let empty = parts.iter().any(|x| x.dims().contains(&0)) || weight.dims().contains(&0);
    let known = [kz, ky, kx].iter().all(|k| matches!(k, 1 | 3));
    let dtype = weight.dtype();
    let alike = bias.dtype() == dtype && parts.iter().all(|x| x.dtype() == dtype);
    let mut own = [takes(weight), takes(bias)].into_iter().chain(parts.iter().map(|x| takes(x)));
    let first = own.next()??;
    let fits = match first {
        #[cfg(feature = "cpu")]
        Own::Cpu => true,
        #[cfg(feature = "gpu")]
        Own::Gpu => {
            !stride.contains(&0)
                && crate::gpu::convolution_fits(parts[0].dims(), weight.dims(), stride)
        }
    };
    let _ = stride;
    (known && fits && alike && !empty && own.all(|other| other == Some(first))).then_some(first)
}

/// Whose operator computes the convolution of a tensor whose voxels are repeated while they are read and of one that
/// lies beside it.
#[cfg(feature = "_own")]
pub(crate) fn own_repeats(
    coarse: &Tensor<5>,
    factor: [usize; 3],
    second: &Tensor<5>,
    (weight, bias): (&Tensor<5>, &Tensor<1>),
) -> Option<Own> {
    let [n, _, z, y, x] = coarse.dims();
    let [batch, _, size @ ..] = second.dims();
    let fits = batch == n && size == [z * factor[0], y * factor[1], x * factor[2]];
    own_measures(&[second, coarse], weight, bias, [1; 3]).filter(|_| fits)
}

/// That convolution.
#[cfg(feature = "_own")]
pub(crate) fn upsampled(
    own: Own,
    (coarse, factor): (Tensor<5>, [usize; 3]),
    second: Tensor<5>,
    (weight, bias): (Tensor<5>, Tensor<1>),
    measured: bool,
) -> Measured {
    let mut joined = second.dims();
    joined[1] += coarse.dims()[1];
    let (weight, algorithm) = prepare(own, joined, weight, [1; 3]);
    note("conv3d_joined", algorithm, joined, Some(weight.dims()));
    let conv = Affine { weight: weight.into_dispatch(), bias: bias.into_dispatch() };
    let (coarse, second) = (coarse.into_dispatch(), second.into_dispatch());
    let (features, moments) =
        Dispatch::stunet_upsampled_conv3d(coarse, factor, second, conv, measured);
    let moments = moments.into_option().map(Tensor::from_dispatch);
    Measured { features: Tensor::from_dispatch(features), moments }
}

/// [`own_takes`], where the operator also finds moments: on the processor only without gradients, whose backward
/// pass reads planes.
#[cfg(feature = "_own")]
pub(crate) fn own_measures(
    parts: &[&Tensor<5>],
    weight: &Tensor<5>,
    bias: &Tensor<1>,
    stride: [usize; 3],
) -> Option<Own> {
    own_takes(parts, weight, bias, stride).filter(|own| match own {
        #[cfg(feature = "cpu")]
        Own::Cpu => {
            !weight.device().is_autodiff() && !parts.iter().any(|x| x.device().is_autodiff())
        }
        #[cfg(feature = "gpu")]
        Own::Gpu => true,
    })
}

/// The weight as the operator takes it, and how the convolution is computed.
#[cfg(feature = "_own")]
pub(crate) fn prepare(
    own: Own,
    input: [usize; 5],
    weight: Tensor<5>,
    stride: [usize; 3],
) -> (Tensor<5>, Algorithm) {
    let _ = (input, stride);
    match own {
        #[cfg(feature = "cpu")]
        Own::Cpu => {
            let weight = cubic(weight);
            let algorithm = crate::cpu::convolution_algorithm(input, weight.dims(), stride);
            (weight, algorithm)
        }
        #[cfg(feature = "gpu")]
        Own::Gpu => (weight, Algorithm::Tiled),
    }
}

/// A kernel of 3 voxels along some axes and 1 along others, with zeros beside: 3 along all of them.
#[cfg(feature = "cpu")]
fn cubic(weight: Tensor<5>) -> Tensor<5> {
    let [.., kz, ky, kx] = weight.dims();
    if kz == ky && ky == kx {
        return weight;
    }
    (2..5).fold(weight, |weight, axis| match weight.dims()[axis] {
        3 => weight,
        _ => Tensor::cat(vec![weight.zeros_like(), weight.clone(), weight.zeros_like()], axis),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, TensorData, Tolerance};

    /// Sum over a 3-neighbourhood, by hand, on an asymmetric volume.
    #[test]
    fn matches_hand_computed_sums() {
        let device = Device::flex();
        let [z, y, x] = [3usize, 4, 5];
        let values: Vec<f32> = (0..z * y * x).map(|i| (i * i % 17) as f32).collect();
        let at = |k: i64, j: i64, i: i64| -> f32 {
            let inside = |v: i64, n: usize| (0..n as i64).contains(&v);
            if inside(k, z) && inside(j, y) && inside(i, x) {
                values[((k as usize) * y + j as usize) * x + i as usize]
            } else {
                0.0
            }
        };
        let mut expected: Vec<f32> = Vec::new();
        for k in 0..z as i64 {
            for j in (0..y as i64).step_by(2) {
                for i in (0..x as i64).step_by(2) {
                    let mut sum = 0.5;
                    for n in 0..27 {
                        sum += at(k + n / 9 - 1, j + n / 3 % 3 - 1, i + n % 3 - 1) * (n + 1) as f32;
                    }
                    expected.push(sum);
                }
            }
        }
        let weight: Vec<f32> = (1..=27).map(|v| v as f32).collect();
        let found = conv3d(
            Tensor::from_data(TensorData::new(values.clone(), [1, 1, z, y, x]), &device),
            Tensor::from_data(TensorData::new(weight, [1, 1, 3, 3, 3]), &device),
            Tensor::from_data([0.5f32], &device),
            [1, 2, 2],
        );
        let expected = TensorData::new(expected, [1, 1, 3, 2, 3]);
        found.into_data().assert_approx_eq::<f32>(&expected, Tolerance::default());
    }

    /// Kernels that are flat along some axes, with strides: values and gradients of Burn's operator.
    #[test]
    fn flat_kernels_are_burns() {
        let random = |shape: [usize; 5], device: &Device| {
            let count: usize = shape.iter().product();
            let values: Vec<f32> =
                (0..count).map(|i| ((i * 7919 % 1013) as f32 / 506.0 - 1.0).sin()).collect();
            Tensor::<5>::from_data(TensorData::new(values, shape), device)
        };
        for (kernel, stride) in [
            ([1, 3, 3], [1; 3]),
            ([1, 3, 3], [1, 2, 2]),
            ([3, 1, 3], [2, 1, 2]),
            ([1, 1, 3], [1, 1, 2]),
            ([1, 5, 5], [1, 2, 2]),
        ] {
            let run =
                |operator: &dyn Fn(Tensor<5>, Tensor<5>, Tensor<1>, [usize; 3]) -> Tensor<5>| {
                    let device = Device::flex().autodiff();
                    let [z, y, w] = kernel;
                    let x = random([1, 3, 6, 8, 10], &device).require_grad();
                    let weight = random([4, 3, z, y, w], &device).require_grad();
                    let bias = Tensor::<1>::from_data([1.0f32, 0.5, -0.25, 2.0], &device);
                    let out = operator(x.clone(), weight.clone(), bias, stride);
                    let grads = (out.clone() * random(out.dims(), &device)).sum().backward();
                    let gradients = [x.grad(&grads).unwrap(), weight.grad(&grads).unwrap()];
                    [out, gradients[0].clone(), gradients[1].clone()].map(Tensor::into_data)
                };
            let (found, expected) = (run(&conv3d), run(&reference::conv3d));
            for (found, expected) in found.iter().zip(&expected) {
                found.assert_approx_eq::<f32>(expected, Tolerance::default());
            }
        }
    }
}
