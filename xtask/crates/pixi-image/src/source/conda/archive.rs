//! Opens the tar streams of a package archive.
//!
//! A .conda file is a zip archive of stored members: `info-*.tar.zst` holds `info/`, `pkg-*.tar.zst` everything else. A
//! .tar.bz2 holds both in one stream. The format is told by the first bytes, because a cached archive has no telling
//! name.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use super::{MAX_INFO, MAX_UNPACKED, Problem};

/// What is read from and what is decoded at a time.
const BUFFER: usize = 128 << 10;

/// Which half of a package.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// At least `info/`.
    Info,
    /// At least everything else.
    Contents,
}

/// The tar stream that holds `part`.
pub(super) fn open(path: &Path, part: Part) -> Result<Box<dyn Read>, Problem> {
    let cannot_open = |error| Problem::Open { path: path.to_owned(), error };
    let mut file = File::open(path).map_err(cannot_open)?;
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

fn open_conda(file: File, part: Part) -> Result<Box<dyn Read>, Problem> {
    let (name, limit) = match part {
        Part::Info => ("info", MAX_INFO),
        Part::Contents => ("pkg", MAX_UNPACKED),
    };
    let (file, start, length) = find_part(file, name)?;
    let mut stored = BufReader::with_capacity(BUFFER, file);
    stored.seek(SeekFrom::Start(start)).map_err(Problem::Read)?;
    let decoder = zstd::stream::read::Decoder::with_buffer(stored.take(length)).map_err(Problem::Read)?;
    Ok(Box::new(buffered(decoder, limit)))
}

/// Where `<part>-*.tar.zst` lies in the zip archive, which is no more than a table of contents here.
fn find_part(file: File, part: &'static str) -> Result<(File, u64, u64), Problem> {
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
    use super::*;

    #[test]
    fn a_bomb_ends_at_the_limit() {
        let mut bomb = buffered(io::repeat(0), 1 << 20);
        let error = io::copy(&mut bomb, &mut io::sink()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(io::copy(&mut buffered(io::repeat(0).take(1 << 20), 1 << 20), &mut io::sink()).unwrap(), 1 << 20);
    }
}
