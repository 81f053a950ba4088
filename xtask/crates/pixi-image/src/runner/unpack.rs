//! Entries of an image written below one directory, and never outside of it.
//!
//! Layers are applied as OCI image-spec, layer.md says: later ones replace, and whiteouts remove what came before.
//! Files belong to the user who unpacks; device nodes, owners, extended attributes and setuid bits are left out.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{self, AtFlags, Dir, FileType, Mode as Permissions, OFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::root::Root;
use crate::entry::{Entry, EntryKind, EntrySink, ImagePath, Mode};

/// An image of more unpacked bytes than this is refused as hostile.
const BYTES_LIMIT: u64 = 1 << 40;

/// Writes entries below a directory.
pub struct Unpacker<'r> {
    root: &'r Root,
    /// The directory that was used last: neighbours come together.
    parent: Option<(Vec<u8>, OwnedFd)>,
    file: Option<OpenFile>,
    /// The paths that the present layer has brought; whiteouts of the same layer do not touch them.
    brought: BTreeSet<Vec<u8>>,
    bytes: u64,
}

struct OpenFile {
    file: File,
    mode: Mode,
    mtime: u32,
    left: u64,
}

impl<'r> Unpacker<'r> {
    /// Unpacks below `root`, which should be empty.
    pub fn new(root: &'r Root) -> Self {
        Self { root, parent: None, file: None, brought: BTreeSet::new(), bytes: 0 }
    }

    /// Completes the last file and begins the next layer.
    pub fn end_layer(&mut self) -> io::Result<()> {
        self.brought.clear();
        self.end_file()
    }

    /// Removes what lower layers brought at `path` (a whiteout file `.wh.<name>`).
    pub fn white_out(&mut self, path: &ImagePath) -> io::Result<()> {
        self.end_file()?;
        let Some((parent, name)) = self.existing_parent(path)? else { return Ok(()) };
        self.remove_lower(&parent, name, path)
    }

    /// Removes what lower layers brought below the directory `path` (an opaque whiteout); none is the root.
    pub fn make_opaque(&mut self, path: Option<&ImagePath>) -> io::Result<()> {
        self.end_file()?;
        let directory = match self.root.resolve(path.map_or(&b""[..], ImagePath::as_bytes)) {
            Err(error) if super::root::is_absent(&error) => return Ok(()),
            found => found?,
        };
        for name in names(&directory)? {
            let name = ImagePath::new(&name).map_err(invalid)?;
            let below = path.map_or(name.clone(), |path| path.join(&name));
            self.remove_lower(&directory, name.file_name(), &below)?;
        }
        Ok(())
    }

    fn existing_parent<'p>(&self, path: &'p ImagePath) -> io::Result<Option<(OwnedFd, &'p [u8])>> {
        let parent = path.parent();
        match self.root.resolve(parent.as_ref().map_or(&b""[..], ImagePath::as_bytes)) {
            Ok(directory) => Ok(Some((directory, path.file_name()))),
            Err(error) if super::root::is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes an entry, but for what the present layer brought at or below it.
    fn remove_lower(&mut self, parent: &OwnedFd, name: &[u8], path: &ImagePath) -> io::Result<()> {
        self.parent = None;
        let inside = [path.as_bytes(), b"/"].concat();
        let keeps = |brought: &Vec<u8>| brought.starts_with(&inside);
        if !self.brought.range(inside.clone()..).next().is_some_and(keeps) {
            let own = self.brought.contains(path.as_bytes());
            return if own { Ok(()) } else { remove(parent, OsStr::from_bytes(name)) };
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = match fs::openat(parent, OsStr::from_bytes(name), flags, Permissions::empty()) {
            Err(Errno::NOTDIR | Errno::LOOP) => return Ok(()), // a link of this layer, to where it put more
            opened => opened?,
        };
        for below in names(&directory)? {
            let below = ImagePath::new(&below).map_err(invalid)?;
            self.remove_lower(&directory, below.file_name(), &path.join(&below))?;
        }
        Ok(())
    }

    /// The directory that holds `path`, made if missing.
    fn parent(&mut self, path: &ImagePath) -> io::Result<&OwnedFd> {
        let raw = path.as_bytes();
        let parent = &raw[..raw.len() - path.file_name().len()];
        if self.parent.as_ref().is_none_or(|(known, _)| known != parent) {
            self.parent = Some((parent.to_vec(), self.root.make_directory(parent)?));
        }
        match &self.parent {
            Some((_, directory)) => Ok(directory),
            None => Err(Errno::NOENT.into()),
        }
    }

    fn make_directory(&mut self, path: &ImagePath, mode: Mode) -> io::Result<()> {
        let name = OsStr::from_bytes(path.file_name());
        let parent = self.parent(path)?;
        let known = fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW);
        if !known.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory) {
            remove(parent, name)?;
            fs::mkdirat(parent, name, Permissions::RWXU)?;
            self.parent = None;
        }
        // Whoever unpacks must be able to fill and to remove it.
        let mode = Permissions::from_raw_mode(u32::from(mode.0 & 0o1777) | 0o700);
        fs::chmodat(self.parent(path)?, name, mode, AtFlags::empty())?;
        Ok(())
    }

    fn begin_file(&mut self, entry: &Entry, size: u64) -> io::Result<()> {
        self.bytes = self.bytes.saturating_add(size);
        if self.bytes > BYTES_LIMIT {
            return Err(io::Error::other(format!("the image unpacks to more than {BYTES_LIMIT} bytes")));
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let owner = Permissions::RUSR | Permissions::WUSR;
        let file = File::from(fs::openat(self.vacate(&entry.path)?, name(entry), flags, owner)?);
        self.file = Some(OpenFile { file, mode: entry.mode, mtime: entry.mtime, left: size });
        Ok(())
    }

    /// Removes what stands at `path` and gives the directory that holds it.
    fn vacate(&mut self, path: &ImagePath) -> io::Result<&OwnedFd> {
        let name = OsStr::from_bytes(path.file_name());
        if remove_if_there(self.parent(path)?, name)? {
            self.parent = None; // what was removed may have been a link on the way to it
        }
        self.parent(path)
    }

    fn end_file(&mut self) -> io::Result<()> {
        let Some(open) = self.file.take() else { return Ok(()) };
        if open.left > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("{} bytes are missing", open.left)));
        }
        // Its owner is now the one who runs it and must be able to read it.
        fs::fchmod(&open.file, Permissions::from_raw_mode(u32::from(open.mode.0 & 0o777) | 0o400))?;
        // Python takes a .pyc for stale when its source has another time.
        let time = Timespec { tv_sec: open.mtime.into(), tv_nsec: 0 };
        fs::futimens(&open.file, &Timestamps { last_access: time, last_modification: time })?;
        Ok(())
    }
}

impl EntrySink for Unpacker<'_> {
    fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        self.end_file()?;
        match &entry.kind {
            EntryKind::Directory => self.make_directory(&entry.path, entry.mode)?,
            EntryKind::File { size } => self.begin_file(entry, *size)?,
            EntryKind::Symlink { target } => {
                let target = OsStr::from_bytes(target);
                fs::symlinkat(target, self.vacate(&entry.path)?, name(entry))?;
            }
            EntryKind::Hardlink { target } => {
                if *target == entry.path {
                    return Err(invalid("is a hard link to itself"));
                }
                let missing = || invalid(format!("is a hard link to {target}, which is not in the image"));
                let (source, from) = self.existing_parent(target)?.ok_or_else(missing)?;
                let directory = self.vacate(&entry.path)?;
                let linked = fs::linkat(&source, OsStr::from_bytes(from), directory, name(entry), AtFlags::empty());
                linked.map_err(|errno| if errno == Errno::NOENT { missing() } else { errno.into() })?;
            }
        }
        self.brought.insert(entry.path.as_bytes().to_vec());
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        let too_long = || invalid("holds more bytes than it says");
        let open = self.file.as_mut().ok_or_else(too_long)?;
        open.left = open.left.checked_sub(bytes.len() as u64).ok_or_else(too_long)?;
        open.file.write_all(bytes)
    }
}

/// What could not be unpacked: an entry and the reason.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub struct EntryError {
    /// The entry's path as the layer holds it, made printable; or a word for the layer as a whole.
    pub path: String,
    /// What is wrong.
    pub source: io::Error,
}

/// Applies one layer: a tar stream, read to its very end so that its digest is checked.
pub fn apply_layer(unpacker: &mut Unpacker<'_>, mut stream: impl Read) -> Result<(), EntryError> {
    let whole = |source| EntryError { path: "the layer's tar stream".into(), source };
    let mut archive = tar::Archive::new(&mut stream);
    for member in archive.entries().map_err(whole)? {
        let mut member = member.map_err(whole)?;
        let raw = member.path_bytes().into_owned();
        apply(unpacker, &mut member, &raw)
            .map_err(|source| EntryError { path: raw.escape_ascii().to_string(), source })?;
    }
    unpacker.end_layer().map_err(whole)?;
    io::copy(&mut stream, &mut io::sink()).map_err(whole)?;
    Ok(())
}

fn apply(unpacker: &mut Unpacker<'_>, member: &mut tar::Entry<'_, impl Read>, raw: &[u8]) -> io::Result<()> {
    use tar::EntryType;
    if !raw.is_empty() && raw.split(|byte| *byte == b'/').all(|part| part.is_empty() || part == b".") {
        return Ok(()); // the root itself
    }
    let path = ImagePath::new(raw).map_err(invalid)?;
    if let Some(hidden) = path.file_name().strip_prefix(b".wh.") {
        return match hidden {
            b".wh..opq" => unpacker.make_opaque(path.parent().as_ref()),
            hidden if hidden.starts_with(b".wh.") => Ok(()), // bookkeeping of aufs
            hidden => {
                let hidden = ImagePath::new(hidden).map_err(invalid)?;
                unpacker.white_out(&path.parent().map_or(hidden.clone(), |parent| parent.join(&hidden)))
            }
        };
    }
    let link = || {
        let target = member.link_name_bytes().ok_or_else(|| invalid("is a link without a target"))?;
        Ok::<_, io::Error>(target.into_owned())
    };
    let kind = match member.header().entry_type() {
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => EntryKind::File { size: member.size() },
        EntryType::Directory => EntryKind::Directory,
        EntryType::Symlink => EntryKind::Symlink { target: link()? },
        EntryType::Link => EntryKind::Hardlink { target: ImagePath::new(link()?).map_err(invalid)? },
        _ => return Ok(()), // device nodes and pipes cannot be made, headers of pax mean nothing here
    };
    let mode = Mode((member.header().mode()? & 0o7777) as u16);
    let mtime = u32::try_from(member.header().mtime()?).unwrap_or(u32::MAX);
    let is_file = matches!(kind, EntryKind::File { .. });
    unpacker.entry(&Entry { path, kind, mode, mtime })?;
    if is_file {
        copy(member, unpacker)?;
    }
    Ok(())
}

/// Pushes the content of a file into a sink.
pub fn copy(from: &mut impl Read, to: &mut impl EntrySink) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 17];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => to.data(&buffer[..read])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn name(entry: &Entry) -> &OsStr {
    OsStr::from_bytes(entry.path.file_name())
}

fn invalid(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

fn names(directory: &OwnedFd) -> io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(fs::openat(directory, ".", OFlags::RDONLY | OFlags::CLOEXEC, Permissions::empty())?)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    Ok(names)
}

fn remove_if_there(parent: &OwnedFd, name: &OsStr) -> io::Result<bool> {
    match fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno.into()),
        Ok(_) => remove(parent, name).map(|()| true),
    }
}

/// Removes an entry with all that is below it; links are removed, not followed.
pub fn remove(parent: &OwnedFd, name: &OsStr) -> io::Result<()> {
    match fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(errno) => return Err(errno.into()),
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = fs::openat(parent, name, flags, Permissions::empty())?;
    for below in names(&directory)? {
        remove(&directory, OsStr::from_bytes(&below))?;
    }
    Ok(fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?)
}

#[cfg(test)]
mod tests;
