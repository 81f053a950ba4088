//! `reset`: a step's files become the lesson's again, and what was there is kept.

use std::path::{Path, PathBuf};

use anyhow::{Result, anyhow, bail};
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::command_line::CommandLine;
use crate::context::{Context, Entry, Exchange, Told};
use crate::engine::Format;
use crate::options::SourceChoice;
use crate::pins;
use crate::session::{self, Session};
use crate::source::Source;
use crate::stamp::State;
use crate::stations::{self, By, STATIONS, Station};
use crate::step;
use crate::ui;

/// Adds the step and `--yes`.
pub fn arguments(command: Command) -> Command {
    let yes = Arg::new("yes").long("yes").short('y').action(ArgAction::SetTrue).help("Do not ask");
    command.arg(stations::argument(&[]).help("Step to go back to; `start` is the empty exercise")).arg(yes)
}

/// What a reset does, in the order in which it is said.
#[derive(Default)]
struct Plan {
    /// Files of the learner's, each with what it is to hold; none where it is removed.
    files: Vec<(PathBuf, Option<String>)>,
    /// What steps make again out of the learner's files, and how: images, and the files of a rehearsal.
    made: Vec<(PathBuf, String)>,
    /// Notes that something was done.
    stamps: Vec<PathBuf>,
}

/// Brings a step back: asks first, keeps what it replaces or removes, and says how to have it again.
pub fn run(cx: &Context, arguments: &ArgMatches) -> Result<()> {
    let Some(station) = stations::typed(arguments)? else {
        return Err(stations::wrong_usage("which step is to be reset?").into());
    };
    let say = |error: anyhow::Error| error.context(format!("reset {}", station.name));
    reset(cx, station, arguments.get_flag("yes")).map_err(|error| if error.is::<Told>() { error } else { say(error) })
}

fn reset(cx: &Context, station: &Station, yes: bool) -> Result<()> {
    if cx.options.exact {
        bail!(
            "the lesson's files as printed never stand in your workspace\n  hint: `cargo xtask diff --exact` shows them"
        );
    }
    let session = if station.is_start() { Session::of_files(cx)? } else { Session::new(cx, SourceChoice::CondaForge)? };
    let plan = plan(&session, station)?;
    let (base, kept) = places(&session, &plan)?;
    if plan.files.is_empty() && plan.made.is_empty() {
        return nothing(&session, station, &plan);
    }
    let backups = cx.target().join("backups").join(session.learner.name());
    for line in lines(cx, &plan, &kept) {
        if cx.options.dry_run { cx.ui.would(line) } else { cx.ui.announce(line) }
    }
    if cx.options.dry_run {
        if !kept.is_empty() {
            cx.ui.would(format_args!("keeps what is replaced or moved, in {}", cx.typed(&backups)));
        }
        return Ok(());
    }
    let takes_away = !kept.is_empty() || !plan.made.is_empty();
    let asks = takes_away && !yes;
    if asks && !cx.has_terminal() {
        bail!("it would change what is named above, and nobody can be asked here\n  hint: `--yes` says that it may");
    }
    if asks && !cx.confirm(&format!("Reset {}?", station.name))? {
        cx.ui.note("Nothing was changed.");
        return Err(Told.into());
    }
    let directory = keep(cx, &backups, &base, &kept)?;
    if let Some(directory) = &directory {
        cx.ui.note(format_args!("What was there is kept in {}.", cx.typed(directory)));
    }
    change(cx, plan, directory.as_deref(), &base, &kept)?;
    cx.ui.result(match station.name {
        "start" => "The exercise is as `pixi init` leaves it. `cargo xtask status` says what comes next.".to_owned(),
        name => format!("{name} is reset. `cargo xtask status` says what comes next."),
    });
    if let Some(directory) = directory {
        let to = if base == cx.resolve("") { ".".to_owned() } else { cx.typed(&base) };
        let back = CommandLine::new("cp").args(["-R", &format!("{}/.", cx.typed(&directory)), &to]);
        cx.ui.result(format_args!("This brings back what was there:\n    {}", cx.pasted(back)));
    }
    Ok(())
}

/// No file has to change. What images were asked and start are still undone, by their stamps.
fn nothing(session: &Session<'_>, station: &Station, plan: &Plan) -> Result<()> {
    let cx = session.cx;
    let is_redone = station.is_start() || ["build", "run"].iter().any(|name| station.name.starts_with(name));
    let redone: &[PathBuf] = if is_redone { &plan.stamps } else { &[] };
    if cx.options.dry_run {
        redone.iter().for_each(|stamp| cx.ui.would(format_args!("removes {}", cx.typed(stamp))));
    } else {
        redone.iter().try_for_each(|stamp| cx.remove(stamp))?;
    }
    let gone = station.files(session)?.into_iter().find(|file| !file.exists());
    cx.ui.result(match (station.name, gone) {
        ("start", _) => "The exercise is as `pixi init` leaves it.".to_owned(),
        (name, _) if is_redone && redone.is_empty() => format!("{name} was not done here: nothing to reset."),
        (name, _) if is_redone => format!("{name} is to do again."),
        _ if cx.options.source == SourceChoice::Rehearsal => {
            "A rehearsal works on copies, which follow your files: nothing to reset.".to_owned()
        }
        ("lock" | "fetch", Some(gone)) => format!("{} is not there: nothing to reset.", cx.typed(&gone)),
        (name, _) => format!("{name} is as the lesson has it: nothing to reset."),
    });
    Ok(())
}

/// What is to be done; an error where a step leaves nothing that could be reset.
fn plan(session: &Session<'_>, station: &Station) -> Result<Plan> {
    let cx = session.cx;
    let sources = match cx.options.source {
        SourceChoice::Auto => vec![Source::CondaForge, Source::Rehearsal],
        SourceChoice::CondaForge => vec![Source::CondaForge],
        SourceChoice::Rehearsal => vec![Source::Rehearsal],
    };
    let mut plan = Plan::default();
    if sources.contains(&Source::CondaForge) {
        plan.files = files(session, station)?;
    }
    let copy = session.learner.copied_to(session.rehearsal.directory());
    for source in sources {
        if station.is_start() {
            let stamps = step::stamps(session, source);
            let names = cx.files(&stamps)?.into_iter().filter(|name| name.components().count() == 1);
            plan.stamps.extend(names.map(|name| stamps.join(name)));
        }
        if let By::Steps(steps) = station.by {
            plan.stamps.extend(steps.iter().map(|(step, format)| step::stamp(session, source, *step, *format)));
        }
        let made = match (station.name, source) {
            ("fetch", Source::Rehearsal) => Some(copy.script()),
            ("lock", Source::Rehearsal) => Some(copy.lock()),
            ("build docker", _) => Some(session::image(cx, &session.learner, source, Format::Docker)),
            ("build apptainer", _) => Some(session::image(cx, &session.learner, source, Format::Apptainer)),
            _ => None,
        };
        let option = if source == Source::Rehearsal { " --source rehearsal" } else { "" };
        plan.made.extend(made.map(|made| (made, format!("cargo xtask {}{option}", station.name))));
    }
    plan.made.retain(|(made, _)| made.is_file());
    plan.stamps.retain(|stamp| stamp.is_file());
    Ok(plan)
}

/// The learner's files that have to change.
fn files(session: &Session<'_>, station: &Station) -> Result<Vec<(PathBuf, Option<String>)>> {
    let cx = session.cx;
    let mut files: Vec<(PathBuf, Option<String>)> = Vec::new();
    for reference in station.references(session)? {
        let is_same = cx.entry(&reference.path)?.is_some_and(|entry| matches!(entry, Entry::File(_)))
            && cx.read_bytes(&reference.path)? == reference.text.as_bytes();
        if !is_same {
            files.push((reference.path, Some(reference.text)));
        }
    }
    let removed = match station.name {
        "start" if session.learner.name() != pins::WORKSPACE => Err(nobody_knows(session)),
        "edit" if session.learner.name() != pins::WORKSPACE => Err(nobody_knows(session)),
        "start" => {
            let own = station.files(session)?;
            let mut later = Vec::new();
            for station in STATIONS {
                later.extend(station.files(session)?);
            }
            later.retain(|path| !own.contains(path));
            Ok(later)
        }
        "fetch" if station.state(session)?.is_some_and(|(state, _)| state == State::Done) => Ok(Vec::new()),
        "fetch" | "lock" => station.files(session),
        "commit" | "push" => Err(anyhow!(
            "what git holds, git brings back\n  hint: `git log` shows what was committed, `git revert COMMIT` takes it back"
        )),
        "submit" => Err(anyhow!("a job is on the cluster, it leaves nothing here\n  hint: cancel it there")),
        "rehearse" => Err(anyhow!("nothing of yours is in it\n  hint: `cargo xtask rehearse` makes it anew")),
        _ => Ok(Vec::new()),
    }?;
    for path in removed {
        if cx.entry(&path)?.is_some() && !files.iter().any(|(own, _)| *own == path) {
            files.push((path, None));
        }
    }
    Ok(files)
}

fn nobody_knows(session: &Session<'_>) -> anyhow::Error {
    let name = session.learner.name();
    anyhow!(
        "what the pixi.toml of {name} is to hold, nobody knows but you\n  hint: the exercise, {}, can be reset",
        pins::WORKSPACE
    )
}

/// The directory that all files of the plan lie in, and those of them that are there. What is no plain file of the
/// workspace or the workflows is refused: nothing is written through a link.
fn places(session: &Session<'_>, plan: &Plan) -> Result<(PathBuf, Vec<PathBuf>)> {
    let (cx, workspace) = (session.cx, session.learner.directory());
    let root = cx.resolve("");
    let is_inside = |path: &Path| {
        let names = path.strip_prefix(&root).ok().map(|inside| inside.components().collect::<Vec<_>>());
        names.is_some_and(|names| names.iter().all(|name| matches!(name, std::path::Component::Normal(_))))
    };
    let base = if is_inside(workspace) { root.clone() } else { workspace.to_owned() };
    let mut kept = Vec::new();
    for (path, _) in &plan.files {
        let above: Vec<&Path> = path.ancestors().skip(1).take_while(|above| *above != root).collect();
        let above = above.into_iter().take_while(|above| above.starts_with(&base));
        for directory in above {
            match cx.entry(directory)? {
                None | Some(Entry::Directory) => {}
                Some(Entry::Link(to)) => bail!(
                    "{} is a symbolic link to {}, and nothing is written through a link\n  \
                     hint: put a directory in its place, or name the real one with --workspace",
                    cx.typed(directory),
                    to.display()
                ),
                Some(_) => bail!("{} is no directory\n  hint: move it away", cx.typed(directory)),
            }
        }
        match cx.entry(path)? {
            None => {}
            Some(Entry::File(_)) => kept.push(path.clone()),
            Some(Entry::Link(to)) => bail!(
                "{} is a symbolic link to {}, and nothing is written through a link\n  hint: remove the link",
                cx.typed(path),
                to.display()
            ),
            Some(_) => bail!("{} is no file\n  hint: move it away", cx.typed(path)),
        }
    }
    Ok((base, kept))
}

/// What is going to happen, a line for each file.
fn lines(cx: &Context, plan: &Plan, kept: &[PathBuf]) -> Vec<String> {
    let files = plan.files.iter().map(|(path, text)| {
        let verb = match (text, kept.contains(path)) {
            (Some(_), true) => "replaces",
            (Some(_), false) => "writes",
            (None, _) => "moves away",
        };
        format!("{verb} {}", cx.typed(path))
    });
    let made = plan.made.iter().map(|(path, again)| {
        let size = cx.size(path).map_or(String::new(), ui::size);
        format!("removes {} ({size}, not kept: `{again}` makes it again)", cx.typed(path))
    });
    files.chain(made).collect()
}

/// Copies the files into a directory of their own; none where there are none. What a failure leaves of it is removed.
fn keep(cx: &Context, backups: &Path, base: &Path, files: &[PathBuf]) -> Result<Option<PathBuf>> {
    if files.is_empty() {
        return Ok(None);
    }
    let directory = cx.make_numbered(backups)?;
    let copied = files.iter().try_for_each(|file| cx.keep(file, &place(&directory, base, file)));
    match copied {
        Ok(()) => Ok(Some(directory)),
        Err(error) => {
            cx.remove(&directory)?;
            Err(error.context("nothing was changed, for what is there could not be kept"))
        }
    }
}

/// Where a file is kept.
fn place(directory: &Path, base: &Path, file: &Path) -> PathBuf {
    directory.join(file.strip_prefix(base).unwrap_or(file))
}

fn change(cx: &Context, plan: Plan, directory: Option<&Path>, base: &Path, kept: &[PathBuf]) -> Result<()> {
    let stamps = plan.stamps.clone();
    let exchange = |(path, text): (PathBuf, Option<String>)| {
        let directory = directory.filter(|_| kept.contains(&path));
        Exchange { kept: directory.map(|directory| place(directory, base, &path)), path, text }
    };
    cx.exchange(&plan.files.into_iter().map(exchange).collect::<Vec<_>>())?;
    stamps.iter().chain(plan.made.iter().map(|(made, _)| made)).try_for_each(|path| cx.remove(path))
}
