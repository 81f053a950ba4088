//! Wheels made on the spot.

use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pixi_image::model::{Digest, Wheel};
use sha2::Digest as _;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

/// A member of the archive.
#[derive(Clone)]
pub struct File {
    pub path: String,
    pub content: Vec<u8>,
    pub mode: u32,
    /// Its line in RECORD, if it has one.
    pub line: Option<String>,
}

impl File {
    pub fn new(path: &str, content: impl Into<Vec<u8>>) -> Self {
        let content = content.into();
        let line = format!("{path},{},{}", checksum(&content), content.len());
        Self { path: path.to_owned(), line: Some(line), content, mode: 0o644 }
    }

    pub fn executable(self) -> Self {
        Self { mode: 0o755, ..self }
    }

    /// With another line in RECORD, or none.
    pub fn line(self, line: Option<&str>) -> Self {
        Self { line: line.map(str::to_owned), ..self }
    }
}

pub fn checksum(content: &[u8]) -> String {
    format!("sha256={}", URL_SAFE_NO_PAD.encode(sha2::Sha256::digest(content)))
}

/// A wheel to make.
#[derive(Clone)]
pub struct MadeWheel {
    /// As the file name has it.
    pub name: String,
    pub version: String,
    pub tags: String,
    pub files: Vec<File>,
    /// Directories that the archive names.
    pub directories: Vec<String>,
    pub metadata: String,
    pub wheel: String,
    pub pure: bool,
}

impl MadeWheel {
    pub fn new(name: &str, files: impl Into<Vec<File>>) -> Self {
        Self {
            name: name.to_owned(),
            version: "1.2.3".to_owned(),
            tags: "py3-none-any".to_owned(),
            files: files.into(),
            directories: Vec::new(),
            metadata: format!("Metadata-Version: 2.1\nName: {name}\nVersion: 1.2.3\n\nText: more\n"),
            wheel: "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n".to_owned(),
            pure: true,
        }
    }

    pub fn tags(self, tags: &str) -> Self {
        let wheel = format!("Wheel-Version: 1.0\nRoot-Is-Purelib: false\nTag: {tags}\n");
        Self { tags: tags.to_owned(), wheel, pure: false, ..self }
    }

    pub fn entry_points(mut self, text: &str) -> Self {
        self.files.push(File::new(&self.metadata_path("entry_points.txt"), text));
        self
    }

    pub fn file_name(&self) -> String {
        format!("{}-{}-{}.whl", self.name, self.version, self.tags)
    }

    pub fn metadata_path(&self, file: &str) -> String {
        format!("{}-{}.dist-info/{file}", self.name, self.version)
    }

    /// Everything in the archive, RECORD last.
    pub fn members(&self) -> Vec<File> {
        let mut files = self.files.clone();
        files.push(File::new(&self.metadata_path("METADATA"), self.metadata.as_bytes()));
        files.push(File::new(&self.metadata_path("WHEEL"), self.wheel.as_bytes()));
        let record = self.metadata_path("RECORD");
        let lines = files.iter().filter_map(|file| file.line.clone()).chain([format!("{record},,")]);
        let lines: Vec<_> = lines.collect();
        files.push(File::new(&record, lines.join("\n") + "\n"));
        files
    }

    pub fn bytes(&self) -> Vec<u8> {
        archive(&self.members(), &self.directories)
    }

    /// Writes it into `directory`.
    pub fn write(&self, directory: &Path) -> PathBuf {
        let path = directory.join(self.file_name());
        std::fs::write(&path, self.bytes()).unwrap();
        path
    }

    /// As a lock would describe it.
    pub fn locked(&self, url: &str) -> Wheel {
        Wheel {
            name: pixi_image::source::wheel::normalized_name(&self.name),
            version: self.version.clone(),
            file_name: self.file_name(),
            url: url.parse().unwrap(),
            index: None,
            direct: false,
            sha256: Digest::of(&self.bytes()),
        }
    }
}

/// A zip archive; small files are stored, others deflated.
pub fn archive(files: &[File], directories: &[String]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let time = DateTime::from_date_and_time(2023, 4, 5, 6, 7, 8).unwrap();
    let options = SimpleFileOptions::default().last_modified_time(time);
    for directory in directories {
        zip.add_directory(directory.as_str(), options).unwrap();
    }
    for file in files {
        let method = if file.content.len() < 40 { CompressionMethod::Stored } else { CompressionMethod::Deflated };
        zip.start_file(file.path.as_str(), options.compression_method(method).unix_permissions(file.mode)).unwrap();
        zip.write_all(&file.content).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// A lock with wheels added to its environment: for each where it is, its name, its version and its digest.
pub fn lock_with(lock: &str, wheels: &[(String, &str, &str, Digest)]) -> String {
    let row = "      linux-64:\n";
    let rows: String = wheels.iter().map(|(url, ..)| format!("      - pypi: {url}\n")).collect();
    assert_eq!(lock.matches(row).count(), 1, "{lock}");
    let told = |(url, name, version, sha256): &(String, &str, &str, Digest)| {
        format!("- pypi: {url}\n  name: {name}\n  version: '{version}'\n  sha256: {}\n", sha256.hex())
    };
    lock.replace(row, &format!("{row}{rows}")) + &wheels.iter().map(told).collect::<String>()
}
