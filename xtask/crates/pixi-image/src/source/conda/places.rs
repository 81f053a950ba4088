//! Where the files of a package go in its environment.

use std::collections::BTreeMap;

use rattler_conda_types::Version;
use rattler_conda_types::package::EntryPoint;

use super::{CondaError, Kind, PackageIndex, Problem, record_path};
use crate::entry::ImagePath;
use crate::model::CondaPackage;
use crate::source::placement::{self, InstalledPath};
use crate::source::python::Python;

impl PackageIndex {
    /// Every path that `package` takes: its files where its python wants them, the commands of its entry points, its
    /// record.
    ///
    /// Paths that would clash within the package are refused here, before anything is written.
    pub fn installed_paths(
        &self,
        package: &CondaPackage,
        python: Option<&Python>,
    ) -> Result<Vec<InstalledPath>, CondaError> {
        let places = Places::new(self, package, python).map_err(|problem| CondaError {
            package: package.record.identifier.to_string(),
            archive: None,
            problem: problem.into(),
        })?;
        let files = self.paths.iter().zip(places.files).filter_map(|(listed, place)| {
            Some(InstalledPath { directory: listed.kind == Some(Kind::Directory), ..InstalledPath::file(place?) })
        });
        let commands = places.entry_points.into_keys();
        let generated = commands.chain([places.record]).map(InstalledPath::file);
        Ok(files.chain(generated).collect())
    }
}

/// The places of everything that a package installs, relative to the environment.
pub(super) struct Places<'a> {
    /// For each of [`PackageIndex::paths`]; none where the command of an entry point takes the place.
    pub files: Vec<Option<ImagePath>>,
    pub entry_points: BTreeMap<ImagePath, &'a EntryPoint>,
    /// The record in `conda-meta`.
    pub record: ImagePath,
}

impl<'a> Places<'a> {
    pub fn new(index: &'a PackageIndex, package: &CondaPackage, python: Option<&Python>) -> Result<Self, Problem> {
        let record = &package.record.package_record;
        let same_version = index.version.parse::<Version>().is_ok_and(|version| record.version == version);
        if index.name != package.name() || !same_version || index.build != record.build.as_str() {
            return Err(Problem::OtherPackage(format!("{}-{}-{}", index.name, index.version, index.build)));
        }
        let (mut files, entry_points) = if index.noarch_python {
            let python = python.ok_or(Problem::NoPython)?;
            let files = index.paths.iter().map(|listed| python.install_path(&listed.path).map(Some));
            let commands = index.entry_points.iter().map(|entry| Ok((python.entry_point_path(entry)?, entry)));
            (files.collect::<Result<_, _>>()?, commands.collect::<Result<_, Problem>>()?)
        } else {
            let files: Vec<_> = index.paths.iter().map(|listed| Some(listed.path.clone())).collect();
            (files, BTreeMap::new())
        };
        for place in &mut files {
            // As installers do it: commands are written after the files, and the last one of a name stays.
            if place.as_ref().is_some_and(|place| entry_points.contains_key(place)) {
                *place = None;
            }
        }
        let places = Self { files, entry_points, record: record_path(package)? };
        places.check(index)?;
        Ok(places)
    }

    /// Refuses places that exclude each other.
    fn check(&self, index: &PackageIndex) -> Result<(), Problem> {
        let files = self.files.iter().zip(&index.paths);
        let files = files.filter_map(|(place, listed)| Some((place.as_ref()?, listed.kind == Some(Kind::Directory))));
        let generated = self.entry_points.keys().chain([&self.record]);
        Ok(placement::check(files.chain(generated.map(|place| (place, false))))?)
    }
}
