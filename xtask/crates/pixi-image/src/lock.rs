//! Reads one environment for one platform out of a `pixi.lock`: the sole user of `rattler_lock` beside [`crate::solve`].

mod lock_hash;
mod tags;
mod wheels;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rattler_conda_types::package::DistArchiveIdentifier;
use rattler_conda_types::{PackageRecord, RepoDataRecord};
use rattler_lock::{CondaBinaryData, CondaPackageData, LockFile, ParseCondaLockError, PypiPackageData};

use self::tags::Target;
use crate::model::{CondaPackage, Digest, Environment, LockedPackage};

/// The versions of the lock's format that are read.
const OLDEST: u64 = 4;
const NEWEST: u64 = 7;
/// Locks are a few MB; what is much larger is something else.
const SIZE_LIMIT: u64 = 256 << 20;
/// Large environments have some hundreds; sorting recurses once per package of a chain.
const PACKAGE_LIMIT: usize = 10_000;

/// Why a lock, or one environment of it, cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// There is no such file.
    #[error("there is no lock at {path}\n  hint: make it with `cargo xtask lock`, or `pixi lock`")]
    Missing {
        /// The lock.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("cannot read the lock {path}: {source}\n  hint: name a lock that you may read with --lock")]
    Unreadable {
        /// The lock.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is no lock.
    #[error("{path} is not a lock: {reason}{}", relock())]
    Broken {
        /// The lock.
        path: PathBuf,
        /// What is wrong, with line and column where the text itself is broken.
        reason: String,
    },
    /// A version of the format that is not known.
    #[error("{path} has version {found} of the lock format; this program reads {OLDEST} to {NEWEST}{}", version_hint(*.found))]
    Version {
        /// The lock.
        path: PathBuf,
        /// Its version.
        found: u64,
    },
    /// The environment is not in the lock.
    #[error("{path} has no environment `{environment}`; it has: {}{}", list(.have), relock())]
    NoEnvironment {
        /// The lock.
        path: PathBuf,
        /// What was asked for.
        environment: String,
        /// What is there.
        have: Vec<String>,
    },
    /// The environment is not locked for the platform.
    #[error(
        "environment `{environment}` of {path} is not locked for the platform `{platform}`; it is for: {}\n  hint: name \
         one of these, or add the platform to pixi.toml and lock again",
        list(.have)
    )]
    NoPlatform {
        /// The lock.
        path: PathBuf,
        /// The environment.
        environment: String,
        /// What was asked for.
        platform: String,
        /// What is there.
        have: Vec<String>,
    },
    /// Several rows are for the conda platform that was asked for.
    #[error("`{platform}` may be any of {} in environment `{environment}` of {path}\n  hint: name one of these", list(.rows))]
    AmbiguousPlatform {
        /// The lock.
        path: PathBuf,
        /// The environment.
        environment: String,
        /// What was asked for.
        platform: String,
        /// The rows that match.
        rows: Vec<String>,
    },
    /// Conda packages that would have to be built.
    #[error(
        "environment `{environment}` of {path} has source packages, which cannot be put into an image yet: {}\n  hint: \
         take them as conda packages, if there are any of these names",
        list(.packages)
    )]
    Unsupported {
        /// The lock.
        path: PathBuf,
        /// The environment.
        environment: String,
        /// Their names.
        packages: Vec<String>,
    },
    /// Packages from PyPI that cannot be installed, or not here.
    #[error(
        "environment `{environment}` of {path} has packages from PyPI that cannot be put into an image:\n    {}\n  hint: \
         lock a version that has a fitting wheel (`pixi add --pypi \"{first}==VERSION\"`), or take conda-forge's package of \
         that name (`pixi remove --pypi {first}`, `pixi add {first}`)",
        .packages.join("\n    ")
    )]
    Pypi {
        /// The lock.
        path: PathBuf,
        /// The environment.
        environment: String,
        /// The name of the first of them.
        first: String,
        /// For each, its name and what is wrong with it.
        packages: Vec<String>,
    },
    /// Packages from PyPI, and nothing that could run them.
    #[error(
        "environment `{environment}` of {path} has packages from PyPI ({}), but no python of conda to install them for\n  \
         hint: `pixi add python`",
        list(.packages)
    )]
    NoPython {
        /// The lock.
        path: PathBuf,
        /// The environment.
        environment: String,
        /// Their names.
        packages: Vec<String>,
    },
    /// A package that cannot be verified.
    #[error("{package} has no sha256 in {path}, so it could not be verified{}", relock())]
    NoDigest {
        /// The lock.
        path: PathBuf,
        /// `name-version-build`.
        package: String,
    },
    /// A package whose place is no URL or path.
    #[error("{package} of {path} has no usable place to come from: {reason}{}", relock())]
    BadLocation {
        /// The lock.
        path: PathBuf,
        /// Its name.
        package: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The same package twice, or far too many.
    #[error("environment `{environment}` of {path} {reason}{}", relock())]
    Inconsistent {
        /// The lock.
        path: PathBuf,
        /// The environment.
        environment: String,
        /// What is wrong, as the end of the sentence.
        reason: String,
    },
}

fn relock() -> &'static str {
    "\n  hint: make it anew with `cargo xtask lock`, or `pixi lock`"
}

fn version_hint(found: u64) -> &'static str {
    if found > NEWEST { "\n  hint: update this program, or lock with an older pixi" } else { relock() }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// Reads and parses a whole lock.
pub fn load(path: &Path) -> Result<LockFile, LockError> {
    let unreadable = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::NotFound => LockError::Missing { path: path.to_owned() },
        _ => LockError::Unreadable { path: path.to_owned(), source },
    };
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    let broken = |reason: String| LockError::Broken { path: path.to_owned(), reason };
    if size > SIZE_LIMIT {
        return Err(broken(format!("it has {size} bytes")));
    }
    let bytes = std::fs::read(path).map_err(unreadable)?;
    let text = String::from_utf8(bytes).map_err(|error| broken(format!("it is not text: {error}")))?;
    if !text.ends_with('\n') {
        return Err(broken("it ends in the middle of a line, so a part of it is missing".to_owned()));
    }
    let version = version(&text);
    if let Some(found) = version.filter(|found| !(OLDEST..=NEWEST).contains(found)) {
        return Err(LockError::Version { path: path.to_owned(), found });
    }
    if version.is_some_and(|version| version < 6) {
        check_file_names(&text).map_err(broken)?;
    }
    LockFile::from_str_with_base_directory(&text, base_directory(path).as_deref()).map_err(|error| match error {
        ParseCondaLockError::IncompatibleVersion { lock_file_version: found, .. } => {
            LockError::Version { path: path.to_owned(), found }
        }
        error => broken(error.to_string()),
    })
}

/// Relative places in a lock are relative to the lock.
fn base_directory(path: &Path) -> Option<PathBuf> {
    std::path::absolute(path).ok()?.parent().map(Path::to_owned)
}

/// The version as every lock writes it: on a line of its own, before anything is parsed.
fn version(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("version:")).and_then(|version| version.trim().parse().ok())
}

/// The parser of versions 4 and 5 panics for a package whose archive has no proper name; such locks are refused here.
fn check_file_names(text: &str) -> Result<(), String> {
    #[derive(serde::Deserialize)]
    struct Document {
        #[serde(default)]
        packages: Vec<Package>,
    }
    #[derive(serde::Deserialize)]
    struct Package {
        url: Option<String>,
        file_name: Option<String>,
        kind: Option<String>,
    }
    let document: Document = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
    for package in document.packages.iter().filter(|package| package.kind.as_deref() == Some("conda")) {
        let url = package.url.as_deref().unwrap_or_default();
        let name = package.file_name.as_deref().or_else(|| url.rsplit('/').next()).unwrap_or_default();
        if DistArchiveIdentifier::try_from_filename(name).is_none() {
            return Err(format!("`{name}` ({url}) is not the name of a package's archive"));
        }
    }
    Ok(())
}

/// The names of the environments that are locked for a platform, in order.
pub fn environments(lock: &Path, platform: &str) -> Result<Vec<String>, LockError> {
    let file = load(lock)?;
    let is_for = |row: rattler_lock::Platform<'_>| row.name().as_str() == platform || row.subdir().as_str() == platform;
    let locked = file.environments().filter(|(_, environment)| environment.platforms().any(is_for));
    let mut names: Vec<_> = locked.map(|(name, _)| name.to_owned()).collect();
    names.sort();
    Ok(names)
}

/// Reads the packages of `environment` for `platform`: the name of a row of the lock, or a conda platform.
///
/// For a conda platform the environment's row of that platform is taken; of several the only one that promises `__cuda`.
pub fn read(lock: &Path, environment: &str, platform: &str) -> Result<Environment, LockError> {
    let file = load(lock)?;
    let reader = Reader { path: lock, name: environment };
    let Some(locked) = file.environment(environment) else {
        let mut have: Vec<_> = file.environments().map(|(name, _)| name.to_owned()).collect();
        have.sort();
        return Err(LockError::NoEnvironment { path: lock.to_owned(), environment: environment.to_owned(), have });
    };
    let row = reader.row(locked, platform)?;
    let packages = reader.packages(locked, row, file.version() as u64)?;
    let cuda = row.virtual_packages().iter().find_map(|text| cuda_of_row(text));
    let derived = || (file.version() as u64 <= 6).then(|| cuda_of_packages(&packages)).flatten();
    Ok(Environment {
        name: environment.to_owned(),
        subdir: row.subdir(),
        platform: row.name().to_string(),
        cuda: cuda.or_else(derived),
        virtual_packages: row.virtual_packages().to_vec(),
        lock_hash: lock_hash::of(locked, row),
        packages,
    })
}

struct Reader<'a> {
    path: &'a Path,
    name: &'a str,
}

impl Reader<'_> {
    fn row<'lock>(
        &self,
        locked: rattler_lock::Environment<'lock>,
        platform: &str,
    ) -> Result<rattler_lock::Platform<'lock>, LockError> {
        let mut rows: Vec<_> = locked.platforms().collect();
        rows.sort_by(|a, b| a.name().as_str().cmp(b.name().as_str()));
        let names =
            |rows: &[rattler_lock::Platform<'_>]| rows.iter().map(|row| row.name().to_string()).collect::<Vec<_>>();
        if let Some(row) = rows.iter().find(|row| row.name().as_str() == platform) {
            return Ok(*row);
        }
        let matching: Vec<_> = rows.iter().copied().filter(|row| row.subdir().as_str() == platform).collect();
        let with_cuda: Vec<_> = matching
            .iter()
            .copied()
            .filter(|row| row.virtual_packages().iter().any(|v| cuda_of_row(v).is_some()))
            .collect();
        match (matching.as_slice(), with_cuda.as_slice()) {
            ([row], _) | (_, [row]) => Ok(*row),
            ([], _) => Err(LockError::NoPlatform {
                path: self.path.to_owned(),
                environment: self.name.to_owned(),
                platform: platform.to_owned(),
                have: names(&rows),
            }),
            (several, _) => Err(LockError::AmbiguousPlatform {
                path: self.path.to_owned(),
                environment: self.name.to_owned(),
                platform: platform.to_owned(),
                rows: names(several),
            }),
        }
    }

    fn packages<'lock>(
        &self,
        locked: rattler_lock::Environment<'lock>,
        row: rattler_lock::Platform<'lock>,
        lock_version: u64,
    ) -> Result<Vec<LockedPackage>, LockError> {
        let (mut binary, mut pypi, mut source) = (Vec::new(), Vec::new(), Vec::new());
        for package in locked.packages(row).into_iter().flatten() {
            match package {
                rattler_lock::LockedPackage::Conda(CondaPackageData::Binary(data)) => binary.push(self.record(data)?),
                rattler_lock::LockedPackage::Conda(CondaPackageData::Source(_)) => {
                    source.push(package.name().to_owned())
                }
                rattler_lock::LockedPackage::Pypi(data) => pypi.push(data),
            }
        }
        if !source.is_empty() {
            source.sort();
            let (path, environment) = (self.path.to_owned(), self.name.to_owned());
            return Err(LockError::Unsupported { path, environment, packages: source });
        }
        let names = binary.iter().map(|record| record.package_record.name.as_normalized().to_owned());
        self.check_names(names.collect())?;
        self.check_names(pypi.iter().map(|data| data.name().to_string()).collect())?;
        let python = binary.iter().map(|record| &record.package_record).find(|p| p.name.as_normalized() == "python");
        let target = python.and_then(|python| Target::new(python, row.subdir(), row.virtual_packages(), lock_version));
        let wheels = self.wheels(pypi, target.as_ref())?;
        let mut packages = self.sorted(binary)?;
        packages.extend(wheels);
        Ok(packages)
    }

    /// The packages from PyPI, by name. All that cannot be installed are told at once.
    fn wheels(
        &self,
        mut pypi: Vec<&PypiPackageData>,
        target: Option<&Target>,
    ) -> Result<Vec<LockedPackage>, LockError> {
        pypi.sort_by_key(|data| data.name());
        let (path, environment) = (self.path.to_owned(), self.name.to_owned());
        let (mut wheels, mut refused) = (Vec::new(), Vec::new());
        for data in &pypi {
            let Some(target) = target else {
                let packages = pypi.iter().map(|data| data.name().to_string()).collect();
                return Err(LockError::NoPython { path, environment, packages });
            };
            match wheels::wheel(data, target) {
                Ok(wheel) => wheels.push(wheel.into()),
                Err(refusal) => refused.push((data.name().to_string(), refusal)),
            }
        }
        let Some((first, _)) = refused.first().cloned() else { return Ok(wheels) };
        let packages = refused.into_iter().map(|(name, refusal)| format!("{name}: {refusal}")).collect();
        Err(LockError::Pypi { path, environment, first, packages })
    }

    fn record(&self, data: &CondaBinaryData) -> Result<RepoDataRecord, LockError> {
        RepoDataRecord::try_from(data).map_err(|error| LockError::BadLocation {
            path: self.path.to_owned(),
            package: data.package_record.name.as_normalized().to_owned(),
            reason: error.to_string(),
        })
    }

    /// Refuses far too many packages, and one that comes twice.
    fn check_names(&self, names: Vec<String>) -> Result<(), LockError> {
        let inconsistent = |reason: String| LockError::Inconsistent {
            path: self.path.to_owned(),
            environment: self.name.to_owned(),
            reason,
        };
        if names.len() > PACKAGE_LIMIT {
            return Err(inconsistent(format!("has {} packages", names.len())));
        }
        let mut seen = BTreeSet::new();
        match names.iter().find(|name| !seen.insert(name.as_str())) {
            Some(name) => Err(inconsistent(format!("has `{name}` twice"))),
            None => Ok(()),
        }
    }

    fn sorted(&self, records: Vec<RepoDataRecord>) -> Result<Vec<LockedPackage>, LockError> {
        // The order of rattler's own installer, which decides who wins a path that two packages ship.
        let sorted = PackageRecord::sort_topologically(records);
        sorted.into_iter().map(|record| self.verified(record)).collect()
    }

    fn verified(&self, record: RepoDataRecord) -> Result<LockedPackage, LockError> {
        match record.package_record.sha256 {
            Some(sha256) => Ok(CondaPackage { sha256: Digest(sha256.into()), record }.into()),
            None => {
                let package = CondaPackage { sha256: Digest([0; 32]), record }.identity();
                Err(LockError::NoDigest { path: self.path.to_owned(), package })
            }
        }
    }
}

/// `__cuda=12` or `__cuda=12=0`.
fn cuda_of_row(virtual_package: &str) -> Option<String> {
    let version = virtual_package.strip_prefix("__cuda=")?;
    Some(version.split('=').next().unwrap_or(version).to_owned())
}

/// Locks before version 7 do not say what the environment was solved for, but its packages say what they need at least.
fn cuda_of_packages(packages: &[LockedPackage]) -> Option<String> {
    let conda = || packages.iter().filter_map(LockedPackage::conda);
    let records = || conda().map(|package| &package.record.package_record);
    let needs = records().flat_map(|record| &record.depends).filter_map(|text| text.strip_prefix("__cuda"));
    let mut bounds: Vec<rattler_conda_types::Version> = Vec::new();
    let mut needed = false;
    for need in needs.filter(|rest| rest.is_empty() || rest.starts_with([' ', '>', '='])) {
        needed = true;
        bounds.extend(lower_bound(need));
    }
    let limits = records().flat_map(|record| &record.constrains).filter_map(|text| text.strip_prefix("__cuda "));
    bounds.extend(limits.filter_map(lower_bound));
    let highest = bounds.into_iter().max()?;
    needed.then(|| highest.to_string())
}

fn lower_bound(spec: &str) -> Option<rattler_conda_types::Version> {
    spec.split([',', '|']).find_map(|part| part.trim().strip_prefix(">=")?.trim().parse().ok())
}

#[cfg(test)]
mod tests;
