//! The files that are looked at, and what shows in how they stand together.

use crate::traps::recipe::{CopyLine, Kind, Recipe};
use crate::traps::shell::{Line, variables};
use crate::traps::workflow::{self, Workflow};
use crate::traps::{Spot, definition, dockerfile};

/// Files of a workspace and its workflows.
pub struct Files {
    /// Each of them.
    pub files: Vec<File>,
    /// What else is there; none where only these files are known.
    pub tree: Option<Tree>,
}

/// One file.
pub struct File {
    /// As it is typed.
    pub path: String,
    /// What it holds.
    pub text: String,
}

/// What stands in a workspace.
pub struct Tree {
    /// The workspace, as it is typed.
    pub workspace: String,
    /// The names in it.
    pub names: Vec<String>,
    /// The names in its `src`.
    pub sources: Vec<String>,
}

impl Tree {
    fn has(&self, name: &str) -> bool {
        self.names.iter().any(|own| own == name)
    }

    /// As it is typed.
    fn place(&self, name: &str) -> String {
        format!("{}/{name}", self.workspace)
    }
}

/// A script of the workspace.
pub struct Script {
    pub path: String,
    pub lines: Vec<Line>,
}

/// The files, read by their kinds.
pub struct View<'a> {
    pub files: &'a Files,
    pub recipes: Vec<Recipe>,
    pub workflows: Vec<Workflow>,
    pub scripts: Vec<Script>,
}

impl<'a> View<'a> {
    /// Reads them.
    pub fn new(files: &'a Files) -> Self {
        let mut view = Self { files, recipes: Vec::new(), workflows: Vec::new(), scripts: Vec::new() };
        for File { path, text } in &files.files {
            let name = name(path);
            if is_dockerfile(name) {
                view.recipes.push(dockerfile::parse(path, text));
            } else if name.ends_with(".def") {
                view.recipes.push(definition::parse(path, text));
            } else if name.ends_with(".yaml") || name.ends_with(".yml") {
                view.workflows.push(workflow::parse(path, text));
            } else if name.ends_with(".sh") {
                let lines =
                    text.lines().enumerate().map(|(index, text)| Line { number: index + 1, text: text.to_owned() });
                let is_code = |line: &Line| line.number == 1 || !line.text.trim_start().starts_with('#');
                view.scripts.push(Script { path: path.clone(), lines: lines.filter(is_code).collect() });
            }
        }
        view
    }

    /// The file of that name.
    pub fn file(&self, wanted: &str) -> Option<&File> {
        self.files.files.iter().find(|file| name(&file.path) == wanted)
    }

    /// The recipes that are about an environment of pixi.
    pub fn pixi_recipes(&self) -> impl Iterator<Item = &Recipe> {
        self.recipes.iter().filter(|recipe| recipe.is_about_pixi())
    }
}

/// A file's name without its directory.
pub fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// Whether docker or podman would build by a file of that name.
pub fn is_dockerfile(name: &str) -> bool {
    let is_one = |name: &str| ["Dockerfile", "Containerfile"].contains(&name);
    !name.ends_with(".dockerignore") && name.split('.').any(is_one)
}

/// T02: what `COPY . .` takes along.
pub fn ignored(view: &View<'_>) -> Vec<Spot> {
    let Some(tree) = &view.files.tree else { return Vec::new() };
    let mut spots = Vec::new();
    for recipe in view.recipes.iter().filter(|recipe| recipe.kind == Kind::Dockerfile && recipe.is_about_pixi()) {
        let own = format!("{}.dockerignore", recipe.name());
        let file = view.file(&own).or_else(|| view.file(".dockerignore"));
        let whole = recipe.stages.iter().flat_map(|stage| &stage.copies).find(|copy| takes_all(copy));
        let line = whole.map_or(1, |copy| copy.line);
        match file {
            None => spots.push(Spot::new(
                &recipe.path,
                line,
                format!(
                    "there is no {}: nothing keeps the installed .pixi out of the build",
                    tree.place(".dockerignore")
                ),
            )),
            Some(file) if whole.is_some() && !ignores_pixi(&file.text) => spots.push(
                Spot::new(&recipe.path, line, format!("{} does not keep .pixi out of this", file.path))
                    .mend(format!("echo .pixi >> {}", file.path)),
            ),
            Some(_) => {}
        }
    }
    spots
}

fn takes_all(copy: &CopyLine) -> bool {
    !copy.is_inner && copy.sources.iter().any(|source| [".", "./", "*", "./*", "/"].contains(&source.as_str()))
}

/// The last pattern that is about `.pixi` counts.
fn ignores_pixi(text: &str) -> bool {
    let mut is_ignored = false;
    for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        let (pattern, excludes) = line.strip_prefix('!').map_or((line, true), |pattern| (pattern, false));
        let pattern = pattern.trim_start_matches("./").trim_matches('/');
        if [".pixi", "**/.pixi", ".pixi/**", ".pixi/*", ".pixi/envs", "*", "**", ".*"].contains(&pattern) {
            is_ignored = excludes;
        }
    }
    is_ignored
}

/// T11: code in `src/`, of which the recipes know nothing, or recipes that look for it there.
pub fn two_names(view: &View<'_>) -> Vec<Spot> {
    let tree = view.files.tree.as_ref();
    let mut spots = Vec::new();
    for recipe in view.pixi_recipes() {
        for copy in recipe.stages.iter().flat_map(|stage| &stage.copies).filter(|copy| !copy.is_inner) {
            let source =
                |name: &str| copy.sources.iter().any(|own| own.trim_start_matches("./").trim_matches('/') == name);
            let is_there = tree.is_some_and(|tree| tree.has("src"));
            if source("src") && copy.to.trim_end_matches('/').ends_with("src") && !is_there {
                let what = "code lies in app/, and src is what it is called in the image";
                spots.push(Spot::new(&recipe.path, copy.line, what).mend("write `app` in place of `src` here"));
            }
        }
    }
    let Some(tree) = tree else { return spots };
    let is_code = |name: &&String| name.ends_with(".py");
    if let Some(code) = tree.sources.iter().find(is_code).filter(|_| !tree.has("app")) {
        let (from, to) = (tree.place("src"), tree.place("app"));
        let what = "code lies in src/, but what the recipes and the commands look for is app/";
        spots.push(Spot::new(&format!("{from}/{code}"), 0, what).mend(format!("mv {from} {to}")));
    }
    for workflow in &view.workflows {
        for line in workflow.paths() {
            let path = line.text.trim_start_matches('!');
            let of_source =
                path.strip_prefix(&tree.place("src")).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
            if of_source && !tree.has("src") {
                let what = format!("{path} is never changed: code lies in {}", tree.place("app"));
                spots.push(
                    Spot::new(&workflow.path, line.number, what).mend(format!("write {}/** here", tree.place("app"))),
                );
            }
        }
    }
    spots
}

/// Whether a text names something by a variable, of which nothing is known.
pub fn is_computed(text: &str) -> bool {
    !variables(text).is_empty() || text.contains("${{")
}
