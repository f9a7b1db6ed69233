//! What a pass over a 128³ window moves, multiplies and launches, as the kernels say it themselves.
//!
//! Counted at two sizes without computing anything, for at 128³ the tensors are larger than a software
//! adapter's: every tensor of the network grows with the voxels, or does not, so that two sizes tell the
//! third.

use burn::tensor::{DType, Device, Gradients, Tensor, TensorData};
use std::cell::RefCell;
use stunet::kernels::{KernelCall, dry_kernel_calls, launches};
use stunet::model::{ParameterRef, ParameterSpec, StuNet, StuNetConfig};
use stunet::train::optimiser::{Sgd, SgdConfig};

/// Voxels of the sizes that are counted, and of the size that is told.
const SIZES: [[usize; 3]; 2] = [[32, 32, 64], [32, 64, 64]];
const WANTED: f64 = (128 * 128 * 128) as f64;
/// Products of a launch in a release build: see `stunet-kernels`.
const MOST_PRODUCTS: f64 = 16e9;
/// How the launch observer names a kernel of this project.
const OWN: &str = "stunet_kernels";

/// What one kernel does at 128³.
#[derive(Clone, Copy, Debug)]
#[allow(dead_code)] // Each user asks for a part.
pub struct Counted {
    pub kernel: &'static str,
    pub bytes: f64,
    pub products: f64,
    /// More than one where one would take too long.
    pub launches: f64,
}

/// What a pass does.
#[derive(Clone, Debug)]
pub struct Pass {
    /// The kernels of this project, in their order.
    pub kernels: Vec<Counted>,
    /// Launches of Burn's own kernels beside them.
    pub others: usize,
}

impl Pass {
    pub fn gigabytes(&self) -> f64 {
        self.kernels.iter().map(|kernel| kernel.bytes).sum::<f64>() / 1e9
    }

    /// All launches.
    pub fn launches(&self) -> f64 {
        self.kernels.iter().map(|kernel| kernel.launches).sum::<f64>() + self.others as f64
    }
}

/// Counts what `work` does with a window of a size.
pub fn count(work: &dyn Fn([usize; 3])) -> Pass {
    let found = SIZES.map(|size| dry_kernel_calls(|| launches(|| work(size)).1));
    let [(_, small), (all, large)] = &found;
    let names = |calls: &[KernelCall]| calls.iter().map(|call| call.kernel).collect::<Vec<_>>();
    assert_eq!(names(small), names(large), "other kernels at another size");
    let voxels = SIZES.map(|size| size.iter().product::<usize>() as f64);
    let at_wanted = |of: &dyn Fn(&KernelCall) -> f64, pair: (&KernelCall, &KernelCall)| {
        let (a, b) = (of(pair.0), of(pair.1));
        b + (b - a) / (voxels[1] - voxels[0]) * (WANTED - voxels[1])
    };
    let kernels = small.iter().zip(large).map(|pair| {
        let bytes = at_wanted(&|call| (call.read + call.written) as f64, pair);
        let products = at_wanted(&|call| call.products as f64, pair);
        let launches = (products / MOST_PRODUCTS).ceil().max(1.0);
        Counted { kernel: pair.0.kernel, bytes, products, launches }
    });
    let others = all.iter().filter(|name| !name.contains(OWN)).count();
    Pass { kernels: kernels.collect(), others }
}

fn network(config: &StuNetConfig, device: &Device) -> StuNet {
    let mut source = |spec: &ParameterSpec| {
        let values = vec![0.01f32; spec.shape.iter().product()];
        Ok(TensorData::new(values, spec.shape.clone()))
    };
    StuNet::from_source(config, &mut source, device).unwrap()
}

/// A window of ones, brought from the host: nothing is launched for it.
fn input(config: &StuNetConfig, [z, y, x]: [usize; 3], device: &Device) -> Tensor<5> {
    let shape = [1, config.in_channels, z, y, x];
    Tensor::from_data(TensorData::ones::<f32, _>(shape), (device, DType::F32))
}

/// Logits at full resolution, by whichever operators.
pub type Forward = fn(&StuNet, Tensor<5>) -> Tensor<5>;
/// Logits at every resolution.
pub type ForwardDeep = fn(&StuNet, Tensor<5>) -> Vec<Tensor<5>>;

/// A forward pass of one sample.
pub fn forward(config: &StuNetConfig, device: &Device, forward: Forward) -> Pass {
    let network = network(config, device);
    count(&|size| {
        let _ = forward(&network, input(config, size, device));
    })
}

/// A training step of one sample without its loss, whose values a pass without computing does not have: five
/// heads, backward, clipping, optimiser.
pub fn step(config: &StuNetConfig, device: &Device, forward: ForwardDeep) -> Pass {
    let tracked = device.clone().autodiff();
    let network = network(config, &tracked);
    // What a pass without computing leaves in the gradients may be no numbers, for which no step is made.
    let ready = RefCell::new(Vec::from(SIZES.map(|_| ones(&network))));
    count(&|size| {
        let gradients = ready.borrow_mut().pop().expect("one for each size");
        step_once(&network, forward, input(config, size, &tracked), Some(gradients));
    })
}

/// A gradient of one for every value of every parameter.
fn ones(network: &StuNet) -> Gradients {
    let mut all: Option<Tensor<1>> = None;
    network.for_each_parameter(&mut |_, parameter| {
        let sum = match parameter {
            ParameterRef::Vector(vector) => vector.val().sum(),
            ParameterRef::Kernel(kernel) => kernel.val().sum(),
        };
        all = Some(all.take().map_or(sum.clone(), |all| all + sum));
    });
    all.expect("a network has parameters").backward()
}

/// What [`step`] counts, once; the optimiser takes the gradients that are given, else those of the pass.
pub fn step_once(
    network: &StuNet,
    forward: ForwardDeep,
    input: Tensor<5>,
    given: Option<Gradients>,
) {
    let outputs = forward(network, input);
    let loss = outputs.into_iter().map(Tensor::sum).reduce(|a, b| a + b);
    let gradients = loss.expect("there are five heads").backward();
    let mut sgd = Sgd::new(SgdConfig::default(), &network.config());
    let _ = sgd.step(network.clone(), given.unwrap_or(gradients), 0.01);
}
