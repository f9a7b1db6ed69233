//! What a run is, as its checkpoints record it.

use std::path::Path;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use stunet::data::compare::differences;
use stunet::data::plans::Plans;
use stunet::train::checkpoint::TrainingCheckpoint;
use stunet::train::export::ModelDescription;
use stunet::train::nnunet_run::NnUNetRun;

use super::dataset::Dataset;
use super::settings::Settings;
use crate::args::TrainArgs;

/// What a run's checkpoints carry for whoever continues or exports it.
#[derive(Serialize, Deserialize)]
pub struct Run {
    /// What decides its numbers.
    pub settings: Settings,
    /// What its exports need.
    pub about: ModelDescription,
    /// The plans' file as it was when the run began, before options of the command line; earlier
    /// versions did not keep it.
    #[serde(default)]
    pub planned: Option<Plans>,
}

impl Run {
    /// A new run.
    pub fn new(args: &TrainArgs, dataset: &Dataset) -> anyhow::Result<Self> {
        Self::with(Settings::new(args, dataset)?, dataset)
    }

    /// A run that nnU-Net began.
    pub fn of_nnunet(
        args: &TrainArgs,
        dataset: &Dataset,
        begun: &NnUNetRun,
    ) -> anyhow::Result<Self> {
        Self::with(Settings::of_nnunet(args, dataset, begun)?, dataset)
    }

    fn with(settings: Settings, dataset: &Dataset) -> anyhow::Result<Self> {
        let about = ModelDescription {
            plans: settings.plans(dataset)?,
            labels: dataset.labels().clone(),
            trainer: settings.trainer(),
            fold: settings.fold.clone(),
            batch_dice: settings.batch_dice,
            nnunet_plans: dataset.nnunet_plans(),
            nnunet_dataset: dataset.nnunet_dataset.clone(),
        };
        Ok(Self { settings, about, planned: Some(dataset.plans().clone()) })
    }

    /// The run's, read back from one of its checkpoints.
    pub fn of(checkpoint: &TrainingCheckpoint) -> anyhow::Result<Self> {
        let (state, shown) = (checkpoint.state(), checkpoint.path().display());
        let run: Self = serde_json::from_value(state.run.clone()).with_context(|| {
            format!(
                "expected a checkpoint of `stunet train`, found one without its settings: {shown}"
            )
        })?;
        let found = differences(&run.settings.network, &state.config)?;
        ensure!(
            found.is_empty(),
            "expected one network in a checkpoint, found two: {}: {shown}",
            found.told("its settings", "its weights")
        );
        Ok(run)
    }

    /// Where a run that goes on meets the plans of today: they have to be those it was started with,
    /// as half a run at one patch and half at another is neither.
    pub fn check_plans(&self, dataset: &Dataset, checkpoint: &Path) -> anyhow::Result<()> {
        let found = match &self.planned {
            Some(planned) => dataset.plans().differences(planned)?.without(&["notes"]),
            // Options of the command line may have replaced patch and batch; the run's count.
            None => dataset.plans().differences(&self.about.plans)?.without(&[
                "notes",
                "patch_size",
                "batch_size",
            ]),
        };
        let file = dataset.planned.file_name();
        ensure!(
            found.is_empty(),
            "--continue: {file} has changed since the run was started: {}; undo the change to go on, or \
             start a run of its own with --output or under other plans: {}",
            found.told(&file, checkpoint.file_name().unwrap_or_default().display()),
            dataset.planned.file.display()
        );
        Ok(())
    }
}
