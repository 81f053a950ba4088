//! Whether an unpacked image holds all of an environment: every package's record, and every file that it lists.

use serde::Deserialize;

use super::root::Root;
use crate::entry::ImagePath;
use crate::model::{CondaPackage, Environment, LockedPackage, Prefix, Wheel};
use crate::source::python::Python;
use crate::source::wheel;

/// A record larger than this is refused as hostile, in bytes.
const RECORD_LIMIT: u64 = 64 << 20;

/// What was found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// How many files the records list.
    pub files: usize,
    /// What is missing or wrong, in the order of the packages: a package and what it lacks.
    pub missing: Vec<String>,
}

#[derive(Deserialize)]
struct Record {
    files: Vec<String>,
}

/// Looks for the records of all packages, in `conda-meta` and in the metadata of wheels, and for the files that they list.
pub fn check(root: &Root, environment: &Environment, prefix: &Prefix) -> Found {
    let mut found = Found::default();
    let python = Python::of(environment).and_then(Result::ok);
    for package in &environment.packages {
        let identity = package.identity();
        let files = match package {
            LockedPackage::Conda(package) => files_of_conda(root, prefix, package),
            LockedPackage::Pypi(wheel) => match &python {
                Some(python) => files_of_wheel(root, prefix, &python.site_packages, wheel),
                None => Err("there is no python to install it for".to_owned()),
            },
        };
        match files {
            Err(reason) => found.missing.push(format!("{identity}: {reason}")),
            Ok(files) => {
                found.files += files.len();
                let absent = files.iter().filter(|file| !exists(root, prefix, file));
                found.missing.extend(absent.map(|file| format!("{identity}: {}/{file}", prefix.as_str())));
            }
        }
    }
    found
}

/// What the record in `conda-meta` lists.
fn files_of_conda(root: &Root, prefix: &Prefix, package: &CondaPackage) -> Result<Vec<String>, String> {
    let path = format!("{}/conda-meta/{}.json", prefix.relative(), package.identity());
    let record = match root.read(&path, RECORD_LIMIT) {
        Ok(text) => serde_json::from_slice::<Record>(&text).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    record.map(|record| record.files).map_err(|reason| format!("no record /{path}: {reason}"))
}

/// What the RECORD in the metadata lists. The directory is written as the wheel had it, so it is looked for by what its name
/// means.
fn files_of_wheel(
    root: &Root,
    prefix: &Prefix,
    site_packages: &ImagePath,
    wheel: &Wheel,
) -> Result<Vec<String>, String> {
    let modules = format!("{}/{site_packages}", prefix.relative());
    let names = root.names(&modules).map_err(|error| format!("no modules in /{modules}: {error}"))?;
    let name = names.iter().filter_map(|name| name.to_str()).find(|name| wheel::is_metadata_of(name, wheel));
    let name = name.ok_or_else(|| format!("no metadata in /{modules}"))?;
    let path = format!("{modules}/{name}/RECORD");
    let record = root.read(&path, RECORD_LIMIT).map_err(|error| error.to_string());
    let files = record.and_then(|text| wheel::installed_files(&text, site_packages));
    let files = files.map_err(|reason| format!("no record /{path}: {reason}"))?;
    Ok(files.iter().map(|file| file.lossy().into_owned()).collect())
}

fn exists(root: &Root, prefix: &Prefix, file: &str) -> bool {
    matches!(root.stat(format!("{}/{file}", prefix.relative())), Ok(Some(_)))
}
