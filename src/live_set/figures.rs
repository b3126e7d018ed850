//! What a live set costs the server. Values, without what is done with them.

use super::core::Figures;

/// What a live set took to be right. A snapshot, made by [`LiveSet::stats`](crate::LiveSet::stats).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LiveSetStats {
    /// Requests that were made: pages of everything, and objects that were asked for by their ids.
    pub requests: u64,
    /// Fetches of everything that began, each of them one request or, with more objects than the server returns at once,
    /// several.
    pub fetches: u64,
    /// Those of them that caught up by difference: they listed all objects, and fetched only those that the set did not hold
    /// as they are.
    pub catch_ups: u64,
    /// Events after which something had to be fetched, since they do not tell what became of the set.
    pub events: u64,
    /// The subscriptions that the set has: its own, and those to what its query names and includes.
    pub subscriptions: usize,
}

impl LiveSetStats {
    pub(super) fn new(figures: Figures, subscriptions: usize) -> Self {
        let Figures {
            requests,
            fetches,
            catch_ups,
            events,
        } = figures;
        Self {
            requests,
            fetches,
            catch_ups,
            events,
            subscriptions,
        }
    }
}
