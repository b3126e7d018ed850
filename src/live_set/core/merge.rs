//! What follows from what was fetched. It must not know when to fetch.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use super::super::change::{Change, Entry};
use super::super::list::List;
use super::super::paging::{Page, Turn};
use super::due::GATHERING;
use super::held::ById;
use super::judge::{By, Grave, Is, Judgement, Of, judge};
use super::{Core, Job, Output, id_of};
use crate::error::{Error, ErrorKind};
use crate::fetch_error::FetchError;
use crate::query::order::Nulls;

impl Core {
    /// What came of a request.
    pub(crate) fn fetched(&mut self, ticket: u64, result: Result<Vec<Arc<Entry>>, FetchError>, now: Instant) {
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
                    self.fail(Error::new(ErrorKind::Fetch, text).into(), now);
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
            target.extend(self.newer_of(entry, &mut touched, now));
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

    /// What there is of an object that is on a page of everything: what was fetched, or what is known.
    fn newer_of(
        &mut self,
        entry: Arc<Entry>,
        touched: &mut HashMap<Box<str>, Option<Arc<Entry>>>,
        now: Instant,
    ) -> Option<Arc<Entry>> {
        let id = id_of(&entry);
        let event = touched.remove(&id);
        let by = match event {
            Some(_) => By::FetchAfterEvent(Of::Everything),
            None => By::Fetch(Of::Everything),
        };
        let Judgement { counts, is_doubtful } =
            judge(self.known(&id, event.as_ref()), Is::Member, &entry, by);
        if is_doubtful {
            self.doubt(&id, now);
        }
        if counts {
            if matches!(event, Some(None)) {
                self.graves.remove(&id);
            }
            return Some(entry);
        }
        let known = event.unwrap_or_else(|| self.held.get(&id).cloned());
        known.map(|known| self.in_order(known))
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
            let event = touched.get(&id);
            let by = match event {
                Some(_) => By::FetchAfterEvent(Of::Doubts),
                None => By::Fetch(Of::Doubts),
            };
            let Judgement { counts, is_doubtful } = judge(self.known(&id, event), Is::Member, &entry, by);
            if is_doubtful {
                // Nothing is gathered anew for it: it is asked for as soon as the next fetch may start.
                self.doubts.insert(id.clone());
            }
            if counts {
                let entry = self.in_order(entry);
                self.graves.remove(&id);
                let held = self.held.get(&id);
                let is_known = held
                    .is_some_and(|held| held.version() == entry.version() && held.has_same_content(&entry));
                if !is_known {
                    self.hold(&id, entry);
                }
            }
        }
        for id in missing.into_iter().filter(|id| !touched.contains_key(*id)) {
            if !is_all {
                self.doubts.insert(id.into());
            } else if let Some(held) = self.held.get(id) {
                let (version, deleted) = (held.version(), false);
                self.graves.dig(id, Grave { version, deleted });
                self.take_out(id);
            }
        }
    }

    pub(super) fn look_for_nulls(&mut self, entry: &Arc<Entry>) {
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

/// Up to so many changes are told one by one.
const FEW: usize = 100;
