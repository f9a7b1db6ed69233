//! The files in which both nnU-Nets keep what postprocessing does.

use super::Postprocessing;
use super::determine::Determined;
use super::literal;
use super::step::KeepLargest;
use crate::InferError;
use crate::evaluate::{Evaluation, save_as_python};
use serde_json::{Value as Json, json};
use std::io::Write;
use std::path::Path;
use stunet_data::components::Connectivity;
use stunet_data::metrics::Class;
use stunet_data::{DataError, files};
use stunet_model::weights::pickle::{self, Value};

/// The function that nnU-Net 2's `postprocessing.pkl` names, its module and its name: the one kind of
/// step there is.
pub const PICKLE_FUNCTION: (&str, &str) = (
    "nnunetv2.postprocessing.remove_connected_components",
    "remove_all_but_largest_component_from_segmentation",
);
const KEY: &str = "labels_or_regions";

impl Postprocessing {
    /// Reads nnU-Net 2's `postprocessing.pkl` or `postprocessing.json`, or nnU-Net 1's
    /// `postprocessing.json`. Nothing in them is executed.
    ///
    /// # Errors
    /// When the file cannot be read, is none of these, or asks for another kind of step.
    pub fn load(path: &Path) -> Result<Self, InferError> {
        let is_json = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("json"));
        if !is_json {
            let value = pickle::read_file(path)?;
            return of_pickle(&value)
                .map_err(|found| wrong(path, "a pair of functions and arguments", found));
        }
        let json: Json = files::read_json(path)?;
        if json.get("for_which_classes").is_some() {
            return of_json_v1(&json)
                .map_err(|found| wrong(path, "for_which_classes and sizes", found));
        }
        of_json_v2(&json)
            .map_err(|found| wrong(path, "postprocessing_fns and their arguments", found))
    }

    /// Writes nnU-Net 2's `postprocessing.pkl`.
    ///
    /// # Errors
    /// When the file cannot be written, or a step is not one of nnU-Net 2's: it connects by faces or
    /// keeps parts by their size.
    pub fn save_pickle(&self, path: &Path) -> Result<(), InferError> {
        if let Some(step) = self.steps.iter().find(|step| !is_v2(step)) {
            return Err(wrong(path, "steps that nnU-Net 2 knows", format!("{step:?}")));
        }
        let arguments = self.steps.iter().map(|step| Value::dict([(KEY, pickled(&step.classes))]));
        let functions = vec![PICKLE_FUNCTION; self.steps.len()];
        let bytes = pickle::write_with_functions(&functions, &Value::List(arguments.collect()));
        save(path, &bytes)
    }

    /// Writes nnU-Net 1's `postprocessing.json` around what was determined by its rule.
    ///
    /// # Errors
    /// When the file cannot be written, or a step is not one of nnU-Net 1's: it connects by corners.
    pub fn save_json_v1(&self, path: &Path, determined: &Determined) -> Result<(), InferError> {
        let mut sizes = Vec::new();
        let mut which = Vec::new();
        for step in &self.steps {
            if step.connectivity != Connectivity::Faces {
                return Err(wrong(path, "steps that nnU-Net 1 knows", format!("{step:?}")));
            }
            let class = match &step.classes[..] {
                [class] => class.clone(),
                classes => Class::Region(values(classes)),
            };
            which.push(match &class {
                Class::Label(label) => json!(label),
                Class::Region(labels) => json!(labels),
            });
            sizes.extend(step.min_valid_mm3.map(|mm3| (class, mm3)));
        }
        let by_class = |run: &Evaluation| -> Json {
            let classes = run.rules.classes.iter().enumerate();
            classes.map(|(i, class)| (class.to_string(), json!(run.mean_dice(i)))).collect()
        };
        // Of the classes by themselves, which are tried after the foreground as one.
        let single = determined.decisions[1..].iter();
        let single: Json =
            single.map(|tried| (tried.step.classes[0].to_string(), json!(tried.after))).collect();
        let json = json!({
            "dc_per_class_pp_all": by_class(&determined.with_foreground),
            "dc_per_class_pp_per_class": single,
            "dc_per_class_raw": by_class(&determined.before),
            "for_which_classes": which,
            "min_valid_object_sizes": literal::text_of(&sizes),
            "num_samples": determined.before.cases.len(),
            "validation_final": "postprocessed",
            "validation_raw": ".",
        });
        save_as_python(path, &json)
    }

    /// Writes nnU-Net 2's `postprocessing.json`, which tells people what was done and what it brought.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save_json_v2(&self, path: &Path, determined: &Determined) -> Result<(), InferError> {
        let arguments = self.steps.iter().map(|step| json!({ KEY: json_of(&step.classes) }));
        let mut object = serde_json::Map::new();
        object.insert("input_folder".to_owned(), determined.before.means_v2());
        object.insert("postprocessed".to_owned(), determined.after.means_v2());
        let names = vec![PICKLE_FUNCTION.1; self.steps.len()];
        object.insert("postprocessing_fns".to_owned(), json!(names));
        object.insert("postprocessing_kwargs".to_owned(), arguments.collect());
        save_as_python(path, &Json::Object(object))
    }
}

fn is_v2(step: &KeepLargest) -> bool {
    step.connectivity == Connectivity::Corners && step.min_valid_mm3.is_none()
}

/// All labels of some classes, in their order.
fn values(classes: &[Class]) -> Vec<u16> {
    let of = |class: &Class| match class {
        Class::Label(label) => vec![*label],
        Class::Region(labels) => labels.clone(),
    };
    classes.iter().flat_map(of).collect()
}

/// One class by itself; several, or a label that stands for the foreground, as a list.
fn pickled(classes: &[Class]) -> Value {
    let label = |label: &u16| Value::Int(i128::from(*label));
    let one = |class: &Class| match class {
        Class::Label(value) => label(value),
        Class::Region(labels) => Value::Tuple(labels.iter().map(label).collect()),
    };
    match classes {
        [class] => one(class),
        classes => Value::List(classes.iter().map(one).collect()),
    }
}

fn json_of(classes: &[Class]) -> Json {
    let one = |class: &Class| match class {
        Class::Label(label) => json!(label),
        Class::Region(labels) => json!(labels),
    };
    match classes {
        [class] => one(class),
        classes => classes.iter().map(one).collect(),
    }
}

/// Two lists of equal length: functions, and what they are called with.
fn of_pickle(value: &Value) -> Result<Postprocessing, String> {
    let parts = match value {
        Value::Tuple(parts) | Value::List(parts) => &parts[..],
        _ => &[],
    };
    let [Value::List(functions), Value::List(arguments)] = parts else {
        return Err("something else".to_owned());
    };
    let json = |values: &[Value]| values.iter().map(Value::to_json).collect::<Vec<Json>>();
    let expected = format!("{}.{}", PICKLE_FUNCTION.0, PICKLE_FUNCTION.1);
    steps(&json(functions), &expected, &json(arguments))
}

fn of_json_v2(json: &Json) -> Result<Postprocessing, String> {
    let list = |key: &str| {
        let found = json.get(key).and_then(Json::as_array);
        found.ok_or_else(|| format!("no list {key}"))
    };
    steps(list("postprocessing_fns")?, PICKLE_FUNCTION.1, list("postprocessing_kwargs")?)
}

fn steps(functions: &[Json], expected: &str, arguments: &[Json]) -> Result<Postprocessing, String> {
    if functions.len() != arguments.len() {
        return Err(format!("{} functions and {} arguments", functions.len(), arguments.len()));
    }
    if let Some(other) = functions.iter().find(|name| name.as_str() != Some(expected)) {
        return Err(format!("the function {}", shortened(other)));
    }
    let step = |arguments: &Json| {
        let background = arguments.get("background_label").is_none_or(|label| *label == 0);
        let classes = arguments.get(KEY).and_then(classes_of).filter(|_| background);
        classes.map(KeepLargest::of).ok_or_else(|| shortened(arguments))
    };
    let steps = arguments.iter().map(step).collect::<Result<_, _>>()?;
    Ok(Postprocessing { steps })
}

/// A label, a list of labels and regions, or (a tuple, which JSON does not know) a list of labels that
/// means one region: their union is the same.
fn classes_of(value: &Json) -> Option<Vec<Class>> {
    let label = |value: &Json| value.as_u64().and_then(|v| u16::try_from(v).ok());
    let one = |value: &Json| match value {
        Json::Array(labels) => labels.iter().map(label).collect::<Option<_>>().map(Class::Region),
        value => label(value).map(Class::Label),
    };
    match value {
        Json::Array(classes) if !classes.is_empty() => classes.iter().map(one).collect(),
        Json::Array(_) => None,
        value => Some(vec![one(value)?]),
    }
}

fn of_json_v1(json: &Json) -> Result<Postprocessing, String> {
    let sizes = match json.get("min_valid_object_sizes") {
        None | Some(Json::Null) => Vec::new(),
        Some(text) => {
            let found = text.as_str().and_then(literal::sizes);
            found.ok_or_else(|| format!("min_valid_object_sizes {}", shortened(text)))?
        }
    };
    let which = json.get("for_which_classes").and_then(Json::as_array);
    let which = which.ok_or_else(|| "no list for_which_classes".to_owned())?;
    let step = |entry: &Json| {
        let mut classes = classes_of(entry).ok_or_else(|| shortened(entry))?;
        if entry.is_array() {
            classes = vec![Class::Region(values(&classes))];
        }
        let size = sizes.iter().find(|(class, _)| *class == classes[0]).map(|(_, mm3)| *mm3);
        if size.is_none() && !sizes.is_empty() {
            return Err(format!("no size for {}", classes[0]));
        }
        let step = KeepLargest::of(classes);
        Ok(KeepLargest { connectivity: Connectivity::Faces, min_valid_mm3: size, ..step })
    };
    Ok(Postprocessing { steps: which.iter().map(step).collect::<Result<_, String>>()? })
}

fn shortened(json: &Json) -> String {
    json.to_string().chars().take(100).collect()
}

fn wrong(path: &Path, expected: &str, found: impl Into<String>) -> InferError {
    InferError::Evaluation {
        what: "postprocessing",
        expected: expected.to_owned(),
        found: found.into(),
        path: path.to_owned(),
    }
}

fn save(path: &Path, bytes: &[u8]) -> Result<(), InferError> {
    let write = |source| DataError::Io { action: "write", source };
    files::sweep([path]);
    Ok(files::write(path, |file| file.write_all(bytes).map_err(write))?)
}
