//! Where packages of every kind go: what they have in common on their way into the image.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use rattler_conda_types::Subdir;

use super::python::Python;
use crate::entry::{BadPath, Entry, EntryKind, EntrySink, ImagePath, Mode};
use crate::model::{Digest, Prefix};

/// The time of what is generated and of every directory: 1980-01-01 UTC, the earliest that zip archives, and tools that
/// make them out of an image, can express.
pub const GENERATED_MTIME: u32 = 315_532_800;

/// A path that a package takes in its environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstalledPath {
    /// The path, relative to the environment.
    pub path: ImagePath,
    /// Whether it is an empty directory, which packages may share, unlike files and links.
    pub directory: bool,
    /// Of a wheel's file: what tells it from others, so that packages may share it too. Wheels of one namespace all bring
    /// the same `__init__.py`.
    pub content: Option<Digest>,
}

impl InstalledPath {
    /// A file or link that no other package may have.
    pub fn file(path: ImagePath) -> Self {
        Self { path, directory: false, content: None }
    }
}

/// Where a package goes.
#[derive(Clone, Copy, Debug)]
pub struct Placement<'a> {
    /// The environment's place in the image.
    pub prefix: &'a Prefix,
    /// The environment's python, which noarch python packages and wheels need.
    pub python: Option<&'a Python>,
    /// The environment's platform: the length of `#!` lines depends on it.
    pub subdir: Subdir,
    /// The new places of this package's paths that another package won; both relative to the environment.
    pub moved: &'a BTreeMap<ImagePath, ImagePath>,
    /// The files of this package that a later one brings too, the same: they are left to that.
    pub shared: &'a BTreeSet<ImagePath>,
}

impl Placement<'_> {
    /// Where a place, relative to the environment, ends up in it: moved, if another package won it.
    pub fn settled<'p>(&'p self, place: &'p ImagePath) -> &'p ImagePath {
        self.moved.get(place).unwrap_or(place)
    }

    /// The image path of a place that is relative to the environment.
    pub fn image_path(&self, place: &ImagePath) -> Result<ImagePath, BadPath> {
        ImagePath::new([self.prefix.relative().as_bytes(), b"/", self.settled(place).as_bytes()].concat())?.for_layer()
    }
}

/// Why the places of one package exclude each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Conflict {
    /// Two paths in one place.
    SamePlace(ImagePath),
    /// A path below one that is no directory: a sink that makes files on a disk would follow a link there.
    Below { path: ImagePath, above: ImagePath },
}

/// Refuses two files in one place, and anything below a file or link, within one package. Each place comes with whether
/// it is a directory.
pub(super) fn check<'a>(places: impl Iterator<Item = (&'a ImagePath, bool)>) -> Result<(), Conflict> {
    let mut taken = BTreeMap::new();
    for (place, directory) in places {
        if taken.insert(place, directory).is_some() {
            return Err(Conflict::SamePlace(place.clone()));
        }
    }
    for place in taken.keys() {
        let mut above = place.parent();
        while let Some(path) = above {
            if taken.get(&path) == Some(&false) {
                return Err(Conflict::Below { path: (*place).clone(), above: path });
            }
            above = path.parent();
        }
    }
    Ok(())
}

/// The directories that a package brings: those above its files, and empty ones. All are pushed before the first file, so
/// that packages that share a layer can have theirs in it once.
#[derive(Default)]
pub(super) struct Directories(BTreeSet<ImagePath>);

impl Directories {
    /// Adds those above `path`.
    pub fn above(&mut self, path: &ImagePath) {
        if let Some(parent) = path.parent() {
            self.add(parent);
        }
    }

    /// Adds a directory and those above it.
    pub fn add(&mut self, path: ImagePath) {
        let mut next = Some(path);
        while let Some(path) = next {
            next = path.parent();
            if !self.0.insert(path) {
                return;
            }
        }
    }

    /// Pushes all of them, each after those above it.
    pub fn push(self, sink: &mut dyn EntrySink) -> io::Result<()> {
        let kind = EntryKind::Directory;
        let mut entries = self.0.into_iter().map(|path| Entry {
            path,
            kind: kind.clone(),
            mode: Mode::EXECUTABLE,
            mtime: GENERATED_MTIME,
        });
        entries.try_for_each(|entry| sink.entry(&entry))
    }
}
