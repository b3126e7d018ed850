//! A collection that is equal to `find()` and stays equal: the handle.
//!
//! [`core`], a value without threads, decides what follows from an event or a fetch; [`keeper`] connects it
//! to threads.

mod another;
pub(crate) mod builder;
pub(crate) mod change;
pub(crate) mod core;
mod events;
pub(crate) mod figures;
mod follow;
mod keeper;
pub(crate) mod list;
mod listeners;
pub(crate) mod live_object;
mod pace;
mod paging;
#[cfg(test)]
mod properties;
mod refresh;
mod saved;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use self::another::Handles;
pub use self::another::QueryChange;
pub use self::change::{Change, Snapshot, SnapshotIntoIter, SnapshotIter};
use self::core::Figures;
use self::events::{SetEventKind, Shown, for_error, for_late_change, for_ready, for_stale};
pub use self::figures::LiveSetStats;
use self::keeper::{Keeper, Source};
pub use self::refresh::Refresh;
pub use self::saved::Saved;
use crate::client::subscription::Subscription;
use crate::delivery::emitter::{ListenerId, Times};
use crate::delivery::inside::refuse_in_listener;
use crate::delivery::status::Look;
use crate::error::{Error, ErrorKind, Result};
use crate::object::Object;
use crate::text::deadline;
use crate::types::Date;

/// The objects that match a query, now and from now on: a collection that is equal to `find()` whenever the
/// connection is up and nothing is on its way, and that reports what changed.
///
/// It subscribes, fetches, and follows the events; after a reconnect, or whenever events may have been lost,
/// it fetches again and reports the differences as ordinary changes. Create one with
/// [`Client::live_set`](crate::Client::live_set). Clones are cheap and refer to the same set, which ends when
/// the last one is dropped.
///
/// # Any query
///
/// If LiveQuery cannot evaluate the query (inner queries, relations, full text), or only the server knows the
/// order (by distance), the set follows each class that the query names, and fetches everything again after
/// events there, as often as [`min_fetch_interval`](crate::LiveSetBuilder::min_fetch_interval) allows. Until
/// then it is stale, and keeps its contents. With `include`, the included objects are followed as well, and
/// an object is reported once it is complete. The manual says what each of these costs the server and
/// requires of it; [`stats`](Self::stats) counts the cost.
///
/// # Order and limit
///
/// The set is sorted by the query's `ascending` and `descending`, and objects that are equal there by their
/// ids; without any order, the oldest object comes first. `limit` and `skip` hold at all times: when an
/// object leaves, the next one comes in. Without a `limit` the set holds all objects, not the 100 that
/// `find()` then returns.
///
/// Numbers, strings (by their bytes), booleans, dates and pointers are sorted locally, as the database sorts
/// them; the set learns from the database where it puts objects without a value. The set does not guess an
/// order that only the database knows (arrays, objects, geo points, values of different types, strings in the
/// order of a language, as Postgres may sort them): it keeps the positions that the server returned, and asks
/// for them again after each change that may move an object. Until then it is stale. This is logged once, as
/// a warning.
///
/// # When it is equal
///
/// [`is_ready`](Self::is_ready) says that the set is what `find()` returns, as far as can be known. The set
/// is *stale* from the moment there is a reason to doubt that until a fetch that began later has succeeded.
/// It keeps its contents meanwhile. The reasons are: the connection is down; the subscription reports an
/// error, since an event may be lost with it; a fetch failed, or could not be started; events of an object
/// arrive out of order, or contradict each other or their own names; a condition cannot be evaluated locally
/// (see [`Query::matches_object`](crate::Query::matches_object)), so that only the name of an event says
/// whether its object matches. Doubt about a single object is settled within a fraction of a second.
///
/// The object, not the name of its event, decides whether it matches the query: servers from 4.3 to 4.10, and
/// hooks, send events under other names. An object of another class, which only a hook can send, is refused
/// with an error. A fetch that fails is retried, after 0.5 s at first and up to 60 s later, and each failure
/// is reported to [`on_error`](Self::on_error).
///
/// Parse Server does not report some changes: those that bypass it, changes of roles, and, if two clients
/// save one object at the same time and only both changes together make it match, that match. Neither does a
/// hook that holds an event back. After a gap, a large set fetches only what was saved since, and does not see
/// changes that leave no trace in `updatedAt`, such as a field that became readable; the manual says when.
/// [`refresh`](Self::refresh) fetches everything again.
///
/// With Postgres, `find()` omits fields that are null, which events contain, and `exists` does not find such
/// fields in `find()`, but does in LiveQuery. Removing a field (`{"__op": "Delete"}`) works the same
/// everywhere.
///
/// # Threads
///
/// Listeners run where all listeners of the client run. Fetches run on a separate thread, `livequery-fetch`,
/// which exists only while there is something to fetch.
///
/// # Examples
/// ```
/// use parse_livequery::test_server::TestServer;
/// use parse_livequery::{Client, Query};
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let server = Arc::new(TestServer::start()?);
/// server.create("Game", serde_json::json!({"name": "chess", "score": 1}));
/// let client = Client::builder(server.url(), "any").build()?;
///
/// let other = Arc::clone(&server);
/// let games = client
///     .live_set(&Query::new("Game").descending(["score"]))
///     .fetch_with(move |query| other.find(query)) // or nothing, with the cargo feature `rest`
///     .on_change(|change, set| println!("{change:?}, {} games", set.len()))
///     .on_stale(|since| println!("may be old since {since:?}"))
///     .start()?;
/// games.wait_ready(Duration::from_secs(10))?;
///
/// for game in &games.snapshot() {
///     println!("{:?}", game.get("name"));
/// }
/// assert_eq!(games.len(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use = "the set ends when it is dropped; keep it"]
pub struct LiveSet(Arc<Handle>);

struct Handle {
    keeper: Arc<Keeper>,
    handles: Arc<Handles>,
    is_detached: AtomicBool,
}

impl LiveSet {
    /// Calls a listener for each change, with the contents after it.
    ///
    /// Its first change is [`Change::Reset`], which is reported at once if the set already has contents.
    ///
    /// # Examples
    /// ```
    /// use parse_livequery::{Change, LiveSet};
    ///
    /// fn show(games: &LiveSet) {
    ///     games.on_change(|change, set| match change {
    ///         Change::Inserted { index, object, .. } => println!("{index}: {object:?} is new"),
    ///         Change::Updated { index, .. } => println!("{index}: {:?} changed", change.changed_keys()),
    ///         Change::Moved { from, to, .. } => println!("{from} went to {to}"),
    ///         Change::Removed { index, .. } => println!("{index} is gone"),
    ///         _ => println!("{} objects", set.len()), // Reset
    ///     });
    /// }
    /// ```
    pub fn on_change(&self, listener: impl FnMut(&Change, &Snapshot) + Send + 'static) -> ListenerId {
        self.0.keeper.listen(
            Some(SetEventKind::Change),
            Times::Always,
            for_late_change(listener),
        )
    }

    /// Calls a listener when everything has been fetched: the first time, and each time after the set was
    /// stale. If the set is already ready, the listener is called at once.
    pub fn on_ready(&self, listener: impl FnMut(&Snapshot) + Send + 'static) -> ListenerId {
        self.0
            .keeper
            .listen(Some(SetEventKind::Ready), Times::Always, for_ready(listener))
    }

    /// Calls a listener when the contents may be out of date from now on, with the time since when that is
    /// so.
    pub fn on_stale(&self, listener: impl FnMut(Date) + Send + 'static) -> ListenerId {
        self.0
            .keeper
            .listen(Some(SetEventKind::Stale), Times::Always, for_stale(listener))
    }

    /// Calls a listener for each error: a failed fetch, and the errors of the subscription. The client's
    /// listeners for `error` are called for them as well.
    ///
    /// After an error of the subscription that [is fatal](Error::is_fatal), the set is no longer updated.
    pub fn on_error(&self, listener: impl FnMut(&Error) + Send + 'static) -> ListenerId {
        self.0
            .keeper
            .listen(Some(SetEventKind::Error), Times::Always, for_error(listener))
    }

    /// Removes a listener. Returns `false` if it was already gone.
    pub fn off(&self, listener: ListenerId) -> bool {
        self.0.keeper.shared.is_home() && self.0.keeper.subscriber.emitter.off(listener)
    }

    /// Returns the contents, as last reported to listeners. Takes constant time.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.shown(|shown| shown.snapshot.clone())
    }

    /// Returns how many objects there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shown(|shown| shown.snapshot.len())
    }

    /// Returns whether there are no objects.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the object at this position, counted from 0.
    #[must_use]
    pub fn at(&self, index: usize) -> Option<Object> {
        self.shown(|shown| shown.snapshot.at(index).cloned())
    }

    /// Returns the object with this id, if it is in the set.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Object> {
        let (snapshot, index) = self.locate(id)?;
        snapshot.at(index).cloned()
    }

    /// Returns the position of the object with this id.
    #[must_use]
    pub fn index_of(&self, id: &str) -> Option<usize> {
        self.locate(id).map(|(_, index)| index)
    }

    /// Returns whether everything has been fetched, and nothing since has given reason to doubt the contents.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.shown(|shown| shown.is_ready)
    }

    /// Returns since when the contents may be out of date. `None` if they are not, or if there were none yet.
    #[must_use]
    pub fn stale_since(&self) -> Option<Date> {
        self.0.keeper.stale_since().map(Date::from)
    }

    /// Waits until everything has been fetched, and the listeners of [`on_ready`](Self::on_ready) have
    /// returned.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timeout`] if that takes longer, with the last error as its cause; the set keeps trying.
    /// The server's refusal of the subscription or the client. [`ErrorKind::Closed`] if the set has ended,
    /// and [`ErrorKind::CalledFromListener`] in a listener of the client.
    pub fn wait_ready(&self, timeout: Duration) -> Result<()> {
        let is_ready = |_: &Look<'_>| {
            let is_told = self.0.keeper.telling.get() == 0;
            // The reason why it is stale may not have been reported yet.
            (self.is_ready() && is_told && !self.0.keeper.is_stale()).then_some(Ok(()))
        };
        let text = "the live set is not complete yet; it keeps trying";
        self.wait("wait_ready", timeout, text, is_ready)
    }

    /// Waits for an answer, or until there can be none.
    fn wait(
        &self,
        method: &str,
        timeout: Duration,
        text: &str,
        mut answer: impl FnMut(&Look<'_>) -> Option<Result<()>>,
    ) -> Result<()> {
        let shared = &self.0.keeper.shared;
        shared.check_home()?;
        refuse_in_listener(shared, method)?;
        // The sources that were asked are dropped while no lock is held.
        let mut asked: Vec<Arc<Source>> = Vec::new();
        shared
            .status
            .wait(Some(deadline(timeout)), |look| {
                if let Some(answer) = answer(&look) {
                    return Some(answer);
                }
                let source = self.0.keeper.source()?;
                let is_new = asked.last().is_none_or(|last| !Arc::ptr_eq(last, &source));
                asked.extend(is_new.then(|| Arc::clone(&source)));
                let subscription = &source.subscription;
                if shared.is_ended(subscription) {
                    return Some(Err(Error::new(ErrorKind::Closed, "the live set was closed")));
                }
                let refusal = self.0.keeper.refusal(subscription);
                refusal.or_else(|| look.refusal()).map(Err)
            })
            .unwrap_or_else(|unanswered| {
                Err(match self.shown(|shown| shown.last_error.clone()) {
                    Some(error) => Error::with_source(ErrorKind::Timeout, text, error),
                    None => unanswered.into_error(text.to_owned()),
                })
            })
    }

    /// Fetches everything again, at once. Differences are reported as changes. You can wait for the returned
    /// value, or drop it.
    ///
    /// # Examples
    /// ```
    /// use parse_livequery::LiveSet;
    /// use std::time::Duration;
    ///
    /// fn look_again(games: &LiveSet) -> parse_livequery::Result<()> {
    ///     games.refresh().wait(Duration::from_secs(10))?;
    ///     println!("{} games", games.len());
    ///     Ok(())
    /// }
    /// ```
    pub fn refresh(&self) -> Refresh {
        Refresh::new(self.clone(), self.0.keeper.refresh())
    }

    /// Uses another session token for this set, or the client's with `None`. Objects that it may not read are
    /// removed as soon as everything has been fetched with it; until then the set is stale.
    ///
    /// A closure given to [`fetch_with`](crate::LiveSetBuilder::fetch_with) has to use the new token itself.
    ///
    /// Parse Server also sends events of objects that the client's own token may read, which the fetch does
    /// not return. If the sets of a client have their own tokens, give the client none.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`] if the set has ended.
    pub fn set_session_token(&self, token: Option<&str>) -> Result<()> {
        self.0.keeper.shared.check_home()?;
        self.0.handles.set_session_token(&self.0.keeper, token)
    }

    /// Ends the set, which keeps its contents. No listener is called any more, except for one last `stale`.
    pub fn close(&self) {
        self.0.handles.close();
        self.0.keeper.end_follows();
    }

    /// Ends the set like [`close`](Self::close), and waits until a running listener has returned and the last
    /// `stale` has been delivered. After that, none of its listeners runs or starts.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timeout`] if it takes longer, [`ErrorKind::CalledFromListener`] in a listener of the
    /// client. The set has ended in either case.
    pub fn close_and_wait(&self, timeout: Duration) -> Result<()> {
        self.0.keeper.shared.check_home()?;
        self.close();
        refuse_in_listener(&self.0.keeper.shared, "close_and_wait")?;
        self.0.handles.current().unsubscribe_and_wait(timeout)
    }

    /// Gives up this handle without ending the set: the set lives as long as its client, until
    /// [`Client::close`](crate::Client::close), and its listeners are called. Remaining clones can still be
    /// used. A set that follows other classes or included objects keeps its client alive until then.
    pub fn detach(self) {
        self.0.is_detached.store(true, Ordering::Relaxed);
        self.0.handles.detach();
        self.0.keeper.hold_on();
    }

    /// Returns the cost of keeping the set correct: fetches, and the events that led to them.
    #[must_use]
    pub fn stats(&self) -> LiveSetStats {
        let keeper = &self.0.keeper;
        if !keeper.shared.is_home() {
            return LiveSetStats::new(Figures::default(), 0);
        }
        let figures = keeper.core.lock().figures();
        LiveSetStats::new(figures, keeper.subscriptions())
    }

    /// Returns the subscription that the set follows, for its state and its counters.
    /// [`set_query`](Self::set_query) replaces it.
    pub fn subscription(&self) -> Subscription {
        self.0.handles.current()
    }

    #[cfg(test)]
    fn keeper(&self) -> &Keeper {
        &self.0.keeper
    }

    fn shown<R>(&self, look: impl FnOnce(&Shown) -> R) -> R {
        if !self.0.keeper.shared.is_home() {
            return look(&Shown::default());
        }
        self.0.keeper.subscriber.emitter.held(|shown| look(shown))
    }

    fn locate(&self, id: &str) -> Option<(Snapshot, usize)> {
        if !self.0.keeper.shared.is_home() {
            return None;
        }
        let key = self.0.keeper.core.lock().key_of(id).cloned()?;
        let snapshot = self.snapshot();
        // Until listeners have been told of a new order, the key belongs to the old one.
        let index = snapshot.find(&key).or_else(|| snapshot.index_of(id))?;
        Some((snapshot, index))
    }
}

impl fmt::Debug for LiveSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveSet")
            .field("subscription", &self.subscription())
            .field("len", &self.len())
            .field("is_ready", &self.is_ready())
            .finish()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if !*self.is_detached.get_mut() {
            self.keeper.end();
        }
    }
}
