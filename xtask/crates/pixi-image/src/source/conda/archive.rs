//! Opens the tar streams of a package archive.
//!
//! A .conda file is a zip archive of stored members: `info-*.tar.zst` holds `info/`, `pkg-*.tar.zst` everything else. A
//! .tar.bz2 holds both in one stream. The format is told by the first bytes, because a cached archive has no telling
//! name.

use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{MAX_INFO, MAX_UNPACKED, Problem};
use crate::publish::{Positioned, Readable};

/// What is read from and what is decoded at a time.
const BUFFER: usize = 128 << 10;

/// The largest window of a zstd stream that any number of threads may have. conda-forge's have 8 MiB; the highest level of
/// all makes 128 MiB.
const COMMON_WINDOW: u64 = 16 << 20;

/// Whose turn it is to decode with a larger one: a process has the memory for one at a time.
static LARGE_WINDOW: Mutex<()> = Mutex::new(());

/// Which half of a package.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// At least `info/`.
    Info,
    /// At least everything else.
    Contents,
}

/// The tar stream that holds `part`.
pub(super) fn open(archive: &Readable, part: Part) -> Result<Box<dyn Read>, Problem> {
    let cannot_open = |error| Problem::Open { path: archive.place().to_owned(), error };
    let mut file = archive.open().map_err(cannot_open)?;
    let mut magic = Vec::new();
    (&mut file).take(4).read_to_end(&mut magic).map_err(Problem::Read)?;
    file.rewind().map_err(Problem::Read)?;
    match magic.as_slice() {
        b"PK\x03\x04" => open_conda(file, part),
        [b'B', b'Z', b'h', _] => {
            let decoder = bzip2::read::MultiBzDecoder::new(BufReader::with_capacity(BUFFER, file));
            Ok(Box::new(buffered(decoder, MAX_UNPACKED)))
        }
        _ => Err(Problem::UnknownFormat),
    }
}

fn open_conda(file: Positioned, part: Part) -> Result<Box<dyn Read>, Problem> {
    let (name, limit) = match part {
        Part::Info => ("info", MAX_INFO),
        Part::Contents => ("pkg", MAX_UNPACKED),
    };
    let (file, start, length) = find_part(file, name)?;
    let mut stored = BufReader::with_capacity(BUFFER, file);
    stored.seek(SeekFrom::Start(start)).map_err(Problem::Read)?;
    let window = window_size(stored.fill_buf().map_err(Problem::Read)?);
    // The other part is so small that it fills no window.
    let is_large = part == Part::Contents && window.is_some_and(|window| window > COMMON_WINDOW);
    let turn = is_large.then(|| LARGE_WINDOW.lock().unwrap_or_else(PoisonError::into_inner));
    let decoder = zstd::stream::read::Decoder::with_buffer(stored.take(length)).map_err(Problem::Read)?;
    Ok(Box::new(buffered(InTurn { decoder, _turn: turn }, limit)))
}

/// How many bytes a decoder of this frame keeps (RFC 8878, section 3.1.1.1); none of what is no zstd frame.
fn window_size(frame: &[u8]) -> Option<u64> {
    let rest = frame.strip_prefix(&[0x28, 0xb5, 0x2f, 0xfd])?;
    let (descriptor, rest) = rest.split_first()?;
    if descriptor & 0x20 == 0 {
        let window = rest.first()?;
        let base = 1u64 << (10 + (window >> 3));
        return Some(base + base / 8 * u64::from(window & 7));
    }
    // A single segment: the window is the content, whose size follows the id of a dictionary.
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let (length, base) = [(1, 0), (2, 256), (4, 0), (8, 0)][usize::from(descriptor >> 6)];
    let size = rest.get(dictionary..dictionary + length)?;
    Some(base + size.iter().rev().fold(0, |size, byte| size << 8 | u64::from(*byte)))
}

/// A decoder and, behind it, its turn.
struct InTurn<R> {
    decoder: R,
    _turn: Option<MutexGuard<'static, ()>>,
}

impl<R: Read> Read for InTurn<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.decoder.read(buffer)
    }
}

/// Where `<part>-*.tar.zst` lies in the zip archive, which is no more than a table of contents here.
fn find_part(file: Positioned, part: &'static str) -> Result<(Positioned, u64, u64), Problem> {
    let zip_error = |error: zip::result::ZipError| Problem::Read(io::Error::new(io::ErrorKind::InvalidData, error));
    let mut zip = zip::ZipArchive::new(file).map_err(zip_error)?;
    let mut found = Vec::new();
    for index in 0..zip.len() {
        let member = zip.by_index_raw(index).map_err(zip_error)?;
        let name = member.name().map_err(zip_error)?.into_owned();
        let is_part = name.strip_prefix(part).is_some_and(|rest| rest.starts_with('-') && rest.ends_with(".tar.zst"));
        if !is_part {
            continue;
        }
        let start = member.data_start();
        match start {
            Some(start) if member.compression() == zip::CompressionMethod::Stored && !member.encrypted() => {
                found.push((start, member.compressed_size()));
            }
            _ => return Err(Problem::NotStored(name)),
        }
    }
    match found.as_slice() {
        [(start, length)] => Ok((zip.into_inner(), *start, *length)),
        _ => Err(Problem::Parts { part, found: found.len() }),
    }
}

fn buffered(decoder: impl Read, limit: u64) -> impl Read {
    BufReader::with_capacity(BUFFER, Limited { decoder, left: limit, limit })
}

/// Fails once a decoder yields more than `limit` bytes.
struct Limited<R> {
    decoder: R,
    left: u64,
    limit: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.decoder.read(buffer)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| {
            let message = format!("it unpacks to more than {} bytes", self.limit);
            io::Error::new(io::ErrorKind::FileTooLarge, message)
        })?;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn the_window_of_a_stream_stands_in_its_header() {
        for log in [17, 23, 27] {
            let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
            encoder.window_log(log).unwrap();
            encoder.flush().unwrap(); // what is known to be all has one segment
            let frame = encoder.finish().unwrap();
            assert_eq!(window_size(&frame), Some(1 << log));
        }
        for size in [0, 255, 256, 65_791, 65_792] {
            let frame = zstd::bulk::compress(&vec![0; size], 1).unwrap();
            assert_eq!(window_size(&frame), Some(size as u64));
        }
        assert_eq!(window_size(b""), None);
        assert_eq!(window_size(b"PK\x03\x04 and more"), None);
    }

    #[test]
    fn a_bomb_ends_at_the_limit() {
        let mut bomb = buffered(io::repeat(0), 1 << 20);
        let error = io::copy(&mut bomb, &mut io::sink()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(io::copy(&mut buffered(io::repeat(0).take(1 << 20), 1 << 20), &mut io::sink()).unwrap(), 1 << 20);
    }
}
