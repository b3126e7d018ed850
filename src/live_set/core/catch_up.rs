//! How a large set that was filled before catches up with the server: it lists all objects, with only the
//! times when they were last saved, and fetches the whole of those that it does not hold in this version.
//! Must not know what follows from that.
//!
//! A held object counts as the listed one if it has the same `updatedAt`. That is not enough if an object was
//! saved twice within a millisecond and only the first save was reported. Objects that were saved shortly
//! before everything came into doubt are therefore fetched in any case, and so are those that were in doubt
//! on their own. *Shortly* means a minute before the newest version held by then: an event may be this late,
//! and the clocks of servers may differ by this much. If that is later than the doubt itself, by the clock of
//! this machine, it means a minute before the doubt, so that a single object from the future does no harm. A
//! wrong clock here only costs requests.
//!
//! It does not notice changes that do not show in `updatedAt`: a field that became readable or hidden without
//! a save, values that a hook of the server computes, and changes that bypass the server.

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
    /// The list, with the held objects in their places. Objects that differ are there as they were listed.
    paging: Paging,
    list: Option<Page>,
    sure_until: i64,
    /// If more of them differ, asking for them by id is not worth it.
    most: usize,
    differing: Vec<Box<str>>,
    /// How many of those were asked for, and how many are asked for at once.
    asked: usize,
    chunk: usize,
    found: HashMap<Box<str>, Arc<Entry>>,
}

/// Too many differ. The objects before the first of them are known, and the others are fetched whole.
pub(super) struct TooMany(pub(super) Paging);

/// When a list is worth it. Tests use other limits.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Fewer objects fit into one page.
    pub(crate) least: usize,
    /// Of smaller objects, a list is no shorter. In bytes.
    pub(crate) smallest: usize,
    /// However few objects there are, this many may differ.
    pub(crate) few: usize,
    /// How long before the doubt nothing is certain, in milliseconds.
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
    /// `None` if it is not worth it. The held objects have been in doubt `since` then, and `doubts` on their
    /// own.
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
            Some(_) => query_of(conditions, self.next_ids()),
        }
    }

    fn next_ids(&self) -> &[Box<str>] {
        let rest = self.differing.get(self.asked..).unwrap_or_default();
        rest.get(..self.chunk).unwrap_or(rest)
    }

    /// Takes the result of the next request. `largest` is the most that the server has ever returned at once.
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
            // It was deleted after it was listed.
            let Some(found) = self.found.remove(&*id_of(entry)) else {
                return false;
            };
            *entry = found;
            true
        });
        Turn::Done(page)
    }
}
