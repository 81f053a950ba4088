//! Bytes that go to another thread in large pieces.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// How many bytes go at once.
const PIECE: usize = 1 << 20;
/// How many pieces wait for who takes them.
const WAITING: usize = 4;

/// Gathers what is written, and hands it over in pieces of [`PIECE`] bytes.
pub struct Pieces {
    piece: Vec<u8>,
    taken: SyncSender<Vec<u8>>,
}

/// Pieces of what is written, and where they arrive. When nobody takes them any more, they are gone.
pub fn pieces() -> (Pieces, Receiver<Vec<u8>>) {
    let (taken, arriving) = sync_channel(WAITING);
    (Pieces { piece: Vec::new(), taken }, arriving)
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.piece.reserve_exact(PIECE - self.piece.len());
        let now = bytes.len().min(PIECE - self.piece.len());
        self.piece.extend_from_slice(&bytes[..now]);
        if self.piece.len() == PIECE {
            self.flush()?;
        }
        Ok(now)
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.piece.is_empty() {
            let _ = self.taken.send(std::mem::take(&mut self.piece)); // whoever stopped taking them has said why
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrives_is_what_was_written_and_flushed() {
        let bytes: Vec<u8> = (0..3 * PIECE + 5).map(|at| (at / 7) as u8).collect();
        let (mut pieces, arriving) = pieces();
        let arrived = std::thread::spawn(move || arriving.into_iter().collect::<Vec<_>>());
        bytes.chunks(70_001).for_each(|some| pieces.write_all(some).unwrap());
        pieces.flush().unwrap();
        pieces.write_all(b"never flushed").unwrap();
        drop(pieces);
        let arrived = arrived.join().unwrap();
        assert_eq!(arrived.iter().map(Vec::len).collect::<Vec<_>>(), [PIECE, PIECE, PIECE, 5]);
        assert!(arrived.concat() == bytes);
    }

    #[test]
    fn nobody_has_to_take_them() {
        let (mut pieces, arriving) = pieces();
        drop(arriving);
        pieces.write_all(&vec![1; 9 * PIECE]).unwrap();
    }
}
