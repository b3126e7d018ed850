//! What is new with delivery as it is designed: the end of a set that is waited for, dispatch that waits for something
//! to do, and errors that are counted.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded, unbounded};
use parking_lot::Mutex;
use parse_livequery::{
    Client, ClientEvent, Dispatch, Error, ErrorKind, Event, EventKind, LiveSet, LiveSetBuilder, Object, Query,
};
use serde_json::json;

use super::gate;
use crate::harness::*;
use crate::support::*;

/// A set that has no objects, on a client of its own. It fetches once for each permit.
struct Set {
    server: Server,
    set: LiveSet,
    permit: Sender<()>,
}

fn set_with(prepare: impl FnOnce(LiveSetBuilder) -> LiveSetBuilder) -> Set {
    let server = Server::auto();
    let (permit, permits) = unbounded::<()>();
    let fetch = move |_: &Query| {
        permits.recv().map_err(|_| "the test is over".to_owned())?;
        Ok::<Vec<Object>, String>(vec![])
    };
    let set = prepare(client(&server.url()).live_set(&Query::new("Game")))
        .fetch_with(fetch)
        .start()
        .unwrap();
    Set { server, set, permit }
}

fn listen(set: &LiveSet, kind: &str, mut listener: impl FnMut() + Send + 'static) {
    match kind {
        "change" => set.on_change(move |_, _| listener()),
        "ready" => set.on_ready(move |_| listener()),
        "stale" => set.on_stale(move |_| listener()),
        _ => set.on_error(move |_| listener()),
    };
}

/// Makes an event happen to a set that has not fetched.
fn provoke(of: &Set, kind: &str) {
    let (conn, id) = of.server.wait_subscribed("Game");
    of.permit.send(()).unwrap();
    if kind == "ready" {
        return;
    }
    of.set.wait_ready(LONG).unwrap();
    match kind {
        "change" => conn.event("create", id, object("Game", "a", json!({})), None),
        "stale" => conn.cut(),
        _ => conn.error(141, "a hook threw", false, Some(id)),
    }
}

const KINDS: [&str; 4] = ["ready", "change", "error", "stale"];

#[test]
fn close_and_wait_returns_when_the_last_stale_was_told() {
    let server = Server::auto();
    let client = client(&server.url());
    for _ in 0..200 {
        let told = Arc::new(AtomicUsize::new(0));
        let stale = Arc::clone(&told);
        let set = client
            .live_set(&Query::new("Game"))
            .fetch_with(|_| Ok::<Vec<Object>, String>(vec![]))
            .on_stale(move |_| {
                thread::yield_now();
                stale.fetch_add(1, Ordering::SeqCst);
            })
            .start()
            .unwrap();
        set.wait_ready(LONG).unwrap();
        set.close_and_wait(LONG).unwrap();
        assert_eq!(told.load(Ordering::SeqCst), 1);
        assert!(!set.is_ready());
        // It has ended already.
        set.close_and_wait(LONG).unwrap();
    }
}

#[test]
fn close_and_wait_waits_for_the_listener_that_runs() {
    for kind in KINDS {
        let of = set_with(|builder| builder);
        let (gate, hold) = gate();
        listen(&of.set, kind, move || hold.stay());
        provoke(&of, kind);
        gate.wait_entered();
        let timed_out = of.set.close_and_wait(ms(20));
        assert_eq!(
            timed_out.map_err(|error| error.kind()),
            Err(ErrorKind::Timeout),
            "{kind}"
        );
        // It has ended in any case.
        assert_eq!(
            of.set.set_session_token(None).unwrap_err().kind(),
            ErrorKind::Closed
        );
        gate.release();
        of.set.close_and_wait(LONG).unwrap();
    }
}

#[test]
fn close_and_wait_returns_when_no_listener_runs_or_will_start() {
    for _ in 0..20 {
        let (inside, calls) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let of = set_with(|mut builder| {
            for _ in 0..2 {
                let (inside, calls) = (Arc::clone(&inside), Arc::clone(&calls));
                builder = builder.on_change(move |_, _| {
                    inside.fetch_add(1, Ordering::SeqCst);
                    calls.fetch_add(1, Ordering::SeqCst);
                    thread::yield_now();
                    inside.fetch_sub(1, Ordering::SeqCst);
                });
            }
            builder
        });
        of.permit.send(()).unwrap();
        of.set.wait_ready(LONG).unwrap();
        let (conn, id) = of.server.wait_subscribed("Game");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let flood = thread::spawn(move || {
            for n in 0.. {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                conn.event(
                    "create",
                    id,
                    object("Game", &format!("o{}", n % 50), json!({ "n": n })),
                    None,
                );
            }
        });
        wait_until("changes are told", || calls.load(Ordering::SeqCst) > 10);
        of.set.close_and_wait(LONG).unwrap();
        let (still_inside, at_return) = (inside.load(Ordering::SeqCst), calls.load(Ordering::SeqCst));
        stop.store(true, Ordering::SeqCst);
        flood.join().unwrap();
        fence(of.set.subscription().client());
        assert_eq!(still_inside, 0, "a listener was running");
        assert_eq!(calls.load(Ordering::SeqCst), at_return, "a listener started");
    }
}

#[test]
fn close_and_wait_is_refused_in_every_listener_of_the_set_and_ends_it() {
    for kind in KINDS {
        let of = set_with(|builder| builder);
        let (done, results) = bounded(8);
        // A weak handle, as it were: the set must not own itself.
        let handle = Arc::new(Mutex::new(Some(of.set.clone())));
        let own = Arc::clone(&handle);
        listen(&of.set, kind, move || {
            let set = own.lock().take();
            if let Some(set) = set {
                let result = set.close_and_wait(LONG);
                let _ = done.try_send(result.map_err(|error| error.kind()));
            }
        });
        provoke(&of, kind);
        assert_eq!(
            results.recv_timeout(LONG).unwrap(),
            Err(ErrorKind::CalledFromListener),
            "{kind}"
        );
        assert_eq!(
            of.set.set_session_token(None).unwrap_err().kind(),
            ErrorKind::Closed
        );
    }
}

/// A client that needs no wake function.
fn manual(url: &str) -> Client {
    builder(url).dispatch(Dispatch::manual(|| {})).build().unwrap()
}

#[test]
fn dispatch_pending_timeout_waits_for_something_and_delivers_it() {
    let server = Server::auto();
    let client = manual(&server.url());
    let calls = Arc::new(AtomicUsize::new(0));
    let called = Arc::clone(&calls);
    let subscription = client
        .subscription(&Query::new("Game"))
        .on_create(move |_| drop_value(called.fetch_add(1, Ordering::SeqCst)))
        .start()
        .unwrap();
    let (opened, is_open) = bounded(1);
    subscription.once("open", move |_| opened.send(()).unwrap());
    while is_open.is_empty() {
        assert!(
            client.dispatch_pending_timeout(LONG) > 0,
            "nothing came within {LONG:?}"
        );
    }
    for n in 1..=100 {
        server.emit("create", &object("Game", "a", json!({ "n": n })));
        while calls.load(Ordering::SeqCst) < n {
            assert!(
                client.dispatch_pending_timeout(LONG) > 0,
                "nothing came within {LONG:?}"
            );
        }
    }
}

#[test]
fn dispatch_pending_timeout_returns_0_after_its_time_and_not_before() {
    let server = Server::auto();
    let client = manual(&server.url());
    for timeout in [Duration::ZERO, ms(1), ms(50)] {
        let start = Instant::now();
        assert_eq!(client.dispatch_pending_timeout(timeout), 0);
        let took = start.elapsed();
        assert!(took >= timeout && took < timeout + SLACK, "{timeout:?}: {took:?}");
    }
}

#[test]
fn dispatch_pending_timeout_is_woken_by_what_another_thread_makes_come() {
    let server = Server::auto();
    let client = manual(&server.url());
    let subscribes = client.clone();
    // However long it may wait.
    for timeout in [LONG, Duration::MAX] {
        let (called, opened) = unbounded();
        let subscribes = subscribes.clone();
        let (go, started) = bounded(0);
        let thread = thread::spawn(move || {
            started.recv().unwrap();
            let subscription = subscribes.subscription(&Query::new("Game"));
            subscription
                .on_open(move |_| called.send(()).unwrap())
                .start()
                .unwrap()
        });
        go.send(()).unwrap();
        let dispatches = client.clone();
        watchdog(MINUTE, move || {
            while opened.is_empty() {
                assert!(dispatches.dispatch_pending_timeout(timeout) > 0);
            }
        });
        drop(thread.join().unwrap());
    }
    // `close` makes something come as well.
    let closes = client.clone();
    let (called, closed) = unbounded();
    client.on("close", move |_| called.send(()).unwrap());
    let thread = thread::spawn(move || closes.close());
    while closed.is_empty() {
        assert!(client.dispatch_pending_timeout(LONG) > 0);
    }
    thread.join().unwrap();
}

#[test]
fn dispatch_pending_timeout_returns_0_at_once_in_a_listener_of_the_client() {
    let server = Server::auto();
    let (outer, inner) = (manual(&server.url()), manual(&server.url()));
    let (told, results) = unbounded();
    let (own, results_of_inner) = (outer.clone(), told.clone());
    inner.on("open", move |_| {
        // Two clients on the stack.
        let start = Instant::now();
        let given = own.dispatch_pending_timeout(MINUTE);
        results_of_inner.send((given, start.elapsed())).unwrap();
    });
    let (own, other) = (outer.clone(), inner.clone());
    outer.on("open", move |_| {
        other.open();
        while other.dispatch_pending_timeout(LONG) == 0 {}
        let start = Instant::now();
        let given = own.dispatch_pending_timeout(MINUTE);
        told.send((given, start.elapsed())).unwrap();
    });
    outer.open();
    let dispatches = outer.clone();
    watchdog(
        MINUTE,
        move || while dispatches.dispatch_pending_timeout(LONG) == 0 {},
    );
    for _ in 0..2 {
        let (given, took) = results.recv_timeout(LONG).unwrap();
        assert_eq!(given, 0);
        assert!(took < SLACK, "{took:?}");
    }
    // The listeners own handles.
    for client in [outer, inner] {
        client.remove_all_listeners("open");
    }
}

#[test]
fn two_threads_in_dispatch_pending_timeout_give_out_everything() {
    const EVENTS: usize = 2000;
    let server = Server::auto();
    let client = manual(&server.url());
    let calls = Arc::new(AtomicUsize::new(0));
    let called = Arc::clone(&calls);
    let subscription = client
        .subscription(&Query::new("Game"))
        .on_create(move |_| drop_value(called.fetch_add(1, Ordering::SeqCst)))
        .start()
        .unwrap();
    let threads = [(); 2].map(|()| {
        let (client, calls) = (client.clone(), Arc::clone(&calls));
        thread::spawn(move || {
            let deadline = Instant::now() + LONG;
            while calls.load(Ordering::SeqCst) < EVENTS && Instant::now() < deadline {
                client.dispatch_pending_timeout(ms(50));
            }
        })
    });
    let (conn, id) = server.wait_subscribed("Game");
    for n in 0..EVENTS {
        conn.event("create", id, object("Game", "a", json!({ "n": n })), None);
    }
    for thread in threads {
        thread.join().unwrap();
    }
    assert_eq!(calls.load(Ordering::SeqCst), EVENTS);
    drop(subscription);
}

fn drop_value<T>(_: T) {}

/// How many errors a listener has heard of, and in how many calls.
#[derive(Default)]
struct Errors {
    calls: AtomicU64,
    occurrences: AtomicU64,
    dropped: AtomicU64,
}

impl Errors {
    fn hear(&self, error: &Error) {
        match error.dropped() {
            Some(dropped) => drop_value(self.dropped.fetch_add(dropped, Ordering::SeqCst)),
            None => {
                self.calls.fetch_add(1, Ordering::SeqCst);
                self.occurrences.fetch_add(error.occurrences(), Ordering::SeqCst);
            }
        }
    }

    fn known(&self) -> u64 {
        self.occurrences.load(Ordering::SeqCst) + self.dropped.load(Ordering::SeqCst)
    }
}

/// Sends errors to a subscription whose listeners wait for another one, and gives what it and the client hear.
fn errors(count: usize, text: impl Fn(usize) -> String) -> [Arc<Errors>; 2] {
    let server = Server::auto();
    let client = client(&server.url());
    let (of_subscription, of_client) = (Arc::<Errors>::default(), Arc::<Errors>::default());
    let hears = Arc::clone(&of_client);
    client.on("error", move |event: &ClientEvent| {
        hears.hear(event.error().unwrap())
    });
    let hears = Arc::clone(&of_subscription);
    let subscription = client
        .subscription(&Query::new("Game"))
        .on_any(move |event: &Event| {
            if event.kind() == EventKind::Error {
                hears.hear(event.error().unwrap());
            }
        })
        .start()
        .unwrap();
    subscription.wait_open(LONG).unwrap();
    let (gate, hold) = gate();
    let blocks = client
        .subscription(&Query::new("Blocks"))
        .on_create(move |_| hold.stay())
        .start()
        .unwrap();
    blocks.wait_open(LONG).unwrap();
    server.emit("create", &object("Blocks", "a", json!({})));
    gate.wait_entered();
    let conn = server.conn(1);
    let before = client.stats().messages_in;
    for n in 0..count {
        conn.error(141, &text(n), false, Some(subscription.id()));
    }
    wait_until("all have come", || {
        client.stats().messages_in >= before + count as u64
    });
    gate.release();
    let all = [of_subscription, of_client];
    wait_until("both know of all", || {
        all.iter().all(|errors| errors.known() >= count as u64)
    });
    fence(&client);
    all
}

#[test]
fn equal_errors_in_a_row_are_one_with_a_count() {
    for errors in errors(5000, |_| "a hook threw".to_owned()) {
        assert_eq!(errors.known(), 5000);
        assert_eq!(errors.dropped.load(Ordering::SeqCst), 0, "none is lost");
        let calls = errors.calls.load(Ordering::SeqCst);
        assert!(calls < 100, "{calls} calls");
    }
}

#[test]
fn errors_that_differ_are_told_one_by_one_as_long_as_there_is_room() {
    for errors in errors(100, |n| format!("a hook threw number {n}")) {
        assert_eq!(errors.known(), 100);
        assert_eq!(errors.calls.load(Ordering::SeqCst), 100);
    }
}

/// Whether they are counted or reported as lost: none is forgotten.
#[test]
fn a_flood_of_errors_that_differ_is_counted_to_the_last() {
    const MANY: usize = 100_000;
    for errors in errors(MANY, |n| format!("a hook threw number {n}")) {
        assert_eq!(errors.known(), MANY as u64);
    }
}

#[test]
fn an_error_that_comes_alone_has_occurred_once() {
    let server = Server::auto();
    let client = client(&server.url());
    let client_events = record_client(&client);
    let (subscription, events) = subscribe(&client, "Game");
    for _ in 0..3 {
        server
            .conn(1)
            .error(141, "a hook threw", false, Some(subscription.id()));
        let error = events.expect("error").value;
        assert_eq!(error.error().unwrap().occurrences(), 1);
        let error = client_events.wait_for("error").value;
        assert_eq!(error.error().unwrap().occurrences(), 1);
    }
}
