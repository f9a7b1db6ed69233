//! `stunet preprocess`: folders, resuming, being killed, and how it refuses.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod common;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime};

use common::{STUNET, Scene, said, stunet};
use serde_json::{Value, json};
use stunet::data::store::Store;
use stunet_testing::nifti_bytes::NiftiBytes;

const IDENTIFIER: &str = "nnUNet_preprocessed/Dataset001_A/nnUNetPlans_3d_fullres_stunet";

/// A raw dataset of `cases` volumes of `size³` voxels at 3 mm, planned for 3 mm.
fn scene(cases: &[&str], size: i16) -> Scene {
    let scene = Scene::new();
    for (number, case) in cases.iter().enumerate() {
        let mut image = NiftiBytes::ramp([size, size, size]);
        image.values[number] += 1.0;
        scene.file(&format!("nnUNet_raw/Dataset001_A/imagesTr/{case}_0000.nii"), &image.bytes());
        label(&scene, case, size, 1.0);
    }
    let dataset = json!({
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "liver": 1, "spleen": 2},
        "numTraining": cases.len(),
        "file_ending": ".nii"
    });
    scene.file("nnUNet_raw/Dataset001_A/dataset.json", dataset.to_string().as_bytes());
    plan(&scene, [3.0, 3.0, 3.0]);
    scene
}

fn label(scene: &Scene, case: &str, size: i16, value: f32) {
    let mut labels = NiftiBytes::ramp([size, size, size]);
    labels.values.fill(0.0);
    labels.values[300..340].fill(value);
    scene.file(&format!("nnUNet_raw/Dataset001_A/labelsTr/{case}.nii"), &labels.bytes());
}

/// Plans as nnU-Net 2.2 writes them.
fn plan(scene: &Scene, spacing: [f64; 3]) {
    let configuration = json!({
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [32, 32, 32],
        "spacing": spacing,
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [false],
        "pool_op_kernel_sizes": [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2], [2, 2, 2]]
    });
    let plans = json!({
        "dataset_name": "Dataset001_A",
        "plans_name": "nnUNetPlans",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": configuration},
        "foreground_intensity_properties_per_channel": {}
    });
    let name = "nnUNet_preprocessed/Dataset001_A/nnUNetPlans.json";
    scene.file(name, plans.to_string().as_bytes());
}

fn command(scene: &Scene, more: &[&str]) -> Vec<PathBuf> {
    let mut words: Vec<PathBuf> = vec!["preprocess".into(), scene.path("nnUNet_raw/Dataset001_A")];
    words.extend(more.iter().map(PathBuf::from));
    words
}

fn run(scene: &Scene, more: &[&str]) -> Output {
    stunet(command(scene, more))
}

/// Status of every case, from `--json`.
fn statuses(scene: &Scene, more: &[&str]) -> String {
    let output = run(scene, &[more, &["--json"]].concat());
    let (stdout, stderr) = said(&output);
    let report: Value = serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{e}: {stderr}"));
    let cases = report["cases"].as_array().unwrap();
    cases.iter().map(|case| &case["status"].as_str().unwrap()[..1]).collect()
}

/// The bytes of every finished case.
fn stored(scene: &Scene) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = std::fs::read_dir(scene.path(IDENTIFIER)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let cases = paths.filter(|path| path.extension().is_some_and(|e| e == "safetensors"));
    cases.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

#[test]
fn a_store_in_nnunets_layout() {
    let scene = scene(&["b", "a"], 20);
    let output = run(&scene, &[]);
    let (stdout, stderr) = said(&output);
    assert!(output.status.success() && stderr.is_empty(), "{stderr}");
    assert!(stdout.contains("Dataset001_A: 2 case(s) prepared"), "{stdout}");
    let store = Store::open(&scene.path(IDENTIFIER)).unwrap();
    assert_eq!(store.names(), ["a", "b"]);
    let case = store.find("a").unwrap();
    assert_eq!(case.image().shape(), [1, 20, 20, 20]);
    assert_eq!(case.locations().get(1).len(), 40);
    assert!(case.image().mean().unwrap().abs() < 1e-4);
    let copied = scene.path("nnUNet_preprocessed/Dataset001_A/gt_segmentations/a.nii");
    let label = scene.path("nnUNet_raw/Dataset001_A/labelsTr/a.nii");
    assert_eq!(std::fs::read(&copied).unwrap(), std::fs::read(&label).unwrap());
    // The same through the folder with the plans.
    let again =
        stunet([PathBuf::from("preprocess"), scene.path("nnUNet_preprocessed/Dataset001_A")]);
    assert!(said(&again).0.contains("0 case(s) prepared (0 B), 2 kept"), "{}", said(&again).0);
}

#[test]
fn only_what_changed_is_prepared_anew() {
    let scene = scene(&["a", "b"], 20);
    assert_eq!(statuses(&scene, &[]), "ww");
    assert_eq!(statuses(&scene, &[]), "kk");
    // As out of a backup: as long as before, and older than what was made from it.
    label(&scene, "b", 20, 2.0);
    let source = scene.path("nnUNet_raw/Dataset001_A/labelsTr/b.nii");
    let older = SystemTime::now() - Duration::from_secs(3600);
    File::options().write(true).open(source).unwrap().set_modified(older).unwrap();
    assert_eq!(statuses(&scene, &["--no-check"]), "kw");
    let copied = scene.path("nnUNet_preprocessed/Dataset001_A/gt_segmentations/b.nii");
    let label = scene.path("nnUNet_raw/Dataset001_A/labelsTr/b.nii");
    assert_eq!(std::fs::read(&copied).unwrap(), std::fs::read(&label).unwrap());
    plan(&scene, [2.0, 3.0, 3.0]);
    assert_eq!(statuses(&scene, &[]), "ww");
    assert_eq!(statuses(&scene, &["--redo"]), "ww");
    let quiet = run(&scene, &["--quiet"]);
    assert_eq!(said(&quiet), (String::new(), String::new()));
}

#[test]
fn a_dataset_with_problems_is_refused_whole() {
    let scene = scene(&["a", "b", "c"], 20);
    label(&scene, "a", 20, 7.0);
    std::fs::remove_file(scene.path("nnUNet_raw/Dataset001_A/labelsTr/c.nii")).unwrap();
    let before = scene.contents();
    let output = run(&scene, &[]);
    let (_, stderr) = said(&output);
    assert_eq!(output.status.code(), Some(1));
    let lines: Vec<&str> = stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{stderr}");
    assert!(lines[0].starts_with("stunet: case a: unknown label"), "{stderr}");
    assert!(lines[1].starts_with("stunet: case c: label file is missing"), "{stderr}");
    assert_eq!(scene.contents(), before, "nothing is written");
    // Case by case, the good ones are prepared and the code says that not all were.
    let output = run(&scene, &["--no-check"]);
    let (stdout, stderr) = said(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(stdout.contains("1 case(s) prepared") && stdout.contains("2 failed"), "{stdout}");
    assert_eq!(stderr.lines().count(), 2, "{stderr}");
    let store = Store::open(&scene.path(IDENTIFIER)).unwrap();
    assert_eq!(
        (store.names(), store.unfinished()),
        (&["b".into()][..], vec!["a".into(), "c".into()])
    );
}

/// One line with all of `words`, and nothing written.
fn refused(scene: &Scene, words: Vec<PathBuf>, expected: &[&str]) {
    let before = scene.contents();
    let output = stunet(words);
    let (_, stderr) = said(&output);
    assert!(matches!(output.status.code(), Some(1 | 2)), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    for word in expected {
        assert!(stderr.contains(word), "no {word:?} in: {stderr}");
    }
    assert_eq!(scene.contents(), before, "something was written");
}

#[test]
fn bad_input() {
    let scene = scene(&["a"], 20);
    let check = |more: &[&str], expected: &[&str]| refused(&scene, command(&scene, more), expected);
    check(&["2d"], &["configuration", "3d_fullres", "found 2d", "nnUNetPlans.json"]);
    check(&["--plans", "Other"], &["expected Other.json", "stunet plan"]);
    check(&["--memory", "0"], &["--memory", "above 0"]);
    check(&["-np", "0"], &["at least 1"]);
    let absent = ["preprocess".into(), scene.path("absent")];
    refused(&scene, absent.to_vec(), &["no such file or folder", "absent"]);
    let planned = scene.path("nnUNet_preprocessed/Dataset001_A");
    let raw = ["preprocess".into(), planned, "--raw".into(), scene.path("none")];
    refused(&scene, raw.to_vec(), &["expected the raw dataset", "--raw", "none"]);
    scene.file("nnUNet_preprocessed/Dataset001_A/nnUNetPlans.json", b"{\"configurations\": {");
    check(&[], &["JSON", "nnUNetPlans.json"]);
    scene.file("nnUNet_preprocessed/Dataset001_A/nnUNetPlans.json", b"{}");
    check(&[], &["plans", "nnUNetPlans.json"]);
    std::fs::remove_dir_all(scene.path("nnUNet_preprocessed")).unwrap();
    check(&[], &["expected nnUNetPlans.json", "stunet plan"]);
}

/// Every file of the store opens, and no case is there twice.
fn is_whole(folder: &Path) {
    if let Ok(store) = Store::open(folder) {
        for name in store.names() {
            store.find(name).unwrap();
        }
    }
}

#[test]
fn killed_at_any_moment_and_continued() {
    let cases = ["a", "b", "c", "d", "e", "f"];
    let scene = scene(&cases, 64);
    assert_eq!(statuses(&scene, &["--no-check"]), "wwwwww");
    let expected = stored(&scene);
    let folder = scene.path(IDENTIFIER);
    let mut interrupted = 0;
    for milliseconds in [5, 20, 40, 60, 90, 130, 180, 240] {
        if stored(&scene).len() == cases.len() {
            std::fs::remove_dir_all(&folder).unwrap();
            std::fs::create_dir_all(&folder).unwrap();
        }
        let mut child = Command::new(STUNET)
            .args(command(&scene, &["--no-check", "--num-workers", "2"]))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(milliseconds));
        child.kill().unwrap();
        interrupted += usize::from(!child.wait().unwrap().success());
        is_whole(&folder);
    }
    assert!(interrupted > 0, "no run was caught alive");
    let statuses = statuses(&scene, &["--no-check"]);
    assert!(statuses.len() == cases.len() && !statuses.contains('f'), "{statuses}");
    assert_eq!(stored(&scene), expected, "the same bytes as without interruption");
    let hidden = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name());
    let leftovers: Vec<_> =
        hidden.filter(|name| name.to_string_lossy().ends_with(".tmp")).collect();
    assert!(leftovers.is_empty(), "{leftovers:?}");
}

#[cfg(unix)]
#[test]
fn ctrl_c_stops_between_cases() {
    let cases: Vec<String> = (0..40).map(|i| format!("c{i:02}")).collect();
    let scene = scene(&cases.iter().map(String::as_str).collect::<Vec<_>>(), 64);
    let folder = scene.path(IDENTIFIER);
    let mut child = Command::new(STUNET)
        .args(command(&scene, &["--no-check", "--num-workers", "1", "--json"]))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while !folder.join("c00.safetensors").exists() {
        assert!(child.try_wait().unwrap().is_none(), "ended before its first case");
        std::thread::sleep(Duration::from_millis(2));
    }
    let interrupt = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(interrupt.unwrap().success());
    let output = child.wait_with_output().unwrap();
    let (stdout, stderr) = said(&output);
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    let report: Value = serde_json::from_str(&stdout).unwrap();
    let told = report["cases"].as_array().unwrap().len();
    assert_eq!(report["interrupted"], true);
    assert!((1..40).contains(&told), "{told}");
    assert_eq!(stored(&scene).len(), told, "what was told is what is there");
    is_whole(&folder);
    let again = statuses(&scene, &["--no-check"]);
    assert_eq!(again, "k".repeat(told) + &"w".repeat(40 - told));
}

#[test]
fn what_every_rule_plans_can_be_prepared() {
    let home = Scene::new();
    let fingerprint = home.path("fingerprint.json");
    for (rules, identifier) in [
        ("v2.8", "nnUNetPlans_3d_fullres_stunet"),
        ("v2.2", "nnUNetPlans_3d_fullres_stunet"),
        ("v1", "nnUNetPlansv2.1_plans_3D_3d_fullres_stunet"),
    ] {
        let scene = scene(&["a", "b", "c"], 24);
        let planned = scene.path("nnUNet_preprocessed/Dataset001_A");
        std::fs::remove_dir_all(&planned).unwrap();
        let raw = scene.path("nnUNet_raw/Dataset001_A");
        let mut plan = vec!["plan".into(), raw, "--rules".into(), rules.into()];
        // Version 2 draws a hundred million intensities: once is enough. Version 1 measures otherwise.
        if rules == "v2.2" {
            plan.extend(["--fingerprint".into(), fingerprint.clone()]);
        }
        let output = stunet(plan);
        assert!(output.status.success(), "{rules}: {}", said(&output).1);
        if rules == "v2.8" {
            std::fs::copy(planned.join("dataset_fingerprint.json"), &fingerprint).unwrap();
        }
        assert_eq!(statuses(&scene, &[]), "www", "{rules}");
        let store = Store::open(&planned.join(identifier)).unwrap();
        let case = store.find("c").unwrap();
        assert_eq!(case.labels().shape(), [24, 24, 24], "{rules}");
        assert_eq!(case.locations().get(1).len(), 40, "{rules}");
        let mean = case.image().mean().unwrap();
        assert!(mean.is_finite() && case.image().std(0.0) > 0.0, "{rules}: {mean}");
    }
}
