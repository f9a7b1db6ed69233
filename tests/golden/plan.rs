//! Oracle I: fingerprints and plans, field by field against nnU-Net's own JSON.

use serde_json::Value;
use std::path::{Path, PathBuf};
use stunet::data::dataset::RawDataset;
use stunet::data::fingerprint::Fingerprint;
use stunet::data::geometry::Orientation;
use stunet::data::planner::{self, PlanOptions};
use stunet::data::plans::keys::{self, KeyPlace};
use stunet::data::plans::{Plans, Reference, TrainedOrientation};
use stunet_testing::oracle::{self, Golden, Part};
use stunet_testing::say;

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

pub(crate) fn tests(golden: &mut Golden) {
    golden.each("plan::fingerprints_and_plans", &["I_plan"], recorded, fingerprint_and_plans);
    golden.each("plan::plans_of_recorded_fingerprints", &["I_plan"], recorded, plans_alone);
    golden.each("plan::planned_datasets_are_read", &["I_plan"], plans_of_v2, planned_is_read);
    let needs = ["A_model/planfile_plans.pkl.json", "A_model/v2_tiny_model"];
    golden.one("plan::recorded_plans_are_read", &needs, recorded_plans_are_read);
    golden.each("plan::keys_are_known", &["I_plan", "A_model"], all_plans, keys_are_known);
}

/// Every raw dataset with every version recorded for it: `2.8_Dataset501_iso`.
fn recorded(part: &Part) -> Vec<String> {
    let folder = part.path("I_plan");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder.join("raw")).unwrap() {
        let path = entry.unwrap().path();
        for (version, _) in VERSIONS {
            if files(&folder, &path, version).1.exists() {
                found.push(format!("{version}_{}", path.file_name().unwrap().to_str().unwrap()));
            }
        }
    }
    found
}

fn open(part: &Part, name: &str) -> Recorded {
    let (version, dataset) = name.split_once('_').unwrap();
    let (version, reference) = VERSIONS.into_iter().find(|(v, _)| *v == version).unwrap();
    let folder = part.path("I_plan");
    let path = folder.join("raw").join(dataset);
    let (fingerprint, plans) = files(&folder, &path, version);
    Recorded {
        version,
        reference,
        dataset: RawDataset::open(&path).unwrap(),
        fingerprint: oracle::json(&fingerprint),
        plans: oracle::json(&plans),
    }
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
    say!("{what}: {} fields, relative {:.1e}", comparison.fields, comparison.relative);
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
            say!("{what}: {field} differs on purpose: {why}");
        }
    }
    assert_equal(what, &Value::Object(expected), &Value::Object(found));
}

fn fingerprint_and_plans(part: &Part, name: &str) {
    let case = open(part, name);
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

/// The rules alone, on the recorded fingerprint; and what training reads of the plan.
fn plans_alone(part: &Part, name: &str) {
    let case = open(part, name);
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
    // nnU-Net does not say how the axes of its images run; these run RAS.
    let expected = expected.unwrap();
    assert_eq!(expected.orientation, None);
    let orientation = Some(TrainedOrientation::all(Orientation::RAS));
    assert_eq!(full.plans, Plans { orientation, ..expected }, "{what}");
    let said = planned.notes().iter().any(|note| note.contains("STU-Net has 5"));
    assert_eq!(said, full.num_poolings != 5, "{what}: {:?}", planned.notes());
}

/// Files of a folder whose name passes, in order.
fn named(folder: &Path, passes: impl Fn(&str) -> bool) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| passes(name)).collect();
    names.sort();
    names
}

fn plans_of_v2(part: &Part) -> Vec<String> {
    named(&part.path("I_plan"), |name| name.ends_with("_nnUNetPlans.json"))
}

fn planned_is_read(part: &Part, name: &str) {
    let stem = name.strip_suffix("_nnUNetPlans.json").unwrap();
    let dataset = oracle::json(&part.path(&format!("I_plan/{stem}_dataset.json")));
    let json = oracle::json(&part.path(&format!("I_plan/{name}")));
    let plans = Plans::from_v2_json(&json, &dataset, "3d_fullres").unwrap();
    let expected =
        if name.starts_with("2.2") { Reference::NnUNetV22 } else { Reference::NnUNetV28 };
    assert_eq!(plans.reference, expected);
    assert_eq!(plans.strides.len(), 5);
    let flat = Plans::from_v2_json(&json, &dataset, "2d");
    assert!(flat.is_err(), "2-D configurations are refused");
}

/// The published plans, and those of a model folder of v2.
fn recorded_plans_are_read(part: &Part) {
    let published = named(&part.path("A_model"), is_published);
    assert!(!published.is_empty());
    let json = |name: &str| oracle::json(&part.path(&format!("A_model/{name}")));
    for name in published {
        let plans = Plans::from_v1_json(&json(&name)).unwrap();
        // Of the axes of its images the file says nothing: whoever opens the model adds it.
        let expected = Plans { orientation: None, ..Plans::totalsegmentator() };
        assert_eq!(plans, expected, "{name}");
    }
    let message = Plans::from_v1_json(&json("planfile_plans.pkl.json")).unwrap_err().to_string();
    assert!(message.contains("plans_per_stage"), "{message}");
    let (plans, dataset) = (json("v2_tiny_model/plans.json"), json("v2_tiny_model/dataset.json"));
    let tiny = Plans::from_v2_json(&plans, &dataset, "3d_fullres").unwrap();
    assert_eq!((tiny.reference, tiny.patch_size), (Reference::NnUNetV22, [32; 3]));
    assert_eq!(tiny.strides, Plans::totalsegmentator().strides);
}

fn is_published(name: &str) -> bool {
    name.starts_with("planfile_") && name.ends_with(".model.pkl.json")
}

/// Every recorded plan of both versions: `I_plan/v1_Task501_iso_plans.json`.
fn all_plans(part: &Part) -> Vec<String> {
    let is_v1 = |name: &str| name.starts_with("v1_") && name.ends_with("_plans.json");
    let planned =
        named(&part.path("I_plan"), |name| is_v1(name) || name.ends_with("_nnUNetPlans.json"));
    let published = named(&part.path("A_model"), |name| name.ends_with(".model.pkl.json"));
    let in_folder = |folder: &'static str| move |name: String| format!("{folder}/{name}");
    let planned = planned.into_iter().map(in_folder("I_plan"));
    planned.chain(published.into_iter().map(in_folder("A_model"))).collect()
}

/// Every key is in our table of nnU-Net's keys.
fn keys_are_known(part: &Part, path: &str) {
    let check = |place: KeyPlace, object: &Value| {
        for name in object.as_object().unwrap().keys() {
            assert!(keys::find(place, name).is_some(), "{place:?}: {name}");
        }
    };
    let file = oracle::json(&part.path(path));
    if path.ends_with("_nnUNetPlans.json") {
        check(KeyPlace::Plans, &file);
        for configuration in file["configurations"].as_object().unwrap().values() {
            check(KeyPlace::Configuration, configuration);
            for what in ["data", "seg", "probabilities"] {
                let arguments = &configuration[format!("resampling_fn_{what}_kwargs")];
                if arguments.is_object() {
                    check(KeyPlace::Resampling, arguments);
                }
            }
        }
    } else {
        let plans = file.get("plans").unwrap_or(&file);
        if plans != &file {
            check(KeyPlace::V1Model, &file);
        }
        check(KeyPlace::V1Plans, plans);
        for stage in plans["plans_per_stage"].as_object().unwrap().values() {
            check(KeyPlace::V1Stage, stage);
        }
    }
}
