//! `bench`: how long the ways from a lock to an image take here, what they need, and whether the bars hold.

use anyhow::{Context as _, Result, bail};
use clap::builder::{PossibleValuesParser, RangedU64ValueParser};
use clap::{Arg, ArgMatches, Command, value_parser};

use crate::command_line::CommandLine;
use crate::context::Context;
use crate::engines;
use crate::external::{Program, Programs};
use crate::options::SourceChoice;
use crate::rehearsal::Rehearsal;
use crate::session::Session;
use crate::step::Step;
use crate::steps::{self, Rehearse};

mod bars;
mod environment;
mod facts;
mod layers;
mod output;
mod paths;
mod plot;
mod rounds;
mod starts;
mod statistics;

use environment::Shape;
use facts::Facts;
use output::Circumstances;
use paths::Tool;
use rounds::Bench;

/// A machine with more to do for each of its CPUs measures other things than builds.
const QUIET: f64 = 0.5;

/// Adds what is measured, how often, and where the results go.
pub fn arguments(command: Command) -> Command {
    let names = Tool::ALL.map(Tool::name);
    command
        .arg(
            Arg::new("shape")
                .long("shape")
                .value_name("LOCK")
                .help("Measure with made-up packages in the shape of this lock's environment `default`"),
        )
        .arg(
            Arg::new("scale")
                .long("scale")
                .value_name("SHARE")
                .default_value("1")
                .requires("shape")
                .help("Give the made-up packages this share of their real size"),
        )
        .arg(
            Arg::new("runs")
                .long("runs")
                .value_name("N")
                .default_value("5")
                .value_parser(RangedU64ValueParser::<usize>::new().range(1..=100))
                .help("Runs that count, after a warm-up"),
        )
        .arg(
            Arg::new("engines")
                .long("engines")
                .value_name("NAMES")
                .value_delimiter(',')
                .default_value(paths::ALL)
                .value_parser(PossibleValuesParser::new(names))
                .help("What is measured, of what works here"),
        )
        .arg(
            Arg::new("variant")
                .long("variant")
                .value_name("PACKAGE")
                .default_value(environment::VARIANT)
                .help("The package that has changed where one has"),
        )
        .arg(
            Arg::new("pixi")
                .long("pixi")
                .value_name("FILE")
                .value_parser(value_parser!(String))
                .help("The pixi that Docker, Podman and Apptainer install with [default: pixi-image]"),
        )
        .arg(
            Arg::new("out")
                .long("out")
                .value_name("DIR")
                .default_value("target/bench")
                .value_parser(value_parser!(String))
                .help("Where environments, images and results go"),
        )
}

/// Measures, prints tables, and writes bench.json, bench.md and bench.svg.
pub fn run(cx: &Context, arguments: &ArgMatches) -> Result<()> {
    let text = |name: &str| arguments.get_one::<String>(name).cloned().unwrap_or_default();
    let shape = arguments.get_one::<String>("shape").map(|lock| Shape { lock: lock.clone(), scale: text("scale") });
    let runs = arguments.get_one("runs").copied().unwrap_or(1);
    let wanted: Vec<&String> = arguments.get_many("engines").into_iter().flatten().collect();
    let out = cx.typed(&cx.resolve(text("out")));
    let programs = Programs::new(cx);
    programs.prepare()?;
    let mut facts = Facts::default();
    let is_wanted = |tool: &Tool| wanted.iter().any(|name| *name == tool.name());
    let mut tools = Vec::new();
    for tool in Tool::ALL {
        match works(cx, tool) {
            Ok(()) if is_wanted(&tool) => tools.push(tool),
            Ok(()) => drop(facts.absent.insert(tool, "it was not asked for".to_owned())),
            Err(reason) => drop(facts.absent.insert(tool, reason)),
        }
    }
    for (tool, reason) in &facts.absent {
        cx.ui.aside(format_args!("{}: not measured: {reason}", tool.name()));
    }
    let pixi = have_base(cx, &programs, arguments.get_one::<String>("pixi"))?;
    let environment = environment::prepare(cx, &programs, &out, shape.as_ref(), &text("variant"))?;
    let load = cx.load();
    if let Some(load) = load.filter(|load| *load > QUIET && !cx.options.dry_run) {
        cx.ui.announce(format_args!(
            "This machine is busy: {load:.2} processes want each CPU. What is measured now tells of them, too.\n  \
             hint: end what else runs, and measure again"
        ));
    }
    let circumstances = Circumstances { title: environment.title.clone(), runs, machine: cx.machine(), load, pixi };
    let mut bench = Bench { cx, programs: &programs, tools, facts };
    bench.rounds(&environment, runs).context("measure builds")?;
    // What comes now takes long, too: that it fails must not lose what was measured.
    write(cx, &out, &bench.facts, &circumstances)?;
    let small = match &shape {
        None => environment,
        // Nothing in a made-up package runs.
        Some(_) => bench.real(&out).context("build the rehearsal's images")?,
    };
    bench.compare_environments(&small).context("compare the images of cpu and gpu")?;
    bench.starts(&small, runs).context("measure starts")?;
    bench.forget(&small);
    write(cx, &out, &bench.facts, &circumstances)?;
    if !cx.options.dry_run {
        cx.ui.result(output::text(&bench.facts, &circumstances));
        cx.ui.note(format_args!("\nWritten to {out}: bench.json, bench.md, bench.svg"));
    }
    Ok(())
}

/// Why a program cannot be measured here, in a line.
fn works(cx: &Context, tool: Tool) -> Result<(), String> {
    let engine = engines::ENGINES.iter().find(|engine| engine.name() == tool.name());
    let probed = engine.map_or_else(|| Err("it is not known".to_owned()), |engine| engine.probe(cx));
    probed.map(|_| ()).map_err(|reason| reason.lines().next().unwrap_or_default().to_owned())
}

/// Makes the rehearsal's packages and base where they are not there, and puts a pixi into the base. Says which.
fn have_base(cx: &Context, programs: &Programs<'_>, pixi: Option<&String>) -> Result<String> {
    let rehearsal = Rehearsal::new(cx);
    if !rehearsal.base().is_file() {
        let session = Session::new(cx, SourceChoice::Rehearsal)?;
        let tasks = Rehearse.tasks(&session)?;
        Rehearse.run_stamped(&session, &tasks.iter().collect::<Vec<_>>(), &steps::defaults(&Rehearse)?)?;
    }
    let pixi = pixi.map_or_else(|| programs.path(Program::PixiImage), |pixi| cx.resolve(pixi));
    let line = programs.command(Program::Rehearsal)?.arg("add-pixi").option("--base", cx.typed(&rehearsal.base()));
    let line = line.option("--pixi", cx.typed(&pixi)).option("--out", cx.typed(&rehearsal.base_with_pixi()));
    cx.read(&line)?;
    if cx.options.dry_run {
        return Ok(String::new()); // nothing tells of it
    }
    let version = cx.look(&CommandLine::new(&cx.typed(&pixi)).arg("--version"))?.stdout;
    Ok(version.trim().to_owned())
}

/// Writes all that was measured so far.
fn write(cx: &Context, out: &str, facts: &Facts, circumstances: &Circumstances) -> Result<()> {
    if facts.runs.is_empty() && !cx.options.dry_run {
        bail!("nothing was measured\n  hint: --engines names what to measure, and it must work here");
    }
    let file = |name: &str| cx.resolve(format!("{out}/{name}"));
    cx.publish(&file("bench.json"), format!("{}\n", output::json(facts, circumstances)).as_bytes())?;
    cx.publish(&file("bench.md"), output::markdown(facts, circumstances).as_bytes())?;
    cx.publish(&file("bench.svg"), output::plot(facts, circumstances).as_bytes())
}
