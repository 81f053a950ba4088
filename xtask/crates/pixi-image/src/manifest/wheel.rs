//! Requirements of packages from PyPI: nothing looks for them here, but a lock that pixi made must have them.

use std::str::FromStr;

use pep440_rs::VersionSpecifiers;

use super::ManifestError;
use super::document::{Node, Place, Table};

/// A package that an environment asks of PyPI.
#[derive(Clone, Debug, PartialEq)]
pub struct WheelRequirement {
    /// Its normalized name (PEP 503).
    pub name: String,
    /// The versions that will do, where it says so in a way that can be compared.
    pub versions: Option<VersionSpecifiers>,
    /// As it is written, for example `requests >=2`.
    pub text: String,
    /// Where it stands.
    pub place: Place,
}

/// A table `pypi-dependencies`. What is not needed everywhere, by a marker, is left out: markers are not evaluated here.
pub fn wheels(node: &Node<'_>) -> Result<Vec<WheelRequirement>, ManifestError> {
    let mut wheels = Vec::new();
    for (name, node) in node.table()?.entries() {
        let table = node.as_table();
        if table.as_ref().is_some_and(|table| table.get("env-markers").is_some()) {
            continue;
        }
        let of_table = |table: &Table<'_>| table.get("version").and_then(|version| Some(version.as_str()?.to_owned()));
        let version = node.as_str().map(str::to_owned).or_else(|| of_table(table.as_ref()?));
        let versions = version.as_deref().and_then(|text| VersionSpecifiers::from_str(text).ok());
        let text = versions.as_ref().map_or(name.clone(), |versions| format!("{name} {versions}"));
        wheels.push(WheelRequirement { name: normalized(&name), versions, text, place: node.place() });
    }
    Ok(wheels)
}

/// Names that differ in case and in `-`, `_` and `.` alone are one (PEP 503).
pub fn normalized(name: &str) -> String {
    let mut parts = name.split(['-', '_', '.']).filter(|part| !part.is_empty());
    let first = parts.next().unwrap_or_default().to_ascii_lowercase();
    parts.fold(first, |name, part| name + "-" + &part.to_ascii_lowercase())
}
