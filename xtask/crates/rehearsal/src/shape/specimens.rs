//! Pieces of real packages, of which made-up ones are made.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use crate::variant;

/// How much is kept of each kind, and at most of one file, in bytes.
const TEXT: usize = 24 << 20;
const LIBRARY: usize = 96 << 20;
const EACH: u64 = 12 << 20;
/// Less than this of a kind is too little to choose from.
const LEAST: usize = 256 << 10;

/// Contents of real files, one after the other.
#[derive(Debug, Default)]
pub struct Specimens {
    /// Python modules and headers.
    pub text: Vec<u8>,
    /// Shared libraries.
    pub library: Vec<u8>,
}

/// Why there are none.
#[derive(Debug, thiserror::Error)]
pub enum SpecimenError {
    /// A package cannot be read.
    #[error("cannot read {path}: {source}\n  hint: `rehearsal make` makes a channel")]
    Read {
        /// The channel or package.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is too little.
    #[error(
        "the packages of {path} hold {text} bytes of text and {library} of shared libraries: too little to make others of\
         \n  hint: --like names a channel with a Python and some libraries, such as that of `rehearsal make`"
    )]
    TooFew {
        /// The channel.
        path: PathBuf,
        /// Bytes of text.
        text: usize,
        /// Bytes of libraries.
        library: usize,
    },
}

impl Specimens {
    /// Of the packages of a channel on the disk, in the order of its index: the same channel gives the same ones.
    pub fn of(channel: &Path) -> Result<Self, SpecimenError> {
        let fail = |path: &Path| {
            let path = path.to_owned();
            |source| SpecimenError::Read { path, source }
        };
        let packages = variant::records(channel).map_err(|error| fail(channel)(io::Error::other(error)))?;
        let mut specimens = Self::default();
        for package in packages {
            let archive = channel.join(&package.subdir).join(&package.file_name);
            specimens.take(&archive).map_err(fail(&archive))?;
        }
        match (specimens.text.len(), specimens.library.len()) {
            (text, library) if text.min(library) < LEAST => {
                Err(SpecimenError::TooFew { path: channel.to_owned(), text, library })
            }
            _ => Ok(specimens),
        }
    }

    fn take(&mut self, archive: &Path) -> io::Result<()> {
        let mut zip = zip::ZipArchive::new(BufReader::new(File::open(archive)?))?;
        let is_contents = |name: &str| name.starts_with("pkg-") && name.ends_with(".tar.zst");
        let mut names = (0..zip.len()).filter_map(|at| Some((at, zip.name_for_index(at)?.ok()?)));
        let Some(at) = names.find(|(_, name)| is_contents(name)).map(|(at, _)| at) else { return Ok(()) };
        let mut tar = tar::Archive::new(zstd::Decoder::new(zip.by_index(at)?)?);
        for entry in tar.entries()? {
            let mut entry = entry?;
            let path = entry.path_bytes().into_owned();
            let (pool, most) = match path.rsplit(|byte| *byte == b'/').next().unwrap_or_default() {
                name if name.windows(3).any(|part| part == b".so") => (&mut self.library, LIBRARY),
                name if name.ends_with(b".py") || name.ends_with(b".h") => (&mut self.text, TEXT),
                _ => continue,
            };
            let room = most.saturating_sub(pool.len()) as u64;
            entry.by_ref().take(room.min(EACH)).read_to_end(pool)?;
        }
        Ok(())
    }
}
