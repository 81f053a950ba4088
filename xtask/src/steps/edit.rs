//! `edit`: pixi.toml gets the platforms, features and environments of the exercise.

use anyhow::{Result, anyhow};
use clap::{ArgMatches, Args, Command, FromArgMatches};

use crate::context::Context;
use crate::manifest_edit::{self, ManifestError, PlatformStyle};
use crate::options::SourceChoice;
use crate::session::Session;
use crate::stamp::Input;
use crate::step::{Row, Step, Task};

/// The step.
pub struct Edit;

// What `edit` takes.
#[derive(clap::Args)]
struct Arguments {
    /// How the need for CUDA is written [default: as it stands there, else legacy]
    #[arg(long, value_name = "STYLE")]
    platform_style: Option<PlatformStyle>,
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

    fn run(&self, session: &Session<'_>, tasks: &[&Task], arguments: &ArgMatches) -> Result<Vec<Row>> {
        let arguments = Arguments::from_arg_matches(arguments)?;
        let (cx, clock) = (session.cx, session.cx.now());
        let (from, to) = (session.learner.manifest(), session.workspace.manifest());
        if !from.is_file() {
            return Err(anyhow!("{} is not there\n  hint: `pixi init` makes one", cx.typed(&from)));
        }
        let text = cx.read_file(&from)?;
        let place = |error: ManifestError| anyhow!("{}: {error}", cx.typed(&from));
        let mut edited = manifest_edit::finish(&text, arguments.platform_style).map_err(place)?;
        if edited != text {
            show_pixi_commands(cx, manifest_edit::style_of(&edited).map_err(place)?);
        }
        if session.is_rehearsal() {
            edited = manifest_edit::for_rehearsal(&edited, &session.rehearsal.url()).map_err(place)?;
            // The lesson's definition file copies it into the image.
            if session.learner.ignored().is_file() {
                let ignored = cx.read_file(&session.learner.ignored())?;
                cx.publish(&session.workspace.ignored(), ignored.as_bytes())?;
            }
        }
        let result = if cx.read_file(&to).is_ok_and(|present| present == edited) {
            format!("{}: nothing to change", cx.typed(&to))
        } else {
            cx.publish(&to, edited.as_bytes())?;
            format!("{}: environments cpu and gpu", cx.typed(&to))
        };
        Ok(tasks.iter().map(|task| Row::new(task, "xtask", &result, Some(clock.elapsed()))).collect())
    }
}

fn show_pixi_commands(cx: &Context, style: PlatformStyle) {
    cx.ui.note("With pixi, the same is done by:");
    for line in manifest_edit::pixi_commands(style) {
        cx.ui.note(format_args!("    {line}"));
    }
}
