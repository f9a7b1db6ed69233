//! Which training cases there are, and where their files should be.

use super::{DatasetInfo, TrainingCaseFiles, files_of, split_channel, stem};
use crate::error::{Result, invalid};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The cases that `dataset.json` names, or else those of `imagesTr`.
pub(super) fn list(
    folder: &Path,
    json: &Value,
    info: &DatasetInfo,
    notes: &mut Vec<String>,
) -> Result<Vec<TrainingCaseFiles>> {
    if let Some(entries) = json.get("dataset") {
        return listed_by_path(folder, entries);
    }
    let images = folder.join("imagesTr");
    let mut found = group_files(&images, &info.file_ending)?;
    if let Some(names) = listed_by_name(json) {
        let surplus = found.keys().filter(|name| !names.contains(*name)).count();
        if surplus > 0 {
            notes.push(format!("{surplus} case(s) of imagesTr are not listed in dataset.json"));
        }
        found =
            names.into_iter().map(|n| (n.clone(), found.remove(&n).unwrap_or_default())).collect();
    }
    let labels = folder.join("labelsTr");
    let unused = stems(&labels, &info.file_ending).filter(|name| !found.contains_key(name)).count();
    if unused > 0 {
        notes.push(format!("{unused} file(s) of labelsTr belong to no training case"));
    }
    let file = |folder: &Path, stem: String| folder.join(stem + &info.file_ending);
    Ok(found
        .into_iter()
        .map(|(name, channels)| {
            let count = channels.len().max(info.channel_names.len());
            TrainingCaseFiles {
                images: (0..count).map(|c| file(&images, format!("{name}_{c:04}"))).collect(),
                labels: file(&labels, name.clone()),
                name,
            }
        })
        .collect())
}

/// nnU-Net 2's `dataset`: files by case, relative to the folder or anywhere.
fn listed_by_path(folder: &Path, entries: &Value) -> Result<Vec<TrainingCaseFiles>> {
    let bad = |key: String| {
        let expected = "a list of `images` and a file `label`";
        invalid("dataset.json", key, expected, "something else")
    };
    let entries = entries.as_object().ok_or_else(|| bad("dataset".to_owned()))?;
    let mut cases = Vec::new();
    for (name, entry) in entries {
        let path = |value: &Value| value.as_str().map(|text| folder.join(text));
        let images = entry.get("images").and_then(Value::as_array);
        let images = images.and_then(|list| list.iter().map(path).collect::<Option<Vec<_>>>());
        let labels = entry.get("label").and_then(path);
        match (images, labels) {
            (Some(images), Some(labels)) if !images.is_empty() => {
                cases.push(TrainingCaseFiles { name: name.clone(), images, labels });
            }
            _ => return Err(bad(format!("dataset.{name}"))),
        }
    }
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(cases)
}

/// Names of nnU-Net 1's list `training`, where there is one.
fn listed_by_name(json: &Value) -> Option<BTreeSet<String>> {
    let list = json.get("training").filter(|_| json.get("channel_names").is_none())?.as_array()?;
    let name = |entry: &Value| {
        let file = Path::new(entry.get("image")?.as_str()?);
        stem(file).map(str::to_owned)
    };
    list.iter().map(name).collect()
}

/// Names of the files with the ending; an unreadable folder has none.
fn stems(folder: &Path, ending: &str) -> impl Iterator<Item = String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(move |entry| {
        let name = entry.file_name().into_string().ok()?;
        name.strip_suffix(ending).map(str::to_owned)
    })
}

/// Channel files by case and channel.
type Grouped = BTreeMap<String, BTreeMap<usize, PathBuf>>;

/// The channel files of a folder with one ending, complete or not.
fn group_files(folder: &Path, ending: &str) -> Result<Grouped> {
    let mut cases = Grouped::new();
    for file in files_of(folder)? {
        let name = file.file_name().and_then(|name| name.to_str());
        let found = name.and_then(|name| split_channel(name.strip_suffix(ending)?));
        if let Some((name, channel)) = found.map(|(name, channel)| (name.to_owned(), channel)) {
            cases.entry(name).or_default().insert(channel, file);
        }
    }
    Ok(cases)
}
