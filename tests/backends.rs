//! Every backend compiled in computes what the processor computes: logits at every scale, the
//! gradient of every parameter and the blended windows of a narrow network.
//!
//! A backend that is not compiled in is left out. One that is compiled in but finds no device here
//! says so, and fails when `STUNET_REQUIRE_DEVICE` (names, comma-separated) asks for it.
#![allow(missing_docs, clippy::unwrap_used, clippy::disallowed_macros, clippy::disallowed_methods)]

use burn::tensor::{Device, Tensor, TensorData, activation};
use ndarray::Array4;
use std::collections::BTreeMap;
use std::io::Write;
use std::ops::ControlFlow;
use stunet::data::plans::{Accumulation, Reference};
use stunet::device::{self, Backend};
use stunet::infer::InferError;
use stunet::infer::sink::PlaneSink;
use stunet::infer::sliding_window::{WindowSettings, slide};
use stunet::model::{ParameterRef, ParameterSpec, StuNet, StuNetConfig};
use stunet_testing::compare::{assert_close, difference};
use stunet_testing::prng::{self, Role};

/// The agreement that is asked for.
const BOUND: f64 = 1e-3;
/// Batch, channel and three unequal axes, so that a swapped pair shows.
const INPUT: [usize; 5] = [2, 1, 12, 16, 24];

/// A few channels, isotropic and anisotropic strides, a class count that is no power of two.
fn config() -> StuNetConfig {
    StuNetConfig {
        in_channels: 1,
        num_classes: 5,
        width: [4, 8, 8, 8, 8, 8],
        depth: [1; 6],
        strides: [[2, 2, 2], [2, 2, 2], [1, 1, 2], [1, 1, 1], [1, 1, 1]],
    }
}

fn network(device: &Device) -> StuNet {
    let mut index = 0;
    let mut source = |spec: &ParameterSpec| {
        let values = prng::parameter(71, index, Role::of(&spec.name), &spec.shape, 1.0);
        index += 1;
        Ok(TensorData::new(values, spec.shape.clone()))
    };
    StuNet::from_source(&config(), &mut source, device).unwrap()
}

fn uniform<const D: usize>(seed: u64, id: u64, shape: [usize; D], device: &Device) -> Tensor<D> {
    let values = prng::uniform(seed, id, shape.iter().product());
    Tensor::from_data(TensorData::new(values, shape), device)
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec::<f32>().unwrap()
}

fn logits(device: &Device) -> Vec<Vec<f32>> {
    let outputs = network(device).forward_deep(uniform(72, 0, INPUT, device));
    outputs.into_iter().map(values).collect()
}

/// Loss and gradients by parameter; heads of every scale take part, through a softmax.
fn gradients(device: &Device, input_is_tracked: bool) -> (f32, BTreeMap<String, Vec<f32>>) {
    let device = device.clone().autodiff();
    let network = network(&device);
    let input = uniform(72, 0, INPUT, &device);
    let input = if input_is_tracked { input.require_grad() } else { input };
    let terms = network.forward_deep(input).into_iter().enumerate().map(|(scale, logits)| {
        let weight = uniform(73, scale as u64, logits.dims(), &device);
        let p = activation::softmax(logits.clone(), 1);
        (p * weight).sum() * 1e-2 + logits.square().mean()
    });
    let loss = terms.reduce(|a, b| a + b).unwrap();
    let grads = loss.backward();

    let mut all = BTreeMap::new();
    network.for_each_parameter(&mut |spec, parameter| {
        let gradient = match parameter {
            ParameterRef::Vector(p) => p.grad(&grads).map(values),
            ParameterRef::Kernel(p) => p.grad(&grads).map(values),
        };
        all.insert(spec.name.clone(), gradient.unwrap_or_else(|| panic!("{}", spec.name)));
    });
    (values(loss)[0], all)
}

/// A volume larger than the window, its windows mirrored and blended.
fn blended(device: &Device, reference: Reference, on_device: bool) -> Vec<f32> {
    struct Planes(Vec<f32>);
    impl PlaneSink for Planes {
        fn plane(&mut self, _: usize, plane: &mut Vec<f32>) -> Result<(), InferError> {
            self.0.extend_from_slice(plane);
            Ok(())
        }
    }
    let recipe = WindowSettings {
        window: [INPUT[2], INPUT[3], INPUT[4]],
        step_size: 0.5,
        mirror_axes: vec![2],
        reference,
        accumulation: Accumulation::F32,
        on_device,
    };
    let values = prng::uniform(74, 0, 19 * 16 * 30);
    let image = Array4::from_shape_vec((1, 19, 16, 30), values).unwrap();
    let mut planes = Planes(Vec::new());
    slide(&[&network(device)], image.view(), &recipe, &mut planes, &mut |_, _| {
        ControlFlow::Continue(())
    })
    .unwrap();
    planes.0
}

/// The device to test, unless there is a reason to leave it out.
fn device_under_test(backend: Backend) -> Option<Device> {
    let required = std::env::var("STUNET_REQUIRE_DEVICE").unwrap_or_default();
    let required = required.split(',').any(|name| name == backend.name());
    match device::choose(backend.name()) {
        Ok(chosen) => Some(chosen.device),
        Err(error) => {
            assert!(!required, "STUNET_REQUIRE_DEVICE: {error}");
            if backend.is_compiled_in() {
                // Past the test harness, which keeps what a passing test prints to itself.
                let mut terminal = std::io::stderr();
                writeln!(terminal, "SKIPPED: {error}").unwrap();
            }
            None
        }
    }
}

fn check_forward(backend: Backend) {
    let Some(device) = device_under_test(backend) else { return };
    let expected = logits(&device::parse("cpu").unwrap());
    for (scale, (found, expected)) in logits(&device).iter().zip(&expected).enumerate() {
        assert_close(&format!("{backend} logits {scale}"), found, expected, BOUND, BOUND);
    }
}

fn check_windows(backend: Backend) {
    let Some(device) = device_under_test(backend) else { return };
    let kinds: [(_, &[bool]); 2] =
        [(Reference::NnUNetV1, &[false, true]), (Reference::NnUNetV28, &[true])];
    for (reference, sides) in kinds {
        let expected = blended(&device::parse("cpu").unwrap(), reference, false);
        for &on_device in sides {
            let found = blended(&device, reference, on_device);
            let name = format!("{backend} {reference:?}, sums on the device: {on_device}");
            assert_close(&name, &found, &expected, BOUND, BOUND);
        }
    }
}

fn check_backward(backend: Backend) {
    let Some(device) = device_under_test(backend) else { return };
    let (expected_loss, expected) = gradients(&device::parse("cpu").unwrap(), false);
    // A backward pass to the parameters alone was NaN on wgpu once: burn issue 5162.
    for input_is_tracked in [false, true] {
        let (loss, found) = gradients(&device, input_is_tracked);
        let error = f64::from((loss - expected_loss).abs());
        println!("{backend} loss: {loss} instead of {expected_loss}");
        assert!(error <= BOUND * f64::from(expected_loss.abs()), "{backend}: loss {loss}");
        check_gradients(backend, &found, &expected);
    }
}

fn check_gradients(
    backend: Backend,
    found: &BTreeMap<String, Vec<f32>>,
    expected: &BTreeMap<String, Vec<f32>>,
) {
    let mut worst = (0.0, "");
    let mut wrong = Vec::new();
    for (name, expected) in expected {
        let d = difference(&found[name], expected);
        // A norm undoes the bias before it: what is left of its gradient is rounding noise.
        if name.ends_with("conv1.bias") || name.ends_with("conv2.bias") {
            wrong.extend((d.peak > BOUND).then(|| format!("{name} is not zero: {d:?}")));
        } else {
            wrong.extend((d.relative_l2 > BOUND).then(|| format!("{name}: {d:?}")));
            worst = if d.relative_l2 > worst.0 { (d.relative_l2, name) } else { worst };
        }
    }
    println!("{backend} gradients: worst relative L2 {:.2e} at {}", worst.0, worst.1);
    assert!(wrong.is_empty(), "{backend}:\n{}", wrong.join("\n"));
}

#[test]
fn cuda_forward() {
    check_forward(Backend::Cuda);
}

#[test]
fn cuda_windows() {
    check_windows(Backend::Cuda);
}

#[test]
fn cuda_backward() {
    check_backward(Backend::Cuda);
}

#[test]
fn vulkan_forward() {
    check_forward(Backend::Vulkan);
}

#[test]
fn vulkan_windows() {
    check_windows(Backend::Vulkan);
}

#[test]
fn vulkan_backward() {
    check_backward(Backend::Vulkan);
}

#[test]
fn wgpu_forward() {
    check_forward(Backend::Wgpu);
}

#[test]
fn wgpu_windows() {
    check_windows(Backend::Wgpu);
}

#[test]
fn wgpu_backward() {
    check_backward(Backend::Wgpu);
}

#[test]
fn metal_forward() {
    check_forward(Backend::Metal);
}

#[test]
fn metal_windows() {
    check_windows(Backend::Metal);
}

#[test]
fn metal_backward() {
    check_backward(Backend::Metal);
}

#[test]
fn ndarray_forward() {
    check_forward(Backend::NdArray);
}

#[test]
fn ndarray_windows() {
    check_windows(Backend::NdArray);
}

/// The processor is the measure of the others; its sums of both kinds are held against each other.
#[test]
fn cpu_windows() {
    check_windows(Backend::Cpu);
}
