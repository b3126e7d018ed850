//! Class-level permissions, and the fields of a user that other users do not see. Must not know of HTTP and
//! frames.
//!
//! Modelled on `SchemaController.js` (`validatePermission`) and `RestQuery.js` of Parse Server 9.10.

use serde_json::Value;

use super::caller::{Caller, Refusal};
use super::state::State;

impl State {
    /// Whether a caller may do this with a class: `find`, `get`, `count`, `create`, `update`, `delete`, `addField`.
    pub(super) fn permit(&self, class_name: &str, operation: &str, caller: &Caller) -> Result<(), Refusal> {
        if caller.has_master_key {
            return Ok(());
        }
        let groups = caller.groups.iter().map(String::as_str);
        self.permit_groups(class_name, operation, caller.user.is_some(), groups)
    }

    pub(super) fn permit_groups<'a>(
        &self,
        class_name: &str,
        operation: &str,
        is_user: bool,
        mut groups: impl Iterator<Item = &'a str>,
    ) -> Result<(), Refusal> {
        let Some(permissions) = self.permissions.get(class_name) else {
            return Ok(());
        };
        // An operation that is not named is allowed to nobody.
        let permissions = permissions.get(operation).unwrap_or(&Value::Null);
        let allows = |who: &str| permissions.get(who) == Some(&Value::Bool(true));
        if allows("*") || groups.any(allows) {
            return Ok(());
        }
        match (allows("requiresAuthentication"), is_user) {
            (true, true) => Ok(()),
            (true, false) => {
                let text = "Permission denied, user needs to be authenticated.";
                Err(Refusal::of(101, text))
            }
            (false, _) => {
                let text = format!("Permission denied for action {operation} on class {class_name}.");
                Err(Refusal::of(119, text))
            }
        }
    }
}

/// An object as a caller sees it: without the class, and users without their private fields.
pub(super) fn shown(class_name: &str, mut object: Value, caller: &Caller) -> Value {
    if let Value::Object(members) = &mut object {
        members.remove("className");
        if class_name == "_User" {
            members.remove("password");
            let id = members.get("objectId").and_then(Value::as_str);
            if !caller.has_master_key && id != caller.user.as_deref() {
                members.remove("email");
                members.remove("authData");
            }
        }
    }
    object
}
