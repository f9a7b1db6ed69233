//! From rows at the network's resolution to labels at the image's, without ever holding
//! classes × output volume.
//!
//! An order-1 restore needs two neighbouring planes and rows of the network's grid for a row of the
//! output. [`Restore`] leaves them in the slab until the last row that needs them is done: each row
//! of the output is interpolated for all classes, the best class is kept, and nothing else.

use crate::confidence::{Confidence, Grade};
use crate::error::InferError;
use crate::probabilities::ProbabilityFile;
use crate::sink::{RowDecision, RowSink};
use crate::slab::{RowValues, Slab};
use crate::tile::Tile;
use ndarray::{Array3, ArrayView3, ArrayViewMut2, ArrayViewMut3, Axis, s};
use rayon::prelude::*;
use std::ops::Range;
use stunet_data::labels::LabelVoxels;
use stunet_data::preprocess::Placement;
use stunet_data::preprocess::resample::AxisTaps;
use stunet_data::simd::{Work, wide};
use stunet_model::LabelDecision;

/// How the values of one voxel become its label.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// The class of the largest value; of equal ones the first.
    Largest {
        /// Label of each class.
        labels: Vec<u16>,
    },
    /// Regions: every class above the threshold writes its label, later ones over earlier ones.
    Regions {
        /// Label each class writes (`regions_class_order`).
        order: Vec<u16>,
        /// 0 for logits (a sigmoid of one half), 0.5 for probabilities.
        threshold: f32,
    },
}

impl Decision {
    /// Decides a row.
    ///
    /// # Shapes
    /// `values` `[C, voxels]`; `best` is room for one value per voxel.
    #[inline(always)]
    pub(crate) fn decide(&self, values: &[f32], best: &mut Vec<f32>, out: &mut [u16]) {
        self.begin(best, out);
        for (class, values) in values.chunks_exact(out.len()).enumerate() {
            self.update(class, values, best, out);
        }
    }

    /// The largest label it can decide on.
    pub fn max_label(&self) -> u16 {
        let (Self::Largest { labels } | Self::Regions { order: labels, .. }) = self;
        labels.iter().copied().max().unwrap_or(0)
    }

    /// The same for a device.
    fn rule(&self) -> LabelDecision {
        match self {
            Self::Largest { labels } => LabelDecision::Largest { labels: labels.clone() },
            Self::Regions { order, threshold } => {
                LabelDecision::Above { labels: order.clone(), threshold: *threshold }
            }
        }
    }

    /// Begins with a row of `out.len()` voxels.
    #[inline(always)]
    fn begin(&self, best: &mut Vec<f32>, out: &mut [u16]) {
        best.clear();
        best.resize(out.len(), f32::NEG_INFINITY);
        out.fill(0);
    }

    /// Takes the values of the next class.
    #[inline(always)]
    fn update(&self, class: usize, values: &[f32], best: &mut [f32], out: &mut [u16]) {
        match self {
            Self::Largest { labels } => {
                let label = labels[class];
                for ((best, out), v) in best.iter_mut().zip(out.iter_mut()).zip(values) {
                    let better = *v > *best;
                    *best = if better { *v } else { *best };
                    *out = if better { label } else { *out };
                }
            }
            Self::Regions { order, threshold } => {
                let label = order[class];
                for (out, v) in out.iter_mut().zip(values) {
                    *out = if *v > *threshold { label } else { *out };
                }
            }
        }
    }
}

/// See [`Decision::decide`].
struct Decide<'a> {
    decision: &'a Decision,
    values: &'a [f32],
    best: &'a mut Vec<f32>,
    out: &'a mut [u16],
}

impl Work for Decide<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        self.decision.decide(self.values, self.best, self.out);
    }
}

/// Labels at the network's resolution: what modes `fast` and `fastest` restore.
pub struct NetworkLabels {
    decision: Decision,
    labels: Array3<u16>,
    rows: Range<usize>,
    columns: Range<usize>,
}

impl NetworkLabels {
    /// An empty labelmap of `shape` `[z, y, x]` at the network's resolution.
    pub fn new(shape: [usize; 3], decision: Decision) -> Self {
        let [_, rows, columns] = shape.map(|n| 0..n);
        Self { decision, labels: Array3::zeros(shape), rows, columns }
    }

    /// The labels, once every row has come.
    pub fn into_labels(self) -> Array3<u16> {
        self.labels
    }
}

impl RowSink for NetworkLabels {
    fn begin(&mut self, tile: &Tile) -> Result<(), InferError> {
        (self.rows, self.columns) = (tile.rows.clone(), tile.columns.clone());
        Ok(())
    }

    fn rule(&self) -> Option<RowDecision> {
        let (z, y, x) = self.labels.dim();
        let taps = [z, y, x].map(|n| AxisTaps::linear(n, n));
        Some(RowDecision { taps, decision: self.decision.rule() })
    }

    fn labels(&mut self, planes: Range<usize>, labels: &[i32]) -> Result<(), InferError> {
        let to = self.labels.slice_mut(s![planes.clone(), self.rows.clone(), self.columns.clone()]);
        place_labels(to, labels, |label| label, |z| planes.start + z)
    }

    fn rows(
        &mut self,
        slab: &mut Slab,
        planes: Range<usize>,
        rows: Range<usize>,
    ) -> Result<(), InferError> {
        let (decision, columns) = (&self.decision, &self.columns);
        let length = slab.num_classes() * columns.len();
        let held = &*slab;
        let mut targets = self.labels.slice_mut(s![planes.clone(), .., ..]);
        let targets: Vec<_> = targets.axis_iter_mut(Axis(0)).zip(planes.clone()).collect();
        targets.into_par_iter().for_each_init(
            || (Vec::new(), Vec::new(), vec![0; columns.len()]),
            |(widened, best, out), (mut plane, z)| {
                for y in rows.clone() {
                    let values = held.values(z, y).widened(0..length, widened);
                    wide(Decide { decision, values, best, out });
                    plane
                        .slice_mut(s![y, columns.clone()])
                        .assign(&ndarray::ArrayView1::from(&*out));
                }
            },
        );
        for z in planes {
            rows.clone().for_each(|y| slab.release(z, y));
        }
        Ok(())
    }
}

/// Order-1 restore to the image's resolution and decision, row by row (mode `normal`).
///
/// # Source
/// nnU-Net 1.7.1 `segmentation_export.py`: each channel resampled in f64, cast to f32, then the
/// largest. nnU-Net 2.2 and 2.8 `export_prediction.py`: each channel of the half-precision logits
/// resampled in f64 and cast back to f16, then the largest (2.2 takes a softmax in f32 first, which
/// keeps the order).
///
/// # Deviations
/// Interpolation along z, y and x in turn, where scipy sums eight products: equal in f64 to the
/// last digits.
pub struct Restore {
    taps: [AxisTaps; 3],
    half: bool,
    decision: Decision,
    placement: Placement,
    labels: LabelVoxels,
    extras: Extras,
    tile: Tile,
    /// Planes that are final, for each row of the tile at the network's resolution.
    ready: Vec<usize>,
    /// Planes below this one are released, likewise.
    released: Vec<usize>,
    /// The next plane of the output, for each of its rows in the tile.
    next: Vec<usize>,
}

/// What is made of the values besides labels.
#[derive(Default)]
pub struct Extras {
    /// How sure each label is.
    pub confidence: Option<Confidence>,
    /// The values themselves.
    pub probabilities: Option<ProbabilityFile>,
}

impl Restore {
    /// A restore along `taps`, into the place of the output in the file's volume.
    ///
    /// With `half`, interpolated values are rounded to half precision before they are compared.
    pub fn new(
        taps: [AxisTaps; 3],
        half: bool,
        decision: Decision,
        placement: Placement,
        extras: Extras,
    ) -> Self {
        Self {
            taps,
            half,
            labels: LabelVoxels::zeros(placement.shape(), decision.max_label()),
            decision,
            placement,
            extras,
            tile: Tile::whole([0; 3], [0; 3]),
            ready: Vec::new(),
            released: Vec::new(),
            next: Vec::new(),
        }
    }

    /// The labels of the file's volume, once every row has come, and the extras.
    pub fn finish(self) -> (LabelVoxels, Extras) {
        debug_assert!(self.next.iter().all(|next| *next == self.taps[0].len()));
        (self.labels, self.extras)
    }

    /// The output planes that row `y` of the output can have now.
    fn possible(&self, y: usize) -> Range<usize> {
        let tap = Tap::of(&self.taps[1], y);
        let ready = |row: usize| self.ready[row - self.tile.rows.start];
        let limit = ready(tap.lower).min(ready(tap.upper));
        let next = self.next[y - self.tile.out_rows.start];
        let last = self.taps[0].upper.partition_point(|upper| *upper < limit);
        next..last.max(next)
    }

    /// Restores what became possible with `rows`.
    fn restore(&mut self, slab: &Slab, rows: Range<usize>) -> Result<(), InferError> {
        let none = LabelVoxels::Bytes(Array3::zeros((0, 0, 0)));
        let mut labels = std::mem::replace(&mut self.labels, none);
        let done = match &mut labels {
            LabelVoxels::Bytes(labels) => self.restore_to(labels, |label| label as u8, slab, rows),
            LabelVoxels::Words(labels) => self.restore_to(labels, |label| label, slab, rows),
        };
        self.labels = labels;
        done
    }

    /// As [`restore`](Self::restore), into labels of one kind.
    fn restore_to<T: Copy + Send>(
        &mut self,
        labels: &mut Array3<T>,
        narrow: fn(u16) -> T,
        slab: &Slab,
        rows: Range<usize>,
    ) -> Result<(), InferError> {
        let out_rows = self.tile.out_rows.clone();
        let near = out_rows.filter(|y| {
            let tap = Tap::of(&self.taps[1], *y);
            rows.contains(&tap.lower) || rows.contains(&tap.upper)
        });
        let work: Vec<(usize, Range<usize>)> = near.map(|y| (y, self.possible(y))).collect();
        let first = work.iter().map(|(_, planes)| planes.start).min().unwrap_or(0);
        let last = work.iter().map(|(_, planes)| planes.end).max().unwrap_or(0);
        let source = Source { slab, taps: &self.taps, half: self.half, tile: &self.tile };
        let columns = self.tile.out_columns.clone();
        let Extras { confidence, probabilities } = &mut self.extras;
        let wanted = Wanted {
            decision: &self.decision,
            grade: confidence.as_ref().map(|confidence| confidence.grade()),
            all: probabilities.is_some(),
        };
        let chosen = s![first..last.max(first), .., columns.clone()];
        let mut labels = self.placement.view_mut(labels);
        let mut labels = labels.slice_mut(chosen);
        let mut grades = confidence
            .as_mut()
            .map(|confidence| self.placement.view_mut(confidence.volume_mut()).slice_move(chosen));
        let mut grades = grades.as_mut().map(|grades| grades.axis_iter_mut(Axis(0)));
        let planes: Vec<_> = labels
            .axis_iter_mut(Axis(0))
            .map(|plane| (plane, grades.as_mut().and_then(Iterator::next)))
            .collect();
        let file = probabilities.as_ref();
        planes.into_par_iter().enumerate().try_for_each_init(
            Scratch::default,
            |scratch, (index, (labels, grades))| {
                let z = first + index;
                let rows = work.iter().filter(|(_, planes)| planes.contains(&z)).map(|(y, _)| *y);
                restore_plane(
                    (&source, &wanted),
                    (z, rows),
                    (labels, narrow),
                    (grades, file),
                    scratch,
                )
            },
        )?;
        let start = self.tile.out_rows.start;
        for (y, planes) in work {
            self.next[y - start] = planes.end;
        }
        Ok(())
    }

    /// Releases rows that no output row will read again.
    fn release(&mut self, slab: &mut Slab) {
        let rows = self.tile.rows.clone();
        let mut needed = self.ready.clone();
        for y in self.tile.out_rows.clone() {
            let next = self.next[y - self.tile.out_rows.start];
            let Some(&lowest) = self.taps[0].lower.get(next) else { continue };
            let tap = Tap::of(&self.taps[1], y);
            for row in [tap.lower, tap.upper] {
                let needed = &mut needed[row - rows.start];
                *needed = lowest.min(*needed);
            }
        }
        for (y, needed) in rows.zip(needed) {
            let released = &mut self.released[y - self.tile.rows.start];
            (*released..needed).for_each(|z| slab.release(z, y));
            *released = needed.max(*released);
        }
    }
}

/// Restores rows of plane `z` into its labels, and into the grades and the file that are wanted too.
fn restore_plane<T: Copy>(
    (source, wanted): (&Source<'_>, &Wanted<'_>),
    (z, rows): (usize, impl Iterator<Item = usize>),
    (mut labels, narrow): (ArrayViewMut2<'_, T>, fn(u16) -> T),
    (mut grades, file): (Option<ArrayViewMut2<'_, u8>>, Option<&ProbabilityFile>),
    scratch: &mut Scratch,
) -> Result<(), InferError> {
    let columns = &source.tile.out_columns;
    for y in rows {
        wide(RestoreRow { source, at: [z, y], wanted, scratch });
        let narrowed = labels.row_mut(y).into_iter().zip(&scratch.labels);
        narrowed.for_each(|(to, label)| *to = narrow(*label));
        if let Some(grades) = &mut grades {
            grades.row_mut(y).assign(&ndarray::ArrayView1::from(&scratch.grades));
        }
        if let Some(file) = file {
            file.put_row([z, y], columns.start, &scratch.row, columns.len())?;
        }
    }
    Ok(())
}

impl RowSink for Restore {
    fn begin(&mut self, tile: &Tile) -> Result<(), InferError> {
        self.ready = vec![0; tile.rows.len()];
        self.released = vec![0; tile.rows.len()];
        self.next = vec![0; tile.out_rows.len()];
        self.tile = tile.clone();
        Ok(())
    }

    fn rows(
        &mut self,
        slab: &mut Slab,
        planes: Range<usize>,
        rows: Range<usize>,
    ) -> Result<(), InferError> {
        let start = self.tile.rows.start;
        rows.clone().for_each(|y| self.ready[y - start] = planes.end);
        self.restore(slab, rows)?;
        self.release(slab);
        Ok(())
    }

    fn rule(&self) -> Option<RowDecision> {
        let Extras { confidence, probabilities } = &self.extras;
        let alone = confidence.is_none() && probabilities.is_none() && !self.half;
        alone.then(|| RowDecision { taps: self.taps.clone(), decision: self.decision.rule() })
    }

    fn labels(&mut self, planes: Range<usize>, labels: &[i32]) -> Result<(), InferError> {
        self.next.fill(planes.end);
        let Tile { out_rows, out_columns, .. } = self.tile.clone();
        let network = |z: usize| self.taps[0].lower[planes.start + z];
        let part = s![planes.clone(), out_rows, out_columns];
        match &mut self.labels {
            LabelVoxels::Bytes(all) => {
                let mut to = self.placement.view_mut(all);
                place_labels(to.slice_mut(part), labels, |label| label as u8, network)
            }
            LabelVoxels::Words(all) => {
                let mut to = self.placement.view_mut(all);
                place_labels(to.slice_mut(part), labels, |label| label, network)
            }
        }
    }
}

/// Puts labels of a device where they belong; `network` says of which plane of the network those of a plane
/// are.
fn place_labels<T: Copy>(
    mut to: ArrayViewMut3<'_, T>,
    labels: &[i32],
    narrow: fn(u16) -> T,
    network: impl Fn(usize) -> usize,
) -> Result<(), InferError> {
    let from = ArrayView3::from_shape(to.raw_dim(), labels).expect("labels of all voxels");
    for ((z, y, x), label) in from.indexed_iter() {
        let label =
            u16::try_from(*label).map_err(|_| InferError::NotFinite { plane: network(z) })?;
        to[[z, y, x]] = narrow(label);
    }
    Ok(())
}

/// Where one output index looks along an axis.
#[derive(Clone, Copy)]
struct Tap {
    lower: usize,
    upper: usize,
    weight_upper: f64,
}

impl Tap {
    fn of(taps: &AxisTaps, index: usize) -> Self {
        Self {
            lower: taps.lower[index],
            upper: taps.upper[index],
            weight_upper: taps.weight_upper[index],
        }
    }
}

/// What a row is interpolated from.
struct Source<'a> {
    slab: &'a Slab,
    taps: &'a [AxisTaps; 3],
    half: bool,
    tile: &'a Tile,
}

/// What is made of a row.
struct Wanted<'a> {
    decision: &'a Decision,
    grade: Option<Grade>,
    /// Whether all classes are read later.
    all: bool,
}

#[derive(Default)]
struct Scratch {
    widened: [Vec<f32>; 4],
    line: Vec<f64>,
    /// `[C, x]` where all classes are wanted, `[x]` otherwise.
    row: Vec<f32>,
    best: Vec<f32>,
    labels: Vec<u16>,
    grades: Vec<u8>,
    sums: Vec<f32>,
}

/// See [`Source::row`].
struct RestoreRow<'a> {
    source: &'a Source<'a>,
    at: [usize; 2],
    wanted: &'a Wanted<'a>,
    scratch: &'a mut Scratch,
}

impl Work for RestoreRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        self.source.row(self.at, self.wanted, self.scratch);
    }
}

impl Source<'_> {
    /// One output row: its labels, and what else is wanted, into `scratch`.
    #[inline(always)]
    fn row(&self, [z, y]: [usize; 2], wanted: &Wanted<'_>, scratch: &mut Scratch) {
        let (tap_z, tap_y) = (Tap::of(&self.taps[0], z), Tap::of(&self.taps[1], y));
        let corners = [
            self.slab.values(tap_z.lower, tap_y.lower),
            self.slab.values(tap_z.lower, tap_y.upper),
            self.slab.values(tap_z.upper, tap_y.lower),
            self.slab.values(tap_z.upper, tap_y.upper),
        ];
        let weights = [tap_z.weight_upper, tap_y.weight_upper];
        let (classes, width) = (self.slab.num_classes(), self.tile.out_columns.len());
        let keep = wanted.all || wanted.grade.is_some();
        let Scratch { widened, line, row, best, labels, grades, sums } = scratch;
        row.resize(if keep { classes * width } else { width }, 0.0);
        labels.resize(width, 0);
        wanted.decision.begin(best, labels);
        for class in 0..classes {
            let from = class * self.slab.columns().len()..(class + 1) * self.slab.columns().len();
            mix_corners(corners, from, weights, widened, line);
            let at = if keep { class * width } else { 0 };
            let values = &mut row[at..at + width];
            self.along_x(line, values);
            wanted.decision.update(class, values, best, labels);
        }
        if let Some(grade) = wanted.grade {
            grades.resize(width, 0);
            grade.of_row(row, sums, grades);
        }
    }

    #[inline(always)]
    fn along_x(&self, line: &[f64], values: &mut [f32]) {
        let taps = &self.taps[2];
        let columns = self.tile.out_columns.clone();
        let start = self.tile.columns.start;
        let lower = &taps.lower[columns.clone()];
        let upper = &taps.upper[columns.clone()];
        let taps = lower.iter().zip(upper).zip(&taps.weight_upper[columns]);
        for (value, ((lower, upper), weight)) in values.iter_mut().zip(taps) {
            let mixed = line[lower - start] * (1.0 - weight) + line[upper - start] * weight;
            *value = if self.half { round_to_half(mixed) as f32 } else { mixed as f32 };
        }
    }
}

/// Interpolates along z and y; corners are (z, y), (z, y+1), (z+1, y), (z+1, y+1).
#[inline(always)]
fn mix_corners(
    corners: [RowValues<'_>; 4],
    from: Range<usize>,
    [z, y]: [f64; 2],
    widened: &mut [Vec<f32>; 4],
    line: &mut Vec<f64>,
) {
    let [wide_a, wide_b, wide_c, wide_d] = widened;
    let [a, b, c, d] = corners;
    let a = a.widened(from.clone(), wide_a);
    let mix = |a: f64, b: f64, w: f64| a * (1.0 - w) + b * w;
    let mix32 = |a: &f32, b: &f32, w: f64| mix(f64::from(*a), f64::from(*b), w);
    line.clear();
    // A weight of 0 leaves values exactly as they are: the common case without resampling.
    match (z == 0.0, y == 0.0) {
        (true, true) => line.extend(a.iter().map(|v| f64::from(*v))),
        (true, false) => {
            let b = b.widened(from, wide_b);
            line.extend(a.iter().zip(b).map(|(a, b)| mix32(a, b, y)));
        }
        (false, true) => {
            let c = c.widened(from, wide_c);
            line.extend(a.iter().zip(c).map(|(a, c)| mix32(a, c, z)));
        }
        (false, false) => {
            let b = b.widened(from.clone(), wide_b);
            let c = c.widened(from.clone(), wide_c);
            let d = d.widened(from, wide_d);
            let pairs = a.iter().zip(b).zip(c.iter().zip(d));
            line.extend(pairs.map(|((a, b), (c, d))| mix(mix32(a, c, z), mix32(b, d, z), y)));
        }
    }
}

/// The nearest half-precision number, ties to even, without the detour over f32 that would round
/// twice; magnitudes within the range of f16.
#[inline(always)]
fn round_to_half(value: f64) -> f64 {
    /// Bits of an f64 that f16 does not have.
    const DROPPED: u32 = 52 - 10;
    /// The smallest normal f16; below it the grid is 2^-24.
    const SMALLEST_NORMAL: f64 = 1.0 / 16384.0;
    /// An f64 whose last place is worth 2^-24.
    const GRID: f64 = 1.5 * (1u64 << 28) as f64;
    let bits = value.to_bits();
    let half_place = (1u64 << (DROPPED - 1)) - 1 + ((bits >> DROPPED) & 1);
    let normal = f64::from_bits(bits.wrapping_add(half_place) & !((1u64 << DROPPED) - 1));
    let subnormal = (value + GRID) - GRID;
    if value.abs() < SMALLEST_NORMAL { subnormal } else { normal }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::f16;

    #[test]
    fn round_to_half_is_exact() {
        for bits in 0..0x7bffu16 {
            let (a, b) = (f16::from_bits(bits).to_f64(), f16::from_bits(bits + 1).to_f64());
            let middle = (a + b) / 2.0;
            let even = if bits % 2 == 0 { a } else { b };
            // The middle goes to the even neighbour, and the smallest step decides otherwise.
            for sign in [1.0, -1.0] {
                assert_eq!(round_to_half(sign * a), sign * a);
                assert_eq!(round_to_half(sign * middle), sign * even, "{bits}");
                assert_eq!(round_to_half(sign * middle.next_down()), sign * a, "{bits}");
                assert_eq!(round_to_half(sign * middle.next_up()), sign * b, "{bits}");
            }
        }
    }

    #[test]
    fn the_first_of_equal_values_wins() {
        let decision = Decision::Largest { labels: vec![0, 1, 7] };
        let mut out = [9; 4];
        let values = [1.0, 0.0, 5.0, -2.0, 1.0, 2.0, 5.0, -3.0, 0.5, 2.0, 6.0, -1.0];
        decision.decide(&values, &mut Vec::new(), &mut out);
        assert_eq!(out, [0, 1, 7, 7]);
    }

    #[test]
    fn later_regions_paint_over_earlier_ones() {
        let decision = Decision::Regions { order: vec![1, 3, 2], threshold: 0.0 };
        let mut out = [9; 4];
        let values = [1.0, -1.0, 0.0, 1.0, -1.0, -1.0, 0.0, 1.0, 1.0, -1.0, 1.0, -1.0];
        decision.decide(&values, &mut Vec::new(), &mut out);
        assert_eq!(out, [2, 0, 2, 3]);
    }
}
