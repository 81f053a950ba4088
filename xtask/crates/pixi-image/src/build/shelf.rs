//! Packs on their way to the images: put down in any order, and taken in the order of the layers, while others are made.

use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use super::packs::PackagePack;

/// A place for the pack of each package.
pub struct Shelf {
    places: Vec<OnceLock<PackagePack>>,
    is_closed: Mutex<bool>,
    changed: Condvar,
}

impl Shelf {
    /// A shelf for so many packs.
    pub fn new(count: usize) -> Self {
        Self {
            places: std::iter::repeat_with(OnceLock::new).take(count).collect(),
            is_closed: Mutex::new(false),
            changed: Condvar::new(),
        }
    }

    /// Puts the pack of the package with the number `at` down.
    pub fn put(&self, at: usize, pack: PackagePack) {
        let _is_closed = self.is_closed();
        // There is one pack for each package: a second one would be the same.
        let _ = self.places[at].set(pack);
        self.changed.notify_all();
    }

    /// The pack of the package with the number `at`, waited for; none if it was not made before the shelf was closed.
    pub fn wait_for(&self, at: usize) -> Option<&PackagePack> {
        let mut is_closed = self.is_closed();
        loop {
            match self.places[at].get() {
                None if !*is_closed => {
                    is_closed = self.changed.wait(is_closed).unwrap_or_else(PoisonError::into_inner);
                }
                pack => return pack,
            }
        }
    }

    /// What ends all waiting when it is dropped, however the packing ended.
    pub fn closing(&self) -> impl Drop {
        Closing(self)
    }

    fn is_closed(&self) -> MutexGuard<'_, bool> {
        self.is_closed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Closing<'a>(&'a Shelf);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        *self.0.is_closed() = true;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::time::Duration;

    use super::*;
    use crate::model::Digest;
    use crate::pack::{Compressors, PackFile, PackWriter, Targets};

    fn pack(name: &str) -> PackagePack {
        let directory = tempfile::tempdir().unwrap();
        let compressors = Compressors::start(NonZeroUsize::MIN);
        let file = PackFile::temporary::<crate::pack::PackError>(directory.path(), |out| {
            Ok(PackWriter::new(out, &compressors, Targets::Both, |_| false).finish().unwrap().0)
        });
        let key = Digest::of(name.as_bytes());
        PackagePack { name: name.to_owned(), archive_size: 0, key, file: file.unwrap(), post_link: false }
    }

    #[test]
    fn what_is_put_down_later_is_waited_for_and_what_never_comes_is_not() {
        let shelf = Shelf::new(3);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| [1, 0, 2].map(|at| shelf.wait_for(at).map(|pack| pack.name.clone())));
            let closing = shelf.closing();
            for (at, name) in [(0, "a"), (1, "b")] {
                std::thread::sleep(Duration::from_millis(10));
                shelf.put(at, pack(name));
            }
            assert!(!waiting.is_finished());
            drop(closing);
            assert_eq!(waiting.join().unwrap(), [Some("b".to_owned()), Some("a".to_owned()), None]);
        });
    }
}
