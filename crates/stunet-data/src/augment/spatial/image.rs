//! Images at rotated and scaled positions.

use super::spline::{GAIN, HORIZON, prefilter, weights};
use super::{Crop, LANES, Positions, Row};
use ndarray::{Array3, Array4, ArrayViewMut3, Axis, s};

/// Voxels added before and behind the part of a crop that is read: the neighbours of its edges.
pub(super) const BEFORE: usize = 1;
pub(super) const BEHIND: usize = 2;

/// How far around the positions voxels are read: what the prefilter of the spline still feels.
pub(super) const CUBIC_MARGIN: usize = HORIZON + 2;
/// The same for linear interpolation, and for labels.
pub(super) const LINEAR_MARGIN: usize = 1;

/// Cubic; 0 beyond the centres of the crop's outermost voxels.
pub(super) fn cubic(crop: &Crop<'_>, positions: &Positions, flat: bool) -> Array4<f32> {
    let first_axis = usize::from(flat);
    let prepare = |padded: &mut Array3<f32>| {
        prefilter(&mut inner(padded), first_axis);
        mirror_edges(padded, first_axis);
    };
    let (_, size) = positions.reachable(CUBIC_MARGIN);
    let filtered = size[first_axis..].iter().filter(|n| **n > 1).count();
    let gain = GAIN.powi(filtered as i32);
    each_channel(crop, positions, CUBIC_MARGIN, prepare, |source, row, output| {
        if flat {
            source.cubic_row::<1>(row, gain, output);
        } else {
            source.cubic_row::<4>(row, gain, output);
        }
    })
}

/// Linear; fades to 0 beyond the centres of the crop's outermost voxels.
pub(super) fn linear(crop: &Crop<'_>, positions: &Positions) -> Array4<f32> {
    each_channel(
        crop,
        positions,
        LINEAR_MARGIN,
        |_| (),
        |source, row, output| source.linear_row(row, output),
    )
}

/// The part of a channel that positions reach, with its neighbours.
struct Source<'a> {
    values: &'a [f32],
    /// Distance of planes and of rows.
    strides: [usize; 2],
    /// First voxel of the crop in `values`, after `BEFORE` neighbours.
    first: [usize; 3],
    /// Last voxel of the crop along each axis.
    last: [f64; 3],
}

fn each_channel(
    crop: &Crop<'_>,
    positions: &Positions,
    margin: usize,
    prepare: impl Fn(&mut Array3<f32>),
    run: impl Fn(&Source<'_>, &Row, &mut [f32]),
) -> Array4<f32> {
    let (first, size) = positions.reachable(margin);
    let [z, y, x] = positions.patch_size;
    let mut output = Array4::zeros([crop.image.shape()[0], z, y, x]);
    let padded_size = size.map(|n| n + BEFORE + BEHIND);
    let mut padded = Array3::zeros(padded_size);
    for (channel, mut output) in output.outer_iter_mut().enumerate() {
        if channel > 0 {
            padded.fill(0.0);
        }
        crop.read_channel(channel, first, inner(&mut padded));
        prepare(&mut padded);
        let source = Source {
            values: padded.as_slice().expect("a fresh array is contiguous"),
            strides: [padded_size[1] * padded_size[2], padded_size[2]],
            first,
            last: positions.last(),
        };
        for (z, mut plane) in output.outer_iter_mut().enumerate() {
            for (y, mut row) in plane.outer_iter_mut().enumerate() {
                let row = row.as_slice_mut().expect("a fresh array is contiguous");
                run(&source, &positions.row(z, y), row);
            }
        }
    }
    output
}

/// Without the neighbours.
fn inner(padded: &mut Array3<f32>) -> ArrayViewMut3<'_, f32> {
    let end = -(BEHIND as isize);
    padded.slice_mut(s![BEFORE as isize..end, BEFORE as isize..end, BEFORE as isize..end])
}

/// Neighbours beyond the edges, mirrored about the outermost voxels.
fn mirror_edges(padded: &mut Array3<f32>, first_axis: usize) {
    for axis in (first_axis..3).map(Axis) {
        let n = (padded.len_of(axis) - BEFORE - BEHIND) as isize;
        let fold = |i: isize| {
            let period = (2 * (n - 1)).max(1);
            let i = i.rem_euclid(period);
            i.min(period - i).min(n - 1)
        };
        for i in [-1, n, n + 1] {
            let from = padded.index_axis(axis, (fold(i) + 1) as usize).to_owned();
            padded.index_axis_mut(axis, (i + 1) as usize).assign(&from);
        }
    }
}

impl Source<'_> {
    /// With `NZ` of 4 in three axes, with 1 within the slice that the position lies in.
    #[inline(always)]
    fn cubic_row<const NZ: usize>(&self, row: &Row, gain: f32, output: &mut [f32]) {
        let [plane, line] = self.strides;
        // The first of four neighbours lies one before, as do the voxels added before the edge.
        // Within a slice, it is the slice itself.
        let shift = if NZ == 1 { [BEFORE, 0, 0] } else { [0; 3] };
        for (chunk, output) in output.chunks_mut(LANES).enumerate() {
            let lanes = row.lanes(chunk * LANES, 0.0, self.last);
            let [wz, wy, wx] = lanes.t.map(side_by_side);
            for (lane, output) in output.iter_mut().enumerate() {
                let at =
                    |axis: usize| lanes.whole[axis][lane] as usize + shift[axis] - self.first[axis];
                let start = at(0) * plane + at(1) * line + at(2);
                let mut sum = [0f32; 4];
                for (dz, wz) in wz.iter().enumerate().take(NZ) {
                    let wz = if NZ == 1 { 1.0 } else { wz[lane] };
                    let rows = &self.values[start + dz * plane..][..3 * line + 4];
                    for (dy, wy) in wy.iter().enumerate() {
                        let weight = wz * wy[lane];
                        let four = &rows[dy * line..][..4];
                        sum.iter_mut().zip(four).for_each(|(s, v)| *s += weight * v);
                    }
                }
                let along = |k: usize| sum[k] * wx[k][lane];
                let sum = gain * ((along(0) + along(1)) + (along(2) + along(3)));
                *output = if lanes.inside[lane] { sum } else { 0.0 };
            }
        }
    }

    #[inline(always)]
    fn linear_row(&self, row: &Row, output: &mut [f32]) {
        let [plane, line] = self.strides;
        let high = self.last.map(|last| last + 1.0);
        for (chunk, output) in output.chunks_mut(LANES).enumerate() {
            // From the voxel before the first one to the one behind the last: both are 0.
            let lanes = row.lanes(chunk * LANES, -1.0, high);
            for (lane, output) in output.iter_mut().enumerate() {
                let at = |axis: usize| lanes.whole[axis][lane] as usize - self.first[axis];
                let t = lanes.t.map(|t| t[lane] as f32);
                let values = &self.values[at(0) * plane + at(1) * line + at(2)..];
                let values = &values[..plane + line + 2];
                let mix = |a: f32, b: f32, t: f32| a + t * (b - a);
                let pair = |offset: usize| mix(values[offset], values[offset + 1], t[2]);
                let near = mix(pair(0), pair(line), t[1]);
                let far = mix(pair(plane), pair(plane + line), t[1]);
                *output = if lanes.inside[lane] { mix(near, far, t[0]) } else { 0.0 };
            }
        }
    }
}

/// Cubic weights of `LANES` positions.
#[inline(always)]
fn side_by_side(t: [f64; LANES]) -> [[f32; LANES]; 4] {
    let w = t.map(|t| weights(t as f32));
    std::array::from_fn(|k| w.map(|w| w[k]))
}
