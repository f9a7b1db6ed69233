//! No fallback by accident: how the processor computes each layer of S and B.
#![cfg(feature = "cpu")]
#![allow(missing_docs, clippy::unwrap_used)]

use burn::tensor::{Device, Tensor};
use stunet::kernels::{Algorithm, steps};
use stunet::model::{Initialisation, NUM_STAGES, StuNetConfig, StuNetSize};

/// Output voxels from which a strided kernel is transformed: fewer are too few tiles for its transform to pay.
const STRIDED: usize = 8 * 8 * 8;

/// The stem reads a single channel, and the last stride leaves few voxels: both are summed product by product. All
/// other kernels of three voxels are transformed.
fn expected(weight: [usize; 5], entered: Option<usize>) -> Algorithm {
    let [_, inputs, kernel, ..] = weight;
    match kernel {
        1 => Algorithm::Pointwise,
        _ if inputs == 1 || entered.is_some_and(|voxels| voxels < STRIDED) => Algorithm::Direct,
        _ => Algorithm::Winograd,
    }
}

fn check(size: StuNetSize) {
    let config = StuNetConfig::new(size, 1, 105);
    let device = Device::flex();
    let network = config.init_seeded(Initialisation::NnUNetV1, 1, &device).unwrap();
    let x = Tensor::<5>::ones([1, 1, 128, 128, 128], &device);
    let (logits, steps) = steps(|| network.forward(x));
    assert_eq!(logits.dims(), [1, 105, 128, 128, 128]);

    // Each stage that is entered by a stride is one strided kernel of three voxels.
    let mut strided = 0;
    for (index, step) in steps.iter().enumerate() {
        let found = step.algorithm;
        let Some(weight) = step.weight else {
            assert_eq!(found, Algorithm::Fused, "{step:?}");
            continue;
        };
        // The norm behind a convolution sees its output.
        let output = steps[index + 1..].iter().find(|next| next.weight.is_none());
        let enters = output.filter(|next| weight[2] == 3 && next.input[4] < step.input[4]);
        let entered = enters.map(|next| next.input[2..].iter().product());
        strided += usize::from(entered.is_some());
        assert_eq!(found, expected(weight, entered), "{step:?}");
    }
    assert_eq!(strided, NUM_STAGES - 1);
    let count = |operator: &str| steps.iter().filter(|step| step.operator == operator).count();
    // Six stages down and five up, of blocks with two kernels of three voxels each, a norm behind
    // each; a convolution beside the first block of a stage, one before each upsampling, a head.
    let blocks = 2 * config.depth.iter().sum::<usize>() - config.depth[NUM_STAGES - 1];
    let (stages, ups) = (2 * NUM_STAGES - 1, NUM_STAGES - 1);
    assert_eq!(count("norm_activation"), blocks);
    assert_eq!(count("norm_residual_activation"), blocks);
    assert_eq!(count("upsample_nearest"), ups);
    assert_eq!(count("conv3d_joined"), 2 * ups);
    assert_eq!(count("conv3d") + count("conv3d_joined"), 2 * blocks + stages + ups + 1);
}

#[test]
fn small() {
    check(StuNetSize::Small);
}

#[test]
fn base() {
    check(StuNetSize::Base);
}
