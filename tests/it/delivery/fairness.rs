//! One subscription that is flooded, or whose listener is slow, holds up the others no longer than its turn.
//!
//! `FAIRNESS_SECONDS` is how long each flood lasts, 2 s by default.

use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use parse_livequery::{Client, Dispatch, Object, Query, Subscription};
use serde_json::{Value, json};

use crate::harness::*;
use crate::support::*;

const SUBSCRIPTIONS: usize = 200;
/// The server writes so many events for the one that is flooded, and one for one of the others, each time.
const FLOOD: usize = 10;
const PERIOD: Duration = Duration::from_millis(4);
const SLOW: Duration = Duration::from_millis(5);
/// From the write of the server to the listener.
const MEDIAN: Duration = Duration::from_millis(20);

fn time() -> Duration {
    Duration::from_secs(env::var("FAIRNESS_SECONDS").map_or(2, |seconds| seconds.parse().expect("a number")))
}

/// How long events were on their way.
#[derive(Clone)]
struct Waits {
    epoch: Instant,
    all: Arc<Mutex<Vec<Duration>>>,
}

impl Waits {
    fn new() -> Self {
        Self {
            epoch: Instant::now(),
            all: Arc::default(),
        }
    }

    fn now(&self) -> Value {
        json!(u64::try_from(self.epoch.elapsed().as_nanos()).unwrap())
    }

    fn hear(&self, event: &Object) {
        let sent = Duration::from_nanos(event.get("sent").and_then(Value::as_u64).unwrap());
        self.all.lock().push(self.epoch.elapsed().saturating_sub(sent));
    }

    fn len(&self) -> usize {
        self.all.lock().len()
    }

    fn median(&self) -> Duration {
        let mut all = self.all.lock();
        all.sort_unstable();
        all.get(all.len() / 2).copied().unwrap_or(MINUTE)
    }
}

/// What one of many subscriptions waits for its events, with and without a flood of another one.
fn wait_among_many(client: &Client, server: &Server, flood: usize) -> Duration {
    let waits = Waits::new();
    let numbers = Arc::new(Mutex::new(vec![]));
    let order = Arc::clone(&numbers);
    let flooded = client
        .subscription(&Query::new("Flooded"))
        .on_create(move |event| {
            order.lock().push(event.get_i64("n").unwrap());
            thread::park_timeout(SLOW);
        })
        .start()
        .unwrap();
    let others: Vec<Subscription> = (1..SUBSCRIPTIONS)
        .map(|at| {
            let waits = waits.clone();
            client
                .subscription(&Query::new(format!("Other{at}")))
                .on_create(move |event| waits.hear(event))
                .start()
                .unwrap()
        })
        .collect();
    for subscription in others.iter().chain([&flooded]) {
        subscription.wait_open(MINUTE).unwrap();
    }
    let conn = server.conn(server.accepts());
    let start = Instant::now();
    let mut sent = 0;
    while start.elapsed() < time() {
        let mut messages: Vec<_> = (0..flood)
            .map(|n| {
                let game = object("Flooded", "a", json!({ "n": sent * flood + n }));
                conn.event_message("create", flooded.id(), game, None)
            })
            .collect();
        let other = others[sent % others.len()].id();
        let game = object("Other", "a", json!({ "sent": waits.now() }));
        messages.push(conn.event_message("create", other, game, None));
        conn.send_together(&messages);
        sent += 1;
        let due = start + PERIOD * u32::try_from(sent).unwrap();
        thread::park_timeout(due.saturating_duration_since(Instant::now()));
    }
    // All have come, and those that wait for the flood are among them. Where it is not fair some may never come.
    let deadline = Instant::now() + ms(2000);
    while waits.len() < sent && Instant::now() < deadline {
        thread::park_timeout(ms(5));
    }
    // What did not come counts as a minute.
    let lacking = sent - waits.len();
    waits.all.lock().extend((0..lacking).map(|_| MINUTE));
    let numbers = numbers.lock();
    assert!(
        numbers.is_sorted(),
        "the order within a subscription is that of the wire"
    );
    assert_eq!(
        numbers.is_empty(),
        flood == 0,
        "the flooded one gets its turns as well"
    );
    eprintln!(
        "{sent} events for the others, {lacking} of them did not come in time; {} of {} for the flooded one; {:?}",
        numbers.len(),
        sent * flood,
        waits.median(),
    );
    waits.median()
}

/// Not slower than the limit, unless the machine is slow at everything.
#[track_caller]
fn assert_fair(quiet: Duration, flooded: Duration) {
    let limit = MEDIAN + 4 * quiet;
    assert!(
        flooded <= limit,
        "the median wait is {flooded:?}, {quiet:?} without the flood, {limit:?} at most"
    );
}

#[test]
fn a_flooded_subscription_with_a_slow_listener_holds_up_the_others_for_a_turn_at_most() {
    let [quiet, flooded] = [0, FLOOD].map(|flood| {
        let server = Server::auto();
        let client = builder(&server.url()).close_timeout(ms(50)).build().unwrap();
        wait_among_many(&client, &server, flood)
    });
    assert_fair(quiet, flooded);
}

#[test]
fn with_manual_dispatch_it_is_as_fair() {
    let [quiet, flooded] = [0, FLOOD].map(|flood| {
        let server = Server::auto();
        let (wake, woken) = crossbeam_channel::unbounded();
        let client = builder(&server.url())
            .close_timeout(ms(50))
            .dispatch(Dispatch::manual(move || {
                let _ = wake.send(());
            }))
            .build()
            .unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (dispatches, stopped) = (client.clone(), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::SeqCst) {
                if woken.recv_timeout(ms(10)).is_ok() {
                    // A frame of a GUI.
                    dispatches.dispatch_pending_for(ms(16));
                }
            }
        });
        let median = wait_among_many(&client, &server, flood);
        stop.store(true, Ordering::SeqCst);
        thread.join().unwrap();
        median
    });
    assert_fair(quiet, flooded);
}

/// What the slowest of many clients waits for its events at the median, with and without a slow listener in another
/// one.
fn wait_of_many_clients(server: &Server, slow: bool) -> Duration {
    const CLIENTS: usize = 50;
    let held = Arc::new(AtomicBool::new(false));
    let all: Vec<_> = (0..CLIENTS)
        .map(|at| {
            let client = builder(&server.url()).close_timeout(ms(50)).build().unwrap();
            let (waits, hears) = (Waits::new(), Arc::clone(&held));
            let heard = waits.clone();
            let subscription = client
                .subscription(&Query::new(format!("Game{at}")))
                .on_create(move |event| {
                    heard.hear(event);
                    if at == 0 && slow {
                        hears.store(true, Ordering::SeqCst);
                        thread::park_timeout(ms(100));
                    }
                })
                .start()
                .unwrap();
            (client, subscription, waits)
        })
        .collect();
    let conns: Vec<_> = all
        .iter()
        .enumerate()
        .map(|(at, (_, subscription, _))| {
            subscription.wait_open(MINUTE).unwrap();
            server.wait_subscribed(&format!("Game{at}"))
        })
        .collect();
    let start = Instant::now();
    let mut rounds = 0;
    while start.elapsed() < time() {
        for ((conn, id), (_, _, waits)) in conns.iter().zip(&all) {
            let game = object("Game", "a", json!({ "sent": waits.now() }));
            conn.event("create", *id, game, None);
        }
        rounds += 1;
        let due = start + 5 * PERIOD * rounds;
        thread::park_timeout(due.saturating_duration_since(Instant::now()));
    }
    let others = || all.iter().skip(1).map(|(_, _, waits)| waits);
    wait_until("all others have got theirs", || {
        others().all(|waits| waits.len() == rounds as usize)
    });
    assert_eq!(held.load(Ordering::SeqCst), slow);
    others().map(Waits::median).max().unwrap()
}

#[test]
fn a_slow_listener_of_one_client_holds_up_no_other_client() {
    let [quiet, slow] = [false, true].map(|slow| wait_of_many_clients(&Server::auto(), slow));
    eprintln!("{quiet:?} without the slow listener, {slow:?} with it");
    assert_fair(quiet, slow);
}

/// One that is slow at each event, and gets one now and then, is not punished for it either.
#[test]
fn every_subscription_of_many_that_are_slow_gets_its_turn() {
    let server = Server::auto();
    let client = builder(&server.url()).close_timeout(ms(50)).build().unwrap();
    let turns = Arc::new(Mutex::new(vec![0_usize; 10]));
    // Nothing is handled before everything has come, however slowly that may be.
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.lock();
    let subscriptions: Vec<_> = (0..10)
        .map(|at| {
            let (turns, gate) = (Arc::clone(&turns), Arc::clone(&gate));
            client
                .subscription(&Query::new(format!("Slow{at}")))
                .on_create(move |_| {
                    drop(gate.lock());
                    turns.lock()[at] += 1;
                    thread::park_timeout(ms(2));
                })
                .start()
                .unwrap()
        })
        .collect();
    for subscription in &subscriptions {
        subscription.wait_open(LONG).unwrap();
    }
    // One after the other, a hundred for each.
    let conn = server.conn(1);
    for subscription in &subscriptions {
        let game = object("Slow", "a", json!({}));
        let messages: Vec<_> = (0..100)
            .map(|_| conn.event_message("create", subscription.id(), game.clone(), None))
            .collect();
        conn.send_together(&messages);
    }
    wait_until("all have come", || client.stats().queued >= 999);
    drop(closed);
    wait_until("the last has got some", || turns.lock()[9] >= 10);
    let got = turns.lock().clone();
    assert!(
        got[0] < 100,
        "the first got all of its events before the last got any: {got:?}"
    );
    wait_until("all have got theirs", || {
        turns.lock().iter().all(|got| *got == 100)
    });
}
