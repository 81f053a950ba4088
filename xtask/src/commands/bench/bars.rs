//! The bars that builds must clear, and whether they do: a function of what was measured.

use crate::commands::bench::facts::{Facts, shown};
use crate::commands::bench::paths::{Start, Tool, Way};
use crate::commands::bench::statistics::Spread;
use crate::ui;

/// What may be more than the changed package's own bytes when it is pushed again: layers of metadata.
const SLACK: f64 = 65_536.0;
const MEBI: f64 = 1_048_576.0;

/// Of which kind a number is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// One thing as a multiple of another.
    Ratio,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// How many there are.
    Count,
}

impl Unit {
    /// A number as tables show it.
    pub fn show(self, number: f64) -> String {
        match self {
            Self::Ratio => format!("{number:.3}"),
            Self::Seconds => shown(number),
            Self::Bytes => ui::size(number.max(0.0) as u64),
            Self::Count => format!("{number:.0}"),
        }
    }
}

/// Which way a bar is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Limit {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
}

/// One bar.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    /// `B1` to `B10`; several rows may be of one.
    pub id: &'static str,
    /// What is compared.
    pub what: String,
    /// The number, or why there is none.
    pub measured: Result<f64, String>,
    /// What it must not pass.
    pub limit: Limit,
    /// Of both.
    pub unit: Unit,
}

impl Bar {
    /// Whether it is cleared; none where nothing was measured.
    pub fn passes(&self) -> Option<bool> {
        let measured = self.measured.as_ref().ok()?;
        Some(match self.limit {
            Limit::AtMost(limit) => *measured <= limit,
            Limit::AtLeast(limit) => *measured >= limit,
        })
    }

    /// The limit as tables show it.
    pub fn shown_limit(&self) -> String {
        match self.limit {
            Limit::AtMost(limit) => format!("<= {}", self.unit.show(limit)),
            Limit::AtLeast(limit) => format!(">= {}", self.unit.show(limit)),
        }
    }
}

/// All bars, in the order of their numbers.
pub fn bars(facts: &Facts) -> Vec<Bar> {
    let ratio = |id, what: &str, measured, limit| Bar {
        id,
        what: what.to_owned(),
        measured,
        limit: Limit::AtMost(limit),
        unit: Unit::Ratio,
    };
    let of = |part: &[Way], whole: &[Way]| quotient(sum(facts, part), sum(facts, whole));
    let mut bars = vec![
        ratio(
            "B1",
            "both / (docker build + apptainer build)",
            of(&[Way::Both], &[Way::Docker, Way::Apptainer]),
            1.0 / 12.0,
        ),
        ratio("B2", "OCI / docker build", of(&[Way::Oci], &[Way::Docker]), 0.25),
        ratio("B2", "OCI / (docker build + push)", of(&[Way::Oci], &[Way::Docker, Way::Push]), 0.125),
        ratio("B2", "SIF / apptainer build", of(&[Way::Sif], &[Way::Apptainer]), 0.1),
        ratio(
            "B3",
            "CPU of both, packages at hand / CPU of the floor",
            quotient(cpu(facts, Way::AtHand), cpu(facts, Way::Floor)),
            1.3,
        ),
        ratio("B4", "one package changed / base and packages new", of(&[Way::Changed], &[Way::First]), 0.15),
    ];
    bars.extend(changes(facts));
    let seconds = sum(facts, &[Way::Again]);
    let (limit, unit) = (Limit::AtMost(1.0), Unit::Seconds);
    bars.push(Bar { id: "B5", what: "both, nothing changed".to_owned(), measured: seconds, limit, unit });
    let memory =
        middle(facts.memory(Way::First).map(|spread| Spread { median: spread.most, ..spread }), Way::First, facts);
    let (limit, unit) = (Limit::AtMost(256.0 * MEBI), Unit::Bytes);
    bars.push(Bar { id: "B6", what: "peak memory of both".to_owned(), measured: memory, limit, unit });
    bars.push(ratio("B7", "disk beside packages and images / images", temporary(facts), 1.1));
    let starts = Start::ALL.into_iter().flat_map(|start| Tool::ALL.map(|tool| (start, tool)));
    bars.extend(starts.map(|(start, tool)| started(facts, start, tool)));
    let size = |way| facts.size(way).map(|bytes| bytes as f64).ok_or_else(|| absent(facts, way));
    bars.push(ratio("B9", "OCI archive / what docker push sends", quotient(size(Way::Oci), size(Way::Push)), 1.01));
    bars.push(ratio("B9", "SIF / Apptainer's SIF", quotient(size(Way::Sif), size(Way::Apptainer)), 1.01));
    bars.push(Bar {
        id: "B10",
        what: "layers".to_owned(),
        measured: facts.layers.map(|count| count as f64).ok_or_else(|| "no image was looked into".to_owned()),
        limit: Limit::AtMost(100.0),
        unit: Unit::Count,
    });
    bars.push(Bar {
        id: "B10",
        what: "shared by the images of cpu and gpu, of what both have".to_owned(),
        measured: facts.shared.ok_or_else(|| "the two images were not compared".to_owned()),
        limit: Limit::AtLeast(0.8),
        unit: Unit::Ratio,
    });
    bars
}

/// What a registry gets anew when one package has changed.
fn changes(facts: &Facts) -> [Bar; 2] {
    let new = facts.new.ok_or_else(|| "the two images were not compared".to_owned());
    let limit = new.as_ref().map_or(SLACK, |new| new.package as f64 + SLACK);
    [
        Bar {
            id: "B4",
            what: "bytes of new layers; that package's + 64 KiB".to_owned(),
            measured: new.clone().map(|new| new.bytes as f64),
            limit: Limit::AtMost(limit),
            unit: Unit::Bytes,
        },
        Bar {
            id: "B4",
            what: "new layers".to_owned(),
            measured: new.map(|new| new.layers as f64),
            limit: Limit::AtMost(2.0),
            unit: Unit::Count,
        },
    ]
}

/// What a first build takes on the disk beside the packages' archives and the images: what it keeps for the next one, too.
fn temporary(facts: &Facts) -> Result<f64, String> {
    let way = Way::First;
    let peak = middle(facts.disk(way).map(|spread| Spread { median: spread.most, ..spread }), way, facts)?;
    let images = facts.size(way).ok_or_else(|| absent(facts, way))? as f64;
    Ok((peak - images - facts.downloads as f64).max(0.0) / images.max(1.0))
}

fn started(facts: &Facts, start: Start, tool: Tool) -> Bar {
    let starts = facts.starts.get(&(start, tool));
    let median = |values: &[f64]| Spread::of(values.iter().copied()).map(|spread| spread.median);
    let measured = match starts.map(|starts| (median(&starts.ours), median(&starts.recipes))) {
        Some((Some(ours), Some(recipes))) => Ok(ours / recipes.max(f64::MIN_POSITIVE)),
        _ => Err(facts.absent.get(&tool).cloned().unwrap_or_else(|| "there are no two images to compare".to_owned())),
    };
    let what = format!("`{}` by {}, our image / the recipe's", start.code(), tool.name());
    Bar { id: "B8", what, measured, limit: Limit::AtMost(1.05), unit: Unit::Ratio }
}

fn cpu(facts: &Facts, way: Way) -> Result<f64, String> {
    middle(facts.cpu(way), way, facts)
}

/// The medians of several ways together.
fn sum(facts: &Facts, ways: &[Way]) -> Result<f64, String> {
    ways.iter().map(|way| middle(facts.seconds(*way), *way, facts)).sum()
}

fn middle(spread: Option<Spread>, way: Way, facts: &Facts) -> Result<f64, String> {
    spread.map(|spread| spread.median).ok_or_else(|| absent(facts, way))
}

fn absent(facts: &Facts, way: Way) -> String {
    let reason = facts.absent.get(&way.tool()).map_or("it was not measured", String::as_str);
    format!("{}: {reason}", way.name())
}

fn quotient(part: Result<f64, String>, whole: Result<f64, String>) -> Result<f64, String> {
    let (part, whole) = (part?, whole?);
    if whole > 0.0 { Ok(part / whole) } else { Err("it took no time that could be measured".to_owned()) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::commands::bench::facts::Starts;
    use crate::commands::bench::layers::New;
    use crate::context::Usage;

    fn usage(seconds: u64) -> Usage {
        let cpu = Some(Duration::from_secs(2 * seconds));
        Usage {
            elapsed: Duration::from_secs(seconds),
            cpu,
            memory: Some(100 << 20),
            disk: Some(3000),
            ..Usage::default()
        }
    }

    fn measured() -> Facts {
        let mut facts = Facts::default();
        let seconds = [(Way::Docker, 57), (Way::Push, 63), (Way::Apptainer, 169), (Way::Oci, 8), (Way::Sif, 9)];
        for (way, seconds) in seconds.into_iter().chain([
            (Way::First, 12),
            (Way::Both, 10),
            (Way::AtHand, 10),
            (Way::Changed, 2),
            (Way::Floor, 8),
        ]) {
            for spread in [0, 1, 5] {
                facts.add(way, usage(seconds + spread));
            }
        }
        facts.sizes =
            [("oci.oci.tar", 1000), ("sif.sif", 1009), ("both.oci.tar", 1000), ("both.sif", 1009), ("push", 1000)]
                .map(|(name, size)| (name.to_owned(), size))
                .into();
        facts.downloads = 500;
        facts
    }

    fn verdicts(facts: &Facts, id: &str) -> Vec<Option<bool>> {
        bars(facts).iter().filter(|bar| bar.id == id).map(Bar::passes).collect()
    }

    #[test]
    fn bars_compare_medians() {
        let mut facts = measured();
        // 11 s of 58 s + 170 s.
        let first = bars(&facts).remove(0);
        assert_eq!(first.measured, Ok(11.0 / 228.0));
        assert_eq!((first.passes(), first.shown_limit()), (Some(true), "<= 0.083".to_owned()));
        assert_eq!(verdicts(&facts, "B2"), [Some(true); 3]);
        assert_eq!(verdicts(&facts, "B3"), [Some(true)], "22 CPU seconds of 18");
        assert_eq!(verdicts(&facts, "B4"), [Some(false), None, None], "3 s of 13 s");
        assert_eq!(verdicts(&facts, "B6"), [Some(true)]);
        assert_eq!(verdicts(&facts, "B7"), [Some(true)], "491 bytes beside 2009");
        facts.runs.get_mut(&Way::First).unwrap()[2].memory = Some(257 << 20);
        assert_eq!(verdicts(&facts, "B6"), [Some(false)], "of memory the worst run counts");
    }

    #[test]
    fn what_was_not_measured_says_why() {
        let mut facts = measured();
        facts.absent.insert(Tool::Apptainer, "it is not installed".to_owned());
        facts.runs.remove(&Way::Apptainer);
        let first = bars(&facts).remove(0);
        assert_eq!(first.measured, Err("apptainer build: it is not installed".to_owned()));
        assert_eq!(verdicts(&facts, "B5"), [None]);
        assert_eq!(verdicts(&facts, "B8"), [None; 8]);
    }

    #[test]
    fn sizes_starts_and_layers_have_their_bars() {
        let mut facts = measured();
        facts.sizes.insert("apptainer.sif".to_owned(), 1000);
        assert_eq!(verdicts(&facts, "B9"), [Some(true), Some(true)]);
        facts.sizes.insert("sif.sif".to_owned(), 1011);
        assert_eq!(verdicts(&facts, "B9"), [Some(true), Some(false)]);
        facts.starts.insert((Start::Nothing, Tool::Docker), Starts { ours: vec![1.04, 1.04], recipes: vec![1.0] });
        facts.starts.insert((Start::Torch, Tool::Podman), Starts { ours: vec![1.06], recipes: vec![1.0] });
        assert_eq!(verdicts(&facts, "B8"), [None, Some(true), None, None, None, None, Some(false), None]);
        (facts.layers, facts.shared) = (Some(101), Some(0.9));
        assert_eq!(verdicts(&facts, "B10"), [Some(false), Some(true)]);
        facts.new = Some(New { layers: 2, bytes: 1_000_000, package: 950_000 });
        assert_eq!(verdicts(&facts, "B4")[1..], [Some(true), Some(true)]);
    }
}
