//! A TOML document whose every key and value knows its line and column, for errors that lead there.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{ManifestError, Refusal, Unsupported};

/// A place in a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The manifest.
    pub path: PathBuf,
    /// Counted from 1.
    pub line: usize,
    /// Counted in characters, from 1.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.path.display(), self.line, self.column)
    }
}

/// The text that spans point into.
#[derive(Clone, Copy)]
pub struct Document<'a> {
    pub path: &'a Path,
    pub text: &'a str,
}

impl Document<'_> {
    pub fn place(&self, span: &Range<usize>) -> Place {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Place {
            path: self.path.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}

/// A value, its dotted name for messages, and where it stands.
#[derive(Clone)]
pub struct Node<'a> {
    document: Document<'a>,
    pub name: String,
    /// Where its key stands, or the value itself in an array.
    pub span: Range<usize>,
    value: &'a DeValue<'a>,
}

/// What keys of a table mean. A key in none of the lists is an error: the manifest's language grows.
pub struct Keys {
    /// Those that are read.
    pub used: &'static [&'static str],
    /// Those that change nothing about what is locked.
    pub harmless: &'static [&'static str],
    /// Those that would change it, and why they are refused.
    pub refused: &'static [(&'static str, Unsupported)],
}

/// The tables of a document.
#[derive(Clone)]
pub struct Table<'a> {
    document: Document<'a>,
    name: String,
    table: &'a DeTable<'a>,
}

impl<'a> Table<'a> {
    pub fn root(document: Document<'a>, table: &'a DeTable<'a>) -> Self {
        Self { document, name: String::new(), table }
    }

    /// The entries in the order in which they are written.
    pub fn entries(&self) -> Vec<(String, Node<'a>)> {
        let mut entries: Vec<_> = self.table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        entries.into_iter().map(|(key, value)| (key.get_ref().to_string(), self.node(key, value))).collect()
    }

    /// Where the document begins: the place of what is not there.
    pub fn start(&self) -> Place {
        self.document.place(&(0..0))
    }

    pub fn get(&self, key: &str) -> Option<Node<'a>> {
        self.table.iter().find(|(name, _)| name.get_ref() == key).map(|(name, value)| self.node(name, value))
    }

    fn node(&self, key: &'a Spanned<toml::de::DeString<'a>>, value: &'a Spanned<DeValue<'a>>) -> Node<'a> {
        let name = match self.name.as_str() {
            "" => key.get_ref().to_string(),
            table => format!("{table}.{}", key.get_ref()),
        };
        Node { document: self.document, name, span: key.span(), value: value.get_ref() }
    }

    /// Notes what is refused, by name. A key that is not known is an error: nobody can say whom it concerns.
    pub fn check(&self, keys: &Keys, refused: &mut Vec<Refusal>) -> Result<(), ManifestError> {
        for (key, node) in self.entries() {
            if keys.used.contains(&key.as_str()) || keys.harmless.contains(&key.as_str()) || node.is_empty() {
                continue;
            }
            match keys.refused.iter().find(|(name, _)| *name == key) {
                Some((_, what)) => refused.push(node.refusal(*what)),
                None => return Err(node.refused("this key is not known here")),
            }
        }
        Ok(())
    }

    /// Checks a table in which nothing is merely noted: each key is read, or an error.
    pub fn only(&self, used: &'static [&'static str]) -> Result<(), ManifestError> {
        self.check(&Keys { used, harmless: &[], refused: &[] }, &mut Vec::new())
    }
}

impl<'a> Node<'a> {
    pub fn place(&self) -> Place {
        self.document.place(&self.span)
    }

    pub fn refusal(&self, what: Unsupported) -> Refusal {
        Refusal { place: self.place(), key: self.name.clone(), what }
    }

    pub fn refused(&self, why: &'static str) -> ManifestError {
        ManifestError::Refused { refusal: self.refusal(Unsupported::Other(why)) }
    }

    pub fn invalid(&self, reason: impl Into<String>) -> ManifestError {
        ManifestError::Invalid { place: self.place(), key: self.name.clone(), reason: reason.into() }
    }

    fn is_empty(&self) -> bool {
        self.value.as_table().is_some_and(|table| table.is_empty())
    }

    fn expected(&self, what: &str) -> ManifestError {
        self.invalid(format!("must be {what}, not {}", self.value.type_str()))
    }

    pub fn table(&self) -> Result<Table<'a>, ManifestError> {
        let table = self.value.as_table().ok_or_else(|| self.expected("a table"))?;
        Ok(Table { document: self.document, name: self.name.clone(), table })
    }

    pub fn as_table(&self) -> Option<Table<'a>> {
        self.table().ok()
    }

    pub fn as_str(&self) -> Option<&'a str> {
        self.value.as_str()
    }

    pub fn str(&self) -> Result<&'a str, ManifestError> {
        self.value.as_str().ok_or_else(|| self.expected("a string"))
    }

    pub fn bool(&self) -> Result<bool, ManifestError> {
        self.value.as_bool().ok_or_else(|| self.expected("true or false"))
    }

    pub fn integer(&self) -> Result<i64, ManifestError> {
        let integer = self.value.as_integer().ok_or_else(|| self.expected("a whole number"))?;
        i64::from_str_radix(integer.as_str(), integer.radix()).map_err(|error| self.invalid(error.to_string()))
    }

    pub fn array(&self) -> Result<Vec<Node<'a>>, ManifestError> {
        let array = self.value.as_array().ok_or_else(|| self.expected("an array"))?;
        let node = |value: &'a Spanned<DeValue<'a>>| Node {
            document: self.document,
            name: self.name.clone(),
            span: value.span(),
            value: value.get_ref(),
        };
        Ok(array.iter().map(node).collect())
    }

    pub fn parse<T: std::str::FromStr>(&self) -> Result<T, ManifestError>
    where
        T::Err: fmt::Display,
    {
        let text = self.str()?;
        text.parse().map_err(|error: T::Err| self.invalid(format!("`{text}`: {error}")))
    }
}
