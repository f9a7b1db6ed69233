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
        let about = About { labels, nnunet_dataset: Some(given), ..about(Reference::NnUNetV22) };
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
    let about = About { labels: labels.clone(), ..about(Reference::NnUNetV22) };
    assert_eq!(DatasetInfo::from_json(&v2_dataset(&about)).unwrap().labels, labels);
}
