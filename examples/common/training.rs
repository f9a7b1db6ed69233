//! Cases in memory, a short run of the loop over them, and what a network makes of whole volumes.

use super::scores::dice;
use std::io::{IsTerminal, Write};
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use stunet::data::augment::Augmentation;
use stunet::data::image::Image;
use stunet::data::labels::{LabelMap, LabelSet};
use stunet::data::loader::LoaderConfig;
use stunet::data::plans::Plans;
use stunet::data::preprocess::preprocess_with_labels;
use stunet::data::sample::MemoryCase;
use stunet::infer::{Model, PredictOptions, predict};
use stunet::model::StuNet;
use stunet::train::loss::{Loss, LossConfig};
use stunet::train::schedule::Poly;
use stunet::train::{FitConfig, FitEvent};
use stunet_phantom::{PhantomCase, ScanOptions};

/// A CT with its labels.
pub struct Labelled {
    pub name: String,
    pub image: Image,
    pub labels: LabelMap,
}

/// Phantoms of several seeds, made one after another.
pub fn phantoms<'a>(
    seeds: Range<u64>,
    scan: &'a ScanOptions,
    structures: &'a [&'a str],
) -> impl Iterator<Item = anyhow::Result<Labelled>> + 'a {
    seeds.map(|seed| {
        let PhantomCase { name, image, truth } = PhantomCase::of(seed, scan, structures);
        Ok(Labelled { name, image, labels: truth })
    })
}

/// Cases as the network sees them.
pub fn prepared(
    cases: impl Iterator<Item = anyhow::Result<Labelled>>,
    plans: &Plans,
) -> anyhow::Result<Arc<Vec<MemoryCase>>> {
    let mut prepared = Vec::new();
    for case in cases {
        let Labelled { name, image, labels } = case?;
        let (seen, labels) = preprocess_with_labels(&image, Some(&labels), plans)?;
        prepared.push(MemoryCase::new(name, seen.image, labels)?);
    }
    Ok(Arc::new(prepared))
}

/// A short run: every patch shows some structure, and none is augmented.
pub fn short_run(plans: &Plans, num_epochs: usize, num_iterations: usize, lr: f64) -> FitConfig {
    let augmentation = Augmentation::none(plans.patch_size);
    let training = LoaderConfig {
        oversample_foreground: 1.0,
        ..LoaderConfig::new(augmentation, plans.batch_size, &plans.strides)
    };
    FitConfig {
        num_epochs,
        num_iterations,
        num_val_iterations: 4,
        initial_lr: lr,
        accumulate: 1,
        save_every: 1,
        objective: Arc::new(Loss::new(LossConfig::v2(true)).expect("a recipe of its own")),
        schedule: Arc::new(Poly),
        validation: LoaderConfig { seed: 1, ..training.clone() },
        training,
    }
}

/// Prints a line for each epoch and, on a terminal, each step in place.
pub fn print_progress(event: FitEvent<'_>) -> ControlFlow<()> {
    let watched = std::io::stderr().is_terminal();
    match event {
        FitEvent::Step(step) if watched => {
            eprint!("\repoch {}, step {}: loss {:.3}  ", step.epoch, step.iteration, step.loss);
        }
        FitEvent::Epoch(record) => {
            let dice = record.pseudo_dice.map_or(String::new(), |dice| format!(", Dice {dice:.3}"));
            let (back, over) = if watched { ("\r", "        ") } else { ("", "") };
            eprintln!("{back}epoch {}: loss {:.3}{dice}{over}", record.epoch, record.train_loss);
        }
        _ => {}
    }
    let _ = std::io::stderr().flush();
    ControlFlow::Continue(())
}

/// Dice of every label in a whole volume, at the case's own resolution.
pub fn judge(model: &Model, case: &Labelled) -> anyhow::Result<Vec<Option<f64>>> {
    let options = PredictOptions { mirror: false, ..PredictOptions::default() };
    let mut on = |_| ControlFlow::Continue(());
    let found = predict(model, &case.image, &options, &mut on)?;
    Ok(dice(&case.labels, &found.labelmap.to_labelmap(), model.labels().num_outputs() - 1))
}

/// A network as a model, to predict with.
pub fn model(network: StuNet, plans: &Plans, labels: &LabelSet) -> anyhow::Result<Model> {
    Ok(Model::from_parts(vec![network], plans.clone(), labels.clone())?)
}
