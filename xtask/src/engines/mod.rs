//! The engines: one file each, and one line in this table.

use anyhow::{Result, bail};

use crate::context::Context;
use crate::engine::Engine;

mod native;

/// In the order in which `auto` tries them: the native one is last, as it always works.
pub const ENGINES: &[&dyn Engine] = &[&native::Native];

/// What `--engine` takes.
pub fn names() -> Vec<&'static str> {
    ["auto"].into_iter().chain(ENGINES.iter().map(|engine| engine.name())).collect()
}

/// The engine that was asked for, or the first that works here; says which and why.
pub fn pick(cx: &Context) -> Result<&'static dyn Engine> {
    let asked = cx.options.engine.as_str();
    let mut reasons = Vec::new();
    for engine in ENGINES.iter().filter(|engine| asked == "auto" || asked == engine.name()) {
        match engine.probe(cx) {
            Ok(reason) => {
                cx.ui.note(format_args!("Engine: {} ({reason}).", engine.name()));
                return Ok(*engine);
            }
            Err(reason) => reasons.push(format!("{}: {reason}", engine.name())),
        }
    }
    bail!("no engine works here\n  {}", reasons.join("\n  "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_the_engines_differ() {
        let mut names = names();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ENGINES.len() + 1);
    }
}
