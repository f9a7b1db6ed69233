//! nnU-Net's habits through the binary: datasets by number, its variables, names of trainers, whole lines.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod common;

use std::fs;
use std::process::{Command, Output};

use common::boxes::{DATASET, dataset};
use common::{STUNET, Scene, assert_one_line, said, stunet};
use serde_json::Value;

const TRAINER: &str = "STUNetTrainer_small_2epochs_NoMirroring";
/// A tiny network, quickly trained.
const TINY: &str = "--width 2,2,3,3,4,4 --iterations 3 --val-iterations 1 --device cpu --threads 2";

fn command(scene: &Scene, line: &str) -> Output {
    let mut command = Command::new(STUNET);
    for home in ["nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"] {
        command.env(home, scene.path(home));
    }
    let words = line.split(' ').map(|word| match word.strip_prefix('@') {
        Some(name) => scene.path(name).into_os_string(),
        None => word.into(),
    });
    command.args(words).output().unwrap()
}

fn run(scene: &Scene, line: &str) -> String {
    let output = command(scene, line);
    assert!(output.status.success(), "{line}: {}", said(&output).1);
    said(&output).0
}

fn check_refused(scene: &Scene, line: &str, words: &[&str]) {
    let output = command(scene, line);
    assert_eq!(output.status.code(), Some(1), "{line}");
    assert_one_line(&output, words);
}

#[test]
fn from_a_number_to_labels() {
    let scene = dataset();
    let train = format!("train -f 0 -d 1 -c 3d_fullres -tr {TRAINER} {TINY}");
    check_refused(&scene, &format!("{train} --val"), &["--continue", "expected a checkpoint"]);
    run(&scene, &format!("{train} --npz"));
    let model = scene.path(&format!("nnUNet_results/{DATASET}/{TRAINER}__nnUNetPlans__3d_fullres"));
    let validation = model.join("fold_0/validation");
    let summary = fs::read_to_string(validation.join("summary.json")).unwrap();
    let settings: Value =
        serde_json::from_slice(&fs::read(model.join("fold_0/debug.json")).unwrap()).unwrap();
    assert_eq!((&settings["epochs"], &settings["no_mirroring"]), (&2.into(), &true.into()));

    // Every prediction of the validation has its probabilities, as nnU-Net's ensembles read them.
    let files = |ending: &str| {
        let all = fs::read_dir(&validation).unwrap().map(|entry| entry.unwrap().path());
        let mut found: Vec<_> =
            all.filter(|path| path.to_string_lossy().ends_with(ending)).collect();
        found.sort();
        found
    };
    let labels = files(".nii.gz");
    assert!(!labels.is_empty());
    assert_eq!((files(".npz").len(), files(".pkl").len()), (labels.len(), labels.len()));

    // Again, by nnU-Net's own line: the same bytes, after the same words.
    let before: Vec<_> = labels.iter().map(|path| fs::read(path).unwrap()).collect();
    fs::write(&labels[0], b"nothing").unwrap();
    let line = format!("nnUNetv2_train 1 3d_fullres 0 -tr {TRAINER} --val -device cpu");
    let out = run(&scene, &format!("nnunet {line}"));
    let expected = format!("stunet train 1 3d_fullres 0 --trainer {TRAINER} --val --device cpu\n");
    assert!(out.starts_with(&expected) && out.contains("foreground Dice"), "{out}");
    let after: Vec<_> = labels.iter().map(|path| fs::read(path).unwrap()).collect();
    assert!(before == after);
    assert_eq!(fs::read_to_string(validation.join("summary.json")).unwrap(), summary);

    // A model by its names; it was trained without mirroring and predicts without.
    let image = format!("@nnUNet_raw/{DATASET}/imagesTr/a_0000.nii");
    let named = format!("-d 1 -c 3d_fullres -tr {TRAINER}");
    run(&scene, &format!("predict -i {image} -o @a.nii {named} --json @report.json --device cpu"));
    let report: Value =
        serde_json::from_slice(&fs::read(scene.path("report.json")).unwrap()).unwrap();
    assert_eq!(report["cases"][0]["prediction"]["num_passes"], 1, "{report}");
    let line = format!("nnUNetv2_predict -i {image} -o @b.nii {named} -device cpu");
    run(&scene, &format!("nnunet {line}"));
    assert!(fs::read(scene.path("a.nii")).unwrap() == fs::read(scene.path("b.nii")).unwrap());
}

#[test]
fn what_is_missing_is_said() {
    let scene = dataset();
    check_refused(&scene, "train 7 3d_fullres 0", &["Dataset007_NAME", "nnUNet_preprocessed"]);
    check_refused(&scene, "plan -d Dataset009_X", &["Dataset009_X", "nnUNet_raw"]);
    check_refused(&scene, "predict -i a -o b -d 7", &["Dataset007_NAME", "nnUNet_results"]);
    check_refused(
        &scene,
        "nnunet nnUNetv2_predict -i a -o b -d 1",
        &["expected the configuration"],
    );
    let out = run(&scene, "nnunet --print nnUNetv2_plan_and_preprocess -d 1 -c 3d_fullres --clean");
    let expected = "stunet plan 1\nstunet preprocess 1 3d_fullres\nnote: --clean is left out: the \
                    dataset is always measured anew\n";
    assert_eq!(out, expected);
    assert!(!scene.path("nnUNet_results").exists());
}

/// Options of nnU-Net that this program does not have: what to write instead.
#[test]
fn options_of_nnunet_get_a_hint() {
    let check = |line: &str, words: &[&str]| {
        let output = stunet(line.split(' '));
        assert_eq!(output.status.code(), Some(2));
        assert_one_line(&output, words);
    };
    check("predict -i a -o b -m c -npp 3", &["-npp", "nnU-Net's", "leave it out"]);
    check("predict -i a -o b -m c --save_npz", &["write --save-probabilities npz"]);
    check("train 501 3d_fullres 0 --c", &["write --continue"]);
    check("plan 501 -pl ResEnc", &["-pl", "plan with nnU-Net"]);
    check("predict -i a -o b -m c --nonsense", &["unexpected argument '--nonsense'"]);
}
