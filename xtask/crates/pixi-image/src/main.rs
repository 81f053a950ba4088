//! `pixi-image`: maps the command line to the library and results to exit codes.

mod commands;

use std::process::ExitCode;

use clap::Parser;

/// Turns a pixi.lock into an OCI image and an Apptainer SIF, and runs them, with no container engine, root or daemon.
#[derive(Parser)]
#[command(name = "pixi-image", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: commands::Command,
}

fn main() -> ExitCode {
    #[cfg(target_os = "linux")]
    let done = if commands::pixi::is_wanted() { commands::pixi::run() } else { Cli::parse().command.run() };
    #[cfg(not(target_os = "linux"))]
    let done = Cli::parse().command.run();
    match done {
        Ok(code) => code,
        Err(error) => {
            commands::report::error(&error);
            ExitCode::FAILURE
        }
    }
}
