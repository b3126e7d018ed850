//! What follows from an event. It must not know what is shown, nor what is fetched next.

use std::sync::Arc;
use std::time::Instant;

use super::super::change::Entry;
use super::judge::{By, Grave, Is, Judgement, judge};
use super::{Core, id_of};
use crate::event::EventKind;

impl Core {
    /// An event says that the query matches the object.
    pub(super) fn came(&mut self, entry: Arc<Entry>, kind: EventKind, follows_on: Option<i64>, now: Instant) {
        let id = id_of(&entry);
        let by = By::Event {
            follows_on,
            must_be_known: kind == EventKind::Update && self.is_ready && self.boundary.is_none(),
        };
        if self.hear(&id, Is::Member, &entry, by, now) {
            self.put(&id, entry);
        }
    }

    /// An event says that the query does not match the object any more, or that it was deleted.
    pub(super) fn gone(&mut self, entry: &Arc<Entry>, deleted: bool, follows_on: Option<i64>, now: Instant) {
        let id = id_of(entry);
        let told = if deleted { Is::Deleted } else { Is::Left };
        let by = By::Event {
            follows_on,
            must_be_known: false,
        };
        if !self.hear(&id, told, entry, by, now) {
            return;
        }
        let version = entry.version();
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

    /// Whether what an event says counts.
    fn hear(&mut self, id: &str, told: Is, entry: &Entry, by: By, now: Instant) -> bool {
        let touched = self.fetch.as_ref().and_then(|fetch| fetch.touched.get(id));
        let Judgement { counts, is_doubtful } = judge(self.known(id, touched), told, entry, by);
        if is_doubtful {
            self.doubt(id, now);
        }
        counts
    }
}
