//! `[`, `test` and `[[ ]]`.

use brush_parser::ast::{BinaryPredicate, ExtendedTestExpr, UnaryPredicate};

use super::files::FileKind;
use super::variables::Lookup;
use super::{Result, Shell};

/// Numbers are compared by value.
const NUMERIC: &[&str] = &["-eq", "-ne", "-lt", "-le", "-gt", "-ge"];

impl Shell<'_> {
    /// `[[ ... ]]` (bash, "Conditional Constructs").
    pub fn extended_test(&mut self, test: &ExtendedTestExpr) -> Result<bool> {
        match test {
            ExtendedTestExpr::And(left, right) => Ok(self.extended_test(left)? && self.extended_test(right)?),
            ExtendedTestExpr::Or(left, right) => Ok(self.extended_test(left)? || self.extended_test(right)?),
            ExtendedTestExpr::Not(inner) => Ok(!self.extended_test(inner)?),
            ExtendedTestExpr::Parenthesized(inner) => self.extended_test(inner),
            ExtendedTestExpr::UnaryTest(predicate, word) => {
                let operator = match predicate {
                    UnaryPredicate::StringHasNonZeroLength => "-n",
                    UnaryPredicate::StringHasZeroLength => "-z",
                    UnaryPredicate::FileExists => "-e",
                    UnaryPredicate::FileExistsAndIsDir => "-d",
                    UnaryPredicate::FileExistsAndIsRegularFile => "-f",
                    UnaryPredicate::FileExistsAndIsReadable => "-r",
                    UnaryPredicate::FileExistsAndIsExecutable => "-x",
                    UnaryPredicate::FileExistsAndIsNotZeroLength => "-s",
                    UnaryPredicate::ShellVariableIsSetAndAssigned => "-v",
                    _ => return Err("a test that is not evaluated".to_owned()),
                };
                let value = self.text(&word.value, false)?;
                self.unary(operator, &value)
            }
            ExtendedTestExpr::BinaryTest(predicate, left, right) => {
                let value = self.text(&left.value, false)?;
                let equal = |shell: &mut Self| shell.matches(&value, &right.value);
                let numeric = match predicate {
                    BinaryPredicate::StringExactlyMatchesPattern | BinaryPredicate::StringExactlyMatchesString => {
                        return equal(self);
                    }
                    BinaryPredicate::StringDoesNotExactlyMatchPattern
                    | BinaryPredicate::StringDoesNotExactlyMatchString => return equal(self).map(|equal| !equal),
                    BinaryPredicate::ArithmeticEqualTo => "-eq",
                    BinaryPredicate::ArithmeticNotEqualTo => "-ne",
                    BinaryPredicate::ArithmeticLessThan => "-lt",
                    BinaryPredicate::ArithmeticLessThanOrEqualTo => "-le",
                    BinaryPredicate::ArithmeticGreaterThan => "-gt",
                    BinaryPredicate::ArithmeticGreaterThanOrEqualTo => "-ge",
                    BinaryPredicate::StringMatchesRegex => return Err("`=~`".to_owned()),
                    _ => return Err("a test that is not evaluated".to_owned()),
                };
                let right = self.text(&right.value, false)?;
                self.binary(&value, numeric, &right)
            }
        }
    }

    /// `[` and `test`: by the number of arguments (POSIX.1-2024, test), and `-a` and `-o` as bash reads them.
    pub fn test(&mut self, words: &[&str]) -> Result<bool> {
        match words {
            [] => Ok(false),
            [word] => self.is_filled(word),
            ["!", word] => self.is_filled(word).map(|filled| !filled),
            [operator, word] if is_unary(operator) => self.unary(operator, word),
            [left, operator, right] if is_binary(operator) => self.binary(left, operator, right),
            ["!", rest @ ..] if words.len() < 5 => self.test(rest).map(|value| !value),
            ["(", rest @ .., ")"] if words.len() < 5 => self.test(rest),
            _ if words.len() < 4 => Err("a test that cannot be read".to_owned()),
            words => {
                let mut rest = words;
                let value = self.either(&mut rest)?;
                if rest.is_empty() { Ok(value) } else { Err("a test that cannot be read".to_owned()) }
            }
        }
    }

    fn either(&mut self, words: &mut &[&str]) -> Result<bool> {
        let mut value = self.both(words)?;
        while let ["-o", rest @ ..] = *words {
            *words = rest;
            value |= self.both(words)?;
        }
        Ok(value)
    }

    fn both(&mut self, words: &mut &[&str]) -> Result<bool> {
        let mut value = self.term(words)?;
        while let ["-a", rest @ ..] = *words {
            *words = rest;
            value &= self.term(words)?;
        }
        Ok(value)
    }

    fn term(&mut self, words: &mut &[&str]) -> Result<bool> {
        let (value, rest) = match *words {
            ["!", rest @ ..] => {
                *words = rest;
                return self.term(words).map(|value| !value);
            }
            // What looks like an operator where an operand may stand is read differently by different shells.
            [left, operator, right, rest @ ..] if is_binary(operator) && !is_joint(operator) && !is_joint(right) => {
                (self.binary(left, operator, right)?, rest)
            }
            [operator, word, rest @ ..] if is_unary(operator) && !is_joint(word) => (self.unary(operator, word)?, rest),
            _ => return Err("a test that not all shells read alike".to_owned()),
        };
        *words = rest;
        Ok(value)
    }

    fn is_filled(&self, word: &str) -> Result<bool> {
        match self.emptiness(word) {
            Some(empty) => Ok(!empty),
            None => Err(self.depends_on(word)),
        }
    }

    fn depends_on(&self, word: &str) -> String {
        let known = self.known(word).err().unwrap_or_else(|| "a value that is not known".to_owned());
        format!("it depends on {known}")
    }

    fn unary(&mut self, operator: &str, word: &str) -> Result<bool> {
        match operator {
            "-n" => self.is_filled(word),
            "-z" => self.is_filled(word).map(|filled| !filled),
            "-e" => Ok(self.file(word)?.is_some()),
            "-f" => Ok(matches!(self.file(word)?, Some(FileKind::File { .. }))),
            "-d" => Ok(matches!(self.file(word)?, Some(FileKind::Directory { .. }))),
            "-r" => self.everyone_may(word, false),
            "-x" => self.everyone_may(word, true),
            "-s" => match self.file(word)? {
                None => Ok(false),
                Some(FileKind::File { size, .. }) => Ok(size > 0),
                Some(FileKind::Directory { .. }) => Err("a test of a directory's size".to_owned()),
            },
            "-v" if crate::activation::is_name(word) => match self.lookup(word)? {
                Lookup::Set(_) => Ok(true),
                Lookup::Unset => Ok(false),
                Lookup::Maybe => Err(format!("it depends on {word}, which only a running container knows")),
            },
            _ => Err(format!("the test `{operator}`")),
        }
    }

    fn binary(&mut self, left: &str, operator: &str, right: &str) -> Result<bool> {
        let (unknown_left, unknown_right) = (self.known(left).is_err(), self.known(right).is_err());
        match operator {
            "=" | "==" | "!=" => {
                let equal = if !unknown_left && !unknown_right {
                    left == right
                } else if matches!((self.emptiness(left), self.emptiness(right)), (Some(a), Some(b)) if a != b) {
                    false
                } else {
                    return Err(self.depends_on(if unknown_left { left } else { right }));
                };
                Ok(equal == (operator != "!="))
            }
            // With both operands plain; a value of an operator's form would make it another test.
            "-a" | "-o" => {
                let (left, right) = (self.is_filled(left)?, self.is_filled(right)?);
                Ok(if operator == "-a" { left && right } else { left || right })
            }
            operator if NUMERIC.contains(&operator) => {
                let number = |text: &str| {
                    let digits = text.strip_prefix('-').unwrap_or(text);
                    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
                    // A leading zero means base 8 in one place and nothing in another.
                    let plain = plain && (digits == "0" || !digits.starts_with('0'));
                    text.parse::<i64>().ok().filter(|_| plain).ok_or("a comparison of what is no plain number")
                };
                let (left, right) = (number(left)?, number(right)?);
                Ok(match operator {
                    "-eq" => left == right,
                    "-ne" => left != right,
                    "-lt" => left < right,
                    "-le" => left <= right,
                    "-gt" => left > right,
                    _ => left >= right,
                })
            }
            _ => Err(format!("the test `{operator}`")),
        }
    }
}

fn is_unary(word: &str) -> bool {
    let mut characters = word.chars();
    characters.next() == Some('-')
        && characters.next().is_some_and(|letter| letter.is_ascii_alphabetic() && !"ao".contains(letter))
        && characters.next().is_none()
}

fn is_binary(word: &str) -> bool {
    matches!(word, "=" | "==" | "!=" | "<" | ">" | "-a" | "-o" | "-nt" | "-ot" | "-ef") || NUMERIC.contains(&word)
}

fn is_joint(word: &str) -> bool {
    matches!(word, "-a" | "-o")
}
