//! What an image was built from, kept beside its stamp: the lock and a list of the application's files, of the last build
//! and of the last one before it that was built from something else.

use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::context::Context;

/// Begins a line that lists a file; to whoever reads the lock below them, such lines are comments.
const FILE: &str = "# file\t";

/// What an image was built from.
pub struct Built {
    /// The lock: it reads as any other.
    pub lock: PathBuf,
    /// The application's files, by name.
    pub files: Vec<File>,
}

/// A file of the application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its path below `app`, made printable.
    pub path: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// The identity of its content, as stamps have it.
    pub content: String,
}

/// Keeps what an image was built from. What was kept of a build from something else becomes the one before.
pub fn keep(cx: &Context, stamp: &Path, lock: &Path, app: &Path) -> Result<()> {
    let mut text = String::new();
    for File { path, bytes, content } in files(cx, app)? {
        text += &format!("{FILE}{content}\t{bytes}\t{path}\n");
    }
    text += &cx.read_file(lock)?;
    let (now, before) = (now(stamp), before(stamp));
    match cx.read_file(&now) {
        Ok(same) if same == text => return Ok(()),
        Ok(other) => cx.publish(&before, other.as_bytes())?,
        Err(_) => {}
    }
    cx.publish(&now, text.as_bytes())
}

/// What the image of a stamp was built from last, and before that.
pub fn read(cx: &Context, stamp: &Path) -> [Option<Built>; 2] {
    [now(stamp), before(stamp)].map(|lock| {
        let text = cx.read_file(&lock).ok()?;
        let files = text.lines().map_while(|line| file(line.strip_prefix(FILE)?)).collect();
        Some(Built { lock, files })
    })
}

/// The application's files as they are now.
pub fn files(cx: &Context, app: &Path) -> Result<Vec<File>> {
    let describe = |path: PathBuf| {
        let bytes = fs::read(app.join(&path)).unwrap_or_default();
        let mut hasher = DefaultHasher::new();
        hasher.write(&bytes);
        let path: String = path.display().to_string().chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        File { path, bytes: bytes.len() as u64, content: format!("{:016x}", hasher.finish()) }
    };
    Ok(cx.files(app)?.into_iter().map(describe).collect())
}

fn file(line: &str) -> Option<File> {
    let mut fields = line.splitn(3, '\t');
    let (content, bytes, path) = (fields.next()?, fields.next()?, fields.next()?);
    Some(File { path: path.to_owned(), bytes: bytes.parse().ok()?, content: content.to_owned() })
}

fn now(stamp: &Path) -> PathBuf {
    stamp.with_extension("built")
}

fn before(stamp: &Path) -> PathBuf {
    stamp.with_extension("before")
}
