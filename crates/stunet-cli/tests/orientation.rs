//! Scans whose axes run otherwise than those of the training images: turned and said, or kept and said.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod common;

use common::{LABELS, Scene, assert_one_line, model_folder, predict_arguments, said, stunet};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Output;
use stunet::data::geometry::{Geometry, Orientation};
use stunet::data::image::Image;
use stunet::data::labels::LabelMap;
use stunet::data::nifti;
use stunet::data::plans::Plans;
use stunet_testing::dicom_bytes::ct;
use stunet_testing::nifti_bytes::NiftiBytes;

fn predict(model: &Path, input: &Path, output: &Path, more: &[&str]) -> Output {
    let mut arguments = predict_arguments(input, output, model);
    arguments.extend(more.iter().map(|word| (*word).to_owned()));
    stunet(arguments)
}

/// What it printed, of a run that went well.
fn check(output: &Output) -> String {
    let (stdout, stderr) = said(output);
    assert!(output.status.success(), "{stderr}");
    assert_eq!(stderr, "");
    stdout
}

/// The volume of [`Scene::volume`], whose axes run RAS, stored in other axes.
fn stored_as(scene: &Scene, name: &str, orientation: &str) -> PathBuf {
    let image = nifti::read_image(&[scene.volume("plain.nii")]).unwrap();
    let turned = image.oriented(orientation.parse().unwrap()).unwrap();
    let of = &turned.geometry;
    let alone = Geometry::new(of.shape(), of.spacing_mm(), of.origin_mm(), of.direction()).unwrap();
    let path = scene.file(name, b"");
    nifti::write_image(&path, &Image::new(turned.data, alone).unwrap()).unwrap();
    path
}

/// Whether two labelmaps say the same of every place.
fn same(a: &Path, b: &Path) -> bool {
    let [a, b] = [a, b].map(|path| nifti::read_labelmap(path).unwrap());
    assert!(a.data.iter().any(|label| *label > 0));
    let to = Orientation::of(&a.geometry);
    let grid = b.geometry.oriented(to).unwrap();
    a.geometry.check_same_grid(&grid).unwrap();
    let LabelMap { data, .. } = &b;
    grid.turn().apply(data.view()) == a.data
}

/// The small model in a folder of its own; what its plans say of axes is replaced.
fn model_that_says(scene: &Scene, orientation: Option<&str>) -> PathBuf {
    let folder = scene.path("model");
    std::fs::create_dir_all(&folder).unwrap();
    for entry in std::fs::read_dir(model_folder(1)).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
    }
    let path = folder.join("plans.json");
    let mut plans: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    plans.as_object_mut().unwrap().remove("orientation");
    if let Some(orientation) = orientation {
        plans["orientation"] = json!(orientation);
    }
    std::fs::write(&path, plans.to_string()).unwrap();
    folder
}

#[test]
fn a_scan_that_runs_otherwise_is_turned_and_the_labels_back() {
    let scene = Scene::new();
    let model = model_folder(1);
    let [plain, report] = ["ras.nii.gz", "report.json"].map(|name| scene.path(name));
    let said = check(&predict(&model, &scene.volume("plain.nii"), &plain, &[]));
    assert!(!said.contains("axes"), "{said}");
    for axes in ["LPS", "ILA"] {
        let (scan, out) = (stored_as(&scene, "scan.nii", axes), scene.path("out.nii.gz"));
        let arguments = ["--overwrite", "--json", report.to_str().unwrap()];
        let said = check(&predict(&model, &scan, &out, &arguments));
        let line = format!(
            "scan: note: its axes run {axes}, those of the training images RAS: turned for the \
             network, and the results back"
        );
        assert!(said.contains(&line), "{said}");
        assert!(same(&plain, &out), "{axes}");
        let report: Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
        let expected = json!({"file": axes, "network": "RAS", "trained": "RAS"});
        assert_eq!(report["cases"][0]["prediction"]["orientation"], expected);
    }
    // As nnU-Net does it: other labels, but not without a word.
    let scan = stored_as(&scene, "scan.nii", "LPS");
    let as_is = scene.path("as_is.nii.gz");
    let said = check(&predict(&model, &scan, &as_is, &["--orientation", "as-is"]));
    let line = "its axes run LPS, those of the training images RAS: the labels are likely wrong; \
                --orientation auto turns the scan";
    assert!(said.contains(line), "{said}");
    assert!(!same(&plain, &as_is));
}

#[test]
fn outputs_are_known_by_how_their_scan_was_turned() {
    let scene = Scene::new();
    let model = model_folder(1);
    let (scan, out) = (stored_as(&scene, "scan.nii", "LPS"), scene.path("out.nii.gz"));
    let run = |more: &[&str]| predict(&model, &scan, &out, more);
    check(&run(&["--orientation", "as-is"]));
    assert!(check(&run(&["--orientation", "as-is"])).contains("skipped, exists"));
    assert!(check(&run(&["--orientation", "LPS"])).contains("skipped, exists"), "the same thing");
    let words = ["labelmap: expected none, or one made with orientation RAS, found none"];
    assert_one_line(&run(&[]), &words);
    assert_one_line(&run(&["--orientation", "ras"]), &words);
    check(&run(&["--overwrite"]));
    assert!(check(&run(&["--orientation", "RAS"])).contains("skipped, exists"), "the same thing");
    assert_one_line(&run(&["--orientation", "as-is"]), &["found RAS"]);
    // Where there is nothing to turn, all three make the same.
    let (scan, out) = (scene.volume("plain.nii"), scene.path("plain.nii.gz"));
    check(&predict(&model, &scan, &out, &[]));
    for axes in ["as-is", "RAS"] {
        let again = predict(&model, &scan, &out, &["--orientation", axes]);
        assert!(check(&again).contains("skipped, exists"), "{axes}");
    }
}

#[test]
fn a_model_that_does_not_say_how_its_images_ran() {
    let scene = Scene::new();
    let model = model_that_says(&scene, None);
    for (name, axes) in [("a", "LPS"), ("b", "LPS"), ("c", "RAS")] {
        stored_as(&scene, &format!("in/{name}_0000.nii"), axes);
    }
    let (scans, out) = (scene.path("in"), scene.path("out"));
    let said = check(&predict(&model, &scans, &out, &[]));
    let told = |words: &str| said.matches(words).count();
    // Once for every orientation of scans, not for every scan.
    assert_eq!(told("does not say how those of its training images ran"), 2, "{said}");
    assert_eq!(told("run LPS; "), 1, "{said}");
    assert_eq!(told("such as --orientation RAS"), 1, "{said}");
    let turned = scene.path("turned.nii.gz");
    let scan = scene.path("in/a_0000.nii");
    let said = check(&predict(&model, &scan, &turned, &["--orientation", "RAS"]));
    assert!(said.contains("run LPS: turned to RAS for the network, as --orientation says"));
    assert!(same(&turned, &out.join("c.nii.gz")));
    assert!(!same(&turned, &out.join("a.nii.gz")));
    // Said once and for all.
    let noted = scene.path("noted");
    let [from, to] = [&model, &noted].map(|path| path.to_str().unwrap());
    check(&stunet(["convert", from, to, "--orientation", "RAS"]));
    let info = check(&stunet(["info", to]));
    assert!(info.contains("axes of training images     RAS"), "{info}");
    assert!(check(&stunet(["info", from])).contains("axes of training images     not said"));
    let again = scene.path("again.nii.gz");
    assert!(check(&predict(&noted, &scan, &again, &[])).contains("turned for the network"));
    assert!(same(&turned, &again));
}

#[test]
fn letters_that_are_none_or_contradict_the_plans() {
    let scene = Scene::new();
    let (scan, out) = (scene.volume("scan.nii"), scene.path("out.nii.gz"));
    for bad in ["RAR", "up", "reader"] {
        let output = predict(&model_folder(1), &scan, &out, &["--orientation", bad]);
        assert_one_line(&output, &["--orientation", "expected auto, as-is, or three letters"]);
    }
    let model = model_that_says(&scene, Some("RAL"));
    assert_one_line(&predict(&model, &scan, &out, &[]), &["three letters", "plans.json"]);
    let model = model_that_says(&scene, None);
    let path = model.join("plans.json");
    let mut plans: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    plans["reader"] = json!("SimpleITKIOWithReorient");
    std::fs::write(&path, plans.to_string()).unwrap();
    let words = ["expected RAS, to which SimpleITKIOWithReorient turns every scan, found LPS"];
    assert_one_line(&predict(&model, &scan, &out, &["--orientation", "LPS"]), &words);
    let [from, to] = [&model, &scene.path("to")].map(|path| path.to_str().unwrap().to_owned());
    assert_one_line(&stunet(["convert", &from, &to, "--orientation", "LPS"]), &words);
    assert!(!scene.path("to").exists() && !out.exists());
}

/// A series lies in the axes of its slices.
#[test]
fn a_dicom_series_is_turned_as_well() {
    let scene = Scene::new();
    let values: Vec<i16> =
        NiftiBytes::ramp([32, 28, 24]).values.iter().map(|v| *v as i16).collect();
    for (z, file) in ct("1.2.3", 4, [24, 28, 32], &values).iter().enumerate() {
        scene.file(&format!("dicom/{z}.dcm"), file);
    }
    let (folder, plain) = (scene.path("dicom"), scene.path("as_is.nii"));
    let model = model_that_says(&scene, None);
    let said = check(&predict(&model, &folder, &plain, &[]));
    let own = said.split("its axes run ").nth(1).unwrap()[..3].to_owned();
    let to: String = own.chars().rev().map(|c| if c == 'R' { 'L' } else { c }).collect();
    let turned = scene.path("turned.nii");
    let said = check(&predict(&model, &folder, &turned, &["--orientation", &to]));
    assert!(said.contains(&format!("run {own}: turned to {to}")), "{said}");
    // On the grid of the series, but of a scan that the network saw otherwise.
    let [a, b] = [&plain, &turned].map(|path| nifti::read_labelmap(path).unwrap());
    a.geometry.check_same_grid(&b.geometry).unwrap();
    assert!(a.data != b.data);
    let again = check(&predict(&model, &folder, &turned, &["--orientation", &to]));
    assert!(again.contains("skipped, exists"), "{again}");
    assert_one_line(&predict(&model, &folder, &turned, &[]), &["found "]);
}

/// nnU-Net 1 and 2 each have their files; both carry it, and so do the plans read back from them.
#[test]
fn planning_notes_how_the_images_run() {
    for (rules, name) in [("v2.8", "nnUNetPlans"), ("v1", "nnUNetPlansv2.1_plans_3D")] {
        let scene = Scene::new();
        let raw = scene.path("nnUNet_raw/Dataset003_Turned");
        let (key, file_ending) = match rules {
            "v1" => ("modality", ".nii.gz"),
            _ => ("channel_names", ".nii"),
        };
        let mut description = json!({
            "labels": {"background": 0, LABELS[1]: 1}, "numTraining": 3, "file_ending": file_ending,
        });
        description[key] = json!({"0": "CT"});
        if rules == "v1" {
            description["labels"] = json!({"0": "background", "1": LABELS[1]});
        }
        let put = |case: &str, flip: f32| {
            let mut image = NiftiBytes::ramp([40, 36, 32]);
            image.affine[0][0] *= flip;
            let mut labels = image.clone();
            labels.values.iter_mut().enumerate().for_each(|(i, v)| *v = (i / 500 % 2) as f32);
            let files =
                [(format!("imagesTr/{case}_0000"), image), (format!("labelsTr/{case}"), labels)];
            for (name, file) in files {
                let path =
                    scene.file(&format!("nnUNet_raw/Dataset003_Turned/{name}.nii"), &file.bytes());
                if rules == "v1" {
                    let read = nifti::read_image(&[&path]).unwrap();
                    nifti::write_image(&path.with_extension("nii.gz"), &read).unwrap();
                    std::fs::remove_file(path).unwrap();
                }
            }
        };
        scene.file("nnUNet_raw/Dataset003_Turned/dataset.json", description.to_string().as_bytes());
        ["a", "b", "c"].into_iter().for_each(|case| put(case, -1.0));
        let out = scene.path("plans");
        let words = ["plan", "-o", out.to_str().unwrap(), "--rules", rules, raw.to_str().unwrap()];
        let plans = || -> Value {
            let text = std::fs::read(out.join(format!("{name}.json"))).unwrap();
            serde_json::from_slice(&text).unwrap()
        };
        let said = check(&stunet(words));
        assert!(said.contains("3 cases of CT, whose axes run LAS"), "{said}");
        assert_eq!(plans()["stunet_orientation"], json!("LAS"));
        put("b", 1.0);
        let said = check(&stunet(words));
        assert!(said.contains("3 cases of CT, whose axes run LAS for most"), "{said}");
        assert!(said.contains("LAS (2, such as a), RAS (1, such as b)"), "{said}");
        let expected = json!({"majority": "LAS", "unanimous": false});
        assert_eq!(plans()["stunet_orientation"], expected);
        let read_back = match rules {
            "v1" => Plans::from_v1_json(&plans()),
            _ => Plans::from_v2_json(&plans(), &description, "3d_fullres"),
        };
        let read_back = read_back.unwrap();
        assert_eq!(serde_json::to_value(read_back.orientation).unwrap(), expected);
        assert!(read_back.notes.iter().all(|note| !note.contains("stunet_orientation")));
    }
}
