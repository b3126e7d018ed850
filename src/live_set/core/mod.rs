//! The state of a set, and what follows from an event or from the result of a fetch. No sockets, threads or
//! clocks: time comes in as an argument.
//!
//! The rules:
//!
//! 1. The set holds all objects that match the query, or with a limit those up to a place in their order
//!    (`boundary`). Whatever happens to an object while the subscription is open comes as an event;
//!    everything before that is fetched.
//! 2. A *doubt* is everything that suggests that the set may differ from the server: the connection is down,
//!    an event is known to be lost, late or missing, a fetch has failed, an event contradicts itself or what
//!    is known, or it is unknown where an object is sorted. The set is ready if and only if it has no doubt
//!    ([`Core::settle`], after each input); while it has one it is stale, and claims nothing.
//! 3. A doubt ends when a fetch has succeeded that began after it: one of everything, or one of the objects
//!    in doubt. Every failed fetch is retried.
//! 4. The object is judged, not the name of the event ([`news`]). The name counts only for what the object
//!    cannot show: that it was deleted, or that it may no longer be read. If both contradict each other, the
//!    object is in doubt.
//! 5. The newer version counts ([`judge`]). If it is unknown which one that is, or a version in between is
//!    missing, the object is in doubt.
//! 6. After an event was lost, an earlier one may still be on its way, with an outdated version. Everything
//!    that events bring during the next minute is in doubt.
//! 7. The set sorts only what all servers sort alike. Everything else is in the order that the server
//!    returned ([`places`]), and an object without a place puts everything in doubt.
//!
//! 8. Where events cannot tell which objects match, since that depends on other objects as well, each event puts
//!    everything in doubt ([`follow`]). An included object that changes puts those in doubt that have it ([`includes`]).
//!
//! The modules: [`due`] decides what must be fetched, and when; [`catch_up`] makes a large set fetch only
//! what differs; [`merge`] handles the result; [`held`] keeps the held objects, and what is known of the
//! others; [`window`] is the part that is shown; [`query`] replaces the query with another; [`extend`] makes
//! the window grow.

pub(crate) mod catch_up;
mod due;
mod extend;
mod follow;
mod held;
mod includes;
mod judge;
mod merge;
mod news;
mod places;
pub(crate) mod query;
#[cfg(test)]
mod tests;
mod window;

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

pub(crate) use self::due::Figures;
use self::due::{Due, Job};
use self::follow::Links;
use self::held::{Graves, Held, SavedContents};
pub(crate) use self::includes::Following;
use self::includes::Includes;
use self::places::Places;
use self::window::Window;
use super::change::{Change, Entry, Snapshot};
use super::list::List;
use crate::error::Error;
use crate::query::order::{Order, SortKey};
use crate::query::{Judge, Query};

pub(crate) struct Core {
    /// That of the query.
    number: u64,
    /// The query that will replace this one.
    next: Option<Box<Self>>,
    class_name: Box<str>,
    /// The conditions and the fields, without order and window.
    query: Query,
    /// `None` if the query cannot be subscribed to.
    judge: Option<Judge>,
    window: Option<Window>,
    /// By how much the window has grown, and what was fetched since did not.
    extended: usize,
    places: Places,
    held: Held,
    saved: Option<SavedContents>,
    /// No objects sorted after this are held. `None` if everything is held.
    boundary: Option<SortKey>,
    shown: List<Arc<Entry>>,
    graves: Graves,
    due: Due,
    /// When an event of this connection was lost. An earlier one may be late, with an outdated version.
    lost_at: Option<Instant>,
    links: Links,
    includes: Option<Includes>,
    /// No event shows which objects match.
    asks_again: bool,
    /// Everything was fetched once: what is held is what there is, or was.
    is_filled: bool,
    state: State,
    outputs: VecDeque<Output>,
}

/// The state of the contents, as reported.
#[derive(Clone, Copy, Debug, PartialEq)]
enum State {
    /// There were none yet.
    Filling,
    Ready,
    /// They may be old, since this time.
    Stale(SystemTime),
}

/// One moment on both clocks: one is for measuring, the other for people.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) at: Instant,
    pub(crate) time: SystemTime,
}

impl Moment {
    pub(crate) fn now() -> Self {
        Self {
            at: Instant::now(),
            time: SystemTime::now(),
        }
    }
}

/// Something to report.
#[derive(Debug)]
pub(crate) enum Output {
    /// A change, and the contents with it.
    Change(Change, Snapshot),
    /// What is shown is what the server has.
    Ready,
    /// What is shown may be old, since this time.
    Stale(SystemTime),
    Failed(Error),
    /// A fetch of everything that began after the [refresh](Core::refresh) with this number, and all before it, has
    /// succeeded or failed.
    Refreshed(u64, Result<(), Error>),
    /// The query with this number, and all before it, is the one whose contents are shown, or was refused.
    Answered(u64, Result<(), Error>),
}

/// The next thing to fetch.
#[derive(Debug)]
pub(crate) struct Request {
    /// That of the query that it is for.
    pub(crate) number: u64,
    pub(crate) ticket: u64,
    pub(crate) query: Query,
    pub(crate) order: Arc<Order>,
}

/// The next task of the fetching thread.
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
        let limit = parts
            .limit
            .map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let skip = usize::try_from(parts.skip).unwrap_or(usize::MAX);
        let window = (limit.is_some() || skip > 0).then_some(Window {
            skip,
            limit: limit.unwrap_or(usize::MAX),
        });
        let mut places = Places::new(Order::new(parts.order));
        if query.has_order_of_server() {
            places.keep_those_of_server(query.sorts_by_distance());
        }
        let query = query.without_window();
        Self {
            number: 0,
            next: None,
            class_name: query.class_name().into(),
            judge: query.judge().ok(),
            window,
            extended: 0,
            places,
            held: Held {
                list: List::new(),
                by_id: HashSet::new(),
            },
            saved: None,
            boundary: None,
            shown: List::new(),
            graves: Graves::default(),
            due: Due::new(seed),
            lost_at: None,
            links: Links::new(),
            includes: Includes::new(query.included()),
            asks_again: false,
            is_filled: false,
            state: State::Filling,
            outputs: VecDeque::new(),
            query,
        }
    }

    /// The key of an object that is held.
    pub(crate) fn key_of(&self, id: &str) -> Option<&SortKey> {
        self.held.get(id).map(|entry| &entry.key)
    }

    pub(crate) fn next_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Whether what is shown is what the server has, according to the last output.
    #[cfg(test)]
    pub(crate) fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    /// When it catches up by differences, and with which margin.
    #[cfg(test)]
    pub(crate) fn catch_up_from(&mut self, limits: catch_up::Limits) {
        self.due.limits = limits;
    }

    /// As with conditions that cannot be judged here.
    #[cfg(test)]
    pub(crate) fn cannot_judge(&mut self) {
        self.judge = None;
    }

    /// Since when the contents may be outdated, if they were ready before. It may turn out to be earlier than
    /// [`Output::Stale`] said.
    pub(crate) fn stale_since(&self) -> Option<SystemTime> {
        match self.state {
            State::Stale(since) => Some(since),
            State::Filling | State::Ready => None,
        }
    }

    /// Events were lost, or may have been: the queue was full, a hook of the server failed, the server reported an error
    /// of the subscription.
    pub(crate) fn missed(&mut self, now: Moment) {
        self.lost_at = Some(now.at);
        self.due.doubt_all();
        self.settle(now.time);
    }

    /// Reports whether the set is ready, if that has changed.
    fn settle(&mut self, since: SystemTime) {
        match (self.state, self.has_doubts()) {
            (State::Ready, true) => {
                self.state = State::Stale(since);
                self.outputs.push_back(Output::Stale(since));
            }
            (State::Stale(before), true) => self.state = State::Stale(since.min(before)),
            (State::Filling | State::Stale(_), false) => {
                self.state = State::Ready;
                self.outputs.push_back(Output::Ready);
            }
            (State::Filling, true) | (State::Ready, false) => {}
        }
    }

    /// Whether the held objects may differ from those of the server.
    fn has_doubts(&self) -> bool {
        !self.is_filled
            || self.next.is_some()
            || self.due.has_doubts()
            || self.places.has_doubts()
            || self.is_short()
            || self.include_doubts()
    }
}

fn id_of(entry: &Entry) -> Box<str> {
    String::from_utf8_lossy(entry.key.id()).into()
}

/// The same query, for these objects alone.
fn query_of(query: &Query, ids: &[Box<str>]) -> Query {
    let number = ids.len() as u64;
    let ids: Vec<_> = ids.iter().map(|id| &**id).collect();
    query
        .restricted(|query| query.contained_in("objectId", ids))
        .limit(number)
}

/// How many objects are asked for by their ids at once.
const AT_ONCE: usize = 100;
