//! The connection itself: one that this crate made, or one that the program brought.

use std::fmt;
use std::io::{self, IoSlice, Read, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use mio::event::Source;
use mio::net::TcpStream;
#[cfg(unix)]
use mio::net::UnixStream;
use mio::{Interest, Registry};
use url::{Host, Url};

use super::SOCKET;
use super::command::{Command, Commands};
use crate::error::{Error, ErrorKind, Result};

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
pub(crate) struct Connector {
    connect: Arc<Connect>,
    busy: Arc<AtomicBool>,
}

impl Connector {
    pub(crate) fn new(
        connect: impl Fn(&str, u16) -> io::Result<ConnectedStream> + Send + Sync + 'static,
    ) -> Self {
        Self {
            connect: Arc::new(connect),
            busy: Arc::default(),
        }
    }

    /// Runs it on a thread of its own, which answers with a command. A call that never returns costs one thread, not
    /// one for each attempt.
    pub(crate) fn start(&self, url: &Url, attempt: u64, commands: &Commands) -> Result<()> {
        if self.busy.swap(true, Ordering::AcqRel) {
            let text =
                "`connect_with` has not returned from an earlier attempt; give it a time-out of its own";
            return Err(Error::new(ErrorKind::Connect, text));
        }
        let host = match url.host() {
            Some(Host::Domain(name)) => name.to_owned(),
            Some(Host::Ipv4(ip)) => ip.to_string(),
            Some(Host::Ipv6(ip)) => ip.to_string(),
            None => String::new(),
        };
        let port = url.port_or_known_default().unwrap_or(80);
        let (this, commands) = (self.clone(), commands.clone());
        let spawned = thread::Builder::new()
            .name("livequery-connect".to_owned())
            .spawn(move || {
                let stream = catch_unwind(AssertUnwindSafe(|| (this.connect)(&host, port)))
                    .unwrap_or_else(|_| Err(io::Error::other("it panicked")))
                    .map_err(|error| {
                        let text = format!("`connect_with` made no connection to {host}:{port}");
                        Error::with_source(ErrorKind::Connect, text, error)
                    });
                this.busy.store(false, Ordering::Release);
                commands.send(Command::Connected { attempt, stream });
            });
        spawned.map(drop).map_err(|error| {
            self.busy.store(false, Ordering::Release);
            Error::with_source(
                ErrorKind::Io,
                "the thread for `connect_with` cannot be started",
                error,
            )
        })
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}
