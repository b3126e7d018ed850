//! The server process. It speaks as much of the protocol as a client needs to be subscribed, and then sends frames that
//! were encoded beforehand, so that it has time for nothing but sending.

use std::collections::{HashMap, HashSet};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tungstenite::{Message, WebSocket};
use url::Url;

use crate::frames::{self, Kind};
use crate::pages;
use crate::transport::{HOST, Transport, self_signed};

/// What the server does once all subscriptions are there. It is part of the URL that a client connects to.
#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) kind: Kind,
    /// How many subscriptions there will be.
    pub(crate) subscriptions: usize,
    pub(crate) warm_up: Duration,
    /// How long events are sent after that; zero: none.
    pub(crate) duration: Duration,
    /// Events per second, each with the time at which it was sent; zero: as many as possible.
    pub(crate) rate: u32,
    /// How many events may be on their way. The client says over a connection to the second port when it has done half
    /// of that: the other clients have no such calls to make, so there are few. Zero: as many as the connection takes;
    /// for clients that stop reading when they have no time.
    pub(crate) window: u64,
    /// How many connections the client makes, and which of them this is.
    pub(crate) connections: u64,
    pub(crate) connection: u64,
    /// Unless zero, the first connection with this number is cut when all is subscribed, and the second is left alone.
    pub(crate) cut: u64,
    pub(crate) tls: bool,
}

impl Scenario {
    pub(crate) fn url(&self, ports: &Ports) -> String {
        let (scheme, port) = if self.tls {
            ("wss", ports.tls)
        } else {
            ("ws", ports.plain)
        };
        format!(
            "{scheme}://{HOST}:{port}/?kind={}&subscriptions={}&warm_up={}&duration={}&rate={}&window={}&connections={}&cut={}",
            self.kind.name(),
            self.subscriptions,
            self.warm_up.as_millis(),
            self.duration.as_millis(),
            self.rate,
            self.window,
            self.connections,
            self.cut
        )
    }

    pub(crate) fn from_url(url: &Url) -> Self {
        let text = |name: &str| {
            url.query_pairs()
                .find(|(key, _)| key == name)
                .map_or_else(String::new, |(_, value)| value.into_owned())
        };
        let number = |name: &str| text(name).parse::<u64>().expect("the URL has all numbers");
        // Each connection adds its own to the URL, unless there is only one.
        let connection = text("connection").parse().unwrap_or_default();
        Self {
            kind: Kind::from_name(&text("kind")).expect("the URL names a kind"),
            subscriptions: number("subscriptions") as usize,
            warm_up: Duration::from_millis(number("warm_up")),
            duration: Duration::from_millis(number("duration")),
            rate: number("rate") as u32,
            window: number("window"),
            connections: number("connections"),
            connection,
            cut: number("cut"),
            tls: url.scheme() == "wss",
        }
    }
}

/// Where the server listens: without TLS, with it, for what clients say of their work, and for requests.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(crate) struct Ports {
    pub(crate) plain: u16,
    pub(crate) tls: u16,
    pub(crate) credits: u16,
    /// For the REST API.
    pub(crate) rest: u16,
}

/// What the server prints when it listens, as JSON on one line.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Listening {
    pub(crate) ports: Ports,
    /// As PEM.
    pub(crate) certificate: String,
}

/// Serves until standard input ends, which it does with the process that started this one.
pub(crate) fn run() {
    let listener = || TcpListener::bind((HOST, 0)).expect("a port is free");
    let (plain, with_tls, credits, rest) = (listener(), listener(), listener(), listener());
    let (config, certificate) = self_signed();
    let port = |listener: &TcpListener| listener.local_addr().expect("it is bound").port();
    let ports = Ports {
        plain: port(&plain),
        tls: port(&with_tls),
        credits: port(&credits),
        rest: port(&rest),
    };
    pages::serve(rest);
    let credits = Arc::new(CreditStreams {
        listener: credits,
        early: Mutex::new(HashMap::new()),
    });
    let listening = Listening { ports, certificate };
    println!("{}", serde_json::to_string(&listening).expect("it is JSON"));
    let cut = Arc::new(Mutex::new(HashSet::new()));
    for (listener, config) in [(plain, None), (with_tls, Some(config))] {
        let (credits, cut) = (Arc::clone(&credits), Arc::clone(&cut));
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (credits, cut, config) = (Arc::clone(&credits), Arc::clone(&cut), config.clone());
                thread::spawn(move || serve(Transport::accepted(stream, config.as_ref()), &credits, &cut));
            }
        });
    }
    let _ = io::copy(&mut io::stdin(), &mut io::sink());
}

/// The connection, which sends what has gathered before it waits for more.
struct Link {
    stream: Transport,
    unsent: Vec<u8>,
}

impl Read for Link {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.send()?;
        self.stream.read(buffer)
    }
}

impl Write for Link {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.unsent.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Link {
    fn send(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.unsent)?;
        self.unsent.clear();
        self.stream.flush()
    }

    fn queue(&mut self, text: &str) {
        frames::write_frame(text, &mut self.unsent);
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Incoming<'a> {
    op: &'a str,
    request_id: Option<u64>,
}

fn serve(stream: Transport, credits: &CreditStreams, cut: &Mutex<HashSet<u64>>) {
    let mut url = None;
    #[expect(clippy::result_large_err, reason = "tungstenite's signature")]
    let note_url = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        url = Url::parse(&format!("ws://{HOST}{}", request.uri())).ok();
        Ok(response)
    };
    let link = Link {
        stream,
        unsent: Vec::new(),
    };
    let Ok(mut socket) = tungstenite::accept_hdr(link, note_url) else {
        return;
    };
    let scenario = Scenario::from_url(&url.expect("the handshake has seen the request"));
    let _ = converse(&mut socket, &scenario, credits, cut);
}

fn converse(
    socket: &mut WebSocket<Link>,
    scenario: &Scenario,
    credits: &CreditStreams,
    cut: &Mutex<HashSet<u64>>,
) -> tungstenite::Result<()> {
    let mut ids = Vec::new();
    loop {
        let Message::Text(text) = socket.read()? else {
            continue;
        };
        let Ok(incoming) = serde_json::from_str::<Incoming<'_>>(&text) else {
            continue;
        };
        let link = socket.get_mut();
        match (incoming.op, incoming.request_id) {
            ("connect", _) => link.queue(&frames::connected()),
            ("subscribe", Some(id)) => {
                link.queue(&frames::subscribed(id));
                ids.push(id);
                if ids.len() == scenario.subscriptions {
                    link.send()?;
                    subscribed(&mut link.stream, scenario, &ids, credits, cut)?;
                }
            }
            _ => {}
        }
    }
}

/// All subscriptions are there.
fn subscribed(
    stream: &mut Transport,
    scenario: &Scenario,
    ids: &[u64],
    credits: &CreditStreams,
    cut: &Mutex<HashSet<u64>>,
) -> io::Result<()> {
    if scenario.cut != 0 && cut.lock().expect("nobody panics with it").insert(scenario.cut) {
        // Time for the client to settle, and to look at its memory.
        thread::sleep(Duration::from_millis(500));
        return stream.shutdown();
    }
    if scenario.rate > 0 {
        return send_at_rate(stream, scenario, ids);
    }
    if scenario.duration.is_zero() {
        return Ok(());
    }
    let mut credits = match scenario.window {
        0 => None,
        window => Some(Credits {
            stream: credits.of(scenario.connection)?,
            window,
            on_their_way: 0,
        }),
    };
    let batches = batches(scenario.kind, ids);
    let mut next = batches.iter().cycle();
    let mut flood = |stream: &mut Transport, duration| -> io::Result<u64> {
        let until = Instant::now() + duration;
        let mut sent = 0;
        while Instant::now() < until {
            let Some(batch) = next.next() else { break };
            if let Some(credits) = &mut credits {
                credits.take(batch.events)?;
            }
            stream.write_all(&batch.bytes)?;
            sent += batch.events;
        }
        Ok(sent)
    };
    flood(stream, scenario.warm_up)?;
    send(stream, &frames::start(ids[0]))?;
    let sent = flood(stream, scenario.duration)?;
    send(stream, &frames::end(ids[0], sent))
}

struct Batch {
    bytes: Vec<u8>,
    events: u64,
}

/// Events for all subscriptions in turn, in portions that are written at once.
fn batches(kind: Kind, ids: &[u64]) -> Vec<Batch> {
    const BYTES: usize = 64 * 1024;
    let per_batch = (BYTES / kind.text(0).len()).max(1);
    let count = ids.len().div_ceil(per_batch).max(16);
    let mut ids = ids.iter().cycle();
    (0..count)
        .map(|_| {
            let mut bytes = Vec::new();
            for id in ids.by_ref().take(per_batch) {
                frames::write_frame(&kind.text(*id), &mut bytes);
            }
            Batch {
                bytes,
                events: per_batch as u64,
            }
        })
        .collect()
}

/// The connections over which clients say what they have done, each of which begins with the number of the connection
/// that it is about.
struct CreditStreams {
    listener: TcpListener,
    /// Those that came while another was awaited.
    early: Mutex<HashMap<u64, TcpStream>>,
}

impl CreditStreams {
    fn of(&self, connection: u64) -> io::Result<TcpStream> {
        let mut early = self.early.lock().expect("nobody panics with it");
        loop {
            if let Some(stream) = early.remove(&connection) {
                return Ok(stream);
            }
            let (mut stream, _) = self.listener.accept()?;
            let mut number = [0; 8];
            stream.read_exact(&mut number)?;
            early.insert(u64::from_be_bytes(number), stream);
        }
    }
}

struct Credits {
    stream: TcpStream,
    window: u64,
    on_their_way: u64,
}

impl Credits {
    /// Waits until so many events may be sent.
    fn take(&mut self, events: u64) -> io::Result<()> {
        while self.on_their_way + events > self.window {
            let mut returned = [0; 64];
            let portions = self.stream.read(&mut returned)?;
            if portions == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.on_their_way -= portions as u64 * credit(self.window);
        }
        self.on_their_way += events;
        Ok(())
    }
}

/// After how many events a client with a window says so.
pub(crate) fn credit(window: u64) -> u64 {
    window / 2
}

fn send_at_rate(stream: &mut Transport, scenario: &Scenario, ids: &[u64]) -> io::Result<()> {
    let interval = Duration::from_secs(1) / scenario.rate;
    let (mut frame, stamp) = frames::stamped_frame(ids[0]);
    let mut due = Instant::now();
    let mut send_for = |stream: &mut Transport, duration: Duration| -> io::Result<u64> {
        let count = duration.as_nanos() / interval.as_nanos();
        for _ in 0..count {
            due += interval;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            frame[stamp.clone()].copy_from_slice(format!("{:020}", nanoseconds_since_1970()).as_bytes());
            stream.write_all(&frame)?;
        }
        Ok(count as u64)
    };
    send_for(stream, scenario.warm_up)?;
    send(stream, &frames::start(ids[0]))?;
    let sent = send_for(stream, scenario.duration)?;
    send(stream, &frames::end(ids[0], sent))
}

fn send(stream: &mut Transport, text: &str) -> io::Result<()> {
    let mut frame = Vec::new();
    frames::write_frame(text, &mut frame);
    stream.write_all(&frame)
}

pub(crate) fn nanoseconds_since_1970() -> u128 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_nanos())
}
