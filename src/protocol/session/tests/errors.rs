//! The meaning of the server's errors, and meaningless messages.

use std::time::Duration;

use serde_json::{Value, json};

use super::Rig;
use crate::event::EventKind;
use crate::protocol::session::Output;
use crate::state::ClientState;

/// The effect of each server error on the client and on a subscription.
#[test]
fn error_code_table() {
    // In answer to `connect`.
    for (code, reconnect, state, kind) in [
        (
            1,
            true,
            ClientState::Disconnected,
            Some("client error Refused fatal"),
        ),
        (
            3,
            true,
            ClientState::Disconnected,
            Some("client error Refused fatal"),
        ),
        (
            4,
            true,
            ClientState::Disconnected,
            Some("client error Refused fatal"),
        ),
        (
            141,
            false,
            ClientState::Disconnected,
            Some("client error Refused fatal"),
        ),
        (
            119,
            false,
            ClientState::Disconnected,
            Some("client error Refused fatal"),
        ),
        (2, true, ClientState::Reconnecting, None),
        (1000, true, ClientState::Reconnecting, None),
    ] {
        let mut rig = Rig::new();
        rig.session.open(rig.now);
        rig.session.transport_up();
        rig.outputs();
        rig.error(code, "no", reconnect, Value::Null);
        let outputs = rig.outputs();
        assert_eq!(rig.session.state(), state, "code {code}");
        assert_eq!(outputs[0], "disconnect");
        assert_eq!(
            outputs.get(1).filter(|_| kind.is_some()).map(String::as_str),
            kind
        );
        rig.pass(Duration::from_secs(3600));
        assert_eq!(
            rig.outputs().contains(&"connect".to_owned()),
            kind.is_none(),
            "code {code}"
        );
    }
    // On a live connection, with one subscription that is acknowledged and one that is not.
    for (code, text, reconnect, id, outputs) in [
        (
            1,
            "schema",
            true,
            Value::Null,
            vec!["2: error Server fatal", "2: close"],
        ),
        (
            3,
            "unknown op",
            true,
            Value::Null,
            vec!["2: error Server fatal", "2: close"],
        ),
        (
            101,
            "old server",
            false,
            Value::Null,
            vec!["2: error Server fatal", "2: close"],
        ),
        (141, "hook", false, json!(1), vec!["1: error Server"]),
        (
            141,
            "hook",
            false,
            json!(2),
            vec!["2: error Server fatal", "2: close"],
        ),
        (
            209,
            "invalid session token",
            false,
            json!(2),
            vec!["2: error Server fatal", "2: close"],
        ),
        (
            102,
            "bad regex",
            true,
            json!(2),
            vec!["2: error Server fatal", "2: close"],
        ),
        (141, "hook", false, json!(7), vec![]),
        (
            2,
            "Can not find this client, make sure you connect to server before subscribing",
            true,
            Value::Null,
            vec![
                "disconnect",
                "1: close ConnectionLost",
                "client close",
                "client reconnecting",
            ],
        ),
        (
            2,
            "Cannot find subscription with clientId c subscriptionId 7. Make sure ..",
            true,
            Value::Null,
            vec![],
        ),
        (
            4,
            "Key in request is not valid",
            true,
            Value::Null,
            vec![
                "disconnect",
                "1: close Refused",
                "client close",
                "client error Refused fatal",
                "1: error Refused",
                "2: error Refused",
            ],
        ),
        (
            1000,
            "overload",
            true,
            Value::Null,
            vec![
                "disconnect",
                "1: close ConnectionLost",
                "client close",
                "client reconnecting",
            ],
        ),
    ] {
        let mut rig = Rig::live();
        rig.subscribed(1);
        rig.subscribe(2, "Game");
        rig.outputs();
        rig.error(code, text, reconnect, id.clone());
        assert_eq!(rig.outputs(), outputs, "code {code}, requestId {id}");
    }
}

#[test]
fn an_error_without_an_id_is_the_clients_when_nothing_is_under_way() {
    let mut rig = Rig::live();
    rig.subscribed(1);
    rig.error(1, "schema", true, Value::Null);
    assert_eq!(rig.outputs(), ["client error Server"]);
    assert_eq!(rig.session.state(), ClientState::Connected);
}

#[test]
fn an_error_without_an_id_finds_its_subscription_among_many() {
    let mut rig = Rig::live();
    for id in 1..=5 {
        rig.subscribe(id, "Game");
    }
    rig.outputs();
    rig.error(1, "schema", true, Value::Null);
    assert_eq!(rig.outputs(), Vec::<String>::new(), "it may be any of the five");
    for id in [1, 2, 4] {
        rig.ack(id);
    }
    assert_eq!(rig.outputs(), ["1: open", "2: open", "4: open"]);
    rig.ack(5);
    assert_eq!(rig.outputs(), ["5: open", "3: error Server fatal", "3: close"]);
}

#[test]
fn an_error_without_an_id_is_attributed_even_when_it_is_late() {
    let mut rig = Rig::live();
    rig.subscribe(1, "Game");
    rig.outputs();
    rig.pass(Duration::from_secs(10));
    assert_eq!(rig.outputs(), ["1: error Timeout"]);
    rig.error(1, "schema", true, Value::Null);
    assert_eq!(rig.outputs(), ["1: error Server fatal", "1: close"]);
}

#[test]
fn messages_that_mean_nothing_change_nothing() {
    let mut rig = Rig::live();
    rig.subscribed(1);
    for message in [
        json!({"op": "connected", "clientId": "x", "requestId": 1, "object": {}}),
        json!({"op": "surprise", "requestId": 1}),
        json!({"op": "create", "requestId": 99, "object": {}}),
        json!({"op": "subscribed", "requestId": 99}),
        json!({"op": "subscribed", "requestId": 1}),
        json!({"op": "unsubscribed", "requestId": 99}),
    ] {
        assert_eq!(rig.receive(message.clone()), None);
        assert_eq!(rig.outputs(), Vec::<String>::new(), "{message}");
    }
    for text in [
        "",
        "null",
        "7",
        "[]",
        "{",
        "{}",
        r#"{"op":7}"#,
        "\u{0}",
        r#"{"op":"create","object":{}}"#,
        r#"{"op":"create","requestId":1}"#,
        r#"{"op":"create","requestId":1,"object":7}"#,
        r#"{"op":"subscribed"}"#,
    ] {
        rig.session.received(text, rig.now);
        assert_eq!(rig.outputs(), ["client error Protocol"], "{text}");
    }
    assert_eq!(
        rig.receive(json!({"op": "create", "requestId": "1", "object": {}})),
        Some(1)
    );
}

/// The texts of the errors that are reported for a subscription.
fn errors_of(rig: &mut Rig, id: u64) -> Vec<String> {
    std::iter::from_fn(|| rig.session.next_output())
        .filter_map(|output| match output {
            Output::Event(of, event) if of == id && event.kind() == EventKind::Error => Some(event),
            _ => None,
        })
        .map(|event| event.error().unwrap().to_string())
        .collect()
}

#[test]
fn an_error_that_may_be_meant_for_several_is_reported_to_all_when_an_answer_is_late() {
    let mut rig = Rig::live();
    for id in 1..=3 {
        rig.subscribe(id, "Game");
    }
    rig.ack(3);
    rig.outputs();
    rig.error(1, "Array is too short", true, Value::Null);
    assert_eq!(rig.outputs(), Vec::<String>::new(), "the other answer will tell");
    rig.pass(Duration::from_secs(10));
    assert_eq!(
        rig.outputs(),
        ["1: error Server", "2: error Server", "1: error Timeout"]
    );
    rig.pass(Duration::from_secs(9));
    rig.error(1, "Array is too long", true, Value::Null);
    let text = errors_of(&mut rig, 2).join("; ");
    assert!(text.contains("too long"), "now it is certain: {text}");
    assert_eq!(rig.session.state(), ClientState::Connected);
}

#[test]
fn an_error_that_may_be_meant_for_several_names_its_reason() {
    let mut rig = Rig::live();
    rig.subscribe(1, "Game");
    rig.subscribe(2, "Game");
    rig.error(1, "Array is too short", true, Value::Null);
    rig.pass(Duration::from_secs(10));
    let errors = errors_of(&mut rig, 2);
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(
        errors[0].contains("Array is too short") && errors[0].contains("one of 2"),
        "{errors:?}"
    );
}

#[test]
fn an_error_that_may_be_meant_for_several_is_reported_when_the_connection_is_lost() {
    let mut rig = Rig::live();
    rig.subscribe(1, "Game");
    rig.subscribe(2, "Game");
    rig.error(1, "no", true, Value::Null);
    rig.outputs();
    rig.lose();
    assert_eq!(
        rig.outputs(),
        [
            "disconnect",
            "1: error Server",
            "2: error Server",
            "client close",
            "client reconnecting"
        ]
    );
}

#[test]
fn an_error_that_is_meant_for_nobody_any_more_is_the_clients() {
    let mut rig = Rig::live();
    rig.subscribe(1, "Game");
    rig.subscribe(2, "Game");
    rig.session.unsubscribe(1, rig.now);
    rig.session.unsubscribe(2, rig.now);
    rig.error(1, "no", true, Value::Null);
    rig.outputs();
    rig.lose();
    assert_eq!(
        rig.outputs(),
        [
            "disconnect",
            "client error Server",
            "client close",
            "client reconnecting"
        ]
    );
}

#[test]
fn errors_of_known_faults_name_the_way_out() {
    for (code, text, hint) in [
        (141, "json.keys.split is not a function", "6.5 to 9.10"),
        (141, "json.watch.split is not a function", "leave them out"),
        (
            141,
            "Cannot read properties of undefined (reading 'requestComplexity')",
            "in the process of the Parse Server",
        ),
        // The exact text of Parse Server 9.10.
        (102, "$regex operator is not allowed", "allowRegex"),
        (
            102,
            "Query condition nesting depth exceeds maximum allowed depth of 10",
            "queryDepth",
        ),
    ] {
        let mut rig = Rig::live();
        rig.subscribe(1, "Game");
        rig.error(code, text, false, json!(1));
        let errors = errors_of(&mut rig, 1);
        assert!(errors[0].contains(hint), "{errors:?}");
    }
}
