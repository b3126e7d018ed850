//! The steps from a URL to a WebSocket, none of which blocks the I/O thread.

mod dial;
mod http;
mod proxy;
mod resolve;
mod socks;
mod upgrade;

use std::io::{self, Read};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::Registry;
use url::{Host, Url};

use self::dial::Dial;
#[cfg(feature = "rest")]
pub(crate) use self::http::{http_date, retry_after};
#[cfg(feature = "rest")]
pub(crate) use self::proxy::Kind as ProxyKind;
pub(crate) use self::proxy::Proxies;
use self::proxy::{Kind, Proxy};
use self::socks::{Heard, Socks, Target};
pub(crate) use self::upgrade::Headers;
use self::upgrade::{Upgrade, Verdict};
use super::ask::Asker;
use super::command::Commands;
use super::connector::Connector;
use super::link::{Link, fenced};
use super::socket::Socket;
use super::stream::{ConnectedStream, Stream};
use super::tls::{self, explain};
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::session::Stage;
use crate::server_url::authority;

/// The builder's settings for the way to the server.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    pub(crate) headers: Headers,
    pub(crate) tls: tls::Settings,
    pub(crate) proxies: Proxies,
    /// Makes the connection, replacing everything below TLS.
    pub(crate) connector: Option<Connector>,
    /// The server's `ws` sends each message as one frame, so one limit serves for both.
    pub(crate) max_message_size: usize,
    /// How long the server may leave waiting bytes unread, or a message incomplete.
    pub(crate) patience: Duration,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            headers: Headers::default(),
            tls: tls::Settings::default(),
            proxies: Proxies::default(),
            connector: None,
            max_message_size: 64 * 1024 * 1024,
            patience: Duration::from_secs(30),
        }
    }
}

/// The parts of the I/O thread that an attempt needs.
#[derive(Debug)]
pub(crate) struct Io {
    registry: Registry,
    commands: Commands,
    /// At most one thread for each name, and the builder's settings limit the number of names.
    resolver: Asker<(String, u16)>,
    /// At most one thread.
    connector: Asker<(String, u16)>,
}

impl Io {
    pub(crate) fn new(registry: Registry, commands: Commands) -> Self {
        Self {
            registry,
            commands,
            resolver: Asker::new(usize::MAX),
            connector: Asker::new(1),
        }
    }

    pub(crate) fn commands(&self) -> &Commands {
        &self.commands
    }
}

/// Why an attempt failed.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) error: Error,
    /// The pause that the server asks for.
    pub(crate) retry_after: Option<Duration>,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self {
            error,
            retry_after: None,
        }
    }
}

/// One attempt to connect, to one server and its redirects.
#[derive(Debug)]
pub(crate) struct Attempt {
    /// Identifies a late answer of the resolver.
    number: u64,
    url: Url,
    proxy: Option<Proxy>,
    /// What a SOCKS proxy is asked for.
    target: Option<Target>,
    redirects: u32,
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// Resolving the name of the server, for a SOCKS proxy that does not look it up.
    ResolvingTarget,
    Resolving,
    Dialling(Dial),
    AwaitingConnector,
    Tunnelling(Socket, http::Reader),
    Socks(Socket, Socks),
    Securing(Socket),
    Upgrading(Socket, Upgrade, http::Reader),
}

/// The progress of an attempt.
#[derive(Debug)]
pub(crate) enum Progress {
    Up(Box<Link>),
    NotYet(Box<Attempt>),
}

/// The result of a step.
enum Taken {
    Next(Step),
    Waiting(Step),
    Up(Box<Link>),
}

/// Each of these may call code of the program: its logger, its TLS configuration.
impl Attempt {
    /// Starts an attempt; [`advance`](Self::advance) is next.
    pub(crate) fn start(number: u64, url: Url, network: &Network, io: &Io) -> Result<Self, Failed> {
        fenced(|| {
            let mut attempt = Self {
                number,
                url,
                proxy: None,
                target: None,
                redirects: 0,
                step: Step::Resolving,
            };
            attempt.step = attempt.set_out(network, io)?;
            Ok(attempt)
        })?
    }

    /// The resolver has answered.
    pub(crate) fn resolved(
        &mut self,
        attempt: u64,
        addresses: Result<Vec<SocketAddr>>,
        io: &Io,
    ) -> Result<(), Failed> {
        if attempt == self.number {
            fenced(|| match self.step {
                Step::Resolving => {
                    self.step = self.dial(addresses?);
                    Ok(())
                }
                Step::ResolvingTarget => {
                    self.step = self.resolved_target(&addresses?, io)?;
                    Ok(())
                }
                _ => Ok(()),
            })?
        } else {
            Ok(())
        }
    }

    /// The program has made its own connection, or failed to.
    pub(crate) fn connected(
        &mut self,
        attempt: u64,
        stream: Result<ConnectedStream>,
        network: &Network,
        io: &Io,
    ) -> Result<(), Failed> {
        if attempt == self.number && matches!(self.step, Step::AwaitingConnector) {
            fenced(|| {
                let stream =
                    Stream::adopt(stream?, &io.registry, io.commands.streams()).map_err(|error| {
                        let text = "the connection of `connect_with` cannot be used";
                        Error::with_source(ErrorKind::Connect, text, error)
                    })?;
                self.step = self.secure(Socket::new(stream), network)?;
                Ok(())
            })?
        } else {
            Ok(())
        }
    }

    /// Whether there may be more to read without a notification.
    pub(crate) fn has_more(&self) -> bool {
        match &self.step {
            Step::Tunnelling(socket, _)
            | Step::Socks(socket, _)
            | Step::Securing(socket)
            | Step::Upgrading(socket, ..) => socket.has_more(),
            Step::ResolvingTarget | Step::Resolving | Step::Dialling(_) | Step::AwaitingConnector => false,
        }
    }

    pub(crate) fn stage(&self) -> Stage {
        match self.step {
            Step::ResolvingTarget | Step::Resolving => Stage::Resolve,
            Step::AwaitingConnector => Stage::Connector,
            Step::Dialling(_) if self.proxy.is_some() => Stage::ConnectProxy,
            Step::Dialling(_) => Stage::Connect,
            Step::Tunnelling(..) | Step::Socks(..) => Stage::Proxy,
            Step::Securing(_) => Stage::Tls,
            Step::Upgrading(..) => Stage::Upgrade,
        }
    }

    /// When [`advance`](Self::advance) is due, unless the connection reports something earlier.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        match &self.step {
            Step::Dialling(dial) => dial.deadline(),
            _ => None,
        }
    }

    /// Why a part of the attempt failed, while the rest of it continues.
    pub(crate) fn trouble(&self) -> Option<&Error> {
        match &self.step {
            Step::Dialling(dial) => dial.last_error(),
            _ => None,
        }
    }

    /// Continues as far as possible without waiting.
    pub(crate) fn advance(mut self: Box<Self>, network: &Network, io: &Io) -> Result<Progress, Failed> {
        fenced(move || {
            self.begin_turn();
            loop {
                let step = std::mem::replace(&mut self.step, Step::Resolving);
                match self.take(step, network, io)? {
                    Taken::Next(step) => self.step = step,
                    Taken::Waiting(step) => {
                        self.step = step;
                        return Ok(Progress::NotYet(self));
                    }
                    Taken::Up(link) => return Ok(Progress::Up(link)),
                }
            }
        })?
    }

    fn begin_turn(&mut self) {
        match &mut self.step {
            Step::Tunnelling(socket, _)
            | Step::Socks(socket, _)
            | Step::Securing(socket)
            | Step::Upgrading(socket, ..) => socket.begin_turn(),
            Step::ResolvingTarget | Step::Resolving | Step::Dialling(_) | Step::AwaitingConnector => {}
        }
    }

    /// Continues one step.
    fn take(&mut self, step: Step, network: &Network, io: &Io) -> Result<Taken, Failed> {
        match step {
            Step::ResolvingTarget | Step::Resolving | Step::AwaitingConnector => Ok(Taken::Waiting(step)),
            Step::Dialling(mut dial) => {
                match dial.advance(&io.registry, io.commands.streams(), Instant::now())? {
                    None => Ok(Taken::Waiting(Step::Dialling(dial))),
                    Some(stream) => Ok(Taken::Next(self.reached_peer(stream, network)?)),
                }
            }
            Step::Tunnelling(mut socket, mut reader) => match self.tunnel(&mut socket, &mut reader)? {
                false => Ok(Taken::Waiting(Step::Tunnelling(socket, reader))),
                true => Ok(Taken::Next(self.secure(socket, network)?)),
            },
            Step::Socks(mut socket, mut socks) => match self.converse(&mut socket, &mut socks)? {
                false => Ok(Taken::Waiting(Step::Socks(socket, socks))),
                true => Ok(Taken::Next(self.secure(socket, network)?)),
            },
            Step::Securing(mut socket) => match socket.handshake() {
                Ok(false) => Ok(Taken::Waiting(Step::Securing(socket))),
                Ok(true) => {
                    let (upgrade, request) = Upgrade::new(&self.url, &network.headers);
                    socket.queue(request.as_bytes());
                    let reader = http::Reader::default();
                    Ok(Taken::Next(Step::Upgrading(socket, upgrade, reader)))
                }
                Err(error) => Err(self.failed(ErrorKind::Tls, "the TLS handshake", error).into()),
            },
            Step::Upgrading(mut socket, upgrade, mut reader) => {
                let answer = exchange(&mut socket, &mut reader)
                    .map_err(|error| self.failed(ErrorKind::Handshake, "the WebSocket upgrade", error))?;
                let Some(answer) = answer else {
                    return Ok(Taken::Waiting(Step::Upgrading(socket, upgrade, reader)));
                };
                match upgrade.judge(&self.url, answer)? {
                    Verdict::Accepted(rest) => {
                        let link = Link::new(socket, rest, network.max_message_size, network.patience);
                        Ok(Taken::Up(Box::new(link)))
                    }
                    Verdict::Redirected(url) => {
                        // There is never more than one connection that may become a WebSocket.
                        drop(socket);
                        Ok(Taken::Next(self.redirect(url, network, io)?))
                    }
                }
            }
        }
    }

    /// Starts on the way to the URL.
    fn set_out(&mut self, network: &Network, io: &Io) -> Result<Step> {
        if let Some(connector) = &network.connector {
            connector.start(&io.connector, &self.url, self.number, &io.commands)?;
            return Ok(Step::AwaitingConnector);
        }
        self.proxy = network.proxies.proxy_for(&self.url)?;
        self.target = None;
        if self
            .proxy
            .as_ref()
            .is_some_and(|proxy| proxy.kind == Kind::Socks5)
            && matches!(self.url.host(), Some(Host::Domain(_)))
        {
            let addresses = self.resolve(&self.url, io)?;
            return addresses.map_or(Ok(Step::ResolvingTarget), |addresses| {
                self.resolved_target(&addresses, io)
            });
        }
        self.resolve_peer(io)
    }

    /// The peer to connect to: the server, or the proxy.
    fn resolve_peer(&self, io: &Io) -> Result<Step> {
        let peer = self.proxy.as_ref().map_or(&self.url, |proxy| &proxy.url);
        let addresses = self.resolve(peer, io)?;
        Ok(addresses.map_or(Step::Resolving, |addresses| self.dial(addresses)))
    }

    fn resolve(&self, url: &Url, io: &Io) -> Result<Option<Vec<SocketAddr>>> {
        resolve::resolve(&io.resolver, url, self.number, &io.commands)
    }

    /// A SOCKS proxy takes one address. IPv4 addresses come first, because every proxy knows them.
    fn resolved_target(&mut self, addresses: &[SocketAddr], io: &Io) -> Result<Step> {
        let address = addresses
            .iter()
            .find(|address| address.is_ipv4())
            .or_else(|| addresses.first());
        let Some(address) = address else {
            let text = "the name of the server has no address";
            return Err(Error::new(ErrorKind::Resolve, text));
        };
        self.target = Some(Target::Address(*address));
        self.resolve_peer(io)
    }

    fn dial(&self, addresses: Vec<SocketAddr>) -> Step {
        let peer = self.proxy.as_ref().map_or("server", |_| "proxy");
        Step::Dialling(Dial::new(peer, addresses, Instant::now()))
    }

    fn reached_peer(&self, stream: Stream, network: &Network) -> Result<Step> {
        stream.send_at_once();
        let mut socket = Socket::new(stream);
        let Some(proxy) = &self.proxy else {
            return self.secure(socket, network);
        };
        if proxy.kind != Kind::Http {
            let target = self.target.clone().unwrap_or_else(|| Target::of(&self.url));
            let (socks, greeting) = Socks::new(proxy.user.clone(), target);
            socket.queue(&greeting);
            return Ok(Step::Socks(socket, socks));
        }
        let request = proxy.request(&self.url, network.headers.user_agent());
        socket.queue(request.as_bytes());
        Ok(Step::Tunnelling(socket, http::Reader::default()))
    }

    /// Whether the tunnel through the SOCKS proxy is open.
    fn converse(&self, socket: &mut Socket, socks: &mut Socks) -> Result<bool> {
        let Some(proxy) = &self.proxy else {
            return Ok(true);
        };
        let (name, server) = (authority(&proxy.url), authority(&self.url));
        let failed = |error: io::Error| {
            let text = format!("the proxy {name} did not open a tunnel to {server}");
            Error::with_source(ErrorKind::Proxy, text, error)
        };
        loop {
            socket.send().map_err(failed)?;
            let mut byte = [0];
            match socket.read(&mut byte) {
                Ok(0) => {
                    let text = "closed without an answer";
                    return Err(failed(io::Error::new(io::ErrorKind::UnexpectedEof, text)));
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(failed(error)),
            }
            let [byte] = byte;
            match socks.hear(byte) {
                Ok(Heard::Nothing) => {}
                Ok(Heard::Say(said)) => socket.queue(&said),
                Ok(Heard::Open) => return Ok(true),
                Err(refusal) => {
                    let text = refusal.text(&server, proxy.user.is_some());
                    return Err(Error::new(ErrorKind::Proxy, format!("the proxy {name} {text}")));
                }
            }
        }
    }

    /// Whether the tunnel through the proxy is open.
    fn tunnel(&self, socket: &mut Socket, reader: &mut http::Reader) -> Result<bool> {
        let Some(proxy) = &self.proxy else {
            return Ok(true);
        };
        let answer = exchange(socket, reader).map_err(|error| {
            let (proxy, server) = (authority(&proxy.url), authority(&self.url));
            let text = format!("the proxy {proxy} did not open a tunnel to {server}");
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
        if error.get_ref().is_some_and(|cause| cause.is::<http::SpeaksTls>()) {
            let text =
                format!("{server} speaks TLS on this port; use `wss` or `https`, or the port without TLS");
            return Error::with_source(ErrorKind::Tls, text, error);
        }
        let is_cut = matches!(
            error.kind(),
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
        );
        if is_cut && kind == ErrorKind::Handshake && self.url.scheme() == "ws" {
            // Servers that use OpenSSL do not send an alert.
            let text =
                format!("{step} with {server} failed; if it speaks TLS on this port, use `wss` or `https`");
            return Error::with_source(kind, text, error);
        }
        explain(&server, error)
            .unwrap_or_else(|error| Error::with_source(kind, format!("{step} with {server} failed"), error))
    }
}

/// Sends what is left of a request, and continues reading the answer.
fn exchange(socket: &mut Socket, reader: &mut http::Reader) -> io::Result<Option<http::Answer>> {
    socket.send()?;
    reader.read(socket)
}

const MOST_REDIRECTS: u32 = 3;
