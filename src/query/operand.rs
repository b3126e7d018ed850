//! Operands of constraints, as JSON: dates of other crates become Parse dates, and numbers that JSON cannot
//! express are errors. Must not know of operators.

use std::any::type_name;

use serde::Serialize;

use super::ordered_json::Json;
use super::refuse::invalid;
use super::{finite, not_serialized};
use crate::error::{Error, Result};
use crate::types::Date;

/// The value, or each of the values of a list.
pub(super) fn operand<T: Serialize>(method: &str, key: &str, value: T) -> Result<Json> {
    finite::check(&value).map_err(|not_finite| {
        invalid(format!(
            "{method} on {key:?} got {not_finite}; pass None or null to ask for a field without a value"
        ))
    })?;
    let json = Json::of(value).map_err(|error| not_serialized(key, &error))?;
    let kind = type_name::<T>();
    let is_foreign_date = FOREIGN_DATES.iter().any(|path| contains_path(kind, path));
    dates(json, is_foreign_date).map_err(|text| not_a_date(method, key, &text))
}

/// Converts dates of other crates to Parse dates. The error is the text that is not a date with an offset.
fn dates(json: Json, is_foreign_date: bool) -> std::result::Result<Json, String> {
    if let Some(date) = system_time(&json) {
        return Ok(date);
    }
    match json {
        Json::Array(items) if items.iter().any(|item| system_time(item).is_some()) => Ok(Json::Array(
            items
                .into_iter()
                .map(|item| system_time(&item).unwrap_or(item))
                .collect(),
        )),
        json if !is_foreign_date => Ok(json),
        Json::String(text) => Date::parse(&text).map(|date| tagged(&date)).map_err(|_| text),
        // The crate `time` writes numbers.
        Json::Array(items)
            if items.iter().all(|item| matches!(item, Json::Number(_))) && !items.is_empty() =>
        {
            Err(Json::Array(items).to_string())
        }
        Json::Array(items) => items
            .into_iter()
            .map(|item| dates(item, true))
            .collect::<std::result::Result<_, _>>()
            .map(Json::Array),
        Json::Number(_) => Err(json.to_string()),
        other => Ok(other),
    }
}

/// Converts a `SystemTime` from the form that serde writes.
fn system_time(json: &Json) -> Option<Json> {
    let Json::Object(members) = json else {
        return None;
    };
    let [(first, Json::Number(seconds)), (second, Json::Number(nanos))] = members.as_slice() else {
        return None;
    };
    if first != "secs_since_epoch" || second != "nanos_since_epoch" {
        return None;
    }
    let millis = i64::try_from(seconds.as_u64()?)
        .ok()?
        .checked_mul(1000)?
        .checked_add(i64::try_from(nanos.as_u64()? / 1_000_000).ok()?)?;
    Date::from_millis(millis).ok().map(|date| tagged(&date))
}

fn tagged(date: &Date) -> Json {
    Json::Object(vec![
        ("__type".to_owned(), Json::string("Date")),
        ("iso".to_owned(), Json::String(date.to_string())),
    ])
}

fn not_a_date(method: &str, key: &str, text: &str) -> Error {
    invalid(format!(
        "{method} on {key:?} got a date of another crate as {text}, which does not name a moment: pass a \
         parse_livequery::Date, such as Date::from_millis or Date::from of a SystemTime makes"
    ))
}

/// Whether a type's name has this at the beginning of a path.
fn contains_path(kind: &str, path: &str) -> bool {
    kind.match_indices(path).any(|(at, _)| {
        let before = kind[..at].chars().next_back();
        let after = kind[at + path.len()..].chars().next();
        let is_name = |character: Option<char>| {
            character.is_some_and(|character| character.is_alphanumeric() || matches!(character, '_' | ':'))
        };
        !is_name(before) && (path.ends_with("::") || !is_name(after))
    })
}

const FOREIGN_DATES: [&str; 3] = ["chrono::", "jiff::", "time::"];

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn dates_of_others_are_dates_or_refused() {
        let date = r#"{"__type":"Date","iso":"2024-01-02T03:04:05.678Z"}"#;
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_704_164_645_678);
        assert_eq!(operand("m", "k", time).unwrap().to_string(), date);
        assert_eq!(
            operand("m", "k", vec![Some(time)]).unwrap().to_string(),
            format!("[{date}]")
        );
    }

    #[test]
    fn a_float_that_is_no_number_is_refused() {
        assert!(operand("m", "k", f64::NAN).is_err());
        assert!(operand("m", "k", vec![1.0, f64::INFINITY]).is_err());
        assert!(operand("m", "k", f32::NAN).is_err());
        assert!(operand("m", "k", Some(f64::NAN)).is_err());
        assert!(operand("m", "k", std::collections::BTreeMap::from([("a", f64::NAN)])).is_err());
        assert_eq!(operand("m", "k", None::<f64>).unwrap(), Json::Null);
        assert_eq!(operand("m", "k", 1.5).unwrap().to_string(), "1.5");
    }

    #[test]
    fn a_type_is_known_by_its_path() {
        assert!(contains_path(
            "&chrono::datetime::DateTime<chrono::Utc>",
            "chrono::"
        ));
        assert!(contains_path(
            "core::option::Option<jiff::timestamp::Timestamp>",
            "jiff::"
        ));
        assert!(!contains_path("std::time::SystemTime", "time::"));
        assert!(!contains_path("my_f64x", "f64"));
    }
}
