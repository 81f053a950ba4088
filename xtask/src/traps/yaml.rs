//! YAML as far as workflows and lock files use it: block mappings, block lists and scalars, with their lines. What is
//! written in brackets stays a text. A text that is no YAML reads as something, and never fails.

use crate::traps::shell::Line;

/// How deep it may be nested: deeper than any workflow, and no matter for the stack.
const DEEPEST: usize = 40;

/// A value.
#[derive(Debug, PartialEq, Eq)]
pub enum Node {
    /// A text; a block has several lines.
    Text(Vec<Line>),
    /// Values in order.
    List(Vec<Node>),
    /// Values with their keys, and the keys' lines.
    Map(Vec<(usize, String, Node)>),
}

impl Node {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.entries().iter().find(|(_, own, _)| own == key).map(|(_, _, value)| value)
    }

    /// The entries of a mapping.
    pub fn entries(&self) -> &[(usize, String, Self)] {
        if let Self::Map(entries) = self { entries } else { &[] }
    }

    /// The values of a list.
    pub fn items(&self) -> &[Self] {
        if let Self::List(items) = self { items } else { &[] }
    }

    /// The lines of a text, and those of a list of texts.
    pub fn lines(&self) -> Vec<&Line> {
        match self {
            Self::Text(lines) => lines.iter().collect(),
            Self::List(items) => items.iter().flat_map(Self::lines).collect(),
            Self::Map(_) => Vec::new(),
        }
    }

    /// The text of one line, or of several joined by line breaks.
    pub fn text(&self) -> String {
        self.lines().iter().map(|line| line.text.as_str()).collect::<Vec<_>>().join("\n")
    }
}

/// Reads a document.
pub fn parse(text: &str) -> Node {
    let read = |(index, text): (usize, &str)| {
        let inner = text.trim_start_matches(' ');
        Row { number: index + 1, indent: text.len() - inner.len(), text: inner.trim_end().to_owned() }
    };
    let rows = text.lines().enumerate().map(read).filter(|row| row.text != "---").collect();
    let mut reader = Reader { rows, at: 0 };
    reader.node(0, 0)
}

struct Row {
    number: usize,
    indent: usize,
    text: String,
}

struct Reader {
    rows: Vec<Row>,
    at: usize,
}

impl Reader {
    /// Goes on to the next row that holds something; none when it is indented less.
    fn next(&mut self, indent: usize) -> Option<&Row> {
        while self.rows.get(self.at).is_some_and(|row| row.text.is_empty() || row.text.starts_with('#')) {
            self.at += 1;
        }
        self.rows.get(self.at).filter(|row| row.indent >= indent)
    }

    fn node(&mut self, indent: usize, depth: usize) -> Node {
        let Some(row) = self.next(indent) else { return Node::Text(Vec::new()) };
        let (own, is_item, is_entry) = (row.indent, is_item(&row.text), split_key(&row.text).is_some());
        if depth < DEEPEST && is_item {
            self.list(own, depth)
        } else if depth < DEEPEST && is_entry {
            self.map(own, depth)
        } else {
            let first = self.take();
            self.scalar(first.number, &first.text, own.saturating_sub(1))
        }
    }

    fn take(&mut self) -> Row {
        let row = &mut self.rows[self.at];
        self.at += 1;
        Row { number: row.number, indent: row.indent, text: std::mem::take(&mut row.text) }
    }

    fn list(&mut self, indent: usize, depth: usize) -> Node {
        let mut items = Vec::new();
        while self.next(indent).is_some_and(|row| row.indent == indent && is_item(&row.text)) {
            let row = &mut self.rows[self.at];
            let rest = row.text[1..].trim_start().to_owned();
            if rest.is_empty() {
                self.at += 1;
            } else {
                // What follows the dash stands as if it began a line of its own.
                row.indent += row.text.len() - rest.len();
                row.text = rest;
            }
            items.push(self.node(indent + 1, depth + 1));
        }
        Node::List(items)
    }

    fn map(&mut self, indent: usize, depth: usize) -> Node {
        let mut entries = Vec::new();
        while self.next(indent).is_some_and(|row| row.indent == indent && split_key(&row.text).is_some()) {
            let row = self.take();
            let Some((key, rest)) = split_key(&row.text) else { break };
            let rest = without_comment(rest);
            let value = if rest.starts_with(['|', '>']) {
                self.block(indent)
            } else if rest.is_empty() {
                // A list may stand as far left as the key that it belongs to.
                let is_list = self.next(indent).is_some_and(|row| row.indent == indent && is_item(&row.text));
                self.node(if is_list { indent } else { indent + 1 }, depth + 1)
            } else {
                self.scalar(row.number, rest, indent)
            };
            entries.push((row.number, key, value));
        }
        if entries.is_empty() {
            self.at += 1;
        }
        Node::Map(entries)
    }

    /// A text that may go on in lines that are indented more.
    fn scalar(&mut self, number: usize, first: &str, indent: usize) -> Node {
        let line = |number, text: &str| Line { number, text: unquoted(without_comment(text)).to_owned() };
        let mut lines = vec![line(number, first)];
        while self.next(indent + 1).is_some() {
            let row = self.take();
            lines.push(line(row.number, &row.text));
        }
        Node::Text(lines)
    }

    fn block(&mut self, indent: usize) -> Node {
        let mut lines = Vec::new();
        while self.rows.get(self.at).is_some_and(|row| row.text.is_empty() || row.indent > indent) {
            let row = self.take();
            lines.push(Line { number: row.number, text: row.text });
        }
        Node::Text(lines)
    }
}

fn is_item(text: &str) -> bool {
    text == "-" || text.starts_with("- ")
}

/// Splits `key: value`.
fn split_key(text: &str) -> Option<(String, &str)> {
    if let Some(quote) = text.chars().next().filter(|c| ['"', '\''].contains(c)) {
        let (key, rest) = text[1..].split_once(quote)?;
        let rest = rest.trim_start().strip_prefix(':')?;
        return (rest.is_empty() || rest.starts_with(' ')).then(|| (key.to_owned(), rest.trim()));
    }
    if text.starts_with(['[', '{', '#', '|', '>', '&', '*', '!', '%', '@']) {
        return None;
    }
    if let Some((key, rest)) = text.split_once(": ") {
        return (!key.contains(" #")).then(|| (key.trim().to_owned(), rest.trim()));
    }
    text.strip_suffix(':').map(|key| (key.to_owned(), ""))
}

/// The text without a comment at its end.
fn without_comment(text: &str) -> &str {
    let text = text.trim();
    if text.starts_with('#') {
        return "";
    }
    let from = match text.chars().next().filter(|c| ['"', '\''].contains(c)) {
        Some(quote) => text[1..].find(quote).map_or(text.len(), |end| end + 1),
        None => 0,
    };
    text[from..].find(" #").map_or(text, |end| text[..from + end].trim_end())
}

fn unquoted(text: &str) -> &str {
    for quote in ['"', '\''] {
        if let Some(inner) = text.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)) {
            return inner;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workflow_is_read() {
        let text = "on: # when\n  push:\n    branches: [main]\njobs:\n  a:\n    steps:\n    - uses: 'x@v1' # one\n      with:\n        push: true\n\n    - name: Do\n      run: |\n        # no key: here\n\n        echo a: b\n    # comment\n    - run: 'echo c # d'\n";
        let node = parse(text);
        let steps = node.get("jobs").unwrap().get("a").unwrap().get("steps").unwrap().items();
        assert_eq!(steps.len(), 3);
        assert_eq!(steps[0].get("uses").unwrap().text(), "x@v1");
        assert_eq!(steps[0].get("with").unwrap().get("push").unwrap().text(), "true");
        let run = steps[1].get("run").unwrap();
        assert_eq!((run.lines().len(), run.lines()[2].number), (3, 15));
        assert_eq!(run.lines()[2].text, "echo a: b");
        assert_eq!(steps[2].get("run").unwrap().text(), "echo c # d");
        assert_eq!(node.get("on").unwrap().get("push").unwrap().get("branches").unwrap().text(), "[main]");
    }

    #[test]
    fn a_lock_is_read() {
        let text = "version: 7\nenvironments:\n  gpu:\n    packages:\n      p:\n      - conda: https://h/a.conda\npackages:\n- conda: https://h/a.conda\n  size: 12\n  depends:\n  - python >=3\n";
        let node = parse(text);
        assert_eq!(node.get("packages").unwrap().items()[0].get("size").unwrap().text(), "12");
        assert_eq!(node.get("version").unwrap().text(), "7");
    }

    #[test]
    fn what_is_no_yaml_ends_too() {
        let odd =
            ["", ":", "- ", "-\n-\n", "a:\n b\n  c: d\n e", "]: x\n  - y", "\t- x", "'a: b", "? x\n: y", "- - - a"];
        for text in odd.iter().map(|text| (*text).to_owned()).chain(["- ".repeat(5000), "a:\n".repeat(10)]) {
            parse(&text);
        }
    }
}
