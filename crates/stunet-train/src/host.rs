//! Where tensors live.

use burn::tensor::Device;

/// Whether tensors of a device lie in the host's memory. Burn says so nowhere but in the name of
/// the backend, and which backends there are is a matter of Cargo features a library must not look
/// at. A wrong answer costs time, not correctness.
pub(crate) fn is_host(device: &Device) -> bool {
    let name = format!("{:?}", device.clone().inner());
    name.starts_with("Device<Flex") || name.starts_with("Device<NdArray")
}
