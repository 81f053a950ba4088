//! Packs of the locked packages and of the base, taken from the cache or made.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::BuildError;
use crate::archive::canonical_json;
use crate::clobber::{self, ClobberPlan};
use crate::entry::{EntrySink, ImagePath};
use crate::fetch;
use crate::model::{Digest, Environment, LockedPackage, Prefix, WHEEL_INSTALLER};
use crate::pack::{
    Compressors, FORMAT_VERSION, LAYER_LEVEL, LEVEL, PackError, PackFile, PackIndex, PackWriter, Targets,
};
use crate::progress::Progress;
use crate::source::base::Base;
use crate::source::package::Indexed;
use crate::source::placement::Placement;
use crate::source::python::Python;
use crate::store::Store;

/// One decoder keeps about this many compressing threads busy.
const COMPRESSORS_PER_DECODER: usize = 6;

/// The packs of an environment, in the order of its packages.
pub struct Packages {
    pub packs: Vec<PackagePack>,
    /// What the user should know of paths that several packages ship.
    pub clashes: Vec<String>,
}

/// One package's pack.
pub struct PackagePack {
    pub name: String,
    /// In bytes; 0 where the lock does not know it.
    pub archive_size: u64,
    pub key: Digest,
    pub file: PackFile,
    pub post_link: bool,
}

/// A package with its index.
struct ReadIndex<'a> {
    package: Indexed<'a>,
    /// Whether the archive was compared with its digest to get it.
    verified: bool,
}

/// What all packages of a build share.
struct Shared<'a> {
    environment: &'a Environment,
    prefix: &'a Prefix,
    targets: Targets,
    python: Option<Python>,
    plan: ClobberPlan,
    indexes: Vec<ReadIndex<'a>>,
    archives: &'a [PathBuf],
    compressors: &'a Compressors,
    store: &'a Store,
    progress: &'a dyn Progress,
}

/// Packs every package that the cache does not hold yet.
#[allow(clippy::too_many_arguments)] // what a build has settled before it
pub fn packages(
    environment: &Environment,
    prefix: &Prefix,
    targets: Targets,
    archives: &[PathBuf],
    compressors: &Compressors,
    jobs: NonZeroUsize,
    store: &Store,
    progress: &dyn Progress,
) -> Result<Packages, BuildError> {
    let indexes = read_indexes(&environment.packages, archives, jobs, store)?;
    let python = Python::of(environment).transpose()?;
    let plan = {
        let installed = indexes.iter().map(|read| read.package.installed_paths(python.as_ref()));
        clobber::plan(&environment.packages, &installed.collect::<Result<Vec<_>, _>>()?)?
    };
    progress.phase(&format!("Packing {} packages", environment.packages.len()));
    progress.expect_packages(environment.packages.len());
    let shared = Shared { environment, prefix, targets, python, plan, indexes, archives, compressors, store, progress };
    let files = shared.pack_all(jobs)?;
    let clashes = shared.plan.clashes.iter().map(|clash| {
        let losers = clash.losers.join(", ");
        format!(
            "{} is shipped by {} and {losers}: the image has the former's, the others' lie in __clobbers__",
            clash.path, clash.winner
        )
    });
    let clashes = clashes.collect();
    let packs = files
        .into_iter()
        .zip(&environment.packages)
        .zip(&shared.indexes)
        .map(|(((key, file), package), read)| PackagePack {
            name: package.name().to_owned(),
            archive_size: package.size().unwrap_or(0),
            key,
            file,
            post_link: read.package.has_post_link_script(),
        })
        .collect();
    Ok(Packages { packs, clashes })
}

/// The small info parts say all that planning needs; they are kept, so that a rebuild opens no archive.
fn read_indexes<'a>(
    packages: &'a [LockedPackage],
    archives: &[PathBuf],
    jobs: NonZeroUsize,
    store: &Store,
) -> Result<Vec<ReadIndex<'a>>, BuildError> {
    let next = AtomicUsize::new(0);
    let read = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs.get().min(packages.len()) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let (Some(package), Some(archive)) = (packages.get(at), archives.get(at)) else { return };
                    let index = read_index(package, archive, store);
                    read.lock().unwrap_or_else(PoisonError::into_inner).insert(at, index);
                }
            });
        }
    });
    read.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect()
}

fn read_index<'a>(package: &'a LockedPackage, archive: &Path, store: &Store) -> Result<ReadIndex<'a>, BuildError> {
    let key = Digest::of(format!("index {FORMAT_VERSION} {} {}", package.kind(), package.sha256()).as_bytes());
    let noted = match package {
        LockedPackage::Conda(package) => store.note("indexes", &key).map(|index| Indexed::Conda(package, index)),
        LockedPackage::Pypi(wheel) => store.note("indexes", &key).map(|index| Indexed::Wheel(wheel, index)),
    };
    if let Some(package) = noted {
        return Ok(ReadIndex { package, verified: false });
    }
    fetch::verify(archive, package)?;
    let package = Indexed::read(package, archive)?;
    match &package {
        Indexed::Conda(_, index) => store.keep_note("indexes", &key, index)?,
        Indexed::Wheel(_, index) => store.keep_note("indexes", &key, index)?,
    }
    Ok(ReadIndex { package, verified: true })
}

/// Where a package's pack stands. What is for one format alone is not looked for by a build of both.
fn place(store: &Store, key: &Digest, targets: Targets) -> PathBuf {
    let of = |what: &str| store.pack(&Digest::of(format!("{what} {key}").as_bytes()));
    match targets {
        Targets::Both => store.pack(key),
        Targets::LayerOnly => of("layer of"),
        Targets::SquashfsOnly => of("squashfs of"),
        Targets::NamesOnly => of("names of"),
    }
}

/// The pack of the cache if there is one; a damaged one is made anew.
fn cached(place: &Path, progress: &dyn Progress) -> Result<Option<PackFile>, BuildError> {
    match PackFile::open(place) {
        Err(PackError::Read { path, source }) if source.kind() == io::ErrorKind::InvalidData => {
            progress.warn(&format!("the cached pack {} is made anew: {source}", path.display()));
            Ok(None)
        }
        opened => Ok(opened?),
    }
}

impl Shared<'_> {
    /// Decoders take packages from a queue, the largest first, and share the compressing threads.
    fn pack_all(&self, jobs: NonZeroUsize) -> Result<Vec<(Digest, PackFile)>, BuildError> {
        let count = self.environment.packages.len();
        let mut order: Vec<usize> = (0..count).collect();
        // The lock does not know the size of wheels, which are the largest of all.
        let size = |at: &usize| std::fs::metadata(&self.archives[*at]).map_or(0, |archive| archive.len());
        order.sort_by_cached_key(|at| std::cmp::Reverse(size(at)));
        let queue = Mutex::new(VecDeque::from(order));
        let results = Mutex::new(BTreeMap::new());
        let failure = Mutex::new(None);
        let lock = |queue: &Mutex<VecDeque<usize>>| queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        std::thread::scope(|scope| {
            for _ in 0..(jobs.get() / COMPRESSORS_PER_DECODER).max(1) {
                scope.spawn(|| {
                    while let Some(at) = lock(&queue) {
                        match self.pack(at) {
                            Ok(made) => {
                                results.lock().unwrap_or_else(PoisonError::into_inner).insert(at, made);
                            }
                            Err(error) => {
                                queue.lock().unwrap_or_else(PoisonError::into_inner).clear();
                                failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                            }
                        }
                    }
                });
            }
        });
        match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some(error) => Err(error),
            None => Ok(results.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect()),
        }
    }

    fn pack(&self, at: usize) -> Result<(Digest, PackFile), BuildError> {
        let package = &self.environment.packages[at];
        let key = self.key(at)?;
        for targets in [Targets::Both, self.targets] {
            if let Some(file) = cached(&place(self.store, &key, targets), self.progress)? {
                self.progress.packed(&package.identity(), file.index.content_size(), true);
                return Ok((key, file));
            }
        }
        self.progress.packing(&package.identity());
        let ReadIndex { package: indexed, verified } = &self.indexes[at];
        if !verified {
            fetch::verify(&self.archives[at], package)?;
        }
        let placement = Placement {
            prefix: self.prefix,
            python: self.python.as_ref(),
            subdir: self.environment.subdir,
            moved: &self.plan.moved[at],
            shared: &self.plan.shared[at],
        };
        let file = PackFile::create(&place(self.store, &key, self.targets), |out| {
            fill(out, self.compressors, self.targets, &package.identity(), |sink| {
                Ok(indexed.stream(&self.archives[at], &placement, sink)?)
            })
        })?;
        self.progress.packed(&package.identity(), file.index.content_size(), false);
        Ok((key, file))
    }

    /// Digests all that the bytes of a pack depend on.
    fn key(&self, at: usize) -> Result<Digest, BuildError> {
        let package = &self.environment.packages[at];
        let python = self.python.as_ref().map(|python| format!("{python:?}")).unwrap_or_default();
        let record = match package {
            LockedPackage::Conda(package) => Digest::of(&canonical_json(&package.record)?).to_string(),
            LockedPackage::Pypi(wheel) => {
                // The URL gets into the image where the manifest names it.
                let url = if wheel.direct { wheel.url.as_str() } else { "" };
                format!("wheel {} {} {url} by {}", wheel.name, wheel.version, WHEEL_INSTALLER)
            }
        };
        let mut text = format!(
            "pack {FORMAT_VERSION}\nversion {}\nlevels {LEVEL} {LAYER_LEVEL}\nprefix {}\nsubdir {}\npython {python}\nsha256 {}\nrecord {record}\n",
            env!("CARGO_PKG_VERSION"),
            self.prefix.as_str(),
            self.environment.subdir,
            package.sha256(),
        )
        .into_bytes();
        for (from, to) in &self.plan.moved[at] {
            text.extend([from.as_bytes(), b"\0", to.as_bytes(), b"\n"].concat());
        }
        for path in &self.plan.shared[at] {
            text.extend([path.as_bytes(), b"\n"].concat());
        }
        Ok(Digest::of(&text))
    }
}

/// The places of a base's pack: the first is what a SIF's build leaves, which serves one that asks for names alone, too.
fn places_of_base(base: &Base, targets: Targets, store: &Store) -> [PathBuf; 2] {
    let key = Digest::of(format!("base {FORMAT_VERSION}\nlevel {LEVEL}\n{}", base.content_digest()).as_bytes());
    [Targets::SquashfsOnly, targets].map(|targets| place(store, &key, targets))
}

/// Whether the cache has the pack of a base.
pub fn has_base(base: &Base, targets: Targets, store: &Store) -> bool {
    places_of_base(base, targets, store).iter().any(|place| place.exists())
}

/// The base's merged file system, for the SIF alone: an OCI image takes the base's own layers, and asks for names.
pub fn base(
    base: &Base,
    targets: Targets,
    compressors: &Compressors,
    store: &Store,
    progress: &dyn Progress,
) -> Result<PackFile, BuildError> {
    let places = places_of_base(base, targets, store);
    for place in &places {
        if let Some(file) = cached(place, progress)? {
            return Ok(file);
        }
    }
    let [_, place] = places;
    PackFile::create(&place, |out| {
        fill(out, compressors, targets, "the base image", |sink| Ok(base.push_merged(sink)?))
    })
}

/// A pack of entries that belong to this build alone.
pub fn temporary(
    compressors: &Compressors,
    targets: Targets,
    what: &str,
    store: &Store,
    push: impl FnOnce(&mut dyn EntrySink) -> Result<(), BuildError>,
) -> Result<PackFile, BuildError> {
    PackFile::temporary(&store.temporary(), |out| fill(out, compressors, targets, what, push))
}

fn fill<W: Write>(
    out: W,
    compressors: &Compressors,
    targets: Targets,
    what: &str,
    push: impl FnOnce(&mut dyn EntrySink) -> Result<(), BuildError>,
) -> Result<PackIndex, BuildError> {
    let fail = |source| BuildError::Packing { what: what.to_owned(), source };
    let mut writer = PackWriter::new(out, compressors, targets, is_read_by_activation);
    push(&mut writer)?;
    let (index, mut out) = writer.finish().map_err(fail)?;
    out.flush().map_err(fail)?;
    Ok(index)
}

/// `etc/conda/env_vars.d/*.json` and `etc/conda/activate.d/*.sh` of an environment.
fn is_read_by_activation(path: &ImagePath) -> bool {
    let below = |directory: &[u8]| path.parent().is_some_and(|parent| parent.as_bytes().ends_with(directory));
    below(b"/etc/conda/env_vars.d") && path.file_name().ends_with(b".json")
        || below(b"/etc/conda/activate.d") && path.file_name().ends_with(b".sh")
}
