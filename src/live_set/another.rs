//! Another query for a set: the subscriptions of the query that is shown and of the next one. It does not
//! know their events.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::LiveSet;
use super::core::query::SAVED;
use super::keeper::{Keeper, Source};
use super::pace::Prepared;
use super::saved::Savable;
use crate::client::subscription::{Subscription, SubscriptionBuilder};
use crate::error::{Error, ErrorKind, Result};
use crate::query::Query;
use crate::secret::Secret;

impl LiveSet {
    /// Replaces the query, for example for a search box. Everything but the class may change, including order
    /// and limit. Returns at once.
    ///
    /// The set keeps its contents, marked stale, until the server has acknowledged the new query and
    /// everything has been fetched for it. Then it has the new contents, reported as changes: for each object
    /// that differs, or [`Change::Reset`] if there are many or if no object stays. The set is never empty in
    /// between. If this is called again before that, the query in between is never shown.
    ///
    /// You can wait for the returned value, or drop it. If the server refuses the new query, the wait fails,
    /// [`on_error`](Self::on_error) listeners are called, and the set continues with the old query, of which
    /// nothing was missed. A fetch that fails is retried, as usual; meanwhile the set keeps its old contents,
    /// marked stale.
    ///
    /// It costs the server a subscription and a fetch of everything that is shown; the old subscription ends
    /// when the new contents are there.
    ///
    /// [`Change::Reset`]: crate::Change::Reset
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidQuery`] for a query of another class, and for queries that
    /// [`LiveSetBuilder::start`](crate::LiveSetBuilder::start) refuses; [`ErrorKind::Closed`] if the set has
    /// ended. In each case nothing changes.
    ///
    /// # Examples
    /// ```
    /// use parse_livequery::{LiveSet, Query};
    ///
    /// fn search(games: &LiveSet, text: &str) -> parse_livequery::Result<()> {
    ///     games.set_query(&Query::new("Game").starts_with("name", text).ascending(["name"]).limit(20))?;
    ///     Ok(())
    /// }
    /// ```
    pub fn set_query(&self, query: &Query) -> Result<QueryChange> {
        let keeper = &self.0.keeper;
        keeper.shared.check_home()?;
        let mut asked = self.0.handles.0.lock();
        let current = asked.current.subscription.clone();
        if keeper.shared.is_ended(current.core()) {
            return Err(Error::new(ErrorKind::Closed, "the live set was closed"));
        }
        if query.class_name() != current.class_name() {
            let text = format!(
                "a live set of {} cannot become one of {}: create another set",
                current.class_name(),
                query.class_name()
            );
            return Err(Error::new(ErrorKind::InvalidQuery, text));
        }
        let client = current.client();
        let Prepared { core, own, others } = keeper.pace.prepare(query, client.age())?;
        asked.last += 1;
        let number = asked.last;
        let posted = keeper.set_query(number, core);
        let done = asked.keep_in_step(keeper);
        let builder = SubscriptionBuilder::new(client.clone(), query.clone());
        let builder = match &*keeper.session_token.lock() {
            Some(token) => builder.session_token(token.reveal()),
            None => builder,
        };
        let subscription = builder.start_as(own, |subscription| {
            keeper.follow(number, query, subscription, client.clone(), others);
        });
        if asked.is_detached {
            subscription.clone().detach();
        }
        asked.next = Some(Asked {
            number,
            query: query.clone(),
            subscription,
        });
        drop(asked);
        done.end();
        keeper.announce(posted);
        keeper.shared.wake_delivery();
        Ok(QueryChange {
            set: self.clone(),
            number,
        })
    }

    /// Shows this many more objects: raises the query's limit by this number, for a list that loads more as
    /// the user scrolls. Does nothing if the query has no limit.
    ///
    /// The set is stale until the objects are there; they are reported as changes. Objects that are already
    /// held, since a set holds some beyond its limit, appear at once. Only the others are fetched, with a few
    /// before them, so the cost does not grow with the objects already shown; but everything is fetched again
    /// if those few have changed positions meanwhile, and with an order that only the server knows.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`] if the set has ended.
    ///
    /// # Examples
    /// ```
    /// use parse_livequery::LiveSet;
    ///
    /// fn scrolled_to(row: usize, games: &LiveSet) -> parse_livequery::Result<()> {
    ///     if row + 10 > games.len() && games.is_ready() && games.has_more() {
    ///         games.extend(50)?;
    ///     }
    ///     Ok(())
    /// }
    /// ```
    pub fn extend(&self, number: u32) -> Result<()> {
        let keeper = &self.0.keeper;
        keeper.shared.check_home()?;
        let mut asked = self.0.handles.0.lock();
        if keeper.shared.is_ended(asked.current.subscription.core()) {
            return Err(Error::new(ErrorKind::Closed, "the live set was closed"));
        }
        let Inner { current, next, .. } = &mut *asked;
        let query = &mut next.as_mut().unwrap_or(current).query;
        if let Some(limit) = query.window().limit {
            *query = query.clone().limit(limit.saturating_add(number.into()));
        }
        drop(asked);
        keeper.extend(usize::try_from(number).unwrap_or(usize::MAX));
        Ok(())
    }

    /// Returns whether the server has objects after the last one shown, as far as is known.
    /// [`extend`](Self::extend) would show them. `false` without a limit.
    #[must_use]
    pub fn has_more(&self) -> bool {
        let keeper = &self.0.keeper;
        keeper.shared.is_home() && keeper.core.lock().has_more()
    }

    /// Returns the query, as it was given; after [`set_query`](Self::set_query) the new one, unless the
    /// server refused it, and after [`extend`](Self::extend) with the new limit.
    #[must_use]
    pub fn query(&self) -> Query {
        let asked = self.0.handles.0.lock();
        asked.next.as_ref().unwrap_or(&asked.current).query.clone()
    }
}

/// A change of the query that is under way: see [`LiveSet::set_query`]. It keeps the set alive.
#[derive(Clone)]
pub struct QueryChange {
    set: LiveSet,
    number: u64,
}

impl QueryChange {
    /// Waits until the contents are those of the new query, or of one that was set later, and the listeners
    /// for the changes have returned.
    ///
    /// # Errors
    ///
    /// The reason why the server refused the query: the set continues with the old one.
    /// [`ErrorKind::Timeout`] if it takes longer, for example while the connection is down; otherwise the
    /// errors of [`LiveSet::wait_ready`].
    pub fn wait(&self, timeout: Duration) -> Result<()> {
        let keeper = &self.set.0.keeper;
        let text = "the new query is not in force yet; the live set keeps trying";
        self.set
            .wait("wait", timeout, text, |_| keeper.answered(self.number))
    }
}

impl fmt::Debug for QueryChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueryChange")
            .field("set", &self.set)
            .finish_non_exhaustive()
    }
}

/// Holds the subscriptions of a set.
pub(super) struct Handles(Mutex<Inner>);

struct Inner {
    current: Asked,
    next: Option<Asked>,
    /// The number of the query that was last set.
    last: u64,
    is_detached: bool,
}

struct Asked {
    number: u64,
    query: Query,
    subscription: Subscription,
}

impl Handles {
    pub(super) fn new(query: Query, subscription: Subscription) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Inner {
            current: Asked {
                number: 0,
                query,
                subscription,
            },
            next: None,
            last: 0,
            is_detached: false,
        })))
    }

    pub(super) fn current(&self) -> Subscription {
        self.0.lock().current.subscription.clone()
    }

    /// The contents to save.
    pub(super) fn contents(&self, keeper: &Keeper) -> Option<Savable> {
        loop {
            self.keep_in_step(keeper);
            let asked = self.0.lock();
            let filled_under = *keeper.filled_under.lock();
            filled_under.filter(|filled| *filled == keeper.generation())?;
            let core = keeper.core.lock();
            let number = core.numbers().next();
            let (snapshot, since) = core.contents();
            drop(core);
            if number == Some(asked.current.number) {
                return Some((snapshot, since, asked.current.query.clone()));
            }
            if number == Some(SAVED) {
                return None;
            }
        }
    }

    /// Ends the queries that are neither shown nor next.
    pub(super) fn keep_in_step(&self, keeper: &Keeper) {
        let done = self.0.lock().keep_in_step(keeper);
        done.end();
    }

    pub(super) fn set_session_token(&self, keeper: &Keeper, token: Option<&str>) -> Result<()> {
        let asked = self.0.lock();
        *keeper.session_token.lock() = token.map(Secret::from);
        if let Some(next) = &asked.next {
            next.subscription.set_session_token(token)?;
        }
        asked.current.subscription.set_session_token(token)?;
        keeper.follow_as(token)
    }

    pub(super) fn close(&self) {
        let mut asked = self.0.lock();
        let next = asked.next.take();
        let current = asked.current.subscription.clone();
        drop(asked);
        if let Some(next) = next {
            next.subscription.unsubscribe();
        }
        current.unsubscribe();
    }

    pub(super) fn detach(&self) {
        let mut asked = self.0.lock();
        asked.is_detached = true;
        for asked in [Some(&asked.current), asked.next.as_ref()].into_iter().flatten() {
            asked.subscription.clone().detach();
        }
    }
}

impl Inner {
    /// Takes out the queries that are neither shown nor next.
    fn keep_in_step(&mut self, keeper: &Keeper) -> Done {
        let numbers = keeper.numbers();
        let sources = keeper.drop_sources(&numbers);
        let mut asked = self.next.take_if(|asked| !numbers.contains(&asked.number));
        if !numbers.contains(&self.current.number) {
            if let Some(next) = self.next.take() {
                asked = Some(std::mem::replace(&mut self.current, next));
            }
        }
        Done(sources, asked)
    }
}

/// Parts that a set no longer needs. User code may run when they are dropped, so no lock may be held.
#[must_use]
struct Done(Vec<Arc<Source>>, Option<Asked>);

impl Done {
    fn end(self) {
        let Self(sources, asked) = self;
        if let Some(asked) = asked {
            // It may be detached, or the program may have a handle to it.
            asked.subscription.unsubscribe();
        }
        end_all(sources);
    }
}

/// Ends the other subscriptions of the queries, with the queries.
pub(super) fn end_all(sources: Vec<Arc<Source>>) {
    for source in sources {
        source.follows.end();
    }
}
