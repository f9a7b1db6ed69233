//! Folders of cases: bad ones among them, killed and started again, divided by a scheduler.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{fs, thread};

use common::{STUNET, Scene, model_folder, predict_arguments, said, stunet};
use stunet_testing::nifti_bytes::NiftiBytes;
use stunet_testing::prng;

/// `count` cases that differ, the one at `corrupt` cut off in the middle.
fn cases(scene: &Scene, count: usize, corrupt: usize) -> PathBuf {
    for i in 0..count {
        let size = [20 + i % 7, 18 + i % 5, 16 + i % 3].map(|n| n as i16);
        let mut bytes = NiftiBytes::ramp(size).bytes();
        if i == corrupt {
            bytes.truncate(bytes.len() / 2);
        }
        scene.file(&format!("in/c{i:03}_0000.nii"), &bytes);
    }
    scene.path("in")
}

fn arguments(input: &Path, output: &Path, more: &[&str]) -> Vec<String> {
    let mut arguments = predict_arguments(input, output, &model_folder(1));
    arguments.extend(more.iter().map(|word| (*word).to_owned()));
    arguments
}

/// Every file of a folder, with its bytes.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .map(|path| {
            (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(path).unwrap())
        })
        .collect()
}

/// Predicts undisturbed and with `kills` kills at random moments; both end alike.
fn killed_and_started_again(count: usize, kills: usize) {
    let scene = Scene::new();
    let corrupt = count / 3;
    let input = cases(&scene, count, corrupt);
    let (calm, wild) = (scene.path("calm"), scene.path("wild"));
    let bad = format!("c{corrupt:03}");

    let clock = std::time::Instant::now();
    let report = scene.path("calm.json");
    let undisturbed = stunet(arguments(&input, &calm, &["--json", report.to_str().unwrap()]));
    let took = clock.elapsed();
    check_end(&undisturbed, &bad);
    let expected = files(&calm);
    assert_eq!(expected.len(), count - 1);
    check_report(&report, count - 1, 0);

    let mut caught = 0;
    for moment in prng::uniform(11, 0, kills) {
        let moment = f64::from(moment.abs().fract());
        let mut child = Command::new(STUNET)
            .args(arguments(&input, &wild, &["--quiet"]))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        thread::sleep(Duration::from_secs_f64(took.as_secs_f64() * (0.1 + 0.3 * moment)));
        child.kill().unwrap();
        caught += usize::from(child.wait().unwrap().code().is_none());
        if wild.exists() {
            for (name, bytes) in files(&wild) {
                let whole = expected.get(&name).is_some_and(|expected| *expected == bytes);
                assert!(whole || name.starts_with(".stunet-"), "{name} is there, but not whole");
            }
        }
    }
    assert!(caught > 0, "no run was caught alive");
    let report = scene.path("wild.json");
    let last = stunet(arguments(&input, &wild, &["--json", report.to_str().unwrap()]));
    check_end(&last, &bad);
    assert_eq!(files(&wild), expected, "the same files, and nothing else");
}

/// All but the bad case are there; the bad one is told, once, in one line.
fn check_end(output: &std::process::Output, bad: &str) {
    let (_, stderr) = said(output);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let lines: Vec<_> = stderr.lines().collect();
    assert_eq!(lines.len(), 1, "{stderr}");
    assert!(lines[0].contains(bad), "{stderr}");
}

fn check_report(path: &Path, predicted: usize, skipped: usize) {
    let report: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let summary = &report["summary"];
    assert_eq!(summary["predicted"], predicted);
    assert_eq!(summary["skipped"], skipped);
    assert_eq!(summary["failed"], 1);
    assert!(summary["seconds"]["windows"].as_f64().unwrap() > 0.0);
    assert!(summary["voxels_per_sec"].as_f64().unwrap() > 0.0);
    assert!(report["cases"].as_array().unwrap().iter().all(|case| {
        case["status"] == "failed" || case["peak_memory_bytes"].as_u64().unwrap() > 1_000_000
    }));
}

#[test]
fn two_hundred_cases_killed_five_times() {
    killed_and_started_again(200, 5);
}

#[test]
fn a_scheduler_divides_a_folder() {
    let scene = Scene::new();
    let input = cases(&scene, 5, 99);
    let run = |variables: &[(&str, &str)]| {
        let output = Command::new(STUNET)
            .args(arguments(&input, &scene.path("out"), &["--quiet"]))
            .envs(variables.iter().copied())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", said(&output).1);
        files(&scene.path("out")).into_keys().collect::<Vec<_>>()
    };
    let of = |names: &[&str]| names.iter().map(|n| format!("{n}.nii.gz")).collect::<Vec<_>>();
    let slurm = [
        ("SLURM_ARRAY_TASK_ID", "2"),
        ("SLURM_ARRAY_TASK_COUNT", "2"),
        ("SLURM_ARRAY_TASK_MIN", "1"),
    ];
    assert_eq!(run(&slurm), of(&["c001", "c003"]));
    let indexed = [("JOB_COMPLETION_INDEX", "0"), ("JOB_COMPLETIONS", "3")];
    assert_eq!(run(&indexed), of(&["c000", "c001", "c003"]));
}

#[test]
fn reports_of_parts_become_one() {
    let scene = Scene::new();
    let input = cases(&scene, 5, 99);
    let at = |name: &str| scene.path(name).to_str().unwrap().to_owned();
    for id in ["0", "1", "2"] {
        let report = at(&format!("part_{id}.json"));
        let more = ["--num-parts", "3", "--part-id", id, "--json", &report, "--quiet"];
        assert!(stunet(arguments(&input, &scene.path("out"), &more)).status.success());
    }
    let merge = |parts: &[&str]| {
        let mut words = vec!["report".to_owned(), "merge".to_owned()];
        words.extend(parts.iter().map(|part| at(part)));
        words.extend(["-o".to_owned(), at("all.json")]);
        stunet(words)
    };
    let done = merge(&["part_2.json", "part_0.json", "part_1.json"]);
    let (stdout, stderr) = said(&done);
    assert!(done.status.success() && stderr.is_empty(), "{stderr}");
    assert!(
        stdout.starts_with("5 cases of 3 reports: 5 predicted, 0 predicted before"),
        "{stdout}"
    );
    let read = || -> serde_json::Value {
        serde_json::from_str(&fs::read_to_string(scene.path("all.json")).unwrap()).unwrap()
    };
    let all = read();
    let names: Vec<_> = all["cases"].as_array().unwrap().iter().map(|case| &case["name"]).collect();
    assert_eq!(names, ["c000", "c001", "c002", "c003", "c004"]);
    assert_eq!(all["summary"]["predicted"], 5);
    // It is a report like any other, and can be merged itself.
    let again = merge(&["part_0.json"]);
    let (_, stderr) = said(&again);
    assert_eq!(again.status.code(), Some(1));
    let expected = "stunet: 2 of 3 parts have no report: --part-id 1, 2\n\
                    stunet: 3 of 5 cases are in no report\n";
    assert_eq!(stderr, expected);
    assert_eq!(read()["merged"]["missing_parts"], serde_json::json!([1, 2]));
    let twice = merge(&["part_0.json", "part_1.json", "part_2.json", "part_1.json"]);
    assert!(said(&twice).1.contains("c001 is in two reports: predicted in"), "{:?}", said(&twice));
    scene.file("other.json", b"{}");
    common::assert_one_line(&merge(&["other.json"]), &["found neither", "other.json"]);
    common::assert_one_line(&merge(&["all.json"]), &["would overwrite the input"]);
}

#[test]
fn memory_that_is_bounded_is_kept_or_refused_in_one_line() {
    let scene = Scene::new();
    let input = scene.volume("ct.nii");
    let run = |most: &str, name: &str| {
        stunet(arguments(&input, &scene.path(name), &["--max-memory", most]))
    };
    let plenty = run("3G", "plenty.nii.gz");
    assert!(plenty.status.success(), "{}", said(&plenty).1);
    let refused = run("4M", "refused.nii.gz");
    let (_, stderr) = said(&refused);
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr.lines().count() == 1 && stderr.contains("found 4.0 MB"), "{stderr}");
    assert!(stderr.contains("--max-memory: expected at least "), "{stderr}");
    assert!(stderr.contains(" that the program holds and "), "{stderr}");
    assert!(!scene.path("refused.nii.gz").exists());
}

#[test]
fn sums_go_to_the_device_where_they_fit() {
    let scene = Scene::new();
    let input = scene.volume("ct.nii");
    let run = |room: &str, name: &str| {
        let done = stunet(arguments(&input, &scene.path(name), &["--device-memory", room]));
        let (stdout, stderr) = said(&done);
        assert!(done.status.success(), "{stderr}");
        (stdout, stunet::data::nifti::read_labelmap(&scene.path(name)).unwrap())
    };
    let (there, found) = run("1G", "there.nii.gz");
    assert!(there.contains("of device memory for accumulators"), "{there}");
    let (here, expected) = run("0.000001G", "here.nii.gz");
    assert!(here.contains("accumulators on the host"), "{here}");
    assert_eq!(found.geometry, expected.geometry);
    assert_eq!(found.data.dim(), expected.data.dim());
    let differ = found.data.iter().zip(&expected.data).filter(|(a, b)| a != b).count();
    // Equal but for voxels whose classes are equal to the last digits.
    assert!(differ * 1000 <= found.data.len(), "{differ}");
}

#[test]
fn confidence_lies_in_a_folder_of_its_own() {
    let scene = Scene::new();
    let input = scene.volume("ct.nii");
    let report = scene.path("report.json");
    let output = scene.path("out");
    for measure in ["margin", "entropy"] {
        let more = ["--confidence", measure, "--overwrite", "--json", report.to_str().unwrap()];
        let done = stunet(arguments(&input, &output, &more));
        assert!(done.status.success(), "{}", said(&done).1);
        let path = output.join("confidence/ct.nii.gz");
        let volume = stunet::data::nifti::read_image(&[&path]).unwrap();
        let labels = stunet::data::nifti::read_labelmap(&output.join("ct.nii.gz")).unwrap();
        assert_eq!(volume.geometry.shape(), labels.geometry.shape());
        assert!(volume.data.iter().all(|v| (0.0..=255.0).contains(v)));
        let report: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(&report).unwrap()).unwrap();
        let of_labels = report["cases"][0]["labels"].as_array().unwrap();
        let told = of_labels.iter().filter(|label| label["voxels"].as_u64() > Some(0));
        for label in told {
            let (mean, mut sum, mut count) =
                (label["confidence"]["mean"].as_f64().unwrap(), 0.0, 0.0);
            for (value, sure) in labels.data.iter().zip(&volume.data) {
                if u64::from(*value) == label["value"].as_u64().unwrap() {
                    sum += f64::from(*sure) / 255.0;
                    count += 1.0;
                }
            }
            assert!((mean - sum / count).abs() < 1e-9, "{measure}: {mean}");
        }
    }
}
