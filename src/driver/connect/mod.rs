//! The steps from a URL to a WebSocket, none of which blocks the I/O thread.

mod dial;
mod http;
mod resolve;
mod upgrade;

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use mio::Registry;
use tungstenite::WebSocket;
use tungstenite::protocol::{Role, WebSocketConfig};
use url::Url;

use self::dial::Dial;
pub(crate) use self::upgrade::Headers;
use self::upgrade::{Upgrade, Verdict};
use super::socket::Socket;
use super::tls::{self, explain};
use super::{Commands, SOCKET};
use crate::protocol::session::Stage;
use crate::server_url::authority;
use crate::{Error, ErrorKind, Result};

/// What the builder was told of the way to the server.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    pub(crate) headers: Headers,
    pub(crate) tls: tls::Settings,
    /// The server's `ws` sends a message as one frame, so the limits of both are one.
    pub(crate) max_message_size: usize,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            headers: Headers::default(),
            tls: tls::Settings::default(),
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
    redirects: u32,
    step: Step,
}

#[derive(Debug)]
enum Step {
    Resolving,
    Dialling(Dial),
    Securing(Socket),
    Upgrading(Socket, Upgrade, http::Reader),
}

/// What has come of an attempt.
#[derive(Debug)]
pub(crate) enum Progress {
    Up(Box<WebSocket<Socket>>),
    NotYet(Attempt),
}

impl Attempt {
    /// Begins an attempt; [`advance`](Self::advance) is next.
    pub(crate) fn start(number: u64, url: Url, io: &Io) -> Result<Self> {
        let step = Step::resolve(&url, number, io)?;
        Ok(Self {
            number,
            url,
            redirects: 0,
            step,
        })
    }

    /// The resolver has answered.
    pub(crate) fn resolved(&mut self, attempt: u64, addresses: Result<Vec<SocketAddr>>) -> Result<()> {
        if attempt == self.number && matches!(self.step, Step::Resolving) {
            self.step = Step::Dialling(Dial::new("server", addresses?, Instant::now()));
        }
        Ok(())
    }

    pub(crate) fn stage(&self) -> Stage {
        match self.step {
            Step::Resolving => Stage::Resolve,
            Step::Dialling(_) => Stage::Connect,
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
    pub(crate) fn advance(mut self, network: &Network, io: &Io) -> Result<Progress> {
        loop {
            let server = || authority(&self.url);
            self.step = match self.step {
                Step::Resolving => break,
                Step::Dialling(ref mut dial) => {
                    match dial.advance(&io.registry, SOCKET, Instant::now())? {
                        None => break,
                        Some(stream) => {
                            // Small frames go out at once; a system that cannot do that still works.
                            let _ = stream.set_nodelay(true);
                            let mut socket = Socket::new(stream);
                            if self.url.scheme() == "wss" {
                                socket.secure(network.tls.connection(&self.url)?);
                            }
                            Step::Securing(socket)
                        }
                    }
                }
                Step::Securing(mut socket) => match socket.handshake() {
                    Ok(false) => {
                        self.step = Step::Securing(socket);
                        break;
                    }
                    Ok(true) => {
                        let (upgrade, request) = Upgrade::new(&self.url, &network.headers);
                        socket.queue(request.as_bytes());
                        Step::Upgrading(socket, upgrade, http::Reader::default())
                    }
                    Err(error) => {
                        return Err(failed(&server(), ErrorKind::Tls, "the TLS handshake", error));
                    }
                },
                Step::Upgrading(mut socket, upgrade, mut reader) => {
                    let answer = socket.send().and_then(|()| reader.read(&mut socket));
                    let answer = answer.map_err(|error| {
                        failed(&server(), ErrorKind::Handshake, "the WebSocket upgrade", error)
                    })?;
                    let Some(answer) = answer else {
                        self.step = Step::Upgrading(socket, upgrade, reader);
                        break;
                    };
                    match upgrade.judge(&self.url, answer)? {
                        Verdict::Accepted(rest) => {
                            let config = network.web_socket_config();
                            let socket =
                                WebSocket::from_partially_read(socket, rest, Role::Client, Some(config));
                            return Ok(Progress::Up(Box::new(socket)));
                        }
                        Verdict::Redirected(url) => {
                            self.redirects += 1;
                            if self.redirects > MOST_REDIRECTS {
                                let text = format!(
                                    "{} redirects the WebSocket upgrade once more, after {MOST_REDIRECTS} redirects; \
                                     connect to the right URL from the start",
                                    server()
                                );
                                return Err(Error::new(ErrorKind::Handshake, text));
                            }
                            log::debug!("{} redirects to {}", server(), authority(&url));
                            // There is never more than one connection that may become a WebSocket.
                            drop(socket);
                            let step = Step::resolve(&url, self.number, io)?;
                            self.url = url;
                            step
                        }
                    }
                }
            };
        }
        Ok(Progress::NotYet(self))
    }
}

impl Step {
    fn resolve(url: &Url, attempt: u64, io: &Io) -> Result<Self> {
        let addresses = resolve::resolve(url, attempt, &io.commands)?;
        Ok(addresses.map_or(Self::Resolving, |addresses| {
            Self::Dialling(Dial::new("server", addresses, Instant::now()))
        }))
    }
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

/// An error of the connection to the server, in the middle of a step.
fn failed(server: &str, kind: ErrorKind, step: &str, error: io::Error) -> Error {
    explain(server, error)
        .unwrap_or_else(|error| Error::with_source(kind, format!("{step} with {server} failed"), error))
}

/// Enough for many events in one read, and little for a client that is idle.
const READ_BUFFER: usize = 16 * 1024;
const MOST_REDIRECTS: u32 = 3;
