//! A collection that is equal to `find()` and stays so: the handle, and the way between the subscription, whoever
//! fetches and the listeners. What follows from what is in [`core`].

pub(crate) mod change;
pub(crate) mod core;
pub(crate) mod list;
mod paging;
#[cfg(test)]
mod properties;

use std::error::Error as StdError;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock, Weak};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::{Condvar, Mutex};

use self::change::Entry;
pub use self::change::{Change, Snapshot, SnapshotIter};
use self::core::{Core, Output, Request, Task};
use self::list::List;
use crate::client::Client;
use crate::client::subscription::{Subscription, SubscriptionBuilder};
use crate::delivery::dispatch::{self, Item, refuse_in_listener, report};
use crate::delivery::emitter::{Emit, Emitter, ListenerId, MissedOpen, Times};
use crate::delivery::shared::{Shared, SubscriptionCore};
use crate::error::{Error, ErrorKind, Result};
use crate::event::{ClientEvent, Event, EventKind};
use crate::object::Object;
use crate::query::Query;
use crate::secret::Secret;
use crate::text::deadline;

/// The objects that a query meets, now and from now on: a collection that is equal to `find()` whenever the link is up
/// and nothing is on its way, and that says what changed.
///
/// It subscribes, fetches, and follows the events; after a reconnect, or whenever events may have been lost, it fetches
/// again and tells the differences as ordinary changes. [`Client::live_set`] makes one. Clones are cheap and mean the
/// same set, which ends when the last one is dropped.
///
/// # Order and limit
///
/// The set is sorted by the query's `ascending` and `descending`, and the objects that are equal there by their ids;
/// without any order the oldest object comes first. `limit` and `skip` hold all the time: when an object leaves, the
/// next one comes in. Without a `limit` it holds all objects, not the 100 that `find()` returns then. Numbers, texts (by
/// their bytes), booleans, dates and pointers are sorted as the database does; where it sorts objects without a value
/// is learned from it; arrays, objects and geo points are all equal. Postgres may be set up to sort text by the rules of a
/// language, which the set does not know; a warning in the log says so.
///
/// # When it is equal
///
/// [`is_ready`](Self::is_ready) says that everything was fetched and no events are known to be lost. While the link is
/// down, or until the fetch after that is done, the set is *stale*: it keeps what it has. If a fetch fails it is tried
/// again, after 0.5 s at first and 60 s at last, and each failure is told to [`on_error`](Self::on_error).
///
/// Parse Server tells nothing of some changes: those that bypass it, changes of roles, and, when two clients save one
/// object at the same time and it begins to match only by both changes together, that one. [`refresh`](Self::refresh)
/// fetches everything again.
///
/// With Postgres, `find()` leaves out fields that are null, which events have; and `exists` does not find them there,
/// which it does in LiveQuery. To remove a field (`{"__op": "Delete"}`) is the same everywhere.
///
/// # Threads
///
/// Listeners run where all listeners of the client run. The fetch runs on a thread of its own, `livequery-fetch`, which
/// is there only while there is something to fetch.
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
    inner: Arc<Inner>,
    subscription: Subscription,
}

struct Inner {
    core: Mutex<Core>,
    /// What listeners were told last.
    shown: Mutex<Shown>,
    emitter: Emitter<SetEvent>,
    fetch: Box<FetchFn>,
    session_token: Mutex<Option<Secret>>,
    worker: Mutex<Worker>,
    wake_worker: Condvar,
    shared: Arc<Shared>,
    /// There as soon as the subscription is.
    subscription: OnceLock<Arc<SubscriptionCore>>,
}

type FetchFn = dyn Fn(&Query, Option<&str>) -> Result<Vec<Object>> + Send + Sync;

struct Shown {
    snapshot: Snapshot,
    is_ready: bool,
    stale_since: Option<SystemTime>,
    last_error: Option<Error>,
}

/// The thread that fetches.
#[derive(Default)]
struct Worker {
    is_running: bool,
    /// It is to look again what there is to do.
    is_called: bool,
    /// The set is gone.
    has_ended: bool,
}

#[derive(Clone)]
enum SetEvent {
    Change(Change, Snapshot),
    Ready(Snapshot),
    Stale(SystemTime),
    Error(Error),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum SetEventKind {
    Change,
    Ready,
    Stale,
    Error,
}

impl fmt::Display for SetEventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Change => "change",
            Self::Ready => "ready",
            Self::Stale => "stale",
            Self::Error => "error",
        })
    }
}

// A listener for `ready` that comes late is told all the same, as one for `open` is.
impl Emit for SetEvent {
    type Kind = SetEventKind;

    fn kind(&self) -> SetEventKind {
        match self {
            Self::Change(..) => SetEventKind::Change,
            Self::Ready(_) => SetEventKind::Ready,
            Self::Stale(_) => SetEventKind::Stale,
            Self::Error(_) => SetEventKind::Error,
        }
    }

    fn bit(kind: SetEventKind) -> u8 {
        1 << kind as u8
    }

    const OPEN: SetEventKind = SetEventKind::Ready;
    const CLOSE: SetEventKind = SetEventKind::Stale;
}

impl LiveSet {
    /// Calls the listener for each change, with the contents that it led to.
    ///
    /// The first change that it is told is [`Change::Reset`], at once if the set has contents already.
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
    pub fn on_change(&self, mut listener: impl FnMut(&Change, &Snapshot) + Send + 'static) -> ListenerId {
        let mut is_first = true;
        let (id, _) = self.0.inner.emitter.on(
            Some(SetEventKind::Change),
            Times::Always,
            move |event: &SetEvent| {
                if let SetEvent::Change(change, set) = event {
                    let is_first = std::mem::take(&mut is_first);
                    listener(if is_first { &Change::Reset } else { change }, set);
                }
                Ok(())
            },
        );
        let inner = Arc::clone(&self.0.inner);
        self.0.inner.later(move || {
            let snapshot = inner.shown.lock().snapshot.clone();
            if !snapshot.is_empty() {
                inner.emit_to(id, &SetEvent::Change(Change::Reset, snapshot));
            }
        });
        id
    }

    /// Calls the listener when everything was fetched: the first time, and each time after the set was stale. If it is
    /// so already, at once.
    pub fn on_ready(&self, listener: impl FnMut(&Snapshot) + Send + 'static) -> ListenerId {
        let (id, missed) =
            self.0
                .inner
                .emitter
                .on(Some(SetEventKind::Ready), Times::Always, for_ready(listener));
        if missed == MissedOpen::Yes {
            let inner = Arc::clone(&self.0.inner);
            self.0.inner.later(move || {
                let faults = inner.emitter.emit_open_to(id);
                inner.report(faults, SetEventKind::Ready);
            });
        }
        id
    }

    /// Calls the listener when the contents may be old from now on, with the time since when that is.
    pub fn on_stale(&self, listener: impl FnMut(SystemTime) + Send + 'static) -> ListenerId {
        let kind = Some(SetEventKind::Stale);
        self.0
            .inner
            .emitter
            .on(kind, Times::Always, for_stale(listener))
            .0
    }

    /// Calls the listener for each error: a fetch that failed, and what the subscription reports. The client's listeners
    /// for `error` hear of them as well.
    ///
    /// After one that [is fatal](Error::is_fatal) and comes from the subscription the set is not kept any more.
    pub fn on_error(&self, listener: impl FnMut(&Error) + Send + 'static) -> ListenerId {
        let kind = Some(SetEventKind::Error);
        self.0
            .inner
            .emitter
            .on(kind, Times::Always, for_error(listener))
            .0
    }

    /// Removes a listener. `false` if it was not there any more.
    pub fn off(&self, listener: ListenerId) -> bool {
        self.0.inner.emitter.off(listener)
    }

    /// The contents, as listeners were told them last. Takes constant time.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.0.inner.shown.lock().snapshot.clone()
    }

    /// How many objects there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.inner.shown.lock().snapshot.len()
    }

    /// Whether there is no object.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The object with this id, if it is in the set.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<Object> {
        let (snapshot, index) = self.locate(id)?;
        snapshot.get(index).cloned()
    }

    /// Where the object with this id is.
    #[must_use]
    pub fn index_of(&self, id: &str) -> Option<usize> {
        self.locate(id).map(|(_, index)| index)
    }

    /// Whether everything was fetched, and no event is known to be lost since.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.0.inner.shown.lock().is_ready
    }

    /// Since when the contents may be old. `None` if they are not, or if there were none yet.
    #[must_use]
    pub fn stale_since(&self) -> Option<SystemTime> {
        self.0.inner.shown.lock().stale_since
    }

    /// Waits until everything was fetched.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Timeout`] if that takes longer, with what went wrong last as its cause; the set goes on trying. What
    /// the server refused the subscription or the client for. [`ErrorKind::Closed`] if the set has ended, and
    /// [`ErrorKind::CalledFromListener`] in a listener of the client.
    pub fn wait_ready(&self, timeout: Duration) -> Result<()> {
        let inner = &self.0.inner;
        refuse_in_listener(&inner.shared, "wait_ready")?;
        let subscription = self.0.subscription.core();
        inner
            .shared
            .wait_until(deadline(timeout), |status| {
                if inner.shown.lock().is_ready {
                    return Some(Ok(()));
                }
                if inner.shared.is_ended(subscription) {
                    return Some(Err(Error::new(ErrorKind::Closed, "the live set was closed")));
                }
                let refusal = inner.shared.refusal_of(subscription);
                refusal.or_else(|| status.refusal()).map(Err)
            })
            .unwrap_or_else(|of_the_link| {
                let text = "the live set is not complete yet, and goes on trying";
                let of_the_set = inner.shown.lock().last_error.clone();
                Err(match of_the_set.or(of_the_link) {
                    Some(error) => Error::with_source(ErrorKind::Timeout, text, error),
                    None => Error::new(ErrorKind::Timeout, text),
                })
            })
    }

    /// Fetches everything again. Differences come out as changes.
    pub fn refresh(&self) {
        self.0.inner.core.lock().refresh();
        self.0.inner.attend();
    }

    /// Another session token for this set, or the client's with `None`. Objects that it may not read are removed as soon
    /// as everything was fetched with it; until then the set is stale.
    ///
    /// A closure given to [`fetch_with`](LiveSetBuilder::fetch_with) has to use the new token by itself.
    ///
    /// Parse Server sends what the client's own token may read as well, which the fetch does not return. A client whose
    /// sets have tokens of their own had better have none.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Closed`] if the set has ended.
    pub fn set_session_token(&self, token: Option<&str>) -> Result<()> {
        *self.0.inner.session_token.lock() = token.map(Secret::from);
        self.0.subscription.set_session_token(token)
    }

    /// Ends the set, which keeps what it has. No listener is called any more, but for one last `stale`.
    pub fn close(&self) {
        self.0.subscription.unsubscribe();
    }

    /// The subscription that the set follows: for its state and its figures.
    pub fn subscription(&self) -> &Subscription {
        &self.0.subscription
    }

    fn locate(&self, id: &str) -> Option<(Snapshot, usize)> {
        let key = self.0.inner.core.lock().key_of(id).cloned()?;
        let snapshot = self.snapshot();
        let index = snapshot.find(&key)?;
        Some((snapshot, index))
    }
}

impl fmt::Debug for LiveSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveSet")
            .field("subscription", &self.0.subscription)
            .field("len", &self.len())
            .field("is_ready", &self.is_ready())
            .finish()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.inner.worker.lock().has_ended = true;
        self.inner.wake_worker.notify_all();
    }
}

impl Inner {
    /// An event of the subscription, where listeners run.
    fn take(self: &Arc<Self>, event: &Event) {
        let mut core = self.core.lock();
        match (event.kind(), event.object(), event.error()) {
            (EventKind::Open, ..) => {
                core.opened();
                // By now the last sign of life before the cut is known.
                if let Some(gap) = event.gap() {
                    let mut shown = self.shown.lock();
                    shown.stale_since = shown.stale_since.map(|since| since.min(gap.start()));
                }
            }
            (EventKind::Close, ..) => core.closed(SystemTime::now()),
            (EventKind::Error, _, Some(error)) => {
                match error.kind() {
                    ErrorKind::Lagged => core.lagged(SystemTime::now()),
                    // A hook of the server failed, and the event with it.
                    ErrorKind::Server if !error.is_fatal() => core.missed(),
                    _ => {}
                }
                drop(core);
                self.fail(error);
                core = self.core.lock();
            }
            (kind, Some(object), _) => core.event(kind, object, event.original(), Instant::now()),
            _ => {}
        }
        drop(core);
        self.tell();
        self.attend();
    }

    /// What came of a request, where listeners run.
    fn fetched(self: &Arc<Self>, ticket: u64, result: Result<Vec<Arc<Entry>>>) {
        self.core.lock().fetched(ticket, result, Instant::now());
        self.tell();
        self.attend();
    }

    /// Tells the listeners what there is to tell.
    fn tell(&self) {
        loop {
            let Some(output) = self.core.lock().next_output() else {
                return;
            };
            let event = {
                let mut shown = self.shown.lock();
                match output {
                    Output::Change(change, snapshot) => {
                        shown.snapshot = snapshot.clone();
                        SetEvent::Change(change, snapshot)
                    }
                    Output::Ready => {
                        shown.is_ready = true;
                        shown.stale_since = None;
                        shown.last_error = None;
                        SetEvent::Ready(shown.snapshot.clone())
                    }
                    Output::Stale(since) => {
                        shown.is_ready = false;
                        shown.stale_since = Some(since);
                        SetEvent::Stale(since)
                    }
                    Output::Failed(error) => {
                        drop(shown);
                        let event = ClientEvent::failed(error.clone());
                        let faults = self.shared.emitter.emit(&event);
                        self.report(faults, SetEventKind::Error);
                        self.fail(&error);
                        continue;
                    }
                }
            };
            self.shared.changed_somewhere();
            self.emit(&event);
        }
    }

    fn fail(&self, error: &Error) {
        self.shown.lock().last_error = Some(error.clone());
        let is_heard = self.emitter.count(SetEventKind::Error) > 0
            || self.shared.emitter.count(crate::event::ClientEventKind::Error) > 0;
        if !is_heard {
            log::warn!("a live set: {error}");
        }
        self.emit(&SetEvent::Error(error.clone()));
    }

    fn emit(&self, event: &SetEvent) {
        let has_ended = self
            .subscription
            .get()
            .is_some_and(|core| self.shared.is_ended(core));
        if has_ended && event.kind() != SetEventKind::Stale {
            return;
        }
        let faults = self.emitter.emit(event);
        self.report(faults, event.kind());
    }

    fn emit_to(&self, listener: ListenerId, event: &SetEvent) {
        let faults = self.emitter.emit_to(listener, event);
        self.report(faults, event.kind());
    }

    fn report(&self, faults: Vec<crate::delivery::emitter::Fault>, kind: SetEventKind) {
        let subscription = self.subscription.get().map(|core| &**core);
        report(&self.shared, faults, subscription, &kind);
    }

    /// Does something where listeners run.
    fn later(&self, task: impl FnOnce() + Send + 'static) {
        self.shared
            .dispatch_later(Item::Task(dispatch::Task(Box::new(task))));
    }

    /// Sees to it that what is to be fetched is fetched.
    fn attend(self: &Arc<Self>) {
        let mut worker = self.worker.lock();
        if worker.has_ended {
            return;
        }
        if worker.is_running {
            worker.is_called = true;
            self.wake_worker.notify_all();
            return;
        }
        let task = self.core.lock().next_task(Instant::now());
        if matches!(task, Task::Wait(None)) {
            return;
        }
        let inner = Arc::clone(self);
        let thread = thread::Builder::new().name("livequery-fetch".to_owned());
        match thread.spawn(move || inner.work(task)) {
            Ok(_) => worker.is_running = true,
            Err(error) => {
                drop(worker);
                log::error!("the thread that fetches cannot be started: {error}");
                self.core.lock().refresh();
            }
        }
    }

    /// The thread that fetches, until there is nothing to do.
    fn work(self: &Arc<Self>, mut task: Task) {
        loop {
            match task {
                Task::Fetch(request) => self.carry_out(request),
                Task::Wait(until) => {
                    let mut worker = self.worker.lock();
                    if worker.has_ended || until.is_none() && !worker.is_called {
                        worker.is_running = false;
                        return;
                    }
                    if let Some(until) = until.filter(|_| !worker.is_called) {
                        self.wake_worker.wait_until(&mut worker, until);
                    }
                    worker.is_called = false;
                }
            }
            task = self.core.lock().next_task(Instant::now());
        }
    }

    fn carry_out(self: &Arc<Self>, request: Box<Request>) {
        let Request { ticket, query, order } = *request;
        let Some(subscription) = self.subscription.get().cloned() else {
            return;
        };
        let identity = self.shared.identity(&subscription);
        let token = self.session_token.lock().clone();
        let fetch = || (self.fetch)(&query, token.as_ref().map(Secret::reveal));
        let result = catch_unwind(AssertUnwindSafe(fetch)).unwrap_or_else(|_| {
            let text = "the function that fetches for a live set panicked";
            Err(Error::new(ErrorKind::Fetch, text))
        });
        // What takes long with many objects is done here, and not where listeners run.
        let result = result.map(|objects| {
            let entry = |object: &Object| Entry::new(&order, object, &subscription.class_name);
            let entries: Vec<_> = objects.iter().filter_map(entry).collect();
            if entries.len() < objects.len() {
                log::warn!("objects without objectId were fetched for {subscription}, and are left out");
            }
            entries
        });
        let inner = Arc::downgrade(self);
        self.later(move || {
            if let Some(inner) = Weak::upgrade(&inner) {
                // With another session token the set is about to start over.
                if inner.shared.identity(&subscription) == identity {
                    inner.fetched(ticket, result);
                }
            }
        });
    }
}

/// A live set in the making, with its listeners in place before anything happens. Nothing is done until
/// [`start`](Self::start) is called.
#[must_use = "nothing is subscribed until `start` is called"]
pub struct LiveSetBuilder {
    client: Client,
    query: Query,
    fetch: Option<Box<FetchFn>>,
    session_token: Option<Secret>,
    emitter: Emitter<SetEvent>,
}

impl LiveSetBuilder {
    pub(crate) fn new(client: Client, query: Query) -> Self {
        Self {
            client,
            query,
            fetch: None,
            session_token: None,
            emitter: Emitter::new(),
        }
    }

    /// How to fetch: a function that does what `find()` does in other SDKs, with the whole of the query that it is given:
    /// its conditions, fields, order, limit and skip, which [`Query::to_json`] writes as the REST API takes them.
    ///
    /// It may block; it is called on a thread of its own, never twice at a time. An error is tried again. It has to
    /// return all objects that meet the query up to its limit; fewer are taken for the server's `maxLimit`, and more are
    /// asked for.
    ///
    /// # Examples
    /// ```
    /// use parse_livequery::{Object, Query};
    ///
    /// # struct Response;
    /// # impl Response { fn text(self) -> std::io::Result<String> { Ok(r#"{"results": []}"#.to_owned()) } }
    /// # fn post(url: &str, body: String) -> std::io::Result<Response> { Ok(Response) }
    /// #[derive(serde::Deserialize)]
    /// struct Found {
    ///     results: Vec<Object>,
    /// }
    ///
    /// fn find(query: &Query) -> Result<Vec<Object>, Box<dyn std::error::Error + Send + Sync>> {
    ///     let url = format!("https://example.com/parse/classes/{}", query.class_name());
    ///     let mut body: serde_json::Value = serde_json::from_str(&query.to_json()?)?;
    ///     body["_method"] = "GET".into();
    ///     let response = post(&url, body.to_string())?; // with any HTTP client
    ///     Ok(serde_json::from_str::<Found>(&response.text()?)?.results)
    /// }
    /// # assert!(find(&Query::new("Game")).unwrap().is_empty());
    /// ```
    pub fn fetch_with<E: Into<Box<dyn StdError + Send + Sync>>>(
        mut self,
        find: impl Fn(&Query) -> Result<Vec<Object>, E> + Send + Sync + 'static,
    ) -> Self {
        self.fetch = Some(Box::new(move |query, _| {
            find(query).map_err(|error| {
                let text = format!("the objects of {} cannot be fetched", query.class_name());
                Error::with_source(ErrorKind::Fetch, text, error)
            })
        }));
        self
    }

    /// A session token of the set's own, in place of the client's.
    ///
    /// Parse Server sends what the client's token may read as well; see [`LiveSet::set_session_token`].
    pub fn session_token(mut self, token: impl Into<String>) -> Self {
        self.session_token = Some(Secret::from(token));
        self
    }

    /// As [`LiveSet::on_change`].
    pub fn on_change(self, mut listener: impl FnMut(&Change, &Snapshot) + Send + 'static) -> Self {
        self.listen(SetEventKind::Change, move |event| {
            if let SetEvent::Change(change, set) = event {
                listener(change, set);
            }
            Ok(())
        })
    }

    /// As [`LiveSet::on_ready`].
    pub fn on_ready(self, listener: impl FnMut(&Snapshot) + Send + 'static) -> Self {
        self.listen(SetEventKind::Ready, for_ready(listener))
    }

    /// As [`LiveSet::on_stale`].
    pub fn on_stale(self, listener: impl FnMut(SystemTime) + Send + 'static) -> Self {
        self.listen(SetEventKind::Stale, for_stale(listener))
    }

    /// As [`LiveSet::on_error`].
    pub fn on_error(self, listener: impl FnMut(&Error) + Send + 'static) -> Self {
        self.listen(SetEventKind::Error, for_error(listener))
    }

    /// Subscribes, and fetches as soon as the server has acknowledged it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidQuery`] for what [`Client::subscribe`] refuses, and for `watch`, `include`, `exclude` and an
    /// order by distance, with which the set could not be equal to `find()`. [`ErrorKind::InvalidSetting`] if there is
    /// no way to fetch: neither [`fetch_with`](Self::fetch_with) nor the cargo feature `rest`.
    pub fn start(self) -> Result<LiveSet> {
        let Self {
            client,
            query,
            fetch,
            session_token,
            emitter,
        } = self;
        let encoded = query.encode_for_set()?;
        let fetch = match fetch {
            Some(fetch) => fetch,
            None => built_in(&client)?,
        };
        let inner = Arc::new(Inner {
            core: Mutex::new(Core::new(&query, rand::random())),
            shown: Mutex::new(Shown {
                snapshot: Snapshot(List::new()),
                is_ready: false,
                stale_since: None,
                last_error: None,
            }),
            emitter,
            fetch,
            session_token: Mutex::new(session_token.clone()),
            worker: Mutex::default(),
            wake_worker: Condvar::new(),
            shared: Arc::clone(client.shared()),
            subscription: OnceLock::new(),
        });
        let listener = Arc::downgrade(&inner);
        let builder = SubscriptionBuilder::new(client, query).on_any(move |event| {
            if let Some(inner) = listener.upgrade() {
                inner.take(event);
            }
        });
        let builder = match session_token {
            Some(token) => builder.session_token(token.reveal()),
            None => builder,
        };
        let subscription = builder.start(encoded, |core| {
            // Before the first event.
            inner.subscription.get_or_init(|| Arc::clone(core));
        });
        Ok(LiveSet(Arc::new(Handle { inner, subscription })))
    }

    fn listen(
        self,
        kind: SetEventKind,
        listener: impl FnMut(&SetEvent) -> Result<()> + Send + 'static,
    ) -> Self {
        self.emitter.on(Some(kind), Times::Always, listener);
        self
    }
}

impl fmt::Debug for LiveSetBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveSetBuilder")
            .field("query", &self.query)
            .field("session_token", &self.session_token)
            .field("emitter", &self.emitter)
            .finish_non_exhaustive()
    }
}

#[cfg(feature = "rest")]
fn built_in(client: &Client) -> Result<Box<FetchFn>> {
    let Some(rest) = client.rest() else {
        return Err(Error::new(
            ErrorKind::InvalidSetting,
            "a live set cannot fetch through `connect_with`; give it a function with `fetch_with`",
        ));
    };
    let (rest, shared) = (Arc::clone(rest), Arc::clone(client.shared()));
    Ok(Box::new(move |query, token| {
        let of_the_client = shared.session_token();
        rest.find(
            query,
            token.or_else(|| of_the_client.as_ref().map(Secret::reveal)),
        )
    }))
}

#[cfg(not(feature = "rest"))]
fn built_in(_: &Client) -> Result<Box<FetchFn>> {
    Err(Error::new(
        ErrorKind::InvalidSetting,
        "a live set needs a way to fetch: give it a function with `fetch_with`, or use the cargo feature `rest`",
    ))
}

// Each is registered for its own kind alone.

fn for_ready(
    mut listener: impl FnMut(&Snapshot) + Send + 'static,
) -> impl FnMut(&SetEvent) -> Result<()> + Send + 'static {
    move |event| {
        if let SetEvent::Ready(set) = event {
            listener(set);
        }
        Ok(())
    }
}

fn for_stale(
    mut listener: impl FnMut(SystemTime) + Send + 'static,
) -> impl FnMut(&SetEvent) -> Result<()> + Send + 'static {
    move |event| {
        if let SetEvent::Stale(since) = event {
            listener(*since);
        }
        Ok(())
    }
}

fn for_error(
    mut listener: impl FnMut(&Error) + Send + 'static,
) -> impl FnMut(&SetEvent) -> Result<()> + Send + 'static {
    move |event| {
        if let SetEvent::Error(error) = event {
            listener(error);
        }
        Ok(())
    }
}
