//! Plans of nnU-Net 2: `plans.json` with flat keys (2.2) or a nested architecture (2.8).

use super::{
    Accumulation, ChannelPlan, Configuration, Entry, Intensity, Normalization, Plans, Reference,
    invalid, orientation_of,
};
use crate::error::Result;
use crate::labels::LabelSet;
use crate::nifti::Reader;
use serde_json::Value;

mod checks;

pub(super) use checks::{only, transpose_backward};

/// The reader of plans whose configurations nobody asks for; their labels must be of the usual kind.
pub(super) fn reader(plans: &Value) -> Result<Reader> {
    let root = Entry::root("plans", plans);
    checks::label_manager(&root)?;
    checks::reader(&root)
}

pub(super) fn import(
    plans: &Value,
    dataset: &Value,
    configuration: &str,
    own: &[&str],
) -> Result<Plans> {
    let root = Entry::root("plans", plans);
    let resolved = Configuration::of(plans, configuration)?;
    let config = resolved.root();
    if config.find("previous_stage").is_some() {
        return Err(config.get("previous_stage")?.bad("no cascade (not supported)"));
    }
    let patch_size = patch_size(&config)?;
    checks::check(&root, &config)?;
    let (strides, reference) = strides(&config)?;
    let notes = checks::notes(plans, resolved.entries());
    let resampling = checks::resampling(&config)?;
    Ok(Plans {
        reference,
        accumulation: Accumulation::F16,
        reader: checks::reader(&root)?,
        orientation: orientation_of(&root)?,
        configuration: configuration.to_owned(),
        patch_size,
        spacing_mm: config.get("spacing")?.parse("three lengths in mm")?,
        transpose_forward: root.get("transpose_forward")?.parse("an order of 0, 1, 2")?,
        strides,
        channels: channels(&root, &config, dataset, own)?,
        mirror_axes: vec![0, 1, 2],
        force_separate_z: checks::force_separate_z(&config, resampling)?,
        resampling,
        batch_size: config.get("batch_size")?.parse("a count")?,
        num_outputs: Some(LabelSet::from_dataset_json(dataset)?.num_outputs()),
        notes,
    })
}

/// The patch, whose number of axes tells networks for slices apart.
pub(super) fn patch_size(config: &Entry<'_>) -> Result<[usize; 3]> {
    let patch = config.get("patch_size")?;
    match patch.value.as_array().map(Vec::len) {
        Some(2) => Err(patch.bad(
            "three lengths, as networks for slices (2-D) are not computed here; 3d_fullres and 3d_lowres are",
        )),
        _ => patch.parse("three lengths (3-D)"),
    }
}

/// The first stage's stride is not a pooling and is left out.
fn strides(config: &Entry<'_>) -> Result<(Vec<[usize; 3]>, Reference)> {
    let (entry, reference) = match config.find("architecture") {
        Some(architecture) => {
            let arguments = architecture.get("arch_kwargs")?;
            (arguments.get("strides")?, Reference::NnUNetV28)
        }
        None => (config.get("pool_op_kernel_sizes")?, Reference::NnUNetV22),
    };
    let all: Vec<[usize; 3]> = entry.parse("a list of triples (3-D)")?;
    match all.split_first() {
        Some(([1, 1, 1], rest)) => Ok((rest.to_vec(), reference)),
        _ => Err(entry.bad("a list that starts with [1, 1, 1]")),
    }
}

fn channels(
    root: &Entry<'_>,
    config: &Entry<'_>,
    dataset: &Value,
    own: &[&str],
) -> Result<Vec<ChannelPlan>> {
    let schemes: Vec<String> = config.get("normalization_schemes")?.parse("a list of names")?;
    let masks: Vec<bool> = config.get("use_mask_for_norm")?.parse("a list of true or false")?;
    let entry = Entry::root("dataset.json", dataset);
    let names = entry.find("channel_names").or_else(|| entry.find("modality"));
    // The older name is read where the newer is missing, as nnU-Net does.
    let properties = root
        .find("foreground_intensity_properties_per_channel")
        .or_else(|| root.find("foreground_intensity_properties_by_modality"));
    if masks.len() != schemes.len() {
        let expected = format!("{} entries", schemes.len());
        return Err(invalid("plans", "use_mask_for_norm", expected, masks.len()));
    }
    schemes
        .iter()
        .zip(masks)
        .enumerate()
        .map(|(c, (scheme, use_mask))| {
            let key = c.to_string();
            let scheme = match own.contains(&scheme.as_str()) {
                true => Normalization::Own,
                false => normalization(scheme)?,
            };
            let name = names.as_ref().and_then(|n| n.find(&key)?.value.as_str());
            let needs = scheme == Normalization::Ct;
            let intensity = match properties.as_ref().and_then(|p| p.find(&key)) {
                // Other schemes may come with null or NaN statistics: nobody reads them.
                Some(entry) if needs => Some(intensity(&entry)?),
                _ => None,
            };
            Ok(ChannelPlan {
                name: name.map_or_else(|| format!("channel {c}"), str::to_owned),
                scheme,
                use_mask,
                intensity,
            })
        })
        .collect()
}

fn normalization(name: &str) -> Result<Normalization> {
    Ok(match name {
        "CTNormalization" => Normalization::Ct,
        "ZScoreNormalization" => Normalization::ZScore,
        "NoNormalization" => Normalization::None,
        "RescaleTo01Normalization" => Normalization::RescaleZeroToOne,
        "RGBTo01Normalization" => Normalization::RgbToZeroOne,
        other => {
            let expected = "one of nnU-Net 2's five schemes, or one that the caller has";
            return Err(invalid("plans", "normalization_schemes", expected, other));
        }
    })
}

fn intensity(entry: &Entry<'_>) -> Result<Intensity> {
    let number = |key| entry.get(key)?.parse("a number");
    Ok(Intensity {
        mean: number("mean")?,
        std: number("std")?,
        percentile_00_5: number("percentile_00_5")?,
        percentile_99_5: number("percentile_99_5")?,
    })
}
