//! Sockets and threads: one that accepts, and two for each connection. Must not know what the frames mean.
//!
//! Reading and writing have a thread each, so that a client that does not read delays only itself.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use mio::{Events, Interest, Poll, Token, Waker};
use tungstenite::protocol::{Role, WebSocketConfig};
use tungstenite::{Bytes, Message, WebSocket};

use super::http::HttpRequest;
use super::hub::Hub;
use super::socket::Socket;

/// The thread that accepts connections. Dropping it closes the listening socket and waits for the threads.
#[derive(Debug)]
pub(super) struct Acceptor {
    thread: Option<JoinHandle<()>>,
    waker: Waker,
    stop: Arc<AtomicBool>,
}

const LISTENER: Token = Token(0);
const STOP: Token = Token(1);
/// How long to wait before a failed accept is repeated.
const RETRY_AFTER: Duration = Duration::from_millis(20);
/// How often a reading thread checks whether the connection has ended. Shutting the socket down wakes it at
/// once, but not on every system.
const LOOK_AFTER: Duration = Duration::from_millis(200);

impl Acceptor {
    pub(super) fn start(listener: TcpListener, hub: Arc<Hub>, ping_interval: Duration) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), STOP)?;
        let mut listener = mio::net::TcpListener::from_std(listener);
        poll.registry()
            .register(&mut listener, LISTENER, Interest::READABLE)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::Builder::new()
            .name(String::from("parse-test-server"))
            .spawn(move || accept(poll, &listener, &stopped, &hub, ping_interval))?;
        Ok(Self {
            thread: Some(thread),
            waker,
            stop,
        })
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if self.waker.wake().is_ok() {
            if let Some(thread) = self.thread.take() {
                // The thread does not panic, and if it did, nothing could be done about it here.
                let _ = thread.join();
            }
        }
    }
}

fn accept(
    mut poll: Poll,
    listener: &mio::net::TcpListener,
    stop: &AtomicBool,
    hub: &Arc<Hub>,
    ping_interval: Duration,
) {
    let mut events = Events::with_capacity(8);
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    // Whether connections may be waiting that could not be accepted. mio announces each of them only once.
    let mut again = false;
    while !stop.load(Ordering::Relaxed) {
        if let Err(error) = poll.poll(&mut events, again.then_some(RETRY_AFTER)) {
            if error.kind() != io::ErrorKind::Interrupted {
                crate::logging::error!("test server: waiting for connections failed: {error}");
                break;
            }
        }
        again = false;
        while !again {
            match listener.accept() {
                Ok((socket, _)) => threads.extend(admit(socket, hub, ping_interval)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // The client went away before it was accepted, or there are no file descriptors left, which
                // lasts until some are closed.
                Err(error) => {
                    crate::logging::debug!("test server: accepting a connection failed: {error}");
                    again = true;
                }
            }
        }
        threads.retain(|thread| !thread.is_finished());
    }
    hub.change(|state| state.cut());
    for thread in threads {
        let _ = thread.join();
    }
}

fn admit(socket: mio::net::TcpStream, hub: &Arc<Hub>, ping_interval: Duration) -> Option<JoinHandle<()>> {
    let socket = TcpStream::from(socket);
    let setup = || {
        socket.set_nonblocking(false)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(LOOK_AFTER))?;
        // A client that does not read does not answer pings either.
        socket.set_write_timeout(Some(ping_interval.saturating_mul(2)))
    };
    if let Err(error) = setup() {
        crate::logging::debug!("test server: a new connection is gone: {error}");
        return None;
    }
    let socket = Arc::new(Socket::new(socket));
    let number = hub.admit(&socket)?;
    let hub = Arc::clone(hub);
    thread::Builder::new()
        .name(format!("parse-test-server-{number}"))
        .spawn(move || {
            serve(&hub, number, &socket, ping_interval);
            hub.closed(number);
        })
        .ok()
}

fn serve(hub: &Arc<Hub>, number: u64, socket: &Arc<Socket>, ping_interval: Duration) {
    let Some(()) = upgrade(hub, number, socket) else {
        return;
    };
    let (sender, outgoing) = crossbeam_channel::unbounded();
    if !hub.opened(number, sender) {
        return;
    }
    let waiting_for_pong = Arc::new(AtomicBool::new(false));
    let writer = {
        let mut writer = Writer {
            hub: Arc::clone(hub),
            socket: Arc::clone(socket),
            web_socket: WebSocket::from_raw_socket(WriteHalf(Arc::clone(socket)), Role::Server, None),
            outgoing,
            queue: VecDeque::new(),
            waiting_for_pong: Arc::clone(&waiting_for_pong),
            ping_interval,
        };
        thread::Builder::new()
            .name(format!("parse-test-server-{number}-writer"))
            .spawn(move || writer.run())
    };
    let Ok(writer) = writer else {
        return;
    };
    if read(hub, number, socket, &waiting_for_pong) == End::Close {
        // Removes the queue's sender, which ends the writer once the answer is sent.
        hub.ended(number);
    } else {
        hub.closed(number);
    }
    let _ = writer.join();
}

fn upgrade(hub: &Hub, number: u64, socket: &Arc<Socket>) -> Option<()> {
    if !hub.wait_for_turn(number, Some(Instant::now())) {
        return None;
    }
    let head = match HttpRequest::read(socket).ok()??.into_upgrade() {
        Ok(head) => head,
        Err(request) => {
            if let Err(error) = hub.answer_http(number, socket, &request) {
                crate::logging::debug!("test server: a request was not answered: {error}");
            }
            return None;
        }
    };
    // The path does not matter: the real server accepts WebSockets on every path. Nothing of this WebSocket
    // is lost, because tungstenite refuses clients that send frames before the handshake is answered.
    let stream = Stream {
        head: io::Cursor::new(head),
        socket: Arc::clone(socket),
    };
    tungstenite::accept(stream).ok().map(drop)
}

/// How a connection ended.
#[derive(PartialEq)]
enum End {
    /// By a close frame.
    Close,
    Lost,
}

fn read(hub: &Arc<Hub>, number: u64, socket: &Arc<Socket>, waiting_for_pong: &AtomicBool) -> End {
    let config = WebSocketConfig::default()
        .max_message_size(None)
        .max_frame_size(None);
    let stream = ReadHalf {
        socket: Arc::clone(socket),
        hub: Arc::clone(hub),
        number,
    };
    let mut web_socket = WebSocket::from_raw_socket(stream, Role::Server, Some(config));
    loop {
        match web_socket.read() {
            Ok(Message::Text(frame)) => hub.receive(number, &frame),
            Ok(Message::Binary(data)) => hub.receive_binary(number, data.len()),
            Ok(Message::Ping(payload)) => hub.send(number, Message::Pong(payload)),
            Ok(Message::Pong(_)) => waiting_for_pong.store(false, Ordering::Relaxed),
            Ok(Message::Close(frame)) => {
                hub.send(number, Message::Close(frame));
                return End::Close;
            }
            Ok(Message::Frame(_)) => {}
            Err(error) => {
                crate::logging::debug!("test server: connection {number} ended: {error}");
                return End::Lost;
            }
        }
    }
}

struct Writer {
    hub: Arc<Hub>,
    socket: Arc<Socket>,
    web_socket: WebSocket<WriteHalf>,
    outgoing: Receiver<(Instant, Message)>,
    queue: VecDeque<(Instant, Message)>,
    waiting_for_pong: Arc<AtomicBool>,
    ping_interval: Duration,
}

impl Writer {
    fn run(&mut self) {
        if let Err(error) = self.write_all() {
            crate::logging::debug!("test server: writing failed: {error}");
        }
        // The reader too.
        self.socket.end();
    }

    fn write_all(&mut self) -> tungstenite::Result<()> {
        let mut next_ping = Instant::now() + self.ping_interval;
        loop {
            let due = self.queue.front().map(|(due, _)| *due);
            match self
                .outgoing
                .recv_deadline(due.map_or(next_ping, |due| due.min(next_ping)))
            {
                Ok(message) => self.queue.push_back(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    self.write_due(None)?;
                    return Ok(());
                }
            }
            self.queue.extend(self.outgoing.try_iter());
            let now = Instant::now();
            self.write_due(Some(now))?;
            if now >= next_ping {
                next_ping = now + self.ping_interval;
                if self.hub.is_silent() {
                    self.waiting_for_pong.store(false, Ordering::Relaxed);
                } else if self.waiting_for_pong.swap(true, Ordering::Relaxed) {
                    return Ok(());
                } else {
                    self.web_socket.send(Message::Ping(Bytes::new()))?;
                }
            }
        }
    }

    fn write_due(&mut self, now: Option<Instant>) -> tungstenite::Result<()> {
        let mut wrote = false;
        while self
            .queue
            .front()
            .is_some_and(|(due, _)| now.is_none_or(|now| *due <= now))
        {
            if let Some((_, message)) = self.queue.pop_front().filter(|_| !self.hub.is_silent()) {
                self.web_socket.write(message)?;
                wrote = true;
            }
        }
        if wrote { self.web_socket.flush() } else { Ok(()) }
    }
}

struct Stream {
    /// Data that was read already.
    head: io::Cursor<Vec<u8>>,
    socket: Arc<Socket>,
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.head.read(buffer)? {
            0 => (&*self.socket).read(buffer),
            length => Ok(length),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        (&*self.socket).write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads, and discards tungstenite's automatic answers: pongs and closes go through the queue, so that only
/// one thread writes.
struct ReadHalf {
    socket: Arc<Socket>,
    hub: Arc<Hub>,
    number: u64,
}

impl Read for ReadHalf {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // All frames of the last piece of the stream have been processed.
        self.hub.settle(self.number);
        (&*self.socket).read(buffer)
    }
}

impl Write for ReadHalf {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct WriteHalf(Arc<Socket>);

impl Read for WriteHalf {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

impl Write for WriteHalf {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        (&*self.0).write(buffer)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
