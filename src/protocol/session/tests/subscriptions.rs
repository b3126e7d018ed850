//! What is wanted and what the server has: made, changed, ended, restored.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Rig, spec, spec_of};
use crate::event::EventKind;
use crate::protocol::session::{Output, Received};
use crate::query::Query;
use crate::state::ClientState;

#[test]
fn nothing_is_sent_before_connected_and_all_of_it_after() {
    let mut rig = Rig::new();
    rig.subscribe(1, "Game");
    rig.subscribe(2, "Player");
    assert_eq!(rig.outputs(), ["connect"]);
    rig.session.transport_up();
    assert_eq!(rig.outputs(), ["send connect"]);
    rig.receive(json!({"op": "connected", "clientId": "c"}));
    assert_eq!(
        rig.outputs(),
        ["client open", "send subscribe 1 Game", "send subscribe 2 Player"]
    );
    rig.ack(2);
    rig.ack(1);
    assert_eq!(rig.outputs(), ["2: open", "1: open"]);
    assert_eq!(rig.session.state(), ClientState::Connected);
}

#[test]
fn an_unsubscribe_waits_for_the_acknowledgement() {
    let mut rig = Rig::live();
    rig.subscribe(1, "Game");
    rig.session.unsubscribe(1, rig.now);
    assert_eq!(rig.outputs(), ["send subscribe 1 Game", "1: close"]);
    rig.ack(1);
    assert_eq!(rig.outputs(), ["send unsubscribe 1"]);
    rig.receive(json!({"op": "unsubscribed", "requestId": 1}));
    assert_eq!(rig.outputs(), Vec::<String>::new());
    assert!(rig.session.subscriptions.is_empty());
}

#[test]
fn updates_wait_for_the_acknowledgement_and_only_the_last_is_sent() {
    let mut rig = Rig::live();
    rig.subscribed(1);
    rig.session.update(1, 1, spec("A"), rig.now);
    rig.session.update(1, 1, spec("B"), rig.now);
    rig.session.update(1, 1, spec("C"), rig.now);
    assert_eq!(rig.outputs(), ["send update 1 A"]);
    rig.now.wall += Duration::from_secs(2);
    rig.ack(1);
    assert_eq!(
        rig.outputs(),
        ["1: close", "1: open after QueryUpdated 2s", "send update 1 C"]
    );
    rig.ack(1);
    assert_eq!(rig.outputs(), ["1: close", "1: open after QueryUpdated 0ns"]);
}

#[test]
fn a_refused_update_brings_the_old_query_back() {
    let mut rig = Rig::live();
    rig.subscribed(1);
    rig.session.update(1, 1, spec("Forbidden"), rig.now);
    rig.outputs();
    rig.error(119, "Permission denied", false, json!(1));
    assert_eq!(rig.outputs(), ["1: error Server", "send subscribe 1 Game"]);
    rig.ack(1);
    assert_eq!(rig.outputs(), ["1: close", "1: open after QueryUpdated 0ns"]);
    assert_eq!(
        rig.receive(json!({"op": "create", "requestId": 1, "object": {}})),
        Some(1)
    );
}

#[test]
fn an_update_that_is_refused_on_the_next_connection_brings_the_old_query_back() {
    let mut rig = Rig::live();
    rig.subscribed(1);
    rig.session.update(1, 1, spec("Forbidden"), rig.now);
    rig.lose();
    rig.come_back();
    rig.outputs();
    rig.error(119, "Permission denied", false, json!(1));
    assert_eq!(rig.outputs(), ["1: error Server", "send subscribe 1 Game"]);
}

#[test]
fn a_refused_subscription_fails_alone_and_can_be_tried_again() {
    let mut rig = Rig::live();
    rig.subscribed(1);
    rig.subscribe(2, "Refused");
    rig.outputs();
    rig.error(141, "no", false, json!(2));
    assert_eq!(rig.outputs(), ["2: error Server fatal", "2: close"]);
    assert_eq!(rig.session.state(), ClientState::Connected);
    rig.session.update(2, 2, spec("Game"), rig.now);
    assert_eq!(rig.outputs(), ["send subscribe 2 Game"]);
}

#[test]
fn a_subscription_that_failed_later_on_comes_back_with_a_gap() {
    let mut rig = Rig::live();
    rig.subscribed(1);
    let start = rig.now.mono;
    rig.lose();
    rig.wait();
    rig.greet();
    rig.outputs();
    rig.error(119, "Permission denied", false, json!(1));
    assert_eq!(rig.outputs(), ["1: error Server fatal", "1: close"]);
    rig.session.update(1, 1, spec("Other"), rig.now);
    rig.ack(1);
    assert_eq!(
        rig.outputs(),
        [
            "send subscribe 1 Other".to_owned(),
            format!("1: open after ConnectionLost {:?}", rig.now.mono - start)
        ]
    );
}

/// The values that its listeners own are freed by that `close`.
#[test]
fn a_failed_subscription_that_is_ended_is_told_so() {
    let mut rig = Rig::live();
    for id in 1..=3 {
        rig.subscribe(id, "Refused");
        rig.error(119, "no", false, json!(id));
    }
    rig.outputs();
    rig.session.unsubscribe(1, rig.now);
    assert_eq!(rig.outputs(), ["1: close"]);
    rig.session.close(3, rig.now);
    assert_eq!(rig.outputs(), ["2: close", "farewell", "client close"]);
    rig.session.unsubscribe(1, rig.now);
    assert_eq!(rig.outputs(), Vec::<String>::new());
}

#[test]
fn an_error_of_a_live_subscription_leaves_it_alive() {
    let mut rig = Rig::live();
    rig.subscribed(1);
    rig.error(141, "afterLiveQueryEvent threw", false, json!(1));
    assert_eq!(rig.outputs(), ["1: error Server"]);
    assert_eq!(
        rig.receive(json!({"op": "update", "requestId": 1, "object": {}})),
        Some(1)
    );
}

#[test]
fn restored_is_what_is_wanted_and_the_frames_are_the_same() {
    let mut rig = Rig::live();
    let query = Query::new("Game")
        .greater_than("score", 10)
        .select(["score"])
        .watch(["score"]);
    rig.session.subscribe(1, 1, spec_of(&query), rig.now);
    let Some(Output::Send(first)) = rig.session.next_output() else {
        panic!()
    };
    rig.ack(1);
    rig.subscribed(2);
    rig.session.unsubscribe(2, rig.now);
    rig.subscribe(3, "Game");
    rig.outputs();
    rig.lose();
    assert_eq!(
        rig.outputs(),
        [
            "disconnect",
            "1: close ConnectionLost",
            "client close",
            "client reconnecting"
        ]
    );
    rig.session.unsubscribe(3, rig.now);
    rig.wait();
    rig.session.transport_up();
    rig.outputs();
    rig.receive(json!({"op": "connected"}));
    assert!(matches!(rig.session.next_output(), Some(Output::ClientEvent(_))));
    let Some(Output::Send(second)) = rig.session.next_output() else {
        panic!()
    };
    assert_eq!(first, second);
    assert!(rig.session.next_output().is_none());
}

#[test]
fn nothing_is_given_out_before_open() {
    let mut rig = Rig::live();
    rig.subscribed(1);
    rig.lose();
    rig.come_back();
    rig.outputs();
    let event = json!({"op": "create", "requestId": 1, "object": {}});
    assert_eq!(rig.receive(event.clone()), None);
    rig.ack(1);
    assert_eq!(rig.receive(event), Some(1));
}

#[test]
fn close_tells_all_and_ids_above_its_mark_live_on() {
    let mut rig = Rig::live();
    rig.subscribed(1);
    rig.subscribed(2);
    rig.subscribe(3, "Game");
    rig.session.close(3, rig.now);
    assert_eq!(
        rig.outputs(),
        [
            "send subscribe 3 Game",
            "1: close",
            "2: close",
            "farewell",
            "client close",
            "connect"
        ]
    );
    rig.greet();
    assert_eq!(
        rig.outputs(),
        ["send connect", "client open", "send subscribe 3 Game"]
    );
    rig.session.close(u64::MAX, rig.now);
    rig.outputs();
    assert_eq!(rig.session.state(), ClientState::Closed);
    rig.pass(Duration::from_secs(3600));
    assert_eq!(rig.outputs(), Vec::<String>::new());
    assert_eq!(rig.session.deadline(), None);
}

#[test]
fn double_unsubscribe_quiet() {
    let mut rig = Rig::live();
    rig.subscribed(1);
    for _ in 0..3 {
        rig.session.unsubscribe(1, rig.now);
    }
    assert_eq!(
        rig.outputs()
            .iter()
            .filter(|line| line.starts_with("send"))
            .count(),
        1
    );
    rig.error(
        2,
        "Cannot find subscription with clientId c subscriptionId 1. Make sure",
        true,
        Value::Null,
    );
    assert_eq!(rig.outputs(), Vec::<String>::new());
    assert!(rig.session.subscriptions.is_empty() && rig.session.answers.is_empty());
}

#[test]
fn kinds_reach_the_caller() {
    let mut rig = Rig::live();
    rig.subscribed(1);
    for kind in [
        EventKind::Create,
        EventKind::Update,
        EventKind::Enter,
        EventKind::Leave,
        EventKind::Delete,
    ] {
        let text =
            json!({"op": kind.as_str(), "requestId": 1, "object": {"a": 1}, "original": {}}).to_string();
        let Received { handle, frame, .. } = rig.session.received(&text, rig.now).unwrap();
        assert_eq!(
            (handle, frame.kind, frame.object, frame.original),
            (&1, kind, r#"{"a":1}"#, Some("{}"))
        );
    }
}
