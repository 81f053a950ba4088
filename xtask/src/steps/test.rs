//! `test`: the image's own checks.

use anyhow::Result;
use clap::ArgMatches;

use crate::context::Context;
use crate::engine::{Engine, Format, TestRequest};
use crate::external::Program;
use crate::options::SourceChoice;
use crate::session::Session;
use crate::stamp::{Input, State};
use crate::step::{Formats, Row, Step, Task};
use crate::steps::{build, run};

/// The step.
pub struct Test;

impl Step for Test {
    fn name(&self) -> &'static str {
        "test"
    }

    fn about(&self) -> &'static str {
        "Check the image: environment, activation, script"
    }

    fn why(&self) -> &'static str {
        "An image with an empty or broken environment builds just as well: what ships is checked first."
    }

    fn lesson(&self) -> &'static str {
        "apptainer test <name>.sif; it has none for docker"
    }

    fn lesson_for(&self, format: Option<Format>) -> &'static str {
        match format {
            Some(Format::Docker) => "none; for Docker it has no check of its own",
            _ => "apptainer test <name>.sif",
        }
    }

    fn example(&self) -> &'static str {
        "cargo xtask test apptainer"
    }

    fn formats(&self) -> Formats {
        Formats::Required
    }

    fn source(&self, cx: &Context) -> Result<SourceChoice> {
        run::source_of_images(cx)
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
            let engine = session.engine(format)?;
            let request = TestRequest {
                image: build::image(session, format)?,
                lock: cx.typed(&session.workspace.lock()),
                environment: cx.options.environment.clone(),
                command: run::default_command(),
            };
            let clock = cx.now();
            engine.test(&session.desk(), &request)?;
            rows.push(Row::new(task, engine.name(), "passed", Some(clock.elapsed())));
        }
        Ok(rows)
    }
}

fn task(session: &Session<'_>, format: Format, engine: &dyn Engine) -> Task {
    let [image, program] = [session.image(format), session.programs.path(Program::PixiImage)].map(Input::File);
    let inputs = vec![image, Input::Content(session.workspace.lock()), program, Input::Value(engine.name().to_owned())];
    Task::new(session, &Test, Some(format), inputs, Vec::new())
}
