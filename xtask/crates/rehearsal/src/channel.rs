//! The channel on the disk: packages, `repodata.json` and its compressed twin in each subdir.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use pixi_image::model::Digest;
use pixi_image::publish::{self, Pending, PublishError};
use serde_json::{Value, json};

use crate::conda::{CondaWriter, Sums};
use crate::deb::DebError;
use crate::index::Index;
use crate::recipes::{CHANNEL, EPOCH, FORMAT, Kind, Recipe, Version};
use crate::record::{DebRecord, PackageRecord};
use crate::repack;

/// The subdirs that a client asks for.
pub const SUBDIRS: [&str; 2] = ["linux-64", "noarch"];

/// Why the channel could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// A file of it cannot be written.
    #[error(transparent)]
    Write(#[from] PublishError),
    /// A .deb cannot be read.
    #[error(transparent)]
    Deb(#[from] DebError),
    /// The channel that is there cannot be read.
    #[error("{path} is not a rehearsal channel: {source}\n  hint: make one with `rehearsal make --out DIR`")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A package of the channel: what its recipe and the index of Debian say, before anything is read.
pub struct Planned {
    /// Where it comes from.
    pub recipe: &'static Recipe,
    /// Its version.
    pub version: String,
    /// Its build string, which changes whenever one of its .deb files does.
    pub build: String,
    depends: Vec<String>,
}

/// Plans every package of the channel.
pub fn plan(index: &Index) -> Vec<Planned> {
    let versions: BTreeMap<&str, String> = CHANNEL.iter().map(|recipe| (recipe.name, version(recipe, index))).collect();
    CHANNEL
        .iter()
        .map(|recipe| {
            let depends = recipe.depends.iter().map(|dependency| {
                let name = dependency.split(' ').next().unwrap_or_default();
                dependency.replace('@', versions.get(name).map_or("", String::as_str))
            });
            Planned {
                recipe,
                version: versions[recipe.name].clone(),
                build: build(recipe, index),
                depends: depends.collect(),
            }
        })
        .collect()
}

fn version(recipe: &Recipe, index: &Index) -> String {
    match recipe.version {
        Version::Fixed(version) => version.to_owned(),
        Version::Of(deb) => index.get(deb).map_or("0", |package| package.upstream_version()).to_owned(),
    }
}

/// Two archives that differ must never share name, version and build: clients cache by them.
fn build(recipe: &Recipe, index: &Index) -> String {
    let debs = recipe.debs.iter().filter_map(|name| index.get(name)).map(|package| package.deb.digest.hex());
    let inputs = debs.fold(format!("{FORMAT} {}", json!(recipe)), |text, hex| text + "\n" + &hex);
    format!("deb13_h{}_0", &Digest::of(inputs.as_bytes()).hex()[..7])
}

impl Planned {
    /// The subdir in which it stands.
    pub fn subdir(&self) -> &'static str {
        if self.recipe.kind == Kind::Platform { SUBDIRS[0] } else { SUBDIRS[1] }
    }

    fn identity(&self) -> String {
        format!("{}-{}-{}", self.recipe.name, self.version, self.build)
    }

    fn index_json(&self) -> Value {
        let mut index = json!({
            "name": self.recipe.name,
            "version": self.version,
            "build": self.build,
            "build_number": 0,
            "depends": self.depends,
            "constrains": self.recipe.constrains,
            "license": "LicenseRef-Debian-main",
            "subdir": self.subdir(),
            "timestamp": u64::from(EPOCH) * 1000,
        });
        match self.recipe.kind {
            Kind::Platform => (index["arch"], index["platform"]) = (json!("x86_64"), json!("linux")),
            Kind::NoarchPython(_) => index["noarch"] = json!("python"),
            Kind::NoarchGeneric => index["noarch"] = json!("generic"),
        }
        index
    }

    /// Reads its .deb files and writes its archive below the channel's directory.
    pub fn write(
        &self,
        channel: &Path,
        debs: &[(&str, PathBuf)],
        index: &Index,
    ) -> Result<PackageRecord, ChannelError> {
        let file_name = format!("{}.conda", self.identity());
        let place = channel.join(self.subdir()).join(&file_name);
        let mut pending = Pending::create(&place)?;
        let file = pending.file().try_clone().map_err(|source| pending.error(source))?;
        let mut writer = CondaWriter::new(file, &self.identity()).map_err(|source| pending.error(source))?;
        repack::files(self.recipe, debs, &mut writer)?;
        let sources: Vec<Value> =
            debs.iter().filter_map(|(name, _)| index.get(name)).map(|package| json!(DebRecord::of(package))).collect();
        let about = json!({ "summary": "Made of Debian's packages by rehearsal", "extra": { "debian": sources } });
        let mut info = vec![("about.json", about), ("index.json", self.index_json())];
        if let Kind::NoarchPython(scripts) = self.recipe.kind {
            let mut noarch = json!({ "type": "python" });
            if !scripts.is_empty() {
                noarch["entry_points"] = json!(scripts);
            }
            info.push(("link.json", json!({ "noarch": noarch, "package_metadata_version": 1 })));
        }
        let sums = writer.finish(&info).map_err(|source| pending.error(source))?;
        pending.publish(0o644)?;
        Ok(self.record(file_name, &sums))
    }

    fn record(&self, file_name: String, sums: &Sums) -> PackageRecord {
        let mut repodata = self.index_json();
        repodata["sha256"] = json!(sums.sha256.hex());
        repodata["md5"] = json!(sums.md5.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        repodata["size"] = json!(sums.size);
        PackageRecord { subdir: self.subdir().to_owned(), file_name, sha256: sums.sha256, size: sums.size, repodata }
    }
}

/// Writes the index of each subdir and returns the digest of the channel.
pub fn write_repodata(channel: &Path, packages: &[PackageRecord]) -> Result<Digest, ChannelError> {
    for subdir in SUBDIRS {
        let records: BTreeMap<&str, &Value> = packages
            .iter()
            .filter(|package| package.subdir == subdir)
            .map(|package| (package.file_name.as_str(), &package.repodata))
            .collect();
        let repodata = json!({
            "info": { "subdir": subdir },
            "packages": {},
            "packages.conda": records,
            "removed": [],
            "repodata_version": 1,
        });
        let place = channel.join(subdir).join("repodata.json");
        let text = format!("{repodata:#}\n");
        publish::write(&place, text.as_bytes(), 0o644)?;
        let compressed_place = channel.join(subdir).join("repodata.json.zst");
        let compressed = zstd::encode_all(text.as_bytes(), 19);
        let compressed = compressed.map_err(|source| PublishError { path: compressed_place.clone(), source })?;
        publish::write(&compressed_place, &compressed, 0o644)?;
    }
    digest(channel)
}

/// The digest of the channel in a directory: of its indexes, which hold the digests of all packages.
pub fn digest(channel: &Path) -> Result<Digest, ChannelError> {
    let mut text = String::new();
    for subdir in SUBDIRS {
        let path = channel.join(subdir).join("repodata.json");
        let bytes = std::fs::read(&path).map_err(|source| ChannelError::Read { path, source })?;
        text += &format!("{} {subdir}\n", Digest::of(&bytes));
    }
    Ok(Digest::of(text.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repodata_lists_each_package_in_its_subdir_and_gives_the_channel_its_digest() {
        let dir = tempfile::tempdir().unwrap();
        let package = |subdir: &str, name: &str| PackageRecord {
            subdir: subdir.to_owned(),
            file_name: format!("{name}-1-0.conda"),
            sha256: Digest::of(b""),
            size: 1,
            repodata: json!({ "name": name }),
        };
        let packages = [package("linux-64", "b"), package("noarch", "a")];
        let first = write_repodata(dir.path(), &packages).unwrap();
        let text = std::fs::read(dir.path().join("noarch/repodata.json")).unwrap();
        let repodata: Value = serde_json::from_slice(&text).unwrap();
        assert_eq!(repodata["packages.conda"], json!({ "a-1-0.conda": { "name": "a" } }));
        let compressed = std::fs::read(dir.path().join("noarch/repodata.json.zst")).unwrap();
        assert_eq!(zstd::decode_all(&compressed[..]).unwrap(), text);
        assert_eq!(digest(dir.path()).unwrap(), first);
        assert_ne!(write_repodata(dir.path(), &packages[..1]).unwrap(), first);
    }

    #[test]
    fn a_directory_without_a_channel_is_named_with_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let message = digest(dir.path()).unwrap_err().to_string();
        assert!(message.contains("linux-64") && message.contains("rehearsal make"), "{message}");
    }
}
