//! Session tokens that change: the server gets the new one, and nobody gets the events of the old one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crossbeam_channel::{bounded, unbounded};
use parking_lot::Mutex;
use parse_livequery::test_server::TestServer;
use parse_livequery::{ClientState, Error, ErrorKind, EventKind, GapReason, Query, SubscriptionState};
use serde_json::{Value, json};

use crate::harness::*;
use crate::support::*;

/// The session tokens that the server got, with `connect` and with subscriptions.
fn tokens(server: &Server, op: &str) -> Vec<Value> {
    server
        .received_op(op)
        .iter()
        .map(|received| received.frame["sessionToken"].clone())
        .collect()
}

#[test]
fn token_refreshed_on_reconnect() {
    let server = Server::auto();
    let tokens_left = Mutex::new(vec![None, Some("r:2"), Some("r:1")]);
    let asked_on = Arc::new(Mutex::new(Vec::new()));
    let threads = Arc::clone(&asked_on);
    let client = builder(&server.url())
        .session_token_provider(move || {
            threads.lock().push(thread::current().name().map(str::to_owned));
            tokens_left.lock().pop().flatten().map(str::to_owned)
        })
        .build()
        .unwrap();
    let (_subscription, events) = subscribe(&client, "Game");
    for _ in 0..2 {
        server.conn(server.accepts()).cut();
        events.expect("close");
        events.expect("open");
    }
    let expected = [json!("r:1"), json!("r:2"), Value::Null];
    assert_eq!(tokens(&server, "connect"), expected);
    assert_eq!(
        tokens(&server, "subscribe"),
        expected,
        "none is left out, not null"
    );
    assert!(server.received().iter().all(|frame| !frame.text.contains("null")));
    assert!(
        asked_on
            .lock()
            .iter()
            .all(|name| name.as_deref() == Some("livequery-token"))
    );
}

#[test]
fn a_provider_that_blocks_or_panics_holds_up_nothing_else() {
    let server = TestServer::start().unwrap();
    let (release, blocked) = bounded::<()>(0);
    let calls = AtomicUsize::new(0);
    let client = builder(&server.url())
        .connect_timeout(ms(300))
        .session_token_provider(move || match calls.fetch_add(1, Ordering::Relaxed) {
            0 => {
                let _ = blocked.recv();
                None
            }
            1 => panic!("no token today"),
            _ => Some("r:1".to_owned()),
        })
        .build()
        .unwrap();
    let client_events = record_client(&client);
    let events = Events::new();
    let _subscription = subscribe_into(&client, "Game", &events);
    let given_up = client_events.wait_for("reconnecting").value;
    assert!(
        given_up
            .error()
            .unwrap()
            .to_string()
            .contains("session token provider"),
        "{given_up:?}"
    );
    assert_eq!(client.state(), ClientState::Reconnecting);
    // Its late answer is to a question that nobody asks any more; the next one is asked of it then.
    drop(release);
    events.wait_for("open");
    fence(&client);
    assert_eq!(client.state(), ClientState::Connected);
}

#[test]
fn identity_switch_discards_queue() {
    let server = Server::auto();
    let client = builder(&server.url()).session_token("r:old").build().unwrap();
    let (entered, in_listener) = bounded(0);
    let (release, go_on) = bounded::<()>(0);
    let (got, names) = unbounded();
    let events = Events::new();
    let mut blocks = true;
    let subscription = record(client.subscription(&Query::new("Game")), "Game", &events)
        .on_create(move |game| {
            got.send(game.id().map(str::to_owned)).unwrap();
            if std::mem::take(&mut blocks) {
                entered.send(()).unwrap();
                go_on.recv().unwrap();
            }
        })
        .start()
        .unwrap();
    events.expect("open");
    for id in ["old1", "old2", "old3"] {
        server.emit("create", &object("Game", id, json!({})));
    }
    in_listener.recv_timeout(LONG).unwrap();
    wait_until("all have come", || subscription.stats().events.create == 3);
    client.set_session_token(Some("r:new"));
    release.send(()).unwrap();
    events.expect("create");
    events.expect("close");
    let gap = events.expect("open").value.gap().cloned().unwrap();
    assert_eq!(gap.reason(), GapReason::SessionTokenChanged);
    server.emit("create", &object("Game", "new", json!({})));
    events.expect("create");
    // The recorder is called before the other listener.
    let names: Vec<_> = (0..2)
        .map(|_| names.recv_timeout(LONG).unwrap().unwrap())
        .chain(names.try_iter().flatten())
        .collect();
    assert_eq!(
        names,
        ["old1", "new"],
        "what was running when it was called, and what is new"
    );
    assert_eq!(tokens(&server, "connect"), ["r:old", "r:new"]);
    assert_eq!(tokens(&server, "subscribe"), ["r:old", "r:new"]);
    assert_eq!(server.max_open(), 1);
}

#[test]
fn identity_switch_of_one_subscription_leaves_the_others_alone() {
    let server = Server::auto();
    let client = client(&server.url());
    let (_other, other_events) = subscribe(&client, "Other");
    let (subscription, events) = subscribe(&client, "Game");
    subscription.set_session_token(Some("r:new")).unwrap();
    events.expect("close");
    let gap = events.expect("open").value.gap().cloned().unwrap();
    assert_eq!(gap.reason(), GapReason::SessionTokenChanged);
    let update = &server.received_op("update")[0];
    assert_eq!(
        (&update.frame["requestId"], &update.frame["sessionToken"]),
        (&json!(subscription.id()), &json!("r:new"))
    );
    server.emit("create", &object("Other", "a", json!({})));
    other_events.expect("create");
    assert_eq!(server.accepts(), 1);
    // The query that is asked for later is asked for with the same token.
    subscription.update(&Query::new("Player")).unwrap();
    events.expect("close");
    events.expect("open");
    assert_eq!(tokens(&server, "update"), ["r:new", "r:new"]);
    subscription.unsubscribe();
    assert_eq!(
        subscription.set_session_token(None).unwrap_err().kind(),
        ErrorKind::Closed
    );
}

#[test]
fn events_that_the_new_user_may_not_read_do_not_come() {
    let server = TestServer::start().unwrap();
    server.session("r:ann", "ann");
    server.session("r:bob", "bob");
    let only = |user: &str, n: i64| json!({"n": n, "ACL": {user: {"read": true}}});
    let client = builder(&server.url()).session_token("r:ann").build().unwrap();
    let (subscription, events) = subscribe(&client, "Note");
    server.create("Note", only("ann", 1));
    events.expect("create");
    client.set_session_token(Some("r:bob"));
    events.expect("close");
    events.expect("open");
    server.create("Note", only("ann", 2));
    server.create("Note", only("bob", 3));
    let note = events.expect("create").value;
    assert_eq!(note.get("n"), Some(&json!(3)));
    client.set_session_token(None);
    events.expect("close");
    events.expect("open");
    server.create("Note", only("bob", 4));
    server.create("Note", json!({"n": 5}));
    assert_eq!(events.expect("create").value.get("n"), Some(&json!(5)));
    assert_eq!(subscription.state(), SubscriptionState::Open);
}

/// The default client belongs to the process, so this needs one of its own.
#[test]
fn default_client_is_one_for_all_threads() {
    in_own_process(
        module_path!(),
        "default_client_is_one_for_all_threads",
        MINUTE,
        || {
            let server = Server::auto();
            let query = Query::new("Game");
            assert_eq!(query.subscribe().unwrap_err().kind(), ErrorKind::NotInitialized);
            assert_eq!(
                parse_livequery::default_client().unwrap_err().kind(),
                ErrorKind::NotInitialized
            );
            let invalid = parse_livequery::Client::builder("ftp://example.com", "app");
            assert_eq!(
                parse_livequery::initialize(invalid).unwrap_err().kind(),
                ErrorKind::InvalidSetting,
                "and it can be tried again"
            );
            let (initialized, subscriptions) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
            let start = std::sync::Barrier::new(8);
            thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        start.wait();
                        match parse_livequery::initialize(builder(&server.url())) {
                            Ok(()) => drop(initialized.fetch_add(1, Ordering::Relaxed)),
                            Err(error) => assert_eq!(error.kind(), ErrorKind::AlreadyInitialized),
                        }
                        subscriptions.lock().push(query.subscribe().unwrap());
                    });
                }
            });
            assert_eq!(initialized.load(Ordering::Relaxed), 1);
            for subscription in subscriptions.lock().iter() {
                subscription.wait_open(LONG).unwrap();
            }
            assert_eq!(server.accepts(), 1);
            assert_eq!(server.emit("create", &object("Game", "a", json!({}))), 8);
            let client = parse_livequery::default_client().unwrap();
            assert_eq!(client.state(), ClientState::Connected);
            client.close();
            assert!(
                subscriptions
                    .lock()
                    .iter()
                    .all(|s| s.state() == SubscriptionState::Closed)
            );
        },
    );
}

#[test]
fn reconnect_now_skips_the_wait_and_never_makes_a_second_socket() {
    let server = Server::auto();
    server.refuse();
    let client = builder(&server.url())
        .reconnect_delay(MINUTE, MINUTE)
        .build()
        .unwrap();
    let client_events = record_client(&client);
    client.open();
    client_events.wait_for("reconnecting");
    server.listen_again();
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..12 {
                    client.reconnect_now();
                }
            });
        }
    });
    client_events.expect("open");
    for _ in 0..4 {
        client.reconnect_now();
    }
    fence(&client);
    assert_eq!(server.max_open(), 1);
    assert_eq!(server.accepts(), 1);
}

#[test]
fn max_attempts_end_in_a_state_and_an_event() {
    let server = Server::auto();
    server.refuse();
    let client = builder(&server.url()).max_attempts(3).build().unwrap();
    let client_events = record_client(&client);
    let events = Events::new();
    let subscription = subscribe_into(&client, "Game", &events);
    let error = subscription.wait_open(LONG).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::GaveUp);
    assert!(error.to_string().contains("3 attempts"), "{error}");
    assert_eq!(client.state(), ClientState::Disconnected);
    assert_eq!(client.wait_closed().unwrap_err().kind(), ErrorKind::GaveUp);
    let first = client_events.expect("error").value;
    let first = first.error().unwrap();
    assert!(!first.is_fatal(), "{first}");
    assert!(first.to_string().contains("keeps trying"), "{first}");
    client_events.wait_where("the end", |seen| {
        seen.kind == "error" && seen.value.error().is_some_and(Error::is_fatal)
    });
    events.expect("error");
    assert_eq!(
        client_events.kinds(),
        ["error", "reconnecting", "reconnecting", "error"]
    );
    server.listen_again();
    client.open();
    assert_eq!(events.expect("open").value.kind(), EventKind::Open);
}

#[test]
fn unsubscribe_and_wait_waits_for_the_listener_that_runs() {
    let server = Server::auto();
    let client = client(&server.url());
    let (entered, in_listener) = bounded(0);
    let (release, go_on) = bounded::<()>(0);
    let inside = Arc::new(Mutex::new(None::<parse_livequery::Subscription>));
    let own = Arc::clone(&inside);
    let subscription = client
        .subscription(&Query::new("Game"))
        .on_create(move |_| {
            let own = own.lock().clone().unwrap();
            let refused = own.unsubscribe_and_wait(LONG).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::CalledFromListener);
            entered.send(()).unwrap();
            go_on.recv().unwrap();
        })
        .start()
        .unwrap();
    *inside.lock() = Some(subscription.clone());
    subscription.wait_open(LONG).unwrap();
    server.emit("create", &object("Game", "a", json!({})));
    in_listener.recv_timeout(LONG).unwrap();
    assert_eq!(
        subscription.unsubscribe_and_wait(ms(1)).unwrap_err().kind(),
        ErrorKind::Timeout
    );
    release.send(()).unwrap();
    subscription.unsubscribe_and_wait(LONG).unwrap();
    *inside.lock() = None;
}
