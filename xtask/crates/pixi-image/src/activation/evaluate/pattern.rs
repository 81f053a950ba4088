//! Patterns (POSIX.1-2024, 2.14), for text of which each character counts alike in every locale.

/// One element of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Element {
    Literal(char),
    Any,
    Star,
    Set { negated: bool, ranges: Vec<(char, char)> },
}

/// A pattern that was read.
#[derive(Clone, Debug)]
pub struct Pattern(Vec<Element>);

impl Pattern {
    /// Reads a pattern from characters and whether each is quoted. None for what depends on the locale or on bash.
    pub fn new(characters: &[(char, bool)]) -> Option<Self> {
        let mut elements = Vec::new();
        let mut at = 0;
        while let Some(&(character, quoted)) = characters.get(at) {
            at += 1;
            elements.push(match character {
                _ if quoted => Element::Literal(character),
                '*' => Element::Star,
                '?' => Element::Any,
                '[' => {
                    let (set, after) = set(characters, at)?;
                    at = after;
                    set
                }
                // A backslash that came out of a variable quotes in one shell and not in another; `(` is bash's extglob.
                '\\' | '(' => return None,
                _ => Element::Literal(character),
            });
        }
        Some(Self(elements))
    }

    /// Whether the text matches as a whole; none if that depends on the locale.
    pub fn matches(&self, text: &[char]) -> Option<bool> {
        let literal = self.0.iter().all(|element| matches!(element, Element::Literal(_) | Element::Star));
        if !literal && !text.iter().all(char::is_ascii) {
            return None;
        }
        // Going back to the last star is enough: what an earlier one could take the last one can take too.
        let (mut at, mut position, mut star) = (0, 0, None);
        while position < text.len() {
            match self.0.get(at) {
                Some(Element::Star) => {
                    star = Some((at, position));
                    at += 1;
                    continue;
                }
                Some(element) if element.takes(text[position]) => {
                    (at, position) = (at + 1, position + 1);
                    continue;
                }
                _ => {}
            }
            let Some((back, from)) = star else { return Some(false) };
            star = Some((back, from + 1));
            (at, position) = (back + 1, from + 1);
        }
        Some(self.0[at..].iter().all(|element| *element == Element::Star))
    }

    /// How many elements it has: with the length of a text, the cost of a match.
    pub fn cost(&self) -> u64 {
        self.0.len() as u64 + 1
    }
}

impl Element {
    fn takes(&self, character: char) -> bool {
        match self {
            Self::Literal(own) => *own == character,
            Self::Any => true,
            Self::Star => false,
            Self::Set { negated, ranges } => {
                ranges.iter().any(|(from, to)| (*from..=*to).contains(&character)) != *negated
            }
        }
    }
}

/// A bracket expression of ASCII characters, with ranges among digits, or letters of one case. `at` is behind the `[`.
fn set(characters: &[(char, bool)], mut at: usize) -> Option<(Element, usize)> {
    let negated = matches!(characters.get(at), Some(('!', false)));
    at += usize::from(negated);
    let mut ranges = Vec::new();
    loop {
        let &(from, quoted) = characters.get(at)?;
        at += 1;
        match from {
            ']' if !quoted && !ranges.is_empty() => return Some((Element::Set { negated, ranges }, at)),
            ']' | '[' | '^' | '\\' | '/' | '-' if !quoted => return None,
            _ if !from.is_ascii() => return None,
            _ => {}
        }
        if matches!(characters.get(at), Some(('-', false))) {
            let &(to, _) = characters.get(at + 1)?;
            let alike = |kind: fn(&char) -> bool| kind(&from) && kind(&to);
            if !(alike(char::is_ascii_digit) || alike(char::is_ascii_lowercase) || alike(char::is_ascii_uppercase)) {
                return None;
            }
            ranges.push((from, to));
            at += 2;
        } else {
            ranges.push((from, from));
        }
    }
}
