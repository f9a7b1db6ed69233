//! nnU-Net 2's plans as a network was trained by them.

use super::ModelDescription;
use serde_json::{Map, Value, json};
use stunet_data::plans::{Configuration, Plans};
use stunet_model::StuNetConfig;

/// The plans that were given, with what was used in place of what was not: patch and batch of the
/// command line, the five strides, STU-Net's kernels, widths and depths, and whatever else `about`
/// has otherwise. `made` are plans of that training alone, in the layout of version 2.2; `dataset` is
/// its `dataset.json`.
///
/// Entries that say the same already stay as they are, to the letter.
pub(super) fn as_trained(
    given: &Value,
    (made, dataset): (&Value, &Value),
    about: &ModelDescription,
    config: &StuNetConfig,
) -> Value {
    let (used, name) = (&about.plans, about.plans.configuration.as_str());
    let Ok(configuration) = Configuration::of(given, name) else {
        return made.clone();
    };
    let read = Plans::from_v2_json(given, dataset, name).ok();
    let same = |same: &dyn Fn(&Plans) -> bool| read.as_ref().is_some_and(same);
    let norms = |plans: &Plans| -> Vec<_> {
        plans.channels.iter().map(|channel| (channel.scheme, channel.use_mask)).collect()
    };
    let resampled = |plans: &Plans| (plans.resampling, plans.force_separate_z);
    let statistics = |plans: &Plans| -> Vec<_> {
        plans.channels.iter().map(|channel| channel.intensity).collect()
    };
    let own: [(bool, &[&str]); 6] = [
        (same(&|p| p.patch_size == used.patch_size), &["patch_size"]),
        (same(&|p| p.batch_size == used.batch_size), &["batch_size"]),
        (same(&|p| p.spacing_mm == used.spacing_mm), &["spacing"]),
        (same(&|p| norms(p) == norms(used)), &["normalization_schemes", "use_mask_for_norm"]),
        (same(&|p| resampled(p) == resampled(used)), &RESAMPLING),
        (configuration.batch_dice().is_ok_and(|is| is == about.batch_dice), &["batch_dice"]),
    ];
    let shared: [(bool, &[&str]); 2] = [
        (
            same(&|p| p.transpose_forward == used.transpose_forward),
            &["transpose_forward", "transpose_backward"],
        ),
        (
            same(&|p| statistics(p) == statistics(used)),
            &["foreground_intensity_properties_per_channel"],
        ),
    ];
    let mut plans = given.clone();
    replace(&mut plans, made, &shared);
    let (entry, made) = (&mut plans["configurations"][name], &made["configurations"][name]);
    replace(entry, made, &own);
    match configuration.entries().get("architecture") {
        Some(architecture) => entry["architecture"] = nested(architecture, made, config),
        None => replace(entry, made, &[(false, &FLAT)]),
    }
    plans
}

const RESAMPLING: [&str; 6] = [
    "resampling_fn_data",
    "resampling_fn_seg",
    "resampling_fn_probabilities",
    "resampling_fn_data_kwargs",
    "resampling_fn_seg_kwargs",
    "resampling_fn_probabilities_kwargs",
];

/// The network in the layout of version 2.2, its class aside.
const FLAT: [&str; 7] = [
    "UNet_base_num_features",
    "unet_max_num_features",
    "n_conv_per_stage_encoder",
    "n_conv_per_stage_decoder",
    "num_pool_per_axis",
    "pool_op_kernel_sizes",
    "conv_kernel_sizes",
];

/// Takes over the entries that are not the same.
fn replace(into: &mut Value, made: &Value, entries: &[(bool, &[&str])]) {
    for key in entries.iter().filter(|(same, _)| !same).flat_map(|(_, keys)| *keys) {
        if let Some(value) = made.get(key) {
            into[*key] = value.clone();
        }
    }
}

/// The network in the layout of version 2.8; its class is the trainer's affair.
fn nested(given: &Value, made: &Value, config: &StuNetConfig) -> Value {
    let mut architecture = given.clone();
    let Some(arguments) = architecture.get_mut("arch_kwargs").and_then(Value::as_object_mut) else {
        return architecture;
    };
    let residual = arguments.contains_key("n_blocks_per_stage");
    let blocks = if residual { "n_blocks_per_stage" } else { "n_conv_per_stage" };
    let used: Map<String, Value> = [
        ("n_stages", json!(config.width.len())),
        ("features_per_stage", json!(config.width)),
        ("kernel_sizes", made["conv_kernel_sizes"].clone()),
        ("strides", made["pool_op_kernel_sizes"].clone()),
        (blocks, json!(config.depth)),
        ("n_conv_per_stage_decoder", json!(config.depth[..5])),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into_iter()
    .collect();
    arguments.extend(used);
    architecture
}
