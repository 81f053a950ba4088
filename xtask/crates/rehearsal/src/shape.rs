//! The shape of a real environment: packages with the names, builds and sizes of a lock, whose contents are made up.
//!
//! They measure how fast an image is built where the real packages cannot be had. Nothing in them runs. An archive is as
//! large as the lock says, times a scale, within a few percent; its files are of the kinds, number and sizes that packages
//! of such a name have ([`files`]), and compress like theirs, for they are made of pieces of real ones ([`content`]).

pub mod content;
pub mod files;
pub mod specimens;

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};

use pixi_image::entry::{ImagePath, Mode};
use pixi_image::lock::{self, LockError};
use pixi_image::model::{CondaPackage, Digest, LockedPackage};
use pixi_image::progress::Progress;
use pixi_image::publish::{self, Pending, PublishError};
use serde_json::{Value, json};

use crate::channel::{self, ChannelError, SUBDIRS};
use crate::conda::{CondaWriter, Sums, placeholder};
use crate::record::PackageRecord;
use crate::variant::{self, VariantError};
use crate::workspace::{self, WorkspaceError};

use content::{Content, Made, Numbers};
use files::{FileKind, Subject};
use specimens::{SpecimenError, Specimens};

/// Goes up when the bytes change that are made of the same lock.
const FORMAT: u32 = 3;
/// What says in the output directory of what it was made.
const RECORD: &str = "shape.json";
/// How far an archive may be from the size that it should have, in percent: at each time that it is written. The first
/// guess is mostly right; where it is not, the next ones are.
const TOLERANCE: [u64; 9] = [2, 2, 2, 3, 3, 4, 4, 4, 4];
/// What it may be off in any case: the smallest hold little but what tells of them.
const FEW_BYTES: u64 = 4096;
/// Packages larger than this are tried at this size first, in bytes.
const PILOT: u64 = 4 << 20;
/// Archives that are written at once.
const WORKERS: usize = 4;

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Request {
    /// The lock whose packages are imitated.
    pub lock: PathBuf,
    /// The environment of the lock.
    pub environment: String,
    /// A platform of the lock.
    pub platform: String,
    /// The directory that gets `channel` and `workspace`, and `changed` where there is a variant.
    pub out: PathBuf,
    /// All archives get this share of their real size, in permille.
    pub permille: u64,
    /// Where the channel will be served.
    pub url: String,
    /// A package of which there is another build, too.
    pub variant: Option<String>,
    /// The channel of real packages of whose files the made-up ones are made.
    pub like: PathBuf,
}

/// A shape that is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// How many packages there are.
    pub packages: usize,
    /// What their archives have together, in bytes.
    pub bytes: u64,
    /// Whether it was there already.
    pub unchanged: bool,
}

/// Why there is no shape.
#[derive(Debug, thiserror::Error)]
pub enum ShapeError {
    /// The lock cannot be read.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The lock has something that cannot be imitated.
    #[error(
        "{package} of the lock is a wheel; only conda packages are imitated\n  hint: name an environment without wheels"
    )]
    Wheel {
        /// The package.
        package: String,
    },
    /// A package of a platform that the channel has no place for.
    #[error("{package} of the lock is for {subdir}; channels are made for {}\n  hint: name another --platform", SUBDIRS.join(" and "))]
    Subdir {
        /// The package.
        package: String,
        /// Its platform.
        subdir: String,
    },
    /// There are no real files to make others of.
    #[error(transparent)]
    Specimens(#[from] SpecimenError),
    /// A package cannot be written.
    #[error("cannot write {package}: {source}")]
    Package {
        /// The package.
        package: String,
        /// What the system said.
        source: io::Error,
    },
    /// The channel cannot be written.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// The variant cannot be made.
    #[error(transparent)]
    Variant(#[from] VariantError),
    /// The workspace cannot be locked.
    #[error(transparent)]
    Workspace(#[from] WorkspaceError),
    /// The other build is not the one that is chosen.
    #[error(
        "the other build of {0} is not chosen: another package asks for the first one\n  hint: name another package with --variant"
    )]
    Pinned(String),
    /// A file cannot be written.
    #[error(transparent)]
    Write(#[from] PublishError),
}

/// Makes channel and workspaces in `request.out`, or finds that they are there.
pub fn shape(request: &Request, progress: &dyn Progress) -> Result<Shape, ShapeError> {
    let environment = lock::read(&request.lock, &request.environment, &request.platform)?;
    let imitated = imitated(&environment.packages)?;
    let identity = identity(request, &imitated, &channel::digest(&request.like)?);
    let channel = request.out.join("channel");
    if let Some(there) = complete(&request.out, &identity, imitated.len()) {
        return Ok(there);
    }
    progress.phase(&format!("making {} packages in the shape of {}", imitated.len(), request.lock.display()));
    let maker = Maker { channel: &channel, specimens: Specimens::of(&request.like)?, permille: request.permille };
    let packages = maker.write_packages(&imitated, progress)?;
    channel::write_repodata(&channel, &packages)?;
    let manifest = manifest(&request.environment, &request.url, &imitated);
    workspace::write(&request.out.join("workspace"), &manifest, &channel, &request.url, progress)?;
    if let Some(name) = &request.variant {
        let other = variant::add(&channel, &channel, name)?;
        let changed = request.out.join("changed");
        workspace::write(&changed, &manifest, &channel, &request.url, progress)?;
        let locked = std::fs::read_to_string(changed.join("pixi.lock")).unwrap_or_default();
        if !locked.contains(&other.file_name) {
            return Err(ShapeError::Pinned(name.clone()));
        }
    }
    let bytes = packages.iter().map(|package| package.size).sum();
    let record = json!({ "identity": identity, "channel": channel::digest(&channel)?, "bytes": bytes });
    publish::write(&request.out.join(RECORD), format!("{record:#}\n").as_bytes(), 0o644)?;
    Ok(Shape { packages: packages.len(), bytes, unchanged: false })
}

/// What is there, if it is what would be made.
fn complete(out: &Path, identity: &str, packages: usize) -> Option<Shape> {
    let record: Value = serde_json::from_slice(&std::fs::read(out.join(RECORD)).ok()?).ok()?;
    let channel = out.join("channel");
    let digest = channel::digest(&channel).ok()?.to_string();
    let is_there = |package: &PackageRecord| {
        let place = channel.join(&package.subdir).join(&package.file_name);
        place.metadata().is_ok_and(|found| found.len() == package.size)
    };
    let whole = record["identity"] == identity
        && record["channel"] == digest
        && variant::records(&channel).ok()?.iter().all(is_there);
    whole.then(|| Shape { packages, bytes: record["bytes"].as_u64().unwrap_or(0), unchanged: true })
}

fn imitated<'p>(packages: &'p [LockedPackage]) -> Result<Vec<&'p CondaPackage>, ShapeError> {
    let conda =
        |package: &'p LockedPackage| package.conda().ok_or_else(|| ShapeError::Wheel { package: package.identity() });
    let packages: Vec<&CondaPackage> = packages.iter().map(conda).collect::<Result<_, _>>()?;
    let stranger = packages.iter().find(|package| !SUBDIRS.contains(&subdir(package)));
    match stranger {
        Some(package) => Err(ShapeError::Subdir { package: package.identity(), subdir: subdir(package).to_owned() }),
        None => Ok(packages),
    }
}

fn subdir<'a>(package: &&'a CondaPackage) -> &'a str {
    &package.record.package_record.subdir
}

/// All that the result depends on.
fn identity(request: &Request, packages: &[&CondaPackage], like: &Digest) -> String {
    let packages: String =
        packages.iter().map(|package| format!("{} {}\n", package.identity(), package.sha256)).collect();
    let variant = request.variant.as_deref().unwrap_or("-");
    let Request { permille, url, environment, .. } = request;
    let text = format!("{FORMAT} {permille} {url} {variant} {environment} {like}\n{packages}");
    Digest::of(text.as_bytes()).to_string()
}

/// A manifest that asks for every package by name, so that the lock has them all.
fn manifest(environment: &str, url: &str, packages: &[&CondaPackage]) -> String {
    let mut names: Vec<_> = packages.iter().map(|package| format!("\"{}\" = \"*\"\n", package.name())).collect();
    names.sort();
    let head = format!("[workspace]\nname = \"shape\"\nchannels = [\"{url}\"]\nplatforms = [\"linux-64\"]\n");
    match environment {
        "default" => format!("{head}\n[dependencies]\n{}", names.concat()),
        name => format!(
            "{head}\n[feature.{name}.dependencies]\n{}\n[environments]\n{name} = [\"{name}\"]\n",
            names.concat()
        ),
    }
}

/// What makes the packages of one shape.
struct Maker<'a> {
    channel: &'a Path,
    specimens: Specimens,
    permille: u64,
}

impl Maker<'_> {
    /// Writes in a few threads, the largest packages first.
    fn write_packages(
        &self,
        packages: &[&CondaPackage],
        progress: &dyn Progress,
    ) -> Result<Vec<PackageRecord>, ShapeError> {
        let mut order: Vec<&CondaPackage> = packages.to_vec();
        order.sort_by_key(|package| (std::cmp::Reverse(package.record.package_record.size), package.name()));
        let next = AtomicUsize::new(0);
        let done = Mutex::new(Vec::new());
        let workers = std::thread::available_parallelism().map_or(1, |count| count.get().min(WORKERS));
        std::thread::scope(|scope| {
            for _ in 0..workers {
                scope.spawn(|| {
                    while let Some(package) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                        let result = self.write_package(package);
                        match &result {
                            Ok(record) => progress.packed(&package.identity(), record.size, false),
                            Err(_) => next.store(order.len(), Ordering::Relaxed), // the others need not begin anything new
                        }
                        done.lock().unwrap_or_else(PoisonError::into_inner).push(result);
                    }
                });
            }
        });
        let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut packages = done.into_iter().collect::<Result<Vec<_>, _>>()?;
        packages.sort_by(|a, b| (&a.subdir, &a.file_name).cmp(&(&b.subdir, &b.file_name)));
        Ok(packages)
    }

    /// Writes an archive again and again until its size is right.
    fn write_package(&self, package: &CondaPackage) -> Result<PackageRecord, ShapeError> {
        let record = &package.record.package_record;
        let failed = |source| ShapeError::Package { package: package.identity(), source };
        let (version, build) = (record.version.to_string(), record.build.as_str());
        let real = record.size.unwrap_or(0);
        let subject = Subject {
            name: package.name(),
            version: &version,
            build,
            noarch_python: record.noarch.is_python(),
            archive: real,
        };
        let wanted = real * self.permille / 1000;
        let index = index_json(package).map_err(failed)?;
        let file_name = format!("{}.conda", package.identity());
        let place = self.channel.join(&record.subdir).join(&file_name);
        let mut bytes = files::guess(&subject, wanted);
        if wanted > 2 * PILOT {
            // What the ratio really is, shows in a small one.
            let pilot = files::guess(&subject, PILOT);
            let (sums, _) = self.write_archive(&place, &subject, pilot, &index).map_err(failed)?;
            bytes = scaled(pilot, wanted, sums.size);
        }
        let mut bracket = Bracket { wanted, below: None, above: None };
        for percent in TOLERANCE {
            let (sums, pending) = self.write_archive(&place, &subject, bytes, &index).map_err(failed)?;
            let next = bracket.next(bytes, sums.size);
            if sums.size.abs_diff(wanted) <= (wanted * percent / 100).max(FEW_BYTES) || next == bytes {
                pending.publish(0o644)?;
                return Ok(packed(&record.subdir, file_name, index, &sums));
            }
            bytes = next;
        }
        let reason = format!("no content was found for which it has about {wanted} bytes");
        Err(failed(io::Error::other(reason)))
    }

    /// Writes an archive with so many uncompressed bytes; the caller decides whether it appears.
    fn write_archive(
        &self,
        place: &Path,
        subject: &Subject<'_>,
        bytes: u64,
        index: &Value,
    ) -> io::Result<(Sums, Pending)> {
        let mut pending = Pending::create(place).map_err(io::Error::other)?;
        let identity = format!("{}-{}-{}", subject.name, subject.version, subject.build);
        let mut writer = CondaWriter::new(pending.file().try_clone()?, &identity)?;
        for file in files::files(subject, bytes) {
            let path = ImagePath::new(&file.path).map_err(io::Error::other)?;
            let numbers = Numbers::of(&format!("{}-{} {}", subject.name, subject.build, file.path));
            let mode = if file.path.contains(".so.") { Mode::EXECUTABLE } else { Mode::FILE };
            match file.kind {
                FileKind::Link(target) => writer.symlink(&path, target.as_bytes())?,
                FileKind::Made(content, size) => {
                    writer.file(&path, mode, size, &mut self.made(content, numbers, size))?
                }
                FileKind::Patched(content, size) => {
                    let string = format!("\0{}/lib\0", placeholder());
                    let middle = size / 2;
                    let head = self.made(content, numbers.clone(), middle);
                    let mut whole = head.chain(string.as_bytes()).chain(self.made(content, numbers, size - middle));
                    writer.file(&path, mode, size + string.len() as u64, &mut whole)?;
                    writer.holds_placeholder(&path, true);
                }
                FileKind::Script => {
                    let text = format!("#!{0}/bin/sh\nprefix={0}\n", placeholder());
                    writer.text_with_prefix(&path, Mode::EXECUTABLE, text.as_bytes())?;
                }
            }
        }
        let mut info =
            vec![("about.json", json!({ "summary": "Made up: its size is real" })), ("index.json", index.clone())];
        if subject.noarch_python {
            info.push(("link.json", json!({ "noarch": { "type": "python" }, "package_metadata_version": 1 })));
        }
        Ok((writer.finish(&info)?, pending))
    }

    fn made(&self, content: Content, numbers: Numbers, size: u64) -> Made<'_> {
        Made::new(content, numbers, size, &self.specimens)
    }
}

/// What was tried on both sides of the wanted size: content in bytes, and the archive that it made.
struct Bracket {
    wanted: u64,
    below: Option<(u64, u64)>,
    above: Option<(u64, u64)>,
}

impl Bracket {
    /// How much content to try after `bytes` made an archive of `found` bytes. In proportion, while all were on one side;
    /// then between the nearest of both: files come whole, so a little more content can make a much larger archive.
    fn next(&mut self, bytes: u64, found: u64) -> u64 {
        let side = if found < self.wanted { &mut self.below } else { &mut self.above };
        *side = Some((bytes, found));
        match (self.below, self.above) {
            (Some((low, small)), Some((high, large))) if low < high => {
                let step = scaled(high - low, self.wanted - small, large - small);
                low + step.clamp((high - low) / 8, (high - low) - (high - low) / 8)
            }
            _ => scaled(bytes, self.wanted, found),
        }
    }
}

/// `bytes * wanted / found`, where that may not fit.
fn scaled(bytes: u64, wanted: u64, found: u64) -> u64 {
    let scaled = u128::from(bytes) * u128::from(wanted) / u128::from(found.max(1));
    u64::try_from(scaled).unwrap_or(u64::MAX)
}

fn packed(subdir: &str, file_name: String, mut repodata: Value, sums: &Sums) -> PackageRecord {
    repodata["sha256"] = json!(sums.sha256.hex());
    repodata["md5"] = json!(sums.md5.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    repodata["size"] = json!(sums.size);
    PackageRecord { subdir: subdir.to_owned(), file_name, sha256: sums.sha256, size: sums.size, repodata }
}

/// What the real package says of itself, but for what only the machine can give.
fn index_json(package: &CondaPackage) -> io::Result<Value> {
    let mut index = serde_json::to_value(&package.record.package_record).map_err(io::Error::other)?;
    if let Some(fields) = index.as_object_mut() {
        for sum in ["sha256", "md5", "size", "legacy_bz2_md5", "legacy_bz2_size", "run_exports"] {
            fields.remove(sum);
        }
        for list in ["depends", "constrains"] {
            if let Some(Value::Array(specs)) = fields.get_mut(list) {
                specs.retain(|spec| !spec.as_str().is_some_and(|spec| spec.starts_with("__")));
            }
        }
    }
    Ok(index)
}
