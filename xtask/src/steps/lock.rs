//! `lock`: pixi.toml is solved into pixi.lock.

use std::path::PathBuf;

use anyhow::Result;
use clap::{ArgMatches, Args, Command, FromArgMatches};

use crate::command_line::CommandLine;
use crate::context::Context;
use crate::engine::Format;
use crate::external::Program;
use crate::session::Session;
use crate::stamp::{Input, State};
use crate::step::{Row, Step, Task};

/// pixi itself.
const PIXI: &str = "pixi";
/// The engine that has a solver of its own, beside `auto`; to the others `--engine` says nothing about locks.
const NATIVE: &str = "native";

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

    fn example(&self) -> &'static str {
        "cargo xtask lock --check"
    }

    fn arguments(&self, command: Command) -> Command {
        Arguments::augment_args(command)
    }

    fn tasks(&self, session: &Session<'_>) -> Result<Vec<Task>> {
        let inputs = vec![Input::Content(session.workspace.manifest())];
        Ok(vec![Task::new(session, self, None, inputs, vec![session.workspace.lock()])])
    }

    /// A lock that fits its manifest is done, whoever solved it: pixi-image tells, where it is compiled.
    fn state(&self, session: &Session<'_>, task: &Task) -> Result<State> {
        let (cx, workspace) = (session.cx, &session.workspace);
        let state = task.record.state(cx)?;
        let program = session.programs.path(Program::PixiImage);
        let are_there = [&workspace.manifest(), &workspace.lock(), &program].iter().all(|path| path.is_file());
        if state == State::Done || !are_there {
            return Ok(state);
        }
        let line = CommandLine::with_executable(&cx.typed(&program), &program).args(["lock", "--check"]);
        let answer = cx.look(&of(session, line))?;
        let reason = answer.stderr.trim_start_matches("error: ").lines().next().unwrap_or_default().to_owned();
        Ok(if answer.code == 0 { State::Done } else { State::Stale(reason) })
    }

    fn files(&self, session: &Session<'_>, _format: Option<Format>) -> Result<Vec<PathBuf>> {
        Ok(vec![session.learner.lock()])
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

/// Who solves, and why.
pub fn solver(cx: &Context, is_rehearsal: bool) -> (&'static str, &'static str) {
    let ours = if cx.options.engine == NATIVE {
        Some("--engine native")
    } else if is_rehearsal {
        Some("the rehearsal's channel is for this workspace alone")
    } else if cx.options.offline {
        Some("it can do without the network")
    } else {
        (!cx.on_path(PIXI)).then_some("pixi is not installed")
    };
    ours.map_or((PIXI, "it is installed"), |why| (Program::PixiImage.name(), why))
}

/// Who solves, and the command for it; one line says which and why.
fn command(session: &Session<'_>) -> Result<(&'static str, CommandLine)> {
    let (cx, workspace) = (session.cx, &session.workspace);
    session.require(&workspace.manifest(), "edit")?;
    let manifest = cx.typed(&workspace.manifest());
    let (engine, why) = solver(cx, session.is_rehearsal());
    cx.ui.aside(format_args!("Solver: {engine} ({why})."));
    if engine == PIXI {
        return Ok((engine, CommandLine::new(PIXI).arg("lock").option("--manifest-path", manifest)));
    }
    let mut line = of(session, session.programs.command(Program::PixiImage)?.arg("lock"));
    if let Some(bundle) = session.bundle.as_ref().filter(|_| !session.is_rehearsal()) {
        line = line.option("--among", cx.typed(&bundle.lock()));
    }
    Ok((engine, if session.is_offline() { line.arg("--offline") } else { line }))
}

/// Fails if the environment of the lock does not satisfy the manifest. pixi says so within a recipe, but only after its
/// downloads.
pub fn require_satisfied(session: &Session<'_>) -> Result<()> {
    let line = session.programs.command(Program::PixiImage)?.args(["lock", "--check"]);
    session.cx.execute(&of(session, line.option("--environment", &session.cx.options.environment)))
}

/// A command line of pixi-image that is about this workspace's manifest and lock.
fn of(session: &Session<'_>, line: CommandLine) -> CommandLine {
    let (cx, workspace) = (session.cx, &session.workspace);
    line.option("--manifest", cx.typed(&workspace.manifest())).option("--out", cx.typed(&workspace.lock()))
}
