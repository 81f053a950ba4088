//! Where noarch python packages, their entry points, and wheels go.

use rattler_conda_types::package::EntryPoint;

use crate::entry::{BadPath, ImagePath};
use crate::model::{Environment, Prefix};

/// The longest `#!` line that Linux reads in full, less the `#!`.
const LONGEST_INTERPRETER: usize = 127 - 2;

/// The python of an environment: what noarch python packages, which fit any version, and wheels are installed for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Python {
    /// The 3 of python 3.12.
    pub major: u64,
    /// The 12 of python 3.12.
    pub minor: u64,
    /// Where modules go, relative to the environment. CEP 17 lets the python package choose it, as free-threaded builds
    /// do.
    pub site_packages: ImagePath,
    /// Where commands go, relative to the environment.
    pub bin_dir: ImagePath,
    /// The interpreter, relative to the environment.
    pub interpreter: ImagePath,
}

/// A locked python that nothing can be installed for.
#[derive(Debug, thiserror::Error)]
pub enum PythonError {
    /// A version without a major and a minor part.
    #[error("the locked python has the version `{0}`, which names no major and minor version")]
    Version(String),
    /// A path that the environment cannot hold.
    #[error("the locked python {version} names a place for modules that cannot be used: {error}")]
    SitePackages {
        /// The version of python.
        version: String,
        /// What is wrong with the path.
        error: BadPath,
    },
}

impl Python {
    /// The python of `environment`; none where no package is called `python`.
    pub fn of(environment: &Environment) -> Option<Result<Self, PythonError>> {
        let python = environment.python()?;
        let record = &python.record.package_record;
        let version = record.version.to_string();
        let Some((major, minor)) = record.version.version().as_major_minor() else {
            return Some(Err(PythonError::Version(version)));
        };
        let named = record.python_site_packages_path.as_deref();
        let paths = Self::of_version(major, minor, named);
        Some(paths.map_err(|error| PythonError::SitePackages { version, error }))
    }

    /// A python of this version on a unix platform; `site_packages` is what its package says, if it does.
    pub fn of_version(major: u64, minor: u64, site_packages: Option<&str>) -> Result<Self, BadPath> {
        let usual = format!("lib/python{major}.{minor}/site-packages");
        Ok(Self {
            major,
            minor,
            site_packages: ImagePath::new(site_packages.unwrap_or(&usual))?,
            bin_dir: ImagePath::new("bin")?,
            interpreter: ImagePath::new(format!("bin/python{major}.{minor}"))?,
        })
    }

    /// Where a file of a noarch python package goes, relative to the environment.
    pub fn install_path(&self, archive_path: &ImagePath) -> Result<ImagePath, BadPath> {
        for (directory, place) in [("site-packages", &self.site_packages), ("python-scripts", &self.bin_dir)] {
            match archive_path.as_bytes().strip_prefix(directory.as_bytes()) {
                Some(rest) if rest.is_empty() || rest[0] == b'/' => {
                    return ImagePath::new([place.as_bytes(), rest].concat());
                }
                _ => {}
            }
        }
        Ok(archive_path.clone())
    }

    /// Where the command of an entry point goes, relative to the environment.
    pub fn entry_point_path(&self, entry_point: &EntryPoint) -> Result<ImagePath, BadPath> {
        Ok(self.bin_dir.join(&ImagePath::new(&entry_point.command)?))
    }

    /// The script that runs an entry point with the python of the image.
    ///
    /// The text is the one of conda and rattler. The names in it were checked to be dotted python names when the entry
    /// point was parsed.
    pub fn entry_point_script(&self, prefix: &Prefix, entry_point: &EntryPoint) -> Vec<u8> {
        let EntryPoint { module, function, .. } = entry_point;
        let import = function.split('.').next().unwrap_or(function);
        format!(
            "{shebang}\n\
             # -*- coding: utf-8 -*-\n\
             import re\n\
             import sys\n\n\
             from {module} import {import}\n\n\
             if __name__ == '__main__':\n\
             \tsys.argv[0] = re.sub(r'(-script\\.pyw?|\\.exe)?$', '', sys.argv[0])\n\
             \tsys.exit({function}())\n",
            shebang = self.shebang(prefix),
        )
        .into_bytes()
    }

    /// Where headers go, relative to the environment. Free-threaded builds have their own, as they have their own modules.
    pub fn include_dir(&self) -> Result<ImagePath, BadPath> {
        let named = self.site_packages.parent();
        let named = named.as_ref().map(ImagePath::file_name).filter(|name| name.starts_with(b"python"));
        let usual = format!("python{}.{}", self.major, self.minor);
        ImagePath::new([b"include/", named.unwrap_or(usual.as_bytes())].concat())
    }

    /// The `#!` line that runs the interpreter; through `sh` where the kernel would not read the path in full.
    pub fn shebang(&self, prefix: &Prefix) -> String {
        let interpreter = format!("{}/{}", prefix.as_str(), self.interpreter);
        if interpreter.len() > LONGEST_INTERPRETER || interpreter.contains(' ') {
            format!("#!/bin/sh\n'''exec' \"{interpreter}\" \"$0\" \"$@\" #'''")
        } else {
            format!("#!{interpreter}")
        }
    }
}

#[cfg(test)]
mod tests {
    use rattler::install::{PythonInfo, python_entry_point_template};
    use rattler_conda_types::{PackageRecord, RepoDataRecord, Subdir, Version};

    use super::*;
    use crate::model::{CondaPackage, Digest};

    fn environment(name: &str, version: &str, site_packages: Option<&str>) -> Environment {
        let version: Version = version.parse().unwrap();
        let mut package_record = PackageRecord::new(name.parse().unwrap(), version, "h0_0".parse().unwrap());
        package_record.python_site_packages_path = site_packages.map(str::to_owned);
        let record = RepoDataRecord {
            package_record,
            identifier: "python-3.12.1-h0_0.conda".parse().unwrap(),
            url: "https://example.invalid/linux-64/python-3.12.1-h0_0.conda".parse().unwrap(),
            channel: None,
        };
        Environment {
            name: "default".to_owned(),
            subdir: Subdir::Linux64,
            platform: "linux-64".to_owned(),
            cuda: None,
            virtual_packages: Vec::new(),
            lock_hash: None,
            packages: vec![CondaPackage { record, sha256: Digest([0; 32]) }.into()],
        }
    }

    fn path(text: &str) -> ImagePath {
        ImagePath::new(text).unwrap()
    }

    #[test]
    fn the_python_of_an_environment_is_its_locked_package() {
        let python = Python::of(&environment("python", "3.12.1", None)).unwrap().unwrap();
        assert_eq!((python.major, python.minor), (3, 12));
        assert_eq!(python.site_packages, path("lib/python3.12/site-packages"));
        let threads = "lib/python3.13t/site-packages";
        let python = Python::of(&environment("python", "3.13.0", Some(threads))).unwrap().unwrap();
        assert_eq!(python.site_packages, path(threads));
        assert!(Python::of(&environment("ruby", "3.3.0", None)).is_none());
    }

    #[test]
    fn a_python_that_would_put_modules_outside_the_environment_is_refused() {
        for place in ["/usr/lib", "../lib", ""] {
            let error = Python::of(&environment("python", "3.12.1", Some(place))).unwrap().unwrap_err();
            assert!(matches!(error, PythonError::SitePackages { .. }), "{place}: {error}");
        }
        let error = Python::of(&environment("python", "3", None)).unwrap().unwrap_err();
        assert!(error.to_string().contains("`3`"), "{error}");
    }

    #[test]
    fn files_and_scripts_go_where_rattler_puts_them() {
        let entry_points = ["jupyter-lab = jupyterlab.labapp:main", "tool=pkg:Class.method"];
        for version in ["3.9.1", "3.12.0", "2.7.18"] {
            let python = Python::of(&environment("python", version, None)).unwrap().unwrap();
            let oracle = PythonInfo::from_version(&version.parse().unwrap(), None, Subdir::Linux64).unwrap();
            for archive in
                ["site-packages/a/b.py", "python-scripts/c", "share/x", "site-packages-not/x", "site-packages"]
            {
                let expected = oracle.get_python_noarch_target_path(archive.as_ref()).into_owned();
                let place = python.install_path(&path(archive)).unwrap();
                assert_eq!(place, path(expected.to_str().unwrap()), "{archive}");
            }
            for prefix in ["gpu", &"long".repeat(40), "with space"].map(Prefix::of_environment) {
                for entry_point in entry_points.map(|text| text.parse().unwrap()) {
                    let expected = python_entry_point_template(prefix.as_str(), false, &entry_point, &oracle);
                    let script = python.entry_point_script(&prefix, &entry_point);
                    assert_eq!(String::from_utf8(script).unwrap(), expected);
                }
            }
        }
    }
}
