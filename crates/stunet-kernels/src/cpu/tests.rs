//! The operators through Burn, forward and every gradient, against the reference compositions in
//! double precision.

mod fused;

use crate::own::takes;
use crate::{Norm, reference};
use burn::tensor::{DType, Device, Tensor, TensorData};
use proptest::prelude::*;

/// Values that look random and need no generator: the same for the same seed.
fn data<const D: usize>(seed: u64, shape: [usize; D]) -> TensorData {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1 << 23) as f32 - 1.0
    };
    TensorData::new((0..shape.iter().product()).map(|_| next()).collect::<Vec<f32>>(), shape)
}

/// The arguments of an operator: volumes and vectors.
type Arguments<'a> = (&'a [Tensor<5>], &'a [Tensor<1>]);

/// The result and every gradient of the sum of the result, weighted.
fn run(
    volumes: &[TensorData],
    vectors: &[TensorData],
    dtype: DType,
    operator: &dyn Fn(Arguments<'_>) -> Tensor<5>,
) -> Vec<Vec<f64>> {
    let device = Device::flex().autodiff();
    let tensors =
        |data: &TensorData| Tensor::<5>::from_data(data.clone(), (&device, dtype)).require_grad();
    let volumes: Vec<_> = volumes.iter().map(tensors).collect();
    let vectors: Vec<_> = vectors
        .iter()
        .map(|data| Tensor::<1>::from_data(data.clone(), (&device, dtype)).require_grad())
        .collect();
    let y = operator((&volumes, &vectors));
    let weights = Tensor::<5>::from_data(data(99, y.dims()), (&device, dtype));
    let grads = (y.clone() * weights).sum().backward();
    let list = |data: TensorData| data.convert::<f64>().try_to_vec::<f64>().unwrap();
    let mut found = vec![list(y.into_data())];
    found.extend(volumes.iter().map(|v| list(v.grad(&grads).unwrap().into_data())));
    found.extend(vectors.iter().map(|v| list(v.grad(&grads).unwrap().into_data())));
    found
}

/// At most 1e-5 of the largest value away.
fn check(
    volumes: &[TensorData],
    vectors: &[TensorData],
    operator: &dyn Fn(Arguments<'_>) -> Tensor<5>,
    truth: &dyn Fn(Arguments<'_>) -> Tensor<5>,
) {
    check_above([1e-3; 2], volumes, vectors, operator, truth);
}

/// At most 1e-5 of the largest value away, or, where all values are smaller, of the first of `least`
/// for results and volumes, of the second for vectors.
fn check_above(
    least: [f64; 2],
    volumes: &[TensorData],
    vectors: &[TensorData],
    operator: &dyn Fn(Arguments<'_>) -> Tensor<5>,
    truth: &dyn Fn(Arguments<'_>) -> Tensor<5>,
) {
    let found = run(volumes, vectors, DType::F32, operator);
    let expected = run(volumes, vectors, DType::F64, truth);
    assert_eq!(found.len(), expected.len());
    for (which, (found, expected)) in found.iter().zip(&expected).enumerate() {
        let least = least[usize::from(which > volumes.len())];
        let scale = expected.iter().fold(least, |max: f64, v| max.max(v.abs()));
        assert_eq!(found.len(), expected.len());
        for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!(
                (found - expected).abs() <= 1e-5 * scale,
                "result or gradient {which}[{index}] is {found}, expected {expected}"
            );
        }
    }
}

fn norm(vectors: &[Tensor<1>]) -> Norm {
    Norm { weight: vectors[0].clone(), bias: vectors[1].clone(), epsilon: 1e-5 }
}

fn check_norm(shape: [usize; 5], slope: f64) {
    let vectors = [data(2, [shape[1]]), data(3, [shape[1]])];
    // Two voxels become -1 and 1 whatever they are: their gradient is what epsilon leaves of a
    // cancellation between terms of order one, and as exact as those. Gradients of weight and bias are
    // sums of such terms over all voxels, of which little may be left.
    let least = if shape[2..].iter().product::<usize>() == 2 { [1.0; 2] } else { [1e-3, 0.1] };
    check_above(
        least,
        &[data(1, shape)],
        &vectors,
        &|(x, p)| crate::norm_activation(x[0].clone(), norm(p), slope),
        &|(x, p)| reference::norm_activation(x[0].clone(), norm(p), slope),
    );
    check_above(
        least,
        &[data(1, shape)],
        &vectors,
        &|(x, p)| crate::instance_norm(x[0].clone(), norm(p)),
        &|(x, p)| reference::instance_norm(x[0].clone(), norm(p)),
    );
    check_above(
        least,
        &[data(1, shape), data(4, shape)],
        &vectors,
        &|(x, p)| crate::norm_residual_activation(x[0].clone(), norm(p), x[1].clone(), slope),
        &|(x, p)| reference::norm_residual_activation(x[0].clone(), norm(p), x[1].clone(), slope),
    );
}

fn check_conv(shape: [usize; 5], outputs: usize, kernel: usize, stride: [usize; 3]) {
    let weight = data(2, [outputs, shape[1], kernel, kernel, kernel]);
    check(
        &[data(1, shape), weight],
        &[data(3, [outputs])],
        &|(x, b)| crate::conv3d(x[0].clone(), x[1].clone(), b[0].clone(), stride),
        &|(x, b)| reference::conv3d(x[0].clone(), x[1].clone(), b[0].clone(), stride),
    );
}

#[test]
fn joined() {
    for kernel in [1, 3] {
        let weight = data(2, [5, 7, kernel, kernel, kernel]);
        let volumes = [data(1, [2, 3, 4, 5, 6]), data(4, [2, 4, 4, 5, 6]), weight];
        let with = |f: fn(Tensor<5>, Tensor<5>, Tensor<5>, Tensor<1>, [usize; 3]) -> Tensor<5>| {
            move |(x, b): Arguments<'_>| {
                f(x[0].clone(), x[1].clone(), x[2].clone(), b[0].clone(), [1, 2, 1])
            }
        };
        let bias = [data(3, [5])];
        check(&volumes, &bias, &with(crate::conv3d_joined), &with(reference::conv3d_joined));
    }
}

/// A norm with a convolution beside it: results and all gradients.
#[test]
fn convolved_residuals() {
    for (shape, inputs, kernel, stride) in [
        ([2, 5, 4, 5, 6], 3, 1, [1; 3]),
        ([1, 16, 3, 4, 5], 8, 1, [2, 1, 2]),
        ([1, 4, 5, 4, 3], 4, 3, [1; 3]),
    ] {
        let [n, c, z, y, x] = shape;
        let beside = [n, inputs, z * stride[0], y * stride[1], x * stride[2]];
        let weight = data(2, [c, inputs, kernel, kernel, kernel]);
        let take =
            |x: &[Tensor<5>], p: &[Tensor<1>]| (norm(p), x[1].clone(), x[2].clone(), p[2].clone());
        check_above(
            [1e-3, 0.1],
            &[data(1, shape), data(4, beside), weight],
            &[data(5, [c]), data(6, [c]), data(7, [c])],
            &|(x, p)| {
                let (norm, beside, weight, bias) = take(x, p);
                let residual = crate::Residual::convolved(beside, weight, bias, stride);
                let x = crate::Measured::from(x[0].clone());
                x.norm_residual_activation(norm, residual, 0.01)
            },
            &|(x, p)| {
                let (norm, beside, weight, bias) = take(x, p);
                let residual = reference::conv3d(beside, weight, bias, stride);
                reference::norm_residual_activation(x[0].clone(), norm, residual, 0.01)
            },
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_norm(
        shape in [1usize..3, 1usize..7, 1usize..5, 2usize..6, 1usize..9],
        slope in prop_oneof![Just(0.01), Just(1.0), Just(0.0), Just(-0.5)],
    ) {
        check_norm(shape, slope);
    }

    #[test]
    fn any_convolution(
        shape in [1usize..3, 1usize..20, 1usize..6, 1usize..7, 1usize..12],
        outputs in 1usize..20,
        kernel in prop_oneof![Just(1usize), Just(3), Just(5)],
        stride in [1usize..3, 1usize..3, 1usize..3],
    ) {
        check_conv(shape, outputs, kernel, stride);
    }

    #[test]
    fn any_upsampling(
        shape in [1usize..3, 1usize..4, 1usize..4, 1usize..5, 1usize..6],
        factor in [1usize..4, 1usize..3, 1usize..4],
    ) {
        check(
            &[data(1, shape)],
            &[],
            &|(x, _)| crate::upsample_nearest(x[0].clone(), factor),
            &|(x, _)| reference::upsample_nearest(x[0].clone(), factor),
        );
    }
}

/// A channel far from zero: what a careless mean or a one-pass variance loses.
#[test]
fn norm_of_a_large_offset() {
    let shape = [1usize, 2, 8, 9, 10];
    let values = data(1, shape).try_to_vec::<f32>().unwrap();
    let x = TensorData::new(values.iter().map(|v| 1000.0 + v).collect::<Vec<f32>>(), shape);
    let vectors = [data(2, [2]), data(3, [2])];
    let operator = |(x, p): Arguments<'_>| crate::instance_norm(x[0].clone(), norm(p));
    let truth = |(x, p): Arguments<'_>| reference::instance_norm(x[0].clone(), norm(p));
    check(&[x], &vectors, &operator, &truth);
}

#[test]
fn norm_of_two_voxels() {
    check_norm([1, 1, 1, 2, 1], 0.01);
}

/// Views with strides and offsets are read as what they show.
#[test]
fn views() {
    let device = Device::flex();
    let x = Tensor::<5>::from_data(data(1, [2, 6, 5, 4, 3]), &device);
    let view = x.permute([1, 0, 4, 3, 2]).slice([1..5, 0..2, 0..3, 1..4, 0..5]);
    let copy = Tensor::<5>::from_data(view.clone().into_data(), &device);
    let weight = Tensor::<5>::from_data(data(2, [3, 2, 3, 3, 3]), &device);
    let vector = Tensor::<1>::from_data(data(3, [3]), &device);
    let parameters = [vector.clone().narrow(0, 0, 2), vector.clone().narrow(0, 1, 2)];
    let all = |x: Tensor<5>| {
        let y = crate::conv3d(x.clone(), weight.clone(), vector.clone(), [1; 3]);
        let up = crate::upsample_nearest(x.clone(), [1, 2, 1]);
        let n = crate::norm_residual_activation(x.clone(), norm(&parameters), x, 0.1);
        [y.into_data(), up.into_data(), n.into_data()]
    };
    assert_eq!(all(view), all(copy));
}

/// The operators leave the tensors they were given as they were.
#[test]
fn inputs_stay_as_they_were() {
    let device = Device::flex();
    let x = Tensor::<5>::from_data(data(1, [1, 2, 3, 4, 5]), &device);
    let vectors = [Tensor::<1>::ones([2], &device), Tensor::<1>::ones([2], &device)];
    let y = crate::norm_activation(x.clone(), norm(&vectors), 0.1);
    assert_eq!(x.into_data(), data(1, [1, 2, 3, 4, 5]));
    assert!(y.into_data() != data(1, [1, 2, 3, 4, 5]));
}

/// A convolution of single voxels may take its first part's memory: only where nobody looks.
#[test]
fn written_over_the_first_part() {
    let device = Device::flex();
    let tensor = |seed, shape| Tensor::<5>::from_data(data(seed, shape), &device);
    let (volume, weight) = ([2, 4, 26, 27, 28], tensor(3, [4, 7, 1, 1, 1]));
    let call = |first: Tensor<5>| {
        let bias = Tensor::<1>::from_data(data(4, [4]), &device);
        crate::conv3d_joined(first, tensor(2, [2, 3, 26, 27, 28]), weight.clone(), bias, [1; 3])
    };
    let held = tensor(1, volume);
    let beside = call(held.clone()).into_data();
    assert_eq!(held.into_data(), data(1, volume));
    assert_eq!(call(tensor(1, volume)).into_data(), beside);
    let view = tensor(1, [2, 5, 26, 27, 28]).narrow(1, 1, 4);
    assert_eq!(call(view.clone()).into_data(), call(view.add_scalar(0.0)).into_data());
}

/// Which path a tensor takes.
#[test]
fn takes_f32_of_flex_alone() {
    let device = Device::flex();
    let tensor = |dtype| Tensor::<1>::from_data([1f32], (&device, dtype));
    assert!(takes(&tensor(DType::F32)).is_some());
    assert!(takes(&Tensor::<1>::ones([1], &device.clone().autodiff())).is_some());
    for dtype in [DType::F64, DType::F16, DType::BF16] {
        assert!(takes(&tensor(dtype)).is_none(), "{dtype:?}");
    }
}
