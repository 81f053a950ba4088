//! The cache: packages, packs, unpacked bases and what is known of layers, shared by all workspaces of a user.
//!
//! Every entry is named by a digest of all that it depends on and appears only when it is whole, so nothing in it has to
//! be locked or can be stale.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::model::Digest;
use crate::publish::{self, PublishError, Publisher};

/// The root of a cache.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
    publisher: Arc<Publisher>,
}

impl Store {
    /// The cache at `root`.
    pub fn at(root: PathBuf) -> Self {
        Self { root, publisher: Arc::default() }
    }

    /// The user's own: `$PIXI_IMAGE_CACHE`, else `pixi-image` in `$XDG_CACHE_HOME` or `~/.cache`; none if there is no home.
    pub fn of_user() -> Option<Self> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let root = variable("PIXI_IMAGE_CACHE")
            .or_else(|| variable("XDG_CACHE_HOME").map(|cache| cache.join("pixi-image")))
            .or_else(|| variable("HOME").map(|home| home.join(".cache/pixi-image")))?;
        Some(Self::at(root))
    }

    /// The directory that holds everything.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where a pack stands.
    pub fn pack(&self, key: &Digest) -> PathBuf {
        self.root.join("packs").join(format!("{}.pack", key.hex()))
    }

    /// What makes packs visible; a build is done when it has finished.
    pub fn publisher(&self) -> &Publisher {
        &self.publisher
    }

    /// For files that live only as long as one build.
    pub fn temporary(&self) -> PathBuf {
        self.root.join("tmp")
    }

    /// Reads a note; none if there is none, if it is damaged, or not readable as what is wanted: it is then made anew.
    pub fn note<T: DeserializeOwned>(&self, kind: &str, key: &Digest) -> Option<T> {
        let bytes = std::fs::read(self.note_path(kind, key)).ok()?;
        let (note, check) = bytes.split_last_chunk()?;
        (libdeflater::crc32(note) == u32::from_le_bytes(*check)).then(|| rmp_serde::from_slice(note).ok()).flatten()
    }

    /// Keeps a note: something small that can be worked out again.
    pub fn keep_note(&self, kind: &str, key: &Digest, note: &impl Serialize) -> Result<(), PublishError> {
        let path = self.note_path(kind, key);
        let mut bytes = rmp_serde::to_vec_named(note)
            .map_err(|error| PublishError { path: path.clone(), source: std::io::Error::other(error) })?;
        bytes.extend(libdeflater::crc32(&bytes).to_le_bytes());
        publish::write_unsynced(&path, &bytes, 0o644)
    }

    fn note_path(&self, kind: &str, key: &Digest) -> PathBuf {
        self.root.join(kind).join(key.hex())
    }
}
