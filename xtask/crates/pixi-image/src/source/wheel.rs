//! A wheel (.whl) streamed to entries: nothing is extracted.
//!
//! [`read_index`] reads the zip archive's directory and `*.dist-info`, which say where every file goes; [`stream`] then
//! inflates each file once and pushes it. Only a script whose `#!python` line is rewritten is ever in memory as a whole.
//!
//! Installed is what the specification says (PyPA, "Binary distribution format", "Recording installed projects", "Entry
//! points"), and where it leaves a choice, what pixi does through uv: every script of `*.data/scripts` can be run, headers
//! go below the normalized name, `REQUESTED` is written for all. No bytecode is made. Unlike either, and as the
//! specification asks, every file is compared with its digest in `RECORD`, and one that `RECORD` does not list is refused.
//!
//! A zip archive has local times without a zone. They are taken for UTC: it depends on nothing but the archive, and two
//! versions of a file still differ in their times, by which python tells stale bytecode.

mod archive;
mod index;
mod metadata;
mod places;
mod record;
mod stream;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::entry::{BadPath, ImagePath};
use crate::source::placement::Conflict;

pub use index::{File, WheelIndex, read_index};
pub use metadata::normalized_name;
pub use places::is_metadata_of;
pub use record::{Checksum, installed_files};
pub use stream::stream;

/// The most bytes that a wheel may unpack to.
pub const MAX_UNPACKED: u64 = 64 << 30;
/// The largest file of `*.dist-info` that is read, and the largest script that is rewritten: both are held in memory.
pub const MAX_IN_MEMORY: u64 = 64 << 20;
/// The most members that a wheel may hold.
pub const MAX_MEMBERS: usize = 1_000_000;

/// A wheel that cannot be installed into an image.
#[derive(Debug, thiserror::Error)]
#[error("the wheel {wheel}: {problem}{}", Hint(.problem, .archive.as_deref()))]
pub struct WheelError {
    /// The file name of the wheel.
    pub wheel: String,
    /// The archive as it lies on the disk, where one is read.
    pub archive: Option<PathBuf>,
    /// What is wrong.
    pub problem: Box<Problem>,
}

/// What is wrong with a wheel.
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
    /// The archive is damaged or no zip archive.
    #[error("the archive cannot be read: {0}")]
    Read(io::Error),
    /// Members that share bytes, as zip bombs do.
    #[error("members of the archive overlap, as they do in a zip bomb")]
    Overlap,
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
    /// A name that the archive holds twice.
    #[error("the archive holds a name twice{}", .0.as_ref().map(|path| format!(": `{path}`")).unwrap_or_default())]
    Twice(Option<ImagePath>),
    /// Something that no wheel holds.
    #[error("`{path}` is {kind}, which no wheel may hold")]
    Unsupported {
        /// Which member.
        path: ImagePath,
        /// What it is.
        kind: &'static str,
    },
    /// Not exactly one directory for the metadata.
    #[error("the archive must hold exactly one `*.dist-info`, but holds {0}")]
    DistInfo(usize),
    /// A file of `*.dist-info` that every wheel has.
    #[error("the archive holds no `{0}`")]
    Missing(ImagePath),
    /// A file of `*.dist-info` that cannot be understood.
    #[error("`{file}` cannot be understood: {reason}")]
    BadMetadata {
        /// Which file.
        file: ImagePath,
        /// Why.
        reason: String,
    },
    /// A format of wheels from after this program.
    #[error("it has version {0} of the wheel format; this program knows 1")]
    WheelVersion(String),
    /// Another package than the lock says.
    #[error("the archive holds {0} instead\n  hint: the index serves another file under this name; lock again")]
    OtherPackage(String),
    /// A file that `RECORD` does not list.
    #[error("`{0}` is not in its RECORD")]
    NotRecorded(ImagePath),
    /// A file without a digest, or one of a kind that is not trusted.
    #[error("its RECORD gives `{path}` no digest that can be checked: {reason}")]
    NoChecksum {
        /// Which file.
        path: ImagePath,
        /// Why.
        reason: String,
    },
    /// A file with other content than `RECORD` says.
    #[error("`{0}` is not what its RECORD says: digest or size differ")]
    OtherContent(ImagePath),
    /// A directory of `*.data` that no place is known for.
    #[error("`{0}` goes to no known place: a `.data` directory has purelib, platlib, scripts, headers and data")]
    UnknownScheme(ImagePath),
    /// A command with a name that would leave the directory of commands, or take the place of python.
    #[error("its entry point `{0}` has a name that no command may have")]
    BadCommand(String),
    /// A path in what belongs to conda packages or another wheel.
    #[error("`{0}` would be written to the records of other packages")]
    ForeignRecord(ImagePath),
    /// Two paths that go to the same place.
    #[error("two of its files would be installed as `{0}`")]
    SamePlace(ImagePath),
    /// A path below one that is no directory.
    #[error("`{path}` would be written below `{above}`, which is a file of the same wheel")]
    Below {
        /// The lower path.
        path: ImagePath,
        /// The file.
        above: ImagePath,
    },
    /// A wheel in an environment without python.
    #[error("a wheel needs the `python` of its environment, and there is none\n  hint: add python and lock again")]
    NoPython,
    /// `RECORD` or `direct_url.json` cannot be written.
    #[error("its record cannot be written: {0}")]
    Record(String),
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
        match (self.0, self.1) {
            (Problem::OtherPackage(_) | Problem::NoPython | Problem::Sink(_) | Problem::Record(_), _) => Ok(()),
            (Problem::Open { .. } | Problem::Read(_), Some(archive)) => write!(
                f,
                "\n  hint: delete {} and download it again; if that does not help, the wheel was published so: take another \
                 version of it",
                archive.display()
            ),
            _ => f.write_str(
                "\n  hint: the wheel is broken or hostile; take another version of it, or conda-forge's package of that \
                 name, and lock again",
            ),
        }
    }
}
