//! What a plain U-Net costs: parameters, multiply-adds by stage, activation memory.

use super::PlainConvUNetConfig;
use super::parameters::ConvShape;
use crate::cost::{Cost, StageCost, planes_per_piece};
use stunet_kernels::kept_weight_cost;

/// Number of parameters.
pub fn num_parameters(config: &PlainConvUNetConfig) -> u64 {
    config.parameter_specs().iter().map(|s| s.shape.iter().product::<usize>() as u64).sum()
}

/// Most bytes a prediction of one window holds at a time on the host, weights not counted: an
/// estimate from above.
///
/// At every stage: the skips that wait for the decoder, and six volumes of the stage's width, of
/// which the way up holds the most (the transposed convolution before and after its voxels are
/// interleaved, the skip beside it, and what a convolution works in); at the end the features and
/// two pieces of the logits.
pub fn predict_peak_bytes(config: &PlainConvUNetConfig, input: [usize; 3]) -> u64 {
    let sizes = config.stage_sizes(input);
    let volume =
        |level: usize| (config.features[level] * sizes[level].iter().product::<usize>()) as u64;
    let skips = |below: usize| (0..below).map(volume).sum::<u64>();
    let stage = |level: usize| skips(level) + 6 * volume(level);
    let [depth, height, width] = input;
    let piece = planes_per_piece(config.num_classes, [height, width]).min(depth);
    let head = 2 * volume(0) + 2 * (config.num_classes * piece * height * width) as u64;
    (0..config.num_stages()).map(stage).fold(head, u64::max) * size_of::<f32>() as u64
}

/// Bytes that [`keep_weights`](crate::keep_weights) needs for the 3×3×3 convolutions of a network on windows of
/// size `input`, `[z, y, x]`.
pub fn kept_weight_bytes(config: &PlainConvUNetConfig, input: [usize; 3]) -> u64 {
    let sizes = config.stage_sizes(input);
    let of = |conv: &ConvShape, size: [usize; 3], stride: [usize; 3]| match conv.kernel {
        [3, 3, 3] => kept_weight_cost([conv.output, conv.input], size, stride),
        _ => 0,
    };
    let encoder = (0..config.num_stages()).flat_map(|level| {
        let blocks = config.encoder_blocks(level).into_iter().enumerate();
        let before = sizes[level.saturating_sub(1)];
        let (size, stride) = (sizes[level], config.strides[level]);
        blocks.map(move |(index, block)| match index {
            0 => of(&block.conv, before, stride),
            _ => of(&block.conv, size, [1; 3]),
        })
    });
    let decoder = (0..config.num_stages() - 1).flat_map(|index| {
        let size = sizes[config.beside(index)];
        config.decoder_blocks(index).into_iter().map(move |block| of(&block.conv, size, [1; 3]))
    });
    encoder.chain(decoder).sum()
}

/// The cost of a network on one sample of size `input`, `[z, y, x]`.
///
/// Multiply-adds are counted as the reference runs them, and so that [`Cost::macs`] is what torchinfo
/// prints.
pub fn cost(config: &PlainConvUNetConfig, input: [usize; 3]) -> Cost {
    let sizes = config.stage_sizes(input);
    let voxels: Vec<u64> = sizes.iter().map(|s| s.iter().product::<usize>() as u64).collect();
    let (mut stages, mut macs, mut coarse_heads) = (Vec::new(), 0, 0);
    let mut stage = |name: String, level: usize, tally: Tally| {
        macs += tally.torchinfo;
        stages.push(StageCost {
            name,
            size: sizes[level],
            width: config.features[level],
            parameters: tally.parameters,
            macs: tally.macs,
            activation_bytes: tally.activations * size_of::<f32>() as u64,
        });
    };
    for (level, &voxels) in voxels.iter().enumerate() {
        let mut tally = Tally::default();
        for block in config.encoder_blocks(level) {
            tally.block(&block.conv, voxels);
        }
        stage(format!("encoder.{level}"), level, tally);
    }
    for index in 0..config.num_stages() - 1 {
        let level = config.beside(index);
        let mut tally = Tally::default();
        tally.transposed(&config.transpconv(index), voxels[level], voxels[level + 1]);
        for block in config.decoder_blocks(index) {
            tally.block(&block.conv, voxels[level]);
        }
        let before = tally.macs;
        tally.conv(&config.seg_layer(index), voxels[level]);
        if level > 0 {
            coarse_heads += tally.macs - before;
        }
        stage(format!("decoder.{index}"), level, tally);
    }
    let conv_macs = stages.iter().map(|s| s.macs).sum::<u64>();
    Cost {
        input,
        parameters: num_parameters(config),
        macs,
        conv_macs,
        conv_macs_main_head: conv_macs - coarse_heads,
        conv_macs_predict: conv_macs - coarse_heads,
        activation_bytes: stages.iter().map(|s| s.activation_bytes).sum(),
        stages,
    }
}

#[derive(Default)]
struct Tally {
    parameters: u64,
    macs: u64,
    /// As torchinfo counts: every parameter of a convolution times the voxels it writes, those of a
    /// norm once.
    torchinfo: u64,
    activations: u64,
}

impl Tally {
    fn conv(&mut self, shape: &ConvShape, voxels: u64) {
        let weights = self.count(shape, voxels);
        self.macs += weights * voxels;
    }

    /// Every voxel that is read meets every weight once.
    fn transposed(&mut self, shape: &ConvShape, voxels: u64, read: u64) {
        let weights = self.count(shape, voxels);
        self.macs += weights * read;
    }

    fn count(&mut self, shape: &ConvShape, voxels: u64) -> u64 {
        let weights = (shape.input * shape.output * shape.kernel.iter().product::<usize>()) as u64;
        let bias = if shape.bias { shape.output as u64 } else { 0 };
        self.parameters += weights + bias;
        self.torchinfo += (weights + bias) * voxels;
        self.activations += shape.output as u64 * voxels;
        weights
    }

    /// A convolution, and its norm with the activation.
    fn block(&mut self, shape: &ConvShape, voxels: u64) {
        self.conv(shape, voxels);
        let norm = 2 * shape.output as u64;
        self.parameters += norm;
        self.torchinfo += norm;
        self.activations += shape.output as u64 * voxels;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_add_up() {
        let config = PlainConvUNetConfig::new(
            2,
            5,
            vec![8, 16, 32],
            vec![[1, 3, 3], [3; 3], [3; 3]],
            vec![[1; 3], [1, 2, 2], [2; 3]],
            vec![2, 3, 2],
            vec![2, 1],
        );
        for config in [config.clone(), PlainConvUNetConfig { conv_bias: false, ..config }] {
            let cost = cost(&config, [16, 32, 32]);
            let parameters: u64 = cost.stages.iter().map(|s| s.parameters).sum();
            assert_eq!(parameters, cost.parameters);
            assert!(cost.conv_macs_predict < cost.conv_macs && cost.conv_macs < cost.macs);
        }
    }
}
