//! What comes with the labels: some of them, cleaned up, measured, each in its own file, around a part of
//! the body; and the same of labelmaps that exist.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Scene, assert_one_line, said, stunet};
use ndarray::{Array3, Axis, Zip};
use serde_json::Value;
use stunet::data::dataset::DatasetInfo;
use stunet::data::geometry::Geometry;
use stunet::data::image::Image;
use stunet::data::labels::{LabelMap, LabelSet};
use stunet::data::mapping::LabelMapping;
use stunet::data::nifti;
use stunet_phantom::{ScanOptions, scan};
use stunet_testing::nifti_bytes::NiftiBytes;

fn demo_model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../stunet-phantom/demo-model")
}

/// A phantom's CT in a folder, on a grid that the demo model is quick with.
fn ct(scene: &Scene, name: &str, seed: u64) -> PathBuf {
    let phantom = scan(seed, &ScanOptions::default());
    let (z, y, x) = phantom.image.dim();
    let geometry =
        Geometry::new([z, y, x], phantom.spacing_mm, phantom.origin_mm, phantom.direction);
    let image = Image::new(phantom.image.insert_axis(Axis(0)), geometry.unwrap()).unwrap();
    let path = scene.path(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    nifti::write_image(&path, &image).unwrap();
    path
}

fn predict(input: &Path, output: &Path, more: &[&str]) -> std::process::Output {
    let mut words = common::predict_arguments(input, output, &demo_model());
    // This network knows some anatomy.
    words.retain(|word| word != "--no-checks");
    words.extend(more.iter().map(|word| (*word).to_owned()));
    stunet(words)
}

fn done(input: &Path, output: &Path, more: &[&str]) -> (String, String) {
    let output = predict(input, output, more);
    let told = said(&output);
    assert!(output.status.success(), "{more:?}: {}", told.1);
    told
}

fn labels(path: &Path) -> LabelMap {
    nifti::read_labelmap(path).unwrap()
}

fn count(labels: &LabelMap, value: u16) -> u64 {
    labels.data.iter().filter(|v| **v == value).count() as u64
}

#[test]
fn one_prediction_with_everything() {
    let scene = Scene::new();
    let input = ct(&scene, "ct_0000.nii.gz", 3);
    let plain = scene.path("plain.nii.gz");
    let (stdout, stderr) = done(&input, &plain, &["--no-checks"]);
    assert_eq!(stderr, "", "no checks, no warnings");
    assert!(stdout.contains("liver") && stdout.contains(" ml"), "{stdout}");
    let output = scene.path("o/a.nii.gz");
    let json = scene.path("report.json");
    let more = [
        "--labels",
        "liver,kidneys",
        "7",
        "--largest-component",
        "--fill-holes",
        "--min-volume",
        "0.5ml",
        "--per-class",
        "--statistics",
        "--json",
        json.to_str().unwrap(),
    ];
    let (stdout, _) = done(&input, &output, &more);
    assert!(stdout.contains("left out, as --labels says: lung_right"), "{stdout}");
    assert!(stdout.contains("3 files of single labels"), "{stdout}");
    let (found, whole) = (labels(&output), labels(&plain));
    for value in 0..13 {
        let kept = matches!(value, 0 | 4 | 6 | 7);
        assert!(kept || count(&found, value) == 0, "label {value} was left out");
    }
    assert!(count(&found, 4) > 1000 && count(&whole, 5) > 0);
    let statistics: Value = read(&scene.path("o/a_statistics.json"));
    let measured = statistics["labels"].as_array().unwrap();
    let names: Vec<&str> = measured.iter().map(|of| of["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["liver", "kidney_right", "kidney_left"]);
    assert_eq!(measured[0]["voxels"], count(&found, 4));
    check_intensity(&input, &found, &measured[0]);
    let csv = fs::read_to_string(scene.path("o/a_statistics.csv")).unwrap();
    assert_eq!(csv.lines().count(), 4, "{csv}");
    for (name, value) in [("liver", 4), ("kidney_right", 6), ("kidney_left", 7)] {
        let one = labels(&scene.path(&format!("o/a/{name}.nii.gz")));
        let same =
            Zip::from(&one.data).and(&found.data).all(|one, of| (*one == 1) == (*of == value));
        assert!(same && one.geometry == found.geometry, "{name}");
    }
    let report: Value = read(&json);
    let case = &report["cases"][0];
    assert_eq!(case["files"].as_array().unwrap().len(), 1 + 4 + 2, "{case}");
    assert!(case["warnings"].is_array() && case["left_out"].as_array().unwrap().len() > 3);
    assert_eq!(case["labels"].as_array().unwrap().len(), 4);
    let (stdout, _) = done(&input, &output, &more);
    assert!(stdout.contains("skipped, exists"), "{stdout}");
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// Intensities are those of the file, and places those of its affine.
fn check_intensity(input: &Path, found: &LabelMap, measured: &Value) {
    let image = nifti::read_image(&[input]).unwrap();
    let volume = image.data.index_axis(Axis(0), 0);
    let mut values = Vec::new();
    Zip::from(&volume).and(&found.data).for_each(|value, label| {
        if *label == 4 {
            values.push(f64::from(*value));
        }
    });
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let of = measured["intensities"][0]["mean"].as_f64().unwrap();
    assert!((of - mean).abs() < 1e-6 * mean.abs().max(1.0), "{of}: {mean}");
    let x = found.data.indexed_iter().filter(|(_, label)| **label == 4).map(|((_, _, x), _)| x);
    let x = x.map(|x| x as f64).sum::<f64>() / values.len() as f64;
    let affine = found.geometry.world_from_voxel();
    let expected = affine[0][0] * x + affine[0][3];
    let of = measured["centroid_mm"]["x"].as_f64().unwrap();
    assert!(affine[0][1] == 0.0 && (of - expected).abs() < 1e-3, "{of}: {expected}");
}

#[test]
fn what_was_treated_otherwise_is_another_output() {
    let scene = Scene::new();
    let input = ct(&scene, "ct_0000.nii.gz", 3);
    let output = scene.path("a.nii.gz");
    done(&input, &output, &["--largest-component"]);
    let refused = |more: &[&str], words: &[&str]| {
        let again = predict(&input, &output, more);
        assert_one_line(&again, &[words, &["--overwrite"]].concat());
    };
    refused(&[], &["clean-up"]);
    refused(&["--largest-component", "liver"], &["clean-up"]);
    refused(&["--largest-component", "--labels", "liver"], &["labels"]);
    let before = fs::read(&output).unwrap();
    // A file of a label that something else has made stays.
    let foreign = scene.file("a/liver.nii.gz", b"mine");
    refused(&["--largest-component", "--per-class"], &["files of the labels"]);
    assert_eq!(fs::read(&foreign).unwrap(), b"mine");
    assert_eq!(fs::read(&output).unwrap(), before);
    fs::remove_file(&foreign).unwrap();
    done(&input, &output, &["--largest-component", "--per-class", "--statistics"]);
    assert_eq!(fs::read(&output).unwrap(), before, "the labelmap was there already");
    assert!(foreign.is_file() && scene.path("a_statistics.json").is_file());
}

#[test]
fn words_that_are_no_labels() {
    let scene = Scene::new();
    let input = ct(&scene, "ct_0000.nii.gz", 3);
    let output = scene.path("a.nii.gz");
    let refused = |more: &[&str], words: &[&str]| {
        assert_one_line(&predict(&input, &output, more), words);
        assert!(!output.exists());
    };
    refused(&["--labels", "livr"], &["--labels", "did you mean liver?"]);
    refused(&["--labels", "13"], &["found \"13\""]);
    refused(&["--largest-component", "ribs"], &["--largest-component", "ribs"]);
    refused(&["--min-volume", "0.2"], &["--min-volume", "0.2ml"]);
    let model = demo_model();
    let model = model.to_str().unwrap();
    refused(&["--crop-to", "hart", "--with", model], &["--crop-to", "did you mean heart?"]);
    refused(&["--crop-to", "heart", "--with", "/nowhere"], &["--with", "/nowhere"]);
    let more = ["--crop-to", "heart", "--with", model, "--save-probabilities"];
    refused(&more, &["--save-probabilities"]);
}

#[test]
fn a_folder_has_one_table() {
    let scene = Scene::new();
    for (name, seed) in [("a", 3), ("b", 4)] {
        ct(&scene, &format!("in/{name}_0000.nii.gz"), seed);
    }
    let (input, output) = (scene.path("in"), scene.path("out"));
    let (stdout, stderr) = done(&input, &output, &["--statistics"]);
    let table = fs::read_to_string(output.join("statistics.csv")).unwrap();
    assert_eq!(table.lines().count(), 1 + 2 * 12, "{table}");
    assert!(table.contains("\na,4,liver,") && table.contains("\nb,4,liver,"), "{table}");
    assert!(stdout.contains("statistics.csv"), "{stdout}");
    for line in stderr.lines() {
        assert!(
            line.starts_with("stunet: a: warning: ") || line.starts_with("stunet: b: "),
            "{line}"
        );
    }
}

#[test]
fn around_a_part_of_the_body() {
    let scene = Scene::new();
    let input = ct(&scene, "ct_0000.nii.gz", 3);
    let (whole, part) = (scene.path("whole.nii.gz"), scene.path("part.nii.gz"));
    let json = scene.path("part.json");
    done(&input, &whole, &["--no-checks"]);
    let model = demo_model();
    let more = [
        "--crop-to",
        "liver",
        "kidneys",
        "--with",
        model.to_str().unwrap(),
        "--crop-margin",
        "25mm",
        "--no-checks",
        "--json",
        json.to_str().unwrap(),
    ];
    let (stdout, _) = done(&input, &part, &more);
    assert!(stdout.contains("predicted around liver, kidney_right, kidney_left only"), "{stdout}");
    let report: Value = read(&json);
    let region = &report["cases"][0]["region"];
    let left_out = region["left_out"].as_f64().unwrap();
    assert!(left_out > 0.2, "{region}");
    let ends: [[usize; 2]; 3] = serde_json::from_value(region["voxels"].clone()).unwrap();
    let (whole, part) = (labels(&whole), labels(&part));
    let inside = |at: (usize, usize, usize)| {
        [at.0, at.1, at.2]
            .into_iter()
            .zip(ends)
            .all(|(at, [first, last])| first <= at && at <= last)
    };
    let (mut same, mut voxels) = (0u64, 0u64);
    for (at, label) in part.data.indexed_iter() {
        match inside(at) {
            true => {
                voxels += 1;
                same += u64::from(*label == whole.data[at]);
            }
            false => assert_eq!(*label, 0, "{at:?} lies outside"),
        }
    }
    // Windows lie elsewhere, so that single voxels differ; but the labels are the same.
    assert!(same as f64 > 0.99 * voxels as f64, "{same} of {voxels}");
    for label in [4, 6, 7] {
        let (mut of_whole, mut of_part, mut both) = (0, 0, 0);
        for (at, found) in part.data.indexed_iter().filter(|(at, _)| inside(*at)) {
            let expected = whole.data[at] == label;
            of_whole += u64::from(expected);
            of_part += u64::from(*found == label);
            both += u64::from(expected && *found == label);
        }
        let dice = 2.0 * both as f64 / (of_whole + of_part) as f64;
        assert!(of_whole > 100 && dice > 0.95, "label {label}: Dice {dice:.3}");
    }
    // Whole and part are two outputs.
    let again = predict(&input, &scene.path("part.nii.gz"), &["--no-checks"]);
    assert_one_line(&again, &["region", "--overwrite"]);
}

/// A labelmap of two labels, of which one has a hole and a small part.
fn labelmap(scene: &Scene, name: &str) -> PathBuf {
    let mut data = Array3::<u16>::zeros((8, 9, 10));
    data.slice_mut(ndarray::s![1..6, 1..6, 1..6]).fill(1);
    data[[3, 3, 3]] = 0;
    data[[7, 8, 9]] = 1;
    data[[7, 0, 0]] = 2;
    let geometry = Geometry::axis_aligned([8, 9, 10], [1.0; 3]).unwrap();
    let path = scene.path(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    nifti::write_labelmap(&path, &LabelMap::new(data, geometry).unwrap(), 2).unwrap();
    path
}

#[test]
fn labelmaps_that_exist_are_cleaned_up() {
    let scene = Scene::new();
    let input = labelmap(&scene, "a.nii.gz");
    let output = scene.path("b.nii.gz");
    let words = ["clean", input.to_str().unwrap(), "-o", output.to_str().unwrap()];
    let run = |more: &[&str]| stunet(words.iter().chain(more));
    assert_one_line(&run(&[]), &["--largest-component"]);
    let found = run(&["--largest-component", "--fill-holes", "1", "--labels", "1"]);
    assert!(found.status.success(), "{}", said(&found).1);
    let labels = labels(&output);
    assert_eq!((count(&labels, 1), count(&labels, 2)), (125, 0));
    let onto = ["clean", input.to_str().unwrap(), "-o", input.to_str().unwrap(), "--fill-holes"];
    assert_one_line(&stunet(onto), &["would overwrite the input"]);
    let folder = scene.path("out");
    labelmap(&scene, "in/c.nii");
    let all = [
        "clean",
        scene.path("in").to_str().unwrap(),
        "-o",
        folder.to_str().unwrap(),
        "--min-volume",
        "0.002ml",
    ]
    .map(str::to_owned);
    assert!(stunet(all).status.success());
    assert_eq!(count(&nifti::read_labelmap(&folder.join("c.nii")).unwrap(), 2), 0);
}

#[test]
fn labelmaps_that_exist_are_measured() {
    let scene = Scene::new();
    let input = labelmap(&scene, "labels/a.nii.gz");
    let image = scene.file("a_0000.nii", &NiftiBytes::ramp([10, 9, 8]).bytes());
    let folder = scene.path("out");
    let words = |more: &[&str]| {
        let mut words = vec!["statistics".to_owned(), input.to_str().unwrap().to_owned()];
        words.extend(more.iter().map(|word| (*word).to_owned()));
        stunet(words)
    };
    assert!(words(&["-o", folder.to_str().unwrap(), "--labels", "1"]).status.success());
    let found: Value = read(&folder.join("a_statistics.json"));
    assert_eq!(found["labels"].as_array().unwrap().len(), 1);
    assert_eq!(found["labels"][0]["voxels"], 125);
    assert_eq!(found["labels"][0]["name"], "label_1");
    scene.file(
        "labels/dataset.json",
        br#"{"labels": {"background": 0, "organ": 1, "other": 2}, "channel_names": {"0": "CT"},
            "numTraining": 1, "file_ending": ".nii.gz"}"#,
    );
    let other = words(&["-i", image.to_str().unwrap()]);
    // The ramp's grid is another one.
    assert!(!other.status.success());
    assert!(said(&other).1.contains("another grid"), "{}", said(&other).1);
    let whole = stunet(["statistics", scene.path("labels").to_str().unwrap()]);
    assert!(whole.status.success(), "{}", said(&whole).1);
    let table = fs::read_to_string(scene.path("labels/statistics.csv")).unwrap();
    assert!(table.contains("\na,1,organ,125,"), "{table}");
    let (_, stderr) = said(&whole);
    assert!(stderr.contains("a: warning: at the border of the image"), "{stderr}");
}

#[test]
fn labels_are_mapped_to_those_of_another_dataset() {
    let scene = Scene::new();
    let at = |name: &str| scene.path(name).to_str().unwrap().to_owned();
    // TotalSegmentator's spleen, liver, portal vein and a vertebra.
    let model = LabelSet::totalsegmentator();
    let value =
        |name: &str| model.labels().iter().find(|label| label.name == name).unwrap().values[0];
    let values = ["background", "spleen", "liver", "portal_vein_and_splenic_vein", "vertebrae_L1"];
    let values = values.map(value);
    let map = LabelMap::new(
        Array3::from_shape_fn((5, 4, 3), |(z, _, _)| values[z]),
        Geometry::axis_aligned([5, 4, 3], [2.0, 1.0, 1.0]).unwrap(),
    );
    let map = map.unwrap();
    fs::create_dir(scene.path("predicted")).unwrap();
    for name in ["a.nii", "b.nii"] {
        nifti::write_labelmap(&scene.path(&format!("predicted/{name}")), &map, 104).unwrap();
    }
    let words = ["map-labels", &at("predicted"), "-o", &at("mapped"), "--label-map", "btcv"];
    let (told, _) = said(&stunet(words));
    assert!(told.starts_with("2 labelmap(s): ") && told.contains("\n6\tliver"), "{told}");
    let expected = LabelMapping::published("btcv").unwrap();
    let mut renumbered = map.clone();
    expected.renumber_prediction(&mut renumbered);
    for name in ["a.nii", "b.nii"] {
        let found = labels(&scene.path(&format!("mapped/{name}")));
        assert_eq!((&found.data, &found.geometry), (&renumbered.data, &map.geometry));
    }
    assert_eq!((count(&renumbered, 1), count(&renumbered, 6)), (12, 12), "spleen and liver");
    let dataset = DatasetInfo::load(&scene.path("mapped/dataset.json")).unwrap();
    assert_eq!(dataset.labels, expected.label_set());
    let bytes = fs::read(scene.path("mapped/a.nii")).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.contains("CaretExtension") && text.contains("liver"), "names and colours follow");
    assert_one_line(&stunet(words), &["expected a file that is not there, or --overwrite"]);
    // The other side, a map of one's own, and a single file.
    let own =
        format!("[reference]\nsolid = {} + {}\n[prediction]\nsolid = none\n", values[1], values[2]);
    scene.file("own.labels", own.as_bytes());
    let (one, out) = (at("predicted/a.nii"), at("one.nii.gz"));
    let own =
        ["map-labels", &one, "-o", &out, "--label-map", &at("own.labels"), "--side", "reference"];
    assert!(stunet(own).status.success());
    assert_eq!(count(&labels(&scene.path("one.nii.gz")), 1), 24);
    assert!(!scene.path("dataset.json").exists());
    // Another model's numbers mean something else.
    let model = demo_model();
    let wrong = [&words[..], &["--overwrite", "-m", model.to_str().unwrap()]].concat();
    assert_one_line(
        &stunet(wrong),
        &["--label-map btcv: expected predictions with TotalSegmentator's labels"],
    );
}
