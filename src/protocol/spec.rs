//! What is asked for: by whom, and for which subscription. Must not know of frames.

use std::sync::OnceLock;

use serde_json::Value;

use crate::event::{Event, EventKind};
use crate::query::EncodedQuery;
use crate::query::matcher::{Field, Matcher, Verdict};
use crate::secret::Secret;
use crate::types::Date;

/// What a client sends in `connect`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Credentials {
    pub(crate) application_id: String,
    pub(crate) javascript_key: Option<Secret>,
    pub(crate) client_key: Option<Secret>,
    pub(crate) windows_key: Option<Secret>,
    pub(crate) rest_api_key: Option<Secret>,
    pub(crate) master_key: Option<Secret>,
    pub(crate) session_token: Option<Secret>,
    pub(crate) installation_id: Option<String>,
}

/// What a subscription asks for.
#[derive(Debug)]
pub(crate) struct Spec {
    /// Made from the query when its first event comes.
    matcher: OnceLock<Option<Matcher>>,
    pub(crate) query: EncodedQuery,
    /// Sent with the subscription. Only this token counts for class-level permissions and protected fields
    /// (Parse Server 9.10, ParseLiveQueryServer.js), so the client's own is sent for a subscription that has
    /// none.
    pub(crate) session_token: Option<Secret>,
    /// Counts the session tokens of this subscription: events of an earlier one are not delivered.
    pub(crate) identity: u64,
}

impl Spec {
    pub(crate) fn new(query: EncodedQuery, session_token: Option<Secret>, identity: u64) -> Self {
        Self {
            matcher: OnceLock::new(),
            query,
            session_token,
            identity,
        }
    }

    /// Whether [`may_bring`](Self::may_bring) has anything to decide by.
    pub(crate) fn is_filter(&self) -> bool {
        self.query.is_verbatim() && *self.query.where_json != *"{}"
    }

    /// Whether an event can belong to this query. Parse Server confuses some queries with one another
    /// (`queryHash` in QueryTools.js), and then sends the events of one to the subscribers of the other. The
    /// form in which queries are sent prevents that, except for those that are sent as the program wrote
    /// them. Events of all other queries are accepted without a check, because an `afterLiveQueryEvent` hook
    /// may have changed the object after the server matched it.
    ///
    /// An absent field is not checked: `select`, protected fields and hooks leave fields out.
    pub(crate) fn may_bring(&self, event: &Event) -> bool {
        let object = match event.kind() {
            // The object matched before it left.
            EventKind::Leave => event.original(),
            _ => event.object(),
        };
        let matcher = self.matcher.get_or_init(|| {
            if self.is_filter() {
                Matcher::parse(&self.query.where_json).ok()
            } else {
                None
            }
        });
        match (object, matcher) {
            (Some(object), Some(matcher)) => {
                let field = |name: &str| match object.get(name) {
                    Some(value) if !is_altered(name, value) => Field::Value(value),
                    _ => Field::Unknown,
                };
                matcher.matches(field).may_be(Verdict::MATCH)
            }
            _ => true,
        }
    }
}

/// Whether a value may differ from the one that the server matched: an object that a hook fetched in place of
/// a pointer, or a date that Parse Server 3.4 to 6.0 sends without its type.
fn is_altered(name: &str, value: &Value) -> bool {
    let fetched = value.get("__type").is_some_and(|kind| kind == "Object");
    let sent_plain = matches!(name, "createdAt" | "updatedAt");
    fetched || !sent_plain && value.as_str().is_some_and(|text| text.parse::<Date>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::Spec;

    #[test]
    fn a_specification_is_small() {
        // There is one for each of 100,000 subscriptions. Eight more bytes would be sixteen for the
        // allocator.
        assert!(size_of::<Spec>() <= 136, "{}", size_of::<Spec>());
    }
}
