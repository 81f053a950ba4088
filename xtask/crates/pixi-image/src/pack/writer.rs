//! Entries in, chunks out: the sink that makes both formats' pieces in one pass.

use std::collections::VecDeque;
use std::io::{self, Write};

use sha2::Digest as _;

use super::chunk::{Chunk, Use};
use super::compress::{Compressors, LAYER_LEVEL, LEVEL, LOOK_BACK, Promise, level_of_block};
use super::layer::{LAYER_CHUNK, write_tar_end};
use super::tar_header::{headers, padding};
use super::{PackIndex, PackedContent, PackedEntry, PackedKind, TAR_END};
use crate::entry::{Entry, EntryKind, EntrySink, ImagePath};
use crate::hashed::Hashed;
use crate::model::Digest;
use crate::squashfs::BLOCK_SIZE;

/// Files of less bytes are gathered in fragment blocks, and deflated once more for the layer. Larger ones are blocks of their
/// own, deflated once for both, and whoever reads one decodes nothing else: with 16 KiB a SIF would be 0.4 % larger.
pub const SMALL: usize = 24 * 1024;

/// Which formats a pack is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Targets {
    /// Layer and squashfs.
    Both,
    /// The layer alone: small files are gathered for no squashfs.
    LayerOnly,
    /// The squashfs alone; also for what an OCI image has elsewhere (base layers) or not at all (/.singularity.d).
    SquashfsOnly,
    /// Neither: the index tells which files there are. Contents need not come, and are dropped.
    NamesOnly,
}

impl Targets {
    fn have_layer(self) -> bool {
        matches!(self, Self::Both | Self::LayerOnly)
    }

    fn have_squashfs(self) -> bool {
        matches!(self, Self::Both | Self::SquashfsOnly)
    }
}

/// Writes chunks to `W` and gathers the index. The index is had from [`PackWriter::finish`] alone, when all is written.
pub struct PackWriter<'a, W> {
    out: W,
    compressors: &'a Compressors,
    targets: Targets,
    index: PackIndex,
    /// Chunks that are being compressed, in order, with the entry whose block each is.
    waiting: VecDeque<(Promise, Option<usize>)>,
    squashfs_position: u64,
    /// The layer's blob as it will be, hashed.
    blob: Hashed<Box<dyn Write + 'a>>,
    tar: TarStream,
    fragment: Vec<u8>,
    fragments_begun: u32,
    current: Option<Current>,
    capture: fn(&ImagePath) -> bool,
}

/// The layer's tar stream: hashed as a whole, gathered until it makes a member.
struct TarStream {
    hasher: sha2::Sha256,
    pending: Vec<u8>,
    /// Whether nothing but directories has come.
    only_directories: bool,
}

/// The file whose content is arriving.
struct Current {
    entry: usize,
    left: u64,
    size: u64,
    block: Vec<u8>,
    captured: bool,
}

impl<'a, W: Write> PackWriter<'a, W> {
    /// Begins a pack. Contents of files for which `capture` says yes are kept in the index too.
    pub fn new(out: W, compressors: &'a Compressors, targets: Targets, capture: fn(&ImagePath) -> bool) -> Self {
        Self {
            out,
            compressors,
            targets,
            index: PackIndex::default(),
            waiting: VecDeque::new(),
            squashfs_position: 0,
            blob: Hashed::new(Box::new(io::sink())),
            tar: TarStream { hasher: sha2::Sha256::new(), pending: Vec::new(), only_directories: true },
            fragment: Vec::new(),
            fragments_begun: 0,
            current: None,
            capture,
        }
    }

    /// Writes the blob of a layer that holds this pack alone to `layer`, too, as it is made.
    pub fn with_layer(self, layer: impl Write + 'a) -> Self {
        Self { blob: Hashed::new(Box::new(layer)), ..self }
    }

    /// Writes what is left and hands over the index and the writer.
    pub fn finish(mut self) -> io::Result<(PackIndex, W)> {
        self.end_of_file()?;
        self.flush_fragment()?;
        self.flush_tar()?;
        while !self.waiting.is_empty() {
            self.settle_one()?;
        }
        if self.targets.have_layer() {
            self.tar.hasher.update(TAR_END);
            self.index.diff_id = Some(Digest(self.tar.hasher.finalize().into()));
            write_tar_end(&mut self.blob)?;
            self.blob.flush()?;
            self.index.blob = Some(self.blob.finish());
        }
        Ok((self.index, self.out))
    }

    /// Appends to the tar stream; `shared` when a chunk for both formats carries the bytes.
    fn tar(&mut self, bytes: &[u8], shared: bool) -> io::Result<()> {
        if !self.targets.have_layer() {
            return Ok(());
        }
        self.tar.hasher.update(bytes);
        if !shared {
            let mut rest = bytes;
            while !rest.is_empty() {
                let room = LAYER_CHUNK - self.tar.pending.len();
                let (now, later) = rest.split_at(room.min(rest.len()));
                self.tar.pending.extend_from_slice(now);
                rest = later;
                if self.tar.pending.len() == LAYER_CHUNK {
                    self.flush_tar()?;
                }
            }
        }
        Ok(())
    }

    fn flush_tar(&mut self) -> io::Result<()> {
        if self.tar.pending.is_empty() {
            return Ok(());
        }
        let bytes = std::mem::take(&mut self.tar.pending);
        let used = if self.tar.only_directories { Use::Directories } else { Use::Layer };
        self.submit(bytes, used, LAYER_LEVEL, None)
    }

    fn flush_fragment(&mut self) -> io::Result<()> {
        if self.fragment.is_empty() {
            return Ok(());
        }
        let bytes = std::mem::take(&mut self.fragment);
        self.fragments_begun += 1;
        self.submit(bytes, Use::Squashfs, LEVEL, None)
    }

    fn submit(&mut self, bytes: Vec<u8>, used: Use, level: i32, entry: Option<usize>) -> io::Result<()> {
        if self.waiting.len() >= self.compressors.window() {
            let half = self.waiting.len() / 2;
            if let Some((promise, _)) = self.waiting.get_mut(half) {
                promise.await_chunk();
            }
            (0..half).try_for_each(|_| self.settle_one())?;
        }
        self.waiting.push_back((self.compressors.submit(bytes, used, level), entry));
        Ok(())
    }

    /// Waits for the oldest chunk and writes it.
    fn settle_one(&mut self) -> io::Result<()> {
        let Some((promise, entry)) = self.waiting.pop_front() else { return Ok(()) };
        let (chunk, stored) = promise.wait().ok_or_else(|| io::Error::other("a compressing thread has died"))?;
        self.out.write_all(&stored)?;
        if chunk.in_layer() {
            chunk.write_gzip(&stored, &mut self.blob)?;
        }
        match entry.and_then(|entry| content_of(&mut self.index.entries, entry)) {
            Some(content) => place_block(content, &chunk, self.squashfs_position),
            None if chunk.used == Use::Squashfs => {
                self.index.fragments.push((self.squashfs_position, chunk.squashfs_block()));
            }
            None => {}
        }
        self.squashfs_position += chunk.squashfs_size();
        self.index.chunks.push(chunk);
        Ok(())
    }

    fn begin_file(&mut self, entry: &Entry, size: u64) -> io::Result<()> {
        let captured = (self.capture)(&entry.path);
        if captured {
            self.index.captured.push((entry.path.clone(), Vec::new()));
        }
        let block = Vec::with_capacity((size.min(BLOCK_SIZE as u64)) as usize);
        self.current = Some(Current { entry: self.index.entries.len(), left: size, size, block, captured });
        self.push(entry, PackedKind::File(PackedContent { size, ..PackedContent::default() }));
        Ok(())
    }

    fn push(&mut self, entry: &Entry, kind: PackedKind) {
        self.index.entries.push(PackedEntry { path: entry.path.clone(), mode: entry.mode, mtime: entry.mtime, kind });
    }

    /// Ends the file whose content has arrived, or fails if some of it is missing.
    fn end_of_file(&mut self) -> io::Result<()> {
        let Some(current) = self.current.take() else { return Ok(()) };
        if current.left > 0 && self.targets != Targets::NamesOnly {
            let path = self.index.entries[current.entry].path.lossy().into_owned();
            let message = format!("{path}: {} bytes of its content are missing", current.left);
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
        }
        if current.size < SMALL as u64 {
            self.small_file(current.entry, &current.block)?;
        } else if !current.block.is_empty() {
            self.block(current.entry, current.block)?;
        }
        self.tar(&[0; 512][..padding(current.size)], false)
    }

    fn small_file(&mut self, entry: usize, content: &[u8]) -> io::Result<()> {
        if content.is_empty() {
            return Ok(());
        }
        if !self.targets.have_squashfs() {
            return self.tar(content, false);
        }
        if self.fragment.len() + content.len() > BLOCK_SIZE {
            self.flush_fragment()?;
        }
        let place = (self.fragments_begun, self.fragment.len() as u32);
        self.fragment.extend_from_slice(content);
        if let Some(packed) = content_of(&mut self.index.entries, entry) {
            packed.fragment = Some(place);
        }
        self.tar(content, false)
    }

    /// One block of a large file.
    fn block(&mut self, entry: usize, block: Vec<u8>) -> io::Result<()> {
        if block.iter().all(|byte| *byte == 0) {
            // The squashfs needs no bytes for it; blocks before it are settled first, so that their order stays.
            self.settle_blocks_of(entry)?;
            if let Some(content) = content_of(&mut self.index.entries, entry) {
                content.blocks.push(0);
                content.sparse += block.len() as u64;
            }
            return self.tar(&block, false);
        }
        self.tar(&block, true)?;
        let used = match self.targets {
            Targets::Both | Targets::LayerOnly => Use::Both,
            Targets::SquashfsOnly => Use::Squashfs,
            Targets::NamesOnly => return Ok(()),
        };
        // What the tar stream holds so far must come before this member.
        self.flush_tar()?;
        let level = self.level_of_next_block(entry)?;
        self.submit(block, used, level, Some(entry))
    }

    /// Waits for the block that tells the level of the next one.
    fn level_of_next_block(&mut self, entry: usize) -> io::Result<i32> {
        let on_their_way = self.waiting.iter().filter(|(_, of)| *of == Some(entry)).count();
        let settled = content_of(&mut self.index.entries, entry).map_or(0, |content| content.blocks.len());
        let Some(at) = (settled + on_their_way).checked_sub(LOOK_BACK) else { return Ok(level_of_block(None)) };
        loop {
            let blocks = content_of(&mut self.index.entries, entry).map(|content| content.blocks.as_slice());
            match blocks.and_then(|blocks| blocks.get(at)) {
                None if !self.waiting.is_empty() => self.settle_one()?,
                earlier => return Ok(level_of_block(earlier.copied())),
            }
        }
    }

    fn settle_blocks_of(&mut self, entry: usize) -> io::Result<()> {
        while self.waiting.iter().any(|(_, of)| *of == Some(entry)) {
            self.settle_one()?;
        }
        Ok(())
    }
}

impl<W: Write> EntrySink for PackWriter<'_, W> {
    fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        self.end_of_file()?;
        if self.tar.only_directories && entry.kind != EntryKind::Directory {
            self.flush_tar()?;
            self.tar.only_directories = false;
        }
        self.tar(&headers(entry), false)?;
        match &entry.kind {
            EntryKind::File { size } => self.begin_file(entry, *size)?,
            EntryKind::Directory => self.push(entry, PackedKind::Directory),
            EntryKind::Symlink { target } => self.push(entry, PackedKind::Symlink(target.clone())),
            EntryKind::Hardlink { target } => self.push(entry, PackedKind::Hardlink(target.clone())),
        }
        Ok(())
    }

    fn data(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let Some(current) = self.current.as_mut().filter(|current| current.left >= bytes.len() as u64) else {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "more content than its entry said"));
            };
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK_SIZE - current.block.len()));
            current.block.extend_from_slice(now);
            current.left -= now.len() as u64;
            if current.captured
                && let Some((_, content)) = self.index.captured.last_mut()
            {
                content.extend_from_slice(now);
            }
            if current.block.len() == BLOCK_SIZE {
                let next = Vec::with_capacity(current.left.min(BLOCK_SIZE as u64) as usize);
                let (entry, block) = (current.entry, std::mem::replace(&mut current.block, next));
                self.block(entry, block)?;
            }
            bytes = later;
        }
        Ok(())
    }
}

fn content_of(entries: &mut [PackedEntry], entry: usize) -> Option<&mut PackedContent> {
    match &mut entries.get_mut(entry)?.kind {
        PackedKind::File(content) => Some(content),
        _ => None,
    }
}

fn place_block(content: &mut PackedContent, chunk: &Chunk, position: u64) {
    if content.blocks.iter().all(|size| *size == 0) {
        content.start = position;
    }
    content.blocks.push(chunk.squashfs_block());
}
