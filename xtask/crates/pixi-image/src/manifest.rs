//! Reads `pixi.toml`: which environments there are, on which platforms, and what each asks of which channels.
//!
//! What the manifest can say and this program cannot solve is refused by name, with its line. Nothing is ignored that
//! would change the lock.

mod document;
mod feature;
mod platform;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rattler_conda_types::{Channel, MatchSpec};
use rattler_solve::ChannelPriority;
use toml::Spanned;
use toml::de::DeTable;

use document::{Document, Keys, Node, Table};
use feature::Feature;

pub use document::Place;
pub use platform::{Platform, VirtualPackage, is_default};

/// Manifests are a few KB.
const SIZE_LIMIT: u64 = 16 << 20;
/// The environment that is always there.
const DEFAULT: &str = "default";

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
    #[error("{place}: `{key}` is not supported: {why}\n  hint: take it out, or lock with pixi itself")]
    Refused {
        /// Where.
        place: Place,
        /// The dotted name of the key.
        key: String,
        /// Why.
        why: String,
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

/// A package that an environment asks for.
#[derive(Clone, Debug)]
pub struct Requirement {
    /// As the solver takes it.
    pub spec: MatchSpec,
    /// As people write it, for example `python >=3.12`.
    pub text: String,
    /// Where it stands.
    pub place: Place,
}

/// An environment on one of its platforms.
#[derive(Clone, Debug)]
pub struct Target {
    /// The platform.
    pub platform: Platform,
    /// What the environment itself asks for.
    pub requirements: Vec<Requirement>,
    /// What the other environments of its solve group ask for on this platform: solved along, not installed.
    pub group_requirements: Vec<Requirement>,
}

/// An environment with all that its features bring along.
#[derive(Clone, Debug)]
pub struct ManifestEnvironment {
    /// Its name.
    pub name: String,
    /// Its channels, the most important first.
    pub channels: Vec<Channel>,
    /// How strictly the order of channels counts.
    pub channel_priority: ChannelPriority,
    /// Its platforms, in the manifest's order.
    pub targets: Vec<Target>,
}

/// A workspace, ready to be solved.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// The file.
    pub path: PathBuf,
    /// Its environments: `default` first, the others in the manifest's order.
    pub environments: Vec<ManifestEnvironment>,
}

const NO_WHEELS: &str = "packages from PyPI cannot be locked here yet";
const NO_BUILDS: &str = "packages cannot be built from source here";
const NO_CUTOFF: &str = "the time of upload is not looked at here";

const ROOT: Keys = Keys {
    used: &["workspace", "project", "dependencies", "target", "system-requirements", "feature", "environments"],
    harmless: &["tasks", "activation", "pypi-options", "pypi-exclude-newer", "tool", "$schema"],
    refused: &[
        ("pypi-dependencies", NO_WHEELS),
        ("host-dependencies", NO_BUILDS),
        ("build-dependencies", NO_BUILDS),
        ("package", NO_BUILDS),
        ("dev", NO_BUILDS),
        ("constraints", "constraints are not passed to the solver here"),
        ("exclude-newer", NO_CUTOFF),
    ],
};

const WORKSPACE: Keys = Keys {
    used: &["channels", "platforms", "channel-priority", "solve-strategy"],
    harmless: &[
        "name",
        "version",
        "description",
        "authors",
        "license",
        "license-file",
        "readme",
        "homepage",
        "repository",
        "documentation",
        "conda-pypi-map",
        "pypi-options",
        "s3-options",
        "preview",
        "build-variants",
        "build-variants-files",
        "requires-pixi",
        "target",
    ],
    refused: &[("exclude-newer", NO_CUTOFF), ("dependencies", NO_BUILDS)],
};

const ENVIRONMENT: Keys = Keys {
    used: &["features", "solve-group", "no-default-feature"],
    harmless: &[],
    refused: &[
        ("dependencies", "an environment's own dependencies must stand in a feature"),
        ("pypi-dependencies", NO_WHEELS),
    ],
};

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
    root.check(&ROOT)?;
    let workspace = Workspace::read(path, &root)?;
    let environments = workspace.environments(&root)?;
    Ok(Manifest { path: path.to_owned(), environments })
}

/// The parts of a manifest before features are combined into environments.
struct Workspace {
    platforms: Vec<Platform>,
    channels: Vec<feature::PrioritizedChannel>,
    priority: Option<ChannelPriority>,
    /// The default feature is the last, as in every environment.
    features: Vec<Feature>,
}

/// An environment as it is written.
struct Written {
    name: String,
    features: Vec<usize>,
    group: Option<String>,
}

impl Workspace {
    fn read(path: &Path, root: &Table<'_>) -> Result<Self, ManifestError> {
        let Some(node) = root.get("workspace").or_else(|| root.get("project")) else {
            let place = Place { path: path.to_owned(), line: 1, column: 1 };
            return Err(ManifestError::Invalid { place, key: "workspace".to_owned(), reason: "is missing".to_owned() });
        };
        let table = node.table()?;
        table.check(&WORKSPACE)?;
        let require = |key: &str| table.get(key).ok_or_else(|| node.invalid(format!("has no `{key}`")));
        let platforms: Vec<_> =
            require("platforms")?.array()?.iter().map(platform::platform).collect::<Result<_, _>>()?;
        let mut names = BTreeSet::new();
        if let Some(twice) = platforms.iter().find(|platform| !names.insert(&platform.name)) {
            return Err(require("platforms")?.invalid(format!("has `{}` twice", twice.name)));
        }
        feature::only_highest(&table)?;
        let reader = feature::Reader::new(path);
        let channels = reader.channels(&require("channels")?)?;
        let priority = feature::channel_priority(&table)?;
        let mut features = Vec::new();
        for (name, node) in root.get("feature").map(|node| node.table()).transpose()?.iter().flat_map(Table::entries) {
            features.push(reader.feature(&name, &node, &node.table()?)?);
        }
        features.push(reader.default_feature(root)?);
        let workspace = Self { platforms, channels, priority, features };
        workspace.check_platforms(&node)?;
        Ok(workspace)
    }

    fn check_platforms(&self, node: &Node<'_>) -> Result<(), ManifestError> {
        let composes = self.composes();
        for feature in &self.features {
            if !composes && !feature.system_requirements.is_empty() {
                return Err(node.invalid(format!(
                    "has platforms that promise more than their conda platform, so {} may not have `system-requirements`",
                    feature.shown()
                )));
            }
            for (name, place) in feature.platforms.iter().flatten() {
                let known = |platform: &Platform| platform.name == *name || platform.subdir.as_str() == name;
                if !self.platforms.iter().any(known) {
                    let (place, key) = (place.clone(), format!("feature.{}.platforms", feature.name));
                    let reason = format!("names `{name}`, which is not among the platforms of the workspace");
                    return Err(ManifestError::Invalid { place, key, reason });
                }
            }
        }
        Ok(())
    }

    /// Whether platforms are combined from the system requirements of features: only where all are plain.
    fn composes(&self) -> bool {
        self.platforms.iter().all(Platform::is_plain)
    }

    fn environments(&self, root: &Table<'_>) -> Result<Vec<ManifestEnvironment>, ManifestError> {
        let written = self.written(root)?;
        let mut environments = Vec::new();
        for environment in &written {
            environments.push(self.environment(environment, &written)?);
        }
        // Members of a group are solved for all that the others ask for on the same platform.
        let own = environments.clone();
        for (environment, written_as) in environments.iter_mut().zip(&written) {
            let Some(group) = &written_as.group else { continue };
            let others = own.iter().zip(&written).filter(|(other, as_written)| {
                as_written.group.as_ref() == Some(group) && other.name != written_as.name
            });
            for target in &mut environment.targets {
                let same = others.clone().flat_map(|(other, _)| &other.targets);
                let same = same.filter(|other| other.platform.name == target.platform.name);
                target.group_requirements = same.flat_map(|other| other.requirements.clone()).collect();
            }
        }
        Ok(environments)
    }

    fn written(&self, root: &Table<'_>) -> Result<Vec<Written>, ManifestError> {
        let mut all = Vec::new();
        for (name, node) in
            root.get("environments").map(|node| node.table()).transpose()?.iter().flat_map(Table::entries)
        {
            let (features, group, without_default) = match node.as_table() {
                None => (node.array()?, None, false),
                Some(table) => {
                    table.check(&ENVIRONMENT)?;
                    let features =
                        table.get("features").map(|features| features.array()).transpose()?.unwrap_or_default();
                    let group = table.get("solve-group").map(|group| group.str().map(str::to_owned)).transpose()?;
                    (features, group, table.get("no-default-feature").map(|no| no.bool()).transpose()?.unwrap_or(false))
                }
            };
            let mut indices = Vec::new();
            for feature in &features {
                let wanted = feature.str()?;
                let found = self.features.iter().position(|feature| feature.name == wanted);
                let index = found
                    .ok_or_else(|| feature.invalid(format!("names the feature `{wanted}`, which is not there")))?;
                if !indices.contains(&index) {
                    indices.push(index);
                }
            }
            let default = self.features.len() - 1;
            if !without_default && !indices.contains(&default) {
                indices.push(default);
            }
            all.push(Written { name, features: indices, group });
        }
        match all.iter().position(|environment| environment.name == DEFAULT) {
            Some(index) => all[..=index].rotate_right(1),
            None => all
                .insert(0, Written { name: DEFAULT.to_owned(), features: vec![self.features.len() - 1], group: None }),
        }
        Ok(all)
    }

    fn environment(&self, written: &Written, all: &[Written]) -> Result<ManifestEnvironment, ManifestError> {
        let features: Vec<_> = written.features.iter().map(|index| &self.features[*index]).collect();
        let mut solved: Vec<&Feature> = features.clone();
        let members = all.iter().filter(|other| other.group.is_some() && other.group == written.group);
        for index in members.flat_map(|member| &member.features) {
            if !solved.iter().any(|feature| feature.name == self.features[*index].name) {
                solved.push(&self.features[*index]);
            }
        }
        let targets = self.environment_platforms(&features).into_iter().map(|platform| {
            let requirements = features.iter().flat_map(|feature| feature.requirements(&platform)).collect();
            Target { platform, requirements, group_requirements: Vec::new() }
        });
        Ok(ManifestEnvironment {
            name: written.name.clone(),
            channels: self.environment_channels(&solved),
            channel_priority: self.environment_priority(&written.name, &features)?,
            targets: targets.collect(),
        })
    }

    /// A feature without channels of its own brings those of the workspace.
    fn environment_channels(&self, features: &[&Feature]) -> Vec<Channel> {
        let mut all: Vec<_> =
            features.iter().flat_map(|feature| feature.channels.as_ref().unwrap_or(&self.channels)).collect();
        all.sort_by_key(|channel| std::cmp::Reverse(channel.priority));
        let mut channels: Vec<Channel> = Vec::new();
        for prioritized in all {
            if !channels.iter().any(|channel| channel.base_url == prioritized.channel.base_url) {
                channels.push(prioritized.channel.clone());
            }
        }
        channels
    }

    fn environment_priority(&self, name: &str, features: &[&Feature]) -> Result<ChannelPriority, ManifestError> {
        let mut chosen: Option<ChannelPriority> = None;
        for (priority, place) in features.iter().filter_map(|feature| feature.channel_priority.as_ref()) {
            if chosen.is_some_and(|chosen| chosen != *priority) {
                let reason = format!("differs between the features of the environment `{name}`");
                return Err(ManifestError::Invalid {
                    place: place.clone(),
                    key: "channel-priority".to_owned(),
                    reason,
                });
            }
            chosen = Some(*priority);
        }
        Ok(chosen.or(self.priority).unwrap_or_default())
    }

    fn environment_platforms(&self, features: &[&Feature]) -> Vec<Platform> {
        let allows = |feature: &&Feature, platform: &Platform| {
            feature.platforms.as_ref().is_none_or(|platforms| {
                platforms.iter().any(|(name, _)| *name == platform.name || name == platform.subdir.as_str())
            })
        };
        let supported =
            self.platforms.iter().filter(|platform| features.iter().all(|feature| allows(feature, platform)));
        if self.composes() {
            let requirements = || features.iter().flat_map(|feature| &feature.system_requirements);
            return supported.map(|platform| platform::composed(platform.subdir, requirements())).collect();
        }
        // A platform that some feature names exactly pushes its siblings of the same conda platform out.
        let named: BTreeSet<_> = features
            .iter()
            .flat_map(|feature| feature.platforms.iter().flatten())
            .map(|(name, _)| name.as_str())
            .collect();
        let exact = |platform: &Platform| named.contains(platform.name.as_str());
        let pushed: Vec<_> = self.platforms.iter().filter(|platform| exact(platform)).map(|p| p.subdir).collect();
        supported.filter(|platform| exact(platform) || !pushed.contains(&platform.subdir)).cloned().collect()
    }
}

#[cfg(test)]
mod tests;
