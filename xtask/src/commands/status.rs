//! `status`: what is done and what is to do, as the files on disk say.

use anyhow::Result;

use crate::context::Context;
use crate::options::SourceChoice;
use crate::session::Session;
use crate::stamp::State;
use crate::steps::STEPS;
use crate::ui;

/// Prints one line for each task. It asks nothing of the network: `auto` shows the learner's own files.
pub fn run(cx: &Context) -> Result<()> {
    let choice = if cx.options.source == SourceChoice::Auto { SourceChoice::CondaForge } else { cx.options.source };
    let session = Session::new(cx, choice)?;
    let mut rows = Vec::new();
    for step in STEPS {
        for task in step.tasks(&session)? {
            let (state, reason) = match (task.changed, task.record.state(cx)?) {
                (Some(changed), _) => ("changed", changed),
                (None, State::Done) => ("done", String::new()),
                (None, State::ToDo(reason)) => ("to do", reason),
            };
            rows.push(vec![task.title, state.to_owned(), reason]);
        }
    }
    cx.ui.result(ui::table(&["step", "state", "reason"], &rows));
    Ok(())
}
