//! One Parse object as it came from the server: kept as text, indexed and decoded on first use. Must not know
//! of events, subscriptions or threads.

mod decode;
mod index;
mod path;

use std::fmt;
use std::ops::Range;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use self::decode::{Failure, decode, decode_members};
use self::index::Index;
use self::path::path_of;
use crate::error::{Error, ErrorKind, Result};
use crate::scan::Outline;
use crate::types::{Acl, Date, Pointer};

/// A Parse object, which decodes only the fields that are read.
///
/// It holds the JSON that came. Reading a field decodes that field alone, once; [`get_as`](Self::get_as) and
/// [`decode`](Self::decode) go directly from the text to a type. A field that cannot be decoded (an invalid
/// date, for example) is therefore an error of that access only. Clones are cheap and share the decoded
/// values.
///
/// ```
/// use parse_livequery::{GeoPoint, Object};
///
/// #[derive(serde::Deserialize)]
/// #[serde(rename_all = "camelCase")]
/// struct Score {
///     player_name: String,
///     score: f64,
/// }
///
/// let object: Object = r#"{
///     "className": "GameScore", "objectId": "xWMyZ4YEGZ", "createdAt": "2024-01-02T03:04:05.678Z",
///     "playerName": "Sean", "score": 1337,
///     "location": {"__type": "GeoPoint", "latitude": 40.5, "longitude": -74}
/// }"#.parse()?;
///
/// assert_eq!(object.id(), Some("xWMyZ4YEGZ"));
/// assert_eq!(object.get("score").and_then(|score| score.as_i64()), Some(1337));
/// assert_eq!(object.get_as::<GeoPoint>("location")?, GeoPoint::new(40.5, -74.0)?);
/// assert_eq!(object.get_as::<Option<String>>("cheats")?, None);
///
/// let score: Score = object.decode()?;
/// assert_eq!((score.player_name.as_str(), score.score), ("Sean", 1337.0));
/// # Ok::<(), parse_livequery::Error>(())
/// ```
///
/// If a key occurs twice, the last value counts, as in JavaScript. Half of a surrogate pair in a string is
/// read as U+FFFD, which is what JavaScript would show.
///
/// An object inside another one, which is there if a server hook fetched the target of a pointer, is an
/// `Object` too: `object.get_as::<Object>("owner")`.
#[derive(Clone)]
pub struct Object(Arc<Inner>);

struct Inner {
    text: Arc<str>,
    range: Range<usize>,
    index: Indexed,
}

/// The members by name.
enum Indexed {
    AtOnce(Index),
    OnDemand(OnceLock<Index>),
}

impl Object {
    /// The object in this range of a frame, with its outline if it is known already. Decodes nothing.
    ///
    /// If the text is anything but an object, such as `null`, the result has no members.
    pub(crate) fn from_frame(text: Arc<str>, range: Range<usize>, outline: Option<&Outline>) -> Self {
        let json = text.get(range.clone()).unwrap_or("null");
        let index = match outline {
            Some(outline) => Indexed::AtOnce(Index::new(json, outline.exact())),
            None => Indexed::OnDemand(OnceLock::new()),
        };
        Self(Arc::new(Inner { text, range, index }))
    }

    /// The object in another range of the same frame.
    pub(crate) fn neighbour(&self, range: Range<usize>) -> Self {
        Self::from_frame(Arc::clone(&self.0.text), range, None)
    }

    /// The text that contains the object.
    pub(crate) fn frame(&self) -> &str {
        &self.0.text
    }

    /// About how many bytes it occupies in memory beside the text.
    pub(crate) fn overhead(&self) -> usize {
        let index = match &self.0.index {
            Indexed::AtOnce(index) => Some(index),
            Indexed::OnDemand(index) => index.get(),
        };
        size_of::<Inner>() + index.map_or(0, Index::size)
    }

    /// Makes an object with these members, for tests.
    ///
    /// Text can be parsed: `r#"{"score":1}"#.parse::<Object>()`.
    ///
    /// # Errors
    ///
    /// Of kind [`ErrorKind::Decode`] if the value is not a JSON object.
    ///
    /// # Examples
    /// ```
    /// use parse_livequery::Object;
    /// use serde_json::json;
    ///
    /// # fn main() -> parse_livequery::Result<()> {
    /// let game = Object::from_json(json!({"className": "Game", "objectId": "x1", "score": 10}))?;
    /// assert_eq!(game.get_i64("score"), Some(10));
    /// # Ok(())
    /// # }
    /// ```
    pub fn from_json(value: Value) -> Result<Self> {
        if !value.is_object() {
            return Err(Error::new(
                ErrorKind::Decode,
                "a Parse object must be a JSON object",
            ));
        }
        Ok(Self::from_text(value.to_string()))
    }

    /// Returns the value of a field, or `None` if there is none. A field that is `null` has the value
    /// [`Value::Null`].
    ///
    /// A value that cannot be decoded (a number beyond `f64` such as `1e999`, more than 127 levels of
    /// nesting) counts as absent, and a warning is logged; [`get_as`](Self::get_as) returns the reason.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.value_of(key, self.member(key)?)
    }

    /// Returns the value of a field as any type that implements serde's `Deserialize`, such as
    /// [`GeoPoint`](crate::GeoPoint).
    ///
    /// An absent field is read like one that is `null`, so an `Option` is `None` for both.
    ///
    /// # Errors
    ///
    /// Of kind [`ErrorKind::Decode`] if the value does not fit the type or the field is missing. The text
    /// names the class, the field and what was found.
    ///
    /// # Examples
    /// ```
    /// use parse_livequery::{Date, Object};
    ///
    /// # fn main() -> parse_livequery::Result<()> {
    /// let game: Object = r#"{"due": {"__type": "Date", "iso": "2024-01-02T03:04:05.678Z"}}"#.parse()?;
    /// assert_eq!(game.get_as::<Date>("due")?.to_string(), "2024-01-02T03:04:05.678Z");
    /// assert_eq!(game.get_as::<Option<Date>>("begin")?, None);
    /// assert!(game.get_as::<f64>("due").is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn get_as<T: DeserializeOwned>(&self, key: &str) -> Result<T> {
        match self.member(key) {
            Some(member) => {
                let json = self.index().value(self.as_json(), member);
                decode(json).map_err(|failure| self.error::<T>(Some(key), &failure, json))
            }
            // The fields of a broken object are unknown.
            None if self.index().is_broken() => Err(self.broken()),
            None => serde_json::from_str("null").map_err(|_| {
                Error::new(
                    ErrorKind::Decode,
                    format!("{} has no field `{key}`", self.label()),
                )
            }),
        }
    }

    /// Returns the text of a field, or `None` if it is absent or not a string.
    #[must_use]
    pub fn get_str(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }

    /// Returns the value of a field, or `None` if it is absent or not an integer in the range of `i64`.
    #[must_use]
    pub fn get_i64(&self, key: &str) -> Option<i64> {
        self.get(key)?.as_i64()
    }

    /// Returns the value of a field, or `None` if it is absent or not a number.
    #[must_use]
    pub fn get_f64(&self, key: &str) -> Option<f64> {
        self.get(key)?.as_f64()
    }

    /// Returns the value of a field, or `None` if it is absent or not a boolean.
    #[must_use]
    pub fn get_bool(&self, key: &str) -> Option<bool> {
        self.get(key)?.as_bool()
    }

    /// Decodes the whole object as any type that implements serde's `Deserialize`.
    ///
    /// The names are Parse's, in camel case: `#[serde(rename_all = "camelCase")]` translates them. Fields
    /// that the type does not have are ignored.
    ///
    /// # Errors
    ///
    /// Of kind [`ErrorKind::Decode`] if the object does not fit the type. The text names the class, the path of the
    /// field and what was found.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T> {
        let json = self.as_json();
        let index = self.index();
        if !index.is_broken() {
            if let Ok(decoded) = decode_members(index.members(json)) {
                return Ok(decoded);
            }
        }
        decode(json).map_err(|failure| self.error::<T>(None, &failure, json))
    }

    /// The id of the object. Every object from the server has one.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.get_str("objectId")
    }

    /// The class of the object. Every object from the server has one.
    #[must_use]
    pub fn class_name(&self) -> Option<&str> {
        self.get_str("className")
    }

    /// When the object was created.
    #[must_use]
    pub fn created_at(&self) -> Option<Date> {
        self.get_as("createdAt").ok()
    }

    /// When the object was last saved.
    #[must_use]
    pub fn updated_at(&self) -> Option<Date> {
        self.get_as("updatedAt").ok()
    }

    /// Who may read and write the object. `None` if it has no ACL, in which case everyone may.
    #[must_use]
    pub fn acl(&self) -> Option<Acl> {
        self.get_as("ACL").ok()
    }

    /// The names of all fields, in the order in which they came.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.index().iter(self.as_json()).map(|(key, _)| key)
    }

    /// All fields with their values, in the order in which they came, without those that cannot be decoded.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.index()
            .iter(self.as_json())
            .filter_map(|(key, member)| Some((key, self.value_of(key, member)?)))
    }

    /// The number of fields.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index().len(self.as_json())
    }

    /// Whether there are no fields at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The JSON text, exactly as it came.
    #[must_use]
    pub fn as_json(&self) -> &str {
        self.0.text.get(self.0.range.clone()).unwrap_or("null")
    }

    /// The whole object as a JSON value, without the fields that cannot be decoded.
    #[must_use]
    pub fn to_json(&self) -> Value {
        match decode(self.as_json()) {
            Ok(value) => value,
            Err(_) => self
                .iter()
                .map(|(key, value)| (key.to_owned(), value.clone()))
                .collect(),
        }
    }

    /// The names of the fields that differ from those of `original`: changed, added, or removed.
    ///
    /// `updatedAt`, which always differs, is left out, and so are fields that the query did not select:
    /// neither object has them.
    ///
    /// # Examples
    /// ```
    /// use parse_livequery::Object;
    ///
    /// # fn main() -> parse_livequery::Result<()> {
    /// let before: Object = r#"{"score": 1, "note": "x", "name": "go"}"#.parse()?;
    /// let after: Object = r#"{"score": 2, "name": "go"}"#.parse()?;
    /// assert_eq!(after.changed_keys(&before), ["score", "note"]);
    /// assert_eq!(after.removed_keys(&before), ["note"]);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn changed_keys<'a>(&'a self, original: &'a Self) -> Vec<&'a str> {
        let differs = |&(key, member): &(&str, usize)| {
            key != "updatedAt"
                && original.member(key).is_none_or(|other| {
                    self.index().value(self.as_json(), member)
                        != original.index().value(original.as_json(), other)
                        && self.value_of(key, member) != original.value_of(key, other)
                })
        };
        self.index()
            .iter(self.as_json())
            .filter(differs)
            .map(|(key, _)| key)
            .chain(self.removed_keys(original))
            .collect()
    }

    /// The names of the fields that `original` has and this object does not: those that were unset.
    #[must_use]
    pub fn removed_keys<'a>(&self, original: &'a Self) -> Vec<&'a str> {
        original
            .keys()
            .filter(|key| *key != "updatedAt" && self.member(key).is_none())
            .collect()
    }

    /// A pointer to this object, as other objects hold it: for `query.equal_to("owner", user.to_pointer())`.
    /// `None` if the object has no id or no class.
    ///
    /// # Examples
    /// ```
    /// use parse_livequery::{Object, Pointer};
    ///
    /// # fn main() -> parse_livequery::Result<()> {
    /// let game: Object = r#"{"className": "Game", "objectId": "x1", "score": 10}"#.parse()?;
    /// assert_eq!(game.to_pointer(), Some(Pointer::new("Game", "x1")));
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn to_pointer(&self) -> Option<Pointer> {
        Some(Pointer::new(self.class_name()?, self.id()?))
    }

    fn from_text(text: String) -> Self {
        let range = 0..text.len();
        Self::from_frame(text.into(), range, None)
    }

    fn index(&self) -> &Index {
        match &self.0.index {
            Indexed::AtOnce(index) => index,
            Indexed::OnDemand(index) => index.get_or_init(|| {
                let index = Index::of(self.as_json());
                if index.is_broken() {
                    crate::logging::warn!("an object cannot be decoded and is treated as having no fields");
                }
                index
            }),
        }
    }

    /// The position of a member in the index.
    fn member(&self, key: &str) -> Option<usize> {
        self.index().find(self.as_json(), key)
    }

    fn value_of(&self, key: &str, member: usize) -> Option<&Value> {
        self.index().decoded(self.as_json(), member, |reason| {
            crate::logging::warn!("the field `{key}` cannot be decoded and is treated as absent: {reason}");
        })
    }

    /// The error for a value that is not a `T`, of this field if a key is given.
    fn error<T: DeserializeOwned>(&self, key: Option<&str>, failure: &Failure, json: &str) -> Error {
        let (path, reason) = (path_of::<T>(failure, json), failure.reason());
        let path = match key {
            Some(key) => format!("{key}{path}"),
            None => path.trim_start_matches('.').to_owned(),
        };
        let message = if path.is_empty() {
            format!("{}: {reason}", self.label())
        } else {
            format!("field `{path}` of {}: {reason}", self.label())
        };
        Error::new(ErrorKind::Decode, message)
    }

    /// Why the text is not an object.
    fn broken(&self) -> Error {
        match decode::<Value>(self.as_json()) {
            Err(failure) => self.error::<Value>(None, &failure, self.as_json()),
            Ok(_) => Error::new(
                ErrorKind::Decode,
                "a Parse object must be a JSON object, of less than 4 GiB",
            ),
        }
    }

    fn label(&self) -> String {
        match (self.class_name(), self.id()) {
            (Some(class_name), Some(id)) => format!("{class_name} {id}"),
            (Some(class_name), None) => class_name.to_owned(),
            (None, Some(id)) => format!("the object {id}"),
            (None, None) => "the object".to_owned(),
        }
    }
}

/// Shows the class, the id and the JSON as it came.
impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Object({}, {})", self.label(), self.as_json())
    }
}

/// Writes the JSON text as it came.
impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_json())
    }
}

impl From<&Object> for Value {
    fn from(object: &Object) -> Self {
        object.to_json()
    }
}

impl From<Object> for Value {
    fn from(object: Object) -> Self {
        object.to_json()
    }
}

/// The same as [`Object::from_json`].
impl TryFrom<Value> for Object {
    type Error = Error;

    fn try_from(value: Value) -> Result<Self> {
        Self::from_json(value)
    }
}

/// The same as [`Object::iter`].
impl<'a> IntoIterator for &'a Object {
    type Item = (&'a str, &'a Value);
    type IntoIter = Box<dyn Iterator<Item = Self::Item> + 'a>;

    fn into_iter(self) -> Self::IntoIter {
        Box::new(self.iter())
    }
}

/// Compares as JSON values do: the order of the fields does not matter.
impl PartialEq for Object {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
            || self.as_json() == other.as_json()
            || self.to_json() == other.to_json()
    }
}

/// Parses JSON text; for tests.
impl FromStr for Object {
    type Err = Error;

    fn from_str(json: &str) -> Result<Self> {
        let raw: &RawValue = serde_json::from_str(json)
            .map_err(|source| Error::with_source(ErrorKind::Decode, "a Parse object must be JSON", source))?;
        if !raw.get().starts_with('{') {
            return Err(Error::new(
                ErrorKind::Decode,
                "a Parse object must be a JSON object",
            ));
        }
        Ok(Self::from_text(raw.get().to_owned()))
    }
}

/// Leaves out the fields that cannot be decoded.
impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;

        impl<'de> Visitor<'de> for Members {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a Parse object")
            }

            // Not with serde_json's `RawValue`, which cannot be read inside `#[serde(flatten)]` and untagged
            // enums.
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut text = String::from("{");
                while let Some((key, value)) = map.next_entry::<String, Value>()? {
                    if text.len() > 1 {
                        text.push(',');
                    }
                    text.push_str(&Value::from(key).to_string());
                    text.push(':');
                    text.push_str(&value.to_string());
                }
                text.push('}');
                Ok(Object::from_text(text))
            }
        }

        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests;
