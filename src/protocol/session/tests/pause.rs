//! A pause: what it gives up, what it keeps, and what ends it.

use std::time::Duration;

use super::{Rig, spec};
use crate::secret::Secret;
use crate::state::ClientState;

fn nothing() -> Vec<String> {
    Vec::new()
}

#[test]
fn a_pause_closes_the_link_and_keeps_what_is_subscribed() {
    let mut rig = Rig::live();
    rig.subscribed(1);
    rig.session.pause();
    assert_eq!(rig.session.state(), ClientState::Paused);
    assert_eq!(rig.outputs(), ["farewell", "1: close", "client close"]);
    rig.pass(Duration::from_secs(3600));
    assert_eq!(rig.outputs(), nothing());
    rig.session.resume(rig.now);
    assert_eq!(rig.session.state(), ClientState::Connecting);
    rig.greet();
    assert_eq!(
        rig.outputs(),
        ["connect", "send connect", "client open", "send subscribe 1 Game"]
    );
    rig.ack(1);
    assert_eq!(rig.outputs(), ["1: open after Paused 3600s"]);
}

#[test]
fn the_time_that_the_machine_sleeps_in_a_pause_is_in_the_gap_and_costs_no_connection() {
    let mut rig = Rig::live();
    rig.subscribed(1);
    rig.session.pause();
    rig.outputs();
    rig.now.wall += Duration::from_secs(3600);
    rig.session.resume(rig.now);
    rig.session.tick(rig.now);
    assert_eq!(rig.outputs(), ["connect"]);
    rig.greet();
    rig.outputs();
    rig.ack(1);
    assert_eq!(rig.outputs(), ["1: open after Paused 3600s"]);
}

#[test]
fn an_attempt_and_a_delay_are_given_up_and_begin_anew() {
    let mut rig = Rig::new();
    rig.subscribe(1, "Game");
    assert_eq!(rig.outputs(), ["connect"]);
    rig.session.pause();
    assert_eq!(rig.outputs(), ["disconnect"]);
    rig.session.resume(rig.now);
    assert_eq!(rig.outputs(), ["connect"]);
    for _ in 0..5 {
        rig.lose();
        rig.wait();
    }
    rig.lose();
    assert_eq!(rig.session.state(), ClientState::Reconnecting);
    rig.outputs();
    rig.session.pause();
    rig.pass(Duration::from_secs(3600));
    assert_eq!(rig.outputs(), nothing());
    rig.session.resume(rig.now);
    assert_eq!(rig.session.state(), ClientState::Connecting);
    rig.lose();
    // The first failure of another outage.
    assert_eq!(
        rig.outputs(),
        [
            "connect",
            "disconnect",
            "client error ConnectionLost",
            "client reconnecting"
        ]
    );
}

#[test]
fn what_is_asked_for_in_a_pause_waits_for_its_end() {
    let mut rig = Rig::new();
    rig.session.pause();
    assert_eq!(rig.session.state(), ClientState::Paused);
    rig.session.resume(rig.now);
    assert_eq!(
        (rig.session.state(), rig.outputs()),
        (ClientState::Initialized, nothing())
    );

    rig.session.pause();
    rig.subscribe(1, "Game");
    rig.subscribe(2, "Team");
    rig.session.unsubscribe(2, rig.now);
    rig.session.update(1, 1, spec("Player"), rig.now);
    rig.session.reconnect_now(rig.now);
    rig.session.set_session_token(None, rig.now);
    rig.sleep(Duration::from_secs(3600));
    assert_eq!(rig.outputs(), ["2: close"]);
    rig.session.resume(rig.now);
    rig.greet();
    assert_eq!(
        rig.outputs(),
        [
            "connect",
            "send connect",
            "client open",
            "send subscribe 1 Player"
        ]
    );
    rig.ack(1);
    assert_eq!(
        rig.outputs(),
        ["1: open"],
        "it was never open, so nothing was missed"
    );

    let mut rig = Rig::new();
    rig.session.pause();
    rig.session.open(rig.now);
    assert_eq!(rig.outputs(), nothing());
    rig.session.resume(rig.now);
    assert_eq!(rig.outputs(), ["connect"]);
}

#[test]
fn a_second_pause_and_a_resume_without_one_do_nothing() {
    let mut rig = Rig::live();
    rig.session.resume(rig.now);
    assert_eq!(
        (rig.session.state(), rig.outputs()),
        (ClientState::Connected, nothing())
    );
    rig.session.pause();
    rig.outputs();
    rig.session.pause();
    assert_eq!(rig.outputs(), nothing());
    rig.session.resume(rig.now);
    rig.session.resume(rig.now);
    assert_eq!(rig.outputs(), ["connect"]);
}

#[test]
fn a_close_ends_a_pause_and_what_is_closed_or_refused_cannot_be_paused() {
    let mut rig = Rig::live();
    rig.subscribed(1);
    rig.session.pause();
    rig.outputs();
    rig.session.close(2, rig.now);
    assert_eq!(
        (rig.session.state(), rig.outputs()),
        (ClientState::Closed, vec!["1: close".to_owned()])
    );
    rig.session.pause();
    rig.session.resume(rig.now);
    assert_eq!(
        (rig.session.state(), rig.outputs()),
        (ClientState::Closed, nothing())
    );
    rig.subscribe(2, "Game");
    assert_eq!(rig.outputs(), ["connect"]);
    rig.session.transport_up();
    rig.error(4, "no", false, serde_json::Value::Null);
    assert_eq!(rig.session.state(), ClientState::Disconnected);
    rig.outputs();
    rig.session.pause();
    rig.session.resume(rig.now);
    assert_eq!(
        (rig.session.state(), rig.outputs()),
        (ClientState::Disconnected, nothing())
    );
}

#[test]
fn what_comes_from_a_link_that_was_given_up_does_not_end_a_pause() {
    let mut rig = Rig::live();
    rig.subscribed(1);
    rig.session.pause();
    rig.outputs();
    rig.lose();
    rig.session.transport_up();
    assert_eq!(
        (rig.session.state(), rig.outputs()),
        (ClientState::Paused, nothing())
    );
}

/// What makes a session connect because the program says so, once around.
type Turn = (&'static str, fn(&mut Rig));

const TURNS: [Turn; 6] = [
    ("pause, resume", |rig| {
        rig.session.pause();
        rig.session.resume(rig.now);
    }),
    ("close, open", |rig| {
        rig.session.close(0, rig.now);
        rig.session.open(rig.now);
    }),
    ("close, subscribe", |rig| {
        rig.session.close(u64::MAX, rig.now);
        rig.subscribe(1, "Game");
        rig.session.open(rig.now);
    }),
    ("lost, reconnect_now", |rig| {
        rig.lose();
        rig.session.reconnect_now(rig.now);
    }),
    ("reconnect_now, lost", |rig| {
        rig.session.reconnect_now(rig.now);
        rig.lose();
        rig.session.tick(rig.now);
    }),
    ("set_session_token", |rig| {
        rig.session
            .set_session_token(Some(Secret::from("r:1".to_owned())), rig.now);
    }),
];

fn connects(rig: &mut Rig) -> usize {
    let outputs = rig.outputs();
    outputs.iter().filter(|output| *output == "connect").count()
}

#[test]
fn a_program_that_toggles_in_a_loop_does_not_storm_the_server() {
    for greeted in [true, false] {
        for (name, turn) in TURNS {
            let mut rig = Rig::new();
            rig.subscribe(1, "Game");
            let mut connected = connects(&mut rig);
            if greeted {
                rig.greet();
            }
            for _ in 0..10_000 {
                turn(&mut rig);
                let now = connects(&mut rig);
                if now > 0 && greeted {
                    rig.greet();
                }
                connected += now;
                rig.now.mono += Duration::from_millis(1);
                rig.now.wall += Duration::from_millis(1);
            }
            assert!((10..=25).contains(&connected), "{name}: {connected} in 10 s");
            // The last turn is not forgotten.
            rig.pass(Duration::from_secs(2));
            let later = connects(&mut rig);
            let state = rig.session.state();
            assert!(later > 0 || state == ClientState::Connected, "{name}: {state:?}");
        }
    }
}

#[test]
fn a_few_turns_in_a_row_wait_for_nothing() {
    for (name, turn) in TURNS {
        let mut rig = Rig::new();
        rig.subscribe(1, "Game");
        connects(&mut rig);
        for number in 0..5 {
            rig.greet();
            turn(&mut rig);
            assert_eq!(connects(&mut rig), 1, "{name}: turn {number}");
        }
        rig.pass(Duration::from_secs(60));
        connects(&mut rig);
        rig.session.pause();
        rig.session.resume(rig.now);
        assert_eq!(connects(&mut rig), 1, "{name}: a minute later");
    }
}
