//! `stunet evaluate`: what it writes and prints, and how it refuses.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod common;

use std::path::Path;
use std::process::Output;

use common::{Scene, said, stunet};
use serde_json::{Value, json};
use stunet_testing::nifti_bytes::NiftiBytes;

/// Writes a labelmap of 6×5×4 voxels whose first `count` voxels are `label`.
fn labels(scene: &Scene, name: &str, label: f32, count: usize) {
    let mut file = NiftiBytes::ramp([6, 5, 4]);
    file.values.fill(0.0);
    file.values[..count].fill(label);
    scene.file(name, &file.bytes());
}

/// References and predictions of two cases, and what their labels mean.
fn scene() -> Scene {
    let scene = Scene::new();
    labels(&scene, "ref/a.nii", 1.0, 10);
    labels(&scene, "pred/a.nii", 1.0, 10);
    labels(&scene, "ref/b.nii", 1.0, 30);
    labels(&scene, "pred/b.nii", 1.0, 10);
    let dataset = json!({
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "liver": 1, "spleen": 2},
        "numTraining": 2,
        "file_ending": ".nii"
    });
    scene.file("dataset.json", dataset.to_string().as_bytes());
    scene
}

fn run(scene: &Scene, more: &[&str]) -> Output {
    let mut words = vec!["evaluate".into(), scene.path("ref"), scene.path("pred")];
    words.extend(more.iter().map(|word| match word.strip_prefix('@') {
        Some(name) => scene.path(name),
        None => word.into(),
    }));
    stunet(words)
}

/// Expects success and returns what was printed.
fn good(scene: &Scene, more: &[&str]) -> String {
    let output = run(scene, more);
    let (stdout, stderr) = said(&output);
    assert!(output.status.success() && stderr.is_empty(), "{stderr}");
    stdout
}

/// Expects one line with all of `words`, and nothing written.
fn refused(scene: &Scene, more: &[&str], words: &[&str]) {
    let before = scene.contents();
    let output = run(scene, more);
    let (_, stderr) = said(&output);
    assert!(matches!(output.status.code(), Some(1 | 2)), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    for word in words {
        assert!(stderr.contains(word), "no {word:?} in: {stderr}");
    }
    assert_eq!(scene.contents(), before, "something was written");
}

fn read(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(serde_json::from_str::<Value>(&text).is_err() == text.contains("NaN"));
    serde_json::from_str(&text.replace("NaN", "null")).unwrap()
}

/// What is accepted only because that was asked for is told.
#[test]
fn sheared_headers() {
    let scene = scene();
    let mut file = NiftiBytes::ramp([6, 5, 4]);
    file.values.fill(0.0);
    file.affine[0][1] += 0.1;
    scene.file("pred/b.nii", &file.bytes());
    refused(&scene, &[], &["b.nii", "affine is sheared", "--allow sheared"]);
    let allowed = ["--allow", "sheared", "--geometry-tolerance", "1mm"];
    let (stdout, stderr) = said(&run(&scene, &allowed));
    assert!(stdout.trim_end().ends_with("summary.json"), "{stdout}{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains("the axes of b.nii are not at right angles"), "{stderr}");
    assert!(said(&run(&scene, &[&allowed[..], &["-q"]].concat())).1.is_empty());
}

#[test]
fn a_summary_beside_the_predictions() {
    let scene = scene();
    let printed = good(&scene, &[]);
    let summary = read(&scene.path("pred/summary.json"));
    // 2 · 10 / (10 + 30) for the second case.
    assert_eq!(summary["mean"]["1"]["Dice"], 0.75);
    assert_eq!(summary["mean"]["2"]["Dice"], Value::Null);
    assert_eq!(summary["foreground_mean"]["Dice"], Value::Null);
    let case = &summary["metric_per_case"][1];
    assert_eq!(case["reference_file"], scene.path("ref/b.nii").to_str().unwrap());
    let counts = ["TP", "FP", "FN", "TN", "n_pred", "n_ref"].map(|key| &case["metrics"]["1"][key]);
    assert_eq!(counts, [10, 0, 20, 90, 10, 30]);
    assert!(printed.contains("1      0.7500      2  liver"), "{printed}");
    assert!(printed.contains("2           -      0  spleen"), "{printed}");
    assert!(printed.trim_end().ends_with("summary.json"), "{printed}");
}

#[test]
fn labels_regions_and_an_ignore_label() {
    let scene = scene();
    labels(&scene, "ref/b.nii", 2.0, 30);
    let words = ["-l", "1", "1,2", "1", "-il", "3", "-o", "@out.json", "-np", "1", "-q"];
    assert_eq!(good(&scene, &words), "");
    let summary = read(&scene.path("out.json"));
    assert_eq!(summary["mean"]["(1, 2)"]["Dice"], 0.75);
    assert_eq!(summary["mean"]["1"]["Dice"], 0.5);
    assert_eq!(summary["foreground_mean"]["Dice"], 0.625);
    good(&scene, &["-l", "1", "1,2", "--ignore-label", "2", "-o", "@out.json"]);
    let summary = read(&scene.path("out.json"));
    let case = &summary["metric_per_case"][1]["metrics"]["1"];
    assert_eq!((&case["FP"], &case["TN"]), (&json!(0), &json!(90)));
    assert!(!scene.path("pred/summary.json").exists());
}

#[test]
fn the_layout_of_version_1() {
    let scene = scene();
    good(&scene, &["-djfile", "@dataset.json", "--layout", "v1"]);
    let summary = read(&scene.path("pred/summary.json"));
    let mean = &summary["results"]["mean"]["1"];
    assert_eq!((&mean["Dice"], &mean["Recall"]), (&json!(0.75), &json!((1.0 + 1.0 / 3.0) / 2.0)));
    assert_eq!(mean.as_object().unwrap().len(), 13);
    assert_eq!(summary["results"]["all"][0]["test"], scene.path("pred/a.nii").to_str().unwrap());
    let time = summary["timestamp"].as_str().unwrap();
    assert!(time.len() == 26 && time.starts_with("20"), "{time}");
}

#[test]
fn two_files() {
    let scene = scene();
    let words = ["evaluate".into(), scene.path("ref/b.nii"), scene.path("pred/b.nii")];
    let more = ["-l".into(), "1".into()];
    let output = stunet(words.iter().chain(&more));
    assert!(said(&output).0.contains("1      0.5000"), "{}", said(&output).0);
    assert!(output.status.success() && !scene.path("summary.json").exists());
}

#[test]
fn missing_predictions_are_an_error_unless_chill() {
    let scene = scene();
    labels(&scene, "ref/c.nii", 1.0, 5);
    labels(&scene, "ref/d.nii", 1.0, 5);
    refused(&scene, &[], &["predictions", "none for c and 1 more", "pred"]);
    good(&scene, &["--chill"]);
    let summary = read(&scene.path("pred/summary.json"));
    assert_eq!(summary["metric_per_case"].as_array().unwrap().len(), 2);
    labels(&scene, "pred/e.nii", 1.0, 5);
    refused(&scene, &["--chill"], &["references", "none for e", "ref"]);
}

#[test]
fn bad_input() {
    let scene = scene();
    refused(&scene, &["-l", "liver"], &["--labels", "expected a label such as 3", "liver"]);
    refused(&scene, &["-djfile", "@absent.json"], &["no such file", "absent.json"]);
    refused(&scene, &["-o", "@out.txt"], &["ending in .json", "out.txt"]);
    refused(&scene, &["-o", "@none/out.json"], &["cannot write", "out.json"]);
    refused(&scene, &["-np", "0"], &["at least 1"]);
    let plans = json!({"label_manager": "MyLabels"});
    scene.file("plans.json", plans.to_string().as_bytes());
    refused(&scene, &["-pfile", "@plans.json"], &["LabelManager", "MyLabels", "plans.json"]);
    scene.file("plans.json", b"{\"plans_name\": \"nnUNetPlans\"}");
    good(&scene, &["-pfile", "@plans.json", "-q"]);
    std::fs::remove_file(scene.path("pred/summary.json")).unwrap();

    let mut other = NiftiBytes::ramp([6, 5, 3]);
    other.values.fill(0.0);
    scene.file("pred/b.nii", &other.bytes());
    refused(&scene, &[], &["shape", "expected [4, 5, 6], found [3, 5, 6]", "pred/b.nii"]);
    let mut fraction = NiftiBytes::ramp([6, 5, 4]);
    fraction.values.fill(0.5);
    scene.file("pred/b.nii", &fraction.bytes());
    refused(&scene, &[], &["labels must be whole numbers", "0.5", "pred/b.nii"]);
    scene.file("pred/b.nii", b"not a volume");
    refused(&scene, &[], &["pred/b.nii"]);
    std::fs::remove_file(scene.path("dataset.json")).unwrap();
    refused(&scene, &[], &["--labels or --dataset-json", "pred"]);
    std::fs::remove_dir_all(scene.path("pred")).unwrap();
    refused(&scene, &["-l", "1"], &["pred"]);
}

#[test]
fn a_report_with_surfaces_and_lesions() {
    let scene = scene();
    let printed = good(&scene, &["--report", "@scores", "--tolerance", "0.5", "3"]);
    assert!(printed.contains("HD95 (mm)") && printed.contains("NSD at 0.5 mm"), "{printed}");
    assert!(printed.trim_end().ends_with("report.html"), "{printed}");
    let text = std::fs::read_to_string(scene.path("scores/metrics.json")).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    let case = |case: usize, class: &str| json["cases"][case]["classes"][class].clone();
    assert_eq!((&case(0, "1")["hd_mm"], &case(0, "1")["nsd_3mm"]), (&json!(0.0), &json!(1.0)));
    assert!(case(1, "1")["hd_mm"].as_f64().unwrap() > 0.0);
    assert_eq!(
        case(1, "1")["lesions"],
        json!({"reference": 1, "prediction": 1, "detected": 1, "confirmed": 1})
    );
    assert_eq!(
        (&case(1, "2")["hd95_mm"], &case(1, "2")["lesion_f1"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(json["means"]["1"]["dice"]["mean"], 0.75);
    let interval = json["means"]["1"]["dice"]["interval"].as_array().unwrap();
    assert_eq!(interval, &[json!(0.5), json!(1.0)]);
    assert_eq!(
        (json["classes"][0]["name"].as_str(), json["means"]["2"]["dice"]["cases"].as_u64()),
        (Some("liver"), Some(0))
    );
    let cases = std::fs::read_to_string(scene.path("scores/cases.csv")).unwrap();
    assert_eq!(cases.lines().count(), 1 + 2 * 2, "{cases}");
    assert!(cases.lines().nth(3).unwrap().starts_with("b,1,liver,10,0,20,90,"), "{cases}");
    let means = std::fs::read_to_string(scene.path("scores/means.csv")).unwrap();
    assert!(means.contains("\n1,liver,dice,2,0.75,0.5,1,"), "{means}");
    let page = std::fs::read_to_string(scene.path("scores/report.html")).unwrap();
    assert!(
        page.ends_with("</html>\n") && page.contains("<svg") && page.contains("liver"),
        "{page}"
    );
    assert!(!page.contains("://") && !page.contains("NaN"), "{page}");
    // The same seed gives the same files.
    good(&scene, &["--report", "@again", "--tolerance", "0.5", "3", "-np", "1", "-q"]);
    for name in ["cases.csv", "means.csv", "metrics.json", "report.html"] {
        let read = |folder: &str| std::fs::read(scene.path(&format!("{folder}/{name}"))).unwrap();
        assert!(read("scores") == read("again"), "{name}");
    }
}

#[test]
fn two_models_compared() {
    let scene = scene();
    for (name, count) in [("a", 10), ("b", 30)] {
        labels(&scene, &format!("better/{name}.nii"), 1.0, count);
    }
    let printed = good(&scene, &["--compare", "@better", "--report", "@scores"]);
    assert!(printed.contains("2 cases of both:"), "{printed}");
    assert!(printed.contains("-0.2500   -0.5000 to 0.0000"), "{printed}");
    let text = std::fs::read_to_string(scene.path("scores/metrics.json")).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    let dice = &json["comparison"]["differences"]["dice"]["1"];
    assert_eq!(
        (&dice["mean"], &dice["better"], &dice["p_value"]),
        (&json!(-0.25), &json!([0, 1]), &json!(1.0))
    );
    let volume = &json["comparison"]["differences"]["volume_error_ml"]["1"];
    assert!(
        volume["mean"].as_f64().unwrap() > 0.0 && volume["better"] == json!([0, 1]),
        "{volume}"
    );
    refused(&scene, &["--compare", "@none"], &["--compare", "none"]);
    std::fs::remove_file(scene.path("better/a.nii")).unwrap();
    refused(&scene, &["--compare", "@better"], &["--compare", "none for a"]);
    let printed = good(&scene, &["--compare", "@better", "--chill"]);
    assert!(printed.contains("1 cases of both:"), "{printed}");
}

#[test]
fn labels_of_two_datasets() {
    let scene = scene();
    // The reference has BTCV's liver, the predictions have TotalSegmentator's; one of them a kidney.
    for (name, reference, prediction) in [("a", 6.0, 40.0), ("b", 2.0, 39.0)] {
        labels(&scene, &format!("ref/{name}.nii"), reference, 30);
        labels(&scene, &format!("pred/{name}.nii"), prediction, 10);
    }
    let printed = good(&scene, &["--label-map", "BTCV"]);
    assert!(printed.contains("6      0.5000      1  liver"), "{printed}");
    assert!(printed.contains("2      0.5000      1  right kidney"), "{printed}");
    let summary = read(&scene.path("pred/summary.json"));
    assert_eq!(
        (&summary["mean"]["6"]["Dice"], &summary["mean"]["1"]["Dice"]),
        (&json!(0.5), &Value::Null)
    );
    let map = "[reference]\nbelly = 2 + 6\n[prediction: totalsegmentator]\nbelly = liver + 39\n";
    scene.file("ours.labels", map.as_bytes());
    let printed = good(&scene, &["--label-map", "@ours.labels", "-o", "@out.json"]);
    assert!(printed.contains("1      0.5000      2  belly"), "{printed}");
    assert!(good(&scene, &["--label-map", "word"]).starts_with("note: STU-Net's own script"));
    refused(&scene, &["--label-map", "btvc"], &["--label-map", "btcv, btcv_cervix", "btvc"]);
    refused(&scene, &["--label-map", "@none.labels"], &["--label-map", "none.labels"]);
    scene.file("ours.labels", map.replace("liver", "lever").as_bytes());
    refused(&scene, &["--label-map", "@ours.labels"], &["line 4", "\"lever\"", "ours.labels"]);
    refused(&scene, &["--label-map", "btcv", "-l", "1"], &["--label-map", "--labels"]);
}

#[test]
fn bad_options_of_a_report() {
    let scene = scene();
    refused(&scene, &["--report", "@dataset.json"], &["--report", "expected a folder"]);
    refused(&scene, &["--tolerance", "-1"], &["at least 0"]);
    refused(&scene, &["--connectivity", "8"], &["6, 18 or 26"]);
    refused(&scene, &["--lesion-overlap", "1.5"], &["from 0 to 1"]);
    refused(&scene, &["--bootstrap", "0"], &["1..=1000000"]);
    std::fs::create_dir(scene.path("full")).unwrap();
    std::fs::create_dir(scene.path("full/report.html")).unwrap();
    let output = run(&scene, &["--report", "@full"]);
    assert!(!output.status.success() && said(&output).1.contains("report.html"), "{output:?}");
}
