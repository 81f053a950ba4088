//! The seam to the heavy crates: pixi-image and rehearsal are programs, compiled when the first command needs one.

use std::cell::Cell;
use std::env::consts::EXE_SUFFIX;
use std::path::{Path, PathBuf};

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

/// Where the programs of a bundle stand, below `target/bundle`.
const PROGRAMS: &str = "programs";
/// Beside them: which bundle they are from.
const TAKEN_FROM: &str = "taken-from";
/// What compares files with a list of digests, and its words before those that both know.
const SUMS: [&[&str]; 2] = [&["sha256sum"], &["shasum", "-a", "256"]];

/// Where a bundle has the programs that run on a machine like this one.
pub fn place_in_bundle() -> String {
    format!("{PROGRAMS}/{}-{}", std::env::consts::OS, std::env::consts::ARCH)
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
            None => {
                let directory = self.of_bundle().unwrap_or_else(|| self.cx.target().join("debug"));
                directory.join(format!("{}{EXE_SUFFIX}", program.name()))
            }
        }
    }

    /// Where the programs of the bundle stand, if they were taken out of it as it is now, and run here.
    fn of_bundle(&self) -> Option<PathBuf> {
        let bundle = self.cx.resolve(self.cx.options.bundle.as_ref()?);
        let directory = self.cx.target().join("bundle").join(PROGRAMS);
        let taken_from = self.cx.read_file(&directory.join(TAKEN_FROM)).ok()?;
        (Some(taken_from) == self.cx.identity(&bundle)).then_some(directory)
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
        if self.take_from_bundle()? {
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

    /// Takes the programs out of the bundle, once, where it has some for this machine: a class has no time to compile, and
    /// often not the crates for it. They must be what the bundle's list of digests says, and must run, before they are used.
    fn take_from_bundle(&self) -> Result<bool> {
        let (cx, Some(bundle)) = (self.cx, &self.cx.options.bundle) else { return Ok(false) };
        let bundle = cx.resolve(bundle);
        if self.of_bundle().is_some() {
            return Ok(true);
        }
        let Some(identity) = cx.identity(&bundle) else {
            bail!("there is no bundle {}\n  hint: `cargo xtask bundle` makes one", cx.typed(&bundle));
        };
        if cx.options.dry_run {
            cx.ui.would(
                "takes pixi-image and rehearsal out of the bundle, where it has some that run here; else compiles them",
            );
            return Ok(false);
        }
        let directory = cx.target().join("bundle").join(PROGRAMS);
        let partial = directory.with_extension("partial");
        cx.empty_directory(&partial)?;
        let taken = self.take(&cx.typed(&bundle), &partial).and_then(|taken| match taken {
            Ok(()) => {
                cx.publish(&partial.join(TAKEN_FROM), identity.as_bytes())?;
                cx.put_directory(&partial, &directory).map(Ok)
            }
            Err(reason) => Ok(Err(reason)),
        });
        cx.remove(&partial)?;
        match taken? {
            Ok(()) => {
                cx.ui.note("The bundle brings pixi-image and rehearsal for this machine: nothing is compiled.");
                Ok(true)
            }
            Err(reason) => {
                cx.ui
                    .note(format_args!("The programs of the bundle are of no use here ({reason}): they are compiled."));
                Ok(false)
            }
        }
    }

    /// The inner error says why they are of no use on this machine.
    fn take(&self, bundle: &str, to: &Path) -> Result<std::result::Result<(), String>> {
        let cx = self.cx;
        let Some(sums) = SUMS.iter().find(|sums| cx.on_path(sums[0])) else {
            return Ok(Err("neither sha256sum nor shasum is installed".to_owned()));
        };
        let place = place_in_bundle();
        let line =
            CommandLine::new("tar").args(["-xf", bundle, "-C", &cx.typed(to), "--strip-components", "2", &place]);
        let answer = cx.ask(&line)?;
        if answer.is_none_or(|answer| answer.code != 0) {
            return Ok(Err(format!("it has none in {place}")));
        }
        let line = CommandLine::new(sums[0]).args(sums[1..].iter().copied()).args(["--check", "SHA256SUMS"]);
        let answer = cx.ask(&line.in_directory(cx.typed(to)))?;
        let said = answer.as_ref().map(|answer| answer.stdout.as_str()).unwrap_or_default();
        let is_listed = |program: &Program| said.lines().any(|line| line == format!("{}: OK", program.name()));
        if answer.as_ref().is_none_or(|answer| answer.code != 0) || !Program::ALL.iter().all(is_listed) {
            bail!(
                "{bundle} was cut off or changed: its programs are not what its list says\n  hint: copy the bundle again; \
                 nothing of it was run"
            );
        }
        for program in Program::ALL {
            let path = to.join(program.name());
            let answer = cx.look(&CommandLine::with_executable(&cx.typed(&path), &path).arg("--version"));
            let failure = match answer {
                Ok(answer) if answer.code == 0 => continue,
                Ok(answer) => answer.stderr.lines().next().unwrap_or_default().to_owned(),
                Err(error) => error.to_string(),
            };
            return Ok(Err(format!("{} does not run: {failure}", program.name())));
        }
        Ok(Ok(()))
    }
}
