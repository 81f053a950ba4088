//! Words as the shell reads them: which characters are quoted, and where parameters stand (POSIX.1-2024, 2.2 and 2.6).
//!
//! The parser of commands hands words over as they are written. What quotes mean inside `${...}` decides values, so that is
//! settled here; what bash and dash read differently is refused.

/// A part of a word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Characters as they are. A quoted text, even an empty one, makes a field.
    Text { text: String, quoted: bool },
    /// `$NAME`, `${NAME...}`, `$1`, `$@` and the like; `~` is the parameter HOME.
    Parameter { name: String, operation: Operation, quoted: bool },
}

/// What is done with the value of a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Nothing.
    Value,
    /// `${#NAME}`
    Length,
    /// `-`, `=`, `?` or `+`, after a colon or not, and the word behind.
    Otherwise { sign: char, colon: bool, word: Vec<Piece> },
    /// `#`, `##`, `%` or `%%` and the pattern.
    Cut { suffix: bool, longest: bool, pattern: Vec<Piece> },
}

/// What a word holds that is not evaluated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAWord(pub String);

type Result<T> = std::result::Result<T, NotAWord>;

/// `${...}` in `${...}`: real scripts have two or three.
const MAX_DEPTH: u32 = 20;

/// Reads a word. In the value of an assignment a `~` after a colon counts too.
pub fn parse(word: &str, assignment: bool) -> Result<Vec<Piece>> {
    let mut reader = Reader { rest: word.chars().collect(), at: 0, depth: 0 };
    reader.rest.push('\0'); // no word holds it: the parser refuses it, and so does `evaluate`
    reader.unquoted('\0', assignment)
}

fn refuse<T>(what: impl Into<String>) -> Result<T> {
    Err(NotAWord(what.into()))
}

struct Reader {
    rest: Vec<char>,
    at: usize,
    depth: u32,
}

/// The pieces so far; neighbouring characters of one kind become one text.
#[derive(Default)]
struct Pieces(Vec<Piece>);

impl Pieces {
    fn push(&mut self, character: char, quoted: bool) {
        match self.0.last_mut() {
            Some(Piece::Text { text, quoted: same }) if *same == quoted => text.push(character),
            _ => self.0.push(Piece::Text { text: character.into(), quoted }),
        }
    }

    fn quote(&mut self) {
        if !matches!(self.0.last(), Some(Piece::Text { quoted: true, .. })) {
            self.0.push(Piece::Text { text: String::new(), quoted: true });
        }
    }
}

impl Reader {
    fn peek(&self) -> char {
        self.rest.get(self.at).copied().unwrap_or('\0')
    }

    fn next(&mut self) -> char {
        let next = self.peek();
        self.at += 1;
        next
    }

    /// Up to `stop`, which is taken too.
    fn unquoted(&mut self, stop: char, assignment: bool) -> Result<Vec<Piece>> {
        let mut pieces = Pieces::default();
        let mut tilde = true;
        loop {
            let character = self.next();
            match character {
                _ if character == stop => return Ok(pieces.0),
                '\0' => return refuse("a word that does not end"),
                '\\' => match self.next() {
                    '\0' => return refuse("a backslash at the end"),
                    '\n' => {}
                    escaped => pieces.push(escaped, true),
                },
                '\'' => {
                    pieces.quote();
                    loop {
                        match self.next() {
                            '\'' => break,
                            '\0' => return refuse("a quote that does not end"),
                            quoted => pieces.push(quoted, true),
                        }
                    }
                }
                '"' => {
                    pieces.quote();
                    self.quoted('"', &mut pieces)?;
                }
                '$' => self.dollar(false, &mut pieces)?,
                '`' => return refuse("a command substitution"),
                '~' if tilde => {
                    if !matches!(self.peek(), '/' | ':' | '\0') && self.peek() != stop {
                        return refuse("another user's home");
                    }
                    pieces.0.push(Piece::Parameter { name: "HOME".into(), operation: Operation::Value, quoted: true });
                }
                plain => pieces.push(plain, false),
            }
            tilde = assignment && character == ':';
        }
    }

    /// Inside double quotes, up to `stop`, which is taken too.
    fn quoted(&mut self, stop: char, pieces: &mut Pieces) -> Result<()> {
        loop {
            match self.next() {
                character if character == stop => return Ok(()),
                '\0' => return refuse("a quote that does not end"),
                '\\' => match self.peek() {
                    '$' | '`' | '"' | '\\' => {
                        let escaped = self.next();
                        pieces.push(escaped, true);
                    }
                    '\n' => self.at += 1,
                    '}' if stop == '}' => return refuse("a backslash before `}`"),
                    _ => pieces.push('\\', true),
                },
                // Quotes in a quoted `${...}`: bash takes them off, other shells do not all agree.
                '"' => return refuse("double quotes inside of `\"${...}\"`"),
                '$' => self.dollar(true, pieces)?,
                '`' => return refuse("a command substitution"),
                plain => pieces.push(plain, true),
            }
        }
    }

    /// What follows a `$`.
    fn dollar(&mut self, quoted: bool, pieces: &mut Pieces) -> Result<()> {
        let parameter = |name: String, operation| Piece::Parameter { name, operation, quoted };
        match self.peek() {
            '(' if self.rest.get(self.at + 1) == Some(&'(') => refuse("arithmetic"),
            '(' => refuse("a command substitution"),
            '\'' | '"' if !quoted => refuse("`$'...'` or `$\"...\"`"),
            '[' => refuse("arithmetic"),
            '{' => {
                self.at += 1;
                self.depth += 1;
                if self.depth > MAX_DEPTH {
                    return refuse("`${...}` in `${...}`, very deep");
                }
                let piece = self.braces(quoted)?;
                self.depth -= 1;
                pieces.0.push(piece);
                Ok(())
            }
            special if "@*#?-$!".contains(special) || special.is_ascii_digit() => {
                self.at += 1;
                pieces.0.push(parameter(special.into(), Operation::Value));
                Ok(())
            }
            first if is_name_start(first) => {
                let name = self.name();
                pieces.0.push(parameter(name, Operation::Value));
                Ok(())
            }
            _ => {
                pieces.push('$', quoted);
                Ok(())
            }
        }
    }

    fn name(&mut self) -> String {
        let start = self.at;
        while is_name_start(self.peek()) || self.peek().is_ascii_digit() {
            self.at += 1;
        }
        self.rest[start..self.at].iter().collect()
    }

    /// What follows a `${`, with its `}`.
    fn braces(&mut self, quoted: bool) -> Result<Piece> {
        let length = self.peek() == '#' && self.rest.get(self.at + 1).is_some_and(|next| is_name_start(*next));
        if length {
            self.at += 1;
        }
        let name = match self.peek() {
            first if is_name_start(first) => self.name(),
            first if "@*?-$0".contains(first) => self.next().into(),
            '#' if self.rest.get(self.at + 1) == Some(&'}') => self.next().into(),
            first if first.is_ascii_digit() => {
                let mut number = String::new();
                while self.peek().is_ascii_digit() {
                    number.push(self.next());
                }
                number
            }
            _ => return refuse("an expansion that only bash has"),
        };
        let sign = self.next();
        let operation = match sign {
            '}' if length => Operation::Length,
            '}' => Operation::Value,
            _ if length => return refuse("an expansion that only bash has"),
            ':' | '-' | '=' | '?' | '+' => {
                let colon = sign == ':';
                let sign = if colon { self.next() } else { sign };
                if !"-=?+".contains(sign) {
                    return refuse("an expansion that only bash has");
                }
                Operation::Otherwise { sign, colon, word: self.word_in_braces(quoted)? }
            }
            '#' | '%' => {
                let longest = self.peek() == sign;
                self.at += usize::from(longest);
                // Quotes around the whole do not quote the pattern.
                let pattern = self.unquoted('}', false)?;
                Operation::Cut { suffix: sign == '%', longest, pattern }
            }
            _ => return refuse("an expansion that only bash has"),
        };
        Ok(Piece::Parameter { name, operation, quoted })
    }

    fn word_in_braces(&mut self, quoted: bool) -> Result<Vec<Piece>> {
        if !quoted {
            return self.unquoted('}', false);
        }
        let mut pieces = Pieces::default();
        self.quoted('}', &mut pieces)?;
        Ok(pieces.0)
    }
}

fn is_name_start(character: char) -> bool {
    character.is_ascii_alphabetic() || character == '_'
}
