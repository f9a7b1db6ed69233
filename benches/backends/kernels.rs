//! Every kernel of this project, launched, whatever comes of it: for `scripts/ptxas-check`, which hands what a
//! device without a GPU behind it is given to the assembler.

use super::counted::{ForwardDeep, step_once};
use super::step::{Precision, Step, Task, random_network};
use super::{Args, case::Case};
use burn::tensor::{DType, Device, Int, Tensor};
use std::panic::{AssertUnwindSafe, catch_unwind};
use stunet::device::Chosen;
use stunet::kernels::{
    LabelledSoftmax, Measured, MirroredPass, Norm, Residual, SgdStep, SoftmaxSlopes, Upsampled,
    WindowAverage, WindowOverlap, WindowSums, WindowValues, conv_transpose3d, conv3d,
    conv3d_joined_measured, conv3d_measured, kernel_calls, norm_activation,
    norm_residual_activation, sgd_step, sum_of_squares, upsample_nearest,
};
use stunet::model::StuNet;

/// Launches the networks' passes in all precisions, and operators on shapes that no network has.
pub fn launch(args: &Args, chosen: &Chosen) {
    let device = &chosen.device;
    let mut parts = Vec::new();
    for size in &args.sizes {
        let case = || {
            let _windows = Case::new(args, size, chosen).unwrap().run().unwrap();
        };
        parts.push((format!("{size} case"), launched(case)));
    }
    for precision in &args.precision {
        for (size, task) in args.sizes.iter().flat_map(|s| [(s, Task::Forward), (s, Task::Train)]) {
            if device.supports_dtype(precision.dtype()) {
                let name = format!("{size} {} {}", task.name(), precision.name());
                parts.push((name, launched(|| network(args, size, task, *precision, device))));
            }
        }
        let name = format!("operators {}", precision.name());
        parts.push((name, launched(|| operators(precision.dtype(), device))));
        let name = format!("loss {}", precision.name());
        parts.push((name, launched(|| loss(precision.dtype(), device))));
    }
    let vector = Tensor::<1>::ones([1000], device);
    let step =
        SgdStep { gradient_factor: 1.0, weight_decay: 0.0, momentum: 0.9, nesterov: true, lr: 0.1 };
    let sgd = || {
        let (value, velocity) = sgd_step(vector.clone(), vector.clone(), None, step);
        let _ = sgd_step(value, vector.clone(), Some(velocity), step);
        let _ = sum_of_squares(std::slice::from_ref(&vector));
    };
    parts.push(("sgd".into(), launched(sgd)));
    parts.push(("rows for the host".into(), launched(|| rows_for_the_host(device))));
    // What was launched is compiled at its turn.
    let _ = device.sync();
    for (name, launches) in parts {
        println!("{name}: {launches}");
    }
}

/// How many launches some work had; what it reads back is nothing to go by.
fn launched(work: impl FnOnce()) -> String {
    let (outcome, calls) = kernel_calls(|| catch_unwind(AssertUnwindSafe(work)));
    let launches: usize = calls.iter().map(|call| call.launches).sum();
    match outcome {
        Ok(()) => format!("{launches} launches"),
        Err(_) => format!("{launches} launches, then a value that was read back ended it"),
    }
}

/// A forward pass, or a step without its loss, which would stumble over what is read back.
fn network(args: &Args, size: &str, task: Task, precision: Precision, device: &Device) {
    if task == Task::Forward {
        Step::new(args, size, task, precision, false, device).unwrap().run();
        return;
    }
    let device = device.clone().autodiff();
    let network = random_network(size, args.classes, &device).unwrap();
    let [z, y, x]: [usize; 3] = args.patch.clone().try_into().unwrap();
    let input = Tensor::<5>::ones([args.batch, 1, z, y, x], &device).cast(precision.dtype());
    let forward: ForwardDeep = match precision {
        // Eight bits are of the processor, which has no kernels to count.
        Precision::F32 | Precision::Int8 => |network: &StuNet, x| network.forward_deep(x),
        Precision::F16 => |network: &StuNet, x| {
            stunet::train::precision::Precision::F16.network(network).forward_deep(x)
        },
        Precision::Bf16 => |network: &StuNet, x| {
            stunet::train::precision::Precision::Bf16.network(network).forward_deep(x)
        },
    };
    step_once(&network, forward, input, None);
}

/// Sums of a softmax beside labels, and the gradient of a loss of them.
fn loss(dtype: DType, device: &Device) {
    let logits = Tensor::<5>::ones([2, 105, 4, 5, 6], device).cast(dtype);
    let labels = Tensor::<4, Int>::zeros([2, 4, 5, 6], device);
    let Some((softmax, _)) = LabelledSoftmax::of(&logits, &labels, Some(-1)) else { return };
    let slopes = || vec![0.5; 2 * 105];
    let slopes = SoftmaxSlopes { overlap: slopes(), predicted: slopes(), cross_entropy: 1.0 };
    let _ = softmax.gradient(&slopes);
}

/// Sums of a window whose averages the host reads.
fn rows_for_the_host(device: &Device) {
    let window = [4, 5, 6];
    let average = WindowAverage { window, importance: None, softmax: false };
    let mut sums = WindowSums::new(average, 3, [5, 6], device);
    let values = WindowValues::Ready(Tensor::ones([1, 3, 4, 5, 6], device));
    let at = WindowOverlap { rows: 0..5, columns: 0..6, first: [0, 0] };
    let pass = MirroredPass { flips: [false; 3], index: 0, count: 1 };
    sums.add(values, pass, &at);
    sums.add_weights(&at);
    let _ = sums.take(0..4, 0..5, 1);
}

fn tensor(shape: [usize; 5], dtype: DType, device: &Device) -> Tensor<5> {
    Tensor::<5>::ones(shape, device).cast(dtype).require_grad()
}

/// Forward and backward of every operator.
fn operators(dtype: DType, device: &Device) {
    let device = &device.clone().autodiff();
    let vector = |len: usize| Tensor::<1>::ones([len], device).cast(dtype);
    let norm = |len: usize| Norm {
        weight: Tensor::ones([len], device),
        bias: Tensor::ones([len], device),
        epsilon: 1e-5,
    };
    let done = |y: Tensor<5>| drop(y.cast(DType::F32).sum().backward());
    for (c, outputs, kernel, stride) in [
        (1, 3, [3; 3], [1; 3]),
        (2, 5, [3; 3], [1, 1, 2]),
        (5, 105, [1; 3], [1; 3]),
        (16, 32, [3; 3], [2; 3]),
        (20, 24, [3; 3], [1, 2, 2]),
        (4, 8, [1; 3], [2; 3]),
        (3, 4, [1, 3, 3], [1, 2, 2]),
    ] {
        let [kz, ky, kx] = kernel;
        let x = tensor([2, c, 9, 10, 13], dtype, device);
        let weight = tensor([outputs, c, kz, ky, kx], dtype, device);
        done(conv3d(x.clone(), weight.clone(), vector(outputs), stride));
        let y = conv3d_measured(x, weight, vector(outputs), stride);
        done(y.norm_activation(norm(outputs), 0.01));
    }
    let x = tensor([2, 8, 4, 6, 8], dtype, device);
    done(norm_activation(x.clone(), norm(8), 0.0));
    done(norm_residual_activation(x.clone(), norm(8), x.clone(), 0.01));
    done(upsample_nearest(x.clone(), [2; 3]));
    done(conv_transpose3d(x.clone(), tensor([8, 3, 2, 2, 2], dtype, device), vector(3)));
    let residual =
        Residual::convolved(x.clone(), tensor([5, 8, 1, 1, 1], dtype, device), vector(5), [2; 3]);
    let beside = Measured::from(tensor([2, 5, 2, 3, 4], dtype, device));
    done(beside.norm_residual_activation(norm(5), residual, 0.01));
    let second = tensor([2, 4, 8, 12, 16], dtype, device);
    let weight = tensor([8, 12, 3, 3, 3], dtype, device);
    let up = Upsampled::new(x.clone(), [2; 3]);
    done(
        up.conv3d_joined_measured(second.clone(), weight.clone(), vector(8))
            .norm_activation(norm(8), 0.01),
    );
    let fine = upsample_nearest(x.clone(), [2; 3]);
    let y = conv3d_joined_measured(fine, second.clone(), weight.clone(), vector(8), [1; 3]);
    done(y.norm_activation(norm(8), 0.01));
    // Without gradients: what is upsampled or normed while it is read.
    let up = Upsampled::new(x.clone().inner(), [2; 3]);
    let inner = |x: &Tensor<5>| x.clone().inner();
    let norms = || Norm {
        weight: Tensor::ones([8], &device.clone().inner()),
        bias: Tensor::ones([8], &device.clone().inner()),
        epsilon: 1e-5,
    };
    let y = up.conv3d_joined_measured(inner(&second), inner(&weight), vector(8).inner());
    let next = inner(&tensor([8, 8, 3, 3, 3], dtype, device));
    let z = y.norm_conv3d_measured(norms(), 0.01, next, vector(8).inner(), [1; 3]);
    let _ = z.norm_activation(norms(), 0.01);
}
