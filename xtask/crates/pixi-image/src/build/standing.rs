//! Results that stand where they are wanted already: what would be written again, byte for byte, is left as it is.
//!
//! A note in the cache says of what a result was made and how its file looked when it was published. Like git's index it
//! takes a file of the same inode, size and times for the same file; to compare bytes there is `verify`.

use std::fs::Metadata;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Artifact, Format};
use crate::model::Digest;
use crate::store::Store;

/// Where the cache keeps these notes.
const KIND: &str = "results";

/// What was published.
#[derive(Serialize, Deserialize)]
struct Published {
    /// Of all that its bytes depend on.
    identity: Digest,
    id: String,
    file: Stamp,
}

/// What changes with every way to replace or change a file.
#[derive(PartialEq, Serialize, Deserialize)]
struct Stamp {
    size: u64,
    /// Seconds and nanoseconds of the last change of its content, and of the file itself.
    times: [(i64, i64); 2],
    /// Its device and inode.
    place: (u64, u64),
}

/// The result at `path`, if it is what `identity` would lead to.
pub fn find(store: &Store, format: Format, path: &Path, identity: &Digest) -> Option<Artifact> {
    let published: Published = store.note(KIND, &key(format, path)?)?;
    let file = Stamp::of(path)?;
    let same = published.identity == *identity && published.file == file;
    same.then(|| Artifact { format, path: path.to_owned(), id: published.id, size: file.size })
}

/// Notes what was published this moment.
pub fn note(store: &Store, artifact: &Artifact, identity: Digest) {
    let (Some(key), Some(file)) = (key(artifact.format, &artifact.path), Stamp::of(&artifact.path)) else { return };
    // Without a note the result is only written once more.
    let _ = store.keep_note(KIND, &key, &Published { identity, id: artifact.id.clone(), file });
}

fn key(format: Format, path: &Path) -> Option<Digest> {
    let path = std::path::absolute(path).ok()?;
    Some(Digest::of(&[format!("{format:?} ").as_bytes(), path.as_os_str().as_encoded_bytes()].concat()))
}

impl Stamp {
    /// Of a file; links are not followed.
    fn of(path: &Path) -> Option<Self> {
        let metadata = std::fs::symlink_metadata(path).ok()?;
        metadata.is_file().then(|| Self::from(&metadata))
    }
}

#[cfg(unix)]
impl From<&Metadata> for Stamp {
    fn from(file: &Metadata) -> Self {
        use std::os::unix::fs::MetadataExt;
        Self {
            size: file.len(),
            times: [(file.mtime(), file.mtime_nsec()), (file.ctime(), file.ctime_nsec())],
            place: (file.dev(), file.ino()),
        }
    }
}

#[cfg(not(unix))]
impl From<&Metadata> for Stamp {
    fn from(file: &Metadata) -> Self {
        let time = |time: std::io::Result<std::time::SystemTime>| {
            let since = time.ok().and_then(|time| time.duration_since(std::time::UNIX_EPOCH).ok()).unwrap_or_default();
            (since.as_secs() as i64, i64::from(since.subsec_nanos()))
        };
        Self { size: file.len(), times: [time(file.modified()), time(file.created())], place: (0, 0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_stands_until_it_is_touched_or_something_else_is_wanted() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::at(directory.path().join("cache"));
        let path = directory.path().join("image.sif");
        let (identity, other) = (Digest::of(b"this"), Digest::of(b"that"));
        let artifact = Artifact { format: Format::Sif, path: path.clone(), id: "uuid:1".into(), size: 4 };
        std::fs::write(&path, b"file").unwrap();
        assert!(find(&store, Format::Sif, &path, &identity).is_none());
        note(&store, &artifact, identity);
        let found = find(&store, Format::Sif, &path, &identity).unwrap();
        assert_eq!((found.id, found.size, found.path), (artifact.id, 4, path.clone()));
        assert!(find(&store, Format::Sif, &path, &other).is_none());
        assert!(find(&store, Format::Oci, &path, &identity).is_none());
        // The same bytes in another file: that it has them is not known.
        std::fs::copy(&path, directory.path().join("copy")).unwrap();
        std::fs::rename(directory.path().join("copy"), &path).unwrap();
        assert!(find(&store, Format::Sif, &path, &identity).is_none());
        std::fs::remove_file(&path).unwrap();
        assert!(find(&store, Format::Sif, &path, &identity).is_none());
    }
}
