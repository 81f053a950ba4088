//! Reads `pixi.toml`: which environments there are, on which platforms, and what each asks of which channels.
//!
//! What the manifest can say and this program cannot solve is refused by name, with its line. Nothing is ignored that
//! would change the lock. What is refused is kept with the environments that it concerns: a lock that pixi made can be
//! good for the others.

mod cutoff;
mod document;
mod feature;
mod platform;
mod spec;
mod wheel;
mod workspace;

use std::fmt;
use std::path::{Path, PathBuf};

use rattler_conda_types::{Channel, MatchSpec};
use rattler_solve::{ChannelPriority, SolveStrategy};
use toml::Spanned;
use toml::de::DeTable;

use document::{Document, Table};
use workspace::Workspace;

pub use cutoff::{Cutoff, ExcludeNewer};
pub use document::Place;
pub use platform::{Platform, VirtualPackage, is_default};
pub use wheel::{WheelRequirement, normalized};

/// Manifests are a few KB.
const SIZE_LIMIT: u64 = 16 << 20;
/// The environment that is always there.
const DEFAULT: &str = "default";
/// The other file that may hold a manifest.
const PYPROJECT: &str = "pyproject.toml";

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// There is no such file.
    #[error("there is no manifest at {0}\n  hint: name the workspace's pixi.toml with `--manifest`")]
    Missing(PathBuf),
    /// The file cannot be read.
    #[error("cannot read the manifest {path}: {source}\n  hint: name the workspace's pixi.toml with `--manifest`")]
    Unreadable {
        /// The manifest.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is no TOML.
    #[error("{place}: {reason}\n  hint: this is not TOML; what is wrong may stand a little before that place")]
    Syntax {
        /// Where.
        place: Place,
        /// What the parser expected.
        reason: String,
    },
    /// Something that real pixi may understand.
    #[error("{refusal}\n  hint: {}", .refusal.what.way_out())]
    Refused {
        /// What.
        refusal: Refusal,
    },
    /// Something that makes no sense.
    #[error("{place}: `{key}` {reason}")]
    Invalid {
        /// Where.
        place: Place,
        /// The dotted name of the key.
        key: String,
        /// What is wrong, as the end of the sentence.
        reason: String,
    },
}

/// Something that a manifest says and that cannot be locked here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Where.
    pub place: Place,
    /// The dotted name of the key.
    pub key: String,
    /// What it is.
    pub what: Unsupported,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: `{}` is not supported: {}", self.place, self.key, self.what.why())
    }
}

/// What cannot be locked here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsupported {
    /// Packages from PyPI. The conda packages beside them can still be compared with a lock.
    Wheels,
    /// Packages that are built from source.
    Builds,
    /// Anything else, and why.
    Other(&'static str),
}

impl Unsupported {
    fn why(self) -> &'static str {
        match self {
            Self::Wheels => "packages from PyPI are not looked for here",
            Self::Builds => "packages cannot be built from source here",
            Self::Other(why) => why,
        }
    }

    fn way_out(self) -> &'static str {
        match self {
            Self::Wheels => "lock with pixi itself (`pixi lock`); `build` takes its lock",
            _ => "take it out, or lock with pixi itself (`pixi lock`); `build` takes its lock",
        }
    }
}

/// A package that an environment asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct Requirement {
    /// As the solver takes it.
    pub spec: MatchSpec,
    /// As people write it, for example `python >=3.12`.
    pub text: String,
    /// Where it stands.
    pub place: Place,
}

impl Requirement {
    /// The normalized name of the package.
    pub fn name(&self) -> String {
        self.spec.name.to_string().to_lowercase()
    }
}

/// What is asked for on a platform.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Wanted {
    /// Packages to install.
    pub requirements: Vec<Requirement>,
    /// Limits for packages that are installed for others.
    pub constraints: Vec<Requirement>,
    /// Packages of PyPI: they are not looked for here, but compared with a lock.
    pub wheels: Vec<WheelRequirement>,
}

/// An environment on one of its platforms.
#[derive(Clone, Debug)]
pub struct Target {
    /// The platform.
    pub platform: Platform,
    /// What the environment itself asks for.
    pub own: Wanted,
    /// What its solve group asks for on this platform, itself included: solved along, not installed. None without a group.
    pub group: Option<Wanted>,
}

/// What decides between the packages that would do.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// How strictly the order of channels counts.
    pub channel_priority: ChannelPriority,
    /// Whether high or low versions are taken.
    pub strategy: SolveStrategy,
    /// What is too new to be taken.
    pub exclude_newer: ExcludeNewer,
}

/// An environment with all that its features bring along.
#[derive(Clone, Debug)]
pub struct ManifestEnvironment {
    /// Its name.
    pub name: String,
    /// Its channels and those of its solve group, the most important first; one that has two names is there twice.
    pub channels: Vec<Channel>,
    /// What its own features say, as it stands in the lock.
    pub choice: Choice,
    /// What its solve group says: the same without a group.
    pub group_choice: Choice,
    /// `pypi-options.prerelease-mode` of its solve group, as it stands in the lock.
    pub prerelease: Option<String>,
    /// Its platforms, in the manifest's order.
    pub targets: Vec<Target>,
    /// What of it cannot be locked here.
    pub refused: Vec<Refusal>,
}

/// A workspace.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The file.
    pub path: PathBuf,
    /// Its environments: `default` first, the others in the manifest's order.
    pub environments: Vec<ManifestEnvironment>,
}

impl Manifest {
    /// An environment by its name.
    pub fn environment(&self, name: &str) -> Option<&ManifestEnvironment> {
        self.environments.iter().find(|environment| environment.name == name)
    }
}

/// Reads a manifest.
pub fn read(path: &Path) -> Result<Manifest, ManifestError> {
    parse(path, &read_text(path)?)
}

/// Reads the text of a manifest and makes sure that it is TOML, whatever it says: more is not needed where its lock is there.
pub fn text(path: &Path) -> Result<String, ManifestError> {
    let text = read_text(path)?;
    toml(Document { path, text: &text })?;
    Ok(text)
}

fn read_text(path: &Path) -> Result<String, ManifestError> {
    let unreadable = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::NotFound => ManifestError::Missing(path.to_owned()),
        _ => ManifestError::Unreadable { path: path.to_owned(), source },
    };
    if std::fs::metadata(path).map_err(unreadable)?.len() > SIZE_LIMIT {
        return Err(unreadable(std::io::ErrorKind::FileTooLarge.into()));
    }
    std::fs::read_to_string(path).map_err(unreadable)
}

fn toml<'a>(document: Document<'a>) -> Result<Spanned<DeTable<'a>>, ManifestError> {
    DeTable::parse(document.text).map_err(|error| ManifestError::Syntax {
        place: document.place(&error.span().unwrap_or(0..0)),
        reason: error.message().replace('\n', ", "),
    })
}

/// Reads the text of a manifest that stands, or would stand, at `path`.
pub fn parse(path: &Path, text: &str) -> Result<Manifest, ManifestError> {
    let document = Document { path, text };
    let parsed = toml(document)?;
    let root = Table::root(document, parsed.get_ref());
    if path.file_name().is_some_and(|name| name == PYPROJECT) {
        // Its `[project]` says what is taken from PyPI, and so does each of its groups of dependencies.
        let what = Unsupported::Other("a manifest in a pyproject.toml is not read here, only a pixi.toml");
        let refusal = Refusal { place: root.start(), key: "tool.pixi".to_owned(), what };
        return Err(ManifestError::Refused { refusal });
    }
    let environments = Workspace::read(path, &root)?.environments()?;
    Ok(Manifest { path: path.to_owned(), environments })
}

#[cfg(test)]
mod tests;
