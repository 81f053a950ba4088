//! Docker and Podman: the lesson's Dockerfile, built, checked and run by its own tools.

use anyhow::{Result, bail};

use crate::command_line::CommandLine;
use crate::context::Context;
use crate::engine::{Artifact, BuildRequest, Desk, Engine, Format, Image, Target, TestRequest};
use crate::engines::checks::{self, last_line};
use crate::engines::gpu::Gpu;

/// A program in the manner of `docker`.
pub struct Oci {
    name: &'static str,
    /// What `build` is called there. Docker's classic builder fails at the recipe's last lines, so BuildKit is asked for.
    build: &'static [&'static str],
}

/// Docker with BuildKit.
pub const DOCKER: Oci = Oci { name: "docker", build: &["buildx", "build", "--load"] };
/// Podman.
pub const PODMAN: Oci = Oci { name: "podman", build: &["build"] };

/// What a container's environment has for reasons of its own.
const OF_THE_CONTAINER: [&str; 9] = ["_", "HOME", "HOSTNAME", "PWD", "OLDPWD", "SHLVL", "TERM", "PS1", "container"];

impl Engine for Oci {
    fn name(&self) -> &'static str {
        self.name
    }

    fn formats(&self) -> &'static [Format] {
        &[Format::Docker]
    }

    fn probe(&self, cx: &Context) -> Result<String, String> {
        if !cx.on_path(self.name) {
            return Err("it is not installed".to_owned());
        }
        if self.is_docker() { probe_docker(cx) } else { probe_podman(cx) }
    }

    fn build(&self, desk: &Desk<'_>, request: &BuildRequest) -> Result<Option<Vec<Artifact>>> {
        let mut artifacts = Vec::new();
        for target in &request.outputs {
            artifacts.extend(self.build_one(desk, request, target)?);
        }
        Ok(if desk.cx.options.dry_run { None } else { Some(artifacts) })
    }

    fn test(&self, desk: &Desk<'_>, request: &TestRequest) -> Result<()> {
        self.have(desk.cx, &request.image)?;
        self.check(desk, request)
    }

    fn run(&self, desk: &Desk<'_>, image: &Image, command: &[String], interactive: bool) -> Result<CommandLine> {
        self.have(desk.cx, image)?;
        let mut line = self.container(&[]);
        if interactive {
            line = line.arg("--interactive");
            if desk.cx.has_terminal() {
                line = line.arg("--tty");
            }
        }
        Ok(line.args(self.gpu_options(desk.cx)).arg(&image.reference).args(command))
    }
}

impl Oci {
    fn check(&self, desk: &Desk<'_>, request: &TestRequest) -> Result<()> {
        let run = |words: &[&str]| self.container(&[]).arg(&request.image.reference).args(words.iter().copied());
        let exec = |words: &[&str]| {
            let (program, arguments) = words.split_first().unwrap_or((&"true", &[]));
            let line = self.container(&["--entrypoint", program]);
            line.arg(&request.image.reference).args(arguments.iter().copied())
        };
        checks::check(desk, request, &[("through the entrypoint", &run), ("without it, as `exec`", &exec)])
    }

    fn is_docker(&self) -> bool {
        self.name == DOCKER.name
    }

    fn command<const N: usize>(&self, arguments: [&str; N]) -> CommandLine {
        CommandLine::new(self.name).args(arguments)
    }

    fn container(&self, options: &[&str]) -> CommandLine {
        self.command(["run", "--rm"]).args(options.iter().copied())
    }

    fn build_one(&self, desk: &Desk<'_>, request: &BuildRequest, target: &Target) -> Result<Option<Artifact>> {
        let cx = desk.cx;
        let takes_base = cx.options.dry_run || takes_base(cx, &target.recipe)?;
        if request.base_typed && !takes_base {
            bail!(
                "{} has no `ARG BASE`, so --base cannot change its base image\n  hint: begin it with `ARG BASE=...` and \
                 use `FROM ${{BASE}}`",
                target.recipe
            );
        }
        let line = self.build_command(request, target, takes_base);
        if request.exact {
            cx.execute(&line.option("--tag", &request.reference).arg(&request.workspace))?;
        } else {
            // It gets its name when it was seen to work: what an earlier build left keeps it until then.
            let candidate = format!("{}-untested", request.reference);
            cx.execute(&line.option("--tag", &candidate).arg(&request.workspace))?;
            let works = self.check(desk, &request.test(&target.path, &candidate));
            let named = works.and_then(|()| self.activate_for_exec(cx, request, &candidate));
            let forgotten = cx.ask(&self.command(["image", "rm", &candidate]));
            named?;
            forgotten?;
            for alias in &request.aliases {
                cx.execute(&self.command(["tag", &request.reference, alias]))?;
            }
        }
        self.save(cx, &request.reference, &target.path)
    }

    fn build_command(&self, request: &BuildRequest, target: &Target, takes_base: bool) -> CommandLine {
        let mut line = CommandLine::new(self.name);
        // As printed, the lesson's command takes whatever builder there is.
        line = if request.exact { line.arg("build") } else { line.args(self.build.iter().copied()) };
        if request.loopback {
            // The rehearsal's base keeps its tag when it changes.
            let options: &[&str] =
                if self.is_docker() { &["--pull"] } else { &["--pull-always", "--tls-verify=false"] };
            line = line.option("--network", "host").args(options.iter().copied());
        }
        let base = request.base.clone().filter(|_| takes_base);
        let arguments = [
            ("BASE", base.clone()),
            ("CUDA_VERSION", request.cuda_version.clone()),
            ("ENVIRONMENT", Some(request.environment.clone())),
        ];
        for (name, value) in arguments {
            if let Some(value) = value {
                line = line.option("--build-arg", format!("{name}={value}"));
            }
        }
        let base = base.map(|base| ("org.opencontainers.image.base.name".to_owned(), base));
        for (name, value) in request.labels.iter().chain(&base) {
            line = line.option("--label", format!("{name}={value}"));
        }
        line.option("--file", &target.recipe)
    }

    /// `docker exec` never passes through the entrypoint, so the variables that only activation scripts set become part
    /// of the image's own: they are what a container started through it has and one without it has not.
    fn activate_for_exec(&self, cx: &Context, request: &BuildRequest, candidate: &str) -> Result<()> {
        let through = cx.ask(&self.container(&[]).arg(candidate).args(["env", "-0"]))?;
        let without = cx.ask(&self.container(&["--entrypoint", "env"]).arg(candidate).arg("-0"))?;
        let (Some(through), Some(without)) = (through, without) else {
            return cx.execute(&self.command(["tag", candidate, &request.reference]));
        };
        for output in [&through, &without] {
            if output.code != 0 {
                bail!("the image was built, but nothing runs in it: {}", last_line(output));
            }
        }
        let variables = scripted(&through.stdout, &without.stdout);
        if variables.is_empty() {
            return cx.execute(&self.command(["tag", candidate, &request.reference]));
        }
        let directory = cx.target().join("xtask").join("activated");
        let file = directory.join(format!("{}.Dockerfile", request.reference.replace([':', '/'], "-")));
        cx.publish(&file, dockerfile(candidate, &variables).as_bytes())?;
        cx.ui.note(format_args!("{} variables of activation scripts become the image's own.", variables.len()));
        let line = CommandLine::new(self.name).args(self.build.iter().copied()).option("--file", cx.typed(&file));
        let line = line.option("--tag", &request.reference).arg(cx.typed(&directory));
        cx.execute(&line)
    }

    fn save(&self, cx: &Context, reference: &str, path: &str) -> Result<Option<Artifact>> {
        let partial = format!("{path}.partial");
        let mut line = CommandLine::new(self.name).arg("save");
        if !self.is_docker() {
            line = line.option("--format", "oci-archive");
        }
        let line = line.option("--output", &partial).arg(reference);
        let Some(size) = cx.write_beside(path, &partial, || cx.execute(&line))? else { return Ok(None) };
        let inspected = cx.look(&self.command(["image", "inspect", "--format", "{{.Id}}", reference]));
        let id = inspected.ok().map(|output| output.stdout.trim().to_owned()).filter(|id| !id.is_empty());
        Ok(Some(Artifact { id, path: path.to_owned(), size }))
    }

    /// Loads the image from its file, unless it was built into the store from what is there now.
    fn have(&self, cx: &Context, image: &Image) -> Result<()> {
        let inspect = self.command(["image", "inspect", "--format", "{{.Id}}", &image.reference]);
        if image.built_here && (cx.options.dry_run || cx.look(&inspect).is_ok_and(|output| output.code == 0)) {
            return Ok(());
        }
        let output = cx.ask(&self.command(["load", "--input", &image.path]))?;
        match output {
            Some(output) if output.code != 0 => {
                bail!("{} cannot load {}: {}", self.name, image.path, last_line(&output))
            }
            _ => Ok(()),
        }
    }

    fn gpu_options(&self, cx: &Context) -> Vec<&'static str> {
        let Some(gpu) = Gpu::find(cx) else { return Vec::new() };
        let lacks = |what: &str, mend: &str| {
            cx.ui.announce(format_args!(
                "There is an NVIDIA device, but no {what}: the command runs on the CPU.\n  hint: {mend}"
            ));
            Vec::new()
        };
        match self.is_docker() {
            true if gpu.has_toolkit() || gpu.has_cdi() => vec!["--gpus", "all"],
            true => lacks("NVIDIA Container Toolkit", "install nvidia-container-toolkit and restart Docker"),
            false if gpu.has_cdi() => vec!["--device", "nvidia.com/gpu=all"],
            false => lacks("description of it in /etc/cdi", "`nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml`"),
        }
    }
}

fn probe_docker(cx: &Context) -> Result<String, String> {
    let asked = |words: &[&str]| {
        let output = cx.glance(&CommandLine::new("docker").args(words.iter().copied()));
        output.map_err(|error| error.to_string())
    };
    let version = asked(&["version", "--format", "{{.Server.Version}}"])?;
    if version.code != 0 {
        return Err(format!(
            "its daemon does not answer ({})\n  hint: start Docker, or ask for membership of the group `docker`",
            last_line(&version)
        ));
    }
    let buildx = asked(&["buildx", "version"])?;
    if buildx.code != 0 {
        return Err("it has no BuildKit, without which the recipe fails at its end\n  \
                    hint: install docker-buildx (Debian, Ubuntu) or docker-buildx-plugin (Docker's own packages)"
            .to_owned());
    }
    Ok(format!("{} with BuildKit", version.stdout.trim()))
}

fn probe_podman(cx: &Context) -> Result<String, String> {
    let info = cx.glance(&CommandLine::new("podman").args(["info", "--format", "{{.Version.Version}}"]));
    let info = info.map_err(|error| error.to_string())?;
    match info.code {
        0 => Ok(info.stdout.trim().to_owned()),
        _ => Err(format!("it does not work ({})\n  hint: `podman info` says more", last_line(&info))),
    }
}

/// The variables of the first listing (`env -0`) that the second has not, or otherwise.
fn scripted(through: &str, without: &str) -> Vec<(String, String)> {
    let pairs = |text: &str| -> Vec<(String, String)> {
        let pair = |entry: &str| entry.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
        text.split('\0').filter_map(pair).collect()
    };
    let known = pairs(without);
    let mut new = pairs(through);
    // A Dockerfile has no way to write a line break into a value, and bash's functions are not for other programs.
    new.retain(|pair| !known.contains(pair) && !OF_THE_CONTAINER.contains(&pair.0.as_str()));
    new.retain(|(name, value)| {
        !value.contains('\n') && !name.contains(|c: char| !c.is_ascii_alphanumeric() && c != '_')
    });
    new.sort();
    new
}

/// The image with the variables set, as a Dockerfile.
fn dockerfile(from: &str, variables: &[(String, String)]) -> String {
    let mut text = format!("# What the activation scripts set, for `docker exec`.\nFROM {from}\nENV");
    for (name, value) in variables {
        let quoted: String =
            value.chars().flat_map(|c| "\"\\$".contains(c).then_some('\\').into_iter().chain([c])).collect();
        text += &format!(" \\\n    {name}=\"{quoted}\"");
    }
    text + "\n"
}

/// Whether the recipe takes its base image as an argument.
fn takes_base(cx: &Context, recipe: &str) -> Result<bool> {
    let text = cx.read_file(&cx.resolve(recipe))?;
    Ok(text.lines().any(|line| line.trim_start().starts_with("ARG BASE")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_scripts_set_becomes_a_dockerfile() {
        let through = "PATH=/e/bin:/bin\0HOME=/root\0A=a \"b\" $c \\\0SHLVL=1\0NL=a\nb\0BASH_FUNC_x%%=() {\0";
        let variables = scripted(through, "PATH=/e/bin:/bin\0HOME=/\0");
        assert_eq!(variables, [("A".to_owned(), "a \"b\" $c \\".to_owned())]);
        assert!(dockerfile("x:y", &variables).ends_with("FROM x:y\nENV \\\n    A=\"a \\\"b\\\" \\$c \\\\\"\n"));
    }
}
