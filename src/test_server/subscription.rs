//! What a test server shows of its subscriptions. Must not know how they are kept.

use super::state::Subscription;

/// A live subscription, as the server knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerSubscription {
    connection: usize,
    request_id: u64,
    class_name: String,
    where_json: String,
    keys: Option<Vec<String>>,
    watch: Option<Vec<String>>,
    session_token: Option<String>,
}

impl ServerSubscription {
    pub(super) fn new(connection: usize, class_name: &str, held: &Subscription) -> Self {
        Self {
            connection,
            request_id: whole(held.request_id),
            class_name: class_name.to_owned(),
            where_json: held.condition.to_string(),
            keys: held.keys.clone(),
            watch: held.watch.clone(),
            session_token: held.session_token.clone(),
        }
    }

    /// The connection that it was made on, counted from 0: the index into
    /// [`TestServer::frames`](super::TestServer::frames).
    #[must_use]
    pub fn connection(&self) -> usize {
        self.connection
    }

    /// The request id.
    #[must_use]
    pub fn request_id(&self) -> u64 {
        self.request_id
    }

    /// The class.
    #[must_use]
    pub fn class_name(&self) -> &str {
        &self.class_name
    }

    /// The `where`, without spaces, with its members in the order in which they came.
    #[must_use]
    pub fn where_json(&self) -> &str {
        &self.where_json
    }

    /// The fields that events are limited to.
    #[must_use]
    pub fn keys(&self) -> Option<&[String]> {
        self.keys.as_deref()
    }

    /// The fields whose changes cause a `create` or `update` event.
    #[must_use]
    pub fn watch(&self) -> Option<&[String]> {
        self.watch.as_deref()
    }

    /// The session token that came with the subscription itself.
    #[must_use]
    pub fn session_token(&self) -> Option<&str> {
        self.session_token.as_deref()
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clients count from 1; any other number is cut to fit"
)]
fn whole(request_id: f64) -> u64 {
    request_id as u64
}
