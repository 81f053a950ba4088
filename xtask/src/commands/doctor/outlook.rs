//! Which engine each step will use, and whether it can work.

use crate::commands::doctor::machine::Facts;
use crate::commands::doctor::questions::Answers;
use crate::commands::doctor::{Line, StepLine};
use crate::context::Context;
use crate::engine::{Engine, Format};
use crate::engines;
use crate::exercise::Workspace;
use crate::manifest_edit::{self, Request};
use crate::options::SourceChoice;
use crate::source::Source;
use crate::steps;
use crate::traps::Files;
use crate::ui::{self, Mark};

/// In the order of the lesson.
pub fn steps(cx: &Context, files: &Files, facts: &Facts, answers: &Answers) -> Vec<StepLine> {
    let is_rehearsal = facts.source == Source::Rehearsal;
    let mut lines = Vec::new();
    if is_rehearsal && cx.options.bundle.is_none() {
        let why = match cx.options.source {
            SourceChoice::Auto if cx.options.offline => "what it made is here, and a lock of conda-forge is not",
            SourceChoice::Auto => "conda-forge or the registry of the base is out of reach",
            _ => "--source rehearsal",
        };
        lines.push(by_programs("rehearse", "rehearsal", why, facts));
    }
    let fetch = by_programs("fetch", "pixi-image", "it checks the digest", facts);
    lines.push(unreachable(cx, answers, fetch));
    lines.push(edit(cx, files));
    let (solver, why) = steps::solver(cx, is_rehearsal);
    let line = if solver == "pixi-image" {
        by_programs("lock", solver, why, facts)
    } else {
        step("lock", solver, Line::new(Mark::Ok, "", why))
    };
    lines.push(unreachable(cx, answers, line));
    for format in Format::ALL {
        lines.push(step(&format!("recipe {}", format.name()), "xtask", Line::new(Mark::Ok, "", "")));
        for verb in ["build", "test", "run"] {
            lines.push(of_image(cx, verb, format, facts, answers));
        }
        lines.push(step(&format!("workflows {}", format.name()), "xtask", Line::new(Mark::Ok, "", "")));
    }
    lines
}

fn step(name: &str, engine: &str, line: Line) -> StepLine {
    StepLine { step: name.to_owned(), engine: engine.to_owned(), line }
}

/// A step of the heavy programs.
fn by_programs(name: &str, engine: &str, why: &str, facts: &Facts) -> StepLine {
    step(
        name,
        engine,
        match &facts.heavy {
            Ok(_) => Line::new(Mark::Ok, "", why),
            Err(reason) => Line::because(Mark::Fails, "", reason),
        },
    )
}

/// Who insists on conda-forge needs it to answer. Otherwise a rehearsal takes its place.
fn unreachable(cx: &Context, answers: &Answers, line: StepLine) -> StepLine {
    let failed = answers.network.iter().flatten().find_map(|reach| Some((&reach.host, reach.failed()?)));
    match failed {
        Some((host, reason)) if cx.options.source == SourceChoice::CondaForge && line.line.mark == Mark::Ok => {
            let reason = format!("{host}: {reason}\n  hint: `--source rehearsal` does without it");
            StepLine { line: Line::because(Mark::Fails, "", &reason), ..line }
        }
        _ => line,
    }
}

fn edit(cx: &Context, files: &Files) -> StepLine {
    let directory = cx.resolve(&cx.options.workspace);
    let place = cx.typed(&directory.join("pixi.toml"));
    let manifest = files.files.iter().find(|file| file.path == place);
    let line = match (Workspace::new(directory), manifest) {
        (Err(error), _) => Line::because(Mark::Fails, "", &error.to_string()),
        (Ok(_), None) => Line::because(
            Mark::Fails,
            "",
            &format!(
                "{place} is not there\n  hint: `cargo xtask reset start` brings the exercise's, `pixi init` one of your own"
            ),
        ),
        (Ok(_), Some(file)) => match manifest_edit::finish(&file.text, &Request::default()) {
            Ok(_) => Line::new(Mark::Ok, "", ""),
            Err(error) => Line::because(Mark::Fails, "", &format!("{place}: {error}")),
        },
    };
    step("edit", "xtask", line)
}

/// What an engine does with an image.
fn of_image(cx: &Context, verb: &str, format: Format, facts: &Facts, answers: &Answers) -> StepLine {
    let name = format!("{verb} {}", format.name());
    let known = |engine: &'static dyn Engine| {
        let answer = answers.engines.iter().find(|(name, _)| *name == engine.name());
        answer.map_or_else(|| engine.probe(cx), |(_, answer)| answer.clone())
    };
    let (engine, why) = match engines::pick_by(cx, format, false, &known) {
        Ok((engine, why)) => (engine, why),
        Err(error) => return step(&name, "none", Line::because(Mark::Fails, "", &error.to_string())),
    };
    let fails = |reason: &str| step(&name, engine.name(), Line::because(Mark::Fails, "", reason));
    if let Err(reason) = &facts.heavy {
        return fails(reason);
    }
    let is_native = !engine.follows_recipe();
    if let Some(reason) = facts.no_containers.as_ref().filter(|_| is_native && verb != "build") {
        return fails(reason);
    }
    if verb == "build" {
        if let (Some(free), Some(needed)) = (facts.free, facts.needed_below_target())
            && free < needed
        {
            let place = cx.typed(cx.target());
            let (free, needed) = (ui::size(free), ui::size(needed));
            return fails(&format!(
                "{place} has {free} free, and the images take about {needed}\n  hint: free some space, or name another place with CARGO_TARGET_DIR"
            ));
        }
        let is_sif = ["apptainer", "singularity"].contains(&engine.name());
        if let Some(room) =
            facts.room.as_ref().filter(|room| is_sif && facts.download.is_some() && room.free < room.needed)
        {
            return fails(&format!(
                "{}: {}\n  hint: export {}=DIR, a directory with more room",
                room.place, room.said, room.variable
            ));
        }
    }
    step(&name, engine.name(), Line::new(Mark::Ok, "", why))
}
