//! Whose operators compute on a device.

use burn::tensor::Device;
use std::fmt;

/// Whether a device computes with the operators of this crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum InUse {
    /// The operators of this crate, for tensors in single precision; on GPUs also for those that are stored in
    /// half precision, where the device has it.
    Own,
    /// Burn's operators: none of this crate's is written for the device, or compiled in for it. Those for
    /// GPUs come with the feature `gpu`, and not where Burn fuses kernels.
    BurnForDevice,
    /// Burn's operators on every device: this crate was compiled without its feature `cpu`.
    BurnForBuild,
}

impl fmt::Display for InUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Own => "the operators of stunet-kernels",
            Self::BurnForDevice => {
                "Burn's operators: stunet-kernels was compiled with none for this device"
            }
            Self::BurnForBuild => {
                "Burn's operators, several times slower on the processor: stunet-kernels was \
                 compiled without its feature `cpu`"
            }
        })
    }
}

/// Whose operators compute on a device; its `Display` says it in words, and why.
///
/// ```
/// use burn::tensor::Device;
/// use stunet_kernels::{InUse, in_use};
///
/// let found = in_use(&Device::flex());
/// assert_eq!(found == InUse::Own, cfg!(feature = "cpu"), "{found}");
/// ```
pub fn in_use(device: &Device) -> InUse {
    #[cfg(feature = "_own")]
    if crate::own::on(device).is_some() {
        return InUse::Own;
    }
    let _ = device;
    if cfg!(feature = "cpu") { InUse::BurnForDevice } else { InUse::BurnForBuild }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said is what runs.
    #[test]
    fn what_is_said_runs() {
        use burn::tensor::Tensor;
        for device in [Device::flex(), Device::flex().autodiff()] {
            let x = Tensor::<5>::ones([1, 1, 2, 2, 2], &device);
            let (_, steps) = crate::steps(|| crate::upsample_nearest(x, [2; 3]));
            let own = steps[0].algorithm != crate::Algorithm::Reference;
            assert_eq!(in_use(&device) == InUse::Own, own);
        }
    }
}
