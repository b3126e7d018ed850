//! The connection itself: one that this crate made, or one that the program brought.

use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::sync::Arc;

use mio::event::Source;
use mio::net::TcpStream;
#[cfg(unix)]
use mio::net::UnixStream;
use mio::{Interest, Registry};
use url::{Host, Url};

use super::SOCKET;
use super::ask::Asker;
use super::command::{Command, Commands};
use crate::error::{Error, ErrorKind, Result};
use crate::fence::{self, Fenced};

/// A connection for [`ClientBuilder::connect_with`](crate::ClientBuilder::connect_with): made from a
/// [`TcpStream`](std::net::TcpStream), or on Unix from a `UnixStream`.
///
/// A tunnel that is neither ends in one end of a `UnixStream::pair`, or of a connection on loopback, and copies
/// between the two on a thread of its own.
#[derive(Debug)]
pub struct ConnectedStream(Connected);

#[derive(Debug)]
enum Connected {
    Tcp(std::net::TcpStream),
    #[cfg(unix)]
    Unix(std::os::unix::net::UnixStream),
}

impl From<std::net::TcpStream> for ConnectedStream {
    fn from(stream: std::net::TcpStream) -> Self {
        Self(Connected::Tcp(stream))
    }
}

#[cfg(unix)]
impl From<std::os::unix::net::UnixStream> for ConnectedStream {
    fn from(stream: std::os::unix::net::UnixStream) -> Self {
        Self(Connected::Unix(stream))
    }
}

/// A stream that the I/O thread can wait for.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

impl Stream {
    /// Takes over a stream of the program.
    pub(crate) fn adopt(connected: ConnectedStream, registry: &Registry) -> io::Result<Self> {
        let mut stream = match connected.0 {
            Connected::Tcp(stream) => {
                stream.set_nonblocking(true)?;
                Self::Tcp(TcpStream::from_std(stream))
            }
            #[cfg(unix)]
            Connected::Unix(stream) => {
                stream.set_nonblocking(true)?;
                Self::Unix(UnixStream::from_std(stream))
            }
        };
        let source: &mut dyn Source = match &mut stream {
            Self::Tcp(stream) => stream,
            #[cfg(unix)]
            Self::Unix(stream) => stream,
        };
        registry.register(source, SOCKET, Interest::READABLE | Interest::WRITABLE)?;
        Ok(stream)
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            #[cfg(unix)]
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            #[cfg(unix)]
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write_vectored(parts),
            #[cfg(unix)]
            Self::Unix(stream) => stream.write_vectored(parts),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

type Connect = dyn Fn(&str, u16) -> io::Result<ConnectedStream> + Send + Sync;

/// The program's own way to connect.
#[derive(Clone)]
pub(crate) struct Connector(Arc<Connect>);

impl Connector {
    pub(crate) fn new(
        connect: impl Fn(&str, u16) -> io::Result<ConnectedStream> + Send + Sync + 'static,
    ) -> Self {
        let connect = Fenced::new(connect);
        Self(Arc::new(move |host, port| match connect.get() {
            Some(connect) => connect(host, port),
            None => Err(io::ErrorKind::NotConnected.into()),
        }))
    }

    /// Runs it on a thread of its own, which answers with a command. A call that never returns costs one thread, not
    /// one for each attempt.
    pub(super) fn start(
        &self,
        asker: &Asker<(String, u16)>,
        url: &Url,
        attempt: u64,
        commands: &Commands,
    ) -> Result<()> {
        let host = match url.host() {
            Some(Host::Domain(name)) => name.to_owned(),
            Some(Host::Ipv4(ip)) => ip.to_string(),
            Some(Host::Ipv6(ip)) => ip.to_string(),
            None => String::new(),
        };
        let port = url.port_or_known_default().unwrap_or(80);
        let (this, commands) = (self.clone(), commands.clone());
        let connect = move |(host, port): &(String, u16)| {
            this.call(host, *port).map_err(|error| {
                let text = format!("`connect_with` made no connection to {host}:{port}");
                Error::with_source(ErrorKind::Connect, text, error)
            })
        };
        let give = move |attempt, stream| commands.send(Command::Connected { attempt, stream });
        asker
            .ask("livequery-connect", (host, port), attempt, connect, give)
            .map_err(|error| {
                Error::with_source(
                    ErrorKind::Io,
                    "the thread for `connect_with` cannot be started",
                    error,
                )
            })
    }
}

impl Connector {
    fn call(&self, host: &str, port: u16) -> io::Result<ConnectedStream> {
        fence::run(|| (self.0)(host, port))
            .unwrap_or_else(|text| Err(io::Error::other(format!("it panicked: {text}"))))
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}
