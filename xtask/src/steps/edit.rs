//! `edit`: pixi.toml gets the platforms, features and environments of the exercise.

use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::builder::PossibleValuesParser;
use clap::{ArgMatches, Args, Command, FromArgMatches};

use crate::command_line::CommandLine;
use crate::context::Context;
use crate::engine::Format;
use crate::lesson;
use crate::manifest_edit::{self, Change, Dependency, Edited, ManifestError, PlatformStyle, Request};
use crate::options::{self, SourceChoice};
use crate::pins;
use crate::session::Session;
use crate::stamp::{Input, State};
use crate::step::{self, Reference, Row, Step, Task};

/// The manifest as `pixi init` leaves it.
const START: &str = "exercise/pixi.toml";

/// The step.
pub struct Edit;

// What `edit` takes.
#[derive(clap::Args)]
struct Arguments {
    /// How the need for CUDA is written [default: as it stands there, else legacy]
    #[arg(long, value_name = "STYLE")]
    platform_style: Option<PlatformStyle>,
    #[command(flatten)]
    more: More,
}

// What `edit` adds beyond the exercise.
#[derive(clap::Args)]
#[command(next_help_heading = "Beyond the exercise, in your own pixi.toml (a rehearsal copies it)")]
struct More {
    /// CUDA version that the gpu environment asks of the machine
    #[arg(long, value_name = "VERSION", value_parser = options::cuda_version)]
    cuda: Option<String>,
    /// Conda platform to add, such as linux-aarch64; may be repeated
    #[arg(long, value_name = "SUBDIR", value_parser = subdirs(), hide_possible_values = true)]
    add_platform: Vec<String>,
    /// Package to add, such as 'numpy>=2'; may be repeated
    #[arg(long, value_name = "SPEC")]
    add_dep: Vec<Dependency>,
    /// Feature that --add-dep adds to [default: the workspace itself]
    #[arg(long, value_name = "NAME", requires = "add_dep", value_parser = manifest_edit::feature)]
    feature: Option<String>,
    /// Channel to add behind the others, by name or address; may be repeated
    #[arg(long, value_name = "CHANNEL", value_parser = manifest_edit::channel)]
    channel: Vec<String>,
}

fn subdirs() -> PossibleValuesParser {
    PossibleValuesParser::new(manifest_edit::SUBDIRS)
}

impl Arguments {
    fn request(self) -> Request {
        Request {
            style: self.platform_style,
            channels: self.more.channel,
            platforms: self.more.add_platform,
            cuda: self.more.cuda,
            // pixi calls the workspace's own tables the feature `default`.
            feature: self.more.feature.filter(|feature| feature != "default"),
            dependencies: self.more.add_dep,
        }
    }
}

impl Step for Edit {
    fn name(&self) -> &'static str {
        "edit"
    }

    fn about(&self) -> &'static str {
        "Add the cpu and gpu environments to pixi.toml"
    }

    fn why(&self) -> &'static str {
        "One manifest describes a CPU and a CUDA environment for three platforms; the images are made of one of them."
    }

    fn lesson(&self) -> &'static str {
        "pixi workspace platform add, pixi add --feature, pixi workspace environment add"
    }

    fn example(&self) -> &'static str {
        "cargo xtask edit --add-dep 'numpy>=2' --feature gpu"
    }

    fn needs_programs(&self) -> bool {
        false
    }

    /// By itself it edits the learner's own manifest, and needs no network to know that.
    fn source(&self, cx: &Context) -> Result<SourceChoice> {
        Ok(if cx.options.source == SourceChoice::Auto { SourceChoice::CondaForge } else { cx.options.source })
    }

    fn arguments(&self, command: Command) -> Command {
        Arguments::augment_args(command)
    }

    fn tasks(&self, session: &Session<'_>) -> Result<Vec<Task>> {
        let mut inputs = vec![Input::Content(session.learner.manifest())];
        let mut outputs = vec![session.workspace.manifest()];
        if session.is_rehearsal() {
            inputs.push(Input::Value(session.rehearsal.url()));
            inputs.push(Input::Optional(session.learner.ignored()));
            outputs.extend(Some(session.workspace.ignored()).filter(|_| session.learner.ignored().is_file()));
        }
        Ok(vec![Task::new(session, self, None, inputs, outputs)])
    }

    fn state(&self, session: &Session<'_>, task: &Task) -> Result<State> {
        let (cx, manifest) = (session.cx, session.learner.manifest());
        if session.is_rehearsal() || !manifest.is_file() {
            return task.record.state(cx);
        }
        match manifest_edit::finish(&cx.read_file(&manifest)?, &Request::default()) {
            Err(error) => Ok(State::ToDo(format!("{}: {}", cx.typed(&manifest), first_line(&error.to_string())))),
            Ok(edited) if !edited.changes.is_empty() => {
                let more = edited.changes.len() - 1;
                let more = if more == 0 { String::new() } else { format!(" and {more} more") };
                Ok(State::ToDo(format!("{} lacks {}{more}", cx.typed(&manifest), edited.changes[0])))
            }
            Ok(_) => step::compared(session, &self.references(session, None)?),
        }
    }

    /// Of the exercise alone: what another workspace is to hold, nobody knows.
    fn references(&self, session: &Session<'_>, _format: Option<Format>) -> Result<Vec<Reference>> {
        let Some(start) = lesson::text(START).filter(|_| session.learner.name() == pins::WORKSPACE) else {
            return Ok(Vec::new());
        };
        let edited = manifest_edit::finish(start, &Request::default()).with_context(|| format!("edit {START}"))?;
        Ok(vec![Reference { path: session.learner.manifest(), text: edited.text }])
    }

    fn files(&self, session: &Session<'_>, _format: Option<Format>) -> Result<Vec<PathBuf>> {
        Ok(vec![session.learner.manifest()])
    }

    fn run(&self, session: &Session<'_>, tasks: &[&Task], arguments: &ArgMatches) -> Result<Vec<Row>> {
        let request = Arguments::from_arg_matches(arguments)?.request();
        let (cx, clock) = (session.cx, session.cx.now());
        let (from, to) = (session.learner.manifest(), session.workspace.manifest());
        if session.is_rehearsal() && !request.is_empty() {
            bail!(
                "a rehearsal works on a copy, which is made anew from your {}\n  \
                 hint: leave `--source rehearsal` away to change yours; the next rehearsal has what it says then",
                cx.typed(&from)
            );
        }
        if !from.is_file() {
            bail!("{} is not there\n  hint: `pixi init` makes one", cx.typed(&from));
        }
        let text = cx.read_file(&from)?;
        let place = |error: ManifestError| anyhow!("{}: {error}", cx.typed(&from));
        let Edited { text: mut edited, changes, notes } = manifest_edit::finish(&text, &request).map_err(place)?;
        notes.iter().for_each(|note| cx.ui.aside(note));
        note_recipes(cx, &changes);
        show_pixi_commands(session, &changes);
        if session.is_rehearsal() {
            edited = manifest_edit::for_rehearsal(&edited, &session.rehearsal.url()).map_err(place)?;
            // The lesson's definition file copies it into the image.
            if session.learner.ignored().is_file() {
                let ignored = cx.read_file(&session.learner.ignored())?;
                cx.publish(&session.workspace.ignored(), ignored.as_bytes())?;
            }
        }
        let result = if cx.read_file(&to).is_ok_and(|present| present == edited) {
            "nothing to change".to_owned()
        } else {
            let summary = summary(&request, &changes);
            if cx.options.dry_run && !is_plain(&request) {
                cx.ui.would(&summary);
            }
            cx.publish(&to, edited.as_bytes())?;
            summary
        };
        let result = format!("{}: {result}", cx.typed(&to));
        Ok(tasks.iter().map(|task| Row::new(task, "xtask", &result, Some(clock.elapsed()))).collect())
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

/// Whether the exercise is asked for and nothing else.
fn is_plain(request: &Request) -> bool {
    request.is_empty() && request.style.is_none()
}

/// What the edit led to: the exercise by its environments, anything else by name.
fn summary(request: &Request, changes: &[Change]) -> String {
    let makes_environments = changes.iter().any(|change| matches!(change, Change::Environment { .. }));
    let is_said = |change: &&Change| !makes_environments || change.is_asked_by(request);
    // A rehearsal's copy can lack what the manifest has.
    let exercise = (makes_environments || changes.is_empty()).then(|| "environments cpu and gpu".to_owned());
    let others = changes.iter().filter(is_said).map(ToString::to_string);
    exercise.into_iter().chain(others).collect::<Vec<_>>().join(", ")
}

/// Says what else must be told of a newer CUDA than that of the recipes.
fn note_recipes(cx: &Context, changes: &[Change]) {
    let parts = |version: &str| version.split('.').map(|part| part.parse().ok()).collect::<Vec<Option<u64>>>();
    let new = changes.iter().find_map(|change| match change {
        Change::CudaRequirement { new, .. } | Change::CudaOfPlatform { new, .. } => Some(new),
        Change::CudaPlatform { cuda, .. } => Some(cuda),
        _ => None,
    });
    if let Some(new) = new.filter(|new| parts(new) > parts(pins::CUDA)) {
        cx.ui.aside(format_args!(
            "The recipes install for CUDA {}; `--cuda-version {new}` tells builds by Docker and Apptainer otherwise.",
            pins::CUDA
        ));
    }
}

/// Shows what is typed where pixi is installed, in the repository's root, to change the same.
fn show_pixi_commands(session: &Session<'_>, changes: &[Change]) {
    let commands = manifest_edit::pixi_commands(changes);
    if commands.is_empty() {
        return;
    }
    let ui = &session.cx.ui;
    let place = if session.is_rehearsal() { "to your own pixi.toml " } else { "" };
    ui.aside(format_args!("With pixi, the same is done {place}by:"));
    ui.aside(format_args!("    {}", CommandLine::new("cd").arg(session.cx.typed(session.learner.directory()))));
    commands.iter().for_each(|line| ui.aside(format_args!("    {line}")));
}
