//! What must be fetched, and when. Must not know what follows from the result.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;

use super::super::change::Entry;
use super::super::paging::Paging;
use super::catch_up::{CatchUp, Limits};
use super::{AT_ONCE, Core, Moment, Output, Request, State, Task, query_of};
use crate::error::Error;
use crate::fetch_error::FetchError;
use crate::protocol::backoff::Backoff;

pub(super) struct Due {
    is_open: bool,
    /// Everything is in doubt, until a fetch of everything has succeeded that began later.
    all_in_doubt: bool,
    /// A fetch of everything must begin.
    wants_all: bool,
    /// A fetch must include the held objects, until one has succeeded.
    wants_whole: bool,
    /// The newest version that was held, and the version up to which the held objects are certain, since
    /// everything is in doubt.
    newest: i64,
    sure_until: i64,
    pub(super) limits: Limits,
    /// The user that is asked for: a number for each session token.
    asked_for: Option<u64>,
    /// A fetch of the objects after the held ones must begin.
    wants_more: bool,
    /// Objects of which something is missing or late.
    doubts: HashSet<Box<str>>,
    pub(super) fetch: Option<Fetch>,
    /// The number of the pending request.
    in_flight: Option<u64>,
    asked_at: Option<Instant>,
    next_ticket: u64,
    /// The most objects that the server returned at once: with fewer, it has no more.
    pub(super) largest_page: usize,
    backoff: Backoff,
    rng: StdRng,
    retry_at: Option<Instant>,
    /// Requests without urgency are gathered until then.
    not_before: Option<Instant>,
    /// The minimum time between two fetches of everything.
    min_interval: Duration,
    pub(super) figures: Figures,
    pub(super) again: Again,
    /// The number of refreshes requested, and the number of those whose result was reported.
    refreshes: u64,
    refreshed: u64,
}

/// What it took to be right.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Figures {
    pub(crate) requests: u64,
    /// Those that a fetch of everything began with.
    pub(crate) fetches: u64,
    /// Those of them that began with a list of all objects.
    pub(crate) catch_ups: u64,
    /// Events that led to a fetch.
    pub(crate) events: u64,
}

/// Fetches whose only reason is the time.
#[derive(Default)]
pub(super) struct Again {
    pub(super) every: Option<Duration>,
    pub(super) at: Option<Instant>,
    /// The last one found something that no event had told, nor has one since.
    pub(super) is_suspect: bool,
    pub(super) has_warned: bool,
}

pub(super) struct Fetch {
    pub(super) job: Job,
    /// There was a doubt when it began.
    pub(super) is_of_doubt: bool,
    /// How long its answered requests took.
    pub(super) spent: Duration,
    /// The last refresh before it began.
    refreshes: u64,
    /// The objects that were in doubt when it began, for a fetch of everything.
    pub(super) doubts: HashSet<Box<str>>,
    /// What events said since it began, with the object if the query matches it.
    pub(super) touched: HashMap<Box<str>, Option<Arc<Entry>>>,
}

pub(super) enum Job {
    All(Paging),
    /// A list of all objects, and the whole of those that are not held.
    CatchUp(CatchUp),
    /// These objects, which are in doubt.
    Doubts(Vec<Box<str>>),
    /// These two: which one comes first?
    Pair([Box<str>; 2]),
}

impl Due {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            is_open: false,
            all_in_doubt: true,
            wants_all: true,
            wants_whole: false,
            newest: i64::MIN,
            sure_until: i64::MIN,
            limits: Limits::default(),
            asked_for: None,
            wants_more: false,
            doubts: HashSet::new(),
            fetch: None,
            in_flight: None,
            asked_at: None,
            next_ticket: 0,
            largest_page: 0,
            backoff: Backoff::new(SHORTEST_DELAY, LONGEST_DELAY, 1),
            rng: StdRng::seed_from_u64(seed),
            retry_at: None,
            not_before: None,
            min_interval: GATHERING,
            figures: Figures::default(),
            again: Again::default(),
            refreshes: 0,
            refreshed: 0,
        }
    }

    /// Takes over what was requested of another one.
    pub(super) fn goes_on_from(&mut self, other: &Self) {
        (self.refreshes, self.refreshed) = (other.refreshes, other.refreshed);
        self.largest_page = self.largest_page.max(other.largest_page);
        self.figures = other.figures;
    }

    pub(super) fn is_open(&self) -> bool {
        self.is_open
    }

    pub(super) fn opened(&mut self) {
        self.is_open = true;
        self.backoff.reset();
        self.retry_at = None;
        self.not_before = None;
        self.again.at = None;
        self.start_over();
    }

    pub(super) fn closed(&mut self) {
        self.is_open = false;
        self.start_over();
    }

    pub(super) fn refresh(&mut self) -> u64 {
        self.retry_at = None;
        self.not_before = None;
        self.wants_all = true;
        self.wants_whole = true;
        if self.in_flight.is_none() {
            // It waits for its next attempt.
            self.drop_fetch();
        }
        self.refreshes += 1;
        self.refreshes
    }

    /// Discards the pending fetch.
    fn start_over(&mut self) {
        self.doubt_all();
        self.drop_fetch();
        self.in_flight = None;
    }

    /// Its objects are in doubt as before.
    fn drop_fetch(&mut self) {
        let Some(fetch) = self.fetch.take() else { return };
        self.doubts.extend(fetch.doubts);
        if let Job::Doubts(ids) = fetch.job {
            self.doubts.extend(ids);
        }
    }

    /// The contents that there are already were fetched for this user.
    pub(super) fn begins_for(&mut self, who: u64) {
        self.asked_for = Some(who);
    }

    /// What was fetched for another user says nothing about what this one may see.
    fn ask_for(&mut self, who: u64) {
        if self.asked_for.replace(who) != Some(who) {
            self.wants_whole = true;
            if self.fetch.is_some() {
                self.start_over();
            }
        }
    }

    /// An object of this version is held.
    pub(super) fn saw(&mut self, version: i64) {
        self.newest = self.newest.max(version);
    }

    /// A pending fetch continues, so that the set makes progress even if there is always a doubt; it ends
    /// none.
    pub(super) fn doubt_all(&mut self) {
        if !self.all_in_doubt {
            self.sure_until = self.newest.saturating_sub(self.limits.margin);
        }
        self.all_in_doubt = true;
        self.wants_all = true;
    }

    /// Something may have changed everything: what else changes with it is gathered.
    pub(super) fn doubt_all_soon(&mut self, now: Instant) {
        if !self.wants_all {
            let gathered = now + GATHERING.min(self.min_interval);
            self.not_before = self.not_before.max(Some(gathered));
        }
        self.doubt_all();
    }

    pub(super) fn space_out(&mut self, min_interval: Duration) {
        self.min_interval = min_interval;
    }

    pub(super) fn count_event(&mut self) {
        self.figures.events += 1;
        self.again.is_suspect = false;
    }

    pub(super) fn doubt(&mut self, id: &str, now: Instant) {
        if self.doubts.is_empty() {
            self.not_before = self.not_before.max(Some(now + GATHERING));
        }
        self.doubts.insert(id.into());
    }

    /// Fetches everything, unless that is being done.
    pub(super) fn want_all(&mut self) {
        self.wants_all |= !self.fetches_all();
    }

    /// Fetches the objects after the held ones, unless everything must be fetched. A caller waits for it.
    pub(super) fn want_more(&mut self) {
        self.wants_more = true;
        self.not_before = None;
    }

    pub(super) fn has_enough(&mut self) {
        self.wants_more = false;
    }

    /// Whether a fetch of the objects after the held ones must begin.
    pub(super) fn wants_more(&self) -> bool {
        self.wants_more
    }

    pub(super) fn fetches_all(&self) -> bool {
        let job = self.fetch.as_ref().map(|fetch| &fetch.job);
        matches!(job, Some(Job::All(_) | Job::CatchUp(_)))
    }

    pub(super) fn is_all_in_doubt(&self) -> bool {
        self.all_in_doubt
    }

    pub(super) fn has_doubts(&self) -> bool {
        let are_fetched = matches!(
            &self.fetch,
            Some(Fetch {
                job: Job::Doubts(_),
                ..
            })
        );
        !self.is_open || self.all_in_doubt || !self.doubts.is_empty() || are_fetched
    }

    /// The fetch that this is the answer for, unless it was given up.
    pub(super) fn answered(&mut self, ticket: u64) -> Option<Fetch> {
        self.in_flight.take_if(|other| *other == ticket)?;
        self.fetch.take()
    }

    /// The server has answered a request of this fetch.
    pub(super) fn received(&mut self, fetch: &mut Fetch, page: usize, now: Instant) {
        let since = self.asked_at.unwrap_or(now);
        fetch.spent += now.saturating_duration_since(since);
        self.largest_page = self.largest_page.max(page);
        self.backoff.reset();
    }

    /// However often there is a reason to fetch everything, the server must spend most of its time on other
    /// work.
    pub(super) fn rest(&mut self, spent: Duration, now: Instant) {
        let rest = spent.saturating_mul(4);
        self.not_before = Some(now + rest.max(self.min_interval));
    }

    /// A fetch of everything has succeeded. Returns which refresh that was for, if it was for one.
    pub(super) fn has_all(&mut self, spent: Duration, refreshes: u64, now: Instant) -> Option<u64> {
        self.rest(spent, now);
        self.again.at = self.again.every.map(|every| now + every);
        self.all_in_doubt &= self.wants_all;
        self.wants_whole &= self.wants_all;
        self.tell_refreshed(refreshes)
    }

    /// Whether the result of this refresh was not reported yet.
    pub(super) fn tell_refreshed(&mut self, refreshes: u64) -> Option<u64> {
        let is_new = refreshes > self.refreshed;
        self.refreshed = self.refreshed.max(refreshes);
        is_new.then_some(refreshes)
    }

    /// The fetch that is due next, and when it may start.
    fn begin(
        &mut self,
        wanted: Option<usize>,
        pair: Option<&[Box<str>; 2]>,
        rest: impl FnOnce() -> Paging,
        catch_up: impl FnOnce(&Self) -> Option<CatchUp>,
        now: Instant,
    ) -> Option<Instant> {
        let is_due = self.wants_all || self.wants_more || !self.doubts.is_empty() || pair.is_some();
        let at = self.not_before.unwrap_or(now);
        if !is_due || at > now {
            return is_due.then_some(at);
        }
        let mut refreshes = self.refreshes;
        let mut doubts = HashSet::new();
        let job = if std::mem::take(&mut self.wants_all) {
            // It answers these as well.
            self.all_in_doubt |= !self.doubts.is_empty();
            self.wants_more = false;
            self.figures.fetches += 1;
            let may_catch_up = !self.wants_whole && self.again.every.is_none();
            let catch_up = may_catch_up.then(|| catch_up(self)).flatten();
            doubts = std::mem::take(&mut self.doubts);
            self.figures.catch_ups += u64::from(catch_up.is_some());
            catch_up.map_or_else(|| Job::All(Paging::new(wanted)), Job::CatchUp)
        } else if self.doubts.is_empty() && std::mem::take(&mut self.wants_more) {
            // The held objects were not fetched again, so this is not the answer for a caller that asked for
            // that.
            refreshes = self.refreshed;
            Job::All(rest())
        } else if self.doubts.is_empty() {
            Job::Pair(pair?.clone())
        } else {
            let ids: Vec<_> = self.doubts.iter().take(AT_ONCE).cloned().collect();
            for id in &ids {
                self.doubts.remove(id);
            }
            Job::Doubts(ids)
        };
        self.not_before = Some(now + GATHERING);
        self.fetch = Some(Fetch {
            job,
            is_of_doubt: self.all_in_doubt,
            spent: Duration::ZERO,
            refreshes,
            doubts,
            touched: HashMap::new(),
        });
        Some(now)
    }
}

impl Fetch {
    pub(super) fn has_all(&self, due: &mut Due, now: Instant) -> Option<u64> {
        due.has_all(self.spent, self.refreshes, now)
    }
}

impl Core {
    pub(crate) fn figures(&self) -> Figures {
        self.due.figures
    }

    /// The query is about one object, so there is no second page.
    pub(crate) fn is_of_one(&mut self) {
        self.due.largest_page = usize::MAX;
    }

    /// From now on, the set asks for this user: a number for each session token.
    pub(crate) fn ask_for(&mut self, who: u64) {
        self.due.ask_for(who);
        if let Some(next) = &mut self.next {
            next.ask_for(who);
        }
    }

    /// What there is to fetch now.
    pub(crate) fn next_task(&mut self, now: Instant) -> Task {
        self.look_again(now);
        match self.due_task(now) {
            Task::Wait(at) if self.due.is_open && self.due.in_flight.is_none() => {
                Task::Wait(at.into_iter().chain(self.due.again.at).min())
            }
            task => task,
        }
    }

    fn due_task(&mut self, now: Instant) -> Task {
        let due = &mut self.due;
        if !due.is_open || due.in_flight.is_some() {
            return Task::Wait(None);
        }
        if let Some(at) = due.retry_at.filter(|at| *at > now) {
            return Task::Wait(Some(at));
        }
        if due.fetch.is_none() {
            let wanted = match self.window {
                Some(window) => Some(window.end().saturating_add(window.margin())),
                None => self.places.are_ranks().then_some(usize::MAX),
            };
            let largest = due.largest_page;
            let held = &self.held.list;
            let rest = || {
                Paging::behind(
                    held.iter().cloned().collect(),
                    wanted.unwrap_or(usize::MAX),
                    largest,
                )
            };
            let may_catch_up = wanted.is_none() && self.includes.is_none() && !self.asks_again;
            let (saved, state) = (self.saved.as_ref(), self.state);
            let catch_up = |due: &Due| match (saved, state) {
                _ if !may_catch_up => None,
                (Some(saved), _) => {
                    let newest = saved.held.list.iter().map(|entry| entry.version()).max()?;
                    let sure_until = newest.saturating_sub(due.limits.margin);
                    CatchUp::new(&saved.held.list, sure_until, saved.since, &due.doubts, due.limits)
                }
                (None, State::Stale(since)) => {
                    CatchUp::new(held, due.sure_until, since, &due.doubts, due.limits)
                }
                (None, State::Filling | State::Ready) => None,
            };
            let Some(at) = due.begin(wanted, self.places.question(), rest, catch_up, now) else {
                return Task::Wait(None);
            };
            if at > now {
                return Task::Wait(Some(at));
            }
        }
        let Some(fetch) = &due.fetch else {
            return Task::Wait(None);
        };
        let order = &self.places.order;
        let query = match &fetch.job {
            Job::All(paging) => paging.next(&self.query, self.places.for_find()),
            Job::CatchUp(catch_up) => catch_up.next(&self.query),
            Job::Doubts(ids) => query_of(&self.query, ids),
            Job::Pair(ids) => query_of(&self.query, ids).ascending(order.for_find()),
        };
        due.next_ticket += 1;
        due.figures.requests += 1;
        due.in_flight = Some(due.next_ticket);
        due.asked_at = Some(now);
        due.retry_at = None;
        Task::Fetch(Box::new(Request {
            number: self.number,
            ticket: due.next_ticket,
            query,
            order: Arc::clone(order),
        }))
    }

    /// The last result of [`next_task`](Self::next_task) could not be started: it is retried, as a failed
    /// fetch is.
    pub(crate) fn could_not_start(&mut self, error: Error, now: Moment) {
        self.due.in_flight = None;
        self.failed(error.into(), now);
    }

    /// Ignores the answer to this request, because it was made in another name: that of another user, for
    /// example.
    pub(crate) fn discarded(&mut self, ticket: u64, now: Moment) {
        if self.due.in_flight == Some(ticket) {
            self.due.start_over();
            self.settle(now.time);
        }
    }

    /// A fetch failed, and is tried again after a while. Its objects are in doubt until then.
    pub(super) fn failed(&mut self, failure: FetchError, now: Moment) {
        let FetchError { error, retry_after } = failure;
        let due = &mut self.due;
        let delay = due.backoff.next(&mut due.rng).max(retry_after);
        due.retry_at = Some(now.at + delay);
        let refreshes = match &mut due.fetch {
            Some(Fetch {
                job: Job::All(_) | Job::CatchUp(_),
                refreshes,
                ..
            }) => Some(*refreshes),
            Some(_) => None,
            None => due.wants_all.then_some(due.refreshes),
        };
        due.all_in_doubt |= refreshes.is_some();
        let refreshed = refreshes.and_then(|refreshes| due.tell_refreshed(refreshes));
        self.outputs.push_back(Output::Failed(error.clone()));
        self.settle(now.time);
        self.outputs
            .extend(refreshed.map(|number| Output::Refreshed(number, Err(error))));
    }
}

const SHORTEST_DELAY: Duration = Duration::from_millis(500);
const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// How long objects in doubt, and other reasons for a request, are gathered.
const GATHERING: Duration = Duration::from_millis(200);
