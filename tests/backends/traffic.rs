//! What a forward pass and a training step move in a GPU's memory, and how many kernels they are, as the
//! kernels say it themselves.
//!
//! Counted at two sizes without computing anything, for at 128³ the tensors are larger than a software
//! adapter's: every tensor of the network grows with the voxels, or does not, so that two sizes tell the
//! third.

use burn::tensor::{Device, Tensor, TensorData};
use stunet::kernels::{KernelCall, dry_kernel_calls};
use stunet::model::{ParameterSpec, StuNet, StuNetConfig};
use stunet_testing::say;

/// Voxels of the sizes that are counted, and of the size that is told.
const SIZES: [[usize; 3]; 2] = [[32, 32, 64], [32, 64, 64]];
const WANTED: f64 = (128 * 128 * 128) as f64;
/// Products of a launch in a release build: see `stunet-kernels`.
const MOST_PRODUCTS: f64 = 16e9;

/// Gigabytes and launches at 128³.
struct Count {
    gigabytes: f64,
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
    Count { gigabytes: bytes.sum::<f64>() / 1e9, launches: turns.map(|t| t.max(1.0)).sum() }
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

/// Gigabytes and launches that a forward pass may have. Burn's operators, whose passes over memory were counted
/// in their source, move about 20 and 40 GB in 570 launches.
pub fn traffic(device: &Device) {
    for (name, config, most) in
        [("S", StuNetConfig::small(1, 105), 5.8), ("B", StuNetConfig::base(1, 105), 11.0)]
    {
        let forward = forward(&config, device);
        let step = backward(&config, device);
        for (what, count) in [("forward", &forward), ("forward and backward", &step)] {
            let Count { gigabytes, launches } = count;
            say!(
                "STU-Net-{name}, 128³, batch 1, f32, {what}: {gigabytes:.2} GB, {launches} launches"
            );
        }
        assert!(forward.gigabytes <= most, "{name}: {} GB", forward.gigabytes);
        assert!(forward.launches <= 570.0 / 6.0, "{name}: {} launches", forward.launches);
    }
}
