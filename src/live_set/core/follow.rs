//! What the set follows besides its own objects: which of the subscriptions are open, and what an event of one means whose
//! objects decide which ones match. It must not know of subscriptions as such: they are numbers here.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use super::{Core, Moment};

/// The subscriptions without which nothing can be known.
pub(super) struct Links {
    closed: HashSet<u64>,
    /// Since when events may be missing, while not all of them are open.
    lost_since: Option<SystemTime>,
}

/// That of the set's own objects. Others have the numbers of their subscriptions, which count from 1.
const OWN: u64 = 0;

impl Links {
    pub(super) fn new() -> Self {
        Self {
            closed: HashSet::from([OWN]),
            lost_since: None,
        }
    }
}

impl Core {
    /// No event tells which objects match: whatever happens, everything is fetched, with so much time in between at least.
    pub(crate) fn asks_again(&mut self, min_interval: Duration) {
        self.asks_again = true;
        self.due.space_out(min_interval);
    }

    /// Each fetch of everything comes at least so much later than the one before it.
    pub(crate) fn space_out(&mut self, min_interval: Duration) {
        self.due.space_out(min_interval);
    }

    /// The objects of this subscription decide which ones match.
    pub(crate) fn follows(&mut self, number: u64) {
        self.links.closed.insert(number);
    }

    /// The subscription is acknowledged: from here on all that happens comes as an event. What was before is not known,
    /// since the last proof of a link at the latest.
    pub(crate) fn opened(&mut self, lost_since: Option<SystemTime>, now: Moment) {
        self.link_opened(OWN, lost_since, now);
    }

    /// No events come any more.
    pub(crate) fn closed(&mut self, since: SystemTime) {
        self.link_closed(OWN, since);
    }

    /// As [`opened`](Self::opened), for one of those that decide.
    pub(crate) fn link_opened(&mut self, number: u64, lost_since: Option<SystemTime>, now: Moment) {
        let links = &mut self.links;
        links.closed.remove(&number);
        let known = links.lost_since.into_iter().chain(lost_since).min();
        links.lost_since = known;
        if links.closed.is_empty() {
            links.lost_since = None;
            self.lost_at = None;
            self.due.opened();
        }
        self.settle(known.unwrap_or(now.time));
    }

    /// As [`closed`](Self::closed), for one of those that decide.
    pub(crate) fn link_closed(&mut self, number: u64, since: SystemTime) {
        self.links.closed.insert(number);
        self.due.closed();
        self.settle(since);
    }

    /// Something happened to an object that decides, or may decide, which ones match.
    pub(crate) fn answer_may_change(&mut self, now: Moment) {
        self.due.count_event();
        self.due.doubt_all_soon(now.at);
        self.settle(now.time);
    }
}
