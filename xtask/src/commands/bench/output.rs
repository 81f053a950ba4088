//! What was measured, as tables for a terminal and for Markdown, as JSON, and as a plot.

use crate::commands::bench::bars::{Bar, Limit, Unit, bars};
use crate::commands::bench::facts::{Facts, Starts, shown};
use crate::commands::bench::paths::{Start, Tool, Way};
use crate::commands::bench::plot::{self, Row};
use crate::commands::bench::statistics::Spread;
use crate::json::Json;
use crate::ui;

/// Under which circumstances it was measured.
pub struct Circumstances {
    /// The environment.
    pub title: String,
    /// How many runs count.
    pub runs: usize,
    /// The machine.
    pub machine: String,
    /// Processes that wanted a CPU before it began, for each CPU.
    pub load: Option<f64>,
    /// What the recipes of Docker, Podman and Apptainer install with.
    pub pixi: String,
}

impl Circumstances {
    /// As a sentence.
    pub fn sentence(&self) -> String {
        let load = self.load.map_or("an unknown load".to_owned(), |load| format!("a load of {load:.2} per CPU"));
        let runs = if self.runs == 1 { "1 run".to_owned() } else { format!("{} runs", self.runs) };
        format!(
            "{}: {runs} after a warm-up, on {} with {load} before it began. Recipes install with {}.",
            self.title, self.machine, self.pixi
        )
    }
}

const WAYS: [&str; 6] = ["path", "median", "least to most", "CPU", "memory", "size"];
const BARS: [&str; 5] = ["bar", "what", "measured", "limit", "verdict"];

/// The rows of the ways that were gone.
fn way_rows(facts: &Facts) -> Vec<Vec<String>> {
    let row = |way: Way| {
        let seconds = facts.seconds(way)?;
        // What a daemon does shows only in what the whole machine did.
        let daemon = way.tool().has_daemon();
        let cpu = if daemon { facts.machine(way) } else { facts.cpu(way) };
        let star = if daemon { " *" } else { "" };
        let memory = facts.memory(way).filter(|_| !daemon).map(|spread| ui::size(spread.most as u64));
        Some(vec![
            way.name().to_owned(),
            shown(seconds.median),
            format!("{} to {}", shown(seconds.least), shown(seconds.most)),
            cpu.map_or("-".to_owned(), |cpu| format!("{}{star}", shown(cpu.median))),
            memory.unwrap_or_else(|| "-".to_owned()),
            facts.size(way).map_or("-".to_owned(), ui::size),
        ])
    };
    Way::ROUND.into_iter().filter_map(row).collect()
}

fn bar_rows(facts: &Facts) -> Vec<Vec<String>> {
    let row = |bar: &Bar| {
        let measured = bar.measured.as_ref().map_or("-".to_owned(), |measured| bar.unit.show(*measured));
        let verdict = match (bar.passes(), &bar.measured) {
            (Some(true), _) => "pass".to_owned(),
            (Some(false), _) => "miss".to_owned(),
            (None, Err(reason)) => format!("not measured: {reason}"),
            (None, Ok(_)) => String::new(),
        };
        vec![bar.id.to_owned(), bar.what.clone(), measured, bar.shown_limit(), verdict]
    };
    bars(facts).iter().map(row).collect()
}

fn start_rows(facts: &Facts) -> Vec<Vec<String>> {
    let row = |((start, tool), starts): (&(Start, Tool), &Starts)| {
        let cell = |values: &[f64]| {
            let spread = Spread::of(values.iter().copied());
            spread.map_or("-".to_owned(), |spread| {
                format!("{} ({} to {})", shown(spread.median), shown(spread.least), shown(spread.most))
            })
        };
        let what = format!("`{}` by {}", start.code(), tool.name());
        vec![what, cell(&starts.ours), cell(&starts.recipes)]
    };
    facts.starts.iter().map(row).collect()
}

const STARTS: [&str; 3] = ["python -c", "our image", "the recipe's image"];

fn notes(facts: &Facts) -> Vec<String> {
    let absent = facts.absent.iter().map(|(tool, reason)| format!("{}: not measured: {reason}", tool.name()));
    let has_daemon = facts.runs.keys().any(|way| way.tool().has_daemon());
    let star = "* the work is a daemon's: the CPU time is the whole machine's meanwhile, the memory is not seen";
    absent.chain(has_daemon.then(|| star.to_owned())).chain(unquiet(facts)).collect()
}

/// By how much the runs of the floor may differ on a quiet machine. Nothing that it does waits, for a disk or for others, and
/// it does the same each time.
const STEADY: f64 = 1.1;

/// That the machine was not quiet, if it shows: of a virtual one no load tells what its neighbours do.
fn unquiet(facts: &Facts) -> Option<String> {
    let Spread { least, most, .. } = facts.seconds(Way::Floor)?;
    (most > STEADY * least).then(|| {
        format!(
            "the floor took from {} to {}, for the same work: others use this machine, or what it runs on, and slow down \
             some ways more than others; measure again when it is quiet",
            shown(least),
            shown(most)
        )
    })
}

/// For a terminal.
pub fn text(facts: &Facts, circumstances: &Circumstances) -> String {
    let mut parts = vec![circumstances.sentence(), ui::table(&WAYS, &way_rows(facts))];
    parts.extend(Some(notes(facts).join("\n")).filter(|notes| !notes.is_empty()));
    parts.extend(Some(start_rows(facts)).filter(|rows| !rows.is_empty()).map(|rows| ui::table(&STARTS, &rows)));
    parts.push(ui::table(&BARS, &bar_rows(facts)));
    parts.join("\n\n")
}

/// As Markdown.
pub fn markdown(facts: &Facts, circumstances: &Circumstances) -> String {
    let mut parts = vec![circumstances.sentence(), marked_down(&WAYS, &way_rows(facts))];
    parts.extend(
        Some(notes(facts).iter().map(|note| format!("- {note}\n")).collect()).filter(|text: &String| !text.is_empty()),
    );
    parts.extend(Some(start_rows(facts)).filter(|rows| !rows.is_empty()).map(|rows| marked_down(&STARTS, &rows)));
    parts.push(marked_down(&BARS, &bar_rows(facts)));
    parts.join("\n\n") + "\n"
}

fn marked_down(head: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: Vec<String>| format!("| {} |", cells.join(" | "));
    let head = line(head.iter().map(|cell| (*cell).to_owned()).collect());
    let rule = format!("|{}", "---|".repeat(head.matches(" | ").count() + 1));
    let rows =
        rows.iter().map(|row| line(row.iter().map(|cell| cell.replace('*', "\\*").replace('|', "\\|")).collect()));
    [head, rule].into_iter().chain(rows).collect::<Vec<_>>().join("\n")
}

/// As JSON: times in milliseconds, sizes in bytes.
pub fn json(facts: &Facts, circumstances: &Circumstances) -> Json {
    let milliseconds = |spread: Option<Spread>| spread_of(spread, 1000.0);
    let ways = Way::ROUND.into_iter().filter(|way| facts.runs.contains_key(way)).map(|way| {
        Json::Object(vec![
            ("name", Json::Text(way.key())),
            ("tool", Json::text(way.tool().name())),
            ("elapsed_ms", milliseconds(facts.seconds(way))),
            ("cpu_ms", milliseconds(facts.cpu(way))),
            ("machine_cpu_ms", milliseconds(facts.machine(way))),
            ("memory_bytes", spread_of(facts.memory(way), 1.0)),
            ("disk_bytes", spread_of(facts.disk(way), 1.0)),
            ("size_bytes", facts.size(way).map_or(Json::Null, Json::Number)),
        ])
    });
    let starts = facts.starts.iter().map(|((start, tool), starts)| {
        let spread = |values: &[f64]| milliseconds(Spread::of(values.iter().copied()));
        Json::Object(vec![
            ("code", Json::text(start.code())),
            ("tool", Json::text(tool.name())),
            ("ours_ms", spread(&starts.ours)),
            ("recipe_ms", spread(&starts.recipes)),
        ])
    });
    let absent = facts
        .absent
        .iter()
        .map(|(tool, reason)| Json::Object(vec![("tool", Json::text(tool.name())), ("reason", Json::text(reason))]));
    Json::Object(vec![
        ("environment", Json::text(&circumstances.title)),
        ("runs", Json::Number(circumstances.runs as u64)),
        ("machine", Json::text(&circumstances.machine)),
        ("pixi", Json::text(&circumstances.pixi)),
        ("load_per_cpu", circumstances.load.map_or(Json::Null, Json::Real)),
        ("download_bytes", Json::Number(facts.downloads)),
        ("paths", Json::List(ways.collect())),
        ("starts", Json::List(starts.collect())),
        ("absent", Json::List(absent.collect())),
        ("bars", Json::List(bars(facts).iter().map(bar_as_json).collect())),
    ])
}

fn spread_of(spread: Option<Spread>, times: f64) -> Json {
    let number = |value: f64| Json::Number((value * times).round() as u64);
    spread.map_or(Json::Null, |Spread { median, least, most }| {
        Json::Object(vec![("median", number(median)), ("least", number(least)), ("most", number(most))])
    })
}

fn bar_as_json(bar: &Bar) -> Json {
    let unit = match bar.unit {
        Unit::Ratio => "ratio",
        Unit::Seconds => "seconds",
        Unit::Bytes => "bytes",
        Unit::Count => "count",
    };
    let (kind, limit) = match bar.limit {
        Limit::AtMost(limit) => ("at_most", limit),
        Limit::AtLeast(limit) => ("at_least", limit),
    };
    Json::Object(vec![
        ("id", Json::text(bar.id)),
        ("what", Json::text(&bar.what)),
        ("unit", Json::text(unit)),
        ("measured", bar.measured.as_ref().map_or(Json::Null, |measured| Json::Real(*measured))),
        (kind, Json::Real(limit)),
        ("pass", bar.passes().map_or(Json::Null, Json::Bool)),
        ("not_measured", bar.measured.as_ref().err().map_or(Json::Null, Json::text)),
    ])
}

/// As a plot of the times.
pub fn plot(facts: &Facts, circumstances: &Circumstances) -> String {
    let row = |way: Way| {
        let seconds = facts.seconds(way)?;
        Some(Row {
            label: way.name().to_owned(),
            value: seconds.median,
            spread: (seconds.least, seconds.most),
            text: shown(seconds.median),
            ours: way.tool() == Tool::Native,
        })
    };
    let ways = Way::ROUND.into_iter().filter(|way| *way != Way::Floor);
    plot::svg(&format!("From a lock to an image: {}", circumstances.title), &ways.filter_map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::context::Usage;

    fn measured() -> (Facts, Circumstances) {
        let mut facts = Facts::default();
        let usage = |seconds| Usage {
            elapsed: Duration::from_secs(seconds),
            cpu: Some(Duration::from_millis(200)),
            machine: Some(Duration::from_secs(seconds * 2)),
            memory: Some(50_000_000),
            ..Usage::default()
        };
        facts.add(Way::Docker, usage(100));
        facts.add(Way::Both, usage(6));
        facts.sizes = [("both.oci.tar", 7), ("both.sif", 5)].map(|(name, size)| (name.to_owned(), size)).into();
        facts.absent.insert(Tool::Apptainer, "it is not installed".to_owned());
        let title = "a test".to_owned();
        let pixi = "pixi-image 0.1.0".to_owned();
        (facts, Circumstances { title, runs: 1, machine: "2 CPUs".to_owned(), load: Some(0.125), pixi })
    }

    #[test]
    fn a_daemons_work_is_the_machines() {
        let (facts, circumstances) = measured();
        let text = text(&facts, &circumstances);
        assert!(text.starts_with("a test: 1 run after a warm-up, on 2 CPUs with a load of 0.12 per CPU"), "{text}");
        assert!(
            text.contains("\ndocker build  1 min 40 s  1 min 40 s to 1 min 40 s  3 min 20 s *  -        -\n"),
            "{text}"
        );
        assert!(
            text.contains("\nnative both   6.0 s       6.0 s to 6.0 s            200 ms        50.0 MB  12 B\n"),
            "{text}"
        );
        assert!(text.contains("\napptainer: not measured: it is not installed\n* the work is a daemon's"), "{text}");
        assert!(text.contains("<= 256.0 MB") || text.contains("<= 268.4 MB"), "{text}");
    }

    #[test]
    fn a_machine_that_is_not_quiet_shows_in_the_floor() {
        let (mut facts, circumstances) = measured();
        let floor = |milliseconds| Usage { elapsed: Duration::from_millis(milliseconds), ..Usage::default() };
        facts.add(Way::Floor, floor(4400));
        facts.add(Way::Floor, floor(4500));
        assert!(!text(&facts, &circumstances).contains("quiet"));
        facts.add(Way::Floor, floor(7000));
        assert!(text(&facts, &circumstances).contains("\nthe floor took from 4.4 s to 7.0 s, for the same work"));
        assert!(markdown(&facts, &circumstances).contains("\n- the floor took from 4.4 s to 7.0 s"));
    }

    #[test]
    fn markdown_has_a_cell_for_each_column() {
        let (facts, circumstances) = measured();
        let text = markdown(&facts, &circumstances);
        for table in text.split("\n\n").filter(|part| part.starts_with('|')) {
            let cells: Vec<usize> = table.lines().map(|line| line.matches('|').count()).collect();
            assert!(cells.len() > 2 && cells.iter().all(|count| *count == cells[0]), "{table}");
        }
    }

    #[test]
    fn json_tells_what_is_missing() {
        let (facts, circumstances) = measured();
        let text = json(&facts, &circumstances).to_string();
        assert!(
            text.contains("\"name\": \"native-both\", \"tool\": \"native\", \"elapsed_ms\": {\"median\": 6000"),
            "{text}"
        );
        assert!(text.contains("\"pass\": null, \"not_measured\": \"apptainer build: it is not installed\""), "{text}");
        assert!(plot(&facts, &circumstances).contains(">docker build</text>"));
    }
}
