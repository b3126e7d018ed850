//! What waits for listeners is bounded, whatever it is, and for all subscriptions together; and what is dropped for
//! that is reported to the last one. Each test is a process of its own, since it measures the resident set.
//!
//! `BOUNDS_SCALE` says how many times more is sent than in a normal run, 1 by default.

use std::collections::BTreeMap;
use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use parse_livequery::{
    Change, Client, ClientBuilder, Event, EventKind, Object, Overflow, Query, Subscription,
};
use serde_json::{Value, json};

use super::{Gate, Store, gate};
use crate::harness::*;
use crate::support::*;

/// What a process may need beyond the limits of what waits.
const SLACK_BYTES: u64 = 20 << 20;
/// All subscriptions together may hold as many bytes as this many of them.
const SUBSCRIPTIONS_WORTH: u64 = 16;
/// The default of `ClientBuilder::queue_limits`.
const DEFAULT_BYTES: u64 = 16 << 20;
const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

fn scaled(count: usize) -> usize {
    let scale = env::var("BOUNDS_SCALE").map_or(1, |scale| scale.parse().expect("a number"));
    count * scale
}

#[track_caller]
fn alone(test: &str, body: impl FnOnce()) {
    let limit = 4 * MINUTE * u32::try_from(scaled(1)).expect("a small number");
    in_own_process(module_path!(), test, limit, body);
}

/// The largest resident set since the beginning, and what it was then.
struct Memory {
    before: Option<u64>,
    peak: Option<u64>,
}

impl Memory {
    fn new() -> Self {
        let before = resident_bytes();
        Self { before, peak: before }
    }

    fn sample(&mut self) {
        self.peak = self.peak.max(resident_bytes());
    }

    #[track_caller]
    fn assert_grew_at_most(mut self, limit: u64) {
        self.sample();
        if let (Some(before), Some(peak)) = (self.before, self.peak) {
            let grown = peak - before;
            eprintln!("{} MiB more, {} MiB at most", grown >> 20, limit >> 20);
            assert!(grown <= limit, "{grown} bytes more, {limit} at most");
        }
    }
}

/// A text frame of the server, not masked (RFC 6455, 5.2).
fn append_frame(bytes: &mut Vec<u8>, text: &str) {
    bytes.push(0x81);
    match u16::try_from(text.len()) {
        Ok(length @ ..126) => bytes.push(length.to_le_bytes()[0]),
        Ok(length) => {
            bytes.push(126);
            bytes.extend(length.to_be_bytes());
        }
        Err(_) => {
            bytes.push(127);
            bytes.extend((text.len() as u64).to_be_bytes());
        }
    }
    bytes.extend(text.as_bytes());
}

/// An event with a text of this length in its object.
fn append_event(bytes: &mut Vec<u8>, id: u64, number: usize, padding: usize) {
    append_frame(
        bytes,
        &format!(
            r#"{{"op":"create","requestId":{id},"object":{{"className":"Load","objectId":"o","n":{number},"x":"{}"}}}}"#,
            "x".repeat(padding)
        ),
    );
}

/// What a listener has got.
#[derive(Default)]
struct Got {
    objects: AtomicU64,
    /// Dropped, by the reports.
    dropped: AtomicU64,
    errors: AtomicU64,
}

impl Got {
    fn hear(&self, event: &Event) {
        let error = event.error().filter(|_| event.kind() == EventKind::Error);
        match error.map(|error| error.dropped()) {
            Some(Some(dropped)) => drop_value(self.dropped.fetch_add(dropped, Ordering::SeqCst)),
            Some(None) => drop_value(self.errors.fetch_add(1, Ordering::SeqCst)),
            None if event.object().is_some() => drop_value(self.objects.fetch_add(1, Ordering::SeqCst)),
            None => {}
        }
    }

    /// How many objects it knows of.
    fn known(&self) -> u64 {
        self.objects.load(Ordering::SeqCst) + self.dropped.load(Ordering::SeqCst)
    }
}

fn drop_value(_: u64) {}

/// A client all of whose listeners wait for one that is held.
struct Blocked {
    server: Server,
    client: Client,
    gate: Gate,
    _blocks: Subscription,
}

/// Keeps the listener of a subscription that has nothing to do with the others.
fn block(server: Server, client: Client) -> Blocked {
    let (gate, hold) = gate();
    let _blocks = client
        .subscription(&Query::new("Blocks"))
        .on_create(move |_| hold.stay())
        .start()
        .unwrap();
    _blocks.wait_open(MINUTE).unwrap();
    server.emit("create", &object("Blocks", "a", json!({})));
    gate.wait_entered();
    Blocked {
        server,
        client,
        gate,
        _blocks,
    }
}

fn subscribe_counting(client: &Client, class: &str) -> (Subscription, Arc<Got>) {
    let got = Arc::<Got>::default();
    let hears = Arc::clone(&got);
    let subscription = client
        .subscription(&Query::new(class))
        .on_any(move |event| hears.hear(event))
        .start()
        .unwrap();
    (subscription, got)
}

/// One large event for each of many subscriptions.
fn one_large_event_each(count: usize, settings: impl FnOnce(ClientBuilder) -> ClientBuilder, limit: u64) {
    assert!(count * MIB > usize::try_from(limit).unwrap(), "too few to tell");
    let server = Server::auto();
    let client = settings(builder(&server.url())).build().unwrap();
    let all: Vec<_> = (0..count)
        .map(|at| subscribe_counting(&client, &format!("Load{at}")))
        .collect();
    for (subscription, _) in &all {
        subscription.wait_open(MINUTE).unwrap();
    }
    let blocked = block(server, client);
    let conn = blocked.server.conn(1);
    let mut bytes = Vec::new();
    append_event(&mut bytes, u64::MAX, 0, MIB);
    let mut memory = Memory::new();
    for (subscription, _) in &all {
        bytes.clear();
        append_event(&mut bytes, subscription.id(), 1, MIB);
        conn.send_raw(&bytes);
        memory.sample();
    }
    wait_until_within(2 * MINUTE, "all have come", || {
        memory.sample();
        all.iter()
            .all(|(subscription, _)| subscription.stats().events.create == 1)
    });
    memory.assert_grew_at_most(limit);
    let stats = blocked.client.stats();
    assert!(stats.dropped > 0, "{stats:?}");
    assert!(stats.queued_bytes as u64 <= limit, "{stats:?}");
    blocked.gate.release();
    wait_until_within(MINUTE, "each has come or was reported", || {
        all.iter().all(|(_, got)| got.known() == 1)
    });
    let reported: u64 = all
        .iter()
        .map(|(_, got)| got.dropped.load(Ordering::SeqCst))
        .sum();
    assert_eq!(reported, blocked.client.stats().dropped);
}

#[test]
fn the_first_object_of_each_subscription_counts_towards_the_sum() {
    alone(
        "the_first_object_of_each_subscription_counts_towards_the_sum",
        || {
            let limit = SUBSCRIPTIONS_WORTH * DEFAULT_BYTES + SLACK_BYTES;
            one_large_event_each(scaled(320), |builder| builder, limit);
        },
    );
}

#[test]
fn the_first_object_of_each_subscription_counts_towards_a_small_sum() {
    alone(
        "the_first_object_of_each_subscription_counts_towards_a_small_sum",
        || {
            let bytes = 64 * KIB;
            let limit = SUBSCRIPTIONS_WORTH * bytes as u64 + SLACK_BYTES;
            one_large_event_each(scaled(80), |builder| builder.queue_limits(1000, bytes), limit);
        },
    );
}

#[test]
fn the_first_object_of_each_subscription_counts_towards_the_sum_where_the_oldest_are_dropped() {
    alone(
        "the_first_object_of_each_subscription_counts_towards_the_sum_where_the_oldest_are_dropped",
        || {
            let bytes = 64 * KIB;
            let limit = SUBSCRIPTIONS_WORTH * bytes as u64 + SLACK_BYTES;
            let settings =
                |builder: ClientBuilder| builder.queue_limits(1000, bytes).overflow(Overflow::DropOldest);
            one_large_event_each(scaled(80), settings, limit);
        },
    );
}

/// Error frames for one subscription.
fn errors(text: impl Fn(usize) -> String) {
    const TOGETHER: usize = 1000;
    let count = scaled(150_000);
    let server = Server::auto();
    let client = client(&server.url());
    let heard_by_client = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&heard_by_client);
    client.on("error", move |_| {
        drop_value(counter.fetch_add(1, Ordering::SeqCst))
    });
    let (subscription, got) = subscribe_counting(&client, "Load");
    subscription.wait_open(LONG).unwrap();
    let blocked = block(server, client);
    let (conn, id) = (blocked.server.conn(1), subscription.id());
    let came = || blocked.client.stats().messages_in;
    let before = came();
    let mut memory = Memory::new();
    let mut bytes = Vec::new();
    for start in (0..count).step_by(TOGETHER) {
        bytes.clear();
        for n in start..start + TOGETHER {
            let text = text(n);
            append_frame(
                &mut bytes,
                &format!(
                    r#"{{"op":"error","error":"{text}","code":141,"reconnect":false,"requestId":{id}}}"#
                ),
            );
        }
        conn.send_raw(&bytes);
        memory.sample();
    }
    wait_until_within(2 * MINUTE, "all have come", || {
        memory.sample();
        came() >= before + count as u64
    });
    memory.assert_grew_at_most(SLACK_BYTES);
    blocked.gate.release();
    fence(&blocked.client);
    wait_until_within(MINUTE, "both hear of them", || {
        got.errors.load(Ordering::SeqCst) > 0 && heard_by_client.load(Ordering::SeqCst) > 0
    });
    // An object after them comes as ever.
    blocked.server.emit("create", &object("Load", "a", json!({})));
    wait_until_within(MINUTE, "it comes", || got.objects.load(Ordering::SeqCst) == 1);
}

#[test]
fn equal_errors_do_not_pile_up() {
    alone("equal_errors_do_not_pile_up", || {
        errors(|_| "a hook of the server threw an error".to_owned());
    });
}

#[test]
fn errors_that_differ_do_not_pile_up() {
    alone("errors_that_differ_do_not_pile_up", || {
        errors(|n| format!("a hook of the server threw error number {n}"));
    });
}

/// Events for one subscription, of these sizes in turn.
fn in_turn(overflow: Overflow, sizes: &[usize], count: usize, slack: u64) {
    let server = Server::auto();
    let client = builder(&server.url())
        .queue_limits(usize::MAX, 64 * KIB)
        .overflow(overflow)
        .build()
        .unwrap();
    let (subscription, got) = subscribe_counting(&client, "Load");
    subscription.wait_open(LONG).unwrap();
    let blocked = block(server, client);
    let (conn, id) = (blocked.server.conn(1), subscription.id());
    let mut memory = Memory::new();
    let mut bytes = Vec::new();
    for n in 0..count {
        append_event(&mut bytes, id, n, sizes[n % sizes.len()]);
        if bytes.len() > 256 * KIB || n + 1 == count {
            conn.send_raw(&bytes);
            bytes.clear();
            memory.sample();
        }
    }
    wait_until_within(2 * MINUTE, "all have come", || {
        memory.sample();
        subscription.stats().events.create == count as u64
    });
    memory.assert_grew_at_most(64 * KIB as u64 + slack);
    let dropped = subscription.stats().dropped;
    assert!(dropped > 0);
    blocked.gate.release();
    wait_until_within(MINUTE, "each has come or was reported", || {
        got.known() == count as u64
    });
    assert_eq!(got.dropped.load(Ordering::SeqCst), dropped);
}

/// One large object and some small ones, which it drives out.
fn large_and_small() -> Vec<usize> {
    let mut sizes = vec![1; 600];
    sizes[0] = 128 * KIB;
    sizes
}

#[test]
fn the_oldest_that_are_dropped_leave_nothing_behind() {
    alone("the_oldest_that_are_dropped_leave_nothing_behind", || {
        // Half of it, so that half of the events are enough to tell.
        let count = scaled(300_000);
        in_turn(Overflow::DropOldest, &large_and_small(), count, SLACK_BYTES / 2);
    });
}

#[test]
fn the_oldest_that_are_dropped_one_by_one_leave_nothing_behind() {
    alone(
        "the_oldest_that_are_dropped_one_by_one_leave_nothing_behind",
        || in_turn(Overflow::DropOldest, &[MIB, 100], scaled(200), SLACK_BYTES),
    );
}

#[test]
fn the_newest_that_are_dropped_leave_nothing_behind() {
    alone("the_newest_that_are_dropped_leave_nothing_behind", || {
        in_turn(
            Overflow::DropNewest,
            &large_and_small(),
            scaled(100_000),
            SLACK_BYTES,
        );
    });
}

#[test]
fn the_newest_that_are_dropped_one_by_one_leave_nothing_behind() {
    alone(
        "the_newest_that_are_dropped_one_by_one_leave_nothing_behind",
        || in_turn(Overflow::DropNewest, &[MIB, 100], scaled(200), SLACK_BYTES),
    );
}

/// Many small objects for each of many subscriptions.
#[test]
fn small_objects_of_many_subscriptions_stay_under_the_sum() {
    alone("small_objects_of_many_subscriptions_stay_under_the_sum", || {
        const SUBSCRIPTIONS: usize = 200;
        let (bytes, each) = (64 * KIB, scaled(1000));
        let server = Server::auto();
        let client = builder(&server.url())
            .queue_limits(usize::MAX, bytes)
            .build()
            .unwrap();
        let all: Vec<_> = (0..SUBSCRIPTIONS)
            .map(|at| subscribe_counting(&client, &format!("Load{at}")))
            .collect();
        for (subscription, _) in &all {
            subscription.wait_open(MINUTE).unwrap();
        }
        let blocked = block(server, client);
        let conn = blocked.server.conn(1);
        let mut memory = Memory::new();
        for n in 0..each {
            let mut frames = Vec::new();
            for (subscription, _) in &all {
                append_event(&mut frames, subscription.id(), n, 100);
            }
            conn.send_raw(&frames);
            memory.sample();
        }
        wait_until_within(2 * MINUTE, "all have come", || {
            memory.sample();
            all.iter()
                .all(|(subscription, _)| subscription.stats().events.create == each as u64)
        });
        memory.assert_grew_at_most(SUBSCRIPTIONS_WORTH * bytes as u64 + SLACK_BYTES);
        blocked.gate.release();
        wait_until_within(MINUTE, "each has come or was reported", || {
            all.iter().all(|(_, got)| got.known() == each as u64)
        });
        let reported: u64 = all
            .iter()
            .map(|(_, got)| got.dropped.load(Ordering::SeqCst))
            .sum();
        assert_eq!(reported, blocked.client.stats().dropped);
        assert!(reported > 0);
    });
}

/// The link comes and goes while a listener of the client is held.
#[test]
fn open_and_close_do_not_pile_up() {
    alone("open_and_close_do_not_pile_up", || {
        const SUBSCRIPTIONS: usize = 20;
        let flaps = scaled(200);
        let server = Server::auto();
        let client = builder(&server.url())
            .reconnect_delay(ms(1), ms(1))
            .build()
            .unwrap();
        let histories: Vec<_> = (0..SUBSCRIPTIONS)
            .map(|at| {
                let history = Arc::new(Mutex::new(Vec::<EventKind>::new()));
                let hears = Arc::clone(&history);
                let subscription = client
                    .subscription(&Query::new(format!("Load{at}")))
                    .on_any(move |event| hears.lock().push(event.kind()))
                    .start()
                    .unwrap();
                (subscription, history)
            })
            .collect();
        let (gate, hold) = gate();
        client.on("reconnecting", move |_| hold.stay());
        let acknowledged = |times: u64| {
            histories
                .iter()
                .all(|(subscription, _)| subscription.stats().acknowledged >= times)
        };
        wait_until_within(MINUTE, "all are open", || acknowledged(1));
        fence(&client);
        for flap in 1..=flaps {
            server.conn(server.accepts()).cut();
            wait_until_within(MINUTE, "all are open again", || acknowledged(1 + flap as u64));
        }
        gate.wait_entered();
        // Not by the memory of the process: the kit remembers each frame that came. Each has some 128 things to be
        // told at most, of the 400 that happened.
        let waiting = client.stats().waiting;
        assert!(waiting < (SUBSCRIPTIONS + 1) * 140, "{waiting} wait");
        gate.release();
        wait_until_within(MINUTE, "all are told that they are open", || {
            histories
                .iter()
                .all(|(_, history)| history.lock().last() == Some(&EventKind::Open))
        });
        fence(&client);
        for (subscription, history) in &histories {
            let history = history.lock();
            assert_grammar(&format!("{}", subscription.id()), &history);
            assert_eq!(history.last(), Some(&EventKind::Open));
        }
    });
}

/// Nobody answers, again and again, while a listener of the client is held.
#[test]
fn failed_attempts_to_connect_do_not_pile_up() {
    alone("failed_attempts_to_connect_do_not_pile_up", || {
        let time = Duration::from_secs(2) * u32::try_from(scaled(1)).unwrap();
        let server = Server::auto();
        server.refuse();
        let client = builder(&server.url())
            .reconnect_delay(Duration::from_micros(100), Duration::from_micros(100))
            .build()
            .unwrap();
        let attempts = Arc::new(AtomicU64::new(0));
        let last = Arc::clone(&attempts);
        let (gate, hold) = gate();
        client.on("reconnecting", move |event| {
            last.store(event.attempt().unwrap().into(), Ordering::SeqCst);
            hold.stay();
        });
        client.open();
        gate.wait_entered();
        let mut memory = Memory::new();
        let start = Instant::now();
        while start.elapsed() < time {
            std::thread::park_timeout(ms(20));
            memory.sample();
        }
        let failures = client.stats().failures;
        eprintln!("{failures} failures");
        memory.assert_grew_at_most(SLACK_BYTES);
        gate.release();
        wait_until("it hears of what is new", || {
            attempts.load(Ordering::SeqCst) >= failures
        });
    });
}

/// A set whose listener for changes is held follows all the same, and is equal in the end.
#[test]
fn the_changes_of_a_set_do_not_pile_up() {
    alone("the_changes_of_a_set_do_not_pile_up", || {
        const OBJECTS: usize = 20;
        let changes = scaled(100_000);
        let server = Server::auto();
        let client = builder(&server.url())
            .queue_limits(5_000, 64 * KIB)
            .build()
            .unwrap();
        let store = Store::default();
        let game = |n: usize| {
            let time = n + 1;
            let (minutes, seconds, millis) = (time / 60_000, time / 1000 % 60, time % 1000);
            object(
                "Game",
                &format!("o{:02}", n % OBJECTS),
                json!({"n": n, "updatedAt": format!("2024-01-01T00:{minutes:02}:{seconds:02}.{millis:03}Z")}),
            )
        };
        for n in 0..OBJECTS {
            store.put(game(n));
        }
        let (gate, hold) = gate();
        let copy = Arc::new(Mutex::new(Vec::<Object>::new()));
        let follows = Arc::clone(&copy);
        let find = store.clone();
        let set = client
            .live_set(&Query::new("Game"))
            .fetch_with(move |query| find.find(query))
            .on_change(move |change, set| {
                let mut copy = follows.lock();
                change.apply_to(&mut copy, set);
                assert!(copy.iter().eq(set.iter()), "{change:?} does not lead to {set:?}");
                drop(copy);
                if !matches!(change, Change::Reset) {
                    hold.stay();
                }
            })
            .start()
            .unwrap();
        set.wait_ready(LONG).unwrap();
        let (conn, id) = server.wait_subscribed("Game");
        let mut memory = Memory::new();
        let mut newest = BTreeMap::<usize, Value>::new();
        let mut bytes = Vec::new();
        for n in OBJECTS..OBJECTS + changes {
            let game = game(n);
            let mut message = json!({"op": "update", "clientId": "c", "requestId": id});
            message["object"] = game.clone();
            append_frame(&mut bytes, &message.to_string());
            newest.insert(n % OBJECTS, game);
            if bytes.len() > 256 * KIB || n + 1 == OBJECTS + changes {
                // A fetch that begins now finds what was sent up to now.
                for game in newest.values() {
                    store.put(game.clone());
                }
                conn.send_raw(&bytes);
                bytes.clear();
                memory.sample();
            }
        }
        wait_until_within(2 * MINUTE, "all have come", || {
            memory.sample();
            set.subscription().stats().events.update == changes as u64
        });
        gate.wait_entered();
        memory.assert_grew_at_most(SUBSCRIPTIONS_WORTH * 64 * KIB as u64 + SLACK_BYTES);
        gate.release();
        wait_until_within(MINUTE, "the set is equal", || {
            let expected = store.find(&Query::new("Game")).unwrap();
            set.is_ready() && set.snapshot().iter().eq(expected.iter())
        });
        fence(&client);
        assert!(copy.lock().iter().eq(set.snapshot().iter()));
    });
}
