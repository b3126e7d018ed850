//! Which of several servers is next.

use std::time::{Duration, Instant};

use rand::seq::SliceRandom;
use url::Url;

/// The servers, in rounds: each has its turn before any of them has a second one. The order is drawn anew for
/// each round, so that clients which lose the same server do not all move to the same other one.
#[derive(Debug)]
pub(crate) struct Servers {
    all: Vec<Url>,
    /// The indices of the servers that have not had their turn, the next one last.
    round: Vec<usize>,
    last: Option<usize>,
    /// Until when a server asked for a pause, in the order of `all`.
    resting: Vec<Option<Instant>>,
}

impl Servers {
    pub(crate) fn new(all: Vec<Url>) -> Self {
        Self {
            resting: vec![None; all.len()],
            all,
            round: Vec::new(),
            last: None,
        }
    }

    /// The next server: not the previous one unless there is no other, and none that asked for a pause unless
    /// all did. `None` if there are no servers.
    pub(crate) fn next(&mut self, now: Instant) -> Option<&Url> {
        for _ in 0..2 * self.all.len() {
            self.take_turn();
            if !self.is_resting(self.last?, now) {
                return self.all.get(self.last?);
            }
        }
        self.all.get(self.last?)
    }

    /// The last server refuses this client for now, possibly with a pause. Returns the minimum wait: none
    /// while there is another server to try.
    pub(crate) fn refused(&mut self, retry_after: Option<Duration>, now: Instant) -> Option<Duration> {
        let resting = self.resting.get_mut(self.last?)?;
        *resting = retry_after.map(|delay| now + delay.min(LONGEST_WAIT));
        let ends = self.resting.iter().copied().collect::<Option<Vec<_>>>()?;
        let first = ends.into_iter().min()?;
        Some(first.saturating_duration_since(now)).filter(|delay| !delay.is_zero())
    }

    fn is_resting(&self, server: usize, now: Instant) -> bool {
        let until = self.resting.get(server).copied().flatten();
        until.is_some_and(|until| now < until)
    }

    fn take_turn(&mut self) {
        if self.round.is_empty() {
            self.round.extend(0..self.all.len());
            self.round.shuffle(&mut rand::rng());
            if self.round.last().copied() == self.last {
                self.round.rotate_right(1);
            }
        }
        self.last = self.round.pop();
    }
}

/// No pause is longer than this.
const LONGEST_WAIT: Duration = Duration::from_secs(600);

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn servers(count: usize) -> Servers {
        Servers::new(
            (0..count)
                .map(|n| Url::parse(&format!("ws://{n}.example")).unwrap())
                .collect(),
        )
    }

    #[test]
    fn one_server_is_always_next() {
        let mut servers = servers(1);
        let first = servers.next(Instant::now()).cloned();
        assert!(first.is_some());
        assert!((0..5).all(|_| servers.next(Instant::now()) == first.as_ref()));
    }

    #[test]
    fn each_has_its_turn_and_none_two_in_a_row() {
        let mut servers = servers(3);
        let mut last = None;
        for _ in 0..50 {
            let round: Vec<_> = (0..3)
                .map(|_| servers.next(Instant::now()).unwrap().clone())
                .collect();
            assert_eq!(round.iter().collect::<HashSet<_>>().len(), 3, "{round:?}");
            assert_ne!(round.first(), last.as_ref());
            last = round.last().cloned();
        }
    }

    #[test]
    fn clients_spread() {
        let firsts: HashSet<_> = (0..100)
            .map(|_| servers(3).next(Instant::now()).unwrap().clone())
            .collect();
        assert_eq!(firsts.len(), 3);
    }

    #[test]
    fn one_that_wants_to_be_left_alone_is_passed_over() {
        let now = Instant::now();
        let minutes = |count: u64| Duration::from_secs(60 * count);
        let mut servers = servers(3);
        let first = servers.next(now).unwrap().clone();
        assert_eq!(servers.refused(Some(minutes(2)), now), None, "there are others");
        assert!((0..10).all(|_| servers.next(now) != Some(&first)));
        let second = servers.next(now).unwrap().clone();
        assert_eq!(servers.refused(Some(minutes(60)), now), None);
        let third = servers.next(now).unwrap().clone();
        assert!(third != first && third != second);
        assert_eq!(servers.next(now), Some(&third), "the only one that is left");
        assert_eq!(servers.refused(Some(minutes(1)), now), Some(minutes(1)));
        // A server that allows a retry at once gets one.
        assert!(servers.next(now).is_some());
        let later = now + minutes(3);
        assert!((0..10).all(|_| servers.next(later) != Some(&second)));
        // An hour is cut to ten minutes.
        let later = now + minutes(11);
        assert!((0..10).any(|_| servers.next(later) == Some(&second)));
    }

    #[test]
    fn a_server_that_says_nothing_is_waited_for_no_longer_than_others() {
        let now = Instant::now();
        let mut servers = servers(1);
        servers.next(now);
        assert_eq!(servers.refused(None, now), None);
        let delay = Duration::from_secs(5);
        assert_eq!(servers.refused(Some(delay), now), Some(delay));
        assert_eq!(servers.refused(None, now), None, "it has taken that back");
        assert_eq!(servers.refused(Some(Duration::MAX), now), Some(LONGEST_WAIT));
    }
}
