//! What the library reports while it works; binaries decide how it looks.

use std::io::{self, Write};

/// Takes reports of the work. Every method has an empty default, so a caller names only what it shows.
pub trait Progress: Sync {
    /// A phase of the work begins: a sentence in plain words.
    fn phase(&self, _text: &str) {}
    /// So many bytes will be downloaded.
    fn expect_download(&self, _bytes: u64) {}
    /// So many more bytes have arrived.
    fn downloaded(&self, _bytes: u64) {}
    /// So many packages will be packed.
    fn expect_packages(&self, _count: usize) {}
    /// A package is begun: its identity.
    fn packing(&self, _identity: &str) {}
    /// A package is packed: its identity and uncompressed bytes; `cached` when nothing had to be done.
    fn packed(&self, _identity: &str, _bytes: u64, _cached: bool) {}
    /// About so many bytes of images will be written.
    fn expect_written(&self, _bytes: u64) {}
    /// So many more bytes of images are written.
    fn written(&self, _bytes: u64) {}
    /// Something the user should know that does not stop the work.
    fn warn(&self, _text: &str) {}
    /// The work is done: what is shown only while it goes on disappears.
    fn finished(&self) {}
    /// The work ends before it is done: nothing more must be shown of it.
    fn stopped(&self) {}
}

/// Shows nothing.
pub struct Silent;

impl Progress for Silent {}

/// Passes bytes on and reports them as written.
pub struct Reported<'p, W> {
    inner: W,
    progress: &'p dyn Progress,
}

impl<'p, W: Write> Reported<'p, W> {
    /// Writes to `inner`.
    pub fn new(inner: W, progress: &'p dyn Progress) -> Self {
        Self { inner, progress }
    }
}

impl<W: Write> Write for Reported<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.progress.written(written as u64);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
