//! The encoder: the contracting half of the U-Net.

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
        let mut features = Vec::with_capacity(NUM_STAGES);
        for stage in 0..self.stages.len() {
            x = self.forward_stage(stage, x);
            features.push(x.clone());
        }
        features
    }

    /// The features of one stage from those of the stage before, or from the image.
    ///
    /// # Shapes
    /// `[N, width[stage - 1], ..]` gives `[N, width[stage], ..]`, a stride smaller.
    ///
    /// # Panics
    /// When there is no such stage.
    pub fn forward_stage(&self, stage: usize, x: Tensor<5>) -> Tensor<5> {
        let stride = if stage == 0 { [1; 3] } else { self.strides[stage - 1] };
        forward_stage(&self.stages[stage], x, stride)
    }
}
