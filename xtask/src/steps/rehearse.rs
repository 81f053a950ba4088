//! `rehearse`: the channel and the base image for places that cannot reach conda-forge.

use anyhow::Result;
use clap::ArgMatches;

use crate::context::Context;
use crate::external::Program;
use crate::options::SourceChoice;
use crate::session::Session;
use crate::stamp::Input;
use crate::step::{Group, Row, Step, Task};

/// The step.
pub struct Rehearse;

impl Step for Rehearse {
    fn name(&self) -> &'static str {
        "rehearse"
    }

    fn about(&self) -> &'static str {
        "Make a channel and a base image from Debian's mirror"
    }

    fn group(&self) -> Group {
        Group::Beyond
    }

    fn why(&self) -> &'static str {
        "Where conda-forge or the registry cannot be reached, the lesson is rehearsed with a real Python and PyTorch from Debian."
    }

    fn lesson(&self) -> &'static str {
        "none; it takes packages from conda-forge and its base from ghcr.io"
    }

    fn example(&self) -> &'static str {
        "cargo xtask rehearse --debian-mirror http://mirror.example/debian"
    }

    fn source(&self, _cx: &Context) -> Result<SourceChoice> {
        Ok(SourceChoice::Rehearsal)
    }

    fn tasks(&self, session: &Session<'_>) -> Result<Vec<Task>> {
        if !session.is_rehearsal() || session.bundle.is_some() {
            return Ok(Vec::new());
        }
        // The mirror is no input: all mirrors carry the same signed packages.
        let inputs = vec![Input::File(session.programs.path(Program::Rehearsal))];
        let outputs = vec![session.rehearsal.channel(), session.rehearsal.base()];
        Ok(vec![Task::new(session, self, None, inputs, outputs)])
    }

    fn run(&self, session: &Session<'_>, tasks: &[&Task], _arguments: &ArgMatches) -> Result<Vec<Row>> {
        let (cx, clock) = (session.cx, session.cx.now());
        if let Some(bundle) = &session.bundle {
            cx.ui.note(format_args!("{} holds a rehearsal that is made already.", bundle.file()));
            return Ok(Vec::new());
        }
        let source = cx.typed(&session.rehearsal.source());
        let mut line = session.programs.command(Program::Rehearsal)?.arg("make").option("--out", &source);
        if let Some(mirror) = &cx.options.debian_mirror {
            line = line.option("--debian-mirror", mirror);
        }
        let line = if cx.options.offline { line.arg("--offline") } else { line };
        // What it reports on its standard output is known here: it was told where to write.
        cx.read(&line)?;
        let result = format!("{source}: channel and base.oci.tar");
        Ok(tasks.iter().map(|task| Row::new(task, Program::Rehearsal.name(), &result, Some(clock.elapsed()))).collect())
    }
}
