//! The folder of a new model: it must be new, empty, or an incomplete one that a killed run left.

use std::fs::{self, File, TryLockError};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::Value;
use stunet::data::files;
use stunet::model::weights::atomic;
use stunet::model::weights::folder::{NETWORK_FILE, WEIGHTS_FILE};

/// The last file of a model folder to be written.
const LAST: &str = "labels.json";
/// The one before it.
const PLANS: &str = "plans.json";

/// A folder that is being filled. Unless it is finished, everything in it goes again.
#[derive(Debug)]
pub struct NewFolder {
    path: PathBuf,
    made: bool,
    finished: bool,
    /// Keeps two programs from filling one folder; none where the system cannot lock a folder.
    _lock: Option<File>,
}

impl NewFolder {
    /// Fails if a model cannot be written there; changes nothing.
    pub fn check(path: &Path) -> anyhow::Result<()> {
        match fs::symlink_metadata(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(e).with_context(|| path.display().to_string()),
            Ok(_) => {}
        }
        if !path.is_dir() {
            bail!("expected a new or empty folder, found a file: {}", path.display());
        }
        match first_foreign(path)? {
            None => Ok(()),
            Some(name) => bail!(
                "expected a new or empty folder, found {name} in it; name another folder, or \
                 remove this one: {}",
                path.display()
            ),
        }
    }

    /// Makes the folder, or takes over an empty or unfinished one, and removes what is in it.
    pub fn begin(path: &Path) -> anyhow::Result<Self> {
        let made = !path.exists();
        fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
        let lock = File::open(path).ok();
        if let Some(Err(TryLockError::WouldBlock)) = lock.as_ref().map(File::try_lock) {
            bail!("another program is writing this model: {}", path.display());
        }
        // Looked at again: until now another program may have written here.
        Self::check(path)?;
        clear(path)?;
        Ok(Self { path: path.to_owned(), made, finished: false, _lock: lock })
    }

    /// Marks the model as complete.
    pub fn finish(mut self) {
        self.finished = true;
    }
}

impl Drop for NewFolder {
    fn drop(&mut self) {
        if !self.finished {
            // What cannot be removed now is known as unfinished the next time.
            let _ = clear(&self.path);
            if self.made {
                let _ = fs::remove_dir(&self.path);
            }
        }
    }
}

/// The first entry that no unfinished model of this program has; none in an empty folder.
fn first_foreign(folder: &Path) -> anyhow::Result<Option<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    // A model with its last file is complete: somebody's work.
    let complete = names.iter().any(|name| name == LAST).then(|| LAST.to_owned());
    Ok(complete.or_else(|| names.into_iter().find(|name| !is_ours(folder, name))))
}

/// Whether an entry is one that this program writes before a model is complete.
fn is_ours(folder: &Path, name: &str) -> bool {
    let path = folder.join(name);
    if fs::symlink_metadata(&path).is_ok_and(|of| of.is_dir()) {
        return name.starts_with("fold_") && matches!(first_foreign(&path), Ok(None));
    }
    match name {
        WEIGHTS_FILE => has_our_weights(&path),
        NETWORK_FILE => format_of(&path).is_some_and(|format| format == "stunet-network"),
        PLANS => format_of(&path).is_some_and(|format| format == "stunet-plans"),
        _ => is_unfinished(name),
    }
}

fn is_unfinished(name: &str) -> bool {
    [files::UNFINISHED, atomic::UNFINISHED]
        .into_iter()
        .any(|(beginning, ending)| name.starts_with(beginning) && name.ends_with(ending))
}

fn format_of(path: &Path) -> Option<String> {
    let json: Value = files::read_json(path).ok()?;
    json["format"].as_str().map(str::to_owned)
}

/// Whether a safetensors file begins as ours do.
fn has_our_weights(path: &Path) -> bool {
    const BEGINNING: &[u8] = br#"{"__metadata__":{"format":"stunet-network"#;
    let mut start = [0; 8 + BEGINNING.len()];
    let read = files::open(path).is_ok_and(|mut file| file.read_exact(&mut start).is_ok());
    read && start[8..] == *BEGINNING
}

/// Removes what an unfinished model consists of, the last file included.
fn clear(folder: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let at = || format!("cannot remove {}", path.display());
        if entry.file_type()?.is_dir() {
            clear(&path)?;
            fs::remove_dir(&path).with_context(at)?;
        } else if name == LAST || is_ours(folder, &name) {
            fs::remove_file(&path).with_context(at)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use stunet::model::Initialisation;
    use stunet::model::StuNetConfig;
    use stunet::model::weights::folder::{self, Provenance, StoredPrecision};

    fn network(folder: &Path) {
        let config = StuNetConfig { width: [2; 6], ..StuNetConfig::small(1, 2) };
        let device = stunet::device::parse("cpu").unwrap();
        let network = config.init_seeded(Initialisation::NnUNetV1, 0, &device).unwrap();
        let mut source = network.source();
        folder::save(folder, &config, &mut source, StoredPrecision::F32, Provenance::new())
            .unwrap();
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> =
            entries.map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_a_killed_run_left_is_taken_over() {
        let home = tempfile::tempdir().unwrap();
        let out = home.path().join("model");
        network(&out);
        network(&out.join("fold_3"));
        fs::write(out.join(".stunet-plans.json-x1.tmp"), b"half").unwrap();
        fs::write(out.join(PLANS), br#"{"format": "stunet-plans"}"#).unwrap();
        NewFolder::check(&out).unwrap();
        let folder = NewFolder::begin(&out).unwrap();
        assert_eq!(names(&out), [""; 0]);
        network(&out);
        folder.finish();
        assert_eq!(names(&out), [NETWORK_FILE, WEIGHTS_FILE]);
    }

    #[test]
    fn what_is_others_is_left() {
        let home = tempfile::tempdir().unwrap();
        let check = |name: &str, content: &[u8]| {
            let out = home.path().join("model");
            let _ = fs::remove_dir_all(&out);
            network(&out);
            fs::write(out.join(name), content).unwrap();
            let before = names(&out);
            let message = NewFolder::begin(&out).unwrap_err().to_string();
            assert!(message.contains(&format!("found {name} in it")), "{message}");
            assert_eq!(names(&out), before);
        };
        check("labels.json", b"{}");
        check("notes.txt", b"mine");
        check("plans.json", br#"{"plans_name": "nnUNetPlans"}"#);
        check("network.json", br#"{"format": "other"}"#);
        check("weights.safetensors", br#"12345678{"__metadata__":{"format":"pt"}}"#);
        check(".stunet-notes", b"mine");
    }

    #[test]
    fn nothing_is_left_of_what_was_not_finished() {
        let home = tempfile::tempdir().unwrap();
        let out = home.path().join("model");
        let folder = NewFolder::begin(&out).unwrap();
        network(&out);
        fs::write(out.join(LAST), b"{").unwrap();
        #[cfg(unix)]
        assert!(NewFolder::begin(&out).unwrap_err().to_string().contains("another program"));
        drop(folder);
        assert!(!out.exists());
    }
}
