//! Converts `dataset.json` between the forms of nnU-Net 1 and 2.

use super::{DatasetInfo, RawDataset};
use crate::error::{Result, invalid};
use crate::labels::dataset_json::is_in_version_2;
use serde_json::{Map, Value, json};

/// Entries that the other version spells in its own way; everything else is kept.
const V1_ENTRIES: [&str; 6] = ["modality", "labels", "numTraining", "training", "test", "numTest"];
const V2_ENTRIES: [&str; 4] = ["channel_names", "labels", "numTraining", "dataset"];

/// Version 1's keys, from what version 2's file says.
pub(super) fn to_v1(dataset: &RawDataset) -> Result<Value> {
    let info = dataset.info();
    check_plain(dataset)?;
    let labels = info.labels.labels().iter().map(|l| (l.values[0].to_string(), json!(l.name)));
    let ending = &info.file_ending;
    let training: Vec<Value> = dataset
        .cases()
        .iter()
        .map(|case| {
            json!({
                "image": format!("./imagesTr/{}{ending}", case.name),
                "label": format!("./labelsTr/{}{ending}", case.name),
            })
        })
        .collect();
    let mut json: Map<String, Value> = kept(dataset.json(), &V2_ENTRIES).collect();
    json.insert("modality".to_owned(), channels(&info.channel_names));
    json.insert("labels".to_owned(), Value::Object(labels.collect()));
    json.insert("numTraining".to_owned(), json!(training.len()));
    json.insert("numTest".to_owned(), json!(0));
    json.insert("training".to_owned(), Value::Array(training));
    json.insert("test".to_owned(), json!([]));
    Ok(Value::Object(json))
}

/// Version 2's keys, from what the file of either version says.
pub(super) fn to_v2(dataset: &RawDataset) -> Value {
    version_2(dataset.json(), dataset.info(), dataset.cases().len())
}

/// A `dataset.json` as nnU-Net 2 reads it: the same, or with channels, labels and whatever it cannot
/// do without in version 2's form.
///
/// # Errors
/// When channel names or labels are missing or malformed.
pub fn in_version_2(json: &Value) -> Result<Value> {
    let listed = json.get("training").and_then(Value::as_array).map_or(0, Vec::len);
    Ok(version_2(json, &DatasetInfo::from_json(json)?, listed))
}

fn version_2(json: &Value, info: &DatasetInfo, num_cases: usize) -> Value {
    let is_v2 = json.get("channel_names").is_some();
    let mut out = Map::new();
    if is_v2 {
        out = json.as_object().cloned().unwrap_or_default();
    } else {
        out.insert("channel_names".to_owned(), channels(&info.channel_names));
    }
    if !is_v2 || !is_in_version_2(json) {
        out.insert("labels".to_owned(), Value::Object(info.labels.to_dataset_json()));
    }
    if !is_v2 {
        out.insert("numTraining".to_owned(), json!(num_cases));
    }
    let needed = [("numTraining", json!(num_cases)), ("file_ending", json!(info.file_ending))];
    // Numbers of version 1 are told anew; everything else it says is kept.
    let rest = kept(json, if is_v2 { &[] } else { &V1_ENTRIES });
    for (key, value) in needed.map(|(key, value)| (key.to_owned(), value)).into_iter().chain(rest) {
        out.entry(key).or_insert(value);
    }
    Value::Object(out)
}

/// Version 1 knows neither regions nor a label to ignore.
///
/// # Errors
/// When the labels have either.
pub(crate) fn check_plain(dataset: &RawDataset) -> Result<()> {
    let labels = &dataset.info().labels;
    let found = match (labels.has_regions(), labels.ignore()) {
        (true, _) => "regions",
        (_, Some(_)) => "an ignore label",
        _ => return Ok(()),
    };
    Err(invalid("dataset.json", "labels", "plain labels (the rules of version 1)", found))
}

fn channels(names: &[String]) -> Value {
    let names = names.iter().enumerate();
    Value::Object(names.map(|(i, name)| (i.to_string(), json!(name))).collect())
}

/// The entries of a description without some.
fn kept<'a>(json: &'a Value, without: &'a [&str]) -> impl Iterator<Item = (String, Value)> + 'a {
    let entries = json.as_object().into_iter().flatten();
    let kept = entries.filter(|(key, _)| !without.contains(&key.as_str()));
    kept.map(|(key, value)| (key.clone(), value.clone()))
}
