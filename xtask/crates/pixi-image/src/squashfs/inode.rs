//! Inodes: a basic form of each kind for the common case, an extended form where its fields do not suffice.

use super::directory::Listing;
use crate::tree::{FileData, NodeKind};

pub(super) const DIRECTORY: u16 = 1;
const FILE: u16 = 2;
const SYMLINK: u16 = 3;
const EXTENDED_DIRECTORY: u16 = 8;
const EXTENDED_FILE: u16 = 9;

const NO_FRAGMENT: u32 = u32::MAX;
const NO_XATTRS: u32 = u32::MAX;
/// Readers count `.` and `..` into a directory's size, as three bytes.
const DOTS: u32 = 3;

/// What every inode begins with, besides its kind and owner.
#[derive(Clone, Copy)]
pub(super) struct Common {
    pub mode: u16,
    pub mtime: u32,
    /// The inode number, from 1 on.
    pub number: u32,
}

/// An inode that is being encoded, little endian.
struct Encoder(Vec<u8>);

impl Encoder {
    fn new(kind: u16, common: Common) -> Self {
        let owner_and_group = 0; // both are the first of the id table
        Self(Vec::with_capacity(64))
            .u16(kind)
            .u16(common.mode)
            .u32(owner_and_group)
            .u32(common.mtime)
            .u32(common.number)
    }

    fn u16(self, value: u16) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    fn u32(self, value: u32) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    fn u64(self, value: u64) -> Self {
        self.bytes(&value.to_le_bytes())
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
}

/// The kind of inode that a listing names.
pub(super) fn basic_kind(kind: &NodeKind) -> u16 {
    match kind {
        NodeKind::Directory(_) => DIRECTORY,
        NodeKind::File(_) => FILE,
        NodeKind::Symlink(_) => SYMLINK,
    }
}

pub(super) fn directory(common: Common, listing: &Listing, parent: u32) -> Vec<u8> {
    let links = 2 + listing.subdirectories;
    let size = listing.size + DOTS;
    let inode = match u16::try_from(size) {
        Ok(size) if listing.index_count == 0 => Encoder::new(DIRECTORY, common)
            .u32(listing.start.block)
            .u32(links)
            .u16(size)
            .u16(listing.start.offset)
            .u32(parent),
        _ => Encoder::new(EXTENDED_DIRECTORY, common)
            .u32(links)
            .u32(size)
            .u32(listing.start.block)
            .u32(parent)
            .u16(listing.index_count)
            .u16(listing.start.offset)
            .u32(NO_XATTRS)
            .bytes(&listing.index),
    };
    inode.0
}

pub(super) fn file(common: Common, data: &FileData, links: u32) -> Vec<u8> {
    let (fragment, offset) = data.fragment.map_or((NO_FRAGMENT, 0), |place| (place.index, place.offset));
    let start = if data.blocks.is_empty() { 0 } else { data.start };
    let inode = match (u32::try_from(start), u32::try_from(data.size)) {
        (Ok(start), Ok(size)) if links == 1 && data.sparse == 0 => {
            Encoder::new(FILE, common).u32(start).u32(fragment).u32(offset).u32(size)
        }
        _ => Encoder::new(EXTENDED_FILE, common)
            .u64(start)
            .u64(data.size)
            // As mksquashfs does: a file that shows no disk use at all is taken for empty by some programs.
            .u64(data.sparse.min(data.size.saturating_sub(1)))
            .u32(links)
            .u32(fragment)
            .u32(offset)
            .u32(NO_XATTRS),
    };
    data.blocks.iter().fold(inode, |inode, block| inode.u32(*block)).0
}

pub(super) fn symlink(common: Common, target: &[u8], links: u32) -> Vec<u8> {
    // A target has at most 4095 bytes.
    Encoder::new(SYMLINK, common).u32(links).u32(target.len() as u32).bytes(target).0
}
