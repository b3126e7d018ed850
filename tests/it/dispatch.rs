//! Which thread gets the events, in which form, and what happens when they are too many.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{bounded, unbounded};
use parking_lot::Mutex;
use parse_livequery::test_server::TestServer;
use parse_livequery::{Dispatch, Error, ErrorKind, Event, EventKind, Overflow, Query, SubscriptionState};
use serde::Deserialize;
use serde_json::json;

use crate::harness::*;
use crate::support::*;

fn numbers(events: &[Event]) -> Vec<i64> {
    events
        .iter()
        .filter_map(|event| event.get("n")?.as_i64())
        .collect()
}

#[test]
fn manual_dispatch_thread() {
    let server = TestServer::start().unwrap();
    let (wake, woken) = unbounded();
    let dispatch = Dispatch::manual(move || {
        let _ = wake.send(());
    });
    let client = builder(&server.url()).dispatch(dispatch).build().unwrap();
    let here = thread::current().id();
    let (got, events) = unbounded();
    let inside = client.clone();
    client.on("open", move |_| {
        assert_eq!(thread::current().id(), here);
        assert_eq!(inside.dispatch_pending(), 0, "not while a listener runs");
    });
    let subscription = client
        .subscription(&Query::new("Game"))
        .on_any(move |event| {
            assert_eq!(thread::current().id(), here);
            got.send(event.clone()).unwrap();
        })
        .start()
        .unwrap();
    subscription.wait_open(LONG).unwrap();
    assert!(events.is_empty(), "nothing is given out before it is asked for");

    let pump = |wanted: EventKind| {
        loop {
            if let Ok(event) = events.try_recv() {
                if event.kind() == wanted {
                    return event;
                }
                continue;
            }
            woken.recv_timeout(LONG).expect("wake is called");
            client.dispatch_pending();
        }
    };
    pump(EventKind::Open);
    server.create("Game", json!({"n": 1}));
    pump(EventKind::Create);
    client.close();
    pump(EventKind::Close);
}

#[test]
fn manual_dispatch_keeps_to_its_time_and_comes_back_for_the_rest() {
    let server = TestServer::start().unwrap();
    let (wake, woken) = unbounded();
    let client = builder(&server.url())
        .dispatch(Dispatch::manual(move || {
            let _ = wake.send(());
        }))
        .build()
        .unwrap();
    let calls = Arc::new(AtomicUsize::new(0));
    let called = Arc::clone(&calls);
    let subscription = client
        .subscription(&Query::new("Game"))
        .on_create(move |_| {
            called.fetch_add(1, Ordering::Relaxed);
        })
        .start()
        .unwrap();
    subscription.wait_open(LONG).unwrap();
    for n in 0..3 {
        server.create("Game", json!({ "n": n }));
    }
    wait_until("the events are there", || subscription.stats().queued == 3);
    while woken.try_recv().is_ok() {}
    let mut rounds = 0;
    while calls.load(Ordering::Relaxed) < 3 {
        assert_eq!(client.dispatch_pending_for(Duration::ZERO), 1);
        rounds += 1;
        if calls.load(Ordering::Relaxed) < 3 {
            woken.recv_timeout(LONG).expect("wake is called for the rest");
        }
    }
    assert!(rounds >= 3);
}

#[test]
fn events_are_a_channel_that_ends_with_the_subscription() {
    let server = TestServer::start().unwrap();
    let client = client(&server.url());
    let subscription = client.subscribe(&Query::new("Game")).unwrap();
    subscription.wait_open(LONG).unwrap();
    // It is open already, which the channel tells all the same.
    let events = subscription.events();
    assert_eq!(events.recv_timeout(LONG).unwrap().kind(), EventKind::Open);
    let second = subscription.events();
    server.create("Game", json!({"n": 1}));
    let ticker = crossbeam_channel::never::<()>();
    crossbeam_channel::select! {
        recv(events) -> event => assert_eq!(event.unwrap().kind(), EventKind::Create),
        recv(ticker) -> _ => unreachable!(),
        default(LONG) => panic!("no event"),
    }
    subscription.unsubscribe();
    let rest: Vec<_> = watchdog(LONG, move || events.iter().map(|event| event.kind()).collect());
    assert_eq!(rest, [EventKind::Close]);
    let all: Vec<_> = watchdog(LONG, move || second.iter().map(|event| event.kind()).collect());
    assert_eq!(all, [EventKind::Open, EventKind::Create, EventKind::Close]);
}

#[test]
fn events_channel_ends_when_the_subscription_is_dropped() {
    let server = TestServer::start().unwrap();
    let client = client(&server.url());
    let subscription = client.subscribe(&Query::new("Game")).unwrap();
    let events = subscription.events();
    drop(subscription);
    watchdog(LONG, move || events.iter().count());
}

#[test]
fn events_channel_that_is_full_tells_what_it_lacks() {
    let server = TestServer::start().unwrap();
    let client = client(&server.url());
    let subscription = client.subscribe(&Query::new("Game")).unwrap();
    let (sender, events) = bounded(3);
    subscription.send_to(sender);
    let (seen, fence) = unbounded();
    subscription.on_create(move |game| seen.send(game.get("n").cloned()).unwrap());
    subscription.wait_open(LONG).unwrap();
    for n in 0..10 {
        server.create("Game", json!({ "n": n }));
        fence.recv_timeout(LONG).unwrap();
    }
    let first: Vec<_> = events.try_iter().collect();
    assert_eq!(first[0].kind(), EventKind::Open);
    assert_eq!(numbers(&first), [0, 1]);
    server.create("Game", json!({"n": 10}));
    let lagged = events.recv_timeout(LONG).unwrap();
    assert_eq!(lagged.error().unwrap().dropped(), Some(8), "{lagged:?}");
    assert_eq!(numbers(&[events.recv_timeout(LONG).unwrap()]), [10]);
}

#[derive(Debug, Deserialize)]
struct Game {
    name: String,
    score: f64,
}

#[test]
fn typed_listeners_get_their_type_and_an_error_for_what_does_not_fit() {
    let server = TestServer::start().unwrap();
    let client = client(&server.url());
    let (got, games) = unbounded();
    let (failed, errors) = unbounded::<Error>();
    let subscription = client
        .subscription(&Query::new("Game"))
        .on_as::<Game>("update", move |game, event| {
            let before = event.original().and_then(|before| before.get_f64("score"));
            got.send((
                game.name.clone(),
                before,
                game.score,
                event.id().map(str::to_owned),
            ))
            .unwrap();
        })
        .on_error(move |error| failed.send(error.clone()).unwrap())
        .start()
        .unwrap();
    subscription.wait_open(LONG).unwrap();
    let id = server.create("Game", json!({"name": "go", "score": 1}));
    server.update("Game", &id, json!({"score": 2}));
    assert_eq!(
        games.recv_timeout(LONG).unwrap(),
        ("go".into(), Some(1.0), 2.0, Some(id.clone()))
    );
    server.update("Game", &id, json!({"score": "many"}));
    let error = errors.recv_timeout(LONG).unwrap();
    assert_eq!(error.kind(), ErrorKind::Decode);
    assert!(error.to_string().contains("score"), "{error}");
    assert!(!error.is_fatal());
    server.update("Game", &id, json!({"score": 3}));
    // The original does not fit, which is no reason to keep back the object that does.
    let (_, before, score, _) = games.recv_timeout(LONG).unwrap();
    assert_eq!((before, score), (None, 3.0));
    assert!(errors.is_empty());
    assert_eq!(subscription.state(), SubscriptionState::Open);
}

#[test]
#[should_panic(expected = "carries no object")]
fn typed_listeners_need_an_event_with_an_object() {
    let client = client("ws://127.0.0.1:1");
    let subscription = client.subscribe(&Query::new("Game")).unwrap();
    subscription.on_as::<Game>("open", |_, _| {});
}

/// Blocks a listener in its first object, sends ten more, and returns what came of them.
fn overflow(policy: Overflow) -> (Vec<Event>, u64) {
    let server = TestServer::start().unwrap();
    let client = builder(&server.url())
        .queue_limits(4, usize::MAX)
        .overflow(policy)
        .build()
        .unwrap();
    let (entered, in_listener) = bounded(0);
    let (release, go_on) = bounded::<()>(0);
    let (got, events) = unbounded();
    let mut blocks = true;
    let slow = client
        .subscription(&Query::new("Game"))
        .on_any(move |event| {
            got.send(event.clone()).unwrap();
            if event.kind() == EventKind::Create && std::mem::take(&mut blocks) {
                entered.send(()).unwrap();
                go_on.recv().unwrap();
            }
        })
        .start()
        .unwrap();
    slow.wait_open(LONG).unwrap();
    for n in 0..11 {
        server.create("Game", json!({ "n": n }));
        if n == 0 {
            in_listener.recv_timeout(LONG).unwrap();
        }
    }
    wait_until("all have come", || slow.stats().events.create == 11);
    assert_eq!(client.stats().queued, 4);
    release.send(()).unwrap();
    wait_until("all are given out", || client.stats().queued == 0);
    fence(&client);
    server.create("Game", json!({"n": 100}));
    wait_until("the last is given out", || {
        slow.stats().events.create == 12 && client.stats().queued == 0
    });
    fence(&client);
    assert_eq!(slow.stats().dropped, 6);
    assert_eq!(client.stats().dropped, 6);
    let events: Vec<_> = events.try_iter().collect();
    let lagged = events
        .iter()
        .filter_map(|event| event.error()?.dropped())
        .collect::<Vec<_>>();
    assert_eq!(lagged.len(), 1, "one report: {lagged:?}");
    (events, lagged[0])
}

#[test]
fn overflow_drops_the_newest_by_default_and_says_so_where_they_lack() {
    let (events, lagged) = overflow(Overflow::DropNewest);
    assert_eq!(numbers(&events), [0, 1, 2, 3, 4, 100]);
    assert_eq!(lagged, 6);
    assert!(events[6].error().is_some(), "after the last that was kept");
}

#[test]
fn overflow_can_drop_the_oldest() {
    let (events, lagged) = overflow(Overflow::DropOldest);
    assert_eq!(numbers(&events), [0, 7, 8, 9, 10, 100]);
    assert_eq!(lagged, 6);
    assert!(events[2].error().is_some(), "before the first that was kept");
}

#[test]
fn a_slow_listener_takes_no_room_from_other_subscriptions() {
    let server = TestServer::start().unwrap();
    let client = builder(&server.url())
        .queue_limits(2, usize::MAX)
        .build()
        .unwrap();
    let (release, go_on) = bounded::<()>(0);
    let slow = client
        .subscription(&Query::new("Slow"))
        .on_open(move |_| go_on.recv().unwrap())
        .start()
        .unwrap();
    let (got, numbers) = unbounded();
    let other = client
        .subscription(&Query::new("Other"))
        .on_create(move |object| got.send(object.get("n").and_then(|n| n.as_i64())).unwrap())
        .start()
        .unwrap();
    // Not `wait_open`, which waits for the listener.
    wait_until("both are open", || {
        [&slow, &other]
            .iter()
            .all(|subscription| subscription.state() == SubscriptionState::Open)
    });
    for n in 0..50 {
        server.create("Slow", json!({ "n": n }));
    }
    wait_until("they have come", || slow.stats().dropped == 48);
    for n in 0..2 {
        server.create("Other", json!({ "n": n }));
    }
    wait_until("they have come", || other.stats().queued == 2);
    release.send(()).unwrap();
    assert_eq!(numbers.recv_timeout(LONG).unwrap(), Some(0));
    assert_eq!(numbers.recv_timeout(LONG).unwrap(), Some(1));
    assert_eq!(other.stats().dropped, 0);
}

#[test]
fn stats_tell_what_goes_on() {
    let server = TestServer::start().unwrap();
    let client = client(&server.url());
    assert_eq!(client.stats().connections, 0);
    let (subscription, events) = subscribe(&client, "Game");
    let id = server.create("Game", json!({"n": 1}));
    server.update("Game", &id, json!({"n": 2}));
    server.delete("Game", &id);
    events.wait_for("delete");
    server.cut();
    events.wait_for("open");
    let stats = subscription.stats();
    assert_eq!(stats.acknowledged, 2);
    assert_eq!(
        (
            stats.events.create,
            stats.events.update,
            stats.events.delete,
            stats.events.total()
        ),
        (1, 1, 1, 3)
    );
    assert!(stats.last_event.is_some());
    server.send_raw("nonsense");
    wait_until("it is noticed", || client.stats().malformed == 1);
    let stats = client.stats();
    assert_eq!(
        (stats.connections, stats.failures, stats.subscriptions),
        (2, 1, 1)
    );
    // Two connects, two subscribes.
    assert_eq!(stats.messages_out, 4);
    assert_eq!(stats.messages_in, 2 + 2 + 3 + 1);
    assert!(stats.bytes_in > stats.messages_in && stats.bytes_out > stats.messages_out);
    assert!(stats.last_received.is_some());
    wait_until("the first ping is answered", || {
        client.stats().round_trip.is_some()
    });
    let diagnosis = client.diagnose();
    for fact in [
        &server.url(),
        "connected",
        "2 made, 1 failures",
        "1 malformed",
        "liveQuery.classNames",
    ] {
        assert!(diagnosis.contains(fact), "{fact}: {diagnosis}");
    }
}

/// Parse Server takes `{from: alice, to: bob}` and `{from: bob, to: alice}` for one query where they are sent like that.
#[test]
fn events_of_another_query_are_dropped_and_counted() {
    let server = Server::auto();
    let client = client(&server.url());
    let events = Events::new();
    let query = Query::new("Message").raw_where(json!({"from": "alice", "to": "bob"}));
    let subscription = record(client.subscription(&query), "Message", &events)
        .start()
        .unwrap();
    events.expect("open");
    let (conn, id) = server.wait_subscribed("Message");
    let message = |from: &str, to: &str| object("Message", "m", json!({"from": from, "to": to}));
    let ours = || message("alice", "bob");
    let theirs = || message("bob", "alice");
    conn.event("create", id, theirs(), None);
    conn.event("leave", id, ours(), Some(theirs()));
    conn.event("create", id, ours(), None);
    events.expect("create");
    conn.event("leave", id, theirs(), Some(ours()));
    events.expect("leave");
    // What a hook or `protectedFields` has taken out, or fetched, is not judged.
    conn.event("update", id, object("Message", "m", json!({"to": "bob"})), None);
    events.expect("update");
    let fetched = json!({"__type": "Object", "className": "User", "objectId": "alice"});
    conn.event(
        "update",
        id,
        object("Message", "m", json!({"from": fetched, "to": "bob"})),
        None,
    );
    events.expect("update");
    assert_eq!(subscription.stats().foreign, 2);
    assert_eq!(events.kinds(), ["open", "create", "leave", "update", "update"]);
}

struct CollectingLogger(Mutex<Vec<String>>);

impl log::Log for CollectingLogger {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        self.0
            .lock()
            .push(format!("{} {}", record.level(), record.args()));
    }

    fn flush(&self) {}
}

#[test]
fn a_listener_that_holds_up_the_others_is_named_in_the_log() {
    in_own_process(
        module_path!(),
        "a_listener_that_holds_up_the_others_is_named_in_the_log",
        MINUTE,
        || {
            static LOGGER: CollectingLogger = CollectingLogger(Mutex::new(Vec::new()));
            log::set_logger(&LOGGER).unwrap();
            log::set_max_level(log::LevelFilter::Warn);
            let server = TestServer::start().unwrap();
            let client = client(&server.url());
            let subscription = client
                .subscription(&Query::new("Game"))
                .on_create(|_| thread::sleep(ms(1100)))
                .start()
                .unwrap();
            subscription.wait_open(LONG).unwrap();
            server.create("Game", json!({"n": 1}));
            wait_until("there is a warning", || !LOGGER.0.lock().is_empty());
            let lines = LOGGER.0.lock();
            assert!(
                lines[0].starts_with("WARN the listeners for `create` of subscription 1 to Game took "),
                "{lines:?}"
            );
        },
    );
}
