//! The end of a subscription: at once for its listeners, in good order for the server, and for good.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crossbeam_channel::{Sender, unbounded};
use parse_livequery::{ClientState, ErrorKind, Query, Subscription, SubscriptionState};
use serde_json::json;

use crate::harness::*;
use crate::support::*;

/// Sends events to a subscription for as long as it lives.
struct Flood {
    stop: Sender<()>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Flood {
    fn start(conn: Conn, id: u64) -> Self {
        let (stop, stopped) = unbounded::<()>();
        let thread = thread::spawn(move || {
            let messages: Vec<_> = (0..20)
                .map(|_| conn.event_message("create", id, object("Game", "a", json!({})), None))
                .collect();
            while stopped.try_recv() == Err(crossbeam_channel::TryRecvError::Empty) {
                conn.send_together(&messages);
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }

    fn stop(mut self) {
        drop(std::mem::replace(&mut self.stop, unbounded().0));
        self.thread.take().unwrap().join().unwrap();
    }
}

#[test]
fn unsubscribe_is_final() {
    let server = Server::auto();
    let client = client(&server.url());
    let (_fence, fence) = subscribe(&client, "Fence");
    for _ in 0..20 {
        let started = Arc::new(AtomicUsize::new(0));
        let closed = Arc::new(AtomicUsize::new(0));
        let (counter, closes) = (Arc::clone(&started), Arc::clone(&closed));
        let subscription = client
            .subscription(&Query::new("Game"))
            .on_any(move |event| match event.kind().as_str() {
                "close" => drop(closes.fetch_add(1, Ordering::SeqCst)),
                _ => drop(counter.fetch_add(1, Ordering::SeqCst)),
            })
            .start()
            .unwrap();
        let (conn, id) = server.wait_subscribed("Game");
        let flood = Flood::start(conn, id);
        wait_until("events come", || started.load(Ordering::SeqCst) > 100);
        subscription.unsubscribe();
        let at_return = started.load(Ordering::SeqCst);
        flood.stop();
        // Everything that was on its way is there when this is.
        server.emit("create", &object("Fence", "a", json!({})));
        fence.wait_for("create");
        let after = started.load(Ordering::SeqCst);
        // One call may have been running.
        assert!(
            after <= at_return + 1,
            "{} listeners started after it",
            after - at_return
        );
        wait_until("the last `close`", || closed.load(Ordering::SeqCst) == 1);
        assert_eq!(subscription.state(), SubscriptionState::Closed);
        // And has ended it: the next round is to find its own.
        wait_until("the server has heard of it", || {
            server.conn(1).subscriptions_to("Game").is_empty()
        });
    }
}

#[test]
fn unsubscribe_in_a_listener_is_final() {
    let server = Server::auto();
    let client = client(&server.url());
    let (_fence, fence) = subscribe(&client, "Fence");
    let events = Events::new();
    let handle = Arc::new(parking_lot::Mutex::new(None::<Subscription>));
    let slot = Arc::clone(&handle);
    let builder = client.subscription(&Query::new("Game"));
    let mut calls = 0;
    let builder = record(builder, "Game", &events).on_create(move |_| {
        calls += 1;
        if calls == 10 {
            slot.lock().as_ref().unwrap().unsubscribe();
        }
    });
    let mut slot = handle.lock();
    *slot = Some(builder.start().unwrap());
    drop(slot);
    let (conn, id) = server.wait_subscribed("Game");
    let messages: Vec<_> = (0..100)
        .map(|_| conn.event_message("create", id, object("Game", "a", json!({})), None))
        .collect();
    conn.send_together(&messages);
    server.emit("create", &object("Fence", "a", json!({})));
    fence.wait_for("create");
    events.wait_for("close");
    assert_eq!(events.count("create"), 10);
    assert_eq!(events.kinds().last().unwrap(), "close");
    // What of the listeners owned the handle is gone with the subscription.
    wait_until("the listeners are gone", || Arc::strong_count(&handle) == 1);
    assert_eq!(events.count("close"), 1);
}

#[test]
fn unsubscribe_offline() {
    type Situation = (&'static str, ClientState, fn(&Server));
    let situations: [Situation; 4] = [
        ("refused", ClientState::Reconnecting, |server| server.refuse()),
        ("not accepted", ClientState::Connecting, |server| {
            server.pause_accepting()
        }),
        ("no answer to the upgrade", ClientState::Connecting, |server| {
            server.on_accept(|_| Then::Handled);
        }),
        ("no answer to connect", ClientState::Connecting, |server| {
            server.on_frame(|_, _| Then::Handled);
        }),
    ];
    for (name, state, fault) in situations {
        for was_live in [false, true] {
            let server = Server::auto();
            let client = client(&server.url());
            let events = Events::new();
            if was_live {
                client.open();
                client.wait_open(LONG).unwrap();
            } else {
                fault(&server);
            }
            let gone = subscribe_into(&client, "Gone", &events);
            let stays = subscribe_into(&client, "Stays", &events);
            if was_live {
                events.expect("open");
                events.expect("open");
                fault(&server);
                server.conn(1).cut();
            }
            let expected = if was_live {
                ClientState::Reconnecting
            } else {
                state
            };
            wait_until(name, || client.state() == expected);
            gone.unsubscribe();
            assert_eq!(gone.state(), SubscriptionState::Closed);
            server.heal();
            server.resume_accepting();
            if name == "refused" {
                server.listen_again();
            }
            for conn in server.open_conns() {
                conn.cut();
            }
            // The client may have been quick to connect, and cut once more.
            let last = server.wait_subscribed("Stays").0.number();
            stays.wait_open(LONG).unwrap();
            let classes: Vec<_> = server
                .received()
                .into_iter()
                .filter(|received| received.conn == last && received.op() != "connect")
                .map(|received| received.frame["query"]["className"].clone())
                .collect();
            assert_eq!(classes, [json!("Stays")], "{name}");
            fence(&client);
            let mine: Vec<_> = events
                .all()
                .iter()
                .filter(|s| &*s.source == "Gone")
                .map(|s| s.kind.clone())
                .collect();
            let expected: &[&str] = if was_live { &["open", "close"] } else { &[] };
            assert_eq!(mine, expected, "{name}");
        }
    }
}

#[test]
fn unsubscribe_waits_for_the_answer_to_subscribe() {
    // Parse Server 9.10 answers an unsubscribe that overtakes its subscribe with an error, and then subscribes.
    let server = Server::auto();
    server.on_frame(|_, frame| match frame["op"].as_str() {
        Some("subscribe") => Then::Handled,
        _ => Then::Default,
    });
    let client = client(&server.url());
    let client_events = record_client(&client);
    let events = Events::new();
    let subscription = subscribe_into(&client, "Game", &events);
    let id = server.wait_op(1, "subscribe", 1)[0].request_id();
    subscription.unsubscribe();
    server.heal();
    fence(&client);
    let of_it = |all: &[Received]| {
        let mut unsubscribes = all.iter().filter(|received| received.op() == "unsubscribe");
        unsubscribes
            .find(|received| received.request_id() == id)
            .map(drop)
    };
    assert_eq!(of_it(&server.received()), None);
    server.conn(1).subscribed(id);
    server.wait_received("the unsubscribe", of_it);
    wait_until("nothing is left", || {
        server.conn(1).subscriptions_to("Game").is_empty()
    });
    assert_eq!(client_events.kinds(), ["open"]);
    assert_eq!(events.all().len(), 0, "{:?}", events.all());
}

#[test]
fn subscribing_and_unsubscribing_at_once_leaves_nothing() {
    let server = Server::auto();
    let client = client(&server.url());
    for _ in 0..200 {
        drop(client.subscribe(&Query::new("Game")).unwrap());
    }
    fence(&client);
    wait_until("nothing is left", || {
        server.conn(1).subscriptions_to("Game").is_empty()
    });
    assert_eq!(server.accepts(), 1);
}

#[test]
fn old_handle_cannot_touch_new() {
    let server = Server::auto();
    let client = client(&server.url());
    let (old, old_events) = subscribe(&client, "Old");
    client.close();
    old_events.expect("close");
    let (new, events) = subscribe(&client, "New");
    assert!(new.id() > old.id());
    assert_eq!(server.wait_op(2, "subscribe", 1)[0].request_id(), new.id());
    old.unsubscribe();
    client.unsubscribe(&old);
    assert_eq!(
        old.update(&Query::new("Other")).unwrap_err().kind(),
        ErrorKind::Closed
    );
    assert_eq!(old.wait_open(LONG).unwrap_err().kind(), ErrorKind::Closed);
    drop(old);
    assert_eq!(server.emit("create", &object("New", "a", json!({}))), 1);
    events.expect("create");
    assert_eq!(
        server.conn(2).received().len(),
        2,
        "{:?}",
        server.conn(2).received()
    );
    old_events.expect_quiet(ms(1));
}

#[test]
fn double_unsubscribe_quiet() {
    let server = Server::auto();
    let client = client(&server.url());
    let client_events = record_client(&client);
    let (subscription, events) = subscribe(&client, "Game");
    let (clone, id) = (subscription.clone(), subscription.id());
    for _ in 0..3 {
        subscription.unsubscribe();
    }
    client.unsubscribe(&subscription);
    drop(subscription);
    drop(clone);
    fence(&client);
    let unsubscribes = server.received_op("unsubscribe");
    assert_eq!(
        unsubscribes
            .iter()
            .filter(|received| received.request_id() == id)
            .count(),
        1
    );
    assert_eq!(server.accepts(), 1);
    assert_eq!(events.kinds(), ["open", "close"]);
    assert_eq!(client_events.kinds(), ["open"]);
}

#[test]
fn drop_vs_detach() {
    let server = Server::auto();
    let client = client(&server.url());
    let (dropped, dropped_events) = subscribe(&client, "Dropped");
    let clone = dropped.clone();
    drop(dropped);
    server.emit("create", &object("Dropped", "a", json!({})));
    dropped_events.expect("create");
    drop(clone);
    assert_eq!(server.wait_op(1, "unsubscribe", 1)[0].request_id(), 1);
    dropped_events.expect("close");

    let (detached, detached_events) = subscribe(&client, "Detached");
    detached.detach();
    fence(&client);
    assert_eq!(server.emit("create", &object("Detached", "a", json!({}))), 1);
    detached_events.expect("create");
    // One stays as long as its client, across reconnects too.
    server.conn(1).cut();
    detached_events.expect("close");
    detached_events.expect("open");
    client.close();
    detached_events.expect("close");
    let all = server.received_op("unsubscribe");
    assert!(all.iter().all(|received| received.request_id() != 2), "{all:?}");
}
