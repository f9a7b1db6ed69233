//! `stunet download`: published weights, from the hub or from elsewhere.

use std::path::Path;

use anyhow::{Context, bail, ensure};
use stunet::infer::{Model, OpenOptions};
use stunet::model::{StuNetConfig, StuNetSize};

use crate::args::{DownloadArgs, Size};
use crate::hub::{Cache, ELSEWHERE, HubSettings, Partial, REPOSITORY, Stored};
use crate::interrupt;
use crate::output;
use crate::progress::ByteBar;

/// Fetches each of the named weights that is not here yet.
pub fn run(args: &DownloadArgs) -> anyhow::Result<()> {
    ensure!(
        args.from.is_none() || args.names.len() == 1,
        "--from: expected one name, as it is one file, found {}",
        args.names.len()
    );
    interrupt::watch(args.quiet, "part")?;
    let settings = HubSettings::read()?;
    let cache = Cache::of(&settings, REPOSITORY);
    for size in &args.names {
        let job = Download { args, settings: &settings, cache: &cache, size: *size };
        let address = args.from.as_ref().and_then(|from| from.to_str()).filter(|from| is_web(from));
        match (&args.from, address) {
            (None, _) => job.from_hub(),
            (Some(_), Some(address)) => job.from_address(address),
            (Some(file), None) => job.from_file(file),
        }
        .with_context(|| format!("{}: {}", size.name(), size.file()))?;
    }
    Ok(())
}

fn is_web(from: &str) -> bool {
    ["https://", "http://"].into_iter().any(|scheme| from.starts_with(scheme))
}

/// One file on its way.
struct Download<'a> {
    args: &'a DownloadArgs,
    #[cfg_attr(not(feature = "download"), allow(dead_code, reason = "nothing is asked then"))]
    settings: &'a HubSettings,
    cache: &'a Cache,
    size: Size,
}

impl Download<'_> {
    fn say(&self, line: &str) -> anyhow::Result<()> {
        match self.args.quiet {
            true => Ok(()),
            false => output::line(&format!("{}: {line}", self.size.name())),
        }
    }

    fn bar(&self, total: Option<u64>) -> ByteBar {
        ByteBar::new(self.size.file(), total, self.args.quiet)
    }

    fn is_here(&self, stored: &Stored) -> anyhow::Result<()> {
        let bytes = output::bytes(stored.bytes);
        self.say(&format!("is here already, {bytes}: {}", stored.path.display()))
    }

    /// Says what came.
    fn done(&self, stored: &Stored, checked: &str) -> anyhow::Result<()> {
        let (bytes, path) = (output::bytes(stored.bytes), stored.path.display());
        self.say(&format!("{bytes}, {checked}: {path}"))?;
        self.say(&format!("-m {} means it from now on", self.size.name()))
    }

    /// Copies a file that was brought along.
    fn from_file(&self, file: &Path) -> anyhow::Result<()> {
        let bytes = stunet::data::files::open(file)?.metadata().map(|of| of.len()).ok();
        self.cache.prepare(ELSEWHERE)?;
        let name = format!("from-file-{}", self.size.name());
        let _lock = self.cache.lock(&name, || self.waiting())?;
        let bar = self.bar(bytes);
        let mut partial = Partial::open(self.cache.incomplete(&name), &mut |_| ())?;
        partial.restart()?;
        if let Err(error) = partial.copy(file, &mut |done| bar.at(done)) {
            // It is all where it came from.
            partial.remove()?;
            return Err(error);
        }
        drop(bar);
        self.take(partial, self.args.sha256.as_deref(), "--sha256", None)
    }

    /// Takes a whole file over, after a look at what it is.
    fn take(
        &self,
        partial: Partial,
        expected: Option<&str>,
        who: &str,
        commit: Option<&str>,
    ) -> anyhow::Result<()> {
        let found = partial.sha256();
        let right = match expected {
            Some(expected) => check_sum(&partial, expected, &found, who),
            None => self.check_weights(partial.path()),
        };
        if let Err(error) = right {
            return removed(partial, &error);
        }
        partial.finish(&self.cache.blob(&found))?;
        let commit = commit.unwrap_or(ELSEWHERE);
        let stored = self.cache.publish(&found, (commit, &self.size.file()), None)?;
        match expected {
            Some(_) => self.done(&stored, &format!("SHA-256 as {who} states")),
            None => self.done(&stored, &format!("SHA-256 {found}, which nobody stated")),
        }
    }

    /// Whether a file holds the weights that its name promises: nobody has stated its checksum.
    fn check_weights(&self, path: &Path) -> anyhow::Result<()> {
        let options = OpenOptions::new(&stunet::device::parse("cpu")?);
        let found = Model::describe(path, &options)?;
        let size = found.config.stunet().and_then(StuNetConfig::size);
        let (expected, found) = (StuNetSize::from(self.size), size.map(StuNetSize::name));
        ensure!(
            found == Some(expected.name()),
            "expected weights of STU-Net {}, found {}",
            expected.name(),
            found.unwrap_or("another network")
        );
        Ok(())
    }

    fn waiting(&self) {
        if !self.args.quiet {
            let file = self.size.file();
            output::complain(&format!("another program is fetching {file}; waiting for it"));
        }
    }
}

/// Fails where a file is not what was stated.
fn check_sum(partial: &Partial, expected: &str, found: &str, who: &str) -> anyhow::Result<()> {
    let bytes = output::bytes(partial.bytes());
    ensure!(
        expected == found,
        "expected SHA-256 {expected}, as {who} states, found {found} ({bytes})"
    );
    Ok(())
}

/// Removes a file that is not what it should be, and says so.
fn removed(partial: Partial, error: &anyhow::Error) -> anyhow::Result<()> {
    let path = partial.path().to_owned();
    partial.remove()?;
    bail!("{error}; the file was removed, and nothing else: {}", path.display())
}

#[cfg(not(feature = "download"))]
impl Download<'_> {
    fn from_hub(&self) -> anyhow::Result<()> {
        match self.cache.find(&self.size.file(), None) {
            Some(stored) => self.is_here(&stored),
            None => self.from_address(""),
        }
    }

    fn from_address(&self, _: &str) -> anyhow::Result<()> {
        let (repository, file, name) = (REPOSITORY, self.size.file(), self.size.name());
        bail!(
            "this program was built without downloads (feature `download`): fetch {file} of \
             {repository} by other means; `stunet download {name} --from FILE` takes it over"
        )
    }
}

#[cfg(feature = "download")]
mod online {
    use super::*;
    use crate::failure::Interrupted;
    use crate::hub::{LICENCE, Stated, Web, ask, fetch, is_plain, sha256_of_text};

    impl Download<'_> {
        /// Fetches the file of the published repository.
        pub fn from_hub(&self) -> anyhow::Result<()> {
            let (file, revision) = (self.size.file(), self.args.revision.as_str());
            ensure!(
                is_plain(revision),
                "--revision: expected a commit, branch or tag, found {revision:?}"
            );
            let here = self.cache.find(&file, None);
            if self.settings.offline {
                let stored = here.context(
                    "HF_HUB_OFFLINE is set, and the weights are not here; unset it, or bring the file \
                     along and name it with --from FILE",
                )?;
                return self.is_here(&stored);
            }
            let address = self.settings.address(REPOSITORY, revision, &file);
            let web = Web::new(self.settings)?;
            let stated = match (ask(&web, &address), here) {
                (Ok(stated), _) => stated,
                (Err(error), Some(stored)) if !error.is::<Interrupted>() => {
                    self.say(&format!("the hub was not asked for a newer one: {error}"))?;
                    return self.is_here(&stored);
                }
                (Err(error), _) => return Err(error),
            };
            let commit = stated.commit.clone().filter(|commit| is_plain(commit));
            let parts = commit.zip(stated.sha256.clone()).zip(stated.bytes);
            let ((commit, sha256), bytes) = parts.with_context(|| {
                format!(
                    "expected a hub, which states commit, SHA-256 and size of a file, found none of \
                     that at {}; a plain server is named with --from URL",
                    self.settings.endpoint
                )
            })?;
            let stored = self.cache.find(&file, Some(&commit));
            let same = |of: &Stored| of.bytes == bytes && of.sha256.as_ref() == Some(&sha256);
            if let Some(stored) = stored.filter(same) {
                return self.is_here(&stored);
            }
            self.cache.prepare(&commit)?;
            let _lock = self.cache.lock(&sha256, || self.waiting())?;
            let blob = self.cache.blob(&sha256);
            if blob.metadata().is_ok_and(|of| of.len() == bytes) {
                let stored = self.cache.publish(&sha256, (&commit, &file), Some(revision))?;
                return self.is_here(&stored);
            }
            let size = output::bytes(bytes);
            self.say(&format!("{size} from {REPOSITORY}, {LICENCE}"))?;
            let partial = self.whole(&web, &address, &stated, &sha256)?;
            let found = partial.sha256();
            if let Err(error) = check_sum(&partial, &sha256, &found, "the hub") {
                return removed(partial, &error);
            }
            partial.finish(&blob)?;
            let stored = self.cache.publish(&sha256, (&commit, &file), Some(revision))?;
            self.done(&stored, "SHA-256 as the hub states")
        }

        /// Fetches a file from anywhere.
        pub fn from_address(&self, address: &str) -> anyhow::Result<()> {
            ensure!(!self.settings.offline, "HF_HUB_OFFLINE is set: expected a file after --from");
            let web = Web::new(self.settings)?;
            let stated = ask(&web, address)?;
            let (expected, who) = match (&self.args.sha256, &stated.sha256) {
                (Some(sha256), _) => (Some(sha256), "--sha256"),
                (None, stated) => (stated.as_ref(), "the server"),
            };
            // Where nobody says which file it is, another version is another file.
            let name = expected.cloned().unwrap_or_else(|| {
                let version = stated.version.as_deref().unwrap_or_default();
                let bytes = stated.bytes.unwrap_or_default();
                let known = sha256_of_text(&format!("{address} {version} {bytes}"));
                format!("from-{known:.16}")
            });
            self.cache.prepare(ELSEWHERE)?;
            let _lock = self.cache.lock(&name, || self.waiting())?;
            let partial = self.whole(&web, address, &stated, &name)?;
            let commit = stated.commit.as_deref().filter(|commit| is_plain(commit));
            self.take(partial, expected.map(String::as_str), who, commit)
        }

        /// What is there of a file, or nothing yet.
        fn open(&self, name: &str, total: Option<u64>, bar: &ByteBar) -> anyhow::Result<Partial> {
            let partial = Partial::open(self.cache.incomplete(name), &mut |done| bar.at(done))?;
            if partial.bytes() > 0
                && let Some(total) = total
            {
                let (here, total) = (output::bytes(partial.bytes()), output::bytes(total));
                self.say(&format!("going on at {here} of {total}"))?;
            }
            Ok(partial)
        }

        /// All bytes of a file, under the name that it has while it grows.
        fn whole(
            &self,
            web: &Web,
            address: &str,
            stated: &Stated,
            name: &str,
        ) -> anyhow::Result<Partial> {
            let bar = self.bar(stated.bytes);
            let mut partial = self.open(name, stated.bytes, &bar)?;
            let fetched = fetch(web, address, (stated, &mut partial), &mut |done| bar.at(done));
            drop(bar);
            match fetched {
                Ok(()) => Ok(partial),
                Err(error) => {
                    let here = output::bytes(partial.bytes());
                    let of = stated.bytes.map(|bytes| format!(" of {}", output::bytes(bytes)));
                    let kept = format!(
                        "{here}{} are kept, and the same command goes on from there",
                        of.unwrap_or_default()
                    );
                    match error.is::<Interrupted>() {
                        true => {
                            self.say(&kept)?;
                            Err(error)
                        }
                        false => Err(error.context(kept)),
                    }
                }
            }
        }
    }
}
