//! Published weights by their names: where they are kept, and where they come from.
//!
//! They lie in the cache of the Hugging Face hub's Python library, in its layout, so that both programs
//! use one copy: [`cache`]. [`settings`] reads the variables of that library. Only [`web`], which
//! `stunet download` calls, opens connections.

mod cache;
#[cfg(feature = "download")]
mod fetch;
mod partial;
mod settings;
#[cfg(feature = "download")]
mod web;

#[cfg(feature = "download")]
pub use cache::is_plain;
pub use cache::{Cache, ELSEWHERE, Stored};
#[cfg(feature = "download")]
pub use fetch::{ask, fetch};
#[cfg(feature = "download")]
pub use partial::sha256_of_text;
pub use partial::{Partial, sha256_of};
pub use settings::HubSettings;
#[cfg(feature = "download")]
pub use web::{Stated, Web};

use std::path::{Path, PathBuf};

use anyhow::bail;

use crate::args::Size;

/// The repository of the published weights.
pub const REPOSITORY: &str = "ziyanhuang/STU-Net";
/// What the repository says of their use.
#[cfg(feature = "download")]
pub const LICENCE: &str = "Apache-2.0";

impl Size {
    /// The published sizes.
    pub const ALL: [Self; 4] = [Self::Small, Self::Base, Self::Large, Self::Huge];

    /// The name that stands for its weights.
    pub fn name(self) -> &'static str {
        match self {
            Self::Small => "small",
            Self::Base => "base",
            Self::Large => "large",
            Self::Huge => "huge",
        }
    }

    /// Its file in the repository.
    pub fn file(self) -> String {
        format!("{}_ep4k.model", self.name())
    }
}

/// What `--model` means: a file or folder that is there, else the downloaded weights of that name.
///
/// # Errors
///
/// Where neither is there: with the command that downloads them.
pub fn by_name(model: &Path) -> anyhow::Result<PathBuf> {
    let named = Size::ALL.into_iter().find(|size| model.as_os_str() == size.name());
    let Some(size) = named.filter(|_| !model.exists()) else { return Ok(model.to_owned()) };
    let name = size.name();
    let cache = Cache::of(&HubSettings::read()?, REPOSITORY);
    match cache.find(&size.file(), None) {
        Some(stored) => Ok(stored.path),
        None => bail!(
            "expected the weights of {name}, found none on this machine; `stunet download {name}` \
             fetches them ({name} is neither a file nor a folder here, and {} is not in {})",
            size.file(),
            cache.folder().display()
        ),
    }
}
