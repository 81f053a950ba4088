//! `rehearsal.json`: what a rehearsal was made of and what came out, so that the next call knows what is left to do.

use std::path::Path;

use pixi_image::model::Digest;
use pixi_image::publish::{self, PublishError};
use serde::{Deserialize, Serialize};

use crate::channel;
use crate::index::Package;
use crate::recipes;

/// The record's name in the output directory.
pub const FILE_NAME: &str = "rehearsal.json";

/// Names no mirror: two machines with different mirrors of one release write the same record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The digest of the tables and of the format: another one means that everything is made anew.
    pub recipes: Digest,
    /// Debian's suite.
    pub suite: String,
    /// The point release.
    pub release: String,
    /// When it was released, as the archive writes it.
    pub date: String,
    /// The Debian packages that were used, by name.
    pub debs: Vec<DebRecord>,
    /// The channel.
    pub channel: ChannelRecord,
    /// The base image.
    pub base: BaseRecord,
}

/// One Debian package.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DebRecord {
    /// Its name.
    pub package: String,
    /// Its version.
    pub version: String,
    /// The sha256 of its file.
    pub sha256: Digest,
    /// The size of its file in bytes.
    pub size: u64,
}

/// The channel that was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChannelRecord {
    /// The digest of its indexes.
    pub digest: Digest,
    /// Its packages.
    pub packages: Vec<PackageRecord>,
}

/// One archive of the channel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PackageRecord {
    /// The directory in which it stands.
    pub subdir: String,
    /// Its name there.
    pub file_name: String,
    /// Its sha256.
    pub sha256: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// What the channel's index says of it.
    #[serde(skip)]
    pub repodata: serde_json::Value,
}

/// The base image that was made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BaseRecord {
    /// The digest of its manifest.
    pub digest: Digest,
    /// The size of its archive in bytes.
    pub size: u64,
}

impl DebRecord {
    /// The record of a package of the index.
    pub fn of(package: &Package) -> Self {
        Self {
            package: package.name.clone(),
            version: package.version.clone(),
            sha256: package.deb.digest,
            size: package.deb.size,
        }
    }
}

/// The digest of everything in this program that decides what is made.
pub fn recipes_digest() -> Digest {
    let tables = (
        recipes::FORMAT,
        recipes::EPOCH,
        recipes::CHANNEL,
        recipes::BASE,
        (recipes::BASE_LEAVES_OUT, recipes::CONDA_LEAVES_OUT, recipes::TORCH_PROGRAMS, recipes::TORCH_KEEPS),
    );
    Digest::of(serde_json::json!(tables).to_string().as_bytes())
}

impl Record {
    /// The record in `out`, if all that it speaks of is there and was made by these recipes.
    pub fn of_complete(out: &Path) -> Option<Self> {
        let record: Self = serde_json::from_slice(&std::fs::read(out.join(FILE_NAME)).ok()?).ok()?;
        let has_size =
            |path: &Path, size: u64| path.metadata().is_ok_and(|found| found.is_file() && found.len() == size);
        let channel = out.join("channel");
        let mut packages = record.channel.packages.iter();
        let complete = record.recipes == recipes_digest()
            && channel::digest(&channel).ok() == Some(record.channel.digest)
            && packages.all(|package| has_size(&channel.join(&package.subdir).join(&package.file_name), package.size))
            && has_size(&out.join("base.oci.tar"), record.base.size);
        complete.then_some(record)
    }

    /// Writes the record: last, so that it stands only beside what it speaks of.
    pub fn write(&self, out: &Path) -> Result<(), PublishError> {
        publish::write(&out.join(FILE_NAME), format!("{:#}\n", serde_json::json!(self)).as_bytes(), 0o644)
    }

    /// Removes archives of the channel that the record does not speak of: of an older index.
    pub fn remove_others(&self, out: &Path) {
        for subdir in channel::SUBDIRS {
            let Ok(entries) = out.join("channel").join(subdir).read_dir() else { continue };
            for entry in entries.flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let mut packages = self.channel.packages.iter();
                let known = packages.any(|package| package.subdir == subdir && package.file_name == name);
                if name.ends_with(".conda") && !known {
                    // A file that stays is not in the index, so nobody will ask for it.
                    let _ = std::fs::remove_file(entry.path());
                }
            }
        }
    }
}
