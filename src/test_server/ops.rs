//! The operations on fields: numbers, lists and relations. Must not know of objects and subscribers.

use serde_json::{Value, json};

use super::state::{Fields, number_value};

/// Sets a field, or applies the operation in its place. An operation that does not fit the field's value
/// changes nothing and is refused in the words of Parse Server's schema.
pub(super) fn apply(object: &mut Fields, name: &str, value: Value) -> Result<(), String> {
    let Some(op) = value.get("__op").and_then(Value::as_str) else {
        object.insert(name.to_owned(), with_numbers_of_javascript(value));
        return Ok(());
    };
    if op == "Batch" {
        let ops = value.get("ops").and_then(Value::as_array).into_iter().flatten();
        return ops.cloned().try_for_each(|op| apply(object, name, op));
    }
    let held = object.get(name);
    let new = match op {
        "Delete" => None,
        "Increment" => {
            let amount = number(value.get("amount")).ok_or_else(|| mismatch(name, "Number"))?;
            let held = match held {
                None => 0.0,
                Some(held) => number(Some(held)).ok_or_else(|| mismatch(name, "Number"))?,
            };
            Some(number_value(held + amount))
        }
        "Add" | "AddUnique" | "Remove" => {
            let mut list = match held {
                None => Vec::new(),
                Some(Value::Array(list)) => list.clone(),
                Some(_) => return Err(mismatch(name, "Array")),
            };
            let Some(Value::Array(objects)) = value.get("objects").cloned() else {
                return Err("objects to add must be an array".to_owned());
            };
            for object in objects.into_iter().map(with_numbers_of_javascript) {
                match op {
                    "Remove" => list.retain(|held| *held != object),
                    "AddUnique" if list.contains(&object) => {}
                    _ => list.push(object),
                }
            }
            Some(Value::Array(list))
        }
        "AddRelation" | "RemoveRelation" => {
            let class_name = value.pointer("/objects/0/className").and_then(Value::as_str);
            match (class_name, held) {
                (Some(class_name), _) => Some(json!({"__type": "Relation", "className": class_name})),
                (None, held) => held.cloned(),
            }
        }
        _ => return Err(format!("The {op} operator is not supported yet.")),
    };
    match new {
        Some(new) => {
            object.insert(name.to_owned(), new);
        }
        None => {
            object.remove(name);
        }
    }
    Ok(())
}

/// Whether the answer to an `update` contains the value that resulted (DatabaseController.js,
/// `sanitizeDatabaseResult`).
pub(super) fn is_answered(value: &Value) -> bool {
    let op = value.get("__op").and_then(Value::as_str);
    matches!(op, Some("Increment" | "Add" | "AddUnique" | "Remove"))
}

fn number(value: Option<&Value>) -> Option<f64> {
    value.and_then(Value::as_f64)
}

fn mismatch(name: &str, expected: &str) -> String {
    format!("schema mismatch for {name}; expected {expected}")
}

/// JavaScript's numbers: 1.0 is sent as 1, and integers beyond 2^53 are rounded.
fn with_numbers_of_javascript(value: Value) -> Value {
    match value {
        Value::Number(number) => number.as_f64().map_or(Value::Null, number_value),
        Value::Array(items) => items.into_iter().map(with_numbers_of_javascript).collect(),
        Value::Object(members) => {
            let members = members.into_iter();
            Value::Object(
                members
                    .map(|(name, value)| (name, with_numbers_of_javascript(value)))
                    .collect(),
            )
        }
        other => other,
    }
}
