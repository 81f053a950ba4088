//! What a learner asks for beyond the exercise, as typed, checked, and written the way pixi.toml has it.

use std::fmt;
use std::str::FromStr;

use super::PlatformStyle;

/// The conda platforms that pixi knows.
pub const SUBDIRS: [&str; 31] = [
    "linux-64",
    "linux-aarch64",
    "linux-ppc64le",
    "linux-riscv64",
    "linux-s390x",
    "linux-32",
    "linux-armv6l",
    "linux-armv7l",
    "linux-loongarch64",
    "linux-ppc",
    "linux-ppc64",
    "linux-riscv32",
    "osx-64",
    "osx-arm64",
    "win-64",
    "win-arm64",
    "win-32",
    "emscripten-wasm32",
    "emscripten-wasm64",
    "wasi-wasm32",
    "android-32",
    "android-64",
    "android-aarch64",
    "android-armv7a",
    "freebsd-32",
    "freebsd-64",
    "freebsd-arm64",
    "ios-arm64",
    "iossimulator-64",
    "iossimulator-arm64",
    "zos-z",
];

/// What an edit adds beyond the exercise; nothing by default.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// How the need for CUDA is written; none keeps what stands there.
    pub style: Option<PlatformStyle>,
    /// Channels, in order.
    pub channels: Vec<String>,
    /// Conda platforms, each of `SUBDIRS`.
    pub platforms: Vec<String>,
    /// The CUDA version of the gpu feature.
    pub cuda: Option<String>,
    /// The feature that the dependencies go to; none is the workspace's own table.
    pub feature: Option<String>,
    /// Dependencies, in order.
    pub dependencies: Vec<Dependency>,
}

impl Request {
    /// Whether it names anything that a manifest would get beyond the exercise.
    pub fn is_empty(&self) -> bool {
        self.channels.is_empty() && self.platforms.is_empty() && self.cuda.is_none() && self.dependencies.is_empty()
    }
}

/// A conda package and the versions of it that will do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dependency {
    /// The package's name, in lower case as conda has it.
    pub name: String,
    /// The versions, in the form that `pixi add` writes; `*` is any.
    pub version: String,
}

/// A MatchSpec that `pixi add` takes for this dependency, and does not narrow to the newest version.
impl fmt::Display for Dependency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, version } = self;
        let begins_with_operator = version.starts_with(['>', '<', '=', '!', '~']);
        write!(f, "{name}{}{version}", if begins_with_operator { "" } else { "=" })
    }
}

impl FromStr for Dependency {
    type Err = String;

    /// Reads the part of the MatchSpec syntax that has a name and versions.
    fn from_str(text: &str) -> Result<Self, String> {
        let beyond =
            [("::", "a channel"), ("[", "keys in brackets"), ("/", "a path"), ("@", "a place"), ("(", "parentheses")];
        if let Some((_, what)) = beyond.iter().find(|(sign, _)| text.contains(sign)) {
            return Err(format!("takes a name and versions, not {what}: write such a dependency into pixi.toml"));
        }
        let text = text.trim();
        let in_name = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        let (name, versions) = text.split_at(text.find(|c| !in_name(c)).unwrap_or(text.len()));
        if !name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_') {
            return Err("takes a package's name first, as in 'numpy>=2'".to_owned());
        }
        let versions = versions.trim();
        let version = if versions.is_empty() { "*".to_owned() } else { version_spec(versions)? };
        Ok(Self { name: name.to_ascii_lowercase(), version })
    }
}

/// Versions as pixi writes them: `=1.2` becomes `1.2.*`, a bare `1.2` becomes `==1.2`, and there are no spaces.
fn version_spec(text: &str) -> Result<String, String> {
    let alternative =
        |text: &str| text.split(',').map(constraint).collect::<Result<Vec<_>, _>>().map(|all| all.join(","));
    text.split('|').map(alternative).collect::<Result<Vec<_>, _>>().map(|all| all.join("|"))
}

fn constraint(text: &str) -> Result<String, String> {
    let text = text.trim();
    let operators = ["==", "!=", ">=", "<=", "~=", ">", "<", "="];
    let operator = operators.into_iter().find(|operator| text.starts_with(operator)).unwrap_or_default();
    let version = text[operator.len()..].trim();
    let any_end = version.strip_suffix('*').map(|version| version.strip_suffix('.').unwrap_or(version));
    let number = any_end.unwrap_or(version);
    if number.is_empty() && any_end.is_some() && matches!(operator, "" | "=" | "==") {
        return Ok("*".to_owned());
    }
    if !is_version(number) {
        let hint = "versions read like >=1.2, 1.2.*, ==1.2.3 or '>=1.2,<2', and a build goes into pixi.toml";
        return Err(format!("cannot read the version {text:?}: {hint}"));
    }
    Ok(match (operator, any_end) {
        ("" | "==", Some(_)) | ("=", _) => format!("{number}.*"),
        ("" | "==", None) => format!("=={number}"),
        ("!=", Some(_)) => format!("!={number}.*"),
        _ => format!("{operator}{number}"),
    })
}

/// Whether it reads like a conda version: an epoch, segments, a local part.
fn is_version(text: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (epoch, rest) = text.split_once('!').unwrap_or(("0", text));
    let word = |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric());
    let segments = |text: &str| text.split(['.', '_', '-']).all(word);
    let (release, local) = rest.split_once('+').unwrap_or((rest, "0"));
    number(epoch) && segments(release) && segments(local) && text.contains(|c: char| c.is_ascii_digit())
}

/// A channel's name or address, without a slash at its end.
///
/// # Errors
/// What no channel can be called; it must not look like an option either, for it becomes an argument of a command.
pub fn channel(text: &str) -> Result<String, String> {
    let channel = text.trim_end_matches('/');
    let fits = |c: char| c.is_ascii_graphic() && !"\"'`\\,;|&<>*?()[]{}$".contains(c);
    if channel.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '.' || c == '/') && channel.chars().all(fits) {
        Ok(channel.to_owned())
    } else {
        Err("a channel is a name like conda-forge or an address like https://prefix.dev/my-channel".to_owned())
    }
}

/// A feature's name.
///
/// # Errors
/// A name with other characters than letters, digits, dashes and underscores.
pub fn feature(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(fits) {
        Ok(text.to_owned())
    } else {
        Err("a feature's name holds letters, digits, dashes and underscores".to_owned())
    }
}
