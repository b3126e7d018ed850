//! The part of the held objects that is shown, between `skip` and `limit`, and how a change outside of it
//! looks from inside. Must not know of fetches.

use std::sync::Arc;

use super::super::change::{Change, Entry, Snapshot};
use super::{Core, Output};

/// The part of the sorted objects that is shown.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) skip: usize,
    /// `usize::MAX` without a limit.
    pub(crate) limit: usize,
}

impl Window {
    pub(super) fn end(self) -> usize {
        self.skip.saturating_add(self.limit)
    }

    /// How many are held beyond the shown ones, so that not every object that leaves costs a request.
    pub(super) fn margin(self) -> usize {
        (self.limit / 2).clamp(16, 500)
    }
}

impl Core {
    pub(super) fn is_in_window(&self, index: usize) -> bool {
        self.window
            .is_none_or(|window| (window.skip..window.end()).contains(&index))
    }

    /// An object was put in at this place of what is held.
    pub(super) fn show_inserted(&mut self, index: usize, entry: &Arc<Entry>) {
        let Some(window) = self.window else {
            self.show(Change::Inserted {
                index,
                object: entry.object().clone(),
            });
            return;
        };
        if index >= window.end() || self.held.list.len() <= window.skip || window.limit == 0 {
            return;
        }
        if self.shown.len() >= window.limit {
            self.show_out(window.limit.saturating_sub(1));
        }
        // One that comes before the window pushes another one into it.
        let index = index.max(window.skip);
        self.show_in(index, window);
    }

    /// An object was taken out that was at this place of what is held.
    pub(super) fn show_removed(&mut self, index: usize, old: &Arc<Entry>) {
        let Some(window) = self.window else {
            self.show(Change::Removed {
                index,
                object: old.object().clone(),
            });
            return;
        };
        if index >= window.end() {
            return;
        }
        self.show_out(index.saturating_sub(window.skip));
        let last = window.end().saturating_sub(1);
        if self.held.list.len() > last && self.shown.len() < window.limit {
            self.show_in(last, window);
        }
    }

    /// An object changed, and went from one place to another in what is shown.
    pub(super) fn show_replaced(&mut self, from: usize, to: usize, entry: &Arc<Entry>, old: &Arc<Entry>) {
        let object = entry.object().clone();
        let original = old.object().clone();
        let skip = self.window.map_or(0, |window| window.skip);
        if !self.is_in_window(from) {
            return;
        }
        let (from, to) = (from - skip, to - skip);
        if self.window.is_some() {
            self.shown.remove(from);
            self.shown.insert(to, Arc::clone(entry));
        }
        self.show(if from == to {
            Change::Updated {
                index: to,
                object,
                original,
            }
        } else {
            Change::Moved {
                from,
                to,
                object,
                original,
            }
        });
    }

    /// An object outside of the window moved to another place outside, possibly from one side of it to the
    /// other.
    pub(super) fn show_passed(&mut self, from: usize, to: usize) {
        let Some(window) = self.window.filter(|window| window.limit > 0) else {
            return;
        };
        let last = window.end() - 1;
        if from < window.skip && to >= window.end() {
            self.show_out(0);
            self.show_in(last, window);
        } else if to < window.skip && from >= window.end() {
            self.show_out(window.limit.saturating_sub(1));
            self.show_in(window.skip, window);
        }
    }

    fn show_out(&mut self, index: usize) {
        if let Some(entry) = self.shown.remove(index) {
            self.show(Change::Removed {
                index,
                object: entry.object().clone(),
            });
        }
    }

    /// The object at this place of the held ones moves into the window.
    pub(super) fn show_in(&mut self, place: usize, window: Window) {
        let index = place - window.skip;
        if let Some(entry) = self.held.list.get(place).cloned() {
            let object = entry.object().clone();
            self.shown.insert(index, entry);
            self.show(Change::Inserted { index, object });
        }
    }

    pub(super) fn show(&mut self, change: Change) {
        if self.window.is_none() {
            self.shown = self.held.list.clone();
        }
        self.outputs
            .push_back(Output::Change(change, Snapshot(self.shown.clone())));
    }
}
