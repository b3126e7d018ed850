//! Where the gaps start that are reported.

use std::time::Duration;

use super::Rig;

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
