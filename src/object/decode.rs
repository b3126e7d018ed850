//! JSON text to any type: forgiving where JavaScript is, and with the place of the error where it fails.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt::Write as _;

use serde::Deserializer;
use serde::de::value::{BorrowedStrDeserializer, MapAccessDeserializer};
use serde::de::{DeserializeOwned, DeserializeSeed, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::index::Index;
use crate::scan::start_of;

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
            Cow::Borrowed(_) => Failure::new::<T>(&error, json),
            Cow::Owned(mended) => Failure::new::<T>(&last, &mended),
        })
    })
}

/// From the members of an object, in the order of its text, to the type. What the type has no field for is not even
/// read. Who gets an error decodes the text as a whole, which tells more of it, and does for types that no map will do for.
pub(super) fn decode_members<'a, T: DeserializeOwned>(
    members: impl Iterator<Item = (&'a str, &'a str)>,
) -> serde_json::Result<T> {
    member_by_member(members, &Cell::new(None))
}

fn member_by_member<'a, T: DeserializeOwned>(
    members: impl Iterator<Item = (&'a str, &'a str)>,
    current: &Cell<Option<(&'a str, &'a str)>>,
) -> serde_json::Result<T> {
    T::deserialize(MapAccessDeserializer::new(Members { members, current }))
}

impl Failure {
    fn new<T: DeserializeOwned>(error: &serde_json::Error, json: &str) -> Self {
        let reason = reason_of(error);
        let path = path_by_member::<T>(&reason, json).unwrap_or_else(|| path_by_place(error, json));
        Self { path, reason }
    }
}

fn reason_of(error: &serde_json::Error) -> String {
    let message = error.to_string();
    // Nobody has the text before them.
    let place = format!(" at line {} column {}", error.line(), error.column());
    message.strip_suffix(&place).unwrap_or(&message).to_owned()
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

/// Decodes again, member by member, to see in which one it fails. serde_json's own place of an error that a type's
/// `TryFrom` or the like found is somewhere behind that value. `None` if the type does not take it in this form.
fn path_by_member<T: DeserializeOwned>(reason: &str, json: &str) -> Option<String> {
    let index = Index::of(json);
    let current = Cell::new(None);
    let members = index
        .iter(json)
        .map(|(key, member)| (key, index.value(json, member)));
    let error = member_by_member::<T>(members, &current).err()?;
    if reason_of(&error) != reason {
        return None;
    }
    Some(match current.get() {
        Some((key, value)) => format!(".{key}{}", path_by_place(&error, value)),
        None => String::new(),
    })
}

struct Members<'a, 'c, I> {
    members: I,
    /// The key and the text of the value that is being decoded.
    current: &'c Cell<Option<(&'a str, &'a str)>>,
}

impl<'a, I: Iterator<Item = (&'a str, &'a str)>> MapAccess<'a> for Members<'a, '_, I> {
    type Error = serde_json::Error;

    fn next_key_seed<K: DeserializeSeed<'a>>(&mut self, seed: K) -> serde_json::Result<Option<K::Value>> {
        let Some((key, value)) = self.members.next() else {
            return Ok(None);
        };
        let key_only = seed.deserialize(BorrowedStrDeserializer::new(key))?;
        self.current.set(Some((key, value)));
        Ok(Some(key_only))
    }

    fn next_value_seed<V: DeserializeSeed<'a>>(&mut self, seed: V) -> serde_json::Result<V::Value> {
        let (_, json) = self.current.get().unwrap_or(("", "null"));
        let value = seed.deserialize(Text(json))?;
        self.current.set(None);
        Ok(value)
    }
}

/// The text of one value, which is decoded by serde_json unless nobody wants it.
struct Text<'a>(&'a str);

macro_rules! by_serde_json {
    ($($method:ident($($argument:ident: $type:ty),*))*) => {
        $(fn $method<V: Visitor<'a>>(self, $($argument: $type,)* visitor: V) -> serde_json::Result<V::Value> {
            let mut json = serde_json::Deserializer::from_str(self.0);
            let value = json.$method($($argument,)* visitor)?;
            json.end()?;
            Ok(value)
        })*
    };
}

impl<'a> Deserializer<'a> for Text<'a> {
    type Error = serde_json::Error;

    fn deserialize_ignored_any<V: Visitor<'a>>(self, visitor: V) -> serde_json::Result<V::Value> {
        visitor.visit_unit()
    }

    by_serde_json! {
        deserialize_any()
        deserialize_bool()
        deserialize_i8()
        deserialize_i16()
        deserialize_i32()
        deserialize_i64()
        deserialize_i128()
        deserialize_u8()
        deserialize_u16()
        deserialize_u32()
        deserialize_u64()
        deserialize_u128()
        deserialize_f32()
        deserialize_f64()
        deserialize_char()
        deserialize_str()
        deserialize_string()
        deserialize_bytes()
        deserialize_byte_buf()
        deserialize_option()
        deserialize_unit()
        deserialize_unit_struct(name: &'static str)
        deserialize_newtype_struct(name: &'static str)
        deserialize_seq()
        deserialize_tuple(length: usize)
        deserialize_tuple_struct(name: &'static str, length: usize)
        deserialize_map()
        deserialize_struct(name: &'static str, fields: &'static [&'static str])
        deserialize_enum(name: &'static str, variants: &'static [&'static str])
        deserialize_identifier()
    }
}

/// The innermost value at the place of the error. serde_json reports it right behind the value that it read, or right
/// in front of one that it did not.
fn path_by_place(error: &serde_json::Error, mut json: &str) -> String {
    let lines = json.split_inclusive('\n');
    let before: usize = lines.take(error.line().saturating_sub(1)).map(str::len).sum();
    let mut place = before + error.column();
    let mut path = String::new();
    loop {
        let index = Index::of(json);
        let member = index
            .iter(json)
            .map(|(key, member)| (key, index.value(json, member)))
            .find(|(_, value)| is_at(place, value, json));
        let inner = if let Some((key, value)) = member {
            let _ = write!(path, ".{key}");
            value
        } else if let Some((position, element)) = element_at(place, json) {
            let _ = write!(path, "[{position}]");
            element
        } else {
            return path;
        };
        place -= start_of(inner, json);
        json = inner;
    }
}

fn element_at(place: usize, json: &str) -> Option<(usize, &str)> {
    let elements: Vec<&RawValue> = serde_json::from_str(json).ok()?;
    elements
        .into_iter()
        .map(RawValue::get)
        .enumerate()
        .find(|(_, element)| is_at(place, element, json))
}

fn is_at(place: usize, part: &str, json: &str) -> bool {
    let start = start_of(part, json);
    (start..=start + part.len()).contains(&place)
}
