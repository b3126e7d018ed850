//! Which of several servers is next.

use rand::seq::SliceRandom;
use url::Url;

/// The servers, in rounds: each has its turn before any of them has a second one, in an order that is drawn anew for
/// each round, so that clients which lose the same server do not all go to the same other one.
#[derive(Debug)]
pub(crate) struct Servers {
    all: Vec<Url>,
    /// The indices of those that have not had their turn, the next one last.
    round: Vec<usize>,
    last: Option<usize>,
}

impl Servers {
    pub(crate) fn new(all: Vec<Url>) -> Self {
        Self {
            all,
            round: Vec::new(),
            last: None,
        }
    }

    /// The server whose turn it is: not the one of the last time, unless there is no other. `None` if there are none.
    pub(crate) fn next(&mut self) -> Option<&Url> {
        if self.round.is_empty() {
            self.round.extend(0..self.all.len());
            self.round.shuffle(&mut rand::rng());
            if self.round.last().copied() == self.last {
                self.round.rotate_right(1);
            }
        }
        self.last = self.round.pop();
        self.all.get(self.last?)
    }
}

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
        let first = servers.next().cloned();
        assert!(first.is_some());
        assert!((0..5).all(|_| servers.next() == first.as_ref()));
    }

    #[test]
    fn each_has_its_turn_and_none_two_in_a_row() {
        let mut servers = servers(3);
        let mut last = None;
        for _ in 0..50 {
            let round: Vec<_> = (0..3).map(|_| servers.next().unwrap().clone()).collect();
            assert_eq!(round.iter().collect::<HashSet<_>>().len(), 3, "{round:?}");
            assert_ne!(round.first(), last.as_ref());
            last = round.last().cloned();
        }
    }

    #[test]
    fn clients_spread() {
        let firsts: HashSet<_> = (0..100).map(|_| servers(3).next().unwrap().clone()).collect();
        assert_eq!(firsts.len(), 3);
    }
}
