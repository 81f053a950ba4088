//! Whether an unpacked image holds all of an environment: every package's record, and every file that it lists.

use serde::Deserialize;

use super::root::Root;
use crate::model::{Environment, Prefix};

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

/// Looks for the records of all packages in `conda-meta` and for the files that they list.
pub fn check(root: &Root, environment: &Environment, prefix: &Prefix) -> Found {
    let mut found = Found::default();
    for package in &environment.packages {
        let identity = package.identity();
        let path = format!("{}/conda-meta/{identity}.json", prefix.relative());
        let record = match root.read(&path, RECORD_LIMIT) {
            Ok(text) => serde_json::from_slice::<Record>(&text).map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match record {
            Err(reason) => found.missing.push(format!("{identity}: no record /{path}: {reason}")),
            Ok(record) => {
                found.files += record.files.len();
                let absent = record.files.iter().filter(|file| !exists(root, prefix, file));
                found.missing.extend(absent.map(|file| format!("{identity}: {}/{file}", prefix.as_str())));
            }
        }
    }
    found
}

fn exists(root: &Root, prefix: &Prefix, file: &str) -> bool {
    matches!(root.stat(format!("{}/{file}", prefix.relative())), Ok(Some(_)))
}
