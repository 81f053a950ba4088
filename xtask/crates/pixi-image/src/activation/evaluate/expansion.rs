//! From words to values: parameters, field splitting, path names (POSIX.1-2024, 2.6).

use super::pattern::Pattern;
use super::variables::{Lookup, Unknowns};
use super::words::{self, NotAWord, Operation, Piece};
use super::{Result, Shell};

/// The longest text that an expansion may make: far beyond what a variable holds.
const MAX_TEXT: usize = 1 << 20;
/// Letters of `$-` that are off in the shells that read activation scripts; scripts that turn them on are refused.
const OPTIONS_OFF: &str = "aefinuvxC";

/// Where a character of an expanded word comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// Quotes: it stands for itself.
    Quotes,
    /// The script's text.
    Text,
    /// An unquoted expansion, which is split at blanks.
    Expansion,
}

type Character = (char, Origin);

/// The fields of a word so far.
struct Fields {
    /// Whether blanks of unquoted expansions separate fields.
    split: bool,
    done: Vec<Vec<Character>>,
    current: Option<Vec<Character>>,
    length: usize,
}

impl Fields {
    fn new(split: bool) -> Self {
        Self { split, done: Vec::new(), current: None, length: 0 }
    }

    fn push(&mut self, text: &str, from: Origin) -> Result<()> {
        self.length += text.len();
        if self.length > MAX_TEXT {
            return Err("a very long text".to_owned());
        }
        if from == Origin::Quotes {
            self.current.get_or_insert_default();
        }
        for character in text.chars() {
            if self.split && from == Origin::Expansion && matches!(character, ' ' | '\t' | '\n') {
                self.end();
            } else {
                self.current.get_or_insert_default().push((character, from));
            }
        }
        Ok(())
    }

    fn end(&mut self) {
        self.done.extend(self.current.take());
    }

    fn finish(mut self) -> Vec<Vec<Character>> {
        self.end();
        self.done
    }
}

fn text_of(characters: &[Character]) -> String {
    characters.iter().map(|(character, _)| character).collect()
}

impl Shell<'_> {
    /// The value of a word that is not split: of an assignment, of `case`, in `[[ ]]`.
    pub fn text(&mut self, word: &str, assignment: bool) -> Result<String> {
        let characters = self.characters(word, assignment)?;
        Ok(text_of(&characters))
    }

    fn characters(&mut self, word: &str, assignment: bool) -> Result<Vec<Character>> {
        let pieces = words::parse(word, assignment).map_err(|NotAWord(what)| what)?;
        let mut fields = Fields::new(false);
        self.expand(&pieces, &mut fields, false)?;
        Ok(fields.finish().concat())
    }

    /// The arguments that a word becomes.
    pub fn fields(&mut self, word: &str) -> Result<Vec<String>> {
        let pieces = words::parse(word, false).map_err(|NotAWord(what)| what)?;
        let braces = |piece: &Piece| matches!(piece, Piece::Text { text, quoted: false } if text.contains('{'));
        if pieces.iter().any(braces) {
            return Err("braces, which only some shells expand".to_owned());
        }
        let mut fields = Fields::new(true);
        self.expand(&pieces, &mut fields, false)?;
        let mut texts = Vec::new();
        for field in fields.finish() {
            let split: String = field.iter().filter(|(_, from)| *from == Origin::Expansion).map(|(c, _)| *c).collect();
            self.known(&split).map_err(|known| format!("an unquoted use of {known}"))?;
            let active = |(character, from): &Character| *from != Origin::Quotes && "*?[".contains(*character);
            if field.iter().any(active) && text_of(&field) != "[" {
                texts.extend(self.path_names(&field)?);
            } else {
                texts.push(text_of(&field));
            }
        }
        Ok(texts)
    }

    /// Whether a value matches the pattern that a word becomes.
    pub fn matches(&mut self, value: &str, word: &str) -> Result<bool> {
        let characters = self.characters(word, false)?;
        self.matches_characters(value, &characters)
    }

    fn matches_characters(&mut self, value: &str, characters: &[Character]) -> Result<bool> {
        self.known(&text_of(characters)).map_err(|known| format!("a pattern with {known}"))?;
        if let Err(known) = self.known(value) {
            return self.matches_unknown(value, characters).ok_or_else(|| format!("it depends on {known}"));
        }
        let pattern = self.pattern(characters)?;
        let value: Vec<char> = value.chars().collect();
        self.spend(value.len() as u64 * pattern.cost())?;
        pattern.matches(&value).ok_or_else(depends_on_the_locale)
    }

    /// `case $- in *x*)` asks for an option that is off; `''` and `*` need no more than is known.
    fn matches_unknown(&self, value: &str, characters: &[Character]) -> Option<bool> {
        let active = |from: &Origin| *from != Origin::Quotes;
        match characters {
            [] => self.emptiness(value),
            [('*', from)] if active(from) => Some(true),
            [('*', first), (option, _), ('*', last)] if active(first) && active(last) => {
                let mut marks = value.chars();
                let name = self.unknowns.of(marks.next()?).map(|(name, _)| name.as_str());
                (name == Some("-") && marks.next().is_none() && OPTIONS_OFF.contains(*option)).then_some(false)
            }
            _ => None,
        }
    }

    fn pattern(&self, characters: &[Character]) -> Result<Pattern> {
        let characters: Vec<_> = characters.iter().map(|(c, from)| (*c, *from == Origin::Quotes)).collect();
        Pattern::new(&characters).ok_or_else(|| "a pattern that not all shells read alike".to_owned())
    }

    /// Appends what pieces become. `nested`: they stand in an unquoted expansion, so that they are split as its value is.
    fn expand(&mut self, pieces: &[Piece], out: &mut Fields, nested: bool) -> Result<()> {
        for piece in pieces {
            match piece {
                Piece::Text { text, quoted: true } => out.push(text, Origin::Quotes)?,
                Piece::Text { text, quoted: false } => {
                    out.push(text, if nested { Origin::Expansion } else { Origin::Text })?;
                }
                Piece::Parameter { name, operation, quoted } if name == "@" || name == "*" => {
                    if *operation != Operation::Value {
                        return Err(format!("an operation on ${name}"));
                    }
                    self.expand_arguments(name == "*", *quoted, out)?;
                }
                Piece::Parameter { name, operation, quoted } => self.parameter(name, operation, *quoted, out)?,
            }
        }
        Ok(())
    }

    fn expand_arguments(&mut self, joined: bool, quoted: bool, out: &mut Fields) -> Result<()> {
        let from = if quoted { Origin::Quotes } else { Origin::Expansion };
        for (number, argument) in self.arguments.iter().enumerate() {
            if number > 0 && out.split && !(joined && quoted) {
                out.end();
            } else if number > 0 {
                out.push(" ", Origin::Quotes)?;
            }
            out.push(argument, from)?;
        }
        if joined && quoted {
            out.push("", Origin::Quotes)?;
        }
        Ok(())
    }

    fn parameter(&mut self, name: &str, operation: &Operation, quoted: bool, out: &mut Fields) -> Result<()> {
        let from = if quoted { Origin::Quotes } else { Origin::Expansion };
        let value = self.lookup(name)?;
        let value = match operation {
            Operation::Otherwise { sign, colon, word } => {
                return self.otherwise(name, value, (*sign, *colon), word, quoted, out);
            }
            Operation::Value => match value {
                Lookup::Set(value) => value,
                Lookup::Unset => String::new(),
                Lookup::Maybe => self.unknown(name, false)?,
            },
            Operation::Length | Operation::Cut { .. } => {
                let value = match value {
                    Lookup::Set(value) => value,
                    Lookup::Unset => String::new(),
                    Lookup::Maybe => self.unknown(name, false)?,
                };
                if self.known(&value).is_err() {
                    // Of a part of an unknown value nothing is known.
                    self.unknown(name, matches!(operation, Operation::Length))?
                } else if let Operation::Cut { suffix, longest, pattern } = operation {
                    self.cut(&value, *suffix, *longest, pattern)?
                } else if value.is_ascii() {
                    value.len().to_string()
                } else {
                    return Err(depends_on_the_locale());
                }
            }
        };
        self.spend(value.len() as u64)?;
        out.push(&value, from)
    }

    /// `${NAME:-word}` and its kin.
    fn otherwise(
        &mut self,
        name: &str,
        value: Lookup,
        (sign, colon): (char, bool),
        word: &[Piece],
        quoted: bool,
        out: &mut Fields,
    ) -> Result<()> {
        let from = if quoted { Origin::Quotes } else { Origin::Expansion };
        let there = match &value {
            Lookup::Unset => Some(false),
            Lookup::Set(value) if colon => self.emptiness(value).map(|empty| !empty),
            Lookup::Set(_) => Some(true),
            Lookup::Maybe => None,
        };
        let value = match value {
            Lookup::Set(value) => value,
            _ => String::new(),
        };
        match (there, sign) {
            (Some(true), '+') | (Some(false), '-') => {
                if quoted {
                    out.push("", Origin::Quotes)?;
                }
                self.expand(word, out, !quoted)
            }
            (Some(false), '+') => out.push("", from),
            (Some(true), _) => out.push(&value, from),
            (Some(false), '=') => {
                let mut fields = Fields::new(false);
                self.expand(word, &mut fields, false)?;
                let value = text_of(&fields.finish().concat());
                self.assign(name, value.clone())?;
                out.push(&value, from)
            }
            (None, '-' | '+') => {
                // One of two texts, and which is not known.
                let mut fields = Fields::new(false);
                self.expand(word, &mut fields, false)?;
                let word = text_of(&fields.finish().concat());
                let filled = sign == '-' && colon && self.emptiness(&word) == Some(false);
                let mark = self.unknown(name, filled)?;
                out.push(&mark, from)
            }
            _ => Err(format!("`${{{name}{}{sign}...}}`, which may end the shell", if colon { ":" } else { "" })),
        }
    }

    /// `${NAME#pattern}` and its kin.
    fn cut(&mut self, value: &str, suffix: bool, longest: bool, pattern: &[Piece]) -> Result<String> {
        let mut fields = Fields::new(false);
        self.expand(pattern, &mut fields, false)?;
        let characters = fields.finish().concat();
        self.known(&text_of(&characters)).map_err(|known| format!("a pattern with {known}"))?;
        let pattern = self.pattern(&characters)?;
        let value: Vec<char> = value.chars().collect();
        let count = value.len();
        self.spend((count as u64 + 1).pow(2) * pattern.cost())?;
        let mut lengths: Vec<usize> = (0..=count).collect();
        if longest {
            lengths.reverse();
        }
        for length in lengths {
            let (part, rest) = match suffix {
                true => (&value[count - length..], &value[..count - length]),
                false => (&value[..length], &value[length..]),
            };
            if pattern.matches(part).ok_or_else(depends_on_the_locale)? {
                return Ok(rest.iter().collect());
            }
        }
        Ok(value.iter().collect())
    }

    /// What an unquoted pattern becomes: the paths that match, else itself.
    fn path_names(&mut self, field: &[Character]) -> Result<Vec<String>> {
        let text = text_of(field);
        let below = self.below_prefix(&text).is_some_and(|rest| !rest.is_empty());
        let plain = text.split('/').skip(1).all(|part| !matches!(part, "" | "." | ".."));
        if !below || !plain || text.chars().any(Unknowns::is_mark) {
            return Err("a pattern for paths outside of the environment".to_owned());
        }
        let mut found = vec![String::new()];
        for part in field[1..].split(|(character, _)| *character == '/') {
            let literal = part.iter().all(|(c, from)| *from == Origin::Quotes || !"*?[".contains(*c));
            let mut next = Vec::new();
            for directory in found {
                if literal {
                    next.push(format!("{directory}/{}", text_of(part)));
                    continue;
                }
                let pattern = self.pattern(part)?;
                for name in self.files.names(&directory) {
                    self.spend(name.len() as u64 * pattern.cost() + 1)?;
                    let name = String::from_utf8(name).map_err(|_| "a pattern for names that are not UTF-8")?;
                    let hidden = name.starts_with('.') && part.first().is_none_or(|(first, _)| *first != '.');
                    let characters: Vec<char> = name.chars().collect();
                    if !hidden && pattern.matches(&characters).ok_or_else(depends_on_the_locale)? {
                        next.push(format!("{directory}/{name}"));
                    }
                }
            }
            found = next;
        }
        if !text.rsplit('/').next().is_some_and(|last| last.contains(['*', '?', '['])) {
            found.retain(|path| self.files.kind(path).is_some());
        }
        found.sort();
        if found.is_empty() {
            return Ok(vec![text]);
        }
        if found.len() > 1 && self.sorts_by_language() {
            return Err("the order of paths in the language of the image's LANG".to_owned());
        }
        Ok(found)
    }

    fn sorts_by_language(&self) -> bool {
        let value = |name: &&str| self.variables.get(*name).and_then(|variable| variable.value.as_deref());
        let language = ["LC_ALL", "LC_COLLATE", "LANG"].iter().filter_map(value).find(|value| !value.is_empty());
        language.is_some_and(|language| !["C", "POSIX", "C.UTF-8", "C.utf8"].contains(&language))
    }
}

fn depends_on_the_locale() -> String {
    "a pattern or length that depends on the locale".to_owned()
}
