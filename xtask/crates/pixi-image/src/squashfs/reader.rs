//! Reading the tables of a squashfs as this program writes it: which path has its inode, listing and data where.
//!
//! It is for finding out where two images differ, so a part that cannot be read is named rather than passed over. Only
//! zlib is known, as that is what is written here.

use std::collections::BTreeSet;
use std::io::{self, Read, Seek, SeekFrom};

use super::metadata::{METADATA_SIZE, Position, STORED_RAW as STORED_RAW_METADATA};
use super::{BLOCK_SIZE, Fragment, MAGIC, STORED_RAW, SUPERBLOCK_SIZE};
use crate::tree::{FileData, FragmentRef};

/// Tables larger than this are refused as hostile, in bytes.
const TABLES_LIMIT: u64 = 1 << 30;
/// What is wrong with compressed data: the decompressor has no words of its own for learners.
const NO_ZLIB: &str = "it is no whole zlib stream";
/// A path longer than this is taken for a loop.
const PATH_LIMIT: usize = 1 << 14;
/// All paths together are refused as hostile beyond this, in bytes.
const PATHS_LIMIT: usize = 1 << 30;

/// The fields of a superblock in their order: name and size in bytes.
pub const SUPERBLOCK_FIELDS: [(&str, u64); 19] = [
    ("magic", 4),
    ("number of inodes", 4),
    ("time", 4),
    ("block size", 4),
    ("number of fragments", 4),
    ("compressor", 2),
    ("block size's logarithm", 2),
    ("flags", 2),
    ("number of ids", 2),
    ("major version", 2),
    ("minor version", 2),
    ("place of the root's inode", 8),
    ("size", 8),
    ("place of the id table", 8),
    ("place of the table of extended attributes", 8),
    ("place of the inode table", 8),
    ("place of the directory table", 8),
    ("place of the fragment table", 8),
    ("place of the export table", 8),
];

/// What is wrong with a file system, and with which part of it.
#[derive(Debug, thiserror::Error)]
#[error("{part}: {reason}")]
pub struct Unreadable {
    /// The part in plain words, for example `the inode table`.
    pub part: String,
    /// What is wrong with it.
    pub reason: String,
}

fn unreadable(part: impl Into<String>, reason: impl ToString) -> Unreadable {
    Unreadable { part: part.into(), reason: reason.to_string() }
}

/// Where a table begins and ends, in bytes from the start of the file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Area {
    /// Its name in plain words.
    pub name: &'static str,
    /// Where it begins.
    pub start: u64,
    /// Where the next one begins.
    pub end: u64,
}

/// A metadata table: its blocks, decompressed one behind the other.
#[derive(Debug, Default)]
pub struct Table {
    bytes: Vec<u8>,
    /// Where each block begins: in the table on the disk, and in `bytes`.
    blocks: Vec<(u64, usize)>,
}

impl Table {
    /// Decompresses all blocks. What is wrong is said together with the number of the block, from 0 on.
    fn new(raw: &[u8]) -> Result<Self, (usize, String)> {
        let mut table = Self::default();
        let mut decompressor = libdeflater::Decompressor::new();
        let mut at = 0;
        while at < raw.len() {
            let number = table.blocks.len();
            let header = raw.get(at..at + 2).ok_or((number, "it is cut short".to_owned()))?;
            let header = u16::from_le_bytes([header[0], header[1]]);
            let size = usize::from(header & !STORED_RAW_METADATA);
            let stored = raw.get(at + 2..at + 2 + size).ok_or((number, "it is cut short".to_owned()))?;
            table.blocks.push((at as u64, table.bytes.len()));
            let mut block = [0; METADATA_SIZE];
            let content = match header & STORED_RAW_METADATA {
                0 => {
                    let inflated = decompressor.zlib_decompress(stored, &mut block);
                    let length = inflated.map_err(|_| (number, NO_ZLIB.to_owned()))?;
                    &block[..length]
                }
                _ => stored,
            };
            table.bytes.extend_from_slice(content);
            at += 2 + size;
        }
        Ok(table)
    }

    /// Where in the decompressed table a position is.
    fn index(&self, position: Position) -> Option<usize> {
        let block = self.blocks.binary_search_by_key(&u64::from(position.block), |(start, _)| *start).ok()?;
        Some(self.blocks[block].1 + usize::from(position.offset))
    }

    /// The range of decompressed bytes that lie in the block around `at`, in bytes from the start of the table.
    fn around(&self, at: u64) -> std::ops::Range<usize> {
        let next = self.blocks.partition_point(|(start, _)| *start <= at);
        let start = next.checked_sub(1).map_or(0, |block| self.blocks[block].1);
        start..self.blocks.get(next).map_or(self.bytes.len(), |(_, start)| *start)
    }
}

/// What an inode is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Directory,
    /// A file, and where its content lies.
    File(FileData),
    /// A symbolic link with its target.
    Symlink(Vec<u8>),
    /// A device, pipe or socket.
    Special,
}

/// A path of the file system.
#[derive(Clone, Debug)]
pub struct Found {
    /// The path without a leading slash; empty for the root.
    pub path: Vec<u8>,
    /// Permission bits.
    pub mode: u16,
    /// Seconds since 1970-01-01 UTC.
    pub mtime: u32,
    /// What it is.
    pub kind: Kind,
    /// Where its inode begins in the decompressed table.
    inode: usize,
    /// Where its listing begins in the decompressed table, for a directory that holds something.
    listing: Option<usize>,
}

impl Found {
    /// The path as it is shown.
    pub fn shown(&self) -> String {
        format!("/{}", String::from_utf8_lossy(&self.path))
    }
}

/// A file system whose tables were read.
pub struct FileSystem<R> {
    file: R,
    /// Where the file system begins in `file`.
    start: u64,
    inodes: Table,
    directories: Table,
    /// The fragments, in order.
    pub fragments: Vec<Fragment>,
    /// Every path, parents before what they hold.
    pub found: Vec<Found>,
    /// The tables, in file order.
    pub areas: Vec<Area>,
    /// The size of the file system without padding, in bytes.
    pub bytes_used: u64,
}

impl<R: Read + Seek> FileSystem<R> {
    /// Reads the tables of the file system that begins at `start` and has `size` bytes.
    pub fn read(mut file: R, start: u64, size: u64) -> Result<Self, Unreadable> {
        let superblock = section(&mut file, start, SUPERBLOCK_SIZE)
            .map_err(|error| unreadable("the superblock of the squashfs", error))?;
        let bad = |reason: &str| unreadable("the superblock of the squashfs", reason);
        let (word, long) = (|at| number(&superblock, at, 4), |at| number(&superblock, at, 8));
        if word(0) != u64::from(MAGIC) || word(12) != BLOCK_SIZE as u64 || number(&superblock, 20, 2) != 1 {
            return Err(bad("it is none that this program writes"));
        }
        let (bytes_used, ids) = (long(40), long(48));
        let (inode_table, directory_table, fragment_table, export_table) = (long(64), long(72), long(80), long(88));
        let fragment_count = word(16);
        if bytes_used > size || bytes_used.saturating_sub(inode_table) > TABLES_LIMIT {
            return Err(bad("its sizes cannot be"));
        }
        let table = |file: &mut R, name: &'static str, from: u64, to: u64| {
            let length =
                to.checked_sub(from).filter(|_| to <= bytes_used).ok_or_else(|| bad("its places cannot be"))?;
            section(file, start + from, length).map_err(|error| unreadable(name, error))
        };
        let lists = |file: &mut R, name: &'static str, list: u64| -> Result<u64, Unreadable> {
            let raw = table(file, name, list, list.saturating_add(8))?;
            Ok(number(&raw, 0, 8))
        };
        let has_fragments = fragment_table != u64::MAX && fragment_count > 0;
        let export_start = lists(&mut file, "the export table", export_table)?;
        let fragments_start =
            if has_fragments { lists(&mut file, "the fragment table", fragment_table)? } else { export_start };
        let ids_start = lists(&mut file, "the id table", ids)?;

        let decoded = |raw: &[u8], name: &str| {
            Table::new(raw).map_err(|(block, reason)| unreadable(name, format!("block {block}: {reason}")))
        };
        let raw = table(&mut file, "the inode table", inode_table, directory_table)?;
        let inodes = decoded(&raw, "the inode table")?;
        let raw = table(&mut file, "the directory table", directory_table, fragments_start)?;
        let directories = decoded(&raw, "the directory table")?;
        let fragments = if has_fragments {
            let raw = table(&mut file, "the fragment table", fragments_start, fragment_table)?;
            let records = decoded(&raw, "the fragment table")?.bytes;
            let fragment = |at: &[u8]| Fragment { start: number(at, 0, 8), size: number(at, 8, 4) as u32 };
            records.chunks_exact(16).map(fragment).collect()
        } else {
            Vec::new()
        };
        let mut areas = vec![
            Area { name: "the inode table", start: inode_table, end: directory_table },
            Area { name: "the directory table", start: directory_table, end: fragments_start },
            Area { name: "the fragment table", start: fragments_start, end: export_start },
            Area { name: "the export table", start: export_start, end: ids_start },
            Area { name: "the id table", start: ids_start, end: bytes_used },
        ];
        areas.retain(|area| area.start < area.end);
        let root = Position::from_reference(long(32));
        let mut system = Self { file, start, inodes, directories, fragments, found: Vec::new(), areas, bytes_used };
        system.walk(root, word(4))?;
        Ok(system)
    }

    /// Finds every path. `inode_count` bounds the number of directories that are opened.
    fn walk(&mut self, root: Position, inode_count: u64) -> Result<(), Unreadable> {
        let mut open = vec![(Vec::new(), root)];
        let (mut seen, mut total) = (BTreeSet::new(), 0);
        while let Some((path, position)) = open.pop() {
            let inode = self.inodes.index(position);
            let found = inode.and_then(|inode| self.inode(inode, path)).ok_or_else(|| broken_inode(&open))?;
            if let Some((found, listing)) = self.listing(found)? {
                let first = open.len();
                for (name, position) in listing {
                    let mut path = found.path.clone();
                    if !path.is_empty() {
                        path.push(b'/');
                    }
                    path.extend_from_slice(&name);
                    total += path.len();
                    open.push((path, position));
                }
                open[first..].reverse();
                if total > PATHS_LIMIT {
                    return Err(unreadable("the directory table", "its paths are too many"));
                }
                if !seen.insert(found.inode) || seen.len() as u64 > inode_count || found.path.len() > PATH_LIMIT {
                    return Err(unreadable("the directory table", "its directories hold each other"));
                }
                self.found.push(found);
            }
        }
        Ok(())
    }

    /// Takes in what is no directory; gives a directory back with the names in it and where their inodes lie.
    #[allow(clippy::type_complexity)] // names and places, used once
    fn listing(
        &mut self,
        (mut found, listing): Parsed,
    ) -> Result<Option<(Found, Vec<(Vec<u8>, Position)>)>, Unreadable> {
        let Some((position, size)) = listing else {
            self.found.push(found);
            return Ok(None);
        };
        let mut names = Vec::new();
        // `.` and `..` count as three bytes.
        if size > 3 {
            let bad = || unreadable("the directory table", format!("the listing of {} cannot be", found.shown()));
            let at = self.directories.index(position).ok_or_else(bad)?;
            let bytes = self.directories.bytes.get(at..).and_then(|rest| rest.get(..size as usize - 3));
            names = parse_listing(bytes.ok_or_else(bad)?).ok_or_else(bad)?;
            found.listing = Some(at);
        }
        Ok(Some((found, names)))
    }

    fn inode(&self, at: usize, path: Vec<u8>) -> Option<Parsed> {
        let bytes = self.inodes.bytes.get(at..)?;
        let word = |at: usize| Some(number(bytes.get(at..at + 4)?, 0, 4));
        let long = |at: usize| Some(number(bytes.get(at..at + 8)?, 0, 8));
        let half = |at: usize| Some(number(bytes.get(at..at + 2)?, 0, 2));
        let place = |block: u64, offset: u64| Position { block: block as u32, offset: offset as u16 };
        let (kind, listing) = match half(0)? {
            1 => (Kind::Directory, Some((place(word(16)?, half(26)?), half(24)?))),
            8 => (Kind::Directory, Some((place(word(24)?, half(34)?), word(20)?))),
            2 => (Kind::File(file_data(bytes, word(16)?, word(28)?, 0, word(20)?, word(24)?, 32)?), None),
            9 => (Kind::File(file_data(bytes, long(16)?, long(24)?, long(32)?, word(44)?, word(48)?, 56)?), None),
            3 | 10 => (Kind::Symlink(bytes.get(24..24 + word(20)? as usize)?.to_vec()), None),
            4..=7 | 11..=14 => (Kind::Special, None),
            _ => return None,
        };
        let (mode, mtime) = (half(2)? as u16, word(8)? as u32);
        Some((Found { path, mode, mtime, kind, inode: at, listing: None }, listing))
    }

    /// The paths whose inodes lie in the block of the inode table around `at`, in bytes from the start of the file system.
    pub fn inodes_around(&self, at: u64) -> Vec<&Found> {
        self.around(at, "the inode table", &self.inodes, |found| Some(found.inode))
    }

    /// The directories whose listings lie in the block of the directory table around `at`.
    pub fn listings_around(&self, at: u64) -> Vec<&Found> {
        self.around(at, "the directory table", &self.directories, |found| found.listing)
    }

    fn around(&self, at: u64, name: &str, table: &Table, place: impl Fn(&Found) -> Option<usize>) -> Vec<&Found> {
        let Some(area) = self.areas.iter().find(|area| area.name == name) else { return Vec::new() };
        let range = table.around(at.saturating_sub(area.start));
        let mut around: Vec<_> = self.found.iter().filter_map(|one| Some((place(one)?, one))).collect();
        around.sort_by_key(|(place, _)| *place);
        // What begins in the block before may reach into this one.
        let first = around.partition_point(|(place, _)| *place < range.start);
        let first = first - usize::from(around.get(first).is_none_or(|(place, _)| *place > range.start) && first > 0);
        around[first..].iter().take_while(|(place, _)| *place < range.end).map(|(_, one)| *one).collect()
    }

    /// The files with a block or the fragment that holds the byte `at`, counted from the start of the file system; for a
    /// block, its number in the file and where it lies.
    pub fn data_at(&self, at: u64) -> Option<Data<'_>> {
        for found in &self.found {
            let Kind::File(data) = &found.kind else { continue };
            let mut position = data.start;
            for (index, block) in data.blocks.iter().enumerate() {
                let size = u64::from(block & !STORED_RAW);
                if (position..position + size).contains(&at) {
                    return Some(Data::Block { found, index, block: Fragment { start: position, size: *block } });
                }
                position = position.saturating_add(size);
            }
        }
        let holds = |one: &Fragment| (one.start..one.start + u64::from(one.size & !STORED_RAW)).contains(&at);
        let index = self.fragments.iter().position(holds)?;
        let of_fragment = |found: &&Found| match &found.kind {
            Kind::File(data) => data.fragment.is_some_and(|place| place.index as usize == index),
            _ => false,
        };
        let mut found: Vec<&Found> = self.found.iter().filter(of_fragment).collect();
        found.sort_by_key(|found| place_in_fragment(found));
        Some(Data::Fragment { found, fragment: self.fragments[index] })
    }

    /// Reads and decompresses a block or fragment that lies at `block.start`.
    pub fn block(&mut self, block: Fragment) -> Result<Vec<u8>, String> {
        read_block(&mut self.file, self.start, block)
    }

    /// The content of a file of at most `limit` bytes.
    pub fn content(&mut self, path: &[u8], limit: u64) -> Option<Vec<u8>> {
        let Kind::File(data) = &self.found.iter().find(|found| found.path == path)?.kind else { return None };
        let data = data.clone();
        if data.size > limit {
            return None;
        }
        let (mut content, mut position) = (Vec::new(), data.start);
        for block in data.blocks {
            match block {
                0 => content.resize(content.len() + BLOCK_SIZE, 0),
                _ => content.append(&mut self.block(Fragment { start: position, size: block }).ok()?),
            }
            position = position.checked_add(u64::from(block & !STORED_RAW))?;
        }
        if let Some(place) = data.fragment {
            let fragment = self.block(*self.fragments.get(place.index as usize)?).ok()?;
            let tail = (data.size % BLOCK_SIZE as u64) as usize;
            content.extend_from_slice(fragment.get(place.offset as usize..)?.get(..tail)?);
        }
        content.truncate(data.size as usize);
        (content.len() as u64 == data.size).then_some(content)
    }
}

/// What a byte of the data belongs to.
pub enum Data<'a> {
    /// A block of one file.
    Block {
        /// The file.
        found: &'a Found,
        /// The number of the block in it, from 0 on.
        index: usize,
        /// Where it lies.
        block: Fragment,
    },
    /// The ends of several files, or small files.
    Fragment {
        /// The files, in the order in which they stand in it.
        found: Vec<&'a Found>,
        /// Where it lies.
        fragment: Fragment,
    },
}

/// Where a file stands in its fragment, in bytes from the start of the decompressed fragment.
pub fn place_in_fragment(found: &Found) -> u32 {
    match &found.kind {
        Kind::File(FileData { fragment: Some(place), .. }) => place.offset,
        _ => 0,
    }
}

/// An inode, and for a directory where its listing lies and how many bytes it has.
type Parsed = (Found, Option<(Position, u64)>);

fn broken_inode(open: &[(Vec<u8>, Position)]) -> Unreadable {
    let near = open.last().map_or(String::new(), |(path, _)| format!(", near /{}", String::from_utf8_lossy(path)));
    unreadable("the inode table", format!("an inode cannot be{near}"))
}

fn file_data(
    bytes: &[u8],
    start: u64,
    size: u64,
    sparse: u64,
    fragment: u64,
    offset: u64,
    blocks_at: usize,
) -> Option<FileData> {
    let fragment =
        (fragment as u32 != u32::MAX).then_some(FragmentRef { index: fragment as u32, offset: offset as u32 });
    let count = match fragment {
        None => size.div_ceil(BLOCK_SIZE as u64),
        Some(_) => size / BLOCK_SIZE as u64,
    };
    let length = usize::try_from(count).ok()?.checked_mul(4)?;
    let list = bytes.get(blocks_at..)?.get(..length)?;
    let blocks = list.chunks_exact(4).map(|block| number(block, 0, 4) as u32).collect();
    Some(FileData { size, start, blocks, fragment, sparse })
}

fn parse_listing(mut bytes: &[u8]) -> Option<Vec<(Vec<u8>, Position)>> {
    let mut names = Vec::new();
    while !bytes.is_empty() {
        let (header, rest) = bytes.split_at_checked(12)?;
        bytes = rest;
        for _ in 0..=number(header, 0, 4) {
            let (entry, rest) = bytes.split_at_checked(8)?;
            let (name, rest) = rest.split_at_checked(number(entry, 6, 2) as usize + 1)?;
            bytes = rest;
            let position = Position { block: number(header, 4, 4) as u32, offset: number(entry, 0, 2) as u16 };
            names.push((name.to_vec(), position));
        }
    }
    Some(names)
}

/// Reads and decompresses a data block of the file system that begins at `start`.
pub fn read_block(file: &mut (impl Read + Seek), start: u64, block: Fragment) -> Result<Vec<u8>, String> {
    let size = u64::from(block.size & !STORED_RAW);
    let place = start.checked_add(block.start).ok_or("its place cannot be")?;
    if size > BLOCK_SIZE as u64 {
        return Err("its size cannot be".into());
    }
    let stored = section(file, place, size).map_err(|error| error.to_string())?;
    if block.size & STORED_RAW != 0 {
        return Ok(stored);
    }
    let mut content = vec![0; BLOCK_SIZE];
    let length = libdeflater::Decompressor::new().zlib_decompress(&stored, &mut content);
    content.truncate(length.map_err(|_| NO_ZLIB)?);
    Ok(content)
}

fn section(file: &mut (impl Read + Seek), at: u64, size: u64) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(at))?;
    let mut bytes = Vec::new();
    file.take(size).read_to_end(&mut bytes)?;
    if bytes.len() as u64 == size { Ok(bytes) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// A little-endian number of up to 8 bytes.
fn number(bytes: &[u8], at: usize, size: usize) -> u64 {
    bytes[at..at + size].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;
    use crate::entry::{ImagePath, Mode};
    use crate::squashfs::tables;
    use crate::tree::Tree;

    fn tree() -> Tree {
        let path = |text: &str| ImagePath::new(text).unwrap();
        let mut tree = Tree::new(Mode::EXECUTABLE, 7);
        tree.insert_directory(&path("empty"), Mode(0o700), 1).unwrap();
        tree.insert_symlink(&path("a/link"), b"../target".to_vec(), 2).unwrap();
        for (index, name) in ["a/b/file", "a/b/other", "z"].into_iter().enumerate() {
            let data = FileData { size: 300_000, start: 96, blocks: vec![0, 0, 0], sparse: 300_000, fragment: None };
            tree.insert_file(&path(name), Mode(0o644), index as u32, data).unwrap();
        }
        tree.insert_hardlink(&path("hard"), &path("z")).unwrap();
        tree
    }

    /// The file system with its inodes and listings stored as they are, so that a change of theirs fits every checksum.
    fn stored() -> (Vec<u8>, std::ops::Range<usize>) {
        let written = tables(&tree(), &[], SUPERBLOCK_SIZE, 0).unwrap();
        let whole = [&written.superblock[..], &written.tail].concat();
        let read = FileSystem::read(Cursor::new(&whole), 0, whole.len() as u64).unwrap();
        let raw = |bytes: &[u8]| {
            let header = (bytes.len() as u16 | STORED_RAW_METADATA).to_le_bytes();
            [&header[..], bytes].concat()
        };
        let (inodes, listings) = (raw(&read.inodes.bytes), raw(&read.directories.bytes));
        let mut image = written.superblock.to_vec();
        let mut put = |at: usize, value: usize| image[at..at + 8].copy_from_slice(&(value as u64).to_le_bytes());
        let inode_table = SUPERBLOCK_SIZE as usize;
        let directory_table = inode_table + inodes.len();
        let end = directory_table + listings.len();
        let (export, id) = (raw(&[0; 8]), raw(&[0; 4]));
        let (export_list, id_list) = (end + export.len(), end + export.len() + 8 + id.len());
        put(64, inode_table);
        put(72, directory_table);
        put(88, export_list);
        put(48, id_list);
        put(40, id_list + 8);
        image.extend([inodes, listings, export].concat());
        image.extend((end as u64).to_le_bytes());
        image.extend(id);
        image.extend((export_list as u64 + 8).to_le_bytes());
        (image, inode_table..end)
    }

    #[test]
    fn what_was_written_is_read_back() {
        let (image, _) = stored();
        let files = FileSystem::read(Cursor::new(&image), 0, image.len() as u64).unwrap();
        let paths: Vec<String> = files.found.iter().map(Found::shown).collect();
        assert_eq!(paths, ["/", "/a", "/a/b", "/a/b/file", "/a/b/other", "/a/link", "/empty", "/hard", "/z"]);
        let at = |path: &str| files.found.iter().find(|found| found.shown() == path).unwrap();
        assert_eq!((at("/empty").mode, at("/empty").mtime), (0o700, 1));
        assert_eq!(at("/a/link").kind, Kind::Symlink(b"../target".to_vec()));
        assert!(matches!(&at("/hard").kind, Kind::File(data) if data.size == 300_000 && data.blocks.len() == 3));
        let inodes = files.inodes_around(files.areas[0].start);
        assert_eq!(inodes.len(), paths.len());
    }

    #[test]
    fn no_change_of_a_table_makes_it_panic_or_go_round_in_circles() {
        let (mut image, tables) = stored();
        let (mut readable, mut total) = (0, 0);
        for at in (0..SUPERBLOCK_SIZE as usize).chain(tables) {
            let right = image[at];
            for other in [0, 1, 2, 7, 8, 9, 0x20, 0x7f, 0x80, 0xff, right ^ 1, right.wrapping_add(1)] {
                image[at] = other;
                readable += usize::from(FileSystem::read(Cursor::new(&image), 0, image.len() as u64).is_ok());
                total += 1;
            }
            image[at] = right;
        }
        assert!(readable > 0 && readable < total, "{readable} of {total}");
    }
}
