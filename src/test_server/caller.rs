//! Who makes a request, what that user may do, and how a request is refused. Must not know what is asked for.

use super::events;
use super::state::Fields;

/// Why a request is refused.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: u16,
    /// The code of Parse, if there is one.
    pub(super) code: Option<i64>,
    pub(super) text: String,
}

impl Refusal {
    pub(super) fn new(status: u16, code: Option<i64>, text: impl Into<String>) -> Self {
        Self {
            status,
            code,
            text: text.into(),
        }
    }

    /// With the HTTP status that Parse Server 9.10 gives to a code (middlewares.js, handleParseErrors).
    pub(super) fn of(code: i64, text: impl Into<String>) -> Self {
        let status = match code {
            1 => 500,
            101 => 404,
            _ => 400,
        };
        Self::new(status, Some(code), text)
    }
}

/// Who makes a request.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// The id of the user of the session.
    pub(super) user: Option<String>,
    /// The names by which ACLs know the user: the id and the roles.
    pub(super) groups: Vec<String>,
    pub(super) session_token: Option<String>,
    pub(super) has_master_key: bool,
}

impl Caller {
    /// The test itself, which may do everything.
    pub(super) fn master() -> Self {
        Self {
            user: None,
            groups: Vec::new(),
            session_token: None,
            has_master_key: true,
        }
    }

    pub(super) fn may_read(&self, object: &Fields) -> bool {
        self.has_master_key || events::may(object, &self.groups, "read")
    }

    pub(super) fn may_write(&self, object: &Fields) -> bool {
        self.has_master_key || events::may(object, &self.groups, "write")
    }
}
