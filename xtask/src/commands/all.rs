//! `all`: every step that is not done yet, in order, and a summary.

use anyhow::{Context as _, Result};

use crate::context::Context;
use crate::session::Session;
use crate::stamp::State;
use crate::stations::{STATIONS, Work};
use crate::step::{Row, Step, Task};
use crate::steps;
use crate::ui;

/// Goes on where an earlier run stopped: what is done is known from files alone.
pub fn run(cx: &Context) -> Result<()> {
    let clock = cx.now();
    let session = Session::new(cx, cx.options.source)?;
    session.programs.prepare()?;
    let mut rows: Vec<Row> = Vec::new();
    let mut handled: Vec<String> = Vec::new();
    let path: Result<Vec<Vec<Work>>> = STATIONS.iter().map(|station| station.work(&session)).collect();
    let path: Vec<_> = path?.into_iter().filter(|work| !work.is_empty()).collect();
    for (index, station) in path.iter().enumerate() {
        let place = format!("[{}/{}]", index + 1, path.len());
        for work in station {
            let to_do = outstanding(&session, work, &path, &handled)?;
            if !to_do.is_empty() {
                rows.extend(run_step(&session, work.step, &place, &to_do)?);
                handled.extend(to_do.iter().map(|task| task.title.clone()));
            }
        }
    }
    if cx.options.dry_run {
        return Ok(());
    }
    if handled.is_empty() {
        cx.ui.result("There is nothing to do: every step is done.");
        return Ok(());
    }
    cx.ui.result(format_args!("\n{}", summary(&rows)));
    cx.ui.result(format_args!("\nDone in {}.", ui::duration(clock.elapsed())));
    for row in rows.iter().filter(|row| row.output.is_some()) {
        let output = row.output.as_deref().unwrap_or_default();
        cx.ui.result(format_args!("\n{} printed:", row.step));
        output.lines().for_each(|line| cx.ui.result(format_args!("    {line}")));
    }
    Ok(())
}

/// The piece of work if it is not done, and those further on that are best made in one go with it.
fn outstanding<'w>(
    session: &Session<'_>,
    work: &'w Work,
    path: &'w [Vec<Work>],
    handled: &[String],
) -> Result<Vec<&'w Task>> {
    if !is_to_do(session, work, handled)? {
        return Ok(Vec::new());
    }
    let mut tasks = vec![&work.task];
    let Some(format) = work.task.format else { return Ok(tasks) };
    let companions = work.step.companions(session, format)?;
    let others = path.iter().flatten().filter(|other| other.step.name() == work.step.name());
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

fn run_step(session: &Session<'_>, step: &dyn Step, place: &str, tasks: &[&Task]) -> Result<Vec<Row>> {
    let ui = &session.cx.ui;
    let titles: Vec<&str> = tasks.iter().map(|task| task.title.as_str()).collect();
    ui.header(place, &titles.join(", "));
    ui.note(format_args!("      {}\n      The lesson: {}", step.why(), step.lesson()));
    let rows = step.run_stamped(session, tasks, &steps::defaults(step)?).with_context(|| titles.join(", "))?;
    for row in &rows {
        let elapsed = row.elapsed.map(|elapsed| format!(", {}", ui::duration(elapsed)));
        ui.note(format_args!("      {}: {}{}", row.step, row.result, elapsed.unwrap_or_default()));
    }
    Ok(rows)
}

fn summary(rows: &[Row]) -> String {
    let cell = |row: &Row| {
        let elapsed = row.elapsed.map_or("with the above".to_owned(), ui::duration);
        vec![
            row.step.clone(),
            row.engine.clone(),
            row.result.clone(),
            elapsed,
            row.size.map_or(String::new(), ui::size),
        ]
    };
    ui::table(&["step", "engine", "result", "time", "size"], &rows.iter().map(cell).collect::<Vec<_>>())
}
