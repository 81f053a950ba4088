//! Small images made of the host's programs, as OCI layouts and as SIFs.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::Command;

use backhand::compression::Compressor;
use backhand::{FilesystemCompressor, FilesystemWriter, NodeHeader};
use pixi_image::model::Digest;
use pixi_image::sif::{SifArchitecture, SifSpec, prefix};
use serde_json::json;

/// Programs that the tests use, found on the host.
const PROGRAMS: [&str; 14] =
    ["sh", "bash", "cat", "id", "env", "sleep", "ls", "touch", "rm", "mkdir", "printf", "readlink", "setsid", "kill"];

/// The root file system of an image: programs of the host, the libraries that they need, and files of a test.
#[derive(Clone)]
pub struct Tree {
    files: BTreeMap<String, (Vec<u8>, u32)>,
}

impl Tree {
    /// Nothing at all.
    #[allow(dead_code)] // the readers' tests begin with it
    pub fn empty() -> Self {
        Self { files: BTreeMap::new() }
    }

    /// The programs and what they need.
    pub fn with_programs() -> Self {
        let mut tree = Self { files: BTreeMap::new() };
        for program in PROGRAMS {
            let Some(path) =
                ["/usr/bin", "/bin"].map(|bin| Path::new(bin).join(program)).into_iter().find(|p| p.exists())
            else {
                panic!("these tests need {program}")
            };
            tree = tree.libraries_of(&path);
            tree.files.insert(format!("bin/{program}"), (std::fs::read(path).unwrap(), 0o755));
        }
        tree
    }

    /// Adds the libraries that a program of the host needs.
    pub fn libraries_of(mut self, program: &Path) -> Self {
        for library in libraries(program) {
            let content = std::fs::read(&library).unwrap();
            self.files.insert(library.trim_start_matches('/').to_owned(), (content, 0o755));
        }
        self
    }

    /// Adds a file.
    pub fn file(mut self, path: &str, content: &str, mode: u32) -> Self {
        self.files.insert(path.to_owned(), (content.as_bytes().to_vec(), mode));
        self
    }

    /// The tree as the tar stream of a layer.
    pub fn layer(&self) -> Vec<u8> {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, (content, mode)) in &self.files {
            append(&mut tar, path, content, *mode);
        }
        tar.into_inner().unwrap()
    }

    /// Writes an OCI layout whose configuration has `config`.
    pub fn oci(&self, directory: &Path, config: serde_json::Value) -> PathBuf {
        layout(directory, &[self.layer()], config)
    }

    /// Writes a SIF; the squashfs is made by a library that is not ours.
    pub fn sif(&self, path: &Path) -> PathBuf {
        let mut writer = FilesystemWriter::default();
        writer.set_compressor(FilesystemCompressor::new(Compressor::Gzip, None).unwrap());
        writer.set_root_mode(0o755);
        let header = |mode: u32| NodeHeader { permissions: mode as u16, uid: 0, gid: 0, mtime: 1_600_000_000 };
        for (name, (content, mode)) in &self.files {
            let parent = Path::new(name).parent().unwrap();
            writer.push_dir_all(parent, header(0o755)).unwrap();
            writer.push_file(Cursor::new(content.clone()), name, header(*mode)).unwrap();
        }
        let mut squashfs = Cursor::new(Vec::new());
        writer.write(&mut squashfs).unwrap();
        let squashfs = squashfs.into_inner();
        let spec = SifSpec {
            architecture: SifArchitecture::from_oci(architecture()).unwrap(),
            created: 1_600_000_000,
            definition: b"",
            inspect_metadata: b"{}",
            content_id: Digest::of(&squashfs).0,
            squashfs_size: squashfs.len() as u64,
        };
        std::fs::write(path, [prefix(&spec).unwrap(), squashfs].concat()).unwrap();
        path.to_owned()
    }
}

/// Adds a file to a tar stream under exactly this name, however hostile.
pub fn append(tar: &mut tar::Builder<Vec<u8>>, path: &str, content: &[u8], mode: u32) {
    let mut header = tar::Header::new_gnu();
    header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    header.set_mtime(1_600_000_000);
    header.set_cksum();
    tar.append(&header, content).unwrap();
}

/// Writes an OCI layout of uncompressed layers.
pub fn layout(directory: &Path, layers: &[Vec<u8>], config: serde_json::Value) -> PathBuf {
    let blobs = directory.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let blob = |media_type: &str, bytes: &[u8]| {
        let digest = Digest::of(bytes);
        std::fs::write(blobs.join(digest.hex()), bytes).unwrap();
        json!({"mediaType": media_type, "digest": digest.to_string(), "size": bytes.len()})
    };
    let described: Vec<_> = layers.iter().map(|layer| blob("application/vnd.oci.image.layer.v1.tar", layer)).collect();
    let diff_ids: Vec<_> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
    let config = json!({"architecture": architecture(), "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": diff_ids}});
    let config = blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
    let media_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": described});
    let manifest = blob(media_type, manifest.to_string().as_bytes());
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    std::fs::write(directory.join("index.json"), index.to_string()).unwrap();
    std::fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    directory.to_owned()
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The shared libraries of a program and its loader, as `ldd` lists them.
fn libraries(program: &Path) -> Vec<String> {
    let output = Command::new("ldd").arg(program).output().expect("these tests need ldd");
    let text = String::from_utf8(output.stdout).unwrap();
    let words = text.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    words.map(str::to_owned).collect()
}
