//! Sizes of a convolution.

use crate::gpu::launch::dims;
use crate::gpu::tiles::{Tile, WeightTile};
use burn_cubecl::tensor::CubeTensor;

/// Sizes of a convolution.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub samples: usize,
    pub inputs: usize,
    pub outputs: usize,
    /// Input voxels of each axis.
    pub size: [usize; 3],
    pub kernel: [usize; 3],
    pub stride: [usize; 3],
}

impl Shape {
    /// Of the dimensions of input and weight.
    pub fn new(input: [usize; 5], weight: [usize; 5], stride: [usize; 3]) -> Self {
        let ([samples, _, z, y, x], [outputs, inputs, kz, ky, kx]) = (input, weight);
        Self { samples, inputs, outputs, size: [z, y, x], kernel: [kz, ky, kx], stride }
    }

    /// Whether every pass has a tile.
    pub fn fits(&self) -> bool {
        let Self { samples, inputs, outputs, kernel, stride, .. } = *self;
        Tile::new(kernel, stride, outputs, samples, self.out_size()).is_some()
            && Tile::transposed(kernel, stride, inputs, samples, self.remainder_size()).is_some()
            && WeightTile::new(kernel, stride, inputs, outputs).is_some()
    }

    pub fn out_size(&self) -> [usize; 3] {
        std::array::from_fn(|axis| self.size[axis].div_ceil(self.stride[axis]))
    }

    /// Voxels that leave the same remainder modulo the stride, at most.
    pub fn remainder_size(&self) -> [usize; 3] {
        self.out_size()
    }

    pub fn taps(&self) -> usize {
        self.kernel.iter().product()
    }

    /// Products of one pass.
    pub fn products(&self) -> u64 {
        let [z, y, x] = self.out_size();
        // More than 32 bits hold, which is what counts elsewhere in a browser.
        let factors = [self.samples, z, y, x, self.taps(), self.inputs, self.outputs];
        factors.into_iter().map(|factor| factor as u64).product()
    }
}

/// The shape of a convolution of `parts`.
pub(super) fn shape_of(parts: &[CubeTensor], weight: &CubeTensor, stride: [usize; 3]) -> Shape {
    let shape = Shape::new(dims(&parts[0]), dims(weight), stride);
    let channels: usize = parts.iter().map(|part| dims::<5>(part)[1]).sum();
    assert_eq!(channels, shape.inputs, "channels of the input differ from the kernel's");
    shape
}
