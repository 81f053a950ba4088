//! A conda channel made on the spot.

use std::collections::BTreeMap;
use std::io::{Cursor, Write};
use std::path::Path;

use pixi_image::model::Digest;
use serde_json::{Value, json};

use crate::web::{Answer, Web};

/// A channel: what its `repodata.json` files say, and an archive with one file for each package.
#[derive(Clone, Default)]
pub struct Channel {
    subdirs: BTreeMap<String, BTreeMap<String, Value>>,
    archives: BTreeMap<String, Vec<u8>>,
}

impl Channel {
    /// Adds `name-version-build` that needs `depends`.
    pub fn package(self, subdir: &str, identity: &str, depends: &[&str]) -> Self {
        self.package_with(subdir, identity, depends, json!({}))
    }

    /// The same, with more of what `repodata.json` may say.
    pub fn package_with(mut self, subdir: &str, identity: &str, depends: &[&str], more: Value) -> Self {
        let mut parts = identity.rsplitn(3, '-');
        let (build, version, name) = (parts.next().unwrap(), parts.next().unwrap(), parts.next().unwrap());
        let mut record = json!({
            "name": name, "version": version, "build": build, "build_number": 0, "subdir": subdir, "depends": depends,
            "timestamp": 1_700_000_000_000_u64,
        });
        if subdir == "noarch" {
            record["noarch"] = json!("python");
        }
        for (key, value) in more.as_object().unwrap() {
            record[key] = value.clone();
        }
        let bytes = archive(&record, identity);
        record["sha256"] = json!(Digest::of(&bytes).hex());
        record["size"] = json!(bytes.len());
        let file = format!("{identity}.conda");
        self.archives.insert(format!("{subdir}/{file}"), bytes);
        self.subdirs.entry(subdir.to_owned()).or_default().insert(file, record);
        self
    }

    /// With something else said about a package.
    pub fn with(mut self, path: &str, key: &str, value: Value) -> Self {
        let (subdir, file) = path.split_once('/').unwrap();
        self.subdirs.get_mut(subdir).unwrap().get_mut(file).unwrap()[key] = value;
        self
    }

    /// With other bytes of an archive than its name would have.
    pub fn with_bytes(mut self, path: &str, bytes: &[u8]) -> Self {
        self = self.with(path, "sha256", json!(Digest::of(bytes).hex())).with(path, "size", json!(bytes.len()));
        self.archives.insert(path.to_owned(), bytes.to_vec());
        self
    }

    /// Serves it below `/channel/`.
    pub fn serve(&self, web: &Web) {
        self.serve_at(web, "/channel");
    }

    /// Serves it below a path.
    pub fn serve_at(&self, web: &Web, root: &str) {
        self.serve_as(web, root, |answer| answer);
    }

    /// The same, with each answer changed.
    pub fn serve_as(&self, web: &Web, root: &str, change: impl Fn(Answer) -> Answer) {
        for (path, bytes) in self.files() {
            web.set(&format!("{root}/{path}"), vec![change(Answer::Bytes(bytes))]);
        }
    }

    /// Writes it into a directory.
    pub fn write(&self, directory: &Path) {
        for (path, bytes) in self.files() {
            let place = directory.join(path);
            std::fs::create_dir_all(place.parent().unwrap()).unwrap();
            std::fs::write(place, bytes).unwrap();
        }
    }

    /// All files, by their path within the channel.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let subdirs = self.subdirs.keys().map(String::as_str).chain(["noarch"]);
        let repodata = subdirs.map(|subdir| (format!("{subdir}/repodata.json"), self.repodata(subdir)));
        repodata.chain(self.archives.clone()).collect()
    }

    pub fn repodata(&self, subdir: &str) -> Vec<u8> {
        let none = BTreeMap::new();
        let packages = self.subdirs.get(subdir).unwrap_or(&none);
        json!({"info": {"subdir": subdir}, "packages": {}, "packages.conda": packages, "repodata_version": 1})
            .to_string()
            .into_bytes()
    }

    /// The same as shards: an index of them for each subdir, and one for each name (CEP 16).
    pub fn shards(&self) -> BTreeMap<String, Vec<u8>> {
        let pack = |value: &Value| zstd::encode_all(rmp_serde::to_vec_named(value).unwrap().as_slice(), 1).unwrap();
        let mut files = BTreeMap::new();
        let empty = ("noarch".to_owned(), BTreeMap::new());
        for (subdir, packages) in [empty].into_iter().chain(self.subdirs.clone()) {
            let mut by_name: BTreeMap<String, serde_json::Map<String, Value>> = BTreeMap::new();
            for (file, record) in packages {
                by_name.entry(record["name"].as_str().unwrap().to_owned()).or_default().insert(file, record);
            }
            let mut index = serde_json::Map::new();
            for (name, packages) in by_name {
                let shard = pack(&json!({"packages": {}, "packages.conda": packages}));
                let digest = Digest::of(&shard).hex();
                index.insert(name, json!(digest));
                files.insert(format!("{subdir}/shards/{digest}.msgpack.zst"), shard);
            }
            let info = json!({"subdir": subdir, "base_url": "./", "shards_base_url": "./shards/"});
            files
                .insert(format!("{subdir}/repodata_shards.msgpack.zst"), pack(&json!({"info": info, "shards": index})));
        }
        files
    }

    /// The packages that the exercise needs.
    pub fn exercise() -> Self {
        let mut channel = Self::default()
            .package("noarch", "typing-extensions-4.0-pyhd_0", &["python >=3.9"])
            .package("noarch", "cuda-version-12.9-h_0", &[])
            .package("noarch", "cuda-version-13.0-h_0", &[]);
        for subdir in ["linux-64", "osx-arm64", "win-64"] {
            channel = channel
                .package(subdir, "python-3.12.1-0_cpython", &[])
                .package(subdir, "python-3.13.1-0_cpython", &[])
                .package(subdir, "pytorch-2.8.0-cpu_1", &["python >=3.12,<3.13.0a0", "typing-extensions"])
                .package(subdir, "pytorch-2.7.0-cpu_1", &["python >=3.12,<3.13.0a0", "typing-extensions"])
                .package(subdir, "pytorch-cpu-2.8.0-cpu_1", &["pytorch 2.8.0 cpu*"]);
        }
        for subdir in ["linux-64", "win-64"] {
            channel = channel
                .package(
                    subdir,
                    "pytorch-2.8.0-cuda129_1",
                    &["python >=3.12,<3.13.0a0", "__cuda", "cuda-version >=12,<13"],
                )
                .package(
                    subdir,
                    "pytorch-2.8.0-cuda130_1",
                    &["python >=3.12,<3.13.0a0", "__cuda >=13", "cuda-version >=13"],
                )
                .package(subdir, "pytorch-gpu-2.8.0-cuda129_1", &["pytorch 2.8.0 cuda129*"])
                .package(subdir, "pytorch-gpu-2.8.0-cuda130_1", &["pytorch 2.8.0 cuda130*"]);
        }
        channel
    }
}

/// The manifest of the exercise with a channel at `url`.
pub fn exercise(url: &str) -> String {
    format!(
        r#"[workspace]
channels = ["{url}"]
name = "cuda-exercise"
platforms = ["linux-64", "osx-arm64", "win-64"]
version = "0.1.0"

[tasks]

[dependencies]

[feature.cpu.dependencies]
pytorch-cpu = ">=2.8.0,<3"

[feature.gpu.system-requirements]
cuda = "12"

[feature.gpu.target.linux-64.dependencies]
pytorch-gpu = ">=2.8.0,<3"

[feature.gpu.target.win-64.dependencies]
pytorch-gpu = ">=2.8.0,<3"

[environments]
cpu = ["cpu"]
gpu = ["gpu"]
"#
    )
}

/// A `.conda` archive with one file.
fn archive(record: &Value, identity: &str) -> Vec<u8> {
    let (path, content) = (format!("share/{identity}"), identity.as_bytes());
    let paths = json!({"paths_version": 1, "paths": [{
        "_path": path, "path_type": "hardlink", "sha256": Digest::of(content).hex(), "size_in_bytes": content.len(),
    }]});
    let link = json!({"noarch": {"type": "python"}, "package_metadata_version": 1});
    let mut info = vec![("info/index.json", record.to_string()), ("info/paths.json", paths.to_string())];
    if record["noarch"] == "python" {
        info.push(("info/link.json", link.to_string()));
    }
    let info: Vec<_> = info.iter().map(|(path, text)| (*path, text.as_bytes())).collect();
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    // The same bytes whenever it is made.
    let options = zip::write::SimpleFileOptions::default()
        .compression_method(zip::CompressionMethod::Stored)
        .last_modified_time(zip::DateTime::default());
    zip.start_file("metadata.json", options).unwrap();
    zip.write_all(br#"{"conda_pkg_format_version": 2}"#).unwrap();
    for (part, files) in [("pkg", vec![(path.as_str(), content)]), ("info", info)] {
        zip.start_file(format!("{part}-{identity}.tar.zst"), options).unwrap();
        zip.write_all(&zstd::encode_all(tar(&files).as_slice(), 1).unwrap()).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_mtime(1_700_000_000);
        tar.append_data(&mut header, path, *content).unwrap();
    }
    tar.into_inner().unwrap()
}
