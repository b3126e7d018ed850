//! What is to be fetched, and when. It must not know what follows from what was fetched.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::super::change::Entry;
use super::super::paging::Paging;
use super::{Core, Output, Request, Task};
use crate::fetch_error::FetchError;
use crate::query::Query;

pub(super) struct Fetch {
    pub(super) job: Job,
    pub(super) began: Instant,
    /// What events said since it began, with the object if the query meets it.
    pub(super) touched: HashMap<Box<str>, Option<Arc<Entry>>>,
}

pub(super) enum Job {
    All(Paging),
    /// Of these objects it is not known how they are.
    Doubts(Vec<Box<str>>),
    /// One of these objects has no value for this key, the other has one: which one comes first?
    Nulls(usize, [Box<str>; 2]),
}

impl Core {
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
            Job::Nulls(key, ids) => self
                .query_of(ids)
                .limit(2)
                .ascending(Vec::from_iter(self.order.path(*key))),
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

    /// What is under way is given up, and everything is fetched, if the subscription is open.
    pub(super) fn start_over(&mut self) {
        self.wants_all = true;
        self.fetch = None;
        self.in_flight = None;
        self.doubts.clear();
    }

    pub(super) fn turn_stale(&mut self, since: SystemTime) {
        if std::mem::take(&mut self.is_ready) {
            self.outputs.push_back(Output::Stale(since));
        }
    }

    pub(super) fn fail(&mut self, failed: FetchError, now: Instant) {
        let FetchError { error, retry_after } = failed;
        let delay = self.backoff.next(&mut self.rng).max(retry_after);
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

    pub(super) fn doubt(&mut self, id: &str, now: Instant) {
        if self.doubts.is_empty() {
            self.not_before = self.not_before.max(Some(now + GATHERING));
        }
        self.doubts.insert(id.into());
    }
}

/// How long objects in doubt, and other reasons for a request, are gathered.
pub(super) const GATHERING: Duration = Duration::from_millis(200);
const DOUBTS_AT_ONCE: usize = 100;
