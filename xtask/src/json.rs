//! Values written as JSON (RFC 8259).

use std::fmt;

/// A value. The keys of an object stay in their order.
#[derive(Clone, Debug)]
pub enum Json {
    /// Nothing.
    Null,
    /// A text.
    Text(String),
    /// A number of things, bytes or milliseconds.
    Number(u64),
    /// A ratio, or another number that is no count; none where it is not finite.
    Real(f64),
    /// A truth.
    Bool(bool),
    /// Values in order.
    List(Vec<Json>),
    /// Values with names.
    Object(Vec<(&'static str, Json)>),
}

impl Json {
    /// A text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Text(text) => quoted(f, text),
            Self::Number(number) => write!(f, "{number}"),
            Self::Real(number) if number.is_finite() => write!(f, "{number:.4}"),
            Self::Real(_) => f.write_str("null"),
            Self::Bool(truth) => write!(f, "{truth}"),
            Self::List(values) => {
                let values = values.iter().map(|value| (None, value)).collect::<Vec<_>>();
                group(f, '[', &values, ']')
            }
            Self::Object(values) => {
                let values = values.iter().map(|(name, value)| (Some(*name), value)).collect::<Vec<_>>();
                group(f, '{', &values, '}')
            }
        }
    }
}

fn group(f: &mut fmt::Formatter<'_>, open: char, values: &[(Option<&str>, &Json)], close: char) -> fmt::Result {
    write!(f, "{open}")?;
    for (index, (name, value)) in values.iter().enumerate() {
        if index > 0 {
            f.write_str(", ")?;
        }
        if let Some(name) = name {
            quoted(f, name)?;
            f.write_str(": ")?;
        }
        write!(f, "{value}")?;
    }
    write!(f, "{close}")
}

fn quoted(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str("\"")?;
    for c in text.chars() {
        match c {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\t' => f.write_str("\\t")?,
            c if c.is_control() => write!(f, "\\u{:04x}", c as u32)?,
            c => write!(f, "{c}")?,
        }
    }
    f.write_str("\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_json() {
        let value = Json::Object(vec![
            ("a", Json::List(vec![Json::Number(1), Json::Null, Json::Bool(true)])),
            ("b", Json::text("\"\\\n\u{1b} ä")),
            ("c", Json::List(vec![Json::Real(1.0 / 12.0), Json::Real(f64::NAN)])),
        ]);
        let text = "{\"a\": [1, null, true], \"b\": \"\\\"\\\\\\n\\u001b ä\", \"c\": [0.0833, null]}";
        assert_eq!(value.to_string(), text);
    }
}
