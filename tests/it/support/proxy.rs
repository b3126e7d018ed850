//! A TCP proxy that does to bytes what networks do: cut, reset, swallow, delay. It knows no WebSocket and no LiveQuery.
//!
//! One thread owns every socket, so that a cut is a cut: when a method returns, it has happened.

use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};
use parking_lot::Mutex;
use socket2::SockRef;

use super::port::Port;

/// A proxy on loopback before one server. Dropping it ends its listener, its connections and its thread.
#[derive(Debug)]
pub struct Proxy {
    port: Port,
    commands: Sender<(Command, Sender<()>)>,
    waker: Arc<Waker>,
    counts: Arc<Mutex<Counts>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone, Copy, Debug)]
enum Command {
    Flow(Flow),
    StallAfter(u64),
    Door(Door),
    End { reset: bool },
    Look,
    Stop,
}

/// What happens to bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Pass,
    Blackhole,
    Delay(Duration),
    /// As `Delay`, for what the server writes alone.
    Lag(Duration),
    Trickle(usize, Duration),
}

impl Flow {
    fn upwards(self) -> Self {
        match self {
            Self::Lag(_) => Self::Pass,
            other => other,
        }
    }

    fn downwards(self) -> Self {
        match self {
            Self::Lag(delay) => Self::Delay(delay),
            other => other,
        }
    }
}

/// What happens to new connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    Open,
    AcceptAndClose,
    Refuse,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    accepts: usize,
    open: usize,
    max_open: usize,
    bytes_down: u64,
}

impl Proxy {
    /// A proxy to this server, that passes everything until it is told otherwise. A connection that the server refuses
    /// is accepted here and ended.
    pub fn to(server: SocketAddr) -> Self {
        let poll = Poll::new().expect("a poller");
        let waker = Arc::new(Waker::new(poll.registry(), WAKER).expect("a waker"));
        let (commands, received) = unbounded();
        let counts = Arc::<Mutex<Counts>>::default();
        let port = Port::reserve();
        let mut listener = TcpListener::bind(port.addr()).expect("the port is ours");
        poll.registry()
            .register(&mut listener, LISTENER, Interest::READABLE)
            .expect("a listener can be polled");
        let thread = Worker {
            poll,
            listener: Some(listener),
            addr: port.addr(),
            server,
            commands: received,
            counts: Arc::clone(&counts),
            links: BTreeMap::new(),
            next: 0,
            flow: Flow::Pass,
            budget: None,
            door: Door::Open,
        };
        let thread = thread::Builder::new()
            .name("kit-proxy".into())
            .spawn(move || thread.run())
            .expect("a thread");
        Self {
            port,
            commands,
            waker,
            counts,
            thread: Some(thread),
        }
    }

    pub fn url(&self) -> String {
        format!("ws://{}/parse", self.port.addr())
    }

    /// Forwards everything again, what was held back first; accepts connections.
    pub fn heal(&self) {
        self.flow(Flow::Pass);
        self.door(Door::Open);
    }

    /// Forwards nothing in either direction, of old and new connections; nothing is closed. What came in the meantime
    /// is forwarded when the proxy heals, as TCP would send it again.
    pub fn blackhole(&self) {
        self.flow(Flow::Blackhole);
    }

    /// Forwards bytes this much later than they came.
    pub fn delay(&self, delay: Duration) {
        self.flow(Flow::Delay(delay));
    }

    /// Forwards what the server writes this much later than it came, and what the client writes at once.
    pub fn lag(&self, delay: Duration) {
        self.flow(Flow::Lag(delay));
    }

    /// Forwards this many bytes in each direction, waits so long, forwards the next.
    pub fn chunks_of(&self, bytes: usize, pause: Duration) {
        self.flow(Flow::Trickle(bytes, pause));
    }

    /// Lets this many further bytes of each connection, present and future, through to the client, and then forwards
    /// nothing of it in either direction.
    pub fn stall_after(&self, bytes: u64) {
        self.command(Command::StallAfter(bytes));
    }

    /// Ends all connections with FIN, both ends.
    pub fn cut(&self) {
        self.command(Command::End { reset: false });
    }

    /// Ends all connections with RST, both ends.
    pub fn reset(&self) {
        self.command(Command::End { reset: true });
    }

    /// Closes the listener: connecting is refused. The connections that there are live on.
    pub fn refuse(&self) {
        self.door(Door::Refuse);
    }

    /// Accepts each new connection and closes it at once.
    pub fn accept_and_close(&self) {
        self.door(Door::AcceptAndClose);
    }

    /// How many connections were accepted, those that were closed at once too.
    pub fn accepts(&self) -> usize {
        self.counts.lock().accepts
    }

    /// How many connections the clients hold open.
    pub fn open_now(&self) -> usize {
        self.command(Command::Look);
        self.counts.lock().open
    }

    /// The most connections that clients held open at once.
    pub fn max_open(&self) -> usize {
        self.counts.lock().max_open
    }

    /// How many bytes were forwarded to clients.
    pub fn bytes_down(&self) -> u64 {
        self.counts.lock().bytes_down
    }

    fn flow(&self, flow: Flow) {
        self.command(Command::Flow(flow));
    }

    fn door(&self, door: Door) {
        self.command(Command::Door(door));
    }

    /// Returns when the command was carried out.
    fn command(&self, command: Command) {
        let (done, wait) = bounded(1);
        self.commands.send((command, done)).expect("the proxy runs");
        self.waker.wake().expect("the proxy runs");
        wait.recv().expect("the proxy runs");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.command(Command::Stop);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the proxy's thread does not panic");
        }
    }
}

struct Worker {
    poll: Poll,
    listener: Option<TcpListener>,
    addr: SocketAddr,
    server: SocketAddr,
    commands: Receiver<(Command, Sender<()>)>,
    counts: Arc<Mutex<Counts>>,
    links: BTreeMap<usize, Link>,
    next: usize,
    flow: Flow,
    budget: Option<u64>,
    door: Door,
}

impl Worker {
    fn run(mut self) {
        let mut events = Events::with_capacity(64);
        let mut due = None;
        loop {
            let wait = due.map(|due: Instant| due.saturating_duration_since(Instant::now()));
            match self.poll.poll(&mut events, wait) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                result => result.expect("a poller polls"),
            }
            // What the commands change holds for the bytes that were there before them.
            self.turn();
            self.accept();
            let mut acknowledge = vec![];
            while let Ok((command, done)) = self.commands.try_recv() {
                if matches!(command, Command::Stop) {
                    self.links.clear();
                    drop(self);
                    let _ = done.send(());
                    return;
                }
                self.obey(command);
                acknowledge.push(done);
            }
            due = self.turn();
            for done in acknowledge {
                // Whoever gave the command may have stopped waiting: its test has failed.
                let _ = done.send(());
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Flow(flow) => {
                self.flow = flow;
                self.budget = None;
                self.links.values_mut().for_each(|link| link.budget = None);
            }
            Command::StallAfter(bytes) => {
                self.budget = Some(bytes);
                self.links.values_mut().for_each(|link| link.budget = Some(bytes));
            }
            Command::Door(door) => self.set_door(door),
            Command::End { reset } => {
                while let Some((_, link)) = self.links.pop_first() {
                    link.end(reset);
                }
            }
            Command::Look | Command::Stop => {}
        }
    }

    fn set_door(&mut self, door: Door) {
        self.door = door;
        if door == Door::Refuse {
            self.listener = None;
        } else if self.listener.is_none() {
            let mut listener = TcpListener::bind(self.addr).expect("the port is still ours");
            let registry = self.poll.registry();
            registry
                .register(&mut listener, LISTENER, Interest::READABLE)
                .expect("a listener can be polled");
            self.listener = Some(listener);
            // There may be connections already, and no edge to tell of them.
            self.accept();
        }
    }

    fn accept(&mut self) {
        while let Some(Ok((mut stream, _))) = self.listener.as_ref().map(TcpListener::accept) {
            self.counts.lock().accepts += 1;
            if self.door == Door::AcceptAndClose {
                continue;
            }
            let token = Token(self.next);
            self.next += 1;
            self.register(&mut stream, token);
            let link = Link {
                client: Side::new(stream),
                server: None,
                budget: self.budget,
            };
            self.links.insert(token.0, link);
            self.turn();
        }
    }

    fn register(&self, stream: &mut TcpStream, token: Token) {
        // Which socket an event is of does not matter: a turn looks at all.
        self.poll
            .registry()
            .register(stream, token, Interest::READABLE | Interest::WRITABLE)
            .expect("a socket can be polled");
        // Fails on a socket that the peer has closed already.
        let _ = stream.set_nodelay(true);
    }

    /// Moves every byte that can be moved, and says when the next one can.
    fn turn(&mut self) -> Option<Instant> {
        let now = Instant::now();
        let mut due: Option<Instant> = None;
        let mut ended = vec![];
        let mut links = std::mem::take(&mut self.links);
        for (&id, link) in &mut links {
            link.client.read();
            if link.server.is_none() && self.flow != Flow::Blackhole {
                match TcpStream::connect(self.server) {
                    Ok(mut stream) => {
                        self.register(&mut stream, Token(id));
                        let mut side = Side::new(stream);
                        side.connecting = true;
                        link.server = Some(side);
                    }
                    Err(_) => ended.push((id, false)),
                }
            }
            match link.turn(self.flow, now, &self.counts) {
                Turn::Due(at) => due = [due, at].into_iter().flatten().min(),
                Turn::Ended { reset } => ended.push((id, reset)),
            }
        }
        self.links = links;
        for (id, reset) in ended {
            if let Some(link) = self.links.remove(&id) {
                link.end(reset);
            }
        }
        let mut counts = self.counts.lock();
        counts.open = self.links.values().filter(|link| link.client.is_open()).count();
        counts.max_open = counts.max_open.max(counts.open);
        due
    }
}

struct Link {
    client: Side,
    /// `None` until the connection to the server was begun.
    server: Option<Side>,
    /// How many bytes may still go to the client before everything stops.
    budget: Option<u64>,
}

enum Turn {
    Due(Option<Instant>),
    Ended { reset: bool },
}

impl Link {
    fn turn(&mut self, flow: Flow, now: Instant, counts: &Mutex<Counts>) -> Turn {
        let mut due = None;
        loop {
            let Some(server) = &mut self.server else {
                self.client.read();
                return Turn::Due(None);
            };
            if server.connecting {
                match server
                    .stream
                    .take_error()
                    .map(|error| error.or_else(|| server.stream.peer_addr().err()))
                {
                    Ok(None) => server.connecting = false,
                    Ok(Some(error)) if error.kind() == ErrorKind::NotConnected => return Turn::Due(None),
                    _ => return Turn::Ended { reset: false },
                }
            }
            self.client.read();
            server.read();
            if flow == Flow::Blackhole || self.budget == Some(0) {
                return Turn::Due(None);
            }
            if self.client.broken || server.broken {
                return Turn::Ended { reset: true };
            }
            let up = self.client.forward_to(server, flow.upwards(), now, None);
            let down = server.forward_to(&mut self.client, flow.downwards(), now, self.budget);
            counts.lock().bytes_down += down.bytes;
            if let Some(budget) = &mut self.budget {
                *budget -= down.bytes;
            }
            if self.client.done() && server.done() {
                return Turn::Ended { reset: false };
            }
            if up.bytes + down.bytes == 0 {
                due = [due, up.due, down.due].into_iter().flatten().min();
                return Turn::Due(due);
            }
        }
    }

    fn end(self, reset: bool) {
        if reset {
            for side in [Some(self.client), self.server].into_iter().flatten() {
                // Fails on a socket that never got connected.
                let _ = SockRef::from(&side.stream).set_linger(Some(Duration::ZERO));
            }
        }
    }
}

struct Side {
    stream: TcpStream,
    connecting: bool,
    /// What was read here and not yet written on the other side, with the time when it was read.
    inbox: VecDeque<(Instant, Vec<u8>)>,
    inbox_bytes: usize,
    eof: bool,
    /// Whether the end was passed on to the other side.
    passed_eof: bool,
    /// The peer has sent RST.
    broken: bool,
    /// When the next byte may go out, if they trickle.
    next_byte: Option<Instant>,
}

#[derive(Default)]
struct Forwarded {
    bytes: u64,
    due: Option<Instant>,
}

impl Side {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            connecting: false,
            inbox: VecDeque::new(),
            inbox_bytes: 0,
            eof: false,
            passed_eof: false,
            broken: false,
            next_byte: None,
        }
    }

    fn is_open(&self) -> bool {
        !self.eof && !self.broken
    }

    fn done(&self) -> bool {
        self.eof && self.passed_eof
    }

    fn read(&mut self) {
        let mut chunk = [0; 64 * 1024];
        while self.is_open() && !self.connecting && self.inbox_bytes < INBOX_LIMIT {
            match self.stream.read(&mut chunk) {
                Ok(0) => self.eof = true,
                Ok(count) => {
                    self.inbox.push_back((Instant::now(), chunk[..count].to_vec()));
                    self.inbox_bytes += count;
                }
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => return,
                    ErrorKind::Interrupted => {}
                    _ => self.broken = true,
                },
            }
        }
    }

    fn forward_to(&mut self, other: &mut Self, flow: Flow, now: Instant, budget: Option<u64>) -> Forwarded {
        let mut forwarded = Forwarded::default();
        while let Some((at, bytes)) = self.inbox.front_mut() {
            let mut allowed = bytes.len();
            match flow {
                Flow::Pass => {}
                Flow::Blackhole => return forwarded,
                Flow::Delay(delay) | Flow::Lag(delay) => {
                    if now < *at + delay {
                        forwarded.due = Some(*at + delay);
                        return forwarded;
                    }
                }
                Flow::Trickle(size, _) => {
                    if let Some(next) = self.next_byte.filter(|next| now < *next) {
                        forwarded.due = Some(next);
                        return forwarded;
                    }
                    allowed = allowed.min(size);
                }
            }
            if let Some(budget) = budget {
                let left = usize::try_from(budget - forwarded.bytes).unwrap_or(usize::MAX);
                allowed = allowed.min(left);
                if allowed == 0 {
                    return forwarded;
                }
            }
            match other.stream.write(&bytes[..allowed]) {
                Ok(count) => {
                    bytes.drain(..count);
                    if bytes.is_empty() {
                        self.inbox.pop_front();
                    }
                    self.inbox_bytes -= count;
                    forwarded.bytes += count as u64;
                    if let Flow::Trickle(_, pause) = flow {
                        self.next_byte = Some(now + pause);
                    }
                }
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => return forwarded,
                    ErrorKind::Interrupted => {}
                    _ => {
                        other.broken = true;
                        return forwarded;
                    }
                },
            }
        }
        if self.eof && !self.passed_eof {
            self.passed_eof = true;
            // Fails if the other side is gone already.
            let _ = other.stream.shutdown(Shutdown::Write);
        }
        forwarded
    }
}

const WAKER: Token = Token(usize::MAX);
const LISTENER: Token = Token(usize::MAX - 1);

/// How much is read ahead of what can be forwarded: with more, a peer that does not read would not be felt.
const INBOX_LIMIT: usize = 1024 * 1024;
