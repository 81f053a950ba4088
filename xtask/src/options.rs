//! The options that every command takes.

use std::path::{Path, PathBuf};

use crate::command_line::CommandLine;
use crate::pins;

/// Where packages and the base image come from, as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum SourceChoice {
    /// conda-forge where it can be reached, else the rehearsal.
    Auto,
    /// conda-forge and the registry of the base image.
    CondaForge,
    /// A channel and a base image made from Debian's mirror.
    Rehearsal,
}

/// The common options, as typed. Paths are relative to the repository's root, where every printed command can be typed.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Common options")]
pub struct Options {
    /// Environment of pixi.toml that goes into the image
    #[arg(long = "env", value_name = "NAME", default_value = ENVIRONMENT, global = true, value_parser = environment_name)]
    pub environment: String,
    /// Program that builds, tests and runs images; `native` solves, too
    #[arg(long, value_name = "ENGINE", default_value = AUTO, global = true)]
    pub engine: String,
    /// Where packages and the base image come from
    #[arg(long, value_name = "SOURCE", default_value = "auto", global = true)]
    pub source: SourceChoice,
    /// Directory of the exercise
    #[arg(long, value_name = "DIR", default_value = pins::WORKSPACE, global = true)]
    pub workspace: PathBuf,
    /// Base image: a registry reference or an OCI archive
    #[arg(long, value_name = "REF", global = true)]
    pub base: Option<String>,
    /// CUDA version that the environment is installed for [default: what the recipe says]
    #[arg(long, value_name = "VERSION", global = true, value_parser = cuda_version)]
    pub cuda_version: Option<String>,
    /// Build by the lesson's recipe as printed, with its traps (see `cargo xtask explain traps`)
    #[arg(long, global = true)]
    pub exact: bool,
    /// Debian mirror of the rehearsal (default: the one in this machine's apt sources)
    #[arg(long, value_name = "URL", global = true)]
    pub debian_mirror: Option<String>,
    /// Port of the rehearsal's channel; it stands in the lock
    #[arg(long, value_name = "PORT", default_value_t = pins::REHEARSAL_PORT, global = true)]
    pub rehearsal_port: u16,
    /// Use only what is on this machine already
    #[arg(long, global = true)]
    pub offline: bool,
    /// Take everything from this file of `cargo xtask bundle`; no network is needed [default: $XTASK_BUNDLE]
    #[arg(long, value_name = "FILE", global = true)]
    pub bundle: Option<PathBuf>,
    /// Print the commands, run nothing
    #[arg(long, global = true)]
    pub dry_run: bool,
    /// No colours, no progress bars
    #[arg(long, global = true)]
    pub plain: bool,
    /// Print results and errors only
    #[arg(long, short, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say why each step runs or not
    #[arg(long, short, global = true)]
    pub verbose: bool,
}

/// The environment that goes into the image when none is asked for.
const ENVIRONMENT: &str = "gpu";
/// The choice of the engine that is ours.
pub const AUTO: &str = "auto";

impl Options {
    /// How `cargo xtask NAME` is typed to mean the same environment, workspace, engine, source and base as these.
    pub fn typed(&self, name: &str, is_rehearsal: bool) -> String {
        let mut line = CommandLine::new("cargo").arg("xtask").args(name.split(' '));
        if self.environment != ENVIRONMENT {
            line = line.option("--env", &self.environment);
        }
        if self.workspace != Path::new(pins::WORKSPACE) {
            line = line.option("--workspace", self.workspace.display().to_string());
        }
        if self.engine != AUTO {
            line = line.option("--engine", &self.engine);
        }
        if is_rehearsal {
            line = line.option("--source", "rehearsal");
        } else if self.source == SourceChoice::CondaForge {
            line = line.option("--source", "conda-forge");
        }
        for (name, value) in [("--base", &self.base), ("--cuda-version", &self.cuda_version)] {
            line = value.iter().fold(line, |line, value| line.option(name, value));
        }
        for (name, _) in [("--exact", self.exact), ("--offline", self.offline)].iter().filter(|(_, typed)| *typed) {
            line = line.arg(*name);
        }
        line.to_string()
    }
}

/// A CUDA version. It becomes an argument of builds and part of tags.
pub fn cuda_version(text: &str) -> Result<String, String> {
    let number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if (1..=3).contains(&text.split('.').count()) && text.split('.').all(number) {
        Ok(text.to_owned())
    } else {
        Err("a CUDA version reads like 12 or 12.9".to_owned())
    }
}

/// Environment names become file names and image tags: nothing else than pixi allows may come through.
fn environment_name(text: &str) -> Result<String, String> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(fits) {
        Ok(text.to_owned())
    } else {
        Err("an environment's name holds lower-case letters, digits and dashes".to_owned())
    }
}

/// What was typed makes no sense, though each word of it does: the error that clap would give.
pub fn wrong_usage(what: impl std::fmt::Display) -> clap::Error {
    clap::Error::raw(clap::error::ErrorKind::ValueValidation, format!("{what}\n"))
}
