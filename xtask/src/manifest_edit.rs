//! Edits of a `pixi.toml` as text: comments, order and blank lines stay, and doing it twice changes nothing more.

use std::fmt;
use std::ops::Range;

use toml_edit::{Array, Document, Item, Table, TableLike, Value};

use crate::pins;

mod change;
mod comments;
mod exercise;
mod manifest;
mod platforms;
mod request;

pub use change::{Change, pixi_commands};
pub use request::{Dependency, Request, SUBDIRS, channel, feature};

use manifest::{Manifest, tidy_first};
use platforms::Row;

/// What some editors of Windows begin a text with.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// The path of the gpu feature.
const GPU: [&str; 2] = ["feature", "gpu"];

/// How the manifest says that the gpu environment needs CUDA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum PlatformStyle {
    /// `[feature.gpu.system-requirements]`, as the lesson has it; newer pixi calls it deprecated.
    Legacy,
    /// Platforms that carry their CUDA version, for pixi 0.71 and newer.
    Rich,
}

/// Why a manifest was left as it is. Lines and columns count from 1.
#[derive(Debug, PartialEq, Eq)]
pub enum ManifestError {
    /// The text is not TOML.
    Syntax { line: usize, column: usize, message: String },
    /// A key holds another kind of value than pixi wants there, or one that cannot be edited safely.
    Shape { line: usize, column: usize, key: String, expected: &'static str, found: &'static str },
    /// What stands at a key does not go with the edit.
    Refused { line: usize, column: usize, key: String, reason: String },
    /// There is neither a `[workspace]` nor a `[project]` table.
    NoWorkspace,
    /// The workspace does not name the platform that images are built for.
    NoImagePlatform,
}

impl std::error::Error for ManifestError {}

/// What to do about a place in the text.
const MEND: &str = "\n  hint: mend this place and try again; the file was not touched";

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax { line, column, message } => write!(f, "line {line}, column {column}: {message}{MEND}"),
            Self::Shape { line, column, key, expected, found } => {
                let found = if *found == "array of tables" { "array of tables in double brackets" } else { found };
                write!(
                    f,
                    "line {line}, column {column}: `{key}` is of type {found}, but {expected} belongs there{MEND}"
                )
            }
            Self::Refused { line, column, key, reason } => {
                write!(f, "line {line}, column {column}: `{key}` {reason}{MEND}")
            }
            Self::NoWorkspace => {
                write!(f, "there is no [workspace] table\n  hint: begin with the manifest that `pixi init` writes")
            }
            Self::NoImagePlatform => write!(
                f,
                "the workspace does not list the platform {0}, which images are built for\n  \
                 hint: add \"{0}\" to its platforms, or run `cargo xtask edit`",
                pins::IMAGE_PLATFORM
            ),
        }
    }
}

/// A section of system requirements, which newer versions of pixi give up, where it does more than warn.
#[derive(Debug, PartialEq, Eq)]
pub struct OldRequirements {
    /// What it is called.
    pub name: String,
    /// Its line, counted from 1.
    pub line: usize,
    /// Whether it stands beside platforms that say more than a conda platform, which pixi refuses.
    pub is_mixed: bool,
}

/// The sections of system requirements that are about all environments, or stand beside what replaces them. A text that
/// is no manifest has none.
pub fn old_requirements(text: &str) -> Vec<OldRequirements> {
    let key = "system-requirements";
    let Ok(parsed) = Document::parse(text) else { return Vec::new() };
    let root = parsed.as_table();
    let workspace = ["workspace", "project"].iter().find_map(|name| root.get(name)?.as_table_like());
    let platforms = workspace.and_then(|workspace| workspace.get("platforms")?.as_array());
    let is_mixed = platforms.is_some_and(|platforms| platforms.iter().any(Value::is_inline_table));
    let features = root.get("feature").and_then(Item::as_table_like);
    let features = features.into_iter().flat_map(TableLike::iter).map(|(name, _)| name).filter(|_| is_mixed);
    let paths = features.map(|name| owned(&["feature", name, key])).chain([owned(&[key])]);
    let has = |path: &Vec<String>| {
        let mut below = Some(root as &dyn TableLike);
        for part in path {
            below = below.and_then(|table| table.get(part)?.as_table_like());
        }
        below.is_some_and(|table| !table.is_empty())
    };
    let section = |path: Vec<String>| OldRequirements {
        name: dotted(&path),
        line: place(text, span_of(root, &path)).0,
        is_mixed,
    };
    paths.filter(has).map(section).collect()
}

/// A manifest after an edit.
#[derive(Debug, PartialEq, Eq)]
pub struct Edited {
    /// The text; as it was, byte by byte, if nothing had to change.
    pub text: String,
    /// What was changed, in an order in which pixi takes the commands for it.
    pub changes: Vec<Change>,
    /// What was there already though it was asked for, and what else there is to say: sentences.
    pub notes: Vec<String>,
}

/// Adds what the exercise asks for: three platforms, the features cpu and gpu, CUDA, and one environment for each feature;
/// and what is asked for beyond it.
///
/// What stands there already is kept: a dependency's version, a CUDA version, further platforms or features; only another
/// version that is asked for replaces it. Without a style the manifest keeps the one that it has; a new one gets the
/// lesson's.
///
/// # Errors
/// See `ManifestError`; there is no half of an edit.
pub fn finish(text: &str, request: &Request) -> Result<Edited, ManifestError> {
    let edited = edit(text, |manifest| {
        manifest.finish(request)?;
        let lost = comments::lost(&comments::comments(text), &comments::comments(&manifest.text()));
        if !lost.is_empty() {
            let requirements = [GPU[0], GPU[1], "system-requirements"];
            manifest.keep_comments(&lost, &[&requirements, &[GPU[0], GPU[1], "dependencies"], &GPU]);
        }
        Ok(())
    })?;
    if edited.text != text {
        refuse_mixed(text)?;
    }
    Ok(edited)
}

/// The same workspace for the rehearsal: its channel instead of all others, and only the platform of the images.
///
/// # Errors
/// See `ManifestError`.
pub fn for_rehearsal(text: &str, channel: &str) -> Result<String, ManifestError> {
    let edited = edit(text, |manifest| {
        let workspace = manifest.workspace;
        let rows = manifest.rows()?;
        let is_image = |row: &Row| row.subdir == pins::IMAGE_PLATFORM;
        if !rows.iter().any(is_image) {
            return Err(Stop::NoImagePlatform);
        }
        let cut: Vec<String> = rows.into_iter().filter(|row| !is_image(row)).filter_map(|row| row.name).collect();
        let platforms = manifest.array_mut(&[workspace], "platforms")?;
        platforms.retain(|value| Row::read(value).is_some_and(|row| is_image(&row)));
        tidy_first(platforms);
        *manifest.array_mut(&[workspace], "channels")? = Array::from_iter([channel]);

        cut_targets(manifest.root_mut(), &cut);
        for feature in manifest.keys(&["feature"])? {
            let path = ["feature", feature.as_str()];
            if manifest.value(&path, "channels")?.is_some() {
                *manifest.array_mut(&path, "channels")? = Array::from_iter([channel]);
            }
            if manifest.value(&path, "platforms")?.is_some() {
                let platforms = manifest.array_mut(&path, "platforms")?;
                platforms.retain(|value| value.as_str().is_none_or(|name| !cut.iter().any(|cut| cut == name)));
                tidy_first(platforms);
            }
            if let Some(feature) = manifest.table(&path)?.as_table_like_mut() {
                cut_targets(feature, &cut);
            }
        }
        Ok(())
    });
    edited.map(|edited| edited.text)
}

/// What stops an edit, before its place in the text is looked up.
enum Stop {
    Shape { path: Vec<String>, expected: &'static str, found: &'static str },
    Refused { path: Vec<String>, reason: String },
    NoWorkspace,
    NoImagePlatform,
}

impl Stop {
    /// The value at `path` is of the wrong kind. `[3]` in a path is the fourth value of an array.
    fn shape(path: &[&str], expected: &'static str, found: &'static str) -> Self {
        Self::Shape { path: owned(path), expected, found }
    }

    /// What stands at `path` does not go with the edit.
    fn refused(path: &[&str], reason: String) -> Self {
        Self::Refused { path: owned(path), reason }
    }
}

fn owned(path: &[&str]) -> Vec<String> {
    path.iter().map(|key| (*key).to_owned()).collect()
}

/// Parses, changes and prints; the text comes back as it was unless something had to change.
fn edit(text: &str, change: impl FnOnce(&mut Manifest) -> Result<(), Stop>) -> Result<Edited, ManifestError> {
    let parsed = Document::parse(text).map_err(|error| {
        let (line, column) = place(text, error.span());
        ManifestError::Syntax { line, column, message: error.message().trim().replace('\n', ", ") }
    })?;
    let located = |stop| {
        let at = |path: &[String]| place(text, span_of(parsed.as_table(), path));
        match stop {
            Stop::NoWorkspace => ManifestError::NoWorkspace,
            Stop::NoImagePlatform => ManifestError::NoImagePlatform,
            Stop::Shape { path, expected, found } => {
                let (line, column) = at(&path);
                ManifestError::Shape { line, column, key: dotted(&path), expected, found }
            }
            Stop::Refused { path, reason } => {
                let (line, column) = at(&path);
                ManifestError::Refused { line, column, key: dotted(&path), reason }
            }
        }
    };
    let document = parsed.clone().into_mut();
    let before = document.to_string();
    let mut manifest = Manifest::new(document, text.len()).map_err(located)?;
    change(&mut manifest).map_err(located)?;
    let after = manifest.text();
    let text = if after == before { text.to_owned() } else { as_before(text, after) };
    Ok(Edited { text, changes: manifest.changes, notes: manifest.notes })
}

/// toml_edit writes line feeds and no byte order mark; a file that came with others keeps them.
fn as_before(before: &str, after: String) -> String {
    let after = if before.contains("\r\n") { after.replace("\r\n", "\n").replace('\n', "\r\n") } else { after };
    if before.starts_with(BYTE_ORDER_MARK) { format!("{BYTE_ORDER_MARK}{after}") } else { after }
}

/// toml_edit writes the dotted keys of one table side by side. Where they do not stand so, an edit would change their order.
fn refuse_mixed(text: &str) -> Result<(), ManifestError> {
    let Ok(parsed) = Document::parse(text) else { return Ok(()) };
    let printed = parsed.into_mut().to_string();
    let lines = text.trim_start_matches(BYTE_ORDER_MARK).lines();
    match lines.zip(printed.lines()).enumerate().find(|(_, (line, printed))| line != printed) {
        None => Ok(()),
        Some((index, (line, _))) => Err(ManifestError::Refused {
            line: index + 1,
            column: 1,
            key: line.trim().to_owned(),
            reason: "stands among dotted keys of other tables: put those of one table side by side".to_owned(),
        }),
    }
}

/// A path as it is written in TOML, roughly.
fn dotted(path: &[String]) -> String {
    let mut text = String::new();
    for part in path {
        if !text.is_empty() && !part.starts_with('[') {
            text.push('.');
        }
        text.push_str(part);
    }
    text
}

fn cut_targets(table: &mut dyn TableLike, platforms: &[String]) {
    for platform in platforms {
        let Some(targets) = table.get_mut("target").and_then(Item::as_table_like_mut) else { return };
        targets.remove(platform);
        if targets.is_empty() {
            table.remove("target");
        }
    }
}

/// Where the value at `path` stands, or the nearest thing above it that has a place.
fn span_of(table: &Table, path: &[String]) -> Option<Range<usize>> {
    let mut span = table.span();
    let mut table: &dyn TableLike = table;
    for (depth, key) in path.iter().enumerate() {
        let (key, item) = table.get_key_value(key)?;
        span = item.span().or(key.span()).or(span);
        match (item.as_table_like(), item.as_array(), path.get(depth + 1)) {
            (Some(below), ..) => table = below,
            (None, Some(array), Some(index)) => {
                let index = index.trim_matches(['[', ']']).parse().ok();
                return index.and_then(|index: usize| array.get(index)).and_then(Value::span).or(span);
            }
            _ => break,
        }
    }
    span
}

/// Line and column of the start of a span, from 1; columns count characters.
fn place(text: &str, span: Option<Range<usize>>) -> (usize, usize) {
    let offset = span.map_or(0, |span| span.start).min(text.len());
    let before = &text.as_bytes()[..offset];
    let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    (line, String::from_utf8_lossy(&before[start..]).chars().count() + 1)
}

#[cfg(test)]
mod tests;
