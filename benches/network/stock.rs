//! The same network from Burn's own operators: what runs where `stunet-kernels` has no faster one.
//!
//! Same parameters, same order of operations; only the operators differ, so that no second build is
//! needed to time them.

use burn::tensor::Tensor;
use stunet::kernels::{Norm, reference};
use stunet::model::{Conv, InstanceNorm, ResidualBlock, StuNet};

const LEAKY_SLOPE: f64 = 0.01;
const NORM_EPSILON: f64 = 1e-5;

/// The features of the finest stage.
pub fn features(network: &StuNet, x: Tensor<5>) -> Tensor<5> {
    climb(network, x).pop().expect("a decoder has stages")
}

/// Logits at full resolution.
pub fn forward(network: &StuNet, x: Tensor<5>) -> Tensor<5> {
    let finest = features(network, x);
    let head = network.decoder.heads.last().expect("as many heads as stages");
    conv(head, finest, [1; 3])
}

/// Logits at every resolution, finest first.
pub fn forward_deep(network: &StuNet, x: Tensor<5>) -> Vec<Tensor<5>> {
    let features = climb(network, x).into_iter().zip(&network.decoder.heads);
    let mut logits: Vec<_> = features.map(|(x, head)| conv(head, x, [1; 3])).collect();
    logits.reverse();
    logits
}

/// The features of every stage of the decoder, coarsest first.
fn climb(network: &StuNet, mut x: Tensor<5>) -> Vec<Tensor<5>> {
    let (encoder, decoder) = (&network.encoder, &network.decoder);
    let mut skips = Vec::new();
    let strides = std::iter::once([1; 3]).chain(encoder.strides);
    for (blocks, stride) in encoder.stages.iter().zip(strides) {
        x = stage(blocks, x, stride);
        skips.push(x.clone());
    }
    skips.pop();
    let ups = decoder.upsample.iter().zip(decoder.factors);
    let stages = ups.zip(&decoder.stages).zip(skips.into_iter().rev());
    let climbed = stages.map(|(((up, factor), blocks), skip)| {
        let up = reference::upsample_nearest(conv(up, x.clone(), [1; 3]), factor);
        x = stage(blocks, Tensor::cat(vec![up, skip], 1), [1; 3]);
        x.clone()
    });
    climbed.collect()
}

fn stage(blocks: &[ResidualBlock], x: Tensor<5>, stride: [usize; 3]) -> Tensor<5> {
    let strides = std::iter::once(stride).chain(std::iter::repeat([1; 3]));
    blocks.iter().zip(strides).fold(x, |x, (block, stride)| residual(block, x, stride))
}

fn residual(block: &ResidualBlock, x: Tensor<5>, stride: [usize; 3]) -> Tensor<5> {
    let y = conv(&block.conv1, x.clone(), stride);
    let y = reference::norm_activation(y, norm(&block.norm1), LEAKY_SLOPE);
    let y = conv(&block.conv2, y, [1; 3]);
    let skip = match &block.skip {
        Some(skip) => conv(skip, x, stride),
        None => x,
    };
    reference::norm_residual_activation(y, norm(&block.norm2), skip, LEAKY_SLOPE)
}

fn conv(conv: &Conv, x: Tensor<5>, stride: [usize; 3]) -> Tensor<5> {
    reference::conv3d(x, conv.weight.val(), conv.bias.val(), stride)
}

fn norm(norm: &InstanceNorm) -> Norm {
    Norm { weight: norm.weight.val(), bias: norm.bias.val(), epsilon: NORM_EPSILON }
}
