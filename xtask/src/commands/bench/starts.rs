//! How long an image takes to start, ours beside the recipe's, by each program that runs images.

use anyhow::Result;

use crate::command_line::CommandLine;
use crate::commands::bench::environment::Environment;
use crate::commands::bench::facts::Starts;
use crate::commands::bench::paths::Tool;
use crate::commands::bench::rounds::Bench;
use crate::external::Program;

/// What is started.
const COMMAND: [&str; 3] = ["python", "-c", "pass"];
/// How many starts there are for each run of a build: they are short.
const STARTS_PER_RUN: usize = 4;

/// The two commands that are compared.
struct Pair {
    tool: Tool,
    ours: CommandLine,
    recipes: CommandLine,
}

impl Bench<'_> {
    /// Starts both images in turn.
    pub fn starts(&mut self, environment: &Environment, runs: usize) -> Result<()> {
        let pairs = self.pairs(environment)?;
        let times = if self.cx.options.dry_run { 0 } else { runs * STARTS_PER_RUN };
        if self.cx.options.dry_run && !pairs.is_empty() {
            let times = runs * STARTS_PER_RUN;
            self.cx.ui.would(format_args!("starts these in turn: once to warm up, and {times} times to measure"));
        }
        for start in 0..=times {
            for Pair { tool, ours, recipes } in &pairs {
                let ours = self.cx.measure(ours, &[])?;
                let recipes = self.cx.measure(recipes, &[])?;
                if let (Some(ours), Some(recipes), true) = (ours, recipes, start > 0) {
                    let starts: &mut Starts = self.facts.starts.entry(*tool).or_default();
                    starts.ours.push(ours.elapsed.as_secs_f64());
                    starts.recipes.push(recipes.elapsed.as_secs_f64());
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
            let start = |reference: String| line(&["run", "--rm", &reference]).args(COMMAND);
            let ours = start(environment.reference(Tool::Native));
            pairs.push(Pair { tool, ours, recipes: start(environment.reference(tool)) });
        }
        if self.tools.contains(&Tool::Apptainer) {
            let start = |name| CommandLine::new("apptainer").arg("exec").arg(environment.image(name)).args(COMMAND);
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
            Ok(line.arg(image).arg("--").args(COMMAND))
        };
        let ours = start(environment.image("both.oci.tar"))?;
        Ok(Some(Pair { tool: Tool::Native, ours, recipes: start(archive)? }))
    }
}
