//! Burn's AdamW and a cosine schedule with a warm-up in `fit`; the run is cut off and goes on.
#![allow(clippy::disallowed_macros, reason = "examples print")]

use burn::tensor::Device;
use ndarray::Array3;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use stunet::data::augment::Augmentation;
use stunet::data::loader::LoaderConfig;
use stunet::data::sample::MemoryCase;
use stunet::model::{Initialisation, StuNetConfig};
use stunet::train::burn_optim::AdamWConfig;
use stunet::train::checkpoint::TrainingCheckpoint;
use stunet::train::loss::{Loss, LossConfig};
use stunet::train::optimiser::BurnOptimiser;
use stunet::train::schedule::{Position, Schedule};
use stunet::train::{FitCases, FitConfig, FitEvent, FoldFolder, StateOptions, TrainingState, fit};

/// From 0 to the initial rate over some updates, then down along half a cosine.
#[derive(Debug)]
struct CosineWarmUp {
    warm_up: usize,
}

impl Schedule for CosineWarmUp {
    fn describe(&self) -> String {
        format!("cosine, warm-up of {} updates", self.warm_up)
    }

    fn rate(&self, initial: f64, at: &Position) -> f64 {
        let (update, end) = (at.update() as f64, at.num_updates() as f64);
        let warm_up = self.warm_up as f64;
        match update < warm_up {
            true => initial * (update + 1.0) / warm_up,
            false => {
                let done = (update - warm_up) / (end - warm_up);
                initial * 0.5 * (1.0 + (std::f64::consts::PI * done).cos())
            }
        }
    }
}

/// Trains on a bright box, in one go or cut off at an update and continued: losses of the epochs.
pub fn run(folder: &Path, cut_off_at: Option<usize>) -> anyhow::Result<Vec<f64>> {
    let labels = Array3::from_shape_fn([20; 3], |(z, y, x)| i16::from(z > 7 && y > 9 && x > 5));
    let image = labels.map(|l| f32::from(*l) - 0.5).into_shape_with_order((1, 20, 20, 20))?;
    let cases = Arc::new(vec![MemoryCase::new("box", image, labels)?]);
    let cases = FitCases { training: cases.clone(), validation: Some(cases) };

    let strides = [[2; 3], [2; 3], [2; 3], [1; 3], [1; 3]];
    let network = StuNetConfig { width: [4; 6], strides, ..StuNetConfig::small(1, 2) };
    let loader = LoaderConfig::new(Augmentation::v2([16; 3]), 2, &network.strides);
    let config = FitConfig::new(4, loader, Loss::new(LossConfig::v2(true))?);
    let config = FitConfig { num_iterations: 5, initial_lr: 3e-3, ..config };
    let config = config.with_schedule(CosineWarmUp { warm_up: 5 });
    let adam = AdamWConfig::new().with_weight_decay(0.01).build();
    let adam = BurnOptimiser::new("AdamW, decay 0.01", adam);
    let options = StateOptions::new(&Device::flex()).with_optimiser(adam);

    let device = options.training_device();
    let network = network.init_seeded(Initialisation::PyTorchDefault, 1, &device)?;
    let (fold, mut updates) = (FoldFolder::at(folder), 0);
    let stop = &mut |event: FitEvent<'_>| {
        updates += usize::from(matches!(event, FitEvent::Step(_)));
        if Some(updates) == cut_off_at { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let mut state = fit(TrainingState::new(network, &options), &cases, &config, Some(&fold), stop)?;
    if let Some(file) = fold.newest_checkpoint().filter(|_| !state.is_complete(&config)) {
        state = TrainingState::from_checkpoint(&TrainingCheckpoint::open(&file)?, &options)?;
        state = fit(state, &cases, &config, Some(&fold), &mut |_| ControlFlow::Continue(()))?;
    }
    Ok(state.progress.history.iter().map(|epoch| epoch.train_loss).collect())
}

#[allow(dead_code, reason = "the tests call `run`")]
fn main() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    run(folder.path(), Some(7)).map(|losses| println!("{losses:?}"))
}
