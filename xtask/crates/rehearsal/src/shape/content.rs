//! Made-up file contents that compress like real ones: deterministic mixtures of what is new and what was there before.
//!
//! A binary is a run of literals and of copies. Near copies lie within deflate's 32 KiB and within one block of 128 KiB, so
//! every codec finds them; far copies lie beyond, and only zstd finds them: in real packages, too, zstd is that much ahead.
//! How often each comes is set so that the ratios are those of [`Content::ratios`].

use std::io::{self, Read};

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
    /// Compressed by uncompressed size, in permille: with zstd at the level of conda archives, and with deflate level 6 in
    /// blocks of 128 KiB.
    pub fn ratios(self) -> (u64, u64) {
        match self {
            Self::Text => (240, 225),
            Self::Bytecode => (370, 405),
            Self::Library => (280, 370),
            Self::Device => (500, 550),
        }
    }

    /// How a binary is mixed; none of text.
    fn mixture(self) -> Option<Mixture> {
        Some(match self {
            Self::Text => return None,
            Self::Bytecode => Mixture { literals: 5, copies: 18, far: 13 },
            Self::Library => Mixture { literals: 5, copies: 26, far: 22 },
            Self::Device => Mixture { literals: 12, copies: 15, far: 11 },
        })
    }
}

/// How a binary is mixed.
#[derive(Clone, Copy)]
struct Mixture {
    /// The most literals in a row.
    literals: u64,
    /// The longest near copy, less the shortest.
    copies: u64,
    /// The share of far copies, in percent of all bytes.
    far: u64,
}

/// As far back as near copies reach.
const NEAR: u64 = 8 << 10;
/// Where far copies begin: beyond deflate's window.
const FAR: usize = 40 << 10;
/// The length of a far copy.
const FAR_LENGTH: u64 = 4 << 10;
/// What is kept of a file's content, to copy from. Within the window of zstd at the archives' level.
const WINDOW: usize = 512 << 10;
/// What is made at a time.
const PIECE: usize = 64 << 10;

/// The content of one file.
pub struct Made {
    numbers: Numbers,
    content: Content,
    words: Vec<String>,
    window: Vec<u8>,
    /// How much of the window was read.
    read: usize,
    left: u64,
}

impl Made {
    /// `size` bytes of what `numbers` makes.
    pub fn new(content: Content, mut numbers: Numbers, size: u64) -> Self {
        let words = if content == Content::Text { words(&mut numbers) } else { Vec::new() };
        Self { numbers, content, words, window: Vec::new(), read: 0, left: size }
    }

    fn more(&mut self) {
        if self.window.len() > 2 * WINDOW {
            self.window.drain(..self.window.len() - WINDOW);
        }
        self.read = self.window.len();
        let end = self.window.len() + PIECE;
        match self.content.mixture() {
            None => self.text(end),
            Some(mixture) => self.binary(mixture, end),
        }
    }

    fn binary(&mut self, mixture: Mixture, end: usize) {
        // A far copy is that much longer than what stands between two of them on average.
        let between = FAR_LENGTH * (100 - mixture.far) / mixture.far;
        let mut until_far = self.numbers.below(2 * between);
        while self.window.len() < end {
            let number = self.numbers.draw();
            let literals = 1 + number % mixture.literals;
            self.literals(literals);
            let (reach, length) = (self.window.len(), 4 + (number >> 16) % mixture.copies);
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

    /// Bytes of which some are far likelier than others, as in machine code.
    fn literals(&mut self, count: u64) {
        for _ in 0..count.div_ceil(4) {
            let number = self.numbers.draw();
            for byte in 0..4 {
                let one = (number >> (16 * byte)) as u8;
                let other = (number >> (16 * byte + 8)) as u8;
                self.window.push(if other & 3 == 0 { one & other } else { one });
            }
        }
        // The last four may be too many.
        let surplus = (4 - count % 4) % 4;
        self.window.truncate(self.window.len() - surplus as usize);
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

    fn text(&mut self, end: usize) {
        while self.window.len() < end {
            let indent = 4 * self.numbers.below(4) as usize;
            self.window.extend(std::iter::repeat_n(b' ', indent));
            for place in 0..2 + self.numbers.below(7) {
                let number = self.numbers.draw();
                // The product of two: early words come far more often than late ones.
                let (one, other) = (number % 1000, (number >> 20) % 1000);
                let word = (one * other * self.words.len() as u64 / 1_000_000) as usize;
                self.window.extend_from_slice(self.words[word].as_bytes());
                let separator = ["_", " = ", "(", ", ", ".", " ", ") ", ": "][((number >> 40) % 8) as usize];
                self.window.extend_from_slice(if place == 0 { " " } else { separator }.as_bytes());
            }
            self.window.push(b'\n');
            // Programs repeat themselves.
            let (number, reach) = (self.numbers.draw(), self.window.len() as u64);
            if number % 5 < 2 && reach > 256 {
                let from = (reach - 128 - (number >> 8) % (reach.min(NEAR) - 128)) as usize;
                self.window.extend_from_within(from..from + 20 + ((number >> 32) % 100) as usize);
            }
        }
    }
}

/// The words of a text.
fn words(numbers: &mut Numbers) -> Vec<String> {
    const SYLLABLES: [&str; 16] =
        ["re", "in", "ten", "sor", "la", "con", "mo", "de", "val", "er", "ti", "on", "arg", "set", "get", "num"];
    let word = |_| {
        let syllables = 1 + numbers.below(3);
        (0..syllables).map(|_| SYLLABLES[numbers.below(16) as usize]).collect()
    };
    (0..400).map(word).collect()
}

impl Read for Made {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 || buffer.is_empty() {
            return Ok(0);
        }
        if self.read == self.window.len() {
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

    fn made(content: Content, seed: &str, size: u64) -> Vec<u8> {
        let mut bytes = Vec::new();
        Made::new(content, Numbers::of(seed), size).read_to_end(&mut bytes).unwrap();
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
    fn it_compresses_as_it_says() {
        for content in ALL {
            // Sources are many small files, which archives compress one after the other.
            let (files, size) = if content == Content::Text { (400, 9 << 10) } else { (2, 3 << 20) };
            let bytes: Vec<u8> = (0..files).flat_map(|file| made(content, &format!("x {file}"), size)).collect();
            let zstd = zstd::bulk::compress(&bytes, 3).unwrap().len() as u64;
            let found = (1000 * zstd / bytes.len() as u64, 1000 * deflated(&bytes) / bytes.len() as u64);
            let wanted = content.ratios();
            let close = |found: u64, wanted: u64| found.abs_diff(wanted) * 100 <= wanted * 8;
            assert!(close(found.0, wanted.0) && close(found.1, wanted.1), "{content:?}: {found:?}, not {wanted:?}");
        }
    }

    #[test]
    fn the_same_seed_makes_the_same_bytes_and_another_makes_others() {
        for content in ALL {
            let one = made(content, "one", 200_001);
            assert_eq!(one.len(), 200_001);
            assert_eq!(one, made(content, "one", 200_001));
            assert_eq!(one[..1000], made(content, "one", 1000)[..], "a shorter file is its beginning");
            assert_ne!(one, made(content, "two", 200_001));
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
