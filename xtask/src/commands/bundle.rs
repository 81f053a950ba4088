//! `bundle`: one file with all that a class needs where there is no network.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::base;
use crate::bundle;
use crate::command_line::CommandLine;
use crate::context::Context;
use crate::external::{self, Program};
use crate::pins;
use crate::session::Session;
use crate::ui;

/// What makes programs small.
const STRIP: &str = "strip";

/// Adds the place of the file, and what may be left out.
pub fn arguments(command: Command) -> Command {
    let out = Arg::new("out").long("out").value_name("FILE").value_parser(value_parser!(PathBuf));
    let programs = Arg::new("no-programs").long("no-programs").action(ArgAction::SetTrue);
    command
        .arg(out.help("Where it is written [default: target/bundle/WORKSPACE.tar]"))
        .arg(programs.help("Leave the compiled programs out: a class compiles them itself"))
        .long_about(
            "Put all that a class needs into one file, for --bundle.\n\nThe packages of every environment of pixi.lock (of \
             one, with --env), the base image and the lesson's script; of a rehearsal, its channel and base image. And the \
             compiled programs for machines like this one, so that nothing has to be compiled in class.",
        )
}

/// Makes it of what the source has, which must be made or locked before.
pub fn run(cx: &Context, arguments: &ArgMatches) -> Result<()> {
    let clock = cx.now();
    if let Some(bundle) = &cx.options.bundle {
        bail!(
            "a bundle is made of what a network has, not of another bundle\n  hint: copy {} as it is, or leave out --bundle \
             and XTASK_BUNDLE",
            bundle.display()
        );
    }
    let session = Session::new(cx, cx.options.source)?;
    session.programs.prepare()?;
    let out = arguments.get_one::<PathBuf>("out").map_or_else(|| default(&session), |out| cx.resolve(out));
    let mut line = session.programs.command(Program::PixiImage)?.args(["bundle", "pack"]);
    line = line.option("--source", session.source.name()).option("--out", cx.typed(&out));
    line = if session.is_rehearsal() { rehearsal(&session, line)? } else { real(&session, line, arguments)? };
    if !arguments.get_flag("no-programs") {
        line = programs(&session, line)?;
    }
    let packed = cx.read(&line);
    if cx.options.dry_run {
        return Ok(());
    }
    cx.remove(&stripped(cx))?;
    packed?;
    let size = cx.size(&out).map_or(String::new(), ui::size);
    let file = cx.typed(&out);
    cx.ui.result(format_args!("{file} ({size}, {})", ui::duration(clock.elapsed())));
    cx.ui.note(format_args!("In class, without a network: cargo xtask all --bundle {file}"));
    Ok(())
}

fn default(session: &Session<'_>) -> PathBuf {
    let suffix = if session.is_rehearsal() { "-rehearsal" } else { "" };
    bundle::directory(session.cx).join(format!("{}{suffix}.tar", session.workspace.name()))
}

/// Where programs stand that are put in.
fn stripped(cx: &Context) -> PathBuf {
    bundle::directory(cx).join("stripped")
}

fn add(session: &Session<'_>, line: CommandLine, place: &str, path: &Path) -> CommandLine {
    line.option("--add", format!("{place}={}", session.cx.typed(path)))
}

/// Channel and base image; the lesson's script, where somebody brought it.
fn rehearsal(session: &Session<'_>, mut line: CommandLine) -> Result<CommandLine> {
    let source = session.rehearsal.source();
    session.require(&session.rehearsal.base(), "rehearse")?;
    for name in ["base.oci.tar", "channel", "rehearsal.json"] {
        line = add(session, line, &format!("rehearsal/{name}"), &source.join(name));
    }
    let script = session.learner.script();
    if session.cx.size(&script) == Some(pins::SCRIPT_SIZE) {
        line = add(session, line, &format!("app/{}", pins::SCRIPT_NAME), &script);
    }
    Ok(line)
}

/// Packages, base image and script.
fn real(session: &Session<'_>, mut line: CommandLine, arguments: &ArgMatches) -> Result<CommandLine> {
    let (cx, lock, script) = (session.cx, session.workspace.lock(), session.workspace.script());
    session.require(&lock, "lock")?;
    session.require(&script, "fetch")?;
    let check = session.programs.command(Program::PixiImage)?.arg("fetch").arg(pins::SCRIPT_URL);
    let check = check.option("--sha256", pins::SCRIPT_SHA256).option("--size", pins::SCRIPT_SIZE.to_string());
    cx.execute(&check.option("--out", cx.typed(&script)))?;
    line = add(session, line, &format!("app/{}", pins::SCRIPT_NAME), &script);
    line = line.option("--lock", cx.typed(&lock)).option("--platform", pins::IMAGE_PLATFORM);
    if arguments.value_source("environment") == Some(ValueSource::CommandLine) {
        line = line.option("--environment", &cx.options.environment);
    }
    let name = cx.options.base.clone().unwrap_or_else(|| pins::BASE.to_owned());
    if base::floats(cx, &name) {
        let pinned = base::pinned(cx, &session.programs, &session.workspace.base_lock(), &name)?;
        line = line.option("--base", pinned).option("--base-name", name);
    } else if name.contains('@') {
        line = line.option("--base", name);
    } else {
        cx.ui.aside(format_args!("The base {name} is on this machine: hand it out beside the bundle."));
    }
    line = line.option("--workspace", cx.typed(session.learner.directory()));
    Ok(if cx.options.offline { line.arg("--offline") } else { line })
}

/// The compiled programs, without what only debuggers read.
fn programs(session: &Session<'_>, mut line: CommandLine) -> Result<CommandLine> {
    let (cx, place) = (session.cx, external::place_in_bundle());
    let xtask = cx.executable()?;
    let heavy = [Program::PixiImage, Program::Rehearsal].map(|program| session.programs.path(program));
    for program in heavy.iter().chain([&xtask]) {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        let mut small = program.clone();
        if cx.on_path(STRIP) {
            small = stripped(cx).join(&*name);
            cx.directory_for(&small)?;
            cx.execute(&CommandLine::new(STRIP).args(["-o", &cx.typed(&small), &cx.typed(program)]))?;
        }
        line = add(session, line, &format!("{place}/{name}"), &small);
    }
    Ok(line)
}
