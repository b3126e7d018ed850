//! Counters: what goes on in a client, for whoever looks for a fault.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use crate::state::{ClientState, SubscriptionState};
use crate::types::Date;

/// What goes on in a client. A snapshot, made by [`Client::stats`](crate::Client::stats).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientStats {
    /// Where the client stands.
    pub state: ClientState,
    /// The number of the present connection, or of the last one: how often the server has accepted this client.
    pub connections: u64,
    /// How many attempts to connect have failed, and how many connections were lost.
    pub failures: u64,
    /// The subscriptions that have not ended.
    pub subscriptions: usize,
    /// Text and binary messages that came, and their bytes.
    pub messages_in: u64,
    /// The bytes of the messages that came.
    pub bytes_in: u64,
    /// LiveQuery messages that were sent.
    pub messages_out: u64,
    /// The bytes of the messages that were sent.
    pub bytes_out: u64,
    /// Messages that were no LiveQuery messages.
    pub malformed: u64,
    /// When something last came from the server, a ping included.
    pub last_received: Option<Date>,
    /// How long the server took to answer the last ping of this client. It pings when it has connected, and when the
    /// link is silent.
    pub round_trip: Option<Duration>,
    /// The objects that wait for their listeners.
    pub queued: usize,
    /// About how many bytes of memory the objects and errors take that wait for their listeners.
    pub queued_bytes: usize,
    /// Everything that waits for listeners or is being delivered to them: objects, errors, `open`, `close`, and what
    /// the client itself has to tell.
    pub waiting: usize,
    /// The objects that were dropped since their listeners were too slow.
    pub dropped: u64,
}

/// What goes on in a subscription. A snapshot, made by [`Subscription::stats`](crate::Subscription::stats).
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
    /// Where the subscription stands.
    pub state: SubscriptionState,
    /// How often the server has acknowledged it.
    pub acknowledged: u64,
    /// The events that came, by kind.
    pub events: EventCounts,
    /// When the last event came.
    pub last_event: Option<Date>,
    /// The objects that wait for their listeners.
    pub queued: usize,
    /// About how many bytes of memory the objects take that wait for their listeners.
    pub queued_bytes: usize,
    /// The objects that were dropped since their listeners were too slow.
    pub dropped: u64,
    /// The objects that were dropped since they do not match the query: the server took it for another one.
    pub foreign: u64,
}

/// The events of a subscription that came from the server, by kind.
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
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.create + self.update + self.enter + self.leave + self.delete
    }
}

/// The counters of a client. The I/O thread counts, anybody may look.
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
    /// For the I/O thread alone: as nobody else writes, this need not be one indivisible step.
    pub(crate) fn add(counter: &AtomicU64, number: u64) {
        counter.store(counter.load(Ordering::Relaxed) + number, Ordering::Relaxed);
    }
}
