//! Taking a bundle apart: once, whole or not at all, every byte compared with the list.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

use super::{BASE, BaseImage, BundleError, LIST, LIST_LIMIT, Manifest, Member, PACKAGES, PROGRAMS};
use crate::model::Digest;
use crate::progress::Progress;
use crate::publish::PublishError;
use crate::registry;

/// How much of the digest is a directory's name. The whole list stands inside, and is compared.
const NAME_LENGTH: usize = 16;
/// The cache within a bundle's directory.
const CACHE: &str = "cache";

/// A bundle whose content is, or will be, in a directory.
pub struct Opened {
    /// The digest of its list.
    pub digest: Digest,
    /// The directory.
    pub directory: PathBuf,
    /// What the list says.
    pub manifest: Manifest,
    /// Whether it lay there already.
    pub was_there: bool,
}

/// Reads the list alone, and where the content would be.
pub fn look(bundle: &Path, into: &Path) -> Result<Opened, BundleError> {
    Reader::open(bundle).map(|reader| reader.opened(into))
}

/// Takes a bundle apart into a directory below `into`, unless it is there.
pub fn open(bundle: &Path, into: &Path, progress: &dyn Progress) -> Result<Opened, BundleError> {
    let mut reader = Reader::open(bundle)?;
    let mut opened = reader.opened(into);
    let fail = |path: &Path| {
        let path = path.to_owned();
        move |source| PublishError { path, source }
    };
    std::fs::create_dir_all(into).map_err(fail(into))?;
    // One at a time: the next one finds it done.
    let lock = into.join(".lock");
    let guard = File::create(&lock).map_err(fail(&lock))?;
    guard.lock().map_err(fail(&lock))?;
    if reader.is_there(&opened)? {
        opened.was_there = true;
        return Ok(opened);
    }
    progress.phase(&format!("Unpacking {} into {}", bundle.display(), opened.directory.display()));
    let partial = into.join(format!(".{}.partial", &opened.digest.hex()[..NAME_LENGTH]));
    remove(&partial)?;
    let done = reader.unpack(&partial).and_then(|()| {
        std::fs::rename(&partial, &opened.directory).map_err(fail(&opened.directory))?;
        Ok(())
    });
    if done.is_err() {
        remove(&partial)?;
    }
    done.map(|()| opened)
}

/// What a killed process left.
fn remove(directory: &Path) -> Result<(), BundleError> {
    match std::fs::remove_dir_all(directory) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(PublishError { path: directory.to_owned(), source }.into())
        }
        _ => Ok(()),
    }
}

struct Reader<'a> {
    path: &'a Path,
    file: File,
    list: Vec<u8>,
    manifest: Manifest,
}

impl<'a> Reader<'a> {
    /// Reads the list, and compares the file's length with it.
    fn open(path: &'a Path) -> Result<Self, BundleError> {
        let read = |source| BundleError::Read { path: path.to_owned(), source };
        let not = |reason: String| BundleError::NotABundle { path: path.to_owned(), reason };
        let mut file = File::open(path).map_err(read)?;
        let metadata = file.metadata().map_err(read)?;
        if !metadata.is_file() {
            return Err(not("it is no file".to_owned()));
        }
        let size = match next_header(&mut file) {
            Ok(Some((name, size))) if name == LIST => size,
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(read(error)),
            _ => return Err(not(format!("it does not begin with {LIST}"))),
        };
        if size > LIST_LIMIT {
            return Err(not(format!("its list has {size} bytes")));
        }
        let damaged = |reason: String| BundleError::Damaged { path: path.to_owned(), member: LIST.to_owned(), reason };
        let mut list = vec![0; size as usize];
        file.read_exact(&mut list).map_err(|error| damaged(ends_early(&error)))?;
        skip_padding(&mut file, size).map_err(|error| damaged(ends_early(&error)))?;
        let manifest: Manifest =
            serde_json::from_slice(&list).map_err(|error| not(format!("its list cannot be read: {error}")))?;
        manifest.check().map_err(not)?;
        let length = manifest.length(size).ok_or_else(|| not("its list adds up to no number".to_owned()))?;
        let actual = metadata.len();
        if actual != length {
            let member = at(&manifest, size, actual).unwrap_or("its end").to_owned();
            let reason = format!("is where its {actual} bytes differ from the {length} that it must have");
            return Err(BundleError::Damaged { path: path.to_owned(), member, reason });
        }
        Ok(Self { path, file, list, manifest })
    }

    fn opened(&self, into: &Path) -> Opened {
        let digest = Digest::of(&self.list);
        let directory = into.join(&digest.hex()[..NAME_LENGTH]);
        Opened { digest, directory, manifest: self.manifest.clone(), was_there: false }
    }

    /// A directory appears only whole, so the list in it tells that all was there; what somebody took away or cut since
    /// shows in the sizes.
    fn is_there(&self, opened: &Opened) -> Result<bool, BundleError> {
        let path = opened.directory.join(LIST);
        let list = match std::fs::read(&path) {
            Err(source) if source.kind() == io::ErrorKind::NotFound => None,
            read => Some(read.map_err(|source| BundleError::Read { path, source })?),
        };
        let base = self.manifest.base.as_ref();
        let is_whole = |member: &Member| {
            let place = place(&opened.directory, base, &member.path);
            place.is_none_or(|place| std::fs::metadata(place).is_ok_and(|there| there.len() == member.size))
        };
        if list.as_ref() == Some(&self.list) && self.manifest.members.iter().all(is_whole) {
            return Ok(true);
        }
        remove(&opened.directory).map(|()| false)
    }

    fn unpack(&mut self, directory: &Path) -> Result<(), BundleError> {
        let base = self.manifest.base.clone();
        for member in self.manifest.members.clone() {
            let place = place(directory, base.as_ref(), &member.path);
            self.member(&member, place.as_deref())?;
        }
        if let Some(BaseImage { reference, digest, architecture }) = &base {
            registry::remember(reference, architecture, &directory.join(CACHE), *digest)?;
        }
        let path = directory.join(LIST);
        write_new(&path, &mut |file| file.write_all(&self.list)).map_err(|source| PublishError { path, source }.into())
    }

    /// Copies the next member, or only reads it.
    fn member(&mut self, member: &Member, place: Option<&Path>) -> Result<(), BundleError> {
        let damaged =
            |reason: String| BundleError::Damaged { path: self.path.to_owned(), member: member.path.clone(), reason };
        match next_header(&mut self.file).map_err(|error| damaged(ends_early(&error)))? {
            Some((name, size)) if name == member.path && size == member.size => {}
            Some((name, _)) => return Err(damaged(format!("should come where `{}` does", name.escape_default()))),
            None => return Err(damaged("is not there".to_owned())),
        }
        let (mut hasher, mut failed) = (Sha256::new(), None);
        let file = &mut self.file;
        let mut transfer = |out: &mut dyn Write| -> io::Result<()> {
            let (mut left, mut buffer) = (member.size, vec![0; 1 << 20]);
            while left > 0 {
                let wanted = left.min(buffer.len() as u64) as usize;
                if let Err(error) = file.read_exact(&mut buffer[..wanted]) {
                    failed = Some(ends_early(&error));
                    return Err(error);
                }
                hasher.update(&buffer[..wanted]);
                out.write_all(&buffer[..wanted])?;
                left -= wanted as u64;
            }
            Ok(())
        };
        let copied = match place {
            Some(path) => write_new(path, &mut |file| transfer(file)),
            None => transfer(&mut io::sink()),
        };
        match (copied, failed) {
            (Err(_), Some(reason)) => return Err(damaged(reason)),
            (Err(source), None) => {
                let path = place.unwrap_or(self.path).to_owned();
                return Err(PublishError { path, source }.into());
            }
            (Ok(()), _) => {}
        }
        let actual = Digest(hasher.finalize().into());
        if actual != member.sha256 {
            return Err(damaged(format!("has the content {actual}, not {}", member.sha256)));
        }
        skip_padding(&mut self.file, member.size).map_err(|error| damaged(ends_early(&error)))
    }
}

/// Where a member goes; none for what is only verified.
fn place(directory: &Path, base: Option<&BaseImage>, path: &str) -> Option<PathBuf> {
    let cache = directory.join(CACHE);
    let (kind, below) = path.split_once('/').unwrap_or((path, ""));
    match (kind, base) {
        (PROGRAMS, _) => None,
        (PACKAGES, _) => Some(cache.join(PACKAGES).join(below)),
        (BASE, Some(base)) => Some(registry::layout_of(&cache, base.digest, &base.architecture).join(below)),
        (BASE, None) => None,
        _ => Some(directory.join(path)),
    }
}

/// Writes a file that is not there yet, and puts it on the disk.
fn write_new(path: &Path, write: &mut dyn FnMut(&mut File) -> io::Result<()>) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent)?;
    }
    let mut file = File::create_new(path)?;
    write(&mut file)?;
    file.sync_all()
}

/// Name and size of the next member; none at the end. Only plain files count: nothing else is written into a bundle.
fn next_header(file: &mut File) -> io::Result<Option<(String, u64)>> {
    let mut header = tar::Header::new_ustar();
    file.read_exact(header.as_mut_bytes())?;
    let checksum: u32 = header
        .as_bytes()
        .iter()
        .enumerate()
        .map(|(at, byte)| match at {
            148..156 => u32::from(b' '),
            _ => u32::from(*byte),
        })
        .sum();
    let is_whole = header.cksum().is_ok_and(|said| said == checksum);
    if !is_whole || header.entry_type() != tar::EntryType::Regular {
        return Ok(None);
    }
    let name = String::from_utf8(header.path_bytes().into_owned()).ok();
    Ok(name.zip(header.size().ok()))
}

fn skip_padding(file: &mut File, size: u64) -> io::Result<()> {
    let rest = (size.next_multiple_of(super::BLOCK) - size) as usize;
    file.read_exact(&mut [0; super::BLOCK as usize][..rest])
}

/// The member in which an archive of `actual` bytes ends; none after the last.
fn at(manifest: &Manifest, list: u64, actual: u64) -> Option<&str> {
    let of = |size: u64| size.next_multiple_of(super::BLOCK) + super::BLOCK;
    let mut end = of(list);
    if actual < end {
        return Some(LIST);
    }
    manifest.members.iter().find_map(|member| {
        end += of(member.size);
        (actual < end).then_some(member.path.as_str())
    })
}

fn ends_early(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "is cut off".to_owned(),
        _ => format!("cannot be read: {error}"),
    }
}
