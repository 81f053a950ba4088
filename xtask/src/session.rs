//! What was typed, resolved once: the source, the workspace it acts on, and the names of the images.

use std::cell::OnceCell;
use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::base;
use crate::bundle::Bundle;
use crate::context::Context;
use crate::engine::{Desk, Engine, Format};
use crate::engines;
use crate::exercise::Workspace;
use crate::external::Programs;
use crate::options::SourceChoice;
use crate::pins;
use crate::plan::Plan;
use crate::recipe;
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
    /// The bundle that everything comes from, where one was named.
    pub bundle: Option<Bundle>,
    /// The format that was typed, where one was.
    pub typed: Option<Format>,
    engines: [OnceCell<&'static dyn Engine>; Format::ALL.len()],
}

impl<'a> Session<'a> {
    /// Settles the source; `choice` is what was typed, or what the command makes of it.
    pub fn new(cx: &'a Context, choice: SourceChoice) -> Result<Self> {
        let learner = Workspace::new(cx.resolve(&cx.options.workspace))?;
        if !learner.directory().is_dir() {
            let start = if learner.name() == pins::WORKSPACE { "`cargo xtask reset start` makes it, " } else { "" };
            bail!(
                "there is no directory {}\n  hint: {start}`--workspace DIR` names the one with your pixi.toml",
                cx.typed(learner.directory())
            );
        }
        let programs = Programs::new(cx);
        let bundle = Bundle::open(cx, &programs)?;
        Self::of(cx, learner, choice, programs, bundle)
    }

    /// A session about the learner's own files alone, whether or not the workspace is there yet.
    pub fn of_files(cx: &'a Context) -> Result<Self> {
        let learner = Workspace::new(cx.resolve(&cx.options.workspace))?;
        Self::of(cx, learner, SourceChoice::CondaForge, Programs::new(cx), None)
    }

    fn of(
        cx: &'a Context,
        learner: Workspace,
        choice: SourceChoice,
        programs: Programs<'a>,
        bundle: Option<Bundle>,
    ) -> Result<Self> {
        let source = source::settle(cx, &programs, choice, bundle.as_ref())?;
        let bundle = bundle.filter(|bundle| bundle.source == source.name());
        let mut rehearsal = Rehearsal::new(cx);
        if let Some(bundle) = &bundle {
            rehearsal = rehearsal.with_source(bundle.rehearsal());
        }
        let workspace = match source {
            Source::CondaForge => learner.clone(),
            Source::Rehearsal => learner.copied_to(rehearsal.directory()),
        };
        let engines = Default::default();
        Ok(Self { cx, programs, source, learner, workspace, rehearsal, bundle, typed: None, engines })
    }

    /// The formats that this is about: the one that was typed, else both.
    pub fn formats(&self) -> Vec<Format> {
        self.typed.map_or(Format::ALL.to_vec(), |format| vec![format])
    }

    /// Whether this is a rehearsal.
    pub fn is_rehearsal(&self) -> bool {
        self.source == Source::Rehearsal
    }

    /// What engines work with.
    pub fn desk(&self) -> Desk<'_> {
        Desk { cx: self.cx, programs: &self.programs }
    }

    /// The engine for a format, chosen when it is needed first; one line says which and why.
    pub fn engine(&self, format: Format) -> Result<&'static dyn Engine> {
        let cell = &self.engines[format as usize];
        if let Some(engine) = cell.get() {
            return Ok(*engine);
        }
        let (engine, reason) = engines::pick(self.cx, format, self.typed == Some(format))?;
        self.cx.ui.aside(format_args!("Engine for {}: {} ({reason}).", format.name(), engine.name()));
        Ok(*cell.get_or_init(|| engine))
    }

    /// The base image: as typed, else that of the source. None where the recipe names it: as printed in the lesson, or
    /// served in a rehearsal.
    pub fn base(&self, engine: &dyn Engine) -> Option<String> {
        match (&self.cx.options.base, self.source) {
            (Some(base), _) => Some(base.clone()),
            (None, _) if self.cx.options.exact => None,
            (None, Source::CondaForge) => Some(pins::BASE.to_owned()),
            (None, Source::Rehearsal) if engine.follows_recipe() => None,
            (None, Source::Rehearsal) => Some(self.cx.typed(&self.rehearsal.base())),
        }
    }

    /// Where the base image's digest is kept, if it has one to keep.
    pub fn base_lock(&self, engine: &dyn Engine) -> Option<PathBuf> {
        let base = self.base(engine).filter(|base| !self.cx.options.offline && base::floats(self.cx, base))?;
        (!self.is_rehearsal() || self.cx.options.base.as_ref() == Some(&base)).then(|| self.workspace.base_lock())
    }

    /// The base image by digest, which is looked up once and kept beside the lock.
    pub fn pinned_base(&self, engine: &dyn Engine) -> Result<Option<String>> {
        match (self.base(engine), self.base_lock(engine)) {
            (Some(base), Some(file)) => base::pinned(self.cx, &self.programs, &file, &base).map(Some),
            (base, _) => Ok(base),
        }
    }

    /// The base image that the rehearsal's recipes name in place of the lesson's.
    pub fn base_for_recipes(&self) -> Option<String> {
        self.is_rehearsal().then(|| self.rehearsal.image())
    }

    /// The directory of the recipes: the workspace, which never holds the exact ones.
    pub fn recipes(&self) -> PathBuf {
        if self.cx.options.exact {
            recipe::exact_directory(self.cx, self.source.name(), self.workspace.name())
        } else {
            self.workspace.directory().to_owned()
        }
    }

    /// The recipe of a format.
    pub fn recipe(&self, format: Format) -> PathBuf {
        self.recipes().join(format.recipe())
    }

    /// Whether pixi-image may ask nothing of the network. The rehearsal's channel is on this machine.
    pub fn is_offline(&self) -> bool {
        self.cx.options.offline && !self.is_rehearsal()
    }

    /// The cache of a bundle, in place of the user's own. A rehearsal's packages come from its channel.
    pub fn cache(&self) -> Option<String> {
        let bundle = self.bundle.as_ref().filter(|_| !self.is_rehearsal())?;
        Some(self.cx.typed(&bundle.cache()))
    }

    /// The image's file.
    pub fn image(&self, format: Format) -> PathBuf {
        image(self.cx, &self.learner, self.source, format)
    }

    /// The image's file if another environment is asked for.
    pub fn image_of(&self, environment: &str, format: Format) -> PathBuf {
        image_of(self.cx, &self.learner, self.source, environment, format)
    }

    /// The image's name and tag.
    pub fn reference(&self) -> String {
        format!("{}:{}{}", self.workspace.name(), self.cx.options.environment, suffix(self.cx, self.source))
    }

    /// The tags that an image gets where it is published, as the lesson has them: `gpu-noble-cuda-12.9`. The version is
    /// that of the packages in the lock; an environment without CUDA has none.
    pub fn tags(&self, format: Format) -> Result<Vec<String>> {
        let lock = self.cx.typed(&self.workspace.lock());
        let environment = &self.cx.options.environment;
        let plan = Plan::read(self.cx, &self.programs, &lock, environment)?;
        let cuda = plan.as_ref().and_then(Plan::cuda_version).map(|version| format!("-cuda-{version}"));
        let prefix = if format == Format::Apptainer { "apptainer-" } else { "" };
        let [noble, trixie] = pins::BASE_DISTRIBUTIONS;
        let distribution = match (&self.cx.options.base, self.source) {
            (Some(_), _) => String::new(), // what it is made of is not known
            (None, Source::CondaForge) => format!("-{noble}"),
            (None, Source::Rehearsal) => format!("-{trixie}"),
        };
        let suffix = suffix(self.cx, self.source);
        Ok(vec![format!("{prefix}{environment}{distribution}{}{suffix}", cuda.unwrap_or_default())])
    }

    /// The image's labels: the OCI image specification's annotation keys, and ours for the source.
    pub fn labels(&self) -> Vec<(String, String)> {
        let mut labels = vec![
            ("org.opencontainers.image.title".to_owned(), self.workspace.name().to_owned()),
            ("org.opencontainers.image.version".to_owned(), self.cx.options.environment.clone()),
        ];
        // In a workflow: GitHub links an image to the repository that this label names.
        let variable = |name| self.cx.env(name).map(|value| value.display().to_string());
        if let (Some(server), Some(repository)) = (variable("GITHUB_SERVER_URL"), variable("GITHUB_REPOSITORY")) {
            labels.push(("org.opencontainers.image.source".to_owned(), format!("{server}/{repository}")));
        }
        if let Some(revision) = variable("GITHUB_SHA") {
            labels.push(("org.opencontainers.image.revision".to_owned(), revision));
        }
        labels.push((pins::SOURCE_LABEL.to_owned(), self.source.name().to_owned()));
        labels
    }

    /// Fails with a hint unless the file is there; in a dry run an earlier command would have made it.
    pub fn require(&self, path: &std::path::Path, made_by: &str) -> Result<()> {
        if self.cx.options.dry_run || path.exists() {
            return Ok(());
        }
        let source = if self.is_rehearsal() { " --source rehearsal" } else { "" };
        let exact = if self.cx.options.exact { " --exact" } else { "" };
        bail!(
            "{} is not there\n  hint: `cargo xtask {made_by}{source}{exact}` makes it, `cargo xtask all` does every step",
            self.cx.typed(path)
        )
    }
}

/// The file of an image, whatever source a session has.
pub fn image(cx: &Context, workspace: &Workspace, source: Source, format: Format) -> PathBuf {
    image_of(cx, workspace, source, &cx.options.environment, format)
}

fn image_of(cx: &Context, workspace: &Workspace, source: Source, environment: &str, format: Format) -> PathBuf {
    let name = format!("{}-{environment}{}.{}", workspace.name(), suffix(cx, source), format.extension());
    cx.target().join("containers").join(name)
}

/// What tells a rehearsal's images, and those of the exact recipe, from the real ones.
fn suffix(cx: &Context, source: Source) -> &'static str {
    match (source, cx.options.exact) {
        (Source::CondaForge, false) => "",
        (Source::CondaForge, true) => "-exact",
        (Source::Rehearsal, false) => "-rehearsal",
        (Source::Rehearsal, true) => "-exact-rehearsal",
    }
}
