//! `--smaller-models`: the model that all cases of a run are predicted with.

use std::path::PathBuf;
use std::sync::PoisonError;

use anyhow::ensure;
use stunet::data::labels::LabelSet;
use stunet::device::Chosen;

use super::already::{self, PendingCase};
use super::pipeline::Stages;
use super::stages::Read;
use super::{Session, words};
use crate::args::PredictArgs;
use crate::jobs::Job;
use crate::output;
use crate::products::Product;

/// The arguments with each of the models that they name, the largest first.
pub(super) fn variants(args: &PredictArgs) -> Vec<PredictArgs> {
    let models = std::iter::once(&args.model).chain(&args.smaller_models);
    models.map(|model| PredictArgs { model: model.clone(), ..args.clone() }).collect()
}

/// The model that is taken: that which has made outputs that are there, else the first that is fast
/// enough for the largest case, else the last.
///
/// # Errors
///
/// Where one of the models that are looked at cannot be opened, or has other labels than the first.
pub(super) fn session<'a>(
    variants: &'a [PredictArgs],
    chosen: &'a Chosen,
    (jobs, alone): (&[Job], bool),
) -> anyhow::Result<Session<'a>> {
    let (first, smaller) = variants.split_first().expect("--model is there");
    let mut session = Session::open(first, chosen, alone)?;
    if smaller.is_empty() {
        return Ok(session);
    }
    let labels = session.model.labels().clone();
    let is_new = |job: &Job| first.overwrite || !Product::first(first).path(&job.output).exists();
    if !jobs.iter().all(is_new) {
        for args in std::iter::once(first).chain(smaller) {
            if session.args.model != args.model {
                session = opened(args, chosen, (&labels, alone))?;
            }
            if session.has_made_some(jobs) {
                return Ok(session);
            }
        }
        session = Session::open(first, chosen, alone)?;
    }
    let Some(case) = session.largest(jobs) else { return Ok(session) };
    for args in smaller {
        let Some((needed, left)) = session.fastest(&case)? else { return Ok(session) };
        if needed <= left {
            return Ok(session);
        }
        session.say(&format!(
            "{} takes about {} for the windows of {}, with {} left for them: {} is tried",
            words::network(&session.model),
            output::duration(needed),
            case.job.case.name,
            output::duration(left),
            args.model.display(),
        ));
        session = opened(args, chosen, (&labels, alone))?;
    }
    Ok(session)
}

/// A smaller model.
fn opened<'a>(
    args: &'a PredictArgs,
    chosen: &'a Chosen,
    (labels, alone): (&LabelSet, bool),
) -> anyhow::Result<Session<'a>> {
    let session = Session::open(args, chosen, alone)?;
    let (expected, found) = (labels.painted(), session.model.labels().painted());
    ensure!(
        expected == found,
        "--smaller-models: expected the {} labels of --model, found {} others or in another order: {}",
        expected.len(),
        found.len(),
        args.model.display()
    );
    Ok(session)
}

impl Session<'_> {
    /// Whether some of the outputs that are there are of this model.
    fn has_made_some(&self, jobs: &[Job]) -> bool {
        let sorted = already::sort(self.args, (&self.records(), self.opener), jobs.to_vec());
        !sorted.done.is_empty() || sorted.todo.iter().any(|work| work.way.is_some())
    }

    /// The case of the largest volume in space, of those whose headers can be read.
    fn largest(&self, jobs: &[Job]) -> Option<PendingCase> {
        let volume = |job: &Job| {
            let grids = job.origin.grids(&job.case.files, self.opener).ok()?;
            let (grid, _) = grids.first()?;
            Some(grid.shape().iter().product::<usize>() as f64 * grid.voxel_volume_mm3())
        };
        let sized = jobs.iter().filter_map(|job| Some((volume(job)?, job)));
        let (_, job) = sized.max_by(|(a, _), (b, _)| a.total_cmp(b))?;
        Some(PendingCase { job: job.clone(), lacks: Product::wanted(self.args), way: None })
    }

    /// Seconds that the fastest settings need for the windows of a case, and seconds that are left for
    /// them; none where that cannot be told. What was read is kept for the prediction.
    fn fastest(&self, case: &PendingCase) -> anyhow::Result<Option<(f64, f64)>> {
        let Some(secs) = self.args.time_budget else { return Ok(None) };
        // Why a case cannot be read is told where it is predicted.
        let Ok(read) = self.read(case) else { return Ok(None) };
        let ways: Vec<_> = self.ways.iter().map(|(options, _)| options.clone()).collect();
        let spent = read.read_secs + read.prepared.secs;
        let fit = self.fit(case, &read.prepared, (secs - spent, &ways))?;
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        *ready = Some((case.job.output.clone(), read));
        Ok(fit.map(|(fit, left)| (fit.secs, left)))
    }

    /// What was read of a case before, once.
    pub(super) fn ready(&self, job: &Job) -> Option<Read> {
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = |(output, _): &mut (PathBuf, Read)| *output == job.output;
        ready.take_if(is_it).map(|(_, read)| read)
    }
}
