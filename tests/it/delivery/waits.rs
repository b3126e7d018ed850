//! A thread that waits is released by what was delivered, not by the state that led to it: the listeners that hear of
//! the same thing have returned before it goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crossbeam_channel::unbounded;
use parse_livequery::{Client, ErrorKind, LiveSet, Query, Result, Subscription};
use serde_json::json;

use crate::harness::*;
use crate::support::*;

const RUNS: usize = 20;

/// Listeners that take a while, and how many of them have returned.
#[derive(Clone, Default)]
struct Slow(Arc<AtomicUsize>);

impl Slow {
    fn take_a_while(&self) {
        thread::park_timeout(ms(20));
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    fn done(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    /// Two for an event of the client.
    fn of_client(&self, client: &Client, kind: &'static str) {
        for _ in 0..2 {
            let slow = self.clone();
            client.on(kind, move |_| slow.take_a_while());
        }
    }
}

/// A subscription with two listeners for each of these events.
fn subscribe_slowly(client: &Client, kinds: &[&'static str], slow: &Slow) -> Subscription {
    let mut builder = client.subscription(&Query::new("Game"));
    for kind in kinds {
        for _ in 0..2 {
            let slow = slow.clone();
            builder = builder.on(*kind, move |_| slow.take_a_while());
        }
    }
    builder.start().unwrap()
}

/// A set with two listeners for each of these events. What it fetches is nothing.
fn set_slowly(client: &Client, kinds: &[&'static str], slow: &Slow) -> LiveSet {
    let mut builder = client
        .live_set(&Query::new("Game"))
        .fetch_with(|_| Ok::<_, String>(vec![]));
    for kind in kinds {
        for _ in 0..2 {
            let slow = slow.clone();
            builder = match *kind {
                "ready" => builder.on_ready(move |_| slow.take_a_while()),
                "stale" => builder.on_stale(move |_| slow.take_a_while()),
                _ => builder.on_error(move |_| slow.take_a_while()),
            };
        }
    }
    builder.start().unwrap()
}

/// A server that refuses every client, for a key that is wrong.
fn refusing() -> Server {
    let server = Server::auto();
    server.on_frame(|conn, frame| match frame["op"].as_str() {
        Some("connect") => {
            conn.error(4, "Key in request is not valid", true, None);
            Then::Handled
        }
        _ => Then::Default,
    });
    server
}

/// Runs a scenario several times. It gives how many listeners have returned, and how many there are.
#[track_caller]
fn every_time(name: &str, scenario: impl Fn() -> (usize, usize)) {
    let early: Vec<_> = (0..RUNS)
        .map(|_| scenario())
        .filter(|(done, all)| done != all)
        .collect();
    assert!(
        early.is_empty(),
        "{name} returned early in {} of {RUNS} runs: (returned, all) {early:?}",
        early.len()
    );
}

#[track_caller]
fn refused<T>(result: Result<T>) {
    assert_eq!(result.map(drop).unwrap_err().kind(), ErrorKind::Refused);
}

#[test]
fn wait_closed_returns_after_the_listeners_that_hear_of_the_refusal() {
    every_time("Client::wait_closed", || {
        let (server, slow) = (refusing(), Slow::default());
        let client = client(&server.url());
        slow.of_client(&client, "error");
        let _subscription = subscribe_slowly(&client, &["error"], &slow);
        refused(client.wait_closed());
        (slow.done(), 4)
    });
}

#[test]
fn wait_open_of_the_client_returns_after_the_listeners_that_hear_of_the_refusal() {
    every_time("Client::wait_open", || {
        let (server, slow) = (refusing(), Slow::default());
        let client = client(&server.url());
        slow.of_client(&client, "error");
        client.open();
        refused(client.wait_open(LONG));
        (slow.done(), 2)
    });
}

#[test]
fn wait_open_of_a_subscription_returns_after_the_listeners_that_hear_of_the_refusal() {
    every_time("Subscription::wait_open", || {
        let (server, slow) = (refusing(), Slow::default());
        let client = client(&server.url());
        slow.of_client(&client, "error");
        let subscription = subscribe_slowly(&client, &["error"], &slow);
        refused(subscription.wait_open(LONG));
        (slow.done(), 4)
    });
}

#[test]
fn wait_ready_returns_after_the_listeners_that_hear_of_the_refusal() {
    every_time("LiveSet::wait_ready", || {
        let (server, slow) = (refusing(), Slow::default());
        let client = client(&server.url());
        slow.of_client(&client, "error");
        let set = set_slowly(&client, &["error"], &slow);
        refused(set.wait_ready(LONG));
        (slow.done(), 4)
    });
}

#[test]
fn waits_return_after_the_listeners_that_hear_that_the_client_gave_up() {
    type Wait = (&'static str, fn(&Client, &Subscription) -> Result<()>);
    let waits: [Wait; 3] = [
        ("Client::wait_open", |client, _| client.wait_open(LONG)),
        ("Client::wait_closed", |client, _| client.wait_closed()),
        ("Subscription::wait_open", |_, subscription| {
            subscription.wait_open(LONG)
        }),
    ];
    for (name, wait) in waits {
        every_time(name, || {
            let (server, slow) = (Server::auto(), Slow::default());
            server.refuse();
            let client = builder(&server.url()).max_attempts(1).build().unwrap();
            slow.of_client(&client, "error");
            let subscription = subscribe_slowly(&client, &["error"], &slow);
            assert_eq!(
                wait(&client, &subscription).unwrap_err().kind(),
                ErrorKind::GaveUp
            );
            // One that waits for the client need not wait for its subscriptions.
            let all = if name == "Client::wait_open" {
                slow.done().max(2)
            } else {
                4
            };
            (slow.done(), all)
        });
    }
}

#[test]
fn wait_open_of_the_client_returns_after_its_open_listeners() {
    every_time("Client::wait_open", || {
        let (server, slow) = (Server::auto(), Slow::default());
        let client = client(&server.url());
        slow.of_client(&client, "open");
        client.open();
        client.wait_open(LONG).unwrap();
        (slow.done(), 2)
    });
}

#[test]
fn wait_open_of_a_subscription_returns_after_its_open_listeners() {
    every_time("Subscription::wait_open", || {
        let (server, slow) = (Server::auto(), Slow::default());
        let client = client(&server.url());
        let subscription = subscribe_slowly(&client, &["open"], &slow);
        subscription.wait_open(LONG).unwrap();
        (slow.done(), 2)
    });
}

#[test]
fn wait_open_of_a_subscription_returns_after_its_error_listeners_if_it_was_refused() {
    every_time("Subscription::wait_open", || {
        let (server, slow) = (Server::auto(), Slow::default());
        server.on_frame(|conn, frame| match frame["op"].as_str() {
            Some("subscribe") => {
                conn.error(119, "Permission denied", false, frame["requestId"].as_u64());
                Then::Handled
            }
            _ => Then::Default,
        });
        let client = client(&server.url());
        slow.of_client(&client, "error");
        let subscription = subscribe_slowly(&client, &["error"], &slow);
        assert_eq!(subscription.wait_open(LONG).unwrap_err().code(), Some(119));
        (slow.done(), 4)
    });
}

#[test]
fn wait_ready_returns_after_the_error_listeners_if_the_subscription_was_refused() {
    every_time("LiveSet::wait_ready", || {
        let (server, slow) = (Server::auto(), Slow::default());
        server.on_frame(|conn, frame| match frame["op"].as_str() {
            Some("subscribe") => {
                conn.error(119, "Permission denied", false, frame["requestId"].as_u64());
                Then::Handled
            }
            _ => Then::Default,
        });
        let client = client(&server.url());
        slow.of_client(&client, "error");
        let set = set_slowly(&client, &["error"], &slow);
        assert_eq!(set.wait_ready(LONG).unwrap_err().code(), Some(119));
        (slow.done(), 4)
    });
}

#[test]
fn wait_ready_returns_after_the_ready_listeners() {
    every_time("LiveSet::wait_ready", || {
        let (server, slow) = (Server::auto(), Slow::default());
        let client = client(&server.url());
        let set = set_slowly(&client, &["ready"], &slow);
        set.wait_ready(LONG).unwrap();
        (slow.done(), 2)
    });
}

#[test]
fn wait_closed_returns_after_the_listeners_that_hear_of_the_close() {
    every_time("Client::wait_closed", || {
        let (server, slow) = (Server::auto(), Slow::default());
        let client = client(&server.url());
        slow.of_client(&client, "close");
        let subscription = subscribe_slowly(&client, &["close"], &slow);
        let set = set_slowly(&client, &["stale"], &slow);
        subscription.wait_open(LONG).unwrap();
        set.wait_ready(LONG).unwrap();
        fence(&client);
        let closes = client.clone();
        let thread = thread::spawn(move || closes.close());
        client.wait_closed().unwrap();
        let done = slow.done();
        thread.join().unwrap();
        (done, 6)
    });
}

#[test]
fn close_returns_after_the_listeners_that_hear_of_it() {
    every_time("Client::close", || {
        let (server, slow) = (Server::auto(), Slow::default());
        let client = client(&server.url());
        slow.of_client(&client, "close");
        let subscription = subscribe_slowly(&client, &["close"], &slow);
        let set = set_slowly(&client, &["stale"], &slow);
        subscription.wait_open(LONG).unwrap();
        set.wait_ready(LONG).unwrap();
        fence(&client);
        client.close();
        (slow.done(), 6)
    });
}

/// Two threads that wait for the same are both released, and neither early.
#[test]
fn all_that_wait_are_released_by_the_delivery() {
    every_time("Subscription::wait_open", || {
        let (server, slow) = (Server::auto(), Slow::default());
        let client = client(&server.url());
        let subscription = subscribe_slowly(&client, &["open"], &slow);
        let threads = [(); 3].map(|()| {
            let (subscription, slow) = (subscription.clone(), slow.clone());
            thread::spawn(move || {
                subscription.wait_open(LONG).unwrap();
                slow.done()
            })
        });
        let done = threads.map(|thread| thread.join().unwrap());
        (done.into_iter().min().unwrap(), 2)
    });
}

/// What is waited for is told to nobody, or to one that panics.
#[test]
fn waits_end_without_listeners_and_with_those_that_panic() {
    watchdog(MINUTE, || {
        let server = refusing();
        for panics in [false, true] {
            let client = client(&server.url());
            let mut builder = client.subscription(&Query::new("Game"));
            if panics {
                client.on("error", |_| panic!("in a listener of the client"));
                builder = builder.on_error(|_| panic!("in a listener of the subscription"));
            }
            let subscription = builder.start().unwrap();
            refused(subscription.wait_open(LONG));
            refused(client.wait_open(LONG));
            refused(client.wait_closed());
        }
        let server = Server::auto();
        for panics in [false, true] {
            let client = client(&server.url());
            let mut builder = client.subscription(&Query::new("Game"));
            if panics {
                client.on("open", |_| panic!("in a listener of the client"));
                client.on("close", |_| panic!("in a listener of the client"));
                builder = builder.on_any(|_| panic!("in a listener of the subscription"));
            }
            let subscription = builder.start().unwrap();
            subscription.wait_open(LONG).unwrap();
            client.wait_open(LONG).unwrap();
            let closes = client.clone();
            let thread = thread::spawn(move || closes.close());
            client.wait_closed().unwrap();
            thread.join().unwrap();
        }
    });
}

/// With a listener that was removed meanwhile there is nothing to wait for.
#[test]
fn a_wait_ends_if_the_subscription_does() {
    let server = Server::auto();
    server.on_frame(|_, frame| match frame["op"].as_str() {
        Some("subscribe") => Then::Handled,
        _ => Then::Default,
    });
    let client = client(&server.url());
    let subscription = subscribe_slowly(&client, &["open", "close", "error"], &Slow::default());
    server.wait_op(1, "subscribe", 1);
    let waits = subscription.clone();
    let (done, ended) = unbounded();
    let thread = thread::spawn(move || done.send(waits.wait_open(LONG)).unwrap());
    subscription.unsubscribe();
    let result = ended.recv_timeout(LONG).unwrap();
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Closed);
    thread.join().unwrap();
}

/// The object that a listener needs time for is no reason to wait for: it comes after `open`.
#[test]
fn a_wait_for_what_was_delivered_does_not_wait_for_what_came_later() {
    let server = Server::auto();
    let client = client(&server.url());
    let (gate, hold) = super::gate();
    let (subscription, _events) = subscribe(&client, "Game");
    subscription.on_create(move |_| hold.stay());
    server.emit("create", &object("Game", "a", json!({})));
    gate.wait_entered();
    let (waits, whole) = (subscription, client.clone());
    watchdog(MINUTE, move || {
        waits.wait_open(LONG).unwrap();
        whole.wait_open(LONG).unwrap();
    });
    gate.release();
}
