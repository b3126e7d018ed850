//! The state machine of one client: its connection, its subscriptions, and what is due next.
//!
//! It is a value. Inputs are method calls that carry the time; outputs are taken with
//! [`Session::next_output`] until there are none; [`Session::deadline`] says when [`Session::tick`] is due.
//! The first connection and all later ones take the same path, and so do the first subscription and its
//! restoration: what is wanted is compared with what the server has, and the difference is sent.
//!
//! ```text
//!            open                 transport_up          connected
//!  Idle ───────────► Connecting ───────────► Greeting ───────────► Live
//!                     ▲      │                   │                   │
//!          delay over │      ▼ lost              ▼ lost              ▼ lost
//!                     └── Waiting ◄──────────────┴───────────────────┘
//!  close: any ──► Idle          refused for good: any ──► Refused ──► open starts again
//!  pause: what is not closed or refused ──► Paused          resume: Paused ──► Connecting, if a link is wanted
//! ```

mod age;
mod answers;
mod clock;
mod due;
mod errors;
#[cfg(test)]
mod hostile;
mod link;
#[cfg(test)]
mod properties;
mod retries;
mod subscriptions;
#[cfg(test)]
mod tests;
mod tokens;
#[cfg(test)]
mod wire;
#[cfg(any(test, feature = "_fuzz"))]
#[allow(clippy::unwrap_used, clippy::panic, reason = "it is there to fail")]
pub(crate) mod world;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;

use self::age::{Inquiry, QUESTION};
use self::answers::Answers;
use self::clock::Clock;
use self::errors::{server_error, unknown_subscription};
use self::link::Link;
pub(crate) use self::link::Stage;
use self::retries::Retries;
use self::tokens::Renewals;
use super::Now;
use super::backoff::Backoff;
use super::incoming::{EventFrame, Message, Reader, ServerError};
use super::outgoing::{Dialect, InstallationId};
use super::spec::{Credentials, Spec};
use crate::error::{Error, ErrorKind};
use crate::event::{ClientEvent, Event, EventKind, GapReason};
use crate::scan::Outline;
use crate::text::excerpt;

/// The settings of a session, which never change.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) credentials: Credentials,
    /// For one attempt, from resolving the name to the answer to `connect`.
    pub(crate) connect_timeout: Duration,
    /// How long after a ping the next one is sent.
    pub(crate) idle_ping: Duration,
    /// How long nothing may come while a ping is unanswered, beyond `idle_ping`.
    pub(crate) pong_timeout: Duration,
    /// How long the server may take to answer a subscription.
    pub(crate) ack_timeout: Duration,
    /// The number of servers that take turns.
    pub(crate) servers: u32,
    /// The shortest and the longest delay between two attempts.
    pub(crate) reconnect_delay: (Duration, Duration),
    /// How many attempts in a row may fail; `None` means any number.
    pub(crate) max_attempts: Option<u32>,
    /// Whether [`Output::RenewToken`] can be answered.
    pub(crate) renewable_token: bool,
}

impl Settings {
    /// The default settings.
    pub(crate) fn new(application_id: String) -> Self {
        Self {
            credentials: Credentials {
                application_id,
                ..Credentials::default()
            },
            connect_timeout: Duration::from_secs(20),
            idle_ping: Duration::from_secs(20),
            pong_timeout: Duration::from_secs(10),
            ack_timeout: Duration::from_secs(10),
            servers: 1,
            reconnect_delay: (Duration::from_millis(250), Duration::from_secs(30)),
            max_attempts: None,
            renewable_token: false,
        }
    }
}

/// What must be done. `T` identifies a subscription for the caller.
#[derive(Debug)]
pub(crate) enum Output<T> {
    /// Make a connection, and call [`Session::transport_up`] or [`Session::lost`].
    Connect,
    /// Drop the connection at once.
    Disconnect,
    /// Send what is left, close the WebSocket, and then drop the connection.
    Farewell,
    Send(String),
    /// Send a ping with this payload, and call [`Session::ponged`] when it comes back.
    Ping([u8; 8]),
    /// The server rejects the session token: ask for another, and call [`Session::token_renewed`].
    RenewToken,
    /// Deliver this to the listeners of a subscription: `open`, `close` or `error`. The end of a subscription
    /// is reported with `close` even if it was not open; its listeners are not called then.
    Event(T, Event),
    /// Deliver this to the listeners of the client.
    ClientEvent(ClientEvent),
}

/// An event for a subscription that is wanted.
#[derive(Debug)]
pub(crate) struct Received<'a, T> {
    pub(crate) handle: &'a T,
    /// The identity of the subscription that the server sends this for.
    pub(crate) identity: u64,
    /// The query that the server got, if the server may have confused it with another.
    pub(crate) filter: Option<&'a Spec>,
    pub(crate) frame: EventFrame<'a>,
    /// The outline of its object.
    pub(crate) outline: Option<&'a Outline>,
}

#[derive(Debug)]
pub(crate) struct Session<T> {
    settings: Settings,
    rng: StdRng,
    reader: Reader,
    link: Link,
    backoff: Backoff,
    /// When the attempts to connect that were made so far are far enough in the past to be forgotten.
    next_free: Option<Instant>,
    /// The number of failed attempts since one succeeded.
    failures: u32,
    installation_id: InstallationId,
    dialect: Dialect,
    tokens: Renewals,
    /// In the order of their creation, which is the order in which everything is reported and sent.
    /// Boxed, because a tree that grows at its end is half empty.
    subscriptions: BTreeMap<u64, Box<Subscription<T>>>,
    /// Those that the server refused, until they get another query or are ended.
    failed: BTreeMap<u64, Failed<T>>,
    answers: Answers,
    /// What this server was asked about its version.
    inquiry: Inquiry,
    retries: Retries,
    outputs: VecDeque<Output<T>>,
    clock: Clock,
    /// How many pings were sent, on all connections: the number of the last one.
    pings: u64,
}

/// Field order: what every event touches comes first and together.
#[derive(Debug)]
#[repr(C)]
struct Subscription<T> {
    handle: T,
    /// What the program wants; `None` once it is unsubscribed and only the server's answer is missing.
    wanted: Option<Arc<Spec>>,
    /// The last query that the server accepted, which is restored if the server refuses an update.
    accepted: Option<Accepted>,
    /// The listeners have got `open` and not `close` yet.
    open: bool,
    server: OnServer,
    /// Why the next `open` reports a gap, if it does.
    gap: Option<GapReason>,
    /// The moment up to which nothing is missing that the server sent for this subscription, as far as is
    /// known without asking the connection: when the operation was sent that the server acknowledged last. If
    /// there is a gap, it starts here.
    ///
    /// It is not the moment at which the acknowledgement came: what the server wrote after it may still be on
    /// its way when the connection is cut. When the operation was sent, the server could not have written
    /// anything yet.
    proven: Instant,
    /// The server has refused the spelling of this subscription once on this connection.
    respelled: bool,
}

/// A query that the server has accepted, and the parts of it that every event needs, because the query itself
/// is not in the cache then.
#[derive(Clone, Debug)]
struct Accepted {
    spec: Arc<Spec>,
    identity: u64,
    is_filter: bool,
}

impl From<Arc<Spec>> for Accepted {
    fn from(spec: Arc<Spec>) -> Self {
        Self {
            identity: spec.identity,
            is_filter: spec.is_filter(),
            spec,
        }
    }
}

#[derive(Debug)]
struct Failed<T> {
    handle: T,
    /// Where the gap starts, and why, if the subscription was ever open.
    gap: Option<(Instant, GapReason)>,
}

/// What the server has of a subscription on this connection. While an operation is under way, nothing else is
/// sent for the same id: Parse Server 9.10 (ParseLiveQueryServer.js) handles `subscribe` asynchronously and
/// `unsubscribe` at once, so an unsubscribe that overtakes it leaves a subscription that nothing can end.
#[derive(Debug)]
enum OnServer {
    Absent,
    Asked { spec: Arc<Spec>, operation: u64 },
    Active(Arc<Spec>),
    Leaving { operation: u64 },
}

impl<T: Clone> Session<T> {
    pub(crate) fn new(settings: Settings, seed: u64) -> Self {
        let (floor, cap) = settings.reconnect_delay;
        let backoff = Backoff::new(floor, cap, settings.servers);
        let answers = Answers::new(settings.ack_timeout);
        let retries = Retries::new(Backoff::new(floor, cap, 1));
        let renewals = Backoff::new(floor, cap, 1);
        Self {
            settings,
            rng: StdRng::seed_from_u64(seed),
            reader: Reader::default(),
            link: Link::Idle { was_open: false },
            backoff,
            next_free: None,
            failures: 0,
            tokens: Renewals::new(renewals),
            installation_id: InstallationId::Sent,
            dialect: Dialect::Keys,
            subscriptions: BTreeMap::new(),
            failed: BTreeMap::new(),
            answers,
            inquiry: Inquiry::default(),
            retries,
            outputs: VecDeque::new(),
            clock: Clock::default(),
            pings: 0,
        }
    }

    /// The next thing to do. Must be called until there is none.
    pub(crate) fn next_output(&mut self) -> Option<Output<T>> {
        if self.outputs.is_empty() {
            // A burst of subscriptions must not occupy its memory forever.
            self.outputs.shrink_to(KEPT_CAPACITY);
        }
        self.outputs.pop_front()
    }

    /// The number of subscriptions, including those whose end the server has not confirmed.
    pub(crate) fn len(&self) -> usize {
        self.subscriptions.len()
    }

    /// The kind of event in a text frame, and its subscription, if it is an event for a subscription that is
    /// wanted. If the event has no listener, [`received`](Self::received) is not needed.
    pub(crate) fn route(&mut self, text: &str) -> Option<(&T, EventKind)> {
        let (kind, request_id) = self.reader.route(text)?;
        self.receiver(request_id).map(|(handle, _)| (handle, kind))
    }

    /// A text frame has come. Returns the event in it, if it is for a subscription that is wanted; then there are no
    /// new outputs.
    pub(crate) fn received<'a>(&'a mut self, text: &'a str, now: Now) -> Option<Received<'a, T>> {
        match self.reader.read(text) {
            Ok(Message::Event { request_id, frame }) => return self.event(request_id, frame),
            Ok(Message::Connected) => self.connected(now),
            Ok(Message::Subscribed { request_id: QUESTION }) => self.question_accepted(now),
            Ok(Message::Subscribed { request_id }) => self.subscribed(request_id, now),
            Ok(Message::Unsubscribed { request_id }) => self.unsubscribed(request_id, now),
            Ok(Message::Error(error)) => self.server_error(error, now),
            // A server newer than this client may send other messages.
            Ok(Message::Unknown(op)) => {
                crate::logging::trace!("ignored a message of the server: `{}`", excerpt(&op))
            }
            Err(error) => self.report(error),
        }
        self.try_suspects(now);
        None
    }

    /// A binary frame has come, which no Parse Server sends.
    pub(crate) fn received_binary(&mut self, length: usize) {
        let text =
            format!("the server sent a binary frame of {length} bytes, which LiveQuery has no meaning for");
        self.report(Error::new(ErrorKind::Protocol, text));
    }

    /// Decides what an error of the server means. Its `reconnect` flag alone decides nothing: Parse Server
    /// sets it for faults of a single message, which would fail again on a new connection.
    fn server_error(&mut self, error: ServerError, now: Now) {
        if !matches!(self.link, Link::Live(_)) {
            self.connect_refused(&error, now);
            return;
        }
        if error.request_id == Some(QUESTION) || self.is_answer_to_question(&error) {
            self.question_answered(&error, now);
            return;
        }
        if let Some(id) = error.request_id {
            self.subscription_error(id, &error, now);
            return;
        }
        match error.code {
            2 => match unknown_subscription(&error.text) {
                Some(id) => self.unknown_to_server(id, now),
                // The server does not know this client: no more can come over a connection that it has
                // forgotten.
                None => self.lost(server_error(ErrorKind::ConnectionLost, &error), now),
            },
            4 => self.refuse(server_error(ErrorKind::Refused, &error)),
            1 | 3 => self.blame(error, now),
            _ if error.reconnect => self.lost(server_error(ErrorKind::ConnectionLost, &error), now),
            _ => self.blame(error, now),
        }
    }

    /// Reports an error that belongs to no subscription in particular and ended nothing.
    fn report(&mut self, error: Error) {
        self.outputs
            .push_back(Output::ClientEvent(ClientEvent::failed(error)));
    }

    fn report_of(&mut self, handle: T, error: Error) {
        self.outputs
            .push_back(Output::Event(handle, Event::failed(error)));
    }
}

const KEPT_CAPACITY: usize = 32;
