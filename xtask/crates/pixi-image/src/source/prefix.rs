//! Prefix replacement in text and binary files.
//!
//! A conda package is built in a prefix with a long made-up name, the placeholder, and `info/paths.json` names the
//! files that hold it. The rules are those of rattler, byte for byte, so that an image equals what `pixi install` would
//! have made: the placeholder is replaced as UTF-8 and as UTF-16 and UTF-32 of both byte orders; in binary files the C
//! string that holds it keeps its length, padded with NULs; and a `#!` line that the kernel would cut off goes through
//! `env` or `sh`.

mod binary;

use memchr::memmem;
use rattler_conda_types::Subdir;
use rattler_conda_types::package::OffsetEncoding;

pub use binary::{BinaryError, PrefixTooLong, replace_binary};

/// The longest `#!` line that Linux reads in full (`BINPRM_BUF_SIZE` of kernels before 5.1, less the NUL).
const LONGEST_SHEBANG_LINUX: usize = 127;
/// The longest `#!` line that macOS reads in full.
const LONGEST_SHEBANG_MACOS: usize = 512;

/// `content` with every `placeholder` replaced by `prefix`; the length may change. A `#!` line of a unix `subdir` stays
/// one that its kernel reads.
///
/// It differs from rattler in one thing: bytes of a `#!` line that are not UTF-8 are kept as they are.
pub fn replace_text(content: &[u8], placeholder: &str, prefix: &str, subdir: Subdir) -> Vec<u8> {
    let encodings = Encoded::all(placeholder, prefix);
    if encodings.is_empty() {
        return content.to_vec();
    }
    let mut replaced = Vec::with_capacity(content.len());
    let mut position = 0;
    if subdir.is_unix() && content.starts_with(b"#!") {
        let end = memchr::memchr(b'\n', content).unwrap_or(content.len());
        replaced.extend(replace_shebang(&content[..end], placeholder, prefix, subdir));
        replaced.extend(&content[end..content.len().min(end + 1)]);
        position = content.len().min(end + 1);
    }
    for occurrence in text_occurrences(content, &encodings) {
        if occurrence.offset < position {
            continue; // within the `#!` line
        }
        replaced.extend(&content[position..occurrence.offset]);
        replaced.extend(&occurrence.encoded.prefix);
        position = occurrence.end();
    }
    replaced.extend(&content[position..]);
    replaced
}

/// The placeholder and what takes its place, in one encoding.
struct Encoded {
    encoding: OffsetEncoding,
    placeholder: Vec<u8>,
    prefix: Vec<u8>,
}

impl Encoded {
    /// All encodings that files may hold; none for an empty placeholder, which would be found everywhere.
    fn all(placeholder: &str, prefix: &str) -> Vec<Self> {
        if placeholder.is_empty() {
            return Vec::new();
        }
        let encoded = |encoding: OffsetEncoding| Self {
            encoding,
            placeholder: encoding.encode(placeholder),
            prefix: encoding.encode(prefix),
        };
        OffsetEncoding::DEFINED.map(encoded).into()
    }

    fn unit(&self) -> usize {
        self.encoding.code_unit_size()
    }
}

/// Where a text file holds the placeholder.
struct Occurrence<'a> {
    offset: usize,
    encoded: &'a Encoded,
}

impl Occurrence<'_> {
    fn end(&self) -> usize {
        self.offset + self.encoded.placeholder.len()
    }

    /// Which of two overlapping occurrences is real: the lower. The encodings of one text are shifted forms of each
    /// other, so each UTF-16 occurrence has a twin of the other byte order one byte off; the real one stands at a
    /// multiple of its unit.
    fn rank(&self) -> u8 {
        match self.encoded.encoding {
            OffsetEncoding::Utf8 => 0,
            _ if self.offset.is_multiple_of(self.encoded.unit()) => 1,
            _ => 2,
        }
    }
}

/// The occurrences in a text file, in order, none overlapping another.
fn text_occurrences<'a>(content: &[u8], encodings: &'a [Encoded]) -> Vec<Occurrence<'a>> {
    let mut candidates: Vec<Occurrence<'a>> = Vec::new();
    for encoded in encodings {
        let found = memmem::find_iter(content, &encoded.placeholder);
        candidates.extend(found.map(|offset| Occurrence { offset, encoded }));
    }
    candidates.sort_by_key(|candidate| candidate.offset);
    let mut kept: Vec<Occurrence<'a>> = Vec::with_capacity(candidates.len());
    for candidate in candidates {
        match kept.last_mut() {
            Some(last) if candidate.offset < last.end() => {
                if candidate.rank() < last.rank() {
                    *last = candidate;
                }
            }
            _ => kept.push(candidate),
        }
    }
    kept
}

/// The `#!` line, without its line feed, with the placeholder replaced. One that the kernel would cut off, or split at
/// a space of the prefix, is run through `env` (or `sh`, for python).
fn replace_shebang(line: &[u8], placeholder: &str, prefix: &str, subdir: Subdir) -> Vec<u8> {
    if prefix.contains(' ') {
        return match memmem::find(line, placeholder.as_bytes()) {
            None => line.to_vec(),
            Some(_) => replace_all(&without_limit(line), placeholder, prefix),
        };
    }
    let line = replace_all(line, placeholder, prefix);
    let longest = match subdir {
        _ if subdir.is_linux() || subdir.is_android() => LONGEST_SHEBANG_LINUX,
        _ if subdir.is_osx() || subdir.is_ios() => LONGEST_SHEBANG_MACOS,
        _ => usize::MAX,
    };
    if line.len() <= longest { line } else { without_limit(&line) }
}

fn replace_all(text: &[u8], placeholder: &str, prefix: &str) -> Vec<u8> {
    let mut replaced = Vec::with_capacity(text.len());
    let mut position = 0;
    for found in memmem::find_iter(text, placeholder) {
        replaced.extend(&text[position..found]);
        replaced.extend(prefix.as_bytes());
        position = found + placeholder.len();
    }
    replaced.extend(&text[position..]);
    replaced
}

/// A `#!` line that has the same effect but no limit of length: `#!/usr/bin/env <program> <arguments>`, and for python,
/// which must be the one of the environment, a line that is both `sh` and python.
fn without_limit(line: &[u8]) -> Vec<u8> {
    let Some((program, arguments)) = split_shebang(line) else { return line.to_vec() };
    let name = program.rsplit(|byte| *byte == b'/').next().unwrap_or(program);
    if is_python(name) {
        [b"#!/bin/sh\n'''exec' \"".as_slice(), program, b"\"", arguments, b" \"$0\" \"$@\" #'''"].concat()
    } else {
        [b"#!/usr/bin/env ".as_slice(), name, arguments].concat()
    }
}

/// The absolute path of the program, in which spaces are escaped by `\`, and the rest of the line.
fn split_shebang(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let line = line.strip_prefix(b"#!")?;
    let line = &line[line.iter().position(|byte| *byte != b' ')?..];
    if line[0] != b'/' {
        return None;
    }
    let mut end = 1;
    while end < line.len() {
        match &line[end..] {
            [b'\\', b' ', ..] => end += 2,
            [b' ' | b'\r' | b'\t', ..] => break,
            _ => end += 1,
        }
    }
    Some(line.split_at(end))
}

/// `python`, `python3` or `python3.12`.
fn is_python(name: &[u8]) -> bool {
    let digits = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    match name.strip_prefix(b"python") {
        None => false,
        Some(b"") => true,
        Some(version) => match version.iter().position(|byte| *byte == b'.') {
            None => digits(version),
            Some(dot) => digits(&version[..dot]) && digits(&version[dot + 1..]),
        },
    }
}

#[cfg(test)]
mod tests;
