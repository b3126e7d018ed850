//! Session tokens: changed, refused, renewed.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::Rig;
use crate::protocol::session::Output;
use crate::protocol::spec::Spec;
use crate::query::Query;
use crate::secret::Secret;
use crate::state::ClientState;

/// A query with a session token of its own, the given one of those that the subscription has had.
fn spec_as(class: &str, identity: u64) -> Arc<Spec> {
    let session_token = Some(Secret::from(format!("r:{identity}")));
    Arc::new(Spec::new(
        Query::new(class).encode().unwrap(),
        session_token,
        identity,
    ))
}

#[test]
fn after_a_new_token_of_a_subscription_nothing_comes_of_the_old_one() {
    let mut rig = Rig::live();
    rig.session.subscribe(1, 1, spec_as("Game", 0), rig.now);
    rig.ack(1);
    rig.outputs();
    rig.session.update(1, 1, spec_as("Game", 1), rig.now);
    let event = json!({"op": "create", "requestId": 1, "object": {}});
    assert_eq!(rig.receive(event.clone()), None, "it came under the old token");
    rig.ack(1);
    assert_eq!(
        rig.outputs()[1..],
        ["1: close", "1: open after SessionTokenChanged 0ns"]
    );
    let text = event.to_string();
    assert_eq!(rig.session.received(&text, rig.now).unwrap().identity, 1);
}

#[test]
fn a_refused_token_of_a_subscription_does_not_bring_the_old_one_back() {
    let mut rig = Rig::live();
    rig.session.subscribe(1, 1, spec_as("Game", 0), rig.now);
    rig.ack(1);
    rig.session.update(1, 1, spec_as("Game", 1), rig.now);
    rig.outputs();
    rig.error(209, "Invalid session token", false, json!(1));
    assert_eq!(rig.outputs(), ["1: error Server fatal", "1: close"]);
}

#[test]
fn a_new_token_of_the_client_makes_a_new_connection_with_it() {
    let mut rig = Rig::live();
    rig.subscribed(1);
    rig.session
        .set_session_token(Some(Secret::from("r:new")), rig.now);
    assert_eq!(
        rig.outputs(),
        ["disconnect", "1: close", "client close", "connect"]
    );
    rig.session.transport_up();
    let Some(Output::Send(connect)) = rig.session.next_output() else {
        panic!()
    };
    assert!(connect.contains(r#""sessionToken":"r:new""#), "{connect}");
    rig.receive(json!({"op": "connected"}));
    rig.session.next_output();
    let Some(Output::Send(subscribe)) = rig.session.next_output() else {
        panic!()
    };
    assert!(subscribe.contains(r#""sessionToken":"r:new""#), "{subscribe}");
    rig.ack(1);
    assert_eq!(rig.outputs(), ["1: open after SessionTokenChanged 0ns"]);
}

#[test]
fn a_new_token_without_a_connection_waits_for_the_next() {
    let mut rig = Rig::new();
    rig.session.set_session_token(None, rig.now);
    assert_eq!(rig.outputs(), Vec::<String>::new());
    rig.session.open(rig.now);
    rig.lose();
    rig.outputs();
    rig.session.set_session_token(None, rig.now);
    assert_eq!(rig.outputs(), Vec::<String>::new());
    assert_eq!(rig.session.state(), ClientState::Reconnecting);
}

#[test]
fn a_token_that_the_server_does_not_take_is_renewed_once() {
    let mut rig = Rig::with(|settings| settings.renewable_token = true);
    rig.session.provide_token(Some(Secret::from("r:old")));
    rig.session.open(rig.now);
    rig.greet();
    rig.subscribe(1, "Game");
    rig.subscribe(2, "Game");
    rig.outputs();
    for id in [1, 2] {
        rig.error(209, "Invalid session token", false, json!(id));
    }
    assert_eq!(rig.outputs(), ["renew token"], "once for both");
    rig.session.token_renewed(Some(Secret::from("r:new")), rig.now);
    assert_eq!(rig.outputs(), ["disconnect", "client close", "connect"]);
    rig.greet();
    rig.outputs();
    rig.error(209, "Invalid session token", false, json!(1));
    assert_eq!(
        rig.outputs(),
        ["1: error Server fatal", "1: close"],
        "the new one is no better"
    );
    rig.ack(2);
    rig.subscribe(3, "Game");
    rig.outputs();
    rig.error(209, "Invalid session token", false, json!(3));
    assert_eq!(rig.outputs(), Vec::<String>::new(), "not so soon again");
    rig.pass(Duration::from_millis(4250));
    assert_eq!(rig.outputs(), ["renew token"]);
    rig.session.token_renewed(Some(Secret::from("r:old")), rig.now);
    rig.greet();
    rig.outputs();
}

#[test]
fn a_provider_that_has_no_other_token_ends_the_subscription() {
    let mut rig = Rig::with(|settings| settings.renewable_token = true);
    rig.session.open(rig.now);
    rig.greet();
    rig.subscribe(1, "Game");
    rig.error(209, "Invalid session token", false, json!(1));
    rig.outputs();
    rig.session.token_renewed(None, rig.now);
    assert_eq!(rig.outputs(), ["1: error Server fatal", "1: close"]);
    assert_eq!(rig.session.state(), ClientState::Connected);
}

/// A provider with a new token for each question, and a server that rejects all of them for one of two
/// subscriptions.
#[test]
fn renewals_do_not_go_round_and_round() {
    let mut rig = Rig::with(|settings| settings.renewable_token = true);
    rig.session.open(rig.now);
    let (mut tokens, mut connections) = (0, 0);
    rig.subscribe(1, "Game");
    rig.subscribe(2, "Game");
    for _ in 0..60 {
        while let Some(output) = rig.session.next_output() {
            match output {
                Output::Connect => {
                    connections += 1;
                    rig.greet();
                    rig.ack(1);
                    rig.error(209, "Invalid session token", false, json!(2));
                }
                Output::RenewToken => {
                    tokens += 1;
                    let token = Some(Secret::from(format!("r:{tokens}")));
                    rig.session.token_renewed(token, rig.now);
                }
                _ => {}
            }
        }
        rig.pass_with_pongs(Duration::from_secs(1));
    }
    assert!(
        tokens <= 2 && connections <= 3,
        "{tokens} tokens, {connections} connections"
    );
}
