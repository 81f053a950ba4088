//! The engines: one file each, and one line for each program in this table.

use anyhow::{Result, bail};

use crate::context::Context;
use crate::engine::{Engine, Format};
use crate::options::AUTO;

mod apptainer;
mod checks;
mod docker;
pub mod gpu;
pub mod namespaces;
mod native;

pub use apptainer::{BASE_BYTES, UNPACKED_RATIO, free_bytes, temporary};

/// In the order in which `auto` tries them: the native one is last, as it always works.
pub const ENGINES: &[&dyn Engine] =
    &[&docker::DOCKER, &docker::PODMAN, &apptainer::APPTAINER, &apptainer::SINGULARITY, &native::Native];

/// The engines that make a format.
pub fn makers(format: Format) -> impl Iterator<Item = &'static dyn Engine> {
    ENGINES.iter().copied().filter(move |engine| engine.formats().contains(&format))
}

/// What `--engine` takes.
pub fn names() -> Vec<&'static str> {
    [AUTO].into_iter().chain(ENGINES.iter().map(|engine| engine.name())).collect()
}

/// The engine that was asked for, or the first that works here, and why. `typed`: the format was asked for by name, so
/// that an engine which does not make it is a mistake.
pub fn pick(cx: &Context, format: Format, typed: bool) -> Result<(&'static dyn Engine, String)> {
    pick_by(cx, format, typed, &|engine| engine.probe(cx))
}

/// The same where it is known already what the engines say of themselves.
pub fn pick_by(
    cx: &Context,
    format: Format,
    typed: bool,
    probe: &dyn Fn(&'static dyn Engine) -> Result<String, String>,
) -> Result<(&'static dyn Engine, String)> {
    let asked = cx.options.engine.as_str();
    let named = ENGINES.iter().find(|engine| engine.name() == asked);
    match named {
        Some(engine) if engine.formats().contains(&format) => {
            if cx.options.exact && !engine.follows_recipe() {
                bail!("{asked} has no recipe of the lesson to follow\n  hint: --exact is for {}", lesson_names(format));
            }
            return match probe(*engine) {
                Ok(reason) => Ok((*engine, reason)),
                Err(reason) => bail!("{asked} cannot work here: {reason}"),
            };
        }
        Some(_) if typed => {
            let makers: Vec<_> = makers(format).map(|engine| engine.name()).collect();
            bail!("{asked} makes no {} images\n  hint: --engine takes {}", format.name(), makers.join(", "));
        }
        _ => {}
    }
    let mut reasons = Vec::new();
    for engine in makers(format) {
        if cx.options.exact && !engine.follows_recipe() {
            continue;
        }
        if cx.options.offline && engine.follows_recipe() {
            reasons.push(format!("{}: it downloads while it builds", engine.name()));
            continue;
        }
        match probe(engine) {
            Ok(reason) if reasons.is_empty() => return Ok((engine, reason)),
            // The first line says why; what to do about it is for those who ask for that engine.
            Ok(reason) => return Ok((engine, format!("{reason}. {}", first_lines(&reasons)))),
            Err(reason) => reasons.push(format!("{}: {reason}", engine.name())),
        }
    }
    bail!("no engine works here\n  {}", reasons.join("\n  "))
}

fn lesson_names(format: Format) -> String {
    let engines = ENGINES.iter().filter(|engine| engine.follows_recipe() && engine.formats().contains(&format));
    engines.map(|engine| engine.name()).collect::<Vec<_>>().join(", ")
}

fn first_lines(reasons: &[String]) -> String {
    reasons.iter().filter_map(|reason| reason.lines().next()).collect::<Vec<_>>().join("; ")
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

    #[test]
    fn each_format_has_an_engine_that_always_works() {
        for format in Format::ALL {
            let last = ENGINES.iter().rfind(|engine| engine.formats().contains(&format)).unwrap();
            assert!(!last.follows_recipe());
        }
    }
}
