//! Which voxels a convolution reads for which it writes, and how the work is cut into strips.

use super::Shape;

/// Channels that lie together in a buffer.
pub(super) const CHANNELS: usize = 16;
/// Blocks of input channels gathered at a time, at most.
pub(super) const GROUP: usize = 4;
/// Bytes of a strip's buffers, about: they share the second cache with a block of weights.
const STRIP_BYTES: usize = 448 << 10;

/// One weight of the kernel: where it reads, relative to where it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tap {
    /// Index in the kernel, `0..27`.
    pub kernel: usize,
    /// Voxels from the first that the output voxel needs.
    pub offset: [usize; 3],
}

/// Outputs that are reached by the same taps.
#[derive(Clone, Debug)]
pub(super) struct Pass {
    /// First voxel of the output volume that this pass writes.
    pub origin: [usize; 3],
    /// What it reads.
    pub taps: Vec<Tap>,
}

/// A convolution as the kernels see it.
///
/// Voxel `i` of a sweep reads the input from `i * step + first` on, `extent` voxels of each axis, and
/// pass `p` writes output voxel `i * spread + p.origin`, where there is one.
#[derive(Clone, Debug)]
pub(super) struct Sweep {
    pub batch: usize,
    /// Channels read.
    pub inputs: usize,
    /// Channels written.
    pub outputs: usize,
    /// Size of the volume read.
    pub in_size: [usize; 3],
    /// Size of the volume written.
    pub out_size: [usize; 3],
    /// Voxels swept.
    pub size: [usize; 3],
    pub step: [usize; 3],
    pub spread: [usize; 3],
    pub first: [isize; 3],
    pub extent: [usize; 3],
    pub passes: Vec<Pass>,
}

fn all_taps() -> impl Iterator<Item = [usize; 3]> {
    (0..27).map(|k| [k / 9, k / 3 % 3, k % 3])
}

impl Sweep {
    /// The convolution itself.
    pub(super) fn forward(shape: &Shape) -> Self {
        let out_size = shape.out_size();
        let taps = all_taps().enumerate().map(|(kernel, offset)| Tap { kernel, offset }).collect();
        Self {
            batch: shape.batch,
            inputs: shape.inputs,
            outputs: shape.outputs,
            in_size: shape.size,
            out_size,
            size: out_size,
            step: shape.stride,
            spread: [1; 3],
            first: [-1; 3],
            extent: [3; 3],
            passes: vec![Pass { origin: [0; 3], taps }],
        }
    }

    /// The gradient of its input: reads the output's gradient.
    ///
    /// Input voxel `i * stride + r` is read by output voxel `o` through tap `k` when
    /// `o * stride + k - 1` is that voxel: `o = i + (r + 1 - k) / stride`.
    pub(super) fn input_gradient(shape: &Shape) -> Self {
        let reach = |axis: usize, remainder: usize, k: usize| -> Option<isize> {
            let distance = remainder as isize + 1 - k as isize;
            let stride = shape.stride[axis] as isize;
            (distance % stride == 0).then_some(distance / stride)
        };
        // Along one axis: the smallest and the largest reach of any remainder.
        let bounds: [(isize, isize); 3] = std::array::from_fn(|axis| {
            let all =
                (0..shape.stride[axis]).flat_map(|r| (0..3).filter_map(move |k| reach(axis, r, k)));
            all.fold((0, 0), |(low, high), d| (low.min(d), high.max(d)))
        });
        let first = bounds.map(|(low, _)| low);
        let [rz, ry, rx] = shape.stride;
        let remainders = (0..rz * ry * rx).map(|r| [r / (ry * rx), r / rx % ry, r % rx]);
        let passes = remainders.map(|origin| {
            let taps = all_taps().enumerate().filter_map(|(kernel, k)| {
                let reaches = [0, 1, 2].map(|axis| reach(axis, origin[axis], k[axis]));
                let [Some(z), Some(y), Some(x)] = reaches else { return None };
                let offset = [z - first[0], y - first[1], x - first[2]].map(|d| d as usize);
                Some(Tap { kernel, offset })
            });
            Pass { origin, taps: taps.collect() }
        });
        Self {
            batch: shape.batch,
            inputs: shape.outputs,
            outputs: shape.inputs,
            in_size: shape.out_size(),
            out_size: shape.size,
            size: shape.out_size(),
            step: [1; 3],
            spread: shape.stride,
            first,
            extent: bounds.map(|(low, high)| (high - low + 1) as usize),
            passes: passes.collect(),
        }
    }

    /// Blocks of [`CHANNELS`] input channels.
    pub(super) fn blocks(&self) -> usize {
        self.inputs.div_ceil(CHANNELS)
    }

    /// Groups of up to `size` blocks that are gathered together, as ranges of blocks.
    pub(super) fn groups(&self, size: usize) -> impl Iterator<Item = std::ops::Range<usize>> {
        let blocks = self.blocks();
        (0..blocks).step_by(size).map(move |first| first..(first + size).min(blocks))
    }

    /// Channels in block `block`.
    pub(super) fn channels(&self, block: usize) -> usize {
        (self.inputs - block * CHANNELS).min(CHANNELS)
    }

    /// The cut of this sweep that costs least among those whose buffers fit the cache.
    ///
    /// `row_channels` says how many channels a task keeps of every voxel it writes. The cut depends
    /// on sizes alone, never on the threads: so do the sums.
    pub(super) fn cut(&self, row_channels: usize) -> Cut {
        let mut best: Option<(f64, Cut)> = None;
        for blocks in [4, 2, 1].map(|blocks| blocks.min(self.blocks()).min(GROUP)) {
            for rows in 1..=self.size[1].min(64) {
                for planes in [1, 2, 3, 4, 6, 8, 16] {
                    let cut = Cut::new(self, planes.min(self.size[0]), rows, blocks);
                    let cost = cut.cost(self, row_channels);
                    if best.as_ref().is_none_or(|(least, _)| cost < *least) {
                        best = Some((cost, cut));
                    }
                }
            }
        }
        best.expect("at least one cut is tried").1
    }
}

/// How a sweep is cut into strips, and the layout of a strip's buffer:
/// `[block][plane][phase of y][phase of x][row][column][channel of the block]`.
#[derive(Clone, Debug)]
pub(super) struct Cut {
    /// Planes and rows of a strip.
    pub planes: usize,
    pub rows: usize,
    /// Planes and rows it reads.
    pub in_planes: usize,
    pub in_rows: usize,
    /// Columns from one row to the next.
    pub pitch: usize,
    /// Values of one phase, of a plane, and of a block of channels.
    pub phase_len: usize,
    pub plane_len: usize,
    pub block_len: usize,
    /// Blocks the buffer holds.
    pub blocks: usize,
    /// Whether the last column of a row is the first of the next.
    pub shared: bool,
}

impl Cut {
    fn new(sweep: &Sweep, planes: usize, rows: usize, blocks: usize) -> Self {
        let [step_z, step_y, step_x] = sweep.step;
        let [extent_z, extent_y, extent_x] = sweep.extent;
        let in_planes = (planes - 1) * step_z + extent_z;
        let in_rows = (rows - 1) * step_y + extent_y;
        let phase_rows = in_rows.div_ceil(step_y);
        let columns = ((sweep.size[2] - 1) * step_x + extent_x).div_ceil(step_x);
        // With a halo on both sides the last column of a row may be the first of the next: both are
        // zero. So a row costs one column, not two, and tiles run across rows.
        let shared = step_x == 1
            && sweep.first[2] == -1
            && extent_x == 3
            && sweep.size[2] == sweep.in_size[2];
        let pitch = columns - usize::from(shared);
        let phase_len = phase_rows * pitch * CHANNELS;
        let plane_len = step_y * step_x * phase_len;
        Self {
            planes,
            rows,
            in_planes,
            in_rows,
            pitch,
            phase_len,
            plane_len,
            // The last row of all has no next one: its last column stands behind.
            block_len: in_planes * plane_len + CHANNELS,
            blocks,
            shared,
        }
    }

    /// Values copied, halo included, and sums read and written again, for each channel and voxel.
    fn cost(&self, sweep: &Sweep, row_channels: usize) -> f64 {
        let outs = self.planes * self.rows * self.pitch * row_channels;
        let bytes = 4 * (self.buffer_len() + outs);
        let read = self.in_planes * self.in_rows * sweep.step[2];
        let halo = read as f64 / (self.planes * self.rows) as f64;
        let sums = row_channels as f64 / (4 * CHANNELS * self.blocks) as f64;
        // An overfull cache is worse than any halo, but something has to be chosen.
        halo + sums + 100.0 * (bytes as f64 / STRIP_BYTES as f64 - 1.0).max(0.0)
    }

    /// Values of a row, with the column it shares.
    pub(super) fn row_len(&self) -> usize {
        (self.pitch + usize::from(self.shared)) * CHANNELS
    }

    /// Values of a strip's buffer.
    pub(super) fn buffer_len(&self) -> usize {
        self.blocks * self.block_len
    }

    /// Where tap `offset` reads for the first voxel of the strip's plane `plane`.
    pub(super) fn tap(&self, sweep: &Sweep, plane: usize, offset: [usize; 3]) -> usize {
        let [oz, oy, ox] = offset;
        let [step_z, step_y, step_x] = sweep.step;
        (plane * step_z + oz) * self.plane_len
            + (oy % step_y * step_x + ox % step_x) * self.phase_len
            + (oy / step_y * self.pitch + ox / step_x) * CHANNELS
    }

    /// Voxels a tile sweep runs over in a strip of `rows` rows: the columns between rows included,
    /// those behind the last row not.
    pub(super) fn run(&self, sweep: &Sweep, rows: usize) -> usize {
        (rows - 1) * self.pitch + sweep.size[2]
    }

    /// The strips of all samples.
    pub(super) fn strips(&self, sweep: &Sweep) -> Vec<Strip> {
        let mut strips = Vec::new();
        for sample in 0..sweep.batch {
            for z in (0..sweep.size[0]).step_by(self.planes) {
                for y in (0..sweep.size[1]).step_by(self.rows) {
                    let planes = self.planes.min(sweep.size[0] - z);
                    let rows = self.rows.min(sweep.size[1] - y);
                    strips.push(Strip { sample, z, y, planes, rows });
                }
            }
        }
        strips
    }
}

/// Voxels one task works on: some rows of some planes of a sweep.
#[derive(Clone, Copy, Debug)]
pub(super) struct Strip {
    pub sample: usize,
    pub z: usize,
    pub y: usize,
    pub planes: usize,
    pub rows: usize,
}

impl Strip {
    /// Whether plane `plane` of the strip reads, `offset` planes on, a plane of the input.
    pub(super) fn reads(&self, sweep: &Sweep, plane: usize, offset: usize) -> bool {
        let z = ((self.z + plane) * sweep.step[0] + offset) as isize + sweep.first[0];
        (0..sweep.in_size[0] as isize).contains(&z)
    }
}
