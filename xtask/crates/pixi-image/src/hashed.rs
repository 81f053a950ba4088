//! Digests of bytes that are on their way to somewhere else.

use std::io::{self, Write};
use std::sync::mpsc::{SyncSender, sync_channel};

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

/// How many bytes are written and hashed at once.
const PIECE: usize = 1 << 20;
/// How many pieces wait for the hashing thread.
const WAITING: usize = 4;

/// Lets `write` write to `out`, in large pieces, which a thread of its own hashes meanwhile. Returns what `write` returns,
/// and the SHA-256 and number of the bytes that it has flushed.
pub fn hashed_aside<T>(out: impl Write, write: impl FnOnce(&mut dyn Write) -> T) -> (T, Digest, u64) {
    let (pieces, arriving) = sync_channel::<Vec<u8>>(WAITING);
    std::thread::scope(|scope| {
        let hashing = scope.spawn(move || {
            let mut hashed = Hashed::new(io::sink());
            // A sink takes everything.
            arriving.into_iter().for_each(|piece| drop(hashed.write_all(&piece)));
            hashed.finish()
        });
        let mut aside = Aside { out, piece: Vec::with_capacity(PIECE), pieces };
        let result = write(&mut aside);
        drop(aside);
        let (digest, size) = hashing.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (result, digest, size)
    })
}

struct Aside<W> {
    out: W,
    piece: Vec<u8>,
    pieces: SyncSender<Vec<u8>>,
}

impl<W: Write> Aside<W> {
    fn hand_over(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        self.out.write_all(&self.piece)?;
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        self.pieces.send(piece).map_err(|_| io::Error::other("the hashing thread has died"))
    }
}

impl<W: Write> Write for Aside<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let now = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..now]);
        if self.piece.len() == PIECE {
            self.hand_over()?;
        }
        Ok(now)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.hand_over()?;
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
