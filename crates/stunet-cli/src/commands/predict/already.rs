//! Existing outputs: skipped, completed or rejected, by the record of what made them.

use std::path::PathBuf;

use rayon::prelude::*;
use stunet::infer::{ConfidenceMeasure, ProbabilityFormat, Record, Standing};

use super::settings::{format_of, measure_of};
use crate::args::PredictArgs;
use crate::interrupt;
use crate::jobs::Job;

/// A case to predict, and what of it is not there yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingCase {
    /// The case.
    pub job: Job,
    /// What is to be written.
    pub lacks: Lacks,
}

/// Outputs that are wanted and not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lacks {
    /// The labelmap.
    pub labelmap: bool,
    /// The file of probabilities.
    pub probabilities: bool,
    /// The volume of confidences.
    pub confidence: bool,
}

/// The cases by what is there of them.
#[derive(Debug, Default)]
pub struct Sorted {
    /// Something is missing, and what is there is of the same making.
    pub todo: Vec<PendingCase>,
    /// Everything is there.
    pub done: Vec<Job>,
    /// Something of another making is there, and why it is not touched.
    pub foreign: Vec<(Job, anyhow::Error)>,
}

/// Which output of a case.
#[derive(Clone, Copy, Debug)]
enum Output {
    Labelmap,
    Probabilities(ProbabilityFormat),
    Confidence(ConfidenceMeasure),
}

/// Looks at what is there of every case; with `--overwrite` all of it is to be done.
///
/// What is looked at is the beginning of every output and a sample of its input, for many cases at a
/// time: thousands take seconds.
pub fn sort(args: &PredictArgs, record: &Record, jobs: Vec<Job>) -> Sorted {
    let looked: Vec<_> = jobs
        .par_iter()
        .map(|job| match interrupt::asked() {
            true => Ok(Lacks::default()),
            false => lacks(args, record, job),
        })
        .collect();
    let mut sorted = Sorted::default();
    for (job, lacks) in jobs.into_iter().zip(looked) {
        match lacks {
            Ok(lacks) if lacks == Lacks::default() => sorted.done.push(job),
            Ok(lacks) => sorted.todo.push(PendingCase { job, lacks }),
            Err(error) => sorted.foreign.push((job, error)),
        }
    }
    sorted
}

fn lacks(args: &PredictArgs, record: &Record, job: &Job) -> anyhow::Result<Lacks> {
    let mut lacks = Lacks::default();
    for output in wanted(args) {
        if !args.overwrite && !is_absent(output, record, job)? {
            continue;
        }
        match output {
            Output::Labelmap => lacks.labelmap = true,
            Output::Probabilities(_) => lacks.probabilities = true,
            Output::Confidence(_) => lacks.confidence = true,
        }
    }
    Ok(lacks)
}

fn wanted(args: &PredictArgs) -> impl Iterator<Item = Output> {
    let probabilities = args.save_probabilities.map(|form| Output::Probabilities(format_of(form)));
    let confidence = args.confidence.map(|measure| Output::Confidence(measure_of(measure)));
    std::iter::once(Output::Labelmap).chain(probabilities).chain(confidence)
}

/// Whether an output is to be written; fails where another one stands in its place.
fn is_absent(output: Output, record: &Record, job: &Job) -> anyhow::Result<bool> {
    let (what, path, record): (_, PathBuf, _) = match output {
        Output::Labelmap => ("labelmap", job.output.clone(), record.clone()),
        Output::Probabilities(form) => {
            ("probabilities", job.probabilities(form.ending()), record.clone())
        }
        Output::Confidence(measure) => {
            ("confidence", job.confidence(), record.with_confidence(measure))
        }
    };
    match job.record(&record).standing(&path, Some(&job.case.files))? {
        Standing::Absent => Ok(true),
        Standing::Same => Ok(false),
        Standing::Other { expected, found } => anyhow::bail!(
            "{what}: expected none, or {expected}, found {found}; it is not overwritten without \
             --overwrite: {}",
            path.display()
        ),
    }
}
