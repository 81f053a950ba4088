//! The images that the lesson's own engines build by its recipes, in a clone of their own.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::{Context as _, ensure};

use super::apptainer::as_user;
use super::command::{Outcome, command, run};
use super::oci::{DOCKER, Engine, Loaded, names};
use super::rehearsal::{Checkout, SCRIPT_SAYS, TAG};

/// Another port than that of the other clones, which serve their channel without a base image. It is the same in every
/// run: it stands in the lock, and what Docker keeps from an earlier build would never fit.
pub const PORT: &str = "8766";
/// Where the recipes as printed are written.
const EXACT: &str = "target/xtask/rehearsal/cuda-exercise/exact";
/// The workspace that is built, a copy of the learner's.
const WORKSPACE: &str = "target/rehearsal/cuda-exercise";

/// The lesson's images, each built when somebody first asks for it.
pub struct Lesson {
    checkout: Checkout,
    // Each build serves the channel while it works, and they share the clone.
    building: Mutex<()>,
    stored: [OnceLock<Result<Stored, String>>; 4],
    sifs: [OnceLock<Result<PathBuf, String>>; 2],
}

/// An image in the store of the engine that built it, and its archive.
pub struct Stored {
    /// In the store, under a name of this run.
    pub image: Loaded,
    /// `target/containers/*.oci.tar`.
    pub archive: PathBuf,
}

/// Ours, or the lesson's as printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Recipe {
    Ours,
    Exact,
}

/// The README's block of output after the words `after`, line by line, commands apart.
fn shown_is_said(after: &str, said: &Outcome) -> anyhow::Result<()> {
    const README: &str = include_str!("../../../README.md");
    let block = README.split(after).nth(1).and_then(|rest| rest.split("```text\n").nth(1)?.split("```").next());
    let block = block.with_context(|| format!("the README shows what comes {after}"))?;
    for line in block.lines().filter(|line| !line.starts_with("$ ")) {
        ensure!(said.both().contains(line), "the README shows `{line}`, which is not said{}", said.transcript());
    }
    Ok(())
}

impl Recipe {
    pub fn option(self) -> Option<&'static str> {
        (self == Self::Exact).then_some("--exact")
    }

    /// What images of it are named with.
    pub fn suffix(self) -> &'static str {
        if self == Self::Exact { "-exact-rehearsal" } else { "-rehearsal" }
    }
}

impl Lesson {
    /// Prepares everything up to the recipes in `checkout`, a new one, with the channel and base of `other`.
    ///
    /// # Errors
    /// When a step fails.
    pub fn prepare(checkout: Checkout, other: &Checkout) -> anyhow::Result<Self> {
        checkout.take_rehearsal(other)?;
        let lesson = Self { checkout, building: Mutex::new(()), stored: Default::default(), sifs: Default::default() };
        for step in ["edit", "lock"] {
            run(lesson.xtask(&[step]))?.exits(0)?;
        }
        for format in ["docker", "apptainer"] {
            run(lesson.xtask(&["recipe", format]))?.exits(0)?;
            run(lesson.xtask(&["recipe", format, "--exact"]))?.exits(0)?;
        }
        Ok(lesson)
    }

    /// `cargo xtask` with these arguments in the clone, by whoever runs these tests.
    pub fn xtask(&self, arguments: &[&str]) -> Command {
        let mut command = self.checkout.xtask_with_engines(arguments);
        command.args(["--rehearsal-port", PORT]);
        command
    }

    /// `command`, by an ordinary user where there is an `apptainer` on PATH.
    pub fn with_apptainer(&self, command: &Command) -> Command {
        as_user(&self.checkout.user, &self.checkout.directories(), command)
    }

    /// The clone.
    pub fn checkout(&self) -> &Checkout {
        &self.checkout
    }

    /// The workspace that is built.
    pub fn workspace(&self) -> PathBuf {
        self.checkout.path(WORKSPACE)
    }

    /// The image that Docker or Podman built.
    ///
    /// # Errors
    /// When the build fails, each time the same.
    pub fn stored(&self, engine: Engine, recipe: Recipe) -> anyhow::Result<&Stored> {
        let cell = &self.stored[usize::from(engine.0 == DOCKER.0) + 2 * usize::from(recipe == Recipe::Exact)];
        super::shared(cell, || self.build_stored(engine, recipe)).with_context(|| format!("build with {}", engine.0))
    }

    /// The SIF that Apptainer built, as an ordinary user. The lesson's recipe as printed fails in its own `%test` (T08),
    /// which is left out for it.
    ///
    /// # Errors
    /// When the build fails, each time the same.
    pub fn sif(&self, recipe: Recipe) -> anyhow::Result<&Path> {
        let cell = &self.sifs[usize::from(recipe == Recipe::Exact)];
        super::shared(cell, || self.build_sif(recipe)).context("build with apptainer").map(PathBuf::as_path)
    }

    fn build_stored(&self, engine: Engine, recipe: Recipe) -> anyhow::Result<Stored> {
        let (_building, _names) = (self.building(), names());
        let mut command = self.xtask(&["build", "docker", "--engine", engine.0]);
        command.args(recipe.option());
        let said = run(command)?.exits(0)?;
        let image = match recipe {
            Recipe::Ours => {
                // The image was tried before it got its name.
                ensure!(said.both().contains(SCRIPT_SAYS), "the script did not run{}", said.transcript());
                if engine.0 == DOCKER.0 {
                    shown_is_said("of `cargo xtask build docker", &said)?;
                }
                engine.adopt(TAG, engine.0)?
            }
            Recipe::Exact => {
                engine.adopt(&TAG.replace("-rehearsal", recipe.suffix()), &format!("{}-exact", engine.0))?
            }
        };
        // Docker and Podman write to the same place.
        let built = self.container(recipe, "oci.tar");
        let archive = built.with_file_name(format!("{}{}.oci.tar", engine.0, recipe.suffix()));
        std::fs::rename(&built, &archive).with_context(|| format!("rename {}", built.display()))?;
        Ok(Stored { image, archive })
    }

    fn build_sif(&self, recipe: Recipe) -> anyhow::Result<PathBuf> {
        let sif = self.container(recipe, "sif");
        match recipe {
            Recipe::Ours => {
                let _building = self.building();
                self.checkout.user.own(&self.checkout.path("target"))?;
                let build = self.xtask(&["build", "apptainer", "--engine", "apptainer"]);
                let said = run(self.with_apptainer(&build))?.exits(0)?.says(SCRIPT_SAYS)?;
                shown_is_said("of `cargo xtask build apptainer", &said)?;
            }
            Recipe::Exact => {
                self.apptainer_build_exact(&["--notest"], &sif)?.exits(0)?;
            }
        }
        ensure!(sif.is_file(), "{} was not made", sif.display());
        Ok(sif)
    }

    /// Types `apptainer build OPTIONS SIF DEF` in the workspace, with the definition file as printed in the lesson.
    pub fn apptainer_build_exact(&self, options: &[&str], sif: &Path) -> anyhow::Result<Outcome> {
        let _building = self.building();
        self.checkout.user.own(&self.checkout.path("target"))?;
        if let Some(directory) = sif.parent() {
            std::fs::create_dir_all(directory).with_context(|| format!("make {}", directory.display()))?;
            self.checkout.user.own(directory)?;
        }
        let _server = self.serve()?;
        let mut build = command!("apptainer", "build", "--no-https");
        build.args(options).arg(sif).arg(self.checkout.path(EXACT).join("apptainer.def"));
        build.current_dir(self.checkout.path(WORKSPACE));
        run(self.with_apptainer(&build))
    }

    /// Serves the channel and the base image with pixi, as `cargo xtask build` does while it works.
    pub fn serve(&self) -> anyhow::Result<Server> {
        let source = |name: &str| self.checkout.path("target/rehearsal/source").join(name);
        let rehearsal = self.checkout.program("rehearsal");
        let mut image = command!(&rehearsal, "add-pixi", "--base", source("base.oci.tar"), "--pixi");
        image.arg(self.checkout.program("pixi-image")).arg("--out").arg(source("pixi.oci.tar"));
        run(image)?.exits(0)?;
        let mut serve = command!(&rehearsal, "serve", "--channel", source("channel"), "--port", PORT, "--image");
        serve.arg(source("pixi.oci.tar")).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = serve.spawn().context("start the rehearsal's server")?;
        let mut address = String::new();
        if let Some(stdout) = process.stdout.take() {
            BufReader::new(stdout).read_line(&mut address).context("read where the channel is served")?;
        }
        ensure!(address.contains(PORT), "the channel is not served at {PORT}, but at `{address}`");
        Ok(Server(process))
    }

    fn container(&self, recipe: Recipe, ending: &str) -> PathBuf {
        self.checkout.path(&format!("target/containers/cuda-exercise-gpu{}.{ending}", recipe.suffix()))
    }

    /// To be held while nothing may be built, or the port be used.
    pub fn building(&self) -> MutexGuard<'_, ()> {
        self.building.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The server of the rehearsal's channel, for as long as this value lives.
pub struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}
