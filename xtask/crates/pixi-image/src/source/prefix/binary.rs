//! Prefix replacement in binary files, which are as large as libraries are: only a window of one is ever in memory.

use std::collections::BTreeMap;
use std::io::{self, Read};

use memchr::memmem;
use rattler_conda_types::package::OffsetEncoding;

use super::Encoded;

/// How much of a file is looked at at a time. Larger only while a string that holds the placeholder does not end.
const WINDOW: usize = 256 << 10;
/// The longest string that may hold the placeholder: so much is in memory while its end is looked for.
const LONGEST: usize = 1 << 30;
/// The largest code unit of all encodings: windows begin at its multiples, so that alignment is that of the file.
const ALIGNMENT: usize = 4;

/// A prefix that does not fit where a binary file holds the placeholder.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the prefix `{prefix}` is longer than the placeholder of {placeholder_len} bytes that it replaces in a binary file\
     \n  hint: lock another build of the package; an installation elsewhere than in an image may have a shorter path"
)]
pub struct PrefixTooLong {
    /// The prefix of the image.
    pub prefix: String,
    /// The length of the package's placeholder, in bytes of the encoding found.
    pub placeholder_len: usize,
}

/// Why a binary file cannot be copied.
#[derive(Debug, thiserror::Error)]
pub enum BinaryError {
    /// The prefix is too long.
    #[error(transparent)]
    PrefixTooLong(#[from] PrefixTooLong),
    /// A string that holds the placeholder goes on for more than this many bytes.
    #[error("a string that holds the placeholder is longer than {0} bytes")]
    Endless(u64),
    /// The file cannot be read.
    #[error("it cannot be read: {0}")]
    Read(io::Error),
    /// The copy cannot be written.
    #[error("its copy cannot be written: {0}")]
    Write(io::Error),
}

/// Copies `content` to `write` with every `placeholder` in its C strings replaced by `prefix`. What follows in the string
/// moves up and NULs fill the gap, so the length stays.
pub fn replace_binary(
    content: &mut dyn Read,
    placeholder: &str,
    prefix: &str,
    write: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), BinaryError> {
    replace_in_windows(content, &Encoded::all(placeholder, prefix), prefix, WINDOW, write)
}

pub(super) fn replace_in_windows(
    content: &mut dyn Read,
    encodings: &[Encoded],
    prefix: &str,
    least: usize,
    write: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), BinaryError> {
    let longest = encodings.iter().map(|encoded| encoded.placeholder.len()).max().unwrap_or(0);
    let mut window = Vec::new();
    loop {
        // What is left undecided makes the window grow, so that it is looked at again a few times only.
        let room = least.max(window.len());
        window.reserve_exact(room);
        let read = (&mut *content).take(room as u64).read_to_end(&mut window).map_err(BinaryError::Read)?;
        let mut strings: Vec<_> = encodings.iter().flat_map(|encoded| candidates(&window, encoded)).collect();
        let ended = read < room;
        let decided = if ended { window.len() } else { decided(window.len(), &mut strings, longest) };
        if decided == 0 && window.len() > LONGEST {
            return Err(BinaryError::Endless(LONGEST as u64));
        }
        strings.retain(|string| string.offsets[0] < decided);
        replace(&mut window[..decided], &disjoint(strings), prefix)?;
        write(&window[..decided]).map_err(BinaryError::Write)?;
        if ended {
            return Ok(());
        }
        window.drain(..decided);
    }
}

/// How much of the first `length` bytes of a file can be replaced without the rest: no placeholder and no string that
/// holds one reaches over that place.
fn decided(length: usize, strings: &mut [CString<'_>], longest: usize) -> usize {
    let aligned = |place: usize| place / ALIGNMENT * ALIGNMENT;
    strings.sort_by_key(|string| string.offsets[0]);
    let start = aligned((length + 1).saturating_sub(longest).min(length));
    strings.iter().rev().fold(start, |place, string| match string.offsets[0] {
        first if first < place && place < string.end => aligned(first),
        _ => place,
    })
}

fn replace(content: &mut [u8], strings: &[CString<'_>], prefix: &str) -> Result<(), PrefixTooLong> {
    for CString { offsets, end, encoded, .. } in strings {
        if encoded.prefix.len() > encoded.placeholder.len() {
            return Err(PrefixTooLong { prefix: prefix.to_owned(), placeholder_len: encoded.placeholder.len() });
        }
        let mut written = offsets[0]; // a C string holds at least one occurrence
        for (nth, offset) in offsets.iter().enumerate() {
            content[written..written + encoded.prefix.len()].copy_from_slice(&encoded.prefix);
            written += encoded.prefix.len();
            let rest = offset + encoded.placeholder.len()..offsets.get(nth + 1).copied().unwrap_or(*end);
            let length = rest.len();
            content.copy_within(rest, written);
            written += length;
        }
        content[written..*end].fill(0);
    }
    Ok(())
}

/// A C string of a binary file that holds the placeholder.
struct CString<'a> {
    /// Where the placeholder begins; never empty.
    offsets: Vec<usize>,
    /// Where the terminator begins, or the end of what is in memory.
    end: usize,
    encoded: &'a Encoded,
    /// As [`Occurrence::rank`]; a string that ends in a terminator goes before one that runs to the end of the file.
    rank: u8,
}

/// Of strings that overlap, those that are real, in order.
fn disjoint(mut candidates: Vec<CString<'_>>) -> Vec<CString<'_>> {
    candidates.sort_by_key(|string| (string.rank, string.offsets[0]));
    let mut kept: BTreeMap<usize, CString<'_>> = BTreeMap::new();
    for candidate in candidates {
        let start = candidate.offsets[0];
        let before = kept.range(..=start).next_back().is_some_and(|(_, string)| start < string.end);
        let after = kept.range(start..).next().is_some_and(|(later, _)| *later < candidate.end);
        if !before && !after {
            kept.insert(start, candidate);
        }
    }
    kept.into_values().collect()
}

/// The C strings of one encoding, in order. An occurrence within a string that was found already, at the same alignment, starts
/// none of its own: that keeps the search linear for long strings with many occurrences.
fn candidates<'a>(content: &[u8], encoded: &'a Encoded) -> Vec<CString<'a>> {
    let finder = memmem::Finder::new(&encoded.placeholder);
    let (unit, length) = (encoded.unit(), encoded.placeholder.len());
    let mut strings = Vec::new();
    let mut covered = vec![0; unit];
    let mut position = 0;
    while let Some(found) = finder.find(&content[position..]) {
        let first = position + found;
        position = first + length;
        let alignment = first % unit;
        if first < covered[alignment] {
            continue;
        }
        let terminator = terminator(content, position, unit);
        let end = terminator.unwrap_or(content.len());
        covered[alignment] = end;
        let mut offsets = vec![first];
        offsets.extend(finder.find_iter(&content[position..end]).map(|found| position + found));
        let rank = match (encoded.encoding, alignment, terminator) {
            (OffsetEncoding::Utf8, ..) => 0,
            (_, 0, Some(_)) => 1,
            (_, 0, None) => 2,
            (_, _, Some(_)) => 3,
            (_, _, None) => 4,
        };
        strings.push(CString { offsets, end, encoded, rank });
    }
    strings
}

/// The first zero code unit at or after `from`, counted in units from there.
fn terminator(content: &[u8], from: usize, unit: usize) -> Option<usize> {
    if unit == 1 {
        return memchr::memchr(0, &content[from..]).map(|found| from + found);
    }
    let zero = content[from..].chunks_exact(unit).position(|bytes| bytes.iter().all(|byte| *byte == 0))?;
    Some(from + zero * unit)
}
