//! What probes want to know of a recipe, whether it is a Dockerfile or a definition file.

use crate::traps::shell::{Command, Line, commands};

/// The base image of the lesson, without its tag.
const PIXI_IMAGE: &str = "ghcr.io/prefix-dev/pixi";

/// Which kind of recipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// For docker, podman and the like.
    Dockerfile,
    /// For Apptainer and Singularity.
    Definition,
}

/// A recipe.
pub struct Recipe {
    /// Its file, as it is typed.
    pub path: String,
    /// Its kind.
    pub kind: Kind,
    /// The stages, of which the last one becomes the image.
    pub stages: Vec<Stage>,
}

/// One stage of a recipe.
#[derive(Default)]
pub struct Stage {
    /// Where it begins.
    pub line: usize,
    /// Its name.
    pub name: String,
    /// The image that it begins with, as far as it can be told.
    pub base: Option<Base>,
    /// The stage before that it begins with instead.
    pub from_stage: Option<usize>,
    /// What runs while it is built.
    pub build: Vec<Line>,
    /// The variables that are set for whatever is started in it.
    pub sets: Vec<Variable>,
    /// What is copied into it.
    pub copies: Vec<CopyLine>,
    /// The build arguments that may be given.
    pub arguments: Vec<String>,
    /// The build arguments that are used without being declared.
    pub undeclared: Vec<(usize, String)>,
    /// Where what a container starts with is named: ENTRYPOINT or %runscript.
    pub entry: Option<(usize, String)>,
    /// Whether there is a command for who types none.
    pub has_command: bool,
    /// `%environment`.
    pub environment: Option<Vec<Line>>,
    /// `%runscript` and `%startscript`.
    pub start: Vec<Line>,
    /// `%test`.
    pub test: Option<(usize, Vec<Line>)>,
}

/// The image that a stage begins with.
#[derive(Clone)]
pub struct Base {
    /// Where it is named.
    pub line: usize,
    /// The reference.
    pub reference: String,
}

/// A variable that is set.
#[derive(Clone)]
pub struct Variable {
    /// Where.
    pub line: usize,
    /// The name.
    pub name: String,
    /// The value as it is written.
    pub value: String,
}

/// Something that is copied.
pub struct CopyLine {
    /// Where it is said.
    pub line: usize,
    /// What.
    pub sources: Vec<String>,
    /// Whereto.
    pub to: String,
    /// Whether it comes from another stage or image, not from the workspace.
    pub is_inner: bool,
    /// Whether it gets modes of its own.
    pub has_modes: bool,
}

impl Base {
    /// Whether it is an image of the lesson's kind.
    pub fn is_pixi(&self) -> bool {
        let name = self.reference.split('@').next().unwrap_or_default();
        name.strip_prefix(PIXI_IMAGE).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
    }

    /// The tag, where one is named.
    pub fn tag(&self) -> Option<&str> {
        let name = self.reference.split('@').next().unwrap_or_default();
        name.rsplit('/').next().unwrap_or_default().split_once(':').map(|(_, tag)| tag)
    }

    /// Whether it is named by its digest.
    pub fn is_digest(&self) -> bool {
        self.reference.contains('@')
    }

    /// The version of pixi that the tag names.
    pub fn pixi_version(&self) -> Option<[u64; 2]> {
        let tag = self.tag().filter(|_| self.is_pixi())?;
        let mut parts = tag.trim_start_matches('v').split(['.', '-']);
        Some([parts.next()?.parse().ok()?, parts.next()?.parse().ok()?])
    }

    /// Whether images of that name bring no bash.
    pub fn lacks_bash(&self) -> bool {
        let name = self.reference.split('@').next().unwrap_or_default();
        let parts = |word: &str| name.split(['/', ':', '-']).any(|part| part == word || part.starts_with(word));
        name == "scratch" || parts("distroless") || parts("alpine") || parts("busybox") || name.starts_with("cgr.dev/")
    }
}

impl Stage {
    /// The commands that run while it is built.
    pub fn commands(&self) -> Vec<Command> {
        commands(&self.build)
    }

    /// The variable that is set last under this name.
    pub fn variable(&self, name: &str) -> Option<&Variable> {
        self.sets.iter().rev().find(|variable| variable.name == name)
    }

    /// The first line of what runs while it is built that holds this text.
    pub fn build_line(&self, text: &str) -> Option<usize> {
        self.build.iter().find(|line| line.text.contains(text)).map(|line| line.number)
    }

    /// Where `pixi install` stands.
    pub fn installs(&self) -> Option<usize> {
        self.commands().iter().find(|command| command.is("pixi", "install")).map(|command| command.line)
    }
}

impl Recipe {
    /// The stage that becomes the image.
    pub fn last(&self) -> Option<&Stage> {
        self.stages.last()
    }

    /// Whether it is about an environment of pixi, which these traps are about.
    pub fn is_about_pixi(&self) -> bool {
        let brings = |copy: &CopyLine| copy.sources.iter().any(|source| source.contains(".pixi"));
        self.stages.iter().any(|stage| stage.installs().is_some() || stage.copies.iter().any(brings))
    }

    /// Whether some line that runs or is written holds this text.
    pub fn says(&self, text: &str) -> bool {
        let in_lines = |lines: &[Line]| lines.iter().any(|line| line.text.contains(text));
        self.stages.iter().any(|stage| {
            in_lines(&stage.build) || in_lines(&stage.start) || stage.environment.as_deref().is_some_and(in_lines)
        })
    }

    /// Every build argument that may be given.
    pub fn arguments(&self) -> impl Iterator<Item = &str> {
        self.stages.iter().flat_map(|stage| stage.arguments.iter().map(String::as_str))
    }

    /// What it is called in a command.
    pub fn name(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or_default()
    }
}
