//! The decoder: the expanding half of the U-Net.

use crate::block::{Conv, ConvConfig, ResidualBlock, forward_stage, init_stage};
use crate::{NUM_UPSAMPLINGS, StuNetConfig};
use burn::module::{Content, Module, ModuleDisplay};
use burn::tensor::{Device, Tensor};
use stunet_kernels as kernels;

/// Five upsampling stages, each with its blocks and its segmentation head, coarsest first.
#[derive(Module, Debug)]
#[module(custom_display)]
pub struct Decoder {
    /// 1×1×1 convolution of each upsampling.
    pub upsample: Vec<Conv>,
    /// Residual blocks of each stage.
    pub stages: Vec<Vec<ResidualBlock>>,
    /// Segmentation head of each stage.
    pub heads: Vec<Conv>,
    /// Upsampling factor of each stage.
    #[module(skip)]
    pub factors: [[usize; 3]; NUM_UPSAMPLINGS],
}

impl ModuleDisplay for Decoder {
    fn custom_content(&self, content: Content) -> Option<Content> {
        let stages = self.stages.iter().zip(&self.heads).zip(self.factors);
        let stages =
            stages.enumerate().fold(content, |content, (index, ((blocks, head), factor))| {
                let ([width, classes], blocks) = (head.channels(), blocks.len());
                let text = format!(
                    "{width} features, {blocks} block(s), upsampling {factor:?}, {classes} classes"
                );
                content.add(&format!("stage_{index}"), &text)
            });
        stages.optional()
    }
}

impl Decoder {
    pub(crate) fn init(config: &StuNetConfig, device: &Device) -> Self {
        let (width, mut factors) = (config.width, config.strides);
        factors.reverse();
        let conv = |inputs, outputs| ConvConfig::new([inputs, outputs], 1).init(device);
        let ups = config.upsamplings();
        let blocks = |&(_, fine): &(usize, usize)| {
            init_stage([2 * width[fine], width[fine]], config.depth[fine], device)
        };
        Self {
            upsample: ups.iter().map(|&(coarse, fine)| conv(width[coarse], width[fine])).collect(),
            stages: ups.iter().map(blocks).collect(),
            heads: ups.iter().map(|&(_, fine)| conv(width[fine], config.num_classes)).collect(),
            factors,
        }
    }

    /// Climbs from the bottleneck, calling `visit` with the features of each stage; the last are
    /// returned.
    fn climb(
        &self,
        mut features: Vec<Tensor<5>>,
        mut visit: impl FnMut(usize, &Tensor<5>),
    ) -> Tensor<5> {
        let mut x = features.pop().expect("an encoder has stages");
        for index in 0..self.stages.len() {
            let skip = features.pop().expect("one skip per upsampling");
            x = self.forward_stage(index, x, skip);
            visit(index, &x);
        }
        x
    }

    /// The features of one stage, coarsest first, from those below it and the encoder's beside it.
    ///
    /// # Shapes
    /// `[N, coarse, ..]` and the skip `[N, fine, ..]` give `[N, fine, ..]` at the skip's size.
    ///
    /// # Panics
    /// When there is no such stage.
    ///
    /// # Deviations
    /// The 1×1×1 convolution runs before the nearest upsampling, not after: it acts on each voxel
    /// alone, so the values are the same for an eighth of the work.
    pub fn forward_stage(&self, index: usize, x: Tensor<5>, skip: Tensor<5>) -> Tensor<5> {
        let x = self.upsample[index].forward(x, [1; 3]);
        let up = kernels::Upsampled::new(x, self.factors[index]);
        let blocks = &self.stages[index];
        forward_stage(&blocks[1..], blocks[0].forward_upsampled(up, skip), [1; 3])
    }

    /// Logits at full resolution.
    ///
    /// # Shapes
    /// The features of [`Encoder::forward`](crate::Encoder::forward) give `[N, classes, Z, Y, X]`.
    pub fn forward(&self, features: Vec<Tensor<5>>) -> Tensor<5> {
        self.heads[self.heads.len() - 1].forward(self.finest(features), [1; 3])
    }

    /// The features that the finest head sees.
    ///
    /// # Shapes
    /// The features of [`Encoder::forward`](crate::Encoder::forward) give `[N, width[0], Z, Y, X]`.
    pub fn finest(&self, features: Vec<Tensor<5>>) -> Tensor<5> {
        self.climb(features, |_, _| ())
    }

    /// Logits at every resolution, finest first.
    ///
    /// # Shapes
    /// The features of [`Encoder::forward`](crate::Encoder::forward) give five tensors
    /// `[N, classes, ..]`.
    pub fn forward_deep(&self, features: Vec<Tensor<5>>) -> Vec<Tensor<5>> {
        let mut logits = Vec::with_capacity(self.heads.len());
        self.climb(features, |index, x| {
            logits.push(self.heads[index].forward(x.clone(), [1; 3]));
        });
        logits.reverse();
        logits
    }
}
