//! A pack on disk: chunks, then the index, then where the index begins. One file, so that it is whole or absent.
//!
//! Packs live for years on disks of any kind, and an image is made of their bytes as they are: so the chunks and the index
//! carry checksums, which are compared whenever they are read.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::chunk::{Chunk, Encoding};
use super::{FORMAT_VERSION, PackIndex};
use crate::publish::{PageCache, Pending, PublishError, Publisher, Readable};

const MAGIC: &[u8; 8] = b"pixipack";
/// Offset of the index, CRC-32 of the index, format version, magic.
const FOOTER: usize = 8 + 4 + 4 + 8;

/// Why a pack cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// It cannot be read.
    #[error("cannot read the cached pack {path}: {source}\n  hint: delete that file; it is made again when needed")]
    Read {
        /// The pack.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It cannot be written.
    #[error(transparent)]
    Write(#[from] PublishError),
}

/// A pack with its index in memory and its chunks on disk.
#[derive(Debug)]
pub struct PackFile {
    file: Readable,
    /// The directory of the pack.
    pub index: PackIndex,
}

impl PackFile {
    /// Opens the pack at `path`; none if there is none, or if it is of another version of the format.
    pub fn open(path: &Path) -> Result<Option<Self>, PackError> {
        let fail = |source| PackError::Read { path: path.to_owned(), source };
        match read_index(path) {
            Ok(index) => Ok(index.map(|index| Self { file: Readable::at(path), index })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(fail(error)),
        }
    }

    /// Makes a pack at `path`: `fill` writes the chunks and hands back the index. It appears when it is whole and
    /// `publisher` has published it.
    pub fn create<E: From<PackError>>(
        path: &Path,
        publisher: &Publisher,
        fill: impl FnOnce(BufWriter<Output<'_>>) -> Result<PackIndex, E>,
    ) -> Result<Self, E> {
        let mut pending = Pending::create(path).map_err(PackError::from)?;
        let index = Output::fill(&mut pending.writer(PageCache::Stays).map_err(PackError::from)?, path, fill)?;
        let ended = write_index(pending.file(), &index);
        ended.map_err(|source| PackError::from(pending.error(source)))?;
        let file = publisher.publish(pending, 0o644).map_err(PackError::from)?;
        Ok(Self { file, index })
    }

    /// Makes a pack that no cache keeps: its file in `directory` has no name and goes when the pack is dropped.
    pub fn temporary<E: From<PackError>>(
        directory: &Path,
        fill: impl FnOnce(BufWriter<Output<'_>>) -> Result<PackIndex, E>,
    ) -> Result<Self, E> {
        let fail = |source| PackError::from(PublishError { path: directory.to_owned(), source });
        std::fs::create_dir_all(directory).map_err(fail)?;
        let mut file = tempfile::tempfile_in(directory).map_err(fail)?;
        let index = Output::fill(&mut file, directory, fill)?;
        Ok(Self { file: Readable::on_its_way(file, directory), index })
    }

    /// Writes the chunks that are wanted as gzip members, in order.
    pub(super) fn write_gzip(&self, wanted: fn(&Chunk) -> bool, out: &mut dyn Write) -> Result<(), CopyError> {
        self.copy(|_, chunk| wanted(chunk), |chunk, stored| chunk.write_gzip(stored, out))
    }

    /// Writes the pack's squashfs blocks, in order, but for the chunks that are `left_out`.
    pub fn write_squashfs(&self, left_out: &BTreeSet<usize>, out: &mut dyn Write) -> Result<(), CopyError> {
        let wanted = |at: usize, chunk: &Chunk| chunk.squashfs_size() > 0 && !left_out.contains(&at);
        self.copy(wanted, |chunk, stored| chunk.write_squashfs(stored, out))
    }

    /// Whether the chunks at `mine` hold the same stored bytes as those of `other` at `theirs`.
    pub fn holds_the_same(&self, mine: &[usize], other: &Self, theirs: &[usize]) -> Result<bool, PackError> {
        let (mut one, mut two) = (self.chunks(mine)?, other.chunks(theirs)?);
        loop {
            match (one.next().transpose()?, two.next().transpose()?) {
                (None, None) => return Ok(true),
                (one, two) if one == two => {}
                _ => return Ok(false),
            }
        }
    }

    /// The stored bytes of the chunks at `wanted`, one by one.
    fn chunks(&self, wanted: &[usize]) -> Result<impl Iterator<Item = Result<Vec<u8>, PackError>>, PackError> {
        let fail = |source| PackError::Read { path: self.file.place().to_owned(), source };
        let mut file = self.file.open().map_err(fail)?;
        let wanted: BTreeSet<usize> = wanted.iter().copied().collect();
        let mut position = 0;
        let places = self.index.chunks.iter().enumerate().filter_map(move |(at, chunk)| {
            position += u64::from(chunk.stored);
            wanted.contains(&at).then_some((position - u64::from(chunk.stored), chunk.stored as usize))
        });
        Ok(places.map(move |(place, length)| {
            let mut stored = vec![0; length];
            file.seek(SeekFrom::Start(place)).and_then(|_| file.read_exact(&mut stored)).map_err(fail)?;
            Ok(stored)
        }))
    }

    /// Writes what the chunks that are wanted hold of the uncompressed tar stream, in order.
    pub(super) fn write_tar(&self, wanted: fn(&Chunk) -> bool, out: &mut dyn Write) -> Result<(), CopyError> {
        let mut decompressor = libdeflater::Decompressor::new();
        let mut raw = Vec::new();
        self.copy(
            |_, chunk| wanted(chunk),
            |chunk, stored| match chunk.encoding {
                Encoding::Stored => out.write_all(stored),
                Encoding::Deflate => {
                    raw.resize(chunk.raw as usize, 0);
                    let length = decompressor.deflate_decompress(stored, &mut raw).map_err(io::Error::other)?;
                    out.write_all(&raw[..length])
                }
            },
        )
    }

    fn copy(
        &self,
        wanted: impl Fn(usize, &Chunk) -> bool,
        mut write: impl FnMut(&Chunk, &[u8]) -> io::Result<()>,
    ) -> Result<(), CopyError> {
        let fail = |source| CopyError::Read(PackError::Read { path: self.file.place().to_owned(), source });
        let mut file = BufReader::with_capacity(1 << 20, self.file.open().map_err(fail)?);
        let mut stored = Vec::new();
        for (at, chunk) in self.index.chunks.iter().enumerate() {
            if !wanted(at, chunk) {
                file.seek_relative(i64::from(chunk.stored)).map_err(fail)?;
                continue;
            }
            stored.resize(chunk.stored as usize, 0);
            file.read_exact(&mut stored).map_err(fail)?;
            if libdeflater::crc32(&stored) != chunk.check {
                return Err(fail(damaged("its content is not what was written")));
            }
            write(chunk, &stored).map_err(CopyError::Write)?;
        }
        Ok(())
    }
}

/// The file of a pack that is being made. The failure of a write is kept here: on its way back through sinks and sources
/// it loses what it is about, and a full disk must not be taken for a damaged package.
pub struct Output<'a> {
    file: &'a mut dyn Write,
    failure: &'a Cell<Option<io::Error>>,
}

impl Output<'_> {
    fn fill<E: From<PackError>>(
        file: &mut dyn Write,
        path: &Path,
        fill: impl FnOnce(BufWriter<Output<'_>>) -> Result<PackIndex, E>,
    ) -> Result<PackIndex, E> {
        let failure = Cell::new(None);
        let filled = fill(BufWriter::with_capacity(1 << 20, Output { file, failure: &failure }));
        match failure.take() {
            Some(source) => Err(PackError::from(PublishError { path: path.to_owned(), source }).into()),
            None => filled,
        }
    }

    fn note<T>(&self, result: io::Result<T>) -> io::Result<T> {
        result.map_err(|error| {
            let kind = error.kind();
            if kind != io::ErrorKind::Interrupted {
                self.failure.set(Some(error));
            }
            kind.into()
        })
    }
}

impl Write for Output<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes);
        self.note(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        let flushed = self.file.flush();
        self.note(flushed)
    }
}

/// Why a pack could not be copied into a result: its own file, or the result's.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// The pack cannot be read.
    #[error(transparent)]
    Read(PackError),
    /// What is copied is no pack, and cannot be read; the caller knows its name.
    #[error("{0}")]
    Source(io::Error),
    /// The result cannot be written; the caller knows its name.
    #[error("{0}")]
    Write(io::Error),
}

fn write_index(file: &mut File, index: &PackIndex) -> io::Result<()> {
    let start = file.stream_position()?;
    let mut bytes = rmp_serde::to_vec(index).map_err(io::Error::other)?;
    let check = libdeflater::crc32(&bytes);
    bytes.extend(start.to_le_bytes());
    bytes.extend(check.to_le_bytes());
    bytes.extend(FORMAT_VERSION.to_le_bytes());
    bytes.extend(MAGIC);
    file.write_all(&bytes)
}

fn damaged(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("it is damaged: {reason}"))
}

fn read_index(path: &Path) -> io::Result<Option<PackIndex>> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let footer_start = length.checked_sub(FOOTER as u64).ok_or_else(|| damaged("it is too short for a pack"))?;
    let mut footer = [0; FOOTER];
    file.seek(SeekFrom::Start(footer_start))?;
    file.read_exact(&mut footer)?;
    let (start, check) = (number(&footer[..8]), number(&footer[8..12]));
    if &footer[16..] != MAGIC {
        return Err(damaged("it does not end as a pack does"));
    }
    if number(&footer[12..16]) != u64::from(FORMAT_VERSION) {
        return Ok(None);
    }
    let size = footer_start.checked_sub(start).ok_or_else(|| damaged("its index lies outside of it"))?;
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(size).read_to_end(&mut bytes)?;
    if u64::from(libdeflater::crc32(&bytes)) != check {
        return Err(damaged("its index is not what was written"));
    }
    let index: PackIndex = rmp_serde::from_slice(&bytes).map_err(|error| damaged(&error.to_string()))?;
    let stored: u64 = index.chunks.iter().map(|chunk| u64::from(chunk.stored)).sum();
    if stored != start {
        return Err(damaged("its chunks and its index disagree"));
    }
    Ok(Some(index))
}

/// A little-endian number.
fn number(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}
