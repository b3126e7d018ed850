//! `Acl`: who may read and write an object.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// An access control list: which users and roles may read or write an object.
///
/// In JSON `{"*":{"read":true},"role:Admins":{"write":true},"u1":{"read":true,"write":true}}`, with no
/// `__type`. Everyone may read and write an object without an ACL; an object with an empty ACL is accessible
/// with the master key only.
///
/// ```
/// use parse_livequery::Acl;
///
/// let mut acl = Acl::for_user("u1");
/// acl.set_public_read_access(true);
/// acl.set_role_write_access("Admins", true);
/// assert!(acl.public_read_access() && !acl.public_write_access());
/// assert_eq!(
///     serde_json::to_string(&acl)?,
///     r#"{"*":{"read":true},"role:Admins":{"write":true},"u1":{"read":true,"write":true}}"#
/// );
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Acl {
    permissions: BTreeMap<String, Permissions>,
}

/// A missing member is kept apart from `false`, so that nothing is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Permissions {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    read: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    write: Option<bool>,
}

impl Acl {
    /// An ACL that grants access to nobody; only the master key opens the object.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An ACL that lets only this user read and write.
    #[must_use]
    pub fn for_user(user_id: impl Into<String>) -> Self {
        let permissions = Permissions {
            read: Some(true),
            write: Some(true),
        };
        Self {
            permissions: BTreeMap::from([(user_id.into(), permissions)]),
        }
    }

    /// Whether this user is explicitly allowed to read. The public or a role of the user may be allowed
    /// nevertheless.
    #[must_use]
    pub fn read_access(&self, user_id: &str) -> bool {
        self.permissions_of(user_id).read.unwrap_or(false)
    }

    /// Sets whether this user is explicitly allowed to read.
    pub fn set_read_access(&mut self, user_id: &str, allowed: bool) {
        self.set(user_id, |permissions| permissions.read = allowed.then_some(true));
    }

    /// Whether this user is explicitly allowed to write. The public or a role of the user may be allowed
    /// nevertheless.
    #[must_use]
    pub fn write_access(&self, user_id: &str) -> bool {
        self.permissions_of(user_id).write.unwrap_or(false)
    }

    /// Sets whether this user is explicitly allowed to write.
    pub fn set_write_access(&mut self, user_id: &str, allowed: bool) {
        self.set(user_id, |permissions| permissions.write = allowed.then_some(true));
    }

    /// Whether everyone may read.
    #[must_use]
    pub fn public_read_access(&self) -> bool {
        self.read_access(PUBLIC)
    }

    /// Sets whether everyone may read.
    pub fn set_public_read_access(&mut self, allowed: bool) {
        self.set_read_access(PUBLIC, allowed);
    }

    /// Whether everyone may write.
    #[must_use]
    pub fn public_write_access(&self) -> bool {
        self.write_access(PUBLIC)
    }

    /// Sets whether everyone may write.
    pub fn set_public_write_access(&mut self, allowed: bool) {
        self.set_write_access(PUBLIC, allowed);
    }

    /// Whether the users of this role are explicitly allowed to read. A parent role may be allowed
    /// nevertheless.
    #[must_use]
    pub fn role_read_access(&self, role: &str) -> bool {
        self.read_access(&id_of_role(role))
    }

    /// Sets whether the users of this role are explicitly allowed to read.
    pub fn set_role_read_access(&mut self, role: &str, allowed: bool) {
        self.set_read_access(&id_of_role(role), allowed);
    }

    /// Whether the users of this role are explicitly allowed to write. A parent role may be allowed
    /// nevertheless.
    #[must_use]
    pub fn role_write_access(&self, role: &str) -> bool {
        self.write_access(&id_of_role(role))
    }

    /// Sets whether the users of this role are explicitly allowed to write.
    pub fn set_role_write_access(&mut self, role: &str, allowed: bool) {
        self.set_write_access(&id_of_role(role), allowed);
    }

    fn permissions_of(&self, id: &str) -> Permissions {
        self.permissions.get(id).copied().unwrap_or_default()
    }

    fn set(&mut self, id: &str, change: impl FnOnce(&mut Permissions)) {
        let mut permissions = self.permissions_of(id);
        change(&mut permissions);
        if permissions == Permissions::default() {
            self.permissions.remove(id);
        } else {
            self.permissions.insert(id.to_owned(), permissions);
        }
    }
}

const PUBLIC: &str = "*";

fn id_of_role(role: &str) -> String {
    format!("role:{role}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn permissions_are_those_that_were_set() {
        let mut acl = Acl::new();
        assert!(!acl.public_read_access() && !acl.read_access("u1") && !acl.role_write_access("Admins"));
        acl.set_public_read_access(true);
        acl.set_public_write_access(true);
        acl.set_read_access("u1", true);
        acl.set_write_access("u1", true);
        acl.set_role_read_access("Admins", true);
        acl.set_role_write_access("Admins", true);
        assert!(acl.public_read_access() && acl.public_write_access());
        assert!(acl.read_access("u1") && acl.write_access("u1") && !acl.read_access("u2"));
        assert!(acl.role_read_access("Admins") && acl.role_write_access("Admins"));
        assert!(acl.read_access("role:Admins"));
    }

    // As the JS SDK's ParseACL.js does it.
    #[test]
    fn what_is_taken_away_leaves_no_trace() {
        let mut acl = Acl::for_user("u1");
        acl.set_write_access("u1", false);
        acl.set_public_read_access(false);
        assert_eq!(serde_json::to_value(&acl).unwrap(), json!({"u1": {"read": true}}));
        acl.set_read_access("u1", false);
        assert_eq!(acl, Acl::new());
    }
}
