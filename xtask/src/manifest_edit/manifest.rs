//! A manifest that is being edited: what stands in it is read, what is missing is put in the way that it is written.

use toml_edit::{Array, Decor, DocumentMut, InlineTable, Item, RawString, Table, TableLike, Value};

use super::Stop;
use super::change::Change;

/// The document, and what was done to it.
pub struct Manifest {
    document: DocumentMut,
    /// `workspace`, or `project` as old manifests call it.
    pub workspace: &'static str,
    /// Where the next new table goes: behind every table of the text, which has fewer tables than bytes.
    next_position: isize,
    /// What was changed.
    pub changes: Vec<Change>,
    /// What need not be changed though it was asked for, and what else there is to say.
    pub notes: Vec<String>,
}

impl Manifest {
    /// A document of a text of `length` bytes.
    pub fn new(document: DocumentMut, length: usize) -> Result<Self, Stop> {
        let workspace = ["workspace", "project"].into_iter().find(|key| document.contains_key(key));
        let next_position = isize::try_from(length).unwrap_or(isize::MAX / 2);
        let workspace = workspace.ok_or(Stop::NoWorkspace)?;
        Ok(Self { document, workspace, next_position, changes: Vec::new(), notes: Vec::new() })
    }

    /// The whole document.
    pub fn root(&self) -> &Table {
        self.document.as_table()
    }

    /// The whole document, to change it.
    pub fn root_mut(&mut self) -> &mut Table {
        self.document.as_table_mut()
    }

    /// The table at `path`, where it is there.
    pub fn look(&self, path: &[&str]) -> Result<Option<&dyn TableLike>, Stop> {
        let mut table: &dyn TableLike = self.document.as_table();
        for (depth, key) in path.iter().enumerate() {
            let Some(item) = table.get(key) else { return Ok(None) };
            let below = item.as_table_like();
            table = below.ok_or_else(|| Stop::shape(&path[..=depth], "a table", item.type_name()))?;
        }
        Ok(Some(table))
    }

    /// What `key` holds in the table at `path`, where it is there.
    pub fn value(&self, path: &[&str], key: &str) -> Result<Option<&Item>, Stop> {
        Ok(self.look(path)?.and_then(|table| table.get(key)))
    }

    /// The string `key` of the table at `path`, where it is there.
    pub fn string(&self, path: &[&str], key: &str) -> Result<Option<&str>, Stop> {
        let Some(item) = self.value(path, key)? else { return Ok(None) };
        let wrong = || Stop::shape(&[path, &[key]].concat(), "a string", item.type_name());
        item.as_str().map(Some).ok_or_else(wrong)
    }

    /// The array `key` of the table at `path`, where it is there.
    pub fn array(&self, path: &[&str], key: &str) -> Result<Option<&Array>, Stop> {
        let Some(item) = self.value(path, key)? else { return Ok(None) };
        let wrong = || Stop::shape(&[path, &[key]].concat(), "an array", item.type_name());
        item.as_array().map(Some).ok_or_else(wrong)
    }

    /// The strings of an array; none when it is not there.
    pub fn strings(&self, path: &[&str], key: &str) -> Result<Vec<String>, Stop> {
        let values = self.array(path, key)?.into_iter().flatten().enumerate();
        let string = |(index, value): (usize, &Value)| {
            let place = format!("[{index}]");
            let wrong = || Stop::shape(&[path, &[key, &place]].concat(), "a string", value.type_name());
            value.as_str().map(str::to_owned).ok_or_else(wrong)
        };
        values.map(string).collect()
    }

    /// The keys of a table; none when it is not there.
    pub fn keys(&self, path: &[&str]) -> Result<Vec<String>, Stop> {
        let table = self.look(path)?;
        Ok(table.map(|table| table.iter().map(|(key, _)| key.to_owned()).collect()).unwrap_or_default())
    }

    /// The table at `path`; what is missing of it is made behind all other tables.
    pub fn table(&mut self, path: &[&str]) -> Result<&mut Item, Stop> {
        let comment = if self.makes_header(path)? { self.take_trailing_comment() } else { None };
        let mut item = self.document.as_item_mut();
        for (depth, key) in path.iter().enumerate() {
            let leaf = depth + 1 == path.len();
            if item.as_table_like().is_some_and(|table| !table.contains_key(key)) {
                let new = if item.is_inline_table() {
                    Item::Value(InlineTable::new().into())
                } else {
                    let mut new = Table::new();
                    new.set_implicit(!leaf);
                    new.set_position(Some(self.next_position));
                    if let Some(comment) = comment.as_ref().filter(|_| leaf) {
                        new.decor_mut().set_prefix(comment);
                    }
                    self.next_position += 1;
                    Item::Table(new)
                };
                put(item, key, new);
            }
            let below = item.as_table_like_mut().and_then(|table| table.get_mut(key));
            let found = below.as_ref().map_or("none", |below| below.type_name());
            item = below.filter(|below| below.is_table_like()).ok_or_else(|| {
                // What is not a table was there before, at this place.
                Stop::shape(&path[..=depth], "a table", found)
            })?;
        }
        Ok(item)
    }

    /// The array `key` of the table at `path`, made empty when it is missing.
    pub fn array_mut(&mut self, path: &[&str], key: &str) -> Result<&mut Array, Stop> {
        let full = [path, &[key]].concat();
        let table = self.table(path)?;
        if table.get(key).is_none() {
            put(table, key, toml_edit::value(Array::new()));
        }
        let found = table.get(key).map_or("none", Item::type_name);
        let array = table.get_mut(key).and_then(Item::as_array_mut);
        array.ok_or_else(|| Stop::shape(&full, "an array", found))
    }

    /// Sets `key`. A value that is there is replaced; what stands around it stays.
    pub fn set(&mut self, path: &[&str], key: &str, value: impl Into<Value>) -> Result<(), Stop> {
        let table = self.table(path)?;
        match table.get_mut(key).and_then(Item::as_value_mut) {
            Some(old) => replace(old, value.into()),
            None => put(table, key, Item::Value(value.into())),
        }
        Ok(())
    }

    /// Takes a key out, and the tables that hold nothing afterwards; none when it was not there.
    pub fn take(&mut self, path: &[&str], key: &str) -> Option<Item> {
        take_from(self.document.as_table_mut(), path, key)
    }

    /// Puts comments before the first of these tables that has a header, else at the end.
    pub fn keep_comments(&mut self, comments: &[String], tables: &[&[&str]]) {
        let lines: String = comments.iter().map(|comment| format!("{comment}\n")).collect();
        for path in tables {
            let found = path.iter().try_fold(self.document.as_item_mut(), |item, key| item.get_mut(key));
            if let Some(table) = found.and_then(Item::as_table_mut).filter(|table| has_header(table)) {
                let before = raw(table.decor().prefix()).unwrap_or_else(|| "\n".to_owned());
                table.decor_mut().set_prefix(format!("{before}{lines}"));
                return;
            }
        }
        let before = self.document.trailing().as_str().unwrap_or_default().to_owned();
        let newline = if before.is_empty() || before.ends_with('\n') { "" } else { "\n" };
        self.document.set_trailing(format!("{before}{newline}{lines}"));
    }

    /// The text.
    pub fn text(&self) -> String {
        self.document.to_string()
    }

    /// Whether `table` will make a table with a header of its own: it is not there, and does not go into an inline one.
    fn makes_header(&self, path: &[&str]) -> Result<bool, Stop> {
        let mut item = self.document.as_item();
        for (depth, key) in path.iter().enumerate() {
            if !item.is_table_like() {
                return Err(Stop::shape(&path[..depth], "a table", item.type_name()));
            }
            match item.get(key) {
                Some(below) => item = below,
                None => return Ok(item.is_table()),
            }
        }
        Ok(false)
    }

    /// A comment at the end of the text belongs to what stands above it: it goes in front of the first new table.
    fn take_trailing_comment(&mut self) -> Option<String> {
        let comment = self.document.trailing().as_str()?.trim_end().to_owned();
        self.document.set_trailing("");
        if comment.is_empty() { None } else { Some(format!("{comment}\n\n")) }
    }
}

fn has_header(table: &Table) -> bool {
    let holds_values = table.iter().any(|(_, item)| item.is_value());
    !table.is_dotted() && (!table.is_implicit() || holds_values)
}

fn take_from(table: &mut dyn TableLike, path: &[&str], key: &str) -> Option<Item> {
    let Some((first, rest)) = path.split_first() else { return table.remove(key) };
    let below = table.get_mut(first)?.as_table_like_mut()?;
    let taken = take_from(below, rest, key)?;
    if below.is_empty() {
        table.remove(first);
    } else if let Some(table) = table.get_mut(first).and_then(Item::as_table_mut) {
        // A header above nothing but other headers says nothing.
        let holds_values = table.iter().any(|(_, item)| item.is_value());
        table.set_implicit(table.is_implicit() || !holds_values);
    }
    Some(taken)
}

/// Replaces a value and keeps the space and the comments around it.
pub fn replace(old: &mut Value, new: Value) {
    let decor = old.decor().clone();
    *old = new;
    *old.decor_mut() = decor;
}

/// Puts a new key into a table of any form, written as its neighbours are.
fn put(into: &mut Item, key: &str, item: Item) {
    match (into, item) {
        (Item::Value(Value::InlineTable(table)), item) => {
            if let Ok(value) = item.into_value() {
                put_inline(table, key, value);
            }
        }
        (Item::Table(table), item) => {
            let is_value = item.is_value() && !table.is_dotted();
            let last = table.iter().filter(|(_, item)| item.is_value()).last();
            let last = last.and_then(|(key, _)| table.key(key)).and_then(|key| raw(key.leaf_decor().prefix()));
            table.insert(key, item);
            let indent = last.as_deref().map(|last| indent_of(last).unwrap_or(last));
            let indent = indent.filter(|indent| is_value && !indent.is_empty());
            if let (Some(indent), Some(mut key)) = (indent, table.key_mut(key)) {
                key.leaf_decor_mut().set_prefix(indent);
            }
        }
        (_, _) => {}
    }
}

fn put_inline(table: &mut InlineTable, key: &str, mut value: Value) {
    let comma = table.trailing_comma();
    let last = table.iter().last().map(|(key, value)| (key.to_owned(), raw(value.decor().suffix())));
    let (name, suffix) = last.unzip();
    let prefix = name.as_deref().map(|name| raw(table.key(name).and_then(|key| key.leaf_decor().prefix())));
    let place =
        Place::behind(comma, raw(Some(table.trailing())), suffix.flatten(), prefix.map(Option::unwrap_or_default));
    if let Some(last) = name.filter(|_| place.moves_suffix).and_then(|name| table.get_mut(&name)) {
        last.decor_mut().set_suffix("");
    }
    if let Some(suffix) = place.suffix {
        value.decor_mut().set_suffix(suffix);
    }
    table.insert(key, value);
    if let (Some(prefix), Some(mut key)) = (place.prefix, table.key_mut(key)) {
        key.leaf_decor_mut().set_prefix(prefix);
    }
    if let Some(trailing) = place.trailing {
        table.set_trailing(trailing);
    }
}

/// Appends to an array in the way that it is written: on one line, or one value a line with comments behind them.
pub fn push(array: &mut Array, mut value: Value) {
    let comma = array.trailing_comma();
    let last = array.iter().last().map(Value::decor);
    let prefix = last.map(|last| raw(last.prefix()).unwrap_or_default());
    let between = if array.is_empty() { "" } else { " " };
    let suffix = last.and_then(|last| raw(last.suffix()));
    let place = Place::behind(comma, raw(Some(array.trailing())), suffix, prefix);
    if let Some(last) = array.iter_mut().last().filter(|_| place.moves_suffix) {
        last.decor_mut().set_suffix("");
    }
    let prefix = place.prefix.unwrap_or_else(|| between.to_owned());
    *value.decor_mut() = Decor::new(prefix, place.suffix.unwrap_or_default());
    array.push_formatted(value);
    if let Some(trailing) = place.trailing {
        array.set_trailing(trailing);
    }
}

/// Where a new last member of a list goes, and what becomes of the space and the comments before the closing bracket.
struct Place {
    prefix: Option<String>,
    suffix: Option<String>,
    trailing: Option<String>,
    moves_suffix: bool,
}

impl Place {
    /// Behind the last member, which has this suffix and prefix (none in an empty list), in a list with or without a
    /// comma at its end and with `trailing` behind that.
    fn behind(comma: bool, trailing: Option<String>, suffix: Option<String>, prefix: Option<String>) -> Self {
        let at_end = comma || prefix.is_none();
        let Some(tail) = (if at_end { trailing } else { suffix }) else {
            return Self { prefix: None, suffix: None, trailing: None, moves_suffix: false };
        };
        let (before, end) = match tail.rfind('\n') {
            // On one line the space before the bracket stays before the bracket.
            None => (None, tail),
            Some(newline) => {
                let (above, end) = tail.split_at(newline + 1);
                let indent = prefix.as_deref().and_then(indent_of).unwrap_or("    ");
                (Some(format!("{above}{indent}")), format!("\n{end}"))
            }
        };
        match (comma, prefix.is_none()) {
            (true, _) => Self { prefix: before, suffix: Some(String::new()), trailing: Some(end), moves_suffix: false },
            (false, true) if before.is_none() => {
                Self { prefix: None, suffix: None, trailing: Some(String::new()), moves_suffix: false }
            }
            (false, empty) => {
                let trailing = empty.then(String::new);
                Self { prefix: before, suffix: Some(end), trailing, moves_suffix: !empty }
            }
        }
    }
}

/// Takes values out of an array. The comments that were about them get lines of their own at their place.
pub fn retain(array: &mut Array, keep: impl Fn(&Value) -> bool) {
    let kept: Vec<bool> = array.iter().map(&keep).collect();
    if kept.iter().all(|kept| *kept) {
        return;
    }
    let mut orphans = String::new();
    let mut behind_removed = false;
    let mut indent = String::new();
    for (value, kept) in array.iter_mut().zip(&kept) {
        let (prefix, suffix) = (raw(value.decor().prefix()).unwrap_or_default(), raw(value.decor().suffix()));
        indent = indent_of(&prefix).unwrap_or(&indent).to_owned();
        let (above, own) = parted(&prefix, behind_removed, &indent);
        orphans.push_str(&above);
        if *kept && !orphans.is_empty() {
            let newline = if own.contains('\n') { "" } else { "\n" };
            value.decor_mut().set_prefix(format!("{}{newline}{own}", std::mem::take(&mut orphans)));
        } else if !kept {
            orphans.push_str(own.trim_end());
            orphans.push_str(&parted(&suffix.unwrap_or_default(), true, &indent).0);
        }
        behind_removed = !kept;
    }
    let mut kept = kept.into_iter();
    array.retain(|_| kept.next().unwrap_or(true));
    close(array, &orphans, behind_removed, &indent);
}

/// Parts what stands before a value into what is about the one before, and the rest. What is about a value that was
/// removed gets a line of its own.
fn parted(text: &str, behind_removed: bool, indent: &str) -> (String, String) {
    let (first, rest) = text.find('\n').map_or((text, ""), |newline| text.split_at(newline));
    match (first.trim_end(), behind_removed) {
        ("", _) => (String::new(), text.to_owned()),
        (comment, true) => (format!("\n{indent}{}", comment.trim_start()), rest.to_owned()),
        (comment, false) => (comment.to_owned(), rest.to_owned()),
    }
}

/// Ends an array that values were taken out of.
fn close(array: &mut Array, orphans: &str, last_was_removed: bool, indent: &str) {
    let comma = array.trailing_comma() && !array.is_empty();
    array.set_trailing_comma(comma);
    let Some(last) = array.iter_mut().last().filter(|_| !comma) else {
        let trailing = raw(Some(array.trailing())).unwrap_or_default();
        let (above, own) = parted(&trailing, last_was_removed, indent);
        let newline = if own.contains('\n') || (above.is_empty() && orphans.is_empty()) { "" } else { "\n" };
        return array.set_trailing(format!("{orphans}{above}{newline}{own}"));
    };
    if last_was_removed {
        let suffix = raw(last.decor().suffix()).unwrap_or_default();
        let newline = if orphans.is_empty() && indent.is_empty() { "" } else { "\n" };
        last.decor_mut().set_suffix(format!("{suffix}{orphans}{newline}"));
    }
}

/// What becomes the first value keeps no space that parted it from the one before.
pub fn tidy_first(array: &mut Array) {
    if let Some(first) = array.get_mut(0)
        && raw(first.decor().prefix()).is_some_and(|prefix| prefix.trim_matches(' ').is_empty())
    {
        first.decor_mut().set_prefix("");
    }
}

fn raw(text: Option<&RawString>) -> Option<String> {
    text.and_then(RawString::as_str).map(str::to_owned)
}

/// The space at the start of the line that a prefix ends in, if it begins one.
fn indent_of(prefix: &str) -> Option<&str> {
    prefix.rfind('\n').map(|newline| &prefix[newline + 1..])
}
