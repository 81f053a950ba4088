//! Decodes an archive once and pushes what it holds.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::ops::ControlFlow;

use rattler_conda_types::package::FileMode;
use rattler_conda_types::prefix_record::{PathType, PathsEntry};
use sha2::Digest as _;

use super::archive::{self, Part};
use super::members::{self, Member, MemberKind};
use super::places::Places;
use super::record::{path_buf, paths_entry, record, sha256};
use super::{CondaError, GENERATED_MTIME, IndexedPath, Kind, MAX_PATCHED, PackageIndex, Problem};
use crate::entry::{Entry, EntryKind, EntrySink, ImagePath, Mode, push_file};
use crate::model::{CondaPackage, Digest};
use crate::publish::Readable;
use crate::source::placement::{Directories, Placement};
use crate::source::prefix::{BinaryError, replace_binary, replace_text};

/// What is copied at a time.
const PIECE: usize = 128 << 10;

/// Pushes everything that `package` installs: all directories, files in the order of the archive, entry points, the record.
/// The entries are a function of the archive and the placement alone.
pub fn stream(
    archive: &Readable,
    package: &CondaPackage,
    index: &PackageIndex,
    placement: &Placement<'_>,
    sink: &mut dyn EntrySink,
) -> Result<(), CondaError> {
    let linked = Linker::new(package, index, placement, sink).and_then(|linker| linker.link(archive));
    linked.map_err(|problem| CondaError {
        package: package.record.identifier.to_string(),
        archive: Some(archive.place().to_owned()),
        problem: problem.into(),
    })
}

/// How far one of [`PackageIndex::paths`] is.
#[derive(Clone)]
enum State {
    /// Not seen yet.
    Pending,
    /// An entry point takes its place.
    Superseded,
    /// A hard link whose content differs from its target's, as prefixes are replaced: for a second pass.
    Deferred,
    /// Pushed.
    Pushed(Pushed),
}

/// What was pushed for a path.
#[derive(Clone)]
struct Pushed {
    kind: EntryKind,
    mode: Mode,
    mtime: u32,
    /// The length in the archive.
    archived: u64,
    /// The length in the image.
    size: u64,
    /// The digest in the image, where it was computed.
    digest: Option<Digest>,
}

/// Pushes one package.
struct Linker<'a> {
    package: &'a CondaPackage,
    index: &'a PackageIndex,
    placement: &'a Placement<'a>,
    places: Places<'a>,
    states: Vec<State>,
    /// Every hard link of the archive, to the file at the end of the chain.
    hardlinks: BTreeMap<ImagePath, ImagePath>,
    /// Hard links for the second pass, by the file they lead to.
    deferred: BTreeMap<ImagePath, Vec<usize>>,
    records: Vec<PathsEntry>,
    piece: Vec<u8>,
    sink: &'a mut dyn EntrySink,
}

impl<'a> Linker<'a> {
    fn new(
        package: &'a CondaPackage,
        index: &'a PackageIndex,
        placement: &'a Placement<'a>,
        sink: &'a mut dyn EntrySink,
    ) -> Result<Self, Problem> {
        let places = Places::new(index, package, placement.python)?;
        let state = |place: &Option<_>| if place.is_some() { State::Pending } else { State::Superseded };
        Ok(Self {
            package,
            index,
            placement,
            states: places.files.iter().map(state).collect(),
            places,
            hardlinks: BTreeMap::new(),
            deferred: BTreeMap::new(),
            records: Vec::new(),
            piece: vec![0; PIECE],
            sink,
        })
    }

    fn link(mut self, archive: &Readable) -> Result<(), Problem> {
        self.directories()?;
        members::each(archive::open(archive, Part::Contents)?, |member, content| {
            self.member(member, content)?;
            Ok(ControlFlow::Continue(()))
        })?;
        self.deferred_hardlinks(archive)?;
        let absent = |state: &State| matches!(state, State::Pending);
        if let Some(at) = self.states.iter().position(absent) {
            return Err(Problem::Absent(self.index.paths[at].path.clone()));
        }
        self.record_files();
        self.entry_points()?;
        let content = record(self.package, std::mem::take(&mut self.records))?;
        let path = self.placement.image_path(&self.places.record)?;
        push_file(self.sink, path, Mode::FILE, GENERATED_MTIME, &content).map_err(Problem::Sink)
    }

    /// Those that are listed, which the archive need not hold: an empty directory is all in its name. And those above all
    /// else that comes.
    fn directories(&mut self) -> Result<(), Problem> {
        let mut directories = Directories::default();
        for place in self.places.entry_points.keys().chain([&self.places.record]) {
            directories.above(&self.placement.image_path(place)?);
        }
        for (at, place) in self.places.files.iter().enumerate() {
            let Some(place) = place else { continue };
            let path = self.placement.image_path(place)?;
            if self.index.paths[at].kind == Some(Kind::Directory) {
                directories.add(path);
                self.states[at] = State::Pushed(Pushed {
                    kind: EntryKind::Directory,
                    mode: Mode::EXECUTABLE,
                    mtime: GENERATED_MTIME,
                    archived: 0,
                    size: 0,
                    digest: None,
                });
            } else {
                directories.above(&path);
            }
        }
        directories.push(self.sink).map_err(Problem::Sink)
    }

    fn member(&mut self, member: Member, content: &mut dyn Read) -> Result<(), Problem> {
        if let MemberKind::Hardlink(target) = &member.kind {
            let target = self.hardlinks.get(target).unwrap_or(target).clone();
            self.hardlinks.insert(member.path.clone(), target);
        }
        let Some(at) = self.index.position(&member.path) else { return Ok(()) };
        check_kind(&self.index.paths[at], &member)?;
        match (&self.states[at], &member.kind) {
            (State::Superseded, _) | (_, MemberKind::Directory) => return Ok(()),
            (State::Pending, _) => {}
            (State::Deferred | State::Pushed(_), _) => return Err(Problem::Twice(member.path)),
        }
        match &member.kind {
            MemberKind::Hardlink(_) => self.hardlink(at),
            MemberKind::File => self.push_file(at, &member, content),
            MemberKind::Symlink(target) => self.push_symlink(at, target.clone(), member.mtime),
            MemberKind::Directory => Ok(()),
        }
    }

    fn push_file(&mut self, at: usize, member: &Member, content: &mut dyn Read) -> Result<(), Problem> {
        let index = self.index;
        let listed = &index.paths[at];
        check_size(listed, member.size)?;
        let prefix = self.placement.prefix.as_str();
        let mode = Mode::normalized(member.mode);
        let text = match &listed.placeholder {
            Some(placeholder) if placeholder.mode == FileMode::Text => {
                let original = read_whole(member, content)?;
                Some(replace_text(&original, &placeholder.text, prefix, self.placement.subdir))
            }
            _ => None,
        };
        let size = text.as_ref().map_or(member.size, |text| text.len() as u64);
        let mtime = if listed.placeholder.is_some() { index.patched_mtime } else { member.mtime };
        let kind = EntryKind::File { size };
        self.push(at, kind.clone(), mode, mtime)?;
        // Where the package gives no digest, the record must: as rattler's does.
        let mut hash = (listed.placeholder.is_some() || listed.sha256.is_none()).then(sha2::Sha256::new);
        let sink = &mut *self.sink;
        let mut write = |bytes: &[u8]| {
            if let Some(hash) = &mut hash {
                hash.update(bytes);
            }
            sink.data(bytes)
        };
        match (text, &listed.placeholder) {
            (Some(text), _) => write(&text).map_err(Problem::Sink)?,
            (None, Some(placeholder)) => replace_binary(content, &placeholder.text, prefix, &mut write)
                .map_err(|error| binary_problem(&listed.path, error))?,
            (None, None) => copy(content, &mut self.piece, &mut write)?,
        }
        let digest = hash.map(|hash| Digest(hash.finalize().into()));
        self.states[at] = State::Pushed(Pushed { kind, mode, mtime, archived: member.size, size, digest });
        Ok(())
    }

    /// The target is data: it is neither resolved here nor by any sink.
    fn push_symlink(&mut self, at: usize, target: Vec<u8>, mtime: u32) -> Result<(), Problem> {
        let size = target.len() as u64;
        let (kind, mode) = (EntryKind::Symlink { target }, Mode::SYMLINK);
        self.push(at, kind.clone(), mode, mtime)?;
        self.states[at] = State::Pushed(Pushed { kind, mode, mtime, archived: size, size, digest: None });
        Ok(())
    }

    /// A hard link stays one if both names have the same content in the image too.
    fn hardlink(&mut self, at: usize) -> Result<(), Problem> {
        let listed = &self.index.paths[at];
        let target = self.hardlinks[&listed.path].clone(); // `member` has just put it there
        let Some(to) = self.index.position(&target) else { return self.defer(at, target) };
        match (self.states[to].clone(), &self.places.files[to]) {
            (State::Pushed(pushed), Some(place)) => match &pushed.kind {
                EntryKind::Symlink { target } => self.push_symlink(at, target.clone(), pushed.mtime),
                EntryKind::File { .. } if listed.placeholder == self.index.paths[to].placeholder => {
                    check_size(listed, pushed.archived)?;
                    let target = self.placement.image_path(place)?;
                    self.push(at, EntryKind::Hardlink { target }, pushed.mode, pushed.mtime)?;
                    let digest = pushed.digest.or(self.index.paths[to].sha256);
                    self.states[at] = State::Pushed(Pushed { digest, ..pushed });
                    Ok(())
                }
                EntryKind::File { .. } => self.defer(at, target),
                _ => Err(Problem::BadHardlink { path: listed.path.clone(), target }),
            },
            (State::Superseded, _) => self.defer(at, target),
            _ => Err(Problem::BadHardlink { path: listed.path.clone(), target }),
        }
    }

    fn defer(&mut self, at: usize, target: ImagePath) -> Result<(), Problem> {
        self.states[at] = State::Deferred;
        self.deferred.entry(target).or_default().push(at);
        Ok(())
    }

    /// Reads the archive once more, for the content of hard links that became files of their own.
    fn deferred_hardlinks(&mut self, archive: &Readable) -> Result<(), Problem> {
        if self.deferred.is_empty() {
            return Ok(());
        }
        let mut deferred = std::mem::take(&mut self.deferred);
        members::each(archive::open(archive, Part::Contents)?, |member, content| {
            let Some(links) = deferred.remove(&member.path) else { return Ok(ControlFlow::Continue(())) };
            match &member.kind {
                MemberKind::Symlink(target) => {
                    for at in links {
                        self.push_symlink(at, target.clone(), member.mtime)?;
                    }
                }
                MemberKind::File => {
                    let original = read_whole(&member, content)?;
                    for at in links {
                        self.push_file(at, &member, &mut original.as_slice())?;
                    }
                }
                _ => drop(deferred.insert(member.path, links)), // no content: refused below
            }
            Ok(if deferred.is_empty() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        match deferred.pop_first() {
            None => Ok(()),
            Some((target, links)) => {
                Err(Problem::BadHardlink { path: self.index.paths[links[0]].path.clone(), target })
            }
        }
    }

    /// Begins the entry of the listed path `at`.
    fn push(&mut self, at: usize, kind: EntryKind, mode: Mode, mtime: u32) -> Result<(), Problem> {
        let Some(place) = self.places.files[at].clone() else { return Ok(()) }; // superseded paths never come here
        let path = self.placement.image_path(&place)?;
        self.sink.entry(&Entry { path, kind, mode, mtime }).map_err(Problem::Sink)
    }

    /// Writes down what was pushed, as rattler does.
    fn record_files(&mut self) {
        for ((listed, state), place) in self.index.paths.iter().zip(&self.states).zip(&self.places.files) {
            let (State::Pushed(pushed), Some(place)) = (state, place) else { continue };
            let path_type = match (listed.kind, &pushed.kind) {
                (Some(Kind::Symlink), _) | (None, EntryKind::Symlink { .. }) => PathType::SoftLink,
                (Some(Kind::Directory), _) => PathType::Directory,
                _ => PathType::HardLink,
            };
            let patched = listed.placeholder.as_ref().filter(|_| pushed.digest.is_some());
            let size = if patched.is_some() { pushed.size } else { listed.size.unwrap_or(pushed.size) };
            let moved = self.placement.moved.get(place);
            self.records.push(PathsEntry {
                original_path: moved.map(|_| path_buf(place)),
                no_link: listed.no_link,
                sha256: listed.sha256.map(sha256),
                sha256_in_prefix: pushed.digest.filter(|digest| Some(*digest) != listed.sha256).map(sha256),
                file_mode: patched.map(|placeholder| placeholder.mode),
                prefix_placeholder: listed.placeholder.as_ref().map(|placeholder| placeholder.text.clone()),
                ..paths_entry(moved.unwrap_or(place), path_type, size)
            });
        }
    }

    fn entry_points(&mut self) -> Result<(), Problem> {
        let Some(python) = self.placement.python else { return Ok(()) };
        for (place, entry_point) in std::mem::take(&mut self.places.entry_points) {
            let script = python.entry_point_script(self.placement.prefix, entry_point);
            let path = self.placement.image_path(&place)?;
            push_file(self.sink, path, Mode::EXECUTABLE, GENERATED_MTIME, &script).map_err(Problem::Sink)?;
            let moved = self.placement.moved.get(&place);
            let size = script.len() as u64;
            self.records.push(PathsEntry {
                original_path: moved.map(|_| path_buf(&place)),
                sha256: Some(sha256(Digest::of(&script))),
                ..paths_entry(moved.unwrap_or(&place), PathType::UnixPythonEntryPoint, size)
            });
        }
        Ok(())
    }
}

/// Copies all of `content` by pieces.
fn copy(
    content: &mut dyn Read,
    piece: &mut [u8],
    write: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> Result<(), Problem> {
    loop {
        match content.read(piece).map_err(Problem::Read)? {
            0 => return Ok(()), // an early end of a member is an error
            read => write(&piece[..read]).map_err(Problem::Sink)?,
        }
    }
}

fn binary_problem(path: &ImagePath, error: BinaryError) -> Problem {
    let path = path.clone();
    match error {
        BinaryError::PrefixTooLong(error) => Problem::PrefixTooLong { path, error },
        BinaryError::Endless(limit) => {
            let what = format!("a string of `{path}`, which holds the placeholder of its prefix,");
            Problem::TooLarge { what, limit }
        }
        BinaryError::Read(error) => Problem::Read(error),
        BinaryError::Write(error) => Problem::Sink(error),
    }
}

/// The content of a file that is replaced as a whole: a text, or one that other names of it need again.
fn read_whole(member: &Member, content: &mut dyn Read) -> Result<Vec<u8>, Problem> {
    if member.size > MAX_PATCHED {
        let what = format!("`{}`, which holds the placeholder of its prefix,", member.path);
        return Err(Problem::TooLarge { what, limit: MAX_PATCHED });
    }
    let mut whole = Vec::new();
    content.read_to_end(&mut whole).map_err(Problem::Read)?;
    Ok(whole)
}

fn check_kind(listed: &IndexedPath, member: &Member) -> Result<(), Problem> {
    let found = match member.kind {
        MemberKind::File => "a file",
        MemberKind::Directory => "a directory",
        MemberKind::Symlink(_) => "a symbolic link",
        MemberKind::Hardlink(_) => "a hard link",
    };
    let (listed_as, fits) = match (listed.kind, &member.kind) {
        (Some(Kind::Directory), kind) => ("a directory", matches!(kind, MemberKind::Directory)),
        // Every installer makes a symbolic link of a file that turns out to be one.
        (Some(Kind::File) | None, kind) => ("a file", !matches!(kind, MemberKind::Directory)),
        (Some(Kind::Symlink), kind) => {
            ("a symbolic link", matches!(kind, MemberKind::Symlink(_) | MemberKind::Hardlink(_)))
        }
    };
    if fits {
        return Ok(());
    }
    Err(Problem::OtherKind { path: listed.path.clone(), listed: listed_as, found })
}

/// Builders give a symbolic link the size of what it leads to, so only files are checked.
fn check_size(listed: &IndexedPath, found: u64) -> Result<(), Problem> {
    match listed.size {
        Some(size) if size != found && listed.kind != Some(Kind::Symlink) => {
            Err(Problem::OtherSize { path: listed.path.clone(), listed: size, found })
        }
        _ => Ok(()),
    }
}
