//! The state machine of one client: what it is connected to, what is subscribed, what is due next.
//!
//! It is a value. Inputs are method calls that carry the time; outputs are taken with [`Session::next_output`] until
//! there are none; [`Session::deadline`] tells when [`Session::tick`] is due. There is one path for the first
//! connection and for all later ones, and one for the first subscription and for its restoration: what is wanted is
//! compared with what the server has, and the difference is sent.
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
use crate::text::excerpt;

/// What a session is told once.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) credentials: Credentials,
    /// For one attempt, from the look-up of the name to the answer to `connect`.
    pub(crate) connect_timeout: Duration,
    /// How long after a ping the next one is sent.
    pub(crate) idle_ping: Duration,
    /// How long nothing may come while a ping is unanswered, beyond `idle_ping`.
    pub(crate) pong_timeout: Duration,
    /// How long the server may take to answer a subscription.
    pub(crate) ack_timeout: Duration,
    /// How many servers take turns.
    pub(crate) servers: u32,
    /// The shortest and the longest delay between two attempts.
    pub(crate) reconnect_delay: (Duration, Duration),
    /// How many attempts in a row may fail; without a limit, any number.
    pub(crate) max_attempts: Option<u32>,
    /// Whether [`Output::RenewToken`] has somebody to ask.
    pub(crate) renewable_token: bool,
}

impl Settings {
    /// Those of a client that is told nothing else.
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

/// What has to be done. `T` is whatever the caller knows a subscription by.
#[derive(Debug)]
pub(crate) enum Output<T> {
    /// Make a connection, and say [`Session::transport_up`] or [`Session::lost`].
    Connect,
    /// Drop the connection at once.
    Disconnect,
    /// Send what is left, say farewell, and then drop the connection.
    Farewell,
    Send(String),
    /// Send a ping with this payload, and say [`Session::ponged`] when it comes back.
    Ping([u8; 8]),
    /// The server does not take the session token: ask for another, and say [`Session::token_renewed`].
    RenewToken,
    /// Tell the listeners of a subscription: `open`, `close` or `error`. The end of a subscription is told by
    /// `close` even if it was not open; its listeners are not called then.
    Event(T, Event),
    /// Tell the listeners of the client.
    ClientEvent(ClientEvent),
}

/// An event for a subscription that is wanted.
#[derive(Debug)]
pub(crate) struct Received<'a, T> {
    pub(crate) handle: T,
    /// The identity of the subscription that the server sends this for.
    pub(crate) identity: u64,
    /// What the server was asked for, if it may have taken that for something else.
    pub(crate) filter: Option<Arc<Spec>>,
    pub(crate) frame: EventFrame<'a>,
}

#[derive(Debug)]
pub(crate) struct Session<T> {
    settings: Settings,
    rng: StdRng,
    reader: Reader,
    link: Link,
    backoff: Backoff,
    /// The attempts that failed since one succeeded.
    failures: u32,
    installation_id: InstallationId,
    dialect: Dialect,
    tokens: Renewals,
    /// In the order in which they were made, which is that in which all is told and sent.
    subscriptions: BTreeMap<u64, Subscription<T>>,
    /// Those that the server refused, until there is another query for them or they are ended.
    failed: BTreeMap<u64, Failed<T>>,
    answers: Answers,
    /// What this server was asked about its age.
    inquiry: Inquiry,
    retries: Retries,
    outputs: VecDeque<Output<T>>,
    clock: Clock,
    /// How many pings were sent, on all connections: the number of the last one.
    pings: u64,
}

/// In this order so that what each event needs lies together.
#[derive(Debug)]
#[repr(C)]
struct Subscription<T> {
    handle: T,
    /// What the user wants; `None` once it is unsubscribed and only the server's answer is awaited.
    wanted: Option<Arc<Spec>>,
    /// The last query that the server accepted, which an update that it refuses falls back to.
    accepted: Option<Accepted>,
    /// The listeners were told `open` and not yet `close`.
    open: bool,
    server: OnServer,
    /// Why the next `open` reports a gap, if it does.
    gap: Option<GapReason>,
    /// Up to when nothing is missing that the server sent for this subscription, as far as is known without asking the
    /// link: when its operation was sent that the server acknowledged last. If there is a gap, this is where it starts.
    ///
    /// It is not when the acknowledgement came: what the server wrote in between, behind the acknowledgement, may still be
    /// on its way when the link is cut. When the operation was sent, the server had nothing yet that it could have written.
    proven: Instant,
    /// The server refused the spelling of this subscription once on this connection.
    respelled: bool,
}

/// A query that the server has accepted, and of that what each event needs: the query itself is in no cache then.
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
    /// Where the gap starts, and why, if it was ever open.
    gap: Option<(Instant, GapReason)>,
}

/// What the server has of a subscription on this connection. While an operation is under way nothing else is sent
/// for the same id: Parse Server 9.10 (ParseLiveQueryServer.js) handles `subscribe` asynchronously and `unsubscribe`
/// at once, so an unsubscribe that overtakes leaves a subscription that nobody can end.
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

    /// What has to be done next; to be asked until there is nothing.
    pub(crate) fn next_output(&mut self) -> Option<Output<T>> {
        if self.outputs.is_empty() {
            // That of a burst of subscriptions must not cost its memory for ever.
            self.outputs.shrink_to(KEPT_CAPACITY);
        }
        self.outputs.pop_front()
    }

    /// How many subscriptions there are, those whose end the server has not confirmed among them.
    pub(crate) fn len(&self) -> usize {
        self.subscriptions.len()
    }

    /// Which kind of event a text frame is, and for which subscription, if it is one for a subscription that is wanted.
    /// If nobody wants that, there is no need for [`received`](Self::received).
    pub(crate) fn route(&mut self, text: &str) -> Option<(&T, EventKind)> {
        let (kind, request_id) = self.reader.route(text)?;
        self.receiver(request_id).map(|(handle, _)| (handle, kind))
    }

    /// A text frame came. Returns the event that it carries, if it is one for a subscription that is wanted; the
    /// outputs come before it.
    pub(crate) fn received<'a>(&mut self, text: &'a str, now: Now) -> Option<Received<'a, T>> {
        match self.reader.read(text) {
            Ok(Message::Event { request_id, frame }) => return self.event(request_id, frame),
            Ok(Message::Connected) => self.connected(now),
            Ok(Message::Subscribed { request_id: QUESTION }) => self.question_accepted(now),
            Ok(Message::Subscribed { request_id }) => self.subscribed(request_id, now),
            Ok(Message::Unsubscribed { request_id }) => self.unsubscribed(request_id, now),
            Ok(Message::Error(error)) => self.server_error(error, now),
            // A server newer than this client may say what it likes.
            Ok(Message::Unknown(op)) => {
                crate::logging::trace!("ignored a message of the server: `{}`", excerpt(&op))
            }
            Err(error) => self.report(error),
        }
        self.try_suspects(now);
        None
    }

    /// A binary frame came, which no Parse Server sends.
    pub(crate) fn received_binary(&mut self, length: usize) {
        let text =
            format!("the server sent a binary frame of {length} bytes, which LiveQuery has no meaning for");
        self.report(Error::new(ErrorKind::Protocol, text));
    }

    /// The decision what an error of the server means. Its `reconnect` flag alone decides nothing: Parse Server
    /// sets it for faults of a single message, where a new connection would only meet the same fault again.
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
                // The server does not know this client: a connection it has forgotten carries nothing any more.
                None => self.lost(server_error(ErrorKind::ConnectionLost, &error), now),
            },
            4 => self.refuse(server_error(ErrorKind::Refused, &error)),
            1 | 3 => self.blame(error, now),
            _ if error.reconnect => self.lost(server_error(ErrorKind::ConnectionLost, &error), now),
            _ => self.blame(error, now),
        }
    }

    /// An error of no subscription in particular, that ended nothing.
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
