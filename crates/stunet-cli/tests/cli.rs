//! What the binary promises beyond voxels: naming, parts, reports, silence.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::Path;
use std::process::Output;

use common::{LABELS, Scene, model_folder, predict_arguments, said, stunet};
use stunet::data::nifti;

/// Predicts with more arguments and expects success.
fn predict(input: &Path, output: &Path, more: &[&str]) -> Output {
    let mut arguments = predict_arguments(input, output, &model_folder(1));
    arguments.extend(more.iter().map(|word| (*word).to_owned()));
    let output = stunet(arguments);
    assert!(output.status.success(), "{}", said(&output).1);
    output
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn a_labelmap_has_the_geometry_of_its_input() {
    let scene = Scene::new();
    let input = scene.volume("ct.nii");
    let output = scene.path("labels.nii.gz");
    predict(&input, &output, &[]);
    let image = nifti::read_image(&[&input]).unwrap();
    let labels = nifti::read_labelmap(&output).unwrap();
    assert_eq!(labels.geometry.shape(), image.geometry.shape());
    let (found, expected) = (labels.geometry.world_from_voxel(), image.geometry.world_from_voxel());
    for (found, expected) in found.as_flattened().iter().zip(expected.as_flattened()) {
        assert!((found - expected).abs() < 1e-5);
    }
    assert!(labels.data.iter().all(|label| usize::from(*label) < LABELS.len()));
}

#[test]
fn a_folder_gives_one_labelmap_per_case() {
    let scene = Scene::new();
    for name in ["in/b_0000.nii", "in/a_0000.nii", "in/c_0000.nii"] {
        scene.volume(name);
    }
    predict(&scene.path("in"), &scene.path("out"), &[]);
    assert_eq!(names(&scene.path("out")), ["a.nii.gz", "b.nii.gz", "c.nii.gz"]);
}

#[test]
fn parts_divide_the_sorted_cases_before_skipping() {
    let scene = Scene::new();
    for name in ["in/a_0000.nii", "in/b_0000.nii", "in/c_0000.nii"] {
        scene.volume(name);
    }
    predict(&scene.path("in/a_0000.nii"), &scene.path("out"), &[]);
    assert_eq!(names(&scene.path("out")), ["a.nii.gz"]);
    predict(&scene.path("in"), &scene.path("out"), &["--num-parts", "2", "--part-id", "0"]);
    assert_eq!(names(&scene.path("out")), ["a.nii.gz", "c.nii.gz"]);
    predict(&scene.path("in"), &scene.path("out"), &["--num-parts", "2", "--part-id", "1"]);
    assert_eq!(names(&scene.path("out")), ["a.nii.gz", "b.nii.gz", "c.nii.gz"]);
}

#[test]
fn channel_files_are_one_case() {
    let scene = Scene::new();
    let first = scene.volume("p_0000.nii");
    let second = scene.volume("p_0001.nii");
    let mut arguments = predict_arguments(&first, &scene.path("out"), &model_folder(2));
    let at = arguments.iter().position(|word| word == "-o").unwrap();
    arguments.insert(at, second.to_str().unwrap().to_owned());
    let output = stunet(arguments);
    assert!(output.status.success(), "{}", said(&output).1);
    assert_eq!(names(&scene.path("out")), ["p.nii.gz"]);
}

#[test]
fn quiet_prints_nothing() {
    let scene = Scene::new();
    let input = scene.volume("ct.nii");
    let output = predict(&input, &scene.path("labels.nii.gz"), &["--quiet"]);
    assert_eq!(said(&output), (String::new(), String::new()));
}

#[test]
fn no_bar_where_there_is_no_terminal() {
    let scene = Scene::new();
    let input = scene.volume("ct.nii");
    let output = predict(&input, &scene.path("labels.nii.gz"), &[]);
    let (stdout, stderr) = said(&output);
    assert_eq!(stderr, "");
    assert!(!stdout.contains('\u{1b}') && !stdout.contains('\r'), "{stdout:?}");
}

#[test]
fn the_report_counts_every_label() {
    let scene = Scene::new();
    let input = scene.volume("ct.nii");
    let output = scene.path("labels.nii.gz");
    let path = scene.path("report.json");
    predict(&input, &output, &["--json", path.to_str().unwrap()]);
    let report = json(&path);
    assert_eq!(report["device"], "cpu");
    assert_eq!(report["cases"].as_array().unwrap().len(), 1);
    let case = &report["cases"][0];
    assert_eq!(case["name"], "ct");
    assert_eq!(case["status"], "predicted");
    assert_eq!(case["voxels"], 32 * 28 * 24);
    assert_eq!(case["shape"], serde_json::json!([24, 28, 32]));
    let labelmap = nifti::read_labelmap(&output).unwrap();
    for (value, name) in LABELS.iter().enumerate() {
        let voxels = labelmap.data.iter().filter(|found| usize::from(**found) == value).count();
        let label = &case["labels"][value];
        assert_eq!(label["name"], *name);
        assert_eq!(label["voxels"], voxels);
        let millilitres = label["volume_ml"].as_f64().unwrap();
        assert!((millilitres - voxels as f64 * 0.027).abs() < 1e-6);
    }
    let seconds = case["seconds"].as_object().unwrap();
    assert!(seconds.values().all(|seconds| seconds.as_f64().unwrap() >= 0.0));
}

#[test]
fn one_bad_case_does_not_stop_the_others() {
    let scene = Scene::new();
    scene.volume("in/a_0000.nii");
    scene.file("in/b_0000.nii", b"not a volume");
    scene.volume("in/c_0000.nii");
    let path = scene.path("report.json");
    let mut arguments = predict_arguments(&scene.path("in"), &scene.path("out"), &model_folder(1));
    arguments.extend(["--json".into(), path.to_str().unwrap().into()]);
    let output = stunet(arguments);
    assert_eq!(output.status.code(), Some(1));
    let (_, stderr) = said(&output);
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("stunet: b: "), "{stderr}");
    assert_eq!(names(&scene.path("out")), ["a.nii.gz", "c.nii.gz"]);
    let status = |case: usize| json(&path)["cases"][case]["status"].clone();
    assert_eq!([status(0), status(1), status(2)], ["predicted", "failed", "predicted"]);
}

#[test]
fn probabilities_are_written_beside_the_labelmap() {
    let scene = Scene::new();
    let input = scene.volume("ct.nii");
    predict(&input, &scene.path("out"), &["--save-probabilities", "npz"]);
    assert_eq!(names(&scene.path("out")), ["ct.nii.gz", "ct.npz"]);
}

#[test]
fn modes_agree_on_the_grid_of_the_network() {
    // At the model's own spacing nothing is resampled, so that the modes cannot differ.
    let scene = Scene::new();
    let input = scene.volume("ct.nii");
    let mut maps = ["normal", "fast", "fastest"].map(|mode| {
        let output = scene.path(&format!("{mode}.nii.gz"));
        predict(&input, &output, &["--mode", mode]);
        nifti::read_labelmap(&output).unwrap().data
    });
    maps.sort_by_key(|map| map.iter().map(|label| u64::from(*label)).sum::<u64>());
    assert_eq!(maps[0], maps[2]);
}

#[test]
fn a_converted_model_predicts_the_same() {
    let scene = Scene::new();
    let input = scene.volume("ct.nii");
    let copy = scene.path("copy");
    let words = |path: &Path| path.to_str().unwrap().to_owned();
    let converted = stunet(["convert".into(), words(&model_folder(1)), words(&copy)]);
    assert!(converted.status.success(), "{}", said(&converted).1);
    let maps = [model_folder(1), copy].map(|model| {
        let output = scene.path("labels.nii.gz");
        let mut arguments = predict_arguments(&input, &output, &model);
        arguments.push("--overwrite".into());
        let result = stunet(arguments);
        assert!(result.status.success(), "{}", said(&result).1);
        nifti::read_labelmap(&output).unwrap()
    });
    assert_eq!(maps[0], maps[1]);
}

#[test]
fn labels_of_a_model() {
    let output = stunet(["labels".as_ref(), model_folder(1).as_os_str()]);
    assert_eq!(said(&output).0, "0\tbackground\n1\tliver\n2\tspleen\n");
}

#[test]
fn info_as_json() {
    let published = [
        ("small", 14_596_941u64),
        ("base", 58_262_669),
        ("large", 440_302_605),
        ("huge", 1_457_326_221),
    ];
    for (size, parameters) in published {
        let output = stunet(["info", "--size", size, "--json"]);
        let info: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(info["parameters"], parameters);
        assert_eq!(info["stages"].as_array().unwrap().len(), 11);
        assert!(info["macs"].as_u64().unwrap() > 100_000_000_000);
        assert!(info["activation_bytes"].is_u64());
    }
}

#[test]
fn info_of_a_model() {
    let model = model_folder(1);
    let output = stunet(["info".as_ref(), model.as_os_str(), "--json".as_ref()]);
    let info: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(info["input"], serde_json::json!([32, 32, 32]));
    assert_eq!(info["network"]["num_classes"], 3);
    assert!(info["size"].is_null());
    let output = stunet(["info".as_ref(), model.as_os_str()]);
    assert!(said(&output).0.contains("custom"));
}

#[test]
fn devices_name_the_processor() {
    let output = stunet(["devices", "--json"]);
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let backends = found["backends"].as_array().unwrap();
    let cpu = backends.iter().find(|backend| backend["backend"] == "cpu").unwrap();
    assert_eq!(cpu["compiled_in"], cfg!(feature = "cpu"));
    assert!(said(&stunet(["devices"])).0.contains("cpu"));
}

#[cfg(unix)]
#[test]
fn interrupted_leaves_nothing_and_says_130() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};
    use stunet_testing::nifti_bytes::NiftiBytes;

    let scene = Scene::new();
    // enough windows to be caught in the middle
    let input = scene.file("ct.nii", &NiftiBytes::ramp([160, 160, 160]).bytes());
    let before = scene.contents();
    let mut child = Command::new(common::STUNET)
        .args(predict_arguments(&input, &scene.path("labels.nii.gz"), &model_folder(1)))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // The line about the model: from here on the handler stands.
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let killed = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(scene.contents(), before);
}
