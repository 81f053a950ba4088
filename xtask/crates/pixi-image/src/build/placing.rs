//! Where the blocks of all packs lie in one squashfs.
//!
//! What is there several times, such as a library that the base has and a package brings again, is in the image once, as
//! mksquashfs has it: later blocks are left out, and their files lead to the earlier ones. Checksums only propose what is
//! the same, for they can be forged: a package could have its file take the place of another's. What a later layer of the
//! base hides is left out, too; of small files, which share their blocks, only the names.

use std::collections::{BTreeSet, HashMap};

use crate::pack::{PackError, PackFile, PackedContent, PackedKind};

/// A pack that is to be placed.
pub struct Part<'p> {
    /// The pack.
    pub pack: &'p PackFile,
    /// The entries whose content nothing leads to, by their place in the index.
    pub hidden: Option<&'p BTreeSet<usize>>,
}

/// One pack in the squashfs.
pub struct Placed<'p> {
    /// The pack.
    pub pack: &'p PackFile,
    /// The chunks that are left out, by their place in the index.
    pub left_out: BTreeSet<usize>,
    /// Where the pack's bytes begin.
    start: u64,
    /// Contents that lie elsewhere, before: where they would begin in this one, and where they do in the squashfs.
    elsewhere: HashMap<u64, u64>,
    /// Behind each chunk that is left out: its end in the pack's bytes, and how many of them were left out so far.
    gaps: Vec<(u64, u64)>,
}

/// What tells contents apart, until their bytes are compared: length, stored length and both checksums of each block.
type Checks = Vec<[u32; 4]>;

/// Contents of the packs that are placed.
type Known = HashMap<Checks, Content>;

/// A content of a file: all its blocks.
struct Content {
    pack: usize,
    chunks: Vec<usize>,
    place: u64,
}

impl Placed<'_> {
    /// Where in the squashfs that lies which begins at `relative` in the pack's bytes.
    pub fn place(&self, relative: u64) -> u64 {
        if let Some(place) = self.elsewhere.get(&relative) {
            return *place;
        }
        let behind = self.gaps.partition_point(|(end, _)| *end <= relative);
        self.start + relative - behind.checked_sub(1).map_or(0, |last| self.gaps[last].1)
    }

    fn size(&self) -> u64 {
        self.pack.index.squashfs_size() - self.gaps.last().map_or(0, |(_, left_out)| *left_out)
    }
}

/// Places packs one behind the other.
pub struct Placing<'p> {
    placed: Vec<Placed<'p>>,
    known: Known,
    end: u64,
}

impl<'p> Placing<'p> {
    /// Begins at `start` of the squashfs.
    pub fn from(start: u64) -> Self {
        Self { placed: Vec::new(), known: Known::new(), end: start }
    }

    /// The packs so far, and where they end.
    pub fn placed(&self) -> (&[Placed<'p>], u64) {
        (&self.placed, self.end)
    }

    /// Places one more.
    pub fn add(&mut self, Part { pack, hidden }: Part<'p>) -> Result<&Placed<'p>, PackError> {
        let start = self.end;
        let mut placed = Placed { pack, left_out: BTreeSet::new(), start, elsewhere: HashMap::new(), gaps: Vec::new() };
        let (mut new, mut again) = (HashMap::<Checks, (u64, Vec<usize>)>::new(), Vec::new());
        let blocks = blocks(pack);
        for (entry, relative, chunks) in contents(pack, &blocks) {
            if hidden.is_some_and(|hidden| hidden.contains(&entry)) {
                placed.left_out.extend(chunks);
                continue;
            }
            let checks = checks(pack, &chunks);
            match (self.known.get(&checks), new.get(&checks)) {
                (Some(there), _) if pack.holds_the_same(&chunks, self.placed[there.pack].pack, &there.chunks)? => {
                    placed.elsewhere.insert(relative, there.place);
                    placed.left_out.extend(chunks);
                }
                (None, Some((first, theirs))) if pack.holds_the_same(&chunks, pack, theirs)? => {
                    again.push((relative, *first));
                    placed.left_out.extend(chunks);
                }
                (None, None) => drop(new.insert(checks, (relative, chunks))),
                _ => {} // other bytes with the same checksums
            }
        }
        let mut left_out = 0;
        for (position, chunk) in &blocks {
            if placed.left_out.contains(chunk) {
                let size = pack.index.chunks[*chunk].squashfs_size();
                left_out += size;
                placed.gaps.push((position + size, left_out));
            }
        }
        for (relative, first) in again {
            placed.elsewhere.insert(relative, placed.place(first));
        }
        for (checks, (relative, chunks)) in new {
            let content = Content { pack: self.placed.len(), chunks, place: placed.place(relative) };
            self.known.insert(checks, content);
        }
        self.end += placed.size();
        let at = self.placed.len();
        self.placed.push(placed);
        Ok(&self.placed[at])
    }
}

/// The chunks of a pack that are in the squashfs, by where they begin in the pack's bytes.
fn blocks(pack: &PackFile) -> Vec<(u64, usize)> {
    let mut position = 0;
    let sizes = pack.index.chunks.iter().map(|chunk| chunk.squashfs_size()).enumerate();
    let blocks = sizes.map(|(chunk, size)| {
        position += size;
        (position - size, chunk, size)
    });
    blocks.filter(|(.., size)| *size > 0).map(|(position, chunk, _)| (position, chunk)).collect()
}

/// The contents of a pack that have blocks: the entries that they belong to, where they begin, and their chunks.
fn contents(pack: &PackFile, blocks: &[(u64, usize)]) -> Vec<(usize, u64, Vec<usize>)> {
    let mut seen = BTreeSet::new();
    let content = |(entry, PackedContent { start, blocks: sizes, .. }): (usize, &PackedContent)| {
        let count = sizes.iter().filter(|size| **size != 0).count();
        let first = blocks.partition_point(|(position, _)| position < start);
        let mine = blocks.get(first..first + count)?;
        let begins = mine.first()?.0 == *start && seen.insert(*start);
        begins.then(|| (entry, *start, mine.iter().map(|(_, chunk)| *chunk).collect()))
    };
    let files = pack.index.entries.iter().enumerate().filter_map(|(at, entry)| match &entry.kind {
        PackedKind::File(content) => Some((at, content)),
        _ => None,
    });
    files.filter_map(content).collect()
}

fn checks(pack: &PackFile, chunks: &[usize]) -> Checks {
    let chunks = chunks.iter().map(|chunk| &pack.index.chunks[*chunk]);
    chunks.map(|chunk| [chunk.raw, chunk.stored, chunk.crc32, chunk.adler32]).collect()
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::entry::{ImagePath, Mode, push_file};
    use crate::pack::{Compressors, PackWriter, Targets};
    use crate::squashfs::BLOCK_SIZE;

    fn pack(files: &[(&str, u8)]) -> PackFile {
        let compressors = Compressors::start(NonZeroUsize::MIN);
        let directory = std::env::temp_dir();
        PackFile::temporary::<PackError>(&directory, |out| {
            let mut writer = PackWriter::new(out, &compressors, Targets::Both, |_| false);
            for (name, seed) in files {
                let content: Vec<u8> = (0..2 * BLOCK_SIZE).map(|at| (at / 5) as u8 ^ seed).collect();
                push_file(&mut writer, ImagePath::new(*name).unwrap(), Mode::FILE, 0, &content).unwrap();
            }
            let (index, mut out) = writer.finish().unwrap();
            std::io::Write::flush(&mut out).unwrap();
            Ok(index)
        })
        .unwrap()
    }

    /// The squashfs bytes that each file leads to.
    fn read(pack: &PackFile, bytes: &[u8], place: &dyn Fn(u64) -> u64) -> Vec<(String, Vec<u8>)> {
        let file = |entry: &crate::pack::PackedEntry| {
            let PackedKind::File(content) = &entry.kind else { panic!("{entry:?}") };
            let length: u32 = content.blocks.iter().map(|size| size & 0xff_ffff).sum();
            let from = place(content.start) as usize;
            (entry.path.to_string(), bytes[from..from + length as usize].to_vec())
        };
        pack.index.entries.iter().map(file).collect()
    }

    fn read_alone(pack: &PackFile) -> Vec<(String, Vec<u8>)> {
        let mut alone = Vec::new();
        pack.write_squashfs(&BTreeSet::new(), &mut alone).unwrap();
        read(pack, &alone, &|relative| relative)
    }

    fn place<'p>(parts: impl Iterator<Item = Part<'p>>, start: u64) -> Placing<'p> {
        let mut placing = Placing::from(start);
        for part in parts {
            placing.add(part).unwrap();
        }
        placing
    }

    fn written(placed: &[Placed<'_>], end: u64) -> Vec<u8> {
        let mut bytes = vec![0; 1000];
        placed.iter().for_each(|one| one.pack.write_squashfs(&one.left_out, &mut bytes).unwrap());
        assert_eq!(bytes.len() as u64, end);
        bytes
    }

    #[test]
    fn what_is_there_already_is_left_out_and_found_there() {
        let packs = [
            pack(&[("a", 1), ("b", 2)]),
            pack(&[("c", 3), ("d", 2), ("e", 4), ("f", 1), ("g", 5), ("i", 4), ("j", 6)]),
            pack(&[("h", 4)]),
        ];
        let placing = place(packs.iter().map(|pack| Part { pack, hidden: None }), 1000);
        let (placed, end) = placing.placed();
        let bytes = written(placed, end);
        for one in placed {
            assert_eq!(read(one.pack, &bytes, &|relative| one.place(relative)), read_alone(one.pack));
        }
        let left_out: Vec<usize> = placed.iter().map(|one| one.left_out.len()).collect();
        assert_eq!(left_out, [0, 6, 2]);
        let whole: u64 = packs.iter().map(|pack| pack.index.squashfs_size()).sum();
        assert!(end < 1000 + whole);
    }

    #[test]
    fn what_is_hidden_is_left_out_and_stands_for_nothing() {
        let packs = [pack(&[("a", 1), ("b", 2), ("c", 2)]), pack(&[("d", 1), ("e", 2)])];
        let hidden = BTreeSet::from([0, 1]);
        let parts = [Part { pack: &packs[0], hidden: Some(&hidden) }, Part { pack: &packs[1], hidden: None }];
        let placing = place(parts.into_iter(), 1000);
        let (placed, end) = placing.placed();
        let bytes = written(placed, end);
        let found = read(&packs[0], &bytes, &|relative| placed[0].place(relative));
        assert_eq!(found[2], read_alone(&packs[0])[2]);
        let found = read(&packs[1], &bytes, &|relative| placed[1].place(relative));
        assert_eq!(found, read_alone(&packs[1]));
        let left_out: Vec<usize> = placed.iter().map(|one| one.left_out.len()).collect();
        assert_eq!(left_out, [4, 2]);
    }
}
