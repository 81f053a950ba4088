//! Packs of the locked packages, taken from the cache or made.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::BuildError;
use super::shelf::Shelf;
use crate::archive::canonical_json;
use crate::clobber::{self, ClobberPlan};
use crate::entry::{Entry, EntrySink, ImagePath};
use crate::fetch::Archive;
use crate::model::{Digest, Environment, LockedPackage, Prefix, WHEEL_INSTALLER};
use crate::pack::{
    Compressors, FORMAT_VERSION, HARD_LEVEL, LAYER_LEVEL, LEVEL, PackError, PackFile, PackIndex, PackWriter, Targets,
};
use crate::progress::Progress;
use crate::source::package::Indexed;
use crate::source::placement::Placement;
use crate::source::python::Python;
use crate::store::Store;

/// One decoder keeps about this many compressing threads busy.
const COMPRESSORS_PER_DECODER: usize = 6;
/// While one decoder waits for its last chunks and for the disk, another one feeds the compressing threads.
const LEAST_DECODERS: usize = 2;

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

/// What a package lost to others: the paths that moved, and the files that a later one brings too.
type Lost<'l> = (&'l BTreeMap<ImagePath, ImagePath>, &'l BTreeSet<ImagePath>);

/// Packs the packages of an environment, each by itself.
pub struct Packer<'a> {
    environment: &'a Environment,
    prefix: &'a Prefix,
    targets: Targets,
    python: Option<Python>,
    compressors: &'a Compressors,
    store: &'a Store,
    given_up: AtomicBool,
}

impl<'a> Packer<'a> {
    /// A packer for what is built for `targets`.
    pub fn new(
        environment: &'a Environment,
        prefix: &'a Prefix,
        targets: Targets,
        compressors: &'a Compressors,
        store: &'a Store,
    ) -> Result<Self, BuildError> {
        let python = Python::of(environment).transpose()?;
        Ok(Self { environment, prefix, targets, python, compressors, store, given_up: AtomicBool::new(false) })
    }

    /// Ends what is being packed, with errors: something else has failed.
    pub fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    /// Fails when the packer has given up.
    pub fn check(&self) -> io::Result<()> {
        if self.given_up.load(Ordering::Relaxed) { Err(io::Error::other("something else has failed")) } else { Ok(()) }
    }

    /// The small info parts say all that planning needs; they are kept, so that a rebuild opens no archive.
    fn read_indexes(&self, archives: &[Archive], jobs: NonZeroUsize) -> Result<Vec<ReadIndex<'a>>, BuildError> {
        let next = AtomicUsize::new(0);
        let read = Mutex::new(BTreeMap::new());
        std::thread::scope(|scope| {
            for _ in 0..jobs.get().min(archives.len()) {
                scope.spawn(|| {
                    loop {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        let Some(archive) = archives.get(at) else { return };
                        let index = self.read_index(at, archive);
                        read.lock().unwrap_or_else(PoisonError::into_inner).insert(at, index);
                    }
                });
            }
        });
        read.into_inner().unwrap_or_else(PoisonError::into_inner).into_values().collect()
    }

    fn read_index(&self, at: usize, archive: &Archive) -> Result<ReadIndex<'a>, BuildError> {
        let (package, store) = (&self.environment.packages[at], self.store);
        let key = Digest::of(format!("index {FORMAT_VERSION} {} {}", package.kind(), package.sha256()).as_bytes());
        let noted = match package {
            LockedPackage::Conda(package) => store.note("indexes", &key).map(|index| Indexed::Conda(package, index)),
            LockedPackage::Pypi(wheel) => store.note("indexes", &key).map(|index| Indexed::Wheel(wheel, index)),
        };
        if let Some(package) = noted {
            return Ok(ReadIndex { package, verified: false });
        }
        archive.verify(package)?;
        let package = Indexed::read(package, &archive.file)?;
        match &package {
            Indexed::Conda(_, index) => store.keep_note("indexes", &key, index)?,
            Indexed::Wheel(_, index) => store.keep_note("indexes", &key, index)?,
        }
        Ok(ReadIndex { package, verified: true })
    }

    /// Packs a package into the cache; `layer` gets the blob of a layer that holds it alone.
    fn pack(
        &self,
        at: usize,
        archive: &Archive,
        index: &ReadIndex<'_>,
        (moved, shared): Lost<'_>,
        key: &Digest,
        layer: Option<impl Write>,
    ) -> Result<PackFile, BuildError> {
        let package = &self.environment.packages[at];
        if !index.verified {
            archive.verify(package)?;
        }
        let python = self.python.as_ref();
        let placement = Placement { prefix: self.prefix, python, subdir: self.environment.subdir, moved, shared };
        PackFile::create(&place(self.store, key, self.targets), self.store.publisher(), |out| {
            let mut writer = writer(out, self.compressors, self.targets);
            if let Some(layer) = layer {
                writer = writer.with_layer(layer);
            }
            fill(writer, &package.identity(), |sink| {
                let mut sink = UntilGivenUp { sink, packer: self };
                Ok(index.package.stream(&archive.file, &placement, &mut sink)?)
            })
        })
    }

    /// Packs a package that has just arrived as if it lost no path to another, and gives the key of such a pack; none if the
    /// cache has one. Of wheels many do lose some: they bring the same files.
    pub fn pack_ahead(
        &self,
        at: usize,
        archive: &Archive,
        shelf: &Shelf,
    ) -> Result<Option<(Digest, PackFile)>, BuildError> {
        let nothing = (&BTreeMap::new(), &BTreeSet::new());
        let key = self.key(at, nothing)?;
        let is_cached = self.places(&key).iter().any(|place| place.exists());
        if is_cached || matches!(self.environment.packages[at], LockedPackage::Pypi(_)) {
            return Ok(None);
        }
        let index = self.read_index(at, archive)?;
        let file = self.pack(at, archive, &index, nothing, &key, shelf.follower(at, &key))?;
        Ok(Some((key, file)))
    }

    /// Where a pack may stand: that of both formats serves a build of one, too.
    fn places(&self, key: &Digest) -> [PathBuf; 2] {
        [Targets::Both, self.targets].map(|targets| place(self.store, key, targets))
    }

    /// Digests all that the bytes of a pack depend on.
    fn key(&self, at: usize, (moved, shared): Lost<'_>) -> Result<Digest, BuildError> {
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
            "pack {FORMAT_VERSION}\nversion {}\nlevels {LEVEL} {LAYER_LEVEL} {HARD_LEVEL}\nprefix {}\nsubdir {}\npython {python}\nsha256 {}\nrecord {record}\n",
            env!("CARGO_PKG_VERSION"),
            self.prefix.as_str(),
            self.environment.subdir,
            package.sha256(),
        )
        .into_bytes();
        for (from, to) in moved {
            text.extend([from.as_bytes(), b"\0", to.as_bytes(), b"\n"].concat());
        }
        for path in shared {
            text.extend([path.as_bytes(), b"\n"].concat());
        }
        Ok(Digest::of(&text))
    }
}

/// Hands entries on until the packer gives up.
struct UntilGivenUp<'s> {
    sink: &'s mut dyn EntrySink,
    packer: &'s Packer<'s>,
}

impl EntrySink for UntilGivenUp<'_> {
    fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        self.packer.check()?;
        self.sink.entry(entry)
    }

    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.packer.check()?;
        self.sink.data(bytes)
    }
}

/// How many packages are decoded at a time.
pub fn decoders(jobs: NonZeroUsize) -> usize {
    (jobs.get() / COMPRESSORS_PER_DECODER).max(LEAST_DECODERS)
}

/// What is settled before the first package is packed.
pub struct Plan<'a> {
    packer: &'a Packer<'a>,
    clobbers: ClobberPlan,
    indexes: Vec<ReadIndex<'a>>,
    keys: Vec<Digest>,
}

/// Where a pack stands. What is for one format alone is not looked for by a build of both.
pub fn place(store: &Store, key: &Digest, targets: Targets) -> PathBuf {
    let of = |what: &str| store.pack(&Digest::of(format!("{what} {key}").as_bytes()));
    match targets {
        Targets::Both => store.pack(key),
        Targets::LayerOnly => of("layer of"),
        Targets::SquashfsOnly => of("squashfs of"),
        Targets::NamesOnly => of("names of"),
    }
}

/// The pack of the cache if there is one; a damaged one is made anew.
pub fn cached(place: &Path, progress: &dyn Progress) -> Result<Option<PackFile>, BuildError> {
    match PackFile::open(place) {
        Err(PackError::Read { path, source }) if source.kind() == io::ErrorKind::InvalidData => {
            progress.warn(&format!("the cached pack {} is made anew: {source}", path.display()));
            Ok(None)
        }
        opened => Ok(opened?),
    }
}

impl<'a> Plan<'a> {
    /// Reads what the packages hold and settles who owns every path.
    pub fn new(packer: &'a Packer<'a>, archives: &[Archive], jobs: NonZeroUsize) -> Result<Self, BuildError> {
        let indexes = packer.read_indexes(archives, jobs)?;
        let clobbers = {
            let installed = indexes.iter().map(|read| read.package.installed_paths(packer.python.as_ref()));
            clobber::plan(&packer.environment.packages, &installed.collect::<Result<Vec<_>, _>>()?)?
        };
        let keys = (0..archives.len()).map(|at| packer.key(at, (&clobbers.moved[at], &clobbers.shared[at])));
        let keys = keys.collect::<Result<_, _>>()?;
        Ok(Self { packer, clobbers, indexes, keys })
    }

    /// Whether there is a package that the cache has no pack of.
    pub fn lacks_packs(&self) -> bool {
        !self.keys.iter().all(|key| self.packer.places(key).iter().any(|place| place.exists()))
    }

    /// What the user should know of paths that several packages ship.
    pub fn clashes(&self) -> impl Iterator<Item = String> {
        self.clobbers.clashes.iter().map(|clash| {
            let losers = clash.losers.join(", ");
            format!(
                "{} is shipped by {} and {losers}: the image has the former's, the others' lie in __clobbers__",
                clash.path, clash.winner
            )
        })
    }

    /// The pack of a package: `ahead` if it has the key that is wanted, else that of the cache, else a new one.
    pub fn pack(
        &self,
        at: usize,
        archive: &Archive,
        ahead: Option<(Digest, PackFile)>,
        shelf: &Shelf,
        progress: &dyn Progress,
    ) -> Result<PackagePack, BuildError> {
        let (package, key, index) = (&self.packer.environment.packages[at], self.keys[at], &self.indexes[at]);
        let made = |file: PackFile, was_cached| {
            progress.packed(&package.identity(), file.index.content_size(), was_cached);
            let (name, archive_size) = (package.name().to_owned(), package.size().unwrap_or(0));
            PackagePack { name, archive_size, key, file, post_link: index.package.has_post_link_script() }
        };
        if let Some((_, file)) = ahead.filter(|(made, _)| *made == key) {
            return Ok(made(file, false));
        }
        for place in self.packer.places(&key) {
            if let Some(file) = cached(&place, progress)? {
                return Ok(made(file, true));
            }
        }
        progress.packing(&package.identity());
        let lost = (&self.clobbers.moved[at], &self.clobbers.shared[at]);
        let file = self.packer.pack(at, archive, index, lost, &key, shelf.follower(at, &key))?;
        Ok(made(file, false))
    }
}

/// A pack of entries that belong to this build alone.
pub fn temporary(
    compressors: &Compressors,
    targets: Targets,
    what: &str,
    store: &Store,
    push: impl FnOnce(&mut dyn EntrySink) -> Result<(), BuildError>,
) -> Result<PackFile, BuildError> {
    PackFile::temporary(&store.temporary(), |out| fill(writer(out, compressors, targets), what, push))
}

/// What makes a pack of an image.
pub fn writer<W: Write>(out: W, compressors: &Compressors, targets: Targets) -> PackWriter<'_, W> {
    PackWriter::new(out, compressors, targets, is_read_by_activation)
}

/// Writes what `push` pushes as a pack of `what`.
pub fn fill<W: Write>(
    mut writer: PackWriter<'_, W>,
    what: &str,
    push: impl FnOnce(&mut dyn EntrySink) -> Result<(), BuildError>,
) -> Result<PackIndex, BuildError> {
    let fail = |source| BuildError::Packing { what: what.to_owned(), source };
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
