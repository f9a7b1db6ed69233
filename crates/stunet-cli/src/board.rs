//! What the screen of a training shows: filled by the training itself, or from the log of one in progress.
#![cfg_attr(
    not(all(unix, feature = "watch")),
    allow(dead_code, reason = "without the screen, lines show less of it")
)]

#[cfg(all(unix, feature = "watch"))]
pub mod draw;

use stunet::train::log::LogLine;
use stunet::train::{EpochRecord, FitEvent, TrainingStep};

/// Epochs whose mean time says how long one takes.
const RECENT: usize = 10;

/// What a run is doing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Doing {
    /// Nothing yet: the first batch is prepared.
    Starting,
    /// Updates.
    Training,
    /// Batches of the epoch's validation: so many of so many.
    Validating(usize, usize),
    /// The user asked it to stop, which it does after this step.
    Stopping,
    /// It was stopped, and can go on.
    Stopped,
    /// All epochs are done.
    Finished,
    /// Another process trains; only its log is seen.
    Elsewhere,
    /// The log does not end, and no process of this machine writes it.
    Silent,
}

/// Memory in bytes, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// What the process holds, and the most it has held.
    pub host: Option<(u64, u64)>,
    /// What is reserved on the devices.
    pub device: Option<u64>,
}

/// A run as it is shown.
#[derive(Clone, Debug)]
pub struct Board {
    /// Which run it is.
    pub title: String,
    /// Names of the foreground classes or regions.
    pub classes: Vec<String>,
    /// Epochs of the whole run, 0 while that is not known.
    pub num_epochs: usize,
    /// Iterations of one epoch.
    pub num_iterations: usize,
    /// Epochs that are done.
    pub epochs: Vec<EpochRecord>,
    /// Iterations of the running epoch that are done.
    pub iteration: usize,
    /// The newest update.
    pub step: Option<TrainingStep>,
    /// What it is doing.
    pub doing: Doing,
    /// Memory of its process.
    pub memory: Memory,
    /// Seconds since the last epoch ended, where only the log is seen.
    pub since_secs: Option<f64>,
    /// The newest message.
    pub message: Option<String>,
    /// What keys do.
    pub keys: String,
}

impl Board {
    /// A run of which nothing is known yet but its past.
    pub fn new(title: String, classes: Vec<String>, epochs: Vec<EpochRecord>) -> Self {
        Self {
            title,
            classes,
            num_epochs: 0,
            num_iterations: 0,
            epochs,
            iteration: 0,
            step: None,
            doing: Doing::Starting,
            memory: Memory::default(),
            since_secs: None,
            message: None,
            keys: String::new(),
        }
    }

    /// Takes up an event of the training itself.
    pub fn on_event(&mut self, event: &FitEvent<'_>) {
        match event {
            FitEvent::Started { iteration, num_epochs, num_iterations, .. } => {
                (self.num_epochs, self.num_iterations) = (*num_epochs, *num_iterations);
                self.iteration = *iteration;
            }
            FitEvent::Step(step) => {
                self.doing = Doing::Training;
                self.iteration = step.iteration + 1;
                self.step = Some(*step);
            }
            FitEvent::Validated { done, total } => self.doing = Doing::Validating(*done, *total),
            FitEvent::Epoch(record) => self.epoch((*record).clone()),
            _ => {}
        }
    }

    /// Takes up a line of the log.
    pub fn on_line(&mut self, line: LogLine) {
        match line {
            LogLine::Begun { epoch, iteration, num_epochs, num_iterations } => {
                (self.num_epochs, self.num_iterations) = (num_epochs, num_iterations);
                self.iteration = iteration;
                // What a killed run had done after its last checkpoint is done again.
                self.epochs.truncate(epoch);
                self.doing = Doing::Elsewhere;
            }
            LogLine::Epoch(record) => self.epoch(record),
            LogLine::Stopped => self.doing = Doing::Stopped,
            LogLine::Finished => self.doing = Doing::Finished,
            _ => {}
        }
    }

    fn epoch(&mut self, record: EpochRecord) {
        self.epochs.truncate(record.epoch);
        self.epochs.push(record);
        self.iteration = 0;
    }

    /// Epochs that are done.
    pub fn done(&self) -> usize {
        self.epochs.last().map_or(0, |record| record.epoch + 1)
    }

    /// Seconds that an epoch takes: the mean of the last ones; of the first, from its newest update.
    pub fn epoch_secs(&self) -> Option<f64> {
        let recent = self.epochs.iter().rev().take(RECENT);
        let secs: Vec<f64> = recent.map(|record| record.train_secs + record.val_secs).collect();
        match (secs.len(), &self.step) {
            (0, None) => None,
            (0, Some(step)) => Some(step.secs * self.num_iterations as f64),
            (count, _) => Some(secs.iter().sum::<f64>() / count as f64),
        }
    }

    /// Share of the running epoch that is done.
    pub fn part(&self) -> f64 {
        match (self.since_secs, self.epoch_secs(), self.num_iterations) {
            (Some(since), Some(secs), _) if secs > 0.0 => (since / secs).min(1.0),
            (None, _, 1..) => self.iteration as f64 / self.num_iterations as f64,
            _ => 0.0,
        }
    }

    /// Share of the run that is done.
    pub fn share(&self) -> f64 {
        match self.num_epochs {
            0 => 0.0,
            _ if self.doing == Doing::Finished => 1.0,
            epochs => ((self.done() as f64 + self.part()) / epochs as f64).clamp(0.0, 1.0),
        }
    }

    /// Seconds to the end of the last epoch, as long as it trains.
    pub fn left_secs(&self) -> Option<f64> {
        if matches!(self.doing, Doing::Finished | Doing::Stopped | Doing::Silent) {
            return None;
        }
        let left = self.num_epochs as f64 - self.done() as f64 - self.part();
        (self.num_epochs > 0).then_some(())?;
        Some(self.epoch_secs()? * left.max(0.0))
    }

    /// What it is doing, in words.
    pub fn doing_text(&self) -> String {
        match self.doing {
            Doing::Starting => "preparing the first batch".to_owned(),
            Doing::Training => format!("iteration {} of {}", self.iteration, self.num_iterations),
            Doing::Validating(done, total) => format!("validation {done} of {total}"),
            Doing::Stopping => "stopping after this step".to_owned(),
            Doing::Stopped => "stopped; `stunet train --continue` goes on".to_owned(),
            Doing::Finished => "finished".to_owned(),
            Doing::Elsewhere => match self.since_secs {
                Some(secs) => format!("last line of the log {} ago", crate::output::duration(secs)),
                None => "training".to_owned(),
            },
            Doing::Silent => match self.since_secs {
                Some(secs) => format!(
                    "no process here writes the log; its last line is of {} ago",
                    crate::output::duration(secs)
                ),
                None => "no process here writes the log".to_owned(),
            },
        }
    }

    /// Name of a class by its place.
    pub fn class(&self, index: usize) -> String {
        self.classes.get(index).cloned().unwrap_or_else(|| format!("class {}", index + 1))
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// An epoch of a run in which all gets better.
    pub fn record(epoch: usize) -> EpochRecord {
        let t = epoch as f64 / 40.0;
        EpochRecord {
            epoch,
            lr: 0.01 * (1.0 - t / 2.0).powf(0.9),
            train_loss: 0.4 - 1.1 * t.sqrt(),
            val_loss: Some(0.45 - 1.0 * t.sqrt()),
            dice_per_class: vec![Some(t), Some(t * t), None],
            pseudo_dice: Some((t + t * t) / 2.0),
            ema_pseudo_dice: Some(0.9 * (t + t * t) / 2.0),
            grad_norm: 1.0,
            skipped_steps: 0,
            train_secs: 18.0,
            wait_secs: 1.0,
            val_secs: 2.0,
        }
    }

    #[test]
    fn the_time_left_is_that_of_the_last_epochs() {
        let mut board = Board::new("run".to_owned(), Vec::new(), Vec::new());
        assert_eq!((board.epoch_secs(), board.left_secs(), board.share()), (None, None, 0.0));
        board.on_event(&FitEvent::Started {
            epoch: 0,
            iteration: 0,
            num_epochs: 4,
            num_iterations: 10,
        });
        let step = |epoch, iteration| TrainingStep {
            epoch,
            iteration,
            loss: 0.5,
            grad_norm: 1.0,
            skipped: false,
            wait_secs: 0.0,
            secs: 2.0,
        };
        board.on_event(&FitEvent::Step(step(0, 4)));
        assert_eq!((board.epoch_secs(), board.left_secs()), (Some(20.0), Some(70.0)));
        board.on_event(&FitEvent::Epoch(&record(0)));
        assert_eq!((board.done(), board.left_secs(), board.share()), (1, Some(60.0), 0.25));
        board.on_event(&FitEvent::Step(step(1, 4)));
        assert_eq!((board.left_secs(), board.share()), (Some(50.0), 0.375));
        assert_eq!(board.doing_text(), "iteration 5 of 10");
    }

    #[test]
    fn epochs_that_are_done_again_count_once() {
        let mut board = Board::new("run".to_owned(), Vec::new(), Vec::new());
        let begun =
            |epoch| LogLine::Begun { epoch, iteration: 0, num_epochs: 9, num_iterations: 5 };
        board.on_line(begun(0));
        (0..4).for_each(|epoch| board.on_line(LogLine::Epoch(record(epoch))));
        board.on_line(begun(2));
        assert_eq!((board.done(), board.doing), (2, Doing::Elsewhere));
        board.on_line(LogLine::Epoch(record(2)));
        assert_eq!(board.epochs.len(), 3);
        board.since_secs = Some(5.0);
        assert_eq!(board.left_secs(), Some(6.0 * 20.0 - 5.0));
        board.on_line(LogLine::Stopped);
        assert_eq!(board.left_secs(), None);
        board.on_line(begun(0));
        assert_eq!(board.epochs.len(), 0);
    }
}
