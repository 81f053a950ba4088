//! The root file system of an image, unpacked once into a cache.
//!
//! A tree lies at `<cache>/rootfs/<id>`. It is unpacked at `<id>.partial` under a lock and renamed when it is whole, so
//! an interrupted unpacking leaves nothing that could be taken for a root file system; the next one clears it away.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use backhand::{FilesystemReader, InnerNode};
use oci_spec::image::ImageConfiguration;
use rustix::fs::{self as rfs, FlockOperation, Mode as Permissions, OFlags};
use sha2::Digest as _;

use super::root::Root;
use super::unpack::{EntryError, Unpacker, apply_layer, copy, remove};
use crate::entry::{Entry, EntryKind, EntrySink, ImagePath, Mode};
use crate::layout::{Image, ImageSource, LayoutError};
use crate::model::Digest;
use crate::progress::Progress;
use crate::sif;

/// The tables of a squashfs may be that large together, in bytes.
const TABLES_LIMIT: u64 = 1 << 30;
/// Where the header and the 48 descriptors of a SIF end, in bytes.
const DESCRIPTORS_END: u64 = 32_176;

/// A root file system that is ready to be run.
pub struct Rootfs {
    /// The directory that holds it.
    pub path: PathBuf,
    /// What the image says about running it.
    pub kind: Kind,
}

/// The format of the image, and what it says about running it.
pub enum Kind {
    /// An OCI image and its configuration.
    Oci(Box<ImageConfiguration>),
    /// A SIF: everything stands in `/.singularity.d`.
    Sif,
}

/// Why an image could not be made ready to run.
#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    /// The OCI layout is damaged or none.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// It is no SIF with a squashfs.
    #[error("{image}: {source}")]
    NotSif {
        /// The image.
        image: PathBuf,
        /// What is wrong.
        source: sif::SifError,
    },
    /// The squashfs of the SIF is damaged.
    #[error(
        "{image} cannot be used as a SIF: {reason}\n  hint: the file is damaged or incomplete; make or copy it again"
    )]
    Sif {
        /// The image.
        image: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The image cannot be read.
    #[error("cannot read {image}: {source}")]
    Read {
        /// The image.
        image: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// An entry of the image cannot be unpacked.
    #[error("cannot unpack {image} into {cache}: {entry}{}", unpack_hint(&entry.source))]
    Unpack {
        /// The image.
        image: PathBuf,
        /// The place in the cache.
        cache: PathBuf,
        /// The entry and what is wrong with it.
        entry: EntryError,
    },
    /// The cache cannot be used.
    #[error("cannot use the cache {path}: {source}\n  hint: name a directory that you may write to with --cache")]
    Cache {
        /// The file or directory of the cache.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn unpack_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "\n  hint: free some space there, or name another cache with --cache"
        }
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
            "\n  hint: the image is damaged or hostile; nothing of it is kept"
        }
        _ => "",
    }
}

/// Gives the root file system of an OCI archive, OCI layout directory or SIF; unpacks it first if the cache lacks it.
pub fn prepare(image: &Path, cache: &Path, progress: &dyn Progress) -> Result<Rootfs, RootfsError> {
    if is_sif(image).map_err(|source| RootfsError::Read { image: image.to_owned(), source })? {
        let (id, range) = sif_id(image)?;
        let path = unpacked(image, cache, id, progress, |unpacker| unpack_sif(image, range, unpacker))?;
        return Ok(Rootfs { path, kind: Kind::Sif });
    }
    let source = ImageSource::open(image)?;
    let Image { digest, manifest, config } = source.image(architecture())?;
    let path = unpacked(image, cache, digest, progress, |unpacker| {
        for descriptor in manifest.layers() {
            let stream = source.layer(descriptor)?;
            apply_layer(unpacker, stream).map_err(|entry| {
                let path = format!("layer {}: {}", descriptor.digest(), entry.path);
                Failure::Entry(EntryError { path, ..entry })
            })?;
        }
        Ok(())
    })?;
    Ok(Rootfs { path, kind: Kind::Oci(Box::new(config)) })
}

/// The name of this machine's architecture in Go's terms, as OCI images carry it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

/// Why the content of an image could not be unpacked, before the image is named.
enum Failure {
    Layout(LayoutError),
    Entry(EntryError),
    Sif(String),
}

impl From<LayoutError> for Failure {
    fn from(error: LayoutError) -> Self {
        Self::Layout(error)
    }
}

fn unpacked(
    image: &Path,
    cache: &Path,
    id: Digest,
    progress: &dyn Progress,
    fill: impl FnOnce(&mut Unpacker<'_>) -> Result<(), Failure>,
) -> Result<PathBuf, RootfsError> {
    let directory = cache.join("rootfs");
    let place = directory.join(id.hex());
    if place.is_dir() {
        return Ok(place);
    }
    let refused = |path: &Path, source: io::Error| RootfsError::Cache { path: path.to_owned(), source };
    std::fs::create_dir_all(&directory).map_err(|source| refused(&directory, source))?;
    let lock = directory.join(format!("{}.lock", id.hex()));
    let _held = lock_file(&lock).map_err(|source| refused(&lock, source))?;
    if place.is_dir() {
        return Ok(place); // unpacked by another process meanwhile
    }
    progress.phase(&format!("unpacking {} into {} (once)", image.display(), place.display()));
    let partial = directory.join(format!("{}.partial", id.hex()));
    let root = begin(&directory, &partial).map_err(|source| refused(&partial, source))?;
    let mut unpacker = Unpacker::new(&root);
    let filled = fill(&mut unpacker).and_then(|()| {
        unpacker.end_layer().map_err(|source| Failure::Entry(EntryError { path: "the last file".into(), source }))
    });
    if let Err(failure) = filled {
        // What stays behind is not a root file system, and the next try begins by removing it.
        let _ = clear(&directory, &partial);
        return Err(match failure {
            Failure::Layout(error) => error.into(),
            Failure::Sif(reason) => RootfsError::Sif { image: image.to_owned(), reason },
            Failure::Entry(entry) => RootfsError::Unpack { image: image.to_owned(), cache: directory, entry },
        });
    }
    std::fs::rename(&partial, &place).map_err(|source| refused(&place, source))?;
    Ok(place)
}

fn lock_file(path: &Path) -> io::Result<File> {
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    rfs::flock(&file, FlockOperation::LockExclusive)?;
    Ok(file)
}

fn begin(directory: &Path, partial: &Path) -> io::Result<Root> {
    clear(directory, partial)?;
    rfs::mkdir(partial, Permissions::RWXU)?;
    rfs::chmod(partial, Permissions::from_raw_mode(0o755))?; // whatever the umask is
    Root::open(partial)
}

fn clear(directory: &Path, partial: &Path) -> io::Result<()> {
    let parent = rfs::open(directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Permissions::empty())?;
    remove(&parent, partial.file_name().unwrap_or_default())
}

fn is_sif(image: &Path) -> io::Result<bool> {
    let metadata = std::fs::metadata(image)?;
    if metadata.is_dir() {
        return Ok(false);
    }
    let mut start = Vec::new();
    File::open(image)?.take(64).read_to_end(&mut start)?;
    Ok(start.get(32..41) == Some(b"SIF_MAGIC".as_slice()))
}

/// The content id of a SIF, and where its squashfs lies (offset and length in bytes).
///
/// It hashes the header with its uuid, the descriptors, and the superblock and tables of the squashfs: kilobytes to a
/// few megabytes instead of the whole file at each start. File contents are covered by the compressed sizes in the
/// tables, and by the uuid: a hash of the content in our images, a random number in those of Apptainer.
fn sif_id(image: &Path) -> Result<(Digest, (u64, u64)), RootfsError> {
    let damaged = |reason: String| RootfsError::Sif { image: image.to_owned(), reason };
    let mut file = File::open(image).map_err(|source| RootfsError::Read { image: image.to_owned(), source })?;
    let (offset, length) =
        sif::find_squashfs(&mut file).map_err(|source| RootfsError::NotSif { image: image.to_owned(), source })?;
    let mut hash = sha2::Sha256::new();
    let mut add = |from: u64, size: u64| -> io::Result<Vec<u8>> {
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        (&mut file).take(size).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        hash.update(&bytes);
        Ok(bytes)
    };
    let hashed = (|| {
        add(0, DESCRIPTORS_END.min(offset))?;
        let superblock = add(offset, 96)?;
        let field = |at: usize| u64::from_le_bytes(superblock[at..at + 8].try_into().unwrap_or_default());
        let (used, inodes) = (field(40), field(64));
        let tables = used.checked_sub(inodes).filter(|size| *size <= TABLES_LIMIT && used <= length);
        let tables = tables.ok_or_else(|| io::Error::other("the superblock of its squashfs is damaged"))?;
        add(offset + inodes, tables)
    })();
    hashed.map_err(|error: io::Error| damaged(error.to_string()))?;
    Ok((Digest(hash.finalize().into()), (offset, length)))
}

fn unpack_sif(image: &Path, (offset, _): (u64, u64), unpacker: &mut Unpacker<'_>) -> Result<(), Failure> {
    let damaged = |error: &dyn std::fmt::Display| Failure::Sif(format!("its squashfs is damaged: {error}"));
    let file = File::open(image).map_err(|error| damaged(&error))?;
    let files = FilesystemReader::from_reader_with_offset(BufReader::with_capacity(1 << 17, file), offset)
        .map_err(|error| damaged(&error))?;
    for node in files.files() {
        let raw = node.fullpath.as_os_str().as_bytes();
        let Some(relative) = raw.strip_prefix(b"/").filter(|path| !path.is_empty()) else { continue };
        let fail = |source| Failure::Entry(EntryError { path: node.fullpath.display().to_string(), source });
        let path = ImagePath::new(relative).map_err(|error| fail(io::Error::new(io::ErrorKind::InvalidData, error)))?;
        let kind = match &node.inner {
            InnerNode::Dir(_) => EntryKind::Directory,
            InnerNode::Symlink(link) => EntryKind::Symlink { target: link.link.as_os_str().as_bytes().to_vec() },
            InnerNode::File(file) => EntryKind::File { size: file.file_len() as u64 },
            _ => continue, // device nodes, pipes and sockets cannot be made
        };
        let entry = Entry { path, kind, mode: Mode(node.header.permissions), mtime: node.header.mtime };
        unpacker.entry(&entry).map_err(fail)?;
        if let InnerNode::File(file) = &node.inner {
            copy(&mut files.file(file).reader(), unpacker).map_err(fail)?;
        }
    }
    unpacker.end_layer().map_err(|source| Failure::Entry(EntryError { path: "the last file".into(), source }))
}
