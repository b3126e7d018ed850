//! Relations: how operations change them, which roles follow from them, and queries that ask for them. Must
//! not know of HTTP.
//!
//! Modelled on `DatabaseController.js` (`reduceInRelation`, `reduceRelationKeys`) and `Auth.js`
//! (`getUserRoles`) of Parse Server 9.10.

use serde_json::{Map, Value, json};

use super::caller::Refusal;
use super::state::{Fields, State};
use crate::query::Query;

/// What an operation changes in the relation of a field.
pub(super) struct Change {
    field: String,
    adds: bool,
    ids: Vec<String>,
}

/// The changes that these fields make to relations.
pub(super) fn changes(fields: &Fields) -> Vec<Change> {
    fn add(field: &str, value: &Value, changes: &mut Vec<Change>) {
        let list = |name: &str| value.get(name).and_then(Value::as_array).into_iter().flatten();
        match value.get("__op").and_then(Value::as_str) {
            Some("Batch") => list("ops").for_each(|op| add(field, op, changes)),
            Some(op @ ("AddRelation" | "RemoveRelation")) => changes.push(Change {
                field: field.to_owned(),
                adds: op == "AddRelation",
                ids: list("objects").filter_map(id_of).collect(),
            }),
            _ => {}
        }
    }
    let mut changes = Vec::new();
    for (field, value) in fields {
        add(field, value, &mut changes);
    }
    changes
}

impl State {
    pub(super) fn relate(&mut self, class_name: &str, id: &str, changes: Vec<Change>) {
        for Change { field, adds, ids } in changes {
            let key = (class_name.to_owned(), id.to_owned(), field);
            let related = self.relations.entry(key).or_default();
            related.retain(|id| !ids.contains(id));
            if adds {
                related.extend(ids);
            }
        }
    }

    /// The names by which ACLs know this user: the id and all roles, including those inherited from other
    /// roles.
    pub(super) fn groups_of(&self, user: &str) -> Vec<String> {
        let mut roles = self.owners("_Role", "users", |member| member == user);
        let mut at = 0;
        while let Some(role) = roles.get(at).cloned() {
            let with_it = self.owners("_Role", "roles", |member| member == role);
            let new: Vec<_> = with_it.into_iter().filter(|role| !roles.contains(role)).collect();
            roles.extend(new);
            at += 1;
        }
        let name = |role: &String| {
            let name = self.object("_Role", role)?.get("name")?.as_str()?;
            Some(format!("role:{name}"))
        };
        let roles = roles.iter().filter_map(name);
        [user.to_owned()].into_iter().chain(roles).collect()
    }

    /// The query with ids in place of its conditions on relations.
    pub(super) fn without_relations(&self, query: &Query) -> Result<Query, Refusal> {
        let invalid = |error: &dyn std::fmt::Display| Refusal::of(102, error.to_string());
        let text = query.to_json().map_err(|error| invalid(&error))?;
        let mut json: Value = serde_json::from_str(&text).map_err(|error| invalid(&error))?;
        let is_changed = self.replace(query.class_name(), &mut json["where"])?;
        if !is_changed {
            return Ok(query.clone());
        }
        if let Some(members) = json.as_object_mut() {
            members.remove("watch");
        }
        Query::from_json(query.class_name(), json).map_err(|error| invalid(&error))
    }

    fn replace(&self, class_name: &str, conditions: &mut Value) -> Result<bool, Refusal> {
        let Value::Object(members) = conditions else {
            return Ok(false);
        };
        let mut is_changed = false;
        let mut ids = Vec::new();
        for (name, value) in std::mem::take(members) {
            let mut value = value;
            match (&*name, &mut value) {
                ("$relatedTo", related) => {
                    ids.push(self.related_to(related)?);
                    continue;
                }
                (name, Value::Array(parts)) if name.starts_with('$') => {
                    for part in parts {
                        is_changed |= self.replace(class_name, part)?;
                    }
                }
                (name, value) if self.is_relation(class_name, name) => {
                    let wanted = match value.get("$in").and_then(Value::as_array) {
                        Some(list) => list.iter().filter_map(id_of).collect(),
                        None => Vec::from_iter(id_of(value)),
                    };
                    ids.push(self.owners(class_name, name, |member| wanted.iter().any(|id| id == member)));
                    continue;
                }
                _ => {}
            }
            members.insert(name, value);
        }
        if ids.is_empty() {
            return Ok(is_changed);
        }
        let mut all = vec![Value::Object(std::mem::take(members))];
        all.extend(ids.into_iter().map(|mut ids| {
            if ids.is_empty() {
                // A query may not have an empty list.
                ids.push("none".to_owned());
            }
            json!({"objectId": {"$in": ids}})
        }));
        all.retain(|conditions| *conditions != json!({}));
        *members = Map::from_iter([("$and".to_owned(), all.into())]);
        Ok(true)
    }

    fn related_to(&self, related: &Value) -> Result<Vec<String>, Refusal> {
        let text = |pointer: &str| {
            related
                .pointer(pointer)
                .and_then(Value::as_str)
                .map(str::to_owned)
        };
        let key = (text("/object/className"), text("/object/objectId"), text("/key"));
        let (Some(class_name), Some(id), Some(field)) = key else {
            return Err(Refusal::of(102, "improper usage of $relatedTo"));
        };
        let related = self.relations.get(&(class_name, id, field));
        Ok(related.cloned().unwrap_or_default())
    }

    /// The objects of a class whose relation contains a wanted object.
    fn owners(&self, class_name: &str, field: &str, is_wanted: impl Fn(&str) -> bool) -> Vec<String> {
        self.relations
            .iter()
            .filter(|((class, _, name), _)| class == class_name && name == field)
            .filter(|(_, members)| members.iter().any(|member| is_wanted(member)))
            .map(|((_, id, _), _)| id.clone())
            .collect()
    }

    fn is_relation(&self, class_name: &str, field: &str) -> bool {
        self.relations
            .keys()
            .any(|(class, _, name)| class == class_name && name == field)
    }
}

fn id_of(pointer: &Value) -> Option<String> {
    pointer.get("objectId")?.as_str().map(str::to_owned)
}
