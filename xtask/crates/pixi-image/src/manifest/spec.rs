//! Requirements: what a table of dependencies says of one package.

use std::str::FromStr;
use std::sync::Arc;

use rattler_conda_types::{
    BuildNumberSpec, Channel, ChannelConfig, MatchSpec, NamedChannelOrUrl, NamelessMatchSpec, PackageName,
    PackageNameMatcher, ParseStrictness, StringMatcher, VersionSpec,
};
use rattler_digest::digest::{Digest, Output};
use rattler_digest::{Md5, Sha256, parse_digest_from_hex};

use super::document::{Keys, Node, Table};
use super::{ManifestError, Refusal, Requirement, Unsupported};

const NO_PATH: Unsupported = Unsupported::Other("packages of this machine cannot be locked here");
const NO_URL: Unsupported = Unsupported::Other("a package without a channel cannot be locked here");
const NO_GIT: Unsupported = Unsupported::Builds;
const NO_EXTRAS: Unsupported = Unsupported::Other("extras of conda packages are not known here");
const NO_CONDITION: Unsupported = Unsupported::Other("a requirement under a condition is not known here");

pub(super) const DEPENDENCY: Keys = Keys {
    used: &[
        "version",
        "build",
        "build-number",
        "file-name",
        "channel",
        "subdir",
        "license",
        "license-family",
        "md5",
        "sha256",
        "flags",
        "track-features",
        "workspace",
    ],
    harmless: &[],
    refused: &[
        ("git", NO_GIT),
        ("branch", NO_GIT),
        ("tag", NO_GIT),
        ("rev", NO_GIT),
        ("lfs", NO_GIT),
        ("subdirectory", NO_GIT),
        ("package", NO_GIT),
        ("path", NO_PATH),
        ("url", NO_URL),
        ("extras", NO_EXTRAS),
        ("when", NO_CONDITION),
    ],
};

/// Reads requirements.
pub struct Specs<'a> {
    /// What the names of channels mean.
    pub config: &'a ChannelConfig,
    /// `[workspace.dependencies]`: what `{ workspace = true }` means.
    pub pool: Option<Table<'a>>,
}

impl Specs<'_> {
    /// The requirements of a table of dependencies; those that are refused are left out, and noted.
    pub fn table(&self, node: &Node<'_>, refused: &mut Vec<Refusal>) -> Result<Vec<Requirement>, ManifestError> {
        let mut requirements = Vec::new();
        for (name, node) in node.table()?.entries() {
            let before = refused.len();
            let requirement = self.requirement(&name, &node, refused)?;
            if refused.len() == before {
                requirements.push(requirement);
            }
        }
        Ok(requirements)
    }

    fn requirement(
        &self,
        name: &str,
        node: &Node<'_>,
        refused: &mut Vec<Refusal>,
    ) -> Result<Requirement, ManifestError> {
        let package: PackageName =
            name.parse().map_err(|error| node.invalid(format!("is no name of a package: {error}")))?;
        let mut spec = NamelessMatchSpec::default();
        let inherits = node.as_table().and_then(|table| table.get("workspace"));
        if let Some(marker) = inherits {
            if !marker.bool()? {
                return Err(marker.invalid("may only be true"));
            }
            let pool = self.pool.as_ref().map(Table::entries).unwrap_or_default();
            let same = |other: &str| other.parse::<PackageName>().is_ok_and(|other| other == package);
            let Some((_, base)) = pool.into_iter().find(|(other, _)| same(other)) else {
                return Err(marker.invalid("is true, but `workspace.dependencies` has no such package"));
            };
            self.read(&base, &mut spec, refused)?;
        }
        self.read(node, &mut spec, refused)?;
        let spec = MatchSpec::from_nameless(spec, PackageNameMatcher::Exact(package));
        Ok(Requirement { text: spec.to_string(), spec, place: node.place() })
    }

    /// Adds what one entry says; a later one goes before an earlier one.
    fn read(
        &self,
        node: &Node<'_>,
        spec: &mut NamelessMatchSpec,
        refused: &mut Vec<Refusal>,
    ) -> Result<(), ManifestError> {
        let Some(table) = node.as_table() else {
            spec.version = version(node)?;
            return Ok(());
        };
        table.check(&DEPENDENCY, refused)?;
        if let Some(node) = table.get("version") {
            spec.version = version(&node)?;
        }
        spec.build = parsed::<StringMatcher>(&table, "build")?.or(spec.build.take());
        spec.build_number = parsed::<BuildNumberSpec>(&table, "build-number")?.or(spec.build_number.take());
        spec.file_name = text(&table, "file-name")?.or(spec.file_name.take());
        spec.subdir = text(&table, "subdir")?.or(spec.subdir.take());
        spec.license = text(&table, "license")?.or(spec.license.take());
        spec.license_family = text(&table, "license-family")?.or(spec.license_family.take());
        spec.md5 = digest::<Md5>(&table, "md5")?.or(spec.md5);
        spec.sha256 = digest::<Sha256>(&table, "sha256")?.or(spec.sha256);
        if let Some(node) = table.get("channel") {
            spec.channel = Some(Arc::new(channel(&node, self.config)?.1));
        }
        if let Some(node) = table.get("flags") {
            spec.flags = Some(node.array()?.iter().map(Node::parse).collect::<Result<_, _>>()?);
        }
        if let Some(node) = table.get("track-features") {
            let features = node.array()?;
            spec.track_features = Some(features.iter().map(|f| f.str().map(str::to_owned)).collect::<Result<_, _>>()?);
        }
        Ok(())
    }
}

fn parsed<T: FromStr>(table: &Table<'_>, key: &str) -> Result<Option<T>, ManifestError>
where
    T::Err: std::fmt::Display,
{
    table.get(key).map(|node| node.parse()).transpose()
}

fn text(table: &Table<'_>, key: &str) -> Result<Option<String>, ManifestError> {
    table.get(key).map(|node| node.str().map(str::to_owned)).transpose()
}

fn digest<D: Digest>(table: &Table<'_>, key: &str) -> Result<Option<Output<D>>, ManifestError> {
    let read = |node: Node<'_>| {
        let text = node.str()?;
        parse_digest_from_hex::<D>(text)
            .ok_or_else(|| node.invalid(format!("`{text}` is no such digest in hex digits")))
    };
    table.get(key).map(read).transpose()
}

/// What a channel is called, and what that means.
pub fn channel(node: &Node<'_>, config: &ChannelConfig) -> Result<(NamedChannelOrUrl, Channel), ManifestError> {
    let text = node.str()?;
    let invalid = |error: &dyn std::fmt::Display| node.invalid(format!("`{text}` is no channel: {error}"));
    let named: NamedChannelOrUrl = text.parse().map_err(|error| invalid(&error))?;
    let channel = named.clone().into_channel(config).map_err(|error| invalid(&error))?;
    Ok((named, channel))
}

pub fn version(node: &Node<'_>) -> Result<Option<VersionSpec>, ManifestError> {
    let text = node.str()?;
    let spec = VersionSpec::from_str(text, ParseStrictness::Lenient);
    let spec = spec.map_err(|error| node.invalid(format!("`{text}` is no version to ask for: {error}")))?;
    Ok(Some(spec).filter(|spec| *spec != VersionSpec::Any))
}
