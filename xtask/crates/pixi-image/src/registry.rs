//! Pulls a base image out of a registry, anonymously, into an OCI image layout in the cache.

mod failure;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use oci_client::client::{Certificate, CertificateEncoding, ClientConfig, ClientProtocol};
use oci_client::secrets::RegistryAuth;
use oci_client::{Client, Reference};
use oci_spec::image::{Arch, Descriptor, ImageIndex, ImageIndexBuilder, ImageManifest, MediaType, Os, PlatformBuilder};
use sha2::{Digest as _, Sha256};

use crate::config::Config;
use crate::http::{self, HttpError, Proxies, Roots};
use crate::model::Digest;
use crate::progress::Progress;
use crate::publish::{self, PublishError};
use failure::Failure;

/// Manifests, indexes and configurations larger than this are refused (the limit that registries have for manifests).
const DOCUMENT_LIMIT: u64 = 4 << 20;
/// More layers than any engine takes.
const LAYER_LIMIT: usize = 500;
/// Attempts for each document and blob.
const ATTEMPTS: u32 = 4;
/// Blobs at a time.
const JOBS: usize = 3;

/// An image in the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PulledImage {
    /// A directory in the OCI image layout that holds this image alone.
    pub layout: PathBuf,
    /// What the reference resolved to, which may be an index of several platforms: with it in place of the tag the same
    /// image is pulled again.
    pub digest: Digest,
    /// The image's own manifest for the architecture that was asked for.
    pub manifest: Digest,
}

/// Why an image cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// The text is no reference.
    #[error(
        "`{reference}` does not name an image: {reason}\n  hint: write it as HOST/NAME:TAG or HOST/NAME@sha256:DIGEST"
    )]
    BadReference {
        /// What was given.
        reference: String,
        /// What is wrong.
        reason: String,
    },
    /// No client can be made.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// Off line, and never pulled.
    #[error("{reference} is not in the cache, and downloads are switched off\n  hint: run once without `--offline`")]
    Offline {
        /// The image.
        reference: String,
    },
    /// The registry does not answer as it should.
    #[error("cannot pull {reference}: {reason}{hint}")]
    Pull {
        /// The image.
        reference: String,
        /// What went wrong.
        reason: String,
        /// The way out.
        hint: &'static str,
    },
    /// The image is not there for the architecture.
    #[error(
        "{reference} has no image for linux/{architecture}; it has: {}\n  hint: choose a platform of the lock that fits with \
         --platform, or another base image", .have.join(", ")
    )]
    NoPlatform {
        /// The image.
        reference: String,
        /// What was asked for.
        architecture: String,
        /// What is there.
        have: Vec<String>,
    },
    /// Bytes that are not what their digest says.
    #[error(
        "{reference}: the registry sent {what} that is {actual}, not {expected}\n  hint: try again; nothing was kept"
    )]
    WrongDigest {
        /// The image.
        reference: String,
        /// The kind of document or blob.
        what: &'static str,
        /// What it must be.
        expected: Digest,
        /// What it is.
        actual: Digest,
    },
    /// A document that makes no sense.
    #[error("{reference} is not an image that can be used: {reason}")]
    Invalid {
        /// The image.
        reference: String,
        /// What is wrong.
        reason: String,
    },
    /// The cache cannot be written.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// The cache cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// How a registry is reached.
#[derive(Clone, Copy, Debug)]
pub struct Reach<'a> {
    /// Proxies and certificates.
    pub config: &'a Config,
    /// Use only what is in the cache.
    pub offline: bool,
}

/// Pulls `reference` for `linux/<architecture>` (`amd64`, `arm64`, ...).
///
/// What is named by digest and in the cache is never asked for again. A tag is looked up each time, or, off line, means
/// what it meant the last time.
pub fn pull(
    reference: &str,
    architecture: &str,
    cache: &Path,
    how: Reach<'_>,
    progress: &dyn Progress,
) -> Result<PulledImage, RegistryError> {
    let bad = |reason: String| RegistryError::BadReference { reference: reference.to_owned(), reason };
    let parsed: Reference = reference.parse().map_err(|error| bad(format!("{error}")))?;
    if architecture.is_empty() || !architecture.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(bad(format!("there is no architecture `{architecture}`")));
    }
    let images = Images { directory: cache.join("images"), architecture };
    let pinned = match parsed.digest() {
        Some(digest) => Some(digest.parse().map_err(|error| bad(format!("{error}")))?),
        None if how.offline => images.last_meaning(&parsed),
        None => None,
    };
    if let Some(image) = pinned.map(|digest| images.find(digest)).transpose()?.flatten() {
        return Ok(image);
    }
    if how.offline {
        return Err(RegistryError::Offline { reference: parsed.to_string() });
    }
    let puller = Puller::new(&parsed, &images, how.config, progress)?;
    let result = puller.pull(pinned);
    puller.runtime.shutdown_background();
    result
}

/// What `reference` means now, as `HOST/NAME@sha256:DIGEST`: of an index where it names one, so that it holds for every
/// platform. Nothing else is downloaded. What is named by digest is given back as it is.
pub fn resolve(reference: &str, config: &Config) -> Result<String, RegistryError> {
    let bad = |reason: String| RegistryError::BadReference { reference: reference.to_owned(), reason };
    let parsed: Reference = reference.parse().map_err(|error| bad(format!("{error}")))?;
    let name = format!("{}/{}", parsed.registry(), parsed.repository());
    if let Some(digest) = parsed.digest() {
        let digest: Digest = digest.parse().map_err(|error| bad(format!("{error}")))?;
        return Ok(format!("{name}@{digest}"));
    }
    // Nothing is looked up in a cache.
    let images = Images { directory: PathBuf::new(), architecture: "" };
    let puller = Puller::new(&parsed, &images, config, &crate::progress::Silent)?;
    let resolved = puller.document(&parsed, None);
    puller.runtime.shutdown_background();
    Ok(format!("{name}@{}", resolved?.1))
}

/// Where the layout of an image stands in a cache.
pub fn layout_of(cache: &Path, digest: Digest, architecture: &str) -> PathBuf {
    Images { directory: cache.join("images"), architecture }.layout(digest)
}

/// Lets a tag mean, off line, an image that is put into a cache by other means than [`pull`].
pub fn remember(reference: &str, architecture: &str, cache: &Path, digest: Digest) -> Result<(), RegistryError> {
    let bad = |reason: String| RegistryError::BadReference { reference: reference.to_owned(), reason };
    let parsed: Reference = reference.parse().map_err(|error| bad(format!("{error}")))?;
    Images { directory: cache.join("images"), architecture }.remember(&parsed, digest)
}

/// The images of the cache: one layout for each digest and architecture, complete once it has its `index.json`.
struct Images<'a> {
    directory: PathBuf,
    architecture: &'a str,
}

impl Images<'_> {
    fn layout(&self, digest: Digest) -> PathBuf {
        self.directory.join(format!("{}-{}", digest.hex(), self.architecture))
    }

    fn find(&self, digest: Digest) -> Result<Option<PulledImage>, RegistryError> {
        let layout = self.layout(digest);
        let path = layout.join("index.json");
        let bytes = match std::fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(RegistryError::Read { path, source }),
            Ok(bytes) => bytes,
        };
        let index = serde_json::from_slice::<ImageIndex>(&bytes).ok();
        let manifest =
            index.as_ref().and_then(|index| index.manifests().first()).map(|entry| entry.digest().to_string());
        // One that cannot be read was not written by us, and is pulled anew.
        Ok(manifest.and_then(|digest| digest.parse().ok()).map(|manifest| PulledImage { layout, digest, manifest }))
    }

    /// Where the digest is kept that a tag meant last.
    fn meaning(&self, reference: &Reference) -> PathBuf {
        let key = Digest::of(format!("{reference} {}", self.architecture).as_bytes());
        self.directory.join("tags").join(key.hex())
    }

    fn remember(&self, reference: &Reference, digest: Digest) -> Result<(), RegistryError> {
        if reference.digest().is_none() {
            publish::write(&self.meaning(reference), format!("{digest}\n").as_bytes(), 0o644)?;
        }
        Ok(())
    }

    fn last_meaning(&self, reference: &Reference) -> Option<Digest> {
        std::fs::read_to_string(self.meaning(reference)).ok()?.trim().parse().ok()
    }
}

/// Certificates as the client takes them: those that alone are trusted, and those beside the system's.
fn certificates(roots: &Roots) -> (Vec<Certificate>, Vec<Certificate>) {
    let pem = roots.pem.iter().map(|data| Certificate { encoding: CertificateEncoding::Pem, data: data.clone() });
    let der = roots.bundled().map(|data| Certificate { encoding: CertificateEncoding::Der, data: data.to_vec() });
    let all: Vec<_> = pem.chain(der).collect();
    if roots.only { (all, Vec::new()) } else { (Vec::new(), all) }
}

struct Puller<'a> {
    reference: &'a Reference,
    images: &'a Images<'a>,
    progress: &'a dyn Progress,
    client: Client,
    runtime: tokio::runtime::Runtime,
}

impl<'a> Puller<'a> {
    fn new(
        reference: &'a Reference,
        images: &'a Images<'a>,
        config: &Config,
        progress: &'a dyn Progress,
    ) -> Result<Self, RegistryError> {
        let registry = reference.resolve_registry();
        let local = format!("http://{registry}/").parse().is_ok_and(|url| http::is_loopback(&url));
        let (proxies, (only, extra)) = (Proxies::of(config), certificates(&Roots::of(config)?));
        let client = ClientConfig {
            protocol: match local {
                true => ClientProtocol::HttpsExcept(vec![registry.to_owned()]),
                false => ClientProtocol::Https,
            },
            connect_timeout: Some(http::CONNECT_TIMEOUT),
            read_timeout: Some(http::READ_TIMEOUT),
            http_proxy: proxies.http,
            https_proxy: proxies.https,
            no_proxy: Some(proxies.except),
            tls_certs_only: only,
            extra_root_certificates: extra,
            ..ClientConfig::default()
        };
        let client = Client::try_from(client).map_err(|error| HttpError::Client(error.to_string()))?;
        Ok(Self { reference, images, progress, client, runtime: http::runtime()? })
    }

    fn pull(&self, pinned: Option<Digest>) -> Result<PulledImage, RegistryError> {
        self.progress.phase(&format!("Pulling the base image {}", self.reference));
        let (document, digest) = self.document(self.reference, pinned)?;
        if let Some(image) = self.images.find(digest)? {
            self.images.remember(self.reference, digest)?;
            return Ok(image);
        }
        let (manifest_bytes, manifest_digest) = match self.choose(&document)? {
            None => (document, digest),
            Some(entry) => {
                let chosen = self.digest_of(&entry)?;
                self.document(&self.reference.clone_with_digest(chosen.to_string()), Some(chosen))?
            }
        };
        let manifest: ImageManifest =
            serde_json::from_slice(&manifest_bytes).map_err(|error| self.invalid(format!("its manifest: {error}")))?;
        let layout = self.images.layout(digest);
        self.blobs(&layout, &manifest)?;
        self.check_architecture(&layout, &manifest)?;
        self.finish(&layout, &manifest, &manifest_bytes, manifest_digest)?;
        self.images.remember(self.reference, digest)?;
        Ok(PulledImage { layout, digest, manifest: manifest_digest })
    }

    /// A manifest or index, and its digest.
    fn document(&self, reference: &Reference, expected: Option<Digest>) -> Result<(Vec<u8>, Digest), RegistryError> {
        let accepted = [
            MediaType::ImageManifest.to_string(),
            MediaType::ImageIndex.to_string(),
            DOCKER_MANIFEST.to_owned(),
            DOCKER_LIST.to_owned(),
        ];
        let accepted: Vec<&str> = accepted.iter().map(String::as_str).collect();
        let (bytes, _) = self.retry(|| {
            self.runtime.block_on(self.client.pull_manifest_raw(reference, &RegistryAuth::Anonymous, &accepted))
        })?;
        if bytes.len() as u64 > DOCUMENT_LIMIT {
            return Err(self.invalid(format!("its manifest has {} bytes", bytes.len())));
        }
        let actual = Digest::of(&bytes);
        match expected {
            Some(expected) if expected != actual => Err(self.wrong_digest("a manifest", expected, actual)),
            _ => Ok((bytes.to_vec(), actual)),
        }
    }

    /// The entry of an index for our platform; none if the document is no index.
    fn choose(&self, document: &[u8]) -> Result<Option<Descriptor>, RegistryError> {
        let value: serde_json::Value =
            serde_json::from_slice(document).map_err(|error| self.invalid(format!("its manifest: {error}")))?;
        if value.get("manifests").is_none() {
            return Ok(None);
        }
        let index: ImageIndex =
            serde_json::from_value(value).map_err(|error| self.invalid(format!("its index: {error}")))?;
        let wanted = Arch::from(self.images.architecture);
        let platform_of = |entry: &Descriptor| entry.platform().clone();
        let found = index.manifests().iter().find(|entry| {
            platform_of(entry).is_some_and(|platform| *platform.os() == Os::Linux && *platform.architecture() == wanted)
        });
        let platforms = index.manifests().iter().filter_map(platform_of);
        found.cloned().map(Some).ok_or_else(|| RegistryError::NoPlatform {
            reference: self.reference.to_string(),
            architecture: self.images.architecture.to_owned(),
            have: platforms.map(|platform| format!("{}/{}", platform.os(), platform.architecture())).collect(),
        })
    }

    fn blobs(&self, layout: &Path, manifest: &ImageManifest) -> Result<(), RegistryError> {
        let directory = layout.join("blobs").join("sha256");
        if manifest.layers().len() > LAYER_LIMIT {
            return Err(self.invalid(format!("it has {} layers", manifest.layers().len())));
        }
        if manifest.config().size() > DOCUMENT_LIMIT {
            return Err(self.invalid(format!("its configuration has {} bytes", manifest.config().size())));
        }
        let mut wanted = Vec::new();
        for descriptor in std::iter::once(manifest.config()).chain(manifest.layers()) {
            let digest = self.digest_of(descriptor)?;
            let place = directory.join(digest.hex());
            let there = std::fs::metadata(&place).is_ok_and(|metadata| metadata.len() == descriptor.size());
            if !there && !wanted.iter().any(|(_, other, _)| *other == digest) {
                wanted.push((descriptor, digest, place));
            }
        }
        self.progress.expect_download(wanted.iter().map(|(descriptor, ..)| descriptor.size()).sum());
        let (next, stop, failure) = (AtomicUsize::new(0), AtomicBool::new(false), Mutex::new(None));
        std::thread::scope(|scope| {
            for _ in 0..JOBS.min(wanted.len()) {
                scope.spawn(|| {
                    while let Some((descriptor, digest, place)) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if stop.load(Ordering::Relaxed) {
                            return;
                        }
                        if let Err(error) = self.blob(descriptor, *digest, place)
                            && !stop.swap(true, Ordering::Relaxed)
                        {
                            *failure.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(error);
                        }
                    }
                });
            }
        });
        failure.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()).map_or(Ok(()), Err)
    }

    fn blob(&self, descriptor: &Descriptor, expected: Digest, place: &Path) -> Result<(), RegistryError> {
        let mut reported = 0;
        let (pending, actual) = self.retry(|| {
            let mut pending = publish::Pending::create(place).map_err(Failure::Ours)?;
            let actual = self.runtime.block_on(self.stream(descriptor, &mut pending, &mut reported))?;
            Ok::<_, Failure>((pending, actual))
        })?;
        if actual != expected {
            return Err(self.wrong_digest("a blob", expected, actual));
        }
        Ok(pending.publish(0o644)?)
    }

    async fn stream(
        &self,
        descriptor: &Descriptor,
        pending: &mut publish::Pending,
        reported: &mut u64,
    ) -> Result<Digest, Failure> {
        let (text, urls) = (descriptor.digest().to_string(), None);
        let layer = oci_client::client::LayerDescriptor { digest: &text, urls: &urls };
        let mut stream = self.client.pull_blob_stream(self.reference, &layer).await?.stream;
        let (mut hasher, mut received) = (Sha256::new(), 0);
        while let Some(bytes) = stream.next().await {
            let bytes = bytes.map_err(|error| Failure::Cut(http::innermost(&error)))?;
            received += bytes.len() as u64;
            if received > descriptor.size() {
                return Err(Failure::Cut(format!("a blob is longer than its {} bytes", descriptor.size())));
            }
            pending.file().write_all(&bytes).map_err(|source| Failure::Ours(pending.error(source)))?;
            hasher.update(&bytes);
            if received > *reported {
                self.progress.downloaded(received - *reported);
                *reported = received;
            }
        }
        if received < descriptor.size() {
            return Err(Failure::Cut(format!("{received} of {} bytes of a blob arrived", descriptor.size())));
        }
        Ok(Digest(hasher.finalize().into()))
    }

    /// An image without an index says what it is for in its configuration only.
    fn check_architecture(&self, layout: &Path, manifest: &ImageManifest) -> Result<(), RegistryError> {
        #[derive(serde::Deserialize)]
        struct Config {
            architecture: Arch,
            os: Os,
        }
        let path = layout.join("blobs").join("sha256").join(self.digest_of(manifest.config())?.hex());
        let bytes = std::fs::read(&path).map_err(|source| RegistryError::Read { path, source })?;
        let config: Config =
            serde_json::from_slice(&bytes).map_err(|error| self.invalid(format!("its configuration: {error}")))?;
        if config.os != Os::Linux || config.architecture != Arch::from(self.images.architecture) {
            return Err(RegistryError::NoPlatform {
                reference: self.reference.to_string(),
                architecture: self.images.architecture.to_owned(),
                have: vec![format!("{}/{}", config.os, config.architecture)],
            });
        }
        Ok(())
    }

    /// Writes the manifest and, last, the index that makes the layout complete (image-spec, image-layout.md).
    fn finish(
        &self,
        layout: &Path,
        manifest: &ImageManifest,
        bytes: &[u8],
        digest: Digest,
    ) -> Result<(), RegistryError> {
        let invalid = |error: oci_spec::OciSpecError| self.invalid(error.to_string());
        let media_type = manifest.media_type().clone().unwrap_or(MediaType::ImageManifest);
        let parsed: oci_spec::image::Digest = digest.to_string().parse().map_err(invalid)?;
        let mut entry = Descriptor::new(media_type, bytes.len() as u64, parsed);
        let platform = PlatformBuilder::default().os(Os::Linux).architecture(Arch::from(self.images.architecture));
        entry.set_platform(Some(platform.build().map_err(invalid)?));
        let index = ImageIndexBuilder::default()
            .schema_version(2u32)
            .media_type(MediaType::ImageIndex)
            .manifests(vec![entry])
            .build()
            .map_err(invalid)?;
        let index = index.to_string().map_err(invalid)?;
        publish::write(&layout.join("blobs").join("sha256").join(digest.hex()), bytes, 0o644)?;
        publish::write(&layout.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644)?;
        publish::write(&layout.join("index.json"), index.as_bytes(), 0o644)?;
        Ok(())
    }

    fn retry<T, E: Into<Failure>>(&self, mut attempt: impl FnMut() -> Result<T, E>) -> Result<T, RegistryError> {
        let mut failed = 0;
        loop {
            let failure = match attempt() {
                Ok(value) => return Ok(value),
                Err(error) => error.into(),
            };
            failed += 1;
            if failed >= ATTEMPTS || !failure.is_transient() {
                return Err(failure.into_error(self.reference));
            }
            std::thread::sleep(Duration::from_millis(100 << failed));
        }
    }

    fn digest_of(&self, descriptor: &Descriptor) -> Result<Digest, RegistryError> {
        let text = descriptor.digest().to_string();
        text.parse().map_err(|_| self.invalid(format!("it uses the digest `{text}`; only sha256 is known here")))
    }

    fn invalid(&self, reason: String) -> RegistryError {
        RegistryError::Invalid { reference: self.reference.to_string(), reason }
    }

    fn wrong_digest(&self, what: &'static str, expected: Digest, actual: Digest) -> RegistryError {
        RegistryError::WrongDigest { reference: self.reference.to_string(), what, expected, actual }
    }
}

const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
