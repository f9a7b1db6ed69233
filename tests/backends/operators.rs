//! Every operator of `stunet-kernels` on a GPU against the processor's: results and every gradient, on
//! shapes that no table was made for. What kernels write to begins as NaN here: debug assertions are on.

use burn::tensor::{DType, Device, Tensor, TensorData, Tolerance};
use stunet::kernels::{
    Algorithm, InUse, Measured, Norm, Residual, SgdStep, Upsampled, conv_transpose3d, conv3d,
    conv3d_joined, conv3d_joined_measured, conv3d_measured, in_use, instance_norm, norm_activation,
    norm_residual_activation, prepared, sgd_step, steps, sum_of_squares, upsample_nearest,
};
use stunet_testing::{prng, say};

/// Of the largest value, and at least of this.
const BOUND: f32 = 2e-5;

/// The arguments of an operator: volumes and vectors.
type Arguments<'a> = (&'a [Tensor<5>], &'a [Tensor<1>]);
/// An operator of them.
type Operator<'a> = &'a dyn Fn(Arguments<'_>) -> Tensor<5>;

fn data<const D: usize>(id: usize, shape: [usize; D]) -> TensorData {
    let values = prng::uniform(91, id as u64, shape.iter().product());
    TensorData::new(values, shape)
}

/// The result, and the gradients of its weighted sum.
fn run(
    volumes: &[[usize; 5]],
    vectors: &[usize],
    operator: Operator<'_>,
    device: &Device,
) -> Vec<Vec<f32>> {
    let device = device.clone().autodiff();
    let volumes: Vec<_> = volumes
        .iter()
        .enumerate()
        .map(|(id, shape)| Tensor::<5>::from_data(data(id, *shape), &device).require_grad())
        .collect();
    let vectors: Vec<_> = vectors
        .iter()
        .enumerate()
        .map(|(id, len)| Tensor::<1>::from_data(data(10 + id, [*len]), &device).require_grad())
        .collect();
    let y = operator((&volumes, &vectors));
    let weights = Tensor::<5>::from_data(data(20, y.dims()), &device);
    let grads = (y.clone() * weights).sum().backward();
    let list = |data: TensorData| data.try_to_vec::<f32>().unwrap();
    let mut found = vec![list(y.into_data())];
    found.extend(volumes.iter().map(|v| list(v.grad(&grads).unwrap().into_data())));
    found.extend(vectors.iter().map(|v| list(v.grad(&grads).unwrap().into_data())));
    found
}

/// Own operators, the processor's values, and twice the same bits.
fn check(name: &str, volumes: &[[usize; 5]], vectors: &[usize], of: Operator<'_>, device: &Device) {
    check_above(1e-2, name, volumes, vectors, of, device);
}

fn check_above(
    least: f32,
    name: &str,
    volumes: &[[usize; 5]],
    vectors: &[usize],
    operator: Operator<'_>,
    device: &Device,
) {
    let (found, calls) = steps(|| run(volumes, vectors, operator, device));
    let strangers: Vec<_> =
        calls.iter().filter(|call| call.algorithm == Algorithm::Reference).collect();
    assert!(!calls.is_empty() && strangers.is_empty(), "{name} is not our own: {strangers:?}");
    let cpu = stunet::device::parse("cpu").unwrap();
    let expected = run(volumes, vectors, operator, &cpu);
    for (which, (found, expected)) in found.iter().zip(&expected).enumerate() {
        assert_eq!(found.len(), expected.len(), "{name}: {which}");
        let scale = expected.iter().fold(least, |max, v| max.max(v.abs()));
        for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
            assert!(
                (found - expected).abs() <= BOUND * scale,
                "{name} {volumes:?}: result or gradient {which}[{index}] is {found}, expected \
                 {expected}, of {scale}"
            );
        }
    }
    assert!(found == run(volumes, vectors, operator, device), "{name}: other bits the second time");
}

/// Input, outputs, kernel, stride.
type Convolution = ([usize; 5], usize, [usize; 3], [usize; 3]);

const CONVOLUTIONS: [Convolution; 14] = [
    ([2, 1, 5, 6, 7], 3, [3; 3], [1; 3]),
    ([1, 2, 4, 5, 9], 5, [3; 3], [1, 1, 2]),
    ([2, 5, 6, 7, 9], 3, [3; 3], [2; 3]),
    ([1, 5, 3, 4, 5], 105, [1; 3], [1; 3]),
    ([1, 3, 3, 5, 9], 105, [3; 3], [1; 3]),
    ([1, 16, 6, 5, 9], 32, [3; 3], [1; 3]),
    ([1, 20, 9, 8, 7], 24, [3; 3], [1, 2, 2]),
    ([2, 4, 5, 5, 5], 8, [1; 3], [2; 3]),
    ([1, 3, 4, 6, 5], 4, [1, 3, 3], [1, 2, 2]),
    ([1, 6, 5, 4, 10], 20, [3, 1, 1], [1; 3]),
    ([1, 4, 3, 4, 11], 4, [1, 1, 3], [1, 1, 2]),
    ([1, 2, 7, 8, 17], 2, [3; 3], [1, 3, 4]),
    ([1, 36, 4, 4, 4], 68, [3; 3], [1; 3]),
    ([1, 1, 1, 1, 1], 1, [3; 3], [2; 3]),
];

pub fn convolutions(device: &Device) {
    for (input, outputs, kernel, stride) in CONVOLUTIONS {
        let [kz, ky, kx] = kernel;
        let weight = [outputs, input[1], kz, ky, kx];
        let name = format!("conv3d {outputs} {kernel:?} {stride:?}");
        check(
            &name,
            &[input, weight],
            &[outputs],
            &|(x, b)| conv3d(x[0].clone(), x[1].clone(), b[0].clone(), stride),
            device,
        );
    }
}

pub fn joined(device: &Device) {
    for (first, second, outputs, kernel, stride) in [
        ([2, 3, 4, 5, 6], 4, 5, 3, [1, 2, 1]),
        ([1, 8, 5, 4, 9], 12, 16, 3, [1; 3]),
        ([1, 5, 3, 4, 5], 8, 4, 1, [1; 3]),
        ([1, 17, 3, 4, 5], 3, 40, 1, [1; 3]),
    ] {
        let mut other = first;
        other[1] = second;
        let weight = [outputs, first[1] + second, kernel, kernel, kernel];
        let join = |(x, b): Arguments<'_>| {
            conv3d_joined(x[0].clone(), x[1].clone(), x[2].clone(), b[0].clone(), stride)
        };
        check("conv3d_joined", &[first, other, weight], &[outputs], &join, device);
    }
    // Without gradients the first is repeated while it is read, by any factor.
    let tensor = |id, shape| Tensor::<5>::from_data(data(id, shape), device);
    for (kernel, factor, c) in [(3, [2; 3], 4), (3, [1, 2, 3], 3), (1, [2, 2, 1], 8)] {
        let [fz, fy, fx] = factor;
        let (coarse, beside) =
            (tensor(1, [2, c, 3, 4, 3]), tensor(2, [2, 4, 3 * fz, 4 * fy, 3 * fx]));
        let weight = tensor(3, [8, c + 4, kernel, kernel, kernel]);
        let vectors = [4, 5, 6].map(|id| Tensor::<1>::from_data(data(id, [8]), device));
        let both = |up: Upsampled| {
            let (weight, bias) = (weight.clone(), vectors[0].clone());
            let plain = up.clone().conv3d_joined(beside.clone(), weight.clone(), bias.clone());
            let normed = up.conv3d_joined_measured(beside.clone(), weight, bias);
            [plain, normed.norm_activation(norm(&vectors[1..]), 0.01)].map(Tensor::into_data)
        };
        let found = both(Upsampled::new(coarse.clone(), factor));
        let expected = both(upsample_nearest(coarse, factor).into());
        assert_eq!(found, expected, "{kernel} {factor:?}");
    }
}

pub fn transposed(device: &Device) {
    for kernel in [[2, 2, 2], [1, 2, 2], [1, 1, 1], [3, 1, 2]] {
        let [z, y, x] = kernel;
        let transpose =
            |(x, b): Arguments<'_>| conv_transpose3d(x[0].clone(), x[1].clone(), b[0].clone());
        let volumes = [[2, 3, 4, 5, 6], [3, 4, z, y, x]];
        check("conv_transpose3d", &volumes, &[4], &transpose, device);
    }
}

fn norm(vectors: &[Tensor<1>]) -> Norm {
    Norm { weight: vectors[0].clone(), bias: vectors[1].clone(), epsilon: 1e-5 }
}

pub fn norms(device: &Device) {
    for (shape, slope) in [
        ([2, 5, 3, 4, 5], 0.01),
        ([1, 16, 9, 8, 7], 0.01),
        ([2, 105, 2, 3, 4], 0.2),
        ([1, 3, 20, 21, 22], 1.5),
        ([1, 4, 3, 4, 5], 0.0),
        ([1, 40, 30, 11, 13], 0.01),
        ([1, 1, 1, 2, 1], 0.01),
    ] {
        let (c, is_relu) = (shape[1], slope == 0.0);
        // Two voxels become -1 and 1: their gradient is what epsilon leaves of a cancellation.
        let least = if shape[2..].iter().product::<usize>() == 2 { 1.0 } else { 0.1 };
        check_above(
            least,
            "norm_activation",
            &[shape],
            &[c, c],
            &|(x, p)| norm_activation(x[0].clone(), norm(p), slope),
            device,
        );
        if is_relu {
            continue;
        }
        check_above(
            least,
            "norm_residual_activation",
            &[shape, shape],
            &[c, c],
            &|(x, p)| norm_residual_activation(x[0].clone(), norm(p), x[1].clone(), slope),
            device,
        );
    }
    let alone = |(x, p): Arguments<'_>| instance_norm(x[0].clone(), norm(p));
    check("instance_norm", &[[2, 3, 4, 5, 6]], &[3, 3], &alone, device);
    // A channel far from zero: what sums of squares lose.
    let far = |(x, p): Arguments<'_>| instance_norm(x[0].clone() + 100.0, norm(p));
    let (found, expected) = (
        run(&[[1, 2, 8, 9, 10]], &[2, 2], &far, device),
        run(&[[1, 2, 8, 9, 10]], &[2, 2], &far, &stunet::device::parse("cpu").unwrap()),
    );
    let worst = found[0].iter().zip(&expected[0]).fold(0.0f32, |d, (a, b)| d.max((a - b).abs()));
    // The last digit of a value near 100 is 8e-6.
    assert!(worst < 1e-4, "a norm of values near 100 is {worst} off");
}

/// A convolution and the norm that alone reads it, as in a block; with weights in the device's order.
pub fn measured(device: &Device) {
    for (input, outputs, kernel, stride, slope) in [
        ([2, 1, 5, 6, 7], 5, [3; 3], [1; 3], 0.01),
        ([1, 8, 9, 10, 13], 16, [3; 3], [1, 2, 2], 0.01),
        ([2, 16, 4, 4, 4], 32, [3; 3], [1; 3], 0.2),
        ([1, 4, 5, 6, 7], 6, [1, 3, 3], [1; 3], 0.01),
        // Too little shared memory for moments: the norm reads them itself.
        ([1, 2, 7, 8, 30], 3, [3; 3], [1, 3, 4], 0.01),
    ] {
        let [kz, ky, kx] = kernel;
        let weight = [outputs, input[1], kz, ky, kx];
        let vectors = [outputs; 3];
        let block = |(x, v): Arguments<'_>| {
            let weight = prepared(x[1].clone());
            let y = conv3d_measured(x[0].clone(), weight, v[0].clone(), stride);
            y.norm_activation(norm(&v[1..]), slope)
        };
        let name = format!("conv3d_measured {outputs} {kernel:?} {stride:?}");
        check_above(1.0, &name, &[input, weight], &vectors, &block, device);
    }
    let join = |(x, v): Arguments<'_>| {
        let [first, second, weight, residual] = [0, 1, 2, 3].map(|index: usize| x[index].clone());
        let y = conv3d_joined_measured(first, second, weight, v[0].clone(), [1; 3]);
        y.norm_residual_activation(norm(&v[1..]), residual, 0.01)
    };
    let volumes = [[1, 3, 5, 6, 9], [1, 5, 5, 6, 9], [7, 8, 3, 3, 3], [1, 7, 5, 6, 9]];
    check_above(1.0, "conv3d_joined_measured", &volumes, &[7; 3], &join, device);
    // What the convolution found on the way is what the norm would have read.
    let tensor = |id, shape| Tensor::<5>::from_data(data(id, shape), device);
    let vectors = [1, 2, 3].map(|id| Tensor::<1>::from_data(data(id, [16]), device));
    let (x, weight) = (tensor(1, [2, 8, 6, 7, 9]), tensor(2, [16, 8, 3, 3, 3]));
    let normed = |y: Measured| y.norm_activation(norm(&vectors[1..]), 0.01).into_data();
    let bias = vectors[0].clone();
    let found = normed(conv3d_measured(x.clone(), weight.clone(), bias.clone(), [1; 3]));
    let expected = normed(conv3d(x.clone(), weight.clone(), bias.clone(), [1; 3]).into());
    found.assert_approx_eq::<f32>(&expected, Tolerance::absolute(1e-5));
    // Without gradients the convolution norms what it reads; borders stay zero all the same.
    for (outputs, stride) in [(16, [1; 3]), (5, [1, 2, 2])] {
        let y = || conv3d_measured(x.clone(), weight.clone(), bias.clone(), [1; 3]);
        let second = tensor(5, [outputs, 16, 3, 3, 3]);
        let shift = Tensor::<1>::from_data(data(6, [outputs]), device);
        let scale = [7, 8].map(|id| Tensor::<1>::from_data(data(id, [outputs]), device));
        let last = |z: Measured| z.norm_activation(norm(&scale), 0.01).into_data();
        let (weight, bias, by) = (second.clone(), shift.clone(), norm(&vectors[1..]));
        let found = last(y().norm_conv3d_measured(by.clone(), 0.01, weight, bias, stride));
        let between = y().norm_activation(by, 0.01);
        let expected = last(conv3d_measured(between, second, shift, stride));
        found.assert_approx_eq::<f32>(&expected, Tolerance::absolute(1e-5));
    }
}

/// A norm and the convolution beside it that is added before the activation, as at the end of a block.
pub fn convolved_residuals(device: &Device) {
    for (shape, inputs, kernel, stride, slope) in [
        ([2, 5, 5, 6, 7], 1, 1, [1; 3], 0.01),
        ([1, 16, 5, 3, 9], 8, 1, [1, 2, 2], 0.01),
        ([2, 105, 2, 3, 5], 5, 1, [2; 3], 0.2),
        ([1, 24, 4, 4, 4], 12, 3, [1; 3], 0.01),
    ] {
        let [n, c, z, y, x] = shape;
        let size = [z * stride[0], y * stride[1], x * stride[2]];
        let beside = [n, inputs, size[0], size[1], size[2]];
        let weight = [c, inputs, kernel, kernel, kernel];
        let block = |(x, v): Arguments<'_>| {
            let (weight, y) = (prepared(x[2].clone()), Measured::from(x[0].clone()));
            let residual = Residual::convolved(x[1].clone(), weight, v[0].clone(), stride);
            y.norm_residual_activation(norm(&v[1..]), residual, slope)
        };
        let name = format!("convolved residual {c} {kernel} {stride:?}");
        check_above(1.0, &name, &[shape, beside, weight], &[c; 3], &block, device);
    }
    let join = |(x, v): Arguments<'_>| {
        let [features, first, second, weight] = [0, 1, 2, 3].map(|index: usize| x[index].clone());
        let residual = Residual::convolved_joined(first.into(), second, weight, v[0].clone());
        Measured::from(features).norm_residual_activation(norm(&v[1..]), residual, 0.01)
    };
    let volumes = [[1, 7, 5, 6, 9], [1, 3, 5, 6, 9], [1, 5, 5, 6, 9], [7, 8, 1, 1, 1]];
    check_above(1.0, "convolved residual of two", &volumes, &[7; 3], &join, device);
    // Without gradients the first is repeated while it is read.
    let tensor = |id, shape| Tensor::<5>::from_data(data(id, shape), device);
    let (coarse, beside) = (tensor(1, [2, 4, 3, 4, 3]), tensor(2, [2, 8, 6, 4, 9]));
    let (features, weight) = (tensor(3, [2, 8, 6, 4, 9]), tensor(4, [8, 12, 1, 1, 1]));
    let vectors = [5, 6, 7].map(|id| Tensor::<1>::from_data(data(id, [8]), device));
    let block = |up: Upsampled| {
        let (weight, bias) = (weight.clone(), vectors[0].clone());
        let residual = Residual::convolved_joined(up, beside.clone(), weight, bias);
        let y = Measured::from(features.clone());
        y.norm_residual_activation(norm(&vectors[1..]), residual, 0.01).into_data()
    };
    let found = block(Upsampled::new(coarse.clone(), [2, 1, 3]));
    let fine = upsample_nearest(coarse, [2, 1, 3]);
    assert_eq!(found, block(fine.clone().into()));
    // What is added is what would have been written.
    let residual = conv3d_joined(fine, beside.clone(), weight.clone(), vectors[0].clone(), [1; 3]);
    let expected = norm_residual_activation(features.clone(), norm(&vectors[1..]), residual, 0.01);
    assert_eq!(found, expected.into_data());
}

/// The order of a weight in memory is nobody's business but the convolution's.
pub fn prepared_weights(device: &Device) {
    for shape in [[8, 3, 3, 3, 3], [5, 16, 1, 1, 1], [32, 4, 1, 3, 3]] {
        let weight = Tensor::<5>::from_data(data(1, shape), device);
        let ready = prepared(weight.clone());
        assert_eq!(ready.dims(), shape);
        assert_eq!(ready.clone().into_data(), weight.clone().into_data());
        let x = Tensor::<5>::from_data(data(2, [1, shape[1], 4, 5, 6]), device);
        let bias = Tensor::<1>::from_data(data(3, [shape[0]]), device);
        let y = |weight| conv3d(x.clone(), weight, bias.clone(), [1; 3]).into_data();
        assert_eq!(y(ready), y(weight), "{shape:?}");
    }
}

/// Two steps of stochastic gradient descent, the first without a velocity.
pub fn steps_of_sgd(device: &Device) {
    let cpu = stunet::device::parse("cpu").unwrap();
    for (nesterov, len) in [(true, 1000), (false, 1), (true, 70_001)] {
        let step =
            SgdStep { gradient_factor: 0.5, weight_decay: 3e-2, momentum: 0.9, nesterov, lr: 0.1 };
        let run = |device: &Device| {
            let tensor = |id| Tensor::<1>::from_data(data(id, [len]), device);
            let (value, velocity) = sgd_step(tensor(1), tensor(2), None, step);
            let (value, velocity) = sgd_step(value, tensor(3), Some(velocity), step);
            [value.into_data(), velocity.into_data()]
        };
        for (found, expected) in run(device).iter().zip(&run(&cpu)) {
            found.assert_approx_eq::<f32>(expected, Tolerance::absolute(1e-6));
        }
    }
}

/// Of tensors of any length, in double precision on the processor.
pub fn squares(device: &Device) {
    let lengths = [1, 70_001, 3, 16_384, 0, 16_385];
    let values: Vec<Vec<f32>> =
        lengths.iter().enumerate().map(|(id, len)| prng::uniform(93, id as u64, *len)).collect();
    let tensors: Vec<_> = values
        .iter()
        .map(|values| {
            Tensor::<1>::from_data(TensorData::new(values.clone(), [values.len()]), device)
        })
        .collect();
    let expected: f64 = values.iter().flatten().map(|v| f64::from(*v).powi(2)).sum();
    let found = sum_of_squares(&tensors).expect("an operator of our own");
    assert!((found - expected).abs() <= 1e-6 * expected, "{found}, expected {expected}");
    assert_eq!(sum_of_squares(&tensors), Some(found), "other bits the second time");
    let infinite = Tensor::<1>::from_data([1.0f32, f32::INFINITY], device);
    assert_eq!(sum_of_squares(&[infinite]), Some(f64::INFINITY));
    assert_eq!(sum_of_squares(&tensors[4..5]), Some(0.0));
}

pub fn upsampled(device: &Device) {
    for (shape, factor) in [([2, 3, 4, 5, 6], [1, 2, 3]), ([1, 8, 3, 2, 5], [2; 3])] {
        let upsample = |(x, _): Arguments<'_>| upsample_nearest(x[0].clone(), factor);
        check("upsample_nearest", &[shape], &[], &upsample, device);
    }
}

/// More workgroups than one launch may have.
pub fn many_workgroups(device: &Device) {
    let input = [65_600, 1, 1, 1, 2];
    let conv = |(x, b): Arguments<'_>| conv3d(x[0].clone(), x[1].clone(), b[0].clone(), [1; 3]);
    check("conv3d of many", &[input, [1, 1, 3, 3, 3]], &[1], &conv, device);
    let of_many = |(x, p): Arguments<'_>| norm_activation(x[0].clone(), norm(p), 0.01);
    check_above(1e3, "norm of many", &[input], &[1, 1], &of_many, device);
}

/// What is a view, begins elsewhere or lies in another order is read as what it shows, and inputs stay as
/// they were.
pub fn views(device: &Device) {
    let x = Tensor::<5>::from_data(data(1, [2, 6, 5, 4, 3]), device);
    let view = x.clone().permute([1, 0, 4, 3, 2]).slice([1..5, 0..2, 0..3, 1..4, 0..5]);
    let copy = Tensor::<5>::from_data(view.clone().into_data(), device);
    let weight = Tensor::<5>::from_data(data(2, [3, 3, 2, 3, 3]), device).permute([0, 2, 1, 3, 4]);
    let vector = Tensor::<1>::from_data(data(3, [3]), device);
    let parameters = [vector.clone().narrow(0, 0, 2), vector.clone().narrow(0, 1, 2)];
    let all = |x: Tensor<5>| {
        let y = conv3d(x.clone(), weight.clone(), vector.clone(), [1; 3]);
        let up = upsample_nearest(x.clone(), [1, 2, 1]);
        let n = norm_residual_activation(x.clone(), norm(&parameters), x, 0.1);
        [y.into_data(), up.into_data(), n.into_data()]
    };
    assert_eq!(all(view), all(copy));
    assert_eq!(x.into_data(), data(1, [2, 6, 5, 4, 3]));
}

/// What is said is what runs: own operators in single precision, Burn's for what there is none for.
pub fn said(device: &Device) {
    assert_eq!(in_use(device), InUse::Own);
    assert_eq!(in_use(&device.clone().autodiff()), InUse::Own);
    let tensor = |id, shape| Tensor::<5>::from_data(data(id, shape), device);
    let bias = Tensor::<1>::from_data(data(3, [2]), device);
    let ones = |len: usize| Tensor::<1>::ones([len], device);
    let x = tensor(1, [1, 3, 5, 6, 7]);
    for (taps, stride, own) in [
        ([3; 3], [1; 3], true),
        ([5; 3], [1; 3], false),
        ([1, 3, 3], [1; 3], true),
        ([3; 3], [1, 1, 9000], false),
    ] {
        let weight = tensor(2, [2, 3, taps[0], taps[1], taps[2]]);
        let (_, calls) = steps(|| conv3d(x.clone(), weight, bias.clone(), stride));
        let algorithm = calls[0].algorithm;
        assert_eq!(algorithm == Algorithm::Tiled, own, "{taps:?} {stride:?}: {algorithm:?}");
    }
    let (_, calls) = steps(|| norm_activation(x.clone(), norm(&[ones(3), ones(3)]), 0.0));
    assert_eq!(calls[0].algorithm, Algorithm::Fused, "the ReLU of other networks");
}

/// Values that are stored in 16 bits and added in 32, where the device has such a type.
pub fn half(device: &Device) {
    for dtype in [DType::F16, DType::BF16] {
        if !device.supports_dtype(dtype) {
            say!("{dtype:?} is not offered by this device");
            continue;
        }
        let of = |dtype: DType, device: &Device| {
            let device = device.clone().autodiff();
            let tensor = |id, shape: [usize; 5]| {
                let rounded = Tensor::<5>::from_data(data(id, shape), &device).cast(DType::F16);
                rounded.cast(dtype).require_grad()
            };
            let (x, weight) = (tensor(1, [2, 8, 5, 6, 9]), tensor(2, [16, 8, 3, 3, 3]));
            let vectors = [1, 2, 3].map(|id| Tensor::<1>::from_data(data(id, [16]), &device));
            let bias = vectors[0].clone().cast(dtype);
            let (y, calls) = steps(|| {
                let y = conv3d_measured(x.clone(), weight.clone(), bias, [1, 2, 1]);
                upsample_nearest(y.norm_activation(norm(&vectors[1..]), 0.01), [1, 2, 2])
            });
            assert!(calls.iter().all(|call| call.algorithm != Algorithm::Reference), "{calls:?}");
            let grads = y.clone().cast(DType::F32).sum().backward();
            let list = |x: Tensor<5>| x.cast(DType::F32).into_data().try_to_vec::<f32>().unwrap();
            [list(y), list(x.grad(&grads).unwrap()), list(weight.grad(&grads).unwrap())]
        };
        let cpu = stunet::device::parse("cpu").unwrap();
        let (found, expected) = (of(dtype, device), of(DType::F32, &cpu));
        // What rounding to 11 or 8 bits leaves, of values and of sums of some hundred of them.
        let bound = if dtype == DType::F16 { 4e-3 } else { 3e-2 };
        for (which, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let d = stunet_testing::compare::difference(found, expected);
            assert!(d.relative_l2 < bound, "{dtype:?} {which}: {d:?}");
        }
    }
}
