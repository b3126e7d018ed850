//! Loss and order: what was missed is reported, and what came keeps its order.
//!
//! `GAP_DELAY_MS` (1,000 by default) is how long the links of the test of lost events are, `GAP_CUTS` (2) how often each of
//! them is cut.

use std::collections::HashSet;
use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::SystemTime;

use crossbeam_channel::bounded;
use parking_lot::Mutex;
use parse_livequery::{Date, ErrorKind, Gap, GapReason, Query};
use serde_json::json;
use tungstenite::protocol::frame::coding::Control;

use crate::harness::*;
use crate::support::*;

#[test]
fn gap_reported_and_ordered() {
    let server = Server::auto();
    let proxy = Proxy::to(server.addr());
    let client = builder(&proxy.url())
        .idle_ping(ms(500))
        .pong_timeout(ms(2000))
        .build()
        .unwrap();
    let before_all = SystemTime::now();
    let (_subscription, events) = subscribe(&client, "Game");
    assert_eq!(
        events.all()[0].value.gap(),
        None,
        "nothing was missed before the first `open`"
    );
    server.emit("create", &object("Game", "seen", json!({})));
    events.expect("create");
    proxy.blackhole();
    let gone = SystemTime::now();
    server.emit("create", &object("Game", "missed", json!({})));
    let close = events.expect("close").value;
    assert_eq!(close.error().unwrap().kind(), ErrorKind::Timeout);
    let noticed = SystemTime::now();
    proxy.heal();
    let open = events.expect("open").value;
    let gap = open.gap().unwrap();
    assert_eq!(gap.reason(), GapReason::ConnectionLost);
    // From the last proof of life, not from when the loss was noticed.
    assert!(
        gap.start() >= before_all.into() && gap.start() <= gone.into(),
        "{gap:?}"
    );
    assert!(
        gap.end() >= noticed.into() && gap.end() <= SystemTime::now().into(),
        "{gap:?}"
    );
    assert!(gap.duration() >= ms(2000));
    server.emit("create", &object("Game", "again", json!({})));
    assert_eq!(events.expect("create").value.id(), Some("again"));
}

#[test]
fn order_across_a_cut_is_old_events_close_open_new_events() {
    let server = Server::auto();
    let client = client(&server.url());
    let (release, gate) = bounded::<()>(0);
    let events = Events::new();
    let builder = client.subscription(&Query::new("Game")).on_create(move |_| {
        let _ = gate.recv_timeout(MINUTE);
    });
    let _subscription = record(builder, "Game", &events).start().unwrap();
    events.expect("open");
    let send = |conn: &Conn, range: std::ops::Range<u64>| {
        let id = conn.subscriptions_to("Game")[0];
        let messages: Vec<_> = range
            .map(|at| conn.event_message("create", id, object("Game", "a", json!({ "at": at })), None))
            .collect();
        conn.send_together(&messages);
    };
    // The listener sleeps while three connections come and go.
    let (first, _) = server.wait_subscribed("Game");
    send(&first, 0..100);
    first.cut();
    server.conn(2);
    let (second, _) = server.wait_subscribed("Game");
    assert_eq!(second.number(), 2);
    send(&second, 100..200);
    second.close(1001, "going away");
    second.wait_ended();
    server.conn(3);
    let (third, _) = server.wait_subscribed("Game");
    assert_eq!(third.number(), 3);
    send(&third, 200..300);
    drop(release);
    for connection in 0..3 {
        for at in 0..100 {
            let event = events.expect("create").value;
            assert_eq!(event.get("at"), Some(&json!(100 * connection + at)));
        }
        if connection < 2 {
            let close = events.expect("close").value;
            assert_eq!(close.error().unwrap().kind(), ErrorKind::ConnectionLost);
            assert!(events.expect("open").value.gap().is_some());
        }
    }
}

#[test]
fn event_glued_to_subscribed() {
    let server = Server::scripted();
    let client = client(&server.url());
    let events = Events::new();
    let subscription = subscribe_into(&client, "Game", &events);
    for round in 0..20 {
        let conn = server.accept();
        conn.connect();
        let id = conn.expect_id("subscribe");
        assert_eq!(id, subscription.id());
        let event = |name: &str| conn.event_message("create", id, object("Game", name, json!({})), None);
        conn.send_together(&[conn.subscribed_message(id), event("first"), event("second")]);
        let open = events.expect("open").value;
        assert_eq!(open.gap().is_some(), round > 0);
        assert_eq!(events.expect("create").value.id(), Some("first"));
        assert_eq!(events.expect("create").value.id(), Some("second"));
        conn.cut();
        events.expect("close");
    }
}

#[test]
fn event_glued_to_the_end_is_delivered() {
    let server = Server::auto();
    let client = client(&server.url());
    let (_subscription, events) = subscribe(&client, "Game");
    for _ in 0..20 {
        let (conn, id) = server.wait_subscribed("Game");
        conn.event("create", id, object("Game", "last", json!({})), None);
        conn.cut();
        events.expect("create");
        events.expect("close");
        events.expect("open");
    }
}

#[test]
fn order_preserved() {
    const SUBSCRIPTIONS: u64 = 16;
    const EVENTS: u64 = 100_000;
    let server = Server::auto();
    let client = client(&server.url());
    let seen = Arc::new(AtomicUsize::new(0));
    let wrong = Arc::new(parking_lot::Mutex::new(None));
    let subscriptions: Vec<_> = (0..SUBSCRIPTIONS)
        .map(|at| {
            let (seen, wrong) = (Arc::clone(&seen), Arc::clone(&wrong));
            let mut next = at;
            let subscription = client
                .subscription(&Query::new(format!("C{at}")))
                .on_create(move |object| {
                    if object.get("at") != Some(&json!(next)) {
                        *wrong.lock() = Some((at, next, object.get("at").cloned()));
                    }
                    next += SUBSCRIPTIONS;
                    seen.fetch_add(1, Ordering::Relaxed);
                })
                .start()
                .unwrap();
            subscription.wait_open(LONG).unwrap();
            subscription
        })
        .collect();
    let conn = server.conn(1);
    let ids: Vec<_> = subscriptions
        .iter()
        .map(|subscription| subscription.id())
        .collect();
    for start in (0..EVENTS).step_by(1000) {
        let messages: Vec<_> = (start..start + 1000)
            .map(|at| {
                let id = ids[(at % SUBSCRIPTIONS) as usize];
                conn.event_message("create", id, json!({ "objectId": "a", "at": at }), None)
            })
            .collect();
        conn.send_together(&messages);
    }
    wait_until_within(MINUTE, "all events", || {
        seen.load(Ordering::Relaxed) == EVENTS as usize
    });
    assert_eq!(*wrong.lock(), None);
    assert_eq!(server.accepts(), 1);
}

#[test]
fn overflow_is_lagged() {
    const LIMIT: usize = 100;
    const SENT: usize = 5000;
    let server = Server::auto();
    let client = builder(&server.url())
        .queue_limits(LIMIT, 1 << 20)
        .build()
        .unwrap();
    let client_events = record_client(&client);
    let (release, gate) = bounded::<()>(0);
    let (entered, in_listener) = bounded(1);
    let events = Events::new();
    let builder = client.subscription(&Query::new("Game")).on_create(move |_| {
        let _ = entered.try_send(());
        let _ = gate.recv_timeout(MINUTE);
    });
    let subscription = record(builder, "Game", &events).start().unwrap();
    let (_other, others) = subscribe(&client, "Other");
    events.expect("open");
    let conn = server.conn(1);
    let event = |at: usize| {
        let object = object("Game", "a", json!({ "at": at }));
        conn.event_message("create", subscription.id(), object, None)
    };
    // One is in the listener's hands before the others come.
    conn.send(&event(0));
    in_listener.recv_timeout(LONG).unwrap();
    for start in (1..=SENT).step_by(100) {
        conn.send_together(&(start..start + 100).map(event).collect::<Vec<_>>());
    }
    server.emit("create", &object("Other", "a", json!({})));
    // The client has read it all when it answers this.
    conn.ping(b"all read");
    wait_until("the pong", || {
        conn.controls().contains(&(Control::Pong, b"all read".to_vec()))
    });
    drop(release);
    others.expect("create");
    for at in 0..=LIMIT {
        assert_eq!(events.expect("create").value.get("at"), Some(&json!(at)));
    }
    let error = events.expect("error").value;
    let error = error.error().unwrap();
    assert_eq!(error.kind(), ErrorKind::Lagged);
    assert_eq!(error.dropped(), Some((SENT - LIMIT) as u64));
    assert!(!error.is_fatal());
    // After the report it goes on, on the same link.
    conn.send(&event(SENT + 1));
    assert_eq!(events.expect("create").value.get("at"), Some(&json!(SENT + 1)));
    assert_eq!(events.count("error"), 1);
    assert_eq!(client_events.kinds(), ["open", "error"]);
    assert_eq!(server.accepts(), 1);
}

#[test]
fn control_events_are_never_dropped() {
    let server = Server::auto();
    let client = builder(&server.url()).queue_limits(1, 1).build().unwrap();
    let (release, gate) = bounded::<()>(0);
    let events = Events::new();
    let builder = client.subscription(&Query::new("Game")).on_create(move |_| {
        let _ = gate.recv_timeout(MINUTE);
    });
    let _subscription = record(builder, "Game", &events).start().unwrap();
    events.expect("open");
    for number in 1..=10 {
        server.conn(number);
        let (conn, id) = server.wait_subscribed("Game");
        assert_eq!(conn.number(), number);
        for _ in 0..10 {
            conn.event("create", id, object("Game", "a", json!({})), None);
        }
        conn.cut();
    }
    server.conn(11);
    server.wait_subscribed("Game");
    drop(release);
    wait_until("all is told", || events.count("open") == 11);
    assert_eq!(events.count("close"), 10);
    let kinds: Vec<_> = events.all().iter().map(|seen| seen.value.kind()).collect();
    assert_grammar("Game", &kinds);
    let told: u64 = events
        .all()
        .iter()
        .filter_map(|seen| seen.value.error()?.dropped())
        .sum();
    assert_eq!(
        told as usize + events.count("create"),
        100,
        "each event is delivered or counted"
    );
}

#[test]
fn flood_before_a_blocked_listener_keeps_memory_bounded() {
    in_own_process(
        module_path!(),
        "flood_before_a_blocked_listener_keeps_memory_bounded",
        3 * MINUTE,
        || {
            let server = Server::auto();
            let client = builder(&server.url())
                .queue_limits(10_000, 4 << 20)
                .build()
                .unwrap();
            let (release, gate) = bounded::<()>(0);
            let events = Events::new();
            let builder = client.subscription(&Query::new("Game")).on_create(move |_| {
                let _ = gate.recv_timeout(3 * MINUTE);
            });
            let subscription = record(builder, "Game", &events).start().unwrap();
            let (_other, others) = subscribe(&client, "Other");
            let conn = server.conn(1);
            let text = "x".repeat(1000);
            let event = conn.event_message(
                "create",
                subscription.id(),
                object("Game", "a", json!({ "text": text })),
                None,
            );
            let batch = Conn::frames_of(&vec![event; 1000]);
            let mut before = None;
            for round in 0..100 {
                conn.send_raw(&batch);
                if round == 10 {
                    before = resident_bytes();
                }
            }
            server.emit("create", &object("Other", "a", json!({})));
            let after = resident_bytes();
            if let (Some(before), Some(after)) = (before, after) {
                let grown = after.saturating_sub(before);
                assert!(grown < 32 << 20, "{grown} bytes more after 100 MB of events");
            }
            drop(release);
            others.wait_for("create");
            events.wait_for("error");
            assert_eq!(server.accepts(), 1);
        },
    );
}

#[test]
fn gap_of_a_long_outage_starts_at_its_beginning() {
    let server = Server::auto();
    let client = client(&server.url());
    let (_subscription, events) = subscribe(&client, "Game");
    let lost = SystemTime::now();
    // Some attempts in between connect, and are lost before the subscription is acknowledged.
    server.on_frame(|conn, frame| {
        if frame["op"] == "subscribe" {
            conn.cut();
            return Then::Handled;
        }
        Then::Default
    });
    server.conn(1).cut();
    events.expect("close");
    server.conn(5);
    server.heal();
    let open = events.expect("open").value;
    let gap = open.gap().unwrap();
    assert!(gap.start() <= lost.into(), "{gap:?}");
    assert!(gap.start() <= gap.end());
}

/// Each of these links is long in both directions: when one is cut, much is on its way.
#[test]
fn no_event_is_lost_outside_of_a_gap() {
    let number = |name: &str, default: usize| {
        env::var(name).map_or(default, |number| number.parse().expect("a number"))
    };
    let (delay, cuts) = (number("GAP_DELAY_MS", 1000), number("GAP_CUTS", 2));
    let server = Server::auto();
    let links: Vec<_> = (0..4)
        .map(|_| {
            let proxy = Proxy::to(server.addr());
            proxy.delay(ms(delay as u64));
            let client = builder(&proxy.url()).idle_ping(ms(500)).build().unwrap();
            let (subscription, events) = subscribe(&client, "Game");
            (proxy, client, subscription, events)
        })
        .collect();
    let written = Mutex::new(vec![]);
    let more = AtomicBool::new(true);
    thread::scope(|scope| {
        scope.spawn(|| {
            while more.load(Ordering::Relaxed) {
                let id = written.lock().len().to_string();
                let before = SystemTime::now();
                server.emit("create", &object("Game", &id, json!({})));
                written.lock().push(before..=SystemTime::now());
                thread::park_timeout(ms(20));
            }
        });
        let cut = |at: usize, proxy: &Proxy, events: &Events| {
            for round in 0..cuts {
                // Not in step with the pings.
                for _ in 0..40 + 13 * at + 29 * (round % 5) {
                    events.expect("create");
                }
                proxy.cut();
                events.wait_for("open");
            }
        };
        let cutters: Vec<_> = links
            .iter()
            .enumerate()
            .map(|(at, (proxy, _, _, events))| scope.spawn(move || cut(at, proxy, events)))
            .collect();
        let cut: Vec<_> = cutters.into_iter().map(thread::ScopedJoinHandle::join).collect();
        more.store(false, Ordering::Relaxed);
        assert!(cut.iter().all(Result::is_ok));
    });
    server.emit("create", &object("Game", "last", json!({})));
    let written = written.into_inner();
    let mut total = 0;
    for (_, _, _, events) in &links {
        events.wait_where("last event", |seen| seen.value.id() == Some("last"));
        let all = events.all();
        let came: HashSet<_> = all.iter().filter_map(|seen| seen.value.id()).collect();
        let gaps: Vec<_> = all.iter().filter_map(|seen| seen.value.gap()).collect();
        assert_eq!(gaps.len(), cuts);
        let lost = written
            .iter()
            .enumerate()
            .filter(|(id, _)| !came.contains(id.to_string().as_str()))
            .map(|(_, times)| times);
        assert!(lost.clone().count() > 0, "the test is too kind");
        total += lost.clone().count();
        for times in lost {
            let inside = |gap: &Gap| {
                gap.start() <= Date::from(*times.end()) && gap.end() >= Date::from(*times.start())
            };
            assert!(
                gaps.iter().any(|gap| inside(gap)),
                "{times:?} is in none of {gaps:?}"
            );
        }
    }
    let (links, written) = (links.len(), written.len());
    println!(
        "{links} links, each cut {cuts} times: {total} of {written} events each were lost, all of them in gaps"
    );
}
