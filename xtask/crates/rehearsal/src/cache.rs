//! Downloads that were verified, kept by their sha256, and the newest signed index.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use pixi_image::model::Digest;
use pixi_image::publish::{self, Pending, PublishError};
use sha2::Digest as _;

/// The directory that keeps downloads; two processes may use it at once, as entries appear whole.
#[derive(Clone, Debug)]
pub struct Cache {
    directory: PathBuf,
}

/// Where the cache lies when no place is named: below `XDG_CACHE_HOME`, else below the home directory's `.cache`.
pub fn default_directory(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    // The XDG specification says that relative paths must be ignored.
    let caches = variable("XDG_CACHE_HOME").filter(|path| path.is_absolute());
    let caches = caches.or_else(|| variable("HOME").filter(|path| path.is_absolute()).map(|home| home.join(".cache")));
    caches.map(|caches| caches.join("pixi-image/debian"))
}

impl Cache {
    /// The cache in `directory`, which is made when something is kept.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: directory.into() }
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn place(&self, digest: &Digest) -> PathBuf {
        self.directory.join("sha256").join(digest.hex())
    }

    fn index_place(&self, suite: &str) -> PathBuf {
        self.directory.join(suite).join("InRelease")
    }

    /// The entry with that digest and size. It is hashed again, and one that was damaged on the disk is removed.
    pub fn find(&self, digest: &Digest, size: u64) -> Option<PathBuf> {
        let place = self.place(digest);
        let file = File::open(&place).ok()?;
        if file.metadata().is_ok_and(|metadata| metadata.len() == size) && hash(file).ok().as_ref() == Some(digest) {
            return Some(place);
        }
        // Nothing to lose: if it cannot be removed, the download that follows replaces it.
        let _ = std::fs::remove_file(&place);
        None
    }

    /// Begins an entry; the caller publishes it once its content has the digest.
    pub fn begin(&self, digest: &Digest) -> Result<(Pending, PathBuf), PublishError> {
        let place = self.place(digest);
        Ok((Pending::create(&place)?, place))
    }

    /// The InRelease of `suite` that was kept last.
    pub fn index(&self, suite: &str) -> Option<Vec<u8>> {
        std::fs::read(self.index_place(suite)).ok()
    }

    /// Keeps an InRelease whose signature was verified.
    pub fn keep_index(&self, suite: &str, in_release: &[u8]) -> Result<(), PublishError> {
        publish::write(&self.index_place(suite), in_release, 0o644)
    }
}

/// The sha256 of all that is left to read.
pub fn hash(mut reader: impl Read) -> io::Result<Digest> {
    let mut hasher = sha2::Sha256::new();
    let mut buffer = vec![0; 128 << 10];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(Digest(hasher.finalize().into())),
            count => hasher.update(&buffer[..count]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn an_entry_that_was_damaged_on_the_disk_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path());
        let digest = Digest::of(b"content");
        let (mut pending, place) = cache.begin(&digest).unwrap();
        pending.file().write_all(b"content").unwrap();
        pending.publish(0o644).unwrap();
        assert_eq!(cache.find(&digest, 7).as_deref(), Some(place.as_path()));
        std::fs::write(&place, b"CONTENT").unwrap();
        assert_eq!(cache.find(&digest, 7), None);
        assert!(!place.exists());
    }

    #[test]
    fn the_cache_lies_below_the_xdg_directory_or_the_home() {
        let with = |xdg: Option<&str>, home: Option<&str>| {
            default_directory(|name| if name == "HOME" { home } else { xdg }.map(PathBuf::from))
        };
        assert_eq!(with(Some("/c"), Some("/h")), Some(PathBuf::from("/c/pixi-image/debian")));
        assert_eq!(with(Some("relative"), Some("/h")), Some(PathBuf::from("/h/.cache/pixi-image/debian")));
        assert_eq!(with(None, None), None);
    }
}
