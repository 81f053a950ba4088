//! The base image: Debian packages unpacked into one layer, and what their installation scripts would have done.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use pixi_image::archive::{self, ArchiveError, BaseConfig};
use pixi_image::entry::{Entry, EntryKind, EntrySink, ImagePath, Mode, push_file};
use pixi_image::model::Digest;

use crate::deb;
use crate::recipes::{BASE_LEAVES_OUT, EPOCH};

/// The name and tag of the image.
pub const REFERENCE: &str = "rehearsal-base:trixie";
/// Directories of the root that are links into `/usr` (the merged /usr of Debian).
const MERGED: [&str; 4] = ["bin", "lib", "lib64", "sbin"];
/// Directories that engines mount over or that programs expect, and their modes.
const DIRECTORIES: [(&str, u16); 12] = [
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("proc", 0o755),
    ("root", 0o700),
    ("run", 0o755),
    ("srv", 0o755),
    ("sys", 0o755),
    ("tmp", 0o1777),
    ("var/tmp", 0o1777),
];
/// Files that are read again after they were unpacked; each is at most this large, in bytes.
const KEPT_LIMIT: u64 = 1 << 20;

/// Writes the image of the .deb files (name and file of each) as an OCI archive and returns its manifest's digest.
pub fn write(place: &Path, debs: &[(&str, PathBuf)]) -> Result<Digest, ArchiveError> {
    let config = BaseConfig {
        env: vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()],
        cmd: vec!["bash".to_owned()],
        labels: BTreeMap::from([("rehearsal".to_owned(), "true".to_owned())]),
        architecture: crate::index::ARCHITECTURE.to_owned(),
        created: EPOCH.into(),
    };
    archive::single_layer(place, REFERENCE, &config, &mut |sink| fill(sink, debs))
}

/// Pushes the entries of the root file system.
fn fill(sink: &mut dyn EntrySink, debs: &[(&str, PathBuf)]) -> io::Result<()> {
    let mut rootfs = Rootfs { sink, seen: BTreeSet::new(), kept: BTreeMap::new() };
    // First, so that no package's own idea of these directories is taken.
    for directory in MERGED {
        rootfs.directory(&format!("usr/{directory}"), 0o755)?;
        rootfs.symlink(directory, &format!("usr/{directory}"))?;
    }
    for (directory, mode) in DIRECTORIES {
        rootfs.directory(directory, mode)?;
    }
    for (name, file) in debs {
        deb::read(name, file, &mut |entry, content| rootfs.unpack(entry, content)).map_err(io::Error::other)?;
    }
    rootfs.configure()
}

struct Rootfs<'a> {
    sink: &'a mut dyn EntrySink,
    seen: BTreeSet<ImagePath>,
    /// Files that the configuration is made of.
    kept: BTreeMap<String, Vec<u8>>,
}

impl Rootfs<'_> {
    fn unpack(&mut self, entry: &Entry, content: &mut dyn Read) -> io::Result<()> {
        let Some(path) = merged(&entry.path)? else { return Ok(()) };
        let left_out = |directory: &&str| {
            path.as_bytes().strip_prefix(directory.as_bytes()).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
        };
        if BASE_LEAVES_OUT.iter().any(left_out) {
            return Ok(());
        }
        if !self.seen.insert(path.clone()) {
            return match entry.kind {
                EntryKind::Directory => Ok(()),
                _ => Err(io::Error::other(format!("{path} is shipped by two packages"))),
            };
        }
        let kind = match &entry.kind {
            EntryKind::Hardlink { target } => match merged(target)? {
                Some(target) => EntryKind::Hardlink { target },
                None => return Err(io::Error::other(format!("{path} is a hard link to a directory"))),
            },
            kind => kind.clone(),
        };
        let entry = Entry { path, kind, ..entry.clone() };
        self.sink.entry(&entry)?;
        match entry.kind {
            EntryKind::File { size } => self.content(&entry.path, size, content),
            _ => Ok(()),
        }
    }

    fn content(&mut self, path: &ImagePath, size: u64, content: &mut dyn Read) -> io::Result<()> {
        let path = path.lossy();
        let keep = path.starts_with("usr/share/base-passwd/") || path.starts_with("usr/share/ca-certificates/mozilla/");
        let mut kept = Vec::new();
        let mut buffer = vec![0; 128 << 10];
        let mut left = size;
        while left > 0 {
            let count = content.read(&mut buffer)?;
            if count == 0 || count as u64 > left {
                return Err(io::Error::other(format!("{path} does not have the {size} bytes that it should have")));
            }
            left -= count as u64;
            self.sink.data(&buffer[..count])?;
            if keep && size <= KEPT_LIMIT {
                kept.extend_from_slice(&buffer[..count]);
            }
        }
        if keep {
            self.kept.insert(path.into_owned(), kept);
        }
        Ok(())
    }

    /// What the installation scripts of the packages would have done.
    fn configure(&mut self) -> io::Result<()> {
        let master = |name: &str| format!("usr/share/base-passwd/{name}.master");
        let passwd = self.kept.remove(&master("passwd")).unwrap_or_default();
        let passwd = String::from_utf8_lossy(&passwd).replace("root:*:", "root:x:");
        self.file("etc/passwd", passwd.as_bytes())?;
        let group = self.kept.remove(&master("group")).unwrap_or_default();
        self.file("etc/group", &group)?;
        self.file("etc/nsswitch.conf", b"passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n")?;
        let certificates: Vec<u8> = self
            .kept
            .iter()
            .filter(|(path, _)| path.ends_with(".crt"))
            .flat_map(|(_, certificate)| certificate.iter().copied())
            .collect();
        self.file("etc/ssl/certs/ca-certificates.crt", &certificates)?;
        // OpenSSL looks here; the links are in the package of its command line, which nothing else needs.
        self.symlink("usr/lib/ssl/certs", "/etc/ssl/certs")?;
        self.symlink("usr/lib/ssl/cert.pem", "/etc/ssl/certs/ca-certificates.crt")?;
        // Engines mount over these; where they cannot make files, they must be there.
        for empty in ["etc/hosts", "etc/hostname", "etc/localtime", "etc/resolv.conf"] {
            self.file(empty, b"")?;
        }
        self.symlink("usr/bin/awk", "mawk")?;
        self.symlink("usr/bin/sh", "dash")
    }

    /// Pushes a file that no package ships.
    fn file(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        let path = ImagePath::new(path).map_err(io::Error::other)?;
        if !self.seen.insert(path.clone()) {
            return Ok(());
        }
        push_file(self.sink, path, Mode::FILE, EPOCH, content)
    }

    fn directory(&mut self, path: &str, mode: u16) -> io::Result<()> {
        self.entry(path, EntryKind::Directory, Mode(mode))
    }

    fn symlink(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.entry(path, EntryKind::Symlink { target: target.into() }, Mode::SYMLINK)
    }

    fn entry(&mut self, path: &str, kind: EntryKind, mode: Mode) -> io::Result<()> {
        let path = ImagePath::new(path).map_err(io::Error::other)?;
        if !self.seen.insert(path.clone()) {
            return Ok(());
        }
        self.sink.entry(&Entry { path, kind, mode, mtime: EPOCH })
    }
}

/// A path with its first directory resolved through the links of the root; none for those links themselves.
fn merged(path: &ImagePath) -> io::Result<Option<ImagePath>> {
    let mut parts = path.parts();
    let in_usr = parts.next().is_some_and(|first| MERGED.iter().any(|directory| directory.as_bytes() == first));
    match (in_usr, parts.next()) {
        (false, _) => Ok(Some(path.clone())),
        (true, None) => Ok(None),
        (true, Some(_)) => ImagePath::new([b"usr/", path.as_bytes()].concat()).map(Some).map_err(io::Error::other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deb::tests::{ar, tar_of};

    #[derive(Debug, Default)]
    struct Listing(Vec<(Entry, Vec<u8>)>);

    impl EntrySink for Listing {
        fn entry(&mut self, entry: &Entry) -> io::Result<()> {
            self.0.push((entry.clone(), Vec::new()));
            Ok(())
        }
        fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
            self.0.last_mut().unwrap().1.extend_from_slice(bytes);
            Ok(())
        }
    }

    fn filled(files: &[(&str, &[u8])]) -> io::Result<Listing> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.deb");
        std::fs::write(&file, ar(&[("debian-binary", b"2.0\n"), ("data.tar", &tar_of(files))])).unwrap();
        let mut listing = Listing::default();
        fill(&mut listing, &[("demo", file)])?;
        Ok(listing)
    }

    impl Listing {
        fn get(&self, path: &str) -> Option<&(Entry, Vec<u8>)> {
            self.0.iter().find(|(entry, _)| entry.path.lossy() == path)
        }
    }

    #[test]
    fn the_root_has_merged_directories_and_what_installation_scripts_make() {
        let listing = filled(&[
            ("./bin/bash", b"elf"),
            ("./usr/share/doc/bash/copyright", b"text"),
            ("./usr/share/base-passwd/passwd.master", b"root:*:0:0:root:/root:/bin/bash\n"),
            ("./usr/share/base-passwd/group.master", b"root:*:0:\n"),
            ("./usr/share/ca-certificates/mozilla/B.crt", b"B\n"),
            ("./usr/share/ca-certificates/mozilla/A.crt", b"A\n"),
            ("./etc/hosts", b"shipped\n"),
        ])
        .unwrap();
        assert_eq!(listing.get("usr/bin/bash").unwrap().1, b"elf");
        assert_eq!(listing.get("bin").unwrap().0.kind, EntryKind::Symlink { target: b"usr/bin".to_vec() });
        assert_eq!(listing.get("bin/bash"), None);
        assert_eq!(listing.get("usr/share/doc/bash/copyright"), None);
        assert_eq!(listing.get("etc/passwd").unwrap().1, b"root:x:0:0:root:/root:/bin/bash\n");
        assert_eq!(listing.get("etc/ssl/certs/ca-certificates.crt").unwrap().1, b"A\nB\n");
        assert_eq!(listing.get("etc/hosts").unwrap().1, b"shipped\n");
        assert_eq!(listing.get("tmp").unwrap().0.mode, Mode(0o1777));
        let mut paths: Vec<_> = listing.0.iter().map(|(entry, _)| &entry.path).collect();
        paths.sort();
        assert!(paths.windows(2).all(|pair| pair[0] != pair[1]), "a path comes twice");
    }

    #[test]
    fn a_file_of_two_packages_is_an_error() {
        let error = filled(&[("./bin/x", b"1"), ("./usr/bin/x", b"2")]).unwrap_err();
        assert!(error.to_string().contains("usr/bin/x is shipped by two packages"), "{error}");
    }
}
