//! The connection itself: one that this crate made, or one that the program brought.

use std::io::{self, IoSlice, Read, Write};

use mio::event::Source;
use mio::net::TcpStream;
#[cfg(unix)]
use mio::net::UnixStream;
use mio::{Interest, Registry};

use super::SOCKET;

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
