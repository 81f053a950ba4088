//! The only module that prints. Results go to stdout; what is said about the work goes to stderr.

use std::env;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use crate::command_line::CommandLine;
use crate::options::Options;

/// How much is said, and whether in colour.
#[derive(Clone, Copy, Debug)]
pub struct Ui {
    colour: bool,
    /// The same of what is printed to stdout.
    colour_of_results: bool,
    quiet: bool,
    verbose: bool,
    dry_run: bool,
}

/// How a part of a result looks on a terminal.
#[derive(Clone, Copy, Debug)]
pub enum Look {
    /// As it is.
    Plain,
    /// What stands above others.
    Head,
    /// Where something is.
    Place,
    /// What was there.
    Old,
    /// What is there instead.
    New,
    /// A word about it.
    Hint,
}

impl Look {
    fn style(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Head => BOLD,
            Self::Place => "\x1b[36m",
            Self::Old => "\x1b[31m",
            Self::New => "\x1b[32m",
            Self::Hint => YELLOW,
        }
    }
}

const BOLD: &str = "\x1b[1m";
const DIM: &str = "\x1b[2m";
const RED: &str = "\x1b[1;31m";
const YELLOW: &str = "\x1b[1;33m";
const GREEN: &str = "\x1b[32m";

/// How something stands, in a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// It is there and works.
    Ok,
    /// Worth knowing.
    Note,
    /// It is not there, and something else does its work.
    Missing,
    /// A trap.
    Trap,
    /// It cannot work.
    Fails,
}

impl Mark {
    /// The word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Missing => "missing",
            Self::Trap => "trap",
            Self::Fails => "fails",
        }
    }
}

impl Ui {
    /// Looks depend on the options, on what stdout and stderr are, and on NO_COLOR, CLICOLOR and CI.
    pub fn new(options: &Options) -> Self {
        let colour = !options.plain && colour_allowed(&io::stderr());
        let colour_of_results = !options.plain && colour_allowed(&io::stdout());
        Self { colour, colour_of_results, quiet: options.quiet, verbose: options.verbose, dry_run: options.dry_run }
    }

    /// Begins a step.
    pub fn header(&self, place: &str, title: &str) {
        if !self.quiet && !self.dry_run {
            stderr(format_args!("\n{} {}", self.paint(DIM, place), self.paint(BOLD, title)));
        }
    }

    /// Says something about the work.
    pub fn note(&self, text: impl fmt::Display) {
        if !self.quiet && !self.dry_run {
            stderr(format_args!("{text}"));
        }
    }

    /// Says something that only some want to know.
    pub fn detail(&self, text: impl fmt::Display) {
        if self.verbose {
            stderr(format_args!("{}", self.paint(DIM, &text.to_string())));
        }
    }

    /// Says something that must not be overlooked, even with `--quiet`.
    pub fn announce(&self, text: impl fmt::Display) {
        stderr(format_args!("{}", self.paint(YELLOW, &text.to_string())));
    }

    /// Shows a command before it runs; of a dry run it is the result.
    pub fn command(&self, line: &CommandLine) {
        if self.dry_run {
            stdout(format_args!("{line}"));
        } else if !self.quiet {
            stderr(format_args!("{} {line}", self.paint(DIM, "$")));
        }
    }

    /// What a dry run would do without a command, as a comment between its commands.
    pub fn would(&self, text: impl fmt::Display) {
        stdout(format_args!("# {text}"));
    }

    /// Explains the command that follows, also in a dry run.
    pub fn aside(&self, text: impl fmt::Display) {
        if self.dry_run { self.would(text) } else { self.note(text) }
    }

    /// Prints a result.
    pub fn result(&self, text: impl fmt::Display) {
        stdout(format_args!("{text}"));
    }

    /// A heading of a result.
    pub fn title(&self, text: &str) -> String {
        if self.colour_of_results { format!("{BOLD}{text}\x1b[0m") } else { text.to_owned() }
    }

    /// A mark in a result, as wide as every other.
    pub fn mark(&self, mark: Mark) -> String {
        let word = format!("{:7}", mark.name());
        let style = match mark {
            Mark::Ok => GREEN,
            Mark::Note | Mark::Missing => DIM,
            Mark::Trap => YELLOW,
            Mark::Fails => RED,
        };
        if self.colour_of_results { format!("{style}{word}\x1b[0m") } else { word }
    }

    /// Prints a line of a result that has looks.
    pub fn painted(&self, look: Look, text: &str) {
        let style = look.style();
        if self.colour_of_results && !style.is_empty() {
            stdout(format_args!("{style}{text}\x1b[0m"));
        } else {
            stdout(format_args!("{text}"));
        }
    }

    /// Asks somebody who types: only a yes is one.
    pub fn confirm(&self, question: &str) -> bool {
        let _ = write!(io::stderr(), "{} [y/N] ", self.paint(BOLD, question));
        let mut answer = String::new();
        let read = io::stdin().read_line(&mut answer);
        read.is_ok() && ["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str())
    }

    /// Prints a text as a result: as it is, or in colour with its headings bold and its code dim.
    pub fn page(&self, text: &str) {
        if self.colour_of_results { self.result(styled(text)) } else { self.result(text) }
    }

    /// Whether somebody types and reads.
    pub fn has_terminal(&self) -> bool {
        io::stdin().is_terminal() && io::stdout().is_terminal()
    }

    fn paint(&self, style: &str, text: &str) -> String {
        if self.colour { format!("{style}{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Prints an error: what failed, why, and what to do, each once.
pub fn error(error: &anyhow::Error) {
    let label = if colour_allowed(&io::stderr()) { format!("{RED}error:\x1b[0m") } else { "error:".to_owned() };
    stderr(format_args!("{label} {error:#}"));
}

fn colour_allowed(stream: &impl IsTerminal) -> bool {
    let set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    let off = set("NO_COLOR") || set("CI") || env::var_os("CLICOLOR").is_some_and(|value| value == "0");
    !off && stream.is_terminal()
}

/// A text for a terminal with colours: `#` and indentation show by looks.
fn styled(text: &str) -> String {
    let line = |line: &str| match line.trim_start_matches('#').strip_prefix(' ') {
        Some(heading) if line.starts_with('#') => format!("{BOLD}{heading}\x1b[0m"),
        _ if line.starts_with("    ") => format!("{DIM}{line}\x1b[0m"),
        _ => line.to_owned(),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// A table with aligned columns; the last ones of each row may be empty.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(head.get(column).map(|cell| cell.len())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &[String]| {
        let cells = cells.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
    let rule: Vec<String> = widths.iter().map(|&width| "-".repeat(width)).collect();
    [&head, &rule].into_iter().chain(rows).map(|cells| line(cells)).collect::<Vec<_>>().join("\n")
}

/// A duration as people say it.
pub fn duration(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    match seconds {
        0..60 => format!("{:.1} s", elapsed.as_secs_f64()),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// A number of bytes, in powers of 1000.
pub fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 999.5 || unit == "GB" {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1000.0;
    }
    unreachable!("the last unit returns")
}

// A reader that went away (`| head`) is no reason to stop the work or to panic.
fn stdout(text: fmt::Arguments<'_>) {
    let _ = writeln!(io::stdout(), "{text}");
}

fn stderr(text: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_read_like_speech() {
        assert_eq!([size(863), size(118_400_000), size(1_000_000)], ["863 B", "118.4 MB", "1.0 MB"]);
        assert_eq!(duration(Duration::from_millis(1234)), "1.2 s");
        assert_eq!(duration(Duration::from_secs(168)), "2 min 48 s");
    }

    #[test]
    fn headings_are_bold_and_code_is_dim() {
        let text = styled("# One\n\nTwo # no\n#3\n    # four\n### Five");
        assert_eq!(text, "\x1b[1mOne\x1b[0m\n\nTwo # no\n#3\n\x1b[2m    # four\x1b[0m\n\x1b[1mFive\x1b[0m");
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["lock".to_owned(), "x".to_owned()], vec!["build docker".to_owned(), String::new()]];
        assert_eq!(table(&["step", "y"], &rows), "step          y\n------------  -\nlock          x\nbuild docker");
    }
}
