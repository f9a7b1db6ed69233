//! Oracle I: fingerprints and plans, field by field against nnU-Net's own JSON.

use serde_json::Value;
use std::path::{Path, PathBuf};
use stunet::data::dataset::RawDataset;
use stunet::data::fingerprint::Fingerprint;
use stunet::data::planner::{self, PlanOptions};
use stunet::data::plans::{Plans, Reference};
use stunet_testing::oracle;

/// Largest relative difference of two numbers. All sums are in the reference's order and precision,
/// so that only the last digit of the decimal spelling may differ.
const BOUND: f64 = 1e-12;

/// Fields that differ on purpose: version, path, why.
const INTENDED: [(&str, &str, &str); 3] = [
    ("v1", "list_of_npz_files", "names without the folder of a cropped copy, which is not made"),
    ("v1", "preprocessed_data_folder", "the dataset's name, not a folder of one machine"),
    ("v1", "dataset_properties", "recorded in a file of its own, compared there"),
];

/// The recorded versions, and what their files begin with.
const VERSIONS: [(&str, Reference); 3] =
    [("v1", Reference::NnUNetV1), ("2.2", Reference::NnUNetV22), ("2.8", Reference::NnUNetV28)];

/// One dataset under one version: the recorded fingerprint and plans.
struct Recorded {
    version: &'static str,
    reference: Reference,
    dataset: RawDataset,
    fingerprint: Value,
    plans: Value,
}

/// Every raw dataset with every version recorded for it.
fn recorded() -> Vec<Recorded> {
    let Some(folder) = oracle::folder("I_plan") else { return Vec::new() };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder.join("raw")).unwrap() {
        let path = entry.unwrap().path();
        for (version, reference) in VERSIONS {
            let (fingerprint, plans) = files(&folder, &path, version);
            if plans.exists() {
                found.push(Recorded {
                    version,
                    reference,
                    dataset: RawDataset::open(&path).unwrap(),
                    fingerprint: oracle::json(&fingerprint),
                    plans: oracle::json(&plans),
                });
            }
        }
    }
    assert!(!found.is_empty(), "no plans found in {}", folder.display());
    found
}

fn files(folder: &Path, dataset: &Path, version: &str) -> (PathBuf, PathBuf) {
    let name = dataset.file_name().unwrap().to_str().unwrap();
    let task = name.replacen("Dataset", "Task", 1);
    let file = |name: &str, end: &str| folder.join(format!("{version}_{name}_{end}.json"));
    match version {
        "v1" => (file(&task, "dataset_properties"), file(&task, "plans")),
        _ => (file(name, "dataset_fingerprint"), file(name, "nnUNetPlans")),
    }
}

/// Everything in which two JSON values differ, and the largest relative difference of numbers.
#[derive(Default)]
struct Comparison {
    fields: usize,
    relative: f64,
    differences: Vec<String>,
}

impl Comparison {
    fn compare(&mut self, path: &str, expected: &Value, found: &Value) {
        match (expected, found) {
            (Value::Object(a), Value::Object(b)) => {
                for key in a.keys().chain(b.keys().filter(|key| !a.contains_key(*key))) {
                    let path = format!("{path}.{key}");
                    match (a.get(key), b.get(key)) {
                        (Some(a), Some(b)) => self.compare(path.trim_start_matches('.'), a, b),
                        (a, _) => {
                            let what = if a.is_some() { "missing" } else { "too many" };
                            self.differences.push(format!("{path}: {what}"));
                        }
                    }
                }
            }
            (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
                for (i, (a, b)) in a.iter().zip(b).enumerate() {
                    self.compare(&format!("{path}[{i}]"), a, b);
                }
            }
            (Value::Number(a), Value::Number(b)) => {
                let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
                let relative = (a - b).abs() / a.abs().max(b.abs()).max(f64::MIN_POSITIVE);
                self.fields += 1;
                self.relative = self.relative.max(relative);
                if relative > BOUND {
                    self.differences.push(format!("{path}: expected {a}, found {b}"));
                }
            }
            _ => {
                self.fields += 1;
                if expected != found {
                    self.differences.push(format!("{path}: expected {expected}, found {found}"));
                }
            }
        }
    }
}

fn assert_equal(what: &str, expected: &Value, found: &Value) {
    let mut comparison = Comparison::default();
    comparison.compare("", expected, found);
    println!("{what}: {} fields, relative {:.1e}", comparison.fields, comparison.relative);
    assert!(comparison.fields > 10, "{what}: nothing was compared");
    assert!(comparison.differences.is_empty(), "{what}: {:#?}", comparison.differences);
}

/// `expected` and `found` without the fields that differ on purpose.
fn assert_equal_but_intended(case: &Recorded, what: &str, expected: &Value, found: &Value) {
    let [mut expected, mut found] = [expected, found].map(|json| json.as_object().unwrap().clone());
    for (version, field, why) in INTENDED {
        if version == case.version {
            let removed = (expected.remove(field), found.remove(field));
            assert!(removed.0.is_some() && removed.1.is_some(), "{field} is no field any more");
            println!("{what}: {field} differs on purpose: {why}");
        }
    }
    assert_equal(what, &Value::Object(expected), &Value::Object(found));
}

#[test]
fn fingerprints_and_plans() {
    for case in recorded() {
        let what = format!("{} {}", case.version, case.dataset.name());
        let measured = Fingerprint::measure(&case.dataset, case.reference, &|_| {}).unwrap();
        let json = match case.reference {
            Reference::NnUNetV1 => measured.to_v1_json(case.dataset.info()),
            _ => measured.to_v2_json(),
        };
        assert_equal(&format!("{what} fingerprint"), &case.fingerprint, &json);
        let options = PlanOptions::new(case.reference);
        let planned = planner::plan(&case.dataset, &measured, &options).unwrap();
        assert_equal_but_intended(&case, &format!("{what} plans"), &case.plans, planned.json());
        if case.reference == Reference::NnUNetV1 {
            // What the table leaves out of the comparison above.
            let embedded = &planned.json()["dataset_properties"];
            assert_equal(&format!("{what} dataset_properties"), &case.fingerprint, embedded);
            let files = |json: &Value| {
                let names = json["list_of_npz_files"].as_array().unwrap().iter();
                let last = |v: &Value| v.as_str().unwrap().rsplit('/').next().unwrap().to_owned();
                names.map(last).collect::<Vec<_>>()
            };
            assert_eq!(files(&case.plans), files(planned.json()));
        }
    }
}

/// The rules alone, on the recorded fingerprint; and what training reads of the plan.
#[test]
fn plans_of_recorded_fingerprints() {
    for case in recorded() {
        let what = format!("{} {} recorded", case.version, case.dataset.name());
        let fingerprint = match case.reference {
            Reference::NnUNetV1 => Fingerprint::from_v1_json(&case.fingerprint),
            _ => Fingerprint::from_v2_json(&case.fingerprint),
        };
        let options = PlanOptions::new(case.reference);
        let planned = planner::plan(&case.dataset, &fingerprint.unwrap(), &options).unwrap();
        assert_equal_but_intended(&case, &what, &case.plans, planned.json());
        let summaries = planned.summaries().unwrap();
        let full = summaries.last().unwrap();
        let expected = match case.reference {
            Reference::NnUNetV1 => {
                let mut plans = case.plans.clone();
                plans["dataset_properties"] = case.fingerprint.clone();
                Plans::from_v1_json(&plans)
            }
            _ => Plans::from_v2_json(&case.plans, case.dataset.json(), "3d_fullres"),
        };
        assert_eq!(full.plans, expected.unwrap(), "{what}");
        let said = planned.notes().iter().any(|note| note.contains("STU-Net has 5"));
        assert_eq!(said, full.num_poolings != 5, "{what}: {:?}", planned.notes());
    }
}
