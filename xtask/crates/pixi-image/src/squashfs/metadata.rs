//! Metadata blocks: up to 8 KiB each, compressed one by one, with a two-byte header.

use libdeflater::{CompressionLvl, Compressor};

use super::SquashfsError;

/// How many bytes a metadata block holds before it is compressed.
pub(super) const METADATA_SIZE: usize = 8192;
/// Set in the header of a metadata block that is stored as it is.
pub(super) const STORED_RAW: u16 = 1 << 15;

/// A place in a table of metadata blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Position {
    /// Where the block begins, in bytes from the start of the table.
    pub block: u32,
    /// The place in the uncompressed block.
    pub offset: u16,
}

impl Position {
    /// The form in which the superblock, listings and the export table name an inode.
    pub fn reference(self) -> u64 {
        u64::from(self.block) << 16 | u64::from(self.offset)
    }

    /// The position that [`Position::reference`] was made of.
    pub fn from_reference(reference: u64) -> Self {
        Self { block: (reference >> 16) as u32, offset: reference as u16 }
    }
}

/// Writes one table as metadata blocks, into memory.
pub(super) struct MetadataWriter {
    table: &'static str,
    compressor: Compressor,
    written: Vec<u8>,
    /// What the next block holds so far; always less than a whole block.
    block: Vec<u8>,
}

impl MetadataWriter {
    /// A writer of the table with this name, which stands in errors.
    pub fn new(table: &'static str) -> Self {
        let level = CompressionLvl::new(6).unwrap_or_default(); // 6 is also the default
        Self {
            table,
            compressor: Compressor::new(level),
            written: Vec::new(),
            block: Vec::with_capacity(METADATA_SIZE),
        }
    }

    /// Where the next byte will stand.
    pub fn position(&self) -> Result<Position, SquashfsError> {
        let block = u32::try_from(self.written.len()).map_err(|_| SquashfsError::TooLarge(self.table))?;
        Ok(Position { block, offset: self.block.len() as u16 })
    }

    /// Appends bytes, which may run on into the next blocks.
    pub fn put(&mut self, mut bytes: &[u8]) -> Result<(), SquashfsError> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(METADATA_SIZE - self.block.len()));
            self.block.extend_from_slice(now);
            bytes = later;
            if self.block.len() == METADATA_SIZE {
                self.flush();
                self.position()?;
            }
        }
        Ok(())
    }

    /// The whole table.
    pub fn finish(mut self) -> Vec<u8> {
        if !self.block.is_empty() {
            self.flush();
        }
        self.written
    }

    fn flush(&mut self) {
        let header = self.written.len();
        let data = header + 2;
        // One byte less than the block, so that what does not shrink is stored as it is.
        self.written.resize(data + self.block.len() - 1, 0);
        let size = match self.compressor.zlib_compress(&self.block, &mut self.written[data..]) {
            Ok(size) => {
                self.written.truncate(data + size);
                size as u16
            }
            Err(libdeflater::CompressionError::InsufficientSpace) => {
                self.written.truncate(data);
                self.written.extend_from_slice(&self.block);
                self.block.len() as u16 | STORED_RAW
            }
        };
        self.written[header..data].copy_from_slice(&size.to_le_bytes());
        self.block.clear();
    }
}

/// Appends a table of equal records to `tail`, which itself begins at `tail_start` in the file system: metadata blocks,
/// then the list of where each begins. Gives the place of that list in the file system.
pub(super) fn lookup_table(tail: &mut Vec<u8>, tail_start: u64, records: &[u8]) -> Result<u64, SquashfsError> {
    let start = tail_start + tail.len() as u64;
    let mut writer = MetadataWriter::new("lookup table");
    let mut places = Vec::new();
    for block in records.chunks(METADATA_SIZE) {
        let place = start + u64::from(writer.position()?.block);
        places.extend_from_slice(&place.to_le_bytes());
        writer.put(block)?;
    }
    tail.append(&mut writer.finish());
    let list = tail_start + tail.len() as u64;
    tail.append(&mut places);
    Ok(list)
}
