//! Parse's own data types, in Rust and, by serde, in Parse's tagged JSON. Knows nothing of objects, queries or frames.

mod acl;
mod date;
mod geo;

use data_encoding::{BASE64, BASE64_MIME_PERMISSIVE};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;

use crate::error::{Error, ErrorKind, Result};

pub use acl::Acl;
pub use date::{Date, iso};
pub use geo::{GeoPoint, Polygon};

/// A reference to an object of any class.
///
/// In JSON `{"__type":"Pointer","className":"Game","objectId":"xWMyZ4YEGZ"}`. A server hook may have replaced a
/// pointer by the object it points to (`"__type":"Object"`): that can be read as a `Pointer` too, so that a struct
/// with a `Pointer` in it reads either.
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
/// In JSON `{"__type":"File","name":"a1b2_photo.png","url":"https://.."}`. The `create` event may have the URL as it
/// is stored, where `update` has it as clients are given it.
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
    /// These bytes.
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

impl From<Vec<u8>> for Bytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self { bytes }
    }
}

impl From<&[u8]> for Bytes {
    fn from(bytes: &[u8]) -> Self {
        Self::new(bytes)
    }
}

/// A many-to-many relation: all that an object shows of it is the class at its other end.
///
/// In JSON `{"__type":"Relation","className":"Player"}`. The objects that are related are never sent: they are asked
/// for with a query of their own.
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

            impl From<&$type> for Value {
                fn from(value: &$type) -> Self {
                    serde_json::to_value(value).unwrap_or_default()
                }
            }
        )*
    };
}

into_value!(Acl, Bytes, Date, File, GeoPoint, Pointer, Polygon, Relation);

// What the JSON of each type may hold. Everything is optional, so that a wrong `__type` is reported before what is
// missing because of it.

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
        // The event shows what a client wrote, and the server takes line breaks and stray bits (Node's
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

/// The start of a text that came from outside, for an error message.
fn quoted(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{:?}..", text.get(..end).unwrap_or_default()),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use serde::de::DeserializeOwned;
    use serde_json::json;

    use super::*;

    /// Reads what a Parse Server 9.10 sent, writes it, and wants the same text; and the same by way of a `Value`.
    fn round_trip<T: DeserializeOwned + Serialize + PartialEq + Debug>(json: &str) -> T
    where
        for<'a> Value: From<&'a T>,
    {
        let read: T = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), json);
        let value: Value = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::from_value::<T>(value.clone()).unwrap(), read);
        assert_eq!(serde_json::to_value(&read).unwrap(), value);
        assert_eq!(Value::from(&read), value);
        read
    }

    #[test]
    fn every_type_makes_the_round_trip_unchanged() {
        let pointer: Pointer =
            round_trip(r#"{"__type":"Pointer","className":"Owner","objectId":"Hu1HUCrSgj"}"#);
        assert_eq!(
            (pointer.class_name(), pointer.object_id()),
            ("Owner", "Hu1HUCrSgj")
        );

        let file: File = round_trip(
            r#"{"__type":"File","name":"c4_a.txt","url":"http://127.0.0.1/parse/files/app/c4_a.txt"}"#,
        );
        assert_eq!(file.name(), "c4_a.txt");
        assert_eq!(file.url(), Some("http://127.0.0.1/parse/files/app/c4_a.txt"));
        let file: File = round_trip(r#"{"__type":"File","name":"a.txt"}"#);
        assert_eq!(file, File::new("a.txt"));

        let bytes: Bytes = round_trip(r#"{"__type":"Bytes","base64":"AQID"}"#);
        assert_eq!(bytes, Bytes::from([1, 2, 3].as_slice()));
        let bytes: Bytes = round_trip(r#"{"__type":"Bytes","base64":""}"#);
        assert_eq!(bytes, Bytes::default());
        let bytes: Bytes = round_trip(r#"{"__type":"Bytes","base64":"+/8="}"#);
        assert_eq!(bytes.into_vec(), [0xFB, 0xFF]);

        let relation: Relation = round_trip(r#"{"__type":"Relation","className":"Owner"}"#);
        assert_eq!(relation, Relation::new("Owner"));

        let date: Date = round_trip(r#"{"__type":"Date","iso":"2020-01-01T00:00:00.000Z"}"#);
        assert_eq!(date, Date::parse("2020-01-01T00:00:00Z").unwrap());
        round_trip::<Date>(r#"{"__type":"Date","iso":"9999-12-31T23:59:59.999Z"}"#);
        round_trip::<Date>(r#"{"__type":"Date","iso":"1815-06-18T12:00:00.001Z"}"#);

        let place: GeoPoint = round_trip(r#"{"__type":"GeoPoint","latitude":1.5,"longitude":-2}"#);
        assert_eq!(place, GeoPoint::new(1.5, -2.0).unwrap());
        round_trip::<GeoPoint>(r#"{"__type":"GeoPoint","latitude":0,"longitude":0.3333333333333333}"#);

        let area: Polygon = round_trip(r#"{"__type":"Polygon","coordinates":[[0,0],[0,1],[1,1.5],[0,0]]}"#);
        assert_eq!(area.coordinates().len(), 4);

        let acl: Acl = round_trip(
            r#"{"*":{"read":true,"write":true},"role:Admins":{"write":true},"u1":{"read":true,"write":true}}"#,
        );
        assert!(acl.public_write_access() && acl.role_write_access("Admins"));
        round_trip::<Acl>(r#"{"*":{"read":true},"u1":{},"u2":{"read":false,"write":true}}"#);
    }

    #[test]
    fn base64_is_read_as_generously_as_the_server_reads_it() {
        let with_line_break: Bytes =
            serde_json::from_value(json!({"__type": "Bytes", "base64": "AQ\r\nID"})).unwrap();
        assert_eq!(with_line_break.as_slice(), [1, 2, 3]);
        let with_stray_bits: Bytes =
            serde_json::from_value(json!({"__type": "Bytes", "base64": "AR=="})).unwrap();
        assert_eq!(with_stray_bits.as_slice(), [1]);
    }

    #[test]
    fn a_pointer_can_be_read_from_the_object_that_a_hook_put_in_its_place() {
        let fetched = json!({
            "__type": "Object", "className": "Owner", "objectId": "o1", "name": "ann",
            "createdAt": "2026-11-24T06:58:35.550Z", "updatedAt": "2026-11-24T06:58:35.550Z",
        });
        assert_eq!(
            serde_json::from_value::<Pointer>(fetched).unwrap(),
            Pointer::new("Owner", "o1")
        );
    }

    #[test]
    fn what_is_malformed_is_refused_with_what_is_wrong() {
        fn refused<T: DeserializeOwned + Debug>(value: Value, reason: &str) {
            let message = serde_json::from_value::<T>(value).unwrap_err().to_string();
            assert!(message.contains(reason), "{message:?} does not say {reason:?}");
        }
        let long = "x".repeat(1000);

        refused::<Pointer>(json!({"className": "A", "objectId": "a"}), "must have a `__type`");
        refused::<Pointer>(
            json!({"__type": "Pointer", "className": "A"}),
            "the Pointer has no `objectId`",
        );
        refused::<Pointer>(
            json!({"__type": "Pointer", "objectId": "a"}),
            "the Pointer has no `className`",
        );
        refused::<Pointer>(json!("A$a"), "expected a Pointer, such as {\"__type\"");
        refused::<Pointer>(
            json!({"__type": "Rocket", "className": "A", "objectId": "a"}),
            "expected the `__type` \"Pointer\", found \"Rocket\"",
        );

        refused::<File>(json!({"__type": "File", "url": "u"}), "the File has no `name`");
        refused::<File>(
            json!({"__type": "File", "name": 5}),
            "invalid type: integer `5`, expected a string",
        );
        refused::<Bytes>(json!({"__type": "Bytes"}), "the Bytes has no `base64`");
        refused::<Bytes>(
            json!({"__type": "Bytes", "base64": "A"}),
            "`base64` of the Bytes cannot be decoded",
        );
        refused::<Relation>(json!({"__type": "Relation"}), "the Relation has no `className`");

        refused::<Date>(json!({"__type": "Date"}), "the Date has no `iso`");
        refused::<Date>(
            json!({"__type": "Date", "iso": "soon"}),
            "\"soon\" is no date such as 2024-",
        );
        refused::<Date>(json!({"__type": "Date", "iso": null}), "the Date has no `iso`");
        refused::<Date>(
            json!({"__type": "GeoPoint", "latitude": 1, "longitude": 1}),
            "found \"GeoPoint\"",
        );
        refused::<Date>(
            json!(1_704_164_645_678_u64),
            "expected a Date, such as {\"__type\"",
        );
        refused::<Date>(json!(long), &format!("{:?}.. is no date", "x".repeat(60)));

        refused::<GeoPoint>(
            json!({"__type": "GeoPoint", "latitude": 91, "longitude": 0}),
            "the latitude 91 of a GeoPoint is not within -90 to 90",
        );
        refused::<GeoPoint>(
            json!({"__type": "GeoPoint", "latitude": 0, "longitude": -180.5}),
            "the longitude -180.5 of a GeoPoint is not within -180 to 180",
        );
        refused::<GeoPoint>(
            json!({"__type": "GeoPoint", "latitude": 0}),
            "the GeoPoint has no `longitude`",
        );
        refused::<GeoPoint>(
            json!({"__type": "File", "name": "a"}),
            "the `__type` \"GeoPoint\", found \"File\"",
        );
        refused::<GeoPoint>(json!({"__type": 7}), "expected a string");
        refused::<GeoPoint>(json!([1, 2]), "expected");
        refused::<GeoPoint>(json!({"__type": long}), &format!("found {:?}..", "x".repeat(60)));

        refused::<Polygon>(
            json!({"__type": "Polygon", "coordinates": [[0, 0], [0, 1]]}),
            "at least 3 points, and there are 2",
        );
        refused::<Polygon>(
            json!({"__type": "Polygon", "coordinates": [[0, 0], [0, 1], [91, 0]]}),
            "the latitude 91 of a GeoPoint",
        );
        refused::<Polygon>(
            json!({"__type": "Polygon", "coordinates": [[0, 0], [0, 1], [1]]}),
            "invalid length 1",
        );
        refused::<Acl>(json!({"u1": {"admin": true}}), "unknown field `admin`");
        refused::<Acl>(json!({"u1": {"read": 1}}), "expected a boolean");
    }

    #[test]
    fn the_types_work_inside_a_struct_that_is_flattened() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Game {
            name: String,
            #[serde(flatten)]
            details: Details,
        }

        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Details {
            when: Option<Date>,
            places: Vec<GeoPoint>,
            owner: Pointer,
        }

        let json = json!({
            "name": "chess",
            "when": {"__type": "Date", "iso": "2020-01-01T00:00:00.000Z"},
            "places": [{"__type": "GeoPoint", "latitude": 1.5, "longitude": -2}],
            "owner": {"__type": "Pointer", "className": "Owner", "objectId": "o1"},
        });
        let game: Game = serde_json::from_value(json.clone()).unwrap();
        assert_eq!(serde_json::to_value(&game).unwrap(), json);
        let without_date: Game =
            serde_json::from_value(json!({"name": "", "places": [], "owner": json["owner"]})).unwrap();
        assert_eq!(without_date.details.when, None);
    }

    #[test]
    fn the_types_go_from_thread_to_thread() {
        fn is_sound<T: Send + Sync + std::panic::UnwindSafe + std::panic::RefUnwindSafe + 'static>() {}
        is_sound::<Acl>();
        is_sound::<Bytes>();
        is_sound::<Date>();
        is_sound::<File>();
        is_sound::<GeoPoint>();
        is_sound::<Pointer>();
        is_sound::<Polygon>();
        is_sound::<Relation>();
    }
}
