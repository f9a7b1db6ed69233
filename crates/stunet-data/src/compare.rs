//! What differs between two descriptions of one thing, such as plans and the store made by them.
//!
//! Many values are held by two files. Where the files meet they are compared here, so that an error
//! can name the entry, both values and both files.

use crate::error::{DataError, Result};
use crate::labels::{Label, LabelSet};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::fmt;

/// Differences that are told one by one; the others are counted.
const MOST_TOLD: usize = 4;
/// Longest value that is told whole.
const MOST_CHARACTERS: usize = 100;

/// An entry that two descriptions do not share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where, such as `channels.0.scheme`.
    pub entry: String,
    /// What the first description has there, as JSON.
    pub first: String,
    /// What the second one has there.
    pub second: String,
}

/// Every entry in which two descriptions differ, in the order of the first.
///
/// Lists of numbers or names are compared as a whole; the order of an object's entries does not
/// count.
///
/// # Errors
/// When one of them cannot be written as JSON.
///
/// ```
/// use serde_json::json;
/// use stunet_data::compare::differences;
/// let (plans, store) = (json!({"batch": 2, "spacing": [1, 2]}), json!({"batch": 2, "spacing": [1, 3]}));
/// let found = differences(&plans, &store)?;
/// assert_eq!(found.told("plans.json", "store.json"), "spacing is [1,2] in plans.json and [1,3] in store.json");
/// # Ok::<(), stunet_data::DataError>(())
/// ```
pub fn differences(first: &impl Serialize, second: &impl Serialize) -> Result<Differences> {
    let json = |error| DataError::Json(error);
    let (first, second) =
        (serde_json::to_value(first).map_err(json)?, serde_json::to_value(second).map_err(json)?);
    let mut found = Vec::new();
    compare("", Some(&first), Some(&second), &mut found);
    Ok(Differences(found))
}

/// The same for labels, spelled as in `dataset.json`.
///
/// # Errors
/// As [`differences`].
pub fn label_differences(first: &LabelSet, second: &LabelSet) -> Result<Differences> {
    differences(&spelled(first), &spelled(second))
}

/// What `dataset.json` says of labels.
pub(crate) fn spelled(labels: &LabelSet) -> Value {
    let values = |label: &Label| match label.values[..] {
        [value] => json!(value),
        _ => json!(label.values),
    };
    let entries = labels.labels().iter().map(|label| (label.name.clone(), values(label)));
    let ignore = labels.ignore().map(|value| ("ignore".to_owned(), json!(value)));
    let entries: Map<String, Value> = entries.chain(ignore).collect();
    // Regions are outputs in the order in which they stand there.
    let names: Vec<&str> = labels.labels().iter().map(|label| label.name.as_str()).collect();
    json!({
        "labels": entries,
        "order of labels": labels.has_regions().then_some(names),
        "regions_class_order": labels.region_order(),
    })
}

/// The entries in which two descriptions differ; none where they agree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences(Vec<Difference>);

impl Differences {
    /// True where the descriptions agree.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One by one.
    pub fn iter(&self) -> impl Iterator<Item = &Difference> {
        self.0.iter()
    }

    /// Without the entries of these names, whatever lies below them.
    #[must_use]
    pub fn without(mut self, entries: &[&str]) -> Self {
        let top = |entry: &str| entry.split('.').next().unwrap_or_default().to_owned();
        self.0.retain(|found| !entries.contains(&top(&found.entry).as_str()));
        self
    }

    /// Those whose entry is of a kind, and the others.
    pub fn partition(self, mut kind: impl FnMut(&str) -> bool) -> (Self, Self) {
        let (of, others) = self.0.into_iter().partition(|found| kind(&found.entry));
        (Self(of), Self(others))
    }

    /// Both together.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        self.0.extend(others.0);
        self
    }

    /// In words: `spacing_mm is [1.0] in FIRST and [2.0] in SECOND; ...`.
    pub fn told(&self, first: impl fmt::Display, second: impl fmt::Display) -> String {
        let mut told: Vec<String> = self
            .0
            .iter()
            .take(MOST_TOLD)
            .map(|d| format!("{} is {} in {first} and {} in {second}", d.entry, d.first, d.second))
            .collect();
        match self.0.len().saturating_sub(MOST_TOLD) {
            0 => {}
            rest => told.push(format!("and {rest} more")),
        }
        told.join("; ")
    }
}

fn compare(
    entry: &str,
    first: Option<&Value>,
    second: Option<&Value>,
    found: &mut Vec<Difference>,
) {
    let within = |key: &str| match entry {
        "" => key.to_owned(),
        entry => format!("{entry}.{key}"),
    };
    match (first, second) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            for (key, value) in a {
                compare(&within(key), Some(value), b.get(key), found);
            }
            for (key, value) in b.iter().filter(|(key, _)| !a.contains_key(*key)) {
                compare(&within(key), None, Some(value), found);
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b)))
            if a.len() == b.len() && a.iter().chain(b).all(Value::is_object) =>
        {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                compare(&within(&index.to_string()), Some(a), Some(b), found);
            }
        }
        (first, second) if same(first, second) => {}
        (first, second) => {
            let (first, second) = (shown(first), shown(second));
            found.push(Difference { entry: entry.to_owned(), first, second });
        }
    }
}

/// Whether values are equal; 1 and 1.0 are, as in Python.
fn same(first: Option<&Value>, second: Option<&Value>) -> bool {
    match (first, second) {
        (Some(Value::Number(a)), Some(Value::Number(b))) => a == b || a.as_f64() == b.as_f64(),
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(Some(a), Some(b)))
        }
        _ => first == second,
    }
}

/// A value as JSON, cut where it is long.
fn shown(value: Option<&Value>) -> String {
    let Some(value) = value else { return "nothing".to_owned() };
    let text = value.to_string();
    match text.char_indices().nth(MOST_CHARACTERS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(first: Value, second: Value) -> String {
        differences(&first, &second).unwrap().told("a.json", "b.json")
    }

    #[test]
    fn entries_are_named_with_both_values() {
        let check = |first: Value, second: Value, expected: &str| {
            assert_eq!(told(first, second), expected);
        };
        check(json!({"a": [1, 2]}), json!({"a": [1, 2]}), "");
        check(
            json!({"a": [1, 2]}),
            json!({"a": [1, 3]}),
            "a is [1,2] in a.json and [1,3] in b.json",
        );
        check(json!({"a": [1, 2.5]}), json!({"a": [1.0, 2.5]}), "");
        check(json!({"a": 1}), json!({}), "a is 1 in a.json and nothing in b.json");
        check(json!({}), json!({"a": null}), "a is nothing in a.json and null in b.json");
        let channels = |scheme: &str| json!({"channels": [{"name": "CT"}, {"scheme": scheme}]});
        let expected = "channels.1.scheme is \"ct\" in a.json and \"none\" in b.json";
        check(channels("ct"), channels("none"), expected);
        // Fewer entries of a list are no entry's difference.
        check(json!([{"a": 1}]), json!([]), " is [{\"a\":1}] in a.json and [] in b.json");
    }

    #[test]
    fn labels_are_spelled_as_in_dataset_json() {
        let labels = |json: Value| LabelSet::from_dataset_json(&json).unwrap();
        let first = labels(json!({"labels": {"background": 0, "liver": 1, "ignore": 2}}));
        let second = labels(json!({"labels": {"background": 0, "hepar": 1}}));
        let told = label_differences(&first, &second).unwrap().told("a", "b");
        let expected = "labels.liver is 1 in a and nothing in b; labels.ignore is 2 in a and nothing \
                        in b; labels.hepar is nothing in a and 1 in b";
        assert_eq!(told, expected);
        let regions = |order: [u16; 2]| {
            labels(json!({
                "labels": {"background": 0, "whole": [1, 2], "core": 2}, "regions_class_order": order
            }))
        };
        let told = label_differences(&regions([1, 2]), &regions([2, 1])).unwrap().told("a", "b");
        assert_eq!(told, "regions_class_order is [1,2] in a and [2,1] in b");
        let order = |text: &str| {
            let json = format!(
                r#"{{"labels": {{"background": 0, {text}}}, "regions_class_order": [1, 2]}}"#
            );
            labels(serde_json::from_str(&json).unwrap())
        };
        let (first, second) = (order(r#""w": [1, 2], "c": 2"#), order(r#""c": 2, "w": [1, 2]"#));
        let told = label_differences(&first, &second).unwrap().told("a", "b");
        let expected =
            r#"order of labels is ["background","w","c"] in a and ["background","c","w"] in b"#;
        assert_eq!(told, expected);
    }

    #[test]
    fn what_is_long_is_cut() {
        let many: Value = (0..9).map(|i| (i.to_string(), json!("ü".repeat(200)))).collect();
        let told = told(many, json!({}));
        assert!(told.ends_with("; and 5 more") && told.len() < 1200, "{told}");
    }

    #[test]
    fn entries_can_be_left_out() {
        let (first, second) = (json!({"a": {"b": 1}, "c": 2}), json!({"a": {"b": 2}, "c": 3}));
        let left = differences(&first, &second).unwrap().without(&["a"]);
        assert_eq!(left.iter().map(|d| d.entry.as_str()).collect::<Vec<_>>(), ["c"]);
        assert!(left.without(&["c"]).is_empty());
    }
}
