//! What the library reports while it works; binaries decide how it looks.

/// Takes reports of the work. Every method has an empty default, so a caller names only what it shows.
pub trait Progress: Sync {
    /// A phase of the work begins: a sentence in plain words.
    fn phase(&self, _text: &str) {}
    /// So many bytes will be downloaded.
    fn expect_download(&self, _bytes: u64) {}
    /// So many more bytes have arrived.
    fn downloaded(&self, _bytes: u64) {}
    /// A package is packed: its identity and uncompressed bytes; `cached` when nothing had to be done.
    fn packed(&self, _identity: &str, _bytes: u64, _cached: bool) {}
    /// Something the user should know that does not stop the work.
    fn warn(&self, _text: &str) {}
}

/// Shows nothing.
pub struct Silent;

impl Progress for Silent {}
