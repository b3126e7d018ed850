//! What follows from the result of a fetch. Must not know when to fetch.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use super::super::change::{Change, Entry};
use super::super::list::List;
use super::super::paging::{Page, Turn};
use super::catch_up::TooMany;
use super::held::Held;
use super::judge::{Grave, Judgement, Read, judge_read};
use super::{Core, Job, Moment, Output, id_of};
use crate::error::{Error, ErrorKind};
use crate::fetch_error::FetchError;

/// What events said since a fetch began, with the object if the query matches it.
type Touched = HashMap<Box<str>, Option<Arc<Entry>>>;

impl Core {
    /// Handles the result of a request.
    pub(crate) fn fetched(&mut self, ticket: u64, result: Result<Vec<Arc<Entry>>, FetchError>, now: Moment) {
        let Some(mut fetch) = self.due.answered(ticket) else {
            return;
        };
        let page = match result {
            Ok(page) => page,
            Err(failure) => {
                self.due.fetch = Some(fetch);
                self.failed(failure, now);
                return;
            }
        };
        self.due.received(&mut fetch, page.len(), now.at);
        let mut refreshed = None;
        let largest = self.due.largest_page;
        let turn = match &mut fetch.job {
            Job::All(paging) => Some(paging.take(page, largest)),
            Job::CatchUp(catch_up) => {
                let known = self.saved.as_ref().map_or(&self.held, |saved| &saved.held);
                Some(match catch_up.take(page, largest, known, &fetch.doubts) {
                    Ok(turn) => turn,
                    Err(TooMany(paging)) => {
                        fetch.job = Job::All(paging);
                        Turn::More
                    }
                })
            }
            Job::Doubts(ids) => {
                self.merge_some(ids, page, &fetch.touched, now.at);
                None
            }
            Job::Pair(_) => {
                self.learn_from_pair(&page);
                None
            }
        };
        match turn {
            None => {}
            Some(Turn::More) => self.due.fetch = Some(fetch),
            Some(unfit @ (Turn::Restless | Turn::Repeated)) => {
                let class_name = &self.class_name;
                let text = match unfit {
                    Turn::Repeated => format!(
                        "the server returned an object of {class_name} again that the query for the next page excludes; a \
                         hook (`beforeFind`) or a gateway must not take conditions out of queries"
                    ),
                    _ => format!(
                        "the objects of {class_name} change places faster than they can be fetched page by page; a smaller \
                         limit, or a larger maxLimit of the server, takes fewer pages"
                    ),
                };
                let spent = fetch.spent;
                self.due.fetch = Some(fetch);
                self.failed(Error::new(ErrorKind::Fetch, text).into(), now);
                self.due.fetch = None;
                self.due.doubt_all();
                self.due.rest(spent, now.at);
            }
            Some(Turn::Done(page)) => {
                refreshed = fetch.has_all(&mut self.due, now.at);
                let before = self.outputs.len();
                self.merge_all(page, fetch.touched, now.at);
                if !fetch.is_of_doubt {
                    self.suspect(before);
                }
            }
        }
        self.keep_to_boundary();
        self.settle(now.time);
        self.outputs
            .extend(refreshed.map(|number| Output::Refreshed(number, Ok(()))));
    }

    /// Everything was fetched.
    fn merge_all(&mut self, page: Page, mut touched: Touched, now: Instant) {
        let Page {
            entries,
            is_in_order,
            is_of_one_moment,
            is_all,
        } = page;
        if is_in_order {
            // There is a new one.
            self.boundary = None;
        }
        let order = Arc::clone(&self.places.order);
        let had_ranks = self.places.are_ranks();
        self.learn_from_page(&entries, is_in_order, is_of_one_moment);
        let entries = if Arc::ptr_eq(&order, &self.places.order) {
            entries
        } else {
            entries.into_iter().map(|entry| self.in_order(entry)).collect()
        };
        let last = entries.iter().map(|entry| &entry.key).max().cloned();
        let members = self.members_of(entries, &mut touched, now);
        // Objects from events that the pages do not have: they came later, or are gone again.
        let others = touched.into_values().flatten();
        let others: Vec<_> = others.map(|event| self.in_order(event)).collect();
        if self.may_be_late(now) {
            others.iter().for_each(|other| self.due.doubt(&id_of(other), now));
        }
        let mut left_out = Vec::new();
        if self.places.are_ranks() && !had_ranks && !others.is_empty() {
            // When they came it was not known that only the server knows their places.
            self.due.doubt_all();
        }
        let target = if self.places.are_ranks() {
            self.target_of_ranks(members, others, is_in_order, is_all)
        } else {
            self.boundary = last.filter(|_| !is_all);
            let all = members.into_iter().chain(others);
            let (within, beyond): (Vec<_>, Vec<_>) = all.partition(|entry| {
                self.boundary
                    .as_ref()
                    .is_none_or(|boundary| entry.key <= *boundary)
            });
            beyond.iter().for_each(|entry| self.remember(entry));
            left_out = beyond;
            within
        };
        self.is_filled = true;
        self.saved = None;
        self.change_to(target);
        left_out.iter().for_each(|entry| self.look_beyond(entry));
    }

    /// Those that are in the set, of those that were fetched, in the order in which they were.
    fn members_of(
        &mut self,
        entries: Vec<Arc<Entry>>,
        touched: &mut Touched,
        now: Instant,
    ) -> Vec<Arc<Entry>> {
        let mut members = Vec::with_capacity(entries.len());
        for entry in entries {
            let id = id_of(&entry);
            let event = touched.remove(&id);
            let judgement = self.judge_fetched(&id, event.as_ref(), &entry, Read::WithAll);
            if judgement.is_doubtful {
                self.due.doubt(&id, now);
            }
            if judgement.counts {
                self.graves.remove(&id);
                members.push(entry);
                continue;
            }
            let known = event.unwrap_or_else(|| self.held.get(&id).cloned());
            let Some(known) = known.map(|known| self.in_order(known)) else {
                continue;
            };
            if self.places.are_ranks() && known.key != entry.key {
                // Its place is not the one of what was fetched.
                self.due.doubt_all();
            }
            members.push(known);
        }
        members
    }

    /// `event` is what events told of it since the fetch began.
    fn judge_fetched(
        &self,
        id: &str,
        event: Option<&Option<Arc<Entry>>>,
        entry: &Entry,
        read: Read,
    ) -> Judgement {
        let read = if event.is_some() { Read::AfterEvent } else { read };
        judge_read(self.known(id, event), entry, read)
    }

    /// With ranks: what is to be held, at its places. `others` were not fetched, so they have none.
    fn target_of_ranks(
        &mut self,
        mut members: Vec<Arc<Entry>>,
        others: Vec<Arc<Entry>>,
        is_in_order: bool,
        is_all: bool,
    ) -> Vec<Arc<Entry>> {
        if !is_in_order {
            self.due.doubt_all();
            members.extend(others);
            members.sort_by(|one, other| one.key.cmp(&other.key));
            return self.rank(members);
        }
        let mut target = self.rank(members);
        if is_all {
            if !others.is_empty() {
                self.due.doubt_all();
            }
            target.extend(
                others
                    .iter()
                    .map(|entry| Arc::new(entry.with_key(entry.key.at_rank(u64::MAX)))),
            );
        } else {
            self.boundary = target.last().map(|entry| entry.key.clone());
            others.iter().for_each(|entry| self.remember(entry));
        }
        target
    }

    /// Changes the held objects to these, by single changes if they are few.
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
        // Those that were asked for are told one by one as well, and what is held beyond them.
        let extended = std::mem::take(&mut self.extended).saturating_mul(2);
        let few = FEW.saturating_add(extended).max(self.held.list.len() / 4);
        if gone.len() + changed.len() > few || self.held.list.len() == 0 {
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

    pub(super) fn reset(&mut self, mut entries: Vec<Arc<Entry>>) {
        entries.iter().for_each(|entry| self.due.saw(entry.version()));
        entries.sort_unstable_by(|a, b| a.key.cmp(&b.key));
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
        self.held = Held::of(entries);
        self.include_reset();
        self.look_everywhere();
        if !(was_empty && self.held.list.len() == 0) {
            self.show(Change::Reset);
        }
    }

    /// These objects were fetched, as far as the query matches them.
    fn merge_some(&mut self, ids: &[Box<str>], page: Vec<Arc<Entry>>, touched: &Touched, now: Instant) {
        // Otherwise there may be more of them than the server returns at once.
        let is_all = page.is_empty() || page.len() < self.due.largest_page;
        let mut missing: HashSet<&str> = ids.iter().map(|id| &**id).collect();
        for entry in page {
            let id = id_of(&entry);
            if !missing.remove(&*id) {
                continue;
            }
            let judgement = self.judge_fetched(&id, touched.get(&id), &entry, Read::Alone);
            if judgement.is_doubtful {
                self.due.doubt(&id, now);
            }
            let is_known = self
                .held
                .get(&id)
                .is_some_and(|held| held.version() == entry.version() && held.has_same_content(&entry));
            if judgement.counts && !is_known {
                let entry = self.place(entry, false);
                self.graves.remove(&id);
                self.hold(&id, entry);
            }
        }
        for id in missing {
            let is_told = matches!(touched.get(id), Some(Some(_)));
            if is_told && self.may_be_late(now) || !is_told && !is_all {
                self.due.doubt(id, now);
            } else if let Some(held) = self.held.get(id).filter(|_| !is_told) {
                let (version, deleted) = (held.version(), false);
                self.graves.dig(id, Grave { version, deleted });
                self.take_out(id);
            }
        }
    }
}

/// Up to so many changes are told one by one.
pub(super) const FEW: usize = 100;
