//! Whether a device computes what this library means: a built-in case, replayed stage by stage.
//!
//! Every operator forward and backward, a whole small network, losses, the optimiser, sliding windows, the
//! way from an image to labels on its grid and to the bytes of a file are computed on the device, each from
//! seeded inputs of its own, and held against values that are part of the program. They were recorded in double
//! precision from the compositions of Burn's operators that define the results
//! ([`stunet_kernels::reference`]), on the processor; where there is no double precision, as in
//! preprocessing, by the functions that golden data of nnU-Net holds. Since no stage reads what another one
//! gave, the first that differs is where the fault is, and the ones after it still tell whether they are
//! right.
//!
//! ```
//! use std::ops::ControlFlow;
//! use stunet::{device, verify::{Storage, StageOutcome, verify}};
//!
//! let mut stages = 0;
//! let found = verify(&device::parse("cpu")?, Storage::F32, &mut |stage| {
//!     stages += 1;
//!     assert_eq!(stage.outcome, StageOutcome::Agrees, "{stage:?}");
//!     // Enough of it, for a test.
//!     if stages < 3 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
//! });
//! assert!(!found.passed() && found.first_failure().is_none(), "not all stages were computed");
//! # Ok::<(), device::DeviceError>(())
//! ```

mod bench;
mod case;
mod network;
mod operators;
mod recorded;
mod stage;

use crate::device::quiet::silently;
use bench::{Bench, Found};
use burn::tensor::{DType, Device};
use recorded::{Recorded, distance};
use stage::Stage;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Instant;

/// In which precision a device stores what it computes with. It multiplies and adds in single precision
/// throughout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// Single precision: all stages.
    F32,
    /// Half precision: the operators.
    F16,
    /// bfloat16: the operators.
    Bf16,
}

impl Storage {
    /// Its type in tensors.
    #[must_use]
    pub const fn dtype(self) -> DType {
        match self {
            Self::F32 => DType::F32,
            Self::F16 => DType::F16,
            Self::Bf16 => DType::BF16,
        }
    }

    /// Its word on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }

    /// The bound of a stage, which rounding of what is stored may raise: some ten times half a last digit,
    /// and in bfloat16 fifty times, as it is coarse enough to turn signs before an activation, and with them
    /// gradients.
    fn bound(self, single: f64) -> f64 {
        match self {
            Self::F32 => single,
            Self::F16 => single.max(12.0 / 4096.0),
            Self::Bf16 => single.max(50.0 / 512.0),
        }
    }
}

/// What became of a stage.
#[derive(Clone, Debug, PartialEq)]
pub enum StageOutcome {
    /// Everything is within the bound.
    Agrees,
    /// Something is not.
    Differs,
    /// It could not be computed; why not, in one line.
    Failed(String),
}

/// A stage, as it was computed.
#[derive(Clone, Debug, PartialEq)]
pub struct StageReport {
    /// Its name.
    pub stage: String,
    /// Which of its results is farthest from what was recorded.
    pub value: String,
    /// How far: the larger of the largest error relative to the largest value, and of the root mean square
    /// error relative to the root mean square; of labels the share that differs.
    pub error: f64,
    /// The largest error that agrees.
    pub bound: f64,
    /// Seconds it took, the compilation of its kernels included.
    pub secs: f64,
    /// What became of it.
    pub outcome: StageOutcome,
}

/// What [`verify`] found.
#[derive(Clone, Debug, PartialEq)]
pub struct Verification {
    /// The stages that were computed.
    pub stages: Vec<StageReport>,
    /// Whether they are all.
    pub complete: bool,
}

impl Verification {
    /// Whether every stage was computed and agrees.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.complete && self.first_failure().is_none()
    }

    /// The first stage that does not agree.
    #[must_use]
    pub fn first_failure(&self) -> Option<&StageReport> {
        self.stages.iter().find(|stage| stage.outcome != StageOutcome::Agrees)
    }
}

/// Number of stages that [`verify`] computes.
#[must_use]
pub fn num_stages(storage: Storage) -> usize {
    stages(storage).len()
}

/// Computes every stage on a device and compares it with what was recorded. `heard` is told of each; its
/// `Break` ends it.
///
/// What a device prints meanwhile is suppressed, and a stage that panics is one that failed.
pub fn verify(
    device: &Device,
    storage: Storage,
    heard: &mut dyn FnMut(&StageReport) -> ControlFlow<()>,
) -> Verification {
    verify_with(device, storage, None, heard)
}

/// As [`verify`], with a wrong value among the inputs of one stage: shows that it is found.
#[doc(hidden)]
pub fn verify_with(
    device: &Device,
    storage: Storage,
    fault: Option<&str>,
    heard: &mut dyn FnMut(&StageReport) -> ControlFlow<()>,
) -> Verification {
    let (recorded, stages) = (recorded::recorded(), stages(storage));
    let mut found = Verification { stages: Vec::new(), complete: true };
    for stage in stages {
        let is_wrong = fault == Some(stage.name.as_str());
        let bench = Bench::new(device, storage.dtype(), &stage.name, is_wrong);
        let report = report(&stage, &bench, storage, &recorded);
        let on = heard(&report);
        found.stages.push(report);
        if on.is_break() {
            found.complete = false;
            break;
        }
    }
    found
}

/// What the stages give on a device in double precision, as [`verify`] keeps it: JSON.
///
/// # Errors
/// When a stage cannot be computed.
#[doc(hidden)]
pub fn record(device: &Device) -> Result<String, String> {
    let one = |stage: Stage| {
        let bench = Bench::new(device, DType::F64, &stage.name, false);
        let found = stage.run(&bench).map_err(|error| format!("{}: {error}", stage.name))?;
        Ok((stage.name, recorded::kept(&found)))
    };
    let all = all_stages().into_iter().map(one).collect::<Result<Recorded, String>>()?;
    serde_json::to_string(&all).map_err(|error| error.to_string())
}

fn all_stages() -> Vec<Stage> {
    [operators::stages(), network::stages(), case::stages()].into_iter().flatten().collect()
}

fn stages(storage: Storage) -> Vec<Stage> {
    let is_asked = |stage: &Stage| stage.any_precision || storage == Storage::F32;
    all_stages().into_iter().filter(is_asked).collect()
}

fn report(stage: &Stage, bench: &Bench, storage: Storage, recorded: &Recorded) -> StageReport {
    let clock = Instant::now();
    let found = compute(stage, bench);
    let secs = clock.elapsed().as_secs_f64();
    let (name, bound) = (stage.name.clone(), storage.bound(stage.bound));
    let (value, error, outcome) = match found {
        Err(reason) => (String::new(), f64::INFINITY, StageOutcome::Failed(reason)),
        Ok(found) => {
            let nothing = BTreeMap::new();
            let far = distance(recorded.get(&stage.name).unwrap_or(&nothing), &found);
            let outcome = match far.error <= bound {
                true => StageOutcome::Agrees,
                false => StageOutcome::Differs,
            };
            (far.value, far.error, outcome)
        }
    };
    StageReport { stage: name, value, error, bound, secs, outcome }
}

/// What a stage gives, or why it gives nothing, in one line.
fn compute(stage: &Stage, bench: &Bench) -> Result<Found, String> {
    let line =
        |text: &dyn ToString| text.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
    let found = silently(|| {
        // As text: the library's errors need not be sent anywhere.
        stunet_kernels::guarded(|| stage.run(bench).map_err(|error| line(&error)))
    });
    found?.map_err(|failure| line(&failure))?
}

#[cfg(test)]
mod tests;
