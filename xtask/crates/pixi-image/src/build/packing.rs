//! The workers that pack packages: what has arrived at first, while others are on their way, and then all the rest.
//!
//! Which paths a package loses to another is known only when all are there, and hardly any loses one: until then each is
//! packed as if it lost none. Where that was wrong the pack has another key than the one that is wanted, and the package is
//! packed anew.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use super::BuildError;
use super::packs::{Packer, Plan};
use super::shelf::Shelf;
use crate::fetch::Archive;
use crate::model::Digest;
use crate::pack::PackFile;
use crate::progress::Progress;

/// What is to be packed and what was, by the numbers of the packages.
pub struct Packing<'a> {
    packer: &'a Packer<'a>,
    shelf: &'a Shelf,
    progress: &'a dyn Progress,
    /// Set when everything has arrived.
    plan: OnceLock<Plan<'a>>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<(usize, Archive)>,
    /// What a worker took before there was a plan: it stays that worker's.
    begun: BTreeSet<usize>,
    /// What was packed before there was a plan.
    ahead: BTreeMap<usize, (Digest, PackFile)>,
    /// Nothing is added any more.
    is_complete: bool,
    failure: Option<BuildError>,
}

impl<'a> Packing<'a> {
    /// Nothing has arrived. Packs go to `shelf`.
    pub fn new(packer: &'a Packer<'a>, shelf: &'a Shelf, progress: &'a dyn Progress) -> Self {
        let (plan, state, changed) = (OnceLock::new(), Mutex::default(), Condvar::new());
        Self { packer, shelf, progress, plan, state, changed }
    }

    /// Takes note that an archive is there.
    pub fn arrived(&self, at: usize, archive: &Archive) {
        self.state().waiting.push_back((at, archive.clone()));
        self.changed.notify_one();
    }

    /// Takes note that all archives are there, and of what is to be made of them: what is made already comes first, then
    /// the largest, which make the first layers, too.
    pub fn settle(&self, plan: Plan<'a>, archives: Vec<Archive>) -> &Plan<'a> {
        self.progress.phase(&format!("Packing {} packages", archives.len()));
        self.progress.expect_packages(archives.len());
        // The lock does not know the size of wheels, which are the largest of all.
        let size = |archive: &Archive| std::fs::metadata(archive.file.place()).map_or(0, |archive| archive.len());
        let mut all: Vec<_> = archives.into_iter().enumerate().collect();
        let mut state = self.state();
        all.sort_by_cached_key(|(at, archive)| (!state.ahead.contains_key(at), Reverse(size(archive))));
        all.retain(|(at, _)| !state.begun.contains(at));
        state.waiting = all.into();
        state.is_complete = true;
        self.changed.notify_all();
        self.plan.get_or_init(|| plan)
    }

    /// Packs, until everything is packed or something has failed.
    pub fn work(&self) {
        while let Some((at, archive)) = self.next() {
            if let Err(error) = self.pack(at, &archive) {
                self.state().failure.get_or_insert(error);
                self.give_up();
            }
        }
    }

    /// What failed, if anything did: when the workers have ended.
    pub fn outcome(&self) -> Result<(), BuildError> {
        self.state().failure.take().map_or(Ok(()), Err)
    }

    /// Ends all work when it is dropped: that is over by then, or something has failed.
    pub fn ending(&self) -> impl Drop {
        Ending(self)
    }

    fn next(&self) -> Option<(usize, Archive)> {
        let mut state = self.state();
        loop {
            if let Some(next) = state.waiting.pop_front() {
                state.begun.insert(next.0);
                return Some(next);
            }
            if state.is_complete {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn pack(&self, at: usize, archive: &Archive) -> Result<(), BuildError> {
        if self.plan.get().is_none() {
            // What fails now fails again when it is its turn, and is told then.
            let made = self.packer.pack_ahead(at, archive, self.shelf).unwrap_or_default();
            let mut state = self.state();
            state.ahead.extend(made.map(|made| (at, made)));
            if self.plan.get().is_none() {
                state.begun.remove(&at);
                return Ok(());
            }
        }
        let Some(plan) = self.plan.get() else { return Ok(()) };
        let ahead = self.state().ahead.remove(&at);
        self.shelf.put(at, plan.pack(at, archive, ahead, self.shelf, self.progress)?);
        Ok(())
    }

    fn give_up(&self) {
        self.packer.give_up();
        let mut state = self.state();
        state.waiting.clear();
        state.is_complete = true;
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Ending<'e, 'a>(&'e Packing<'a>);

impl Drop for Ending<'_, '_> {
    fn drop(&mut self) {
        self.0.give_up();
    }
}
