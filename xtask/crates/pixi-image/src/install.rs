//! An environment written to the disk as `pixi install` leaves it: the same entries that an image gets, at its own prefix.
//!
//! It is filled beside its place and renamed when it is whole, under a lock, so that neither a killed process nor two at a
//! time leave a part of an environment.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rattler_conda_types::GenericVirtualPackage;
use rustix::fs::{self as rfs, AtFlags, FlockOperation, Mode as Permissions, OFlags, RenameFlags};
use serde_json::{Value, json};

use crate::clobber::{self, ClobberError};
use crate::config::Config;
use crate::entry::{Entry, EntryKind, EntrySink, ImagePath, Mode, push_file};
use crate::fetch::{self, Archive, FetchError};
use crate::model::{Digest, Environment, LockedPackage, PIXI_VERSION, Prefix};
use crate::progress::Progress;
use crate::publish::{self, PublishError};
use crate::runner::root::Root;
use crate::runner::unpack::{Unpacker, remove};
use crate::source::package::{Indexed, PackageError};
use crate::source::placement::{GENERATED_MTIME, Placement};
use crate::source::python::{Python, PythonError};

/// Part of what an environment is known by; another one means that it is made anew.
const FORMAT: u32 = 1;
/// What pixi writes beside its environments (`.gitignore`, `.condapackageignore`).
const BESIDE: [(&str, &str); 2] =
    [(".gitignore", "*\n!config.toml\n"), (".condapackageignore", ".pixi\n!.pixi/config.toml\n")];
const MARKER: &str = "conda-meta/pixi";
const PREFIX_FILE: &str = "conda-meta/pixi_env_prefix";
const FINGERPRINT: &str = "conda-meta/.pixi-environment-fingerprint";
const HISTORY: &str = "conda-meta/history";

/// What is to be installed, and where.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The manifest; environments stand in `.pixi/envs` beside it. Its path is absolute.
    pub manifest: &'a Path,
    /// The packages.
    pub environment: &'a Environment,
    /// What the platform promises that they were solved for.
    pub virtual_packages: &'a [GenericVirtualPackage],
    /// The cache of archives.
    pub cache: &'a Path,
    /// How channels are reached.
    pub config: &'a Config,
}

/// Why an environment is not installed. What was there before is as it was.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // most variants are other modules' errors, passed on as they are
pub enum InstallError {
    #[error(
        "the environment `{name}` cannot stand at {path}: {reason}\n  hint: use a workspace with a plain absolute path"
    )]
    Place { name: String, path: PathBuf, reason: &'static str },
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error(transparent)]
    Package(#[from] PackageError),
    #[error(transparent)]
    Python(#[from] PythonError),
    #[error(transparent)]
    Clobber(#[from] ClobberError),
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error("cannot write the environment {path}: {source}{}", hint(.source))]
    Write { path: PathBuf, source: io::Error },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "\n  hint: free some space there",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "\n  hint: work in a copy of the workspace that you may write to"
        }
        _ => "",
    }
}

/// Where an environment of the workspace stands; `manifest` is absolute.
pub fn prefix(manifest: &Path, environment: &str) -> PathBuf {
    manifest.with_file_name(".pixi").join("envs").join(environment)
}

/// Whether the environment that stands there is the one that is asked for.
pub fn is_current(request: &Request<'_>) -> bool {
    let place = prefix(request.manifest, &request.environment.name);
    let marker = || -> Option<Value> { serde_json::from_slice(&std::fs::read(place.join(MARKER)).ok()?).ok() };
    // An environment does not work from another place than it was made for.
    let at_home = std::fs::read(place.join(PREFIX_FILE))
        .is_ok_and(|text| text == place.join("conda-meta").as_os_str().as_encoded_bytes());
    at_home && marker().is_some_and(|marker| marker["environment_lock_file_hash"] == fingerprint(request).hex())
}

/// Installs the environment, unless it stands there already; says whether there was something to do.
pub fn install(request: &Request<'_>, progress: &dyn Progress) -> Result<bool, InstallError> {
    let environment = request.environment;
    let place = prefix(request.manifest, &environment.name);
    let bad_place = |reason| InstallError::Place { name: environment.name.clone(), path: place.clone(), reason };
    let name = ImagePath::new(&environment.name).ok().filter(|name| name.parts().count() == 1);
    name.ok_or_else(|| bad_place("its name is no name of a directory"))?;
    let text = place.to_str().ok_or_else(|| bad_place("the path is not UTF-8"))?;
    let prefix = Prefix::at(text).ok_or_else(|| bad_place("the path is not absolute, or not in its shortest form"))?;
    let write = |source| InstallError::Write { path: place.clone(), source };

    let Some(envs) = place.parent() else { return Err(bad_place("it has no parent directory")) };
    if is_current(request) {
        return Ok(false);
    }
    std::fs::create_dir_all(envs).map_err(write)?;
    for (file, content) in BESIDE {
        let file = envs.with_file_name(file);
        if !file.exists() {
            publish::write(&file, content.as_bytes(), 0o644)?;
        }
    }
    // Whoever waits here finds the work done.
    let directory = open(envs).map_err(write)?;
    rfs::flock(&directory, FlockOperation::LockExclusive).map_err(|errno| write(errno.into()))?;
    if is_current(request) {
        return Ok(false);
    }
    let options = fetch::Options { config: request.config, offline: request.config.offline };
    let archives = fetch::packages(&environment.packages, request.cache, &options, progress)?;
    let plan = Plan::of(environment, &archives)?;
    progress.phase(&format!("Installing {} packages into {}", environment.packages.len(), place.display()));

    let partial = OsString::from(format!(".{}.partial", environment.name));
    let root = begin(&directory, envs, &partial).map_err(write)?;
    let filled = plan
        .fill(request, &prefix, &archives, &root)
        .and_then(|()| replace(&directory, &partial, OsStr::new(&environment.name)).map_err(write));
    if filled.is_err() {
        // What stays behind has a hidden name, and the next try begins by removing it.
        let _ = remove(&directory, &partial);
    }
    filled.map(|()| true)
}

/// What an environment is known by: everything that its files depend on.
fn fingerprint(request: &Request<'_>) -> Digest {
    let environment = request.environment;
    let packages: Vec<_> =
        environment.packages.iter().map(|package| json!([package.sha256(), package.url().as_str()])).collect();
    let version = env!("CARGO_PKG_VERSION");
    let text = json!([FORMAT, version, environment.name, environment.subdir, request.manifest, packages]).to_string();
    Digest::of(text.as_bytes())
}

fn open(directory: &Path) -> io::Result<OwnedFd> {
    Ok(rfs::open(directory, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Permissions::empty())?)
}

fn begin(directory: &OwnedFd, envs: &Path, partial: &OsStr) -> io::Result<Root> {
    remove(directory, partial)?;
    rfs::mkdirat(directory, partial, Permissions::RWXU)?;
    rfs::chmodat(directory, partial, Permissions::from_raw_mode(0o755), AtFlags::empty())?; // whatever the umask is
    Root::open(&envs.join(partial))
}

/// Puts the new directory in the place of the old one, at once where the file system can.
fn replace(directory: &OwnedFd, partial: &OsStr, name: &OsStr) -> io::Result<()> {
    if rfs::renameat_with(directory, partial, directory, name, RenameFlags::EXCHANGE).is_ok() {
        // The new one stands: an old one that cannot be removed is only space.
        let _ = remove(directory, partial);
        return Ok(());
    }
    remove(directory, name)?;
    Ok(rfs::renameat(directory, partial, directory, name)?)
}

/// What is settled before anything is written.
struct Plan<'a> {
    python: Option<Python>,
    packages: Vec<Indexed<'a>>,
    clobbers: clobber::ClobberPlan,
}

impl<'a> Plan<'a> {
    fn of(environment: &'a Environment, archives: &[Archive]) -> Result<Self, InstallError> {
        let python = Python::of(environment).transpose()?;
        let mut packages = Vec::with_capacity(archives.len());
        for (package, archive) in environment.packages.iter().zip(archives) {
            archive.verify(package)?;
            packages.push(Indexed::read(package, &archive.file)?);
        }
        let paths = |package: &Indexed<'_>| package.installed_paths(python.as_ref());
        let installed = packages.iter().map(paths).collect::<Result<Vec<_>, _>>()?;
        let clobbers = clobber::plan(&environment.packages, &installed)?;
        Ok(Self { python, packages, clobbers })
    }

    fn fill(
        &self,
        request: &Request<'_>,
        prefix: &Prefix,
        archives: &[Archive],
        root: &Root,
    ) -> Result<(), InstallError> {
        let environment = request.environment;
        let write = |source| InstallError::Write { path: PathBuf::from(prefix.as_str()), source };
        let inside = ImagePath::new(prefix.relative()).map_err(|error| write(io::Error::other(error)))?;
        let mut sink = Below { prefix: inside, unpacker: Unpacker::new(root), skipping: false };
        let settled = self.clobbers.moved.iter().zip(&self.clobbers.shared);
        for ((package, archive), (moved, shared)) in self.packages.iter().zip(archives).zip(settled) {
            let python = self.python.as_ref();
            let placement = Placement { prefix, python, subdir: environment.subdir, moved, shared };
            package.stream(&archive.file, &placement, &mut sink)?;
        }
        pixis_own_files(request, prefix, &mut sink.unpacker).map_err(write)?;
        sink.unpacker.end_layer().map_err(write)
    }
}

/// What pixi writes into an environment beside its packages.
fn pixis_own_files(request: &Request<'_>, prefix: &Prefix, sink: &mut dyn EntrySink) -> io::Result<()> {
    let environment = request.environment;
    let fingerprint = fingerprint(request).hex();
    let needed: Vec<_> = needed_of_machine(&environment.packages).collect();
    let marker = json!({
        "manifest_path": request.manifest,
        "environment_name": environment.name,
        "pixi_version": PIXI_VERSION,
        "environment_lock_file_hash": fingerprint,
        "resolved_platform": { "subdir": environment.subdir, "virtual_packages": request.virtual_packages },
        "minimum_supported_platform": { "subdir": environment.subdir, "requirements": needed },
    });
    for (path, content) in [
        (MARKER, format!("{marker:#}")),
        (PREFIX_FILE, format!("{}/conda-meta", prefix.as_str())),
        (FINGERPRINT, fingerprint),
        (HISTORY, "# `conda run --prefix` asks for this file\n".to_owned()),
    ] {
        let path = ImagePath::new(path).map_err(io::Error::other)?;
        push_file(sink, path, Mode::FILE, GENERATED_MTIME, content.as_bytes())?;
    }
    Ok(())
}

/// What the packages ask of the machine itself: their dependencies on virtual packages, each once, sorted.
pub fn needed_of_machine(packages: &[LockedPackage]) -> impl Iterator<Item = &str> {
    let conda = packages.iter().filter_map(LockedPackage::conda);
    let all = conda.flat_map(|package| &package.record.package_record.depends);
    let needed: std::collections::BTreeSet<_> = all.map(String::as_str).filter(|text| text.starts_with("__")).collect();
    needed.into_iter()
}

/// Hands entries on with paths relative to the prefix; what is above it is there already.
struct Below<'r> {
    prefix: ImagePath,
    unpacker: Unpacker<'r>,
    skipping: bool,
}

impl Below<'_> {
    fn relative(&self, path: &ImagePath) -> io::Result<Option<ImagePath>> {
        if self.prefix.starts_with(path) {
            return Ok(None);
        }
        let below = path.starts_with(&self.prefix).then(|| &path.as_bytes()[self.prefix.as_bytes().len()..]);
        let below = below.and_then(|below| below.strip_prefix(b"/"));
        let below = below.ok_or_else(|| io::Error::other(format!("{path} lies outside of the environment")))?;
        ImagePath::new(below).map(Some).map_err(io::Error::other)
    }
}

impl EntrySink for Below<'_> {
    fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        let path = self.relative(&entry.path)?;
        self.skipping = path.is_none();
        let Some(path) = path else { return Ok(()) };
        let kind = match &entry.kind {
            EntryKind::Hardlink { target } => {
                let outside = || io::Error::other(format!("{target} lies outside of the environment"));
                EntryKind::Hardlink { target: self.relative(target)?.ok_or_else(outside)? }
            }
            kind => kind.clone(),
        };
        // Pixi leaves its records readable for their owner alone.
        let is_record = path.as_bytes().starts_with(b"conda-meta/") && path.as_bytes().ends_with(b".json");
        let mode = if is_record { Mode(0o600) } else { entry.mode };
        self.unpacker.entry(&Entry { path, kind, mode, mtime: entry.mtime })
    }

    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.skipping { Ok(()) } else { self.unpacker.data(bytes) }
    }
}
