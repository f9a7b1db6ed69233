//! A digest of everything that a model's predictions depend on.

use super::description::Description;
use crate::network::{Network, Outputs};
use serde_json::{Value, json};
use stunet_data::labels::LabelSet;
use stunet_data::plans::{ChannelPlan, Normalization, Plans};
use stunet_data::preprocess::resample::Resampling;
use stunet_model::weights::Digest;

/// Of the networks, whose weights have been summed up while they were loaded, and what is done around
/// them; none where a network does not say which one it is.
pub(super) fn of(networks: &[Box<dyn Network>], description: &Description) -> Option<String> {
    let Description { config, plans, labels, folds, .. } = description;
    let mut digest = Digest::default();
    for (index, network) in networks.iter().enumerate() {
        let load = folds.get(index).and_then(|fold| fold.load.as_ref());
        let known = load.and_then(|load| load.digest.clone());
        digest.part(known.or_else(|| network.identity())?.as_bytes());
    }
    for part in [json!(config), of_plans(plans), of_labels(labels)] {
        digest.part(part.to_string().as_bytes());
    }
    // STU-Net's logits go without saying, as they did before there were others.
    let outputs = networks[0].outputs();
    if outputs != Outputs::Logits {
        digest.part(json!(outputs).to_string().as_bytes());
    }
    Some(digest.finish())
}

/// The entries that voxels depend on. Every entry is named, so that a new one has to be thought of.
fn of_plans(plans: &Plans) -> Value {
    let Plans {
        // May be chosen for every prediction, and is recorded with it.
        reference: _,
        accumulation: _,
        orientation: _,
        reader,
        configuration: _,
        patch_size,
        spacing_mm,
        transpose_forward,
        strides,
        channels,
        mirror_axes,
        force_separate_z,
        resampling,
        batch_size: _,
        // The network says it.
        num_outputs: _,
        notes: _,
    } = plans;
    let channels: Vec<_> = channels.iter().map(of_channel).collect();
    let mut entries = json!([
        reader,
        patch_size,
        spacing_mm,
        transpose_forward,
        strides,
        channels,
        mirror_axes,
        force_separate_z
    ]);
    // Named only where it is not the usual one: digests of models stay what they were.
    if let (true, Some(list)) = (*resampling != Resampling::default(), entries.as_array_mut()) {
        list.push(json!(resampling));
    }
    entries
}

fn of_channel(channel: &ChannelPlan) -> Value {
    let ChannelPlan { name: _, scheme, use_mask, intensity } = channel;
    // Files keep statistics of channels that do not need them, or do not.
    let needed = matches!(scheme, Normalization::Ct | Normalization::CtPerVolume);
    json!([scheme, use_mask, intensity.filter(|_| needed)])
}

/// Values, not names: a voxel holds a value.
fn of_labels(labels: &LabelSet) -> Value {
    let values: Vec<_> = labels.labels().iter().map(|label| &label.values).collect();
    let order = labels.region_order().filter(|_| labels.has_regions());
    json!([values, order])
}
