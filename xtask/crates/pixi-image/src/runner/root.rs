//! Paths resolved beneath one directory, the way a process whose root it is would resolve them.
//!
//! Symbolic links of an image are data of strangers: an absolute one begins again at the image's root, and no number of
//! `..` leads above it. The kernel's `openat2(RESOLVE_IN_ROOT)` says the same, but needs Linux 5.6 and a permissive
//! seccomp filter; nothing else changes these trees while they are walked, so walking by hand is as safe.

use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

/// How many symbolic links one path may lead through, as in the kernel.
const LINKS: usize = 40;
const PATH: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A directory that stands for `/`.
pub struct Root {
    fd: OwnedFd,
    /// The file systems in which things may be made.
    devices: Vec<u64>,
}

impl Root {
    /// Opens the directory at `path`.
    pub fn open(path: &Path) -> io::Result<Self> {
        let fd = fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let devices = vec![fs::fstat(&fd)?.st_dev];
        Ok(Self { fd, devices })
    }

    /// Lets things be made, too, in the file system that is mounted at `path`.
    pub fn adopt(&mut self, path: impl AsRef<[u8]>) -> io::Result<()> {
        let device = fs::fstat(self.resolve(path)?)?.st_dev;
        self.devices.push(device);
        Ok(())
    }

    /// Opens what stands at `path` (as `O_PATH`), with every link followed, the last one too.
    pub fn resolve(&self, path: impl AsRef<[u8]>) -> io::Result<OwnedFd> {
        self.walk(path.as_ref(), false)
    }

    /// The directory at `path`; what is missing of it is made, with mode 0755. Nothing is made in other file systems that
    /// are mounted beneath the root: those are the host's.
    pub fn make_directory(&self, path: impl AsRef<[u8]>) -> io::Result<OwnedFd> {
        let found = self.walk(path.as_ref(), true)?;
        match FileType::from_raw_mode(fs::fstat(&found)?.st_mode) {
            FileType::Directory => Ok(found),
            _ => Err(Errno::NOTDIR.into()),
        }
    }

    /// The directory that holds the last part of `path`, made if missing, and that part.
    pub fn make_parent<'p>(&self, path: &'p [u8]) -> io::Result<(OwnedFd, &'p OsStr)> {
        let (parent, name) = split(path);
        Ok((self.make_directory(parent)?, name))
    }

    /// What stands at `path`, a place to mount a file on. If nothing does, an empty file is made there; if a link does,
    /// it is replaced by one when `replace` is set, so that its target stays as the image has it.
    pub fn make_file(&self, path: &[u8], replace: bool) -> io::Result<OwnedFd> {
        let is_link = match self.stat(path)? {
            Some(stat) => FileType::from_raw_mode(stat.st_mode) == FileType::Symlink,
            None => false,
        };
        match self.resolve(path) {
            Ok(found) if !(is_link && replace) => return Ok(found),
            Err(error) if !is_absent(&error) => return Err(error),
            _ => {}
        }
        let (parent, name) = self.make_parent(path)?;
        self.check_is_ours(&parent, name)?;
        if is_link && replace {
            fs::unlinkat(&parent, name, AtFlags::empty())?;
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        fs::openat(&parent, name, flags, Mode::from_raw_mode(0o644))?;
        Ok(fs::openat(&parent, name, PATH, Mode::empty())?)
    }

    /// Makes a symbolic link at `path` unless something stands there already.
    pub fn make_link(&self, path: &[u8], target: &[u8]) -> io::Result<()> {
        let (parent, name) = self.make_parent(path)?;
        self.check_is_ours(&parent, name)?;
        match fs::symlinkat(OsStr::from_bytes(target), &parent, name) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// What stands at `path`, its last part not followed; none when there is nothing.
    pub fn stat(&self, path: impl AsRef<[u8]>) -> io::Result<Option<Stat>> {
        let (parent, name) = split(path.as_ref());
        let found = self.resolve(parent).and_then(|parent| Ok(fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?));
        match found {
            Ok(stat) => Ok(Some(stat)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether a regular file, reached through links or not, stands at `path`.
    pub fn has_file(&self, path: impl AsRef<[u8]>) -> bool {
        let stat = self.resolve(path).and_then(|found| Ok(fs::fstat(found)?));
        stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile)
    }

    /// The whole file at `path`, refused above `limit` bytes.
    pub fn read(&self, path: impl AsRef<[u8]>, limit: u64) -> io::Result<Vec<u8>> {
        use io::Read;
        let found = self.resolve(path)?;
        if FileType::from_raw_mode(fs::fstat(&found)?.st_mode) != FileType::RegularFile {
            return Err(io::Error::other("is not a regular file"));
        }
        let mut bytes = Vec::new();
        std::fs::File::open(by_descriptor(&found))?.take(limit + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > limit {
            return Err(io::Error::other(format!("is larger than {limit} bytes")));
        }
        Ok(bytes)
    }

    /// The names of what is in the directory at `path`, in no order.
    pub fn names(&self, path: impl AsRef<[u8]>) -> io::Result<Vec<OsString>> {
        let found = self.resolve(path)?;
        std::fs::read_dir(by_descriptor(&found))?.map(|entry| Ok(entry?.file_name())).collect()
    }

    fn walk(&self, path: &[u8], make: bool) -> io::Result<OwnedFd> {
        let mut todo: Vec<Vec<u8>> = reversed_parts(path).collect();
        let mut trail: Vec<OwnedFd> = Vec::new();
        let mut links = 0;
        while let Some(part) = todo.pop() {
            match part.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    trail.pop();
                    continue;
                }
                _ => {}
            }
            let here = trail.last().unwrap_or(&self.fd);
            let name = OsStr::from_bytes(&part);
            let found = match fs::openat(here, name, PATH, Mode::empty()) {
                Err(Errno::NOENT) if make => self.make(here, name)?,
                found => found?,
            };
            match FileType::from_raw_mode(fs::fstat(&found)?.st_mode) {
                FileType::Directory => trail.push(found),
                FileType::Symlink => {
                    links += 1;
                    if links > LINKS {
                        return Err(Errno::LOOP.into());
                    }
                    let target: CString = fs::readlinkat(&found, "", Vec::new())?;
                    if target.as_bytes().starts_with(b"/") {
                        trail.clear();
                    }
                    todo.extend(reversed_parts(target.as_bytes()));
                }
                _ if todo.iter().all(|part| part.is_empty()) => return Ok(found),
                _ => return Err(Errno::NOTDIR.into()),
            }
        }
        match trail.pop() {
            Some(found) => Ok(found),
            None => self.fd.try_clone(),
        }
    }

    fn make(&self, here: &OwnedFd, name: &OsStr) -> io::Result<OwnedFd> {
        self.check_is_ours(here, name)?;
        fs::mkdirat(here, name, Mode::from_raw_mode(0o755))?;
        fs::chmodat(here, name, Mode::from_raw_mode(0o755), AtFlags::empty())?; // whatever the umask is
        Ok(fs::openat(here, name, PATH, Mode::empty())?)
    }

    /// Refuses to make anything in a directory of the host that is mounted below the root.
    fn check_is_ours(&self, directory: &OwnedFd, name: &OsStr) -> io::Result<()> {
        if self.devices.contains(&fs::fstat(directory)?.st_dev) {
            return Ok(());
        }
        let reason =
            format!("{} does not exist in that directory of the host, and nothing is made there", name.display());
        Err(io::Error::new(io::ErrorKind::NotFound, reason))
    }
}

/// Whether an error says that nothing stands at a path.
pub fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The path by which the kernel takes an open descriptor wherever it takes a path, as long as it is open.
pub fn by_descriptor(fd: &OwnedFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

fn split(path: &[u8]) -> (&[u8], &OsStr) {
    let end = path.iter().rposition(|b| *b != b'/').map_or(0, |last| last + 1);
    let path = &path[..end];
    match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => (&path[..slash], OsStr::from_bytes(&path[slash + 1..])),
        None => (b"", OsStr::from_bytes(path)),
    }
}

fn reversed_parts(path: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    path.split(|b| *b == b'/').rev().map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn links_resolve_inside_the_root_as_if_it_were_slash() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("root");
        std::fs::create_dir_all(top.join("etc/real")).unwrap();
        std::fs::write(top.join("etc/real/file"), "inside").unwrap();
        std::fs::write(dir.path().join("file"), "outside").unwrap();
        symlink("/etc/real", top.join("absolute")).unwrap();
        symlink("../../../../etc/real", top.join("etc/climbs")).unwrap();
        symlink("loop", top.join("loop")).unwrap();
        let root = Root::open(&top).unwrap();
        for path in ["absolute/file", "/etc/climbs/file", "../../etc/real/../real/file", "etc//real/./file"] {
            assert_eq!(root.read(path, 100).unwrap(), b"inside", "{path}");
        }
        assert!(root.read("../file", 100).is_err());
        assert!(root.resolve("loop").is_err());
        assert!(root.resolve("etc/real/file/below").is_err());
        assert!(root.read("etc/real/file", 3).unwrap_err().to_string().contains("larger"));
        assert!(root.stat("loop").unwrap().is_some());
        assert!(root.stat("nothing/here").unwrap().is_none());
    }

    #[test]
    fn missing_directories_are_made_where_links_lead_inside_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("root");
        std::fs::create_dir(&top).unwrap();
        symlink("../../escape", top.join("data")).unwrap();
        let root = Root::open(&top).unwrap();
        root.make_directory("data/deep").unwrap();
        assert!(top.join("escape/deep").is_dir());
        assert!(!dir.path().join("escape").exists());
    }
}
