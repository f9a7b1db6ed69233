//! Outputs that are there already: skipped when they are what was asked for, completed when something
//! is missing, and otherwise left alone and told of.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use common::{LABELS, Scene, config, model_folder, plans, predict_arguments, said, stunet};
use stunet::data::labels::LabelSet;
use stunet::data::nifti;
use stunet::infer::Model;
use stunet::model::{Initialisation, StuNetConfig};
use stunet_testing::nifti_bytes::NiftiBytes;

/// Two cases that were predicted into `out` with the model of [`model_folder`].
struct Predicted {
    scene: Scene,
    model: PathBuf,
}

const FIRST: [&str; 2] = ["--save-probabilities", "zarr"];

impl Predicted {
    fn new(options: &[&str]) -> Self {
        let scene = Scene::new();
        for (name, size) in [("a", [20, 18, 16]), ("b", [24, 20, 18])] {
            scene.file(&format!("in/{name}_0000.nii"), &NiftiBytes::ramp(size).bytes());
        }
        let predicted = Self { scene, model: model_folder(1) };
        let done = predicted.run(options);
        assert!(done.status.success(), "{}", said(&done).1);
        predicted
    }

    fn run(&self, more: &[&str]) -> Output {
        let [input, output] = ["in", "out"].map(|name| self.scene.path(name));
        let mut arguments = predict_arguments(&input, &output, &self.model);
        arguments.extend(more.iter().map(|word| (*word).to_owned()));
        stunet(arguments)
    }

    /// Every file below `out` with its bytes and the time it was written.
    fn outputs(&self) -> Vec<(PathBuf, Vec<u8>, std::time::SystemTime)> {
        let below = self.scene.path("out");
        let files = self.scene.contents().into_keys();
        files
            .filter(|path| path.starts_with(&below) && path.is_file())
            .map(|path| {
                let written = path.metadata().unwrap().modified().unwrap();
                (path.clone(), fs::read(&path).unwrap(), written)
            })
            .collect()
    }

    /// Both cases are skipped, and nothing is touched.
    fn check_skipped(&self, more: &[&str]) {
        let before = self.outputs();
        let again = self.run(more);
        let (stdout, stderr) = said(&again);
        assert!(again.status.success(), "{more:?}: {stderr}");
        assert_eq!(stdout.matches("skipped, exists").count(), 2, "{more:?}: {stdout}");
        assert!(self.outputs() == before, "{more:?}");
    }

    /// Both cases are refused in a line each with all of `words`, and nothing is touched.
    fn check_refused(&self, more: &[&str], words: &[&str]) {
        let before = self.outputs();
        let again = self.run(more);
        let (stdout, stderr) = said(&again);
        assert_eq!(again.status.code(), Some(1), "{more:?}: {stderr}");
        let lines: Vec<_> = stderr.lines().collect();
        assert_eq!(lines.len(), 2, "{more:?}: {stderr}");
        for (line, case) in lines.iter().zip(["a", "b"]) {
            assert!(line.starts_with(&format!("stunet: {case}: ")), "{line}");
            assert!(line.contains("--overwrite"), "{line}");
            for word in words {
                assert!(line.contains(word), "no {word:?} in: {line}");
            }
        }
        assert!(!stdout.contains("windows,"), "the network was run: {stdout}");
        assert!(self.outputs() == before, "{more:?}");
    }
}

/// A model like that of [`model_folder`], with other weights or plans.
fn other_model(scene: &Scene, seed: u64, patch: usize) -> PathBuf {
    let path = scene.path(&format!("model_{seed}_{patch}"));
    let device = stunet::device::parse("cpu").unwrap();
    let network = config(1).init_seeded(Initialisation::NnUNetV1, seed, &device).unwrap();
    let plans = stunet::data::plans::Plans { patch_size: [patch; 3], ..plans(1) };
    let labels = LabelSet::from_names(LABELS).unwrap();
    Model::from_parts(vec![network], plans, labels).unwrap().save_folder(&path).unwrap();
    path
}

#[test]
fn the_same_is_skipped() {
    let done = Predicted::new(&[]);
    done.check_skipped(&[]);
    done.check_skipped(&["--max-memory", "3G"]);
    done.check_skipped(&["--device-memory", "1G"]);
    done.check_skipped(&["--step-size", "0.50"]);
}

#[test]
fn a_model_is_the_same_under_another_name() {
    let mut done = Predicted::new(&[]);
    let copy = done.scene.path("copy of the model");
    let words = |path: &Path| path.to_str().unwrap().to_owned();
    let converted = stunet(["convert".to_owned(), words(&done.model), words(&copy)]);
    assert!(converted.status.success(), "{}", said(&converted).1);
    done.model = copy;
    done.check_skipped(&[]);
}

#[test]
fn another_setting_is_refused() {
    let done = Predicted::new(&[]);
    done.check_refused(&["--step-size", "0.75"], &["step size 0.75, found 0.5"]);
    done.check_refused(&["--mode", "fast"], &["mode fast, found normal"]);
    done.check_refused(&["--reference", "v2.8"], &["arithmetic nnunet-2.8, found nnunet-1.7"]);
    let done = Predicted::new(&["--reference", "v2.8"]);
    let other = ["--reference", "v2.8", "--accumulation", "f16"];
    done.check_refused(&other, &["accumulation f16, found f32"]);
    // The arguments of every test here say --disable-tta.
    let [input, output] = ["in", "out"].map(|name| done.scene.path(name));
    let mut mirrored = predict_arguments(&input, &output, &done.model);
    mirrored.retain(|word| word != "--disable-tta");
    mirrored.extend(["--reference".to_owned(), "v2.8".to_owned()]);
    let refused = stunet(mirrored);
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).1.contains("mirrored axes 0, 1, 2"), "{}", said(&refused).1);
}

#[test]
fn another_model_is_refused() {
    let mut done = Predicted::new(&[]);
    for (seed, patch) in [(4, 32), (3, 64)] {
        done.model = other_model(&done.scene, seed, patch);
        done.check_refused(
            &[],
            &["labelmap: expected none, or one of this model (", ", found one of another model"],
        );
    }
    done.model = done.scene.path("absent");
    let before = done.outputs();
    let absent = done.run(&[]);
    assert_eq!(absent.status.code(), Some(1));
    assert!(said(&absent).1.contains("no such file or folder"), "{}", said(&absent).1);
    assert!(done.outputs() == before);
}

#[test]
fn another_input_is_refused() {
    let done = Predicted::new(&[]);
    let at = done.scene.path("in/a_0000.nii");
    let mut bytes = fs::read(&at).unwrap();
    fs::write(&at, &bytes).unwrap();
    done.check_skipped(&[]);
    let half = bytes.len() / 2;
    bytes[half] ^= 1;
    fs::write(&at, &bytes).unwrap();
    let before = done.outputs();
    let again = done.run(&[]);
    let (stdout, stderr) = said(&again);
    assert_eq!(again.status.code(), Some(1), "{stderr}");
    assert!(stderr.starts_with("stunet: a: labelmap") && stderr.contains("another input"));
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stdout.contains("b: skipped"), "{stdout}");
    assert!(done.outputs() == before);
}

#[test]
fn what_another_program_wrote_is_refused_and_the_others_go_on() {
    let scene = Scene::new();
    for name in ["in/a_0000.nii", "in/b_0000.nii"] {
        scene.file(name, &NiftiBytes::ramp([20, 18, 16]).bytes());
    }
    scene.file("out/a.nii.gz", b"mine");
    let report = scene.path("report.json");
    let run = |more: &[&str]| {
        let mut words = predict_arguments(&scene.path("in"), &scene.path("out"), &model_folder(1));
        words.extend(["--json".to_owned(), report.to_str().unwrap().to_owned()]);
        words.extend(more.iter().map(|word| (*word).to_owned()));
        stunet(words)
    };
    let status = |index: usize| {
        let report: serde_json::Value =
            serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
        report["cases"][index]["status"].as_str().unwrap().to_owned()
    };
    let first = run(&[]);
    assert_eq!(first.status.code(), Some(1));
    assert!(said(&first).1.contains("another program"), "{}", said(&first).1);
    assert_eq!(fs::read(scene.path("out/a.nii.gz")).unwrap(), b"mine");
    assert!(scene.path("out/b.nii.gz").is_file());
    assert_eq!([status(0), status(1)], ["failed", "predicted"]);
    let second = run(&["--overwrite"]);
    assert!(second.status.success(), "{}", said(&second).1);
    nifti::read_labelmap(&scene.path("out/a.nii.gz")).unwrap();
    assert!(run(&[]).status.success());
    assert_eq!([status(0), status(1)], ["skipped", "skipped"]);
}

#[test]
fn what_is_missing_is_added_and_nothing_else_touched() {
    for (more, added) in [
        (&FIRST[..], "out/a.zarr.zip"),
        (&["--save-probabilities", "npz"], "out/a.npz"),
        (&["--confidence", "margin"], "out/confidence/a.nii.gz"),
    ] {
        let done = Predicted::new(&[]);
        let before = done.outputs();
        let completed = done.run(more);
        assert!(completed.status.success(), "{}", said(&completed).1);
        let after = done.outputs();
        assert!(before.iter().all(|file| after.contains(file)), "{added}: a file was touched");
        assert_eq!(after.len(), before.len() + 2, "{added}");
        assert!(done.scene.path(added).is_file(), "{added}");
        done.check_skipped(more);
        done.check_skipped(&[]);
    }
}

#[test]
fn probabilities_and_confidence_say_what_made_them_too() {
    let mut done = Predicted::new(&[&FIRST[..], &["--confidence", "margin"]].concat());
    done.check_skipped(&FIRST);
    done.check_skipped(&["--confidence", "margin"]);
    done.check_refused(
        &["--confidence", "entropy"],
        &["confidence: expected none", "confidence entropy, found margin"],
    );
    // The labelmaps of another model beside the probabilities of this one.
    for case in ["a", "b"] {
        fs::remove_file(done.scene.path(&format!("out/{case}.nii.gz"))).unwrap();
    }
    done.model = other_model(&done.scene, 4, 32);
    done.check_refused(&FIRST, &["probabilities: expected none, or one of this model ("]);
    assert!(done.run(&[]).status.success());
    done.check_refused(&FIRST, &["probabilities: expected none, or one of this model ("]);
    done.check_skipped(&[]);
}

#[test]
fn the_note_of_a_labelmap_is_a_comment_that_readers_pass_over() {
    let done = Predicted::new(&[]);
    let path = done.scene.path("out/a.nii.gz");
    let notes = nifti::read_notes(&path).unwrap();
    let note: serde_json::Value = serde_json::from_str(&notes[0]).unwrap();
    assert_eq!(note["program"], env!("CARGO_PKG_VERSION"));
    assert_eq!(note["step size"], 0.5);
    let labels = nifti::read_labelmap(&path).unwrap();
    let plain = done.scene.path("plain.nii.gz");
    nifti::write_labelmap(&plain, &labels, 2).unwrap();
    assert!(nifti::read_notes(&plain).unwrap().is_empty());
    let again = nifti::read_labelmap(&plain).unwrap();
    assert!(again.data == labels.data && again.geometry == labels.geometry);
}

const DERIVED: [&str; 3] = ["--per-class", "--statistics", "--preview"];

/// What is made from labels that are there is byte for byte what comes with them, and the network does
/// not run again.
#[test]
fn what_comes_from_labels_is_made_of_those_that_are_there() {
    let at_once = Predicted::new(&DERIVED);
    let later = Predicted::new(&[]);
    let done = later.run(&DERIVED);
    let (stdout, stderr) = said(&done);
    assert!(done.status.success(), "{stderr}");
    assert!(!stdout.contains("windows"), "the network was run: {stdout}");
    assert_eq!(stdout.matches("made from the labels that exist").count(), 2, "{stdout}");
    let by_name = |predicted: &Predicted| -> Vec<(PathBuf, Vec<u8>)> {
        let home = predicted.scene.path("out");
        let outputs = predicted.outputs().into_iter();
        outputs.map(|(path, bytes, _)| (path.strip_prefix(&home).unwrap().into(), bytes)).collect()
    };
    assert!(by_name(&at_once) == by_name(&later));
    later.check_skipped(&DERIVED);
}

/// The smaller model is taken where the time is too short for the larger one, and again where its
/// outputs are there.
#[test]
fn the_time_decides_between_models() {
    let scene = Scene::new();
    let input = scene.volume("ct_0000.nii");
    let output = scene.path("labels.nii.gz");
    let larger = model_folder(1);
    let smaller = other_model(&scene, 5, 32);
    let run = |time: &str| {
        let mut arguments = predict_arguments(&input, &output, &larger);
        arguments.extend(["--smaller-models", smaller.to_str().unwrap()].map(str::to_owned));
        arguments.extend(["--time-budget", time].map(str::to_owned));
        let done = stunet(arguments);
        let (stdout, stderr) = said(&done);
        assert!(done.status.success(), "{stderr}");
        stdout
    };
    let made_by = || fs::read(&output).unwrap();
    assert!(run("0.001s").contains("is tried"));
    let by_smaller = made_by();
    assert!(run("1h").contains("skipped, exists"));
    assert_eq!(made_by(), by_smaller);
    fs::remove_file(&output).unwrap();
    assert!(!run("1h").contains("is tried"));
    assert_ne!(made_by(), by_smaller);
    assert!(run("0.001s").contains("skipped, exists"));
}

/// A model with seeded weights.
fn save(config: &StuNetConfig, path: &Path) {
    let device = stunet::device::parse("cpu").unwrap();
    let network = config.init_seeded(Initialisation::NnUNetV1, 1, &device).unwrap();
    let labels = LabelSet::from_names(LABELS).unwrap();
    Model::from_parts(vec![network], plans(1), labels).unwrap().save_folder(path).unwrap();
}

/// Labels in eight bits are others than those in f32, and are told apart.
#[test]
fn eight_bits_are_other_settings() {
    let mut predicted = Predicted::new(&[]);
    let model = predicted.scene.path("sixteen features");
    let config = StuNetConfig { width: [16, 4, 4, 4, 4, 4], ..config(1) };
    save(&config, &model);
    predicted.model = model;
    assert!(predicted.run(&["--overwrite"]).status.success());
    let there = predicted.outputs();
    let again = predicted.run(&["--precision", "int8"]);
    let (stdout, stderr) = said(&again);
    assert_eq!(again.status.code(), Some(1), "{stdout}");
    assert!(predicted.outputs() == there, "{stderr}");
    if stunet::kernels::has_eight_bit_products() {
        assert!(stdout.contains("STU-Net custom in eight bits"), "{stdout}");
        assert_eq!(stderr.matches("--overwrite").count(), 2, "{stderr}");
        assert!(stderr.contains("precision int8, found f32"), "{stderr}");
        written_again(&predicted);
    } else {
        let words = "--precision int8: expected a processor with AVX-512 VNNI";
        assert!(stderr.contains(words), "{stderr}");
    }
}

/// In eight bits, and then skipped.
fn written_again(predicted: &Predicted) {
    let report = predicted.scene.path("report.json");
    let place = report.to_str().unwrap();
    let written = predicted.run(&["--precision", "int8", "--overwrite", "--json", place]);
    assert!(written.status.success(), "{}", said(&written).1);
    let report: serde_json::Value = serde_json::from_slice(&fs::read(report).unwrap()).unwrap();
    assert_eq!(report["model"]["precision"], "int8");
    predicted.check_skipped(&["--precision", "int8"]);
}

#[test]
fn eight_bits_that_would_not_be_faster_are_refused() {
    let scene = Scene::new();
    let input = scene.file("a_0000.nii", &NiftiBytes::ramp([20, 18, 16]).bytes());
    let model = scene.path("wide");
    let config = StuNetConfig { width: [48, 4, 4, 4, 4, 4], ..config(1) };
    save(&config, &model);
    let mut arguments = predict_arguments(&input, &scene.path("out.nii"), &model);
    arguments.extend(["--precision", "int8"].map(str::to_owned));
    let refused = stunet(arguments);
    let words = if stunet::kernels::has_eight_bit_products() {
        "feature maps at full resolution, such as STU-Net S, found 48"
    } else {
        "expected a processor with AVX-512 VNNI"
    };
    common::assert_one_line(&refused, &["--precision int8", words]);
    assert!(!scene.path("out.nii").exists());
}
