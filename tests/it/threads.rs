//! The I/O goes on while a listener takes its time, whichever thread does it.

use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use parse_livequery::{Client, Query, Subscription};
use serde_json::json;

use crate::harness::*;
use crate::support::*;

/// An open subscription whose listener for `create` says that it runs, and waits until it may go on.
fn waits_at_create(client: &Client) -> (Subscription, Events, Receiver<()>, Sender<()>) {
    let (enter, entered) = bounded::<()>(0);
    let (release, gate) = bounded::<()>(0);
    let events = Events::new();
    let builder = client.subscription(&Query::new("Game")).on_create(move |_| {
        enter.send(()).unwrap();
        gate.recv_timeout(LONG).unwrap();
    });
    let subscription = record(builder, "Game", &events).start().unwrap();
    events.expect("open");
    (subscription, events, entered, release)
}

/// A listener that waits for what only the I/O can bring about, between others that are quick, again and again: the I/O
/// changes threads each time, and back.
#[test]
fn a_listener_that_waits_holds_up_neither_link_nor_commands() {
    let server = Server::auto();
    let client = client(&server.url());
    let (subscription, events, entered, release) = waits_at_create(&client);
    for round in 0..30 {
        server.emit("create", &object("Game", "a", json!({ "round": round })));
        entered.recv_timeout(LONG).unwrap();
        let other = client.subscribe(&Query::new(format!("Other{round}"))).unwrap();
        other.wait_open(LONG).unwrap();
        server.emit("update", &object("Game", "a", json!({ "round": round })));
        wait_until("the update has come", || subscription.stats().queued == 1);
        release.send(()).unwrap();
        events.expect("create");
        events.expect("update");
        for _ in 0..round % 3 {
            server.emit("leave", &object("Game", "a", json!({})));
            events.expect("leave");
        }
    }
    assert_eq!(server.accepts(), 1);
}

/// What comes just when a listener is done is given out, whichever thread reads it, and not only when more comes.
#[test]
fn an_event_that_comes_as_a_listener_ends_is_given_out() {
    let server = Server::auto();
    // No traffic but what the test makes.
    let client = builder(&server.url()).idle_ping(MINUTE).build().unwrap();
    let (subscription, events, entered, release) = waits_at_create(&client);
    let object = object("Game", "a", json!({}));
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        server.emit("create", &object);
        entered.recv_timeout(LONG).unwrap();
        server.emit("update", &object);
        wait_until("the update has come", || subscription.stats().queued == 1);
        thread::scope(|scope| {
            scope.spawn(|| server.emit("leave", &object));
            release.send(()).unwrap();
        });
        for kind in ["create", "update", "leave"] {
            events.expect(kind);
        }
    }
}

#[test]
fn threads_are_at_rest_after_a_listener_that_took_its_time() {
    let name = "threads_are_at_rest_after_a_listener_that_took_its_time";
    in_own_process(module_path!(), name, MINUTE, || {
        let server = Server::auto();
        // Nothing but what the test does is to wake them.
        let client = builder(&server.url()).idle_ping(MINUTE).build().unwrap();
        let events = Events::new();
        let builder = client
            .subscription(&Query::new("Game"))
            .on_create(|_| thread::sleep(ms(50)));
        let _subscription = record(builder, "Game", &events).start().unwrap();
        events.expect("open");
        for _ in 0..3 {
            server.emit("create", &object("Game", "a", json!({})));
            events.expect("create");
            let before = switches_at_rest();
            events.expect_quiet(Duration::from_secs(2));
            assert_eq!(switches(), before, "the threads woke up though nothing happened");
        }
    });
}
