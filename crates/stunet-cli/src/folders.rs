//! nnU-Net's folders: `nnUNet_raw/DATASET` and, beside it, `nnUNet_preprocessed/DATASET` and
//! `nnUNet_results/DATASET`.

use std::path::{Path, PathBuf};

const RAW: &str = "nnUNet_raw";
const PREPROCESSED: &str = "nnUNet_preprocessed";
const RESULTS: &str = "nnUNet_results";

/// Where the plans and cases of a raw dataset go.
pub fn preprocessed_of(raw: &Path) -> PathBuf {
    sibling(raw, RAW, PREPROCESSED)
}

/// Where the raw files of a planned dataset are.
pub fn raw_of(preprocessed: &Path) -> PathBuf {
    sibling(preprocessed, PREPROCESSED, RAW)
}

/// Where the results of training on a planned dataset go.
pub fn results_of(preprocessed: &Path) -> PathBuf {
    sibling(preprocessed, PREPROCESSED, RESULTS)
}

/// The folders `fold_X` of a results folder, numbers first and ascending.
pub fn folds_of(results: &Path) -> Vec<PathBuf> {
    let number = |path: &Path| -> Option<(usize, String)> {
        let name = path.file_name()?.to_str()?.strip_prefix("fold_")?.to_owned();
        Some((name.parse().unwrap_or(usize::MAX), name))
    };
    let entries = std::fs::read_dir(results).into_iter().flatten().flatten();
    let mut folds: Vec<_> = entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .filter_map(|path| Some((number(&path)?, path)))
        .collect();
    folds.sort();
    folds.into_iter().map(|(_, path)| path).collect()
}

/// `../to/DATASET` beside the dataset, or `../../to/DATASET` where it lies in a folder `from`.
fn sibling(dataset: &Path, from: &str, to: &str) -> PathBuf {
    let dataset = dataset.canonicalize().unwrap_or_else(|_| dataset.to_owned());
    let name = dataset.file_name().unwrap_or_default();
    let parent = dataset.parent().unwrap_or(&dataset);
    let within = parent.file_name().is_some_and(|name| name.to_string_lossy().starts_with(from));
    let home = if within { parent.parent().unwrap_or(parent) } else { parent };
    home.join(to).join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_in_their_order() {
        let home = tempfile::tempdir().unwrap();
        for name in ["fold_10", "fold_2", "fold_all", "validation"] {
            std::fs::create_dir(home.path().join(name)).unwrap();
        }
        std::fs::write(home.path().join("fold_3"), b"").unwrap();
        let expected = ["fold_2", "fold_10", "fold_all"].map(|name| home.path().join(name));
        assert_eq!(folds_of(home.path()), expected);
        assert!(folds_of(&home.path().join("absent")).is_empty());
    }

    #[test]
    fn each_beside_the_other() {
        let check = |found: PathBuf, expected: &str| assert_eq!(found, Path::new(expected));
        check(preprocessed_of(Path::new("/x/nnUNet_raw/D1")), "/x/nnUNet_preprocessed/D1");
        check(preprocessed_of(Path::new("/x/data/D1")), "/x/data/nnUNet_preprocessed/D1");
        check(raw_of(Path::new("/x/nnUNet_preprocessed/D1")), "/x/nnUNet_raw/D1");
        check(results_of(Path::new("/x/nnUNet_preprocessed/D1")), "/x/nnUNet_results/D1");
    }
}
