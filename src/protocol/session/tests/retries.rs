//! Subscriptions that may not be requested at once.

use std::time::Duration;

use serde_json::json;

use super::{Rig, spec};
use crate::protocol::session::Output;
use crate::state::ClientState;

impl Rig {
    fn end_subscription(&mut self, id: u64) {
        self.receive(json!({"op": "unsubscribed", "clientId": "c", "requestId": id}));
    }

    /// Connects through a proxy that cuts every connection in which it sees one of these ids, with a server
    /// that answers everything else, until the time is over. Returns the number of connections.
    fn behind_a_proxy_that_cuts(&mut self, bad: &[u64], time: Duration) -> usize {
        let mut connections = 0;
        let end = self.now.mono + time;
        while self.now.mono < end {
            let mut frames = Vec::new();
            while let Some(output) = self.session.next_output() {
                match output {
                    Output::Connect => {
                        connections += 1;
                        self.greet();
                    }
                    Output::Send(frame) => frames.push(frame),
                    Output::Ping(payload) => self.pong(payload),
                    Output::Event(id, event) => self.told.push((id, event)),
                    _ => {}
                }
            }
            let ids = frames.iter().filter_map(|frame| {
                let frame: serde_json::Value = serde_json::from_str(frame).unwrap();
                frame["requestId"].as_u64()
            });
            let mut silent = true;
            for id in ids {
                silent = false;
                if bad.contains(&id) {
                    self.lose();
                    break;
                }
                self.ack(id);
            }
            if silent {
                self.pass(Duration::from_secs(1));
            }
        }
        connections
    }
}

#[test]
fn a_subscription_that_the_server_ends_is_asked_for_after_a_delay_that_grows() {
    let mut rig = Rig::live();
    rig.subscribed(1);
    let mut subscribes = 0;
    let start = rig.now.mono;
    while rig.now.mono - start < Duration::from_secs(600) {
        rig.end_subscription(1);
        rig.pass_with_pongs(Duration::from_secs(1));
        for line in rig.outputs() {
            if line.starts_with("send subscribe") {
                subscribes += 1;
                rig.ack(1);
            }
        }
    }
    assert!((20..70).contains(&subscribes), "{subscribes} in ten minutes");
}

#[test]
fn what_the_server_ends_is_told_and_comes_back_with_a_gap() {
    let mut rig = Rig::live();
    rig.subscribed(1);
    let asked = rig.now.mono;
    rig.pass(Duration::from_secs(5));
    rig.end_subscription(1);
    assert_eq!(rig.outputs(), ["1: close Server"]);
    assert_eq!(
        rig.receive(json!({"op": "create", "requestId": 1, "object": {}})),
        None
    );
    rig.end_subscription(1);
    rig.pass(Duration::from_millis(4250));
    assert_eq!(rig.outputs(), ["send subscribe 1 Game"]);
    rig.ack(1);
    let missed = rig.now.mono - asked;
    assert_eq!(rig.outputs(), [format!("1: open after EndedByServer {missed:?}")]);
    // A connection that lived is not counted against it.
    rig.pass_with_pongs(Duration::from_secs(10));
    rig.end_subscription(1);
    rig.pass(Duration::from_millis(4250));
    assert!(rig.outputs().contains(&"send subscribe 1 Game".to_owned()));
}

/// The server had ended the old query some time before the update reached it.
#[test]
fn an_end_that_crosses_an_update_opens_the_gap_at_the_last_proof() {
    let mut rig = Rig::live();
    rig.subscribed(1);
    let asked = rig.now.mono;
    rig.pass(Duration::from_secs(5));
    rig.session.update(1, 1, spec("Other"), rig.now);
    rig.pass(Duration::from_secs(1));
    rig.end_subscription(1);
    rig.outputs();
    rig.ack(1);
    let missed = rig.now.mono - asked;
    assert_eq!(rig.outputs()[1], format!("1: open after QueryUpdated {missed:?}"));
}

#[test]
fn an_end_that_nobody_asked_for_is_no_answer() {
    let mut rig = Rig::live();
    rig.subscribe(1, "Game");
    rig.outputs();
    rig.end_subscription(1);
    assert_eq!(
        rig.outputs(),
        Vec::<String>::new(),
        "two operations of one id at once"
    );
    rig.ack(1);
    assert_eq!(rig.outputs(), ["1: open"]);
}

#[test]
fn a_subscription_that_is_held_back_can_be_ended_changed_or_hurried() {
    let held = || {
        let mut rig = Rig::live();
        rig.subscribed(1);
        rig.end_subscription(1);
        rig.outputs();
        rig
    };
    let mut rig = held();
    rig.session.unsubscribe(1, rig.now);
    assert_eq!(rig.outputs(), ["1: close"]);
    rig.pass(Duration::from_secs(19));
    assert_eq!(rig.outputs(), Vec::<String>::new());
    assert!(rig.session.subscriptions.is_empty() && rig.session.retries.is_empty());

    let mut rig = held();
    rig.session.update(1, 1, spec("Other"), rig.now);
    assert_eq!(rig.outputs(), ["send subscribe 1 Other"]);

    let mut rig = held();
    rig.session.reconnect_now(rig.now);
    assert_eq!(rig.outputs(), ["ping", "send subscribe 1 Game"]);

    let mut rig = held();
    rig.session.close(u64::MAX, rig.now);
    assert!(rig.session.retries.is_empty());
}

#[test]
fn one_that_a_proxy_cuts_connections_for_is_found_and_held_back_alone() {
    for (count, bad) in [
        (2, vec![1]),
        (2, vec![2]),
        (5, vec![3]),
        (200, vec![77]),
        (40, vec![1, 40]),
    ] {
        let mut rig = Rig::new();
        rig.session.open(rig.now);
        for id in 1..=count {
            rig.subscribe(id, "Game");
        }
        let connections = rig.behind_a_proxy_that_cuts(&bad, Duration::from_secs(180));
        for (id, subscription) in &rig.session.subscriptions {
            assert_eq!(
                subscription.open,
                !bad.contains(id),
                "{id} of {count}, bad: {bad:?}"
            );
        }
        for id in &bad {
            let errors = rig.told.iter().filter(|(of, _)| of == id);
            let error = errors
                .filter_map(|(_, event)| event.error())
                .next_back()
                .unwrap()
                .to_string();
            assert!(
                error.contains("right after this subscription was sent"),
                "{error}"
            );
        }
        let blamed = |id: &u64| {
            let told = rig.told.iter().filter(|(of, _)| of == id);
            told.filter_map(|(_, event)| event.error())
                .any(|error| error.to_string().contains("right after"))
        };
        assert!((1..=count).filter(blamed).all(|id| bad.contains(&id)));
        assert!(
            connections <= 20,
            "{connections} connections for {bad:?} of {count}"
        );
        // From now on there is peace, except for an occasional trial.
        rig.behind_a_proxy_that_cuts(&bad, Duration::from_secs(3600));
        let connections = rig.behind_a_proxy_that_cuts(&bad, Duration::from_secs(3600));
        assert!(
            connections <= 4,
            "{connections} connections in an hour for {bad:?} of {count}"
        );
    }
}

#[test]
fn one_that_is_held_back_comes_back_when_the_proxy_lets_it_through() {
    let mut rig = Rig::new();
    rig.session.open(rig.now);
    for id in 1..=3 {
        rig.subscribe(id, "Game");
    }
    rig.behind_a_proxy_that_cuts(&[2], Duration::from_secs(120));
    rig.behind_a_proxy_that_cuts(&[], Duration::from_secs(3600));
    assert!(
        rig.session
            .subscriptions
            .values()
            .all(|subscription| subscription.open)
    );
    assert!(rig.session.retries.is_empty());
    assert_eq!(rig.session.state(), ClientState::Connected);
}

/// There are no others to protect, and the network may be at fault.
#[test]
fn an_only_subscription_is_never_held_back() {
    let mut rig = Rig::new();
    rig.session.open(rig.now);
    rig.subscribe(1, "Game");
    rig.behind_a_proxy_that_cuts(&[1], Duration::from_secs(600));
    rig.outputs();
    rig.come_back();
    assert!(rig.outputs().contains(&"send subscribe 1 Game".to_owned()));
}

#[test]
fn a_link_that_is_cut_at_random_convicts_nobody() {
    let mut rig = Rig::new();
    rig.session.open(rig.now);
    for id in 1..=20 {
        rig.subscribe(id, "Game");
    }
    // Cut twice before anything is answered: all are suspects.
    for _ in 0..2 {
        rig.greet();
        rig.lose();
        rig.wait();
    }
    rig.behind_a_proxy_that_cuts(&[], Duration::from_secs(60));
    assert!(
        rig.session
            .subscriptions
            .values()
            .all(|subscription| subscription.open)
    );
    assert!(rig.told.iter().all(|(_, event)| event.error().is_none()));
}
