//! Docker and Podman, which load the archive and run it; skopeo and umoci, which read it.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, ensure};

use super::command::{command, read, run};
use super::rehearsal::{SCRIPT, SCRIPT_SAYS, TAG};

/// A command line in the manner of `docker`.
#[derive(Clone, Copy)]
pub struct Engine(pub &'static str);

pub const DOCKER: Engine = Engine("docker");
pub const PODMAN: Engine = Engine("podman");

impl Engine {
    /// Whether it works here: a daemon answers, containers can be stored.
    pub fn works(self) -> bool {
        run(command!(self.0, "info")).and_then(|info| info.exits(0)).is_ok()
    }

    /// Loads the archive.
    ///
    /// # Errors
    /// When it is refused or comes under another name than [`TAG`].
    pub fn load(self, archive: &Path) -> anyhow::Result<Loaded> {
        let _names = names();
        let said = read(command!(self.0, "load", "--input", archive))?;
        let reference = said.trim().rsplit(' ').next().context("the engine names what it loaded")?;
        let name = short(reference);
        ensure!(name == TAG, "{} loaded the archive as {reference}, not as {TAG}", self.0);
        self.adopt(name, "native")
    }

    /// Takes an image over from the name that its maker gave it, which the next one of that name would take away.
    pub fn adopt(self, reference: &str, maker: &str) -> anyhow::Result<Loaded> {
        static ADOPTED: AtomicU32 = AtomicU32::new(0);
        let number = ADOPTED.fetch_add(1, Ordering::Relaxed);
        let adopted = format!("xtask-interop/{}-{number}:{maker}", std::process::id());
        read(command!(self.0, "tag", reference, &adopted))?;
        let adopted = Loaded { engine: self, reference: adopted };
        let names = "{{range .RepoTags}}{{println .}}{{end}}";
        let names = read(command!(self.0, "image", "inspect", "--format", names, &adopted.reference))?;
        // The name in question, and the aliases that a build gives.
        let name = reference.split(':').next().unwrap_or(reference);
        let given = |other: &&str| short(other).starts_with(&format!("{name}:"));
        for other in names.lines().filter(given) {
            read(command!(self.0, "rmi", other))?;
        }
        Ok(adopted)
    }
}

/// A name without the registry that Podman puts before it.
fn short(reference: &str) -> &str {
    reference.trim_start_matches("localhost/").trim_start_matches("docker.io/library/")
}

/// To be held while the names that the exercise gives its images are in use: all makers of images give the same ones.
pub fn names() -> MutexGuard<'static, ()> {
    static NAMES: Mutex<()> = Mutex::new(());
    NAMES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An image in an engine's store; it leaves with this value.
pub struct Loaded {
    pub engine: Engine,
    pub reference: String,
}

impl Loaded {
    /// `docker run OPTIONS IMAGE ARGUMENTS`, without a network.
    pub fn container(&self, options: &[&str], arguments: &[&str]) -> Command {
        let mut command = command!(self.engine.0, "run", "--rm", "--network", "none");
        command.args(options).arg(&self.reference).args(arguments);
        command
    }

    /// Runs it in the ways that a learner would and some that go wrong with the lesson's recipe.
    pub fn check(&self) -> anyhow::Result<()> {
        run(self.container(&[], &["python", SCRIPT]))?.exits(0)?.says(SCRIPT_SAYS)?;
        run(self.container(&[], &["sh", "-c", "exit 7"]))?.exits(7)?;
        // T04: without a command and without a terminal.
        run(self.container(&[], &[]))?.exits(64)?;
        // T14, T19: everything is readable for a user that the image does not know, on a read-only root.
        run(self.container(&["--user", "4321:4321", "--read-only"], &["python", SCRIPT]))?
            .exits(0)?
            .says(SCRIPT_SAYS)?;
        // T05, T15: the configuration's environment is enough.
        run(self.container(&["--entrypoint", "python"], &[SCRIPT]))?.exits(0)?.says(SCRIPT_SAYS)?;
        Ok(())
    }
}

impl Drop for Loaded {
    fn drop(&mut self) {
        // An image that stays behind costs disk, not correctness.
        let _ = run(command!(self.engine.0, "rmi", "--force", &self.reference));
    }
}

/// Both of skopeo's ways into the archive lead to one image, whose blobs it can copy and verify.
pub fn skopeo_reads(archive: &Path, scratch: &Path) -> anyhow::Result<()> {
    let mut configurations = Vec::new();
    for transport in ["oci-archive", "docker-archive"] {
        let source = reference(transport, archive)?;
        let labels = read(command!("skopeo", "inspect", "--format", "{{.Labels}}", &source))?;
        ensure!(labels.contains("rehearsal"), "{source} has no label that says `rehearsal`: {labels}");
        configurations.push(read(command!("skopeo", "inspect", "--config", "--raw", &source))?);
        let copy = scratch.join(transport);
        read(command!("skopeo", "copy", &source, reference("dir", &copy)?))?;
    }
    ensure!(configurations[0] == configurations[1], "the two transports show different configurations");
    Ok(())
}

/// Unpacks the archive with umoci into `scratch` and returns the root file system.
pub fn umoci_unpack(archive: &Path, scratch: &Path) -> anyhow::Result<std::path::PathBuf> {
    let layout = scratch.join("layout");
    std::fs::create_dir(&layout).with_context(|| format!("make {}", layout.display()))?;
    read(command!("tar", "--extract", "--file", archive, "--directory", &layout))?;
    let tags = read(command!("umoci", "list", "--layout", &layout))?;
    let tag = tags.lines().next().context("the layout has no tag")?;
    let bundle = scratch.join("bundle");
    let mut unpack = command!("umoci", "unpack");
    if !super::user::is_root()? {
        unpack.arg("--rootless");
    }
    unpack.arg("--image").arg(format!("{}:{tag}", layout.display())).arg(&bundle);
    read(unpack)?;
    Ok(bundle.join("rootfs"))
}

fn reference(transport: &str, path: &Path) -> anyhow::Result<String> {
    Ok(format!("{transport}:{}", path.to_str().context("temporary directories have UTF-8 names")?))
}
