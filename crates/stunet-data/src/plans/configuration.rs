//! One configuration of nnU-Net 2's plans, with everything it inherits.

use super::Entry;
use crate::error::{DataError, Result, invalid};
use serde_json::{Map, Value};

/// A configuration of nnU-Net 2's plans: its own entries over those it inherits.
///
/// Whoever reads a configuration reads it through here, so that `inherits_from` means the same to
/// all: training, preprocessing, planning, prediction and export.
///
/// ```
/// use serde_json::json;
/// use stunet_data::plans::Configuration;
/// let plans = json!({"configurations": {
///     "3d_fullres": {"batch_size": 2, "batch_dice": true},
///     "3d_fullres_bs4": {"inherits_from": "3d_fullres", "batch_size": 4},
/// }});
/// let configuration = Configuration::of(&plans, "3d_fullres_bs4")?;
/// assert_eq!(configuration.entries()["batch_size"], 4);
/// assert!(configuration.batch_dice()?);
/// # Ok::<(), stunet_data::DataError>(())
/// ```
///
/// # Source
/// nnU-Net 2.8.1 `PlansManager._internal_resolve_configuration_inheritance`: entries of the child
/// replace those of its parent whole, null included; parents may inherit in turn.
#[derive(Clone, Debug, PartialEq)]
pub struct Configuration {
    name: String,
    entries: Value,
}

impl Configuration {
    /// The configuration of a name.
    ///
    /// # Errors
    /// When there is none of that name, it inherits from one that is not there, or from itself.
    pub fn of(plans: &Value, name: &str) -> Result<Self> {
        let root = Entry::root("plans", plans);
        let all = root.get("configurations")?;
        let known = all.value.as_object().ok_or_else(|| all.bad("an object"))?;
        if !known.contains_key(name) {
            let names: Vec<&str> = known.keys().map(String::as_str).collect();
            let expected = format!("one of {}", names.join(", "));
            return Err(invalid("plans", "configuration", expected, name));
        }
        let entries = Value::Object(merged(known, name)?);
        Ok(Self { name: name.to_owned(), entries })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its entries, those it inherits included.
    pub fn entries(&self) -> &Value {
        &self.entries
    }

    /// Name of the folder that nnU-Net keeps the preprocessed cases in; none where there is no entry.
    ///
    /// # Errors
    /// When the entry may not become the name of a folder.
    pub fn data_identifier(&self) -> Result<Option<String>> {
        let Some(entry) = self.root().find("data_identifier") else { return Ok(None) };
        let name: String = entry.parse("the name of a folder")?;
        crate::files::plain_name("plans", &entry.path, &name)?;
        Ok(Some(name))
    }

    /// Whether the dice loss counts over the whole batch.
    ///
    /// # Errors
    /// When the entry is missing or neither true nor false: nnU-Net does not train without it.
    pub fn batch_dice(&self) -> Result<bool> {
        self.root().get("batch_dice")?.parse("true or false")
    }

    pub(super) fn root(&self) -> Entry<'_> {
        let path = format!("configurations.{}", self.name);
        Entry { file: "plans", value: &self.entries, path }
    }
}

/// The entries of a configuration over those of the one it inherits from, and so on.
fn merged(known: &Map<String, Value>, name: &str) -> Result<Map<String, Value>> {
    let mut line = vec![name];
    let mut merged = own(known, name)?.clone();
    // Parents come later and give only what is not there yet.
    while let Some(parent) = own(known, line[line.len() - 1])?.get("inherits_from") {
        let child = line[line.len() - 1];
        let wrong = |expected: String| {
            let key = format!("configurations.{child}.inherits_from");
            let found = format!("{parent:.80}");
            Err(DataError::Invalid { file: "plans", key, expected, found })
        };
        let parent = match parent.as_str().filter(|parent| known.contains_key(*parent)) {
            Some(parent) => parent,
            None => {
                let names: Vec<&str> = known.keys().map(String::as_str).collect();
                return wrong(format!("one of {}", names.join(", ")));
            }
        };
        if line.contains(&parent) {
            return wrong("a configuration that does not inherit from this one".to_owned());
        }
        line.push(parent);
        for (key, value) in own(known, parent)? {
            merged.entry(key).or_insert_with(|| value.clone());
        }
    }
    Ok(merged)
}

fn own<'a>(known: &'a Map<String, Value>, name: &str) -> Result<&'a Map<String, Value>> {
    let value = &known[name];
    value.as_object().ok_or_else(|| {
        invalid("plans", format!("configurations.{name}"), "an object", format_args!("{value:.80}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn plans() -> Value {
        json!({"configurations": {
            "grandparent": {
                "data_identifier": "cases", "batch_dice": true, "batch_size": 2,
                "spacing": [1, 1, 1], "nested": {"a": 1, "b": 2}
            },
            "parent": {"inherits_from": "grandparent", "batch_size": 3, "nested": {"a": 5}},
            "child": {"inherits_from": "parent", "spacing": null, "patch_size": [8, 8, 8]},
            "loop_a": {"inherits_from": "loop_b"},
            "loop_b": {"inherits_from": "loop_a"},
            "self": {"inherits_from": "self"},
            "into_loop": {"inherits_from": "loop_a"},
            "orphan": {"inherits_from": "absent"},
            "nameless": {"inherits_from": null},
            "text": "3d",
            "heir_of_text": {"inherits_from": "text"},
            "away": {"data_identifier": "../x", "batch_dice": "true"},
        }})
    }

    #[test]
    fn three_generations() {
        let child = Configuration::of(&plans(), "child").unwrap();
        assert_eq!((child.name(), child.batch_dice().unwrap()), ("child", true));
        assert_eq!(child.data_identifier().unwrap().as_deref(), Some("cases"));
        let entries = child.entries();
        assert_eq!(entries["batch_size"], 3, "the parent's comes before the grandparent's");
        assert_eq!(entries["nested"], json!({"a": 5}), "an entry is replaced whole");
        assert_eq!(entries["spacing"], Value::Null, "null replaces, too");
        assert_eq!(entries["patch_size"], json!([8, 8, 8]));
        assert_eq!(entries["inherits_from"], "parent");
    }

    #[test]
    fn what_cannot_be_inherited_is_refused() {
        let check = |name: &str, expected: &str| {
            let message = Configuration::of(&plans(), name).unwrap_err().to_string();
            assert!(message.contains(expected), "expected {expected:?}, found {message:?}");
        };
        check("2d", "configuration: expected one of grandparent, parent");
        check("2d", "found 2d");
        for name in ["loop_a", "loop_b", "self", "into_loop"] {
            check(name, "does not inherit from this one");
        }
        check("orphan", "configurations.orphan.inherits_from: expected one of grandparent");
        check("nameless", "configurations.nameless.inherits_from: expected one of");
        check("text", "configurations.text: expected an object");
        check("heir_of_text", "configurations.text: expected an object");
        let message = Configuration::of(&json!({}), "2d").unwrap_err().to_string();
        assert!(message.contains("configurations: expected an entry"), "{message}");
    }

    #[test]
    fn entries_of_another_kind_are_refused() {
        let away = Configuration::of(&plans(), "away").unwrap();
        let message = away.data_identifier().unwrap_err().to_string();
        assert!(message.contains("configurations.away.data_identifier"), "{message}");
        let message = away.batch_dice().unwrap_err().to_string();
        assert!(message.contains("expected true or false, found \"true\""), "{message}");
        let none = json!({"configurations": {"a": {}}});
        let none = Configuration::of(&none, "a").unwrap();
        assert_eq!(none.data_identifier().unwrap(), None);
        assert!(none.batch_dice().is_err());
    }
}
