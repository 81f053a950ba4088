//! The base image under the environment: a registry, an OCI archive or layout, or nothing at all.
//!
//! This module reads it layer by layer; how layers are stacked is `build/stack.rs`' part.

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use sha2::Digest as _;

use crate::entry::{BadPath, Entry, EntryKind, EntrySink, ImagePath, Mode};
use crate::layout::{Image, ImageSource, LayoutError};
use crate::model::Digest;

/// Where a base image comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BaseReference {
    /// No base: the image holds the environment alone.
    Scratch,
    /// An OCI archive or layout on this machine.
    Local(PathBuf),
    /// An image in a registry.
    Registry(String),
}

impl FromStr for BaseReference {
    type Err = std::convert::Infallible;

    /// `scratch`, a path (it exists, begins with `.` or `/`, or ends with `.tar`), or else a registry reference.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "scratch" => Self::Scratch,
            path if path.starts_with(['.', '/']) || path.ends_with(".tar") || Path::new(path).exists() => {
                Self::Local(path.into())
            }
            reference => Self::Registry(reference.to_owned()),
        })
    }
}

impl fmt::Display for BaseReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scratch => f.write_str("scratch"),
            Self::Local(path) => write!(f, "{}", path.display()),
            Self::Registry(reference) => f.write_str(reference),
        }
    }
}

/// Why a base image cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// It cannot be read.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A layer is damaged, or holds something that no image may hold.
    #[error("the layer {layer} of the base image: {reason}\n  hint: the base image is damaged or hostile; use another")]
    Layer {
        /// The digest of the layer's blob.
        layer: String,
        /// What is wrong.
        reason: String,
    },
}

/// A base image that is open for reading.
pub struct Base {
    /// The archive or layout that holds it.
    pub source: ImageSource,
    /// Its manifest and configuration.
    pub image: Image,
}

impl Base {
    /// Opens the archive or layout at `path`.
    pub fn open(path: &Path, architecture: &str) -> Result<Self, BaseError> {
        let source = ImageSource::open(path)?;
        let image = source.image(architecture)?;
        Ok(Self { source, image })
    }

    /// How many layers it has.
    pub fn depth(&self) -> usize {
        self.image.manifest.layers().len()
    }

    /// The digest of the uncompressed bytes of a layer, of which there is one for each.
    pub fn diff_id(&self, number: usize) -> &str {
        // There are as many diff ids as layers: that was checked when the image was opened.
        self.image.config.rootfs().diff_ids().get(number).map_or("", String::as_str)
    }

    /// Pushes the entries of a layer in its own order, whiteouts as the empty files that they are.
    pub fn push_layer(&self, number: usize, sink: &mut dyn EntrySink) -> Result<(), BaseError> {
        self.each_entry(number, |entry, content| {
            sink.entry(entry)?;
            match entry.kind {
                EntryKind::File { .. } => copy(content, sink),
                _ => Ok(()),
            }
        })
    }

    /// Like [`Base::push_layer`], but pushes no content.
    pub fn push_names(&self, number: usize, sink: &mut dyn EntrySink) -> Result<(), BaseError> {
        self.each_entry(number, |entry, _| sink.entry(entry))
    }

    /// A layer that is not as it has to be.
    pub fn bad_layer(&self, number: usize, reason: String) -> BaseError {
        BaseError::Layer { layer: self.image.manifest.layers()[number].digest().to_string(), reason }
    }

    /// Calls `visit` with every entry of a layer and the reader of what it holds. Fails at the end if the layer is not what
    /// manifest and configuration say.
    fn each_entry(
        &self,
        number: usize,
        mut visit: impl FnMut(&Entry, &mut dyn Read) -> io::Result<()>,
    ) -> Result<(), BaseError> {
        let bad = |reason: String| self.bad_layer(number, reason);
        let blob = self.source.layer(&self.image.manifest.layers()[number])?;
        let mut content = Hashing { inner: blob, hasher: sha2::Sha256::new() };
        let mut archive = tar::Archive::new(&mut content);
        for raw in archive.entries().map_err(|error| bad(error.to_string()))? {
            let mut raw = raw.map_err(|error| bad(error.to_string()))?;
            if let Some(name) = sparse_file(&mut raw).map_err(|error| bad(error.to_string()))? {
                return Err(bad(format!("`{name}` is a sparse file in the pax form, which not every runtime reads")));
            }
            let Some(entry) = read_entry(&raw).map_err(|error| bad(error.to_string()))? else { continue };
            visit(&entry, &mut raw).map_err(|error| bad(error.to_string()))?;
        }
        // The digest is checked where the blob ends, behind the last entry.
        io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(|error| bad(error.to_string()))?;
        // What is packed is kept under its diff id: one that lies would stand in for the layer that it names.
        let (found, named) = (Digest(content.hasher.finalize().into()).to_string(), self.diff_id(number));
        if found != named {
            return Err(bad(format!("its content is {found}, but the image's configuration says {named}")));
        }
        Ok(())
    }
}

/// Passes bytes on and hashes them.
struct Hashing<R> {
    inner: R,
    hasher: sha2::Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}

/// The name of a file whose content is a map of its holes and what is between them (GNU tar manual, "PAX 1"), if it is one.
/// The tar library would take the map for content; holes in the older form it fills itself.
fn sparse_file<R: Read>(raw: &mut tar::Entry<'_, R>) -> io::Result<Option<String>> {
    let mut name = None;
    for record in raw.pax_extensions()?.into_iter().flatten() {
        let record = record?;
        if record.key_bytes().starts_with(b"GNU.sparse.") && (name.is_none() || record.key_bytes().ends_with(b".name"))
        {
            name = Some(String::from_utf8_lossy(record.value_bytes()).into_owned());
        }
    }
    Ok(name)
}

/// The meaning of a tar entry; none for the root itself and for devices, which no image of ours holds.
fn read_entry<R: Read>(raw: &tar::Entry<'_, R>) -> Result<Option<Entry>, BadPath> {
    let header = raw.header();
    let name = raw.path_bytes();
    if name.iter().all(|byte| matches!(byte, b'.' | b'/')) && !name.windows(2).any(|pair| pair == b"..") {
        return Ok(None);
    }
    let path = ImagePath::new(name.strip_prefix(b"/").unwrap_or(&name))?;
    let link = raw.link_name_bytes().unwrap_or_default().into_owned();
    let kind = match header.entry_type() {
        tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
            EntryKind::File { size: raw.size() }
        }
        tar::EntryType::Directory => EntryKind::Directory,
        tar::EntryType::Symlink => EntryKind::Symlink { target: link },
        tar::EntryType::Link => {
            EntryKind::Hardlink { target: ImagePath::new(link.strip_prefix(b"/").unwrap_or(&link))? }
        }
        _ => return Ok(None),
    };
    let mode = Mode((header.mode().unwrap_or(0o644) & 0o7777) as u16);
    let mtime = u32::try_from(header.mtime().unwrap_or(0)).unwrap_or(u32::MAX);
    Ok(Some(Entry { path, kind, mode, mtime }))
}

fn copy(content: &mut dyn Read, sink: &mut dyn EntrySink) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match content.read(&mut buffer)? {
            0 => return Ok(()),
            read => sink.data(&buffer[..read])?,
        }
    }
}
