//! TCP connections to the addresses of one name, started one shortly after the other; the first established
//! one is used.
//!
//! As in RFC 8305, except that it does not wait for further answers of the name service: a machine with a
//! broken IPv6 route loses a quarter of a second, not a TCP time-out.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::Registry;

use crate::driver::stream::{Stream, Streams};
use crate::error::{Error, ErrorKind, Result};

#[derive(Debug)]
pub(crate) struct Dial {
    /// Whose addresses these are, for errors.
    peer: &'static str,
    waiting: VecDeque<SocketAddr>,
    begun: Vec<(Stream, SocketAddr)>,
    /// When the next address has its turn.
    next_at: Instant,
    last_error: Option<Error>,
}

impl Dial {
    pub(crate) fn new(peer: &'static str, addresses: Vec<SocketAddr>, now: Instant) -> Self {
        Self {
            peer,
            waiting: interleaved(addresses),
            begun: Vec::new(),
            next_at: now,
            last_error: None,
        }
    }

    /// When [`advance`](Self::advance) is due, unless a connection reports something earlier.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        (!self.waiting.is_empty()).then_some(self.next_at)
    }

    /// Why the last address failed.
    pub(crate) fn last_error(&self) -> Option<&Error> {
        self.last_error.as_ref()
    }

    /// Continues as far as possible without waiting. The returned connection is registered.
    ///
    /// # Errors
    /// The error of the last address, once all have failed.
    pub(crate) fn advance(
        &mut self,
        registry: &Registry,
        streams: &Streams,
        now: Instant,
    ) -> Result<Option<Stream>> {
        loop {
            let mut at = 0;
            while let Some((stream, _)) = self.begun.get(at) {
                match stream.is_established() {
                    Ok(true) => return Ok(Some(self.begun.swap_remove(at).0)),
                    Ok(false) => at += 1,
                    Err(error) => {
                        let (_, address) = self.begun.swap_remove(at);
                        self.failed(address, error, now);
                    }
                }
            }
            if self.waiting.is_empty() && self.begun.is_empty() {
                let peer = self.peer;
                let none = || {
                    Error::new(
                        ErrorKind::Resolve,
                        format!("the name of the {peer} has no address"),
                    )
                };
                return Err(self.last_error.take().unwrap_or_else(none));
            }
            if now < self.next_at {
                return Ok(None);
            }
            let Some(address) = self.waiting.pop_front() else {
                return Ok(None);
            };
            self.next_at = now + STAGGER;
            match Stream::connect(address, registry, streams) {
                Ok(stream) => self.begun.push((stream, address)),
                Err(error) => self.failed(address, error, now),
            }
        }
    }

    fn failed(&mut self, address: SocketAddr, error: io::Error, now: Instant) {
        let text = format!("no connection to the {} at {address}", self.peer);
        self.last_error = Some(Error::with_source(ErrorKind::Connect, text, error));
        self.next_at = now;
    }
}

/// The addresses of both families in turn, starting with the family that the system prefers.
fn interleaved(addresses: Vec<SocketAddr>) -> VecDeque<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (preferred, other): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == first_is_v6);
    let mut other = other.into_iter();
    let mut all = VecDeque::new();
    for address in preferred {
        all.push_back(address);
        all.extend(other.next());
    }
    all.extend(other);
    all
}

/// The delay that RFC 8305 recommends between two attempts.
const STAGGER: Duration = Duration::from_millis(250);

#[cfg(test)]
mod tests {
    use super::*;
    use mio::{Events, Poll};
    use socket2::{Domain, Socket, Type};
    use std::net::{Ipv4Addr, TcpListener};

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn families_take_turns() {
        let given = ["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1", "2.2.2.2:1"].map(address);
        let wanted = ["[::1]:1", "1.1.1.1:1", "[::2]:1", "2.2.2.2:1", "[::3]:1"].map(address);
        assert_eq!(interleaved(given.to_vec()), wanted);
    }

    /// Dials until there is a result, as the I/O thread does.
    fn dial(addresses: Vec<SocketAddr>) -> (Result<Stream>, Duration) {
        let mut poll = Poll::new().unwrap();
        let mut events = Events::with_capacity(8);
        let start = Instant::now();
        let mut dial = Dial::new("server", addresses, start);
        loop {
            match dial.advance(poll.registry(), &Streams::default(), Instant::now()) {
                Ok(Some(stream)) => return (Ok(stream), start.elapsed()),
                Err(error) => return (Err(error), start.elapsed()),
                Ok(None) => {}
            }
            assert!(start.elapsed() < Duration::from_secs(10), "{dial:?}");
            let timeout = dial
                .deadline()
                .map(|at| at.saturating_duration_since(Instant::now()));
            poll.poll(&mut events, timeout.or(Some(Duration::from_secs(10))))
                .unwrap();
        }
    }

    fn listener() -> (TcpListener, SocketAddr) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    }

    /// A port on which nothing listens, and which nothing else can get.
    fn refused() -> (Socket, SocketAddr) {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket
            .bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())
            .unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        (socket, address)
    }

    /// A port whose queue is full, so that the kernel does not answer. `None` where the kernel behaves
    /// differently.
    fn silent() -> Option<(Vec<Socket>, SocketAddr)> {
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener
            .bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())
            .unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let mut sockets = vec![listener];
        for _ in 0..8 {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            if socket
                .connect_timeout(&address, Duration::from_millis(100))
                .is_err()
            {
                return Some((sockets, address.as_socket()?));
            }
            sockets.push(socket);
        }
        None
    }

    #[test]
    fn an_address_that_refuses_costs_no_time() {
        let (_listener, good) = listener();
        let ((_first, first), (_second, second)) = (refused(), refused());
        // The best of several rounds, since a busy machine can only be slower.
        let took = (0..5).map(|_| {
            let (stream, took) = dial(vec![first, second, good]);
            assert_eq!(stream.unwrap().peer_addr().unwrap(), good);
            took
        });
        let took: Vec<_> = took.collect();
        assert!(took.iter().any(|took| *took < STAGGER), "{took:?}");
    }

    #[test]
    fn an_address_that_swallows_everything_holds_up_the_next_only_briefly() {
        let Some((_sockets, silent)) = silent() else {
            return;
        };
        let (_listener, good) = listener();
        let (stream, took) = dial(vec![silent, good]);
        assert_eq!(stream.unwrap().peer_addr().unwrap(), good);
        assert!((STAGGER..STAGGER * 20).contains(&took), "{took:?}");
    }

    #[test]
    fn the_last_error_is_kept() {
        let ((_first, first), (_last, last)) = (refused(), refused());
        let error = dial(vec![first, last]).0.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Connect);
        let text = error.to_string();
        assert!(
            text.contains(&last.to_string()) && text.contains("refused"),
            "{text}"
        );
    }

    #[test]
    fn no_address_is_an_error_of_the_name() {
        assert_eq!(dial(vec![]).0.unwrap_err().kind(), ErrorKind::Resolve);
    }
}
