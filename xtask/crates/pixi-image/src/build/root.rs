//! What the image holds and declares, before any format: the parts in stacking order, activation, labels, time.

use std::collections::BTreeMap;
use std::path::Path;

use super::packs::{self, PackagePack};
use super::placing::Placed;
use super::stack::{Stack, insert};
use super::{BuildError, Request, architecture};
use crate::activation::{Activation, ActivationInput, ENTRYPOINT_PATH, FileKind, Files as ImageFiles, Script, Shell};
use crate::entry::{EntrySink, ImagePath, Mode};
use crate::model::{Environment, LockedPackage, Prefix};
use crate::pack::{Compressors, PackFile, PackedContent, Targets};
use crate::progress::Progress;
use crate::singularity::{self, Item, Metadata};
use crate::source::app::{self, AppInput};
use crate::squashfs::Fragment;
use crate::store::Store;
use crate::tree::{FileData, FragmentRef, Node, NodeId, NodeKind, Tree, TreeError};

/// Where the shells of a base image are looked for.
const BASH: &str = "/bin/bash";
const SH: &str = "/bin/sh";

/// The workspace's own files, which go into the image as they are.
pub struct Files {
    pub manifest: String,
    pub lock: Vec<u8>,
}

/// Everything that both formats are written from.
pub struct Root<'a> {
    /// The name of the environment.
    pub environment: String,
    pub base: Option<&'a Stack<'a>>,
    pub packages: Vec<&'a PackagePack>,
    /// Manifest, lock, entrypoint, application files.
    pub app: PackFile,
    /// `/.singularity.d` and what a SIF must have beside it.
    pub singularity: PackFile,
    pub activation: Activation,
    pub labels: BTreeMap<String, String>,
    pub definition: Vec<u8>,
    pub inspect_metadata: Vec<u8>,
    pub architecture: &'static str,
    /// Seconds since 1970-01-01 UTC.
    pub created: i64,
}

impl<'a> Root<'a> {
    /// Works out activation and labels and packs what only this image has.
    #[allow(clippy::too_many_arguments)] // the ends of all earlier steps meet here, once
    pub fn compose(
        request: &Request,
        environment: &Environment,
        files: &Files,
        base: Option<&'a Stack<'a>>,
        packages: Vec<&'a PackagePack>,
        compressors: &Compressors,
        store: &Store,
        progress: &dyn Progress,
    ) -> Result<Self, BuildError> {
        let (installed, prefix) = (&Prefix::of_packages(), &Prefix::of_environment(&environment.name));
        let empty = Tree::new(Mode::EXECUTABLE, 0);
        let base_tree = base.map_or(&empty, |base| &base.tree);
        have_room(base_tree, [installed, prefix])?;
        let workspace = workspace_name(&request.reference);
        let scripts = activation_scripts(&packages, installed, prefix);
        let activation = Activation::new(ActivationInput {
            environment,
            prefix,
            workspace_name: workspace,
            files: &files_for(&scripts, base_tree, &packages, prefix)?,
            scripts,
            env_vars: captured(&packages, installed, ENV_VARS)
                .map(|(path, content)| (path.clone(), content.clone()))
                .collect(),
            base_env: base_env(base),
            shell: find_shell(base_tree, &packages, installed, prefix),
        })?;
        warn_of_activation(&activation, progress);
        let created = created(request, environment);
        let labels = labels(request, environment, base, created);

        let entrypoint = activation.entrypoint();
        let app_input = AppInput {
            application: request.app.as_deref(),
            manifest: files.manifest.as_bytes(),
            lock: &files.lock,
            environment,
            entrypoint: entrypoint.as_ref(),
            mtime: mtime(created),
        };
        let app = packs::temporary(compressors, Targets::Both, "the application files", store, |sink| {
            Ok(app::push(&app_input, sink)?)
        })?;
        let base_name = base.map(|base| base.reference);
        let metadata = Metadata { environment, activation: &activation, labels: &labels, base: base_name };
        let singularity = packs::temporary(compressors, Targets::SquashfsOnly, "/.singularity.d", store, |sink| {
            push_singularity(&metadata, base_tree, mtime(created), sink)
        })?;
        let (definition, inspect_metadata) = (metadata.definition().into_bytes(), metadata.inspect_metadata());
        Ok(Self {
            environment: environment.name.clone(),
            definition,
            inspect_metadata,
            architecture: architecture(environment.subdir)?,
            base,
            packages,
            app,
            singularity,
            activation,
            labels,
            created,
        })
    }

    /// The tree of a SIF: all packs merged, which lie where `placed` says, with the packages where they are shown; and the
    /// fragments.
    pub fn merge(&self, placed: &[Placed<'_>]) -> Result<(Tree, Vec<Fragment>), BuildError> {
        let mut tree = Tree::new(Mode::EXECUTABLE, mtime(self.created));
        let mut fragments = Vec::new();
        for one in placed {
            let first_fragment = fragments.len() as u32;
            insert(&mut tree, one.pack, &|_, content| FileData {
                size: content.size,
                start: one.place(content.start),
                blocks: content.blocks.clone(),
                fragment: content.fragment.map(|(index, offset)| FragmentRef { index: first_fragment + index, offset }),
                sparse: content.sparse,
            })?;
            let of_pack = one.pack.index.fragments.iter();
            fragments.extend(of_pack.map(|(at, size)| Fragment { start: one.place(*at), size: *size }));
        }
        if let [Ok(packages), Ok(shown)] = [Prefix::of_packages(), Prefix::of_environment(&self.environment)]
            .map(|place| ImagePath::new(place.relative()))
            && tree.rename(&packages, &shown)?
        {
            tree.insert_symlink(&packages, Prefix::link_in_sif(&self.environment), mtime(self.created))?;
        }
        Ok((tree, fragments))
    }
}

/// Where contents lie in a tree that only tells which files there are.
fn nowhere(_: usize, content: &PackedContent) -> FileData {
    FileData { size: content.size, ..FileData::default() }
}

/// Refuses a base in which one of `places` would be written through something else than directories, or is taken: an
/// environment of the base would be mixed with ours, or hidden by it.
fn have_room(tree: &Tree, places: [&Prefix; 2]) -> Result<(), BuildError> {
    for place in places.into_iter().filter_map(|place| ImagePath::new(place.relative()).ok()) {
        let is_directory = |node: &Node| matches!(node.kind, NodeKind::Directory(_));
        let mut above = std::iter::successors(place.parent(), ImagePath::parent);
        if let Some(path) = above.find(|path| tree.get(path).is_some_and(|(_, node)| !is_directory(node))) {
            return Err(BuildError::BaseInTheWay { path: format!("/{path}") });
        }
        let is_free = |node: &Node| matches!(&node.kind, NodeKind::Directory(children) if children.is_empty());
        if tree.get(&place).is_some_and(|(_, node)| !is_free(node)) {
            return Err(BuildError::BaseHasEnvironment { path: format!("/{place}") });
        }
    }
    Ok(())
}

fn base_env(base: Option<&Stack<'_>>) -> Vec<String> {
    let config = base.and_then(|base| base.base.image.config.config().as_ref());
    config.and_then(|config| config.env().clone()).unwrap_or_default()
}

/// The base's bash, else the environment's own, else the base's sh: only bash reads every activation script.
fn find_shell(base: &Tree, packages: &[&PackagePack], installed: &Prefix, shown: &Prefix) -> Option<Shell> {
    let in_base = |path: &str| ImagePath::new(&path[1..]).ok().and_then(|path| base.resolve(&path)).is_some();
    let own = format!("{}/bin/bash", installed.relative());
    let in_environment =
        || packages.iter().flat_map(|p| &p.file.index.entries).any(|entry| entry.path.as_bytes() == own.as_bytes());
    if in_base(BASH) {
        Some(Shell::Bash(BASH.into()))
    } else if in_environment() {
        Some(Shell::Bash(format!("{}/bin/bash", shown.as_str())))
    } else {
        in_base(SH).then(|| Shell::Posix(SH.into()))
    }
}

/// Says what `docker exec`, which passes no entrypoint, will miss.
fn warn_of_activation(activation: &Activation, progress: &dyn Progress) {
    let Some(reason) = activation.not_static() else { return };
    let without_shell = activation.scripts_without_shell();
    for script in without_shell {
        progress.warn(&format!("{script} will not run: the image has no shell; use a base image that has one"));
    }
    progress.warn(&if without_shell.is_empty() {
        format!(
            "what the activation scripts set is not known before they run ({reason}): they run when a container starts, \
             and `docker exec` misses it\n  hint: start commands with `docker exec CONTAINER {ENTRYPOINT_PATH} COMMAND`"
        )
    } else {
        format!("what the activation scripts set is not known before they run: {reason}")
    });
}

/// What activation reads, relative to an environment.
const ENV_VARS: &str = "etc/conda/env_vars.d";
const ACTIVATE: &str = "etc/conda/activate.d";

/// The files that were kept while packing, of one directory of the environment.
fn captured<'a>(
    packages: &'a [&'a PackagePack],
    installed: &Prefix,
    directory: &str,
) -> impl Iterator<Item = &'a (ImagePath, Vec<u8>)> {
    let directory = format!("{}/{directory}", installed.relative());
    let all = packages.iter().flat_map(|package| &package.file.index.captured);
    all.filter(move |(path, _)| path.parent().is_some_and(|parent| parent.as_bytes() == directory.as_bytes()))
}

/// The environment's scripts, by the paths that `pixi shell-hook` names.
fn activation_scripts(packages: &[&PackagePack], installed: &Prefix, shown: &Prefix) -> Vec<Script> {
    let directory = format!("{}/{ACTIVATE}", installed.relative());
    let contents: BTreeMap<_, _> =
        captured(packages, installed, ACTIVATE).map(|(path, content)| (path, content)).collect();
    let entries = packages.iter().flat_map(|package| &package.file.index.entries);
    let scripts = entries.map(|entry| &entry.path).filter(|path| path.file_name().ends_with(b".sh"));
    let scripts = scripts.filter(|path| path.parent().is_some_and(|parent| parent.as_bytes() == directory.as_bytes()));
    let shown = format!("{}/{ACTIVATE}/", shown.relative());
    let script = |path: &ImagePath| Script {
        path: ImagePath::new([shown.as_bytes(), path.file_name()].concat()).unwrap_or_else(|_| path.clone()),
        content: contents.get(path).map(|content| (*content).clone()),
    };
    scripts.map(script).collect()
}

/// The files of the base and of all packages, and the link to these, merged where there is a script that may ask for them.
fn files_for(scripts: &[Script], base: &Tree, packages: &[&PackagePack], shown: &Prefix) -> Result<Merged, TreeError> {
    let mut tree = Tree::new(Mode::EXECUTABLE, 0);
    if !scripts.is_empty() {
        tree = base.clone();
        for package in packages {
            insert(&mut tree, &package.file, &nowhere)?;
        }
        if let Ok(shown) = ImagePath::new(shown.relative()) {
            tree.insert_symlink(&shown, Prefix::LINK, 0)?;
        }
    }
    Ok(Merged(tree))
}

struct Merged(Tree);

impl Merged {
    fn node(&self, path: &str) -> Option<&Node> {
        match path.trim_matches('/') {
            "" => Some(self.0.node(NodeId::ROOT)),
            path => Some(self.0.get(&self.0.resolve(&ImagePath::new(path).ok()?)?)?.1),
        }
    }
}

impl ImageFiles for Merged {
    fn kind(&self, path: &str) -> Option<FileKind> {
        let node = self.node(path)?;
        match &node.kind {
            NodeKind::Directory(_) => Some(FileKind::Directory { mode: node.mode.0 }),
            NodeKind::File(data) => Some(FileKind::File { mode: node.mode.0, size: data.size }),
            NodeKind::Symlink(_) => None,
        }
    }

    fn names(&self, directory: &str) -> Vec<Vec<u8>> {
        match self.node(directory).map(|node| &node.kind) {
            Some(NodeKind::Directory(children)) => children.keys().map(|name| name.to_vec()).collect(),
            _ => Vec::new(),
        }
    }
}

/// The name without registry and tag.
fn workspace_name(reference: &str) -> &str {
    let last = reference.rsplit('/').next().unwrap_or(reference);
    last.split([':', '@']).next().unwrap_or(last)
}

/// The time of the image, in seconds since 1970: images of the same lock carry the same one, whenever they are built.
pub fn created(request: &Request, environment: &Environment) -> i64 {
    let conda = environment.packages.iter().filter_map(LockedPackage::conda);
    let times = conda.filter_map(|package| package.record.package_record.timestamp.as_ref());
    request.created.unwrap_or_else(|| times.map(|time| time.timestamp()).max().unwrap_or(0))
}

/// The same as files have it.
pub fn mtime(created: i64) -> u32 {
    u32::try_from(created.max(0)).unwrap_or(u32::MAX)
}

/// Labels of org.opencontainers.image.* (OCI image-spec, annotations.md), then the caller's.
fn labels(
    request: &Request,
    environment: &Environment,
    base: Option<&Stack<'_>>,
    created: i64,
) -> BTreeMap<String, String> {
    let base_labels = base
        .and_then(|base| base.base.image.config.config().as_ref())
        .and_then(|config| config.labels().clone())
        .unwrap_or_default();
    // What the base says of itself is not true of this image.
    let inherited = base_labels.into_iter().filter(|(key, _)| !key.starts_with("org.opencontainers.image."));
    let mut labels: BTreeMap<String, String> = inherited.collect();
    let mut set = |key: &str, value: String| labels.insert(format!("org.opencontainers.image.{key}"), value);
    set("title", format!("{} ({})", workspace_name(&request.reference), environment.name));
    set("created", crate::archive::rfc3339(created));
    if let Some(base) = base {
        set("base.name", base.reference.to_owned());
        set("base.digest", base.base.image.digest.to_string());
    }
    labels.extend(request.labels.clone());
    labels
}

fn push_singularity(
    metadata: &Metadata<'_>,
    base: &Tree,
    mtime: u32,
    sink: &mut dyn EntrySink,
) -> Result<(), BuildError> {
    let missing = |(entry, _): &Item| base.get(&entry.path).is_none();
    let items = singularity::skeleton(mtime).into_iter().filter(missing).chain(metadata.entries(mtime));
    for (entry, content) in items {
        let pushed = sink.entry(&entry).and_then(|()| sink.data(&content));
        pushed.map_err(|source| BuildError::Packing { what: "/.singularity.d".into(), source })?;
    }
    Ok(())
}

/// Reads a file of the workspace.
pub fn read(path: &Path) -> Result<Vec<u8>, BuildError> {
    std::fs::read(path).map_err(|source| BuildError::Input { path: path.to_owned(), source })
}
