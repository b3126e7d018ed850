//! Turns the JSON of a `where` into the prepared [`Query`]. Everything that does not depend on the object is
//! decided here.

use serde_json::Value;

use super::js::{self, Right};
use super::regex::Regex;
use super::{Clause, Condition, Path, Query, Test, Verdict, nested};
use crate::query::names::INHERITED;
use crate::query::ordered_json::Json;

/// Prepares a `where`, which need not be an object: in lists of queries the server accepts any value.
pub(super) fn query(json: &Json) -> Query {
    match json {
        Json::Object(members) => in_order(members)
            .map(|(key, constraint)| clause(key, constraint))
            .collect(),
        // `for (field in query)` iterates the items of an array, and nothing at all for most other values.
        Json::Array(items) => items
            .iter()
            .enumerate()
            .map(|(index, constraint)| clause(&index.to_string(), constraint))
            .collect(),
        Json::String(text) if !text.is_empty() => vec![Clause::Fixed(Verdict::ANYTHING)],
        _ => Query::new(),
    }
}

/// Members in the order in which JavaScript visits them: array indices first.
fn in_order(members: &[(String, Json)]) -> impl Iterator<Item = &(String, Json)> {
    let index = |key: &str| key.parse::<u32>().ok().filter(|index| index.to_string() == key);
    let mut members: Vec<_> = members.iter().collect();
    members.sort_by_key(|(key, _)| index(key).map_or((1, 0), |index| (0, index)));
    members.into_iter()
}

/// Whether some field is named both whole and by a dotted key below it.
pub(super) fn overlapping(query: &Query) -> bool {
    let mut keys = Vec::new();
    collect_keys(query, &mut keys);
    keys.sort_unstable();
    // In sorted order, a key is not always next to those below it ("a", "a-b", "a.b"), so all pairs with a
    // common prefix are compared.
    keys.iter().enumerate().any(|(index, outer)| {
        keys.iter()
            .skip(index + 1)
            .take_while(|inner| inner.starts_with(*outer))
            .any(|inner| nested(inner, outer))
    })
}

fn collect_keys<'q>(query: &'q Query, keys: &mut Vec<&'q str>) {
    for clause in query {
        match clause {
            Clause::And(queries) | Clause::Or(queries) | Clause::Nor(queries) => {
                queries.iter().for_each(|query| collect_keys(query, keys));
            }
            Clause::Field(path, _) => keys.push(&path.key),
            Clause::Fixed(_) => {}
        }
    }
}

fn clause(key: &str, constraint: &Json) -> Clause {
    if *constraint == Json::Null {
        return Clause::Fixed(Verdict::NO_MATCH);
    }
    let queries = |wrap: fn(Vec<Query>) -> Clause| match constraint {
        Json::Array(queries) => wrap(queries.iter().map(query).collect()),
        _ => Clause::Fixed(Verdict::NO_MATCH),
    };
    match key {
        "$or" => queries(Clause::Or),
        "$and" => queries(Clause::And),
        "$nor" => queries(Clause::Nor),
        "$relatedTo" => Clause::Fixed(Verdict::NO_MATCH),
        _ => match (path(key), test(constraint)) {
            (Some(path), Some(test)) => Clause::Field(path, test),
            _ => Clause::Fixed(Verdict::ANYTHING),
        },
    }
}

/// `None` if the names are not those of fields but JavaScript's own members, or operators below a field.
fn path(key: &str) -> Option<Path> {
    let mut names = key.split('.');
    let root = names.next()?.len();
    let foreign = key
        .split('.')
        .any(|name| name.starts_with("__") && name != "__type")
        || INHERITED.contains(&&key[..root])
        || names.any(|name| ["$or", "$and", "$nor", "$relatedTo"].contains(&name));
    (!foreign).then(|| Path {
        key: key.into(),
        root,
    })
}

/// `None` if it is unknown what the server makes of the constraint.
fn test(constraint: &Json) -> Option<Test> {
    let members = match constraint {
        // `for (condition in [..])`: an index is not a condition. Without items, nothing is tested.
        Json::Array(items) if items.is_empty() => return Some(Test::Conditions(Vec::new())),
        Json::Array(items) => {
            return Some(Test::Conditions(match decode(items.first()?)? {
                Some(_) => vec![Condition::Fixed(Verdict::NO_MATCH)],
                None => vec![Condition::Fixed(Verdict::THROWS)],
            }));
        }
        Json::Object(members) => members,
        primitive => return Some(Test::Primitive(primitive.into())),
    };
    let tag = constraint.get("__type").map(Value::from).filter(js::truthy);
    match tag {
        Some(Value::String(tag)) if tag == "Pointer" => Some(Test::Pointer {
            class_name: constraint.get("className").map(Value::from),
            object_id: constraint.get("objectId").map(Value::from),
        }),
        Some(_) => Some(match decode(constraint)? {
            Some(right) => Test::Equal(right),
            None => Test::Conditions(vec![Condition::Fixed(Verdict::THROWS)]),
        }),
        None => {
            let mut conditions = Vec::with_capacity(members.len());
            for (name, operand) in in_order(members) {
                let condition =
                    condition(name, operand, constraint).unwrap_or(Condition::Fixed(Verdict::ANYTHING));
                let last = ends_evaluation(name, &condition);
                conditions.push(condition);
                if last {
                    break;
                }
            }
            Some(Test::Conditions(conditions))
        }
    }
}

/// Whether the server's matcher returns with the answer of a condition, so that later ones are never
/// evaluated.
fn ends_evaluation(name: &str, condition: &Condition) -> bool {
    match name {
        "$nearSphere" | "$within" | "$containedBy" | "$geoIntersects" => true,
        // Only if it is one of the two kinds.
        "$geoWithin" => matches!(
            condition,
            Condition::WithinPolygon(_) | Condition::WithinSphere(_)
        ),
        _ => false,
    }
}

/// `Parse._decode` of a tagged value; other values are unchanged. `None` if the result is unknown,
/// `Some(None)` if it throws.
fn decode(json: &Json) -> Option<Option<Right>> {
    let value = Value::from(json);
    if !value.get("__type").is_some_and(js::truthy) {
        return Some(Some(Right::Value(value)));
    }
    if value.get("__op").is_some_and(Value::is_string) {
        return None;
    }
    let has_class = value.get("className").is_some_and(js::truthy);
    Some(match value.get("__type").and_then(Value::as_str) {
        Some("Pointer" | "Object") if has_class => Some(Right::Instance),
        Some("Relation" | "File") => Some(Right::Instance),
        Some("Date") => Some(Right::Date(js::date(value.get("iso")?)?)),
        Some("GeoPoint") => js::coordinates(value.get("latitude"), value.get("longitude"))
            .map(|(latitude, longitude)| Right::GeoPoint { latitude, longitude }),
        Some("Polygon") => value
            .get("coordinates")
            .and_then(js::polygon)
            .map(|_| Right::Instance),
        _ => {
            let members = value.as_object()?;
            // Tagged values inside become instances as well, but nobody writes those.
            if members.values().any(Value::is_object) || members.values().any(Value::is_array) {
                return None;
            }
            Some(Right::Value(value))
        }
    })
}

/// `None` if it is unknown what the server makes of the condition.
fn condition(name: &str, operand: &Json, constraint: &Json) -> Option<Condition> {
    let Some(right) = decode(operand)? else {
        return Some(Condition::Fixed(Verdict::THROWS));
    };
    let pass = Condition::Fixed(Verdict::MATCH);
    let throws = Condition::Fixed(Verdict::THROWS);
    Some(match name {
        "$lt" => Condition::Less(right),
        "$lte" => Condition::LessOrEqual(right),
        "$gt" => Condition::Greater(right),
        "$gte" => Condition::GreaterOrEqual(right),
        "$eq" => Condition::Equal(right),
        "$ne" => Condition::NotEqual(right),
        "$in" | "$nin" => {
            let Right::Value(list) = right else {
                return None;
            };
            if name == "$in" {
                Condition::In(list)
            } else {
                Condition::NotIn(list)
            }
        }
        "$all" => match right {
            Right::Value(Value::Array(items)) => Condition::All(items),
            _ => return None,
        },
        "$exists" => match right {
            Right::Value(Value::Bool(wanted)) => Condition::Exists(wanted),
            // "The SDK will never submit a non-boolean for $exists .. just ignore it."
            _ => pass,
        },
        "$regex" => match right {
            Right::Value(Value::String(text)) => {
                let options = constraint.get("$options").map(Value::from).filter(js::truthy);
                let flags = options
                    .as_ref()
                    .map_or_else(String::new, |options| js::text(options).into_owned());
                match Regex::parse(&text, &flags) {
                    Regex::Pattern(pattern) => Condition::Regex(pattern),
                    Regex::Invalid => Condition::Fixed(Verdict::NO_MATCH),
                    Regex::Unknown => Condition::Fixed(Verdict::UNKNOWN),
                }
            }
            Right::Value(Value::Object(_) | Value::Array(_)) | Right::Date(_) | Right::GeoPoint { .. } => {
                return None;
            }
            Right::Instance => return None,
            // Nothing else has the members that are read.
            Right::Value(_) => throws,
        },
        "$nearSphere" => Condition::Near {
            center: match right {
                Right::GeoPoint { latitude, longitude } => Some((latitude, longitude)),
                Right::Value(value) if !js::truthy(&value) => {
                    return Some(Condition::Fixed(Verdict::NO_MATCH));
                }
                _ => None,
            },
            max_distance: constraint
                .get("$maxDistance")
                .map(Value::from)
                .filter(js::truthy)
                .unwrap_or_else(|| Value::from("Infinity")),
        },
        "$within" => match right {
            Right::Value(value) if !js::truthy(&value) => Condition::Fixed(Verdict::NO_MATCH),
            Right::Value(value) => Condition::WithinBox(corners_of_box(&value)),
            _ => Condition::WithinBox(None),
        },
        "$containedBy" => match right {
            Right::Value(list) => Condition::ContainedBy(list),
            _ => return None,
        },
        "$geoWithin" => match right {
            Right::Value(Value::Null) => throws,
            Right::Value(value) => geo_within(&value).unwrap_or(pass),
            _ => pass,
        },
        "$geoIntersects" => match right {
            Right::Value(Value::Null) => Condition::Intersects(None),
            Right::Value(value) => {
                Condition::Intersects(value.get("$point").map_or(Some((0.0, 0.0)), js::geo_point))
            }
            _ => Condition::Intersects(Some((0.0, 0.0))),
        },
        "$options" | "$maxDistance" => pass,
        // `$select`, `$dontSelect`, and everything that the matcher does not know.
        _ => Condition::Fixed(Verdict::NO_MATCH),
    })
}

fn corners_of_box(value: &Value) -> Option<[Value; 2]> {
    let corners = value.get("$box")?;
    let corner = |index: usize| {
        let corner = match corners {
            Value::Array(corners) => corners.get(index),
            Value::Object(corners) => corners.get(&index.to_string()),
            _ => None,
        };
        corner.filter(|corner| !corner.is_null()).cloned()
    };
    Some([corner(0)?, corner(1)?])
}

/// `None` if the operand is neither of the two kinds: the server then continues with the next condition.
fn geo_within(value: &Value) -> Option<Condition> {
    if let Some(polygon) = value.get("$polygon").filter(|polygon| js::truthy(polygon)) {
        let corners = polygon
            .as_array()
            .filter(|corners| corners.len() >= 3 && !corners.iter().any(Value::is_null))
            .and_then(|corners| {
                corners
                    .iter()
                    .map(|corner| js::corner_of(corner.get("latitude"), corner.get("longitude")))
                    .collect()
            });
        return Some(Condition::WithinPolygon(corners));
    }
    let sphere = value.get("$centerSphere").filter(|sphere| js::truthy(sphere))?;
    let center = sphere
        .get(0)
        .and_then(|center| js::coordinates(center.get(1), center.get(0)));
    let max_distance = sphere.get(1).cloned().unwrap_or_else(|| Value::from("NaN"));
    Some(Condition::WithinSphere(
        center.map(|center| (center, max_distance)),
    ))
}
