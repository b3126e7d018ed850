//! Saving objects over HTTP: who may write what, and the answers. Must not know of HTTP itself.

use std::sync::Arc;

use serde_json::{Value, json};

use super::caller::{Caller, Refusal};
use super::ops;
use super::state::{Class, Fields, State};

impl State {
    /// The answer to a `create`.
    pub(super) fn save_new(
        &mut self,
        class_name: &str,
        mut fields: Fields,
        caller: &Caller,
    ) -> Result<Value, Refusal> {
        self.permit(class_name, "create", caller)?;
        if fields.contains_key("objectId") {
            return Err(Refusal::of(105, "objectId is an invalid field name."));
        }
        remove_times(&mut fields);
        let types = self.fitting(class_name, &fields, caller)?;
        let object = applied(&Fields::new(), &fields)?;
        self.check_unique(class_name, None, &object)?;
        self.learn_types(class_name, types);
        let id = self.create(class_name, fields);
        let created = self.member(class_name, &id, "createdAt");
        Ok(json!({"objectId": id, "createdAt": created}))
    }

    /// The answer to an `update`.
    pub(super) fn save_changes(
        &mut self,
        class_name: &str,
        id: &str,
        mut fields: Fields,
        caller: &Caller,
    ) -> Result<Value, Refusal> {
        if class_name == "_User" && caller.user.is_none() && !caller.has_master_key {
            return Err(Refusal::of(206, "Permission denied"));
        }
        self.permit(class_name, "update", caller)?;
        let object = self.writable(class_name, id, caller)?;
        remove_times(&mut fields);
        fields.remove("objectId");
        let types = self.fitting(class_name, &fields, caller)?;
        let changed = applied(&object, &fields)?;
        self.check_unique(class_name, Some(id), &changed)?;
        self.learn_types(class_name, types);
        let answered: Vec<_> = fields
            .iter()
            .filter(|(_, value)| ops::is_answered(value))
            .map(|(name, _)| name.clone())
            .collect();
        self.update(class_name, id, fields);
        let mut answer = Fields::new();
        for name in answered.into_iter().chain(["updatedAt".to_owned()]) {
            let value = self.member(class_name, id, &name);
            answer.insert(name, value);
        }
        Ok(Value::Object(answer))
    }

    /// Deletes an object, if the caller may.
    pub(super) fn remove_object(
        &mut self,
        class_name: &str,
        id: &str,
        caller: &Caller,
    ) -> Result<Value, Refusal> {
        self.permit(class_name, "delete", caller)?;
        self.writable(class_name, id, caller)?;
        self.delete(class_name, id);
        Ok(json!({}))
    }

    /// Returns one object, if the caller may read it.
    pub(super) fn get_object(&self, class_name: &str, id: &str, caller: &Caller) -> Result<Value, Refusal> {
        self.permit(class_name, "get", caller)?;
        let object = self
            .object(class_name, id)
            .filter(|object| caller.may_read(object));
        object
            .map(|object| Value::Object(Fields::clone(object)))
            .ok_or_else(not_found)
    }

    pub(super) fn object(&self, class_name: &str, id: &str) -> Option<&Arc<Fields>> {
        self.classes.get(class_name)?.get(id)
    }

    /// What these fields add to the class, if they fit it and may add something.
    fn fitting(
        &self,
        class_name: &str,
        fields: &Fields,
        caller: &Caller,
    ) -> Result<Vec<(String, String)>, Refusal> {
        let new = self.check_types(class_name, fields)?;
        if !new.is_empty() {
            self.permit(class_name, "addField", caller)?;
        }
        Ok(new)
    }

    fn writable(&self, class_name: &str, id: &str, caller: &Caller) -> Result<Arc<Fields>, Refusal> {
        let object = self.object(class_name, id);
        // A caller that may not write the object does not learn that it exists.
        let object = object.filter(|object| caller.may_write(object));
        object.cloned().ok_or_else(not_found)
    }

    fn check_unique(&self, class_name: &str, id: Option<&str>, object: &Fields) -> Result<(), Refusal> {
        let is_unique = |name: &String| {
            let is_named = class_name == "_Role" && name == "name";
            is_named || self.unique.contains(&(class_name.to_owned(), name.clone()))
        };
        let others = self.classes.get(class_name).map(Class::objects);
        let others = others.unwrap_or_default();
        let is_taken = object
            .iter()
            .filter(|(name, value)| is_unique(name) && !value.is_null())
            .any(|(name, value)| {
                let is_other = |other: &Fields| other.get("objectId").and_then(Value::as_str) != id;
                others
                    .iter()
                    .any(|other| is_other(other) && other.get(name) == Some(value))
            });
        if is_taken {
            let text = "A duplicate value for a field with unique values was provided";
            return Err(Refusal::of(137, text));
        }
        Ok(())
    }

    fn member(&self, class_name: &str, id: &str, name: &str) -> Value {
        let object = self.object(class_name, id);
        object
            .and_then(|object| object.get(name))
            .cloned()
            .unwrap_or_default()
    }
}

/// The object with these fields applied, or why operations do not fit it.
fn applied(object: &Fields, fields: &Fields) -> Result<Fields, Refusal> {
    let mut object = object.clone();
    for (name, value) in fields {
        ops::apply(&mut object, name, value.clone()).map_err(|problem| Refusal::of(111, problem))?;
    }
    Ok(object)
}

/// The server sets them, whatever the request says.
fn remove_times(fields: &mut Fields) {
    fields.remove("createdAt");
    fields.remove("updatedAt");
}

fn not_found() -> Refusal {
    Refusal::of(101, "Object not found.")
}
