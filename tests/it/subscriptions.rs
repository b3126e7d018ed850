//! Subscriptions: each is sent once per connection, restored as it was, and over when it was ended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};
use parse_livequery::{
    Client, ClientState, ErrorKind, Event, GapReason, Query, Subscription, SubscriptionState,
};
use serde_json::json;

use crate::harness::*;
use crate::support::*;

/// How many `subscribe` frames each requestId got on each connection.
fn subscribes(server: &Server) -> BTreeMap<(usize, u64), usize> {
    let mut counts = BTreeMap::new();
    for received in server.received_op("subscribe") {
        *counts.entry((received.conn, received.request_id())).or_insert(0) += 1;
    }
    counts
}

#[test]
fn resubscribe_exactly_once() {
    const SUBSCRIPTIONS: usize = 20;
    const CUTS: usize = 10;
    let server = Server::auto();
    // After how many frames of subscriptions each of the first connections ends, and how.
    let mut seed = 7_u32;
    let cuts: Vec<usize> = (0..CUTS)
        .map(|_| {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 16) as usize % SUBSCRIPTIONS
        })
        .collect();
    let seen = AtomicUsize::new(0);
    server.on_frame(move |conn, frame| {
        let Some(cut_after) = cuts.get(conn.number() - 1) else {
            return Then::Default;
        };
        if frame["op"] == "connect" {
            seen.store(0, Ordering::Relaxed);
            return Then::Default;
        }
        if seen.fetch_add(1, Ordering::Relaxed) < *cut_after {
            return Then::Default;
        }
        if conn.number() % 2 == 0 {
            conn.cut()
        } else {
            conn.reset()
        }
        Then::Handled
    });
    let client = client(&server.url());
    let events = Events::new();
    let subscriptions: Vec<_> = (0..SUBSCRIPTIONS)
        .map(|at| subscribe_into(&client, &format!("C{at}"), &events))
        .collect();
    server.conn(CUTS + 1);
    for subscription in &subscriptions {
        subscription.wait_open(LONG).unwrap();
    }
    let counts = subscribes(&server);
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
    let last: Vec<_> = counts.keys().filter(|(conn, _)| *conn == CUTS + 1).collect();
    assert_eq!(last.len(), SUBSCRIPTIONS);
    assert_eq!(server.accepts(), CUTS + 1);
    for at in 0..SUBSCRIPTIONS {
        let class = format!("C{at}");
        assert_eq!(server.emit("create", &object(&class, "a", json!({}))), 1);
        events.wait_where("its event", |seen| {
            seen.kind == "create" && *seen.source == *class
        });
    }
    assert_eq!(events.count("create"), SUBSCRIPTIONS);
}

#[test]
fn resubscribe_frame_identical() {
    let server = Server::auto();
    let client = builder(&server.url())
        .session_token("r:client")
        .javascript_key("js")
        .installation_id("installation")
        .build()
        .unwrap();
    let events = Events::new();
    let plain = subscribe_into(&client, "Plain", &events);
    let query = Query::new("Own")
        .equal_to("name", "a")
        .greater_than("score", 10)
        .contained_in("team", ["red", "blue"])
        .select(["name", "score"])
        .watch(["score"]);
    let own = client
        .subscription(&query)
        .session_token("r:own")
        .subscribe()
        .unwrap();
    plain.wait_open(LONG).unwrap();
    own.wait_open(LONG).unwrap();
    server.conn(1).cut();
    server.wait_op(2, "subscribe", 2);
    let texts = |number| -> Vec<String> {
        let all = server.conn(number).received();
        all.into_iter().map(|received| received.text).collect()
    };
    assert_eq!(texts(1), texts(2));
    assert_eq!(texts(1).len(), 3);
}

/// Lets a server stop at named points until the test has done what it has to do there.
struct Pauses {
    reached: Sender<&'static str>,
    resume: Receiver<()>,
}

impl Pauses {
    fn at(&self, point: &'static str) {
        // Both fail once the test is over.
        let _ = self.reached.send(point);
        let _ = self.resume.recv_timeout(MINUTE);
    }
}

#[test]
fn subscribe_at_every_pause_point() {
    const POINTS: [&str; 6] = [
        "not accepted",
        "accepted",
        "connect received",
        "connected sent",
        "subscribe received",
        "subscribed sent",
    ];
    let (reached, next_point) = unbounded();
    let (resume, resumed) = unbounded();
    let server = Server::auto();
    let pauses = Arc::new(Pauses {
        reached,
        resume: resumed,
    });
    let at_accept = Arc::clone(&pauses);
    server.on_accept(move |_| {
        at_accept.at("accepted");
        Then::Default
    });
    let first = AtomicUsize::new(0);
    server.on_frame(move |conn, frame| {
        let (before, after) = match frame["op"].as_str() {
            Some("connect") => ("connect received", "connected sent"),
            Some("subscribe") if first.fetch_add(1, Ordering::Relaxed) == 0 => {
                ("subscribe received", "subscribed sent")
            }
            _ => return Then::Default,
        };
        pauses.at(before);
        conn.answer(frame);
        pauses.at(after);
        Then::Handled
    });
    server.pause_accepting();

    let client = client(&server.url());
    let events = Events::new();
    let mut subscriptions = vec![];
    let mut subscribe_from_threads = |point: &str| {
        let threads: Vec<_> = (0..8)
            .map(|thread| {
                let (client, events) = (client.clone(), events.clone());
                let class = format!("{} {thread}", point);
                thread::spawn(move || subscribe_into(&client, &class, &events))
            })
            .collect();
        subscriptions.extend(threads.into_iter().map(|thread| thread.join().unwrap()));
    };
    // From a listener for `open`, too.
    let in_listener = Arc::new(parking_lot::Mutex::new(None));
    let (slot, inner) = (Arc::clone(&in_listener), client.clone());
    let nested = events.clone();
    client.once("open", move |_| {
        *slot.lock() = Some(subscribe_into(&inner, "in `open`", &nested));
    });

    subscribe_from_threads(POINTS[0]);
    server.resume_accepting();
    for point in &POINTS[1..] {
        assert_eq!(next_point.recv_timeout(LONG), Ok(*point));
        subscribe_from_threads(point);
        resume.send(()).unwrap();
    }
    drop(resume);
    for subscription in &subscriptions {
        subscription.wait_open(LONG).unwrap();
    }
    events.wait_where("the one from the listener", |seen| &*seen.source == "in `open`");
    let classes: Vec<_> = server
        .received_op("subscribe")
        .iter()
        .map(|received| received.frame["query"]["className"].as_str().unwrap().to_owned())
        .collect();
    let different: BTreeSet<_> = classes.iter().collect();
    assert_eq!(classes.len(), 8 * POINTS.len() + 1);
    assert_eq!(classes.len(), different.len(), "{classes:?}");
    assert_eq!(server.accepts(), 1);
    server.heal();
    // The listener's subscription keeps its client alive.
    drop(in_listener.lock().take());
}

#[test]
fn open_never_missed() {
    const ROUNDS: usize = 10_000;
    let server = Server::auto();
    let client = client(&server.url());
    let (sender, opened) = unbounded();
    let mut subscriptions = Vec::with_capacity(ROUNDS);
    for at in 0..ROUNDS {
        let subscription = client.subscribe(&Query::new("Game")).unwrap();
        if at % 3 == 0 {
            // On a third, the listener comes after the acknowledgement; on the others it races with it.
            subscription.wait_open(LONG).unwrap();
        }
        let sender = sender.clone();
        subscription.on("open", move |_| sender.send(at).unwrap());
        subscriptions.push(subscription);
    }
    let mut seen = vec![0; ROUNDS];
    for _ in 0..ROUNDS {
        seen[opened.recv_timeout(MINUTE).unwrap()] += 1;
    }
    // Whatever is said twice is said by now.
    fence(&client);
    assert_eq!(opened.try_iter().count(), 0);
    assert!(seen.iter().all(|count| *count == 1));
}

#[test]
fn late_listener_is_told_of_a_state_and_not_of_the_past() {
    let server = Server::auto();
    let client = client(&server.url());
    let (subscription, events) = subscribe(&client, "Game");
    let late = Events::new();
    let recorder = late.clone();
    subscription.on("open", move |event: &Event| {
        recorder.push("late", "open", event.clone())
    });
    late.expect("open");
    server.on_accept(|_| Then::Handled);
    server.conn(1).cut();
    events.expect("close");
    // Now it is not open.
    let recorder = late.clone();
    subscription.on("open", move |event: &Event| {
        recorder.push("later", "open", event.clone())
    });
    let recorder = late.clone();
    client.on("open", move |_| {
        recorder.push("client", "open", Event::clone(&recorder.all()[0].value))
    });
    server.heal();
    for conn in server.open_conns() {
        conn.cut();
    }
    assert_eq!(&*late.expect("open").source, "client");
    assert_eq!(&*late.expect("open").source, "late");
    assert_eq!(&*late.expect("open").source, "later");
}

#[test]
fn subscribe_ack_timeout() {
    let server = Server::auto();
    server.on_frame(|_, frame| match frame["query"]["className"].as_str() {
        Some("Ignored") => Then::Handled,
        _ => Then::Default,
    });
    let client = builder(&server.url()).ack_timeout(ms(300)).build().unwrap();
    let client_events = record_client(&client);
    let events = Events::new();
    let ignored = subscribe_into(&client, "Ignored", &events);
    let (_other, others) = subscribe(&client, "Other");
    let error = events.expect("error").value;
    let error = error.error().unwrap();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(!error.is_fatal(), "it goes on waiting");
    assert_eq!(ignored.state(), SubscriptionState::Pending);
    assert_eq!(ignored.wait_open(ms(1)).unwrap_err().kind(), ErrorKind::Timeout);
    // The other one lives on the same connection, and so does this one once the answer comes.
    server.emit("create", &object("Other", "a", json!({})));
    others.expect("create");
    server.conn(1).subscribed(ignored.id());
    events.expect("open");
    server
        .conn(1)
        .event("create", ignored.id(), object("Ignored", "a", json!({})), None);
    events.expect("create");
    assert_eq!(client_events.kinds(), ["open", "error"]);
}

#[test]
fn error_without_an_id_goes_to_the_one_that_is_waiting() {
    let server = Server::auto();
    server.on_frame(|conn, frame| match frame["query"]["className"].as_str() {
        Some("Bad") => {
            conn.error(1, "Array is too short (0), minimum 1", true, None);
            Then::Handled
        }
        _ => Then::Default,
    });
    let client = client(&server.url());
    let (_before, before) = subscribe(&client, "Before");
    let events = Events::new();
    let bad = subscribe_into(&client, "Bad", &events);
    let error = events.expect("error").value;
    assert!(error.error().unwrap().is_fatal());
    assert_eq!(error.error().unwrap().code(), Some(1));
    assert_eq!(bad.state(), SubscriptionState::Failed);
    assert_eq!(bad.wait_open(LONG).unwrap_err().code(), Some(1));

    // Several at once: the server answers the schema error at once and the others when it has looked up what it needs,
    // in whatever order.
    server.on_frame({
        let held = parking_lot::Mutex::new(vec![]);
        move |conn, frame| match frame["query"]["className"].as_str() {
            Some("Bad2") => {
                conn.error(1, "Array is too short (0), minimum 1", true, None);
                for frame in held.lock().drain(..) {
                    conn.answer(&frame);
                }
                Then::Handled
            }
            Some("Held") => {
                held.lock().push(frame.clone());
                Then::Handled
            }
            _ => Then::Default,
        }
    });
    let good: Vec<_> = (0..3).map(|_| subscribe_into(&client, "Held", &before)).collect();
    let bad = subscribe_into(&client, "Bad2", &events);
    assert!(events.expect("error").value.error().unwrap().is_fatal());
    assert_eq!(bad.state(), SubscriptionState::Failed);
    for subscription in &good {
        subscription.wait_open(LONG).unwrap();
    }
    assert_eq!(server.accepts(), 1);
    assert_eq!(before.count("error"), 0);
    server.heal();
}

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
            .subscribe()
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
        wait_until("close is told", || closed.load(Ordering::SeqCst) == 1);
        assert_eq!(subscription.state(), SubscriptionState::Closed);
        wait_until("the server has heard of it", || {
            server
                .received_op("unsubscribe")
                .iter()
                .any(|received| received.request_id() == id)
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
    *slot = Some(builder.subscribe().unwrap());
    drop(slot);
    let (conn, id) = server.wait_subscribed("Game");
    let messages: Vec<_> = (0..100)
        .map(|_| conn.event_message("create", id, object("Game", "a", json!({})), None))
        .collect();
    conn.send_together(&messages);
    server.emit("create", &object("Fence", "a", json!({})));
    fence.wait_for("create");
    assert_eq!(events.count("create"), 10);
    assert_eq!(events.kinds().last().unwrap(), "close");
    assert_eq!(events.count("close"), 1);
    // What of the listeners owned the handle is gone with the subscription.
    assert_eq!(Arc::strong_count(&handle), 1);
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
            stays.wait_open(LONG).unwrap();
            let last = server.accepts();
            let classes: Vec<_> = server
                .received()
                .into_iter()
                .filter(|received| received.conn == last && received.op() != "connect")
                .map(|received| received.frame["query"]["className"].clone())
                .collect();
            assert_eq!(classes, [json!("Stays")], "{name}");
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

#[test]
fn update_gives_close_and_open_with_a_gap() {
    let server = Server::auto();
    let client = client(&server.url());
    let (subscription, events) = subscribe(&client, "Old");
    subscription.update(&Query::new("New")).unwrap();
    events.expect("close");
    let open = events.expect("open").value;
    assert_eq!(open.gap().unwrap().reason(), GapReason::QueryUpdated);
    assert_eq!(server.emit("create", &object("Old", "a", json!({}))), 0);
    assert_eq!(server.emit("create", &object("New", "a", json!({}))), 1);
    events.expect("create");
    // After a cut it is the new query that comes back, as a subscription like all others.
    server.conn(1).cut();
    events.expect("close");
    assert_eq!(
        events.expect("open").value.gap().unwrap().reason(),
        GapReason::ConnectionLost
    );
    let frame = server.wait_op(2, "subscribe", 1).remove(0).frame;
    assert_eq!(frame["query"]["className"], "New");
    assert_eq!(frame["requestId"], subscription.id());
    assert_eq!(server.accepts(), 2);
}

#[test]
fn updates_go_out_one_at_a_time_and_the_last_one_stands() {
    let server = Server::auto();
    let client = client(&server.url());
    let client_events = record_client(&client);
    let (subscription, events) = subscribe(&client, "C0");
    server.on_frame(|_, frame| match frame["op"].as_str() {
        Some("update") => Then::Handled,
        _ => Then::Default,
    });
    subscription.update(&Query::new("C1")).unwrap();
    server.wait_op(1, "update", 1);
    for at in 2..10 {
        subscription.update(&Query::new(format!("C{at}"))).unwrap();
    }
    fence(&client);
    assert_eq!(
        server.received_op("update").len(),
        1,
        "the first has no answer yet"
    );
    server.heal();
    server.conn(1).subscribed(subscription.id());
    let (conn, id) = server.wait_subscribed("C9");
    assert_eq!(id, subscription.id());
    assert_eq!(conn.received().iter().filter(|r| r.op() == "update").count(), 2);
    events.wait_for("close");
    events.wait_for("open");
    assert_eq!(client_events.count("error"), 0);
}

#[test]
fn refused_update_brings_the_old_query_back() {
    let server = Server::auto();
    let client = client(&server.url());
    let (subscription, events) = subscribe(&client, "Old");
    server.on_frame(
        |conn, frame| match (frame["op"].as_str(), frame["query"]["className"].as_str()) {
            // Parse Server ends the old query, and then finds fault with the new one.
            (Some("update"), Some("Refused")) => {
                let id = frame["requestId"].as_u64();
                conn.forget_subscription(id.unwrap());
                conn.error(119, "no right", false, id);
                Then::Handled
            }
            _ => Then::Default,
        },
    );
    subscription.update(&Query::new("Refused")).unwrap();
    events.wait_where("the error", |seen| {
        seen.value
            .error()
            .is_some_and(|error| error.code() == Some(119) && !error.is_fatal())
    });
    let open = events.wait_for("open").value;
    assert_eq!(open.gap().unwrap().reason(), GapReason::QueryUpdated);
    assert_eq!(server.emit("create", &object("Old", "a", json!({}))), 1);
    events.expect("create");
    assert_eq!(subscription.state(), SubscriptionState::Open);
    let kinds: Vec<_> = events.all().iter().map(|seen| seen.value.kind()).collect();
    assert_grammar("Old", &kinds);
    assert_eq!(server.accepts(), 1);
}

#[test]
fn update_while_offline_is_what_comes_back() {
    let server = Server::auto();
    let client = client(&server.url());
    let (subscription, events) = subscribe(&client, "Old");
    server.on_accept(|_| Then::Handled);
    server.conn(1).cut();
    events.expect("close");
    subscription.update(&Query::new("New")).unwrap();
    server.heal();
    for conn in server.open_conns() {
        conn.cut();
    }
    events.expect("open");
    let last = server.accepts();
    let frames: Vec<_> = server.conn(last).received().into_iter().skip(1).collect();
    assert_eq!(frames.len(), 1, "{frames:?}");
    assert_eq!(
        (frames[0].op(), &frames[0].frame["query"]["className"]),
        ("subscribe", &json!("New"))
    );
}

#[test]
fn failed_subscription_can_be_tried_with_another_query() {
    let server = Server::auto();
    server.on_frame(|conn, frame| match frame["query"]["className"].as_str() {
        Some("Refused") => {
            conn.error(119, "no right", false, frame["requestId"].as_u64());
            Then::Handled
        }
        _ => Then::Default,
    });
    let client = client(&server.url());
    let events = Events::new();
    let subscription = subscribe_into(&client, "Refused", &events);
    assert!(events.expect("error").value.error().unwrap().is_fatal());
    assert_eq!(subscription.wait_open(LONG).unwrap_err().code(), Some(119));
    // It is not tried again when the link is.
    server.conn(1).cut();
    fence(&client);
    wait_until("the link is back", || server.accepts() == 2);
    let again = server.wait_op(2, "subscribe", 1);
    assert!(
        again
            .iter()
            .all(|received| received.request_id() != subscription.id())
    );
    subscription.update(&Query::new("Allowed")).unwrap();
    subscription.wait_open(LONG).unwrap();
    events.expect("open");
    assert_eq!(events.kinds(), ["error", "open"]);
}

#[test]
fn client_that_was_closed_opens_again() {
    let server = Server::auto();
    let client = client(&server.url());
    let client_events = record_client(&client);
    for round in 1..=3 {
        let (subscription, events) = subscribe(&client, "Game");
        client.close();
        events.expect("close");
        assert_eq!(client.state(), ClientState::Closed);
        assert_eq!(subscription.state(), SubscriptionState::Closed);
        assert_eq!(server.accepts(), round);
    }
    client.open();
    client.wait_open(LONG).unwrap();
    let expected = ["open", "close"].into_iter().cycle().take(7).collect::<Vec<_>>();
    for kind in &expected {
        client_events.expect(kind);
    }
    assert_eq!(server.accepts(), 4);
    assert_eq!(
        server.received_op("subscribe").len(),
        3,
        "what was closed does not come back"
    );
    assert_eq!(client_events.kinds(), expected);
}

#[test]
fn open_close_grammar() {
    const THREADS: u64 = 4;
    let server = Server::auto();
    let proxy = Arc::new(Proxy::to(server.addr()));
    let client = client(&proxy.url());
    let histories = Arc::new(parking_lot::Mutex::new(vec![]));
    let stop = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (client, histories, stop) = (client.clone(), Arc::clone(&histories), Arc::clone(&stop));
            thread::spawn(move || subscribe_at_random(&client, thread, &histories, &stop))
        })
        .collect();
    let mut random = Random(99);
    for _ in 0..60 {
        match random.below(6) {
            0 => proxy.cut(),
            1 => proxy.reset(),
            2 => client.close(),
            3 => client.open(),
            _ => {
                for class in 0..THREADS {
                    server.emit("create", &object(&format!("C{class}"), "a", json!({})));
                }
            }
        }
        thread::park_timeout(Duration::from_millis(random.below(20)));
    }
    stop.store(1, Ordering::Relaxed);
    for thread in threads {
        thread.join().unwrap();
    }
    client.close();
    let histories = std::mem::take(&mut *histories.lock());
    let mut opens = 0;
    for (name, events) in histories {
        let kinds: Vec<_> = events.all().iter().map(|seen| seen.value.kind()).collect();
        assert_grammar(&name, &kinds);
        assert_ne!(
            kinds.last().map(|kind| kind.as_str()),
            Some("open"),
            "{name}: no last `close`"
        );
        opens += events.count("open");
    }
    assert!(opens > 20, "only {opens} subscriptions were ever open");
    assert!(proxy.max_open() <= 1);
}

fn subscribe_at_random(
    client: &Client,
    thread: u64,
    histories: &parking_lot::Mutex<Vec<(String, Events)>>,
    stop: &AtomicUsize,
) {
    let mut random = Random(thread + 1);
    let mut live: Vec<Subscription> = vec![];
    let mut round = 0;
    while stop.load(Ordering::Relaxed) == 0 {
        round += 1;
        let events = Events::new();
        live.push(subscribe_into(client, &format!("C{thread}"), &events));
        histories.lock().push((format!("{thread}.{round}"), events));
        match random.below(4) {
            0 => drop(live.pop()),
            1 => live.iter().for_each(Subscription::unsubscribe),
            2 => {
                let _ = live[0].wait_open(ms(5));
            }
            _ => thread::park_timeout(ms(3)),
        }
        if live.len() > 8 {
            live.clear();
        }
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}
