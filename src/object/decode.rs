//! JSON text to any type: forgiving where JavaScript is, and with the place of the error where it fails.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::value::RawValue;

use super::index::Index;

/// Why a text could not be decoded.
pub(super) struct Failure {
    /// Where, as `.stats.levels[2]`; empty for the value as a whole.
    pub(super) path: String,
    pub(super) reason: String,
}

/// Straight from the text to the type.
pub(super) fn decode<T: DeserializeOwned>(json: &str) -> Result<T, Failure> {
    serde_json::from_str(json).or_else(|error| {
        let mended = mend(json);
        serde_json::from_str(&mended).map_err(|last| match mended {
            Cow::Borrowed(_) => Failure::new(&error, json),
            Cow::Owned(mended) => Failure::new(&last, &mended),
        })
    })
}

impl Failure {
    fn new(error: &serde_json::Error, json: &str) -> Self {
        let message = error.to_string();
        // Nobody has the text before them.
        let place = format!(" at line {} column {}", error.line(), error.column());
        Self {
            path: path_to(offset(json, error.line(), error.column()), json),
            reason: message.strip_suffix(&place).unwrap_or(&message).to_owned(),
        }
    }
}

/// The same value without what serde takes as an error and JavaScript does not: keys that occur twice and, since the
/// strings of a JavaScript server are UTF-16 and may be cut anywhere, halves of surrogate pairs.
fn mend(json: &str) -> Cow<'_, str> {
    let paired = without_lone_surrogates(json);
    match serde_json::from_str::<Value>(&paired) {
        Ok(value) => Cow::Owned(value.to_string()),
        Err(_) => paired,
    }
}

fn without_lone_surrogates(json: &str) -> Cow<'_, str> {
    let mut mended = String::new();
    let mut copied = 0;
    let mut from = 0;
    // In valid JSON a backslash begins an escape wherever it occurs.
    while let Some(found) = json.get(from..).and_then(|rest| rest.find('\\')) {
        let at = from + found;
        from = match (code_unit(json, at), code_unit(json, at + 6)) {
            (None, _) => at + 2,
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => at + 12,
            (Some(0xD800..=0xDFFF), _) => {
                mended.push_str(json.get(copied..at).unwrap_or_default());
                mended.push_str("\\ufffd");
                copied = at + 6;
                copied
            }
            (Some(_), _) => at + 6,
        };
    }
    if copied == 0 {
        return Cow::Borrowed(json);
    }
    mended.push_str(json.get(copied..).unwrap_or_default());
    Cow::Owned(mended)
}

/// The UTF-16 code unit of a `\uXXXX` that stands there.
fn code_unit(json: &str, at: usize) -> Option<u16> {
    let hex = json.get(at..at + 6)?.strip_prefix("\\u")?;
    u16::from_str_radix(hex, 16).ok()
}

fn offset(json: &str, line: usize, column: usize) -> usize {
    let lines = json.split_inclusive('\n');
    let before: usize = lines.take(line.saturating_sub(1)).map(str::len).sum();
    before + column
}

/// The innermost value at this offset. serde_json reports an error right behind the value that it read, or right in
/// front of one that it did not.
fn path_to(mut offset: usize, mut json: &str) -> String {
    let mut path = String::new();
    loop {
        let index = Index::new(json);
        let member = index
            .iter(json)
            .find(|(_, member)| (member.range().start..=member.range().end).contains(&offset));
        let inner = if let Some((key, member)) = member {
            let _ = write!(path, ".{key}");
            member.value(json)
        } else if let Some((position, element)) = element_at(offset, json) {
            let _ = write!(path, "[{position}]");
            element
        } else {
            return path;
        };
        offset -= inner.as_ptr().addr().saturating_sub(json.as_ptr().addr());
        json = inner;
    }
}

fn element_at(offset: usize, json: &str) -> Option<(usize, &str)> {
    let elements: Vec<&RawValue> = serde_json::from_str(json).ok()?;
    elements
        .into_iter()
        .map(RawValue::get)
        .enumerate()
        .find(|(_, element)| {
            let start = element.as_ptr().addr().saturating_sub(json.as_ptr().addr());
            (start..=start + element.len()).contains(&offset)
        })
}
