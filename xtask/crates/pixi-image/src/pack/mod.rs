//! One package compressed once for both formats.
//!
//! A *pack* is the whole work on one source of entries: its piece of a layer's tar and its piece of the squashfs, as
//! position-independent compressed chunks. A squashfs data block is a zlib stream and a gzip member is a gzip stream, and
//! both are the same raw deflate bytes in other frames. So the content of large files is cut at the squashfs block size and
//! deflated once; a layer wraps the chunk as a gzip member, the squashfs wraps it as a block:
//!
//! ```text
//! entries ──> headers of directories ──> chunks for a layer of this pack alone
//!        ├──> tar headers, small files ──> chunks for the layer only
//!        ├──> large files, per 128 KiB ──> chunks for both
//!        └──> small files, gathered    ──> chunks for the squashfs only (fragment blocks)
//! ```
//!
//! Rebuilding an image copies packs and writes tables. Small files are gathered inside a pack only, so that a change of one
//! package changes no other pack. What is built for one format alone is packed for that alone; the bytes are the same.

mod chunk;
mod compress;
mod file;
mod layer;
mod tar_header;
#[cfg(test)]
mod tests;
mod writer;

use serde::{Deserialize, Serialize};

use crate::entry::{ImagePath, Mode};
use crate::model::Digest;

pub use chunk::{Chunk, Encoding, Use};
pub use compress::{Compressors, HARD_LEVEL, LAYER_LEVEL, LEVEL, LOOK_BACK, level_of_block};
pub use file::{CopyError, PackError, PackFile};
pub use layer::{write_layer, write_layer_tar};
pub use writer::{PackWriter, SMALL, Targets};

/// Raised whenever the bytes of a pack, or those that it yields, change for the same input; part of every cache key.
pub const FORMAT_VERSION: u32 = 7;

/// What a tar stream ends with: two blocks of zeros (POSIX ustar).
pub const TAR_END: [u8; 1024] = [0; 1024];

/// The directory of a pack: which chunks there are, and which files they make.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct PackIndex {
    /// The chunks in file order.
    pub chunks: Vec<Chunk>,
    /// The entries in the order in which they came.
    pub entries: Vec<PackedEntry>,
    /// The fragment blocks: start relative to the pack's squashfs bytes, and size with bit 24 when stored raw.
    pub fragments: Vec<(u64, u32)>,
    /// The diff id of a layer that holds this pack alone; none when the pack is not for layers.
    pub diff_id: Option<Digest>,
    /// Digest and size in bytes of the blob of a layer that holds this pack alone; none when the pack is not for layers.
    pub blob: Option<(Digest, u64)>,
    /// Contents of the files that activation reads, by path.
    pub captured: Vec<(ImagePath, Vec<u8>)>,
}

impl PackIndex {
    /// How many bytes the pack adds to a squashfs.
    pub fn squashfs_size(&self) -> u64 {
        self.chunks.iter().map(Chunk::squashfs_size).sum()
    }

    /// About how many bytes the pack adds to a layer.
    pub fn layer_size(&self) -> u64 {
        self.chunks.iter().filter(|chunk| chunk.in_layer()).map(Chunk::gzip_size).sum()
    }

    /// Uncompressed bytes of all files.
    pub fn content_size(&self) -> u64 {
        let size = |entry: &PackedEntry| match &entry.kind {
            PackedKind::File(content) => content.size,
            _ => 0,
        };
        self.entries.iter().map(size).sum()
    }
}

/// One entry of a pack.
#[derive(Debug, Serialize, Deserialize)]
pub struct PackedEntry {
    /// Where it stands in the image.
    pub path: ImagePath,
    /// Its permission bits.
    pub mode: Mode,
    /// Seconds since 1970-01-01 UTC.
    pub mtime: u32,
    /// What it is, and where its content lies.
    pub kind: PackedKind,
}

/// What a packed entry is.
#[derive(Debug, Serialize, Deserialize)]
pub enum PackedKind {
    /// A directory.
    Directory,
    /// A file with its content in the pack's squashfs bytes.
    File(PackedContent),
    /// A symbolic link with its target as it stands.
    Symlink(#[serde(with = "serde_bytes")] Vec<u8>),
    /// Another name of an earlier file of the same pack.
    Hardlink(ImagePath),
}

/// Where the content of a file lies in the pack's squashfs bytes.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct PackedContent {
    /// The length of the content in bytes.
    pub size: u64,
    /// Where the first block begins, relative to the pack's squashfs bytes.
    pub start: u64,
    /// The stored sizes of the blocks: bit 24 when stored raw, 0 for a block of zeros.
    pub blocks: Vec<u32>,
    /// The fragment block, counted from the pack's first, and the offset in it.
    pub fragment: Option<(u32, u32)>,
    /// Bytes that no block is stored for.
    pub sparse: u64,
}
