//! Whether a file is what its inputs give: it is made again and compared, and the first difference is named.
//!
//! The new one is a nameless file in the cache, of the size of the one that is compared, and goes by itself. Most of a
//! difference can only be named with both at hand, and beside the file that is compared nothing is written: it may lie
//! where one can only read.

mod facts;
mod json;
mod layer;
mod oci;
mod sif;

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::build::{self, BuildError, Format, Request};
use crate::hashed;
use crate::progress::Progress;
use crate::sif::SQUASHFS_AT;
use crate::store::Store;

/// How much of a file is looked at to tell what it is, in bytes. The texts of a SIF lie there: its squashfs comes later.
const HEAD: u64 = SQUASHFS_AT as u64;
/// How the launch script of every SIF begins.
const LAUNCH_SCRIPT: &[u8] = b"#!/usr/bin/env run-singularity";

/// A file that is what its inputs give.
#[derive(Clone, Debug)]
pub struct Same {
    /// Its format.
    pub format: Format,
    /// The manifest's digest for OCI, the file's for a SIF.
    pub digest: String,
    /// The length of the file in bytes.
    pub size: u64,
}

/// Where two images differ first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The part of the image: a layer and a path in it, or a field.
    pub place: String,
    /// What is different there.
    pub what: String,
    /// What else the image was made from, where it tells. Empty: its bytes have changed since.
    pub causes: Vec<String>,
}

impl Difference {
    fn new(place: impl Into<String>, what: impl Into<String>) -> Self {
        Self { place: place.into(), what: what.into(), causes: Vec::new() }
    }
}

/// Why a file was not found to be what its inputs give.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}\n  hint: name an OCI archive or a SIF that you may read")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no sense in making it again.
    #[error("cannot verify {path}: {reason}\n  hint: {hint}")]
    NotOurs {
        /// The file.
        path: PathBuf,
        /// What it is instead.
        reason: String,
        /// What to do.
        hint: &'static str,
    },
    /// It cannot be made again.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// It is something else.
    #[error("{}", different(.path, *.byte, .difference))]
    Different {
        /// The file.
        path: PathBuf,
        /// The first byte that differs, from 0 on.
        byte: u64,
        /// What lies there.
        difference: Box<Difference>,
    },
}

fn different(path: &Path, byte: u64, difference: &Difference) -> String {
    let Difference { place, what, causes } = difference;
    let causes_said: String = causes.iter().map(|cause| format!("\n  {cause}")).collect();
    let hint = if causes.is_empty() {
        "the file was changed after it was made, or something in its inputs was: build it again"
    } else {
        "verify it with what it was built from, or build it again"
    };
    format!(
        "{} is not what these inputs give; first difference at byte {byte}, in {place}: {what}{causes_said}\n  hint: {hint}",
        path.display()
    )
}

/// Makes the image in `file` again as `request` says, whose places are ignored, and compares the two byte by byte.
pub fn verify(file: &Path, request: &Request, store: &Store, progress: &dyn Progress) -> Result<Same, VerifyError> {
    let fail = |source| VerifyError::Read { path: file.to_owned(), source };
    let mut theirs = open(file).map_err(fail)?;
    let format = recognize(file, &mut theirs)?;
    let place = Some(store.temporary().join("verified"));
    let request = match format {
        Format::Oci => Request { oci: place, sif: None, ..request.clone() },
        Format::Sif => Request { sif: place, oci: None, ..request.clone() },
    };
    let Some((_, mut made)) = build::unpublished(&request, store, progress)?.pop() else {
        return Err(fail(io::Error::other("it could not be made again")));
    };
    progress.phase("Comparing");
    match compare(format, &mut theirs, made.file.file()).map_err(fail)? {
        None => {
            let digest = match format {
                Format::Oci => made.id,
                Format::Sif => theirs.rewind().and_then(|()| hashed::all_of(&theirs)).map_err(fail)?.0.to_string(),
            };
            Ok(Same { format, digest, size: made.size })
        }
        Some((byte, difference)) => {
            Err(VerifyError::Different { path: file.to_owned(), byte, difference: Box::new(difference) })
        }
    }
}

/// The first byte in which a file differs from one that is whole, and what lies there; none where they are the same.
pub fn compare(format: Format, theirs: &mut File, ours: &mut File) -> io::Result<Option<(u64, Difference)>> {
    let Some(byte) = first_difference(theirs, ours, 0)? else { return Ok(None) };
    let (length, expected) = (theirs.seek(SeekFrom::End(0))?, ours.seek(SeekFrom::End(0))?);
    if byte == expected {
        let what = format!("{} bytes too many", length - expected);
        return Ok(Some((byte, Difference::new("what follows its end", what))));
    }
    let explained = match format {
        Format::Oci => oci::explain(theirs, ours, byte),
        Format::Sif => sif::explain(theirs, ours, byte),
    };
    // Whatever is so broken that its place has no name has changed all the same.
    let unnamed = |error: io::Error| Difference::new("a part that cannot be read", error.to_string());
    let mut difference = explained.unwrap_or_else(unnamed);
    if byte == length {
        difference.what = format!("the file is cut short, {length} of {expected} bytes are there");
        difference.causes.clear();
    }
    Ok(Some((byte, difference)))
}

fn open(path: &Path) -> io::Result<File> {
    // Opening a pipe would wait for somebody to write into it.
    match std::fs::metadata(path)? {
        there if there.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        there if !there.is_file() => Err(io::Error::other("it is a device, pipe or socket")),
        _ => File::open(path),
    }
}

/// Tells the format of a file, and refuses what this program did not make: other programs write the time into images, so
/// theirs cannot be made again. A file of ours that is damaged must come through.
fn recognize(path: &Path, file: &mut File) -> Result<Format, VerifyError> {
    let fail = |source| VerifyError::Read { path: path.to_owned(), source };
    let not_ours = |reason: String, hint| VerifyError::NotOurs { path: path.to_owned(), reason, hint };
    const OTHER: &str = "only images of `pixi-image build` are the same bytes each time they are made; \
                         `pixi-image test` checks what others hold";
    let mut head = Vec::new();
    file.take(HEAD).read_to_end(&mut head).map_err(fail)?;
    let is = |at: usize, what: &[u8]| head.get(at..).is_some_and(|rest| rest.starts_with(what));
    if is(0, LAUNCH_SCRIPT) || is(32, b"SIF_MAGIC") {
        // The definition file and what is said of it come first. Where not even they are there, it is cut short.
        let has_name = memchr::memmem::find(&head, b"pixi-image").is_some();
        return match has_name || head.len() < 1 << 16 {
            true => Ok(Format::Sif),
            false => Err(not_ours("it is a SIF that another program made".into(), OTHER)),
        };
    }
    if is(257, b"ustar") || is(0, b"blobs/") {
        let said = oci::makers(file);
        return match said {
            Ok(makers) if makers.iter().any(|by| by.starts_with("pixi-image")) => Ok(Format::Oci),
            Ok(_) => Err(not_ours("it is an image that another program made".into(), OTHER)),
            Err(_) if is(0, b"blobs/\0") || is(512, b"blobs/sha256/\0") => Ok(Format::Oci),
            Err(reason) => Err(not_ours(format!("it is no OCI archive of this program: {reason}"), OTHER)),
        };
    }
    let reason = match head.as_slice() {
        [] => "it is empty",
        [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] => "it is compressed as a whole, which this program never does",
        _ => "it is neither an OCI archive nor a SIF",
    };
    Err(not_ours(reason.into(), "name an image that `pixi-image build` made"))
}

/// The first byte from `from` on in which two files differ; where one ends before the other, its end.
fn first_difference(one: &mut File, other: &mut File, from: u64) -> io::Result<Option<u64>> {
    one.seek(SeekFrom::Start(from))?;
    other.seek(SeekFrom::Start(from))?;
    Ok(match streams(&mut *one, &mut *other)? {
        Outcome::Same => None,
        Outcome::Differs(at) => Some(from + at),
        Outcome::Broken(reason) => return Err(io::Error::other(reason)),
    })
}

/// How two streams compare.
enum Outcome {
    Same,
    /// The first byte that differs; where one ends before the other, its end.
    Differs(u64),
    /// The first stream could not be read to its end, and was the same so far.
    Broken(String),
}

/// Compares what two readers give. Errors are of the second.
fn streams(one: impl Read, other: impl Read) -> io::Result<Outcome> {
    use std::io::BufRead;
    let mut one = BufReader::with_capacity(1 << 18, one);
    let mut other = BufReader::with_capacity(1 << 18, other);
    let mut at = 0;
    loop {
        let left = match one.fill_buf() {
            Ok(left) => left,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Ok(Outcome::Broken(error.to_string())),
        };
        let right = other.fill_buf()?;
        let length = left.len().min(right.len());
        if length == 0 {
            return Ok(if left.len() == right.len() { Outcome::Same } else { Outcome::Differs(at) });
        }
        if left[..length] != right[..length] {
            let same = left.iter().zip(right).take_while(|(left, right)| left == right).count();
            return Ok(Outcome::Differs(at + same as u64));
        }
        one.consume(length);
        other.consume(length);
        at += length as u64;
    }
}

/// A piece of a file, read from there on each time.
fn section(file: &File, start: u64, size: u64) -> io::Result<Section> {
    Ok(Section { file: file.try_clone()?, position: start, end: start.saturating_add(size) })
}

/// Reads at a position of its own, so that several can read one file at once.
struct Section {
    file: File,
    position: u64,
    end: u64,
}

impl Read for Section {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end.saturating_sub(self.position)).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        #[cfg(unix)]
        let read = std::os::unix::fs::FileExt::read_at(&self.file, &mut buffer[..wanted], self.position)?;
        #[cfg(windows)]
        let read = std::os::windows::fs::FileExt::seek_read(&self.file, &mut buffer[..wanted], self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}

/// A piece of a file of at most `limit` bytes, or what is there of it.
fn bytes(file: &File, start: u64, size: u64, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    section(file, start, size.min(limit))?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The field that holds the byte `at` of a structure of fields, given by name and size.
fn field(fields: &[(&'static str, u64)], mut at: u64) -> Option<&'static str> {
    for (name, size) in fields {
        match at.checked_sub(*size) {
            Some(rest) => at = rest,
            None => return Some(name),
        }
    }
    None
}

/// A list of which only the first are named.
fn some_of(names: &[String]) -> String {
    match names {
        [first, second, third, _, ..] => format!("{first}, {second}, {third} and {} more", names.len() - 3),
        _ => names.join(", "),
    }
}
