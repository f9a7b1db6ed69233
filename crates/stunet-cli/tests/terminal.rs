//! Names, arguments and contents of files that would steer a terminal: they are shown, not sent.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]
#![cfg(unix)]

mod common;

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Output;

use common::{LABELS, Scene, model_folder, predict_arguments, said, stunet};
use serde_json::{Value, json};
use stunet_testing::nifti_bytes::NiftiBytes;

/// Sets the title, rings, clears the screen, colours it red; C1 and the other direction of writing.
const STEERS: &str = "\u{1b}]0;pwned\u{7}\u{1b}[2J\u{1b}[31m\u{9b}2J\u{202e}\r";

/// Nothing that was said steers a terminal; returns standard output and standard error.
fn clean(output: &Output) -> (String, String) {
    let (stdout, stderr) = said(output);
    for text in [&stdout, &stderr] {
        let steering = |c: char| (c.is_control() && c != '\n' && c != '\t') || c == '\u{202e}';
        assert!(!text.contains(steering), "{text:?}");
    }
    assert!(output.status.code().is_some(), "killed: {stderr}");
    assert!(!stderr.contains("internal error"), "{stderr}");
    (stdout, stderr)
}

/// Runs, expects the code, and the escapes to be seen on the stream that tells.
fn check<S: AsRef<std::ffi::OsStr>>(words: &[S], code: i32) -> (String, String) {
    let output = stunet(words);
    let (stdout, stderr) = clean(&output);
    assert_eq!(output.status.code(), Some(code), "{stdout}{stderr}");
    let told = if code == 0 { &stdout } else { &stderr };
    // As JSON writes it, or as Rust does where the message quotes it. Of a wrong command line clap
    // leaves the sequences of terminals out itself, all but the short ones.
    let escape = if code == 2 { "\\u009b" } else { "\\u001b" };
    let shown = told.contains(escape) || told.contains("\\u{1b}");
    assert!(shown, "nothing of it is shown: {told:?}");
    assert!(code == 0 || stderr.lines().count() == 1, "{stderr}");
    (stdout, stderr)
}

/// A copy of the small model with one of its files changed.
fn model(scene: &Scene, file: &str, change: impl Fn(&mut Value)) -> PathBuf {
    let copy = scene.path(&format!("model of {file}"));
    fs::create_dir_all(&copy).unwrap();
    for entry in fs::read_dir(model_folder(1)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, copy.join(path.file_name().unwrap())).unwrap();
    }
    let path = copy.join(file);
    let mut value: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut value);
    fs::write(&path, value.to_string()).unwrap();
    copy
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Renames the first label.
fn rename(labels: &mut Value, value: Value) {
    let labels = labels["labels"].as_object_mut().unwrap();
    labels.remove(LABELS[1]);
    labels.insert(format!("liver{STEERS}"), value);
}

/// What the binary shows on a terminal, which `script` makes.
#[cfg(target_os = "linux")]
fn on_a_terminal(words: &[String]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("'{word}'")).collect();
    let line = format!("{} {}", common::STUNET, quoted.join(" "));
    let output = std::process::Command::new("script")
        .args(["--quiet", "--return", "--command", &line, "/dev/null"])
        .env("TERM", "xterm")
        .output()
        .expect("script, of util-linux");
    let (stdout, stderr) = said(&output);
    assert!(output.status.success(), "{stdout}{stderr}");
    stdout
}

/// What is left to be seen of a line that was drawn over.
fn seen(line: &str) -> String {
    let mut seen = String::new();
    for (index, part) in line.split('\r').enumerate() {
        if index > 0 && part.starts_with("\u{1b}[2K") {
            seen.clear();
        }
        seen.push_str(part.trim_start_matches("\u{1b}[2K"));
    }
    seen
}

/// A line of text is not written behind a progress bar, and none is left on the screen.
#[cfg(target_os = "linux")]
#[test]
fn bars_make_way_for_lines() {
    let scene = Scene::new();
    for name in ["a", "b", "c"] {
        scene.file(&format!("in/{name}_0000.nii"), &NiftiBytes::ramp([40, 36, 32]).bytes());
    }
    let words = predict_arguments(&scene.path("in"), &scene.path("out"), &model_folder(1));
    let text = on_a_terminal(&words);
    let is_bar = |line: &str| line.contains(|c: char| ('\u{2800}'..='\u{28ff}').contains(&c));
    assert!(is_bar(&text), "no bar was drawn: {text:?}");
    assert!(text.contains("3 predicted"), "{text:?}");
    for line in text.split('\n').map(seen) {
        assert!(!is_bar(&line), "{line:?} in {text:?}");
    }
}

#[test]
fn names_of_labels() {
    let scene = Scene::new();
    let good = model(&scene, "labels.json", |labels| rename(labels, json!(1)));
    let (stdout, _) = check(&["labels", text(&good)], 0);
    assert_eq!(stdout.lines().count(), LABELS.len(), "a name is no line of its own: {stdout:?}");
    let (stdout, _) = check(&["labels", text(&good), "--json"], 0);
    let named: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(named[format!("liver{STEERS}")], 1, "as JSON it is the name it was");
    let bad = model(&scene, "labels.json", |labels| rename(labels, json!(70000)));
    check(&["labels", text(&bad)], 1);
}

#[test]
fn notes_and_keys_of_a_model() {
    let scene = Scene::new();
    let input = scene.volume("ct.nii");
    let noted = model(&scene, "plans.json", |plans| {
        plans["notes"] = json!([format!("note{STEERS}\nsecond line")]);
    });
    let arguments = predict_arguments(&input, &scene.path("labels.nii.gz"), &noted);
    check(&arguments, 0);
    check(&["info", text(&noted)], 0);
    let (stdout, _) = check(&["info", text(&noted), "--json"], 0);
    assert!(serde_json::from_str::<Value>(&stdout).is_ok());
    let unknown = model(&scene, "network.json", |network| {
        network["config"][format!("x{STEERS}")] = json!(1);
    });
    check(&["labels", text(&unknown)], 1);
}

#[test]
fn names_of_cases_and_the_report() {
    let scene = Scene::new();
    let good = NiftiBytes::ramp([20, 18, 16]).bytes();
    scene.file(&format!("in/case{STEERS}_0000.nii"), &good);
    scene.file(&format!("in/bad{STEERS}_0000.nii"), b"x");
    let report = scene.path("report.json");
    let model = model(&scene, "labels.json", |labels| {
        rename(labels, json!(1));
        let labels = labels["labels"].as_object_mut().unwrap();
        let value = labels.remove(LABELS[2]).unwrap();
        labels.insert(INJECTED.to_owned(), value);
    });
    const INJECTED: &str = "x\", \"voxels\": 0}, {\"a\": \"";
    let mut words = predict_arguments(&scene.path("in"), &scene.path("out"), &model);
    words.extend(["--json".to_owned(), text(&report).to_owned()]);
    let output = stunet(words);
    let (stdout, stderr) = clean(&output);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stdout.contains("\\u001b") && stderr.contains("\\u001b"), "{stdout}{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    let raw = fs::read_to_string(&report).unwrap();
    assert!(!raw.contains(|c: char| c.is_ascii_control() && c != '\n'), "{raw:?}");
    let report: Value = serde_json::from_str(&raw).unwrap();
    let cases = report["cases"].as_array().unwrap();
    let predicted = cases.iter().find(|case| case["status"] == "predicted").unwrap();
    let names: Vec<_> =
        predicted["labels"].as_array().unwrap().iter().map(|l| &l["name"]).collect();
    assert!(names.contains(&&json!(format!("liver{STEERS}"))), "{names:?}");
    assert!(names.contains(&&json!(INJECTED)), "{names:?}");
}

#[test]
fn arguments() {
    let absent = format!("no{STEERS}.nii");
    let scene = Scene::new();
    let there = scene.volume("a.nii");
    check(&["predict", "-i", &absent, "-o", "x.nii.gz", "-m", text(&model_folder(1))], 1);
    check(&["predict", "-i", text(&there), "-o", "x.nii.gz", "-m", &absent], 1);
    check(&["labels", &absent], 1);
    check(&["info", "--size", &absent], 2);
    check(&["predict", &format!("--{absent}")], 2);
    check(&[&absent], 2);
    check(&["convert", &absent, "out"], 1);
    check(&["export", &absent, "out"], 1);
    check(&["plan", &absent], 1);
    check(&["preprocess", &absent], 1);
    check(&["evaluate", &absent, &absent, "--labels", "1"], 1);
    check(&["train", &absent, "3d_fullres", "0"], 1);
}

#[test]
fn the_name_the_program_was_started_by() {
    use std::os::unix::process::CommandExt;
    for words in [&["--help"][..], &["predict", "--help"], &["--version"], &[], &["predict"]] {
        let mut command = std::process::Command::new(common::STUNET);
        let output = command.arg0(STEERS).args(words).output().unwrap();
        let (stdout, stderr) = clean(&output);
        assert!(!format!("{stdout}{stderr}").contains("pwned"), "{stdout}{stderr}");
    }
}

/// A zip with a pickle, as a checkpoint of nnU-Net 1.
fn checkpoint(scene: &Scene, pickle: &[u8]) -> PathBuf {
    let path = scene.path("hostile.model");
    let mut zip = zip::ZipWriter::new(fs::File::create(&path).unwrap());
    let stored =
        zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    zip.start_file("archive/data.pkl", stored).unwrap();
    zip.write_all(pickle).unwrap();
    zip.finish().unwrap();
    path
}

#[test]
fn pickles() {
    let scene = Scene::new();
    let word = |text: &str| {
        let length = u32::try_from(text.len()).unwrap().to_le_bytes();
        [&b"X"[..], &length, text.as_bytes()].concat()
    };
    let key = word(&format!("bad{STEERS}"));
    let global = b"cos\x1b[31m\nsystem\n.".to_vec();
    let tensor = [b"\x80\x02}(", &word("state_dict")[..], b"}", &key, b"Nsu."].concat();
    let entry = [b"\x80\x02}", &key[..], b"Ns."].concat();
    check(&["labels", text(&checkpoint(&scene, &global))], 1);
    check(&["labels", text(&checkpoint(&scene, &entry))], 1);
    // Whose name is not told.
    let output = stunet(["labels", text(&checkpoint(&scene, &tensor))]);
    assert_eq!(output.status.code(), Some(1), "{}", clean(&output).1);
}

#[test]
fn datasets_and_tables() {
    let scene = Scene::new();
    let raw = "nnUNet_raw/Dataset001_A";
    let mut volume = NiftiBytes::ramp([20, 18, 12]);
    scene.file(&format!("{raw}/imagesTr/a_0000.nii"), &volume.bytes());
    volume.values.iter_mut().enumerate().for_each(|(i, v)| *v = f32::from(u8::from(i % 9 < 3)));
    scene.file(&format!("{raw}/labelsTr/a.nii"), &volume.bytes());
    let about = |value: Value| {
        let about = json!({
            "channel_names": {"0": "MR"}, "numTraining": 1, "file_ending": ".nii",
            "labels": {"background": 0, format!("box{STEERS}"): value},
        });
        scene.file(&format!("{raw}/dataset.json"), about.to_string().as_bytes())
    };
    about(json!(2));
    check(&["plan", text(&scene.path(raw))], 1);
    let file = about(json!(1));
    let references = scene.path(&format!("{raw}/labelsTr"));
    let summary = scene.path("summary.json");
    let words = ["evaluate", text(&references), text(&references), "--dataset-json", text(&file)];
    check(&[&words[..], &["-o", text(&summary)]].concat(), 0);
}
