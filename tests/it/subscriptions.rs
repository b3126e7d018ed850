//! Subscriptions: each is sent once per connection, restored as it was, and over when it was ended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};
use parse_livequery::{ClientState, ErrorKind, Event, Query, SubscriptionState};
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
        .start()
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
        "not_accepted",
        "accepted",
        "connect_received",
        "connected_sent",
        "subscribe_received",
        "subscribed_sent",
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
            Some("connect") => ("connect_received", "connected_sent"),
            Some("subscribe") if first.fetch_add(1, Ordering::Relaxed) == 0 => {
                ("subscribe_received", "subscribed_sent")
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
                let class = format!("{point}_{thread}");
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
        *slot.lock() = Some(subscribe_into(&inner, "in_open", &nested));
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
    events.wait_where("the one from the listener", |seen| &*seen.source == "in_open");
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
    let client_events = record_client(&client);
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
    client_events.wait_for("close");
    // Now neither is open.
    let recorder = late.clone();
    subscription.on("open", move |event: &Event| {
        recorder.push("later", "open", event.clone())
    });
    let recorder = late.clone();
    client.on("open", move |_| {
        recorder.push("client", "open", Event::clone(&recorder.all()[0].value))
    });
    // The next connection, which nobody answers.
    server.conn(2);
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
    let client = builder(&server.url())
        .ack_timeout(Duration::from_secs(2))
        .build()
        .unwrap();
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
