//! The tar stream of a layer: that of one pack, or of several that share it.
//!
//! Docker and Podman refuse a layer in which a path comes twice, be it a directory. So packs that share a layer have their
//! directories at its beginning, once, and of each pack the rest follows.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::chunk::{Chunk, Use};
use super::compress::{LAYER_LEVEL, compress};
use super::tar_header::headers;
use super::{CopyError, PackFile, PackedEntry, PackedKind, TAR_END};
use crate::entry::{Entry, EntryKind};

/// How many bytes of tar headers and small files one gzip member holds. Larger members compress a little better; the
/// compressors' memory grows with them.
pub const LAYER_CHUNK: usize = 256 * 1024;

/// Writes the blob of the layer that holds `packs`: gzip members.
pub fn write_layer(packs: &[&PackFile], out: &mut dyn Write) -> Result<(), CopyError> {
    for headers in shared_directories(packs).chunks(LAYER_CHUNK) {
        let (chunk, stored) = compress(headers.to_vec(), Use::Directories, LAYER_LEVEL);
        chunk.write_gzip(&stored, out).map_err(CopyError::Write)?;
    }
    packs.iter().try_for_each(|pack| pack.write_gzip(wanted_of(packs), out))?;
    write_tar_end(out).map_err(CopyError::Write)
}

/// Writes the uncompressed tar stream of the layer that holds `packs`: its digest is the diff id.
pub fn write_layer_tar(packs: &[&PackFile], out: &mut dyn Write) -> Result<(), CopyError> {
    out.write_all(&shared_directories(packs)).map_err(CopyError::Write)?;
    packs.iter().try_for_each(|pack| pack.write_tar(wanted_of(packs), out))?;
    out.write_all(&TAR_END).map_err(CopyError::Write)
}

/// Writes the gzip member that ends the tar stream of a layer.
pub(super) fn write_tar_end(out: &mut dyn Write) -> io::Result<()> {
    let (chunk, stored) = compress(TAR_END.to_vec(), Use::Layer, LAYER_LEVEL);
    chunk.write_gzip(&stored, out)
}

/// Which chunks of each pack are in the layer.
fn wanted_of(packs: &[&PackFile]) -> fn(&Chunk) -> bool {
    match packs {
        [_] => Chunk::in_layer,
        _ => |chunk| chunk.in_layer() && chunk.used != Use::Directories,
    }
}

/// The headers of the directories of all packs, each after those above it; none of one pack alone, which has its own.
fn shared_directories(packs: &[&PackFile]) -> Vec<u8> {
    if packs.len() < 2 {
        return Vec::new();
    }
    let is_directory = |entry: &&PackedEntry| matches!(entry.kind, PackedKind::Directory);
    let directories = packs.iter().flat_map(|pack| pack.index.entries.iter().take_while(is_directory));
    let by_path: BTreeMap<_, _> = directories.map(|entry| (&entry.path, entry)).collect();
    let entry =
        |of: &PackedEntry| Entry { path: of.path.clone(), kind: EntryKind::Directory, mode: of.mode, mtime: of.mtime };
    by_path.into_values().flat_map(|directory| headers(&entry(directory))).collect()
}
