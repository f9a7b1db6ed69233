//! The parts of a configuration whose spelling is all there is to them.

use super::super::memory;
use super::super::pooling::Topology;
use serde_json::{Value, json};

/// The resampling functions, of which there is one.
pub(super) fn resampling() -> Value {
    let function = "resample_data_or_seg_to_shape";
    let arguments = |is_seg: bool, order: usize| json!({"is_seg": is_seg, "order": order, "order_z": 0, "force_separate_z": null});
    json!({
        "resampling_fn_data": function,
        "resampling_fn_seg": function,
        "resampling_fn_data_kwargs": arguments(false, 3),
        "resampling_fn_seg_kwargs": arguments(true, 1),
        "resampling_fn_probabilities": function,
        "resampling_fn_probabilities_kwargs": arguments(false, 1),
    })
}

/// The reference's lists have an entry for the first stage, which halves nothing.
fn all_strides(network: &Topology) -> Vec<Vec<usize>> {
    let first = vec![1; network.patch.len()];
    std::iter::once(first).chain(network.strides.iter().cloned()).collect()
}

/// The flat keys of version 2.2.
pub(super) fn flat_architecture(network: &Topology) -> Value {
    let stages = network.strides.len() + 1;
    json!({
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": memory::BASE_FEATURES,
        "n_conv_per_stage_encoder": vec![memory::CONVOLUTIONS; stages],
        "n_conv_per_stage_decoder": vec![memory::CONVOLUTIONS; stages - 1],
        "num_pool_per_axis": network.num_pool,
        "pool_op_kernel_sizes": all_strides(network),
        "conv_kernel_sizes": network.kernels,
        "unet_max_num_features": memory::max_features(network.patch.len()),
    })
}

/// The nested entry of version 2.8.
pub(super) fn architecture(network: &Topology) -> Value {
    let stages = network.strides.len() + 1;
    let axes = network.patch.len();
    json!({
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": stages,
            "features_per_stage": memory::features(network),
            "conv_op": format!("torch.nn.modules.conv.Conv{axes}d"),
            "kernel_sizes": network.kernels,
            "strides": all_strides(network),
            "n_conv_per_stage": vec![memory::CONVOLUTIONS; stages],
            "n_conv_per_stage_decoder": vec![memory::CONVOLUTIONS; stages - 1],
            "conv_bias": true,
            "norm_op": format!("torch.nn.modules.instancenorm.InstanceNorm{axes}d"),
            "norm_op_kwargs": {"eps": 1e-5, "affine": true},
            "dropout_op": null,
            "dropout_op_kwargs": null,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": true},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    })
}
