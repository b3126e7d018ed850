//! The rules of the session, one by one, in simulated time.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use super::{Output, Received, Session, Settings, Stage};
use crate::error::{Error, ErrorKind};
use crate::event::{ClientEventKind, EventKind};
use crate::protocol::Now;
use crate::protocol::spec::{Credentials, Spec};
use crate::query::Query;
use crate::secret::Secret;
use crate::state::ClientState;

/// A session with a clock that the test turns, and what it put out since this was last asked.
struct Rig {
    session: Session<u64>,
    now: Now,
}

impl Rig {
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings {
            credentials: Credentials {
                application_id: "app".into(),
                ..Credentials::default()
            },
            connect_timeout: Duration::from_secs(20),
            idle_ping: Duration::from_secs(20),
            pong_timeout: Duration::from_secs(10),
            ack_timeout: Duration::from_secs(10),
            servers: 1,
            reconnect_delay: (Duration::from_millis(250), Duration::from_secs(30)),
            max_attempts: None,
            renewable_token: false,
        };
        change(&mut settings);
        Self {
            session: Session::new(settings, 1),
            now: Now {
                mono: Instant::now(),
                wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000),
            },
        }
    }

    /// A rig that is connected, its greeting behind it.
    fn live() -> Self {
        let mut rig = Self::new();
        rig.session.open(rig.now);
        rig.greet();
        rig.outputs();
        rig
    }

    fn greet(&mut self) {
        self.session.transport_up();
        self.receive(json!({"op": "connected", "clientId": "c"}));
    }

    fn pass(&mut self, time: Duration) {
        self.now = Now {
            mono: self.now.mono + time,
            wall: self.now.wall + time,
        };
        self.session.tick(self.now);
    }

    fn receive(&mut self, message: Value) -> Option<u64> {
        self.session.alive(self.now);
        let text = message.to_string();
        self.session
            .received(&text, self.now)
            .map(|received| received.handle)
    }

    fn ack(&mut self, id: u64) {
        self.receive(json!({"op": "subscribed", "clientId": "c", "requestId": id}));
    }

    fn error(&mut self, code: i64, text: &str, reconnect: bool, id: Value) {
        self.receive(
            json!({"op": "error", "code": code, "error": text, "reconnect": reconnect, "requestId": id}),
        );
    }

    fn subscribe(&mut self, id: u64, class: &str) {
        self.session.subscribe(id, id, spec(class), self.now);
    }

    /// A subscription that is acknowledged.
    fn subscribed(&mut self, id: u64) {
        self.subscribe(id, "Game");
        self.ack(id);
        self.outputs();
    }

    fn lose(&mut self) {
        self.session
            .lost(Error::new(ErrorKind::ConnectionLost, "cut"), self.now);
    }

    /// Lets the delay pass and connects again.
    fn come_back(&mut self) {
        self.pass(Duration::from_secs(31));
        self.greet();
    }

    fn outputs(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.session.next_output())
            .map(|output| describe(&output))
            .collect()
    }
}

/// A line for each output, so that expectations can be read.
fn describe(output: &Output<u64>) -> String {
    match output {
        Output::Connect => "connect".into(),
        Output::Disconnect => "disconnect".into(),
        Output::Farewell => "farewell".into(),
        Output::Ping => "ping".into(),
        Output::RenewToken => "renew token".into(),
        Output::Send(frame) => {
            let frame: Value = serde_json::from_str(frame).unwrap();
            let op = frame["op"].as_str().unwrap();
            match &frame["requestId"] {
                Value::Null => format!("send {op}"),
                id => format!(
                    "send {op} {id} {}",
                    frame["query"]["className"].as_str().unwrap_or_default()
                )
                .trim_end()
                .into(),
            }
        }
        Output::Event(id, event) => {
            let gap = event
                .gap()
                .map(|gap| format!(" after {:?} {:?}", gap.reason(), gap.duration()));
            let error = event.error().map(|error| {
                format!(
                    " {:?}{}",
                    error.kind(),
                    if error.is_fatal() { " fatal" } else { "" }
                )
            });
            format!(
                "{id}: {}{}{}",
                event.kind(),
                gap.unwrap_or_default(),
                error.unwrap_or_default()
            )
        }
        Output::ClientEvent(event) => match (event.kind(), event.error()) {
            (ClientEventKind::Error, Some(error)) => {
                format!(
                    "client error {:?}{}",
                    error.kind(),
                    if error.is_fatal() { " fatal" } else { "" }
                )
            }
            (kind, _) => format!("client {kind}"),
        },
    }
}

fn spec(class: &str) -> Arc<Spec> {
    spec_of(&Query::new(class))
}

fn spec_of(query: &Query) -> Arc<Spec> {
    Arc::new(Spec::new(query.encode().unwrap(), None, 0))
}

const SCHEMA_ERROR: &str = "Additional properties not allowed";

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
    rig.lose();
    rig.pass(Duration::from_secs(31));
    rig.greet();
    rig.outputs();
    rig.error(119, "Permission denied", false, json!(1));
    assert_eq!(rig.outputs(), ["1: error Server fatal", "1: close"]);
    rig.session.update(1, 1, spec("Other"), rig.now);
    rig.ack(1);
    assert_eq!(
        rig.outputs(),
        ["send subscribe 1 Other", "1: open after ConnectionLost 31s"]
    );
}

/// What its listeners own is set free by that `close`.
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
    rig.pass(Duration::from_secs(31));
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
fn a_gap_starts_at_the_last_proof_of_life_and_is_kept_over_several_cuts() {
    let mut rig = Rig::live();
    rig.subscribed(1);
    rig.pass(Duration::from_secs(5));
    rig.lose();
    rig.pass(Duration::from_secs(31));
    rig.greet();
    rig.lose();
    rig.come_back();
    rig.outputs();
    rig.ack(1);
    assert_eq!(rig.outputs(), ["1: open after ConnectionLost 67s"]);
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
fn any_byte_is_a_proof_of_life() {
    let mut rig = Rig::live();
    for _ in 0..100 {
        rig.pass(Duration::from_secs(19));
        rig.session.alive(rig.now);
    }
    rig.pass(Duration::from_secs(20));
    rig.session.alive(rig.now);
    rig.pass(Duration::from_secs(11));
    assert_eq!(rig.outputs(), ["ping"]);
}

#[test]
fn wake_from_sleep() {
    let mut rig = Rig::live();
    rig.pass(Duration::from_secs(1));
    rig.now.wall += Duration::from_secs(600);
    rig.session.tick(rig.now);
    assert_eq!(rig.outputs(), ["ping"]);
    rig.pass(Duration::from_secs(3));
    assert_eq!(
        rig.outputs(),
        ["disconnect", "client close", "client reconnecting"]
    );
    rig.now.wall += Duration::from_secs(600);
    rig.session.tick(rig.now);
    assert_eq!(rig.outputs(), ["connect"], "the network is probably back");
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
        for _ in 0..50 {
            rig.outputs();
            rig.session.reached(stage, None);
            rig.pass(Duration::from_secs(20));
            let Some(Output::Disconnect) = rig.session.next_output() else {
                panic!("no disconnect")
            };
            let Some(Output::ClientEvent(event)) = rig.session.next_output() else {
                panic!("no event")
            };
            assert_eq!(event.kind(), ClientEventKind::Reconnecting);
            assert!(event.error().unwrap().to_string().contains(name), "{event:?}");
            rig.pass(Duration::from_secs(31));
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

    // What the last stage suffered is over in the next one.
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
            let wait = rig.session.deadline().unwrap() - rig.now.mono;
            *delay += wait;
            rig.pass(wait);
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
        rig.pass(Duration::from_secs(31));
    }
    rig.greet();
    rig.pass(Duration::from_secs(10));
    rig.lose();
    assert!(rig.session.deadline().unwrap() - rig.now.mono <= Duration::from_millis(4250));
}

/// What becomes of the client and of a subscription by each error of the server.
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
    // On a link that is live, with a subscription that is acknowledged and one that is not.
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
fn subscribe_ack_timeout_is_an_error_and_the_late_answer_still_counts() {
    let mut rig = Rig::live();
    rig.subscribed(1);
    rig.subscribe(2, "Slow");
    rig.outputs();
    rig.pass(Duration::from_secs(10));
    assert_eq!(rig.outputs(), ["2: error Timeout"]);
    rig.session.alive(rig.now);
    rig.pass(Duration::from_secs(15));
    assert_eq!(rig.outputs(), Vec::<String>::new(), "once");
    rig.ack(2);
    assert_eq!(rig.outputs(), ["2: open"]);
}

#[test]
fn ten_thousand_answers_one_after_another_are_not_late() {
    let mut rig = Rig::live();
    for id in 1..=100 {
        rig.subscribe(id, "Game");
    }
    rig.outputs();
    for id in 1..=100 {
        rig.pass(Duration::from_secs(9));
        rig.ack(id);
        assert_eq!(rig.outputs(), [format!("{id}: open")]);
    }
}

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
    assert_eq!(rig.outputs(), ["1: open"]);
    // The next connection, to the same server, needs no second try.
    rig.lose();
    rig.come_back();
    assert!(
        rig.session
            .subscriptions
            .values()
            .all(|subscription| !subscription.respelled)
    );
    rig.ack(1);
    // A server that was upgraded meanwhile refuses `fields`.
    rig.lose();
    rig.come_back();
    rig.outputs();
    rig.error(1, SCHEMA_ERROR, true, Value::Null);
    let Some(Output::Send(frame)) = rig.session.next_output() else {
        panic!()
    };
    assert!(frame.contains(r#""keys":["score"],"watch":["score"]"#), "{frame}");
    // And one that wants neither is not asked for ever.
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
    assert!(rig.session.subscriptions.is_empty() && rig.session.in_flight.is_empty());
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
            (1, kind, r#"{"a":1}"#, Some("{}"))
        );
    }
}

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

#[test]
fn max_attempts_end_in_a_state_and_an_event() {
    let mut rig = Rig::with(|settings| settings.max_attempts = std::num::NonZeroU32::new(3));
    rig.subscribe(1, "Game");
    for _ in 0..2 {
        rig.lose();
        assert_eq!(rig.session.state(), ClientState::Reconnecting);
        rig.pass(Duration::from_secs(31));
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
        rig.pass(Duration::from_secs(31));
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
    rig.pass(Duration::from_secs(3));
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
