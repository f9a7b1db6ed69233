//! Cases on their way through three stages that work side by side: reading and preprocessing, the
//! network, writing.
//!
//! Between two stages there is room for one case: whoever is ahead waits, and memory is bounded by a
//! few cases however many there are. A case that fails leaves the line; the others go on.

use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};

use crate::failure::{Interrupted, shielded};
use crate::interrupt;
use crate::jobs::Job;

/// What happens to a case.
pub trait Stages: Sync {
    /// A case that was read.
    type Read: Send;
    /// A case that was predicted.
    type Predicted: Send;
    /// What is known of a case that was written.
    type Written: Send;

    /// From its files to the network's volume.
    fn read(&self, job: &Job) -> anyhow::Result<Self::Read>;
    /// Through the network.
    fn predict(
        &self,
        job: &Job,
        title: String,
        read: Self::Read,
    ) -> anyhow::Result<Self::Predicted>;
    /// To its files.
    fn write(&self, job: &Job, predicted: Self::Predicted) -> anyhow::Result<Self::Written>;
    /// Told as soon as it is known; not of interruptions.
    fn failed(&self, job: &Job, error: &anyhow::Error);
}

/// A case that left the line, at its end or before.
pub struct Ended<T> {
    /// The case.
    pub job: Job,
    /// What it became, or why not.
    pub outcome: anyhow::Result<T>,
}

/// A case between two stages, or one that failed on the way.
struct Item<T> {
    index: usize,
    job: Job,
    content: anyhow::Result<T>,
}

/// Runs every case; `ahead` cases are read while one is in the network, none when it is 0.
///
/// Returns the cases in their order; those that were not begun before an interruption are left out.
pub fn run<S: Stages>(stages: &S, jobs: Vec<Job>, ahead: usize) -> Vec<Ended<S::Written>> {
    let total = jobs.len();
    let (to_network, read) = sync_channel(ahead.saturating_sub(1));
    let (to_writer, predicted) = sync_channel(0);
    let (to_end, ended) = channel();
    // With nothing ahead, a case is begun when its predecessor has left the line.
    let (give_turn, turn) = sync_channel::<()>(total + 1);
    let turn = (ahead == 0).then_some(turn);
    let mut ended: Vec<Item<S::Written>> = std::thread::scope(|scope| {
        scope.spawn(move || read_all(stages, jobs, &to_network, turn.as_ref()));
        scope.spawn(move || {
            write_all(stages, &predicted, &mut |item| {
                // Receivers outlive this thread, or nobody wants to know any more.
                let _ = to_end.send(item);
                let _ = give_turn.try_send(());
            });
        });
        predict_all(stages, &read, &to_writer, total);
        drop(to_writer);
        ended.iter().collect()
    });
    ended.sort_by_key(|item| item.index);
    ended.into_iter().map(|item| Ended { job: item.job, outcome: item.content }).collect()
}

fn read_all<S: Stages>(
    stages: &S,
    jobs: Vec<Job>,
    to_network: &SyncSender<Item<S::Read>>,
    turn: Option<&Receiver<()>>,
) {
    for (index, job) in jobs.into_iter().enumerate() {
        if index > 0 && turn.is_some_and(|turn| turn.recv().is_err()) {
            return;
        }
        let content = match interrupt::asked() {
            true => Err(Interrupted.into()),
            false => shielded(|| stages.read(&job)),
        };
        let stop = content.as_ref().is_err_and(|error| error.is::<Interrupted>());
        if to_network.send(Item { index, job, content }).is_err() || stop {
            return;
        }
    }
}

fn predict_all<S: Stages>(
    stages: &S,
    read: &Receiver<Item<S::Read>>,
    to_writer: &SyncSender<Item<S::Predicted>>,
    total: usize,
) {
    for Item { index, job, content } in read {
        let title = match total {
            1 => job.case.name.clone(),
            _ => format!("{}/{total} {}", index + 1, job.case.name),
        };
        let content = content.and_then(|read| shielded(|| stages.predict(&job, title, read)));
        if to_writer.send(Item { index, job, content }).is_err() {
            return;
        }
    }
}

fn write_all<S: Stages>(
    stages: &S,
    predicted: &Receiver<Item<S::Predicted>>,
    end: &mut dyn FnMut(Item<S::Written>),
) {
    for Item { index, job, content } in predicted {
        let content = content.and_then(|predicted| shielded(|| stages.write(&job, predicted)));
        if let Err(error) = &content
            && !error.is::<Interrupted>()
        {
            stages.failed(&job, error);
        }
        end(Item { index, job, content });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use stunet::data::dataset::Case;

    /// Counts the cases that are in the line.
    #[derive(Default)]
    struct Counting {
        inside: AtomicUsize,
        most: AtomicUsize,
        told: AtomicUsize,
    }

    impl Stages for Counting {
        type Read = usize;
        type Predicted = usize;
        type Written = usize;

        fn read(&self, job: &Job) -> anyhow::Result<usize> {
            let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(inside, Ordering::SeqCst);
            let number: usize = job.case.name.parse()?;
            if number % 7 == 3 {
                self.inside.fetch_sub(1, Ordering::SeqCst);
                anyhow::bail!("seven and three");
            }
            Ok(number)
        }

        fn predict(&self, _: &Job, _: String, number: usize) -> anyhow::Result<usize> {
            if number % 7 == 5 {
                self.inside.fetch_sub(1, Ordering::SeqCst);
                panic!("seven and five");
            }
            Ok(number * 2)
        }

        fn write(&self, _: &Job, number: usize) -> anyhow::Result<usize> {
            std::thread::sleep(std::time::Duration::from_millis(1));
            self.inside.fetch_sub(1, Ordering::SeqCst);
            Ok(number + 1)
        }

        fn failed(&self, _: &Job, _: &anyhow::Error) {
            self.told.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn every_case_ends_in_order_and_few_are_inside() {
        for (ahead, most) in [(0, 1), (1, 4)] {
            let stages = Counting::default();
            let job = |i: usize| Job {
                case: Case { name: i.to_string(), files: Vec::new() },
                output: "x".into(),
            };
            let ended = run(&stages, (0..60).map(job).collect(), ahead);
            assert_eq!(ended.len(), 60);
            for (i, ended) in ended.into_iter().enumerate() {
                assert_eq!(ended.job.case.name, i.to_string());
                match (i % 7, ended.outcome) {
                    (3 | 5, outcome) => assert!(outcome.is_err()),
                    (_, outcome) => assert_eq!(outcome.unwrap(), i * 2 + 1),
                }
            }
            assert_eq!(stages.told.load(Ordering::SeqCst), 17);
            let found = stages.most.load(Ordering::SeqCst);
            assert!(found <= most, "{found} cases at a time with {ahead} ahead");
        }
    }
}
