//! The seam to the heavy crates: pixi-image and rehearsal are programs, compiled when the first command needs one.

use std::cell::Cell;
use std::env::consts::EXE_SUFFIX;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};

use crate::command_line::CommandLine;
use crate::context::Context;
use crate::ui;

/// A program of this workspace that xtask starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Solves, builds, tests and runs images.
    PixiImage,
    /// Makes and serves the channel and the base image of the rehearsal.
    Rehearsal,
}

impl Program {
    const ALL: [Self; 2] = [Self::PixiImage, Self::Rehearsal];

    /// The package and the binary.
    pub fn name(self) -> &'static str {
        match self {
            Self::PixiImage => "pixi-image",
            Self::Rehearsal => "rehearsal",
        }
    }

    /// The variable that names a prebuilt binary.
    pub fn variable(self) -> &'static str {
        match self {
            Self::PixiImage => "XTASK_PIXI_IMAGE",
            Self::Rehearsal => "XTASK_REHEARSAL",
        }
    }
}

/// The heavy programs. A command line of one can only be had when it is compiled and up to date.
pub struct Programs<'a> {
    cx: &'a Context,
    ready: Cell<bool>,
}

impl<'a> Programs<'a> {
    /// Nothing is compiled yet.
    pub fn new(cx: &'a Context) -> Self {
        Self { cx, ready: Cell::new(false) }
    }

    /// Where the program is, or will be once compiled.
    pub fn path(&self, program: Program) -> PathBuf {
        match self.cx.env(program.variable()) {
            Some(prebuilt) => self.cx.resolve(prebuilt),
            None => self.cx.target().join("debug").join(format!("{}{EXE_SUFFIX}", program.name())),
        }
    }

    /// The beginning of a command line of this program.
    pub fn command(&self, program: Program) -> Result<CommandLine> {
        self.prepare()?;
        let path = self.path(program);
        if !self.cx.options.dry_run && !path.is_file() {
            match self.cx.env(program.variable()) {
                Some(_) => bail!("{} names {}, which is not there", program.variable(), path.display()),
                None => bail!(
                    "cargo compiled {}, but not to {}\n  hint: set CARGO_TARGET_DIR to where your cargo configuration puts it",
                    program.name(),
                    path.display()
                ),
            }
        }
        Ok(CommandLine::with_executable(&self.cx.typed(&path), &path))
    }

    /// Compiles both programs, once per process: one invocation, so that cargo unifies their features and builds no crate twice.
    pub fn prepare(&self) -> Result<()> {
        let packages: Vec<Program> = Program::ALL.into_iter().filter(|p| self.cx.env(p.variable()).is_none()).collect();
        if self.ready.replace(true) || packages.is_empty() {
            return Ok(());
        }
        let cargo = self.cx.env("CARGO").unwrap_or_else(|| PathBuf::from("cargo"));
        let mut line = CommandLine::with_executable("cargo", &cargo).arg("build");
        if self.cx.options.quiet {
            line = line.arg("--quiet");
        }
        for package in &packages {
            line = line.args(["-p", package.name()]);
        }
        let first_time = !packages.iter().all(|program| self.path(*program).is_file());
        if first_time {
            self.cx
                .ui
                .note("Compiling pixi-image and rehearsal. This happens once and takes about 5 minutes on two cores.");
        }
        let started = self.cx.now();
        self.cx.execute(&line).context("compile pixi-image and rehearsal")?;
        if first_time {
            self.cx.ui.note(format_args!("Compiled in {}.", ui::duration(started.elapsed())));
        }
        Ok(())
    }
}
