//! Existing outputs: skipped, completed or rejected, by the record of what made them.

use rayon::prelude::*;
use stunet::data::nifti::Opener;
use stunet::infer::{Record, Standing};

use crate::args::PredictArgs;
use crate::interrupt;
use crate::jobs::Job;
use crate::products::Product;

/// A case to predict, and what of it is not there yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingCase {
    /// The case.
    pub job: Job,
    /// What is wanted of it and not there.
    pub lacks: Vec<Product>,
    /// Which of the session's settings have made what is there, if anything is.
    pub way: Option<usize>,
}

impl PendingCase {
    /// Whether everything that is missing can be made from the labels.
    pub fn lacks_derived_only(&self) -> bool {
        self.lacks.iter().all(|product| product.comes_from_labels())
    }

    /// Whether it is to be written.
    pub fn lacks(&self, product: Product) -> bool {
        self.lacks.contains(&product)
    }
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

/// Looks at what is there of every case; with `--overwrite` all of it is to be done. Outputs may have been
/// made with any of several settings, all of a case with the same.
///
/// The record is that of all cases, and scans are opened by the opener.
///
/// What is looked at is the beginning of every output and a sample of its input, for many cases at a
/// time: thousands take seconds.
pub fn sort(args: &PredictArgs, (records, opener): (&[Record], Opener), jobs: Vec<Job>) -> Sorted {
    let looked: Vec<_> = jobs
        .par_iter()
        .map(|job| match interrupt::asked() {
            true => Ok((Vec::new(), None)),
            false => lacks(args, (records, opener), job),
        })
        .collect();
    let mut sorted = Sorted::default();
    for (job, lacks) in jobs.into_iter().zip(looked) {
        match lacks {
            Ok((lacks, _)) if lacks.is_empty() => sorted.done.push(job),
            Ok((lacks, way)) => sorted.todo.push(PendingCase { job, lacks, way }),
            Err(error) => sorted.foreign.push((job, error)),
        }
    }
    sorted
}

/// What is missing of a case, and which settings have made the rest.
fn lacks(
    args: &PredictArgs,
    (records, opener): (&[Record], Opener),
    job: &Job,
) -> anyhow::Result<(Vec<Product>, Option<usize>)> {
    let wanted = Product::wanted(args);
    if args.overwrite {
        return Ok((wanted, None));
    }
    let mut foreign = None;
    for (way, record) in records.iter().enumerate() {
        match lacking(&wanted, &job.record(record, opener), job) {
            Ok(lacks) if lacks.len() == wanted.len() => return Ok((lacks, None)),
            Ok(lacks) => return Ok((lacks, Some(way))),
            Err(error) => _ = foreign.get_or_insert(error),
        }
    }
    match foreign {
        Some(error) => Err(error),
        None => Ok((wanted, None)),
    }
}

/// What of a case is to be written, whose record it is.
fn lacking(wanted: &[Product], record: &Record, job: &Job) -> anyhow::Result<Vec<Product>> {
    let mut lacks = Vec::new();
    for product in wanted {
        if is_absent(*product, record, job)? {
            lacks.push(*product);
        }
    }
    Ok(lacks)
}

/// Whether an output is to be written; fails where another one stands in its place.
fn is_absent(product: Product, record: &Record, job: &Job) -> anyhow::Result<bool> {
    let path = product.path(&job.output);
    let record = job.record_of(product, record);
    match record.standing(&path, Some(&job.case.files))? {
        Standing::Absent => Ok(true),
        Standing::Same => Ok(false),
        Standing::Other { expected, found } => anyhow::bail!(
            "{}: expected none, or {expected}, found {found}; it is not overwritten without \
             --overwrite: {}",
            product.name(),
            path.display()
        ),
    }
}
