//! The reference's estimates of a network's memory: voxels of feature maps, not bytes.
//!
//! They are about the plain U-Nets that nnU-Net plans for, not about STU-Net.

use super::pooling::Topology;

/// Convolutions of a stage.
pub(super) const CONVOLUTIONS: usize = 2;
/// Features of the first stage.
pub(super) const BASE_FEATURES: usize = 32;

/// Most features of a stage, which deep stages reach.
pub(super) fn max_features(axes: usize) -> usize {
    if axes == 2 { 512 } else { 320 }
}

/// Features of every stage, the first included.
pub(super) fn features(topology: &Topology) -> Vec<usize> {
    let most = max_features(topology.patch.len());
    let double = |features: &usize| Some((features * 2).min(most));
    std::iter::successors(Some(BASE_FEATURES), double).take(topology.strides.len() + 1).collect()
}

/// Feature maps of nnU-Net 2's `PlainConvUNet` without deep supervision, all voxels added.
///
/// # Source
/// `dynamic_network_architectures`, `compute_conv_feature_map_size`.
pub(super) fn plain_unet(topology: &Topology, num_labels: usize) -> u64 {
    let features = features(topology);
    let mut size = topology.patch.clone();
    let voxels = |size: &[usize]| size.iter().product::<usize>();
    let encoder = |size: &[usize], features| CONVOLUTIONS * features * voxels(size);
    let mut total = encoder(&size, features[0]);
    for (stage, strides) in topology.strides.iter().enumerate() {
        // Decoder of the stage above: two convolutions and one transposed.
        total += (CONVOLUTIONS + 1) * features[stage] * voxels(&size);
        size.iter_mut().zip(strides).for_each(|(n, stride)| *n /= stride);
        total += encoder(&size, features[stage + 1]);
    }
    if !topology.strides.is_empty() {
        total += num_labels * voxels(&topology.patch);
    }
    total as u64
}

/// What nnU-Net 1 takes for its `Generic_UNet`.
///
/// # Source
/// nnU-Net 1.7 `generic_UNet.py`, `compute_approx_vram_consumption`.
pub(super) fn generic_unet(topology: &Topology, num_channels: usize, num_classes: usize) -> u64 {
    let voxels = |size: &[usize]| size.iter().product::<usize>();
    let both_ways = 2 * CONVOLUTIONS + 1;
    let mut size = topology.patch.clone();
    let mut total = (both_ways * BASE_FEATURES + num_channels + num_classes) * voxels(&size);
    let stages = topology.strides.len();
    let features = features(topology);
    for (stage, strides) in topology.strides.iter().enumerate() {
        size.iter_mut().zip(strides).for_each(|(n, stride)| *n /= stride);
        let blocks = if stage + 1 < stages { both_ways } else { CONVOLUTIONS };
        total += blocks * voxels(&size) * features[stage + 1];
    }
    total as u64
}

#[cfg(test)]
mod tests {
    use super::super::pooling::{Rule, topology};
    use super::*;

    #[test]
    fn estimates() {
        // PlainConvUNet(1, 5, [32, 64, 128, 256, 320], strides of the plan, 2 convolutions, 8
        // labels).compute_conv_feature_map_size((28, 96, 112))
        let v2 = topology(Rule::V2, &[3.0; 3], &[26.0, 96.0, 108.5]);
        assert_eq!(plain_unet(&v2, 8), 67_323_648);
        // Generic_UNet.compute_approx_vram_consumption([32, 96, 112], [3, 4, 4], 32, 320, 1, 8, ..)
        let v1 = topology(Rule::V1, &[4.5, 0.8, 0.8], &[31.0, 93.0, 102.0]);
        assert_eq!(generic_unet(&v1, 1, 8), 103_520_256);
    }
}
