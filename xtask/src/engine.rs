//! What an engine is: a program that builds, tests and runs images of both formats, or of one.

use anyhow::Result;

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
}

/// The image files to make, and out of what. Paths are as typed.
pub struct BuildRequest {
    /// `pixi.lock`.
    pub lock: String,
    /// `pixi.toml`.
    pub manifest: String,
    /// The environment of the lock.
    pub environment: String,
    /// A registry reference, or an OCI archive.
    pub base: String,
    /// The directory that becomes /app/src.
    pub app: String,
    /// `name:tag` of the image.
    pub reference: String,
    /// `key=value` labels.
    pub labels: Vec<String>,
    /// Nothing may be asked of the network.
    pub offline: bool,
    /// What to write.
    pub outputs: Vec<(Format, String)>,
}

/// An image file that an engine made.
pub struct Artifact {
    /// The digest: of the OCI manifest, or of the SIF file.
    pub digest: String,
    /// Where it was written.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
}

/// An image, and what it is checked against. Paths are as typed.
pub struct TestRequest {
    /// The image's file.
    pub image: String,
    /// `pixi.lock`.
    pub lock: String,
    /// The environment that must be complete.
    pub environment: String,
    /// What must run and end with 0.
    pub command: Vec<String>,
}

/// A program that handles images. Commands are values; only `Context` runs them.
pub trait Engine: Sync {
    /// The name that `--engine` takes.
    fn name(&self) -> &'static str;

    /// Why it is chosen, or cannot be, on this machine.
    fn probe(&self, cx: &Context) -> Result<&'static str, String>;

    /// The command that builds all outputs at once.
    fn build(&self, programs: &Programs<'_>, request: &BuildRequest) -> Result<CommandLine>;

    /// What the build command reported on its standard output.
    fn artifacts(&self, report: &str) -> Result<Vec<Artifact>>;

    /// The command that checks an image and runs a command in it.
    fn test(&self, programs: &Programs<'_>, request: &TestRequest) -> Result<CommandLine>;

    /// The command that runs `command` in an image's file.
    fn run(&self, programs: &Programs<'_>, image: &str, command: &[String]) -> Result<CommandLine>;
}
