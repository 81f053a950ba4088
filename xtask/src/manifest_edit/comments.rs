//! The comments of a TOML text, so that an edit that takes something out can keep what was said about it.

/// The comments of a text that parses, in order, each from its `#` on.
pub fn comments(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find(['#', '"', '\'']) {
        rest = &rest[start..];
        let sign = &rest[..1];
        if sign == "#" {
            let end = rest.find('\n').unwrap_or(rest.len());
            found.push(rest[..end].trim_end().to_owned());
            rest = &rest[end..];
            continue;
        }
        let triple = sign.repeat(3);
        let quote = if rest.starts_with(&triple) { triple.as_str() } else { sign };
        rest = behind_string(&rest[quote.len()..], quote);
    }
    found
}

/// What stands behind a string that has been opened by `quote`.
fn behind_string<'t>(text: &'t str, quote: &str) -> &'t str {
    let escapes = quote.starts_with('"');
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with(quote) {
            // Up to two more quotes at the end of a multi-line string belong to it.
            let more = if quote.len() == 3 {
                rest[3..].bytes().take(2).take_while(|byte| *byte == quote.as_bytes()[0]).count()
            } else {
                0
            };
            return &rest[quote.len() + more..];
        }
        let step = |text: &str| text.chars().next().map_or(1, char::len_utf8);
        at += if escapes && rest.starts_with('\\') { 1 + rest.get(1..).map_or(0, step) } else { step(rest) };
    }
    ""
}

/// Those of `before` that are not in `after`, each as often as it is missing.
pub fn lost(before: &[String], after: &[String]) -> Vec<String> {
    let mut after: Vec<&String> = after.iter().collect();
    let missing = |comment: &&String| match after.iter().position(|present| present == comment) {
        Some(place) => {
            after.swap_remove(place);
            false
        }
        None => true,
    };
    before.iter().filter(missing).cloned().collect()
}
