//! `all`: every step that is not done yet, in order, and a summary.

use anyhow::{Context as _, Result};

use crate::context::Context;
use crate::session::Session;
use crate::stamp::State;
use crate::step::{Row, Step, Task};
use crate::steps::{self, STEPS};
use crate::ui;

/// Goes on where an earlier run stopped: what is done is known from files alone.
pub fn run(cx: &Context) -> Result<()> {
    let clock = cx.now();
    let session = Session::new(cx, cx.options.source)?;
    session.programs.prepare()?;
    let mut rows = Vec::new();
    let mut worked = false;
    let steps: Result<Vec<_>> = STEPS.iter().map(|step| Ok((*step, step.tasks(&session)?))).collect();
    let steps: Vec<_> = steps?.into_iter().filter(|(_, tasks)| !tasks.is_empty()).collect();
    for (index, (step, tasks)) in steps.iter().enumerate() {
        let to_do = outstanding(cx, tasks, worked)?;
        if !to_do.is_empty() {
            let place = format!("[{}/{}]", index + 1, steps.len());
            rows.extend(run_step(&session, *step, &place, &to_do)?);
            worked = true;
        }
    }
    if cx.options.dry_run {
        return Ok(());
    }
    if !worked {
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

/// The tasks that are not done. A dry run changes nothing, so there what follows work is work too.
fn outstanding<'t>(cx: &Context, tasks: &'t [Task], worked: bool) -> Result<Vec<&'t Task>> {
    let mut to_do = Vec::new();
    for task in tasks {
        match task.record.state(cx)? {
            State::Done if !(cx.options.dry_run && worked) => cx.ui.detail(format_args!("{}: done", task.title)),
            State::Done => to_do.push(task),
            State::ToDo(reason) => {
                cx.ui.detail(format_args!("{}: {reason}", task.title));
                to_do.push(task);
            }
        }
    }
    Ok(to_do)
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
