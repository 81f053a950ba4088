//! Conda packages made on the spot, and a sink that keeps what is pushed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Cursor, Write};
use std::path::{Path, PathBuf};

use pixi_image::entry::{Entry, EntryKind, EntrySink, ImagePath, Mode};
use pixi_image::model::{CondaPackage, Digest};
use rattler_conda_types::compression_level::CompressionLevel;
use rattler_conda_types::package::FileMode;
use rattler_conda_types::{NoArchType, PackageRecord, RepoDataRecord, Version};
use rattler_package_streaming::write::{write_conda_package, write_tar_bz2_package};
use serde_json::json;

/// What a member of a package is.
#[derive(Clone)]
pub enum Content {
    File(Vec<u8>),
    Symlink(String),
    Hardlink(String),
    Directory,
}

/// A member of a package, and what its `paths.json` says about it.
#[derive(Clone)]
pub struct Member {
    pub path: String,
    pub content: Content,
    pub executable: bool,
    pub placeholder: Option<(String, FileMode)>,
    pub no_link: bool,
    pub mtime: u64,
}

impl Member {
    pub fn new(path: &str, content: Content) -> Self {
        let path = path.to_owned();
        Self { path, content, executable: false, placeholder: None, no_link: false, mtime: 1_700_000_000 }
    }

    pub fn file(path: &str, content: impl Into<Vec<u8>>) -> Self {
        Self::new(path, Content::File(content.into()))
    }

    pub fn executable(self) -> Self {
        Self { executable: true, ..self }
    }

    pub fn patched(self, placeholder: &str, mode: FileMode) -> Self {
        Self { placeholder: Some((placeholder.to_owned(), mode)), ..self }
    }

    pub fn no_link(self) -> Self {
        Self { no_link: true, ..self }
    }

    pub fn mtime(self, mtime: u64) -> Self {
        Self { mtime, ..self }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Conda,
    TarBz2,
}

impl Format {
    pub const ALL: [Self; 2] = [Self::Conda, Self::TarBz2];

    fn extension(self) -> &'static str {
        match self {
            Self::Conda => "conda",
            Self::TarBz2 => "tar.bz2",
        }
    }
}

/// A package to make.
#[derive(Clone)]
pub struct Package {
    pub name: String,
    pub version: String,
    pub noarch: Option<&'static str>,
    /// For what it is made, unless for all.
    pub subdir: &'static str,
    pub depends: Vec<String>,
    pub entry_points: Vec<&'static str>,
    pub members: Vec<Member>,
    /// `info/files` and friends instead of `info/paths.json`.
    pub legacy: bool,
    /// Whether `paths.json` holds digests and sizes.
    pub sums: bool,
    /// Written by hand instead of by rattler's writers, which know no hard links and one time only.
    pub by_hand: bool,
}

/// A package on the disk.
pub struct Built {
    pub archive: PathBuf,
    pub locked: CondaPackage,
}

impl Package {
    pub fn new(name: &str, members: impl Into<Vec<Member>>) -> Self {
        Self {
            name: name.to_owned(),
            version: "1.2.3".to_owned(),
            noarch: None,
            subdir: "linux-64",
            depends: Vec::new(),
            entry_points: Vec::new(),
            members: members.into(),
            legacy: false,
            sums: true,
            by_hand: false,
        }
    }

    pub fn version(self, version: &str) -> Self {
        Self { version: version.to_owned(), ..self }
    }

    pub fn noarch(self, kind: &'static str) -> Self {
        Self { noarch: Some(kind), ..self }
    }

    pub fn made_for(self, subdir: &'static str) -> Self {
        Self { subdir, ..self }
    }

    pub fn depends(self, names: &[&str]) -> Self {
        Self { depends: names.iter().map(|name| (*name).to_owned()).collect(), ..self }
    }

    pub fn entry_points(self, entry_points: &[&'static str]) -> Self {
        Self { entry_points: entry_points.to_vec(), ..self }
    }

    pub fn legacy(self) -> Self {
        Self { legacy: true, ..self }
    }

    pub fn without_sums(self) -> Self {
        Self { sums: false, ..self }
    }

    pub fn by_hand(self) -> Self {
        Self { by_hand: true, ..self }
    }

    /// Writes the archive into `directory`.
    pub fn write(&self, directory: &Path, format: Format) -> Built {
        let archive = directory.join(self.file_name(format));
        let bytes = if self.by_hand { self.bytes_by_hand(format) } else { self.bytes_by_rattler(format) };
        fs::write(&archive, &bytes).unwrap();
        Built { locked: self.locked(&archive, &bytes), archive }
    }

    pub fn file_name(&self, format: Format) -> String {
        format!("{}-{}-h0_0.{}", self.name, self.version, format.extension())
    }

    /// The package as a lock would describe it.
    pub fn locked(&self, archive: &Path, bytes: &[u8]) -> CondaPackage {
        let version: Version = self.version.parse().unwrap();
        let mut package_record = PackageRecord::new(self.name.parse().unwrap(), version, "h0_0".parse().unwrap());
        let sha256 = Digest::of(bytes);
        package_record.depends = self.depends.clone();
        package_record.sha256 = Some(sha256.0.into());
        package_record.size = Some(bytes.len() as u64);
        package_record.subdir = if self.noarch.is_some() { "noarch" } else { self.subdir }.to_owned();
        package_record.noarch = match self.noarch {
            Some("python") => NoArchType::python(),
            Some(_) => NoArchType::generic(),
            None => NoArchType::none(),
        };
        let record = RepoDataRecord {
            package_record,
            identifier: archive.file_name().unwrap().to_str().unwrap().parse().unwrap(),
            url: url::Url::from_file_path(archive).unwrap(),
            channel: Some("https://example.invalid/channel".to_owned()),
        };
        CondaPackage { record, sha256 }
    }

    /// The files of `info/`.
    pub fn info(&self) -> Vec<Member> {
        let mut index = json!({
            "name": self.name, "version": self.version, "build": "h0_0", "build_number": 0, "depends": self.depends,
            "subdir": if self.noarch.is_some() { "noarch" } else { self.subdir },
        });
        if let Some(noarch) = self.noarch {
            index["noarch"] = json!(noarch);
        }
        let mut info = vec![
            Member::file("info/about.json", json!({"summary": "made for a test"}).to_string()).mtime(1_710_000_000),
            Member::file("info/index.json", index.to_string()),
        ];
        if self.noarch == Some("python") {
            let link =
                json!({"noarch": {"type": "python", "entry_points": self.entry_points}, "package_metadata_version": 1});
            info.push(Member::file("info/link.json", link.to_string()));
        }
        if self.legacy {
            let list = |members: &mut dyn Iterator<Item = String>| members.map(|line| line + "\n").collect::<String>();
            let files = list(&mut self.members.iter().map(|member| member.path.clone()));
            let patched = |member: &Member| {
                let (text, mode) = member.placeholder.clone()?;
                let mode = if mode == FileMode::Text { "text" } else { "binary" };
                Some(format!("{text} {mode} {}", member.path))
            };
            info.push(Member::file("info/files", files));
            info.push(Member::file("info/has_prefix", list(&mut self.members.iter().filter_map(patched))));
            let no_link = self.members.iter().filter(|member| member.no_link).map(|member| member.path.clone());
            info.push(Member::file("info/no_link", list(&mut { no_link })));
        } else {
            let paths: Vec<_> = self.members.iter().map(|member| self.paths_entry(member)).collect();
            info.push(Member::file("info/paths.json", json!({"paths": paths, "paths_version": 1}).to_string()));
        }
        info
    }

    fn paths_entry(&self, member: &Member) -> serde_json::Value {
        let kind = match member.content {
            Content::File(_) | Content::Hardlink(_) => "hardlink",
            Content::Symlink(_) => "softlink",
            Content::Directory => "directory",
        };
        let mut entry = json!({"_path": member.path, "path_type": kind});
        let named = match &member.content {
            Content::Hardlink(target) => self.members.iter().find(|other| other.path == *target),
            _ => Some(member),
        };
        if let Some(Member { content: Content::File(content), .. }) = named.filter(|_| self.sums) {
            entry["sha256"] = json!(Digest::of(content).hex());
            entry["size_in_bytes"] = json!(content.len());
        }
        if let Some((text, mode)) = &member.placeholder {
            entry["prefix_placeholder"] = json!(text);
            entry["file_mode"] = json!(if *mode == FileMode::Text { "text" } else { "binary" });
        }
        if member.no_link {
            entry["no_link"] = json!(true);
        }
        entry
    }

    #[cfg(unix)]
    fn bytes_by_rattler(&self, format: Format) -> Vec<u8> {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let directory = tempfile::tempdir().unwrap();
        let mut paths = Vec::new();
        for member in self.info().iter().chain(&self.members) {
            let path = directory.path().join(&member.path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            match &member.content {
                Content::File(content) => {
                    fs::write(&path, content).unwrap();
                    let mode = if member.executable { 0o755 } else { 0o644 };
                    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
                }
                Content::Symlink(target) => symlink(target, &path).unwrap(),
                Content::Directory => fs::create_dir_all(&path).unwrap(),
                Content::Hardlink(_) => panic!("rattler's writers know no hard links: use by_hand"),
            }
            paths.push(path);
        }
        let mut bytes = Cursor::new(Vec::new());
        let (root, level) = (directory.path(), CompressionLevel::Lowest);
        match format {
            Format::Conda => {
                let name = format!("{}-{}-h0_0", self.name, self.version);
                write_conda_package(&mut bytes, root, &paths, level, Some(1), &name, None, None).unwrap();
            }
            Format::TarBz2 => write_tar_bz2_package(&mut bytes, root, &paths, level, None, None).unwrap(),
        }
        bytes.into_inner()
    }

    fn bytes_by_hand(&self, format: Format) -> Vec<u8> {
        match format {
            Format::Conda => conda(&[("info", tar_of(&self.info())), ("pkg", tar_of(&self.members))]),
            Format::TarBz2 => bz2(&tar_of(&[self.info(), self.members.clone()].concat())),
        }
    }
}

/// A tar archive with exactly these members.
pub fn tar_of(members: &[Member]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for member in members {
        append(&mut builder, member);
    }
    builder.into_inner().unwrap()
}

/// Appends a member with its path as it stands, also one that no honest writer lets through.
pub fn append(builder: &mut tar::Builder<Vec<u8>>, member: &Member) {
    let (kind, content, link) = match &member.content {
        Content::File(content) => (tar::EntryType::Regular, content.as_slice(), ""),
        Content::Symlink(target) => (tar::EntryType::Symlink, [].as_slice(), target.as_str()),
        Content::Hardlink(target) => (tar::EntryType::Link, [].as_slice(), target.as_str()),
        Content::Directory => (tar::EntryType::Directory, [].as_slice(), ""),
    };
    append_raw(builder, member, kind, content, link);
}

pub fn append_raw(
    builder: &mut tar::Builder<Vec<u8>>,
    member: &Member,
    kind: tar::EntryType,
    content: &[u8],
    link: &str,
) {
    for (kind, text) in
        [(tar::EntryType::GNULongLink, link.as_bytes()), (tar::EntryType::GNULongName, member.path.as_bytes())]
    {
        if text.len() > 100 {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(text.len() as u64);
            header.set_cksum();
            builder.append(&header, text).unwrap();
        }
    }
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(if member.executable { 0o4775 } else { 0o600 }); // a builder's umask, and more
    header.set_size(content.len() as u64);
    header.set_mtime(member.mtime);
    let gnu = header.as_gnu_mut().unwrap();
    for (field, text) in [(&mut gnu.name, member.path.as_bytes()), (&mut gnu.linkname, link.as_bytes())] {
        let length = text.len().min(field.len());
        field[..length].copy_from_slice(&text[..length]);
    }
    header.set_cksum();
    builder.append(&header, content).unwrap();
}

/// A .conda archive with these parts.
pub fn conda(parts: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    zip.start_file("metadata.json", options).unwrap();
    zip.write_all(br#"{"conda_pkg_format_version": 2}"#).unwrap();
    for (part, tar) in parts {
        zip.start_file(format!("{part}-made-by-hand.tar.zst"), options).unwrap();
        zip.write_all(&zstd::encode_all(tar.as_slice(), 1).unwrap()).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// A .tar.bz2 archive.
pub fn bz2(tar: &[u8]) -> Vec<u8> {
    let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    encoder.write_all(tar).unwrap();
    encoder.finish().unwrap()
}

/// A file or link that was pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    File { content: Vec<u8>, executable: bool, mtime: u32 },
    Symlink(Vec<u8>),
}

/// Keeps everything that is pushed, and refuses what no sink may get.
#[derive(Default)]
pub struct Tree {
    pub nodes: BTreeMap<ImagePath, Node>,
    pub directories: BTreeSet<ImagePath>,
    pub hardlinks: Vec<(ImagePath, ImagePath)>,
    pub entries: Vec<Entry>,
    open: Option<(ImagePath, u64)>,
}

impl Tree {
    /// Forgets the directories: each package pushes its own.
    pub fn next_package(&mut self) {
        self.finish();
        self.directories.clear();
    }

    pub fn finish(&self) {
        assert!(self.open.as_ref().is_none_or(|(_, missing)| *missing == 0), "ends within {:?}", self.open);
    }

    pub fn node(&self, path: &str) -> &Node {
        self.nodes.get(&ImagePath::new(path).unwrap()).unwrap_or_else(|| panic!("no {path}"))
    }

    pub fn text(&self, path: &str) -> String {
        match self.node(path) {
            Node::File { content, .. } => String::from_utf8(content.clone()).unwrap(),
            Node::Symlink(_) => panic!("{path} is a symbolic link"),
        }
    }
}

impl EntrySink for Tree {
    fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        self.finish();
        let Entry { path, kind, mode, mtime } = entry.clone();
        self.entries.push(entry.clone());
        if let Some(parent) = path.parent() {
            assert!(self.directories.contains(&parent), "{path} comes before its directory");
        }
        assert!(!self.nodes.contains_key(&path) && !self.directories.contains(&path), "{path} comes twice");
        let executable = mode == Mode::EXECUTABLE;
        match kind {
            EntryKind::Directory => {
                assert_eq!(mode, Mode::EXECUTABLE);
                self.directories.insert(path);
            }
            EntryKind::File { size } => {
                assert!(mode == Mode::EXECUTABLE || mode == Mode::FILE, "{path}: {mode:?}");
                self.nodes.insert(path.clone(), Node::File { content: Vec::new(), executable, mtime });
                self.open = Some((path, size));
            }
            EntryKind::Symlink { target } => {
                self.nodes.insert(path, Node::Symlink(target));
            }
            EntryKind::Hardlink { target } => {
                let node = self.nodes.get(&target).unwrap_or_else(|| panic!("{path} links to {target}")).clone();
                assert!(matches!(node, Node::File { executable: e, mtime: t, .. } if (e, t) == (executable, mtime)));
                self.nodes.insert(path.clone(), node);
                self.hardlinks.push((path, target));
            }
        }
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        let (path, missing) = self.open.as_mut().expect("data follows a file");
        *missing = missing.checked_sub(bytes.len() as u64).expect("no more than the size");
        match self.nodes.get_mut(path) {
            Some(Node::File { content, .. }) => content.extend(bytes),
            _ => unreachable!("only a file is open"),
        }
        Ok(())
    }
}
