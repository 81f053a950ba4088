//! Whether a piece of work is done: derived from its inputs and outputs, never from a record of progress.
//!
//! A stamp holds only the identity of the inputs that the outputs were made from. It is 64 bits of the standard library's
//! hasher: a stamp guards against work done for nothing, not against an adversary, and the thin crate stays without a
//! hashing crate. Small inputs count by content, big ones (images, programs) by size and time, as make does.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Result;

use crate::context::Context;

/// Something that the result of a task depends on.
#[derive(Clone, Debug)]
pub enum Input {
    /// A small file, by content.
    Content(PathBuf),
    /// A small file that need not be there, by content.
    Optional(PathBuf),
    /// All files of a directory, by name and content; a directory that is not there is an empty one.
    Tree(PathBuf),
    /// A big file, by size and time of its last change.
    File(PathBuf),
    /// An option or a pin.
    Value(String),
}

/// Whether a task has to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Its outputs were made from the inputs as they are now.
    Done,
    /// It has to run, for this reason.
    ToDo(String),
}

/// What a task is made from, what it makes, and where that is noted.
#[derive(Clone, Debug)]
pub struct Record {
    /// The stamp's file.
    pub stamp: PathBuf,
    /// What the outputs depend on.
    pub inputs: Vec<Input>,
    /// The files that must exist.
    pub outputs: Vec<PathBuf>,
}

impl Record {
    /// Compares the stamp with the inputs as they are now.
    pub fn state(&self, cx: &Context) -> Result<State> {
        if let Some(missing) = self.outputs.iter().find(|output| !output.exists()) {
            return Ok(State::ToDo(format!("{} is not there yet", cx.typed(missing))));
        }
        Ok(match (self.identity(cx)?, fs::read_to_string(&self.stamp)) {
            (Err(missing), _) => State::ToDo(format!("{} is not there yet", cx.typed(&missing))),
            (_, Err(_)) => State::ToDo("it was not done here yet".to_owned()),
            (Ok(now), Ok(then)) if now == then.trim() => State::Done,
            _ => State::ToDo("what it is made from has changed".to_owned()),
        })
    }

    /// The identity of the inputs, or the one that is missing.
    pub fn identity(&self, cx: &Context) -> Result<Result<String, PathBuf>> {
        let mut hasher = DefaultHasher::new();
        for input in &self.inputs {
            match input {
                Input::Value(value) => value.hash(&mut hasher),
                Input::File(path) => match fs::metadata(path) {
                    Ok(metadata) => {
                        let changed =
                            metadata.modified().ok().and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
                        (metadata.len(), changed.map(|time| time.as_nanos())).hash(&mut hasher);
                    }
                    Err(_) => return Ok(Err(path.clone())),
                },
                Input::Tree(path) => {
                    for file in cx.files(path)? {
                        file.hash(&mut hasher);
                        fs::read(path.join(&file)).ok().hash(&mut hasher);
                    }
                }
                Input::Optional(path) => fs::read(path).ok().hash(&mut hasher),
                Input::Content(path) => match fs::read(path) {
                    Ok(content) => content.hash(&mut hasher),
                    Err(_) => return Ok(Err(path.clone())),
                },
            }
        }
        Ok(Ok(format!("{:016x}", hasher.finish())))
    }

    /// Whether the task changes one of its inputs, so that they count as they are afterwards.
    pub fn is_in_place(&self) -> bool {
        let is_output = |path: &Path| self.outputs.iter().any(|output| output == path);
        self.inputs.iter().any(|input| matches!(input, Input::Content(path) | Input::Optional(path) if is_output(path)))
    }

    /// Runs the work of these records, and stamps them when it succeeds. Until then they count as not done.
    pub fn around<T>(cx: &Context, records: &[&Self], work: impl FnOnce() -> Result<T>) -> Result<T> {
        if cx.options.dry_run {
            return work();
        }
        let mut before = Vec::new();
        for record in records {
            cx.remove(&record.stamp)?;
            before.push(record.identity(cx)?.ok());
        }
        let result = work()?;
        for (record, before) in records.iter().zip(before) {
            let identity = match before {
                Some(before) if !record.is_in_place() => Some(before),
                _ => record.identity(cx)?.ok(),
            };
            if let Some(identity) = identity {
                cx.publish(&record.stamp, format!("{identity}\n").as_bytes())?;
            }
        }
        Ok(result)
    }
}
