//! The last feature maps of windows, kept instead of sums.
//!
//! A narrow network has fewer feature maps than classes: 16 and 105 for STU-Net S. Its head is a weighted
//! sum of them, voxel by voxel, so it can wait. What is kept between windows are the feature maps, and a
//! row of voxels is computed when the last of its windows has come: the values of one window after the
//! other, their importance, the sums and the quotient, all in a cache. Sums of all classes, which every
//! window would read and write once (1.8 GB for a published window), do not exist.
//!
//! Every sum has the terms it would have in a [`Slab`], in the same order: equal bit by bit.

use crate::accumulators::{Accumulators, Averages, WindowPass};
use crate::blend::{Averaging, average, softmax};
use crate::cutter::Cutter;
use crate::error::InferError;
use crate::kept_rows::KeptRows;
use crate::network::{AddToHalvesFn, Featured, Head, Network};
use crate::platform::Moment;
use crate::sink::RowSink;
use crate::slab::{Overlap, RowSums, Slab};
use burn::tensor::Tensor;
use ndarray::Array4;
use rayon::prelude::*;
use std::ops::{ControlFlow, Range};
use stunet_data::simd::{Work, wide};
use stunet_model::HalfSums;

/// Why a row's feature maps are there.
const HELD: &str = "rows are held until they are final";

/// Bytes of final rows that are formed before they are handed out, about.
const PIECE_BYTES: usize = 8 << 20;

/// Rows that are formed before they are handed out, of so many planes.
pub(crate) fn rows_per_piece(row_bytes: usize, num_planes: usize) -> usize {
    (PIECE_BYTES / (row_bytes * num_planes).max(1)).max(1)
}

/// Networks whose windows are kept as feature maps.
pub(crate) struct Trunks<'a> {
    networks: Vec<&'a dyn Featured>,
    heads: Vec<Head>,
    averages: Averages,
}

impl<'a> Trunks<'a> {
    /// None where a network has no head that can wait, or the networks differ in their feature maps.
    pub fn new(networks: &[&'a dyn Network], averages: Averages) -> Result<Self, Averages> {
        let featured: Option<Vec<_>> = networks.iter().map(|network| network.featured()).collect();
        let heads =
            featured.iter().flatten().map(|network| network.head()).collect::<Option<Vec<_>>>();
        let (Some(networks), Some(heads)) = (featured, heads) else { return Err(averages) };
        let alike = heads.windows(2).all(|pair| pair[0].num_features == pair[1].num_features);
        if alike { Ok(Self { networks, heads, averages }) } else { Err(averages) }
    }

    pub fn averages(&self) -> &Averages {
        &self.averages
    }

    pub fn into_averages(self) -> Averages {
        self.averages
    }

    pub fn num_folds(&self) -> usize {
        self.networks.len()
    }

    pub fn num_features(&self) -> usize {
        self.heads.first().map_or(0, |head| head.num_features)
    }

    /// Whether the values of averaged feature maps are averaged values.
    pub fn are_affine(&self) -> bool {
        self.heads.iter().all(|head| head.is_affine)
    }

    /// Whether feature maps are averaged over mirrored passes before the head.
    pub fn means_first(&self) -> bool {
        self.averages.passes_first
            && self.averages.averaging == Averaging::AsTheyAre
            && self.are_affine()
    }

    /// Passes of a network over a window whose values are averaged behind the head.
    fn num_passes(&self) -> usize {
        if self.means_first() { 1 } else { self.averages.num_passes }
    }

    /// What makes the values of one network's feature maps.
    pub fn head(&self, fold: usize) -> &Head {
        &self.heads[fold]
    }

    /// The last feature maps of one network.
    pub fn features(&self, fold: usize, window: Array4<f32>) -> Tensor<5> {
        self.networks[fold].features(window)
    }

    /// The mean over networks of the values `[C, X]` of averaged feature maps `[F, X]`, once `fold` is the
    /// last of them; the networks come one after the other.
    pub fn run_head(&self, fold: usize, features: &[f32], to: &mut [f32], scratch: &mut Vec<f32>) {
        let width = features.len() / self.num_features();
        if fold == 0 {
            (self.heads[fold].run)(features, width, 0..width, to);
        } else {
            scratch.resize(to.len(), 0.0);
            (self.heads[fold].run)(features, width, 0..width, scratch);
            to.iter_mut().zip(&*scratch).for_each(|(to, v)| *to += v);
        }
        let folds = self.num_folds();
        if folds > 1 && fold + 1 == folds {
            to.iter_mut().for_each(|to| *to /= folds as f32);
        }
    }

    /// The feature maps of windows of one tile.
    pub fn keep<'s>(&'s self, slab: &'s mut Slab, sink: &'s mut dyn RowSink) -> KeptFeatures<'s> {
        let rows = KeptRows::new(self.row_len());
        KeptFeatures { trunks: self, slab, sink, windows: Vec::new(), rows }
    }

    fn row_len(&self) -> usize {
        self.num_features() * self.averages.window[2]
    }
}

/// Feature maps of the windows whose voxels are not all final.
pub(crate) struct KeptFeatures<'a> {
    trunks: &'a Trunks<'a>,
    slab: &'a mut Slab,
    sink: &'a mut dyn RowSink,
    /// In the order in which they came.
    windows: Vec<KeptWindow>,
    rows: KeptRows,
}

/// What of a window lies in the slab.
struct KeptWindow {
    within: [Overlap; 3],
    /// The numbers of rows `[F, x]`, mirroring undone, by network and pass, plane and row; none where they are final.
    rows: Vec<Option<usize>>,
    /// How many there are.
    held: usize,
}

impl KeptWindow {
    /// Rows of one pass.
    fn num_rows(&self) -> usize {
        self.within[0].there.len() * self.within[1].there.len()
    }

    /// Index of a row of the volume among the rows of a pass; none where it is not under the window.
    fn at(&self, z: usize, y: usize) -> Option<usize> {
        let [planes, rows, columns] = &self.within;
        let under =
            planes.there.contains(&z) && rows.there.contains(&y) && !columns.there.is_empty();
        under.then(|| (z - planes.there.start) * rows.there.len() + y - rows.there.start)
    }
}

impl KeptFeatures<'_> {
    /// Most bytes held at a time, final rows included.
    pub fn bytes(&self) -> usize {
        self.rows.bytes() + self.slab.bytes()
    }

    /// Keeps the feature maps `[F, z, y, x]` of a pass, or their mean with those of the passes before.
    fn keep(&mut self, features: &[f32], pass: &WindowPass) {
        let window = self.trunks.averages.window;
        if pass.index > 0 && self.trunks.means_first() {
            return self.add_pass(features, pass);
        }
        if pass.fold == 0 && pass.index == 0 {
            let within = self.slab.overlap(pass.start, window);
            let (rows, held) = (Vec::new(), 0);
            self.windows.push(KeptWindow { within, rows, held });
        }
        let count = self.windows.last().map_or(0, KeptWindow::num_rows);
        let rows = self.rows.take(count);
        let last = self.windows.last_mut().expect("the first pass pushed it");
        let [planes, height, _] = &last.within;
        // By all threads: fresh memory is slow, and there is much of it.
        self.rows.rows_mut(&rows).into_par_iter().enumerate().for_each(|(index, to)| {
            let z = planes.skipped + index / height.there.len();
            let y = height.skipped + index % height.there.len();
            copy_row(features, window, (z, y), pass.flips, to);
        });
        last.held += count;
        last.rows.extend(rows.into_iter().map(Some));
    }

    /// Adds the feature maps of a later pass to the rows of the first, and divides by their number at the last.
    fn add_pass(&mut self, features: &[f32], pass: &WindowPass) {
        let window = self.trunks.averages.window;
        let last = self.windows.last_mut().expect("the first pass pushed it");
        let from = last.rows.len() - last.num_rows();
        let [planes, height, _] = &last.within;
        let divisor = (pass.index + 1 == pass.count).then_some(pass.count as f32);
        let rows: Vec<_> = last.rows[from..].iter().map(|row| row.expect(HELD)).collect();
        self.rows.rows_mut(&rows).into_par_iter().enumerate().for_each(|(index, to)| {
            let z = planes.skipped + index / height.there.len();
            let y = height.skipped + index % height.there.len();
            add_row(features, window, (z, y), pass.flips, to);
            if let Some(divisor) = divisor {
                to.iter_mut().for_each(|v| *v /= divisor);
            }
        });
    }

    /// These rows of these planes are final: nobody needs their feature maps.
    fn release(&mut self, planes: &Range<usize>, rows: &Range<usize>) {
        let kept = &mut self.rows;
        self.windows.retain_mut(|window| {
            let num_rows = window.num_rows();
            let [within_z, within_y, _] = window.within.each_ref().map(|axis| axis.there.clone());
            for z in planes.start.max(within_z.start)..planes.end.min(within_z.end) {
                for y in rows.start.max(within_y.start)..rows.end.min(within_y.end) {
                    let at = (z - within_z.start) * within_y.len() + y - within_y.start;
                    for row in window.rows.iter_mut().skip(at).step_by(num_rows) {
                        if let Some(row) = row.take() {
                            window.held -= 1;
                            kept.give_back(row);
                        }
                    }
                }
            }
            window.held > 0
        });
    }
}

impl Accumulators for KeptFeatures<'_> {
    fn advance(&mut self, _: usize) {}

    fn add(&mut self, cutter: &Cutter<'_, '_>, pass: &WindowPass) -> f64 {
        let window = cutter.window(pass.start, pass.flips);
        let forward = Moment::now();
        let features = self.trunks.features(pass.fold, window).into_data();
        let secs = forward.secs();
        self.keep(features.as_slice::<f32>().expect("features are f32"), pass);
        secs
    }

    /// They are added with the values.
    fn add_weights(&mut self, _: [usize; 3]) -> Result<f64, InferError> {
        Ok(0.0)
    }

    fn close(
        &mut self,
        planes: Range<usize>,
        rows: Range<usize>,
    ) -> Result<ControlFlow<()>, InferError> {
        let step = rows_per_piece(self.slab.bytes_of_row(), planes.len());
        for from in rows.clone().step_by(step) {
            let piece = from..(from + step).min(rows.end);
            let forming = Forming {
                trunks: self.trunks,
                windows: &self.windows,
                rows: &self.rows,
                first_column: self.slab.columns().start,
            };
            self.slab.form(planes.clone(), piece.clone(), |z, y, sums, scratch| {
                // Rows are formed one after the other, but for where threads part.
                let next = if y + 1 < piece.end { (z, y + 1) } else { (z + 1, piece.start) };
                forming.form((z, y), next, sums, scratch);
            })?;
            self.sink.rows(self.slab, planes.clone(), piece)?;
        }
        self.release(&planes, &rows);
        Ok(ControlFlow::Continue(()))
    }
}

/// Row `y` of plane `z` of each map of a window `[F, z, y, x]`, mirroring along z and y undone.
fn rows_of(
    features: &[f32],
    [depth, height, width]: [usize; 3],
    (z, y): (usize, usize),
    [flip_z, flip_y, _]: [bool; 3],
) -> impl Iterator<Item = &[f32]> {
    let z = if flip_z { depth - 1 - z } else { z };
    let y = if flip_y { height - 1 - y } else { y };
    let maps = features.chunks_exact(depth * height * width);
    maps.map(move |map| &map[(z * height + y) * width..][..width])
}

/// Copies row `y` of plane `z` of a window from `[F, z, y, x]` to `[F, x]`, mirroring undone.
fn copy_row(
    features: &[f32],
    window: [usize; 3],
    place: (usize, usize),
    flips: [bool; 3],
    to: &mut [f32],
) {
    let rows = to.chunks_exact_mut(window[2]).zip(rows_of(features, window, place, flips));
    match flips[2] {
        true => rows.for_each(|(to, from)| {
            to.iter_mut().zip(from.iter().rev()).for_each(|(to, v)| *to = *v);
        }),
        false => rows.for_each(|(to, from)| to.copy_from_slice(from)),
    }
}

/// Adds such a row.
fn add_row(
    features: &[f32],
    window: [usize; 3],
    place: (usize, usize),
    flips: [bool; 3],
    to: &mut [f32],
) {
    let rows = to.chunks_exact_mut(window[2]).zip(rows_of(features, window, place, flips));
    match flips[2] {
        true => rows.for_each(|(to, from)| {
            to.iter_mut().zip(from.iter().rev()).for_each(|(to, v)| *to += *v);
        }),
        false => rows.for_each(|(to, from)| {
            to.iter_mut().zip(from).for_each(|(to, v)| *to += *v);
        }),
    }
}

/// The mean over passes of the feature maps of one window, as they come.
#[derive(Default)]
pub(crate) struct MeanOfPasses {
    /// `[z, y, F, x]`.
    sum: Vec<f32>,
}

impl MeanOfPasses {
    /// Takes the feature maps `[F, z, y, x]` of a pass; with the last it is the mean.
    pub fn take(&mut self, features: &[f32], window: [usize; 3], pass: &WindowPass) {
        self.sum.resize(features.len(), 0.0);
        let [_, height, width] = window;
        let row = features.len() / (window[0] * height);
        debug_assert_eq!(row % width, 0, "whole rows of every map");
        let divisor = (pass.index + 1 == pass.count).then_some(pass.count as f32);
        self.sum.par_chunks_exact_mut(row).enumerate().for_each(|(index, to)| {
            let place = (index / height, index % height);
            match pass.index {
                0 => copy_row(features, window, place, pass.flips, to),
                _ => add_row(features, window, place, pass.flips, to),
            }
            if let Some(divisor) = divisor {
                to.iter_mut().for_each(|v| *v /= divisor);
            }
        });
    }

    /// Row `[F, x]`, counted through all planes.
    pub fn row(&self, index: usize, num_features: usize, width: usize) -> &[f32] {
        &self.sum[index * num_features * width..][..num_features * width]
    }
}

/// Buffers of one thread.
#[derive(Default)]
struct Scratch {
    /// Values of one pass, `[C, columns]`.
    block: Vec<f32>,
    /// Sum over the passes.
    sum: Vec<f32>,
}

impl Trunks<'_> {
    /// What adds a network's values to sums in half precision as they are computed, where nothing comes in between.
    fn added_at_once(&self, fold: usize) -> Option<&AddToHalvesFn> {
        let as_they_are = self.averages.averaging == Averaging::AsTheyAre && self.num_passes() == 1;
        self.heads[fold].add_to_halves.as_ref().filter(|_| as_they_are)
    }
}

/// Rows of the slab that are about to be formed.
struct Forming<'a> {
    trunks: &'a Trunks<'a>,
    windows: &'a [KeptWindow],
    rows: &'a KeptRows,
    first_column: usize,
}

impl Forming<'_> {
    /// Adds all passes of all windows over a row of the slab; `next` is the row that probably comes after it.
    fn form(
        &self,
        row: (usize, usize),
        next: (usize, usize),
        sums: &mut RowSums<'_>,
        scratch: &mut Scratch,
    ) {
        let first_of_next = || self.terms(next).next().and_then(|(.., features)| features);
        let mut terms = self.terms(row).peekable();
        while let Some((window, lane, features)) = terms.next() {
            let following = terms.peek().map_or_else(first_of_next, |(.., features)| *features);
            let features = (features.expect(HELD), following.unwrap_or_default());
            self.add_pass(window, row, (lane, features), sums, scratch);
        }
    }

    /// The feature maps of all passes over a row of the slab, with their window and which of its passes they are; none
    /// where nobody needs them any more.
    fn terms(
        &self,
        (z, y): (usize, usize),
    ) -> impl Iterator<Item = (&KeptWindow, usize, Option<&[f32]>)> {
        let windows =
            self.windows.iter().filter_map(move |window| Some((window, window.at(z, y)?)));
        windows.flat_map(move |(window, at)| {
            let lanes = window.rows.iter().skip(at).step_by(window.num_rows()).enumerate();
            lanes.map(move |(lane, row)| (window, lane, row.map(|row| self.rows.row(row))))
        })
    }

    /// Adds a pass, and with the last one the weights of the window.
    fn add_pass(
        &self,
        window: &KeptWindow,
        (z, y): (usize, usize),
        (lane, (features, next)): (usize, (&[f32], &[f32])),
        sums: &mut RowSums<'_>,
        scratch: &mut Scratch,
    ) {
        let Averages { num_classes, importance, window: [_, height, width], .. } =
            &self.trunks.averages;
        let [planes, rows, columns] = &window.within;
        let within = columns.skipped..columns.skipped + columns.there.len();
        let importance = importance.as_ref().map(|map| {
            let z = planes.skipped + z - planes.there.start;
            let y = rows.skipped + y - rows.there.start;
            &map[(z * height + y) * width..][within.clone()]
        });
        let column = columns.there.start - self.first_column;
        let num_passes = self.trunks.num_passes();
        let (fold, index) = (lane / num_passes, lane % num_passes);
        if let Some(add) = self.trunks.added_at_once(fold)
            && let Some((values, pitch)) = sums.halves(fold, column)
        {
            let to = HalfSums { values, pitch, factors: importance, next };
            add(features, *width, within.clone(), to);
        } else {
            scratch.block.resize(num_classes * within.len(), 0.0);
            (self.trunks.heads[fold].run)(features, *width, within.clone(), &mut scratch.block);
            let trunks = self.trunks;
            wide(AddPass { trunks, index, fold, column, importance, sums, scratch });
        }
        if lane + 1 == self.trunks.num_folds() * num_passes {
            sums.add_weights(column..column + within.len(), importance);
        }
    }
}

/// Adds the values of a pass to the sum over passes, and their average to the row.
struct AddPass<'a, 'r> {
    trunks: &'a Trunks<'a>,
    index: usize,
    fold: usize,
    column: usize,
    importance: Option<&'a [f32]>,
    sums: &'a mut RowSums<'r>,
    scratch: &'a mut Scratch,
}

impl Work for AddPass<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Averages { averaging, num_classes, .. } = self.trunks.averages;
        let num_passes = self.trunks.num_passes();
        let Scratch { block, sum } = self.scratch;
        let columns = block.len() / num_classes;
        if averaging == Averaging::Probabilities {
            softmax(block, columns);
        }
        if num_passes > 1 {
            sum.resize(block.len(), 0.0);
            average(averaging, [self.index, num_passes], sum, block);
        }
        if self.index + 1 < num_passes {
            return;
        }
        for (class, values) in block.chunks_exact(columns).enumerate() {
            self.sums.add((self.fold, class, self.column), values, self.importance);
        }
    }
}
