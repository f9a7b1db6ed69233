//! The running sum of overlapping windows, held only where windows still overlap.
//!
//! Sums are kept row by row: a row is the classes × x of one (z, y), made when the first window
//! touches it and final when the last one has. Windows are visited in the reference's order, z
//! outermost, so that behind them lies a front: of the planes that later windows reach, all rows;
//! of the planes the present ones close, only those that lie ahead. Final rows are divided by their
//! weights where they are, read by a [`RowSink`](crate::sink::RowSink) and released, and
//! their room is used again.
//!
//! A slab may hold a part of a plane only (a [tile](crate::tile::Tile)); windows are cut to it.
//!
//! # Source
//! The sums are those of nnU-Net 1.7.1 `_internal_predict_3D_3Dconv_tiled` (f32) and of
//! nnU-Net 2.2 and 2.8 `predict_sliding_window_return_logits` (half precision).

use crate::error::InferError;
use half::f16;
use rayon::prelude::*;
use std::ops::Range;
use stunet_data::plans::Accumulation;
use stunet_data::simd::{Work, add_to_halves, divide_halves, narrow, round_to_half, wide, widen};

/// Rows `[C, X]` of sums, with the rows `[X]` of their weights.
///
/// # Shapes
/// Indices are those of the unpadded volume at the network's resolution; what windows add to the
/// padding is dropped.
#[derive(Debug)]
pub struct Slab {
    layout: Layout,
    /// Voxels of padding below the volume, per axis.
    below: [usize; 3],
    depth: usize,
    rows: Range<usize>,
    held: Vec<Option<Box<Row>>>,
    #[allow(clippy::vec_box, reason = "rows move between here and `held`, where most are absent")]
    free: Vec<Box<Row>>,
    made: usize,
}

/// What all rows have in common.
#[derive(Clone, Debug)]
struct Layout {
    num_classes: usize,
    columns: Range<usize>,
    accumulation: Accumulation,
    num_folds: usize,
}

impl Layout {
    /// Sums that are kept apart: with f16 every fold has its own, because the reference rounds every
    /// fold's quotient before it adds the next fold; with f32 all folds share one (f32 sums of
    /// windows, then of folds, instead of the other way round: the last digit may differ).
    fn num_lanes(&self) -> usize {
        match self.accumulation {
            Accumulation::F32 => 1,
            Accumulation::F16 => self.num_folds,
        }
    }

    fn row_bytes(&self) -> usize {
        let value = match self.accumulation {
            Accumulation::F32 => size_of::<f32>(),
            Accumulation::F16 => size_of::<f16>(),
        };
        let width = self.columns.len();
        width * (self.num_lanes() * self.num_classes * value + size_of::<f32>())
    }
}

#[derive(Debug)]
struct Row {
    sums: Sums,
    weights: Vec<f32>,
    /// Whether it holds the sums of an earlier use, or has no room for any yet.
    stale: bool,
}

/// `[lane, C, X]`.
#[derive(Debug)]
enum Sums {
    Single(Vec<f32>),
    /// Rounded to half precision after every window, as the reference's accumulators are.
    Half(Vec<f16>),
}

/// The values of a final row.
#[derive(Clone, Copy, Debug)]
pub enum RowValues<'a> {
    /// `[C, X]` of the slab's columns.
    Single(&'a [f32]),
    /// The same in half precision, which holds them exactly.
    Half(&'a [f16]),
}

impl<'a> RowValues<'a> {
    /// Values of one class; of `scratch`, where they had to be widened into it.
    ///
    /// # Panics
    /// When there are no values in the range of indices.
    pub fn widened(self, range: Range<usize>, scratch: &'a mut Vec<f32>) -> &'a [f32] {
        match self {
            Self::Single(values) => &values[range],
            Self::Half(values) => {
                scratch.resize(range.len(), 0.0);
                widen(&values[range], scratch);
                scratch
            }
        }
    }
}

impl Slab {
    /// An empty slab for the rows and columns of a volume of `depth` planes, with `below` voxels of
    /// padding below its first voxel.
    pub fn new(
        num_classes: usize,
        num_folds: usize,
        accumulation: Accumulation,
        (depth, rows, columns): (usize, Range<usize>, Range<usize>),
        below: [usize; 3],
    ) -> Self {
        let held = (0..depth * rows.len()).map(|_| None).collect();
        let layout = Layout { num_classes, columns, accumulation, num_folds };
        Self { layout, below, depth, rows, held, free: Vec::new(), made: 0 }
    }

    /// Classes of a row.
    pub fn num_classes(&self) -> usize {
        self.layout.num_classes
    }

    /// Planes of the volume.
    pub(crate) fn depth(&self) -> usize {
        self.depth
    }

    /// The rows it is for.
    pub fn rows(&self) -> Range<usize> {
        self.rows.clone()
    }

    /// The columns it is for.
    pub fn columns(&self) -> Range<usize> {
        self.layout.columns.clone()
    }

    /// Bytes of a row.
    pub(crate) fn bytes_of_row(&self) -> usize {
        self.layout.row_bytes()
    }

    /// Most bytes held so far.
    pub fn bytes(&self) -> usize {
        self.made * self.layout.row_bytes()
    }

    /// The values of row `y` of plane `z`, once it is final.
    ///
    /// # Panics
    /// When the row is not held.
    pub fn values(&self, z: usize, y: usize) -> RowValues<'_> {
        let length = self.layout.num_classes * self.layout.columns.len();
        let row = self.held[self.at(z, y)].as_ref().expect("a final row that is not released");
        match &row.sums {
            Sums::Single(values) => RowValues::Single(&values[..length]),
            Sums::Half(values) => RowValues::Half(&values[..length]),
        }
    }

    /// Takes a row that is final already, class by class.
    ///
    /// # Errors
    /// [`InferError::NotFinite`].
    ///
    /// # Panics
    /// When the sums are in half precision: those are formed here.
    pub(crate) fn put<'v>(
        &mut self,
        z: usize,
        y: usize,
        values: impl Fn(usize) -> &'v [f32],
    ) -> Result<(), InferError> {
        let at = self.at(z, y);
        let mut row = self.held[at].take().unwrap_or_else(|| self.vacant());
        let Sums::Single(sums) = row.room(&self.layout) else { panic!("final rows are in f32") };
        let mut finite = true;
        for (class, sums) in sums.chunks_exact_mut(self.layout.columns.len()).enumerate() {
            sums.copy_from_slice(values(class));
            finite &= all_finite(sums);
        }
        self.held[at] = Some(row);
        if finite { Ok(()) } else { Err(InferError::NotFinite { plane: z }) }
    }

    /// A row that nobody uses; its sums may be those of an earlier use.
    fn vacant(&mut self) -> Box<Row> {
        self.free.pop().unwrap_or_else(|| {
            self.made += 1;
            Box::new(Row::new(self.layout.accumulation))
        })
    }

    /// Gives back the room of a row that is no longer needed.
    pub fn release(&mut self, z: usize, y: usize) {
        let at = self.at(z, y);
        if let Some(mut row) = self.held[at].take() {
            row.stale = true;
            self.free.push(row);
        }
    }

    fn at(&self, z: usize, y: usize) -> usize {
        z * self.rows.len() + y - self.rows.start
    }

    /// What of a window lies in the slab: its planes and rows there, and the first of each within
    /// the window.
    pub(crate) fn overlap(&self, start: [usize; 3], window: [usize; 3]) -> [Overlap; 3] {
        let within = [0..self.depth, self.rows.clone(), self.layout.columns.clone()];
        std::array::from_fn(|axis| {
            let (begin, end) = (start[axis], start[axis] + window[axis]);
            let from = begin.max(within[axis].start + self.below[axis]);
            let to = end.min(within[axis].end + self.below[axis]).max(from);
            Overlap { there: from - self.below[axis]..to - self.below[axis], skipped: from - begin }
        })
    }

    /// For each plane of a window at `start` (padded frame) its rows to add to, where it has any.
    ///
    /// Rows that no window has touched are made.
    pub(crate) fn planes(
        &mut self,
        start: [usize; 3],
        window: [usize; 3],
    ) -> Vec<Option<PlaneSums<'_>>> {
        let [planes, rows, columns] = self.overlap(start, window);
        for z in planes.there.clone() {
            for y in rows.there.clone() {
                let at = self.at(z, y);
                if self.held[at].is_none() {
                    self.held[at] = Some(self.vacant());
                }
            }
        }
        let layout = &self.layout;
        let first = rows.there.start - self.rows.start;
        let within = first..first + rows.there.len();
        let at_column = columns.there.start - self.layout.columns.start;
        let length = self.rows.len().max(1);
        let mut sums: Vec<_> = (0..window[0]).map(|_| None).collect();
        let held = self.held.chunks_exact_mut(length).skip(planes.there.start);
        for (target, held) in
            sums.iter_mut().skip(planes.skipped).zip(held).take(planes.there.len())
        {
            *target = Some(PlaneSums {
                held: &mut held[within.clone()],
                first_row: rows.skipped,
                columns: columns.skipped..columns.skipped + columns.there.len(),
                at_column,
                layout,
            });
        }
        sums
    }

    /// Divides the rows of `planes` × `rows` by their weights and averages the folds: they are final.
    ///
    /// # Errors
    /// When a value is not finite: [`InferError::HalfPrecisionOverflow`] or
    /// [`InferError::NotFinite`].
    pub(crate) fn close(
        &mut self,
        planes: Range<usize>,
        rows: Range<usize>,
    ) -> Result<(), InferError> {
        let length = self.rows.len().max(1);
        let within = rows.start - self.rows.start..rows.end - self.rows.start;
        let first = planes.start;
        let held = &mut self.held[planes.start * length..planes.end * length];
        let layout = &self.layout;
        let bad = held
            .par_chunks_exact_mut(length)
            .enumerate()
            .filter_map(|(plane, held)| {
                let rows = held[within.clone()].par_iter_mut();
                let finite = rows.map(|row| {
                    let row = row.as_mut().expect("windows cover every row");
                    wide(Close { row, layout })
                });
                (!finite.reduce(|| true, |a, b| a && b)).then_some(plane)
            })
            .min();
        bad.map_or(Ok(()), |plane| Err(self.not_finite(plane + first)))
    }

    /// Forms final rows: `form` adds all windows to each, in parallel, and is given one scratch per
    /// thread.
    ///
    /// # Errors
    /// As [`close`](Self::close).
    pub(crate) fn form<S: Default + Send>(
        &mut self,
        planes: Range<usize>,
        rows: Range<usize>,
        form: impl Fn(usize, usize, &mut RowSums<'_>, &mut S) + Sync,
    ) -> Result<(), InferError> {
        let layout = self.layout.clone();
        self.fill(planes, rows, |z, y, row, scratch: &mut S| {
            row.empty(&layout);
            form(z, y, &mut RowSums { row, layout: &layout }, scratch);
            wide(Close { row, layout: &layout })
        })
    }

    /// Computes final rows: `compute` writes all values `[C, X]` of each, in parallel, and is given one
    /// scratch per thread.
    ///
    /// # Errors
    /// As [`close`](Self::close).
    ///
    /// # Panics
    /// When the sums are in half precision.
    pub(crate) fn compute<S: Default + Send>(
        &mut self,
        planes: Range<usize>,
        rows: Range<usize>,
        compute: impl Fn(usize, usize, &mut [f32], &mut S) + Sync,
    ) -> Result<(), InferError> {
        let layout = self.layout.clone();
        self.fill(planes, rows, |z, y, row, scratch: &mut S| {
            let Sums::Single(values) = row.room(&layout) else { panic!("final rows are in f32") };
            compute(z, y, values, scratch);
            wide(Finite(values))
        })
    }

    /// Has final rows written, in parallel; `write` says whether all values are finite.
    fn fill<S: Default + Send>(
        &mut self,
        planes: Range<usize>,
        rows: Range<usize>,
        write: impl Fn(usize, usize, &mut Row, &mut S) -> bool + Sync,
    ) -> Result<(), InferError> {
        let mut open = Vec::with_capacity(planes.len() * rows.len());
        for z in planes {
            for y in rows.clone() {
                let at = self.at(z, y);
                let row = self.held[at].take().unwrap_or_else(|| self.vacant());
                open.push((z, y, row));
            }
        }
        let finite = open.par_iter_mut().map_init(S::default, |scratch, (z, y, row)| {
            if write(*z, *y, row, scratch) { usize::MAX } else { *z }
        });
        let bad = finite.min().filter(|plane| *plane < usize::MAX);
        for (z, y, row) in open {
            let at = self.at(z, y);
            self.held[at] = Some(row);
        }
        bad.map_or(Ok(()), |plane| Err(self.not_finite(plane)))
    }

    /// What a sum that is no finite number means.
    fn not_finite(&self, plane: usize) -> InferError {
        match self.layout.accumulation {
            Accumulation::F16 => InferError::HalfPrecisionOverflow { plane },
            Accumulation::F32 => InferError::NotFinite { plane },
        }
    }

    /// Bytes of one row of `columns` columns.
    pub(crate) fn row_bytes(
        num_classes: usize,
        num_folds: usize,
        accumulation: Accumulation,
        columns: usize,
    ) -> usize {
        Layout { num_classes, columns: 0..columns, accumulation, num_folds }.row_bytes()
    }
}

/// Where a window lies in a slab, along one axis.
pub(crate) struct Overlap {
    /// Indices of the volume.
    pub there: Range<usize>,
    /// The first of them, counted from the window's first voxel.
    pub skipped: usize,
}

impl Row {
    /// Without room for sums: whoever writes it first makes that. Fresh memory is slow, and all threads write.
    fn new(accumulation: Accumulation) -> Self {
        let sums = match accumulation {
            Accumulation::F32 => Sums::Single(Vec::new()),
            Accumulation::F16 => Sums::Half(Vec::new()),
        };
        Self { sums, weights: Vec::new(), stale: true }
    }

    /// Room for values that are about to be written, whatever it holds.
    fn room(&mut self, layout: &Layout) -> &mut Sums {
        let width = layout.columns.len();
        let length = layout.num_lanes() * layout.num_classes * width;
        match &mut self.sums {
            Sums::Single(values) => values.resize(length, 0.0),
            Sums::Half(values) => values.resize(length, f16::ZERO),
        }
        self.weights.resize(width, 0.0);
        self.stale = false;
        &mut self.sums
    }

    fn empty(&mut self, layout: &Layout) {
        match self.room(layout) {
            Sums::Single(values) => values.fill(0.0),
            Sums::Half(values) => values.fill(f16::ZERO),
        }
        self.weights.fill(0.0);
    }

    /// Adds `values` from `at` of the lane that begins at `lane`; sums in single precision have one.
    ///
    /// The product and the sum are formed in f32; half-precision sums are rounded once per window.
    #[inline(always)]
    fn add(&mut self, [lane, at]: [usize; 2], values: &[f32], importance: Option<&[f32]>) {
        let length = values.len();
        match &mut self.sums {
            Sums::Single(sums) => add_weighted(&mut sums[at..at + length], values, importance),
            Sums::Half(sums) => add_to_halves(&mut sums[lane + at..][..length], values, importance),
        }
    }

    /// Adds the weights of a window to those of some columns.
    fn add_weights(&mut self, columns: Range<usize>, importance: Option<&[f32]>) {
        let weights = &mut self.weights[columns];
        match importance {
            Some(map) => weights.iter_mut().zip(map).for_each(|(w, g)| *w += g),
            None => weights.iter_mut().for_each(|w| *w += 1.0),
        }
        if matches!(self.sums, Sums::Half(_)) {
            round_to_half(weights);
        }
    }

    /// Leaves the mean in the first lane; false when a value is not finite.
    #[inline(always)]
    fn close(&mut self, layout: &Layout) -> bool {
        let width = layout.columns.len();
        let folds = layout.num_folds as f32;
        let weights = self.weights.as_slice();
        let mut finite = true;
        match &mut self.sums {
            Sums::Single(values) => {
                for class in values.chunks_exact_mut(width) {
                    class.iter_mut().zip(weights).for_each(|(v, w)| *v /= w);
                    if layout.num_folds > 1 {
                        class.iter_mut().for_each(|v| *v /= folds);
                    }
                    finite &= all_finite(class);
                }
            }
            Sums::Half(values) if layout.num_folds == 1 => {
                finite = divide_halves(values, weights);
            }
            Sums::Half(values) => {
                let length = layout.num_classes * width;
                let (first, others) = values.split_at_mut(length);
                let (mut mean, mut quotient) = (vec![0.0; width], vec![0.0; width]);
                for (class, sums) in first.chunks_exact_mut(width).enumerate() {
                    widen(sums, &mut mean);
                    mean.iter_mut().zip(weights).for_each(|(v, w)| *v /= w);
                    for other in others.chunks_exact(length) {
                        round_to_half(&mut mean);
                        widen(&other[class * width..][..width], &mut quotient);
                        quotient.iter_mut().zip(weights).for_each(|(v, w)| *v /= w);
                        round_to_half(&mut quotient);
                        mean.iter_mut().zip(&quotient).for_each(|(m, q)| *m += q);
                    }
                    round_to_half(&mut mean);
                    mean.iter_mut().for_each(|v| *v /= folds);
                    narrow(&mean, sums);
                    round_to_half(&mut mean);
                    finite &= all_finite(&mean);
                }
            }
        }
        finite
    }
}

/// See [`Row::close`].
struct Close<'a> {
    row: &'a mut Row,
    layout: &'a Layout,
}

impl Work for Close<'_> {
    type Output = bool;

    #[inline(always)]
    fn run(self) -> bool {
        self.row.close(self.layout)
    }
}

/// See [`all_finite`].
struct Finite<'a>(&'a [f32]);

impl Work for Finite<'_> {
    type Output = bool;

    #[inline(always)]
    fn run(self) -> bool {
        all_finite(self.0)
    }
}

/// Whether none is infinite or no number; looks at all of them, in wide registers.
#[inline(always)]
fn all_finite(values: &[f32]) -> bool {
    values.iter().fold(true, |finite, v| finite & v.is_finite())
}

/// The open rows of one plane under a window.
pub(crate) struct PlaneSums<'a> {
    held: &'a mut [Option<Box<Row>>],
    /// Row of the window that is the first of `held`.
    first_row: usize,
    /// Columns of the window that lie in the slab, and where they begin there.
    columns: Range<usize>,
    at_column: usize,
    layout: &'a Layout,
}

impl PlaneSums<'_> {
    /// Rows of the window that lie in the slab.
    pub(crate) fn rows(&self) -> Range<usize> {
        self.first_row..self.first_row + self.held.len()
    }

    fn row(&mut self, y: usize) -> &mut Row {
        let row = self.held[y - self.first_row].as_mut().expect("made for this window");
        if row.stale {
            row.empty(self.layout);
        }
        row
    }

    /// Adds `values` of a row `y` of the window, times `importance` where there is one.
    ///
    /// The product and the sum are formed in f32; half-precision sums are rounded once per window.
    #[inline(always)]
    pub(crate) fn add_row(
        &mut self,
        (fold, class, y): (usize, usize, usize),
        values: &[f32],
        importance: Option<&[f32]>,
    ) {
        let columns = self.columns.clone();
        let width = self.layout.columns.len();
        let at = class * width + self.at_column;
        let lane = self.layout.num_classes * width;
        let values = &values[columns.clone()];
        let importance = importance.map(|map| &map[columns]);
        self.row(y).add([fold * lane, at], values, importance);
    }

    /// Adds the weights of row `y` of a window: its importance, or 1 without a map.
    pub(crate) fn add_weights(&mut self, y: usize, importance: Option<&[f32]>) {
        let (columns, at) = (self.columns.clone(), self.at_column);
        let within = at..at + columns.len();
        self.row(y).add_weights(within, importance.map(|map| &map[columns]));
    }
}

/// A row that is formed at once.
pub(crate) struct RowSums<'a> {
    row: &'a mut Row,
    layout: &'a Layout,
}

impl RowSums<'_> {
    /// Adds values of a class, from column `at` of the slab on, times `importance` where there is one.
    #[inline(always)]
    pub(crate) fn add(
        &mut self,
        (fold, class, at): (usize, usize, usize),
        values: &[f32],
        importance: Option<&[f32]>,
    ) {
        let width = self.layout.columns.len();
        let lane = self.layout.num_classes * width;
        self.row.add([fold * lane, class * width + at], values, importance);
    }

    /// The sums in half precision of all classes of a fold, from column `at` on, and how many columns a class has;
    /// none where sums are in f32.
    pub(crate) fn halves(&mut self, fold: usize, at: usize) -> Option<(&mut [f16], usize)> {
        let width = self.layout.columns.len();
        let lane = self.layout.num_classes * width;
        match &mut self.row.sums {
            Sums::Half(sums) => Some((&mut sums[fold * lane..][..lane][at..], width)),
            Sums::Single(_) => None,
        }
    }

    /// Adds the weights of a window: its importance, or 1 without a map.
    pub(crate) fn add_weights(&mut self, columns: Range<usize>, importance: Option<&[f32]>) {
        self.row.add_weights(columns, importance);
    }
}

#[inline(always)]
fn add_weighted(sums: &mut [f32], values: &[f32], importance: Option<&[f32]>) {
    match importance {
        Some(map) => {
            let terms = sums.iter_mut().zip(values).zip(map);
            terms.for_each(|((s, v), g)| *s += v * g);
        }
        None => sums.iter_mut().zip(values).for_each(|(s, v)| *s += v),
    }
}
