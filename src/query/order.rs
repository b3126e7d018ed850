//! How `find()` sorts: the keys of a query as bytes that compare as the database compares the values.
//!
//! MongoDB takes a value that is missing or null for the smallest, and Postgres for the greatest; which of them the
//! server has is seen in what it returns.

use std::ops::Range;

use serde_json::Value;

use crate::object::Object;
use crate::scan::Members;
use crate::types::Date;

/// What a set is sorted by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    keys: Vec<Key>,
    pub(crate) nulls: Nulls,
}

/// Where values are sorted that are missing or null.
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
    /// `keys` are names of fields, with a minus sign before those whose greatest value is first. Without any, the oldest
    /// object is first.
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

    /// As `find()` is asked for it. What is equal otherwise is sorted by id, so that there is one order and no other.
    pub(crate) fn for_find(&self) -> Vec<String> {
        let mut order: Vec<_> = self.keys.iter().map(Key::for_find).collect();
        if !order.iter().any(|key| key.trim_start_matches('-') == "objectId") {
            order.push("objectId".to_owned());
        }
        order
    }

    /// The field of one of the keys.
    pub(crate) fn path(&self, key: usize) -> Option<&str> {
        self.keys.get(key).map(|key| &*key.path)
    }

    /// The fields that have to be there to sort by them.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &str> {
        self.keys
            .iter()
            .filter_map(|key| key.path.split('.').next())
            .filter(|field| !ALWAYS_THERE.contains(field))
    }

    /// The bytes that an object is sorted by, which end with its id. `None` if it has none.
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
        let mut bytes = Vec::with_capacity(32);
        for (key, value) in self.keys.iter().zip(values) {
            let start = bytes.len();
            key.write(value, self.nulls, &mut bytes);
            if key.descending {
                bytes[start..].iter_mut().for_each(|byte| *byte = !*byte);
            }
        }
        bytes.extend_from_slice(id.as_bytes());
        bytes.extend_from_slice(&length.to_be_bytes());
        Some(SortKey(bytes.into()))
    }

    /// Whether the key has a value that is missing or null, for each of the fields.
    pub(crate) fn nulls_in(&self, key: &SortKey) -> Vec<bool> {
        let mut rest = &*key.0;
        let mut nulls = Vec::with_capacity(self.keys.len());
        for key in &self.keys {
            let flip = |byte: u8| if key.descending { !byte } else { byte };
            let tag = rest.first().copied().map_or(0, flip);
            nulls.push(tag == NULL_SMALLEST || tag == NULL_GREATEST);
            let length = match tag {
                NUMBER | DATE => 9,
                BOOL => 2,
                TEXT => {
                    let ends = |pair: &[u8]| pair.iter().all(|byte| flip(*byte) == 0);
                    let mut at = 1;
                    // A zero in the text is followed by something else.
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
            rest = rest.get(length..).unwrap_or_default();
        }
        nulls
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

    fn write(&self, json: Option<&str>, nulls: Nulls, bytes: &mut Vec<u8>) {
        let decoded = json.and_then(|json| serde_json::from_str::<Value>(json).ok());
        let mut value = decoded.as_ref();
        for name in self.path.split('.').skip(1) {
            value = value.and_then(|value| value.get(name));
        }
        match value {
            None | Some(Value::Null) => bytes.push(match nulls {
                Nulls::Smallest => NULL_SMALLEST,
                Nulls::Greatest => NULL_GREATEST,
            }),
            Some(Value::Number(number)) => write_number(number.as_f64().unwrap_or_default(), bytes),
            Some(Value::Bool(value)) => bytes.extend([BOOL, u8::from(*value)]),
            // At the top level of an object these are plain strings, of one length.
            Some(Value::String(text)) => match Date::parse(text) {
                Ok(date) if matches!(&*self.path, "createdAt" | "updatedAt") => write_date(date, bytes),
                _ => write_text(text, bytes),
            },
            Some(tagged) => match (tagged.get("__type").and_then(Value::as_str), tagged) {
                (Some("Date"), Value::Object(members)) => {
                    let iso = members.get("iso").and_then(Value::as_str).unwrap_or_default();
                    match Date::parse(iso) {
                        Ok(date) => write_date(date, bytes),
                        Err(_) => bytes.push(OTHER),
                    }
                }
                // The database has the class and the id in one string.
                (Some("Pointer" | "Object"), Value::Object(members)) => {
                    let part = |name| members.get(name).and_then(Value::as_str).unwrap_or_default();
                    write_text(&format!("{}${}", part("className"), part("objectId")), bytes);
                }
                _ => bytes.push(OTHER),
            },
        }
    }
}

fn write_number(number: f64, bytes: &mut Vec<u8>) {
    // Both zeros are one number.
    let bits = (number + 0.0).to_bits();
    let sortable = if bits >> 63 == 0 { bits | 1 << 63 } else { !bits };
    bytes.push(NUMBER);
    bytes.extend(sortable.to_be_bytes());
}

fn write_date(date: Date, bytes: &mut Vec<u8>) {
    bytes.push(DATE);
    bytes.extend((date.millis() ^ i64::MIN).to_be_bytes());
}

fn write_text(text: &str, bytes: &mut Vec<u8>) {
    bytes.push(TEXT);
    for byte in text.bytes() {
        bytes.push(byte);
        if byte == 0 {
            bytes.push(0xff);
        }
    }
    bytes.extend([0, 0]);
}

/// What an object is sorted by, and its id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SortKey(Box<[u8]>);

impl SortKey {
    /// The id of the object, which is text.
    pub(crate) fn id(&self) -> &[u8] {
        self.0.get(self.id_range()).unwrap_or_default()
    }

    fn id_range(&self) -> Range<usize> {
        let end = self.0.len().saturating_sub(2);
        let length = match self.0.get(end..) {
            Some(&[high, low]) => usize::from(u16::from_be_bytes([high, low])),
            _ => 0,
        };
        end.saturating_sub(length)..end
    }
}

/// When an object was last saved, in milliseconds from 1970; of one that does not say, as early as can be.
pub(crate) fn version(object: &Object) -> i64 {
    version_in(object.as_str())
}

pub(crate) fn version_in(text: &str) -> i64 {
    Members::new(text)
        .filter(|(name, _)| *name == "updatedAt")
        .last()
        .and_then(|(_, value)| serde_json::from_str::<Date>(value).ok())
        .map_or(i64::MIN, Date::millis)
}

/// Fields that each object has.
const ALWAYS_THERE: [&str; 3] = ["objectId", "createdAt", "updatedAt"];

// The types in the order in which MongoDB sorts them. Arrays and objects are all equal to each other here.
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
        // The ids of equal ones go up in any case.
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

    #[test]
    fn nulls_are_found_in_a_key_behind_any_other_value() {
        let keys = ["t".to_owned(), "-u".to_owned(), "n".to_owned(), "-b".to_owned()];
        for nulls in [Nulls::Smallest, Nulls::Greatest] {
            let order = Order::new(&keys).with_nulls(nulls);
            let object = json!({"objectId": "x", "t": "a\u{0}\u{0}b\u{1}", "n": 1, "b": null}).to_string();
            let key = order.sort_key(&object).unwrap();
            assert_eq!(order.nulls_in(&key), [false, true, false, true]);
            assert_eq!(key.id(), b"x");
            let object = json!({"objectId": "x", "u": "a\u{0}", "n": {}, "b": true}).to_string();
            let key = order.sort_key(&object).unwrap();
            assert_eq!(order.nulls_in(&key), [true, false, false, false]);
        }
    }

    #[test]
    fn an_object_without_an_id_has_no_key() {
        let order = Order::new(&[]);
        assert!(order.sort_key("{}").is_none());
        assert!(order.sort_key(r#"{"objectId": 1}"#).is_none());
        assert!(order.sort_key(r#"{"objectId": ""}"#).is_none());
    }
}
