use super::*;
use stunet_data::dataset::DatasetInfo;
use stunet_data::plans::{ChannelPlan, Configuration, Intensity, Normalization, Reference};
use stunet_model::StuNetConfig;

/// Plans with something in every entry.
fn about(reference: Reference) -> ModelDescription {
    let intensity =
        Intensity { mean: 33.5, std: 310.25, percentile_00_5: -950.0, percentile_99_5: 900.0 };
    let channel = |name: &str, scheme, use_mask, intensity| ChannelPlan {
        name: name.to_owned(),
        scheme,
        use_mask,
        intensity,
    };
    // Version 2's reader keeps statistics only where the scheme needs them.
    let unneeded = (reference == Reference::NnUNetV1).then_some(intensity);
    let accumulation = reference.conventions().prediction.accumulation;
    ModelDescription {
        plans: Plans {
            reference,
            accumulation,
            patch_size: [16, 32, 64],
            spacing_mm: [3.0, 0.75, 0.5],
            transpose_forward: [1, 0, 2],
            strides: vec![[1, 2, 2], [1, 2, 2], [2, 2, 2], [2, 2, 2], [1, 1, 2]],
            channels: vec![
                channel("CT", Normalization::Ct, false, Some(intensity)),
                channel("T2", Normalization::ZScore, true, unneeded),
            ],
            batch_size: 3,
            num_outputs: Some(3),
            ..Plans::totalsegmentator()
        },
        labels: LabelSet::from_names(["background", "liver", "spleen"]).unwrap(),
        trainer: "STUNetTrainer_small_ft".to_owned(),
        fold: "all".to_owned(),
        batch_dice: true,
        nnunet_plans: None,
        nnunet_dataset: None,
    }
}

#[test]
fn plans_of_nnunet_1_say_the_same() {
    let about = about(Reference::NnUNetV1);
    let file = v1_plan_file(&about);
    assert_eq!(Plans::from_v1_json(&file).unwrap(), about.plans);
    assert_eq!(file["plans"]["num_classes"], 2);
    assert_eq!(file["plans"]["plans_per_stage"]["0"]["do_dummy_2D_data_aug"], true);
    assert_eq!(file["init"][4], true);
}

#[test]
fn plans_of_nnunet_2_say_the_same() {
    let about = about(Reference::NnUNetV22);
    let config = StuNetConfig::small(2, 3);
    let (plans, dataset) = (v2_plans(&about, &config), v2_dataset(&about));
    assert_eq!(Plans::from_v2_json(&plans, &dataset, "3d_fullres").unwrap(), about.plans);
    assert_eq!(DatasetInfo::from_json(&dataset).unwrap().labels, about.labels);
}

/// A description that nnU-Net 2 refuses is not what it is given.
#[test]
fn descriptions_are_in_version_2() {
    for (names, labels) in [
        ("channel_names", json!({"0": "background", "1": "a", "2": "b"})),
        ("channel_names", json!({"Background": 0, "a": 1, "b": 2})),
        ("modality", json!({"0": "background", "1": "a", "2": "b"})),
    ] {
        let given = json!({ names: {"0": "CT", "1": "T2"}, "labels": labels, "licence": "none" });
        let labels = DatasetInfo::from_json(&given).unwrap().labels;
        let about =
            ModelDescription { labels, nnunet_dataset: Some(given), ..about(Reference::NnUNetV22) };
        let found = v2_dataset(&about);
        assert_eq!(found["labels"], json!({"background": 0, "a": 1, "b": 2}), "{found}");
        assert_eq!(found["channel_names"], json!({"0": "CT", "1": "T2"}), "{found}");
        assert_eq!((&found["file_ending"], &found["licence"]), (&json!(".nii.gz"), &json!("none")));
        assert!(found["numTraining"].is_u64() && found.get("modality").is_none(), "{found}");
    }
}

#[test]
fn regions_and_the_ignore_label_survive() {
    let dataset = json!({
        "channel_names": { "0": "CT", "1": "T2" },
        "labels": { "background": 0, "whole": [1, 2], "core": [2], "ignore": 3 },
        "regions_class_order": [1, 2],
    });
    let labels = DatasetInfo::from_json(&dataset).unwrap().labels;
    let about = ModelDescription { labels: labels.clone(), ..about(Reference::NnUNetV22) };
    assert_eq!(DatasetInfo::from_json(&v2_dataset(&about)).unwrap().labels, labels);
}

/// Plans of version 2 as they were given, in either layout, of `num_strides` poolings.
fn given(about: &ModelDescription, nested: bool, num_strides: usize) -> Value {
    let mut plans = v2_plans(about, &StuNetConfig::small(2, 3));
    plans["label_manager"] = json!("LabelManager");
    let strides: Vec<_> = std::iter::once([1; 3]).chain(vec![[1, 2, 2]; num_strides]).collect();
    let parent = &mut plans["configurations"]["3d_fullres"];
    parent["UNet_base_num_features"] = json!(32);
    parent["pool_op_kernel_sizes"] = json!(strides);
    if nested {
        let arguments = json!({
            "n_stages": strides.len(), "strides": strides, "kernel_sizes": vec![[1, 3, 3]; strides.len()],
            "n_conv_per_stage": vec![2; strides.len()], "conv_bias": true,
        });
        parent["architecture"] = json!({ "network_class_name": "a.b", "arch_kwargs": arguments });
        parent.as_object_mut().unwrap().remove("pool_op_kernel_sizes");
    }
    plans["configurations"]["child"] = json!({ "inherits_from": "3d_fullres", "batch_size": 7 });
    plans
}

#[test]
fn plans_that_were_given_say_what_was_trained() {
    for (nested, num_strides) in [(false, 4), (false, 6), (true, 5), (true, 4)] {
        let made = about(Reference::NnUNetV22);
        let given = given(&made, nested, num_strides);
        let dataset = v2_dataset(&made);
        let planned = Plans::from_v2_json(&given, &dataset, "child").unwrap();
        assert_eq!((planned.batch_size, planned.patch_size), (7, [16, 32, 64]));
        // Trained with another patch, another batch, and without counting over the batch.
        let plans = Plans { patch_size: [32, 64, 64], batch_size: 1, ..planned.clone() };
        let strides: [[usize; 3]; 5] = plans.strides.clone().try_into().unwrap();
        let about = ModelDescription {
            plans,
            batch_dice: false,
            nnunet_plans: Some(given.clone()),
            ..made
        };
        let config = StuNetConfig { strides, ..StuNetConfig::small(2, 3) };
        let written = v2_plans(&about, &config);
        let read = Plans::from_v2_json(&written, &dataset, "child").unwrap();
        assert_eq!(Plans { notes: planned.notes.clone(), ..read }, about.plans);
        let child = Configuration::of(&written, "child").unwrap();
        assert!(!child.batch_dice().unwrap());
        let network = match nested {
            false => {
                (&child.entries()["pool_op_kernel_sizes"], &child.entries()["conv_kernel_sizes"])
            }
            true => {
                let arguments = &child.entries()["architecture"]["arch_kwargs"];
                assert_eq!(arguments["features_per_stage"], json!(config.width));
                assert_eq!(
                    (&arguments["n_stages"], &arguments["conv_bias"]),
                    (&json!(6), &json!(true))
                );
                (&arguments["strides"], &arguments["kernel_sizes"])
            }
        };
        let all: Vec<_> = std::iter::once([1; 3]).chain(config.strides).collect();
        assert_eq!(network, (&json!(all), &json!(vec![[3; 3]; 6])));
        // Everything else is as it was given, the parent included.
        assert_eq!(written["configurations"]["3d_fullres"], given["configurations"]["3d_fullres"]);
        assert_eq!(written["label_manager"], "LabelManager");
        assert!(child.entries()["spacing"] == given["configurations"]["3d_fullres"]["spacing"]);
        assert!(written["configurations"]["child"].get("spacing").is_none(), "it says the same");
    }
}

#[test]
fn plans_that_were_not_followed_are_replaced() {
    // As earlier versions left them: a spacing, an order and a scheme that no case was prepared with.
    let trained = about(Reference::NnUNetV22);
    let mut edited = v2_plans(&trained, &StuNetConfig::small(2, 3));
    edited["transpose_forward"] = json!([0, 1, 2]);
    edited["foreground_intensity_properties_per_channel"]["0"]["mean"] = json!(0.0);
    let entry = &mut edited["configurations"]["3d_fullres"];
    entry["spacing"] = json!([9.0, 9.0, 9.0]);
    entry["normalization_schemes"] = json!(["NoNormalization", "NoNormalization"]);
    let about = ModelDescription { nnunet_plans: Some(edited), ..trained };
    let written = v2_plans(&about, &StuNetConfig::small(2, 3));
    let read = Plans::from_v2_json(&written, &v2_dataset(&about), "3d_fullres").unwrap();
    assert_eq!(read.spacing_mm, about.plans.spacing_mm);
    assert_eq!(read.channels, about.plans.channels);
    assert_eq!(read.transpose_forward, about.plans.transpose_forward);
}

#[test]
fn descriptions_are_written_as_nnunet_2_reads_them() {
    let labels = LabelSet::from_names(["Background", "liver", "spleen"]).unwrap();
    let v2 = json!({ "background": 0, "liver": 1, "spleen": 2 });
    let check = |given: Value, expected: &Value| {
        let about = ModelDescription {
            labels: labels.clone(),
            nnunet_dataset: Some(given.clone()),
            ..about(Reference::NnUNetV22)
        };
        let written = v2_dataset(&about);
        assert_eq!(written["labels"], *expected, "{given}");
        assert_eq!(written["channel_names"].as_object().unwrap().len(), 2, "{given}");
        assert_eq!(
            written["file_ending"],
            given.get("file_ending").unwrap_or(&json!(".nii.gz")).clone()
        );
        assert!(written.get("modality").is_none() && written.get("training").is_none());
        assert_eq!(written["name"], given["name"]);
    };
    let channels = json!({ "0": "CT", "1": "T2" });
    check(json!({ "channel_names": channels, "labels": v2, "file_ending": ".nii" }), &v2);
    let table = json!({ "0": "Background", "1": "liver", "2": "spleen" });
    check(json!({ "channel_names": channels, "labels": table, "name": "mine" }), &v2);
    check(json!({ "modality": channels, "labels": table, "training": [] }), &v2);
    let spelled = json!({ "Background": 0, "liver": 1, "spleen": 2 });
    check(json!({ "channel_names": channels, "labels": spelled }), &v2);
    let quoted = json!({ "background": "0", "liver": "1", "spleen": "2" });
    check(json!({ "channel_names": channels, "labels": quoted }), &v2);
    let regions = json!({ "background": 0, "whole": [1, 2], "core": [2], "ignore": 3 });
    let order = json!([1, 2]);
    check(
        json!({ "channel_names": channels, "labels": regions, "regions_class_order": order }),
        &regions,
    );
}

#[test]
fn the_reader_is_written_and_version_1_has_one() {
    let mut about = about(Reference::NnUNetV22);
    about.plans.reader = Reader::NibabelReorient;
    let (plans, dataset) = (v2_plans(&about, &StuNetConfig::small(2, 3)), v2_dataset(&about));
    let again = Plans::from_v2_json(&plans, &dataset, "3d_fullres").unwrap();
    assert_eq!(again, about.plans);
}

#[test]
fn nnunets_log_is_complete() {
    let record = |epoch, secs| EpochRecord {
        epoch,
        lr: 0.01,
        train_loss: -0.5,
        val_loss: None,
        dice_per_class: vec![None, Some(0.5)],
        pseudo_dice: Some(0.5),
        ema_pseudo_dice: Some(0.5),
        grad_norm: 1.0,
        skipped_steps: 0,
        train_secs: secs,
        wait_secs: 0.0,
        val_secs: 1.0,
    };
    let log = logging(&[record(0, 2.0), record(1, 4.0)]);
    let names: Vec<_> = log.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = stunet_data::plans::keys::NNUNET_2_8_1.lines();
    let mut expected: Vec<_> = expected.filter_map(|line| line.strip_prefix("logging ")).collect();
    expected.sort_unstable();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, expected);
    assert!(log.as_object().unwrap().values().all(|list| list.as_array().unwrap().len() == 2));
    assert_eq!(log["epoch_start_timestamps"], json!([0.0, 3.0]));
    assert_eq!(log["epoch_end_timestamps"], json!([3.0, 8.0]));
}
