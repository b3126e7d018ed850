//! The connection: made, lost, doubted, refused, closed.

use std::time::Duration;

use serde_json::{Value, json};

use super::Rig;
use crate::error::{Error, ErrorKind};
use crate::event::ClientEventKind;
use crate::protocol::session::{Output, Session, Stage};
use crate::state::ClientState;

#[test]
fn client_id_may_be_a_number_or_absent() {
    for greeting in [
        json!({"op": "connected", "clientId": 0}),
        json!({"op": "connected"}),
    ] {
        let mut rig = Rig::new();
        rig.session.open(rig.now);
        rig.session.transport_up();
        rig.receive(greeting);
        assert_eq!(rig.session.state(), ClientState::Connected);
    }
}

#[test]
fn silence_is_asked_after_and_then_taken_for_a_loss() {
    let mut rig = Rig::live();
    rig.pass(Duration::from_secs(19));
    assert_eq!(rig.outputs(), Vec::<String>::new());
    rig.pass(Duration::from_secs(1));
    assert_eq!(rig.outputs(), ["ping"]);
    rig.pass(Duration::from_secs(9));
    assert_eq!(rig.outputs(), Vec::<String>::new());
    assert_eq!(
        rig.session.deadline(),
        Some(rig.now.mono + Duration::from_secs(1))
    );
    rig.pass(Duration::from_secs(1));
    assert_eq!(
        rig.outputs(),
        ["disconnect", "client close", "client reconnecting"]
    );
}

#[test]
fn any_byte_is_a_sign_of_life() {
    let mut rig = Rig::live();
    for _ in 0..100 {
        rig.pass(Duration::from_secs(19));
        rig.session.alive(rig.now);
    }
    assert_eq!(
        rig.outputs(),
        ["ping"],
        "the server never answers it, and is alive all the same"
    );
    rig.pass(Duration::from_secs(29));
    assert_eq!(rig.outputs(), Vec::<String>::new());
    rig.pass(Duration::from_secs(1));
    assert_eq!(
        rig.outputs(),
        ["disconnect", "client close", "client reconnecting"]
    );
}

#[test]
fn wake_from_sleep() {
    let mut rig = Rig::live();
    rig.pass(Duration::from_secs(1));
    rig.sleep(Duration::from_secs(600));
    assert_eq!(rig.outputs(), ["ping"]);
    rig.pass(Duration::from_secs(3));
    assert_eq!(
        rig.outputs(),
        ["disconnect", "client close", "client reconnecting", "connect"],
        "without a delay: the network is probably back"
    );
}

/// However long the delay has grown, and whatever the attempt before the sleep waits for.
#[test]
fn after_a_sleep_an_attempt_is_made_within_a_second() {
    for connecting in [false, true] {
        for clock_goes_on in [false, true] {
            let mut rig = Rig::new();
            rig.session.open(rig.now);
            while rig.session.backoff.attempts() < 12 {
                rig.lose();
                rig.wait();
            }
            if !connecting {
                rig.lose();
            }
            rig.outputs();
            if clock_goes_on {
                rig.now.mono += Duration::from_secs(600);
            }
            rig.now.wall += Duration::from_secs(600);
            let asleep = rig.now.mono;
            let due = rig.session.deadline().unwrap();
            assert!(due <= asleep + Duration::from_secs(1));
            rig.pass(due.saturating_duration_since(asleep));
            let outputs = rig.outputs();
            assert_eq!(outputs.last().unwrap(), "connect", "{outputs:?}");
            assert_eq!(outputs.contains(&"disconnect".to_owned()), connecting);
            assert_eq!(rig.session.backoff.attempts(), 0);
        }
    }
}

#[test]
fn reconnect_now_gives_up_an_attempt_that_is_stuck_and_no_other() {
    let mut rig = Rig::new();
    rig.session.open(rig.now);
    rig.outputs();
    for _ in 0..29 {
        rig.pass(Duration::from_millis(100));
        rig.session.reconnect_now(rig.now);
        assert_eq!(rig.outputs(), Vec::<String>::new());
    }
    rig.pass(Duration::from_millis(100));
    rig.session.reconnect_now(rig.now);
    assert_eq!(rig.outputs(), ["disconnect", "connect"]);
}

/// A connection that is doubted and then cut, as by a router that forgot it during the sleep.
#[test]
fn a_doubt_that_is_confirmed_needs_no_delay() {
    let mut rig = Rig::live();
    rig.session.reconnect_now(rig.now);
    rig.lose();
    rig.session.tick(rig.now);
    assert_eq!(rig.outputs().last().unwrap(), "connect");
    // A doubt that is not confirmed changes nothing.
    rig.greet();
    rig.session.reconnect_now(rig.now);
    let ping = rig.take_ping().unwrap();
    rig.pong(ping);
    rig.outputs();
    rig.lose();
    rig.session.tick(rig.now);
    assert_eq!(rig.outputs().last().unwrap(), "client reconnecting");
}

#[test]
fn a_quiet_link_wakes_nobody_but_for_its_pings() {
    let mut rig = Rig::live();
    rig.subscribed(1);
    let mut ticks = 0;
    let end = rig.now.mono + Duration::from_secs(3600);
    while rig.now.mono < end {
        rig.pass(rig.session.deadline().unwrap() - rig.now.mono);
        ticks += 1;
        if let Some(ping) = rig.take_ping() {
            rig.pong(ping);
        }
    }
    assert_eq!(ticks, 3600 / 20);
}

#[test]
fn each_stage_of_connecting_times_out_under_its_name_and_is_tried_again() {
    for (stage, name) in [
        (Stage::Resolve, "resolving"),
        (Stage::Connect, "connecting to"),
        (Stage::Tls, "TLS"),
        (Stage::Upgrade, "upgrade"),
        (Stage::Greeting, "`connect`"),
    ] {
        let mut rig = Rig::new();
        rig.session.open(rig.now);
        for attempt in 0..50 {
            rig.outputs();
            rig.session.reached(stage, None);
            rig.pass(Duration::from_secs(20));
            let Some(Output::Disconnect) = rig.session.next_output() else {
                panic!("no disconnect")
            };
            // The first is reported, and later ones are not.
            if attempt == 0 {
                let Some(Output::ClientEvent(event)) = rig.session.next_output() else {
                    panic!("no error")
                };
                let error = event.error().unwrap();
                assert_eq!(event.kind(), ClientEventKind::Error);
                assert!(!error.is_fatal() && error.to_string().contains(name), "{error}");
            }
            let Some(Output::ClientEvent(event)) = rig.session.next_output() else {
                panic!("no event")
            };
            assert_eq!(event.kind(), ClientEventKind::Reconnecting);
            assert!(event.error().unwrap().to_string().contains(name), "{event:?}");
            rig.wait();
            assert_eq!(rig.session.state(), ClientState::Reconnecting);
        }
        rig.greet();
        assert_eq!(rig.session.state(), ClientState::Connected);
    }
}

#[test]
fn a_time_out_says_what_has_failed_before() {
    let mut rig = Rig::new();
    rig.session.open(rig.now);
    rig.outputs();
    let trouble = Error::new(ErrorKind::Connect, "no connection to the server at [::1]:1337");
    rig.session.reached(Stage::Connect, Some(&trouble));
    rig.pass(Duration::from_secs(20));
    let text = format!(
        "{:?}",
        rig.session.next_output().and_then(|_| rig.session.next_output())
    );
    assert!(
        text.contains("connecting to the server") && text.contains("[::1]:1337"),
        "{text}"
    );

    // A failure of the last stage no longer counts in the next one.
    let mut rig = Rig::new();
    rig.session.open(rig.now);
    rig.outputs();
    rig.session.reached(Stage::Connect, Some(&trouble));
    rig.session.reached(Stage::Upgrade, None);
    rig.pass(Duration::from_secs(20));
    let text = format!(
        "{:?}",
        rig.session.next_output().and_then(|_| rig.session.next_output())
    );
    assert!(text.contains("upgrade") && !text.contains("[::1]:1337"), "{text}");
}

#[test]
fn a_server_that_accepts_and_kicks_is_asked_less_and_less_often() {
    let mut delays = [Duration::ZERO; 6];
    for seed in 0..50 {
        let mut rig = Rig::with(|_| {});
        rig.session = Session::new(rig.session.settings.clone(), seed);
        rig.session.open(rig.now);
        for delay in &mut delays {
            rig.greet();
            rig.pass(Duration::from_secs(1));
            rig.lose();
            let lost = rig.now.mono;
            rig.wait();
            *delay += rig.now.mono - lost;
        }
    }
    assert!(
        delays[1] > delays[0] && delays[2] > delays[1] && delays[5] > delays[0] * 4,
        "{delays:?}"
    );
}

#[test]
fn a_stable_link_starts_a_new_series_of_attempts() {
    let mut rig = Rig::new();
    rig.session.open(rig.now);
    for _ in 0..10 {
        rig.lose();
        rig.wait();
    }
    rig.greet();
    rig.pass(Duration::from_secs(10));
    rig.lose();
    let lost = rig.now.mono;
    rig.wait();
    assert!(rig.now.mono - lost <= Duration::from_millis(4250));
}

#[test]
fn close_in_each_state_ends_it() {
    for state in 0..4 {
        let mut rig = Rig::new();
        if state > 0 {
            rig.session.open(rig.now);
        }
        if state > 1 {
            rig.session.transport_up();
        }
        if state > 2 {
            rig.lose();
        }
        rig.session.close(u64::MAX, rig.now);
        rig.outputs();
        rig.pass(Duration::from_secs(3600));
        assert_eq!(rig.outputs(), Vec::<String>::new(), "state {state}");
        assert_eq!(rig.session.state(), ClientState::Closed);
        rig.session.open(rig.now);
        assert_eq!(rig.outputs(), ["connect"]);
    }
}

#[test]
fn a_refused_client_is_asked_again_by_open_alone() {
    let mut rig = Rig::new();
    rig.subscribe(1, "Game");
    rig.session.transport_up();
    rig.error(4, "Key in request is not valid", true, Value::Null);
    rig.outputs();
    rig.subscribe(2, "Game");
    assert_eq!(rig.outputs(), ["2: error Refused"]);
    rig.session.open(rig.now);
    rig.greet();
    assert_eq!(
        rig.outputs(),
        [
            "connect",
            "send connect",
            "client open",
            "send subscribe 1 Game",
            "send subscribe 2 Game"
        ]
    );
}

#[test]
fn max_attempts_end_in_a_state_and_an_event() {
    let mut rig = Rig::with(|settings| settings.max_attempts = Some(3));
    rig.subscribe(1, "Game");
    for _ in 0..2 {
        rig.lose();
        assert_eq!(rig.session.state(), ClientState::Reconnecting);
        rig.wait();
    }
    rig.outputs();
    rig.lose();
    assert_eq!(
        rig.outputs(),
        ["disconnect", "client error GaveUp fatal", "1: error GaveUp"]
    );
    assert_eq!(rig.session.state(), ClientState::Disconnected);
    rig.session.open(rig.now);
    rig.greet();
    assert_eq!(rig.outputs().last().unwrap(), "send subscribe 1 Game");
}

#[test]
fn never_gives_up_by_default() {
    let mut rig = Rig::new();
    rig.subscribe(1, "Game");
    for _ in 0..500 {
        rig.lose();
        rig.wait();
    }
    rig.greet();
    rig.ack(1);
    assert_eq!(rig.outputs().last().unwrap(), "1: open");
}

#[test]
fn reconnect_now_skips_the_delay_and_doubts_a_link_that_is_up() {
    let mut rig = Rig::live();
    rig.session.reconnect_now(rig.now);
    assert_eq!(rig.outputs(), ["ping"]);
    let ping = rig.take_ping();
    assert!(ping.is_none(), "it is under way");
    rig.session.alive(rig.now);
    rig.lose();
    rig.outputs();
    rig.session.reconnect_now(rig.now);
    rig.session.reconnect_now(rig.now);
    assert_eq!(rig.outputs(), ["connect"]);
}

/// A backoff that counts from when the client was made would be used up after an hour.
#[test]
fn no_busy_loop_after_1h() {
    let mut rig = Rig::live();
    for _ in 0..360 {
        rig.pass(Duration::from_secs(10));
        rig.session.alive(rig.now);
    }
    let (mut attempts, start) = (0, rig.now.mono);
    rig.lose();
    while attempts < 10 {
        let wait = rig.session.deadline().unwrap() - rig.now.mono;
        assert!(wait >= Duration::from_millis(250), "{wait:?}");
        rig.pass(wait);
        attempts += rig.outputs().iter().filter(|line| *line == "connect").count();
        rig.lose();
    }
    assert!(rig.now.mono - start >= 10 * Duration::from_millis(250));
}

#[test]
fn a_server_that_asks_to_be_left_alone_is_left_alone() {
    let mut rig = Rig::new();
    rig.session.open(rig.now);
    let error = Error::new(ErrorKind::Handshake, "HTTP 503");
    let (lost, asked) = (rig.now.mono, Duration::from_secs(60));
    rig.session.lost_for(error, Some(asked), rig.now);
    rig.wait();
    let waited = rig.now.mono - lost;
    assert!((asked..asked * 2).contains(&waited), "{waited:?}");
}
