//! Plans of nnU-Net 1, after their pickle has become JSON.

use super::keys::{self, KeyPlace};
use super::{
    Accumulation, ChannelPlan, Entry, Intensity, Normalization, Plans, Reference, five_strides,
    invalid, orientation_of, v2,
};
use crate::error::Result;
use crate::nifti::Reader;
use crate::preprocess::resample::Resampling;
use serde_json::Value;

pub(super) fn import(value: &Value) -> Result<Plans> {
    let root = Entry::root("plans", value);
    let plans = root.find("plans").unwrap_or(Entry::root("plans", value));
    v2::only(&plans, "preprocessor_name", "GenericPreprocessor")?;
    v2::transpose_backward(&plans)?;
    let stage = stage(&root, &plans)?;
    let patch_size = v2::patch_size(&stage)?;
    let unknown = [(KeyPlace::V1Plans, plans.value), (KeyPlace::V1Stage, stage.value)];
    let mut notes: Vec<String> =
        unknown.into_iter().filter_map(|(place, value)| keys::unknown(place, value)).collect();
    let strides = stage.get("pool_op_kernel_sizes")?.parse("a list of triples")?;
    let orientation = orientation_of(&plans)?;
    let num_classes: Option<usize> = match plans.find("num_classes") {
        Some(entry) => Some(entry.parse("a count")?),
        None => None,
    };
    Ok(Plans {
        reference: Reference::NnUNetV1,
        accumulation: Accumulation::F32,
        // Version 1 has no other.
        reader: Reader::SimpleItk,
        orientation,
        configuration: "3d_fullres".to_owned(),
        patch_size,
        spacing_mm: stage.get("current_spacing")?.parse("three lengths in mm")?,
        transpose_forward: match plans.find("transpose_forward") {
            Some(entry) => entry.parse("an order of 0, 1, 2")?,
            None => [0, 1, 2],
        },
        strides: five_strides(strides, &mut notes),
        channels: channels(&plans)?,
        mirror_axes: vec![0, 1, 2],
        force_separate_z: None,
        resampling: Resampling::default(),
        batch_size: stage.get("batch_size")?.parse("a count")?,
        // The plan leaves background out.
        num_outputs: num_classes.map(|n| n.saturating_add(1)),
        notes,
    })
}

/// The stage the trainer was started with (entry 5 of its arguments), else the finest.
fn stage<'a>(root: &Entry<'a>, plans: &Entry<'a>) -> Result<Entry<'a>> {
    let stages = plans.get("plans_per_stage")?;
    let count = stages.value.as_object().map_or(0, |o| o.len());
    let started_with = root.find("init").and_then(|i| i.value.get(5)?.as_u64());
    let index = match started_with {
        Some(index) => index.to_string(),
        None => count.saturating_sub(1).to_string(),
    };
    stages.get(&index)
}

fn channels(plans: &Entry<'_>) -> Result<Vec<ChannelPlan>> {
    let schemes = plans.get("normalization_schemes")?;
    let count: usize = plans.get("num_modalities")?.parse("a count")?;
    let properties = plans.find("dataset_properties").and_then(|p| p.find("intensityproperties"));
    (0..count)
        .map(|c| {
            let key = c.to_string();
            let scheme: String = schemes.get(&key)?.parse("a scheme")?;
            let scheme = match scheme.as_str() {
                "CT" => Normalization::Ct,
                "CT2" => Normalization::CtPerVolume,
                "noNorm" => Normalization::None,
                // Whatever else is written there is treated as a modality without units.
                _ => Normalization::ZScore,
            };
            let name = match plans.find("modalities").and_then(|m| m.find(&key)) {
                Some(name) => name.parse("a name")?,
                None => format!("channel {c}"),
            };
            let use_mask = match plans.find("use_mask_for_norm").and_then(|m| m.find(&key)) {
                Some(mask) => mask.parse("true or false")?,
                None => false,
            };
            let needed = matches!(scheme, Normalization::Ct | Normalization::CtPerVolume);
            let intensity = match properties.as_ref().and_then(|p| p.find(&key)) {
                Some(entry) if needed => Some(intensity(&entry)?),
                // Nobody reads those of other schemes, which may be null or NaN.
                Some(entry) => intensity(&entry).ok(),
                None => None,
            };
            Ok(ChannelPlan { name, scheme, use_mask, intensity })
        })
        .collect::<Result<Vec<_>>>()
        .and_then(|channels| match channels.len() {
            0 => Err(invalid("plans", "num_modalities", "at least 1", 0)),
            _ => Ok(channels),
        })
}

fn intensity(entry: &Entry<'_>) -> Result<Intensity> {
    let number = |key| entry.get(key)?.parse("a number");
    Ok(Intensity {
        mean: number("mean")?,
        std: number("sd")?,
        percentile_00_5: number("percentile_00_5")?,
        percentile_99_5: number("percentile_99_5")?,
    })
}
