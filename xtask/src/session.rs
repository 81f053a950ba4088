//! What was typed, resolved once: the source, the workspace it acts on, and the names of the images.

use std::cell::OnceCell;
use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::context::Context;
use crate::engine::{Engine, Format};
use crate::engines;
use crate::exercise::Workspace;
use crate::external::Programs;
use crate::options::SourceChoice;
use crate::pins;
use crate::rehearsal::Rehearsal;
use crate::source::{self, Source};

/// One run of xtask.
pub struct Session<'a> {
    /// The way to act on the machine.
    pub cx: &'a Context,
    /// The heavy programs.
    pub programs: Programs<'a>,
    /// Where packages and the base image come from.
    pub source: Source,
    /// The learner's workspace.
    pub learner: Workspace,
    /// The workspace that steps write to: the learner's, or the rehearsal's copy.
    pub workspace: Workspace,
    /// The places of the rehearsal.
    pub rehearsal: Rehearsal,
    engine: OnceCell<&'static dyn Engine>,
}

impl<'a> Session<'a> {
    /// Settles the source; `choice` is what was typed, or what the command makes of it.
    pub fn new(cx: &'a Context, choice: SourceChoice) -> Result<Self> {
        let learner = Workspace::new(cx.resolve(&cx.options.workspace))?;
        if !learner.directory().is_dir() {
            bail!(
                "there is no directory {}\n  hint: `--workspace DIR` names the one with your pixi.toml",
                cx.typed(learner.directory())
            );
        }
        let programs = Programs::new(cx);
        let source = source::settle(cx, &programs, choice)?;
        let rehearsal = Rehearsal::new(cx);
        let workspace = match source {
            Source::CondaForge => learner.clone(),
            Source::Rehearsal => learner.copied_to(rehearsal.directory()),
        };
        Ok(Self { cx, programs, source, learner, workspace, rehearsal, engine: OnceCell::new() })
    }

    /// Whether this is a rehearsal.
    pub fn is_rehearsal(&self) -> bool {
        self.source == Source::Rehearsal
    }

    /// The engine, chosen when it is needed first.
    pub fn engine(&self) -> Result<&'static dyn Engine> {
        if let Some(engine) = self.engine.get() {
            return Ok(*engine);
        }
        let engine = engines::pick(self.cx)?;
        Ok(*self.engine.get_or_init(|| engine))
    }

    /// The base image: as typed, else that of the source.
    pub fn base(&self) -> String {
        match (&self.cx.options.base, self.source) {
            (Some(base), _) => base.clone(),
            (None, Source::CondaForge) => pins::BASE.to_owned(),
            (None, Source::Rehearsal) => self.cx.typed(&self.rehearsal.base()),
        }
    }

    /// Whether pixi-image may ask nothing of the network. The rehearsal's channel is on this machine.
    pub fn is_offline(&self) -> bool {
        self.cx.options.offline && !self.is_rehearsal()
    }

    /// The image's file.
    pub fn image(&self, format: Format) -> PathBuf {
        image(self.cx, &self.learner, self.source, format)
    }

    /// The image's name and tag.
    pub fn reference(&self) -> String {
        let suffix = if self.is_rehearsal() { "-rehearsal" } else { "" };
        format!("{}:{}{suffix}", self.workspace.name(), self.cx.options.environment)
    }

    /// The image's labels.
    pub fn labels(&self) -> Vec<String> {
        if self.is_rehearsal() { vec![format!("{}={}", pins::SOURCE_LABEL, self.source.name())] } else { Vec::new() }
    }

    /// Fails with a hint unless the file is there; in a dry run an earlier command would have made it.
    pub fn require(&self, path: &std::path::Path, made_by: &str) -> Result<()> {
        if self.cx.options.dry_run || path.exists() {
            return Ok(());
        }
        let source = if self.is_rehearsal() { " --source rehearsal" } else { "" };
        bail!(
            "{} is not there\n  hint: `cargo xtask {made_by}{source}` makes it, `cargo xtask all` does every step",
            self.cx.typed(path)
        )
    }
}

/// The file of an image, whatever source a session has.
pub fn image(cx: &Context, workspace: &Workspace, source: Source, format: Format) -> PathBuf {
    let suffix = if source == Source::Rehearsal { "-rehearsal" } else { "" };
    let name = format!("{}-{}{suffix}.{}", workspace.name(), cx.options.environment, format.extension());
    cx.target().join("containers").join(name)
}
