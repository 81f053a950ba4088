//! Edits of a `pixi.toml` as text: comments, order and blank lines stay, and doing it twice changes nothing more.

use std::fmt;
use std::ops::Range;

use toml_edit::{Array, Document, DocumentMut, InlineTable, Item, Table, TableLike, Value};

use crate::pins;

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
    /// A key holds another kind of value than pixi wants there.
    Shape { line: usize, column: usize, key: String, expected: &'static str, found: &'static str },
    /// There is neither a `[workspace]` nor a `[project]` table.
    NoWorkspace,
    /// The workspace does not name the platform that images are built for.
    NoImagePlatform,
}

impl std::error::Error for ManifestError {}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Syntax { line, column, message } => write!(
                f,
                "line {line}, column {column}: {message}\n  hint: mend this place and try again; the file was not touched"
            ),
            Self::Shape { line, column, key, expected, found } => write!(
                f,
                "line {line}, column {column}: `{key}` is of type {found}, but pixi wants {expected} there\n  \
                 hint: mend this place and try again; the file was not touched"
            ),
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

/// Adds what the exercise asks for: three platforms, the features cpu and gpu, CUDA, and one environment for each feature.
///
/// What stands there already is kept: a dependency's version, a CUDA version, further platforms or features.
/// Without a style the manifest keeps the one that it has; a new one gets the lesson's.
pub fn finish(text: &str, style: Option<PlatformStyle>) -> Result<String, ManifestError> {
    edit(text, |manifest| {
        let style = style.unwrap_or(if manifest.is_rich()? { PlatformStyle::Rich } else { PlatformStyle::Legacy });
        match style {
            PlatformStyle::Legacy => manifest.finish_legacy()?,
            PlatformStyle::Rich => manifest.finish_rich()?,
        }
        for name in ["cpu", "gpu"] {
            manifest.environment(name)?;
        }
        Ok(())
    })
}

/// The same workspace for the rehearsal: its channel instead of all others, and only the platform of the images.
pub fn for_rehearsal(text: &str, channel: &str) -> Result<String, ManifestError> {
    edit(text, |manifest| {
        let workspace = manifest.workspace;
        let is_image = |value: &Value| subdir_of(value) == Some(pins::IMAGE_PLATFORM);
        let platforms = manifest.array(&[workspace], "platforms")?;
        let (kept, cut): (Vec<_>, Vec<_>) = platforms.iter().partition(|value| is_image(value));
        let names = |values: &[&Value]| values.iter().filter_map(|v| name_of(v)).map(str::to_owned).collect::<Vec<_>>();
        let (kept, cut) = (names(&kept), names(&cut));
        if kept.is_empty() {
            return Err(Stop::NoImagePlatform);
        }
        platforms.retain(is_image);
        tidy_first(platforms);
        manifest.table(&[workspace])?.insert("channels", channels(channel));
        manifest.changed = true;

        cut_targets(manifest.document.as_table_mut(), &cut);
        let features: Vec<String> = manifest.keys("feature");
        for feature in &features {
            let table = manifest.table(&["feature", feature])?;
            cut_targets(table, &cut);
            if table.contains_key("channels") {
                table.insert("channels", channels(channel));
            }
            if table.contains_key("platforms") {
                let platforms = manifest.array(&["feature", feature], "platforms")?;
                platforms.retain(|value| value.as_str().is_none_or(|name| kept.iter().any(|k| k == name)));
                tidy_first(platforms);
            }
        }
        Ok(())
    })
}

/// The pixi commands that make the same change, for those who have pixi.
pub fn pixi_commands(style: PlatformStyle) -> &'static [&'static str] {
    match style {
        PlatformStyle::Legacy => &[
            "pixi workspace platform add linux-64 osx-arm64 win-64",
            "pixi add --feature cpu 'pytorch-cpu=*'",
            "pixi workspace environment add --feature cpu cpu",
            "pixi workspace system-requirements add --feature gpu cuda 12",
            "pixi workspace environment add --feature gpu gpu",
            "pixi add --feature gpu --platform linux-64 --platform win-64 'pytorch-gpu=*'",
        ],
        PlatformStyle::Rich => &[
            "pixi workspace platform add linux-64 osx-arm64 win-64",
            "pixi workspace platform add --feature gpu linux-64-cuda=linux-64 --cuda 12",
            "pixi workspace platform add --feature gpu win-64-cuda=win-64 --cuda 12",
            "pixi add --feature cpu 'pytorch-cpu=*'",
            "pixi workspace environment add --feature cpu cpu",
            "pixi workspace environment add --feature gpu gpu",
            "pixi add --feature gpu 'pytorch-gpu=*'",
        ],
    }
}

/// The style that a manifest is written in.
pub fn style_of(text: &str) -> Result<PlatformStyle, ManifestError> {
    let mut style = PlatformStyle::Legacy;
    edit(text, |manifest| {
        if manifest.is_rich()? {
            style = PlatformStyle::Rich;
        }
        Ok(())
    })?;
    Ok(style)
}

/// What stops an edit, before its place in the text is looked up.
enum Stop {
    Shape { path: Vec<String>, expected: &'static str, found: &'static str },
    NoWorkspace,
    NoImagePlatform,
}

/// Parses, changes and prints; the text comes back as it was unless something had to change.
fn edit(text: &str, change: impl FnOnce(&mut Manifest) -> Result<(), Stop>) -> Result<String, ManifestError> {
    let parsed = Document::parse(text).map_err(|error| {
        let (line, column) = place(text, error.span());
        ManifestError::Syntax { line, column, message: error.message().trim().replace('\n', ", ") }
    })?;
    let located = |stop| match stop {
        Stop::NoWorkspace => ManifestError::NoWorkspace,
        Stop::NoImagePlatform => ManifestError::NoImagePlatform,
        Stop::Shape { path, expected, found } => {
            let (line, column) = place(text, span_of(parsed.as_table(), &path));
            ManifestError::Shape { line, column, key: path.join("."), expected, found }
        }
    };
    let mut manifest = Manifest::new(parsed.clone().into_mut(), text.len()).map_err(located)?;
    change(&mut manifest).map_err(located)?;
    if !manifest.changed {
        return Ok(text.to_owned());
    }
    let output = manifest.document.to_string();
    // toml_edit writes line feeds; a file that came with CRLF keeps them.
    Ok(if text.contains("\r\n") { output.replace("\r\n", "\n").replace('\n', "\r\n") } else { output })
}

struct Manifest {
    document: DocumentMut,
    /// `workspace`, or `project` as old manifests call it.
    workspace: &'static str,
    /// Where the next new table goes: behind every table of the text, which has fewer tables than bytes.
    next_position: isize,
    changed: bool,
}

impl Manifest {
    fn new(document: DocumentMut, length: usize) -> Result<Self, Stop> {
        let workspace = ["workspace", "project"].into_iter().find(|key| document.contains_key(key));
        let next_position = isize::try_from(length).unwrap_or(isize::MAX / 2);
        Ok(Self { document, workspace: workspace.ok_or(Stop::NoWorkspace)?, next_position, changed: false })
    }

    fn finish_legacy(&mut self) -> Result<(), Stop> {
        let mut specification = None;
        if self.is_rich()? {
            let cuda = rich_names();
            self.array(&[self.workspace], "platforms")?.retain(|value| !cuda.iter().any(|n| name_of(value) == Some(n)));
            for feature in ["cpu", "gpu"] {
                self.take(&["feature", feature], "platforms");
            }
            specification = self.take(&["feature", "gpu", "dependencies"], "pytorch-gpu");
            self.changed = true;
        }
        let specification = specification.unwrap_or_else(any_version);
        for platform in pins::PLATFORMS {
            self.include(&[self.workspace], "platforms", platform.into())?;
        }
        self.default(&["feature", "cpu", "dependencies"], "pytorch-cpu", any_version())?;
        self.default(&["feature", "gpu", "system-requirements"], "cuda", toml_edit::value(pins::CUDA))?;
        for platform in pins::CUDA_PLATFORMS {
            let path = ["feature", "gpu", "target", platform, "dependencies"];
            self.default(&path, "pytorch-gpu", specification.clone())?;
        }
        Ok(())
    }

    fn finish_rich(&mut self) -> Result<(), Stop> {
        let cuda = self.take(&["feature", "gpu", "system-requirements"], "cuda");
        let cuda = cuda.and_then(|item| item.as_str().map(str::to_owned)).unwrap_or_else(|| pins::CUDA.to_owned());
        let mut specification = None;
        for platform in pins::CUDA_PLATFORMS {
            specification =
                specification.or(self.take(&["feature", "gpu", "target", platform, "dependencies"], "pytorch-gpu"));
        }
        for platform in pins::PLATFORMS {
            self.include(&[self.workspace], "platforms", platform.into())?;
        }
        for (platform, name) in pins::CUDA_PLATFORMS.into_iter().zip(rich_names()) {
            let mut row = InlineTable::new();
            row.extend([("name", name.as_str()), ("platform", platform), ("cuda", &cuda)]);
            self.include(&[self.workspace], "platforms", Value::InlineTable(row))?;
            self.include(&["feature", "gpu"], "platforms", name.into())?;
        }
        for platform in pins::PLATFORMS {
            self.include(&["feature", "cpu"], "platforms", platform.into())?;
        }
        self.default(&["feature", "cpu", "dependencies"], "pytorch-cpu", any_version())?;
        self.default(&["feature", "gpu", "dependencies"], "pytorch-gpu", specification.unwrap_or_else(any_version))
    }

    /// `name = ["name"]` among the environments, in either of the two forms that pixi reads.
    fn environment(&mut self, name: &str) -> Result<(), Stop> {
        let environments = self.table(&["environments"])?;
        if environments.get(name).is_some_and(Item::is_table_like) {
            return self.include(&["environments", name], "features", name.into());
        }
        self.include(&["environments"], name, name.into())
    }

    /// Whether a platform of the workspace carries a CUDA version.
    fn is_rich(&mut self) -> Result<bool, Stop> {
        let workspace = self.workspace;
        if !self.table(&[workspace])?.contains_key("platforms") {
            return Ok(false);
        }
        let platforms = self.array(&[workspace], "platforms")?;
        Ok(platforms.iter().any(|value| value.as_inline_table().is_some_and(|row| row.contains_key("cuda"))))
    }

    /// The keys of a top-level table, none when it is not there.
    fn keys(&self, table: &str) -> Vec<String> {
        let table = self.document.get(table).and_then(Item::as_table_like);
        table.map(|table| table.iter().map(|(key, _)| key.to_owned()).collect()).unwrap_or_default()
    }

    /// The table at `path`; what is missing of it is made behind all other tables.
    fn table(&mut self, path: &[&str]) -> Result<&mut dyn TableLike, Stop> {
        let prefix = if has_table(self.document.as_table(), path) { None } else { self.take_trailing_comment() };
        let mut table: &mut dyn TableLike = self.document.as_table_mut();
        for (depth, key) in path.iter().enumerate() {
            if !table.contains_key(key) {
                let mut new = Table::new();
                let leaf = depth + 1 == path.len();
                new.set_implicit(!leaf);
                new.set_position(Some(self.next_position));
                if let Some(prefix) = prefix.as_ref().filter(|_| leaf) {
                    new.decor_mut().set_prefix(prefix);
                }
                self.next_position += 1;
                self.changed = true;
                table.insert(key, Item::Table(new));
            }
            let Some(item) = table.get_mut(key) else { unreachable!("the key was inserted above when it was missing") };
            let found = item.type_name();
            let path = &path[..=depth];
            table = item.as_table_like_mut().ok_or_else(|| Stop::shape(path, "a table", found))?;
        }
        Ok(table)
    }

    /// A comment at the end of the text belongs to what stands above it: it goes in front of the first new table.
    fn take_trailing_comment(&mut self) -> Option<String> {
        let comment = self.document.trailing().as_str()?.trim_end().to_owned();
        self.document.set_trailing("");
        if comment.is_empty() { None } else { Some(format!("{comment}\n\n")) }
    }

    /// The array `key` of the table at `path`, made empty when it is missing.
    fn array(&mut self, path: &[&str], key: &str) -> Result<&mut Array, Stop> {
        let missing = !self.table(path)?.contains_key(key);
        self.changed |= missing;
        let table = self.table(path)?;
        if missing {
            table.insert(key, toml_edit::value(Array::new()));
        }
        let full: Vec<&str> = path.iter().copied().chain([key]).collect();
        let found = table.get(key).map_or("none", Item::type_name);
        let array = table.get_mut(key).and_then(Item::as_array_mut);
        array.ok_or_else(|| Stop::shape(&full, "an array", found))
    }

    /// Adds a value to an array unless one of that name stands there.
    fn include(&mut self, path: &[&str], key: &str, value: Value) -> Result<(), Stop> {
        let array = self.array(path, key)?;
        if !array.iter().any(|present| name_of(present) == name_of(&value)) {
            push(array, value);
            self.changed = true;
        }
        Ok(())
    }

    /// Sets `key` unless it is set.
    fn default(&mut self, path: &[&str], key: &str, item: Item) -> Result<(), Stop> {
        let table = self.table(path)?;
        if !table.contains_key(key) {
            table.insert(key, item);
            self.changed = true;
        }
        Ok(())
    }

    /// Takes a key out, and the tables that hold nothing afterwards; none when it was not there.
    fn take(&mut self, path: &[&str], key: &str) -> Option<Item> {
        let taken = take_from(self.document.as_table_mut(), path, key);
        self.changed |= taken.is_some();
        taken
    }
}

impl Stop {
    fn shape(path: &[&str], expected: &'static str, found: &'static str) -> Self {
        Self::Shape { path: path.iter().map(|key| (*key).to_owned()).collect(), expected, found }
    }
}

fn has_table(table: &Table, path: &[&str]) -> bool {
    let mut table: &dyn TableLike = table;
    path.iter().all(|key| match table.get(key).and_then(Item::as_table_like) {
        Some(below) => {
            table = below;
            true
        }
        None => false,
    })
}

fn take_from(table: &mut dyn TableLike, path: &[&str], key: &str) -> Option<Item> {
    let Some((first, rest)) = path.split_first() else { return table.remove(key) };
    let below = table.get_mut(first)?.as_table_like_mut()?;
    let taken = take_from(below, rest, key)?;
    if below.is_empty() {
        table.remove(first);
    }
    Some(taken)
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

fn any_version() -> Item {
    toml_edit::value("*")
}

fn channels(channel: &str) -> Item {
    toml_edit::value(Array::from_iter([channel]))
}

/// The names that the gpu feature's platforms have in rich style.
fn rich_names() -> Vec<String> {
    pins::CUDA_PLATFORMS.iter().map(|platform| format!("{platform}-cuda")).collect()
}

/// What a platform is called: its name, else the conda platform.
fn name_of(platform: &Value) -> Option<&str> {
    match platform.as_inline_table() {
        Some(row) => row.get("name").or(row.get("platform"))?.as_str(),
        None => platform.as_str(),
    }
}

/// The conda platform of a row.
fn subdir_of(platform: &Value) -> Option<&str> {
    match platform.as_inline_table() {
        Some(row) => row.get("platform").or(row.get("name"))?.as_str(),
        None => platform.as_str(),
    }
}

/// Appends to an array in the way that it is written: on one line, or one value a line with comments behind them.
fn push(array: &mut Array, mut value: Value) {
    let raw = |text: Option<&toml_edit::RawString>| text.and_then(|t| t.as_str()).unwrap_or_default().to_owned();
    let tail = if array.trailing_comma() {
        raw(Some(array.trailing()))
    } else {
        raw(array.iter().last().and_then(|last| last.decor().suffix()))
    };
    let Some(last) = array.len().checked_sub(1).filter(|_| tail.contains('\n')) else { return array.push(value) };
    let (above, end) = tail.split_at(tail.rfind('\n').map_or(0, |newline| newline + 1));
    let before = raw(array.get(last).and_then(|value| value.decor().prefix()));
    let indent = before.rsplit('\n').next().unwrap_or_default();
    value.decor_mut().set_prefix(format!("{above}{indent}"));
    if array.trailing_comma() {
        array.set_trailing(format!("\n{end}"));
    } else {
        value.decor_mut().set_suffix(format!("\n{end}"));
        if let Some(last) = array.get_mut(last) {
            last.decor_mut().set_suffix("");
        }
    }
    array.push_formatted(value);
}

/// What becomes the first value keeps no space that parted it from the one before.
fn tidy_first(array: &mut Array) {
    if let Some(first) = array.get_mut(0)
        && first
            .decor()
            .prefix()
            .and_then(|prefix| prefix.as_str())
            .is_some_and(|prefix| prefix.trim_matches(' ').is_empty())
    {
        first.decor_mut().set_prefix("");
    }
}

/// Where the value at `path` stands, or the nearest thing above it that has a place.
fn span_of(table: &Table, path: &[String]) -> Option<Range<usize>> {
    let mut span = table.span();
    let mut table: &dyn TableLike = table;
    for key in path {
        let (key, item) = table.get_key_value(key)?;
        span = item.span().or(key.span()).or(span);
        match item.as_table_like() {
            Some(below) => table = below,
            None => break,
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
