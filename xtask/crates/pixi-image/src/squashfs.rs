//! squashfs 4.0 file systems around data blocks that others have written.
//!
//! ```text
//! superblock (96 bytes) | data blocks and fragments | inodes | directories | fragment, export and id tables | padding
//! ```
//!
//! A data block is compressed on its own and only inodes say where blocks lie, so blocks can be copied from a cache and
//! this module writes what comes before and after them. Field orders are those of Linux' `fs/squashfs/squashfs_fs.h`.
//! The compressor is gzip (zlib streams), which every Apptainer and SingularityCE reads. Owner and group are always 0.

use std::collections::BTreeMap;

use crate::tree::{Children, FileData, Node, NodeId, NodeKind, Tree};

mod directory;
mod inode;
mod metadata;
pub mod reader;
#[cfg(all(test, unix))]
mod tests;

use directory::{Child, Listing};
use inode::Common;
use metadata::{MetadataWriter, lookup_table};

/// The size of a full data block in bytes.
pub const BLOCK_SIZE: usize = 128 * 1024;
/// The size of the superblock, behind which the data begins.
pub const SUPERBLOCK_SIZE: u64 = 96;
/// Set in the on-disk size of a data block or fragment that is stored as it is.
pub const STORED_RAW: u32 = 1 << 24;

/// Where a list or table would stand that is not there.
const ABSENT: u64 = u64::MAX;
/// The whole file is a multiple of this: loop devices drop an incomplete last block.
const PADDING: u64 = 4096;
const MAGIC: u32 = 0x7371_7368;
const COMPRESSOR_GZIP: u16 = 1;
const FLAG_NO_FRAGMENTS: u16 = 0x10;
const FLAG_DUPLICATES: u16 = 0x40;
const FLAG_EXPORTABLE: u16 = 0x80;
const FLAG_NO_XATTRS: u16 = 0x200;

/// A fragment: a data block that holds the ends of several files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Where it lies, in bytes from the start of the file system.
    pub start: u64,
    /// Its size on the disk in bytes, with [`STORED_RAW`] set where it is stored as it is.
    pub size: u32,
}

/// All of a file system but its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tables {
    /// The first bytes of the file.
    pub superblock: [u8; SUPERBLOCK_SIZE as usize],
    /// The bytes that follow the data, padded so that the whole file is a multiple of 4 KiB.
    pub tail: Vec<u8>,
    /// The size of the file system in bytes, without the padding.
    pub bytes_used: u64,
}

/// Why a tree cannot become a squashfs.
#[derive(Debug, thiserror::Error)]
pub enum SquashfsError {
    /// What the tree says about a file cannot be.
    #[error("cannot describe `{path}` in the squashfs: {reason}")]
    File {
        /// The path of the file, made printable.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// What the list of fragments says cannot be.
    #[error("cannot describe fragment {index} in the squashfs: {reason}")]
    Fragment {
        /// Its place in the list.
        index: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A table has grown beyond what squashfs can hold.
    #[error("the image has too many entries for a squashfs: its {0} would exceed 4 GiB")]
    TooLarge(&'static str),
}

/// Writes everything but the data, which must lie between [`SUPERBLOCK_SIZE`] and `data_end`.
///
/// `mtime` is the time of the file system itself. The same arguments give the same bytes.
///
/// # Panics
/// If `data_end` lies inside the superblock.
pub fn tables(tree: &Tree, fragments: &[Fragment], data_end: u64, mtime: u32) -> Result<Tables, SquashfsError> {
    assert!(data_end >= SUPERBLOCK_SIZE, "the data cannot end inside the superblock, at {data_end}");
    check_fragments(fragments, data_end)?;
    let numbering = Numbering::of(tree);
    let writer = InodeWriter {
        tree,
        numbering: &numbering,
        fragments,
        data_end,
        inodes: MetadataWriter::new("inode table"),
        directories: MetadataWriter::new("directory table"),
        listings: BTreeMap::new(),
        references: vec![ABSENT; numbering.count as usize],
    };
    let Written { mut tail, directories_at, root, references } = writer.write()?;

    let records: Vec<u8> = fragments.iter().flat_map(fragment_record).collect();
    let fragment_table = match fragments {
        [] => ABSENT,
        _ => lookup_table(&mut tail, data_end, &records)?,
    };
    let records: Vec<u8> = references.iter().flat_map(|reference| reference.to_le_bytes()).collect();
    let export_table = lookup_table(&mut tail, data_end, &records)?;
    let root_id = 0u32.to_le_bytes();
    // Linux takes the end of the file system for the end of this table: it must be the last.
    let id_table = lookup_table(&mut tail, data_end, &root_id)?;
    let bytes_used = data_end + tail.len() as u64;

    let superblock = Superblock {
        inode_count: numbering.count,
        mtime,
        fragment_count: fragments.len() as u32,
        root,
        bytes_used,
        id_table,
        inode_table: data_end,
        directory_table: data_end + directories_at,
        fragment_table,
        export_table,
    };
    tail.resize((bytes_used.next_multiple_of(PADDING) - data_end) as usize, 0);
    Ok(Tables { superblock: superblock.to_bytes(), tail, bytes_used })
}

fn fragment_record(fragment: &Fragment) -> [u8; 16] {
    let mut record = [0; 16];
    record[..8].copy_from_slice(&fragment.start.to_le_bytes());
    record[8..12].copy_from_slice(&fragment.size.to_le_bytes());
    record
}

fn check_fragments(fragments: &[Fragment], data_end: u64) -> Result<(), SquashfsError> {
    let bad = |index, reason| Err(SquashfsError::Fragment { index, reason });
    if u32::try_from(fragments.len()).is_err() {
        return Err(SquashfsError::TooLarge("fragment table"));
    }
    for (index, fragment) in fragments.iter().enumerate() {
        let size = fragment.size & !STORED_RAW;
        if size == 0 || size as usize > BLOCK_SIZE {
            return bad(index, "its size is not between 1 byte and one block");
        }
        if !lies_in_data(fragment.start, size.into(), data_end) {
            return bad(index, "it does not lie in the data");
        }
    }
    Ok(())
}

fn lies_in_data(start: u64, size: u64, data_end: u64) -> bool {
    start >= SUPERBLOCK_SIZE && start.checked_add(size).is_some_and(|end| end <= data_end)
}

/// Says what is wrong with the place of a file's content, if anything: readers trust it blindly or fail without a word.
fn check_file(data: &FileData, fragments: &[Fragment], data_end: u64) -> Result<(), &'static str> {
    let block_size = BLOCK_SIZE as u64;
    let tail = data.size % block_size;
    let blocks = match data.fragment {
        None => data.size.div_ceil(block_size),
        Some(_) => data.size / block_size,
    };
    if data.blocks.len() as u64 != blocks {
        return Err("the number of its blocks does not match its size");
    }
    if let Some(place) = data.fragment {
        if tail == 0 {
            return Err("it has a fragment but no bytes after its last full block");
        }
        if place.index as usize >= fragments.len() {
            return Err("its fragment is not in the list of fragments");
        }
        if u64::from(place.offset) + tail > block_size {
            return Err("it reaches beyond the end of its fragment");
        }
    }
    let mut on_disk = 0;
    for (index, block) in data.blocks.iter().enumerate() {
        let size = block & !STORED_RAW;
        let length = block_size.min(data.size - index as u64 * block_size);
        if u64::from(size) > length || (block & STORED_RAW != 0 && u64::from(size) != length) {
            return Err("one of its blocks has a size on the disk that cannot be");
        }
        on_disk += u64::from(size);
    }
    if on_disk > 0 && !lies_in_data(data.start, on_disk, data_end) {
        return Err("its blocks do not lie in the data");
    }
    Ok(())
}

/// Inode numbers and link counts, and the order in which directories are written.
///
/// The entries of one directory are numbered in a row, so that a directory's listing needs few headers and a lookup reads
/// few blocks.
struct Numbering {
    /// By [`NodeId::index`]; 0 for a node without a name.
    numbers: Vec<u32>,
    /// How many names each node has; by [`NodeId::index`].
    links: Vec<u32>,
    /// Every directory, before those that it holds.
    directories: Vec<NodeId>,
    count: u32,
}

impl Numbering {
    fn of(tree: &Tree) -> Self {
        let mut numbering = Self {
            numbers: vec![0; tree.capacity()],
            links: vec![0; tree.capacity()],
            directories: Vec::new(),
            count: 0,
        };
        numbering.number(NodeId::ROOT);
        let mut open = vec![NodeId::ROOT];
        while let Some(id) = open.pop() {
            numbering.directories.push(id);
            let first = open.len();
            for &child in children(tree, id).values() {
                numbering.number(child);
                if matches!(tree.node(child).kind, NodeKind::Directory(_)) {
                    open.push(child);
                }
            }
            open[first..].reverse();
        }
        numbering
    }

    fn number(&mut self, id: NodeId) {
        self.links[id.index()] += 1;
        if self.links[id.index()] == 1 {
            self.count += 1; // the tree holds fewer nodes than there are numbers
            self.numbers[id.index()] = self.count;
        }
    }

    fn number_of(&self, id: NodeId) -> u32 {
        self.numbers[id.index()]
    }
}

fn children(tree: &Tree, id: NodeId) -> &Children {
    static NONE: Children = Children::new();
    match &tree.node(id).kind {
        NodeKind::Directory(children) => children,
        _ => &NONE,
    }
}

/// Writes inodes and directories, those farthest from the root first: a directory's listing says where the inodes of its
/// entries lie, and its own inode says where the listing lies.
struct InodeWriter<'a> {
    tree: &'a Tree,
    numbering: &'a Numbering,
    fragments: &'a [Fragment],
    data_end: u64,
    inodes: MetadataWriter,
    directories: MetadataWriter,
    /// The directories whose listing is written and whose inode is not.
    listings: BTreeMap<NodeId, Listing>,
    /// Where each inode lies, by its number less one.
    references: Vec<u64>,
}

/// What an [`InodeWriter`] leaves.
struct Written {
    /// The inode table and the directory table.
    tail: Vec<u8>,
    /// Where in `tail` the directory table begins.
    directories_at: u64,
    /// Where the root's inode lies.
    root: u64,
    references: Vec<u64>,
}

impl InodeWriter<'_> {
    fn write(mut self) -> Result<Written, SquashfsError> {
        for &directory in self.numbering.directories.iter().rev() {
            let names = children(self.tree, directory);
            for &child in names.values() {
                if self.reference(child) == ABSENT {
                    self.write_inode(child, self.numbering.number_of(directory))?;
                }
            }
            let entries = names.iter().map(|(name, &id)| Child {
                name,
                kind: inode::basic_kind(&self.tree.node(id).kind),
                number: self.numbering.number_of(id),
                reference: self.references[self.numbering.number_of(id) as usize - 1],
            });
            let listing = directory::write(&mut self.directories, entries)?;
            self.listings.insert(directory, listing);
        }
        // The root has no parent: it takes a number that no inode has, as mksquashfs does.
        self.write_inode(NodeId::ROOT, self.numbering.count + 1)?;
        let root = self.reference(NodeId::ROOT);
        let mut tail = self.inodes.finish();
        let directories_at = tail.len() as u64;
        tail.append(&mut self.directories.finish());
        Ok(Written { tail, directories_at, root, references: self.references })
    }

    fn reference(&self, id: NodeId) -> u64 {
        self.references[self.numbering.number_of(id) as usize - 1]
    }

    fn write_inode(&mut self, id: NodeId, parent: u32) -> Result<(), SquashfsError> {
        let Node { kind, mode, mtime } = self.tree.node(id);
        let number = self.numbering.number_of(id);
        let links = self.numbering.links[id.index()];
        let common = Common { mode: mode.0 & 0o7777, mtime: *mtime, number };
        let bytes = match kind {
            NodeKind::Directory(_) => {
                let listing = self.listings.remove(&id).unwrap_or_default();
                inode::directory(common, &listing, parent)
            }
            NodeKind::File(data) => {
                check_file(data, self.fragments, self.data_end).map_err(|reason| self.bad_file(id, reason))?;
                inode::file(common, data, links)
            }
            NodeKind::Symlink(target) => inode::symlink(common, target, links),
        };
        self.references[number as usize - 1] = self.inodes.position()?.reference();
        self.inodes.put(&bytes)
    }

    fn bad_file(&self, id: NodeId, reason: &'static str) -> SquashfsError {
        let named = self.tree.walk().find(|(_, node, _)| *node == id);
        SquashfsError::File { path: named.map_or_else(String::new, |(path, ..)| path.to_string()), reason }
    }
}

struct Superblock {
    inode_count: u32,
    mtime: u32,
    fragment_count: u32,
    root: u64,
    bytes_used: u64,
    id_table: u64,
    inode_table: u64,
    directory_table: u64,
    fragment_table: u64,
    export_table: u64,
}

impl Superblock {
    fn to_bytes(&self) -> [u8; SUPERBLOCK_SIZE as usize] {
        let mut flags = FLAG_DUPLICATES | FLAG_EXPORTABLE | FLAG_NO_XATTRS;
        if self.fragment_table == ABSENT {
            flags |= FLAG_NO_FRAGMENTS;
        }
        let mut bytes = [0; SUPERBLOCK_SIZE as usize];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &MAGIC.to_le_bytes());
        put(4, &self.inode_count.to_le_bytes());
        put(8, &self.mtime.to_le_bytes());
        put(12, &(BLOCK_SIZE as u32).to_le_bytes());
        put(16, &self.fragment_count.to_le_bytes());
        put(20, &COMPRESSOR_GZIP.to_le_bytes());
        put(22, &(BLOCK_SIZE.trailing_zeros() as u16).to_le_bytes());
        put(24, &flags.to_le_bytes());
        put(26, &1u16.to_le_bytes()); // ids: only 0
        put(28, &4u16.to_le_bytes()); // version 4.0
        put(30, &0u16.to_le_bytes());
        put(32, &self.root.to_le_bytes());
        put(40, &self.bytes_used.to_le_bytes());
        put(48, &self.id_table.to_le_bytes());
        put(56, &ABSENT.to_le_bytes()); // extended attributes
        put(64, &self.inode_table.to_le_bytes());
        put(72, &self.directory_table.to_le_bytes());
        put(80, &self.fragment_table.to_le_bytes());
        put(88, &self.export_table.to_le_bytes());
        bytes
    }
}
