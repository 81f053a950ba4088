//! The packages of a lock in place of channels: what a class without a network chooses from.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use rattler_conda_types::{Channel, RepoDataRecord, Subdir};
use rattler_lock::{CondaPackageData, LockFile, LockedPackage};

use super::{Available, check};
use crate::lock::{self, LockError};
use crate::manifest::{ManifestEnvironment, Target};
use crate::secrets;

/// A lock and its conda packages.
pub struct Locked<'a> {
    /// The lock.
    pub path: &'a Path,
    file: LockFile,
}

impl<'a> Locked<'a> {
    pub fn read(path: &'a Path) -> Result<Self, LockError> {
        Ok(Self { path, file: lock::load(path)? })
    }

    /// What the lock has for this environment on this platform; everything for the platform if it knows no such environment.
    pub fn of_environment(
        &self,
        environment: &ManifestEnvironment,
        target: &Target,
        channels: &[Channel],
    ) -> Vec<Available> {
        let row = check::row_name(&self.file, &environment.name, target);
        let locked = self.file.environment(&environment.name);
        let packages = locked.zip(row).and_then(|(locked, name)| {
            let row = locked.platforms().find(|row| row.name().as_str() == name)?;
            Some(locked.packages(row)?.collect::<Vec<_>>())
        });
        match packages {
            Some(packages) => by_channel(&packages, target.platform.subdir, channels),
            None => self.all(target.platform.subdir, channels),
        }
    }

    /// What any environment of the lock has for this platform.
    pub fn all(&self, subdir: Subdir, channels: &[Channel]) -> Vec<Available> {
        let mut packages = Vec::new();
        for (_, locked) in self.file.environments() {
            for row in locked.platforms() {
                packages.extend(locked.packages(row).into_iter().flatten());
            }
        }
        by_channel(&packages, subdir, channels)
    }
}

/// The packages of each channel; what is of none cannot be chosen.
fn by_channel(packages: &[&LockedPackage], subdir: Subdir, channels: &[Channel]) -> Vec<Available> {
    let mut records = BTreeMap::new();
    for package in packages {
        if let LockedPackage::Conda(CondaPackageData::Binary(data)) = package
            && let Ok(record) = RepoDataRecord::try_from(data.as_ref())
            && [subdir.as_str(), Subdir::NoArch.as_str()].contains(&record.package_record.subdir.as_str())
        {
            records.entry(record.url.to_string()).or_insert(record);
        }
    }
    let mut sources: Vec<Available> = channels.iter().map(|_| Vec::new()).collect();
    for record in records.into_values() {
        let of = |channel: &Channel| {
            let channel = secrets::without_credentials(channel.base_url.url());
            record.url.as_str().starts_with(channel.as_str())
        };
        if let Some(source) = channels.iter().position(of).and_then(|index| sources.get_mut(index)) {
            source.push(Arc::new(record));
        }
    }
    sources
}
