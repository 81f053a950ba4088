//! The hash by which pixi sees that what is installed is what the lock says.

use std::hash::{Hash, Hasher};

use rattler_lock::{Environment, LockedPackage, Platform};
use xxhash_rust::xxh3::Xxh3;

/// As pixi 0.77 works it out: of each package's location and sha256, in the order of the lock, of the conda platform, and of
/// what its row promises. None for a row that promises nothing, as before version 7: pixi takes the manifest's word then.
///
/// With this hash beside an environment `pixi run` trusts it. Without, it looks closer and wants to write.
pub fn of(environment: Environment<'_>, row: Platform<'_>) -> Option<String> {
    if row.virtual_packages().is_empty() {
        return None;
    }
    let mut hasher = Xxh3::new();
    for package in environment.packages(row).into_iter().flatten() {
        package.location().to_string().hash(&mut hasher);
        let record = match package {
            LockedPackage::Conda(package) => package.record(),
            LockedPackage::Pypi(_) => None,
        };
        if let Some(sha256) = record.and_then(|record| record.sha256) {
            sha256.as_slice().hash(&mut hasher);
        }
    }
    row.subdir().to_string().hash(&mut hasher);
    let mut promised = row.virtual_packages().to_vec();
    promised.sort_unstable();
    promised.iter().for_each(|package| package.hash(&mut hasher));
    Some(format!("{:x}", hasher.finish()))
}
