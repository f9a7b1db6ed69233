//! What a network costs: parameters, multiply-adds by stage, activation memory.

use crate::{NUM_STAGES, ParameterKind, StuNetConfig};
use serde::Serialize;
use stunet_kernels::kept_weight_cost;

/// The cost of one stage of the network.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StageCost {
    /// `encoder.0` … `encoder.5`, then `decoder.0` (coarsest) … `decoder.4`.
    pub name: String,
    /// Spatial size, `[z, y, x]`.
    pub size: [usize; 3],
    /// Features.
    pub width: usize,
    /// Parameters.
    pub parameters: u64,
    /// Multiply-adds of the convolutions, for one sample.
    pub macs: u64,
    /// Bytes of the activations this stage writes (convolution outputs, norms, head), for one
    /// sample in f32.
    pub activation_bytes: u64,
}

/// The cost of a network on one input.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cost {
    /// Input size, `[z, y, x]`.
    pub input: [usize; 3],
    /// All parameters.
    pub parameters: u64,
    /// Multiply-adds as torchinfo counts them (`total_mult_adds`): all heads, biases and norm
    /// parameters included. The STU-Net README calls this number FLOPs.
    pub macs: u64,
    /// Multiply-adds of the convolutions alone, all five heads, counted as the reference runs them.
    pub conv_macs: u64,
    /// The same with the finest head alone, as prediction needs.
    pub conv_macs_main_head: u64,
    /// What ours spends for a prediction: the finest head alone, and the 1×1×1 convolutions of the
    /// upsamplings run before upsampling.
    pub conv_macs_predict: u64,
    /// Bytes of all activations a forward pass writes, for one sample in f32; a training step
    /// keeps most of them.
    pub activation_bytes: u64,
    /// By stage.
    pub stages: Vec<StageCost>,
}

/// Number of parameters.
pub fn num_parameters(config: &StuNetConfig) -> u64 {
    config.parameter_specs().iter().map(|s| s.shape.iter().product::<usize>() as u64).sum()
}

/// Planes of a window whose logits are computed at a time: what fits into 32 MiB, but at least one. Pieces
/// of 128 MiB took a tenth of a prediction for pages that the system clears.
///
/// # Shapes
/// `plane` is `[y, x]` in voxels.
pub fn planes_per_piece(num_classes: usize, plane: [usize; 2]) -> usize {
    const PIECE_BYTES: usize = 32 << 20;
    let bytes = num_classes * plane[0] * plane[1] * size_of::<f32>();
    (PIECE_BYTES / bytes.max(1)).max(1)
}

/// Most bytes a prediction of one window holds at a time on the host, weights not counted: an
/// estimate from above.
///
/// At every stage: the skips that wait for the decoder, and six volumes of the stage's width, of
/// which a block holds no more; at the end the features and two pieces of the logits.
pub fn predict_peak_bytes(config: &StuNetConfig, input: [usize; 3]) -> u64 {
    let sizes = config.stage_sizes(input);
    let volume =
        |level: usize| (config.width[level] * sizes[level].iter().product::<usize>()) as u64;
    let skips = |below: usize| (0..below).map(volume).sum::<u64>();
    let stage = |level: usize| skips(level) + 6 * volume(level);
    let piece = planes_per_piece(config.num_classes, [input[1], input[2]]).min(input[0]);
    let head = 2 * volume(0) + 2 * (config.num_classes * piece * input[1] * input[2]) as u64;
    (0..NUM_STAGES).map(stage).fold(head, u64::max) * size_of::<f32>() as u64
}

/// Bytes that [`keep_weights`](crate::keep_weights) needs for the 3×3×3 convolutions of a network on windows of
/// size `input`, `[z, y, x]`.
pub fn kept_weight_bytes(config: &StuNetConfig, input: [usize; 3]) -> u64 {
    let sizes = config.stage_sizes(input);
    let block = |first: [usize; 2], level: usize, size: [usize; 3], stride: [usize; 3]| {
        let [inputs, width] = first;
        let others = (2 * config.depth[level]).saturating_sub(1) as u64;
        kept_weight_cost([width, inputs], size, stride)
            + others * kept_weight_cost([width; 2], sizes[level], [1; 3])
    };
    let encoder = (0..NUM_STAGES).map(|level| match level {
        0 => block([config.in_channels, config.width[0]], 0, input, [1; 3]),
        _ => {
            let channels = [config.width[level - 1], config.width[level]];
            block(channels, level, sizes[level - 1], config.strides[level - 1])
        }
    });
    let decoder = config.upsamplings().into_iter().map(|(_, fine)| {
        block([2 * config.width[fine], config.width[fine]], fine, sizes[fine], [1; 3])
    });
    encoder.chain(decoder).sum()
}

/// The cost of a network on one sample of size `input`, `[z, y, x]`.
///
/// ```
/// use stunet_model::{StuNetConfig, cost};
/// let cost = cost::cost(&StuNetConfig::small(1, 105), [128; 3]);
/// assert_eq!(cost.macs, 130_633_889_152);
/// ```
pub fn cost(config: &StuNetConfig, input: [usize; 3]) -> Cost {
    let sizes = config.stage_sizes(input);
    let voxels: [u64; NUM_STAGES] = sizes.map(|s| s.iter().product::<usize>() as u64);
    let mut tally = Tally::default();
    let mut stages = Vec::new();
    let mut stage = |name: String, level: usize, costs: StageTally| {
        stages.push(StageCost {
            name,
            size: sizes[level],
            width: config.width[level],
            parameters: costs.parameters,
            macs: costs.macs,
            activation_bytes: costs.activations * size_of::<f32>() as u64,
        });
    };
    let specs = config.parameter_specs();
    let weights: u64 = specs.iter().map(|s| Tally::torchinfo(s, &voxels)).sum();

    let mut channels = config.in_channels as u64;
    for (level, &voxels) in voxels.iter().enumerate() {
        let width = config.width[level] as u64;
        let blocks = StageTally::blocks(channels, width, config.depth[level], voxels);
        stage(format!("encoder.{level}"), level, blocks);
        channels = width;
    }
    for (u, (coarse, fine)) in config.upsamplings().into_iter().enumerate() {
        let (from, width) = (config.width[coarse] as u64, config.width[fine] as u64);
        let classes = config.num_classes as u64;
        let mut costs = StageTally::blocks(2 * width, width, config.depth[fine], voxels[fine]);
        costs.conv(from, width, 1, voxels[fine]);
        // Concatenation copies both halves.
        costs.activations += 2 * width * voxels[fine];
        tally.upsample += (from * width * voxels[fine], from * width * voxels[coarse]);
        costs.conv(width, classes, 1, voxels[fine]);
        if fine > 0 {
            tally.coarse_heads += width * classes * voxels[fine];
        }
        stage(format!("decoder.{u}"), fine, costs);
    }

    let conv_macs = stages.iter().map(|s| s.macs).sum::<u64>();
    let main = conv_macs - tally.coarse_heads;
    Cost {
        input,
        parameters: num_parameters(config),
        macs: weights,
        conv_macs,
        conv_macs_main_head: main,
        conv_macs_predict: main - tally.upsample.0 + tally.upsample.1,
        activation_bytes: stages.iter().map(|s| s.activation_bytes).sum(),
        stages,
    }
}

#[derive(Default)]
struct Tally {
    coarse_heads: u64,
    upsample: Pair,
}

#[derive(Default)]
struct Pair(u64, u64);

impl std::ops::AddAssign<(u64, u64)> for Pair {
    fn add_assign(&mut self, other: (u64, u64)) {
        self.0 += other.0;
        self.1 += other.1;
    }
}

impl Tally {
    /// torchinfo multiplies every parameter of a convolution, its bias too, by the voxels it
    /// writes, and counts a norm's parameters once.
    fn torchinfo(spec: &crate::ParameterSpec, voxels: &[u64; NUM_STAGES]) -> u64 {
        let values = spec.shape.iter().product::<usize>() as u64;
        match spec.kind {
            ParameterKind::ConvWeight | ParameterKind::ConvBias { .. } => {
                values * voxels[spec.stage]
            }
            ParameterKind::NormWeight | ParameterKind::NormBias => values,
        }
    }
}

#[derive(Default)]
struct StageTally {
    parameters: u64,
    macs: u64,
    activations: u64,
}

impl StageTally {
    fn conv(&mut self, input: u64, output: u64, kernel: u64, voxels: u64) {
        let weights = input * output * kernel.pow(3);
        self.parameters += weights + output;
        self.macs += weights * voxels;
        self.activations += output * voxels;
    }

    fn blocks(input: u64, output: u64, depth: usize, voxels: u64) -> Self {
        let mut tally = Self::default();
        for block in 0..depth {
            let input = if block == 0 { input } else { output };
            tally.conv(input, output, 3, voxels);
            tally.conv(output, output, 3, voxels);
            if block == 0 {
                tally.conv(input, output, 1, voxels);
            }
            // Two norms with their activations, each writing once.
            tally.parameters += 4 * output;
            tally.activations += 2 * output * voxels;
        }
        tally
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StuNetSize;

    #[test]
    fn stages_add_up() {
        for size in StuNetSize::ALL {
            let config = StuNetConfig::new(size, 1, 105);
            let cost = cost(&config, [128; 3]);
            let parameters: u64 = cost.stages.iter().map(|s| s.parameters).sum();
            assert_eq!(parameters, cost.parameters, "{size:?}");
            assert!(cost.conv_macs_predict < cost.conv_macs_main_head);
        }
    }

    #[test]
    fn published_parameter_counts() {
        let count = |size| num_parameters(&StuNetConfig::new(size, 1, 105));
        assert_eq!(
            StuNetSize::ALL.map(count),
            [14_596_941, 58_262_669, 440_302_605, 1_457_326_221]
        );
    }

    /// The README's table, with its isotropic pools.
    #[test]
    fn published_macs() {
        let tera = |size| {
            let config = StuNetConfig { strides: [[2; 3]; 5], ..StuNetConfig::new(size, 1, 105) };
            format!("{:.2}", cost(&config, [128; 3]).macs as f64 / 1e12)
        };
        assert_eq!(StuNetSize::ALL.map(tera), ["0.13", "0.51", "3.81", "12.60"]);
    }
}
