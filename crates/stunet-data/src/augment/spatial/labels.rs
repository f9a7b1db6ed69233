//! Labels at rotated and scaled positions: one pass, whatever the number of labels.

use super::image::{BEFORE, BEHIND, LINEAR_MARGIN};
use super::{Crop, LANES, LabelOrder, Positions, Row, Spatial};
use crate::augment::crop::OUTSIDE;
use crate::preprocess::resample::LabelRule;
use half::f16;
use ndarray::{Array3, s};

/// Label that v1 leaves beyond the centres of the crop's outermost voxels: the indicator of every
/// label is -1 there, so that none reaches one half.
const NO_LABEL: i16 = 0;

pub(super) fn transform(crop: &Crop<'_>, positions: &Positions, spatial: &Spatial) -> Array3<i16> {
    let (first, size) = positions.reachable(LINEAR_MARGIN);
    let padded_size = size.map(|n| n + BEFORE + BEHIND);
    let mut padded = Array3::from_elem(padded_size, OUTSIDE);
    let end = -(BEHIND as isize);
    let from = BEFORE as isize;
    crop.read_labels(first, padded.slice_mut(s![from..end, from..end, from..end]));
    let labels = padded.as_slice().expect("a fresh array is contiguous");
    let strides = [padded_size[1] * padded_size[2], padded_size[2]];
    let source = Source {
        labels,
        uniform: uniform(labels, strides),
        strides,
        first,
        last: positions.last(),
    };
    let mut output = Array3::zeros(positions.patch_size);
    for (z, mut plane) in output.outer_iter_mut().enumerate() {
        for (y, mut row) in plane.outer_iter_mut().enumerate() {
            let output = row.as_slice_mut().expect("a fresh array is contiguous");
            let row = positions.row(z, y);
            match (spatial.label_order, spatial.flavour.label_rule) {
                (LabelOrder::Nearest, _) | (_, LabelRule::Nearest) => {
                    source.nearest_row(&row, output)
                }
                (_, LabelRule::LastAboveHalf) => source.above_half_row(&row, output),
                (_, LabelRule::LargestShare) => source.largest_share_row(&row, output),
            }
        }
    }
    output
}

struct Source<'a> {
    labels: &'a [i16],
    /// Whether a voxel and the seven behind it share one label.
    uniform: Vec<bool>,
    strides: [usize; 2],
    first: [usize; 3],
    last: [f64; 3],
}

/// The eight labels around a position in raster order, and how far it is from the lower ones.
struct Corners {
    labels: [i16; 8],
    t: [f64; 3],
}

impl Source<'_> {
    fn nearest_row(&self, row: &Row, output: &mut [i16]) {
        let [plane, line] = self.strides;
        for (x, output) in output.iter_mut().enumerate() {
            let p = row.at(x);
            *output = if self.is_inside(p) {
                let at = |axis: usize| (p[axis] + 0.5) as usize + BEFORE - self.first[axis];
                self.labels[at(0) * plane + at(1) * line + at(2)]
            } else {
                OUTSIDE
            };
        }
    }

    /// The largest label with a share of at least one half.
    fn above_half_row(&self, row: &Row, output: &mut [i16]) {
        self.row(row, 0.0, self.last, NO_LABEL, output, |corners, _| corners.above_half());
    }

    /// The label with the largest share; beyond the crop everything is labelled -1.
    fn largest_share_row(&self, row: &Row, output: &mut [i16]) {
        let high = self.last.map(|last| last + 1.0);
        self.row(row, -1.0, high, OUTSIDE, output, |corners, p| {
            let rounded = std::array::from_fn(|axis| in_single_precision(p[axis], high[axis]));
            corners.largest_share(p, rounded)
        });
    }

    /// Where all eight labels around a position are one label, that is it; else `decide`.
    #[inline(always)]
    fn row(
        &self,
        row: &Row,
        low: f64,
        high: [f64; 3],
        outside: i16,
        output: &mut [i16],
        decide: impl Fn(&Corners, [f64; 3]) -> i16,
    ) {
        let [plane, line] = self.strides;
        // Labels lie one behind the position's voxel: those added before the edge.
        let shift = (low + 1.0) as usize * BEFORE;
        for (chunk, output) in output.chunks_mut(LANES).enumerate() {
            let lanes = row.lanes(chunk * LANES, low, high);
            for (lane, output) in output.iter_mut().enumerate() {
                let at = |axis: usize| lanes.whole[axis][lane] as usize + shift - self.first[axis];
                let start = at(0) * plane + at(1) * line + at(2);
                *output = match (lanes.inside[lane], self.uniform[start]) {
                    (false, _) => outside,
                    (true, true) => self.labels[start],
                    (true, false) => {
                        let corners = self.corners(start, lanes.t.map(|t| t[lane]));
                        decide(&corners, row.at(chunk * LANES + lane))
                    }
                };
            }
        }
    }

    fn is_inside(&self, p: [f64; 3]) -> bool {
        (0..3).all(|axis| (0.0..=self.last[axis]).contains(&p[axis]))
    }

    fn corners(&self, start: usize, t: [f64; 3]) -> Corners {
        let [plane, line] = self.strides;
        let at = |i: usize| self.labels[start + (i >> 2) * plane + (i >> 1 & 1) * line + (i & 1)];
        Corners { labels: std::array::from_fn(at), t }
    }
}

/// The voxel nearest to a position among `n`, by the reference's arithmetic: exactly between two
/// voxels, where ties are common, its rounding decides.
fn in_single_precision(p: f64, n: f64) -> f64 {
    let from_centre = (p - (n / 2.0 - 0.5)) as f32;
    let (half, n) = ((n / 2.0) as f32, n as f32);
    f64::from((((from_centre / half + 1.0) * n - 1.0) / 2.0).round_ties_even())
}

/// True at voxels whose label is also that of the seven behind it; the last plane is left out.
#[allow(clippy::needless_range_loop, reason = "eight rows at once")]
fn uniform(labels: &[i16], [plane, line]: [usize; 2]) -> Vec<bool> {
    let mut uniform = vec![false; labels.len()];
    let reach = plane + line + 1;
    let count = labels.len().saturating_sub(reach);
    for (block, output) in uniform[..count].chunks_mut(line).enumerate() {
        let width = output.len();
        let row = |offset: usize| &labels[block * line + offset..][..width];
        let (a, b, c, d) = (row(0), row(1), row(line), row(line + 1));
        let (e, f, g, h) = (row(plane), row(plane + 1), row(plane + line), row(reach));
        for i in 0..width {
            let v = a[i];
            let differ = (v ^ b[i]) | (v ^ c[i]) | (v ^ d[i]) | (v ^ e[i]);
            output[i] = differ | (v ^ f[i]) | (v ^ g[i]) | (v ^ h[i]) == 0;
        }
    }
    uniform
}

impl Corners {
    fn weights(&self) -> [f64; 8] {
        let side = |axis: usize, upper: usize| {
            if upper == 1 { self.t[axis] } else { 1.0 - self.t[axis] }
        };
        std::array::from_fn(|i| side(0, i >> 2 & 1) * side(1, i >> 1 & 1) * side(2, i & 1))
    }

    fn above_half(&self) -> i16 {
        let weights = self.weights();
        let mut best: Option<i16> = None;
        for label in self.labels {
            if best.is_some_and(|best| best >= label) {
                continue;
            }
            let parts = self.labels.iter().zip(&weights);
            let share = parts.fold(0.0, |sum, (l, w)| if *l == label { sum + w } else { sum });
            if share >= 0.5 {
                best = Some(label);
            }
        }
        best.unwrap_or(NO_LABEL)
    }

    /// Shares are compared as thousandths in half precision, so that near ties are ties; the nearest
    /// voxel's label settles those it takes part in, the smallest label the others.
    fn largest_share(&self, p: [f64; 3], nearest: [f64; 3]) -> i16 {
        let weights = self.weights();
        let share = |label: i16| {
            let parts = self.labels.iter().zip(&weights);
            let sum = parts.fold(
                0f32,
                |sum, (l, w)| {
                    if *l == label { sum + 1000.0 * *w as f32 } else { sum }
                },
            );
            f16::from_f32(sum)
        };
        let mut best = (share(self.labels[0]), self.labels[0]);
        for label in self.labels[1..].iter().copied() {
            let share = share(label);
            if share > best.0 || (share == best.0 && label < best.1) {
                best = (share, label);
            }
        }
        let upper: [usize; 3] = std::array::from_fn(|axis| {
            let lower = p[axis] - self.t[axis];
            usize::from(nearest[axis] > lower + 0.25)
        });
        let nearest = self.labels[upper[0] << 2 | upper[1] << 1 | upper[2]];
        if share(nearest) == best.0 { nearest } else { best.1 }
    }
}
