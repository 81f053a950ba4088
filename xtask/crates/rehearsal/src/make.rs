//! The whole way: mirror, signed index, .deb files, channel and base image.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use pixi_image::archive::ArchiveError;
use pixi_image::model::Digest;
use pixi_image::progress::Progress;
use pixi_image::publish::{Pending, PublishError};

use crate::base;
use crate::cache::Cache;
use crate::channel::{self, ChannelError, Planned};
use crate::index::{Index, IndexError, Release, Remote};
use crate::mirror::{Mirror, MirrorError};
use crate::recipes;
use crate::record::{self, BaseRecord, ChannelRecord, DebRecord, PackageRecord, Record};
use crate::signature::{self, SignatureError};
use crate::sources::{self, MirrorRoot, SUITE, SourcesError};

/// Packages that are repacked at once; each takes about 40 MB of memory.
const WORKERS: usize = 4;

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Request {
    /// The directory that gets `channel`, `base.oci.tar` and `rehearsal.json`.
    pub out: PathBuf,
    /// The root URL of a Debian mirror; without one it is read from the configuration of apt.
    pub mirror: Option<String>,
    /// The directory that keeps downloads.
    pub cache: PathBuf,
    /// Use only what is in the cache.
    pub offline: bool,
    /// Ask the mirror for a newer index, even when everything is there.
    pub refresh: bool,
}

/// A rehearsal that is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rehearsal {
    /// The directory of the channel.
    pub channel: PathBuf,
    /// The digest of the channel: of its indexes.
    pub digest: String,
    /// The OCI archive of the base image.
    pub base: PathBuf,
    /// The digest of the base image's manifest.
    pub base_digest: String,
    /// Whether everything was there already.
    pub unchanged: bool,
}

/// Why there is no rehearsal. What was there before is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RehearsalError {
    /// No mirror is known.
    #[error(transparent)]
    Sources(#[from] SourcesError),
    /// The mirror did not give what it should.
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    /// The mirror's index is not signed by Debian.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// The index is not understood or lacks something.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// The channel could not be made.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The base image could not be made.
    #[error("cannot make the base image: {0}")]
    Base(#[from] ArchiveError),
    /// A file could not be written.
    #[error(transparent)]
    Write(#[from] PublishError),
    /// The machine cannot do what is needed.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Makes the channel and the base image in `request.out`, or finds that they are there.
pub fn make(request: &Request, progress: &dyn Progress) -> Result<Rehearsal, RehearsalError> {
    let complete = Record::of_complete(&request.out);
    if let (Some(record), false) = (&complete, request.refresh) {
        return Ok(rehearsal(&request.out, record, true));
    }
    // Before minutes of downloads: can the result be written at all?
    drop(Pending::create(&request.out.join(record::FILE_NAME))?);
    let root = match request.offline {
        true => None,
        false => Some(sources::choose(request.mirror.as_deref(), Path::new("/etc/apt"))?),
    };
    let inputs = fetch(request, root.as_ref(), complete.as_ref(), progress)?;
    let Some(inputs) = inputs else {
        // `fetch` finds nothing new only where a complete record was given.
        let record = complete.ok_or(RehearsalError::System {
            what: "compare the rehearsal with the index",
            source: std::io::Error::other("there is no record"),
        })?;
        return Ok(rehearsal(&request.out, &record, true));
    };
    let record = write(&request.out, &inputs, progress)?;
    Ok(rehearsal(&request.out, &record, false))
}

fn rehearsal(out: &Path, record: &Record, unchanged: bool) -> Rehearsal {
    Rehearsal {
        channel: out.join("channel"),
        digest: record.channel.digest.to_string(),
        base: out.join("base.oci.tar"),
        base_digest: record.base.digest.to_string(),
        unchanged,
    }
}

/// Everything from the mirror, verified.
struct Inputs {
    release: Release,
    index: Index,
    files: Vec<(String, PathBuf)>,
}

impl Inputs {
    /// Name and file of the named packages, in their order.
    fn files_of<'a>(&self, names: &[&'a str]) -> Vec<(&'a str, PathBuf)> {
        let file = |name: &str| self.files.iter().find(|(known, _)| known == name).map(|(_, file)| file.clone());
        names.iter().filter_map(|name| Some((*name, file(name)?))).collect()
    }
}

/// Fetches index and packages; none when they are those of `complete`.
fn fetch(
    request: &Request,
    root: Option<&MirrorRoot>,
    complete: Option<&Record>,
    progress: &dyn Progress,
) -> Result<Option<Inputs>, RehearsalError> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|source| RehearsalError::System { what: "start the downloads", source })?;
    let cache = Cache::new(&request.cache);
    let mirror = Arc::new(Mirror::new(root, cache.clone())?);
    runtime.block_on(async {
        progress.phase(&match root {
            Some(root) => format!("Debian {SUITE} from {}", root.url),
            None => format!("Debian {SUITE} from the cache {}", request.cache.display()),
        });
        let in_release = mirror.in_release(SUITE).await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let release = Release::parse(&signature::verify(&in_release, now)?, SUITE)?;
        cache.keep_index(SUITE, &in_release)?;
        progress.phase(&format!("Debian {}: the signature is Debian's; reading the index", release.version));
        let index = read_index(&mirror, &release).await?;
        let debs: Vec<DebRecord> = index.packages().map(DebRecord::of).collect();
        if complete.is_some_and(|record| record.debs == debs) {
            return Ok(None);
        }
        let remotes: Vec<Remote> = index.packages().map(|package| package.deb.clone()).collect();
        let size: u64 = remotes.iter().map(|remote| remote.size).sum();
        progress.phase(&format!(
            "{} Debian packages, {} MB; what the cache lacks is downloaded",
            debs.len(),
            size / 1_000_000
        ));
        let places = mirror.fetch(&remotes, progress).await?;
        let files = index.packages().map(|package| package.name.clone()).zip(places).collect();
        Ok(Some(Inputs { release, index, files }))
    })
}

async fn read_index(mirror: &Arc<Mirror>, release: &Release) -> Result<Index, RehearsalError> {
    let places = mirror.fetch(std::slice::from_ref(&release.packages), &pixi_image::progress::Silent).await?;
    let unreadable = |source| RehearsalError::System { what: "read the index in the cache", source };
    let place = places.first().ok_or_else(|| unreadable(std::io::Error::other("it is not there")))?;
    let file = std::fs::File::open(place).map_err(unreadable)?;
    let mut names: BTreeSet<&str> = recipes::BASE.iter().copied().collect();
    names.extend(recipes::CHANNEL.iter().flat_map(|recipe| recipe.debs));
    Ok(Index::read(xz2::read::XzDecoder::new(file), &names, SUITE)?)
}

fn write(out: &Path, inputs: &Inputs, progress: &dyn Progress) -> Result<Record, RehearsalError> {
    let place = out.join("base.oci.tar");
    progress.phase("making the base image and the conda packages");
    // The base image is done long before the largest package.
    let (base, packages) = std::thread::scope(|scope| {
        let base = scope.spawn(|| base::write(&place, &inputs.files_of(recipes::BASE)));
        let packages = write_packages(&out.join("channel"), inputs, progress);
        (base.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), packages)
    });
    let (base_digest, packages) = (base?, packages?);
    let base_size =
        place.metadata().map_err(|source| RehearsalError::System { what: "read the base image", source })?.len();
    let digest: Digest = channel::write_repodata(&out.join("channel"), &packages)?;
    let record = Record {
        recipes: record::recipes_digest(),
        suite: SUITE.to_owned(),
        release: inputs.release.version.clone(),
        date: inputs.release.date.clone(),
        debs: inputs.index.packages().map(DebRecord::of).collect(),
        channel: ChannelRecord { digest, packages },
        base: BaseRecord { digest: base_digest, size: base_size },
    };
    record.write(out)?;
    record.remove_others(out);
    Ok(record)
}

/// Repacks in a few threads; the table begins with the package that takes longest.
fn write_packages(
    channel: &Path,
    inputs: &Inputs,
    progress: &dyn Progress,
) -> Result<Vec<PackageRecord>, RehearsalError> {
    let planned: Vec<Planned> = channel::plan(&inputs.index);
    progress.expect_packages(planned.len());
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::new());
    let workers = std::thread::available_parallelism().map_or(1, |count| count.get().min(WORKERS));
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(package) = planned.get(next.fetch_add(1, Ordering::Relaxed)) {
                    progress.packing(package.recipe.name);
                    let result = package.write(channel, &inputs.files_of(package.recipe.debs), &inputs.index);
                    if let Ok(record) = &result {
                        progress.packed(&record.file_name, record.size, false);
                    } else {
                        next.store(planned.len(), Ordering::Relaxed); // the others need not begin anything new
                    }
                    done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(result);
                }
            });
        }
    });
    let done = done.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let mut packages = done.into_iter().collect::<Result<Vec<_>, _>>()?;
    packages.sort_by(|a, b| (&a.subdir, &a.file_name).cmp(&(&b.subdir, &b.file_name)));
    Ok(packages)
}
