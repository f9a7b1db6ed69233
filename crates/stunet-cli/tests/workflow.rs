//! `stunet accumulate`, `ensemble`, `postprocess` and `find-best`, from files to files; beside nnU-Net
//! itself they run in `scripts/nnunet-workflow-check`.
#![allow(clippy::single_range_in_vec_init)]
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod common;

use std::io::Write;
use std::path::Path;

use common::{Scene, said, stunet};
use serde_json::{Value, json};
use stunet_testing::nifti_bytes::NiftiBytes;

/// Voxels of a case, x fastest.
const SHAPE: [i16; 3] = [6, 5, 4];
const VOXELS: usize = 6 * 5 * 4;

/// A labelmap whose voxels in these ranges are 1.
fn labels(scene: &Scene, name: &str, ones: &[std::ops::Range<usize>]) {
    let mut file = NiftiBytes::ramp(SHAPE);
    file.values.fill(0.0);
    ones.iter().for_each(|range| file.values[range.clone()].fill(1.0));
    scene.file(name, &file.bytes());
}

/// Probabilities of two classes: the second has `chance` in these voxels, and 0.1 in others.
fn npz(scene: &Scene, name: &str, ones: &[std::ops::Range<usize>], chance: f32) {
    let mut second = [0.1f32; VOXELS];
    ones.iter().for_each(|range| second[range.clone()].fill(chance));
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 4, 5, 6), }";
    let mut array = b"\x93NUMPY\x01\x00".to_vec();
    array.extend((header.len() as u16).to_le_bytes());
    array.extend(header.as_bytes());
    array.extend(second.iter().map(|p| 1.0 - p).chain(second).flat_map(f32::to_le_bytes));
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    zip.start_file("probabilities.npy", zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(&array).unwrap();
    scene.file(name, zip.finish().unwrap().get_ref());
}

fn describe(scene: &Scene, folder: &str) {
    let dataset = json!({
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "liver": 1},
        "numTraining": 2,
        "file_ending": ".nii"
    });
    scene.file(&format!("{folder}/dataset.json"), dataset.to_string().as_bytes());
    scene.file(&format!("{folder}/plans.json"), b"{\"plans_name\": \"nnUNetPlans\"}");
}

/// Two models of two folds, one case each. The reference is a run of 40 voxels; the first model adds a
/// false part, the second misses a few; their mean is the better for it.
fn results() -> Scene {
    let scene = Scene::new();
    for (fold, case) in [(0, "a"), (1, "b")] {
        labels(&scene, &format!("nnUNet_raw/D/labelsTr/{case}.nii"), &[20..60]);
        for (model, ones, chance) in
            [("2d", &[20..60, 100..110][..], 0.6), ("3d_fullres", &[20..55][..], 0.95)]
        {
            let folder = format!("nnUNet_results/D/T__P__{model}");
            let path = format!("{folder}/fold_{fold}/validation/{case}");
            labels(&scene, &format!("{path}.nii"), ones);
            npz(&scene, &format!("{path}.npz"), ones, chance);
            describe(&scene, &folder);
        }
    }
    scene
}

fn words(scene: &Scene, line: &str) -> Vec<String> {
    line.split(' ')
        .map(|word| match word.strip_prefix('@') {
            Some(name) => scene.path(name).to_str().unwrap().to_owned(),
            None => word.to_owned(),
        })
        .collect()
}

/// Expects success and returns what was printed.
fn good(scene: &Scene, line: &str) -> String {
    let output = stunet(words(scene, line));
    let (stdout, stderr) = said(&output);
    assert!(output.status.success() && stderr.is_empty(), "{line}: {stderr}");
    stdout
}

/// Expects one line with all of these, and nothing written.
fn refused(scene: &Scene, line: &str, expected: &[&str]) {
    let before = scene.contents();
    let output = stunet(words(scene, line));
    let (_, stderr) = said(&output);
    assert!(matches!(output.status.code(), Some(1 | 2)), "{line}: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    for word in expected {
        assert!(stderr.contains(word), "no {word:?} in: {stderr}");
    }
    assert_eq!(scene.contents(), before, "something was written");
}

fn json_of(path: impl AsRef<Path>) -> Value {
    let text = std::fs::read_to_string(path).unwrap();
    serde_json::from_str(&text.replace("NaN", "null")).unwrap()
}

fn ones(path: impl AsRef<Path>) -> usize {
    let map = stunet::data::nifti::read_labelmap(path.as_ref()).unwrap();
    map.data.iter().filter(|v| **v == 1).count()
}

#[test]
fn folds_are_gathered() {
    let scene = results();
    let model = "@nnUNet_results/D/T__P__2d";
    let printed = good(&scene, &format!("accumulate {model} -f 0 1"));
    assert!(printed.contains("0.8889  liver"), "{printed}");
    let folder = "nnUNet_results/D/T__P__2d/crossval_results_folds_0_1";
    let summary = json_of(scene.path(&format!("{folder}/summary.json")));
    assert_eq!(summary["foreground_mean"]["Dice"], 80.0 / 90.0);
    for name in ["a.nii", "b.nii", "dataset.json", "plans.json"] {
        assert!(Path::new(&scene.path(&format!("{folder}/{name}"))).is_file(), "{name}");
    }
    // Again: what was decided on other predictions is gone.
    let left = format!("{folder}/postprocessed/a.nii");
    scene.file(&left, b"old");
    scene.file(&format!("{folder}/postprocessing.pkl"), b"old");
    scene.file(&format!("{folder}/c.nii"), b"old");
    good(&scene, &format!("accumulate {model} -f 0 1"));
    for name in ["postprocessed", "postprocessing.pkl", "c.nii"] {
        assert!(!scene.path(&format!("{folder}/{name}")).exists(), "{name}");
    }
    std::fs::remove_dir_all(scene.path("nnUNet_results/D/T__P__2d/fold_1")).unwrap();
    let missing = ["fold 1", "fold_1"];
    refused(&scene, &format!("accumulate {model} -f 0 1"), &missing);
    refused(&scene, &format!("accumulate {model}"), &["fold 1"]);
    good(&scene, &format!("accumulate {model} -f 0 -o @out -q"));
    assert_eq!(
        json_of(scene.path("out/summary.json"))["metric_per_case"].as_array().unwrap().len(),
        1
    );
    refused(&scene, &format!("accumulate {model} -f 0 -o @out"), &["new or empty", "out"]);
    std::fs::remove_dir_all(scene.path("nnUNet_raw")).unwrap();
    refused(
        &scene,
        &format!("accumulate {model} -f 0"),
        &["labelsTr", "gt_segmentations", "--reference"],
    );
}

#[test]
fn a_case_in_two_folds_is_refused() {
    let scene = results();
    labels(&scene, "nnUNet_results/D/T__P__2d/fold_1/validation/a.nii", &[20..60]);
    let line = "accumulate @nnUNet_results/D/T__P__2d -f 0 1";
    refused(&scene, line, &["found a in two", "fold_0", "fold_1"]);
}

#[test]
fn probabilities_are_averaged() {
    let scene = results();
    for model in ["2d", "3d_fullres"] {
        describe(&scene, &format!("p_{model}"));
        for ending in ["nii", "npz"] {
            let from = format!("nnUNet_results/D/T__P__{model}/fold_0/validation/a.{ending}");
            let bytes = std::fs::read(scene.path(&from)).unwrap();
            scene.file(&format!("p_{model}/a.{ending}"), &bytes);
        }
    }
    let line = "ensemble -i @p_2d @p_3d_fullres -o @out --save_npz -np 1";
    assert!(good(&scene, line).starts_with("1 cases: "));
    // The mean is above a half where both have the liver, and where one is sure of it.
    assert_eq!(ones(scene.path("out/a.nii")), 35);
    // A member that is sure outweighs one that is not.
    good(&scene, "ensemble -i @out @p_3d_fullres -o @again -q");
    assert_eq!(ones(scene.path("again/a.nii")), 35);
    for name in ["a.npz", "dataset.json", "plans.json"] {
        assert!(Path::new(&scene.path(&format!("out/{name}"))).is_file(), "{name}");
    }
    npz(&scene, "p_2d/b.npz", &[0..9], 0.9);
    refused(
        &scene,
        "ensemble -i @p_2d @p_3d_fullres -o @new",
        &["found none of b", "p_3d_fullres"],
    );
    npz(&scene, "p_3d_fullres/b.npz", &[0..9], 0.9);
    let output = stunet(words(&scene, "ensemble -i @p_2d @p_3d_fullres -o @new"));
    assert!(said(&output).1.contains("or a .pkl"), "{output:?}");
    refused(&scene, "ensemble -i @p_2d -o @p_2d", &["a.nii"]);
    refused(&scene, "ensemble -i @nnUNet_raw/D/labelsTr -o @x", &["dataset.json"]);
    let line = "ensemble -i @nnUNet_raw/D/labelsTr -o @x --dataset-json @p_2d/dataset.json";
    refused(&scene, line, &["stored probabilities", "labelsTr"]);
}

#[test]
fn what_helps_is_decided_and_done() {
    let scene = results();
    good(&scene, "accumulate @nnUNet_results/D/T__P__2d -f 0 1 -o @cv -q");
    let printed = good(&scene, "postprocess determine -i @cv -ref @nnUNet_raw/D/labelsTr");
    assert!(printed.contains("the foreground as one     0.8889  1.0000  yes"), "{printed}");
    assert_eq!(ones(scene.path("cv/postprocessed/a.nii")), 40);
    let told = json_of(scene.path("cv/postprocessing.json"));
    assert_eq!(told["postprocessed"]["foreground_mean"]["Dice"], 1.0);
    assert_eq!(told["postprocessing_kwargs"], json!([{"labels_or_regions": [1]}]));
    for steps in ["@cv/postprocessing.pkl", "@cv/postprocessing.json"] {
        good(&scene, &format!("postprocess apply -i @cv -o @applied -pp_pkl_file {steps} -q"));
        assert_eq!(ones(scene.path("applied/b.nii")), 40, "{steps}");
        std::fs::remove_dir_all(scene.path("applied")).unwrap();
    }
    let line = "postprocess determine -i @cv -ref @nnUNet_raw/D/labelsTr --layout v1 --remove_postprocessed -q";
    good(&scene, line);
    assert_eq!(json_of(scene.path("cv/postprocessing.json"))["for_which_classes"], json!([[1]]));
    refused(&scene, "postprocess apply -i @cv -o @cv -s @cv/postprocessing.pkl", &["a.nii"]);
    scene.file("evil.pkl", b"cos\nsystem\n(S'echo gone'\ntR.");
    refused(&scene, "postprocess apply -i @cv -o @x -s @evil.pkl", &["os.system", "evil.pkl"]);
    refused(
        &scene,
        "postprocess apply -i @nnUNet_raw -o @x -s @cv/postprocessing.pkl",
        &["nnUNet_raw"],
    );
    refused(&scene, "postprocess determine -i @nnUNet_raw/D/labelsTr -ref @cv", &["dataset.json"]);
}

#[test]
fn the_best_is_found() {
    let scene = results();
    let printed = good(&scene, "find-best @nnUNet_results/D -f 0 1");
    let best = "best: T__P__3d_fullres";
    assert!(printed.contains(best), "{printed}");
    let found = json_of(scene.path("nnUNet_results/D/inference_information.json"));
    let results = found["all_results"].as_object().unwrap();
    let names: Vec<&String> = results.keys().collect();
    let ensemble = "ensemble___T__P__2d___T__P__3d_fullres___0_1";
    assert_eq!(names, ["T__P__2d", "T__P__3d_fullres", ensemble]);
    // 2 · 35 / (35 + 40), for the model as for the ensemble: the first of equal ones.
    assert_eq!(
        (&results["T__P__3d_fullres"], &results[ensemble]),
        (&json!(70.0 / 75.0), &json!(70.0 / 75.0))
    );
    assert_eq!(
        found["best_model_or_ensemble"]["selected_model_or_models"][0]["configuration"],
        "3d_fullres"
    );
    let text =
        std::fs::read_to_string(scene.path("nnUNet_results/D/inference_instructions.txt")).unwrap();
    assert!(text.contains("stunet predict") && text.contains("nnUNetv2_predict"), "{text}");
    // A model by itself has false parts, which its postprocessing removes.
    let printed = good(&scene, "find-best @nnUNet_results/D -f 0 1 -c 2d");
    assert!(printed.contains("best: T__P__2d") && printed.contains("yes"), "{printed}");
    refused(
        &scene,
        "find-best @nnUNet_results/D -f 0 1 -c 2d 3d_lowres",
        &["--configurations", "3d_lowres"],
    );
    refused(&scene, "find-best @nnUNet_results/D -f 0 1 -tr T U", &["--trainers", "U"]);
    refused(&scene, "find-best @nnUNet_raw/D -f 0", &["TRAINER__PLANS__CONFIG"]);
    std::fs::remove_file(scene.path("nnUNet_results/D/T__P__2d/fold_0/validation/a.npz")).unwrap();
    let output = stunet(words(&scene, "find-best @nnUNet_results/D -f 0 1"));
    assert!(said(&output).1.contains("--disable-ensembling"), "{output:?}");
    good(&scene, "find-best @nnUNet_results/D -f 0 1 --disable-ensembling -q");
}
