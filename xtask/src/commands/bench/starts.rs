//! How long an image takes to start, ours beside the recipe's, by each program that runs images.

use anyhow::Result;

use crate::command_line::CommandLine;
use crate::commands::bench::environment::Environment;
use crate::commands::bench::facts::Starts;
use crate::commands::bench::paths::{Start, Tool};
use crate::commands::bench::rounds::Bench;
use crate::external::Program;

/// The interpreter of both images, which is told what to run.
const PYTHON: [&str; 2] = ["python", "-c"];

/// The two commands that are compared, up to what Python runs.
struct Pair {
    tool: Tool,
    ours: CommandLine,
    recipes: CommandLine,
}

impl Bench<'_> {
    /// Starts both images in turn.
    pub fn starts(&mut self, environment: &Environment, runs: usize) -> Result<()> {
        let pairs = self.pairs(environment)?;
        for start in Start::ALL {
            let times = runs * start.times();
            if self.cx.options.dry_run && !pairs.is_empty() {
                self.cx.ui.would(format_args!("starts these in turn: once to warm up, and {times} times to measure"));
            }
            let rounds = if self.cx.options.dry_run { 1 } else { 1 + times };
            for round in 0..rounds {
                for Pair { tool, ours, recipes } in &pairs {
                    let measure = |line: &CommandLine| self.cx.measure(&line.clone().arg(start.code()), &[]);
                    // What one start leaves to be done falls on the next: each is the first in every second round.
                    let (ours, recipes) = if round % 2 == 0 {
                        let ours = measure(ours)?;
                        (ours, measure(recipes)?)
                    } else {
                        let recipes = measure(recipes)?;
                        (measure(ours)?, recipes)
                    };
                    if let (Some(ours), Some(recipes), true) = (ours, recipes, round > 0) {
                        let starts: &mut Starts = self.facts.starts.entry((start, *tool)).or_default();
                        starts.ours.push(ours.elapsed.as_secs_f64());
                        starts.recipes.push(recipes.elapsed.as_secs_f64());
                    }
                }
            }
        }
        Ok(())
    }

    fn pairs(&self, environment: &Environment) -> Result<Vec<Pair>> {
        if !self.tools.contains(&Tool::Native) {
            return Ok(Vec::new());
        }
        let mut pairs = Vec::new();
        for tool in [Tool::Docker, Tool::Podman].into_iter().filter(|tool| self.tools.contains(tool)) {
            let line = |words: &[&str]| CommandLine::new(tool.name()).args(words.iter().copied());
            self.cx.read(&line(&["load", "--quiet", "--input", &environment.image("both.oci.tar")]))?;
            let start = |reference: String| line(&["run", "--rm", &reference]).args(PYTHON);
            let ours = start(environment.reference(Tool::Native));
            pairs.push(Pair { tool, ours, recipes: start(environment.reference(tool)) });
        }
        if self.tools.contains(&Tool::Apptainer) {
            let start = |name| CommandLine::new("apptainer").arg("exec").arg(environment.image(name)).args(PYTHON);
            pairs.push(Pair { tool: Tool::Apptainer, ours: start("both.sif"), recipes: start("apptainer.sif") });
        }
        pairs.extend(self.native_pair(environment)?);
        Ok(pairs)
    }

    /// pixi-image runs what Podman saves; what an older Docker saves is no OCI archive.
    fn native_pair(&self, environment: &Environment) -> Result<Option<Pair>> {
        if !self.tools.contains(&Tool::Podman) {
            return Ok(None);
        }
        let archive = environment.image("podman.oci.tar");
        if !self.cx.options.dry_run {
            self.cx.remove(&self.cx.resolve(&archive))?;
        }
        let line =
            CommandLine::new("podman").args(["save", "--quiet", "--format", "oci-archive", "--output", &archive]);
        self.cx.read(&line.arg(environment.reference(Tool::Podman)))?;
        let start = |image: String| -> Result<CommandLine> {
            let line = self.programs.command(Program::PixiImage)?.arg("run").option("--cache", environment.cache());
            Ok(line.arg(image).arg("--").args(PYTHON))
        };
        let ours = start(environment.image("both.oci.tar"))?;
        Ok(Some(Pair { tool: Tool::Native, ours, recipes: start(archive)? }))
    }
}
