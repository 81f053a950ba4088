//! The first place in which two JSON documents differ.

use serde_json::Value;

/// How much of a value is shown.
const SHOWN: usize = 80;

/// Says what of `theirs` is not JSON, or where it differs from `ours`; none where they say the same.
pub fn difference(theirs: &[u8], ours: &[u8]) -> Option<String> {
    let theirs: Value = match serde_json::from_slice(theirs) {
        Ok(value) => value,
        Err(error) => return Some(format!("it is no JSON any more, {error}")),
    };
    between(&theirs, &serde_json::from_slice(ours).ok()?)
}

/// Says where one document differs from another; none where they say the same.
pub fn between(theirs: &Value, ours: &Value) -> Option<String> {
    first(theirs, ours, &mut Vec::new())
}

fn first(theirs: &Value, ours: &Value, path: &mut Vec<String>) -> Option<String> {
    match (theirs, ours) {
        (Value::Object(left), Value::Object(right)) => {
            for (key, value) in right {
                path.push(step(key));
                match left.get(key) {
                    None => return Some(format!("`{}` is missing", shown_path(path))),
                    Some(other) => {
                        if let Some(found) = first(other, value, path) {
                            return Some(found);
                        }
                    }
                }
                path.pop();
            }
            let extra = left.keys().find(|key| !right.contains_key(*key))?;
            path.push(step(extra));
            Some(format!("`{}` should not be there", shown_path(path)))
        }
        (Value::Array(left), Value::Array(right)) => {
            for (index, (left, right)) in left.iter().zip(right).enumerate() {
                path.push(format!("[{index}]"));
                if let Some(found) = first(left, right, path) {
                    return Some(found);
                }
                path.pop();
            }
            let (has, wants) = (left.len(), right.len());
            (has != wants).then(|| format!("`{}` has {has} elements, expected {wants}", shown_path(path)))
        }
        _ if theirs == ours => None,
        _ => Some(format!("`{}` is {}, expected {}", shown_path(path), shown(theirs), shown(ours))),
    }
}

fn step(key: &str) -> String {
    let is_plain = key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if is_plain { format!(".{key}") } else { format!("[{}]", Value::from(key)) }
}

fn shown_path(path: &[String]) -> String {
    path.concat().trim_start_matches('.').to_owned()
}

/// JSON itself escapes what would disturb a terminal, but for C1 and DEL.
fn shown(value: &Value) -> String {
    let text: String = value.to_string().chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_named_by_its_path() {
        let said = |theirs: &str, ours: &str| difference(theirs.as_bytes(), ours.as_bytes()).unwrap_or_default();
        let ours = r#"{"config":{"Env":["A=1","B=2"],"Labels":{"org.x":"y"}}}"#;
        assert_eq!(said(ours, ours), "");
        assert_eq!(said(&ours.replace("B=2", "B=3"), ours), "`config.Env[1]` is \"B=3\", expected \"B=2\"");
        assert_eq!(said(&ours.replace(",\"B=2\"", ""), ours), "`config.Env` has 1 elements, expected 2");
        assert_eq!(said(&ours.replace("org.x", "org.z"), ours), "`config.Labels[\"org.x\"]` is missing");
        assert_eq!(said(&ours.replace("{\"org.x", "{\"a\":1,\"org.x"), ours), "`config.Labels.a` should not be there");
        assert!(said(&ours[1..], ours).starts_with("it is no JSON any more"));
        assert!(said(&ours.replace("B=2", &"x".repeat(500)), ours).len() < 200);
    }
}
