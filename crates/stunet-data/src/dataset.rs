//! nnU-Net's folder layout: cases, their channel files, and `dataset.json`.

mod cases;
pub(crate) mod convert;
mod import;
mod listing;
mod orientation;
mod scan;
mod training;

pub use crate::error::Problem;
pub use cases::{
    Case, Cases, Labelmaps, folded, list_cases, list_labelmaps, same_on_some_systems, stem,
};
pub use convert::in_version_2;
pub use import::{DatasetOrigin, Imported, import};
pub use orientation::ImageOrientations;
pub use scan::{PassedOver, Reason, told};
pub use training::{RawDataset, TrainingCaseFiles};

use crate::error::{Result, invalid};
use crate::geometry::Leniency;
use crate::labels::LabelSet;
use crate::nifti::{Opener, Reader};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

/// The ending of files where `dataset.json` says none, as version 1 has them.
pub(crate) const DEFAULT_ENDING: &str = ".nii.gz";

/// What `dataset.json` says.
#[derive(Clone, Debug, PartialEq)]
pub struct DatasetInfo {
    /// Channel names, in order.
    pub channel_names: Vec<String>,
    /// Labels or regions.
    pub labels: LabelSet,
    /// File ending, such as `.nii.gz`.
    pub file_ending: String,
    /// Which of nnU-Net's readers opens the files (`overwrite_image_reader_writer`).
    pub reader: Reader,
    /// What of their headers is forgiven: nothing, unless whoever reads them says so.
    pub leniency: Leniency,
}

impl DatasetInfo {
    /// Reads the content of a `dataset.json` of either nnU-Net.
    ///
    /// # Errors
    /// When channel names or labels are missing or malformed, or a reader is asked for that is not
    /// known here.
    pub fn from_json(value: &Value) -> Result<Self> {
        let shown = |value: Option<&Value>| value.map_or("nothing".to_owned(), Value::to_string);
        let entry = value.get("channel_names").or_else(|| value.get("modality"));
        let channels = entry.and_then(Value::as_object).filter(|names| !names.is_empty());
        let channels = channels.ok_or_else(|| {
            let expected = "names by number, such as {\"0\": \"CT\"}";
            invalid("dataset.json", "channel_names", expected, shown(entry))
        })?;
        let channel_names = (0..channels.len())
            .map(|c| {
                let name = channels.get(&c.to_string());
                let key = format!("channel_names.{c}");
                let text = name.and_then(Value::as_str).map(str::to_owned);
                text.ok_or_else(|| invalid("dataset.json", key, "a name", shown(name)))
            })
            .collect::<Result<_>>()?;
        let file_ending = match value.get("file_ending") {
            None => DEFAULT_ENDING,
            Some(Value::String(ending)) => ending,
            Some(found) => {
                return Err(invalid("dataset.json", "file_ending", "an ending in quotes", found));
            }
        };
        Ok(Self {
            channel_names,
            labels: LabelSet::from_dataset_json(value)?,
            file_ending: file_ending.to_owned(),
            reader: reader(value)?,
            leniency: Leniency::default(),
        })
    }

    /// How the files are opened.
    pub fn opener(&self) -> Opener {
        self.reader.leniently(self.leniency)
    }

    /// Label values of the foreground, sorted; the ignore label is none of them.
    pub fn classes(&self) -> Vec<u16> {
        let values = self.labels.labels().iter().flat_map(|label| &label.values);
        let classes: BTreeSet<u16> = values.copied().filter(|value| *value > 0).collect();
        classes.into_iter().collect()
    }

    /// Reads a `dataset.json` file.
    ///
    /// # Errors
    /// When the file is missing or malformed.
    pub fn load(path: &Path) -> Result<Self> {
        let value: Value = crate::files::read_json(path)?;
        Self::from_json(&value).map_err(|e| e.at(path))
    }
}

/// The reader that is asked for; without one (`None` is nnU-Net's word for it), the first of its
/// readers that takes the ending.
fn reader(dataset: &Value) -> Result<Reader> {
    const KEY: &str = "overwrite_image_reader_writer";
    // SimpleITK's reader of nnU-Net does not claim this ending; the next one does.
    let plain = dataset.get("file_ending").is_some_and(|ending| ending == ".nii");
    let usual = if plain { Reader::Nibabel } else { Reader::SimpleItk };
    match dataset.get(KEY) {
        None | Some(Value::Null) => Ok(usual),
        Some(Value::String(name)) if name == "None" => Ok(usual),
        Some(Value::String(name)) => Reader::from_name("dataset.json", KEY, name),
        Some(other) => Err(invalid("dataset.json", KEY, "the name of a reader", other)),
    }
}
