//! A run that nnU-Net began, to be gone on with.

use crate::error::{Result, TrainError};
use crate::fit::{StateOptions, TrainingState};
use crate::history::{EpochRecord, Progress};
use crate::optimiser::OptimiserState;
use burn::tensor::TensorData;
use serde_json::Value;
use std::path::{Path, PathBuf};
use stunet_model::StuNetConfig;
use stunet_model::weights::{Checkpoint, CheckpointKind, LoadOptions};

/// Names of nnU-Net 2's checkpoints, in the order in which it looks for one to go on from.
pub const CHECKPOINTS: [&str; 3] =
    ["checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_best.pth"];

/// The checkpoint that nnU-Net would go on from, in the folder of a fold.
///
/// # Source
/// nnU-Net 2.8.1, `maybe_load_checkpoint` of `run_training.py`.
pub fn newest_checkpoint(fold: &Path) -> Option<PathBuf> {
    CHECKPOINTS.into_iter().map(|name| fold.join(name)).find(|file| file.is_file())
}

/// A run of nnU-Net 2 with STU-Net, as one of its checkpoints has it: weights, momentum, epochs and what
/// was logged of them.
///
/// The state of nnU-Net's gradient scaler is passed over, and so is the learning rate, which is a function
/// of the epoch. nnU-Net draws its patches at random; from here on they follow the run's seed.
///
/// # Source
/// nnU-Net 2.8.1, `nnUNetTrainer.save_checkpoint` and `load_checkpoint`.
#[derive(Debug)]
pub struct NnUNetRun {
    checkpoint: Checkpoint,
    config: StuNetConfig,
    progress: Progress,
}

impl NnUNetRun {
    /// Opens a checkpoint; `strides` are those of the plans.
    ///
    /// # Errors
    /// When the file is none, is damaged, or holds another network.
    pub fn open(path: &Path, strides: [[usize; 3]; 5]) -> Result<Self> {
        let checkpoint = Checkpoint::open(path)?;
        if checkpoint.kind() != CheckpointKind::NnUNetV2 {
            let found = checkpoint.kind().name();
            return Err(TrainError::checkpoint(path, "a checkpoint of nnU-Net 2", found));
        }
        let config = checkpoint.config(strides)?;
        let progress = progress(&checkpoint)?;
        Ok(Self { checkpoint, config, progress })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        self.checkpoint.path()
    }

    /// The network.
    pub fn config(&self) -> &StuNetConfig {
        &self.config
    }

    /// Epochs that are complete.
    pub fn epoch(&self) -> usize {
        self.progress.epoch
    }

    /// Name of nnU-Net's trainer, if the checkpoint says it.
    pub fn trainer(&self) -> Option<&str> {
        self.checkpoint.trainer()
    }

    /// The state of training; `batches_per_epoch` training batches are counted for every epoch.
    ///
    /// # Errors
    /// When a tensor cannot be read, the momentum is missing, or the optimiser is another than SGD.
    pub fn state(&self, options: &StateOptions, batches_per_epoch: u64) -> Result<TrainingState> {
        let device = options.training_device();
        let load = LoadOptions::default();
        let (network, _) = self.checkpoint.load_into(&self.config, &load, &device)?;
        let mut momentum = self.checkpoint.momentum()?;
        let specs = self.config.parameter_specs();
        let tensors = specs.into_iter().filter_map(|spec| {
            let values = momentum.remove(&spec.name)?;
            Some((spec.name, TensorData::new(values, spec.shape)))
        });
        let memory = OptimiserState { tensors: tensors.collect(), ..OptimiserState::default() };
        let mut progress = self.progress.clone();
        progress.next_batch = (progress.epoch as u64).saturating_mul(batches_per_epoch);
        TrainingState::taken_over(network, memory, progress, options)
    }
}

/// Where the run stands, out of `current_epoch`, `_best_ema` and `logging`.
fn progress(checkpoint: &Checkpoint) -> Result<Progress> {
    const MOST: i64 = 1_000_000;
    let path = checkpoint.path();
    let epoch = checkpoint.epoch().filter(|epoch| (0..=MOST).contains(epoch));
    let epoch = epoch.ok_or_else(|| {
        let found = format!("{:?}", checkpoint.epoch());
        TrainError::checkpoint(path, "current_epoch from 0 to 1000000", found)
    })? as usize;
    let metadata = checkpoint.metadata();
    let logged = metadata.get("logging").unwrap_or(&Value::Null);
    let column = |key: &str| logged.get(key).and_then(Value::as_array);
    // Older checkpoints may have logged less.
    let at = |key: &str, epoch: usize| column(key).and_then(|values| values.get(epoch));
    let number = |key: &str, epoch: usize| at(key, epoch).and_then(Value::as_f64);
    let record = |epoch: usize| {
        let began = number("epoch_start_timestamps", epoch);
        let ended = number("epoch_end_timestamps", epoch);
        let dice = at("dice_per_class_or_region", epoch).and_then(Value::as_array);
        EpochRecord {
            epoch,
            lr: number("lrs", epoch).unwrap_or(f64::NAN),
            train_loss: number("train_losses", epoch).unwrap_or(f64::NAN),
            val_loss: number("val_losses", epoch),
            dice_per_class: dice.into_iter().flatten().map(Value::as_f64).collect(),
            pseudo_dice: number("mean_fg_dice", epoch),
            ema_pseudo_dice: number("ema_fg_dice", epoch),
            // nnU-Net logs none of these.
            grad_norm: f64::NAN,
            skipped_steps: 0,
            train_secs: began.zip(ended).map_or(0.0, |(began, ended)| (ended - began).max(0.0)),
            wait_secs: 0.0,
            val_secs: 0.0,
        }
    };
    // No more than there can be, whatever the number says.
    let logged = column("train_losses").map_or(0, Vec::len);
    let history: Vec<EpochRecord> = (0..epoch.min(logged)).map(record).collect();
    let ema = history.iter().rev().find_map(|record| record.ema_pseudo_dice);
    let best = metadata.get("_best_ema").and_then(Value::as_f64);
    Ok(Progress { epoch, ema_pseudo_dice: ema, best_ema: best, history, ..Progress::default() })
}

#[cfg(test)]
mod tests;
