//! The base image: its layers packed one by one, and what is left of them when they are stacked.
//!
//! An OCI image takes the layers of its base as they are. A SIF has one file system: there they are stacked as a runtime
//! stacks them, and blocks of files that a later layer hides are left out. A layer is packed whatever lies above it: bases
//! that share a layer share its pack, and each is decoded once.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::BuildError;
use super::packs::{cached, fill, place, writer};
use crate::entry::{ImagePath, Mode, WHITEOUT};
use crate::model::Digest;
use crate::pack::{Compressors, FORMAT_VERSION, HARD_LEVEL, LEVEL, PackFile, PackedContent, PackedKind, Targets};
use crate::progress::Progress;
use crate::source::base::Base;
use crate::store::Store;
use crate::tree::{FileData, NodeKind, Tree, TreeError};

/// The name of an opaque whiteout.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// A layer of the base.
pub struct StackedLayer {
    /// All that it brings.
    pub pack: PackFile,
    /// The files to which no name leads any more, by their place among the pack's entries.
    pub hidden: BTreeSet<usize>,
}

/// A base image whose layers are packed and stacked.
pub struct Stack<'a> {
    /// The base.
    pub base: &'a Base,
    /// How the image calls it.
    pub reference: &'a str,
    /// From the lowest to the highest.
    pub layers: Vec<StackedLayer>,
    /// What all layers together hold; where contents lie, it does not tell.
    pub tree: Tree,
}

impl<'a> Stack<'a> {
    /// Packs the layers that the cache has no pack of, and stacks all.
    pub fn new(
        base: &'a Base,
        reference: &'a str,
        targets: Targets,
        compressors: &Compressors,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<Self, BuildError> {
        let mut tree = Tree::new(Mode::EXECUTABLE, 0);
        let (mut packs, mut count) = (Vec::new(), 0);
        for number in 0..base.depth() {
            let pack = pack(base, number, targets, compressors, store, progress)?;
            // Where a file's content would begin stands the number of its entry, by which it is found again.
            let numbered = |at: usize, content: &PackedContent| FileData {
                size: content.size,
                start: (count + at) as u64,
                ..FileData::default()
            };
            insert(&mut tree, &pack, &numbered).map_err(|error| base.bad_layer(number, error.to_string()))?;
            count += pack.index.entries.len();
            packs.push(pack);
        }
        let mut is_left = vec![false; count];
        for (_, _, node) in tree.walk() {
            if let NodeKind::File(data) = &node.kind {
                is_left[data.start as usize] = true;
            }
        }
        let mut first = 0;
        let layers = packs.into_iter().map(|pack| {
            let files = pack.index.entries.iter().enumerate();
            let files = files.filter(|(_, entry)| matches!(entry.kind, PackedKind::File(_)));
            let hidden = files.map(|(at, _)| at).filter(|at| !is_left[first + at]).collect();
            first += pack.index.entries.len();
            StackedLayer { pack, hidden }
        });
        let layers = layers.collect();
        Ok(Self { base, reference, layers, tree })
    }
}

/// The places of a layer's pack: the first is what a SIF's build leaves, which serves one that asks for names alone, too.
fn places(base: &Base, number: usize, targets: Targets, store: &Store) -> [PathBuf; 2] {
    let diff_id = base.diff_id(number);
    let key = Digest::of(format!("layer {FORMAT_VERSION}\nlevels {LEVEL} {HARD_LEVEL}\n{diff_id}").as_bytes());
    [Targets::SquashfsOnly, targets].map(|targets| place(store, &key, targets))
}

/// Whether the cache lacks the pack of a layer.
pub fn lacks_packs(base: &Base, targets: Targets, store: &Store) -> bool {
    (0..base.depth()).any(|number| !places(base, number, targets, store).iter().any(|place| place.exists()))
}

fn pack(
    base: &Base,
    number: usize,
    targets: Targets,
    compressors: &Compressors,
    store: &Store,
    progress: &dyn Progress,
) -> Result<PackFile, BuildError> {
    let places = places(base, number, targets, store);
    for place in &places {
        if let Some(file) = cached(place, progress)? {
            return Ok(file);
        }
    }
    let [_, place] = places;
    PackFile::create(&place, store.publisher(), |out| {
        fill(writer(out, compressors, targets), "the base image", |sink| match targets {
            Targets::NamesOnly => Ok(base.push_names(number, sink)?),
            _ => Ok(base.push_layer(number, sink)?),
        })
    })
}

/// Puts what a pack holds into a tree; `data` says where the content of an entry lies. Whiteouts hide what was there before
/// the pack, wherever in it they stand (OCI image-spec, layer.md, "Whiteouts").
pub fn insert(
    tree: &mut Tree,
    pack: &PackFile,
    data: &dyn Fn(usize, &PackedContent) -> FileData,
) -> Result<(), TreeError> {
    let is_whiteout = |path: &ImagePath| path.file_name().starts_with(WHITEOUT);
    let entries = &pack.index.entries;
    entries.iter().filter(|entry| is_whiteout(&entry.path)).for_each(|entry| remove(tree, &entry.path));
    for (at, entry) in entries.iter().enumerate().filter(|(_, entry)| !is_whiteout(&entry.path)) {
        match &entry.kind {
            PackedKind::Directory => tree.insert_directory(&entry.path, entry.mode, entry.mtime)?,
            PackedKind::Symlink(target) => tree.insert_symlink(&entry.path, target.clone(), entry.mtime)?,
            PackedKind::Hardlink(target) => tree.insert_hardlink(&entry.path, target)?,
            PackedKind::File(content) => {
                tree.insert_file(&entry.path, entry.mode, entry.mtime, data(at, content))?;
            }
        }
    }
    Ok(())
}

/// Takes away what a whiteout hides.
fn remove(tree: &mut Tree, whiteout: &ImagePath) {
    let name = whiteout.file_name();
    if name == OPAQUE {
        tree.clear(whiteout.parent().as_ref());
    } else if let Some(hidden) = name.strip_prefix(WHITEOUT) {
        let hidden = match whiteout.parent() {
            Some(parent) => ImagePath::new([parent.as_bytes(), b"/", hidden].concat()),
            None => ImagePath::new(hidden),
        };
        if let Ok(hidden) = hidden {
            tree.remove(&hidden);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::{Read, Write};
    use std::num::NonZeroUsize;

    use oci_spec::image::{Arch, ImageConfiguration, MediaType, Os};

    use super::*;
    use crate::archive::{ArchiveWriter, Layer, descriptor, history};
    use crate::pack::CopyError;
    use crate::progress::Silent;

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

    fn base(directory: &std::path::Path, layers: &[&[Item<'_>]]) -> Base {
        let place = directory.join("base.tar");
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
        Base::open(&place, "amd64").unwrap()
    }

    /// What each path is, `layer=size`, `/` for a directory, `->target` or `~other name`; and what each layer has hidden.
    type Stacked = (BTreeMap<String, String>, Vec<Vec<String>>);

    fn stacked(layers: &[&[Item<'_>]], targets: Targets) -> Result<Stacked, BuildError> {
        let directory = tempfile::tempdir().unwrap();
        let base = base(directory.path(), layers);
        let compressors = Compressors::start(NonZeroUsize::MIN);
        let store = Store::at(directory.path().join("cache"));
        let stack = Stack::new(&base, "base:test", targets, &compressors, &store, &Silent)?;
        let ends: Vec<_> = stack.layers.iter().map(|layer| layer.pack.index.entries.len()).collect();
        let layer_of = |entry: u64| {
            let mut rest = entry as usize;
            ends.iter()
                .take_while(|count| {
                    rest >= **count && {
                        rest -= **count;
                        true
                    }
                })
                .count()
        };
        let (mut found, mut names) = (BTreeMap::new(), BTreeMap::new());
        for (path, id, node) in stack.tree.walk() {
            let what = match (&node.kind, names.get(&id)) {
                (NodeKind::Directory(_), _) => "/".to_owned(),
                (_, Some(first)) => format!("~{first}"),
                (NodeKind::Symlink(target), _) => format!("->{}", String::from_utf8_lossy(target)),
                (NodeKind::File(data), _) => format!("{}={}", layer_of(data.start), data.size),
            };
            names.entry(id).or_insert_with(|| path.to_string());
            found.insert(path.to_string(), what);
        }
        let hidden = |layer: &StackedLayer| {
            layer.hidden.iter().map(|at| layer.pack.index.entries[*at].path.to_string()).collect()
        };
        Ok((found, stack.layers.iter().map(hidden).collect()))
    }

    #[test]
    fn layers_are_stacked_as_a_runtime_stacks_them() {
        use Item::{Device, Dir, File, Hardlink, Symlink};
        let lower = [
            Dir("./"),
            Dir("usr/"),
            Dir("usr/bin/"),
            Symlink("bin", "usr/bin"),
            File("bin/tool", "old"),
            File("usr/gone", "x"),
            File("opaque/old", "x"),
            File("kept", "kept"),
            Hardlink("same", "kept"),
            File("renamed", "its other name stays"),
            Hardlink("stays", "renamed"),
            Device("dev/null"),
        ];
        let upper = [
            File("bin/tool", "newer"),
            File("usr/.wh.gone", ""),
            File("opaque/new", "n"),
            // It hides what is below its layer only, wherever in it it stands.
            File("opaque/.wh..wh..opq", ""),
            File(".wh.renamed", ""),
            Hardlink("third", "kept"),
        ];
        let (found, hidden) = stacked(&[&lower, &upper], Targets::SquashfsOnly).unwrap();
        let expected = [
            ("bin", "->usr/bin"),
            ("kept", "0=4"),
            ("opaque", "/"),
            ("opaque/new", "1=1"),
            ("same", "~kept"),
            ("stays", "0=20"),
            ("third", "~kept"),
            ("usr", "/"),
            ("usr/bin", "/"),
            ("usr/bin/tool", "1=5"),
        ];
        assert_eq!(found, expected.map(|(path, what)| (path.to_owned(), what.to_owned())).into());
        assert_eq!(hidden[0], ["bin/tool", "usr/gone", "opaque/old"]);
        assert_eq!(hidden[1], ["usr/.wh.gone", "opaque/.wh..wh..opq", ".wh.renamed"]);
        assert_eq!(stacked(&[&lower, &upper], Targets::NamesOnly).unwrap(), (found, hidden));
    }

    #[test]
    fn what_cannot_be_stacked_is_refused_with_its_layer() {
        let refused = |layers: &[&[Item<'_>]]| stacked(layers, Targets::SquashfsOnly).unwrap_err().to_string();
        let error = refused(&[&[Item::File("a/../../x", "evil")]]);
        assert!(error.contains("a/../../x") && error.contains("hint"), "{error}");
        refused(&[&[Item::Hardlink("x", "../../etc/passwd")]]);
        let error = refused(&[&[Item::File("a", "")], &[Item::File("a/b", "")]]);
        assert!(error.starts_with("the layer sha256:") && error.contains("`a` is not a directory"), "{error}");
    }
}
