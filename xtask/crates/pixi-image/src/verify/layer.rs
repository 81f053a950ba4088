//! Where two layers differ: the path in their tar streams, and what of it.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader, Read};

use super::facts::printable;
use super::{Outcome, field, streams};

/// The fields of a tar header in their order: name and size in bytes.
pub const HEADER_FIELDS: [(&str, u64); 16] = [
    ("name", 100),
    ("mode", 8),
    ("owner", 8),
    ("group", 8),
    ("size", 12),
    ("time", 12),
    ("checksum", 8),
    ("type", 1),
    ("link target", 100),
    ("magic", 6),
    ("version", 2),
    ("owner's name", 32),
    ("group's name", 32),
    ("device's major number", 8),
    ("device's minor number", 8),
    ("unused rest", 167),
];
/// A file of the workspace larger than this is not compared, in bytes.
const FILE_LIMIT: u64 = 1 << 26;
/// The size of the header and of the trailer of a gzip member (RFC 1952).
const GZIP_HEADER: u64 = 10;
const GZIP_TRAILER: u64 = 8;

/// How a layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    Gzip,
    Zstd,
    None,
}

impl Compression {
    /// By the media type.
    pub fn of(media_type: &str) -> Self {
        match media_type {
            kind if kind.ends_with("gzip") => Self::Gzip,
            kind if kind.ends_with("zstd") => Self::Zstd,
            _ => Self::None,
        }
    }

    /// The tar stream of a blob.
    pub fn inflated<'a>(self, blob: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
        let blob = BufReader::with_capacity(1 << 17, blob);
        Ok(match self {
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(blob)),
            Self::Zstd => Box::new(zstd::Decoder::with_buffer(blob)?),
            Self::None => Box::new(blob),
        })
    }
}

/// Says where a blob differs from ours, which is whole, and at which of its bytes: path, and what of it. Each blob is opened
/// anew whenever it is read.
pub fn damage<R: Read>(
    compression: Compression,
    theirs: &dyn Fn() -> io::Result<R>,
    ours: &dyn Fn() -> io::Result<R>,
    byte: u64,
) -> io::Result<(String, String)> {
    let place = |at| locate(compression.inflated(ours()?)?, at);
    match streams(compression.inflated(theirs()?)?, compression.inflated(ours()?)?)? {
        Outcome::Differs(at) if compression == Compression::None => place(at),
        Outcome::Differs(at) => {
            let (path, what) = place(at)?;
            Ok((path, format!("{what}; its compressed data was changed")))
        }
        Outcome::Broken(reason) => {
            let (at, part) = inside(compression, ours, byte)?;
            let (path, _) = place(at)?;
            Ok((path, format!("{part} is damaged and cannot be read any more, {reason}")))
        }
        Outcome::Same => {
            let (at, part) = inside(compression, ours, byte)?;
            let (path, _) = place(at)?;
            Ok((path, format!("{part} is another, though what it holds is the same")))
        }
    }
}

/// Which byte of the tar stream the byte of a blob stands for, and which part of the compressed form it is.
fn inside<R: Read>(
    compression: Compression,
    blob: &dyn Fn() -> io::Result<R>,
    byte: u64,
) -> io::Result<(u64, &'static str)> {
    if compression != Compression::Gzip {
        return Ok((produced(compression.inflated(blob()?.take(byte))?), "its compressed data"));
    }
    let mut members = Counted { inner: BufReader::with_capacity(1 << 17, blob()?), count: 0 };
    let mut raw = 0;
    while !members.fill_buf()?.is_empty() {
        let start = members.count;
        let size = io::copy(&mut flate2::bufread::GzDecoder::new(&mut members), &mut io::sink())?;
        let end = members.count;
        if byte >= end {
            raw += size;
            continue;
        }
        let last = (raw + size).saturating_sub(1).max(raw);
        if byte < start + GZIP_HEADER {
            return Ok((raw, "the gzip header of its data"));
        }
        if byte >= end - GZIP_TRAILER {
            return Ok((last, "the gzip checksum of its data"));
        }
        let mut blob = blob()?;
        io::copy(&mut (&mut blob).take(start), &mut io::sink())?;
        let before = produced(flate2::bufread::GzDecoder::new(BufReader::new(blob.take(byte - start))));
        return Ok(((raw + before).min(last), "its compressed data"));
    }
    Ok((raw, "the end of the compressed data"))
}

/// How many bytes a stream gives before it breaks off.
fn produced(mut stream: impl Read) -> u64 {
    let (mut count, mut buffer) = (0, [0; 1 << 13]);
    loop {
        match stream.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => return count,
            Ok(read) => count += read as u64,
        }
    }
}

/// Counts what is consumed.
struct Counted<R> {
    inner: R,
    count: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.count += read as u64;
        Ok(read)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.count += amount as u64;
        self.inner.consume(amount);
    }
}

/// The path that a byte of a tar stream belongs to, and which part of its entry it is.
fn locate(tar: impl Read, at: u64) -> io::Result<(String, String)> {
    let mut archive = tar::Archive::new(tar);
    for entry in archive.entries()? {
        let entry = entry?;
        let (header, content, size) = (entry.raw_header_position(), entry.raw_file_position(), entry.size());
        if at >= content + size.next_multiple_of(512) {
            continue;
        }
        let what = match at {
            at if at < header => "its long name differs".to_owned(),
            at if at < content => {
                let field = field(&HEADER_FIELDS, at - header).unwrap_or("header");
                format!("its {field} differs in the tar header")
            }
            at if at < content + size => format!("its content differs, at byte {} of {size}", at - content),
            _ => "the padding behind it differs".to_owned(),
        };
        return Ok((shown(&entry.path_bytes()), what));
    }
    Ok(("the end of its tar stream".into(), "it differs".into()))
}

/// What stands of an entry in its headers.
#[derive(PartialEq, Eq)]
struct Head {
    path: Vec<u8>,
    kind: u8,
    mode: Option<u32>,
    mtime: Option<u64>,
    owner: (Option<u64>, Option<u64>),
    link: Option<Vec<u8>>,
    size: u64,
}

impl Head {
    fn of<R: Read>(entry: &tar::Entry<'_, R>) -> Self {
        let header = entry.header();
        Self {
            path: entry.path_bytes().into_owned(),
            kind: header.entry_type().as_byte(),
            mode: header.mode().ok(),
            mtime: header.mtime().ok(),
            owner: (header.uid().ok(), header.gid().ok()),
            link: entry.link_name_bytes().map(std::borrow::Cow::into_owned),
            size: entry.size(),
        }
    }

    /// How another entry of the same path differs.
    fn difference(&self, ours: &Self) -> Option<String> {
        let octal = |mode: Option<u32>| mode.map_or("none".into(), |mode| format!("{mode:04o}"));
        let seconds = |time: Option<u64>| time.map_or("none".into(), |time| time.to_string());
        let target = |link: &Option<Vec<u8>>| link.as_deref().map_or("none".into(), shown);
        if self.kind != ours.kind {
            return Some("it is of another kind".into());
        }
        if self.mode != ours.mode {
            return Some(format!("its mode is {}, expected {}", octal(self.mode), octal(ours.mode)));
        }
        if self.mtime != ours.mtime {
            return Some(format!("its time is {}, expected {}", seconds(self.mtime), seconds(ours.mtime)));
        }
        if self.link != ours.link {
            return Some(format!("it links to {}, expected {}", target(&self.link), target(&ours.link)));
        }
        if self.size != ours.size {
            return Some(format!("its content differs: {} bytes, expected {}", self.size, ours.size));
        }
        (self.owner != ours.owner).then(|| "it has another owner".into())
    }
}

/// The first path in which two tar streams differ, and what of it; none where they hold the same.
pub fn difference<R: Read>(
    theirs: &dyn Fn() -> io::Result<R>,
    ours: &dyn Fn() -> io::Result<R>,
) -> io::Result<Option<(String, String)>> {
    let (mut left, mut right) = (tar::Archive::new(theirs()?), tar::Archive::new(ours()?));
    let (mut left, mut right) = (left.entries()?, right.entries()?);
    let mut last = String::new();
    loop {
        let mut other = match left.next().transpose() {
            Ok(other) => other,
            Err(error) => return Ok(Some((last, format!("what follows it cannot be read, {error}")))),
        };
        let mut own = right.next().transpose()?;
        let (other, own) = match (&mut other, &mut own) {
            (None, None) => return Ok(None),
            (Some(other), None) => return Ok(Some((shown(&other.path_bytes()), "it should not be there".into()))),
            (None, Some(own)) => return Ok(Some((shown(&own.path_bytes()), "it is missing".into()))),
            (Some(other), Some(own)) => (other, own),
        };
        let (head, expected) = (Head::of(other), Head::of(own));
        let path = shown(&expected.path);
        if head.path != expected.path {
            let there = paths(theirs()?);
            return Ok(Some(match there.contains(&expected.path) {
                false => (path, "it is missing".into()),
                true if !paths(ours()?).contains(&head.path) => (shown(&head.path), "it should not be there".into()),
                true => (path, format!("it stands at another place; {} is there", shown(&head.path))),
            }));
        }
        if let Some(what) = head.difference(&expected) {
            return Ok(Some((path, what)));
        }
        match streams(other, own)? {
            Outcome::Same => {}
            Outcome::Differs(at) => {
                return Ok(Some((path, format!("its content differs, at byte {at} of {}", expected.size))));
            }
            Outcome::Broken(reason) => return Ok(Some((path, format!("it cannot be read, {reason}")))),
        }
        last = path;
    }
}

/// The paths of a tar stream, as far as it can be read.
fn paths(tar: impl Read) -> BTreeSet<Vec<u8>> {
    let mut archive = tar::Archive::new(tar);
    let entries = archive.entries().into_iter().flatten().map_while(Result::ok);
    entries.map(|entry| entry.path_bytes().into_owned()).collect()
}

/// The contents of some files of a tar stream, by path, as far as it can be read.
pub fn contents(tar: impl Read, wanted: &[&str]) -> Vec<(String, Vec<u8>)> {
    let mut archive = tar::Archive::new(tar);
    let mut found = Vec::new();
    for entry in archive.entries().into_iter().flatten().map_while(Result::ok) {
        let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        if wanted.contains(&path.as_str()) && entry.size() <= FILE_LIMIT {
            let mut content = Vec::new();
            if entry.take(FILE_LIMIT).read_to_end(&mut content).is_ok() {
                found.push((path, content));
            }
        }
    }
    found
}

/// A path as it is shown.
fn shown(path: &[u8]) -> String {
    printable(&String::from_utf8_lossy(path))
}
