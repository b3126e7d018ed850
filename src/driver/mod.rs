//! The I/O: it owns the socket and the session, reads the clock, and waits in one place for everything.
//!
//! Nothing in here blocks, and no user code runs in here. Which thread does it changes (see `threads`); what is called
//! the I/O thread is the one that does.

mod ask;
mod connect;
mod frames;
mod link;
mod servers;
mod socket;
mod stream;
mod threads;
mod tls;

use std::fmt;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use crossbeam_channel::{Receiver, Sender};
use mio::{Events, Poll, Token, Waker};
use tungstenite::Message;
use url::Url;

#[cfg(feature = "rest")]
pub(crate) use self::connect::ProxyKind;
use self::connect::{Attempt, Failed, Io, Progress};
pub(crate) use self::connect::{Network, Proxies};
use self::link::Link;
use self::servers::Servers;
pub use self::stream::ConnectedStream;
pub(crate) use self::stream::Connector;
#[cfg(feature = "webpki-roots")]
pub(crate) use self::tls::Trust;
use crate::delivery::dispatch::{Item, Waiting};
use crate::delivery::shared::{Shared, SubscriptionCore};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{Change, ClientEventKind, Event};
use crate::object::Object;
use crate::protocol::Now;
use crate::protocol::message::{EventFrame, Spec};
use crate::protocol::session::{Output, Received, Session, Settings};
use crate::scan::start_of;
use crate::secret::Secret;
use crate::server_url::authority;
use crate::state::ClientState;
use crate::stats::Counters;

/// What handles ask of the I/O thread. It never answers; what comes of it shows in events and states.
#[derive(Debug)]
pub(crate) enum Command {
    Open,
    /// Ends the subscriptions with an id below `below`, and the connection.
    Close {
        below: u64,
        number: u64,
    },
    Subscribe(Arc<SubscriptionCore>, Arc<Spec>),
    Update(Arc<SubscriptionCore>, Arc<Spec>),
    Unsubscribe(u64),
    ReconnectNow,
    /// The number is that of the client's new identity.
    SetSessionToken(Option<Secret>, u64),
    /// The session token provider has answered; `attempt` is `None` if it was asked for another token in between.
    Token {
        attempt: Option<u64>,
        token: Option<Secret>,
    },
    Resolved {
        attempt: u64,
        addresses: Result<Vec<SocketAddr>>,
    },
    Connected {
        attempt: u64,
        stream: Result<ConnectedStream>,
    },
    /// The last handle is gone.
    Shutdown,
}

impl Command {
    /// Whether it may make the client connect.
    fn is_order(&self) -> bool {
        matches!(self, Self::Open | Self::Subscribe(..) | Self::Update(..))
    }
}

/// The way to the I/O.
#[derive(Clone, Debug)]
pub(crate) struct Commands {
    shared: Arc<Shared>,
    sender: Sender<Command>,
}

impl Commands {
    pub(crate) fn send(&self, command: Command) {
        if command.is_order() {
            self.shared.ordered();
        }
        let order = command.is_order();
        if self.sender.send(command).is_ok() {
            self.shared.wake();
        } else if order {
            // The thread has panicked, and has said so; nobody looks at orders any more.
            self.shared.order_seen();
        }
    }
}

/// Where the session token comes from.
#[derive(Clone)]
pub(crate) struct TokenProvider(pub(crate) Arc<dyn Fn() -> Option<String> + Send + Sync>);

impl fmt::Debug for TokenProvider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenProvider")
    }
}

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
    // A server that does not read is given as long as one that does not write.
    network.patience = settings.idle_ping.saturating_add(settings.pong_timeout);
    let (sender, receiver) = crossbeam_channel::unbounded();
    let commands = Commands {
        shared: Arc::clone(&shared),
        sender,
    };
    let io = Io::new(
        poll.registry().try_clone().map_err(not_started)?,
        commands.clone(),
    );
    let driver = Driver {
        servers: Servers::new(servers),
        network,
        io,
        token_provider,
        identity: 0,
        pinged: None,
        farewell_timeout: close_timeout / 2,
        poll,
        events: Events::with_capacity(8),
        receiver,
        session: Session::new(settings, rand::random()),
        transport: Transport::Down,
        farewell: None,
        attempt: 0,
        readable: false,
        closing: None,
        shutdown: false,
        state: ClientState::Initialized,
        last_error: None,
        error_changed: false,
        items: Vec::new(),
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
    token_provider: Option<TokenProvider>,
    /// The identity of the client that the connection was made under.
    identity: u64,
    /// When the ping was sent that is not answered yet.
    pinged: Option<Instant>,
    farewell_timeout: Duration,
    poll: Poll,
    events: Events,
    receiver: Receiver<Command>,
    session: Session<Arc<SubscriptionCore>>,
    transport: Transport,
    /// A connection that was closed, while the server may still say farewell. Dropped before another is made.
    farewell: Option<(Box<Link>, Instant)>,
    /// Numbers the attempts to connect, to tell a late answer of the resolver.
    attempt: u64,
    /// The socket may have more to read. mio reports that once, so it holds until a read would block.
    readable: bool,
    /// The `close` that is under way.
    closing: Option<u64>,
    shutdown: bool,
    /// The state that was made known last, and what the last attempt failed of.
    state: ClientState,
    last_error: Option<Error>,
    error_changed: bool,
    /// What this turn of the loop has for the listeners.
    items: Vec<Item>,
    shared: Arc<Shared>,
}

enum Transport {
    Down,
    AwaitingToken,
    Connecting(Box<Attempt>),
    Up(Box<Link>),
}

impl Driver {
    /// Does the I/O, turn by turn, until `stop` says so after a turn. `false` once there is nothing more to do, ever.
    fn run(&mut self, mut stop: impl FnMut() -> bool) -> bool {
        loop {
            let more_commands = self.take_commands();
            self.advance_connection();
            self.read_messages();
            self.session.tick(now());
            self.carry_out();
            self.send();
            self.say_farewell();
            self.finish_close();
            self.shared.queue.push(&mut self.items);
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

    fn wait(&mut self) {
        let timeout = self
            .deadline()
            .map(|at| at.saturating_duration_since(Instant::now()));
        if let Err(error) = self.poll.poll(&mut self.events, timeout) {
            if error.kind() != std::io::ErrorKind::Interrupted {
                // Nothing known leads here. The loop goes on with its deadlines, and not faster than this.
                log::error!("waiting for the socket failed: {error}");
                thread::sleep(Duration::from_millis(100));
            }
        }
        self.readable = self.events.iter().any(|event| event.token() == SOCKET);
    }

    /// Takes the commands that are there, up to a limit, so that the socket gets its turn. `true` if there are more.
    fn take_commands(&mut self) -> bool {
        for _ in 0..COMMANDS_PER_TURN {
            match self.receiver.try_recv() {
                Ok(command) => self.take_command(command),
                // Never disconnected: the driver holds a sender itself.
                Err(_) => return false,
            }
        }
        true
    }

    fn take_command(&mut self, command: Command) {
        let now = now();
        let order = command.is_order();
        match command {
            Command::Open => self.session.open(now),
            Command::Close { below, number } => {
                self.session.close(below, now);
                // Two threads may have sent theirs in the other order.
                self.closing = self.closing.max(Some(number));
            }
            Command::Subscribe(subscription, spec) => {
                if self.shared.is_ended(&subscription) {
                    // It was ended before it came here. What its listeners own is set free by this.
                    self.items.push(Item::Event(subscription, Event::closed(None)));
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
            Command::ReconnectNow => self.session.reconnect_now(now),
            Command::SetSessionToken(token, identity) => {
                self.identity = identity;
                self.session.set_session_token(token, now);
            }
            Command::Token { attempt: None, token } => self.session.token_renewed(token, now),
            Command::Token {
                attempt: Some(attempt),
                token,
            } => {
                if attempt == self.attempt && matches!(self.transport, Transport::AwaitingToken) {
                    self.session.provide_token(token);
                    self.start_attempt();
                }
            }
            Command::Resolved { attempt, addresses } => {
                self.answered(|connecting, _, io| connecting.resolved(attempt, addresses, io));
            }
            Command::Connected { attempt, stream } => {
                self.answered(|connecting, network, io| connecting.connected(attempt, stream, network, io));
            }
            Command::Shutdown => {
                self.session.close(u64::MAX, now);
                self.shutdown = true;
            }
        }
        self.carry_out();
        if order {
            self.shared.order_seen();
        }
    }

    /// Does what the session wants done.
    fn carry_out(&mut self) {
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
                Output::Ping => self.ping(),
                Output::RenewToken => {
                    if let Err(error) = self.ask_for_token(None) {
                        self.session.lost(error, now());
                    }
                }
                Output::Event(subscription, event) => {
                    self.shared.progressed(&subscription, &event);
                    subscription.inbox.lock().turn_over();
                    self.items.push(Item::Event(subscription, event));
                }
                Output::ClientEvent(event) => {
                    match event.kind() {
                        ClientEventKind::Open => {
                            self.set_error(None);
                            Counters::add(&self.shared.counters.connections, 1);
                            self.ping();
                        }
                        ClientEventKind::Reconnecting => {
                            self.set_error(event.error());
                            Counters::add(&self.shared.counters.failures, 1);
                        }
                        ClientEventKind::Error if event.error().is_some_and(Error::is_fatal) => {
                            self.set_error(event.error());
                        }
                        ClientEventKind::Error
                            if event
                                .error()
                                .is_some_and(|error| error.kind() == ErrorKind::Protocol) =>
                        {
                            Counters::add(&self.shared.counters.malformed, 1);
                        }
                        ClientEventKind::Error | ClientEventKind::Close => {}
                    }
                    self.items.push(Item::ClientEvent(event));
                }
            }
        }
        self.shared
            .counters
            .subscriptions
            .store(self.session.len(), Ordering::Relaxed);
        let state = self.session.state();
        if state != self.state || self.error_changed {
            log::debug!("{:?} -> {state:?}", self.state);
            self.state = state;
            self.error_changed = false;
            self.shared.set_state(state, self.last_error.clone());
        }
    }

    fn set_error(&mut self, error: Option<&Error>) {
        self.last_error = error.cloned();
        self.error_changed = true;
    }

    fn connect(&mut self) {
        self.farewell = None;
        self.attempt += 1;
        if self.token_provider.is_some() {
            self.transport = Transport::AwaitingToken;
            if let Err(error) = self.ask_for_token(Some(self.attempt)) {
                self.session.lost(error, now());
            }
        } else {
            self.start_attempt();
        }
    }

    /// Asks the provider, whose code is the user's and may block, on a thread of its own.
    fn ask_for_token(&self, attempt: Option<u64>) -> Result<()> {
        let Some(TokenProvider(provider)) = self.token_provider.clone() else {
            return Ok(());
        };
        let commands = self.io.commands().clone();
        thread::Builder::new()
            .name("livequery-token".to_owned())
            .spawn(move || {
                let token = catch_unwind(AssertUnwindSafe(|| provider())).unwrap_or_else(|_| {
                    log::error!("the session token provider panicked; going on without a token");
                    None
                });
                let token = token.map(Secret::from);
                commands.shared.set_session_token(token.clone());
                commands.send(Command::Token { attempt, token });
            })
            .map(drop)
            .map_err(|error| {
                Error::with_source(ErrorKind::Io, "the thread for the token cannot be started", error)
            })
    }

    fn start_attempt(&mut self) {
        // The builder has one URL at least.
        let Some(url) = self.servers.next(Instant::now()).cloned() else {
            return;
        };
        log::debug!("connecting to {}", authority(&url));
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

    /// Gives the attempt what another thread has found out for it.
    fn answered(&mut self, give: impl FnOnce(&mut Attempt, &Network, &Io) -> Result<(), Failed>) {
        if let Transport::Connecting(attempt) = &mut self.transport {
            match give(attempt, &self.network, &self.io) {
                Ok(()) => self.advance_connection(),
                Err(failed) => self.failed(failed),
            }
        }
    }

    /// Goes on with an attempt to connect.
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
        let now = now();
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
                self.session.alive(now);
                *self.shared.counters.last_received.lock() = Some(now.wall);
            }
            match message {
                Ok(Some(Message::Text(text))) => {
                    self.count_message(text.len());
                    if !self.is_unheard(&text, now) {
                        let received = self.session.received(&text, now);
                        // An event comes after what the session has to say of it, as `open`.
                        self.carry_out();
                        if let Some(received) = received {
                            self.take_in(received, &text, now);
                        }
                    }
                }
                Ok(Some(Message::Binary(bytes))) => {
                    self.count_message(bytes.len());
                    self.session.received_binary(bytes.len());
                }
                Ok(Some(Message::Pong(_))) => {
                    let round_trip = self
                        .pinged
                        .take()
                        .map(|at| now.mono.saturating_duration_since(at));
                    if round_trip.is_some() {
                        *self.shared.counters.round_trip.lock() = round_trip;
                    }
                }
                // Answered by the WebSocket layer; that something came is all that counts.
                Ok(Some(Message::Ping(_) | Message::Frame(_))) => {}
                Ok(Some(Message::Close(frame))) => {
                    let reason = frame.map_or_else(String::new, |frame| format!(" ({frame})"));
                    let text = format!("the server closed the link{reason}");
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

    fn ping(&mut self) {
        if let Transport::Up(link) = &mut self.transport {
            self.pinged = Some(Instant::now());
            if let Err(error) = link.queue_ping() {
                self.session.lost(error, now());
            }
        }
    }

    fn count_message(&self, bytes: usize) {
        Counters::add(&self.shared.counters.messages_in, 1);
        Counters::add(&self.shared.counters.bytes_in, bytes as u64);
    }

    /// Whether this is an event that has no listener. Then it is only counted.
    ///
    /// While listeners are running, or have something before them, one of them may register a listener for the next
    /// event: which is this one, perhaps.
    fn is_unheard(&mut self, text: &str, now: Now) -> bool {
        if !self.items.is_empty() || !self.shared.queue.is_idle() {
            return false;
        }
        let Some((subscription, kind)) = self.session.route(text) else {
            return false;
        };
        self.shared.queue.pass_over(subscription, kind, now)
    }

    /// Puts an object that came into the inbox of its subscription.
    fn take_in(&mut self, received: Received<'_, Arc<SubscriptionCore>>, text: &str, now: Now) {
        let Received {
            handle: subscription,
            identity,
            filter,
            frame,
        } = received;
        let waiting = Waiting {
            event: event_of(frame, text),
            bytes: text.len(),
            identity: (self.identity, identity),
            filter,
        };
        let counters = &self.shared.counters;
        self.items
            .extend(self.shared.queue.accept(subscription, waiting, now, counters));
    }

    /// Sends what there is to send, and sees whether the server does its part.
    fn send(&mut self) {
        if let Transport::Up(link) = &mut self.transport {
            let now = now();
            if let Err(error) = link.send().and_then(|()| link.check(now.mono)) {
                self.session.lost(error, now);
                self.carry_out();
            }
        }
    }

    fn begin_farewell(&mut self) {
        if let Transport::Up(mut link) = std::mem::replace(&mut self.transport, Transport::Down) {
            if link.close() {
                self.farewell = Some((link, Instant::now() + self.farewell_timeout));
                self.readable = true;
            }
        }
    }

    /// Waits for the server's side of a close, to the deadline.
    fn say_farewell(&mut self) {
        let Some((link, deadline)) = &mut self.farewell else {
            return;
        };
        link.begin_turn();
        let mut over = link.send().is_err() || *deadline <= Instant::now();
        for _ in 0..MESSAGES_PER_TURN {
            if over {
                break;
            }
            match link.read() {
                // Both sides have said that they say no more.
                Ok(Some(Message::Close(_))) => link.end(),
                Ok(Some(_)) => {}
                Ok(None) => {
                    self.readable = link.has_more();
                    return;
                }
                // The server has hung up, which is what a close comes to: nothing to complain of.
                Err(_) => over = true,
            }
        }
        if over {
            link.end();
            self.readable = false;
            self.farewell = None;
        }
    }

    fn finish_close(&mut self) {
        if self.farewell.is_some() {
            return;
        }
        if let Some(number) = self.closing.take() {
            if self.shared.queue.is_manual() {
                // Whoever gives out may be the one that waits.
                self.shared.close_done(number);
            } else {
                self.items.push(Item::CloseDone(number));
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
        [self.session.deadline(), attempt, farewell]
            .into_iter()
            .flatten()
            .min()
    }
}

/// Makes an event of a frame: its text is copied once, to exactly its size, so that an event that is kept keeps no
/// read buffer alive.
pub(crate) fn event_of(frame: EventFrame<'_>, text: &str) -> Event {
    let shared: Arc<str> = Arc::from(text);
    let range = |part: &str| {
        let start = start_of(part, text);
        start..start + part.len()
    };
    let original = frame
        .original
        .map(|part| Object::from_frame(Arc::clone(&shared), range(part), None));
    let object = Object::from_frame(shared, range(frame.object), frame.outline);
    Event::changed(frame.kind, Change { object, original })
}

fn now() -> Now {
    Now {
        mono: Instant::now(),
        wall: SystemTime::now(),
    }
}

const WAKER: Token = Token(0);
const SOCKET: Token = Token(1);
const COMMANDS_PER_TURN: usize = 1024;
const MESSAGES_PER_TURN: usize = 64;
