//! Whether a lock still satisfies its manifest, without any channel.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rattler_conda_types::{
    Channel, ChannelConfig, GenericVirtualPackage, MatchSpec, Matches, ParseMatchSpecOptions, RepoDataRecord,
    RepodataRevision,
};
use rattler_lock::{CondaPackageData, Environment, LockFile, LockedPackage, Platform as Row, PypiPackageData};

use super::{depends, reached, solve_options};
use crate::lock::{self, LockError};
use crate::manifest::{
    self, Manifest, ManifestEnvironment, ManifestError, Requirement, Target, Unsupported, WheelRequirement, is_default,
    normalized,
};
use crate::secrets;

/// Something about an environment of the lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// The environment.
    pub environment: String,
    /// The name of the platform, where it is about one.
    pub platform: Option<String>,
    /// What there is to say, in a sentence without its end.
    pub reason: String,
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "environment `{}`", self.environment)?;
        if let Some(platform) = &self.platform {
            write!(f, " for {platform}")?;
        }
        write!(f, ": {}", self.reason)
    }
}

/// What a comparison of a lock with its manifest found out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// What the manifest asks for and the lock does not give.
    pub unmet: Vec<Remark>,
    /// What this program cannot tell.
    pub unchecked: Vec<Remark>,
}

impl Checked {
    /// The remarks as lines of a message.
    pub fn lines(remarks: &[Remark]) -> String {
        remarks.iter().map(|remark| format!("    {remark}")).collect::<Vec<_>>().join("\n")
    }
}

/// Compares a lock with its manifest as a whole. `now` is the time from which `exclude-newer` counts ages.
pub fn check(manifest: &Manifest, lock: &Path, now: Timestamp) -> Result<Checked, LockError> {
    let file = lock::load(lock)?;
    let mut checked = Checked::default();
    for environment in &manifest.environments {
        compare(environment, &file, now, &mut checked);
    }
    let mut names: Vec<_> = file.environments().map(|(name, _)| name).collect();
    names.sort_unstable();
    for name in names.into_iter().filter(|name| manifest.environment(name).is_none()) {
        checked.unmet.push(not_in_manifest(name));
    }
    Ok(checked)
}

/// Why a build that installs from a lock must not begin.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The lock cannot be read.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// There is no manifest to compare with, or it is no TOML.
    #[error(transparent)]
    Manifest(ManifestError),
    /// The manifest has changed since the lock was made.
    #[error(
        "{} does not satisfy {}:\n{}\n  hint: lock anew with `cargo xtask lock`, or `pixi lock`; `--frozen` builds from the lock as it is",
        lock.display(), manifest.display(), Checked::lines(.unmet)
    )]
    Unmet {
        /// The lock.
        lock: PathBuf,
        /// The manifest.
        manifest: PathBuf,
        /// What is asked for and not locked.
        unmet: Vec<Remark>,
    },
}

/// Makes sure that one environment of a lock satisfies the manifest, as `--locked` of pixi does for all, as far as it can be
/// told here. What cannot be told is the answer: a manifest may say more than this program can solve.
pub fn require_satisfied(
    manifest: &Path,
    lock: &Path,
    environment: &str,
    now: Timestamp,
) -> Result<Option<String>, CheckError> {
    let read = match manifest::read(manifest) {
        Ok(read) => read,
        Err(error @ (ManifestError::Refused { .. } | ManifestError::Invalid { .. })) => {
            let error = error.to_string();
            let reason = error.lines().next().unwrap_or_default();
            return Ok(Some(format!("{} was not compared with its manifest: {reason}", lock.display())));
        }
        Err(error) => return Err(CheckError::Manifest(error)),
    };
    let file = lock::load(lock)?;
    let mut checked = Checked::default();
    match read.environment(environment) {
        Some(environment) => compare(environment, &file, now, &mut checked),
        None => checked.unmet.push(not_in_manifest(environment)),
    }
    let Checked { unmet, unchecked } = checked;
    if !unmet.is_empty() {
        return Err(CheckError::Unmet { lock: lock.to_owned(), manifest: manifest.to_owned(), unmet });
    }
    Ok(unchecked.first().map(|remark| format!("{}, {remark}", lock.display())))
}

fn not_in_manifest(name: &str) -> Remark {
    let reason = "it is locked, but no longer in the manifest".to_owned();
    Remark { environment: name.to_owned(), platform: None, reason }
}

fn about(environment: &ManifestEnvironment, reason: impl Into<String>) -> Remark {
    Remark { environment: environment.name.clone(), platform: None, reason: reason.into() }
}

fn compare(environment: &ManifestEnvironment, file: &LockFile, now: Timestamp, checked: &mut Checked) {
    let Some(locked) = file.environment(&environment.name) else {
        return checked.unmet.push(about(environment, "it is not locked"));
    };
    for refusal in &environment.refused {
        let of_wheels = "what its packages from PyPI need is";
        let what = if refusal.what == Unsupported::Wheels { of_wheels } else { "it is" };
        checked.unchecked.push(about(environment, format!("{what} not checked, for {refusal}")));
    }
    let is_whole = |what: &Unsupported| *what == Unsupported::Wheels;
    if !environment.refused.iter().all(|refusal| is_whole(&refusal.what)) {
        return;
    }
    check_settings(environment, locked, &mut checked.unmet);
    let mut rows: Vec<_> = locked.platforms().collect();
    rows.sort_by(|a, b| a.name().as_str().cmp(b.name().as_str()));
    for target in &environment.targets {
        let exact = rows.iter().position(|row| !says_nothing(*row) && is_row_of(*row, target));
        match exact.or_else(|| rows.iter().position(|row| is_row_of(*row, target))) {
            Some(index) => {
                let row = rows.remove(index);
                Comparison { environment, target, now, unmet: &mut checked.unmet }.run(locked, row);
            }
            // Pixi writes no row where there is nothing to install.
            None if target.own.requirements.is_empty() && target.own.wheels.is_empty() => {}
            None => checked.unmet.push(Remark {
                platform: Some(target.platform.name.clone()),
                ..about(environment, "it is not locked for this platform, or for other virtual packages")
            }),
        }
    }
    for row in rows {
        checked.unmet.push(Remark {
            platform: Some(row.name().to_string()),
            ..about(environment, "it is locked, but the manifest has no such platform for it")
        });
    }
}

/// What holds for all platforms of an environment.
fn check_settings(environment: &ManifestEnvironment, locked: Environment<'_>, unmet: &mut Vec<Remark>) {
    // A lock names channels without their passwords; an old one may say `conda-forge`.
    let config = ChannelConfig::default_with_root_dir(PathBuf::from("/"));
    let address = |text: &str| {
        let url = Channel::from_str(text, &config).map(|channel| channel.base_url.url().clone());
        let url = url.map_or_else(|_| text.to_owned(), |url| secrets::without_credentials(&url).into());
        url.trim_end_matches('/').to_owned()
    };
    let expected: Vec<_> = environment.channels.iter().map(|channel| address(channel.base_url.as_str())).collect();
    let found: Vec<_> = locked.channels().iter().map(|channel| address(&channel.url)).collect();
    if expected != found {
        unmet.push(about(
            environment,
            format!("its channels are {}, locked are {}", expected.join(", "), found.join(", ")),
        ));
    }
    let (expected, found) = (solve_options(environment), locked.solve_options());
    for (differs, what) in [
        (found.channel_priority != expected.channel_priority, "channel priority"),
        (found.strategy != expected.strategy, "solve strategy"),
        (found.pypi_prerelease_mode != expected.pypi_prerelease_mode, "prerelease mode of PyPI"),
    ] {
        if differs {
            unmet.push(about(environment, format!("it is locked with another {what}")));
        }
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
    row.subdir() == target.platform.subdir && (says_nothing(row) || declared == target.platform.declared())
}

fn says_nothing(row: Row<'_>) -> bool {
    row.virtual_packages().is_empty() && row.name().as_str() == row.subdir().as_str()
}

/// An environment on a platform, and what is found to be wrong with it.
struct Comparison<'a> {
    environment: &'a ManifestEnvironment,
    target: &'a Target,
    now: Timestamp,
    unmet: &'a mut Vec<Remark>,
}

impl Comparison<'_> {
    fn push(&mut self, reason: String) {
        let platform = Some(self.target.platform.name.clone());
        self.unmet.push(Remark { platform, ..about(self.environment, reason) });
    }

    fn run(&mut self, locked: Environment<'_>, row: Row<'_>) {
        let records = match locked.conda_repodata_records(row) {
            Ok(records) => records.unwrap_or_default(),
            Err(error) => return self.push(error.to_string()),
        };
        let takes_wheels = !self.environment.refused.is_empty();
        let mut wheels = Vec::new();
        for package in locked.packages(row).into_iter().flatten() {
            match package {
                LockedPackage::Pypi(wheel) if takes_wheels => wheels.push(wheel),
                LockedPackage::Conda(CondaPackageData::Binary(_)) => {}
                other => {
                    let name = other.name();
                    self.push(format!("`{name}` is locked from PyPI or source, which the manifest does not ask for"));
                }
            }
        }
        self.check_wheels(&wheels, &records);
        for requirement in &self.target.own.requirements {
            if !records.iter().any(|record| fits(&requirement.spec, record)) {
                self.push(not_met(requirement, &records));
            }
        }
        for constraint in &self.target.own.constraints {
            if records.iter().any(|record| is_named(&constraint.spec, record) && !fits(&constraint.spec, record)) {
                self.push(not_met(constraint, &records));
            }
        }
        self.check_age(&records);
        self.check_closure(&records);
        // A package from PyPI may be there as one of conda.
        if !takes_wheels {
            self.check_needed(&records);
        }
    }

    /// A package of PyPI is there under its name and in a version that will do, or as one of conda.
    fn check_wheels(&mut self, wheels: &[&PypiPackageData], records: &[RepoDataRecord]) {
        for WheelRequirement { name, versions, text, place } in &self.target.own.wheels {
            let found = match wheels.iter().find(|wheel| normalized(wheel.name().as_ref()) == *name) {
                Some(wheel) => {
                    let fits =
                        versions.as_ref().zip(wheel.version()).is_none_or(|(specs, version)| specs.contains(version));
                    (!fits).then(|| format!("locked is {}", wheel.version_string()))
                }
                None => (!records.iter().any(|record| provides(record, name))).then(|| "it is not locked".to_owned()),
            };
            if let Some(found) = found {
                let platform = Some(self.target.platform.name.clone());
                let reason = format!("`{text}` of PyPI ({place}) is not met: {found}");
                self.unmet.push(Remark { platform, ..about(self.environment, reason) });
            }
        }
    }

    /// Nothing is locked without need; of what came along with something, that alone is named.
    fn check_needed(&mut self, records: &[RepoDataRecord]) {
        let reached = reached(&self.target.own.requirements, records);
        let name = |record: &RepoDataRecord| record.package_record.name.as_normalized().to_owned();
        let idle: Vec<_> = records.iter().filter(|record| !reached.contains(&name(record))).collect();
        let along: BTreeSet<_> = idle.iter().flat_map(|record| depends(record)).collect();
        let first: Vec<_> = idle.iter().map(|record| name(record)).filter(|name| !along.contains(name)).collect();
        for name in if first.is_empty() { idle.into_iter().map(name).collect() } else { first } {
            self.push(format!("`{name}` is locked, but nothing asks for it"));
        }
    }

    fn check_age(&mut self, records: &[RepoDataRecord]) {
        let cutoffs = &self.environment.choice.exclude_newer;
        for RepoDataRecord { package_record: package, channel, .. } in records {
            let cutoff = cutoffs.cutoff(&package.name, channel.as_deref()).map(|cutoff| cutoff.at(self.now));
            let made = package.timestamp.map(Timestamp::from);
            if let (Some(cutoff), Some(made)) = (cutoff, made)
                && made > cutoff
            {
                let (name, version) = (package.name.as_normalized(), &package.version);
                self.push(format!(
                    "{name} {version} was made at {made}, and `exclude-newer` takes nothing after {cutoff}"
                ));
            }
        }
    }

    /// Each package's needs are met.
    fn check_closure(&mut self, records: &[RepoDataRecord]) {
        let virtual_packages: Vec<GenericVirtualPackage> = self.target.platform.for_solver();
        let options = || ParseMatchSpecOptions::lenient().with_repodata_revision(RepodataRevision::V3);
        for RepoDataRecord { package_record: package, .. } in records {
            let identity = format!("{} {}", package.name.as_normalized(), package.version);
            for depends in &package.depends {
                let Ok(spec) = MatchSpec::from_str(depends, options()) else {
                    self.push(format!("{identity} needs `{depends}`, which is not understood"));
                    continue;
                };
                let met = spec.condition.is_some()
                    || records.iter().any(|record| spec.matches(&record.package_record))
                    || virtual_packages.iter().any(|package| spec.matches(package));
                if !met {
                    let lacks =
                        if depends.starts_with("__") { "the platform does not promise" } else { "is not locked" };
                    self.push(format!("{identity} needs `{depends}`, which {lacks}"));
                }
            }
            for constrains in &package.constrains {
                let Ok(spec) = MatchSpec::from_str(constrains, options()) else { continue };
                let hit = records.iter().find(|other| is_named(&spec, other));
                if let Some(other) = hit.filter(|other| !spec.matches(&other.package_record)) {
                    let other = &other.package_record.version;
                    self.push(format!("{identity} allows only `{constrains}`, locked is {other}"));
                }
            }
        }
    }
}

/// Whether a conda package is the one of that name on PyPI.
fn provides(record: &RepoDataRecord, wheel: &str) -> bool {
    let package = &record.package_record;
    let purls = package.purls.iter().flatten().filter(|purl| purl.package_type() == "pypi");
    normalized(package.name.as_normalized()) == wheel || purls.into_iter().any(|purl| normalized(purl.name()) == wheel)
}

fn is_named(spec: &MatchSpec, record: &RepoDataRecord) -> bool {
    spec.name.matches(&record.package_record.name)
}

/// Like pixi's own check, this does not look at the file name and the subdir of a requirement.
fn fits(spec: &MatchSpec, record: &RepoDataRecord) -> bool {
    let of_channel = match (&spec.channel, &record.channel) {
        (Some(wanted), Some(channel)) => {
            let wanted = secrets::without_credentials(wanted.base_url.url());
            channel.trim_end_matches('/') == wanted.as_str().trim_end_matches('/')
        }
        _ => true,
    };
    of_channel && spec.matches(record)
}

fn not_met(requirement: &Requirement, records: &[RepoDataRecord]) -> String {
    let found = records.iter().find(|record| is_named(&requirement.spec, record));
    let found = found.map_or("it is not locked".to_owned(), |record| {
        format!("locked is {} {}", record.package_record.version, record.package_record.build)
    });
    format!("`{}` ({}) is not met: {found}", requirement.text, requirement.place)
}
