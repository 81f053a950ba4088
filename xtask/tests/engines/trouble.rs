//! What goes wrong around the lesson's engines: said before any work, with a way out, and nothing half built.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use tempfile::TempDir;

use super::command::{Outcome, command, read, run, shell, wrap};
use super::lesson::Lesson;
use super::oci::{DOCKER, Engine, PODMAN};

/// What a client of Docker says that it has nobody to talk to.
const NO_DAEMON: (&str, &str) = ("DOCKER_HOST", "unix:///nonexistent/docker.sock");

/// Docker's client without its daemon.
pub fn dead_daemon(lesson: &Lesson, scratch: &TempDir) -> anyhow::Result<()> {
    let mut build = lesson.xtask(&["build", "docker", "--engine", "docker"]);
    build.env(NO_DAEMON.0, NO_DAEMON.1);
    refuses(lesson, build, "its daemon does not answer")?;
    // Another engine takes over, and one line says which and why.
    let mut choice = choice(lesson, "docker");
    choice.env(NO_DAEMON.0, NO_DAEMON.1);
    if PODMAN.works() {
        takes_over(&choice, "Engine for docker: podman ", "docker: its daemon does not answer")?;
    }
    std::os::unix::fs::symlink(program("docker")?, scratch.path().join("docker")).context("link to docker")?;
    choice.env("PATH", scratch.path());
    takes_over(&choice, "Engine for docker: native ", "docker: its daemon does not answer")
}

/// Docker without BuildKit's client, whatever directory it lies in.
pub fn no_buildx(lesson: &Lesson, scratch: &TempDir) -> anyhow::Result<()> {
    const HIDE: &str = r#"
        for place in /usr/local/lib /usr/local/libexec /usr/lib /usr/libexec; do
            if [ -d "$place/docker/cli-plugins" ]; then mount -t tmpfs tmpfs "$place/docker/cli-plugins"; fi
        done
        exec "$@""#;
    let hidden = |mut command: Command| {
        command.env("DOCKER_CONFIG", scratch.path());
        wrap(in_private_mounts(HIDE, &[]), &command)
    };
    refuses(lesson, hidden(lesson.xtask(&["build", "docker", "--engine", "docker"])), "it has no BuildKit")?;
    let other = if PODMAN.works() { "podman" } else { "native" };
    let engine = format!("Engine for docker: {other} ");
    takes_over(&hidden(choice(lesson, "docker")), &engine, "docker: it has no BuildKit")
}

/// Apptainer for an ordinary user whom the kernel gives no namespaces.
pub fn no_namespaces(lesson: &Lesson) -> anyhow::Result<()> {
    // The limit of a namespace of our own; the user in it is still an ordinary one.
    const FORBID: &str = "echo 0 >/proc/sys/user/max_user_namespaces && exec setpriv --ambient-caps=-all \"$@\"";
    let forbidden = |command: Command| {
        let mut outer = command!("unshare", "--user", "--map-current-user", "--keep-caps", "--");
        let inner = shell(FORBID, std::iter::empty::<&str>());
        outer.arg(inner.get_program()).args(inner.get_args());
        lesson.with_apptainer(&wrap(outer, &command))
    };
    let build = lesson.xtask(&["build", "apptainer", "--engine", "apptainer"]);
    refuses(lesson, forbidden(build), "user namespaces are forbidden here")?;
    let reason = "apptainer: user namespaces are forbidden here";
    takes_over(&forbidden(choice(lesson, "apptainer")), "Engine for apptainer: native ", reason)
}

/// Apptainer with too little room for the files that it makes on its way.
pub fn little_room(lesson: &Lesson) -> anyhow::Result<()> {
    let full = lesson.checkout().path("full");
    std::fs::create_dir(&full).context("make a directory for temporary files")?;
    lesson.checkout().user.own(&full)?;
    let mut build = lesson.xtask(&["build", "apptainer", "--engine", "apptainer"]);
    build.env("APPTAINER_TMPDIR", &full);
    // Mounted inside of the clone, so that it is seen wherever the clone is.
    let fill = "mount -t tmpfs -o size=16m,mode=1777 tmpfs \"$1\"; shift; exec \"$@\"";
    let said = refuses(
        lesson,
        wrap(in_private_mounts(fill, &[&full]), &lesson.with_apptainer(&build)),
        "but building this environment takes about",
    )?;
    said.says("hint: APPTAINER_TMPDIR=DIR names a directory with more room")?;
    Ok(())
}

/// The options for a GPU: on a made-up machine that has one, and on one that has not.
pub fn gpu(lesson: &Lesson, engine: Engine, scratch: &TempDir) -> anyhow::Result<()> {
    let shown = |tree: &str| {
        let mut line = lesson.xtask(&["run", "docker", "--engine", engine.0, "--dry-run"]);
        line.env("XTASK_DEVICE_TREE", scratch.path().join(tree));
        run(line)?.exits(0)
    };
    devices(scratch.path())?;
    let (option, complaint) = match engine.0 {
        "docker" => (" --gpus all ", "no NVIDIA Container Toolkit: the command runs on the CPU"),
        _ => (" --device nvidia.com/gpu=all ", "no description of it in /etc/cdi: the command runs on the CPU"),
    };
    shown("whole")?.says(option)?.never_says("on the CPU")?;
    shown("bare")?.says(complaint)?.says("hint: ")?.never_says(option)?;
    no_device(shown("none")?, option)
}

/// The same of Apptainer, which needs nothing but the driver.
pub fn gpu_in_apptainer(lesson: &Lesson) -> anyhow::Result<()> {
    // Where the wrapped program sees it.
    let trees = lesson.checkout().path("trees");
    std::fs::create_dir(&trees).with_context(|| format!("make {}", trees.display()))?;
    devices(&trees)?;
    let shown = |tree: &str| {
        let mut line = lesson.xtask(&["run", "apptainer", "--engine", "apptainer", "--dry-run"]);
        line.env("XTASK_DEVICE_TREE", trees.join(tree));
        run(lesson.with_apptainer(&line))?.exits(0)
    };
    for tree in ["whole", "bare"] {
        shown(tree)?.says("apptainer run --nv ")?.never_says("on the CPU")?;
    }
    no_device(shown("none")?, " --nv ")
}

fn no_device(said: Outcome, option: &str) -> anyhow::Result<()> {
    let said = said.never_says(option)?;
    let lines = said.both().matches("No NVIDIA device here: the command runs on the CPU.").count();
    ensure!(lines == 1, "{lines} lines say that there is no device:\n{}", said.both());
    Ok(())
}

/// A machine with a device and what containers need to be given it, one with the device alone, one with neither.
fn devices(place: &Path) -> anyhow::Result<()> {
    for file in [
        "whole/dev/nvidia0",
        "whole/usr/bin/nvidia-container-runtime-hook",
        "whole/etc/cdi/nvidia.yaml",
        "bare/dev/nvidia0",
        "none/dev/nvidiactl",
    ] {
        let path = place.join(file);
        let made = path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| std::fs::write(&path, ""));
        made.with_context(|| format!("write {}", path.display()))?;
    }
    read(command!("chmod", "--recursive", "a+rX", place)).map(drop)
}

/// Runs a build that must end with what is wrong, a hint, and nothing new.
fn refuses(lesson: &Lesson, build: Command, reason: &str) -> anyhow::Result<Outcome> {
    let _building = lesson.building();
    let containers = lesson.checkout().path("target/containers");
    let before = (names(&containers), stored());
    let said = run(build)?.exits(1)?.says(reason)?.says("hint: ")?;
    ensure!(before == (names(&containers), stored()), "the build left something behind:\n{}", said.both());
    for work in ["buildx build", "podman build", "apptainer build --force"] {
        ensure!(!said.both().contains(work), "work was begun:\n{}", said.both());
    }
    Ok(said)
}

/// A command that chooses an engine and then finds that there is nothing to do it with: no image of that environment.
fn choice(lesson: &Lesson, format: &str) -> Command {
    lesson.xtask(&["test", format, "--engine", "auto", "--env", "cpu"])
}

fn takes_over(choice: &Command, engine: &str, reason: &str) -> anyhow::Result<()> {
    let said = run(wrap(command!("/usr/bin/env"), choice))?.exits(1)?;
    let line = said.stderr.lines().find(|line| line.starts_with(engine));
    let line = line.with_context(|| format!("no line begins with `{engine}`:\n{}", said.stderr))?;
    ensure!(line.contains(reason), "the line does not say `{reason}`: {line}");
    Ok(())
}

/// The names in a directory, in order.
fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The candidates in Docker's store, which a build that fails must not leave there.
fn stored() -> bool {
    let list = run(command!(DOCKER.0, "image", "ls", "--quiet", "cuda-exercise:*-untested"));
    list.is_ok_and(|list| !list.stdout.trim().is_empty())
}

/// A shell script with `arguments` as `$1` and so on, in a mount namespace of its own; the program to run follows.
fn in_private_mounts(script: &str, arguments: &[&Path]) -> Command {
    let inner = shell(script, arguments);
    let mut outer = command!("unshare", "--mount", "--propagation", "private", "--");
    outer.arg(inner.get_program()).args(inner.get_args());
    outer
}

fn program(name: &str) -> anyhow::Result<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|directory| directory.join(name)).find(|path| path.is_file());
    found.with_context(|| format!("{name} is on PATH"))
}
