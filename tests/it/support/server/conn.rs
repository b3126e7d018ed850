//! One connection to the scripted server: what it sends, what it has received, how it ends.

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::mem;
use std::net::{Shutdown, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use serde_json::Value;
use socket2::SockRef;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use super::{Received, Shared, Then};
use crate::support::parse::{self, Session};
use crate::support::{LONG, Socket, wire};

/// One connection to a [`Server`]. Clones are the same connection.
#[derive(Clone, Debug)]
pub struct Conn(Arc<Link>);

struct Link {
    number: usize,
    /// Gone once the connection was cut or reset: it closes when the last clone is dropped.
    stream: Mutex<Option<Socket>>,
    /// Held while a frame is written, so that frames of several threads do not mix.
    write: Mutex<()>,
    pong: AtomicBool,
    owed_pong: AtomicBool,
    answer_close: AtomicBool,
    reset_on_close: AtomicBool,
    close_sent: AtomicBool,
    /// Whether the connection was upgraded, and frames are read.
    reading: AtomicBool,
    inner: Mutex<Inner>,
    shared: Arc<Shared>,
}

struct Inner {
    session: Session,
    request: Option<String>,
    /// The subscriptions whose `subscribed` was sent, or is being sent: what the client may know of.
    announced: BTreeSet<u64>,
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
    pub(super) fn new(number: usize, stream: TcpStream, shared: Arc<Shared>) -> Self {
        stream.set_nodelay(true).expect("a socket that was just accepted");
        Self(Arc::new(Link {
            number,
            stream: Mutex::new(Some(Socket::new(stream))),
            write: Mutex::new(()),
            pong: AtomicBool::new(true),
            owed_pong: AtomicBool::new(false),
            answer_close: AtomicBool::new(true),
            reset_on_close: AtomicBool::new(false),
            close_sent: AtomicBool::new(false),
            reading: AtomicBool::new(false),
            inner: Mutex::new(Inner {
                session: Session::new(number),
                request: None,
                announced: BTreeSet::new(),
                controls: vec![],
                taken: 0,
            }),
            shared,
        }))
    }

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
        self.upgrade_with(&[]);
    }

    /// Like [`upgrade`](Self::upgrade), with bytes that follow the answer in the same TCP segment.
    pub fn upgrade_with(&self, glued: &[u8]) {
        if self.request().is_none() {
            self.read_request();
        }
        self.send_raw(&[self.switching_protocols().as_bytes(), glued].concat());
        self.take_over();
    }

    /// The answer with which [`upgrade`](Self::upgrade) upgrades, for a test that sends it in its own way.
    pub fn switching_protocols(&self) -> String {
        wire::switching_protocols(&self.request().expect("the request was read"))
    }

    /// Reads frames from now on: the test has upgraded the connection.
    pub fn take_over(&self) {
        self.0.reading.store(true, Ordering::Relaxed);
        let thread = self.spawn(Self::read_frames);
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

    /// The requestIds of the active subscriptions to a class, of those whose `subscribed` is on its way.
    pub fn subscriptions_to(&self, class: &str) -> Vec<u64> {
        let inner = self.0.inner.lock();
        let all = inner.session.subscriptions().iter();
        all.filter(|(id, frame)| inner.announced.contains(id) && frame["query"]["className"] == class)
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
        let mut inner = self.0.inner.lock();
        inner.announced.insert(request_id);
        inner.session.subscribed(request_id, frame)
    }

    /// From now on the server does not have this subscription; the client is not told.
    pub fn forget_subscription(&self, request_id: u64) {
        self.0.inner.lock().session.forget(request_id);
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
        self.send_raw(&Self::frame_of(message));
    }

    pub fn send_text(&self, text: &str) {
        self.send_raw(&wire::encode(OpCode::Data(Data::Text), true, text.as_bytes()));
    }

    pub fn send_binary(&self, bytes: &[u8]) {
        self.send_raw(&wire::encode(OpCode::Data(Data::Binary), true, bytes));
    }

    /// Sends several messages with one `write`, so that they share a TCP segment if they fit into one.
    pub fn send_together(&self, messages: &[Value]) {
        self.send_raw(&Self::frames_of(messages));
    }

    /// The bytes that [`send_together`](Self::send_together) sends, for a test that sends them more than once.
    pub fn frames_of(messages: &[Value]) -> Vec<u8> {
        messages.iter().flat_map(Self::frame_of).collect()
    }

    fn frame_of(message: &Value) -> Vec<u8> {
        wire::encode(OpCode::Data(Data::Text), true, parse::text(message).as_bytes())
    }

    /// Sends a text message in frames of `size` bytes each.
    pub fn send_fragmented(&self, text: &str, size: usize) {
        let count = text.len().div_ceil(size);
        for (at, chunk) in text.as_bytes().chunks(size).enumerate() {
            let data = if at == 0 { Data::Text } else { Data::Continue };
            self.send_raw(&wire::encode(OpCode::Data(data), at + 1 == count, chunk));
        }
    }

    /// Sends one frame, which need not be a message.
    pub fn send_frame(&self, opcode: OpCode, is_final: bool, payload: &[u8]) {
        self.send_raw(&wire::encode(opcode, is_final, payload));
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

    /// Ends the connection with RST when the client sends a close frame, in place of an answer.
    pub fn reset_on_close(&self) {
        self.0.reset_on_close.store(true, Ordering::Relaxed);
    }

    /// Sends bytes as they are. What the peer does not take because it is gone is lost, as in every network.
    pub fn send_raw(&self, bytes: &[u8]) {
        self.write(bytes, &self.0.write.lock());
    }

    fn write(&self, bytes: &[u8], _one_at_a_time: &MutexGuard<'_, ()>) {
        let Some(mut stream) = self.stream() else { return };
        if let Err(error) = stream.write_all(bytes) {
            assert!(
                error.kind() != io::ErrorKind::TimedOut,
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
        if let Some(stream) = self.take_stream() {
            stream.end();
        }
        self.forget();
    }

    /// Ends the connection with RST. The kernel sends it when the thread that reads has let go of the socket.
    pub fn reset(&self) {
        if let Some(stream) = self.take_stream() {
            SockRef::from(stream.tcp())
                .set_linger(Some(Duration::ZERO))
                .expect("a TCP socket");
            // Sends nothing, and wakes the thread that reads.
            let _ = stream.tcp().shutdown(Shutdown::Read);
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

    /// What Parse Server does each time its ping is due.
    pub(super) fn ping_or_terminate(&self) {
        if !self.0.reading.load(Ordering::Relaxed) {
            return;
        }
        if self.0.owed_pong.swap(true, Ordering::Relaxed) {
            self.cut();
        } else {
            self.ping(b"");
        }
    }

    pub(super) fn stream(&self) -> Option<Socket> {
        self.0.stream.lock().clone()
    }

    /// The connection, for its end, after the frame that is being written. Does not wait for a client that does not
    /// read.
    fn take_stream(&self) -> Option<Socket> {
        if let Some(stream) = self.stream() {
            stream.stop();
        }
        let _after_the_present_frame = self.0.write.lock();
        self.0.stream.lock().take()
    }

    /// The whole life of a connection to an `auto` server.
    pub(super) fn serve(&self) {
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
        self.send_raw(wire::switching_protocols(&self.request().expect("just read")).as_bytes());
        self.0.reading.store(true, Ordering::Relaxed);
        self.read_frames();
    }

    /// What is left for a connection that a hook has taken over, without an upgrade: to notice its end.
    fn discard_until_end(&self) {
        if let Some(mut stream) = self.stream() {
            // Ends with the connection, whichever way.
            let _ = io::copy(&mut stream, &mut io::sink());
        }
        self.cut();
    }

    fn take_request(&self, stream: &Socket) -> io::Result<(Option<String>, wire::Reader)> {
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
            let bytes = Self::frame_of(&answer);
            // Who finds the subscription announced, and sends or cuts then, does so after this is on its way.
            let guard = self.0.write.lock();
            if answer["op"] == "subscribed" {
                self.0.inner.lock().announced.extend(answer["requestId"].as_u64());
            }
            self.write(&bytes, &guard);
        }
        self.0.shared.notify();
    }

    fn take_control(&self, control: Control, payload: Vec<u8>) {
        self.0.inner.lock().controls.push((control, payload.clone()));
        self.0.shared.notify();
        match control {
            Control::Ping if self.0.pong.load(Ordering::Relaxed) => {
                self.send_raw(&wire::encode(OpCode::Control(Control::Pong), true, &payload));
            }
            Control::Pong => self.0.owed_pong.store(false, Ordering::Relaxed),
            Control::Close if self.0.reset_on_close.load(Ordering::Relaxed) => self.reset(),
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
    }

    fn forget(&self) {
        self.0.shared.state.lock().open.remove(&self.0.number);
        self.0.shared.changed.notify_all();
    }

    pub(super) fn spawn(&self, run: fn(&Self)) -> JoinHandle<()> {
        let conn = self.clone();
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
}
