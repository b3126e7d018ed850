//! Another query for a set: the subscriptions of the one that is shown and of the one that is to come. Knows nothing of
//! what they bring.

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
    /// Replaces the query, for a search box, say: class aside, everything may change, order and limit too. Returns at
    /// once.
    ///
    /// The set keeps what it shows, stale, until the server has acknowledged the new query and everything was fetched for
    /// it. Then it has the new contents, told as changes: those of the objects that differ, or [`Change::Reset`] if they
    /// are many or if no object stays. There is no empty moment in between. If this is called again before that, the query
    /// in between is never shown.
    ///
    /// What it returns can be waited for, and may be dropped as well. If the server refuses the new query, that fails,
    /// [`on_error`](Self::on_error) is told, and the set goes on with the old one, of which nothing was missed. A fetch that
    /// fails is tried again, as ever; meanwhile the set keeps its old contents, stale.
    ///
    /// It costs the server a subscription and a fetch of all that is shown; the old subscription ends when the new
    /// contents are there.
    ///
    /// [`Change::Reset`]: crate::Change::Reset
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidQuery`] for a query of another class, and for what
    /// [`LiveSetBuilder::start`](crate::LiveSetBuilder::start) refuses; [`ErrorKind::Closed`] if the set has ended. In
    /// each case nothing has changed.
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
                "a live set of {} cannot become one of {}: make another set",
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

    /// Shows so many more objects: the query's limit grows by this number, for a list that loads more as the user scrolls.
    /// Without a limit nothing changes.
    ///
    /// The set is stale until they are there, and they come as changes. Objects that are held already, since a set holds
    /// some behind its limit, come at once. The others are fetched alone, with a few before them, so the cost does not grow
    /// with what is shown already; but all is fetched anew if those few have changed places meanwhile, and with an order
    /// that only the server knows.
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

    /// Whether the server has objects behind the last one that is shown, which [`extend`](Self::extend) would show, as far
    /// as is known. `false` without a limit.
    #[must_use]
    pub fn has_more(&self) -> bool {
        let keeper = &self.0.keeper;
        keeper.shared.is_home() && keeper.core.lock().has_more()
    }

    /// The query, as it was given; after [`set_query`](Self::set_query) the new one, unless the server
    /// refused it, and after [`extend`](Self::extend) with the new limit.
    #[must_use]
    pub fn query(&self) -> Query {
        let asked = self.0.handles.0.lock();
        asked.next.as_ref().unwrap_or(&asked.current).query.clone()
    }
}

/// A change of the query that is under way: see [`LiveSet::set_query`]. While it is kept, the set is as well.
#[derive(Clone)]
pub struct QueryChange {
    set: LiveSet,
    number: u64,
}

impl QueryChange {
    /// Waits until the contents are those of the new query, or of one that was set later, and the listeners for the
    /// changes have returned.
    ///
    /// # Errors
    ///
    /// Why the server refused the query: the set goes on with the old one. [`ErrorKind::Timeout`] if it takes longer, while
    /// the link is down, for example; otherwise those of [`LiveSet::wait_ready`].
    pub fn wait(&self, timeout: Duration) -> Result<()> {
        let keeper = &self.set.0.keeper;
        let text = "the new query is not in force yet, and the live set goes on trying";
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

/// What keeps the subscriptions of a set.
pub(super) struct Handles(Mutex<Inner>);

struct Inner {
    current: Asked,
    next: Option<Asked>,
    /// The number of the query that was set last.
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

    /// What may be saved.
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

    /// Ends what is neither shown nor to come.
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
    /// Lets go of what is neither shown nor to come.
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

/// What a set needs no more. Code of the program may run when it ends, so no lock is to be held.
#[must_use]
struct Done(Vec<Arc<Source>>, Option<Asked>);

impl Done {
    fn end(self) {
        let Self(sources, asked) = self;
        if let Some(asked) = asked {
            // It may be one that is detached, or that the program has a handle of.
            asked.subscription.unsubscribe();
        }
        end_all(sources);
    }
}

/// What the queries follow besides their own objects ends with them.
pub(super) fn end_all(sources: Vec<Arc<Source>>) {
    for source in sources {
        source.follows.end();
    }
}
