//! The steps from a URL to a WebSocket, none of which blocks the I/O thread.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::thread;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use tungstenite::client::IntoClientRequest;
use tungstenite::handshake::MidHandshake;
use tungstenite::handshake::client::ClientHandshake;
use tungstenite::protocol::WebSocketConfig;
use tungstenite::{HandshakeError, WebSocket};
use url::{Host, Url};

use super::socket::Socket;
use super::{Command, Commands};
use crate::protocol::message::excerpt;
use crate::{Error, ErrorKind, Result};

pub(crate) type Upgrade = MidHandshake<ClientHandshake<Socket>>;

/// Looks up the addresses of the server. `getaddrinfo` cannot be interrupted, so a name is looked up on a thread of
/// its own, which answers with a command; nobody waits for it. An IP address is its own answer.
pub(crate) fn resolve(url: &Url, attempt: u64, commands: &Commands) -> Result<Option<Vec<SocketAddr>>> {
    let port = url.port_or_known_default().unwrap_or(80);
    let name = match url.host() {
        Some(Host::Domain(name)) => name.to_owned(),
        Some(Host::Ipv4(ip)) => return Ok(Some(vec![SocketAddr::from((ip, port))])),
        Some(Host::Ipv6(ip)) => return Ok(Some(vec![SocketAddr::from((ip, port))])),
        None => return Ok(Some(Vec::new())),
    };
    let commands = commands.clone();
    thread::Builder::new()
        .name("livequery-resolve".to_owned())
        .spawn(move || {
            let addresses = (name.as_str(), port)
                .to_socket_addrs()
                .map(Iterator::collect)
                .map_err(|error| {
                    Error::with_source(
                        ErrorKind::Resolve,
                        format!("the name `{name}` cannot be resolved"),
                        error,
                    )
                });
            commands.send(Command::Resolved { attempt, addresses });
        })
        .map(|_| None)
        .map_err(|error| Error::with_source(ErrorKind::Io, "the resolver thread cannot be started", error))
}

/// An attempt to reach one of several addresses, one after another.
#[derive(Debug)]
pub(crate) struct Dial {
    addresses: VecDeque<SocketAddr>,
    current: Option<(TcpStream, SocketAddr)>,
    /// When to go on to the next address; the last one has what is left of the whole attempt.
    next_at: Option<Instant>,
    overall: Instant,
    last_error: Option<Error>,
}

pub(crate) enum Dialled {
    Connected(TcpStream),
    NotYet(Dial),
    Failed(Error),
}

impl Dial {
    pub(crate) fn new(addresses: Vec<SocketAddr>, now: Instant, budget: Duration) -> Self {
        Self {
            addresses: addresses.into(),
            current: None,
            next_at: None,
            overall: now + budget,
            last_error: None,
        }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.next_at
    }

    /// Goes on as far as possible without waiting.
    pub(crate) fn advance(mut self, registry: &Registry, token: Token, now: Instant) -> Dialled {
        loop {
            if let Some((stream, address)) = self.current.take() {
                match established(&stream) {
                    Ok(true) => return Dialled::Connected(stream),
                    Ok(false) if self.next_at.is_none_or(|at| now < at) => {
                        self.current = Some((stream, address));
                        return Dialled::NotYet(self);
                    }
                    Ok(false) => self.failed(address, io::ErrorKind::TimedOut.into()),
                    Err(error) => self.failed(address, error),
                }
            }
            let left = self.addresses.len();
            let Some(address) = self.addresses.pop_front() else {
                let none = || Error::new(ErrorKind::Resolve, "the name of the server has no address");
                return Dialled::Failed(self.last_error.take().unwrap_or_else(none));
            };
            self.next_at = (left > 1).then(|| {
                now + self.overall.saturating_duration_since(now) / u32::try_from(left).unwrap_or(u32::MAX)
            });
            let connecting = TcpStream::connect(address).and_then(|mut stream| {
                registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
                Ok(stream)
            });
            match connecting {
                Ok(stream) => self.current = Some((stream, address)),
                Err(error) => self.failed(address, error),
            }
        }
    }

    fn failed(&mut self, address: SocketAddr, error: io::Error) {
        let text = format!("no connection to {address}");
        self.last_error = Some(Error::with_source(ErrorKind::Connect, text, error));
    }
}

/// Whether a connection that was begun is there, as mio's `TcpStream::connect` says how to find out.
fn established(stream: &TcpStream) -> io::Result<bool> {
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    match stream.peer_addr() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
        Err(error) => Err(error),
    }
}

/// Begins the WebSocket upgrade.
pub(crate) fn upgrade(url: &Url, stream: TcpStream) -> Result<Box<Upgrade>> {
    // Small frames go out at once; a system that cannot do that still works.
    let _ = stream.set_nodelay(true);
    let config = WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(0)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    url.as_str()
        .into_client_request()
        .and_then(|request| ClientHandshake::start(Socket::new(stream), request, Some(config)))
        .map(Box::new)
        .map_err(|error| upgrade_failed(url, error))
}

pub(crate) enum Upgraded {
    Done(Box<WebSocket<Socket>>),
    NotYet(Box<Upgrade>),
    Failed(Error),
}

/// Goes on with the upgrade as far as possible without waiting.
pub(crate) fn advance_upgrade(url: &Url, upgrade: Box<Upgrade>) -> Upgraded {
    match upgrade.handshake() {
        Ok((socket, _)) => Upgraded::Done(Box::new(socket)),
        Err(HandshakeError::Interrupted(mut upgrade)) => match upgrade.get_mut().get_mut().send() {
            Ok(()) => Upgraded::NotYet(Box::new(upgrade)),
            Err(error) => Upgraded::Failed(upgrade_failed(url, error.into())),
        },
        Err(HandshakeError::Failure(error)) => Upgraded::Failed(upgrade_failed(url, error)),
    }
}

fn upgrade_failed(url: &Url, error: tungstenite::Error) -> Error {
    let server = format!(
        "{}:{}",
        url.host_str().unwrap_or_default(),
        url.port_or_known_default().unwrap_or(80)
    );
    match error {
        tungstenite::Error::Http(response) => {
            let body = response
                .body()
                .as_deref()
                .map(String::from_utf8_lossy)
                .unwrap_or_default();
            let body = excerpt(body.trim());
            let quoted = if body.is_empty() {
                String::new()
            } else {
                format!(" (`{body}`)")
            };
            Error::new(
                ErrorKind::Handshake,
                format!(
                    "{server} answered the WebSocket upgrade with HTTP {}{quoted}; check that LiveQuery is started on \
                     this server (`ParseServer.createLiveQueryServer`), and that a proxy before it passes the headers \
                     `Upgrade` and `Connection` on",
                    response.status()
                ),
            )
        }
        error => {
            let text = format!("the WebSocket upgrade with {server} failed");
            Error::with_source(ErrorKind::Handshake, text, error)
        }
    }
}

/// Enough for many events in one read, and little for a client that is idle.
const READ_BUFFER: usize = 16 * 1024;
/// The server's `ws` sends a message as one frame, so both limits are one.
const MAX_MESSAGE: usize = 64 * 1024 * 1024;
