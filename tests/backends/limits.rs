//! What WebGPU guarantees and no more, forced on a device that offers more: bindings of 128 MiB, eight of
//! them, 16 KB of shared memory, 256 threads, no subgroups.
//!
//! wgpu itself holds kernels and buffers against these limits and refuses what exceeds them.

use burn::tensor::wgpu::{WgpuSetup, wgpu};
use burn::tensor::{Device, Tensor};
use std::future::Future;
use std::sync::OnceLock;
use std::task::{Context, Poll, Waker};
use stunet::kernels::{InUse, conv3d, in_use};
use stunet_testing::say;

use super::upstream::largest;

/// The device, made once: CubeCL keeps what it is given.
pub fn device() -> Device {
    static DEVICE: OnceLock<Device> = OnceLock::new();
    DEVICE.get_or_init(|| limited(wgpu::Limits::default())).clone()
}

/// The first Vulkan adapter with these limits and without subgroups.
fn limited(limits: wgpu::Limits) -> Device {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: wgpu::Backends::VULKAN,
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let adapters = wait_for(instance.enumerate_adapters(wgpu::Backends::VULKAN));
    let adapter = adapters.into_iter().next().expect("an adapter: the tests of wgpu found one");
    let subgroups = wgpu::Features::SUBGROUP | wgpu::Features::SUBGROUP_BARRIER;
    let unsafe_ones = wgpu::Features::all_experimental_mask();
    let left_out = subgroups | unsafe_ones | wgpu::Features::MAPPABLE_PRIMARY_BUFFERS;
    let request = wgpu::DeviceDescriptor {
        // CubeCL asks the adapter for the types that kernels may have, not the device.
        required_features: adapter.features() & !left_out,
        required_limits: limits,
        ..wgpu::DeviceDescriptor::default()
    };
    let (device, queue) = wait_for(adapter.request_device(&request)).unwrap();
    let backend = adapter.get_info().backend;
    let setup = WgpuSetup { instance, adapter, device, queue, backend };
    Device::wgpu_options().setup(setup).init().unwrap()
}

/// What is ready at once off the web.
fn wait_for<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    loop {
        if let Poll::Ready(found) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return found;
        }
        std::thread::yield_now();
    }
}

/// The limits are those, and own operators compute within them.
pub fn are_webgpus(device: &Device) {
    assert_eq!(largest(device), Some(128 << 20));
    assert_eq!(in_use(device), InUse::Own);
}

/// A result that no buffer of the device holds: an error value that names its bytes, for whoever reads it or
/// what is computed from it; and the device goes on.
pub fn too_large(device: &Device) {
    let bias = |len: usize| Tensor::<1>::ones([len], device);
    let x = Tensor::<5>::ones([1, 1, 64, 64, 64], device);
    // The logits of 129 classes: 135 MB.
    let weight = Tensor::<5>::ones([129, 1, 1, 1, 1], device);
    let logits = conv3d(x.clone(), weight, bias(129), [1; 3]);
    assert_eq!(largest(device), Some(128 << 20));
    let sum = logits.clone().narrow(1, 0, 1).sum();
    for error in [sum.try_into_data().unwrap_err(), logits.try_into_data().unwrap_err()] {
        let message = error.to_string();
        say!("{}", message.lines().find(|line| line.contains("size")).unwrap_or(&message).trim());
        assert!(message.contains(&(129usize << 20).to_string()), "{message}");
    }
    // In pieces of classes it fits.
    let weight = Tensor::<5>::ones([64, 1, 1, 1, 1], device);
    let piece = conv3d(x, weight, bias(64), [1; 3]).narrow(2, 63, 1).sum();
    assert_eq!(piece.try_into_scalar::<f32>().unwrap(), 2.0 * 64.0 * 64.0 * 64.0);
}
