//! What only the kernel can say, or do, of connections.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
#[cfg(not(unix))]
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Socket, Type};

use super::Conn;

/// A port of which the queue of connections is full: connecting neither succeeds nor fails, as behind a firewall that
/// drops packets. `None` where the kernel does not do it so.
#[derive(Debug)]
pub struct FullBacklog {
    addr: SocketAddr,
    _sockets: (Socket, Vec<TcpStream>),
}

impl FullBacklog {
    pub fn new() -> Option<Self> {
        Self::at((Ipv4Addr::LOCALHOST, 0).into())
    }

    /// Such a port at this address.
    pub fn at(addr: SocketAddr) -> Option<Self> {
        let socket = Socket::new(Domain::for_address(addr), Type::STREAM, None).ok()?;
        socket.bind(&addr.into()).ok()?;
        socket.listen(0).expect("a bound socket listens");
        let addr = socket.local_addr().expect("a bound socket").as_socket()?;
        let mut fill = vec![];
        for _ in 0..8 {
            match TcpStream::connect_timeout(&addr, Duration::from_millis(300)) {
                Ok(stream) => fill.push(stream),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    let _sockets = (socket, fill);
                    return Some(Self { addr, _sockets });
                }
                Err(_) => return None,
            }
        }
        None
    }

    pub fn url(&self) -> String {
        format!("ws://{}/parse", self.addr)
    }
}

// A client that closes one connection and then makes the next has done so in this order, but on a machine that is busy
// the end of the first may be a little late.
const LATE: Duration = Duration::from_millis(5);

/// How many of these connections the client has not ended, by the kernel's word: the thread that reads may be late to
/// notice.
#[cfg(unix)]
pub(super) fn held_by_client(conns: &[Conn]) -> usize {
    use std::collections::BTreeSet;
    use std::os::fd::AsRawFd;

    let mut poll = mio::Poll::new().expect("a poller");
    let mut events = mio::Events::with_capacity(64);
    let streams: Vec<_> = conns.iter().filter_map(Conn::stream).collect();
    for (at, stream) in streams.iter().enumerate() {
        let fd = stream.tcp().as_raw_fd();
        let mut source = mio::unix::SourceFd(&fd);
        poll.registry()
            .register(&mut source, mio::Token(at), mio::Interest::READABLE)
            .expect("a socket can be polled");
    }
    let mut held: BTreeSet<_> = (0..streams.len()).collect();
    let deadline = Instant::now() + LATE;
    while !held.is_empty() && Instant::now() < deadline {
        let left = deadline.saturating_duration_since(Instant::now());
        // A signal interrupts it: then it goes round once more.
        let _ = poll.poll(&mut events, Some(left));
        for event in events
            .iter()
            .filter(|event| event.is_read_closed() || event.is_error())
        {
            held.remove(&event.token().0);
        }
    }
    held.len()
}

/// Elsewhere that thread is given time.
#[cfg(not(unix))]
pub(super) fn held_by_client(conns: &[Conn]) -> usize {
    let deadline = Instant::now() + 100 * LATE;
    loop {
        let held = conns.iter().filter(|conn| conn.stream().is_some()).count();
        if held == 0 || Instant::now() > deadline {
            return held;
        }
        thread::park_timeout(Duration::from_millis(1));
    }
}
