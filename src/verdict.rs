//! What a verification found of a device, kept for the commands that would compute on it.
//!
//! A verdict is of one device with one driver, computed by one version of this library: with another driver
//! or another version there is none. It is one small file in a folder that the caller chooses.

use crate::device::Chosen;
use crate::verify::{Storage, Verification};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use stunet_data::DataError;
use stunet_data::files::{read_json, save_json};

/// The folder of verdicts within that of a cache.
const FOLDER: &str = "verdicts";

/// What was verified, and what was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// What computed.
    pub verified: Verified,
    /// The first stage that did not agree; none where all did.
    pub failed_stage: Option<String>,
}

/// A device with its driver, and the program and the precision that it was verified for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// The backend's word, such as `vulkan`.
    pub backend: String,
    /// The device's name: a product's.
    pub device: String,
    /// Its driver, where that is known.
    pub driver: Option<String>,
    /// The version of this library.
    pub version: String,
    /// The precision of what is stored.
    pub storage: String,
}

impl Verified {
    /// Of a device as it is now.
    #[must_use]
    pub fn of(chosen: &Chosen, storage: Storage) -> Self {
        let described = chosen.description();
        Self {
            backend: chosen.backend.name().to_owned(),
            device: described.name,
            driver: described.driver,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            storage: storage.name().to_owned(),
        }
    }

    /// The file of its verdict: its parts, with whatever could not stand in a name left out.
    fn file(&self, cache: &Path) -> PathBuf {
        let driver = self.driver.as_deref().unwrap_or("driver unknown");
        let parts = [&self.backend, &self.device, driver, &self.version, &self.storage];
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
        let words: Vec<String> = parts.map(|part| part.chars().map(plain).collect()).to_vec();
        // File systems take names of 255 bytes; the parts are compared once more when it is read.
        let name: String = words.join("_").chars().take(200).collect();
        cache.join(FOLDER).join(format!("{name}.json"))
    }
}

impl Verdict {
    /// The verdict of a verification; none where it was broken off.
    #[must_use]
    pub fn of(verified: Verified, found: &Verification) -> Option<Self> {
        let failed_stage = found.first_failure().map(|stage| stage.stage.clone());
        (found.complete || failed_stage.is_some()).then_some(Self { verified, failed_stage })
    }

    /// Keeps it in the folder of a cache, which is made where it is not there. Returns the file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep(&self, cache: &Path) -> Result<PathBuf, DataError> {
        let file = self.verified.file(cache);
        let folder = cache.join(FOLDER);
        std::fs::create_dir_all(&folder)
            .map_err(|source| DataError::Io { action: "create", source }.at(&folder))?;
        save_json(&file, self)?;
        Ok(file)
    }

    /// The verdict that is kept; none where there is none, or where it cannot be read.
    #[must_use]
    pub fn kept(cache: &Path, verified: &Verified) -> Option<Self> {
        let verdict: Self = read_json(&verified.file(cache)).ok()?;
        (verdict.verified == *verified).then_some(verdict)
    }
}

/// Whether a cache holds no verdicts at all, so that no device need be asked who it is.
#[must_use]
pub fn is_empty(cache: &Path) -> bool {
    !cache.join(FOLDER).is_dir()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verified(driver: &str) -> Verified {
        Verified {
            backend: "vulkan".to_owned(),
            device: "A/B (rev. 2)".to_owned(),
            driver: Some(driver.to_owned()),
            version: "1".to_owned(),
            storage: "f32".to_owned(),
        }
    }

    fn found(complete: bool) -> Verification {
        Verification { stages: Vec::new(), complete }
    }

    #[test]
    fn kept_by_device_and_driver() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("new");
        assert_eq!(Verdict::kept(&cache, &verified("1")), None);
        assert!(is_empty(&cache));
        let good = Verdict::of(verified("1"), &found(true)).unwrap();
        let file = good.keep(&cache).unwrap();
        assert_eq!(file.parent(), Some(&*cache.join("verdicts")));
        assert!(!is_empty(&cache));
        let bad = Verdict { failed_stage: Some("head".to_owned()), ..good.clone() };
        assert_eq!(Verdict::kept(&cache, &verified("1")), Some(good));
        bad.keep(&cache).unwrap();
        assert_eq!(Verdict::kept(&cache, &verified("1")), Some(bad));
        assert_eq!(Verdict::kept(&cache, &verified("2")), None);
        // A file that is damaged, or another device's under the same name, says nothing.
        std::fs::write(&file, "{").unwrap();
        assert_eq!(Verdict::kept(&cache, &verified("1")), None);
        let other = Verified { device: "A-B (rev. 2)".to_owned(), ..verified("1") };
        Verdict { verified: other, failed_stage: None }.keep(&cache).unwrap();
        assert_eq!(Verdict::kept(&cache, &verified("1")), None);
    }

    #[test]
    fn what_was_broken_off_has_no_verdict() {
        assert_eq!(Verdict::of(verified("1"), &found(false)), None);
    }
}
