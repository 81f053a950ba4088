//! Text made safe for its place in a page, and a template filled with it.

/// Text as it stands in an element or a quoted attribute. Control characters become visible signs.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(c),
            // Unicode has a picture of each.
            '\0'..='\x1f' => escaped.push(char::from_u32(0x2400 + c as u32).unwrap_or(' ')),
            '\x7f' => escaped.push('\u{2421}'),
            c if c.is_control() => escaped.push('\u{fffd}'),
            // What turns the direction of writing could make one name look like another.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

/// JSON in a `script` element that a browser does not run. Outside of strings JSON has no `<`, inside it may be written so:
/// nothing can end the element, or begin a comment in it.
pub fn data(id: &str, json: &str) -> String {
    let json = json.trim().replace('<', "\\u003c");
    format!("<script type=\"application/json\" id=\"{id}\">{json}</script>\n")
}

/// Puts each part in the place of `{{its name}}`. What a part holds is not looked at again.
pub fn fill(template: &str, parts: &[(&str, &str)]) -> String {
    let mut filled = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        filled.push_str(before);
        let (name, after) = after.split_once("}}").unwrap_or((after, ""));
        filled.push_str(parts.iter().find(|(part, _)| *part == name).map_or("", |(_, text)| text));
        rest = after;
    }
    filled + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_hostile_gets_out_of_its_place() {
        assert_eq!(
            escape("<img onerror='x'>\"&\x1b[1m\u{202e}"),
            "&lt;img onerror=&#39;x&#39;&gt;&quot;&amp;␛[1m\u{fffd}"
        );
        assert_eq!(
            data("a", "{\"x\": \"</script><!--\"}\n"),
            "<script type=\"application/json\" id=\"a\">{\"x\": \"\\u003c/script>\\u003c!--\"}</script>\n"
        );
    }

    #[test]
    fn a_part_with_the_name_of_another_stays_as_it_is() {
        assert_eq!(fill("<{{a}}|{{b}}|{{c}}>", &[("a", "{{b}}"), ("b", "2")]), "<{{b}}|2|>");
    }
}
