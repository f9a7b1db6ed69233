//! The validation after every epoch: loss and pseudo-Dice of patches.

use super::{FitCases, FitConfig, OnEvent, TrainingState, next};
use crate::batch::DeviceBatch;
use crate::error::Result;
use crate::events::FitEvent;
use crate::history::Validated;
use crate::pseudo_dice::Overlap;
use std::time::Instant;
use stunet_data::loader::Loader;

/// The batches of all epochs' validations, in order.
pub(super) struct Validation {
    batches: Loader,
    next: u64,
}

impl Validation {
    /// From an epoch on; none without cases or batches.
    pub(super) fn start(cases: &FitCases, config: &FitConfig, epoch: usize) -> Option<Self> {
        let cases = cases.validation.clone().filter(|cases| !cases.is_empty())?;
        let next = (epoch * config.num_val_iterations) as u64;
        (config.num_val_iterations > 0)
            .then(|| Self { batches: Loader::start(cases, config.validation.clone(), next), next })
    }
}

/// Validates with the weights of the moment, or their average where one is kept; none where the run
/// was stopped meanwhile.
pub(super) fn validate(
    state: &TrainingState,
    validation: Option<&mut Validation>,
    config: &FitConfig,
    on_event: OnEvent<'_>,
) -> Result<Option<Validated>> {
    let Some(validation) = validation else { return Ok(Some(Validated::default())) };
    let begin = Instant::now();
    let network = state.network_for_inference();
    let device = state.device().inner();
    let (objective, ignored) = (&config.objective, config.objective.ignore_label());
    let mut overlap = match objective.regions() {
        None => Overlap::of_classes(state.config().num_classes, ignored),
        Some(regions) => Overlap::of_regions(regions, ignored),
    };
    let (total, mut sum) = (config.num_val_iterations, 0.0);
    for done in 1..=total {
        let Some(batch) = next(&mut validation.batches, validation.next, on_event)? else {
            return Ok(None);
        };
        validation.next += 1;
        let DeviceBatch { images, targets } = DeviceBatch::new(&batch, &device);
        let outputs = network.forward_deep(images);
        overlap.add_batch(outputs[0].clone(), &targets[0]);
        sum += objective.value(&outputs, &targets);
        if on_event(FitEvent::Validated { done, total }).is_break() {
            return Ok(None);
        }
    }
    Ok(Some(Validated {
        loss: Some(sum / total as f64),
        dice: overlap.dice(),
        mean: overlap.mean(),
        secs: begin.elapsed().as_secs_f64(),
    }))
}
