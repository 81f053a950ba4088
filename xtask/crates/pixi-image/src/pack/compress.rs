//! The compressing threads: a queue of chunks in, results in the order in which they were asked for.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use libdeflater::{CompressionLvl, Compressor};

use super::chunk::{Chunk, Encoding, Use};
use crate::squashfs::{BLOCK_SIZE, STORED_RAW};

/// libdeflate's level for all that a squashfs holds, shared blocks of layers included. A SIF is within 1 % of Apptainer's,
/// which takes zlib's 9, and a build takes 10 % less time than with 6, which would be 0.6 % smaller.
pub const LEVEL: i32 = 5;
/// The level for what layers alone hold, tar headers and small files: with it an image is within 1 % of what `docker push`
/// sends.
pub const LAYER_LEVEL: i32 = 2;
/// The level for what hardly becomes smaller, above all code for GPUs, most of the bytes of an environment with CUDA: it
/// takes 0.6 of [`LEVEL`]'s time there and makes them 1 % larger.
pub const HARD_LEVEL: i32 = 1;
/// The level of a block is told by an earlier one of its file, so many blocks before: those in between are on their way. No
/// more of one file are, however many threads there are.
pub const LOOK_BACK: usize = 32;
/// Stored bytes of a block that hardly became smaller, of [`BLOCK_SIZE`].
const HARD: u32 = (BLOCK_SIZE / 10 * 7) as u32;

/// The level for a block of a large file; `earlier` is the size of the block [`LOOK_BACK`] before it, as inodes write it.
pub fn level_of_block(earlier: Option<u32>) -> i32 {
    let is_hard = earlier.is_some_and(|size| size & !STORED_RAW > HARD);
    if is_hard { HARD_LEVEL } else { LEVEL }
}

/// Chunks of a pack that are on their way beside two for each thread. What feeds the threads is woken when half of them are
/// done: woken for each, it would interrupt the threads as often, and a build takes 4 % longer.
const SPARE: usize = 14;

struct Job {
    raw: Vec<u8>,
    used: Use,
    level: i32,
    reply: SyncSender<(Chunk, Vec<u8>)>,
}

/// A pool of compressing threads, shared by all packs of a build. Dropped, it ends its threads.
pub struct Compressors {
    queue: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

/// A result that is on its way.
pub struct Promise {
    coming: Receiver<(Chunk, Vec<u8>)>,
    come: Option<(Chunk, Vec<u8>)>,
}

impl Promise {
    /// Waits until the chunk is there; it stays for [`Promise::wait`].
    pub fn await_chunk(&mut self) {
        if self.come.is_none() {
            self.come = self.coming.recv().ok();
        }
    }

    /// Waits for the chunk and its stored bytes; none if the pool is gone.
    pub fn wait(mut self) -> Option<(Chunk, Vec<u8>)> {
        self.await_chunk();
        self.come
    }
}

impl Compressors {
    /// Starts `threads` threads.
    pub fn start(threads: NonZeroUsize) -> Self {
        let (queue, jobs) = channel::<Job>();
        let jobs = Arc::new(Mutex::new(jobs));
        let threads = (0..threads.get())
            .map(|_| {
                let jobs = Arc::clone(&jobs);
                std::thread::spawn(move || {
                    loop {
                        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
                        let Ok(Job { raw, used, level, reply }) = job else { return };
                        // The receiver is gone when its build has failed: nobody waits for the result.
                        let _ = reply.send(compress(raw, used, level));
                    }
                })
            })
            .collect();
        Self { queue: Some(queue), threads }
    }

    /// How many results one pack may keep waiting for, so that memory stays bounded.
    pub fn window(&self) -> usize {
        2 * self.threads.len() + SPARE
    }

    /// Hands over `raw`, to be deflated with libdeflate's `level`. Whoever keeps to the window bounds the queue, too.
    pub fn submit(&self, raw: Vec<u8>, used: Use, level: i32) -> Promise {
        let (reply, promise) = sync_channel(1);
        if let Some(queue) = &self.queue {
            // Sending fails only if every thread has died; the promise then says so.
            let _ = queue.send(Job { raw, used, level, reply });
        }
        Promise { coming: promise, come: None }
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

/// What a compressing thread keeps: allocating and clearing room for each chunk would cost more than the copy out of it.
#[derive(Default)]
struct Workbench {
    /// By level.
    compressors: BTreeMap<i32, Compressor>,
    room: Vec<u8>,
}

impl Workbench {
    fn deflate(&mut self, raw: &[u8], level: i32) -> Option<&[u8]> {
        let compressor = self
            .compressors
            .entry(level)
            .or_insert_with(|| Compressor::new(CompressionLvl::new(level).unwrap_or_default()));
        let bound = compressor.deflate_compress_bound(raw.len());
        if self.room.len() < bound {
            self.room.resize(bound, 0);
        }
        let length = compressor.deflate_compress(raw, &mut self.room).ok()?;
        Some(&self.room[..length])
    }
}

/// Compresses one chunk; bytes that do not become smaller are stored.
pub(super) fn compress(raw: Vec<u8>, used: Use, level: i32) -> (Chunk, Vec<u8>) {
    thread_local! {
        static WORKBENCH: RefCell<Workbench> = RefCell::default();
    }
    let deflated = WORKBENCH.with_borrow_mut(|workbench| {
        let deflated = workbench.deflate(&raw, level)?;
        // A squashfs block must not be longer than its content; 6 is the zlib frame.
        (deflated.len() + 6 < raw.len() || matches!(used, Use::Directories | Use::Layer)).then(|| deflated.to_vec())
    });
    let (crc32, adler32, length) = (libdeflater::crc32(&raw), libdeflater::adler32(&raw), raw.len());
    let (encoding, stored, check) = match deflated {
        Some(deflated) => {
            let check = libdeflater::crc32(&deflated);
            (Encoding::Deflate, deflated, check)
        }
        None => (Encoding::Stored, raw, crc32),
    };
    let chunk = Chunk { used, encoding, stored: stored.len() as u32, raw: length as u32, crc32, adler32, check };
    (chunk, stored)
}
