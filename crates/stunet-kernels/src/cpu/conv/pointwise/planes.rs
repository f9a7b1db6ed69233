//! Weighted sums of channel planes.

use crate::cpu::memory::{Origin, Target};
use crate::cpu::simd::{Isa, Simd, Task};
use std::ops::Range;

/// A matrix of weights: output channels down, input channels across.
#[derive(Clone, Copy)]
pub(super) struct Weights<'a> {
    pub values: &'a [f32],
    /// Values from one row to the next, and from one column to the next.
    pub row: usize,
    pub column: usize,
}

impl<'a> Weights<'a> {
    /// From row `row` on.
    #[inline(always)]
    fn at(self, row: usize) -> Self {
        Self { values: &self.values[row * self.row..], ..self }
    }
}

/// How voxels in memory stand for those that are read.
#[derive(Clone, Copy)]
pub(super) struct Repeated {
    /// Voxels that are read along each axis.
    pub size: [usize; 3],
    /// How often each is read along each axis: a whole part of the size.
    pub repeats: [usize; 3],
}

impl Repeated {
    /// Copies voxels `first..` of a plane, whose voxels in memory begin at `plane`.
    ///
    /// # Safety
    /// As [`Origin::copy`], for the voxels in memory.
    #[inline(always)]
    unsafe fn copy(self, origin: Origin, plane: usize, first: usize, to: &mut [f32]) {
        let ([_, rows, columns], [along_z, along_y, along_x]) = (self.size, self.repeats);
        let mut done = 0;
        while done < to.len() {
            let (row, x) = ((first + done) / columns, (first + done) % columns);
            let coarse = [row / rows / along_z, row % rows / along_y];
            let row = (coarse[0] * (rows / along_y) + coarse[1]) * (columns / along_x);
            let len = (columns - x).min(to.len() - done);
            let to = &mut to[done..done + len];
            done += len;
            let from = plane + row + x / along_x;
            // SAFETY: voxels of this row, as the caller promises.
            unsafe {
                match to.as_chunks_mut::<2>() {
                    (pairs, []) if along_x == 2 && x.is_multiple_of(2) => {
                        for (i, pair) in pairs.iter_mut().enumerate() {
                            *pair = [origin.read(from + i); 2];
                        }
                    }
                    _ => {
                        for (i, to) in to.iter_mut().enumerate() {
                            *to = origin.read(plane + row + (x + i) / along_x);
                        }
                    }
                }
            }
        }
    }

    /// Voxels in memory of a plane of `volume` that are read.
    fn in_memory(self, volume: usize) -> usize {
        volume / self.repeats.iter().product::<usize>()
    }
}

/// Some output channels of some voxels of a sample.
pub(super) struct Planes<'a> {
    /// Tensors of input planes, with their channels: whole planes of every sample.
    pub inputs: &'a [(Origin, usize)],
    /// How voxels of the first input stand for those that are read, if they do not lie there one by one.
    pub repeated: Option<Repeated>,
    pub sample: usize,
    /// Voxels of a plane.
    pub volume: usize,
    pub weights: Weights<'a>,
    /// What sums begin with: one value for each output channel, or zero.
    pub bias: Option<&'a [f32]>,
    /// Output channels.
    pub rows: Range<usize>,
    /// Voxels.
    pub columns: Range<usize>,
    /// Where the sample's outputs begin, `to` values on.
    pub target: Target,
    pub to: usize,
    /// Whether the outputs are too many for any cache.
    pub streamed: bool,
    /// Room for [`buffer_len`] values.
    pub buffer: &'a mut [f32],
}

/// Vectors of a register tile.
pub(super) const VECTORS: usize = 4;

/// Values a task copies: whole tiles of `columns` voxels of `inputs` planes.
pub(super) fn buffer_len(isa: Isa, inputs: usize, columns: usize) -> usize {
    inputs * columns.next_multiple_of(VECTORS * isa.lanes())
}

impl Task for Planes<'_> {
    #[inline(always)]
    fn run<S: Simd>(mut self, simd: S) {
        const { assert!(S::PLANES == 6 || S::PLANES == 2, "tiles are written for 6 and 2 planes") };
        let inner: usize = self.inputs.iter().map(|input| input.1).sum();
        if self.rows.is_empty() || inner == 0 {
            return;
        }
        let width = VECTORS * S::LANES;
        let tiles = self.columns.len().div_ceil(width);
        let last = (self.rows.end - 1) * self.weights.row + (inner - 1) * self.weights.column;
        assert!(last < self.weights.values.len(), "a weight for each pair of channels");
        assert!(self.columns.end <= self.volume, "voxels of a plane");
        assert!(self.bias.is_none_or(|bias| bias.len() >= self.rows.end), "a bias for each row");
        assert!(self.buffer.len() >= tiles * inner * width, "room for whole tiles");
        self.copy(width, inner);
        let mut row = self.rows.start;
        while row < self.rows.end {
            let rows = if row + S::PLANES <= self.rows.end { S::PLANES } else { 1 };
            for tile in 0..tiles {
                let from = &self.buffer[tile * inner * width..][..inner * width];
                let column = self.columns.start + tile * width;
                // SAFETY: rows lie inside the weights and `from` is a tile, as asserted; the outputs
                // lie in this task's block of the target.
                unsafe {
                    match rows {
                        6 => self.tile::<S, 6>(simd, row, column, from),
                        2 => self.tile::<S, 2>(simd, row, column, from),
                        _ => self.tile::<S, 1>(simd, row, column, from),
                    }
                }
            }
            row += rows;
        }
        if self.streamed {
            simd.fence();
        }
    }
}

impl Planes<'_> {
    /// Copies the voxels, tile by tile: `[tile][plane][width]`. Planes lie at powers of two from each
    /// other, where they would push one another out of every cache.
    #[inline(always)]
    fn copy(&mut self, width: usize, inner: usize) {
        let mut plane = 0;
        for (index, &(origin, count)) in self.inputs.iter().enumerate() {
            let repeated = self.repeated.filter(|_| index == 0);
            for channel in self.sample * count..(self.sample + 1) * count {
                for tile in 0..self.columns.len().div_ceil(width) {
                    let column = self.columns.start + tile * width;
                    let to = &mut self.buffer[(tile * inner + plane) * width..][..width];
                    let (voxels, behind) = to.split_at_mut(width.min(self.columns.end - column));
                    // SAFETY: columns of a whole plane, which at most this task will write, later.
                    unsafe {
                        match repeated {
                            None => origin.copy(channel * self.volume + column, voxels),
                            Some(repeated) => {
                                let plane = channel * repeated.in_memory(self.volume);
                                repeated.copy(origin, plane, column, voxels);
                            }
                        }
                    }
                    behind.fill(0.0);
                }
                plane += 1;
            }
        }
    }

    /// `ROWS` output channels of a tile, all of them in registers.
    ///
    /// # Safety
    /// `from` holds `VECTORS` vectors of every plane; there are weights for the rows; the outputs lie
    /// in the target, up to the task's last column, and no other thread touches them.
    #[inline(always)]
    unsafe fn tile<S: Simd, const ROWS: usize>(
        &self,
        simd: S,
        row: usize,
        column: usize,
        from: &[f32],
    ) {
        let width = VECTORS * S::LANES;
        let bias = self.bias.map(|bias| &bias[row..]);
        // SAFETY: every address below is one the caller promised.
        unsafe {
            let inner = from.len() / width;
            let sums = products::<S, ROWS>(simd, self.weights.at(row), bias, from, [inner, width]);
            let left = self.columns.end - column;
            for (r, sums) in sums.iter().enumerate() {
                let to = self.target.at(self.to + (row + r) * self.volume + column);
                if left >= width {
                    for (v, sum) in sums.iter().enumerate() {
                        if self.streamed {
                            simd.stream(to.add(v * S::LANES), *sum);
                        } else {
                            simd.store(to.add(v * S::LANES), *sum);
                        }
                    }
                } else {
                    let mut whole = [0f32; 64];
                    for (v, sum) in sums.iter().enumerate() {
                        simd.store(whole.as_mut_ptr().add(v * S::LANES), *sum);
                    }
                    std::ptr::copy_nonoverlapping(whole.as_ptr(), to, left);
                }
            }
        }
    }
}

/// `ROWS` output channels of `VECTORS` vectors of voxels: sums of `inner` input channels, `pitch` values
/// apart from `from` on, that begin with the bias. The first of `weights` are those of the first row.
///
/// # Safety
/// `from` holds all those vectors, and there are weights for all pairs of channels.
#[inline(always)]
pub(super) unsafe fn products<S: Simd, const ROWS: usize>(
    simd: S,
    weights: Weights<'_>,
    bias: Option<&[f32]>,
    from: &[f32],
    [inner, pitch]: [usize; 2],
) -> [[S::Vector; VECTORS]; ROWS] {
    let Weights { values, row: down, column: across } = weights;
    let mut sums = [[simd.zero(); VECTORS]; ROWS];
    if let Some(bias) = bias {
        for (r, sums) in sums.iter_mut().enumerate() {
            *sums = [simd.splat(bias[r]); VECTORS];
        }
    }
    // SAFETY: every address below is one the caller promised.
    unsafe {
        for plane in 0..inner {
            let from = from.as_ptr().add(plane * pitch);
            let weight = values.as_ptr().add(plane * across);
            let mut inputs = [simd.zero(); VECTORS];
            for (v, input) in inputs.iter_mut().enumerate() {
                *input = simd.load(from.add(v * S::LANES));
            }
            for (r, sums) in sums.iter_mut().enumerate() {
                let value = simd.splat(*weight.add(r * down));
                for (sum, input) in sums.iter_mut().zip(inputs) {
                    *sum = simd.multiply_add(value, input, *sum);
                }
            }
        }
    }
    sums
}
