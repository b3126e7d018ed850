//! The parts of JavaScript's semantics that the server's matcher relies on: equality, comparison, conversion
//! to text and numbers, and the geometry of the JS SDK. Must not know of queries.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::Value;

use super::Verdict;
use crate::query::names::INHERITED;

/// A value of the object, as the server's matcher sees it.
#[derive(Clone, Debug)]
pub(super) enum Left<'a> {
    Undefined,
    /// A `Date`, in milliseconds; NaN for an invalid one.
    Date(f64),
    Value(Cow<'a, Value>),
}

/// A value of the query. Tagged ones become instances of the JS SDK's classes in the server.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Right {
    Value(Value),
    Date(f64),
    GeoPoint {
        latitude: f64,
        longitude: f64,
    },
    /// A `Parse.File`, `Polygon`, `Relation` or `Object`.
    Instance,
}

impl Left<'_> {
    pub(super) fn as_value(&self) -> Option<&Value> {
        match self {
            Self::Value(value) => Some(value),
            _ => None,
        }
    }

    pub(super) fn truthy(&self) -> bool {
        match self {
            Self::Undefined => false,
            Self::Date(_) => true,
            Self::Value(value) => truthy(value),
        }
    }

    /// `String(..)`. `None` for a date, whose text is in the server's time zone.
    pub(super) fn text(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Undefined => Some(Cow::Borrowed("undefined")),
            Self::Date(_) => None,
            Self::Value(value) => Some(text(value)),
        }
    }

    /// The value with a `Date` at the end of the path, as reading a key below it has left it. `None` if there
    /// is no value.
    pub(super) fn with_date_at(self, path: &str) -> Option<Self> {
        let Self::Value(value) = self else {
            return None;
        };
        let mut value = value.into_owned();
        let mut at = &mut value;
        for name in path.split('.').skip(1) {
            at = match at {
                Value::Array(items) => items.get_mut(name.parse::<usize>().ok()?)?,
                Value::Object(members) => members.get_mut(name)?,
                _ => return None,
            };
        }
        *at = serde_json::json!({ DATE: true });
        Some(Self::Value(Cow::Owned(value)))
    }

    /// Whether its text contains the text of a `Date`, which is in the server's time zone.
    pub(super) fn text_has_date(&self) -> bool {
        fn has_date(value: &Value) -> bool {
            match value {
                Value::Array(items) => items.iter().any(|item| is_date(item) || has_date(item)),
                _ => false,
            }
        }
        self.as_value().is_some_and(has_date)
    }

    /// Latitude and longitude; NaN where there is none.
    pub(super) fn coordinates(&self) -> (f64, f64) {
        let coordinate = |name| {
            self.as_value()
                .and_then(|value| member(Cow::Borrowed(value), name))
                .and_then(|value| number(&value))
                .unwrap_or(f64::NAN)
        };
        (coordinate("latitude"), coordinate("longitude"))
    }
}

/// The only member of an object that represents a `Date` inside another value: not a name that a field can
/// have.
const DATE: &str = "\u{0}Date";

fn is_date(value: &Value) -> bool {
    value.get(DATE).is_some()
}

/// What the matcher turns a field into before it tests it: dates become a `Date`. `None` for a date whose
/// text is not ISO 8601 with a zone.
pub(super) fn left(value: Option<Cow<'_, Value>>) -> Option<Left<'_>> {
    let Some(value) = value else {
        return Some(Left::Undefined);
    };
    if value.get("__type").and_then(Value::as_str) == Some("Date") {
        return date(value.get("iso")?).map(Left::Date);
    }
    Some(Left::Value(value))
}

/// `new Date(..)`, in milliseconds. `None` if the text is not ISO 8601 with a zone: V8 understands many other
/// forms, some of them in the server's own time zone.
pub(super) fn date(iso: &Value) -> Option<f64> {
    let text = iso.as_str()?;
    let (day, time) = text.split_once('T')?;
    if day.len() != 10 || !time.is_ascii() || time.contains(|character: char| character.is_ascii_lowercase())
    {
        return None;
    }
    let milliseconds = crate::types::Date::parse(text).ok()?.millis();
    #[expect(
        clippy::cast_precision_loss,
        reason = "the years up to 9999 are within 2^53 ms"
    )]
    Some(milliseconds as f64)
}

pub(super) fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(_) => as_f64(value).is_some_and(|number| number != 0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(_) | Value::Object(_) => true,
    }
}

/// `value[name]`, for names that are not [inherited](INHERITED).
pub(super) fn member<'a>(value: Cow<'a, Value>, name: &str) -> Option<Cow<'a, Value>> {
    let length = match &*value {
        Value::Object(_) => None,
        Value::Array(items) => Some(items.len()),
        Value::String(text) => Some(text.encode_utf16().count()),
        _ => return None,
    };
    if let (Some(length), "length") = (length, name) {
        return Some(Cow::Owned(Value::from(length)));
    }
    let index = || {
        name.parse::<usize>()
            .ok()
            .filter(|index| index.to_string() == name)
    };
    match value {
        Cow::Borrowed(Value::Object(members)) => members.get(name).map(Cow::Borrowed),
        Cow::Borrowed(Value::Array(items)) => items.get(index()?).map(Cow::Borrowed),
        Cow::Owned(Value::Object(mut members)) => members.remove(name).map(Cow::Owned),
        Cow::Owned(Value::Array(mut items)) => {
            let index = index()?;
            (index < items.len()).then(|| Cow::Owned(items.swap_remove(index)))
        }
        Cow::Borrowed(Value::String(text)) => unit(text, index()?),
        Cow::Owned(Value::String(text)) => unit(&text, index()?),
        _ => None,
    }
}

/// The only member of an object that represents a function: not a name that a field can have.
const FUNCTION: &str = "\u{0}Function";

/// `value[name]`, or the function that all values have under this name.
pub(super) fn member_or_inherited<'a>(value: Option<Cow<'a, Value>>, name: &str) -> Option<Cow<'a, Value>> {
    let is_its_own = value.as_deref().is_some_and(|value| value.get(name).is_some());
    if INHERITED.contains(&name) && !is_its_own {
        return Some(Cow::Owned(serde_json::json!({ FUNCTION: true })));
    }
    member(value?, name)
}

/// The methods whose names the encoder tests to find out the kind of a value.
pub(super) const METHODS: [&str; 3] = ["charAt", "push", "toString"];

/// `value[method].name`, for one of [`METHODS`].
pub(super) fn name_of_method<'a>(value: Option<Cow<'a, Value>>, method: &str) -> Option<Cow<'a, Value>> {
    let is_its_own = match value.as_deref() {
        Some(Value::Object(members)) => members.contains_key(method),
        _ => false,
    };
    if is_its_own {
        return member(value?, method)
            .filter(|value| truthy(value))
            .and_then(|value| member(value, "name"));
    }
    let has = match value.as_deref() {
        Some(Value::String(_)) => method != "push",
        Some(Value::Array(_)) => method != "charAt",
        _ => method == "toString",
    };
    has.then(|| Cow::Owned(Value::from(method)))
}

fn unit(text: &str, index: usize) -> Option<Cow<'static, Value>> {
    let unit = text.encode_utf16().nth(index)?;
    Some(Cow::Owned(Value::String(String::from_utf16_lossy(&[unit]))))
}

/// `===` of two values from JSON, which are never the same object.
pub(super) fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Null, Value::Null) => true,
        (Value::Bool(one), Value::Bool(other)) => one == other,
        (Value::String(one), Value::String(other)) => one == other,
        (Value::Number(_), Value::Number(_)) => as_f64(one) == as_f64(other),
        _ => false,
    }
}

/// `value[name] === wanted`.
pub(super) fn same_member(value: &Value, name: &str, wanted: Option<&Value>) -> bool {
    match (member(Cow::Borrowed(value), name), wanted) {
        (None, None) => true,
        (Some(held), Some(wanted)) => same(&held, wanted),
        _ => false,
    }
}

/// Parse Server's `equalObjects`.
pub(super) fn equal(left: &Left<'_>, right: &Right) -> Verdict {
    let left = match (left, right) {
        (Left::Undefined, _) => return Verdict::NO_MATCH,
        (Left::Date(left), Right::Date(right)) => return Verdict::of(left == right),
        (Left::Date(_), _) => return Verdict::NO_MATCH,
        (Left::Value(left), _) => &**left,
    };
    if let Right::Value(right) = right {
        return equal_values(left, right);
    }
    let members = match left {
        // `Object.keys(null)`.
        Value::Null => return Verdict::THROWS,
        Value::Object(members) => members,
        _ => return Verdict::NO_MATCH,
    };
    match right {
        // A date has no keys of its own, like `{}`.
        Right::Date(_) => Verdict::of(members.is_empty()),
        // A point has two keys, and a getter for each.
        Right::GeoPoint { latitude, longitude } => Verdict::of(
            members.len() == 2
                && members.iter().all(|(name, value)| match name.as_str() {
                    "latitude" | "_latitude" => as_f64(value) == Some(*latitude),
                    "longitude" | "_longitude" => as_f64(value) == Some(*longitude),
                    _ => false,
                }),
        ),
        _ if members.is_empty() || members.contains_key("__type") => Verdict::NO_MATCH,
        _ => Verdict::ANYTHING,
    }
}

fn equal_values(one: &Value, other: &Value) -> Verdict {
    // Equal only to another `Date`, and an operand has none inside.
    if is_date(one) {
        return Verdict::NO_MATCH;
    }
    let members = match (one, other) {
        (Value::Array(one), Value::Array(other)) => {
            if one.len() != other.len() {
                return Verdict::NO_MATCH;
            }
            // The first pair that differs decides it, or throws.
            return one
                .iter()
                .zip(other)
                .map(|(one, other)| equal_values(one, other))
                .find(|verdict| *verdict != Verdict::MATCH)
                .unwrap_or(Verdict::MATCH);
        }
        (Value::Null, Value::Null) => return Verdict::MATCH,
        (Value::Array(_), Value::Object(_) | Value::Null) => return Verdict::NO_MATCH,
        (Value::Null, Value::Array(_) | Value::Object(_)) | (Value::Object(_), Value::Null) => {
            return Verdict::THROWS;
        }
        (Value::Object(members), Value::Array(_) | Value::Object(_)) => members,
        _ => return Verdict::of(same(one, other)),
    };
    let count = match other {
        Value::Array(items) => items.len(),
        Value::Object(members) => members.len(),
        _ => 0,
    };
    if members.len() != count {
        return Verdict::NO_MATCH;
    }
    let mut settled = Verdict::MATCH;
    for (name, value) in members {
        let verdict =
            member(Cow::Borrowed(other), name).map_or(Verdict::NO_MATCH, |other| equal_values(value, &other));
        settled = match (settled, verdict) {
            (settled, Verdict::MATCH) => settled,
            (Verdict::MATCH, verdict) => verdict,
            (settled, verdict) if settled == verdict => settled,
            // The first one in the server's own order of members counts, and that order is not known here.
            _ => return Verdict::ANYTHING,
        };
    }
    settled
}

/// Parse Server's `contains`: whether a list holds a value, or one of the values if it is an array.
pub(super) fn contains(list: &Value, needle: &Left<'_>) -> Verdict {
    let needle = match needle {
        Left::Value(needle) => &**needle,
        Left::Date(_) | Left::Undefined => {
            return match list {
                Value::Array(_) => Verdict::NO_MATCH,
                Value::String(text) => match needle {
                    Left::Undefined => Verdict::of(text.contains("undefined")),
                    _ => Verdict::UNKNOWN,
                },
                // Nothing else has an `indexOf`.
                _ => Verdict::THROWS,
            };
        }
    };
    if needle.get("__type").and_then(Value::as_str) == Some("Pointer") {
        return contains_pointer(list, needle);
    }
    if let Value::Array(items) = needle {
        for item in items {
            let verdict = contains(list, &Left::Value(Cow::Borrowed(item)));
            if verdict != Verdict::NO_MATCH {
                return verdict;
            }
        }
    }
    match list {
        Value::Array(held) => Verdict::of(held.iter().any(|held| same(held, needle))),
        Value::String(held) => Verdict::of(held.contains(&*text(needle))),
        _ => Verdict::THROWS,
    }
}

fn contains_pointer(list: &Value, pointer: &Value) -> Verdict {
    let items: Vec<&Value> = match list {
        Value::Array(items) => items.iter().collect(),
        Value::Object(members) => members.values().collect(),
        Value::String(text) if !text.is_empty() => return Verdict::ANYTHING,
        _ => Vec::new(),
    };
    let (class_name, object_id) = (pointer.get("className"), pointer.get("objectId"));
    for item in items {
        if item.is_null() {
            return Verdict::THROWS;
        }
        let same_id_text = item.is_string() && object_id == Some(item);
        if same_id_text
            || same_member(item, "className", class_name) && same_member(item, "objectId", object_id)
        {
            return Verdict::MATCH;
        }
    }
    Verdict::NO_MATCH
}

/// How `<` and `>` order a field and an operand; `None` if neither holds, nor equality.
pub(super) fn compare(left: &Left<'_>, right: &Right) -> Option<Ordering> {
    let left = match left {
        Left::Undefined => return None,
        Left::Date(date) => Primitive::Number(*date),
        Left::Value(value) => primitive(value),
    };
    let right = match right {
        Right::Value(value) => primitive(value),
        Right::Date(date) => Primitive::Number(*date),
        Right::GeoPoint { .. } | Right::Instance => Primitive::Text(Cow::Borrowed(OBJECT)),
    };
    left.compare(&right)
}

/// [`compare`] of two plain values.
pub(super) fn compare_values(one: Option<&Value>, other: Option<&Value>) -> Option<Ordering> {
    primitive(one?).compare(&primitive(other?))
}

enum Primitive<'a> {
    Number(f64),
    Text(Cow<'a, str>),
}

fn primitive(value: &Value) -> Primitive<'_> {
    match value {
        Value::Null => Primitive::Number(0.0),
        Value::Bool(value) => Primitive::Number(f64::from(u8::from(*value))),
        Value::Number(_) => Primitive::Number(as_f64(value).unwrap_or(f64::NAN)),
        Value::String(_) | Value::Array(_) | Value::Object(_) => Primitive::Text(text(value)),
    }
}

impl Primitive<'_> {
    fn compare(&self, other: &Self) -> Option<Ordering> {
        if let (Self::Text(one), Self::Text(other)) = (self, other) {
            return Some(one.encode_utf16().cmp(other.encode_utf16()));
        }
        self.number().partial_cmp(&other.number())
    }

    fn number(&self) -> f64 {
        match self {
            Self::Number(number) => *number,
            Self::Text(text) => parse_number(text).unwrap_or(f64::NAN),
        }
    }
}

/// `Number(..)`; `None` if the result is not a number.
pub(super) fn number(value: &Value) -> Option<f64> {
    let number = primitive(value).number();
    (!number.is_nan()).then_some(number)
}

fn parse_number(text: &str) -> Option<f64> {
    let text = text.trim_matches(|character: char| character.is_whitespace() || character == '\u{feff}');
    if text.is_empty() {
        return Some(0.0);
    }
    for (prefixes, radix) in [(["0x", "0X"], 16), (["0o", "0O"], 8), (["0b", "0B"], 2)] {
        if let Some(digits) = prefixes.iter().find_map(|prefix| text.strip_prefix(prefix)) {
            let value = digits.chars().try_fold(0.0, |value, digit| {
                Some(value * f64::from(radix) + f64::from(digit.to_digit(radix)?))
            });
            return value.filter(|_| !digits.is_empty());
        }
    }
    match text.strip_prefix(['+', '-']).unwrap_or(text) {
        "Infinity" => Some(if text.starts_with('-') {
            f64::NEG_INFINITY
        } else {
            f64::INFINITY
        }),
        // Rust reads "inf" and "nan"; JavaScript does not.
        digits
            if digits
                .contains(|character: char| character.is_ascii_alphabetic() && !"eE".contains(character)) =>
        {
            None
        }
        _ => text.parse().ok(),
    }
}

fn as_f64(value: &Value) -> Option<f64> {
    value.as_f64()
}

const OBJECT: &str = "[object Object]";

/// `String(..)`.
pub(super) fn text(value: &Value) -> Cow<'_, str> {
    match value {
        Value::Null => Cow::Borrowed("null"),
        Value::Bool(value) => Cow::Borrowed(if *value { "true" } else { "false" }),
        Value::Number(_) => Cow::Owned(number_text(as_f64(value).unwrap_or(f64::NAN))),
        Value::String(text) => Cow::Borrowed(text),
        Value::Array(items) => Cow::Owned(
            items
                .iter()
                .map(|item| {
                    if item.is_null() {
                        Cow::Borrowed("")
                    } else {
                        text(item)
                    }
                })
                .collect::<Vec<_>>()
                .join(","),
        ),
        Value::Object(_) => Cow::Borrowed(OBJECT),
    }
}

fn number_text(number: f64) -> String {
    if number == 0.0 {
        // Also for -0.
        return String::from("0");
    }
    if (1e-6..1e21).contains(&number.abs()) {
        return number.to_string();
    }
    let text = format!("{number:e}");
    match text.split_once('e') {
        Some((digits, exponent)) if !exponent.starts_with('-') => format!("{digits}e+{exponent}"),
        _ => text,
    }
}

/// `new Parse.GeoPoint(value)`; `None` if that throws.
pub(super) fn geo_point(value: &Value) -> Option<(f64, f64)> {
    match value {
        Value::Null => None,
        Value::Array(items) => coordinates(items.first(), items.get(1)),
        Value::Object(members) => coordinates(members.get("latitude"), members.get("longitude")),
        _ => Some((0.0, 0.0)),
    }
}

/// The two numbers of a point; `None` if they are not valid.
pub(super) fn coordinates(latitude: Option<&Value>, longitude: Option<&Value>) -> Option<(f64, f64)> {
    let (latitude, longitude) = (as_f64(latitude?)?, as_f64(longitude?)?);
    ((-90.0..=90.0).contains(&latitude) && (-180.0..=180.0).contains(&longitude))
        .then_some((latitude, longitude))
}

/// `new Parse.Polygon(value)` of pairs of numbers; `None` if that throws.
pub(super) fn polygon(value: &Value) -> Option<Vec<(f64, f64)>> {
    let corners = value.as_array().filter(|corners| corners.len() >= 3)?;
    corners
        .iter()
        .map(|corner| match corner.as_array().map(Vec::as_slice) {
            Some([latitude, longitude]) => corner_of(Some(latitude), Some(longitude)),
            _ => None,
        })
        .collect()
}

/// `new Parse.GeoPoint(latitude, longitude)`; `None` if that throws. Without both, it is the point (0, 0).
pub(super) fn corner_of(latitude: Option<&Value>, longitude: Option<&Value>) -> Option<(f64, f64)> {
    match latitude {
        Some(point @ (Value::Array(_) | Value::Object(_) | Value::Null)) => geo_point(point),
        Some(_) if longitude.is_some() => coordinates(latitude, longitude),
        _ => Some((0.0, 0.0)),
    }
}

/// `Parse.GeoPoint.radiansTo`.
pub(super) fn radians(one: (f64, f64), other: (f64, f64)) -> f64 {
    let to_radians = std::f64::consts::PI / 180.0;
    let (latitude_1, longitude_1) = (one.0 * to_radians, one.1 * to_radians);
    let (latitude_2, longitude_2) = (other.0 * to_radians, other.1 * to_radians);
    let sin_latitude = ((latitude_1 - latitude_2) / 2.0).sin();
    let sin_longitude = ((longitude_1 - longitude_2) / 2.0).sin();
    let square =
        sin_latitude * sin_latitude + latitude_1.cos() * latitude_2.cos() * sin_longitude * sin_longitude;
    // Not `min`, which would turn NaN into 1.
    let square = if square > 1.0 { 1.0 } else { square };
    2.0 * square.sqrt().asin()
}

/// `Parse.Polygon.containsPoint`.
pub(super) fn polygon_contains(corners: &[(f64, f64)], (latitude, longitude): (f64, f64)) -> bool {
    let bounds = |coordinate: fn(&(f64, f64)) -> f64| {
        corners
            .iter()
            .map(coordinate)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
                (low.min(value), high.max(value))
            })
    };
    let (low_x, high_x) = bounds(|corner| corner.0);
    let (low_y, high_y) = bounds(|corner| corner.1);
    if latitude < low_x || latitude > high_x || longitude < low_y || longitude > high_y {
        return false;
    }
    let previous = corners.iter().cycle().skip(corners.len().saturating_sub(1));
    corners.iter().zip(previous).fold(false, |inside, (start, end)| {
        let crosses = (start.1 > longitude) != (end.1 > longitude)
            && latitude < (end.0 - start.0) * (longitude - start.1) / (end.1 - start.1) + start.0;
        inside != crosses
    })
}
