//! Worker threads that prepare batches in advance; batches are delivered in order.

use super::{LoaderConfig, TrainingBatch, TrainingPatch, patch};
use crate::error::{DataError, Result};
use crate::sample::TrainingCases;
use crossbeam_channel::{Receiver, Sender, unbounded};
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

type Outcome = std::thread::Result<Result<TrainingPatch>>;

/// Batches in order, computed ahead of time on threads, one patch per thread: an endless iterator.
///
/// The batches are those of [`batch`](super::batch), whatever the number of threads, and after a
/// restart at an index they go on as if there had been none. At most `queue` batches are in the
/// works or waiting. Dropping the loader drops the patches that have not been begun, waits for the
/// others and joins the threads.
///
/// After an error the iterator goes on with the next batch.
///
/// # Panics
/// `next` passes on a panic of a thread.
#[derive(Debug)]
pub struct Loader {
    work: Arc<Work>,
    /// Batch that the caller gets next.
    next: u64,
    /// Patch that is asked for next.
    asked: u64,
    /// Finished, but not yet given out; some out of order.
    waiting: BTreeMap<u64, Outcome>,
    /// Asked for and not yet received.
    missing: u64,
    done: Sender<(u64, Outcome)>,
    finished: Receiver<(u64, Outcome)>,
    pool: ThreadPool,
}

struct Work {
    cases: Arc<dyn TrainingCases>,
    config: LoaderConfig,
    stop: AtomicBool,
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Work").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Loader {
    /// Starts at batch `first_index`.
    ///
    /// # Panics
    /// When the batch size is 0, or the system starts no threads.
    pub fn start(cases: Arc<dyn TrainingCases>, config: LoaderConfig, first_index: u64) -> Self {
        assert!(config.batch_size > 0, "a batch has at least one patch");
        let pool = ThreadPoolBuilder::new()
            .num_threads(config.num_threads.max(1))
            .thread_name(|i| format!("patches {i}"))
            .build()
            .expect("the system starts threads");
        let (done, finished) = unbounded();
        let asked = first_index * config.batch_size as u64;
        let work = Arc::new(Work { cases, config, stop: AtomicBool::new(false) });
        let mut loader = Self {
            work,
            next: first_index,
            asked,
            waiting: BTreeMap::new(),
            missing: 0,
            done,
            finished,
            pool,
        };
        loader.ask();
        loader
    }

    /// Number of the batch that comes next.
    pub fn next_index(&self) -> u64 {
        self.next
    }

    /// Asks for patches until enough are in the works: this is what bounds the queue.
    fn ask(&mut self) {
        let config = &self.work.config;
        let until = (self.next + config.queue.max(1) as u64) * config.batch_size as u64;
        for index in self.asked..until {
            let (work, done) = (self.work.clone(), self.done.clone());
            self.missing += 1;
            self.pool.spawn(move || {
                // Only a loader that was dropped while it panicked listens no more.
                let _ = done.send((index, work.run(index)));
            });
        }
        self.asked = self.asked.max(until);
    }

    /// The next batch, or none once `waiting` breaks: it is asked ten times a second as long as the
    /// batch is not ready. The same batch comes next then.
    ///
    /// # Errors
    /// As [`batch`](super::batch).
    ///
    /// # Panics
    /// Passes on a panic of a thread.
    pub fn next_unless(
        &mut self,
        waiting: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Option<TrainingBatch>> {
        const TICK: Duration = Duration::from_millis(100);
        let index = self.next;
        let size = self.work.config.batch_size as u64;
        let own = index * size..(index + 1) * size;
        let mut absent = own.clone().filter(|patch| !self.waiting.contains_key(patch)).count();
        while absent > 0 {
            match self.finished.recv_timeout(TICK) {
                Ok((finished, outcome)) => {
                    self.missing -= 1;
                    self.waiting.insert(finished, outcome);
                    absent -= usize::from(own.contains(&finished));
                }
                // The loader itself holds a sender: there is always a next time.
                Err(_) if waiting().is_break() => return Ok(None),
                Err(_) => {}
            }
        }
        let outcomes: Vec<_> = own.map(|patch| self.waiting.remove(&patch)).collect();
        self.next += 1;
        self.ask();
        let patch = |outcome: Option<Outcome>| {
            outcome.expect("counted above").unwrap_or_else(|panic| resume_unwind(panic))
        };
        let patches = outcomes.into_iter().map(patch).collect::<Result<Vec<_>>>()?;
        Ok(Some(TrainingBatch { patches, index }))
    }
}

impl Iterator for Loader {
    type Item = Result<TrainingBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_unless(&mut || ControlFlow::Continue(())).transpose()
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.work.stop.store(true, Ordering::Relaxed);
        while self.missing > 0 && self.finished.recv().is_ok() {
            self.missing -= 1;
        }
    }
}

impl Work {
    fn run(&self, index: u64) -> Outcome {
        catch_unwind(AssertUnwindSafe(|| {
            if self.stop.load(Ordering::Relaxed) {
                return Err(DataError::Stopped);
            }
            patch(&*self.cases, &self.config, index)
        }))
    }
}
