//! Cubic B-splines in single precision: the prefilter along each axis, and the weights.
//!
//! # Source
//! SciPy's `spline_filter` with the mirror boundary (`c b | a b c`).

use ndarray::{ArrayViewMut2, ArrayViewMut3, Axis};

const POLE: f32 = -0.267_949_2;
/// The gain of the filter along one axis; applied once for all axes.
pub(super) const GAIN: f32 = 6.0;
/// Voxels after which the pole has faded below the last bit.
pub(super) const HORIZON: usize = 14;
/// Lines filtered side by side along the last axis.
const LANES: usize = 16;

/// Weights of the four coefficients around a position, from its fraction.
#[inline(always)]
pub(super) fn weights(t: f32) -> [f32; 4] {
    let s = 1.0 - t;
    let (t2, s2) = (t * t, s * s);
    [
        s2 * s * (1.0 / 6.0),
        2.0 / 3.0 - t2 * (1.0 - 0.5 * t),
        2.0 / 3.0 - s2 * (1.0 - 0.5 * s),
        t2 * t * (1.0 / 6.0),
    ]
}

/// Turns voxels (already multiplied by the gain of every axis) into coefficients, in place.
///
/// `first_axis` is 1 where every slice is filtered alone.
pub(super) fn prefilter(volume: &mut ArrayViewMut3<'_, f32>, first_axis: usize) {
    if first_axis == 0 {
        for slab in volume.axis_iter_mut(Axis(1)) {
            filter_columns(slab);
        }
    }
    let mut scratch = Vec::new();
    for mut plane in volume.axis_iter_mut(Axis(0)) {
        filter_columns(plane.view_mut());
        filter_rows(plane, &mut scratch);
    }
}

/// Down the columns of a plane, all columns at a time.
fn filter_columns(mut plane: ArrayViewMut2<'_, f32>) {
    let n = plane.nrows();
    if n < 2 {
        return;
    }
    let mut rows: Vec<&mut [f32]> = plane
        .rows_mut()
        .into_iter()
        .map(|row| row.into_slice().expect("rows are contiguous"))
        .collect();
    let taps = start_taps(n);
    let (first, rest) = rows.split_at_mut(1);
    first[0].iter_mut().for_each(|v| *v *= taps[0]);
    for (row, w) in rest.iter().zip(&taps[1..]) {
        add_scaled(first[0], row, *w);
    }
    for i in 1..n {
        let (done, rest) = rows.split_at_mut(i);
        add_scaled(rest[0], done[i - 1], POLE);
    }
    let (done, last) = rows.split_at_mut(n - 1);
    add_scaled(last[0], done[n - 2], POLE);
    last[0].iter_mut().for_each(|v| *v *= POLE / (POLE * POLE - 1.0));
    for i in (0..n - 1).rev() {
        let (done, rest) = rows.split_at_mut(i + 1);
        done[i].iter_mut().zip(&*rest[0]).for_each(|(v, next)| *v = POLE * (next - *v));
    }
}

/// Along the rows of a plane: some rows are laid side by side.
fn filter_rows(mut plane: ArrayViewMut2<'_, f32>, scratch: &mut Vec<[f32; LANES]>) {
    let (height, n) = plane.dim();
    if n < 2 {
        return;
    }
    scratch.resize(n, [0.0; LANES]);
    let taps = start_taps(n);
    for start in (0..height).step_by(LANES) {
        let lanes = LANES.min(height - start);
        for lane in 0..lanes {
            let row = plane.row(start + lane);
            scratch.iter_mut().zip(row).for_each(|(s, v)| s[lane] = *v);
        }
        filter_lanes(scratch, &taps);
        for lane in 0..lanes {
            let row = plane.row_mut(start + lane);
            scratch.iter().zip(row).for_each(|(s, v)| *v = s[lane]);
        }
    }
}

fn filter_lanes(lines: &mut [[f32; LANES]], taps: &[f32]) {
    let n = lines.len();
    let mut sum = [0.0; LANES];
    for (line, w) in lines.iter().zip(taps) {
        add_scaled(&mut sum, line, *w);
    }
    lines[0] = sum;
    for i in 1..n {
        let previous = lines[i - 1];
        add_scaled(&mut lines[i], &previous, POLE);
    }
    let previous = lines[n - 2];
    add_scaled(&mut lines[n - 1], &previous, POLE);
    lines[n - 1].iter_mut().for_each(|v| *v *= POLE / (POLE * POLE - 1.0));
    for i in (0..n - 1).rev() {
        let next = lines[i + 1];
        lines[i].iter_mut().zip(next).for_each(|(v, next)| *v = POLE * (next - *v));
    }
}

/// Weights of the first voxels in the first value of the causal filter of `n` mirrored voxels.
fn start_taps(n: usize) -> Vec<f32> {
    let pole = 3f64.sqrt() - 2.0;
    let period = 2 * (n - 1);
    let scale = 1.0 / (1.0 - pole.powi(period as i32));
    (0..n.min(2 * HORIZON))
        .map(|k| {
            let mirrored = if k == 0 || k == n - 1 { 0.0 } else { pole.powi((period - k) as i32) };
            ((pole.powi(k as i32) + mirrored) * scale) as f32
        })
        .collect()
}

#[inline(always)]
fn add_scaled(to: &mut [f32], from: &[f32], factor: f32) {
    to.iter_mut().zip(from).for_each(|(t, f)| *t += factor * f);
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array3;

    /// Coefficients, weighted at the voxels, give the voxels back: mirrored at the edges.
    fn check(shape: [usize; 3], first_axis: usize) {
        let count = shape.iter().product();
        let values = stunet_testing::prng::uniform(5, 2, count);
        let input = Array3::from_shape_vec(shape, values).unwrap();
        let axes = (first_axis..3).filter(|axis| shape[*axis] > 1);
        let mut filtered = &input * GAIN.powi(axes.clone().count() as i32);
        prefilter(&mut filtered.view_mut(), first_axis);
        for axis in axes {
            let source = filtered.clone();
            let n = shape[axis] as isize;
            for (lane_out, lane) in
                filtered.lanes_mut(Axis(axis)).into_iter().zip(source.lanes(Axis(axis)))
            {
                let at = |i: isize| lane[if i < 0 { -i } else { i.min(2 * (n - 1) - i) } as usize];
                for (i, v) in lane_out.into_iter().enumerate() {
                    let i = i as isize;
                    *v = (at(i - 1) + 4.0 * at(i) + at(i + 1)) / 6.0;
                }
            }
        }
        let worst = filtered.iter().zip(&input).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(worst < 3e-6, "{shape:?}: {worst:e}");
    }

    #[test]
    fn the_spline_passes_through_the_voxels() {
        check([5, 7, 11], 0);
        check([40, 33, 50], 0);
        check([2, 3, 2], 0);
        check([1, 7, 20], 0);
        check([4, 18, 35], 1);
    }

    #[test]
    fn weights_sum_to_one() {
        for t in [0.0, 0.25, 0.5, 0.999] {
            assert!((weights(t).iter().sum::<f32>() - 1.0).abs() < 1e-6);
        }
        assert_eq!(weights(0.0)[3], 0.0);
    }
}
