//! Convolution of few input channels at stride 1: the stem.
//!
//! There is too little to sum for each output to pay for moving channels innermost and back; what such
//! a layer waits for is the memory of its outputs. So all stays in channel planes. A task copies the
//! rows it needs into a padded buffer, which stays in the first cache and where every tap is the same
//! rows a little further on, and sweeps register tiles of output channels × voxels along them. Outputs
//! are written once, past the caches where they are many.

mod backward;
mod forward;

pub(super) use backward::weight_gradient;
pub(super) use forward::forward;

use super::Shape;
use super::ends::Source;

/// Input channels above which moving them innermost pays.
const INPUTS: usize = 4;
/// Values of a padded buffer, about: it shares the first cache with the rows that are written.
const PADDED: usize = 5 << 10;

/// Whether this is the faster way to compute a convolution and the gradient of its weights.
pub(super) fn pays(shape: &Shape) -> bool {
    shape.inputs <= INPUTS && shape.stride == [1; 3]
}

/// A cut of a volume into strips, some rows of one plane, and the layout of what a strip reads:
/// `[input][plane][row][column]`, one voxel of padding on every side.
#[derive(Clone, Copy)]
struct Strips {
    inputs: usize,
    size: [usize; 3],
    /// Rows of a strip.
    rows: usize,
    /// Columns that are computed, those behind the volume's end included: whole vectors.
    columns: usize,
}

/// Rows `y..y + rows` of a plane.
#[derive(Clone, Copy)]
struct Strip {
    sample: usize,
    z: usize,
    y: usize,
    rows: usize,
}

impl Strips {
    /// Depends on sizes alone, never on the threads.
    fn new(shape: &Shape, lanes: usize) -> Self {
        let columns = shape.size[2].next_multiple_of(lanes);
        let rows = (PADDED / (3 * shape.inputs * (columns + 2))).saturating_sub(2);
        let rows = rows.clamp(1, 16).min(shape.size[1]);
        Self { inputs: shape.inputs, size: shape.size, rows, columns }
    }

    /// Strips of `batch` samples.
    fn count(&self, batch: usize) -> usize {
        batch * self.size[0] * self.size[1].div_ceil(self.rows)
    }

    /// Strip `index` of [`count`](Self::count).
    fn get(&self, index: usize) -> Strip {
        let per_plane = self.size[1].div_ceil(self.rows);
        let (plane, y) = (index / per_plane, index % per_plane * self.rows);
        let rows = self.rows.min(self.size[1] - y);
        Strip { sample: plane / self.size[0], z: plane % self.size[0], y, rows }
    }

    /// Values from one row of the buffer to the next.
    #[inline(always)]
    fn pitch(&self) -> usize {
        self.columns + 2
    }

    /// Values of one input's plane in the buffer.
    #[inline(always)]
    fn plane_len(&self) -> usize {
        (self.rows + 2) * self.pitch()
    }

    /// Values of the buffer.
    fn len(&self) -> usize {
        3 * self.inputs * self.plane_len()
    }

    /// Where each tap of each input reads for the first voxel of a strip, `[input][tap]`; returns how
    /// many there are.
    fn offsets(&self) -> ([usize; 27 * INPUTS], usize) {
        let mut offsets = [0; 27 * INPUTS];
        let count = 27 * self.inputs;
        for (index, offset) in offsets[..count].iter_mut().enumerate() {
            let (row, column) = (index / 3 % 3, index % 3);
            *offset = index / 9 * self.plane_len() + row * self.pitch() + column;
        }
        (offsets, count)
    }

    /// Writes what a strip reads into the buffer, zeros where the volume ends.
    fn pad(&self, source: Source<'_>, strip: Strip, to: &mut [f32]) {
        let [size_z, size_y, size_x] = self.size;
        for (index, plane) in to.chunks_exact_mut(self.plane_len()).enumerate() {
            let volume = source.channel(strip.sample, index / 3);
            let z = (strip.z + index % 3).checked_sub(1).filter(|z| *z < size_z);
            for (row, to) in plane.chunks_exact_mut(self.pitch()).enumerate() {
                let y = (strip.y + row).checked_sub(1).filter(|y| *y < size_y);
                let (Some(z), Some(y)) = (z, y) else {
                    to.fill(0.0);
                    continue;
                };
                to[0] = 0.0;
                to[1..][..size_x].copy_from_slice(&volume[(z * size_y + y) * size_x..][..size_x]);
                to[1 + size_x..].fill(0.0);
            }
        }
    }
}
