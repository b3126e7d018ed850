//! All objects of a query, page by page, while they change. It knows nothing about events.
//!
//! A server does not announce how many objects it returns at most (`maxLimit`), so pages are requested until there
//! are no more objects.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::change::Entry;
use crate::query::Query;

pub(super) struct Paging {
    /// How many of the first objects are wanted. `None` for all objects, in any order.
    wanted: Option<usize>,
    entries: Vec<Arc<Entry>>,
    /// How many were requested last, and how many of those were already known.
    asked: usize,
    overlap: usize,
    /// How many known objects are requested again at most.
    most_overlap: usize,
    restarts: u32,
    /// How many pages had new objects.
    pages: u32,
}

/// What was fetched.
pub(super) struct Page {
    pub(super) entries: Vec<Arc<Entry>>,
    /// In the order of the query, not in that of the ids.
    pub(super) is_in_order: bool,
    /// Read at one moment, so the order is the server's.
    pub(super) is_of_one_moment: bool,
    /// There are no more objects.
    pub(super) is_all: bool,
}

pub(super) enum Turn {
    More,
    /// The objects change positions too fast.
    Restless,
    /// The server has returned what the query excludes, and would go on so for ever.
    Repeated,
    Done(Page),
}

impl Paging {
    pub(super) fn new(wanted: Option<usize>) -> Self {
        Self {
            wanted,
            entries: Vec::new(),
            asked: wanted.unwrap_or(PAGE).min(PAGE),
            overlap: 0,
            most_overlap: usize::MAX,
            restarts: 0,
            pages: 0,
        }
    }

    /// Fetches the objects that come after these, which are the first of the wanted ones: they count as pages
    /// that were already read.
    pub(super) fn behind(entries: Vec<Arc<Entry>>, wanted: usize, largest: usize) -> Self {
        let overlap = (largest / 2).min(entries.len()).min(OVERLAP);
        if overlap == 0 || entries.len() >= wanted {
            return Self::new(Some(wanted));
        }
        Self {
            wanted: Some(wanted),
            asked: (wanted - entries.len()).saturating_add(overlap).min(PAGE),
            overlap,
            most_overlap: OVERLAP,
            entries,
            restarts: 0,
            pages: 1,
        }
    }

    /// Takes what comes before the object with this id, of this page and of those before it. The next page begins there.
    pub(super) fn take_before(&mut self, id: &[u8], page: Vec<Arc<Entry>>) {
        self.entries.extend(page);
        let known = self.entries.iter().position(|entry| entry.key.id() == id);
        self.entries.truncate(known.unwrap_or(self.entries.len()));
    }

    /// The query for the next page.
    pub(super) fn next(&self, conditions: &Query, order: Vec<String>) -> Query {
        let limit = self.asked as u64;
        if self.wanted.is_some() {
            let skip = (self.entries.len() - self.overlap) as u64;
            let query = conditions.clone().limit(limit).skip(skip);
            return match order.is_empty() {
                true => query,
                false => query.ascending(order),
            };
        }
        // An id never changes, so whatever else happens, each object is found exactly once.
        let query = match self.entries.last() {
            Some(last) => {
                let id = String::from_utf8_lossy(last.key.id()).into_owned();
                conditions.restricted(|query| query.greater_than("objectId", id))
            }
            None => conditions.clone(),
        };
        query.ascending(["objectId"]).limit(limit)
    }

    /// Takes in the next page. `largest` is the most that the server has ever returned at once.
    pub(super) fn take(&mut self, mut page: Vec<Arc<Entry>>, largest: usize) -> Turn {
        let is_last = page.is_empty() || page.len() < self.asked && page.len() < largest;
        let known = self.entries.len();
        let Some(wanted) = self.wanted else {
            let last = self.entries.last().map(|last| last.key.id());
            if last.is_some_and(|last| page.iter().any(|entry| entry.key.id() == last)) {
                return Turn::Repeated;
            }
            self.entries.append(&mut page);
            return if is_last { self.done(true) } else { Turn::More };
        };
        if self.overlap > 0 {
            // Since the last page, objects before this position may have been added or removed. This page
            // continues from the last object that has the same position in both pages.
            let places: HashMap<_, _> = page
                .iter()
                .zip(0_usize..)
                .map(|(entry, at)| (&entry.key, at))
                .collect();
            let both = |(at, entry): (usize, &Arc<Entry>)| Some((at, *places.get(&entry.key)?));
            let Some((last, at)) = self.entries.iter().enumerate().rev().find_map(both) else {
                return self.restart();
            };
            self.entries.truncate(last + 1);
            page.drain(..=at);
        }
        // Objects that come again have changed their positions.
        let again: HashSet<_> = page.iter().map(|entry| entry.key.id()).collect();
        self.entries.retain(|entry| !again.contains(entry.key.id()));
        self.entries.extend(page.iter().cloned());
        self.pages += u32::from(!page.is_empty());
        if self.entries.len() >= wanted {
            return self.done(false);
        }
        if is_last {
            return self.done(true);
        }
        if self.entries.len() <= known {
            return self.restart();
        }
        self.overlap = (largest / 2).min(self.entries.len()).min(self.most_overlap);
        self.asked = (wanted - self.entries.len() + self.overlap).min(PAGE);
        Turn::More
    }

    /// Starts again: too much has changed since the last page.
    fn restart(&mut self) -> Turn {
        let restarts = self.restarts + 1;
        *self = Self {
            restarts,
            ..Self::new(self.wanted)
        };
        if restarts > MOST_RESTARTS {
            Turn::Restless
        } else {
            Turn::More
        }
    }

    fn done(&mut self, is_all: bool) -> Turn {
        Turn::Done(Page {
            entries: std::mem::take(&mut self.entries),
            is_in_order: self.wanted.is_some(),
            is_of_one_moment: self.pages <= 1,
            is_all,
        })
    }
}

/// How many objects are requested at once.
const PAGE: usize = 1000;
/// How many known objects are fetched again, to know where the new ones continue.
const OVERLAP: usize = 4;
const MOST_RESTARTS: u32 = 5;
