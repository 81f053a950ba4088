//! Who owns a path that two packages ship.
//!
//! As in rattler and pixi the package that is later in topological order, the dependent, wins, and the other's file is
//! kept at `__clobbers__/<package>/<path>`. It is settled before anything is written, from the packages' lists of
//! files. Wheels come last, as pixi installs them over what conda packages left; of two wheels, where chance decides in
//! pixi, the one that is later by name wins. A file that several wheels bring alike is no clash, and there once.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::entry::{BadPath, ImagePath};
use crate::model::{Digest, LockedPackage};
use crate::source::conda::record_path;
use crate::source::placement::InstalledPath;

/// The directory of what lost, relative to the environment.
const CLOBBERS: &str = "__clobbers__";

/// A path that several packages ship.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clash {
    /// The path, relative to the environment.
    pub path: ImagePath,
    /// The package whose file is there in the end.
    pub winner: String,
    /// The packages whose files are moved, in topological order.
    pub losers: Vec<String>,
}

/// What to move, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClobberPlan {
    /// For each package, in the order given: the new places of the paths that it lost. Both are relative to the
    /// environment.
    pub moved: Vec<BTreeMap<ImagePath, ImagePath>>,
    /// For each package, in the order given: its files that a later package brings too, the same.
    pub shared: Vec<BTreeSet<ImagePath>>,
    /// Every clash, sorted by path.
    pub clashes: Vec<Clash>,
}

/// Packages that cannot be installed together.
#[derive(Debug, thiserror::Error)]
pub enum ClobberError {
    /// A file or link where another package needs a directory.
    #[error(
        "the packages `{above}` and `{below}` cannot be installed together: `{path}` is a file or link of the one and a \
         directory of the other\n  hint: leave one of them out of the environment"
    )]
    Below {
        /// The path of the file or link.
        path: ImagePath,
        /// The package that ships it.
        above: String,
        /// The package that ships something below.
        below: String,
    },
    /// A package that would forge what is known about another.
    #[error(
        "the package `{package}` ships `{path}`, which is the record of another package\n  hint: it is broken or hostile; \
             leave it out of the environment"
    )]
    Record {
        /// The record.
        path: ImagePath,
        /// The package that ships it.
        package: String,
    },
    /// A place for a file that lost which is taken.
    #[error("a file of the package `{package}` has to be kept at `{path}`, which another package ships")]
    Taken {
        /// The place.
        path: ImagePath,
        /// The package that lost.
        package: String,
    },
    /// A place for a file that lost which is too long, or no place at all.
    #[error("a file of the package `{package}` cannot be kept beside the one that replaces it: {error}")]
    Place {
        /// The package that lost.
        package: String,
        /// What is wrong with the place.
        error: BadPath,
    },
}

/// Settles who owns every path. `packages` are in topological order, dependencies first, and `paths` are what each
/// installs.
pub fn plan(packages: &[LockedPackage], paths: &[Vec<InstalledPath>]) -> Result<ClobberPlan, ClobberError> {
    refuse_files_above_directories(packages, paths)?;
    let mut owners: HashMap<&ImagePath, (usize, Option<Digest>)> = HashMap::new();
    let mut losers: BTreeMap<&ImagePath, Vec<(usize, Option<Digest>)>> = BTreeMap::new();
    for (package, installed) in paths.iter().enumerate() {
        for InstalledPath { path, content, .. } in installed.iter().filter(|installed| !installed.directory) {
            if let Some(loser) = owners.insert(path, (package, *content)) {
                losers.entry(path).or_default().push(loser);
            }
        }
    }
    let count = packages.len();
    let mut plan =
        ClobberPlan { moved: vec![BTreeMap::new(); count], shared: vec![BTreeSet::new(); count], clashes: Vec::new() };
    for (path, losers) in losers {
        let (winner, content) = owners[path]; // it was inserted above
        let is_same = |loser: &(usize, Option<Digest>)| content.is_some() && loser.1 == content;
        let (same, losers): (Vec<_>, Vec<_>) = losers.into_iter().partition(is_same);
        for (package, _) in same {
            plan.shared[package].insert(path.clone());
        }
        if losers.is_empty() {
            continue;
        }
        let losers: Vec<usize> = losers.into_iter().map(|(package, _)| package).collect();
        for package in losers.iter().chain([&winner]) {
            refuse_forged_record(packages, *package, path)?;
        }
        for loser in &losers {
            let package = packages[*loser].name();
            let place = ImagePath::new([CLOBBERS.as_bytes(), b"/", package.as_bytes(), b"/", path.as_bytes()].concat())
                .map_err(|error| ClobberError::Place { package: package.to_owned(), error })?;
            if owners.contains_key(&place) {
                return Err(ClobberError::Taken { path: place, package: package.to_owned() });
            }
            plan.moved[*loser].insert(path.clone(), place);
        }
        plan.clashes.push(Clash {
            path: path.clone(),
            winner: packages[winner].name().to_owned(),
            losers: losers.iter().map(|loser| packages[*loser].name().to_owned()).collect(),
        });
    }
    Ok(plan)
}

/// A link of one package may lead anywhere, so nothing of another may be written through it; and a path is one thing
/// only.
fn refuse_files_above_directories(
    packages: &[LockedPackage],
    paths: &[Vec<InstalledPath>],
) -> Result<(), ClobberError> {
    let mut directories: HashMap<ImagePath, usize> = HashMap::new();
    for (package, installed) in paths.iter().enumerate() {
        for InstalledPath { path, directory, .. } in installed {
            let mut next = if *directory { Some(path.clone()) } else { path.parent() };
            while let Some(path) = next.filter(|path| !directories.contains_key(path)) {
                next = path.parent();
                directories.insert(path, package);
            }
        }
    }
    for (package, installed) in paths.iter().enumerate() {
        for InstalledPath { path, .. } in installed.iter().filter(|installed| !installed.directory) {
            if let Some(below) = directories.get(path) {
                let name = |package: usize| packages[package].name().to_owned();
                return Err(ClobberError::Below { path: path.clone(), above: name(package), below: name(*below) });
            }
        }
    }
    Ok(())
}

/// Only a conda package itself may ship its record (wheels are kept from all of them, in [`crate::source::wheel`]), so a record in a clash is forged by `package` unless it is its own.
fn refuse_forged_record(packages: &[LockedPackage], package: usize, path: &ImagePath) -> Result<(), ClobberError> {
    let is_record_of = |package: &LockedPackage| {
        package.conda().is_some_and(|package| record_path(package).is_ok_and(|record| record == *path))
    };
    let forged = !is_record_of(&packages[package]) && packages.iter().any(is_record_of);
    if forged {
        return Err(ClobberError::Record { path: path.clone(), package: packages[package].name().to_owned() });
    }
    Ok(())
}
