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
    use std::collections::BTreeSet;

    use super::*;
    use crate::lesson;

    /// The words of a command as a shell takes them, up to where the command ends.
    fn words(text: &str) -> Vec<String> {
        let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
        for c in text.chars() {
            match quote {
                Some(open) if c == open => quote = None,
                None if "'\"".contains(c) => quote = Some(c),
                None if ";|&#`".contains(c) => break,
                None if c.is_whitespace() => words.push(std::mem::take(&mut word)),
                _ => word.push(c),
            }
        }
        words.into_iter().chain([word]).filter(|word| !word.is_empty()).collect()
    }

    /// The commands in a text: of code spans, and of lines in code blocks.
    fn commands(text: &str) -> Vec<Vec<String>> {
        // A command that is broken over two lines of the text is one all the same.
        let code = text.split('`').skip(1).step_by(2).map(|code| code.replace('\n', " "));
        let in_block = |line: &&str| line.starts_with("    ") || line.starts_with("cargo xtask ");
        let blocks = text.lines().filter(in_block).map(|line| line.trim().to_owned());
        let mut commands = Vec::new();
        for line in code.chain(blocks) {
            for (at, _) in line.match_indices("cargo xtask ") {
                let line = line[at..].trim_end_matches([')', '"']).replace(" STEP", " build-docker");
                commands.push(words(&line).into_iter().skip(1).collect());
            }
        }
        commands
    }

    #[test]
    fn the_commands_in_the_texts_can_be_typed() {
        let readme = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../README.md")).unwrap();
        let explained = lesson::names("explain").into_iter().map(|name| format!("explain/{name}.md"));
        let texts = explained.chain(["INSTRUCTORS.md".to_owned()]).map(|name| {
            let text = lesson::text(&name).unwrap().to_owned();
            (name, text)
        });
        let mut seen = 0;
        for (name, text) in texts.chain([("README.md".to_owned(), readme)]) {
            for words in commands(&text) {
                let parsed = command().try_get_matches_from(&words);
                let is_help = |error: &clap::Error| error.kind() == clap::error::ErrorKind::DisplayHelp;
                let wrong = parsed.err().filter(|error| !is_help(error));
                assert!(wrong.is_none(), "{name}: {words:?}\n{}", wrong.unwrap());
                seen += 1;
            }
        }
        assert!(seen > 150, "{seen} commands were found");
    }

    #[test]
    fn commands_are_found_in_sentences_and_in_blocks() {
        let text = "Type `cargo xtask edit --add-dep 'a b'`, or\n\n```bash\ncargo xtask all   # everything\n```\n\
                    and `cargo xtask explain\nSTEP`; `cargo test` is none.\n";
        let found: BTreeSet<String> = commands(text).into_iter().map(|words| words.join("|")).collect();
        let expected = ["xtask|all", "xtask|edit|--add-dep|a b", "xtask|explain|build-docker"];
        assert_eq!(found.into_iter().collect::<Vec<_>>(), expected);
    }

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
