//! A workspace for a channel: its manifest, and the lock that is solved from the channel as it lies on the disk.

use std::path::{Path, PathBuf};

use pixi_image::config::Config;
use pixi_image::manifest::{self, ManifestError};
use pixi_image::progress::Progress;
use pixi_image::publish::{self, PublishError};
use pixi_image::solve::{self, SolveError};

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub enum WorkspaceError {
    /// What was written as a manifest is none.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The channel does not have what the manifest asks for.
    #[error(transparent)]
    Solve(#[from] SolveError),
    /// A file cannot be written.
    #[error(transparent)]
    Write(#[from] PublishError),
    /// The channel's place cannot be told.
    #[error("cannot find the channel {path}: {source}")]
    Channel {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The lock is not written as expected.
    #[error("the lock that was solved names no channel")]
    NoChannel,
}

/// Writes `pixi.toml` and `pixi.lock` into `directory`. The manifest names the channel by `url`, under which it will be
/// served; it is solved from where it lies now.
pub fn write(
    directory: &Path,
    manifest: &str,
    channel: &Path,
    url: &str,
    progress: &dyn Progress,
) -> Result<(), WorkspaceError> {
    let missing = |source| WorkspaceError::Channel { path: channel.to_owned(), source };
    let place = channel.canonicalize().map_err(missing)?;
    let scratch = tempfile::tempdir().map_err(missing)?;
    let here = format!("file://{}", place.display());
    let local = scratch.path().join("pixi.toml");
    publish::write(&local, manifest.replace(url, &here).as_bytes(), 0o644)?;
    // The machine's own configuration of channels has no say in what is measured.
    let config = Config::default();
    let cache = scratch.path().join("cache");
    let now = jiff::Timestamp::now();
    let options = solve::Options { cache: &cache, offline: false, config: &config, now, among: None };
    let lock = solve::solve(&manifest::read(&local)?, &options, progress)?;
    let lock = at(&lock, &place, url).ok_or(WorkspaceError::NoChannel)?;
    publish::write(&directory.join("pixi.toml"), manifest.as_bytes(), 0o644)?;
    publish::write(&directory.join("pixi.lock"), lock.as_bytes(), 0o644)?;
    Ok(())
}

/// The lock with its one channel at `url` and not in `directory`: a channel is written as a URL, a package of one on the
/// disk by its path.
fn at(lock: &str, directory: &Path, url: &str) -> Option<String> {
    let channel = lock.lines().find_map(|line| line.trim_start().strip_prefix("- url: "))?.trim_end_matches('/');
    // The new place may hold the old one: no text can hold a NUL.
    let without = lock.replace(channel, "\0").replace(&directory.display().to_string(), "\0");
    Some(without.replace('\0', url.trim_end_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_channel_moves_and_nothing_else() {
        let lock =
            "environments:\n  a:\n    channels:\n    - url: file:///t/c/\npackages:\n- conda: /t/c/noarch/x.conda\n";
        let moved = "environments:\n  a:\n    channels:\n    - url: http://h:1/\npackages:\n- conda: http://h:1/noarch/x.conda\n";
        assert_eq!(at(lock, Path::new("/t/c"), "http://h:1").unwrap(), moved);
        let here = at(lock, Path::new("/t/c"), "file:///t/c").unwrap();
        assert_eq!(here, lock.replace("- conda: /t", "- conda: file:///t"));
        assert_eq!(at("", Path::new("/t/c"), "http://h:1"), None);
    }
}
