//! The commands that go over all steps and know none by name.

use anyhow::Result;
use clap::{ArgMatches, Command};

use crate::context::Context;
use crate::step::Group;

mod all;
mod bench;
mod explain;
mod status;
mod tags;

/// A command that is no step.
pub struct Generic {
    /// What is typed after `cargo xtask`.
    pub name: &'static str,
    /// Where the help lists it.
    pub group: Group,
    /// What it does, in at most 60 characters.
    pub about: &'static str,
    /// A command line that shows its use.
    pub example: &'static str,
    /// Adds its own arguments.
    pub arguments: fn(Command) -> Command,
    /// Does it.
    pub run: fn(&Context, &ArgMatches) -> Result<()>,
}

/// In the order of the help.
pub const COMMANDS: &[Generic] = &[
    Generic {
        name: "all",
        group: Group::Whole,
        about: "Do every step that is not done yet, and sum up",
        example: "cargo xtask all --env cpu",
        arguments: none,
        run: |cx, _| all::run(cx),
    },
    Generic {
        name: "status",
        group: Group::Whole,
        about: "Show which steps are done, and what comes next",
        example: "cargo xtask status --json",
        arguments: status::arguments,
        run: status::run,
    },
    Generic {
        name: "explain",
        group: Group::Helpers,
        about: "Explain a step, a trap or a topic; alone, print the map",
        example: "cargo xtask explain build docker",
        arguments: explain::arguments,
        run: explain::run,
    },
    Generic {
        name: "tags",
        group: Group::Beyond,
        about: "Print the tags that an image gets where it is published",
        example: "cargo xtask tags docker",
        arguments: tags::arguments,
        run: tags::run,
    },
    Generic {
        name: "bench",
        group: Group::Beyond,
        about: "Measure builds: time, CPU, memory and sizes, by each engine",
        example: "cargo xtask bench --shape pixi.lock --scale 0.1 --runs 3",
        arguments: bench::arguments,
        run: bench::run,
    },
];

fn none(command: Command) -> Command {
    command
}
