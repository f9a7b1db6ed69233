//! The shapes of the work: which voxels and channels a workgroup computes.
//!
//! A fixed table. It depends on the shapes of the tensors alone, and neither on the device nor on
//! measurements, so that every device adds the same numbers in the same order, and a second run gives
//! the bits of the first. Every entry fits what WebGPU guarantees: [`SHARED`] and [`UNITS`].

/// Bytes of shared memory a workgroup may use.
pub(crate) const SHARED: usize = 16 << 10;
/// Values of shared memory where a convolution keeps which tile it computes.
pub(crate) const KEPT: usize = 8;
/// Threads of a workgroup.
pub(crate) const UNITS: usize = 256;
/// Voxels of a row that one thread computes.
pub(crate) const ROW: usize = 4;
/// Channels of a vector.
pub(crate) const VECTOR: usize = 4;
/// Workgroups that a convolution should have for a large device to be busy.
const BUSY: usize = 128;

/// What multiplies within a workgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum TileOp {
    /// Every thread multiplies values of its registers, in single precision.
    Register,
}

/// How a workgroup computes a part of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Tile {
    /// What multiplies.
    pub op: TileOp,
    /// Output voxels of each axis; along x a multiple of [`ROW`].
    pub voxels: [usize; 3],
    /// Vectors of output channels that a thread computes.
    pub vectors: usize,
    /// Threads side by side along the output channels.
    pub groups: usize,
    /// Input channels that are in shared memory at a time.
    pub depth: usize,
    /// Taps of each axis: 1 or 3.
    pub kernel: [usize; 3],
    /// Stride of each axis.
    pub stride: [usize; 3],
}

impl Tile {
    /// The tile of a convolution that gives `outputs` channels of `size` voxels for each sample, or
    /// nothing where the stride is too large for any.
    pub fn new(
        kernel: [usize; 3],
        stride: [usize; 3],
        outputs: usize,
        samples: usize,
        size: [usize; 3],
    ) -> Option<Self> {
        Self::of(kernel, outputs, samples, size, |tile| tile.stride = stride)
    }

    /// The tile of a transposed convolution, whose `size` is that of one remainder of the stride. It
    /// reads what the gradient of a convolution with these strides reads.
    pub fn transposed(
        kernel: [usize; 3],
        stride: [usize; 3],
        outputs: usize,
        samples: usize,
        size: [usize; 3],
    ) -> Option<Self> {
        // One more voxel on each side where the stride is 1, one more above where it is larger: never
        // more than the halo of stride 1.
        let mut tile = Self::of(kernel, outputs, samples, size, |tile| tile.stride = [1; 3])?;
        tile.stride = stride;
        Some(tile)
    }

    fn of(
        kernel: [usize; 3],
        outputs: usize,
        samples: usize,
        size: [usize; 3],
        strided: impl Fn(&mut Self),
    ) -> Option<Self> {
        const SHAPES: [[usize; 3]; 4] = [[4, 4, 8], [4, 4, 4], [2, 2, 4], [1, 1, 4]];
        let (op, stride) = (TileOp::Register, [1; 3]);
        let small = size[2] <= 4;
        SHAPES.into_iter().skip(usize::from(small)).find_map(|voxels| {
            let mut tile = Self { op, voxels, vectors: 1, groups: 1, depth: 1, kernel, stride };
            strided(&mut tile);
            tile.choose_depth()?;
            tile.choose_channels(outputs, samples * tile.tiles(size).iter().product::<usize>());
            Some(tile)
        })
    }

    /// As many input channels as there is room for.
    fn choose_depth(&mut self) -> Option<()> {
        let room = (SHARED / size_of::<f32>() - KEPT) / self.plane();
        self.depth = [16, 8, 4, 2, 1].into_iter().find(|depth| *depth <= room)?;
        Some(())
    }

    /// As many output channels as waste little and leave enough workgroups.
    fn choose_channels(&mut self, outputs: usize, tiles: usize) {
        let most = (UNITS / self.rows()).min(8);
        let padded = |groups: usize| outputs.next_multiple_of(groups * 2 * VECTOR);
        let fits = |groups: &usize| {
            let wasted = padded(*groups) - outputs;
            let blocks = tiles * padded(*groups) / (groups * 2 * VECTOR);
            *groups <= most && wasted * 10 <= outputs && (*groups <= 2 || blocks >= BUSY)
        };
        self.vectors = if outputs <= VECTOR { 1 } else { 2 };
        self.groups = [8, 4, 2].into_iter().find(fits).unwrap_or(1);
    }

    /// From one voxel of the output to the next, in what is in shared memory.
    pub const fn step(&self, axis: usize) -> usize {
        if self.kernel[axis] == 1 { 1 } else { self.stride[axis] }
    }

    /// From one voxel in shared memory to the next, in the input: a kernel of one voxel skips.
    pub const fn skip(&self, axis: usize) -> usize {
        if self.kernel[axis] == 1 { self.stride[axis] } else { 1 }
    }

    /// Voxels in shared memory along an axis.
    pub const fn halo(&self, axis: usize) -> usize {
        (self.voxels[axis] - 1) * self.step(axis) + self.kernel[axis]
    }

    /// Voxels in shared memory.
    pub const fn plane(&self) -> usize {
        self.halo(0) * self.halo(1) * self.halo(2)
    }

    /// Voxels in shared memory along an axis, of the gradient that a transposed convolution reads.
    pub const fn halo_transposed(&self, axis: usize) -> usize {
        let (below, above) = (self.below(axis), self.kernel[axis] / 2);
        self.voxels[axis] + below + above
    }

    /// Voxels of the gradient that lie below the first voxel of a tile.
    pub const fn below(&self, axis: usize) -> usize {
        if self.stride[axis] == 1 { self.kernel[axis] / 2 } else { 0 }
    }

    /// Whether there is room in shared memory to find the moments of the outputs: count, mean and squared
    /// deviations of four channels for each thread.
    pub const fn measures(&self) -> bool {
        self.rows().is_power_of_two() && self.plane() * self.depth >= 9 * self.units()
    }

    /// Rows of [`ROW`] voxels.
    pub const fn rows(&self) -> usize {
        self.voxels[0] * self.voxels[1] * self.voxels[2] / ROW
    }

    /// Threads.
    pub const fn units(&self) -> usize {
        self.rows() * self.groups
    }

    /// Output channels of a workgroup.
    pub const fn channels(&self) -> usize {
        self.groups * self.vectors * VECTOR
    }

    /// Tiles of a volume of `size`, along each axis.
    pub fn tiles(&self, size: [usize; 3]) -> [usize; 3] {
        std::array::from_fn(|axis| size[axis].div_ceil(self.voxels[axis]))
    }
}

/// How a workgroup computes a part of the gradient of weights: for one z of the kernel, and all its y
/// and x.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct WeightTile {
    /// What multiplies.
    pub op: TileOp,
    /// Output voxels along y and x that are in shared memory at a time.
    pub voxels: [usize; 2],
    /// Input channels.
    pub inputs: usize,
    /// Output channels, in pairs of vectors.
    pub outputs: usize,
    /// Input channels of one thread.
    pub each: usize,
    /// Threads that share the same weights and divide the voxels.
    pub shares: usize,
    /// Taps of each axis: 1 or 3.
    pub kernel: [usize; 3],
    /// Stride of each axis.
    pub stride: [usize; 3],
}

impl WeightTile {
    /// Threads.
    const UNITS: usize = 128;

    /// The tile of a convolution, or nothing where the stride is too large for any.
    pub fn new(
        kernel: [usize; 3],
        stride: [usize; 3],
        inputs: usize,
        outputs: usize,
    ) -> Option<Self> {
        const SHAPES: [[usize; 2]; 5] = [[4, 16], [4, 8], [2, 8], [1, 8], [1, 4]];
        let inputs = inputs.next_power_of_two().min(16);
        let outputs = outputs.next_power_of_two().clamp(8, 32);
        // A kernel of one voxel along y and x has few products for each value it reads.
        let each = if kernel[1] * kernel[2] == 1 { inputs.min(4) } else { 1 };
        let threads = inputs / each * (outputs / 8);
        SHAPES.into_iter().find_map(|voxels| {
            let tile = Self {
                op: TileOp::Register,
                voxels,
                inputs,
                outputs,
                each,
                shares: (Self::UNITS / threads).min(voxels[0] * voxels[1]),
                kernel,
                stride,
            };
            (tile.shared() * size_of::<f32>() <= SHARED).then_some(tile)
        })
    }

    /// As [`Tile::step`], of y and x.
    pub const fn step(&self, axis: usize) -> usize {
        if self.kernel[axis] == 1 { 1 } else { self.stride[axis] }
    }

    /// As [`Tile::skip`].
    pub const fn skip(&self, axis: usize) -> usize {
        if self.kernel[axis] == 1 { self.stride[axis] } else { 1 }
    }

    /// Input voxels in shared memory along y or x.
    pub const fn halo(&self, axis: usize) -> usize {
        (self.voxels[axis - 1] - 1) * self.step(axis) + self.kernel[axis]
    }

    /// Values of the input in shared memory.
    pub const fn input_values(&self) -> usize {
        self.halo(1) * self.halo(2) * self.inputs
    }

    /// Vectors of the gradient in shared memory.
    pub const fn gradient_vectors(&self) -> usize {
        self.voxels[0] * self.voxels[1] * self.outputs / VECTOR
    }

    /// Vectors of shared memory for the gradient, and for the sums of the threads behind it.
    pub const fn gradient_room(&self) -> usize {
        let (gradient, sums) = (self.gradient_vectors(), self.units() * 2);
        if self.shares > 1 && sums > gradient { sums } else { gradient }
    }

    /// Values in shared memory.
    const fn shared(&self) -> usize {
        self.input_values() + self.gradient_room() * VECTOR + KEPT
    }

    /// Threads that divide the weights.
    pub const fn threads(&self) -> usize {
        self.inputs / self.each * (self.outputs / 8)
    }

    /// Threads.
    pub const fn units(&self) -> usize {
        self.threads() * self.shares
    }

    /// Taps that a thread computes.
    pub const fn taps(&self) -> usize {
        self.kernel[1] * self.kernel[2]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNELS: [[usize; 3]; 4] = [[3; 3], [1; 3], [1, 3, 3], [3, 1, 1]];
    const STRIDES: [[usize; 3]; 6] = [[1; 3], [2; 3], [1, 1, 2], [1, 2, 2], [4; 3], [1, 8, 8]];
    const CHANNELS: [usize; 10] = [1, 2, 3, 5, 16, 32, 64, 105, 320, 1024];
    const SIZES: [[usize; 3]; 5] = [[1, 1, 1], [2, 5, 3], [4, 4, 4], [16, 16, 16], [128, 128, 128]];

    fn every(mut check: impl FnMut([usize; 3], [usize; 3], usize, [usize; 3])) {
        for kernel in KERNELS {
            for stride in STRIDES {
                for channels in CHANNELS {
                    SIZES.into_iter().for_each(|size| check(kernel, stride, channels, size));
                }
            }
        }
    }

    #[test]
    fn every_tile_fits_what_webgpu_guarantees() {
        every(|kernel, stride, channels, size| {
            let tile = Tile::new(kernel, stride, channels, 2, size).unwrap();
            assert!(tile.plane() * tile.depth * size_of::<f32>() <= SHARED, "{tile:?}");
            assert!((1..=UNITS).contains(&tile.units()), "{tile:?}");
            assert!(tile.depth.is_power_of_two() && tile.voxels[2].is_multiple_of(ROW));
            let tile = Tile::transposed(kernel, stride, channels, 2, size).unwrap();
            let halo: usize = (0..3).map(|axis| tile.halo_transposed(axis)).product();
            assert!(halo * tile.depth * size_of::<f32>() <= SHARED, "{tile:?}");
            for inputs in CHANNELS {
                let tile = WeightTile::new(kernel, stride, inputs, channels).unwrap();
                assert!(tile.shared() * size_of::<f32>() <= SHARED, "{tile:?}");
                assert!((1..=UNITS).contains(&tile.units()), "{tile:?}");
                assert_eq!(tile.inputs % tile.each, 0, "{tile:?}");
            }
        });
    }

    /// Too large a stride is left to Burn, not computed wrongly.
    #[test]
    fn a_stride_beyond_shared_memory_has_no_tile() {
        assert_eq!(Tile::new([3; 3], [1, 1, 2000], 8, 1, [4; 3]), None);
        assert_eq!(WeightTile::new([3; 3], [1, 1, 2000], 8, 8), None);
    }

    /// STU-Net's layers and the head: the table as it is, so that a change is seen.
    #[test]
    fn the_table() {
        let tile = |outputs, size: usize| {
            let tile = Tile::new([3; 3], [1; 3], outputs, 1, [size; 3]).unwrap();
            (tile.voxels, tile.channels(), tile.depth)
        };
        assert_eq!(tile(16, 128), ([4, 4, 8], 16, 8));
        assert_eq!(tile(32, 128), ([4, 4, 8], 32, 8));
        assert_eq!(tile(64, 64), ([4, 4, 8], 64, 8));
        assert_eq!(tile(512, 8), ([4, 4, 8], 16, 8));
        assert_eq!(tile(512, 4), ([4, 4, 4], 16, 16));
        for (stride, outputs, size) in [(1, 16, 128), (2, 32, 64), (1, 64, 64), (1, 512, 4)] {
            let tile = Tile::new([3; 3], [stride; 3], outputs, 1, [size; 3]).unwrap();
            assert!(tile.measures(), "{tile:?}");
        }
        let head = Tile::new([1; 3], [1; 3], 105, 1, [128; 3]).unwrap();
        assert_eq!((head.channels(), head.depth), (16, 16));
        assert_eq!(Tile::new([3; 3], [2; 3], 32, 1, [64; 3]).unwrap().depth, 2);
    }
}
