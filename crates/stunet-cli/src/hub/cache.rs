//! The cache of the hub's Python library: blobs by their checksum, and snapshots that link to them.
//!
//! ```text
//! HF_HUB_CACHE/models--ziyanhuang--STU-Net/
//!     refs/main                              the commit
//!     blobs/f440f401…                        the bytes, by their SHA-256
//!     blobs/f440f401….incomplete             a download that goes on
//!     snapshots/COMMIT/small_ep4k.model      a link to the blob
//! ```
//!
//! Where links are not allowed (Windows without developer mode) the snapshot holds the bytes themselves,
//! as the Python library has it, and `.sha256/COMMIT/FILE` their checksum.
//!
//! # Source
//! huggingface_hub 2.4, `file_download.py`.

#![allow(clippy::disallowed_methods, reason = "links and moves of what is complete")]

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use super::settings::HubSettings;
use crate::failure::Interrupted;
use crate::interrupt;

/// Where weights go that another place than a hub gave: the snapshot of no commit.
pub const ELSEWHERE: &str = "from-elsewhere";

/// The files of one repository.
#[derive(Clone, Debug)]
pub struct Cache {
    root: PathBuf,
    name: String,
}

/// A file that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Under the name that it has in the repository.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// The SHA-256 that it was stored by, where that is known.
    pub sha256: Option<String>,
}

impl Cache {
    /// That of a repository.
    pub fn of(settings: &HubSettings, repository: &str) -> Self {
        let name = format!("models--{}", repository.replace('/', "--"));
        Self { root: settings.cache.clone(), name }
    }

    /// Its folder.
    pub fn folder(&self) -> PathBuf {
        self.root.join(&self.name)
    }

    fn blobs(&self) -> PathBuf {
        self.folder().join("blobs")
    }

    fn pointer(&self, commit: &str, file: &str) -> PathBuf {
        self.folder().join("snapshots").join(commit).join(file)
    }

    /// A file of a commit; without one, that of `main`, else the one that came last.
    pub fn find(&self, file: &str, commit: Option<&str>) -> Option<Stored> {
        if let Some(commit) = commit {
            return self.stored(commit, file);
        }
        let main = fs::read_to_string(self.folder().join("refs/main")).unwrap_or_default();
        let main = Some(main.trim()).filter(|commit| is_plain(commit));
        main.and_then(|commit| self.stored(commit, file)).or_else(|| {
            let snapshots = fs::read_dir(self.folder().join("snapshots")).into_iter().flatten();
            let names =
                snapshots.flatten().filter_map(|entry| entry.file_name().into_string().ok());
            let found = names.filter_map(|commit| self.stored(&commit, file));
            found.max_by_key(|stored| fs::metadata(&stored.path).and_then(|of| of.modified()).ok())
        })
    }

    fn stored(&self, commit: &str, file: &str) -> Option<Stored> {
        let path = self.pointer(commit, file);
        let of = fs::metadata(&path).ok().filter(|of| of.is_file())?;
        let linked = fs::read_link(&path).ok();
        let blob = linked.and_then(|to| to.file_name()?.to_str().map(str::to_owned));
        let noted = || fs::read_to_string(self.note(commit, file)).ok();
        let sha256 = blob.or_else(noted).map(|text| text.trim().to_owned());
        Some(Stored { path, bytes: of.len(), sha256: sha256.filter(|text| is_sha256(text)) })
    }

    /// Downloads that were begun: their number and bytes.
    pub fn unfinished(&self) -> (usize, u64) {
        let blobs = fs::read_dir(self.blobs()).into_iter().flatten().flatten();
        let begun =
            blobs.filter(|entry| entry.path().extension().is_some_and(|e| e == "incomplete"));
        begun.fold((0, 0), |(count, bytes), entry| {
            (count + 1, bytes + entry.metadata().map_or(0, |of| of.len()))
        })
    }

    /// Where a blob is or goes.
    pub fn blob(&self, name: &str) -> PathBuf {
        self.blobs().join(name)
    }

    /// Where it grows.
    pub fn incomplete(&self, name: &str) -> PathBuf {
        self.blobs().join(format!("{name}.incomplete"))
    }

    /// Makes the folders of a download.
    ///
    /// # Errors
    ///
    /// Where the file system refuses.
    pub fn prepare(&self, commit: &str) -> anyhow::Result<()> {
        let folders = [self.blobs(), self.folder().join("refs"), self.pointer(commit, "")];
        folders.iter().try_for_each(|folder| make(folder))
    }

    /// The lock of a blob, by which two programs do not fetch one file at a time; the Python library
    /// has the same. `waiting` hears when another program has it.
    ///
    /// # Errors
    ///
    /// Where the file system refuses, or on Ctrl-C.
    pub fn lock(&self, name: &str, waiting: impl FnOnce()) -> anyhow::Result<Option<File>> {
        let folder = self.root.join(".locks").join(&self.name);
        make(&folder)?;
        let path = folder.join(format!("{name}.lock"));
        let file = File::options().create(true).append(true).open(&path);
        let file = file.with_context(|| format!("cannot write {}", path.display()))?;
        let mut waiting = Some(waiting);
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Some(file)),
                Err(fs::TryLockError::WouldBlock) => {}
                // A file system without locks does without.
                Err(fs::TryLockError::Error(_)) => return Ok(None),
            }
            if let Some(waiting) = waiting.take() {
                waiting();
            }
            if interrupt::asked() {
                return Err(Interrupted.into());
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Gives a blob its name in the repository, and the revision its commit.
    ///
    /// # Errors
    ///
    /// Where the file system refuses.
    pub fn publish(
        &self,
        blob: &str,
        (commit, file): (&str, &str),
        revision: Option<&str>,
    ) -> anyhow::Result<Stored> {
        let pointer = self.pointer(commit, file);
        let at = || format!("cannot write {}", pointer.display());
        make(pointer.parent().unwrap_or(Path::new("")))?;
        // One that leads nowhere, or to another blob.
        match fs::remove_file(&pointer) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(at);
            }
            _ => {}
        }
        let target = Path::new("../../blobs").join(blob);
        if link(&target, &pointer).is_err() {
            fs::rename(self.blob(blob), &pointer).with_context(at)?;
            let note = self.note(commit, file);
            make(note.parent().unwrap_or(Path::new("")))?;
            fs::write(&note, blob).with_context(|| format!("cannot write {}", note.display()))?;
        }
        if let Some(revision) =
            revision.filter(|revision| *revision != commit && is_plain(revision))
        {
            let path = self.folder().join("refs").join(revision);
            fs::write(&path, commit).with_context(|| format!("cannot write {}", path.display()))?;
        }
        let stored = self.stored(commit, file);
        stored.with_context(|| format!("expected a file, found none: {}", pointer.display()))
    }

    fn note(&self, commit: &str, file: &str) -> PathBuf {
        self.folder().join(".sha256").join(commit).join(file)
    }
}

fn make(folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder)
        .with_context(|| format!("cannot make the folder {}", folder.display()))
}

#[cfg(unix)]
fn link(target: &Path, at: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, at)
}

#[cfg(windows)]
fn link(target: &Path, at: &Path) -> io::Result<()> {
    std::os::windows::fs::symlink_file(target, at)
}

/// Whether a name from outside can be that of one folder or file.
pub fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !name.is_empty() && !name.starts_with('.') && name.chars().all(plain)
}

/// Whether a text is a SHA-256 in hexadecimal digits.
pub fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(folder: &Path) -> Cache {
        let root = folder.to_owned();
        Cache { root, name: "models--a--b".to_owned() }
    }

    #[test]
    fn what_is_published_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        assert_eq!(cache.find("x.model", None), None);
        let put = |blob: &str, commit: &str, revision: Option<&str>| {
            cache.prepare(commit).unwrap();
            fs::write(cache.blob(blob), blob).unwrap();
            cache.publish(blob, (commit, "x.model"), revision).unwrap()
        };
        let [one, two] = ["1", "2"].map(|digit| digit.repeat(64));
        let stored = put(&one, "c1", Some("main"));
        assert_eq!((stored.bytes, stored.sha256.as_deref()), (64, Some(one.as_str())));
        assert_eq!(fs::read_to_string(&stored.path).unwrap(), one);
        let target = fs::read_link(&stored.path).unwrap();
        assert_eq!(target, Path::new("../../blobs").join(&one));
        assert_eq!(fs::read_to_string(cache.folder().join("refs/main")).unwrap(), "c1");
        // What came from elsewhere does not take the place of `main`.
        put(&two, ELSEWHERE, None);
        assert_eq!(cache.find("x.model", None), Some(stored.clone()));
        assert_eq!(cache.find("x.model", Some(ELSEWHERE)).unwrap().sha256, Some(two.clone()));
        // Again, with other bytes.
        assert_eq!(put(&two, "c1", Some("main")).sha256, Some(two));
        // Without its blob it is nothing.
        fs::remove_dir_all(cache.blobs()).unwrap();
        assert_eq!(cache.find("x.model", None), None);
    }

    #[test]
    fn names_from_outside() {
        for (name, plain) in
            [("a50a937", true), ("main", true), ("..", false), ("a/b", false), ("", false)]
        {
            assert_eq!(is_plain(name), plain, "{name}");
        }
        assert!(is_sha256(&"0a".repeat(32)));
        assert!(!is_sha256(&"0A".repeat(32)) && !is_sha256(&"0a".repeat(31)) && !is_sha256("W/x"));
    }

    #[test]
    fn two_do_not_fetch_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path());
        let held = cache.lock("x", || panic!("nobody else has it")).unwrap();
        let path = folder.path().join(".locks/models--a--b/x.lock");
        let second = File::options().append(true).open(path).unwrap();
        assert!(second.try_lock().is_err());
        drop(held);
        assert!(second.try_lock().is_ok());
    }
}
