//! The variables of the hub's Python library, with their meaning there.
//!
//! # Source
//! huggingface_hub 2.4, `constants.py` and `utils/_auth.py`.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;

/// What a hub accepts as a proof of who asks. It is sent to the hub, and shown to nobody.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// The text, for the header of a request.
    #[cfg_attr(not(feature = "download"), allow(dead_code, reason = "nothing is asked then"))]
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(not shown)")
    }
}

/// Where the hub is, where its files are kept, and who asks.
#[derive(Clone, Debug)]
#[cfg_attr(not(feature = "download"), allow(dead_code, reason = "most are about connections"))]
pub struct HubSettings {
    /// `HF_ENDPOINT`, without a slash at its end.
    pub endpoint: String,
    /// `HF_HUB_CACHE`, else `hub` in `HF_HOME`, else `~/.cache/huggingface/hub`.
    pub cache: PathBuf,
    /// `HF_TOKEN`, else the file that `hf auth login` leaves.
    pub token: Option<Token>,
    /// `HF_HUB_OFFLINE`: nothing is asked.
    pub offline: bool,
    /// `HF_HUB_DOWNLOAD_TIMEOUT`: how long a connection may be silent.
    pub silence: Duration,
    /// `SSL_CERT_FILE` or `REQUESTS_CA_BUNDLE`: whom to trust, where a site has an authority of its own.
    pub authorities: Option<PathBuf>,
}

impl HubSettings {
    /// Those of this process.
    ///
    /// # Errors
    ///
    /// Where no variable says where files are kept, and there is no home folder.
    #[allow(clippy::disallowed_methods, reason = "the one place where the binary reads them")]
    pub fn read() -> anyhow::Result<Self> {
        Self::of(|name| std::env::var_os(name).filter(|value| !value.is_empty()))
    }

    fn of(variable: impl Fn(&str) -> Option<OsString>) -> anyhow::Result<Self> {
        let text = |name: &str| variable(name).and_then(|value| value.into_string().ok());
        let home = || variable(if cfg!(windows) { "USERPROFILE" } else { "HOME" });
        let path = |name: &str| variable(name).map(|value| expanded(value, home()));
        let is_true = |name: &str| {
            let value = text(name).unwrap_or_default().to_ascii_uppercase();
            matches!(value.as_str(), "1" | "ON" | "YES" | "TRUE")
        };
        let caches = path("XDG_CACHE_HOME").or_else(|| Some(PathBuf::from(home()?).join(".cache")));
        let hf_home = path("HF_HOME").or_else(|| Some(caches?.join("huggingface")));
        let cache = path("HF_HUB_CACHE").or_else(|| path("HUGGINGFACE_HUB_CACHE"));
        let cache = cache.or_else(|| Some(hf_home.as_ref()?.join("hub")));
        let cache = cache.context(
            "expected a place to keep weights, found no home folder; set HF_HOME to a folder",
        )?;
        let token_file = path("HF_TOKEN_PATH").or_else(|| Some(hf_home?.join("token")));
        let token = text("HF_TOKEN")
            .or_else(|| text("HUGGING_FACE_HUB_TOKEN"))
            .or_else(|| std::fs::read_to_string(token_file?).ok())
            .map(|token| token.trim().to_owned())
            // Nothing else could stand in a header.
            .filter(|token| !token.is_empty() && token.chars().all(|c| c.is_ascii_graphic()))
            .filter(|_| !is_true("HF_HUB_DISABLE_IMPLICIT_TOKEN"));
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
        let silence = text("HF_HUB_DOWNLOAD_TIMEOUT").and_then(|text| text.trim().parse().ok());
        Ok(Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            cache,
            token: token.map(Token),
            offline: is_true("HF_HUB_OFFLINE") || is_true("TRANSFORMERS_OFFLINE"),
            silence: Duration::from_secs(silence.filter(|secs| *secs > 0).unwrap_or(10)),
            authorities: path("SSL_CERT_FILE").or_else(|| path("REQUESTS_CA_BUNDLE")),
        })
    }

    /// The address of a file in a repository.
    #[cfg_attr(not(feature = "download"), allow(dead_code, reason = "nothing is asked then"))]
    pub fn address(&self, repository: &str, revision: &str, file: &str) -> String {
        format!("{}/{repository}/resolve/{revision}/{file}", self.endpoint)
    }
}

/// A path in which `~` is the home folder.
fn expanded(path: OsString, home: Option<OsString>) -> PathBuf {
    let rest = path.to_str().and_then(|text| text.strip_prefix('~'));
    match (rest, home) {
        (Some(""), Some(home)) => home.into(),
        (Some(rest), Some(home)) if rest.starts_with(['/', '\\']) => {
            PathBuf::from(home).join(&rest[1..])
        }
        _ => path.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn settings(variables: &[(&str, &str)]) -> HubSettings {
        let home = if cfg!(windows) { "USERPROFILE" } else { "HOME" };
        let all = [(home, "/home/u")].into_iter().chain(variables.iter().copied());
        let all: Vec<_> = all.collect();
        HubSettings::of(|name| Some(all.iter().rev().find(|(n, _)| *n == name)?.1.into())).unwrap()
    }

    #[test]
    fn places_are_those_of_python() {
        let check = |variables: &[(&str, &str)], expected: &str| {
            assert_eq!(settings(variables).cache, Path::new(expected), "{variables:?}");
        };
        check(&[], "/home/u/.cache/huggingface/hub");
        check(&[("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub");
        check(&[("XDG_CACHE_HOME", "/x"), ("HF_HOME", "/h")], "/h/hub");
        check(&[("HF_HOME", "~/h")], "/home/u/h/hub");
        check(&[("HF_HOME", "/h"), ("HUGGINGFACE_HUB_CACHE", "/old")], "/old");
        check(&[("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HUB_CACHE", "~")], "/home/u");
        let nowhere = HubSettings::of(|_| None).unwrap_err().to_string();
        assert!(nowhere.contains("set HF_HOME"), "{nowhere}");
        let mirror = settings(&[("HF_ENDPOINT", "https://mirror.example/")]);
        let address = mirror.address("a/b", "main", "c.model");
        assert_eq!(address, "https://mirror.example/a/b/resolve/main/c.model");
    }

    #[test]
    fn switches() {
        assert!(!settings(&[]).offline);
        for (name, value, expected) in [
            ("HF_HUB_OFFLINE", "1", true),
            ("HF_HUB_OFFLINE", "yes", true),
            ("HF_HUB_OFFLINE", "0", false),
            ("TRANSFORMERS_OFFLINE", "True", true),
        ] {
            assert_eq!(settings(&[(name, value)]).offline, expected, "{name}={value}");
        }
        assert_eq!(settings(&[]).silence.as_secs(), 10);
        assert_eq!(settings(&[("HF_HUB_DOWNLOAD_TIMEOUT", "60")]).silence.as_secs(), 60);
        assert_eq!(settings(&[("HF_HUB_DOWNLOAD_TIMEOUT", "soon")]).silence.as_secs(), 10);
    }

    #[test]
    fn a_token_is_found_and_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "hf_fromfile\n").unwrap();
        let home = folder.path().to_str().unwrap();
        let secret = |variables: &[(&str, &str)]| {
            settings(variables).token.map(|token| token.secret().to_owned())
        };
        assert_eq!(secret(&[]), None);
        assert_eq!(secret(&[("HF_HOME", home)]).unwrap(), "hf_fromfile");
        assert_eq!(secret(&[("HF_TOKEN_PATH", file.to_str().unwrap())]).unwrap(), "hf_fromfile");
        assert_eq!(secret(&[("HF_HOME", home), ("HF_TOKEN", " hf_a ")]).unwrap(), "hf_a");
        assert_eq!(secret(&[("HF_TOKEN", "two words")]), None);
        let not_sent = [("HF_TOKEN", "hf_a"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")];
        assert_eq!(secret(&not_sent), None);
        assert!(!format!("{:?}", settings(&[("HF_TOKEN", "hf_a")])).contains("hf_a"));
    }
}
