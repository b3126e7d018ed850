//! The states of a client and of a subscription.

use std::fmt;

/// The state of a client, with the names of the JS SDK.
///
/// # Examples
/// ```
/// # use parse_livequery::{Client, Query};
/// # use std::time::Duration;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = parse_livequery::test_server::TestServer::start()?;
/// # let client = Client::builder(server.url(), "APP_ID").build()?;
/// use parse_livequery::ClientState;
///
/// assert_eq!(client.state(), ClientState::Initialized);
/// client.open();
/// client.wait_open(Duration::from_secs(10))?;
/// assert_eq!(client.state(), ClientState::Connected);
/// client.close();
/// assert_eq!(client.state(), ClientState::Closed);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ClientState {
    /// Built, but not opened yet: [`open`](crate::Client::open) or the first subscription opens it.
    Initialized,
    /// Making its first connection, or the first one after a stable connection.
    Connecting,
    /// The server has accepted the connection.
    Connected,
    /// The connection was lost or could not be made; the client keeps trying, for as long as it takes.
    Reconnecting,
    /// The server refused the connection permanently (a wrong key, a `beforeConnect` hook): trying again
    /// would not help. [`open`](crate::Client::open) does try again, with all subscriptions. Also the state
    /// of a client in a fork of its process, where trying again never helps.
    Disconnected,
    /// Without a connection until [`resume`](crate::Client::resume), since [`pause`](crate::Client::pause) was called. The
    /// subscriptions are kept.
    Paused,
    /// Closed by [`close`](crate::Client::close). [`open`](crate::Client::open) and new subscriptions open it again.
    Closed,
}

/// The state of a subscription.
///
/// # Examples
/// ```
/// # use parse_livequery::{Client, Query};
/// # use std::time::Duration;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = parse_livequery::test_server::TestServer::start()?;
/// # let client = Client::builder(server.url(), "APP_ID").build()?;
/// use parse_livequery::SubscriptionState;
///
/// let subscription = client.subscribe(&Query::new("Game"))?;
/// subscription.wait_open(Duration::from_secs(10))?;
/// assert_eq!(subscription.state(), SubscriptionState::Open);
/// subscription.unsubscribe();
/// assert_eq!(subscription.state(), SubscriptionState::Closed);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SubscriptionState {
    /// Not acknowledged by the server: not yet, or not again since the connection was lost.
    Pending,
    /// Acknowledged: events arrive.
    Open,
    /// Refused by the server: no events arrive. [`update`](crate::Subscription::update) tries again with
    /// another query.
    Failed,
    /// Ended by [`unsubscribe`](crate::Subscription::unsubscribe) or [`Client::close`](crate::Client::close), or in a fork of
    /// the process.
    Closed,
}

impl fmt::Display for ClientState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Initialized => "initialized",
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Reconnecting => "reconnecting",
            Self::Disconnected => "disconnected",
            Self::Paused => "paused",
            Self::Closed => "closed",
        })
    }
}

impl fmt::Display for SubscriptionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pending => "pending",
            Self::Open => "open",
            Self::Failed => "failed",
            Self::Closed => "closed",
        })
    }
}
