//! Files a case was read from: told apart by size, a sample and a digest of their bytes.

use crate::error::InferError;
use serde_json::{Value, json};
use std::fs::{File, Metadata};
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use stunet_data::files;
use stunet_model::weights::Digest;

/// Bytes read at a time.
const PART: usize = 4 << 20;
/// Pieces of a sample, spread over the file, and bytes of each. Two scans differ in each of them.
const PIECES: u64 = 16;
const PIECE: u64 = 4096;

/// A file as it was when it was read.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct InputFile {
    path: PathBuf,
    bytes: u64,
    sample: String,
    digest: String,
    changed: Option<SystemTime>,
}

impl InputFile {
    /// Reads all of it.
    pub fn read(path: &Path) -> Result<Self, InferError> {
        let changed = last_change(path);
        let mut file = files::open(path)?;
        let io = || InferError::io("cannot read", path);
        let bytes = file.metadata().map_err(io())?.len();
        let sample = sample(&mut file, bytes).map_err(io())?;
        let digest = digest(&mut file).map_err(io())?;
        Ok(Self { path: path.to_owned(), bytes, sample, digest, changed })
    }

    pub fn to_json(&self) -> Value {
        json!({ "bytes": self.bytes, "sample": self.sample, "digest": self.digest })
    }

    /// Fails where the file is another by now.
    pub fn check_unchanged(&self) -> Result<(), InferError> {
        // Whoever copies a folder or changes rights touches a file, too: its bytes decide.
        let changed = last_change(&self.path);
        let same = changed.is_some() && changed == self.changed
            || is_recorded(&self.path, &self.to_json(), None).unwrap_or(false);
        match same {
            true => Ok(()),
            false => Err(InferError::InputChanged { path: self.path.clone() }),
        }
    }
}

/// Whether a file is the recorded one. One that has not been touched since `written` and has the
/// recorded size and sample is not read through.
pub(super) fn is_recorded(
    path: &Path,
    recorded: &Value,
    written: Option<SystemTime>,
) -> Result<bool, InferError> {
    let io = || InferError::io("cannot read", path);
    let mut file = files::open(path)?;
    let bytes = file.metadata().map_err(io())?.len();
    if recorded["bytes"] != bytes {
        return Ok(false);
    }
    if recorded["sample"] != sample(&mut file, bytes).map_err(io())? {
        return Ok(false);
    }
    // Clocks tick coarsely: a change in the tick of the writing is no earlier change.
    let untouched = matches!((last_change(path), written), (Some(a), Some(b)) if a < b);
    Ok(untouched || recorded["digest"] == digest(&mut file).map_err(io())?)
}

/// When a file, or the link that leads to it, was last written, moved or linked, where the system
/// says so.
fn last_change(path: &Path) -> Option<SystemTime> {
    let of = std::fs::metadata(path).ok()?;
    let link = std::fs::symlink_metadata(path).ok()?;
    Some(times(&of)?.max(times(&link)?))
}

/// The later of two times: of the contents, and of the file as such. Programs that copy files set the
/// former back, none can set the latter.
#[cfg(unix)]
fn times(of: &Metadata) -> Option<SystemTime> {
    use std::os::unix::fs::MetadataExt;
    use std::time::{Duration, UNIX_EPOCH};
    let seconds = u64::try_from(of.ctime()).ok()?;
    let nanoseconds = u32::try_from(of.ctime_nsec()).ok()?;
    let changed = UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds))?;
    Some(changed.max(of.modified().ok()?))
}

#[cfg(not(unix))]
fn times(of: &Metadata) -> Option<SystemTime> {
    Some(of.created().ok()?.max(of.modified().ok()?))
}

/// Digest of a few pieces, the first and the last among them.
fn sample(file: &mut File, bytes: u64) -> std::io::Result<String> {
    let mut digest = Digest::default();
    let mut piece = Vec::new();
    for index in 0..PIECES {
        let last = bytes.saturating_sub(PIECE);
        // Multiplied in wide numbers: files may be sparse and claim any size.
        let at = (u128::from(last) * u128::from(index) / u128::from(PIECES - 1)) as u64;
        file.seek(SeekFrom::Start(at))?;
        piece.clear();
        (&mut *file).take(PIECE).read_to_end(&mut piece)?;
        digest.part(&piece);
    }
    Ok(digest.finish())
}

/// Digest of all bytes.
fn digest(file: &mut File) -> std::io::Result<String> {
    file.seek(SeekFrom::Start(0))?;
    let mut digest = Digest::default();
    let mut part = Vec::new();
    loop {
        part.clear();
        (&mut *file).take(PART as u64).read_to_end(&mut part)?;
        if part.is_empty() {
            return Ok(digest.finish());
        }
        digest.part(&part);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of `bytes` bytes with one value at `place`, and its record.
    fn write(path: &Path, bytes: usize, place: usize, value: u8) {
        let mut content = vec![3; bytes];
        content[place] = value;
        std::fs::write(path, content).unwrap();
    }

    #[test]
    fn every_byte_counts_once_a_file_was_touched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.nii");
        for (bytes, place) in [(1, 0), (5000, 4999), (1 << 20, 77_777), (PART + 9, PART)] {
            write(&path, bytes, place, 3);
            let recorded = InputFile::read(&path).unwrap().to_json();
            let is = || is_recorded(&path, &recorded, Some(SystemTime::UNIX_EPOCH)).unwrap();
            assert!(is(), "{bytes}");
            write(&path, bytes, place, 4);
            assert!(!is(), "{bytes}");
            write(&path, bytes + 1, place, 3);
            assert!(!is(), "{bytes}");
        }
    }

    #[test]
    fn another_scan_of_an_earlier_time_is_another_scan() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two] = ["1.nii", "2.nii"].map(|name| folder.path().join(name));
        let noise = |seed: u32| -> Vec<u8> {
            (0..200_000u32).map(|i| (i.wrapping_mul(seed) >> 13) as u8).collect()
        };
        std::fs::write(&one, noise(2_654_435_761)).unwrap();
        std::fs::write(&two, noise(2_246_822_519)).unwrap();
        let recorded = InputFile::read(&one).unwrap().to_json();
        // As if the output had been written long after both.
        let later = SystemTime::now() + std::time::Duration::from_secs(3600);
        assert!(is_recorded(&one, &recorded, Some(later)).unwrap());
        assert!(!is_recorded(&two, &recorded, Some(later)).unwrap());
    }

    #[test]
    fn a_change_in_between_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.nii");
        write(&path, 5000, 1, 3);
        let input = InputFile::read(&path).unwrap();
        input.check_unchanged().unwrap();
        write(&path, 5001, 1, 3);
        let message = input.check_unchanged().unwrap_err().to_string();
        assert!(message.contains("changed meanwhile") && message.ends_with("x.nii"), "{message}");
        std::fs::remove_file(&path).unwrap();
        assert!(input.check_unchanged().is_err());
    }
}
