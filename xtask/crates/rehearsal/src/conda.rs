//! Writing a `.conda` archive (conda package format 2): a zip of stored members, a marker and the two tar.zst parts.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use md5::Md5;
use pixi_image::entry::{ImagePath, Mode};
use pixi_image::model::Digest;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use zip::write::SimpleFileOptions;

use crate::recipes::EPOCH;

/// The level that conda-forge's tools call fast; the archives only travel over loopback.
const ZSTD_LEVEL: i32 = 3;

/// Stands in texts for the place where the package will be installed. As long as conda-build's, so that installers meet
/// the same case: a first line `#!` that is too long for the kernel until it is replaced.
pub fn placeholder() -> String {
    let mut text = String::from("/opt/rehearsal");
    while text.len() < 255 {
        text.push_str("_placehold");
    }
    text.truncate(255);
    text
}

/// An archive of the channel: what repodata says of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sums {
    /// Its sha256.
    pub sha256: Digest,
    /// Its md5, which clients without sha256 compare.
    pub md5: [u8; 16],
    /// Its size in bytes.
    pub size: u64,
}

#[derive(Serialize)]
struct PathRecord {
    _path: String,
    path_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size_in_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_mode: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix_placeholder: Option<String>,
}

type Part = tar::Builder<zstd::Encoder<'static, zip::ZipWriter<File>>>;

/// A package whose files are being written. Its index is written last, as it holds their digests.
pub struct CondaWriter {
    part: Part,
    identity: String,
    paths: BTreeMap<String, PathRecord>,
}

impl CondaWriter {
    /// Begins a package into an empty file; `identity` is `name-version-build`.
    pub fn new(file: File, identity: &str) -> io::Result<Self> {
        let mut zip = zip::ZipWriter::new(file);
        zip.start_file("metadata.json", options()).map_err(io::Error::other)?;
        zip.write_all(b"{\"conda_pkg_format_version\": 2}")?;
        let part = begin_part(zip, &format!("pkg-{identity}.tar.zst"))?;
        Ok(Self { part, identity: identity.to_owned(), paths: BTreeMap::new() })
    }

    /// Adds a file of `size` bytes.
    pub fn file(&mut self, path: &ImagePath, mode: Mode, size: u64, content: &mut dyn Read) -> io::Result<()> {
        let mut hashed = Hashed { inner: content.take(size), hasher: Sha256::new(), size: 0 };
        append(&mut self.part, path, Mode::normalized(u32::from(mode.0)), size, &mut hashed)?;
        if hashed.size != size {
            return Err(io::Error::other(format!("{path} ends after {} of {size} bytes", hashed.size)));
        }
        let sha256 = Digest(hashed.hasher.finalize().into()).hex();
        self.record(path, "hardlink", |record| {
            record.sha256 = Some(sha256);
            record.size_in_bytes = Some(size);
        })
    }

    /// Adds a text in which installers replace [`placeholder`].
    pub fn text_with_prefix(&mut self, path: &ImagePath, mode: Mode, mut text: &[u8]) -> io::Result<()> {
        self.file(path, mode, text.len() as u64, &mut text)?;
        self.holds_placeholder(path, false);
        Ok(())
    }

    /// Says of a file that was added that installers replace [`placeholder`] in it, as in a text or as in a binary.
    pub fn holds_placeholder(&mut self, path: &ImagePath, binary: bool) {
        if let Some(record) = self.paths.get_mut(path.lossy().as_ref()) {
            record.file_mode = Some(if binary { "binary" } else { "text" });
            record.prefix_placeholder = Some(placeholder());
        }
    }

    /// Adds a symbolic link.
    pub fn symlink(&mut self, path: &ImagePath, target: &[u8]) -> io::Result<()> {
        let mut header = header(tar::EntryType::Symlink, Mode::SYMLINK, 0);
        let target = std::str::from_utf8(target).map_err(|_| io::Error::other(format!("{path} has an odd target")))?;
        self.part.append_link(&mut header, path.lossy().as_ref(), target)?;
        self.record(path, "softlink", |_| {})
    }

    fn record(&mut self, path: &ImagePath, kind: &'static str, fill: impl FnOnce(&mut PathRecord)) -> io::Result<()> {
        let text =
            std::str::from_utf8(path.as_bytes()).map_err(|_| io::Error::other(format!("{path} is not UTF-8")))?;
        let mut record = PathRecord {
            _path: text.to_owned(),
            path_type: kind,
            sha256: None,
            size_in_bytes: None,
            file_mode: None,
            prefix_placeholder: None,
        };
        fill(&mut record);
        match self.paths.insert(text.to_owned(), record) {
            None => Ok(()),
            Some(_) => Err(io::Error::other(format!("{path} comes twice in one package"))),
        }
    }

    /// Writes the part `info` and returns the whole file's sums. `info` is the JSON files beside `paths.json`, by name.
    pub fn finish(self, info: &[(&str, serde_json::Value)]) -> io::Result<Sums> {
        let zip = end_part(self.part)?;
        let mut part = begin_part(zip, &format!("info-{}.tar.zst", self.identity))?;
        let records: Vec<&PathRecord> = self.paths.values().collect();
        let paths = serde_json::json!({ "paths": records, "paths_version": 1 });
        let files: String = self.paths.keys().map(|path| format!("{path}\n")).collect();
        let mut members: Vec<(&str, Vec<u8>)> = vec![("files", files.into_bytes()), ("paths.json", json(&paths)?)];
        for (name, value) in info {
            members.push((*name, json(value)?));
        }
        members.sort();
        for (name, content) in members {
            let path = ImagePath::new(format!("info/{name}")).map_err(io::Error::other)?;
            append(&mut part, &path, Mode::FILE, content.len() as u64, &mut content.as_slice())?;
        }
        sums(end_part(part)?.finish().map_err(io::Error::other)?)
    }
}

fn begin_part(mut zip: zip::ZipWriter<File>, name: &str) -> io::Result<Part> {
    zip.start_file(name, options()).map_err(io::Error::other)?;
    Ok(tar::Builder::new(zstd::Encoder::new(zip, ZSTD_LEVEL)?))
}

fn end_part(part: Part) -> io::Result<zip::ZipWriter<File>> {
    part.into_inner()?.finish()
}

/// Everything that a zip member could take from the machine is fixed here.
fn options() -> SimpleFileOptions {
    SimpleFileOptions::default()
        .compression_method(zip::CompressionMethod::Stored)
        .last_modified_time(zip::DateTime::default())
        .unix_permissions(0o644)
}

fn header(kind: tar::EntryType, mode: Mode, size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(u32::from(mode.0));
    header.set_mtime(u64::from(EPOCH));
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header
}

fn append(part: &mut Part, path: &ImagePath, mode: Mode, size: u64, content: &mut dyn Read) -> io::Result<()> {
    let path = std::str::from_utf8(path.as_bytes()).map_err(io::Error::other)?;
    part.append_data(&mut header(tar::EntryType::Regular, mode, size), path, content)
}

fn json(value: &serde_json::Value) -> io::Result<Vec<u8>> {
    let mut bytes = serde_json::to_vec_pretty(value).map_err(io::Error::other)?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn sums(mut file: File) -> io::Result<Sums> {
    file.seek(SeekFrom::Start(0))?;
    let (mut sha256, mut md5, mut size) = (Sha256::new(), Md5::new(), 0);
    let mut buffer = vec![0; 256 << 10];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        sha256.update(&buffer[..count]);
        md5.update(&buffer[..count]);
        size += count as u64;
    }
    Ok(Sums { sha256: Digest(sha256.finalize().into()), md5: md5.finalize().into(), size })
}

/// Hashes what passes through.
struct Hashed<R> {
    inner: R,
    hasher: Sha256,
    size: u64,
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        self.size += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> ImagePath {
        ImagePath::new(text).unwrap()
    }

    fn write(file: &std::path::Path) -> Sums {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(file).unwrap();
        let mut writer = CondaWriter::new(file, "demo-1.0-0").unwrap();
        writer.file(&path("lib/b"), Mode(0o6644), 2, &mut &b"b\n"[..]).unwrap();
        writer.file(&path(&format!("lib/{}", "long/".repeat(40))), Mode(0o750), 0, &mut io::empty()).unwrap();
        writer.symlink(&path("lib/a"), b"b").unwrap();
        let script = format!("#!{}/bin/python\n", placeholder());
        writer.text_with_prefix(&path("bin/x"), Mode::EXECUTABLE, script.as_bytes()).unwrap();
        writer.finish(&[("index.json", serde_json::json!({ "name": "demo" }))]).unwrap()
    }

    #[test]
    fn the_same_package_has_the_same_bytes_and_the_sums_are_those_of_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("1.conda"), dir.path().join("2.conda"));
        let sums = write(&one);
        assert_eq!(sums, write(&two));
        let bytes = std::fs::read(&one).unwrap();
        assert_eq!(bytes, std::fs::read(&two).unwrap());
        assert_eq!((sums.sha256, sums.size), (Digest::of(&bytes), bytes.len() as u64));
    }

    #[test]
    fn the_parts_hold_normalized_files_and_their_records() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("demo.conda");
        write(&file);
        let mut zip = zip::ZipArchive::new(File::open(&file).unwrap()).unwrap();
        let names: Vec<String> = zip.file_names().map(|name| name.unwrap().into_owned()).collect();
        assert_eq!(names, ["metadata.json", "pkg-demo-1.0-0.tar.zst", "info-demo-1.0-0.tar.zst"]);
        let mut unpacked = Vec::new();
        for name in &names[1..] {
            let part = zip.by_name(name).unwrap();
            assert_eq!(part.compression(), zip::CompressionMethod::Stored);
            let mut archive = tar::Archive::new(zstd::Decoder::new(part).unwrap());
            for entry in archive.entries().unwrap() {
                let mut entry = entry.unwrap();
                let mut content = String::new();
                entry.read_to_string(&mut content).unwrap();
                assert_eq!((entry.header().uid().unwrap(), entry.header().mtime().unwrap()), (0, u64::from(EPOCH)));
                let mode = entry.header().mode().unwrap();
                unpacked.push((entry.path().unwrap().display().to_string(), mode, content));
            }
        }
        let modes: Vec<u32> = unpacked.iter().map(|(_, mode, _)| *mode).collect();
        assert_eq!(modes, [0o644, 0o755, 0o777, 0o755, 0o644, 0o644, 0o644]);
        let (name, _, paths) = unpacked.last().unwrap();
        assert_eq!(name, "info/paths.json");
        let paths: serde_json::Value = serde_json::from_str(paths).unwrap();
        assert_eq!(paths["paths"][0]["prefix_placeholder"], placeholder());
        assert_eq!(paths["paths"][0]["file_mode"], "text");
        assert_eq!(paths["paths"][1]["path_type"], "softlink");
        assert_eq!(paths["paths"][2]["sha256"], Digest::of(b"b\n").hex());
        assert_eq!(paths["paths"][2]["size_in_bytes"], 2);
    }

    #[test]
    fn a_path_that_comes_twice_and_a_file_that_is_too_short_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let file = || File::create(dir.path().join("x.conda")).unwrap();
        let mut writer = CondaWriter::new(file(), "demo-1.0-0").unwrap();
        writer.symlink(&path("lib/a"), b"b").unwrap();
        assert!(writer.symlink(&path("lib/a"), b"c").unwrap_err().to_string().contains("twice"));
        let mut writer = CondaWriter::new(file(), "demo-1.0-0").unwrap();
        assert!(writer.file(&path("lib/a"), Mode::FILE, 9, &mut &b"short"[..]).is_err());
    }

    #[test]
    fn the_placeholder_is_as_long_as_conda_builds() {
        assert_eq!(placeholder().len(), 255);
        assert!(placeholder().starts_with("/opt/rehearsal_placehold"));
    }
}
