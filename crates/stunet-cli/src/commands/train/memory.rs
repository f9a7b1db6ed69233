//! The memory that a run needs: printed, or rejected before anything is written.

use anyhow::bail;
use stunet::train::memory::{TrainingMemory, plan};
use stunet::train::{FitConfig, StateOptions};

use super::settings::Settings;
use crate::args::TrainArgs;
use crate::{machine, output};

/// Says in a line what the run needs.
///
/// Fails where that is more than `--max-memory` allows or the machine has, with what would fit.
pub fn check(
    args: &TrainArgs,
    settings: &Settings,
    config: &FitConfig,
    options: &StateOptions,
) -> anyhow::Result<String> {
    let needed = plan(&settings.network, config, options);
    let allowed = machine::allowed(args.max_memory).unwrap_or(u64::MAX);
    if needed.host_bytes() <= allowed {
        return Ok(line(&needed));
    }
    let [z, y, x] = settings.patch;
    let patches = match settings.batch_size {
        1 => "1 patch".to_owned(),
        patches => format!("{patches} patches"),
    };
    bail!(
        "{}; {}",
        machine::too_little(
            args.max_memory,
            needed.host_bytes(),
            &format!("training on batches of {patches} of {z} x {y} x {x} voxels"),
        ),
        advice(args, settings, config, options, allowed)
    )
}

fn line(plan: &TrainingMemory) -> String {
    let there = match plan.device_bytes {
        0 => String::new(),
        bytes => format!(", {} of it on the device", output::bytes(bytes)),
    };
    format!(
        "about {} of memory: {} for weights, gradients and momentum, {} for activations, {} for \
         patches{there}",
        output::bytes(plan.total_bytes()),
        output::bytes(plan.weights_bytes),
        output::bytes(plan.activation_bytes),
        output::bytes(plan.patch_bytes),
    )
}

/// What to change so that the run fits.
fn advice(
    args: &TrainArgs,
    settings: &Settings,
    config: &FitConfig,
    options: &StateOptions,
    allowed: u64,
) -> String {
    if args.go_on {
        return "a run that goes on keeps its settings: give it more memory".to_owned();
    }
    let most = |recomputed: bool| {
        let options = StateOptions {
            checkpoint_activations: options.checkpoint_activations || recomputed,
            ..options.clone()
        };
        let fits = |patches: usize| {
            let mut config = config.clone();
            config.training.batch_size = patches;
            config.validation.batch_size = patches;
            plan(&settings.network, &config, &options).host_bytes() <= allowed
        };
        largest(fits, settings.batch_size)
    };
    match (most(false), most(true)) {
        (0, 0) => "a smaller --patch, a smaller network or more memory is needed".to_owned(),
        (0, patches) => format!("--checkpoint-activations with --batch-size {patches} fits"),
        (plain, patches) if patches > plain => format!(
            "--batch-size {plain} fits, or {patches} with --checkpoint-activations, or use a \
             smaller --patch"
        ),
        (plain, _) => format!("--batch-size {plain} fits, or use a smaller --patch"),
    }
}

/// The largest number up to `most` that fits, where smaller ones do as well; 0 where none does.
fn largest(fits: impl Fn(usize) -> bool, most: usize) -> usize {
    let (mut good, mut bad) = (0, most.saturating_add(1));
    while bad - good > 1 {
        let middle = good + (bad - good) / 2;
        match fits(middle) {
            true => good = middle,
            false => bad = middle,
        }
    }
    good
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_that_fits() {
        let check = |limit: usize, most: usize, expected: usize| {
            assert_eq!(largest(|n| n <= limit, most), expected);
        };
        check(0, 9, 0);
        check(1, 1, 1);
        check(4, 9, 4);
        check(9, 9, 9);
        check(7, usize::MAX, 7);
    }
}
