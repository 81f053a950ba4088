//! Apptainer and SingularityCE: the lesson's definition file, built, checked and run by its own tools.

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::command_line::CommandLine;
use crate::context::Context;
use crate::engine::{Artifact, BuildRequest, Desk, Engine, Format, Image, Target, TestRequest};
use crate::engines::checks::{self, last_line};
use crate::engines::gpu::Gpu;
use crate::engines::namespaces::{self, Forbidden};
use crate::plan::Plan;

/// A program in the manner of `apptainer`.
pub struct Sif {
    name: &'static str,
    /// What its variables begin with.
    prefix: &'static str,
}

/// Apptainer.
pub const APPTAINER: Sif = Sif { name: "apptainer", prefix: "APPTAINER" };
/// SingularityCE, which reads the same definition files.
pub const SINGULARITY: Sif = Sif { name: "singularity", prefix: "SINGULARITY" };

/// How much more room than the packages' archives a build takes while it works: the unpacked tree and the image.
pub const UNPACKED_RATIO: u64 = 5;
/// What the base image takes of it.
pub const BASE_BYTES: u64 = 128 << 20;

impl Engine for Sif {
    fn name(&self) -> &'static str {
        self.name
    }

    fn formats(&self) -> &'static [Format] {
        &[Format::Apptainer]
    }

    fn probe(&self, cx: &Context) -> Result<String, String> {
        if !cx.on_path(self.name) {
            return Err("it is not installed".to_owned());
        }
        let version = cx.glance(&self.command(["--version"])).map_err(|error| error.to_string())?;
        if version.code != 0 {
            return Err(format!("it does not work ({})", last_line(&version)));
        }
        forbidden_namespaces(cx)?;
        Ok(version.stdout.split_whitespace().last().unwrap_or_default().to_owned())
    }

    fn build(&self, desk: &Desk<'_>, request: &BuildRequest) -> Result<Option<Vec<Artifact>>> {
        self.room(desk, request)?;
        let mut artifacts = Vec::new();
        for target in &request.outputs {
            artifacts.extend(self.build_one(desk, request, target)?);
        }
        Ok(if desk.cx.options.dry_run { None } else { Some(artifacts) })
    }

    fn test(&self, desk: &Desk<'_>, request: &TestRequest) -> Result<()> {
        self.check(desk, request)?;
        desk.cx.execute(&self.command(["test", &request.image.path]))
    }

    fn run(&self, desk: &Desk<'_>, image: &Image, command: &[String], _interactive: bool) -> Result<CommandLine> {
        let nv = Gpu::find(desk.cx).map(|_| "--nv");
        Ok(self.command(["run"]).args(nv).arg(&image.path).args(command))
    }
}

impl Sif {
    fn check(&self, desk: &Desk<'_>, request: &TestRequest) -> Result<()> {
        let way = |action: &'static str| {
            move |words: &[&str]| self.command([action]).arg(&request.image.path).args(words.iter().copied())
        };
        checks::check(desk, request, &[("by `exec`", &way("exec")), ("by `run`", &way("run"))])
    }

    fn command<const N: usize>(&self, arguments: [&str; N]) -> CommandLine {
        CommandLine::new(self.name).args(arguments)
    }

    fn build_one(&self, desk: &Desk<'_>, request: &BuildRequest, target: &Target) -> Result<Option<Artifact>> {
        let cx = desk.cx;
        let partial = format!("{}.partial.sif", target.path.trim_end_matches(".sif"));
        // The recipe's own paths begin at the workspace.
        let up = |path: &str| match request.workspace.starts_with('/') {
            true => cx.resolve(path).display().to_string(),
            false => from_within(&request.workspace, path),
        };
        let mut line = self.command(["build", "--force"]).in_directory(&request.workspace);
        if request.loopback {
            line = line.arg("--no-https");
        }
        for argument in self.build_arguments(cx, request, target)? {
            line = line.option("--build-arg", argument);
        }
        let line = line.arg(up(&partial)).arg(up(&target.recipe));
        // An image that does not work gets no name.
        let work = || {
            cx.execute(&line)?;
            if request.exact { Ok(()) } else { self.check(desk, &request.test(&partial, &partial)) }
        };
        let Some(size) = cx.write_beside(&target.path, &partial, work)? else { return Ok(None) };
        Ok(Some(Artifact { id: None, path: target.path.clone(), size }))
    }

    /// An argument that a definition file does not use ends the build, so each is given only where it is used. The lesson
    /// as printed gives the environment under a name that nothing uses.
    fn build_arguments(&self, cx: &Context, request: &BuildRequest, target: &Target) -> Result<Vec<String>> {
        if request.exact {
            let asked = request.environment != "gpu" || request.cuda_version.is_some();
            let cuda = request.cuda_version.as_deref().unwrap_or(crate::pins::CUDA);
            let environment = &request.environment;
            let arguments = vec![format!("CUDA_VERSION={cuda}"), format!("ENVIRONMENT_NAME={environment}")];
            return Ok(if asked { arguments } else { Vec::new() });
        }
        let label =
            |wanted: &str| request.labels.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone());
        let arguments = [
            ("BASE", request.base.clone()),
            ("CUDA_VERSION", request.cuda_version.clone()),
            ("ENVIRONMENT", Some(request.environment.clone())),
            ("TITLE", label("org.opencontainers.image.title")),
            ("VERSION", label("org.opencontainers.image.version")),
            ("SOURCE", label(crate::pins::SOURCE_LABEL)),
        ];
        let recipe = match cx.read_file(&cx.resolve(&target.recipe)) {
            Err(_) if cx.options.dry_run => String::new(),
            text => text?,
        };
        let uses = |name: &str| {
            recipe.match_indices("{{").any(|(at, _)| {
                recipe[at + 2..].trim_start().strip_prefix(name).is_some_and(|rest| rest.trim_start().starts_with("}}"))
            })
        };
        if request.base_typed && !uses("BASE") && !cx.options.dry_run {
            bail!(
                "{} does not use {{{{ BASE }}}}, so --base cannot change its base image\n  hint: write `From: {{{{ BASE }}}}` and a default in %arguments",
                target.recipe
            );
        }
        let used = arguments.into_iter().filter(|(name, _)| uses(name));
        Ok(used.filter_map(|(name, value)| Some(format!("{name}={}", value?))).collect())
    }

    /// Whether the directory for temporary files has room for the unpacked environment: on many clusters /tmp has not.
    fn room(&self, desk: &Desk<'_>, request: &BuildRequest) -> Result<()> {
        let cx = desk.cx;
        if cx.options.dry_run {
            return Ok(());
        }
        let (variable, place) = temporary(cx, self.prefix);
        let Some(plan) = Plan::read(cx, desk.programs, &request.lock, &request.environment)? else { return Ok(()) };
        let needed = plan.download_bytes.saturating_mul(UNPACKED_RATIO).saturating_add(BASE_BYTES);
        let df = cx.look(&CommandLine::new("df").args(["-P", "-k"]).arg(place.display().to_string()));
        let free = df.ok().as_ref().and_then(|output| free_bytes(&output.stdout));
        match free {
            Some(free) if free < needed => bail!(
                "{} has {} free, but building this environment takes about {}\n  hint: {variable}=DIR names a directory with more room",
                place.display(),
                crate::ui::size(free),
                crate::ui::size(needed)
            ),
            _ => Ok(()),
        }
    }
}

/// The fourth column of what `df -P -k` prints below its head (POSIX), in bytes.
pub fn free_bytes(listing: &str) -> Option<u64> {
    let kibibytes: u64 = listing.lines().nth(1)?.split_whitespace().nth(3)?.parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// Where temporary files go, and the variable that says so. `prefix`: what the program's variables begin with.
pub fn temporary(cx: &Context, prefix: &str) -> (String, PathBuf) {
    let variable = format!("{prefix}_TMPDIR");
    let place = cx.env(&variable).or_else(|| cx.env("TMPDIR")).unwrap_or_else(|| "/tmp".into());
    (variable, place)
}

/// Without root, and without Apptainer's own setuid helper, everything rests on user namespaces.
fn forbidden_namespaces(cx: &Context) -> Result<(), String> {
    let helper = ["/usr/libexec/apptainer/bin/starter-suid", "/usr/lib/x86_64-linux-gnu/apptainer/bin/starter-suid"];
    if namespaces::is_root(cx) || helper.iter().any(|path| cx.resolve(path).exists()) {
        return Ok(());
    }
    match namespaces::forbidden(cx) {
        Some(Forbidden { why, mend }) => Err(format!(
            "user namespaces are forbidden here ({why})\n  hint: {mend}, or ask for the package apptainer-suid"
        )),
        None => Ok(()),
    }
}

/// `path`, typed in the directory `inside` instead of the one that holds it.
fn from_within(inside: &str, path: &str) -> String {
    if path.starts_with('/') || inside.starts_with('/') {
        return path.to_owned();
    }
    match path.strip_prefix(inside).and_then(|rest| rest.strip_prefix('/')) {
        Some(rest) => rest.to_owned(),
        None => "../".repeat(inside.split('/').filter(|part| !part.is_empty() && *part != ".").count()) + path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_typed_from_within_the_workspace() {
        assert_eq!(from_within("cuda-exercise", "cuda-exercise/apptainer.def"), "apptainer.def");
        assert_eq!(from_within("a/b", "target/x.sif"), "../../target/x.sif");
        assert_eq!(from_within("/w", "/r/x.sif"), "/r/x.sif");
    }

    #[test]
    fn df_is_read_as_posix_has_it() {
        let listing = "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/x 100 40 60 40% /tmp\n";
        assert_eq!(free_bytes(listing), Some(61_440));
        assert_eq!(free_bytes("df: no\n"), None);
    }
}
