//! `status`: how far the lesson's path is walked, as the files, the images and git tell it.

use anyhow::Result;
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::context::Context;
use crate::exercise::Workspace;
use crate::json::Json;
use crate::options::SourceChoice;
use crate::rehearsal::Rehearsal;
use crate::session::Session;
use crate::stamp::State;
use crate::stations::STATIONS;
use crate::steps;
use crate::ui;

/// Adds `--json`.
pub fn arguments(command: Command) -> Command {
    command.arg(Arg::new("json").long("json").action(ArgAction::SetTrue).help("Print it as JSON"))
}

/// One station as it is shown.
struct Line {
    name: &'static str,
    state: State,
    command: String,
}

/// Prints one line for each station and what to type next. It asks nothing of the network: `auto` shows what was worked on.
pub fn run(cx: &Context, arguments: &ArgMatches) -> Result<()> {
    let session = Session::new(cx, source(cx)?)?;
    let mut lines = Vec::new();
    for station in STATIONS {
        if let Some((state, command)) = station.state(&session)? {
            lines.push(Line { name: station.name, state, command });
        }
    }
    let next = lines.iter().find(|line| line.state.is_outstanding()).map(|line| line.command.clone());
    if arguments.get_flag("json") {
        cx.ui.result(json(&session, &lines, next));
        return Ok(());
    }
    let rows: Vec<_> = lines
        .iter()
        .map(|line| vec![line.name.to_owned(), line.state.name().to_owned(), line.state.reason().to_owned()])
        .collect();
    cx.ui.result(ui::table(&["step", "state", "why"], &rows));
    match next {
        Some(next) => cx.ui.result(format_args!("\nNext: {next}")),
        None => cx.ui.result("\nEvery step is done."),
    }
    Ok(())
}

/// The source of the images that are there; before there are any, a rehearsal where one was begun and nothing was locked
/// besides, else the learner's own files.
fn source(cx: &Context) -> Result<SourceChoice> {
    let choice = steps::source_of_images(cx)?;
    let own = Workspace::new(cx.resolve(&cx.options.workspace))?;
    let is_rehearsed = own.copied_to(Rehearsal::new(cx).directory()).directory().is_dir();
    let is_undecided = cx.options.source == SourceChoice::Auto && choice == SourceChoice::CondaForge;
    Ok(if is_undecided && is_rehearsed && !own.lock().is_file() && !steps::has_images(cx, &own) {
        SourceChoice::Rehearsal
    } else {
        choice
    })
}

fn json(session: &Session<'_>, lines: &[Line], next: Option<String>) -> Json {
    let steps = lines.iter().map(|line| {
        Json::Object(vec![
            ("step", Json::text(line.name)),
            ("state", Json::text(line.state.name())),
            ("reason", Json::text(line.state.reason())),
            ("command", Json::text(&line.command)),
        ])
    });
    Json::Object(vec![
        ("workspace", Json::text(session.cx.typed(session.learner.directory()))),
        ("environment", Json::text(&session.cx.options.environment)),
        ("source", Json::text(session.source.name())),
        ("steps", Json::List(steps.collect())),
        ("next", next.map_or(Json::Null, Json::Text)),
    ])
}
