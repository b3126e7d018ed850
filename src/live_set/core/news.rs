//! What follows from an event. It must not know what is shown, nor what is fetched next.

use std::sync::Arc;
use std::time::Instant;

use super::super::change::Entry;
use super::held::Grave;
use super::{Core, id_of};
use crate::event::EventKind;

impl Core {
    /// An event says that the query meets the object.
    pub(super) fn came(&mut self, entry: Arc<Entry>, kind: EventKind, follows_on: Option<i64>, now: Instant) {
        let id = id_of(&entry);
        let version = entry.version();
        if let Some(held) = self.known(&id) {
            let before = held.version();
            let follows = follows_on == Some(before);
            if version == before && held.has_same_content(&entry) {
                return;
            }
            // Of two changes within a millisecond nobody can tell which one is the later.
            if version == before || version > before && follows_on.is_some() && !follows {
                self.doubt(&id, now);
            }
            if version > before || follows {
                self.put(&id, entry);
            }
        } else if let Some(grave) = self.graves.get(&id) {
            let follows = follows_on == Some(grave.version);
            if grave.deleted || version == grave.version && !follows {
                // Ids are not used again as a rule.
                if version >= grave.version {
                    self.doubt(&id, now);
                }
            } else if version > grave.version || follows {
                if version == grave.version || !follows {
                    self.doubt(&id, now);
                }
                self.put(&id, entry);
            }
        } else {
            // All that there is was known: its beginning is missing.
            let is_missing = kind == EventKind::Update && self.is_ready && self.boundary.is_none();
            if is_missing {
                self.doubt(&id, now);
            }
            self.put(&id, entry);
        }
    }

    /// An event says that the query does not meet the object any more, or that it was deleted.
    pub(super) fn gone(&mut self, entry: &Arc<Entry>, deleted: bool, follows_on: Option<i64>, now: Instant) {
        let id = id_of(entry);
        let version = entry.version();
        if let Some(held) = self.known(&id) {
            let before = held.version();
            let follows = follows_on == Some(before);
            if version < before && !follows {
                // Late, if it is no deletion that did not know of the last save.
                if deleted {
                    self.doubt(&id, now);
                }
                return;
            }
            if !deleted && (version == before || follows_on.is_some() && !follows) {
                self.doubt(&id, now);
            }
        } else if let Some(grave) = self.graves.get(&id) {
            if version < grave.version && !deleted {
                return;
            }
        }
        let version = self
            .graves
            .get(&id)
            .map_or(version, |grave| grave.version.max(version));
        self.graves.dig(&id, Grave { version, deleted });
        if let Some(fetch) = &mut self.fetch {
            fetch.touched.insert(id.clone(), None);
        }
        self.take_out(&id);
    }

    /// The object as the events and fetches up to now have it: also one beyond the boundary, during a fetch.
    fn known(&self, id: &str) -> Option<Arc<Entry>> {
        let touched = self.fetch.as_ref().and_then(|fetch| fetch.touched.get(id));
        match touched {
            Some(touched) => touched.clone(),
            None => self.held.get(id).cloned(),
        }
    }
}
