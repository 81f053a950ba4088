//! Where packages and the base image come from, and how `auto` decides it.

use anyhow::{Result, bail};

use crate::bundle::Bundle;
use crate::context::Context;
use crate::external::{Program, Programs};
use crate::options::SourceChoice;
use crate::pins;
use crate::rehearsal::Rehearsal;

/// The source that is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// conda-forge and the registry of the base image.
    CondaForge,
    /// A channel and a base image made from Debian's mirror.
    Rehearsal,
}

impl Source {
    /// What is typed to have just this one.
    pub fn choice(self) -> SourceChoice {
        match self {
            Self::CondaForge => SourceChoice::CondaForge,
            Self::Rehearsal => SourceChoice::Rehearsal,
        }
    }

    /// The name that `--source` takes.
    pub fn name(self) -> &'static str {
        match self {
            Self::CondaForge => "conda-forge",
            Self::Rehearsal => "rehearsal",
        }
    }
}

/// Settles `choice`, and says what was settled and why.
pub fn settle(cx: &Context, programs: &Programs<'_>, choice: SourceChoice, bundle: Option<&Bundle>) -> Result<Source> {
    if let Some(bundle) = bundle {
        return of_bundle(cx, bundle, choice);
    }
    let source = match choice {
        SourceChoice::CondaForge => return Ok(Source::CondaForge),
        SourceChoice::Rehearsal => {
            cx.ui.note(
                "Source: rehearsal. Packages and base are made from Debian's mirror; your files are not touched.",
            );
            return Ok(Source::Rehearsal);
        }
        SourceChoice::Auto if cx.options.offline => offline(cx),
        SourceChoice::Auto => probe(cx, programs)?,
    };
    if source == Source::CondaForge {
        cx.ui.note("Source: conda-forge.");
    }
    Ok(source)
}

/// A bundle holds one source; what is about the learner's own files alone has none of a rehearsal.
fn of_bundle(cx: &Context, bundle: &Bundle, choice: SourceChoice) -> Result<Source> {
    let (source, other) = if bundle.source == Source::Rehearsal.name() {
        (Source::Rehearsal, SourceChoice::CondaForge)
    } else {
        (Source::CondaForge, SourceChoice::Rehearsal)
    };
    if choice != other {
        cx.ui.note(format_args!("Source: {}, from {}. No network is needed.", source.name(), bundle.file()));
        return Ok(source);
    }
    if cx.options.source == SourceChoice::Auto && other == SourceChoice::CondaForge {
        return Ok(Source::CondaForge);
    }
    bail!("{} was made of {}\n  hint: leave out --source, or the bundle", bundle.file(), source.name())
}

fn offline(cx: &Context) -> Source {
    let source = without_network(cx);
    if source == Source::Rehearsal {
        announce(cx, "with --offline, because it is here and the exercise has no pixi.lock of conda-forge yet");
    }
    source
}

/// Without a network there is what a bundle has, or what an earlier run has brought.
pub fn without_network(cx: &Context) -> Source {
    match Bundle::source_at_a_glance(cx).as_deref() {
        Some(source) if source == Source::Rehearsal.name() => return Source::Rehearsal,
        Some(_) => return Source::CondaForge,
        None => {}
    }
    let locked = cx.resolve(&cx.options.workspace).join("pixi.lock").is_file();
    if !locked && Rehearsal::new(cx).base().is_file() { Source::Rehearsal } else { Source::CondaForge }
}

fn probe(cx: &Context, programs: &Programs<'_>) -> Result<Source> {
    let workspace = cx.typed(&cx.resolve(&cx.options.workspace));
    let line = programs.command(Program::PixiImage)?.arg("probe").args(pins::REACHABLE);
    let line = line.option("--timeout", pins::PROBE_SECONDS.to_string()).option("--workspace", workspace);
    let Some(answer) = cx.ask(&line)? else {
        cx.ui.would("the commands below hold when both answer; `--source rehearsal` shows the others");
        return Ok(Source::CondaForge);
    };
    if answer.code == 0 {
        return Ok(Source::CondaForge);
    }
    // One line an address, `unreachable<TAB>address<TAB>reason`; anything else that was said is shown as it is.
    let lines = answer.stdout.lines().chain(answer.stderr.lines()).filter(|line| !line.starts_with("reachable\t"));
    let reasons = lines.map(|line| line.strip_prefix("unreachable\t").unwrap_or(line).replace('\t', ": "));
    let reasons: String = reasons.map(|reason| format!("\n    {reason}")).collect();
    announce(cx, &format!("because conda-forge or the base's registry is out of reach:{reasons}"));
    Ok(Source::Rehearsal)
}

fn announce(cx: &Context, why: &str) {
    cx.ui.announce(format_args!(
        "REHEARSAL, {why}\n  \
         A real Python and a real PyTorch (CPU) come from Debian's mirror instead, as a conda channel and a base image of our own.\n  \
         It works on a copy below {}; your files are not touched. The images are named and labelled `rehearsal`.\n  \
         `--source conda-forge` insists on the real packages.",
        cx.typed(Rehearsal::new(cx).directory())
    ));
}
