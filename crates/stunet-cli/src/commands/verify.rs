//! `stunet verify`: whether a device computes what this program means.

use std::ops::ControlFlow;

use serde_json::{Value, json};
use stunet::device::{self, Chosen};
use stunet::verdict::{Verdict, Verified};
use stunet::verify::{StageOutcome, StageReport, Storage, Verification, verify_with};

use crate::args::{StorageArg, VerifyArgs};
use crate::failure::{Interrupted, Told};
use crate::interrupt;
use crate::kept;
use crate::output;

/// Replays the built-in case, prints what differs, and keeps the verdict.
pub fn run(args: &VerifyArgs) -> anyhow::Result<()> {
    interrupt::watch(args.quiet || args.json, "stage")?;
    kept::keep_kernels(args.no_cache);
    let chosen = device::choose(&args.device)?;
    let storage = match args.precision {
        StorageArg::F32 => Storage::F32,
        StorageArg::F16 => Storage::F16,
        StorageArg::Bf16 => Storage::Bf16,
    };
    let lacks = !chosen.device.supports_dtype(storage.dtype());
    anyhow::ensure!(
        !lacks,
        "--precision: expected one that device {} has, found {}; `stunet devices` lists them",
        chosen.name,
        storage.name()
    );
    let verified = Verified::of(&chosen, storage);
    if !args.json {
        introduce(args, &chosen, &verified)?;
    }
    let found = stages(args, &chosen, storage)?;
    let verdict = Verdict::of(verified, &found);
    let kept_at = match (&verdict, kept::folder()) {
        (Some(verdict), Some(cache)) if !args.no_cache => Some(verdict.keep(&cache)?),
        _ => None,
    };
    if args.json {
        output::json(&as_json(&chosen, verdict.as_ref(), &found, kept_at.as_deref()))?;
    } else {
        conclude(args, &chosen, &found)?;
        if let Some(file) = kept_at.filter(|_| !args.quiet) {
            output::line(&format!("verdict: {}", file.display()))?;
        }
    }
    match (found.complete, found.passed()) {
        (false, _) => Err(Interrupted.into()),
        (true, true) => Ok(()),
        (true, false) => Err(Told.into()),
    }
}

/// Computes the stages, and prints each when it is done.
fn stages(args: &VerifyArgs, chosen: &Chosen, storage: Storage) -> anyhow::Result<Verification> {
    let mut told = Ok(());
    let fault = args.fault.as_deref();
    let found = verify_with(&chosen.device, storage, fault, &mut |stage| {
        let is_shown = !args.json && (!args.quiet || stage.outcome != StageOutcome::Agrees);
        if is_shown && told.is_ok() {
            told = output::line(&row(stage));
        }
        match interrupt::asked() || told.is_err() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    told?;
    Ok(found)
}

fn introduce(args: &VerifyArgs, chosen: &Chosen, verified: &Verified) -> anyhow::Result<()> {
    if args.quiet {
        return Ok(());
    }
    let driver = verified.driver.as_ref().map_or(String::new(), |driver| format!(", {driver}"));
    output::line(&format!("{}: {}{driver}", chosen.name, verified.device))?;
    output::line(&format!("{:<46} {:>9} {:>9} {:>8}", "stage", "error", "bound", "seconds"))
}

fn row(stage: &StageReport) -> String {
    let outcome = match &stage.outcome {
        StageOutcome::Agrees => "ok".to_owned(),
        StageOutcome::Differs => format!("FAILED ({})", stage.value),
        StageOutcome::Failed(reason) => format!("FAILED: {reason}"),
    };
    format!(
        "{:<46} {:>9.1e} {:>9.1e} {:>8.2} {outcome}",
        stage.stage, stage.error, stage.bound, stage.secs
    )
}

fn conclude(args: &VerifyArgs, chosen: &Chosen, found: &Verification) -> anyhow::Result<()> {
    let wrong = found.stages.iter().filter(|stage| stage.outcome != StageOutcome::Agrees).count();
    match found.first_failure() {
        Some(first) => {
            output::complain(&format!(
                "device {}: expected the recorded values, found other ones in {wrong} of {} stages, \
                 first in \"{}\"; do not use it for results: update its driver, or take another device",
                chosen.name,
                found.stages.len(),
                first.stage
            ));
            Ok(())
        }
        None if found.complete && !args.quiet => {
            output::line(&format!("{} stages agree", found.stages.len()))
        }
        None => Ok(()),
    }
}

fn as_json(
    chosen: &Chosen,
    verdict: Option<&Verdict>,
    found: &Verification,
    kept_at: Option<&std::path::Path>,
) -> Value {
    let finite = |value: f64| value.is_finite().then_some(value);
    let stage = |stage: &StageReport| {
        let reason = match &stage.outcome {
            StageOutcome::Failed(reason) => Some(reason),
            _ => None,
        };
        json!({
            "stage": stage.stage,
            "value": stage.value,
            "error": finite(stage.error),
            "bound": stage.bound,
            "seconds": stage.secs,
            "ok": stage.outcome == StageOutcome::Agrees,
            "reason": reason,
        })
    };
    json!({
        "device": chosen.name,
        "verified": verdict.map(|verdict| &verdict.verified),
        "complete": found.complete,
        "ok": found.passed(),
        "first_failure": found.first_failure().map(|stage| &stage.stage),
        "stages": found.stages.iter().map(stage).collect::<Vec<_>>(),
        "verdict": kept_at,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_name_what_is_wrong() {
        let stage = StageReport {
            stage: "head".to_owned(),
            value: "result".to_owned(),
            error: f64::INFINITY,
            bound: 2e-5,
            secs: 0.5,
            outcome: StageOutcome::Differs,
        };
        let line = row(&stage);
        assert!(line.starts_with("head ") && line.ends_with("FAILED (result)"), "{line}");
        let failed = StageOutcome::Failed("no memory".to_owned());
        assert!(
            row(&StageReport { outcome: failed, ..stage.clone() }).ends_with("FAILED: no memory")
        );
        assert!(row(&StageReport { outcome: StageOutcome::Agrees, ..stage }).ends_with(" ok"));
    }
}
