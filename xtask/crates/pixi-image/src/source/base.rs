//! The base image under the environment: a registry, an OCI archive or layout, or nothing at all.
//!
//! An OCI image takes the layers of its base as they are. A SIF has one file system: there the layers are merged as a
//! runtime would stack them, and only what survives is packed.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use sha2::Digest as _;

use crate::entry::{BadPath, Entry, EntryKind, EntrySink, ImagePath, Mode, WHITEOUT};
use crate::layout::{Image, ImageSource, LayoutError};
use crate::model::Digest;
use crate::tree::{FileData, Node, NodeId, NodeKind, Tree, TreeError};

/// The name of an opaque whiteout.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Where a base image comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BaseReference {
    /// No base: the image holds the environment alone.
    Scratch,
    /// An OCI archive or layout on this machine.
    Local(PathBuf),
    /// An image in a registry.
    Registry(String),
}

impl FromStr for BaseReference {
    type Err = std::convert::Infallible;

    /// `scratch`, a path (it exists, begins with `.` or `/`, or ends with `.tar`), or else a registry reference.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(match text {
            "scratch" => Self::Scratch,
            path if path.starts_with(['.', '/']) || path.ends_with(".tar") || Path::new(path).exists() => {
                Self::Local(path.into())
            }
            reference => Self::Registry(reference.to_owned()),
        })
    }
}

impl fmt::Display for BaseReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scratch => f.write_str("scratch"),
            Self::Local(path) => write!(f, "{}", path.display()),
            Self::Registry(reference) => f.write_str(reference),
        }
    }
}

/// Why a base image cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// It cannot be read.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A layer is damaged, or holds something that no image may hold.
    #[error("the layer {layer} of the base image: {reason}\n  hint: the base image is damaged or hostile; use another")]
    Layer {
        /// The digest of the layer's blob.
        layer: String,
        /// What is wrong.
        reason: String,
    },
    /// The pack cannot be written.
    #[error("cannot write the base's pack: {0}")]
    Sink(io::Error),
}

/// A base image that is open for reading.
pub struct Base {
    /// The archive or layout that holds it.
    pub source: ImageSource,
    /// Its manifest and configuration.
    pub image: Image,
}

/// What a merged base holds, apart from the contents of its files.
struct Merged {
    tree: Tree,
    /// Which file of the stream each surviving file node is: the number of the layer and of the entry in it.
    owners: HashMap<(u32, u32), NodeId>,
}

impl Base {
    /// Opens the archive or layout at `path`.
    pub fn open(path: &Path, architecture: &str) -> Result<Self, BaseError> {
        let source = ImageSource::open(path)?;
        let image = source.image(architecture)?;
        Ok(Self { source, image })
    }

    /// Identifies the merged content: a digest of all diff ids.
    pub fn content_digest(&self) -> Digest {
        Digest::of(self.image.config.rootfs().diff_ids().join("\n").as_bytes())
    }

    /// Pushes the merged file system: contents in the order of the layers, then directories, links and other names.
    pub fn push_merged(&self, sink: &mut dyn EntrySink) -> Result<(), BaseError> {
        let merged = self.merge()?;
        let names = first_names(&merged.tree);
        for number in 0..self.image.manifest.layers().len() as u32 {
            // The blob is compared with its digest again, so these are the bytes that were merged.
            self.each_entry(number, &mut self.layer(number)?, |at, _, content| {
                let Some(id) = merged.owners.get(&(number, at)) else { return Ok(()) };
                let Some(path) = names.get(id) else { return Ok(()) };
                sink.entry(&file_entry(path.clone(), merged.tree.node(*id), content.size()))?;
                copy(content, sink)
            })?;
        }
        push_links(&merged.tree, &names, sink).map_err(BaseError::Sink)
    }

    /// Like [`Base::push_merged`], but pushes no content: it decodes each layer once instead of twice.
    pub fn push_names(&self, sink: &mut dyn EntrySink) -> Result<(), BaseError> {
        let Merged { tree, .. } = self.merge()?;
        let names = first_names(&tree);
        for (path, id, node) in tree.walk() {
            if let NodeKind::File(FileData { size, .. }) = &node.kind
                && names.get(&id) == Some(&path)
            {
                sink.entry(&file_entry(path, node, *size)).map_err(BaseError::Sink)?;
            }
        }
        push_links(&tree, &names, sink).map_err(BaseError::Sink)
    }

    /// Stacks the layers without reading contents.
    fn merge(&self) -> Result<Merged, BaseError> {
        let mut tree = Tree::new(Mode::EXECUTABLE, 0);
        let mut numbers = Vec::new();
        for number in 0..self.image.manifest.layers().len() as u32 {
            let mut entries = Vec::new();
            let mut content = Hashing { inner: self.layer(number)?, hasher: sha2::Sha256::new() };
            self.each_entry(number, &mut content, |at, entry, _| {
                entries.push((at, entry.clone()));
                Ok(())
            })?;
            // What is merged is kept under its diff ids: one that lies would stand in for the image that it names.
            let (found, named) = (Digest(content.hasher.finalize().into()).to_string(), self.diff_id(number));
            if found != named {
                let reason = format!("its content is {found}, but the image's configuration says {named}");
                return Err(self.bad_layer(number, reason));
            }
            // Whiteouts hide what is below their layer, wherever in it they stand.
            entries.iter().for_each(|(_, entry)| whiteout(&mut tree, &entry.path));
            for (at, entry) in entries.iter().filter(|(_, entry)| !entry.path.file_name().starts_with(WHITEOUT)) {
                if let EntryKind::File { .. } = entry.kind {
                    numbers.push((number, *at));
                }
                let applied = apply(&mut tree, entry, numbers.len() as u64);
                applied.map_err(|error| self.bad_layer(number, error.to_string()))?;
            }
        }
        let mut owners = HashMap::new();
        for (_, id, node) in tree.walk() {
            if let NodeKind::File(FileData { start, .. }) = &node.kind {
                owners.insert(numbers[*start as usize - 1], id);
            }
        }
        Ok(Merged { tree, owners })
    }

    /// Calls `visit` with every entry of a layer whose uncompressed bytes are `content`: its number and meaning, and the
    /// reader of what it holds.
    fn each_entry<R: Read>(
        &self,
        number: u32,
        content: &mut R,
        mut visit: impl FnMut(u32, &Entry, &mut tar::Entry<'_, &mut R>) -> io::Result<()>,
    ) -> Result<(), BaseError> {
        let bad = |reason: String| self.bad_layer(number, reason);
        let mut archive = tar::Archive::new(content);
        for (at, raw) in archive.entries().map_err(|error| bad(error.to_string()))?.enumerate() {
            let mut raw = raw.map_err(|error| bad(error.to_string()))?;
            if let Some(name) = sparse_file(&mut raw).map_err(|error| bad(error.to_string()))? {
                return Err(bad(format!("`{name}` is a sparse file in the pax form, which not every runtime reads")));
            }
            let Some(entry) = read_entry(&raw).map_err(|error| bad(error.to_string()))? else { continue };
            visit(at as u32, &entry, &mut raw).map_err(|error| bad(error.to_string()))?;
        }
        // The digest is checked where the blob ends, behind the last entry.
        io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(|error| bad(error.to_string()))?;
        Ok(())
    }

    /// The uncompressed bytes of a layer.
    fn layer(&self, number: u32) -> Result<Box<dyn Read>, BaseError> {
        Ok(self.source.layer(&self.image.manifest.layers()[number as usize])?)
    }

    fn bad_layer(&self, number: u32, reason: String) -> BaseError {
        BaseError::Layer { layer: self.image.manifest.layers()[number as usize].digest().to_string(), reason }
    }

    fn diff_id(&self, layer: u32) -> &str {
        // There are as many diff ids as layers: that was checked when the image was opened.
        self.image.config.rootfs().diff_ids().get(layer as usize).map_or("", String::as_str)
    }
}

/// Passes bytes on and hashes them.
struct Hashing<R> {
    inner: R,
    hasher: sha2::Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..read]);
        Ok(read)
    }
}

/// The name of a file whose content is a map of its holes and what is between them (GNU tar manual, "PAX 1"), if it is one.
/// The tar library would take the map for content; holes in the older form it fills itself.
fn sparse_file<R: Read>(raw: &mut tar::Entry<'_, R>) -> io::Result<Option<String>> {
    let mut name = None;
    for record in raw.pax_extensions()?.into_iter().flatten() {
        let record = record?;
        if record.key_bytes().starts_with(b"GNU.sparse.") && (name.is_none() || record.key_bytes().ends_with(b".name"))
        {
            name = Some(String::from_utf8_lossy(record.value_bytes()).into_owned());
        }
    }
    Ok(name)
}

/// The meaning of a tar entry; none for the root itself and for devices, which no image of ours holds.
fn read_entry<R: Read>(raw: &tar::Entry<'_, R>) -> Result<Option<Entry>, BadPath> {
    let header = raw.header();
    let name = raw.path_bytes();
    if name.iter().all(|byte| matches!(byte, b'.' | b'/')) && !name.windows(2).any(|pair| pair == b"..") {
        return Ok(None);
    }
    let path = ImagePath::new(name.strip_prefix(b"/").unwrap_or(&name))?;
    let link = raw.link_name_bytes().unwrap_or_default().into_owned();
    let kind = match header.entry_type() {
        tar::EntryType::Regular | tar::EntryType::Continuous | tar::EntryType::GNUSparse => {
            EntryKind::File { size: raw.size() }
        }
        tar::EntryType::Directory => EntryKind::Directory,
        tar::EntryType::Symlink => EntryKind::Symlink { target: link },
        tar::EntryType::Link => {
            EntryKind::Hardlink { target: ImagePath::new(link.strip_prefix(b"/").unwrap_or(&link))? }
        }
        _ => return Ok(None),
    };
    let mode = Mode((header.mode().unwrap_or(0o644) & 0o7777) as u16);
    let mtime = u32::try_from(header.mtime().unwrap_or(0)).unwrap_or(u32::MAX);
    Ok(Some(Entry { path, kind, mode, mtime }))
}

fn whiteout(tree: &mut Tree, path: &ImagePath) {
    let name = path.file_name();
    if name == OPAQUE {
        tree.clear(path.parent().as_ref());
    } else if let Some(hidden) = name.strip_prefix(WHITEOUT) {
        let hidden = match path.parent() {
            Some(parent) => ImagePath::new([parent.as_bytes(), b"/", hidden].concat()),
            None => ImagePath::new(hidden),
        };
        if let Ok(hidden) = hidden {
            tree.remove(&hidden);
        }
    }
}

fn apply(tree: &mut Tree, entry: &Entry, ordinal: u64) -> Result<(), TreeError> {
    match &entry.kind {
        EntryKind::File { size } => {
            let data = FileData { size: *size, start: ordinal, ..FileData::default() };
            tree.insert_file(&entry.path, entry.mode, entry.mtime, data)
        }
        EntryKind::Directory => tree.insert_directory(&entry.path, entry.mode, entry.mtime),
        EntryKind::Symlink { target } => tree.insert_symlink(&entry.path, target.clone(), entry.mtime),
        EntryKind::Hardlink { target } => tree.insert_hardlink(&entry.path, target),
    }
}

/// The first of each node's names.
fn first_names(tree: &Tree) -> HashMap<NodeId, ImagePath> {
    let mut names = HashMap::new();
    for (path, id, _) in tree.walk() {
        names.entry(id).or_insert(path);
    }
    names
}

fn file_entry(path: ImagePath, node: &Node, size: u64) -> Entry {
    Entry { path, kind: EntryKind::File { size }, mode: node.mode, mtime: node.mtime }
}

fn push_links(tree: &Tree, names: &HashMap<NodeId, ImagePath>, sink: &mut dyn EntrySink) -> io::Result<()> {
    for (path, id, node) in tree.walk() {
        let kind = match (&node.kind, names.get(&id)) {
            (NodeKind::Directory(_), _) => EntryKind::Directory,
            (_, Some(first)) if *first != path => EntryKind::Hardlink { target: first.clone() },
            (NodeKind::Symlink(target), _) => EntryKind::Symlink { target: target.to_vec() },
            (NodeKind::File(_), _) => continue,
        };
        sink.entry(&Entry { path, kind, mode: node.mode, mtime: node.mtime })?;
    }
    Ok(())
}

fn copy(content: &mut dyn Read, sink: &mut dyn EntrySink) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match content.read(&mut buffer)? {
            0 => return Ok(()),
            read => sink.data(&buffer[..read])?,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Write;

    use oci_spec::image::{Arch, ImageConfiguration, MediaType, Os};

    use super::*;
    use crate::archive::{ArchiveWriter, Layer, descriptor, history};
    use crate::pack::CopyError;

    enum Item<'a> {
        File(&'a str, &'a str),
        Dir(&'a str),
        Symlink(&'a str, &'a str),
        Hardlink(&'a str, &'a str),
        Device(&'a str),
    }

    fn layer(items: &[Item<'_>]) -> Vec<u8> {
        let mut tar = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
        for item in items {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o750);
            header.set_size(0);
            let (kind, name, link, content) = match item {
                Item::File(name, content) => (tar::EntryType::Regular, name, "", *content),
                Item::Dir(name) => (tar::EntryType::Directory, name, "", ""),
                Item::Symlink(name, target) => (tar::EntryType::Symlink, name, *target, ""),
                Item::Hardlink(name, target) => (tar::EntryType::Link, name, *target, ""),
                Item::Device(name) => (tar::EntryType::Char, name, "", ""),
            };
            header.set_entry_type(kind);
            header.set_size(content.len() as u64);
            // Written by hand: the library refuses the hostile names that these tests need.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
            header.set_cksum();
            tar.append(&header, content.as_bytes()).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap()
    }

    fn unzipped(bytes: &[u8]) -> Vec<u8> {
        let mut content = Vec::new();
        flate2::read::GzDecoder::new(bytes).read_to_end(&mut content).unwrap();
        content
    }

    fn merged(layers: &[&[Item<'_>]]) -> Result<BTreeMap<String, String>, BaseError> {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("base.tar");
        let mut archive = ArchiveWriter::create(&place).unwrap();
        let described: Vec<_> = layers
            .iter()
            .map(|items| {
                let bytes = layer(items);
                let write = |out: &mut dyn Write| out.write_all(&bytes).map_err(CopyError::Write);
                let (digest, size) = archive.blob(write).unwrap();
                Layer {
                    descriptor: descriptor(MediaType::ImageLayerGzip, digest, size).unwrap(),
                    diff_id: Digest::of(&unzipped(&bytes)).to_string(),
                    history: history(0, "test").unwrap(),
                }
            })
            .collect();
        let mut config = ImageConfiguration::default();
        config.set_architecture(Arch::Amd64).set_os(Os::Linux);
        archive.finish(config, &described, "base:test").unwrap();
        let mut seen = Seen::default();
        let base = Base::open(&place, "amd64")?;
        base.push_merged(&mut seen)?;
        let mut named = Seen::default();
        base.push_names(&mut named)?;
        let without_content = |what: &String| if what.starts_with('=') { "=".to_owned() } else { what.clone() };
        let names = seen.0.iter().map(|(path, what)| (path.clone(), without_content(what)));
        assert_eq!(named.0, names.collect());
        Ok(seen.0)
    }

    /// What each path is: `=content`, `/` for a directory, `->target`, `~other name`.
    #[derive(Default)]
    struct Seen(BTreeMap<String, String>, String);

    impl EntrySink for Seen {
        fn entry(&mut self, entry: &Entry) -> io::Result<()> {
            self.1 = entry.path.to_string();
            let what = match &entry.kind {
                EntryKind::File { .. } => "=".into(),
                EntryKind::Directory => "/".into(),
                EntryKind::Symlink { target } => format!("->{}", String::from_utf8_lossy(target)),
                EntryKind::Hardlink { target } => format!("~{target}"),
            };
            assert!(self.0.insert(self.1.clone(), what).is_none(), "{} came twice", self.1);
            Ok(())
        }

        fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
            self.0.entry(self.1.clone()).or_default().push_str(&String::from_utf8_lossy(bytes));
            Ok(())
        }
    }

    #[test]
    fn layers_are_stacked_as_a_runtime_stacks_them() {
        use Item::{Device, Dir, File, Hardlink, Symlink};
        let merged = merged(&[
            &[
                Dir("./"),
                Dir("usr/"),
                Dir("usr/bin/"),
                Symlink("bin", "usr/bin"),
                File("bin/tool", "old"),
                File("usr/gone", "x"),
                File("opaque/old", "x"),
                File("kept", "kept"),
                Hardlink("same", "kept"),
                Device("dev/null"),
            ],
            &[
                File("bin/tool", "new"),
                File("usr/.wh.gone", ""),
                File("opaque/.wh..wh..opq", ""),
                File("opaque/new", "n"),
            ],
        ])
        .unwrap();
        let expected = [
            ("bin", "->usr/bin"),
            ("kept", "=kept"),
            ("opaque", "/"),
            ("opaque/new", "=n"),
            ("same", "~kept"),
            ("usr", "/"),
            ("usr/bin", "/"),
            ("usr/bin/tool", "=new"),
        ];
        assert_eq!(merged, expected.map(|(path, what)| (path.to_owned(), what.to_owned())).into());
    }

    #[test]
    fn a_layer_that_climbs_out_of_the_image_is_refused_by_name() {
        let error = merged(&[&[Item::File("a/../../x", "evil")]]).unwrap_err().to_string();
        assert!(error.contains("a/../../x") && error.contains("hint"), "{error}");
        assert!(merged(&[&[Item::Hardlink("x", "../../etc/passwd")]]).is_err());
    }
}
