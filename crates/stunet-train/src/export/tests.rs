use super::*;
use stunet_data::dataset::DatasetInfo;
use stunet_data::plans::{ChannelPlan, Intensity, Normalization, Reference};
use stunet_model::StuNetConfig;

/// Plans with something in every entry.
fn about(reference: Reference) -> About {
    let intensity =
        Intensity { mean: 33.5, std: 310.25, percentile_00_5: -950.0, percentile_99_5: 900.0 };
    let channel = |name: &str, scheme, use_mask, intensity| ChannelPlan {
        name: name.to_owned(),
        scheme,
        use_mask,
        intensity,
    };
    // Version 2's reader keeps statistics only where the scheme needs them.
    let unneeded = reference.is_v1().then_some(intensity);
    let accumulation = if reference.is_v1() { Accumulation::F32 } else { Accumulation::F16 };
    About {
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

#[test]
fn regions_and_the_ignore_label_survive() {
    let dataset = json!({
        "channel_names": { "0": "CT", "1": "T2" },
        "labels": { "background": 0, "whole": [1, 2], "core": [2], "ignore": 3 },
        "regions_class_order": [1, 2],
    });
    let labels = DatasetInfo::from_json(&dataset).unwrap().labels;
    let about = About { labels: labels.clone(), ..about(Reference::NnUNetV22) };
    assert_eq!(DatasetInfo::from_json(&v2_dataset(&about)).unwrap().labels, labels);
}

#[test]
fn descriptions_are_written_as_nnunet_2_reads_them() {
    let labels = LabelSet::from_names(["Background", "liver", "spleen"]).unwrap();
    let v2 = json!({ "background": 0, "liver": 1, "spleen": 2 });
    let check = |given: Value, expected: &Value| {
        let about = About {
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
    check(json!({ "channel_names": channels, "labels": regions }), &regions);
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
