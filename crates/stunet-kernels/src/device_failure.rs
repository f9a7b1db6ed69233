//! A device that did not compute, as an error value.
//!
//! Devices compute later than they are asked to. CubeCL notes what failed at the tensors that were to be
//! written, and tells it when one of them is read; wgpu panics where it finds that it misses something.
//! Everything that reads a tensor does so through [`read`], and [`guarded`] is what turns both into one
//! value, in the thread that asked for the work.

use burn::tensor::{Bool, Device, ExecutionError, Float, Int, Tensor, TensorData};
use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

/// What kept a device from computing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeviceFault {
    /// Its memory is full. What was held for the work is free again: smaller work may succeed.
    OutOfMemory,
    /// A tensor is larger than any that the device takes.
    TooLarge,
    /// A kernel wants more of the device than it has: threads, shared memory.
    Limit,
    /// It does not have a type or an instruction that a kernel needs.
    Unsupported,
    /// Its driver has given it up, or it is gone. This process cannot use it again.
    Lost,
    /// Anything else that its driver complains of.
    Other,
}

impl DeviceFault {
    /// What happened, and what to do.
    const fn words(self) -> [&'static str; 2] {
        match self {
            Self::OutOfMemory => [
                "its memory is full",
                "close other programs that use it, or let it do less at a time",
            ],
            Self::TooLarge => [
                "a tensor is larger than any that it takes",
                "take smaller windows or a smaller network, or another device",
            ],
            Self::Limit => {
                ["a kernel needs more threads or shared memory than it has", "take another device"]
            }
            Self::Unsupported => [
                "it lacks a type or an instruction that a kernel needs",
                "take another precision or another device",
            ],
            Self::Lost => [
                "its driver has given it up, or it is gone",
                "begin again; if it happens again, update the driver or take another device",
            ],
            Self::Other => ["its driver complains", "update the driver, or take another device"],
        }
    }
}

/// Why a device did not compute, in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceFailure {
    /// What kept it from computing.
    pub fault: DeviceFault,
    /// The driver's own words, cut to one line.
    pub reason: String,
}

impl fmt::Display for DeviceFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [what, advice] = self.fault.words();
        write!(f, "device: {what}; {advice} ({})", self.reason)
    }
}

impl std::error::Error for DeviceFailure {}

/// What a driver says, in small letters, and what that means.
const MEANINGS: &[(&str, DeviceFault)] = &[
    ("out of memory", DeviceFault::OutOfMemory),
    ("out-of-memory", DeviceFault::OutOfMemory),
    ("out_of_memory", DeviceFault::OutOfMemory),
    ("out of device memory", DeviceFault::OutOfMemory),
    ("every page size the memory tracks", DeviceFault::OutOfMemory),
    ("can't allocate buffer of size", DeviceFault::TooLarge),
    ("device is poisoned", DeviceFault::Lost),
    ("device was poisoned", DeviceFault::Lost),
    ("device is lost", DeviceFault::Lost),
    ("device lost", DeviceFault::Lost),
    ("device_lost", DeviceFault::Lost),
    ("too many resources", DeviceFault::Limit),
    ("exceeds maximum", DeviceFault::Limit),
    ("too much shared memory", DeviceFault::Limit),
    ("compilation error happened", DeviceFault::Unsupported),
];

/// Words that only a driver, or what speaks for it, begins a panic with.
const DRIVERS: &[&str] = &["wgpu error", "An error happened during execution", "CUDA_ERROR"];

impl DeviceFailure {
    fn of(fault: Option<DeviceFault>, text: &str) -> Self {
        let fault = fault.or_else(|| meaning(text)).unwrap_or(DeviceFault::Other);
        Self { fault, reason: reason(text) }
    }

    /// Why a synchronisation or a read failed.
    pub fn from_execution(error: &ExecutionError) -> Self {
        let lost = error.is_device_poisoned().then_some(DeviceFault::Lost);
        Self::of(lost, error.reason())
    }

    /// What a panic says, if a driver or CubeCL said it.
    fn from_panic(payload: &(dyn Any + Send)) -> Option<Self> {
        if let Some(failure) = payload.downcast_ref::<Self>() {
            return Some(failure.clone());
        }
        let text = payload.downcast_ref::<String>().map(String::as_str);
        Self::from_message(text.or_else(|| payload.downcast_ref::<&str>().copied())?)
    }

    /// What a message says, such as that of a panic in a thread of a driver; none if no driver said it.
    pub fn from_message(text: &str) -> Option<Self> {
        let is_drivers = DRIVERS.iter().any(|words| text.contains(words));
        // The host's own memory is no device's: its operators say so in words of their own.
        let is_hosts = text.contains("no memory for a tensor");
        let meant = meaning(text).filter(|_| !is_hosts);
        (is_drivers || meant.is_some()).then(|| Self::of(meant, text))
    }
}

fn meaning(text: &str) -> Option<DeviceFault> {
    let text = text.to_ascii_lowercase();
    MEANINGS.iter().find(|(words, _)| text.contains(words)).map(|(_, fault)| *fault)
}

/// The line of a driver's message that says most: the root, not what it led to, and no backtrace.
fn reason(text: &str) -> String {
    let lines = || text.lines().map(str::trim).filter(|line| !line.is_empty());
    let telling = lines().find(|line| meaning(line).is_some());
    let cause = lines().skip_while(|line| !line.starts_with("Caused by")).nth(1);
    telling.or(cause).or_else(|| lines().next()).unwrap_or("no reason given").to_owned()
}

/// The kinds of tensors that are read.
pub trait Readable: Sized {
    /// Waits for the values and copies them to the host.
    ///
    /// # Errors
    /// When the device did not compute them.
    fn try_read(self) -> Result<TensorData, ExecutionError>;
}

macro_rules! readable {
    ($kind:ty) => {
        impl<const D: usize> Readable for Tensor<D, $kind> {
            fn try_read(self) -> Result<TensorData, ExecutionError> {
                self.try_into_data()
            }
        }
    };
}

readable!(Float);
readable!(Int);
readable!(Bool);

/// The values of a tensor on the host.
///
/// # Panics
/// When the device did not compute them, with a [`DeviceFailure`] that [`guarded`] turns into a value.
/// Nothing is printed then.
pub fn read(tensor: impl Readable) -> TensorData {
    match tensor.try_read() {
        Ok(data) => data,
        Err(error) => resume_unwind(Box::new(DeviceFailure::from_execution(&error))),
    }
}

/// Waits until the device has computed what it was given.
///
/// # Errors
/// When it did not.
pub fn synchronized(device: &Device) -> Result<(), DeviceFailure> {
    device.sync().map_err(|error| DeviceFailure::from_execution(&error))
}

/// Does some work; what its device did not compute becomes an error. A panic of any other origin goes on.
///
/// After an error nothing of the work is left on the device, and, unless the device is lost, the next work
/// can begin.
///
/// # Errors
/// When a tensor that was read had not been computed, or a driver panicked.
pub fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, DeviceFailure> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|payload| {
        DeviceFailure::from_panic(&*payload).unwrap_or_else(|| resume_unwind(payload))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_panic(text: &str) -> Option<DeviceFault> {
        DeviceFailure::from_panic(&text.to_owned() as &(dyn Any + Send)).map(|found| found.fault)
    }

    #[test]
    fn what_drivers_say() {
        let cases = [
            ("wgpu error: Validation Error", DeviceFault::Other),
            ("wgpu error: Out of Memory", DeviceFault::OutOfMemory),
            ("An error happened during execution\nCaused by:\n  strange", DeviceFault::Other),
            ("x: Parent device is lost", DeviceFault::Lost),
            ("VK_ERROR_DEVICE_LOST", DeviceFault::Lost),
            ("A compilation error happened during launch", DeviceFault::Unsupported),
            ("Total unit count exceeds maximum.", DeviceFault::Limit),
            ("can't allocate buffer of size: 7", DeviceFault::TooLarge),
        ];
        for (text, fault) in cases {
            assert_eq!(of_panic(text), Some(fault), "{text}");
        }
        for foreign in ["index out of bounds", "no memory for a tensor of 4 bytes"] {
            assert_eq!(of_panic(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn the_root_in_one_line() {
        let told = "An IO error happened\nCaused by:\n  out of device memory allocating 7 bytes\n   0: a\n";
        let failure = DeviceFailure::from_execution(&ExecutionError::with_context(told));
        assert_eq!(failure.fault, DeviceFault::OutOfMemory);
        assert_eq!(failure.reason, "out of device memory allocating 7 bytes");
        assert_eq!(failure.to_string().lines().count(), 1);
        let lost =
            DeviceFailure::from_execution(&ExecutionError::device_poisoned("reset\nby peer"));
        assert_eq!((lost.fault, lost.reason.as_str()), (DeviceFault::Lost, "reset"));
    }

    #[test]
    fn only_devices_become_values() {
        assert_eq!(guarded(|| 3), Ok(3));
        let failure = DeviceFailure { fault: DeviceFault::Lost, reason: "gone".to_owned() };
        let thrown = failure.clone();
        let caught = guarded(|| -> () {
            std::thread::scope(|scope| {
                let work = scope.spawn(|| resume_unwind(Box::new(thrown)));
                work.join().unwrap_or_else(|panic| resume_unwind(panic))
            })
        });
        assert_eq!(caught, Err(failure));
        let foreign = catch_unwind(|| guarded(|| -> () { resume_unwind(Box::new("a bug")) }));
        assert_eq!(foreign.unwrap_err().downcast_ref::<&str>(), Some(&"a bug"));
    }
}
