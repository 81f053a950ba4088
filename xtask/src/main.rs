//! `cargo xtask`: maps results to exit codes.

mod base;
mod built;
mod bundle;
mod cli;
mod command_line;
mod commands;
mod context;
mod engine;
mod engines;
mod exercise;
mod external;
mod git;
mod interrupt;
mod json;
mod lesson;
mod manifest_edit;
mod options;
mod pins;
mod plan;
mod recipe;
mod rehearsal;
mod session;
mod source;
mod stamp;
mod stations;
mod step;
mod steps;
mod traps;
mod ui;

use std::process::ExitCode;

use crate::context::Told;
use crate::interrupt::Interrupted;

fn main() -> ExitCode {
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(error),
    }
}

/// Says what failed, unless that was done, and how the process ends.
fn failed(error: anyhow::Error) -> ExitCode {
    let error = match error.downcast::<clap::Error>() {
        Ok(wrong_usage) => wrong_usage.exit(),
        Err(error) => error,
    };
    if let Some(interrupted) = error.downcast_ref::<Interrupted>() {
        ui::interrupted(&interrupted.farewell);
        return ExitCode::from(interrupt::EXIT_CODE);
    }
    if !error.is::<Told>() {
        ui::error(&error);
    }
    ExitCode::FAILURE
}
