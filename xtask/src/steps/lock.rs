//! `lock`: pixi.toml is solved into pixi.lock.

use anyhow::Result;
use clap::{ArgMatches, Args, Command, FromArgMatches};

use crate::command_line::CommandLine;
use crate::external::Program;
use crate::session::Session;
use crate::stamp::Input;
use crate::step::{Row, Step, Task};

/// The step.
pub struct Lock;

// What `lock` takes.
#[derive(clap::Args)]
struct Arguments {
    /// Solve nothing; fail if pixi.lock does not satisfy pixi.toml
    #[arg(long)]
    check: bool,
}

impl Step for Lock {
    fn name(&self) -> &'static str {
        "lock"
    }

    fn about(&self) -> &'static str {
        "Solve pixi.toml into pixi.lock"
    }

    fn why(&self) -> &'static str {
        "The lock names each package with its digest, for every environment and platform: images are made of it alone."
    }

    fn lesson(&self) -> &'static str {
        "pixi lock"
    }

    fn arguments(&self, command: Command) -> Command {
        Arguments::augment_args(command)
    }

    fn tasks(&self, session: &Session<'_>) -> Result<Vec<Task>> {
        let inputs = vec![Input::Content(session.workspace.manifest())];
        Ok(vec![Task::new(session, self, None, inputs, vec![session.workspace.lock()])])
    }

    fn run(&self, session: &Session<'_>, tasks: &[&Task], _arguments: &ArgMatches) -> Result<Vec<Row>> {
        let (cx, clock) = (session.cx, session.cx.now());
        let lock = session.workspace.lock();
        let (engine, line) = command(session)?;
        let server = if session.is_rehearsal() { session.rehearsal.serve(cx, &session.programs)? } else { None };
        // What it reports on its standard output is known here: it was told where to write.
        cx.read(&line)?;
        drop(server);
        let row = |task: &&Task| Row {
            size: cx.size(&lock),
            ..Row::new(task, engine, cx.typed(&lock), Some(clock.elapsed()))
        };
        Ok(tasks.iter().map(row).collect())
    }

    fn run_typed(&self, session: &Session<'_>, tasks: &[&Task], arguments: &ArgMatches) -> Result<Vec<Row>> {
        if !Arguments::from_arg_matches(arguments)?.check {
            return self.run_stamped(session, tasks, arguments);
        }
        let (cx, clock) = (session.cx, session.cx.now());
        session.require(&session.workspace.lock(), self.name())?;
        let (engine, line) = command(session)?;
        cx.read(&line.arg("--check"))?;
        let result = format!("{} satisfies pixi.toml", cx.typed(&session.workspace.lock()));
        Ok(tasks.iter().map(|task| Row::new(task, engine, &result, Some(clock.elapsed()))).collect())
    }
}

/// Who solves, and the command for it: pixi where it is installed, else pixi-image.
fn command(session: &Session<'_>) -> Result<(&'static str, CommandLine)> {
    let (cx, workspace) = (session.cx, &session.workspace);
    session.require(&workspace.manifest(), "edit")?;
    let manifest = cx.typed(&workspace.manifest());
    // The served channel is ours alone, so the rehearsal stays with our own solver.
    if !session.is_rehearsal() && cx.on_path("pixi") {
        return Ok(("pixi", CommandLine::new("pixi").arg("lock").option("--manifest-path", manifest)));
    }
    let line = session.programs.command(Program::PixiImage)?.arg("lock").option("--manifest", manifest);
    let line = line.option("--out", cx.typed(&workspace.lock()));
    Ok((Program::PixiImage.name(), if session.is_offline() { line.arg("--offline") } else { line }))
}
