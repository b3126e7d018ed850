//! Where a client and a subscription stand.

/// The state of a client, under the names of the JS SDK.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ClientState {
    /// Built, and not opened yet: [`open`](crate::Client::open) or the first subscription does that.
    Initialized,
    /// On the way to its first connection, or to the first after the link had been stable.
    Connecting,
    /// The server accepted the connection.
    Connected,
    /// The connection was lost or could not be made; the client tries again by itself, for as long as it takes.
    Reconnecting,
    /// The server refused the connection for good (a wrong key, a `beforeConnect` hook): trying again would not
    /// help. [`open`](crate::Client::open) does try again, with all subscriptions.
    Disconnected,
    /// Closed by [`close`](crate::Client::close). [`open`](crate::Client::open) and new subscriptions open it again.
    Closed,
}

/// The state of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SubscriptionState {
    /// Not acknowledged by the server: not yet, or not again since the link was lost.
    Pending,
    /// Acknowledged: events come.
    Open,
    /// Refused by the server: no events come. [`update`](crate::Subscription::update) tries again with another query.
    Failed,
    /// Ended by [`unsubscribe`](crate::Subscription::unsubscribe) or [`Client::close`](crate::Client::close).
    Closed,
}
