//! What a reader shows of an image, and how two of them differ.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use pixi_image::model::Digest;
use serde::{Deserialize, Serialize};
use sha2::Digest as _;

/// Each path below the root, and what stands there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing(pub BTreeMap<Vec<u8>, Seen>);

/// What stands at a path. What a reader cannot tell is none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub kind: Kind,
    pub mode: Option<u32>,
    pub mtime: Option<i64>,
    pub owner: Option<(u32, u32)>,
    /// The first of a file's names, and how many it has.
    pub names: Option<(Vec<u8>, u64)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    Directory,
    File(u64, Digest),
    Symlink(Vec<u8>),
    Other,
}

impl Listing {
    /// Everything below those of `tops` that are there, seen from the current directory: a path may be as long as the
    /// kernel lets it be.
    pub fn of_current_directory(tops: &[&str]) -> io::Result<Self> {
        let mut listing = Self::default();
        let mut first: HashMap<(u64, u64), Vec<u8>> = HashMap::new();
        let mut pending: Vec<PathBuf> = tops.iter().map(PathBuf::from).filter(|top| top.exists()).collect();
        while let Some(path) = pending.pop() {
            let metadata = fs::symlink_metadata(&path)?;
            let kind = if metadata.is_dir() {
                for entry in fs::read_dir(&path)? {
                    pending.push(path.join(entry?.file_name()));
                }
                Kind::Directory
            } else if metadata.is_symlink() {
                Kind::Symlink(fs::read_link(&path)?.into_os_string().into_encoded_bytes())
            } else if metadata.is_file() {
                let (size, digest) = digest(&mut File::open(&path)?)?;
                assert_eq!(size, metadata.len(), "{}", path.display());
                Kind::File(size, digest)
            } else {
                Kind::Other
            };
            let bytes = path.as_os_str().as_bytes().to_vec();
            if kind != Kind::Directory {
                let name = first.entry((metadata.dev(), metadata.ino())).or_insert_with(|| bytes.clone());
                if bytes < *name {
                    *name = bytes.clone();
                }
            }
            let seen = Seen {
                mode: (!metadata.is_symlink()).then_some(metadata.mode() & 0o7777),
                mtime: Some(metadata.mtime()),
                owner: Some((metadata.uid(), metadata.gid())),
                // The first name once all are known.
                names: (kind != Kind::Directory).then(|| (inode(&metadata), metadata.nlink())),
                kind,
            };
            listing.0.insert(bytes, seen);
        }
        let by_inode: HashMap<Vec<u8>, Vec<u8>> = first
            .into_iter()
            .map(|((dev, ino), name)| ([dev.to_le_bytes(), ino.to_le_bytes()].concat(), name))
            .collect();
        for seen in listing.0.values_mut() {
            if let Some((inode, _)) = &mut seen.names {
                *inode = by_inode[inode].clone();
            }
        }
        Ok(listing)
    }

    /// The same of a directory.
    pub fn of(directory: &Path, tops: &[&str]) -> anyhow::Result<Self> {
        Self::from_lister(super::lister(directory, tops))
    }

    /// What a process prints that was started by [`super::lister`], or in its stead.
    pub fn from_lister(mut command: std::process::Command) -> anyhow::Result<Self> {
        let output = command.output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "{command:?}: {}\n{said}", output.status);
        Ok(rmp_serde::from_slice(&output.stdout)?)
    }

    /// Counts the names that there are, for readers and trees in which a file has names elsewhere too.
    pub fn count_names(&mut self) {
        let mut count: HashMap<Vec<u8>, u64> = HashMap::new();
        for (first, _) in self.0.values().filter_map(|seen| seen.names.as_ref()) {
            *count.entry(first.clone()).or_default() += 1;
        }
        for (first, number) in self.0.values_mut().filter_map(|seen| seen.names.as_mut()) {
            *number = count[first];
        }
    }

    /// What differs in what both can tell, one line for each path.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let mut lines = Vec::new();
        let line = |path: &[u8], what: String| format!("{}: {what}", path.escape_ascii());
        for (path, seen) in &self.0 {
            match other.0.get(path) {
                None => lines.push(line(path, format!("is missing; expected {seen:?}"))),
                Some(found) => {
                    let differs = |name: &str, differs: bool| differs.then(|| name.to_owned());
                    let names = [
                        differs("kind or content", seen.kind != found.kind),
                        differs("mode", both(seen.mode, found.mode)),
                        differs("time", both(seen.mtime, found.mtime)),
                        differs("owner", both(seen.owner, found.owner)),
                        differs("names", both(seen.names.as_ref(), found.names.as_ref())),
                    ];
                    let names: Vec<String> = names.into_iter().flatten().collect();
                    if !names.is_empty() {
                        let what = format!("{} differ: expected {seen:?}\n    found {found:?}", names.join(", "));
                        lines.push(line(path, what));
                    }
                }
            }
        }
        let extra = other.0.iter().filter(|(path, _)| !self.0.contains_key(*path));
        lines.extend(extra.map(|(path, seen)| line(path, format!("was not expected: {seen:?}"))));
        lines
    }
}

fn inode(metadata: &fs::Metadata) -> Vec<u8> {
    [metadata.dev().to_le_bytes(), metadata.ino().to_le_bytes()].concat()
}

fn both<T: PartialEq>(one: Option<T>, other: Option<T>) -> bool {
    one.is_some() && other.is_some() && one != other
}

/// The length and digest of what is read.
pub fn digest(content: &mut dyn Read) -> io::Result<(u64, Digest)> {
    let (mut hasher, mut size, mut buffer) = (sha2::Sha256::new(), 0, vec![0; 1 << 18]);
    loop {
        match content.read(&mut buffer)? {
            0 => return Ok((size, Digest(hasher.finalize().into()))),
            read => {
                hasher.update(&buffer[..read]);
                size += read as u64;
            }
        }
    }
}

/// Text of bytes as a path.
pub fn path(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}
