//! The commands that go over all steps and know none by name.

use anyhow::Result;
use clap::{ArgMatches, Command};

use crate::context::Context;

mod all;
mod explain;
mod status;
mod tags;

/// A command that is no step.
pub struct Generic {
    /// What is typed after `cargo xtask`.
    pub name: &'static str,
    /// What it does, in at most 60 characters.
    pub about: &'static str,
    /// Adds its own arguments.
    pub arguments: fn(Command) -> Command,
    /// Does it.
    pub run: fn(&Context, &ArgMatches) -> Result<()>,
}

/// In the order of the help.
pub const COMMANDS: &[Generic] = &[
    Generic {
        name: "all",
        about: "Do every step that is not done yet, and sum up",
        arguments: none,
        run: |cx, _| all::run(cx),
    },
    Generic { name: "status", about: "Show which steps are done", arguments: none, run: |cx, _| status::run(cx) },
    Generic {
        name: "tags",
        about: "Print the tags that an image gets where it is published",
        arguments: tags::arguments,
        run: tags::run,
    },
    Generic {
        name: "explain",
        about: "Explain a topic: traps, for one",
        arguments: explain::arguments,
        run: explain::run,
    },
];

fn none(command: Command) -> Command {
    command
}
