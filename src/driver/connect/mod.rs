//! The steps from a URL to a WebSocket, none of which blocks the I/O thread.

mod dial;
mod http;
mod proxy;
mod resolve;
mod upgrade;

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use mio::Registry;
use mio::net::TcpStream;
use tungstenite::WebSocket;
use tungstenite::protocol::{Role, WebSocketConfig};
use url::Url;

use self::dial::Dial;
pub(crate) use self::proxy::Proxies;
use self::proxy::Proxy;
pub(crate) use self::upgrade::Headers;
use self::upgrade::{Upgrade, Verdict};
use super::SOCKET;
use super::command::Commands;
use super::socket::Socket;
use super::stream::{ConnectedStream, Connector, Stream};
use super::tls::{self, explain};
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::session::Stage;
use crate::server_url::authority;

/// What the builder was told of the way to the server.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    pub(crate) headers: Headers,
    pub(crate) tls: tls::Settings,
    pub(crate) proxies: Proxies,
    /// Makes the connection in place of everything up to TLS.
    pub(crate) connector: Option<Connector>,
    /// The server's `ws` sends a message as one frame, so the limits of both are one.
    pub(crate) max_message_size: usize,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            headers: Headers::default(),
            tls: tls::Settings::default(),
            proxies: Proxies::default(),
            connector: None,
            max_message_size: 64 * 1024 * 1024,
        }
    }
}

/// What an attempt needs of the I/O thread.
#[derive(Debug)]
pub(crate) struct Io {
    pub(crate) registry: Registry,
    pub(crate) commands: Commands,
}

/// One attempt to connect: to one server, and to where it redirects.
#[derive(Debug)]
pub(crate) struct Attempt {
    /// Tells a late answer of the resolver.
    number: u64,
    url: Url,
    proxy: Option<Proxy>,
    redirects: u32,
    step: Step,
}

#[derive(Debug)]
enum Step {
    Resolving,
    Dialling(Dial),
    AwaitingConnector,
    Tunnelling(Socket, http::Reader),
    Securing(Socket),
    Upgrading(Socket, Upgrade, http::Reader),
}

/// What has come of an attempt.
#[derive(Debug)]
pub(crate) enum Progress {
    Up(Box<WebSocket<Socket>>),
    NotYet(Box<Attempt>),
}

/// What has come of a step.
enum Taken {
    Next(Step),
    Waiting(Step),
    Up(Box<WebSocket<Socket>>),
}

impl Attempt {
    /// Begins an attempt; [`advance`](Self::advance) is next.
    pub(crate) fn start(number: u64, url: Url, network: &Network, io: &Io) -> Result<Self> {
        let mut attempt = Self {
            number,
            url,
            proxy: None,
            redirects: 0,
            step: Step::Resolving,
        };
        attempt.step = attempt.set_out(network, io)?;
        Ok(attempt)
    }

    /// The resolver has answered.
    pub(crate) fn resolved(&mut self, attempt: u64, addresses: Result<Vec<SocketAddr>>) -> Result<()> {
        if attempt == self.number && matches!(self.step, Step::Resolving) {
            self.step = self.dial(addresses?);
        }
        Ok(())
    }

    /// The program has brought its own connection, or failed to.
    pub(crate) fn connected(
        &mut self,
        attempt: u64,
        stream: Result<ConnectedStream>,
        network: &Network,
        io: &Io,
    ) -> Result<()> {
        if attempt == self.number && matches!(self.step, Step::AwaitingConnector) {
            let stream = Stream::adopt(stream?, &io.registry).map_err(|error| {
                let text = "the connection of `connect_with` cannot be used";
                Error::with_source(ErrorKind::Connect, text, error)
            })?;
            self.step = self.secure(Socket::new(stream), network)?;
        }
        Ok(())
    }

    pub(crate) fn stage(&self) -> Stage {
        match self.step {
            Step::Resolving => Stage::Resolve,
            Step::AwaitingConnector => Stage::Connector,
            Step::Dialling(_) if self.proxy.is_some() => Stage::ConnectProxy,
            Step::Dialling(_) => Stage::Connect,
            Step::Tunnelling(..) => Stage::Proxy,
            Step::Securing(_) => Stage::Tls,
            Step::Upgrading(..) => Stage::Upgrade,
        }
    }

    /// When [`advance`](Self::advance) is due, if the connection has nothing to say before.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match &self.step {
            Step::Dialling(dial) => dial.deadline(),
            _ => None,
        }
    }

    /// What has failed of the attempt, while the rest of it goes on.
    pub(crate) fn trouble(&self) -> Option<&Error> {
        match &self.step {
            Step::Dialling(dial) => dial.last_error(),
            _ => None,
        }
    }

    /// Goes on as far as possible without waiting.
    pub(crate) fn advance(mut self: Box<Self>, network: &Network, io: &Io) -> Result<Progress> {
        loop {
            let step = std::mem::replace(&mut self.step, Step::Resolving);
            match self.take(step, network, io)? {
                Taken::Next(step) => self.step = step,
                Taken::Waiting(step) => {
                    self.step = step;
                    return Ok(Progress::NotYet(self));
                }
                Taken::Up(socket) => return Ok(Progress::Up(socket)),
            }
        }
    }

    /// Goes on with one step.
    fn take(&mut self, step: Step, network: &Network, io: &Io) -> Result<Taken> {
        match step {
            Step::Resolving | Step::AwaitingConnector => Ok(Taken::Waiting(step)),
            Step::Dialling(mut dial) => match dial.advance(&io.registry, SOCKET, Instant::now())? {
                None => Ok(Taken::Waiting(Step::Dialling(dial))),
                Some(stream) => self.reached_peer(stream, network).map(Taken::Next),
            },
            Step::Tunnelling(mut socket, mut reader) => match self.tunnel(&mut socket, &mut reader)? {
                false => Ok(Taken::Waiting(Step::Tunnelling(socket, reader))),
                true => self.secure(socket, network).map(Taken::Next),
            },
            Step::Securing(mut socket) => match socket.handshake() {
                Ok(false) => Ok(Taken::Waiting(Step::Securing(socket))),
                Ok(true) => {
                    let (upgrade, request) = Upgrade::new(&self.url, &network.headers);
                    socket.queue(request.as_bytes());
                    let reader = http::Reader::default();
                    Ok(Taken::Next(Step::Upgrading(socket, upgrade, reader)))
                }
                Err(error) => Err(self.failed(ErrorKind::Tls, "the TLS handshake", error)),
            },
            Step::Upgrading(mut socket, upgrade, mut reader) => {
                let answer = exchange(&mut socket, &mut reader)
                    .map_err(|error| self.failed(ErrorKind::Handshake, "the WebSocket upgrade", error))?;
                let Some(answer) = answer else {
                    return Ok(Taken::Waiting(Step::Upgrading(socket, upgrade, reader)));
                };
                match upgrade.judge(&self.url, answer)? {
                    Verdict::Accepted(rest) => {
                        let config = Some(network.web_socket_config());
                        let socket = WebSocket::from_partially_read(socket, rest, Role::Client, config);
                        Ok(Taken::Up(Box::new(socket)))
                    }
                    Verdict::Redirected(url) => {
                        // There is never more than one connection that may become a WebSocket.
                        drop(socket);
                        self.redirect(url, network, io).map(Taken::Next)
                    }
                }
            }
        }
    }

    /// Begins the way to the URL.
    fn set_out(&mut self, network: &Network, io: &Io) -> Result<Step> {
        if let Some(connector) = &network.connector {
            connector.start(&self.url, self.number, &io.commands)?;
            return Ok(Step::AwaitingConnector);
        }
        self.proxy = network.proxies.proxy_for(&self.url)?;
        let peer = self.proxy.as_ref().map_or(&self.url, |proxy| &proxy.url);
        let addresses = resolve::resolve(peer, self.number, &io.commands)?;
        Ok(addresses.map_or(Step::Resolving, |addresses| self.dial(addresses)))
    }

    fn dial(&self, addresses: Vec<SocketAddr>) -> Step {
        let peer = self.proxy.as_ref().map_or("server", |_| "proxy");
        Step::Dialling(Dial::new(peer, addresses, Instant::now()))
    }

    fn reached_peer(&self, stream: TcpStream, network: &Network) -> Result<Step> {
        // Small frames go out at once; a system that cannot do that still works.
        let _ = stream.set_nodelay(true);
        let mut socket = Socket::new(Stream::Tcp(stream));
        let Some(proxy) = &self.proxy else {
            return self.secure(socket, network);
        };
        let request = proxy.request(&self.url, network.headers.user_agent());
        socket.queue(request.as_bytes());
        Ok(Step::Tunnelling(socket, http::Reader::default()))
    }

    /// Whether the tunnel through the proxy is there.
    fn tunnel(&self, socket: &mut Socket, reader: &mut http::Reader) -> Result<bool> {
        let Some(proxy) = &self.proxy else {
            return Ok(true);
        };
        let answer = exchange(socket, reader).map_err(|error| {
            let (proxy, server) = (authority(&proxy.url), authority(&self.url));
            let text = format!("the proxy {proxy} opened no tunnel to {server}");
            Error::with_source(ErrorKind::Proxy, text, error)
        })?;
        match answer {
            None => Ok(false),
            Some(answer) => proxy.judge(&self.url, &answer).map(|()| true),
        }
    }

    fn secure(&self, mut socket: Socket, network: &Network) -> Result<Step> {
        if self.url.scheme() == "wss" {
            socket.secure(network.tls.connection(&self.url)?);
        }
        Ok(Step::Securing(socket))
    }

    fn redirect(&mut self, url: Url, network: &Network, io: &Io) -> Result<Step> {
        let (from, to) = (authority(&self.url), authority(&url));
        self.redirects += 1;
        if self.redirects > MOST_REDIRECTS {
            let text = format!(
                "{from} redirects the WebSocket upgrade once more, after {MOST_REDIRECTS} redirects; connect to the \
                 right URL from the start"
            );
            return Err(Error::new(ErrorKind::Handshake, text));
        }
        crate::logging::debug!("{from} redirects to {to}");
        self.url = url;
        self.set_out(network, io)
    }

    /// An error of the connection to the server, in the middle of a step.
    fn failed(&self, kind: ErrorKind, step: &str, error: io::Error) -> Error {
        let server = authority(&self.url);
        explain(&server, error)
            .unwrap_or_else(|error| Error::with_source(kind, format!("{step} with {server} failed"), error))
    }
}

/// Sends what is left of a request, and reads on in the answer to it.
fn exchange(socket: &mut Socket, reader: &mut http::Reader) -> io::Result<Option<http::Answer>> {
    socket.send()?;
    reader.read(socket)
}

impl Network {
    fn web_socket_config(&self) -> WebSocketConfig {
        WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_message_size(Some(self.max_message_size))
            .max_frame_size(Some(self.max_message_size))
    }
}

/// Enough for many events in one read, and little for a client that is idle.
const READ_BUFFER: usize = 16 * 1024;
const MOST_REDIRECTS: u32 = 3;
