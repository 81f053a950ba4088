//! What stands in the image, for the file tests of scripts.

use super::{Result, Shell};

/// What a path leads to once every symbolic link is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A directory.
    Directory {
        /// Its permission bits.
        mode: u16,
    },
    /// A file.
    File {
        /// Its permission bits.
        mode: u16,
        /// The length of its content in bytes.
        size: u64,
    },
}

/// The files of an image.
pub trait Files: Sync {
    /// What an absolute path leads to, inside the image.
    fn kind(&self, path: &str) -> Option<FileKind>;
    /// The names in the directory that an absolute path leads to.
    fn names(&self, directory: &str) -> Vec<Vec<u8>>;
}

/// Where a running container has what its image has not.
const VOLATILE: &[&str] = &["dev", "home", "media", "mnt", "proc", "root", "run", "srv", "sys", "tmp", "var"];

impl Shell<'_> {
    /// What a path leads to. Outside of the environment only what is there is known: drivers, for one, are mounted.
    pub fn file(&self, path: &str) -> Result<Option<FileKind>> {
        self.known(path).map_err(|known| format!("a test of a file at {known}"))?;
        if path.is_empty() {
            return Ok(None);
        }
        let relative = path.strip_prefix('/').ok_or("a test of a path in the working directory")?;
        let parts: Vec<_> = relative.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        if parts.contains(&"..") {
            return Err("a test of a path with `..`".to_owned());
        }
        let plain = format!("/{}", parts.join("/"));
        let inside = self.below_prefix(&plain).is_some();
        if !inside && parts.first().is_some_and(|first| VOLATILE.contains(first)) {
            return Err(format!("a test of {path}, which only a running container has"));
        }
        let kind = self.files.kind(&plain);
        if kind.is_none() && !inside {
            return Err(format!("a test of {path}, which may be mounted into a running container"));
        }
        Ok(match kind {
            Some(FileKind::File { .. }) if path.ends_with('/') || path.ends_with("/.") => None,
            kind => kind,
        })
    }

    /// What is left of a path of the environment: nothing, or what begins with `/`.
    pub fn below_prefix<'t>(&self, path: &'t str) -> Option<&'t str> {
        let mut rests = self.prefixes.iter().filter_map(|prefix| path.strip_prefix(prefix.as_str()));
        rests.find(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Whether everyone may read (`r`) or run and enter (`x`) what stands at a path.
    pub fn everyone_may(&self, path: &str, executable: bool) -> Result<bool> {
        let Some(kind) = self.file(path)? else { return Ok(false) };
        let (FileKind::Directory { mode } | FileKind::File { mode, .. }) = kind;
        let (everyone, anyone) = if executable { (0o001, 0o111) } else { (0o004, 0o444) };
        if mode & everyone != 0 {
            return Ok(true);
        }
        // Root may do nearly everything; only what nobody may run, root may not run either.
        if executable && mode & anyone == 0 && matches!(kind, FileKind::File { .. }) {
            return Ok(false);
        }
        Err(format!("a test of {path}, whose outcome depends on the user"))
    }
}
