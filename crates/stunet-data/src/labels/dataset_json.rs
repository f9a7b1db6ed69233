//! The `labels` of a `dataset.json`, of either nnU-Net.

use super::{Label, LabelSet};
use crate::error::{DataError, Result, invalid};
use serde_json::{Map, Value};

/// The name that nnU-Net 2 wants for the label of value 0.
const BACKGROUND: &str = "background";
/// The name of the label of voxels that carry no information.
const IGNORE: &str = "ignore";

impl LabelSet {
    /// Reads the `labels` of a `dataset.json`, of nnU-Net 2 (name to value or values) or 1 (value to
    /// name).
    ///
    /// # Errors
    /// When the entry is missing or malformed, or nnU-Net would refuse it: see [`LabelSet::new`].
    ///
    /// # Source
    /// nnU-Net 2.8.1, `label_handling.py`: values are what Python's `int` makes of them, the ignore
    /// label must be a number.
    ///
    /// # Deviations
    /// The table of version 1 is read whichever version the other entries are of, and so is a value 0
    /// of another name than `background`, which it becomes: [`LabelSet::to_dataset_json`] writes what
    /// version 2 reads. Values that are not whole are refused, which `int` would cut.
    pub fn from_dataset_json(dataset: &Value) -> Result<Self> {
        let entries = dataset.get("labels").and_then(Value::as_object).ok_or_else(|| {
            let found = dataset.get("labels").unwrap_or(&Value::Null);
            invalid("dataset.json", "labels", "an object", found)
        })?;
        let (labels, ignore) = match is_version_1(entries) {
            true => (of_version_1(entries)?, None),
            false => of_version_2(entries)?,
        };
        let region_order = match dataset.get("regions_class_order") {
            None | Some(Value::Null) => None,
            Some(order) => {
                Some(order.as_array().and_then(|_| values_of(order)).ok_or_else(|| {
                    invalid("dataset.json", "regions_class_order", "a list of label values", order)
                })?)
            }
        };
        Self::new(labels, ignore, region_order).map_err(in_dataset_json)
    }

    /// The `labels` of version 2's `dataset.json`: name to value or values.
    ///
    /// ```
    /// # use stunet_data::labels::LabelSet;
    /// let labels = LabelSet::from_names(["background", "liver"])?.to_dataset_json();
    /// assert_eq!(serde_json::json!(labels), serde_json::json!({"background": 0, "liver": 1}));
    /// # Ok::<(), stunet_data::DataError>(())
    /// ```
    pub fn to_dataset_json(&self) -> Map<String, Value> {
        let labels = self.labels.iter().enumerate().map(|(i, label)| {
            let name = if i == 0 { BACKGROUND.to_owned() } else { label.name.clone() };
            match label.values[..] {
                [value] => (name, Value::from(value)),
                _ => (name, Value::from(label.values.clone())),
            }
        });
        let ignore = self.ignore.map(|value| (IGNORE.to_owned(), Value::from(value)));
        labels.chain(ignore).collect()
    }
}

/// What is said of labels that are read although nnU-Net 2 would refuse them; nothing of others.
pub(crate) fn note(dataset: &Value) -> Option<String> {
    let entries = dataset.get("labels")?.as_object()?;
    if is_version_1(entries) {
        let of_version_2 = dataset.get("channel_names").is_some();
        let note = "the labels of dataset.json are in the form of nnU-Net 1 (\"1\": \"name\"), which \
                    nnU-Net 2 refuses: they are written as \"name\": 1";
        return of_version_2.then(|| note.to_owned());
    }
    if entries.contains_key(BACKGROUND) {
        return None;
    }
    let (name, _) = entries.iter().find(|(_, value)| value_of(value) == Some(0))?;
    Some(format!(
        "label 0 of dataset.json is called {name:?}, which nnU-Net 2 refuses: it is written as \
         \"{BACKGROUND}\""
    ))
}

/// Whether version 2 takes the labels as they stand, numbers in quotes left out.
pub(crate) fn is_in_version_2(dataset: &Value) -> bool {
    let number = |value: &Value| value.is_u64();
    let plain = |value: &Value| match value {
        Value::Array(list) => list.iter().all(number),
        value => number(value),
    };
    let entries = dataset.get("labels").and_then(Value::as_object);
    entries.is_some_and(|e| e.get(BACKGROUND).is_some_and(number) && e.values().all(plain))
}

/// Numbers for keys and names for values; what nnU-Net 2 takes is the other way round, and may have
/// its numbers in quotes.
fn is_version_1(entries: &Map<String, Value>) -> bool {
    let names = entries.values().all(|value| value.is_string());
    !entries.is_empty() && names && entries.keys().all(|key| number_in(key).is_some())
}

fn of_version_1(entries: &Map<String, Value>) -> Result<Vec<Label>> {
    let label = |(key, name): (&String, &Value)| {
        let value = number_in(key).expect("a table is of version 1 if every key is a number");
        let name = name.as_str().unwrap_or_default();
        Label { name: if value == 0 { BACKGROUND } else { name }.to_owned(), values: vec![value] }
    };
    Ok(entries.iter().map(label).collect())
}

fn of_version_2(entries: &Map<String, Value>) -> Result<(Vec<Label>, Option<u16>)> {
    let bad = |name: &str, expected: &str, value: &Value| {
        let found = match number_in(name) {
            Some(_) => format!("{value} (numbers are keys in version 1 only, for all labels)"),
            None => value.to_string(),
        };
        Err(invalid("dataset.json", format!("labels.{name}"), expected, found))
    };
    let mut labels = Vec::new();
    let mut ignore = None;
    for (name, value) in entries {
        if name == IGNORE {
            match value.as_u64().and_then(|v| u16::try_from(v).ok()) {
                Some(value) => ignore = Some(value),
                None => return bad(name, "one number from 0 to 65535, without quotes", value),
            }
            continue;
        }
        if name == BACKGROUND && value_of(value) != Some(0) {
            return bad(name, "0, the label of what is in no other one", value);
        }
        let Some(values) = values_of(value) else {
            return bad(name, "a value or a list of values 0..65535", value);
        };
        let is_background = values == [0] && !entries.contains_key(BACKGROUND);
        let name = if is_background { BACKGROUND } else { name };
        labels.push(Label { name: name.to_owned(), values });
    }
    Ok((labels, ignore))
}

/// The same error under the file and the entry it came from.
fn in_dataset_json(error: DataError) -> DataError {
    match error {
        DataError::Invalid { file: "labels", key, expected, found } => {
            let key = match key.as_str() {
                "labels" | "regions_class_order" => key,
                name => format!("labels.{name}"),
            };
            DataError::Invalid { file: "dataset.json", key, expected, found }
        }
        error => error,
    }
}

fn values_of(value: &Value) -> Option<Vec<u16>> {
    match value {
        Value::Array(list) => list.iter().map(value_of).collect(),
        value => Some(vec![value_of(value)?]),
    }
}

/// A value as Python's `int` reads it, if it is a whole number to begin with.
fn value_of(value: &Value) -> Option<u16> {
    match value {
        Value::String(text) => number_in(text),
        value => {
            let number = value.as_f64().filter(|v| v.fract() == 0.0)?;
            (0.0..=65535.0).contains(&number).then_some(number as u16)
        }
    }
}

/// Digits, with spaces around them.
fn number_in(text: &str) -> Option<u16> {
    let digits = text.trim();
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(labels: Value) -> LabelSet {
        LabelSet::from_dataset_json(&json!({ "labels": labels })).unwrap()
    }

    #[test]
    fn all_spellings_of_one_table() {
        let expected = read(json!({"background": 0, "a": 1, "b": 2}));
        for labels in [
            json!({"background": "0", "a": "1", "b": " 2 "}),
            json!({"b": 2.0, "a": 1, "background": 0}),
            json!({"0": "background", "1": "a", "2": "b"}),
            json!({"2": "b", "1": "a", "0": "air"}),
            json!({"Background": 0, "a": 1, "b": 2}),
            json!({"a": [1], "background": 0, "b": ["2"]}),
        ] {
            assert_eq!(read(labels.clone()), expected, "{labels}");
            assert_eq!(
                json!(read(labels).to_dataset_json()),
                json!({"background": 0, "a": 1, "b": 2})
            );
        }
        // Names may be numbers, as long as they are not all of them.
        assert_eq!(read(json!({"background": 0, "1": "1"})).name_of(1), Some("1"));
    }

    #[test]
    fn what_goes_out_comes_back() {
        let json = json!({
            "labels": {"background": 0, "whole": [1, 2], "core": [2], "ignore": 3},
            "regions_class_order": [1, 2]
        });
        let set = LabelSet::from_dataset_json(&json).unwrap();
        let again = json!({"labels": set.to_dataset_json(), "regions_class_order": [1, 2]});
        assert_eq!(LabelSet::from_dataset_json(&again).unwrap(), set);
        assert_eq!(again["labels"]["ignore"], 3);
    }

    fn refused(dataset: Value, words: &str) {
        let message = LabelSet::from_dataset_json(&dataset).unwrap_err().to_string();
        assert!(message.starts_with("dataset.json: "), "{message}");
        assert!(message.contains(words), "expected {words:?}, found {message:?}");
    }

    #[test]
    fn what_nnunet_refuses() {
        let labels = |labels: Value, words: &str| refused(json!({ "labels": labels }), words);
        refused(json!({}), "labels: expected an object");
        labels(json!({}), "background");
        labels(json!({"liver": 1}), "background");
        labels(json!({"background": 1, "liver": 0}), "labels.background: expected 0");
        labels(json!({"background": [0], "liver": 1}), "labels.background: expected 0");
        labels(json!({"background": [0, 1], "liver": 1}), "labels.background: expected 0");
        labels(json!({"background": 0, "liver": 2}), "labels.liver: expected consecutive");
        labels(json!({"background": 0, "liver": 1, "ignore": 1}), "labels.ignore: expected 2");
        labels(json!({"background": 0, "liver": 1, "ignore": 4}), "labels.ignore: expected 2");
        labels(json!({"background": 0, "liver": 2, "ignore": 1}), "consecutive");
        labels(json!({"background": 0, "liver": 1, "ignore": "2"}), "labels.ignore: expected one");
        labels(json!({"background": 0, "liver": 1, "ignore": [2]}), "labels.ignore: expected one");
        labels(json!({"background": 0, "liver": "one"}), "values 0..65535, found \"one\"");
        labels(json!({"background": 0, "liver": -1}), "values 0..65535, found -1");
        labels(json!({"background": 0, "liver": 1.5}), "values 0..65535, found 1.5");
        labels(json!({"background": 0, "liver": true}), "values 0..65535, found true");
        labels(json!({"0": "background", "liver": 1}), "keys in version 1 only");
        labels(json!({"0": "background", "2": "liver"}), "labels.liver: expected consecutive");
        labels(json!({"background": 0, "all": [1, 2]}), "regions_class_order: expected 1");
        labels(json!({"background": 0, "all": []}), "an empty one");
        labels(json!({"background": 0, "all": [1, 2], "air": 0}), "labels.air: expected");
        let regions = json!({"background": 0, "all": [1, 2], "core": 2});
        let with = |order: Value| json!({"labels": regions, "regions_class_order": order});
        refused(
            with(json!([1])),
            "regions_class_order: expected 2 values, one per region, found 1",
        );
        refused(with(json!(1)), "regions_class_order: expected a list");
        refused(with(json!(["a", "b"])), "regions_class_order: expected a list");
    }

    #[test]
    fn what_is_said() {
        let of = |dataset: Value| note(&dataset).unwrap_or_default();
        let v1 = json!({"0": "background", "1": "a"});
        assert!(of(json!({"channel_names": {}, "labels": v1})).contains("form of nnU-Net 1"));
        assert_eq!(of(json!({"modality": {}, "labels": v1})), "");
        assert!(of(json!({"labels": {"Background": 0, "a": 1}})).contains("\"Background\""));
        assert_eq!(of(json!({"labels": {"background": "0", "a": "1"}})), "");
    }
}
