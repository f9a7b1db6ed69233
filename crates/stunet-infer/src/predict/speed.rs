//! How long a pass takes here, measured where a prediction is long enough to ask.

use super::PredictOptions;
use crate::model::Model;
use crate::sliding_window::{Network, Recipe};
use ndarray::Array4;
use std::time::Instant;

/// Seconds of one pass over a window of `recipe`; none where `passes` are too few to spend one on it.
///
/// The processor is asked with an eighth of a window; devices compile and tune for the shapes they
/// meet, so they get a window as it will be. The second pass counts: the first makes room.
pub(super) fn measure(
    model: &Model,
    recipe: &Recipe,
    passes: usize,
    options: &PredictOptions,
) -> Option<f64> {
    /// At most a hundredth of the work: two passes of an eighth, or whole ones.
    const FEWEST: [usize; 2] = [25, 200];
    if passes < FEWEST[usize::from(options.own_memory)] {
        return None;
    }
    let network = model.networks().first()?;
    let config = network.config();
    let half = recipe.window.map(|n| n / 2);
    let shape = match options.own_memory || config.validate_patch(half).is_err() {
        true => recipe.window,
        false => half,
    };
    let pass = || {
        let clock = Instant::now();
        let [z, y, x] = shape;
        network.logits(Array4::zeros((config.in_channels, z, y, x)), &mut |_, _| ());
        clock.elapsed().as_secs_f64()
    };
    let _workspace = stunet_model::workspace();
    pass();
    let voxels = |shape: [usize; 3]| shape.iter().product::<usize>() as f64;
    Some(pass() * voxels(recipe.window) / voxels(shape))
}
