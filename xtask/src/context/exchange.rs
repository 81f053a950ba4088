//! Files of the learner's that become others: what was there is kept first, and then all of them change or none does.

use std::fs;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};

use crate::context::Context;

/// What one file becomes.
pub struct Exchange {
    /// The file, there or not.
    pub path: PathBuf,
    /// What it is to hold; none removes it.
    pub text: Option<String>,
    /// Where what it held is kept; none where it was not there.
    pub kept: Option<PathBuf>,
}

/// What is found at a path, without following a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A file, with its size in bytes.
    File(u64),
    /// A directory.
    Directory,
    /// A symbolic link, and where it goes.
    Link(PathBuf),
    /// Something else: a device, a pipe.
    Other,
}

impl Context {
    /// What is at a path; none where nothing is.
    pub fn entry(&self, path: &Path) -> Result<Option<Entry>> {
        let metadata = match fs::symlink_metadata(path) {
            Ok(metadata) => metadata,
            Err(error) if [ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&error.kind()) => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot look at {}", self.typed(path))),
        };
        let kind = metadata.file_type();
        Ok(Some(if kind.is_symlink() {
            Entry::Link(fs::read_link(path).with_context(|| format!("cannot read the link {}", self.typed(path)))?)
        } else if kind.is_dir() {
            Entry::Directory
        } else if kind.is_file() {
            Entry::File(metadata.len())
        } else {
            Entry::Other
        }))
    }

    /// Reads a file of any content.
    pub fn read_bytes(&self, path: &Path) -> Result<Vec<u8>> {
        fs::read(path).with_context(|| format!("cannot read {}", self.typed(path)))
    }

    /// Makes a directory that was not there: the next number in `parent`.
    pub fn make_numbered(&self, parent: &Path) -> Result<PathBuf> {
        let make = || -> io::Result<PathBuf> {
            fs::create_dir_all(parent)?;
            let numbers = self.names(parent).into_iter().filter_map(|name| name.parse::<u64>().ok());
            let mut next = numbers.max().unwrap_or(0) + 1;
            loop {
                let directory = parent.join(next.to_string());
                match fs::create_dir(&directory) {
                    Err(error) if error.kind() == ErrorKind::AlreadyExists => next += 1,
                    made => return made.map(|()| directory),
                }
            }
        };
        make().with_context(|| format!("cannot make a directory in {}", self.typed(parent)))
    }

    /// Copies a file to a place where none is, and has it on the disk when this returns.
    pub fn keep(&self, from: &Path, to: &Path) -> Result<()> {
        let copy = || -> io::Result<()> {
            let directory = to.parent().unwrap_or(to);
            fs::create_dir_all(directory)?;
            let mut source = fs::File::open(from)?;
            let mut copy = fs::File::create_new(to)?;
            io::copy(&mut source, &mut copy)?;
            copy.sync_all()?;
            // After the content: a file that may not be written can be copied, too.
            fs::set_permissions(to, source.metadata()?.permissions())?;
            sync_directory(directory)
        };
        copy().with_context(|| format!("cannot copy {} to {}", self.typed(from), self.typed(to)))
    }

    /// Makes all files what they are to be. What is new is written beside its place first; if something fails then, what
    /// was done is undone from what was kept.
    pub fn exchange(&self, files: &[Exchange]) -> Result<()> {
        let partial = |path: &Path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            path.with_file_name(format!(".{name}.{}.partial", std::process::id()))
        };
        let write = |Exchange { path, text, .. }: &Exchange| -> io::Result<()> {
            let Some(text) = text else { return Ok(()) };
            fs::create_dir_all(path.parent().unwrap_or(path))?;
            let mut file = fs::File::create(partial(path))?;
            file.write_all(text.as_bytes())?;
            file.sync_all()
        };
        let put = |Exchange { path, text, .. }: &Exchange| match text {
            Some(_) => fs::rename(partial(path), path),
            None => fs::remove_file(path),
        };
        let mut done = 0;
        let mut failed = files.iter().find_map(|file| write(file).err().map(|error| (file, error)));
        if failed.is_none() {
            for file in files {
                if let Err(error) = put(file) {
                    failed = Some((file, error));
                    break;
                }
                done += 1;
            }
        }
        let Some((file, error)) = failed else {
            let directories = files.iter().filter_map(|file| file.path.parent());
            return directories
                .into_iter()
                .try_for_each(sync_directory)
                .context("the files are changed, but not yet on the disk");
        };
        for file in files {
            let _ = fs::remove_file(partial(&file.path)); // most are not there
        }
        let error = anyhow!("cannot change {}: {error}", self.typed(&file.path));
        Err(match files[..done].iter().find_map(|file| self.undo(file).err()) {
            None => error.context("nothing was changed"),
            Some(second) => anyhow!("{error:#}; and then: {second:#}\n  hint: copy what is missing from what was kept"),
        })
    }

    fn undo(&self, file: &Exchange) -> Result<()> {
        match &file.kept {
            Some(kept) => {
                let back = file.path.with_file_name(format!(".{}.back", std::process::id()));
                self.remove(&back)?;
                self.keep(kept, &back)?;
                fs::rename(&back, &file.path).with_context(|| format!("cannot put {} back", self.typed(&file.path)))
            }
            None => self.remove(&file.path),
        }
    }
}

/// Has a directory's names on the disk, where there is a way to ask for it.
fn sync_directory(directory: &Path) -> io::Result<()> {
    if !cfg!(unix) {
        return Ok(());
    }
    match fs::File::open(directory)?.sync_all() {
        Err(error) if [ErrorKind::InvalidInput, ErrorKind::Unsupported].contains(&error.kind()) => Ok(()),
        synced => synced,
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args, Command, FromArgMatches};

    use super::*;
    use crate::options::Options;

    fn context() -> Context {
        let matches = Options::augment_args(Command::new("test")).get_matches_from(["test"]);
        Context::new(Options::from_arg_matches(&matches).unwrap()).unwrap()
    }

    #[test]
    fn a_failure_leaves_every_file_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let place = |name: &str| directory.path().join(name);
        let exchange = |name: &str, text: Option<&str>, kept: Option<&str>| Exchange {
            path: place(name),
            text: text.map(str::to_owned),
            kept: kept.map(place),
        };
        for (name, text) in [("a", "a"), ("b", "b"), ("kept/a", "a"), ("kept/b", "b")] {
            fs::create_dir_all(place("kept")).unwrap();
            fs::write(place(name), text).unwrap();
        }
        let names = || context().files(directory.path()).unwrap();
        let before = names();
        let mut files = vec![
            exchange("a", Some("new"), Some("kept/a")),
            exchange("b", None, Some("kept/b")),
            exchange("c", Some("new"), None),
            exchange("not there", None, None),
        ];
        let error = context().exchange(&files).unwrap_err();
        assert!(format!("{error:#}").starts_with("nothing was changed: cannot change "), "{error:#}");
        // So it is where already the writing fails.
        files[3] = exchange("a/below a file", Some("new"), None);
        context().exchange(&files).unwrap_err();
        assert_eq!(names(), before);
        assert_eq!([place("a"), place("b")].map(|path| fs::read_to_string(path).unwrap()), ["a", "b"]);

        files.pop();
        context().exchange(&files).unwrap();
        assert_eq!(["a", "c"].map(|name| fs::read_to_string(place(name)).unwrap()), ["new", "new"]);
        assert!(!place("b").exists());
    }

    #[test]
    fn numbers_go_on_and_what_is_kept_is_never_overwritten() {
        let directory = tempfile::tempdir().unwrap();
        let (cx, parent) = (context(), directory.path().join("backups"));
        for number in ["1", "2"] {
            assert_eq!(cx.make_numbered(&parent).unwrap(), parent.join(number));
        }
        fs::create_dir(parent.join("9")).unwrap();
        let ten = cx.make_numbered(&parent).unwrap();
        assert_eq!(ten, parent.join("10"));
        let file = directory.path().join("file");
        fs::write(&file, "first").unwrap();
        cx.keep(&file, &ten.join("below/file")).unwrap();
        fs::write(&file, "second").unwrap();
        cx.keep(&file, &ten.join("below/file")).unwrap_err();
        assert_eq!(fs::read_to_string(ten.join("below/file")).unwrap(), "first");
    }
}
