//! Shell scripts as far as probes read them: simple commands with their lines, nothing expanded.

use std::mem;

/// A line of a file, counted from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its number.
    pub number: usize,
    /// What stands there.
    pub text: String,
}

/// A simple command.
#[derive(Debug, PartialEq, Eq)]
pub struct Command {
    /// Where it begins.
    pub line: usize,
    /// The program and its arguments, without what only quotes them.
    pub words: Vec<String>,
}

impl Command {
    /// The program's name without its directory.
    pub fn program(&self) -> &str {
        self.words.first().map_or("", |word| word.rsplit('/').next().unwrap_or_default())
    }

    /// Whether it is this program with this first word that is no option.
    pub fn is(&self, program: &str, subcommand: &str) -> bool {
        let first = self.words.iter().skip(1).find(|word| !word.starts_with('-'));
        self.program() == program && first.is_some_and(|word| word == subcommand)
    }

    /// Whether a word is this one.
    pub fn has(&self, word: &str) -> bool {
        self.words.iter().any(|own| own == word)
    }

    /// The values of an option, written as `--name value` or `--name=value`.
    pub fn values(&self, option: &str) -> Vec<&str> {
        let mut values = Vec::new();
        for (index, word) in self.words.iter().enumerate() {
            if word == option {
                values.extend(self.words.get(index + 1).map(String::as_str));
            } else if let Some(value) = word.strip_prefix(option).and_then(|rest| rest.strip_prefix('=')) {
                values.push(value);
            }
        }
        values
    }
}

/// What stands before a command without being one.
const RESERVED: [&str; 14] =
    ["{", "}", "!", "if", "then", "else", "elif", "fi", "do", "done", "while", "until", "time", "esac"];
/// What starts another command.
const RUNNERS: [&str; 4] = ["sudo", "exec", "command", "nohup"];

/// The commands of a script, those within `$(...)` apart, which are part of a word. A file that is written by
/// `cat <<END` is no command either.
pub fn commands(script: &[Line]) -> Vec<Command> {
    let mut reader = Reader::default();
    let mut ends = Vec::new();
    for Line { number, text } in script {
        if let Some(end) = ends.first() {
            if text.trim() == end {
                ends.remove(0);
            }
            continue;
        }
        reader.line(*number, text, &mut ends);
    }
    reader.end_command();
    reader.commands
}

#[derive(Default)]
struct Reader {
    commands: Vec<Command>,
    words: Vec<String>,
    word: Option<String>,
    line: usize,
    quote: Option<char>,
    /// How many `$(` are open.
    depth: usize,
}

impl Reader {
    fn line(&mut self, number: usize, text: &str, ends: &mut Vec<String>) {
        let mut chars = text.chars().peekable();
        let mut continues = false;
        while let Some(c) = chars.next() {
            let is_open = self.quote.is_some() || self.depth > 0;
            match (c, self.quote) {
                ('\'', Some('\'')) | ('"', Some('"')) => self.quote = None,
                (c, Some('\'')) => self.push(number, c),
                ('\\', _) => match chars.next() {
                    Some(next) => self.push(number, next),
                    None => continues = true,
                },
                ('$', _) if chars.peek() == Some(&'(') => {
                    chars.next();
                    self.depth += 1;
                    self.push(number, '$');
                    self.push(number, '(');
                }
                (')', None) if self.depth > 0 => {
                    self.depth -= 1;
                    self.push(number, ')');
                }
                (')', Some('"')) if self.depth > 0 => {
                    self.depth -= 1;
                    self.push(number, ')');
                }
                ('\'' | '"', None) => {
                    self.quote = Some(c);
                    self.word.get_or_insert_default();
                    self.begin(number);
                }
                _ if is_open => self.push(number, c),
                ('#', None) if self.word.is_none() => break,
                (' ' | '\t', None) => self.end_word(),
                ('<', None) if chars.peek() == Some(&'<') => {
                    chars.next();
                    let rest: String = chars.clone().collect();
                    ends.extend(end_of_document(&rest));
                    self.end_word();
                }
                (';' | '|' | '(' | ')', None) => self.end_command(),
                ('&', None) if chars.peek() == Some(&'&') => {
                    chars.next();
                    self.end_command();
                }
                _ => self.push(number, c),
            }
        }
        if self.quote.is_some() || self.depth > 0 {
            self.push(number, '\n');
        } else if continues {
            self.end_word();
        } else {
            self.end_command();
        }
    }

    fn begin(&mut self, number: usize) {
        if self.words.is_empty() && self.word.as_ref().is_none_or(String::is_empty) {
            self.line = number;
        }
    }

    fn push(&mut self, number: usize, c: char) {
        self.begin(number);
        self.word.get_or_insert_default().push(c);
    }

    fn end_word(&mut self) {
        self.words.extend(self.word.take());
    }

    fn end_command(&mut self) {
        self.end_word();
        let words = mem::take(&mut self.words);
        let is_before = |word: &&String| {
            let assigns = word.split_once('=').is_some_and(|(name, _)| is_name(name));
            assigns || RESERVED.contains(&word.as_str()) || RUNNERS.contains(&word.as_str())
        };
        let skipped = words.iter().take_while(is_before).count();
        let words: Vec<String> = words.into_iter().skip(skipped).collect();
        let is_header = words.first().is_some_and(|word| ["for", "case", "select"].contains(&word.as_str()));
        if !words.is_empty() && !is_header && words != ["&"] {
            self.commands.push(Command { line: self.line, words });
        }
    }
}

/// Whether it can be a variable's name.
pub fn is_name(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !text.is_empty() && !text.starts_with(|c: char| c.is_ascii_digit()) && text.chars().all(fits)
}

/// The line that ends the document which `<<` begins, from what follows these two characters.
pub fn end_of_document(rest: &str) -> Option<String> {
    if rest.starts_with('<') {
        return None; // a word, not a document
    }
    let rest = rest.strip_prefix('-').unwrap_or(rest).trim_start();
    let rest = rest.trim_start_matches(['\'', '"', '\\']);
    let fits = |c: &char| c.is_ascii_alphanumeric() || *c == '_' || *c == '.';
    let end: String = rest.chars().take_while(fits).collect();
    (!end.is_empty()).then_some(end)
}

/// The places of `$NAME` and `${NAME}` in a text, with the names; those that `\` or single quotes keep are no use of one.
pub fn variables(text: &str) -> Vec<&str> {
    let mut names = Vec::new();
    let bytes = text.as_bytes();
    let (mut at, mut is_literal) = (0, false);
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 1,
            b'\'' => is_literal = !is_literal,
            b'$' if !is_literal => {
                let rest = &text[at + 1..];
                let (rest, braces) = rest.strip_prefix('{').map_or((rest, false), |rest| (rest, true));
                let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
                let name = &rest[..rest.find(|c| !fits(c)).unwrap_or(rest.len())];
                // `${NAME:-...}` says itself what holds without one.
                if is_name(name) && (!braces || rest[name.len()..].starts_with('}')) {
                    names.push(name);
                }
            }
            _ => {}
        }
        at += 1;
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(usize, String)> {
        let lines: Vec<Line> =
            text.lines().enumerate().map(|(index, text)| Line { number: index + 1, text: text.to_owned() }).collect();
        commands(&lines).into_iter().map(|command| (command.line, command.words.join(" "))).collect()
    }

    #[test]
    fn a_script_is_read_command_by_command() {
        let script = "set -e # yes\nif true; then A=1 sudo pixi install; fi\necho 'a; b' \\\n  \"c && d\" && eval \"$(pixi shell-hook | sed x)\"\n";
        let commands = [(1, "set -e"), (2, "true"), (2, "pixi install"), (3, "echo a; b c && d")];
        let commands = commands.into_iter().chain([(4, "eval $(pixi shell-hook | sed x)")]);
        assert_eq!(read(script), commands.map(|(line, text)| (line, text.to_owned())).collect::<Vec<_>>());
    }

    #[test]
    fn what_a_document_holds_is_no_command() {
        assert_eq!(
            read("cat >x <<'END'\npixi info\nEND\nfor a in b; do\nrun\ndone"),
            [(1, "cat >x END".to_owned()), (5, "run".to_owned())]
        );
        assert_eq!(read("cat <<<word\nnext"), [(1, "cat <word".to_owned()), (2, "next".to_owned())]);
    }

    #[test]
    fn variables_are_found_where_they_are_expanded() {
        assert_eq!(variables(r#"$A/${B}"$C" \$D '$E' ${F:-x} $1 $"#), ["A", "B", "C"]);
    }
}
