//! Export of trained weights: model folders, and checkpoints for nnU-Net.

mod as_trained;
mod nnunet;

pub use nnunet::{v1_plan_file, v2_dataset, v2_plans};

use crate::checkpoint::{Group, TrainingCheckpoint};
use crate::error::{Result, TrainError};
use crate::history::EpochRecord;
use burn::tensor::TensorData;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::path::Path;
use stunet_data::labels::LabelSet;
use stunet_data::nifti::Reader;
use stunet_data::plans::{Accumulation, Normalization, Plans};
use stunet_data::preprocess::resample::Resampling;
use stunet_model::weights::folder::{self, Provenance, StoredPrecision};
use stunet_model::weights::writer::{self, Contents, SgdRecord, V1Metadata, V2Metadata};
use stunet_model::{ModelError, ParameterSource, ParameterSpec};

/// What a checkpoint does not know about its model.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ModelDescription {
    /// The recipe.
    pub plans: Plans,
    /// The meaning of the outputs.
    pub labels: LabelSet,
    /// The trainer's name, such as `STUNetTrainer_small`.
    pub trainer: String,
    /// The fold: a number or `all`.
    pub fold: String,
    /// The dice loss counts over the batch.
    pub batch_dice: bool,
    /// nnU-Net 2's `plans.json`, if the plans came from one; else one is made. What the training did
    /// not follow is replaced where it is written.
    pub nnunet_plans: Option<Value>,
    /// nnU-Net 2's `dataset.json`; else one is made.
    pub nnunet_dataset: Option<Value>,
}

/// Which weights of a checkpoint leave it: their moving average, if there is one and it is wanted,
/// else the weights.
fn weights(checkpoint: &TrainingCheckpoint, averaged: bool) -> Group {
    if averaged && checkpoint.has(Group::Ema) { Group::Ema } else { Group::Weights }
}

/// Writes our own model folder: `network.json`, the weights, `plans.json` and `labels.json`.
///
/// # Errors
/// When the checkpoint cannot be read or the folder not be written.
pub fn model_folder(
    checkpoint: &TrainingCheckpoint,
    about: &ModelDescription,
    averaged: bool,
    precision: StoredPrecision,
    out: &Path,
) -> Result<()> {
    let state = checkpoint.state();
    let mut provenance = Provenance::new();
    provenance.insert("kind".into(), "stunet".into());
    provenance.insert("trainer".into(), about.trainer.as_str().into());
    provenance.insert("fold".into(), about.fold.as_str().into());
    provenance.insert("epoch".into(), state.progress.epoch.into());
    let mut source = checkpoint.merged(weights(checkpoint, averaged));
    folder::save(out, &state.config, &mut source, precision, provenance)?;
    plans_and_labels(about, out)
}

/// Writes the `plans.json` and `labels.json` of a model folder: beside the weights, or once beside
/// the folders of several folds.
///
/// # Errors
/// When a file cannot be written.
pub fn plans_and_labels(about: &ModelDescription, out: &Path) -> Result<()> {
    let plans = Plans { accumulation: Accumulation::F32, ..about.plans.clone() };
    plans.save(&out.join("plans.json"))?;
    about.labels.save(&out.join("labels.json"))?;
    Ok(())
}

/// Writes an nnU-Net 1 `.model`, with its `.model.pkl` beside it: weights, momentum, history.
///
/// # Errors
/// When the checkpoint cannot be read or a file not be written, or the model reads its images in a
/// way that version 1 does not have.
pub fn nnunet_v1(
    checkpoint: &TrainingCheckpoint,
    about: &ModelDescription,
    averaged: bool,
    out: &Path,
) -> Result<()> {
    let reader = about.plans.reader;
    if reader != Reader::SimpleItk {
        return Err(TrainError::Setting {
            what: "export for nnU-Net 1",
            expected: "a model whose images are read by SimpleITKIO, the one reader of version 1"
                .to_owned(),
            found: reader.name().to_owned(),
        });
    }
    let resampling = about.plans.resampling;
    if resampling != Resampling::default() {
        return Err(TrainError::Setting {
            what: "export for nnU-Net 1",
            expected: format!(
                "a model whose images are resampled by {}, the one function of version 1",
                Resampling::default().name()
            ),
            found: resampling.name().to_owned(),
        });
    }
    if let Some(own) = about.plans.channels.iter().find(|c| c.scheme == Normalization::Own) {
        return Err(TrainError::Setting {
            what: "export for nnU-Net 1",
            expected: "a normalisation that version 1 has".to_owned(),
            found: format!("one of your own for the channel {}", own.name),
        });
    }
    let progress = &checkpoint.state().progress;
    let column = |value: &dyn Fn(&EpochRecord) -> Option<f64>| {
        progress.history.iter().map(|record| value(record).unwrap_or(f64::NAN)).collect()
    };
    let metadata = V1Metadata {
        epoch: progress.epoch,
        history: [
            column(&|r| Some(r.train_loss)),
            column(&|r| r.val_loss),
            column(&|r| r.pseudo_dice),
        ],
        plan_file: Some(v1_plan_file(about)),
    };
    with_contents(checkpoint, averaged, |contents| writer::write_v1(out, contents, &metadata))
}

/// Writes an nnU-Net 2 `checkpoint_*.pth`: weights, momentum, history, plans and dataset.
///
/// # Errors
/// When the checkpoint cannot be read or the file not be written.
pub fn nnunet_v2(
    checkpoint: &TrainingCheckpoint,
    about: &ModelDescription,
    averaged: bool,
    out: &Path,
) -> Result<()> {
    let progress = &checkpoint.state().progress;
    let metadata = V2Metadata {
        epoch: progress.epoch,
        trainer: about.trainer.clone(),
        mirror_axes: about.plans.mirror_axes.clone(),
        init_args: json!({
            "plans": v2_plans(about, &checkpoint.state().config),
            "configuration": about.plans.configuration,
            "fold": about.fold.parse::<u64>().map_or_else(|_| json!(about.fold), |n| json!(n)),
            "dataset_json": v2_dataset(about),
            "unpack_dataset": true,
        }),
        logging: logging(&progress.history),
        best_ema: progress.best_ema,
    };
    with_contents(checkpoint, averaged, |contents| writer::write_v2(out, contents, &metadata))
}

/// nnU-Net 2's logger, complete: it goes on from these lists, and all of them are as long as there
/// were epochs.
///
/// # Units
/// Seconds of training since its beginning stand for the times of day, which are not kept: nnU-Net
/// takes their differences.
///
/// # Source
/// nnU-Net 2.8.1, `nnunet_logger.py` (`LocalLogger`).
fn logging(history: &[EpochRecord]) -> Value {
    let column = |value: &dyn Fn(&EpochRecord) -> Value| -> Vec<Value> {
        history.iter().map(value).collect()
    };
    let ends: Vec<f64> = history
        .iter()
        .scan(0.0, |now, record| {
            *now += record.train_secs + record.val_secs;
            Some(*now)
        })
        .collect();
    let starts: Vec<f64> = [0.0].into_iter().chain(ends.iter().copied()).take(ends.len()).collect();
    json!({
        "train_losses": column(&|r| json!(r.train_loss)),
        "val_losses": column(&|r| json!(r.val_loss)),
        "mean_fg_dice": column(&|r| json!(r.pseudo_dice)),
        "ema_fg_dice": column(&|r| json!(r.ema_pseudo_dice)),
        "dice_per_class_or_region": column(&|r| json!(r.dice_per_class)),
        "lrs": column(&|r| json!(r.lr)),
        "epoch_start_timestamps": starts,
        "epoch_end_timestamps": ends,
    })
}

fn with_contents(
    checkpoint: &TrainingCheckpoint,
    averaged: bool,
    write: impl FnOnce(Contents<'_>) -> Result<(), ModelError>,
) -> Result<()> {
    let mut parameters = checkpoint.merged(weights(checkpoint, averaged));
    // A parameter that never had a gradient has no momentum; zeros go on as none would.
    let mut momentum = |spec: &ParameterSpec| match checkpoint.shape(Group::Momentum, &spec.name) {
        Some(_) => checkpoint.source(Group::Momentum).parameter(spec),
        None => Ok(TensorData::zeros::<f32, _>(spec.shape.clone())),
    };
    let state = checkpoint.state();
    let lr = state.progress.history.last().map(|record| record.lr);
    let contents = Contents {
        config: &state.config,
        parameters: &mut parameters,
        momentum: checkpoint.has(Group::Momentum).then_some(&mut momentum),
        optimiser: SgdRecord { lr: lr.unwrap_or_default(), ..SgdRecord::default() },
    };
    Ok(write(contents)?)
}

#[cfg(test)]
mod tests;
