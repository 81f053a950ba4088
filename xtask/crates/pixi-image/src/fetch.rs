//! Brings the archives of a locked environment into the cache: in parallel, verified while they are written.

use std::cmp::Reverse;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::config::Config;
use crate::hashed;
use crate::http::{self, Client, Download, Expected, HttpError, Source};
use crate::model::{Digest, LockedPackage};
use crate::progress::Progress;
use crate::publish::{Pending, Readable};

/// Downloads at a time, unless the configuration says otherwise.
const JOBS: usize = 8;
/// Each has a thread.
const MOST_JOBS: usize = 64;

/// How to fetch.
#[derive(Clone, Copy, Debug)]
pub struct Options<'a> {
    /// How servers are reached, and how many downloads there may be at a time.
    pub config: &'a Config,
    /// Use what is in the cache, and fail naming all that is not.
    pub offline: bool,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Self { config: Config::none(), offline: false }
    }
}

/// Why not all archives are in the cache. Those that are stay there.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Nothing can be downloaded at all.
    #[error(transparent)]
    Http(HttpError),
    /// One package failed.
    #[error("cannot fetch {package}: {source}")]
    Package {
        /// `name-version-build`.
        package: String,
        /// What went wrong.
        source: HttpError,
    },
    /// An archive of the cache is not any more what it was.
    #[error(
        "the archive of {package} in the cache, {path}, is damaged: expected {expected}, got {actual}\n  hint: delete that \
         file; it is downloaded again"
    )]
    Damaged {
        /// `name-version-build`.
        package: String,
        /// The archive.
        path: PathBuf,
        /// The digest that it must have.
        expected: Digest,
        /// The digest that it has.
        actual: Digest,
    },
    /// An archive of the cache cannot be read.
    #[error("cannot read the archive of {package} in the cache, {path}: {source}")]
    Unreadable {
        /// `name-version-build`.
        package: String,
        /// The archive.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Off line, and the cache does not hold everything.
    #[error(
        "{} of {total} packages ({}) are not in {cache}, and downloads are switched off:\n    {}\n  hint: run once \
         without `--offline`",
        .missing.len(), size(*.bytes, *.more), .missing.join("\n    ")
    )]
    Offline {
        /// `name-version-build` of each package that is not there.
        missing: Vec<String>,
        /// Packages wanted.
        total: usize,
        /// Their bytes, as far as the lock knows.
        bytes: u64,
        /// Whether the lock does not know the size of some.
        more: bool,
        /// Where they were looked for.
        cache: PathBuf,
    },
}

fn size(bytes: u64, more: bool) -> String {
    format!("{}{bytes} bytes", if more { "more than " } else { "" })
}

/// An archive of the cache.
#[derive(Clone, Debug)]
pub struct Archive {
    /// The file; one that has just been downloaded may not be visible yet.
    pub file: Readable,
    /// Whether it was compared with its digest by this process: it has just been downloaded.
    verified: bool,
}

/// Where the archive of a package stands in the cache.
pub fn archive_path(cache: &Path, package: &LockedPackage) -> PathBuf {
    let extension = match package {
        LockedPackage::Pypi(_) => "whl",
        LockedPackage::Conda(_) if package.url().path().ends_with(".tar.bz2") => "tar.bz2",
        LockedPackage::Conda(_) => "conda",
    };
    cache.join("packages").join(format!("{}.{extension}", package.sha256().hex()))
}

/// Whether the archive of a package is in the cache, as far as its size tells.
pub fn is_cached(cache: &Path, package: &LockedPackage) -> bool {
    is_there(package, &archive_path(cache, package))
}

/// Brings all archives into `<cache>/packages` and gives them in the order of `packages`.
///
/// An archive becomes visible only whole and verified; one that is there is used. The first failure ends the others.
pub fn packages(
    packages: &[LockedPackage],
    cache: &Path,
    options: &Options<'_>,
    progress: &dyn Progress,
) -> Result<Vec<Archive>, FetchError> {
    packages_as_they_arrive(packages, cache, options, progress, &|_, _| {})
}

/// Like [`packages`]; where there is something to wait for, `arrived` is told of each archive that is there, by its number.
pub fn packages_as_they_arrive(
    packages: &[LockedPackage],
    cache: &Path,
    options: &Options<'_>,
    progress: &dyn Progress,
    arrived: &(dyn Fn(usize, &Archive) + Sync),
) -> Result<Vec<Archive>, FetchError> {
    let place = |package| Readable::at(archive_path(cache, package));
    let mut archives: Vec<_> =
        packages.iter().map(|package| Archive { file: place(package), verified: false }).collect();
    let (there, mut missing): (Vec<_>, Vec<_>) =
        (0..packages.len()).partition(|at| is_there(&packages[*at], archives[*at].file.place()));
    if missing.is_empty() {
        return Ok(archives);
    }
    let bytes = missing.iter().filter_map(|at| packages[*at].size()).sum();
    if options.offline {
        let mut names: Vec<_> = missing.iter().map(|at| packages[*at].identity()).collect();
        names.sort();
        return Err(FetchError::Offline {
            missing: names,
            total: packages.len(),
            bytes,
            more: missing.iter().any(|at| packages[*at].size().is_none()),
            cache: cache.to_owned(),
        });
    }
    progress.expect_download(bytes);
    // The largest first: at the end there is only a little to wait for.
    missing.sort_by_key(|at| Reverse(packages[*at].size()));
    missing.iter().for_each(|at| archives[*at].verified = true);
    there.into_iter().for_each(|at| arrived(at, &archives[at]));
    let places: Vec<_> = missing.into_iter().map(|at| (&packages[at], at, archives[at].file.place())).collect();
    download_all(&places, options.config, progress, arrived)?;
    Ok(archives)
}

/// The content was verified before it got its name, so the size is enough to see that nobody cut it since;
/// [`Archive::verify`] looks closer, where the archive is opened at all.
fn is_there(package: &LockedPackage, place: &Path) -> bool {
    let Ok(metadata) = std::fs::metadata(place) else { return false };
    metadata.is_file() && package.size().is_none_or(|size| size == metadata.len())
}

impl Archive {
    /// Compares it with its digest, unless that was done. What is made of an archive is kept for good, so this comes first:
    /// most archives carry no checksum of their content.
    pub fn verify(&self, package: &LockedPackage) -> Result<(), FetchError> {
        if self.verified { Ok(()) } else { verify(&self.file, package) }
    }
}

fn verify(archive: &Readable, package: &LockedPackage) -> Result<(), FetchError> {
    let path = || archive.place().to_owned();
    let fail = |source| FetchError::Unreadable { package: package.identity(), path: path(), source };
    let (actual, _) = archive.open().and_then(hashed::all_of).map_err(fail)?;
    let expected = package.sha256();
    if expected != actual {
        return Err(FetchError::Damaged { package: package.identity(), path: path(), expected, actual });
    }
    Ok(())
}

fn download_all(
    missing: &[(&LockedPackage, usize, &Path)],
    config: &Config,
    progress: &dyn Progress,
    arrived: &(dyn Fn(usize, &Archive) + Sync),
) -> Result<(), FetchError> {
    let client = Client::new(config, http::CONNECT_TIMEOUT).map_err(FetchError::Http)?;
    let runtime = http::runtime().map_err(FetchError::Http)?;
    let (next, stop, failure) = (AtomicUsize::new(0), AtomicBool::new(false), Mutex::new(None));
    std::thread::scope(|scope| {
        for _ in 0..config.downloads.unwrap_or(JOBS).min(MOST_JOBS).min(missing.len()) {
            scope.spawn(|| {
                while let Some((package, at, place)) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let arrived = |archive: &_| arrived(*at, archive);
                    match runtime.block_on(download(&client, package, place, progress, &stop, &arrived)) {
                        Ok(()) => {}
                        // The first failure sets the flag, so those that it stopped come later and are dropped.
                        Err(source) if !stop.swap(true, Ordering::Relaxed) => {
                            let error = FetchError::Package { package: package.identity(), source };
                            *failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(error);
                        }
                        Err(_) => {}
                    }
                }
            });
        }
    });
    runtime.shutdown_background();
    failure.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()).map_or(Ok(()), Err)
}

async fn download(
    client: &Client,
    package: &LockedPackage,
    place: &Path,
    progress: &dyn Progress,
    stop: &AtomicBool,
    arrived: &dyn Fn(&Archive),
) -> Result<(), HttpError> {
    let source = Source::from_url(package.url())?;
    let expected = Expected { sha256: package.sha256(), size: package.size() };
    let mut pending = Pending::create(place).map_err(HttpError::Write)?;
    Download { client, source: &source, expected, progress, stop }.run(&mut pending).await?;
    // It is read from now on, whenever the disk has it.
    arrived(&Archive { file: pending.readable().map_err(HttpError::Write)?, verified: true });
    pending.publish(0o644).map_err(HttpError::Write)
}
