//! `--time-budget`: the most careful settings that are fast enough for a case.

use std::sync::PoisonError;

use serde::Serialize;
use stunet::infer::budget::{self, Fit};
use stunet::infer::{PredictOptions, Prepared};

use super::Session;
use super::already::PendingCase;
use crate::output;

/// What was chosen for a time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct BudgetReport {
    /// Seconds that were allowed for the case.
    pub secs: f64,
    /// Step between windows, as a fraction of their size.
    pub step_size: f64,
    /// Whether windows were mirrored, too.
    pub mirrored: bool,
    /// Seconds that the windows were thought to take.
    pub estimated_secs: f64,
}

impl Session<'_> {
    /// Which of the session's ways a case is predicted in, and why, where a time was given.
    pub(super) fn way(
        &self,
        work: &PendingCase,
        prepared: &Prepared,
        spent_secs: f64,
    ) -> anyhow::Result<(usize, Option<BudgetReport>)> {
        let Some(secs) = self.args.time_budget else { return Ok((0, None)) };
        // What is there already decides on what is added.
        let ways = match work.way {
            Some(way) => &self.ways[way..=way],
            None => &self.ways[..],
        };
        let ways: Vec<_> = ways.iter().map(|(options, _)| options.clone()).collect();
        let Some((fit, left)) = self.fit(work, prepared, (secs - spent_secs, &ways))? else {
            return Ok((work.way.unwrap_or(0), None));
        };
        let chosen = &ways[fit.way];
        let report = BudgetReport {
            secs,
            step_size: chosen.step_size,
            mirrored: chosen.mirror,
            estimated_secs: fit.secs,
        };
        let mirrored = if report.mirrored { "mirrored too" } else { "not mirrored" };
        self.say(&format!(
            "{}: for {}: windows at a step of {}, {mirrored}, about {}",
            work.job.case.name,
            output::duration(secs),
            report.step_size,
            output::duration(fit.secs),
        ));
        if fit.secs > left {
            output::complain(&format!(
                "{}: warning: --time-budget: the fastest settings take about {} for the windows, of \
                 which {} are left; --smaller-models and --mode fast are faster",
                work.job.case.name,
                output::duration(fit.secs),
                output::duration(left),
            ));
        }
        Ok((work.way.unwrap_or(0) + fit.way, Some(report)))
    }

    /// The first of several ways whose windows leave time to write the case, else the fastest, and the
    /// seconds that are left for windows; none where there is no clock.
    pub(super) fn fit(
        &self,
        work: &PendingCase,
        prepared: &Prepared,
        (secs, ways): (f64, &[PredictOptions]),
    ) -> anyhow::Result<Option<(Fit, f64)>> {
        let known = *self.pass_secs.lock().unwrap_or_else(PoisonError::into_inner);
        let with_speed = |options: &PredictOptions| PredictOptions {
            pass_secs: known,
            device_has_own_memory: self.device.backend.is_gpu(),
            ..options.clone()
        };
        let ways: Vec<_> = ways.iter().map(with_speed).collect();
        // Export and writing take about as long as they did before, or as preprocessing does.
        let after = *self.after_secs.lock().unwrap_or_else(PoisonError::into_inner);
        let left = (secs - after.unwrap_or(prepared.secs)).max(0.0);
        let fit = budget::choose(&self.model, prepared, &ways, left)
            .map_err(|error| self.explained(error, &work.job))?;
        if let Some(fit) = fit {
            *self.pass_secs.lock().unwrap_or_else(PoisonError::into_inner) = Some(fit.pass_secs);
        }
        Ok(fit.map(|fit| (fit, left)))
    }
}
