//! Which subscription gets which event, and what `update` and `unsubscribe` change, however fast they come.

use parse_livequery::{ErrorKind, EventKind, Gap, GapReason, Query};
use serde_json::json;

use crate::recorder::{Recorder, client, record};
use crate::support::{ParseServer, wait_until};

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn subscribers_with_swapped_values_get_their_own_events() {
    // Parse Server 9.10, QueryTools.js: its hash sorts the values apart from the keys, so that both of these queries
    // have the same one and the second subscriber would be given the events of the first.
    let server = ParseServer::shared();
    let query = |from, to| Query::new("Message").equal_to("from", from).equal_to("to", to);
    let (first, second) = (client(server), client(server));
    let forth = record(&first, &query("alice", "bob"));
    let back = record(&second, &query("bob", "alice"));
    let back_too = record(&first, &query("bob", "alice"));

    for text in ["one", "two"] {
        let message = json!({"from": "alice", "to": "bob", "text": text});
        let alice_to_bob = server.create("Message", &message);
        let bob_to_alice = server.create("Message", &json!({"from": "bob", "to": "alice", "text": text}));
        forth.expect_of(EventKind::Create, &alice_to_bob);
        back.expect_of(EventKind::Create, &bob_to_alice);
        back_too.expect_of(EventKind::Create, &bob_to_alice);
    }
    for recorder in [forth, back, back_too] {
        recorder.end();
    }
}

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn an_unsubscribe_that_overtakes_the_acknowledgement_leaves_nothing_on_the_server() {
    let server = ParseServer::shared();
    let client = client(server);
    let query = |name| Query::new("SlowToEnd").equal_to(name, true);
    let brief = Recorder::start(client.subscription(&query("brief")));
    let dropped = Recorder::start(client.subscription(&query("dropped")));
    // Once this one is acknowledged the server has both of them, and has not answered them.
    record(&client, &Query::new("Quick")).end();
    brief.subscription.unsubscribe();
    drop(dropped);

    // The server takes as long for this one, so the others would have been acknowledged before it.
    let stays = record(&client, &Query::new("SlowToEnd"));
    wait_until("the server holds one subscription", || {
        server.subscriptions("SlowToEnd").len() == 1
    });
    let id = server.create("SlowToEnd", &json!({"brief": true, "dropped": true}));
    stays.expect_of(EventKind::Create, &id);
    brief.expect_nothing();
    stays.end();
    wait_until("the server holds no subscription", || {
        server.subscriptions("SlowToEnd").is_empty()
    });
}

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn an_update_changes_what_comes() {
    let server = ParseServer::shared();
    let client = client(server);
    let recorder = record(&client, &Query::new("Updated").less_than("size", 10));
    server.create("Updated", &json!({"size": 11}));
    let id = server.create("Updated", &json!({"size": 1}));
    recorder.expect_of(EventKind::Create, &id);

    recorder
        .subscription
        .update(&Query::new("Updated").greater_than("size", 10))
        .unwrap();
    recorder.expect(EventKind::Close);
    let opened = recorder.expect(EventKind::Open);
    assert_eq!(opened.gap().map(Gap::reason), Some(GapReason::QueryUpdated));
    server.create("Updated", &json!({"size": 2}));
    let id = server.create("Updated", &json!({"size": 12}));
    recorder.expect_of(EventKind::Create, &id);
    assert_eq!(server.subscriptions("Updated").len(), 1);
    recorder.end();
}

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn of_updates_faster_than_the_server_the_last_one_holds() {
    let server = ParseServer::shared();
    let client = client(server);
    let query = |lane| Query::new("SlowToUpdate").equal_to("lane", lane);
    let recorder = Recorder::start(client.subscription(&query("a")));
    // Once this one is acknowledged the server has the other, and has not answered it.
    record(&client, &Query::new("Quick")).end();
    for lane in ["b", "c", "d"] {
        recorder.subscription.update(&query(lane)).unwrap();
    }
    wait_until("the server holds the last query", || {
        let held = server.subscriptions("SlowToUpdate");
        held.len() == 1 && held[0].r#where == json!({"lane": "d"})
    });

    for lane in ["a", "b", "c"] {
        server.create("SlowToUpdate", &json!({"lane": lane}));
    }
    let id = server.create("SlowToUpdate", &json!({"lane": "d"}));
    assert_eq!(recorder.next_object().id(), Some(&*id));
    recorder.end();
}

#[test]
#[ignore = "needs Node.js 20 and npm"]
fn a_refused_update_leaves_the_old_query_working() {
    // Parse Server 9.10, ParseLiveQueryServer.js: an update ends the old subscription before the hook sees the new
    // query, so a refusal leaves the client with neither.
    let server = ParseServer::shared();
    let client = client(server);
    let recorder = record(&client, &Query::new("Guarded").equal_to("kind", "a"));

    recorder
        .subscription
        .update(&Query::new("Guarded").equal_to("forbidden", 1))
        .unwrap();
    let event = recorder.expect(EventKind::Error);
    let error = event.error().unwrap();
    assert_eq!(
        (error.kind(), error.code(), error.is_fatal()),
        (ErrorKind::Server, Some(102), false)
    );
    assert!(
        error.to_string().contains("forbidden may not be queried"),
        "{error}"
    );

    recorder.expect(EventKind::Close);
    let opened = recorder.expect(EventKind::Open);
    assert_eq!(opened.gap().map(Gap::reason), Some(GapReason::QueryUpdated));
    server.create("Guarded", &json!({"forbidden": 1}));
    let id = server.create("Guarded", &json!({"kind": "a"}));
    recorder.expect_of(EventKind::Create, &id);
    let held = server.subscriptions("Guarded");
    assert_eq!((held.len(), &held[0].r#where), (1, &json!({"kind": "a"})));
    recorder.end();
}
