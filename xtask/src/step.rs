//! What a step is: one piece of the lesson, with its inputs and outputs, so that resuming and status are derived.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{ArgMatches, Command};

use crate::context::Context;
use crate::engine::Format;
use crate::options::SourceChoice;
use crate::session::Session;
use crate::source::Source;
use crate::stamp::{Input, Record, State};

/// Where the help lists a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// A step of the lesson.
    Steps,
    /// The lesson as a whole.
    Whole,
    /// What helps on the way.
    Helpers,
    /// What goes beyond the lesson.
    Beyond,
}

impl Group {
    /// In the order of the help.
    pub const ALL: [Self; 4] = [Self::Whole, Self::Steps, Self::Helpers, Self::Beyond];

    /// What stands above its commands.
    pub fn title(self) -> &'static str {
        match self {
            Self::Steps => "The lesson, step by step",
            Self::Whole => "The whole lesson",
            Self::Helpers => "Helpers on the way",
            Self::Beyond => "Beyond the lesson",
        }
    }
}

/// Whether a step is typed with an image format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Formats {
    /// It has nothing to do with formats.
    None,
    /// With none it concerns both.
    Optional,
    /// Always one.
    Required,
}

/// A file of the learner's as the lesson leaves it, which is what `diff` compares with and `reset` restores.
pub struct Reference {
    /// The learner's file.
    pub path: PathBuf,
    /// What the lesson has there.
    pub text: String,
}

/// One step of the lesson. A new one is one file and one line in `STEPS`.
pub trait Step: Sync {
    /// What is typed after `cargo xtask`.
    fn name(&self) -> &'static str;

    /// What it does, in at most 60 characters.
    fn about(&self) -> &'static str;

    /// Where the help lists it.
    fn group(&self) -> Group {
        Group::Steps
    }

    /// Why the step is there.
    fn why(&self) -> &'static str;

    /// The lesson's own command for it.
    fn lesson(&self) -> &'static str;

    /// The lesson's own command for one format, where it takes one.
    fn lesson_for(&self, _format: Option<Format>) -> &'static str {
        self.lesson()
    }

    /// A command line that shows its use.
    fn example(&self) -> &'static str;

    /// Whether it works on one image format at a time.
    fn formats(&self) -> Formats {
        Formats::None
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

    /// How far a piece of work is: as the files themselves tell it where they do, else by its stamp.
    fn state(&self, session: &Session<'_>, task: &Task) -> Result<State> {
        task.record.state(session.cx)
    }

    /// The learner's files that the step writes, as the lesson has them: of a format, where it takes one.
    fn references(&self, _session: &Session<'_>, _format: Option<Format>) -> Result<Vec<Reference>> {
        Ok(Vec::new())
    }

    /// The learner's files that the step writes and git is to hold, there or not: of a format, where it takes one.
    fn files(&self, session: &Session<'_>, format: Option<Format>) -> Result<Vec<PathBuf>> {
        Ok(self.references(session, format)?.into_iter().map(|reference| reference.path).collect())
    }

    /// The formats that are best made in one go with this one.
    fn companions(&self, _session: &Session<'_>, format: Format) -> Result<Vec<Format>> {
        Ok(vec![format])
    }

    /// Does the given pieces of work.
    fn run(&self, session: &Session<'_>, tasks: &[&Task], arguments: &ArgMatches) -> Result<Vec<Row>>;

    /// Does the given pieces of work and stamps them.
    fn run_stamped(&self, session: &Session<'_>, tasks: &[&Task], arguments: &ArgMatches) -> Result<Vec<Row>> {
        let records: Vec<&Record> = tasks.iter().map(|task| &task.record).collect();
        let note = |rows: &Vec<Row>, index: usize| {
            let title = tasks.get(index).map(|task| &task.title);
            rows.iter().find(|row| Some(&row.step) == title).map_or(String::new(), Row::note)
        };
        Record::around(session.cx, &records, || self.run(session, tasks, arguments), note)
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
        let name = step.name();
        // Two workspaces of one name in different places share the places of their results.
        inputs.push(Input::Value(session.learner.directory().display().to_string()));
        let title = format.map_or(name.to_owned(), |format| format!("{name} {}", format.name()));
        Self { title, format, record: Record { stamp: stamp(session, session.source, step, format), inputs, outputs } }
    }

    /// The same where the environment makes no difference, so that what is done is done for all of them.
    pub fn of_all_environments(mut self) -> Self {
        self.record.stamp.set_file_name(self.title.replace(' ', "-"));
        self
    }
}

/// Where it is noted that a step was done.
pub fn stamp(session: &Session<'_>, source: Source, step: &dyn Step, format: Option<Format>) -> PathBuf {
    let (name, environment) = (step.name(), &session.cx.options.environment);
    let file = format.map_or(name.to_owned(), |format| format!("{name}-{}-{environment}", format.name()));
    stamps(session, source).join(file)
}

/// Where the stamps of a workspace lie, apart for each source.
pub fn stamps(session: &Session<'_>, source: Source) -> PathBuf {
    session.cx.target().join("xtask").join(source.name()).join(session.workspace.name())
}

/// How far a step is whose files must be as the lesson has them.
pub fn compared(session: &Session<'_>, references: &[Reference]) -> Result<State> {
    let cx = session.cx;
    if let Some(missing) = references.iter().find(|reference| !reference.path.exists()) {
        return Ok(State::ToDo(format!("{} is not there yet", cx.typed(&missing.path))));
    }
    let is_changed = |reference: &&Reference| cx.read_file(&reference.path).ok().as_ref() != Some(&reference.text);
    let changed: Vec<String> = references.iter().filter(is_changed).map(|one| cx.typed(&one.path)).collect();
    Ok(if changed.is_empty() {
        State::Done
    } else {
        State::Changed(format!("{}: not as the lesson has it", changed.join(" and ")))
    })
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

    /// As it is noted in a stamp: one fact a line, the output last.
    pub fn note(&self) -> String {
        let elapsed = self.elapsed.map_or(String::new(), |elapsed| format!("seconds\t{:.3}\n", elapsed.as_secs_f64()));
        let lines = self.output.iter().flat_map(|output| output.lines()).map(|line| format!("output\t{line}\n"));
        format!("engine\t{}\nresult\t{}\n{elapsed}{}", self.engine, self.result, lines.collect::<String>())
    }
}
