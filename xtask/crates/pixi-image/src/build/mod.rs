//! The pipeline: the one module that knows all the others.
//!
//! Each step hands a value to the next and none reads back what a later one wrote: lock, archives, indexes, clobber plan,
//! packs, then both formats from the same packs.

mod error;
mod image;
mod packing;
mod packs;
mod placing;
mod root;
mod shelf;
mod stack;
mod standing;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread::ScopedJoinHandle;

use rattler_conda_types::Subdir;
use url::Url;

use crate::archive::ArchiveWriter;
use crate::config::Config;
use crate::entry::ImagePath;
use crate::fetch;
use crate::lock;
use crate::manifest;
use crate::model::{Digest, Environment, Prefix};
use crate::pack::{Compressors, Targets};
use crate::progress::Progress;
use crate::publish::Pending;
use crate::registry;
use crate::secrets;
use crate::solve;
use crate::source::base::{Base, BaseReference};
use crate::store::Store;

pub use error::BuildError;
pub use image::Written;

use image::SifDraft;
use packing::Packing;
use packs::PackagePack;
use shelf::Shelf;
use stack::Stack;

/// What is to be built.
#[derive(Clone, Debug)]
pub struct Request {
    /// The lock file.
    pub lock: PathBuf,
    /// The manifest that goes into the image beside the lock.
    pub manifest: PathBuf,
    /// The environment, for example `gpu`.
    pub environment: String,
    /// A platform row of the lock, or a conda subdir, for example `linux-64`.
    pub platform: String,
    /// The base image.
    pub base: BaseReference,
    /// Application files for /app/src, if any.
    pub app: Option<PathBuf>,
    /// Name and tag of the image, for example `cuda-exercise:gpu`.
    pub reference: String,
    /// Labels that are added to the image's own.
    pub labels: BTreeMap<String, String>,
    /// Where the OCI archive goes, if one is wanted.
    pub oci: Option<PathBuf>,
    /// Where the SIF goes, if one is wanted.
    pub sif: Option<PathBuf>,
    /// The time that the image carries, in seconds since 1970; the lock's newest package if not given.
    pub created: Option<i64>,
    /// Compressing threads.
    pub jobs: NonZeroUsize,
    /// Take the lock as it is, without comparing it with the manifest.
    pub frozen: bool,
    /// Use only what is on this machine.
    pub offline: bool,
    /// How channels and registries are reached.
    pub config: Config,
}

impl Request {
    fn is_offline(&self) -> bool {
        self.offline || self.config.offline
    }

    /// Where a format goes, if it is wanted.
    fn place(&self, format: Format) -> Option<&PathBuf> {
        match format {
            Format::Oci => self.oci.as_ref(),
            Format::Sif => self.sif.as_ref(),
        }
    }

    /// What packages are packed for.
    fn targets(&self) -> Targets {
        match (&self.oci, &self.sif) {
            (Some(_), None) => Targets::LayerOnly,
            (None, Some(_)) => Targets::SquashfsOnly,
            _ => Targets::Both,
        }
    }

    fn reach(&self) -> registry::Reach<'_> {
        registry::Reach { config: &self.config, offline: self.is_offline() }
    }
}

/// Which format an artefact has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Format {
    /// An OCI archive that docker loads too.
    Oci,
    /// A Singularity image.
    Sif,
}

/// One result.
#[derive(Clone, Debug)]
pub struct Artifact {
    /// Its format.
    pub format: Format,
    /// Where it stands.
    pub path: PathBuf,
    /// The manifest's digest for OCI, the uuid for a SIF.
    pub id: String,
    /// The length of the file in bytes.
    pub size: u64,
}

/// The thread that writes the first part of a result.
type Drafting<'scope, D> = ScopedJoinHandle<'scope, Result<Option<D>, BuildError>>;

/// The results that are begun.
struct Drafts<'scope, 'a> {
    oci: Option<Drafting<'scope, image::Draft>>,
    sif: Option<Drafting<'scope, SifDraft<'a>>>,
}

impl<'scope, 'a> Drafts<'scope, 'a> {
    /// Takes note of what is begun now.
    fn begin(&mut self, oci: Option<Drafting<'scope, image::Draft>>, sif: Option<Drafting<'scope, SifDraft<'a>>>) {
        self.oci = self.oci.take().or(oci);
        self.sif = self.sif.take().or(sif);
    }
}

/// What a build led to.
struct Made {
    /// A digest of all that the bytes of the results depend on.
    identity: Digest,
    /// Results that stand where they are wanted.
    standing: Vec<Artifact>,
    /// The others, which nobody sees yet.
    written: Vec<(Format, Written)>,
}

/// Builds what `request` asks for. Nothing becomes visible unless it is whole, and what stands there already stays.
pub fn build(request: &Request, store: &Store, progress: &dyn Progress) -> Result<Vec<Artifact>, BuildError> {
    let Made { identity, standing: mut artifacts, written } =
        explained(request, run(request, store, progress, true), store)?;
    for (format, Written { id, size, file }) in written {
        file.publish()?;
        let Some(path) = request.place(format).cloned() else { continue };
        let artifact = Artifact { format, path, id, size };
        standing::note(store, &artifact, identity);
        artifacts.push(artifact);
    }
    artifacts.sort_by_key(|artifact| artifact.format);
    Ok(artifacts)
}

/// Builds what `request` asks for, all of it, and makes nothing visible: what is not published goes when it is dropped.
pub fn unpublished(
    request: &Request,
    store: &Store,
    progress: &dyn Progress,
) -> Result<Vec<(Format, Written)>, BuildError> {
    explained(request, run(request, store, progress, false), store).map(|made| made.written)
}

/// Where a base that was pulled lies, its error must say.
fn explained(request: &Request, made: Result<Made, BuildError>, store: &Store) -> Result<Made, BuildError> {
    made.map_err(|error| match (error, &request.base) {
        (BuildError::Base(source), BaseReference::Registry(_)) => {
            BuildError::PulledBase { images: store.root().join("images"), source }
        }
        (error, _) => error,
    })
}

fn run(request: &Request, store: &Store, progress: &dyn Progress, may_stand: bool) -> Result<Made, BuildError> {
    // Places that cannot be written to are found out before the long work.
    let mut archive = request.oci.as_deref().map(ArchiveWriter::create).transpose()?;
    let mut sif = request.sif.as_deref().map(Pending::create).transpose()?;

    progress.phase("Reading the lock");
    let environment = lock::read(&request.lock, &request.environment, &request.platform)?;
    if !request.frozen {
        let now = jiff::Timestamp::now();
        let unchecked = solve::require_satisfied(&request.manifest, &request.lock, &request.environment, now)?;
        unchecked.iter().for_each(|remark| progress.warn(remark));
    }
    if !ImagePath::new(&environment.name).is_ok_and(|name| name.parts().count() == 1) {
        return Err(BuildError::EnvironmentName(environment.name));
    }
    let files = root::Files { manifest: manifest::text(&request.manifest)?, lock: root::read(&request.lock)? };
    refuse_secrets(request, &files)?;
    let architecture = architecture(environment.subdir)?;
    let prefix = Prefix::of_packages();
    let compressors = Compressors::start(request.jobs);

    let base = open_base(request, architecture, store, progress)?;
    let base = base.as_ref();
    let of_base = if request.sif.is_some() { Targets::SquashfsOnly } else { Targets::NamesOnly };
    if base.is_some_and(|(base, _)| stack::lacks_packs(base, of_base, store)) {
        progress.phase("Packing the layers of the base image");
    }
    let created = root::created(request, &environment);
    let shelf = Shelf::new(environment.packages.len());
    let stack = OnceLock::new();
    let packer = packs::Packer::new(&environment, &prefix, request.targets(), &compressors, store)?;
    let packing = Packing::new(&packer, &shelf, progress);
    std::thread::scope(|scope| {
        // Layers are decoded one after the other: the packages need not wait for that.
        let stacking = scope.spawn(|| {
            // Whoever waits for it must not wait for ever.
            let _settled = Settled(&stack);
            let made =
                base.map(|(base, name)| Stack::new(base, name, of_base, &compressors, store, progress)).transpose()?;
            stack.get_or_init(|| made);
            Ok::<_, BuildError>(())
        });
        let start_oci = |archive| {
            // What is followed must be known before the first package is packed.
            let outline = image::Outline::new(&environment, created, base.map(|(base, _)| base), &shelf, archive);
            scope.spawn(|| outline.draft(&packer, store, progress))
        };
        let start_sif =
            |pending| scope.spawn(|| SifDraft::draft(&environment, &stack, &shelf, pending, &packer, progress));
        let closing = shelf.closing();
        // What stands is known when all packs are there; where one has to be made, that is not likely.
        let are_there = environment.packages.iter().all(|package| fetch::is_cached(store.root(), package));
        let mut drafts = Drafts { oci: None, sif: None };
        drafts.begin(archive.take_if(|_| !are_there).map(start_oci), sif.take_if(|_| !are_there).map(start_sif));
        let _ending = packing.ending();
        let workers: Vec<_> = (0..packs::decoders(request.jobs)).map(|_| scope.spawn(|| packing.work())).collect();
        let options = fetch::Options { offline: request.is_offline(), config: &request.config };
        let arrived = |at, archive: &_| packing.arrived(at, archive);
        let archives =
            fetch::packages_as_they_arrive(&environment.packages, store.root(), &options, progress, &arrived)?;
        let plan = packs::Plan::new(&packer, &archives, request.jobs)?;
        let lacks_packs = plan.lacks_packs();
        drafts.begin(archive.take_if(|_| lacks_packs).map(start_oci), sif.take_if(|_| lacks_packs).map(start_sif));
        let plan = packing.settle(plan, archives);
        workers.into_iter().for_each(joined);
        packing.outcome()?;
        drop(closing);
        joined(stacking)?;
        let base = stack.wait().as_ref();
        let packages: Vec<_> = (0..environment.packages.len()).filter_map(|at| shelf.wait_for(at)).collect();
        warn_of_scripts(&environment, &packages, &request.config, progress);
        plan.clashes().for_each(|clash| progress.warn(&clash));

        let root = root::Root::compose(request, &environment, &files, base, packages, &compressors, store, progress)?;
        let identity = image::identity(request, &root)?;
        let find = |format| standing::find(store, format, request.place(format)?, &identity);
        let standing: Vec<_> = [Format::Oci, Format::Sif].into_iter().filter(|_| may_stand).filter_map(find).collect();
        let stands = |format| standing.iter().any(|artifact| artifact.format == format);
        drafts.oci.take_if(|_| stands(Format::Oci));
        drafts.sif.take_if(|_| stands(Format::Sif));
        drafts.begin(
            archive.take_if(|_| !stands(Format::Oci)).map(start_oci),
            sif.take_if(|_| !stands(Format::Sif)).map(start_sif),
        );
        for artifact in &standing {
            progress.phase(&format!("Unchanged: {}", artifact.path.display()));
        }
        if drafts.oci.is_some() || drafts.sif.is_some() {
            progress.phase("Writing the images");
            progress.expect_written(image::size(&root, drafts.oci.is_some(), drafts.sif.is_some()));
        }
        let written = finish(request, &root, drafts, progress)?;
        store.publisher().finish()?;
        Ok(Made { identity, standing, written })
    })
}

/// Manifest and lock go into the image as they are, where everybody can read them.
fn refuse_secrets(request: &Request, files: &root::Files) -> Result<(), BuildError> {
    let mut channels = Vec::new();
    collect_channels(&files.manifest.parse::<toml::Table>().unwrap_or_default(), &mut channels);
    let of_channel = |url: &Url| channels.iter().any(|channel| url.as_str().starts_with(channel));
    let in_manifest = |url: &Url| secrets::has_password(url) || of_channel(url) && secrets::has_token(url);
    let found = secrets::first_in(&files.manifest, in_manifest).map(|found| (&request.manifest, found));
    let in_lock = || secrets::first_in(&String::from_utf8_lossy(&files.lock), secrets::are_in);
    match found.or_else(|| Some((&request.lock, in_lock()?))) {
        Some((path, (line, url))) => Err(BuildError::Secret { path: path.clone(), line, url }),
        None => Ok(()),
    }
}

/// Everything that the manifest calls a channel.
fn collect_channels(table: &toml::Table, found: &mut Vec<String>) {
    for (key, value) in table {
        match value {
            toml::Value::Table(table) => collect_channels(table, found),
            toml::Value::String(channel) if key == "channel" => found.push(channel.clone()),
            toml::Value::Array(values) => {
                found.extend(
                    values.iter().filter(|_| key == "channels").filter_map(|value| value.as_str()).map(str::to_owned),
                );
                values.iter().filter_map(toml::Value::as_table).for_each(|table| collect_channels(table, found));
            }
            _ => {}
        }
    }
}

/// Both are ended side by side. Only when both are whole can either appear, so that a failure leaves no pair of different
/// builds.
fn finish(
    request: &Request,
    root: &root::Root<'_>,
    Drafts { oci, sif }: Drafts<'_, '_>,
    progress: &dyn Progress,
) -> Result<Vec<(Format, Written)>, BuildError> {
    let (oci, sif) = std::thread::scope(|scope| {
        let oci = scope.spawn(|| {
            let draft = oci.map(joined).transpose()?.flatten();
            draft.map(|draft| draft.finish(request, root, progress)).transpose()
        });
        let sif = sif
            .map(joined)
            .transpose()
            .and_then(|draft| draft.flatten().map(|draft| draft.finish(root, progress)).transpose());
        (joined(oci), sif)
    });
    let made = [oci?.map(|written| (Format::Oci, written)), sif?.map(|written| (Format::Sif, written))];
    Ok(made.into_iter().flatten().collect())
}

/// What a thread returned.
fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Sees to it that there is something to be had when it is dropped: nothing, if that has failed which should have been there.
struct Settled<'s, 'a>(&'s OnceLock<Option<Stack<'a>>>);

impl Drop for Settled<'_, '_> {
    fn drop(&mut self) {
        self.0.get_or_init(|| None);
    }
}

/// The base, pulled if need be, and how the image calls it.
fn open_base(
    request: &Request,
    architecture: &str,
    store: &Store,
    progress: &dyn Progress,
) -> Result<Option<(Base, String)>, BuildError> {
    let (path, reference): (PathBuf, String) = match &request.base {
        BaseReference::Scratch => return Ok(None),
        BaseReference::Local(path) => (path.clone(), file_name(path)),
        BaseReference::Registry(reference) => {
            let pulled = registry::pull(reference, architecture, store.root(), request.reach(), progress)?;
            (pulled.layout, reference.clone())
        }
    };
    Ok(Some((Base::open(&path, architecture)?, reference)))
}

/// Where a base lies on the builder's disk must not reach the image.
fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn warn_of_scripts(environment: &Environment, packages: &[&PackagePack], config: &Config, progress: &dyn Progress) {
    // Nothing of an image is run while it is built.
    let how = if config.run_post_link_scripts { "whatever `run-post-link-scripts` says" } else { "like pixi" };
    for (package, made) in environment.packages.iter().zip(packages) {
        if made.post_link {
            let identity = package.identity();
            progress.warn(&format!(
                "{identity} brings a post-link script; {how}, this tool does not run it: check that the package works"
            ));
        }
    }
}

/// Go's name of a conda platform's architecture.
fn architecture(subdir: Subdir) -> Result<&'static str, BuildError> {
    match subdir {
        Subdir::Linux64 => Ok("amd64"),
        Subdir::LinuxAarch64 => Ok("arm64"),
        Subdir::LinuxPpc64le => Ok("ppc64le"),
        other => Err(BuildError::NotLinux(other.to_string())),
    }
}
