//! Programs as the tests start them: no terminal, everything captured, failures that tell the whole story.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, bail, ensure};

/// A program and its arguments; each element may be a string or a path.
macro_rules! command {
    ($program:expr $(, $argument:expr)* $(,)?) => {{
        #[allow(unused_mut)]
        let mut command = std::process::Command::new($program);
        $(command.arg($argument);)*
        command
    }};
}
pub(crate) use command;

/// What a program that ended said.
pub struct Outcome {
    command: String,
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Starts `command`, waits for it and keeps what it printed.
///
/// # Errors
/// When it cannot be started; how it ended is for the caller to judge.
pub fn run(command: Command) -> anyhow::Result<Outcome> {
    run_with_input(command, "")
}

/// Like [`run`], with `input` on standard input.
///
/// # Errors
/// As for [`run`].
pub fn run_with_input(mut command: Command, input: &str) -> anyhow::Result<Outcome> {
    let line = display(&command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("start {line}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read its input is no failure. The inputs are short: no pipe fills up.
        let _ = stdin.write_all(input.as_bytes());
    }
    let Output { status, stdout, stderr } = child.wait_with_output().with_context(|| format!("wait for {line}"))?;
    Ok(Outcome {
        command: line,
        code: status.code(),
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
    })
}

/// Runs `command` and returns its standard output.
///
/// # Errors
/// When it cannot be started or does not exit with 0.
pub fn read(command: Command) -> anyhow::Result<String> {
    Ok(run(command)?.exits(0)?.stdout)
}

impl Outcome {
    /// The outcome itself, if the exit code was `code`.
    pub fn exits(self, code: i32) -> anyhow::Result<Self> {
        if self.code == Some(code) {
            return Ok(self);
        }
        let ended = self.code.map_or("a signal".to_owned(), |code| code.to_string());
        bail!("exit code {ended} where {code} was expected{}", self.transcript())
    }

    /// The outcome itself, if standard output or error holds `text`.
    pub fn says(self, text: &str) -> anyhow::Result<Self> {
        ensure!(self.both().contains(text), "`{text}` is nowhere in the output{}", self.transcript());
        Ok(self)
    }

    /// The outcome itself, if neither standard output nor error holds `text`.
    pub fn never_says(self, text: &str) -> anyhow::Result<Self> {
        ensure!(!self.both().contains(text), "`{text}` is in the output{}", self.transcript());
        Ok(self)
    }

    /// What a shell script kept of a program: `NAME.out`, `NAME.err` and `NAME.code` in `directory`.
    ///
    /// # Errors
    /// When one of the files is not there.
    pub fn written(directory: &Path, name: &str) -> anyhow::Result<Self> {
        let read = |ending: &str| {
            let path = directory.join(format!("{name}.{ending}"));
            let bytes = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
            Ok::<_, anyhow::Error>(String::from_utf8_lossy(&bytes).into_owned())
        };
        let code = read("code")?.trim().parse().ok();
        Ok(Self { command: name.to_owned(), code, stdout: read("out")?, stderr: read("err")? })
    }

    /// Whether the exit code was 0.
    pub fn succeeded(&self) -> bool {
        self.code == Some(0)
    }

    /// The outcome itself, if nothing was said on standard error.
    pub fn quiet(self) -> anyhow::Result<Self> {
        ensure!(self.stderr.trim().is_empty(), "something was said on standard error{}", self.transcript());
        Ok(self)
    }

    /// The outcome itself, if standard error holds `text` and standard output nothing.
    pub fn complains(self, text: &str) -> anyhow::Result<Self> {
        ensure!(self.stderr.contains(text), "`{text}` is not on standard error{}", self.transcript());
        ensure!(self.stdout.is_empty(), "something is on standard output{}", self.transcript());
        Ok(self)
    }

    /// Everything that it printed.
    pub fn both(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }

    /// The command and the end of what it printed, to be shown.
    pub fn transcript(&self) -> String {
        format!("\n$ {}\n--- stdout\n{}\n--- stderr\n{}", self.command, tail(&self.stdout), tail(&self.stderr))
    }
}

/// The end of a long text: that is where programs say what went wrong.
fn tail(text: &str) -> String {
    const LINES: usize = 60;
    let lines: Vec<&str> = text.trim_end().lines().collect();
    match lines.len().checked_sub(LINES) {
        Some(dropped) if dropped > 0 => format!("({dropped} lines)\n{}", lines[dropped..].join("\n")),
        _ => lines.join("\n"),
    }
}

fn display(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// Whether PATH has a program of this name.
pub fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

/// `inner` as arguments of `outer`: `outer... inner...`, with the directory and the variables of `inner`.
pub fn wrap(mut outer: Command, inner: &Command) -> Command {
    outer.arg(inner.get_program()).args(inner.get_args());
    if let Some(directory) = inner.get_current_dir() {
        outer.current_dir(directory);
    }
    for (name, value) in inner.get_envs() {
        match value {
            Some(value) => outer.env(name, value),
            None => outer.env_remove(name),
        };
    }
    outer
}

/// A shell script with `arguments` as `$1`, `$2` and so on.
pub fn shell<I: IntoIterator<Item = S>, S: AsRef<OsStr>>(script: &str, arguments: I) -> Command {
    let mut shell = command!(Path::new("/bin/sh"), "-euc", script, "sh");
    shell.args(arguments);
    shell
}
