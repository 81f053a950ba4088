//! `all --pause`: each step is shown and waits for the one who presents it.

use std::time::Duration;

use anyhow::Result;

use super::{Stop, do_work, introduce, show_outputs, sum_up};
use crate::commands::explain;
use crate::context::Context;
use crate::engine::Format;
use crate::interrupt::Interrupted;
use crate::options::wrong_usage;
use crate::session::Session;
use crate::stations::Work;
use crate::step::Row;
use crate::steps;
use crate::ui;

const HELP: &str = "\
  Enter, n  do this step and go on; what is done already is passed over
  r         do it, even if it is done already
  e         explain it: the text of `cargo xtask explain`
  c         show the commands again
  s         skip it: go on without
  q         quit, with a summary; the same command goes on later
  ?         this help";

/// Fails unless there is somebody to wait for.
pub fn require_audience(cx: &Context) -> Result<()> {
    for (is_in_the_way, option) in [(cx.options.dry_run, "--dry-run"), (cx.options.quiet, "--quiet")] {
        if is_in_the_way {
            return Err(wrong_usage(format_args!(
                "--pause shows each step and waits, which goes not together with {option}"
            ))
            .into());
        }
    }
    if !cx.ui.can_ask() {
        return Err(wrong_usage(
            "--pause waits for keys, and this is not a terminal\n  hint: `cargo xtask all` without it stops nowhere",
        )
        .into());
    }
    Ok(())
}

/// Goes along the path, and waits at each station.
pub fn present(session: &Session<'_>, path: &[Stop]) -> Result<()> {
    let cx = session.cx;
    let planning = cx.planning()?;
    let plan = Session::new(&planning, session.source.choice())?;
    plan.programs.prepare()?;
    Format::ALL.into_iter().try_for_each(|format| plan.engine(format).map(drop))?;
    planning.ui.recorded(); // what concerns no single step
    let mut shown = Presentation { session, plan: &plan, rows: Vec::new(), skipped: Vec::new() };
    for (index, stop) in path.iter().enumerate() {
        if !shown.stop_at(stop)? {
            shown.sum_up();
            if index > 0 || path.len() > 1 {
                let again = cx.own_command(&["--from"]).option("--from", stop.station.word());
                cx.ui.result(format_args!("\nStopped before {}. `{again}` goes on from there.", stop.station.name));
            }
            return Ok(());
        }
    }
    shown.sum_up();
    cx.ui.result("\nThat was the last step.");
    Ok(())
}

struct Presentation<'s> {
    session: &'s Session<'s>,
    /// The same session, but nothing runs in it.
    plan: &'s Session<'s>,
    rows: Vec<Row>,
    skipped: Vec<&'static str>,
}

impl Presentation<'_> {
    /// Shows a station, and does what is answered; whether to go on to the next.
    fn stop_at(&mut self, stop: &Stop) -> Result<bool> {
        let cx = self.session.cx;
        cx.ui.header(&stop.place, stop.station.name);
        if !stop.station.section.is_empty() {
            cx.ui.labelled("Section", stop.station.section);
        }
        for work in &stop.work {
            introduce(cx, work, &[&work.task]);
        }
        self.show_commands(stop)?;
        let is_done = self.show_state(stop)?;
        let mut choices = match is_done {
            true if stop.work.is_empty() => "Enter: go on, q: quit, ?: help >",
            true => "Enter: go on, r: do it again, q: quit, ?: help >",
            false => "Enter: do it, s: skip, q: quit, ?: help >",
        };
        loop {
            let Some(answer) = cx.prompt(choices)? else {
                cx.ui.note("");
                return Ok(false);
            };
            let outcome = match answer.to_lowercase().as_str() {
                "" | "n" if is_done => return Ok(true),
                "" | "n" => self.work(stop, false),
                "r" => self.work(stop, true),
                "s" => {
                    self.skipped.push(stop.station.name);
                    return Ok(true);
                }
                "q" => return Ok(false),
                "e" => {
                    explain::show(cx, stop.station);
                    continue;
                }
                "c" => {
                    self.show_commands(stop)?;
                    continue;
                }
                "?" | "h" => {
                    cx.ui.note(HELP);
                    continue;
                }
                other => {
                    cx.ui.note(format_args!("  {other:?} is none of the keys:\n{HELP}"));
                    continue;
                }
            };
            match outcome {
                Ok(()) => return Ok(true),
                Err(error) if error.is::<Interrupted>() => return Err(error),
                Err(error) => {
                    // The audience sees it, and it is mended or passed over before all eyes.
                    ui::error(&error);
                    choices = "Enter: try again, s: skip, q: quit, ?: help >";
                }
            }
        }
    }

    /// The commands that will be typed, as the plan has them now.
    fn show_commands(&self, stop: &Stop) -> Result<()> {
        let ui = &self.session.cx.ui;
        for Work { step, task } in stop.station.work(self.plan)? {
            let lines = match step.run(self.plan, &[&task], &steps::defaults(step)?) {
                Ok(_) => self.plan.cx.ui.recorded(),
                Err(_) => Vec::new(), // what stands in the way is said when it is done
            };
            ui.labelled("Here", &format!("cargo xtask {}", task.title));
            let is_command = |line: &str| !line.starts_with(['#', ' ']);
            lines.iter().for_each(|line| {
                let sign = if is_command(line) { "$ " } else { "" };
                ui.labelled("", &format!("{sign}{line}"));
            });
        }
        Ok(())
    }

    /// How far the station is; whether there is nothing left to do for us. What is done by hand, a learner types.
    fn show_state(&self, stop: &Stop) -> Result<bool> {
        let ui = &self.session.cx.ui;
        let Some((state, command)) = stop.station.state(self.session)? else { return Ok(true) };
        let colon = if state.reason().is_empty() { "" } else { ": " };
        ui.labelled("State", &format!("{}{colon}{}", state.name(), state.reason()));
        if stop.work.is_empty() && state.is_outstanding() {
            ui.labelled("By hand", &command);
        }
        Ok(stop.work.is_empty() || !state.is_outstanding())
    }

    fn work(&mut self, stop: &Stop, again: bool) -> Result<()> {
        for work in &stop.work {
            if again || work.step.state(self.session, &work.task)?.is_outstanding() {
                self.rows.extend(do_work(self.session, work, &[&work.task])?);
            }
        }
        Ok(())
    }

    fn sum_up(&self) {
        let cx = self.session.cx;
        if !self.rows.is_empty() {
            sum_up(cx, &self.rows);
            let elapsed: Duration = self.rows.iter().filter_map(|row| row.elapsed).sum();
            cx.ui.result(format_args!("\nThese steps took {}.", ui::duration(elapsed)));
            show_outputs(cx, &self.rows);
        }
        if !self.skipped.is_empty() {
            cx.ui.result(format_args!("\nSkipped: {}.", self.skipped.join(", ")));
        }
    }
}
