//! `stunet verify`: its table, its verdict, and who asks for it afterwards.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::boxes::{CONFIGURATION, DATASET, dataset};
use common::{STUNET, Scene, assert_one_line, model_folder, predict_arguments, said};
use serde_json::Value;

fn run(cache: &Path, arguments: &[&str]) -> Output {
    Command::new(STUNET).args(arguments).env("STUNET_CACHE", cache).output().unwrap()
}

fn verdict(cache: &Path) -> PathBuf {
    let files = fs::read_dir(cache.join("verdicts")).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<_> = files.collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].clone()
}

/// The device that passes is used, the one that fails is refused, and used when that is asked for.
#[test]
fn verdicts_are_kept_and_asked_for() {
    let scene = Scene::new();
    let (input, cache) = (scene.volume("case.nii.gz"), scene.path("cache"));
    let predict = |more: &[&str]| {
        let name = format!("out{}.nii.gz", more.len());
        let model = model_folder(1);
        let words = predict_arguments(&input, &scene.path(&name), &model);
        let words: Vec<_> = words.iter().map(String::as_str).chain(more.iter().copied()).collect();
        let output = run(&cache, &[&words[..], &["--overwrite"]].concat());
        (output, scene.path(&name).exists())
    };
    // Without a verdict nothing is refused, and nothing is kept.
    let (output, written) = predict(&[]);
    assert!(output.status.success() && written && !cache.exists(), "{}", said(&output).1);

    let output = run(&cache, &["verify", "--device", "cpu"]);
    let (table, errors) = said(&output);
    assert!(output.status.success() && errors.is_empty(), "{errors}\n{table}");
    let rows = table.lines().filter(|line| line.ends_with(" ok")).count();
    assert!(rows > 30 && table.contains(&format!("{rows} stages agree")), "{table}");
    let file = verdict(&cache);
    assert!(table.contains(file.to_str().unwrap()), "{table}");
    let kept: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(kept["failed_stage"], Value::Null);
    assert_eq!(kept["verified"]["version"], env!("CARGO_PKG_VERSION"));
    assert!(predict(&[]).0.status.success());

    let stage = "upsampling";
    let output = run(&cache, &["verify", "--device", "cpu", "--quiet", "--fault", stage]);
    let (table, _) = said(&output);
    assert_eq!(output.status.code(), Some(1));
    assert!(table.starts_with("upsampling ") && table.contains("FAILED"), "{table}");
    assert_eq!(table.lines().count(), 1, "{table}");
    assert_one_line(&output, &["device cpu", "first in \"upsampling\""]);
    assert_eq!(verdict(&cache), file, "the verdict is replaced");

    fs::remove_file(scene.path("out0.nii.gz")).unwrap();
    let (output, written) = predict(&[]);
    assert_one_line(&output, &["device cpu", "\"upsampling\"", "--unverified-device"]);
    assert!(!written, "nothing is written by a device that failed");
    let (output, written) = predict(&["--unverified-device"]);
    assert!(output.status.success() && written, "{}", said(&output).1);
}

/// A training is refused as a prediction is, and before it writes; one in half precision asks for the verdict on
/// that too.
#[test]
fn a_training_asks_for_verdicts() {
    let scene = dataset();
    let (results, cache) = (scene.path("results"), scene.path("cache"));
    let data = scene.path(&format!("nnUNet_preprocessed/{DATASET}"));
    let folders = [&data, &results].map(|path| path.to_str().unwrap());
    let words = ["train", folders[0], CONFIGURATION, "0", "-o", folders[1], "--device", "cpu"];
    let short = ["--threads", "2", "--width", "2,2,3,3,4,4", "--epochs", "1", "--no-validation"];
    let steps = ["--iterations", "1", "--val-iterations", "1"];
    let train = |more: &[&str]| run(&cache, &[&words, &short[..], &steps, more].concat());
    let refused = |more: &[&str]| {
        assert_one_line(&train(more), &["device cpu", "\"leaky ReLU\"", "--unverified-device"]);
        assert!(!results.exists(), "nothing is written by a device that failed");
    };

    // A fault is within the bounds of half precision: a verdict is made one.
    let output = run(&cache, &["verify", "--device", "cpu", "--precision", "bf16"]);
    assert!(output.status.success(), "{}", said(&output).1);
    let file = verdict(&cache);
    let mut kept: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    kept["failed_stage"] = "leaky ReLU".into();
    fs::write(&file, kept.to_string()).unwrap();
    refused(&["--precision", "bf16"]);
    let output = train(&[]);
    assert!(output.status.success() && results.exists(), "{}", said(&output).1);

    fs::remove_dir_all(&results).unwrap();
    let output = run(&cache, &["verify", "--device", "cpu", "--fault", "leaky ReLU"]);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output).1);
    refused(&[]);
    let output = train(&["--unverified-device"]);
    assert!(output.status.success() && results.exists(), "{}", said(&output).1);
}

#[test]
fn as_json_and_without_a_cache() {
    let scene = Scene::new();
    let cache = scene.path("cache");
    let arguments = ["verify", "--device", "cpu", "--json", "--no-cache"];
    let output = run(&cache, &arguments);
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.success() && !cache.exists());
    assert_eq!(
        (&found["ok"], &found["device"], &found["verdict"]),
        (&Value::Bool(true), &Value::from("cpu"), &Value::Null)
    );
    let stages = found["stages"].as_array().unwrap();
    let bounded = |stage: &Value| stage["error"].as_f64() <= stage["bound"].as_f64();
    assert!(stages.len() > 30 && stages.iter().all(bounded));

    let output = run(&cache, &[&arguments[..], &["--fault", "leaky ReLU"]].concat());
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        (&found["ok"], &found["first_failure"]),
        (&Value::Bool(false), &"leaky ReLU".into())
    );
    assert_one_line(&run(&cache, &["verify", "--device", "abacus"]), &["--device", "abacus"]);
}

/// A cache that cannot be written is told, and the exit code says that nothing is kept.
#[test]
fn a_cache_that_is_a_file() {
    let scene = Scene::new();
    let cache = scene.file("cache", b"");
    let output = run(&cache, &["verify", "--device", "cpu", "--quiet"]);
    assert_one_line(&output, &["verdicts"]);
}
