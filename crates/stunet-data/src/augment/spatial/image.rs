//! Images at rotated and scaled positions.

use super::spline::{GAIN, HORIZON, prefilter, weights};
use super::{Crop, Positions, Row};
use ndarray::{Array3, Array4, ArrayViewMut3, Axis, s};

/// Voxels added before and behind the part of a crop that is read: the neighbours of its edges.
pub(super) const BEFORE: usize = 1;
pub(super) const BEHIND: usize = 2;

/// Cubic; 0 beyond the centres of the crop's outermost voxels.
pub(super) fn cubic(crop: &Crop<'_>, positions: &Positions, flat: bool) -> Array4<f32> {
    let first_axis = usize::from(flat);
    let prepare = |padded: &mut Array3<f32>| {
        prefilter(&mut inner(padded), first_axis);
        mirror_edges(padded, first_axis);
    };
    let (_, size) = positions.reachable(HORIZON + 2);
    let filtered = size[first_axis..].iter().filter(|n| **n > 1).count();
    let gain = GAIN.powi(filtered as i32);
    each_channel(crop, positions, HORIZON + 2, prepare, |source, row, output| {
        if flat {
            source.cubic_row::<1>(row, gain, output);
        } else {
            source.cubic_row::<4>(row, gain, output);
        }
    })
}

/// Linear; fades to 0 beyond the centres of the crop's outermost voxels.
pub(super) fn linear(crop: &Crop<'_>, positions: &Positions) -> Array4<f32> {
    each_channel(crop, positions, 1, |_| (), |source, row, output| source.linear_row(row, output))
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
        padded.fill(0.0);
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
        for (x, output) in output.iter_mut().enumerate() {
            let p = row.at(x);
            if !(0..3).all(|axis| (0.0..=self.last[axis]).contains(&p[axis])) {
                *output = 0.0;
                continue;
            }
            // Positions are not negative: truncation rounds down.
            let whole = p.map(|p| p as i32);
            let t: [f32; 3] = std::array::from_fn(|axis| (p[axis] - f64::from(whole[axis])) as f32);
            let [wy, wx] = [weights(t[1]), weights(t[2])];
            let wz: [f32; NZ] = if NZ == 1 {
                [1.0; NZ]
            } else {
                let w = weights(t[0]);
                std::array::from_fn(|k| w[k])
            };
            let at = |axis: usize| whole[axis] as usize - self.first[axis];
            // The first of four neighbours lies one before, as do the voxels added before the edge.
            let z = if NZ == 1 { at(0) + BEFORE } else { at(0) };
            let start = z * plane + at(1) * line + at(2);
            let mut sum = [0f32; 4];
            for (dz, wz) in wz.iter().enumerate() {
                let rows = &self.values[start + dz * plane..];
                let rows = &rows[..3 * line + 4];
                for (dy, wy) in wy.iter().enumerate() {
                    let weight = wz * wy;
                    let four = &rows[dy * line..dy * line + 4];
                    sum.iter_mut().zip(four).for_each(|(s, v)| *s += weight * v);
                }
            }
            *output = gain * (sum[0] * wx[0] + sum[1] * wx[1] + (sum[2] * wx[2] + sum[3] * wx[3]));
        }
    }

    #[inline(always)]
    fn linear_row(&self, row: &Row, output: &mut [f32]) {
        let [plane, line] = self.strides;
        for (x, output) in output.iter_mut().enumerate() {
            let p = row.at(x);
            if !(0..3).all(|axis| p[axis] > -1.0 && p[axis] < self.last[axis] + 1.0) {
                *output = 0.0;
                continue;
            }
            // One added, positions are positive: truncation rounds down.
            let whole = p.map(|p| (p + 1.0) as i32);
            let t: [f32; 3] =
                std::array::from_fn(|axis| (p[axis] + 1.0 - f64::from(whole[axis])) as f32);
            let at = |axis: usize| whole[axis] as usize - self.first[axis];
            let start = at(0) * plane + at(1) * line + at(2);
            let pair = |offset: usize| {
                let pair = &self.values[start + offset..start + offset + 2];
                pair[0] + t[2] * (pair[1] - pair[0])
            };
            let mix = |a: f32, b: f32, t: f32| a + t * (b - a);
            let near = mix(pair(0), pair(line), t[1]);
            let far = mix(pair(plane), pair(plane + line), t[1]);
            *output = mix(near, far, t[0]);
        }
    }
}
