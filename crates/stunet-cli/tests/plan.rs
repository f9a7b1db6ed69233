//! `stunet plan`: what it writes for a good dataset, and nothing for a bad one.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod common;

use std::fs;
use std::path::Path;
use std::process::Output;

use common::{Scene, said, stunet};
use serde_json::{Value, json};
use stunet::data::fingerprint::Fingerprint;
use stunet::data::plans::Plans;
use stunet::data::splits::Splits;
use stunet_testing::nifti_bytes::NiftiBytes;

const RAW: &str = "nnUNet_raw/Dataset007_Twins";
const PREPROCESSED: &str = "nnUNet_preprocessed/Dataset007_Twins";

/// A dataset of `cases` cases with one channel and the labels 0, 1, 2.
fn dataset(cases: usize) -> Scene {
    let scene = Scene::new();
    let description = json!({
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "liver": 1, "spleen": 2},
        "numTraining": cases,
        "file_ending": ".nii"
    });
    scene.file(&format!("{RAW}/dataset.json"), description.to_string().as_bytes());
    for case in 0..cases {
        let image = NiftiBytes::ramp([40, 36 + case as i16, 32]);
        let labels = labels(&image);
        scene.file(&format!("{RAW}/imagesTr/c{case}_0000.nii"), &image.bytes());
        scene.file(&format!("{RAW}/labelsTr/c{case}.nii"), &labels.bytes());
    }
    scene
}

fn labels(image: &NiftiBytes) -> NiftiBytes {
    let mut labels = image.clone();
    labels.values.iter_mut().enumerate().for_each(|(i, v)| *v = (i / 500 % 3) as f32);
    labels
}

/// Writes case 1's labels anew.
fn bend_labels(scene: &Scene, bend: impl FnOnce(&mut NiftiBytes)) {
    let mut file = labels(&NiftiBytes::ramp([40, 37, 32]));
    bend(&mut file);
    scene.file(&format!("{RAW}/labelsTr/c1.nii"), &file.bytes());
}

fn plan(scene: &Scene, more: &[&str]) -> Output {
    let raw = scene.path(RAW);
    let arguments = ["plan", raw.to_str().unwrap()];
    stunet(arguments.iter().chain(more))
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Asserts a failure with one line per entry of `lines`, each with all its words, nothing written.
fn check_refused(scene: &Scene, more: &[&str], lines: &[&[&str]]) {
    let before = scene.contents();
    let output = plan(scene, more);
    let (stdout, stderr) = said(&output);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert_eq!(stdout, "");
    assert_eq!(stderr.lines().count(), lines.len(), "{stderr}");
    for (line, words) in stderr.lines().zip(lines) {
        for word in *words {
            assert!(line.contains(word), "no {word:?} in: {line}");
        }
    }
    assert_eq!(scene.contents(), before, "something was written");
}

#[test]
fn the_folder_of_nnunet_v2() {
    let scene = dataset(5);
    let output = plan(&scene, &[]);
    let (stdout, stderr) = said(&output);
    assert!(output.status.success(), "{stderr}");
    assert_eq!(stderr, "");
    for words in ["5 cases of CT", "3d_fullres", "32 × 40 × 40 voxels", "STU-Net has 5 pooling"] {
        assert!(stdout.contains(words), "no {words:?} in: {stdout}");
    }
    let folder = scene.path(PREPROCESSED);
    let expected =
        ["dataset.json", "dataset_fingerprint.json", "nnUNetPlans.json", "splits_final.json"];
    assert_eq!(names(&folder), expected);
    let dataset = read(&folder.join("dataset.json"));
    assert_eq!(dataset, read(&scene.path(RAW).join("dataset.json")));
    let plans = read(&folder.join("nnUNetPlans.json"));
    let plans = Plans::from_v2_json(&plans, &dataset, "3d_fullres").unwrap();
    assert_eq!(plans.strides.len(), 5);
    let fingerprint = Fingerprint::load(&folder.join("dataset_fingerprint.json")).unwrap();
    assert_eq!(fingerprint.shapes_after_crop[3], [32, 39, 40]);
    assert_eq!(Splits::load(&folder.join("splits_final.json")).unwrap().folds().len(), 5);
}

#[test]
fn the_folder_of_nnunet_v1() {
    let scene = dataset(5);
    let out = scene.path("out");
    let output = plan(&scene, &["-o", out.to_str().unwrap(), "--rules", "v1", "--json"]);
    let (stdout, stderr) = said(&output);
    assert!(output.status.success(), "{stderr}");
    let report: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(report["cases"], 5);
    assert_eq!(report["configurations"][0]["name"], "3d_fullres");
    let expected = [
        "dataset.json",
        "dataset_properties.pkl",
        "nnUNetPlansv2.1_plans_3D.json",
        "nnUNetPlansv2.1_plans_3D.pkl",
        "splits_final.json",
        "splits_final.pkl",
    ];
    assert_eq!(names(&out), expected);
    let pickle = stunet::model::weights::pickle::read_file(&out.join(expected[3])).unwrap();
    assert_eq!(pickle.to_json(), read(&out.join(expected[2])));
    Plans::from_v1_json(&pickle.to_json()).unwrap();
    assert_eq!(read(&out.join("dataset.json"))["modality"], json!({"0": "CT"}));
}

#[test]
fn a_fingerprint_and_folds_that_are_there() {
    let scene = dataset(5);
    let fingerprint = scene.path("fingerprint.json");
    let text = json!({
        "foreground_intensity_properties_per_channel": {"0": {
            "max": 3.0, "mean": 1.0, "median": 1.0, "min": 0.0,
            "percentile_00_5": 0.0, "percentile_99_5": 2.0, "std": 1.0
        }},
        "median_relative_size_after_cropping": 1.0,
        "shapes_after_crop": vec![[300, 512, 512]; 5],
        "spacings": vec![[1.0, 0.8, 0.8]; 5]
    });
    fs::write(&fingerprint, text.to_string()).unwrap();
    let splits = json!([{"train": ["c0", "c1"], "val": ["c4"]}]);
    scene.file(&format!("{PREPROCESSED}/splits_final.json"), splits.to_string().as_bytes());
    let output = plan(&scene, &["--fingerprint", fingerprint.to_str().unwrap(), "-q"]);
    let (stdout, stderr) = said(&output);
    assert!(output.status.success(), "{stderr}");
    assert_eq!((stdout.as_str(), stderr.as_str()), ("", ""));
    assert_eq!(read(&scene.path(PREPROCESSED).join("splits_final.json")), splits);
    let plans = read(&scene.path(PREPROCESSED).join("nnUNetPlans.json"));
    let full = &plans["configurations"]["3d_fullres"];
    assert_eq!(full["median_image_size_in_voxels"], json!([300.0, 512.0, 512.0]));
    assert!(plans["configurations"]["3d_lowres"].is_object(), "{plans}");
}

#[test]
fn a_missing_label() {
    let scene = dataset(2);
    fs::remove_file(scene.path(RAW).join("labelsTr/c1.nii")).unwrap();
    check_refused(&scene, &[], &[&["stunet: case c1: label file is missing", "c1.nii"]]);
}

#[test]
fn a_label_on_another_grid() {
    let scene = dataset(2);
    bend_labels(&scene, |file| file.affine[0][3] += 9.0);
    check_refused(&scene, &[], &[&["case c1: origin differs", "expected", "found", "labelsTr"]]);
    bend_labels(&scene, |file| {
        file.size_xyz[2] -= 1;
        file.values.truncate(40 * 37 * 31);
    });
    check_refused(&scene, &[], &[&["case c1: shape differs", "[32, 37, 40]", "[31, 37, 40]"]]);
}

/// What is accepted only because that was asked for is told, by `plan` and by `preprocess`.
#[test]
fn headers_that_nearly_agree() {
    let scene = dataset(2);
    bend_labels(&scene, |file| file.affine[0][3] += 0.25);
    check_refused(&scene, &[], &[&["case c1: origin differs", "--geometry-tolerance 0.3mm"]]);
    let raw = scene.path(RAW);
    for command in ["plan", "preprocess"] {
        let allowed = ["--geometry-tolerance", "0.3mm"];
        let output = stunet([command, raw.to_str().unwrap()].iter().chain(&allowed));
        let (stdout, stderr) = said(&output);
        assert!(output.status.success(), "{command}: {stderr}");
        let note = stdout.lines().find(|line| line.contains("c1: c1.nii: origin differs"));
        assert!(note.is_some_and(|note| note.contains("accepted")), "{command}: {stdout}");
        assert!(!stdout.contains("c0: "), "{command}: {stdout}");
    }
}

#[test]
fn an_unknown_label_value() {
    let scene = dataset(2);
    bend_labels(&scene, |file| file.values[11] = 7.0);
    check_refused(&scene, &[], &[&["case c1: unknown label", "expected 0 to 2", "found 7"]]);
}

#[test]
fn every_bad_case_is_named() {
    let scene = dataset(5);
    fs::remove_file(scene.path(RAW).join("labelsTr/c3.nii")).unwrap();
    bend_labels(&scene, |file| file.values[11] = 9.0);
    let mut image = NiftiBytes::ramp([40, 36, 32]);
    image.values[5] = f32::NAN;
    scene.file(&format!("{RAW}/imagesTr/c0_0000.nii"), &image.bytes());
    image.values.fill(0.0);
    image.size_xyz[1] = 40;
    image.values.resize(40 * 40 * 32, 0.0);
    scene.file(&format!("{RAW}/imagesTr/c4_0000.nii"), &image.bytes());
    let lines: [&[&str]; 4] = [
        &["case c0: ", "NaN", "c0_0000.nii"],
        &["case c1: ", "found 9", "c1.nii"],
        &["case c3: ", "missing", "c3.nii"],
        &["case c4: ", "empty", "c4_0000.nii"],
    ];
    check_refused(&scene, &["--quiet"], &lines);
}

#[test]
fn bad_descriptions_and_arguments() {
    let scene = dataset(2);
    fs::remove_file(scene.path(RAW).join("dataset.json")).unwrap();
    check_refused(&scene, &[], &[&["no such file", "dataset.json"]]);
    let scene = dataset(2);
    let path = scene.path(RAW).join("dataset.json");
    let mut description = read(&path);
    description["numTraining"] = json!(3);
    fs::write(&path, description.to_string()).unwrap();
    check_refused(&scene, &[], &[&["numTraining: expected 2", "found 3", "dataset.json"]]);
    description["numTraining"] = json!(2);
    description["labels"] = json!({"background": 0, "all": [1, 2]});
    description["regions_class_order"] = json!([1]);
    fs::write(&path, description.to_string()).unwrap();
    check_refused(&scene, &["--rules", "v1"], &[&["labels: expected plain", "regions"]]);
    let absent = scene.path("absent.json");
    check_refused(&scene, &["--fingerprint", absent.to_str().unwrap()], &[&["absent.json"]]);
    let given = ["--fingerprint", absent.to_str().unwrap(), "--rules", "v1"];
    check_refused(&scene, &given, &[&["--fingerprint: expected the rules of v2"]]);
    check_refused(&scene, &["--plans-name", "a/b"], &[&["--plans-name", "a/b"]]);
    let foreign = json!([{"train": ["c0", "x9"], "val": ["c1"]}]);
    scene.file(&format!("{PREPROCESSED}/splits_final.json"), foreign.to_string().as_bytes());
    check_refused(&scene, &[], &[&["fold 0", "x9", "splits_final.json"]]);
}

#[test]
fn few_cases_have_no_folds() {
    let scene = dataset(2);
    let output = plan(&scene, &["--memory", "4", "--spacing", "6", "3", "3"]);
    let (stdout, stderr) = said(&output);
    assert!(output.status.success(), "{stderr}");
    assert!(stdout.contains("fewer than 5 cases") && stdout.contains("6 × 3 × 3 mm"), "{stdout}");
    assert!(!scene.path(PREPROCESSED).join("splits_final.json").exists());
}

#[test]
fn plans_that_are_replaced_are_told() {
    let scene = dataset(2);
    let planned = |scene: &Scene| {
        let output = plan(scene, &[]);
        assert!(output.status.success(), "{}", said(&output).1);
        said(&output).0
    };
    planned(&scene);
    assert!(!planned(&scene).contains("is replaced"), "the same plans once more");
    let path = scene.path(PREPROCESSED).join("nnUNetPlans.json");
    let mut plans = read(&path);
    plans["configurations"]["3d_fullres"]["batch_size"] = json!(11);
    plans["configurations"]["mine"] = json!({"inherits_from": "3d_fullres"});
    fs::write(&path, plans.to_string()).unwrap();
    let expected =
        "note: nnUNetPlans.json was there and is replaced: 3d_fullres.batch_size is 11 in the old";
    let said = planned(&scene);
    assert!(said.contains(expected), "{said}");
    let now = read(&path);
    assert_eq!(now["configurations"]["3d_fullres"]["batch_size"], 2);
    assert!(now["configurations"]["mine"].is_object(), "configurations of one's own are kept");
}
