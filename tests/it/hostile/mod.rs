//! Peers that are hostile or broken, one script per test: what they send or refuse to read must cost the client neither
//! its thread, nor its memory, nor its way back. Each file is one part of the link.

mod frames;
mod handshake;
mod helpers;
mod logs;
mod panics;
mod retry_after;
mod sending;
mod socks;
#[cfg(target_os = "linux")]
mod test_server;

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::Mutex;
use parse_livequery::{Client, ClientEvent, ClientEventKind};

use crate::harness::ClientEvents;
use crate::support::{Seen, Socket, threads_named};

/// A listener that runs a script with each connection, whose number is counted from 1. Dropping it ends everything.
pub struct Peer {
    addr: SocketAddr,
    state: Arc<Mutex<State>>,
    listener: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct State {
    stopping: bool,
    streams: Vec<Socket>,
    threads: Vec<JoinHandle<()>>,
}

impl Peer {
    pub fn new(script: impl Fn(usize, Socket) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let addr = listener.local_addr().expect("a bound listener has an address");
        let state = Arc::new(Mutex::new(State::default()));
        let (of_listener, script) = (Arc::clone(&state), Arc::new(script));
        let listener = thread::spawn(move || {
            for number in 1.. {
                let Ok((stream, _)) = listener.accept() else { break };
                let mut state = of_listener.lock();
                if state.stopping {
                    break;
                }
                let stream = Socket::new(stream);
                state.streams.push(stream.clone());
                let script = Arc::clone(&script);
                state.threads.push(thread::spawn(move || {
                    script(number, stream.clone());
                    stream.end();
                }));
            }
        });
        Self {
            addr,
            state,
            listener: Some(listener),
        }
    }

    /// One that upgrades each connection, and says `connected` on it.
    pub fn connected(script: impl Fn(usize, Socket) + Send + Sync + 'static) -> Self {
        Self::new(move |number, stream| {
            let Some(mut stream) = upgraded(stream) else {
                return;
            };
            send(&mut stream, &frame(TEXT | FIN, CONNECTED.as_bytes()));
            script(number, stream);
        })
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    pub fn url(&self) -> String {
        format!("ws://{}/parse", self.addr)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.state.lock().stopping = true;
        drop(TcpStream::connect(self.addr));
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
        let (streams, threads) = {
            let mut state = self.state.lock();
            (
                std::mem::take(&mut state.streams),
                std::mem::take(&mut state.threads),
            )
        };
        for stream in streams {
            stream.end();
        }
        for thread in threads {
            // What a script complains of shows in what the client does.
            let _ = thread.join();
        }
    }
}

/// The connection, once it was upgraded.
pub fn upgraded(stream: Socket) -> Option<Socket> {
    Some(tungstenite::accept(stream).ok()?.into_inner())
}

/// `false` once the client is gone.
pub fn send(stream: &mut Socket, bytes: &[u8]) -> bool {
    stream.write_all(bytes).is_ok()
}

/// A frame as a server sends it; `first` is its first byte.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..126 => frame.push(length as u8),
        length @ 126..0x1_0000 => {
            frame.push(126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

pub const FIN: u8 = 0x80;
pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;
const CONNECTED: &str = r#"{"op":"connected","clientId":"hostile","installationId":null}"#;

/// Opens the client, and gives the first `reconnecting`.
pub fn first_failure(client: &Client, events: &ClientEvents) -> Seen<ClientEvent> {
    client.open();
    events.wait_for(ClientEventKind::Reconnecting.as_str())
}

/// How long the threads of the library have run; `None` where the kernel does not say.
pub fn cpu_time() -> Option<Duration> {
    let mut threads = threads_named("livequery-io")?;
    threads.extend(threads_named("livequery-dispatch")?);
    threads.into_iter().map(|thread| thread.cpu_time).sum()
}
