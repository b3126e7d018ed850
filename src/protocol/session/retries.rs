//! Which subscriptions may not be requested at once, and when they may. Must not know of subscriptions,
//! except their ids.
//!
//! A subscription waits in two cases. If the server ends it unasked, it is requested again after a delay that
//! grows. If connections are lost again and again while it is unanswered, as behind a proxy that cuts a
//! connection because of a word in a query, it becomes a suspect. Suspects are sent a few at a time once all
//! other subscriptions are answered, the least suspected first, so that the innocent are acquitted. A suspect
//! that is alone when the connection is lost is caught; after being caught twice, it is held back for minutes
//! or longer, because each trial costs all other subscriptions a gap.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rand::RngExt;

use crate::protocol::backoff::Backoff;

#[derive(Debug)]
pub(super) struct Retries {
    fresh: Backoff,
    records: BTreeMap<u64, Record>,
    /// When subscriptions that are held back may be requested.
    held: BTreeSet<(Instant, u64)>,
    /// The suspects that wait for their trial on this connection, the least suspected first.
    on_trial: BTreeSet<(u32, u64)>,
}

/// What is known of a subscription.
#[derive(Debug)]
struct Record {
    backoff: Backoff,
    held_until: Option<Instant>,
    /// When the server last acknowledged it.
    acknowledged: Option<Instant>,
    /// The number of connections in a row that were lost while it was unanswered.
    losses: u32,
    /// The number of those that were lost while nothing else was unanswered.
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

    /// Whether a subscription may be requested now. A suspect may not: it is put on trial.
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

    /// The suspects whose trial begins, as nothing else is unanswered.
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

    /// The server has ended a subscription unasked. Returns how long it is held back.
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

    /// A connection was lost soon after a subscription was sent, which was unanswered.
    pub(super) fn lost_with(&mut self, id: u64) {
        let record = self.record(id);
        record.losses = record.losses.saturating_add(1);
    }

    /// The same, while nothing else was unanswered and others were well. Returns how long the subscription is
    /// held back, if it is, and how many connections were lost with it.
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

    /// The first that may be requested again, and when.
    pub(super) fn due(&self) -> Option<(Instant, u64)> {
        self.held.first().copied()
    }

    /// Stops holding a subscription back.
    pub(super) fn release(&mut self, id: u64) {
        if let Some(until) = self
            .records
            .get_mut(&id)
            .and_then(|record| record.held_until.take())
        {
            self.held.remove(&(until, id));
        }
    }

    /// Stops holding anything back. Returns the released subscriptions.
    pub(super) fn release_all(&mut self) -> Vec<u64> {
        let ids: Vec<_> = self.held.iter().map(|(_, id)| *id).collect();
        for id in &ids {
            self.release(*id);
        }
        ids
    }

    /// The connection is closed, which ends the trials on it.
    pub(super) fn connection_gone(&mut self) {
        self.on_trial.clear();
    }

    /// The subscription has ended, or is about to request something else.
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
/// This many losses in a row make a suspect: one is an accident.
const SUSPECT: u32 = 2;
/// All equally suspected subscriptions are tried within this many trials. One after another, they would take
/// a round trip each.
const TRIALS: usize = 16;
/// A suspect that was caught this often is held back.
const CONVICTED: u32 = 2;
const SHORTEST_HOLD: Duration = Duration::from_secs(60);
const LONGEST_HOLD: Duration = Duration::from_secs(60 * 60);
