//! `run`: a command in the image, by default the lesson's script.

use anyhow::Result;
use clap::{ArgMatches, Args, Command, FromArgMatches};

use crate::context::Context;
use crate::engine::{Engine, Format};
use crate::exercise::Workspace;
use crate::external::Program;
use crate::options::SourceChoice;
use crate::pins;
use crate::session::{self, Session};
use crate::source::Source;
use crate::stamp::{Input, Record, State};
use crate::step::{Formats, Row, Step, Task};
use crate::steps::build;

/// The step.
pub struct Run;

// What `run` takes.
#[derive(clap::Args)]
struct Arguments {
    /// Command to run in the image [default: python /app/src/torch_detect_GPU.py]
    #[arg(last = true, value_name = "CMD")]
    command: Vec<String>,
}

impl Step for Run {
    fn name(&self) -> &'static str {
        "run"
    }

    fn about(&self) -> &'static str {
        "Run a command in the image, by default the script"
    }

    fn why(&self) -> &'static str {
        "What ran here runs the same on any Linux machine with a container runtime, and finds the GPU where there is one."
    }

    fn lesson(&self) -> &'static str {
        "docker run --rm --gpus all <name:tag> python /app/src/torch_detect_GPU.py"
    }

    fn lesson_for(&self, format: Option<Format>) -> &'static str {
        match format {
            Some(Format::Apptainer) => "apptainer run --nv <name>.sif python /app/src/torch_detect_GPU.py",
            _ => self.lesson(),
        }
    }

    fn example(&self) -> &'static str {
        "cargo xtask run docker -- python --version"
    }

    fn formats(&self) -> Formats {
        Formats::Required
    }

    fn source(&self, cx: &Context) -> Result<SourceChoice> {
        source_of_images(cx)
    }

    fn arguments(&self, command: Command) -> Command {
        Arguments::augment_args(command)
    }

    fn tasks(&self, session: &Session<'_>) -> Result<Vec<Task>> {
        session.formats().into_iter().map(|format| Ok(task(session, format, session.engine(format)?))).collect()
    }

    fn state(&self, session: &Session<'_>, of: &Task) -> Result<State> {
        build::state_by_any_engine(session, of, |format, engine| Ok(task(session, format, engine)))
    }

    fn run(&self, session: &Session<'_>, tasks: &[&Task], _arguments: &ArgMatches) -> Result<Vec<Row>> {
        let cx = session.cx;
        let mut rows = Vec::new();
        for task in tasks {
            let Some(format) = task.format else { continue };
            let clock = cx.now();
            let engine = session.engine(format)?;
            let line = engine.run(&session.desk(), &build::image(session, format)?, &default_command(), false)?;
            let output = cx.read(&line)?;
            let row = Row::new(task, engine.name(), "exit code 0", Some(clock.elapsed()));
            rows.push(Row { output, ..row });
        }
        Ok(rows)
    }

    /// By itself it becomes the command that was typed: terminal, signals and exit code are the command's. The script is
    /// the lesson's step, so it is noted that it ran.
    fn run_typed(&self, session: &Session<'_>, tasks: &[&Task], arguments: &ArgMatches) -> Result<Vec<Row>> {
        let command = Arguments::from_arg_matches(arguments)?.command;
        for task in tasks {
            let Some(format) = task.format else { continue };
            let (engine, image) = (session.engine(format)?, build::image(session, format)?);
            if !command.is_empty() {
                session.cx.replace(&engine.run(&session.desk(), &image, &command, true)?)?;
                continue;
            }
            let line = engine.run(&session.desk(), &image, &default_command(), false)?;
            let work = || {
                let clock = session.cx.now();
                let output = session.cx.tee(&line)?;
                if let Some(failed) = output.as_ref().filter(|output| output.code != 0) {
                    session.cx.end_with(failed.code);
                }
                let row = Row::new(task, engine.name(), "exit code 0", Some(clock.elapsed()));
                Ok(Row { output: output.map(|output| output.stdout), ..row })
            };
            Record::around(session.cx, &[&task.record], work, |row, _| row.note())?;
        }
        Ok(Vec::new())
    }
}

fn task(session: &Session<'_>, format: Format, engine: &dyn Engine) -> Task {
    let [image, program] = [session.image(format), session.programs.path(Program::PixiImage)].map(Input::File);
    Task::new(session, &Run, Some(format), vec![image, program, Input::Value(engine.name().to_owned())], Vec::new())
}

/// What runs when no command is given.
pub fn default_command() -> Vec<String> {
    vec!["python".to_owned(), format!("/app/src/{}", pins::SCRIPT_NAME)]
}

/// An image that was built says by itself where it came from: no network is needed to test or run it.
pub fn source_of_images(cx: &Context) -> Result<SourceChoice> {
    if cx.options.source != SourceChoice::Auto || cx.options.bundle.is_some() {
        return Ok(cx.options.source);
    }
    let workspace = Workspace::new(cx.resolve(&cx.options.workspace))?;
    let only_rehearsed = !has_images(cx, &workspace) && is_built(cx, &workspace, Source::Rehearsal);
    Ok(if only_rehearsed { SourceChoice::Rehearsal } else { SourceChoice::CondaForge })
}

/// Whether there is an image of the real packages.
pub fn has_images(cx: &Context, workspace: &Workspace) -> bool {
    is_built(cx, workspace, Source::CondaForge)
}

fn is_built(cx: &Context, workspace: &Workspace, source: Source) -> bool {
    Format::ALL.iter().any(|format| session::image(cx, workspace, source, *format).is_file())
}
