//! What a set knows, and what follows from an event or from what was fetched. No sockets, threads or clocks: time comes
//! in as an argument.
//!
//! The set holds all objects that the query meets, or with a limit those up to a place in their order (`boundary`).
//! Whatever happens to an object after the subscription was acknowledged comes as an event; what was before that is
//! fetched. So what a fetch returns counts for each object that no event came for since it began, and an object that
//! is neither in it nor in such an event is gone.
//!
//! An event counts if it is newer than what is known (`updatedAt`), or if what is known is what it says the object was
//! before (`original`). If it is newer and follows on something else, an event is missing or late: Parse Server 9.10
//! sends events of one object out of order (ParseLiveQueryServer.ts handles each without waiting for the one before),
//! and of two saves at a time each has its own changes only. Such an object is in doubt, and is fetched by its id.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::change::{Change, Entry, Snapshot};
use super::list::List;
use super::paging::{Page, Paging, Turn};
use crate::error::{Error, ErrorKind, Result};
use crate::event::EventKind;
use crate::object::Object;
use crate::protocol::backoff::Backoff;
use crate::query::Query;
use crate::query::order::{Nulls, Order, SortKey, version};

pub(crate) struct Core {
    class_name: String,
    /// The conditions and the fields, without order and window.
    query: Query,
    order: Arc<Order>,
    /// Where nulls are sorted is known.
    nulls_known: bool,
    window: Option<Window>,
    held: Held,
    /// Nothing that is sorted behind this is held. `None` if everything is held.
    boundary: Option<SortKey>,
    shown: List<Arc<Entry>>,
    graves: Graves,
    doubts: HashSet<Box<str>>,
    /// For each key, an object that has no value for it, and one that has.
    examples: Vec<[Option<Box<str>>; 2]>,
    is_open: bool,
    /// Everything was fetched once: what is held is what there is, or was.
    is_filled: bool,
    /// What is held is what there is.
    is_ready: bool,
    wants_all: bool,
    fetch: Option<Fetch>,
    /// The number of the request that is under way.
    in_flight: Option<u64>,
    next_ticket: u64,
    /// The most objects that the server returned at once: with fewer, it has no more.
    largest_page: usize,
    backoff: Backoff,
    rng: StdRng,
    retry_at: Option<Instant>,
    /// Requests of no hurry are gathered until then.
    not_before: Option<Instant>,
    outputs: VecDeque<Output>,
}

/// The part of the sorted objects that is shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) skip: usize,
    /// `usize::MAX` without a limit.
    pub(crate) limit: usize,
}

impl Window {
    fn end(self) -> usize {
        self.skip.saturating_add(self.limit)
    }

    /// How many are held beyond those that are shown, so that not each one that leaves takes a request.
    fn margin(self) -> usize {
        (self.limit / 2).clamp(16, 500)
    }
}

/// What there is to tell.
#[derive(Debug)]
pub(crate) enum Output {
    /// A change, and the contents with it.
    Change(Change, Snapshot),
    Ready,
    /// What is shown may be old, since this time.
    Stale(SystemTime),
    Failed(Error),
}

/// What is to be fetched next.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) ticket: u64,
    pub(crate) query: Query,
    pub(crate) order: Arc<Order>,
}

/// What there is to do for whoever fetches.
#[derive(Debug)]
pub(crate) enum Task {
    Fetch(Box<Request>),
    /// Nothing until this time, or until something else happens.
    Wait(Option<Instant>),
}

struct Fetch {
    job: Job,
    began: Instant,
    /// What events said since it began, with the object if the query meets it.
    touched: HashMap<Box<str>, Option<Arc<Entry>>>,
}

enum Job {
    All(Paging),
    /// Of these objects it is not known how they are.
    Doubts(Vec<Box<str>>),
    /// One of these objects has no value for this key, the other has one: which one comes first?
    Nulls(usize, [Box<str>; 2]),
}

/// The held objects, by place and by id.
struct Held {
    list: List<Arc<Entry>>,
    by_id: HashSet<ById>,
}

struct ById(Arc<Entry>);

impl Borrow<[u8]> for ById {
    fn borrow(&self) -> &[u8] {
        self.0.key.id()
    }
}

impl Hash for ById {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.0.key.id().hash(hasher);
    }
}

impl PartialEq for ById {
    fn eq(&self, other: &Self) -> bool {
        self.0.key.id() == other.0.key.id()
    }
}

impl Eq for ById {}

impl Held {
    fn get(&self, id: &str) -> Option<&Arc<Entry>> {
        self.by_id.get(id.as_bytes()).map(|by_id| &by_id.0)
    }

    fn position(&self, key: &SortKey) -> Result<usize, usize> {
        self.list.search(|entry| entry.key.cmp(key))
    }
}

/// What is known and not held: gone, or beyond the boundary. An event that is late must not bring it back.
#[derive(Default)]
struct Graves {
    young: HashMap<Box<str>, Grave>,
    old: HashMap<Box<str>, Grave>,
    since: Option<Instant>,
}

#[derive(Clone, Copy)]
struct Grave {
    version: i64,
    deleted: bool,
}

impl Graves {
    fn get(&self, id: &str) -> Option<Grave> {
        self.young.get(id).or_else(|| self.old.get(id)).copied()
    }

    fn dig(&mut self, id: &str, grave: Grave) {
        self.young.insert(id.into(), grave);
    }

    fn remove(&mut self, id: &str) {
        self.young.remove(id);
        self.old.remove(id);
    }

    /// Forgets those that are old. None may be forgotten during a fetch, which may return what was before it.
    fn age(&mut self, now: Instant) {
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) >= GENERATION {
            self.old = std::mem::take(&mut self.young);
            self.since = Some(now);
        }
    }
}

impl Core {
    /// For a query whose order and window these are.
    pub(crate) fn new(query: &Query, seed: u64) -> Self {
        let parts = query.window();
        let order = Order::new(parts.order);
        let has_no_nulls = order.fields().next().is_none();
        let limit = parts
            .limit
            .map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let skip = usize::try_from(parts.skip).unwrap_or(usize::MAX);
        let window = (limit.is_some() || skip > 0).then_some(Window {
            skip,
            limit: limit.unwrap_or(usize::MAX),
        });
        Self {
            class_name: query.class_name().to_owned(),
            query: query.without_window(),
            nulls_known: has_no_nulls,
            order: Arc::new(order),
            window,
            held: Held {
                list: List::new(),
                by_id: HashSet::new(),
            },
            boundary: None,
            shown: List::new(),
            graves: Graves::default(),
            doubts: HashSet::new(),
            examples: Vec::new(),
            is_open: false,
            is_filled: false,
            is_ready: false,
            wants_all: false,
            fetch: None,
            in_flight: None,
            next_ticket: 0,
            largest_page: 0,
            backoff: Backoff::new(SHORTEST_DELAY, LONGEST_DELAY, 1),
            rng: StdRng::seed_from_u64(seed),
            retry_at: None,
            not_before: None,
            outputs: VecDeque::new(),
        }
    }

    /// The key of an object that is held.
    pub(crate) fn key_of(&self, id: &str) -> Option<&SortKey> {
        self.held.get(id).map(|entry| &entry.key)
    }

    pub(crate) fn next_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The subscription is acknowledged: from here on all that happens comes as an event.
    pub(crate) fn opened(&mut self) {
        self.is_open = true;
        self.backoff.reset();
        self.refresh();
    }

    /// No events come any more.
    pub(crate) fn closed(&mut self, since: SystemTime) {
        self.is_open = false;
        self.start_over();
        self.turn_stale(since);
    }

    /// Events were lost.
    pub(crate) fn lagged(&mut self, since: SystemTime) {
        self.start_over();
        self.turn_stale(since);
    }

    /// All is to be fetched anew, at once.
    pub(crate) fn refresh(&mut self) {
        self.retry_at = None;
        self.not_before = None;
        self.start_over();
    }

    /// An event was lost, of which nobody knows which one it is.
    pub(crate) fn missed(&mut self) {
        self.start_over();
    }

    pub(crate) fn event(
        &mut self,
        kind: EventKind,
        object: &Object,
        original: Option<&Object>,
        now: Instant,
    ) {
        if self.fetch.is_none() {
            self.graves.age(now);
        }
        let Some(entry) = Entry::new(&self.order, object, &self.class_name) else {
            crate::logging::warn!("an event of {} has no objectId, and is left out", self.class_name);
            return;
        };
        let follows_on = original.map(version);
        match kind {
            EventKind::Leave => self.gone(&entry, false, follows_on, now),
            EventKind::Delete => self.gone(&entry, true, follows_on, now),
            _ => self.came(entry, kind, follows_on, now),
        }
        self.keep_to_boundary();
    }

    /// What there is to fetch now.
    pub(crate) fn next_task(&mut self, now: Instant) -> Task {
        if !self.is_open || self.in_flight.is_some() {
            return Task::Wait(None);
        }
        if let Some(at) = self.retry_at.filter(|at| *at > now) {
            return Task::Wait(Some(at));
        }
        if self.fetch.is_none() {
            let Some(at) = self.begin(now) else {
                return Task::Wait(None);
            };
            if at > now {
                return Task::Wait(Some(at));
            }
        }
        let Some(fetch) = &self.fetch else {
            return Task::Wait(None);
        };
        let query = match &fetch.job {
            Job::All(paging) => paging.next(&self.query, &self.order),
            Job::Doubts(ids) => self.query_of(ids).limit(ids.len() as u64),
            Job::Nulls(key, ids) => self.query_of(ids).limit(2).ascending(self.order.path(*key)),
        };
        self.next_ticket += 1;
        self.in_flight = Some(self.next_ticket);
        self.retry_at = None;
        Task::Fetch(Box::new(Request {
            ticket: self.next_ticket,
            query,
            order: Arc::clone(&self.order),
        }))
    }

    /// What came of a request.
    pub(crate) fn fetched(&mut self, ticket: u64, result: Result<Vec<Arc<Entry>>>, now: Instant) {
        if self.in_flight != Some(ticket) {
            return;
        }
        self.in_flight = None;
        let Some(mut fetch) = self.fetch.take() else {
            return;
        };
        let page = match result {
            Ok(page) => page,
            Err(error) => {
                self.fetch = Some(fetch);
                self.fail(error, now);
                return;
            }
        };
        self.largest_page = self.largest_page.max(page.len());
        match fetch.job {
            Job::All(ref mut paging) => match paging.take(page, self.largest_page) {
                Turn::More => self.fetch = Some(fetch),
                Turn::Restless => {
                    let text = format!(
                        "the objects of {} change places faster than they can be fetched page by page; a smaller \
                         limit, or a larger maxLimit of the server, takes fewer pages",
                        self.class_name
                    );
                    self.wants_all = true;
                    self.fail(Error::new(ErrorKind::Fetch, text), now);
                }
                Turn::Done(page) => {
                    self.backoff.reset();
                    // However often there is a reason to, the server spends most of its time on something else.
                    let rest = now.saturating_duration_since(fetch.began).saturating_mul(4);
                    self.not_before = Some(now + rest.max(GATHERING));
                    self.merge_all(page, fetch.touched, now);
                }
            },
            Job::Doubts(ids) => {
                self.backoff.reset();
                self.merge_some(&ids, page, &fetch.touched);
            }
            Job::Nulls(key, _) => {
                self.backoff.reset();
                self.learn_nulls_of(key, &page);
            }
        }
        self.keep_to_boundary();
    }

    /// What is under way is given up, and everything is fetched, if the subscription is open.
    fn start_over(&mut self) {
        self.wants_all = true;
        self.fetch = None;
        self.in_flight = None;
        self.doubts.clear();
    }

    fn turn_stale(&mut self, since: SystemTime) {
        if std::mem::take(&mut self.is_ready) {
            self.outputs.push_back(Output::Stale(since));
        }
    }

    fn fail(&mut self, error: Error, now: Instant) {
        let delay = self.backoff.next(&mut self.rng).max(error.retry_after());
        self.retry_at = Some(now + delay);
        self.outputs.push_back(Output::Failed(error));
    }

    /// Begins the fetch that is due next, and returns when it may start.
    fn begin(&mut self, now: Instant) -> Option<Instant> {
        let at = self.not_before.unwrap_or(now);
        let examples = self.examples.iter().zip(0..).find_map(|(pair, key)| match pair {
            [Some(null), Some(value)] => Some(Job::Nulls(key, [null.clone(), value.clone()])),
            _ => None,
        });
        let job = if self.wants_all {
            let wanted = self
                .window
                .map(|window| window.end().saturating_add(window.margin()));
            Job::All(Paging::new(wanted))
        } else if !self.doubts.is_empty() {
            Job::Doubts(self.doubts.iter().take(DOUBTS_AT_ONCE).cloned().collect())
        } else {
            examples.filter(|_| !self.nulls_known)?
        };
        if at > now {
            return Some(at);
        }
        match &job {
            Job::All(_) => {
                self.wants_all = false;
                self.doubts.clear();
            }
            Job::Doubts(ids) => ids.iter().for_each(|id| {
                self.doubts.remove(id);
            }),
            Job::Nulls(..) => {}
        }
        self.not_before = Some(now + GATHERING);
        self.fetch = Some(Fetch {
            job,
            began: now,
            touched: HashMap::new(),
        });
        Some(now)
    }

    fn query_of(&self, ids: &[Box<str>]) -> Query {
        let ids: Vec<_> = ids.iter().map(|id| &**id).collect();
        self.query.restricted(|query| query.contained_in("objectId", ids))
    }

    /// An event says that the query meets the object.
    fn came(&mut self, entry: Arc<Entry>, kind: EventKind, follows_on: Option<i64>, now: Instant) {
        let id = id_of(&entry);
        let version = entry.version();
        if let Some(held) = self.known(&id) {
            let before = held.version();
            let follows = follows_on == Some(before);
            if version == before && held.has_same_content(&entry) {
                return;
            }
            // Of two changes within a millisecond nobody can tell which one is the later.
            if version == before || version > before && follows_on.is_some() && !follows {
                self.doubt(&id, now);
            }
            if version > before || follows {
                self.put(&id, entry);
            }
        } else if let Some(grave) = self.graves.get(&id) {
            let follows = follows_on == Some(grave.version);
            if grave.deleted || version == grave.version && !follows {
                // Ids are not used again as a rule.
                if version >= grave.version {
                    self.doubt(&id, now);
                }
            } else if version > grave.version || follows {
                if version == grave.version || !follows {
                    self.doubt(&id, now);
                }
                self.put(&id, entry);
            }
        } else {
            // All that there is was known: its beginning is missing.
            let is_missing = kind == EventKind::Update && self.is_ready && self.boundary.is_none();
            if is_missing {
                self.doubt(&id, now);
            }
            self.put(&id, entry);
        }
    }

    /// An event says that the query does not meet the object any more, or that it was deleted.
    fn gone(&mut self, entry: &Arc<Entry>, deleted: bool, follows_on: Option<i64>, now: Instant) {
        let id = id_of(entry);
        let version = entry.version();
        if let Some(held) = self.known(&id) {
            let before = held.version();
            let follows = follows_on == Some(before);
            if version < before && !follows {
                // Late, if it is no deletion that did not know of the last save.
                if deleted {
                    self.doubt(&id, now);
                }
                return;
            }
            if !deleted && (version == before || follows_on.is_some() && !follows) {
                self.doubt(&id, now);
            }
        } else if let Some(grave) = self.graves.get(&id) {
            if version < grave.version && !deleted {
                return;
            }
        }
        let version = self
            .graves
            .get(&id)
            .map_or(version, |grave| grave.version.max(version));
        self.graves.dig(&id, Grave { version, deleted });
        if let Some(fetch) = &mut self.fetch {
            fetch.touched.insert(id.clone(), None);
        }
        self.take_out(&id);
    }

    /// The object as the events and fetches up to now have it: also one beyond the boundary, during a fetch.
    fn known(&self, id: &str) -> Option<Arc<Entry>> {
        let touched = self.fetch.as_ref().and_then(|fetch| fetch.touched.get(id));
        match touched {
            Some(touched) => touched.clone(),
            None => self.held.get(id).cloned(),
        }
    }

    fn doubt(&mut self, id: &str, now: Instant) {
        if self.doubts.is_empty() {
            self.not_before = self.not_before.max(Some(now + GATHERING));
        }
        self.doubts.insert(id.into());
    }

    /// The object is as this.
    fn put(&mut self, id: &str, entry: Arc<Entry>) {
        self.graves.remove(id);
        if let Some(fetch) = &mut self.fetch {
            fetch.touched.insert(id.into(), Some(Arc::clone(&entry)));
        }
        self.hold(id, entry);
    }

    /// Holds the object, unless it is beyond the boundary, or what else there is has not been fetched yet.
    fn hold(&mut self, id: &str, entry: Arc<Entry>) {
        let is_beyond = |boundary: &SortKey| entry.key > *boundary;
        if !self.is_filled || self.boundary.as_ref().is_some_and(is_beyond) {
            self.remember(&entry);
            self.take_out(id);
            return;
        }
        self.look_for_nulls(&entry);
        let old = self.held.by_id.replace(ById(Arc::clone(&entry)));
        let Some(ById(old)) = old else {
            if let Err(index) = self.held.position(&entry.key) {
                self.held.list.insert(index, Arc::clone(&entry));
                self.show_inserted(index, &entry);
            }
            return;
        };
        let Ok(from) = self.held.position(&old.key) else {
            return;
        };
        if old.key == entry.key {
            self.held.list.replace(from, Arc::clone(&entry));
            self.show_replaced(from, from, &entry, &old);
            return;
        }
        self.held.list.remove(from);
        let (Ok(to) | Err(to)) = self.held.position(&entry.key);
        if self.is_in_window(from) == self.is_in_window(to) {
            self.held.list.insert(to, Arc::clone(&entry));
            if self.is_in_window(from) {
                self.show_replaced(from, to, &entry, &old);
            } else {
                self.show_passed(from, to);
            }
        } else {
            self.show_removed(from, &old);
            self.held.list.insert(to, Arc::clone(&entry));
            self.show_inserted(to, &entry);
        }
    }

    /// What is not held any more is remembered for a while, so that a late event does not bring back what it was before.
    fn remember(&mut self, entry: &Entry) {
        let (id, version) = (id_of(entry), entry.version());
        if self.graves.get(&id).is_none_or(|grave| grave.version < version) {
            let deleted = false;
            self.graves.dig(&id, Grave { version, deleted });
        }
    }

    fn take_out(&mut self, id: &str) {
        let Some(ById(old)) = self.held.by_id.take(id.as_bytes()) else {
            return;
        };
        if let Ok(index) = self.held.position(&old.key) {
            self.held.list.remove(index);
            self.show_removed(index, &old);
        }
    }

    fn is_in_window(&self, index: usize) -> bool {
        self.window
            .is_none_or(|window| (window.skip..window.end()).contains(&index))
    }

    /// An object was put in at this place of what is held.
    fn show_inserted(&mut self, index: usize, entry: &Arc<Entry>) {
        let Some(window) = self.window else {
            self.show(Change::Inserted {
                index,
                object: entry.object().clone(),
            });
            return;
        };
        if index >= window.end() || self.held.list.len() <= window.skip || window.limit == 0 {
            return;
        }
        if self.shown.len() >= window.limit {
            self.show_out(window.limit.saturating_sub(1));
        }
        // One that comes before the window pushes another one into it.
        let index = index.max(window.skip);
        self.show_in(index, window);
    }

    /// An object was taken out that was at this place of what is held.
    fn show_removed(&mut self, index: usize, old: &Arc<Entry>) {
        let Some(window) = self.window else {
            self.show(Change::Removed {
                index,
                object: old.object().clone(),
            });
            return;
        };
        if index >= window.end() {
            return;
        }
        self.show_out(index.saturating_sub(window.skip));
        let last = window.end().saturating_sub(1);
        if self.held.list.len() > last && self.shown.len() < window.limit {
            self.show_in(last, window);
        }
    }

    /// An object changed, and went from one place to another in what is shown.
    fn show_replaced(&mut self, from: usize, to: usize, entry: &Arc<Entry>, old: &Arc<Entry>) {
        let object = entry.object().clone();
        let original = old.object().clone();
        let skip = self.window.map_or(0, |window| window.skip);
        if !self.is_in_window(from) {
            return;
        }
        let (from, to) = (from - skip, to - skip);
        if self.window.is_some() {
            self.shown.remove(from);
            self.shown.insert(to, Arc::clone(entry));
        }
        self.show(if from == to {
            Change::Updated {
                index: to,
                object,
                original,
            }
        } else {
            Change::Moved {
                from,
                to,
                object,
                original,
            }
        });
    }

    /// An object outside of the window went to another place outside: from one side of it to the other, perhaps.
    fn show_passed(&mut self, from: usize, to: usize) {
        let Some(window) = self.window.filter(|window| window.limit > 0) else {
            return;
        };
        let last = window.end() - 1;
        if from < window.skip && to >= window.end() {
            self.show_out(0);
            self.show_in(last, window);
        } else if to < window.skip && from >= window.end() {
            self.show_out(window.limit.saturating_sub(1));
            self.show_in(window.skip, window);
        }
    }

    fn show_out(&mut self, index: usize) {
        if let Some(entry) = self.shown.remove(index) {
            self.show(Change::Removed {
                index,
                object: entry.object().clone(),
            });
        }
    }

    /// What is at this place of what is held comes into the window.
    fn show_in(&mut self, place: usize, window: Window) {
        let index = place - window.skip;
        if let Some(entry) = self.held.list.get(place).cloned() {
            let object = entry.object().clone();
            self.shown.insert(index, entry);
            self.show(Change::Inserted { index, object });
        }
    }

    fn show(&mut self, change: Change) {
        if self.window.is_none() {
            self.shown = self.held.list.clone();
        }
        self.outputs
            .push_back(Output::Change(change, Snapshot(self.shown.clone())));
    }

    /// Everything was fetched.
    fn merge_all(&mut self, page: Page, mut touched: HashMap<Box<str>, Option<Arc<Entry>>>, now: Instant) {
        let Page {
            entries,
            is_sorted,
            is_all,
        } = page;
        if is_sorted && !self.nulls_known {
            self.learn_nulls(&entries);
        }
        let mut target: Vec<Arc<Entry>> = Vec::with_capacity(entries.len());
        let mut boundary = None;
        for entry in entries {
            let entry = self.in_order(entry);
            boundary = boundary.max(Some(entry.key.clone()));
            let id = id_of(&entry);
            let version = entry.version();
            match touched.remove(&id) {
                None => match self.held.get(&id) {
                    // A copy of the database that lags behind, or clocks that differ.
                    Some(held) if held.version() > version => {
                        target.push(Arc::clone(held));
                        self.doubt(&id, now);
                    }
                    _ => target.push(entry),
                },
                Some(Some(event)) => {
                    let before = event.version();
                    if before == version && !event.has_same_content(&entry) {
                        self.doubt(&id, now);
                    }
                    target.push(if version > before {
                        entry
                    } else {
                        self.in_order(event)
                    });
                }
                Some(None) => {
                    let grave = self.graves.get(&id);
                    if grave.is_none_or(|grave| {
                        version > grave.version || version == grave.version && !grave.deleted
                    }) {
                        self.doubt(&id, now);
                    }
                    if grave.is_none_or(|grave| version > grave.version) {
                        self.graves.remove(&id);
                        target.push(entry);
                    }
                }
            }
        }
        // What events brought and the pages do not have: it came later, or changed places meanwhile.
        let events = touched.into_values().flatten();
        target.extend(events.map(|event| self.in_order(event)));
        self.boundary = boundary.filter(|_| !is_all);
        if let Some(boundary) = self.boundary.clone() {
            let (within, beyond): (Vec<_>, Vec<_>) =
                target.into_iter().partition(|entry| entry.key <= boundary);
            target = within;
            beyond.iter().for_each(|entry| self.remember(entry));
        }
        self.is_filled = true;
        let was_ready = std::mem::replace(&mut self.is_ready, true);
        self.change_to(target);
        if !was_ready {
            self.outputs.push_back(Output::Ready);
        }
    }

    /// What is held becomes this, by single changes if these are few.
    fn change_to(&mut self, target: Vec<Arc<Entry>>) {
        let ids: HashSet<&[u8]> = target.iter().map(|entry| entry.key.id()).collect();
        let is_same = |entry: &Arc<Entry>| {
            let held = self.held.by_id.get(entry.key.id());
            held.is_some_and(|held| held.0.key == entry.key && held.0.has_same_content(entry))
        };
        let gone: Vec<_> = self
            .held
            .list
            .iter()
            .filter(|held| !ids.contains(held.key.id()))
            .cloned()
            .collect();
        let changed: Vec<_> = target.iter().filter(|entry| !is_same(entry)).cloned().collect();
        gone.iter().for_each(|entry| self.remember(entry));
        if gone.len() + changed.len() > FEW.max(self.held.list.len() / 4) || self.held.list.len() == 0 {
            if !(gone.is_empty() && changed.is_empty()) {
                self.reset(target);
            }
            return;
        }
        for entry in gone {
            self.take_out(&id_of(&entry));
        }
        for entry in changed {
            self.hold(&id_of(&entry), entry);
        }
    }

    fn reset(&mut self, mut entries: Vec<Arc<Entry>>) {
        entries.sort_unstable_by(|a, b| a.key.cmp(&b.key));
        self.held.by_id = entries.iter().map(|entry| ById(Arc::clone(entry))).collect();
        entries.iter().for_each(|entry| self.look_for_nulls(entry));
        self.shown = match self.window {
            Some(window) => entries
                .iter()
                .skip(window.skip)
                .take(window.limit)
                .cloned()
                .collect(),
            None => List::new(),
        };
        let was_empty = self.held.list.len() == 0;
        self.held.list = entries.into_iter().collect();
        if !(was_empty && self.held.list.len() == 0) {
            self.show(Change::Reset);
        }
    }

    /// These objects were fetched, as far as the query meets them.
    fn merge_some(
        &mut self,
        ids: &[Box<str>],
        page: Vec<Arc<Entry>>,
        touched: &HashMap<Box<str>, Option<Arc<Entry>>>,
    ) {
        // Otherwise there may be more of them than the server returns at once.
        let is_all = page.is_empty() || page.len() < self.largest_page;
        let mut missing: HashSet<&str> = ids.iter().map(|id| &**id).collect();
        for entry in page {
            let id = id_of(&entry);
            if !missing.remove(&*id) {
                continue;
            }
            let version = entry.version();
            let counts = match touched.get(&id) {
                None => true,
                Some(Some(event)) if event.version() == version && !event.has_same_content(&entry) => {
                    self.doubts.insert(id);
                    continue;
                }
                Some(Some(event)) => version > event.version(),
                Some(None) => {
                    let grave = self.graves.get(&id);
                    if grave.is_some_and(|grave| version == grave.version && !grave.deleted) {
                        self.doubts.insert(id.clone());
                    }
                    grave.is_none_or(|grave| version > grave.version)
                }
            };
            if counts {
                let entry = self.in_order(entry);
                self.graves.remove(&id);
                let is_known = self
                    .held
                    .get(&id)
                    .is_some_and(|held| held.version() == version && held.has_same_content(&entry));
                if !is_known {
                    self.hold(&id, entry);
                }
            }
        }
        for id in missing.into_iter().filter(|id| !touched.contains_key(*id)) {
            if !is_all {
                self.doubts.insert(id.into());
            } else if let Some(held) = self.held.get(id) {
                let version = held.version();
                self.graves.dig(
                    id,
                    Grave {
                        version,
                        deleted: false,
                    },
                );
                self.take_out(id);
            }
        }
    }

    /// With a limit: lets go of what is far behind it, and fetches more when too little is left.
    fn keep_to_boundary(&mut self) {
        let Some(window) = self.window else { return };
        let held = self.held.list.len();
        if held < window.end() && self.boundary.is_some() {
            let is_coming = matches!(&self.fetch, Some(Fetch { job: Job::All(_), .. }));
            self.wants_all |= !is_coming;
            return;
        }
        let kept = window.end().saturating_add(window.margin());
        if held > kept.saturating_add(window.margin()) {
            let Some(last) = self.held.list.get(kept - 1) else {
                return;
            };
            self.boundary = Some(last.key.clone());
            while self.held.list.len() > kept {
                if let Some(entry) = self.held.list.remove(self.held.list.len() - 1) {
                    self.held.by_id.remove(entry.key.id());
                    self.remember(&entry);
                }
            }
        }
    }

    fn look_for_nulls(&mut self, entry: &Arc<Entry>) {
        if self.nulls_known {
            return;
        }
        let nulls = self.order.nulls_in(&entry.key);
        self.examples.resize(nulls.len(), [None, None]);
        for (pair, is_null) in self.examples.iter_mut().zip(nulls) {
            let example = &mut pair[usize::from(!is_null)];
            if example.is_none() {
                *example = Some(id_of(entry));
            }
        }
    }

    /// What the server sorted tells where it sorts nulls, if there are any and something else as well.
    fn learn_nulls(&mut self, sorted: &[Arc<Entry>]) {
        let is_sorted_by = |nulls| {
            let order = self.order.with_nulls(nulls);
            let keys: Vec<_> = sorted.iter().map(|entry| order.sort_key(entry.text())).collect();
            keys.is_sorted()
        };
        let other = match self.order.nulls {
            Nulls::Smallest => Nulls::Greatest,
            Nulls::Greatest => Nulls::Smallest,
        };
        match (is_sorted_by(self.order.nulls), is_sorted_by(other)) {
            (true, false) => self.nulls_known = true,
            (false, true) => {
                self.nulls_known = true;
                self.sort_anew(other);
            }
            (true, true) => {}
            (false, false) => crate::logging::warn!(
                "the server sorts {} in another way than by the bytes of texts; the order is not the one of find()",
                self.class_name
            ),
        }
    }

    /// As [`learn_nulls`](Self::learn_nulls), from two objects that were sorted by this key alone.
    fn learn_nulls_of(&mut self, key: usize, sorted: &[Arc<Entry>]) {
        let is_null = |entry: &Arc<Entry>| self.order.nulls_in(&entry.key).get(key).copied();
        let nulls: Vec<_> = sorted.iter().filter_map(is_null).collect();
        let learned = match nulls.as_slice() {
            [true, false] => Nulls::Smallest,
            [false, true] => Nulls::Greatest,
            _ => {
                // They have changed meanwhile.
                self.examples.clear();
                for entry in self.held.list.clone().iter() {
                    self.look_for_nulls(entry);
                }
                return;
            }
        };
        self.nulls_known = true;
        if learned != self.order.nulls {
            self.sort_anew(learned);
        }
    }

    fn sort_anew(&mut self, nulls: Nulls) {
        self.order = Arc::new(self.order.with_nulls(nulls));
        let held: Vec<_> = self.held.list.iter().cloned().collect();
        let sorted = held.into_iter().map(|entry| self.in_order(entry)).collect();
        if self.boundary.take().is_some() {
            // The part that is held is one of the other order.
            self.start_over();
        }
        self.reset(sorted);
    }

    /// The entry, with a key of the order that is known now.
    fn in_order(&self, entry: Arc<Entry>) -> Arc<Entry> {
        match self.order.sort_key(entry.text()) {
            Some(key) if key != entry.key => Arc::new(entry.with_key(key)),
            _ => entry,
        }
    }
}

fn id_of(entry: &Entry) -> Box<str> {
    String::from_utf8_lossy(entry.key.id()).into()
}

const SHORTEST_DELAY: Duration = Duration::from_millis(500);
const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// How long objects in doubt, and other reasons for a request, are gathered.
const GATHERING: Duration = Duration::from_millis(200);
const DOUBTS_AT_ONCE: usize = 100;
/// As long as an event may be late.
const GENERATION: Duration = Duration::from_secs(60);
/// Up to so many changes are told one by one.
const FEW: usize = 100;
