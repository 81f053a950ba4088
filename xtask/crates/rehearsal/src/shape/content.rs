//! File contents that compress like real ones, in size and in time: pieces of real files, put together anew.
//!
//! Texts and libraries are stretches of [`Specimens`]. A library with code for GPUs is not among them; its content is made
//! of short runs of a library and of literals, and copies from farther back than deflate's window of 32 KiB, which only
//! zstd finds: so that zstd and deflate, at each level, make of it what they make of NVIDIA's libraries, and take as long.
//! Bytecode is made up as a run of literals and of copies.

use std::io::{self, Read};

use super::specimens::Specimens;

/// Numbers that look random and are the same everywhere (splitmix64).
#[derive(Clone, Debug)]
pub struct Numbers(u64);

impl Numbers {
    /// The numbers of a text, for example the name of a package.
    pub fn of(text: &str) -> Self {
        // FNV-1a: the numbers need a seed, not a digest.
        let seed = text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Self(seed)
    }

    /// The next one.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.draw() % limit
    }

    /// The size of a small file: mostly small, seldom four times the mean.
    pub fn size(&mut self, mean: u64) -> u64 {
        (self.below(2 * mean) * (1 + self.below(2 * mean)) / mean.max(1)).max(64)
    }
}

/// What a file is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// Source code.
    Text,
    /// What Python compiles of it.
    Bytecode,
    /// A shared library.
    Library,
    /// A shared library with code for GPUs, most of which is compressed in it.
    Device,
}

impl Content {
    /// Compressed by uncompressed size, in permille, with zstd at the level of a shape's archives: for the first guess.
    pub fn ratio(self) -> u64 {
        match self {
            Self::Text => 240,
            Self::Bytecode => 370,
            Self::Library => 250,
            Self::Device => 620,
        }
    }
}

/// The longest stretch of a specimen, and what it is at least: longer than a block of 128 KiB.
const STRETCH: [u64; 2] = [256 << 10, 1 << 20];
/// The longest run of a library, or of literals, in one with code for GPUs.
const RUN: u64 = 600;
/// Of how many runs one is a far copy.
const FAR_IN: u64 = 60;
/// How many of a hundred runs are of a library.
const OF_LIBRARY: u64 = 45;
/// Bytes that are frequent in such code, and how many of a hundred literals they are.
const FREQUENT: [u8; 16] = [0, 0, 0, 0, 1, 1, 2, 2, 3, 4, 8, 0x0f, 0x10, 0x10, 0x20, 0x40];
const OF_FREQUENT: u64 = 25;
/// The most literals in a row in bytecode, and the longest of its near copies, less the shortest.
const LITERALS: u64 = 5;
const COPIES: u64 = 18;
/// The share of far copies in bytecode, in percent of all bytes.
const FAR_SHARE: u64 = 13;
/// As far back as near copies reach.
const NEAR: u64 = 8 << 10;
/// Where far copies begin: beyond deflate's window.
const FAR: usize = 40 << 10;
/// The length of a far copy.
const FAR_LENGTH: u64 = 4 << 10;
/// What is kept of a file's content, to copy from. Within the window of zstd at the archives' level.
const WINDOW: usize = 768 << 10;
/// What is made at a time.
const PIECE: usize = 64 << 10;

/// The content of one file.
pub struct Made<'s> {
    numbers: Numbers,
    content: Content,
    specimens: &'s Specimens,
    window: Vec<u8>,
    /// How much of the window was read.
    read: usize,
    left: u64,
}

impl<'s> Made<'s> {
    /// `size` bytes of what `numbers` makes of the specimens.
    pub fn new(content: Content, numbers: Numbers, size: u64, specimens: &'s Specimens) -> Self {
        Self { numbers, content, specimens, window: Vec::new(), read: 0, left: size }
    }

    fn more(&mut self) {
        if self.window.len() > 2 * WINDOW {
            self.window.drain(..self.window.len() - WINDOW);
        }
        self.read = self.window.len();
        let end = self.window.len() + PIECE;
        let specimens = self.specimens;
        match self.content {
            Content::Text => self.stretch(&specimens.text),
            Content::Library => self.stretch(&specimens.library),
            Content::Bytecode => self.bytecode(end),
            Content::Device => self.device(end),
        }
    }

    /// A piece of `pool` from anywhere, `length` long unless the pool ends there.
    fn piece<'p>(&mut self, pool: &'p [u8], length: u64) -> &'p [u8] {
        let from = self.numbers.below(pool.len().max(1) as u64) as usize;
        &pool[from..pool.len().min(from + length as usize)]
    }

    fn stretch(&mut self, pool: &[u8]) {
        let length = STRETCH[0] + self.numbers.below(STRETCH[1] - STRETCH[0]);
        let stretch = self.piece(pool, length.min(self.left));
        self.window.extend_from_slice(stretch);
    }

    fn device(&mut self, end: usize) {
        let specimens = self.specimens;
        while self.window.len() < end {
            let number = self.numbers.draw();
            let length = 1 + (number >> 32) % RUN;
            if number.is_multiple_of(FAR_IN) {
                self.far_copy();
            } else if (number >> 8) % 100 < OF_LIBRARY {
                let run = self.piece(&specimens.library, length);
                self.window.extend_from_slice(run);
            } else {
                let literals = (0..length).map(|_| self.numbers.draw());
                self.window.extend(literals.map(|number| match (number >> 16) % 100 {
                    kind if kind < OF_FREQUENT => FREQUENT[(number >> 40) as usize % FREQUENT.len()],
                    _ => number as u8,
                }));
            }
        }
    }

    fn bytecode(&mut self, end: usize) {
        // A far copy is that much longer than what stands between two of them on average.
        let between = FAR_LENGTH * (100 - FAR_SHARE) / FAR_SHARE;
        let mut until_far = self.numbers.below(2 * between);
        while self.window.len() < end {
            let number = self.numbers.draw();
            let literals = 1 + number % LITERALS;
            self.literals(literals);
            let (reach, length) = (self.window.len(), 4 + (number >> 16) % COPIES);
            let distance = (length + (number >> 32) % NEAR).min(reach as u64);
            let from = reach - distance as usize;
            self.window.extend_from_within(from..(from + length as usize).min(reach));
            until_far = until_far.saturating_sub(literals + length);
            if until_far == 0 {
                self.far_copy();
                until_far = self.numbers.below(2 * between);
            }
        }
    }

    /// Bytes of which some are far likelier than others, as in code.
    fn literals(&mut self, count: u64) {
        for _ in 0..count {
            let number = self.numbers.draw();
            let (one, other) = (number as u8, (number >> 8) as u8);
            self.window.push(if number >> 16 & 3 == 0 { one & other } else { one });
        }
    }

    fn far_copy(&mut self) {
        let length = FAR_LENGTH as usize;
        let reach = self.window.len();
        if reach < FAR + length {
            return;
        }
        let furthest = reach.min(WINDOW) - length;
        let distance = FAR + self.numbers.below((furthest + length - FAR) as u64 + 1) as usize;
        let from = reach - distance.min(reach);
        self.window.extend_from_within(from..(from + length).min(reach));
    }
}

impl Read for Made<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 || buffer.is_empty() {
            return Ok(0);
        }
        while self.read == self.window.len() {
            self.more();
        }
        let there = &self.window[self.read..];
        let count = there.len().min(buffer.len()).min(usize::try_from(self.left).unwrap_or(usize::MAX));
        buffer[..count].copy_from_slice(&there[..count]);
        self.read += count;
        self.left -= count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const ALL: [Content; 4] = [Content::Text, Content::Bytecode, Content::Library, Content::Device];

    /// Bytecode is made of nothing, and compresses about as well as a library.
    fn specimens() -> Specimens {
        let none = Specimens { text: Vec::new(), library: Vec::new() };
        let mut library = Vec::new();
        Made::new(Content::Bytecode, Numbers::of("library"), 4 << 20, &none).read_to_end(&mut library).unwrap();
        Specimens { text: b"import torch\nfrom this import that\n".repeat(10_000), library }
    }

    fn made(content: Content, seed: &str, size: u64, specimens: &Specimens) -> Vec<u8> {
        let mut bytes = Vec::new();
        Made::new(content, Numbers::of(seed), size, specimens).read_to_end(&mut bytes).unwrap();
        bytes
    }

    fn deflated(bytes: &[u8]) -> u64 {
        let block = |block: &[u8]| {
            let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::new(6));
            encoder.write_all(block).unwrap();
            encoder.finish().unwrap().len() as u64
        };
        bytes.chunks(128 << 10).map(block).sum()
    }

    #[test]
    fn libraries_with_code_for_gpus_hardly_deflate_and_zstd_is_ahead() {
        let bytes = made(Content::Device, "x", 6 << 20, &specimens());
        let percent = |compressed: u64| 100 * compressed / bytes.len() as u64;
        let zstd = percent(zstd::bulk::compress(&bytes, 3).unwrap().len() as u64);
        let deflate = percent(deflated(&bytes));
        assert!(deflate >= 70 && zstd + 8 <= deflate, "deflate {deflate} %, zstd {zstd} %");
    }

    #[test]
    fn the_same_seed_makes_the_same_bytes_and_another_makes_others() {
        let specimens = specimens();
        for content in ALL {
            let one = made(content, "one", 200_001, &specimens);
            assert_eq!(one.len(), 200_001);
            assert_eq!(one, made(content, "one", 200_001, &specimens));
            assert_eq!(one[..1000], made(content, "one", 1000, &specimens)[..], "a shorter file is its beginning");
            assert_ne!(one, made(content, "two", 200_001, &specimens));
        }
    }

    #[test]
    fn sizes_spread_around_their_mean() {
        let mut numbers = Numbers::of("sizes");
        let sizes: Vec<u64> = (0..2000).map(|_| numbers.size(9000)).collect();
        let mean = sizes.iter().sum::<u64>() / 2000;
        assert!(mean.abs_diff(9000) < 900 && sizes.iter().max().unwrap() > &25_000, "{mean}");
    }
}
