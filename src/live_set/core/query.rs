//! Another query for an existing set. It is requested beside the old one, with a core of its own, so that
//! events of one query never get into the contents of the other; the old contents stay until the new ones are
//! complete. Must not know how a query is subscribed to.
//!
//! Each query has a number, and so has everything that is requested and reported for it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::super::change::{Change, Entry, Snapshot};
use super::super::list::List;
use super::held::{Held, SavedContents};
use super::merge::FEW;
use super::places::longest_rise;
use super::{Core, Moment, Output, State, Task};
use crate::error::Error;
use crate::query::Query;

impl Core {
    /// With the contents of the query that were saved before: they are shown until the query's own are there, and a large
    /// set fetches only what differs from them, as long as it asks for this one: a number for each session token.
    pub(crate) fn starting_from(
        mut self,
        query: &Query,
        saved: Vec<Arc<Entry>>,
        since: SystemTime,
        who: u64,
    ) -> Self {
        let mut shown = Self::new(query, 0);
        shown.number = SAVED;
        shown.window = None;
        shown.is_filled = true;
        shown.state = State::Stale(since);
        let held = Held::of(saved);
        shown.held = held.clone();
        shown.includes = None;
        self.due.begins_for(who);
        self.saved = Some(SavedContents { held, since });
        shown.next = Some(Box::new(self));
        shown.outputs.push_back(Output::Stale(since));
        if shown.held.list.len() > 0 {
            shown.show(Change::Reset);
        }
        shown
    }

    /// Reports something that happened elsewhere.
    pub(crate) fn tell(&mut self, error: Error) {
        self.outputs.push_back(Output::Failed(error));
    }

    /// The contents, and since when they may be outdated, if they may.
    pub(crate) fn contents(&self) -> (Snapshot, Option<SystemTime>) {
        (Snapshot(self.shown.clone()), self.stale_since())
    }

    /// This query is to take the place of the present one, and of another that was to do so.
    pub(crate) fn set_query(&mut self, number: u64, mut next: Self, now: Moment) {
        if let Some(first) = self.next.as_mut().filter(|_| self.number == SAVED) {
            // If this one is refused the first one stays.
            first.set_query(number, next, now);
            return;
        }
        next.number = number;
        next.due.goes_on_from(&self.due);
        self.next = Some(Box::new(next));
        self.settle(now.time);
    }

    /// The number of the query whose contents are shown, and those of the queries that will replace it.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = u64> {
        std::iter::successors(Some(self), |core| core.next.as_deref()).map(|core| core.number)
    }

    /// The core that events for the query with this number belong to. `None` if it is no longer wanted.
    pub(crate) fn of(&mut self, number: u64) -> Option<&mut Self> {
        if self.number == number {
            return Some(self);
        }
        self.next.as_deref_mut()?.of(number)
    }

    /// Fetches everything again, at once. [`Output::Refreshed`] reports when that is done.
    pub(crate) fn refresh(&mut self) -> u64 {
        if let Some(next) = &mut self.next {
            next.refresh();
        }
        self.due.refresh()
    }

    /// What there is to fetch now, for one query or the other.
    pub(crate) fn next_task_of_any(&mut self, now: Instant) -> Task {
        let Some(next) = &mut self.next else {
            return self.next_task(now);
        };
        let (task, is_open) = (next.next_task_of_any(now), next.due.is_open());
        match task {
            // What is fetched for the old query would be shown for a moment only.
            Task::Wait(at) if !is_open => match self.next_task(now) {
                Task::Wait(other) => Task::Wait(at.into_iter().chain(other).min()),
                task @ Task::Fetch(_) => task,
            },
            task => task,
        }
    }

    /// The query that was to come cannot: the present one stays.
    pub(crate) fn withdraw(&mut self, number: u64, error: Error, now: Moment) {
        if self.next.take_if(|next| next.number == number).is_some() {
            self.settle(now.time);
            self.outputs.push_back(Output::Answered(number, Err(error)));
        } else if let Some(next) = &mut self.next {
            next.withdraw(number, error, now);
        }
    }

    /// Makes the next query the present one, if everything was fetched for it. Must be called after each
    /// input.
    pub(crate) fn take_over(&mut self) {
        let Some(next) = &mut self.next else { return };
        next.take_over();
        let mut rest = Vec::new();
        while let Some(output) = next.next_output() {
            match output {
                Output::Refreshed(number, _) if self.due.tell_refreshed(number).is_none() => {}
                Output::Failed(_) | Output::Refreshed(..) | Output::Answered(..) => rest.push(output),
                // Its contents are told as differences from those that are shown.
                Output::Change(..) | Output::Ready | Output::Stale(_) => {}
            }
        }
        let Some(mut next) = self.next.take_if(|next| next.is_filled) else {
            self.outputs.extend(rest);
            return;
        };
        next.outputs = std::mem::take(&mut self.outputs);
        next.tell_differences(&self.shown);
        if next.state == State::Ready {
            next.outputs.push_back(Output::Ready);
        } else {
            next.state = self.state;
        }
        next.outputs.extend(rest);
        next.outputs.push_back(Output::Answered(next.number, Ok(())));
        *self = *next;
    }

    /// What was shown before becomes what is shown now, by single changes if these are few.
    fn tell_differences(&mut self, before: &List<Arc<Entry>>) {
        match steps(before, &self.shown) {
            Some(steps) => self.outputs.extend(
                steps
                    .into_iter()
                    .map(|(change, list)| Output::Change(change, Snapshot(list))),
            ),
            None => {
                let all = Snapshot(self.shown.clone());
                self.outputs.push_back(Output::Change(Change::Reset, all));
            }
        }
    }
}

/// The changes that lead from one list to another, each with the resulting list. `None` if there are many, or
/// if they would pass through an empty list though neither is empty.
fn steps(before: &List<Arc<Entry>>, after: &List<Arc<Entry>>) -> Option<Vec<(Change, List<Arc<Entry>>)>> {
    fn ids(list: &List<Arc<Entry>>) -> HashSet<&[u8]> {
        list.iter().map(|entry| entry.key.id()).collect()
    }
    let (known, wanted) = (ids(before), ids(after));
    let gone: Vec<_> = (0..)
        .zip(before.iter())
        .filter(|(_, entry)| !wanted.contains(entry.key.id()))
        .collect();
    if gone.len() == before.len() && after.len() > 0 {
        return None;
    }
    let most = FEW.max(before.len() / 4);
    if gone.len() + after.len().saturating_sub(before.len() - gone.len()) > most {
        return None;
    }
    let mut list = before.clone();
    let mut steps = Vec::new();
    for (index, entry) in gone.into_iter().rev() {
        list.remove(index);
        let object = entry.object().clone();
        steps.push((Change::Removed { index, object }, list.clone()));
    }
    // Those that keep their places among each other, so that as few as can be are moved.
    let places: HashMap<_, _> = before.iter().map(|entry| entry.key.id()).zip(0..).collect();
    let ranks: Vec<Option<u64>> = after
        .iter()
        .map(|entry| places.get(entry.key.id()).copied())
        .collect();
    let stays: HashSet<usize> = longest_rise(&ranks).into_iter().collect();
    // Behind the one that was put in its place last.
    let mut next = 0;
    for (place, entry) in after.iter().enumerate() {
        let is_same = |other: &Arc<Entry>| other.key.id() == entry.key.id();
        let object = || entry.object().clone();
        let change = if stays.contains(&place) {
            // Before it there may be some that are moved later.
            let index = (next..list.len())
                .find(|index| list.get(*index).is_some_and(is_same))
                .unwrap_or(next);
            next = index + 1;
            let Some(old) = list.get(index).cloned() else {
                continue;
            };
            let has_same_content = old.has_same_content(entry);
            if !has_same_content || old.key != entry.key {
                list.replace(index, Arc::clone(entry));
            }
            if has_same_content {
                continue;
            }
            Change::Updated {
                index,
                object: object(),
                original: old.object().clone(),
            }
        } else {
            let is_known = known.contains(entry.key.id());
            let from = is_known.then(|| list.iter().position(is_same)).flatten();
            let old = from.and_then(|from| list.remove(from));
            let to = next - usize::from(from.is_some_and(|from| from < next));
            list.insert(to, Arc::clone(entry));
            next = to + 1;
            match from.zip(old) {
                None => Change::Inserted {
                    index: to,
                    object: object(),
                },
                // What was before it was moved away.
                Some((from, old)) if from == to && old.has_same_content(entry) => continue,
                Some((from, old)) if from == to => Change::Updated {
                    index: to,
                    object: object(),
                    original: old.object().clone(),
                },
                Some((from, old)) => Change::Moved {
                    from,
                    to,
                    object: object(),
                    original: old.object().clone(),
                },
            }
        };
        steps.push((change, list.clone()));
        if steps.len() > most {
            return None;
        }
    }
    Some(steps)
}

/// The number of the query whose contents were saved.
pub(crate) const SAVED: u64 = u64::MAX;
