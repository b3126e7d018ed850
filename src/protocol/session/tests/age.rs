//! The version of the server: which subscriptions wait for it, what is sent to find out, and which are
//! refused because of it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Rig, SCHEMA_ERROR, spec, spec_of};
use crate::protocol::session::{Output, QUESTION};
use crate::protocol::spec::Spec;
use crate::query::Query;
use crate::secret::Secret;
use crate::types::{Date, Pointer};

const TOO_SHORT: &str = "Array is too short (0), minimum 1";

/// The answer of a server of some version to the question.
#[derive(Clone, Copy, Debug)]
enum Server {
    /// 2.8 to 4.2.
    Ancient,
    /// 4.3 to 6.0.
    Old,
    /// 6.1 to 6.5.
    Six,
    /// 7.0 and later.
    New,
}

impl Rig {
    fn negation(&mut self, id: u64) {
        self.want(id, &Query::new("Game").not_equal_to("score", 1));
    }

    fn want(&mut self, id: u64, query: &Query) {
        self.session.subscribe(id, id, spec_of(query), self.now);
    }

    /// The frames sent now.
    fn sent(&mut self) -> Vec<Value> {
        std::iter::from_fn(|| self.session.next_output())
            .filter_map(|output| match output {
                Output::Send(text) => Some(serde_json::from_str(&text).unwrap()),
                _ => None,
            })
            .collect()
    }

    /// The server answers the question, which is the only sent frame.
    fn answer_as(&mut self, server: Server) {
        let sent = self.sent();
        let [question] = sent.as_slice() else {
            panic!("{sent:?}")
        };
        self.answer(question, server);
    }

    fn answer(&mut self, question: &Value, server: Server) {
        assert_eq!(question["requestId"], QUESTION);
        let member = if question["query"]["keys"] == json!([]) {
            "keys"
        } else {
            "fields"
        };
        assert_eq!(
            question,
            &json!({
                "op": "subscribe", "requestId": QUESTION,
                "query": {"className": "_", "where": {}, member: []},
            })
        );
        let knows = match server {
            Server::Ancient | Server::Old => member == "fields",
            Server::Six => true,
            Server::New => member == "keys",
        };
        let text = if knows { TOO_SHORT } else { SCHEMA_ERROR };
        let mut error =
            json!({"op": "error", "code": 1, "error": text, "reconnect": true, "requestId": null});
        if matches!(server, Server::Ancient) {
            error.as_object_mut().unwrap().remove("requestId");
        }
        self.receive(error);
    }

    /// What a subscription is told when it is refused.
    fn refusal(&mut self) -> String {
        std::iter::from_fn(|| self.session.next_output())
            .find_map(|output| match output {
                Output::Event(_, event) => event.error().map(ToString::to_string),
                _ => None,
            })
            .unwrap()
    }
}

fn question() -> String {
    format!("send subscribe {QUESTION} _")
}

fn date() -> Date {
    Date::parse("2024-01-02T03:04:05Z").unwrap()
}

fn pointer() -> Query {
    Query::new("Game").equal_to("owner", Pointer::new("Team", "t1"))
}

#[test]
fn nobody_asks_for_the_age_if_no_query_depends_on_it() {
    let mut rig = Rig::live();
    rig.want(1, &Query::new("Game").greater_than("score", 1).exists("name"));
    rig.want(2, &Query::new("Game").select(["score"]).watch(["score"]));
    rig.want(3, &Query::new("Game").raw_where(json!({"$nor": [{"score": 1}]})));
    let own = Query::new("Game").not_equal_to("score", 1).allow_unsupported();
    rig.want(4, &own);
    let sent = rig.sent();
    assert_eq!(sent.len(), 4);
    assert!(
        sent.iter().all(|frame| frame["requestId"] != QUESTION),
        "{sent:?}"
    );
    assert_eq!(rig.session.server_age(), None);
}

#[test]
fn a_query_that_depends_on_the_age_waits_for_it_and_no_other_does() {
    let mut rig = Rig::live();
    rig.negation(1);
    rig.subscribe(2, "Other");
    assert_eq!(rig.outputs(), [question(), "send subscribe 2 Other".into()]);
    rig.ack(2);
    assert_eq!(rig.outputs(), ["2: open"]);
    rig.error(1, TOO_SHORT, true, Value::Null);
    let sent = rig.sent();
    assert_eq!(sent[0]["query"]["where"], json!({"$nor": [{"score": 1}]}));
    rig.ack(1);
    assert_eq!(rig.outputs(), ["1: open"]);
    // The version is known from now on.
    rig.negation(3);
    assert_eq!(rig.outputs(), ["send subscribe 3 Game"]);
}

#[test]
fn what_the_server_is_too_old_for_is_an_error_of_that_subscription_alone() {
    let mut rig = Rig::live();
    rig.subscribed(1);
    rig.negation(2);
    rig.answer_as(Server::Old);
    let error = rig.refusal();
    for part in [
        "needs Parse Server 5.0 or later",
        "at least 4.3 and older than 6.1",
        "parse_server",
    ] {
        assert!(error.contains(part), "{error}");
    }
    // The others got nothing, and continue.
    assert_eq!(rig.outputs(), ["2: close"]);
    let event = rig.receive(json!({"op": "create", "requestId": 1, "object": {}}));
    assert_eq!(event, Some(1));
    // The server is not asked twice.
    rig.negation(3);
    assert_eq!(rig.outputs(), ["3: error InvalidQuery fatal", "3: close"]);
}

#[test]
fn an_answer_is_read_for_each_part_of_a_query() {
    let date = Query::new("Game").greater_than("when", date());
    let whole = Query::new("Game").equal_to("tags", [1, 2]);
    let negation = Query::new("Game").not_equal_to("score", 1);
    for (query, server, is_sent) in [
        (&date, Server::Ancient, false),
        (&date, Server::Old, true),
        (&date, Server::New, true),
        (&negation, Server::Ancient, false),
        (&negation, Server::Six, true),
        (&whole, Server::Ancient, false),
        (&whole, Server::Old, false),
        (&whole, Server::Six, false),
        (&whole, Server::New, true),
    ] {
        let mut rig = Rig::live();
        rig.want(1, query);
        rig.answer_as(server);
        if is_sent {
            assert_eq!(rig.outputs(), ["send subscribe 1 Game"], "{query:?}, {server:?}");
        } else {
            let error = rig.refusal();
            assert!(
                error.contains("needs Parse Server") && error.contains("parse_server"),
                "{query:?}, {server:?}: {error}"
            );
        }
    }
}

#[test]
fn a_pointer_is_asked_for_as_the_server_understands_it() {
    for (server, part) in [
        (Server::New, r#""$in":[{"#),
        (Server::Six, r#""$in":[{"#),
        (Server::Old, r#""owner.className":"Team""#),
        (Server::Ancient, r#""owner.className":"Team""#),
    ] {
        let mut rig = Rig::live();
        rig.want(1, &pointer().select(["owner"]));
        rig.answer_as(server);
        let sent = rig.sent();
        assert!(sent[0]["query"]["where"].to_string().contains(part), "{sent:?}");
        assert_eq!(sent[0]["query"]["keys"], json!(["owner"]));
        rig.ack(1);
        assert_eq!(rig.outputs(), ["1: open"]);
    }
}

#[test]
fn one_question_is_enough_for_all_and_another_is_asked_if_it_tells_more() {
    let mut rig = Rig::live();
    rig.negation(1);
    rig.negation(2);
    rig.want(3, &Query::new("Whole").equal_to("tags", [1, 2]));
    let sent = rig.sent();
    assert_eq!(sent.len(), 1);
    rig.answer(&sent[0], Server::New);
    let sent = rig.sent();
    assert_eq!(sent.len(), 3, "{sent:?}");
    assert_eq!(
        (&sent[0]["requestId"], &sent[1]["requestId"]),
        (&json!(1), &json!(2))
    );
    rig.answer(&sent[2], Server::New);
    assert_eq!(rig.outputs(), ["send subscribe 3 Whole"]);
    let age = rig.session.server_age().unwrap();
    assert_eq!(age.to_string(), "7.0 or later");
}

#[test]
fn the_end_of_a_subscription_during_the_question_is_the_end() {
    let mut rig = Rig::live();
    rig.negation(1);
    rig.negation(2);
    let sent = rig.sent();
    rig.session.unsubscribe(1, rig.now);
    assert_eq!(rig.outputs(), ["1: close"]);
    rig.answer(&sent[0], Server::New);
    assert_eq!(rig.outputs(), ["send subscribe 2 Game"]);
    assert_eq!(rig.session.len(), 1);
}

#[test]
fn an_update_during_the_question_decides_what_is_asked_for() {
    let mut rig = Rig::live();
    rig.negation(1);
    let sent = rig.sent();
    rig.session.update(1, 1, spec("Other"), rig.now);
    assert_eq!(rig.outputs(), ["send subscribe 1 Other"]);
    rig.answer(&sent[0], Server::Old);
    assert_eq!(rig.outputs(), Vec::<String>::new());
    rig.ack(1);
    assert_eq!(rig.outputs(), ["1: open"]);
}

#[test]
fn an_update_that_the_server_is_too_old_for_leaves_the_old_query_in_force() {
    let mut rig = Rig::live();
    rig.subscribed(1);
    let negation = spec_of(&Query::new("Game").not_equal_to("score", 1));
    rig.session.update(1, 1, negation, rig.now);
    let sent = rig.sent();
    let event = json!({"op": "create", "requestId": 1, "object": {}});
    assert_eq!(
        rig.receive(event.clone()),
        Some(1),
        "events go on during the question"
    );
    rig.answer(&sent[0], Server::Old);
    assert_eq!(rig.outputs(), ["1: error InvalidQuery"]);
    assert_eq!(rig.receive(event), Some(1));
    // What the server can answer is requested as before, with its gap.
    rig.pass_with_pongs(Duration::from_secs(1));
    rig.outputs();
    rig.session.update(1, 1, spec("Other"), rig.now);
    assert_eq!(rig.outputs(), ["send update 1 Other"]);
    rig.ack(1);
    assert_eq!(rig.outputs(), ["1: close", "1: open after QueryUpdated 0ns"]);
}

#[test]
fn an_update_that_waits_starts_its_gap_when_it_is_sent() {
    let mut rig = Rig::live();
    rig.subscribed(1);
    let negation = spec_of(&Query::new("Game").not_equal_to("score", 1));
    rig.session.update(1, 1, negation, rig.now);
    let sent = rig.sent();
    rig.pass_with_pongs(Duration::from_secs(3));
    rig.outputs();
    rig.answer(&sent[0], Server::New);
    assert_eq!(rig.outputs(), ["send update 1 Game"]);
    rig.pass(Duration::from_secs(2));
    rig.outputs();
    rig.ack(1);
    assert_eq!(rig.outputs(), ["1: close", "1: open after QueryUpdated 2s"]);
}

#[test]
fn a_refused_update_for_another_token_ends_the_old_subscription_on_the_server() {
    let mut rig = Rig::live();
    rig.subscribed(1);
    let query = Query::new("Game").not_equal_to("score", 1).encode().unwrap();
    let other = Spec::new(query, Some(Secret::from("r:other")), 1);
    rig.session.update(1, 1, Arc::new(other), rig.now);
    rig.answer_as(Server::Old);
    assert_eq!(
        rig.outputs(),
        ["send unsubscribe 1", "1: error InvalidQuery fatal", "1: close"]
    );
    rig.receive(json!({"op": "unsubscribed", "requestId": 1}));
    assert_eq!(rig.outputs(), Vec::<String>::new());
    assert!(rig.session.answers.is_empty());
}

#[test]
fn each_connection_may_lead_to_a_server_of_another_age() {
    let mut rig = Rig::live();
    rig.want(1, &pointer());
    rig.negation(2);
    rig.answer_as(Server::New);
    rig.outputs();
    rig.ack(1);
    rig.ack(2);
    rig.outputs();
    rig.lose();
    rig.come_back();
    rig.session.ping(rig.now);
    // The answer to an earlier question is no longer valid, and a pending one is asked again.
    assert!(rig.sent().iter().any(|frame| frame["requestId"] == QUESTION));
    rig.lose();
    rig.come_back();
    let sent = rig.sent();
    let question = sent.iter().find(|frame| frame["requestId"] == QUESTION).unwrap();
    rig.answer(question, Server::Old);
    let outputs: Vec<_> = std::iter::from_fn(|| rig.session.next_output()).collect();
    let sent: Vec<_> = outputs
        .iter()
        .filter_map(|output| match output {
            Output::Send(text) => Some(text),
            _ => None,
        })
        .collect();
    assert!(sent.len() == 1 && sent[0].contains("owner.className"), "{sent:?}");
    assert!(outputs.iter().any(|output| matches!(
        output,
        Output::Event(2, event) if event.error().is_some_and(crate::error::Error::is_fatal)
    )));
    rig.ack(1);
    assert!(rig.outputs()[0].starts_with("1: open after ConnectionLost"));
}

#[test]
fn a_late_answer_is_told_to_all_who_wait_and_still_counts() {
    let mut rig = Rig::live();
    rig.negation(1);
    rig.negation(2);
    rig.subscribe(3, "Other");
    let sent = rig.sent();
    rig.ack(3);
    rig.outputs();
    rig.pass_with_pongs(Duration::from_secs(11));
    let told = |rig: &mut Rig| -> Vec<_> {
        let outputs = rig.outputs().into_iter();
        outputs.filter(|line| line.contains("error")).collect()
    };
    assert_eq!(told(&mut rig), ["1: error Timeout", "2: error Timeout"]);
    // A new subscription is notified as well.
    rig.negation(4);
    assert_eq!(told(&mut rig), ["4: error Timeout"]);
    rig.pass_with_pongs(Duration::from_secs(60));
    assert_eq!(told(&mut rig), Vec::<String>::new());
    rig.answer(&sent[0], Server::New);
    assert_eq!(
        rig.outputs(),
        [
            "send subscribe 1 Game",
            "send subscribe 2 Game",
            "send subscribe 4 Game"
        ]
    );
}

#[test]
fn a_server_that_does_not_tell_is_taken_for_no_version() {
    let answers = [
        json!({"op": "error", "code": 1, "error": "must NOT have fewer than 1 items", "requestId": null}),
        json!({"op": "error", "code": 119, "error": "no", "reconnect": false, "requestId": QUESTION}),
        json!({"op": "error", "code": 141, "error": TOO_SHORT, "reconnect": false, "requestId": null}),
        // No Parse Server says this without a `requestId`.
        json!({"op": "error", "code": 1, "error": TOO_SHORT}),
    ];
    for answer in answers {
        let mut rig = Rig::live();
        rig.subscribed(1);
        rig.negation(2);
        rig.want(3, &pointer());
        rig.outputs();
        rig.receive(answer.clone());
        let outputs: Vec<_> = std::iter::from_fn(|| rig.session.next_output()).collect();
        let errors: Vec<_> = outputs
            .iter()
            .filter_map(|output| match output {
                Output::Event(2, event) => event.error().map(ToString::to_string),
                _ => None,
            })
            .collect();
        assert!(
            errors.len() == 1
                && errors[0].contains("of an unknown version")
                && errors[0].contains("parse_server"),
            "{answer}: {errors:?}"
        );
        // The form that every server understands.
        let sent = outputs.iter().find_map(|output| match output {
            Output::Send(text) => Some(text),
            _ => None,
        });
        assert!(sent.unwrap().contains("owner.className"), "{answer}");
        assert!(rig.session.answers.ids().eq([3]), "{answer}");
        rig.negation(4);
        assert_eq!(rig.outputs(), ["4: error InvalidQuery fatal", "4: close"]);
    }
}

#[test]
fn a_server_that_takes_the_question_for_a_subscription_does_not_keep_it() {
    let mut rig = Rig::live();
    rig.negation(1);
    rig.outputs();
    rig.ack(QUESTION);
    assert_eq!(
        rig.outputs(),
        [
            format!("send unsubscribe {QUESTION}"),
            "1: error InvalidQuery fatal".into(),
            "1: close".into()
        ]
    );
    let event = json!({"op": "create", "requestId": QUESTION, "object": {}});
    assert_eq!(rig.receive(event), None);
    rig.receive(json!({"op": "unsubscribed", "requestId": QUESTION}));
    assert_eq!(rig.outputs(), Vec::<String>::new());
    assert!(rig.session.answers.is_empty());
}

#[test]
fn the_answer_is_not_taken_for_that_of_a_subscription_nor_held_up_by_it() {
    // One that no schema refuses, and that is never answered.
    for server in [Server::New, Server::Old] {
        let mut rig = Rig::live();
        rig.subscribe(1, "Hangs");
        rig.outputs();
        rig.want(2, &pointer());
        rig.answer_as(server);
        assert_eq!(rig.outputs(), ["send subscribe 2 Game"]);
    }
    // One that an old server refuses as well, before and after the question.
    let select = Query::new("Select").select(["score"]);
    for order in [[1, 2], [2, 1]] {
        let mut rig = Rig::live();
        for id in order {
            match id {
                1 => rig.want(1, &select),
                _ => rig.want(2, &pointer()),
            }
        }
        assert_eq!(rig.sent().len(), 2);
        rig.error(1, SCHEMA_ERROR, true, Value::Null);
        rig.error(1, SCHEMA_ERROR, true, Value::Null);
        let sent = rig.sent();
        assert_eq!(sent.len(), 2, "{sent:?}");
        for frame in sent {
            if frame["requestId"] == 1 {
                assert_eq!(frame["query"]["fields"], json!(["score"]));
            } else {
                assert!(frame.to_string().contains("owner.className"), "{frame}");
            }
        }
    }
    // It is accepted as `fields`, and the question is refused.
    let mut rig = Rig::live();
    rig.want(1, &select);
    rig.error(1, SCHEMA_ERROR, true, Value::Null);
    rig.outputs();
    rig.want(2, &pointer());
    rig.outputs();
    rig.error(1, SCHEMA_ERROR, true, Value::Null);
    assert_eq!(rig.outputs(), Vec::<String>::new());
    rig.ack(1);
    assert_eq!(rig.outputs(), ["1: open", "send subscribe 2 Game"]);
}

#[test]
fn a_question_that_connections_are_lost_of_is_held_back_and_the_others_live() {
    let mut rig = Rig::live();
    rig.subscribed(1);
    rig.negation(2);
    let mut told = Vec::new();
    for _ in 0..20 {
        let outputs = rig.outputs();
        told.extend(
            outputs
                .iter()
                .filter(|line| line.starts_with("2: error"))
                .cloned(),
        );
        if !told.is_empty() {
            break;
        }
        let is_asked = outputs.contains(&question());
        rig.ack(1);
        let is_asked = rig.outputs().contains(&question()) || is_asked;
        assert!(is_asked, "{outputs:?}");
        rig.lose();
        rig.come_back();
    }
    assert_eq!(told, ["2: error ConnectionLost"]);
    rig.ack(1);
    assert!(!rig.outputs().contains(&question()));
    // It is asked again, and then answered.
    rig.pass_with_pongs(Duration::from_secs(100));
    assert!(rig.outputs().contains(&question()));
    rig.error(1, TOO_SHORT, true, Value::Null);
    assert_eq!(rig.outputs(), ["send subscribe 2 Game"]);
}
