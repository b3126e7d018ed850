//! The connection itself, made by this crate or provided by the program.

use std::io::{self, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::sync::{Arc, Weak};

use mio::event::Source;
use mio::net::TcpStream;
#[cfg(unix)]
use mio::net::UnixStream;
use mio::{Interest, Registry};
use parking_lot::Mutex;

use super::SOCKET;

/// A connection for [`ClientBuilder::connect_with`](crate::ClientBuilder::connect_with), made from a
/// [`TcpStream`](std::net::TcpStream) or, on Unix, from a `UnixStream`.
///
/// For any other kind of tunnel, pass one end of a `UnixStream::pair` or of a loopback connection, and copy
/// the data between the other end and the tunnel on a thread of your own.
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
///
/// It is kept in a lock that is held only while something is read or written: a fork of the process, in which
/// the owner does not exist, can take it out and close it.
#[derive(Debug)]
pub(crate) struct Stream(Arc<Slot>);

#[derive(Debug)]
struct Slot {
    /// Present in the process that made it.
    kind: Mutex<Option<Kind>>,
    identity: Option<Identity>,
}

#[derive(Debug)]
enum Kind {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

impl Stream {
    /// Starts connecting.
    pub(crate) fn connect(address: SocketAddr, registry: &Registry, streams: &Streams) -> io::Result<Self> {
        Self::new(Kind::Tcp(TcpStream::connect(address)?), registry, streams)
    }

    /// Takes over a stream of the program.
    pub(crate) fn adopt(
        connected: ConnectedStream,
        registry: &Registry,
        streams: &Streams,
    ) -> io::Result<Self> {
        let kind = match connected.0 {
            Connected::Tcp(stream) => {
                stream.set_nonblocking(true)?;
                Kind::Tcp(TcpStream::from_std(stream))
            }
            #[cfg(unix)]
            Connected::Unix(stream) => {
                stream.set_nonblocking(true)?;
                Kind::Unix(UnixStream::from_std(stream))
            }
        };
        Self::new(kind, registry, streams)
    }

    fn new(mut kind: Kind, registry: &Registry, streams: &Streams) -> io::Result<Self> {
        let source: &mut dyn Source = match &mut kind {
            Kind::Tcp(stream) => stream,
            #[cfg(unix)]
            Kind::Unix(stream) => stream,
        };
        registry.register(source, SOCKET, Interest::READABLE | Interest::WRITABLE)?;
        let slot = Arc::new(Slot {
            identity: identity(&kind),
            kind: Mutex::new(Some(kind)),
        });
        streams.add(&slot);
        Ok(Self(slot))
    }

    /// Whether the connection is established, found out as the docs of mio's `TcpStream::connect` describe.
    pub(crate) fn is_established(&self) -> io::Result<bool> {
        self.with(|kind| {
            let stream = match kind {
                Kind::Tcp(stream) => stream,
                #[cfg(unix)]
                Kind::Unix(_) => return Ok(true),
            };
            if let Some(error) = stream.take_error()? {
                return Err(error);
            }
            match stream.peer_addr() {
                Ok(_) => Ok(true),
                Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
                Err(error) => Err(error),
            }
        })
    }

    #[cfg(test)]
    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.with(|kind| match kind {
            Kind::Tcp(stream) => stream.peer_addr(),
            #[cfg(unix)]
            Kind::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        })
    }

    /// Makes the system send small frames at once. If it cannot, everything still works.
    pub(crate) fn send_at_once(&self) {
        let _ = self.with(|kind| match kind {
            Kind::Tcp(stream) => stream.set_nodelay(true),
            #[cfg(unix)]
            Kind::Unix(_) => Ok(()),
        });
    }

    fn with<R>(&self, act: impl FnOnce(&mut Kind) -> io::Result<R>) -> io::Result<R> {
        match &mut *self.0.kind.lock() {
            Some(kind) => act(kind),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.with(|kind| match kind {
            Kind::Tcp(stream) => stream.read(buffer),
            #[cfg(unix)]
            Kind::Unix(stream) => stream.read(buffer),
        })
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.with(|kind| match kind {
            Kind::Tcp(stream) => stream.write(bytes),
            #[cfg(unix)]
            Kind::Unix(stream) => stream.write(bytes),
        })
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.with(|kind| match kind {
            Kind::Tcp(stream) => stream.write_vectored(parts),
            #[cfg(unix)]
            Kind::Unix(stream) => stream.write_vectored(parts),
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The streams of a client, for a fork of the process that has to close them.
#[derive(Debug, Default)]
pub(crate) struct Streams(Mutex<Vec<Weak<Slot>>>);

impl Streams {
    fn add(&self, slot: &Arc<Slot>) {
        let mut slots = self.0.lock();
        slots.retain(|slot| slot.strong_count() > 0);
        slots.push(Arc::downgrade(slot));
    }

    /// Closes the streams that this process, a fork of the one that made them, has inherited. The other end
    /// is not notified, because the parent continues to use them.
    ///
    /// A stream that was being read or written when the process forked stays open: its lock never becomes
    /// free.
    pub(crate) fn abandon(&self) {
        let Some(mut slots) = self.0.try_lock() else {
            return;
        };
        for slot in slots.drain(..).filter_map(|slot| slot.upgrade()) {
            let inherited = slot.kind.try_lock().and_then(|mut kind| kind.take());
            if let Some(kind) = inherited {
                close(kind, slot.identity);
            }
        }
    }
}

/// Distinguishes a descriptor from another one with the same number: the device and the inode.
type Identity = (u64, u64);

/// Closes a stream, unless the program has already closed its descriptor, as daemons do with all inherited
/// ones: the number may mean another file by now.
#[cfg(unix)]
fn close(kind: Kind, known: Option<Identity>) {
    use std::os::fd::IntoRawFd;

    if known.is_none() || identity(&kind) != known {
        let _ = match kind {
            Kind::Tcp(stream) => stream.into_raw_fd(),
            Kind::Unix(stream) => stream.into_raw_fd(),
        };
    }
}

#[cfg(unix)]
fn identity(kind: &Kind) -> Option<Identity> {
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;

    let descriptor = match kind {
        Kind::Tcp(stream) => stream.as_fd(),
        Kind::Unix(stream) => stream.as_fd(),
    };
    let of_a_copy = File::from(descriptor.try_clone_to_owned().ok()?)
        .metadata()
        .ok()?;
    Some((of_a_copy.dev(), of_a_copy.ino()))
}

/// Processes do not fork here.
#[cfg(not(unix))]
fn close(_: Kind, _: Option<Identity>) {}

#[cfg(not(unix))]
fn identity(_: &Kind) -> Option<Identity> {
    None
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::io::{ErrorKind, Read};
    use std::os::unix::net::UnixStream;

    use mio::Poll;

    use super::*;

    fn pair(streams: &Streams) -> (Stream, UnixStream, Poll) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        let poll = Poll::new().unwrap();
        let stream = Stream::adopt(ConnectedStream::from(ours), poll.registry(), streams).unwrap();
        (stream, theirs, poll)
    }

    fn has_ended(mut peer: &UnixStream) -> bool {
        match peer.read(&mut [0]) {
            Ok(length) => length == 0,
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        }
    }

    #[test]
    fn what_is_abandoned_is_closed_and_what_is_in_use_stays() {
        let streams = Streams::default();
        let ((first, first_peer, _poll), (second, second_peer, _other)) = (pair(&streams), pair(&streams));
        let (gone, gone_peer, _third) = pair(&streams);
        drop(gone);
        assert!(has_ended(&gone_peer));
        let in_use = second.0.kind.lock();
        streams.abandon();
        assert!(has_ended(&first_peer) && !has_ended(&second_peer));
        drop(in_use);
        // Its owner no longer exists. If it did, it would get an error.
        assert!(first.with(|_| Ok(())).is_err());
        streams.abandon();
    }

    #[test]
    fn a_descriptor_that_is_another_file_by_now_is_left_alone() {
        let streams = Streams::default();
        let (stream, peer, _poll) = pair(&streams);
        let kind = stream.0.kind.lock().take().unwrap();
        let (device, inode) = stream.0.identity.unwrap();
        close(kind, Some((device, inode + 1)));
        assert!(!has_ended(&peer));
    }
}
