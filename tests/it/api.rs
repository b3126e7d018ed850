//! What the API accepts and how it reads: names of fields and events, what is printed, the conversions.

use std::sync::Arc;
use std::time::SystemTime;

use parse_livequery::test_server::TestServer;
use parse_livequery::{
    ClientEventKind, ClientState, Error, ErrorKind, EventKind, GapReason, Object, Pointer, Query,
    SubscriptionState, serde_json,
};
use serde_json::{Value, json};

use crate::harness::*;
use crate::support::*;

#[test]
fn one_name_or_several() {
    let order = |query: Query| {
        let form: Value = serde_json::from_str(&query.to_json().unwrap()).unwrap();
        form["order"].clone()
    };
    let query = || Query::new("Game");
    let names = vec!["score".to_owned(), "name".to_owned()];
    assert_eq!(order(query().descending("score")), "-score");
    assert_eq!(order(query().descending(names[0].clone())), "-score");
    assert_eq!(order(query().descending(&names[0])), "-score");
    for query in [
        query().ascending(["score", "name"]),
        query().ascending(&names),
        query().ascending(names.as_slice()),
        query().ascending(names.clone()),
        query().ascending("score, name"),
        query().ascending("score").add_ascending("name"),
    ] {
        assert_eq!(order(query), "score,name");
    }
}

#[test]
fn an_event_reads_as_its_object() {
    let server = Server::auto();
    let client = client(&server.url());
    let (_subscription, events) = subscribe(&client, "Game");
    let acl = json!({"u1": {"read": true}});
    server.emit(
        "create",
        &object(
            "Game",
            "a",
            json!({"name": "chess", "score": 7, "half": 0.5, "over": true, "ACL": acl}),
        ),
    );
    let event = events.expect("create").value;
    assert_eq!(event.get_str("name"), Some("chess"));
    assert_eq!(event.get_i64("score"), Some(7));
    assert_eq!(event.get_f64("half"), Some(0.5));
    assert_eq!(event.get_bool("over"), Some(true));
    assert_eq!(event.get_as::<u8>("score").unwrap(), 7);
    assert!(event.acl().unwrap().read_access("u1"));

    // One without an object.
    let open = &events.all()[0].value;
    assert_eq!(open.get_str("name"), None);
    let error = open.get_as::<u8>("score").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Decode);
    assert!(error.to_string().contains("`open`"), "{error}");
}

#[test]
fn an_object_is_printed_converted_and_pointed_to() {
    let game: Object = r#"{"className":"Game","objectId":"x1","score":1}"#.parse().unwrap();
    assert_eq!(
        game.to_string(),
        r#"{"className":"Game","objectId":"x1","score":1}"#
    );
    assert_eq!(game.to_pointer(), Some(Pointer::new("Game", "x1")));
    let value = Value::from(&game);
    assert_eq!(value, json!({"className": "Game", "objectId": "x1", "score": 1}));
    assert_eq!(Object::try_from(value.clone()).unwrap(), game);
    assert_eq!(Value::from(game.clone()), value);
    assert_eq!(Object::try_from(json!([])).unwrap_err().kind(), ErrorKind::Decode);
    let mut keys = Vec::new();
    for (key, _) in &game {
        keys.push(key);
    }
    assert_eq!(keys, ["className", "objectId", "score"]);
    let unsaved: Object = r#"{"className":"Game"}"#.parse().unwrap();
    assert_eq!(unsaved.to_pointer(), None);
}

#[test]
fn kinds_states_and_reasons_can_be_printed() {
    assert_eq!(ErrorKind::ConnectionLost.to_string(), "connection lost");
    assert_eq!(ClientState::Reconnecting.to_string(), "reconnecting");
    assert_eq!(SubscriptionState::Pending.to_string(), "pending");
    assert_eq!(GapReason::QueryUpdated.to_string(), "the query was changed");
    assert_eq!(ClientState::Paused.to_string(), "paused");
    assert_eq!(GapReason::Paused.to_string(), "the client was paused");
}

/// What `fn main() -> parse_livequery::Result<()>` prints is a sentence, and the cause can be told apart.
#[test]
fn an_error_reads_as_its_text_and_has_its_cause() {
    let error = parse_livequery::Client::builder("nonsense", "app")
        .build()
        .unwrap_err();
    assert_eq!(format!("{error:?}"), error.to_string());
    assert!(format!("{error:#?}").contains("InvalidSetting"));

    let server = Server::auto();
    server.refuse();
    let client = client(&server.url());
    let events = record_client(&client);
    client.open();
    let failed = events.expect("error").value;
    let mut cause: &(dyn std::error::Error + 'static) = failed.error().unwrap();
    while let Some(next) = cause.source() {
        cause = next;
    }
    let io = cause.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    assert_eq!(io, Some(std::io::ErrorKind::ConnectionRefused));
}

/// Nothing fails in silence: the first attempt of an outage that fails is an error, and those after it are not.
#[test]
fn the_first_attempt_that_fails_is_reported_once_in_each_outage() {
    let server = Server::auto();
    let client = builder(&server.url())
        .reconnect_delay(ms(1), ms(2))
        .build()
        .unwrap();
    let events = record_client(&client);
    server.refuse();
    let _subscription = client.subscribe(&Query::new("Game")).unwrap();
    for outage in 1..=2 {
        for _ in 0..5 {
            events.wait_for("reconnecting");
        }
        assert_eq!(events.count("error"), outage);
        server.listen_again();
        events.wait_for("open");
        if outage == 1 {
            server.refuse();
            server.conn(1).cut();
        }
    }
    assert_eq!(events.count("error"), 2);
    let errors: Vec<Error> = events
        .all()
        .iter()
        .filter(|seen| seen.kind == "error")
        .filter_map(|seen| seen.value.error().cloned())
        .collect();
    for error in errors {
        assert!(!error.is_fatal());
        assert_eq!(error.kind(), ErrorKind::Connect);
        assert!(error.to_string().contains("keeps trying"), "{error}");
    }
}

#[test]
fn a_client_has_listeners_for_each_event() {
    let server = Server::auto();
    let client = client(&server.url());
    let told = Recorder::<String>::new();
    let sink = |name: &'static str| {
        let told = told.clone();
        move |text: String| told.push("client", name, text)
    };
    let (open, close, error, any) = (sink("open"), sink("close"), sink("error"), sink("any"));
    client.on_open(move || open(String::new()));
    client.on_close(move |cause| close(format!("{:?}", cause.map(Error::kind))));
    client.on_error(move |failed| error(failed.to_string()));
    let listener = client.on_any(move |event| any(event.kind().to_string()));
    client.open();
    told.wait_for("open");
    server.refuse();
    server.conn(1).cut();
    assert_eq!(told.wait_for("close").value, "Some(ConnectionLost)");
    assert!(told.wait_for("error").value.contains("keeps trying"));
    assert_eq!(client.listener_count("open"), 2);
    assert_eq!(client.listener_count(ClientEventKind::Reconnecting), 1);
    assert!(client.off(listener));
    assert_eq!(client.listener_count("open"), 1);
    let kinds: Vec<_> = told.all().into_iter().filter(|seen| seen.kind == "any").collect();
    assert_eq!(kinds[0].value, "open");
    assert_eq!(kinds[1].value, "close");
}

#[test]
fn events_are_named_by_text_or_by_kind() {
    let server = Server::auto();
    let client = client(&server.url());
    let (subscription, _events) = subscribe(&client, "Game");
    let before = subscription.listener_count("update");
    let name = "update".to_owned();
    subscription.on(&name, |_| ());
    subscription.on(name.as_str(), |_| ());
    subscription.on("update", |_| ());
    subscription.on(EventKind::Update, |_| ());
    assert_eq!(subscription.listener_count(EventKind::Update), before + 4);
}

#[test]
fn all_listeners_go_at_once() {
    let server = Server::auto();
    let client = client(&server.url());
    let _client_events = record_client(&client);
    let (subscription, _events) = subscribe(&client, "Game");
    assert_eq!(subscription.class_name(), "Game");
    subscription.on_create(|_| ());
    subscription.off_all();
    client.off_all();
    for kind in EventKind::ALL {
        assert_eq!(subscription.listener_count(kind), 0, "{kind}");
    }
    for kind in ClientEventKind::ALL {
        assert_eq!(client.listener_count(kind), 0, "{kind}");
    }
}

#[test]
fn no_attempts_at_all_are_refused() {
    let error = builder("ws://localhost:1").max_attempts(0).build().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidSetting);
    assert!(error.to_string().contains("at least 1"), "{error}");
}

/// What a program compares to see whether anything has changed.
#[test]
fn figures_and_contents_can_be_compared() {
    let server = TestServer::start().unwrap();
    server.create("Game", json!({"score": 1}));
    let client = client(&server.url());
    assert_eq!(client.stats(), client.stats());
    let source = Arc::new(server);
    let finds = Arc::clone(&source);
    let set = client
        .live_set(&Query::new("Game"))
        .fetch_with(move |query| finds.find(query))
        .start()
        .unwrap();
    set.wait_ready(LONG).unwrap();
    let (before, subscription) = (set.snapshot(), set.subscription());
    assert_eq!(before, set.snapshot());
    assert_eq!(subscription.stats(), subscription.stats());
    source.create("Game", json!({"score": 2}));
    wait_until("it is there", || set.len() == 2);
    assert_ne!(before, set.snapshot());
    assert_eq!(set.query(), Query::new("Game"));
    assert!(
        subscription
            .stats()
            .last_event
            .is_some_and(|at| at <= SystemTime::now().into())
    );
}

#[test]
fn all_listeners_of_an_object_are_removed_at_once() {
    let server = TestServer::start().unwrap();
    let id = server.create("Game", json!({"score": 1}));
    let client = client(&server.url());
    let source = Arc::new(server);
    let finds = Arc::clone(&source);
    let game = client
        .live_object("Game", &id)
        .fetch_with(move |class, id| finds.get(class, id).map(Object::from_json).transpose())
        .start()
        .unwrap();
    game.wait_ready(LONG).unwrap();
    let (sender, told) = crossbeam_channel::unbounded();
    let of_change = sender.clone();
    game.on_change(move |_| of_change.send("change").unwrap());
    game.on_ready(move |_| sender.send("ready").unwrap());
    for _ in 0..2 {
        told.recv_timeout(LONG).unwrap();
    }
    game.off_all();
    let ended = crossbeam_channel::RecvTimeoutError::Disconnected;
    assert_eq!(
        told.recv_timeout(LONG).unwrap_err(),
        ended,
        "what they own is let go of"
    );
    source.update("Game", &id, json!({"score": 2}));
    wait_until("it goes on", || {
        game.object().is_some_and(|game| game.get_i64("score") == Some(2))
    });
}
