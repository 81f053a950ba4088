//! HTTP as this crate speaks it: one client for all, and verified downloads that survive cuts.

mod client;
mod credentials;
mod download;
mod mirrors;
mod probe;
mod retry;
mod roots;

use std::path::PathBuf;
use std::time::Duration;

use url::{Host, Url};

use crate::config::Config;
use crate::model::Digest;
use crate::publish::PublishError;
use crate::secrets;

pub use crate::secrets::shown;
pub use client::Client;
pub use download::{Download, Expected, Source};
pub use probe::{Reachability, probe};
pub use roots::Roots;

const USER_AGENT: &str = concat!("pixi-image/", env!("CARGO_PKG_VERSION"));

/// How long a connection may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a server may stay silent.
pub const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Why bytes could not be had.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The client could not be built, for example of a proxy variable that is no URL.
    #[error(
        "cannot prepare a connection: {0}\n  hint: look at the variables HTTP_PROXY, HTTPS_PROXY and ALL_PROXY, and at \
         `proxy-config` and `tls-root-certs` of pixi's configuration"
    )]
    Client(String),
    /// A configuration that wants certificates to be trusted unseen.
    #[error(
        "{0} says `tls-no-verify = true`, which is not followed: what goes into an image comes from whom it says, and a \
         password goes to nobody else\n  hint: take it out, and name your company's certificate with SSL_CERT_FILE"
    )]
    Unverified(PathBuf),
    /// Certificates that were named and are not there.
    #[error("{variable} names {path}: {reason}\n  hint: name certificates in PEM, or unset it")]
    Roots {
        /// The variable.
        variable: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A file of passwords that cannot be read.
    #[error("cannot read the passwords in {path}: {reason}\n  hint: mend it, or move it away")]
    Credentials {
        /// The file.
        path: PathBuf,
        /// What is wrong, without what stands there.
        reason: String,
    },
    /// A URL whose mirrors are all of a kind that is not known here.
    #[error(
        "pixi's configuration names no mirror of {prefix} that can be asked from here: {mirrors}\n  hint: add one with \
         http or https to `mirrors`; oci:// and s3:// are not known here"
    )]
    NoMirror {
        /// What the mirrors are for.
        prefix: String,
        /// The mirrors, without credentials.
        mirrors: String,
    },
    /// The system gives no threads.
    #[error("cannot start the threads that download: {0}")]
    Runtime(std::io::Error),
    /// Text that names nothing that can be downloaded.
    #[error("`{0}` is not an http, https or file URL, nor an absolute path")]
    BadSource(String),
    /// No connection, or a silent server.
    #[error("cannot reach {url}: {reason}{}", way_out(.reason))]
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

/// What to do where there is no answer, told by the reason.
pub fn way_out(reason: &str) -> &'static str {
    // As rustls says it.
    if reason.contains("invalid peer certificate") {
        return "\n  hint: a company's own certificate is named with SSL_CERT_FILE, or belongs into the system's";
    }
    "\n  hint: behind a proxy set HTTPS_PROXY and HTTP_PROXY (and NO_PROXY for hosts that need none), or `proxy-config` or \
     `mirrors` in pixi's configuration"
}

const WRONG_HINT: &str = "\n  hint: a proxy may answer with a page of its own, or the file was replaced after it was \
                          locked; nothing was kept";

/// What to do about an answer.
pub fn status_hint(status: u16) -> &'static str {
    match status {
        401 | 403 => {
            "\n  hint: it is not public, or a proxy refuses it; a name and password go into ~/.netrc, a token into \
             ~/.rattler/credentials.json, where `pixi auth login HOST` writes it if RATTLER_AUTH_FILE names that file"
        }
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

/// The proxies that the environment names, or else pixi's configuration.
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
    /// Reads the variables that every tool reads, lower case first. Where they name a proxy the configuration's are not
    /// looked at, as in pixi.
    pub fn of(config: &Config) -> Self {
        Self::from(config, |name| std::env::var(name).ok())
    }

    fn from(config: &Config, variable: impl Fn(&str) -> Option<String>) -> Self {
        let read =
            |names: [&str; 2]| names.into_iter().find_map(|name| variable(name).filter(|value| !value.is_empty()));
        // A CGI server turns a client's `Proxy:` header into HTTP_PROXY, so there only the lower case name counts.
        let http = match variable("REQUEST_METHOD") {
            Some(_) => read(["http_proxy", "http_proxy"]),
            None => read(["http_proxy", "HTTP_PROXY"]),
        };
        let all = read(["all_proxy", "ALL_PROXY"]);
        let https = read(["https_proxy", "HTTPS_PROXY"]).or_else(|| all.clone());
        let (http, mut except) = (http.or(all), read(["no_proxy", "NO_PROXY"]).unwrap_or_default());
        let (http, https) = if http.is_none() && https.is_none() {
            let configured = &config.proxy;
            if configured.http.is_some() || configured.https.is_some() {
                except = configured.non_proxy_hosts.join(",");
            }
            let text = |address: &Option<crate::config::Address>| address.as_ref().map(|address| address.0.to_string());
            (text(&configured.http), text(&configured.https))
        } else {
            (http, https)
        };
        if !except.is_empty() {
            except.push(',');
        }
        except.push_str("localhost,127.0.0.0/8,::1");
        Self { http, https, except }
    }
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

/// The innermost cause of an error, without credentials: the layers above it only say that sending a request failed.
pub(crate) fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    secrets::redacted(&cause.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_of_the_environment_are_read_and_loopback_is_never_sent_there() {
        let read = |set: &'static [(&str, &str)]| {
            Proxies::from(Config::none(), |name| {
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
    fn proxies_of_the_configuration_count_where_the_environment_names_none() {
        let address = |text: &str| Some(crate::config::Address(text.parse().unwrap()));
        let proxy = crate::config::ProxyConfig {
            https: address("http://u:p@p.example:1/"),
            http: None,
            non_proxy_hosts: vec![".corp".into(), "intra".into()],
        };
        let config = Config { proxy, ..Config::default() };
        let of = |name: &'static str| {
            Proxies::from(&config, move |asked| {
                (asked == name || asked == "no_proxy")
                    .then(|| if asked == name { "http://q:2" } else { "env" }.to_owned())
            })
        };
        let loopback = "localhost,127.0.0.0/8,::1";
        let configured = Proxies::from(&config, |name| (name == "no_proxy").then(|| "env".to_owned()));
        assert_eq!((configured.https.as_deref(), configured.http), (Some("http://u:p@p.example:1/"), None));
        assert_eq!(configured.except, format!(".corp,intra,{loopback}"));
        let from_environment = of("http_proxy");
        assert_eq!((from_environment.http.as_deref(), from_environment.https), (Some("http://q:2"), None));
        assert_eq!(from_environment.except, format!("env,{loopback}"));
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
