//! `build`: the locked environment becomes an OCI archive and an Apptainer image.

use anyhow::{Result, ensure};
use clap::ArgMatches;

use crate::engine::{BuildRequest, Format};
use crate::external::Program;
use crate::session::Session;
use crate::stamp::Input;
use crate::step::{Row, Step, Task};

/// The step.
pub struct Build;

impl Step for Build {
    fn name(&self) -> &'static str {
        "build"
    }

    fn about(&self) -> &'static str {
        "Build the image: docker (alias oci) or apptainer (alias sif)"
    }

    fn why(&self) -> &'static str {
        "A container image carries the whole environment to machines that have neither pixi nor the internet."
    }

    fn lesson(&self) -> &'static str {
        "docker build --file Dockerfile --tag <name:tag> .   and   apptainer build <name>.sif apptainer.def"
    }

    fn takes_format(&self) -> bool {
        true
    }

    fn tasks(&self, session: &Session<'_>) -> Result<Vec<Task>> {
        let base = match &session.cx.options.base {
            None if session.is_rehearsal() => Input::File(session.rehearsal.base()),
            Some(base) if session.cx.resolve(base).is_file() => Input::File(session.cx.resolve(base)),
            _ => Input::Value(session.base()),
        };
        let inputs = [
            Input::Content(session.workspace.manifest()),
            Input::Content(session.workspace.lock()),
            Input::Tree(session.workspace.app()),
            Input::File(session.programs.path(Program::PixiImage)),
            base,
        ];
        let task = |format| Task::new(session, self, Some(format), inputs.to_vec(), vec![session.image(format)]);
        Ok(Format::ALL.into_iter().map(task).collect())
    }

    fn run(&self, session: &Session<'_>, tasks: &[&Task], _arguments: &ArgMatches) -> Result<Vec<Row>> {
        let (cx, workspace) = (session.cx, &session.workspace);
        session.require(&workspace.manifest(), "edit")?;
        session.require(&workspace.lock(), "lock")?;
        session.require(&workspace.app(), "fetch")?;
        if cx.options.base.is_none() && session.is_rehearsal() {
            session.require(&session.rehearsal.base(), "rehearse")?;
        }
        let engine = session.engine()?;
        let output = |task: &&Task| task.format.map(|format| (format, cx.typed(&session.image(format))));
        let request = BuildRequest {
            lock: cx.typed(&workspace.lock()),
            manifest: cx.typed(&workspace.manifest()),
            environment: cx.options.environment.clone(),
            base: session.base(),
            app: cx.typed(&workspace.app()),
            reference: session.reference(),
            labels: session.labels(),
            offline: session.is_offline(),
            outputs: tasks.iter().filter_map(output).collect(),
        };
        let line = engine.build(&session.programs, &request)?;
        let server = if session.is_rehearsal() { session.rehearsal.serve(cx, &session.programs)? } else { None };
        let clock = cx.now();
        let Some(report) = cx.read(&line)? else { return Ok(Vec::new()) };
        let elapsed = clock.elapsed();
        drop(server);
        let artifacts = engine.artifacts(&report)?;
        ensure!(
            artifacts.len() == tasks.len(),
            "{} reported {} images, not {}",
            line.short(),
            artifacts.len(),
            tasks.len()
        );
        let rows = tasks.iter().zip(artifacts).enumerate().map(|(index, (task, artifact))| {
            cx.ui.detail(format_args!("{} is {}", artifact.path, artifact.digest));
            // One command made both: its time stands once.
            let elapsed = Some(elapsed).filter(|_| index == 0);
            Row { size: Some(artifact.size), ..Row::new(task, engine.name(), artifact.path, elapsed) }
        });
        Ok(rows.collect())
    }
}
