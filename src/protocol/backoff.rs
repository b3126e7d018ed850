//! How long to wait before the next attempt to connect.

use std::time::Duration;

use rand::RngExt;

/// Exponential backoff with full jitter above a floor.
///
/// The first delay is drawn from a window as well, so that a thousand clients that lost the same server do
/// not come back at the same time. The delay is always a value, never an option: there is no state in which
/// it gives up or spins.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    floor: Duration,
    cap: Duration,
    servers: u32,
    attempts: u32,
}

impl Backoff {
    /// With several servers in turn, the delays grow once each of them has failed.
    pub(crate) fn new(floor: Duration, cap: Duration, servers: u32) -> Self {
        Self {
            floor,
            cap: cap.max(floor),
            servers: servers.max(1),
            attempts: 0,
        }
    }

    /// The number of delayed attempts since the last reset.
    pub(crate) fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The delay before the next attempt.
    pub(crate) fn next(&mut self, rng: &mut impl RngExt) -> Duration {
        let ceiling = FIRST_WINDOW
            .saturating_mul(2u32.saturating_pow(self.attempts / self.servers))
            .min(self.cap)
            .max(self.floor);
        self.attempts = self.attempts.saturating_add(1);
        self.floor + (ceiling - self.floor).mul_f64(rng.random::<f64>())
    }

    /// Must be called once a connection was stable, not as soon as it was made: a server that accepts and
    /// then disconnects must not be contacted again and again without a pause.
    pub(crate) fn reset(&mut self) {
        self.attempts = 0;
    }
}

/// The window of the first delay: wide enough that of a thousand clients, at most a twentieth fall into any
/// 100 ms.
const FIRST_WINDOW: Duration = Duration::from_secs(4);

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    const FLOOR: Duration = Duration::from_millis(250);
    const CAP: Duration = Duration::from_secs(30);

    #[test]
    fn jitter_distribution() {
        let mut buckets = [0u32; 45];
        for seed in 0..1000 {
            let delay = Backoff::new(FLOOR, CAP, 1).next(&mut StdRng::seed_from_u64(seed));
            buckets[(delay.as_millis() / 100) as usize] += 1;
        }
        let fullest = buckets.iter().max().unwrap();
        assert!(*fullest <= 50, "{fullest} of 1000 first retries within 100 ms");
    }

    #[test]
    fn delays_stay_between_floor_and_cap_and_grow() {
        let mut rng = StdRng::seed_from_u64(7);
        let mut sums = [Duration::ZERO; 12];
        for _ in 0..200 {
            let mut backoff = Backoff::new(FLOOR, CAP, 1);
            for sum in &mut sums {
                let delay = backoff.next(&mut rng);
                assert!((FLOOR..=CAP).contains(&delay), "{delay:?}");
                *sum += delay;
            }
        }
        assert!(
            sums[1] > sums[0] && sums[2] > sums[1] && sums[3] > sums[2],
            "{sums:?}"
        );
    }

    #[test]
    fn delays_grow_once_each_server_has_failed() {
        let mut rng = StdRng::seed_from_u64(3);
        let mut longest = [Duration::ZERO; 4];
        for _ in 0..500 {
            let mut backoff = Backoff::new(FLOOR, CAP, 2);
            for longest in &mut longest {
                *longest = backoff.next(&mut rng).max(*longest);
            }
        }
        assert!(
            longest[0] <= FIRST_WINDOW && longest[1] <= FIRST_WINDOW,
            "{longest:?}"
        );
        assert!(
            longest[2] > FIRST_WINDOW && longest[3] > FIRST_WINDOW,
            "{longest:?}"
        );
    }

    #[test]
    fn no_busy_loop_after_a_thousand_attempts() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut backoff = Backoff::new(FLOOR, CAP, 1);
        for _ in 0..1000 {
            assert!(backoff.next(&mut rng) >= FLOOR);
        }
        backoff.reset();
        assert_eq!(backoff.attempts(), 0);
    }

    #[test]
    fn a_floor_above_the_first_window_is_kept() {
        let mut backoff = Backoff::new(Duration::from_secs(10), Duration::from_secs(5), 1);
        assert_eq!(
            backoff.next(&mut StdRng::seed_from_u64(1)),
            Duration::from_secs(10)
        );
    }
}
