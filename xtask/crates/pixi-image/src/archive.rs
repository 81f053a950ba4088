//! The OCI archive: one tar that is both an OCI layout (image-spec, image-layout.md) and a docker archive.
//!
//! Docker before 25 loads no plain OCI layout, and podman, skopeo and Apptainer read either, so `manifest.json` of the
//! docker format points at the blobs of the layout.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::num::NonZeroUsize;
use std::path::Path;

use oci_spec::image::{
    Arch, ConfigBuilder, Descriptor, DescriptorBuilder, History, HistoryBuilder, ImageConfiguration,
    ImageConfigurationBuilder, ImageIndexBuilder, ImageManifestBuilder, MediaType, Os, PlatformBuilder, RootFsBuilder,
};
use serde::Serialize;

use crate::entry::EntrySink;
use crate::hashed::Hashed;
use crate::model::Digest;
use crate::pack::{Compressors, CopyError, PackError, PackFile, PackIndex, PackWriter, TAR_END, Targets, write_layer};
use crate::progress::{Progress, Reported, Silent};
use crate::publish::{Complete, PageCache, Pending, PublishError, Steady};

/// Why an archive could not be written. Nothing is left where it would have stood.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The archive cannot be written.
    #[error(transparent)]
    Write(#[from] PublishError),
    /// A pack that goes into it cannot be read or made.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// Something of the image cannot be expressed in OCI's terms.
    #[error("cannot describe the image: {0}")]
    Describe(String),
    /// The bytes for a blob could not be had.
    #[error("{0}")]
    Source(io::Error),
}

/// One layer as the manifest and the configuration speak of it.
#[derive(Clone, Debug)]
pub struct Layer {
    /// Media type, digest and size of the compressed blob.
    pub descriptor: Descriptor,
    /// The digest of its uncompressed tar, as the configuration writes it.
    pub diff_id: String,
    /// What stands in the history.
    pub history: History,
}

/// An archive that is whole, and not published yet.
pub struct CompleteArchive {
    /// The digest of the manifest.
    pub digest: Digest,
    /// The length of the archive in bytes.
    pub size: u64,
    /// The archive.
    pub file: Complete,
}

/// A layer that was begun, by where it stands in the archive.
pub struct BegunLayer {
    start: u64,
}

/// An archive that is being written. It appears when [`ArchiveWriter::finish`] has named its image.
pub struct ArchiveWriter {
    pending: Pending,
    out: BufWriter<Steady>,
    position: u64,
    blobs: BTreeSet<Digest>,
}

impl ArchiveWriter {
    /// Begins an archive that will stand at `place`.
    pub fn create(place: &Path) -> Result<Self, ArchiveError> {
        let mut pending = Pending::create(place)?;
        let out = BufWriter::with_capacity(1 << 20, pending.writer(PageCache::Goes)?);
        let mut archive = Self { pending, out, position: 0, blobs: BTreeSet::new() };
        // Apptainer unpacks the archive member by member and makes no parents.
        for directory in ["blobs/", "blobs/sha256/"] {
            archive.write(member_header(directory, tar::EntryType::Directory, 0)?.as_bytes())?;
        }
        Ok(archive)
    }

    /// Adds a blob whose digest and size come out while `write` streams it.
    pub fn blob(
        &mut self,
        write: impl FnOnce(&mut dyn Write) -> Result<(), CopyError>,
    ) -> Result<(Digest, u64), ArchiveError> {
        let start = self.position;
        self.write(&[0; 512])?;
        let mut hashed = Hashed::new(&mut self.out);
        let written = write(&mut hashed);
        let blob = hashed.finish();
        written.map_err(|error| self.copy_error(error))?;
        self.position += blob.1;
        self.end_blob(start, blob)?;
        Ok(blob)
    }

    /// Begins a layer with what arrives, until nothing more does; none if nothing arrives.
    pub fn begin_layer(
        &mut self,
        arriving: impl IntoIterator<Item = Vec<u8>>,
        progress: &dyn Progress,
    ) -> Result<Option<BegunLayer>, ArchiveError> {
        let start = self.position;
        for piece in arriving {
            if self.position == start {
                self.write(&[0; 512])?;
            }
            self.write(&piece)?;
            progress.written(piece.len() as u64);
        }
        Ok((self.position > start).then_some(BegunLayer { start }))
    }

    /// Ends the layer that was begun, which is `blob` if what arrived is all of it: its sender vouches for the bytes. If not,
    /// the layer is taken back, and there is no blob.
    pub fn end_layer(
        &mut self,
        BegunLayer { start }: BegunLayer,
        blob: Option<(Digest, u64)>,
    ) -> Result<Option<(Digest, u64)>, ArchiveError> {
        let whole = blob.filter(|(_, size)| self.position - start - 512 == *size);
        match whole {
            Some(blob) => self.end_blob(start, blob)?,
            None => self.rewind(start)?,
        }
        Ok(whole)
    }

    /// Fills in the header of a blob that is written, or takes the blob back if it is there already.
    fn end_blob(&mut self, start: u64, (digest, size): (Digest, u64)) -> Result<(), ArchiveError> {
        let written = self.position - start - 512;
        if written != size {
            return Err(wrong_size(digest, written, size));
        }
        if !self.blobs.insert(digest) {
            return self.rewind(start);
        }
        self.pad(size)?;
        self.header_at(start, &blob_name(digest), size)
    }

    /// Adds a blob whose digest and size in bytes are known; `write` vouches that these are its bytes.
    pub fn known_blob(
        &mut self,
        (digest, size): (Digest, u64),
        write: impl FnOnce(&mut dyn Write) -> Result<(), CopyError>,
    ) -> Result<(), ArchiveError> {
        if !self.blobs.insert(digest) {
            return Ok(());
        }
        self.write(member_header(&blob_name(digest), tar::EntryType::Regular, size)?.as_bytes())?;
        write(&mut self.out).map_err(|error| self.copy_error(error))?;
        self.position += size;
        let end = self.out.stream_position();
        match end.map_err(|source| self.pending.error(source))? {
            end if end == self.position => self.pad(size),
            end => Err(wrong_size(digest, end + size - self.position, size)),
        }
    }

    /// Adds the layer that holds `packs`, and returns the digest and the size of its blob.
    pub fn layer(&mut self, packs: &[&PackFile], progress: &dyn Progress) -> Result<(Digest, u64), ArchiveError> {
        let write = |out: &mut dyn Write| write_layer(packs, &mut Reported::new(out, progress));
        match packs {
            [PackFile { index: PackIndex { blob: Some(blob), .. }, .. }] => {
                self.known_blob(*blob, write)?;
                Ok(*blob)
            }
            _ => self.blob(write),
        }
    }

    fn copy_error(&self, error: CopyError) -> ArchiveError {
        match error {
            CopyError::Read(error) => ArchiveError::Pack(error),
            CopyError::Source(source) => ArchiveError::Source(source),
            CopyError::Write(source) => ArchiveError::Write(self.pending.error(source)),
        }
    }

    /// Adds a blob that is in memory.
    pub fn blob_of(&mut self, bytes: &[u8]) -> Result<(Digest, u64), ArchiveError> {
        let digest = Digest::of(bytes);
        if self.blobs.insert(digest) {
            self.member(&blob_name(digest), bytes)?;
        }
        Ok((digest, bytes.len() as u64))
    }

    /// Adds configuration, manifest and the two indexes, and publishes the archive. Returns the digest of the manifest.
    ///
    /// `reference` is the image's name and tag, for example `cuda-exercise:gpu`.
    pub fn finish(self, config: ImageConfiguration, layers: &[Layer], reference: &str) -> Result<Digest, ArchiveError> {
        let whole = self.complete(config, layers, reference)?;
        whole.file.publish()?;
        Ok(whole.digest)
    }

    /// Like [`ArchiveWriter::finish`], but leaves it to the caller when the archive is published.
    pub fn complete(
        mut self,
        mut config: ImageConfiguration,
        layers: &[Layer],
        reference: &str,
    ) -> Result<CompleteArchive, ArchiveError> {
        let describe = |error: oci_spec::OciSpecError| ArchiveError::Describe(error.to_string());
        let diff_ids: Vec<_> = layers.iter().map(|layer| layer.diff_id.clone()).collect();
        config.set_rootfs(RootFsBuilder::default().typ("layers").diff_ids(diff_ids).build().map_err(describe)?);
        config.set_history(Some(layers.iter().map(|layer| layer.history.clone()).collect()));
        let mut platform = PlatformBuilder::default()
            .architecture(config.architecture().clone())
            .os(config.os().clone())
            .build()
            .map_err(describe)?;
        // As the base has it: `v8` of arm64 is what no variant means, and BuildKit leaves it out.
        platform.set_variant(config.variant().clone());

        let (config_digest, config_size) = self.blob_of(&canonical_json(&config)?)?;
        let manifest = ImageManifestBuilder::default()
            .schema_version(2u32)
            .media_type(MediaType::ImageManifest)
            .config(descriptor(MediaType::ImageConfig, config_digest, config_size)?)
            .layers(layers.iter().map(|layer| layer.descriptor.clone()).collect::<Vec<_>>())
            .build()
            .map_err(describe)?;
        let (digest, size) = self.blob_of(&canonical_json(&manifest)?)?;

        let mut entry = descriptor(MediaType::ImageManifest, digest, size)?;
        entry.set_platform(Some(platform));
        let tag = reference.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        entry.set_annotations(Some(
            [
                ("io.containerd.image.name", familiar_to_full(reference)),
                ("org.opencontainers.image.ref.name", tag.into()),
            ]
            .map(|(key, value)| (key.to_owned(), value))
            .into(),
        ));
        let index = ImageIndexBuilder::default()
            .schema_version(2u32)
            .media_type(MediaType::ImageIndex)
            .manifests(vec![entry])
            .build()
            .map_err(describe)?;
        self.member("index.json", &canonical_json(&index)?)?;
        let mut docker = BTreeMap::new();
        docker.insert("Config", serde_json::json!(blob_name(config_digest)));
        docker.insert("RepoTags", serde_json::json!([reference]));
        let paths: Vec<_> = layers.iter().map(|l| format!("blobs/sha256/{}", l.descriptor.digest().digest())).collect();
        docker.insert("Layers", serde_json::json!(paths));
        self.member("manifest.json", &canonical_json(&[docker])?)?;
        self.member("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        self.write(&TAR_END)?;
        let flushed = self.out.flush();
        flushed.map_err(|source| self.pending.error(source))?;
        Ok(CompleteArchive { digest, size: self.position, file: self.pending.complete(0o644)? })
    }

    fn member(&mut self, name: &str, content: &[u8]) -> Result<(), ArchiveError> {
        let start = self.position;
        self.write(&[0; 512])?;
        self.write(content)?;
        self.pad(content.len() as u64)?;
        self.header_at(start, name, content.len() as u64)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ArchiveError> {
        let written = self.out.write_all(bytes);
        written.map_err(|source| self.pending.error(source))?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    fn pad(&mut self, size: u64) -> Result<(), ArchiveError> {
        self.write(&[0; 512][..((512 - size % 512) % 512) as usize])
    }

    /// Fills in a header once the size and the name of its member are known.
    fn header_at(&mut self, start: u64, name: &str, size: u64) -> Result<(), ArchiveError> {
        let header = member_header(name, tar::EntryType::Regular, size)?;
        let position = self.position;
        let patched = self
            .out
            .seek(SeekFrom::Start(start))
            .and_then(|_| self.out.write_all(header.as_bytes()))
            .and_then(|()| self.out.seek(SeekFrom::Start(position)));
        patched.map_err(|source| self.pending.error(source))?;
        Ok(())
    }

    /// Takes back a blob.
    fn rewind(&mut self, start: u64) -> Result<(), ArchiveError> {
        let rewound = self.out.seek(SeekFrom::Start(start)).and_then(|_| self.pending.file().set_len(start));
        rewound.map_err(|source| self.pending.error(source))?;
        self.position = start;
        Ok(())
    }
}

/// What a base image declares.
#[derive(Clone, Debug)]
pub struct BaseConfig {
    /// `KEY=VALUE` pairs.
    pub env: Vec<String>,
    /// The command that is run when none is given.
    pub cmd: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Go's name of the architecture, for example `amd64`.
    pub architecture: String,
    /// Seconds since 1970-01-01 UTC.
    pub created: i64,
}

/// Writes an image of one layer to `place`; `fill` pushes what it holds. Returns the digest of the manifest.
pub fn single_layer(
    place: &Path,
    reference: &str,
    base: &BaseConfig,
    fill: &mut dyn FnMut(&mut dyn EntrySink) -> io::Result<()>,
) -> Result<Digest, ArchiveError> {
    let compressors = Compressors::start(std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN));
    let directory = place.parent().unwrap_or(Path::new("."));
    let pack = PackFile::temporary::<ArchiveError>(directory, |out| {
        let mut writer = PackWriter::new(out, &compressors, Targets::Both, |_| false);
        fill(&mut writer).map_err(ArchiveError::Source)?;
        let (index, mut out) = writer.finish().map_err(ArchiveError::Source)?;
        out.flush().map_err(ArchiveError::Source)?;
        Ok(index)
    })?;
    let mut archive = ArchiveWriter::create(place)?;
    let (digest, size) = archive.layer(&[&pack], &Silent)?;
    let layer = Layer {
        descriptor: descriptor(MediaType::ImageLayerGzip, digest, size)?,
        diff_id: pack.index.diff_id.map(|id| id.to_string()).unwrap_or_default(),
        history: history(base.created, reference)?,
    };
    let labels = base.labels.clone().into_iter().collect::<std::collections::HashMap<_, _>>();
    let execution = ConfigBuilder::default().env(base.env.clone()).cmd(base.cmd.clone()).labels(labels).build();
    let config = ImageConfigurationBuilder::default()
        .created(rfc3339(base.created))
        .architecture(Arch::from(base.architecture.as_str()))
        .os(Os::Linux)
        .config(execution.map_err(|error| ArchiveError::Describe(error.to_string()))?)
        .build()
        .map_err(|error| ArchiveError::Describe(error.to_string()))?;
    archive.finish(config, &[layer], reference)
}

fn wrong_size(digest: Digest, written: u64, expected: u64) -> ArchiveError {
    ArchiveError::Describe(format!("{digest} has {written} bytes, expected {expected}"))
}

/// A descriptor of a blob.
pub fn descriptor(media_type: MediaType, digest: Digest, size: u64) -> Result<Descriptor, ArchiveError> {
    let describe = |error: String| ArchiveError::Describe(error);
    let digest = oci_spec::image::Digest::try_from(digest.to_string()).map_err(|error| describe(error.to_string()))?;
    DescriptorBuilder::default()
        .media_type(media_type)
        .digest(digest)
        .size(size)
        .build()
        .map_err(|error| describe(error.to_string()))
}

/// A line of the history.
pub fn history(created: i64, by: &str) -> Result<History, ArchiveError> {
    HistoryBuilder::default()
        .created(rfc3339(created))
        .created_by(by)
        .build()
        .map_err(|error| ArchiveError::Describe(error.to_string()))
}

/// Seconds since 1970 as RFC 3339 text in UTC.
pub fn rfc3339(seconds: i64) -> String {
    let time = chrono::DateTime::from_timestamp(seconds, 0).unwrap_or_default();
    time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

/// JSON with the keys of every object sorted: oci-spec keeps labels and annotations in hash maps, whose order varies.
pub fn canonical_json(value: &impl Serialize) -> Result<Vec<u8>, ArchiveError> {
    fn sorted(value: serde_json::Value) -> serde_json::Value {
        match value {
            serde_json::Value::Object(map) => {
                let map: BTreeMap<_, _> = map.into_iter().map(|(key, value)| (key, sorted(value))).collect();
                map.into_iter().collect()
            }
            serde_json::Value::Array(list) => list.into_iter().map(sorted).collect(),
            other => other,
        }
    }
    let describe = |error: serde_json::Error| ArchiveError::Describe(error.to_string());
    serde_json::to_vec(&sorted(serde_json::to_value(value).map_err(describe)?)).map_err(describe)
}

/// `name:tag` in the full form that containerd and podman store, for example `docker.io/library/name:tag`.
fn familiar_to_full(reference: &str) -> String {
    match reference.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => reference.to_owned(),
        Some(_) => format!("docker.io/{reference}"),
        None => format!("docker.io/library/{reference}"),
    }
}

fn member_header(name: &str, kind: tar::EntryType, size: u64) -> Result<tar::Header, ArchiveError> {
    let mut header = tar::Header::new_gnu();
    header.set_path(name).map_err(|error| ArchiveError::Describe(error.to_string()))?;
    header.set_entry_type(kind);
    header.set_size(size);
    header.set_mode(if kind.is_dir() { 0o755 } else { 0o644 });
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    Ok(header)
}

fn blob_name(digest: Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::entry::{ImagePath, Mode, push_file};
    use crate::layout::ImageSource;

    fn base() -> BaseConfig {
        BaseConfig {
            env: vec!["A=b".into()],
            cmd: vec!["sh".into()],
            labels: (0..20).map(|n| (format!("l{n}"), n.to_string())).collect(),
            architecture: "amd64".into(),
            created: 1_700_000_000,
        }
    }

    #[test]
    fn an_archive_reads_back_as_the_image_that_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("base.tar");
        let mut fill =
            |sink: &mut dyn EntrySink| push_file(sink, ImagePath::new("etc/x").unwrap(), Mode::FILE, 5, b"content");
        let digest = single_layer(&place, "name:tag", &base(), &mut fill).unwrap();
        let source = ImageSource::open(&place).unwrap();
        let image = source.image("amd64").unwrap();
        assert_eq!(image.digest, digest);
        let mut tar = Vec::new();
        source.layer(&image.manifest.layers()[0]).unwrap().read_to_end(&mut tar).unwrap();
        assert_eq!(image.config.rootfs().diff_ids(), &[Digest::of(&tar).to_string()]);
        assert!(source.image("arm64").err().unwrap().to_string().contains("linux/amd64"));

        let again = dir.path().join("again.tar");
        single_layer(&again, "name:tag", &base(), &mut fill).unwrap();
        assert_eq!(std::fs::read(&place).unwrap(), std::fs::read(&again).unwrap());
    }

    #[test]
    fn a_blob_that_comes_twice_stands_once() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("a.tar");
        let mut archive = ArchiveWriter::create(&place).unwrap();
        let blob = |out: &mut dyn Write| out.write_all(&[9; 700]).map_err(CopyError::Write);
        let first = archive.blob(blob).unwrap();
        assert_eq!(archive.blob(blob).unwrap(), first);
        archive.blob_of(&[9; 700]).unwrap();
        archive.known_blob(first, |_| panic!("it is there")).unwrap();
        archive.finish(ImageConfiguration::default(), &[], "n:t").unwrap();
        let file = std::fs::File::open(&place).unwrap();
        let mut names: Vec<_> = Vec::new();
        for entry in tar::Archive::new(file).entries().unwrap() {
            names.push(entry.unwrap().path().unwrap().display().to_string());
        }
        let (all, unique) = (names.len(), names.into_iter().collect::<BTreeSet<_>>().len());
        assert_eq!((all, unique), (8, 8));
    }

    #[test]
    fn a_blob_of_another_size_than_was_said_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let known = (Digest::of(b"12345"), 5);
        for bytes in [&b"1234"[..], b"123456"] {
            let mut archive = ArchiveWriter::create(&dir.path().join("a.tar")).unwrap();
            let written = archive.known_blob(known, |out| out.write_all(bytes).map_err(CopyError::Write));
            let message = written.unwrap_err().to_string();
            assert!(message.ends_with(&format!("has {} bytes, expected 5", bytes.len())), "{message}");
        }
    }

    #[test]
    fn a_short_name_is_stored_as_containerd_stores_it() {
        assert_eq!(familiar_to_full("a:b"), "docker.io/library/a:b");
        assert_eq!(familiar_to_full("u/a:b"), "docker.io/u/a:b");
        assert_eq!(familiar_to_full("ghcr.io/u/a:b"), "ghcr.io/u/a:b");
        assert_eq!(familiar_to_full("localhost:5000/a:b"), "localhost:5000/a:b");
    }
}
