//! The base image with a `pixi` in it: what the lesson's own recipes start from, where its registry cannot be reached.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use oci_spec::image::{History, MediaType};
use pixi_image::archive::{self, ArchiveError, ArchiveWriter, Layer};
use pixi_image::entry::{Entry, EntryKind, EntrySink, ImagePath, Mode, push_file};
use pixi_image::layout::{Image, LayoutError};
use pixi_image::model::Digest;
use pixi_image::pack::{Compressors, CopyError, PackFile, PackWriter, Targets};
use pixi_image::progress::Silent;
use pixi_image::source::base::{Base, BaseError};

use crate::elf::{self, Program};
use crate::index::ARCHITECTURE;
use crate::recipes::EPOCH;

/// The name and tag of the image.
pub const REFERENCE: &str = "rehearsal/pixi:trixie";
/// Where the program stands in it.
const PLACE: &str = "usr/local/bin/pixi";
/// The label that holds the sha256 of the program as it stands in the image.
const PROGRAM_LABEL: &str = "rehearsal.pixi";
/// The label that names the image below (OCI image-spec, annotations.md).
const BASE_LABEL: &str = "org.opencontainers.image.base.digest";
/// A program is at most this large, in bytes.
const PROGRAM_LIMIT: u64 = 1 << 30;
/// Libraries of the base that are looked into are at most this large, in bytes.
const LIBRARY_LIMIT: u64 = 64 << 20;

/// Why there is no base image with a pixi.
#[derive(Debug, thiserror::Error)]
pub enum PixiBaseError {
    /// The program cannot be read.
    #[error(
        "cannot read the program {path}: {source}\n  hint: name the pixi-image that cargo built with `--pixi FILE`"
    )]
    Unreadable {
        /// The program.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is no program for this image.
    #[error(
        "{path} cannot run in the base image: it is {found}, wanted is a program for linux/{ARCHITECTURE}\n  hint: name \
         a pixi-image that was built for x86_64 Linux with `--pixi FILE`"
    )]
    Foreign {
        /// The program.
        path: PathBuf,
        /// What it is.
        found: String,
    },
    /// The base lacks what the program is linked to.
    #[error(
        "{path} cannot run in the base image, which lacks {}\n  hint: build pixi-image on a system whose C library is not \
         newer than the base's (Debian trixie), or name another base with `--base FILE`", .missing.join(", ")
    )]
    Lacks {
        /// The program.
        path: PathBuf,
        /// Libraries, and versions of their symbols.
        missing: Vec<String>,
    },
    /// The base cannot be read.
    #[error(transparent)]
    Base(#[from] BaseError),
    /// A layer of the base cannot be read.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The image cannot be written.
    #[error("cannot make the base image with pixi: {0}")]
    Write(#[from] ArchiveError),
}

/// The image, and whether it was there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PixiBase {
    /// The digest of its manifest.
    pub digest: Digest,
    /// Whether nothing was left to do.
    pub unchanged: bool,
}

/// Writes the image in the archive `base`, with `pixi` as /usr/local/bin/pixi in a layer of its own, to the archive `out`.
///
/// The same base and program give the same bytes. Nothing is written where `out` is made of them already.
pub fn add_pixi(base: &Path, pixi: &Path, out: &Path) -> Result<PixiBase, PixiBaseError> {
    let foreign = |found: String| PixiBaseError::Foreign { path: pixi.to_owned(), found };
    let bytes = read(pixi).map_err(|source| PixiBaseError::Unreadable { path: pixi.to_owned(), source })?;
    let program = Program::parse(bytes).map_err(foreign)?;
    if program.architecture != ARCHITECTURE {
        return Err(foreign(format!("a program for linux/{}", program.architecture)));
    }
    let base = Base::open(base, ARCHITECTURE)?;
    let found = Found::in_base(&base, &program)?;
    let missing = found.missing(&program);
    if !missing.is_empty() {
        return Err(PixiBaseError::Lacks { path: pixi.to_owned(), missing });
    }
    let stripped = program.stripped();
    let labels = BTreeMap::from([
        (BASE_LABEL.to_owned(), base.image.digest.to_string()),
        (PROGRAM_LABEL.to_owned(), Digest::of(&stripped).to_string()),
    ]);
    if let Ok(Base { image, .. }) = Base::open(out, ARCHITECTURE)
        && labels.iter().all(|(key, value)| label(&image, key) == Some(value))
    {
        return Ok(PixiBase { digest: image.digest, unchanged: true });
    }
    let digest = write(&base, &found, &stripped, labels, out)?;
    Ok(PixiBase { digest, unchanged: false })
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = std::fs::File::open(path)?;
    if file.metadata()?.len() > PROGRAM_LIMIT {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn label<'a>(image: &'a Image, key: &str) -> Option<&'a String> {
    image.config.config().as_ref()?.labels().as_ref()?.get(key)
}

fn write(
    base: &Base,
    found: &Found<'_>,
    program: &[u8],
    labels: BTreeMap<String, String>,
    out: &Path,
) -> Result<Digest, PixiBaseError> {
    let compressors = Compressors::start(std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN));
    let directory = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut archive = ArchiveWriter::create(out)?;
    let pack = PackFile::temporary::<ArchiveError>(directory, |file| {
        let mut writer = PackWriter::new(file, &compressors, Targets::Both, |_| false);
        push(found, program, &mut writer).map_err(ArchiveError::Source)?;
        let (index, mut file) = writer.finish().map_err(ArchiveError::Source)?;
        file.flush().map_err(ArchiveError::Source)?;
        Ok(index)
    })?;
    let mut layers = copy_layers(base, &mut archive)?;
    let (digest, size) = archive.layer(&[&pack], &Silent)?;
    layers.push(Layer {
        descriptor: archive::descriptor(MediaType::ImageLayerGzip, digest, size)?,
        diff_id: pack.index.diff_id.map(|id| id.to_string()).unwrap_or_default(),
        history: archive::history(EPOCH.into(), &format!("rehearsal: /{PLACE}"))?,
    });
    let mut image = base.image.config.clone();
    let mut config = image.config().clone().unwrap_or_default();
    let mut all: HashMap<String, String> = config.labels().clone().unwrap_or_default();
    all.extend(labels);
    config.set_labels(Some(all));
    image.set_config(Some(config));
    Ok(archive.finish(image, &layers, REFERENCE)?)
}

fn push(found: &Found<'_>, program: &[u8], sink: &mut dyn EntrySink) -> io::Result<()> {
    let place = ImagePath::new(PLACE).map_err(io::Error::other)?;
    let mut directories: Vec<_> = std::iter::successors(place.parent(), ImagePath::parent).collect();
    directories.reverse();
    // Those of the base keep their modes.
    for path in directories.into_iter().filter(|path| !found.directories.contains(path)) {
        sink.entry(&Entry { path, kind: EntryKind::Directory, mode: Mode::EXECUTABLE, mtime: EPOCH })?;
    }
    push_file(sink, place, Mode::EXECUTABLE, EPOCH, program)
}

/// The base's layers as they are, so that engines know them already.
fn copy_layers(base: &Base, archive: &mut ArchiveWriter) -> Result<Vec<Layer>, PixiBaseError> {
    let told: Vec<History> = base.image.config.history().iter().flatten().cloned().collect();
    let mut told = told.into_iter().filter(|history| history.empty_layer() != Some(true));
    let mut layers = Vec::new();
    for (descriptor, diff_id) in base.image.manifest.layers().iter().zip(base.image.config.rootfs().diff_ids()) {
        let mut blob = base.source.blob(descriptor)?;
        archive.blob(|out| io::copy(&mut blob, out).map(drop).map_err(CopyError::Source))?;
        let history = told.next().unwrap_or_default();
        layers.push(Layer { descriptor: descriptor.clone(), diff_id: diff_id.clone(), history });
    }
    Ok(layers)
}

/// What the base has of that which the program and its layer need.
struct Found<'p> {
    program: &'p BTreeSet<String>,
    directories: BTreeSet<ImagePath>,
    /// The names of libraries, also where they are links.
    names: BTreeSet<String>,
    /// The versions that libraries define, by the name of the file.
    versions: BTreeMap<String, BTreeSet<String>>,
    reading: Option<(String, Vec<u8>)>,
}

impl<'p> Found<'p> {
    fn in_base(base: &Base, program: &'p Program) -> Result<Self, BaseError> {
        let mut found = Self {
            program: &program.libraries,
            directories: BTreeSet::new(),
            names: BTreeSet::new(),
            versions: BTreeMap::new(),
            reading: None,
        };
        (0..base.depth()).try_for_each(|layer| base.push_layer(layer, &mut found))?;
        found.end_library();
        Ok(found)
    }

    fn missing(&self, program: &Program) -> Vec<String> {
        let libraries = program.libraries.iter().filter(|name| !self.names.contains(*name)).cloned();
        let versions = program
            .versions
            .iter()
            .filter(|(library, version)| self.versions.get(library).is_some_and(|defined| !defined.contains(version)));
        libraries.chain(versions.map(|(library, version)| format!("{version} of {library}"))).collect()
    }

    fn end_library(&mut self) {
        let Some((name, bytes)) = self.reading.take() else { return };
        if let Ok(versions) = elf::defined_versions(&bytes) {
            self.versions.insert(name, versions);
        }
    }
}

impl EntrySink for Found<'_> {
    fn entry(&mut self, entry: &Entry) -> io::Result<()> {
        self.end_library();
        let name = String::from_utf8_lossy(entry.path.file_name()).into_owned();
        // A directory need not have an entry of its own.
        let is_directory = entry.kind == EntryKind::Directory;
        self.directories.extend(std::iter::successors(entry.path.parent(), ImagePath::parent));
        self.directories.extend(is_directory.then(|| entry.path.clone()));
        // The loader's own places (ld.so(8)): below /lib and /usr/lib.
        let in_place = entry.path.parts().next().is_some_and(|first| first.starts_with(b"lib"))
            || entry.path.as_bytes().starts_with(b"usr/lib");
        if in_place && self.program.contains(&name) {
            if matches!(entry.kind, EntryKind::File { size } if size <= LIBRARY_LIMIT) {
                self.reading = Some((name.clone(), Vec::new()));
            }
            self.names.insert(name);
        }
        Ok(())
    }

    fn data(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some((_, library)) = &mut self.reading {
            library.extend_from_slice(bytes);
        }
        Ok(())
    }
}
