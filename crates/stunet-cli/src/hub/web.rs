//! The one file of the binary that opens connections: `stunet download` asks here for files.
//!
//! Redirections are followed here and not by the library, because the answer that redirects says what
//! the file is, and because the token goes to the hub alone.

use std::io::Read;
use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use ureq::http::header::{
    ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderMap, LOCATION, RANGE,
};
use ureq::http::{Response, StatusCode, Uri};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

use super::cache::is_sha256;
use super::settings::{HubSettings, Token};

/// Redirections that are followed.
const MOST_REDIRECTIONS: usize = 10;

/// A connection to a hub, or to another place.
pub struct Web {
    agent: Agent,
    token: Option<Token>,
    /// Whom the token is for.
    hub: Uri,
}

/// What is said of a file before it comes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stated {
    /// Where its bytes are.
    pub at: String,
    /// Its length.
    pub bytes: Option<u64>,
    /// Its SHA-256.
    pub sha256: Option<String>,
    /// Whatever tells this version of it from others.
    pub version: Option<String>,
    /// The commit of the repository.
    pub commit: Option<String>,
}

/// Bytes on their way.
pub struct Coming {
    /// Which byte of the file is the first.
    pub from: u64,
    /// The bytes.
    pub reader: Box<dyn Read>,
}

/// Why a file does not come.
#[derive(Debug)]
pub enum Failure {
    /// It may come when it is asked for again.
    Broken(anyhow::Error),
    /// Only from its beginning.
    FromTheStart,
    /// It will not.
    Refused(anyhow::Error),
}

impl Web {
    /// A connection by the settings.
    ///
    /// # Errors
    ///
    /// Where the address of the hub or the file of authorities is none.
    pub fn new(settings: &HubSettings) -> anyhow::Result<Self> {
        let hub: Uri = settings.endpoint.parse().ok().filter(is_web).with_context(|| {
            format!(
                "HF_ENDPOINT: expected an address such as https://huggingface.co, found {:?}",
                settings.endpoint
            )
        })?;
        let mut config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(concat!("stunet/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(settings.silence))
            .timeout_recv_response(Some(settings.silence))
            .timeout_per_read(Some(settings.silence));
        if let Some(path) = &settings.authorities {
            let pem = stunet::data::files::read_bounded(path, 16 << 20)?;
            let found = parse_pem(&pem).filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(certificate),
                _ => None,
            });
            let found: Vec<_> = found.collect();
            if found.is_empty() {
                bail!("expected certificates (PEM), found none: {}", path.display());
            }
            let roots = RootCerts::Specific(Arc::new(found));
            config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
        }
        Ok(Self { agent: config.build().new_agent(), token: settings.token.clone(), hub })
    }

    /// Asks what a file is, without its bytes.
    ///
    /// # Errors
    ///
    /// Where the other end refuses or cannot be reached.
    pub fn ask(&self, address: &str) -> Result<Stated, Failure> {
        let mut stated = Stated::default();
        let mut at = parsed(address)?;
        for _ in 0..MOST_REDIRECTIONS {
            let answer = self.send(&at, false, None)?;
            let (status, headers) = (answer.status(), answer.headers());
            // Some servers give files and nothing else.
            if matches!(status.as_u16(), 405 | 501) {
                return Ok(Stated { at: at.to_string(), ..stated });
            }
            self.check(status, &at)?;
            let text = |name: &str| headers.get(name)?.to_str().ok().map(str::to_owned);
            let linked = text("x-linked-etag").map(|etag| plain_etag(&etag));
            let sized = text("x-linked-size").and_then(|size| size.parse().ok());
            stated.commit = stated.commit.or_else(|| text("x-repo-commit"));
            stated.bytes = stated.bytes.or(sized);
            stated.version = stated.version.or_else(|| linked.clone());
            stated.sha256 = stated.sha256.or(linked.filter(|etag| is_sha256(etag)));
            if !status.is_redirection() {
                let own = text(ETAG.as_str()).map(|etag| plain_etag(&etag));
                let length = text(CONTENT_LENGTH.as_str()).and_then(|length| length.parse().ok());
                stated.at = at.to_string();
                stated.bytes = stated.bytes.or(length.filter(|_| status.is_success()));
                stated.version = stated.version.or_else(|| own.clone());
                // A hub's own files have their checksum for a tag, where they are of this kind.
                let of_hub = stated.commit.is_some();
                stated.sha256 = stated.sha256.or(own.filter(|etag| of_hub && is_sha256(etag)));
                return Ok(stated);
            }
            at = next(&at, headers)?;
            // What it is has been said: where its bytes are need not be asked for.
            if stated.version.is_some() && stated.bytes.is_some() {
                stated.at = at.to_string();
                return Ok(stated);
            }
        }
        Err(Failure::Refused(anyhow!("redirected too often: {}", host(&at))))
    }

    /// The bytes of a file from one of them on; more than were asked for where the other end cannot
    /// begin there.
    ///
    /// # Errors
    ///
    /// Where the other end refuses or cannot be reached.
    pub fn bytes(&self, stated: &Stated, from: u64) -> Result<Coming, Failure> {
        let mut at = parsed(&stated.at)?;
        for _ in 0..MOST_REDIRECTIONS {
            let answer = self.send(&at, true, Some(from).filter(|from| *from > 0))?;
            let status = answer.status();
            if status.is_redirection() {
                at = next(&at, answer.headers())?;
                continue;
            }
            if status == StatusCode::RANGE_NOT_SATISFIABLE {
                return Err(Failure::FromTheStart);
            }
            self.check(status, &at)?;
            let range = answer.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
            let from = match (status, range.and_then(first_byte)) {
                (StatusCode::PARTIAL_CONTENT, Some(first)) => first,
                _ => 0,
            };
            return Ok(Coming { from, reader: Box::new(answer.into_body().into_reader()) });
        }
        Err(Failure::Refused(anyhow!("redirected too often: {}", host(&at))))
    }

    fn send(&self, at: &Uri, whole: bool, from: Option<u64>) -> Result<Response<Body>, Failure> {
        let mut request = if whole { self.agent.get(at) } else { self.agent.head(at) };
        request = request.header(ACCEPT_ENCODING, "identity");
        if let Some(token) = self.token.as_ref().filter(|_| self.is_hub(at)) {
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.secret()));
        }
        if let Some(from) = from {
            request = request.header(RANGE, format!("bytes={from}-"));
        }
        request.call().map_err(|error| failure(&error, at))
    }

    /// The token is for the hub, and for no other host or port, or without the hub's encryption.
    fn is_hub(&self, at: &Uri) -> bool {
        at.scheme() == self.hub.scheme() && at.authority() == self.hub.authority()
    }

    /// An answer that is no file, in words.
    fn check(&self, status: StatusCode, at: &Uri) -> Result<(), Failure> {
        let host = host(at);
        let refused = |words: String| Err(Failure::Refused(anyhow!(words)));
        let (hub, known) = (self.is_hub(at), self.token.is_some());
        match status.as_u16() {
            200..=399 => Ok(()),
            401 if hub && known => refused(format!(
                "{host} does not accept the token: expected a valid one in HF_TOKEN, or from `hf auth \
                 login`"
            )),
            401 if hub => refused(format!(
                "{host} asks who you are: expected a token in HF_TOKEN, or from `hf auth login`, found \
                 none (or there is no such repository)"
            )),
            403 if hub => refused(format!(
                "{host} does not give this file to everybody: ask for access on the page of the \
                 repository, then set HF_TOKEN to a token of that account"
            )),
            404 | 410 => refused(format!("{host} has no such file, repository or revision (404)")),
            code @ (408 | 425 | 429 | 500..=599) => {
                Err(Failure::Broken(anyhow!("{host} is busy or out of order (status {code})")))
            }
            // Addresses that were signed are good for some time.
            code @ (401 | 403) => Err(Failure::Broken(anyhow!(
                "{host} refuses the address it was given (status {code})"
            ))),
            code => refused(format!("{host} refuses (status {code})")),
        }
    }
}

/// Why there was no answer. Addresses may hold secrets: the host alone is told.
fn failure(error: &ureq::Error, at: &Uri) -> Failure {
    let host = host(at);
    match error {
        ureq::Error::HostNotFound => Failure::Refused(anyhow!(
            "cannot find {host}: is there a network, and does it lead there? Where it does not, another \
             machine can fetch the file, and `stunet download NAME --from FILE` takes it over"
        )),
        ureq::Error::Tls(_) | ureq::Error::Rustls(_) | ureq::Error::Pem(_) => {
            Failure::Refused(anyhow!(
                "cannot trust {host}: {error}; where a site has a certificate authority of its own, set \
                 SSL_CERT_FILE to its certificates"
            ))
        }
        ureq::Error::Io(error) => Failure::Broken(anyhow!("{host}: {error}")),
        ureq::Error::Timeout(_) => Failure::Broken(anyhow!(
            "{host} is silent (HF_HUB_DOWNLOAD_TIMEOUT says for how many seconds it may be)"
        )),
        error => Failure::Broken(anyhow!("{host}: {error}")),
    }
}

fn parsed(address: &str) -> Result<Uri, Failure> {
    let uri = address.parse().ok().filter(is_web);
    uri.ok_or_else(|| {
        Failure::Refused(anyhow!("expected an address that begins with https:// or http://"))
    })
}

fn is_web(uri: &Uri) -> bool {
    matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|h| !h.is_empty())
}

/// Where an answer redirects to.
fn next(from: &Uri, headers: &HeaderMap) -> Result<Uri, Failure> {
    let wrong = || Failure::Refused(anyhow!("{} redirects to no address", host(from)));
    let to = headers.get(LOCATION).and_then(|to| to.to_str().ok()).ok_or_else(wrong)?;
    let (scheme, authority) = (from.scheme_str(), from.authority());
    let (scheme, authority) = scheme.zip(authority).ok_or_else(wrong)?;
    let whole = match to {
        to if to.starts_with("//") => format!("{scheme}:{to}"),
        to if to.starts_with('/') => format!("{scheme}://{authority}{to}"),
        to => to.to_owned(),
    };
    let to: Uri = whole.parse().ok().filter(is_web).ok_or_else(wrong)?;
    if from.scheme_str() == Some("https") && to.scheme_str() != Some("https") {
        let words = "redirects to an address without encryption";
        return Err(Failure::Refused(anyhow!("{} {words}", host(from))));
    }
    Ok(to)
}

fn host(at: &Uri) -> String {
    let port = at.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}{port}", at.host().unwrap_or("no host"))
}

/// A tag without the marks around it.
fn plain_etag(etag: &str) -> String {
    etag.trim().trim_start_matches("W/").trim_matches('"').to_owned()
}

/// The first byte of `bytes 100-199/200`.
fn first_byte(range: &str) -> Option<u64> {
    range.trim().strip_prefix("bytes")?.trim().split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(text: &str) -> Uri {
        text.parse().unwrap()
    }

    #[test]
    fn redirections() {
        let to = |location: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(LOCATION, location.parse().unwrap());
            next(&uri("https://hub.example/a/b?c"), &headers).map(|to| to.to_string()).ok()
        };
        assert_eq!(to("/x?y=1").unwrap(), "https://hub.example/x?y=1");
        assert_eq!(to("https://cdn.example/x").unwrap(), "https://cdn.example/x");
        assert_eq!(to("//cdn.example/x").unwrap(), "https://cdn.example/x");
        assert_eq!(to("http://hub.example/x"), None, "encryption is not given up");
        for bad in ["x", "ftp://a/b", "https://", "?"] {
            assert_eq!(to(bad), None, "{bad}");
        }
        assert!(next(&uri("https://hub.example"), &HeaderMap::new()).is_err());
    }

    #[test]
    fn the_token_goes_to_the_hub_alone() {
        let home = tempfile::tempdir().unwrap();
        let settings = HubSettings {
            endpoint: "https://hub.example".to_owned(),
            cache: home.path().to_owned(),
            token: None,
            offline: false,
            silence: std::time::Duration::from_secs(1),
            authorities: None,
        };
        let web = Web::new(&settings).unwrap();
        for (address, is_hub) in [
            ("https://hub.example/a", true),
            ("https://hub.example:8443/a", false),
            ("http://hub.example/a", false),
            ("https://cdn.hub.example/a", false),
            ("https://hub.example.org/a", false),
        ] {
            assert_eq!(web.is_hub(&uri(address)), is_hub, "{address}");
        }
        for bad in ["hub.example", "ftp://hub.example", "https://", ""] {
            let settings = HubSettings { endpoint: bad.to_owned(), ..settings.clone() };
            let error = Web::new(&settings).err().unwrap().to_string();
            assert!(error.contains("HF_ENDPOINT: expected an address"), "{error}");
        }
        let path = home.path().join("ca.pem");
        std::fs::write(&path, "nothing").unwrap();
        let settings = HubSettings { authorities: Some(path), ..settings };
        let error = Web::new(&settings).err().unwrap().to_string();
        assert!(error.contains("expected certificates (PEM), found none"), "{error}");
    }

    #[test]
    fn parts_of_answers() {
        assert_eq!(first_byte("bytes 100-199/200"), Some(100));
        assert_eq!(first_byte("bytes */200"), None);
        assert_eq!(first_byte("100"), None);
        assert_eq!(plain_etag("W/\"abc\""), "abc");
        assert_eq!(plain_etag("\"abc\""), "abc");
        assert_eq!(host(&uri("https://u:p@h.example:81/x?secret")), "h.example:81");
    }
}
