//! The mean of the largest cross-entropies of a batch, alone or beside the Dice.
//!
//! Which voxels are the largest is chosen on the host, which reads one number per voxel: the same
//! voxels on every device, where equal numbers come in the order of the voxels. All else runs with
//! Burn's operators, a few classes at a time.

use super::device::{Sweep, chunks};
use super::dice::dice;
use super::{ScaleResult, ScaleSetting};
use burn::tensor::{Int, Tensor, TensorData};

/// # Source
/// nnU-Net 2.8.1 `TopKLoss` and `DC_and_topk_loss`; PyTorch's `cross_entropy` for the smoothed target.
///
/// # Panics
/// When a label is neither a class nor ignored.
pub(super) fn scale(
    setting: &ScaleSetting<'_>,
    logits: Tensor<5>,
    target: Tensor<4, Int>,
) -> ScaleResult {
    let config = setting.config;
    let (percent, smoothing) = config.terms.top_k().expect("called with a share");
    let [n, classes, z, y, x] = logits.dims();
    let own_dtype = logits.dtype();
    let sweep = Sweep::new(logits, target, config.ignore_label);
    let mut losses = sweep.cross_entropies();
    if smoothing > 0.0 {
        losses = losses * (1.0 - smoothing) + sweep.mean_over_labels() * smoothing;
    }
    let chosen = Largest::of(stunet_model::read(losses), percent);
    let term = if config.terms.has_dice() {
        let (sums, ..) = sweep.sums();
        Some(dice(config, &sums, classes, 1))
    } else {
        None
    };
    let gradient = setting.gradient_factor.map(|factor| {
        let weights = chosen.weights(factor).convert_dtype(sweep.dtype);
        let weights = Tensor::<1>::from_data(weights, (&sweep.device(), sweep.dtype));
        let own = slope(&sweep, weights.reshape([n, 1, z * y * x]), smoothing);
        let gradient = match &term {
            None => own,
            Some(term) => {
                let slopes =
                    |v: &[f64]| sweep.upload(v.iter().map(|v| v * factor).collect(), [n, classes]);
                let (overlap, predicted) =
                    (slopes(&term.overlap_slope), slopes(&term.predicted_slope));
                own + sweep.gradient(overlap, predicted, 0.0, sweep.dtype)
            }
        };
        let gradient = if own_dtype == sweep.dtype { gradient } else { gradient.cast(own_dtype) };
        gradient.reshape([n, classes, z, y, x])
    });
    let dice = term.map_or(0.0, |term| term.loss);
    ScaleResult { dice, cross_entropy: chosen.mean, gradient }
}

/// The largest terms.
struct Largest {
    mean: f64,
    /// One per voxel of the batch.
    chosen: Vec<bool>,
    count: usize,
}

impl Largest {
    fn of(losses: TensorData, percent: f64) -> Self {
        // One that is no number comes first, whatever its sign.
        let number = |v: f64| if v.is_nan() { f64::NAN } else { v };
        let losses: Vec<f64> = losses.iter::<f64>().map(number).collect();
        // In the order of the reference's arithmetic: 100 % of three voxels are three.
        let count = ((losses.len() as f64 * percent / 100.0) as usize).clamp(1, losses.len());
        let mut order: Vec<u32> = (0..losses.len() as u32).collect();
        let before =
            |a: &u32, b: &u32| losses[*b as usize].total_cmp(&losses[*a as usize]).then(a.cmp(b));
        if count < order.len() {
            order.select_nth_unstable_by(count, before);
        }
        let mut chosen = vec![false; losses.len()];
        order[..count].iter().for_each(|&index| chosen[index as usize] = true);
        // In the order of the voxels, whatever the selection left.
        let sum: f64 =
            losses.iter().zip(&chosen).filter(|(_, chosen)| **chosen).map(|(v, _)| v).sum();
        Self { mean: sum / count as f64, chosen, count }
    }

    /// What the slope of every voxel is multiplied by.
    fn weights(&self, factor: f64) -> TensorData {
        let weight = factor / self.count as f64;
        let all: Vec<f64> = self.chosen.iter().map(|&is| if is { weight } else { 0.0 }).collect();
        let len = all.len();
        TensorData::new(all, [len])
    }
}

/// The gradient with respect to the logits, `[N, C, V]`: `w (p_c - s / C - (1 - s) y_c)`. Ignored
/// voxels, which may be among the largest where there are few others, have none.
fn slope(sweep: &Sweep, weights: Tensor<3>, smoothing: f64) -> Tensor<3> {
    let [n, classes, voxels] = sweep.logits.dims();
    let weights = match &sweep.valid {
        Some(valid) => weights * valid.clone(),
        None => weights,
    };
    let spread = smoothing / classes as f64;
    let parts = chunks(classes).map(|(start, len)| {
        let rest = sweep.softmax(start, len) - spread;
        let at_label = rest.clone() - (1.0 - smoothing);
        let own = rest.mask_where(sweep.is_label(start, len), at_label);
        own * weights.clone().expand([n, len, voxels])
    });
    let mut gradient = Tensor::<3>::empty([n, classes, voxels], (&sweep.device(), sweep.dtype));
    let mut start = 0;
    for part in parts {
        let len = part.dims()[1];
        gradient = gradient.slice_assign([0..n, start..start + len, 0..voxels], part);
        start += len;
    }
    gradient
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_are_as_many_as_asked_for_and_equal_ones_come_in_order() {
        let check = |losses: &[f32], percent: f64, mean: f64, expected: &[bool]| {
            let found = Largest::of(TensorData::new(losses.to_vec(), [losses.len()]), percent);
            assert_eq!((found.mean, &found.chosen[..]), (mean, expected), "{losses:?} {percent}");
        };
        check(&[1.0, 3.0, 2.0, 3.0], 50.0, 3.0, &[false, true, false, true]);
        check(&[1.0, 1.0, 1.0, 1.0], 50.0, 1.0, &[true, true, false, false]);
        check(&[1.0, 2.0, 3.0], 100.0, 2.0, &[true; 3]);
        check(&[1.0, 2.0, 3.0], 1.0, 3.0, &[false, false, true]);
        let nan = Largest::of(TensorData::new(vec![1.0f32, -f32::NAN], [2]), 50.0);
        assert!(nan.mean.is_nan(), "a loss that is no number is not passed over");
    }
}
