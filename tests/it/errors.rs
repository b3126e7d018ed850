//! Errors: each is told once, to whom it concerns, and ends only what it has to end.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parse_livequery::{ClientState, Error, ErrorKind, Query, SubscriptionState};
use serde_json::json;

use crate::harness::*;
use crate::support::*;

/// When the error comes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    BeforeConnected,
    /// With nothing but active subscriptions.
    Idle,
    /// In place of the answer to a subscription.
    ToSubscribe,
}

/// What the error names.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Id {
    Null,
    /// No member at all: Parse Server before 4.3.0.
    Absent,
    /// The subscription that waits for its answer or, with none waiting, the one that is active.
    Its,
    /// One that does not exist.
    Unknown,
}

/// What becomes of the client.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    /// Nothing: the connection stays, and no listener is bothered.
    Nothing,
    /// The client is told, and the connection stays.
    ClientError,
    /// The subscription and the client are told, and both live on.
    SubscriptionError,
    /// The subscription has ended, and the connection stays.
    SubscriptionFails,
    /// One further connection is made.
    Reconnects,
    /// No further connection is made.
    Refused,
}

const CANNOT_FIND_CLIENT: &str =
    "Can not find this client, make sure you connect to server before subscribing";
const CANNOT_FIND_SUBSCRIPTION: &str = "Cannot find subscription with clientId x subscriptionId 4711. Make sure you \
                                        subscribe to live query server before unsubscribing.";

#[test]
fn error_code_table() {
    use Id::{Absent, Its, Null, Unknown};
    use Outcome::{ClientError, Nothing, Reconnects, Refused, SubscriptionError, SubscriptionFails};
    use Phase::{BeforeConnected, Idle, ToSubscribe};

    let mut table = vec![
        // Parse Server's `beforeConnect` threw.
        (BeforeConnected, 141, "no", false, Null, Refused),
        (BeforeConnected, 101, "no", false, Absent, Refused),
        // Not of this server, and it says that another try may help.
        (BeforeConnected, 141, "no", true, Null, Reconnects),
        (BeforeConnected, 2, CANNOT_FIND_CLIENT, true, Null, Reconnects),
        (Idle, 2, CANNOT_FIND_CLIENT, true, Null, Reconnects),
        (ToSubscribe, 2, CANNOT_FIND_CLIENT, true, Null, Reconnects),
        (Idle, 2, CANNOT_FIND_SUBSCRIPTION, true, Null, Nothing),
        (Idle, 4, "Key in request is not valid", true, Null, Refused),
        (Idle, 141, "no", true, Null, Reconnects),
        (Idle, 141, "no", false, Null, ClientError),
        // An unknown operation, which the server answers without a name for whose it was.
        (Idle, 3, "Get unknown operation", true, Null, ClientError),
        (
            ToSubscribe,
            3,
            "Get unknown operation",
            true,
            Null,
            SubscriptionFails,
        ),
    ];
    for reconnect in [true, false] {
        for id in [Null, Absent] {
            table.extend([
                (
                    BeforeConnected,
                    1,
                    "Missing required property: x",
                    reconnect,
                    id,
                    Refused,
                ),
                (
                    BeforeConnected,
                    3,
                    "Get unknown operation",
                    reconnect,
                    id,
                    Refused,
                ),
                (
                    BeforeConnected,
                    4,
                    "Key in request is not valid",
                    reconnect,
                    id,
                    Refused,
                ),
                (
                    Idle,
                    1,
                    "Invalid type: null (expected string)",
                    reconnect,
                    id,
                    ClientError,
                ),
                (
                    ToSubscribe,
                    1,
                    "Array is too short (0), minimum 1",
                    reconnect,
                    id,
                    SubscriptionFails,
                ),
            ]);
        }
        // Whatever the flag says, an error that names a subscription is that one's business.
        for code in [1, 2, 4, 101, 102, 119, 141, 209, -1] {
            table.extend([
                (
                    Idle,
                    code,
                    "afterLiveQueryEvent threw",
                    reconnect,
                    Its,
                    SubscriptionError,
                ),
                (ToSubscribe, code, "refused", reconnect, Its, SubscriptionFails),
                (Idle, code, "whose?", reconnect, Unknown, Nothing),
            ]);
        }
    }
    let threads: Vec<_> = table
        .chunks(table.len().div_ceil(4))
        .map(|chunk| {
            let chunk = chunk.to_vec();
            std::thread::spawn(move || {
                for (phase, code, text, reconnect, id, outcome) in chunk {
                    check(phase, code, text, reconnect, id, outcome);
                }
            })
        })
        .collect();
    let failed = threads
        .into_iter()
        .map(|thread| thread.join())
        .filter(Result::is_err)
        .count();
    assert_eq!(failed, 0);
}

fn check(phase: Phase, code: i64, text: &'static str, reconnect: bool, id: Id, outcome: Outcome) {
    let case = format!("{phase:?}, code {code} `{text}`, reconnect {reconnect}, {id:?}");
    let server = Server::auto();
    let send = move |conn: &Conn, its: Option<u64>| {
        let mut error = json!({ "op": "error", "code": code, "error": text, "reconnect": reconnect });
        match id {
            Id::Null => error["requestId"] = json!(null),
            Id::Absent => {}
            Id::Its => error["requestId"] = json!(its),
            Id::Unknown => error["requestId"] = json!(4711),
        }
        conn.send(&error);
    };
    // The error comes once.
    let sent = AtomicUsize::new(0);
    server.on_frame(move |conn, frame| {
        let now = match phase {
            Phase::BeforeConnected => frame["op"] == "connect",
            Phase::ToSubscribe => frame["query"]["className"] == "Subject",
            Phase::Idle => false,
        };
        if !now || sent.fetch_add(1, Ordering::Relaxed) > 0 {
            return Then::Default;
        }
        send(conn, frame["requestId"].as_u64());
        Then::Handled
    });
    let client = client(&server.url());
    let client_events = record_client(&client);
    let (events, bystander_events) = (Events::new(), Events::new());
    let bystander = subscribe_into(&client, "Bystander", &bystander_events);
    if phase != Phase::BeforeConnected {
        bystander_events.expect("open");
    }
    let subject = subscribe_into(&client, "Subject", &events);
    if phase == Phase::Idle {
        events.expect("open");
        let (conn, its) = server.wait_subscribed("Subject");
        send(&conn, Some(its));
    }

    let is_its = |error: &Error| error.code() == Some(code) && error.to_string().contains(text);
    match outcome {
        Outcome::Refused => {
            let error = client_events.wait_for("error").value;
            let error = error.error().unwrap();
            assert!(is_its(error) && error.is_fatal(), "{case}: {error:?}");
            assert_eq!(error.kind(), ErrorKind::Refused, "{case}");
            assert_eq!(client.state(), ClientState::Disconnected, "{case}");
            let refusal = subject.wait_open(LONG).unwrap_err();
            assert_eq!(refusal.kind(), ErrorKind::Refused, "{case}");
            assert_eq!(
                client.wait_closed().unwrap_err().kind(),
                ErrorKind::Refused,
                "{case}"
            );
            // Longer than it would wait before another attempt.
            client_events.expect_quiet(ms(100));
            assert_eq!(server.accepts(), 1, "{case}");
            server.conn(1).wait_ended();
            let errors = client_events.all().iter().filter(|s| s.kind == "error").count();
            assert_eq!(errors, 1, "{case}");
            // Told to, it tries again, with all subscriptions.
            server.heal();
            client.open();
            events.wait_for("open");
            bystander_events.wait_for("open");
            return;
        }
        Outcome::Reconnects => {
            let event = client_events.wait_for("reconnecting").value;
            assert!(is_its(event.error().unwrap()), "{case}: {event:?}");
            server.conn(2);
            server.conn(1).wait_ended();
        }
        Outcome::SubscriptionFails => {
            let error = events.wait_for("error").value;
            let error = error.error().unwrap();
            assert!(is_its(error) && error.is_fatal(), "{case}: {error:?}");
            assert_eq!(error.kind(), ErrorKind::Server, "{case}");
            assert_eq!(subject.state(), SubscriptionState::Failed, "{case}");
        }
        Outcome::SubscriptionError => {
            let error = events.wait_for("error").value;
            let error = error.error().unwrap();
            assert!(is_its(error) && !error.is_fatal(), "{case}: {error:?}");
        }
        Outcome::ClientError => {
            let error = client_events.wait_for("error").value;
            let error = error.error().unwrap();
            assert!(is_its(error) && !error.is_fatal(), "{case}: {error:?}");
        }
        Outcome::Nothing => {}
    }

    bystander.wait_open(LONG).unwrap();
    fence(&client);
    server.wait_subscribed("Bystander");
    assert_eq!(
        server.emit("create", &object("Bystander", "a", json!({}))),
        1,
        "{case}"
    );
    bystander_events.wait_for("create");
    assert_eq!(client.state(), ClientState::Connected, "{case}");
    if outcome != Outcome::SubscriptionFails {
        subject.wait_open(LONG).unwrap();
        server.wait_subscribed("Subject");
        server.emit("create", &object("Subject", "a", json!({})));
        events.wait_for("create");
    }
    let connections = 1 + usize::from(outcome == Outcome::Reconnects);
    assert_eq!(server.accepts(), connections, "{case}");
    assert_eq!(bystander_events.count("error"), 0, "{case}");
    // The client's listeners hear of the errors of subscriptions, too.
    let told = match outcome {
        Outcome::Nothing => false,
        // The first attempt that fails is reported.
        Outcome::Reconnects => phase == Phase::BeforeConnected,
        _ => true,
    };
    let told = usize::from(told);
    assert_eq!(client_events.count("error"), told, "{case}");
    let told = usize::from(matches!(
        outcome,
        Outcome::SubscriptionError | Outcome::SubscriptionFails
    ));
    assert_eq!(events.count("error"), told, "{case}");
}

#[test]
fn refusal_tells_each_subscription_once() {
    let server = Server::auto();
    let client = client(&server.url());
    let client_events = record_client(&client);
    let events = Events::new();
    let subscriptions: Vec<_> = (0..10)
        .map(|_| subscribe_into(&client, "Game", &events))
        .collect();
    for _ in &subscriptions {
        events.expect("open");
    }
    server.on_frame(|conn, _| {
        conn.error(4, "Key in request is not valid", true, None);
        Then::Handled
    });
    server.conn(1).cut();
    client_events.wait_for("error");
    assert_eq!(client.state(), ClientState::Disconnected);
    wait_until("all are told", || events.count("error") == subscriptions.len());
    assert_eq!(events.count("close"), subscriptions.len());
    assert_eq!(client_events.kinds(), ["open", "close", "reconnecting", "error"]);
    // A subscription that comes now is told at once, and causes no attempt.
    let late = Events::new();
    let subscription = subscribe_into(&client, "Late", &late);
    assert_eq!(
        late.expect("error").value.error().unwrap().kind(),
        ErrorKind::Refused
    );
    assert_eq!(
        subscription.wait_open(LONG).unwrap_err().kind(),
        ErrorKind::Refused
    );
    assert_eq!(server.accepts(), 2);
    client.close();
    assert_eq!(client.state(), ClientState::Closed);
}

#[test]
fn no_handler_no_crash() {
    let server = Server::auto();
    let client = client(&server.url());
    let subscription = client.subscribe(&Query::new("Game")).unwrap();
    for number in 1..=10 {
        let (conn, id) = server.wait_subscribed("Game");
        assert_eq!(conn.number(), number);
        conn.error(141, "a hook threw", false, Some(id));
        conn.error(1, "Missing required property: op", true, None);
        conn.send_text("no JSON");
        conn.send_binary(b"binary");
        if number % 2 == 0 {
            conn.cut()
        } else {
            conn.reset()
        }
        server.conn(number + 1);
    }
    subscription.wait_open(LONG).unwrap();
    assert_eq!(client.state(), ClientState::Connected);
}

#[test]
fn error_counts_not_multiplied() {
    const SUBSCRIPTIONS: usize = 100;
    const ATTEMPTS: usize = 10;
    let server = Server::auto();
    let client = client(&server.url());
    let client_events = record_client(&client);
    let events = Events::new();
    let subscriptions: Vec<_> = (0..SUBSCRIPTIONS)
        .map(|at| subscribe_into(&client, &format!("C{at}"), &events))
        .collect();
    for _ in &subscriptions {
        events.expect("open");
    }
    let failed = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&failed);
    server.on_accept(move |conn| {
        // The first is lost by the cut below; these are the attempts after it.
        if count.fetch_add(1, Ordering::SeqCst) + 1 >= ATTEMPTS {
            return Then::Default;
        }
        conn.cut();
        Then::Handled
    });
    server.conn(1).cut();
    for _ in &subscriptions {
        events.expect("close");
    }
    for _ in &subscriptions {
        events.expect("open");
    }
    assert_eq!(failed.load(Ordering::SeqCst), ATTEMPTS);
    // The cut, and the first attempt that fails.
    let mut expected = vec!["open", "close", "reconnecting", "error"];
    expected.extend(["reconnecting"; ATTEMPTS - 1]);
    expected.push("open");
    assert_eq!(client_events.kinds(), expected);
    assert_eq!(events.all().len(), 3 * SUBSCRIPTIONS);
}

#[test]
fn close_is_silent() {
    type Farewell = (&'static str, fn(&Conn));
    let farewells: [Farewell; 4] = [
        ("answered", |_| {}),
        ("not answered", |conn| conn.answer_close(false)),
        ("reset", |conn| conn.reset_on_close()),
        ("with an event on the way", |conn| {
            let id = conn.subscriptions_to("Game")[0];
            conn.event("create", id, object("Game", "a", json!({})), None);
        }),
    ];
    for (name, farewell) in farewells {
        let server = Server::auto();
        let client = builder(&server.url()).close_timeout(ms(500)).build().unwrap();
        let client_events = record_client(&client);
        let (_subscription, events) = subscribe(&client, "Game");
        server.wait_subscribed("Game");
        farewell(&server.conn(1));
        client.close();
        server.conn(1).wait_ended();
        client_events.wait_for("close");
        events.wait_for("close");
        assert_eq!(client_events.kinds(), ["open", "close"], "{name}");
        assert!(client_events.all()[1].value.error().is_none(), "{name}");
        assert_eq!(events.count("error"), 0, "{name}");
        assert!(events.all().last().unwrap().value.error().is_none(), "{name}");
        client_events.drain();
        client_events.expect_quiet(ms(100));
    }
}
