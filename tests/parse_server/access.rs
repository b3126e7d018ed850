//! Who gets what: access control lists, hooks of the server that refuse, and keys that are wrong.

use std::sync::mpsc;
use std::time::Duration;

use parse_livequery::{Client, ClientState, Error, ErrorKind, EventKind, Query, SubscriptionState};
use serde_json::json;

use crate::recorder::{Recorder, builder, client, record};
use crate::support::{APPLICATION_ID, JAVASCRIPT_KEY, PATIENCE, ParseServer, only};

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn an_object_comes_to_those_who_may_read_it() {
    let server = ParseServer::shared();
    let (alice, bob) = (server.sign_up("acl-alice"), server.sign_up("acl-bob"));
    let query = Query::new("Private");
    let client = client(server);
    let of_alice = Recorder::open(client.subscription(&query).session_token(&alice.session_token));
    let of_nobody = record(&client, &query);
    let client_of_bob = builder(server).session_token(&bob.session_token).build().unwrap();
    let of_bob = record(&client_of_bob, &query);

    // One after another: Parse Server looks tokens up while it handles the next object, and may send that one first.
    let for_alice = server.create("Private", &json!({"ACL": only(&alice)}));
    of_alice.expect_of(EventKind::Create, &for_alice);
    let for_bob = server.create("Private", &json!({"ACL": only(&bob)}));
    of_bob.expect_of(EventKind::Create, &for_bob);
    let for_all = server.create("Private", &json!({"ACL": {"*": {"read": true}}}));
    for recorder in [&of_alice, &of_bob, &of_nobody] {
        recorder.expect_of(EventKind::Create, &for_all);
    }

    // The right to read is a part of the query.
    server.update("Private", &for_alice, &json!({"ACL": only(&bob), "secret": 1}));
    let left = of_alice.expect_of(EventKind::Leave, &for_alice);
    assert_eq!(left.get("secret"), None);
    let entered = of_bob.expect_of(EventKind::Enter, &for_alice);
    assert!(entered.original().is_none());

    for recorder in [of_alice, of_bob, of_nobody] {
        recorder.end();
    }
}

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn a_refused_subscription_gets_its_error_and_the_others_stay() {
    let server = ParseServer::shared();
    let client = client(server);
    let stays = record(&client, &Query::new("Stays"));

    let refused = Recorder::start(client.subscription(&Query::new("Refused")));
    let error = refused.subscription.wait_open(PATIENCE).unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Server, Some(119)));
    let event = refused.expect(EventKind::Error);
    let error = event.error().unwrap();
    assert!(error.is_fatal(), "{error:?}");
    assert!(
        error.to_string().contains("subscriptions to Refused are refused"),
        "{error}"
    );
    assert_eq!(refused.subscription.state(), SubscriptionState::Failed);

    let id = server.create("Stays", &json!({}));
    stays.expect_of(EventKind::Create, &id);
    stays.end();
    refused.expect_nothing();
    assert!(server.subscriptions("Refused").is_empty());
}

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn select_behind_a_hook_fails_with_the_reason() {
    // Parse Server 9.10, ParseLiveQueryServer.js: after a `beforeSubscribe` hook it takes `keys` for a string.
    let server = ParseServer::shared();
    let client = client(server);
    let refused = Recorder::start(client.subscription(&Query::new("Guarded").select(["kind"])));
    let error = refused.subscription.wait_open(PATIENCE).unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Server, Some(141)));
    assert!(error.to_string().contains("`beforeSubscribe`"), "{error}");
}

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn a_subscription_survives_an_event_that_fails_in_the_server() {
    let server = ParseServer::shared();
    let client = client(server);
    let recorder = record(&client, &Query::new("Throws"));

    server.create("Throws", &json!({"fail": true}));
    let event = recorder.expect(EventKind::Error);
    let error = event.error().unwrap();
    assert_eq!(
        (error.kind(), error.code(), error.is_fatal()),
        (ErrorKind::Server, Some(141), false)
    );
    assert!(
        error.to_string().contains("afterLiveQueryEvent failed"),
        "{error}"
    );

    let id = server.create("Throws", &json!({"fail": false}));
    recorder.expect_of(EventKind::Create, &id);
    recorder.end();
}

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn a_wrong_javascript_key_is_one_error_and_one_connection() {
    let server = ParseServer::shared();
    let client = Client::builder(format!("{}?wrong-key", server.ws_url()), APPLICATION_ID)
        .javascript_key("wrong")
        .reconnect_delay(Duration::from_millis(1), Duration::from_millis(1))
        .build()
        .unwrap();
    refused_once(server, &client, "/parse?wrong-key", 4);
}

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn a_connection_that_a_hook_refuses_is_one_error_and_one_connection() {
    let server = ParseServer::shared();
    let client = Client::builder(format!("{}?refused", server.ws_url()), APPLICATION_ID)
        .javascript_key(JAVASCRIPT_KEY)
        .installation_id("refused")
        .reconnect_delay(Duration::from_millis(1), Duration::from_millis(1))
        .build()
        .unwrap();
    refused_once(server, &client, "/parse?refused", 119);
}

/// The client gets one error, stays disconnected, and does not come back to the server.
#[track_caller]
fn refused_once(server: &ParseServer, refused: &Client, target: &str, code: i64) {
    let (sender, errors) = mpsc::channel();
    refused.on("error", move |event| {
        let _ = sender.send(event.error().cloned());
    });
    let recorder = Recorder::start(refused.subscription(&Query::new("Anything")));
    let error = errors.recv_timeout(PATIENCE).unwrap().unwrap();
    assert_eq!(
        (error.kind(), error.code(), error.is_fatal()),
        (ErrorKind::Refused, Some(code), true)
    );
    assert!(recorder.subscription.wait_open(PATIENCE).is_err());
    assert_eq!(refused.wait_closed().unwrap_err().kind(), ErrorKind::Refused);
    assert_eq!(refused.state(), ClientState::Disconnected);
    assert_eq!(
        recorder.expect(EventKind::Error).error().and_then(Error::code),
        Some(code)
    );

    // Connections made after that refusal are counted at the server; a reconnect would have come in between.
    let client = client(server);
    // Other tests create objects on this server at the same time.
    let class_name = format!("Refused{code}");
    let marker = record(&client, &Query::new(&class_name));
    let id = server.create(&class_name, &json!({}));
    marker.expect_of(EventKind::Create, &id);
    marker.end();
    assert_eq!(server.connections(target), 1);
    assert!(errors.try_recv().is_err());
}
