//! The types of fields: the first value of a field decides what it may hold from then on. Must not know who
//! saves.
//!
//! Modelled on `SchemaController.js` of Parse Server 9.10.

use serde_json::Value;

use super::caller::Refusal;
use super::state::{Class, Fields, State};

impl State {
    /// The types that these fields add to a class, or why they do not fit it.
    pub(super) fn check_types(
        &self,
        class_name: &str,
        fields: &Fields,
    ) -> Result<Vec<(String, String)>, Refusal> {
        if !is_class_name(class_name) {
            let text = format!(
                "Invalid classname: {class_name}, classnames can only have alphanumeric characters and _, and must start \
                 with an alpha character "
            );
            return Err(Refusal::of(103, text));
        }
        let mut new = Vec::new();
        for (name, value) in fields {
            if ALWAYS.contains(&&**name) {
                continue;
            }
            let is_name = name.starts_with(|first: char| first.is_ascii_alphabetic())
                && name.split('.').all(|part| {
                    part.chars()
                        .all(|other| other == '_' || other.is_ascii_alphanumeric())
                });
            if !is_name {
                return Err(Refusal::of(105, format!("Invalid field name: {name}.")));
            }
            let Some(type_name) = type_of(value)? else {
                continue;
            };
            // A value inside an object has no type.
            let (name, type_name) = match name.split_once('.') {
                Some((name, _)) => (name, "Object".to_owned()),
                None => (&**name, type_name),
            };
            match self.type_of_field(class_name, name) {
                Some(expected) if expected != type_name => {
                    let text = format!(
                        "schema mismatch for {class_name}.{name}; expected {expected} but got {type_name}"
                    );
                    return Err(Refusal::of(111, text));
                }
                Some(_) => {}
                None => new.push((name.to_owned(), type_name)),
            }
        }
        Ok(new)
    }

    pub(super) fn learn_types(&mut self, class_name: &str, types: Vec<(String, String)>) {
        for (name, type_name) in types {
            self.types.insert((class_name.to_owned(), name), type_name);
        }
    }

    /// The class at the other end of a relation.
    pub(super) fn target_of(&self, class_name: &str, field: &str) -> Option<String> {
        let type_name = self.type_of_field(class_name, field)?;
        let target = type_name.strip_prefix("Relation<")?.strip_suffix('>')?;
        Some(target.to_owned())
    }

    fn type_of_field(&self, class_name: &str, name: &str) -> Option<String> {
        let built_in = BUILT_IN
            .iter()
            .find(|(class, field, _)| *class == class_name && *field == name);
        if let Some((_, _, type_name)) = built_in {
            return Some((*type_name).to_owned());
        }
        if let Some(type_name) = self.types.get(&(class_name.to_owned(), name.to_owned())) {
            return Some(type_name.clone());
        }
        // Objects that the test put there itself.
        let objects = self.classes.get(class_name).map(Class::objects);
        let mut objects = objects.into_iter().flatten();
        objects.find_map(|object| type_of(object.get(name)?).ok().flatten())
    }
}

fn is_class_name(name: &str) -> bool {
    let rest = name.strip_prefix('_').unwrap_or(name);
    rest.starts_with(|first: char| first.is_ascii_alphabetic())
        && rest
            .chars()
            .all(|other| other == '_' || other.is_ascii_alphanumeric())
}

/// The type of a value, or of the result of an operation; `None` for null and for an operation that removes
/// the field.
fn type_of(value: &Value) -> Result<Option<String>, Refusal> {
    let members = match value {
        Value::Null => return Ok(None),
        Value::Bool(_) => return Ok(Some("Boolean".to_owned())),
        Value::Number(_) => return Ok(Some("Number".to_owned())),
        Value::String(_) => return Ok(Some("String".to_owned())),
        Value::Array(_) => return Ok(Some("Array".to_owned())),
        Value::Object(members) => members,
    };
    // JavaScript treats these values as missing.
    let has = |name: &str| {
        members
            .get(name)
            .is_some_and(|value| *value != "" && *value != false && !value.is_null())
    };
    let target = |pointer: &str| value.pointer(pointer).and_then(Value::as_str);
    let tag = members.get("__type").and_then(Value::as_str);
    if let Some(tag) = tag {
        let type_name = match tag {
            "Pointer" | "Relation" => target("/className").map(|class| format!("{tag}<{class}>")),
            "File" => has("name").then(|| tag.to_owned()),
            "Date" => has("iso").then(|| tag.to_owned()),
            "GeoPoint" => (has("latitude") && has("longitude")).then(|| tag.to_owned()),
            "Bytes" => has("base64").then(|| tag.to_owned()),
            "Polygon" => has("coordinates").then(|| tag.to_owned()),
            _ => None,
        };
        let invalid = || Refusal::of(111, format!("This is not a valid {tag}"));
        return type_name.map(Some).ok_or_else(invalid);
    }
    let type_name = match members.get("__op").and_then(Value::as_str) {
        Some("Delete") => return Ok(None),
        Some("Increment") => "Number".to_owned(),
        Some("Add" | "AddUnique" | "Remove") => "Array".to_owned(),
        Some("AddRelation" | "RemoveRelation") => match target("/objects/0/className") {
            Some(class_name) => format!("Relation<{class_name}>"),
            None => return Ok(None),
        },
        Some("Batch") => return value.pointer("/ops/0").map_or(Ok(None), type_of),
        _ => "Object".to_owned(),
    };
    Ok(Some(type_name))
}

/// Fields that every object has, and those that are kept elsewhere.
const ALWAYS: [&str; 7] = [
    "ACL",
    "objectId",
    "createdAt",
    "updatedAt",
    "className",
    "authData",
    "password",
];

const BUILT_IN: [(&str, &str, &str); 6] = [
    ("_User", "username", "String"),
    ("_User", "email", "String"),
    ("_User", "emailVerified", "Boolean"),
    ("_Role", "name", "String"),
    ("_Role", "users", "Relation<_User>"),
    ("_Role", "roles", "Relation<_Role>"),
];
