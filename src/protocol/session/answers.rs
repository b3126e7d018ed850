//! The queue of operations that the server has not answered, and the errors that may belong to any of them.
//! Must not know of subscriptions, except their ids.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::protocol::incoming::ServerError;
use crate::protocol::outgoing::Dialect;

/// What waits for an answer on one connection.
#[derive(Debug)]
pub(super) struct Answers {
    limit: Duration,
    /// The operations by number, which is the order in which they were sent.
    waiting: BTreeMap<u64, Asked>,
    next: u64,
    /// Operations with lower numbers are late and were reported.
    late_below: u64,
    /// When the oldest operation was last answered: later ones have waited in the queue until then.
    moved: Option<Instant>,
    /// Errors that do not name a subscription. There are always fewer of them than operations.
    errors: VecDeque<ServerError>,
    /// How many of these errors, from the first on, were reported to all operations that they may belong to.
    told: usize,
}

/// A sent operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) id: u64,
    /// When it was sent, on the clock that includes sleep.
    pub(super) moment: Instant,
    pub(super) dialect: Dialect,
}

impl Answers {
    /// A queue in which an operation may take up to `limit` once it is first.
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            limit,
            waiting: BTreeMap::new(),
            next: 0,
            late_below: 0,
            moved: None,
            errors: VecDeque::new(),
            told: 0,
        }
    }

    /// Adds a sent operation. Returns its number.
    pub(super) fn sent(&mut self, asked: Asked, now: Instant) -> u64 {
        if self.first_on_time().is_none() {
            self.moved = Some(now);
        }
        let number = self.next;
        self.waiting.insert(number, asked);
        self.next += 1;
        number
    }

    /// Removes an operation that the server has answered.
    pub(super) fn answered(&mut self, number: u64, now: Instant) -> Option<Asked> {
        if self.first_on_time().is_some_and(|(first, _)| first == number) {
            self.moved = Some(now);
        }
        self.waiting.remove(&number)
    }

    /// When the oldest operation has waited too long. The time counts from the answer to the one before it:
    /// ten thousand subscriptions sent at once are answered one after another.
    pub(super) fn due(&self) -> Option<Instant> {
        self.first_on_time()?;
        Some(self.moved? + self.limit)
    }

    /// Marks the oldest operation as late. It stays in the queue, because its answer may still come.
    pub(super) fn overtake(&mut self, now: Instant) -> Option<Asked> {
        let (number, asked) = self.first_on_time()?;
        self.late_below = number + 1;
        self.moved = Some(now);
        Some(asked)
    }

    /// Adds an error that does not name a subscription. Returns it if there is no operation that it may
    /// belong to.
    pub(super) fn blame(&mut self, error: ServerError) -> Option<ServerError> {
        if self.waiting.is_empty() {
            return Some(error);
        }
        self.errors.push_back(error);
        None
    }

    /// The errors and the ids that they belong to, as soon as that is certain. Each operation gets one
    /// answer, so once there are as many errors as operations, they belong together in the order of sending:
    /// Parse Server checks a message against its schema before anything else.
    pub(super) fn attribute(&mut self) -> Vec<(u64, ServerError)> {
        if self.errors.len() < self.waiting.len() {
            return Vec::new();
        }
        self.told = 0;
        let ids = self.waiting.values().map(|asked| asked.id);
        ids.zip(self.errors.drain(..)).collect()
    }

    /// The errors that were not reported yet, with the ids of all operations that they may belong to. Each is
    /// returned once.
    pub(super) fn untold(&mut self) -> Vec<(ServerError, Vec<u64>)> {
        let ids: Vec<_> = self.waiting.values().map(|asked| asked.id).collect();
        let untold = self.errors.iter().skip(self.told);
        let untold = untold.map(|error| (error.clone(), ids.clone())).collect();
        self.told = self.errors.len();
        untold
    }

    /// The ids of the operations whose answers are not late.
    pub(super) fn on_time(&self) -> impl Iterator<Item = u64> + '_ {
        self.waiting.range(self.late_below..).map(|(_, asked)| asked.id)
    }

    /// The ids of all unanswered operations.
    pub(super) fn ids(&self) -> impl Iterator<Item = u64> + '_ {
        self.waiting.values().map(|asked| asked.id)
    }

    /// The connection is closed, so no more answers come.
    pub(super) fn clear(&mut self) {
        self.waiting.clear();
        self.errors.clear();
        self.told = 0;
    }

    #[cfg(any(test, feature = "_fuzz"))]
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.errors.is_empty()
    }

    /// The oldest operation whose answer is not late.
    fn first_on_time(&self) -> Option<(u64, Asked)> {
        let (number, asked) = self.waiting.range(self.late_below..).next()?;
        Some((*number, *asked))
    }
}
