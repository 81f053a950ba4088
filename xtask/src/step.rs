//! What a step is: one piece of the lesson, with its inputs and outputs, so that resuming and status are derived.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{ArgMatches, Command};

use crate::context::Context;
use crate::engine::Format;
use crate::options::SourceChoice;
use crate::session::Session;
use crate::stamp::{Input, Record};

/// One step of the lesson. A new one is one file and one line in `STEPS`.
pub trait Step: Sync {
    /// What is typed after `cargo xtask`.
    fn name(&self) -> &'static str;

    /// What it does, in at most 60 characters.
    fn about(&self) -> &'static str;

    /// Why the step is there.
    fn why(&self) -> &'static str;

    /// The lesson's own command for it.
    fn lesson(&self) -> &'static str;

    /// Whether it works on one image format at a time.
    fn takes_format(&self) -> bool {
        false
    }

    /// Whether it starts pixi-image or rehearsal.
    fn needs_programs(&self) -> bool {
        true
    }

    /// The source that the step by itself works with, given what was typed.
    fn source(&self, cx: &Context) -> Result<SourceChoice> {
        Ok(cx.options.source)
    }

    /// Adds the step's own arguments.
    fn arguments(&self, command: Command) -> Command {
        command
    }

    /// The pieces of work of this step, for those of the formats where it takes one; none when this source has no use for
    /// it.
    fn tasks(&self, session: &Session<'_>) -> Result<Vec<Task>>;

    /// Does the given pieces of work.
    fn run(&self, session: &Session<'_>, tasks: &[&Task], arguments: &ArgMatches) -> Result<Vec<Row>>;

    /// Does the given pieces of work and stamps them.
    fn run_stamped(&self, session: &Session<'_>, tasks: &[&Task], arguments: &ArgMatches) -> Result<Vec<Row>> {
        let records: Vec<&Record> = tasks.iter().map(|task| &task.record).collect();
        Record::around(session.cx, &records, || self.run(session, tasks, arguments))
    }

    /// Does what was typed.
    fn run_typed(&self, session: &Session<'_>, tasks: &[&Task], arguments: &ArgMatches) -> Result<Vec<Row>> {
        self.run_stamped(session, tasks, arguments)
    }
}

/// A piece of work whose state can be told: a step, for one format where it takes one.
pub struct Task {
    /// How it is called in tables: `lock`, `build docker`.
    pub title: String,
    /// The image format, where the step takes one.
    pub format: Option<Format>,
    /// Inputs, outputs and stamp.
    pub record: Record,
    /// What was done by hand since, and is kept.
    pub changed: Option<String>,
}

impl Task {
    /// A task of `step`; the stamp lies with others of its source and workspace.
    pub fn new(
        session: &Session<'_>,
        step: &dyn Step,
        format: Option<Format>,
        mut inputs: Vec<Input>,
        outputs: Vec<PathBuf>,
    ) -> Self {
        let (cx, name) = (session.cx, step.name());
        // Two workspaces of one name in different places share the places of their results.
        inputs.push(Input::Value(session.learner.directory().display().to_string()));
        let (title, stamp) = match format {
            Some(format) => {
                (format!("{name} {}", format.name()), format!("{name}-{}-{}", format.name(), cx.options.environment))
            }
            None => (name.to_owned(), name.to_owned()),
        };
        let directory = cx.target().join("xtask").join(session.source.name()).join(session.workspace.name());
        Self { title, format, record: Record { stamp: directory.join(stamp), inputs, outputs }, changed: None }
    }
}

/// What a piece of work led to: one line of the summary. A dry run leads to nothing, its rows are not shown.
pub struct Row {
    /// The task's title.
    pub step: String,
    /// What did it.
    pub engine: String,
    /// What came of it.
    pub result: String,
    /// How long it took; none where one command did it together with the row above.
    pub elapsed: Option<Duration>,
    /// The size of what was made, in bytes.
    pub size: Option<u64>,
    /// What the command in the image printed.
    pub output: Option<String>,
}

impl Row {
    /// A task that ended well.
    pub fn new(task: &Task, engine: &str, result: impl Into<String>, elapsed: Option<Duration>) -> Self {
        let (step, engine) = (task.title.clone(), engine.to_owned());
        Self { step, engine, result: result.into(), elapsed, size: None, output: None }
    }
}
