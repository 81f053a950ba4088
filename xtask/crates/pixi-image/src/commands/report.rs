//! What the user sees: results on stdout, everything else as plain lines on stderr.

use std::io::{self, Write};
use std::sync::Arc;

use anyhow::Context;
use pixi_image::bars::Bars;
use pixi_image::progress::Progress;

/// What shows the work: a bar on a terminal, else lines. A bar has a thread, so this is not for commands that make
/// namespaces.
pub fn progress() -> Arc<dyn Progress + Send + Sync> {
    match Bars::on_terminal() {
        Some(bars) => Arc::new(bars),
        None => Arc::new(Lines),
    }
}

/// One line for each thing worth saying.
pub struct Lines;

impl Progress for Lines {
    fn phase(&self, text: &str) {
        line(text);
    }

    fn expect_download(&self, bytes: u64) {
        if bytes > 0 {
            line(&format!("Downloading {:.1} MB", bytes as f64 / 1e6));
        }
    }

    fn packed(&self, identity: &str, bytes: u64, cached: bool) {
        let how = if cached { " (cached)" } else { "" };
        line(&format!("  {identity:<40} {:>9.1} MB{how}", bytes as f64 / 1e6));
    }

    fn warn(&self, text: &str) {
        line(&format!("warning: {text}"));
    }
}

/// Passes on how the work ended, once what was shown of it is gone.
pub fn ended<T, E>(progress: &dyn Progress, result: Result<T, E>) -> Result<T, E> {
    if result.is_ok() {
        progress.finished()
    } else {
        progress.stopped()
    }
    result
}

/// A line on stderr. That nobody reads it is no reason to stop.
pub fn line(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// The last line on stderr, and the end of the process: no thread can still say something after it.
pub fn last(text: &str, code: i32) -> ! {
    let mut stderr = io::stderr().lock();
    let _ = writeln!(stderr, "{text}");
    std::process::exit(code)
}

/// A line on stdout. A reader that has seen enough is no error.
pub fn result(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error).context("cannot write to stdout"),
        _ => Ok(()),
    }
}

/// The chain of causes, each said once, for many of our errors already quote the one below them; hints come last.
pub fn error(error: &anyhow::Error) {
    let (mut said, mut hints) = (String::new(), String::new());
    for cause in error.chain().map(ToString::to_string) {
        let (cause, hint) = cause.find(HINT).map_or((cause.as_str(), ""), |at| cause.split_at(at));
        if !hints.contains(hint) {
            hints.push_str(hint);
        }
        if !said.contains(cause) {
            said = if said.is_empty() { cause.to_owned() } else { format!("{said}: {cause}") };
        }
    }
    line(&format!("error: {said}{hints}"));
}

/// How the way out begins in our messages.
const HINT: &str = "\n  hint:";

/// Ends the process as clap does for arguments that make no sense.
pub fn wrong_usage(text: &str) -> ! {
    use clap::CommandFactory;
    crate::Cli::command().error(clap::error::ErrorKind::ArgumentConflict, text).exit()
}
