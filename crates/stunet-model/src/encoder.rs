//! The contracting half.

use crate::block::{ResidualBlock, forward_stage};
use crate::{NUM_STAGES, NUM_UPSAMPLINGS};
use burn::module::Module;
use burn::tensor::Tensor;

/// Six stages of residual blocks; every stage after the first begins with a strided block.
#[derive(Module, Debug)]
pub struct Encoder {
    /// Blocks of each stage, finest first.
    pub stages: Vec<Vec<ResidualBlock>>,
    /// Stride into each stage after the first.
    #[module(skip)]
    pub strides: [[usize; 3]; NUM_UPSAMPLINGS],
}

impl Encoder {
    /// The features of every stage, finest first; the last is the bottleneck.
    ///
    /// # Shapes
    /// `[N, Cin, Z, Y, X]` gives `[N, width[s], ..]` at the size of each stage `s`.
    pub fn forward(&self, mut x: Tensor<5>) -> Vec<Tensor<5>> {
        let strides = std::iter::once([1; 3]).chain(self.strides);
        let mut features = Vec::with_capacity(NUM_STAGES);
        for (blocks, stride) in self.stages.iter().zip(strides) {
            x = forward_stage(blocks, x, stride);
            features.push(x.clone());
        }
        features
    }
}
