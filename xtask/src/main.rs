//! `cargo xtask`: maps results to exit codes.

mod base;
mod cli;
mod command_line;
mod commands;
mod context;
mod engine;
mod engines;
mod exercise;
mod external;
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

use interrupt::Interrupted;
use options::WrongUsage;

fn main() -> ExitCode {
    match cli::run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => match error.downcast_ref::<Interrupted>() {
            Some(interrupted) => {
                ui::interrupted(&interrupted.farewell);
                ExitCode::from(interrupt::EXIT_CODE)
            }
            None => {
                ui::error(&error);
                if error.is::<WrongUsage>() { ExitCode::from(2) } else { ExitCode::FAILURE }
            }
        },
    }
}
