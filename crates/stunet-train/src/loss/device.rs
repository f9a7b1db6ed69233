//! Softmax, Dice and cross-entropy where the tensors are: with one operator on GPUs, with Burn's, a few
//! classes at a time, elsewhere.
//!
//! With Burn's there are four sweeps over the classes: the largest logit, the sum of exponentials, the sums of the Dice,
//! the slope's mean; and with a gradient a fifth that writes it. The exponentials are computed anew
//! in each, so that beside the logits and their gradient only chunks are held.

use super::dice::{DiceSums, dice};
use super::{ScaleResult, ScaleSetting};
use burn::tensor::{Bool, DType, Device, Int, Tensor, TensorData};
use stunet_model::{LabelledSoftmax, SoftmaxSlopes, SoftmaxSums};

/// At most this many chunks of classes: each is a sixteenth of the logits.
const NUM_CHUNKS: usize = 16;

/// One scale's tensors, flattened to `[N, C, V]`, and what every sweep needs.
pub(super) struct Sweep {
    pub logits: Tensor<3>,
    /// `[N, 1, V]`; 0 where ignored.
    pub labels: Tensor<3, Int>,
    /// `[N, 1, V]`; none where nothing is ignored.
    pub valid: Option<Tensor<3>>,
    /// `[N, 1, V]`: the largest logit.
    largest: Tensor<3>,
    /// `[N, 1, V]`: sum of `exp(logit - largest)`.
    total: Tensor<3>,
    /// `[N, 1, V]`: `1 / total`, 0 where ignored.
    inverse: Tensor<3>,
    size: [usize; 3],
    /// f32, or f64 where the logits are.
    pub dtype: DType,
}

/// # Panics
/// When a label is neither a class nor ignored.
pub(super) fn scale(
    setting: &ScaleSetting<'_>,
    logits: Tensor<5>,
    target: Tensor<4, Int>,
) -> ScaleResult {
    let ignore = setting.config.ignore_label;
    if let Some((own, sums)) = LabelledSoftmax::of(&logits, &target, ignore) {
        return fused(setting, logits.dims()[1], (&own, sums));
    }
    let [n, classes, z, y, x] = logits.dims();
    let own_dtype = logits.dtype();
    let sweep = Sweep::new(logits, target, ignore);

    let (sums, cross_entropy, valid) = sweep.sums();
    let term = dice(setting.config, &sums, classes, 1);
    let per_voxel = setting.config.terms.cross_entropy_weight(valid);
    let gradient = setting.gradient_factor.map(|factor| {
        let slopes = |v: &[f64]| sweep.upload(v.iter().map(|v| v * factor).collect(), [n, classes]);
        let gradient = sweep.gradient(
            slopes(&term.overlap_slope),
            slopes(&term.predicted_slope),
            per_voxel * factor,
            own_dtype,
        );
        gradient.reshape([n, classes, z, y, x])
    });
    ScaleResult { dice: term.loss, cross_entropy: cross_entropy * per_voxel, gradient }
}

/// The same with one operator.
fn fused(
    setting: &ScaleSetting<'_>,
    classes: usize,
    (own, sums): (&LabelledSoftmax, SoftmaxSums),
) -> ScaleResult {
    if let Some(labels) = sums.labels {
        check_labels(labels, classes);
    }
    let SoftmaxSums { overlap, predicted, labelled, cross_entropy, valid, .. } = sums;
    let term = dice(setting.config, &DiceSums { overlap, predicted, labelled }, classes, 1);
    let per_voxel = setting.config.terms.cross_entropy_weight(valid);
    let gradient = setting.gradient_factor.map(|factor| {
        let scaled = |slopes: &[f64]| slopes.iter().map(|slope| slope * factor).collect();
        own.gradient(&SoftmaxSlopes {
            overlap: scaled(&term.overlap_slope),
            predicted: scaled(&term.predicted_slope),
            cross_entropy: per_voxel * factor,
        })
    });
    ScaleResult { dice: term.loss, cross_entropy: cross_entropy * per_voxel, gradient }
}

impl Sweep {
    pub fn new(logits: Tensor<5>, target: Tensor<4, Int>, ignore: Option<i32>) -> Self {
        let [n, classes, z, y, x] = logits.dims();
        let dtype = if logits.dtype() == DType::F64 { DType::F64 } else { DType::F32 };
        let logits: Tensor<3> = logits.reshape([n, classes, z * y * x]);
        let labels: Tensor<3, Int> = target.reshape([n, 1, z * y * x]);
        let (labels, valid) = match ignore {
            None => (labels, None),
            Some(ignore) => {
                let ignored = labels.clone().equal_elem(ignore);
                let valid = ignored.clone().bool_not().float().cast(dtype);
                (labels.mask_fill(ignored, 0), Some(valid))
            }
        };
        assert_labels(&labels, classes);

        let wide =
            |chunk: Tensor<3>| if chunk.dtype() == dtype { chunk } else { chunk.cast(dtype) };
        let chunks =
            || chunks(classes).map(|(start, len)| wide(logits.clone().narrow(1, start, len)));
        let largest = chunks()
            .map(|chunk| chunk.max_dim(1))
            .reduce(Tensor::max_pair)
            .expect("at least one class");
        let total = chunks()
            .map(|chunk| (chunk - largest.clone()).exp().sum_dim(1))
            .reduce(|a, b| a + b)
            .expect("at least one class");
        let inverse = total.clone().recip();
        let inverse = match &valid {
            Some(valid) => inverse * valid.clone(),
            None => inverse,
        };
        Self { logits, labels, valid, largest, total, inverse, size: [z, y, x], dtype }
    }

    /// The softmax of a few classes, 0 where ignored.
    pub fn softmax(&self, start: usize, len: usize) -> Tensor<3> {
        let chunk = self.logits.clone().narrow(1, start, len);
        let chunk = if chunk.dtype() == self.dtype { chunk } else { chunk.cast(self.dtype) };
        (chunk - self.largest.clone()).exp() * self.inverse.clone()
    }

    /// The logit of the label, `[N, 1, V]`.
    fn true_logit(&self) -> Tensor<3> {
        let logit = self.logits.clone().gather(1, self.labels.clone());
        if logit.dtype() == self.dtype { logit } else { logit.cast(self.dtype) }
    }

    /// The softmax of the label, `[N, 1, V]`, 0 where ignored.
    fn true_softmax(&self) -> Tensor<3> {
        (self.true_logit() - self.largest.clone()).exp() * self.inverse.clone()
    }

    /// Where the label is one of a few classes, `[N, len, V]`.
    pub fn is_label(&self, start: usize, len: usize) -> Tensor<3, Bool> {
        let device = self.labels.device();
        let classes = Tensor::<1, Int>::arange(start as i64..(start + len) as i64, &device);
        let classes = classes.cast(self.labels.dtype()).reshape([1, len, 1]);
        let [n, _, voxels] = self.labels.dims();
        let shape = [n, len, voxels];
        self.labels.clone().expand(shape).equal(classes.expand(shape))
    }

    /// The Dice's sums, the summed cross-entropy and the number of voxels not ignored.
    pub fn sums(&self) -> (DiceSums, f64, f64) {
        let [n, classes, voxels] = self.logits.dims();
        let (mut overlap, mut predicted, mut labelled) = (vec![], vec![], vec![]);
        let true_softmax = self.true_softmax();
        for (start, len) in chunks(classes) {
            predicted.push(self.sum_space(self.softmax(start, len)));
            let is_label = self.is_label(start, len);
            let count = is_label.clone().float().cast(self.dtype);
            let count = match &self.valid {
                Some(valid) => count * valid.clone(),
                None => count,
            };
            labelled.push(self.sum_space(count));
            let p = true_softmax.clone().expand([n, len, voxels]);
            overlap.push(self.sum_space(p.mask_fill(is_label.bool_not(), 0.0)));
        }
        let loss = self.cross_entropies();
        let valid = match &self.valid {
            Some(valid) => self.sum_space(valid.clone()),
            None => self.upload(vec![voxels as f64; n], [n, 1]),
        };
        let parts = [overlap, predicted, labelled, vec![self.sum_space(loss)], vec![valid]];
        // One tensor, one wait for the device.
        let all = Tensor::cat(parts.into_iter().flatten().collect(), 1);
        unpack(stunet_model::read(all), n, classes)
    }

    /// The cross-entropy of every voxel, `[N, 1, V]`, 0 where ignored.
    pub fn cross_entropies(&self) -> Tensor<3> {
        self.unless_ignored(self.total.clone().log() + (self.largest.clone() - self.true_logit()))
    }

    /// What [`cross_entropies`](Self::cross_entropies) would be with every class as the label, as a
    /// mean over the classes.
    pub fn mean_over_labels(&self) -> Tensor<3> {
        let classes = self.logits.dims()[1];
        let sum = chunks(classes)
            .map(|(start, len)| {
                let chunk = self.logits.clone().narrow(1, start, len);
                let chunk =
                    if chunk.dtype() == self.dtype { chunk } else { chunk.cast(self.dtype) };
                (self.largest.clone() - chunk).sum_dim(1)
            })
            .reduce(|a, b| a + b)
            .expect("at least one class");
        self.unless_ignored(self.total.clone().log() + sum / classes as f64)
    }

    /// Not a product: an ignored voxel's loss may be infinite.
    fn unless_ignored(&self, loss: Tensor<3>) -> Tensor<3> {
        match &self.valid {
            Some(valid) => loss.mask_fill(valid.clone().equal_elem(0.0), 0.0),
            None => loss,
        }
    }

    /// Sums over voxels axis by axis: in f32 one flat sum over a volume drifts.
    fn sum_space(&self, t: Tensor<3>) -> Tensor<2> {
        let [n, c, _] = t.dims();
        let [z, y, x] = self.size;
        t.reshape([n, c, z, y, x]).sum_dim(4).sum_dim(3).sum_dim(2).reshape([n, c])
    }

    pub fn upload(&self, values: Vec<f64>, shape: [usize; 2]) -> Tensor<2> {
        let data = TensorData::new(values, shape).convert_dtype(self.dtype);
        Tensor::from_data(data, (&self.device(), self.dtype))
    }

    pub fn device(&self) -> Device {
        self.logits.device()
    }

    /// The gradient with respect to the logits, `[N, C, V]`:
    /// `p_c (g_c - sum_k g_k p_k) + w (p_c - y_c)`, where `g_c = predicted_c + overlap_c y_c`.
    pub fn gradient(
        &self,
        overlap_slope: Tensor<2>,
        predicted_slope: Tensor<2>,
        cross_entropy_slope: f64,
        dtype: DType,
    ) -> Tensor<3> {
        let [n, classes, voxels] = self.logits.dims();
        let of_label = |slope: &Tensor<2>| {
            let index = self.labels.clone().reshape([n, voxels]);
            slope.clone().gather(1, index).reshape([n, 1, voxels])
        };
        let slopes = predicted_slope.clone().reshape([n, classes, 1]);
        let true_softmax = self.true_softmax();
        let overlap_slope = of_label(&overlap_slope);
        let mean = chunks(classes)
            .map(|(start, len)| {
                (self.softmax(start, len) * slopes.clone().narrow(1, start, len)).sum_dim(1)
            })
            .reduce(|a, b| a + b)
            .expect("at least one class");
        let mean = mean + overlap_slope.clone() * true_softmax.clone();

        // At the label, `w (p - 1)` in one: apart, the two parts would cancel where the network is
        // sure.
        let slope = overlap_slope + of_label(&predicted_slope) - mean.clone();
        let rest = (true_softmax.clone() - 1.0) * cross_entropy_slope;
        let at_label = true_softmax * slope + rest;
        let at_label = match &self.valid {
            Some(valid) => at_label * valid.clone(),
            None => at_label,
        };
        let rest = mean.neg() + cross_entropy_slope;

        let mut gradient = Tensor::<3>::empty([n, classes, voxels], (&self.device(), dtype));
        for (start, len) in chunks(classes) {
            let chunk =
                self.softmax(start, len) * (slopes.clone().narrow(1, start, len) + rest.clone());
            let at_label = at_label.clone().expand([n, len, voxels]);
            let chunk = chunk.mask_where(self.is_label(start, len), at_label);
            let chunk = if dtype == self.dtype { chunk } else { chunk.cast(dtype) };
            // In place: nothing else holds the tensor.
            gradient = gradient.slice_assign([0..n, start..start + len, 0..voxels], chunk);
        }
        gradient
    }
}

/// First class and number of classes of each chunk.
pub(super) fn chunks(classes: usize) -> impl Iterator<Item = (usize, usize)> {
    let len = classes.div_ceil(NUM_CHUNKS);
    (0..classes).step_by(len).map(move |start| (start, len.min(classes - start)))
}

/// Panics unless every label is a class.
fn assert_labels(labels: &Tensor<3, Int>, classes: usize) {
    let extremes = vec![labels.clone().min(), labels.clone().max()];
    let extremes = stunet_model::read(Tensor::cat(extremes, 0));
    check_labels(extremes.iter::<i64>(), classes);
}

fn check_labels(extremes: impl IntoIterator<Item = i64>, classes: usize) {
    for label in extremes {
        assert!(
            (0..classes as i64).contains(&label),
            "label {label} is none of the {classes} classes and not ignored"
        );
    }
}

/// Takes the sums apart: rows of `[overlap; C] [predicted; C] [labelled; C] [loss] [voxels]`.
fn unpack(data: TensorData, samples: usize, classes: usize) -> (DiceSums, f64, f64) {
    let all: Vec<f64> = data.iter::<f64>().collect();
    let width = 3 * classes + 2;
    let column = |start: usize, len: usize| -> Vec<f64> {
        (0..samples)
            .flat_map(|n| all[n * width + start..n * width + start + len].to_vec())
            .collect()
    };
    let sums = DiceSums {
        overlap: column(0, classes),
        predicted: column(classes, classes),
        labelled: column(2 * classes, classes),
    };
    let total = |start| column(start, 1).iter().sum();
    (sums, total(3 * classes), total(3 * classes + 1))
}
