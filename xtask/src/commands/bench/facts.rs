//! What was measured.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::commands::bench::layers::New;
use crate::commands::bench::paths::{Start, Tool, Way};
use crate::commands::bench::statistics::Spread;
use crate::context::Usage;

/// Starts of one runner: in the image that is ours, and in the one that is built by the recipe.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Starts {
    /// Of the image that pixi-image built, in seconds.
    pub ours: Vec<f64>,
    /// Of the image that the recipe's program built, in seconds.
    pub recipes: Vec<f64>,
}

/// All that was measured, and why the rest was not.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The runs of each way, without the warm-up.
    pub runs: BTreeMap<Way, Vec<Usage>>,
    /// The programs that do not work here, and why.
    pub absent: BTreeMap<Tool, String>,
    /// The bytes of image files by their names, and of what `docker push` pushed by `push`.
    pub sizes: BTreeMap<String, u64>,
    /// The bytes of the packages' archives.
    pub downloads: u64,
    /// What the change of one package led to.
    pub new: Option<New>,
    /// How many layers the image has.
    pub layers: Option<usize>,
    /// The share that the images of the environments cpu and gpu have in common of what they could have.
    pub shared: Option<f64>,
    /// The starts of each runner, by what they are for.
    pub starts: BTreeMap<(Start, Tool), Starts>,
}

impl Facts {
    /// The seconds of a way.
    pub fn seconds(&self, way: Way) -> Option<Spread> {
        Spread::of(self.usages(way).map(|usage| usage.elapsed.as_secs_f64()))
    }

    /// The CPU seconds of a way's own processes.
    pub fn cpu(&self, way: Way) -> Option<Spread> {
        Spread::of(self.usages(way).filter_map(|usage| usage.cpu).map(|cpu| cpu.as_secs_f64()))
    }

    /// The CPU seconds of the whole machine meanwhile.
    pub fn machine(&self, way: Way) -> Option<Spread> {
        Spread::of(self.usages(way).filter_map(|usage| usage.machine).map(|cpu| cpu.as_secs_f64()))
    }

    /// The peak of memory of a way, in bytes.
    pub fn memory(&self, way: Way) -> Option<Spread> {
        Spread::of(self.usages(way).filter_map(|usage| usage.memory).map(|bytes| bytes as f64))
    }

    /// The peak of what it took on the disk, in bytes.
    pub fn disk(&self, way: Way) -> Option<Spread> {
        Spread::of(self.usages(way).filter_map(|usage| usage.disk).map(|bytes| bytes as f64))
    }

    /// The bytes of what a way makes.
    pub fn size(&self, way: Way) -> Option<u64> {
        let names: &[&str] = if way == Way::Push { &["push"] } else { way.outputs() };
        let sizes = names.iter().map(|name| self.sizes.get(*name).copied());
        if names.is_empty() { None } else { sizes.sum() }
    }

    fn usages(&self, way: Way) -> impl Iterator<Item = &Usage> {
        self.runs.get(&way).into_iter().flatten()
    }

    /// Notes a run.
    pub fn add(&mut self, way: Way, usage: Usage) {
        self.runs.entry(way).or_default().push(usage);
    }
}

/// Seconds, as tables show them.
pub fn shown(seconds: f64) -> String {
    match seconds {
        0.0..1.0 => format!("{:.0} ms", seconds * 1000.0),
        1.0..100.0 => format!("{seconds:.1} s"),
        _ => crate::ui::duration(Duration::from_secs_f64(seconds.max(0.0))),
    }
}
