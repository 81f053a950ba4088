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

fn main() -> ExitCode {
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => match error.downcast::<clap::Error>() {
            Ok(wrong_usage) => wrong_usage.exit(),
            Err(error) => {
                if !error.is::<Told>() {
                    ui::error(&error);
                }
                ExitCode::FAILURE
            }
        },
    }
}
