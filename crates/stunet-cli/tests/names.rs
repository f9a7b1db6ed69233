//! Names: what is a case and what is passed over, and that no output is an input or another output.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::{STUNET, Scene, model_folder, predict_arguments, said, stunet};
use serde_json::{Value, json};
use stunet_testing::nifti_bytes::NiftiBytes;

const RAW: &str = "nnUNet_raw/Dataset003_Names";
const PREPARED: &str = "nnUNet_preprocessed/Dataset003_Names";

fn predict(scene: &Scene, input: &str, output: &str, more: &[&str]) -> Output {
    let mut words = predict_arguments(&scene.path(input), &scene.path(output), &model_folder(1));
    words.extend(more.iter().map(|word| match word.strip_prefix('@') {
        Some(name) => scene.path(name).to_str().unwrap().to_owned(),
        None => (*word).to_owned(),
    }));
    stunet(words)
}

fn good(output: &Output) -> (String, String) {
    let told = said(output);
    assert!(output.status.success(), "{}", told.1);
    told
}

fn has(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "no {word:?} in: {text}");
    }
}

/// Asserts a failure in one line with all of `words`; every file is as it was, and nothing is new.
fn refused(scene: &Scene, words: &[&str], run: impl FnOnce() -> Output) {
    let bytes = || -> Vec<_> {
        let files = scene.contents().into_keys().filter(|path| path.is_file());
        files.map(|path| (fs::read(&path).unwrap(), path)).collect()
    };
    let (before, contents) = (bytes(), scene.contents());
    let output = run();
    let (_, stderr) = said(&output);
    assert!(matches!(output.status.code(), Some(1 | 2)), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    has(&stderr, words);
    assert_eq!(scene.contents(), contents, "something was written");
    assert!(bytes() == before, "a file was changed");
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn scans_that_end_in_four_digits_keep_them() {
    let scene = Scene::new();
    for name in ["scan_0001", "scan_0002", "patient_2021", "case_0000"] {
        scene.volume(&format!("in/{name}.nii"));
        good(&predict(&scene, &format!("in/{name}.nii"), "out", &[]));
    }
    let expected = ["case.nii.gz", "patient_2021.nii.gz", "scan_0001.nii.gz", "scan_0002.nii.gz"];
    let found = names(&scene.path("out"));
    assert!(expected.iter().all(|name| found.iter().any(|found| found == name)), "{found:?}");
    // Together they are neither cases nor channels.
    fs::remove_file(scene.path("in/case_0000.nii")).unwrap();
    fs::remove_file(scene.path("in/patient_2021.nii")).unwrap();
    let words = ["case scan", "scan_0001.nii, scan_0002.nii", "different cases, add _0000"];
    refused(&scene, &words, || predict(&scene, "in", "other", &[]));
}

#[test]
fn more_channels_than_the_model_has() {
    let scene = Scene::new();
    for name in ["scan_0000", "scan_0001", "scan_0002"] {
        scene.volume(&format!("in/{name}.nii"));
    }
    let output = predict(&scene, "in", "out", &[]);
    let (_, stderr) = said(&output);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    has(&stderr, &["scan: expected 1 channel", "found 3 files", "different cases, add _0000"]);
}

#[test]
fn what_is_passed_over_is_named() {
    let scene = Scene::new();
    for name in ["a_0000.nii", "b.nii", "C_0000.NII", "._a_0000.nii", ".hidden_0000.nii"] {
        scene.volume(&format!("in/{name}"));
    }
    scene.file("in/dataset.json", b"{}");
    let mut expected = vec!["b.nii (no channel number", "C_0000.NII (the name does not end"];
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("absent", scene.path("in/d_0000.nii")).unwrap();
        expected.push("d_0000.nii (a link to a file that is not there");
    }
    let (stdout, stderr) = good(&predict(&scene, "in", "out", &["--json", "@report.json"]));
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    has(&stderr, &[&format!("{} file(s) passed over", expected.len())]);
    has(&stderr, &expected);
    assert!(!stderr.contains("hidden") && !stderr.contains("dataset.json"), "{stderr}");
    has(&stdout, &["1 predicted, 0 skipped, 0 failed"]);
    let report: Value =
        serde_json::from_slice(&fs::read(scene.path("report.json")).unwrap()).unwrap();
    let over = report["passed_over"].as_array().unwrap();
    assert_eq!(over.len(), expected.len());
    let file = |name: &str| over.iter().find(|o| o["file"].as_str().unwrap().ends_with(name));
    has(file("b.nii").unwrap()["reason"].as_str().unwrap(), &["no channel number"]);
    assert_eq!(report["cases"].as_array().unwrap().len(), 1);
    let quiet = good(&predict(&scene, "in", "out", &["--quiet"]));
    assert_eq!(quiet, (String::new(), String::new()));
}

#[cfg(target_os = "linux")]
#[test]
fn names_that_are_no_text_are_passed_over_and_said() {
    use std::os::unix::ffi::OsStrExt;
    let scene = Scene::new();
    scene.volume("in/good_0000.nii");
    let odd = scene.path("in").join(std::ffi::OsStr::from_bytes(b"bad\xff\x1b[2J_0000.nii"));
    fs::write(&odd, NiftiBytes::ramp([4, 4, 4]).bytes()).unwrap();
    let more = ["--json", "@report.json"];
    let (_, stderr) = good(&predict(&scene, "in", "out", &more));
    has(&stderr, &["1 file(s) passed over", "bad", "not UTF-8"]);
    assert!(!stderr.contains('\u{1b}'), "{stderr:?}");
    let report: Value =
        serde_json::from_slice(&fs::read(scene.path("report.json")).unwrap()).unwrap();
    assert_eq!(report["passed_over"].as_array().unwrap().len(), 1);
    // Nor does a folder of such a name cost the report.
    let folder = scene.path("").join(std::ffi::OsStr::from_bytes(b"in\xff"));
    fs::rename(scene.path("in"), &folder).unwrap();
    let mut command = Command::new(STUNET);
    command.arg("predict").arg("-i").arg(&folder).arg("-o").arg(folder.join("out"));
    command.arg("-m").arg(model_folder(1)).args(["--device", "cpu", "--disable-tta", "--json"]);
    good(&command.arg(scene.path("odd.json")).output().unwrap());
    let report: Value = serde_json::from_slice(&fs::read(scene.path("odd.json")).unwrap()).unwrap();
    has(report["cases"][0]["output"].as_str().unwrap(), &["good.nii.gz"]);
}

#[test]
fn a_folder_without_cases_says_what_it_holds() {
    let scene = Scene::new();
    scene.volume("in/._a_0000.nii");
    refused(&scene, &["no cases found", "1 hidden file"], || predict(&scene, "in", "out", &[]));
    scene.volume("in/scan.nii");
    let words = ["no cases found", "scan.nii (no channel number"];
    refused(&scene, &words, || predict(&scene, "in", "out", &[]));
}

#[cfg(unix)]
#[test]
fn a_link_that_leads_nowhere_is_said_to_be_one() {
    let scene = Scene::new();
    std::os::unix::fs::symlink("annex", scene.path("ct.nii")).unwrap();
    let words = ["this link leads to is not there", "ct.nii"];
    refused(&scene, &words, || predict(&scene, "ct.nii", "out.nii", &[]));
}

#[test]
fn a_schedulers_part_is_said() {
    let scene = Scene::new();
    for name in ["a", "b"] {
        scene.volume(&format!("in/{name}_0000.nii"));
    }
    let arguments = predict_arguments(&scene.path("in"), &scene.path("out"), &model_folder(1));
    let mut command = Command::new(STUNET);
    command.args(&arguments);
    command.envs([("SLURM_ARRAY_TASK_ID", "3"), ("SLURM_ARRAY_TASK_COUNT", "10")]);
    let (stdout, _) = good(&command.output().unwrap());
    let line = "part 4 of 10 (SLURM_ARRAY_TASK_ID=3, SLURM_ARRAY_TASK_COUNT=10): 0 of 2 cases";
    has(&stdout, &[line]);
    let (stdout, _) = good(&command.arg("--quiet").output().unwrap());
    assert_eq!(stdout, "");
    // Who says it himself needs no line.
    let told = ["--num-parts", "2", "--part-id", "1"];
    let output = Command::new(STUNET).args(&arguments).args(told).output().unwrap();
    assert!(!good(&output).0.contains("part "));
}

#[test]
fn predictions_replace_no_input_and_no_other_output() {
    let scene = Scene::new();
    for name in ["a_0000.nii.gz", "clash/b_0000.nii.gz", "clash/b_0000_0000.nii.gz"] {
        scene.volume(name);
    }
    for (input, output) in [("a_0000.nii.gz", "a_0000.nii.gz"), ("a_0000.nii.gz", "A_0000.nii.gz")]
    {
        let words = ["--output", "would overwrite the input", "_0000.nii.gz"];
        refused(&scene, &words, || predict(&scene, input, output, &["--overwrite"]));
    }
    let words = ["labelmap of case b_0000", "would overwrite the input"];
    refused(&scene, &words, || predict(&scene, "clash", "clash", &["--overwrite"]));
    refused(&scene, &words, || predict(&scene, "clash", "clash", &[]));
    let onto_input = ["--json", "@a_0000.nii.gz"];
    let words = ["--json: would overwrite the input"];
    refused(&scene, &words, || predict(&scene, "a_0000.nii.gz", "x.nii", &onto_input));
    let onto_output = ["--json", "@x.nii"];
    let words = ["labelmap", "and --json would be written to one file"];
    refused(&scene, &words, || predict(&scene, "a_0000.nii.gz", "x.nii", &onto_output));
    fs::hard_link(scene.path("a_0000.nii.gz"), scene.path("hard.json")).unwrap();
    let words = ["--json: would overwrite the input", "by a link"];
    refused(&scene, &words, || {
        predict(&scene, "a_0000.nii.gz", "x.nii", &["--json", "@hard.json"])
    });
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("a_0000.nii.gz", scene.path("l.nii.gz")).unwrap();
        std::os::unix::fs::symlink("clash", scene.path("linked")).unwrap();
        let words = ["--output", "would overwrite the input", "by a link"];
        refused(&scene, &words, || predict(&scene, "a_0000.nii.gz", "l.nii.gz", &["--overwrite"]));
        refused(&scene, &words, || predict(&scene, "clash", "linked", &["--overwrite"]));
    }
    // Beside its inputs is a place like any other.
    scene.volume("beside/c_0000.nii.gz");
    good(&predict(&scene, "beside", "beside", &[]));
    assert!(scene.path("beside/c.nii.gz").is_file());
}

#[cfg(target_os = "linux")]
#[test]
fn cases_whose_outputs_are_one_file_on_some_systems_are_both_named() {
    let scene = Scene::new();
    for name in ["in/CT_0000.nii", "in/ct_0000.nii"] {
        scene.volume(name);
    }
    let words = ["case CT", "case ct", "CT_0000.nii", "ct_0000.nii", "capitals"];
    refused(&scene, &words, || predict(&scene, "in", "out", &[]));
}

#[test]
fn a_report_replaces_no_file_of_the_model() {
    let scene = Scene::new();
    scene.volume("ct.nii");
    for file in fs::read_dir(model_folder(1)).unwrap().map(|file| file.unwrap().path()) {
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        scene.file(&format!("m/{name}"), &fs::read(&file).unwrap());
    }
    let run = |report: &str| {
        let mut words =
            predict_arguments(&scene.path("ct.nii"), &scene.path("x.nii"), &scene.path("m"));
        words.extend(["--json".to_owned(), scene.path(report).to_str().unwrap().to_owned()]);
        stunet(words)
    };
    for name in ["network.json", "plans.json", "labels.json", "weights.safetensors"] {
        let report = format!("m/{name}");
        refused(&scene, &["--json: would overwrite the input", name], || run(&report));
    }
    good(&run("m/report.json"));
    good(&run("m/report.json"));
    let convert = || stunet(["convert".into(), scene.path("m"), scene.path("m")]);
    refused(&scene, &["would overwrite the input", "m"], convert);
}

/// A dataset of `cases` of one channel, with what `edit` makes of its description.
fn dataset(cases: &[&str], edit: impl FnOnce(&mut Value)) -> Scene {
    let scene = Scene::new();
    for (number, case) in cases.iter().enumerate() {
        let image = NiftiBytes::ramp([24, 20 + number as i16, 22]);
        let mut labels = image.clone();
        labels.values.iter_mut().enumerate().for_each(|(i, v)| *v = (i / 500 % 3) as f32);
        scene.file(&format!("{RAW}/imagesTr/{case}_0000.nii"), &image.bytes());
        scene.file(&format!("{RAW}/labelsTr/{case}.nii"), &labels.bytes());
    }
    let mut description = json!({
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "liver": 1, "spleen": 2},
        "numTraining": cases.len(),
        "file_ending": ".nii"
    });
    edit(&mut description);
    scene.file(&format!("{RAW}/dataset.json"), description.to_string().as_bytes());
    let fingerprint = json!({
        "foreground_intensity_properties_per_channel": {"0": {
            "max": 3.0, "mean": 1.0, "median": 1.0, "min": 0.0,
            "percentile_00_5": 0.0, "percentile_99_5": 2.0, "std": 1.0
        }},
        "median_relative_size_after_cropping": 1.0,
        "shapes_after_crop": vec![[40, 40, 40]; cases.len()],
        "spacings": vec![[3.0, 3.0, 3.0]; cases.len()]
    });
    scene.file("fingerprint.json", fingerprint.to_string().as_bytes());
    scene
}

/// Runs a command on the dataset; `@` stands for the scene's folder.
fn on(scene: &Scene, words: &[&str]) -> Output {
    stunet(words.iter().map(|word| match word.strip_prefix('@') {
        Some(name) => scene.path(name),
        None => PathBuf::from(word),
    }))
}

fn plan(scene: &Scene, more: &[&str]) -> Output {
    let raw = format!("@{RAW}");
    let fingerprint: &[&str] = match more.contains(&"--fingerprint") {
        true => &[],
        false => &["--fingerprint", "@fingerprint.json"],
    };
    on(scene, &[&["plan", &raw], fingerprint, more].concat())
}

#[test]
fn hidden_files_in_every_command() {
    let scene = dataset(&["a", "b"], |_| {});
    for name in ["imagesTr/._a_0000.nii", "labelsTr/._a.nii", "imagesTr/.DS_Store"] {
        scene.file(&format!("{RAW}/{name}"), b"\x00\x05\x16\x07");
    }
    assert_eq!(good(&plan(&scene, &[])).1, "");
    let raw = format!("@{RAW}");
    assert_eq!(good(&on(&scene, &["preprocess", &raw])).1, "");
    let (labels, out) = (format!("@{RAW}/labelsTr"), scene.path("predicted"));
    fs::create_dir(&out).unwrap();
    for case in ["a", "b"] {
        let name = format!("{case}.nii");
        fs::copy(scene.path(&format!("{RAW}/labelsTr/{name}")), out.join(name)).unwrap();
    }
    let words = ["evaluate", &labels, "@predicted", "--labels", "1", "2"];
    assert_eq!(good(&on(&scene, &words)).1, "");
    // What might have been meant is named.
    scene.file("predicted/c.NII", b"");
    let (_, stderr) = good(&on(&scene, &words));
    has(&stderr, &["1 file(s) passed over", "c.NII", "predicted"]);
    assert_eq!(good(&on(&scene, &[&words[..], &["--quiet"]].concat())).1, "");
}

#[test]
fn what_a_dataset_leaves_out_is_named() {
    let scene = dataset(&["a", "b"], |_| {});
    scene.volume(&format!("{RAW}/imagesTr/c.nii"));
    scene.volume(&format!("{RAW}/imagesTr/d_0000.nii.gz"));
    let (stdout, stderr) = good(&plan(&scene, &["--json"]));
    let words = ["2 file(s) passed over", "c.nii (no channel", "d_0000.nii.gz (another ending"];
    has(&stderr, &words);
    let report: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(report["passed_over"].as_array().unwrap().len(), 2);
    let raw = format!("@{RAW}");
    let (stdout, stderr) = good(&on(&scene, &["preprocess", &raw, "--json"]));
    has(&stderr, &words);
    let report: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(
        report["passed_over"][0]["reason"],
        "no channel number such as _0000 at the end of the name"
    );
}

#[test]
fn datasets_whose_names_are_wrong_are_told_in_one_line() {
    let check = |cases: &[&str], edit: &dyn Fn(&mut Value), words: &[&str]| {
        let scene = dataset(cases, edit);
        refused(&scene, words, || plan(&scene, &[]));
        let raw = format!("@{RAW}");
        refused(&scene, words, || on(&scene, &["preprocess", &raw]));
    };
    let count = ["numTraining: expected 2", "(a, b)", "found 3", "dataset.json"];
    check(&["a", "b"], &|json| json["numTraining"] = json!(3), &count);
    let ending = ["file_ending: expected .nii,", "2 file(s)", "found .nii.gz", "dataset.json"];
    check(&["a", "b"], &|json| json["file_ending"] = json!(".nii.gz"), &ending);
    let list = |json: &mut Value| {
        json["training"] = json!([
            {"image": "./imagesTr/a_0000.nii", "label": "./labelsTr/a.nii"},
            {"image": "./imagesTr/b_0000.nii", "label": "./labelsTr/b.nii"}
        ]);
        json["modality"] = json["channel_names"].take();
        json.as_object_mut().unwrap().remove("channel_names");
        json["labels"] = json!({"0": "background", "1": "liver", "2": "spleen"});
    };
    check(&["a", "b"], &list, &["training: expected names of cases", "2 of 2", "a_0000, b_0000"]);
    for name in ["../../escaped", "/absolute", "a/b", "..", "a\nb", "x\u{1b}[31m"] {
        let entry = json!({"images": ["imagesTr/a_0000.nii"], "label": "labelsTr/a.nii"});
        let edit = |json: &mut Value| {
            json["dataset"] = json!({name: entry});
            json["numTraining"] = json!(1);
        };
        check(&["a"], &edit, &["name of a training case", "expected a name without"]);
    }
    // Scans under their own numbers.
    let scene = dataset(&["x"], |json| json["numTraining"] = json!(2));
    fs::remove_file(scene.path(&format!("{RAW}/imagesTr/x_0000.nii"))).unwrap();
    for name in ["word_0001", "word_0002"] {
        scene.volume(&format!("{RAW}/imagesTr/{name}.nii"));
    }
    let words =
        ["case word", "expected 1 channel file", "word_0001.nii, word_0002.nii", "add _0000"];
    refused(&scene, &words, || plan(&scene, &[]));
}

#[cfg(unix)]
#[test]
fn a_training_image_that_is_a_link_to_nowhere_is_named() {
    let scene = dataset(&["a", "b"], |_| {});
    let image = scene.path(&format!("{RAW}/imagesTr/b_0000.nii"));
    fs::remove_file(&image).unwrap();
    std::os::unix::fs::symlink("../.git/annex/absent", &image).unwrap();
    let raw = format!("@{RAW}");
    let words = ["case b", "this link leads to is not there", "b_0000.nii"];
    refused(&scene, &words, || on(&scene, &["plan", &raw]));
    // The plans need no image, the cases do.
    good(&plan(&scene, &[]));
    refused(&scene, &words, || on(&scene, &["preprocess", &raw]));
}

#[test]
fn plans_replace_no_file_of_the_dataset() {
    let scene = dataset(&["a", "b"], |_| {});
    let raw = format!("@{RAW}");
    let words = ["would overwrite the input", "dataset.json"];
    refused(&scene, &words, || plan(&scene, &["-o", &raw]));
    for name in ["dataset", "Dataset", "dataset_fingerprint", "splits_final"] {
        let words = ["--plans-name would be written to one file"];
        refused(&scene, &words, || plan(&scene, &["--plans-name", name]));
    }
    for name in ["", "..", "a/b", "a\nb"] {
        refused(&scene, &["--plans-name"], || plan(&scene, &["--plans-name", name]));
    }
    // A fingerprint that lies where it would be written is taken, and stays as it is.
    let there = format!("{PREPARED}/dataset_fingerprint.json");
    let text = fs::read_to_string(scene.path("fingerprint.json")).unwrap() + "\n\n";
    scene.file(&there, text.as_bytes());
    good(&plan(&scene, &["--fingerprint", &format!("@{there}")]));
    assert_eq!(fs::read_to_string(scene.path(&there)).unwrap(), text);
}

#[test]
fn prepared_cases_replace_no_file_of_the_dataset() {
    let copies = format!("../../{PREPARED}/gt_segmentations");
    let scene = dataset(&["a", "b"], |json| {
        let entry = |label: &str| json!({"images": [format!("imagesTr/{label}_0000.nii")], "label": format!("{copies}/{label}.nii")});
        // Each is the other's.
        json["dataset"] = json!({"a": entry("b"), "b": entry("a")});
    });
    for case in ["a", "b"] {
        let labels = fs::read(scene.path(&format!("{RAW}/labelsTr/{case}.nii"))).unwrap();
        scene.file(&format!("{PREPARED}/gt_segmentations/{case}.nii"), &labels);
    }
    good(&plan(&scene, &[]));
    let raw = format!("@{RAW}");
    let words = ["the labels of case a: would overwrite the input", "gt_segmentations"];
    refused(&scene, &words, || on(&scene, &["preprocess", &raw]));
    // A case's own copy is no harm.
    let description = scene.path(&format!("{RAW}/dataset.json"));
    let text = fs::read_to_string(&description).unwrap();
    let mut json: Value = serde_json::from_str(&text).unwrap();
    let (a, b) = (json["dataset"]["a"].take(), json["dataset"]["b"].take());
    json["dataset"] = json!({"a": b, "b": a});
    fs::write(&description, json.to_string()).unwrap();
    good(&on(&scene, &["preprocess", &raw]));
}

#[test]
fn a_summary_replaces_nothing_that_is_read() {
    let scene = dataset(&["a"], |_| {});
    let labels = scene.path(&format!("{RAW}/labelsTr/a.nii"));
    fs::create_dir(scene.path("predicted")).unwrap();
    fs::copy(&labels, scene.path("predicted/a.nii")).unwrap();
    fs::hard_link(&labels, scene.path("hard.json")).unwrap();
    let (reference, dataset) = (format!("@{RAW}/labelsTr"), format!("@{RAW}/dataset.json"));
    let words = ["evaluate", &reference, "@predicted"];
    let check = |more: &[&str]| {
        let expected = ["--output: would overwrite the input"];
        refused(&scene, &expected, || on(&scene, &[&words[..], more].concat()));
    };
    check(&["-o", &dataset]);
    check(&["--dataset-json", &dataset, "-o", &dataset]);
    check(&["-o", "@hard.json"]);
    scene.file("plans.json", b"{}");
    check(&["--plans", "@plans.json", "-o", "@plans.json"]);
    good(&on(&scene, &words));
}
