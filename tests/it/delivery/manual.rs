//! A program that dispatches by itself, once for each call of its wake function, gets everything: whatever it does in
//! its listeners, on however many threads, and with however many clients.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use parking_lot::Mutex;
use parse_livequery::{Client, Dispatch, ErrorKind, Object, Query, Subscription};
use serde_json::json;

use super::gate;
use crate::harness::*;
use crate::support::*;

/// How long a program waits for a wake-up that must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// A client that is dispatched by the test.
struct Manual {
    client: Client,
    woken: Receiver<()>,
    wakes: Arc<AtomicUsize>,
}

fn manual(url: &str) -> Manual {
    let (wake, woken) = unbounded();
    let wakes = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&wakes);
    let client = builder(url)
        .dispatch(Dispatch::manual(move || {
            counter.fetch_add(1, Ordering::SeqCst);
            let _ = wake.send(());
        }))
        .build()
        .unwrap();
    Manual { client, woken, wakes }
}

impl Manual {
    /// Dispatches once for each wake-up, until there is enough. Fails if no wake-up comes before that.
    #[track_caller]
    fn pump(&self, what: &str, enough: impl Fn() -> bool) {
        while !enough() {
            let woken = self.woken.recv_timeout(PATIENCE);
            // Without a wake-up it may have become true meanwhile.
            assert!(woken.is_ok() || enough(), "no wake-up, and not yet: {what}");
            self.client.dispatch_pending();
        }
    }

    /// Subscribes, and dispatches until it is open.
    fn subscribe(&self, listener: impl FnMut(&Object) + Send + 'static) -> Subscription {
        let subscription = self.client.subscription(&Query::new("Game"));
        let subscription = subscription.on_create(listener).start().unwrap();
        let (opened, is_open) = bounded(1);
        subscription.once("open", move |_| opened.send(()).unwrap());
        subscription.wait_open(LONG).unwrap();
        self.pump("open", || !is_open.is_empty());
        subscription
    }
}

fn send(server: &Server, subscription: &Subscription, numbers: std::ops::Range<usize>) {
    let conn = server.conn(1);
    let messages: Vec<_> = numbers
        .map(|n| {
            conn.event_message(
                "create",
                subscription.id(),
                object("Game", "a", json!({ "n": n })),
                None,
            )
        })
        .collect();
    conn.send_together(&messages);
}

fn number(object: &Object) -> i64 {
    object.get_i64("n").unwrap()
}

/// A modal dialog: its event loop serves the wake-ups as the program's own does, in vain.
#[test]
fn what_comes_in_a_nested_event_loop_is_dispatched_after_it() {
    const EVENTS: usize = 50;
    let server = Server::auto();
    let manual = Arc::new(manual(&server.url()));
    let calls = Arc::new(Mutex::new(vec![]));
    let handle = Arc::new(Mutex::new(None::<Subscription>));
    let (program, called, own) = (Arc::downgrade(&manual), Arc::clone(&calls), Arc::clone(&handle));
    let (entered, in_listener) = bounded(1);
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let subscription = manual.subscribe(move |game| {
        called.lock().push(number(game));
        if number(game) > 0 {
            return;
        }
        entered.send(()).unwrap();
        let (program, own) = (program.upgrade().unwrap(), own.lock().clone().unwrap());
        let deadline = Instant::now() + LONG;
        let mut quiet = 0;
        // Until everything has come, and for a while after that; a wake-up for each refusal must not keep it here.
        while own.stats().events.create < EVENTS as u64 || quiet < 5 && counter.load(Ordering::SeqCst) < 500 {
            assert!(Instant::now() < deadline, "the events do not come");
            match program.woken.recv_timeout(ms(10)) {
                Ok(()) => {
                    counter.fetch_add(1, Ordering::SeqCst);
                    assert_eq!(program.client.dispatch_pending(), 0, "not in a listener");
                    assert_eq!(program.client.dispatch_pending_for(LONG), 0, "not in a listener");
                }
                Err(_) => quiet += 1,
            }
        }
    });
    *handle.lock() = Some(subscription.clone());
    let wakes = manual.wakes.load(Ordering::SeqCst);
    send(&server, &subscription, 0..1);
    let (conn, rest) = (server.conn(1), subscription.clone());
    let sender = thread::spawn(move || {
        in_listener.recv_timeout(LONG).unwrap();
        let messages: Vec<_> = (1..EVENTS)
            .map(|n| conn.event_message("create", rest.id(), object("Game", "a", json!({ "n": n })), None))
            .collect();
        for message in &messages {
            conn.send(message);
        }
    });
    manual.pump("all were given out", || calls.lock().len() >= EVENTS);
    sender.join().unwrap();
    let expected: Vec<_> = (0..EVENTS as i64).collect();
    assert_eq!(*calls.lock(), expected);
    // No storm: not more than some for each event, and for each call that was refused.
    let wakes = manual.wakes.load(Ordering::SeqCst) - wakes;
    let bound = 10 + 3 * EVENTS + 4 * asked.load(Ordering::SeqCst);
    assert!(wakes <= bound, "{wakes} wake-ups, {bound} at most");
    *handle.lock() = None;
}

/// A loop that serves the wake-ups of a refused call at once must not be kept busy by that.
#[test]
fn a_refused_call_is_not_woken_again_and_again() {
    let server = Server::auto();
    let manual = manual(&server.url());
    let (woken, client) = (manual.woken.clone(), manual.client.clone());
    let calls = Arc::new(AtomicUsize::new(0));
    let (called, wakes) = (Arc::clone(&calls), Arc::clone(&manual.wakes));
    let (done, result) = bounded(1);
    let handle = Arc::new(Mutex::new(None::<Subscription>));
    let own = Arc::clone(&handle);
    let subscription = manual.subscribe(move |_| {
        if called.fetch_add(1, Ordering::SeqCst) > 0 {
            return;
        }
        let own = own.lock().take().unwrap();
        wait_until("the second has come", || own.stats().events.create == 2);
        let before = wakes.load(Ordering::SeqCst);
        let mut asked = 0;
        for _ in 0..200 {
            if woken.recv_timeout(ms(2)).is_ok() {
                client.dispatch_pending();
                asked += 1;
            }
        }
        done.send((asked, wakes.load(Ordering::SeqCst) - before)).unwrap();
    });
    *handle.lock() = Some(subscription.clone());
    send(&server, &subscription, 0..2);
    manual.pump("both were given out", || calls.load(Ordering::SeqCst) == 2);
    let (asked, wakes) = result.recv_timeout(LONG).unwrap();
    assert!(
        wakes <= 10 + 2 * asked,
        "{wakes} wake-ups for {asked} calls that were refused"
    );
}

#[test]
fn two_threads_that_dispatch_once_for_each_wake_up_give_out_everything() {
    const EVENTS: usize = 2000;
    let server = Server::auto();
    let manual = manual(&server.url());
    let calls = Arc::new(Mutex::new(vec![]));
    let called = Arc::clone(&calls);
    let subscription = manual.subscribe(move |game| {
        // Long enough for the other thread to come meanwhile.
        let until = Instant::now() + Duration::from_micros(20);
        while Instant::now() < until {
            thread::yield_now();
        }
        called.lock().push(number(game));
    });
    let (stop, stopped) = bounded::<()>(0);
    let threads = [(); 2].map(|()| {
        let (client, woken, stopped) = (manual.client.clone(), manual.woken.clone(), stopped.clone());
        thread::spawn(move || {
            loop {
                crossbeam_channel::select! {
                    recv(woken) -> _ => {
                        client.dispatch_pending();
                    }
                    recv(stopped) -> _ => return,
                }
            }
        })
    });
    for n in 0..EVENTS {
        send(&server, &subscription, n..n + 1);
        if n % 50 == 0 {
            thread::yield_now();
        }
    }
    let deadline = Instant::now() + PATIENCE;
    while calls.lock().len() < EVENTS && Instant::now() < deadline {
        thread::park_timeout(ms(5));
    }
    drop(stop);
    for thread in threads {
        thread.join().unwrap();
    }
    let expected: Vec<_> = (0..EVENTS as i64).collect();
    let calls = calls.lock();
    assert!(*calls == expected, "{} of {EVENTS} were given out", calls.len());
    let wakes = manual.wakes.load(Ordering::SeqCst);
    assert!(wakes < 10 * EVENTS, "{wakes} wake-ups");
}

/// The one wake-up for an event is used up by a call that may not give it out.
#[test]
fn a_call_that_is_refused_loses_no_wake_up() {
    let server = Server::auto();
    for refused_in_listener in [false, true] {
        for limit in [None, Some(LONG), Some(Duration::ZERO)] {
            let manual = manual(&server.url());
            let calls = Arc::new(AtomicUsize::new(0));
            let (gate, hold) = gate();
            let (called, client) = (Arc::clone(&calls), manual.client.clone());
            let (ask, asked) = bounded::<Sender<usize>>(1);
            let dispatch = move |client: &Client| match limit {
                None => client.dispatch_pending(),
                Some(limit) => client.dispatch_pending_for(limit),
            };
            let subscription = manual.subscribe(move |_| {
                if called.fetch_add(1, Ordering::SeqCst) > 0 {
                    return;
                }
                hold.stay();
                if let Ok(answer) = asked.try_recv() {
                    answer.send(dispatch(&client)).unwrap();
                }
            });
            let conn = server.wait_subscribed("Game").0;
            let create = |n: usize| {
                let game = object("Game", "a", json!({ "n": n }));
                conn.event("create", subscription.id(), game, None);
            };
            let (woken, client) = (manual.woken.clone(), manual.client.clone());
            create(0);
            woken.recv_timeout(LONG).expect("a wake-up for the first");
            let dispatching = thread::spawn(move || client.dispatch_pending());
            gate.wait_entered();
            while woken.try_recv().is_ok() {}
            create(1);
            wait_until("the second has come", || subscription.stats().events.create == 2);
            // All wake-ups up to now are served by calls that are refused.
            let refused = if refused_in_listener {
                let (answer, answered) = bounded(1);
                while woken.recv_timeout(ms(20)).is_ok() {}
                ask.send(answer).unwrap();
                answered
            } else {
                let (answer, answered) = bounded(1);
                let (client, woken) = (manual.client.clone(), woken.clone());
                let thread = thread::spawn(move || {
                    while woken.recv_timeout(ms(20)).is_ok() {
                        client.dispatch_pending();
                    }
                    answer.send(dispatch(&client)).unwrap();
                });
                // It may be woken for each refusal, so it is not waited for to have come to rest.
                let deadline = Instant::now() + ms(200);
                while !thread.is_finished() && Instant::now() < deadline {
                    thread::park_timeout(ms(2));
                }
                answered
            };
            gate.release();
            dispatching.join().unwrap();
            let _ = refused.recv_timeout(LONG);
            manual.pump("the second was given out", || calls.load(Ordering::SeqCst) == 2);
            subscription.unsubscribe();
            manual.client.close_in_background();
            wait_until("the server has heard of it", || server.open_conns().is_empty());
        }
    }
}

/// `close` waits for its listeners, which nobody calls here.
trait CloseInBackground {
    fn close_in_background(&self);
}

impl CloseInBackground for Client {
    fn close_in_background(&self) {
        let client = self.clone();
        let thread = thread::spawn(move || client.close());
        while !thread.is_finished() {
            self.dispatch_pending();
            thread::park_timeout(ms(1));
        }
        thread.join().unwrap();
    }
}

#[test]
fn what_is_left_over_after_the_time_wakes_again_also_after_a_refused_call() {
    const EVENTS: usize = 20;
    let server = Server::auto();
    let manual = manual(&server.url());
    let calls = Arc::new(AtomicUsize::new(0));
    let (called, client, woken) = (Arc::clone(&calls), manual.client.clone(), manual.woken.clone());
    let subscription = manual.subscribe(move |_| {
        called.fetch_add(1, Ordering::SeqCst);
        // A small event loop in each.
        while woken.try_recv().is_ok() {
            assert_eq!(client.dispatch_pending_for(Duration::ZERO), 0);
            thread::park_timeout(Duration::from_micros(100));
            if called.load(Ordering::SeqCst) % 2 == 0 {
                break;
            }
        }
    });
    send(&server, &subscription, 0..EVENTS);
    wait_until("all have come", || {
        subscription.stats().events.create == EVENTS as u64
    });
    let mut rounds = 0;
    while calls.load(Ordering::SeqCst) < EVENTS {
        manual.woken.recv_timeout(PATIENCE).unwrap_or_else(|_| {
            panic!("no wake-up after {} of {EVENTS}", calls.load(Ordering::SeqCst));
        });
        manual.client.dispatch_pending_for(Duration::ZERO);
        rounds += 1;
        assert!(rounds < 100 * EVENTS, "woken for nothing");
    }
}

/// Nothing waits, so nothing wakes.
#[test]
fn a_call_that_finds_nothing_wakes_nobody() {
    let server = Server::auto();
    let manual = manual(&server.url());
    let calls = Arc::new(AtomicUsize::new(0));
    let called = Arc::clone(&calls);
    let subscription = manual.subscribe(move |_| {
        called.fetch_add(1, Ordering::SeqCst);
    });
    send(&server, &subscription, 0..10);
    manual.pump("all were given out", || calls.load(Ordering::SeqCst) == 10);
    while manual.client.dispatch_pending() > 0 {}
    while manual.woken.try_recv().is_ok() {}
    let before = manual.wakes.load(Ordering::SeqCst);
    for _ in 0..1000 {
        assert_eq!(manual.client.dispatch_pending(), 0);
        assert_eq!(manual.client.dispatch_pending_for(LONG), 0);
    }
    assert_eq!(manual.wakes.load(Ordering::SeqCst), before);
}

/// A panic ends a listener, and not what comes after it.
#[test]
fn a_listener_that_panics_leaves_the_rest_to_be_dispatched() {
    const EVENTS: usize = 20;
    let server = Server::auto();
    let manual = manual(&server.url());
    let calls = Arc::new(AtomicUsize::new(0));
    let called = Arc::clone(&calls);
    let subscription = manual.subscribe(move |_| {
        called.fetch_add(1, Ordering::SeqCst);
        panic!("as ever");
    });
    send(&server, &subscription, 0..EVENTS);
    manual.pump("all were given out", || calls.load(Ordering::SeqCst) == EVENTS);
}

/// What a call of a client says that is made in a listener of this client, at any depth.
fn outcomes(client: &Client, subscription: &Subscription) -> Vec<(&'static str, Option<ErrorKind>)> {
    let kind = |result: parse_livequery::Result<()>| result.err().map(|error| error.kind());
    let set = client
        .live_set(&Query::new("Set"))
        .fetch_with(|_| Ok::<_, String>(vec![]))
        .start()
        .unwrap();
    let mut outcomes = vec![
        ("Client::wait_open", kind(client.wait_open(MINUTE))),
        ("Subscription::wait_open", kind(subscription.wait_open(MINUTE))),
        (
            "Subscription::unsubscribe_and_wait",
            kind(subscription.unsubscribe_and_wait(ms(10))),
        ),
        ("LiveSet::wait_ready", kind(set.wait_ready(ms(10)))),
    ];
    assert_eq!(client.dispatch_pending(), 0);
    if outcomes
        .iter()
        .all(|(_, kind)| *kind == Some(ErrorKind::CalledFromListener))
    {
        // Those that are not refused would wait for ever.
        let started = Instant::now();
        client.close();
        assert!(
            started.elapsed() < SLACK,
            "`close` has waited: {:?}",
            started.elapsed()
        );
        outcomes.push(("Client::wait_closed", kind(client.wait_closed())));
    }
    outcomes
}

/// "In a listener" holds for every client whose listener is on the stack.
#[test]
fn several_clients_on_one_thread_know_of_all_listeners_that_run_on_it() {
    let server = Server::auto();
    let (outer, inner) = (manual(&server.url()), manual(&server.url()));
    let (inside, from_inside) = unbounded();
    let (after, from_outside) = unbounded();
    let slot = Arc::new(Mutex::new(None::<Subscription>));

    let (client, own) = (outer.client.clone(), Arc::clone(&slot));
    let inner_calls = Arc::new(AtomicUsize::new(0));
    let called = Arc::clone(&inner_calls);
    let of_inner = inner.subscribe(move |_| {
        let subscription = own.lock().clone().unwrap();
        inside.send(outcomes(&client, &subscription)).unwrap();
        called.fetch_add(1, Ordering::SeqCst);
    });

    let (client, other, own) = (outer.client.clone(), inner.client.clone(), Arc::clone(&slot));
    let calls = Arc::clone(&inner_calls);
    let of_outer = outer.subscribe(move |_| {
        wait_until("the listener of the other client was called", || {
            other.dispatch_pending();
            calls.load(Ordering::SeqCst) == 1
        });
        let subscription = own.lock().clone().unwrap();
        let refused = client.wait_open(MINUTE).map_err(|error| error.kind());
        // No listener of the other client is running any more.
        let other = other.wait_open(MINUTE).map_err(|error| error.kind());
        after
            .send((refused, other, outcomes(&client, &subscription)))
            .unwrap();
    });
    *slot.lock() = Some(of_outer.clone());

    let (inner_conn, outer_conn) = (server.conn(2), server.conn(1));
    inner_conn.event("create", of_inner.id(), object("Game", "a", json!({})), None);
    outer_conn.event("create", of_outer.id(), object("Game", "a", json!({})), None);
    watchdog(MINUTE, move || {
        outer.pump("the listener was called", || !from_outside.is_empty());
        for outcomes in [from_inside.recv().unwrap(), {
            let (refused, other, outcomes) = from_outside.recv().unwrap();
            assert_eq!(refused, Err(ErrorKind::CalledFromListener), "after the inner one");
            assert_eq!(other, Ok(()));
            outcomes
        }] {
            for (name, outcome) in outcomes {
                assert_eq!(outcome, Some(ErrorKind::CalledFromListener), "{name}");
            }
        }
        outer.client.close_in_background();
    });
    *slot.lock() = None;
}
