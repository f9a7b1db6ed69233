//! Messages on standard output while cases are predicted.

use std::sync::PoisonError;

use stunet::infer::{Architecture, PredictEvent};

use super::Session;
use crate::jobs::Job;
use crate::output;
use crate::report::{CaseResult, Report};

/// The kind of network and its size.
pub(super) fn network(architecture: &Architecture) -> String {
    match architecture.stunet() {
        Some(config) => {
            format!("{architecture} {}", config.size().map_or("custom", |size| size.name()))
        }
        None => architecture.to_string(),
    }
}

impl Session<'_> {
    /// Says something, unless that has failed before: cases go on where nobody can be told of them.
    pub(super) fn say(&self, line: &str) {
        let mut unsaid = self.unsaid.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.args.quiet && unsaid.is_none() {
            *unsaid = output::line(line).err();
        }
    }

    /// Whether all could be said.
    pub(super) fn said(&self) -> anyhow::Result<()> {
        match self.unsaid.lock().unwrap_or_else(PoisonError::into_inner).take() {
            None => Ok(()),
            Some(error) => Err(error),
        }
    }

    /// One line about the memory and time that a case will need.
    pub(super) fn tell_plan(&self, job: &Job, event: PredictEvent) {
        let PredictEvent::Plan {
            num_tiles,
            num_windows,
            num_repeated,
            sums_bytes,
            total_bytes,
            device_bytes,
            secs,
        } = event
        else {
            return;
        };
        let tiles = match num_tiles {
            1 => String::new(),
            tiles => format!(" in {tiles} tiles ({num_repeated} windows repeated)"),
        };
        let place = match (device_bytes, self.args.device_memory) {
            (0, None) => String::new(),
            // More than was allowed, or in half precision.
            (0, Some(_)) => ", accumulators on the host".to_owned(),
            (bytes, _) => format!(", {} of device memory for accumulators", output::bytes(bytes)),
        };
        let time = secs.map(|secs| format!(", about {}", output::duration(secs)));
        let line = format!(
            "{}: {num_windows} windows{tiles}, {} of memory, {} of it for accumulators{place}{}",
            job.case.name,
            output::bytes(total_bytes),
            output::bytes(sums_bytes),
            time.unwrap_or_default(),
        );
        self.say(&line);
    }

    /// One line about all cases.
    pub(super) fn sum_up(&self, report: &Report) {
        let Some(summary) = report.summary.as_ref().filter(|_| !self.alone()) else { return };
        let peak =
            summary.peak_memory_bytes.map(|peak| format!(", {} of memory", output::bytes(peak)));
        let line = format!(
            "{} predicted, {} skipped, {} failed in {:.1} s, {:.1} million voxels per second{}",
            summary.predicted,
            summary.skipped,
            summary.failed,
            summary.wall_secs,
            summary.voxels_per_sec / 1e6,
            peak.unwrap_or_default(),
        );
        self.say(&line);
    }

    /// One line about a finished case.
    pub(super) fn tell(&self, job: &Job, result: &CaseResult) {
        let foreground = &result.labels[1..];
        let found = foreground.iter().filter(|label| label.voxels > 0).count();
        let line = format!(
            "{}: {found} of {} labels, {} windows in {:.1} s on {}: {}",
            job.case.name,
            foreground.len(),
            result.prediction.num_windows,
            result.seconds.total,
            self.device.name,
            job.first_output(self.args).display(),
        );
        self.say(&line);
    }
}
