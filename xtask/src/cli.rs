//! The command line, made from the tables of steps and commands.

use anyhow::Result;
use clap::builder::PossibleValuesParser;
use clap::{Args, Command, FromArgMatches};

use crate::commands::COMMANDS;
use crate::context::Context;
use crate::engines;
use crate::options::Options;
use crate::steps::{self, STEPS};

/// Parses the process's arguments and does what they ask; wrong usage ends the process with exit code 2.
pub fn run() -> Result<()> {
    let matches = command().get_matches();
    let Some((name, matches)) = matches.subcommand() else { return Ok(()) };
    let cx = Context::new(Options::from_arg_matches(matches)?)?;
    if let Some(command) = COMMANDS.iter().find(|command| command.name == name) {
        return (command.run)(&cx, matches);
    }
    match STEPS.iter().find(|step| step.name() == name) {
        Some(step) => steps::run_typed(&cx, *step, matches),
        None => Ok(()),
    }
}

fn command() -> Command {
    let root = Options::augment_args(Command::new("cargo xtask"))
        .mut_arg("engine", |arg| arg.value_parser(PossibleValuesParser::new(engines::names())))
        .bin_name("cargo xtask")
        .long_about(None)
        .about("The lesson \"Deploying Pixi environments\", step by step: from pixi.toml to tested container images")
        .after_help("Begin with `cargo xtask all`. Paths are relative to the repository's root, where every printed command can be typed.")
        .max_term_width(110)
        .subcommand_required(true)
        .arg_required_else_help(true);
    let root = root.subcommands(
        COMMANDS.iter().map(|command| (command.arguments)(Command::new(command.name)).about(command.about)),
    );
    root.subcommands(STEPS.iter().map(|step| steps::command(*step)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound_and_every_name_is_used_once() {
        command().debug_assert();
        let mut names: Vec<_> = STEPS.iter().map(|step| step.name()).chain(COMMANDS.iter().map(|c| c.name)).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), STEPS.len() + COMMANDS.len());
        assert!(COMMANDS.iter().all(|command| command.about.len() <= 60));
    }
}
