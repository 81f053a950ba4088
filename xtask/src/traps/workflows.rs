//! What shows in workflows, and in scripts of the workspace that type the same commands.

use crate::traps::Spot;
use crate::traps::files::{View, is_computed, is_dockerfile, name};
use crate::traps::recipe::{Kind, Recipe};
use crate::traps::shell::{Command, Line, commands};
use crate::traps::workflow::{Step, Workflow};

const BUILD_PUSH: &str = "docker/build-push-action";
const META: &str = "docker/metadata-action";
/// What handles images.
const DOCKER: [&str; 3] = ["docker", "podman", "buildah"];
const APPTAINER: [&str; 2] = ["apptainer", "singularity"];
/// Build arguments that builders know by themselves.
const PREDEFINED: [&str; 9] = [
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "FTP_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "SOURCE_DATE_EPOCH",
    "BUILDKIT_INLINE_CACHE",
    "BUILDKIT_CONTEXT_KEEP_GIT_DIR",
    "BUILDKIT_SYNTAX",
];

/// T01: `--build-arg` with a name that the recipe does not have.
pub fn arguments(view: &View<'_>) -> Vec<Spot> {
    let mut spots = Vec::new();
    for (path, command) in all_commands(view) {
        let Some(kind) = builds(&command) else { continue };
        for argument in command.values("--build-arg") {
            let given = argument.split('=').next().unwrap_or_default();
            spots.extend(unknown(view, kind, given, &path, command.line));
        }
    }
    for workflow in &view.workflows {
        for step in workflow.steps().iter().filter(|step| step.is(BUILD_PUSH)) {
            for line in step.input("build-args") {
                let given = line.text.split('=').next().unwrap_or_default().trim();
                spots.extend(unknown(view, Kind::Dockerfile, given, &workflow.path, line.number));
            }
        }
    }
    spots
}

/// Says so where no recipe of that kind has the argument.
fn unknown(view: &View<'_>, kind: Kind, given: &str, path: &str, line: usize) -> Option<Spot> {
    let recipes: Vec<&Recipe> = view.recipes.iter().filter(|recipe| recipe.kind == kind).collect();
    let names: Vec<&str> = recipes.iter().flat_map(|recipe| recipe.arguments()).collect();
    let is_known = if recipes.is_empty() { given != "ENVIRONMENT_NAME" } else { names.contains(&given) };
    if given.is_empty() || is_known || is_computed(given) || PREDEFINED.contains(&given.to_ascii_uppercase().as_str()) {
        return None;
    }
    let place = recipes.first().map_or("the recipe", |recipe| recipe.name());
    let what = match kind {
        Kind::Definition => format!("{place} has no argument {given}, which ends the build"),
        Kind::Dockerfile => format!("{place} has no argument {given}, so the default is built"),
    };
    let mend = format!("write ENVIRONMENT in place of {given}");
    let spot = Spot::new(path, line, what);
    Some(if given.contains("ENV") { spot.mend(mend) } else { spot.mend(format!("give it a name that {place} has")) })
}

/// The kind of recipe that a command builds by.
fn builds(command: &Command) -> Option<Kind> {
    if APPTAINER.contains(&command.program()) && command.has("build") {
        return Some(Kind::Definition);
    }
    (DOCKER.contains(&command.program()) && (command.has("build") || command.has("bud"))).then_some(Kind::Dockerfile)
}

/// The commands of workflows and of scripts, with the files that they stand in.
fn all_commands(view: &View<'_>) -> Vec<(String, Command)> {
    let mut found = Vec::new();
    for workflow in &view.workflows {
        let commands = workflow.steps().into_iter().flat_map(|step| step.commands());
        found.extend(commands.map(|command| (workflow.path.clone(), command)));
    }
    for script in &view.scripts {
        found.extend(commands(&script.lines).into_iter().map(|command| (script.path.clone(), command)));
    }
    found
}

/// T06: an image is published, and never started.
pub fn untested(view: &View<'_>) -> Vec<Spot> {
    let spot = |workflow: &Workflow| -> Option<Spot> {
        let steps = workflow.steps();
        let publishes = |step: &Step<'_>| {
            let push = step.input("push").first().map(|line| line.text.as_str()).unwrap_or("false");
            if step.is(BUILD_PUSH) && push != "false" {
                return step.uses.as_ref().map(|(line, _)| *line);
            }
            step.commands().iter().find(|command| is_push(command)).map(|command| command.line)
        };
        let line = steps.iter().find_map(publishes)?;
        let is_tested = steps.iter().flat_map(Step::commands).any(|command| tries(&command));
        let what = "this publishes an image that nothing was started in";
        let mend = "run `cargo xtask test docker` (or apptainer) before this step";
        (!is_tested).then(|| Spot::new(&workflow.path, line, what).mend(mend))
    };
    view.workflows.iter().filter_map(spot).collect()
}

fn is_push(command: &Command) -> bool {
    let handles = DOCKER.contains(&command.program()) || APPTAINER.contains(&command.program());
    handles && command.has("push") || command.is("oras", "push") || command.is("skopeo", "copy")
}

/// Whether something is started in an image.
fn tries(command: &Command) -> bool {
    let program = command.program();
    let by_docker = DOCKER.contains(&program) && command.has("run");
    let by_apptainer = APPTAINER.contains(&program) && ["run", "exec", "test"].iter().any(|word| command.has(word));
    let by_us = command.is("cargo", "xtask") && ["all", "run", "test"].iter().any(|word| command.has(word));
    let by_pixi_image = ["run", "test"].iter().any(|word| command.is("pixi-image", word));
    by_docker || by_apptainer || by_us || by_pixi_image || program == "container-structure-test"
}

/// T10: a registry's name with an owner as GitHub spells it.
pub fn capitals(view: &View<'_>) -> Vec<Spot> {
    let mut spots = Vec::new();
    let mut note = |path: &str, line: usize, text: &str| {
        if let Some(owner) = as_spelled(text) {
            let what = format!("{owner} may hold capital letters, which a registry refuses");
            spots.push(Spot::new(path, line, what));
        }
    };
    for workflow in &view.workflows {
        for step in workflow.steps() {
            for line in step.script.iter().filter(|line| !line.text.trim_start().starts_with('#')) {
                note(&workflow.path, line.number, &line.text);
            }
            // docker/metadata-action makes it lower-case by itself.
            for line in step.input("tags").into_iter().filter(|_| step.is(BUILD_PUSH)) {
                note(&workflow.path, line.number, &line.text);
            }
        }
    }
    spots
}

/// The owner behind a registry's host, where nothing makes it lower-case.
fn as_spelled(text: &str) -> Option<String> {
    let is_lowered = [",,", "[:lower:]", "lower()", "a-z"].iter().any(|way| text.contains(way));
    if is_lowered {
        return None;
    }
    let spelled = ["${{ github.repository", "${{github.repository", "$GITHUB_REPOSITORY", "${GITHUB_REPOSITORY"];
    for (at, _) in text.match_indices("ghcr.io/") {
        let rest = &text[at + "ghcr.io/".len()..];
        if spelled.iter().any(|way| rest.starts_with(way)) {
            let end = rest.find("}}").map(|end| end + 2).filter(|_| rest.starts_with("${{"));
            let end = end.or_else(|| {
                rest[1..].find(|c: char| !c.is_ascii_alphanumeric() && !"_{}".contains(c)).map(|end| end + 1)
            });
            return Some(rest[..end.unwrap_or(rest.len())].to_owned());
        }
        let owner: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).collect();
        if owner.contains(|c: char| c.is_ascii_uppercase()) {
            return Some(owner);
        }
    }
    None
}

/// T12: a version that somebody typed, and a `latest` that every push moves.
pub fn tags(view: &View<'_>) -> Vec<Spot> {
    let locked = view.file("pixi.lock").and_then(|file| locked_cuda(&file.text));
    let mut spots = Vec::new();
    for workflow in &view.workflows {
        for step in workflow.steps() {
            for line in tag_lines(&step) {
                if let Some(version) = typed_cuda(&line.text) {
                    let what = match &locked {
                        Some(locked) if *locked != version => {
                            format!("the tag says CUDA {version}, but pixi.lock has {locked}")
                        }
                        _ => format!("the tag says CUDA {version}, whatever version is locked"),
                    };
                    spots.push(Spot::new(&workflow.path, line.number, what));
                } else if is_latest(&line.text) && !step.looks_at_branch() {
                    let what = "each push moves `latest`, that of an old version's tag too";
                    let mend = if step.is(META) {
                        "write `type=raw,value=latest,enable={{is_default_branch}}`"
                    } else {
                        "push `latest` only where $GITHUB_REF is the default branch"
                    };
                    spots.push(Spot::new(&workflow.path, line.number, what).mend(mend));
                }
            }
        }
    }
    spots
}

/// The lines of a step that give an image its names.
fn tag_lines(step: &Step<'_>) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    if step.is(BUILD_PUSH) || step.is(META) {
        lines.extend(step.input("tags").into_iter().cloned());
    }
    for command in step.commands() {
        let is_docker = DOCKER.contains(&command.program());
        let names = is_push(&command) || is_docker && (command.has("tag") || command.has("--push"));
        if names {
            lines.push(Line { number: command.line, text: command.words.join(" ") });
        }
    }
    lines
}

/// The version in `cuda-12.9`, where it stands in a tag.
fn typed_cuda(text: &str) -> Option<String> {
    let names = text.split_whitespace().flat_map(|word| word.split(',')).filter_map(|word| {
        match word.strip_prefix("value=").or_else(|| word.strip_prefix("prefix=")) {
            Some(tag) => Some(tag),
            None => word.rsplit_once(':').map(|(_, tag)| tag),
        }
    });
    names.into_iter().find_map(|tag| {
        let (_, rest) = tag.split_once("cuda-").or_else(|| tag.split_once("cuda"))?;
        let version: String = rest.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
        let version = version.trim_end_matches('.');
        (!version.is_empty()).then(|| version.to_owned())
    })
}

fn is_latest(text: &str) -> bool {
    let is_conditional = text.contains("enable=");
    let raw = text.split(',').any(|part| part.trim() == "value=latest" || part.trim() == "type=raw,latest");
    let named = text.split_whitespace().any(|word| word.ends_with(":latest"));
    !is_conditional && (raw || named)
}

/// The version of the package `cuda-version`, by its file's name.
fn locked_cuda(lock: &str) -> Option<String> {
    let file = lock.split_whitespace().filter_map(|word| word.rsplit_once('/')).map(|(_, file)| file);
    let mut versions = file.filter_map(|file| file.strip_prefix("cuda-version-")?.split('-').next());
    versions.next().map(str::to_owned)
}

/// T16.
pub fn emulator(view: &View<'_>) -> Vec<Spot> {
    let mut spots = Vec::new();
    for workflow in &view.workflows {
        let steps = workflow.steps();
        let is_foreign = |platforms: &str| !platforms.is_empty() && platforms != "linux/amd64";
        let needs = |step: &Step<'_>| {
            let lines = step.input("platforms");
            let by_command =
                step.commands().iter().any(|command| command.values("--platform").into_iter().any(is_foreign));
            let is_builder = !step.is("docker/setup-qemu-action");
            is_builder && (by_command || lines.iter().any(|line| is_foreign(line.text.trim())))
        };
        let emulator =
            steps.iter().filter(|step| step.is("docker/setup-qemu-action")).find_map(|step| step.uses.as_ref());
        if let Some((line, _)) = emulator.filter(|_| !steps.iter().any(needs)) {
            let what = "other processors are emulated, but the image is built for this one alone";
            spots.push(Spot::new(&workflow.path, *line, what));
        }
    }
    spots
}

/// T18: `DOCKER_BUILDKIT=0`.
pub fn old_builder(view: &View<'_>) -> Vec<Spot> {
    let what = "this asks for Docker's old builder, with which the recipe fails at its end";
    let spot = |path: &str, line: usize| Spot::new(path, line, what).mend("remove DOCKER_BUILDKIT=0");
    let mut spots = Vec::new();
    for workflow in &view.workflows {
        for step in workflow.steps() {
            let off = step.variables.iter().find(|(_, name, value)| name == "DOCKER_BUILDKIT" && value == "0");
            spots.extend(off.map(|(line, _, _)| spot(&workflow.path, *line)));
            spots.extend(turns_off(&step.script).map(|line| spot(&workflow.path, line)));
        }
    }
    for script in &view.scripts {
        spots.extend(turns_off(&script.lines).map(|line| spot(&script.path, line)));
    }
    spots
}

fn turns_off(script: &[Line]) -> Option<usize> {
    let is_off = |line: &&Line| line.text.split([' ', '\t', ';']).any(|word| word == "DOCKER_BUILDKIT=0");
    script.iter().filter(|line| !line.text.trim_start().starts_with('#')).find(is_off).map(|line| line.number)
}

/// Whether a file of that name is looked at.
pub fn is_looked_at(path: &str) -> bool {
    let name = name(path);
    is_dockerfile(name) || [".def", ".sh", ".yaml", ".yml"].iter().any(|ending| name.ends_with(ending))
}
