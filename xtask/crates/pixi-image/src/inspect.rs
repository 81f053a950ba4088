//! What an image file is made of: read from what it says of itself, in either format, with nothing unpacked.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use oci_spec::image::{Descriptor, History, ImageConfiguration};
use serde::Serialize;

use crate::hashed;
use crate::layers;
use crate::layout::{self, DockerImage, Image, ImageSource, LayoutError};
use crate::model::Digest;
use crate::sif::{self, SifArchitecture, SifError};

/// The metadata of a SIF may be that large, in bytes.
const METADATA_LIMIT: u64 = 4 << 20;

/// What an image file holds.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Inspection {
    /// An OCI archive, or an OCI layout directory.
    Oci(Box<Oci>),
    /// A SIF.
    Sif(Sif),
}

/// An OCI image.
#[derive(Debug, Serialize)]
pub struct Oci {
    /// The archive or directory.
    pub path: PathBuf,
    /// The size of the archive; of a directory, what its image needs of it.
    pub bytes: u64,
    /// The digest of the manifest; none in an archive of `docker save` before Docker 25.
    pub digest: Option<Digest>,
    /// The media type of the manifest, where it says it.
    pub media_type: Option<String>,
    /// The configuration.
    pub config: Blob,
    /// For example `linux/amd64`.
    pub platform: String,
    /// When it was made, as it says.
    pub created: Option<String>,
    /// What the images of the file are called.
    pub names: Vec<String>,
    /// From the lowest to the highest.
    pub layers: Vec<Layer>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// `NAME=VALUE` pairs.
    pub env: Vec<String>,
    /// What every command passes through.
    pub entrypoint: Vec<String>,
    /// The command when none is given.
    pub cmd: Vec<String>,
    /// The directory where commands start.
    pub working_directory: Option<String>,
    /// As whom.
    pub user: Option<String>,
}

/// A blob of an OCI image.
#[derive(Debug, Serialize)]
pub struct Blob {
    /// Its digest.
    pub digest: String,
    /// Its size.
    pub bytes: u64,
    /// What it is.
    pub media_type: String,
}

/// A layer of an OCI image.
#[derive(Debug, Serialize)]
pub struct Layer {
    /// The compressed blob.
    #[serde(flatten)]
    pub blob: Blob,
    /// The digest of its uncompressed tar.
    pub diff_id: String,
    /// `gzip`, `zstd` or `none`.
    pub compression: &'static str,
    /// What made it, as the history has it.
    pub created_by: Option<String>,
    /// The packages in it; none of a layer that holds something else.
    pub packages: Vec<String>,
}

/// A SIF.
#[derive(Debug, Serialize)]
pub struct Sif {
    /// The file.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// The digest of the file.
    pub digest: Digest,
    /// The processor of the primary partition, for example `amd64`.
    pub architecture: String,
    /// How the primary partition is compressed; none where it is no squashfs.
    pub compression: Option<&'static str>,
    /// The size of a block of it before it is compressed.
    pub block_bytes: Option<u32>,
    /// In file order.
    pub objects: Vec<Object>,
    /// Labels, as the metadata has them.
    pub labels: BTreeMap<String, String>,
    /// How many signatures it has. Whether they hold, `apptainer verify` says.
    pub signatures: usize,
}

/// An object of a SIF.
#[derive(Debug, Serialize)]
pub struct Object {
    /// Its number in the file.
    pub id: u32,
    /// What it is.
    pub what: String,
    /// Its name, often empty.
    pub name: String,
    /// Where it lies in the file.
    pub offset: u64,
    /// Its size.
    pub bytes: u64,
    /// Of a partition: its sort of file system.
    pub file_system: Option<&'static str>,
    /// Of a partition: its role.
    pub role: Option<&'static str>,
}

/// Why a file cannot be inspected.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// It is neither format, or a damaged OCI image.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// It is a damaged SIF.
    #[error("{path}: {source}")]
    Sif {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: SifError,
    },
    /// The metadata of a SIF is not what it should be.
    #[error("{path}: the metadata of the SIF is damaged: {reason}\n  hint: build or download it again")]
    Metadata {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// It cannot be read.
    #[error("cannot read {path}: {source}\n  hint: name an OCI archive or layout, or a SIF")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Reads what an OCI archive, an OCI layout directory or a SIF is made of. Of a SIF every byte is read, for its digest; of
/// an OCI image manifest and configuration, each compared with its digest.
pub fn inspect(path: &Path) -> Result<Inspection, InspectError> {
    let read = |source| InspectError::Read { path: path.to_owned(), source };
    if !path.is_dir() {
        let mut file = File::open(path).map_err(read)?;
        if !file.metadata().map_err(read)?.is_file() {
            return Err(read(io::Error::other("it is no file")));
        }
        match sif::descriptors(&mut file) {
            Err(SifError::NotSif) => {}
            Err(source) => return Err(InspectError::Sif { path: path.to_owned(), source }),
            Ok(descriptors) => return inspect_sif(path, file, &descriptors).map(Inspection::Sif),
        }
    }
    inspect_oci(path).map(|image| Inspection::Oci(Box::new(image)))
}

fn inspect_oci(path: &Path) -> Result<Oci, InspectError> {
    if !path.is_dir()
        && let Some(DockerImage { id, config_size, config, names, layers }) = layout::docker_archive(path)?
    {
        let tar = |(bytes, diff_id): (&u64, &String)| Blob {
            digest: diff_id.clone(),
            bytes: *bytes,
            media_type: "application/vnd.docker.image.rootfs.diff.tar".to_owned(),
        };
        let blobs = layers.iter().zip(config.rootfs().diff_ids()).map(tar).collect();
        let media_type = "application/vnd.docker.container.image.v1+json".to_owned();
        let about = Blob { digest: id.to_string(), bytes: config_size, media_type };
        return Ok(oci(path, None, about, blobs, &config, names));
    }
    let source = ImageSource::open(path)?;
    let Image { digest, manifest, config } = source.first_image()?;
    let blobs = manifest.layers().iter().map(blob).collect();
    let image = oci(path, Some(digest), blob(manifest.config()), blobs, &config, source.names()?);
    Ok(Oci { media_type: manifest.media_type().as_ref().map(ToString::to_string), ..image })
}

fn oci(
    path: &Path,
    digest: Option<Digest>,
    about: Blob,
    blobs: Vec<Blob>,
    config: &ImageConfiguration,
    names: Vec<String>,
) -> Oci {
    let layers = layers_of(blobs, config);
    let needed: u64 = layers.iter().map(|layer| layer.blob.bytes).fold(about.bytes, u64::saturating_add);
    let bytes = match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => metadata.len(),
        _ => needed,
    };
    let execution = config.config().clone().unwrap_or_default();
    let said = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    Oci {
        path: path.to_owned(),
        bytes,
        digest,
        media_type: None,
        config: about,
        platform: format!("{}/{}", config.os(), config.architecture()),
        created: said(config.created()),
        names,
        layers,
        labels: execution.labels().clone().unwrap_or_default().into_iter().collect(),
        env: execution.env().clone().unwrap_or_default(),
        entrypoint: execution.entrypoint().clone().unwrap_or_default(),
        cmd: execution.cmd().clone().unwrap_or_default(),
        working_directory: said(execution.working_dir()),
        user: said(execution.user()),
    }
}

fn blob(descriptor: &Descriptor) -> Blob {
    let (digest, media_type) = (descriptor.digest().to_string(), descriptor.media_type().to_string());
    Blob { digest, bytes: descriptor.size(), media_type }
}

fn layers_of(blobs: Vec<Blob>, config: &ImageConfiguration) -> Vec<Layer> {
    // The history also has lines that made no layer.
    let history: Vec<&History> = config.history().iter().flatten().collect();
    let mut made = history.into_iter().filter(|line| line.empty_layer() != Some(true));
    let layer = |(blob, diff_id): (Blob, &String)| {
        let created_by = made.next().and_then(|line| line.created_by().clone());
        let compression = match blob.media_type.as_str() {
            kind if kind.ends_with("gzip") => "gzip",
            kind if kind.ends_with("zstd") => "zstd",
            _ => "none",
        };
        let packages = layers::packages_of(created_by.as_deref().unwrap_or_default());
        let packages = packages.into_iter().map(str::to_owned).collect();
        Layer { blob, diff_id: diff_id.clone(), compression, created_by, packages }
    };
    blobs.into_iter().zip(config.rootfs().diff_ids()).map(layer).collect()
}

fn inspect_sif(path: &Path, mut file: File, descriptors: &[sif::Descriptor]) -> Result<Sif, InspectError> {
    let fail = |source| InspectError::Sif { path: path.to_owned(), source };
    let primary =
        descriptors.iter().filter_map(|one| one.partition.as_ref()).find(|one| one.role_name() == "primary system");
    let compression = match sif::find_squashfs(&mut file) {
        Ok((offset, _)) => Some(sif::compression(&mut file, offset).map_err(fail)?),
        // Encrypted, or another file system: its other objects can be told.
        Err(SifError::NoSquashfs(_)) => None,
        Err(source) => return Err(fail(source)),
    };
    let metadata = descriptors.iter().find(|one| one.data_type == sif::JSON && one.name == sif::INSPECT_METADATA);
    let labels = match metadata {
        Some(descriptor) => {
            let bytes = sif::object(&mut file, descriptor, METADATA_LIMIT).map_err(fail)?;
            labels_of(&bytes).map_err(|reason| InspectError::Metadata { path: path.to_owned(), reason })?
        }
        None => BTreeMap::new(),
    };
    let object = |one: &sif::Descriptor| Object {
        id: one.id,
        what: one.kind(),
        name: one.name.clone(),
        offset: one.offset,
        bytes: one.size,
        file_system: one.partition.as_ref().map(sif::Partition::file_system_name),
        role: one.partition.as_ref().map(sif::Partition::role_name),
    };
    let read = |source| InspectError::Read { path: path.to_owned(), source };
    let (digest, bytes) = File::open(path).and_then(hashed::all_of).map_err(read)?;
    Ok(Sif {
        path: path.to_owned(),
        bytes,
        digest,
        architecture: primary
            .map(|one| SifArchitecture::from_code(&one.architecture).map_or(one.architecture.clone(), str::to_owned))
            .unwrap_or_default(),
        compression: compression.map(|one| one.algorithm),
        block_bytes: compression.map(|one| one.block_bytes),
        objects: descriptors.iter().map(object).collect(),
        labels,
        signatures: descriptors.iter().filter(|one| one.data_type == sif::SIGNATURE).count(),
    })
}

/// The labels in the metadata from which `apptainer inspect` answers.
fn labels_of(metadata: &[u8]) -> Result<BTreeMap<String, String>, String> {
    let document: serde_json::Value = serde_json::from_slice(metadata).map_err(|error| error.to_string())?;
    let labels = document.pointer("/data/attributes/labels").and_then(serde_json::Value::as_object);
    let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    Ok(labels.into_iter().flatten().map(|(name, value)| (name.clone(), text(value))).collect())
}
