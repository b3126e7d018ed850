//! What is sent to old and new servers.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Rig, SCHEMA_ERROR, spec_of};
use crate::protocol::session::Output;
use crate::protocol::spec::Spec;
use crate::query::Query;
use crate::secret::Secret;

#[test]
fn servers_before_7_are_asked_with_fields() {
    let mut rig = Rig::live();
    let query = Query::new("Game").select(["score"]).watch(["score"]);
    rig.session.subscribe(1, 1, spec_of(&query), rig.now);
    rig.outputs();
    rig.error(1, SCHEMA_ERROR, true, Value::Null);
    let Some(Output::Send(frame)) = rig.session.next_output() else {
        panic!()
    };
    let frame: Value = serde_json::from_str(&frame).unwrap();
    assert_eq!(
        frame["query"],
        json!({"className": "Game", "where": {}, "fields": ["score"]})
    );
    rig.ack(1);
    assert_eq!(rig.outputs()[0], "1: open");
    // The next connection, to the same server, needs no second attempt.
    rig.lose();
    rig.come_back();
    assert!(
        rig.session
            .subscriptions
            .values()
            .all(|subscription| !subscription.respelled)
    );
    rig.ack(1);
    // A server that was upgraded in the meantime refuses `fields`.
    rig.lose();
    rig.come_back();
    rig.outputs();
    rig.error(1, SCHEMA_ERROR, true, Value::Null);
    let Some(Output::Send(frame)) = rig.session.next_output() else {
        panic!()
    };
    assert!(frame.contains(r#""keys":["score"],"watch":["score"]"#), "{frame}");
    // A server that accepts neither is not asked forever.
    rig.error(1, SCHEMA_ERROR, true, Value::Null);
    let outputs = rig.outputs();
    assert_eq!(outputs, ["1: error Server fatal", "1: close"]);
}

#[test]
fn servers_before_3_10_are_connected_to_without_installation_id() {
    let mut rig = Rig::with(|settings| settings.credentials.installation_id = Some("i".into()));
    rig.session.open(rig.now);
    rig.session.transport_up();
    rig.session.next_output();
    let Some(Output::Send(frame)) = rig.session.next_output() else {
        panic!()
    };
    assert!(frame.contains(r#""installationId":"i""#));
    rig.error(1, SCHEMA_ERROR, true, Value::Null);
    assert_eq!(rig.outputs(), ["disconnect", "connect"]);
    rig.session.transport_up();
    let Some(Output::Send(frame)) = rig.session.next_output() else {
        panic!()
    };
    assert_eq!(frame, r#"{"op":"connect","applicationId":"app"}"#);
}

#[test]
fn no_nulls_on_wire_and_the_session_token_goes_with_each_subscription() {
    let mut rig = Rig::with(|settings| settings.credentials.session_token = Some(Secret::from("r:client")));
    rig.session.open(rig.now);
    rig.session.next_output();
    rig.session.transport_up();
    let Some(Output::Send(connect)) = rig.session.next_output() else {
        panic!()
    };
    assert_eq!(
        connect,
        r#"{"op":"connect","applicationId":"app","sessionToken":"r:client"}"#
    );
    rig.receive(json!({"op": "connected"}));
    rig.outputs();
    rig.subscribe(1, "Game");
    let Some(Output::Send(frame)) = rig.session.next_output() else {
        panic!()
    };
    assert_eq!(
        frame,
        r#"{"op":"subscribe","requestId":1,"query":{"className":"Game","where":{}},"sessionToken":"r:client"}"#
    );
    let own = Spec::new(
        Query::new("Game").encode().unwrap(),
        Some(Secret::from("r:own")),
        0,
    );
    rig.session.subscribe(2, 2, Arc::new(own), rig.now);
    let Some(Output::Send(frame)) = rig.session.next_output() else {
        panic!()
    };
    assert!(frame.ends_with(r#""sessionToken":"r:own"}"#), "{frame}");
}

#[test]
fn several_subscriptions_find_out_together_what_an_old_server_wants() {
    let mut rig = Rig::live();
    for id in 1..=3 {
        let query = Query::new("Game").select(["score"]);
        rig.session.subscribe(id, id, spec_of(&query), rig.now);
    }
    rig.outputs();
    for _ in 1..=3 {
        rig.error(1, SCHEMA_ERROR, true, Value::Null);
    }
    let frames: Vec<_> = std::iter::from_fn(|| rig.session.next_output()).collect();
    assert_eq!(frames.len(), 3);
    for frame in frames {
        assert!(
            matches!(&frame, Output::Send(text) if text.contains("fields")),
            "{frame:?}"
        );
    }
}

#[test]
fn a_watch_that_the_server_does_not_know_is_an_error_event() {
    let mut rig = Rig::live();
    let query = Query::new("Game").watch(["score"]);
    rig.session.subscribe(1, 1, spec_of(&query), rig.now);
    rig.error(1, SCHEMA_ERROR, true, Value::Null);
    rig.outputs();
    rig.ack(1);
    assert_eq!(rig.outputs(), ["1: open", "1: error InvalidQuery"]);
    // Later ones are not requested with `watch`, and are notified of that nevertheless.
    rig.session.subscribe(2, 2, spec_of(&query), rig.now);
    rig.outputs();
    rig.ack(2);
    assert_eq!(rig.outputs(), ["2: open", "2: error InvalidQuery"]);
    // Once is enough.
    rig.lose();
    rig.come_back();
    rig.outputs();
    rig.ack(1);
    assert!(!rig.outputs().iter().any(|line| line.contains("error")));
}
