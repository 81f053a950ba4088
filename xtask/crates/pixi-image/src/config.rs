//! Reads pixi's configuration files: what of them says how to reach channels.
//!
//! Keys that say something else are pixi's own business and are passed over. The files, their order and what they mean
//! together are those of pixi 0.77 (<https://pixi.sh/latest/reference/pixi_configuration/>).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use url::Url;

#[cfg(test)]
mod tests;

/// Files larger than this are none that a person wrote.
const FILE_LIMIT: u64 = 4 << 20;

/// What the configuration says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// URL prefixes, each with a slash at its end, and what is asked instead, in this order.
    pub mirrors: BTreeMap<Url, Vec<Url>>,
    /// Whose certificates are trusted.
    pub tls_root_certs: Option<TlsRootCerts>,
    /// The file that wants certificates to be trusted unseen, if one does.
    pub tls_no_verify: Option<PathBuf>,
    /// Proxies, for where the environment names none.
    pub proxy: ProxyConfig,
    /// A file of credentials that comes before the user's own.
    pub authentication_override_file: Option<PathBuf>,
    /// Which kinds of repodata are asked for.
    pub repodata: RepodataConfig,
    /// Downloads at a time.
    pub downloads: Option<usize>,
    /// Use only what is in the cache.
    pub offline: bool,
    /// Whether post-link scripts are wanted; nothing here runs them.
    pub run_post_link_scripts: bool,
}

/// Whose certificates are trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TlsRootCerts {
    /// Mozilla's, as they are part of this program.
    Webpki,
    /// Those of the system. The other names are pixi's older ones for it.
    #[serde(alias = "native", alias = "all")]
    System,
}

/// `proxy-config`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct ProxyConfig {
    /// For https URLs.
    pub https: Option<Address>,
    /// For http URLs.
    pub http: Option<Address>,
    /// Hosts that are asked directly.
    pub non_proxy_hosts: Vec<String>,
}

/// `repodata-config`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RepodataConfig {
    /// For all channels.
    pub default: RepodataKinds,
    /// For channels whose URL begins so.
    pub per_channel: BTreeMap<Url, RepodataKinds>,
}

/// Kinds of repodata that are not to be asked for, where something is said about them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
pub struct RepodataKinds {
    /// No `repodata.json.bz2`.
    #[serde(alias = "disable_bzip2")]
    pub disable_bzip2: Option<bool>,
    /// No `repodata.json.zst`.
    #[serde(alias = "disable_zstd")]
    pub disable_zstd: Option<bool>,
    /// No shards.
    #[serde(alias = "disable_sharded")]
    pub disable_sharded: Option<bool>,
}

/// A URL of a configuration file. What cannot be read as one is not quoted: it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct Address(pub Url);

impl TryFrom<String> for Address {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Url::parse(&text).map(Self).map_err(|error| format!("this is no URL: {error}"))
    }
}

/// Why the configuration cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file that is there cannot be read.
    #[error("cannot read pixi's configuration {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file that says something else than pixi understands.
    #[error(
        "{path}:{line}:{column}: {reason}\n  hint: this is a configuration file of pixi; mend it, or pass over those \
         outside of the workspace with PIXI_NO_CONFIG=1"
    )]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// Counted from 1, in characters.
        column: usize,
        /// What is wrong.
        reason: String,
    },
    /// A variable that pixi reads, with a value that it does not understand.
    #[error("{name} is `{value}`: expected {expected}\n  hint: unset it, or set it so")]
    Variable {
        /// The variable.
        name: &'static str,
        /// Its value.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
}

/// One file as it stands.
#[derive(Default, Deserialize)]
#[serde(rename_all = "kebab-case", default)]
struct File {
    mirrors: BTreeMap<Address, Vec<Address>>,
    tls_root_certs: Option<TlsRootCerts>,
    #[serde(alias = "tls_no_verify")]
    tls_no_verify: Option<bool>,
    proxy_config: ProxyConfig,
    #[serde(alias = "authentication_override_file")]
    authentication_override_file: Option<PathBuf>,
    #[serde(alias = "repodata_config")]
    repodata_config: BTreeMap<String, toml::Spanned<toml::Value>>,
    concurrency: Concurrency,
    offline: Option<bool>,
    run_post_link_scripts: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Concurrency {
    downloads: Option<std::num::NonZeroUsize>,
}

impl Config {
    /// What no file says.
    pub fn none() -> &'static Self {
        static NONE: Config = Config {
            mirrors: BTreeMap::new(),
            tls_root_certs: None,
            tls_no_verify: None,
            proxy: ProxyConfig { https: None, http: None, non_proxy_hosts: Vec::new() },
            authentication_override_file: None,
            repodata: RepodataConfig {
                default: RepodataKinds { disable_bzip2: None, disable_zstd: None, disable_sharded: None },
                per_channel: BTreeMap::new(),
            },
            downloads: None,
            offline: false,
            run_post_link_scripts: false,
        };
        &NONE
    }

    /// Reads the files of the machine, of the user and of the workspace in `workspace`, if there is one, and pixi's
    /// variables. A file that is not there says nothing.
    pub fn load(workspace: Option<&Path>) -> Result<Self, ConfigError> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let global = match (variable("PIXI_NO_CONFIG"), variable("PIXI_CONFIG_FILE")) {
            (Some(value), _) if is_yes("PIXI_NO_CONFIG", &value)? => Vec::new(),
            (_, Some(file)) => vec![PathBuf::from(file)],
            _ => global_places(),
        };
        let local = workspace.map(|directory| directory.join(".pixi").join("config.toml"));
        let mut config = Self::read(global.into_iter().chain(local))?;
        if let Some(value) = variable("PIXI_TLS_ROOT_CERTS") {
            config.tls_root_certs = Some(match value.as_str() {
                "webpki" => TlsRootCerts::Webpki,
                "system" | "native" | "all" => TlsRootCerts::System,
                _ => {
                    let (name, expected) = ("PIXI_TLS_ROOT_CERTS", "webpki or system");
                    return Err(ConfigError::Variable { name, value, expected });
                }
            });
        }
        if let Some(value) = variable("PIXI_OFFLINE") {
            config.offline = is_yes("PIXI_OFFLINE", &value)?;
        }
        Ok(config)
    }

    /// Reads files, the least important first.
    fn read(places: impl Iterator<Item = PathBuf>) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        for path in places {
            if let Some(text) = text(&path)? {
                config.add(&path, &text)?;
            }
        }
        Ok(config)
    }

    /// Adds what a file says; it counts more than what was said before.
    fn add(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let invalid = |span: Option<std::ops::Range<usize>>, reason: &str| {
            let (line, column) = place(text, span.map_or(0, |span| span.start));
            ConfigError::Invalid { path: path.to_owned(), line, column, reason: reason.trim().to_owned() }
        };
        let file: File = toml::from_str(text).map_err(|error| invalid(error.span(), error.message()))?;
        for (prefix, mirrors) in file.mirrors {
            let mirrors = mirrors.into_iter().map(|mirror| with_slash(mirror.0)).collect();
            self.mirrors.insert(with_slash(prefix.0), mirrors);
        }
        for (key, value) in file.repodata_config {
            self.repodata.add(&key, value).map_err(|(span, reason)| invalid(Some(span), &reason))?;
        }
        self.tls_root_certs = file.tls_root_certs.or(self.tls_root_certs);
        if let Some(unseen) = file.tls_no_verify {
            self.tls_no_verify = unseen.then(|| path.to_owned());
        }
        self.proxy.add(file.proxy_config);
        if let Some(place) = file.authentication_override_file {
            self.authentication_override_file = Some(place);
        }
        self.downloads = file.concurrency.downloads.map(Into::into).or(self.downloads);
        self.offline = file.offline.unwrap_or(self.offline);
        if let Some(value) = file.run_post_link_scripts {
            self.run_post_link_scripts = value == "insecure";
        }
        Ok(())
    }
}

impl ProxyConfig {
    fn add(&mut self, other: Self) {
        let says_something = other != Self::default();
        self.https = other.https.or(self.https.take());
        self.http = other.http.or(self.http.take());
        if says_something {
            self.non_proxy_hosts = other.non_proxy_hosts;
        }
    }
}

impl RepodataConfig {
    /// Adds one key of the table: a kind for all channels, or the URL of some. Others, as `disable-jlap`, are of older
    /// versions and mean nothing any more.
    fn add(&mut self, key: &str, value: toml::Spanned<toml::Value>) -> Result<(), (std::ops::Range<usize>, String)> {
        let (span, value) = (value.span(), value.into_inner());
        let kinds = |value: toml::Value| {
            value.try_into::<RepodataKinds>().map_err(|error| (span.clone(), error.message().to_owned()))
        };
        match Url::parse(key) {
            Ok(url) => {
                let said = kinds(value)?;
                let known = self.per_channel.entry(url).or_default();
                *known = said.or(*known);
            }
            Err(_) => {
                let table = toml::Table::from_iter([(key.to_owned(), value)]);
                self.default = kinds(table.into())?.or(self.default);
            }
        }
        Ok(())
    }
}

impl RepodataKinds {
    /// What is said here, else there.
    pub fn or(self, other: Self) -> Self {
        Self {
            disable_bzip2: self.disable_bzip2.or(other.disable_bzip2),
            disable_zstd: self.disable_zstd.or(other.disable_zstd),
            disable_sharded: self.disable_sharded.or(other.disable_sharded),
        }
    }
}

/// Where the files of machine and user are, the least important first.
fn global_places() -> Vec<PathBuf> {
    let system = if cfg!(windows) { "C:\\ProgramData" } else { "/etc" };
    let xdg = std::env::var_os("XDG_CONFIG_HOME").filter(|_| cfg!(target_os = "macos")).map(PathBuf::from);
    let pixi_home = std::env::var_os("PIXI_HOME").map(PathBuf::from);
    let below = |directory: PathBuf| directory.join("pixi").join("config.toml");
    let all = [
        Some(below(PathBuf::from(system))),
        xdg.map(below),
        dirs::config_dir().map(below),
        pixi_home.or_else(|| Some(dirs::home_dir()?.join(".pixi"))).map(|home| home.join("config.toml")),
    ];
    all.into_iter().flatten().collect()
}

/// The words that pixi takes for yes and no.
fn is_yes(name: &'static str, value: &str) -> Result<bool, ConfigError> {
    match value.to_lowercase().as_str() {
        "y" | "yes" | "t" | "true" | "on" | "1" => Ok(true),
        "n" | "no" | "f" | "false" | "off" | "0" => Ok(false),
        _ => Err(ConfigError::Variable { name, value: value.to_owned(), expected: "true or false" }),
    }
}

fn text(path: &Path) -> Result<Option<String>, ConfigError> {
    use std::io::{ErrorKind, Read};
    let fail = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    let file = match std::fs::File::open(path) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        file => file.map_err(fail)?,
    };
    let mut text = String::new();
    // A text that was cut would say something else.
    if file.take(FILE_LIMIT + 1).read_to_string(&mut text).map_err(fail)? as u64 > FILE_LIMIT {
        return Err(fail(ErrorKind::FileTooLarge.into()));
    }
    Ok(Some(text))
}

fn with_slash(mut url: Url) -> Url {
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    url
}

/// Line and column of a byte, counted from 1.
fn place(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.rsplit('\n').next().unwrap_or_default();
    (before.matches('\n').count() + 1, line.chars().count() + 1)
}
