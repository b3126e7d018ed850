//! An HTTP proxy that knows CONNECT and nothing else. Whatever name it is asked for, it connects to the one server
//! that the test gave it: that a client resolves no name itself shows in this.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;

use super::socket::{self, Socket};

/// A proxy on loopback. Dropping it ends its listener, its connections and its threads.
#[derive(Debug)]
pub struct ConnectProxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    listener: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    /// What is answered instead of opening a tunnel.
    refusal: Option<String>,
    /// The value that `Proxy-Authorization` must have.
    authorization: Option<String>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    stopping: bool,
    requests: Vec<String>,
    streams: Vec<Socket>,
    threads: Vec<JoinHandle<()>>,
}

impl ConnectProxy {
    pub fn to(server: SocketAddr) -> Self {
        Self::start(server, None, None)
    }

    /// One that asks for this value of `Proxy-Authorization`.
    pub fn with_authorization(server: SocketAddr, value: &str) -> Self {
        Self::start(server, None, Some(value.to_owned()))
    }

    /// One that answers every request with this.
    pub fn refusing(answer: &str) -> Self {
        Self::start((Ipv4Addr::LOCALHOST, 1).into(), Some(answer.to_owned()), None)
    }

    fn start(server: SocketAddr, refusal: Option<String>, authorization: Option<String>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let addr = listener.local_addr().expect("a bound listener has an address");
        let shared = Arc::new(Shared {
            server,
            refusal,
            authorization,
            state: Mutex::default(),
        });
        let for_thread = Arc::clone(&shared);
        let listener = spawn(move || {
            while let Ok(stream) = socket::accept(&listener) {
                let mut state = for_thread.state.lock();
                if state.stopping {
                    break;
                }
                let stream = Socket::new(stream);
                state.streams.push(stream.clone());
                let shared = Arc::clone(&for_thread);
                // Ends with an error when the client or the test hangs up, which is as well.
                state.threads.push(spawn(move || drop(shared.serve(stream))));
            }
        });
        Self {
            addr,
            shared,
            listener: Some(listener),
        }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The heads of the requests so far.
    pub fn requests(&self) -> Vec<String> {
        self.shared.state.lock().requests.clone()
    }
}

impl Drop for ConnectProxy {
    fn drop(&mut self) {
        self.shared.state.lock().stopping = true;
        drop(TcpStream::connect(self.addr));
        if let Some(listener) = self.listener.take() {
            listener.join().expect("the listener's thread does not panic");
        }
        let (streams, threads) = {
            let mut state = self.shared.state.lock();
            (
                std::mem::take(&mut state.streams),
                std::mem::take(&mut state.threads),
            )
        };
        for stream in streams {
            stream.end();
        }
        for thread in threads {
            thread.join().expect("a thread of the kit does not panic");
        }
    }
}

impl Shared {
    fn serve(&self, mut client: Socket) -> io::Result<()> {
        let mut reader = BufReader::new(client.clone());
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let wanted = self.authorization.as_ref();
        let is_known = wanted.is_none_or(|value| {
            let line = format!("Proxy-Authorization: {value}");
            head.lines().any(|other| other == line)
        });
        self.state.lock().requests.push(head);
        let refusal = match &self.refusal {
            Some(answer) => Some(answer.as_str()),
            None if is_known => None,
            None => Some("HTTP/1.1 407 Who are you\r\nProxy-Authenticate: Basic realm=\"kit\"\r\n\r\n"),
        };
        if let Some(answer) = refusal {
            return client.write_all(answer.as_bytes());
        }
        let server = Socket::new(TcpStream::connect(self.server)?);
        self.state.lock().streams.push(server.clone());
        for stream in [&client, &server] {
            stream.tcp().set_nodelay(true)?;
        }
        // As old proxies answer.
        client.write_all(b"HTTP/1.0 200 Connection established\r\n\r\n")?;
        let (from, to) = (server.clone(), client);
        let down = spawn(move || pump(from, &to));
        pump(reader, &server);
        down.join().expect("a thread of the kit does not panic");
        Ok(())
    }
}

fn pump(mut from: impl Read, mut to: &Socket) {
    let _ = io::copy(&mut from, &mut to);
    to.end();
}

fn spawn(run: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    thread::Builder::new()
        .name("kit-tunnel".into())
        .spawn(run)
        .expect("a thread")
}
