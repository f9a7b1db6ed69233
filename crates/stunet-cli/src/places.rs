//! No output of a command is one of its inputs, and no two outputs are one file.
//!
//! Checked before anything is written, also through links, and for file systems that do not
//! distinguish capital from small letters.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::bail;
use stunet::data::dataset::folded;
use stunet::data::formats;

/// A file that a command is going to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// What it is, for people: an option, or the result of a case.
    pub what: String,
    /// Where it goes.
    pub path: PathBuf,
}

impl Output {
    /// A file to write, and what it is.
    pub fn new(what: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self { what: what.into(), path: path.into() }
    }

    /// Files of a folder to write.
    pub fn in_folder<'a>(
        what: &'a str,
        folder: &'a Path,
        names: impl IntoIterator<Item = &'a str>,
    ) -> impl Iterator<Item = Self> {
        names.into_iter().map(move |name| Self::new(what, folder.join(name)))
    }
}

/// Fails where an output would replace an input or another output.
///
/// Two paths are one place when they lead to the same file, or when they differ in capitals only: on
/// some file systems that is one file.
pub fn check(
    inputs: impl IntoIterator<Item = PathBuf>,
    outputs: impl IntoIterator<Item = Output>,
) -> anyhow::Result<()> {
    let mut folders = Folders::default();
    let (mut read, mut files) = (HashMap::new(), HashMap::new());
    // Who reads a header reads the voxels beside it.
    let inputs = inputs.into_iter().flat_map(|input| formats::files_of(&input));
    for input in inputs {
        if let Some(file) = file_at(&input) {
            files.entry(file).or_insert_with(|| input.clone());
        }
        read.entry(folders.place(&input)).or_insert(input);
    }
    let mut written: HashMap<PathBuf, Output> = HashMap::new();
    for output in outputs {
        let place = folders.place(&output.path);
        let clash = read.get(&place).or_else(|| files.get(&file_at(&output.path)?));
        if let Some(input) = clash {
            bail!("{}", overwrites(&output, input));
        }
        if let Some(other) = written.get(&place) {
            bail!(
                "{} and {} would be written to one file (names that differ in capitals only are one \
                 on some systems); rename one of them, or write it to another folder: {}",
                other.what,
                output.what,
                output.path.display()
            );
        }
        written.insert(place, output);
    }
    Ok(())
}

fn overwrites(output: &Output, input: &Path) -> String {
    let (what, path) = (&output.what, output.path.display());
    match input == output.path {
        true => {
            format!("{what}: would overwrite the input; give it another name or folder: {path}")
        }
        false => format!(
            "{what}: would overwrite the input {} (by a link, or as the names differ in capitals \
             only); give it another name or folder: {path}",
            input.display()
        ),
    }
}

/// Canonical names of folders that were asked for before: a folder of cases is asked once.
#[derive(Default)]
struct Folders(HashMap<PathBuf, PathBuf>);

impl Folders {
    /// Where a file lies, in a form that is equal for equal places. The file itself need not be there,
    /// nor its folder.
    fn place(&mut self, file: &Path) -> PathBuf {
        let folder = file.parent().unwrap_or(Path::new(""));
        if !self.0.contains_key(folder) {
            self.0.insert(folder.to_owned(), canonical(folder));
        }
        let place = self.0[folder].join(file.file_name().unwrap_or_default());
        match place.to_str() {
            Some(text) => folded(text).into(),
            None => place,
        }
    }
}

/// A folder without links; of one that is not there, the part that is.
fn canonical(folder: &Path) -> PathBuf {
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    match (folder.canonicalize(), folder.parent(), folder.file_name()) {
        (Ok(canonical), ..) => canonical,
        (Err(_), Some(parent), Some(name)) => canonical(parent).join(name),
        _ => folder.to_owned(),
    }
}

/// What tells the file at a path from every other one, however it is called; none where there is none.
#[cfg(unix)]
fn file_at(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).ok().map(|of| (of.dev(), of.ino()))
}

#[cfg(not(unix))]
fn file_at(path: &Path) -> Option<PathBuf> {
    fs::canonicalize(path).ok()
}

/// Whether two paths lead to one file that is there.
pub fn are_one(first: &Path, second: &Path) -> bool {
    file_at(first).is_some_and(|file| file_at(second) == Some(file))
}

/// The files of a model folder of this program.
pub const MODEL_FOLDER: [&str; 4] =
    ["labels.json", "network.json", "plans.json", "weights.safetensors"];

/// The files that are read to open a model: those that carry weights, plans or labels.
///
/// A folder's reports are none of them: they may be written anew.
pub fn of_model(path: &Path) -> Vec<PathBuf> {
    if path.is_dir() {
        let mut files = Vec::new();
        add_files_of_model(path, &mut files);
        return files;
    }
    // A checkpoint's plans and labels lie beside it, or beside its fold.
    let mut pickled = path.as_os_str().to_owned();
    pickled.push(".pkl");
    let mut files = vec![path.to_owned(), pickled.into()];
    for folder in path.ancestors().skip(1).take(2) {
        let names = ["dataset.json", "plans.json", "plans.pkl"];
        files.extend(names.map(|name| folder.join(name)).into_iter().filter(|f| f.exists()));
    }
    files
}

/// Those of a folder, of its folds, and of the model in a fold.
fn add_files_of_model(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        if !path.is_dir() {
            files.extend(is_of_model(&name).then_some(path));
        } else if !path.is_symlink() && (name.starts_with("fold_") || name == "model") {
            add_files_of_model(&path, files);
        }
    }
}

fn is_of_model(name: &str) -> bool {
    [".model", ".pkl", ".pth", ".safetensors"].iter().any(|ending| name.ends_with(ending))
        || ["dataset.json", "labels.json", "network.json", "plans.json"].contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asserts that writing `outputs` while `inputs` are read is refused with all of `words`, or not
    /// at all where there are none. `a.nii` and `sub/b.nii` are there.
    fn refused(inputs: &[&str], outputs: &[&str], words: &[&str]) {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &&str| folder.path().join(name);
        fs::create_dir(at(&"sub")).unwrap();
        for name in ["a.nii", "sub/b.nii"] {
            fs::write(at(&name), name).unwrap();
        }
        fs::hard_link(at(&"a.nii"), at(&"hard.nii")).unwrap();
        #[cfg(unix)]
        for (target, link) in [("a.nii", "link.nii"), ("sub", "linked"), ("absent", "dangling.nii")]
        {
            std::os::unix::fs::symlink(target, at(&link)).unwrap();
        }
        let outputs = outputs.iter().enumerate();
        let outputs = outputs.map(|(i, name)| Output::new(format!("output {i}"), at(name)));
        match (check(inputs.iter().map(at), outputs), words) {
            (Ok(()), []) => {}
            (Err(error), [_, ..]) => {
                let message = error.to_string();
                for word in words {
                    assert!(message.contains(word), "no {word:?} in: {message}");
                }
            }
            (outcome, _) => panic!("{inputs:?}: {outcome:?}, expected {words:?}"),
        }
    }

    #[test]
    fn outputs_are_no_inputs() {
        refused(&["a.nii"], &["x.nii", "new/deep/a.nii"], &[]);
        refused(
            &["a.nii"],
            &["x.nii", "a.nii"],
            &["output 1: would overwrite the input;", "a.nii"],
        );
        refused(&["a.nii"], &["sub/../a.nii"], &["overwrite the input", "by a link"]);
        refused(&["a.nii"], &["A.NII"], &["overwrite the input", "capitals"]);
        refused(&["a.nii"], &["hard.nii"], &["overwrite the input", "a.nii"]);
        refused(&["absent.nii"], &["absent.nii"], &["overwrite the input"]);
        #[cfg(unix)]
        {
            refused(&["a.nii"], &["link.nii"], &["overwrite the input", "by a link"]);
            refused(&["link.nii"], &["a.nii"], &["overwrite the input", "link.nii"]);
            refused(&["sub/b.nii"], &["linked/b.nii"], &["overwrite the input"]);
            refused(&["sub/b.nii"], &["linked/B.nii", "linked/c.nii"], &["overwrite the input"]);
            refused(&["sub/b.nii"], &["linked/c.nii", "dangling.nii"], &[]);
        }
    }

    #[test]
    fn outputs_are_files_of_their_own() {
        refused(&[], &["x.nii", "y.nii"], &[]);
        refused(&[], &["new/x.nii", "new/x.nii"], &["output 0 and output 1", "x.nii"]);
        refused(&[], &["new/CT.nii", "y", "new/ct.nii"], &["output 0 and output 2", "capitals"]);
        #[cfg(unix)]
        refused(&[], &["sub/x.nii", "linked/x.nii"], &["output 0 and output 1"]);
    }

    #[test]
    fn files_of_a_model() {
        let folder = tempfile::tempdir().unwrap();
        let plain = ["m/plans.json", "m/report.json", "m/other/x.pth", "f.model", "f.model.pkl"];
        let names = plain.into_iter().chain(["m/fold_0/x.pth", "m/fold_0/model/network.json"]);
        for name in names {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, b"").unwrap();
        }
        let check = |path: &str, expected: &[&str]| {
            let mut found = of_model(&folder.path().join(path));
            found.sort();
            let expected: Vec<_> = expected.iter().map(|name| folder.path().join(name)).collect();
            assert_eq!(found, expected);
        };
        check("m", &["m/fold_0/model/network.json", "m/fold_0/x.pth", "m/plans.json"]);
        check("f.model", &["f.model", "f.model.pkl"]);
        check("m/fold_0/x.pth", &["m/fold_0/x.pth", "m/fold_0/x.pth.pkl", "m/plans.json"]);
    }
}
