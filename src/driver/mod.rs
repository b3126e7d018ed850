//! The I/O: it owns the socket and the session, reads the clock, and waits in one place for everything.
//!
//! Nothing in here blocks, and no user code runs in here. The thread that does the I/O changes (see
//! `threads`); "the I/O thread" means the one that does it at the time.

mod ask;
pub(crate) mod command;
mod connect;
mod connector;
mod farewell;
mod frames;
mod link;
#[cfg(all(test, shuttle))]
mod model;
mod servers;
mod socket;
mod stream;
pub(crate) mod threads;
mod tls;
pub(crate) mod token;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::Receiver;
use mio::{Events, Poll, Token, Waker};
use tungstenite::Message;
use url::Url;

use self::command::{Command, Commands};
use self::connect::{Attempt, Failed, Io, Progress};
pub(crate) use self::connect::{Network, Proxies};
#[cfg(feature = "rest")]
pub(crate) use self::connect::{ProxyKind, http_date, retry_after};
pub(crate) use self::connector::Connector;
use self::link::Link;
use self::servers::Servers;
pub use self::stream::ConnectedStream;
use self::threads::Work;
#[cfg(feature = "webpki-roots")]
pub(crate) use self::tls::Trust;
use self::token::{Purpose, TokenProvider, Tokens};
use crate::delivery::mailbox::{Letter, Parcel};
use crate::delivery::shared::Shared;
use crate::delivery::status::{Order, Receipt};
use crate::delivery::subscription::{Figures, SubscriptionCore};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Change, ClientEvent, ClientEventKind, Event, EventKind};
use crate::logging::{debug, error, warn};
use crate::object::Object;
use crate::protocol::Now;
use crate::protocol::incoming::EventFrame;
use crate::protocol::session::{Output, Received, Session, Settings};
use crate::query::version::Age;
use crate::scan::{Outline, start_of};
use crate::secret::Secret;
use crate::server_url::authority;
use crate::state::ClientState;
use crate::stats::Counters;

/// What the I/O waits with, and what wakes it.
pub(crate) fn poll() -> Result<(Poll, Waker)> {
    let make = || {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        Ok((poll, waker))
    };
    make().map_err(not_started)
}

/// Starts the threads of a client.
pub(crate) fn spawn(
    servers: Vec<Url>,
    mut network: Network,
    settings: Settings,
    token_provider: Option<TokenProvider>,
    close_timeout: Duration,
    poll: Poll,
    shared: Arc<Shared>,
) -> Result<Commands> {
    // A server that does not read gets as much time as one that does not write.
    network.patience = settings.idle_ping.saturating_add(settings.pong_timeout);
    let (commands, receiver) = Commands::new(Arc::clone(&shared));
    let io = Io::new(
        poll.registry().try_clone().map_err(not_started)?,
        commands.clone(),
    );
    let driver = Driver {
        servers: Servers::new(servers),
        network,
        io,
        tokens: Tokens::new(token_provider),
        generation: 0,
        farewell_timeout: close_timeout / 2,
        poll,
        events: Events::with_capacity(8),
        receiver,
        session: Session::new(settings, rand::random()),
        transport: Transport::Down,
        farewell: None,
        attempt: 0,
        readable: false,
        closing: Vec::new(),
        shutdown: false,
        state: ClientState::Initialized,
        last_error: None,
        error_changed: false,
        server_age: None,
        shared,
    };
    threads::spawn(driver).map_err(not_started)?;
    Ok(commands)
}

fn not_started(error: std::io::Error) -> Error {
    Error::with_source(
        ErrorKind::Io,
        "the threads of the client cannot be started",
        error,
    )
}

struct Driver {
    servers: Servers,
    network: Network,
    io: Io,
    tokens: Tokens,
    /// Counts the session tokens of the client: the number of the one that the connection was made with.
    generation: u64,
    farewell_timeout: Duration,
    poll: Poll,
    events: Events,
    receiver: Receiver<(Command, Option<Order>)>,
    session: Session<Arc<SubscriptionCore>>,
    transport: Transport,
    /// A closed connection whose close handshake is not complete. Dropped before another is made.
    farewell: Option<(Box<Link>, Instant)>,
    /// Numbers the attempts to connect, so that a late answer of the resolver is recognised.
    attempt: u64,
    /// The socket may have more to read. mio reports that only once, so it stays set until a read would
    /// block.
    readable: bool,
    /// The pending calls of `close`.
    closing: Vec<Arc<Receipt>>,
    shutdown: bool,
    /// The last published state, and why the last attempt failed.
    state: ClientState,
    last_error: Option<Error>,
    error_changed: bool,
    /// The last published version of the server.
    server_age: Option<Age>,
    shared: Arc<Shared>,
}

enum Transport {
    Down,
    AwaitingToken,
    Connecting(Box<Attempt>),
    Up(Box<Link>),
}

impl Work for Driver {
    fn run(&mut self, stop: &mut dyn FnMut() -> bool) -> bool {
        loop {
            let more_commands = self.take_commands();
            self.advance_connection();
            self.read_messages();
            let now = now();
            self.session.tick(now);
            self.carry_out();
            self.send(now);
            self.say_farewell();
            self.finish_close();
            self.shared.make_calls(now.mono);
            if self.shutdown && self.farewell.is_none() {
                return false;
            }
            if stop() {
                return true;
            }
            if !more_commands && !self.readable {
                self.wait();
            }
        }
    }
}

impl Driver {
    fn wait(&mut self) {
        let timeout = self
            .deadline()
            .map(|at| at.saturating_duration_since(Instant::now()));
        if let Err(error) = self.poll.poll(&mut self.events, timeout) {
            if error.kind() != std::io::ErrorKind::Interrupted {
                // No known case leads here. The loop continues with its deadlines, and no faster than this.
                error!("waiting for the socket failed: {error}");
                thread::sleep(Duration::from_millis(100));
            }
        }
        self.readable = self.events.iter().any(|event| event.token() == SOCKET);
    }

    /// Handles the waiting commands, up to a limit, so that the socket gets its turn. Returns `true` if there
    /// are more.
    fn take_commands(&mut self) -> bool {
        for _ in 0..COMMANDS_PER_TURN {
            match self.receiver.try_recv() {
                Ok((command, order)) => {
                    self.take_command(command);
                    drop(order);
                }
                // Never disconnected: the driver itself holds a sender.
                Err(_) => return false,
            }
        }
        true
    }

    fn take_command(&mut self, command: Command) {
        let now = now();
        match command {
            Command::Open => self.session.open(now),
            Command::Close { below, receipt } => {
                self.closing.push(receipt);
                self.session.close(below, now);
            }
            Command::Subscribe(subscription, spec) => {
                if self.shared.is_ended(&subscription) {
                    // It was ended before the command came. This drops what its listeners own.
                    let receipt = self.closing_receipt();
                    self.shared.end(&subscription, receipt);
                } else {
                    self.session.subscribe(subscription.id, subscription, spec, now);
                }
            }
            Command::Update(subscription, spec) => {
                if !self.shared.is_ended(&subscription) {
                    self.session.update(subscription.id, subscription, spec, now);
                }
            }
            Command::Unsubscribe(id) => self.session.unsubscribe(id, now),
            Command::Pause => {
                self.session.pause();
                if self.session.state() == ClientState::Paused {
                    // It is no longer the reason why there is no connection.
                    self.set_error(None);
                }
            }
            Command::Resume => self.session.resume(now),
            Command::ReconnectNow => self.session.reconnect_now(now),
            Command::SetSessionToken(token, generation) => {
                self.generation = generation;
                self.tokens.forget();
                self.session.set_session_token(token, now);
            }
            Command::Token { question, token } => self.take_token(question, token, now),
            Command::Resolved { attempt, addresses } => {
                self.answered(|connecting, _, io| connecting.resolved(attempt, addresses, io));
            }
            Command::Connected { attempt, stream } => {
                self.answered(|connecting, network, io| connecting.connected(attempt, stream, network, io));
            }
            Command::Shutdown => {
                self.shared.end_all();
                self.session.close(u64::MAX, now);
                self.shutdown = true;
            }
            #[cfg(test)]
            Command::Panic => panic!("as the test wants it"),
        }
        self.carry_out();
    }

    /// Carries out the outputs of the session.
    fn carry_out(&mut self) {
        // A thread that waits for the refusal of the client waits for the delivery to all subscribers.
        let mut refused = None;
        while let Some(output) = self.session.next_output() {
            match output {
                Output::Connect => self.connect(),
                Output::Disconnect => {
                    if let Transport::Up(link) = &mut self.transport {
                        link.end();
                    }
                    self.transport = Transport::Down;
                }
                Output::Farewell => self.begin_farewell(),
                Output::Send(text) => {
                    Counters::add(&self.shared.counters.messages_out, 1);
                    Counters::add(&self.shared.counters.bytes_out, text.len() as u64);
                    if let Transport::Up(link) = &mut self.transport {
                        if let Err(error) = link.queue_text(text) {
                            self.session.lost(error, now());
                        }
                    }
                }
                Output::Ping(payload) => self.ping(&payload),
                Output::RenewToken => {
                    if let Err(error) = self.tokens.ask(Purpose::Renew, self.io.commands()) {
                        self.session.lost(error, now());
                    }
                }
                Output::Event(subscription, event) => self.tell_of(&subscription, event, &mut refused),
                Output::ClientEvent(event) => self.tell(event, &mut refused),
            }
        }
        self.shared
            .counters
            .subscriptions
            .store(self.session.len(), Ordering::Relaxed);
        let age = self.session.server_age();
        if age.is_some() && age != self.server_age {
            self.server_age = age;
            *self.shared.server_age.lock() = age;
        }
        let state = self.session.state();
        if state != self.state || self.error_changed {
            debug!("{:?} -> {state:?}", self.state);
            self.state = state;
            self.error_changed = false;
            self.shared.status.set_state(state, self.last_error.clone());
        }
    }

    /// Delivers an output of the session to a subscription.
    fn tell_of(
        &self,
        subscription: &Arc<SubscriptionCore>,
        event: Event,
        refused: &mut Option<Arc<Receipt>>,
    ) {
        if event.kind() == EventKind::Close && self.shared.is_ended(subscription) {
            self.shared.end(subscription, self.closing_receipt());
            return;
        }
        let receipt = event.error().filter(|error| is_refusal(error)).and_then(|_| {
            *refused = refused.take().or_else(|| self.shared.receipt_of_state());
            refused.clone()
        });
        self.shared.tell_of(subscription, event, receipt);
    }

    /// The receipt for the pending calls of `close`.
    fn closing_receipt(&self) -> Option<Arc<Receipt>> {
        let receipt = self.closing.last().filter(|_| !self.shared.queue.is_manual());
        receipt.cloned()
    }

    /// Delivers an output of the session to the client's listeners, and counts it.
    fn tell(&mut self, event: ClientEvent, refused: &mut Option<Arc<Receipt>>) {
        let mut receipt = None;
        match (event.kind(), event.error()) {
            (ClientEventKind::Open, _) => {
                self.set_error(None);
                Counters::add(&self.shared.counters.connections, 1);
                receipt = self.shared.receipt_if_heard(ClientEventKind::Open);
            }
            (ClientEventKind::Reconnecting, error) => {
                self.set_error(error);
                Counters::add(&self.shared.counters.failures, 1);
            }
            (ClientEventKind::Error, Some(error)) if error.is_fatal() => {
                self.set_error(Some(error));
                receipt = self.shared.receipt_of_state();
                refused.clone_from(&receipt);
            }
            (ClientEventKind::Error, Some(error)) if error.kind() == ErrorKind::Protocol => {
                Counters::add(&self.shared.counters.malformed, 1);
            }
            (ClientEventKind::Error | ClientEventKind::Close | ClientEventKind::SessionEnded, _) => {}
        }
        self.shared.tell(event, receipt);
    }

    fn set_error(&mut self, error: Option<&Error>) {
        self.last_error = error.cloned();
        self.error_changed = true;
    }

    fn connect(&mut self) {
        self.farewell = None;
        self.attempt += 1;
        if self.tokens.can_ask() {
            self.transport = Transport::AwaitingToken;
            let purpose = Purpose::Connect(self.attempt);
            if let Err(error) = self.tokens.ask(purpose, self.io.commands()) {
                self.session.lost(error, now());
            }
        } else {
            self.start_attempt();
        }
    }

    /// The provider has answered. A late answer belongs to a question that is no longer asked.
    fn take_token(&mut self, question: u64, token: Option<Secret>, now: Now) {
        match self.tokens.answered(question, self.io.commands()) {
            Ok(None) => {}
            Ok(Some(Purpose::Renew)) => {
                self.shared.set_session_token(token.clone());
                self.session.token_renewed(token, now);
            }
            Ok(Some(Purpose::Connect(attempt))) => {
                if attempt == self.attempt && matches!(self.transport, Transport::AwaitingToken) {
                    self.shared.set_session_token(token.clone());
                    self.session.provide_token(token);
                    self.start_attempt();
                }
            }
            Err(error) => self.session.lost(error, now),
        }
    }

    fn start_attempt(&mut self) {
        // The builder makes sure that there is at least one URL.
        let Some(url) = self.servers.next(Instant::now()).cloned() else {
            return;
        };
        debug!("connecting to {}", authority(&url));
        match Attempt::start(self.attempt, url, &self.network, &self.io) {
            Ok(attempt) => {
                self.transport = Transport::Connecting(Box::new(attempt));
                self.advance_connection();
            }
            Err(failed) => self.failed(failed),
        }
    }

    fn failed(&mut self, failed: Failed) {
        let now = now();
        let at_least = self.servers.refused(failed.retry_after, now.mono);
        self.session.lost_for(failed.error, at_least, now);
    }

    /// Passes the result of another thread to the attempt.
    fn answered(&mut self, give: impl FnOnce(&mut Attempt, &Network, &Io) -> Result<(), Failed>) {
        if let Transport::Connecting(attempt) = &mut self.transport {
            match give(attempt, &self.network, &self.io) {
                Ok(()) => self.advance_connection(),
                Err(failed) => self.failed(failed),
            }
        }
    }

    /// Continues an attempt to connect.
    fn advance_connection(&mut self) {
        if !matches!(self.transport, Transport::Connecting(_)) {
            return;
        }
        let Transport::Connecting(attempt) = std::mem::replace(&mut self.transport, Transport::Down) else {
            return;
        };
        match attempt.advance(&self.network, &self.io) {
            Ok(Progress::NotYet(attempt)) => {
                self.session.reached(attempt.stage(), attempt.trouble());
                self.readable = attempt.has_more();
                self.transport = Transport::Connecting(attempt);
            }
            Ok(Progress::Up(link)) => {
                self.transport = Transport::Up(link);
                // The first frame may have come with the answer to the upgrade.
                self.readable = true;
                self.session.transport_up();
            }
            Err(failed) => self.failed(failed),
        }
        self.carry_out();
    }

    /// Reads what has come, up to a limit, so that commands get their turn.
    fn read_messages(&mut self) {
        if !self.readable || self.farewell.is_some() {
            return;
        }
        let measured = || {
            let now = now();
            (now, Figures::moment(now.wall))
        };
        let mut time = None;
        if let Transport::Up(link) = &mut self.transport {
            link.begin_turn();
        }
        for _ in 0..MESSAGES_PER_TURN {
            let Transport::Up(link) = &mut self.transport else {
                self.readable = false;
                return;
            };
            let message = link.read();
            let has_more = link.has_more();
            if link.take_received() {
                // Read after the message came: a gap that ends with it must not end before the server wrote
                // it.
                let (now, _) = *time.insert(measured());
                self.session.alive(now);
                *self.shared.counters.last_received.lock() = Some(now.wall);
            }
            let (now, came_at) = *time.get_or_insert_with(measured);
            match message {
                Ok(Some(Message::Text(text))) => {
                    self.count_message(text.len());
                    if self.is_unheard(&text, came_at) {
                        continue;
                    }
                    if let Some(received) = self.session.received(&text, now) {
                        take_in(&self.shared, received, &text, self.generation, came_at);
                        continue;
                    }
                }
                Ok(Some(Message::Binary(bytes))) => {
                    self.count_message(bytes.len());
                    self.session.received_binary(bytes.len());
                }
                Ok(Some(Message::Pong(payload))) => {
                    let round_trip = self.session.ponged(&payload, now);
                    if round_trip.is_some() {
                        *self.shared.counters.round_trip.lock() = round_trip;
                    }
                }
                // The WebSocket layer answers it; here it only counts as a sign of life.
                Ok(Some(Message::Ping(_) | Message::Frame(_))) => {}
                Ok(Some(Message::Close(frame))) => {
                    let reason = frame.map_or_else(String::new, |frame| format!(" ({frame})"));
                    let text = format!("the server closed the connection{reason}");
                    self.session
                        .lost(Error::new(ErrorKind::ConnectionLost, text), now);
                }
                Ok(None) => {
                    self.readable = has_more;
                    return;
                }
                Err(error) => self.session.lost(error, now),
            }
            self.carry_out();
        }
    }

    fn ping(&mut self, payload: &[u8]) {
        if let Transport::Up(link) = &mut self.transport {
            if let Err(error) = link.queue_ping(payload) {
                self.session.lost(error, now());
            }
        }
    }

    fn count_message(&self, bytes: usize) {
        Counters::add(&self.shared.counters.messages_in, 1);
        Counters::add(&self.shared.counters.bytes_in, bytes as u64);
    }

    /// Whether this is an event without a listener, which is only counted.
    fn is_unheard(&mut self, text: &str, came_at: u64) -> bool {
        if self.shared.queue.letters() > 0 {
            return false;
        }
        let Some((subscription, kind)) = self.session.route(text) else {
            return false;
        };
        let is_unheard = self.shared.is_unheard(subscription, kind);
        if is_unheard {
            subscription.figures.count(kind, came_at);
        }
        is_unheard
    }

    /// Sends what must be sent, and checks that the server makes progress.
    fn send(&mut self, now: Now) {
        if let Transport::Up(link) = &mut self.transport {
            let sent = link.send().and_then(|()| link.check(now.mono));
            // A healthy server answers a ping behind ten thousand subscriptions late.
            if link.take_drained() {
                self.session.alive(now);
            }
            if let Err(error) = sent {
                self.session.lost(error, now);
                self.carry_out();
            }
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let attempt = match &self.transport {
            Transport::Connecting(attempt) => attempt.deadline(),
            Transport::Up(link) => link.deadline(),
            _ => None,
        };
        let farewell = self.farewell.as_ref().map(|(_, deadline)| *deadline);
        [
            self.session.deadline(),
            attempt,
            farewell,
            self.shared.next_call(),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

/// Puts a received object into the mailbox of its subscription. The generation is that of the client's session token.
fn take_in(
    shared: &Shared,
    received: Received<'_, Arc<SubscriptionCore>>,
    text: &str,
    generation: u64,
    came_at: u64,
) {
    let Received {
        handle: subscription,
        identity,
        filter,
        frame,
        outline,
    } = received;
    let event = event_of(frame, outline, text);
    subscription.figures.count(event.kind(), came_at);
    if filter.is_some_and(|spec| !spec.may_bring(&event)) {
        Counters::add(&subscription.figures.foreign, 1);
        warn!(
            "{subscription}: dropped `{}` of {}, which does not match the query; the server confuses it \
             with another one",
            event.kind(),
            event.id().unwrap_or("an object")
        );
        return;
    }
    let parcel = Parcel {
        bytes: event.size() + 2 * size_of::<Letter<Event>>(),
        event,
        generation: generation + identity,
        lost_before: 0,
    };
    shared.deliver_object(subscription, parcel);
}

/// Makes an event from a frame. Its text is copied once, to its exact size, so that a kept event does not
/// keep a read buffer alive.
pub(crate) fn event_of(frame: EventFrame<'_>, outline: Option<&Outline>, text: &str) -> Event {
    let range = |part: &str| {
        let start = start_of(part, text);
        start..start + part.len()
    };
    let object = Object::from_frame(Arc::from(text), range(frame.object), outline);
    Event::changed(frame.kind, Change::new(object, frame.original.map(range)))
}

/// Whether an error means that the whole client was refused.
fn is_refusal(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Refused | ErrorKind::GaveUp)
}

fn now() -> Now {
    // If the thread has to wait between the two reads, a gap starts too early rather than too late.
    let wall = SystemTime::now();
    Now {
        mono: Instant::now(),
        wall,
    }
}

const WAKER: Token = Token(0);
const SOCKET: Token = Token(1);
const COMMANDS_PER_TURN: usize = 1024;
const MESSAGES_PER_TURN: usize = 32;
