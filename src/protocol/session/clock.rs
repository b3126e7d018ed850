//! The two clocks of a machine that may sleep. Must not know of sessions.

use std::time::{Duration, Instant};

use crate::protocol::Now;

/// Compares the time of day with the monotonic clock, which may stand still while the machine sleeps.
#[derive(Debug, Default)]
pub(super) struct Clock {
    last: Option<Now>,
    /// The time that the monotonic clock has missed.
    slept: Duration,
    jumped: bool,
}

impl Clock {
    /// Reads both clocks.
    pub(super) fn look(&mut self, now: Now) {
        if let Some(last) = self.last.replace(now) {
            let wall = now.wall.duration_since(last.wall).unwrap_or_default();
            let mono = now.mono.saturating_duration_since(last.mono);
            let ahead = wall.saturating_sub(mono);
            if ahead >= NAP {
                self.slept = self.slept.saturating_add(ahead);
            }
            self.jumped |= ahead >= JUMP;
        }
    }

    /// Whether the time of day has jumped ahead since the last call. If so, the machine has slept, or its
    /// clock was set, and anything expected from the network is doubtful.
    pub(super) fn take_jump(&mut self) -> bool {
        std::mem::take(&mut self.jumped)
    }

    /// The monotonic clock plus the time that the machine slept: the clock for what happened elsewhere in the
    /// meantime. It never runs slower than the time of day, and ignores a time of day that is set back. A
    /// time of day that is set ahead cannot be told from sleep, and counts as sleep.
    pub(super) fn moment(&mut self, now: Now) -> Instant {
        self.look(now);
        now.mono.checked_add(self.slept).unwrap_or(now.mono)
    }

    /// When the clocks were last read.
    pub(super) fn last_look(&self) -> Option<Instant> {
        self.last.map(|last| last.mono)
    }
}

/// How far the clocks must drift apart for the machine to count as having slept. The corrections of a time
/// server are smaller.
const NAP: Duration = Duration::from_millis(100);
/// How far they must drift apart for the network to be doubted.
const JUMP: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn a_moment_counts_sleep_and_forgives_a_clock_that_is_set_back() {
        let start = Now {
            mono: Instant::now(),
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000),
        };
        let mut clock = Clock::default();
        let first = clock.moment(start);
        let at = |mono: u64, wall: i64| Now {
            mono: start.mono + Duration::from_secs(mono),
            wall: SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000u64.saturating_add_signed(wall)),
        };
        assert_eq!(clock.moment(at(5, 5)) - first, Duration::from_secs(5));
        assert!(!clock.take_jump());
        assert_eq!(clock.moment(at(6, 606)) - first, Duration::from_secs(606));
        assert!(clock.take_jump() && !clock.take_jump());
        assert_eq!(clock.moment(at(8, -3600)) - first, Duration::from_secs(608));
        assert_eq!(clock.moment(at(9, -3599)) - first, Duration::from_secs(609));
        assert!(!clock.take_jump());
    }

    #[test]
    fn absurd_times_of_day_do_no_harm() {
        let mut now = Now {
            mono: Instant::now(),
            wall: SystemTime::UNIX_EPOCH,
        };
        let mut clock = Clock::default();
        for wall in [u64::MAX / 4, 0, u64::MAX / 4, 0, u64::MAX / 4] {
            now.wall = SystemTime::UNIX_EPOCH
                .checked_add(Duration::from_secs(wall))
                .unwrap_or(SystemTime::UNIX_EPOCH);
            clock.moment(now);
        }
    }
}
