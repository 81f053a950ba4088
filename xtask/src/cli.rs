//! The command line, made from the tables of steps and commands.

use anyhow::Result;
use clap::{Command, FromArgMatches};

use crate::commands::{COMMANDS, command};
use crate::context::Context;
use crate::options::Options;
use crate::step::Group;
use crate::steps::{self, STEPS};

/// Parses the process's arguments and does what they ask; wrong usage ends the process with exit code 2.
pub fn run() -> Result<()> {
    let matches = with_groups(command()).get_matches();
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

/// The command line with a help that lists the commands in groups, which clap has none of.
fn with_groups(command: Command) -> Command {
    let listed = listed();
    let width = listed.iter().map(|(_, name, _)| name.len()).max().unwrap_or(0);
    let section = |group: Group| {
        let own = listed.iter().filter(|(other, _, _)| *other == group);
        let lines = own.map(|(_, name, about)| format!("\n  {name:width$}  {about}"));
        format!("{}:{}\n", group.title(), lines.collect::<String>())
    };
    let sections = Group::ALL.map(section).join("\n");
    let hidden =
        listed.iter().fold(command, |command, (_, name, _)| command.mut_subcommand(name, |one| one.hide(true)));
    let template = "{about-with-newline}\n{usage-heading} {usage}\n\n{sections}\n{all-args}{after-help}";
    hidden.override_usage("cargo xtask [OPTIONS] <COMMAND>").help_template(template.replace("{sections}", &sections))
}

/// Group, name and purpose of each command.
fn listed() -> Vec<(Group, &'static str, &'static str)> {
    let generic = COMMANDS.iter().map(|command| (command.group, command.name, command.about));
    generic.chain(STEPS.iter().map(|step| (step.group(), step.name(), step.about()))).collect()
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
