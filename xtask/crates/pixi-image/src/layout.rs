//! Reading images from OCI layouts: a directory, or a tar archive of one (OCI image-spec, image-layout.md).

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest, MediaType};

use crate::model::Digest;

/// A manifest or configuration larger than this is refused as hostile, in bytes.
const JSON_LIMIT: u64 = 4 << 20;
/// How deep image indexes may nest.
const INDEX_DEPTH: usize = 4;
/// The annotations that name an image, the fuller one first.
const NAMES: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

/// Why an image cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// The file or a part of it cannot be read.
    #[error("cannot read {path}: {source}{}", read_hint(.source))]
    Read {
        /// The archive or file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is neither an OCI layout nor an archive of one.
    #[error(
        "{path} is not an OCI image: {reason}\n  hint: name an OCI archive (`skopeo copy ... oci-archive:FILE`), \
         an OCI layout directory, or an image of this tool"
    )]
    NotAnImage {
        /// The archive or directory.
        path: PathBuf,
        /// What is missing or wrong.
        reason: String,
    },
    /// A blob is missing, or not what its digest says.
    #[error("{path}: the blob {digest} {reason}\n  hint: the file is damaged or incomplete; make or copy it again")]
    Blob {
        /// The archive or directory.
        path: PathBuf,
        /// The digest by which the blob was asked for.
        digest: Digest,
        /// What is wrong with it.
        reason: String,
    },
    /// No manifest is for the wanted architecture.
    #[error(
        "{path} holds no image for linux/{architecture}; it holds {available}\n  hint: choose a platform of the lock that \
         fits with --platform, or another base image"
    )]
    NoPlatform {
        /// The archive or directory.
        path: PathBuf,
        /// The wanted architecture in Go's terms.
        architecture: String,
        /// What it holds instead.
        available: String,
    },
}

fn read_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "\n  hint: name an OCI archive or layout that is there",
        io::ErrorKind::PermissionDenied => "\n  hint: make it readable (chmod u+r)",
        _ => "\n  hint: the file is damaged or incomplete; make or copy it again",
    }
}

/// An OCI layout that is open for reading.
pub struct ImageSource {
    path: PathBuf,
    /// Where each file of an archive lies; none for a directory.
    members: Option<HashMap<String, (u64, u64)>>,
}

/// One image of a layout: its manifest and configuration.
pub struct Image {
    /// The digest of the manifest.
    pub digest: Digest,
    /// The manifest: the descriptors of configuration and layers.
    pub manifest: ImageManifest,
    /// The configuration: environment, entrypoint, diff ids.
    pub config: ImageConfiguration,
}

/// An image in an archive of `docker save` before Docker 25, which is no OCI layout.
pub struct DockerImage {
    /// The digest of the configuration, by which Docker knows the image.
    pub id: Digest,
    /// The size of the configuration in bytes.
    pub config_size: u64,
    /// The configuration: environment, entrypoint, diff ids.
    pub config: ImageConfiguration,
    /// `name:tag`.
    pub names: Vec<String>,
    /// The sizes of the layers' tars in bytes, from the lowest on. One that stands in the archive already has none.
    pub layers: Vec<u64>,
}

/// What `manifest.json` of such an archive says of an image.
#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerManifest {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// The first image of an archive of `docker save`; none where it is something else.
pub fn docker_archive(path: &Path) -> Result<Option<DockerImage>, LayoutError> {
    let source = ImageSource { path: path.to_owned(), members: Some(index_archive(path)?) };
    if !source.has("manifest.json") || source.has("index.json") {
        return Ok(None);
    }
    let manifests: Vec<DockerManifest> = source.parse("manifest.json", &source.small("manifest.json")?)?;
    let manifest = manifests.into_iter().next().ok_or_else(|| source.not_an_image("manifest.json names no image"))?;
    let bytes = source.small(&manifest.config)?;
    let config: ImageConfiguration = source.parse(&manifest.config, &bytes)?;
    source.check_counts(manifest.layers.len(), &config)?;
    let size =
        |name: &String| source.members.as_ref().and_then(|members| members.get(name)).map_or(0, |(_, size)| *size);
    Ok(Some(DockerImage {
        id: Digest::of(&bytes),
        config_size: bytes.len() as u64,
        layers: manifest.layers.iter().map(size).collect(),
        names: manifest.repo_tags.unwrap_or_default(),
        config,
    }))
}

impl ImageSource {
    /// Opens a layout directory, or a tar archive of one. The archive is indexed, not unpacked.
    pub fn open(path: &Path) -> Result<Self, LayoutError> {
        let members = if path.is_dir() { None } else { Some(index_archive(path)?) };
        let source = Self { path: path.to_owned(), members };
        if !source.has("index.json") {
            return Err(source.not_an_image("it has no index.json"));
        }
        Ok(source)
    }

    /// The image for linux on `architecture` (Go's name, for example `amd64`); indexes are followed.
    pub fn image(&self, architecture: &str) -> Result<Image, LayoutError> {
        let index: ImageIndex = self.parse("index.json", &self.small("index.json")?)?;
        let mut available = Vec::new();
        let image = self.find(&index, Some(architecture), INDEX_DEPTH, &mut available)?;
        image.ok_or_else(|| LayoutError::NoPlatform {
            path: self.path.clone(),
            architecture: architecture.to_owned(),
            available: if available.is_empty() { "no image".into() } else { available.join(", ") },
        })
    }

    /// The first image, whatever it is for.
    pub fn first_image(&self) -> Result<Image, LayoutError> {
        let index: ImageIndex = self.parse("index.json", &self.small("index.json")?)?;
        let image = self.find(&index, None, INDEX_DEPTH, &mut Vec::new())?;
        image.ok_or_else(|| self.not_an_image("its index names no image"))
    }

    /// What its images are called: tags, or full names.
    pub fn names(&self) -> Result<Vec<String>, LayoutError> {
        let index: ImageIndex = self.parse("index.json", &self.small("index.json")?)?;
        let name = |descriptor: &Descriptor| {
            let annotations = descriptor.annotations().as_ref()?;
            NAMES.iter().find_map(|key| annotations.get(*key).cloned())
        };
        Ok(index.manifests().iter().filter_map(name).collect())
    }

    fn find(
        &self,
        index: &ImageIndex,
        architecture: Option<&str>,
        depth: usize,
        available: &mut Vec<String>,
    ) -> Result<Option<Image>, LayoutError> {
        for descriptor in index.manifests() {
            let digest = self.digest_of(descriptor)?;
            match descriptor.media_type() {
                MediaType::ImageIndex if depth > 0 => {
                    let nested: ImageIndex = self.parse(&digest.to_string(), &self.json_blob(descriptor)?)?;
                    if let Some(image) = self.find(&nested, architecture, depth - 1, available)? {
                        return Ok(Some(image));
                    }
                }
                media if *media == MediaType::ImageManifest || is_docker_manifest(media) => {
                    let bytes = self.json_blob(descriptor)?;
                    let manifest: ImageManifest = self.parse(&digest.to_string(), &bytes)?;
                    if !is_image_config(manifest.config().media_type()) {
                        continue;
                    }
                    let config: ImageConfiguration =
                        self.parse(manifest.config().digest().as_ref(), &self.json_blob(manifest.config())?)?;
                    let platform = format!("{}/{}", config.os(), config.architecture());
                    if architecture.is_none_or(|architecture| platform == format!("linux/{architecture}")) {
                        self.check_counts(manifest.layers().len(), &config)?;
                        return Ok(Some(Image { digest, manifest, config }));
                    }
                    available.push(platform);
                }
                _ => {}
            }
        }
        Ok(None)
    }

    fn check_counts(&self, layers: usize, config: &ImageConfiguration) -> Result<(), LayoutError> {
        let diff_ids = config.rootfs().diff_ids().len();
        if layers != diff_ids {
            let reason = format!("its manifest lists {layers} layers, its configuration {diff_ids} diff ids");
            return Err(self.not_an_image(&reason));
        }
        Ok(())
    }

    /// The raw bytes of a blob: verified while they are read, with an error at the end when they are not what they should be.
    pub fn blob(&self, descriptor: &Descriptor) -> Result<impl Read + use<>, LayoutError> {
        let digest = self.digest_of(descriptor)?;
        let (reader, size) =
            self.open_member(&format!("blobs/sha256/{}", digest.hex())).map_err(|error| match error {
                LayoutError::NotAnImage { .. } => {
                    LayoutError::Blob { path: self.path.clone(), digest, reason: "is missing".into() }
                }
                error => error,
            })?;
        if size != descriptor.size() {
            let reason = format!("has {size} bytes, expected {}", descriptor.size());
            return Err(LayoutError::Blob { path: self.path.clone(), digest, reason });
        }
        Ok(Verified::new(reader, digest, size))
    }

    /// The tar stream of a layer, decompressed. Its digest is checked at the very end: read on after the last entry.
    pub fn layer(&self, descriptor: &Descriptor) -> Result<Box<dyn Read>, LayoutError> {
        let blob = BufReader::with_capacity(1 << 17, self.blob(descriptor)?);
        let media_type = descriptor.media_type().to_string();
        match media_type.as_str() {
            "application/vnd.oci.image.layer.v1.tar" | "application/vnd.docker.image.rootfs.diff.tar" => {
                Ok(Box::new(blob))
            }
            kind if kind.ends_with("gzip") => Ok(Box::new(flate2::bufread::MultiGzDecoder::new(blob))),
            kind if kind.ends_with("zstd") => {
                let decoder = zstd::Decoder::with_buffer(blob).map_err(|source| self.read_error(source))?;
                Ok(Box::new(decoder))
            }
            other => Err(self.not_an_image(&format!("the layer {} has the unknown type {other}", descriptor.digest()))),
        }
    }

    /// The sha256 digest of a descriptor; other algorithms are refused.
    pub fn digest_of(&self, descriptor: &Descriptor) -> Result<Digest, LayoutError> {
        let text = descriptor.digest().to_string();
        text.parse().map_err(|error| self.not_an_image(&format!("{error}")))
    }

    fn json_blob(&self, descriptor: &Descriptor) -> Result<Vec<u8>, LayoutError> {
        if descriptor.size() > JSON_LIMIT {
            let reason = format!("{} of {} bytes is too large for JSON", descriptor.digest(), descriptor.size());
            return Err(self.not_an_image(&reason));
        }
        let mut bytes = Vec::new();
        self.blob(descriptor)?.read_to_end(&mut bytes).map_err(|source| self.read_error(source))?;
        Ok(bytes)
    }

    fn small(&self, name: &str) -> Result<Vec<u8>, LayoutError> {
        let (reader, size) = self.open_member(name)?;
        if size > JSON_LIMIT {
            return Err(self.not_an_image(&format!("{name} of {size} bytes is too large for JSON")));
        }
        let mut bytes = Vec::new();
        reader.take(JSON_LIMIT).read_to_end(&mut bytes).map_err(|source| self.read_error(source))?;
        Ok(bytes)
    }

    fn parse<T: serde::de::DeserializeOwned>(&self, what: &str, bytes: &[u8]) -> Result<T, LayoutError> {
        serde_json::from_slice(bytes).map_err(|error| self.not_an_image(&format!("{what}: {error}")))
    }

    fn has(&self, name: &str) -> bool {
        match &self.members {
            Some(members) => members.contains_key(name),
            None => self.path.join(name).is_file(),
        }
    }

    fn open_member(&self, name: &str) -> Result<(io::Take<File>, u64), LayoutError> {
        let (path, offset, size) = match &self.members {
            Some(members) => {
                let (offset, size) = members.get(name).ok_or_else(|| self.not_an_image(&format!("no {name}")))?;
                (self.path.clone(), *offset, Some(*size))
            }
            None => (self.path.join(name), 0, None),
        };
        let fail = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => self.not_an_image(&format!("no {name}")),
            _ => LayoutError::Read { path: path.clone(), source },
        };
        let mut file = File::open(&path).map_err(fail)?;
        let size = match size {
            Some(size) => size,
            None => file.metadata().map_err(fail)?.len(),
        };
        file.seek(SeekFrom::Start(offset)).map_err(fail)?;
        Ok((file.take(size), size))
    }

    fn read_error(&self, source: io::Error) -> LayoutError {
        LayoutError::Read { path: self.path.clone(), source }
    }

    fn not_an_image(&self, reason: &str) -> LayoutError {
        LayoutError::NotAnImage { path: self.path.clone(), reason: reason.to_owned() }
    }
}

/// Where each regular file of a tar archive begins and how long it is.
fn index_archive(path: &Path) -> Result<HashMap<String, (u64, u64)>, LayoutError> {
    let fail = |source| LayoutError::Read { path: path.to_owned(), source };
    let bad = |reason: String| LayoutError::NotAnImage {
        path: path.to_owned(),
        // The reader quotes what it met instead of a header, which may be anything.
        reason: format!("it is no tar file: {}", reason.lines().next().unwrap_or_default()),
    };
    let file = File::open(path).map_err(fail)?;
    let length = file.metadata().map_err(fail)?.len();
    let mut archive = tar::Archive::new(BufReader::new(file));
    let mut members = HashMap::new();
    for entry in archive.entries_with_seek().map_err(|error| bad(error.to_string()))? {
        let entry = entry.map_err(|error| bad(error.to_string()))?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let (start, size) = (entry.raw_file_position(), entry.size());
        if start.checked_add(size).is_none_or(|end| end > length) {
            return Err(bad("it is cut short".into()));
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").to_owned();
        members.insert(name, (start, size));
    }
    Ok(members)
}

fn is_docker_manifest(media: &MediaType) -> bool {
    media.as_ref() == "application/vnd.docker.distribution.manifest.v2+json"
}

fn is_image_config(media: &MediaType) -> bool {
    *media == MediaType::ImageConfig || media.as_ref() == "application/vnd.docker.container.image.v1+json"
}

/// A reader that fails at its end when the bytes were not what their digest says: nobody can forget the check.
pub struct Verified<R> {
    inner: R,
    hasher: Option<sha2::Sha256>,
    expected: Digest,
    left: u64,
}

impl<R: Read> Verified<R> {
    /// Reads exactly `size` bytes with the digest `expected` from `inner`.
    pub fn new(inner: R, expected: Digest, size: u64) -> Self {
        use sha2::Digest as _;
        Self { inner, hasher: Some(sha2::Sha256::new()), expected, left: size }
    }
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        use sha2::Digest as _;
        if buffer.is_empty() {
            return Ok(0);
        }
        let read = self.inner.read(buffer)?;
        let bad = |reason: String| Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        let Some(hasher) = &mut self.hasher else { return Ok(0) };
        hasher.update(&buffer[..read]);
        self.left = match self.left.checked_sub(read as u64) {
            Some(left) => left,
            None => return bad(format!("{} is longer than it should be", self.expected)),
        };
        if read == 0 || self.left == 0 {
            let got = Digest(self.hasher.take().map(|h| h.finalize().into()).unwrap_or_default());
            if self.left > 0 {
                return bad(format!("{} is cut short by {} bytes", self.expected, self.left));
            }
            if got != self.expected {
                return bad(format!("expected {}, got {got}: the bytes are damaged", self.expected));
            }
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_not_what_their_digest_says_end_in_an_error() {
        let right = Digest::of(b"hello");
        let read = |bytes: &[u8], size| Verified::new(bytes, right, size).read_to_end(&mut Vec::new());
        assert!(read(b"hello", 5).is_ok());
        assert!(read(b"hellO", 5).unwrap_err().to_string().contains("damaged"));
        assert!(read(b"hell", 5).unwrap_err().to_string().contains("cut short"));
        assert!(read(b"hello", 4).is_err());
        assert!(Verified::new(&b""[..], Digest::of(b""), 0).read_to_end(&mut Vec::new()).is_ok());
    }

    #[test]
    fn what_is_no_image_is_said_to_be_none() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.tar");
        std::fs::write(&file, vec![7; 2048]).unwrap();
        for path in [dir.path(), &file] {
            let error = ImageSource::open(path).err().unwrap().to_string();
            assert!(error.contains("is not an OCI image") && error.contains("hint"), "{error}");
        }
    }
}
