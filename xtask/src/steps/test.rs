//! `test`: the image's own checks.

use anyhow::Result;
use clap::ArgMatches;

use crate::context::Context;
use crate::engine::{Format, TestRequest};
use crate::external::Program;
use crate::options::SourceChoice;
use crate::session::Session;
use crate::stamp::Input;
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
        let task = |format| {
            let image = session.image(format);
            let program = session.programs.path(Program::PixiImage);
            let engine = Input::Value(session.engine(format)?.name().to_owned());
            let inputs =
                vec![Input::File(image), Input::Content(session.workspace.lock()), Input::File(program), engine];
            Ok(Task::new(session, self, Some(format), inputs, Vec::new()))
        };
        session.formats().into_iter().map(task).collect()
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
