//! The held objects, what is known of the others, and the boundary between them. Must not know where news
//! comes from.

use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::super::change::Entry;
use super::super::list::List;
use super::judge::{Grave, Known};
use super::{Core, id_of};
use crate::query::order::SortKey;

/// The held objects, by place and by id.
#[derive(Clone)]
pub(super) struct Held {
    pub(super) list: List<Arc<Entry>>,
    pub(super) by_id: HashSet<ById>,
}

#[derive(Clone)]
pub(super) struct ById(pub(super) Arc<Entry>);

impl Borrow<[u8]> for ById {
    fn borrow(&self) -> &[u8] {
        self.0.key.id()
    }
}

impl Hash for ById {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.0.key.id().hash(hasher);
    }
}

impl PartialEq for ById {
    fn eq(&self, other: &Self) -> bool {
        self.0.key.id() == other.0.key.id()
    }
}

impl Eq for ById {}

impl Held {
    pub(super) fn of(entries: Vec<Arc<Entry>>) -> Self {
        Self {
            by_id: entries.iter().map(|entry| ById(Arc::clone(entry))).collect(),
            list: entries.into_iter().collect(),
        }
    }

    pub(super) fn get(&self, id: &str) -> Option<&Arc<Entry>> {
        self.by_id.get(id.as_bytes()).map(|by_id| &by_id.0)
    }

    pub(super) fn position(&self, key: &SortKey) -> Result<usize, usize> {
        self.list.search(|entry| entry.key.cmp(key))
    }
}

/// What was saved of the contents of a query, until everything has been fetched once.
pub(super) struct SavedContents {
    pub(super) held: Held,
    /// Since when it may be outdated.
    pub(super) since: SystemTime,
}

/// Objects that are known but not held: gone, or beyond the boundary. A late event must not bring them back.
#[derive(Default)]
pub(super) struct Graves {
    pub(super) young: HashMap<Box<str>, Grave>,
    pub(super) old: HashMap<Box<str>, Grave>,
    pub(super) since: Option<Instant>,
}

impl Graves {
    pub(super) fn get(&self, id: &str) -> Option<Grave> {
        self.young.get(id).or_else(|| self.old.get(id)).copied()
    }

    pub(super) fn dig(&mut self, id: &str, grave: Grave) {
        self.young.insert(id.into(), grave);
    }

    pub(super) fn remove(&mut self, id: &str) {
        self.young.remove(id);
        self.old.remove(id);
    }

    /// Forgets old ones. None may be forgotten during a fetch, which may return an earlier state.
    pub(super) fn age(&mut self, now: Instant) {
        let since = *self.since.get_or_insert(now);
        if now.saturating_duration_since(since) >= GENERATION {
            self.old = std::mem::take(&mut self.young);
            self.since = Some(now);
        }
    }
}

impl Core {
    /// What is known of an object. During a fetch, this may also be one beyond the boundary. `touched` is
    /// what events have reported of it since the fetch began.
    pub(super) fn known<'a>(&'a self, id: &str, touched: Option<&'a Option<Arc<Entry>>>) -> Known<'a> {
        let member = match touched {
            Some(touched) => touched.as_ref(),
            None => self.held.get(id),
        };
        match member {
            Some(member) => Known::Member(member),
            None => self.graves.get(id).map_or(Known::Nothing, Known::Gone),
        }
    }

    /// An event reports this version of the object.
    pub(super) fn put(&mut self, id: &str, entry: Arc<Entry>) {
        self.graves.remove(id);
        if let Some(fetch) = &mut self.due.fetch {
            fetch.touched.insert(id.into(), Some(Arc::clone(&entry)));
        }
        self.hold(id, entry);
    }

    /// An event says that the query does not match the object any more, or that it was deleted.
    pub(super) fn lose(&mut self, id: &str, grave: Grave) {
        let known = self.graves.get(id).map_or(grave.version, |known| known.version);
        let version = grave.version.max(known);
        self.graves.dig(id, Grave { version, ..grave });
        if let Some(fetch) = &mut self.due.fetch {
            fetch.touched.insert(id.into(), None);
        }
        self.take_out(id);
    }

    /// Holds the object, unless it is beyond the boundary, or the others have not been fetched yet.
    pub(super) fn hold(&mut self, id: &str, entry: Arc<Entry>) {
        self.due.saw(entry.version());
        let is_beyond = |boundary: &SortKey| entry.key > *boundary;
        if !self.is_filled || self.boundary.as_ref().is_some_and(is_beyond) {
            self.remember(&entry);
            self.take_out(id);
            self.look_beyond(&entry);
            return;
        }
        self.include_held(id, &entry);
        let old = self.held.by_id.replace(ById(Arc::clone(&entry)));
        let Some(ById(old)) = old else {
            if let Err(index) = self.held.position(&entry.key) {
                self.held.list.insert(index, Arc::clone(&entry));
                self.look_around(index);
                self.show_inserted(index, &entry);
            }
            return;
        };
        let Ok(from) = self.held.position(&old.key) else {
            return;
        };
        if old.key == entry.key {
            self.held.list.replace(from, Arc::clone(&entry));
            self.show_replaced(from, from, &entry, &old);
            return;
        }
        self.held.list.remove(from);
        let (Ok(to) | Err(to)) = self.held.position(&entry.key);
        if self.is_in_window(from) == self.is_in_window(to) {
            self.held.list.insert(to, Arc::clone(&entry));
            if self.is_in_window(from) {
                self.show_replaced(from, to, &entry, &old);
            } else {
                self.show_passed(from, to);
            }
        } else {
            self.show_removed(from, &old);
            self.held.list.insert(to, Arc::clone(&entry));
            self.show_inserted(to, &entry);
        }
        self.look_around(to);
    }

    /// Remembers for a while an object that is no longer held, so that a late event does not bring back an
    /// old version.
    pub(super) fn remember(&mut self, entry: &Entry) {
        let (id, version) = (id_of(entry), entry.version());
        if self.graves.get(&id).is_none_or(|grave| grave.version < version) {
            let deleted = false;
            self.graves.dig(&id, Grave { version, deleted });
        }
    }

    pub(super) fn take_out(&mut self, id: &str) {
        let Some(ById(old)) = self.held.by_id.take(id.as_bytes()) else {
            return;
        };
        self.include_dropped(id);
        if let Ok(index) = self.held.position(&old.key) {
            self.held.list.remove(index);
            self.show_removed(index, &old);
        }
    }

    /// With a limit: whether fewer objects are held than must be shown, though there are more.
    pub(super) fn is_short(&self) -> bool {
        self.boundary.is_some()
            && self
                .window
                .is_some_and(|window| self.held.list.len() < window.end())
    }

    /// With a limit: lets go of what is far behind it, and fetches more when too little is left.
    pub(super) fn keep_to_boundary(&mut self) {
        if self.is_short() {
            if !self.due.wants_more() {
                self.due.want_all();
            }
            return;
        }
        self.due.has_enough();
        let Some(window) = self.window else { return };
        let kept = window.end().saturating_add(window.margin());
        if self.held.list.len() <= kept.saturating_add(window.margin()) {
            return;
        }
        let Some(last) = self.held.list.get(kept - 1) else {
            return;
        };
        self.boundary = Some(last.key.clone());
        while self.held.list.len() > kept {
            if let Some(entry) = self.held.list.remove(self.held.list.len() - 1) {
                self.held.by_id.remove(entry.key.id());
                self.include_dropped(&id_of(&entry));
                self.remember(&entry);
            }
        }
    }
}

/// How long an event may be late.
pub(super) const GENERATION: Duration = Duration::from_secs(60);
