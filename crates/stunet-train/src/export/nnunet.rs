//! nnU-Net's descriptions of a model, made from ours.

use super::ModelDescription;
use super::as_trained::as_trained;
use serde_json::{Map, Value, json};
use stunet_data::dataset::in_version_2;
use stunet_data::plans::{Intensity, Normalization, Plans, keys};
use stunet_data::preprocess::resample::Resampling;
use stunet_model::StuNetConfig;

/// The content of a `.model.pkl`: `init`, `name` and `plans`. Keys that are integers in Python are
/// digits here.
pub fn v1_plan_file(about: &ModelDescription) -> Value {
    let plans = &about.plans;
    let by_channel = |value: &dyn Fn(usize) -> Value| -> Value {
        let channels = 0..plans.channels.len();
        Value::Object(channels.map(|c| (c.to_string(), value(c))).collect::<Map<_, _>>())
    };
    let scheme = |c: usize| match plans.channels[c].scheme {
        Normalization::Ct => "CT",
        Normalization::CtPerVolume => "CT2",
        Normalization::None => "noNorm",
        _ => "nonCT",
    };
    let intensities = match plans.channels.iter().any(|c| c.intensity.is_some()) {
        false => Value::Null,
        true => by_channel(&|c| plans.channels[c].intensity.map_or(Value::Null, v1_intensity)),
    };
    let num_classes = about.labels.num_outputs() - 1;
    let mut json = json!({
        "init": ["", fold(about), "", "", about.batch_dice, 0, true, false, true],
        "name": about.trainer,
        "plans": {
            "num_stages": 1,
            "num_modalities": plans.channels.len(),
            "modalities": by_channel(&|c| json!(plans.channels[c].name)),
            "normalization_schemes": by_channel(&|c| json!(scheme(c))),
            "dataset_properties": { "intensityproperties": intensities },
            "use_mask_for_norm": by_channel(&|c| json!(plans.channels[c].use_mask)),
            "num_classes": num_classes,
            "all_classes": (1..=num_classes).collect::<Vec<_>>(),
            "base_num_features": 32,
            "conv_per_stage": 2,
            "keep_only_largest_region": null,
            "min_region_size_per_class": null,
            "min_size_per_class": null,
            "transpose_forward": plans.transpose_forward,
            "transpose_backward": plans.transpose_backward(),
            "data_identifier": "nnUNetData_plans_v2.1",
            "preprocessor_name": "GenericPreprocessor",
            "plans_per_stage": { "0": v1_stage(plans) },
        },
    });
    json["plans"] = saying_axes(json["plans"].take(), plans);
    json
}

/// Plans of nnU-Net with our entry on how the axes of the training images ran.
fn saying_axes(mut json: Value, plans: &Plans) -> Value {
    if let Some(orientation) = plans.orientation {
        json[keys::ORIENTATION] = json!(orientation);
    }
    json
}

fn v1_intensity(i: Intensity) -> Value {
    json!({
        "mean": i.mean, "sd": i.std,
        "percentile_00_5": i.percentile_00_5, "percentile_99_5": i.percentile_99_5,
    })
}

/// The one stage of version 1's plans.
fn v1_stage(plans: &Plans) -> Value {
    let pools: Vec<usize> =
        (0..3).map(|axis| plans.strides.iter().filter(|s| s[axis] > 1).count()).collect();
    let patch = plans.patch_size;
    json!({
        "batch_size": plans.batch_size,
        "num_pool_per_axis": pools,
        "patch_size": patch,
        "median_patient_size_in_voxels": patch,
        "current_spacing": plans.spacing_mm,
        "original_spacing": plans.spacing_mm,
        "do_dummy_2D_data_aug": patch.iter().max() > Some(&(3 * patch[0])),
        "pool_op_kernel_sizes": plans.strides,
        "conv_kernel_sizes": vec![[3; 3]; plans.strides.len() + 1],
    })
}

fn fold(about: &ModelDescription) -> Value {
    about.fold.parse::<u64>().map_or_else(|_| json!(about.fold), |number| json!(number))
}

/// nnU-Net 2's `plans.json` of a model: the one the plans came from, with what the training used in
/// place of what it did not, else one of its own in the layout of version 2.2.
pub fn v2_plans(about: &ModelDescription, config: &StuNetConfig) -> Value {
    let made = made_plans(about, config);
    match &about.nnunet_plans {
        Some(given) => as_trained(given, (&made, &v2_dataset(about)), about, config),
        None => made,
    }
}

/// Plans with the one configuration of this model.
fn made_plans(about: &ModelDescription, config: &StuNetConfig) -> Value {
    let plans = &about.plans;
    let scheme = |scheme| match scheme {
        Normalization::Ct | Normalization::CtPerVolume => "CTNormalization",
        Normalization::ZScore => "ZScoreNormalization",
        Normalization::None => "NoNormalization",
        Normalization::RescaleZeroToOne => "RescaleTo01Normalization",
        Normalization::RgbToZeroOne => "RGBTo01Normalization",
        // nnU-Net asks for a class of that name, and says so where it has none.
        Normalization::Own => "OwnNormalization",
    };
    let intensities = plans.channels.iter().enumerate().filter_map(|(c, channel)| {
        let i = channel.intensity?;
        let entry = json!({
            "mean": i.mean, "std": i.std,
            "percentile_00_5": i.percentile_00_5, "percentile_99_5": i.percentile_99_5,
        });
        Some((c.to_string(), entry))
    });
    let pools: Vec<_> = std::iter::once([1; 3]).chain(plans.strides.iter().copied()).collect();
    let json = json!({
        "dataset_name": "Dataset",
        "plans_name": "nnUNetPlans",
        "transpose_forward": plans.transpose_forward,
        "transpose_backward": plans.transpose_backward(),
        "image_reader_writer": plans.reader.name(),
        "foreground_intensity_properties_per_channel":
            Value::Object(intensities.collect::<Map<_, _>>()),
        "configurations": { plans.configuration.clone(): {
            "data_identifier": format!("nnUNetPlans_{}", plans.configuration),
            "preprocessor_name": "DefaultPreprocessor",
            "batch_size": plans.batch_size,
            "batch_dice": about.batch_dice,
            "patch_size": plans.patch_size,
            "spacing": plans.spacing_mm,
            "normalization_schemes":
                plans.channels.iter().map(|c| scheme(c.scheme)).collect::<Vec<_>>(),
            "use_mask_for_norm": plans.channels.iter().map(|c| c.use_mask).collect::<Vec<_>>(),
            "UNet_class_name": "PlainConvUNet",
            "UNet_base_num_features": config.width[0],
            "unet_max_num_features": config.width[5],
            "n_conv_per_stage_encoder": config.depth,
            "n_conv_per_stage_decoder": config.depth[..5],
            "num_pool_per_axis": (0..3)
                .map(|axis| plans.strides.iter().filter(|s| s[axis] > 1).count())
                .collect::<Vec<_>>(),
            "pool_op_kernel_sizes": pools,
            "conv_kernel_sizes": vec![[3; 3]; pools.len()],
            "resampling_fn_data": plans.resampling.name(),
            "resampling_fn_seg": plans.resampling.name(),
            "resampling_fn_probabilities": plans.resampling.name(),
            "resampling_fn_data_kwargs": kwargs(false, 3, plans),
            "resampling_fn_seg_kwargs": kwargs(true, 1, plans),
            "resampling_fn_probabilities_kwargs": kwargs(false, 1, plans),
        }},
    });
    saying_axes(json, plans)
}

fn kwargs(is_seg: bool, order: usize, plans: &Plans) -> Value {
    let force = plans.force_separate_z;
    match plans.resampling {
        Resampling::ScikitImage => json!({
            "is_seg": is_seg, "order": order, "order_z": 0, "force_separate_z": force,
        }),
        Resampling::Torch => json!({
            "is_seg": is_seg, "force_separate_z": force, "memefficient_seg_resampling": false,
        }),
    }
}

/// nnU-Net 2's `dataset.json`: the one that was given, in version 2's form, else one with the same
/// labels and channels.
///
/// What is read here is more than nnU-Net 2 reads: version 1's `modality` and table of labels, values
/// in quotes, another spelling of background. Entries that are not in its form are written anew.
pub fn v2_dataset(about: &ModelDescription) -> Value {
    let made = made_dataset(about);
    let given = about.nnunet_dataset.as_ref().map(in_version_2);
    let Some(Ok(Value::Object(mut given))) = given else {
        return made;
    };
    let channels = made["channel_names"].as_object().map(Map::len);
    if given.get("channel_names").and_then(Value::as_object).map(Map::len) != channels {
        given.insert("channel_names".to_owned(), made["channel_names"].clone());
    }
    // nnU-Net counts these where they are there, and the lists are of files that are elsewhere.
    for key in ["modality", "training", "test", "numTest"] {
        given.remove(key);
    }
    for key in ["file_ending", "numTraining", "regions_class_order"] {
        if let Some(value) = made.get(key) {
            given.entry(key).or_insert_with(|| value.clone());
        }
    }
    Value::Object(given)
}

/// One with the model's labels and channels. The label of value 0 is called background there.
fn made_dataset(about: &ModelDescription) -> Value {
    let channels = about.plans.channels.iter().enumerate();
    let channels = channels.map(|(c, channel)| (c.to_string(), json!(channel.name)));
    let mut dataset = json!({
        "channel_names": Value::Object(channels.collect()),
        "labels": about.labels.to_dataset_json(),
        "file_ending": ".nii.gz",
        "numTraining": 0,
    });
    if let Some(order) = about.labels.region_order() {
        dataset["regions_class_order"] = json!(order);
    }
    dataset
}
