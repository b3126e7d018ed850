//! Parse's own data types, in Rust and, through serde, in Parse's tagged JSON. Must not know of objects,
//! queries or frames.

mod acl;
mod date;
mod geo;

use data_encoding::{BASE64, BASE64_MIME_PERMISSIVE};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use crate::error::{Error, ErrorKind, Result};
use crate::text::quoted;

pub use acl::Acl;
pub use date::{Date, iso};
pub use geo::{GeoPoint, Polygon};

/// A reference to an object of any class.
///
/// In JSON `{"__type":"Pointer","className":"Game","objectId":"xWMyZ4YEGZ"}`. A server hook may have replaced
/// a pointer with the object that it points to (`"__type":"Object"`). That can be read as a `Pointer` too, so
/// a struct with a `Pointer` field reads either.
///
/// ```
/// use parse_livequery::Pointer;
///
/// let owner = Pointer::new("_User", "u1");
/// assert_eq!(owner.object_id(), "u1");
/// assert_eq!(
///     serde_json::to_string(&owner)?,
///     r#"{"__type":"Pointer","className":"_User","objectId":"u1"}"#
/// );
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "__type", rename_all = "camelCase", try_from = "PointerJson")]
pub struct Pointer {
    class_name: String,
    object_id: String,
}

impl Pointer {
    /// A pointer to the object `object_id` of the class `class_name`.
    #[must_use]
    pub fn new(class_name: impl Into<String>, object_id: impl Into<String>) -> Self {
        Self {
            class_name: class_name.into(),
            object_id: object_id.into(),
        }
    }

    /// The class of the object that this points to.
    #[must_use]
    pub fn class_name(&self) -> &str {
        &self.class_name
    }

    /// The id of the object that this points to.
    #[must_use]
    pub fn object_id(&self) -> &str {
        &self.object_id
    }
}

/// A file that Parse Server stores.
///
/// In JSON `{"__type":"File","name":"a1b2_photo.png","url":"https://.."}`. In a `create` event, the URL may
/// be the stored one, where an `update` event has the one for clients.
///
/// ```
/// use parse_livequery::File;
///
/// let file = File::new("a1b2_photo.png").with_url("https://files.example.com/a1b2_photo.png");
/// assert_eq!(file.name(), "a1b2_photo.png");
/// assert_eq!(file.url(), Some("https://files.example.com/a1b2_photo.png"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "__type", try_from = "FileJson")]
pub struct File {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
}

impl File {
    /// The file of this name, with no URL.
    ///
    /// An object with a file that has no URL ends LiveQuery for all clients on Parse Server 9.10, so add one
    /// with [`with_url`](Self::with_url) before you save the file in an object;
    /// `Rest::upload` (feature `rest`) returns a file that has one.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            url: None,
        }
    }

    /// The same file with this URL.
    #[must_use]
    pub fn with_url(mut self, url: impl Into<String>) -> Self {
        self.url = Some(url.into());
        self
    }

    /// The name under which the server stores the file.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the file can be fetched, if that was sent.
    #[must_use]
    pub fn url(&self) -> Option<&str> {
        self.url.as_deref()
    }
}

/// Binary data.
///
/// In JSON `{"__type":"Bytes","base64":"AQID"}`.
///
/// ```
/// use parse_livequery::Bytes;
///
/// let bytes: Bytes = serde_json::from_str(r#"{"__type":"Bytes","base64":"AQID"}"#)?;
/// assert_eq!(bytes.as_slice(), [1, 2, 3]);
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "__type", try_from = "BytesJson")]
pub struct Bytes {
    #[serde(rename = "base64", serialize_with = "to_base64")]
    bytes: Vec<u8>,
}

impl Bytes {
    /// Wraps these bytes.
    #[must_use]
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into() }
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes, without a copy.
    #[must_use]
    pub fn into_vec(self) -> Vec<u8> {
        self.bytes
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A many-to-many relation: an object shows only the class at its other end.
///
/// In JSON `{"__type":"Relation","className":"Player"}`. The related objects are never sent; they are fetched
/// with a separate query.
///
/// ```
/// use parse_livequery::Relation;
///
/// let relation: Relation = serde_json::from_str(r#"{"__type":"Relation","className":"Player"}"#)?;
/// assert_eq!(relation.class_name(), "Player");
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "__type", rename_all = "camelCase", try_from = "RelationJson")]
pub struct Relation {
    class_name: String,
}

impl Relation {
    /// A relation to objects of the class `class_name`.
    #[must_use]
    pub fn new(class_name: impl Into<String>) -> Self {
        Self {
            class_name: class_name.into(),
        }
    }

    /// The class of the related objects.
    #[must_use]
    pub fn class_name(&self) -> &str {
        &self.class_name
    }
}

macro_rules! into_value {
    ($($type:ty),*) => {
        $(
            impl From<$type> for Value {
                fn from(value: $type) -> Self {
                    // Writing strings and finite numbers into a `Value` cannot fail.
                    serde_json::to_value(value).unwrap_or_default()
                }
            }
        )*
    };
}

into_value!(Acl, Bytes, Date, File, GeoPoint, Pointer, Polygon, Relation);

// The members that the JSON of each type may have. All are optional, so that a wrong `__type` is reported
// rather than the members that are missing because of it.

#[derive(Deserialize)]
#[serde(
    rename_all = "camelCase",
    expecting = "a Pointer, such as {\"__type\":\"Pointer\",\"className\":\"Game\",\"objectId\":\"xWMyZ4YEGZ\"}"
)]
struct PointerJson {
    #[serde(rename = "__type")]
    tag: Option<String>,
    class_name: Option<String>,
    object_id: Option<String>,
}

impl TryFrom<PointerJson> for Pointer {
    type Error = Error;

    fn try_from(json: PointerJson) -> Result<Self> {
        if json.tag.as_deref() != Some("Object") {
            check_tag(json.tag, "Pointer")?;
        }
        Ok(Self {
            class_name: required(json.class_name, "Pointer", "className")?,
            object_id: required(json.object_id, "Pointer", "objectId")?,
        })
    }
}

#[derive(Deserialize)]
#[serde(expecting = "a File, such as {\"__type\":\"File\",\"name\":\"a.txt\",\"url\":\"https://..\"}")]
struct FileJson {
    #[serde(rename = "__type")]
    tag: Option<String>,
    name: Option<String>,
    url: Option<String>,
}

impl TryFrom<FileJson> for File {
    type Error = Error;

    fn try_from(json: FileJson) -> Result<Self> {
        check_tag(json.tag, "File")?;
        Ok(Self {
            name: required(json.name, "File", "name")?,
            url: json.url,
        })
    }
}

#[derive(Deserialize)]
#[serde(expecting = "Bytes, such as {\"__type\":\"Bytes\",\"base64\":\"AQID\"}")]
struct BytesJson {
    #[serde(rename = "__type")]
    tag: Option<String>,
    base64: Option<String>,
}

impl TryFrom<BytesJson> for Bytes {
    type Error = Error;

    fn try_from(json: BytesJson) -> Result<Self> {
        check_tag(json.tag, "Bytes")?;
        let base64 = required(json.base64, "Bytes", "base64")?;
        // The event shows what a client wrote, and the server accepts line breaks and stray bits (Node's
        // `Buffer.from(_, "base64")` in Parse Server's MongoTransform.js).
        let bytes = BASE64_MIME_PERMISSIVE
            .decode(base64.as_bytes())
            .map_err(|source| {
                Error::with_source(
                    ErrorKind::InvalidValue,
                    "the `base64` of the Bytes cannot be decoded",
                    source,
                )
            })?;
        Ok(Self { bytes })
    }
}

fn to_base64<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&BASE64.encode_display(bytes))
}

#[derive(Deserialize)]
#[serde(
    rename_all = "camelCase",
    expecting = "a Relation, such as {\"__type\":\"Relation\",\"className\":\"Player\"}"
)]
struct RelationJson {
    #[serde(rename = "__type")]
    tag: Option<String>,
    class_name: Option<String>,
}

impl TryFrom<RelationJson> for Relation {
    type Error = Error;

    fn try_from(json: RelationJson) -> Result<Self> {
        check_tag(json.tag, "Relation")?;
        Ok(Self {
            class_name: required(json.class_name, "Relation", "className")?,
        })
    }
}

fn check_tag(found: Option<String>, expected: &str) -> Result<()> {
    match found {
        Some(tag) if tag == expected => Ok(()),
        Some(tag) => Err(Error::new(
            ErrorKind::InvalidValue,
            format!("expected the `__type` \"{expected}\", found {}", quoted(&tag)),
        )),
        None => Err(Error::new(
            ErrorKind::InvalidValue,
            format!("a {expected} must have a `__type`, and there is none"),
        )),
    }
}

fn required<T>(member: Option<T>, of: &str, name: &str) -> Result<T> {
    member.ok_or_else(|| Error::new(ErrorKind::InvalidValue, format!("the {of} has no `{name}`")))
}

#[cfg(test)]
mod tests;
