//! Canonical JSON (RFC 8785): one value, one byte string.
//!
//! Members are sorted by the UTF-16 code units of their names, there is no white space,
//! and strings escape only what they must (section 3.2.2.2). Numbers are integers from
//! -2^53+1 to 2^53-1: kiln's documents have no others, so the rules for fractions never
//! apply and every JSON library agrees on the digits.

use serde_json::Value;

/// A value without a canonical form here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// A fraction, or an integer that IEEE 754 doubles cannot hold exactly.
    #[error("`{0}` is not an integer between -2^53+1 and 2^53-1")]
    Number(String),
    /// Nested deeper than [`MAX_JSON_DEPTH`].
    #[error("the document is nested more than {MAX_JSON_DEPTH} deep")]
    Depth,
    /// The value could not be expressed as JSON at all (a map key that is no string).
    #[error("the value has no JSON form: {0}")]
    Shape(String),
}

/// Deepest nesting that is written.
pub const MAX_JSON_DEPTH: usize = 32;

const MAX_SAFE: u64 = (1 << 53) - 1;

/// Returns the canonical bytes of a value.
///
/// # Errors
/// [`JsonError`] for a number outside the exact integers, or nesting that is too deep.
pub fn canonical(value: &Value) -> Result<Vec<u8>, JsonError> {
    let mut out = Vec::new();
    write(value, &mut out, 0)?;
    Ok(out)
}

/// Returns the canonical bytes of anything that serialises to JSON.
///
/// # Errors
/// As [`canonical`], and [`JsonError::Shape`] for what JSON cannot express.
pub fn to_canonical<T: serde::Serialize>(value: &T) -> Result<Vec<u8>, JsonError> {
    let value = serde_json::to_value(value).map_err(|error| JsonError::Shape(error.to_string()))?;
    canonical(&value)
}

fn write(value: &Value, out: &mut Vec<u8>, depth: usize) -> Result<(), JsonError> {
    if depth > MAX_JSON_DEPTH {
        return Err(JsonError::Depth);
    }
    match value {
        Value::Null => out.extend_from_slice(b"null"),
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Number(number) => {
            let exact = number.as_u64().is_some_and(|n| n <= MAX_SAFE)
                || number
                    .as_i64()
                    .is_some_and(|n| n < 0 && n.unsigned_abs() <= MAX_SAFE);
            if !exact {
                return Err(JsonError::Number(number.to_string()));
            }
            out.extend_from_slice(number.to_string().as_bytes());
        }
        Value::String(text) => write_text(text, out),
        Value::Array(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write(item, out, depth + 1)?;
            }
            out.push(b']');
        }
        Value::Object(members) => {
            let mut sorted: Vec<(&String, &Value)> = members.iter().collect();
            sorted.sort_by(|(a, _), (b, _)| utf16_order(a, b));
            out.push(b'{');
            for (index, (name, member)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write_text(name, out);
                out.push(b':');
                write(member, out, depth + 1)?;
            }
            out.push(b'}');
        }
    }
    Ok(())
}

/// Appends the canonical form of a string, for a document that is too long to be put
/// together first.
pub fn write_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    // Everything that is escaped is one byte of ASCII: runs between such bytes go as they are.
    while let Some(at) = rest
        .iter()
        .position(|&b| b < b' ' || b == b'"' || b == b'\\')
    {
        let (plain, special) = rest.split_at(at);
        out.extend_from_slice(plain);
        let Some((&byte, after)) = special.split_first() else {
            break;
        };
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            0x08 => out.extend_from_slice(b"\\b"),
            b'\t' => out.extend_from_slice(b"\\t"),
            b'\n' => out.extend_from_slice(b"\\n"),
            0x0c => out.extend_from_slice(b"\\f"),
            b'\r' => out.extend_from_slice(b"\\r"),
            control => out.extend_from_slice(format!("\\u{control:04x}").as_bytes()),
        }
        rest = after;
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

/// A document that is written without being a [`Value`] first: texts, lists of texts and
/// objects, in their canonical bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(Vec<u8>);

impl Text {
    /// Returns a string.
    pub fn string(text: &str) -> Self {
        let mut out = Vec::with_capacity(text.len() + 2);
        write_text(text, &mut out);
        Self(out)
    }

    /// Returns an array, in the order given.
    pub fn array(items: impl IntoIterator<Item = Self>) -> Self {
        let mut out = vec![b'['];
        for (index, Self(item)) in items.into_iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            out.extend_from_slice(&item);
        }
        out.push(b']');
        Self(out)
    }

    /// Returns an object, its members sorted; of two with one name the first counts.
    pub fn object<'a>(members: impl IntoIterator<Item = (&'a str, Self)>) -> Self {
        let mut members: Vec<(&str, Self)> = members.into_iter().collect();
        members.sort_by(|(a, _), (b, _)| utf16_order(a, b));
        members.dedup_by(|(later, _), (first, _)| later == first);
        let mut out = vec![b'{'];
        for (index, (name, Self(member))) in members.into_iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            write_text(name, &mut out);
            out.push(b':');
            out.extend_from_slice(&member);
        }
        out.push(b'}');
        Self(out)
    }

    /// Returns the canonical bytes.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

/// Compares by UTF-16 code unit, as RFC 8785 sorts; ASCII needs no decoding for that.
fn utf16_order(a: &str, b: &str) -> std::cmp::Ordering {
    if a.is_ascii() && b.is_ascii() {
        a.cmp(b)
    } else {
        a.encode_utf16().cmp(b.encode_utf16())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn text(value: &Value) -> String {
        String::from_utf8(canonical(value).unwrap()).unwrap()
    }

    #[test]
    fn example_of_rfc_8785_section_3_2_3() {
        // The RFC's sorting example: order by UTF-16 code unit, not by code point.
        let value = json!({
            "\u{20ac}": "Euro Sign", "\r": "Carriage Return",
            "\u{fb33}": "Hebrew Letter Dalet With Dagesh", "1": "One",
            "\u{1f600}": "Emoji: Grinning Face", "\u{80}": "Control",
            "\u{f6}": "Latin Small Letter O With Diaeresis"
        });
        let order: Vec<usize> = [
            "Carriage", "One", "Control", "Latin", "Euro", "Emoji", "Hebrew",
        ]
        .iter()
        .map(|word| text(&value).find(word).unwrap())
        .collect();
        assert!(order.is_sorted(), "{order:?}");
    }

    #[test]
    fn escapes_only_what_it_must() {
        assert_eq!(
            text(&json!("\u{20ac}$\u{f}\nA'B\"\\\"/")),
            r#""€$\u000f\nA'B\"\\\"/""#
        );
        assert_eq!(
            text(&json!({"b": [1, -2, true, null], "a": {}})),
            r#"{"a":{},"b":[1,-2,true,null]}"#
        );
    }

    #[test]
    fn both_writers_write_the_same() {
        let names = [
            "\u{fb33}",
            "\u{1f600}",
            "z",
            "a\n\u{1}\u{7f}\"",
            "",
            "\u{e000}",
        ];
        let value = json!({ "list": names, "map": names.iter().map(|name| (*name, *name)).collect::<std::collections::BTreeMap<_, _>>() });
        let texts = || names.iter().map(|name| Text::string(name));
        let written = Text::object([
            ("map", Text::object(names.into_iter().zip(texts()))),
            ("list", Text::array(texts())),
        ]);
        assert_eq!(written.into_bytes(), canonical(&value).unwrap());
    }

    #[test]
    fn refuses_inexact_numbers() {
        assert!(canonical(&json!(0.5)).is_err());
        assert!(canonical(&json!(1_u64 << 53)).is_err());
        assert!(canonical(&json!((1_u64 << 53) - 1)).is_ok());
        assert!(canonical(&json!(-(1_i64 << 53))).is_err());
    }
}
