//! Preprocessing a dataset into a store: several cases at a time, in bounded memory, resumable.

mod budget;

use super::recipe::StoreRecipe;
use super::{NewCase, Stamp, Store};
use crate::dataset::{DatasetInfo, Problem, TrainingCaseFiles};
use crate::error::{DataError, Result};
use crate::plans::Plans;
use crate::preprocess::{Preprocessed, preprocess_scan_with_labels};
use crate::sample::class_locations;
use budget::{Budget, memory_of};
use std::fs::{File, TryLockError};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// How much is done at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FillOptions {
    /// Cases in work at a time; each uses rayon's threads besides.
    pub num_workers: usize,
    /// Memory that the cases in work may take together, by an estimate from their headers. A case
    /// that needs more than all of it is prepared alone.
    pub memory_bytes: u64,
    /// A case that needs more than this fails, as it would take more than there is.
    pub limit_bytes: u64,
    /// Prepare cases anew that are finished already.
    pub redo: bool,
}

impl Default for FillOptions {
    fn default() -> Self {
        let num_workers = std::thread::available_parallelism().map_or(1, usize::from);
        Self { num_workers, memory_bytes: 8 << 30, limit_bytes: u64::MAX, redo: false }
    }
}

/// What became of a case.
#[derive(Debug)]
pub enum Outcome {
    /// It was prepared and written.
    Written {
        /// Shape of its image, `[C, Z, Y, X]`.
        shape: [usize; 4],
        /// Size of its file.
        bytes: u64,
        /// Seconds it took.
        seconds: f64,
    },
    /// It was there already, made from the same files by the same recipe.
    Kept,
    /// It could not be prepared; an older file of its name is untouched.
    Failed(DataError),
}

/// What [`fill()`] tells while it works.
#[derive(Debug)]
pub enum FillEvent<'a> {
    /// A case is being read.
    Started {
        /// Its name.
        case: &'a str,
    },
    /// A case is done.
    Done {
        /// Its name.
        case: &'a str,
        /// How it ended.
        outcome: &'a Outcome,
        /// Cases done so far, this one included.
        done: usize,
        /// All of them.
        total: usize,
    },
}

/// What [`fill()`] did.
#[derive(Debug)]
pub struct FillReport {
    /// Name and outcome, in the order of the sources; those not reached before an interruption are
    /// left out.
    pub cases: Vec<(String, Outcome)>,
    /// The listener asked to stop.
    pub interrupted: bool,
}

impl FillReport {
    /// The cases that failed, and why.
    pub fn failures(&self) -> impl Iterator<Item = (&str, &DataError)> {
        self.cases.iter().filter_map(|(case, outcome)| match outcome {
            Outcome::Failed(error) => Some((case.as_str(), error)),
            _ => None,
        })
    }
}

/// Preprocesses every case of a dataset into the store of a folder.
///
/// Finished cases are kept when neither their files nor the recipe have changed since. A case that
/// fails is reported and the others go on. The files do not depend on the number of workers.
///
/// `on_event` is called from one thread at a time; when it breaks, no case is begun any more and those
/// in work are dropped at their next step. Whatever ends the program, the folder holds complete
/// cases only, and calling again continues.
///
/// # Errors
/// When the folder cannot be written, another program fills it right now, there is no case, or a
/// name occurs twice.
pub fn fill(
    folder: &Path,
    plans: &Plans,
    (info, sources): (&DatasetInfo, &[TrainingCaseFiles]),
    options: &FillOptions,
    on_event: &(dyn Fn(FillEvent<'_>) -> ControlFlow<()> + Sync),
) -> Result<FillReport> {
    // The plans' reader, as in nnU-Net, whatever the dataset asked for when it was planned.
    let info = &DatasetInfo { reader: plans.reader, ..info.clone() };
    let names = sources.iter().map(|source| source.name.clone()).collect();
    let recipe = StoreRecipe::new(plans.clone(), info.labels.clone(), names)?;
    std::fs::create_dir_all(folder).map_err(|e| DataError::io("create", e).at(folder))?;
    let _lock = lock(folder)?;
    remove_leftovers(folder)?;
    let work = Work {
        store: Store::create(folder, recipe)?,
        info,
        budget: Budget::new(options.memory_bytes),
        limit_bytes: options.limit_bytes,
        redo: options.redo,
        on_event,
        done: Mutex::new(0),
        total: sources.len(),
        stop: AtomicBool::new(false),
    };
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..options.num_workers.clamp(1, sources.len()) {
            scope.spawn(|| {
                while let Some(source) = sources.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let Some(outcome) = work.case(source) else {
                        break;
                    };
                    guard(&outcomes).push((source.name.clone(), outcome));
                }
            });
        }
    });
    let mut cases = outcomes.into_inner().unwrap_or_else(PoisonError::into_inner);
    let place = |name: &str| sources.iter().position(|source| source.name == name);
    cases.sort_by_cached_key(|(name, _)| place(name));
    Ok(FillReport { cases, interrupted: work.stop.into_inner() })
}

fn guard<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the workers share.
struct Work<'a> {
    store: Store,
    info: &'a DatasetInfo,
    budget: Budget,
    limit_bytes: u64,
    redo: bool,
    on_event: &'a (dyn Fn(FillEvent<'_>) -> ControlFlow<()> + Sync),
    /// Held while the listener is called.
    done: Mutex<usize>,
    total: usize,
    stop: AtomicBool,
}

/// The listener asked to stop.
struct Stopped;

impl Work<'_> {
    /// Prepares one case; none once the listener has asked to stop.
    fn case(&self, source: &TrainingCaseFiles) -> Option<Outcome> {
        self.check().ok()?;
        self.tell(&mut guard(&self.done), FillEvent::Started { case: &source.name });
        let outcome = match self.prepare(source) {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(Stopped)) => return None,
            Err(error) => Outcome::Failed(error),
        };
        let mut done = guard(&self.done);
        *done += 1;
        let (case, total, number) = (source.name.as_str(), self.total, *done);
        self.tell(&mut done, FillEvent::Done { case, outcome: &outcome, done: number, total });
        Some(outcome)
    }

    fn tell(&self, _turn: &mut MutexGuard<'_, usize>, event: FillEvent<'_>) {
        if (self.on_event)(event).is_break() {
            self.stop.store(true, Ordering::Relaxed);
        }
    }

    fn check(&self) -> Result<(), Stopped> {
        if self.stop.load(Ordering::Relaxed) { Err(Stopped) } else { Ok(()) }
    }

    fn prepare(&self, source: &TrainingCaseFiles) -> Result<Result<Outcome, Stopped>> {
        let clock = Instant::now();
        let stamp = Stamp::of(source.images.iter().chain([&source.labels]))?;
        if !self.redo && self.store.is_finished(&source.name, &stamp) {
            return Ok(Ok(Outcome::Kept));
        }
        let recipe = self.store.recipe();
        let needed = memory_of(source, recipe.plans(), self.info.leniency)?;
        if needed > self.limit_bytes {
            let (allowed, file) = (self.limit_bytes, &source.images[0]);
            return Err(DataError::Memory { needed, allowed }.at(file));
        }
        let _memory = self.budget.take(needed);
        let Ok(()) = self.check() else {
            return Ok(Err(Stopped));
        };
        let (prepared, labels) = {
            let (scan, labels) = source.read_scan(self.info).map_err(first)?;
            let Ok(()) = self.check() else {
                return Ok(Err(Stopped));
            };
            preprocess_scan_with_labels(&scan, Some(&labels), recipe.plans())
                .map_err(|e| e.at(&source.images[0]))?
        };
        let Preprocessed { image, trace } = prepared;
        let locations = class_locations(labels.view(), recipe.labels());
        let Ok(()) = self.check() else {
            return Ok(Err(Stopped));
        };
        let case = NewCase {
            name: &source.name,
            image: image.view(),
            labels: labels.view(),
            locations: &locations,
            trace: &trace,
            stamp: &stamp,
        };
        let bytes = self.store.put(&case)?;
        let (c, z, y, x) = image.dim();
        let seconds = clock.elapsed().as_secs_f64();
        Ok(Ok(Outcome::Written { shape: [c, z, y, x], bytes, seconds }))
    }
}

/// The first of several problems with one case, which names the others' number.
fn first(mut problems: Vec<Problem>) -> DataError {
    match problems.len() {
        1 => problems.remove(0).error,
        _ => DataError::BadCases(problems),
    }
}

pub(super) const LOCK_FILE: &str = ".stunet-lock";

/// Keeps two programs from filling one folder; released with the handle, however the program ends.
#[allow(clippy::disallowed_methods, reason = "a lock has no content")]
pub(super) fn lock(folder: &Path) -> Result<File> {
    let path = folder.join(LOCK_FILE);
    let write = |e| DataError::io("write", e).at(&path);
    if path.is_symlink() {
        // Opening it would make a file wherever the link leads.
        return Err(DataError::NotAFile { found: "a link" }.at(&path));
    }
    let file = File::options().create(true).append(true).open(&path).map_err(write)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(DataError::StoreInUse.at(folder)),
        // Some network file systems know no locks: better without than not at all.
        Err(TryLockError::Error(_)) => Ok(file),
    }
}

/// Removes what a killed program left under a temporary name.
pub(super) fn remove_leftovers(folder: &Path) -> Result<()> {
    let read = |e| DataError::io("read", e).at(folder);
    for entry in std::fs::read_dir(folder).map_err(read)? {
        let path = entry.map_err(read)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(".stunet-") && name.ends_with(".tmp") {
            std::fs::remove_file(&path).map_err(|e| DataError::io("remove", e).at(&path))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
