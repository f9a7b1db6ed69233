//! Progress of a training run: a bar with the time left, and a line per epoch.

use std::time::Duration;

use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use stunet::train::{EpochRecord, FitEvent};

use crate::output;

/// The bar of a run; on no terminal, or under `--quiet`, it draws nothing.
pub struct TrainingProgress {
    bar: ProgressBar,
    json: bool,
    quiet: bool,
    num_epochs: usize,
    num_iterations: usize,
    dice: Option<f64>,
}

impl TrainingProgress {
    /// A bar for a run that has not started yet.
    pub fn new(json: bool, quiet: bool) -> Self {
        let bar = output::bar(ProgressBar::no_length(), quiet || json);
        let style = ProgressStyle::with_template("{spinner} [{bar:24}] {msg}");
        bar.set_style(style.expect("the template above is well formed"));
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar, json, quiet, num_epochs: 0, num_iterations: 0, dice: None }
    }

    /// Updates the bar for an event of the run.
    pub fn on_event(&mut self, event: &FitEvent<'_>) -> anyhow::Result<()> {
        match event {
            FitEvent::Started { epoch, iteration, num_epochs, num_iterations } => {
                (self.num_epochs, self.num_iterations) = (*num_epochs, *num_iterations);
                self.bar.set_length((num_epochs * num_iterations) as u64);
                self.bar.set_position((epoch * num_iterations + iteration) as u64);
                self.bar.reset_eta();
                self.bar.set_message("first batch");
            }
            FitEvent::Step(step) => {
                self.bar.inc(1);
                let dice = self.dice.map_or_else(String::new, |d| format!("  Dice {d:.3}"));
                let left = match step.epoch + step.iteration {
                    0 => String::new(),
                    _ => format!("  {:#} left", HumanDuration(self.bar.eta())),
                };
                self.bar.set_message(format!(
                    "epoch {}/{}  {}/{}  loss {:.4}{dice}  {:.2} s/it{left}",
                    step.epoch + 1,
                    self.num_epochs,
                    step.iteration + 1,
                    self.num_iterations,
                    step.loss,
                    step.secs,
                ));
            }
            FitEvent::Validated { done, total } => {
                self.bar.set_message(format!("validation {done}/{total}"));
            }
            FitEvent::Epoch(record) => self.epoch(record)?,
            _ => {}
        }
        Ok(())
    }

    fn epoch(&mut self, record: &EpochRecord) -> anyhow::Result<()> {
        self.dice = record.ema_pseudo_dice;
        if self.quiet {
            return Ok(());
        }
        let line = match self.json {
            true => record.to_json().to_string(),
            false => epoch_line(record, self.num_epochs),
        };
        output::line(&line)
    }
}

/// An epoch in one line.
pub fn epoch_line(record: &EpochRecord, num_epochs: usize) -> String {
    let number = |value: Option<f64>| value.map_or_else(|| "-".into(), |v| format!("{v:.4}"));
    format!(
        "epoch {}/{num_epochs}  lr {:.2e}  loss {:.4}  validation {}  Dice {} (average {})  {:.1} s",
        record.epoch + 1,
        record.lr,
        record.train_loss,
        number(record.val_loss),
        number(record.pseudo_dice),
        number(record.ema_pseudo_dice),
        record.train_secs + record.val_secs,
    )
}

impl Drop for TrainingProgress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
