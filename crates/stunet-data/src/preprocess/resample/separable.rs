//! Splines along one axis after the other, in double precision, on blocks of lines.
//!
//! A line is the voxels along the axis at hand. `LANES` of them are laid side by side, so that the
//! recursive prefilter, which cannot be vectorised along a line, is vectorised across lines. Every
//! line is computed alone: the result depends neither on the number of threads nor on the blocks.

use super::{Order, Voxel, taps};
use crate::simd::{Work, wide};
use crate::zeroed::zeroed;
use ndarray::{Array3, ArrayView2, ArrayView3, ArrayViewMut2, Axis};
use rayon::prelude::*;

/// Lines computed side by side.
const LANES: usize = 32;
type Row = [f64; LANES];

/// Copies of the edge voxel before the cubic prefilter, on either side.
const PADDING: usize = 12;

/// Resizes the axes whose lengths differ, of the values that `map` makes of the voxels; the result is
/// clipped to `range`.
///
/// Between planes and columns a volume in the result's precision is held, the smaller of the two that
/// are possible; everything else is a few lines at a time.
pub(super) fn resize_axes<T: Voxel>(
    input: ArrayView3<'_, T>,
    shape: [usize; 3],
    order: Order,
    range: (f64, f64),
    map: impl Fn(T) -> f64 + Copy + Send + Sync,
) -> Array3<T::Resized> {
    let n: [usize; 3] = std::array::from_fn(|axis| input.shape()[axis]);
    let planes_change = n[1..] != shape[1..];
    if n[0] == shape[0] {
        return planes(input, shape, order, range, map);
    }
    if !planes_change {
        return across(input, shape[0], order, range, map);
    }
    // Shrink first: the less is left for the second pass, the better.
    let growth = |axis: usize| shape[axis] as f64 / n[axis] as f64;
    let free = (f64::NEG_INFINITY, f64::INFINITY);
    let same = Voxel::to_f64;
    if growth(0) <= growth(1) * growth(2) {
        let middle: Array3<T::Resized> = across(input, shape[0], order, free, map);
        planes(middle.view(), shape, order, range, same)
    } else {
        let middle: Array3<T::Resized> =
            planes(input, [n[0], shape[1], shape[2]], order, free, map);
        across(middle.view(), shape[0], order, range, same)
    }
}

/// Buffers of one thread.
#[derive(Default)]
struct Scratch {
    rows: Vec<Row>,
    /// A plane between its two axes.
    middle: Vec<f64>,
}

/// Resizes axes 1 and 2, plane by plane.
fn planes<T: Voxel, U: Voxel>(
    input: ArrayView3<'_, T>,
    shape: [usize; 3],
    order: Order,
    range: (f64, f64),
    map: impl Fn(T) -> f64 + Copy + Send + Sync,
) -> Array3<U> {
    let (n1, n2) = (input.shape()[1], input.shape()[2]);
    let (m1, m2) = (shape[1], shape[2]);
    let free = (f64::NEG_INFINITY, f64::INFINITY);
    let along = [Line::new(n1, m1, order), Line::new(n2, m2, order)];
    let rows_first = m1 as f64 / n1 as f64 <= m2 as f64 / n2 as f64;
    let mut output = zeroed((input.shape()[0], m1, m2));
    let targets: Vec<_> = output.axis_iter_mut(Axis(0)).collect();
    targets.into_par_iter().zip(input.axis_iter(Axis(0)).into_par_iter()).for_each_init(
        Scratch::default,
        |Scratch { rows, middle }, (target, source)| {
            let [first, second] = &along;
            if n2 == m2 {
                first.run(source, target, range, rows, map);
            } else if n1 == m1 {
                second.run(source.reversed_axes(), target.reversed_axes(), range, rows, map);
            } else if rows_first {
                middle.resize(m1 * n2, 0.0);
                let mut middle = plane_of(middle, m1, n2);
                first.run(source, middle.view_mut(), free, rows, map);
                let middle = middle.view().reversed_axes();
                second.run(middle, target.reversed_axes(), range, rows, |v| v);
            } else {
                middle.resize(n1 * m2, 0.0);
                let mut middle = plane_of(middle, n1, m2);
                let columns = middle.view_mut().reversed_axes();
                second.run(source.reversed_axes(), columns, free, rows, map);
                first.run(middle.view(), target, range, rows, |v| v);
            }
        },
    );
    output
}

fn plane_of(values: &mut [f64], height: usize, width: usize) -> ArrayViewMut2<'_, f64> {
    ArrayViewMut2::from_shape((height, width), &mut values[..height * width])
        .expect("as many values as the plane has")
}

/// Resizes axis 0.
fn across<T: Voxel, U: Voxel>(
    input: ArrayView3<'_, T>,
    m: usize,
    order: Order,
    range: (f64, f64),
    map: impl Fn(T) -> f64 + Copy + Send + Sync,
) -> Array3<U> {
    let (n, n1, n2) = input.dim();
    let line = Line::new(n, m, order);
    let mut output = zeroed((m, n1, n2));
    let targets: Vec<_> = output.axis_iter_mut(Axis(1)).collect();
    targets
        .into_par_iter()
        .zip(input.axis_iter(Axis(1)).into_par_iter())
        .for_each_init(Scratch::default, |Scratch { rows, .. }, (target, source)| {
            line.run(source, target, range, rows, map)
        });
    output
}

/// Everything about one axis that all its lines share.
struct Line {
    n: usize,
    padding: usize,
    filter: bool,
    /// First row and weights of each output; rows beyond the end repeat the last.
    taps: Vec<(usize, [f64; 4])>,
    num_taps: usize,
}

impl Line {
    fn new(n: usize, m: usize, order: Order) -> Self {
        let weights = |i: usize| match order {
            Order::Nearest => (taps::nearest(n, m)[i], [1.0, 0.0, 0.0, 0.0]),
            Order::Linear => {
                let position = taps::position(i, n, m).clamp(0.0, (n - 1) as f64);
                let t = position - position.floor();
                (position.floor() as usize, [1.0 - t, t, 0.0, 0.0])
            }
            Order::Cubic => cubic(taps::position(i, n, m) + PADDING as f64),
        };
        Self {
            n,
            padding: if order == Order::Cubic { PADDING } else { 0 },
            filter: order == Order::Cubic,
            taps: (0..m).map(weights).collect(),
            num_taps: match order {
                Order::Nearest => 1,
                Order::Linear => 2,
                Order::Cubic => 4,
            },
        }
    }

    /// Resizes all lines along axis 0 of a plane.
    fn run<T: Voxel, U: Voxel>(
        &self,
        input: ArrayView2<'_, T>,
        mut output: ArrayViewMut2<'_, U>,
        range: (f64, f64),
        scratch: &mut Vec<Row>,
        map: impl Fn(T) -> f64 + Copy,
    ) {
        let num_lines = input.ncols();
        scratch.resize(self.n + 2 * self.padding, [0.0; LANES]);
        for start in (0..num_lines).step_by(LANES) {
            let block = ndarray::Slice::from(start..(start + LANES).min(num_lines));
            let input = input.slice_axis(Axis(1), block);
            let output = output.slice_axis_mut(Axis(1), block);
            wide(Resize { line: self, input, output, range, scratch, map });
        }
    }

    #[inline(always)]
    fn load<T: Voxel>(
        &self,
        block: ArrayView2<'_, T>,
        scratch: &mut [Row],
        map: impl Fn(T) -> f64 + Copy,
    ) {
        let rows = &mut scratch[self.padding..self.padding + self.n];
        if block.strides()[1].abs() <= block.strides()[0].abs() {
            for (row, values) in rows.iter_mut().zip(block.rows()) {
                match values.to_slice() {
                    Some(values) => row.iter_mut().zip(values).for_each(|(r, v)| *r = map(*v)),
                    None => row.iter_mut().zip(values).for_each(|(r, v)| *r = map(*v)),
                }
            }
        } else {
            load_transposed(block, rows, map);
        }
        let (first, last) = (scratch[self.padding], scratch[self.padding + self.n - 1]);
        scratch[..self.padding].fill(first);
        scratch[self.padding + self.n..].fill(last);
    }

    /// The value of output `i` in every lane, within the range.
    #[inline(always)]
    fn value(&self, rows: &[Row], i: usize, (low, high): (f64, f64)) -> Row {
        let last = rows.len() - 1;
        let (start, weights) = &self.taps[i];
        let mut sum = [0.0; LANES];
        for (k, w) in weights[..self.num_taps].iter().enumerate() {
            let row = &rows[(start + k).min(last)];
            sum.iter_mut().zip(row).for_each(|(s, v)| *s += w * v);
        }
        // Not clamp(), which panics for the empty range of an all-NaN input.
        sum.iter_mut().for_each(|s| *s = s.max(low).min(high));
        sum
    }

    #[inline(always)]
    fn store<U: Voxel>(&self, rows: &[Row], mut block: ArrayViewMut2<'_, U>, range: (f64, f64)) {
        for (i, target) in block.rows_mut().into_iter().enumerate() {
            let sum = self.value(rows, i, range);
            target.into_iter().zip(&sum).for_each(|(t, s)| *t = U::from_f64(*s));
        }
    }

    /// Stores lines that are contiguous in memory: a few outputs of all lanes, then lane by lane.
    #[inline(always)]
    fn store_transposed<U: Voxel>(
        &self,
        rows: &[Row],
        mut block: ArrayViewMut2<'_, U>,
        range: (f64, f64),
    ) {
        const OUTPUTS: usize = 16;
        let mut sums = [[U::default(); LANES]; OUTPUTS];
        for first in (0..self.taps.len()).step_by(OUTPUTS) {
            let count = OUTPUTS.min(self.taps.len() - first);
            for (i, sums) in sums[..count].iter_mut().enumerate() {
                let sum = self.value(rows, first + i, range);
                sums.iter_mut().zip(&sum).for_each(|(t, s)| *t = U::from_f64(*s));
            }
            let part = ndarray::Slice::from(first..first + count);
            let mut part = block.slice_axis_mut(Axis(0), part);
            for (lane, line) in part.columns_mut().into_iter().enumerate() {
                line.into_iter().zip(&sums).for_each(|(t, sums)| *t = sums[lane]);
            }
        }
    }
}

/// Up to [`LANES`] lines side by side.
struct Resize<'a, T, U, F> {
    line: &'a Line,
    input: ArrayView2<'a, T>,
    output: ArrayViewMut2<'a, U>,
    range: (f64, f64),
    scratch: &'a mut [Row],
    map: F,
}

impl<T: Voxel, U: Voxel, F: Fn(T) -> f64 + Copy> Work for Resize<'_, T, U, F> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { line, input, output, range, scratch, map } = self;
        line.load(input, scratch, map);
        if line.filter {
            prefilter(scratch);
        }
        let contiguous = output.strides()[1] == 1;
        if contiguous || output.ncols() == 1 {
            line.store(scratch, output, range);
        } else {
            line.store_transposed(scratch, output, range);
        }
    }
}

/// Lays lines that are contiguous in memory side by side, a few voxels of each at a time, so that
/// both sides stay in the nearest cache.
#[inline(always)]
fn load_transposed<T: Voxel>(
    block: ArrayView2<'_, T>,
    rows: &mut [Row],
    map: impl Fn(T) -> f64 + Copy,
) {
    const VOXELS: usize = 16;
    for (piece, rows) in rows.chunks_mut(VOXELS).enumerate() {
        let part = ndarray::Slice::from(piece * VOXELS..piece * VOXELS + rows.len());
        for (lane, line) in block.columns().into_iter().enumerate() {
            let line = line.slice_axis_move(Axis(0), part);
            match line.to_slice() {
                Some(line) => rows.iter_mut().zip(line).for_each(|(row, v)| row[lane] = map(*v)),
                None => rows.iter_mut().zip(&line).for_each(|(row, v)| row[lane] = map(*v)),
            }
        }
    }
}

/// First index and weights of a cubic B-spline.
fn cubic(position: f64) -> (usize, [f64; 4]) {
    let t = position - position.floor();
    let s = 1.0 - t;
    let weights = [
        s * s * s / 6.0,
        (4.0 - 6.0 * t * t + 3.0 * t * t * t) / 6.0,
        (4.0 - 6.0 * s * s + 3.0 * s * s * s) / 6.0,
        t * t * t / 6.0,
    ];
    // The padding keeps positions above 11, so this does not go below 0.
    (position.floor() as usize - 1, weights)
}

/// Turns samples into coefficients of a cubic B-spline, lines mirrored about their outer edges
/// (d c b a | a b c d | d c b a).
#[inline(always)]
fn prefilter(rows: &mut [Row]) {
    let pole = 3f64.sqrt() - 2.0;
    let n = rows.len();
    for value in rows.as_flattened_mut() {
        *value *= 6.0;
    }
    let pole_n = pole.powi(n as i32);
    let first = rows[0];
    let mut sum = first;
    add_scaled(&mut sum, &rows[n - 1], pole_n);
    let mut power = pole;
    // Further terms are below the last bit of a double.
    for i in 1..n.min(64) {
        add_scaled(&mut sum, &rows[i], power);
        add_scaled(&mut sum, &rows[n - 1 - i], power * pole_n);
        power *= pole;
    }
    let scale = pole / (1.0 - pole_n * pole_n);
    for (row, (s, f)) in rows[0].iter_mut().zip(sum.iter().zip(&first)) {
        *row = s * scale + f;
    }
    for i in 1..n {
        let (done, rest) = rows.split_at_mut(i);
        add_scaled(&mut rest[0], &done[i - 1], pole);
    }
    rows[n - 1].iter_mut().for_each(|v| *v *= pole / (pole - 1.0));
    for i in (0..n - 1).rev() {
        let (done, rest) = rows.split_at_mut(i + 1);
        for (v, next) in done[i].iter_mut().zip(&rest[0]) {
            *v = pole * (next - *v);
        }
    }
}

#[inline(always)]
fn add_scaled(to: &mut Row, from: &Row, factor: f64) {
    to.iter_mut().zip(from).for_each(|(t, f)| *t += factor * f);
}
