//! The commands that go over all steps and know none by name, and the command line of which they are part.

use anyhow::Result;
use clap::builder::PossibleValuesParser;
use clap::{ArgMatches, Args, Command};

use crate::context::Context;
use crate::engines;
use crate::options::Options;
use crate::step::Group;
use crate::steps::{self, STEPS};

mod all;
mod bench;
mod bundle;
mod commit;
mod completions;
mod diff;
mod doctor;
mod explain;
mod report;
mod reset;
mod status;
mod tags;
mod verify;

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
        arguments: all::arguments,
        run: all::run,
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
        name: "doctor",
        group: Group::Helpers,
        about: "Show what this machine has, and the traps that lie in wait",
        example: "cargo xtask doctor --offline",
        arguments: doctor::arguments,
        run: doctor::run,
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
        name: "diff",
        group: Group::Helpers,
        about: "Show how your files differ from the lesson's",
        example: "cargo xtask diff recipe docker",
        arguments: diff::arguments,
        run: diff::run,
    },
    Generic {
        name: "reset",
        group: Group::Helpers,
        about: "Bring a step's files back to the lesson's; yours are kept",
        example: "cargo xtask reset start",
        arguments: reset::arguments,
        run: reset::run,
    },
    Generic {
        name: "commit",
        group: Group::Helpers,
        about: "Show the git commands for a step's files; --yes runs them",
        example: "cargo xtask commit docker",
        arguments: commit::arguments,
        run: commit::run,
    },
    Generic {
        name: "completions",
        group: Group::Helpers,
        about: "Print what lets your shell complete `cargo xtask`",
        example: "source <(cargo xtask completions bash)",
        arguments: completions::arguments,
        run: completions::run,
    },
    Generic {
        name: "report",
        group: Group::Beyond,
        about: "Write a page for the browser about all that was built",
        example: "cargo xtask report --env cpu",
        arguments: report::arguments,
        run: report::run,
    },
    Generic {
        name: "bundle",
        group: Group::Helpers,
        about: "Put all that a class needs into one file, for --bundle",
        example: "cargo xtask bundle --out class.tar",
        arguments: bundle::arguments,
        run: bundle::run,
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
        name: "verify",
        group: Group::Beyond,
        about: "Build an image again and compare: are the bytes the same?",
        example: "cargo xtask verify target/containers/cuda-exercise-gpu.sif",
        arguments: verify::arguments,
        run: verify::run,
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

/// The whole command line, made from the tables of steps and commands.
pub fn command() -> Command {
    let root = Options::augment_args(Command::new("cargo xtask"))
        .mut_arg("engine", |arg| arg.value_parser(PossibleValuesParser::new(engines::names())))
        .bin_name("cargo xtask")
        .long_about(None)
        .about("The lesson \"Deploying Pixi environments\", step by step: from pixi.toml to tested container images")
        .after_help("Begin with `cargo xtask all`. Paths are relative to the repository's root, where every printed command can be typed.")
        .max_term_width(110)
        .subcommand_required(true)
        .arg_required_else_help(true);
    let generic = COMMANDS.iter().map(|command| {
        let example = format!("Example:\n  {}", command.example);
        (command.arguments)(Command::new(command.name)).about(command.about).after_help(example)
    });
    root.subcommands(generic).subcommands(STEPS.iter().map(|step| steps::command(*step)))
}
