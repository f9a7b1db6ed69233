//! Where this program keeps what it need not find out again: verdicts on devices, compiled kernels.

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::bail;
use stunet::device::Chosen;
use stunet::verdict::{self, Verdict, Verified};
use stunet::verify::Storage;

/// The folder: `STUNET_CACHE`, else `stunet` in `XDG_CACHE_HOME` or `~/.cache` (in `LOCALAPPDATA` on
/// Windows); none where there is no home folder.
#[allow(clippy::disallowed_methods, reason = "the one place where the binary reads them")]
pub fn folder() -> Option<PathBuf> {
    folder_of(|name| std::env::var_os(name).filter(|value| !value.is_empty()))
}

fn folder_of(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let path = |name: &str| variable(name).map(PathBuf::from);
    let home = || match cfg!(windows) {
        true => path("LOCALAPPDATA"),
        false => Some(path("HOME")?.join(".cache")),
    };
    let caches = || path("XDG_CACHE_HOME").or_else(home);
    path("STUNET_CACHE").or_else(|| Some(caches()?.join("stunet")))
}

/// Keeps the kernels of GPUs once they are compiled, unless told not to: before a device is chosen.
pub fn keep_kernels(no_cache: bool) {
    if let Some(folder) = folder().filter(|_| !no_cache) {
        stunet::kernels::keep_compiled_kernels(&folder.join("kernels"));
    }
}

/// Fails for a device of which `stunet verify` found that it computes something else, unless the user goes on.
///
/// A device without a verdict is used: few machines have a device that fails.
pub fn check<'a>(
    devices: impl IntoIterator<Item = &'a Chosen>,
    storages: &[Storage],
    go_on: bool,
) -> anyhow::Result<()> {
    let kept = folder().filter(|cache| !go_on && !verdict::is_empty(cache));
    let Some(cache) = kept else { return Ok(()) };
    for chosen in devices {
        for storage in storages {
            let verified = Verified::of(chosen, *storage);
            if let Some(Verdict { failed_stage: Some(stage), .. }) =
                Verdict::kept(&cache, &verified)
            {
                bail!(refusal(&chosen.name, &verified, &stage));
            }
        }
    }
    Ok(())
}

fn refusal(name: &str, verified: &Verified, stage: &str) -> String {
    let driver = verified.driver.as_ref().map_or(String::new(), |driver| format!(", {driver}"));
    format!(
        "device {name}: expected one that computes what is meant, found that `stunet verify` failed on {}{driver} \
         at the stage \"{stage}\"; update its driver and verify it again, take another device, or go on all \
         the same with --unverified-device",
        verified.device
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders() {
        let of = |set: &[(&str, &str)]| {
            folder_of(|name| {
                let found = set.iter().find(|(variable, _)| *variable == name);
                found.map(|(_, value)| OsString::from(value))
            })
        };
        assert_eq!(of(&[]), None);
        let home = if cfg!(windows) { "LOCALAPPDATA" } else { "HOME" };
        let below = if cfg!(windows) { "h/stunet" } else { "h/.cache/stunet" };
        assert_eq!(of(&[(home, "h")]), Some(PathBuf::from(below)));
        assert_eq!(of(&[(home, "h"), ("XDG_CACHE_HOME", "x")]), Some(PathBuf::from("x/stunet")));
        assert_eq!(of(&[("XDG_CACHE_HOME", "x"), ("STUNET_CACHE", "s")]), Some(PathBuf::from("s")));
    }

    #[test]
    fn a_refusal_is_one_line_and_says_what_to_do() {
        let verified = Verified {
            backend: "wgpu".to_owned(),
            device: "A".to_owned(),
            driver: Some("B 1".to_owned()),
            version: "1".to_owned(),
            storage: "f32".to_owned(),
        };
        let line = refusal("wgpu:0", &verified, "head");
        assert_eq!(line.lines().count(), 1);
        for part in ["wgpu:0", "A, B 1", "\"head\"", "--unverified-device", "stunet verify"] {
            assert!(line.contains(part), "{line}");
        }
    }
}
