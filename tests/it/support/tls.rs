//! TLS before a server that has none. It knows bytes, and nothing of what they say.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection};
use socket2::{Domain, Type};

use super::certificates::{Authority, Identity};
use super::socket::{self, Socket};

/// How a [`TlsServer`] ends a connection that the server behind it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    CloseNotify,
    /// Just the end of TCP.
    Fin,
}

/// TLS on loopback, before one server. Dropping it ends its listener, its connections and its threads.
#[derive(Debug)]
pub struct TlsServer {
    addr: SocketAddr,
    shared: Arc<Shared>,
    listener: Option<JoinHandle<()>>,
}

struct Shared {
    config: Arc<ServerConfig>,
    server: SocketAddr,
    farewell: Farewell,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    stopping: bool,
    read_pause: Duration,
    links: Vec<Weak<Link>>,
    threads: Vec<JoinHandle<()>>,
    /// How many connections ended with a `close_notify` of the client.
    close_notifies: usize,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

impl TlsServer {
    /// TLS with this certificate before this server.
    pub fn new(identity: &Identity, server: SocketAddr) -> Self {
        Self::start(identity, server, None, Farewell::CloseNotify)
    }

    /// The same, with another end.
    pub fn with_farewell(identity: &Identity, server: SocketAddr, farewell: Farewell) -> Self {
        Self::start(identity, server, None, farewell)
    }

    /// The same, for clients with a certificate of this authority.
    pub fn for_clients_of(authority: &Authority, identity: &Identity, server: SocketAddr) -> Self {
        Self::start(identity, server, Some(authority), Farewell::CloseNotify)
    }

    fn start(
        identity: &Identity,
        server: SocketAddr,
        clients: Option<&Authority>,
        farewell: Farewell,
    ) -> Self {
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("the defaults of rustls");
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots
                    .add(certificate(&authority.pem))
                    .expect("our own certificate");
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
                builder.with_client_cert_verifier(verifier.build().expect("a verifier"))
            }
        };
        let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("our own key");
        let config = builder
            .with_single_cert(vec![certificate(&identity.chain)], key)
            .expect("our own certificate");
        let socket = socket2::Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket
            .bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())
            .expect("a free port");
        // A small window, so that a reader that is slow is felt soon. It has to hold a few segments of the
        // loopback device (64 KiB each), or else the kernel sends one each 200 ms, by the clock of its probes.
        socket.set_recv_buffer_size(256 * 1024).expect("a socket");
        socket.listen(64).expect("a bound socket listens");
        let listener = std::net::TcpListener::from(socket);
        let addr = listener.local_addr().expect("a bound listener has an address");
        let shared = Arc::new(Shared {
            config: Arc::new(config),
            server,
            farewell,
            state: Mutex::default(),
        });
        let for_thread = Arc::clone(&shared);
        let listener = thread::Builder::new()
            .name("kit-tls".into())
            .spawn(move || {
                while let Ok(stream) = socket::accept(&listener) {
                    if for_thread.state.lock().stopping {
                        break;
                    }
                    for_thread.serve(stream);
                }
            })
            .expect("a thread");
        Self {
            addr,
            shared,
            listener: Some(listener),
        }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The URL with the address; a certificate for `127.0.0.1` fits.
    pub fn url(&self) -> String {
        format!("wss://{}/parse", self.addr)
    }

    /// From now on waits so long before each read of what clients send, in pieces of 16 KiB.
    pub fn read_slowly(&self, pause: Duration) {
        self.shared.state.lock().read_pause = pause;
    }

    /// Ends all connections with FIN and nothing else.
    pub fn cut(&self) {
        for link in self.shared.state.lock().links.drain(..) {
            if let Some(link) = link.upgrade() {
                link.client.end();
                link.server.end();
            }
        }
    }

    /// How many connections the clients ended with a `close_notify`.
    pub fn close_notifies(&self) -> usize {
        self.shared.state.lock().close_notifies
    }
}

impl Drop for TlsServer {
    fn drop(&mut self) {
        self.shared.state.lock().stopping = true;
        drop(TcpStream::connect(self.addr));
        if let Some(listener) = self.listener.take() {
            listener.join().expect("the listener's thread does not panic");
        }
        self.cut();
        let threads = std::mem::take(&mut self.shared.state.lock().threads);
        for thread in threads {
            thread.join().expect("a thread of the kit does not panic");
        }
    }
}

impl Shared {
    fn serve(self: &Arc<Self>, client: TcpStream) {
        let Ok(server) = TcpStream::connect(self.server) else {
            return;
        };
        for stream in [&client, &server] {
            stream.set_nodelay(true).expect("a socket");
        }
        let tls = ServerConnection::new(Arc::clone(&self.config)).expect("a configuration of ours");
        let link = Arc::new(Link {
            tls: Mutex::new(tls),
            client: Socket::new(client),
            server: Socket::new(server),
        });
        let (up, down) = (Arc::clone(&link), link);
        let mut state = self.state.lock();
        state.links.retain(|link| link.strong_count() > 0);
        state.links.push(Arc::downgrade(&down));
        // A thread that has ended, and was not joined, keeps its stack.
        state.threads.retain(|thread| !thread.is_finished());
        let shared = Arc::clone(self);
        let farewell = self.farewell;
        for (name, run) in [
            (
                "kit-tls-up",
                Box::new(move || up.pump_up(&shared)) as Box<dyn FnOnce() + Send>,
            ),
            ("kit-tls-down", Box::new(move || down.pump_down(farewell))),
        ] {
            let thread = thread::Builder::new()
                .name(name.into())
                .spawn(run)
                .expect("a thread");
            state.threads.push(thread);
        }
    }
}

struct Link {
    tls: Mutex<ServerConnection>,
    client: Socket,
    server: Socket,
}

impl Link {
    /// Decrypts what the client sends, to its end.
    fn pump_up(&self, shared: &Shared) {
        let mut chunk = vec![0; 16 * 1024];
        loop {
            let pause = shared.state.lock().read_pause;
            if !pause.is_zero() {
                thread::sleep(pause);
            }
            let count = match (&self.client).read(&mut chunk) {
                Ok(count) if count > 0 => count,
                _ => break,
            };
            let mut bytes = &chunk[..count];
            let mut plain = vec![];
            let mut tls = self.tls.lock();
            let mut is_over = false;
            while !bytes.is_empty() && !is_over {
                tls.read_tls(&mut bytes).expect("a slice");
                let state = tls.process_new_packets();
                let has_closed = state.as_ref().is_ok_and(|state| state.peer_has_closed());
                shared.state.lock().close_notifies += usize::from(has_closed);
                // The client may have no trust in the certificate, for instance.
                is_over = has_closed || state.is_err();
                // Would block at its end.
                let _ = tls.reader().read_to_end(&mut plain);
            }
            let sent = self.flush(&mut tls);
            drop(tls);
            // A server that has gone takes nothing, and the client may still say farewell.
            let _ = (&self.server).write_all(&plain);
            if sent.is_err() || is_over {
                break;
            }
        }
        self.server.end();
    }

    /// Encrypts what the server sends, to its end.
    fn pump_down(&self, farewell: Farewell) {
        let mut chunk = vec![0; 16 * 1024];
        while let Ok(count) = (&self.server).read(&mut chunk) {
            let mut tls = self.tls.lock();
            if count == 0 && farewell == Farewell::CloseNotify {
                tls.send_close_notify();
            }
            let written = tls.writer().write_all(&chunk[..count]);
            if written.is_err() || self.flush(&mut tls).is_err() || count == 0 {
                break;
            }
        }
        let _ = self.client.tcp().shutdown(Shutdown::Write);
    }

    fn flush(&self, tls: &mut ServerConnection) -> io::Result<()> {
        while tls.wants_write() {
            tls.write_tls(&mut &self.client)?;
        }
        Ok(())
    }
}

fn certificate(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).expect("our own certificate")
}
