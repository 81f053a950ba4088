//! A conda archive (.conda, .tar.bz2) streamed to entries: nothing is extracted.
//!
//! [`read_index`] reads the small `info/` part, which is enough to say where every file goes; [`stream`] then decodes
//! the archive once and pushes its files. Only a file that holds the placeholder of its prefix is ever in memory as a
//! whole.
//!
//! What is linked is what `info/paths.json` lists. Archives are untrusted: paths pass through [`ImagePath`], links are
//! never followed, sizes are bounded by what the package itself announces and by the constants below.
//!
//! The result is what rattler's installer makes, but that a link marked `no_link` stays a link (as conda has it), that
//! entry points which clash are settled like files, and that files above another package's directory are refused.

mod archive;
mod index;
mod members;
mod places;
mod record;
mod stream;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::entry::{BadPath, ImagePath};
use crate::source::placement::{Conflict, GENERATED_MTIME};
use crate::source::prefix::PrefixTooLong;

pub use index::{IndexedPath, Kind, PackageIndex, Placeholder, read_index};
pub use record::record_path;
pub use stream::stream;

/// The most bytes that an archive may unpack to.
pub const MAX_UNPACKED: u64 = 64 << 30;
/// The most bytes that the `info/` part of a .conda archive may unpack to.
pub const MAX_INFO: u64 = 1 << 30;
/// The largest file of `info/` that is read.
pub const MAX_INFO_FILE: u64 = 256 << 20;
/// The largest text file that may hold a placeholder: it is replaced in memory, as its new length comes before it.
pub const MAX_PATCHED: u64 = 1 << 30;
/// The most members that an archive may hold.
pub const MAX_MEMBERS: u64 = 2_000_000;

/// A conda package that cannot be installed into an image.
#[derive(Debug, thiserror::Error)]
#[error("the conda package {package}: {problem}{}", Hint(.problem, .archive.as_deref()))]
pub struct CondaError {
    /// The file name of the package.
    pub package: String,
    /// The archive as it lies on the disk, where one is read.
    pub archive: Option<PathBuf>,
    /// What is wrong.
    pub problem: Box<Problem>,
}

/// What is wrong with a package.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The archive cannot be opened.
    #[error("the archive {} cannot be opened: {error}", .path.display())]
    Open {
        /// The archive.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The archive is damaged, ends too early, or unpacks to too much.
    #[error("the archive cannot be read to its end: {0}")]
    Read(io::Error),
    /// Neither format.
    #[error("the archive is neither a .conda (zip) nor a .tar.bz2 file")]
    UnknownFormat,
    /// A .conda archive whose parts are not as CEP "Conda file format" has them.
    #[error("the archive must hold exactly one `{part}-*.tar.zst`, but holds {found}")]
    Parts {
        /// `info` or `pkg`.
        part: &'static str,
        /// How many there are.
        found: usize,
    },
    /// A zip member that is compressed a second time, or encrypted.
    #[error("the member `{0}` of the archive is not stored plainly, as a .conda file must")]
    NotStored(String),
    /// More than one of the limits of this module.
    #[error("{what} is larger than the limit of {limit}")]
    TooLarge {
        /// What is.
        what: String,
        /// The limit, in bytes or pieces.
        limit: u64,
    },
    /// A path that could leave the environment.
    #[error(transparent)]
    BadPath(#[from] BadPath),
    /// A file of `info/` that every package has.
    #[error("the archive holds no `{0}`")]
    NoInfo(&'static str),
    /// A file of `info/` that cannot be understood.
    #[error("`{file}` cannot be understood: {error}")]
    BadInfo {
        /// Which file.
        file: &'static str,
        /// Why.
        error: io::Error,
    },
    /// Another package than the lock says.
    #[error("the archive holds {0} instead\n  hint: the channel serves another file under this name; lock again")]
    OtherPackage(String),
    /// A name, version or build that would lead out of `conda-meta`.
    #[error("its name, version or build holds a `/`")]
    BadName,
    /// A path that `info/` lists twice, in different words.
    #[error("its list of files holds `{0}` twice")]
    ListedTwice(ImagePath),
    /// A path that the archive holds twice.
    #[error("the archive holds `{0}` twice")]
    Twice(ImagePath),
    /// A path that `info/` lists and the archive lacks.
    #[error("the archive lacks `{0}`, which its list of files holds")]
    Absent(ImagePath),
    /// Two paths that go to the same place.
    #[error("two of its files would be installed as `{0}`")]
    SamePlace(ImagePath),
    /// A path below one that is no directory.
    #[error("`{path}` would be written below `{above}`, which is a file or link of the same package")]
    Below {
        /// The lower path.
        path: ImagePath,
        /// The file or link.
        above: ImagePath,
    },
    /// Something that no conda package holds.
    #[error("`{path}` is {kind}, which no conda package may hold")]
    Unsupported {
        /// Which member.
        path: ImagePath,
        /// What it is.
        kind: &'static str,
    },
    /// Something else than `info/` says.
    #[error("`{path}` is {found}, but its list of files says {listed}")]
    OtherKind {
        /// Which member.
        path: ImagePath,
        /// What the list says.
        listed: &'static str,
        /// What the archive holds.
        found: &'static str,
    },
    /// A file that is longer or shorter than `info/` says.
    #[error("`{path}` has {found} bytes, but its list of files says {listed}")]
    OtherSize {
        /// Which file.
        path: ImagePath,
        /// What the list says.
        listed: u64,
        /// What the archive holds.
        found: u64,
    },
    /// A symbolic link to nothing that a link can hold.
    #[error("the symbolic link `{0}` has an empty target, a NUL in it, or one of more than 4095 bytes")]
    BadSymlink(ImagePath),
    /// A hard link to something that does not come before it.
    #[error("the hard link `{path}` leads to `{target}`, which is no file before it in the archive")]
    BadHardlink {
        /// The link.
        path: ImagePath,
        /// Where it leads.
        target: ImagePath,
    },
    /// A placeholder that is too short.
    #[error("`{path}`: {error}")]
    PrefixTooLong {
        /// The file.
        path: ImagePath,
        /// The lengths.
        error: PrefixTooLong,
    },
    /// A noarch python package in an environment without python.
    #[error(
        "a noarch python package needs the `python` of its environment, and there is none\
         \n  hint: add python and lock again"
    )]
    NoPython,
    /// The record for `conda-meta` cannot be written as JSON.
    #[error("its record cannot be written: {0}")]
    Record(serde_json::Error),
    /// What takes the entries failed.
    #[error("its files cannot be written to the image: {0}")]
    Sink(io::Error),
}

impl From<Conflict> for Problem {
    fn from(conflict: Conflict) -> Self {
        match conflict {
            Conflict::SamePlace(path) => Self::SamePlace(path),
            Conflict::Below { path, above } => Self::Below { path, above },
        }
    }
}

/// The way out, where the archive itself is at fault.
struct Hint<'a>(&'a Problem, Option<&'a Path>);

impl fmt::Display for Hint<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let damaged = match self.0 {
            Problem::Read(error) => error.kind() != io::ErrorKind::FileTooLarge,
            Problem::UnknownFormat | Problem::Parts { .. } | Problem::NoInfo(_) | Problem::Absent(_) => true,
            Problem::OtherSize { .. } => true,
            _ => false,
        };
        match self.1 {
            Some(archive) if damaged => write!(
                f,
                "\n  hint: delete {} and download it again; if that does not help, the package was published so: take \
                 another version or build of it",
                archive.display()
            ),
            _ if matches!(self.0, Problem::OtherPackage(_) | Problem::NoPython | Problem::Sink(_)) => Ok(()),
            _ => f.write_str(
                "\n  hint: the package is broken or hostile; take another version or build of it, and lock again",
            ),
        }
    }
}
