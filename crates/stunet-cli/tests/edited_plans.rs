//! Values that two files hold: what takes effect, what is refused with the command that mends it, and
//! that what lies beside the weights describes the network that was trained.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::boxes::{CONFIGURATION, DATASET, dataset, store};
use common::{STUNET, Scene, said};
use serde_json::{Value, json};
use stunet::data::plans::Plans;
use stunet::data::store::Store;

const SHORT: [&str; 9] = [
    "--width",
    "2,2,3,3,4,4",
    "--epochs",
    "1",
    "--iterations",
    "1",
    "--val-iterations",
    "1",
    "--no-validation",
];
const PLANS: &str = "nnUNetPlans.json";

fn prepared(scene: &Scene) -> PathBuf {
    scene.path(&format!("nnUNet_preprocessed/{DATASET}"))
}

fn train_as(scene: &Scene, configuration: &str, fold: &str, more: &[&str]) -> Output {
    let mut command = Command::new(STUNET);
    command.arg("train").arg(prepared(scene)).args([configuration, fold]);
    command.args(["--device", "cpu", "--threads", "1"]).args(more);
    if !more.contains(&"-o") {
        command.arg("-o").arg(scene.path("results"));
    }
    command.output().unwrap()
}

fn train(scene: &Scene, more: &[&str]) -> Output {
    train_as(scene, CONFIGURATION, "0", &[&SHORT[..], more].concat())
}

fn preprocess(scene: &Scene) -> Output {
    let mut command = Command::new(STUNET);
    command.arg("preprocess").arg(prepared(scene)).output().unwrap()
}

fn succeeded(output: &Output) -> String {
    let (out, err) = said(output);
    assert!(output.status.success(), "{err}");
    out
}

/// One line with all of `words`, and nothing written.
fn refused(scene: &Scene, words: &[&str], run: impl FnOnce() -> Output) {
    let before = scene.contents();
    let output = run();
    let (out, err) = said(&output);
    assert_eq!(output.status.code(), Some(1), "{out}{err}");
    assert_eq!(err.lines().count(), 1, "{err}");
    for word in words {
        assert!(err.contains(word), "no {word:?} in: {err}");
    }
    assert_eq!(scene.contents(), before, "something was written");
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn change(file: &Path, change: impl FnOnce(&mut Value)) {
    let mut value = read(file);
    change(&mut value);
    fs::write(file, value.to_string()).unwrap();
}

/// Changes entries of the configuration.
fn edit(scene: &Scene, entries: Value) {
    change(&prepared(scene).join(PLANS), |plans| {
        let Value::Object(entries) = entries else { panic!("an object") };
        let configuration = &mut plans["configurations"][CONFIGURATION];
        configuration.as_object_mut().unwrap().extend(entries);
    });
}

/// `TRAINER__PLANS__CONFIG` of a run.
fn model(results: &Path, configuration: &str) -> PathBuf {
    results.join(DATASET).join(format!("STUNetTrainer_custom__nnUNetPlans__{configuration}"))
}

/// What the files beside the weights of a run say: the results folder's plans, and the model's.
fn described(results: &Path, configuration: &str, fold: &str) -> (Plans, Plans) {
    let model = model(results, configuration);
    let (plans, dataset) = (read(&model.join("plans.json")), read(&model.join("dataset.json")));
    let beside = Plans::from_v2_json(&plans, &dataset, configuration).unwrap();
    (beside, Plans::load(&model.join(fold).join("model/plans.json")).unwrap())
}

#[test]
fn patch_batch_and_strides_take_effect_and_are_written_beside_the_weights() {
    let scene = dataset();
    let strides = json!([[1, 1, 1], [2, 2, 2], [2, 2, 2], [1, 2, 2], [1, 1, 2]]);
    edit(
        &scene,
        json!({"patch_size": [16, 16, 16], "batch_size": 3, "pool_op_kernel_sizes": strides}),
    );
    let out = succeeded(&train(&scene, &[]));
    assert!(out.contains("note: the plan has 4 pooling stages"), "{out}");
    let results = scene.path("results");
    let (beside, model_plans) = described(&results, CONFIGURATION, "fold_0");
    let settings = read(&model(&results, CONFIGURATION).join("fold_0/debug.json"));
    assert_eq!(settings["patch"], json!([16, 16, 16]));
    assert_eq!(settings["batch_size"], 3);
    let used = json!([[2, 2, 2], [2, 2, 2], [1, 2, 2], [1, 1, 2], [1, 1, 1]]);
    assert_eq!(settings["network"]["strides"], used);
    for plans in [&beside, &model_plans] {
        assert_eq!((plans.patch_size, plans.batch_size), ([16; 3], 3));
        assert_eq!(json!(plans.strides), used);
    }
    // The five that the network has are written, not the plan's four.
    let written = read(&model(&results, CONFIGURATION).join("plans.json"));
    let written = &written["configurations"][CONFIGURATION]["pool_op_kernel_sizes"];
    assert_eq!(written.as_array().unwrap().len(), 6);
}

#[test]
fn options_are_written_beside_the_weights() {
    let scene = dataset();
    let results = scene.path("results");
    succeeded(&train(&scene, &["--patch", "8", "16", "32", "--batch-size", "1"]));
    let (beside, model_plans) = described(&results, CONFIGURATION, "fold_0");
    assert_eq!((beside.patch_size, beside.batch_size), ([8, 16, 32], 1));
    assert_eq!((model_plans.patch_size, model_plans.batch_size), ([8, 16, 32], 1));
    // The exported checkpoint says so as well.
    let fold = model(&results, CONFIGURATION).join("fold_0");
    let exported = fold.join("checkpoint_final.pth");
    succeeded(&Command::new(STUNET).arg("export").arg(&fold).arg(&exported).output().unwrap());
    let checkpoint = stunet::model::weights::Checkpoint::open(&exported).unwrap();
    let plans = &checkpoint.metadata()["init_args"]["plans"]["configurations"][CONFIGURATION];
    assert_eq!(plans["patch_size"], json!([8, 16, 32]));
    assert_eq!(plans["batch_size"], 1);
}

#[test]
fn what_the_cases_depend_on_is_refused_with_the_command_that_mends_it() {
    let command = "stunet preprocess ";
    let check = |entries: Value, words: &[&str]| {
        let scene = dataset();
        edit(&scene, entries);
        let common = [command, "nnUNetPlans.json and", "store.json"];
        refused(&scene, &[&common, words].concat(), || train(&scene, &[]));
    };
    let spacing = json!({"spacing": [2.0, 3.0, 3.0], "patch_size": [16, 16, 16]});
    check(spacing, &["spacing_mm is [2.0,3.0,3.0] in", "and [3.0,3.0,3.0] in"]);
    let scheme = json!({"normalization_schemes": ["NoNormalization"]});
    check(scheme, &["channels.0.scheme is \"none\" in", "and \"z-score\" in"]);
    check(
        json!({"use_mask_for_norm": [true]}),
        &["channels.0.use_mask is true in", "and false in"],
    );
    let forced = json!({"resampling_fn_data_kwargs": {"force_separate_z": true}});
    check(forced, &["force_separate_z is true in", "and null in"]);
    let strides = [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2], [1, 1, 2], [1, 1, 1]];
    let nested = json!({"architecture": {"arch_kwargs": {"strides": strides}}});
    check(nested, &["reference is \"nnunet-2.8\" in", "and \"nnunet-2.2\" in"]);
}

#[test]
fn the_command_that_was_named_mends_it() {
    let scene = dataset();
    edit(&scene, json!({"spacing": [2.0, 3.0, 3.0]}));
    assert!(!train(&scene, &[]).status.success());
    assert!(succeeded(&preprocess(&scene)).contains("6 case(s) prepared"));
    succeeded(&train(&scene, &[]));
    let (beside, model_plans) = described(&scene.path("results"), CONFIGURATION, "fold_0");
    assert_eq!((beside.spacing_mm, model_plans.spacing_mm), ([2.0, 3.0, 3.0], [2.0, 3.0, 3.0]));
}

#[test]
fn an_order_of_axes_that_was_edited_is_refused() {
    let scene = dataset();
    change(&prepared(&scene).join(PLANS), |plans| plans["transpose_forward"] = json!([1, 0, 2]));
    let words = ["transpose_forward is [1,0,2] in", "and [0,1,2] in", "stunet preprocess "];
    refused(&scene, &words, || train(&scene, &[]));
}

#[test]
fn labels_and_channels_are_those_the_cases_were_prepared_with() {
    let file = |scene: &Scene| prepared(scene).join("dataset.json");
    let check = |edit: &dyn Fn(&mut Value), words: &[&str]| {
        let scene = dataset();
        change(&file(&scene), edit);
        refused(&scene, &[words, &["stunet preprocess "]].concat(), || train(&scene, &[]));
    };
    let renamed = |json: &mut Value| json["labels"] = json!({"background": 0, "crate": 1});
    check(&renamed, &["labels.crate is 1 in dataset.json and nothing in store.json"]);
    let more = |json: &mut Value| json["labels"]["lid"] = json!(2);
    check(&more, &["labels.lid is 2 in dataset.json and nothing in store.json"]);
    let ignored = |json: &mut Value| json["labels"]["ignore"] = json!(2);
    check(&ignored, &["labels.ignore is 2 in dataset.json"]);
    let channel = |json: &mut Value| json["channel_names"] = json!({"0": "T2"});
    check(&channel, &["channels.0.name is \"T2\"", "and \"MR\" in store.json"]);
    // `preprocess` meets both descriptions of the dataset.
    let scene = dataset();
    change(&file(&scene), renamed);
    let words = ["labels.box is 1 in the raw one", "stunet plan"];
    refused(&scene, &words, || preprocess(&scene));
    let scene = dataset();
    change(&file(&scene), channel);
    refused(&scene, &["channel_names is [\"MR\"]", "[\"T2\"]"], || preprocess(&scene));
    // Plans of nnU-Net 2 mean nothing without it.
    fs::remove_file(file(&scene)).unwrap();
    refused(&scene, &["expected dataset.json beside the plans"], || train(&scene, &[]));
}

#[test]
fn cases_of_two_recipes_are_not_mixed() {
    let scene = dataset();
    let case = store(&scene).join("c.safetensors");
    let old = fs::read(&case).unwrap();
    edit(&scene, json!({"spacing": [2.0, 3.0, 3.0]}));
    succeeded(&preprocess(&scene));
    // As after an interruption.
    fs::write(&case, old).unwrap();
    let words = ["found 1 that are not", "such as c", "stunet preprocess ", "c.safetensors"];
    refused(&scene, &words, || train(&scene, &[]));
}

#[test]
fn a_run_does_not_go_on_by_other_plans() {
    let scene = dataset();
    let long = [&SHORT[..], &["--batch-size", "1"]].concat();
    succeeded(&train_as(&scene, CONFIGURATION, "0", &long));
    let go_on = || train_as(&scene, CONFIGURATION, "0", &["--continue", "--no-validation"]);
    let original = fs::read(prepared(&scene).join(PLANS)).unwrap();
    let check = |entries: Value, words: &[&str]| {
        edit(&scene, entries);
        let common = ["--continue: nnUNetPlans.json has changed", "undo the change"];
        refused(&scene, &[&common, words].concat(), go_on);
        fs::write(prepared(&scene).join(PLANS), &original).unwrap();
        succeeded(&go_on());
    };
    let patch = json!({"patch_size": [16, 16, 16]});
    check(
        patch,
        &["patch_size is [16,16,16] in nnUNetPlans.json and [8,16,16] in checkpoint_final"],
    );
    // The run's own batch came from the command line; the plans said 2.
    check(json!({"batch_size": 5}), &["batch_size is 5 in nnUNetPlans.json and 2 in checkpoint"]);
    let strides = json!([[1, 1, 1], [2, 2, 2], [2, 2, 2], [1, 2, 2], [1, 1, 2], [1, 1, 1]]);
    check(json!({"pool_op_kernel_sizes": strides}), &["strides is [["]);
    edit(&scene, json!({"batch_dice": false}));
    let words =
        ["batch_dice of the plans: expected true, as the run was started with, found false"];
    refused(&scene, &words, go_on);
}

#[test]
fn inherited_entries_count_for_training_as_well() {
    let scene = dataset();
    change(&prepared(&scene).join(PLANS), |plans| {
        plans["configurations"]["parent"] =
            json!({"inherits_from": CONFIGURATION, "batch_size": 4});
        plans["configurations"]["child"] =
            json!({"inherits_from": "parent", "patch_size": [16, 16, 16]});
        plans["configurations"]["lost"] = json!({"inherits_from": "absent"});
    });
    // Neither a second preparation nor another loss.
    succeeded(&train_as(&scene, "child", "0", &SHORT));
    let results = scene.path("results");
    let settings = read(&model(&results, "child").join("fold_0/debug.json"));
    assert_eq!((&settings["batch_dice"], &settings["batch_size"]), (&json!(true), &json!(4)));
    assert_eq!(settings["patch"], json!([16, 16, 16]));
    let (beside, _) = described(&results, "child", "fold_0");
    assert_eq!((beside.patch_size, beside.batch_size), ([16; 3], 4));
    let lost = || train_as(&scene, "lost", "0", &SHORT);
    refused(&scene, &["configurations.lost.inherits_from: expected one of"], lost);
}

#[test]
fn batch_dice_is_no_text() {
    let scene = dataset();
    edit(&scene, json!({"batch_dice": "true"}));
    let words = ["batch_dice: expected true or false, found \"true\"", "nnUNetPlans.json"];
    refused(&scene, &words, || train(&scene, &[]));
}

#[test]
fn folds_of_one_folder_are_of_one_kind() {
    let scene = dataset();
    let fold = |fold: &str, more: &[&str]| {
        train_as(&scene, CONFIGURATION, fold, &[&SHORT[..], more].concat())
    };
    succeeded(&fold("0", &[]));
    succeeded(&fold("1", &[]));
    let patch = ["--patch", "16", "16", "16"];
    let words =
        ["fold_0 beside it", "patch_size is [16,16,16] in this run and [8,16,16] in", "--output"];
    refused(&scene, &words, || fold("2", &patch));
    let wide = ["--width", "2,2,3,3,4,5", "--epochs", "1", "--iterations", "1", "--no-validation"];
    let words = ["expected the network of the other folds", "width is [2,2,3,3,4,5] in this run"];
    refused(&scene, &words, || train_as(&scene, CONFIGURATION, "2", &wide));
    let elsewhere = scene.path("elsewhere");
    succeeded(&fold("2", &[&patch[..], &["-o", elsewhere.to_str().unwrap()]].concat()));
    // Where no other fold is left, the files follow the run that is there.
    let home = model(&scene.path("results"), CONFIGURATION);
    for fold in ["fold_0", "fold_1"] {
        fs::remove_dir_all(home.join(fold)).unwrap();
    }
    succeeded(&fold("2", &patch));
    let (beside, _) = described(&scene.path("results"), CONFIGURATION, "fold_2");
    assert_eq!(beside.patch_size, [16; 3]);
    // A file that was cut off is written anew.
    fs::write(home.join("plans.json"), b"{\"configurations\": {").unwrap();
    succeeded(&fold("2", &["--continue"]));
    let (beside, _) = described(&scene.path("results"), CONFIGURATION, "fold_2");
    assert_eq!(beside.patch_size, [16; 3]);
}

#[test]
fn a_new_run_takes_nothing_over() {
    let scene = dataset();
    succeeded(&train(&scene, &[]));
    let fold = model(&scene.path("results"), CONFIGURATION).join("fold_0");
    for name in ["checkpoint_final.safetensors", "checkpoint_best.safetensors"] {
        fs::remove_file(fold.join(name)).unwrap();
    }
    // Left alone, the model of the old run would pass for that of the new one.
    refused(&scene, &["expected a new run, found model of another"], || train(&scene, &[]));
    fs::remove_dir_all(fold.join("model")).unwrap();
    fs::write(fold.join("checkpoint_final.pth"), b"of nnU-Net").unwrap();
    refused(&scene, &["found checkpoint_final.pth of another"], || train(&scene, &[]));
    fs::remove_file(fold.join("checkpoint_final.pth")).unwrap();
    // Settings that are left of a run that never came to a checkpoint are replaced.
    fs::write(fold.join("debug.json"), b"{\"epochs\": 7}").unwrap();
    succeeded(&train(&scene, &[]));
    assert_eq!(read(&fold.join("debug.json"))["epochs"], 1);
    // A model folder that was changed is not taken for the run's.
    change(&fold.join("model/plans.json"), |plans| plans["spacing_mm"] = json!([1.0, 1.0, 1.0]));
    let words = ["spacing_mm is [3.0,3.0,3.0] in the checkpoint and [1.0,1.0,1.0] in the model"];
    refused(&scene, &words, || train(&scene, &["--continue"]));
}

#[test]
fn folds_that_the_splits_do_not_have_are_refused() {
    let scene = dataset();
    let fold = |fold: &str| train_as(&scene, CONFIGURATION, fold, &SHORT);
    let words = ["fold: expected 0 to 4 or `all`, found 5", "splits_final.json"];
    refused(&scene, &words, || fold("5"));
    let splits = prepared(&scene).join("splits_final.json");
    let write = |splits_json: Value| fs::write(&splits, splits_json.to_string()).unwrap();
    write(json!([{"train": ["a", "b"], "val": ["b"]}]));
    refused(&scene, &["fold: expected 0 or `all`, found 1"], || fold("1"));
    // What nnU-Net warns of is said; the folder is named by the number.
    let out = succeeded(&fold("00"));
    assert!(
        out.contains("note: 1 case(s) of the fold are trained on and validated on, such as b"),
        "{out}"
    );
    assert!(out.contains("leaves out 4 of 6 cases, such as c"), "{out}");
    assert!(model(&scene.path("results"), CONFIGURATION).join("fold_0").is_dir());
    write(json!([]));
    refused(&scene, &["fold: expected `all`, as there are no splits, found 0"], || fold("0"));
    write(json!([{"train": ["a", "x"], "val": ["b"]}]));
    refused(&scene, &["fold 0", "found x", "splits_final.json"], || fold("0"));
}

#[test]
fn validation_that_cannot_be_done_is_told_before_the_first_epoch() {
    let scene = dataset();
    let raw = scene.path(&format!("nnUNet_raw/{DATASET}/dataset.json"));
    let whole = &SHORT[..SHORT.len() - 1];
    let run = || train_as(&scene, CONFIGURATION, "0", whole);
    change(&raw, |json| json["labels"] = json!({"background": 0, "crate": 1}));
    let words = ["--no-validation", "labels.box is nothing in its dataset.json and 1 in the run"];
    refused(&scene, &words, run);
    change(&raw, |json| json["labels"] = json!({"background": 0, "box": 1}));
    let file = prepared(&scene).join("splits_final.json");
    let split = |val: Value| {
        fs::write(&file, json!([{"train": ["a", "b"], "val": val}]).to_string()).unwrap();
    };
    split(json!([]));
    refused(&scene, &["fold 0: expected cases to validate on, found none"], run);
    split(json!(["c"]));
    for folder in ["imagesTr/c_0000.nii", "labelsTr/c.nii"] {
        fs::remove_file(raw.parent().unwrap().join(folder)).unwrap();
    }
    change(&raw, |json| json["numTraining"] = json!(5));
    refused(&scene, &["expected all 1 validation cases", "found 1 missing, such as c"], run);
}

/// File names of a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<_> =
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn nothing_is_put_among_nnunets_cases() {
    let scene = dataset();
    let nnunet = prepared(&scene).join(format!("nnUNetPlans_{CONFIGURATION}"));
    let theirs = ["a.b2nd", "a.pkl", "a_seg.b2nd"];
    for name in theirs {
        scene.file(nnunet.join(name).to_str().unwrap(), b"");
    }
    fs::remove_dir_all(store(&scene)).unwrap();
    let words = ["expected preprocessed cases", "stunet preprocess ", "_stunet"];
    refused(&scene, &words, || train(&scene, &["--cases", "stunet"]));
    // nnU-Net has not prepared all that the folds name.
    let words = ["splits: cases: expected at least 5", "found 1"];
    refused(&scene, &words, || train(&scene, &[]));
    let copied = prepared(&scene).join("gt_segmentations/a.nii");
    let raw = scene.path(&format!("nnUNet_raw/{DATASET}/labelsTr/a.nii"));
    scene.file(copied.to_str().unwrap(), &fs::read(raw).unwrap());
    let before = fs::metadata(&copied).unwrap().modified().unwrap();
    let kept = ["dataset.json", PLANS].map(|name| fs::read(prepared(&scene).join(name)).unwrap());
    succeeded(&preprocess(&scene));
    succeeded(&train(&scene, &[]));
    assert_eq!(names(&nnunet), theirs);
    assert_eq!(Store::open(&store(&scene)).unwrap().names().len(), 6);
    // What nnU-Net wrote is as it was.
    assert_eq!(fs::metadata(&copied).unwrap().modified().unwrap(), before);
    let now = ["dataset.json", PLANS].map(|name| fs::read(prepared(&scene).join(name)).unwrap());
    assert_eq!(now, kept);
    // Files of nnU-Net where the store would go.
    fs::write(store(&scene).join("a.b2nd"), b"").unwrap();
    refused(&scene, &["found files of nnU-Net in it", "data_identifier"], || preprocess(&scene));
}

#[test]
fn cases_of_an_earlier_version_are_used_and_moved_out() {
    let scene = dataset();
    let nnunet = prepared(&scene).join(format!("nnUNetPlans_{CONFIGURATION}"));
    fs::rename(store(&scene), &nnunet).unwrap();
    fs::write(nnunet.join("a.b2nd"), b"").unwrap();
    let out = succeeded(&train(&scene, &[]));
    assert!(out.contains("note: the cases lie in nnU-Net's own folder"), "{out}");
    let out = succeeded(&preprocess(&scene));
    assert!(out.contains("0 case(s) prepared (0 B), 6 kept"), "{out}");
    assert!(out.contains("note: cases of an earlier version were moved"), "{out}");
    assert_eq!(names(&nnunet), ["a.b2nd"]);
    let out = succeeded(&train(&scene, &["-o", scene.path("more").to_str().unwrap()]));
    assert!(!out.contains("nnU-Net's own folder"), "{out}");
}
