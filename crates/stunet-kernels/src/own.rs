//! Whether operators of this crate compute a tensor, and which.

use burn::tensor::{Device, Tensor};

/// Whose operators of this crate compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Own {
    /// The processor's.
    #[cfg(feature = "cpu")]
    Cpu,
}

/// Whose operators of this crate compute on a device.
pub(crate) fn on(device: &Device) -> Option<Own> {
    #[cfg(feature = "cpu")]
    if crate::cpu::computes_on(device) {
        return Some(Own::Cpu);
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
    };
    has_type.then_some(own)
}
