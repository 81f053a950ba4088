//! The only module that prints. Results go to stdout; what is said about the work goes to stderr.

use std::cell::RefCell;
use std::env;
use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::mem;
use std::time::Duration;

use crate::command_line::CommandLine;
use crate::options::Options;

/// How much is said, and whether in colour.
#[derive(Clone, Debug, Default)]
pub struct Ui {
    colour: bool,
    /// The same of what is printed to stdout.
    colour_of_results: bool,
    quiet: bool,
    verbose: bool,
    dry_run: bool,
    /// Of a plan: what would be typed, one line each. Nothing is printed then.
    record: Option<RefCell<Vec<String>>>,
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

/// How wide the words are that stand before what is said.
const LABEL: usize = 10;
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
        Self {
            colour: !options.plain && colour_allowed(&io::stderr()),
            colour_of_results: !options.plain && colour_allowed(&io::stdout()),
            quiet: options.quiet,
            verbose: options.verbose,
            dry_run: options.dry_run,
            record: None,
        }
    }

    /// Prints nothing, and records what a dry run would print.
    pub fn recording() -> Self {
        Self { quiet: true, dry_run: true, record: Some(RefCell::default()), ..Self::default() }
    }

    /// What was recorded since the last look.
    pub fn recorded(&self) -> Vec<String> {
        self.record.as_ref().map(|record| mem::take(&mut *record.borrow_mut())).unwrap_or_default()
    }

    /// Begins a step.
    pub fn header(&self, place: &str, title: &str) {
        if !self.quiet && !self.dry_run {
            stderr(format_args!("\n{} {}", self.paint(DIM, place), self.paint(BOLD, title)));
        }
    }

    /// Says something about the work, with a word in front of it; long lines are folded where a terminal shows them.
    pub fn labelled(&self, label: &str, text: &str) {
        let room = terminal_size::terminal_size_of(io::stderr()).map(|(width, _)| usize::from(width.0));
        let room = room.map_or(usize::MAX, |width| width.saturating_sub(LABEL + 1).max(20));
        for (index, line) in folded(text, room).iter().enumerate() {
            let label = format!("  {:1$}", if index == 0 { label } else { "" }, LABEL - 2);
            self.note(format_args!("{}{line}", self.paint(DIM, &label)));
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
        if self.record.is_none() {
            stderr(format_args!("{}", self.paint(YELLOW, &text.to_string())));
        }
    }

    /// Shows a command before it runs; of a dry run it is the result.
    pub fn command(&self, line: &CommandLine) {
        if self.dry_run {
            self.result(line);
        } else if !self.quiet {
            stderr(format_args!("{} {line}", self.paint(DIM, "$")));
        }
    }

    /// What a dry run would do without a command, as a comment between its commands.
    pub fn would(&self, text: impl fmt::Display) {
        self.result(format_args!("# {text}"));
    }

    /// Explains the command that follows, also in a dry run.
    pub fn aside(&self, text: impl fmt::Display) {
        if self.dry_run { self.would(text) } else { self.note(text) }
    }

    /// Prints a result.
    pub fn result(&self, text: impl fmt::Display) {
        match &self.record {
            Some(record) => record.borrow_mut().push(text.to_string()),
            None => stdout(format_args!("{text}")),
        }
    }

    /// Asks; the answer is typed behind it.
    pub fn prompt(&self, question: &str) {
        let _ = write!(io::stderr(), "{} ", self.paint(BOLD, question));
        let _ = io::stderr().flush();
    }

    /// Whether a result fits into the width of the terminal, where there is one.
    pub fn fits(&self, text: &str) -> bool {
        let width = terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| usize::from(width.0));
        width.is_none_or(|width| text.lines().all(|line| line.chars().count() <= width))
    }

    /// Whether somebody who reads what is said about the work can answer.
    pub fn can_ask(&self) -> bool {
        io::stdin().is_terminal() && io::stderr().is_terminal()
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

/// Prints that Ctrl-C was heard, and what that means.
pub fn interrupted(farewell: &str) {
    stderr(format_args!("Interrupted: {farewell}."));
}

/// Ends a line that a question began.
pub fn end_line() {
    stderr(format_args!(""));
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

/// A text in lines of at most `room` characters, broken at blanks.
fn folded(text: &str, room: usize) -> Vec<String> {
    if text.chars().count() <= room {
        return vec![text.to_owned()];
    }
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => *line = word.to_owned(),
            Some(line) if line.chars().count() + 1 + word.chars().count() <= room => *line = format!("{line} {word}"),
            _ => lines.push(word.to_owned()),
        }
    }
    lines
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
