//! The images, and what they must hold.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context as _, ensure};
use pixi_image::layout::ImageSource;
use pixi_image::source::placement::GENERATED_MTIME;
use rattler::install::Installer;
use rattler::package_cache::PackageCache;
use rattler_conda_types::Subdir;

use crate::cases;
use crate::listing::{Kind, Listing, Seen};
use crate::packages::{Built, Format};
use crate::programs::{over, said, tar};
use crate::workspace::{OCI, SIF, Shelf, Workspace, succeeds};

/// Under which name engines load the image.
pub fn name() -> String {
    format!("pixi-image-readers-{}:test", std::process::id())
}

/// The directories of an image that are compared: what else there is belongs to one format alone, or is the C library.
pub const TOPS: &[&str] = &["app", "opt"];
/// Where packages stand in an OCI image; a link in a SIF.
pub const PREFIX: &str = "app/.pixi/environment";
/// Where packages stand in a SIF.
pub const PREFIX_IN_SIF: &str = "app/.pixi/envs/default";
/// What we write beside packages, base and application; other tests look into it.
const OURS: &[&str] = &[
    "app/pixi.toml",
    "app/pixi.lock",
    "app/.pixi/.gitignore",
    "app/.pixi/.condapackageignore",
    "app/.pixi/environment/conda-meta",
    "app/.pixi/envs",
];

pub struct Lab {
    pub workspace: Workspace,
    /// What the environment and the application must be, and the base, which in a SIF belongs to root.
    expected: Listing,
    base: Listing,
    layout: OnceLock<Result<Layout, String>>,
}

/// The OCI layout in the archive.
pub struct Layout {
    pub directory: PathBuf,
    /// The blobs of the layers, lowest first.
    pub layers: Vec<PathBuf>,
}

impl Lab {
    /// Makes the packages, the images, and the tree that others make of the same.
    pub fn set_up() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let mut shelf = Shelf::default();
        let mut built = Vec::new();
        for (number, package) in cases::packages().iter().enumerate() {
            let format = Format::ALL[number % 2];
            let made = package.write(directory.path(), format);
            shelf.add_bytes(package, format, fs::read(&made.archive)?);
            built.push(made);
        }
        let workspace = Workspace::of(shelf);
        cases::base(&workspace.work("base"), &[&std::env::current_exe()?]);
        fs::remove_dir_all(workspace.work("app"))?;
        cases::application(&workspace.work("app"));
        let name = name();
        let mut build = workspace.command(["build", "--base", "./base", "--reference", &name, "--app", "app"]);
        succeeds(build.args(["--oci", OCI, "--sif", SIF]));
        let mut expected = linked_by_rattler(&built, &workspace)?;
        expected.0.extend(application(&workspace)?);
        let base = unpacked_base(&workspace)?;
        Ok(Self { workspace, expected, base, layout: OnceLock::new() })
    }

    pub fn sif(&self) -> PathBuf {
        self.workspace.work(SIF)
    }

    /// Where the squashfs begins in the SIF, and its size.
    pub fn squashfs(&self) -> anyhow::Result<(u64, u64)> {
        Ok(pixi_image::sif::find_squashfs(&mut fs::File::open(self.sif())?)?)
    }

    /// The archive's layout, unpacked by GNU tar.
    pub fn layout(&self) -> anyhow::Result<&Layout> {
        let unpack = || {
            let directory = self.workspace.path("layout");
            fs::create_dir(&directory)?;
            said(Command::new("tar").arg("-xf").arg(self.workspace.work(OCI)).arg("-C").arg(&directory))?;
            let image = ImageSource::open(&directory)?.image("amd64")?;
            let blob =
                |layer: &oci_spec::image::Descriptor| directory.join("blobs/sha256").join(layer.digest().digest());
            let layers = image.manifest.layers().iter().map(blob).collect();
            Ok::<_, anyhow::Error>(Layout { directory, layers })
        };
        let layout = self.layout.get_or_init(|| unpack().map_err(|error| format!("{error:#}")));
        layout.as_ref().map_err(|error| anyhow::anyhow!("unpack the archive: {error}"))
    }

    /// A new directory on the disk of the images.
    pub fn scratch(&self) -> anyhow::Result<tempfile::TempDir> {
        let scratch = tempfile::tempdir_in(self.workspace.directory.path())?;
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755))?;
        Ok(scratch)
    }

    /// Compares what a reader of the SIF shows below `tops`.
    pub fn compare_sif(&self, found: Listing, tops: &[&str]) -> anyhow::Result<()> {
        let mut base = self.base.clone();
        base.0.values_mut().for_each(|seen| seen.owner = Some((0, 0)));
        self.compare(base, packages_moved(found, tops)?, tops)
    }

    /// Compares what a reader of the archive or its layers shows.
    pub fn compare_oci(&self, found: Listing) -> anyhow::Result<()> {
        self.compare(self.base.clone(), found, TOPS)
    }

    fn compare(&self, mut expected: Listing, mut found: Listing, tops: &[&str]) -> anyhow::Result<()> {
        expected.0.extend(self.expected.0.clone());
        let is_below = |path: &[u8], top: &str| {
            Path::new(top) == super::listing::path(path) || { super::listing::path(path).starts_with(top) }
        };
        expected.0.retain(|path, _| tops.iter().any(|top| is_below(path, top)));
        for ours in OURS {
            ensure!(!tops.contains(&"app") || found.0.contains_key(ours.as_bytes()), "{ours} is missing");
        }
        found.0.retain(|path, _| !OURS.iter().any(|ours| is_below(path, ours)));
        ensure!(expected.0.len() > 4, "nothing is compared");
        let differences = expected.differences(&found);
        let shown = &differences[..differences.len().min(40)];
        ensure!(differences.is_empty(), "{} paths differ:\n{}", differences.len(), shown.join("\n"));
        Ok(())
    }
}

/// What a SIF shows, with the packages where an OCI image has them.
fn packages_moved(found: Listing, tops: &[&str]) -> anyhow::Result<Listing> {
    let moved = |path: &[u8]| match path.strip_prefix(PREFIX_IN_SIF.as_bytes()) {
        Some(below) => [PREFIX.as_bytes(), below].concat(),
        None => path.to_vec(),
    };
    let mut found = found.0;
    let link = found.remove(PREFIX.as_bytes()).map(|seen| seen.kind);
    ensure!(!tops.contains(&"app") || link == Some(Kind::Symlink(b"envs/default".to_vec())), "{PREFIX} is {link:?}");
    let place = |(path, mut seen): (Vec<u8>, Seen)| {
        seen.names = seen.names.map(|(first, count)| (moved(&first), count));
        (moved(&path), seen)
    };
    Ok(Listing(found.into_iter().map(place).collect()))
}

/// The environment as rattler links it, seen from the root of the image.
fn linked_by_rattler(built: &[Built], workspace: &Workspace) -> anyhow::Result<Listing> {
    let root = workspace.path("rattler");
    let records: Vec<_> = built.iter().map(|built| built.locked.record.clone()).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let installer = Installer::new()
        .with_package_cache(PackageCache::new(workspace.path("rattler-cache")))
        .with_target_platform(Subdir::Linux64)
        .with_alternative_target_prefix(format!("/{PREFIX}"))
        .with_execute_link_scripts(false);
    runtime.block_on(installer.install(root.join(PREFIX), records)).context("install with rattler")?;
    let mut listing = Listing::of(&root, &["app"])?;
    // Files have names in rattler's cache too.
    listing.count_names();
    // Its own files, and directories for what another package lost, which are made and stay empty.
    let of_rattler = ["conda-meta", "CACHEDIR.TAG", "__clobbers__/clash-second"].map(|name| format!("{PREFIX}/{name}"));
    listing.0.retain(|path, _| !of_rattler.iter().any(|name| super::listing::path(path).starts_with(name)));
    for (path, seen) in &mut listing.0 {
        normalise(seen);
        if path.starts_with(format!("{PREFIX}/patched/").as_bytes()) {
            seen.names = None; // rattler makes files of their own of what it patches, also where they are alike
        }
        if seen.kind == Kind::Directory {
            let is_of_packages = path.starts_with(format!("{PREFIX}/").as_bytes());
            seen.mtime = is_of_packages.then_some(GENERATED_MTIME.into());
        }
    }
    fs::remove_dir_all(root)?;
    fs::remove_dir_all(workspace.path("rattler-cache"))?;
    Ok(listing)
}

/// The application as it lies on the disk. Its files become files of their own, of the image's time.
fn application(workspace: &Workspace) -> anyhow::Result<BTreeMap<Vec<u8>, Seen>> {
    let listing = Listing::of(&workspace.work(""), &["app"])?;
    let place = |(path, mut seen): (Vec<u8>, Seen)| {
        normalise(&mut seen);
        seen.mtime = None;
        let path = [b"app/src", &path[b"app".len()..]].concat();
        if let Some(names) = &mut seen.names {
            *names = (path.clone(), 1);
        }
        (path, seen)
    };
    Ok(listing.0.into_iter().map(place).collect())
}

/// Images carry neither a builder's umask nor an owner.
fn normalise(seen: &mut Seen) {
    seen.owner = Some((0, 0));
    seen.mode = seen.mode.map(|mode| if seen.kind == Kind::Directory || mode & 0o111 != 0 { 0o755 } else { 0o644 });
    if matches!(seen.kind, Kind::Symlink(_)) {
        seen.names = None; // links to a link may be links of their own
    }
}

/// The base as GNU tar unpacks it.
fn unpacked_base(workspace: &Workspace) -> anyhow::Result<Listing> {
    let directory = workspace.path("unpacked-base");
    fs::create_dir(&directory)?;
    let source = ImageSource::open(&workspace.work("base"))?;
    for layer in source.image("amd64")?.manifest.layers() {
        let blob = workspace.work("base").join("blobs/sha256").join(layer.digest().digest());
        over(&blob, &directory, |layer, root| said(tar().arg(layer).arg("-C").arg(root)))?;
    }
    let mut listing = Listing::of(&directory, &["opt"])?;
    listing.0.values_mut().filter(|seen| matches!(seen.kind, Kind::Symlink(_))).for_each(|seen| seen.names = None);
    fs::remove_dir_all(directory)?;
    Ok(listing)
}
