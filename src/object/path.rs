//! Where in a text the decoding failed, as `.stats.levels[2]`. It costs a pass or two over the text, whatever
//! its depth.

use std::cell::Cell;
use std::fmt::Write as _;
use std::ops::Range;

use serde::de::DeserializeOwned;

use super::decode::{Failure, decode, decode_members_at, reason_of};
use super::index::Index;
use crate::scan::{end_of_string, end_of_value};

/// The path of the value that does not fit `T`; empty for the text as a whole.
pub(super) fn path_of<T: DeserializeOwned>(failure: &Failure, json: &str) -> String {
    let json = failure.text(json);
    path_by_member::<T>(&failure.reason(), json).unwrap_or_else(|| path_by_place(&failure.error, json))
}

/// Decodes again, member by member, to see which one fails. For an error from a type's `TryFrom` or the like,
/// the place that serde_json reports is somewhere after that value. `None` if the type cannot be read in this
/// form.
fn path_by_member<T: DeserializeOwned>(reason: &str, json: &str) -> Option<String> {
    let index = Index::of(json);
    let current = Cell::new(None);
    let members = index
        .iter(json)
        .map(|(key, member)| (key, index.value(json, member)));
    let error = decode_members_at::<T>(members, &current).err()?;
    if reason_of(&error) != reason {
        return None;
    }
    Some(match current.get() {
        Some((key, value)) => format!(".{key}{}", path_by_place(&error, value)),
        None => String::new(),
    })
}

/// The path of the innermost value at the place of the error. serde_json reports the place just after the
/// value that it read, or just before one that it did not.
fn path_by_place(error: &serde_json::Error, json: &str) -> String {
    let lines = json.split_inclusive('\n');
    let before: usize = lines.take(error.line().saturating_sub(1)).map(str::len).sum();
    path_at(json, before + error.column())
}

/// One step of a path.
enum Step {
    /// Where the key is.
    Key(Range<usize>),
    Position(usize),
}

fn path_at(json: &str, place: usize) -> String {
    let text = json.as_bytes();
    // The path to the next value, through all open arrays and objects.
    let mut way: Vec<Step> = Vec::new();
    let mut is_key_next = false;
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match byte {
            b' ' | b'\t' | b'\n' | b'\r' | b':' => at += 1,
            b',' => {
                at += 1;
                match way.last_mut() {
                    Some(Step::Position(position)) => *position += 1,
                    Some(Step::Key(_)) => is_key_next = true,
                    None => break,
                }
            }
            b'}' | b']' => {
                at += 1;
                is_key_next = false;
                way.pop();
                if place <= at || way.is_empty() {
                    return write(&way, json);
                }
            }
            b'"' if is_key_next => {
                let Some(end) = end_of_string(text, at + 1) else {
                    break;
                };
                if let Some(Step::Key(key)) = way.last_mut() {
                    *key = at + 1..end;
                }
                is_key_next = false;
                at = end + 1;
            }
            // The value lies after the place, so the one around it is meant.
            _ if at > place => break,
            b'{' => {
                way.push(Step::Key(0..0));
                is_key_next = true;
                at += 1;
            }
            b'[' => {
                way.push(Step::Position(0));
                at += 1;
            }
            _ => {
                let Some(end) = end_of_value(text, at) else { break };
                if place <= end {
                    return write(&way, json);
                }
                at = end;
            }
        }
    }
    way.pop();
    write(&way, json)
}

fn write(way: &[Step], json: &str) -> String {
    let mut path = String::new();
    for step in way {
        // Writing to a string cannot fail.
        let _ = match step {
            Step::Position(position) => write!(path, "[{position}]"),
            Step::Key(key) => {
                let key = json.get(key.clone()).unwrap_or_default();
                match decode::<String>(&format!("\"{key}\"")) {
                    Ok(key) => write!(path, ".{key}"),
                    Err(_) => write!(path, ".{key}"),
                }
            }
        };
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn place_table() {
        let json = r#" {"a": 1, "b\n": [10, {"c": "x"}, []], "d": {}, "e": tru"#;
        for (before, path) in [
            ("", ""),
            (r#" {"#, ""),
            (r#" {"a""#, ""),
            (r#" {"a": "#, ".a"),
            (r#" {"a": 1"#, ".a"),
            (r#" {"a": 1,"#, ""),
            (r#" {"a": 1, "b\n": "#, ".b\n"),
            (r#" {"a": 1, "b\n": ["#, ".b\n[0]"),
            (r#" {"a": 1, "b\n": [10,"#, ".b\n"),
            (r#" {"a": 1, "b\n": [10, "#, ".b\n[1]"),
            (r#" {"a": 1, "b\n": [10, {"c": "x"#, ".b\n[1].c"),
            (r#" {"a": 1, "b\n": [10, {"c": "x"}"#, ".b\n[1]"),
            (r#" {"a": 1, "b\n": [10, {"c": "x"}, []"#, ".b\n[2]"),
            (r#" {"a": 1, "b\n": [10, {"c": "x"}, []]"#, ".b\n"),
            (r#" {"a": 1, "b\n": [10, {"c": "x"}, []], "d": {"#, ".d"),
            (json, ".e"),
        ] {
            assert!(json.starts_with(before), "{before}");
            assert_eq!(path_at(json, before.len()), path, "{before}");
        }
        for broken in [
            "",
            "1",
            "}",
            "]",
            ",",
            ":",
            "\"",
            "{\"",
            "[,",
            "{,",
            "{\"a\":1}}",
            "[[[",
            "[1]2",
        ] {
            (0..10).for_each(|place| drop(path_at(broken, place)));
        }
    }
}
