//! What a case is: `CASE_0000.nii.gz`, `CASE_0001.nii.gz`, ... are the channels of one, and
//! `CASE.nii.gz` is its labelmap.

use super::scan::{Entry, PassedOver, Reason, Scan, few, name_of, scan, told};
use crate::error::{DataError, Result};
use crate::{formats, nifti};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// The files of one patient, in channel order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// Name without channel number and ending.
    pub name: String,
    /// One file per channel.
    pub files: Vec<PathBuf>,
}

/// The cases of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cases {
    /// Sorted by name.
    pub cases: Vec<Case>,
    /// Files that belong to none of them.
    pub passed_over: Vec<PassedOver>,
}

/// The labelmaps of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labelmaps {
    /// Names of cases and their files, sorted. A case with two files (`.nii` and `.nii.gz`) is there
    /// twice.
    pub files: Vec<(String, PathBuf)>,
    /// Files that are no labelmaps.
    pub passed_over: Vec<PassedOver>,
}

impl Case {
    /// A case given by its files: one file of any name, or `CASE_0000`, `CASE_0001`, ... in any
    /// order.
    ///
    /// Four digits at the end of a single file's name are a channel number only where they are
    /// `_0000`, as nnU-Net has it: `scan_0001.nii.gz` is the case `scan_0001`, and two scans of one
    /// folder keep their own names. The header of a pair (`scan.hdr`) stands for its voxels
    /// (`scan.img`), which may be given, too, or instead.
    ///
    /// # Errors
    /// When several files are not the complete channels of one case.
    pub fn from_files(files: &[PathBuf]) -> Result<Self> {
        let header_is_given = |file: &&PathBuf| files.len() > 1 && nifti::has_header_beside(file);
        let files: Vec<_> = files.iter().filter(|file| !header_is_given(file)).cloned().collect();
        let Some(first) = files.first() else {
            return Err(DataError::NoCases);
        };
        if let [file] = &files[..] {
            let stem = stem(file).unwrap_or_default();
            let name = stem.strip_suffix("_0000").filter(|name| !name.is_empty()).unwrap_or(stem);
            return Ok(Self { name: name.to_owned(), files: vec![file.clone()] });
        }
        let mut cases = group(files.iter().map(|file| (file.clone(), false)))?;
        match (cases.pop(), cases.is_empty()) {
            (Some(case), true) if case.files.len() == files.len() => Ok(case),
            _ => {
                let names: Vec<_> = files.iter().map(|file| name_of(file)).collect();
                Err(DataError::Mismatch {
                    what: "case of the channel files",
                    expected: "the files CASE_0000, CASE_0001, ... of one case (several cases \
                               are given by their folder)"
                        .to_owned(),
                    found: few(&names),
                }
                .at(first))
            }
        }
    }
}

/// Lists the cases of a folder, sorted by name, and the files that belong to none.
///
/// # Errors
/// When the folder cannot be read, holds no case, a case lacks a channel or has two files for one,
/// or the file of a channel beside others is a link that leads nowhere.
///
/// # Source
/// nnU-Net 2.8.1, `get_identifiers_from_splitted_dataset_folder`: four digits before the ending
/// number the channels.
///
/// # Deviations
/// Hidden files are no cases. A file without channel number is passed over, where nnU-Net takes its
/// last five letters for one.
pub fn list_cases(folder: &Path) -> Result<Cases> {
    let Scan { entries, mut passed_over, hidden } = scan(folder)?;
    let mut files = Vec::new();
    for Entry { path, dangling, .. } in entries {
        match stem(&path).map(split_channel) {
            Some(Some(_)) => files.push((path, dangling)),
            _ if dangling => passed_over.push(over(path, Reason::DanglingLink)),
            Some(None) => passed_over.push(over(path, Reason::NoChannel)),
            None => passed_over.push(over(path, Reason::OtherEnding)),
        }
    }
    // Nothing of such a case is there: it is told, and does not keep the others waiting.
    let absent = absent_cases(&files);
    files.retain(|(path, _)| {
        let gone = channel_of(path).is_some_and(|(name, _)| absent.contains(name));
        if gone {
            passed_over.push(over(path.clone(), Reason::DanglingLink));
        }
        !gone
    });
    let cases = group(files.into_iter()).map_err(|e| e.at(folder))?;
    passed_over.sort_by(|a, b| a.file.cmp(&b.file));
    if cases.is_empty() {
        let found = found_instead(&passed_over, hidden);
        return Err(DataError::NothingOfACase { found }.at(folder));
    }
    Ok(Cases { cases, passed_over })
}

/// Lists the labelmaps of a folder (`CASE.nii.gz`, `CASE.nii`), sorted by name.
///
/// # Errors
/// When the folder cannot be read, or a labelmap is a link that leads nowhere.
pub fn list_labelmaps(folder: &Path) -> Result<Labelmaps> {
    let Scan { entries, mut passed_over, .. } = scan(folder)?;
    let mut files = Vec::new();
    for Entry { path, dangling, .. } in entries {
        match stem(&path) {
            Some(_) if dangling => return Err(DataError::DanglingLink.at(&path)),
            Some(name) => files.push((name.to_owned(), path)),
            None if dangling => passed_over.push(over(path, Reason::DanglingLink)),
            None => passed_over.push(over(path, Reason::OtherEnding)),
        }
    }
    passed_over.sort_by(|a, b| a.file.cmp(&b.file));
    files.sort();
    Ok(Labelmaps { files, passed_over })
}

/// Names as file systems compare them that do not tell capitals from small letters.
///
/// What is equal here may be one file there.
pub fn folded(name: &str) -> String {
    name.to_lowercase()
}

/// Two names that some file systems take for one, if there are any.
pub fn same_on_some_systems<'a>(
    names: impl IntoIterator<Item = &'a str>,
) -> Option<(&'a str, &'a str)> {
    let mut seen = HashMap::new();
    names.into_iter().find_map(|name| Some((seen.insert(folded(name), name)?, name)))
}

/// What a folder without cases holds, for people.
pub(super) fn found_instead(passed_over: &[PassedOver], hidden: usize) -> String {
    match (told(passed_over), hidden) {
        (Some(told), _) => told,
        (None, 0) => "none".to_owned(),
        (None, hidden) => format!("{hidden} hidden file(s) only"),
    }
}

fn over(file: PathBuf, reason: Reason) -> PassedOver {
    PassedOver { file, reason }
}

/// Names of cases of which every file is a link that leads nowhere.
fn absent_cases(files: &[(PathBuf, bool)]) -> BTreeSet<String> {
    let mut there: BTreeMap<&str, bool> = BTreeMap::new();
    for (path, dangling) in files {
        if let Some((name, _)) = channel_of(path) {
            *there.entry(name).or_default() |= !dangling;
        }
    }
    there.into_iter().filter(|(_, there)| !there).map(|(name, _)| name.to_owned()).collect()
}

/// Files by case and channel; each with whether it is a link that leads nowhere.
fn group(files: impl Iterator<Item = (PathBuf, bool)>) -> Result<Vec<Case>> {
    let mut cases: BTreeMap<String, BTreeMap<usize, PathBuf>> = BTreeMap::new();
    for (file, dangling) in files {
        let Some((name, channel)) = channel_of(&file) else { continue };
        if dangling {
            return Err(DataError::DanglingLink.at(&file));
        }
        let previous = cases.entry(name.to_owned()).or_default().insert(channel, file.clone());
        if let Some(previous) = previous {
            return Err(DataError::Mismatch {
                what: "number of files for one channel",
                expected: "1".to_owned(),
                found: format!("{} and {}", name_of(&previous), name_of(&file)),
            }
            .at(&file));
        }
    }
    cases.into_iter().map(|(case, channels)| complete(case, channels)).collect()
}

/// A case whose channels are numbered from 0 without a gap.
fn complete(case: String, channels: BTreeMap<usize, PathBuf>) -> Result<Case> {
    match (0..channels.len()).find(|c| !channels.contains_key(c)) {
        Some(missing) => {
            let names: Vec<_> = channels.values().map(|file| name_of(file)).collect();
            Err(DataError::MissingChannel { case, missing, found: few(&names) })
        }
        None => Ok(Case { name: case, files: channels.into_values().collect() }),
    }
}

/// File name without the ending of a volume's file (`.nii.gz`, `.mha`, `.nrrd`, …); none for other files.
pub fn stem(file: &Path) -> Option<&str> {
    let name = file.file_name()?.to_str()?;
    formats::split_ending(name).map(|(stem, _)| stem)
}

/// Case and channel that a file's name says.
fn channel_of(file: &Path) -> Option<(&str, usize)> {
    stem(file).and_then(split_channel)
}

pub(super) fn split_channel(stem: &str) -> Option<(&str, usize)> {
    let (name, digits) = stem.rsplit_once('_')?;
    let four = digits.len() == 4 && digits.bytes().all(|b| b.is_ascii_digit());
    (four && !name.is_empty()).then_some((name, digits.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in names {
            std::fs::write(folder.path().join(name), b"").unwrap();
        }
        folder
    }

    /// Names of the cases with their numbers of channels, and of what was passed over.
    fn check(names: &[&str], cases: &[(&str, usize)], passed_over: &[(&str, Reason)]) {
        let folder = folder(names);
        let found = list_cases(folder.path()).unwrap();
        let seen: Vec<_> = found.cases.iter().map(|c| (c.name.as_str(), c.files.len())).collect();
        assert_eq!(seen, cases, "{names:?}");
        let seen: Vec<_> =
            found.passed_over.iter().map(|over| (name_of(&over.file), over.reason)).collect();
        let expected: Vec<_> = passed_over.iter().map(|(n, r)| ((*n).to_owned(), *r)).collect();
        assert_eq!(seen, expected, "{names:?}");
    }

    #[test]
    fn cases_of_a_folder_and_what_is_passed_over() {
        check(&["b_0000.nii.gz", "a_0001.nii", "a_0000.nii.gz"], &[("a", 2), ("b", 1)], &[]);
        check(&["a_0000.nii", "._a_0000.nii", ".hidden_0000.nii"], &[("a", 1)], &[]);
        check(&["a_0000.nii", "plans.json", "a.npz", "a.zarr.zip"], &[("a", 1)], &[]);
        // A header stands for its voxels; voxels without one are heard of when they are read.
        check(&["a_0000.hdr", "a_0000.img", "b_0000.img"], &[("a", 1), ("b", 1)], &[]);
        check(
            &["a_0000.nii", "B_0000.NII.GZ", "c.nii.gz", "d_0000.png", "notes.txt"],
            &[("a", 1)],
            &[
                ("B_0000.NII.GZ", Reason::OtherEnding),
                ("c.nii.gz", Reason::NoChannel),
                ("d_0000.png", Reason::OtherEnding),
                ("notes.txt", Reason::OtherEnding),
            ],
        );
        check(&["a_b_0000_0000.nii"], &[("a_b_0000", 1)], &[]);
        check(&["a_0000.nii", "_0000.nii"], &[("a", 1)], &[("_0000.nii", Reason::NoChannel)]);
    }

    fn check_refused(names: &[&str], words: &[&str]) {
        let folder = folder(names);
        let message = list_cases(folder.path()).unwrap_err().to_string();
        for word in words {
            assert!(message.contains(word), "no {word:?} in: {message}");
        }
    }

    #[test]
    fn folders_that_are_refused() {
        check_refused(&["a_0001.nii"], &["case a", "expected channel file _0000"]);
        check_refused(&["a_0000.nii", "a_0002.nii"], &["channel file _0001", "a_0002.nii"]);
        check_refused(
            &["word_0001.nii", "word_0002.nii", "word_0003.nii", "word_0004.nii"],
            &["case word", "_0000", "word_0001.nii", "and 1 more", "different cases, add _0000"],
        );
        check_refused(&["a_0000.nii", "a_0000.nii.gz"], &["a_0000.nii and a_0000.nii.gz"]);
        check_refused(&[], &["no cases found", "CASE_0000.nii.gz", "found none"]);
        check_refused(&["._a_0000.nii"], &["1 hidden file"]);
        check_refused(&["a.nii", "b.nii"], &["a.nii, b.nii (no channel number"]);
        let absent = folder(&[]).path().join("absent");
        assert!(list_cases(&absent).unwrap_err().to_string().contains("no such"));
    }

    fn check_files(names: &[&str], expected: Result<&str, &str>) {
        let files: Vec<PathBuf> = names.iter().map(PathBuf::from).collect();
        match (Case::from_files(&files), expected) {
            (Ok(case), Ok(name)) => {
                assert_eq!((case.name.as_str(), case.files.len()), (name, files.len()))
            }
            (Err(error), Err(word)) => assert!(error.to_string().contains(word), "{error}"),
            (found, expected) => panic!("{names:?}: {found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn a_case_given_by_its_files() {
        check_files(&["in/c.nii.gz"], Ok("c"));
        check_files(&["case_0000.nii.gz"], Ok("case"));
        check_files(&["scan_0001.nii.gz"], Ok("scan_0001"));
        check_files(&["patient_2021.nii"], Ok("patient_2021"));
        check_files(&["scan_0001_0000.nii"], Ok("scan_0001"));
        check_files(&["_0000.nii"], Ok("_0000"));
        check_files(&["ct.nrrd"], Ok("ct"));
        check_files(&["ct.gipl"], Ok(""));
        check_files(&["a_0001.nii", "a_0000.nii"], Ok("a"));
        check_files(&["a_0001.nii", "a_0002.nii"], Err("different cases, add _0000"));
        check_files(&["a_0000.nii", "b_0000.nii"], Err("found a_0000.nii, b_0000.nii"));
        check_files(&["a_0000.nii", "b.nii"], Err("by their folder"));
        check_files(&["a_0000.nii", "a_0000.nii.gz"], Err("a_0000.nii and a_0000.nii.gz"));
    }

    #[test]
    fn no_two_files_of_a_folder_become_one_case() {
        // Every way of ending a name, predicted file by file: as many names as files.
        let names =
            ["s", "s_0000_0000", "s_0001", "s_0002", "s_2021", "s_12345", "s_00001", "s0001"];
        let cases =
            names.map(|name| Case::from_files(&[format!("{name}.nii").into()]).unwrap().name);
        let unique: BTreeSet<_> = cases.iter().collect();
        assert_eq!(unique.len(), names.len(), "{cases:?}");
    }

    #[test]
    fn names_that_are_one_on_some_systems() {
        let check = |names: &[&str], expected| {
            assert_eq!(same_on_some_systems(names.iter().copied()), expected);
        };
        check(&["a", "b", "c"], None);
        check(&["CT_1", "b", "ct_1"], Some(("CT_1", "ct_1")));
        check(&["Größe", "GRÖSSE", "GRÖßE"], Some(("Größe", "GRÖßE")));
    }

    #[cfg(unix)]
    #[test]
    fn links_folders_pipes_and_names_that_are_no_text() {
        use std::os::unix::ffi::OsStrExt;
        use std::os::unix::fs::symlink;
        let folder = folder(&["a_0000.nii"]);
        let at = |name: &str| folder.path().join(name);
        symlink("absent", at("b_0000.nii")).unwrap();
        symlink(at("a_0000.nii"), at("c_0000.nii")).unwrap();
        symlink("loop_0000.nii", at("loop_0000.nii")).unwrap();
        std::fs::create_dir(at("d_0000.nii")).unwrap();
        // Not every file system takes such a name.
        let odd = folder.path().join(std::ffi::OsStr::from_bytes(b"e\xff_0000.nii"));
        let odd = std::fs::write(odd, b"").is_ok();
        let found = list_cases(folder.path()).unwrap();
        let names: Vec<_> = found.cases.iter().map(|case| case.name.as_str()).collect();
        assert_eq!(names, ["a", "c"]);
        let clause = told(&found.passed_over).unwrap();
        for words in ["b_0000.nii (a link to", "d_0000.nii (a folder)", "loop_0000.nii (cannot be"]
        {
            assert!(clause.contains(words), "no {words:?} in: {clause}");
        }
        assert_eq!(clause.contains("is not UTF-8"), odd, "{clause}");
        // Half of a case is there: that is an error.
        symlink("absent", at("a_0001.nii")).unwrap();
        let message = list_cases(folder.path()).unwrap_err().to_string();
        assert!(message.contains("is not there") && message.ends_with("a_0001.nii"), "{message}");
    }

    #[test]
    fn labelmaps_of_a_folder() {
        let folder =
            folder(&["b.nii", "a_0001.nii.gz", "._b.nii", "c.NII", "summary.json", "b.npz"]);
        let found = list_labelmaps(folder.path()).unwrap();
        let names: Vec<_> = found.files.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a_0001", "b"]);
        assert_eq!(told(&found.passed_over).unwrap().split(' ').next(), Some("c.NII"));
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("absent", folder.path().join("d.nii")).unwrap();
            let message = list_labelmaps(folder.path()).unwrap_err().to_string();
            assert!(message.ends_with("d.nii"), "{message}");
        }
    }

    #[test]
    fn many_files_are_counted() {
        let over = |i: usize| over(format!("in/c{i}.nii").into(), Reason::NoChannel);
        let files: Vec<_> = (0..1000).map(over).collect();
        assert!(
            told(&files).unwrap().starts_with("c0.nii, c1.nii, c2.nii and 997 more (no channel")
        );
        assert_eq!(told(&[]), None);
    }
}
