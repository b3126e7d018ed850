//! The queue of operations that the server has not answered.

use std::time::Duration;

use super::Rig;

#[test]
fn subscribe_ack_timeout_is_an_error_and_the_late_answer_still_counts() {
    let mut rig = Rig::live();
    rig.subscribed(1);
    rig.subscribe(2, "Slow");
    rig.outputs();
    rig.pass(Duration::from_secs(10));
    assert_eq!(rig.outputs(), ["2: error Timeout"]);
    rig.pass_with_pongs(Duration::from_secs(15));
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
        rig.pass_with_pongs(Duration::from_secs(9));
        rig.ack(id);
        assert_eq!(rig.outputs(), [format!("{id}: open")]);
    }
}
