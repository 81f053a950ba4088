//! `all`: every step that is not done yet, in order, and a summary.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::context::Context;
use crate::options::wrong_usage;
use crate::session::Session;
use crate::stamp::State;
use crate::stations::{self, STATIONS, Station, Work};
use crate::step::{Row, Task};
use crate::steps;
use crate::ui;

mod presenter;

/// Adds where to begin and to end, and `--pause`.
pub fn arguments(command: Command) -> Command {
    let station = |name, help| Arg::new(name).long(name).value_name("STEP").value_parser(stations::parser()).help(help);
    let pause = Arg::new("pause").long("pause").action(ArgAction::SetTrue);
    command
        .arg(station("from", "Begin with this step; what it needs of those before must be done"))
        .arg(station("to", "End with this step"))
        .arg(pause.help("Show each step and wait, to present the lesson: Enter goes on, s skips, q quits"))
}

/// Goes on where an earlier run stopped: what is done is known from files alone.
pub fn run(cx: &Context, arguments: &ArgMatches) -> Result<()> {
    let range = Range::of(arguments)?;
    let pause = arguments.get_flag("pause");
    if pause {
        presenter::require_audience(cx)?;
    }
    cx.interrupts.set_farewell(format!("what is done stays done; `{}` goes on from there", cx.own_command(&[])));
    let clock = cx.now();
    let session = Session::new(cx, cx.options.source)?;
    session.programs.prepare()?;
    let path = path(&session, pause)?;
    if !cx.options.dry_run {
        require_earlier(&session, &path, &range)?;
    }
    let path: Vec<Stop> = path.into_iter().filter(|stop| range.holds(stop.at)).collect();
    if pause {
        return presenter::present(&session, &path);
    }
    let (mut rows, mut handled) = (Vec::new(), Vec::new());
    for stop in &path {
        for work in &stop.work {
            let to_do = outstanding(&session, work, &path, &handled)?;
            if !to_do.is_empty() {
                rows.extend(run_step(&session, work, &stop.place, &to_do)?);
                handled.extend(to_do.iter().map(|task| task.title.clone()));
            }
        }
    }
    if cx.options.dry_run {
        return Ok(());
    }
    if handled.is_empty() {
        cx.ui.result(match path.iter().all(|stop| stop.work.is_empty()) {
            true => "There is nothing to do here: these steps are done by hand, as `cargo xtask explain` says.",
            false => "There is nothing to do: every step is done.",
        });
        return Ok(());
    }
    sum_up(cx, &rows);
    cx.ui.result(format_args!("\nDone in {}.", ui::duration(clock.elapsed())));
    show_outputs(cx, &rows);
    Ok(())
}

/// The part of the path that was asked for, as indexes of stations.
struct Range {
    from: usize,
    to: usize,
}

impl Range {
    fn of(arguments: &ArgMatches) -> Result<Self> {
        let typed = |name| arguments.get_one::<&Station>(name).and_then(|station| position(station));
        let (from, to) = (typed("from").unwrap_or(0), typed("to").unwrap_or(STATIONS.len()));
        if from > to {
            let word = |at: usize| STATIONS.get(at).map(Station::word).unwrap_or_default();
            return Err(wrong_usage(format_args!(
                "--from {} comes after --to {}\n  hint: `cargo xtask status` shows the steps in their order",
                word(from),
                word(to)
            ))
            .into());
        }
        Ok(Self { from, to })
    }

    fn holds(&self, at: usize) -> bool {
        (self.from..=self.to).contains(&at)
    }
}

fn position(station: &Station) -> Option<usize> {
    STATIONS.iter().position(|other| other.name == station.name)
}

/// A station that this run comes to.
struct Stop {
    station: &'static Station,
    /// Among the stations.
    at: usize,
    /// `[3/12]`.
    place: String,
    /// None where it is done by hand.
    work: Vec<Work>,
}

/// The whole path; what is done by hand is part of it where somebody presents it.
fn path(session: &Session<'_>, by_hand: bool) -> Result<Vec<Stop>> {
    let mut path = Vec::new();
    for (at, station) in STATIONS.iter().enumerate() {
        let work = station.work(session)?;
        if !work.is_empty() || (by_hand && station.is_by_hand()) {
            path.push(Stop { station, at, place: String::new(), work });
        }
    }
    let count = path.len();
    path.iter_mut().enumerate().for_each(|(index, stop)| stop.place = format!("[{}/{count}]", index + 1));
    Ok(path)
}

/// Fails where something before the range is not done that the range is made from, and says what.
fn require_earlier(session: &Session<'_>, path: &[Stop], range: &Range) -> Result<()> {
    let work = |earlier: bool| {
        let stops = path.iter().filter(move |stop| if earlier { stop.at < range.from } else { range.holds(stop.at) });
        stops.flat_map(|stop| &stop.work)
    };
    let mut needed: Vec<PathBuf> = work(false).flat_map(|work| work.task.record.input_paths()).collect();
    let mut missing = Vec::new();
    for Work { step, task } in work(true).collect::<Vec<_>>().into_iter().rev() {
        let makes = |needed: &PathBuf| task.record.outputs.iter().any(|output| output.starts_with(needed));
        if !needed.iter().any(makes) {
            continue;
        }
        let state = step.state(session, task)?;
        if state.is_outstanding() {
            missing.push(format!("\n    {}: {}", task.title, state.reason()));
            needed.extend(task.record.input_paths());
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    missing.reverse();
    let own = session.cx.own_command(&["--from"]);
    bail!(
        "what comes before {} is not done, and is needed there:{}\n  hint: `{own}` begins with that",
        STATIONS.get(range.from).map_or("", |station| station.name),
        missing.concat()
    )
}

/// The piece of work if it is not done, and those further on that are best made in one go with it.
fn outstanding<'w>(
    session: &Session<'_>,
    work: &'w Work,
    path: &'w [Stop],
    handled: &[String],
) -> Result<Vec<&'w Task>> {
    if !is_to_do(session, work, handled)? {
        return Ok(Vec::new());
    }
    let mut tasks = vec![&work.task];
    let Some(format) = work.task.format else { return Ok(tasks) };
    let companions = work.step.companions(session, format)?;
    let others = path.iter().flat_map(|stop| &stop.work).filter(|other| other.step.name() == work.step.name());
    for other in others.filter(|other| other.task.title != work.task.title) {
        let goes_along = other.task.format.is_some_and(|format| companions.contains(&format));
        if goes_along && is_to_do(session, other, handled)? {
            tasks.push(&other.task);
        }
    }
    Ok(tasks)
}

/// Whether it has to run. A dry run changes nothing, so there what follows work is work too.
fn is_to_do(session: &Session<'_>, Work { step, task }: &Work, handled: &[String]) -> Result<bool> {
    let ui = &session.cx.ui;
    if handled.contains(&task.title) {
        return Ok(false);
    }
    Ok(match step.state(session, task)? {
        State::Done => {
            ui.detail(format_args!("{}: done", task.title));
            session.cx.options.dry_run && !handled.is_empty()
        }
        State::Changed(reason) => {
            ui.note(format_args!("{}: {reason}, and is kept (`cargo xtask diff` shows it)", task.title));
            false
        }
        State::Stale(reason) | State::ToDo(reason) => {
            ui.detail(format_args!("{}: {reason}", task.title));
            true
        }
    })
}

fn run_step(session: &Session<'_>, work: &Work, place: &str, tasks: &[&Task]) -> Result<Vec<Row>> {
    let titles: Vec<&str> = tasks.iter().map(|task| task.title.as_str()).collect();
    session.cx.ui.header(place, &titles.join(", "));
    introduce(session.cx, work, tasks);
    do_work(session, work, tasks)
}

/// Says why the step is there and what the lesson types for it.
fn introduce(cx: &Context, Work { step, .. }: &Work, tasks: &[&Task]) {
    cx.ui.labelled("Why", step.why());
    let mut lesson: Vec<&str> = tasks.iter().map(|task| step.lesson_for(task.format)).collect();
    lesson.dedup();
    lesson.into_iter().for_each(|line| cx.ui.labelled("Lesson", line));
}

/// Does it, and says what came of it.
fn do_work(session: &Session<'_>, Work { step, .. }: &Work, tasks: &[&Task]) -> Result<Vec<Row>> {
    let titles: Vec<&str> = tasks.iter().map(|task| task.title.as_str()).collect();
    let rows = step.run_stamped(session, tasks, &steps::defaults(*step)?).with_context(|| titles.join(", "))?;
    for row in &rows {
        let facts: Vec<String> =
            [row.size.map(ui::size), row.elapsed.map(ui::duration)].into_iter().flatten().collect();
        let facts = if facts.is_empty() { String::new() } else { format!(" ({})", facts.join(", ")) };
        for line in row.output.iter().flat_map(|output| output.lines()) {
            session.cx.ui.labelled("Printed", line);
        }
        session.cx.ui.labelled("Done", &format!("{}: {}{facts}", row.step, row.result));
    }
    Ok(rows)
}

fn sum_up(cx: &Context, rows: &[Row]) {
    let cells = |row: &Row| {
        let elapsed = row.elapsed.map_or("with the above".to_owned(), ui::duration);
        let size = row.size.map_or(String::new(), ui::size);
        vec![row.step.clone(), row.engine.clone(), row.result.clone(), elapsed, size]
    };
    let wide: Vec<_> = rows.iter().map(cells).collect();
    let table = ui::table(&["step", "engine", "result", "time", "size"], &wide);
    if cx.ui.fits(&table) {
        cx.ui.result(format_args!("\n{table}"));
        return;
    }
    // A projector shows 80 columns: what came of it stands below.
    let narrow = wide.into_iter().map(|mut cells| {
        let result = cells.remove(2);
        (cells, result)
    });
    let (cells, results): (Vec<_>, Vec<_>) = narrow.unzip();
    let table = ui::table(&["step", "engine", "time", "size"], &cells);
    let mut lines = table.lines();
    let head = [lines.next(), lines.next()].into_iter().flatten().map(str::to_owned);
    let rows = lines.zip(results).map(|(line, result)| format!("{line}\n    {result}"));
    cx.ui.result(format_args!("\n{}", head.chain(rows).collect::<Vec<_>>().join("\n")));
}

/// What the commands in the images printed, which was captured.
fn show_outputs(cx: &Context, rows: &[Row]) {
    for row in rows.iter().filter(|row| row.output.is_some()) {
        let output = row.output.as_deref().unwrap_or_default();
        cx.ui.result(format_args!("\n{} printed:", row.step));
        output.lines().for_each(|line| cx.ui.result(format_args!("    {line}")));
    }
}
