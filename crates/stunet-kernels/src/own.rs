//! Whether operators of this crate compute a tensor, and which.

use burn::tensor::{Device, Tensor};

/// Whose operators of this crate compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Own {
    /// The processor's.
    #[cfg(feature = "cpu")]
    Cpu,
    /// A GPU's.
    #[cfg(feature = "gpu")]
    Gpu,
}

/// Whose operators of this crate compute on a device.
pub(crate) fn on(device: &Device) -> Option<Own> {
    #[cfg(feature = "cpu")]
    if crate::cpu::computes_on(device) {
        return Some(Own::Cpu);
    }
    #[cfg(feature = "gpu")]
    if crate::gpu::computes_on(device) {
        return Some(Own::Gpu);
    }
    let _ = device;
    None
}

/// Whose operators of this crate take a tensor.
pub(crate) fn takes<const D: usize>(x: &Tensor<D>) -> Option<Own> {
    let own = on(&x.device())?;
    let has_type = match own {
        #[cfg(feature = "cpu")]
        Own::Cpu => crate::cpu::takes(x.dtype()),
        #[cfg(feature = "gpu")]
        Own::Gpu => crate::gpu::takes(&x.device(), x.dtype()),
    };
    has_type.then_some(own)
}
