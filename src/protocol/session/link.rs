//! The connection of a session: made, doubted, lost, refused, closed.

use std::time::{Duration, Instant};

use super::errors::{is_unknown_member, server_error};
use super::{OnServer, Output, Session, Settings};
use crate::error::{Error, ErrorKind};
use crate::event::{ClientEvent, Event, GapReason};
use crate::protocol::Now;
use crate::protocol::incoming::ServerError;
use crate::protocol::outgoing::{self, InstallationId};
use crate::secret::Secret;
use crate::state::ClientState;

/// How far an attempt to connect has come, for the error that says where it failed.
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
    pub(super) fn doing(self) -> &'static str {
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

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Due {
    /// The next attempt to connect.
    Attempt,
    /// The time limit of the present attempt.
    AttemptOver,
    /// The end of the connection: nothing came, not even an answer to a ping.
    Silence,
    Ping,
    /// An answer is late.
    LateAnswer,
    /// The end of the time that a subscription is held back for.
    Retry,
    /// Asking for another session token.
    Token,
    /// A look at the clocks, which every [`tick`](Session::tick) begins with.
    Look,
}

#[derive(Debug)]
pub(super) enum Link {
    /// Not wanted: not opened yet, or closed.
    Idle {
        was_open: bool,
    },
    /// Not wanted until [`resume`](Session::resume).
    Paused {
        /// Whether to connect then.
        wanted: bool,
    },
    Waiting {
        until: Instant,
    },
    Connecting {
        since: Instant,
        stage: Stage,
        deadline: Instant,
        /// Why a part of the attempt failed, while the rest of it continues.
        trouble: Option<Error>,
    },
    Live(Live),
    Refused(Error),
}

/// A connection that the server has accepted. Whether it is alive and what has come through it are two
/// questions: any byte shows that it is alive, but only the answer to a ping shows that everything that the
/// server wrote before it has come.
#[derive(Debug)]
pub(super) struct Live {
    since: Instant,
    pub(super) last_received: Instant,
    /// The unanswered ping. There is only one at a time, so a peer that reads nothing gets no more of them.
    ping: Option<Ping>,
    /// When the next ping is sent, unless one is unanswered then.
    next_ping: Instant,
    /// When to give up if nothing comes until then: there is a reason to doubt the connection.
    doubt: Option<Instant>,
    /// The moment up to which everything that the server wrote has come: when the last answered ping was
    /// sent. The server wrote the answer after everything that it had written by then.
    pub(super) proven: Instant,
}

#[derive(Debug)]
struct Ping {
    number: u64,
    sent: Instant,
    moment: Instant,
}

impl Live {
    /// What is due next to keep the connection alive: a ping, or its end.
    pub(super) fn due(&self, settings: &Settings) -> (Instant, Due) {
        let Some(ping) = &self.ping else {
            let ping = (self.next_ping, Due::Ping);
            return self.doubt.map_or(ping, |doubt| ping.min((doubt, Due::Silence)));
        };
        // Data is as good a sign of life as the answer: a ping may be waiting behind much data.
        let silent_since = ping.sent.max(self.last_received + settings.idle_ping);
        let end = silent_since + settings.pong_timeout;
        (self.doubt.map_or(end, |doubt| doubt.min(end)), Due::Silence)
    }
}

impl<T: Clone> Session<T> {
    pub(crate) fn state(&self) -> ClientState {
        match &self.link {
            Link::Idle { was_open: false } => ClientState::Initialized,
            Link::Idle { was_open: true } => ClientState::Closed,
            Link::Paused { .. } => ClientState::Paused,
            Link::Connecting { .. } if self.backoff.attempts() == 0 => ClientState::Connecting,
            Link::Connecting { .. } | Link::Waiting { .. } => ClientState::Reconnecting,
            Link::Live(_) => ClientState::Connected,
            Link::Refused(_) => ClientState::Disconnected,
        }
    }

    /// Connects, unless a connection exists or is being made; if the session is paused, on
    /// [`resume`](Self::resume).
    pub(crate) fn open(&mut self, now: Now) {
        match &mut self.link {
            Link::Idle { .. } | Link::Refused(_) => {
                self.backoff.reset();
                self.failures = 0;
                self.connect_again(now);
            }
            Link::Paused { wanted } => *wanted = true,
            Link::Waiting { .. } | Link::Connecting { .. } | Link::Live(_) => {}
        }
    }

    /// Gives up the connection until [`resume`](Self::resume), and keeps the subscriptions. A closed or
    /// refused session stays as it is.
    pub(crate) fn pause(&mut self) {
        let wanted = match self.link {
            Link::Idle { was_open: false } => false,
            Link::Waiting { .. } | Link::Connecting { .. } | Link::Live(_) => true,
            Link::Idle { was_open: true } | Link::Paused { .. } | Link::Refused(_) => return,
        };
        self.hang_up(Link::Paused { wanted }, GapReason::Paused);
    }

    /// Ends a pause, and connects if a connection is wanted.
    pub(crate) fn resume(&mut self, now: Now) {
        if let Link::Paused { wanted } = self.link {
            self.link = Link::Idle { was_open: false };
            self.clock.look(now);
            // The connection is new, so an earlier sleep of the machine is no reason to doubt it.
            self.clock.take_jump();
            self.retries.release_all();
            if wanted {
                self.open(now);
            }
        }
    }

    /// Ends the connection, or the attempt to make one, at the program's request.
    fn hang_up(&mut self, next: Link, reason: GapReason) {
        match std::mem::replace(&mut self.link, next) {
            Link::Live(live) => {
                self.outputs.push_back(Output::Farewell);
                self.forget_connection(&live, None, reason);
                self.outputs
                    .push_back(Output::ClientEvent(ClientEvent::closed(None)));
            }
            Link::Connecting { .. } => self.outputs.push_back(Output::Disconnect),
            Link::Idle { .. } | Link::Paused { .. } | Link::Waiting { .. } | Link::Refused(_) => {}
        }
    }

    /// Does now what would be done later: the next attempt, or the check whether the connection is still
    /// alive.
    pub(crate) fn reconnect_now(&mut self, now: Now) {
        match &mut self.link {
            Link::Live(live) => {
                let answer_due = now.mono + self.settings.pong_timeout.min(ANSWER_AT_ONCE);
                live.doubt = Some(live.doubt.map_or(answer_due, |due| due.min(answer_due)));
                self.ping(now);
                for id in self.retries.release_all() {
                    self.reconcile(id, now);
                }
                self.try_suspects(now);
            }
            Link::Waiting { .. } => {
                self.backoff.reset();
                self.retries.release_all();
                self.connect_again(now);
            }
            // It had as much time as a doubted connection gets.
            Link::Connecting { since, .. }
                if now.mono.saturating_duration_since(*since) >= ANSWER_AT_ONCE =>
            {
                self.restart(now);
            }
            Link::Idle { .. } | Link::Paused { .. } | Link::Connecting { .. } | Link::Refused(_) => {}
        }
    }

    /// The machine has slept: what was under way is probably dead, and the network is probably back.
    pub(super) fn awake(&mut self, now: Now) {
        match &self.link {
            Link::Connecting { .. } => self.restart(now),
            _ => self.reconnect_now(now),
        }
    }

    /// Abandons the present attempt for another, which counts as the first one again.
    fn restart(&mut self, now: Now) {
        self.backoff.reset();
        self.retries.release_all();
        self.outputs.push_back(Output::Disconnect);
        self.connect_again(now);
    }

    /// Uses another session token from now on. A connection that was made with the old one is abandoned.
    pub(crate) fn set_session_token(&mut self, token: Option<Secret>, now: Now) {
        self.settings.credentials.session_token = token;
        match std::mem::replace(&mut self.link, Link::Idle { was_open: true }) {
            Link::Live(live) => {
                self.outputs.push_back(Output::Disconnect);
                self.forget_connection(&live, None, GapReason::SessionTokenChanged);
                self.outputs
                    .push_back(Output::ClientEvent(ClientEvent::closed(None)));
                self.connect_again(now);
            }
            Link::Connecting { .. } => {
                self.outputs.push_back(Output::Disconnect);
                self.connect_again(now);
            }
            other => self.link = other,
        }
        // Events that wait for the listeners are discarded, and may be older than an existing gap.
        let of_failed = self.failed.values_mut().filter_map(|failed| failed.gap.as_mut());
        for (_, reason) in of_failed {
            *reason = GapReason::SessionTokenChanged;
        }
        let of_others = self.subscriptions.values_mut();
        for reason in of_others.filter_map(|subscription| subscription.gap.as_mut()) {
            *reason = GapReason::SessionTokenChanged;
        }
    }

    /// Ends the subscriptions with an id below the given one, and the connection. The connection is made
    /// again if there are other subscriptions, which were made after the call of `close`.
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
            self.forget(id);
            for handle in subscription.into_iter().chain(failed) {
                self.outputs.push_back(Output::Event(handle, Event::closed(None)));
            }
        }
        self.hang_up(Link::Idle { was_open: true }, GapReason::ConnectionLost);
        if !self.subscriptions.is_empty() {
            self.open(now);
        }
    }

    /// The attempt to connect has reached another stage.
    pub(crate) fn reached(&mut self, reached: Stage, in_trouble: Option<&Error>) {
        if let Link::Connecting { stage, trouble, .. } = &mut self.link {
            *stage = reached;
            *trouble = in_trouble.cloned();
        }
    }

    /// The WebSocket is open.
    pub(crate) fn transport_up(&mut self) {
        if let Link::Connecting { stage, trouble, .. } = &mut self.link {
            *stage = Stage::Greeting;
            *trouble = None;
            match outgoing::connect(&self.settings.credentials, self.installation_id) {
                Ok(frame) => self.outputs.push_back(Output::Send(frame)),
                Err(error) => self.refuse(error),
            }
        }
    }

    /// Something came: any byte is a sign of life.
    pub(crate) fn alive(&mut self, now: Now) {
        if let Link::Live(live) = &mut self.link {
            live.last_received = now.mono;
            live.doubt = None;
        }
    }

    /// The answer to a ping has come. Returns how long it took, if it is the awaited one.
    pub(crate) fn ponged(&mut self, payload: &[u8], now: Now) -> Option<Duration> {
        let Link::Live(live) = &mut self.link else {
            return None;
        };
        let ping = live.ping.take_if(|ping| ping.number.to_be_bytes() == payload)?;
        live.proven = ping.moment;
        Some(now.mono.saturating_duration_since(ping.sent))
    }

    /// Sends a ping, unless one is unanswered.
    pub(super) fn ping(&mut self, now: Now) {
        let moment = self.clock.moment(now);
        let Link::Live(live) = &mut self.link else {
            return;
        };
        if live.ping.is_none() {
            self.pings += 1;
            live.ping = Some(Ping {
                number: self.pings,
                sent: now.mono,
                moment,
            });
            live.next_ping = now.mono + self.settings.idle_ping;
            self.outputs.push_back(Output::Ping(self.pings.to_be_bytes()));
        }
    }

    /// Connects at once, as the program or the machine's waking up asks for; within a second, if that happens
    /// again and again.
    fn connect_again(&mut self, now: Now) {
        let rest = self.rest(now.mono);
        if rest.is_zero() {
            self.connect(now);
        } else {
            self.clock.look(now);
            self.link = Link::Waiting {
                until: now.mono + rest,
            };
        }
    }

    /// How long an attempt that needs no delay has to wait nevertheless: a program that pauses and resumes in a loop must
    /// not storm the server.
    fn rest(&self, now: Instant) -> Duration {
        let free = self.next_free.unwrap_or(now).saturating_duration_since(now);
        free.saturating_sub(FREE_TIME)
    }

    pub(super) fn connect(&mut self, now: Now) {
        let free = self.next_free.unwrap_or(now.mono).max(now.mono) + COST;
        self.next_free = Some(free.min(now.mono + FREE_TIME + COST));
        let deadline = now.mono + self.settings.connect_timeout;
        self.clock.look(now);
        self.link = Link::Connecting {
            since: now.mono,
            stage: Stage::Token,
            deadline,
            trouble: None,
        };
        self.outputs.push_back(Output::Connect);
    }

    pub(super) fn connected(&mut self, now: Now) {
        if !matches!(
            self.link,
            Link::Connecting {
                stage: Stage::Greeting,
                ..
            }
        ) {
            // An afterLiveQueryEvent hook may set the event's name to `connect` (Parse Server 9.10), which
            // then comes with a requestId and an object, and is not a greeting.
            crate::logging::debug!("ignored a `connected` on a connection that is open");
            return;
        }
        self.link = Link::Live(Live {
            since: now.mono,
            last_received: now.mono,
            ping: None,
            next_ping: now.mono,
            doubt: None,
            // Nothing was asked for before.
            proven: self.clock.moment(now),
        });
        self.failures = 0;
        self.outputs.push_back(Output::ClientEvent(ClientEvent::opened()));
        self.ping(now);
        let ids: Vec<_> = self.subscriptions.keys().copied().collect();
        for id in ids {
            self.reconcile(id, now);
        }
    }

    /// An error before `connected`.
    pub(super) fn connect_refused(&mut self, error: &ServerError, now: Now) {
        let sent = self.installation_id == InstallationId::Sent
            && self.settings.credentials.installation_id.is_some();
        match error.code {
            // Parse Server before 3.10 does not know the installation id.
            1 if sent && is_unknown_member(error) => {
                crate::logging::debug!("the server refuses the installation id; connecting without");
                self.installation_id = InstallationId::LeftOut;
                self.outputs.push_back(Output::Disconnect);
                self.connect(now);
            }
            1 | 3 | 4 => self.refuse(server_error(ErrorKind::Refused, error)),
            _ if !error.reconnect => self.refuse(server_error(ErrorKind::Refused, error)),
            _ => self.lost(server_error(ErrorKind::Server, error), now),
        }
    }

    /// The connection, or the attempt to make one, has failed; there will be another.
    pub(crate) fn lost(&mut self, error: Error, now: Now) {
        self.lost_for(error, None, now);
    }

    /// Like [`lost`](Self::lost), with the pause that the server asks for, which is added to the usual delay.
    pub(crate) fn lost_for(&mut self, error: Error, at_least: Option<Duration>, now: Now) {
        self.clock.look(now);
        let mut doubted = false;
        match std::mem::replace(&mut self.link, Link::Idle { was_open: true }) {
            Link::Live(live) => {
                self.outputs.push_back(Output::Disconnect);
                self.suspect_the_unanswered(now);
                self.forget_connection(&live, Some(&error), GapReason::ConnectionLost);
                doubted = live.doubt.is_some();
                if doubted || now.mono.saturating_duration_since(live.since) >= STABLE_AFTER {
                    self.backoff.reset();
                }
                self.outputs
                    .push_back(Output::ClientEvent(ClientEvent::closed(Some(error.clone()))));
            }
            Link::Connecting { .. } => {
                self.failures = self.failures.saturating_add(1);
                if self.settings.max_attempts.is_some_and(|max| self.failures >= max) {
                    let text = format!("gave up after {} attempts to connect", self.failures);
                    self.refuse(Error::with_source(ErrorKind::GaveUp, text, error));
                    return;
                }
                self.outputs.push_back(Output::Disconnect);
                if self.failures == 1 {
                    self.report(error.while_trying());
                }
            }
            other @ (Link::Idle { .. } | Link::Paused { .. } | Link::Waiting { .. } | Link::Refused(_)) => {
                self.link = other;
                return;
            }
        }
        let delay = self.backoff.next(&mut self.rng);
        // An expected loss needs no delay: a doubted connection must be replaced at once.
        let delay = if doubted {
            self.rest(now.mono)
        } else {
            // Clients that get the same pause must not all come back at the same moment.
            delay + at_least.unwrap_or_default()
        };
        crate::logging::warn!(
            "{error}; trying again in {delay:.1?} (attempt {})",
            self.backoff.attempts()
        );
        self.link = Link::Waiting {
            until: now.mono + delay,
        };
        let event = ClientEvent::reconnecting(error, self.backoff.attempts(), delay);
        self.outputs.push_back(Output::ClientEvent(event));
    }

    /// The server refuses this client, and would still do so a second later.
    pub(super) fn refuse(&mut self, error: Error) {
        self.outputs.push_back(Output::Disconnect);
        let was = std::mem::replace(&mut self.link, Link::Refused(error.clone()));
        if let Link::Live(live) = &was {
            self.forget_connection(live, Some(&error), GapReason::ConnectionLost);
            self.outputs
                .push_back(Output::ClientEvent(ClientEvent::closed(Some(error.clone()))));
        }
        crate::logging::error!("{error}; not trying again");
        // The refusal has ended the client, but not the subscriptions, which come back with `open`.
        self.report(error.clone().fatal());
        for subscription in self.subscriptions.values().filter(|s| s.wanted.is_some()) {
            let handle = subscription.handle.clone();
            self.outputs
                .push_back(Output::Event(handle, Event::failed(error.clone())));
        }
    }

    /// Forgets everything that depended on this connection.
    fn forget_connection(&mut self, live: &Live, error: Option<&Error>, reason: GapReason) {
        self.tokens.clear();
        self.retries.connection_gone();
        self.tell_doubtful_errors();
        self.answers.clear();
        self.inquiry.clear();
        let (retries, tokens) = (&mut self.retries, &mut self.tokens);
        self.subscriptions.retain(|id, subscription| {
            if subscription.wanted.is_none() {
                retries.forget(*id);
                tokens.settled(*id);
            }
            subscription.wanted.is_some()
        });
        for subscription in self.subscriptions.values_mut() {
            subscription.server = OnServer::Absent;
            subscription.respelled = false;
            if subscription.accepted.is_some() {
                subscription.proven = match subscription.gap {
                    None => subscription.proven.max(live.proven),
                    // An update has opened it, and events that were sent before the update may not have come
                    // either.
                    Some(_) => subscription.proven.min(live.proven),
                };
                subscription.gap.get_or_insert(reason);
            }
            if std::mem::take(&mut subscription.open) {
                let handle = subscription.handle.clone();
                self.outputs
                    .push_back(Output::Event(handle, Event::closed(error.cloned())));
            }
        }
    }
}

/// A connection that lived this long was stable, and its loss starts a new series of attempts.
const STABLE_AFTER: Duration = Duration::from_secs(10);
/// How long a doubted connection may take to prove that it is alive.
const ANSWER_AT_ONCE: Duration = Duration::from_secs(3);
/// How far apart attempts to connect are, at least, in the long run.
const COST: Duration = Duration::from_secs(1);
/// How many attempts may follow each other at once after a time of rest, times their [`COST`].
const FREE_TIME: Duration = Duration::from_secs(10);
