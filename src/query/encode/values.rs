//! Dates, pointers, points and polygons in constraints: reads and checks them, and converts them to the form
//! that LiveQuery compares.

use crate::error::Result;
use crate::query::ordered_json::Json;
use crate::query::refuse::invalid;
use crate::types::Date;

pub(super) fn date(method: &str, key: &str, value: &Json) -> Result<Json> {
    let iso = iso(method, key, value)?;
    Ok(Json::Object(vec![
        ("__type".to_owned(), Json::string("Date")),
        ("iso".to_owned(), Json::String(iso)),
    ]))
}

pub(super) fn audit_date(method: &str, key: &str, value: &Json) -> Result<Json> {
    iso(method, key, value).map(Json::String)
}

fn iso(method: &str, key: &str, value: &Json) -> Result<String> {
    let text = match value {
        Json::String(text) => Some(text.as_str()),
        _ if value.parse_type() == Some("Date") => value.get("iso").and_then(Json::as_str),
        _ => None,
    };
    text.and_then(|text| Date::parse(text).ok())
        .map(|date| date.to_string())
        .ok_or_else(|| invalid(format!("{method} on {key:?} needs a date, and got {value}")))
}

/// A pointer without the members that a REST writer may have added to it, or to the object in its place.
pub(super) fn pointer(method: &str, key: &str, value: &Json) -> Result<Json> {
    let text = |name| value.get(name).filter(|held| held.as_str().is_some());
    match (value.parse_type(), text("className"), text("objectId")) {
        (Some("Pointer" | "Object"), Some(class_name), Some(id)) => Ok(Json::Object(vec![
            ("__type".to_owned(), Json::string("Pointer")),
            ("className".to_owned(), class_name.clone()),
            ("objectId".to_owned(), id.clone()),
        ])),
        _ => Err(invalid(format!(
            "{method} on {key:?} needs a pointer, and got {value}"
        ))),
    }
}

pub(super) fn geo_point(method: &str, key: &str, value: &Json) -> Result<(f64, f64)> {
    let coordinate = |name, most: f64| {
        value
            .get(name)
            .and_then(Json::as_f64)
            .filter(|degrees| (-most..=most).contains(degrees))
    };
    match (coordinate("latitude", 90.0), coordinate("longitude", 180.0)) {
        (Some(latitude), Some(longitude)) => Ok((latitude, longitude)),
        _ => Err(invalid(format!(
            "{method} on {key:?} needs a GeoPoint, and got {value}"
        ))),
    }
}

pub(super) fn pair(method: &str, key: &str, value: &Json) -> Result<(f64, f64)> {
    match value.as_array() {
        Some([first, second]) => first.as_f64().zip(second.as_f64()),
        _ => None,
    }
    .ok_or_else(|| {
        invalid(format!(
            "{method} on {key:?} needs a pair of numbers, and got {value}"
        ))
    })
}

/// The corners of `$polygon` as GeoPoints, the only form that the matcher reads: find() also takes pairs of
/// longitude and latitude, and a whole Polygon, whose pairs it reads in the same way (MongoTransform.js).
pub(super) fn polygon_points(method: &str, key: &str, value: &Json) -> Option<Result<Vec<Json>>> {
    let polygon = value.get("$polygon")?;
    let corners = polygon
        .as_array()
        .or_else(|| polygon.get("coordinates")?.as_array())?;
    Some(
        corners
            .iter()
            .map(|corner| {
                let (latitude, longitude) = match corner {
                    Json::Array(_) => {
                        pair(method, key, corner).map(|(longitude, latitude)| (latitude, longitude))?
                    }
                    _ => geo_point(method, key, corner)?,
                };
                Ok(Json::Object(vec![
                    ("__type".to_owned(), Json::string("GeoPoint")),
                    ("latitude".to_owned(), Json::number(latitude)),
                    ("longitude".to_owned(), Json::number(longitude)),
                ]))
            })
            .collect(),
    )
}

/// The corners of a Polygon, each once, and whether the first one was repeated at the end.
pub(super) fn ring(polygon: &Json) -> Option<(Vec<(f64, f64)>, bool)> {
    let mut ring = polygon
        .get("coordinates")?
        .as_array()?
        .iter()
        .map(|corner| match corner.as_array() {
            Some([latitude, longitude]) => latitude.as_f64().zip(longitude.as_f64()),
            _ => None,
        })
        .collect::<Option<Vec<_>>>()?;
    let is_closed = ring.len() > 1 && ring.first() == ring.last();
    if is_closed {
        ring.pop();
    }
    (ring.len() > 2).then_some((ring, is_closed))
}
