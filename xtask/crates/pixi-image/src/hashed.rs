//! Digests of bytes that are on their way to somewhere else.

use std::io::{self, Write};

use sha2::Digest as _;

use crate::model::Digest;
use crate::pieces::pieces;

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

/// Lets `write` write to `out`, in large pieces, which a thread of its own hashes meanwhile. Returns what `write` returns,
/// and the SHA-256 and number of the bytes that it has flushed.
pub fn hashed_aside<T>(out: impl Write, write: impl FnOnce(&mut dyn Write) -> T) -> (T, Digest, u64) {
    let (mut pieces, arriving) = pieces(out);
    std::thread::scope(|scope| {
        let hashing = scope.spawn(move || {
            let mut hashed = Hashed::new(io::sink());
            // A sink takes everything.
            arriving.into_iter().for_each(|piece| drop(hashed.write_all(&piece)));
            hashed.finish()
        });
        let result = write(&mut pieces);
        drop(pieces);
        let (digest, size) = hashing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (result, digest, size)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pieces::PIECE;

    #[test]
    fn what_is_hashed_aside_is_what_was_written() {
        let mut out = Vec::new();
        let bytes: Vec<u8> = (0..3 * PIECE + 5).map(|at| (at / 7) as u8).collect();
        let (written, digest, size) = hashed_aside(&mut out, |out| {
            bytes.chunks(70_001).try_for_each(|some| out.write_all(some)).and_then(|()| out.flush())
        });
        written.unwrap();
        assert!(out == bytes);
        assert_eq!((digest, size), (Digest::of(&bytes), bytes.len() as u64));
    }

    #[test]
    fn a_place_that_takes_nothing_is_told() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let (written, ..) = hashed_aside(Full, |out| out.write_all(&vec![0; 2 * PIECE]));
        assert_eq!(written.unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
