//! How `find()` sorts: turns the sort keys of an object into bytes that compare as the database compares the
//! values. Must not know who sorts.
//!
//! Numbers, booleans, dates and texts compared by bytes sort alike everywhere. MongoDB treats a missing or
//! null value as the smallest, and Postgres as the greatest; Postgres may also sort texts by the rules of a
//! language. Which of these a server does shows in the objects that it returns ([`Order::tells`]). How it
//! sorts arrays, objects, places, and values of different types cannot be known here: such a key [is
//! unknown](SortKey::is_unknown), or has [other types](Order::types_in) than those before.

use std::ops::Range;

use serde_json::Value;

use crate::scan::Members;
use crate::types::Date;

/// The order of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    keys: Vec<Key>,
    pub(crate) nulls: Nulls,
}

/// Where missing and null values sort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nulls {
    /// As MongoDB does.
    Smallest,
    /// As Postgres does.
    Greatest,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    path: Box<str>,
    descending: bool,
}

impl Order {
    /// `keys` are names of fields, with a minus sign before those whose greatest value comes first. Without
    /// any, the oldest object comes first.
    pub(crate) fn new(keys: &[String]) -> Self {
        let keys = keys.iter().map(String::as_str);
        let mut keys: Vec<_> = keys.filter(|key| !key.is_empty()).map(Key::new).collect();
        if keys.is_empty() {
            keys.push(Key::new("createdAt"));
        }
        Self {
            keys,
            nulls: Nulls::Smallest,
        }
    }

    pub(crate) fn with_nulls(&self, nulls: Nulls) -> Self {
        Self {
            keys: self.keys.clone(),
            nulls,
        }
    }

    /// The keys to send to `find()`. Objects that are equal otherwise are sorted by id, so that there is
    /// exactly one order.
    pub(crate) fn for_find(&self) -> Vec<String> {
        let mut order: Vec<_> = self.keys.iter().map(Key::for_find).collect();
        if !order.iter().any(|key| key.trim_start_matches('-') == "objectId") {
            order.push("objectId".to_owned());
        }
        order
    }

    /// The fields that are needed for sorting.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &str> {
        self.keys
            .iter()
            .filter_map(|key| key.path.split('.').next())
            .filter(|field| !ALWAYS_THERE.contains(field))
    }

    /// The bytes that an object is sorted by, which end with its id. `None` if it has no id.
    pub(crate) fn sort_key(&self, text: &str) -> Option<SortKey> {
        let mut id = None;
        let mut values: Vec<Option<&str>> = vec![None; self.keys.len()];
        for (name, value) in Members::new(text) {
            if name == "objectId" {
                id = serde_json::from_str::<String>(value).ok();
            }
            for (key, found) in self.keys.iter().zip(&mut values) {
                if key.field() == name {
                    *found = Some(value);
                }
            }
        }
        let id = id.filter(|id| !id.is_empty())?;
        let length = u16::try_from(id.len()).ok()?;
        let mut bytes = Vec::with_capacity(40);
        let mut marks = capitals(id.as_bytes());
        for (key, value) in self.keys.iter().zip(values) {
            let start = bytes.len();
            marks |= key.write(value, self.nulls, &mut bytes);
            if key.descending {
                bytes[start..].iter_mut().for_each(|byte| *byte = !*byte);
            }
        }
        Some(SortKey::new(bytes, id.as_bytes(), length, marks))
    }

    /// The types of the values in a key of this order, one bit for each type except null.
    pub(crate) fn types_in<'k>(&'k self, key: &'k SortKey) -> impl Iterator<Item = u8> + 'k {
        self.parts(key).map(|part| match part.tag {
            NULL_SMALLEST | NULL_GREATEST => 0,
            tag => 1 << (tag >> 4),
        })
    }

    /// What the order in which a server returns these two objects reveals, if anything: they must first
    /// differ in something that databases sort in different ways.
    pub(crate) fn tells(&self, one: &SortKey, other: &SortKey) -> Option<Tells> {
        if !(one.has(PECULIAR) || other.has(PECULIAR)) {
            return None;
        }
        let parts = self.parts(one).zip(self.parts(other));
        for (one, other) in parts {
            if one.bytes == other.bytes {
                continue;
            }
            return match (one.is_null(), other.is_null(), one.tag, other.tag) {
                (true, false, ..) | (false, true, ..) => Some(Tells::Nulls),
                (_, _, TEXT, TEXT) => differ_by_capitals(&one.text(), &other.text()).then_some(Tells::Texts),
                _ => None,
            };
        }
        differ_by_capitals(one.id(), other.id()).then_some(Tells::Texts)
    }

    fn parts<'k>(&'k self, key: &'k SortKey) -> impl Iterator<Item = Part<'k>> + 'k {
        let mut rest = &*key.0;
        self.keys.iter().map(move |key| {
            let flip = |byte: u8| if key.descending { !byte } else { byte };
            let tag = rest.first().copied().map_or(0, flip);
            let length = match tag {
                NUMBER | DATE => 9,
                BOOL => 2,
                TEXT | OTHER => {
                    let ends = |pair: &[u8]| pair.iter().all(|byte| flip(*byte) == 0);
                    let mut at = 1;
                    // A zero in the text is followed by another byte.
                    while rest.get(at..at + 2).is_some_and(|pair| !ends(pair)) {
                        at += if rest.get(at).copied().map(flip) == Some(0) {
                            2
                        } else {
                            1
                        };
                    }
                    at + 2
                }
                _ => 1,
            };
            let (bytes, behind) = rest.split_at_checked(length).unwrap_or((rest, &[]));
            rest = behind;
            Part {
                tag,
                bytes,
                descending: key.descending,
            }
        })
    }
}

/// What a pair of objects reveals of the database that sorted them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tells {
    /// Where it sorts null.
    Nulls,
    /// Whether it sorts texts by their bytes or by the rules of a language.
    Texts,
}

/// What one key of an order contributes to a [`SortKey`].
struct Part<'k> {
    tag: u8,
    bytes: &'k [u8],
    descending: bool,
}

impl Part<'_> {
    fn is_null(&self) -> bool {
        matches!(self.tag, NULL_SMALLEST | NULL_GREATEST)
    }

    /// The text, with its zeros still escaped.
    fn text(&self) -> Vec<u8> {
        let text = self.bytes.get(1..self.bytes.len().saturating_sub(2));
        let flip = |byte: &u8| if self.descending { !byte } else { *byte };
        text.unwrap_or_default().iter().map(flip).collect()
    }
}

/// Whether two texts of ASCII letters and digits compare one way by their bytes, where all capitals come
/// first, and the other way in any language. Punctuation and other scripts prove nothing, because languages
/// differ in them.
pub(crate) fn differ_by_capitals(one: &[u8], other: &[u8]) -> bool {
    let is_plain = |text: &[u8]| text.iter().all(u8::is_ascii_alphanumeric);
    let (lower_one, lower_other) = (one.to_ascii_lowercase(), other.to_ascii_lowercase());
    is_plain(one) && is_plain(other) && lower_one != lower_other && (lower_one < lower_other) != (one < other)
}

fn capitals(text: &[u8]) -> u8 {
    if text.iter().any(u8::is_ascii_uppercase) {
        PECULIAR
    } else {
        0
    }
}

impl Key {
    fn new(name: &str) -> Self {
        let path = name.strip_prefix('-');
        Self {
            path: path.unwrap_or(name).into(),
            descending: path.is_some(),
        }
    }

    fn for_find(&self) -> String {
        format!("{}{}", if self.descending { "-" } else { "" }, self.path)
    }

    fn field(&self) -> &str {
        self.path.split('.').next().unwrap_or_default()
    }

    /// Writes the value, and returns the marks that it sets.
    fn write(&self, json: Option<&str>, nulls: Nulls, bytes: &mut Vec<u8>) -> u8 {
        let decoded = json.and_then(|json| serde_json::from_str::<Value>(json).ok());
        let mut value = decoded.as_ref();
        for name in self.path.split('.').skip(1) {
            value = value.and_then(|value| value.get(name));
        }
        let Some(value) = value.filter(|value| !value.is_null() || self.path.contains('.')) else {
            bytes.push(match nulls {
                Nulls::Smallest => NULL_SMALLEST,
                Nulls::Greatest => NULL_GREATEST,
            });
            return PECULIAR;
        };
        match value {
            Value::Number(number) => write_number(number.as_f64().unwrap_or_default(), bytes),
            Value::Bool(value) => bytes.extend([BOOL, u8::from(*value)]),
            Value::String(text) => match self.plain_date(text) {
                Some(date) => write_date(date, bytes),
                None => {
                    write_text(TEXT, text, bytes);
                    return capitals(text.as_bytes());
                }
            },
            // Below the top level, Postgres has JSON, whose null differs from a missing value.
            Value::Null | Value::Array(_) => return write_other(value, bytes),
            Value::Object(members) => {
                let part = |name| members.get(name).and_then(Value::as_str).unwrap_or_default();
                match part("__type") {
                    "Date" => match Date::parse(part("iso")) {
                        Ok(date) => write_date(date, bytes),
                        Err(_) => return write_other(value, bytes),
                    },
                    // The database stores the class and the id in one string.
                    "Pointer" | "Object" => {
                        let text = format!("{}${}", part("className"), part("objectId"));
                        write_text(TEXT, &text, bytes);
                    }
                    _ => return write_other(value, bytes),
                }
            }
        }
        0
    }

    /// A date that is sent as text: `createdAt` and `updatedAt` always, and others in events of Parse Server
    /// 3.4 to 6.0 once any client's query constrains them. Text of this form sorts as its date does, so it
    /// may be a plain text as well.
    fn plain_date(&self, text: &str) -> Option<Date> {
        let has_the_form = text.len() == 24 && text.as_bytes().get(10) == Some(&b'T') && text.ends_with('Z');
        if matches!(&*self.path, "createdAt" | "updatedAt") {
            Date::parse(text).ok()
        } else if has_the_form {
            Date::parse(text).ok().filter(|date| date.to_string() == text)
        } else {
            None
        }
    }
}

/// Writes a value whose position only the server knows. Different values have different bytes.
fn write_other(value: &Value, bytes: &mut Vec<u8>) -> u8 {
    write_text(OTHER, &value.to_string(), bytes);
    UNKNOWN
}

fn write_number(number: f64, bytes: &mut Vec<u8>) {
    // Both zeros are the same number.
    let bits = (number + 0.0).to_bits();
    let sortable = if bits >> 63 == 0 { bits | 1 << 63 } else { !bits };
    bytes.push(NUMBER);
    bytes.extend(sortable.to_be_bytes());
}

fn write_date(date: Date, bytes: &mut Vec<u8>) {
    bytes.push(DATE);
    bytes.extend((date.millis() ^ i64::MIN).to_be_bytes());
}

fn write_text(tag: u8, text: &str, bytes: &mut Vec<u8>) {
    bytes.push(tag);
    for byte in text.bytes() {
        bytes.push(byte);
        if byte == 0 {
            bytes.push(0xff);
        }
    }
    bytes.extend([0, 0]);
}

/// The bytes that an object is sorted by, its id, and two facts: the length of the id, and marks.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SortKey(Box<[u8]>);

impl SortKey {
    fn new(mut bytes: Vec<u8>, id: &[u8], length: u16, marks: u8) -> Self {
        bytes.extend_from_slice(id);
        let [high, low] = length.to_be_bytes();
        bytes.extend([high, low, marks]);
        Self(bytes.into())
    }

    /// A key for the object of this key, at this position of an order that the server made.
    pub(crate) fn at_rank(&self, rank: u64) -> Self {
        let id = self.id();
        // The length was read from such a field.
        let length = u16::try_from(id.len()).unwrap_or(u16::MAX);
        Self::new(rank.to_be_bytes().into(), id, length, 0)
    }

    /// The position, if this is a key made from one.
    pub(crate) fn rank(&self) -> u64 {
        self.0
            .first_chunk()
            .map_or(u64::MAX, |rank| u64::from_be_bytes(*rank))
    }

    /// The id of the object, as text.
    pub(crate) fn id(&self) -> &[u8] {
        self.0.get(self.id_range()).unwrap_or_default()
    }

    /// Whether only the server knows where the object sorts: a value is an array, an object, a place on Earth
    /// ..
    pub(crate) fn is_unknown(&self) -> bool {
        self.has(UNKNOWN)
    }

    fn has(&self, mark: u8) -> bool {
        self.0.last().is_some_and(|marks| marks & mark != 0)
    }

    fn id_range(&self) -> Range<usize> {
        let end = self.0.len().saturating_sub(3);
        let length = match self.0.get(end..) {
            Some(&[high, low, _]) => usize::from(u16::from_be_bytes([high, low])),
            _ => 0,
        };
        end.saturating_sub(length)..end
    }
}

/// When an object was last saved, in milliseconds since 1970; the earliest time if the object does not say.
pub(crate) fn version_in(text: &str) -> i64 {
    Members::new(text)
        .filter(|(name, _)| *name == "updatedAt")
        .last()
        .and_then(|(_, value)| serde_json::from_str::<Date>(value).ok())
        .map_or(i64::MIN, Date::millis)
}

/// Fields that each object has.
const ALWAYS_THERE: [&str; 3] = ["objectId", "createdAt", "updatedAt"];

/// Marks of a key: it has a null or a capital letter, which may reveal how the server sorts.
const PECULIAR: u8 = 1;
/// It has a value that cannot be sorted here.
const UNKNOWN: u8 = 2;

// The types in the order in which MongoDB sorts them.
const NULL_SMALLEST: u8 = 0x10;
const NUMBER: u8 = 0x20;
const TEXT: u8 = 0x30;
const OTHER: u8 = 0x40;
const BOOL: u8 = 0x50;
const DATE: u8 = 0x60;
const NULL_GREATEST: u8 = 0x70;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn sorted(order: &[&str], nulls: Nulls, values: &[(&str, Value)]) -> Vec<String> {
        let keys: Vec<_> = order.iter().map(|key| (*key).to_owned()).collect();
        let order = Order::new(&keys).with_nulls(nulls);
        let mut keys: Vec<_> = values
            .iter()
            .map(|(id, value)| {
                let mut object = value.clone();
                object["objectId"] = (*id).into();
                order.sort_key(&object.to_string()).unwrap()
            })
            .collect();
        keys.sort();
        keys.iter()
            .map(|key| String::from_utf8(key.id().to_vec()).unwrap())
            .collect()
    }

    #[test]
    fn values_are_sorted_as_the_database_sorts_them() {
        let values = [
            ("number", json!({"v": 2})),
            ("negative", json!({"v": -3.5})),
            ("zero", json!({"v": 0})),
            ("minus zero", json!({"v": -0.0})),
            ("text", json!({"v": "a"})),
            ("longer", json!({"v": "ab"})),
            ("upper", json!({"v": "B"})),
            ("true", json!({"v": true})),
            ("false", json!({"v": false})),
            (
                "early",
                json!({"v": {"__type": "Date", "iso": "1969-01-01T00:00:00.000Z"}}),
            ),
            (
                "late",
                json!({"v": {"__type": "Date", "iso": "2024-01-01T00:00:00.000Z"}}),
            ),
            ("null", json!({"v": null})),
            ("missing", json!({})),
        ];
        let upwards = [
            "missing",
            "null",
            "negative",
            "minus zero",
            "zero",
            "number",
            "upper",
            "text",
            "longer",
            "false",
            "true",
            "early",
            "late",
        ];
        assert_eq!(sorted(&["v"], Nulls::Smallest, &values), upwards);
        // Equal objects are sorted by ascending id in any case.
        let downwards = [
            "late",
            "early",
            "true",
            "false",
            "longer",
            "text",
            "upper",
            "number",
            "minus zero",
            "zero",
            "negative",
            "missing",
            "null",
        ];
        assert_eq!(sorted(&["-v"], Nulls::Smallest, &values), downwards);
        let postgres = sorted(&["v"], Nulls::Greatest, &values);
        assert_eq!(postgres[postgres.len() - 2..], ["missing", "null"]);
        assert_eq!(
            sorted(&["-v"], Nulls::Greatest, &values)[..2],
            ["missing", "null"]
        );
    }

    #[test]
    fn several_keys_and_paths_count_one_after_another() {
        let values = [
            (
                "a",
                json!({"n": {"m": 2}, "t": "x", "createdAt": "2024-01-02T00:00:00.000Z"}),
            ),
            (
                "b",
                json!({"n": {"m": 1}, "t": "x", "createdAt": "2024-01-01T00:00:00.000Z"}),
            ),
            (
                "c",
                json!({"n": {"m": 1}, "t": "xy", "createdAt": "2024-01-03T00:00:00.000Z"}),
            ),
        ];
        assert_eq!(sorted(&["n.m", "-t"], Nulls::Smallest, &values), ["c", "b", "a"]);
        assert_eq!(sorted(&["t", "-n.m"], Nulls::Smallest, &values), ["a", "b", "c"]);
        assert_eq!(sorted(&[], Nulls::Smallest, &values), ["b", "a", "c"]);
        assert_eq!(sorted(&["-createdAt"], Nulls::Smallest, &values), ["c", "a", "b"]);
    }

    fn key(order: &Order, value: &Value) -> SortKey {
        order.sort_key(&value.to_string()).unwrap()
    }

    #[test]
    fn types_are_found_in_a_key_behind_any_other_value() {
        let keys = ["t".to_owned(), "-u".to_owned(), "n".to_owned(), "-b".to_owned()];
        for nulls in [Nulls::Smallest, Nulls::Greatest] {
            let order = Order::new(&keys).with_nulls(nulls);
            let is_null = |key: &SortKey| order.types_in(key).map(|bit| bit == 0).collect::<Vec<_>>();
            let object = json!({"objectId": "x", "t": "a\u{0}\u{0}b\u{1}", "n": 1, "b": null});
            assert_eq!(is_null(&key(&order, &object)), [false, true, false, true]);
            assert_eq!(key(&order, &object).id(), b"x");
            let object = json!({"objectId": "x", "u": "a\u{0}", "n": {"a": "\u{0}"}, "b": true});
            assert_eq!(is_null(&key(&order, &object)), [true, false, false, false]);
        }
    }

    #[test]
    fn what_only_the_server_can_sort_is_marked_and_told_apart() {
        let order = Order::new(&["-v".to_owned(), "n.m".to_owned()]);
        let unknown = [
            json!([1]),
            json!([2]),
            json!({"a": 1}),
            json!({"__type": "GeoPoint", "latitude": 1, "longitude": 2}),
            json!({"__type": "Date", "iso": "yesterday"}),
            json!({"__type": "Bytes", "base64": "AAAA"}),
        ];
        let keys: Vec<_> = unknown
            .iter()
            .map(|value| key(&order, &json!({"objectId": "x", "v": value})))
            .collect();
        assert!(keys.iter().all(SortKey::is_unknown));
        for (index, key) in keys.iter().enumerate() {
            assert!(!keys[..index].contains(key), "{:?}", unknown[index]);
        }
        assert!(key(&order, &json!({"objectId": "x", "n": {"m": null}})).is_unknown());
        assert!(!key(&order, &json!({"objectId": "x", "v": null, "n": {}})).is_unknown());
    }

    #[test]
    fn a_date_is_sorted_as_a_date_whether_it_is_tagged_or_plain() {
        let text = |day: u8| format!("2024-01-{day:02}T00:00:00.000Z");
        let values = [
            ("late", json!({"v": text(9)})),
            ("early", json!({"v": {"__type": "Date", "iso": text(2)}})),
            ("between", json!({"v": text(3)})),
        ];
        assert_eq!(
            sorted(&["v"], Nulls::Smallest, &values),
            ["early", "between", "late"]
        );
        let order = Order::new(&["v".to_owned()]);
        let as_text = key(&order, &json!({"objectId": "x", "v": text(2)}));
        let as_date = key(
            &order,
            &json!({"objectId": "x", "v": {"__type": "Date", "iso": text(2)}}),
        );
        assert_eq!(as_text, as_date);
        // Not in the standard form.
        let other = key(&order, &json!({"objectId": "x", "v": "2024-01-02T00:00:00Z"}));
        assert!(
            order
                .types_in(&other)
                .ne(order.types_in(&as_date).collect::<Vec<_>>())
        );
    }

    #[test]
    fn pairs_tell_how_the_server_sorts() {
        let order = Order::new(&["v".to_owned(), "-w".to_owned()]);
        let tells = |one: Value, other: Value| {
            let mut keys = [one, other].into_iter().zip(["x", "y"]).map(|(mut value, id)| {
                value["objectId"] = value.get("id").cloned().unwrap_or_else(|| id.into());
                key(&order, &value)
            });
            order.tells(&keys.next().unwrap(), &keys.next().unwrap())
        };
        let (nulls, texts) = (Some(Tells::Nulls), Some(Tells::Texts));
        assert_eq!(tells(json!({"v": 1}), json!({"v": null})), nulls);
        assert_eq!(tells(json!({"v": 1, "w": "a"}), json!({"v": 1})), nulls);
        // Another key decides.
        assert_eq!(tells(json!({"v": 1, "w": "a"}), json!({"v": 2})), None);
        assert_eq!(tells(json!({"v": "B"}), json!({"v": "a"})), texts);
        assert_eq!(
            tells(json!({"v": 1, "w": "Bc"}), json!({"v": 1, "w": "abc"})),
            texts
        );
        for (one, other) in [("A", "b"), ("A", "a"), ("B_", "a"), ("B", "\u{e9}"), ("b", "a")] {
            assert_eq!(
                tells(json!({"v": one}), json!({"v": other})),
                None,
                "{one} {other}"
            );
        }
        assert_eq!(tells(json!({"id": "B"}), json!({"id": "a"})), texts);
    }

    #[test]
    fn an_object_without_an_id_has_no_key() {
        let order = Order::new(&[]);
        assert!(order.sort_key("{}").is_none());
        assert!(order.sort_key(r#"{"objectId": 1}"#).is_none());
        assert!(order.sort_key(r#"{"objectId": ""}"#).is_none());
    }
}
