//! The rounds of builds: each goes every way once, so that what the machine does besides falls on all of them.

use anyhow::{Context as _, Result, bail};

use crate::command_line::CommandLine;
use crate::commands::bench::environment::{self, Environment};
use crate::commands::bench::facts::Facts;
use crate::commands::bench::layers::{self, Layers, Planned};
use crate::commands::bench::paths::{self, Tool, Way};
use crate::context::{Context, Server, Usage};
use crate::external::{Program, Programs};
use crate::pins;

/// A registry to push to; Debian's package of the same name has it.
const REGISTRY: &str = "docker-registry";
/// Where the cache has the packages' archives.
const PACKAGES: &str = "packages";
/// How often it is asked whether it answers.
const ATTEMPTS: usize = 100;

/// What is measured, and what was.
pub struct Bench<'a> {
    /// The way to act on the machine.
    pub cx: &'a Context,
    /// The heavy programs.
    pub programs: &'a Programs<'a>,
    /// What works here and was asked for.
    pub tools: Vec<Tool>,
    /// What was measured.
    pub facts: Facts,
}

impl Bench<'_> {
    /// Goes all ways `runs` times after a warm-up, and looks into what the last round left.
    pub fn rounds(&mut self, environment: &Environment, runs: usize) -> Result<()> {
        let server = environment::serve(self.cx, self.programs, environment)?;
        let ways: Vec<Way> = Way::ROUND.into_iter().filter(|way| self.can_go(*way)).collect();
        if self.cx.options.dry_run {
            self.cx.ui.would(format_args!("goes these ways in turn: once to warm up, and {runs} times to measure"));
            ways.iter().try_for_each(|way| self.go(*way, environment).map(|_| ()))?;
        } else {
            for round in 0..=runs {
                let place = if round == 0 { "[warm-up]".to_owned() } else { format!("[{round}/{runs}]") };
                self.cx.ui.header(&place, &environment.title);
                for way in &ways {
                    let usage = self.go(*way, environment).with_context(|| way.name())?;
                    if let Some(usage) = usage.filter(|_| round > 0) {
                        self.facts.add(*way, usage);
                    }
                }
            }
        }
        drop(server);
        self.look_into(environment)
    }

    fn can_go(&self, way: Way) -> bool {
        self.tools.contains(&way.tool()) && (way != Way::Push || self.cx.on_path(REGISTRY))
    }

    /// Goes one way: what has to be there before is not measured.
    fn go(&mut self, way: Way, environment: &Environment) -> Result<Option<Usage>> {
        let images: Vec<String> = way.outputs().iter().map(|name| environment.image(name)).collect();
        if way.is_cold() {
            self.clear(&environment.cache())?;
        }
        if way == Way::AtHand {
            let cache = environment.cache();
            if self.cx.options.dry_run {
                self.cx.ui.would(format_args!("removes {cache} but for {cache}/{PACKAGES}"));
            }
            let names = self.cx.names(&self.cx.resolve(&cache)).into_iter().filter(|name| name != PACKAGES);
            names.map(|name| format!("{cache}/{name}")).try_for_each(|path| self.clear(&path))?;
        }
        if way.knows_base_alone() {
            self.know_base(environment)?;
        }
        // Of what has not changed, the images are there, too.
        if way != Way::Again {
            images.iter().try_for_each(|image| self.clear(image))?;
        }
        if !self.cx.options.dry_run {
            self.make_directory(environment)?;
        }
        let native = |workspace: &str| -> Result<CommandLine> {
            Ok(paths::native(self.programs.command(Program::PixiImage)?, environment, workspace, &images))
        };
        let line = match way {
            Way::Docker | Way::Podman => {
                self.forget_image(way.tool(), &environment.reference(way.tool()));
                paths::recipe(way.tool(), environment)
            }
            Way::Apptainer => paths::definition(environment),
            Way::Push => return self.push(environment),
            Way::Changed => native(&environment.changed())?,
            Way::Floor => self.floor(environment)?,
            Way::Oci | Way::Sif | Way::First | Way::Both | Way::AtHand | Way::Again => {
                native(&environment.workspace())?
            }
        };
        let watched: Vec<_> = if way == Way::First {
            vec![self.cx.resolve(environment.cache()), self.cx.resolve(environment.image(""))]
        } else {
            Vec::new()
        };
        // What earlier ways left beside their images is no part of this one.
        let before = if way == Way::First { self.cx.bytes_below(&self.cx.resolve(environment.image(""))) } else { 0 };
        let usage = self.cx.measure(&line, &watched)?;
        Ok(usage.map(|usage| Usage { disk: usage.disk.map(|disk| disk.saturating_sub(before)), ..usage }))
    }

    fn make_directory(&self, environment: &Environment) -> Result<()> {
        // Apptainer makes none for its image.
        self.cx.publish(&self.cx.resolve(environment.image("README")), b"Images that `cargo xtask bench` makes.\n")
    }

    fn floor(&self, environment: &Environment) -> Result<CommandLine> {
        let line = self.programs.command(Program::PixiImage)?.args(["bench", "floor"]);
        let line = line.option("--lock", format!("{}/pixi.lock", environment.workspace()));
        let line = line.option("--environment", environment.name).option("--platform", pins::IMAGE_PLATFORM);
        Ok(line.option("--cache", environment.cache()))
    }

    /// Has our cache know the base image, and no package.
    fn know_base(&self, environment: &Environment) -> Result<()> {
        let images = ["bare.oci.tar", "bare.sif"].map(|name| environment.image(name));
        images.iter().try_for_each(|image| self.clear(image))?;
        let bare = Environment { name: "default", ..environment.clone() };
        let line = self.programs.command(Program::PixiImage)?;
        self.cx.measure(&paths::native(line, &bare, &bare.bare(), &images), &[]).map(|_| ())
    }

    /// Pushes what Docker built to an empty registry on this machine.
    fn push(&mut self, environment: &Environment) -> Result<Option<Usage>> {
        let cx = self.cx;
        let address = format!("127.0.0.1:{}", cx.options.rehearsal_port.saturating_add(1));
        let storage = format!("{}/registry", environment.directory);
        self.clear(&storage)?;
        let settings = format!("{}/registry.yml", environment.directory);
        let place = cx.resolve(&storage);
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nhttp: {{addr: \"{address}\"}}\n\
             storage: {{filesystem: {{rootdirectory: \"{}\"}}}}\n",
            place.display()
        );
        cx.publish(&cx.resolve(&settings), text.as_bytes())?;
        let registry = cx.start(&CommandLine::new(REGISTRY).args(["serve", &settings]))?;
        self.wait_for(&address, registry.as_ref())?;
        let target = format!("{address}/{}", environment.reference(Tool::Docker));
        let docker = |words: &[&str]| CommandLine::new("docker").args(words.iter().copied());
        cx.read(&docker(&["tag", &environment.reference(Tool::Docker), &target]))?;
        let usage = cx.measure(&docker(&["push", &target]), &[])?;
        drop(registry);
        if !cx.options.dry_run {
            self.facts.sizes.insert("push".to_owned(), cx.bytes_below(&place.join("docker/registry/v2/blobs")));
        }
        self.forget_image(Tool::Docker, &target);
        self.clear(&storage)?;
        Ok(usage)
    }

    fn wait_for(&self, address: &str, registry: Option<&Server>) -> Result<()> {
        if registry.is_none() {
            return Ok(());
        }
        let line = self.programs.command(Program::PixiImage)?.arg("probe").arg(format!("http://{address}/v2/"));
        let line = line.option("--timeout", pins::PROBE_SECONDS.to_string());
        for _ in 0..ATTEMPTS {
            if self.cx.look(&line)?.code == 0 {
                return Ok(());
            }
            self.cx.pause();
        }
        bail!("{REGISTRY} does not answer at {address}\n  hint: is the port taken? --rehearsal-port moves it")
    }

    /// Removes what an earlier run left.
    fn clear(&self, path: &str) -> Result<()> {
        if self.cx.options.dry_run {
            self.cx.ui.would(format_args!("removes {path}"));
            return Ok(());
        }
        self.cx.remove(&self.cx.resolve(path))
    }

    /// Removes an image of an engine's store; that there is none is no fault.
    fn forget_image(&self, tool: Tool, reference: &str) {
        if !self.cx.options.dry_run {
            drop(self.cx.look(&CommandLine::new(tool.name()).args(["image", "rm", "--force", reference])));
        }
    }

    /// Removes the images that were built, but not the image files.
    pub fn forget(&self, environment: &Environment) {
        for tool in self.tools.iter().filter(|tool| [Tool::Docker, Tool::Podman].contains(tool)) {
            let native = environment.reference(Tool::Native);
            [environment.reference(*tool), native].iter().for_each(|reference| self.forget_image(*tool, reference));
        }
    }

    /// Sizes of the images, and what the change of one package led to.
    fn look_into(&mut self, environment: &Environment) -> Result<()> {
        for name in Way::ROUND.iter().flat_map(|way| way.outputs()) {
            if let Some(size) = self.cx.size(&self.cx.resolve(environment.image(name))) {
                self.facts.sizes.insert((*name).to_owned(), size);
            }
        }
        if !self.tools.contains(&Tool::Native) {
            return Ok(());
        }
        let before = self.layers(&environment.image("both.oci.tar"))?;
        let after = self.layers(&environment.image("changed.oci.tar"))?;
        let plan = self.plan(&environment.workspace(), environment.name)?;
        self.facts.downloads = plan.iter().map(|package| package.bytes).sum();
        if !self.cx.options.dry_run {
            self.facts.layers = Some(before.len());
            self.facts.new = layers::new(&before, &after, &plan, &environment.variant);
        }
        Ok(())
    }

    /// The layers of an image.
    fn layers(&self, image: &str) -> Result<Layers> {
        let line = self.programs.command(Program::PixiImage)?.args(["bench", "layers", image]);
        self.cx.read(&line)?.map_or(Ok(Layers::new()), |text| layers::layers(&text))
    }

    fn plan(&self, workspace: &str, environment: &str) -> Result<Vec<Planned>> {
        let line = self.programs.command(Program::PixiImage)?.arg("plan");
        let line = line.option("--lock", format!("{workspace}/pixi.lock")).option("--environment", environment);
        let text = self.cx.read(&line.option("--platform", pins::IMAGE_PLATFORM))?;
        Ok(text.map(|text| layers::plan(&text)).unwrap_or_default())
    }

    /// Builds what the rehearsal's packages make, without measuring.
    pub fn real(&mut self, out: &str) -> Result<Environment> {
        let environment = environment::prepare(self.cx, self.programs, out, None, environment::VARIANT)?;
        let server = environment::serve(self.cx, self.programs, &environment)?;
        for way in [Way::Docker, Way::Podman, Way::Apptainer, Way::Both] {
            if self.can_go(way) {
                self.go(way, &environment).with_context(|| way.name())?;
            }
        }
        drop(server);
        Ok(environment)
    }

    /// Builds the environment `cpu` beside `gpu`, and compares their layers.
    pub fn compare_environments(&mut self, environment: &Environment) -> Result<()> {
        if !self.tools.contains(&Tool::Native) {
            return Ok(());
        }
        let server = environment::serve(self.cx, self.programs, environment)?;
        let cpu = Environment { name: "cpu", ..environment.clone() };
        let images = [environment.image("cpu.oci.tar")];
        let line = self.programs.command(Program::PixiImage)?;
        self.cx.measure(&paths::native(line, &cpu, &cpu.workspace(), &images), &[])?;
        drop(server);
        let gpu = (self.layers(&environment.image("both.oci.tar"))?, self.plan(&environment.workspace(), "gpu")?);
        let cpu = (self.layers(&images[0])?, self.plan(&environment.workspace(), "cpu")?);
        if !self.cx.options.dry_run {
            self.facts.shared = layers::shared((&gpu.0, &gpu.1), (&cpu.0, &cpu.1));
        }
        Ok(())
    }
}
