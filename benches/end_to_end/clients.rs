//! The clients that are measured, each in a process of its own: this library, and what can be done without one.

use std::hint::black_box;
use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fs};

use parse_livequery::{Client, Date, Event, Query, Subscription};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use tungstenite::{Message, WebSocket};
use url::Url;

use crate::process;
use crate::server::{Ports, Scenario, credit, nanoseconds_since_1970};
use crate::transport::{HOST, Transport};

/// What a client does with the events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Reads one field.
    Get,
    /// Reads four fields, as a struct where that can be.
    Decode,
    /// Has no listener for this kind of event.
    Nothing,
    /// Takes down how long each was on its way.
    Latency,
    /// Counts the subscriptions that the server acknowledges, before and after a cut.
    Subscriptions,
    /// The same, with four listeners for each subscription.
    Listeners,
    /// Fetches all objects of a class.
    LiveSet,
    /// Waits.
    Idle,
}

impl Work {
    const ALL: [(Self, &'static str); 8] = [
        (Self::Get, "get"),
        (Self::Decode, "decode"),
        (Self::Nothing, "nothing"),
        (Self::Latency, "latency"),
        (Self::Subscriptions, "subscriptions"),
        (Self::Listeners, "listeners"),
        (Self::LiveSet, "live_set"),
        (Self::Idle, "idle"),
    ];

    pub(crate) fn name(self) -> &'static str {
        let found = Self::ALL.into_iter().find(|(work, _)| *work == self);
        found.map_or("", |(_, name)| name)
    }

    fn from_name(name: &str) -> Option<Self> {
        let found = Self::ALL.into_iter().find(|(_, known)| *known == name);
        found.map(|(work, _)| work)
    }
}

/// What a client process reports, as JSON: what belongs to its work, and nothing else.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Report {
    pub(crate) events: f64,
    pub(crate) seconds: f64,
    pub(crate) cpu_seconds: Option<f64>,
    /// Microseconds from the server's write to the listener.
    pub(crate) latencies: Vec<f64>,
    /// Seconds until all subscriptions were acknowledged, and acknowledged again after `connected`.
    pub(crate) acknowledged: f64,
    pub(crate) restored: f64,
    /// Bytes that are resident with one subscription, with all, and after they were restored.
    pub(crate) resident: Vec<f64>,
    pub(crate) switches: Option<f64>,
}

impl Report {
    /// Events per second.
    pub(crate) fn rate(&self) -> f64 {
        self.events / self.seconds
    }

    /// Microseconds of the processors for each event.
    pub(crate) fn cost(&self) -> Option<f64> {
        self.cpu_seconds.map(|seconds| seconds * 1e6 / self.events)
    }
}

/// Runs a client to its end and prints its report.
pub(crate) fn run(name: &str, work: &str, url: &str, ports: &str) {
    let work = Work::from_name(work).expect("there is such work");
    let scenario = Scenario::from_url(&Url::parse(url).expect("it is a URL"));
    let ports: Ports = serde_json::from_str(ports).expect("it is JSON");
    let report = match name {
        "library" => library(work, url, &scenario, &ports),
        "bare" => bare(work, url),
        "typed" => typed(url),
        "two_threads" => two_threads(url),
        "floor" => floor(url),
        _ => panic!("there is no client `{name}`"),
    };
    println!("{}", serde_json::to_string(&report).expect("it is JSON"));
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(dead_code, reason = "only decoded")]
struct Game {
    player_name: String,
    score: f64,
    created_at: Date,
    updated_at: Date,
}

fn library(work: Work, url: &str, scenario: &Scenario, ports: &Ports) -> Report {
    let client = || library_client(url, ports);
    match work {
        Work::Get | Work::Decode | Work::Nothing | Work::Latency => {
            library_floods(work, url, scenario, ports)
        }
        Work::Subscriptions => library_subscriptions(&client(), scenario.subscriptions, 0),
        Work::Listeners => library_subscriptions(&client(), scenario.subscriptions, 3),
        Work::LiveSet => library_live_set(&client()),
        Work::Idle => library_idle(&client(), scenario.duration),
    }
}

fn library_client(url: &str, ports: &Ports) -> Client {
    let mut builder = Client::builder(url, "app")
        .rest_url(format!("http://{HOST}:{}/parse", ports.rest))
        .ack_timeout(PATIENCE);
    if let Some(pem) = certificate(url) {
        builder = builder.add_root_certificate(pem);
    }
    builder.build().expect("the settings are right")
}

/// One client for each connection, all at the same time.
fn library_floods(work: Work, url: &str, scenario: &Scenario, ports: &Ports) -> Report {
    // The time of threads that have ended is not known.
    let all_done = Barrier::new(scenario.connections as usize);
    let all_done = &all_done;
    let reports: Vec<Report> = thread::scope(|threads| {
        let floods: Vec<_> = (0..scenario.connections)
            .map(|connection| {
                threads.spawn(move || {
                    let client = library_client(&format!("{url}&connection={connection}"), ports);
                    let report = library_flood(work, &client, connection, scenario, ports);
                    all_done.wait();
                    report
                })
            })
            .collect();
        let reports = floods.into_iter().map(|flood| flood.join());
        reports.map(|report| report.expect("it does not panic")).collect()
    });
    let most = |of: fn(&Report) -> Option<f64>| reports.iter().filter_map(of).reduce(f64::max);
    Report {
        events: reports.iter().map(|report| report.events).sum(),
        seconds: most(|report| Some(report.seconds)).unwrap_or_default(),
        cpu_seconds: most(|report| report.cpu_seconds),
        latencies: reports.into_iter().flat_map(|report| report.latencies).collect(),
        ..Report::default()
    }
}

fn library_flood(work: Work, client: &Client, connection: u64, scenario: &Scenario, ports: &Ports) -> Report {
    let credits = (scenario.window > 0).then(|| {
        let mut stream = TcpStream::connect((HOST, ports.credits)).expect("the server listens");
        let connection = connection.to_be_bytes();
        stream.write_all(&connection).expect("the server reads it");
        stream
    });
    let latencies = Arc::new(Mutex::new(Vec::new()));
    let (started, starts) = mpsc::channel();
    let (ended, ends) = mpsc::channel();
    let credits = credits.map(|stream| Arc::new(Mutex::new(stream)));
    let handled = Arc::new(AtomicU64::new(0));
    let per_credit = credit(scenario.window).max(1);
    // What each listener does besides: it counts, and lets the server go on.
    let count = move || {
        if (handled.fetch_add(1, Ordering::Relaxed) + 1) % per_credit == 0 {
            if let Some(credits) = &credits {
                let _ = credits.lock().expect("nobody panics with it").write_all(&[1]);
            }
        }
    };
    let listener = |latencies: Arc<Mutex<Vec<f64>>>| {
        let count = count.clone();
        move |event: &Event| {
            match work {
                Work::Get => {
                    black_box(event.get("score").and_then(Value::as_f64)).expect("it has a score");
                }
                Work::Decode => {
                    black_box(event.decode::<Game>().expect("it is a game"));
                }
                _ => {
                    let sent = event
                        .get("sentAt")
                        .and_then(Value::as_str)
                        .expect("it is stamped");
                    let latency = latency(sent);
                    latencies.lock().expect("nobody panics with it").push(latency);
                }
            }
            count();
        }
    };
    let subscriptions: Vec<Subscription> = (0..scenario.subscriptions)
        .map(|number| {
            let mut subscription = client.subscription(&query(number));
            if work != Work::Nothing {
                subscription = subscription.on(scenario.kind.event(), listener(Arc::clone(&latencies)));
            }
            if number == 0 {
                let (started, ended) = (started.clone(), ended.clone());
                let latencies = Arc::clone(&latencies);
                subscription = subscription
                    .on_enter(move |_| {
                        latencies.lock().expect("nobody panics with it").clear();
                        let _ = started.send((Instant::now(), process::cpu_time()));
                    })
                    .on_leave(move |object| {
                        let sent = object.get_f64("sent").expect("it says how many there were");
                        let _ = ended.send((Instant::now(), process::cpu_time(), sent));
                    });
            }
            subscription.start().expect("the query is right")
        })
        .collect();
    let start = starts.recv_timeout(PATIENCE).expect("the server sends events");
    let (end, cpu_at_end, sent) = ends.recv_timeout(PATIENCE).expect("the server comes to an end");
    assert_eq!(client.stats().dropped, 0, "the window is smaller than the queue");
    let received: u64 = subscriptions.iter().map(|s| s.stats().events.total()).sum();
    assert!(received as f64 >= sent, "{received} of {sent}");
    let latencies = std::mem::take(&mut *latencies.lock().expect("nobody panics with it"));
    report(start, (end, cpu_at_end), sent, latencies)
}

fn report(
    start: (Instant, Option<Duration>),
    end: (Instant, Option<Duration>),
    events: f64,
    latencies: Vec<f64>,
) -> Report {
    Report {
        events,
        seconds: (end.0 - start.0).as_secs_f64(),
        cpu_seconds: end.1.zip(start.1).map(|(end, start)| (end - start).as_secs_f64()),
        latencies,
        ..Report::default()
    }
}

fn latency(sent: &str) -> f64 {
    let sent: u128 = sent.parse().expect("it is a number");
    nanoseconds_since_1970().saturating_sub(sent) as f64 / 1000.0
}

/// Subscriptions differ in their queries, as those of a program do. The first one has the number 1 on the wire.
fn query(number: usize) -> Query {
    Query::new("Game").equal_to("room", number as u64 + 1)
}

/// With so many listeners for each beside the one for `open`.
fn library_subscriptions(client: &Client, number: usize, listeners: usize) -> Report {
    let opened = Arc::new(AtomicUsize::new(0));
    let (all_opened, all) = mpsc::channel();
    let subscribe = |from: usize, to: usize| -> Vec<Subscription> {
        (from..to)
            .map(|of| {
                let (opened, all_opened) = (Arc::clone(&opened), all_opened.clone());
                let mut subscription = client.subscription(&query(of));
                for kind in ["create", "update", "delete"].into_iter().take(listeners) {
                    let owned = Arc::clone(&opened);
                    subscription = subscription.on(kind, move |_: &Event| {
                        black_box(&owned);
                    });
                }
                subscription
                    .on_open(move |_| {
                        if (opened.fetch_add(1, Ordering::Relaxed) + 1) % number == 0 {
                            let _ = all_opened.send(Instant::now());
                        }
                    })
                    .start()
                    .expect("the query is right")
            })
            .collect()
    };
    let first = subscribe(0, 1);
    first[0].wait_open(PATIENCE).expect("the server acknowledges it");
    thread::sleep(SETTLE);
    let base = process::resident();
    let (connected, connections) = mpsc::channel();
    let started = Instant::now();
    let rest = subscribe(1, number);
    let acknowledged = match number {
        // Its `open` came before.
        1 => started,
        _ => all.recv_timeout(PATIENCE).expect("the server acknowledges them"),
    };
    client.on("open", move |_| {
        let _ = connected.send(Instant::now());
    });
    thread::sleep(SETTLE);
    let with_all = process::resident();
    // A listener for `open` is called for the present connection as well.
    let _ = connections.recv_timeout(PATIENCE);
    let connected = connections.recv_timeout(PATIENCE).expect("it connects again");
    let mut restored = all
        .recv_timeout(PATIENCE)
        .expect("the server acknowledges them again");
    if number == 1 {
        restored = all
            .recv_timeout(PATIENCE)
            .expect("the server acknowledges it again");
    }
    thread::sleep(SETTLE);
    let after_cut = process::resident();
    drop((first, rest));
    Report {
        acknowledged: (acknowledged - started).as_secs_f64(),
        restored: (restored - connected).as_secs_f64(),
        resident: all_known([base, with_all, after_cut]),
        ..Report::default()
    }
}

/// The numbers of bytes, where the system says them.
fn all_known<const COUNT: usize>(bytes: [Option<u64>; COUNT]) -> Vec<f64> {
    bytes.into_iter().flatten().map(|bytes| bytes as f64).collect()
}

fn library_live_set(client: &Client) -> Report {
    client.open();
    client.wait_open(PATIENCE).expect("the server accepts it");
    thread::sleep(SETTLE);
    let base = process::resident();
    let start = Instant::now();
    let set = client
        .live_set(&Query::new("Game"))
        .start()
        .expect("the query is right");
    set.wait_ready(PATIENCE).expect("the server has all objects");
    let seconds = start.elapsed().as_secs_f64();
    thread::sleep(SETTLE);
    Report {
        events: set.len() as f64,
        seconds,
        resident: all_known([base, process::resident()]),
        ..Report::default()
    }
}

fn library_idle(client: &Client, duration: Duration) -> Report {
    let subscription = client.subscribe(&query(0)).expect("the query is right");
    subscription
        .wait_open(PATIENCE)
        .expect("the server acknowledges it");
    thread::sleep(SETTLE);
    let switches = || process::voluntary_switches("livequery-");
    let before = switches();
    thread::sleep(duration);
    Report {
        switches: switches()
            .zip(before)
            .map(|(after, before)| (after - before) as f64),
        ..Report::default()
    }
}

/// The least that a program does for itself: a blocking socket, and each message decoded as a `Value`.
fn bare(work: Work, url: &str) -> Report {
    let mut socket = subscribed_socket(url);
    let mut start = (Instant::now(), None);
    let mut latencies = Vec::new();
    loop {
        let Message::Text(text) = socket.read().expect("the server sends events") else {
            continue;
        };
        let message: Value = serde_json::from_str(&text).expect("it is JSON");
        let object = &message["object"];
        match message["op"].as_str() {
            Some("create" | "update") if message["requestId"] == 1 => match work {
                Work::Get => {
                    black_box(object["score"].as_f64().expect("it has a score"));
                }
                Work::Decode => {
                    black_box((
                        object["playerName"].as_str().map(ToOwned::to_owned),
                        object["score"].as_f64(),
                        object["createdAt"]
                            .as_str()
                            .and_then(|date| Date::parse(date).ok()),
                        object["updatedAt"]
                            .as_str()
                            .and_then(|date| Date::parse(date).ok()),
                    ));
                }
                _ => latencies.push(latency(object["sentAt"].as_str().expect("it is stamped"))),
            },
            Some("enter") => {
                latencies.clear();
                start = (Instant::now(), process::cpu_time());
            }
            Some("leave") => {
                let end = (Instant::now(), process::cpu_time());
                let sent = object["sent"].as_f64().expect("it says how many there were");
                return report(start, end, sent, latencies);
            }
            _ => {}
        }
    }
}

/// What a careful engineer writes by hand for one class: the object of a message is decoded straight to a struct.
fn typed(url: &str) -> Report {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Envelope<'a> {
        op: &'a str,
        request_id: Option<u64>,
        #[serde(borrow)]
        object: Option<&'a RawValue>,
    }

    #[derive(Deserialize)]
    struct End {
        sent: f64,
    }

    let mut socket = subscribed_socket(url);
    let mut start = (Instant::now(), None);
    loop {
        let Message::Text(text) = socket.read().expect("the server sends events") else {
            continue;
        };
        let message: Envelope<'_> = serde_json::from_str(&text).expect("it is a message");
        let object = message.object.map_or("null", RawValue::get);
        match message.op {
            "create" | "update" if message.request_id == Some(1) => {
                black_box(serde_json::from_str::<Game>(object).expect("it is a game"));
            }
            "enter" => start = (Instant::now(), process::cpu_time()),
            "leave" => {
                let end = (Instant::now(), process::cpu_time());
                let sent = serde_json::from_str::<End>(object).expect("it says how many there were");
                return report(start, end, sent.sent, Vec::new());
            }
            _ => {}
        }
    }
}

/// The bare loop, with the events handed to a second thread, so that a listener does not keep the socket waiting.
fn two_threads(url: &str) -> Report {
    let mut socket = subscribed_socket(url);
    let (events, received) = mpsc::channel::<Value>();
    thread::spawn(move || {
        loop {
            let Message::Text(text) = socket.read().expect("the server sends events") else {
                continue;
            };
            let message = serde_json::from_str(&text).expect("it is JSON");
            if events.send(message).is_err() {
                return;
            }
        }
    });
    let mut start = (Instant::now(), None);
    let mut latencies = Vec::new();
    loop {
        let message = received.recv().expect("the other thread reads on");
        let object = &message["object"];
        match message["op"].as_str() {
            Some("update") => latencies.push(latency(object["sentAt"].as_str().expect("it is stamped"))),
            Some("enter") => {
                latencies.clear();
                start = (Instant::now(), process::cpu_time());
            }
            Some("leave") => {
                let end = (Instant::now(), process::cpu_time());
                let sent = object["sent"].as_f64().expect("it says how many there were");
                return report(start, end, sent, latencies);
            }
            _ => {}
        }
    }
}

/// Reads, and looks at nothing.
fn floor(url: &str) -> Report {
    let mut socket = subscribed_socket(url);
    let mut start = (Instant::now(), None);
    loop {
        let Message::Text(text) = socket.read().expect("the server sends events") else {
            continue;
        };
        let text = text.as_str();
        if text.starts_with(r#"{"op":"enter""#) {
            start = (Instant::now(), process::cpu_time());
        } else if text.starts_with(r#"{"op":"leave""#) {
            let end = (Instant::now(), process::cpu_time());
            let message: Value = serde_json::from_str(text).expect("it is JSON");
            let sent = message["object"]["sent"]
                .as_f64()
                .expect("it says how many there were");
            return report(start, end, sent, Vec::new());
        }
        black_box(text);
    }
}

/// A blocking WebSocket as tungstenite sets it up by default, with one subscription.
fn subscribed_socket(url: &str) -> WebSocket<Transport> {
    let port = Url::parse(url)
        .ok()
        .and_then(|url| url.port())
        .expect("it has a port");
    let transport = Transport::connect(port, certificate(url).as_deref());
    let (mut socket, _) = tungstenite::client(url, transport).expect("the server takes connections");
    for frame in [
        r#"{"op":"connect","applicationId":"app"}"#,
        r#"{"op":"subscribe","requestId":1,"query":{"className":"Game","where":{"room":1}}}"#,
    ] {
        socket
            .send(Message::text(frame))
            .expect("the server reads what is sent");
    }
    socket
}

/// The certificate of the server, if the URL needs one.
fn certificate(url: &str) -> Option<String> {
    url.starts_with("wss:").then(|| {
        let path = env::var_os(CERTIFICATE).expect("it is set for clients");
        fs::read_to_string(path).expect("it can be read")
    })
}

/// The variable of the environment that says in which file the certificate of the server is. Node.js has this name.
pub(crate) const CERTIFICATE: &str = "NODE_EXTRA_CA_CERTS";

/// Long enough for any step on a slow and busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// For what was freed to be given back, and what is under way to be done.
const SETTLE: Duration = Duration::from_millis(200);
