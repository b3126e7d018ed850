//! A LiveQuery server under the test's command. Left alone it answers as Parse Server 9.10 does; the test takes over
//! at the steps that it is about. It knows the wire, and nothing of the client.

mod conn;
mod kernel;

use std::collections::BTreeSet;
use std::mem;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use serde_json::Value;

pub use self::conn::Conn;
pub use self::kernel::FullBacklog;
use super::LONG;
use super::port::Port;
use super::socket;

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
    port: Port,
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
        let port = Port::reserve();
        let listener = TcpListener::bind(port.addr()).expect("the port is ours");
        let server = Self {
            port,
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
        self.port.addr()
    }

    pub fn url(&self) -> String {
        format!("ws://{}/parse", self.addr())
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
        drop(TcpStream::connect_timeout(&self.addr(), LONG));
        thread.join().expect("the listener's thread does not panic");
    }

    /// Listens again, on the same port.
    pub fn listen_again(&self) {
        self.shared.state.lock().refusing = false;
        self.listen_on(TcpListener::bind(self.addr()).expect("the port is still ours"));
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

    /// How many connections the clients hold open.
    pub fn open_now(&self) -> usize {
        kernel::held_by_client(&self.open_conns())
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
        let thread = thread::Builder::new()
            .name("kit-accept".into())
            .spawn(move || shared.accept_until_refusing(&listener))
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

impl State {
    fn open_conns(&self) -> Vec<Conn> {
        self.open
            .iter()
            .map(|number| self.conns[number - 1].clone())
            .collect()
    }
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

    fn accept_until_refusing(self: &Arc<Self>, listener: &TcpListener) {
        loop {
            let stream = socket::accept(listener).expect("a listener accepts");
            let mut state = self.state.lock();
            while state.accepting_paused && !state.refusing {
                self.changed.wait(&mut state);
            }
            if state.refusing {
                return;
            }
            let others = state.open_conns();
            drop(state);
            let open = 1 + kernel::held_by_client(&others);
            let mut state = self.state.lock();
            let number = state.conns.len() + 1;
            let conn = Conn::new(number, stream, Arc::clone(self));
            state.open.insert(number);
            state.max_open = state.max_open.max(open);
            state.conns.push(conn.clone());
            if self.auto {
                let thread = conn.spawn(Conn::serve);
                // One that has ended, and was not joined, keeps its stack.
                state.threads.retain(|thread| !thread.is_finished());
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
            // Not twice in a row by a thread that was late: who is pinged has the whole period to answer.
            due = Instant::now() + period;
            let open: Vec<_> = state
                .open
                .iter()
                .map(|number| state.conns[number - 1].clone())
                .collect();
            drop(state);
            open.iter().for_each(Conn::ping_or_terminate);
            state = self.state.lock();
        }
    }
}

const STOPPED: &str = "the server was dropped during this wait";
