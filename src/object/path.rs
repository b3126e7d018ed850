//! Where in a text its decoding failed, as `.stats.levels[2]`. It costs a pass or two over the text, whatever its depth.

use std::cell::Cell;
use std::fmt::Write as _;
use std::ops::Range;

use serde::de::DeserializeOwned;

use super::decode::{Failure, decode, decode_members_at, reason_of};
use super::index::Index;
use crate::scan::{end_of_string, end_of_value};

/// The path of the value that is not what `T` wants; empty for the text as a whole.
pub(super) fn path_of<T: DeserializeOwned>(failure: &Failure, json: &str) -> String {
    let json = failure.text(json);
    path_by_member::<T>(&failure.reason(), json).unwrap_or_else(|| path_by_place(&failure.error, json))
}

/// Decodes again, member by member, to see in which one it fails. serde_json's own place of an error that a type's
/// `TryFrom` or the like found is somewhere behind that value. `None` if the type does not take it in this form.
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

/// The path of the innermost value at the place of the error. serde_json reports it right behind the value that it
/// read, or right in front of one that it did not.
fn path_by_place(error: &serde_json::Error, json: &str) -> String {
    let lines = json.split_inclusive('\n');
    let before: usize = lines.take(error.line().saturating_sub(1)).map(str::len).sum();
    path_at(json, before + error.column())
}

/// One step of a path.
enum Step {
    /// Where the key stands.
    Key(Range<usize>),
    Position(usize),
}

fn path_at(json: &str, place: usize) -> String {
    let text = json.as_bytes();
    // The way to the value that is next, through all that is open.
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
                let Some((end, _)) = end_of_string(text, at + 1) else {
                    break;
                };
                if let Some(Step::Key(key)) = way.last_mut() {
                    *key = at + 1..end;
                }
                is_key_next = false;
                at = end + 1;
            }
            // The value behind the place is not the one, and what is open around it is.
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
