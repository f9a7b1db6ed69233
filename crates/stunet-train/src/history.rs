//! Progress and history of a run: its state except for tensors.

use crate::exact;
use crate::step::{Clock, TrainingStep};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Weight of the past in the moving average of the pseudo-Dice.
///
/// # Source
/// nnU-Net 1.7.1 `val_eval_criterion_alpha`, nnU-Net 2 `nnUNetLogger`.
const PAST: f64 = 0.9;

/// What one epoch came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// Epoch, from 0.
    pub epoch: usize,
    /// Learning rate of its updates.
    #[serde(with = "exact")]
    pub lr: f64,
    /// Mean loss over its updates.
    #[serde(with = "exact")]
    pub train_loss: f64,
    /// Mean loss over its validation batches.
    #[serde(with = "exact::option")]
    pub val_loss: Option<f64>,
    /// Pseudo-Dice of every foreground class (or region); none where the class neither occurs nor
    /// is predicted.
    #[serde(with = "exact::options")]
    pub dice_per_class: Vec<Option<f64>>,
    /// Their mean.
    #[serde(with = "exact::option")]
    pub pseudo_dice: Option<f64>,
    /// Moving average of that mean.
    #[serde(with = "exact::option")]
    pub ema_pseudo_dice: Option<f64>,
    /// Mean global norm of the gradients before clipping.
    #[serde(with = "exact")]
    pub grad_norm: f64,
    /// Updates left out because a scaled gradient overflowed.
    pub skipped_steps: usize,
    /// Seconds spent on updates; of a continued epoch, those of its last part.
    #[serde(with = "exact")]
    pub train_secs: f64,
    /// Of these, seconds spent waiting for batches.
    #[serde(with = "exact")]
    pub wait_secs: f64,
    /// Seconds spent on validation.
    #[serde(with = "exact")]
    pub val_secs: f64,
}

impl EpochRecord {
    /// The record for people and plots: plain numbers, `null` for what is no number.
    pub fn to_json(&self) -> Value {
        json!({
            "epoch": self.epoch,
            "lr": self.lr,
            "train_loss": self.train_loss,
            "val_loss": self.val_loss,
            "pseudo_dice": self.pseudo_dice,
            "ema_pseudo_dice": self.ema_pseudo_dice,
            "dice_per_class": self.dice_per_class,
            "grad_norm": self.grad_norm,
            "skipped_steps": self.skipped_steps,
            "train_secs": self.train_secs,
            "wait_secs": self.wait_secs,
            "val_secs": self.val_secs,
        })
    }

    /// Reads what [`EpochRecord::to_json`] wrote, such as a line of the log; none where an entry is
    /// missing or no number.
    pub fn from_json(value: &Value) -> Option<Self> {
        let number = |name: &str| value.get(name)?.as_f64();
        let count = |name: &str| usize::try_from(value.get(name)?.as_u64()?).ok();
        // A number that JSON cannot hold was written as null.
        let maybe = |name: &str| Some(value.get(name)?.as_f64());
        let classes = value.get("dice_per_class")?.as_array()?;
        Some(Self {
            epoch: count("epoch")?,
            lr: number("lr")?,
            train_loss: maybe("train_loss")?.unwrap_or(f64::NAN),
            val_loss: maybe("val_loss")?,
            dice_per_class: classes.iter().map(Value::as_f64).collect(),
            pseudo_dice: maybe("pseudo_dice")?,
            ema_pseudo_dice: maybe("ema_pseudo_dice")?,
            grad_norm: maybe("grad_norm")?.unwrap_or(f64::NAN),
            skipped_steps: count("skipped_steps")?,
            train_secs: number("train_secs")?,
            wait_secs: number("wait_secs")?,
            val_secs: number("val_secs")?,
        })
    }
}

/// What an epoch's validation found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Validated {
    /// Mean loss.
    pub loss: Option<f64>,
    /// By class.
    pub dice: Vec<Option<f64>>,
    /// Their mean.
    pub mean: Option<f64>,
    /// Seconds it took.
    pub secs: f64,
}

/// Where a run stands.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Epochs that are complete.
    pub epoch: usize,
    /// Updates of the running epoch that are done.
    pub iteration: usize,
    /// Training batches drawn so far: with the seed this is the whole state of the sampler, as
    /// every batch is a function of the two.
    pub next_batch: u64,
    /// Sums over the running epoch.
    pub running: Running,
    /// Moving average of the pseudo-Dice.
    #[serde(with = "exact::option")]
    pub ema_pseudo_dice: Option<f64>,
    /// The best it has been.
    #[serde(with = "exact::option")]
    pub best_ema: Option<f64>,
    /// Every complete epoch.
    pub history: Vec<EpochRecord>,
    /// The last complete epoch was the best so far.
    pub is_best: bool,
}

/// Sums over the updates of an epoch that is not complete.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Running {
    /// Of the loss.
    #[serde(with = "exact")]
    pub loss: f64,
    /// Of the gradients' norm, where it was finite.
    #[serde(with = "exact")]
    pub grad_norm: f64,
    /// Updates left out.
    pub skipped: usize,
}

impl Progress {
    /// Takes up an update.
    pub(crate) fn note_step(&mut self, step: &TrainingStep) {
        self.iteration += 1;
        self.running.loss += step.loss;
        if step.skipped {
            self.running.skipped += 1;
        } else {
            self.running.grad_norm += step.grad_norm;
        }
    }

    /// Turns the sums of the running epoch into its record, and begins the next.
    pub(crate) fn close_epoch(
        &mut self,
        lr: f64,
        clock: Clock,
        validated: Validated,
    ) -> EpochRecord {
        self.note_dice(validated.mean);
        let running = std::mem::take(&mut self.running);
        let record = EpochRecord {
            epoch: self.epoch,
            lr,
            train_loss: running.loss / self.iteration.max(1) as f64,
            val_loss: validated.loss,
            dice_per_class: validated.dice,
            pseudo_dice: validated.mean,
            ema_pseudo_dice: self.ema_pseudo_dice,
            grad_norm: running.grad_norm / (self.iteration - running.skipped).max(1) as f64,
            skipped_steps: running.skipped,
            train_secs: clock.train_secs,
            wait_secs: clock.wait_secs,
            val_secs: validated.secs,
        };
        self.history.push(record.clone());
        self.epoch += 1;
        self.iteration = 0;
        record
    }

    /// Takes up an epoch's pseudo-Dice.
    fn note_dice(&mut self, dice: Option<f64>) {
        self.is_best = false;
        let Some(dice) = dice else { return };
        let ema = self.ema_pseudo_dice.map_or(dice, |past| PAST * past + (1.0 - PAST) * dice);
        self.ema_pseudo_dice = Some(ema);
        self.is_best = self.best_ema.is_none_or(|best| ema > best);
        if self.is_best {
            self.best_ema = Some(ema);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_log_is_read_as_it_was() {
        let record = EpochRecord {
            epoch: 3,
            lr: 0.1 + 0.2,
            train_loss: -0.7,
            val_loss: None,
            dice_per_class: vec![Some(1.0 / 3.0), None],
            pseudo_dice: Some(0.5),
            ema_pseudo_dice: Some(0.25),
            grad_norm: 1.5,
            skipped_steps: 2,
            train_secs: 4.0,
            wait_secs: 0.5,
            val_secs: 1.0,
        };
        let line = record.to_json().to_string();
        let mut value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(EpochRecord::from_json(&value), Some(record));
        value.as_object_mut().unwrap().remove("lr");
        assert_eq!(EpochRecord::from_json(&value), None);
    }

    #[test]
    fn the_average_begins_with_the_first_epoch() {
        let mut progress = Progress::default();
        let mut check = |dice: Option<f64>, ema: Option<f64>, best: bool| {
            progress.note_dice(dice);
            let close = |a: f64, b: f64| (a - b).abs() < 1e-12;
            let equal = match (progress.ema_pseudo_dice, ema) {
                (Some(found), Some(expected)) => close(found, expected),
                (found, expected) => found == expected,
            };
            assert!(equal && progress.is_best == best, "{progress:?}");
        };
        check(None, None, false);
        check(Some(0.5), Some(0.5), true);
        check(Some(1.0), Some(0.55), true);
        check(Some(0.0), Some(0.495), false);
        assert!((progress.best_ema.unwrap() - 0.55).abs() < 1e-12);
    }
}
