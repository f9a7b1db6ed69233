//! Three stages that run in parallel: reading and preprocessing, the network, writing.
//!
//! Between two stages there is a queue of one case, so that memory is bounded by a few cases however
//! many there are. A case that fails is dropped; the others go on.

use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use anyhow::anyhow;

use super::already::PendingCase;
use crate::failure::{Interrupted, shielded, survived};
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
    fn read(&self, work: &PendingCase) -> anyhow::Result<Self::Read>;
    /// Through the network.
    fn predict(
        &self,
        work: &PendingCase,
        title: String,
        read: Self::Read,
    ) -> anyhow::Result<Self::Predicted>;
    /// To its files.
    fn write(
        &self,
        work: &PendingCase,
        predicted: Self::Predicted,
    ) -> anyhow::Result<Self::Written>;
    /// Told as soon as it is known; not of interruptions.
    fn failed(&self, job: &Job, error: &anyhow::Error);
}

/// A case that has left the pipeline, finished or failed.
pub struct Ended<T> {
    /// The case.
    pub work: PendingCase,
    /// What it became, or why not.
    pub outcome: anyhow::Result<T>,
}

/// A case between two stages, or one that failed on the way.
struct Item<T> {
    index: usize,
    work: PendingCase,
    content: anyhow::Result<T>,
}

/// Runs every case; `ahead` cases are read while one is in the network, none when it is 0.
///
/// Returns the cases in their order; those that were not begun before an interruption are left out.
///
/// Each thread owns its ends of the channels: however it ends, by a panic too, its neighbours find
/// them closed and end as well. A case that was lost that way is returned as one that failed.
pub fn run<S: Stages>(stages: &S, all: Vec<PendingCase>, ahead: usize) -> Vec<Ended<S::Written>> {
    let total = all.len();
    let (to_network, read) = sync_channel(ahead.saturating_sub(1));
    let (to_writer, predicted) = sync_channel(0);
    let (to_end, ended) = channel();
    // With nothing ahead, a case is begun when its predecessor has left the line.
    let (give_turn, turn) = sync_channel::<()>(total + 1);
    let turn = (ahead == 0).then_some(turn);
    let cases = all.clone();
    let whole = std::thread::scope(|scope| {
        let reader = scope.spawn(|| survived(|| read_all(stages, cases, to_network, turn)));
        let writer = scope.spawn(|| survived(|| write_all(stages, predicted, to_end, give_turn)));
        let network = survived(|| predict_all(stages, read, to_writer, total));
        let join = |ended: std::thread::Result<anyhow::Result<()>>| {
            ended.unwrap_or_else(|_| Err(anyhow!("a thread has ended")))
        };
        join(reader.join()).and(network).and(join(writer.join()))
    });
    let mut ended: Vec<_> = ended.iter().collect();
    if let Err(error) = whole {
        give_up_lost(stages, &all, &mut ended, &error);
    }
    ended.sort_by_key(|item| item.index);
    ended.into_iter().map(|item| Ended { work: item.work, outcome: item.content }).collect()
}

/// Adds the cases that went down with a thread.
fn give_up_lost<S: Stages>(
    stages: &S,
    all: &[PendingCase],
    ended: &mut Vec<Item<S::Written>>,
    error: &anyhow::Error,
) {
    for (index, work) in all.iter().enumerate() {
        if ended.iter().all(|item| item.index != index) {
            let error = anyhow!("{error:#}");
            // Where it cannot be told, it is at least returned.
            let _ = survived(|| stages.failed(&work.job, &error));
            ended.push(Item { index, work: work.clone(), content: Err(error) });
        }
    }
}

fn read_all<S: Stages>(
    stages: &S,
    cases: Vec<PendingCase>,
    to_network: SyncSender<Item<S::Read>>,
    turn: Option<Receiver<()>>,
) {
    for (index, work) in cases.into_iter().enumerate() {
        if index > 0 && turn.as_ref().is_some_and(|turn| turn.recv().is_err()) {
            return;
        }
        let content = match interrupt::asked() {
            true => Err(Interrupted.into()),
            false => shielded(|| stages.read(&work)),
        };
        let stop = content.as_ref().is_err_and(|error| error.is::<Interrupted>());
        if to_network.send(Item { index, work, content }).is_err() || stop {
            return;
        }
    }
}

fn predict_all<S: Stages>(
    stages: &S,
    read: Receiver<Item<S::Read>>,
    to_writer: SyncSender<Item<S::Predicted>>,
    total: usize,
) {
    for Item { index, work, content } in read {
        let name = &work.job.case.name;
        let title = match total {
            1 => name.clone(),
            _ => format!("{}/{total} {name}", index + 1),
        };
        let content = content.and_then(|read| shielded(|| stages.predict(&work, title, read)));
        if to_writer.send(Item { index, work, content }).is_err() {
            return;
        }
    }
}

fn write_all<S: Stages>(
    stages: &S,
    predicted: Receiver<Item<S::Predicted>>,
    to_end: Sender<Item<S::Written>>,
    give_turn: SyncSender<()>,
) {
    for Item { index, work, content } in predicted {
        let content = content.and_then(|predicted| shielded(|| stages.write(&work, predicted)));
        if let Err(error) = &content
            && !error.is::<Interrupted>()
        {
            // A case that cannot be told of is no reason to drop the others.
            let _ = survived(|| stages.failed(&work.job, error));
        }
        // The receiver outlives this thread; and whose turn it is nobody may want to know any more.
        let _ = to_end.send(Item { index, work, content });
        let _ = give_turn.try_send(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;
    use stunet::data::dataset::Case;

    /// Counts the cases that are in the line.
    #[derive(Default)]
    struct Counting {
        inside: AtomicUsize,
        most: AtomicUsize,
        told: AtomicUsize,
        /// Telling of a failure panics, as printing to a closed terminal may.
        speechless: bool,
    }

    impl Stages for Counting {
        type Read = usize;
        type Predicted = usize;
        type Written = usize;

        fn read(&self, work: &PendingCase) -> anyhow::Result<usize> {
            let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(inside, Ordering::SeqCst);
            let number: usize = work.job.case.name.parse()?;
            if number % 7 == 3 {
                self.inside.fetch_sub(1, Ordering::SeqCst);
                anyhow::bail!("seven and three");
            }
            Ok(number)
        }

        fn predict(&self, _: &PendingCase, _: String, number: usize) -> anyhow::Result<usize> {
            if number % 7 == 5 {
                self.inside.fetch_sub(1, Ordering::SeqCst);
                panic!("seven and five");
            }
            Ok(number * 2)
        }

        fn write(&self, _: &PendingCase, number: usize) -> anyhow::Result<usize> {
            std::thread::sleep(Duration::from_millis(1));
            self.inside.fetch_sub(1, Ordering::SeqCst);
            Ok(number + 1)
        }

        fn failed(&self, _: &Job, _: &anyhow::Error) {
            self.told.fetch_add(1, Ordering::SeqCst);
            assert!(!self.speechless, "nobody listens");
        }
    }

    fn cases(count: usize) -> Vec<PendingCase> {
        let job = |i: usize| Job {
            case: Case { name: i.to_string(), files: Vec::new() },
            output: "x".into(),
            origin: Default::default(),
            source: Default::default(),
        };
        (0..count).map(|i| PendingCase { job: job(i), lacks: Vec::new(), way: None }).collect()
    }

    #[test]
    fn every_case_ends_in_order_and_few_are_inside() {
        for (ahead, most, speechless) in [(0, 1, false), (1, 4, false), (0, 1, true), (1, 4, true)]
        {
            let stages = Counting { speechless, ..Default::default() };
            let ended = run(&stages, cases(60), ahead);
            assert_eq!(ended.len(), 60);
            for (i, ended) in ended.into_iter().enumerate() {
                assert_eq!(ended.work.job.case.name, i.to_string());
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

    /// The channels between three threads, of which the one in the middle panics.
    #[test]
    fn the_death_of_a_thread_is_the_end_of_its_neighbours() {
        /// What a case holds while it is between two stages; it panics when it is let go of.
        struct Bomb(usize);
        impl Drop for Bomb {
            fn drop(&mut self) {
                assert!(self.0 != 2 || std::thread::panicking(), "the second bomb");
            }
        }
        struct Bombs;
        impl Stages for Bombs {
            type Read = Bomb;
            type Predicted = Bomb;
            type Written = ();
            fn read(&self, work: &PendingCase) -> anyhow::Result<Bomb> {
                Ok(Bomb(work.job.case.name.parse()?))
            }
            fn predict(&self, _: &PendingCase, _: String, read: Bomb) -> anyhow::Result<Bomb> {
                Ok(read)
            }
            fn write(&self, _: &PendingCase, predicted: Bomb) -> anyhow::Result<()> {
                drop(predicted);
                Ok(())
            }
            fn failed(&self, _: &Job, _: &anyhow::Error) {}
        }
        for ahead in [0, 1] {
            let ended = run(&Bombs, cases(9), ahead);
            assert_eq!(ended.len(), 9);
            assert_eq!(ended.iter().filter(|ended| ended.outcome.is_err()).count(), 1);
        }
    }
}
