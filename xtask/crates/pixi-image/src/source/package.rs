//! A package of any kind: what planning and installing need of it, whatever its archive is.

use super::conda::{self, CondaError};
use super::placement::{InstalledPath, Placement};
use super::python::Python;
use super::wheel::{self, WheelError, WheelIndex};
use crate::entry::EntrySink;
use crate::model::{CondaPackage, LockedPackage, Wheel};
use crate::publish::Readable;

/// A package that cannot be installed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // each variant is another module's error, passed on as it is
pub enum PackageError {
    #[error(transparent)]
    Conda(#[from] CondaError),
    #[error(transparent)]
    Wheel(#[from] WheelError),
}

/// A package with the index of its archive.
pub enum Indexed<'a> {
    /// Of a conda channel.
    Conda(&'a CondaPackage, conda::PackageIndex),
    /// Of PyPI.
    Wheel(&'a Wheel, WheelIndex),
}

impl<'a> Indexed<'a> {
    /// Reads the index of an archive of the cache, where it is named by its digest: errors name the package instead.
    pub fn read(package: &'a LockedPackage, archive: &Readable) -> Result<Self, PackageError> {
        match package {
            LockedPackage::Conda(package) => {
                let named = |error| CondaError { package: package.record.identifier.to_string(), ..error };
                Ok(Self::Conda(package, conda::read_index(archive).map_err(named)?))
            }
            LockedPackage::Pypi(wheel) => {
                let named = |error| WheelError { wheel: wheel.file_name.clone(), ..error };
                Ok(Self::Wheel(wheel, wheel::read_index(archive).map_err(named)?))
            }
        }
    }

    /// Every path that the package takes in its environment. Paths that would clash within it are refused.
    pub fn installed_paths(&self, python: Option<&Python>) -> Result<Vec<InstalledPath>, PackageError> {
        Ok(match self {
            Self::Conda(package, index) => index.installed_paths(package, python)?,
            Self::Wheel(wheel, index) => index.installed_paths(wheel, python)?,
        })
    }

    /// Decodes the archive once and pushes everything that the package installs.
    pub fn stream(
        &self,
        archive: &Readable,
        placement: &Placement<'_>,
        sink: &mut dyn EntrySink,
    ) -> Result<(), PackageError> {
        match self {
            Self::Conda(package, index) => conda::stream(archive, package, index, placement, sink)?,
            Self::Wheel(wheel, index) => wheel::stream(archive, wheel, index, placement, sink)?,
        }
        Ok(())
    }

    /// Whether it brings a script to run after linking, which neither pixi nor this program does.
    pub fn has_post_link_script(&self) -> bool {
        matches!(self, Self::Conda(_, index) if index.has_post_link_script)
    }
}
