//! Whether a lock still satisfies its manifest, without any channel.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use rattler_conda_types::{GenericVirtualPackage, MatchSpec, Matches, PackageName, ParseStrictness, RepoDataRecord};
use rattler_lock::{Environment, LockFile, Platform as Row};
use url::Url;

use crate::lock::{self, LockError};
use crate::manifest::{Manifest, ManifestEnvironment, Target, is_default};
use crate::secrets;

/// Something that the manifest asks for and the lock does not give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unmet {
    /// The environment.
    pub environment: String,
    /// The name of the platform, where it is about one.
    pub platform: Option<String>,
    /// What is wrong, in a sentence without its end.
    pub reason: String,
}

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "environment `{}`", self.environment)?;
        if let Some(platform) = &self.platform {
            write!(f, " for {platform}")?;
        }
        write!(f, ": {}", self.reason)
    }
}

/// Compares a lock with its manifest; an empty answer means that nothing has to be solved.
pub fn check(manifest: &Manifest, lock: &Path) -> Result<Vec<Unmet>, LockError> {
    let file = lock::load(lock)?;
    let mut unmet = Vec::new();
    for environment in &manifest.environments {
        match file.environment(&environment.name) {
            Some(locked) => check_environment(environment, locked, &mut unmet),
            None => unmet.push(about(environment, "it is not locked")),
        }
    }
    let mut names: Vec<_> = file.environments().map(|(name, _)| name).collect();
    names.sort_unstable();
    for name in names.into_iter().filter(|name| !manifest.environments.iter().any(|known| known.name == *name)) {
        let reason = "it is locked, but no longer in the manifest".to_owned();
        unmet.push(Unmet { environment: name.to_owned(), platform: None, reason });
    }
    Ok(unmet)
}

fn about(environment: &ManifestEnvironment, reason: impl Into<String>) -> Unmet {
    Unmet { environment: environment.name.clone(), platform: None, reason: reason.into() }
}

fn check_environment(environment: &ManifestEnvironment, locked: Environment<'_>, unmet: &mut Vec<Unmet>) {
    // A lock names channels without their passwords.
    let trimmed = |url: &str| {
        let url = Url::parse(url).map_or_else(|_| url.to_owned(), |url| secrets::without_credentials(&url).into());
        url.trim_end_matches('/').to_owned()
    };
    let expected: Vec<_> = environment.channels.iter().map(|channel| trimmed(channel.base_url.as_str())).collect();
    let found: Vec<_> = locked.channels().iter().map(|channel| trimmed(&channel.url)).collect();
    if expected != found {
        unmet.push(about(
            environment,
            format!("its channels are {}, locked are {}", expected.join(", "), found.join(", ")),
        ));
    }
    if locked.solve_options().channel_priority != environment.channel_priority {
        unmet.push(about(environment, "it is locked with another channel priority"));
    }
    let mut rows: Vec<_> = locked.platforms().collect();
    rows.sort_by(|a, b| a.name().as_str().cmp(b.name().as_str()));
    for target in &environment.targets {
        match rows.iter().position(|row| is_row_of(*row, target)) {
            Some(index) => check_target(environment, target, locked, rows.remove(index), unmet),
            None => unmet.push(Unmet {
                platform: Some(target.platform.name.clone()),
                ..about(environment, "it is not locked for this platform, or for other virtual packages")
            }),
        }
    }
    for row in rows {
        unmet.push(Unmet {
            platform: Some(row.name().to_string()),
            ..about(environment, "it is locked, but the manifest has no such platform for it")
        });
    }
}

/// The name of the row in which an environment is locked for one of its platforms.
pub fn row_name(lock: &LockFile, environment: &str, target: &Target) -> Option<String> {
    let mut names: Vec<_> = lock
        .environment(environment)?
        .platforms()
        .filter(|row| is_row_of(*row, target))
        .map(|row| row.name().to_string())
        .collect();
    names.sort();
    names.into_iter().next()
}

/// Rows are known by what they promise: pixi calls them `p1`, `p2`, and locks before version 7 promise nothing.
fn is_row_of(row: Row<'_>, target: &Target) -> bool {
    let mut declared: Vec<_> =
        row.virtual_packages().iter().filter(|text| !is_default(row.subdir(), text)).cloned().collect();
    declared.sort();
    let says_nothing = row.virtual_packages().is_empty() && row.name().as_str() == row.subdir().as_str();
    row.subdir() == target.platform.subdir && (says_nothing || declared == target.platform.declared())
}

fn check_target(
    environment: &ManifestEnvironment,
    target: &Target,
    locked: Environment<'_>,
    row: Row<'_>,
    unmet: &mut Vec<Unmet>,
) {
    let mut push = |reason: String| {
        unmet.push(Unmet { platform: Some(target.platform.name.clone()), ..about(environment, reason) });
    };
    let records = match locked.conda_repodata_records(row) {
        Ok(records) => records.unwrap_or_default(),
        Err(error) => return push(error.to_string()),
    };
    for package in locked.packages(row).into_iter().flatten().filter(|package| package.as_binary_conda().is_none()) {
        push(format!("`{}` is locked from PyPI or source, which the manifest does not ask for", package.name()));
    }
    for requirement in &target.requirements {
        let spec = &requirement.spec;
        let of_channel = |record: &&RepoDataRecord| match (&spec.channel, &record.channel) {
            (Some(wanted), Some(channel)) => {
                channel.trim_end_matches('/') == wanted.base_url.as_str().trim_end_matches('/')
            }
            _ => true,
        };
        if !records.iter().filter(of_channel).any(|record| spec.matches(record)) {
            let name = spec.name.to_string().to_lowercase();
            let found = records.iter().find(|record| record.package_record.name.as_normalized() == name);
            let found = found.map_or("it is not locked".to_owned(), |record| {
                format!("locked is {} {}", record.package_record.version, record.package_record.build)
            });
            push(format!("`{}` ({}) is not met: {found}", requirement.text, requirement.place));
        }
    }
    check_closure(target, &records, &mut push);
}

/// Each package's needs are met, and each package is needed.
fn check_closure(target: &Target, records: &[RepoDataRecord], push: &mut dyn FnMut(String)) {
    let virtual_packages: Vec<GenericVirtualPackage> =
        target.platform.virtual_packages.iter().map(|package| package.generic()).collect();
    let mut needed: BTreeSet<String> =
        target.requirements.iter().map(|requirement| requirement.spec.name.to_string().to_lowercase()).collect();
    for record in records {
        let package = &record.package_record;
        let identity = format!("{} {}", package.name.as_normalized(), package.version);
        for depends in &package.depends {
            needed.insert(PackageName::normalized_name_from_matchspec_str(depends).into_owned());
            let Ok(spec) = MatchSpec::from_str(depends, ParseStrictness::Lenient) else {
                push(format!("{identity} needs `{depends}`, which is not understood"));
                continue;
            };
            let met = spec.condition.is_some()
                || records.iter().any(|record| spec.matches(&record.package_record))
                || virtual_packages.iter().any(|package| spec.matches(package));
            if !met {
                push(format!("{identity} needs `{depends}`, which is not locked"));
            }
        }
        for constrains in &package.constrains {
            let Ok(spec) = MatchSpec::from_str(constrains, ParseStrictness::Lenient) else { continue };
            let hit = records.iter().find(|other| spec.name.matches(&other.package_record.name));
            if let Some(other) = hit.filter(|other| !spec.matches(&other.package_record)) {
                let other = &other.package_record;
                push(format!("{identity} allows only `{constrains}`, locked is {}", other.version));
            }
        }
    }
    for record in records.iter().filter(|record| !needed.contains(record.package_record.name.as_normalized())) {
        push(format!("`{}` is locked, but nothing asks for it", record.package_record.name.as_normalized()));
    }
}
