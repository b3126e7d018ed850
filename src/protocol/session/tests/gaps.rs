//! Where the reported gaps start.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::json;

use super::{Rig, spec};
use crate::event::{Event, Gap, GapReason};
use crate::protocol::session::Output;
use crate::protocol::spec::Spec;
use crate::query::Query;

impl Rig {
    /// The gap of the next `open`.
    fn gap(&mut self) -> Option<Gap> {
        std::iter::from_fn(|| self.session.next_output())
            .filter_map(|output| match output {
                Output::Event(_, event) => event.gap().cloned(),
                _ => None,
            })
            .next()
    }

    /// Loses the connection, makes another and acknowledges the subscription.
    fn gap_after_a_cut(&mut self) -> Gap {
        self.lose();
        self.come_back();
        self.outputs();
        self.ack(1);
        self.gap().unwrap()
    }
}

#[test]
fn what_comes_late_proves_nothing_about_what_is_under_way() {
    let mut rig = Rig::live();
    rig.subscribed(1);
    let asked = rig.now.wall;
    // The connection has a delay of 3 s: what comes now was written 3 s ago.
    rig.pass(Duration::from_secs(15));
    rig.receive(json!({"op": "create", "requestId": 1, "object": {}}));
    assert_eq!(rig.gap_after_a_cut().start(), asked.into());
}

#[test]
fn a_gap_starts_when_the_subscription_was_sent_that_was_acknowledged() {
    let mut rig = Rig::live();
    rig.pass(Duration::from_secs(1));
    rig.subscribe(1, "Game");
    let asked = rig.now.wall;
    rig.pass(Duration::from_secs(3));
    rig.ack(1);
    rig.outputs();
    // An event that was written after the acknowledgement may not have come yet.
    assert_eq!(rig.gap_after_a_cut().start(), asked.into());
}

#[test]
fn a_gap_starts_when_the_last_ping_was_sent_that_was_answered() {
    let mut rig = Rig::live();
    rig.subscribed(1);
    rig.pass(Duration::from_secs(20));
    let (pinged, ping) = (rig.now.wall, rig.take_ping().unwrap());
    rig.pass(Duration::from_secs(3));
    rig.pong(ping);
    rig.pass(Duration::from_secs(17));
    assert!(rig.take_ping().is_some(), "which is not answered");
    rig.pass(Duration::from_secs(5));
    assert_eq!(rig.gap_after_a_cut().start(), pinged.into());
}

#[test]
fn a_link_with_traffic_is_pinged_as_often_as_one_without() {
    let mut rig = Rig::live();
    rig.subscribed(1);
    let mut pings = 0;
    for _ in 0..600 {
        rig.pass(Duration::from_secs(1));
        rig.receive(json!({"op": "create", "requestId": 1, "object": {}}));
        if let Some(ping) = rig.take_ping() {
            rig.pong(ping);
            pings += 1;
        }
    }
    assert_eq!(pings, 600 / 20);
}

#[test]
fn an_answer_to_another_ping_proves_nothing() {
    let mut rig = Rig::live();
    rig.subscribed(1);
    let asked = rig.now.wall;
    rig.pass(Duration::from_secs(20));
    let ping = rig.take_ping().unwrap();
    for payload in [[0; 8], [255; 8]] {
        assert_ne!(payload, ping);
        assert_eq!(rig.session.ponged(&payload, rig.now), None);
    }
    assert_eq!(rig.session.ponged(b"", rig.now), None);
    assert_eq!(rig.session.ponged(&ping[1..], rig.now), None);
    assert_eq!(rig.gap_after_a_cut().start(), asked.into());
    // Nor does the answer to a ping of another connection.
    assert_eq!(rig.session.ponged(&ping, rig.now), None);
}

#[test]
fn one_ping_is_under_way_at_a_time() {
    let mut rig = Rig::live();
    rig.pass(Duration::from_secs(20));
    let ping = rig.take_ping().unwrap();
    for _ in 0..100 {
        rig.pass(Duration::from_secs(1));
        rig.session.alive(rig.now);
        rig.session.reconnect_now(rig.now);
    }
    assert!(rig.take_ping().is_none());
    rig.pong(ping);
    rig.session.tick(rig.now);
    assert!(rig.take_ping().is_some(), "it was due long ago");
}

/// An update ends the old query on the server; events of the old query may still be under way when the
/// connection is cut.
#[test]
fn a_cut_during_an_update_opens_the_gap_at_the_last_proof() {
    let mut rig = Rig::live();
    rig.subscribed(1);
    let asked = rig.now.wall;
    rig.pass(Duration::from_secs(5));
    rig.session.update(1, 1, spec("Other"), rig.now);
    rig.pass(Duration::from_secs(1));
    assert!(rig.gap_after_a_cut().start() <= asked.into());
}

#[test]
fn an_update_without_a_cut_opens_the_gap_when_it_is_sent() {
    let mut rig = Rig::live();
    rig.subscribed(1);
    rig.pass(Duration::from_secs(5));
    let updated = rig.now.wall;
    rig.session.update(1, 1, spec("Other"), rig.now);
    rig.pass(Duration::from_secs(1));
    rig.ack(1);
    assert_eq!(rig.gap().map(|gap| gap.start()), Some(updated.into()));
}

/// Events that wait for their listeners are discarded then, and they may have been written before the gap.
#[test]
fn a_session_token_that_changes_within_a_gap_is_its_reason() {
    let of_client: fn(&mut Rig) = |rig| rig.session.set_session_token(None, rig.now);
    let of_subscription: fn(&mut Rig) = |rig| {
        let query = Query::new("Game").encode().unwrap();
        rig.session
            .update(1, 1, Arc::new(Spec::new(query, Some("r:own".into()), 1)), rig.now);
    };
    for change in [of_client, of_subscription] {
        for is_live in [false, true] {
            let mut rig = Rig::live();
            rig.subscribed(1);
            rig.pass(Duration::from_secs(5));
            if is_live {
                // The gap is that of an unanswered update.
                rig.session.update(1, 1, spec("Other"), rig.now);
            } else {
                rig.lose();
            }
            change(&mut rig);
            if is_live {
                rig.lose();
            }
            rig.come_back();
            rig.outputs();
            rig.ack(1);
            let reason = rig.gap().map(|gap| gap.reason());
            assert_eq!(reason, Some(GapReason::SessionTokenChanged), "live: {is_live}");
        }
    }
}

#[test]
fn a_gap_survives_a_clock_that_is_set() {
    let hour = Duration::from_secs(3600);
    for set_back in [false, true] {
        let mut rig = Rig::live();
        rig.subscribed(1);
        rig.pass(Duration::from_secs(5));
        rig.now.wall = if set_back {
            rig.now.wall - hour
        } else {
            rig.now.wall + hour
        };
        let before = rig.now.mono;
        let gap = rig.gap_after_a_cut();
        assert!(gap.start() <= gap.end(), "{gap:?}");
        assert_eq!(gap.end(), rig.now.wall.into());
        let passed = Duration::from_secs(5) + (rig.now.mono - before);
        // A clock that is set ahead looks like sleep.
        let asleep = if set_back { Duration::ZERO } else { hour };
        assert_eq!(gap.duration(), passed + asleep);
    }
}

#[test]
fn a_gap_counts_the_time_in_which_the_machine_slept() {
    let mut rig = Rig::live();
    rig.subscribed(1);
    let asked = rig.now.wall;
    rig.pass(Duration::from_secs(2));
    rig.now.wall += Duration::from_secs(600);
    // The end of the connection is the first thing that is noticed.
    assert_eq!(rig.gap_after_a_cut().start(), asked.into());
}

#[test]
fn a_time_before_all_times_of_day_is_not_reported() {
    let gap = Gap::new(Duration::MAX, SystemTime::now(), GapReason::ConnectionLost);
    assert!(gap.start() <= gap.end());
    assert!(Event::opened(Some(gap)).gap().is_some());
}

#[test]
fn a_gap_is_kept_over_several_cuts() {
    let mut rig = Rig::live();
    rig.subscribed(1);
    let asked = rig.now.wall;
    rig.pass(Duration::from_secs(5));
    rig.lose();
    rig.come_back();
    assert_eq!(rig.gap_after_a_cut().start(), asked.into());
}
