//! What shows in a Dockerfile and in a definition file.

use crate::traps::Spot;
use crate::traps::files::View;
use crate::traps::recipe::{Base, Kind, Recipe, Stage};
use crate::traps::shell::{Command, Line, commands};

/// The variable that stands for a GPU.
const CUDA: &str = "CONDA_OVERRIDE_CUDA";
/// The first version of pixi that writes `.condapackageignore`.
const WRITES_IGNORE: [u64; 2] = [0, 48];
/// The first version of pixi that reads lock files of version 7.
const READS_LOCK_7: [u64; 2] = [0, 68];

/// T01: an argument without a default, or one that a stage does not declare.
pub fn arguments(view: &View<'_>) -> Vec<Spot> {
    let mut spots = Vec::new();
    for recipe in &view.recipes {
        for (line, name) in recipe.stages.iter().flat_map(|stage| &stage.undeclared) {
            spots.push(match recipe.kind {
                Kind::Dockerfile => {
                    Spot::new(&recipe.path, *line, format!("${name} is empty here: this stage does not declare it"))
                        .mend(format!("write `ARG {name}` behind this stage's FROM"))
                }
                Kind::Definition => Spot::new(
                    &recipe.path,
                    *line,
                    format!("{{{{ {name} }}}} is used, but this stage's %arguments do not name it"),
                )
                .mend(
                    match recipe.arguments().any(|own| own == "ENVIRONMENT") || name.starts_with("ENVIRONMENT") {
                        true => "call it {{ ENVIRONMENT }}, and write `ENVIRONMENT=gpu` below %arguments".to_owned(),
                        false => format!("write `{name}=` and its usual value below %arguments"),
                    },
                ),
            });
        }
    }
    spots
}

/// T03.
pub fn newer_file(view: &View<'_>) -> Vec<Spot> {
    let mut spots = Vec::new();
    for recipe in view.pixi_recipes() {
        let bases: Vec<&Base> = recipe.stages.iter().filter_map(|stage| stage.base.as_ref()).collect();
        let Some(base) = bases.into_iter().find(|base| base.is_pixi() && may_be_older(base, WRITES_IGNORE)) else {
            continue;
        };
        for copy in recipe.stages.iter().flat_map(|stage| &stage.copies).filter(|copy| copy.is_inner) {
            if copy.sources.iter().any(|source| source.ends_with(".condapackageignore")) {
                let is = if base.pixi_version().is_some() { "is older" } else { "may be older" };
                let what = format!("pixi writes .condapackageignore since 0.48, and that of {} {is}", base.reference);
                spots.push(Spot::new(&recipe.path, copy.line, what));
            }
        }
    }
    spots
}

fn may_be_older(base: &Base, version: [u64; 2]) -> bool {
    base.pixi_version().map_or(!base.is_digest(), |own| own < version)
}

/// T04: `exec "$@"` where nobody looks whether there is something to start.
pub fn silent(view: &View<'_>) -> Vec<Spot> {
    let mut spots = Vec::new();
    let with_command: Vec<&Recipe> = view.recipes.iter().filter(|recipe| has_command(recipe)).collect();
    for recipe in view.pixi_recipes().filter(|recipe| !has_command(recipe)) {
        let Some(entry) = recipe.last().and_then(|stage| stage.entry.as_ref()) else { continue };
        let is_looked_at = ["$#", "${#}", "\"$1\"", "${1"].iter().any(|text| recipe.says(text));
        let lines = recipe.stages.iter().flat_map(|stage| stage.build.iter().chain(&stage.start));
        let Some(line) = lines.into_iter().find(|line| passes_all(&line.text)).filter(|_| !is_looked_at) else {
            continue;
        };
        let spot = Spot::new(&recipe.path, line.number, silent_about(recipe.kind));
        spots.push(if recipe.kind == Kind::Dockerfile && entry.1.is_empty() { continue } else { spot });
    }
    for script in &view.scripts {
        let is_entry = |recipe: &&Recipe| {
            recipe
                .last()
                .and_then(|stage| stage.entry.as_ref())
                .is_some_and(|entry| entry.1.contains(crate::traps::files::name(&script.path)))
        };
        let is_looked_at =
            ["$#", "${#}", "\"$1\"", "${1"].iter().any(|text| script.lines.iter().any(|line| line.text.contains(text)));
        let is_used = view.recipes.is_empty() || view.recipes.iter().any(|recipe| is_entry(&recipe));
        let is_covered = is_looked_at || with_command.iter().any(is_entry);
        let line = script.lines.iter().find(|line| passes_all(&line.text)).filter(|_| is_used && !is_covered);
        spots.extend(line.map(|line| Spot::new(&script.path, line.number, silent_about(Kind::Dockerfile))));
    }
    spots
}

fn silent_about(kind: Kind) -> &'static str {
    match kind {
        Kind::Dockerfile => {
            "without a command there is nothing to start: `docker run IMAGE` ends silently, with exit code 0"
        }
        Kind::Definition => {
            "without a command there is nothing to start: `apptainer run IMAGE` ends silently, with exit code 0"
        }
    }
}

fn has_command(recipe: &Recipe) -> bool {
    recipe.last().is_some_and(|stage| stage.has_command)
}

/// Whether `exec "$@"` stands there, as a command or written into a file.
fn passes_all(text: &str) -> bool {
    let mut parts = text.split_whitespace().skip_while(|word| word.trim_start_matches(['\'', '"']) != "exec");
    let (exec, all) = (parts.next(), parts.next());
    exec.is_some()
        && all.is_some_and(|word| word.trim_matches(['\'', '"', '\\', ';']) == "$@" || word.starts_with(r#"\"\$@\""#))
}

/// T05: what `exec` and `shell` find.
pub fn only_run(view: &View<'_>) -> Vec<Spot> {
    let spot = |recipe: &Recipe| -> Option<Spot> {
        let stage = recipe.last()?;
        let (line, entry) = stage.entry.as_ref()?;
        match recipe.kind {
            Kind::Dockerfile => {
                let in_path = stage
                    .variable("PATH")
                    .is_some_and(|path| path.value.contains(".pixi/envs") || path.value.contains("CONDA_PREFIX"));
                let by_pixi = entry.contains("pixi");
                (!in_path && !by_pixi).then(|| {
                    Spot::new(
                        &recipe.path,
                        *line,
                        "only what passes through this is active: `docker exec` finds no python",
                    )
                    .mend("write `ENV PATH=/app/.pixi/envs/$ENVIRONMENT/bin:$PATH` before it")
                })
            }
            Kind::Definition => {
                let environment = stage.environment.as_deref().unwrap_or_default();
                let activates = |command: &Command| {
                    let sets =
                        command.words.iter().any(|word| word.starts_with("PATH=") || word.starts_with("CONDA_PREFIX="));
                    sets || [".", "source", "eval"].contains(&command.program())
                };
                let sets_path = stage.variable("PATH").is_some() || stage.variable("CONDA_PREFIX").is_some();
                let is_active = sets_path || commands(environment).iter().any(activates);
                let written = ["/.singularity.d/env", "APPTAINER_ENVIRONMENT", "SINGULARITY_ENVIRONMENT"];
                let is_written = written.iter().any(|text| recipe.says(text));
                (!is_active && !is_written).then(|| {
                    Spot::new(&recipe.path, *line, "only `run` reads this: `apptainer exec` and `shell` find no python")
                        .mend("activate the environment in %environment, as `cargo xtask diff apptainer.def` shows")
                })
            }
        }
    };
    view.pixi_recipes().filter_map(spot).collect()
}

/// T06: what `%test` does.
pub fn untested(view: &View<'_>) -> Vec<Spot> {
    let spot = |recipe: &Recipe| -> Option<Spot> {
        let stage = recipe.last().filter(|_| recipe.kind == Kind::Definition)?;
        let (line, what) = match &stage.test {
            None => (stage.line, "there is no %test: an image with an empty environment is built all the same"),
            Some((line, script)) if !commands(script).iter().any(does_something) => {
                (*line, "%test starts nothing of the environment: it passes where that is empty or broken")
            }
            Some(_) => return None,
        };
        Some(Spot::new(&recipe.path, line, what).mend("let %test run `python /app/src/torch_detect_GPU.py`"))
    };
    view.pixi_recipes().filter_map(spot).collect()
}

fn does_something(command: &Command) -> bool {
    let looks = [
        ".", "source", "set", "export", "cd", "echo", "printf", "ls", "test", "[", "true", ":", "pwd", "whoami", "env",
        "exit", "cat",
    ];
    let asks_version = command.words.iter().skip(1).all(|word| ["--version", "-V", "-VV"].contains(&word.as_str()));
    let lists = ["info", "list", "tree", "shell-hook"].iter().any(|subcommand| command.is("pixi", subcommand));
    let only_looks = looks.contains(&command.program()) || lists;
    !only_looks && (!asks_version || command.words.len() == 1)
}

/// T07: a tag that moves, or a pixi that cannot read the lock.
pub fn moving_base(view: &View<'_>) -> Vec<Spot> {
    let mut spots = Vec::new();
    let lock = view.file("pixi.lock").and_then(|file| file.text.lines().find_map(|line| line.strip_prefix("version:")));
    let is_lock_7 = lock.and_then(|version| version.trim().parse::<u64>().ok()).is_some_and(|version| version >= 7);
    for recipe in &view.recipes {
        let bases =
            recipe.stages.iter().filter(|stage| stage.from_stage.is_none()).filter_map(|stage| stage.base.as_ref());
        for base in bases {
            let moves = if base.is_pixi() {
                base.pixi_version().is_none()
            } else {
                // Of a definition file's base it is not told here whether it is an image of a registry.
                let is_image = recipe.kind == Kind::Dockerfile || base.reference.contains(['.', ':', '/']);
                base.reference != "scratch" && is_image && base.tag().is_none_or(|tag| tag == "latest")
            };
            let is_file =
                base.reference.ends_with(".sif") || base.reference.starts_with('/') || base.reference.contains('{');
            if moves && !base.is_digest() && !is_file {
                let what = format!("{} means another image each month, and another pixi", base.reference);
                let what =
                    if base.is_pixi() { what } else { format!("{} means another image each month", base.reference) };
                let spot = Spot::new(&recipe.path, base.line, what);
                spots.push(if base.is_pixi() { spot } else { spot.mend("name a version behind the colon") });
            } else if is_lock_7 && base.pixi_version().is_some_and(|version| version < READS_LOCK_7) {
                let what = format!("{} cannot read pixi.lock: version 7 needs pixi 0.68", base.reference);
                spots.push(Spot::new(&recipe.path, base.line, what));
            }
        }
    }
    spots
}

/// T08: set in some stages, not in all that use pixi.
pub fn cuda_of_build(view: &View<'_>) -> Vec<Spot> {
    let mut spots = Vec::new();
    for recipe in view.pixi_recipes() {
        let Some(last) = recipe.last() else { continue };
        let sets = |stage: &Stage| stage.variable(CUDA).is_some();
        let line =
            |stage: &Stage| stage.variable(CUDA).map(|variable| variable.line).or_else(|| stage.build_line(CUDA));
        let Some(set) = recipe.stages.iter().find_map(line) else { continue };
        match recipe.kind {
            Kind::Dockerfile if !sets(last) => spots.push(
                Spot::new(&recipe.path, set, format!("{CUDA} is set for this stage, and not in the finished image"))
                    .mend(format!("write `ENV {CUDA}=$CUDA_VERSION` behind the last FROM and its `ARG CUDA_VERSION`")),
            ),
            Kind::Definition if !sets(last) => spots.push(
                Spot::new(&recipe.path, set, format!("{CUDA} is set here, and neither in %environment nor for %test"))
                    .mend(format!("write `export {CUDA}=\"{{{{ CUDA_VERSION }}}}\"` below %environment")),
            ),
            _ => {}
        }
        for stage in &recipe.stages {
            let known = sets(stage) || stage.build_line(CUDA).is_some();
            if let Some(install) = stage.installs().filter(|_| !known) {
                spots.push(
                    Spot::new(
                        &recipe.path,
                        install,
                        format!("{CUDA} is not set here, so a machine without a GPU cannot build"),
                    )
                    .mend(format!("set {CUDA} before `pixi install`")),
                );
            }
        }
    }
    spots
}

/// T13.
pub fn two_stages(view: &View<'_>) -> Vec<Spot> {
    let spot = |recipe: &Recipe| -> Option<Spot> {
        let last = recipe.last().filter(|_| recipe.kind == Kind::Definition && recipe.stages.len() > 1)?;
        let brings = last
            .copies
            .iter()
            .find(|copy| copy.is_inner && copy.sources.iter().any(|source| source.contains(".pixi")))?;
        let what = "a second stage: the environment lies twice below TMPDIR while it is built";
        Some(Spot::new(&recipe.path, brings.line, what))
    };
    view.pixi_recipes().filter_map(spot).collect()
}

/// T14: `~/.local` comes before the environment.
pub fn user_site(view: &View<'_>) -> Vec<Spot> {
    let spot = |recipe: &Recipe| -> Option<Spot> {
        let stage = recipe.last()?;
        let is_shut = stage.variable("PYTHONNOUSERSITE").is_some() || recipe.says("PYTHONNOUSERSITE");
        let spot = Spot::new(&recipe.path, stage.line, "packages of ~/.local get into this image's python");
        (!is_shut).then(|| match recipe.kind {
            Kind::Dockerfile => spot.mend("write `ENV PYTHONNOUSERSITE=1` into this stage"),
            Kind::Definition => spot.mend("write `export PYTHONNOUSERSITE=1` below %environment"),
        })
    };
    view.pixi_recipes().filter_map(spot).collect()
}

/// T15: a shell that the base does not have.
pub fn needs_bash(view: &View<'_>) -> Vec<Spot> {
    let spot = |recipe: &Recipe| -> Option<Spot> {
        let stage = recipe.last()?;
        let base = stage.base.as_ref().filter(|base| base.lacks_bash())?;
        let entry = stage.entry.as_ref().map_or("", |(_, entry)| entry.as_str());
        let in_script = |script: &crate::traps::files::Script| {
            let is_entry = entry.contains(crate::traps::files::name(&script.path));
            is_entry && script.lines.first().is_some_and(|line| needs(&line.text))
        };
        let starts = stage.start.iter().any(|line| needs(&line.text));
        let lines = recipe.stages.iter().flat_map(|stage| &stage.build);
        let is_needed = entry.contains("bash")
            || starts
            || lines.into_iter().any(|line| needs(&line.text))
            || view.scripts.iter().any(in_script);
        let is_installed = stage
            .commands()
            .iter()
            .any(|command| command.has("bash") && (command.has("add") || command.has("install")));
        let what = format!("{} has no bash, which the entrypoint begins with", base.reference);
        (is_needed && !is_installed).then(|| Spot::new(&recipe.path, base.line, what))
    };
    view.pixi_recipes().filter_map(spot).collect()
}

fn needs(text: &str) -> bool {
    ["#!/bin/bash", "#! /bin/bash", "#!/usr/bin/bash", "#!/usr/bin/env bash"]
        .iter()
        .any(|shebang| text.contains(shebang))
}

/// T17: `pixi shell-hook` as a file, with the PATH of the build in it.
pub fn frozen_path(view: &View<'_>) -> Vec<Spot> {
    let mut spots = Vec::new();
    for recipe in view.pixi_recipes() {
        for stage in recipe.stages.iter().filter(|stage| stage.from_stage.is_none()) {
            let commands = stage.commands();
            let cuts = |command: &Command| {
                ["sed", "grep", "awk", "perl", "python"].contains(&command.program())
                    && command.words.iter().any(|word| word.contains("PATH"))
            };
            let hook = commands.iter().find(|command| command.is("pixi", "shell-hook"));
            if let Some(hook) = hook.filter(|_| !commands.iter().any(cuts)) {
                let what = "this writes the whole PATH of the build into the image";
                spots.push(Spot::new(&recipe.path, hook.line, what));
            }
        }
    }
    spots
}

/// T19.
pub fn private_records(view: &View<'_>) -> Vec<Spot> {
    let spot = |recipe: &Recipe| -> Option<Spot> {
        let install = recipe.stages.iter().find_map(Stage::installs)?;
        let commands = recipe.stages.iter().flat_map(Stage::commands).collect::<Vec<_>>();
        let opens = |command: &Command| {
            let is_recursive =
                command.words.iter().any(|word| word == "--recursive" || (word.starts_with('-') && word.contains('R')));
            (command.program() == "chmod" && is_recursive) || command.has("chmod") && command.program() == "find"
        };
        let copied = recipe.stages.iter().flat_map(|stage| &stage.copies);
        let is_opened = commands.iter().any(opens)
            || copied
                .into_iter()
                .any(|copy| copy.has_modes && copy.sources.iter().any(|source| source.contains(".pixi")));
        let what = "the records in conda-meta have mode 0600: other users cannot list what is installed";
        (!is_opened).then(|| Spot::new(&recipe.path, install, what))
    };
    view.pixi_recipes().filter_map(spot).collect()
}

/// T20: which project pixi takes in a container.
pub fn local_project(view: &View<'_>) -> Vec<Spot> {
    let spot = |recipe: &Recipe| -> Option<Spot> {
        let stage = recipe.last()?;
        let is_there = stage.base.as_ref().is_some_and(Base::is_pixi);
        let is_set = stage.variable("PIXI_PROJECT_MANIFEST").is_some();
        let activates = |command: &Command| [".", "source", "eval"].contains(&command.program());
        // The activation that pixi writes sets it.
        let by_hook = stage.environment.as_deref().is_some_and(|lines: &[Line]| commands(lines).iter().any(activates));
        let what = "in a directory with a pixi.toml, pixi in this image takes that project, and says nothing";
        let spot = Spot::new(&recipe.path, stage.line, what);
        (is_there && !is_set && !by_hook).then(|| match recipe.kind {
            Kind::Dockerfile => spot.mend("write `ENV PIXI_PROJECT_MANIFEST=/app/pixi.toml` into this stage"),
            Kind::Definition => spot.mend("write `export PIXI_PROJECT_MANIFEST=/app/pixi.toml` below %environment"),
        })
    };
    view.pixi_recipes().filter_map(spot).collect()
}

/// T21: the activation, read by a shell that is not bash.
pub fn own_shell(view: &View<'_>) -> Vec<Spot> {
    let mut spots = Vec::new();
    for recipe in view.pixi_recipes().filter(|recipe| recipe.kind == Kind::Definition && recipe.says("shell-hook")) {
        let environment = recipe.last().and_then(|stage| stage.environment.as_deref()).unwrap_or_default();
        let reads = |command: &&Command| match command.program() {
            "." | "source" => command.words.get(1).is_some_and(|file| !file.starts_with("/.singularity.d")),
            "eval" => command.words.iter().any(|word| word.contains("shell-hook") && !word.contains("bash -c")),
            _ => false,
        };
        if let Some(command) = commands(environment).iter().find(reads) {
            let what = "Apptainer reads this in a shell of its own, in which activation scripts for bash go wrong";
            spots.push(Spot::new(&recipe.path, command.line, what));
        }
    }
    spots
}
