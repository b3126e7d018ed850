//! The costs of a live set to the server. Values only.

use super::core::Figures;

/// The cost of keeping a live set correct. A snapshot, returned by [`LiveSet::stats`](crate::LiveSet::stats).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LiveSetStats {
    /// How many requests were made: for pages of everything, and for objects by their ids.
    pub requests: u64,
    /// How many fetches of everything have begun. Each is one request or, with more objects than the server
    /// returns at once, several.
    pub fetches: u64,
    /// How many of them caught up by difference: they listed all objects, and fetched only those that the set did not
    /// hold in this version.
    pub catch_ups: u64,
    /// How many events required a fetch, since they do not say what became of the set.
    pub events: u64,
    /// How many subscriptions the set has: its own, and those to the classes that its query names and
    /// includes.
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
