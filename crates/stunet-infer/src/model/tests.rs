//! Models written to a folder and opened again; every contradiction answered in one line.

mod in_memory;

use super::*;
use burn::tensor::Device;
use burn::tensor::{Tensor, TensorData};
use serde_json::{Value, json};
use stunet_data::plans::Reference;
use stunet_model::Initialisation;
use stunet_model::StuNetConfig;
use stunet_model::weights::writer::{self, Contents, V1Metadata, V2Metadata};

fn config(in_channels: usize, num_classes: usize) -> StuNetConfig {
    StuNetConfig { width: [2, 2, 4, 4, 4, 4], ..StuNetConfig::small(in_channels, num_classes) }
}

fn network(config: &StuNetConfig, seed: u64) -> StuNet {
    config.init_seeded(Initialisation::PyTorchDefault, seed, &Device::flex()).unwrap()
}

fn options() -> OpenOptions {
    OpenOptions::new(&Device::flex())
}

fn v1_plans(num_modalities: usize, num_classes: usize) -> Value {
    let channels = |value: Value| -> Value {
        (0..num_modalities)
            .map(|c| (c.to_string(), value.clone()))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    json!({
        "init": ["", 0, "", "", false, 0, true, false, true],
        "name": "STUNetTrainer_small",
        "plans": {
            "num_modalities": num_modalities,
            "num_classes": num_classes - 1,
            "modalities": channels(json!("nonCT")),
            "normalization_schemes": channels(json!("nonCT")),
            "use_mask_for_norm": channels(json!(false)),
            "dataset_properties": {"intensityproperties": null},
            "transpose_forward": [0, 1, 2],
            "transpose_backward": [0, 1, 2],
            "plans_per_stage": {"0": {
                "batch_size": 2,
                "patch_size": [32, 32, 64],
                "current_spacing": [2.0, 1.0, 1.0],
                "pool_op_kernel_sizes": [[2, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2], [1, 1, 2]],
            }},
        },
    })
}

fn write_v1(path: &Path, config: &StuNetConfig, seed: u64, plans: Option<Value>) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let network = network(config, seed);
    let contents = Contents {
        config,
        parameters: &mut network.source(),
        momentum: None,
        optimiser: Default::default(),
    };
    let metadata = V1Metadata { epoch: 7, plan_file: plans, ..Default::default() };
    writer::write_v1(path, contents, &metadata).unwrap();
}

fn v2_plans() -> Value {
    json!({
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": {
            "batch_size": 2,
            "patch_size": [32, 32, 64],
            "spacing": [2.0, 1.0, 1.0],
            "normalization_schemes": ["ZScoreNormalization"],
            "use_mask_for_norm": [false],
            "pool_op_kernel_sizes":
                [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2], [1, 1, 2]],
        }},
    })
}

fn write_v2(results: &Path, fold: &str, config: &StuNetConfig, mirror_axes: &[usize]) {
    let folder = results.join(format!("fold_{fold}"));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(results.join("plans.json"), v2_plans().to_string()).unwrap();
    let dataset = json!({
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "liver": 1, "spleen": 2},
        "file_ending": ".nii.gz",
    });
    std::fs::write(results.join("dataset.json"), dataset.to_string()).unwrap();
    let network = network(config, 1);
    let contents = Contents {
        config,
        parameters: &mut network.source(),
        momentum: None,
        optimiser: Default::default(),
    };
    let metadata = V2Metadata {
        epoch: 9,
        trainer: "STUNetTrainer_small".to_owned(),
        mirror_axes: mirror_axes.to_vec(),
        init_args: json!({"configuration": "3d_fullres"}),
        ..Default::default()
    };
    writer::write_v2(&folder.join("checkpoint_final.pth"), contents, &metadata).unwrap();
}

fn refused(path: &Path, options: &OpenOptions, words: &[&str]) {
    let message = Model::open(path, options).unwrap_err().to_string();
    assert!(!message.contains('\n'), "one line: {message}");
    for word in words {
        assert!(message.contains(word), "`{word}` in: {message}");
    }
}

#[test]
fn bare_published_weights_get_the_published_plan() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("small_ep4k.model");
    write_v1(&path, &config(1, 105), 1, None);
    let model = Model::open(&path, &options()).unwrap();
    assert_eq!(model.description().kind, ModelKind::NnUNetV1);
    assert_eq!(*model.plans(), Plans::totalsegmentator());
    assert_eq!(model.labels().name_of(40), Some("liver"));
    assert_eq!(model.num_classes(), 105);
    assert_eq!(model.description().notes.len(), 1);
    let fold = &model.description().folds[0];
    assert_eq!((fold.fold.as_str(), fold.epoch), ("", Some(7)));
    assert!(fold.load.as_ref().unwrap().is_complete());
}

#[test]
fn other_bare_weights_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.model");
    write_v1(&path, &config(1, 14), 1, None);
    refused(&path, &options(), &[".model.pkl", "14 classes and 1 channels", "mine.model"]);
    write_v1(&path, &config(2, 105), 1, None);
    refused(&path, &options(), &["105 classes and 2 channels"]);
}

#[test]
fn plans_beside_a_checkpoint_win() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.model");
    write_v1(&path, &config(2, 4), 1, Some(v1_plans(2, 4)));
    let model = Model::open(&path, &options()).unwrap();
    assert_eq!(model.plans().patch_size, [32, 32, 64]);
    assert_eq!(model.plans().num_channels(), 2);
    assert_eq!(model.labels().name_of(3), Some("label_3"));
    // A folder that holds nothing else is as good as the file.
    let same = Model::open(folder.path(), &options()).unwrap();
    assert_eq!(same.plans(), model.plans());
    // Names come from a dataset.json laid beside it.
    let dataset = json!({"labels": {"0": "background", "1": "a", "2": "b", "3": "c"}});
    std::fs::write(folder.path().join("dataset.json"), dataset.to_string()).unwrap();
    let model = Model::open(&path, &options()).unwrap();
    assert_eq!(model.labels().name_of(3), Some("c"));
}

#[test]
fn contradictions_name_both_sides() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.model");
    write_v1(&path, &config(1, 4), 1, Some(v1_plans(2, 4)));
    refused(&path, &options(), &["input channels", "expected 2", "found 1"]);
    write_v1(&path, &config(1, 4), 1, Some(v1_plans(1, 4)));
    let dataset = json!({"labels": {"0": "background", "1": "a"}});
    std::fs::write(folder.path().join("dataset.json"), dataset.to_string()).unwrap();
    refused(&path, &options(), &["classes", "expected 2", "found 4", "mine.model"]);
}

#[test]
fn folds_of_a_results_folder() {
    let folder = tempfile::tempdir().unwrap();
    let results = folder.path().join("STUNetTrainer_small__nnUNetPlansv2.1");
    let plans = v1_plans(1, 4);
    for (fold, seed) in [("0", 1), ("10", 2), ("2", 3), ("all", 4)] {
        let path = results.join(format!("fold_{fold}/model_final_checkpoint.model"));
        write_v1(&path, &config(1, 4), seed, Some(plans.clone()));
    }
    let folds = |folds: Folds| {
        let model = Model::open(&results, &OpenOptions { folds, ..options() }).unwrap();
        let names = model.description().folds.iter().map(|f| f.fold.clone());
        let names: Vec<_> = names.collect();
        assert_eq!(model.networks().len(), names.len());
        names.join(" ")
    };
    assert_eq!(folds(Folds::Found), "0 2 10");
    assert_eq!(folds("all".parse().unwrap()), "all");
    assert_eq!(folds("10, 0,10".parse().unwrap()), "10 0");
    let missing = OpenOptions { folds: Folds::Numbers(vec![1]), ..options() };
    refused(&results, &missing, &["expected fold_1", "fold_0, fold_2, fold_10, fold_all"]);
    assert!("0,x".parse::<Folds>().is_err());
}

#[test]
fn the_named_checkpoint_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let results = folder.path().join("results");
    for name in ["model_best", "base_ep4k"] {
        let path = results.join(format!("fold_all/{name}.model"));
        write_v1(&path, &config(1, 4), 1, Some(v1_plans(1, 4)));
    }
    let opened = |checkpoint: Option<&str>| {
        let checkpoint = checkpoint.map(str::to_owned);
        let model = Model::open(&results, &OpenOptions { checkpoint, ..options() }).unwrap();
        let path = &model.description().folds[0].path;
        path.file_name().unwrap().to_str().unwrap().to_owned()
    };
    assert_eq!(opened(None), "model_best.model");
    assert_eq!(opened(Some("base_ep4k")), "base_ep4k.model");
    assert_eq!(opened(Some("base_ep4k.model")), "base_ep4k.model");
    let absent = OpenOptions { checkpoint: Some("last".into()), ..options() };
    refused(&results, &absent, &["expected last.model", "base_ep4k.model, model_best.model"]);
}

#[test]
fn v2_results_folder() {
    let folder = tempfile::tempdir().unwrap();
    let results = folder.path().join("STUNetTrainer_small__nnUNetPlans__3d_fullres");
    write_v2(&results, "0", &config(1, 3), &[0, 2]);
    let model = Model::open(&results, &options()).unwrap();
    assert_eq!(model.description().kind, ModelKind::NnUNetV2);
    assert_eq!(model.plans().reference, Reference::NnUNetV22);
    assert_eq!(model.plans().accumulation, Accumulation::F16);
    assert_eq!(model.plans().mirror_axes, [0, 2]);
    assert_eq!(model.labels().name_of(2), Some("spleen"));
    let fold = &model.description().folds[0];
    assert_eq!(fold.trainer.as_deref(), Some("STUNetTrainer_small"));

    let newer = OpenOptions { reference: Some(Reference::NnUNetV28), ..options() };
    let model = Model::open(&results.join("fold_0/checkpoint_final.pth"), &newer).unwrap();
    assert_eq!(model.plans().reference, Reference::NnUNetV28);
    assert_eq!(model.plans().accumulation, Accumulation::F16);
    assert_eq!(model.description().folds[0].fold, "0");

    std::fs::remove_file(results.join("plans.json")).unwrap();
    refused(&results.join("fold_0/checkpoint_final.pth"), &options(), &["plans.json"]);
}

/// Plans, descriptions and weights lie in files of their own: the wrong one is named.
#[test]
fn errors_name_the_file_that_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let results = folder.path().join("STUNetTrainer_small__nnUNetPlans__3d_fullres");
    write_v2(&results, "0", &config(1, 3), &[0, 2]);
    let edit = |name: &str, change: &dyn Fn(&mut Value)| {
        let path = results.join(name);
        let before = std::fs::read_to_string(&path).unwrap();
        let mut json: Value = serde_json::from_str(&before).unwrap();
        change(&mut json);
        std::fs::write(&path, json.to_string()).unwrap();
        let message = Model::open(&results, &options()).unwrap_err().to_string();
        assert!(message.ends_with(name), "{message}");
        std::fs::write(&path, before).unwrap();
    };
    edit("dataset.json", &|json| {
        drop(json["labels"].as_object_mut().unwrap().remove("background"))
    });
    edit("dataset.json", &|json| json["labels"] = json!({"background": 0, "liver": 2}));
    edit("dataset.json", &|json| json["labels"] = json!(null));
    edit("dataset.json", &|json| json["regions_class_order"] = json!("none"));
    edit("plans.json", &|json| {
        json["configurations"]["3d_fullres"]["spacing"] = json!([1.0, null, 1.0])
    });
    edit("plans.json", &|json| json["transpose_forward"] = json!([0, 0, 1]));
    let path = folder.path().join("mine.model");
    let mut plans = v1_plans(1, 4);
    plans["plans"]["plans_per_stage"] = json!({});
    write_v1(&path, &config(1, 4), 1, Some(plans));
    let message = Model::open(&path, &options()).unwrap_err().to_string();
    assert!(message.ends_with("mine.model.pkl"), "{message}");
}

#[test]
fn own_folder_gives_back_what_was_put_in() {
    let folder = tempfile::tempdir().unwrap();
    let results = folder.path().join("results");
    for (fold, seed) in [("0", 1), ("1", 2)] {
        let path = results.join(format!("fold_{fold}/model_final_checkpoint.model"));
        write_v1(&path, &config(1, 4), seed, Some(v1_plans(1, 4)));
    }
    for folds in [Folds::Numbers(vec![1]), Folds::Found] {
        let first = Model::open(&results, &OpenOptions { folds, ..options() }).unwrap();
        let out = folder.path().join(format!("own{}", first.networks().len()));
        first.save_folder(&out).unwrap();
        let second = Model::open(&out, &options()).unwrap();
        assert_eq!(second.description().kind, ModelKind::Stunet);
        assert_eq!(second.plans(), first.plans());
        assert_eq!(second.labels(), first.labels());
        assert_eq!(second.networks().len(), first.networks().len());
        let window = Tensor::<5>::ones([1, 1, 16, 16, 64], &Device::flex());
        for (a, b) in first.stunets().unwrap().into_iter().zip(second.stunets().unwrap()) {
            let [a, b]: [TensorData; 2] = [a, b].map(|n| n.forward(window.clone()).into_data());
            assert_eq!(a, b);
        }
    }
}

#[test]
fn what_is_no_model_is_told() {
    let folder = tempfile::tempdir().unwrap();
    refused(&folder.path().join("absent"), &options(), &["no such file", "absent"]);
    refused(folder.path(), &options(), &["expected a .model file"]);
    let text = folder.path().join("notes.model");
    std::fs::write(&text, b"not a checkpoint").unwrap();
    refused(&text, &options(), &["notes.model"]);
}

/// A checkpoint under a name of its own.
fn v2_checkpoint(results: &Path, fold: &str, name: &str) {
    write_v2(results, fold, &config(1, 3), &[0, 1, 2]);
    let folder = results.join(format!("fold_{fold}"));
    std::fs::rename(folder.join("checkpoint_final.pth"), folder.join(name)).unwrap();
}

#[test]
fn checkpoints_of_different_moments_are_not_averaged() {
    let folder = tempfile::tempdir().unwrap();
    let results = folder.path().join("STUNetTrainer_small__nnUNetPlans__3d_fullres");
    v2_checkpoint(&results, "0", "checkpoint_best.pth");
    write_v2(&results, "0", &config(1, 3), &[0, 1, 2]);
    v2_checkpoint(&results, "1", "checkpoint_best.pth");
    let words = ["fold_0 checkpoint_final", "fold_1 checkpoint_best", "-chk", "the same"];
    refused(&results, &options(), &words);
    let named = |name: &str| OpenOptions { checkpoint: Some(name.into()), ..options() };
    let model = Model::open(&results, &named("checkpoint_best")).unwrap();
    assert_eq!(model.networks().len(), 2);
    assert_eq!(model.description().notes, ["folds averaged: 0, 1 (all there are)"]);
    refused(&results, &named("checkpoint_final.pth"), &["expected checkpoint_final.pth", "fold_1"]);
    let zero = OpenOptions { folds: Folds::Numbers(vec![0]), ..options() };
    let model = Model::open(&results, &zero).unwrap();
    assert_eq!(model.description().notes, ["fold taken: 0; left out: 1"]);
    assert!(model.description().folds[0].path.ends_with("checkpoint_final.pth"));
    // Unfinished all of them: taken, and said.
    std::fs::remove_file(results.join("fold_0/checkpoint_final.pth")).unwrap();
    let model = Model::open(&results, &options()).unwrap();
    let notes = &model.description().notes;
    assert!(notes[1].contains("no checkpoint_final: checkpoint_best is taken"), "{notes:?}");
    // A fold's folder is that fold, and a file that checkpoint.
    let path = results.join("fold_1");
    let fold = Model::open(&path, &options()).unwrap();
    assert_eq!(fold.description().folds[0].fold, "1");
    refused(&path, &zero, &["expected 1, the fold that the path names", "found 0"]);
    let file = path.join("checkpoint_best.pth");
    refused(&file, &zero, &["expected 1, the fold that the path names", "found 0"]);
    refused(&file, &named("checkpoint_final"), &["expected checkpoint_best", "checkpoint_final"]);
    Model::open(&file, &named("checkpoint_best.pth")).unwrap();
}

#[test]
fn a_postprocessing_that_is_not_done_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let results = folder.path().join("results");
    let path = results.join("fold_0/model_final_checkpoint.model");
    write_v1(&path, &config(1, 4), 1, Some(v1_plans(1, 4)));
    std::fs::write(results.join("postprocessing.json"), "{}").unwrap();
    let model = Model::open(&results, &options()).unwrap();
    let notes = model.description().notes.join("; ");
    assert!(notes.contains("postprocessing.json"), "{notes}");
}

#[test]
fn plans_of_a_results_folder_are_followed_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let results = folder.path().join("STUNetTrainer_small__nnUNetPlans__3d_fullres");
    write_v2(&results, "0", &config(1, 3), &[0, 1, 2]);
    let with = |key: &str, value: &str| {
        let mut plans = v2_plans();
        plans[key] = json!(value);
        std::fs::write(results.join("plans.json"), plans.to_string()).unwrap();
    };
    with("image_reader_writer", "NibabelIOWithReorient");
    let model = Model::open(&results, &options()).unwrap();
    assert_eq!(model.plans().reader, stunet_data::nifti::Reader::NibabelReorient);
    // Our own folder keeps it.
    let own = folder.path().join("own");
    model.save_folder(&own).unwrap();
    assert_eq!(
        Model::open(&own, &options()).unwrap().plans(),
        &Plans { accumulation: Accumulation::F32, ..model.plans().clone() }
    );
    with("image_reader_writer", "NaturalImage2DIO");
    refused(&results, &options(), &["image_reader_writer", "NaturalImage2DIO", "plans.json"]);
    with("label_manager", "Mine");
    refused(&results, &options(), &["label_manager", "Mine", "plans.json"]);
}
