//! Chunks and the two frames that they are wrapped in.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

/// Bit 24 of a squashfs block size: the block is stored raw.
const RAW: u32 = 1 << 24;
/// The gzip header that every member gets: deflate, no name, no time, unknown system (RFC 1952, section 2.3).
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// The zlib header of a 32 KiB window at the default level (RFC 1950, section 2.2).
const ZLIB_HEADER: [u8; 2] = [0x78, 0x9c];
/// The most bytes that one stored block of deflate holds (RFC 1951, section 3.2.4).
const STORED_BLOCK: usize = 0xffff;

/// Which format a chunk belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Use {
    /// A full or last block of a large file: a gzip member of the layer and a block of the squashfs.
    Both,
    /// Tar headers of the directories that come before all else: for a layer that no other pack shares.
    Directories,
    /// Tar headers and small files.
    Layer,
    /// A fragment block.
    Squashfs,
}

/// How the bytes of a chunk lie in the pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Encoding {
    /// Raw deflate (RFC 1951).
    Deflate,
    /// As they are: compression would not have made them smaller.
    Stored,
}

/// One compressed piece of a pack.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Chunk {
    /// Which format it belongs to.
    pub used: Use,
    /// How it is stored.
    pub encoding: Encoding,
    /// Stored length in bytes.
    pub stored: u32,
    /// Uncompressed length in bytes.
    pub raw: u32,
    /// CRC-32 of the uncompressed bytes, for gzip.
    pub crc32: u32,
    /// Adler-32 of the uncompressed bytes, for zlib.
    pub adler32: u32,
    /// CRC-32 of the stored bytes: a disk that gives back others must not get them into an image.
    pub check: u32,
}

impl Chunk {
    /// Whether the layer holds it.
    pub fn in_layer(&self) -> bool {
        self.used != Use::Squashfs
    }

    /// How many bytes it adds to the squashfs.
    pub fn squashfs_size(&self) -> u64 {
        match (self.used, self.encoding) {
            (Use::Directories | Use::Layer, _) => 0,
            (_, Encoding::Stored) => u64::from(self.stored),
            (_, Encoding::Deflate) => u64::from(self.stored) + 6,
        }
    }

    /// About how many bytes it is as a gzip member: the framing of what could not be compressed is left out.
    pub fn gzip_size(&self) -> u64 {
        (GZIP_HEADER.len() + 8) as u64 + u64::from(self.stored)
    }

    /// Its size as inodes and the fragment table write it.
    pub fn squashfs_block(&self) -> u32 {
        match self.encoding {
            Encoding::Stored => self.stored | RAW,
            Encoding::Deflate => self.stored + 6,
        }
    }

    /// Writes it as a gzip member.
    pub fn write_gzip(&self, stored: &[u8], out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&GZIP_HEADER)?;
        match self.encoding {
            Encoding::Deflate => out.write_all(stored)?,
            Encoding::Stored => write_stored_blocks(stored, out)?,
        }
        out.write_all(&self.crc32.to_le_bytes())?;
        out.write_all(&self.raw.to_le_bytes())
    }

    /// Writes it as a squashfs data block.
    pub fn write_squashfs(&self, stored: &[u8], out: &mut dyn Write) -> io::Result<()> {
        match self.encoding {
            Encoding::Stored => out.write_all(stored),
            Encoding::Deflate => {
                out.write_all(&ZLIB_HEADER)?;
                out.write_all(stored)?;
                out.write_all(&self.adler32.to_be_bytes())
            }
        }
    }
}

fn write_stored_blocks(bytes: &[u8], out: &mut dyn Write) -> io::Result<()> {
    let mut blocks = bytes.chunks(STORED_BLOCK).peekable();
    while let Some(block) = blocks.next() {
        let length = block.len() as u16;
        out.write_all(&[u8::from(blocks.peek().is_none())])?;
        out.write_all(&length.to_le_bytes())?;
        out.write_all(&(!length).to_le_bytes())?;
        out.write_all(block)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::pack::compress::{LEVEL, compress};

    #[test]
    fn a_chunk_reads_back_from_both_frames() {
        let noise: Vec<u8> = (0..131_072u32)
            .scan(1u32, |x, _| {
                *x = x.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                Some((*x >> 24) as u8)
            })
            .collect();
        for (raw, encoding) in [(vec![b'a'; 131_072], Encoding::Deflate), (noise, Encoding::Stored)] {
            let (chunk, stored) = compress(raw.clone(), Use::Both, LEVEL);
            assert_eq!(chunk.encoding, encoding);
            let (mut gzip, mut block, mut back) = (Vec::new(), Vec::new(), Vec::new());
            chunk.write_gzip(&stored, &mut gzip).unwrap();
            flate2::read::MultiGzDecoder::new(&gzip[..]).read_to_end(&mut back).unwrap();
            assert_eq!(back, raw);
            chunk.write_squashfs(&stored, &mut block).unwrap();
            assert_eq!(block.len() as u64, chunk.squashfs_size());
            if encoding == Encoding::Deflate {
                back.clear();
                flate2::read::ZlibDecoder::new(&block[..]).read_to_end(&mut back).unwrap();
                assert_eq!(back, raw);
            }
        }
    }
}
