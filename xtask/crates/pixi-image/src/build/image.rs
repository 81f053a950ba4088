//! Writing the two formats from one root.

use std::collections::HashMap;
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::sync::OnceLock;
use std::sync::mpsc::Receiver;

use oci_spec::image::{Arch, Config, History, ImageConfiguration, MediaType, Os};

use super::packs::{PackagePack, Packer};
use super::placing::{Part, Placed, Placing};
use super::root::{self, Root};
use super::shelf::Shelf;
use super::stack::{Stack, StackedLayer};
use super::{BuildError, Request};
use crate::archive::{self, ArchiveError, ArchiveWriter, CompleteArchive, Layer};
use crate::hashed::Hashed;
use crate::layers::{self, MAX_LAYERS, PACKAGE_LAYERS};
use crate::model::{Digest, Environment};
use crate::pack::{CopyError, FORMAT_VERSION, PackFile, PackIndex, write_layer_tar};
use crate::progress::{Progress, Reported};
use crate::publish::{Complete, PageCache, Pending, Steady};
use crate::sif::{self, SifArchitecture, SifSpec};
use crate::source::base::{Base, BaseError};
use crate::squashfs;
use crate::store::Store;

/// A result that is whole, and not published yet.
pub struct Written {
    /// The manifest's digest for OCI, the uuid for a SIF.
    pub id: String,
    /// The length of the file in bytes.
    pub size: u64,
    /// The file.
    pub file: Complete,
}

/// About how many bytes the two formats will have, of those that are wanted.
pub fn size(root: &Root<'_>, oci: bool, sif: bool) -> u64 {
    let packs = root.packages.iter().map(|package| &package.file).chain([&root.app]);
    let base = root.base.iter().flat_map(|base| base.base.image.manifest.layers()).map(|layer| layer.size());
    let layers: u64 = packs.clone().map(|pack| pack.index.layer_size()).chain(base).sum();
    let stacked = root.base.iter().flat_map(|base| &base.layers).map(|layer| &layer.pack);
    let all = packs.chain([&root.singularity]).chain(stacked);
    let squashfs: u64 = all.map(|pack| pack.index.squashfs_size()).sum();
    [(oci, layers), (sif, squashfs)].into_iter().filter(|(wanted, _)| *wanted).map(|(_, size)| size).sum()
}

/// Goes up when images change that are made of the same packs.
const FORMAT: u32 = 5;

/// A digest of all that the bytes of either format depend on.
pub fn identity(request: &Request, root: &Root<'_>) -> Result<Digest, BuildError> {
    let version = env!("CARGO_PKG_VERSION");
    let base = root.base.as_ref().map(|base| base.base.image.digest.to_string()).unwrap_or_default();
    let mut text = format!("image {FORMAT} {FORMAT_VERSION} {version} {}\nbase {base}\n", request.reference);
    for &PackagePack { name, archive_size, key, .. } in &root.packages {
        text.push_str(&format!("{name} {archive_size} {key}\n"));
    }
    text.push_str(&format!("{} at {}\n", diff_id(&[&root.app])?, root.created));
    let parts = [&archive::canonical_json(&configuration(root)?)?, &root.definition, &root.inspect_metadata];
    let parts = parts.map(|part| Digest::of(part).to_string()).concat();
    let singularity = &root.singularity.index;
    let checksums = singularity.chunks.iter().map(|chunk| format!(" {:x}{:x}", chunk.crc32, chunk.adler32));
    let paths = singularity.entries.iter().map(|entry| format!("{entry:?}\n"));
    text.extend([parts].into_iter().chain(checksums).chain(paths));
    Ok(Digest::of(text.as_bytes()))
}

/// What an OCI archive will hold, up to the last layer of packages.
pub struct Outline<'a> {
    archive: ArchiveWriter,
    base: Option<&'a Base>,
    /// By layer, in the order in which they are stacked.
    groups: Vec<Vec<usize>>,
    /// The first layer of packages, the largest, as its pack is made: it is packed for so long that all others wait.
    first: Option<(usize, Receiver<Vec<u8>>)>,
    shelf: &'a Shelf,
    created: i64,
}

impl<'a> Outline<'a> {
    /// Settles the layers.
    pub fn new(
        environment: &Environment,
        created: i64,
        base: Option<&'a Base>,
        shelf: &'a Shelf,
        archive: ArchiveWriter,
    ) -> Self {
        let groups = groups(environment, budget(base.map_or(0, Base::depth)));
        let first = match groups.first().map(Vec::as_slice) {
            Some([at]) => Some((*at, shelf.follow(*at))),
            _ => None,
        };
        Self { archive, base, groups, first, shelf, created }
    }

    /// Writes the layers of the base, and those of the packages as these are made; none if one of them is not.
    pub fn draft(
        self,
        packer: &Packer<'_>,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<Option<Draft>, BuildError> {
        let Self { mut archive, base, groups, first, shelf, created } = self;
        let mut layers = Vec::new();
        if let Some(base) = base {
            copy_base(base, &mut archive, &mut layers, packer, progress)?;
        }
        if budget(layers.len()) == 0 && !groups.is_empty() {
            return Err(BuildError::BaseTooDeep { layers: layers.len(), max: MAX_LAYERS });
        }
        let mut written = None;
        if let Some((at, arriving)) = first
            && let Some(begun) = archive.begin_layer(arriving, progress)?
        {
            // Of a package that lost a path to another, what was begun is not the pack that is wanted.
            let Some(pack) = shelf.wait_for(at) else { return Ok(None) };
            let blob = pack.file.index.blob.filter(|_| shelf.was_followed(at, &pack.key));
            written = archive.end_layer(begun, blob)?;
        }
        for group in groups {
            let members: Option<Vec<_>> = group.into_iter().map(|at| shelf.wait_for(at)).collect();
            let Some(members) = members else { return Ok(None) };
            layers.push(package_layer(&members, written.take(), &mut archive, created, store, progress)?);
        }
        Ok(Some(Draft { archive, layers }))
    }
}

/// The packages, by their numbers, in at most so many layers.
fn groups(environment: &Environment, budget: usize) -> Vec<Vec<usize>> {
    let packages = environment.packages.iter();
    let sizes: Vec<_> = packages.map(|package| (package.name(), package.size().unwrap_or(0))).collect();
    layers::group(&sizes, budget)
}

/// How many layers of packages fit above so many of a base, with the one that only this image has.
fn budget(depth: usize) -> usize {
    PACKAGE_LAYERS.min(MAX_LAYERS.saturating_sub(depth + 1))
}

/// An OCI archive up to the last layer of packages. It is written while packages are still packed.
pub struct Draft {
    archive: ArchiveWriter,
    layers: Vec<Layer>,
}

impl Draft {
    /// Adds what only this image has.
    pub fn finish(self, request: &Request, root: &Root<'_>, progress: &dyn Progress) -> Result<Written, BuildError> {
        let Self { mut archive, mut layers } = self;
        let (digest, size) = archive.layer(&[&root.app], progress)?;
        layers.push(Layer {
            descriptor: archive::descriptor(MediaType::ImageLayerGzip, digest, size)?,
            diff_id: diff_id(&[&root.app])?.to_string(),
            history: application_history(root.created)?,
        });
        let complete = archive.complete(configuration(root)?, &layers, &request.reference)?;
        let CompleteArchive { digest, size, file } = complete;
        Ok(Written { id: digest.to_string(), size, file })
    }
}

/// What made the last layer, and with it the image: another version of this program may make other bytes.
fn application_history(created: i64) -> Result<History, ArchiveError> {
    let mut history = archive::history(created, layers::APPLICATION)?;
    history.set_comment(Some(format!("pixi-image {}", env!("CARGO_PKG_VERSION"))));
    Ok(history)
}

/// The layers of the base as they are, so that registries and engines know them already.
fn copy_base(
    base: &Base,
    archive: &mut ArchiveWriter,
    layers: &mut Vec<Layer>,
    packer: &Packer<'_>,
    progress: &dyn Progress,
) -> Result<(), BuildError> {
    let image = &base.image;
    let told: Vec<History> = image.config.history().iter().flatten().cloned().collect();
    let mut told = told.into_iter().filter(|history| history.empty_layer() != Some(true));
    for (descriptor, diff_id) in image.manifest.layers().iter().zip(image.config.rootfs().diff_ids()) {
        // It fails at its end if the bytes are not what the descriptor says.
        let mut blob = base.source.blob(descriptor).map_err(BaseError::from)?;
        let (digest, size) = (base.source.digest_of(descriptor).map_err(BaseError::from)?, descriptor.size());
        let write = |out: &mut dyn Write| copy_blob(&mut blob, &mut Reported::new(out, progress), packer);
        archive.known_blob((digest, size), write).map_err(|error| match error {
            ArchiveError::Source(source) => {
                let layer = descriptor.digest().to_string();
                BuildError::Base(BaseError::Layer { layer, reason: source.to_string() })
            }
            error => error.into(),
        })?;
        let media_type = match descriptor.media_type().to_string().as_str() {
            "application/vnd.docker.image.rootfs.diff.tar.gzip" => MediaType::ImageLayerGzip,
            "application/vnd.docker.image.rootfs.diff.tar" => MediaType::ImageLayer,
            _ => descriptor.media_type().clone(),
        };
        layers.push(Layer {
            descriptor: archive::descriptor(media_type, digest, size)?,
            diff_id: diff_id.clone(),
            history: told.next().unwrap_or_default(),
        });
    }
    Ok(())
}

fn copy_blob(blob: &mut dyn Read, out: &mut dyn Write, packer: &Packer<'_>) -> Result<(), CopyError> {
    let mut buffer = vec![0; 1 << 17];
    loop {
        packer.check().map_err(CopyError::Source)?;
        match blob.read(&mut buffer).map_err(CopyError::Source)? {
            0 => return Ok(()),
            read => out.write_all(&buffer[..read]).map_err(CopyError::Write)?,
        }
    }
}

/// The layer of `members`; `written` if its blob is already.
fn package_layer(
    members: &[&PackagePack],
    written: Option<(Digest, u64)>,
    archive: &mut ArchiveWriter,
    created: i64,
    store: &Store,
    progress: &dyn Progress,
) -> Result<Layer, BuildError> {
    let packs: Vec<&PackFile> = members.iter().map(|member| &member.file).collect();
    let (digest, size) = match written {
        Some(blob) => blob,
        None => archive.layer(&packs, progress)?,
    };
    let names: Vec<_> = members.iter().map(|member| member.name.as_str()).collect();
    let keys: Vec<_> = members.iter().map(|member| member.key.hex()).collect();
    // The diff id of several packs cannot be had from theirs: it is worked out once for each group.
    let key = Digest::of(format!("diff id {FORMAT_VERSION} {}", keys.join(" ")).as_bytes());
    let diff_id = match store.note("diff-ids", &key) {
        Some(diff_id) if packs.len() > 1 => diff_id,
        _ => {
            let diff_id = diff_id(&packs)?;
            if packs.len() > 1 {
                store.keep_note("diff-ids", &key, &diff_id)?;
            }
            diff_id
        }
    };
    Ok(Layer {
        descriptor: archive::descriptor(MediaType::ImageLayerGzip, digest, size)?,
        diff_id: diff_id.to_string(),
        history: archive::history(created, &layers::created_by(&names))?,
    })
}

/// The digest of the uncompressed tar of a layer that holds `packs`.
fn diff_id(packs: &[&PackFile]) -> Result<Digest, CopyError> {
    if let [PackFile { index: PackIndex { diff_id: Some(diff_id), .. }, .. }] = packs {
        return Ok(*diff_id);
    }
    let mut tar = Hashed::new(io::sink());
    write_layer_tar(packs, &mut tar)?;
    Ok(tar.finish().0)
}

/// The base's configuration with the activation, labels and time of this image.
fn configuration(root: &Root<'_>) -> Result<ImageConfiguration, ArchiveError> {
    let mut image = root.base.as_ref().map(|base| base.base.image.config.clone()).unwrap_or_default();
    let mut config: Config = image.config().clone().unwrap_or_default();
    let entrypoint = root.activation.entrypoint();
    config.set_env(Some(root.activation.oci_env()));
    config.set_entrypoint(entrypoint.map(|entrypoint| entrypoint.oci));
    config.set_cmd(None);
    config.set_working_dir(Some("/app".into()));
    config.set_labels(Some(root.labels.clone().into_iter().collect::<HashMap<_, _>>()));
    image.set_config(Some(config));
    image.set_architecture(Arch::from(root.architecture));
    image.set_os(Os::Linux);
    image.set_created(Some(archive::rfc3339(root.created)));
    Ok(image)
}

/// A SIF up to the last package. It is written while packages are still packed: its data first, behind the room for all that
/// stands before it, which is known at the end.
pub struct SifDraft<'a> {
    pending: Pending,
    out: BufWriter<Steady>,
    placing: Placing<'a>,
}

impl<'a> SifDraft<'a> {
    /// Writes what is left of the base's layers, and the packages as their packs are made; none if one of them is not.
    pub fn draft(
        environment: &Environment,
        stack: &'a OnceLock<Option<Stack<'_>>>,
        shelf: &'a Shelf,
        pending: Pending,
        packer: &Packer<'_>,
        progress: &dyn Progress,
    ) -> Result<Option<Self>, BuildError> {
        let mut draft = Self::begin(pending)?;
        let layers = stack.wait().iter().flat_map(|stack| &stack.layers);
        let layers = layers.map(|StackedLayer { pack, hidden }| Some(Part { pack, hidden: Some(hidden) }));
        // The largest first, as in the other format: they are packed first, too.
        let order = groups(environment, environment.packages.len()).into_iter().flatten();
        let packages = order.map(|at| Some(Part { pack: &shelf.wait_for(at)?.file, hidden: None }));
        for part in layers.chain(packages) {
            let Some(part) = part.filter(|_| packer.check().is_ok()) else { return Ok(None) };
            draft.add(part, progress)?;
        }
        Ok(Some(draft))
    }

    fn begin(mut pending: Pending) -> Result<Self, BuildError> {
        let mut out = BufWriter::with_capacity(1 << 20, pending.writer(PageCache::Goes)?);
        let placing = Placing::from(squashfs::SUPERBLOCK_SIZE);
        let data = out.seek(SeekFrom::Start(sif::SQUASHFS_AT as u64 + squashfs::SUPERBLOCK_SIZE));
        data.map_err(|source| pending.error(source))?;
        Ok(Self { pending, out, placing })
    }

    fn add(&mut self, part: Part<'a>, progress: &dyn Progress) -> Result<(), BuildError> {
        let placed = self.placing.add(part)?;
        let written = placed.pack.write_squashfs(&placed.left_out, &mut Reported::new(&mut self.out, progress));
        written.map_err(|error| match error {
            CopyError::Read(error) => error.into(),
            CopyError::Write(source) | CopyError::Source(source) => BuildError::from(self.pending.error(source)),
        })
    }

    /// Adds what only this image has, the tables, and all that stands before the data.
    pub fn finish(mut self, root: &'a Root<'_>, progress: &dyn Progress) -> Result<Written, BuildError> {
        for pack in [&root.app, &root.singularity] {
            self.add(Part { pack, hidden: None }, progress)?;
        }
        let (placed, data_end) = self.placing.placed();
        let (tree, fragments) = root.merge(placed)?;
        let tables = squashfs::tables(&tree, &fragments, data_end, root::mtime(root.created))?;
        drop(tree);
        let content_id = content_id(root, placed, &tables).0;
        let head = sif::prefix(&SifSpec {
            architecture: SifArchitecture::from_oci(root.architecture).unwrap_or(SifArchitecture::Amd64),
            created: root.created,
            definition: &root.definition,
            inspect_metadata: &root.inspect_metadata,
            content_id,
            squashfs_size: tables.bytes_used,
        })?;
        let Self { pending, mut out, .. } = self;
        let written = out
            .write_all(&tables.tail)
            .and_then(|()| out.rewind())
            .and_then(|()| [head.as_slice(), &tables.superblock].into_iter().try_for_each(|bytes| out.write_all(bytes)))
            .and_then(|()| out.flush());
        written.map_err(|source| pending.error(source))?;
        let size = sif::SQUASHFS_AT as u64 + data_end + tables.tail.len() as u64;
        let id = format!("uuid:{}", sif::uuid(&content_id));
        Ok(Written { id, size, file: pending.complete(0o755)? })
    }
}

/// Tells images apart: the texts, the tables, and the checksums of all data.
fn content_id(root: &Root<'_>, placed: &[Placed<'_>], tables: &squashfs::Tables) -> Digest {
    use sha2::Digest as _;
    let mut hasher = sha2::Sha256::new();
    for text in [&root.definition, &root.inspect_metadata] {
        hasher.update(Digest::of(text).0);
    }
    hasher.update(tables.superblock);
    hasher.update(&tables.tail);
    let chunks = placed.iter().flat_map(|one| &one.pack.index.chunks);
    for chunk in chunks.filter(|chunk| chunk.squashfs_size() > 0) {
        hasher.update(chunk.crc32.to_le_bytes());
        hasher.update(chunk.adler32.to_le_bytes());
    }
    Digest(hasher.finalize().into())
}
