//! A port that stays with who has it, also while nobody listens there. It knows nothing of what is served.

use std::net::SocketAddr;

/// A port on loopback where connecting is refused until somebody listens at its address. The kernel gives it to nobody
/// else before this is dropped: a server that goes down and comes back finds it free.
#[derive(Debug)]
pub struct Port {
    addr: SocketAddr,
    #[cfg(unix)]
    _bound: socket2::Socket,
}

impl Port {
    #[cfg(unix)]
    pub fn reserve() -> Self {
        use std::net::Ipv4Addr;

        use socket2::{Domain, Socket, Type};

        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        // As the listener, which is bound to it as well, has it on Unix.
        socket.set_reuse_address(true).expect("a socket");
        socket
            .bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())
            .expect("loopback has a free port");
        let addr = socket.local_addr().expect("a bound socket has an address");
        Self {
            addr: addr.as_socket().expect("an address of IP"),
            _bound: socket,
        }
    }

    /// Elsewhere a port has one socket, or else who of them is connected to is left open. These ports are below all that
    /// a kernel gives out by itself, and each process starts at another.
    #[cfg(not(unix))]
    pub fn reserve() -> Self {
        use std::net::{Ipv4Addr, TcpListener};
        use std::process;
        use std::sync::atomic::{AtomicU32, Ordering};

        const FIRST: u32 = 10_000;
        const COUNT: u32 = 20_000;
        static TAKEN: AtomicU32 = AtomicU32::new(0);

        let start = process::id().wrapping_mul(997);
        let is_free = |addr: &SocketAddr| TcpListener::bind(addr).is_ok();
        let addr = (0..COUNT)
            .map(|_| start.wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed)) % COUNT + FIRST)
            .map(|port| (Ipv4Addr::LOCALHOST, u16::try_from(port).expect("a port")).into())
            .find(is_free);
        Self {
            addr: addr.expect("loopback has a free port"),
        }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}
