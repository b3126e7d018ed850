//! How old the server is: the client asks where a query depends on it, and nobody else waits.

use std::sync::atomic::{AtomicBool, Ordering};

use parse_livequery::{ErrorKind, Pointer, Query, SubscriptionState};
use serde_json::{Value, json};

use crate::harness::*;
use crate::support::*;

const TOO_SHORT: &str = "Array is too short (0), minimum 1";
const UNKNOWN_MEMBER: &str = "Additional properties not allowed";

fn negation(class: &str) -> Query {
    Query::new(class).not_equal_to("score", 1)
}

fn is_question(frame: &Value) -> bool {
    ["keys", "fields"]
        .iter()
        .any(|member| frame["query"][member] == json!([]))
}

/// The questions that the server was asked.
fn questions(server: &Server) -> Vec<Received> {
    let mut received = server.received();
    received.retain(|received| is_question(&received.frame));
    received
}

/// A server as Parse Server 4.3 to 6.0, which knows `fields` and no `keys`.
fn is_old(server: &Server) {
    server.on_frame(|conn, frame| {
        let members = frame["query"].as_object();
        let knows = |name: &str| members.is_some_and(|members| members.contains_key(name));
        if knows("keys") || knows("watch") {
            conn.error(1, UNKNOWN_MEMBER, true, None);
            Then::Handled
        } else if frame["query"]["fields"] == json!([]) {
            conn.error(1, TOO_SHORT, true, None);
            Then::Handled
        } else {
            Then::Default
        }
    });
}

#[test]
fn only_a_query_that_depends_on_the_age_has_the_client_ask() {
    let server = Server::auto();
    let client = client(&server.url());
    let (_plain, events) = subscribe(&client, "Plain");
    assert_eq!(questions(&server).len(), 0);
    assert!(client.diagnose().contains("not asked for yet"));
    let first = client.subscribe(&negation("First")).unwrap();
    let second = client.subscribe(&negation("Second")).unwrap();
    let whole = client
        .subscribe(&Query::new("Whole").equal_to("tags", [1, 2]))
        .unwrap();
    for subscription in [&first, &second, &whole] {
        subscription.wait_open(LONG).unwrap();
    }
    // One question for both of the first two, and another for what came later.
    assert_eq!(questions(&server).len(), 2);
    assert!(
        client.diagnose().contains("7.0 or later"),
        "{}",
        client.diagnose()
    );
    assert_eq!(events.count("close"), 0);
    // Each connection is asked anew.
    server.conn(1).cut();
    let (conn, _) = server.wait_subscribed("Whole");
    assert_eq!(conn.number(), 2);
    assert_eq!(questions(&server).len(), 4);
    for received in questions(&server) {
        assert!(received.request_id() > u64::from(u32::MAX));
    }
}

#[test]
fn an_old_server_refuses_nobody_but_who_depends_on_what_it_lacks() {
    let server = Server::auto();
    is_old(&server);
    let client = client(&server.url());
    let (_plain, plain) = subscribe(&client, "Plain");
    let refused = Events::new();
    let negation = record(client.subscription(&negation("Refused")), "refused", &refused)
        .start()
        .unwrap();
    let error = refused.expect("error").value;
    let error = error.error().unwrap();
    assert_eq!((error.kind(), error.is_fatal()), (ErrorKind::InvalidQuery, true));
    let text = error.to_string();
    assert!(
        text.contains("Parse Server 5.0 or later") && text.contains("parse_server"),
        "{text}"
    );
    assert_ne!(negation.state(), SubscriptionState::Open);
    let waited = negation.wait_open(LONG).unwrap_err();
    assert_eq!(waited.kind(), ErrorKind::InvalidQuery);
    assert!(
        client.diagnose().contains("at least 4.3 and older than 6.1"),
        "{}",
        client.diagnose()
    );
    let pointer = Query::new("Team").equal_to("owner", Pointer::new("User", "ann"));
    client.subscribe(&pointer).unwrap().detach();
    let (conn, _) = server.wait_subscribed("Team");
    let received = conn.received();
    let team = received
        .iter()
        .find(|received| received.frame["query"]["className"] == "Team");
    assert!(team.unwrap().text.contains("owner.className"), "{team:?}");
    assert!(
        received
            .iter()
            .all(|received| received.frame["query"]["className"] != "Refused")
    );
    // The one that was refused can ask for something else.
    negation.update(&Query::new("Other")).unwrap();
    server.wait_subscribed("Other");
    assert_eq!(server.emit("create", &object("Plain", "a", json!({}))), 1);
    plain.expect("create");
}

#[test]
fn the_program_that_names_the_version_is_believed_and_the_server_not_asked() {
    let server = Server::auto();
    let client = builder(&server.url()).parse_server("5.6").build().unwrap();
    let negation = client.subscribe(&negation("Negation")).unwrap();
    negation.wait_open(LONG).unwrap();
    let whole = Query::new("Whole").equal_to("tags", [1, 2]);
    let error = client.subscribe(&whole).unwrap_err();
    assert!(error.to_string().contains("needs Parse Server 6.3"), "{error}");
    assert_eq!(questions(&server).len(), 0);
    let diagnosis = client.diagnose();
    assert!(
        diagnosis.contains("Parse Server 5.6, as `parse_server` says"),
        "{diagnosis}"
    );
}

#[test]
fn a_server_that_grows_old_during_an_outage_is_asked_again() {
    let server = Server::auto();
    let client = client(&server.url());
    let events = Events::new();
    let subscription = record(client.subscription(&negation("Game")), "game", &events)
        .start()
        .unwrap();
    events.expect("open");
    is_old(&server);
    server.conn(1).cut();
    events.expect("close");
    let error = events.expect("error").value;
    assert!(error.error().unwrap().is_fatal());
    assert_ne!(subscription.state(), SubscriptionState::Open);
    let asked_for = server.received();
    assert!(
        !asked_for
            .iter()
            .any(|received| received.conn == 2 && received.frame["query"]["className"] == "Game"),
        "{asked_for:?}"
    );
}

#[test]
fn a_question_that_is_not_answered_holds_up_nobody_else() {
    let server = Server::auto();
    let answers = std::sync::Arc::new(AtomicBool::new(false));
    let does = std::sync::Arc::clone(&answers);
    server.on_frame(
        move |_, frame| match is_question(frame) && !does.load(Ordering::SeqCst) {
            true => Then::Handled,
            false => Then::Default,
        },
    );
    let client = builder(&server.url())
        .ack_timeout(std::time::Duration::from_millis(500))
        .build()
        .unwrap();
    let events = Events::new();
    let waiting = record(client.subscription(&negation("Game")), "game", &events)
        .start()
        .unwrap();
    server.wait_received("the question", |received| {
        received
            .iter()
            .any(|received| is_question(&received.frame))
            .then_some(())
    });
    let (_plain, plain) = subscribe(&client, "Plain");
    let late = events.expect("error").value;
    assert_eq!(late.error().unwrap().kind(), ErrorKind::Timeout);
    assert!(!late.error().unwrap().is_fatal());
    assert_eq!(server.emit("create", &object("Plain", "a", json!({}))), 1);
    plain.expect("create");
    // Ended while it waits, it is never sent.
    waiting.unsubscribe_and_wait(LONG).unwrap();
    answers.store(true, Ordering::SeqCst);
    let other = client.subscribe(&negation("Other")).unwrap();
    server.conn(1).cut();
    other.wait_open(LONG).unwrap();
    assert!(
        !server
            .received()
            .iter()
            .any(|received| received.frame["query"]["className"] == "Game")
    );
}

#[test]
fn a_live_set_that_the_server_is_too_old_for_says_so() {
    let server = Server::auto();
    is_old(&server);
    let client = client(&server.url());
    let (sender, errors) = std::sync::mpsc::channel();
    let set = client
        .live_set(&negation("Game"))
        .fetch_with(|_| Ok::<_, String>(Vec::<parse_livequery::Object>::new()))
        .on_error(move |error| sender.send(error.clone()).unwrap())
        .start()
        .unwrap();
    let error = errors.recv_timeout(LONG).unwrap();
    assert!(
        error.is_fatal() && error.to_string().contains("needs Parse Server 5.0"),
        "{error}"
    );
    assert!(set.wait_ready(LONG).is_err());
}

#[test]
fn a_test_server_tells_its_age_as_a_parse_server_does() {
    let server = parse_livequery::test_server::TestServer::start().unwrap();
    let client = builder(&server.url()).build().unwrap();
    let whole = Query::new("Game")
        .equal_to("tags", [1, 2])
        .not_equal_to("score", 1);
    let subscription = client.subscribe(&whole).unwrap();
    subscription.wait_open(LONG).unwrap();
    assert_eq!(server.subscription_count(), 1);
    assert!(client.diagnose().contains("7.0 or later"));
}
