//! `pixi-image test`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use super::run::Container;

/// Check an image: environment complete, activation present, command runs.
///
/// Says what holds and what does not, one line each, on stderr; the command's own output goes through.
#[derive(clap::Args)]
pub struct Test {
    #[command(flatten)]
    container: Container,
    /// The lock that the image was built from
    #[arg(long, value_name = "FILE", default_value = "pixi.lock")]
    lock: PathBuf,
    /// The environment of the image
    #[arg(long, value_name = "NAME", default_value = "default")]
    environment: String,
    /// A platform of the lock: a conda subdir or the name of a row
    #[arg(long, value_name = "NAME", default_value = "linux-64")]
    platform: String,
    /// A command that must succeed in the image
    #[arg(last = true, value_name = "CMD")]
    command: Vec<OsString>,
}

#[cfg(target_os = "linux")]
impl Test {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        linux::run(self)
    }
}

#[cfg(not(target_os = "linux"))]
impl Test {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        anyhow::bail!("images run on Linux only\n  hint: load the image into docker or podman")
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::ffi::OsString;
    use std::process::{Command, ExitCode, Stdio};

    use anyhow::Context;
    use pixi_image::lock;
    use pixi_image::model::{Environment, Prefix};
    use pixi_image::runner::complete::{Found, check};
    use pixi_image::runner::root::Root;
    use pixi_image::runner::rootfs;

    use super::Test;
    use crate::commands::report::Lines;

    /// How many missing files are named.
    const SHOWN: usize = 10;
    /// Prints CONDA_PREFIX, PATH and the prefix of the Python that runs.
    const PYTHON: &str =
        "import os, sys; print(os.environ.get('CONDA_PREFIX'), os.environ.get('PATH'), sys.prefix, sep='\\n')";
    /// The same but for Python.
    const SHELL: &str = r#"printf '%s\n' "$CONDA_PREFIX" "$PATH""#;

    /// What a check says when it holds, or what is wrong.
    type Verdict = Result<String, String>;

    pub fn run(test: Test) -> anyhow::Result<ExitCode> {
        let environment = lock::read(&test.lock, &test.environment, &test.platform)?;
        let prefix = Prefix::of_environment(&environment.name);
        let (image, cache, arguments) = test.container.into_arguments()?;
        let rootfs = rootfs::prepare(&image, cache.root(), &Lines)?;
        let root = Root::open(&rootfs.path).with_context(|| format!("cannot open {}", rootfs.path.display()))?;
        // This program again: each process can enter a container once.
        let program = std::env::current_exe().context("cannot find this program")?;
        let run = || {
            let mut command = Command::new(&program);
            command.args(&arguments);
            command
        };
        let mut holds = say(completeness(&check(&root, &environment, &prefix), &environment, &prefix));
        holds &= say(activation(run(), &environment, &prefix, root.has_file("bin/sh"))?);
        if !test.command.is_empty() {
            holds &= say(succeeds(run(), &test.command)?);
        }
        Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    /// Prints a verdict and gives whether it is good.
    fn say(verdict: Verdict) -> bool {
        match &verdict {
            Ok(text) => eprintln!("ok: {text}"),
            Err(text) => eprintln!("failed: {text}"),
        }
        verdict.is_ok()
    }

    fn completeness(found: &Found, environment: &Environment, prefix: &Prefix) -> Verdict {
        let Found { files, missing } = found;
        let (packages, place) = (environment.packages.len(), prefix.as_str());
        if missing.is_empty() {
            return Ok(format!("{packages} packages with {files} files are in {place}"));
        }
        let mut text = format!("of {packages} packages with {files} files, {} are missing:", missing.len());
        for line in missing.iter().take(SHOWN) {
            text += &format!("\n  {line}");
        }
        if missing.len() > SHOWN {
            text += &format!("\n  and {} more", missing.len() - SHOWN);
        }
        Err(text + "\n  hint: the image was not built from this lock, or not completely; build it again")
    }

    fn activation(
        mut run: Command,
        environment: &Environment,
        prefix: &Prefix,
        has_shell: bool,
    ) -> anyhow::Result<Verdict> {
        let has_python = environment.python().is_some();
        let probe: &[&str] = match (has_python, has_shell) {
            (true, _) => &["python", "-c", PYTHON],
            (false, true) => &["/bin/sh", "-c", SHELL],
            (false, false) => {
                return Ok(Ok("the activation was not tried: the image has neither a shell nor Python".into()));
            }
        };
        let output = run.args(probe).stderr(Stdio::inherit()).output().context("cannot start the runner")?;
        let text = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            return Ok(Err(format!("the activation cannot be read: `{}` ended with {}", probe[0], output.status)));
        }
        let mut lines = text.lines().rev().take(if has_python { 3 } else { 2 }).collect::<Vec<_>>();
        lines.reverse(); // an entrypoint may have said something before
        let (place, bin) = (prefix.as_str(), format!("{}/bin", prefix.as_str()));
        let first = lines.get(1).and_then(|path| path.split(':').next());
        let wrong = |what: &str, wanted: &str, got: Option<&str>| {
            Ok(Err(format!(
                "the environment is not activated: {what} is `{}`, expected `{wanted}`",
                got.unwrap_or("nothing")
            )))
        };
        if lines.first() != Some(&place) {
            return wrong("CONDA_PREFIX", place, lines.first().copied());
        }
        if first != Some(&bin) {
            return wrong("the first directory of PATH", &bin, first);
        }
        if has_python && lines.get(2) != Some(&place) {
            return wrong("the prefix of `python`", place, lines.get(2).copied());
        }
        Ok(Ok(format!("{place} is activated{}", if has_python { ", and `python` is its own" } else { "" })))
    }

    fn succeeds(mut run: Command, command: &[OsString]) -> anyhow::Result<Verdict> {
        let status = run.args(command).status().context("cannot start the runner")?;
        let words: Vec<_> = command.iter().map(|word| word.to_string_lossy()).collect();
        Ok(match status.success() {
            true => Ok(format!("`{}` succeeded", words.join(" "))),
            false => Err(format!("`{}` ended with {status}", words.join(" "))),
        })
    }
}
