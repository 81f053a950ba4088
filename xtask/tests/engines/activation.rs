//! The environment is active in every way into a container, and the same in all of them.

use std::path::Path;

use anyhow::Context as _;
use tempfile::TempDir;

use super::apptainer::{Apptainer, as_user};
use super::command::{Outcome, command, read, run, shell};
use super::oci::Loaded;
use super::probe::{self, Findings};
use super::terminal;

/// The user of whom neither image nor machine knows anything.
const STRANGER: &str = "12345:12345";

/// A program that does nothing for as long as it is let.
const IDLE: &[&str] = &["python", "-c", "import signal; signal.pause()"];

/// T20: pixi prefers the workspace of the current directory, whatever it is told by variables. It must not do so silently,
/// as it does where the environment is not active.
const OTHER_WORKSPACE: &str = "Using local manifest ";

/// A container in the background; it ends with this value.
struct Idle<'a> {
    engine: &'a str,
    id: String,
}

impl<'a> Idle<'a> {
    fn start(image: &'a Loaded, options: &[&str]) -> anyhow::Result<Self> {
        let mut start = command!(image.engine.0, "run", "--detach", "--network", "none");
        start.args(options).arg(&image.reference).args(IDLE);
        Ok(Self { engine: image.engine.0, id: read(start)?.trim().to_owned() })
    }

    fn exec(&self, options: &[&str], words: &[&str]) -> anyhow::Result<Outcome> {
        let mut exec = command!(self.engine, "exec");
        exec.args(options).arg(&self.id).args(words);
        run(exec)
    }
}

impl Drop for Idle<'_> {
    fn drop(&mut self) {
        let _ = run(command!(self.engine, "rm", "--force", &self.id));
    }
}

/// The ways of Docker and Podman into an image.
pub fn oci(image: &Loaded, scratch: &TempDir) -> anyhow::Result<()> {
    let words = probe::words();
    probe::lay_traps(scratch.path())?;
    open(scratch.path())?;
    let mount = |name: &str| format!("{}:/{name}:ro", scratch.path().join(name).display());
    let (home, other) = (mount("home"), mount("other"));
    let mut findings = Findings::default();

    findings.add("run", run(image.container(&[], &words))?)?;
    run(image.container(&[], &["python", "-c", "import torch; print(torch.__version__)"]))?.exits(0)?.quiet()?;
    let idle = Idle::start(image, &[])?;
    findings.add("exec", idle.exec(&[], &words)?)?;
    findings.add("exec as somebody else", idle.exec(&["--user", STRANGER, "--env", "HOME="], &words)?)?;
    drop(idle);

    let nobody = ["--read-only", "--user", STRANGER, "--env", "HOME=/nonexistent"];
    findings.add("run, read-only, without a home", run(image.container(&nobody, &words))?)?;
    let trapped =
        ["--read-only", "--user", STRANGER, "-v", &home, "-v", &other, "--env", "HOME=/home", "--workdir", "/other"];
    findings.add("run among traps", run(image.container(&trapped, &words))?)?;
    let idle = Idle::start(image, &trapped)?;
    findings.add("exec among traps", idle.exec(&[], &words)?)?;
    if idle.exec(&[], &["sh", "-c", "command -v pixi"])?.succeeded() {
        idle.exec(&[], &["pixi", "info"])?.exits(0)?.says(OTHER_WORKSPACE)?;
    }
    drop(idle);

    run(image.container(&[], &[]))?.exits(64)?.complains("usage: ")?;
    terminal::shell(&image.container(&["--interactive", "--tty"], &[]))
}

/// Whoever the container's user is reads what lies in `directory`.
fn open(directory: &Path) -> anyhow::Result<()> {
    read(command!("chmod", "--recursive", "a+rX", directory)).map(drop)
}

/// Goes every way into a SIF and keeps what each said and how it ended: `SIF OUT PROBE TRAPS TYPED WORD...`. One program,
/// since an instance can only be entered from where it was started.
const WAYS: &str = r#"
    sif=$1 out=$2 probe=$3 traps=$4 typed=$5
    shift 5
    way() {
        name=$1 code=0
        shift
        "$@" >"$out/$name.out" 2>"$out/$name.err" || code=$?
        echo "$code" >"$out/$name.code"
    }
    cd /
    way run apptainer run "$sif" "$@"
    way exec apptainer exec "$sif" "$@"
    way exec-sh apptainer exec "$sif" sh -c '"$@"' sh "$@"
    way shell apptainer shell "$sif" <"$typed"
    way test apptainer test --bind "$probe:/.singularity.d/test" "$sif" "$@"
    way own-test apptainer test "$sif"
    apptainer instance start "$sif" lesson >/dev/null 2>&1
    way instance apptainer exec instance://lesson "$@"
    way instance-run apptainer run instance://lesson "$@"
    apptainer instance stop lesson >/dev/null 2>&1

    way no-home env -u HOME apptainer run --no-home "$sif" "$@"
    way contained apptainer exec --containall --cleanenv --no-home --pwd / "$sif" "$@"
    cd "$traps/other"
    way traps-run apptainer run --home "$traps/home" "$sif" "$@"
    way traps-exec apptainer exec --home "$traps/home" "$sif" "$@"
    way pixi apptainer exec "$sif" sh -c 'command -v pixi'
    way pixi-info apptainer exec "$sif" pixi info
    export CONDA_PREFIX=/opt/host CONDA_DEFAULT_ENV=host CONDA_SHLVL=3 PIXI_PROJECT_MANIFEST=/opt/host/pixi.toml
    export PIXI_ENVIRONMENT_NAME=host PATH=/opt/host/bin:$PATH LD_LIBRARY_PATH=/opt/host/lib REHEARSAL_ACTIVATED=host
    way host-run apptainer run "$sif" "$@"
    way host-exec apptainer exec "$sif" "$@"
"#;

/// The ways of Apptainer into an image.
pub fn sif(image: &Apptainer<'_>, scratch: &TempDir) -> anyhow::Result<()> {
    let place = |name: &str| scratch.path().join(name);
    std::fs::create_dir(place("out")).context("make a directory for the outputs")?;
    std::fs::write(place("typed"), probe::typed()).context("write what is typed")?;
    // Apptainer runs the image's test as this file, with the words after the image as its arguments.
    std::fs::write(place("probe"), "#!/bin/sh\nexec \"$@\"\n").context("write the probe")?;
    read(command!("chmod", "755", scratch.path(), place("probe")))?;
    probe::lay_traps(&place("traps"))?;
    image.user.own(scratch.path())?;

    let directories: Vec<&Path> = image.sif.parent().into_iter().chain([scratch.path()]).collect();
    let mut ways = shell(WAYS, [image.sif, &place("out"), &place("probe"), &place("traps"), &place("typed")]);
    ways.args(probe::words()).current_dir("/");
    run(as_user(image.user, &directories, &ways))?.exits(0)?;

    let said = |way: &str| Outcome::written(&place("out"), way).map(without_notes);
    let mut findings = Findings::default();
    for way in ["run", "exec", "exec-sh", "shell", "test", "instance", "instance-run", "no-home", "contained"] {
        findings.add(way, said(way)?)?;
    }
    for way in ["traps-run", "traps-exec", "host-run", "host-exec"] {
        findings.add(way, said(way)?)?;
    }
    said("own-test")?.exits(0)?.quiet()?;
    if said("pixi")?.succeeded() {
        said("pixi-info")?.exits(0)?.says(OTHER_WORKSPACE)?;
    }
    run(image.command(&["run"], &[])).map(without_notes)?.exits(64)?.complains("usage: ")?;
    terminal::shell(&image.command(&["run"], &[]))
}

/// Without what Apptainer says about programs that this machine has not.
fn without_notes(mut outcome: Outcome) -> Outcome {
    let note = |line: &str| {
        let said = line.strip_prefix("INFO:").map_or("", str::trim_start);
        ["fuse2fs", "gocryptfs", "fuse-overlayfs", "squashfuse"].iter().any(|name| said.starts_with(name))
    };
    let kept: Vec<&str> = outcome.stderr.lines().filter(|line| !note(line)).collect();
    outcome.stderr = kept.join("\n");
    outcome
}
