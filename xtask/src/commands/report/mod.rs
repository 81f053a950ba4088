//! `report`: one page for the browser about all that was built. It needs no network, and nothing beside it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::{Arg, ArgMatches, Command, value_parser};

use crate::built;
use crate::context::Context;
use crate::engine::Format;
use crate::external::Program;
use crate::options::SourceChoice;
use crate::pins;
use crate::plan::Plan;
use crate::session::Session;
use crate::stamp::State;
use crate::stations::STATIONS;
use crate::steps;
use crate::ui;

mod changes;
mod html;
mod page;

/// Adds `--out`.
pub fn arguments(command: Command) -> Command {
    let out = Arg::new("out").long("out").value_name("FILE").value_parser(value_parser!(PathBuf));
    command.arg(out.help("Where to write it [default: target/report.html]"))
}

/// Writes the page. What is not there yet, it says how to make.
pub fn run(cx: &Context, arguments: &ArgMatches) -> Result<()> {
    let typed = arguments.get_one::<PathBuf>("out");
    let out = typed.map_or_else(|| cx.target().join("report.html"), |out| cx.resolve(out));
    if cx.options.dry_run {
        return cx.publish(&out, b"");
    }
    let choice = match cx.options.source {
        SourceChoice::Auto => steps::source_of_images(cx)?,
        choice => choice,
    };
    let session = Session::new(cx, choice)?;
    let page = page::render(&Facts::gather(&session)?);
    cx.publish(&out, page.as_bytes())?;
    cx.ui.note("Open it in a browser; it needs no network.");
    cx.ui.result(format_args!("{} ({})", cx.typed(&out), ui::size(page.len() as u64)));
    Ok(())
}

/// Something to show, or why it cannot be shown and what to do about it.
type Shown<T> = std::result::Result<T, String>;

/// All that the page tells.
struct Facts {
    workspace: String,
    environment: String,
    /// The environment that it is compared with.
    other: String,
    is_rehearsal: bool,
    stations: Vec<Stop>,
    plan: Shown<Planned>,
    other_plan: Shown<Planned>,
    docker: Shown<Inspected>,
    apptainer: Shown<Inspected>,
    other_docker: Shown<Inspected>,
    changes: Shown<Changes>,
}

/// A station of the lesson's path.
struct Stop {
    name: &'static str,
    state: State,
    /// What is typed to get on with it.
    command: String,
    /// What was done there when it was done last.
    runs: Vec<Ran>,
}

/// What a piece of work led to, as its stamp notes it.
#[derive(Debug, Default, PartialEq)]
struct Ran {
    title: String,
    engine: String,
    result: String,
    /// None where one command did it together with another.
    elapsed: Option<Duration>,
    output: Vec<String>,
}

/// An environment as the lock has it.
struct Planned {
    plan: Plan,
    /// The same as JSON, with what only a script makes use of.
    json: String,
}

/// An image as it describes itself.
struct Inspected {
    /// The size of its file.
    bytes: u64,
    json: String,
    /// The same for people.
    text: String,
}

/// What an image was built from, compared with the time before.
struct Changes {
    /// The image that it is about.
    format: Format,
    /// None of a first build.
    since_before: Option<changes::Difference>,
    /// What the next build would change; none where that is nothing.
    next: Option<changes::Difference>,
}

impl Facts {
    fn gather(session: &Session<'_>) -> Result<Self> {
        let cx = session.cx;
        let environment = cx.options.environment.clone();
        let other = if environment == "cpu" { "gpu" } else { "cpu" }.to_owned();
        let mut stations = Vec::new();
        for station in STATIONS {
            let Some((state, command)) = station.state(session)? else { continue };
            let runs = station.work(session)?.into_iter();
            let runs = runs.filter_map(|work| Some(Ran::read(&work.task.title, &work.task.record.note()?))).collect();
            stations.push(Stop { name: station.name, state, command, runs });
        }
        session.programs.prepare()?;
        Ok(Self {
            workspace: session.workspace.name().to_owned(),
            is_rehearsal: session.is_rehearsal(),
            stations,
            plan: planned(session, &environment),
            other_plan: planned(session, &other),
            docker: inspected(session, &environment, Format::Docker),
            apptainer: inspected(session, &environment, Format::Apptainer),
            other_docker: inspected(session, &other, Format::Docker),
            changes: changed(session)?,
            environment,
            other,
        })
    }
}

impl Ran {
    fn read(title: &str, note: &str) -> Self {
        let mut ran = Self { title: title.to_owned(), ..Self::default() };
        for (name, fact) in note.lines().filter_map(|line| line.split_once('\t')) {
            match name {
                "engine" => ran.engine = fact.to_owned(),
                "result" => ran.result = fact.to_owned(),
                "seconds" => {
                    ran.elapsed = fact.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
                }
                "output" => ran.output.push(fact.to_owned()),
                _ => {}
            }
        }
        ran
    }
}

fn planned(session: &Session<'_>, environment: &str) -> Shown<Planned> {
    let lock = session.workspace.lock();
    if !lock.exists() {
        return Err(missing(session, &session.cx.typed(&lock), "lock"));
    }
    let read = || -> Result<Option<Planned>> {
        let lock = session.cx.typed(&lock);
        let Some(plan) = Plan::read(session.cx, &session.programs, &lock, environment)? else { return Ok(None) };
        let platform = ["--platform", pins::IMAGE_PLATFORM, "--json"];
        let json = ask(session, &[&["plan", "--lock", &lock, "--environment", environment][..], &platform].concat())?;
        Ok(Some(Planned { plan, json }))
    };
    read().map_err(|error| format!("{error:#}"))?.ok_or_else(|| "there is no lock".to_owned())
}

fn inspected(session: &Session<'_>, environment: &str, format: Format) -> Shown<Inspected> {
    let path = session.image_of(environment, format);
    let typed = session.cx.typed(&path);
    if !path.exists() {
        let build = match environment == session.cx.options.environment {
            true => format!("build {}", format.name()),
            false => format!("build {} --env {environment}", format.name()),
        };
        return Err(missing(session, &typed, &build));
    }
    let bytes = session.cx.size(&path).unwrap_or(0);
    let inspect = |more: &[&str]| ask(session, &[&["inspect", typed.as_str()][..], more].concat());
    let both = || Ok(Inspected { bytes, json: inspect(&["--json"])?, text: inspect(&[])? });
    both().map_err(|error: anyhow::Error| format!("{error:#}"))
}

/// What pixi-image answers. It is no step of the work, so it is not shown.
fn ask(session: &Session<'_>, words: &[&str]) -> Result<String> {
    let line = session.programs.command(Program::PixiImage)?.args(words.iter().copied());
    let output = session.cx.look(&line)?;
    anyhow::ensure!(output.code == 0, "{}", output.stderr.trim_start_matches("error: ").trim_end());
    Ok(output.stdout)
}

fn missing(session: &Session<'_>, what: &str, made_by: &str) -> String {
    format!("{what} is not there yet.\n  hint: {}", command(session, made_by))
}

fn command(session: &Session<'_>, step: &str) -> String {
    format!("cargo xtask {step}{}", if session.is_rehearsal() { " --source rehearsal" } else { "" })
}

/// The image that is newest in what it was built from speaks for both, where they differ.
fn changed(session: &Session<'_>) -> Result<Shown<Changes>> {
    let cx = session.cx;
    let work =
        STATIONS.iter().filter(|station| station.name.starts_with("build ")).map(|station| station.work(session));
    let tasks: Vec<_> = work.collect::<Result<Vec<_>>>()?.into_iter().flatten().map(|work| work.task).collect();
    for task in &tasks {
        let (Some(format), [Some(now), before]) = (task.format, built::read(cx, &task.record.stamp)) else { continue };
        let side = |built: &built::Built| -> Result<changes::Side> {
            Ok(changes::Side { packages: packages(session, &built.lock)?, files: built.files.clone() })
        };
        let compare = || -> Result<Changes> {
            let now = side(&now)?;
            let since_before = before.as_ref().map(&side).transpose()?.map(|before| before.to(&now));
            let lock = session.workspace.lock();
            let next = match lock.exists() {
                true => Some(changes::Side {
                    packages: packages(session, &lock)?,
                    files: built::files(cx, &session.workspace.app())?,
                }),
                false => None,
            };
            let next = next.map(|next| now.to(&next)).filter(|next| !next.is_empty());
            Ok(Changes { format, since_before, next })
        };
        return Ok(compare().map_err(|error| format!("{error:#}")));
    }
    Ok(Err(format!("No build is known here yet.\n  hint: {}", command(session, "build docker"))))
}

fn packages(session: &Session<'_>, lock: &std::path::Path) -> Result<Vec<crate::plan::Package>> {
    let environment = &session.cx.options.environment;
    let plan = Plan::read(session.cx, &session.programs, &session.cx.typed(lock), environment)?;
    Ok(plan.map(|plan| plan.packages).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_stamp_notes_is_read() {
        let ran =
            Ran::read("run docker", "engine\tnative\nresult\texit code 0\nseconds\t1.500\noutput\ta\tb\noutput\t\n");
        let output = vec!["a\tb".to_owned(), String::new()];
        let elapsed = Some(Duration::from_millis(1500));
        let [title, engine, result] = ["run docker", "native", "exit code 0"].map(str::to_owned);
        assert_eq!(ran, Ran { title, engine, result, elapsed, output });
        assert_eq!(Ran::read("x", "seconds\t-1\nseconds\tNaN\nhello").elapsed, None);
    }
}
