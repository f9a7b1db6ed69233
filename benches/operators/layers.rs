//! The convolutions of a network, with the shapes they have in a window.

use crate::case::{Case, Convolution};
use stunet::model::{NUM_STAGES, StuNetConfig};

/// Every 3×3×3 convolution, in the order they run.
pub fn convolutions(size: &str, config: &StuNetConfig, patch: [usize; 3]) -> Vec<Case> {
    let (sizes, width) = (config.stage_sizes(patch), config.width);
    let mut cases = Vec::new();
    let mut push = |name: String, convolution| cases.push(Case::convolution(name, convolution));
    let same = |stage: usize| Convolution::new([width[stage], 0], width[stage], sizes[stage]);
    for stage in 0..NUM_STAGES {
        let first = if stage == 0 {
            Convolution::new([config.in_channels, 0], width[0], sizes[0])
        } else {
            let convolution =
                Convolution::new([width[stage - 1], 0], width[stage], sizes[stage - 1]);
            Convolution { stride: config.strides[stage - 1], ..convolution }
        };
        for index in 0..2 * config.depth[stage] {
            let name = format!("{size} encoder.{stage}.{}.conv{}", index / 2, index % 2 + 1);
            push(name, if index == 0 { first.clone() } else { same(stage) });
        }
    }
    for (u, stage) in (0..NUM_STAGES - 1).rev().enumerate() {
        let first = Convolution::new([width[stage]; 2], width[stage], sizes[stage]);
        for index in 0..2 * config.depth[stage] {
            let name = format!("{size} decoder.{u}.{}.conv{}", index / 2, index % 2 + 1);
            push(name, if index == 0 { first.clone() } else { same(stage) });
        }
    }
    cases
}
