//! Files that become visible while others are made.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::{Pending, PublishError, Readable};

/// How many files the disk may be asked to take at a time. Each is open until it has.
const MOST: usize = 8;

/// Publishes files in the background: whoever makes many of them need not wait for the disk after each.
#[derive(Debug, Default)]
pub struct Publisher {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The oldest first.
    running: VecDeque<JoinHandle<Result<(), PublishError>>>,
    /// What nobody was told of.
    failure: Option<PublishError>,
}

impl Publisher {
    /// Makes the file visible with permission bits `mode`, soon; it can be read now. Where that fails, [`Publisher::finish`]
    /// tells it.
    pub fn publish(&self, mut pending: Pending, mode: u32) -> Result<Readable, PublishError> {
        let readable = pending.readable()?;
        let mut state = self.state();
        state.running.push_back(std::thread::spawn(move || pending.publish(mode)));
        let oldest = if state.running.len() > MOST { state.running.pop_front() } else { None };
        drop(state);
        self.join(oldest);
        Ok(readable)
    }

    /// Waits until all that was published is visible. Fails with the first failure that was not told yet.
    pub fn finish(&self) -> Result<(), PublishError> {
        let running = std::mem::take(&mut self.state().running);
        self.join(running);
        self.state().failure.take().map_or(Ok(()), Err)
    }

    fn join(&self, threads: impl IntoIterator<Item = JoinHandle<Result<(), PublishError>>>) {
        for thread in threads {
            if let Err(error) = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)) {
                self.state().failure.get_or_insert(error);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        let _ = self.finish(); // whoever did not ask has an error of its own
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn what_is_published_can_be_read_at_once_and_stands_in_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let publisher = Publisher::default();
        let place = |at: usize| dir.path().join(format!("{at}"));
        let files: Vec<_> = (0..3 * MOST)
            .map(|at| {
                let mut pending = Pending::create(&place(at)).unwrap();
                pending.file().write_all(at.to_string().as_bytes()).unwrap();
                publisher.publish(pending, 0o644).unwrap()
            })
            .collect();
        let all_say_their_number = || {
            for (at, file) in files.iter().enumerate() {
                let (mut one, mut two) = (file.open().unwrap(), file.open().unwrap());
                for open in [&mut one, &mut two] {
                    let mut content = String::new();
                    open.read_to_string(&mut content).unwrap();
                    assert_eq!((content, file.place()), (at.to_string(), &*place(at)));
                }
            }
        };
        all_say_their_number();
        publisher.finish().unwrap();
        (0..files.len()).for_each(|at| assert_eq!(std::fs::read_to_string(place(at)).unwrap(), at.to_string()));
        all_say_their_number();
    }

    #[test]
    fn what_fails_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let publisher = Publisher::default();
        let place = dir.path().join("file");
        let pending = Pending::create(&place).unwrap();
        // It came in between.
        std::fs::create_dir(&place).unwrap();
        publisher.publish(pending, 0o644).unwrap();
        for at in 0..2 * MOST {
            publisher.publish(Pending::create(&dir.path().join(format!("{at}"))).unwrap(), 0o644).unwrap();
        }
        let error = publisher.finish().unwrap_err().to_string();
        assert!(error.contains(&place.display().to_string()), "{error}");
        publisher.finish().unwrap();
    }
}
