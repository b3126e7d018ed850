//! Queries inside a query, and included objects: handled before and after the search itself, as Parse Server
//! does (RestQuery.js). Must not know how objects are searched.

use serde_json::{Map, Value, json};

use super::caller::{Caller, Refusal};
use super::permissions;
use super::state::State;
use crate::query::Query;

impl State {
    /// Replaces the inner queries of a query with what they find.
    pub(super) fn with_inner_found(&self, query: &Query, caller: &Caller) -> Result<Query, Refusal> {
        let invalid = |text: String| Refusal::new(400, Some(102), text);
        let text = query.to_json().map_err(|error| invalid(error.to_string()))?;
        if !OPERATORS.iter().any(|operator| text.contains(operator)) {
            return Ok(query.clone());
        }
        let mut query_json: Value =
            serde_json::from_str(&text).map_err(|error| invalid(error.to_string()))?;
        if let Some(members) = query_json.as_object_mut() {
            members.remove("watch");
        }
        self.replace_inner(&mut query_json["where"], caller)?;
        Query::from_json(query.class_name(), query_json).map_err(|error| invalid(error.to_string()))
    }

    fn replace_inner(&self, conditions: &mut Value, caller: &Caller) -> Result<(), Refusal> {
        let Value::Object(members) = conditions else {
            return Ok(());
        };
        for (name, value) in members.iter_mut() {
            match value {
                Value::Array(parts) if name.starts_with('$') => {
                    parts
                        .iter_mut()
                        .try_for_each(|part| self.replace_inner(part, caller))?;
                }
                Value::Object(operators) => self.replace_operators(operators, caller)?,
                _ => {}
            }
        }
        members.retain(|_, value| value.as_object().is_none_or(|operators| !operators.is_empty()));
        Ok(())
    }

    fn replace_operators(&self, operators: &mut Map<String, Value>, caller: &Caller) -> Result<(), Refusal> {
        for (operator, list) in [("$inQuery", "$in"), ("$notInQuery", "$nin")] {
            if let Some(inner) = operators.remove(operator) {
                let class_name = inner.get("className").cloned().unwrap_or_default();
                let found = self.find_inner(&inner, caller)?.into_iter();
                let pointers = found.map(|object| {
                    json!({"__type": "Pointer", "className": class_name, "objectId": object["objectId"]})
                });
                add(operators, list, pointers.collect());
            }
        }
        for (operator, list) in [("$select", "$in"), ("$dontSelect", "$nin")] {
            if let Some(inner) = operators.remove(operator) {
                let key = inner.get("key").and_then(Value::as_str).unwrap_or_default();
                let found = self.find_inner(&inner["query"], caller)?;
                let path = format!("/{}", key.replace('.', "/"));
                let values = found.iter().filter_map(|object| object.pointer(&path).cloned());
                add(operators, list, values.collect());
            }
        }
        Ok(())
    }

    fn find_inner(&self, inner: &Value, caller: &Caller) -> Result<Vec<Value>, Refusal> {
        let invalid = |text: String| Refusal::new(400, Some(102), text);
        let Some(class_name) = inner.get("className").and_then(Value::as_str) else {
            return Err(invalid(
                "improper usage of an inner query: it has no className".to_owned(),
            ));
        };
        let members: Map<String, Value> = ["where", "limit", "skip", "order"]
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), inner.get(name)?.clone())))
            .collect();
        let query = Query::from_json(class_name, members).map_err(|error| invalid(error.to_string()))?;
        let query = match query.window().limit {
            Some(_) => query,
            None => query.limit(NO_LIMIT),
        };
        Ok(self.find(&query, caller)?.0)
    }

    /// Replaces the pointers at these paths with the objects that they point to. If the object does not exist
    /// or may not be read, the pointer is removed.
    pub(super) fn include(&self, objects: &mut [Value], paths: &[String], caller: &Caller) {
        for path in paths {
            let names: Vec<_> = path.split('.').collect();
            // As the server does it: the shorter paths first.
            for depth in 1..=names.len() {
                let part = names.get(..depth).unwrap_or_default();
                objects
                    .iter_mut()
                    .for_each(|object| self.include_in(object, part, caller));
            }
        }
    }

    fn include_in(&self, value: &mut Value, path: &[&str], caller: &Caller) {
        let Some((name, rest)) = path.split_first() else {
            return;
        };
        match value {
            Value::Array(items) => items
                .iter_mut()
                .for_each(|item| self.include_in(item, path, caller)),
            Value::Object(members) => {
                let names: Vec<String> = match *name {
                    "*" => members.keys().cloned().collect(),
                    name => vec![name.to_owned()],
                };
                for name in names {
                    let Some(member) = members.get_mut(&name) else {
                        continue;
                    };
                    if !rest.is_empty() {
                        self.include_in(member, rest, caller);
                    } else if let Value::Array(items) = member {
                        let found = std::mem::take(items).into_iter();
                        *items = found.filter_map(|item| self.pointed_to(item, caller)).collect();
                    } else if let Some(found) = self.pointed_to(member.take(), caller) {
                        *member = found;
                    } else {
                        members.remove(&name);
                    }
                }
            }
            _ => {}
        }
    }

    /// The object in place of a pointer, if there is one; any other value is returned unchanged.
    fn pointed_to(&self, value: Value, caller: &Caller) -> Option<Value> {
        let text = |name: &str| value.get(name).and_then(Value::as_str);
        let (Some("Pointer"), Some(class_name), Some(id)) =
            (text("__type"), text("className"), text("objectId"))
        else {
            return Some(value);
        };
        let object = self
            .object(class_name, id)
            .filter(|object| caller.may_read(object))?;
        let mut shown = permissions::shown(class_name, Value::Object((**object).clone()), caller);
        shown["__type"] = "Object".into();
        shown["className"] = class_name.into();
        Some(shown)
    }
}

/// Adds to the values of `$in` or `$nin`. A pointer that matches nothing represents an empty `$in`.
fn add(operators: &mut Map<String, Value>, list: &str, mut values: Vec<Value>) {
    if let Some(Value::Array(held)) = operators.get(list) {
        values.extend(held.iter().cloned());
    }
    if values.is_empty() && list == "$in" {
        values.push(json!({"__type": "Pointer", "className": "Nothing", "objectId": "nothing"}));
    }
    if !values.is_empty() {
        operators.insert(list.to_owned(), values.into());
    }
}

const OPERATORS: [&str; 4] = [
    "\"$inQuery\"",
    "\"$notInQuery\"",
    "\"$select\"",
    "\"$dontSelect\"",
];
const NO_LIMIT: u64 = u32::MAX as u64;
