//! Beside nnU-Net in its own folders: its preprocessed cases, its runs, and its files beside predictions.
//! With nnU-Net itself: `scripts/nnunet-folders-check`.
#![allow(clippy::disallowed_macros, clippy::disallowed_methods, clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{STUNET, Scene, model_folder, predict_arguments, said, stunet};
use serde_json::{Value, json};
use stunet::model::weights::pickle;
use stunet::train::checkpoint::{FINAL, Group, TrainingCheckpoint};

const DATASET: &str = "nnUNet_preprocessed/Dataset001_Recorded";
const MODEL: &str = "STUNetTrainer_custom__nnUNetPlans__3d_fullres";

/// Recorded from nnU-Net 2.8.1 by `scripts/reference/preprocessed.py`.
fn recorded() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/preprocessed")
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

/// A dataset's folder as nnU-Net leaves it, with cases of one kind.
fn prepared(cases: &str) -> Scene {
    let scene = Scene::new();
    let folder = scene.path(DATASET);
    copy_folder(&recorded().join(cases), &folder.join("nnUNetPlans_3d_fullres"));
    fs::copy(recorded().join("plans.json"), folder.join("nnUNetPlans.json")).unwrap();
    fs::copy(recorded().join("dataset.json"), folder.join("dataset.json")).unwrap();
    scene
}

/// Trains a tiny network; what it said.
fn train(scene: &Scene, results: &str, more: &[&str]) -> Result<String, String> {
    let mut command = Command::new(STUNET);
    command.arg("train").arg(scene.path(DATASET)).args(["3d_fullres", "all", "-o"]);
    command.arg(scene.path(results)).args(["--device", "cpu", "--threads", "2"]);
    command.args(["--no-validation", "--iterations", "2", "--val-iterations", "1"]).args(more);
    let output = command.output().unwrap();
    let (stdout, stderr) = said(&output);
    if output.status.success() { Ok(stdout) } else { Err(stderr) }
}

const TINY: [&str; 6] = ["--width", "2,2,2,2,2,2", "--depth", "1", "--epochs", "2"];

fn fold(scene: &Scene, results: &str) -> PathBuf {
    scene.path(results).join("Dataset001_Recorded").join(MODEL).join("fold_all")
}

fn checkpoint(scene: &Scene, results: &str) -> TrainingCheckpoint {
    TrainingCheckpoint::open(&fold(scene, results).join(FINAL)).unwrap()
}

#[test]
fn nnunets_cases_are_trained_on() {
    let scene = prepared("v2");
    let out = train(&scene, "results", &TINY).unwrap();
    assert!(out.contains("the 2 cases are those that nnU-Net preprocessed (Blosc2)"), "{out}");
    let state = checkpoint(&scene, "results");
    assert_eq!(state.state().progress.epoch, 2);
    // Nothing of nnU-Net's folder is changed.
    let names = fs::read_dir(scene.path(DATASET).join("nnUNetPlans_3d_fullres")).unwrap().count();
    assert_eq!(names, 6);
    // The same run again, bit for bit.
    train(&scene, "again", &TINY).unwrap();
    for name in state.names(Group::Weights) {
        let read = |of: &TrainingCheckpoint| of.read(Group::Weights, name).unwrap();
        assert_eq!(read(&state), read(&checkpoint(&scene, "again")), "{name}");
    }
    let error = train(&scene, "other", &[&TINY[..], &["--cases", "stunet"]].concat()).unwrap_err();
    assert!(error.contains("expected preprocessed cases"), "{error}");
}

#[test]
fn archives_are_unpacked_beside() {
    let scene = prepared("npz");
    let out = train(&scene, "results", &TINY).unwrap();
    assert!(out.contains("unpacking a"), "{out}");
    let folder = scene.path(DATASET).join("nnUNetPlans_3d_fullres");
    assert!(folder.join("a.npy").is_file() && folder.join("a_seg.npy").is_file());
    let out = train(&scene, "more", &TINY).unwrap();
    assert!(!out.contains("unpacking"), "{out}");
}

/// nnU-Net 1's folder: plans and folds as pickles, the stage in the name of the cases' folder.
#[test]
fn a_folder_of_nnunet_1() {
    let scene = Scene::new();
    let folder = scene.path(DATASET);
    copy_folder(&recorded().join("v1"), &folder.join("nnUNetData_plans_v2.1_stage0"));
    let plans = json!({
        "num_stages": 1, "num_modalities": 2, "modalities": {"0": "T1", "1": "FLAIR"},
        "normalization_schemes": {"0": "nonCT", "1": "nonCT"},
        "use_mask_for_norm": {"0": true, "1": true}, "dataset_properties": {},
        "num_classes": 4, "all_classes": [1, 2, 3, 4], "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2], "data_identifier": "nnUNetData_plans_v2.1",
        "preprocessor_name": "GenericPreprocessor",
        "plans_per_stage": {"0": {
            "batch_size": 2, "patch_size": [8, 16, 16], "current_spacing": [2.0, 1.0, 1.0],
            "pool_op_kernel_sizes": [[1, 2, 2], [2, 2, 2]], "conv_kernel_sizes": vec![[3; 3]; 3],
        }},
    });
    let folds = json!([{"train": ["a"], "val": ["a"]}]);
    for (name, value) in [("nnUNetPlansv2.1_plans_3D.pkl", plans), ("splits_final.pkl", folds)] {
        let value = pickle::Value::from_json_int_keys(&value);
        fs::write(folder.join(name), pickle::write(&value)).unwrap();
    }
    let dataset = json!({
        "modality": {"0": "T1", "1": "FLAIR"}, "numTraining": 1,
        "labels": {"0": "background", "1": "a", "2": "b", "3": "c", "4": "d"},
    });
    fs::write(folder.join("dataset.json"), dataset.to_string()).unwrap();
    let out = train(&scene, "results", &TINY).unwrap();
    assert!(out.contains("npz of nnU-Net 1") && out.contains("unpacking a"), "{out}");
    // One of the folds in the pickle.
    let mut command = Command::new(STUNET);
    command.arg("train").arg(scene.path(DATASET)).args(["3d_fullres", "0", "-o"]);
    command.arg(scene.path("fold")).args(["--device", "cpu", "--no-validation"]);
    let output = command.args(TINY).args(["--iterations", "1", "--val-iterations", "1"]).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", said(&output).1);
}

#[test]
fn damaged_cases_are_named_before_training() {
    let scene = prepared("v2");
    let folder = scene.path(DATASET).join("nnUNetPlans_3d_fullres");
    let whole = fs::read(folder.join("b.b2nd")).unwrap();
    fs::write(folder.join("b.b2nd"), &whole[..whole.len() / 2]).unwrap();
    let error = train(&scene, "results", &TINY).unwrap_err();
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(error.contains("case b") && error.contains("truncated"), "{error}");
    fs::remove_file(folder.join("b.pkl")).unwrap();
    fs::write(folder.join("b.b2nd"), &whole).unwrap();
    let error = train(&scene, "results", &TINY).unwrap_err();
    assert!(error.contains("case b") && error.contains("properties"), "{error}");
}

/// A run through nnU-Net's file in the folder of a fold, as nnU-Net would have left it.
#[test]
fn a_run_of_nnunets_goes_on() {
    let scene = prepared("v2");
    let three = ["--width", "2,2,2,2,2,2", "--depth", "1", "--epochs", "3"];
    train(&scene, "whole", &three).unwrap();
    train(&scene, "first", &TINY).unwrap();
    let there = fold(&scene, "there");
    fs::create_dir_all(&there).unwrap();
    for name in ["plans.json", "dataset.json"] {
        let from = fold(&scene, "first").with_file_name(name);
        fs::copy(from, there.with_file_name(name)).unwrap();
    }
    let exported = there.join("checkpoint_latest.pth");
    let words = ["export".into(), fold(&scene, "first"), exported.clone()];
    let output = stunet(words);
    assert!(output.status.success(), "{}", said(&output).1);

    // The epochs of nnU-Net's trainers are known by their names only.
    let out = train(&scene, "there", &["--continue", "--epochs", "3"]).unwrap();
    assert!(out.contains("going on with nnU-Net's run after 2 epochs"), "{out}");
    let state = checkpoint(&scene, "there");
    assert_eq!(state.state().progress.history.len(), 3);
    assert_eq!(state.state().progress.epoch, 3);
    // Two epochs of another plan of three are not the first two of that one: the rates differ.
    let rate = |results: &str| checkpoint(&scene, results).state().progress.history[2].lr;
    assert_eq!(rate("there"), rate("whole"));

    // What is complete stays so, and nnU-Net's file is as it was.
    let out = train(&scene, "there", &["--continue", "--epochs", "3"]).unwrap();
    assert!(out.contains("complete"), "{out}");
    let error = train(&scene, "there", &["--continue", "--size", "small"]).unwrap_err();
    assert!(error.contains("--continue"), "{error}");
    let other = fold(&scene, "empty");
    fs::create_dir_all(&other).unwrap();
    fs::write(other.join("checkpoint_final.pth"), b"PK").unwrap();
    let error = train(&scene, "empty", &["--continue"]).unwrap_err();
    assert!(error.contains("torch checkpoint"), "{error}");
}

/// Two cases, and the arguments to predict them.
fn cases() -> (Scene, Vec<String>) {
    let scene = Scene::new();
    for case in ["a", "b"] {
        scene.volume(&format!("in/{case}_0000.nii.gz"));
    }
    let (input, output) = (scene.path("in"), scene.path("out"));
    let arguments = predict_arguments(&input, &output, &model_folder(1));
    (scene, arguments.into_iter().filter(|word| word != "--no-plans").collect())
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn nnunets_files_lie_beside_predictions() {
    let (scene, arguments) = cases();
    let output = stunet(&arguments);
    assert!(output.status.success(), "{}", said(&output).1);
    let out = scene.path("out");
    let dataset = json_of(&out.join("dataset.json"));
    assert_eq!(dataset["labels"], json!({"background": 0, "liver": 1, "spleen": 2}));
    assert_eq!(dataset["file_ending"], ".nii.gz");
    let plans = json_of(&out.join("plans.json"));
    assert_eq!(plans["configurations"]["3d_fullres"]["patch_size"], json!([32, 32, 32]));
    let asked = json_of(&out.join("predict_from_raw_data_args.json"));
    assert_eq!(asked["num_parts"], 1);
    assert!(asked["list_of_lists_or_source_folder"].as_str().unwrap().ends_with("in"), "{asked}");

    // The commands that need them find them.
    let truth = scene.path("truth");
    copy_folder(&out, &truth);
    let words = |words: &[&Path]| words.iter().map(|w| w.to_path_buf()).collect::<Vec<_>>();
    let output = stunet(words(&["evaluate".as_ref(), &truth, &out]));
    assert!(output.status.success(), "{}", said(&output).1);

    // Others' files are kept, and replaced with --overwrite.
    fs::write(out.join("plans.json"), b"{}").unwrap();
    let output = stunet(&arguments);
    let (stdout, _) = said(&output);
    assert!(stdout.contains("plans.json beside the labelmaps says something else"), "{stdout}");
    assert_eq!(json_of(&out.join("plans.json")), json!({}));
    let again: Vec<_> = arguments.iter().cloned().chain(["--overwrite".to_owned()]).collect();
    assert!(stunet(&again).status.success());
    assert_eq!(json_of(&out.join("plans.json")), plans);
    fs::create_dir(out.join("imagesTr")).unwrap();
    fs::write(out.join("dataset.json"), b"{}").unwrap();
    assert!(stunet(&again).status.success());
    assert_eq!(json_of(&out.join("dataset.json")), json!({}), "that of a raw dataset");
}

#[test]
fn they_can_be_left_out() {
    let (scene, mut arguments) = cases();
    arguments.push("--no-plans".to_owned());
    assert!(stunet(&arguments).status.success());
    assert_eq!(fs::read_dir(scene.path("out")).unwrap().count(), 2);
    // A single case is no folder of cases.
    let one =
        predict_arguments(&scene.path("in/a_0000.nii.gz"), &scene.path("one"), &model_folder(1));
    assert!(stunet(one.iter().filter(|word| *word != "--no-plans")).status.success());
    assert_eq!(fs::read_dir(scene.path("one")).unwrap().count(), 1);
    // No input is replaced.
    let mut arguments = predict_arguments(&scene.path("in"), &model_folder(1), &model_folder(1));
    arguments.retain(|word| word != "--no-plans");
    let output = stunet(&arguments);
    let (_, stderr) = said(&output);
    assert!(
        stderr.contains("would overwrite the input") && stderr.contains("--no-plans"),
        "{stderr}"
    );
}
