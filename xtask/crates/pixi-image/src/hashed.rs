//! Digests of bytes that are on their way to somewhere else.

use std::io::{self, Read, Write};

use sha2::Digest as _;

use crate::model::Digest;

/// Passes bytes on and counts and hashes them.
pub struct Hashed<W> {
    inner: W,
    hasher: sha2::Sha256,
    size: u64,
}

impl<W: Write> Hashed<W> {
    /// Writes to `inner`.
    pub fn new(inner: W) -> Self {
        Self { inner, hasher: sha2::Sha256::new(), size: 0 }
    }

    /// The SHA-256 of all that was written, and how many bytes that were.
    pub fn finish(self) -> (Digest, u64) {
        (Digest(self.hasher.finalize().into()), self.size)
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// The SHA-256 of all that `from` has, and how many bytes that are.
pub fn all_of(mut from: impl Read) -> io::Result<(Digest, u64)> {
    let mut all = Hashed::new(io::sink());
    let mut buffer = vec![0; 1 << 17];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(all.finish()),
            Ok(read) => all.write_all(&buffer[..read])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
