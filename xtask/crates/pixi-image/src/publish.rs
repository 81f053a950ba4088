//! The one way by which a file becomes visible: written beside its place, synced, renamed. What is read only where a checksum
//! in it fits need not be synced.

mod publisher;
mod readable;

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tempfile::NamedTempFile;

pub use publisher::Publisher;
pub use readable::{Positioned, Readable};

/// How files are named that are not results yet.
const PREFIX: &str = ".pixi-image-";
const SUFFIX: &str = ".partial";

/// Why a result could not be written; nothing is left where it would have stood.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}: {source}{}", hint(.source))]
pub struct PublishError {
    /// The file that was to be written.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "\n  hint: free some space there, or name another place for it; nothing was left behind"
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "\n  hint: name a directory that you may write to"
        }
        io::ErrorKind::IsADirectory => "\n  hint: name a file in that directory",
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => "\n  hint: name another place for it",
        _ => "",
    }
}

/// A file that is being written beside its place. Dropped without [`Pending::publish`], it leaves nothing.
///
/// Where the file system can do it the file has no name until it is whole, so that not even a killed process leaves a part.
/// Elsewhere (NFS, FUSE) it has a hidden one: [`abandon`] removes it when a signal ends the process, and what a killed
/// process left goes when the next one writes into the same directory.
pub struct Pending {
    file: Unpublished,
    syncing: Option<Syncing>,
    /// What reads it already.
    readable: Option<Readable>,
    page_cache: PageCache,
    directory: PathBuf,
    place: PathBuf,
}

enum Unpublished {
    #[cfg(target_os = "linux")]
    Nameless(File),
    Named(Beside),
}

impl Pending {
    /// Begins a file that will stand at `place`; missing parent directories are made.
    ///
    /// What is there already is replaced if it is a file; a directory, a device or a pipe is not.
    pub fn create(place: &Path) -> Result<Self, PublishError> {
        let fail = |source| PublishError { path: place.to_owned(), source };
        let directory = match place.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        match std::fs::metadata(place) {
            Ok(there) if there.is_dir() => return Err(fail(io::Error::from(io::ErrorKind::IsADirectory))),
            Ok(there) if !there.is_file() => {
                let reason = "a device, pipe or socket of that name is there";
                return Err(fail(io::Error::new(io::ErrorKind::AlreadyExists, reason)));
            }
            _ => {}
        }
        std::fs::create_dir_all(directory).map_err(fail)?;
        sweep(directory);
        let file = unpublished_in(directory).map_err(fail)?;
        let (directory, place) = (directory.to_owned(), place.to_owned());
        Ok(Self { file, syncing: None, readable: None, page_cache: PageCache::Stays, directory, place })
    }

    /// The open file.
    pub fn file(&mut self) -> &mut File {
        match &mut self.file {
            #[cfg(target_os = "linux")]
            Unpublished::Nameless(file) => file,
            Unpublished::Named(beside) => beside.file.as_file_mut(),
        }
    }

    /// The file, for who reads it before it is visible.
    pub fn readable(&mut self) -> Result<Readable, PublishError> {
        if let Some(readable) = &self.readable {
            return Ok(readable.clone());
        }
        let file = self.file().try_clone().map_err(|source| self.error(source))?;
        Ok(self.readable.insert(Readable::on_its_way(file, &self.place)).clone())
    }

    /// A way to write something large to the file: the disk takes it while more is written, not all of it at the end.
    pub fn writer(&mut self, page_cache: PageCache) -> Result<Steady, PublishError> {
        let copies = self.file().try_clone().and_then(|one| Ok((one, self.file().try_clone()?)));
        let (file, to_sync) = copies.map_err(|source| self.error(source))?;
        let (turns, taken) = sync_channel(1);
        let thread = std::thread::spawn(move || {
            taken.into_iter().take_while(|turn| matches!(turn, Turn::Sync)).try_for_each(|_| {
                to_sync.sync_data()?;
                page_cache.advise(&to_sync);
                Ok(())
            })
        });
        self.page_cache = page_cache;
        self.syncing = Some(Syncing { turns: turns.clone(), thread });
        Ok(Steady { file, unsynced: 0, turns })
    }

    /// Puts the file on the disk with permission bits `mode`, whatever the umask is. It is not visible yet: several results
    /// can be made sure of before the first is published.
    pub fn complete(mut self, mode: u32) -> Result<Complete, PublishError> {
        // An error of the disk is told once: the thread that heard it has it.
        let so_far = self.syncing.take().map_or(Ok(()), Syncing::end);
        let synced = so_far.and_then(|()| set_mode(self.file(), mode)).and_then(|()| self.file().sync_all());
        synced.map_err(|source| self.error(source))?;
        let page_cache = self.page_cache;
        page_cache.advise(self.file());
        Ok(Complete(self))
    }

    /// Makes the file visible with permission bits `mode`.
    pub fn publish(self, mode: u32) -> Result<(), PublishError> {
        self.complete(mode)?.publish()
    }

    fn name(self) -> Result<(), PublishError> {
        let Self { file, directory, place, readable, .. } = self;
        let named = match file {
            #[cfg(target_os = "linux")]
            Unpublished::Nameless(file) => name(&file, &directory, &place),
            Unpublished::Named(beside) => beside.rename(&place),
        };
        named.map_err(|source| PublishError { path: place, source })?;
        if let Some(readable) = readable {
            readable.arrived();
        }
        Ok(())
    }

    /// Names the place in an error of writing.
    pub fn error(&self, source: io::Error) -> PublishError {
        PublishError { path: self.place.clone(), source }
    }
}

/// What becomes of the memory in which the system keeps what was written to a file, once the disk has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageCache {
    /// The system decides: the file is read again soon.
    Stays,
    /// It is given back, and serves what is written next. Else gigabytes of an image push out what is needed again, packs
    /// among it; and a virtual machine that gives free memory back to its host pays for each page that it takes anew.
    Goes,
}

impl PageCache {
    #[cfg(target_os = "linux")]
    fn advise(self, file: &File) {
        if self == Self::Goes {
            // It is advice: where nobody takes it nothing is wrong.
            let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn advise(self, _file: &File) {}
}

/// After how many bytes the disk is asked to take them.
const SYNC_EVERY: u64 = 16 << 20;

/// What the thread that syncs is told.
enum Turn {
    Sync,
    End,
}

/// The thread that syncs a file while it is written.
struct Syncing {
    turns: SyncSender<Turn>,
    thread: JoinHandle<io::Result<()>>,
}

impl Syncing {
    fn end(self) -> io::Result<()> {
        // Sending fails only if the thread has ended by itself: with an error.
        let _ = self.turns.send(Turn::End);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Writes to a [`Pending`] file.
pub struct Steady {
    file: File,
    unsynced: u64,
    turns: SyncSender<Turn>,
}

impl Write for Steady {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.unsynced += written as u64;
        if self.unsynced >= SYNC_EVERY && self.turns.try_send(Turn::Sync).is_ok() {
            self.unsynced = 0;
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Seek for Steady {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

/// A file that is whole and on the disk. Dropped without [`Complete::publish`], it leaves nothing.
pub struct Complete(Pending);

impl Complete {
    /// The open file, to read it before it is published, or instead.
    pub fn file(&mut self) -> &mut File {
        self.0.file()
    }

    /// Makes the file visible.
    pub fn publish(self) -> Result<(), PublishError> {
        self.0.name()
    }
}

/// Files that have a name and are not results yet.
static BESIDE: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());

fn beside() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    BESIDE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes every file that is not a result yet. While the guard lives no new one appears: for a process that a signal ends,
/// which runs no destructors.
pub fn abandon() -> impl Drop {
    let files = beside();
    for path in files.iter() {
        let _ = std::fs::remove_file(path); // there is nobody left to tell, and the next process sweeps
    }
    files
}

/// A file with a hidden name.
struct Beside {
    file: NamedTempFile,
}

impl Beside {
    fn create(directory: &Path, make: impl FnMut(&Path) -> io::Result<File>) -> io::Result<Self> {
        let mut files = beside();
        let file = tempfile::Builder::new().prefix(PREFIX).suffix(SUFFIX).make_in(directory, make)?;
        // Where the file system has no locks, nothing is ever swept away.
        let _ = file.as_file().try_lock();
        files.insert(file.path().to_owned());
        Ok(Self { file })
    }

    fn rename(self, place: &Path) -> io::Result<()> {
        let mut files = beside();
        let path = self.file.path().to_owned();
        let renamed = self.file.persist(place).map(drop).map_err(|error| error.error);
        files.remove(&path);
        renamed
    }
}

/// Removes what a killed process left in a directory: files that are being written are locked. Once for each directory.
fn sweep(directory: &Path) {
    static SWEPT: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    if !SWEPT.lock().unwrap_or_else(PoisonError::into_inner).insert(directory.to_owned()) {
        return;
    }
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if !(name.starts_with(PREFIX) && name.ends_with(SUFFIX)) {
            continue;
        }
        // One that was made this moment may not be locked yet.
        let fresh = entry.metadata().and_then(|metadata| metadata.modified()).map(|time| time.elapsed());
        if !matches!(fresh, Ok(Ok(age)) if age > Duration::from_secs(10)) {
            continue;
        }
        let Ok(file) = File::open(entry.path()) else { continue };
        match file.try_lock() {
            // If it cannot be removed, it stays: it is only space.
            Ok(()) => drop(std::fs::remove_file(entry.path())),
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => {}
        }
    }
}

fn unpublished_in(directory: &Path) -> io::Result<Unpublished> {
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{Mode, OFlags};
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        match rustix::fs::open(directory, flags, Mode::from_raw_mode(0o600)) {
            Ok(file) => return Ok(Unpublished::Nameless(file.into())),
            // Not every file system has files without names (NFS, some overlays).
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR | rustix::io::Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let create = |path: &Path| File::options().read(true).write(true).create_new(true).open(path);
    Beside::create(directory, create).map(Unpublished::Named)
}

/// Gives a file without a name one: its own, or, because a link cannot replace what is there, one beside it that is renamed.
#[cfg(target_os = "linux")]
fn name(file: &File, directory: &Path, place: &Path) -> io::Result<()> {
    use std::os::fd::AsRawFd;

    use rustix::fs::{AtFlags, CWD};
    let from = format!("/proc/self/fd/{}", file.as_raw_fd());
    let link = |path: &Path| rustix::fs::linkat(CWD, &from, CWD, path, AtFlags::SYMLINK_FOLLOW);
    match link(place) {
        Err(rustix::io::Errno::EXIST) => {}
        linked => return Ok(linked?),
    }
    let linked = |path: &Path| {
        link(path)?;
        file.try_clone()
    };
    Beside::create(directory, linked)?.rename(place)
}

#[cfg(unix)]
fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(std::fs::Permissions::from_mode(mode))
}

#[cfg(not(unix))]
fn set_mode(_file: &File, _mode: u32) -> io::Result<()> {
    Ok(())
}

/// Writes a whole small file.
pub fn write(place: &Path, content: &[u8], mode: u32) -> Result<(), PublishError> {
    written(place, content)?.publish(mode)
}

/// Like [`write`], without waiting for the disk: where the machine fails soon after, the file may be cut or empty, which
/// whoever reads it has to see.
pub fn write_unsynced(place: &Path, content: &[u8], mode: u32) -> Result<(), PublishError> {
    let mut pending = written(place, content)?;
    set_mode(pending.file(), mode).map_err(|source| pending.error(source))?;
    pending.name()
}

fn written(place: &Path, content: &[u8]) -> Result<Pending, PublishError> {
    let mut pending = Pending::create(place)?;
    let written = pending.file().write_all(content);
    written.map_err(|source| pending.error(source))?;
    Ok(pending)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_that_is_not_published_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("sub/result");
        drop(Pending::create(&place).unwrap());
        assert_eq!(std::fs::read_dir(dir.path().join("sub")).unwrap().count(), 0);
        write(&place, b"whole", 0o644).unwrap();
        assert_eq!(std::fs::read(&place).unwrap(), b"whole");
    }

    #[test]
    fn what_is_synced_while_it_is_written_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("large");
        let mut pending = Pending::create(&place).unwrap();
        let mut out = pending.writer(PageCache::Goes).unwrap();
        let piece = vec![7; 5 << 20];
        (0..2 * SYNC_EVERY).step_by(piece.len()).for_each(|_| out.write_all(&piece).unwrap());
        out.seek(SeekFrom::Start(1)).unwrap();
        out.write_all(b"x").unwrap();
        pending.publish(0o644).unwrap();
        let written = std::fs::read(&place).unwrap();
        assert!(written.len() as u64 >= 2 * SYNC_EVERY);
        assert_eq!(written[..3], [7, b'x', 7]);
    }

    #[test]
    fn a_directory_in_the_way_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = write(dir.path(), b"", 0o644).unwrap_err();
        assert!(error.to_string().contains(&dir.path().display().to_string()), "{error}");
    }
}
