//! Entries in image coordinates: the one form in which sources hand files to sinks.

use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

/// How the name of a file in a layer begins that says which file of the layers below is gone (OCI image-spec, layer.md,
/// "Whiteouts").
pub const WHITEOUT: &[u8] = b".wh.";

/// A path inside the image: relative to its root, `/`-separated bytes, with no empty, `.` or `..` part and no NUL.
///
/// Hostile archives end here: every path and every hard-link target of untrusted input passes through [`ImagePath::new`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ImagePath(#[serde(with = "bytes")] Box<[u8]>);

/// A path that could leave the image, or that no file can have.
#[derive(Debug, thiserror::Error)]
#[error("the path `{path}` {reason}")]
pub struct BadPath {
    /// The path as it stood in the archive, made printable.
    pub path: String,
    /// What is wrong with it, as the end of the sentence.
    pub reason: &'static str,
}

impl ImagePath {
    /// Checks and keeps a path. A leading `./` and trailing `/` are accepted and dropped, as tar archives carry them.
    pub fn new(path: impl AsRef<[u8]>) -> Result<Self, BadPath> {
        let raw = path.as_ref();
        let bad = |reason| BadPath { path: String::from_utf8_lossy(raw).escape_debug().to_string(), reason };
        if raw.starts_with(b"/") {
            return Err(bad("is absolute"));
        }
        if raw.contains(&0) {
            return Err(bad("holds a NUL byte"));
        }
        let mut kept = Vec::with_capacity(raw.len());
        for part in raw.split(|b| *b == b'/') {
            match part {
                b"" | b"." => continue,
                b".." => return Err(bad("leads out of its directory with `..`")),
                part if part.len() > 255 => return Err(bad("has a part of more than 255 bytes")),
                part => {
                    if !kept.is_empty() {
                        kept.push(b'/');
                    }
                    kept.extend_from_slice(part);
                }
            }
        }
        if kept.is_empty() {
            return Err(bad("is empty"));
        }
        if kept.len() > 4095 {
            return Err(bad("is longer than 4095 bytes"));
        }
        Ok(Self(kept.into()))
    }

    /// The path itself, if a layer can hold it: some names would remove others instead of being there.
    pub fn for_layer(self) -> Result<Self, BadPath> {
        if self.parts().any(|part| part.starts_with(WHITEOUT)) {
            let path = self.lossy().escape_debug().to_string();
            return Err(BadPath { path, reason: "has a part that begins with `.wh.`, by which layers remove files" });
        }
        Ok(self)
    }

    /// The bytes of the path.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path as text, with anything that is not UTF-8 replaced: for messages.
    pub fn lossy(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }

    /// The parts of the path, from the root down.
    pub fn parts(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|b| *b == b'/')
    }

    /// The directory that holds this entry; none for an entry of the root.
    pub fn parent(&self) -> Option<ImagePath> {
        let slash = self.0.iter().rposition(|b| *b == b'/')?;
        Some(Self(self.0[..slash].into()))
    }

    /// The last part.
    pub fn file_name(&self) -> &[u8] {
        self.parts().next_back().unwrap_or(&self.0)
    }

    /// `self/below`.
    pub fn join(&self, below: &ImagePath) -> ImagePath {
        Self([&self.0, b"/".as_slice(), &below.0].concat().into())
    }

    /// Whether this path is `directory` or lies below it.
    pub fn starts_with(&self, directory: &ImagePath) -> bool {
        self.0.strip_prefix(directory.as_bytes()).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    }
}

impl fmt::Display for ImagePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.lossy(), f)
    }
}

impl fmt::Debug for ImagePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.lossy(), f)
    }
}

impl std::str::FromStr for ImagePath {
    type Err = BadPath;

    fn from_str(text: &str) -> Result<Self, BadPath> {
        Self::new(text)
    }
}

/// Permission bits of an entry. Owner and group are 0 for everything in an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mode(pub u16);

impl Mode {
    /// A file that is read.
    pub const FILE: Self = Self(0o644);
    /// A file that is run, or a directory.
    pub const EXECUTABLE: Self = Self(0o755);
    /// What symbolic links carry; nothing reads it.
    pub const SYMLINK: Self = Self(0o777);

    /// The mode of a file of a conda package: archives carry the builder's umask and setuid bits, images carry neither.
    pub fn normalized(raw: u32) -> Self {
        if raw & 0o111 != 0 { Self::EXECUTABLE } else { Self::FILE }
    }
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A file; `size` bytes of content follow through [`EntrySink::data`].
    File {
        /// The length of the content in bytes.
        size: u64,
    },
    /// A directory. Parents that no entry names are made with mode 0755.
    Directory,
    /// A symbolic link; its target is data and may point anywhere. It is resolved only inside a root, never on the host.
    Symlink {
        /// The target as the link holds it.
        target: Vec<u8>,
    },
    /// Another name of a file that came earlier from the same source.
    Hardlink {
        /// The image path of that file.
        target: ImagePath,
    },
}

/// One file, directory or link of the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands in the image.
    pub path: ImagePath,
    /// What it is.
    pub kind: EntryKind,
    /// Its permission bits.
    pub mode: Mode,
    /// Seconds since 1970-01-01 UTC. Archives' times are kept: .pyc files hold the time of their source.
    pub mtime: u32,
}

/// Takes entries as they come out of a source. After a [`EntryKind::File`] exactly `size` bytes must follow.
///
/// It pushes: a file may be larger than memory, and two sinks can be fed from one decoder.
pub trait EntrySink {
    /// Begins the next entry.
    fn entry(&mut self, entry: &Entry) -> io::Result<()>;
    /// Takes the next bytes of the file begun last.
    fn data(&mut self, bytes: &[u8]) -> io::Result<()>;
}

/// Pushes a whole file whose content is in memory.
pub fn push_file(sink: &mut dyn EntrySink, path: ImagePath, mode: Mode, mtime: u32, content: &[u8]) -> io::Result<()> {
    sink.entry(&Entry { path, kind: EntryKind::File { size: content.len() as u64 }, mode, mtime })?;
    sink.data(content)
}

mod bytes {
    use serde::{Deserializer, Serializer, de};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Box<[u8]>, D::Error> {
        struct Bytes;
        impl de::Visitor<'_> for Bytes {
            type Value = Box<[u8]>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }
            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                Ok(bytes.into())
            }
        }
        deserializer.deserialize_bytes(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_a_layer_takes_for_a_whiteout_is_refused() {
        for path in ["a/.wh.b", ".wh..wh..opq", "a/.wh.b/c"] {
            let error = ImagePath::new(path).unwrap().for_layer().unwrap_err().to_string();
            assert!(error.contains(path) && error.contains("begins with `.wh.`"), "{error}");
        }
        for path in ["a/wh.b", "a.wh.b", ".whence"] {
            ImagePath::new(path).unwrap().for_layer().unwrap();
        }
    }

    #[test]
    fn a_path_that_could_leave_the_image_is_refused() {
        for bad in ["/etc/passwd", "../x", "a/../../x", "a/..", "..", "", ".", "./", "a\0b", &"x".repeat(256)] {
            assert!(ImagePath::new(bad).is_err(), "{bad:?}");
        }
        for (raw, kept) in [("./a/b", "a/b"), ("a//b/", "a/b"), ("a/./b", "a/b"), ("..a/b..", "..a/b..")] {
            assert_eq!(ImagePath::new(raw).unwrap().as_bytes(), kept.as_bytes());
        }
    }

    #[test]
    fn a_directory_does_not_hold_its_namesake() {
        let path = |text| ImagePath::new(text).unwrap();
        assert!(path("a/b").starts_with(&path("a")));
        assert!(!path("ab").starts_with(&path("a")));
        assert_eq!(path("a/b/c").parent(), Some(path("a/b")));
        assert_eq!(path("a").parent(), None);
        assert_eq!(path("a").join(&path("b/c")), path("a/b/c"));
    }
}
