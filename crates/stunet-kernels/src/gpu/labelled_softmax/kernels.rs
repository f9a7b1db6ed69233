//! What is summed over the voxels of logits `[N, voxels, C]`, and the gradient.
//!
//! A voxel has a few threads beside each other, which read neighbouring classes; what they find is merged
//! in their order. Sums over voxels are written chunk by chunk and added by the host, in double precision.

use crate::gpu::norm::{NormSizes, add_rows, lane};
use cubecl::prelude::*;

/// Threads of a workgroup, and of a voxel.
pub(super) const UNITS: usize = 256;
const LANES: usize = 8;
/// Voxels of a workgroup at a time.
pub(super) const VOXELS: usize = UNITS / LANES;
/// Numbers of a chunk beside those of its classes: cross-entropy, voxels, least and largest label.
pub(super) const NUMBERS: usize = 4;
/// Below and above every finite value.
const LOWEST: f32 = f32::MIN;
const HIGHEST: f32 = f32::MAX;

/// Sizes of the logits, and how they are divided.
#[derive(CubeLaunch, CubeType)]
pub(super) struct SoftmaxSizes {
    /// Voxels of a sample.
    pub voxels: usize,
    pub classes: usize,
    /// Chunks of a sample, and voxels of a chunk.
    pub chunks: usize,
    pub chunk: usize,
    /// The first workgroup of the launch.
    pub cube: usize,
}

/// Where the threads of a workgroup work.
#[derive(CubeType, Clone, Copy)]
#[expand(derive(Clone, Copy))]
struct Chunk {
    sample: usize,
    from: usize,
    to: usize,
}

#[cube]
fn chunk(sizes: &SoftmaxSizes) -> Chunk {
    let index = CUBE_POS + sizes.cube;
    let from = index % sizes.chunks * sizes.chunk;
    let end = from + sizes.chunk;
    Chunk { sample: index / sizes.chunks, from, to: select(end < sizes.voxels, end, sizes.voxels) }
}

/// A label as a class, 0 for what is none.
#[cube]
fn class_of(label: f32, classes: usize) -> usize {
    let is_class = label >= 0.0f32 && label < f32::cast_from(classes);
    usize::cast_from(select(is_class, label, 0.0f32.runtime()))
}

/// 1 where a voxel counts, 0 where its label is ignored.
#[cube]
fn counts(label: f32, ignore: f32, #[comptime] ignores: bool) -> f32 {
    let mut counts = 1.0f32.runtime();
    if comptime!(ignores) {
        counts = select(label == ignore, 0.0f32.runtime(), 1.0f32.runtime());
    }
    counts
}

/// The largest logit of every voxel and the inverse of the sum of exponentials below it, 0 where ignored,
/// `[N, voxels, 2]`; and the [`NUMBERS`] of every chunk.
#[cube(launch_unchecked)]
pub(super) fn statistics<E: Float>(
    logits: &[E],
    labels: &[f32],
    statistics: &mut [f32],
    numbers: &mut [f32],
    sizes: SoftmaxSizes,
    ignore: f32,
    #[comptime] ignores: bool,
    #[define(E)] _dtype: ElemType,
) {
    let chunk = chunk(&sizes);
    let unit = UNIT_POS as usize;
    let (row, lane) = (unit / LANES, unit % LANES);
    let mut shared = Shared::<[f32]>::new_slice(comptime!(2 * UNITS));
    let mut cross_entropy = 0.0f32.runtime();
    let mut valid = 0.0f32.runtime();
    let mut least = HIGHEST.runtime();
    let mut most = LOWEST.runtime();
    let mut first = chunk.from;
    while first < chunk.to {
        let voxel = chunk.sample * sizes.voxels + first + row;
        let inside = first + row < chunk.to;
        let mut classes = 0usize.runtime();
        if inside {
            classes = sizes.classes;
        }
        let (largest, total) = of_lane::<E>(logits, voxel * sizes.classes, classes, lane);
        sync_cube();
        shared[unit] = largest;
        shared[UNITS + unit] = total;
        sync_cube();
        if inside && lane == 0 {
            let (largest, total) = of_all(largest, total, &shared, unit);
            let label = labels[voxel];
            let counts = counts(label, ignore, ignores) > 0.0f32;
            statistics[voxel * 2] = largest;
            statistics[voxel * 2 + 1] = select(counts, 1.0f32 / total, 0.0f32.runtime());
            if counts {
                let class = class_of(label, sizes.classes);
                let of_label = f32::cast_from(logits[voxel * sizes.classes + class]);
                cross_entropy += (largest - of_label) + total.ln();
                valid += 1.0f32;
                least = select(label < least, label, least);
                most = select(label > most, label, most);
            }
        }
        first += VOXELS;
    }
    let at = (CUBE_POS + sizes.cube) * NUMBERS;
    add_numbers(numbers, &mut shared, at, cross_entropy, valid, least, most);
}

/// The largest of the logits of a thread, and the sum of exponentials below it.
#[cube]
fn of_lane<E: Float>(logits: &[E], from: usize, classes: usize, lane: usize) -> (f32, f32) {
    let mut largest = LOWEST.runtime();
    let mut total = 0.0f32.runtime();
    let mut class = lane;
    while class < classes {
        let value = f32::cast_from(logits[from + class]);
        if value > largest {
            total *= (largest - value).exp();
            largest = value;
        }
        total += (value - largest).exp();
        class += LANES;
    }
    (largest, total)
}

/// The same of all threads of a voxel, of which this is the first, in their order.
#[cube]
fn of_all(first: f32, sum_of_first: f32, shared: &Shared<[f32]>, unit: usize) -> (f32, f32) {
    let mut largest = LOWEST.runtime();
    let mut total = 0.0f32.runtime();
    largest = select(first > largest, first, largest);
    total += sum_of_first;
    #[unroll]
    for other in 1..LANES {
        let (value, sum) = (shared[unit + other], shared[UNITS + unit + other]);
        if value > largest {
            total = total * (largest - value).exp() + sum;
            largest = value;
        } else {
            total += sum * (value - largest).exp();
        }
    }
    (largest, total)
}

/// Adds the numbers of the threads that are the first of their voxel, in their order, and writes them.
#[cube]
fn add_numbers(
    numbers: &mut [f32],
    shared: &mut Shared<[f32]>,
    at: usize,
    cross_entropy: f32,
    valid: f32,
    least: f32,
    most: f32,
) {
    let unit = UNIT_POS as usize;
    let (row, lane) = (unit / LANES, unit % LANES);
    sync_cube();
    if lane == 0 {
        shared[row * NUMBERS] = cross_entropy;
        shared[row * NUMBERS + 1] = valid;
        shared[row * NUMBERS + 2] = least;
        shared[row * NUMBERS + 3] = most;
    }
    sync_cube();
    if unit == 0 {
        let mut sums = 0.0f32.runtime();
        let mut count = 0.0f32.runtime();
        let mut low = HIGHEST.runtime();
        let mut high = LOWEST.runtime();
        for row in 0..VOXELS {
            sums += shared[row * NUMBERS];
            count += shared[row * NUMBERS + 1];
            let (below, above) = (shared[row * NUMBERS + 2], shared[row * NUMBERS + 3]);
            low = select(below < low, below, low);
            high = select(above > high, above, high);
        }
        numbers[at] = sums;
        numbers[at + 1] = count;
        numbers[at + 2] = low;
        numbers[at + 3] = high;
    }
}

/// Probability where the label is the class, probability, and voxels of the class, of every chunk,
/// `[N, chunks, C, 3]`.
#[cube(launch_unchecked)]
pub(super) fn class_sums<E: Float>(
    logits: &[E],
    labels: &[f32],
    statistics: &[f32],
    chunks: &mut [f32],
    sizes: NormSizes,
    ignore: f32,
    #[comptime] ignores: bool,
    #[comptime] width: usize,
    #[define(E)] _dtype: ElemType,
) {
    if CUBE_POS >= sizes.cubes {
        terminate!();
    }
    let lane = lane(&sizes, width);
    let mut overlap = 0.0f32.runtime();
    let mut predicted = 0.0f32.runtime();
    let mut labelled = 0.0f32.runtime();
    if lane.channel < sizes.channels {
        let own = f32::cast_from(lane.channel);
        let mut voxel = lane.from;
        while voxel < lane.to {
            let at = lane.sample * sizes.voxels + voxel;
            let logit = f32::cast_from(logits[at * sizes.channels + lane.channel]);
            let p = (logit - statistics[at * 2]).exp() * statistics[at * 2 + 1];
            predicted += p;
            let label = labels[at];
            if label == own && counts(label, ignore, ignores) > 0.0f32 {
                overlap += p;
                labelled += 1.0f32;
            }
            voxel += comptime!(UNITS / width);
        }
    }
    let (overlap, predicted) = add_rows(overlap, predicted, width);
    // The first are read before the second are written.
    sync_cube();
    let (labelled, _) = add_rows(labelled, 0.0f32.runtime(), width);
    if lane.row == 0 && lane.channel < sizes.channels {
        let at = (lane.sample * sizes.chunks + lane.chunk) * sizes.channels + lane.channel;
        chunks[at * 3] = overlap;
        chunks[at * 3 + 1] = predicted;
        chunks[at * 3 + 2] = labelled;
    }
}

/// The mean of the slopes of a thread's classes, weighted by their probabilities.
#[cube]
fn mean_slope<E: Float>(
    logits: &[E],
    slopes: &[f32],
    from: usize,
    slope: usize,
    sizes: &SoftmaxSizes,
    largest: f32,
    inverse: f32,
) -> f32 {
    let mut mean = 0.0f32.runtime();
    let mut class = UNIT_POS as usize % LANES;
    while class < sizes.classes {
        let logit = f32::cast_from(logits[from + class]);
        mean += slopes[slope + class] * ((logit - largest).exp() * inverse);
        class += LANES;
    }
    mean
}

/// The gradient: `p_c (g_c - sum_k g_k p_k) + w (p_c - y_c)`, where `g_c = predicted_c + overlap_c y_c`;
/// `slopes` are those of overlap and predicted, `[2, N, C]`.
#[cube(launch_unchecked)]
pub(super) fn gradient<E: Float>(
    logits: &[E],
    labels: &[f32],
    statistics: &[f32],
    slopes: &[f32],
    to: &mut [E],
    sizes: SoftmaxSizes,
    samples: usize,
    weight: f32,
    ignore: f32,
    #[comptime] ignores: bool,
    #[define(E)] _dtype: ElemType,
) {
    let chunk = chunk(&sizes);
    let unit = UNIT_POS as usize;
    let (row, lane) = (unit / LANES, unit % LANES);
    let overlap = chunk.sample * sizes.classes;
    let predicted = (samples + chunk.sample) * sizes.classes;
    let mut shared = Shared::<[f32]>::new_slice(UNITS);
    let mut first = chunk.from;
    while first < chunk.to {
        let voxel = chunk.sample * sizes.voxels + first + row;
        let inside = first + row < chunk.to;
        let mut mean = 0.0f32.runtime();
        if inside {
            let (largest, inverse) = (statistics[voxel * 2], statistics[voxel * 2 + 1]);
            let from = voxel * sizes.classes;
            mean += mean_slope::<E>(logits, slopes, from, predicted, &sizes, largest, inverse);
        }
        sync_cube();
        shared[unit] = mean;
        sync_cube();
        if inside {
            let (largest, inverse) = (statistics[voxel * 2], statistics[voxel * 2 + 1]);
            let all = sum_of_lanes(&shared, row);
            let label = labels[voxel];
            let counts = counts(label, ignore, ignores) > 0.0f32;
            let at_label = class_of(label, sizes.classes);
            let at = voxel * sizes.classes + at_label;
            let p_label = probability::<E>(logits, at, largest, inverse);
            let rest = weight - (all + slopes[overlap + at_label] * p_label);
            let mut class = lane;
            while class < sizes.classes {
                let p = probability::<E>(logits, voxel * sizes.classes + class, largest, inverse);
                let slope = slopes[predicted + class];
                let mut value = p * (slope + rest);
                if class == at_label {
                    // At the label, `w (p - 1)` in one: apart, the two parts would cancel where the
                    // network is sure.
                    let dice = slopes[overlap + class] + slope + rest;
                    value = p * (dice - weight) - weight * (1.0f32 - p);
                }
                to[voxel * sizes.classes + class] =
                    E::cast_from(select(counts, value, 0.0f32.runtime()));
                class += LANES;
            }
        }
        first += VOXELS;
    }
}

/// What the lanes of a row have found, together.
#[cube]
fn sum_of_lanes(shared: &Shared<[f32]>, row: usize) -> f32 {
    let mut all = 0.0f32.runtime();
    #[unroll]
    for other in 0..LANES {
        all += shared[row * LANES + other];
    }
    all
}

/// The softmax of a logit.
#[cube]
fn probability<E: Float>(logits: &[E], at: usize, largest: f32, inverse: f32) -> f32 {
    (f32::cast_from(logits[at]) - largest).exp() * inverse
}
