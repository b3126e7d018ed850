//! What holds of a session whatever happens in whatever order: random users, a random network, and a server that
//! answers when it likes.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::world::{Answer, Step, World};

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => Just(Step::Open),
        1 => Just(Step::Close),
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

proptest! {
    // `PROPTEST_CASES` makes it more.
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
