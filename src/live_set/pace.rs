//! The settings of a set that do not depend on its query: how often it fetches. It creates a core for a
//! query, and does not know what happens to it.

use std::time::Duration;

use super::core::Core;
use crate::error::Result;
use crate::query::version::Age;
use crate::query::{EncodedQuery, Query};

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    pub(super) min_fetch_interval: Option<Duration>,
    pub(super) refresh_every: Option<Duration>,
    /// The query selects one object, which is requested by its id.
    pub(super) is_of_one: bool,
}

/// A query, as a set asks for it.
pub(super) struct Prepared {
    pub(super) core: Core,
    /// The query that is sent for the set's own class.
    pub(super) own: EncodedQuery,
    /// The other queries that decide which objects match.
    pub(super) others: Vec<EncodedQuery>,
}

impl Pace {
    /// # Errors
    ///
    /// What is wrong with the query, or why the set could not be equal to `find()`.
    pub(super) fn prepare(self, query: &Query, age: Option<Age>) -> Result<Prepared> {
        query.check_for_set()?;
        let plan = query.plan()?;
        let encode = |query: &Query| query.encode_conditions_for(age);
        let own = encode(&plan.own)?;
        let others = plan.others.iter().map(encode).collect::<Result<_>>()?;
        let mut core = Core::new(query, rand::random());
        if self.is_of_one {
            core.is_of_one();
        }
        if !plan.is_exact || query.has_order_of_server() {
            core.asks_again(self.min_fetch_interval.unwrap_or(MIN_FETCH_INTERVAL));
        } else if let Some(interval) = self.min_fetch_interval {
            core.space_out(interval);
        }
        if let Some(interval) = self.refresh_every {
            core.refresh_every(interval.max(SHORTEST_REFRESH));
        }
        Ok(Prepared { core, own, others })
    }
}

/// The time between two fetches of everything because of events.
const MIN_FETCH_INTERVAL: Duration = Duration::from_secs(1);
/// With a shorter one, the server would do nothing else.
const SHORTEST_REFRESH: Duration = Duration::from_millis(100);
