//! `workflows`: the files that let GitHub build, test, run and publish the images.

use std::path::{Component, Path, PathBuf};

use anyhow::{Result, bail};
use clap::{ArgMatches, Args, Command, FromArgMatches};

use crate::context::Context;
use crate::engine::Format;
use crate::lesson;
use crate::options::SourceChoice;
use crate::pins::WORKSPACE;
use crate::session::Session;
use crate::stamp::{Input, State};
use crate::step::{self, Formats, Reference, Row, Step, Task};

/// Where GitHub looks for them, from the repository's root.
const DIRECTORY: &str = ".github/workflows";
/// The end of each command of xtask in our texts: a workflow never rehearses.
const OPTIONS: &str = "--source conda-forge";

/// The step.
pub struct Workflows;

// What `workflows` takes.
#[derive(clap::Args)]
struct Arguments {
    /// Replace workflows that were changed
    #[arg(long)]
    force: bool,
}

impl Step for Workflows {
    fn name(&self) -> &'static str {
        "workflows"
    }

    fn about(&self) -> &'static str {
        "Write the GitHub workflows that publish the images"
    }

    fn why(&self) -> &'static str {
        "GitHub builds, tests and runs both images at each change, and publishes what passed; a pull request publishes nothing."
    }

    fn lesson(&self) -> &'static str {
        "mkdir -p .github/workflows, and two files written there by hand"
    }

    fn lesson_for(&self, format: Option<Format>) -> &'static str {
        match format {
            Some(Format::Docker) => "mkdir -p .github/workflows, and docker.yaml written there by hand",
            Some(Format::Apptainer) => "mkdir -p .github/workflows, and apptainer.yaml written there by hand",
            None => self.lesson(),
        }
    }

    fn example(&self) -> &'static str {
        "cargo xtask workflows docker"
    }

    fn needs_programs(&self) -> bool {
        false
    }

    /// By itself it writes the learner's own files, and needs no network to know that.
    fn source(&self, cx: &Context) -> Result<SourceChoice> {
        Ok(if cx.options.source == SourceChoice::Auto { SourceChoice::CondaForge } else { cx.options.source })
    }

    fn arguments(&self, command: Command) -> Command {
        Arguments::augment_args(command)
    }

    fn formats(&self) -> Formats {
        Formats::Optional
    }

    fn tasks(&self, session: &Session<'_>) -> Result<Vec<Task>> {
        let Some(workflows) = render_all(session)? else { return Ok(Vec::new()) };
        let place = place(session, &workflows);
        let task = |workflow: &Workflow| {
            let inputs = vec![Input::Value(workflow.text.clone())];
            Task::new(session, self, Some(workflow.format), inputs, vec![place.join(workflow.name())])
        };
        Ok(workflows.iter().map(task).collect())
    }

    fn state(&self, session: &Session<'_>, task: &Task) -> Result<State> {
        let Some(workflows) = render_all(session)? else { return task.record.state(session.cx) };
        let place = place(session, &workflows);
        let own = workflows.into_iter().filter(|workflow| Some(workflow.format) == task.format);
        let references = own.map(|workflow| workflow.reference(&place));
        step::compared(session, &references.collect::<Vec<_>>())
    }

    fn references(&self, session: &Session<'_>, format: Option<Format>) -> Result<Vec<Reference>> {
        let place = session.cx.resolve(DIRECTORY);
        let workflows = render_all(session)?.into_iter().flatten();
        let of_format = workflows.filter(|workflow| format.is_none_or(|format| format == workflow.format));
        Ok(of_format.map(|workflow| workflow.reference(&place)).collect())
    }

    fn run(&self, session: &Session<'_>, tasks: &[&Task], arguments: &ArgMatches) -> Result<Vec<Row>> {
        let Arguments { force } = Arguments::from_arg_matches(arguments)?;
        let (cx, clock) = (session.cx, session.cx.now());
        let workflows = required(session)?;
        let place = place(session, &workflows);
        let asked = |workflow: &Workflow| tasks.iter().any(|task| task.format == Some(workflow.format));
        let kept = if force { Vec::new() } else { changed(session, tasks, &workflows) };
        let mut written = Vec::new();
        for workflow in workflows.iter().filter(|workflow| asked(workflow)) {
            let path = place.join(workflow.name());
            if !kept.contains(&cx.typed(&path)) && cx.read_file(&path).ok().as_ref() != Some(&workflow.text) {
                cx.publish(&path, workflow.text.as_bytes())?;
                written.push(workflow.name());
            }
        }
        for path in &kept {
            cx.ui.announce(format_args!(
                "{path} is not as xtask writes it, and is kept; `cargo xtask workflows --force` replaces it"
            ));
        }
        let what = if written.is_empty() { "nothing to change".to_owned() } else { written.join(" and ") };
        let result = format!("{}: {what}", cx.typed(&place));
        Ok(tasks.iter().map(|task| Row::new(task, "xtask", &result, Some(clock.elapsed()))).collect())
    }

    /// `all` goes on with what the learner made of a file; who asks for the files is told when they do not get them.
    fn run_typed(&self, session: &Session<'_>, tasks: &[&Task], arguments: &ArgMatches) -> Result<Vec<Row>> {
        let changed = changed(session, tasks, &required(session)?);
        if !changed.is_empty() && !Arguments::from_arg_matches(arguments)?.force {
            bail!("{}: not as xtask writes it, so it is kept\n  hint: --force replaces it", changed.join(" and "));
        }
        self.run_stamped(session, tasks, arguments)
    }
}

/// A workflow as it is to be.
struct Workflow {
    format: Format,
    text: String,
}

impl Workflow {
    fn name(&self) -> &'static str {
        file(self.format)
    }

    fn reference(self, place: &Path) -> Reference {
        Reference { path: place.join(self.name()), text: self.text }
    }
}

/// What the workflow of a format is called.
fn file(format: Format) -> &'static str {
    match format {
        Format::Docker => "docker.yaml",
        Format::Apptainer => "apptainer.yaml",
    }
}

/// The texts for the learner's workspace; none where no workflow can name it.
fn render_all(session: &Session<'_>) -> Result<Option<Vec<Workflow>>> {
    let cx = session.cx;
    let Some(directory) = in_repository(&cx.resolve(""), session.learner.directory()) else { return Ok(None) };
    let folder = if cx.options.exact { "exact" } else { "workflows" };
    let render = |format| {
        let name = file(format);
        let Some(text) = lesson::text(&format!("{folder}/{name}")) else {
            bail!("xtask was built without its lesson/{folder}/{name}")
        };
        Ok(Workflow { format, text: render(text, &directory, session.learner.name()) })
    };
    Format::ALL.into_iter().map(render).collect::<Result<_>>().map(Some)
}

fn required(session: &Session<'_>) -> Result<Vec<Workflow>> {
    let Some(workflows) = render_all(session)? else {
        bail!(
            "no workflow can name the workspace {}\n  hint: one inside of the repository can be named, with letters, \
             digits and `-_.` in its path",
            session.learner.directory().display()
        )
    };
    Ok(workflows)
}

/// Where the files go: into the repository; but the lesson's own stand with its other recipes, and what a rehearsal would
/// have to change stands with its copies.
fn place(session: &Session<'_>, workflows: &[Workflow]) -> PathBuf {
    let place = session.cx.resolve(DIRECTORY);
    if session.cx.options.exact {
        return session.recipes().join(DIRECTORY);
    }
    let present = |workflow: &Workflow| session.cx.read_file(&place.join(workflow.name())).ok();
    let same = workflows.iter().all(|workflow| present(workflow).is_some_and(|text| text == workflow.text));
    if session.is_rehearsal() && !same { session.rehearsal.directory().join(DIRECTORY) } else { place }
}

/// The files of these tasks that somebody made something else of, as they are typed. Below the target directory all is
/// ours.
fn changed(session: &Session<'_>, tasks: &[&Task], workflows: &[Workflow]) -> Vec<String> {
    let (cx, place) = (session.cx, place(session, workflows));
    let is_changed = |workflow: &&Workflow| {
        let path = place.join(workflow.name());
        let asked = tasks.iter().any(|task| task.format == Some(workflow.format));
        asked && path.exists() && cx.read_file(&path).ok().as_ref() != Some(&workflow.text)
    };
    if place.starts_with(cx.target()) {
        return Vec::new();
    }
    workflows.iter().filter(is_changed).map(|workflow| cx.typed(&place.join(workflow.name()))).collect()
}

/// A text of the lesson for the workspace in `directory`, whose images are called `name`.
fn render(text: &str, directory: &str, name: &str) -> String {
    let options =
        if directory == WORKSPACE { OPTIONS.to_owned() } else { format!("{OPTIONS} --workspace {directory}") };
    // In one pass: a directory's name may hold the words that are replaced.
    let parts = [
        (format!("{WORKSPACE}:"), format!("{name}:")),
        (format!("{WORKSPACE}-"), format!("{name}-")),
        (OPTIONS.to_owned(), options),
        (WORKSPACE.to_owned(), directory.to_owned()),
    ];
    let mut rendered = String::new();
    let mut rest = text;
    while !rest.is_empty() {
        if let Some((from, to)) = parts.iter().find(|(from, _)| rest.starts_with(from.as_str())) {
            rendered += to;
            rest = &rest[from.len()..];
        } else {
            let next = rest.chars().next().map_or(0, char::len_utf8);
            rendered += &rest[..next];
            rest = &rest[next..];
        }
    }
    rendered
}

/// The workspace as a workflow names it. It stands in YAML, in patterns and in shell there: it is plain, or it is none.
fn in_repository(root: &Path, directory: &Path) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let parts = directory.strip_prefix(root).ok()?.components().map(|part| match part {
        Component::Normal(name) => name.to_str().filter(|name| !name.starts_with('-') && name.chars().all(plain)),
        _ => None,
    });
    parts.collect::<Option<Vec<_>>>().filter(|parts| !parts.is_empty()).map(|parts| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_texts_are_rendered_for_any_workspace_and_environment() {
        for file in Format::ALL.map(file) {
            let text = lesson::text(&format!("workflows/{file}")).unwrap();
            assert_eq!(render(text, WORKSPACE, WORKSPACE), text);
            let other = render(text, "my/CUDA-exercise-2", "cuda-exercise-2");
            assert!(other.contains("- 'my/CUDA-exercise-2/pixi.lock'"), "{other}");
            assert!(other.contains(" cuda-exercise-2:gpu ") || other.contains("/cuda-exercise-2-gpu.sif"), "{other}");
            let commands = other.lines().filter(|line| line.contains("cargo xtask ") && !line.starts_with('#'));
            for command in commands {
                assert!(command.contains("--source conda-forge --workspace my/CUDA-exercise-2"), "{command}");
            }
        }
        let place = |directory: &str| in_repository(Path::new("/r"), Path::new(directory));
        assert_eq!(place("/r/./my/work"), Some("my/work".to_owned()));
        for refused in ["/r", "/elsewhere", "/r/../x", "/r/a b", "/r/${{x}}", "/r/'", "/r/-x", "/r/x*"] {
            assert_eq!(place(refused), None, "{refused}");
        }
        let exact = render(lesson::text("exact/docker.yaml").unwrap(), "work", "work");
        assert!(exact.contains("context: work\n") && exact.contains("- 'work/Dockerfile'"), "{exact}");
    }
}
