//! nnU-Net's folders: `nnUNet_raw/DATASET` and, beside it, `nnUNet_preprocessed/DATASET` and
//! `nnUNet_results/DATASET`; or wherever nnU-Net's environment variables say. A dataset is named by its
//! path, by its name or by its number.

use std::path::{Component, Path, PathBuf};

use anyhow::{bail, ensure};

/// What a folder of datasets holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    /// Images and labels.
    Raw,
    /// Plans and prepared cases.
    Preprocessed,
    /// Trained models.
    Results,
}

impl Home {
    const ALL: [Self; 3] = [Self::Raw, Self::Preprocessed, Self::Results];

    /// Its usual name, which is that of nnU-Net 2's variable as well.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "nnUNet_raw",
            Self::Preprocessed => "nnUNet_preprocessed",
            Self::Results => "nnUNet_results",
        }
    }
}

/// The folders that nnU-Net's variables name.
#[derive(Clone, Debug, Default)]
pub struct Homes(Vec<(Home, PathBuf)>);

impl Homes {
    /// Those of the variables that this program was started with: nnU-Net 2's, then nnU-Net 1's.
    #[allow(clippy::disallowed_methods, reason = "the one place where the binary reads them")]
    pub fn read() -> Self {
        Self::of(|name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from))
    }

    /// Those that `variable` gives.
    pub fn of(variable: impl Fn(&str) -> Option<PathBuf>) -> Self {
        let mut homes = Vec::new();
        for home in Home::ALL {
            homes.extend(variable(home.name()).map(|path| (home, path)));
        }
        let raw = variable("nnUNet_raw_data_base").map(|base| base.join("nnUNet_raw_data"));
        homes.extend(raw.map(|path| (Home::Raw, path)));
        let results = variable("RESULTS_FOLDER").map(|base| base.join("nnUNet"));
        homes.extend(results.map(|path| (Home::Results, path)));
        Self(homes)
    }

    /// The folders of one kind.
    pub fn each(&self, home: Home) -> impl Iterator<Item = &Path> {
        self.0.iter().filter(move |(kind, _)| *kind == home).map(|(_, path)| path.as_path())
    }

    /// Where trained models of a version of nnU-Net are kept; those of version 1 below `nnUNet` there.
    pub fn of_results(&self, version: u8) -> Option<PathBuf> {
        let is_1 = |home: &&Path| home.file_name().is_some_and(|name| name == "nnUNet");
        let mut all = self.each(Home::Results);
        match version {
            1 => all.find(is_1).and_then(Path::parent).map(Path::to_owned),
            _ => all.find(|home| !is_1(home)).map(Path::to_owned),
        }
    }

    /// The dataset that is meant: a path that exists; else a name or a number, looked for in the folders
    /// of the given kinds, in this order.
    pub fn dataset(&self, given: &Path, homes: &[Home]) -> anyhow::Result<PathBuf> {
        let folders: Vec<PathBuf> =
            homes.iter().flat_map(|home| self.each(*home)).map(Path::to_owned).collect();
        Self::dataset_in(given, homes[0], &folders)
    }

    /// As [`Homes::dataset`], in the given folders; `home` names the variable that would name one.
    pub fn dataset_in(given: &Path, home: Home, folders: &[PathBuf]) -> anyhow::Result<PathBuf> {
        let mut parts = given.components();
        let name = match (parts.next(), parts.next()) {
            (Some(Component::Normal(name)), None) if !given.exists() => name.to_string_lossy(),
            // What is wrong with a path is told by whoever opens it.
            _ => return Ok(given.to_owned()),
        };
        let Some(asked) = Asked::of(&name) else { return Ok(given.to_owned()) };
        for folder in folders {
            let mut found = asked.within(folder);
            found.sort();
            match &found[..] {
                [] => {}
                [one] => return Ok(one.clone()),
                [first, second, ..] => bail!(
                    "dataset {name}: expected one folder of this number, found {} and {}; give its \
                     path",
                    first.display(),
                    second.display()
                ),
            }
        }
        let variable = home.name();
        ensure!(
            !folders.is_empty(),
            "dataset {name}: expected the path of a folder, or the variable {variable} set to the \
             folder of the datasets, found neither"
        );
        let shown: Vec<_> = folders.iter().map(|folder| folder.display().to_string()).collect();
        bail!("dataset {name}: expected {asked} in {}, found none", shown.join(" or "))
    }

    /// The same dataset in a folder of another kind: where the variables say, if it lies where they say;
    /// else beside its own folder.
    fn moved(&self, dataset: &Path, from: Home, to: Home) -> PathBuf {
        let dataset = dataset.canonicalize().unwrap_or_else(|_| dataset.to_owned());
        let name = dataset.file_name().unwrap_or_default();
        let parent = dataset.parent().unwrap_or(&dataset);
        let is_parent = |home: &Path| home.canonicalize().is_ok_and(|home| home == parent);
        if self.each(from).any(is_parent)
            && let Some(home) = self.each(to).next()
        {
            return home.join(name);
        }
        let own = parent.file_name().is_some_and(|own| {
            let own = own.to_string_lossy();
            own.starts_with(from.name())
        });
        let above = if own { parent.parent().unwrap_or(parent) } else { parent };
        above.join(to.name()).join(name)
    }
}

/// How a dataset was named, where not by its path.
enum Asked<'a> {
    Number(u32),
    Name(&'a str),
}

impl<'a> Asked<'a> {
    fn of(name: &'a str) -> Option<Self> {
        if let Ok(number) = name.parse() {
            return Some(Self::Number(number));
        }
        let named = name.starts_with("Dataset") || name.starts_with("Task");
        named.then_some(Self::Name(name))
    }

    fn within(&self, folder: &Path) -> Vec<PathBuf> {
        match self {
            Self::Name(name) => {
                let path = folder.join(name);
                if path.is_dir() { vec![path] } else { Vec::new() }
            }
            Self::Number(number) => {
                let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
                let wanted = ["Dataset", "Task"].map(|kind| format!("{kind}{number:03}_"));
                let is = |path: &PathBuf| {
                    let name = path.file_name().unwrap_or_default().to_string_lossy();
                    wanted.iter().any(|wanted| name.starts_with(wanted)) && path.is_dir()
                };
                entries.map(|entry| entry.path()).filter(is).collect()
            }
        }
    }
}

impl std::fmt::Display for Asked<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => write!(f, "a folder Dataset{number:03}_NAME"),
            Self::Name(_) => f.write_str("a folder of this name"),
        }
    }
}

/// Where the plans and cases of a raw dataset go.
pub fn preprocessed_of(raw: &Path) -> PathBuf {
    Homes::read().moved(raw, Home::Raw, Home::Preprocessed)
}

/// Where the raw files of a planned dataset are.
pub fn raw_of(preprocessed: &Path) -> PathBuf {
    Homes::read().moved(preprocessed, Home::Preprocessed, Home::Raw)
}

/// Where the results of training on a planned dataset go.
pub fn results_of(preprocessed: &Path) -> PathBuf {
    Homes::read().moved(preprocessed, Home::Preprocessed, Home::Results)
}

/// Where a dataset of results has its files of another kind.
pub fn beside_results(results: &Path, to: Home) -> PathBuf {
    Homes::read().moved(results, Home::Results, to)
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
        let check = |dataset: &str, from, to, expected: &str| {
            let found = Homes::default().moved(Path::new(dataset), from, to);
            assert_eq!(found, Path::new(expected));
        };
        use Home::{Preprocessed, Raw, Results};
        check("/x/nnUNet_raw/D1", Raw, Preprocessed, "/x/nnUNet_preprocessed/D1");
        check("/x/data/D1", Raw, Preprocessed, "/x/data/nnUNet_preprocessed/D1");
        check("/x/nnUNet_preprocessed/D1", Preprocessed, Raw, "/x/nnUNet_raw/D1");
        check("/x/nnUNet_preprocessed/D1", Preprocessed, Results, "/x/nnUNet_results/D1");
    }

    /// Folders `raw` with three datasets, and `results`, both named by variables.
    fn scene() -> (tempfile::TempDir, Homes) {
        let folder = tempfile::tempdir().unwrap();
        let home = folder.path().canonicalize().unwrap();
        for name in ["raw/Dataset501_Liver", "raw/Task007_Old", "raw/Dataset007_New", "results"] {
            std::fs::create_dir_all(home.join(name)).unwrap();
        }
        let homes = Homes::of(|name| match name {
            "nnUNet_raw" => Some(home.join("raw")),
            "nnUNet_preprocessed" => Some(home.join("prepared")),
            "RESULTS_FOLDER" => Some(home.join("results")),
            _ => None,
        });
        (folder, homes)
    }

    #[test]
    fn by_number_name_or_path() {
        let (folder, homes) = scene();
        let home = folder.path().canonicalize().unwrap();
        let find = |given: &str| homes.dataset(Path::new(given), &[Home::Raw]);
        let expected = home.join("raw/Dataset501_Liver");
        assert_eq!(find("501").unwrap(), expected);
        assert_eq!(find("Dataset501_Liver").unwrap(), expected);
        let path = home.join("raw/Task007_Old");
        assert_eq!(find(path.to_str().unwrap()).unwrap(), path);
        // Whoever opens it says that it is not there.
        assert_eq!(find("absent/7").unwrap(), Path::new("absent/7"));
        assert_eq!(find("data").unwrap(), Path::new("data"));
        for (given, reason) in [
            ("7", "expected one folder of this number"),
            ("8", "expected a folder Dataset008_NAME in"),
            ("Dataset008_X", "expected a folder of this name in"),
        ] {
            let message = find(given).unwrap_err().to_string();
            assert!(message.contains(reason), "{message}");
        }
        let message = Homes::default().dataset(Path::new("8"), &[Home::Raw]).unwrap_err();
        assert!(message.to_string().contains("the variable nnUNet_raw"), "{message}");
    }

    #[test]
    fn where_the_variables_say() {
        let (folder, homes) = scene();
        let home = folder.path().canonicalize().unwrap();
        let dataset = home.join("raw/Dataset501_Liver");
        let check = |dataset: &Path, to, expected: &str| {
            assert_eq!(homes.moved(dataset, Home::Raw, to), home.join(expected));
        };
        check(&dataset, Home::Preprocessed, "prepared/Dataset501_Liver");
        check(&dataset, Home::Results, "results/nnUNet/Dataset501_Liver");
        // A dataset elsewhere is none of the variables'.
        let other = home.join("nnUNet_raw/Dataset001_X");
        check(&other, Home::Preprocessed, "nnUNet_preprocessed/Dataset001_X");
    }
}
