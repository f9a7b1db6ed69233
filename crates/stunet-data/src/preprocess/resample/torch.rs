//! Labels resized as PyTorch's interpolation of indicators decides.

use super::{copy_repeats, groups, owned, plane_shape, taps};
use crate::zeroed::zeroed;
use half::f16;
use ndarray::{Array3, ArrayView3, Axis};
use rayon::prelude::*;

/// What indicators are multiplied by before they are rounded to half precision.
const SCALE: f32 = 1000.0;
/// A label with more than this share of [`SCALE`] is taken before all are compared.
const CLEAR: f32 = 0.7 * SCALE;

/// Resizes a labelmap: the label with the largest share by linear interpolation in single precision, rounded
/// to half precision; of equal ones the smallest label.
///
/// With a separate axis every slice across it is resized on its own, then the nearest is taken.
///
/// # Panics
/// When an axis is empty.
///
/// # Source
/// `resample_torch_fornnunet` of nnU-Net 2.8.1 with `is_seg` (`resample_torch.py`), which calls
/// `torch.nn.functional.interpolate`.
///
/// # Deviations
/// Only the labels around a voxel are compared: all others have a share of 0.
pub fn resize_labels_as_torch<T>(
    input: ArrayView3<'_, T>,
    shape: [usize; 3],
    separate_axis: Option<usize>,
) -> Array3<T>
where
    T: Copy + Ord + Default + Send + Sync,
{
    assert!(!input.is_empty(), "the input of a resize is empty");
    assert!(!shape.contains(&0), "the output of a resize is empty");
    if input.shape() == shape {
        return owned(input);
    }
    let Some(axis) = separate_axis else {
        return resize_volume(input, shape);
    };
    let source = taps::nearest(input.shape()[axis], shape[axis]);
    let plane_shape = plane_shape(shape, axis);
    let mut output = zeroed(shape);
    let slices: Vec<_> = output.axis_iter_mut(Axis(axis)).collect();
    slices.into_par_iter().zip(groups(&source)).for_each(|(mut slice, group)| {
        if let Some(from) = group {
            let plane = input.index_axis(Axis(axis), from).insert_axis(Axis(0));
            slice.assign(&resize_volume(plane, plane_shape).index_axis(Axis(0), 0));
        }
    });
    copy_repeats(&mut output, axis, &source);
    output
}

fn resize_volume<T>(input: ArrayView3<'_, T>, shape: [usize; 3]) -> Array3<T>
where
    T: Copy + Ord + Default + Send + Sync,
{
    let n = input.shape();
    let taps: [Vec<Tap>; 3] = std::array::from_fn(|a| taps_along(n[a], shape[a]));
    let mut output = zeroed(shape);
    let planes: Vec<_> = output.axis_iter_mut(Axis(0)).zip(&taps[0]).collect();
    planes.into_par_iter().for_each(|(mut plane, z)| {
        for (mut row, y) in plane.rows_mut().into_iter().zip(&taps[1]) {
            for (out, x) in row.iter_mut().zip(&taps[2]) {
                let corner = |i: usize| input[[z.at[i >> 2], y.at[i >> 1 & 1], x.at[i & 1]]];
                let labels: [T; 8] = std::array::from_fn(corner);
                *out = match labels.iter().all(|label| *label == labels[0]) {
                    true => labels[0],
                    false => decide(&labels, [z, y, x]),
                };
            }
        }
    });
    output
}

/// Neighbours of an output voxel along one axis, and their weights.
struct Tap {
    at: [usize; 2],
    weight: [f32; 2],
}

/// In single precision, as PyTorch computes them.
fn taps_along(n: usize, m: usize) -> Vec<Tap> {
    let scale = n as f32 / m as f32;
    let tap = |i: usize| {
        if n == m {
            return Tap { at: [i, i], weight: [1.0, 0.0] };
        }
        let position = (scale * (i as f32 + 0.5) - 0.5).max(0.0);
        let lower = (position as usize).min(n - 1);
        let upper = (position - lower as f32).clamp(0.0, 1.0);
        Tap { at: [lower, (lower + 1).min(n - 1)], weight: [1.0 - upper, upper] }
    };
    (0..m).map(tap).collect()
}

fn decide<T: Copy + Ord>(labels: &[T; 8], [z, y, x]: [&Tap; 3]) -> T {
    let share = |label: T| {
        let value = |i: usize| if labels[i] == label { SCALE } else { 0.0 };
        let along_x = |i: usize| value(i) * x.weight[0] + value(i + 1) * x.weight[1];
        let along_y = |i: usize| along_x(i) * y.weight[0] + along_x(i + 2) * y.weight[1];
        let sum = along_y(0) * z.weight[0] + along_y(4) * z.weight[1];
        f16::from_f32(sum).to_f32()
    };
    let mut sorted = *labels;
    sorted.sort_unstable();
    let mut best = (sorted[0], f32::NEG_INFINITY);
    for (index, label) in sorted.into_iter().enumerate() {
        if index > 0 && label == sorted[index - 1] {
            continue;
        }
        let share = share(label);
        if share > CLEAR {
            return label;
        }
        if share > best.1 {
            best = (label, share);
        }
    }
    best.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// Recorded with nnU-Net 2.8.1 and PyTorch by `scripts/reference/resample_torch.py`: random labels, in
    /// random shapes, with and without a separate axis.
    #[test]
    fn labels_are_pytorchs() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let path = path.join("../../tests/data/resample_torch.json");
        let cases: Vec<Value> = crate::files::read_json(&path).unwrap();
        assert!(cases.len() > 20);
        let (mut differ, mut count) = (0, 0);
        for case in cases {
            let shape =
                |key: &str| serde_json::from_value::<[usize; 3]>(case[key].clone()).unwrap();
            let digits = |key: &str| -> Vec<i16> {
                let text = case[key].as_str().unwrap();
                text.bytes().map(|b| i16::from(b - b'a') - 1).collect()
            };
            let input = Array3::from_shape_vec(shape("from"), digits("labels")).unwrap();
            let apart = case["apart"].as_u64().map(|axis| axis as usize);
            let found = resize_labels_as_torch(input.view(), shape("to"), apart);
            let expected = digits("resized");
            differ += found.iter().zip(&expected).filter(|(a, b)| a != b).count();
            count += expected.len();
        }
        // Shares that differ in the last digit of single precision may round to another half.
        assert!(differ * 10_000 <= count, "{differ} of {count} labels differ");
    }
}
