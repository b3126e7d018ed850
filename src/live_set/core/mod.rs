//! What a set knows, and what follows from an event or from what was fetched. No sockets, threads or clocks: time comes
//! in as an argument.
//!
//! The set holds all objects that the query matches, or with a limit those up to a place in their order (`boundary`).
//! Whatever happens to an object after the subscription was acknowledged comes as an event; what was before that is
//! fetched. So what a fetch returns counts for each object that no event came for since it began, and an object that
//! is neither in it nor in such an event is gone.
//!
//! Which of two versions of an object counts is decided in `judge` alone. Where neither may be right, the object is in
//! doubt, and is fetched by its id.

mod due;
mod held;
mod judge;
mod merge;
mod news;
mod window;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rand::SeedableRng;
use rand::rngs::StdRng;

use self::due::{Fetch, Job};
use self::held::{Graves, Held};
use self::window::Window;
use super::change::{Change, Entry, Snapshot};
use super::list::List;
use crate::error::Error;
use crate::event::EventKind;
use crate::object::Object;
use crate::protocol::backoff::Backoff;
use crate::query::Query;
use crate::query::order::{Order, SortKey, version};

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
}

fn id_of(entry: &Entry) -> Box<str> {
    String::from_utf8_lossy(entry.key.id()).into()
}

const SHORTEST_DELAY: Duration = Duration::from_millis(500);
const LONGEST_DELAY: Duration = Duration::from_secs(60);
