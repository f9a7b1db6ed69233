//! Threads that work ahead, and the order restored.

use super::{LoaderConfig, TrainingBatch, TrainingPatch, patch};
use crate::error::Result;
use crate::sample::TrainingCases;
use crossbeam_channel::{Receiver, Sender, unbounded};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

type Outcome = (u64, std::thread::Result<Result<TrainingPatch>>);

/// Batches in order, computed ahead of time on threads: an endless iterator.
///
/// The batches are those of [`batch`](super::batch), whatever the number of threads, and after a
/// restart at an index they go on as if there had been none. At most `queue` batches are in the
/// works or waiting. Dropping the loader stops and joins its threads; a patch that is being computed
/// is finished first.
///
/// After an error the iterator goes on with the next batch.
///
/// # Panics
/// `next` passes on a panic of a thread.
#[derive(Debug)]
pub struct Loader {
    batch_size: u64,
    /// Batch that the caller gets next.
    next: u64,
    /// Patch that is asked for next.
    asked: u64,
    /// Patches to keep asked for.
    ahead: u64,
    /// Finished out of order.
    waiting: BTreeMap<u64, std::thread::Result<Result<TrainingPatch>>>,
    /// None once dropped.
    jobs: Option<Sender<u64>>,
    finished: Receiver<Outcome>,
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Loader {
    /// Starts at batch `first_index`.
    ///
    /// # Panics
    /// When the batch size is 0.
    pub fn start(cases: Arc<dyn TrainingCases>, config: LoaderConfig, first_index: u64) -> Self {
        assert!(config.batch_size > 0, "a batch has at least one patch");
        let batch_size = config.batch_size as u64;
        let (jobs, todo) = unbounded();
        let (done, finished) = unbounded();
        let stop = Arc::new(AtomicBool::new(false));
        let config = Arc::new(config);
        let threads = (0..config.num_threads.max(1))
            .map(|_| {
                let (cases, config, stop) = (cases.clone(), config.clone(), stop.clone());
                let (todo, done) = (todo.clone(), done.clone());
                std::thread::spawn(move || work(&*cases, &config, &stop, &todo, &done))
            })
            .collect();
        let mut loader = Self {
            batch_size,
            next: first_index,
            asked: first_index * batch_size,
            ahead: config.queue.max(1) as u64 * batch_size,
            waiting: BTreeMap::new(),
            jobs: Some(jobs),
            finished,
            stop,
            threads,
        };
        loader.ask();
        loader
    }

    /// Asks for patches until enough are in the works: this is what bounds the queue.
    fn ask(&mut self) {
        let until = self.next * self.batch_size + self.ahead;
        if let Some(jobs) = &self.jobs {
            for patch in self.asked..until {
                jobs.send(patch).expect("the loader itself keeps a receiver's thread alive");
            }
        }
        self.asked = self.asked.max(until);
    }

    fn receive(&mut self, index: u64) -> Result<TrainingPatch> {
        loop {
            if let Some(outcome) = self.waiting.remove(&index) {
                return outcome.unwrap_or_else(|panic| resume_unwind(panic));
            }
            let (finished, outcome) =
                self.finished.recv().expect("threads live as long as the loader");
            self.waiting.insert(finished, outcome);
        }
    }
}

impl Iterator for Loader {
    type Item = Result<TrainingBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let index = self.next;
        let first = index * self.batch_size;
        let outcomes: Vec<_> = (0..self.batch_size).map(|i| self.receive(first + i)).collect();
        self.next += 1;
        self.ask();
        let patches: Result<Vec<_>> = outcomes.into_iter().collect();
        Some(patches.map(|patches| TrainingBatch { patches, index }))
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // A panic has been passed on, or nobody waits for its patch.
            let _ = thread.join();
        }
    }
}

fn work(
    cases: &dyn TrainingCases,
    config: &LoaderConfig,
    stop: &AtomicBool,
    todo: &Receiver<u64>,
    done: &Sender<Outcome>,
) {
    for index in todo {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| patch(cases, config, index)));
        if done.send((index, outcome)).is_err() {
            return;
        }
    }
}
