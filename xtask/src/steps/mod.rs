//! The steps in the lesson's order: one file each, and one line in this table.

use anyhow::{Context as _, Result};
use clap::{Arg, ArgMatches, Command, value_parser};

use crate::context::Context;
use crate::engine::Format;
use crate::session::Session;
use crate::step::{Formats, Row, Step, Task};
use crate::ui;

mod build;
mod edit;
mod fetch;
mod lock;
mod recipe;
mod rehearse;
mod run;
mod test;
mod workflows;

pub use build::Build;
pub use edit::Edit;
pub use fetch::Fetch;
pub use lock::{Lock, solver};
pub use recipe::WriteRecipe;
pub use rehearse::Rehearse;
pub use run::{Run, has_images, source_of_images};
pub use test::Test;
pub use workflows::Workflows;

/// What the command line offers. In which order a learner meets them, the stations say.
pub const STEPS: &[&dyn Step] = &[
    &rehearse::Rehearse,
    &fetch::Fetch,
    &edit::Edit,
    &lock::Lock,
    &recipe::WriteRecipe,
    &build::Build,
    &test::Test,
    &run::Run,
    &workflows::Workflows,
];

/// The command line of a step.
pub fn command(step: &dyn Step) -> Command {
    let format = Arg::new("format").value_name("FORMAT").help("Image format");
    let command = Command::new(step.name());
    let command = match step.formats() {
        Formats::None => command,
        formats => command.arg(format.required(formats == Formats::Required).value_parser(value_parser!(Format))),
    };
    let more = format!("{}.\n\n{}\nThe lesson: {}", step.about(), step.why(), step.lesson());
    let example = format!("Example:\n  {}", step.example());
    step.arguments(command).about(step.about()).long_about(more).after_help(example)
}

/// What the step's arguments are when nothing is typed.
pub fn defaults(step: &dyn Step) -> Result<ArgMatches> {
    let command = step.arguments(Command::new(step.name()));
    command.try_get_matches_from([step.name()]).with_context(|| format!("the defaults of {}", step.name()))
}

/// Does a step that was typed, whether or not it is done already.
pub fn run_typed(cx: &Context, step: &dyn Step, matches: &ArgMatches) -> Result<()> {
    let mut session = Session::new(cx, step.source(cx)?)?;
    if step.needs_programs() {
        session.programs.prepare()?;
    }
    session.typed = if step.formats() == Formats::None { None } else { matches.get_one("format").copied() };
    let tasks = step.tasks(&session)?;
    let is_typed = |task: &&Task| session.typed.is_none() || task.format.is_none() || task.format == session.typed;
    let tasks: Vec<&Task> = tasks.iter().filter(is_typed).collect();
    let rows = step.run_typed(&session, &tasks, matches).with_context(|| step.name())?;
    for Row { result, size, elapsed, .. } in rows.into_iter().filter(|_| !cx.options.dry_run) {
        let facts = [size.map(ui::size), elapsed.map(ui::duration)];
        let facts: Vec<String> = facts.into_iter().flatten().collect();
        cx.ui.result(format_args!("{result} ({})", facts.join(", ")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_has_its_own_name_and_says_what_and_why() {
        let mut names: Vec<_> = STEPS.iter().map(|step| step.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), STEPS.len());
        for step in STEPS {
            assert!(step.about().len() <= 60, "{}", step.about());
            assert!(!step.why().is_empty() && !step.lesson().is_empty(), "{}", step.name());
            command(*step).debug_assert();
            defaults(*step).unwrap();
        }
    }
}
