//! A LiveQuery server under the test's command. Left alone it answers as Parse Server 9.10 does; the test takes over
//! at the steps that it is about. It knows the wire, and nothing of the client.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::mem;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use serde_json::Value;
use socket2::{Domain, SockRef, Socket, Type};
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::parse::{self, Session};
use super::{LONG, wire};

/// What a hook decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The server goes on as it would have without the hook.
    Default,
    /// The hook did all there is to do.
    Handled,
}

/// A text frame of a client.
#[derive(Clone, Debug)]
pub struct Received {
    /// The number of the connection, from 1.
    pub conn: usize,
    pub at: Instant,
    pub text: String,
    /// `Null` if the text is no JSON.
    pub frame: Value,
}

impl Received {
    pub fn op(&self) -> &str {
        self.frame["op"].as_str().unwrap_or_default()
    }

    pub fn request_id(&self) -> u64 {
        self.frame["requestId"].as_u64().unwrap_or_default()
    }
}

type AcceptHook = Arc<dyn Fn(&Conn) -> Then + Send + Sync>;
type FrameHook = Arc<dyn Fn(&Conn, &Value) -> Then + Send + Sync>;

/// A LiveQuery server on loopback. Dropping it ends its listener, its connections and its threads.
#[derive(Debug)]
pub struct Server {
    shared: Arc<Shared>,
    addr: SocketAddr,
    listener: Mutex<Option<JoinHandle<()>>>,
    pinger: Mutex<Option<JoinHandle<()>>>,
}

impl Server {
    /// A server that answers each connection as Parse Server does.
    pub fn auto() -> Self {
        Self::start(true)
    }

    /// A server that accepts TCP connections and does nothing with them: the test takes each with
    /// [`accept`](Self::accept) and goes through its steps.
    pub fn scripted() -> Self {
        Self::start(false)
    }

    fn start(auto: bool) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback has a free port");
        let server = Self {
            addr: listener.local_addr().expect("a bound listener has an address"),
            shared: Arc::new(Shared {
                auto,
                ..Shared::default()
            }),
            listener: Mutex::default(),
            pinger: Mutex::default(),
        };
        server.listen_on(listener);
        server
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn url(&self) -> String {
        format!("ws://{}/parse", self.addr)
    }

    /// Runs on the thread of each new connection of an [`auto`](Self::auto) server, before the upgrade.
    pub fn on_accept(&self, hook: impl Fn(&Conn) -> Then + Send + Sync + 'static) {
        self.shared.state.lock().on_accept = Some(Arc::new(hook));
    }

    /// Runs on the thread of a connection for each JSON frame, after it was recorded and before it is answered.
    pub fn on_frame(&self, hook: impl Fn(&Conn, &Value) -> Then + Send + Sync + 'static) {
        self.shared.state.lock().on_frame = Some(Arc::new(hook));
    }

    /// No more hooks: from now on the server answers as Parse Server does.
    pub fn heal(&self) {
        let mut state = self.shared.state.lock();
        let hooks = (state.on_accept.take(), state.on_frame.take());
        drop(state);
        // What the hooks captured may call the server when it is dropped.
        drop(hooks);
    }

    /// Leaves new connections in the kernel's hands: their TCP handshake succeeds, and nothing comes after it.
    pub fn pause_accepting(&self) {
        self.shared.state.lock().accepting_paused = true;
    }

    pub fn resume_accepting(&self) {
        self.shared.state.lock().accepting_paused = false;
        self.shared.notify();
    }

    /// Closes the listener, so that connecting is refused. The connections that there are live on.
    pub fn refuse(&self) {
        let Some(thread) = self.listener.lock().take() else {
            return;
        };
        self.shared.state.lock().refusing = true;
        self.shared.notify();
        // Wakes the thread out of `accept`.
        drop(TcpStream::connect_timeout(&self.addr, LONG));
        thread.join().expect("the listener's thread does not panic");
    }

    /// Listens again, on the same port.
    pub fn listen_again(&self) {
        self.shared.state.lock().refusing = false;
        self.listen_on(TcpListener::bind(self.addr).expect("the port is still ours"));
    }

    /// Pings each connection as Parse Server does, and ends it if a ping is not answered before the next one is due
    /// (LiveQuery/ParseWebSocketServer.js; its default is 10 s).
    pub fn ping_every(&self, period: Duration) {
        let shared = Arc::clone(&self.shared);
        let thread = thread::Builder::new()
            .name("kit-ping".into())
            .spawn(move || shared.ping_until_stopped(period))
            .expect("a thread");
        assert!(
            self.pinger.lock().replace(thread).is_none(),
            "one pinger is enough"
        );
    }

    /// The next connection that nobody has taken yet.
    pub fn accept(&self) -> Conn {
        self.shared.wait("a further connection", |state| {
            let conn = state.conns.get(state.taken).cloned();
            state.taken += usize::from(conn.is_some());
            conn
        })
    }

    /// The connection of this number, from 1.
    pub fn conn(&self, number: usize) -> Conn {
        self.shared.wait(&format!("connection {number}"), |state| {
            state.conns.get(number - 1).cloned()
        })
    }

    /// The connections that are open, as far as their threads have noticed.
    pub fn open_conns(&self) -> Vec<Conn> {
        let state = self.shared.state.lock();
        state
            .open
            .iter()
            .map(|number| state.conns[number - 1].clone())
            .collect()
    }

    /// How many connections were accepted.
    pub fn accepts(&self) -> usize {
        self.shared.state.lock().conns.len()
    }

    /// How many connections the clients hold open, by the kernel's own table where there is one.
    pub fn open_now(&self) -> usize {
        established(self.addr.port()).unwrap_or_else(|| self.shared.state.lock().open.len())
    }

    /// The most connections that clients held open at the moment when one was accepted. A client that closes a
    /// connection before it makes the next never holds two.
    pub fn max_open(&self) -> usize {
        self.shared.state.lock().max_open
    }

    /// All text frames so far, in the order in which they were read.
    pub fn received(&self) -> Vec<Received> {
        self.shared.state.lock().received.clone()
    }

    /// The text frames with this `op`.
    pub fn received_op(&self, op: &str) -> Vec<Received> {
        let state = self.shared.state.lock();
        state
            .received
            .iter()
            .filter(|received| received.op() == op)
            .cloned()
            .collect()
    }

    /// Waits until the frames that came satisfy `look`.
    pub fn wait_received<T>(&self, what: &str, mut look: impl FnMut(&[Received]) -> Option<T>) -> T {
        self.shared.wait(what, |state| look(&state.received))
    }

    /// Waits until connection `number` has sent `count` frames with this `op`, and gives them.
    pub fn wait_op(&self, number: usize, op: &str, count: usize) -> Vec<Received> {
        self.wait_received(&format!("{count} {op} on connection {number}"), |all| {
            let found: Vec<_> = all
                .iter()
                .filter(|received| received.conn == number && received.op() == op)
                .cloned()
                .collect();
            (found.len() >= count).then_some(found)
        })
    }

    /// Waits until a subscription to the class is active on an open connection, and gives both.
    pub fn wait_subscribed(&self, class: &str) -> (Conn, u64) {
        self.shared.wait(&format!("a subscription to {class}"), |state| {
            state.open.iter().rev().find_map(|number| {
                let conn = &state.conns[number - 1];
                let id = conn.subscriptions_to(class).first().copied()?;
                Some((conn.clone(), id))
            })
        })
    }

    /// Sends an event to each active subscription to the class of the object, and says to how many.
    pub fn emit(&self, op: &str, object: &Value) -> usize {
        let class = object["className"].as_str().expect("an object has a class");
        let mut count = 0;
        for conn in self.open_conns() {
            for id in conn.subscriptions_to(class) {
                conn.event(op, id, object.clone(), None);
                count += 1;
            }
        }
        count
    }

    fn listen_on(&self, listener: TcpListener) {
        let shared = Arc::clone(&self.shared);
        let port = self.addr.port();
        let thread = thread::Builder::new()
            .name("kit-accept".into())
            .spawn(move || shared.accept_until_refusing(&listener, port))
            .expect("a thread");
        *self.listener.lock() = Some(thread);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.state.lock().stopping = true;
        self.shared.notify();
        let mut outcomes: Vec<_> = self
            .pinger
            .lock()
            .take()
            .into_iter()
            .map(JoinHandle::join)
            .collect();
        self.refuse();
        self.heal();
        let (conns, threads) = {
            let mut state = self.shared.state.lock();
            state.open.clear();
            (mem::take(&mut state.conns), mem::take(&mut state.threads))
        };
        for conn in &conns {
            conn.cut();
        }
        outcomes.extend(threads.into_iter().map(JoinHandle::join));
        let mut panics = mem::take(&mut self.shared.state.lock().panics);
        panics.retain(|text| text != STOPPED);
        if outcomes.iter().any(Result::is_err) {
            panics.push("a thread of the kit panicked itself".to_owned());
        }
        if !panics.is_empty() && !thread::panicking() {
            panic!("panics in the server: {panics:?}");
        }
    }
}

#[derive(Default)]
struct Shared {
    auto: bool,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    stopping: bool,
    refusing: bool,
    accepting_paused: bool,
    conns: Vec<Conn>,
    open: BTreeSet<usize>,
    max_open: usize,
    /// How many connections `accept` has handed out.
    taken: usize,
    received: Vec<Received>,
    on_accept: Option<AcceptHook>,
    on_frame: Option<FrameHook>,
    threads: Vec<JoinHandle<()>>,
    panics: Vec<String>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("auto", &self.auto)
            .finish_non_exhaustive()
    }
}

impl Shared {
    #[track_caller]
    fn wait<T>(&self, what: &str, mut look: impl FnMut(&mut State) -> Option<T>) -> T {
        let deadline = Instant::now() + LONG;
        let mut state = self.state.lock();
        loop {
            if let Some(found) = look(&mut state) {
                return found;
            }
            if state.stopping {
                drop(state);
                panic!("{STOPPED}");
            }
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                let text: Vec<_> = state
                    .received
                    .iter()
                    .map(|r| format!("{}: {}", r.conn, r.text))
                    .collect();
                let (accepts, open) = (state.conns.len(), state.open.clone());
                drop(state);
                panic!("no {what} within {LONG:?}; {accepts} accepts, open {open:?}, received {text:#?}");
            }
        }
    }

    fn accept_until_refusing(self: &Arc<Self>, listener: &TcpListener, port: u16) {
        loop {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => panic!("accept: {error}"),
            };
            let mut state = self.state.lock();
            while state.accepting_paused && !state.refusing {
                self.changed.wait(&mut state);
            }
            if state.refusing {
                return;
            }
            stream.set_nodelay(true).expect("a socket that was just accepted");
            stream
                .set_write_timeout(Some(Duration::from_millis(100)))
                .expect("a socket that was just accepted");
            let number = state.conns.len() + 1;
            let conn = Conn(Arc::new(Link {
                number,
                stream: Mutex::new(Some(Arc::new(stream))),
                write: Mutex::new(()),
                pong: AtomicBool::new(true),
                owed_pong: AtomicBool::new(false),
                answer_close: AtomicBool::new(true),
                close_sent: AtomicBool::new(false),
                reading: AtomicBool::new(false),
                ended: AtomicBool::new(false),
                inner: Mutex::new(Inner {
                    session: Session::new(number),
                    request: None,
                    controls: vec![],
                    taken: 0,
                }),
                shared: Arc::clone(self),
            }));
            state.open.insert(number);
            // The threads of other connections may not have noticed their end yet; the kernel has.
            let open = established(port).unwrap_or(state.open.len());
            state.max_open = state.max_open.max(open);
            state.conns.push(conn.clone());
            if self.auto {
                let thread = spawn(&conn, Conn::serve);
                state.threads.push(thread);
            }
            drop(state);
            self.notify();
        }
    }

    /// Wakes those that wait. Conditions are looked at under the lock: taking it once in between means that none of
    /// them has looked before the change and falls asleep after the call.
    fn notify(&self) {
        drop(self.state.lock());
        self.changed.notify_all();
    }

    fn ping_until_stopped(&self, period: Duration) {
        let mut state = self.state.lock();
        let mut due = Instant::now() + period;
        while !state.stopping {
            if !self.changed.wait_until(&mut state, due).timed_out() {
                continue;
            }
            due += period;
            let open: Vec<_> = state
                .open
                .iter()
                .map(|number| state.conns[number - 1].clone())
                .collect();
            drop(state);
            for conn in open {
                if conn.0.owed_pong.swap(true, Ordering::Relaxed) {
                    conn.cut(); // ws.terminate()
                } else if conn.0.reading.load(Ordering::Relaxed) {
                    conn.ping(b"");
                } else {
                    conn.0.owed_pong.store(false, Ordering::Relaxed);
                }
            }
            state = self.state.lock();
        }
    }
}

/// One connection to a [`Server`]. Clones are the same connection.
#[derive(Clone, Debug)]
pub struct Conn(Arc<Link>);

struct Link {
    number: usize,
    /// Gone once the connection was cut or reset: the socket closes when the last clone of this `Arc` is dropped.
    stream: Mutex<Option<Arc<TcpStream>>>,
    /// Held while a frame is written, so that frames of several threads do not mix.
    write: Mutex<()>,
    pong: AtomicBool,
    owed_pong: AtomicBool,
    answer_close: AtomicBool,
    close_sent: AtomicBool,
    /// Whether the connection was upgraded, and frames are read.
    reading: AtomicBool,
    ended: AtomicBool,
    inner: Mutex<Inner>,
    shared: Arc<Shared>,
}

struct Inner {
    session: Session,
    request: Option<String>,
    controls: Vec<(Control, Vec<u8>)>,
    /// How many text frames `expect_op` has handed out.
    taken: usize,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl Conn {
    /// The number of the connection at its server, from 1.
    pub fn number(&self) -> usize {
        self.0.number
    }

    /// Reads the upgrade request, with which a scripted connection starts, and gives its head.
    pub fn read_request(&self) -> String {
        let stream = self.stream().expect("the connection is still open");
        let (request, reader) = self.take_request(&stream).expect("a readable socket");
        let request = request.expect("the client asks for an upgrade");
        assert!(
            reader.is_empty(),
            "the client sends nothing before it was upgraded"
        );
        request
    }

    /// Answers the upgrade request, reading it first if nobody has, and reads frames from now on.
    pub fn upgrade(&self) {
        if self.request().is_none() {
            self.read_request();
        }
        self.send_raw(self.switching_protocols().as_bytes());
        self.take_over();
    }

    /// The answer with which [`upgrade`](Self::upgrade) upgrades, for a test that sends it in its own way.
    pub fn switching_protocols(&self) -> String {
        wire::switching_protocols(&self.request().expect("the request was read"))
    }

    /// Reads frames from now on: the test has upgraded the connection.
    pub fn take_over(&self) {
        self.0.reading.store(true, Ordering::Relaxed);
        let thread = spawn(self, Self::read_frames);
        self.0.shared.state.lock().threads.push(thread);
    }

    /// The head of the upgrade request, once it was read.
    pub fn request(&self) -> Option<String> {
        self.0.inner.lock().request.clone()
    }

    /// Goes through upgrade, `connect` and `connected`.
    pub fn connect(&self) -> Value {
        self.upgrade();
        let frame = self.expect_op("connect");
        self.connected();
        frame
    }

    /// The next text frame of this connection that nobody has expected yet, which must have this `op`.
    #[track_caller]
    pub fn expect_op(&self, op: &str) -> Value {
        let frame = self.expect_frame(&format!("{op:?}"));
        assert_eq!(frame["op"], op, "the next frame is {frame}");
        frame
    }

    /// Like [`expect_op`](Self::expect_op), and gives the requestId.
    #[track_caller]
    pub fn expect_id(&self, op: &str) -> u64 {
        self.expect_op(op)["requestId"].as_u64().expect("a requestId")
    }

    #[track_caller]
    fn expect_frame(&self, what: &str) -> Value {
        let number = self.0.number;
        self.0
            .shared
            .wait(&format!("{what} on connection {number}"), |state| {
                let mut inner = self.0.inner.lock();
                let mut frames = state.received.iter().filter(|received| received.conn == number);
                let frame = frames.nth(inner.taken).map(|received| received.frame.clone());
                inner.taken += usize::from(frame.is_some());
                assert!(
                    frame.is_some() || state.open.contains(&number),
                    "no {what}: connection {number} ended before it"
                );
                frame
            })
    }

    /// Text frames that came on this connection.
    pub fn received(&self) -> Vec<Received> {
        let state = self.0.shared.state.lock();
        state
            .received
            .iter()
            .filter(|received| received.conn == self.0.number)
            .cloned()
            .collect()
    }

    /// The active subscriptions, each with the frame that made it.
    pub fn subscriptions(&self) -> BTreeMap<u64, Value> {
        self.0.inner.lock().session.subscriptions().clone()
    }

    /// The requestIds of the active subscriptions to a class.
    pub fn subscriptions_to(&self, class: &str) -> Vec<u64> {
        let inner = self.0.inner.lock();
        let all = inner.session.subscriptions().iter();
        all.filter(|(_, frame)| frame["query"]["className"] == class)
            .map(|(id, _)| *id)
            .collect()
    }

    /// Sends `connected`.
    pub fn connected(&self) {
        let message = self.0.inner.lock().session.connected();
        self.send(&message);
    }

    /// Sends `subscribed`.
    pub fn subscribed(&self, request_id: u64) {
        self.send(&self.subscribed_message(request_id));
    }

    /// The message that [`subscribed`](Self::subscribed) sends, for a test that sends it in its own way. The
    /// subscription is active from now on.
    pub fn subscribed_message(&self, request_id: u64) -> Value {
        let frames = self.received();
        let frame = frames
            .iter()
            .rev()
            .find(|received| received.request_id() == request_id);
        let frame = frame.map(|received| received.frame.clone()).unwrap_or_default();
        self.0.inner.lock().session.subscribed(request_id, frame)
    }

    /// Sends `unsubscribed`.
    pub fn unsubscribed(&self, request_id: u64) {
        let message = self.0.inner.lock().session.unsubscribed(request_id);
        self.send(&message);
    }

    /// Sends an event, whether or not there is such a subscription.
    pub fn event(&self, op: &str, request_id: u64, object: Value, original: Option<Value>) {
        self.send(&self.event_message(op, request_id, object, original));
    }

    /// The message that [`event`](Self::event) sends.
    pub fn event_message(&self, op: &str, request_id: u64, object: Value, original: Option<Value>) -> Value {
        self.0
            .inner
            .lock()
            .session
            .event(op, request_id, object, original)
    }

    /// Sends an error; without a requestId it is `null`, as from Parse Server.
    pub fn error(&self, code: i64, text: &str, reconnect: bool, request_id: Option<u64>) {
        self.send(&parse::error(code, text, reconnect, request_id));
    }

    /// Does what Parse Server would do with this frame: for hooks that only want to do something before it.
    pub fn answer(&self, frame: &Value) {
        self.answer_text(&frame.to_string());
    }

    /// Sends a JSON value as a text frame.
    pub fn send(&self, message: &Value) {
        self.send_text(&message.to_string());
    }

    pub fn send_text(&self, text: &str) {
        self.send_raw(&wire::encode(OpCode::Data(Data::Text), true, text.as_bytes()));
    }

    pub fn send_binary(&self, bytes: &[u8]) {
        self.send_raw(&wire::encode(OpCode::Data(Data::Binary), true, bytes));
    }

    /// Sends several messages with one `write`, so that they share a TCP segment if they fit into one.
    pub fn send_together(&self, messages: &[Value]) {
        let frames: Vec<u8> = messages
            .iter()
            .flat_map(|message| wire::encode(OpCode::Data(Data::Text), true, message.to_string().as_bytes()))
            .collect();
        self.send_raw(&frames);
    }

    /// Sends a text message in frames of `size` bytes each.
    pub fn send_fragmented(&self, text: &str, size: usize) {
        let count = text.len().div_ceil(size);
        for (at, chunk) in text.as_bytes().chunks(size).enumerate() {
            let data = if at == 0 { Data::Text } else { Data::Continue };
            self.send_raw(&wire::encode(OpCode::Data(data), at + 1 == count, chunk));
        }
    }

    pub fn ping(&self, payload: &[u8]) {
        self.send_raw(&wire::encode(OpCode::Control(Control::Ping), true, payload));
    }

    /// Whether pings of the client are answered. They are, unless the test says otherwise.
    pub fn answer_pings(&self, answer: bool) {
        self.0.pong.store(answer, Ordering::Relaxed);
    }

    /// Whether a close frame of the client is answered, and the connection then ended. It is, unless the test says
    /// otherwise.
    pub fn answer_close(&self, answer: bool) {
        self.0.answer_close.store(answer, Ordering::Relaxed);
    }

    /// Sends bytes as they are. What the peer does not take because it is gone is lost, as in every network.
    pub fn send_raw(&self, bytes: &[u8]) {
        let Some(stream) = self.stream() else { return };
        let _one_at_a_time = self.0.write.lock();
        let ended = || self.0.ended.load(Ordering::Relaxed);
        if let Err(error) = wire::write_all(&stream, bytes, LONG, ended) {
            assert!(
                error.kind() != io::ErrorKind::WouldBlock || ended(),
                "the client did not read for {LONG:?}"
            );
        }
    }

    /// Sends a close frame; the socket stays open until the client ends it.
    pub fn close(&self, code: u16, reason: &str) {
        self.0.close_sent.store(true, Ordering::Relaxed);
        let mut payload = code.to_be_bytes().to_vec();
        payload.extend_from_slice(reason.as_bytes());
        self.send_raw(&wire::encode(OpCode::Control(Control::Close), true, &payload));
    }

    /// Ends the connection with FIN and no close frame.
    pub fn cut(&self) {
        self.0.ended.store(true, Ordering::Relaxed);
        if let Some(stream) = self.0.stream.lock().take() {
            // Fails if the peer was faster, which is as well.
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.forget();
    }

    /// Ends the connection with RST. The kernel sends it when the thread that reads has let go of the socket.
    pub fn reset(&self) {
        self.0.ended.store(true, Ordering::Relaxed);
        if let Some(stream) = self.0.stream.lock().take() {
            SockRef::from(&*stream)
                .set_linger(Some(Duration::ZERO))
                .expect("a TCP socket");
            // Sends nothing, and wakes the thread that reads.
            let _ = stream.shutdown(Shutdown::Read);
        }
        self.forget();
    }

    /// Waits until the client has ended the connection, or it was ended here.
    #[track_caller]
    pub fn wait_ended(&self) {
        let number = self.0.number;
        self.0
            .shared
            .wait(&format!("end of connection {number}"), |state| {
                (!state.open.contains(&number)).then_some(())
            });
    }

    /// Waits for a control frame of the client and gives its payload.
    #[track_caller]
    pub fn wait_control(&self, kind: Control) -> Vec<u8> {
        self.0
            .shared
            .wait(&format!("{kind} on connection {}", self.0.number), |_| {
                let inner = self.0.inner.lock();
                inner
                    .controls
                    .iter()
                    .find(|(control, _)| *control == kind)
                    .map(|(_, payload)| payload.clone())
            })
    }

    /// The control frames of the client, in order.
    pub fn controls(&self) -> Vec<(Control, Vec<u8>)> {
        self.0.inner.lock().controls.clone()
    }

    fn stream(&self) -> Option<Arc<TcpStream>> {
        self.0.stream.lock().clone()
    }

    /// The whole life of a connection to an `auto` server.
    fn serve(&self) {
        let hook = self.0.shared.state.lock().on_accept.clone();
        if hook.is_some_and(|hook| hook(self) == Then::Handled) {
            if !self.0.reading.load(Ordering::Relaxed) {
                self.discard_until_end();
            }
            return;
        }
        let Some(stream) = self.stream() else { return };
        if self.request().is_none() && !matches!(self.take_request(&stream), Ok((Some(_), _))) {
            return self.cut();
        }
        drop(stream);
        self.send_raw(self.switching_protocols().as_bytes());
        self.0.reading.store(true, Ordering::Relaxed);
        self.read_frames();
    }

    /// What is left for a connection that a hook has taken over, without an upgrade: to notice its end.
    fn discard_until_end(&self) {
        if let Some(stream) = self.stream() {
            // Ends with the connection, whichever way.
            let _ = io::copy(&mut &*stream, &mut io::sink());
        }
        self.cut();
    }

    fn take_request(&self, stream: &TcpStream) -> io::Result<(Option<String>, wire::Reader)> {
        let mut reader = wire::Reader::default();
        let request = reader.request(stream)?;
        self.0.inner.lock().request.clone_from(&request);
        Ok((request, reader))
    }

    fn read_frames(&self) {
        // The loop owns no clone of the socket between two frames but its own, so that a reset is one.
        if let Some(stream) = self.stream() {
            let mut reader = wire::Reader::default();
            let mut message = Vec::new();
            while let Ok(Some(frame)) = reader.frame(&stream) {
                match frame.opcode {
                    OpCode::Data(_) => {
                        message.extend_from_slice(&frame.payload);
                        if frame.is_final {
                            self.take_message(String::from_utf8_lossy(&mem::take(&mut message)).into_owned());
                        }
                    }
                    OpCode::Control(control) => self.take_control(control, frame.payload),
                }
            }
        }
        self.cut();
    }

    fn take_message(&self, text: String) {
        let frame: Value = serde_json::from_str(&text).unwrap_or_default();
        let mut state = self.0.shared.state.lock();
        state.received.push(Received {
            conn: self.0.number,
            at: Instant::now(),
            text: text.clone(),
            frame: frame.clone(),
        });
        let hook = state.on_frame.clone();
        drop(state);
        self.0.shared.notify();
        if hook.is_some_and(|hook| hook(self, &frame) == Then::Handled) {
            return;
        }
        if self.0.shared.auto {
            self.answer_text(&text);
        }
    }

    fn answer_text(&self, text: &str) {
        let answers = self.0.inner.lock().session.answer(text);
        for answer in answers {
            self.send(&answer);
        }
        self.0.shared.notify();
    }

    fn take_control(&self, control: Control, payload: Vec<u8>) {
        match control {
            Control::Ping if self.0.pong.load(Ordering::Relaxed) => {
                self.send_raw(&wire::encode(OpCode::Control(Control::Pong), true, &payload));
            }
            Control::Pong => self.0.owed_pong.store(false, Ordering::Relaxed),
            Control::Close if self.0.answer_close.load(Ordering::Relaxed) => {
                // As RFC 6455 has it: the server answers a close frame, unless it was the first to send one, and then
                // ends the TCP connection.
                if !self.0.close_sent.load(Ordering::Relaxed) {
                    self.send_raw(&wire::encode(OpCode::Control(Control::Close), true, &payload));
                }
                self.cut();
            }
            _ => {}
        }
        self.0.inner.lock().controls.push((control, payload));
        self.0.shared.notify();
    }

    fn forget(&self) {
        self.0.shared.state.lock().open.remove(&self.0.number);
        self.0.shared.changed.notify_all();
    }
}

fn spawn(conn: &Conn, run: fn(&Conn)) -> JoinHandle<()> {
    let conn = conn.clone();
    thread::Builder::new()
        .name("kit-conn".into())
        .spawn(move || {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| run(&conn))) {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                let mut state = conn.0.shared.state.lock();
                state.panics.push(text.unwrap_or_default());
                drop(state);
                conn.cut();
            }
        })
        .expect("a thread")
}

/// A port of which the queue of connections is full: connecting neither succeeds nor fails, as behind a firewall that
/// drops packets. `None` where the kernel does not do it so.
#[derive(Debug)]
pub struct FullBacklog {
    addr: SocketAddr,
    _sockets: (Socket, Vec<TcpStream>),
}

impl FullBacklog {
    pub fn new() -> Option<Self> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket
            .bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())
            .expect("a free port");
        socket.listen(0).expect("a bound socket listens");
        let addr = socket.local_addr().expect("a bound socket").as_socket()?;
        let mut fill = vec![];
        for _ in 0..8 {
            match TcpStream::connect_timeout(&addr, Duration::from_millis(300)) {
                Ok(stream) => fill.push(stream),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    let _sockets = (socket, fill);
                    return Some(Self { addr, _sockets });
                }
                Err(_) => return None,
            }
        }
        None
    }

    pub fn url(&self) -> String {
        format!("ws://{}/parse", self.addr)
    }
}

const STOPPED: &str = "the server was dropped during this wait";

/// How many connections to this port have a client that has not closed its end, by the kernel's table. Both ends are
/// in the table; those of the server are the ones with the port as their own.
fn established(port: u16) -> Option<usize> {
    const ESTABLISHED: &str = "01";
    let table = std::fs::read_to_string("/proc/self/net/tcp").ok()?;
    let own = format!(":{port:04X}");
    Some(
        table
            .lines()
            .skip(1)
            .filter(|line| {
                let mut columns = line.split_whitespace().skip(1);
                let local = columns.next().is_some_and(|local| local.ends_with(&own));
                local && columns.nth(1) == Some(ESTABLISHED)
            })
            .count(),
    )
}
