//! Counters that show the activity of a client, for finding faults.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use crate::state::{ClientState, SubscriptionState};
use crate::types::Date;

/// The counters of a client. A snapshot, returned by [`Client::stats`](crate::Client::stats).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientStats {
    /// The state of the client.
    pub state: ClientState,
    /// The number of the current connection, or of the last one: how often the server has accepted this
    /// client.
    pub connections: u64,
    /// How many attempts to connect have failed, and how many connections were lost.
    pub failures: u64,
    /// How many subscriptions have not ended.
    pub subscriptions: usize,
    /// How many text and binary messages were received.
    pub messages_in: u64,
    /// The bytes of the messages received.
    pub bytes_in: u64,
    /// How many LiveQuery messages were sent.
    pub messages_out: u64,
    /// The bytes of the messages sent.
    pub bytes_out: u64,
    /// How many messages were received that are not LiveQuery messages.
    pub malformed: u64,
    /// When anything was last received from the server, including pings.
    pub last_received: Option<Date>,
    /// How long the server took to answer the client's last ping. The client pings when it has connected, and
    /// at the interval [`idle_ping`](crate::ClientBuilder::idle_ping).
    pub round_trip: Option<Duration>,
    /// How many objects wait for their listeners.
    pub queued: usize,
    /// About how many bytes of memory the waiting objects and errors take.
    pub queued_bytes: usize,
    /// How many events wait for listeners or are being delivered to them: objects, errors, `open`, `close`,
    /// and the events of the client itself.
    pub waiting: usize,
    /// How many objects were dropped because their listeners were too slow.
    pub dropped: u64,
}

/// The counters of a subscription. A snapshot, returned by
/// [`Subscription::stats`](crate::Subscription::stats).
///
/// # Examples
/// ```
/// # use parse_livequery::{Client, Query};
/// # use std::time::Duration;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = parse_livequery::test_server::TestServer::start()?;
/// # let client = Client::builder(server.url(), "APP_ID").build()?;
/// # let subscription = client.subscribe(&Query::new("Game"))?;
/// # subscription.wait_open(Duration::from_secs(10))?;
/// let events = subscription.events();
/// server.create("Game", serde_json::json!({}));
/// while events.recv_timeout(Duration::from_secs(10))?.object().is_none() {} // `open` is there, too
/// let stats = subscription.stats();
/// assert_eq!((stats.acknowledged, stats.events.create, stats.dropped), (1, 1, 0));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriptionStats {
    /// The state of the subscription.
    pub state: SubscriptionState,
    /// How often the server has acknowledged it.
    pub acknowledged: u64,
    /// The events received, by kind.
    pub events: EventCounts,
    /// When the last event was received.
    pub last_event: Option<Date>,
    /// How many objects wait for their listeners.
    pub queued: usize,
    /// About how many bytes of memory the waiting objects take.
    pub queued_bytes: usize,
    /// How many objects were dropped because their listeners were too slow.
    pub dropped: u64,
    /// How many objects were dropped because they do not match the query: the server mistook it for another
    /// one.
    pub foreign: u64,
}

/// The events that a subscription received from the server, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct EventCounts {
    /// The `create` events.
    pub create: u64,
    /// The `update` events.
    pub update: u64,
    /// The `enter` events.
    pub enter: u64,
    /// The `leave` events.
    pub leave: u64,
    /// The `delete` events.
    pub delete: u64,
}

impl EventCounts {
    /// Returns the sum over all kinds.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.create + self.update + self.enter + self.leave + self.delete
    }
}

/// The counters of a client. The I/O thread counts, and any thread may read.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) connections: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) subscriptions: AtomicUsize,
    pub(crate) messages_in: AtomicU64,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) messages_out: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    pub(crate) malformed: AtomicU64,
    pub(crate) dropped: AtomicU64,
    pub(crate) last_received: Mutex<Option<SystemTime>>,
    pub(crate) round_trip: Mutex<Option<Duration>>,
}

impl Counters {
    /// Only for the I/O thread: as no other thread writes, this need not be an atomic read-modify-write.
    pub(crate) fn add(counter: &AtomicU64, number: u64) {
        counter.store(counter.load(Ordering::Relaxed) + number, Ordering::Relaxed);
    }
}
