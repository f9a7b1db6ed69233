//! nnU-Net's folder layout: cases, their channel files, and `dataset.json`.

pub(crate) mod convert;
mod listing;
mod orientation;
mod training;

pub use convert::in_version_2;
pub use training::{Problem, RawDataset, TrainingCaseFiles};

use crate::error::{DataError, Result, invalid};
use crate::labels::LabelSet;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The files of one patient, in channel order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Name without channel number and ending.
    pub name: String,
    /// One file per channel.
    pub files: Vec<PathBuf>,
}

impl Case {
    /// A case given by its files: one file of any name, or `CASE_0000`, `CASE_0001`, ... in any
    /// order.
    ///
    /// # Errors
    /// When several files are not the complete channels of one case.
    pub fn from_files(files: &[PathBuf]) -> Result<Self> {
        let Some(first) = files.first() else {
            return Err(DataError::NoCases);
        };
        if let [file] = files {
            let stem = stem(file).unwrap_or_default();
            let name = split_channel(stem).map_or(stem, |(name, _)| name);
            return Ok(Self { name: name.to_owned(), files: vec![file.clone()] });
        }
        let cases = group(files.iter().cloned())?;
        match <[Self; 1]>::try_from(cases) {
            Ok([case]) if case.files.len() == files.len() => Ok(case),
            _ => Err(DataError::Mismatch {
                what: "case of the channel files",
                expected: "files CASE_0000, CASE_0001, ... of one case".to_owned(),
                found: format!("{} files of other names", files.len()),
            }
            .at(first)),
        }
    }
}

/// Lists the cases of a folder, sorted by name. Other files are passed over.
///
/// # Errors
/// When the folder cannot be read, holds no case, or a case lacks a channel.
pub fn list_cases(folder: &Path) -> Result<Vec<Case>> {
    let cases = group(files_of(folder)?.into_iter()).map_err(|e| e.at(folder))?;
    if cases.is_empty() {
        return Err(DataError::NoCases.at(folder));
    }
    Ok(cases)
}

fn files_of(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(|e| DataError::io("read", e).at(folder))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|e| DataError::io("read", e).at(folder))?.path();
        if path.is_file() {
            files.push(path);
        }
    }
    Ok(files)
}

fn group(files: impl Iterator<Item = PathBuf>) -> Result<Vec<Case>> {
    let mut cases: BTreeMap<String, BTreeMap<usize, PathBuf>> = BTreeMap::new();
    for file in files {
        if let Some((name, channel)) = stem(&file).and_then(split_channel) {
            let previous = cases.entry(name.to_owned()).or_default().insert(channel, file.clone());
            if previous.is_some() {
                return Err(DataError::Mismatch {
                    what: "number of files for one channel",
                    expected: "1".to_owned(),
                    found: "2 (.nii and .nii.gz)".to_owned(),
                }
                .at(&file));
            }
        }
    }
    cases
        .into_iter()
        .map(|(case, channels)| {
            let found = channels.len();
            match (0..found).find(|c| !channels.contains_key(c)) {
                Some(missing) => Err(DataError::MissingChannel { case, missing, found }),
                None => Ok(Case { name: case, files: channels.into_values().collect() }),
            }
        })
        .collect()
}

/// File name without `.nii` or `.nii.gz`; none for other files.
pub fn stem(file: &Path) -> Option<&str> {
    let name = file.file_name()?.to_str()?;
    name.strip_suffix(".nii.gz").or_else(|| name.strip_suffix(".nii"))
}

fn split_channel(stem: &str) -> Option<(&str, usize)> {
    let (name, digits) = stem.rsplit_once('_')?;
    let four = digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_digit());
    (four && !name.is_empty()).then_some((name, digits.parse().ok()?))
}

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
}

impl DatasetInfo {
    /// Reads the content of a `dataset.json` of either nnU-Net.
    ///
    /// # Errors
    /// When channel names or labels are missing or malformed.
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
        })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_of_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["b_0000.nii.gz", "a_0001.nii.gz", "a_0000.nii.gz", "notes.txt", "c.nii.gz"] {
            std::fs::write(folder.path().join(name), b"").unwrap();
        }
        let cases = list_cases(folder.path()).unwrap();
        let found: Vec<_> = cases.iter().map(|c| (c.name.as_str(), c.files.len())).collect();
        assert_eq!(found, [("a", 2), ("b", 1)]);
        assert_eq!(Case::from_files(&cases[0].files).unwrap(), cases[0]);
        let lone = Case::from_files(&[folder.path().join("c.nii.gz")]).unwrap();
        assert_eq!(lone.name, "c");
    }

    #[test]
    fn a_missing_channel_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a_0001.nii.gz"), b"").unwrap();
        let message = list_cases(folder.path()).unwrap_err().to_string();
        assert!(message.contains("expected channel file _0000"), "{message}");
    }

    #[test]
    fn an_empty_folder_says_what_it_expects() {
        let folder = tempfile::tempdir().unwrap();
        let message = list_cases(folder.path()).unwrap_err().to_string();
        assert!(message.contains("CASE_0000.nii.gz"), "{message}");
        assert!(
            list_cases(&folder.path().join("absent")).unwrap_err().to_string().contains("no such")
        );
    }
}
