//! The record of what made an output: written into the output, and compared if the output exists.
//!
//! A labelmap says in a comment of its NIfTI header, a file of probabilities in the comment of its zip
//! archive, a picture in a text of its PNG, and a file of JSON under a key, which program, model, settings
//! and input it came from. So an output is taken for
//! what was asked only when it is that, wherever it was copied to and whatever its name.
//!
//! Nothing in it depends on time or place: the same input gives the same bytes.

mod input;

use crate::confidence::ConfidenceMeasure;
use crate::error::InferError;
use crate::model::Model;
use crate::model::NetworkPrecision;
use crate::predict::{PredictOptions, window_settings};
use input::InputFile;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use stunet_data::formats;
use stunet_data::geometry::Orientation;
use stunet_model::weights::Digest;

/// First key of a record, with the version of its layout.
const KEY: &str = "stunet_record";
const VERSION: u64 = 1;
/// Key of the files a case was read from.
const INPUT: &str = "input";
const MODEL: &str = "model";
/// Key of what the networks compute in, where that is not f32.
const PRECISION: &str = "precision";
/// Key of a record in a file of JSON.
const MADE_BY: &str = "made_by";

/// What makes an output: program, model, settings, and the input once it is known.
///
/// A model whose network has no [identity](crate::network::Network::identity) is left out, and an
/// output of it is never taken for the same.
///
/// ```json
/// {"stunet_record": 1, "program": "0.1.0", "model": "9f86d081884c7d65",
///  "mode": "normal", "step size": 0.5, "mirrored axes": [0, 1, 2], "arithmetic": "nnunet-1.7",
///  "accumulation": "f32", "input": [{"bytes": 12345, "sample": "2c26b46b", "digest": "fcde2b2e"}]}
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    entries: Map<String, Value>,
    input: Vec<InputFile>,
}

/// What an output that may be there already is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is not there.
    Absent,
    /// It is what would be written.
    Same,
    /// It is something else.
    Other {
        /// What would be written.
        expected: String,
        /// What is there.
        found: String,
    },
}

impl Record {
    /// Of predictions by this program with a model and settings, whatever their input.
    ///
    /// # Errors
    /// When the settings are none, as for [`predict()`](crate::predict()).
    pub fn new(model: &Model, options: &PredictOptions) -> Result<Self, InferError> {
        let settings = window_settings(model, options)?;
        let mut entries = Map::new();
        let mut put = |key: &str, value: Value| entries.insert(key.to_owned(), value);
        put(KEY, VERSION.into());
        put("program", env!("CARGO_PKG_VERSION").into());
        if let Some(digest) = model.digest() {
            put(MODEL, digest.into());
        }
        put("mode", json!(options.mode));
        put("step size", settings.step_size.into());
        put("mirrored axes", json!(settings.mirror_axes));
        put("arithmetic", json!(settings.reference));
        put("accumulation", json!(settings.effective_accumulation()));
        if model.precision() != NetworkPrecision::F32 {
            put(PRECISION, json!(model.precision()));
        }
        Ok(Self { entries, input: Vec::new() })
    }

    /// The same of another measure of confidence, which labels do not depend on.
    pub fn with_confidence(&self, measure: ConfidenceMeasure) -> Self {
        let mut record = self.clone();
        record.entries.insert("confidence".to_owned(), json!(measure));
        record
    }

    /// The same of a picture, whatever it shows the labels with.
    pub fn with_picture(&self, shown: &str) -> Self {
        let mut record = self.clone();
        record.entries.insert("picture".to_owned(), shown.into());
        record
    }

    /// The same of one scan among several in its files, such as a DICOM series of an archive.
    ///
    /// Only a digest of the name is kept.
    pub fn with_part(&self, name: &str) -> Self {
        let mut record = self.clone();
        let mut digest = Digest::default();
        digest.part(name.as_bytes());
        record.entries.insert("part of the input".to_owned(), digest.finish().into());
        record
    }

    /// The same of a scan whose axes were turned to an orientation, see
    /// [`Opener::turned_to`](stunet_data::nifti::Opener::turned_to).
    ///
    /// A scan that runs so already has the record of one that is taken as it is. What the plans' own
    /// reader does goes without saying: it is part of the model.
    pub fn with_orientation(&self, turned_to: Orientation) -> Self {
        let mut record = self.clone();
        record.entries.insert("orientation".to_owned(), json!(turned_to));
        record
    }

    /// The same of labels that were treated after the prediction: what was done, under a name such as
    /// `clean-up`.
    pub fn with_entry(&self, name: &str, value: Value) -> Self {
        let mut record = self.clone();
        record.entries.insert(name.to_owned(), value);
        record
    }

    /// The same of other settings: every entry of the other record, but its input.
    pub fn with_settings(&self, other: &Self) -> Self {
        let mut record = self.clone();
        record.entries.extend(other.entries.clone());
        record
    }

    /// The same of labels in another form, such as a DICOM segmentation.
    pub fn with_form(&self, form: &str) -> Self {
        let mut record = self.clone();
        record.entries.insert("form".to_owned(), form.into());
        record
    }

    /// The same with the input, which is read once.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn with_input(&self, files: &[PathBuf]) -> Result<Self, InferError> {
        let files = files.iter().flat_map(|file| formats::files_of(file));
        let input = files.map(|file| InputFile::read(&file)).collect::<Result<_, _>>()?;
        Ok(Self { entries: self.entries.clone(), input })
    }

    /// Fails where a file of the input has changed since it was read for this record.
    ///
    /// # Errors
    /// Names the file.
    pub fn check_input(&self) -> Result<(), InferError> {
        self.input.iter().try_for_each(InputFile::check_unchanged)
    }

    /// The text that an output carries.
    pub fn text(&self) -> String {
        self.to_json().to_string()
    }

    /// The same as JSON: an output in JSON carries it under `made_by`.
    pub fn to_json(&self) -> Value {
        let mut entries = self.entries.clone();
        entries.insert(INPUT.to_owned(), self.input.iter().map(InputFile::to_json).collect());
        Value::Object(entries)
    }

    /// What the output at `path` is, if it is to be made of these files with this record's program,
    /// model and settings. Without files, they are not compared.
    ///
    /// An input that has not changed since the output was written is not read again but for a sample.
    ///
    /// # Errors
    /// When the input cannot be read.
    pub fn standing(&self, path: &Path, files: Option<&[PathBuf]>) -> Result<Standing, InferError> {
        if !path.exists() {
            return Ok(Standing::Absent);
        }
        let Some(found) = read(path) else {
            return Ok(Standing::Other {
                expected: "a file that says what made it".to_owned(),
                found: "one of another program or an earlier version".to_owned(),
            });
        };
        if !self.entries.contains_key(MODEL) {
            return Ok(Standing::Other {
                expected: "a network that says which one it is (`Network::identity`)".to_owned(),
                found: "a network that does not, so the file may be of another".to_owned(),
            });
        }
        if let Some((expected, found)) = self.difference(&found) {
            return Ok(Standing::Other { expected, found });
        }
        let same = match files {
            Some(files) => same_input(path, files, &found)?,
            None => true,
        };
        Ok(match same {
            true => Standing::Same,
            false => Standing::Other {
                expected: "one made from the input as it is".to_owned(),
                found: "one made from another input, or from an earlier state of it".to_owned(),
            },
        })
    }

    /// The first entry that differs, as expected and as found.
    fn difference(&self, found: &Map<String, Value>) -> Option<(String, String)> {
        let keys = self.entries.keys().chain(found.keys());
        let mut keys = keys.filter(|key| *key != INPUT);
        let key = keys.find(|key| self.entries.get(*key) != found.get(*key))?;
        let absent = if key == PRECISION { "f32" } else { "none" };
        let told =
            |entries: &Map<String, Value>| entries.get(key).map_or_else(|| absent.to_owned(), word);
        let (expected, found) = (told(&self.entries), told(found));
        Some(match key.as_str() {
            MODEL => (
                format!("one of this model ({expected:.8})"),
                format!("one of another model or other folds ({found:.8})"),
            ),
            _ => (format!("one made with {key} {expected}"), found),
        })
    }
}

/// A value for people: without quotes, and short where a file holds whatever it may.
fn word(value: &Value) -> String {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(word).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    };
    text.chars().take(100).collect()
}

fn same_input(
    output: &Path,
    files: &[PathBuf],
    found: &Map<String, Value>,
) -> Result<bool, InferError> {
    let files: Vec<_> = files.iter().flat_map(|file| formats::files_of(file)).collect();
    let written = std::fs::metadata(output).and_then(|of| of.modified()).ok();
    let recorded = found.get(INPUT).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if recorded.len() != files.len() {
        return Ok(false);
    }
    for (file, recorded) in files.iter().zip(recorded) {
        if !input::is_recorded(file, recorded, written)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The record that a file carries, if it carries one.
fn read(path: &Path) -> Option<Map<String, Value>> {
    let ending = path.extension().unwrap_or_default();
    if ending == "json" {
        let found: Value = stunet_data::files::read_json(path).ok()?;
        let made_by = found.get(MADE_BY)?.as_object()?;
        return made_by.contains_key(KEY).then(|| made_by.clone());
    }
    let texts = match ending.to_str() {
        Some("npz" | "zip") => vec![comment_of_zip(path)?],
        Some("png") => {
            let file = std::io::BufReader::new(stunet_data::files::open(path).ok()?);
            vec![stunet_pictures::note::note_of_png(file)?]
        }
        _ => formats::read_notes(path).ok()?,
    };
    texts.iter().find_map(|text| match serde_json::from_str(text) {
        Ok(Value::Object(entries)) if entries.contains_key(KEY) => Some(entries),
        _ => None,
    })
}

fn comment_of_zip(path: &Path) -> Option<String> {
    let file = std::io::BufReader::new(stunet_data::files::open(path).ok()?);
    let archive = zip::ZipArchive::new(file).ok()?;
    String::from_utf8(archive.comment().to_vec()).ok()
}

#[cfg(test)]
mod tests;
