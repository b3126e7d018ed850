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
//! ```

#[cfg(test)]
mod properties;
mod subscriptions;
#[cfg(test)]
mod tests;
#[cfg(any(test, feature = "_fuzz"))]
#[allow(clippy::unwrap_used, clippy::panic, reason = "it is there to fail")]
pub(crate) mod world;

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::Now;
use super::backoff::Backoff;
use super::message::{
    self, Credentials, Dialect, EventFrame, InstallationId, Message, Reader, ServerError, Spec, excerpt,
};
use crate::error::{Error, ErrorKind};
use crate::event::{ClientEvent, Event, EventKind, GapReason};
use crate::secret::Secret;
use crate::state::ClientState;

/// What a session is told once.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) credentials: Credentials,
    /// For one attempt, from the look-up of the name to the answer to `connect`.
    pub(crate) connect_timeout: Duration,
    /// How long nothing may come before the session asks with a ping.
    pub(crate) idle_ping: Duration,
    /// How long anything may take to come after that.
    pub(crate) pong_timeout: Duration,
    /// How long the server may take to answer a subscription.
    pub(crate) ack_timeout: Duration,
    /// How many servers take turns.
    pub(crate) servers: u32,
    /// The shortest and the longest delay between two attempts.
    pub(crate) reconnect_delay: (Duration, Duration),
    /// How many attempts in a row may fail; without a limit, any number.
    pub(crate) max_attempts: Option<NonZeroU32>,
    /// Whether [`Output::RenewToken`] has somebody to ask.
    pub(crate) renewable_token: bool,
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
    Ping,
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

/// How far an attempt to connect has come, for the error that says where it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Token,
    Resolve,
    Connector,
    ConnectProxy,
    Proxy,
    Connect,
    Tls,
    Upgrade,
    Greeting,
}

impl Stage {
    fn doing(self) -> &'static str {
        match self {
            Self::Token => "waiting for the session token provider",
            Self::Resolve => "resolving the name of the server",
            Self::Connector => "waiting for the connection of `connect_with`",
            Self::ConnectProxy => "connecting to the proxy",
            Self::Proxy => "waiting for the proxy to connect to the server",
            Self::Connect => "connecting to the server",
            Self::Tls => "securing the connection with TLS",
            Self::Upgrade => "waiting for the server's answer to the WebSocket upgrade",
            Self::Greeting => "waiting for the server's answer to `connect`",
        }
    }
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
    /// Subscriptions that the server refused for their session token, while another is asked for.
    held: Vec<(u64, Arc<Spec>, Error)>,
    /// Another token may be asked for: not again before the server has accepted one.
    renewal: bool,
    /// In the order in which they were made, which is that in which all is told and sent.
    subscriptions: BTreeMap<u64, Subscription<T>>,
    /// Those that the server refused, until there is another query for them or they are ended.
    failed: BTreeMap<u64, Failed<T>>,
    /// The operations that the server has not answered, in the order in which they were sent.
    in_flight: BTreeMap<u64, u64>,
    next_operation: u64,
    /// The operations below are late, and were reported.
    late_below: u64,
    /// When the oldest operation was last answered: those behind it have waited in line until then.
    line_moved: Option<Instant>,
    /// Errors that name no subscription, and may belong to any operation in flight.
    unattributed: VecDeque<ServerError>,
    outputs: VecDeque<Output<T>>,
    last_tick: Option<Now>,
}

#[derive(Debug)]
enum Link {
    /// Not wanted: not opened yet, or closed.
    Idle {
        was_open: bool,
    },
    Waiting {
        until: Instant,
    },
    Connecting {
        stage: Stage,
        deadline: Instant,
        /// What a part of the attempt failed of, while the rest of it goes on.
        trouble: Option<Error>,
    },
    Live(Live),
    Refused(Error),
}

#[derive(Debug)]
struct Live {
    since: Instant,
    last_received: Now,
    /// When to give up on an answer to a ping; there is none under way otherwise.
    answer_due: Option<Instant>,
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
    /// Where the gap starts that the next `open` reports.
    gap: Option<(SystemTime, GapReason)>,
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
    /// Where the gap starts, if it was ever open.
    gap: Option<(SystemTime, GapReason)>,
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
        Self {
            settings,
            rng: StdRng::seed_from_u64(seed),
            reader: Reader::default(),
            link: Link::Idle { was_open: false },
            backoff,
            failures: 0,
            held: Vec::new(),
            renewal: true,
            installation_id: InstallationId::Sent,
            dialect: Dialect::Keys,
            subscriptions: BTreeMap::new(),
            failed: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            next_operation: 0,
            late_below: 0,
            line_moved: None,
            unattributed: VecDeque::new(),
            outputs: VecDeque::new(),
            last_tick: None,
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

    /// When [`tick`](Self::tick) is due, if nothing else happens.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match &self.link {
            Link::Idle { .. } | Link::Refused(_) => None,
            Link::Waiting { until } => Some(*until),
            Link::Connecting { deadline, .. } => Some(*deadline),
            Link::Live(live) => {
                let liveness = live
                    .answer_due
                    .unwrap_or(live.last_received.mono + self.settings.idle_ping);
                Some(
                    self.answer_deadline()
                        .map_or(liveness, |answer| answer.min(liveness)),
                )
            }
        }
    }

    /// How many subscriptions there are, those whose end the server has not confirmed among them.
    pub(crate) fn len(&self) -> usize {
        self.subscriptions.len()
    }

    pub(crate) fn state(&self) -> ClientState {
        match &self.link {
            Link::Idle { was_open: false } => ClientState::Initialized,
            Link::Idle { was_open: true } => ClientState::Closed,
            Link::Connecting { .. } if self.backoff.attempts() == 0 => ClientState::Connecting,
            Link::Connecting { .. } | Link::Waiting { .. } => ClientState::Reconnecting,
            Link::Live(_) => ClientState::Connected,
            Link::Refused(_) => ClientState::Disconnected,
        }
    }

    /// Connects, unless it does or has already.
    pub(crate) fn open(&mut self, now: Now) {
        if matches!(self.link, Link::Idle { .. } | Link::Refused(_)) {
            self.backoff.reset();
            self.failures = 0;
            self.connect(now);
        }
    }

    /// Tries now what would be tried later: the next attempt, or whether the link is still alive.
    pub(crate) fn reconnect_now(&mut self, now: Now) {
        match &mut self.link {
            Link::Live(live) => {
                live.answer_due = Some(now.mono + self.settings.pong_timeout.min(ANSWER_AT_ONCE));
                self.outputs.push_back(Output::Ping);
            }
            Link::Waiting { .. } => {
                self.backoff.reset();
                self.connect(now);
            }
            Link::Idle { .. } | Link::Connecting { .. } | Link::Refused(_) => {}
        }
    }

    /// Uses another session token from now on. A connection that was made with the old one is given up.
    pub(crate) fn set_session_token(&mut self, token: Option<Secret>, now: Now) {
        self.settings.credentials.session_token = token;
        match std::mem::replace(&mut self.link, Link::Idle { was_open: true }) {
            Link::Live(live) => {
                self.outputs.push_back(Output::Disconnect);
                self.forget_connection(&live, None, GapReason::SessionTokenChanged);
                self.outputs
                    .push_back(Output::ClientEvent(ClientEvent::closed(None)));
                self.connect(now);
            }
            Link::Connecting { .. } => {
                self.outputs.push_back(Output::Disconnect);
                self.connect(now);
            }
            other => self.link = other,
        }
    }

    /// The token to connect with, from the provider.
    pub(crate) fn provide_token(&mut self, token: Option<Secret>) {
        self.settings.credentials.session_token = token;
    }

    /// The answer to [`Output::RenewToken`].
    pub(crate) fn token_renewed(&mut self, token: Option<Secret>, now: Now) {
        if token != self.settings.credentials.session_token {
            self.held.clear();
            self.set_session_token(token, now);
            return;
        }
        for (id, spec, error) in std::mem::take(&mut self.held) {
            self.refused(id, &spec, error, now);
        }
    }

    /// Ends the subscriptions with an id below the one given, and the connection. The connection is made anew if
    /// there are other subscriptions, which were made after the order to close.
    pub(crate) fn close(&mut self, below: u64, now: Now) {
        let ids = self.subscriptions.keys().chain(self.failed.keys());
        let mut ended: Vec<_> = ids.copied().filter(|id| *id < below).collect();
        ended.sort_unstable();
        for id in ended {
            let subscription = self
                .subscriptions
                .remove(&id)
                .map(|subscription| subscription.handle);
            let failed = self.failed.remove(&id).map(|failed| failed.handle);
            for handle in subscription.into_iter().chain(failed) {
                self.outputs.push_back(Output::Event(handle, Event::closed(None)));
            }
        }
        match std::mem::replace(&mut self.link, Link::Idle { was_open: true }) {
            Link::Live(live) => {
                self.outputs.push_back(Output::Farewell);
                self.forget_connection(&live, None, GapReason::ConnectionLost);
                self.outputs
                    .push_back(Output::ClientEvent(ClientEvent::closed(None)));
            }
            Link::Connecting { .. } => self.outputs.push_back(Output::Disconnect),
            Link::Idle { .. } | Link::Waiting { .. } | Link::Refused(_) => {}
        }
        if !self.subscriptions.is_empty() {
            self.open(now);
        }
    }

    /// The attempt to connect has come to another stage.
    pub(crate) fn reached(&mut self, reached: Stage, in_trouble: Option<&Error>) {
        if let Link::Connecting { stage, trouble, .. } = &mut self.link {
            *stage = reached;
            *trouble = in_trouble.cloned();
        }
    }

    /// The WebSocket is there.
    pub(crate) fn transport_up(&mut self) {
        if let Link::Connecting { stage, trouble, .. } = &mut self.link {
            *stage = Stage::Greeting;
            *trouble = None;
            match message::connect(&self.settings.credentials, self.installation_id) {
                Ok(frame) => self.outputs.push_back(Output::Send(frame)),
                Err(error) => self.refuse(error),
            }
        }
    }

    /// The connection, or the attempt to make one, is of no more use; there will be another.
    pub(crate) fn lost(&mut self, error: Error, now: Now) {
        self.lost_for(error, None, now);
    }

    /// The same, with how long the server asks to be left alone, which comes before the usual delay.
    pub(crate) fn lost_for(&mut self, error: Error, at_least: Option<Duration>, now: Now) {
        match std::mem::replace(&mut self.link, Link::Idle { was_open: true }) {
            Link::Live(live) => {
                self.outputs.push_back(Output::Disconnect);
                self.forget_connection(&live, Some(&error), GapReason::ConnectionLost);
                if now.mono.saturating_duration_since(live.since) >= STABLE_AFTER {
                    self.backoff.reset();
                }
                self.outputs
                    .push_back(Output::ClientEvent(ClientEvent::closed(Some(error.clone()))));
            }
            Link::Connecting { .. } => {
                self.failures = self.failures.saturating_add(1);
                if self
                    .settings
                    .max_attempts
                    .is_some_and(|max| self.failures >= max.get())
                {
                    let text = format!("gave up after {} attempts to connect", self.failures);
                    self.refuse(Error::with_source(ErrorKind::GaveUp, text, error));
                    return;
                }
                self.outputs.push_back(Output::Disconnect);
            }
            other @ (Link::Idle { .. } | Link::Waiting { .. } | Link::Refused(_)) => {
                self.link = other;
                return;
            }
        }
        let delay = self.backoff.next(&mut self.rng) + at_least.unwrap_or_default();
        log::warn!(
            "{error}; trying again in {delay:.1?} (attempt {})",
            self.backoff.attempts()
        );
        self.link = Link::Waiting {
            until: now.mono + delay,
        };
        let event = ClientEvent::reconnecting(error, self.backoff.attempts(), delay);
        self.outputs.push_back(Output::ClientEvent(event));
    }

    /// Something came: any byte is a proof of life.
    pub(crate) fn alive(&mut self, now: Now) {
        if let Link::Live(live) = &mut self.link {
            live.last_received = now;
            live.answer_due = None;
        }
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
            Ok(Message::Subscribed { request_id }) => self.subscribed(request_id, now),
            Ok(Message::Unsubscribed { request_id }) => self.unsubscribed(request_id, now),
            Ok(Message::Error(error)) => self.server_error(error, now),
            // A server newer than this client may say what it likes.
            Ok(Message::Unknown(op)) => log::debug!("ignored a message of the server: `{}`", excerpt(&op)),
            Err(error) => self.report(error),
        }
        None
    }

    /// A binary frame came, which no Parse Server sends.
    pub(crate) fn received_binary(&mut self, length: usize) {
        let text =
            format!("the server sent a binary frame of {length} bytes, which LiveQuery has no meaning for");
        self.report(Error::new(ErrorKind::Protocol, text));
    }

    /// Does what is due. To be called at the [`deadline`](Self::deadline), and as often besides as is convenient.
    pub(crate) fn tick(&mut self, now: Now) {
        if self.slept_until(now) {
            log::debug!("the clocks jumped apart: the machine has slept");
            // The socket may well be dead, and the network is probably back.
            self.reconnect_now(now);
        }
        match &mut self.link {
            Link::Idle { .. } | Link::Refused(_) => {}
            Link::Waiting { until } => {
                if *until <= now.mono {
                    self.connect(now);
                }
            }
            Link::Connecting {
                stage,
                deadline,
                trouble,
            } => {
                if *deadline <= now.mono {
                    let limit = self.settings.connect_timeout;
                    let text = format!("gave up after {limit:?} while {}", stage.doing());
                    let error = match trouble.take() {
                        Some(trouble) => Error::with_source(ErrorKind::Timeout, text, trouble),
                        None => timeout(text),
                    };
                    self.lost(error, now);
                }
            }
            Link::Live(live) => match live.answer_due {
                Some(due) if due <= now.mono => {
                    let silence = now.mono.saturating_duration_since(live.last_received.mono);
                    let text = format!(
                        "nothing came from the server for {silence:.1?}, not even an answer to a ping"
                    );
                    self.lost(timeout(text), now);
                }
                None if live.last_received.mono + self.settings.idle_ping <= now.mono => {
                    live.answer_due = Some(now.mono + self.settings.pong_timeout);
                    self.outputs.push_back(Output::Ping);
                }
                _ => self.report_late_answers(now),
            },
        }
    }

    fn connect(&mut self, now: Now) {
        let deadline = now.mono + self.settings.connect_timeout;
        self.link = Link::Connecting {
            stage: Stage::Token,
            deadline,
            trouble: None,
        };
        self.outputs.push_back(Output::Connect);
    }

    fn connected(&mut self, now: Now) {
        if !matches!(
            self.link,
            Link::Connecting {
                stage: Stage::Greeting,
                ..
            }
        ) {
            // An afterLiveQueryEvent hook may set the event's name to `connect` (Parse Server 9.10), which then
            // comes with a requestId and an object, and greets nobody.
            log::debug!("ignored a `connected` on a connection that is open");
            return;
        }
        self.link = Link::Live(Live {
            since: now.mono,
            last_received: now,
            answer_due: None,
        });
        self.failures = 0;
        self.outputs.push_back(Output::ClientEvent(ClientEvent::opened()));
        let ids: Vec<_> = self.subscriptions.keys().copied().collect();
        for id in ids {
            self.reconcile(id, now);
        }
    }

    /// The decision what an error of the server means. Its `reconnect` flag alone decides nothing: Parse Server
    /// sets it for faults of a single message, where a new connection would only meet the same fault again.
    fn server_error(&mut self, error: ServerError, now: Now) {
        if !matches!(self.link, Link::Live(_)) {
            self.connect_refused(&error, now);
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

    /// An error before `connected`.
    fn connect_refused(&mut self, error: &ServerError, now: Now) {
        let sent = self.installation_id == InstallationId::Sent
            && self.settings.credentials.installation_id.is_some();
        match error.code {
            // Parse Server before 3.10 knows no installation id.
            1 if sent && is_unknown_member(error) => {
                log::debug!("the server refuses the installation id; connecting without");
                self.installation_id = InstallationId::LeftOut;
                self.outputs.push_back(Output::Disconnect);
                self.connect(now);
            }
            1 | 3 | 4 => self.refuse(server_error(ErrorKind::Refused, error)),
            _ if !error.reconnect => self.refuse(server_error(ErrorKind::Refused, error)),
            _ => self.lost(server_error(ErrorKind::Server, error), now),
        }
    }

    /// The server does not want this client, and would not want it a second later.
    fn refuse(&mut self, error: Error) {
        self.outputs.push_back(Output::Disconnect);
        let was = std::mem::replace(&mut self.link, Link::Refused(error.clone()));
        if let Link::Live(live) = &was {
            self.forget_connection(live, Some(&error), GapReason::ConnectionLost);
            self.outputs
                .push_back(Output::ClientEvent(ClientEvent::closed(Some(error.clone()))));
        }
        log::error!("{error}; not trying again");
        // The client has ended by it; the subscriptions have not, and come back with `open`.
        self.report(error.clone().fatal());
        for subscription in self.subscriptions.values().filter(|s| s.wanted.is_some()) {
            let handle = subscription.handle.clone();
            self.outputs
                .push_back(Output::Event(handle, Event::failed(error.clone())));
        }
    }

    /// What was on this connection is gone with it.
    fn forget_connection(&mut self, live: &Live, error: Option<&Error>, reason: GapReason) {
        self.held.clear();
        self.in_flight.clear();
        self.unattributed.clear();
        self.subscriptions
            .retain(|_, subscription| subscription.wanted.is_some());
        for subscription in self.subscriptions.values_mut() {
            subscription.server = OnServer::Absent;
            subscription.respelled = false;
            if subscription.accepted.is_some() {
                let from = live.last_received.wall;
                subscription.gap.get_or_insert((from, reason));
            }
            if std::mem::take(&mut subscription.open) {
                let handle = subscription.handle.clone();
                self.outputs
                    .push_back(Output::Event(handle, Event::closed(error.cloned())));
            }
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

    /// Whether the machine slept: then the time of day has gone further than the monotonic clock.
    fn slept_until(&mut self, now: Now) -> bool {
        let Some(last) = self.last_tick.replace(now) else {
            return false;
        };
        let wall = now.wall.duration_since(last.wall).unwrap_or_default();
        let mono = now.mono.saturating_duration_since(last.mono);
        wall.saturating_sub(mono) >= CLOCK_JUMP
    }
}

fn timeout(text: String) -> Error {
    Error::new(ErrorKind::Timeout, text)
}

fn server_error(kind: ErrorKind, error: &ServerError) -> Error {
    let text = excerpt(&error.text);
    let hint = if error.text.contains("json.keys.split is not a function") {
        "; this is a fault of Parse Server 9: a `beforeSubscribe` hook fails where a query has `select` or `watch`, so \
         leave them out or remove the hook"
    } else if error.code == 4 {
        "; check the keys that the client was built with against the server's `keyPairs`"
    } else {
        ""
    };
    Error::server(kind, error.code, format!("the server says: {text}{hint}"))
}

/// tv4's words for a member that the server's schema does not have.
fn is_unknown_member(error: &ServerError) -> bool {
    error.text.contains("Additional properties not allowed")
}

/// The id in «Cannot find subscription with clientId … subscriptionId 7. Make sure you subscribe …».
fn unknown_subscription(text: &str) -> Option<u64> {
    let (_, after) = text.split_once(" subscriptionId ")?;
    let digits = after
        .find(|c: char| !c.is_ascii_digit())
        .map_or(after, |end| &after[..end]);
    digits.parse().ok()
}

/// A link that lived this long was stable, and its loss starts a new series of attempts.
const STABLE_AFTER: Duration = Duration::from_secs(10);
/// How far the clocks may run apart before the machine is taken to have slept.
const CLOCK_JUMP: Duration = Duration::from_secs(5);
/// How long the link may take to prove that it is alive when there is a reason to doubt it.
const ANSWER_AT_ONCE: Duration = Duration::from_secs(3);
const KEPT_CAPACITY: usize = 32;
