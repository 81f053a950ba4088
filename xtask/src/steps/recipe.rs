//! `recipe`: the Dockerfile and the definition file, by which the lesson's tools build.

use std::path::PathBuf;

use anyhow::Result;
use clap::ArgMatches;

use crate::context::Context;
use crate::engine::Format;
use crate::options::SourceChoice;
use crate::recipe::{self, Recipe};
use crate::session::Session;
use crate::stamp::{Input, State};
use crate::step::{self, Formats, Reference, Row, Step, Task};

/// The step.
pub struct WriteRecipe;

impl Step for WriteRecipe {
    fn name(&self) -> &'static str {
        "recipe"
    }

    fn about(&self) -> &'static str {
        "Write the Dockerfile or apptainer.def, where there is none"
    }

    fn why(&self) -> &'static str {
        "There is effectively one recipe, used again for every workspace: install what the lock names, activate it at the start."
    }

    fn lesson(&self) -> &'static str {
        "the files Dockerfile and apptainer.def"
    }

    fn lesson_for(&self, format: Option<Format>) -> &'static str {
        match format {
            Some(Format::Docker) => "the file Dockerfile",
            Some(Format::Apptainer) => "the file apptainer.def",
            None => self.lesson(),
        }
    }

    fn example(&self) -> &'static str {
        "cargo xtask recipe docker"
    }

    fn formats(&self) -> Formats {
        Formats::Required
    }

    fn needs_programs(&self) -> bool {
        false
    }

    /// By itself it writes to the learner's workspace, and needs no network to know that.
    fn source(&self, cx: &Context) -> Result<SourceChoice> {
        Ok(if cx.options.source == SourceChoice::Auto { SourceChoice::CondaForge } else { cx.options.source })
    }

    fn tasks(&self, session: &Session<'_>) -> Result<Vec<Task>> {
        let task = |format: Format| {
            let mut inputs = vec![Input::Value(session.base_for_recipes().unwrap_or_default())];
            let mut outputs = Vec::new();
            for Recipe { name, text } in files(session, format)? {
                inputs.push(Input::Value(text.to_owned()));
                inputs.push(Input::Optional(session.learner.directory().join(name)));
                outputs.push(session.recipes().join(name));
            }
            Ok(Task::new(session, self, Some(format), inputs, outputs).of_all_environments())
        };
        session.formats().into_iter().map(task).collect()
    }

    fn state(&self, session: &Session<'_>, task: &Task) -> Result<State> {
        if session.is_rehearsal() || session.cx.options.exact {
            return task.record.state(session.cx);
        }
        step::compared(session, &self.references(session, task.format)?)
    }

    fn references(&self, session: &Session<'_>, format: Option<Format>) -> Result<Vec<Reference>> {
        let Some(format) = format else { return Ok(Vec::new()) };
        let reference =
            |Recipe { name, text }| Reference { path: session.learner.directory().join(name), text: text.to_owned() };
        // The lesson prints the recipe and nothing beside it.
        let printed = if session.cx.options.exact { 1 } else { usize::MAX };
        Ok(files(session, format)?.into_iter().take(printed).map(reference).collect())
    }

    fn files(&self, session: &Session<'_>, format: Option<Format>) -> Result<Vec<PathBuf>> {
        let Some(format) = format else { return Ok(Vec::new()) };
        let place = |file: Recipe| session.learner.directory().join(file.name);
        Ok(recipe::files(format)?.into_iter().map(place).collect())
    }

    fn run(&self, session: &Session<'_>, tasks: &[&Task], _arguments: &ArgMatches) -> Result<Vec<Row>> {
        let cx = session.cx;
        let mut rows = Vec::new();
        for task in tasks {
            let Some(format) = task.format else { continue };
            let clock = cx.now();
            let mut results = Vec::new();
            for Recipe { name, text } in files(session, format)? {
                let own = session.learner.directory().join(name);
                let text = if own.is_file() && !cx.options.exact { cx.read_file(&own)? } else { text.to_owned() };
                let text = session.base_for_recipes().map_or(text.clone(), |base| recipe::with_base(&text, &base));
                let place = session.recipes().join(name);
                if !cx.read_file(&place).is_ok_and(|present| present == text) {
                    cx.publish(&place, text.as_bytes())?;
                    results.push(name);
                }
            }
            let place = cx.typed(&session.recipe(format));
            let result = if results.is_empty() { format!("{place}: nothing to change") } else { place };
            rows.push(Row::new(task, "xtask", result, Some(clock.elapsed())));
        }
        Ok(rows)
    }
}

fn files(session: &Session<'_>, format: Format) -> Result<Vec<Recipe>> {
    if session.cx.options.exact { recipe::exact_files(format) } else { recipe::files(format) }
}
