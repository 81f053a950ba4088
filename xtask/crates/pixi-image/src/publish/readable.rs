//! Files that are read while they are on their way to their places.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A file that can be read whether it is visible yet or not: who needs its content need not wait for the disk.
#[derive(Clone, Debug)]
pub struct Readable {
    place: PathBuf,
    /// The open file, until it stands at its place.
    open: Arc<Mutex<Option<File>>>,
}

impl Readable {
    /// The file at `place`, which need not be there before it is opened.
    pub fn at(place: impl Into<PathBuf>) -> Self {
        Self { place: place.into(), open: Arc::default() }
    }

    /// An open file, which is going to `place`, or stays without a name in that directory.
    pub(crate) fn on_its_way(file: File, place: &Path) -> Self {
        Self { place: place.to_owned(), open: Arc::new(Mutex::new(Some(file))) }
    }

    /// Takes note that the file stands at its place, and closes it.
    pub(super) fn arrived(&self) {
        *self.lock() = None;
    }

    /// Where it stands, or will.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// The last part of its place.
    pub fn file_name(&self) -> String {
        self.place.file_name().unwrap_or(self.place.as_os_str()).to_string_lossy().into_owned()
    }

    /// Opens it, at its beginning.
    pub fn open(&self) -> io::Result<Positioned> {
        let file = match &*self.lock() {
            Some(file) => file.try_clone(),
            None => File::open(&self.place),
        };
        Ok(Positioned { file: file?, position: 0 })
    }

    fn lock(&self) -> MutexGuard<'_, Option<File>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads at a position of its own: handles of one open file share theirs.
#[derive(Debug)]
pub struct Positioned {
    file: File,
    position: u64,
}

impl Read for Positioned {
    #[cfg(unix)]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = std::os::unix::fs::FileExt::read_at(&self.file, buffer, self.position)?;
        self.position += read as u64;
        Ok(read)
    }

    #[cfg(windows)]
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = std::os::windows::fs::FileExt::seek_read(&self.file, buffer, self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}

impl Seek for Positioned {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::Current(by) => self.position.checked_add_signed(by),
            SeekFrom::End(by) => self.file.metadata()?.len().checked_add_signed(by),
        };
        self.position = target.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.position)
    }
}
