//! STU-Net in eight bits, for predictions on processors that multiply eight-bit numbers fast.
//!
//! Inputs and weights of all convolutions are rounded to eight bits, but those of the first one and of the head, which
//! stay in `f32`. Sums, norms, activations and residuals are not rounded to eight bits: see
//! [`stunet_kernels::eight_bit`]. Nothing is calibrated: the scales are those of the window at hand.

use crate::block::{Conv, ResidualBlock};
use crate::{NUM_UPSAMPLINGS, StuNet, StuNetConfig};
use burn::tensor::{Device, Tensor, TensorData};
use stunet_kernels::PointwiseRows;
use stunet_kernels::eight_bit::{
    EightBitCodes, EightBitConv, EightBitNorm, EightBitResidual, EightBitSums, EightBitValues,
};

/// Channels of a vector, to whole numbers of which they are filled up.
const VECTOR: usize = 16;

/// Feature maps at full resolution up to which eight bits are at least 1.3 times faster, measured: STU-Net S 1.4, B 1.3,
/// L 1.2 times.
const MOST_FEATURES: usize = 32;

/// An [`StuNet`] whose convolutions are computed in eight bits; it can predict alone.
///
/// Its values are an approximation, whose labels differ from those of the network in `f32`: by how much depends on the
/// network, and should be measured before it is relied upon. They do not depend on the number of threads, and but for the
/// first convolution and the head not on the processor either.
pub struct EightBitStuNet {
    config: StuNetConfig,
    first: FirstBlock,
    encoder: Vec<Vec<Block>>,
    upsample: Vec<EightBitConv>,
    decoder: Vec<Vec<Block>>,
    head: PointwiseRows,
    device: Device,
    digest: String,
}

/// The block that reads the image.
struct FirstBlock {
    conv1: Conv,
    /// Weight and bias of the skip convolution.
    skip: [Vec<f32>; 2],
    norm1: EightBitNorm,
    conv2: EightBitConv,
    norm2: EightBitNorm,
}

/// A block that reads codes.
struct Block {
    conv1: EightBitConv,
    norm1: EightBitNorm,
    conv2: EightBitConv,
    norm2: EightBitNorm,
    /// None where the residual is the block's input.
    skip: Option<EightBitConv>,
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    let data = tensor.into_data().convert::<f32>();
    data.try_into_vec().expect("converted to f32")
}

fn eight_bits(conv: &Conv, parts: &[usize]) -> EightBitConv {
    let kernel = conv.weight.val().dims()[2];
    EightBitConv::new(&values(conv.weight.val()), &values(conv.bias.val()), parts, kernel)
}

impl Block {
    fn new(block: &ResidualBlock, parts: &[usize]) -> Self {
        let [_, width] = block.conv1.channels();
        Self {
            conv1: eight_bits(&block.conv1, parts),
            norm1: block.norm1.eight_bits(),
            conv2: eight_bits(&block.conv2, &[width]),
            norm2: block.norm2.eight_bits(),
            skip: block.skip.as_ref().map(|skip| eight_bits(skip, parts)),
        }
    }

    /// What the second norm is given.
    fn sums(&self, parts: &[&EightBitCodes], stride: [usize; 3]) -> EightBitSums {
        let codes = self.conv1.sums(parts, stride).normed(&self.norm1);
        self.conv2.sums(&[&codes], [1; 3])
    }

    /// What is added behind the second norm; `values` are those of the input.
    fn residual<'a>(
        &'a self,
        parts: &'a [&'a EightBitCodes],
        stride: [usize; 3],
        values: Option<&'a EightBitValues>,
    ) -> EightBitResidual<'a> {
        match (&self.skip, values) {
            (Some(conv), _) => EightBitResidual::Convolved { conv, parts, stride },
            (None, Some(values)) => EightBitResidual::Values(values),
            (None, None) => unreachable!("the first block of a stage has a skip convolution"),
        }
    }

    fn run(
        &self,
        parts: &[&EightBitCodes],
        stride: [usize; 3],
        values: Option<&EightBitValues>,
    ) -> EightBitValues {
        let sums = self.sums(parts, stride);
        sums.normed_with(&self.norm2, &self.residual(parts, stride, values))
    }

    fn planes(&self, parts: &[&EightBitCodes], values: Option<&EightBitValues>) -> TensorData {
        let sums = self.sums(parts, [1; 3]);
        sums.normed_planes(&self.norm2, &self.residual(parts, [1; 3], values))
    }
}

impl EightBitStuNet {
    /// Takes over the parameters of a network; none where it is not on the processor.
    pub fn new(network: &StuNet) -> Option<Self> {
        let config = network.config();
        let head = network.finest_head_rows()?;
        let StuNet { encoder, decoder } = network;
        let first = FirstBlock::new(&encoder.stages[0][0])?;
        let width = config.width;
        let stages = encoder.stages.iter().enumerate().map(|(stage, blocks)| {
            let inputs = |block: usize| match (stage, block) {
                (1.., 0) => width[stage - 1],
                _ => width[stage],
            };
            // The very first block reads the image.
            let blocks = blocks.iter().enumerate().skip(usize::from(stage == 0));
            blocks.map(|(index, block)| Block::new(block, &[inputs(index)])).collect()
        });
        let ups = config.upsamplings();
        let upsample = decoder.upsample.iter().zip(&ups);
        let upsample = upsample.map(|(conv, (coarse, _))| eight_bits(conv, &[width[*coarse]]));
        let climb = decoder.stages.iter().zip(&ups).map(|(blocks, (_, fine))| {
            let blocks = blocks.iter().enumerate();
            let parts =
                |index: usize| if index == 0 { vec![width[*fine]; 2] } else { vec![width[*fine]] };
            blocks.map(|(index, block)| Block::new(block, &parts(index))).collect()
        });
        Some(Self {
            first,
            encoder: stages.collect(),
            upsample: upsample.collect(),
            decoder: climb.collect(),
            head,
            device: encoder.stages[0][0].conv1.weight.val().device(),
            digest: format!("{} in eight bits", network.digest()),
            config,
        })
    }

    /// Whether a network of this configuration gains time in eight bits where the processor has instructions for them:
    /// those that have a vector of feature maps at full resolution, or two. In wider ones minimal filtering in `f32` needs
    /// as many fewer products as the processor forms more of them in eight bits; narrower ones are filled up to a vector.
    pub fn pays(config: &StuNetConfig) -> bool {
        (VECTOR..=MOST_FEATURES).contains(&config.width[0])
    }

    /// The configuration of the network.
    pub fn config(&self) -> &StuNetConfig {
        &self.config
    }

    /// What tells it from every other network, whatever file it came from.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Where it computes.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The finest head, for features on the host, row by row.
    pub fn finest_head_rows(&self) -> &PointwiseRows {
        &self.head
    }

    /// Most bytes held at a time for a window of a size `[z, y, x]`, weights not counted: an estimate from above.
    ///
    /// At full resolution a voxel has, of each channel, the codes of two parts and of what lies between two convolutions,
    /// sums in half precision and features in `f32`; all other stages together hold less than a third of that.
    pub fn peak_bytes(config: &StuNetConfig, window: [usize; 3]) -> u64 {
        let voxels = window.iter().map(|len| len + 2).product::<usize>();
        let channels = config.width[0].next_multiple_of(VECTOR);
        let finest = voxels * (9 * channels + 8 * config.in_channels);
        let weights =
            config.width.iter().zip(config.width.iter().skip(1).chain([&config.width[5]]));
        let largest = weights.map(|(fine, coarse)| 54 * fine.max(coarse) * coarse).max();
        (finest + finest / 3 + largest.unwrap_or(0)) as u64
    }

    /// What the finest head makes the logits of.
    ///
    /// Where a value between is too large for half precision, or the image has a voxel that is no finite number, all are
    /// NaN.
    ///
    /// # Shapes
    /// `[1, Cin, Z, Y, X]` gives `[1, width[0], Z, Y, X]`.
    ///
    /// # Panics
    /// As [`StuNet::forward`], and for more than one sample.
    pub fn finest_features(&self, x: Tensor<5>) -> Tensor<5> {
        let [batch, channels, size @ ..] = x.dims();
        assert_eq!(
            (batch, channels),
            (1, self.config.in_channels),
            "one sample of the network's channels"
        );
        if let Err(error) = self.config.validate_patch(size) {
            panic!("{error}");
        }
        let shape = [1, self.config.width[0], size[0], size[1], size[2]];
        match self.run(x, size) {
            Some(features) => Tensor::from_data(features, &self.device),
            None => Tensor::full(shape, f32::NAN, &self.device),
        }
    }

    /// None where a value is not finite.
    fn run(&self, x: Tensor<5>, size: [usize; 3]) -> Option<TensorData> {
        let mut features = self.encode(x, size)?;
        let mut codes = features.pop().expect("an encoder has stages");
        for index in 0..NUM_UPSAMPLINGS {
            let beside = features.pop().expect("codes beside each upsampling");
            let values = self.upsample[index].values(&[&codes]);
            let factors = self.config.strides[NUM_UPSAMPLINGS - 1 - index];
            let up = finite(values.codes(factors))?;
            drop(codes);
            let blocks = &self.decoder[index];
            if index + 1 == NUM_UPSAMPLINGS {
                return finest(blocks, &[&up, &beside]);
            }
            let values = stage(blocks, &[&up, &beside], [1; 3])?;
            codes = finite(values.codes([1; 3]))?;
        }
        unreachable!("the last upsampling returns")
    }

    /// The codes of all stages, finest first.
    fn encode(&self, x: Tensor<5>, size: [usize; 3]) -> Option<Vec<EightBitCodes>> {
        let values = self.first.run(x, size)?;
        let values = rest(&self.encoder[0], values)?;
        let mut features = vec![finite(values.codes([1; 3]))?];
        drop(values);
        for (blocks, stride) in self.encoder.iter().skip(1).zip(self.config.strides) {
            let values = stage(blocks, &[features.last()?], stride)?;
            features.push(finite(values.codes([1; 3]))?);
        }
        Some(features)
    }
}

fn finite(codes: EightBitCodes) -> Option<EightBitCodes> {
    codes.is_finite().then_some(codes)
}

/// All blocks of a stage.
fn stage(blocks: &[Block], parts: &[&EightBitCodes], stride: [usize; 3]) -> Option<EightBitValues> {
    let (first, others) = blocks.split_first()?;
    rest(others, first.run(parts, stride, None))
}

/// Those behind the first.
fn rest(blocks: &[Block], mut values: EightBitValues) -> Option<EightBitValues> {
    for block in blocks {
        let codes = finite(values.codes([1; 3]))?;
        values = block.run(&[&codes], [1; 3], Some(&values));
    }
    Some(values)
}

/// The last stage, whose features are in `f32`.
fn finest(blocks: &[Block], parts: &[&EightBitCodes]) -> Option<TensorData> {
    let (last, before) = blocks.split_last()?;
    if before.is_empty() {
        return Some(last.planes(parts, None));
    }
    let values = stage(before, parts, [1; 3])?;
    let codes = finite(values.codes([1; 3]))?;
    Some(last.planes(&[&codes], Some(&values)))
}

impl FirstBlock {
    fn new(block: &ResidualBlock) -> Option<Self> {
        let [_, width] = block.conv1.channels();
        let skip = block.skip.as_ref()?;
        Some(Self {
            conv1: block.conv1.clone(),
            skip: [values(skip.weight.val()), values(skip.bias.val())],
            norm1: block.norm1.eight_bits(),
            conv2: eight_bits(&block.conv2, &[width]),
            norm2: block.norm2.eight_bits(),
        })
    }

    fn run(&self, x: Tensor<5>, size: [usize; 3]) -> Option<EightBitValues> {
        let sums = self.conv1.forward(x.clone(), [1; 3]).into_data();
        let codes = EightBitCodes::of_normed(sums.as_slice().ok()?, size, &self.norm1);
        drop(sums);
        let sums = self.conv2.sums(&[&finite(codes)?], [1; 3]);
        let image = x.into_data();
        let [weight, bias] = &self.skip;
        let values = image.as_slice().ok()?;
        Some(sums.normed_with(&self.norm2, &EightBitResidual::Image { values, weight, bias }))
    }
}

#[cfg(test)]
mod tests;
