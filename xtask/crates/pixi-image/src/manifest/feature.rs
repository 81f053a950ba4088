//! Features: what a part of the manifest asks for, everywhere and on some platforms only.

use std::collections::BTreeMap;
use std::path::Path;

use rattler_conda_types::{Channel, ChannelConfig, NamedChannelOrUrl, Subdir};
use rattler_solve::{ChannelPriority, SolveStrategy};

use super::cutoff::Cutoff;
use super::document::{Keys, Node, Place, Table};
use super::platform::{self, FAMILIES, Platform, VirtualPackage};
use super::spec::{self, Specs};
use super::wheel;
use super::{DEFAULT, ManifestError, Refusal, Requirement, Unsupported, Wanted};

/// A channel and what the manifest says of it.
#[derive(Clone)]
pub struct PrioritizedChannel {
    /// Two names of one channel are two channels in a lock.
    pub named: NamedChannelOrUrl,
    pub channel: Channel,
    pub priority: i64,
    pub exclude_newer: Option<Cutoff>,
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
    /// Names of platforms, where `*` stands for any part.
    Glob(String),
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
            Self::Glob(glob) => glob_matches(glob, &platform.name),
        }
    }

    fn read(key: &str, node: &Node<'_>) -> Result<Self, ManifestError> {
        let is_glob = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '*';
        Ok(match key {
            "unix" => Self::Unix,
            "linux" => Self::Linux,
            "osx" | "macos" => Self::Osx,
            "win" => Self::Win,
            _ if key.contains('(') => return Err(node.refused("conditions are for packages that are built")),
            _ if key.contains('*') && key.chars().all(is_glob) => Self::Glob(key.to_owned()),
            _ => match key.parse() {
                Ok(subdir) => Self::Subdir(subdir),
                Err(_) if key.is_empty() || !key.chars().all(is_glob) => {
                    return Err(node.invalid(format!("is no name of a platform, nor one of {}", FAMILIES.join(", "))));
                }
                Err(_) => Self::Platform(key.to_owned()),
            },
        })
    }
}

/// Whether the whole name is made up of the parts between the stars, in their order.
fn glob_matches(glob: &str, name: &str) -> bool {
    let Some((head, rest)) = glob.split_once('*') else { return glob == name };
    let Some(mut name) = name.strip_prefix(head) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let tail = parts.pop().unwrap_or_default();
    for part in parts {
        let Some(at) = name.find(part) else { return false };
        name = &name[at + part.len()..];
    }
    name.ends_with(tail)
}

/// A feature of the manifest; what stands outside of all features is the feature `default`.
pub struct Feature {
    pub name: String,
    /// The platforms that it is for, where it says so.
    pub platforms: Option<Vec<(String, Place)>>,
    pub channels: Option<Vec<PrioritizedChannel>>,
    pub channel_priority: Option<(ChannelPriority, Place)>,
    pub strategy: Option<SolveStrategy>,
    /// `pypi-options.prerelease-mode`: pixi compares it even where nothing is taken from PyPI.
    pub prerelease: Option<(String, Place)>,
    pub system_requirements: Vec<(VirtualPackage, Place)>,
    /// What of it cannot be locked here.
    pub refused: Vec<Refusal>,
    /// In the order in which they are written; a later one replaces what earlier ones say about a package.
    targets: Vec<(Selector, Wanted)>,
}

/// The keys of a feature.
pub const FEATURE: Keys = Keys {
    used: &[
        "platforms",
        "channels",
        "channel-priority",
        "solve-strategy",
        "dependencies",
        "host-dependencies",
        "build-dependencies",
        "constraints",
        "target",
        "system-requirements",
        "pypi-options",
    ],
    harmless: &["tasks", "activation"],
    refused: REFUSED,
};

/// The keys that an environment has beside its own: it may be a feature, too.
pub const ENVIRONMENT: Keys = Keys {
    used: &[
        "features",
        "solve-group",
        "no-default-feature",
        "platforms",
        "channels",
        "channel-priority",
        "solve-strategy",
        "dependencies",
        "constraints",
        "target",
        "pypi-options",
    ],
    harmless: &["tasks", "activation"],
    refused: REFUSED,
};

const TARGET: Keys = Keys {
    used: &["dependencies", "host-dependencies", "build-dependencies", "constraints"],
    harmless: &["tasks", "activation"],
    refused: REFUSED,
};

const REFUSED: &[(&str, Unsupported)] = &[("pypi-dependencies", Unsupported::Wheels), ("dev", Unsupported::Builds)];

impl Feature {
    /// What the feature asks for on a platform: of each package what the table that is written last says.
    pub fn wanted(&self, platform: &Platform) -> Wanted {
        let targets = || self.targets.iter().filter(|(selector, _)| selector.matches(platform));
        Wanted {
            requirements: last_of_each(targets().flat_map(|(_, wanted)| &wanted.requirements), Requirement::name),
            constraints: last_of_each(targets().flat_map(|(_, wanted)| &wanted.constraints), Requirement::name),
            wheels: last_of_each(targets().flat_map(|(_, wanted)| &wanted.wheels), |wheel| wheel.name.clone()),
        }
    }

    /// Whether the feature is for a platform: it may name it, or its conda platform.
    pub fn allows(&self, platform: &Platform) -> bool {
        self.platforms.as_ref().is_none_or(|platforms| {
            platforms.iter().any(|(name, _)| *name == platform.name || name == platform.subdir.as_str())
        })
    }

    /// The feature as messages call it.
    pub fn shown(&self) -> String {
        if self.name == DEFAULT { "the manifest".to_owned() } else { format!("the feature `{}`", self.name) }
    }
}

fn last_of_each<'a, T: Clone + 'a>(all: impl Iterator<Item = &'a T>, name: fn(&T) -> String) -> Vec<T> {
    let merged: BTreeMap<String, &T> = all.map(|one| (name(one), one)).collect();
    merged.into_values().cloned().collect()
}

/// Reads features; channel names and paths mean something relative to the manifest's directory.
pub struct Reader<'a> {
    specs: Specs<'a>,
}

/// What the names and paths of channels mean in a manifest.
pub fn channel_config(manifest: &Path) -> ChannelConfig {
    let absolute = std::path::absolute(manifest).unwrap_or_else(|_| manifest.to_owned());
    let directory = absolute.parent().map(Path::to_owned).unwrap_or(absolute);
    ChannelConfig::default_with_root_dir(directory)
}

impl<'a> Reader<'a> {
    pub fn new(config: &'a ChannelConfig, workspace: &Table<'a>) -> Result<Self, ManifestError> {
        let pool = workspace.get("dependencies").map(|node| node.table()).transpose()?;
        Ok(Self { specs: Specs { config, pool } })
    }

    /// A feature, or what an environment says as a feature of its own would.
    pub fn feature(&self, name: &str, table: &Table<'_>, keys: &Keys) -> Result<Feature, ManifestError> {
        let mut refused = Vec::new();
        table.check(keys, &mut refused)?;
        let platforms = table.get("platforms").map(|platforms| platforms.array()).transpose()?;
        let named = |platform: &Node<'_>| Ok((platform.str()?.to_owned(), platform.place()));
        let contents = self.contents(name, table)?;
        refused.extend(contents.refused);
        Ok(Feature {
            platforms: platforms.map(|all| all.iter().map(named).collect::<Result<_, ManifestError>>()).transpose()?,
            channels: table.get("channels").map(|channels| self.channels(&channels)).transpose()?,
            channel_priority: channel_priority(table)?,
            strategy: strategy(table)?,
            refused,
            ..contents
        })
    }

    /// What the manifest says outside of features. Its platforms and channels are the workspace's.
    pub fn default_feature(
        &self,
        root: &Table<'_>,
        workspace: &Table<'_>,
        refused: Vec<Refusal>,
    ) -> Result<Feature, ManifestError> {
        let mut feature = self.contents(DEFAULT, root)?;
        feature.refused.splice(..0, refused);
        Ok(Feature { channel_priority: channel_priority(workspace)?, strategy: strategy(workspace)?, ..feature })
    }

    fn contents(&self, name: &str, table: &Table<'_>) -> Result<Feature, ManifestError> {
        let mut refused = Vec::new();
        let mut targets = vec![(Selector::Everywhere, self.wanted(table, &mut refused)?)];
        for (key, node) in table.get("target").map(|node| node.table()).transpose()?.iter().flat_map(Table::entries) {
            let target = node.table()?;
            target.check(&TARGET, &mut refused)?;
            targets.push((Selector::read(&key, &node)?, self.wanted(&target, &mut refused)?));
        }
        let mut system_requirements = Vec::new();
        if let Some(node) = table.get("system-requirements") {
            let place = || node.place();
            system_requirements.extend(platform::system_requirements(&node)?.into_iter().map(|one| (one, place())));
        }
        Ok(Feature {
            name: name.to_owned(),
            platforms: None,
            channels: None,
            channel_priority: None,
            strategy: None,
            prerelease: prerelease(table)?,
            system_requirements,
            refused,
            targets,
        })
    }

    /// Where nothing is built, what a build would need is installed as well, and goes before what a run needs.
    fn wanted(&self, table: &Table<'_>, refused: &mut Vec<Refusal>) -> Result<Wanted, ManifestError> {
        let mut wanted = Wanted::default();
        for key in ["dependencies", "host-dependencies", "build-dependencies"] {
            if let Some(node) = table.get(key) {
                wanted.requirements.extend(self.specs.table(&node, refused)?);
            }
        }
        if let Some(node) = table.get("constraints") {
            wanted.constraints = self.specs.table(&node, refused)?;
        }
        if let Some(node) = table.get("pypi-dependencies") {
            wanted.wheels = wheel::wheels(&node)?;
        }
        Ok(wanted)
    }

    /// A list of channels: names, URLs, paths, or tables with more.
    pub fn channels(&self, node: &Node<'_>) -> Result<Vec<PrioritizedChannel>, ManifestError> {
        let read = |node: &Node<'_>| {
            let Some(table) = node.as_table() else {
                let (named, channel) = spec::channel(node, self.specs.config)?;
                return Ok(PrioritizedChannel { named, channel, priority: 0, exclude_newer: None });
            };
            table.only(CHANNEL_KEYS)?;
            let channel = table.get("channel").ok_or_else(|| node.invalid("has a table without `channel`"))?;
            let (named, channel) = spec::channel(&channel, self.specs.config)?;
            Ok(PrioritizedChannel {
                named,
                channel,
                priority: table.get("priority").map(|priority| priority.integer()).transpose()?.unwrap_or(0),
                exclude_newer: table.get("exclude-newer").map(|node| Cutoff::read(&node)).transpose()?,
            })
        };
        node.array()?.iter().map(read).collect()
    }
}

/// The keys of a channel's table.
pub const CHANNEL_KEYS: &[&str] = &["channel", "priority", "exclude-newer"];

fn channel_priority(table: &Table<'_>) -> Result<Option<(ChannelPriority, Place)>, ManifestError> {
    let Some(node) = table.get("channel-priority") else { return Ok(None) };
    let priority = match node.str()? {
        "strict" => ChannelPriority::Strict,
        "flexible" => ChannelPriority::Flexible,
        "disabled" => ChannelPriority::Disabled,
        _ => return Err(node.invalid("is neither \"strict\" nor \"flexible\" nor \"disabled\"")),
    };
    Ok(Some((priority, node.place())))
}

fn strategy(table: &Table<'_>) -> Result<Option<SolveStrategy>, ManifestError> {
    let Some(node) = table.get("solve-strategy") else { return Ok(None) };
    match node.str()? {
        "highest" => Ok(Some(SolveStrategy::Highest)),
        "lowest" => Ok(Some(SolveStrategy::LowestVersion)),
        "lowest-direct" => Ok(Some(SolveStrategy::LowestVersionDirect)),
        _ => Err(node.invalid("is neither \"highest\" nor \"lowest\" nor \"lowest-direct\"")),
    }
}

/// How PyPI's releases before a release are treated, as it stands in the lock.
pub const PRERELEASE_MODES: [&str; 5] = ["disallow", "allow", "if-necessary", "explicit", "if-necessary-or-explicit"];

/// `pypi-options.prerelease-mode` of a table; the other options change nothing where nothing is taken from PyPI.
pub fn prerelease(table: &Table<'_>) -> Result<Option<(String, Place)>, ManifestError> {
    let Some(options) = table.get("pypi-options").map(|node| node.table()).transpose()? else { return Ok(None) };
    let Some(node) = options.get("prerelease-mode") else { return Ok(None) };
    let mode = node.str()?;
    if !PRERELEASE_MODES.contains(&mode) {
        return Err(node.invalid(format!("is none of {}", PRERELEASE_MODES.join(", "))));
    }
    Ok(Some((mode.to_owned(), node.place())))
}

#[cfg(test)]
mod tests {
    use super::glob_matches;

    #[test]
    fn a_star_stands_for_any_part_of_a_name() {
        for (glob, name, expected) in [
            ("*", "linux-64", true),
            ("linux-*", "linux-64", true),
            ("linux-*", "osx-64", false),
            ("*-cuda-*", "linux-64-cuda-12", true),
            ("*-cuda-*", "linux-64-cuda", false),
            ("l*64*2", "linux-64-cuda-12", true),
            ("a*a", "a", false),
            ("a*b*b", "ab", false),
        ] {
            assert_eq!(glob_matches(glob, name), expected, "{glob} {name}");
        }
    }
}
