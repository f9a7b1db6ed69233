//! What a device says of its memory.

use burn::tensor::Device;

/// The memory of a GPU, as its driver tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeviceMemory {
    /// Most bytes of one tensor.
    pub most_at_once: u64,
    /// Bytes of all memory; none where the driver does not say, as in browsers. How much of it other
    /// programs use is told by no driver.
    pub total: Option<u64>,
}

/// What a GPU on which the operators of this crate compute says of its memory; none for any other device.
///
/// ```
/// use burn::tensor::Device;
/// assert_eq!(stunet_kernels::device_memory(&Device::flex()), None);
/// ```
pub fn device_memory(device: &Device) -> Option<DeviceMemory> {
    #[cfg(feature = "gpu")]
    return crate::gpu::memory(device)
        .map(|(most_at_once, total)| DeviceMemory { most_at_once, total });
    #[cfg(not(feature = "gpu"))]
    {
        let _ = device;
        None
    }
}
