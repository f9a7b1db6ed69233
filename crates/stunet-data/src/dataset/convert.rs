//! `dataset.json` of one nnU-Net for the other.

use super::RawDataset;
use crate::error::{Result, invalid};
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
    let mut json = kept(dataset, &V2_ENTRIES);
    json.insert("modality".to_owned(), channels(dataset));
    json.insert("labels".to_owned(), Value::Object(labels.collect()));
    json.insert("numTraining".to_owned(), json!(training.len()));
    json.insert("numTest".to_owned(), json!(0));
    json.insert("training".to_owned(), Value::Array(training));
    json.insert("test".to_owned(), json!([]));
    Ok(Value::Object(json))
}

/// Version 2's keys, from what version 1's file says.
pub(super) fn to_v2(dataset: &RawDataset) -> Value {
    let info = dataset.info();
    let labels = info.labels.labels().iter().map(|l| (l.name.clone(), json!(l.values[0])));
    let mut json = Map::new();
    json.insert("channel_names".to_owned(), channels(dataset));
    json.insert("labels".to_owned(), Value::Object(labels.collect()));
    json.insert("numTraining".to_owned(), json!(dataset.cases().len()));
    json.insert("file_ending".to_owned(), json!(info.file_ending));
    for (key, value) in kept(dataset, &V1_ENTRIES) {
        json.entry(key).or_insert(value);
    }
    Value::Object(json)
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

fn channels(dataset: &RawDataset) -> Value {
    let names = dataset.info().channel_names.iter().enumerate();
    Value::Object(names.map(|(i, name)| (i.to_string(), json!(name))).collect())
}

fn kept(dataset: &RawDataset, without: &[&str]) -> Map<String, Value> {
    let entries = dataset.json().as_object().into_iter().flatten();
    let kept = entries.filter(|(key, _)| !without.contains(&key.as_str()));
    kept.map(|(key, value)| (key.clone(), value.clone())).collect()
}
