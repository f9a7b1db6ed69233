//! Folds and checkpoints of a folder, chosen from what lies there.

use super::description::Folds;
use super::files::Files;
use crate::error::InferError;
use std::path::{Path, PathBuf};

/// A folder `fold_X`.
pub(super) struct FoldFolder {
    pub name: String,
    pub path: PathBuf,
}

/// The fold folders of a model, numbers first and ascending.
pub(super) fn folds_in(files: &Files, path: &Path) -> impl Iterator<Item = FoldFolder> + use<> {
    let folders = files.entries(path).into_iter().filter(|entry| files.is_dir(entry));
    let mut folds: Vec<_> = folders
        .filter_map(|path| {
            let name = path.file_name()?.to_str()?.strip_prefix("fold_")?.to_owned();
            Some(FoldFolder { name, path })
        })
        .collect();
    let number = |fold: &FoldFolder| fold.name.parse::<usize>().unwrap_or(usize::MAX);
    folds.sort_by(|a, b| (number(a), &a.name).cmp(&(number(b), &b.name)));
    folds.into_iter()
}

/// The folders of the wanted folds.
pub(super) fn choose_folds(
    files: &Files,
    path: &Path,
    wanted: &Folds,
) -> Result<Vec<FoldFolder>, InferError> {
    let found: Vec<_> = folds_in(files, path).collect();
    let names: Vec<String> = match wanted {
        Folds::All => vec!["all".to_owned()],
        Folds::Numbers(numbers) => numbers.iter().map(usize::to_string).collect(),
        Folds::Found => {
            let numbered = |fold: &&FoldFolder| fold.name.parse::<usize>().is_ok();
            let numbers: Vec<_> = found.iter().filter(numbered).map(|f| f.name.clone()).collect();
            match numbers.is_empty() {
                true => vec!["all".to_owned()],
                false => numbers,
            }
        }
    };
    let there: Vec<_> = found.iter().map(|f| format!("fold_{}", f.name)).collect();
    let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
    let mut chosen = Vec::new();
    for name in names {
        // A fold named twice would count twice.
        if chosen.iter().any(|c: &FoldFolder| c.name == name) {
            continue;
        }
        let fold = found.iter().find(|f| f.name == name);
        let Some(fold) = fold else {
            return Err(InferError::Mismatch {
                what: "folds",
                expected: format!("fold_{name}"),
                found: there,
                path: path.to_owned(),
            });
        };
        chosen.push(FoldFolder { name, path: fold.path.clone() });
    }
    Ok(chosen)
}

/// The folders of the wanted folds, and a sentence about them.
pub(super) fn choose_folds_noted(
    files: &Files,
    path: &Path,
    wanted: &Folds,
) -> Result<(Vec<FoldFolder>, String), InferError> {
    let chosen = choose_folds(files, path, wanted)?;
    let list = |folds: &mut dyn Iterator<Item = String>| folds.collect::<Vec<_>>().join(", ");
    let taken = list(&mut chosen.iter().map(|fold| fold.name.clone()));
    let mut left = folds_in(files, path)
        .map(|fold| fold.name)
        .filter(|name| !chosen.iter().any(|fold| fold.name == *name));
    let left = list(&mut left);
    let what = if chosen.len() == 1 { "fold taken" } else { "folds averaged" };
    Ok((
        chosen,
        match left.is_empty() {
            true => format!("{what}: {taken} (all there are)"),
            false => format!("{what}: {taken}; left out: {left}"),
        },
    ))
}

/// The checkpoint of one fold: the named one, else the first of the `usual` ones that is there,
/// else the only one.
pub(super) fn choose_checkpoint(
    files: &Files,
    folder: &Path,
    wanted: Option<&str>,
    ending: &str,
    usual: &[&str],
) -> Result<PathBuf, InferError> {
    let file = |name: &str| folder.join(format!("{name}.{ending}"));
    let mut there: Vec<String> = files
        .entries(folder)
        .iter()
        .filter_map(|entry| Some(entry.file_name()?.to_str()?.to_owned()))
        .filter(|name| Path::new(name).extension().is_some_and(|e| e == ending))
        .collect();
    there.sort();
    let listed = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
    let missing = |expected: String| InferError::Mismatch {
        what: "checkpoint",
        expected,
        found: listed.clone(),
        path: folder.to_owned(),
    };
    if let Some(name) = wanted {
        let name = name.strip_suffix(&format!(".{ending}")).unwrap_or(name);
        let path = file(name);
        return files
            .is_file(&path)
            .then_some(path)
            .ok_or_else(|| missing(format!("{name}.{ending}")));
    }
    let usual = usual.iter().map(|name| file(name)).find(|path| files.is_file(path));
    match (usual, &there[..]) {
        (Some(path), _) => Ok(path),
        (None, [only]) => Ok(folder.join(only)),
        (None, []) => Err(missing(format!("a .{ending} file"))),
        (None, _) => Err(missing("one of them by name (checkpoint)".to_owned())),
    }
}

/// The checkpoint of every fold: of one name, as weights of different moments of training are not
/// averaged by mistake. Where nobody names it and it is not the trainer's final one, that is noted.
pub(super) fn choose_checkpoints(
    files: &Files,
    (path, folds): (&Path, &[FoldFolder]),
    wanted: Option<&str>,
    (ending, usual): (&str, &[&str]),
    notes: &mut Vec<String>,
) -> Result<Vec<PathBuf>, InferError> {
    let choose = |fold: &FoldFolder| choose_checkpoint(files, &fold.path, wanted, ending, usual);
    let chosen = folds.iter().map(choose).collect::<Result<Vec<_>, _>>()?;
    let name = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let names: Vec<_> = chosen.iter().map(|path| name(path)).collect();
    if names.iter().any(|other| *other != names[0]) {
        let found =
            folds.iter().zip(&names).map(|(fold, name)| format!("fold_{} {name}", fold.name));
        return Err(InferError::Mismatch {
            what: "checkpoints of the folds",
            expected: "the same in every fold (choose one with -chk, or finished folds with -f)"
                .to_owned(),
            found: found.collect::<Vec<_>>().join(", "),
            path: path.to_owned(),
        });
    }
    if wanted.is_none() && usual.first().is_some_and(|usual| *usual != names[0]) {
        notes.push(format!("there is no {}: {} is taken", usual[0], names[0]));
    }
    Ok(chosen)
}

/// A path that is one fold, held against the folds that are wanted.
pub(super) fn check_fold(fold: &str, wanted: &Folds, path: &Path) -> Result<(), InferError> {
    let wanted = match wanted {
        Folds::Found => return Ok(()),
        Folds::All => "all".to_owned(),
        Folds::Numbers(numbers) => {
            numbers.iter().map(usize::to_string).collect::<Vec<_>>().join(", ")
        }
    };
    if wanted == fold {
        return Ok(());
    }
    Err(InferError::Mismatch {
        what: "folds",
        expected: format!("{fold}, the fold that the path names"),
        found: wanted,
        path: path.to_owned(),
    })
}

/// A checkpoint given by its path, held against the one that is named besides.
pub(super) fn check_named(path: &Path, wanted: Option<&str>) -> Result<(), InferError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    match wanted {
        Some(wanted) if wanted != name && wanted != stem => Err(InferError::Mismatch {
            what: "checkpoint",
            expected: format!("{stem}, as the path is that file"),
            found: wanted.to_owned(),
            path: path.to_owned(),
        }),
        _ => Ok(()),
    }
}

pub(super) fn not_a_model(path: &Path, expected: &'static str, found: &str) -> InferError {
    InferError::NotAModel { expected, found: found.to_owned(), path: path.to_owned() }
}
