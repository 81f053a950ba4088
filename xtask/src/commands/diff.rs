//! `diff`: the learner's files beside the lesson's.

use std::fmt::Write as _;
use std::ops::Range;
use std::path::Path;

use anyhow::{Result, anyhow};
use clap::{ArgMatches, Command};
use similar::udiff::UnifiedDiffHunk;
use similar::{Algorithm, ChangeTag, DiffOp, TextDiff};

use crate::context::{Context, Entry, Told};
use crate::session::Session;
use crate::stations::{self, STATIONS, Station};
use crate::step::Reference;
use crate::traps::{self, Finding};
use crate::ui::{self, Look};

/// Beyond this, a file is none of the lesson's, and a comparison of lines would take its time.
const MOST_BYTES: u64 = 1_000_000;
/// Lines shown around each change.
const RADIUS: usize = 3;

/// Adds the step.
pub fn arguments(command: Command) -> Command {
    command.arg(stations::argument(&[]).help("Step whose files are compared [default: all that there are]"))
}

/// Prints how the files of a step, or of all, differ from the lesson's; it fails when one does.
pub fn run(cx: &Context, arguments: &ArgMatches) -> Result<()> {
    let session = Session::of_files(cx)?;
    let station = stations::typed(arguments)?;
    let files = match station {
        Some(station) => files(&session, station)?,
        None => all_files(&session)?,
    };
    let mut different = 0;
    for (station, reference) in &files {
        different += usize::from(!compare(&session, station, reference)?);
    }
    let count = |count: usize| if count == 1 { "1 file".to_owned() } else { format!("{count} files") };
    if station.is_none() {
        cx.ui.note(
            "Not compared by lines: the script, which `cargo xtask fetch` checks by its digest, and pixi.lock, \
             which `cargo xtask lock --check` compares with pixi.toml.",
        );
    }
    if different == 0 {
        cx.ui.result(match files.as_slice() {
            [(_, one)] => format!("{} is as the lesson has it.", cx.typed(&one.path)),
            _ => format!("{} are as the lesson has them.", count(files.len())),
        });
        return Ok(());
    }
    let is = if different == 1 { "is not as the lesson has it" } else { "are not as the lesson has them" };
    let way_back = match station {
        _ if cx.options.exact => "`cargo xtask explain traps` tells of the traps in the lesson's files.".to_owned(),
        Some(station) if station.is_start() => {
            "Later steps change pixi.toml; `cargo xtask reset start` begins anew.".to_owned()
        }
        station => format!(
            "`cargo xtask reset {}` brings the lesson's back, and keeps what you have.",
            station.map_or("STEP", |station| station.name)
        ),
    };
    cx.ui.note(format_args!("{different} of {} {is}. {way_back}", count(files.len())));
    Err(Told.into())
}

/// The files of a step; what has no text to compare says what is typed instead.
fn files<'s>(session: &Session<'_>, station: &'s Station) -> Result<Vec<(&'s Station, Reference)>> {
    let references = station.references(session)?;
    if references.is_empty() {
        return Err(nothing_to_compare(session, station).context(format!("diff {}", station.name)));
    }
    Ok(references.into_iter().map(|reference| (station, reference)).collect())
}

fn nothing_to_compare(session: &Session<'_>, station: &Station) -> anyhow::Error {
    let format = station.format().map_or("docker", |format| format.name());
    match station.name {
        "fetch" => anyhow!(
            "the lesson's script is known by its digest, not by its text\n  hint: `cargo xtask fetch` compares it"
        ),
        "lock" => anyhow!(
            "what a lock holds depends on the day it was solved\n  \
             hint: `cargo xtask lock --check` compares it with pixi.toml"
        ),
        "start" | "edit" => anyhow!(
            "what the pixi.toml of {} is to hold, nobody knows but you\n  \
             hint: `cargo xtask edit --dry-run` says what it lacks of the lesson's environments",
            session.learner.name()
        ),
        name if name.starts_with("workflows") => anyhow!(
            "no workflow can name the workspace {}\n  hint: one inside of the repository can be named",
            session.learner.directory().display()
        ),
        name if name.starts_with("build") || name.starts_with("run") => anyhow!(
            "it makes an image, and no text\n  hint: `cargo xtask test {format}` compares the image with pixi.lock, \
             `cargo xtask diff recipe {format}` the recipe with the lesson's"
        ),
        _ => anyhow!("it writes no file of the lesson's\n  hint: `cargo xtask diff` compares all that there are"),
    }
}

/// The files of all steps. What a later step changes is compared with what that one leaves.
fn all_files(session: &Session<'_>) -> Result<Vec<(&'static Station, Reference)>> {
    let mut files: Vec<(&Station, Reference)> = Vec::new();
    for station in STATIONS {
        let references = station.references(session)?;
        files.retain(|(_, earlier)| references.iter().all(|reference| reference.path != earlier.path));
        files.extend(references.into_iter().map(|reference| (station, reference)));
    }
    Ok(files)
}

/// Prints how a file differs from the lesson's; whether it is the same.
fn compare(session: &Session<'_>, station: &Station, reference: &Reference) -> Result<bool> {
    let cx = session.cx;
    let (path, place) = (&reference.path, cx.typed(&reference.path));
    let say = |text: String| cx.ui.painted(Look::Head, &text);
    let lessons = ui::size(reference.text.len() as u64);
    match cx.entry(path)? {
        // Going back to the start would take all other files away.
        None if station.is_start() && *path != session.learner.manifest() => {
            say(format!("{place} is not there; `pixi init` writes it with these lines:"));
            cx.ui.result(reference.text.trim_end());
            return Ok(false);
        }
        None => {
            say(format!("{place} is not there yet: `{}` writes it.", station.command()));
            return Ok(false);
        }
        Some(Entry::Link(target)) if !path.exists() => {
            say(format!("{place} is a symbolic link to {}, where nothing is.", target.display()));
            return Ok(false);
        }
        Some(Entry::Link(target)) => {
            cx.ui.note(format_args!("{place} is a symbolic link to {}: that is compared.", target.display()));
        }
        Some(Entry::File(_)) => {}
        Some(Entry::Directory | Entry::Other) => {
            say(format!("{place} is no file; the lesson has one of {lessons} there."));
            return Ok(false);
        }
    }
    if !path.is_file() {
        say(format!("{place} leads to no file; the lesson has one of {lessons} there."));
        return Ok(false);
    }
    if let Some(size) = cx.size(path).filter(|size| *size > MOST_BYTES) {
        say(format!("{place} has {}: too much to be the lesson's, which has {lessons}.", ui::size(size)));
        return Ok(false);
    }
    let bytes = cx.read_bytes(path)?;
    if bytes == reference.text.as_bytes() {
        return Ok(true);
    }
    match text(bytes) {
        Err(why) => say(format!("{place} {why}")),
        Ok(text) => compare_texts(cx, &place, &reference.text, &text),
    }
    Ok(false)
}

/// The bytes as text, or why they are none.
fn text(bytes: Vec<u8>) -> Result<String, String> {
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err("is written in UTF-16, as some editors on Windows do: save it as UTF-8.".to_owned());
    }
    if bytes.contains(&0) {
        return Err("is no text: it holds zeros.".to_owned());
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..at].iter().filter(|byte| **byte == b'\n').count() + 1;
        format!("is no text in UTF-8: what stands at the end of line {line} is none. Save it as UTF-8.")
    })
}

fn compare_texts(cx: &Context, place: &str, lessons: &str, learners: &str) {
    let plain = learners.replace("\r\n", "\n");
    if plain == lessons {
        cx.ui.painted(
            Look::Head,
            &format!(
                "{place} differs in its line ends alone: they are those of Windows (CRLF), which a shell in an image \
                 takes as part of the line. Save it with LF."
            ),
        );
        return;
    }
    if plain.len() != learners.len() {
        cx.ui.note(format_args!("{place} has line ends of Windows (CRLF), which is not shown below: save it with LF."));
    }
    cx.ui.painted(Look::Head, &format!("--- {place}\tas the lesson has it"));
    cx.ui.painted(Look::Head, &format!("+++ {place}\tas it is here"));
    let diff = TextDiff::configure().algorithm(Algorithm::Patience).diff_lines(lessons, plain.as_str());
    let hunks = hunks(&diff);
    let name = Path::new(place).file_name().unwrap_or_default().to_string_lossy();
    let hints = hints(&hunks, &name, lessons, &plain);
    for (index, hunk) in hunks.iter().enumerate() {
        cx.ui.painted(Look::Place, &hunk.header);
        for (look, line) in &hunk.lines {
            cx.ui.painted(*look, line);
        }
        for (_, hint) in hints.iter().filter(|(of, _)| *of == index) {
            cx.ui.painted(Look::Hint, hint);
        }
    }
}

/// Some changed lines with those around them.
struct Hunk {
    header: String,
    lines: Vec<(Look, String)>,
    /// Its lines in the lesson's text and in the learner's, counted from 1.
    places: [Range<usize>; 2],
    /// Whether the two differ in nothing that is seen.
    only_blanks: bool,
}

fn hunks(diff: &TextDiff<'_, '_, str>) -> Vec<Hunk> {
    let place = |ranges: Vec<Range<usize>>| {
        let first = ranges.first().map_or(0, |range| range.start);
        first + 1..ranges.last().map_or(first, |range| range.end) + 1
    };
    let hunk = |hunk: UnifiedDiffHunk<'_, '_, '_, str>| {
        let mut lines = Vec::new();
        let mut seen = [String::new(), String::new()];
        for change in hunk.iter_changes() {
            let (sign, look) = match change.tag() {
                ChangeTag::Equal => (' ', Look::Plain),
                ChangeTag::Delete => ('-', Look::Old),
                ChangeTag::Insert => ('+', Look::New),
            };
            match change.tag() {
                ChangeTag::Equal => {}
                ChangeTag::Delete => seen[0].extend(change.value().split_whitespace()),
                ChangeTag::Insert => seen[1].extend(change.value().split_whitespace()),
            }
            lines.push((look, format!("{sign}{}", visible(change.value().trim_end_matches('\n')))));
            if change.missing_newline() {
                lines.push((Look::Plain, "\\ No newline at end of file".to_owned()));
            }
        }
        let of = |range: fn(&DiffOp) -> Range<usize>| place(hunk.ops().iter().map(range).collect());
        let places = [of(DiffOp::old_range), of(DiffOp::new_range)];
        Hunk { header: hunk.header().to_string(), lines, places, only_blanks: seen[0] == seen[1] }
    };
    diff.unified_diff().context_radius(RADIUS).iter_hunks().map(hunk).collect()
}

/// What is to be said below hunks, each with the hunk's number: the traps that the learner's text is in and the lesson's
/// is not, and the other way round.
fn hints(hunks: &[Hunk], name: &str, lessons: &str, learners: &str) -> Vec<(usize, String)> {
    let (theirs, ours) = (traps::in_file(name, lessons), traps::in_file(name, learners));
    let nearest = |side: usize, line: usize| {
        let distance = |place: &Range<usize>| place.start.saturating_sub(line) + (line + 1).saturating_sub(place.end);
        hunks.iter().enumerate().min_by_key(|(_, hunk)| distance(&hunk.places[side])).map(|(index, _)| index)
    };
    let mut hints = Vec::new();
    for (index, _) in hunks.iter().enumerate().filter(|(_, hunk)| hunk.only_blanks) {
        hints.push((index, "hint: only blanks differ here: spaces, tabs, or the end of the last line".to_owned()));
    }
    for Finding { trap, line, what, mend, .. } in only_in(&ours, &theirs) {
        // Line 0 means the file as a whole.
        let place = if *line == 0 { String::new() } else { format!("line {line}: ") };
        let hint = format!("hint: {}, {}: {place}{what}; {mend}", trap.id, trap.title);
        hints.extend(nearest(1, *line).map(|index| (index, hint)));
    }
    let mut told = Vec::new();
    for Finding { trap, line, .. } in only_in(&theirs, &ours) {
        if told.contains(&trap.id) {
            continue;
        }
        told.push(trap.id);
        let hint = format!("hint: {}, {}: yours is not in this trap", trap.id, trap.title);
        hints.extend(nearest(0, *line).map(|index| (index, hint)));
    }
    hints
}

/// The findings of the one text that the other has none like.
fn only_in<'f>(one: &'f [Finding], other: &'f [Finding]) -> impl Iterator<Item = &'f Finding> {
    let like = |finding: &Finding| other.iter().any(|it| it.trap.id == finding.trap.id && it.what == finding.what);
    one.iter().filter(move |finding| !like(finding))
}

/// The line with what would not be seen, or would be a command to the terminal, written out.
fn visible(line: &str) -> String {
    let mut text = String::new();
    for c in line.chars() {
        let is_unseen = matches!(c, '\u{a0}' | '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202f}')
            || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}');
        if is_unseen || (c.is_control() && c != '\t') {
            let _ = write!(text, "{}", c.escape_unicode());
        } else {
            text.push(c);
        }
    }
    text
}
