//! A port that stays with who has it, also while nobody listens there. It knows nothing of what is served.

use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

/// A port on loopback where connecting is refused until somebody listens at its address. The kernel gives it to nobody
/// else before this is dropped: a server that goes down and comes back finds it free.
#[derive(Debug)]
pub struct Port {
    addr: SocketAddr,
    _bound: Socket,
}

impl Port {
    pub fn reserve() -> Self {
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

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}
