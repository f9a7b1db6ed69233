//! What a device says of itself.

use burn::tensor::{DType, Device};

/// Whether this processor multiplies eight-bit numbers faster than others: with AVX-512 VNNI, and operators for the
/// processor compiled in.
pub fn has_eight_bit_products() -> bool {
    #[cfg(feature = "cpu")]
    {
        crate::cpu::eight_bit::has_instructions()
    }
    #[cfg(not(feature = "cpu"))]
    {
        false
    }
}

/// Name and limits of a GPU, or of what passes for one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceFacts {
    /// As its driver names it.
    pub name: String,
    /// What kernels are compiled for, such as `ptx_sm_90`: devices that differ here share no compiled kernels.
    pub target: String,
    /// Bytes of its memory, where the driver tells.
    pub memory_bytes: Option<u64>,
    /// Bytes of the largest tensor.
    pub largest_tensor_bytes: u64,
    /// Bytes of memory that the threads of a workgroup share.
    pub shared_memory_bytes: u64,
    /// Threads of a workgroup.
    pub threads: u32,
    /// Tensors that a kernel can be given.
    pub bindings: u32,
    /// Threads that run in step: fewest and most.
    pub subgroup: [u32; 2],
    /// Types that values can be stored in and computed with.
    pub types: Vec<DType>,
}

/// Types that a network may be stored in.
const TYPES: [DType; 4] = [DType::F32, DType::F16, DType::BF16, DType::F64];

/// What a device says of itself; none of the processor, and where this crate was compiled without `gpu`.
pub fn device_facts(device: &Device) -> Option<DeviceFacts> {
    #[cfg(feature = "gpu")]
    {
        let device = device.clone().without_autodiff();
        let burn::backend::DispatchDevice::Cube(cube) = device.as_dispatch() else { return None };
        let client = cube.client();
        let properties = client.properties();
        let hardware = &properties.hardware;
        Some(DeviceFacts {
            name: properties.identity.name.clone(),
            target: properties.identity.fingerprint.clone(),
            memory_bytes: properties.memory.max_memory(),
            largest_tensor_bytes: properties.memory.max_page_size,
            shared_memory_bytes: hardware.max_shared_memory_size as u64,
            threads: hardware.max_units_per_cube,
            bindings: hardware.max_bindings,
            subgroup: [hardware.plane_size_min, hardware.plane_size_max],
            types: TYPES.into_iter().filter(|dtype| device.supports_dtype(*dtype)).collect(),
        })
    }
    #[cfg(not(feature = "gpu"))]
    {
        let _ = (device, TYPES);
        None
    }
}

/// The instructions that the processor's operators use, such as `AVX-512, 16 values at a time`; none where
/// this crate was compiled without `cpu`.
pub fn vector_instructions() -> Option<String> {
    #[cfg(feature = "cpu")]
    return Some(crate::cpu::vector_instructions());
    #[cfg(not(feature = "cpu"))]
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_has_vectors_and_no_limits() {
        assert_eq!(device_facts(&Device::flex()), None);
        assert_eq!(vector_instructions().is_some(), cfg!(feature = "cpu"));
        if let Some(told) = vector_instructions() {
            assert!(told.ends_with("values at a time"), "{told}");
        }
    }
}
