//! What a forward pass and a training step move in a GPU's memory, and how many kernels they are, as the
//! kernels say it themselves.
//!
//! Counted at two sizes without computing anything, for at 128³ the tensors are larger than a software
//! adapter's: every tensor of the network grows with the voxels, or does not, so that two sizes tell the
//! third.

use burn::tensor::{Device, Tensor, TensorData};
use stunet::kernels::{
    KernelCall, MirroredPass, WindowAverage, WindowOverlap, WindowSums, conv3d_joined,
    dry_kernel_calls,
};
use stunet::model::{ParameterSpec, StuNet, StuNetConfig};
use stunet_testing::say;

/// Voxels of the sizes that are counted, and of the size that is told.
const SIZES: [[usize; 3]; 2] = [[32, 32, 64], [32, 64, 64]];
const WANTED: f64 = (128 * 128 * 128) as f64;
/// Products of a launch in a release build: see `stunet-kernels`.
const MOST_PRODUCTS: f64 = 16e9;

/// Gigabytes at 128³, kernels, and launches, of which a kernel has several where one would take too long.
struct Count {
    gigabytes: f64,
    kernels: usize,
    launches: f64,
}

fn network(config: &StuNetConfig, device: &Device) -> StuNet {
    let mut source = |spec: &ParameterSpec| {
        let values = vec![0.01f32; spec.shape.iter().product()];
        Ok(TensorData::new(values, spec.shape.clone()))
    };
    StuNet::from_source(config, &mut source, device).unwrap()
}

/// Counts what `work` does with an input of a size.
fn count(work: &dyn Fn([usize; 3])) -> Count {
    let calls = SIZES.map(|size| dry_kernel_calls(|| work(size)).1);
    let [small, large] = &calls;
    let names = |calls: &[KernelCall]| calls.iter().map(|call| call.kernel).collect::<Vec<_>>();
    assert_eq!(names(small), names(large), "other kernels at another size");
    let voxels = SIZES.map(|size| size.iter().product::<usize>() as f64);
    let at_wanted = |of: &dyn Fn(&KernelCall) -> usize, pair: (&KernelCall, &KernelCall)| {
        let (a, b) = (of(pair.0) as f64, of(pair.1) as f64);
        b + (b - a) / (voxels[1] - voxels[0]) * (WANTED - voxels[1])
    };
    let pairs = || small.iter().zip(large);
    let bytes = pairs().map(|pair| at_wanted(&|call| call.read + call.written, pair));
    let turns = pairs().map(|pair| (at_wanted(&|c| c.products, pair) / MOST_PRODUCTS).ceil());
    let launches = turns.map(|turns| turns.max(1.0)).sum();
    Count { gigabytes: bytes.sum::<f64>() / 1e9, kernels: small.len(), launches }
}

fn forward(config: &StuNetConfig, device: &Device) -> Count {
    let network = network(config, device);
    count(&|[z, y, x]| {
        let _ = network.forward(Tensor::ones([1, config.in_channels, z, y, x], device));
    })
}

/// Forward and backward, loss and optimiser left out: those are not operators of the network.
fn backward(config: &StuNetConfig, device: &Device) -> Count {
    let device = device.clone().autodiff();
    let network = network(config, &device);
    count(&|[z, y, x]| {
        let logits = network.forward(Tensor::ones([1, config.in_channels, z, y, x], &device));
        let _ = logits.sum().backward();
    })
}

/// A window of a prediction: the network up to its head, and head, importance and sums in one.
fn window(config: &StuNetConfig, device: &Device, softmax: bool) -> Count {
    let network = network(config, device);
    count(&|size| {
        let [z, y, x] = size;
        let importance = Some(Tensor::ones(size, device));
        let average = WindowAverage { window: size, importance, softmax };
        let mut sums = WindowSums::new(average, config.num_classes, [y, x], device);
        let values =
            network.forward_to_head(Tensor::ones([1, config.in_channels, z, y, x], device));
        let pass = MirroredPass { flips: [false; 3], index: 0, count: 1 };
        sums.add(values, pass, &WindowOverlap { rows: 0..y, columns: 0..x, first: [0, 0] });
    })
}

/// Gigabytes and kernels that a forward pass may have. Burn's operators, whose passes over memory were counted
/// in their source, move about 20 and 40 GB in 570 launches.
pub fn traffic(device: &Device) {
    for (name, config, most) in
        [("S", StuNetConfig::small(1, 105), 4.6), ("B", StuNetConfig::base(1, 105), 8.5)]
    {
        let forward = forward(&config, device);
        let step = backward(&config, device);
        let [logits, probabilities] = [false, true].map(|softmax| window(&config, device, softmax));
        for (what, count) in [
            ("forward", &forward),
            ("forward and backward", &step),
            ("window and its sums", &logits),
            ("window and its sums of probabilities", &probabilities),
        ] {
            let Count { gigabytes, kernels, launches } = count;
            say!(
                "STU-Net-{name}, 128³, batch 1, f32, {what}: {gigabytes:.2} GB, {kernels} kernels, \
                 {launches} launches"
            );
        }
        assert!(forward.gigabytes <= most, "{name}: {} GB", forward.gigabytes);
        // No logits are written; the sums are read and written.
        let sums = WANTED * 4.0 * 2.0 * 105.0 / 1e9;
        assert!(probabilities.gigabytes <= most - sums / 2.0 + 1.1 * sums, "{name}: too much");
        assert!(forward.kernels <= 570 / 6, "{name}: {} kernels", forward.kernels);
    }
}

/// One forward and one backward pass of a layer like STU-Net's largest, on two joined tensors: the device's own
/// count of its memory against the tensors. An unfolded copy of the input would be 27 times as large.
pub fn memory(device: &Device) {
    let (channels, size) = (32, 40);
    let tensor_bytes = channels * size * size * size * size_of::<f32>();
    let tracked = device.clone().autodiff();
    let volume = || {
        let x = Tensor::<5>::ones([1, channels, size, size, size], &tracked);
        x.require_grad()
    };
    let weight = Tensor::<5>::ones([channels, 2 * channels, 3, 3, 3], &tracked).require_grad();
    let bias = Tensor::<1>::ones([channels], &tracked).require_grad();
    let reserved = || {
        device.sync().unwrap();
        device.memory_pool_usage().expect("CubeCL tells what it holds").bytes_reserved as usize
    };
    device.sync().unwrap();
    device.memory_cleanup();
    let (first, second) = (volume(), volume());
    let before = reserved();
    let y = conv3d_joined(first.clone(), second.clone(), weight.clone(), bias, [1; 3]);
    let gradients = y.sum().backward();
    let found = [first.grad(&gradients), second.grad(&gradients), weight.grad(&gradients)];
    let after = reserved();
    assert!(found.iter().all(Option::is_some));
    let [grown, unfolded] = [after.saturating_sub(before), 27 * 2 * tensor_bytes];
    say!(
        "two tensors of {tensor_bytes} bytes joined, forward and backward: {grown} bytes more than \
         before, {:.1} tensors; unfolded {unfolded}",
        grown as f64 / tensor_bytes as f64
    );
    // The output, its gradient, those of both inputs, and pages that are larger than what they hold.
    assert!(grown < unfolded / 2, "{grown} bytes more, unfolded it would be {unfolded}");
}
