//! A bundle as it is used: what `cargo xtask bundle` made where there was a network, taken apart once.

use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use crate::command_line::CommandLine;
use crate::context::Context;
use crate::external::{Program, Programs};
use crate::pins;

/// A bundle that lies unpacked in a directory.
pub struct Bundle {
    file: String,
    directory: PathBuf,
    /// The name of the source that it was made of.
    pub source: String,
    environments: Vec<String>,
}

/// Where bundles are made and taken apart.
pub fn directory(cx: &Context) -> PathBuf {
    cx.target().join("bundle")
}

impl Bundle {
    /// Takes apart the bundle that was named, unless that was done; none if none was named. One that was cut off or changed
    /// is refused.
    pub fn open(cx: &Context, programs: &Programs<'_>) -> Result<Option<Self>> {
        let Some(file) = &cx.options.bundle else { return Ok(None) };
        let path = cx.resolve(file);
        let file = cx.typed(&path);
        if !path.is_file() {
            bail!("there is no bundle {file}\n  hint: `cargo xtask bundle` makes one, where there is a network");
        }
        let line = programs.command(Program::PixiImage)?.args(["bundle", "open", &file]);
        let line = line.option("--into", cx.typed(&directory(cx)));
        if !programs.path(Program::PixiImage).is_file() {
            // A dry run before anything is compiled.
            cx.read(&line)?;
            cx.ui.would("the commands below hold for a bundle of conda-forge");
            let source = "conda-forge".to_owned();
            return Ok(Some(Self { file, directory: directory(cx), source, environments: Vec::new() }));
        }
        let bundle = Self::look(cx, &line, file)?;
        // What is there is looked at again, in no time; what is not is worth a line.
        if bundle.directory.is_dir() && !cx.options.dry_run {
            let answer = cx.look(&line)?;
            if answer.code != 0 {
                bail!("{}", answer.stderr.trim_start_matches("error: ").trim_end());
            }
        } else {
            cx.read(&line)?;
        }
        Ok(Some(bundle))
    }

    /// What a bundle says of itself, without taking it apart; none before the program that reads it is there.
    pub fn source_at_a_glance(cx: &Context) -> Option<String> {
        let (programs, path) = (Programs::new(cx), cx.resolve(cx.options.bundle.as_ref()?));
        let program = Some(programs.path(Program::PixiImage)).filter(|program| program.is_file() && path.is_file())?;
        let line = CommandLine::with_executable(&cx.typed(&program), &program);
        let line = line.args(["bundle", "open", &cx.typed(&path)]).option("--into", cx.typed(&directory(cx)));
        Self::look(cx, &line, String::new()).ok().map(|bundle| bundle.source)
    }

    fn look(cx: &Context, open: &CommandLine, file: String) -> Result<Self> {
        let answer = cx.look(&open.clone().arg("--look"))?;
        if answer.code != 0 {
            bail!("{}", answer.stderr.trim_start_matches("error: ").trim_end());
        }
        Self::parse(cx, file, &answer.stdout).context("`pixi-image bundle open` said something else")
    }

    fn parse(cx: &Context, file: String, facts: &str) -> Option<Self> {
        let lines = || facts.lines().map(|line| line.split('\t').collect::<Vec<_>>());
        let of = |name: &str| lines().find(|fields| fields.first() == Some(&name));
        let environments = lines().filter(|fields| fields.first() == Some(&"environment"));
        Some(Self {
            file,
            directory: cx.resolve(of("bundle")?.get(2)?),
            source: (*of("source")?.get(1)?).to_owned(),
            environments: environments.filter_map(|fields| Some((*fields.get(1)?).to_owned())).collect(),
        })
    }

    /// The bundle, as typed.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The lock that the packages are of.
    pub fn lock(&self) -> PathBuf {
        self.directory.join("pixi.lock")
    }

    /// The cache of packages and of the base image.
    pub fn cache(&self) -> PathBuf {
        self.directory.join("cache")
    }

    /// Channel and base image of a rehearsal.
    pub fn rehearsal(&self) -> PathBuf {
        self.directory.join("rehearsal")
    }

    /// The lesson's script, where it is here.
    pub fn script(&self) -> Option<PathBuf> {
        Some(self.directory.join("app").join(pins::SCRIPT_NAME)).filter(|path| path.is_file())
    }

    /// Fails unless the packages of an environment are here. A rehearsal has all of its channel.
    pub fn require(&self, environment: &str) -> Result<()> {
        if self.environments.is_empty() || self.environments.iter().any(|own| own == environment) {
            return Ok(());
        }
        bail!(
            "{} has the packages of {}, not of `{environment}`\n  hint: where there is a network, `cargo xtask bundle` makes \
             one with every environment of pixi.lock; here, `--env {}` works",
            self.file,
            self.environments.join(", "),
            self.environments.first().map_or("NAME", String::as_str)
        )
    }

    /// What helps where something else than the bundle has was asked for.
    pub fn hint(&self) -> String {
        format!(
            "{0} has what its own lock names: `cargo xtask lock --bundle {0}` makes pixi.lock of that; for anything else, \
             `cargo xtask bundle` makes another bundle, where there is a network",
            self.file
        )
    }
}
