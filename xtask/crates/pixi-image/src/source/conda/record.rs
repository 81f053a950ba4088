//! The record of an installed package in `conda-meta`.

use std::path::PathBuf;

use rattler_conda_types::PrefixRecord;
use rattler_conda_types::prefix_record::{PathType, PathsEntry};

use super::Problem;
use crate::entry::ImagePath;
use crate::model::{CondaPackage, Digest};
use crate::secrets;

/// Where the record of `package` goes, relative to the environment: `conda-meta/<name>-<version>-<build>.json`.
pub fn record_path(package: &CondaPackage) -> Result<ImagePath, Problem> {
    let identity = package.identity();
    if identity.contains('/') {
        return Err(Problem::BadName);
    }
    Ok(ImagePath::new(format!("conda-meta/{identity}.json"))?)
}

/// The record as rattler writes it, without what only holds for the machine that builds the image: the package cache it
/// was linked from, and how; and without a password of its channel.
pub(super) fn record(package: &CondaPackage, mut paths: Vec<PathsEntry>) -> Result<Vec<u8>, Problem> {
    paths.sort_by(|a, b| a.relative_path.cmp(&b.relative_path));
    let mut source = package.record.clone();
    source.url = secrets::without_credentials(&source.url);
    source.channel = source.channel.map(secrets::channel_without_credentials);
    let record = PrefixRecord::from_repodata_record(source, paths);
    serde_json::to_vec_pretty(&record).map_err(Problem::Record)
}

/// An entry of the record for a path that was written as it stood in the archive.
pub(super) fn paths_entry(place: &ImagePath, path_type: PathType, size: u64) -> PathsEntry {
    PathsEntry {
        relative_path: path_buf(place),
        original_path: None,
        path_type,
        no_link: false,
        sha256: None,
        sha256_in_prefix: None,
        size_in_bytes: Some(size),
        file_mode: None,
        prefix_placeholder: None,
    }
}

pub(super) fn path_buf(path: &ImagePath) -> PathBuf {
    PathBuf::from(path.lossy().into_owned()) // `info/` is UTF-8, so every place is
}

pub(super) fn sha256(digest: Digest) -> rattler_digest::Sha256Hash {
    digest.0.into()
}
