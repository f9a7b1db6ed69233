//! The choice of a device: from the text of `--device` to a Burn [`Device`].
//!
//! Burn compiles one backend per Cargo feature and takes the device at run time. A backend that is
//! compiled in need not be usable: a binary built with `cuda` also starts on machines without an NVIDIA
//! driver. Only this module deals with both, and only it has `cfg(feature = "cuda")`.
//!
//! ```
//! let device = stunet::device::parse("cpu")?;
//! assert!(stunet::device::parse("abacus").is_err());
//! # let _ = device;
//! # Ok::<(), stunet::device::DeviceError>(())
//! ```

mod described;
#[cfg(feature = "wgpu")]
mod driver;
pub(crate) mod quiet;

use std::fmt;
use std::str::FromStr;

use burn::prelude::Device;
use burn::tensor::Tensor;
pub use described::{DeviceDescription, Processor};
use quiet::silently;

/// What the user can write after `--device`, for help texts and error messages.
pub const SYNTAX: &str = "auto|cpu|cuda[:N]|vulkan[:N]|wgpu[:N]|metal[:N]|ndarray";

/// A way to compute, named as on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backend {
    /// Pure Rust on the processor (Burn's `flex`; not CubeCL's `cpu`).
    Cpu,
    /// NVIDIA GPUs.
    Cuda,
    /// Any GPU with a Vulkan driver, through SPIR-V.
    Vulkan,
    /// Any GPU that wgpu reaches, through whichever graphics interface it settles on.
    Wgpu,
    /// Apple GPUs.
    Metal,
    /// The older pure-Rust backend on the processor; deprecated in Burn.
    NdArray,
}

impl Backend {
    /// Every backend, in the order in which `auto` prefers them.
    pub const ALL: [Self; 6] =
        [Self::Cuda, Self::Metal, Self::Vulkan, Self::Wgpu, Self::Cpu, Self::NdArray];

    /// Its word on the command line, which is also the Cargo feature that compiles it in.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::Vulkan => "vulkan",
            Self::Wgpu => "wgpu",
            Self::Metal => "metal",
            Self::NdArray => "ndarray",
        }
    }

    /// Whether this binary was built with it.
    #[must_use]
    pub const fn is_compiled_in(self) -> bool {
        match self {
            Self::Cpu => cfg!(feature = "cpu"),
            Self::Cuda => cfg!(feature = "_cuda"),
            Self::Vulkan => cfg!(feature = "vulkan"),
            Self::Wgpu => cfg!(feature = "wgpu"),
            Self::Metal => cfg!(feature = "metal"),
            Self::NdArray => cfg!(feature = "ndarray"),
        }
    }

    /// Whether it computes on a GPU, of which there may be several.
    #[must_use]
    pub const fn is_gpu(self) -> bool {
        !matches!(self, Self::Cpu | Self::NdArray)
    }

    /// What a machine needs for this backend to find a device.
    const fn requirement(self) -> &'static str {
        match self {
            Self::Cuda => "an NVIDIA GPU and its driver (libcuda)",
            Self::Vulkan => "a GPU with a Vulkan driver",
            Self::Wgpu => "a GPU with a Vulkan, Metal or DirectX 12 driver",
            Self::Metal => "an Apple GPU",
            Self::Cpu | Self::NdArray => "a processor",
        }
    }
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A device as the user asked for it: checked for spelling only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceRequest {
    /// The first usable GPU, else the processor.
    Auto,
    /// One device of one backend.
    Named {
        /// The backend.
        backend: Backend,
        /// Which of its devices, in the order of [`list`].
        index: usize,
    },
}

impl FromStr for DeviceRequest {
    type Err = DeviceError;

    /// # Errors
    ///
    /// [`DeviceError::Syntax`] for anything but [`SYNTAX`].
    fn from_str(text: &str) -> Result<Self, DeviceError> {
        let syntax = || DeviceError::Syntax { found: text.to_owned() };
        if text == "auto" {
            return Ok(Self::Auto);
        }
        let (word, index) = match text.split_once(':') {
            Some((word, index)) => (word, Some(index)),
            None => (text, None),
        };
        let backend =
            Backend::ALL.into_iter().find(|backend| backend.name() == word).ok_or_else(syntax)?;
        let index = match index {
            None => 0,
            // `cpu:0` would promise a choice that does not exist.
            Some(_) if !backend.is_gpu() => return Err(syntax()),
            Some(index) => index.parse().map_err(|_| syntax())?,
        };
        Ok(Self::Named { backend, index })
    }
}

/// A device that has computed something, under the name it is asked for by.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// `cpu`, `cuda:0`, …
    pub name: String,
    /// What computes on it.
    pub backend: Backend,
    /// Which of the backend's devices, in the order of [`list`].
    pub index: usize,
    /// Burn's handle.
    pub device: Device,
}

impl Chosen {
    /// What it is, as far as it says so.
    #[must_use]
    pub fn description(&self) -> DeviceDescription {
        describe(self.backend, &self.device)
    }

    /// Bytes that this program has reserved on the device; none on a processor.
    #[must_use]
    pub fn reserved_bytes(&self) -> Option<u64> {
        let usage = if self.backend.is_gpu() { self.device.memory_pool_usage() } else { None };
        usage.map(|usage| usage.bytes_reserved)
    }
}

/// One backend as seen by `stunet devices`.
#[derive(Clone, Debug)]
pub struct BackendStatus {
    /// The backend.
    pub backend: Backend,
    /// Whether this binary was built with it.
    pub compiled_in: bool,
    /// The devices it finds here; empty when not compiled in.
    pub devices: Vec<FoundDevice>,
}

/// A device that a backend lists on this machine.
#[derive(Clone, Debug)]
pub struct FoundDevice {
    /// The name to ask for it by, e.g. `cuda:0`.
    pub name: String,
    /// A processor posing as a GPU (lavapipe, WARP): usable when named, never chosen by `auto`.
    pub software: bool,
    /// Whether it computed, and then what it is; otherwise why not, in one line.
    pub usable: Result<DeviceDescription, String>,
}

/// Why there is no device. Every message is one line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// Not a device's name at all.
    #[error("--device: expected {SYNTAX}, found {found:?}")]
    Syntax {
        /// What was written.
        found: String,
    },
    /// A known backend that this binary lacks.
    #[error(
        "device {backend}: not compiled into this binary; build with `--features {backend}` (compiled in: {compiled})"
    )]
    NotCompiledIn {
        /// The backend that was asked for.
        backend: Backend,
        /// Those that are there.
        compiled: String,
    },
    /// A backend without any device on this machine.
    #[error("device {backend}: none found on this machine; it needs {}", backend.requirement())]
    NoDevice {
        /// The backend that was asked for.
        backend: Backend,
    },
    /// An index past the last device.
    #[error("device {backend}:{index}: not there, expected one of {available}")]
    NoSuchIndex {
        /// The backend that was asked for.
        backend: Backend,
        /// The index that was asked for.
        index: usize,
        /// The names that would have been right.
        available: String,
    },
    /// Devices that cannot share one training.
    #[error("--device: expected different devices of one backend, found {found:?}")]
    Mixed {
        /// Their names.
        found: String,
    },
    /// Listed by its driver, but it cannot compute.
    #[error("device {name}: found but not usable: {reason}")]
    NotUsable {
        /// The device.
        name: String,
        /// The driver's own words, cut to one line.
        reason: String,
    },
}

/// The device that `text` asks for; see [`choose`].
///
/// # Errors
///
/// As [`choose`].
pub fn parse(text: &str) -> Result<Device, DeviceError> {
    Ok(choose(text)?.device)
}

/// The device that `text` (as in [`SYNTAX`]) asks for, after it has computed something.
///
/// `auto` is the first GPU that computes, in the order of [`Backend::ALL`], else the processor.
/// Without an index a backend's first device is meant.
///
/// # Errors
///
/// A [`DeviceError`] of one line when the word is none of [`SYNTAX`], when the backend is not
/// compiled in, and when there is no such device or it does not run. A driver's panic becomes an
/// error as well.
pub fn choose(text: &str) -> Result<Chosen, DeviceError> {
    match text.parse()? {
        DeviceRequest::Auto => choose_auto(),
        DeviceRequest::Named { backend, index } => choose_named(backend, index),
    }
}

/// The devices that share one training, of one kind and, where they are GPUs, all different.
#[derive(Clone, Debug)]
pub struct Devices {
    first: Chosen,
    others: Vec<Chosen>,
}

impl Devices {
    /// The one that counts.
    #[must_use]
    pub fn first(&self) -> &Chosen {
        &self.first
    }

    /// The other devices.
    pub fn others(&self) -> impl Iterator<Item = &Chosen> {
        self.others.iter()
    }

    /// Their names, separated by commas.
    #[must_use]
    pub fn names(&self) -> String {
        let all = std::iter::once(&self.first).chain(&self.others);
        all.map(|chosen| chosen.name.as_str()).collect::<Vec<_>>().join(",")
    }

    /// Whether they can add their gradients up without a detour over the first: CUDA devices in a
    /// binary built with the feature `distributed`.
    #[must_use]
    pub fn reduce_among_themselves(&self) -> bool {
        let cuda = self.first.backend == Backend::Cuda;
        cfg!(feature = "distributed") && cuda && !self.others.is_empty()
    }
}

/// The devices that the words (each as in [`SYNTAX`]) ask for; see [`choose`].
///
/// The processor may be named more than once, which shows what several devices do without having
/// them.
///
/// # Errors
///
/// As [`choose`], and [`DeviceError::Mixed`] when the devices are of several backends or a GPU is
/// named twice.
pub fn choose_all(texts: &[impl AsRef<str>]) -> Result<Devices, DeviceError> {
    let mut all = texts.iter().map(|text| choose(text.as_ref())).collect::<Result<Vec<_>, _>>()?;
    let mixed = |all: &[Chosen]| {
        let names: Vec<_> = all.iter().map(|chosen| chosen.name.as_str()).collect();
        Err(DeviceError::Mixed { found: names.join(",") })
    };
    for (index, one) in all.iter().enumerate() {
        let same = |other: &Chosen| other.index == one.index && other.backend == one.backend;
        let twice = one.backend.is_gpu() && all[..index].iter().any(same);
        if twice || one.backend != all[0].backend {
            return mixed(&all);
        }
    }
    if all.is_empty() {
        return mixed(&all);
    }
    let others = all.split_off(1);
    Ok(Devices { first: all.remove(0), others })
}

/// Every backend, whether it is compiled in, and the devices it finds.
///
/// Opens each device for a trial, so it may take seconds on a machine with several GPUs.
#[must_use]
pub fn list() -> Vec<BackendStatus> {
    Backend::ALL
        .into_iter()
        .map(|backend| BackendStatus {
            backend,
            compiled_in: backend.is_compiled_in(),
            devices: devices_of(backend)
                .into_iter()
                .enumerate()
                .map(|(index, found)| FoundDevice {
                    name: device_name(backend, index),
                    software: found.software,
                    usable: try_out(&found.device).map(|()| describe(backend, &found.device)),
                })
                .collect(),
        })
        .collect()
}

fn choose_auto() -> Result<Chosen, DeviceError> {
    for backend in Backend::ALL.into_iter().filter(|backend| backend.is_gpu()) {
        for (index, found) in devices_of(backend).into_iter().enumerate() {
            if !found.software && try_out(&found.device).is_ok() {
                let name = device_name(backend, index);
                return Ok(Chosen { name, backend, index, device: found.device });
            }
        }
    }
    let processor = if Backend::Cpu.is_compiled_in() || !Backend::NdArray.is_compiled_in() {
        Backend::Cpu
    } else {
        Backend::NdArray
    };
    choose_named(processor, 0)
}

fn choose_named(backend: Backend, index: usize) -> Result<Chosen, DeviceError> {
    if !backend.is_compiled_in() {
        let compiled: Vec<_> = Backend::ALL
            .into_iter()
            .filter(|backend| backend.is_compiled_in())
            .map(Backend::name)
            .collect();
        return Err(DeviceError::NotCompiledIn { backend, compiled: compiled.join(", ") });
    }
    let mut found = devices_of(backend);
    if found.is_empty() {
        return Err(DeviceError::NoDevice { backend });
    }
    if index >= found.len() {
        let names: Vec<_> = (0..found.len()).map(|index| device_name(backend, index)).collect();
        return Err(DeviceError::NoSuchIndex { backend, index, available: names.join(", ") });
    }
    let name = device_name(backend, index);
    let device = found.swap_remove(index).device;
    match try_out(&device) {
        Ok(()) => Ok(Chosen { name, backend, index, device }),
        Err(reason) => Err(DeviceError::NotUsable { name, reason }),
    }
}

fn device_name(backend: Backend, index: usize) -> String {
    if backend.is_gpu() { format!("{backend}:{index}") } else { backend.to_string() }
}

struct Listed {
    device: Device,
    software: bool,
}

/// What a device that computes says of itself.
fn describe(backend: Backend, device: &Device) -> DeviceDescription {
    let facts = silently(|| stunet_kernels::device_facts(device)).ok().flatten();
    let Some(facts) = facts else { return DeviceDescription::of_processor() };
    let driver = match backend {
        Backend::Cuda => described::nvidia_driver(),
        _ => adapter_driver(&facts.name),
    };
    DeviceDescription::of_gpu(facts, driver)
}

#[cfg(feature = "wgpu")]
fn adapter_driver(name: &str) -> Option<String> {
    silently(|| driver::of_adapter(name)).ok().flatten()
}

#[cfg(not(feature = "wgpu"))]
fn adapter_driver(_: &str) -> Option<String> {
    None
}

/// What the backend lists, true GPUs before software ones; nothing when it is not compiled in.
fn devices_of(backend: Backend) -> Vec<Listed> {
    let hardware = |device| Listed { device, software: false };
    let listed = silently(|| match backend {
        #[cfg(feature = "cpu")]
        Backend::Cpu => vec![hardware(Device::flex())],
        #[cfg(feature = "ndarray")]
        #[allow(deprecated, reason = "kept because users ask for it")]
        Backend::NdArray => vec![hardware(Device::ndarray())],
        #[cfg(feature = "_cuda")]
        Backend::Cuda => {
            Device::enumerate(burn::tensor::DeviceType::Cuda).into_iter().map(hardware).collect()
        }
        #[cfg(feature = "wgpu")]
        Backend::Wgpu => {
            mark_software(burn::tensor::DeviceType::Wgpu, &Device::wgpu(SOFTWARE_ADAPTER))
        }
        #[cfg(feature = "vulkan")]
        Backend::Vulkan => {
            mark_software(burn::tensor::DeviceType::Vulkan, &Device::vulkan(SOFTWARE_ADAPTER))
        }
        #[cfg(feature = "metal")]
        Backend::Metal => {
            mark_software(burn::tensor::DeviceType::Metal, &Device::metal(SOFTWARE_ADAPTER))
        }
        #[allow(unreachable_patterns, reason = "reached unless every feature is on")]
        _ => {
            let _ = &hardware;
            Vec::new()
        }
    });
    // A driver that panics while it is being asked offers no device.
    let mut listed: Vec<Listed> = listed.unwrap_or_default();
    listed.sort_by_key(|found| found.software);
    listed
}

/// wgpu gives all software adapters this one kind.
#[cfg(feature = "wgpu")]
const SOFTWARE_ADAPTER: burn::tensor::DeviceKind = burn::tensor::DeviceKind::Cpu;

#[cfg(feature = "wgpu")]
fn mark_software(kind: burn::tensor::DeviceType, software: &Device) -> Vec<Listed> {
    Device::enumerate(kind)
        .into_iter()
        .map(|device| Listed { software: device == *software, device })
        .collect()
}

/// Computes a handful of numbers: an old driver or a full GPU is found here, not in mid-prediction.
fn try_out(device: &Device) -> Result<(), String> {
    let sum = silently(|| {
        let three = Tensor::<1>::ones([4], device).add_scalar(2.0);
        three.into_data().iter::<f32>().sum::<f32>()
    })?;
    if sum == 12.0 { Ok(()) } else { Err(format!("a trial sum gave {sum}, expected 12")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<DeviceRequest>) {
        assert_eq!(text.parse::<DeviceRequest>().ok(), expected, "{text:?}");
    }

    fn named(backend: Backend, index: usize) -> Option<DeviceRequest> {
        Some(DeviceRequest::Named { backend, index })
    }

    #[test]
    fn requests() {
        check("auto", Some(DeviceRequest::Auto));
        check("cpu", named(Backend::Cpu, 0));
        check("ndarray", named(Backend::NdArray, 0));
        check("cuda", named(Backend::Cuda, 0));
        check("cuda:3", named(Backend::Cuda, 3));
        check("vulkan:1", named(Backend::Vulkan, 1));
        check("wgpu:0", named(Backend::Wgpu, 0));
        check("metal", named(Backend::Metal, 0));
        for wrong in ["", "gpu", "CUDA", "cuda:", "cuda:-1", "cuda:x", "cuda:0:1", "cpu:0", " cpu"]
        {
            check(wrong, None);
        }
    }

    #[test]
    fn errors_are_one_line_and_say_what_to_do() {
        for backend in Backend::ALL {
            if backend.is_compiled_in() {
                continue;
            }
            let message = choose(backend.name()).unwrap_err().to_string();
            assert_eq!(message.lines().count(), 1);
            assert!(message.contains(&format!("--features {backend}")), "{message}");
        }
        let message = choose("abacus").unwrap_err().to_string();
        assert!(message.contains(SYNTAX) && message.contains("abacus"), "{message}");
    }

    #[test]
    fn a_gpu_that_is_not_there_is_one_line() {
        for backend in Backend::ALL.into_iter().filter(|b| b.is_gpu() && b.is_compiled_in()) {
            let message = choose(&format!("{backend}:4096")).unwrap_err().to_string();
            assert_eq!(message.lines().count(), 1, "{message}");
        }
    }

    #[cfg(feature = "cpu")]
    #[test]
    fn several_devices() {
        let devices = choose_all(&["cpu", "cpu"]).unwrap();
        assert_eq!((devices.names().as_str(), devices.others().count()), ("cpu,cpu", 1));
        assert!(!devices.reduce_among_themselves());
        assert_eq!(choose_all(&["cpu"]).unwrap().names(), "cpu");
        let none: [&str; 0] = [];
        assert!(matches!(choose_all(&none), Err(DeviceError::Mixed { .. })));
        assert!(choose_all(&["cpu", "abacus"]).is_err());
        #[cfg(feature = "ndarray")]
        assert!(matches!(choose_all(&["cpu", "ndarray"]), Err(DeviceError::Mixed { .. })));
    }

    #[cfg(feature = "cpu")]
    #[test]
    fn auto_never_fails_with_a_processor() {
        assert!(choose("auto").is_ok());
        assert_eq!(choose("cpu").unwrap().name, "cpu");
        assert_eq!(list().len(), Backend::ALL.len());
    }
}
