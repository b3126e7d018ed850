//! A window that grows: more of the sorted objects are shown, and only objects that are not held are fetched.
//! Must not know how the server is asked.

use super::{Core, Moment};

impl Core {
    /// Shows this many more objects. If there is a next query, it shows them.
    pub(crate) fn extend(&mut self, number: usize, now: Moment) {
        if let Some(next) = &mut self.next {
            next.extend(number, now);
            return;
        }
        let Some(window) = &mut self.window else { return };
        window.limit = window.limit.saturating_add(number);
        let window = *window;
        while self.shown.len() < window.limit && window.skip + self.shown.len() < self.held.list.len() {
            self.show_in(window.skip + self.shown.len(), window);
        }
        // Places that the server gave tell nothing of those behind them.
        if self.is_short() && !self.places.are_ranks() {
            self.extended = self.extended.saturating_add(number);
            self.due.want_more();
        }
        self.keep_to_boundary();
        self.settle(now.time);
    }

    /// Whether the server has objects after the last shown one, as far as is known.
    pub(crate) fn has_more(&self) -> bool {
        let is_behind = |end: usize| self.boundary.is_some() || self.held.list.len() > end;
        self.window.is_some_and(|window| is_behind(window.end()))
    }
}
