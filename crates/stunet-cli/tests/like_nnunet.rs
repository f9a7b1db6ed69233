//! What nnU-Net and ITK read is read, what they say is said, and what is written they read.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod common;

use std::fs;

use common::{Scene, model_folder, predict_arguments, said, stunet};
use serde_json::{Value, json};
use stunet_testing::nifti_bytes::NiftiBytes;

const RAW: &str = "nnUNet_raw/Dataset008_Kinds";
const PREPROCESSED: &str = "nnUNet_preprocessed/Dataset008_Kinds";

fn description() -> Value {
    json!({
        "channel_names": {"0": "MR"},
        "labels": {"background": 0, "liver": 1, "spleen": 2},
        "numTraining": 5,
        "file_ending": ".nii"
    })
}

/// A dataset of five cases with the labels 0, 1, 2, and this `dataset.json`.
fn dataset(text: &str) -> Scene {
    let scene = Scene::new();
    scene.file(&format!("{RAW}/dataset.json"), text.as_bytes());
    for case in 0..5 {
        let mut file = NiftiBytes::ramp([24, 20, 16]);
        scene.file(&format!("{RAW}/imagesTr/c{case}_0000.nii"), &file.bytes());
        file.values.iter_mut().enumerate().for_each(|(i, v)| *v = (i / 500 % 3) as f32);
        scene.file(&format!("{RAW}/labelsTr/c{case}.nii"), &file.bytes());
    }
    scene
}

/// Plans; gives the notes.
fn planned(scene: &Scene) -> String {
    let output = stunet(["plan", scene.path(RAW).to_str().unwrap()]);
    let (stdout, stderr) = said(&output);
    assert!(output.status.success(), "{stderr}");
    stdout.lines().filter(|line| line.starts_with("note: ")).collect::<Vec<_>>().join("\n")
}

fn read(scene: &Scene, name: &str) -> Value {
    serde_json::from_slice(&fs::read(scene.path(PREPROCESSED).join(name)).unwrap()).unwrap()
}

/// Plans with these labels, and asserts what is written for nnU-Net 2 and what is said.
fn check_labels(labels: Value, note: Option<&str>) {
    let mut json = description();
    json["labels"] = labels;
    let scene = dataset(&json.to_string());
    let notes = planned(&scene);
    assert_eq!(read(&scene, "dataset.json")["labels"], description()["labels"], "{json}");
    match note {
        Some(words) => assert!(notes.contains(words), "no {words:?} in: {notes}"),
        None => assert!(!notes.contains("labels of dataset.json"), "{notes}"),
    }
}

#[test]
fn labels_as_people_write_them() {
    check_labels(json!({"background": "0", "liver": "1", "spleen": "2"}), None);
    let v1 = json!({"0": "background", "1": "liver", "2": "spleen"});
    check_labels(v1, Some("in the form of nnU-Net 1"));
    check_labels(
        json!({"Background": 0, "liver": 1, "spleen": 2}),
        Some("is called \"Background\""),
    );
}

#[test]
fn a_byte_order_mark_and_nan_that_nobody_reads() {
    let scene = dataset(&format!("\u{feff}{}", description()));
    planned(&scene);
    let file = scene.path(PREPROCESSED).join("dataset_fingerprint.json");
    let text = fs::read_to_string(&file).unwrap();
    let at = text.find("\"std\": ").unwrap() + 7;
    let end = at + text[at..].find(['\n', ',']).unwrap();
    fs::write(&file, format!("{}NaN{}", &text[..at], &text[end..])).unwrap();
    let plan = |scene: &Scene| {
        let raw = scene.path(RAW);
        stunet(["plan", raw.to_str().unwrap(), "--fingerprint", file.to_str().unwrap(), "-q"])
    };
    let output = plan(&scene);
    assert!(output.status.success(), "{}", said(&output).1);
    // The normalisation of a CT would use it.
    let mut ct = description();
    ct["channel_names"] = json!({"0": "CT"});
    let output = plan(&dataset(&ct.to_string()));
    let (_, stderr) = said(&output);
    let words = "fingerprint: foreground_intensity_properties_per_channel.0.std: expected a number";
    assert!(stderr.contains(words), "{stderr}");
    assert!(stderr.trim_end().ends_with("dataset_fingerprint.json"), "{stderr}");
}

#[test]
fn folds_that_overlap_and_images_that_are_turned() {
    let scene = dataset(&description().to_string());
    assert!(!planned(&scene).contains("axes of the images"));
    let mut turned = NiftiBytes::ramp([24, 20, 16]);
    turned.affine[1][1] *= -1.0;
    scene.file(&format!("{RAW}/imagesTr/c3_0000.nii"), &turned.bytes());
    turned.values.fill(1.0);
    scene.file(&format!("{RAW}/labelsTr/c3.nii"), &turned.bytes());
    let splits = json!([{"train": ["c0", "c1", "c2"], "val": ["c2", "c3"]}]);
    scene.file(&format!("{PREPROCESSED}/splits_final.json"), splits.to_string().as_bytes());
    let notes = planned(&scene);
    assert!(notes.contains("fold 0: 1 case(s) of the fold are trained on"), "{notes}");
    assert!(notes.contains("RAS (4, such as c0), RPS (1, such as c3)"), "{notes}");
    let nothing = json!([{"train": ["c0"], "val": []}]);
    scene.file(&format!("{PREPROCESSED}/splits_final.json"), nothing.to_string().as_bytes());
    let (_, stderr) = said(&stunet(["plan", scene.path(RAW).to_str().unwrap()]));
    assert!(stderr.contains("fold 0: expected cases to validate on"), "{stderr}");
}

/// `docs/nnunet-checks.md` names a test for every row that has one: each of them is there.
#[test]
fn the_table_of_checks_names_tests_that_exist() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut sources = String::new();
    let mut open = vec![root.join("crates")];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                sources.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
    let table = fs::read_to_string(root.join("docs/nnunet-checks.md")).unwrap();
    let rows = table.lines().filter(|line| line.starts_with("| ") && line.ends_with(" |"));
    let mut count = 0;
    for row in rows {
        let tests = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        for name in tests.split('`').skip(1).step_by(2) {
            assert!(sources.contains(&format!("fn {name}()")), "no test {name}: {row}");
            count += 1;
        }
    }
    assert!(count > 20, "{count}");
}

/// A labelmap has as many dimensions as its image, and lies where the image does.
#[test]
fn images_of_two_dimensions() {
    let scene = Scene::new();
    let mut bytes = NiftiBytes::ramp([20, 18, 1]).bytes();
    bytes[40] = 2;
    let input = scene.file("plane.nii", &bytes);
    let output = scene.path("labels.nii");
    let result = stunet(predict_arguments(&input, &output, &model_folder(1)));
    assert!(result.status.success(), "{}", said(&result).1);
    let written = fs::read(&output).unwrap();
    assert_eq!(written[40..48], [2, 0, 20, 0, 18, 0, 1, 0]);
    assert_eq!(written[280..328], bytes[280..328], "the affine");
}

#[test]
fn a_single_file_whose_header_says_two() {
    let scene = Scene::new();
    let mut bytes = NiftiBytes::ramp([20, 18, 16]).bytes();
    bytes[344..348].copy_from_slice(b"ni1\0");
    let input = scene.file("ct.nii", &bytes);
    let result = stunet(predict_arguments(&input, &scene.path("labels.nii"), &model_folder(1)));
    assert!(result.status.success(), "{}", said(&result).1);
}
