//! Whoever has ended something has ended it: no listener that a call rules out starts once the call has returned, even
//! while another listener of the same event is running.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use crossbeam_channel::{Receiver, bounded, unbounded};
use parking_lot::Mutex;
use parse_livequery::{
    Change, Client, ErrorKind, EventKind, ListenerId, LiveSet, LiveSetBuilder, Object, Query, Subscription,
};
use serde_json::json;

use super::{Store, gate, unanswered};
use crate::harness::*;
use crate::support::*;

const OBJECTS: [&str; 5] = ["create", "update", "enter", "leave", "delete"];
/// All that a subscription that has ended must not be told any more.
const BUT_CLOSE: [&str; 7] = ["open", "create", "update", "enter", "leave", "delete", "error"];
const ALL: [&str; 8] = [
    "open", "create", "update", "enter", "leave", "delete", "error", "close",
];

fn ignore<T>(_: T) {}

/// How the second listener was registered.
#[derive(Clone, Copy, Debug)]
enum Style {
    On,
    Once,
    Any,
    Typed,
}

const STYLES: [Style; 4] = [Style::On, Style::Once, Style::Any, Style::Typed];

impl Style {
    /// Registers a listener that counts its calls.
    fn register(self, on: &Subscription, kind: &'static str, calls: &Arc<AtomicUsize>) -> ListenerId {
        let calls = Arc::clone(calls);
        let count = move || ignore(calls.fetch_add(1, Ordering::SeqCst));
        match (self, kind) {
            (Self::On, _) => on.on(kind, move |_| count()),
            (Self::Once, _) => on.once(kind, move |_| count()),
            (Self::Any, _) => on.on_any(move |event| {
                if event.kind().as_str() == kind {
                    count();
                }
            }),
            (Self::Typed, "open") => on.on_open(move |_| count()),
            (Self::Typed, "create") => on.on_create(move |_| count()),
            (Self::Typed, "update") => on.on_update(move |_, _| count()),
            (Self::Typed, "enter") => on.on_enter(move |_| count()),
            (Self::Typed, "leave") => on.on_leave(move |_| count()),
            (Self::Typed, "delete") => on.on_delete(move |_| count()),
            (Self::Typed, "close") => on.on_close(move |_| count()),
            (Self::Typed, _) => on.on_error(move |_| count()),
        }
    }
}

/// Who makes the call that ends something.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Caller {
    /// Another thread, while the first listener is running.
    OtherThread,
    /// The first listener itself.
    Listener,
}

/// What the call that ends something is made on.
struct Called {
    client: Client,
    subscription: Subscription,
    /// The second listener.
    second: ListenerId,
    kind: &'static str,
}

/// Makes an event happen to a subscription that is [`unanswered`].
fn provoke(server: &Server, subscription: &Subscription, kind: &str) {
    let (conn, id) = (server.conn(1), subscription.id());
    conn.subscribed(id);
    if kind == "open" {
        return;
    }
    wait_until("it is open", || subscription.stats().acknowledged == 1);
    match kind {
        "close" => conn.cut(),
        "error" => conn.error(141, "a hook threw", false, Some(id)),
        _ => conn.event(
            kind,
            id,
            object("Game", "a", json!({})),
            Some(object("Game", "a", json!({}))),
        ),
    }
}

/// Whether the second of two listeners of an event starts after `end` has returned, which was called while the first
/// was running.
fn second_starts(
    kind: &'static str,
    style: Style,
    caller: Caller,
    end: impl FnOnce(Called) + Send + 'static,
) -> bool {
    let server = Server::auto();
    // A `close` on another thread waits no longer than this for the listener that does not return.
    let client = builder(&server.url()).close_timeout(ms(50)).build().unwrap();
    let subscription = unanswered(&server, &client);
    let (gate, hold) = gate();
    let in_listener = Arc::new(Mutex::new(None::<Box<dyn FnOnce() + Send>>));
    let slot = Arc::clone(&in_listener);
    subscription.on(kind, move |_| {
        let end = slot.lock().take();
        if let Some(end) = end {
            end();
        }
        hold.stay();
    });
    let started = Arc::default();
    let second = style.register(&subscription, kind, &started);
    let called = Called {
        client: client.clone(),
        subscription: subscription.clone(),
        second,
        kind,
    };
    match caller {
        Caller::OtherThread => {
            provoke(&server, &subscription, kind);
            gate.wait_entered();
            // The last handle but that of `called`, for the call that drops it.
            drop(subscription);
            end(called);
        }
        Caller::Listener => {
            *in_listener.lock() = Some(Box::new(move || end(called)));
            provoke(&server, &subscription, kind);
            gate.wait_entered();
        }
    }
    gate.release();
    // Once this has been delivered the event before it has been delivered, too.
    fence(&client);
    started.load(Ordering::SeqCst) > 0
}

#[track_caller]
fn assert_final(name: &str, kinds: &[&'static str], styles: &[Style], end: fn(Called)) {
    for caller in [Caller::OtherThread, Caller::Listener] {
        let mut late = vec![];
        for &kind in kinds {
            let of_kind = styles
                .iter()
                .filter(|style| second_starts(kind, **style, caller, end));
            late.extend(of_kind.map(|style| (kind, style)));
        }
        assert!(
            late.is_empty(),
            "called by {caller:?}: listeners for these started after `{name}` had returned: {late:?}"
        );
    }
}

#[test]
fn no_second_listener_starts_after_unsubscribe() {
    assert_final("Subscription::unsubscribe", &BUT_CLOSE, &STYLES, |called| {
        called.subscription.unsubscribe();
    });
}

#[test]
fn no_second_listener_starts_after_unsubscribe_of_the_client() {
    assert_final("Client::unsubscribe", &BUT_CLOSE, &[Style::On], |called| {
        called.client.unsubscribe(&called.subscription);
    });
}

#[test]
fn no_second_listener_starts_after_the_last_handle_is_dropped() {
    let drop_it = |called: Called| drop(called.subscription);
    let late: Vec<_> = BUT_CLOSE
        .into_iter()
        .filter(|kind| second_starts(kind, Style::On, Caller::OtherThread, drop_it))
        .collect();
    assert!(late.is_empty(), "{late:?}");
}

#[test]
fn no_second_listener_starts_after_close_of_the_client() {
    assert_final("Client::close", &BUT_CLOSE, &STYLES, |called| {
        called.client.close()
    });
}

#[test]
fn no_second_listener_starts_after_set_session_token_of_the_client() {
    assert_final("Client::set_session_token", &OBJECTS, &STYLES, |called| {
        called.client.set_session_token(Some("r:new"));
    });
}

#[test]
fn no_second_listener_starts_after_set_session_token_of_the_subscription() {
    assert_final("Subscription::set_session_token", &OBJECTS, &STYLES, |called| {
        called.subscription.set_session_token(Some("r:new")).unwrap();
    });
}

#[test]
fn no_second_listener_starts_after_off() {
    assert_final("Subscription::off", &ALL, &STYLES, |called| {
        assert!(called.subscription.off(called.second));
    });
}

#[test]
fn no_second_listener_starts_after_remove_all_listeners() {
    let of_one_kind = [Style::On, Style::Once, Style::Typed];
    assert_final(
        "Subscription::remove_all_listeners",
        &ALL,
        &of_one_kind,
        |called| {
            called.subscription.remove_all_listeners(called.kind);
        },
    );
}

/// What comes after the call is for both again.
#[test]
fn both_listeners_get_what_comes_under_the_new_session_token() {
    let server = Server::auto();
    let client = client(&server.url());
    let subscription = unanswered(&server, &client);
    let (gate, hold) = gate();
    let calls = Recorder::<String>::new();
    let (first, second) = (calls.clone(), calls.clone());
    subscription.on_create(move |game| {
        first.push("first", "create", game.id().unwrap().to_owned());
        hold.stay();
    });
    subscription.on_create(move |game| second.push("second", "create", game.id().unwrap().to_owned()));
    provoke(&server, &subscription, "create");
    gate.wait_entered();
    client.set_session_token(Some("r:new"));
    gate.release();
    wait_until("it is open again", || subscription.stats().acknowledged == 2);
    server.emit("create", &object("Game", "new", json!({})));
    calls.wait_where("the new one", |seen| {
        &*seen.source == "second" && seen.value == "new"
    });
    let all: Vec<_> = calls
        .all()
        .into_iter()
        .map(|seen| (seen.source.to_string(), seen.value))
        .collect();
    let expected = [("first", "a"), ("first", "new"), ("second", "new")];
    assert_eq!(all, expected.map(|(who, id)| (who.to_owned(), id.to_owned())));
}

/// An error of a subscription is told to the client's listeners as well, which may be the ones that run.
#[test]
fn the_error_that_the_clients_listener_runs_for_is_not_told_to_a_subscription_that_has_ended() {
    let server = Server::auto();
    let client = client(&server.url());
    let subscription = unanswered(&server, &client);
    let (gate, hold) = gate();
    client.on("error", move |_| hold.stay());
    let started = Arc::default();
    Style::On.register(&subscription, "error", &started);
    provoke(&server, &subscription, "error");
    // Whichever is told first.
    gate.wait_entered();
    let before = started.load(Ordering::SeqCst);
    subscription.unsubscribe();
    gate.release();
    fence(&client);
    assert_eq!(started.load(Ordering::SeqCst), before);
}

/// A listener for `open` that comes late is told all the same: unless there is nothing to be told of any more.
#[test]
fn no_late_listener_for_open_starts_after_unsubscribe() {
    let server = Server::auto();
    let client = client(&server.url());
    let (subscription, _events) = subscribe(&client, "Game");
    let (gate, hold) = gate();
    subscription.on("open", move |_| hold.stay());
    gate.wait_entered();
    let started = Arc::default();
    Style::On.register(&subscription, "open", &started);
    subscription.unsubscribe();
    gate.release();
    fence(&client);
    assert_eq!(started.load(Ordering::SeqCst), 0);
}

/// Makes an event happen to a client that has not connected.
fn provoke_client(server: &Server, client: &Client, kind: &str) {
    client.open();
    if kind == "open" {
        return;
    }
    client.wait_open(LONG).unwrap();
    match kind {
        "error" => server.conn(1).error(141, "a hook threw", false, None),
        "reconnecting" => server.conn(1).cut(),
        _ => client.close(),
    }
}

#[test]
fn no_second_listener_of_the_client_starts_after_off_and_remove_all_listeners() {
    type End = (&'static str, fn(&Client, ListenerId, &'static str));
    let ends: [End; 2] = [
        ("Client::off", |client, second, _| assert!(client.off(second))),
        ("Client::remove_all_listeners", |client, _, kind| {
            client.remove_all_listeners(kind);
        }),
    ];
    let mut late = vec![];
    for (name, end) in ends {
        for kind in ["open", "error", "reconnecting", "close"] {
            for caller in [Caller::OtherThread, Caller::Listener] {
                let server = Server::auto();
                let client = builder(&server.url()).close_timeout(ms(50)).build().unwrap();
                let (gate, hold) = gate();
                let ids = Arc::new(Mutex::new(None));
                let (inner, slot) = (client.clone(), Arc::clone(&ids));
                client.on(kind, move |_| {
                    let second = slot.lock().take();
                    if let Some(second) = second {
                        end(&inner, second, kind);
                    }
                    hold.stay();
                });
                let started = Arc::new(AtomicUsize::new(0));
                let counter = Arc::clone(&started);
                let second = client.on(kind, move |_| ignore(counter.fetch_add(1, Ordering::SeqCst)));
                if caller == Caller::Listener {
                    *ids.lock() = Some(second);
                }
                provoke_client(&server, &client, kind);
                gate.wait_entered();
                if caller == Caller::OtherThread {
                    end(&client, second, kind);
                }
                gate.release();
                fence(&client);
                if started.load(Ordering::SeqCst) > 0 {
                    late.push((name, kind, caller));
                }
                // The listener owns a handle.
                client.close();
            }
        }
    }
    assert!(late.is_empty(), "{late:?}");
}

/// A set that has no objects, and fetches as often as it is permitted.
struct Set {
    server: Server,
    client: Client,
    set: LiveSet,
    permit: crossbeam_channel::Sender<()>,
    store: Store,
}

fn set_with(prepare: impl FnOnce(LiveSetBuilder) -> LiveSetBuilder) -> Set {
    let server = Server::auto();
    let client = builder(&server.url()).close_timeout(ms(50)).build().unwrap();
    let (permit, permits) = unbounded::<()>();
    let store = Store::default();
    let set = prepare(client.live_set(&Query::new("Game")))
        .fetch_with(fetch(&store, permits))
        .start()
        .unwrap();
    Set {
        server,
        client,
        set,
        permit,
        store,
    }
}

fn fetch(store: &Store, permits: Receiver<()>) -> impl Fn(&Query) -> Result<Vec<Object>, String> + use<> {
    let store = store.clone();
    move |query| {
        permits.recv().map_err(|_| "the test is over".to_owned())?;
        store.find(query)
    }
}

/// Registers a listener for an event of a set.
fn listen(set: &LiveSet, kind: &str, mut listener: impl FnMut() + Send + 'static) -> ListenerId {
    match kind {
        "change" => set.on_change(move |_, _| listener()),
        "ready" => set.on_ready(move |_| listener()),
        "stale" => set.on_stale(move |_| listener()),
        _ => set.on_error(move |_| listener()),
    }
}

/// Makes an event happen to a set that has not fetched.
fn provoke_set(of: &Set, kind: &str) {
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

/// Whether the second of two listeners of a set starts after `end` has returned.
fn second_of_set_starts(kind: &'static str, caller: Caller, end: fn(LiveSet, ListenerId)) -> bool {
    let of = set_with(|builder| builder);
    let (gate, hold) = gate();
    let in_listener = Arc::new(Mutex::new(None::<(LiveSet, ListenerId)>));
    let slot = Arc::clone(&in_listener);
    listen(&of.set, kind, move || {
        let called = slot.lock().take();
        if let Some((set, second)) = called {
            end(set, second);
        }
        hold.stay();
    });
    let started = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&started);
    let second = listen(&of.set, kind, move || {
        counter.fetch_add(1, Ordering::SeqCst);
    });
    if caller == Caller::Listener {
        *in_listener.lock() = Some((of.set.clone(), second));
    }
    provoke_set(&of, kind);
    gate.wait_entered();
    let Set { client, set, .. } = &of;
    let (client, set) = (client.clone(), set.clone());
    let Set {
        set: last,
        server: _server,
        permit: _permit,
        ..
    } = of;
    drop(last);
    if caller == Caller::OtherThread {
        end(set, second);
    }
    gate.release();
    fence(&client);
    started.load(Ordering::SeqCst) > 0
}

#[track_caller]
fn assert_final_of_set(name: &str, kinds: &[&'static str], callers: &[Caller], end: fn(LiveSet, ListenerId)) {
    for &caller in callers {
        let late: Vec<_> = kinds
            .iter()
            .filter(|kind| second_of_set_starts(kind, caller, end))
            .collect();
        assert!(
            late.is_empty(),
            "called by {caller:?}: listeners for these started after `{name}` had returned: {late:?}"
        );
    }
}

const CALLERS: [Caller; 2] = [Caller::OtherThread, Caller::Listener];
/// All that a set that has ended must not tell any more.
const BUT_STALE: [&str; 3] = ["change", "ready", "error"];

#[test]
fn no_second_listener_of_a_set_starts_after_close() {
    assert_final_of_set("LiveSet::close", &BUT_STALE, &CALLERS, |set, _| set.close());
}

#[test]
fn no_second_listener_of_a_set_starts_after_unsubscribe() {
    assert_final_of_set(
        "LiveSet::subscription().unsubscribe",
        &BUT_STALE,
        &CALLERS,
        |set, _| {
            set.subscription().unsubscribe();
        },
    );
}

#[test]
fn no_second_listener_of_a_set_starts_after_close_of_the_client() {
    assert_final_of_set("Client::close", &BUT_STALE, &CALLERS, |set, _| {
        set.subscription().client().close();
    });
}

#[test]
fn no_second_listener_of_a_set_starts_after_the_last_handle_is_dropped() {
    assert_final_of_set("drop", &BUT_STALE, &[Caller::OtherThread], |set, _| drop(set));
}

#[test]
fn no_second_listener_of_a_set_starts_after_off() {
    let kinds = ["change", "ready", "error", "stale"];
    assert_final_of_set("LiveSet::off", &kinds, &CALLERS, |set, second| {
        assert!(set.off(second));
    });
}

#[test]
fn no_second_listener_of_a_set_starts_after_set_session_token() {
    let kinds = ["change", "ready"];
    assert_final_of_set("LiveSet::set_session_token", &kinds, &CALLERS, |set, _| {
        set.set_session_token(Some("r:new")).unwrap();
    });
    assert_final_of_set("Client::set_session_token", &kinds, &CALLERS, |set, _| {
        set.subscription().client().set_session_token(Some("r:new"));
    });
}

/// A listener that was not told of one change must not be told of the next one as if it had been.
#[test]
fn every_listener_of_a_set_can_follow_the_changes_across_set_session_token() {
    let copies: [Arc<Mutex<Vec<Object>>>; 2] = Default::default();
    let (gate, hold) = gate();
    let blocks = Arc::new(AtomicBool::new(false));
    let of = set_with(|mut builder| {
        for (at, copy) in copies.iter().enumerate() {
            let (copy, hold, blocks) = (Arc::clone(copy), hold.clone(), Arc::clone(&blocks));
            builder = builder.on_change(move |change, set| {
                let mut copy = copy.lock();
                change.apply_to(&mut copy, set);
                assert!(
                    copy.iter().eq(set.iter()),
                    "{at}: {change:?} does not lead to {set:?}"
                );
                drop(copy);
                if blocks.swap(false, Ordering::SeqCst) {
                    hold.stay();
                }
            });
        }
        builder
    });
    let panics = record_client(&of.client);
    for id in ["a", "b"] {
        of.store.put(object("Game", id, json!({})));
    }
    for _ in 0..2 {
        of.permit.send(()).unwrap();
    }
    of.set.wait_ready(LONG).unwrap();
    fence(&of.client);
    blocks.store(true, Ordering::SeqCst);
    of.store.put(object("Game", "c", json!({})));
    of.server.emit("create", &object("Game", "c", json!({})));
    gate.wait_entered();
    of.set.set_session_token(Some("r:new")).unwrap();
    gate.release();
    for _ in 0..4 {
        of.permit.send(()).unwrap();
    }
    of.store.put(object("Game", "d", json!({})));
    of.set.refresh();
    wait_until("the set has it all", || of.set.is_ready() && of.set.len() == 4);
    fence(&of.client);
    for copy in &copies {
        assert!(copy.lock().iter().eq(of.set.snapshot().iter()), "{copy:?}");
    }
    let kinds = panics.kinds();
    assert!(!kinds.iter().any(|kind| kind == "error"), "{:?}", panics.all());
}

/// Sends events until it is told to stop.
fn flood(server: &Server, class: &str, stop: &Arc<AtomicBool>) -> thread::JoinHandle<()> {
    let (conn, id) = server.wait_subscribed(class);
    let (class, stop) = (class.to_owned(), Arc::clone(stop));
    thread::spawn(move || {
        let messages: Vec<_> = (0..20)
            .map(|_| conn.event_message("create", id, object(&class, "a", json!({})), None))
            .collect();
        while !stop.load(Ordering::SeqCst) {
            conn.send_together(&messages);
        }
    })
}

#[test]
fn unsubscribe_and_wait_returns_when_the_last_close_was_told() {
    let server = Server::auto();
    let client = client(&server.url());
    let mut early = 0;
    for _ in 0..200 {
        let closes = Arc::new(AtomicUsize::new(0));
        let told = Arc::clone(&closes);
        let (opened, is_open) = bounded(1);
        let subscription = client
            .subscription(&Query::new("Game"))
            .on_open(move |_| opened.send(()).unwrap())
            .on_close(move |_| {
                thread::yield_now();
                told.fetch_add(1, Ordering::SeqCst);
            })
            .start()
            .unwrap();
        is_open.recv_timeout(LONG).unwrap();
        subscription.unsubscribe_and_wait(LONG).unwrap();
        early += usize::from(closes.load(Ordering::SeqCst) == 0);
        wait_until("the last `close`", || closes.load(Ordering::SeqCst) == 1);
    }
    assert_eq!(early, 0, "of 200 returned before the last `close` was told");
}

#[test]
fn unsubscribe_and_wait_returns_when_no_listener_runs_or_will_start() {
    let server = Server::auto();
    let client = client(&server.url());
    for _ in 0..20 {
        let inside = Arc::new(AtomicUsize::new(0));
        let calls = Arc::new(AtomicUsize::new(0));
        let mut builder = client.subscription(&Query::new("Game"));
        // Two of them.
        for _ in 0..2 {
            let (inside, calls) = (Arc::clone(&inside), Arc::clone(&calls));
            builder = builder.on_any(move |_| {
                inside.fetch_add(1, Ordering::SeqCst);
                calls.fetch_add(1, Ordering::SeqCst);
                thread::yield_now();
                inside.fetch_sub(1, Ordering::SeqCst);
            });
        }
        let subscription = builder.start().unwrap();
        let stop = Arc::default();
        let thread = flood(&server, "Game", &stop);
        wait_until("events come", || calls.load(Ordering::SeqCst) > 20);
        subscription.unsubscribe_and_wait(LONG).unwrap();
        let (still_inside, at_return) = (inside.load(Ordering::SeqCst), calls.load(Ordering::SeqCst));
        stop.store(true, Ordering::SeqCst);
        thread.join().unwrap();
        fence(&client);
        assert_eq!(still_inside, 0, "a listener was running");
        assert_eq!(calls.load(Ordering::SeqCst), at_return, "a listener started");
        wait_until("the server has heard of it", || {
            server.conn(1).subscriptions_to("Game").is_empty()
        });
    }
}

#[test]
fn unsubscribe_and_wait_waits_for_a_close_listener_that_runs() {
    let server = Server::auto();
    let client = client(&server.url());
    let (subscription, _events) = subscribe(&client, "Game");
    let (gate, hold) = gate();
    subscription.on_close(move |_| hold.stay());
    let waits = subscription.clone();
    let (done, ended) = unbounded();
    let thread = thread::spawn(move || done.send(waits.unsubscribe_and_wait(LONG)).unwrap());
    gate.wait_entered();
    assert!(
        ended.recv_timeout(ms(50)).is_err(),
        "it returned while a listener was running"
    );
    assert_eq!(
        subscription.unsubscribe_and_wait(ms(1)).unwrap_err().kind(),
        ErrorKind::Timeout
    );
    gate.release();
    ended.recv_timeout(LONG).unwrap().unwrap();
    thread.join().unwrap();
    subscription.unsubscribe_and_wait(LONG).unwrap();
}

#[test]
fn unsubscribe_and_wait_waits_for_a_close_that_waits_for_another_listener() {
    let server = Server::auto();
    let client = client(&server.url());
    let (subscription, events) = subscribe(&client, "Game");
    let (other, _events) = subscribe(&client, "Other");
    let (gate, hold) = gate();
    other.on_create(move |_| hold.stay());
    server.emit("create", &object("Other", "a", json!({})));
    gate.wait_entered();
    let timed_out = subscription.unsubscribe_and_wait(ms(20));
    gate.release();
    assert_eq!(
        timed_out.map_err(|error| error.kind()),
        Err(ErrorKind::Timeout),
        "it returned before the last `close` was told"
    );
    subscription.unsubscribe_and_wait(LONG).unwrap();
    assert_eq!(events.count("close"), 1);
}

/// There is no `close` to wait for.
#[test]
fn unsubscribe_and_wait_returns_at_once_where_nothing_is_to_be_told() {
    let server = Server::auto();
    let client = client(&server.url());
    watchdog(MINUTE, move || {
        // Never acknowledged.
        let subscription = unanswered(&server, &client);
        subscription.unsubscribe_and_wait(LONG).unwrap();
        subscription.unsubscribe_and_wait(LONG).unwrap();
        // With the link down, of which it was told.
        let (subscription, events) = subscribe(&client, "Other");
        server.refuse();
        server.conn(1).cut();
        events.wait_for("close");
        subscription.unsubscribe_and_wait(LONG).unwrap();
        assert_eq!(events.count("close"), 1);
        // Of a client that is closed.
        server.listen_again();
        let (subscription, events) = subscribe(&client, "Another");
        client.close();
        subscription.unsubscribe_and_wait(LONG).unwrap();
        assert_eq!(events.count("close"), 1);
    });
}

#[test]
fn unsubscribe_and_wait_through_a_set_waits_for_the_listener_that_runs() {
    for kind in ["ready", "change", "error", "stale"] {
        let of = set_with(|builder| builder);
        let (gate, hold) = gate();
        listen(&of.set, kind, move || hold.stay());
        provoke_set(&of, kind);
        gate.wait_entered();
        let timed_out = of.set.subscription().unsubscribe_and_wait(ms(20));
        gate.release();
        assert_eq!(
            timed_out.map_err(|error| error.kind()),
            Err(ErrorKind::Timeout),
            "{kind}: it returned while a listener was running"
        );
        of.set.subscription().unsubscribe_and_wait(LONG).unwrap();
    }
}

#[test]
fn unsubscribe_and_wait_through_a_set_returns_when_the_last_stale_was_told() {
    let server = Server::auto();
    let client = client(&server.url());
    let mut early = 0;
    for _ in 0..200 {
        let told = Arc::new(AtomicUsize::new(0));
        let stale = Arc::clone(&told);
        let (ready, is_ready) = bounded(1);
        let set = client
            .live_set(&Query::new("Game"))
            .fetch_with(|_| Ok::<_, String>(vec![]))
            .on_ready(move |_| ready.send(()).unwrap())
            .on_stale(move |_| {
                thread::yield_now();
                stale.fetch_add(1, Ordering::SeqCst);
            })
            .start()
            .unwrap();
        is_ready.recv_timeout(LONG).unwrap();
        set.subscription().unsubscribe_and_wait(LONG).unwrap();
        early += usize::from(told.load(Ordering::SeqCst) == 0);
        wait_until("the last `stale`", || told.load(Ordering::SeqCst) == 1);
    }
    assert_eq!(early, 0, "of 200 returned before the last `stale` was told");
}

#[test]
fn unsubscribe_and_wait_is_refused_in_every_listener_of_a_set() {
    for kind in ["ready", "change", "error", "stale"] {
        let of = set_with(|builder| builder);
        let (done, results) = bounded(8);
        let handle = of.set.subscription().clone();
        listen(&of.set, kind, move || {
            let result = handle.unsubscribe_and_wait(LONG);
            let _ = done.try_send(result.map_err(|error| error.kind()));
        });
        provoke_set(&of, kind);
        assert_eq!(
            results.recv_timeout(LONG).unwrap(),
            Err(ErrorKind::CalledFromListener),
            "{kind}"
        );
    }
}

/// Those of a set that was closed are gone, with what they own.
#[test]
fn what_the_listeners_of_a_set_own_is_free_after_its_end() {
    let owned = Arc::new(());
    let of = set_with(|builder| {
        let (change, ready, stale, error) = (owned.clone(), owned.clone(), owned.clone(), owned.clone());
        builder
            .on_change(move |_: &Change, _| drop(Arc::clone(&change)))
            .on_ready(move |_| drop(Arc::clone(&ready)))
            .on_stale(move |_| drop(Arc::clone(&stale)))
            .on_error(move |_| drop(Arc::clone(&error)))
    });
    of.permit.send(()).unwrap();
    of.set.wait_ready(LONG).unwrap();
    of.set.close();
    wait_until("the listeners are gone", || Arc::strong_count(&owned) == 1);
}

/// The kinds that this file goes through are all that there are.
#[test]
fn every_kind_of_event_is_tried() {
    let mut names = EventKind::ALL.map(EventKind::as_str);
    let mut tried = ALL;
    names.sort_unstable();
    tried.sort_unstable();
    assert_eq!(names, tried);
}
