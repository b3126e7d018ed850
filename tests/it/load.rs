//! More than the listeners can take: what is dropped is told once, at the right place, and nobody else is the worse
//! for it.
//!
//! `LOAD_SECONDS` is how long the flood lasts, 3 s by default.

use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use parking_lot::Mutex;
use parse_livequery::{Event, EventKind, Overflow, Query, Subscription};
use serde_json::{Value, json};

use crate::harness::*;
use crate::support::*;

const SUBSCRIPTIONS: usize = 1000;
/// One in so many events is for the subscription whose listener sleeps.
const SLEEPERS_SHARE: usize = 10;
const SLEEP: Duration = Duration::from_secs(1);
/// What may wait for the listeners of one subscription: too little for the one that sleeps, enough for each other.
const QUEUE: usize = 500;
/// How much the server is ahead of the listeners at most. A machine that gives out less than it takes in would
/// otherwise drop events of all subscriptions in the end, and rightly so.
const AHEAD: u64 = 100_000;
const MEMORY: u64 = 256 << 20;

/// What one listener has got.
#[derive(Debug, Default)]
struct Got {
    next: u64,
    /// Dropped, as the report said that nothing has come after yet.
    reported: u64,
    reports: u64,
    dropped: u64,
    faults: Vec<String>,
}

impl Got {
    fn hear(&mut self, event: &Event) {
        match event.kind() {
            EventKind::Open if self.next == 0 => self.next = 1,
            EventKind::Error
                if self.reported == 0 && event.error().is_some_and(|e| e.dropped().is_some()) =>
            {
                self.reported = event
                    .error()
                    .and_then(|error| error.dropped())
                    .unwrap_or_default();
                self.dropped += self.reported;
                self.reports += 1;
            }
            kind if event.object().is_some() => {
                let number = event.get("n").and_then(Value::as_u64).unwrap_or_default();
                if number != self.next + self.reported {
                    let (next, reported) = (self.next, self.reported);
                    self.faults.push(format!(
                        "{kind} {number}, {next} was next, {reported} were reported as dropped"
                    ));
                }
                self.next = number + 1;
                self.reported = 0;
            }
            _ => self.faults.push(format!("{event:?}")),
        }
    }

    /// How many events it knows of.
    fn count(&self) -> u64 {
        (self.next + self.reported).saturating_sub(1)
    }
}

#[test]
fn a_flood_drops_only_what_waits_for_the_listener_that_sleeps() {
    let seconds = env::var("LOAD_SECONDS").map_or(3, |seconds| seconds.parse().expect("a number"));
    let limit = Duration::from_secs(seconds) + 4 * MINUTE;
    let this = "a_flood_drops_only_what_waits_for_the_listener_that_sleeps";
    in_own_process(module_path!(), this, limit, || {
        flood(Duration::from_secs(seconds))
    });
}

fn flood(time: Duration) {
    let server = Server::auto();
    // As Parse Server does: a client that does not answer in between is thrown out.
    server.ping_every(Duration::from_secs(5));
    let client = builder(&server.url())
        .queue_limits(QUEUE, usize::MAX)
        .build()
        .unwrap();
    let client_events = record_client(&client);
    let heard = Arc::new(AtomicU64::new(0));
    let (subscriptions, all): (Vec<_>, Vec<_>) = (0..SUBSCRIPTIONS)
        .map(|at| {
            let got = Arc::<Mutex<Got>>::default();
            let (hears, heard) = (Arc::clone(&got), Arc::clone(&heard));
            let mut awake_since = None;
            let listener = move |event: &Event| {
                hears.lock().hear(event);
                if event.object().is_some() {
                    heard.fetch_add(1, Ordering::Relaxed);
                    let sleepy = awake_since.is_none_or(|since: Instant| since.elapsed() > SLEEP);
                    if at == 0 && sleepy {
                        thread::sleep(SLEEP);
                        awake_since = Some(Instant::now());
                    }
                }
            };
            let builder = client
                .subscription(&Query::new(format!("Load{at}")))
                .on_any(listener);
            (builder.start().unwrap(), got)
        })
        .unzip();
    for subscription in &subscriptions {
        subscription.wait_open(MINUTE).unwrap();
    }
    let before = resident_bytes();

    let (written, peak, start) = write_for(time, &server, &subscriptions, &heard, &all[0]);
    let took = start.elapsed();
    wait_until_within(MINUTE, "everything has come or was reported", || {
        all.iter()
            .zip(&written)
            .all(|(got, written)| got.lock().count() == *written)
    });
    for (at, got) in all.iter().enumerate() {
        let got = got.lock();
        assert!(got.faults.is_empty(), "{at}: {:?}", got.faults);
        assert_eq!(got.dropped > 0, at == 0, "{at}: {} dropped", got.dropped);
        assert_eq!(subscriptions[at].stats().dropped, got.dropped, "{at}");
    }
    assert_eq!((server.accepts(), server.open_now()), (1, 1));
    // Beside what is told of the one that sleeps, the client has nothing to tell.
    client_events.expect("open");
    assert!(client_events.drain().iter().all(|seen| seen.kind == "error"));
    if let (Some(before), Some(peak)) = (before, peak) {
        let grown = peak.saturating_sub(before);
        assert!(grown < MEMORY, "{grown} bytes more");
    }
    let total: u64 = written.iter().sum();
    let sleeper = all[0].lock();
    eprintln!(
        "{total} events in {took:.1?}, {:.0} a second; {} episodes, {} of {} dropped; resident {:?} MiB before, {:?} at most",
        total as f64 / took.as_secs_f64(),
        sleeper.reports,
        sleeper.dropped,
        written[0],
        before.map(|bytes| bytes >> 20),
        peak.map(|bytes| bytes >> 20),
    );
}

/// Writes as fast as the listeners allow. Returns how many events each subscription was sent, the largest resident set,
/// and when it began.
fn write_for(
    time: Duration,
    server: &Server,
    subscriptions: &[Subscription],
    heard: &AtomicU64,
    sleeper: &Mutex<Got>,
) -> (Vec<u64>, Option<u64>, Instant) {
    let conn = server.conn(1);
    let mut written = vec![0; subscriptions.len()];
    let (mut peak, mut total) = (None, 0);
    let start = Instant::now();
    let dropped = || subscriptions[0].stats().dropped;
    for turn in 0.. {
        // A machine that takes little in may need longer until there is too much of it.
        if start.elapsed() > time && dropped() > 0 {
            break;
        }
        let mut bytes = vec![];
        for at in 0..subscriptions.len() {
            let mut write = |at: usize| {
                written[at] += 1;
                total += 1;
                append_event(&mut bytes, subscriptions[at].id(), written[at]);
            };
            if at % SLEEPERS_SHARE == 0 {
                write(0);
            }
            if at != 0 {
                write(at);
            }
        }
        conn.send_raw(&bytes);
        if turn % 16 == 0 {
            peak = peak.max(resident_bytes());
        }
        // With what was dropped, which no listener will hear of.
        while total - heard.load(Ordering::Relaxed) - dropped() > AHEAD {
            thread::park_timeout(ms(1));
            assert!(start.elapsed() < time + MINUTE, "stuck: {:?}", sleeper.lock());
        }
        assert!(start.elapsed() < time + MINUTE, "nothing was dropped");
    }
    (written, peak, start)
}

/// A text frame of the server, not masked (RFC 6455, 5.2): its length takes two bytes.
fn append_event(bytes: &mut Vec<u8>, id: u64, number: u64) {
    let text = format!(
        r#"{{"op":"update","clientId":"c","requestId":{id},"object":{{"className":"Load","objectId":"o{id}","createdAt":"2024-01-01T00:00:00.000Z","updatedAt":"2024-01-01T00:00:00.000Z","n":{number}}}}}"#
    );
    let length = u16::try_from(text.len()).expect("a short text");
    assert!(length > 125, "a short one would have another header");
    bytes.extend([0x81, 126]);
    bytes.extend(length.to_be_bytes());
    bytes.extend(text.as_bytes());
}

/// An object that takes the place of an older one stays on its own side of a `close`.
#[test]
fn the_oldest_that_are_dropped_leave_the_others_where_they_were() {
    let server = Server::auto();
    let client = builder(&server.url())
        .queue_limits(2, usize::MAX)
        .overflow(Overflow::DropOldest)
        .build()
        .unwrap();
    let events = Events::new();
    let (release, gate) = bounded::<()>(0);
    let builder = record(client.subscription(&Query::new("Game")), "Game", &events);
    let subscription = builder
        .once("create", move |_| {
            let _ = gate.recv_timeout(MINUTE);
        })
        .start()
        .unwrap();
    let create = |n: u32| {
        let (conn, id) = server.wait_subscribed("Game");
        conn.event("create", id, object("Game", "a", json!({ "n": n })), None);
        wait_until("it has come", || {
            subscription.stats().events.create >= u64::from(n)
        });
    };
    create(1);
    events.wait_for("create");
    create(2);
    create(3);
    server.conn(1).cut();
    server.conn(2);
    wait_until("it is open again", || subscription.stats().acknowledged == 2);
    create(4);
    create(5);
    create(6);
    drop(release);
    events.expect("error");
    events.expect("close");
    events.expect("open");
    for n in [5, 6] {
        assert_eq!(events.expect("create").value.get("n"), Some(&json!(n)));
    }
    assert_eq!(subscription.stats().dropped, 3);
}
