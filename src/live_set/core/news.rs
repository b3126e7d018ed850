//! What follows from an event. Must not know what is fetched, or how.

use std::sync::Arc;
use std::time::Instant;

use super::super::change::Entry;
use super::held::GENERATION;
use super::judge::{Grave, Is, Known, judge_event};
use super::{Core, Moment, Output, id_of};
use crate::error::{Error, ErrorKind};
use crate::event::EventKind;
use crate::object::Object;
use crate::query::order::{SortKey, version_in};

/// An event of an object that may be one of the set.
struct News<'a> {
    kind: EventKind,
    object: &'a Object,
    original: Option<&'a Object>,
}

impl Core {
    /// Something happened to an object.
    pub(crate) fn event(&mut self, kind: EventKind, object: &Object, original: Option<&Object>, now: Moment) {
        if self.due.fetch.is_none() {
            self.graves.age(now.at);
        }
        self.due.again.is_suspect = false;
        if self.asks_again {
            self.answer_may_change(now);
            return;
        }
        let news = News {
            kind,
            object,
            original,
        };
        match Entry::new(&self.places.order, object, &self.class_name) {
            Some(entry) => self.told(&news, entry, now.at),
            None => self.refuse(object, now.at),
        }
        self.keep_to_boundary();
        self.settle(now.time);
    }

    fn told(&mut self, news: &News<'_>, entry: Arc<Entry>, now: Instant) {
        let (told, contradicts) = self.read(news);
        let id = id_of(&entry);
        let entry = match told {
            Is::Member => match self.with_included(&id, entry) {
                Some(whole) => whole,
                None => {
                    // It is told when it is whole.
                    self.due.count_event();
                    self.due.doubt(&id, now);
                    return;
                }
            },
            Is::Left | Is::Deleted => entry,
        };
        let touched = self.due.fetch.as_ref().and_then(|fetch| fetch.touched.get(&id));
        let known = self.known(&id, touched);
        let follows_on = news.original.map(|original| version_in(original.as_json()));
        let judgement = judge_event(known, told, &entry, follows_on);
        let is_doubtful = judgement.is_doubtful
            || judgement.counts && (contradicts || self.is_unexpected(news, &entry, known, told, now))
            || !judgement.counts && self.was_overtaken(news, &entry, known, told)
            || hides_a_deletion(news, known, told, &entry);
        if is_doubtful {
            self.due.doubt(&id, now);
        }
        if !judgement.counts {
            return;
        }
        if told == Is::Member {
            let stays = self.places.are_ranks() && self.stays_beyond(&entry, news.original);
            let entry = self.place(entry, stays);
            self.put(&id, entry);
        } else {
            let (version, deleted) = (entry.version(), told == Is::Deleted);
            self.lose(&id, Grave { version, deleted });
        }
    }

    /// What the object of an event says, and whether the event's name says something else, or cannot be
    /// checked.
    ///
    /// Parse Server 4.3 to 4.10 shares one message between all subscriptions to a class, so an event may come
    /// under the name that it has for another subscription. Hooks of the server may rename events, and change
    /// their objects.
    fn read(&self, news: &News<'_>) -> (Is, bool) {
        let matches = self.matches(news.object);
        match (news.kind, matches) {
            // Only the last save of an object has an original.
            (EventKind::Delete, _) => (Is::Deleted, news.original.is_some()),
            // If it may not be read any more, the server sends it as it was before.
            (EventKind::Leave, Some(true)) => (
                Is::Left,
                news.original.is_some_and(|original| original != news.object),
            ),
            (EventKind::Leave, _) => (Is::Left, matches.is_none()),
            (_, Some(true)) => (Is::Member, false),
            (_, Some(false)) => (Is::Left, true),
            (_, None) => (Is::Member, true),
        }
    }

    /// Whether the query matches this object, if that is known.
    pub(super) fn matches(&self, object: &Object) -> Option<bool> {
        self.judge.as_ref()?.matches_as_sent(object)
    }

    /// Whether an event that counts is odd, considering what is known of its object.
    fn is_unexpected(
        &self,
        news: &News<'_>,
        entry: &Entry,
        known: Known<'_>,
        told: Is,
        now: Instant,
    ) -> bool {
        let is_unknown = matches!(known, Known::Nothing);
        match (known, told) {
            (Known::Member(_), _) | (_, Is::Left) => false,
            (_, Is::Deleted) => is_unknown && self.would_know(&entry.key),
            (_, Is::Member) => {
                let was_known = || match news.original {
                    Some(original) => {
                        let key = self.places.order.sort_key(original.as_json());
                        self.matches(original) != Some(false) && key.is_some_and(|key| self.would_know(&key))
                    }
                    None => news.kind == EventKind::Update && self.would_know(&entry.key),
                };
                // The event that removed it again may be the lost one.
                is_unknown && was_known() || self.may_be_late(now)
            }
        }
    }

    /// With ranks, an event about an unknown object is taken for one of an object that stays beyond the boundary. If an
    /// older event comes only now, and says that the object entered or moved, it may be within the boundary.
    fn was_overtaken(&self, news: &News<'_>, entry: &Entry, known: Known<'_>, told: Is) -> bool {
        let is_known_beyond = matches!(known, Known::Gone(grave) if !grave.deleted);
        let moved = || !self.stays_beyond(entry, news.original);
        self.places.are_ranks() && self.boundary.is_some() && told == Is::Member && is_known_beyond && moved()
    }

    /// Whether an object with this key would be held, if it were a member.
    fn would_know(&self, key: &SortKey) -> bool {
        let is_within = |boundary| !self.places.are_ranks() && key <= boundary;
        self.is_filled && !self.due.is_all_in_doubt() && self.boundary.as_ref().is_none_or(is_within)
    }

    /// Whether an event may still come that was sent before one that was lost.
    pub(super) fn may_be_late(&self, now: Instant) -> bool {
        self.lost_at
            .is_some_and(|lost_at| now.saturating_duration_since(lost_at) < GENERATION)
    }

    /// An object that cannot be in the set: a hook of the server has put it in the place of one that may be.
    fn refuse(&mut self, object: &Object, now: Instant) {
        let class_name = &self.class_name;
        let text = match object.class_name() {
            Some(other) if *other != **class_name => {
                format!("an event of {class_name} has an object of {other:?}")
            }
            _ => format!("an event of {class_name} has an object without an objectId"),
        };
        let text = format!("{text}; the live set ignores it, and fetches what it may have missed");
        self.outputs
            .push_back(Output::Failed(Error::new(ErrorKind::Protocol, text)));
        self.lost_at = Some(now);
        self.due.doubt_all();
    }
}

/// A change that changes nothing may be a deletion that a hook of the server has renamed: only a deletion has
/// the last version and no original.
fn hides_a_deletion(news: &News<'_>, known: Known<'_>, told: Is, entry: &Entry) -> bool {
    let is_change = matches!(news.kind, EventKind::Update | EventKind::Enter);
    let changes_nothing = || matches!(known, Known::Member(held) if held.version() == entry.version());
    told == Is::Member && is_change && news.original.is_none() && changes_nothing()
}
