//! Decodes JSON text to any type, forgiving where JavaScript is. Must not know where in the text it fails.

use std::borrow::Cow;
use std::cell::Cell;

use serde::Deserializer;
use serde::de::value::{BorrowedStrDeserializer, MapAccessDeserializer};
use serde::de::{DeserializeOwned, DeserializeSeed, MapAccess, Visitor};
use serde_json::Value;

/// Why a text could not be decoded.
pub(super) struct Failure {
    pub(super) error: serde_json::Error,
    /// The text that the error is about, if it is not the given one.
    mended: Option<String>,
}

impl Failure {
    pub(super) fn reason(&self) -> String {
        reason_of(&self.error)
    }

    /// The text that the error is about.
    pub(super) fn text<'a>(&'a self, given: &'a str) -> &'a str {
        self.mended.as_deref().unwrap_or(given)
    }
}

/// Decodes the text directly to the type.
pub(super) fn decode<T: DeserializeOwned>(json: &str) -> Result<T, Failure> {
    serde_json::from_str(json).or_else(|error| {
        let mended = mend(json);
        serde_json::from_str(&mended).map_err(|last| match mended {
            Cow::Borrowed(_) => Failure { error, mended: None },
            Cow::Owned(mended) => Failure {
                error: last,
                mended: Some(mended),
            },
        })
    })
}

/// Decodes the members of an object, in the order of its text, to the type. Members that the type has no
/// field for are not even read. Its errors are shown to nobody: decoding the text as a whole tells more, and
/// also works for types that cannot be read from a map.
pub(super) fn decode_members<'a, T: DeserializeOwned>(
    members: impl Iterator<Item = (&'a str, &'a str)>,
) -> serde_json::Result<T> {
    decode_members_at(members, &Cell::new(None))
}

/// The same; `current` holds the member that is being decoded, and keeps the one that failed.
pub(super) fn decode_members_at<'a, T: DeserializeOwned>(
    members: impl Iterator<Item = (&'a str, &'a str)>,
    current: &Cell<Option<(&'a str, &'a str)>>,
) -> serde_json::Result<T> {
    T::deserialize(MapAccessDeserializer::new(Members { members, current }))
}

pub(super) fn reason_of(error: &serde_json::Error) -> String {
    let message = error.to_string();
    // The place is left out: the reader of the message does not have the text at hand.
    let place = format!(" at line {} column {}", error.line(), error.column());
    message.strip_suffix(&place).unwrap_or(&message).to_owned()
}

/// The same value without what JavaScript accepts and serde rejects: keys that occur twice and, since the
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
    // In valid JSON, a backslash always begins an escape.
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

/// The UTF-16 code unit of the `\uXXXX` at this position.
fn code_unit(json: &str, at: usize) -> Option<u16> {
    let hex = json.get(at..at + 6)?.strip_prefix("\\u")?;
    u16::from_str_radix(hex, 16).ok()
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

/// The text of one value, which serde_json decodes only if the type wants it.
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
