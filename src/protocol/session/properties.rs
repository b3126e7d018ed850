//! What is true of a session whatever happens in whatever order: random users, a random network, and a server
//! that answers at any time.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::hostile::{Malice, SUBSCRIPTIONS, most_requests_per_minute};
use super::wire::{Happening, Wire};
use super::world::{Answer, Step, World};

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Open),
        1 => Just(Step::Close),
        1 => Just(Step::Pause),
        2 => Just(Step::Resume),
        6 => any::<u8>().prop_map(Step::Subscribe),
        4 => (any::<usize>(), any::<u8>()).prop_map(|(which, class)| Step::Update(which, class)),
        4 => any::<usize>().prop_map(Step::Unsubscribe),
        1 => any::<u8>().prop_map(Step::SetToken),
        1 => Just(Step::ReconnectNow),
        8 => Just(Step::Advance),
        2 => Just(Step::Lose),
        3 => (0u32..40_000).prop_map(Step::Pass),
        1 => (0u32..3_600_000).prop_map(Step::Sleep),
        12 => (any::<usize>(), prop_oneof![
            6 => Just(Answer::Ok),
            1 => Just(Answer::Refuse),
            1 => Just(Answer::RefuseWithoutId),
        ]).prop_map(|(which, answer)| Step::Answer(which, answer)),
        6 => any::<usize>().prop_map(Step::Event),
        2 => any::<usize>().prop_map(Step::End),
        1 => any::<u8>().prop_map(Step::Age),
        1 => text().prop_map(Step::Text),
    ]
}

/// Anything that a server may send by mistake.
fn text() -> impl Strategy<Value = String> {
    let op = prop_oneof![
        Just("connected"),
        Just("subscribed"),
        Just("unsubscribed"),
        Just("create"),
        Just("update"),
        Just("enter"),
        Just("leave"),
        Just("delete"),
        Just("redirect"),
        Just("result"),
        Just(""),
    ];
    let member = prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        Just(json!({})),
        Just(json!([1])),
        (1000u64..2000).prop_map(Value::from),
    ];
    prop_oneof![
        ".{0,40}",
        (op, member.clone(), member.clone(), member).prop_map(|(op, id, object, original)| {
            json!({"op": op, "requestId": id, "object": object, "original": original, "new": 1}).to_string()
        }),
        r#"\{"op":"create","requestId":[0-9]{1,30},"object":\{"#.prop_map(|text| text),
    ]
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        8 => Just(Happening::Write),
        8 => (0u32..8_000).prop_map(Happening::Pass),
        1 => (0u32..60_000).prop_map(Happening::Pass),
        1 => (0u32..600_000).prop_map(Happening::Sleep),
        3 => (0u32..8_000).prop_map(Happening::Delay),
        3 => any::<bool>().prop_map(|silently| Happening::Cut { silently }),
        2 => any::<usize>().prop_map(Happening::Update),
        2 => Just(Happening::Pause),
        3 => Just(Happening::Resume),
        1 => any::<usize>().prop_map(Happening::End),
    ]
}

fn malice() -> impl Strategy<Value = Malice> {
    let code = prop_oneof![
        Just(1),
        Just(2),
        Just(3),
        Just(119),
        Just(141),
        Just(209),
        Just(1000)
    ];
    let text = prop_oneof![
        Just("no"),
        Just("Additional properties not allowed"),
        Just("Array is too short (0), minimum 1"),
        Just("Cannot find subscription with clientId c subscriptionId 2. Make sure .."),
    ];
    let answer = (code, text, any::<bool>(), any::<bool>());
    prop_oneof![
        3 => Just(Malice::Accept),
        3 => Just(Malice::AcceptAndEnd),
        2 => (1..=SUBSCRIPTIONS).prop_map(Malice::End),
        6 => answer.prop_map(|(code, text, reconnect, with_id)| Malice::Answer { code, text, reconnect, with_id }),
        2 => Just(Malice::Cut),
        1 => Just(Malice::Silence),
    ]
}

proptest! {
    // `PROPTEST_CASES` sets a higher number.
    #![proptest_config(ProptestConfig {
        cases: ProptestConfig::default().cases * 4,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_session_keeps_its_promises_in_any_order_of_things(steps in prop::collection::vec(step(), 0..120)) {
        let mut world = World::new();
        for step in &steps {
            world.take(step);
        }
        world.settle();
    }

    #[test]
    fn no_event_is_lost_outside_of_a_gap(
        seed in any::<u64>(),
        happenings in prop::collection::vec(happening(), 0..80),
    ) {
        let mut wire = Wire::new(seed);
        wire.happen(&Happening::Pass(1000));
        for happening in &happenings {
            wire.happen(happening);
        }
        wire.settle();
    }

    #[test]
    fn no_malice_makes_a_client_ask_without_a_pause(
        seed in any::<u64>(),
        malice in prop::collection::vec(malice(), 1..10),
    ) {
        let most = most_requests_per_minute(&malice, seed);
        prop_assert!(most <= 100, "{most} requests in a minute");
    }

    #[test]
    fn decode_fuzz(texts in prop::collection::vec(text(), 1..20)) {
        let mut world = World::new();
        for step in [Step::Subscribe(0), Step::Advance, Step::Advance, Step::Answer(0, Answer::Ok)] {
            world.take(&step);
        }
        for text in texts {
            world.take(&Step::Text(text));
        }
        world.take(&Step::Event(0));
        world.settle();
    }
}
