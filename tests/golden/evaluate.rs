//! Evaluation: every recorded `summary.json`, field by field (oracle H).

use std::ops::ControlFlow;
use std::path::Path;

use serde_json::Value;
use stunet::infer::evaluate::{
    Class, Evaluation, EvaluationRules, HeaderV1, Missing, evaluate, pairs,
};
use stunet_testing::oracle::{self, Golden, Part};
use stunet_testing::say;

pub(crate) fn tests(golden: &mut Golden) {
    let (v1, v2) =
        (|part: &Part| summaries(part, "summary_v1"), |part: &Part| summaries(part, "summary_v2"));
    let mut each = |name: &str, cases: fn(&Part) -> Vec<String>, check: fn(&Part, &str)| {
        golden.each(&format!("evaluate::{name}"), &["H_eval/ref", "H_eval/pred"], cases, check);
    };
    each("every_summary_of_version_2_is_reproduced", v2, summary_of_version_2);
    each("every_summary_of_version_1_is_reproduced", v1, summary_of_version_1);
    each("files_are_byte_for_byte_those_of_python", v2, file_is_that_of_python);
}

/// The recorded summaries of one kind: files whose names begin like this.
fn summaries(part: &Part, prefix: &str) -> Vec<String> {
    let entries = std::fs::read_dir(part.path("H_eval")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut found: Vec<_> =
        names.filter(|name| name.starts_with(prefix) && name.ends_with(".json")).collect();
    found.sort();
    found
}

/// The classes a recorded summary has, in the order they were asked for: by their first value.
fn classes(means: &Value) -> Vec<Class> {
    let mut classes: Vec<Class> =
        means.as_object().unwrap().keys().map(|key| key.parse().unwrap()).collect();
    classes.sort_by_key(|class| match class {
        Class::Label(label) => *label,
        Class::Region(labels) => labels[0],
    });
    classes
}

/// `summary_v2_2.2_ignore40_regions.json` was recorded with ignore label 40.
fn ignored(summary: &Path) -> Option<u16> {
    let name = summary.file_stem().unwrap().to_str().unwrap();
    let word = name.split('_').find_map(|word| word.strip_prefix("ignore"))?;
    Some(word.parse().unwrap())
}

fn evaluated(folder: &Path, means: &Value, ignore: Option<u16>) -> Evaluation {
    let pairs = pairs(&folder.join("ref"), &folder.join("pred"), Missing::Refuse).unwrap();
    let rules = EvaluationRules { classes: classes(means), ignore, ..EvaluationRules::default() };
    evaluate(&pairs, &rules, &|_| ControlFlow::Continue(())).unwrap()
}

/// Compares two JSON values: strings as they are, numbers to the last bit.
///
/// Recorded paths begin with the folder's name, ours with the whole path.
fn compare(at: &str, found: &Value, expected: &Value, numbers: &mut usize) {
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => {
            let keys =
                |map: &serde_json::Map<String, Value>| map.keys().cloned().collect::<Vec<_>>();
            assert_eq!(keys(found), keys(expected), "{at}: keys");
            for (key, expected) in expected {
                compare(&format!("{at}/{key}"), &found[key], expected, numbers);
            }
        }
        (Value::Array(found), Value::Array(expected)) => {
            assert_eq!(found.len(), expected.len(), "{at}: length");
            for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
                compare(&format!("{at}/{i}"), found, expected, numbers);
            }
        }
        (Value::String(found), Value::String(expected)) => {
            assert!(found.ends_with(expected.as_str()), "{at}: {expected}, found {found}");
        }
        (found, expected) => {
            assert_eq!(found, expected, "{at}");
            *numbers += 1;
        }
    }
}

fn written(write: impl FnOnce(&Path)) -> Value {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("summary.json");
    write(&path);
    oracle::json(&path)
}

fn summary_of_version_2(part: &Part, name: &str) {
    let folder = part.path("H_eval");
    let path = folder.join(name);
    let expected = oracle::json(&path);
    let result = evaluated(&folder, &expected["mean"], ignored(&path));
    let found = written(|path| result.write_v2(path).unwrap());
    let mut numbers = 0;
    compare("", &found, &expected, &mut numbers);
    say!("{}: {numbers} numbers equal to the last bit", path.display());
    assert!(numbers > 8 * result.rules.classes.len());
}

fn summary_of_version_1(part: &Part, name: &str) {
    let folder = part.path("H_eval");
    let path = folder.join(name);
    let mut expected = oracle::json(&path);
    let text = |key: &str| expected[key].as_str().unwrap().to_owned();
    let header = HeaderV1 {
        name: text("name"),
        description: text("description"),
        task: text("task"),
        author: text("author"),
        timestamp: text("timestamp"),
    };
    let result = evaluated(&folder, &expected["results"]["mean"], ignored(&path));
    let mut found = written(|path| result.write_v1(path, &header).unwrap());
    // A hash of the reference's own text, which ours is not.
    for summary in [&mut found, &mut expected] {
        let id = summary.as_object_mut().unwrap().insert("id".into(), "".into()).unwrap();
        assert_eq!(id.as_str().unwrap().len(), 12);
    }
    let mut numbers = 0;
    compare("", &found, &expected, &mut numbers);
    say!("{}: {numbers} numbers equal to the last bit", path.display());
    assert!(numbers > 13 * result.rules.classes.len());
}

fn file_is_that_of_python(part: &Part, name: &str) {
    let folder = part.path("H_eval");
    let path = folder.join(name);
    let expected = std::fs::read_to_string(&path).unwrap();
    let means = oracle::json(&path);
    let result = evaluated(&folder, &means["mean"], ignored(&path));
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("summary.json");
    result.write_v2(&file).unwrap();
    let root = format!("{}/", folder.parent().unwrap().display());
    let found = std::fs::read_to_string(&file).unwrap().replace(&root, "");
    assert!(found == expected.trim_end(), "{}: another text", path.display());
}
