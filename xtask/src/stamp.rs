//! Whether a piece of work is done: derived from its inputs and outputs, never from a record of progress.
//!
//! A stamp holds the identity of the inputs and of what was made from them, so that it is void when one of either is
//! exchanged; below it stands what the work led to, for the report. An identity is 64 bits of the standard library's
//! hasher: a stamp guards against work done for nothing, not against an adversary, and the thin crate stays without a
//! hashing crate. Small inputs count by content, big ones (images, programs) and outputs by size and time, as make does.

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

/// How far a task is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Its outputs were made from the inputs as they are now.
    Done,
    /// Somebody made something else of its outputs, which is kept: what.
    Changed(String),
    /// Its outputs are there, but made from something else than the inputs as they are now: from what.
    Stale(String),
    /// It was not done: what is missing.
    ToDo(String),
}

impl State {
    /// The word for it in tables.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Changed(_) => "changed",
            Self::Stale(_) => "stale",
            Self::ToDo(_) => "to do",
        }
    }

    /// Why, where there is something to say.
    pub fn reason(&self) -> &str {
        match self {
            Self::Done => "",
            Self::Changed(reason) | Self::Stale(reason) | Self::ToDo(reason) => reason,
        }
    }

    /// Whether there is work left.
    pub fn is_outstanding(&self) -> bool {
        matches!(self, Self::Stale(_) | Self::ToDo(_))
    }
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
    /// Compares the stamp with the inputs and outputs as they are now.
    pub fn state(&self, cx: &Context) -> Result<State> {
        let missing = |path: &Path| State::ToDo(format!("{} is not there yet", cx.typed(path)));
        if let Some(output) = self.outputs.iter().find(|output| !output.exists()) {
            return Ok(missing(output));
        }
        let Some(stamp) = self.read_stamp() else { return Ok(State::ToDo("it was not done here yet".to_owned())) };
        let then = stamp.lines().next().unwrap_or_default();
        let now = match self.identity(cx)? {
            Ok(now) => now,
            Err(path) => return Ok(missing(&path)),
        };
        let outputs = self.identity_of_outputs();
        if then == format!("{now} {outputs}") {
            return Ok(State::Done);
        }
        if let Some(newer) = self.newer_input(cx)? {
            return Ok(State::Stale(format!("{} is newer", cx.typed(&newer))));
        }
        Ok(State::Stale(match then.split_once(' ') {
            Some((inputs, _)) if inputs == now => "what it made was exchanged since".to_owned(),
            _ => "it was made with other options, or by another version of the programs".to_owned(),
        }))
    }

    /// What the work led to when it was done last, as it was noted: whether that still holds, `state` tells.
    pub fn note(&self) -> Option<String> {
        self.read_stamp()?.split_once('\n').map(|(_, note)| note.to_owned())
    }

    /// The files and directories among the inputs.
    pub fn input_paths(&self) -> impl Iterator<Item = PathBuf> {
        self.inputs.iter().filter_map(|input| match input {
            Input::Value(_) => None,
            Input::Content(path) | Input::Optional(path) | Input::File(path) | Input::Tree(path) => Some(path.clone()),
        })
    }

    fn read_stamp(&self) -> Option<String> {
        fs::read_to_string(&self.stamp).ok()
    }

    /// The identity of the inputs, or the one that is missing.
    pub fn identity(&self, cx: &Context) -> Result<Result<String, PathBuf>> {
        let mut hasher = DefaultHasher::new();
        for input in &self.inputs {
            match input {
                Input::Value(value) => value.hash(&mut hasher),
                Input::File(path) => match size_and_time(path) {
                    Some(identity) => identity.hash(&mut hasher),
                    None => return Ok(Err(path.clone())),
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

    /// The identity of the files among the outputs; those that are inputs, too, count there.
    fn identity_of_outputs(&self) -> String {
        let mut hasher = DefaultHasher::new();
        for output in self.outputs.iter().filter(|output| output.is_file() && !self.is_input(output)) {
            size_and_time(output).hash(&mut hasher);
        }
        format!("{:016x}", hasher.finish())
    }

    /// An input that was changed after the work was done.
    fn newer_input(&self, cx: &Context) -> Result<Option<PathBuf>> {
        let time = |path: &Path| fs::metadata(path).ok()?.modified().ok();
        let Some(done) = time(&self.stamp) else { return Ok(None) };
        for input in &self.inputs {
            let files = match input {
                Input::Value(_) => continue,
                Input::Tree(path) => cx.files(path)?.into_iter().map(|file| path.join(file)).collect(),
                Input::Content(path) | Input::Optional(path) | Input::File(path) => vec![path.clone()],
            };
            if let Some(newer) = files.into_iter().find(|file| time(file).is_some_and(|time| time > done)) {
                return Ok(Some(newer));
            }
        }
        Ok(None)
    }

    fn is_input(&self, output: &Path) -> bool {
        self.inputs.iter().any(|input| matches!(input, Input::Content(path) | Input::Optional(path) if path == output))
    }

    /// Whether the task changes one of its inputs, so that they count as they are afterwards.
    pub fn is_in_place(&self) -> bool {
        self.outputs.iter().any(|output| self.is_input(output))
    }

    /// Runs the work of these records, and stamps them when it succeeds, each with the note that `note` makes of the
    /// result. Until then they count as not done.
    pub fn around<T>(
        cx: &Context,
        records: &[&Self],
        work: impl FnOnce() -> Result<T>,
        note: impl Fn(&T, usize) -> String,
    ) -> Result<T> {
        if cx.options.dry_run {
            return work();
        }
        let mut before = Vec::new();
        for record in records {
            cx.remove(&record.stamp)?;
            before.push(record.identity(cx)?.ok());
        }
        let result = work()?;
        for (index, (record, before)) in records.iter().zip(before).enumerate() {
            let identity = match before {
                Some(before) if !record.is_in_place() => Some(before),
                _ => record.identity(cx)?.ok(),
            };
            if let Some(identity) = identity {
                let stamp = format!("{identity} {}\n{}", record.identity_of_outputs(), note(&result, index));
                cx.publish(&record.stamp, stamp.as_bytes())?;
            }
        }
        Ok(result)
    }
}

/// Size and time of the last change of a file.
fn size_and_time(path: &Path) -> Option<(u64, Option<u128>)> {
    let metadata = fs::metadata(path).ok()?;
    let changed = metadata.modified().ok().and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
    Some((metadata.len(), changed.map(|time| time.as_nanos())))
}
