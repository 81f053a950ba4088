//! What an engine is: a program that builds, tests and runs images of both formats, or of one.

use anyhow::{Result, bail};

use crate::command_line::CommandLine;
use crate::context::Context;
use crate::external::Programs;

/// An image format, named after the tool that the lesson uses for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// An OCI archive that `docker load` and `podman load` read too
    #[value(alias = "oci")]
    Docker,
    /// An Apptainer or Singularity image
    #[value(alias = "sif")]
    Apptainer,
}

impl Format {
    /// Both, in the lesson's order.
    pub const ALL: [Self; 2] = [Self::Docker, Self::Apptainer];

    /// The name that is typed.
    pub fn name(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Apptainer => "apptainer",
        }
    }

    /// The ending of the file's name.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Docker => "oci.tar",
            Self::Apptainer => "sif",
        }
    }

    /// The file that says how the lesson's tool builds it.
    pub fn recipe(self) -> &'static str {
        match self {
            Self::Docker => "Dockerfile",
            Self::Apptainer => "apptainer.def",
        }
    }
}

/// The image files to make, and out of what. Paths are as typed.
pub struct BuildRequest {
    /// The workspace's directory.
    pub workspace: String,
    /// `pixi.lock`.
    pub lock: String,
    /// `pixi.toml`.
    pub manifest: String,
    /// The environment of the lock.
    pub environment: String,
    /// A registry reference, or an OCI archive. None: what the recipe names.
    pub base: Option<String>,
    /// Whether somebody asked for that base, so that a recipe which names another one is a mistake.
    pub base_typed: bool,
    /// The CUDA version that the environment is solved for; none: what the recipe or the lock names.
    pub cuda_version: Option<String>,
    /// The directory that becomes /app/src.
    pub app: String,
    /// `name:tag` of the image.
    pub reference: String,
    /// More names of it.
    pub aliases: Vec<String>,
    /// Labels, in order.
    pub labels: Vec<(String, String)>,
    /// The lock is taken as it is. A recipe has its own mind about that.
    pub frozen: bool,
    /// Nothing may be asked of the network.
    pub offline: bool,
    /// Where packages and the base image are kept, if not in the user's cache.
    pub cache: Option<String>,
    /// Packages and base are served over plain HTTP on this machine's loopback.
    pub loopback: bool,
    /// The lesson's recipe as printed, its traps included.
    pub exact: bool,
    /// What must run in an image before it gets its name.
    pub command: Vec<String>,
    /// What to write, and the recipe for it.
    pub outputs: Vec<Target>,
}

/// One image file to write. Paths are as typed.
pub struct Target {
    /// Its format.
    pub format: Format,
    /// Where it is written.
    pub path: String,
    /// The Dockerfile or definition file, which only the lesson's tools read.
    pub recipe: String,
}

/// An image file that an engine made.
pub struct Artifact {
    /// By what it is known, where the engine tells it: the digest of the OCI manifest or configuration, or of a SIF that was
    /// compared; `uuid:` and that of the header of one that was built.
    pub id: Option<String>,
    /// Where it was written.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
}

/// An image that was built.
pub struct Image {
    /// Its file, as typed.
    pub path: String,
    /// `name:tag`.
    pub reference: String,
    /// Whether this engine built it out of what is there now, so that an engine with a store of its own has it already.
    pub built_here: bool,
}

/// An image, and what it is checked against. Paths are as typed.
pub struct TestRequest {
    /// The image.
    pub image: Image,
    /// `pixi.lock`.
    pub lock: String,
    /// The environment that must be complete.
    pub environment: String,
    /// What must run and end with 0.
    pub command: Vec<String>,
}

impl BuildRequest {
    /// What an image that was just built is checked against.
    pub fn test(&self, path: &str, reference: &str) -> TestRequest {
        TestRequest {
            image: Image { path: path.to_owned(), reference: reference.to_owned(), built_here: true },
            lock: self.lock.clone(),
            environment: self.environment.clone(),
            command: self.command.clone(),
        }
    }
}

/// What an engine works with: the machine, and the programs of this workspace.
pub struct Desk<'a> {
    /// The way to act on the machine.
    pub cx: &'a Context,
    /// The heavy programs.
    pub programs: &'a Programs<'a>,
}

/// A program that handles images.
pub trait Engine: Sync {
    /// The name that `--engine` takes.
    fn name(&self) -> &'static str;

    /// The formats that it makes.
    fn formats(&self) -> &'static [Format];

    /// Whether it builds by a recipe, with pixi inside of the base image, as the lesson does.
    fn follows_recipe(&self) -> bool {
        true
    }

    /// Why it is chosen, or why it cannot work on this machine and what to do about it.
    fn probe(&self, cx: &Context) -> Result<String, String>;

    /// Builds all outputs; results are whole or absent. None in a dry run.
    fn build(&self, desk: &Desk<'_>, request: &BuildRequest) -> Result<Option<Vec<Artifact>>>;

    /// Makes the image in `file` again as the request says and compares the two, byte by byte. None in a dry run.
    fn verify(&self, _desk: &Desk<'_>, _request: &BuildRequest, _file: &str) -> Result<Option<Artifact>> {
        bail!(
            "{} gives other bytes each time it builds: times, and what it downloads\n  \
             hint: `--engine native` gives the same each time; `cargo xtask test` checks what an image holds",
            self.name()
        )
    }

    /// Checks an image and runs a command in it.
    fn test(&self, desk: &Desk<'_>, request: &TestRequest) -> Result<()>;

    /// The command that runs `command` in an image; its standard input is passed on when `interactive`.
    fn run(&self, desk: &Desk<'_>, image: &Image, command: &[String], interactive: bool) -> Result<CommandLine>;
}
