//! Sigmoid, Dice and binary cross-entropy of regions that may overlap, one channel at a time.

use super::dice::{DiceSums, DiceTerm, dice};
use super::{ScaleResult, ScaleSetting};
use burn::tensor::{Bool, DType, Int, Tensor, activation};

/// Dice and binary cross-entropy of one scale.
///
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
    let ignored = config.ignore_label.map(|label| target.clone().equal_elem(label));
    let channels_of = Channels { logits, target, ignored, regions, dtype };

    let all = channels_of.sums();
    let width = 4 * channels + 1;
    let column = |part: usize| -> Vec<f64> {
        let at = |i: usize| all[(i / channels) * width + (i % channels) * 4 + part];
        (0..n * channels).map(at).collect()
    };
    let sums = DiceSums { overlap: column(0), predicted: column(1), labelled: column(2) };
    let term = dice(config, &sums, channels, 0);
    let valid: f64 = (0..n).map(|i| all[i * width + width - 1]).sum();
    let per_value = match config.ignore_label {
        _ if !config.terms.has_cross_entropy() => 0.0,
        None => 1.0 / (n * channels * z * y * x) as f64,
        Some(_) => 1.0 / valid.max(1e-8),
    };
    let cross_entropy = column(3).iter().sum::<f64>() * per_value;
    let gradient =
        setting.gradient_factor.map(|factor| channels_of.gradient(&term, per_value, factor));
    ScaleResult { dice: term.loss, cross_entropy, gradient }
}

/// A channel for each region.
struct Channels<'a> {
    /// `[N, C, z, y, x]`.
    logits: Tensor<5>,
    /// `[N, 1, z, y, x]`.
    target: Tensor<5, Int>,
    ignored: Option<Tensor<5, Bool>>,
    regions: &'a [Vec<i32>],
    /// What is computed in.
    dtype: DType,
}

impl Channels<'_> {
    fn logit(&self, index: usize) -> Tensor<5> {
        let channel = self.logits.clone().narrow(1, index, 1);
        if channel.dtype() == self.dtype { channel } else { channel.cast(self.dtype) }
    }

    /// 1 inside of a region, 0 elsewhere.
    fn inside(&self, index: usize) -> Tensor<5> {
        is_in(&self.target, &self.regions[index]).float().cast(self.dtype)
    }

    fn unless_ignored(&self, t: Tensor<5>) -> Tensor<5> {
        match &self.ignored {
            Some(ignored) => t.mask_fill(ignored.clone(), 0.0),
            None => t,
        }
    }

    /// For every sample and channel the overlap, what is predicted, what is labelled, and the
    /// cross-entropy; behind the channels of a sample, its valid voxels.
    fn sums(&self) -> Vec<f64> {
        let n = self.logits.dims()[0];
        let sum =
            |t: Tensor<5>| -> Tensor<2> { t.sum_dim(4).sum_dim(3).sum_dim(2).reshape([n, 1]) };
        let mut parts = Vec::new();
        for index in 0..self.regions.len() {
            let (logit, inside) = (self.logit(index), self.inside(index));
            let p = self.unless_ignored(activation::sigmoid(logit.clone()));
            parts.push(sum(p.clone() * inside.clone()));
            parts.push(sum(p));
            parts.push(sum(self.unless_ignored(inside.clone())));
            // -log p or -log (1 - p), without overflow.
            let loss = logit.clone().clamp_min(0.0) - logit.clone() * inside
                + logit.abs().neg().exp().log1p();
            parts.push(sum(self.unless_ignored(loss)));
        }
        let ones = self.target.ones_like().float().cast(self.dtype);
        parts.push(sum(self.unless_ignored(ones)));
        // One tensor, one wait for the device.
        stunet_model::read(Tensor::cat(parts, 1)).iter::<f64>().collect()
    }

    /// The gradient with respect to the logits, times `factor`.
    fn gradient(&self, term: &DiceTerm, per_value: f64, factor: f64) -> Tensor<5> {
        let (device, dims) = (self.logits.device(), self.logits.dims());
        let [n, channels, z, y, x] = dims;
        let mut gradient = Tensor::<5>::empty(dims, (&device, self.logits.dtype()));
        for index in 0..channels {
            let inside = self.inside(index);
            let slope = |v: &[f64]| {
                let own: Vec<f64> = (0..n).map(|i| v[i * channels + index] * factor).collect();
                Tensor::<1>::from_data(own.as_slice(), (&device, self.dtype))
                    .reshape([n, 1, 1, 1, 1])
            };
            let p = activation::sigmoid(self.logit(index));
            let dice = inside.clone() * slope(&term.overlap_slope) + slope(&term.predicted_slope);
            let own =
                p.clone() * (p.clone().neg() + 1.0) * dice + (p - inside) * (per_value * factor);
            let own = self.unless_ignored(own).cast(self.logits.dtype());
            gradient = gradient.slice_assign([0..n, index..index + 1, 0..z, 0..y, 0..x], own);
        }
        gradient
    }
}

/// Where the label belongs to a region.
fn is_in(target: &Tensor<5, Int>, region: &[i32]) -> Tensor<5, Bool> {
    let masks = region.iter().map(|&label| target.clone().equal_elem(label));
    masks.reduce(Tensor::bool_or).expect("a region has labels")
}
