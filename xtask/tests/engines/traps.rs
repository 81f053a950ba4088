//! The traps of the lesson's recipe that show in a finished image: the same look at what the recipe as printed made and
//! at what ours made. It must show the trap in the first, or what `explain traps` says would not be so, and see it mended
//! in the second. The numbers are those of `cargo xtask explain traps`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};

use super::command::{Outcome, command, run, run_with_input};
use super::lesson::{Lesson, Recipe};
use super::oci::DOCKER;

/// What one look at an image or a build showed.
#[derive(PartialEq, Eq)]
pub enum Seen {
    Trap,
    Mended,
}

/// Demands the trap of the recipe as printed and its absence of ours.
///
/// # Errors
/// When it is otherwise, or a look fails.
pub fn compare(look: impl Fn(Recipe) -> anyhow::Result<Seen>) -> anyhow::Result<()> {
    let exact = look(Recipe::Exact).context("the recipe as printed")?;
    ensure!(exact == Seen::Trap, "the recipe as printed does not show the trap");
    let ours = look(Recipe::Ours).context("our recipe")?;
    ensure!(ours == Seen::Mended, "our recipe shows the trap");
    Ok(())
}

/// What `outcome` shows: exactly one of the two must hold, for a failure of another kind proves neither.
///
/// # Errors
/// With the whole outcome, when both or none of them hold.
pub fn judge(outcome: &Outcome, trap: bool, mended: bool) -> anyhow::Result<Seen> {
    match (trap, mended) {
        (true, false) => Ok(Seen::Trap),
        (false, true) => Ok(Seen::Mended),
        _ => bail!("neither the trap nor its mend{}", outcome.transcript()),
    }
}

/// Two texts, one of which an outcome must hold: the trap's and the mend's.
type Words = (&'static str, &'static str);

fn by_words((trap, mended): Words) -> impl Fn(&Outcome) -> anyhow::Result<Seen> {
    move |outcome| judge(outcome, outcome.both().contains(trap), outcome.both().contains(mended))
}

/// The look at a container that Docker runs.
fn docker(
    lesson: &Lesson,
    options: &[&str],
    arguments: &[&str],
    verdict: impl Fn(&Outcome) -> anyhow::Result<Seen>,
) -> anyhow::Result<()> {
    let look = |recipe| verdict(&run(lesson.stored(DOCKER, recipe)?.image.container(options, arguments))?);
    compare(look).with_context(|| format!("docker run {} IMAGE {}", options.join(" "), arguments.join(" ")))
}

/// The look at what Apptainer does with a SIF: `apptainer BEFORE... SIF AFTER...`.
fn apptainer(
    lesson: &Lesson,
    before: &[&str],
    after: &[&str],
    verdict: impl Fn(&Outcome) -> anyhow::Result<Seen>,
) -> anyhow::Result<()> {
    let look = |recipe| verdict(&run(apptainer_command(lesson, recipe, before, after)?)?);
    compare(look).with_context(|| format!("apptainer {} SIF {}", before.join(" "), after.join(" ")))
}

fn apptainer_command(lesson: &Lesson, recipe: Recipe, before: &[&str], after: &[&str]) -> anyhow::Result<Command> {
    let mut command = command!("apptainer", "--quiet");
    command.args(before).arg(lesson.sif(recipe)?).args(after).current_dir("/");
    Ok(lesson.with_apptainer(&command))
}

/// A container without a command ends silently and well.
pub fn t04_docker(lesson: &Lesson) -> anyhow::Result<()> {
    docker(lesson, &[], &[], no_command)
}

/// The same in Apptainer.
pub fn t04_apptainer(lesson: &Lesson) -> anyhow::Result<()> {
    apptainer(lesson, &["run"], &[], no_command)
}

fn no_command(outcome: &Outcome) -> anyhow::Result<Seen> {
    let silent = outcome.both().trim().is_empty();
    judge(outcome, outcome.code == Some(0) && silent, outcome.code == Some(64) && outcome.both().contains("usage:"))
}

/// Only `apptainer run` activates the environment.
pub fn t05(lesson: &Lesson) -> anyhow::Result<()> {
    let words = ("not found", "Python 3.");
    apptainer(lesson, &["exec"], &["python", "--version"], by_words(words))?;
    apptainer(lesson, &["exec"], &["sh", "-c", "python --version"], by_words(words))?;
    let shell = |recipe| {
        let typed = run_with_input(apptainer_command(lesson, recipe, &["shell"], &[])?, "python --version\n")?;
        by_words(words)(&typed)
    };
    compare(shell).context("apptainer shell SIF")
}

/// `pixi` in the container asks for a GPU where there is none.
pub fn t08_docker(lesson: &Lesson) -> anyhow::Result<()> {
    for command in [&["pixi", "list"][..], &["pixi", "run", "python", "--version"]] {
        let arguments = [command, &[]].concat();
        docker(lesson, &[], &arguments, |outcome| {
            let lacks = outcome.code == Some(1) && outcome.both().contains("__cuda");
            judge(outcome, lacks, outcome.code == Some(0))
        })?;
    }
    Ok(())
}

/// What lies in the caller's `~/.local` becomes a part of the environment.
pub fn t14(lesson: &Lesson) -> anyhow::Result<()> {
    let home = place(lesson, "t14-home")?;
    let version = "import sys; print('%d.%d' % sys.version_info[:2])";
    let asked = run(lesson.stored(DOCKER, Recipe::Ours)?.image.container(&[], &["python", "-c", version]))?.exits(0)?;
    write(&home, &format!(".local/lib/python{}/site-packages/stray.py", asked.stdout.trim()), "print('strayed in')\n")?;
    lesson.checkout().user.own(&home)?;
    let words = ("strayed in", "No module named 'stray'");
    let home = home.to_str().context("temporary directories have UTF-8 names")?;
    let import = ["python", "-c", "import stray"];
    let volume = format!("{home}:/home/me");
    docker(lesson, &["--volume", &volume, "--env", "HOME=/home/me"], &import, by_words(words))?;
    apptainer(lesson, &["run", "--home", &volume], &import, by_words(words))
}

/// What does not pass through the entrypoint, as `docker exec`, is not in the environment.
pub fn t15(lesson: &Lesson) -> anyhow::Result<()> {
    let words = ("executable file not found", "it works");
    docker(lesson, &["--entrypoint", "python"], &["-c", "import torch; print('it works')"], by_words(words))
}

/// The PATH of the build replaces that of the container.
pub fn t17(lesson: &Lesson) -> anyhow::Result<()> {
    let path = |outcome: &Outcome| {
        let path = outcome.stdout.trim();
        judge(outcome, !path.contains("/mine"), path == "/app/.pixi/envs/gpu/bin:/mine:/usr/bin:/bin")
    };
    docker(lesson, &["--env", "PATH=/mine:/usr/bin:/bin"], &["printenv", "PATH"], path)?;
    apptainer(lesson, &["run", "--env", "PATH=/mine:/usr/bin:/bin"], &["printenv", "PATH"], path)
}

/// Another user than root cannot read which packages there are.
pub fn t19(lesson: &Lesson) -> anyhow::Result<()> {
    let read = ["sh", "-c", "cat /app/.pixi/envs/gpu/conda-meta/*.json >/dev/null"];
    docker(lesson, &["--user", "12345:12345"], &read, |outcome| {
        judge(outcome, outcome.both().contains("Permission denied"), outcome.code == Some(0))
    })
}

/// `pixi` prefers the project of the current directory to the image's. Nothing in an image changes that; ours lets pixi
/// say so, and find the image's project from every other directory.
pub fn t20(lesson: &Lesson) -> anyhow::Result<()> {
    let project = place(lesson, "t20-project")?;
    for name in ["pixi.toml", "pixi.lock"] {
        std::fs::copy(lesson.workspace().join(name), project.join(name)).with_context(|| format!("copy {name}"))?;
    }
    let python = write(&project, ".pixi/envs/gpu/bin/python", "#!/bin/sh\necho local\n")?;
    run(command!("chmod", "755", python))?.exits(0)?;
    lesson.checkout().user.own(&project)?;
    let volume = format!("{}:/project", project.display());
    let words = ["run", "--as-is", "--environment", "gpu", "python", "--version"];
    let silent = |outcome: &Outcome| {
        let (local, said) = (outcome.stdout.contains("local"), outcome.both().contains("Using local manifest"));
        judge(outcome, local && !said, local && said)
    };
    let options = ["--entrypoint", "pixi", "--volume", &volume, "--workdir", "/project"];
    docker(lesson, &[&options[..], &["--env", "CONDA_OVERRIDE_CUDA=12"]].concat(), &words, silent)?;
    let in_sif = [&["pixi"], &words[..]].concat();
    apptainer(lesson, &["exec", "--bind", &volume, "--pwd", "/project"], &in_sif, silent)?;
    let elsewhere = by_words(("could not find pixi.toml", "Python 3."));
    docker(lesson, &["--entrypoint", "pixi", "--workdir", "/tmp"], &words, &elsewhere)?;
    apptainer(lesson, &["exec", "--pwd", "/tmp"], &in_sif, elsewhere)
}

/// Apptainer reads what shall be active in `exec` with a shell that is not bash. The lesson's image has nothing to read
/// there; so a script of a package stands where T05 would be mended first, and in ours where activation scripts are read.
pub fn t21(lesson: &Lesson) -> anyhow::Result<()> {
    const SCRIPT: &str =
        "export TRAP=\"shell ${BASH_VERSION:+bash}, place ${BASH_SOURCE[0]:+known}\"\nexport TRAP=\"$TRAP.\"\n";
    let script = write(&place(lesson, "t21-script")?, "activate.sh", SCRIPT)?;
    let look = |recipe| {
        let read_at =
            if recipe == Recipe::Exact { "/.singularity.d/env/90-environment.sh" } else { "/app/activate.sh" };
        let bind = format!("{}:{read_at}", script.display());
        let said = run(apptainer_command(lesson, recipe, &["exec", "--bind", &bind], &["printenv", "TRAP"])?)?;
        by_words(("shell , place .", "shell bash, place known."))(&said)
    };
    compare(look)
}

/// A new directory for one trap, in sight of Apptainer and open to everybody.
fn place(lesson: &Lesson, name: &str) -> anyhow::Result<PathBuf> {
    let place = lesson.checkout().path("target").join(name);
    std::fs::create_dir(&place).with_context(|| format!("make {}", place.display()))?;
    Ok(place)
}

/// Writes a file below `directory` and returns its place.
pub fn write(directory: &Path, name: &str, text: &str) -> anyhow::Result<PathBuf> {
    let path = directory.join(name);
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).with_context(|| format!("make {}", parent.display()))?;
    }
    std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}
