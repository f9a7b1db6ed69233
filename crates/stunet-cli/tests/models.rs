//! Models as they lie on the disk: what they ask for is done, and the folder that `stunet train`
//! leaves behind is one.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Scene, model_folder, predict_arguments, said, stunet};
use ndarray::{Array3, Array4, s};
use serde_json::{Value, json};
use stunet::data::nifti;
use stunet_testing::nifti_bytes::NiftiBytes;

const SIZE: [i16; 3] = [32, 28, 24];
const RUN: &str = "nnUNet_results/Dataset001_Boxes/STUNetTrainer_custom__nnUNetPlans__3d_fullres";

fn good<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> String {
    let output = stunet(arguments);
    let (stdout, stderr) = said(&output);
    assert!(output.status.success(), "{stdout}{stderr}");
    stdout
}

fn refused(arguments: Vec<String>, words: &[&str]) {
    let output = stunet(arguments);
    let (_, stderr) = said(&output);
    assert!(!output.status.success(), "succeeded");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "no {word:?} in: {stderr}");
    }
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Another entry in a JSON file.
fn edit(path: &Path, key: &str, value: Value) {
    let mut json: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    json[key] = value;
    fs::write(path, json.to_string()).unwrap();
}

/// The same anatomy stored to the right, front and top, and with x and y the other way around.
fn both_orientations(scene: &Scene) -> [PathBuf; 2] {
    let ras = NiftiBytes::ramp(SIZE);
    let [nx, ny, nz] = SIZE.map(|n| n as usize);
    let mut lps = ras.clone();
    for (index, value) in lps.values.iter_mut().enumerate() {
        let (x, y, z) = (index % nx, index / nx % ny, index / nx / ny);
        *value = ras.values[((z * ny) + (ny - 1 - y)) * nx + (nx - 1 - x)];
    }
    for (axis, n) in [nx, ny].into_iter().enumerate() {
        lps.affine[axis][3] += lps.affine[axis][axis] * (n - 1) as f32;
        lps.affine[axis][axis] *= -1.0;
    }
    assert_eq!(nz, 24);
    [scene.file("ras.nii", &ras.bytes()), scene.file("lps.nii", &lps.bytes())]
}

fn probabilities(path: &Path) -> Array4<f32> {
    let npz = stunet_testing::oracle::Npz::open(path);
    npz.f32("softmax").into_dimensionality().unwrap()
}

#[test]
fn a_reader_that_turns_makes_orientation_no_matter() {
    let scene = Scene::new();
    let model = scene.path("model");
    copy(&model_folder(1), &model);
    let inputs = both_orientations(&scene);
    let outputs = ["ras", "lps"].map(|name| scene.path(&format!("{name}_out.nii.gz")));
    let predict = || {
        for (input, output) in inputs.iter().zip(&outputs) {
            let mut arguments = predict_arguments(input, output, &model);
            arguments.extend(["--overwrite", "--save-probabilities", "npz"].map(str::to_owned));
            arguments.extend(["--confidence", "margin"].map(str::to_owned));
            good(&arguments);
        }
        outputs.clone().map(|path| nifti::read_labelmap(&path).unwrap())
    };
    let turned_back = |data: &Array3<u16>| data.slice(s![.., ..;-1, ..;-1]).to_owned();
    edit(&model.join("plans.json"), "orientation", Value::Null);
    let [ras, lps] = predict();
    assert_ne!(ras.data, turned_back(&lps.data), "the usual reader does not turn");

    edit(&model.join("plans.json"), "reader", json!("NibabelIOWithReorient"));
    let [ras, lps] = predict();
    assert_eq!(ras.data, turned_back(&lps.data));
    assert!(ras.data.iter().any(|label| *label > 0));
    for (labels, input) in [&ras, &lps].into_iter().zip(&inputs) {
        let (geometry, _) = nifti::read_geometry(input).unwrap();
        labels.geometry.check_same_grid(&geometry).unwrap();
        assert_eq!(labels.geometry.shape(), geometry.shape());
    }
    // What comes beside the labels lies on the same grid.
    let [a, b] = ["ras_out.npz", "lps_out.npz"].map(|name| probabilities(&scene.path(name)));
    assert_eq!(a, b.slice(s![.., .., ..;-1, ..;-1]));
    let best = |c: &Array4<f32>, z, y, x| {
        let column = c.slice(s![.., z, y, x]);
        (0..column.len()).fold(0, |best, i| if column[i] > column[best] { i } else { best })
    };
    // In half precision, classes may be equal that were not.
    let agree =
        ras.data.indexed_iter().filter(|((z, y, x), v)| best(&a, *z, *y, *x) == **v as usize);
    assert!(agree.count() * 100 > ras.data.len() * 99);
    let [a, b] = ["confidence/ras_out.nii.gz", "confidence/lps_out.nii.gz"]
        .map(|name| nifti::read_labelmap(&scene.path(name)).unwrap());
    assert_eq!(a.data, turned_back(&b.data));

    edit(&model.join("plans.json"), "reader", json!("Tiff3DIO"));
    let arguments = predict_arguments(&inputs[0], &scene.path("x.nii.gz"), &model);
    refused(arguments, &["Tiff3DIO", "NibabelIOWithReorient", "plans.json"]);
}

/// Two folds of a tiny network, trained for a moment on boxes.
fn trained(scene: &Scene) -> PathBuf {
    let raw = "nnUNet_raw/Dataset001_Boxes";
    for case in 0..5usize {
        let mut image = NiftiBytes::ramp(SIZE);
        let mut labels = NiftiBytes::ramp(SIZE);
        let [nx, ny, _] = SIZE.map(|n| n as usize);
        for (index, value) in labels.values.iter_mut().enumerate() {
            let (x, y, z) = (index % nx, index / nx % ny, index / nx / ny);
            let inside =
                (4 + case..20).contains(&x) && (5..18).contains(&y) && (3..15).contains(&z);
            *value = f32::from(u8::from(inside));
            image.values[index] = 100.0 * *value + (index % 17) as f32;
        }
        scene.file(&format!("{raw}/imagesTr/c{case}_0000.nii"), &image.bytes());
        scene.file(&format!("{raw}/labelsTr/c{case}.nii"), &labels.bytes());
    }
    let description = json!({
        "channel_names": { "0": "MR" }, "labels": { "0": "background", "1": "box" },
        "numTraining": 5, "file_ending": ".nii",
    });
    scene.file(&format!("{raw}/dataset.json"), description.to_string().as_bytes());
    good(["plan", &text(&scene.path(raw)), "-q"]);
    good(["preprocess", &text(&scene.path(raw)), "-q"]);
    for fold in ["0", "1"] {
        good(train(scene, fold, &["-q"]));
    }
    scene.path(RUN)
}

fn train(scene: &Scene, fold: &str, more: &[&str]) -> Vec<String> {
    let prepared = text(&scene.path("nnUNet_preprocessed/Dataset001_Boxes"));
    let tiny = [
        "--width",
        "2,2,3,3,4,4",
        "--epochs",
        "1",
        "--iterations",
        "1",
        "--val-iterations",
        "1",
        "--threads",
        "1",
        "--device",
        "cpu",
    ];
    let begin = ["train", &prepared, "3d_fullres", fold];
    begin.into_iter().chain(tiny).chain(more.iter().copied()).map(str::to_owned).collect()
}

#[test]
fn the_folder_that_training_leaves_is_a_model() {
    let scene = Scene::new();
    let run = trained(&scene);
    let input = scene.volume("ct.nii");
    let predict = |model: &Path, more: &[&str]| {
        let mut arguments = predict_arguments(&input, &scene.path("out.nii.gz"), model);
        arguments.extend(["--overwrite", "--save-probabilities", "npz"].map(str::to_owned));
        arguments.extend(more.iter().map(|&more| more.to_owned()));
        arguments
    };
    let predicted = |model: &Path, more: &[&str]| {
        let told = good(predict(model, more));
        let npz = stunet_testing::oracle::Npz::open(&scene.path("out.npz"));
        (told, npz.f32("probabilities"))
    };

    // The run, its folds, a fold and its model folder.
    let (told, both) = predicted(&run, &[]);
    assert!(told.contains("2 folds") && told.contains("folds averaged: 0, 1 (all"), "{told}");
    let (told, first) = predicted(&run, &["-f", "0"]);
    assert!(told.contains("fold taken: 0; left out: 1"), "{told}");
    assert_eq!(predicted(&run.join("fold_0"), &[]).1, first);
    assert_eq!(predicted(&run.join("fold_0/model"), &["-chk", "checkpoint_final"]).1, first);
    let (_, second) = predicted(&run.join("fold_1"), &[]);
    assert!(first != second && both != first, "folds are other networks");

    // Names of checkpoints are heard.
    let best = ["-chk", "checkpoint_best"];
    for model in [run.clone(), run.join("fold_0"), run.join("fold_0/model")] {
        refused(predict(&model, &best), &["checkpoint_final", "found checkpoint_best"]);
    }
    refused(predict(&run, &["-f", "7"]), &["expected fold_7", "fold_0, fold_1"]);

    // Evaluation of every case by the fold that was not trained on it.
    let labels = text(&scene.path("nnUNet_raw/Dataset001_Boxes/labelsTr"));
    let told = good(["evaluate", &labels, &text(&run)]);
    assert!(told.contains("box"), "{told}");
    let summary: Value =
        serde_json::from_slice(&fs::read(run.join("summary.json")).unwrap()).unwrap();
    assert_eq!(summary["metric_per_case"].as_array().unwrap().len(), 2);
    good(["evaluate", &labels, &text(&run.join("fold_1")), "-q"]);

    // One model folder of both folds, and nnU-Net's files from one of them.
    let exported = scene.path("exported");
    good(["export", &text(&run), &text(&exported)]);
    assert_eq!(predicted(&exported, &[]).1, both);
    let pth = text(&scene.path("x.pth"));
    let export = |from: &Path| vec!["export".to_owned(), text(from), pth.clone()];
    refused(export(&run), &["the folder of one fold", "fold_0"]);
    good(export(&run.join("fold_1/model")));
    let content: Value =
        serde_json::from_slice(&fs::read(run.join("dataset.json")).unwrap()).unwrap();
    assert_eq!(content["labels"], json!({ "background": 0, "box": 1 }));

    // The weights of a fold, not of several.
    let from = |fold: &str, model: &Path| {
        train(&scene, fold, &["--no-validation", "--pretrained", &text(model)])
    };
    refused(from("2", &run), &["--pretrained", "several folds", "fold_0"]);
    refused(from("2", &scene.path("nnUNet_raw")), &["--pretrained", "without any of these"]);
    let told = good(from("2", &run.join("fold_0")));
    assert!(told.contains("parameters carried over"), "{told}");

    // A fold that is not complete is named.
    fs::remove_dir_all(run.join("fold_1/model")).unwrap();
    refused(predict(&run, &[]), &["fold_0: complete", "fold_1: training is not complete", "-f"]);
    refused(predict(&run.join("fold_1"), &[]), &["training is not complete", "fold_1"]);
    assert_eq!(predicted(&run, &["-f", "0"]).1, first);
    let continued = ["--pretrained", "complete run", "checkpoint_final.safetensors"];
    refused(from("3", &run.join("fold_1")), &continued);
}

#[test]
fn folds_that_mean_something_else_are_not_averaged() {
    let scene = Scene::new();
    for fold in ["0", "1"] {
        copy(&model_folder(1), &scene.path(&format!("run/fold_{fold}/model")));
    }
    let run = scene.path("run");
    let input = scene.volume("ct.nii");
    let predict = || predict_arguments(&input, &scene.path("out.nii.gz"), &run);
    good(predict());
    fs::remove_file(scene.path("out.nii.gz")).unwrap();
    let plans = run.join("fold_1/model/plans.json");
    edit(&plans, "spacing_mm", json!([3.0, 3.0, 2.0]));
    refused(predict(), &["spacing_mm", "[3.0,3.0,3.0] as in fold_0", "[3.0,3.0,2.0] in fold_1"]);
    assert!(!scene.path("out.nii.gz").exists());
}
