//! HTTP as this crate speaks it: proxies of the environment, time limits, and verified downloads that survive cuts.

mod download;
mod probe;

use std::path::PathBuf;
use std::time::Duration;

use url::{Host, Url};

use crate::model::Digest;
use crate::publish::PublishError;

pub use download::{Download, Expected, Source};
pub use probe::{Reachability, probe};

const USER_AGENT: &str = concat!("pixi-image/", env!("CARGO_PKG_VERSION"));

/// How long a connection may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a server may stay silent.
pub const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Why bytes could not be had.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The client could not be built, for example of a proxy variable that is no URL.
    #[error("cannot prepare a connection: {0}\n  hint: look at the variables HTTP_PROXY, HTTPS_PROXY and ALL_PROXY")]
    Client(String),
    /// The system gives no threads.
    #[error("cannot start the threads that download: {0}")]
    Runtime(std::io::Error),
    /// Text that names nothing that can be downloaded.
    #[error("`{0}` is not an http, https or file URL, nor an absolute path")]
    BadSource(String),
    /// No connection, or a silent server.
    #[error("cannot reach {url}: {reason}{PROXY_HINT}")]
    Unreachable {
        /// What was asked for, without credentials.
        url: String,
        /// The innermost cause.
        reason: String,
    },
    /// The server answered, but not with the file.
    #[error("{url} answered {status}{}", status_hint(*.status))]
    Status {
        /// What was asked for, without credentials.
        url: String,
        /// The status code.
        status: u16,
    },
    /// The connection ended early, each time.
    #[error(
        "{url} was cut short: {received}{} bytes arrived, then: {reason}\n  hint: try again; nothing was kept",
        of(*.expected)
    )]
    Cut {
        /// What was asked for, without credentials.
        url: String,
        /// Bytes that arrived.
        received: u64,
        /// Bytes of the whole, where known.
        expected: Option<u64>,
        /// How it ended.
        reason: String,
    },
    /// The file is longer or shorter than it must be.
    #[error("{url} has the wrong size: expected {expected} bytes, got {actual}{WRONG_HINT}")]
    WrongSize {
        /// What was asked for, without credentials.
        url: String,
        /// Bytes that it must have.
        expected: u64,
        /// Bytes that it has; where it was too long, the bytes after which reading stopped.
        actual: u64,
    },
    /// The file has other content than it must have.
    #[error("{url} has the wrong content: expected {expected}, got {actual} ({size} bytes){WRONG_HINT}")]
    WrongDigest {
        /// What was asked for, without credentials.
        url: String,
        /// The digest that it must have.
        expected: Digest,
        /// The digest that it has.
        actual: Digest,
        /// Its size in bytes.
        size: u64,
    },
    /// A file of this machine that cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The result cannot be written.
    #[error(transparent)]
    Write(PublishError),
    /// Another download failed first.
    #[error("stopped, because another download failed")]
    Stopped,
}

const PROXY_HINT: &str =
    "\n  hint: behind a proxy set HTTPS_PROXY and HTTP_PROXY (and NO_PROXY for hosts that need none)";
const WRONG_HINT: &str = "\n  hint: a proxy may answer with a page of its own, or the file was replaced after it was \
                          locked; nothing was kept";

fn status_hint(status: u16) -> &'static str {
    match status {
        401 | 403 => "\n  hint: it is not public, or a proxy refuses it",
        404 | 410 => "\n  hint: it was removed or never was there; if a lock names it, lock again",
        407 => "\n  hint: the proxy wants a name and password: HTTPS_PROXY=http://NAME:PASSWORD@HOST:PORT",
        429 => "\n  hint: too many requests; wait a while and try again",
        500.. => "\n  hint: the server has trouble of its own; try again later",
        _ => "",
    }
}

fn of(expected: Option<u64>) -> String {
    expected.map(|bytes| format!(" of {bytes}")).unwrap_or_default()
}

/// The proxies that the environment names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For `http` URLs.
    pub http: Option<String>,
    /// For `https` URLs.
    pub https: Option<String>,
    /// Hosts that are asked directly; loopback is always among them, or a channel served on this machine would be
    /// asked for at the proxy.
    pub except: String,
}

impl Proxies {
    /// Reads the variables that every tool reads, lower case first.
    pub fn from_env() -> Self {
        Self::from_variables(|name| std::env::var(name).ok())
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let read =
            |names: [&str; 2]| names.into_iter().find_map(|name| variable(name).filter(|value| !value.is_empty()));
        // A CGI server turns a client's `Proxy:` header into HTTP_PROXY, so there only the lower case name counts.
        let http = match variable("REQUEST_METHOD") {
            Some(_) => read(["http_proxy", "http_proxy"]),
            None => read(["http_proxy", "HTTP_PROXY"]),
        };
        let all = read(["all_proxy", "ALL_PROXY"]);
        let mut except = read(["no_proxy", "NO_PROXY"]).unwrap_or_default();
        if !except.is_empty() {
            except.push(',');
        }
        except.push_str("localhost,127.0.0.0/8,::1");
        Self { http: http.or_else(|| all.clone()), https: read(["https_proxy", "HTTPS_PROXY"]).or(all), except }
    }
}

/// A client with the environment's proxies and a limit on connecting; one is enough for a whole program.
pub fn client(connect: Duration) -> Result<reqwest::Client, HttpError> {
    build(connect, reqwest::redirect::Policy::limited(10))
}

fn build(connect: Duration, redirects: reqwest::redirect::Policy) -> Result<reqwest::Client, HttpError> {
    let fail = |error: reqwest::Error| HttpError::Client(innermost(&error));
    let proxies = Proxies::from_env();
    let except = || reqwest::NoProxy::from_string(&proxies.except);
    let mut builder = reqwest::Client::builder()
        .user_agent(USER_AGENT)
        .connect_timeout(connect)
        .read_timeout(READ_TIMEOUT)
        .redirect(redirects)
        // Digests are of the bytes as they are stored, whatever encodings other crates switch on.
        .no_gzip()
        .no_brotli()
        .no_zstd()
        .no_deflate()
        .no_proxy();
    if let Some(proxy) = &proxies.http {
        builder = builder.proxy(reqwest::Proxy::http(proxy).map_err(fail)?.no_proxy(except()));
    }
    if let Some(proxy) = &proxies.https {
        builder = builder.proxy(reqwest::Proxy::https(proxy).map_err(fail)?.no_proxy(except()));
    }
    builder.build().map_err(fail)
}

/// A runtime for one piece of work. It is made where it is needed and ends there: the runner starts in a process without
/// threads.
pub fn runtime() -> Result<tokio::runtime::Runtime, HttpError> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("http")
        .enable_all()
        .build()
        .map_err(HttpError::Runtime)
}

/// Whether the URL names this machine.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// The URL as it may be shown: no user, no password, no channel token (`/t/<token>/`).
pub fn shown(url: &Url) -> String {
    let mut url = url.clone();
    // Both fail only for URLs that cannot hold credentials.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    if let Some(rest) = url.path().strip_prefix("/t/")
        && let Some((_, path)) = rest.split_once('/')
    {
        let path = format!("/t/***/{path}");
        url.set_path(&path);
    }
    url.into()
}

/// The innermost cause of an error: the layers above it only say that sending a request failed.
pub(crate) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_of_the_environment_are_read_and_loopback_is_never_sent_there() {
        let read = |set: &'static [(&str, &str)]| {
            Proxies::from_variables(|name| {
                set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
            })
        };
        let loopback = "localhost,127.0.0.0/8,::1";
        assert_eq!(read(&[]), Proxies { http: None, https: None, except: loopback.into() });
        let proxies = read(&[("HTTPS_PROXY", "http://p:1"), ("all_proxy", "http://q:2"), ("NO_PROXY", "intra.net")]);
        assert_eq!(proxies.https.as_deref(), Some("http://p:1"));
        assert_eq!(proxies.http.as_deref(), Some("http://q:2"));
        assert_eq!(proxies.except, format!("intra.net,{loopback}"));
        assert_eq!(read(&[("REQUEST_METHOD", "GET"), ("HTTP_PROXY", "http://evil")]).http, None);
        assert_eq!(read(&[("http_proxy", "")]).http, None);
    }

    #[test]
    fn a_url_is_shown_without_credentials() {
        let url = "https://user:secret@example.org/t/tk-123/channel/x.conda".parse().unwrap();
        assert_eq!(shown(&url), "https://example.org/t/***/channel/x.conda");
    }

    #[test]
    fn loopback_is_recognised_in_each_spelling() {
        for (text, yes) in [
            ("http://localhost:1/", true),
            ("http://127.3.2.1/", true),
            ("http://[::1]:5000/", true),
            ("http://example.org/", false),
            ("http://128.0.0.1/", false),
        ] {
            assert_eq!(is_loopback(&text.parse().unwrap()), yes, "{text}");
        }
    }
}
