//! The training loop.

mod recorder;
mod state;
mod validate;

pub use recorder::FoldFolder;
pub use state::{StateOptions, TrainingState};

use crate::error::{Result, TrainError};
use crate::events::{FitEvent, TrainingStep};
use crate::objective::Objective;
use crate::schedule::{Poly, Position, Schedule};
use crate::step::Clock;
use recorder::Recorder;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;
use stunet_data::augment::Augmentation;
use stunet_data::loader::{Loader, LoaderConfig, TrainingBatch};
use stunet_data::sample::TrainingCases;
use validate::{Validation, validate};

/// Turns the seed of the training patches into that of the validation patches.
const VALIDATION: u64 = 0x7661_6c69_6461_7465;

/// How a run goes: the published recipe by default.
#[derive(Clone, Debug)]
pub struct FitConfig {
    /// Epochs of the whole run: 1000; the published models had 4000 (`ep4k`).
    pub num_epochs: usize,
    /// Updates per epoch.
    pub num_iterations: usize,
    /// Validation batches per epoch: 50 in nnU-Net 2, 1 in STU-Net's trainer for nnU-Net 1.
    pub num_val_iterations: usize,
    /// Learning rate of the first epoch: 0.01; 0.001 for fine-tuning.
    pub initial_lr: f64,
    /// What becomes of it: nnU-Net's polynomial decay by default.
    pub schedule: Arc<dyn Schedule>,
    /// Batches whose gradients make up one update.
    pub accumulate: usize,
    /// A checkpoint is written after every so many epochs, and after the last.
    pub save_every: usize,
    /// The loss: one of the built-in ones, or one's own.
    pub objective: Arc<dyn Objective>,
    /// Where and how training patches are cut.
    pub training: LoaderConfig,
    /// The same for validation.
    pub validation: LoaderConfig,
}

/// Whoever is told how a run goes, and may stop it.
type OnEvent<'a> = &'a mut dyn FnMut(FitEvent<'_>) -> ControlFlow<()>;

/// The cases of a run.
#[derive(Clone)]
pub struct FitCases {
    /// Cases to train on.
    pub training: Arc<dyn TrainingCases>,
    /// Cases for the pseudo-Dice after every epoch; without any there is none.
    pub validation: Option<Arc<dyn TrainingCases>>,
}

/// Trains a network from where `state` stands to the last epoch.
///
/// Every batch is a function of the loader's seed and its number, and `state` knows how many were
/// drawn: a run that is cut off and continued from its checkpoint computes what the uninterrupted
/// one does, on the CPU bit for bit. `on_event` is told of every step, and of the waiting between them,
/// and may stop the run, which then saves its state and returns it; whether the run is complete, [`TrainingState::is_complete`]
/// says. Without a folder nothing is written.
///
/// # Errors
/// When a case cannot be read, a file not written, the loss is no longer finite or has no gradient, a
/// device does not compute, the devices cannot share a batch equally, or the run was begun with another
/// loss, optimiser, schedule or augmentation.
///
/// # Source
/// nnU-Net 1.7.1 `nnUNetTrainerV2.run_training` with STU-Net's `STUNetTrainer`; nnU-Net 2
/// `nnUNetTrainer.run_training`.
pub fn fit(
    state: TrainingState,
    cases: &FitCases,
    config: &FitConfig,
    folder: Option<&FoldFolder>,
    on_event: &mut dyn FnMut(FitEvent<'_>) -> ControlFlow<()>,
) -> Result<TrainingState> {
    stunet_model::guarded(|| run(state, cases, config, folder, on_event))?
}

fn run(
    mut state: TrainingState,
    cases: &FitCases,
    config: &FitConfig,
    folder: Option<&FoldFolder>,
    on_event: OnEvent<'_>,
) -> Result<TrainingState> {
    config.check()?;
    state.check(config)?;
    state.adopt(config)?;
    // A run may have been cut off between its last epoch and its final checkpoint.
    if state.is_complete(config) && folder.is_none_or(FoldFolder::is_final) {
        folder.map_or(Ok(()), FoldFolder::remove_latest)?;
        return Ok(state);
    }
    let mut recorder = Recorder::open(folder, &state, config)?;
    let next = state.progress.next_batch;
    let mut training = Loader::start(cases.training.clone(), config.training.clone(), next);
    let mut validation = Validation::start(cases, config, state.progress.epoch);
    let started = FitEvent::Started {
        epoch: state.progress.epoch,
        iteration: state.progress.iteration,
        num_epochs: config.num_epochs,
        num_iterations: config.num_iterations,
    };
    let mut stop = on_event(started).is_break();

    while state.progress.epoch < config.num_epochs {
        let mut clock = Clock::default();
        while state.progress.iteration < config.num_iterations && !stop {
            let step = update(&mut state, &mut training, config, (&recorder, &mut *on_event))?;
            match step {
                None => stop = true,
                Some(step) => {
                    clock.add(&step);
                    stop = on_event(FitEvent::Step(step)).is_break();
                }
            }
        }
        let validated = match stop {
            true => None,
            false => validate(&state, validation.as_mut(), config, on_event)?,
        };
        // A validation that was stopped is done anew by whoever goes on.
        let Some(validated) = validated else {
            recorder.save_latest(&state, on_event)?;
            return Ok(state);
        };
        let last = config.num_iterations - 1;
        let lr = config.learning_rate(state.progress.epoch, last)?;
        let record = state.progress.close_epoch(lr, clock, validated);
        recorder.epoch(&state, &record, on_event)?;
        stop = on_event(FitEvent::Epoch(&record)).is_break();
        state.device().memory_cleanup();
    }
    recorder.finish(&state, on_event)?;
    give_back(&state);
    Ok(state)
}

/// What follows has other uses for memory.
fn give_back(state: &TrainingState) {
    stunet_model::release_memory();
    state.device().memory_cleanup();
}

/// One update of the weights: forward, loss and backward for each of its batches, then the step. None
/// where the run was stopped while the first of them was not ready.
fn update(
    state: &mut TrainingState,
    batches: &mut Loader,
    config: &FitConfig,
    (recorder, on_event): (&Recorder<'_>, OnEvent<'_>),
) -> Result<Option<TrainingStep>> {
    let begin = Instant::now();
    let lr = config.learning_rate(state.progress.epoch, state.progress.iteration)?;
    let (mut wait_secs, mut total, mut names) = (0.0, 0.0, Vec::new());
    for number in 0..config.accumulate {
        let waiting = Instant::now();
        let batch = match next(batches, state.progress.next_batch, on_event)? {
            Some(batch) => batch,
            None if number == 0 => return Ok(None),
            // Half an update is none: it is finished, and the stop heard after it.
            None => {
                batches.next().ok_or(TrainError::NoMoreBatches(state.progress.next_batch))??
            }
        };
        wait_secs += waiting.elapsed().as_secs_f64();
        state.progress.next_batch += 1;
        names.extend(batch.patches.iter().map(|patch| patch.case.clone()));
        let value = state.backward(&batch, &*config.objective, config.accumulate)?;
        total += value / config.accumulate as f64;
    }
    let (epoch, iteration) = (state.progress.epoch, state.progress.iteration);
    let not_finite = |what, value: f64| TrainError::NotFinite {
        what,
        value,
        epoch,
        iteration,
        cases: names.clone(),
        last_good: recorder.last_good(),
    };
    if !total.is_finite() {
        return Err(not_finite("loss", total));
    }
    let report = state.descend(lr);
    if !report.grad_norm.is_finite() && !state.scales_loss() {
        return Err(not_finite("norm of the gradients", report.grad_norm));
    }
    let step = TrainingStep {
        epoch,
        iteration,
        loss: total,
        grad_norm: report.grad_norm,
        skipped: report.skipped,
        wait_secs,
        secs: begin.elapsed().as_secs_f64(),
    };
    state.progress.note_step(&step);
    Ok(Some(step))
}

/// The next batch, which is that of the number the state knows; none where the run was stopped
/// before it was ready.
fn next(batches: &mut Loader, index: u64, on_event: OnEvent<'_>) -> Result<Option<TrainingBatch>> {
    let begin = Instant::now();
    let batch = batches
        .next_unless(&mut || on_event(FitEvent::Waiting { secs: begin.elapsed().as_secs_f64() }))?;
    debug_assert!(batch.as_ref().is_none_or(|b| b.index == index), "batches come in order");
    Ok(batch)
}

impl FitConfig {
    /// The published recipe for a number of epochs; validation patches are like the training
    /// patches, but not augmented and not the same.
    pub fn new(
        num_epochs: usize,
        loader: LoaderConfig,
        objective: impl Objective + 'static,
    ) -> Self {
        let validation = LoaderConfig {
            augmentation: Augmentation::none(loader.patch_size()),
            seed: loader.seed ^ VALIDATION,
            ..loader.clone()
        };
        Self {
            num_epochs,
            num_iterations: 250,
            num_val_iterations: 1,
            initial_lr: 0.01,
            schedule: Arc::new(Poly),
            accumulate: 1,
            save_every: 1,
            objective: Arc::new(objective),
            validation,
            training: loader,
        }
    }

    /// The same with another loss.
    #[must_use]
    pub fn with_objective(self, objective: impl Objective + 'static) -> Self {
        Self { objective: Arc::new(objective), ..self }
    }

    /// The same with other learning rates.
    #[must_use]
    pub fn with_schedule(self, schedule: impl Schedule + 'static) -> Self {
        Self { schedule: Arc::new(schedule), ..self }
    }

    /// The learning rate of an update.
    fn learning_rate(&self, epoch: usize, iteration: usize) -> Result<f64> {
        let Self { num_epochs, num_iterations, .. } = *self;
        let at = Position { epoch, iteration, num_epochs, num_iterations };
        let rate = self.schedule.rate(self.initial_lr, &at);
        match rate.is_finite() && rate >= 0.0 {
            true => Ok(rate),
            false => {
                let found = format!("{rate} at epoch {epoch}, iteration {iteration}");
                Err(TrainError::setting("learning rate", "a number of at least 0", found))
            }
        }
    }

    /// Checks what a run needs.
    ///
    /// # Errors
    /// Names the first setting that cannot be used.
    pub fn check(&self) -> Result<()> {
        let counts = [
            ("epochs", self.num_epochs),
            ("iterations", self.num_iterations),
            ("batches to accumulate", self.accumulate),
            ("epochs between checkpoints", self.save_every),
        ];
        if let Some((what, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            return Err(TrainError::setting(what, "at least 1", 0));
        }
        if !(self.initial_lr.is_finite() && self.initial_lr > 0.0) {
            return Err(TrainError::setting("learning rate", "above 0", self.initial_lr));
        }
        self.objective.check()
    }
}

#[cfg(test)]
mod tests;
