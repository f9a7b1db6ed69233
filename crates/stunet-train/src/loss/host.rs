//! Softmax, Dice and cross-entropy over slices: one pass for the sums, one for the gradient.
//!
//! The logits are copied once, as autodiff holds the same buffer; the copy becomes the softmax, and
//! then, in place, the gradient, which the backward pass takes as it is. Work is cut into blocks of voxels that fit a core's cache with all their classes, always the same
//! blocks, and their sums are added in order: results do not depend on the number of threads.

use super::dice::{DiceSums, dice};
use super::exponential::exp_nonpositive;
use super::{LossConfig, ScaleResult, ScaleSetting};
use burn::tensor::{DType, Int, Tensor};
use ndarray::parallel::prelude::*;
use ndarray::{ArrayView1, ArrayViewMut2, ArrayViewMut3, Axis};

/// Voxels of a block: 105 classes of them are 430 KB.
const BLOCK: usize = 1024;
/// Partial sums of a row, so that f32 rounding cannot pile up and the compiler can vectorise.
const LANES: usize = 32;

/// What one block of voxels contributes.
struct BlockSums {
    dice: DiceSums,
    cross_entropy: f64,
    valid: usize,
}

/// # Panics
/// When a label is neither a class nor ignored.
pub(super) fn scale(
    setting: &ScaleSetting<'_>,
    logits: Tensor<5>,
    target: Tensor<4, Int>,
) -> ScaleResult {
    let (device, dtype, dims) = (logits.device(), logits.dtype(), logits.dims());
    let [n, classes, z, y, x] = dims;
    let voxels = z * y * x;
    let labels = target.into_data().convert::<i32>();
    let labels = labels.as_slice::<i32>().expect("converted above");
    assert_labels(labels, classes, setting.config.ignore_label);

    // Autodiff holds the same buffer.
    let mut data = stunet_model::copied(logits).into_data().convert_dtype(DType::F32);
    let values = data.as_mut_slice::<f32>().expect("converted above");
    let mut values = ArrayViewMut3::from_shape([n, classes, voxels], values)
        .expect("as many values as the shape says");

    let mut sums = DiceSums::zeros(0);
    let (mut cross_entropy, mut valid) = (0.0, 0usize);
    for (sample, labels) in values.outer_iter_mut().zip(labels.chunks_exact(voxels)) {
        let sample = softmax(sample, labels, setting.config.ignore_label);
        sums.overlap.extend(sample.dice.overlap);
        sums.predicted.extend(sample.dice.predicted);
        sums.labelled.extend(sample.dice.labelled);
        cross_entropy += sample.cross_entropy;
        valid += sample.valid;
    }
    let term = dice(setting.config, &sums, classes, 1);
    let per_voxel = setting.config.terms.cross_entropy_weight(valid as f64);

    if let Some(factor) = setting.gradient_factor {
        for (index, (sample, labels)) in
            values.outer_iter_mut().zip(labels.chunks_exact(voxels)).enumerate()
        {
            let own = index * classes..(index + 1) * classes;
            let scaled = |v: &[f64]| v[own.clone()].iter().map(|v| (v * factor) as f32).collect();
            let slopes = Slopes {
                overlap: scaled(&term.overlap_slope),
                predicted: scaled(&term.predicted_slope),
                cross_entropy: (per_voxel * factor) as f32,
            };
            gradient(sample, labels, &slopes, setting.config);
        }
    }
    let gradient = setting.gradient_factor.map(|_| {
        let gradient = Tensor::<5>::from_data(data, (&device, DType::F32));
        if dtype == DType::F32 { gradient } else { gradient.cast(dtype) }
    });
    ScaleResult { dice: term.loss, cross_entropy: cross_entropy * per_voxel, gradient }
}

/// Panics unless every label is a class or ignored.
pub(super) fn assert_labels(labels: &[i32], classes: usize, ignore: Option<i32>) {
    let wrong = labels.iter().find(|&&label| {
        Some(label) != ignore && usize::try_from(label).map_or(true, |label| label >= classes)
    });
    if let Some(label) = wrong {
        panic!("label {label} is none of the {classes} classes and not ignored");
    }
}

/// Turns the logits of a sample into its softmax, and sums over its voxels on the way.
fn softmax(mut sample: ArrayViewMut2<'_, f32>, labels: &[i32], ignore: Option<i32>) -> BlockSums {
    let classes = sample.nrows();
    let labels = ArrayView1::from(labels);
    let blocks: Vec<BlockSums> = sample
        .axis_chunks_iter_mut(Axis(1), BLOCK)
        .into_par_iter()
        .zip(labels.axis_chunks_iter(Axis(0), BLOCK).into_par_iter())
        .map(|(block, labels)| softmax_block(block, labels.as_slice().expect("contiguous"), ignore))
        .collect();
    let zero = BlockSums { dice: DiceSums::zeros(classes), cross_entropy: 0.0, valid: 0 };
    blocks.into_iter().fold(zero, |mut all, block| {
        let add = |to: &mut [f64], from: &[f64]| to.iter_mut().zip(from).for_each(|(a, b)| *a += b);
        add(&mut all.dice.overlap, &block.dice.overlap);
        add(&mut all.dice.predicted, &block.dice.predicted);
        add(&mut all.dice.labelled, &block.dice.labelled);
        all.cross_entropy += block.cross_entropy;
        all.valid += block.valid;
        all
    })
}

fn softmax_block(
    mut block: ArrayViewMut2<'_, f32>,
    labels: &[i32],
    ignore: Option<i32>,
) -> BlockSums {
    let (classes, voxels) = block.dim();
    let mut largest = [f32::NEG_INFINITY; BLOCK];
    for row in block.outer_iter() {
        for (m, &v) in largest.iter_mut().zip(row.as_slice().expect("a row is contiguous")) {
            // Not `max`, which would pass over a NaN and hide it.
            *m = if v > *m || v.is_nan() { v } else { *m };
        }
    }
    let mut true_logit = [0f32; BLOCK];
    for (v, &label) in labels.iter().enumerate() {
        true_logit[v] = if Some(label) == ignore { 0.0 } else { block[[label as usize, v]] };
    }
    let mut total = [0f32; BLOCK];
    for mut row in block.outer_iter_mut() {
        let row = row.as_slice_mut().expect("a row is contiguous");
        for ((v, &m), sum) in row.iter_mut().zip(&largest).zip(&mut total) {
            *v = exp_nonpositive(*v - m);
            *sum += *v;
        }
    }

    let mut sums = BlockSums { dice: DiceSums::zeros(classes), cross_entropy: 0.0, valid: 0 };
    for v in 0..voxels {
        if Some(labels[v]) != ignore {
            sums.cross_entropy += f64::from(largest[v] - true_logit[v]) + f64::from(total[v]).ln();
            sums.valid += 1;
        }
    }
    // An ignored voxel weighs nothing from here on: its softmax becomes 0.
    let mut inverse = [0f32; BLOCK];
    for ((inverse, &sum), &label) in inverse.iter_mut().zip(&total).zip(labels) {
        *inverse = if Some(label) == ignore { 0.0 } else { 1.0 / sum };
    }
    for (mut row, predicted) in block.outer_iter_mut().zip(&mut sums.dice.predicted) {
        let row = row.as_slice_mut().expect("a row is contiguous");
        *predicted = normalise(row, &inverse);
    }
    for (v, &label) in labels.iter().enumerate() {
        if Some(label) != ignore {
            sums.dice.overlap[label as usize] += f64::from(block[[label as usize, v]]);
            sums.dice.labelled[label as usize] += 1.0;
        }
    }
    sums
}

/// Multiplies a row by the voxels' factors and sums it.
fn normalise(row: &mut [f32], factors: &[f32; BLOCK]) -> f64 {
    let mut lanes = [0f32; LANES];
    for (values, factors) in row.chunks_mut(LANES).zip(factors.chunks(LANES)) {
        for ((v, &factor), lane) in values.iter_mut().zip(factors).zip(&mut lanes) {
            *v *= factor;
            *lane += *v;
        }
    }
    lanes.iter().map(|&lane| f64::from(lane)).sum()
}

/// Slopes of the loss, times the weight of the scale, for one sample.
struct Slopes {
    overlap: Vec<f32>,
    predicted: Vec<f32>,
    cross_entropy: f32,
}

/// Turns the softmax `p` of a sample into the gradient with respect to its logits:
/// `p_c (g_c - sum_k g_k p_k) + w (p_c - y_c)`, where `g_c = predicted_c + overlap_c y_c`.
fn gradient(
    mut sample: ArrayViewMut2<'_, f32>,
    labels: &[i32],
    slopes: &Slopes,
    config: &LossConfig,
) {
    let ignore = config.ignore_label;
    let labels = ArrayView1::from(labels);
    sample
        .axis_chunks_iter_mut(Axis(1), BLOCK)
        .into_par_iter()
        .zip(labels.axis_chunks_iter(Axis(0), BLOCK).into_par_iter())
        .for_each(|(block, labels)| {
            gradient_block(block, labels.as_slice().expect("contiguous"), slopes, ignore);
        });
}

fn gradient_block(
    mut block: ArrayViewMut2<'_, f32>,
    labels: &[i32],
    slopes: &Slopes,
    ignore: Option<i32>,
) {
    let mut mean = [0f32; BLOCK];
    for (row, &slope) in block.outer_iter().zip(&slopes.predicted) {
        for (mean, &p) in mean.iter_mut().zip(row.as_slice().expect("a row is contiguous")) {
            *mean += slope * p;
        }
    }
    let mut true_p = [0f32; BLOCK];
    let mut rest = [0f32; BLOCK];
    for (v, &label) in labels.iter().enumerate() {
        if Some(label) != ignore {
            true_p[v] = block[[label as usize, v]];
            rest[v] = slopes.cross_entropy - (mean[v] + slopes.overlap[label as usize] * true_p[v]);
        }
    }
    for (mut row, &slope) in block.outer_iter_mut().zip(&slopes.predicted) {
        let row = row.as_slice_mut().expect("a row is contiguous");
        for (p, &rest) in row.iter_mut().zip(&rest) {
            *p *= slope + rest;
        }
    }
    for (v, &label) in labels.iter().enumerate() {
        if Some(label) != ignore {
            let class = label as usize;
            // `w (p - 1)` in one: apart, the two parts would cancel where the network is sure.
            let dice = slopes.overlap[class] + slopes.predicted[class] + rest[v];
            block[[class, v]] = true_p[v] * (dice - slopes.cross_entropy)
                - slopes.cross_entropy * (1.0 - true_p[v]);
        }
    }
}
