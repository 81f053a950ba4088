//! What a package says about itself in `info/`.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::path::Path;

use rattler_conda_types::package::{
    EntryPoint, FileMode, Files, HasPrefix, IndexJson, LinkJson, NoArchLinks, NoLink, NoSoftlink, PackageFile,
    PathType, PathsEntry, PathsJson,
};
use serde::{Deserialize, Serialize};

use super::archive::{self, Part};
use super::members::{self, Member, MemberKind};
use super::{CondaError, GENERATED_MTIME, MAX_INFO_FILE, Problem};
use crate::entry::ImagePath;
use crate::model::Digest;
use crate::publish::Readable;

/// What the `info/` of a package says: enough to tell where all its files go, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackageIndex {
    /// The normalized name.
    pub name: String,
    /// The version as the package writes it.
    pub version: String,
    /// The build string.
    pub build: String,
    /// Whether its files go where the python of the environment wants them.
    pub noarch_python: bool,
    /// The files to link, sorted by their path in the archive, each once.
    pub paths: Vec<IndexedPath>,
    /// The commands of a noarch python package.
    pub entry_points: Vec<EntryPoint>,
    /// The time that patched files get: later than every file's in the package, so that a .pyc of an original is stale.
    pub patched_mtime: u32,
    /// Whether it holds a script to run after linking, which neither pixi nor this program does.
    pub has_post_link_script: bool,
}

/// One file, link or directory that a package lists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexedPath {
    /// Its path in the archive.
    pub path: ImagePath,
    /// What it is; unknown in packages from before `info/paths.json`.
    pub kind: Option<Kind>,
    /// What is to be replaced in it.
    pub placeholder: Option<Placeholder>,
    /// The digest of its content in the archive.
    pub sha256: Option<Digest>,
    /// The length of its content in the archive, in bytes.
    pub size: Option<u64>,
    /// Whether installers must copy instead of link. Entries are always copies; it is kept for the record.
    pub no_link: bool,
}

/// How a path is to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// `hardlink`: a file of the package.
    File,
    /// `softlink`: a symbolic link of the package.
    Symlink,
    /// `directory`: an empty directory.
    Directory,
}

/// The prefix that a package was built in, in one of its files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placeholder {
    /// The text to replace.
    pub text: String,
    /// Whether lengths must be kept.
    pub mode: FileMode,
}

/// Reads the index of a package archive. Of a .tar.bz2 no more is decoded than is needed.
pub fn read_index(archive: &Readable) -> Result<PackageIndex, CondaError> {
    index(archive).map_err(|problem| CondaError {
        package: archive.file_name(),
        archive: Some(archive.place().to_owned()),
        problem: problem.into(),
    })
}

fn index(archive: &Readable) -> Result<PackageIndex, Problem> {
    let mut info = Info::default();
    members::each(archive::open(archive, Part::Info)?, |member, content| {
        info.take(&member, content)?;
        Ok(if info.is_complete() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    info.into_index()
}

impl PackageIndex {
    /// Which of [`Self::paths`] has this path in the archive.
    pub(super) fn position(&self, path: &ImagePath) -> Option<usize> {
        self.paths.binary_search_by(|listed| listed.path.cmp(path)).ok()
    }
}

const INDEX: &str = "info/index.json";
const PATHS: &str = "info/paths.json";
const LINK: &str = "info/link.json";
const ABOUT: &str = "info/about.json";
const FILES: &str = "info/files";
const HAS_PREFIX: &str = "info/has_prefix";
const NO_LINK: &str = "info/no_link";
const NO_SOFTLINK: &str = "info/no_softlink";
const READ: [&str; 7] = [INDEX, PATHS, LINK, FILES, HAS_PREFIX, NO_LINK, NO_SOFTLINK];

/// The files of `info/` seen so far.
#[derive(Default)]
struct Info {
    index: Option<IndexJson>,
    files: BTreeMap<&'static str, Vec<u8>>,
    about_mtime: Option<u32>,
}

impl Info {
    fn take(&mut self, member: &Member, content: &mut dyn Read) -> Result<(), Problem> {
        if member.path.as_bytes() == ABOUT.as_bytes() {
            self.about_mtime = Some(member.mtime);
        }
        let Some(file) = READ.into_iter().find(|file| member.path.as_bytes() == file.as_bytes()) else { return Ok(()) };
        if !matches!(member.kind, MemberKind::File) {
            let error = io::Error::new(io::ErrorKind::InvalidData, "it is not a plain file");
            return Err(Problem::BadInfo { file, error });
        }
        if member.size > MAX_INFO_FILE {
            return Err(Problem::TooLarge { what: format!("`{file}`"), limit: MAX_INFO_FILE });
        }
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes).map_err(Problem::Read)?;
        if file == INDEX {
            self.index = Some(parse(INDEX, &bytes)?);
        }
        if self.files.insert(file, bytes).is_some() {
            return Err(Problem::Twice(member.path.clone()));
        }
        Ok(())
    }

    /// Whether nothing more can change the index.
    fn is_complete(&self) -> bool {
        let Some(index) = &self.index else { return false };
        self.about_mtime.is_some()
            && self.files.contains_key(PATHS)
            && (!index.noarch.is_python() || self.files.contains_key(LINK))
    }

    fn parse<T: PackageFile>(&self, file: &'static str) -> Result<Option<T>, Problem> {
        self.files.get(file).map(|bytes| parse(file, bytes)).transpose()
    }

    fn into_index(self) -> Result<PackageIndex, Problem> {
        let index = self.index.as_ref().ok_or(Problem::NoInfo(INDEX))?;
        let mut paths = match self.parse::<PathsJson>(PATHS)? {
            Some(json) => json.paths.into_iter().map(listed).collect::<Result<Vec<_>, _>>()?,
            None => self.legacy_paths()?,
        };
        paths.sort_by(|a, b| a.path.cmp(&b.path));
        paths.dedup(); // listing a file twice alike is harmless
        if let Some(pair) = paths.windows(2).find(|pair| pair[0].path == pair[1].path) {
            return Err(Problem::ListedTwice(pair[0].path.clone()));
        }
        let noarch_python = index.noarch.is_python();
        let entry_points = match self.parse::<LinkJson>(LINK)? {
            Some(LinkJson { noarch: NoArchLinks::Python(links), .. }) if noarch_python => links.entry_points,
            _ => Vec::new(),
        };
        let name = index.name.as_normalized().to_owned();
        let post_link = format!("bin/.{name}-post-link.sh");
        Ok(PackageIndex {
            version: index.version.to_string(),
            build: index.build.to_string(),
            noarch_python,
            has_post_link_script: paths.iter().any(|listed| listed.path.as_bytes() == post_link.as_bytes()),
            paths,
            entry_points,
            patched_mtime: self.about_mtime.map_or(GENERATED_MTIME, |mtime| mtime.saturating_add(1)),
            name,
        })
    }

    /// The list of files of packages from before `info/paths.json`, which did not say what each of them is.
    fn legacy_paths(&self) -> Result<Vec<IndexedPath>, Problem> {
        let files: Files = self.parse(FILES)?.ok_or(Problem::NoInfo(PATHS))?;
        let files = Files { files: files.files.into_iter().filter(|path| !path.as_os_str().is_empty()).collect() };
        let has_prefix = self.parse::<HasPrefix>(HAS_PREFIX)?;
        let (no_link, no_softlink) = (self.parse::<NoLink>(NO_LINK)?, self.parse::<NoSoftlink>(NO_SOFTLINK)?);
        let unknown = |_: &Path| Ok::<_, Problem>(PathType::HardLink);
        let json = PathsJson::from_deprecated(files, has_prefix, no_link, no_softlink, unknown)?;
        json.paths.into_iter().map(|entry| Ok(IndexedPath { kind: None, ..listed(entry)? })).collect()
    }
}

fn parse<T: PackageFile>(file: &'static str, bytes: &[u8]) -> Result<T, Problem> {
    T::from_slice(bytes).map_err(|error| Problem::BadInfo { file, error })
}

fn listed(entry: PathsEntry) -> Result<IndexedPath, Problem> {
    // The text comes from JSON or from lossy decoding, so it is always UTF-8.
    let path = ImagePath::new(entry.relative_path.to_string_lossy().as_bytes())?;
    Ok(IndexedPath {
        path,
        kind: Some(match entry.path_type {
            PathType::HardLink => Kind::File,
            PathType::SoftLink => Kind::Symlink,
            PathType::Directory => Kind::Directory,
        }),
        placeholder: entry
            .prefix_placeholder
            .map(|placeholder| Placeholder { text: placeholder.placeholder, mode: placeholder.file_mode }),
        sha256: entry.sha256.map(|sha256| Digest(sha256.into())),
        size: entry.size_in_bytes,
        no_link: entry.no_link,
    })
}
