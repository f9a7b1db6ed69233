//! The running sum of overlapping windows, held only where windows still overlap.
//!
//! Windows are visited with z outermost, so every plane below the start of the next window is
//! final. The slab is a ring of as many planes as a window has: when the windows move on, the
//! planes left behind are divided by their weights and handed out, and their room is used again.
//! Memory is `classes * window planes * plane`, whatever the height of the volume.
//!
//! # Source
//! The sums are those of nnU-Net 1.7.1 `_internal_predict_3D_3Dconv_tiled` (f32) and of
//! nnU-Net 2.2 and 2.8 `predict_sliding_window_return_logits` (half precision).

use crate::error::InferError;
use half::f16;
use half::slice::HalfFloatSliceExt;
use rayon::prelude::*;
use stunet_data::plans::Accumulation;

/// A ring of planes `[C, Y, X]`, with a ring of weights `[Y, X]` beside it.
#[derive(Debug)]
pub struct Slab {
    num_classes: usize,
    plane: [usize; 2],
    depth: usize,
    first: usize,
    lanes: Vec<Lane>,
    weights: Vec<f32>,
    num_folds: usize,
}

/// The values of one fold, or of all folds where their order cannot matter beyond rounding.
#[derive(Debug)]
enum Lane {
    Single(Vec<f32>),
    /// Rounded to half precision after every window, as the reference's accumulators are.
    Half(Vec<f16>),
}

impl Slab {
    /// An empty slab for windows of `window` voxels in planes of `plane` voxels.
    ///
    /// With f32 accumulation all folds share one sum (f32 sums of windows, then of folds, instead
    /// of the other way round: the last digit may differ); with f16 each fold has its own, because
    /// the reference rounds every fold's quotient before it adds the next fold.
    ///
    /// # Shapes
    /// `plane` is `[y, x]`, padding included.
    pub fn new(
        num_classes: usize,
        window_depth: usize,
        plane: [usize; 2],
        num_folds: usize,
        accumulation: Accumulation,
    ) -> Self {
        let voxels = window_depth * plane[0] * plane[1];
        let lanes = match accumulation {
            Accumulation::F32 => vec![Lane::Single(vec![0.0; num_classes * voxels])],
            Accumulation::F16 => {
                (0..num_folds).map(|_| Lane::Half(vec![f16::ZERO; num_classes * voxels])).collect()
            }
        };
        Self {
            num_classes,
            plane,
            depth: window_depth,
            first: 0,
            lanes,
            weights: vec![0.0; voxels],
            num_folds,
        }
    }

    /// The lowest plane that is still open.
    pub fn first_open(&self) -> usize {
        self.first
    }

    /// Bytes held: `(classes * bytes per value * sums + 4) * window planes * plane`.
    pub fn bytes(&self) -> usize {
        let lane = |lane: &Lane| match lane {
            Lane::Single(values) => size_of_val(values.as_slice()),
            Lane::Half(values) => size_of_val(values.as_slice()),
        };
        self.lanes.iter().map(lane).sum::<usize>() + size_of_val(self.weights.as_slice())
    }

    /// Calls `fill` in parallel with every plane a window at `start_z` covers: its index within
    /// the window, and the plane of fold `fold` to add to.
    ///
    /// # Panics
    /// When a plane of the window is already closed or does not fit in the ring.
    pub(crate) fn planes<'a>(
        &'a mut self,
        fold: usize,
        start_z: usize,
    ) -> impl IndexedParallelIterator<Item = PlaneSum<'a>> {
        assert_eq!(start_z, self.first, "windows begin at the lowest open plane");
        let [_, width] = self.plane;
        let voxels = self.plane[0] * self.plane[1];
        let length = self.num_classes * voxels;
        let slot = start_z % self.depth;
        let lane = fold.min(self.lanes.len() - 1);
        let values: Vec<PlaneValues<'a>> = match &mut self.lanes[lane] {
            Lane::Single(ring) => rotate(ring, slot * length)
                .flat_map(|part| part.chunks_exact_mut(length))
                .map(PlaneValues::Single)
                .collect(),
            Lane::Half(ring) => rotate(ring, slot * length)
                .flat_map(|part| part.chunks_exact_mut(length))
                .map(PlaneValues::Half)
                .collect(),
        };
        values.into_par_iter().map(move |values| PlaneSum { values, voxels, width })
    }

    /// Adds the weights of a window at `start`: the importance map, or 1 without one.
    ///
    /// # Shapes
    /// `importance` is `[z, y, x]` of the size `window`, contiguous.
    pub(crate) fn add_weights(
        &mut self,
        start: [usize; 3],
        window: [usize; 3],
        importance: Option<&[f32]>,
    ) {
        let [height, width] = self.plane;
        let half = matches!(self.lanes[0], Lane::Half(_));
        let slot = start[0] % self.depth;
        let planes: Vec<&mut [f32]> = rotate(&mut self.weights, slot * height * width)
            .flat_map(|part| part.chunks_exact_mut(height * width))
            .collect();
        planes.into_par_iter().enumerate().for_each(|(z, plane)| {
            for y in 0..window[1] {
                let at = (start[1] + y) * width + start[2];
                let row = &mut plane[at..at + window[2]];
                let from = (z * window[1] + y) * window[2];
                match importance {
                    Some(map) => {
                        let map = &map[from..from + window[2]];
                        row.iter_mut().zip(map).for_each(|(w, g)| *w += g);
                    }
                    None => row.iter_mut().for_each(|w| *w += 1.0),
                }
                if half {
                    row.iter_mut().for_each(|w| *w = f16::from_f32(*w).to_f32());
                }
            }
        });
    }

    /// Divides the lowest open plane by its weights, writes its part within `rows` and `columns`
    /// to `out` and closes it.
    ///
    /// # Shapes
    /// `out` is `[C, rows, columns]`.
    ///
    /// # Errors
    /// When a value is not finite: [`InferError::HalfPrecisionOverflow`] or
    /// [`InferError::NotFinite`].
    pub fn close_plane(
        &mut self,
        rows: std::ops::Range<usize>,
        columns: std::ops::Range<usize>,
        out: &mut [f32],
    ) -> Result<(), InferError> {
        let [height, width] = self.plane;
        let voxels = height * width;
        let slot = self.first % self.depth;
        let half = matches!(self.lanes[0], Lane::Half(_));
        let weights = &mut self.weights[slot * voxels..(slot + 1) * voxels];
        let closing = Closing { weights, width, rows, columns, half };
        let range = slot * self.num_classes * voxels..(slot + 1) * self.num_classes * voxels;
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            match lane {
                Lane::Single(ring) => {
                    closing.close(&mut ring[range.clone()], index == 0, out, |from, to| {
                        to.copy_from_slice(from);
                    });
                }
                Lane::Half(ring) => {
                    closing.close(&mut ring[range.clone()], index == 0, out, |from, to| {
                        from.convert_to_f32_slice(to);
                    });
                }
            }
        }
        weights.fill(0.0);
        let finite = average(out, self.num_folds, half);
        let plane = self.first;
        self.first += 1;
        match (finite, half) {
            (true, _) => Ok(()),
            (false, true) => Err(InferError::HalfPrecisionOverflow { plane }),
            (false, false) => Err(InferError::NotFinite { plane }),
        }
    }
}

/// A plane that is being divided by its weights.
struct Closing<'a> {
    weights: &'a [f32],
    width: usize,
    rows: std::ops::Range<usize>,
    columns: std::ops::Range<usize>,
    half: bool,
}

impl Closing<'_> {
    /// Divides the sums of one lane, writes the quotients to `out` (or adds them, from the second
    /// fold on), and empties the sums.
    fn close<T: Copy + Default + Send + Sync>(
        &self,
        sums: &mut [T],
        first: bool,
        out: &mut [f32],
        widen: impl Fn(&[T], &mut [f32]) + Sync,
    ) {
        let num_columns = self.columns.len();
        let classes = sums.par_chunks_exact_mut(self.weights.len());
        let outs = out.par_chunks_exact_mut(self.rows.len() * num_columns);
        classes.zip(outs).for_each(|(sums, out)| {
            let mut quotients = vec![0.0; num_columns];
            for (y, out) in self.rows.clone().zip(out.chunks_exact_mut(num_columns)) {
                let at = y * self.width + self.columns.start;
                widen(&sums[at..at + num_columns], &mut quotients);
                let weights = &self.weights[at..at + num_columns];
                quotients.iter_mut().zip(weights).for_each(|(v, w)| *v = self.round(*v / w));
                if first {
                    out.copy_from_slice(&quotients);
                } else {
                    out.iter_mut().zip(&quotients).for_each(|(o, v)| *o = self.round(*o + v));
                }
            }
            sums.fill(T::default());
        });
    }

    fn round(&self, value: f32) -> f32 {
        if self.half { f16::from_f32(value).to_f32() } else { value }
    }
}

/// Divides by the number of folds; false when a value is not finite.
fn average(values: &mut [f32], num_folds: usize, half: bool) -> bool {
    let parts = values.par_chunks_mut(1 << 14).map(|part| {
        if num_folds > 1 {
            part.iter_mut().for_each(|v| *v /= num_folds as f32);
            if half {
                part.iter_mut().for_each(|v| *v = f16::from_f32(*v).to_f32());
            }
        }
        part.iter().all(|v| v.is_finite())
    });
    parts.reduce(|| true, |a, b| a && b)
}

/// The parts of a ring in order, beginning at `at`.
fn rotate<T>(ring: &mut [T], at: usize) -> impl Iterator<Item = &mut [T]> {
    let (end, begin) = ring.split_at_mut(at);
    [begin, end].into_iter()
}

/// One open plane of a fold's sum.
pub(crate) struct PlaneSum<'a> {
    values: PlaneValues<'a>,
    voxels: usize,
    width: usize,
}

enum PlaneValues<'a> {
    Single(&'a mut [f32]),
    Half(&'a mut [f16]),
}

impl PlaneSum<'_> {
    /// Adds `values`, times `importance` where there is one, to the row of `class` that begins at
    /// (`y`, `x`).
    ///
    /// The product and the sum are formed in f32; half-precision sums are rounded once per window.
    pub(crate) fn add_row(
        &mut self,
        class: usize,
        [y, x]: [usize; 2],
        values: &[f32],
        importance: Option<&[f32]>,
        scratch: &mut Vec<f32>,
    ) {
        let at = class * self.voxels + y * self.width + x;
        match &mut self.values {
            PlaneValues::Single(plane) => {
                add_weighted(&mut plane[at..at + values.len()], values, importance);
            }
            PlaneValues::Half(plane) => {
                let row = &mut plane[at..at + values.len()];
                scratch.resize(values.len(), 0.0);
                row.convert_to_f32_slice(scratch);
                add_weighted(scratch, values, importance);
                row.convert_from_f32_slice(scratch);
            }
        }
    }
}

fn add_weighted(sums: &mut [f32], values: &[f32], importance: Option<&[f32]>) {
    match importance {
        Some(map) => {
            let terms = sums.iter_mut().zip(values).zip(map);
            terms.for_each(|((s, v), g)| *s += v * g);
        }
        None => sums.iter_mut().zip(values).for_each(|(s, v)| *s += v),
    }
}
