//! Sigmoid, Dice and binary cross-entropy of regions that may overlap, one channel at a time.

use super::dice::{DiceSums, dice};
use super::{ScaleResult, ScaleSetting};
use burn::tensor::{Bool, DType, Int, Tensor, activation};

/// # Source
/// nnU-Net 2.2 `DC_and_BCE_loss`: without an ignore label the cross-entropy is the mean over voxels
/// *and* regions; with one it is the sum over regions of the mean over valid voxels.
///
/// # Panics
/// When there are not as many channels as regions.
pub(super) fn scale(
    setting: &ScaleSetting<'_>,
    logits: Tensor<5>,
    target: Tensor<4, Int>,
) -> ScaleResult {
    let config = setting.config;
    let regions = config.regions.as_ref().expect("called with regions");
    let [n, channels, z, y, x] = logits.dims();
    assert_eq!(channels, regions.len(), "as many channels as regions");
    let target: Tensor<5, Int> = target.reshape([n, 1, z, y, x]);
    let dtype = if logits.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
    let numbers = |mask: Tensor<5, Bool>| mask.float().cast(dtype);
    let ignored = config.ignore_label.map(|label| target.clone().equal_elem(label));
    let channel = |index: usize| {
        let channel = logits.clone().narrow(1, index, 1);
        if channel.dtype() == dtype { channel } else { channel.cast(dtype) }
    };
    let unless_ignored = |t: Tensor<5>| match &ignored {
        Some(ignored) => t.mask_fill(ignored.clone(), 0.0),
        None => t,
    };
    let sum = |t: Tensor<5>| -> Tensor<2> { t.sum_dim(4).sum_dim(3).sum_dim(2).reshape([n, 1]) };

    let mut parts = Vec::new();
    for (index, region) in regions.iter().enumerate() {
        let (logit, inside) = (channel(index), numbers(is_in(&target, region)));
        let p = unless_ignored(activation::sigmoid(logit.clone()));
        parts.push(sum(p.clone() * inside.clone()));
        parts.push(sum(p));
        parts.push(sum(unless_ignored(inside.clone())));
        // -log p or -log (1 - p), without overflow.
        let loss =
            logit.clone().clamp_min(0.0) - logit.clone() * inside + logit.abs().neg().exp().log1p();
        parts.push(sum(unless_ignored(loss)));
    }
    let ones = target.ones_like().float().cast(dtype);
    parts.push(sum(unless_ignored(ones)));
    // One tensor, one wait for the device.
    let all: Vec<f64> = Tensor::cat(parts, 1).into_data().iter::<f64>().collect();
    let width = 4 * channels + 1;
    let column = |part: usize| -> Vec<f64> {
        let at = |i: usize| all[(i / channels) * width + (i % channels) * 4 + part];
        (0..n * channels).map(at).collect()
    };
    let sums = DiceSums { overlap: column(0), predicted: column(1), labelled: column(2) };
    let term = dice(config, &sums, channels, 0);
    let valid: f64 = (0..n).map(|i| all[i * width + width - 1]).sum();
    let per_value = match config.ignore_label {
        None => 1.0 / (n * channels * z * y * x) as f64,
        Some(_) => 1.0 / valid.max(1e-8),
    };
    let cross_entropy = column(3).iter().sum::<f64>() * per_value;

    let gradient = setting.gradient_factor.map(|factor| {
        let mut gradient =
            Tensor::<5>::empty([n, channels, z, y, x], (&logits.device(), logits.dtype()));
        for (index, region) in regions.iter().enumerate() {
            let inside = numbers(is_in(&target, region));
            let slope = |v: &[f64]| {
                let own: Vec<f64> = (0..n).map(|i| v[i * channels + index] * factor).collect();
                Tensor::<1>::from_data(own.as_slice(), (&logits.device(), dtype))
                    .reshape([n, 1, 1, 1, 1])
            };
            let p = activation::sigmoid(channel(index));
            let dice = inside.clone() * slope(&term.overlap_slope) + slope(&term.predicted_slope);
            let own =
                p.clone() * (p.clone().neg() + 1.0) * dice + (p - inside) * (per_value * factor);
            let own = unless_ignored(own).cast(logits.dtype());
            gradient = gradient.slice_assign([0..n, index..index + 1, 0..z, 0..y, 0..x], own);
        }
        gradient
    });
    ScaleResult { dice: term.loss, cross_entropy, gradient }
}

/// Where the label belongs to a region.
fn is_in(target: &Tensor<5, Int>, region: &[i32]) -> Tensor<5, Bool> {
    let masks = region.iter().map(|&label| target.clone().equal_elem(label));
    masks.reduce(Tensor::bool_or).expect("a region has labels")
}
