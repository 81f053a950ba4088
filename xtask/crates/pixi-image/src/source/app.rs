//! What the recipe copies beside the environment: the application, the manifest and the lock, and the small files by
//! which pixi knows its own.

#[cfg(all(test, unix))]
mod tests;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rattler_conda_types::{MatchSpec, ParseStrictness};
use serde_json::json;

use crate::activation::Entrypoint;
use crate::entry::{BadPath, Entry, EntryKind, EntrySink, ImagePath, Mode};
use crate::model::{Environment, LockedPackage, PIXI_VERSION, Prefix};

/// Where the application's files go.
const APPLICATION: &str = "app/src";
/// Never part of an application: history, caches of an interpreter, environments of the building machine.
const SKIPPED: [&[u8]; 3] = [b".git", b".pixi", b"__pycache__"];
/// What pixi itself writes where it must compare an environment with its lock before it trusts it.
const UNKNOWN_HASH: &str = "invalid-hash";

/// What goes to `/app` beside the environment's packages.
#[derive(Clone, Copy, Debug)]
pub struct AppInput<'a> {
    /// The directory on this machine that becomes `/app/src`, where there is one.
    pub application: Option<&'a Path>,
    /// The content of `pixi.toml`.
    pub manifest: &'a [u8],
    /// The content of `pixi.lock`.
    pub lock: &'a [u8],
    /// The environment in the image.
    pub environment: &'a Environment,
    /// The entrypoint; none where the image has no shell.
    pub entrypoint: Option<&'a Entrypoint>,
    /// The time of every entry here, in seconds since 1970-01-01 UTC.
    pub mtime: u32,
}

/// Why the application cannot be put into the image.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// A file or directory of the application that cannot be read.
    #[error("cannot read {}: {source}{}", .path.display(), read_hint(.source))]
    Read {
        /// Its place on this machine.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Something that is no file, directory or link.
    #[error("cannot put {} into the image: it is {kind}\n  hint: move it out of the application's directory", .path.display())]
    Kind {
        /// Its place on this machine.
        path: PathBuf,
        /// What it is, with its article.
        kind: &'static str,
    },
    /// A link that would point elsewhere in the image.
    #[error(
        "the link {} points to {target:?}, outside of the application's directory\n  \
         hint: put the file itself there, or make the link relative", .path.display()
    )]
    Link {
        /// Its place on this machine.
        path: PathBuf,
        /// Where it points.
        target: String,
    },
    /// A file whose length changed while it was copied.
    #[error("{} changed while it was read\n  hint: run the build again when nothing writes to it", .path.display())]
    Changed {
        /// Its place on this machine.
        path: PathBuf,
    },
    /// A name that no image can hold.
    #[error(
        "cannot put {} into the image: {source}\n  hint: rename it, or move it out of the application's directory",
        .path.display()
    )]
    Name {
        /// Its place on this machine.
        path: PathBuf,
        /// What is wrong with the path.
        source: BadPath,
    },
    /// The image did not take an entry.
    #[error("cannot write {path} to the image: {source}")]
    Write {
        /// The entry's path in the image.
        path: ImagePath,
        /// What the system said.
        source: io::Error,
    },
}

/// By what pixi knows an environment of its own: what it was made of, and which machines may run it.
fn marker(environment: &Environment) -> serde_json::Value {
    let mut marker = json!({
        "manifest_path": "/app/pixi.toml",
        "environment_name": environment.name,
        "pixi_version": PIXI_VERSION,
        "environment_lock_file_hash": environment.lock_hash.as_deref().unwrap_or(UNKNOWN_HASH),
    });
    if environment.lock_hash.is_some() {
        let subdir = environment.subdir.as_str();
        marker["resolved_platform"] = json!({ "subdir": subdir, "virtual_packages": environment.virtual_packages });
        let needed = virtual_packages_needed(environment);
        marker["minimum_supported_platform"] = if needed.is_empty() {
            json!({ "subdir": subdir })
        } else {
            json!({ "subdir": subdir, "requirements": needed })
        };
    }
    marker
}

/// What the packages ask of the machine.
fn virtual_packages_needed(environment: &Environment) -> BTreeSet<String> {
    let conda = environment.packages.iter().filter_map(LockedPackage::conda);
    let depends = conda.flat_map(|package| &package.record.package_record.depends);
    let needed = depends.filter(|spec| spec.starts_with("__"));
    needed.filter_map(|spec| Some(MatchSpec::from_str(spec, ParseStrictness::Lenient).ok()?.to_string())).collect()
}

fn read_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "\n  hint: make it readable (chmod u+r), or move it out of the application",
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
            "\n  hint: create the application's directory, or name another one"
        }
        _ => "",
    }
}

/// Where the content of an entry comes from.
enum Content {
    None,
    Bytes(Vec<u8>),
    Host(PathBuf),
}

/// Hands over everything, directories included, in the order of the paths' bytes. Neither the order in which the
/// system lists a directory nor its umask matters.
pub fn push(input: &AppInput<'_>, sink: &mut dyn EntrySink) -> Result<(), AppError> {
    let mut listing = Listing { entries: Vec::new(), mtime: input.mtime };
    listing.workspace(input)?;
    if let Some(directory) = input.application {
        listing.application(directory)?;
    }
    listing.entries.sort_by(|(a, _), (b, _)| a.path.cmp(&b.path));
    for (entry, content) in &listing.entries {
        let write = |source| AppError::Write { path: entry.path.clone(), source };
        match content {
            Content::None => sink.entry(entry).map_err(write)?,
            Content::Bytes(bytes) => sink.entry(entry).and_then(|()| sink.data(bytes)).map_err(write)?,
            Content::Host(path) => copy(path, entry, sink)?,
        }
    }
    Ok(())
}

/// Streams one file; what the sink was promised is what it gets.
fn copy(path: &Path, entry: &Entry, sink: &mut dyn EntrySink) -> Result<(), AppError> {
    let read = |source| AppError::Read { path: path.to_owned(), source };
    let write = |source| AppError::Write { path: entry.path.clone(), source };
    let EntryKind::File { size } = entry.kind else { return Ok(()) };
    let mut file = File::open(path).map_err(read)?;
    sink.entry(entry).map_err(write)?;
    let mut left = size;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let count = match file.read(&mut buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(read(error)),
        };
        let short = count == 0 && left > 0;
        if short || count as u64 > left {
            return Err(AppError::Changed { path: path.to_owned() });
        }
        if count == 0 {
            return Ok(());
        }
        sink.data(&buffer[..count]).map_err(write)?;
        left -= count as u64;
    }
}

struct Listing {
    entries: Vec<(Entry, Content)>,
    mtime: u32,
}

impl Listing {
    fn add(&mut self, path: ImagePath, kind: EntryKind, mode: Mode, content: Content) {
        self.entries.push((Entry { path, kind, mode, mtime: self.mtime }, content));
    }

    fn bytes(&mut self, path: &str, mode: Mode, content: impl Into<Vec<u8>>) -> Result<(), AppError> {
        let content = content.into();
        let kind = EntryKind::File { size: content.len() as u64 };
        self.add(image_path(path, Path::new(path))?, kind, mode, Content::Bytes(content));
        Ok(())
    }

    fn directory(&mut self, path: ImagePath) {
        self.add(path, EntryKind::Directory, Mode::EXECUTABLE, Content::None);
    }

    /// The manifest, the lock, and what `pixi install` leaves beside the packages.
    fn workspace(&mut self, input: &AppInput<'_>) -> Result<(), AppError> {
        let (packages, shown) = (Prefix::of_packages(), Prefix::of_environment(&input.environment.name));
        let records = format!("{}/conda-meta", packages.relative());
        let link = image_path(shown.relative(), Path::new(shown.as_str()))?;
        let mut directories = BTreeSet::new();
        for place in [Some(image_path(&records, Path::new(&records))?), link.parent()] {
            directories.extend(std::iter::successors(place, ImagePath::parent));
        }
        directories.into_iter().for_each(|path| self.directory(path));
        self.add(link, EntryKind::Symlink { target: Prefix::LINK.into() }, Mode::SYMLINK, Content::None);
        self.bytes("app/pixi.toml", Mode::FILE, input.manifest)?;
        self.bytes("app/pixi.lock", Mode::FILE, input.lock)?;
        if let Some(entrypoint) = input.entrypoint {
            self.bytes(entrypoint.path.trim_start_matches('/'), Mode::EXECUTABLE, entrypoint.content.clone())?;
        }
        self.bytes("app/.pixi/.gitignore", Mode::FILE, "*\n!config.toml\n")?;
        self.bytes("app/.pixi/.condapackageignore", Mode::FILE, ".pixi\n!.pixi/config.toml\n")?;
        self.bytes(&format!("{records}/pixi"), Mode::FILE, format!("{:#}", marker(input.environment)))?;
        // pixi compares it with the place where it looks for the environment.
        self.bytes(&format!("{records}/pixi_env_prefix"), Mode::FILE, format!("{}/conda-meta", shown.as_str()))?;
        self.bytes(&format!("{records}/history"), Mode::FILE, "# `conda run --prefix` asks for this file\n")
    }

    /// The application's directory, to any depth. Links are kept as they are, never followed.
    fn application(&mut self, root: &Path) -> Result<(), AppError> {
        let top = image_path(APPLICATION, root)?;
        self.directory(top.clone());
        let mut pending = vec![(root.to_owned(), top)];
        while let Some((directory, above)) = pending.pop() {
            let read = |source| AppError::Read { path: directory.clone(), source };
            for item in fs::read_dir(&directory).map_err(read)? {
                let item = item.map_err(read)?;
                let path = item.path();
                let name = name_bytes(&item.file_name());
                if SKIPPED.contains(&name.as_slice()) {
                    continue;
                }
                let inside = above.join(&image_path(&name, &path)?);
                // `join` concatenates: only the parser knows whether the whole is too long.
                let inside = image_path(inside.as_bytes(), &path)?;
                let metadata =
                    fs::symlink_metadata(&path).map_err(|source| AppError::Read { path: path.clone(), source })?;
                let kind = metadata.file_type();
                if kind.is_dir() {
                    self.directory(inside.clone());
                    pending.push((path, inside));
                } else if kind.is_file() {
                    let size = metadata.len();
                    self.add(inside, EntryKind::File { size }, mode(&metadata), Content::Host(path));
                } else if kind.is_symlink() {
                    let target = link_target(&path, &inside)?;
                    self.add(inside, EntryKind::Symlink { target }, Mode::SYMLINK, Content::None);
                } else {
                    return Err(AppError::Kind { path, kind: kind_name(kind) });
                }
            }
        }
        Ok(())
    }
}

fn image_path(path: impl AsRef<[u8]>, host: &Path) -> Result<ImagePath, AppError> {
    ImagePath::new(path)
        .and_then(ImagePath::for_layer)
        .map_err(|source| AppError::Name { path: host.to_owned(), source })
}

/// Reads a link and makes sure that, followed part by part, it never leaves `/app/src`.
fn link_target(path: &Path, inside: &ImagePath) -> Result<Vec<u8>, AppError> {
    let target = fs::read_link(path).map_err(|source| AppError::Read { path: path.to_owned(), source })?;
    let target = link_bytes(&target);
    let outside = || AppError::Link { path: path.to_owned(), target: String::from_utf8_lossy(&target).into_owned() };
    if target.starts_with(b"/") || target.contains(&0) {
        return Err(outside());
    }
    let mut depth = inside.parts().count() - 1 - APPLICATION.split('/').count();
    for part in target.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => depth = depth.checked_sub(1).ok_or_else(outside)?,
            _ => depth += 1,
        }
    }
    Ok(target)
}

#[cfg(unix)]
fn name_bytes(name: &std::ffi::OsStr) -> Vec<u8> {
    std::os::unix::ffi::OsStrExt::as_bytes(name).to_vec()
}

#[cfg(not(unix))]
fn name_bytes(name: &std::ffi::OsStr) -> Vec<u8> {
    name.to_string_lossy().into_owned().into_bytes()
}

#[cfg(unix)]
fn link_bytes(target: &Path) -> Vec<u8> {
    name_bytes(target.as_os_str())
}

#[cfg(not(unix))]
fn link_bytes(target: &Path) -> Vec<u8> {
    let separators = |b: u8| if b == b'\\' { b'/' } else { b };
    name_bytes(target.as_os_str()).into_iter().map(separators).collect()
}

#[cfg(unix)]
fn mode(metadata: &fs::Metadata) -> Mode {
    Mode::normalized(std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()))
}

#[cfg(not(unix))]
fn mode(_metadata: &fs::Metadata) -> Mode {
    Mode::FILE
}

#[cfg(unix)]
fn kind_name(kind: fs::FileType) -> &'static str {
    use std::os::unix::fs::FileTypeExt;
    match kind {
        kind if kind.is_fifo() => "a named pipe",
        kind if kind.is_socket() => "a socket",
        kind if kind.is_block_device() || kind.is_char_device() => "a device",
        _ => "neither a file nor a directory nor a link",
    }
}

#[cfg(not(unix))]
fn kind_name(_kind: fs::FileType) -> &'static str {
    "neither a file nor a directory nor a link"
}
