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

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::Now;
use super::backoff::Backoff;
use super::message::{
    self, Credentials, Dialect, EventFrame, InstallationId, Message, Operation, ServerError, Spec, excerpt,
};
use crate::event::{ClientEvent, Event, Gap, GapReason};
use crate::{ClientState, Error, ErrorKind};

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
    /// The shortest and the longest delay between two attempts.
    pub(crate) reconnect_delay: (Duration, Duration),
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
    /// Tell the listeners of a subscription: `open`, `close` or `error`. The end of a subscription is told by
    /// `close` even if it was not open; its listeners are not called then.
    Event(T, Event),
    /// Tell the listeners of the client.
    ClientEvent(ClientEvent),
}

/// How far an attempt to connect has come, for the error that says where it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Resolve,
    Connect,
    Upgrade,
    Greeting,
}

impl Stage {
    fn doing(self) -> &'static str {
        match self {
            Self::Resolve => "resolving the name of the server",
            Self::Connect => "connecting to the server",
            Self::Upgrade => "waiting for the server's answer to the WebSocket upgrade",
            Self::Greeting => "waiting for the server's answer to `connect`",
        }
    }
}

#[derive(Debug)]
pub(crate) struct Session<T> {
    settings: Settings,
    rng: StdRng,
    link: Link,
    backoff: Backoff,
    installation_id: InstallationId,
    dialect: Dialect,
    subscriptions: HashMap<u64, Subscription<T>>,
    /// The operations that the server has not answered, in the order in which they were sent.
    in_flight: BTreeMap<u64, u64>,
    next_operation: u64,
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

#[derive(Debug)]
struct Subscription<T> {
    handle: T,
    /// What the user wants; `None` once it is unsubscribed and only the server's answer is awaited.
    wanted: Option<Arc<Spec>>,
    /// The last query that the server accepted, which an update that it refuses falls back to.
    accepted: Option<Arc<Spec>>,
    server: OnServer,
    /// The listeners were told `open` and not yet `close`.
    open: bool,
    /// Where the gap starts that the next `open` reports.
    gap: Option<(SystemTime, GapReason)>,
    /// The server refused the spelling of this subscription once on this connection.
    respelled: bool,
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
        Self {
            settings,
            rng: StdRng::seed_from_u64(seed),
            link: Link::Idle { was_open: false },
            backoff: Backoff::new(floor, cap),
            installation_id: InstallationId::Sent,
            dialect: Dialect::Keys,
            subscriptions: HashMap::new(),
            in_flight: BTreeMap::new(),
            next_operation: 0,
            line_moved: None,
            unattributed: VecDeque::new(),
            outputs: VecDeque::new(),
            last_tick: None,
        }
    }

    /// What has to be done next; to be asked until there is nothing.
    pub(crate) fn next_output(&mut self) -> Option<Output<T>> {
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
            self.connect(now);
        }
    }

    /// Ends the subscriptions with an id below the one given, and the connection. The connection is made anew if
    /// there are other subscriptions, which were made after the order to close.
    pub(crate) fn close(&mut self, below: u64, now: Now) {
        let mut ended: Vec<_> = self
            .subscriptions
            .keys()
            .copied()
            .filter(|id| *id < below)
            .collect();
        ended.sort_unstable();
        for subscription in ended
            .iter()
            .filter_map(|id| self.subscriptions.remove(id))
            .collect::<Vec<_>>()
        {
            self.outputs
                .push_back(Output::Event(subscription.handle, Event::closed(None)));
        }
        match std::mem::replace(&mut self.link, Link::Idle { was_open: true }) {
            Link::Live(live) => {
                self.outputs.push_back(Output::Farewell);
                self.forget_connection(&live, None);
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

    /// Wants a subscription; ids are never used twice.
    pub(crate) fn subscribe(&mut self, id: u64, handle: T, spec: Arc<Spec>, now: Now) {
        self.subscriptions.insert(
            id,
            Subscription {
                handle: handle.clone(),
                wanted: Some(spec),
                accepted: None,
                server: OnServer::Absent,
                open: false,
                gap: None,
                respelled: false,
            },
        );
        match &self.link {
            // Refused for good: only an explicit `open` asks again, or each new subscription would.
            Link::Refused(error) => {
                let (handle, error) = (handle, error.clone());
                self.outputs
                    .push_back(Output::Event(handle, Event::failed(error)));
            }
            _ => self.open(now),
        }
        self.reconcile(id, now);
    }

    /// Wants another query for a subscription. One that had failed is tried again with it.
    pub(crate) fn update(&mut self, id: u64, handle: T, spec: Arc<Spec>, now: Now) {
        match self.subscriptions.get_mut(&id) {
            Some(subscription) => {
                subscription.wanted = Some(spec);
                subscription.respelled = false;
                self.reconcile(id, now);
            }
            None => self.subscribe(id, handle, spec, now),
        }
    }

    pub(crate) fn unsubscribe(&mut self, id: u64, now: Now) {
        if let Some(subscription) = self.subscriptions.get_mut(&id) {
            subscription.wanted = None;
            subscription.open = false;
            let handle = subscription.handle.clone();
            self.outputs.push_back(Output::Event(handle, Event::closed(None)));
            self.reconcile(id, now);
        }
    }

    /// The attempt to connect has come to another stage.
    pub(crate) fn reached(&mut self, reached: Stage) {
        if let Link::Connecting { stage, .. } = &mut self.link {
            *stage = reached;
        }
    }

    /// The WebSocket is there.
    pub(crate) fn transport_up(&mut self) {
        if let Link::Connecting { stage, .. } = &mut self.link {
            *stage = Stage::Greeting;
            match message::connect(&self.settings.credentials, self.installation_id) {
                Ok(frame) => self.outputs.push_back(Output::Send(frame)),
                Err(error) => self.refuse(error),
            }
        }
    }

    /// The connection, or the attempt to make one, is of no more use; there will be another.
    pub(crate) fn lost(&mut self, error: Error, now: Now) {
        match std::mem::replace(&mut self.link, Link::Idle { was_open: true }) {
            Link::Live(live) => {
                self.outputs.push_back(Output::Disconnect);
                self.forget_connection(&live, Some(&error));
                if now.mono.saturating_duration_since(live.since) >= STABLE_AFTER {
                    self.backoff.reset();
                }
                self.outputs
                    .push_back(Output::ClientEvent(ClientEvent::closed(Some(error.clone()))));
            }
            Link::Connecting { .. } => self.outputs.push_back(Output::Disconnect),
            other @ (Link::Idle { .. } | Link::Waiting { .. } | Link::Refused(_)) => {
                self.link = other;
                return;
            }
        }
        let delay = self.backoff.next(&mut self.rng);
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

    /// A text frame came. Returns the event that it carries, if it is one for a subscription that is wanted; the
    /// outputs come before it.
    pub(crate) fn received<'a>(&mut self, text: &'a str, now: Now) -> Option<(T, EventFrame<'a>)> {
        match message::parse(text) {
            Ok(Message::Event { request_id, frame }) => return self.event(request_id, frame, now),
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
            self.woken(now);
        }
        match &mut self.link {
            Link::Idle { .. } | Link::Refused(_) => {}
            Link::Waiting { until } => {
                if *until <= now.mono {
                    self.connect(now);
                }
            }
            Link::Connecting { stage, deadline } => {
                if *deadline <= now.mono {
                    let (stage, limit) = (*stage, self.settings.connect_timeout);
                    self.lost(
                        timeout(format!("gave up after {limit:?} while {}", stage.doing())),
                        now,
                    );
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
                _ => self.give_up_on_answers(now),
            },
        }
    }

    fn connect(&mut self, now: Now) {
        let deadline = now.mono + self.settings.connect_timeout;
        self.link = Link::Connecting {
            stage: Stage::Resolve,
            deadline,
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
        self.outputs.push_back(Output::ClientEvent(ClientEvent::opened()));
        let mut ids: Vec<_> = self.subscriptions.keys().copied().collect();
        ids.sort_unstable();
        for id in ids {
            self.reconcile(id, now);
        }
    }

    /// Sends what is missing for the server to have what is wanted of a subscription.
    fn reconcile(&mut self, id: u64, now: Now) {
        let live = matches!(self.link, Link::Live(_));
        let Some(subscription) = self.subscriptions.get_mut(&id) else {
            return;
        };
        let (operation, spec) = match (&subscription.server, &subscription.wanted) {
            (OnServer::Absent, None) => {
                self.subscriptions.remove(&id);
                return;
            }
            _ if !live => return,
            (OnServer::Absent, Some(wanted)) => (Operation::Subscribe, Arc::clone(wanted)),
            (OnServer::Active(active), Some(wanted)) if !Arc::ptr_eq(active, wanted) => {
                // Parse Server drops the old query before it looks at the new one.
                subscription
                    .gap
                    .get_or_insert((now.wall, GapReason::QueryUpdated));
                (Operation::Update, Arc::clone(wanted))
            }
            (OnServer::Active(_), None) => {
                subscription.server = OnServer::Leaving {
                    operation: self.next_operation,
                };
                self.send(id, message::unsubscribe(id), now);
                return;
            }
            (OnServer::Active(_) | OnServer::Asked { .. } | OnServer::Leaving { .. }, _) => return,
        };
        match message::subscribe(operation, id, &spec, &self.settings.credentials, self.dialect) {
            Ok(frame) => {
                subscription.server = OnServer::Asked {
                    spec,
                    operation: self.next_operation,
                };
                self.send(id, frame, now);
            }
            Err(error) => self.refused(id, &spec, error, now),
        }
    }

    fn send(&mut self, id: u64, frame: String, now: Now) {
        if self.in_flight.is_empty() {
            self.line_moved = Some(now.mono);
        }
        self.in_flight.insert(self.next_operation, id);
        self.next_operation += 1;
        self.outputs.push_back(Output::Send(frame));
    }

    /// The server answered an operation.
    fn answered(&mut self, operation: u64, now: Now) {
        if self
            .in_flight
            .first_key_value()
            .is_some_and(|(first, _)| *first == operation)
        {
            self.line_moved = Some(now.mono);
        }
        self.in_flight.remove(&operation);
    }

    fn subscribed(&mut self, id: u64, now: Now) {
        let Some(subscription) = self.subscriptions.get_mut(&id) else {
            log::debug!("ignored `subscribed` for {id}, which is not subscribed");
            return;
        };
        let OnServer::Asked { spec, operation } = &subscription.server else {
            log::debug!("ignored a second `subscribed` for {id}");
            return;
        };
        let (spec, operation) = (Arc::clone(spec), *operation);
        subscription.accepted = Some(Arc::clone(&spec));
        subscription.server = OnServer::Active(spec);
        let gap = subscription
            .gap
            .take()
            .map(|(from, reason)| Gap::new(from, now.wall, reason));
        if subscription.wanted.is_some() {
            let handle = subscription.handle.clone();
            if std::mem::replace(&mut subscription.open, true) {
                self.outputs
                    .push_back(Output::Event(handle.clone(), Event::closed(None)));
            }
            self.outputs.push_back(Output::Event(handle, Event::opened(gap)));
        }
        self.answered(operation, now);
        self.attribute(now);
        self.reconcile(id, now);
    }

    fn unsubscribed(&mut self, id: u64, now: Now) {
        let Some(subscription) = self.subscriptions.get_mut(&id) else {
            log::debug!("ignored `unsubscribed` for {id}, which is not subscribed");
            return;
        };
        if let OnServer::Leaving { operation } = subscription.server {
            subscription.server = OnServer::Absent;
            self.answered(operation, now);
            self.attribute(now);
        } else {
            log::warn!("the server ended subscription {id} without being asked; subscribing again");
            subscription.server = OnServer::Absent;
        }
        self.reconcile(id, now);
    }

    fn event<'a>(&mut self, id: u64, frame: EventFrame<'a>, now: Now) -> Option<(T, EventFrame<'a>)> {
        // An event proves that the server has the subscription, whatever became of its `subscribed`.
        if self
            .subscriptions
            .get(&id)
            .is_some_and(|s| !s.open && matches!(s.server, OnServer::Asked { .. }))
        {
            self.subscribed(id, now);
        }
        match self.subscriptions.get(&id) {
            Some(subscription) if subscription.wanted.is_some() => Some((subscription.handle.clone(), frame)),
            _ => {
                log::debug!("ignored an event for {id}, which is not subscribed");
                None
            }
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

    fn subscription_error(&mut self, id: u64, error: &ServerError, now: Now) {
        let Some(subscription) = self.subscriptions.get(&id) else {
            log::debug!(
                "ignored an error for {id}, which is not subscribed: {}",
                excerpt(&error.text)
            );
            return;
        };
        match &subscription.server {
            OnServer::Asked { .. } | OnServer::Leaving { .. } => {
                self.operation_failed(id, error, now);
                self.attribute(now);
            }
            // An afterLiveQueryEvent hook threw: the event is lost, and the subscription goes on.
            OnServer::Active(_) | OnServer::Absent => {
                if subscription.wanted.is_some() {
                    let handle = subscription.handle.clone();
                    self.report_of(handle, server_error(ErrorKind::Server, error));
                }
            }
        }
    }

    /// «Cannot find subscription …», to an unsubscribe or an update.
    fn unknown_to_server(&mut self, id: u64, now: Now) {
        let Some(subscription) = self.subscriptions.get_mut(&id) else {
            return;
        };
        // After an update comes a `subscribed` as well: Parse Server 9.10 subscribes to what it did not find.
        if let OnServer::Leaving { operation } = subscription.server {
            subscription.server = OnServer::Absent;
            self.answered(operation, now);
            self.attribute(now);
            self.reconcile(id, now);
        }
    }

    /// An error that names no subscription. Each operation gets one answer, so as soon as there are as many such
    /// errors as operations without an answer they belong together, in the order of sending: Parse Server checks a
    /// message against its schema before anything else.
    fn blame(&mut self, error: ServerError, now: Now) {
        if self.in_flight.is_empty() {
            self.report(server_error(ErrorKind::Server, &error));
        } else {
            self.unattributed.push_back(error);
            self.attribute(now);
        }
    }

    fn attribute(&mut self, now: Now) {
        while !self.unattributed.is_empty() && self.unattributed.len() >= self.in_flight.len() {
            let Some(error) = self.unattributed.pop_front() else {
                return;
            };
            match self.in_flight.first_key_value().map(|(_, id)| *id) {
                Some(id) => self.operation_failed(id, &error, now),
                None => self.report(server_error(ErrorKind::Server, &error)),
            }
        }
    }

    /// The operation of a subscription that is under way was refused.
    fn operation_failed(&mut self, id: u64, error: &ServerError, now: Now) {
        let Some(subscription) = self.subscriptions.get_mut(&id) else {
            return;
        };
        match std::mem::replace(&mut subscription.server, OnServer::Absent) {
            OnServer::Asked { spec, operation } => {
                let selects = spec.query.keys.is_some() || spec.query.watch.is_some();
                let respell =
                    error.code == 1 && is_unknown_member(error) && selects && !subscription.respelled;
                if respell {
                    subscription.respelled = true;
                    self.dialect = match self.dialect {
                        Dialect::Keys => Dialect::Fields,
                        Dialect::Fields => Dialect::Keys,
                    };
                    if spec.query.watch.is_some() && self.dialect == Dialect::Fields {
                        log::warn!("the server is older than Parse Server 6 and ignores `watch`");
                    }
                }
                self.answered(operation, now);
                if respell {
                    self.reconcile(id, now);
                } else {
                    self.refused(id, &spec, server_error(ErrorKind::Server, error), now);
                }
            }
            OnServer::Leaving { operation } => {
                self.answered(operation, now);
                self.reconcile(id, now);
            }
            untouched @ (OnServer::Active(_) | OnServer::Absent) => subscription.server = untouched,
        }
    }

    /// The server does not want this query. An earlier one that it accepted comes back in its place, since a
    /// refused update has ended that one on the server (Parse Server 9.10, `_handleUpdateSubscription`).
    fn refused(&mut self, id: u64, spec: &Arc<Spec>, error: Error, now: Now) {
        let Some(subscription) = self.subscriptions.get_mut(&id) else {
            return;
        };
        subscription.server = OnServer::Absent;
        let Some(wanted) = &subscription.wanted else {
            self.reconcile(id, now);
            return;
        };
        if !Arc::ptr_eq(wanted, spec) {
            // The user has changed the query again meanwhile; this refusal is of no further consequence.
            let handle = subscription.handle.clone();
            self.report_of(handle, error);
            self.reconcile(id, now);
            return;
        }
        match &subscription.accepted {
            Some(accepted) if !Arc::ptr_eq(accepted, spec) => {
                subscription.wanted = Some(Arc::clone(accepted));
                let handle = subscription.handle.clone();
                self.report_of(handle, error);
                self.reconcile(id, now);
            }
            _ => {
                if let Some(subscription) = self.subscriptions.remove(&id) {
                    self.report_of(subscription.handle.clone(), error.fatal());
                    self.outputs
                        .push_back(Output::Event(subscription.handle, Event::closed(None)));
                }
            }
        }
    }

    fn give_up_on_answers(&mut self, now: Now) {
        while self.answer_deadline().is_some_and(|due| due <= now.mono) {
            let Some((_, id)) = self.in_flight.pop_first() else {
                return;
            };
            self.line_moved = Some(now.mono);
            if let Some(error) = self.unattributed.pop_front() {
                self.operation_failed(id, &error, now);
                continue;
            }
            // The answer may still come, so the operation stays under way; on another connection it is sent again.
            let limit = self.settings.ack_timeout;
            if let Some(subscription) = self.subscriptions.get(&id).filter(|s| s.wanted.is_some()) {
                let text = format!(
                    "the server has not answered the subscription for {limit:?}; it is still waited for, and asked \
                     again when the link is made anew"
                );
                let handle = subscription.handle.clone();
                self.report_of(handle, timeout(text));
            }
        }
    }

    /// When the oldest operation without an answer has waited too long. The time counts from when those before it
    /// were answered: ten thousand subscriptions sent at once are answered one after another.
    fn answer_deadline(&self) -> Option<Instant> {
        self.in_flight.first_key_value()?;
        Some(self.line_moved? + self.settings.ack_timeout)
    }

    /// The server does not want this client, and would not want it a second later.
    fn refuse(&mut self, error: Error) {
        self.outputs.push_back(Output::Disconnect);
        let was = std::mem::replace(&mut self.link, Link::Refused(error.clone()));
        if let Link::Live(live) = &was {
            self.forget_connection(live, Some(&error));
            self.outputs
                .push_back(Output::ClientEvent(ClientEvent::closed(Some(error.clone()))));
        }
        log::error!("{error}; not trying again");
        // The client has ended by it; the subscriptions have not, and come back with `open`.
        self.report(error.clone().fatal());
        for handle in self
            .in_order()
            .map(|subscription| subscription.handle.clone())
            .collect::<Vec<_>>()
        {
            self.outputs
                .push_back(Output::Event(handle, Event::failed(error.clone())));
        }
    }

    /// What was on this connection is gone with it.
    fn forget_connection(&mut self, live: &Live, error: Option<&Error>) {
        self.in_flight.clear();
        self.unattributed.clear();
        self.subscriptions
            .retain(|_, subscription| subscription.wanted.is_some());
        let mut closed = Vec::new();
        for (id, subscription) in &mut self.subscriptions {
            subscription.server = OnServer::Absent;
            subscription.respelled = false;
            if subscription.accepted.is_some() {
                let from = live.last_received.wall;
                subscription.gap.get_or_insert((from, GapReason::ConnectionLost));
            }
            if std::mem::take(&mut subscription.open) {
                closed.push((*id, subscription.handle.clone()));
            }
        }
        closed.sort_unstable_by_key(|(id, _)| *id);
        for (_, handle) in closed {
            self.outputs
                .push_back(Output::Event(handle, Event::closed(error.cloned())));
        }
    }

    fn in_order(&self) -> impl Iterator<Item = &Subscription<T>> {
        let mut all: Vec<_> = self
            .subscriptions
            .iter()
            .filter(|(_, s)| s.wanted.is_some())
            .collect();
        all.sort_unstable_by_key(|(id, _)| **id);
        all.into_iter().map(|(_, subscription)| subscription)
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

    /// After a sleep the socket may well be dead, and the network is probably back.
    fn woken(&mut self, now: Now) {
        log::debug!("the clocks jumped apart: the machine has slept");
        match &mut self.link {
            Link::Live(live) => {
                live.answer_due = Some(now.mono + self.settings.pong_timeout.min(ANSWER_AFTER_WAKE));
                self.outputs.push_back(Output::Ping);
            }
            Link::Waiting { until } => {
                *until = now.mono;
                self.backoff.reset();
            }
            Link::Idle { .. } | Link::Connecting { .. } | Link::Refused(_) => {}
        }
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
/// How long the link may take to prove that it survived the sleep.
const ANSWER_AFTER_WAKE: Duration = Duration::from_secs(3);
