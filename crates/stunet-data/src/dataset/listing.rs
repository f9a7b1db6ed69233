//! Which training cases there are, and where their files should be.

use super::cases::{found_instead, split_channel, stem};
use super::scan::{ENDINGS, Entry, PassedOver, Reason, Scan, few, name_of, scan, told};
use super::{DatasetInfo, TrainingCaseFiles, same_on_some_systems};
use crate::error::{DataError, Result, invalid};
use crate::files::plain_name;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The training cases of a dataset.
pub(super) struct Listed {
    /// Sorted by name; their files are the expected ones.
    pub cases: Vec<TrainingCaseFiles>,
    /// Files of `imagesTr` and `labelsTr` that cannot belong to a case.
    pub passed_over: Vec<PassedOver>,
    /// What was left out or assumed, one sentence each.
    pub notes: Vec<String>,
}

/// The cases that `dataset.json` names, or else those of `imagesTr`.
///
/// # Errors
/// When there is none, their number is not `numTraining`, a name cannot be the name of a file, or two
/// names are one on some file systems.
pub(super) fn list(folder: &Path, json: &Value, info: &DatasetInfo) -> Result<Listed> {
    let images = folder.join("imagesTr");
    let (listed, found) = match json.get("dataset") {
        Some(entries) => (listed_by_path(folder, entries)?, None),
        None => {
            let found = Found::of(&images, info)?;
            (by_name(folder, json, info, &found)?, Some(found))
        }
    };
    if listed.cases.is_empty() {
        let found = found_instead(&listed.passed_over, found.map_or(0, |found| found.hidden));
        return Err(DataError::NothingOfACase { found }.at(&images));
    }
    check_count(json, info, &listed, found.as_ref())?;
    check_names(&listed.cases)?;
    Ok(listed)
}

/// Cases whose files are named after them.
fn by_name(folder: &Path, json: &Value, info: &DatasetInfo, found: &Found) -> Result<Listed> {
    let mut notes = Vec::new();
    let mut passed_over = found.passed_over.clone();
    let names = match listed_names(json)? {
        None => found.cases.keys().cloned().collect(),
        Some(names) => {
            check_listed(&names, found)?;
            let surplus: Vec<_> = found.cases.keys().filter(|n| !names.contains(*n)).collect();
            if !surplus.is_empty() {
                let (count, named) = (surplus.len(), few(&surplus));
                notes.push(format!(
                    "{count} case(s) of imagesTr are not listed in dataset.json: {named}"
                ));
            }
            names
        }
    };
    found.check_ending(&names, info)?;
    found.check_channels(&names, info)?;
    let labels = folder.join("labelsTr");
    let (unused, odd) = surplus_labels(&labels, &info.file_ending, &names);
    passed_over.extend(odd);
    if !unused.is_empty() {
        let (count, named) = (unused.len(), few(&unused));
        notes.push(format!("{count} file(s) of labelsTr belong to no training case: {named}"));
    }
    let file = |folder: &Path, stem: String| folder.join(stem + &info.file_ending);
    let case = |name: String| {
        let count = found.cases.get(&name).map_or(0, BTreeMap::len).max(info.channel_names.len());
        TrainingCaseFiles {
            images: (0..count).map(|c| file(&found.folder, format!("{name}_{c:04}"))).collect(),
            labels: file(&labels, name.clone()),
            name,
        }
    };
    Ok(Listed { cases: names.into_iter().map(case).collect(), passed_over, notes })
}

/// nnU-Net 2's `dataset`: files by case, relative to the folder or anywhere.
fn listed_by_path(folder: &Path, entries: &Value) -> Result<Listed> {
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
    Ok(Listed { cases, passed_over: Vec::new(), notes: Vec::new() })
}

/// Names of nnU-Net 1's list `training`, where there is one.
fn listed_names(json: &Value) -> Result<Option<BTreeSet<String>>> {
    let v1 = json.get("channel_names").is_none();
    let Some(list) = json.get("training").filter(|_| v1).and_then(Value::as_array) else {
        return Ok(None);
    };
    let name = |(index, entry): (usize, &Value)| {
        let image = entry.get("image").and_then(Value::as_str);
        let name = image.and_then(|file| stem(Path::new(file)));
        name.map(str::to_owned).ok_or_else(|| {
            let expected = "an `image` such as ./imagesTr/CASE.nii.gz";
            let found = image.map_or_else(|| "something else".to_owned(), |i| format!("{i:.60}"));
            invalid("dataset.json", format!("training.{index}"), expected, found)
        })
    };
    let names: Vec<String> = list.iter().enumerate().map(name).collect::<Result<_>>()?;
    let mut unique = BTreeSet::new();
    for (index, name) in names.into_iter().enumerate() {
        if let Some(twice) = unique.replace(name) {
            // nnU-Net 1.7 refuses them, too.
            let key = format!("training.{index}");
            return Err(invalid(
                "dataset.json",
                key,
                "every case once",
                format_args!("{twice} twice"),
            ));
        }
    }
    Ok(Some(unique))
}

/// The list names cases, not files: those with a channel number are told once, not file by file.
fn check_listed(names: &BTreeSet<String>, found: &Found) -> Result<()> {
    let channel = |name: &&String| {
        let case = split_channel(name).filter(|_| !found.cases.contains_key(*name));
        case.is_some_and(|(case, _)| found.cases.contains_key(case))
    };
    let wrong: Vec<&String> = names.iter().filter(channel).collect();
    let Some(first) = wrong.first() else {
        return Ok(());
    };
    let case = split_channel(first).map_or(first.as_str(), |(case, _)| case);
    let expected = format!(
        "names of cases, without channel number, as ./imagesTr/{case}.nii.gz for the file {first}"
    );
    let found = format!("{} of {} names with one: {}", wrong.len(), names.len(), few(&wrong));
    Err(invalid("dataset.json", "training", expected, found))
}

/// As many cases as `numTraining` says, where it says so.
fn check_count(
    json: &Value,
    info: &DatasetInfo,
    listed: &Listed,
    found: Option<&Found>,
) -> Result<()> {
    let cases = &listed.cases;
    match json.get("numTraining") {
        Some(count) if count.as_u64() != Some(cases.len() as u64) => {
            // Names that were misread explain the number.
            if let Some(found) = found {
                found.check_surplus(info)?;
            }
            let names: Vec<_> = cases.iter().map(|case| &case.name).collect();
            let over = told(&listed.passed_over);
            let over = over.map_or_else(String::new, |over| format!("; passed over: {over}"));
            let expected = format!(
                "{}, the number of training cases there are ({}{over})",
                cases.len(),
                few(&names)
            );
            Err(invalid("dataset.json", "numTraining", expected, count))
        }
        _ => Ok(()),
    }
}

/// Every name becomes names of files, in the store and elsewhere.
fn check_names(cases: &[TrainingCaseFiles]) -> Result<()> {
    for case in cases {
        plain_name("dataset.json", "name of a training case", &case.name)?;
    }
    match same_on_some_systems(cases.iter().map(|case| case.name.as_str())) {
        Some((first, second)) => Err(invalid(
            "dataset.json",
            "names of training cases",
            "names that differ in more than capitals, as files of such names are one on some systems",
            format_args!("{first} and {second}"),
        )),
        None => Ok(()),
    }
}

/// What `imagesTr` holds.
struct Found {
    folder: PathBuf,
    /// Channel files by case and channel, complete or not; links that lead nowhere among them.
    cases: BTreeMap<String, BTreeMap<usize, PathBuf>>,
    passed_over: Vec<PassedOver>,
    hidden: usize,
}

impl Found {
    fn of(folder: &Path, info: &DatasetInfo) -> Result<Self> {
        let Scan { entries, passed_over, hidden } = scan(folder)?;
        let mut found =
            Self { folder: folder.to_owned(), cases: BTreeMap::new(), passed_over, hidden };
        for entry in entries {
            match entry.name.strip_suffix(&info.file_ending).map(split_channel) {
                Some(Some((name, channel))) => {
                    found.cases.entry(name.to_owned()).or_default().insert(channel, entry.path);
                }
                Some(None) => found.pass_over(entry, Reason::NoChannel),
                None => found.pass_over(entry, Reason::NotTheDatasetsEnding),
            }
        }
        Ok(found)
    }

    fn pass_over(&mut self, entry: Entry, reason: Reason) {
        let reason = if entry.dangling { Reason::DanglingLink } else { reason };
        self.passed_over.push(PassedOver { file: entry.path, reason });
    }

    /// Fails where no file has the ending that is asked for, and others would be images.
    fn check_ending(&self, names: &BTreeSet<String>, info: &DatasetInfo) -> Result<()> {
        if names.iter().any(|name| self.cases.contains_key(name)) {
            return Ok(());
        }
        for ending in ENDINGS.into_iter().filter(|ending| *ending != info.file_ending) {
            let has = |over: &&PassedOver| {
                stem(&over.file).is_some() && name_of(&over.file).ends_with(ending)
            };
            let count = self.passed_over.iter().filter(has).count();
            if count > 0 {
                let expected = format!("{ending}, the ending of {count} file(s) of imagesTr");
                return Err(invalid("dataset.json", "file_ending", expected, &info.file_ending));
            }
        }
        Ok(())
    }

    /// Fails where names were misread: they end in numbers, and none of them is `_0000`.
    fn check_channels(&self, names: &BTreeSet<String>, info: &DatasetInfo) -> Result<()> {
        let misread = |channels: &BTreeMap<usize, PathBuf>| {
            let last =
                channels.last_key_value().is_some_and(|(c, _)| *c >= info.channel_names.len());
            last && !channels.contains_key(&0)
        };
        let cases = names.iter().filter_map(|name| self.cases.get_key_value(name));
        self.refuse(cases.into_iter().find(|(_, channels)| misread(channels)), info)
    }

    /// Fails where a case has more files than the dataset has channels.
    fn check_surplus(&self, info: &DatasetInfo) -> Result<()> {
        let expected = info.channel_names.len();
        self.refuse(self.cases.iter().find(|(_, channels)| channels.len() > expected), info)
    }

    fn refuse(
        &self,
        case: Option<(&String, &BTreeMap<usize, PathBuf>)>,
        info: &DatasetInfo,
    ) -> Result<()> {
        let Some((name, channels)) = case else {
            return Ok(());
        };
        let names: Vec<_> = channels.values().map(|file| name_of(file)).collect();
        let (expected, case) = (info.channel_names.len(), name.clone());
        Err(DataError::TooManyChannels { case, expected, found: few(&names) }.at(&self.folder))
    }
}

/// Labelmaps of no training case by name, and files that are no labelmaps. An unreadable folder has
/// none: the labels are missed case by case.
fn surplus_labels(
    folder: &Path,
    ending: &str,
    names: &BTreeSet<String>,
) -> (Vec<String>, Vec<PassedOver>) {
    let Ok(Scan { entries, mut passed_over, .. }) = scan(folder) else {
        return Default::default();
    };
    let mut unused = Vec::new();
    for Entry { path, name, dangling } in entries {
        match name.strip_suffix(ending) {
            Some(case) if names.contains(case) => {}
            Some(_) if !dangling => unused.push(name),
            stem => {
                let reason = match (dangling, stem) {
                    (true, _) => Reason::DanglingLink,
                    _ => Reason::NotTheDatasetsEnding,
                };
                passed_over.push(PassedOver { file: path, reason });
            }
        }
    }
    (unused, passed_over)
}
