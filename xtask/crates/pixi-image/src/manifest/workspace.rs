//! The parts of a manifest, and how features are combined into environments.

use std::collections::BTreeSet;
use std::path::Path;

use rattler_conda_types::{ParseStrictness, Version, VersionSpec};
use rattler_solve::{ChannelPriority, SolveStrategy};

use super::cutoff::ExcludeNewer;
use super::document::{Keys, Node, Place, Table};
use super::feature::{self, ENVIRONMENT, FEATURE, Feature, PrioritizedChannel, Reader};
use super::platform::{self, Platform};
use super::{Choice, DEFAULT, ManifestEnvironment, ManifestError, Target, Unsupported, Wanted};
use crate::model::PIXI_VERSION;

pub const ROOT: Keys = Keys {
    used: &[
        "workspace",
        "project",
        "dependencies",
        "host-dependencies",
        "build-dependencies",
        "constraints",
        "exclude-newer",
        "target",
        "system-requirements",
        "pypi-options",
        "feature",
        "environments",
    ],
    // A package of the workspace is part of an environment only where a dependency on its path says so.
    harmless: &["tasks", "activation", "package", "pypi-exclude-newer", "tool", "$schema"],
    refused: &[("pypi-dependencies", Unsupported::Wheels), ("dev", Unsupported::Builds)],
};

pub const WORKSPACE: Keys = Keys {
    used: &[
        "channels",
        "platforms",
        "channel-priority",
        "solve-strategy",
        "exclude-newer",
        "requires-pixi",
        "dependencies",
        "pypi-options",
    ],
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
        "s3-options",
        "preview",
        "build-variants",
        "build-variants-files",
        "target",
    ],
    refused: &[],
};

/// The keys of an environment that no feature has.
const OF_ENVIRONMENTS: [&str; 3] = ["features", "solve-group", "no-default-feature"];

/// The parts of a manifest before features are combined into environments.
pub struct Workspace {
    platforms: Vec<Platform>,
    channels: Vec<PrioritizedChannel>,
    exclude_newer: ExcludeNewer,
    prerelease: Option<String>,
    /// Also those that environments say of themselves.
    features: Vec<Feature>,
    environments: Vec<Written>,
}

/// An environment as it is written.
struct Written {
    name: String,
    /// Indices of features, in the order in which they count.
    features: Vec<usize>,
    group: Option<String>,
    place: Place,
}

impl Workspace {
    /// Reads the root of a manifest.
    pub fn read(path: &Path, root: &Table<'_>) -> Result<Self, ManifestError> {
        let mut refused = Vec::new();
        root.check(&ROOT, &mut refused)?;
        let Some(node) = root.get("workspace").or_else(|| root.get("project")) else {
            let (key, reason) = ("workspace".to_owned(), "is missing".to_owned());
            return Err(ManifestError::Invalid { place: root.start(), key, reason });
        };
        let table = node.table()?;
        table.check(&WORKSPACE, &mut refused)?;
        requires_pixi(&table)?;
        let require = |key: &str| table.get(key).ok_or_else(|| node.invalid(format!("has no `{key}`")));
        let platforms: Vec<_> =
            require("platforms")?.array()?.iter().map(platform::platform).collect::<Result<_, _>>()?;
        let mut names = BTreeSet::new();
        if let Some(twice) = platforms.iter().find(|platform| !names.insert(&platform.name)) {
            return Err(require("platforms")?.invalid(format!("has `{}` twice", twice.name)));
        }
        let config = feature::channel_config(path);
        let reader = Reader::new(&config, &table)?;
        let mut workspace = Self {
            channels: reader.channels(&require("channels")?)?,
            exclude_newer: ExcludeNewer::read(root, &table)?,
            prerelease: feature::prerelease(&table)?.map(|(mode, _)| mode),
            features: vec![reader.default_feature(root, &table, refused)?],
            environments: Vec::new(),
            platforms,
        };
        for (name, node) in root.get("feature").map(|node| node.table()).transpose()?.iter().flat_map(Table::entries) {
            if name == DEFAULT {
                return Err(node.invalid("is the name of what stands outside of all features"));
            }
            workspace.features.push(reader.feature(&name, &node.table()?, &FEATURE)?);
        }
        workspace.read_environments(root, &reader, &node)?;
        workspace.settle_platforms(&node)?;
        Ok(workspace)
    }

    fn read_environments(
        &mut self,
        root: &Table<'_>,
        reader: &Reader<'_>,
        node: &Node<'_>,
    ) -> Result<(), ManifestError> {
        let written = root.get("environments").map(|node| node.table()).transpose()?;
        for (name, node) in written.iter().flat_map(Table::entries) {
            if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-') {
                return Err(node.invalid("may hold lower-case letters, digits and `-` only"));
            }
            let environment = self.written(name, &node, reader)?;
            self.environments.push(environment);
        }
        match self.environments.iter().position(|environment| environment.name == DEFAULT) {
            Some(index) => self.environments[..=index].rotate_right(1),
            None => {
                let (name, place) = (DEFAULT.to_owned(), node.place());
                self.environments.insert(0, Written { name, features: vec![0], group: None, place });
            }
        }
        Ok(())
    }

    fn written(&mut self, name: String, node: &Node<'_>, reader: &Reader<'_>) -> Result<Written, ManifestError> {
        let mut indices = Vec::new();
        let mut group = None;
        let mut without_default = false;
        let features = match node.as_table() {
            None => node.array()?,
            Some(table) => {
                if table.entries().iter().all(|(key, _)| key == "no-default-feature") {
                    return Err(node.invalid("has no `features`"));
                }
                let own = reader.feature(&format!("environment {name}"), &table, &ENVIRONMENT)?;
                // What it says as a feature would goes before its features; one that says nothing is none.
                if table.entries().iter().any(|(key, _)| !OF_ENVIRONMENTS.contains(&key.as_str())) {
                    indices.push(self.features.len());
                    self.features.push(own);
                }
                group = table.get("solve-group").map(|group| group.str().map(str::to_owned)).transpose()?;
                without_default = table.get("no-default-feature").map(|no| no.bool()).transpose()?.unwrap_or(false);
                table.get("features").map(|features| features.array()).transpose()?.unwrap_or_default()
            }
        };
        for feature in &features {
            let wanted = feature.str()?;
            let found = self.features.iter().position(|feature| feature.name == wanted);
            let index =
                found.ok_or_else(|| feature.invalid(format!("names the feature `{wanted}`, which is not there")))?;
            if indices.contains(&index) {
                return Err(feature.invalid(format!("names the feature `{wanted}` twice")));
            }
            indices.push(index);
        }
        if !without_default && !indices.contains(&0) {
            indices.push(0);
        }
        Ok(Written { name, features: indices, group, place: node.place() })
    }

    /// Features may bring conda platforms that the workspace does not name; other platforms must be named there.
    fn settle_platforms(&mut self, node: &Node<'_>) -> Result<(), ManifestError> {
        let composes = self.composes();
        for feature in &self.features {
            if !composes && !feature.system_requirements.is_empty() {
                return Err(node.invalid(format!(
                    "has platforms that promise more than their conda platform, so {} may not have `system-requirements`",
                    feature.shown()
                )));
            }
            for (name, place) in feature.platforms.iter().flatten() {
                if self.platforms.iter().any(|platform| platform.name == *name) {
                    continue;
                }
                match name.parse().ok().filter(|_| composes) {
                    Some(subdir) => self.platforms.push(Platform::plain(subdir)),
                    None => {
                        let (place, key) = (place.clone(), format!("feature.{}.platforms", feature.name));
                        let reason = format!("names `{name}`, which is not among the platforms of the workspace");
                        return Err(ManifestError::Invalid { place, key, reason });
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether platforms are combined from the system requirements of features: only where all are plain.
    fn composes(&self) -> bool {
        self.platforms.iter().all(Platform::is_plain)
    }

    /// Combines features into environments.
    pub fn environments(&self) -> Result<Vec<ManifestEnvironment>, ManifestError> {
        self.environments.iter().map(|environment| self.environment(environment)).collect()
    }

    fn environment(&self, written: &Written) -> Result<ManifestEnvironment, ManifestError> {
        let own: Vec<_> = written.features.iter().map(|index| &self.features[*index]).collect();
        let group = self.group(written);
        let solved = group.as_deref().unwrap_or(&own);
        let channels = self.prioritized_channels(solved);
        let targets = self.platforms_of(written, &own)?.into_iter().map(|platform| Target {
            own: wanted(&own, &platform),
            group: group.as_ref().map(|features| wanted(features, &platform)),
            platform,
        });
        let choice = |features: &[&Feature]| self.choice(&written.name, features);
        Ok(ManifestEnvironment {
            name: written.name.clone(),
            choice: choice(&own)?,
            group_choice: choice(solved)?,
            prerelease: self.prerelease_of(&written.name, solved)?,
            channels: channels.into_iter().map(|prioritized| prioritized.channel).collect(),
            targets: targets.collect(),
            refused: own.iter().flat_map(|feature| feature.refused.clone()).collect(),
        })
    }

    /// All features of an environment's solve group; none where it is alone.
    fn group(&self, written: &Written) -> Option<Vec<&Feature>> {
        let group = written.group.as_ref()?;
        let members: Vec<_> = self.environments.iter().filter(|other| other.group.as_ref() == Some(group)).collect();
        if members.len() < 2 {
            return None;
        }
        let mut seen = BTreeSet::new();
        let indices = members.iter().flat_map(|member| &member.features).filter(|index| seen.insert(**index));
        Some(indices.map(|index| &self.features[*index]).collect())
    }

    /// The channels of features, the most important first. A feature without its own brings those of the workspace.
    fn prioritized_channels(&self, features: &[&Feature]) -> Vec<PrioritizedChannel> {
        let mut all: Vec<_> =
            features.iter().flat_map(|feature| feature.channels.as_ref().unwrap_or(&self.channels)).collect();
        all.sort_by_key(|channel| std::cmp::Reverse(channel.priority));
        let mut channels: Vec<PrioritizedChannel> = Vec::new();
        for prioritized in all {
            if !channels.iter().any(|known| known.named == prioritized.named) {
                channels.push(prioritized.clone());
            }
        }
        channels
    }

    fn choice(&self, name: &str, features: &[&Feature]) -> Result<Choice, ManifestError> {
        let priorities = features.iter().filter_map(|feature| feature.channel_priority.as_ref());
        let mut exclude_newer = self.exclude_newer.clone();
        for PrioritizedChannel { channel, exclude_newer: cutoff, .. } in self.prioritized_channels(features) {
            if let Some(cutoff) = cutoff {
                exclude_newer.channel(&channel, cutoff);
            }
        }
        Ok(Choice {
            channel_priority: only_one(priorities, "channel-priority", name)?.unwrap_or(ChannelPriority::Strict),
            strategy: features.iter().find_map(|feature| feature.strategy).unwrap_or(SolveStrategy::Highest),
            exclude_newer,
        })
    }

    fn prerelease_of(&self, name: &str, features: &[&Feature]) -> Result<Option<String>, ManifestError> {
        let modes = features.iter().filter_map(|feature| feature.prerelease.as_ref());
        Ok(only_one(modes, "pypi-options.prerelease-mode", name)?.or_else(|| self.prerelease.clone()))
    }

    fn platforms_of(&self, written: &Written, features: &[&Feature]) -> Result<Vec<Platform>, ManifestError> {
        let supported =
            self.platforms.iter().filter(|platform| features.iter().all(|feature| feature.allows(platform)));
        if self.composes() {
            let requirements = || features.iter().flat_map(|feature| &feature.system_requirements);
            let libcs: BTreeSet<_> =
                requirements().map(|(package, _)| &package.name).filter(|name| platform::is_libc(name)).collect();
            if libcs.len() > 1 {
                let key = format!("environments.{}", written.name);
                let reason = "has features that require different families of libc".to_owned();
                return Err(ManifestError::Invalid { place: written.place.clone(), key, reason });
            }
            let packages = || requirements().map(|(package, _)| package);
            return Ok(supported.map(|platform| platform::composed(platform.subdir, packages())).collect());
        }
        // A platform that some feature names exactly pushes its siblings of the same conda platform out.
        let named: BTreeSet<_> = features
            .iter()
            .flat_map(|feature| feature.platforms.iter().flatten())
            .map(|(name, _)| name.as_str())
            .collect();
        let exact = |platform: &Platform| named.contains(platform.name.as_str());
        let pushed: Vec<_> = self.platforms.iter().filter(|platform| exact(platform)).map(|p| p.subdir).collect();
        Ok(supported.filter(|platform| exact(platform) || !pushed.contains(&platform.subdir)).cloned().collect())
    }
}

/// What features ask for on a platform, those alone that are for it; what several say in the same words counts once.
fn wanted(features: &[&Feature], platform: &Platform) -> Wanted {
    let mut all = Wanted::default();
    for feature in features.iter().filter(|feature| feature.allows(platform)) {
        let Wanted { requirements, constraints, wheels } = feature.wanted(platform);
        add(&mut all.requirements, requirements, |one, other| one.spec == other.spec);
        add(&mut all.constraints, constraints, |one, other| one.spec == other.spec);
        add(&mut all.wheels, wheels, |one, other| one.text == other.text);
    }
    all
}

fn add<T>(known: &mut Vec<T>, new: Vec<T>, same: fn(&T, &T) -> bool) {
    for one in new {
        if !known.iter().any(|other| same(&one, other)) {
            known.push(one);
        }
    }
}

/// What those features say that say something: two different words are an error.
fn only_one<'a, T: Clone + PartialEq + 'a>(
    said: impl Iterator<Item = &'a (T, Place)>,
    key: &str,
    environment: &str,
) -> Result<Option<T>, ManifestError> {
    let mut chosen: Option<&T> = None;
    for (value, place) in said {
        if chosen.is_some_and(|chosen| chosen != value) {
            let reason = format!("differs between the features that are solved for the environment `{environment}`");
            return Err(ManifestError::Invalid { place: place.clone(), key: key.to_owned(), reason });
        }
        chosen = Some(value);
    }
    Ok(chosen.cloned())
}

fn requires_pixi(workspace: &Table<'_>) -> Result<(), ManifestError> {
    let Some(node) = workspace.get("requires-pixi") else { return Ok(()) };
    let text = node.str()?;
    let spec = VersionSpec::from_str(text, ParseStrictness::Lenient)
        .map_err(|error| node.invalid(format!("`{text}` is no version to ask for: {error}")))?;
    let ours: Version = PIXI_VERSION.parse().map_err(|error| node.invalid(format!("{PIXI_VERSION}: {error}")))?;
    if spec.matches(&ours) {
        return Ok(());
    }
    Err(node.invalid(format!(
        "asks for pixi {text}, and this program locks as pixi {PIXI_VERSION} does\n  hint: lock with a pixi of that version"
    )))
}
