//! Packs that are made while other packages are still on their way.
//!
//! Which paths a package loses to another is known only when all are there, and hardly any loses one: so each is packed as if
//! it lost none. Where that was wrong the pack has another key than the one that is wanted, and the package is packed anew.

use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::packs::Packer;
use crate::fetch::Archive;
use crate::model::Digest;
use crate::pack::PackFile;

/// What arrives, and what was made of it, by the numbers of the packages.
pub struct Ahead<'a> {
    packer: &'a Packer<'a>,
    /// None when the work is over.
    arriving: Mutex<Option<Sender<(usize, Archive)>>>,
    arrived: Mutex<Receiver<(usize, Archive)>>,
    made: Mutex<BTreeMap<usize, (Digest, PackFile)>>,
}

impl<'a> Ahead<'a> {
    /// Nothing has arrived.
    pub fn new(packer: &'a Packer<'a>) -> Self {
        let (arriving, arrived) = channel();
        let (arriving, arrived) = (Mutex::new(Some(arriving)), Mutex::new(arrived));
        Self { packer, arriving, arrived, made: Mutex::default() }
    }

    /// Takes note that an archive is there.
    pub fn arrived(&self, at: usize, archive: &Archive) {
        if let Some(arriving) = &*lock(&self.arriving) {
            let _ = arriving.send((at, archive.clone())); // the receiver lives as long
        }
    }

    /// Packs what arrives, until all is there.
    pub fn work(&self) {
        loop {
            let next = lock(&self.arrived).recv();
            let Ok((at, archive)) = next else { return };
            if lock(&self.arriving).is_none() {
                return;
            }
            // What fails now fails again when it is its turn, and is told then.
            if let Ok(Some(made)) = self.packer.pack_ahead(at, &archive) {
                lock(&self.made).insert(at, made);
            }
        }
    }

    /// Ends the work when it is dropped: what is begun is ended, the rest is left.
    pub fn ending(&self) -> impl Drop {
        Ending(self)
    }

    /// The pack of a package, if one of that key was made.
    pub fn take(&self, at: usize, key: &Digest) -> Option<PackFile> {
        lock(&self.made).remove(&at).filter(|(made, _)| made == key).map(|(_, file)| file)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Ending<'e, 'a>(&'e Ahead<'a>);

impl Drop for Ending<'_, '_> {
    fn drop(&mut self) {
        lock(&self.0.arriving).take();
    }
}
