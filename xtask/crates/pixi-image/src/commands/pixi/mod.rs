//! This program under the name `pixi`: the subcommands that the lesson's recipes use, for a base image without real pixi.
//!
//! It does what pixi 0.77 does, also where that surprises: the rehearsal is there to show it. What it does not know it refuses
//! by name.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

mod activation;
mod info;
mod install;
mod list;
mod machine;
mod run;
mod shell_hook;
mod workspace;

/// What `--version` says behind the name.
const VERSION: &str = concat!("0.77.0 (pixi-image ", env!("CARGO_PKG_VERSION"), " standing in)");

/// The part of pixi that the lesson's recipes use; pixi-image stands in for it.
#[derive(Parser)]
#[command(name = "pixi", version = VERSION, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    #[command(visible_alias = "i")]
    Install(install::Install),
    ShellHook(shell_hook::ShellHook),
    Info(info::Info),
    #[command(visible_alias = "ls")]
    List(list::List),
    #[command(visible_alias = "r")]
    Run(run::Run),
}

/// The workspace, where it is not the one of the current directory.
#[derive(Args)]
struct WorkspaceArgs {
    /// The manifest, or its directory
    #[arg(long, short, value_name = "PATH")]
    manifest_path: Option<PathBuf>,
}

/// How far the lock is trusted.
#[derive(Args)]
struct LockArgs {
    /// Fail if the lock does not satisfy the manifest
    #[arg(long, conflicts_with = "frozen")]
    locked: bool,
    /// Use the lock as it is
    #[arg(long)]
    frozen: bool,
}

/// How far lock and environment are trusted.
#[derive(Args)]
struct LockAndInstallArgs {
    #[command(flatten)]
    lock: LockArgs,
    /// Leave the environment as it is
    #[arg(long)]
    no_install: bool,
    /// Short for --no-install and --frozen
    #[arg(long, conflicts_with_all = ["locked", "frozen", "no_install"])]
    as_is: bool,
}

/// What to do about a lock that does not satisfy its manifest.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LockUsage {
    Update,
    Locked,
    Frozen,
}

impl LockArgs {
    fn usage(&self) -> LockUsage {
        match (self.locked, self.frozen) {
            (_, true) => LockUsage::Frozen,
            (true, _) => LockUsage::Locked,
            _ => LockUsage::Update,
        }
    }
}

impl LockAndInstallArgs {
    fn usage(&self) -> LockUsage {
        if self.as_is { LockUsage::Frozen } else { self.lock.usage() }
    }

    fn installs(&self) -> bool {
        !self.as_is && !self.no_install
    }
}

/// Whether this process was started as `pixi`.
pub fn is_wanted() -> bool {
    let name = std::env::args_os().next();
    name.is_some_and(|name| Path::new(&name).file_name().is_some_and(|name| name == "pixi"))
}

/// Runs what the command line says.
pub fn run() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        Command::Install(command) => command.run(),
        Command::ShellHook(command) => command.run(),
        Command::Info(command) => command.run(),
        Command::List(command) => command.run(),
        Command::Run(command) => command.run(),
    }
}
