//! An entry point for `benches/live_set.rs`, with the internal feature `_bench`. Not part of the API.

use std::fmt;
use std::time::SystemTime;

use crate::event::EventKind;
use crate::live_set::change::{Entry, Snapshot};
use crate::live_set::core::{Core, Moment, Output, Task};
use crate::live_set::list::List;
use crate::object::Object;
use crate::query::Query;

/// A set without a server.
pub struct Set {
    core: Core,
    class_name: Box<str>,
    snapshot: Snapshot,
    now: Moment,
}

impl Set {
    /// A set for this query, for which these objects were returned.
    pub fn new(query: &Query, objects: impl IntoIterator<Item = Object>) -> Self {
        let mut set = Self {
            core: Core::new(query, 1),
            class_name: query.class_name().into(),
            snapshot: Snapshot(List::new()),
            now: Moment::now(),
        };
        set.fetch_again(objects);
        set
    }

    /// Applies an event. Returns the number of changes.
    pub fn event(&mut self, kind: EventKind, object: &Object, original: Option<&Object>) -> usize {
        self.core.event(kind, object, original, self.now);
        self.tell()
    }

    /// The connection is lost and restored, and everything is fetched again.
    pub fn fetch_again(&mut self, objects: impl IntoIterator<Item = Object>) {
        self.core.closed(SystemTime::UNIX_EPOCH);
        self.core.opened(None, self.now);
        let mut objects = Some(objects);
        while let Task::Fetch(request) = self.core.next_task(self.now.at) {
            let page = objects.take().into_iter().flatten();
            let entry = |object: Object| Entry::new(&request.order, &object, &self.class_name);
            self.core
                .fetched(request.ticket, Ok(page.filter_map(entry).collect()), self.now);
        }
        self.tell();
    }

    /// The contents.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.snapshot.clone()
    }

    fn tell(&mut self) -> usize {
        let mut changes = 0;
        while let Some(output) = self.core.next_output() {
            if let Output::Change(_, snapshot) = output {
                self.snapshot = snapshot;
                changes += 1;
            }
        }
        changes
    }
}

impl fmt::Debug for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Set")
            .field("len", &self.snapshot.len())
            .finish_non_exhaustive()
    }
}
