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
    match Cli::parse().command.run() {
        Ok(code) => code,
        Err(error) => {
            commands::report::error(&error);
            ExitCode::FAILURE
        }
    }
}
