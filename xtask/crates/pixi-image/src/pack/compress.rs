//! The compressing threads: a bounded queue of chunks in, results in the order in which they were asked for.

use std::cell::RefCell;
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use libdeflater::{CompressionLvl, Compressor};

use super::chunk::{Chunk, Encoding, Use};

/// The deflate level of both formats: libdeflate's 6 is within 1 % of zlib's 6 at three times its speed.
pub const LEVEL: i32 = 6;

struct Job {
    raw: Vec<u8>,
    used: Use,
    reply: SyncSender<(Chunk, Vec<u8>)>,
}

/// A pool of compressing threads, shared by all packs of a build. Dropped, it ends its threads.
pub struct Compressors {
    queue: Option<SyncSender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

/// A result that is on its way.
pub struct Promise(Receiver<(Chunk, Vec<u8>)>);

impl Promise {
    /// Waits for the chunk and its stored bytes; none if the pool is gone.
    pub fn wait(self) -> Option<(Chunk, Vec<u8>)> {
        self.0.recv().ok()
    }
}

impl Compressors {
    /// Starts `threads` threads.
    pub fn start(threads: NonZeroUsize) -> Self {
        let (queue, jobs) = sync_channel::<Job>(threads.get() * 2);
        let jobs = Arc::new(Mutex::new(jobs));
        let threads = (0..threads.get())
            .map(|_| {
                let jobs = Arc::clone(&jobs);
                std::thread::spawn(move || {
                    loop {
                        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
                        let Ok(Job { raw, used, reply }) = job else { return };
                        // The receiver is gone when its build has failed: nobody waits for the result.
                        let _ = reply.send(compress(&raw, used));
                    }
                })
            })
            .collect();
        Self { queue: Some(queue), threads }
    }

    /// How many results one pack may keep waiting for, so that memory stays bounded.
    pub fn window(&self) -> usize {
        self.threads.len() * 4
    }

    /// Hands over `raw`; waits while the queue is full.
    pub fn submit(&self, raw: Vec<u8>, used: Use) -> Promise {
        let (reply, promise) = sync_channel(1);
        if let Some(queue) = &self.queue {
            // Sending fails only if every thread has died; the promise then says so.
            let _ = queue.send(Job { raw, used, reply });
        }
        Promise(promise)
    }
}

impl Drop for Compressors {
    fn drop(&mut self) {
        self.queue = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join(); // a panic of a compressing thread has already been reported as a lost promise
        }
    }
}

/// Compresses one chunk; bytes that do not become smaller are stored.
pub(super) fn compress(raw: &[u8], used: Use) -> (Chunk, Vec<u8>) {
    thread_local! {
        static COMPRESSOR: RefCell<Option<Compressor>> = const { RefCell::new(None) };
    }
    let deflated = COMPRESSOR.with_borrow_mut(|compressor| {
        let compressor =
            compressor.get_or_insert_with(|| Compressor::new(CompressionLvl::new(LEVEL).unwrap_or_default()));
        let mut out = vec![0; compressor.deflate_compress_bound(raw.len())];
        let length = compressor.deflate_compress(raw, &mut out).ok()?;
        out.truncate(length);
        // A squashfs block must not be longer than its content; 6 is the zlib frame.
        (length + 6 < raw.len() || used == Use::Layer).then_some(out)
    });
    let (encoding, stored) = match deflated {
        Some(deflated) => (Encoding::Deflate, deflated),
        None => (Encoding::Stored, raw.to_vec()),
    };
    let crc32 = libdeflater::crc32(raw);
    let chunk = Chunk {
        used,
        encoding,
        stored: stored.len() as u32,
        raw: raw.len() as u32,
        crc32,
        adler32: libdeflater::adler32(raw),
        check: if encoding == Encoding::Stored { crc32 } else { libdeflater::crc32(&stored) },
    };
    (chunk, stored)
}
