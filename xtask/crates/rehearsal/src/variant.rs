//! Another build of one package of a channel: what a build of an image meets when one package of a lock has changed.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use pixi_image::entry::{ImagePath, Mode};
use pixi_image::model::Digest;
use pixi_image::publish::Pending;
use serde_json::{Value, json};

use crate::channel::{self, ChannelError, SUBDIRS};
use crate::conda::CondaWriter;
use crate::record::PackageRecord;

/// Why there is no other build.
#[derive(Debug, thiserror::Error)]
pub enum VariantError {
    /// The channel cannot be read or written.
    #[error(transparent)]
    Channel(#[from] ChannelError),
    /// It does not have that package.
    #[error("the channel {channel} has no package {name}\n  hint: {hint}")]
    Unknown {
        /// The channel's directory.
        channel: PathBuf,
        /// The package.
        name: String,
        /// What there is.
        hint: String,
    },
    /// A file cannot be read or linked.
    #[error("cannot make another build of {package}: {source}")]
    Package {
        /// What it is about.
        package: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Makes `to` a channel that has all packages of the channel `from`, and one more: the newest build of `name` once again,
/// with a higher build number and one file that is new.
pub fn add(from: &Path, to: &Path, name: &str) -> Result<PackageRecord, VariantError> {
    let mut packages = records(from)?;
    let found = packages.iter().filter(|package| package.repodata["name"] == name);
    let Some(newest) = found.max_by_key(|package| package.repodata["build_number"].as_u64()).cloned() else {
        let names: Vec<_> = packages.iter().filter_map(|package| package.repodata["name"].as_str()).take(12).collect();
        let hint = format!("it has {} and others; those in its index may be named", names.join(", "));
        return Err(VariantError::Unknown { channel: from.to_owned(), name: name.to_owned(), hint });
    };
    for package in packages.iter().filter(|_| from != to) {
        let place = |channel: &Path| channel.join(&package.subdir).join(&package.file_name);
        let failed = |source| VariantError::Package { package: package.file_name.clone(), source };
        share(&place(from), &place(to)).map_err(failed)?;
    }
    let failed = |source| VariantError::Package { package: newest.file_name.clone(), source };
    let other = other_build(from, to, &newest).map_err(failed)?;
    packages.push(other.clone());
    packages.sort_by(|a, b| (&a.subdir, &a.file_name).cmp(&(&b.subdir, &b.file_name)));
    channel::write_repodata(to, &packages)?;
    Ok(other)
}

/// The packages of a channel as its indexes have them.
pub fn records(channel: &Path) -> Result<Vec<PackageRecord>, ChannelError> {
    let mut packages = Vec::new();
    for subdir in SUBDIRS {
        let path = channel.join(subdir).join("repodata.json");
        let read = |path: &Path| -> io::Result<Vec<PackageRecord>> {
            let index: Value = serde_json::from_slice(&std::fs::read(path)?)?;
            let entries = index["packages.conda"].as_object().into_iter().flatten();
            entries.map(|(file_name, repodata)| record(subdir, file_name, repodata)).collect()
        };
        packages.extend(read(&path).map_err(|source| ChannelError::Read { path, source })?);
    }
    Ok(packages)
}

fn record(subdir: &str, file_name: &str, repodata: &Value) -> io::Result<PackageRecord> {
    let incomplete = || io::Error::new(io::ErrorKind::InvalidData, format!("{file_name} has no sha256 or size there"));
    let sha256 = repodata["sha256"].as_str().and_then(|hex| Digest::from_hex(hex).ok()).ok_or_else(incomplete)?;
    Ok(PackageRecord {
        subdir: subdir.to_owned(),
        file_name: file_name.to_owned(),
        sha256,
        size: repodata["size"].as_u64().ok_or_else(incomplete)?,
        repodata: repodata.clone(),
    })
}

/// One file at two places, where the file system can do it.
fn share(from: &Path, to: &Path) -> io::Result<()> {
    std::fs::create_dir_all(to.parent().unwrap_or(to))?;
    match std::fs::remove_file(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    if std::fs::hard_link(from, to).is_err() {
        std::fs::copy(from, to)?;
    }
    Ok(())
}

/// The build string that follows: `h0_1` for `h0_0`.
fn next_build(build: &str) -> String {
    match build.rsplit_once('_').and_then(|(start, number)| Some((start, number.parse::<u64>().ok()?))) {
        Some((start, number)) => format!("{start}_{}", number + 1),
        None => format!("{build}_1"),
    }
}

fn other_build(from: &Path, to: &Path, package: &PackageRecord) -> io::Result<PackageRecord> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (name, version) = (text(&package.repodata["name"]), text(&package.repodata["version"]));
    let build = next_build(&text(&package.repodata["build"]));
    let number = package.repodata["build_number"].as_u64().unwrap_or(0) + 1;
    let changed = |mut index: Value| {
        (index["build"], index["build_number"]) = (json!(build), json!(number));
        index
    };
    let identity = format!("{name}-{version}-{build}");
    let file_name = format!("{identity}.conda");
    let place = to.join(&package.subdir).join(&file_name);
    let archive = from.join(&package.subdir).join(&package.file_name);
    let info = read_info(&archive)?;
    let mut pending = Pending::create(&place).map_err(io::Error::other)?;
    let mut writer = CondaWriter::new(pending.file().try_clone()?, &identity)?;
    copy_files(&archive, &info, &mut writer)?;
    let note = format!("This build of {name} differs from the one before it by this file.\n");
    let path = ImagePath::new(format!("share/{name}/another-build.txt")).map_err(io::Error::other)?;
    writer.file(&path, Mode::FILE, note.len() as u64, &mut note.as_bytes())?;
    let kept = info.iter().filter(|(name, _)| !["files", "paths.json"].contains(&name.as_str()));
    let mut members: Vec<(&str, Value)> = Vec::new();
    for (name, bytes) in kept {
        let value: Value = serde_json::from_slice(bytes)?;
        members.push((name, if name == "index.json" { changed(value) } else { value }));
    }
    let sums = writer.finish(&members)?;
    pending.publish(0o644).map_err(io::Error::other)?;
    let mut repodata = changed(package.repodata.clone());
    repodata["sha256"] = json!(sums.sha256.hex());
    repodata["md5"] = json!(sums.md5.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    repodata["size"] = json!(sums.size);
    Ok(PackageRecord { subdir: package.subdir.clone(), file_name, sha256: sums.sha256, size: sums.size, repodata })
}

/// The tar stream of one part of an archive that this crate wrote.
fn with_part<T>(
    archive: &Path,
    part: &str,
    read: impl FnOnce(&mut tar::Archive<Box<dyn Read + '_>>) -> io::Result<T>,
) -> io::Result<T> {
    let mut zip = zip::ZipArchive::new(File::open(archive)?).map_err(io::Error::other)?;
    for index in 0..zip.len() {
        let member = zip.by_index(index).map_err(io::Error::other)?;
        if member.name().map_err(io::Error::other)?.starts_with(part) {
            let decoder: Box<dyn Read + '_> = Box::new(zstd::Decoder::new(member)?);
            return read(&mut tar::Archive::new(decoder));
        }
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, format!("{} has no part {part}", archive.display())))
}

/// The files of `info/` by name.
fn read_info(archive: &Path) -> io::Result<Vec<(String, Vec<u8>)>> {
    with_part(archive, "info-", |tar| {
        let mut members = Vec::new();
        for entry in tar.entries()? {
            let mut entry = entry?;
            let name = entry.path()?.display().to_string();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            members.push((name.trim_start_matches("info/").to_owned(), bytes));
        }
        Ok(members)
    })
}

fn copy_files(archive: &Path, info: &[(String, Vec<u8>)], writer: &mut CondaWriter) -> io::Result<()> {
    let paths = info.iter().find(|(name, _)| name == "paths.json").map_or(&b"{}"[..], |(_, bytes)| bytes);
    let paths: Value = serde_json::from_slice(paths)?;
    let modes: Vec<(&str, &str)> = paths["paths"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|path| Some((path["_path"].as_str()?, path["file_mode"].as_str()?)))
        .collect();
    with_part(archive, "pkg-", |tar| {
        for entry in tar.entries()? {
            let mut entry = entry?;
            let path = ImagePath::new(entry.path_bytes()).map_err(io::Error::other)?;
            let target = entry.link_name_bytes().map(|target| target.into_owned());
            match target {
                Some(target) if entry.header().entry_type().is_symlink() => writer.symlink(&path, &target)?,
                Some(_) => return Err(io::Error::other(format!("{path} is a hard link, which is not known here"))),
                None => {
                    let (mode, size) = (Mode::normalized(entry.header().mode()?), entry.size());
                    writer.file(&path, mode, size, &mut entry)?;
                    let binary = modes.iter().find(|(of, _)| of.as_bytes() == path.as_bytes());
                    binary.into_iter().for_each(|(_, mode)| writer.holds_placeholder(&path, *mode == "binary"));
                }
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conda::placeholder;

    #[test]
    fn the_next_build_counts_on() {
        assert_eq!([next_build("h0_0"), next_build("py313_h7_302"), next_build("x")], ["h0_1", "py313_h7_303", "x_1"]);
    }

    #[test]
    fn another_build_has_the_same_files_and_one_more() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        let place = from.join("linux-64/demo-1-h0_0.conda");
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        let file = File::options().read(true).write(true).create_new(true).open(&place).unwrap();
        let mut writer = CondaWriter::new(file, "demo-1-h0_0").unwrap();
        let path = |text: &str| ImagePath::new(text).unwrap();
        writer.text_with_prefix(&path("bin/x"), Mode::EXECUTABLE, placeholder().as_bytes()).unwrap();
        writer.symlink(&path("bin/y"), b"x").unwrap();
        let index = json!({ "name": "demo", "version": "1", "build": "h0_0", "build_number": 0 });
        let sums = writer.finish(&[("index.json", index.clone())]).unwrap();
        let mut repodata = index;
        (repodata["sha256"], repodata["size"]) = (json!(sums.sha256.hex()), json!(sums.size));
        let package = record("linux-64", "demo-1-h0_0.conda", &repodata).unwrap();
        channel::write_repodata(&from, &[package]).unwrap();

        let other = add(&from, &to, "demo").unwrap();
        assert_eq!(other.file_name, "demo-1-h0_1.conda");
        let names: Vec<_> = records(&to).unwrap().into_iter().map(|package| package.file_name).collect();
        assert_eq!(names, ["demo-1-h0_0.conda", "demo-1-h0_1.conda"]);
        let info = read_info(&to.join("linux-64/demo-1-h0_1.conda")).unwrap();
        let member = |name: &str| -> Value {
            serde_json::from_slice(&info.iter().find(|(member, _)| member == name).unwrap().1).unwrap()
        };
        assert_eq!(member("index.json")["build_number"], 1);
        let paths = member("paths.json");
        assert_eq!(paths["paths"][0]["file_mode"], "text");
        assert_eq!(paths["paths"][1]["path_type"], "softlink");
        assert_eq!(paths["paths"][2]["_path"], "share/demo/another-build.txt");
        let message = add(&from, &to, "other").unwrap_err().to_string();
        assert!(message.contains("no package other") && message.contains("demo"), "{message}");
    }
}
