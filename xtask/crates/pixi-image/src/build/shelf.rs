//! Packs on their way to the images: put down in any order, and taken in the order of the layers, while others are made.

use std::collections::BTreeMap;
use std::sync::mpsc::Receiver;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use super::packs::PackagePack;
use crate::model::Digest;
use crate::pieces::{Pieces, pieces};

/// A place for the pack of each package.
pub struct Shelf {
    places: Vec<OnceLock<PackagePack>>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    is_closed: bool,
    /// What takes the layers of packs that are followed, until these are begun.
    followers: BTreeMap<usize, Pieces>,
    /// The keys of the packs that were begun so.
    followed: BTreeMap<usize, Digest>,
}

impl Shelf {
    /// A shelf for so many packs.
    pub fn new(count: usize) -> Self {
        Self {
            places: std::iter::repeat_with(OnceLock::new).take(count).collect(),
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// Puts the pack of the package with the number `at` down.
    pub fn put(&self, at: usize, pack: PackagePack) {
        let mut state = self.state();
        // There is one pack for each package: a second one would be the same.
        let _ = self.places[at].set(pack);
        state.followers.remove(&at);
        self.changed.notify_all();
    }

    /// The pack of the package with the number `at`, waited for; none if it was not made before the shelf was closed.
    pub fn wait_for(&self, at: usize) -> Option<&PackagePack> {
        let mut state = self.state();
        loop {
            match self.places[at].get() {
                None if !state.is_closed => {
                    state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                }
                pack => return pack,
            }
        }
    }

    /// Where the layer of a pack will arrive while it is made: nothing if it is there already, a part if its making fails.
    pub fn follow(&self, at: usize) -> Receiver<Vec<u8>> {
        let mut state = self.state();
        let (follower, arriving) = pieces();
        if !state.is_closed && self.places[at].get().is_none() {
            state.followers.insert(at, follower);
        }
        arriving
    }

    /// What wants the layer of the pack with that key, which is begun.
    pub fn follower(&self, at: usize, key: &Digest) -> Option<Pieces> {
        let mut state = self.state();
        let follower = state.followers.remove(&at)?;
        state.followed.insert(at, *key);
        Some(follower)
    }

    /// Whether what arrived was the layer of that pack, or a part of it.
    pub fn was_followed(&self, at: usize, key: &Digest) -> bool {
        self.state().followed.get(&at) == Some(key)
    }

    /// What ends all waiting when it is dropped, however the packing ended.
    pub fn closing(&self) -> impl Drop {
        Closing(self)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Closing<'a>(&'a Shelf);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.is_closed = true;
        state.followers.clear();
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::time::Duration;

    use super::*;
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

    #[test]
    fn who_follows_a_pack_is_told_when_there_is_nothing_to_follow() {
        use std::io::Write;
        let shelf = Shelf::new(4);
        let closing = shelf.closing();
        let arriving = [0, 1, 2].map(|at| shelf.follow(at));
        let [key, other] = [b"key", b"not"].map(|text| Digest::of(text));
        let mut follower = shelf.follower(0, &key).unwrap();
        assert!(shelf.follower(0, &other).is_none() && shelf.was_followed(0, &key) && !shelf.was_followed(0, &other));
        follower.write_all(b"layer").and_then(|()| follower.flush()).unwrap();
        drop(follower);
        shelf.put(1, pack("cached"));
        drop(closing);
        let late = [1, 3].map(|at| shelf.follow(at));
        let all = arriving.into_iter().chain(late).map(|arriving| arriving.into_iter().flatten().collect::<Vec<_>>());
        assert_eq!(all.collect::<Vec<_>>(), [&b"layer"[..], b"", b"", b"", b""]);
    }
}
