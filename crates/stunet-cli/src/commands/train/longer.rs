//! A run that goes on beyond the end it was planned for.

use std::path::Path;

use anyhow::{Context, anyhow, ensure};
use stunet::train::checkpoint::{FINAL, LATEST};
use stunet::train::schedule::Position;
use stunet::train::{FitConfig, FoldFolder, TrainingState};

use super::learning::Restart;
use super::results::MODEL;
use super::settings::{Settings, same};
use super::validation;
use crate::args::TrainArgs;

/// How a run became longer.
#[derive(Clone, Copy, Debug)]
pub struct Longer {
    /// Epochs that it was planned for.
    planned: usize,
    /// Whether the learning rate begins anew.
    anew: bool,
}

/// Takes a larger number of epochs into the settings of a run that has done so many epochs and
/// iterations of the next; nothing is written.
///
/// Without `--lr` the learning rate is from then on that of a run planned for that many epochs, with it
/// one that begins with `--lr` in the next epoch to begin and falls to the new end.
pub fn longer(
    settings: &mut Settings,
    args: &TrainArgs,
    (epoch, iteration): (usize, usize),
) -> anyhow::Result<Option<Longer>> {
    let planned = settings.epochs;
    let lr = settings.learning.restart.map_or(settings.lr, |restart| restart.lr);
    let Some(epochs) = args.epochs.filter(|epochs| *epochs != planned) else {
        same("--lr", args.lr.as_ref(), Some(&lr)).map_err(|refused| {
            anyhow!("{refused} (with a larger --epochs it begins the learning rate anew)")
        })?;
        return Ok(None);
    };
    ensure!(
        epochs > planned,
        "--epochs: expected {planned} or more, as the run was started with, found {epochs}"
    );
    settings.epochs = epochs;
    if let Some(lr) = args.lr {
        // Half an epoch at one rate and half at another is neither.
        let epoch = epoch + usize::from(iteration > 0);
        settings.learning.restart = Some(Restart { epoch, lr });
    }
    Ok(Some(Longer { planned, anew: args.lr.is_some() }))
}

impl Longer {
    /// Whether the learning rate begins anew.
    pub fn is_anew(&self) -> bool {
        self.anew
    }

    /// What the learning rate does.
    pub fn told(&self, config: &FitConfig, state: &TrainingState) -> String {
        let (progress, epochs) = (&state.progress, config.num_epochs);
        let rate = |epoch: usize| {
            let (num_epochs, num_iterations) = (epochs, config.num_iterations);
            let at = Position { epoch, iteration: 0, num_epochs, num_iterations };
            config.schedule.rate(config.initial_lr, &at)
        };
        let next = progress.epoch;
        let was = match progress.history.last() {
            Some(last) => format!("was {:.2e} in epoch {next}, ", last.lr),
            None => String::new(),
        };
        let how = match self.anew {
            true => "with a new schedule",
            false => "as if planned for them from the start",
        };
        format!(
            "{epochs} epochs instead of {}, {how}: the learning rate {was}is {:.2e} in epoch {} and {:.2e} in \
             the last",
            self.planned,
            rate(next),
            next + 1,
            rate(epochs - 1)
        )
    }

    /// Puts away what only a finished run has: its checkpoint becomes the latest, so that a run that is
    /// stopped goes on from where it was, and its model and validation keep the epoch in their names.
    #[allow(clippy::disallowed_methods, reason = "moves of what is complete")]
    pub fn put_away(&self, fold: &FoldFolder) -> anyhow::Result<Option<String>> {
        let mut kept = Vec::new();
        for name in [MODEL, validation::FOLDER] {
            let there = fold.path.join(name);
            if there.is_dir() {
                let name = format!("{name}_epoch_{}", self.planned);
                let away = fold.path.join(&name);
                if away.is_dir() {
                    // Of a run that was made longer from there before, and ended there again.
                    std::fs::remove_dir_all(&away).with_context(|| cannot("remove", &away))?;
                }
                std::fs::rename(&there, &away).with_context(|| cannot("rename", &there))?;
                kept.push(name);
            }
        }
        let last = fold.path.join(FINAL);
        if last.is_file() {
            std::fs::rename(&last, fold.path.join(LATEST))
                .with_context(|| cannot("rename", &last))?;
        }
        let kept = (!kept.is_empty()).then(|| kept.join(", "));
        Ok(kept.map(|names| format!("kept of the shorter run: {names}")))
    }
}

fn cannot(what: &str, path: &Path) -> String {
    format!("cannot {what} {}", path.display())
}
