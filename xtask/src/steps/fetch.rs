//! `fetch`: the lesson's script, checked against its pinned digest.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::{ArgMatches, Args, Command, FromArgMatches};

use crate::bundle::Bundle;
use crate::engine::Format;
use crate::external::Program;
use crate::lesson;
use crate::pins;
use crate::session::Session;
use crate::stamp::{Input, State};
use crate::step::{Row, Step, Task};

/// Our own script that does the same job, for the rehearsal.
const OWN_SCRIPT: &str = "rehearsal/torch_detect_GPU.py";

/// The step.
pub struct Fetch;

// What `fetch` takes.
#[derive(clap::Args)]
struct Arguments {
    /// Address of the script on a mirror; the digest stays the same
    #[arg(long, value_name = "URL", default_value = pins::SCRIPT_URL, hide_default_value = true)]
    url: String,
    /// Replace a script that was changed
    #[arg(long)]
    force: bool,
}

impl Step for Fetch {
    fn name(&self) -> &'static str {
        "fetch"
    }

    fn about(&self) -> &'static str {
        "Download the lesson's script into app/ and check it"
    }

    fn why(&self) -> &'static str {
        "The image carries a script that says which GPU PyTorch sees; it is pinned by commit, sha256 and size."
    }

    fn lesson(&self) -> &'static str {
        "curl -sL https://github.com/.../torch_detect_GPU.py -o ./app/torch_detect_GPU.py"
    }

    fn example(&self) -> &'static str {
        "cargo xtask fetch"
    }

    fn arguments(&self, command: Command) -> Command {
        Arguments::augment_args(command)
    }

    fn tasks(&self, session: &Session<'_>) -> Result<Vec<Task>> {
        let inputs = if session.is_rehearsal() {
            let own = lesson::text(OWN_SCRIPT).unwrap_or_default();
            vec![Input::Tree(session.learner.app()), Input::Value(own.to_owned())]
        } else {
            vec![Input::Content(session.learner.script()), Input::Value(pins::SCRIPT_SHA256.to_owned())]
        };
        Ok(vec![Task::new(session, self, None, inputs, vec![session.workspace.script()])])
    }

    /// A script of another size is not the lesson's; whether one of the same size is, its digest tells when it is fetched.
    fn state(&self, session: &Session<'_>, task: &Task) -> Result<State> {
        let (cx, script) = (session.cx, session.workspace.script());
        let is_other = |size: u64| !session.is_rehearsal() && size != pins::SCRIPT_SIZE;
        Ok(match cx.size(&script).filter(|size| is_other(*size)) {
            Some(size) => State::Changed(format!(
                "{} has {size} bytes, not the lesson's {}",
                cx.typed(&script),
                pins::SCRIPT_SIZE
            )),
            None => task.record.state(cx)?,
        })
    }

    fn files(&self, session: &Session<'_>, _format: Option<Format>) -> Result<Vec<PathBuf>> {
        Ok(vec![session.learner.script()])
    }

    fn run(&self, session: &Session<'_>, tasks: &[&Task], arguments: &ArgMatches) -> Result<Vec<Row>> {
        let arguments = Arguments::from_arg_matches(arguments)?;
        let (cx, clock) = (session.cx, session.cx.now());
        let script = session.workspace.script();
        let engine =
            if session.is_rehearsal() { rehearse(session, &arguments)? } else { download(session, &arguments)? };
        let row = |task: &&Task| Row {
            size: cx.size(&script),
            ..Row::new(task, engine, cx.typed(&script), Some(clock.elapsed()))
        };
        Ok(tasks.iter().map(row).collect())
    }
}

/// Downloads and checks the script; pixi-image keeps one that is right and refuses to replace one that was changed.
fn download(session: &Session<'_>, arguments: &Arguments) -> Result<&'static str> {
    let (cx, script) = (session.cx, session.workspace.script());
    let bundled = session.bundle.as_ref().and_then(Bundle::script).filter(|_| arguments.url == pins::SCRIPT_URL);
    if cx.options.offline && bundled.is_none() && !script.is_file() {
        bail!("{} is not there\n  hint: run `cargo xtask fetch` once without --offline", cx.typed(&script));
    }
    let line = session.programs.command(Program::PixiImage)?.arg("fetch");
    let line = line.arg(bundled.map_or(arguments.url.clone(), |path| cx.typed(&path)));
    let line = line.option("--sha256", pins::SCRIPT_SHA256).option("--size", pins::SCRIPT_SIZE.to_string());
    let line = line.option("--out", cx.typed(&script)).option("--workspace", cx.typed(session.learner.directory()));
    cx.execute(&if arguments.force { line.arg("--force") } else { line })?;
    Ok(Program::PixiImage.name())
}

/// Fills the copy's app/: the learner's files, and a script if there is none among them.
fn rehearse(session: &Session<'_>, arguments: &Arguments) -> Result<&'static str> {
    let (cx, learner, copy) = (session.cx, &session.learner, &session.workspace);
    cx.mirror(&learner.app(), &copy.app())?;
    if learner.script().is_file() {
        return Ok("copy");
    }
    let is_bundled = session.bundle.as_ref().is_some_and(|bundle| bundle.script().is_some());
    if is_bundled || !cx.options.offline && can_reach(session, &arguments.url)? {
        if cx.options.dry_run && !is_bundled {
            cx.ui.would(format_args!(
                "when it answers; else a script of our own is written to {}",
                cx.typed(&copy.script())
            ));
        }
        return download(session, arguments);
    }
    let Some(own) = lesson::text(OWN_SCRIPT) else { bail!("xtask was built without its lesson/{OWN_SCRIPT}") };
    cx.ui.announce(format_args!(
        "The lesson's script cannot be fetched from here. A script of our own that does the same job stands in for it:\n  {}",
        cx.typed(&copy.script())
    ));
    cx.publish(&copy.script(), own.as_bytes())?;
    Ok("own script")
}

fn can_reach(session: &Session<'_>, url: &str) -> Result<bool> {
    let line = session.programs.command(Program::PixiImage)?.arg("probe").arg(url);
    let line = line.option("--timeout", pins::PROBE_SECONDS.to_string());
    let answer = session.cx.ask(&line.option("--workspace", session.cx.typed(session.learner.directory())))?;
    Ok(answer.is_none_or(|answer| answer.code == 0))
}
