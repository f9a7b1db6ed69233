//! Existing outputs: skipped, completed or rejected, by the record of what made them.

use rayon::prelude::*;
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
}

impl PendingCase {
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

/// Looks at what is there of every case; with `--overwrite` all of it is to be done.
///
/// What is looked at is the beginning of every output and a sample of its input, for many cases at a
/// time: thousands take seconds.
pub fn sort(args: &PredictArgs, record: &Record, jobs: Vec<Job>) -> Sorted {
    let looked: Vec<_> = jobs
        .par_iter()
        .map(|job| match interrupt::asked() {
            true => Ok(Vec::new()),
            false => lacks(args, record, job),
        })
        .collect();
    let mut sorted = Sorted::default();
    for (job, lacks) in jobs.into_iter().zip(looked) {
        match lacks {
            Ok(lacks) if lacks.is_empty() => sorted.done.push(job),
            Ok(lacks) => sorted.todo.push(PendingCase { job, lacks }),
            Err(error) => sorted.foreign.push((job, error)),
        }
    }
    sorted
}

fn lacks(args: &PredictArgs, record: &Record, job: &Job) -> anyhow::Result<Vec<Product>> {
    let mut lacks = Vec::new();
    for product in Product::wanted(args) {
        if args.overwrite || is_absent(product, record, job)? {
            lacks.push(product);
        }
    }
    Ok(lacks)
}

/// Whether an output is to be written; fails where another one stands in its place.
fn is_absent(product: Product, record: &Record, job: &Job) -> anyhow::Result<bool> {
    let path = product.path(&job.output);
    let record = job.record_of(product, &job.record(record));
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
