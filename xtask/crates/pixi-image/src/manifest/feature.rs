//! Features: what a part of the manifest asks for, everywhere and on some platforms only.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use rattler_conda_types::{
    BuildNumberSpec, Channel, ChannelConfig, MatchSpec, NamelessMatchSpec, PackageName, PackageNameMatcher,
    ParseStrictness, StringMatcher, Subdir, VersionSpec,
};
use rattler_solve::ChannelPriority;

use super::document::{Keys, Node, Place, Table};
use super::platform::{self, Platform, VirtualPackage};
use super::{DEFAULT, ManifestError, NO_BUILDS, NO_WHEELS, Requirement};

/// A channel and the weight that the manifest gives it.
pub struct PrioritizedChannel {
    pub channel: Channel,
    pub priority: i64,
}

/// What a target table applies to.
enum Selector {
    Everywhere,
    Unix,
    Linux,
    Osx,
    Win,
    Subdir(Subdir),
    Platform(String),
}

impl Selector {
    fn matches(&self, platform: &Platform) -> bool {
        match self {
            Self::Everywhere => true,
            Self::Unix => platform.subdir.is_unix(),
            Self::Linux => platform.subdir.is_linux(),
            Self::Osx => platform.subdir.is_osx(),
            Self::Win => platform.subdir.is_windows(),
            Self::Subdir(subdir) => platform.subdir == *subdir,
            Self::Platform(name) => platform.name == *name,
        }
    }

    fn read(key: &str, node: &Node<'_>) -> Result<Self, ManifestError> {
        Ok(match key {
            "unix" => Self::Unix,
            "linux" => Self::Linux,
            "osx" | "macos" => Self::Osx,
            "win" => Self::Win,
            _ if key.contains(['*', '(']) => return Err(node.refused("only names of platforms are known here")),
            _ => key.parse().map_or_else(|_| Self::Platform(key.to_owned()), Self::Subdir),
        })
    }
}

/// A feature of the manifest; what stands outside of all features is the feature `default`.
pub struct Feature {
    pub name: String,
    /// The platforms that it is for, where it says so.
    pub platforms: Option<Vec<(String, Place)>>,
    pub channels: Option<Vec<PrioritizedChannel>>,
    pub channel_priority: Option<(ChannelPriority, Place)>,
    pub system_requirements: Vec<VirtualPackage>,
    /// In the order in which they are written; a later one replaces what earlier ones say about a package.
    targets: Vec<(Selector, Vec<Requirement>)>,
}

const FEATURE: Keys = Keys {
    used: &[
        "platforms",
        "channels",
        "channel-priority",
        "solve-strategy",
        "dependencies",
        "target",
        "system-requirements",
    ],
    harmless: &["tasks", "activation", "pypi-options"],
    refused: REFUSED,
};

const TARGET: Keys = Keys { used: &["dependencies"], harmless: &["tasks", "activation"], refused: REFUSED };

const REFUSED: &[(&str, &str)] = &[
    ("pypi-dependencies", NO_WHEELS),
    ("host-dependencies", NO_BUILDS),
    ("build-dependencies", NO_BUILDS),
    ("dev", NO_BUILDS),
    ("constraints", "constraints are not passed to the solver here"),
];

const DEPENDENCY: Keys = Keys {
    used: &["version", "build", "build-number", "channel"],
    harmless: &[],
    refused: &[
        ("git", NO_BUILDS),
        ("path", "packages of this machine cannot be locked here"),
        ("url", "a package without a channel cannot be locked here"),
        ("workspace", NO_BUILDS),
    ],
};

const CHANNEL: Keys = Keys { used: &["channel", "priority"], harmless: &[], refused: &[] };

impl Feature {
    /// What the feature asks for on a platform: of each package what the most specific table says.
    pub fn requirements(&self, platform: &Platform) -> Vec<Requirement> {
        let mut merged: BTreeMap<String, Requirement> = BTreeMap::new();
        for (_, requirements) in self.targets.iter().filter(|(selector, _)| selector.matches(platform)) {
            for requirement in requirements {
                merged.insert(requirement.spec.name.to_string(), requirement.clone());
            }
        }
        merged.into_values().collect()
    }

    /// The feature as messages call it.
    pub fn shown(&self) -> String {
        if self.name == DEFAULT { "the manifest".to_owned() } else { format!("the feature `{}`", self.name) }
    }
}

/// Reads features; channel names and paths mean something relative to the manifest's directory.
pub struct Reader {
    config: ChannelConfig,
}

impl Reader {
    pub fn new(manifest: &Path) -> Self {
        let absolute = std::path::absolute(manifest).unwrap_or_else(|_| manifest.to_owned());
        let directory = absolute.parent().map(Path::to_owned).unwrap_or(absolute);
        Self { config: ChannelConfig::default_with_root_dir(directory) }
    }

    pub fn feature(&self, name: &str, node: &Node<'_>, table: &Table<'_>) -> Result<Feature, ManifestError> {
        if name == DEFAULT {
            return Err(node.invalid("is the name of what stands outside of all features"));
        }
        table.check(&FEATURE)?;
        only_highest(table)?;
        let platforms = table.get("platforms").map(|platforms| platforms.array()).transpose()?;
        let named = |platform: &Node<'_>| Ok((platform.str()?.to_owned(), platform.place()));
        Ok(Feature {
            platforms: platforms.map(|all| all.iter().map(named).collect::<Result<_, ManifestError>>()).transpose()?,
            channels: table.get("channels").map(|channels| self.channels(&channels)).transpose()?,
            channel_priority: match (channel_priority(table)?, table.get("channel-priority")) {
                (Some(priority), Some(node)) => Some((priority, node.place())),
                _ => None,
            },
            ..self.contents(name, table)?
        })
    }

    /// What the manifest says outside of features. Its platforms and channels are the workspace's.
    pub fn default_feature(&self, root: &Table<'_>) -> Result<Feature, ManifestError> {
        self.contents(DEFAULT, root)
    }

    fn contents(&self, name: &str, table: &Table<'_>) -> Result<Feature, ManifestError> {
        let mut targets = vec![(Selector::Everywhere, self.dependencies(table)?)];
        for (key, node) in table.get("target").map(|node| node.table()).transpose()?.iter().flat_map(Table::entries) {
            let target = node.table()?;
            target.check(&TARGET)?;
            targets.push((Selector::read(&key, &node)?, self.dependencies(&target)?));
        }
        let system = table.get("system-requirements").map(|node| platform::system_requirements(&node)).transpose()?;
        Ok(Feature {
            name: name.to_owned(),
            platforms: None,
            channels: None,
            channel_priority: None,
            system_requirements: system.unwrap_or_default(),
            targets,
        })
    }

    fn dependencies(&self, table: &Table<'_>) -> Result<Vec<Requirement>, ManifestError> {
        let Some(node) = table.get("dependencies") else { return Ok(Vec::new()) };
        node.table()?.entries().iter().map(|(name, node)| self.requirement(name, node)).collect()
    }

    fn requirement(&self, name: &str, node: &Node<'_>) -> Result<Requirement, ManifestError> {
        let package: PackageName =
            name.parse().map_err(|error| node.invalid(format!("is no name of a package: {error}")))?;
        let mut spec = NamelessMatchSpec::default();
        match node.as_table() {
            None => spec.version = version(node)?,
            Some(table) => {
                table.check(&DEPENDENCY)?;
                spec.version = table.get("version").map(|node| version(&node)).transpose()?.flatten();
                spec.build = table.get("build").map(|node| node.parse::<StringMatcher>()).transpose()?;
                spec.build_number =
                    table.get("build-number").map(|node| node.parse::<BuildNumberSpec>()).transpose()?;
                spec.channel = table.get("channel").map(|node| self.channel(&node).map(Arc::new)).transpose()?;
            }
        }
        let spec = MatchSpec::from_nameless(spec, PackageNameMatcher::Exact(package));
        Ok(Requirement { text: spec.to_string(), spec, place: node.place() })
    }

    /// A list of channels: names, URLs, paths, or tables with a priority.
    pub fn channels(&self, node: &Node<'_>) -> Result<Vec<PrioritizedChannel>, ManifestError> {
        let read = |node: &Node<'_>| {
            let Some(table) = node.as_table() else {
                return Ok(PrioritizedChannel { channel: self.channel(node)?, priority: 0 });
            };
            table.check(&CHANNEL)?;
            let channel = table.get("channel").ok_or_else(|| node.invalid("has a table without `channel`"))?;
            let priority = table.get("priority").map(|priority| priority.integer()).transpose()?.unwrap_or(0);
            Ok(PrioritizedChannel { channel: self.channel(&channel)?, priority })
        };
        node.array()?.iter().map(read).collect()
    }

    fn channel(&self, node: &Node<'_>) -> Result<Channel, ManifestError> {
        let text = node.str()?;
        Channel::from_str(text, &self.config).map_err(|error| node.invalid(format!("`{text}` is no channel: {error}")))
    }
}

fn version(node: &Node<'_>) -> Result<Option<VersionSpec>, ManifestError> {
    let text = node.str()?;
    let spec = VersionSpec::from_str(text, ParseStrictness::Lenient);
    let spec = spec.map_err(|error| node.invalid(format!("`{text}` is no version to ask for: {error}")))?;
    Ok(Some(spec).filter(|spec| *spec != VersionSpec::Any))
}

pub fn channel_priority(table: &Table<'_>) -> Result<Option<ChannelPriority>, ManifestError> {
    let Some(node) = table.get("channel-priority") else { return Ok(None) };
    match node.str()? {
        "strict" => Ok(Some(ChannelPriority::Strict)),
        "disabled" => Ok(Some(ChannelPriority::Disabled)),
        _ => Err(node.invalid("is neither \"strict\" nor \"disabled\"")),
    }
}

pub fn only_highest(table: &Table<'_>) -> Result<(), ManifestError> {
    match table.get("solve-strategy") {
        Some(node) if node.str()? != "highest" => Err(node.refused("only the highest versions are looked for here")),
        _ => Ok(()),
    }
}
