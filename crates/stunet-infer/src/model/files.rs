//! Where the files of a model are: on the disk, or in memory under the names they would have there.

use crate::error::InferError;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;
use stunet_data::files;
use stunet_model::weights::folder::{self, ModelFolder, NETWORK_FILE, WEIGHTS_FILE};
use stunet_model::weights::{Checkpoint, pickle, plan_file_of};

/// What stands for a path where there is none.
pub(super) const IN_MEMORY: &str = "(in memory)";

/// The files among which a model is looked for.
pub(super) enum Files {
    /// Those of the machine.
    Disk,
    /// By paths that begin with [`IN_MEMORY`].
    Memory(BTreeMap<PathBuf, Arc<Vec<u8>>>),
}

impl Files {
    /// Files in memory, and the deepest folder that holds all of them and is no fold.
    pub fn in_memory<N: AsRef<str>, B: Into<Arc<Vec<u8>>>>(
        files: impl IntoIterator<Item = (N, B)>,
    ) -> Result<(Self, PathBuf), InferError> {
        let mut contents = BTreeMap::new();
        for (name, bytes) in files {
            let name = name.as_ref();
            if contents.insert(path_of(name)?, bytes.into()).is_some() {
                return Err(misnamed("every file once", format!("{name} again")));
            }
        }
        let mut folders = contents.keys().map(|path| path.parent().unwrap_or(path));
        let first = folders.next().unwrap_or(Path::new(IN_MEMORY)).to_owned();
        let holds_all = |folder: &&Path| folders.clone().all(|other| other.starts_with(folder));
        let is_fold = |folder: &Path| {
            folder.file_name().is_some_and(|name| name.to_string_lossy().starts_with("fold_"))
        };
        let mut models = first.ancestors().filter(|folder| !is_fold(folder));
        let root = models.find(holds_all).unwrap_or(Path::new(IN_MEMORY)).to_owned();
        Ok((Self::Memory(contents), root))
    }

    /// True for an ordinary file.
    pub fn is_file(&self, path: &Path) -> bool {
        match self {
            Self::Disk => path.is_file(),
            Self::Memory(contents) => contents.contains_key(path),
        }
    }

    /// True for a folder.
    pub fn is_dir(&self, path: &Path) -> bool {
        match self {
            Self::Disk => path.is_dir(),
            Self::Memory(_) => !self.entries(path).is_empty(),
        }
    }

    /// True for anything.
    pub fn exists(&self, path: &Path) -> bool {
        match self {
            Self::Disk => path.exists(),
            Self::Memory(_) => self.is_file(path) || self.is_dir(path),
        }
    }

    /// True for a folder with a description of a network.
    pub fn is_model_folder(&self, folder: &Path) -> bool {
        self.is_file(&folder.join(NETWORK_FILE))
    }

    /// What lies in a folder; nothing where there is none.
    pub fn entries(&self, folder: &Path) -> Vec<PathBuf> {
        match self {
            Self::Disk => {
                let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
                entries.map(|entry| entry.path()).collect()
            }
            Self::Memory(contents) => {
                let below = contents.range(folder.to_owned()..).map(|(path, _)| path);
                let below = below.map_while(|path| path.strip_prefix(folder).ok());
                let names = below.filter_map(|path| path.components().next());
                let mut entries: Vec<_> = names.map(|name| folder.join(name)).collect();
                // Paths of one folder follow each other.
                entries.dedup();
                entries
            }
        }
    }

    /// What is in a folder that holds no model.
    pub fn told(&self, path: &Path) -> String {
        match self {
            Self::Disk if path.is_dir() => "a folder with nothing of the kind".to_owned(),
            Self::Disk => "a pipe or a device".to_owned(),
            Self::Memory(_) => self.listed(),
        }
    }

    /// The names of all files in memory, as far as they fit into a message.
    fn listed(&self) -> String {
        const MOST: usize = 8;
        let Self::Memory(contents) = self else { return String::new() };
        let name = |path: &PathBuf| {
            path.strip_prefix(IN_MEMORY).unwrap_or(path).to_string_lossy().into_owned()
        };
        let mut names: Vec<_> = contents.keys().take(MOST).map(name).collect();
        match contents.len() {
            0 => return "no files".to_owned(),
            more if more > MOST => names.push(format!("and {} more", more - MOST)),
            _ => {}
        }
        names.join(", ")
    }

    /// Reads a JSON file.
    pub fn read_json<T: DeserializeOwned>(&self, path: &Path) -> Result<T, InferError> {
        Ok(match self {
            Self::Disk => files::read_json(path)?,
            Self::Memory(_) => files::json_of(self.contents(path)?, path)?,
        })
    }

    /// Reads a pickle.
    pub fn read_pickle(&self, path: &Path) -> Result<pickle::Value, InferError> {
        Ok(match self {
            Self::Disk => pickle::read_file(path)?,
            Self::Memory(_) => pickle::read_bytes(self.contents(path)?, path)?,
        })
    }

    /// Opens a checkpoint, with the pickle that may lie beside it.
    pub fn checkpoint(&self, path: &Path) -> Result<Checkpoint, InferError> {
        let Self::Memory(contents) = self else { return Ok(Checkpoint::open(path)?) };
        let pkl = plan_file_of(path).and_then(|pkl| contents.get(&pkl));
        let pkl = pkl.map(|bytes| &bytes[..]);
        Ok(Checkpoint::from_bytes(self.contents(path)?.clone(), pkl, path)?)
    }

    /// Opens the network of a model folder.
    pub fn model_folder(&self, at: &Path) -> Result<ModelFolder, InferError> {
        let Self::Memory(_) = self else { return Ok(folder::open(at)?) };
        let [network, weights] =
            [NETWORK_FILE, WEIGHTS_FILE].map(|name| self.contents(&at.join(name)).cloned());
        Ok(folder::open_bytes(network?, weights?, at)?)
    }

    fn contents(&self, path: &Path) -> Result<&Arc<Vec<u8>>, InferError> {
        let Self::Memory(contents) = self else { unreachable!("asked of files in memory only") };
        contents.get(path).ok_or_else(|| InferError::Mismatch {
            what: "files in memory",
            expected: path.strip_prefix(IN_MEMORY).unwrap_or(path).display().to_string(),
            found: self.listed(),
            path: path.to_owned(),
        })
    }
}

/// The path of a file in memory: whatever leads out of it is refused.
fn path_of(name: &str) -> Result<PathBuf, InferError> {
    const EXPECTED: &str = "names such as plans.json and fold_0/checkpoint_final.pth";
    let mut path = PathBuf::from(IN_MEMORY);
    for component in Path::new(name).components() {
        match component {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            _ => return Err(misnamed(EXPECTED, name.to_owned())),
        }
    }
    match path == Path::new(IN_MEMORY) {
        true => Err(misnamed(EXPECTED, format!("{name:?}"))),
        false => Ok(path),
    }
}

fn misnamed(expected: &str, found: String) -> InferError {
    InferError::Mismatch {
        what: "files in memory",
        expected: expected.to_owned(),
        found,
        path: IN_MEMORY.into(),
    }
}
