//! Which subscriptions may not be asked for at once, and when they may. Knows their ids and nothing else of them.
//!
//! Two things make a subscription wait. The server may end it by itself: it is asked for again after a delay that grows. Or
//! connections are lost again and again while it is not answered, as behind a proxy that cuts a connection for a word in
//! a query: then it is a suspect. Suspects are sent a few at a time once all others are answered, those first that were
//! suspected least, so that the innocent are acquitted. One that is alone when the connection is lost has been caught;
//! caught twice, it is held back for minutes and more, since each trial costs all others a gap.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rand::RngExt;

use crate::protocol::backoff::Backoff;

#[derive(Debug)]
pub(super) struct Retries {
    fresh: Backoff,
    records: BTreeMap<u64, Record>,
    /// When those that are held back may be asked for.
    held: BTreeSet<(Instant, u64)>,
    /// The suspects that wait for their trial on this connection, the least suspected first.
    on_trial: BTreeSet<(u32, u64)>,
}

/// What is held against a subscription.
#[derive(Debug)]
struct Record {
    backoff: Backoff,
    held_until: Option<Instant>,
    /// When the server last acknowledged it.
    acknowledged: Option<Instant>,
    /// The connections that were lost in a row while it was not answered.
    losses: u32,
    /// Those of them that were lost while nothing else was unanswered.
    caught: u32,
}

impl Retries {
    pub(super) fn new(backoff: Backoff) -> Self {
        Self {
            fresh: backoff,
            records: BTreeMap::new(),
            held: BTreeSet::new(),
            on_trial: BTreeSet::new(),
        }
    }

    /// Whether a subscription may be asked for now. A suspect may not: it is put on trial.
    pub(super) fn admit(&mut self, id: u64) -> bool {
        match self.records.get(&id) {
            Some(record) if record.held_until.is_some() => false,
            Some(record) if record.losses >= SUSPECT => {
                self.on_trial.insert((record.losses, id));
                false
            }
            _ => true,
        }
    }

    /// The suspects whose trial begins, nothing else being unanswered.
    pub(super) fn next_trial(&mut self) -> Vec<u64> {
        let Some((least, _)) = self.on_trial.first().copied() else {
            return Vec::new();
        };
        let alike = self.on_trial.range(..=(least, u64::MAX)).count();
        (0..alike.div_ceil(TRIALS))
            .filter_map(|_| self.on_trial.pop_first())
            .map(|(_, id)| id)
            .collect()
    }

    /// The server has ended a subscription by itself. Returns how long it is held back.
    pub(super) fn ended(&mut self, id: u64, now: Instant, rng: &mut impl RngExt) -> Duration {
        let record = self.record(id);
        if record
            .acknowledged
            .is_some_and(|at| now.saturating_duration_since(at) >= STABLE_AFTER)
        {
            record.backoff.reset();
        }
        let delay = record.backoff.next(rng);
        self.hold(id, now + delay);
        delay
    }

    /// A connection was lost soon after a subscription was sent, which was not answered.
    pub(super) fn lost_with(&mut self, id: u64) {
        let record = self.record(id);
        record.losses = record.losses.saturating_add(1);
    }

    /// The same, and nothing else was unanswered, while others were well. Returns how long the subscription is held back,
    /// if it is, and how many connections were lost with it.
    pub(super) fn caught(&mut self, id: u64, now: Instant) -> Option<(Duration, u32)> {
        let record = self.record(id);
        if record.losses <= SUSPECT {
            return None;
        }
        record.caught = record.caught.saturating_add(1);
        let times = record.caught.checked_sub(CONVICTED)?;
        let losses = record.losses;
        let delay = SHORTEST_HOLD
            .saturating_mul(2u32.saturating_pow(times))
            .min(LONGEST_HOLD);
        self.hold(id, now + delay);
        Some((delay, losses))
    }

    /// The server has acknowledged a subscription.
    pub(super) fn acknowledged(&mut self, id: u64, now: Instant) {
        if let Some(record) = self.records.get_mut(&id) {
            (record.losses, record.caught) = (0, 0);
            record.acknowledged = Some(now);
            if record.backoff.attempts() == 0 {
                self.forget(id);
            }
        }
    }

    /// The first that may be asked for again, and when.
    pub(super) fn due(&self) -> Option<(Instant, u64)> {
        self.held.first().copied()
    }

    /// Holds a subscription back no longer.
    pub(super) fn release(&mut self, id: u64) {
        if let Some(until) = self
            .records
            .get_mut(&id)
            .and_then(|record| record.held_until.take())
        {
            self.held.remove(&(until, id));
        }
    }

    /// Holds nothing back any longer. Returns what was.
    pub(super) fn release_all(&mut self) -> Vec<u64> {
        let ids: Vec<_> = self.held.iter().map(|(_, id)| *id).collect();
        for id in &ids {
            self.release(*id);
        }
        ids
    }

    /// The connection is gone, and with it the trials on it.
    pub(super) fn connection_gone(&mut self) {
        self.on_trial.clear();
    }

    /// The subscription has ended, or is about to ask for something else.
    pub(super) fn forget(&mut self, id: u64) {
        self.release(id);
        if let Some(record) = self.records.remove(&id) {
            self.on_trial.remove(&(record.losses, id));
        }
    }

    #[cfg(any(test, feature = "_fuzz"))]
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty() && self.on_trial.is_empty()
    }

    fn hold(&mut self, id: u64, until: Instant) {
        self.release(id);
        self.record(id).held_until = Some(until);
        self.held.insert((until, id));
    }

    fn record(&mut self, id: u64) -> &mut Record {
        let fresh = &self.fresh;
        self.records.entry(id).or_insert_with(|| Record {
            backoff: fresh.clone(),
            held_until: None,
            acknowledged: None,
            losses: 0,
            caught: 0,
        })
    }
}

/// A subscription that lived this long was stable.
const STABLE_AFTER: Duration = Duration::from_secs(10);
/// So many losses in a row make a suspect: one is an accident.
const SUSPECT: u32 = 2;
/// So many trials it takes to try all suspects alike. One after another they would take a round trip each.
const TRIALS: usize = 16;
/// A suspect that was caught so often is held back.
const CONVICTED: u32 = 2;
const SHORTEST_HOLD: Duration = Duration::from_secs(60);
const LONGEST_HOLD: Duration = Duration::from_secs(60 * 60);
