//! How a large set that was filled before catches up with what there is: it lists all objects, with nothing but the times
//! when they were saved last, and fetches those whole that it does not hold as they are. It must not know what follows
//! from that.
//!
//! An object that is held stands for one that is listed if it has the same `updatedAt`. That is not enough where an object
//! may have been saved twice within a millisecond, and only the first save was told. So what was saved shortly before
//! everything came into doubt is fetched in any case, and what was in doubt by itself. *Shortly* is a minute before the
//! newest version that was held by then: an event may be late by so much, and clocks of servers may differ by so much. If
//! that is later than the doubt itself, by the clock of this machine, it is a minute before the doubt: one object from the
//! future then does no harm. A wrong clock here costs only requests.
//!
//! It does not see what is not in `updatedAt`: a field that became readable or hidden without a save, what a hook of the
//! server computes, and what bypasses the server.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use super::super::change::Entry;
use super::super::list::List;
use super::super::paging::{Page, Paging, Turn};
use super::held::{GENERATION, Held};
use super::{AT_ONCE, id_of, query_of};
use crate::query::Query;

pub(super) struct CatchUp {
    /// The list: what is held in the places of what was listed. What differs is there as it was listed.
    paging: Paging,
    list: Option<Page>,
    sure_until: i64,
    /// If more of them differ, they are not worth to be asked for by their ids.
    most: usize,
    differing: Vec<Box<str>>,
    /// How many of those were asked for, and how many are at once.
    asked: usize,
    chunk: usize,
    found: HashMap<Box<str>, Arc<Entry>>,
}

/// More than are worth it differ. Those before the first of them are known, and the others are fetched whole.
pub(super) struct TooMany(pub(super) Paging);

/// When a list is worth it. Tests have others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Of fewer objects, everything is one page.
    pub(crate) least: usize,
    /// Of smaller ones, a list is no less. In bytes.
    pub(crate) smallest: usize,
    /// However few there are, so many may differ.
    pub(crate) few: usize,
    /// How much time before the doubt nothing is sure, in milliseconds.
    pub(crate) margin: i64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            least: 200,
            smallest: 300,
            few: AT_ONCE,
            margin: i64::try_from(GENERATION.as_millis()).unwrap_or(i64::MAX),
        }
    }
}

impl CatchUp {
    /// `None` if it is not worth it. What is held was in doubt `since` then, with `doubts` on their own.
    pub(super) fn new(
        held: &List<Arc<Entry>>,
        sure_until: i64,
        since: SystemTime,
        doubts: &HashSet<Box<str>>,
        limits: Limits,
    ) -> Option<Self> {
        let number = held.len();
        let most = limits.few.max(number / 10);
        let since = since.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let since = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        let sure_until = sure_until.min(since.saturating_sub(limits.margin));
        let (mut bytes, mut unsure) = (0, doubts.len());
        for entry in held.iter() {
            bytes += entry.text().len();
            unsure += usize::from(entry.version() >= sure_until);
        }
        let is_worth_it = number >= limits.least && bytes >= limits.smallest.saturating_mul(number);
        (is_worth_it && unsure <= most).then(|| Self {
            paging: Paging::new(None),
            list: None,
            sure_until,
            most,
            differing: Vec::new(),
            asked: 0,
            chunk: 0,
            found: HashMap::new(),
        })
    }

    /// The query for the next request.
    pub(super) fn next(&self, conditions: &Query) -> Query {
        match self.list {
            None => {
                let listed = conditions.of_fields(&["objectId", "updatedAt"]);
                self.paging.next(&listed, Vec::new())
            }
            Some(_) => query_of(conditions, self.next_ids()).limit(self.next_ids().len() as u64),
        }
    }

    fn next_ids(&self) -> &[Box<str>] {
        let rest = self.differing.get(self.asked..).unwrap_or_default();
        rest.get(..self.chunk).unwrap_or(rest)
    }

    /// Takes what the next request brought. `largest` is the most that the server has ever returned at once.
    pub(super) fn take(
        &mut self,
        page: Vec<Arc<Entry>>,
        largest: usize,
        held: &Held,
        doubts: &HashSet<Box<str>>,
    ) -> Result<Turn, TooMany> {
        if self.list.is_some() {
            self.asked += self.next_ids().len();
            self.found
                .extend(page.into_iter().map(|entry| (id_of(&entry), entry)));
            return Ok(self.turn());
        }
        let listed = page.into_iter().map(|listed| {
            let id = id_of(&listed);
            let is_held = |held: &&Arc<Entry>| {
                let version = held.version();
                version == listed.version() && version > i64::MIN && version < self.sure_until
            };
            let known = held.get(&id).filter(is_held).filter(|_| !doubts.contains(&id));
            known.cloned().unwrap_or_else(|| {
                self.differing.push(id);
                listed
            })
        });
        let entries: Vec<_> = listed.collect();
        if self.differing.len() > self.most {
            let mut paging = std::mem::replace(&mut self.paging, Paging::new(None));
            if let Some(first) = self.differing.first() {
                paging.take_before(first.as_bytes(), entries);
            }
            return Err(TooMany(paging));
        }
        match self.paging.take(entries, largest) {
            Turn::Done(list) => {
                self.list = Some(list);
                self.chunk = largest.clamp(1, AT_ONCE);
                Ok(self.turn())
            }
            turn => Ok(turn),
        }
    }

    /// Whether everything is there.
    fn turn(&mut self) -> Turn {
        if self.asked < self.differing.len() {
            return Turn::More;
        }
        let Some(mut page) = self.list.take() else {
            return Turn::More;
        };
        let differing: HashSet<&[u8]> = self.differing.iter().map(|id| id.as_bytes()).collect();
        page.entries.retain_mut(|entry| {
            if !differing.contains(entry.key.id()) {
                return true;
            }
            // It is gone since it was listed.
            let Some(found) = self.found.remove(&*id_of(entry)) else {
                return false;
            };
            *entry = found;
            true
        });
        Turn::Done(page)
    }
}
