//! Which of two versions of an object counts: the known one, or the one from an event or a fetch. Only this
//! module decides that. Must not know what is shown, or what happens to the object.
//!
//! The version from an event counts if it is newer than the known version (`updatedAt`), or if it follows on
//! it: an event says what the object was before (`original`). A newer version that follows on something else
//! means that an event is missing or late: Parse Server 9.10 sends events of one object out of order
//! (ParseLiveQueryServer.ts handles each without waiting for the one before), and of two simultaneous saves
//! each has its own changes only. Such an object is in doubt. An event never brings back an object that was
//! deleted.
//!
//! The version from a fetch counts, unless the known one is newer:
//!
//! - A newer version from an event that came after the fetch began stays: it happened after the fetch read
//!   the object.
//! - A newer version that was known before the fetch began stays as well, but is in doubt: the fetch read a
//!   copy of the database that lags behind, or the clocks of servers differ. A fetch of only the objects in
//!   doubt ends such a doubt, whatever it reads, because the doubt would never end otherwise.
//! - Of two versions with the same time, it is unknown which one is later. The known one stays, and is in
//!   doubt.

use super::super::change::Entry;

#[derive(Clone, Copy, Debug)]
pub(super) struct Grave {
    pub(super) version: i64,
    pub(super) deleted: bool,
}

/// What is known of an object.
#[derive(Clone, Copy, Debug)]
pub(super) enum Known<'a> {
    Nothing,
    /// It matches the query.
    Member(&'a Entry),
    /// It was deleted, does not match the query any more, or is beyond the boundary.
    Gone(Grave),
}

/// What an event says of the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Is {
    Member,
    /// It does not match the query any more.
    Left,
    Deleted,
}

/// Which fetch read an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// One of everything, and no event of the object came since it began.
    WithAll,
    /// One of the objects in doubt, and no event of this one came since it began.
    Alone,
    /// An event of the object came since the fetch began: what is known is what that event told.
    AfterEvent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Judgement {
    /// The new version replaces the known one.
    pub(super) counts: bool,
    /// Neither may be right.
    pub(super) is_doubtful: bool,
}

/// Whether the version from an event counts, and whether the object is in doubt. `follows_on` is the previous
/// version of the object, if the event has it.
pub(super) fn judge_event(known: Known<'_>, told: Is, entry: &Entry, follows_on: Option<i64>) -> Judgement {
    let version = entry.version();
    let before = match known {
        Known::Nothing => return judgement(true, false),
        Known::Member(held) => held.version(),
        Known::Gone(grave) => grave.version,
    };
    let (is_newer, is_even) = (version > before, version == before);
    let follows = follows_on == Some(before);
    let skips = follows_on.is_some() && !follows;
    let is_same = || matches!(known, Known::Member(held) if held.has_same_content(entry));
    match (known, told) {
        (Known::Member(_), Is::Member) if is_even && is_same() => judgement(false, false),
        (Known::Member(_), Is::Member) => judgement(is_newer || follows, is_even || is_newer && skips),
        // One that may not be read any more is sent as it was before.
        (Known::Member(_), Is::Left) if is_even && is_same() => judgement(true, false),
        (Known::Member(_), Is::Left) => {
            judgement(is_newer || is_even || follows, is_even || is_newer && skips)
        }
        // A deletion with an older version did not know of the last save.
        (Known::Member(_), Is::Deleted) => {
            let counts = is_newer || is_even || follows;
            judgement(counts, !counts)
        }
        // Ids are usually not reused.
        (Known::Gone(Grave { deleted: true, .. }), Is::Member) => judgement(false, is_newer || is_even),
        (_, Is::Member) => judgement(is_newer || follows, is_even || is_newer && !follows),
        (_, Is::Left) => judgement(is_newer || is_even, false),
        (_, Is::Deleted) => judgement(true, false),
    }
}

/// Whether the version from a fetch replaces the known one, and whether the object is in doubt.
pub(super) fn judge_read(known: Known<'_>, entry: &Entry, by: Read) -> Judgement {
    let version = entry.version();
    let (before, is_deleted) = match known {
        Known::Nothing => return judgement(true, false),
        Known::Member(held) => (held.version(), false),
        Known::Gone(grave) => (grave.version, grave.deleted),
    };
    match by {
        Read::Alone => judgement(true, false),
        Read::WithAll => {
            let lags = version < before || is_deleted && version == before;
            judgement(!lags, lags)
        }
        // It may have been read before it was deleted, even if the deletion did not know of the last save.
        Read::AfterEvent if is_deleted => judgement(false, version > before),
        Read::AfterEvent => {
            let is_same = matches!(known, Known::Member(held) if held.has_same_content(entry));
            judgement(version > before, version == before && !is_same)
        }
    }
}

fn judgement(counts: bool, is_doubtful: bool) -> Judgement {
    Judgement { counts, is_doubtful }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::object::Object;
    use crate::query::order::Order;
    use crate::types::Date;

    const BEFORE: i64 = 1_700_000_000_000;

    fn entry(version: i64, note: u32) -> Arc<Entry> {
        let date = Date::from_millis(version).unwrap().to_string();
        let json = json!({ "className": "Game", "objectId": "a", "updatedAt": date, "note": note });
        let object = Object::from_json(json).unwrap();
        Entry::new(&Order::new(&[]), &object, "Game").unwrap()
    }

    fn grave(deleted: bool) -> Known<'static> {
        let version = BEFORE;
        Known::Gone(Grave { version, deleted })
    }

    /// What happens to an older version, to one with the same time, and to a newer one: `+` if it counts, `-`
    /// if not, and `?` if the object is in doubt.
    fn verdicts(judge: impl Fn(&Entry) -> Judgement) -> String {
        let verdict = |version| {
            let Judgement { counts, is_doubtful } = judge(&entry(version, 2));
            let doubt = if is_doubtful { "?" } else { "" };
            format!("{}{doubt}", if counts { "+" } else { "-" })
        };
        [BEFORE - 1, BEFORE, BEFORE + 1].map(verdict).join(" ")
    }

    #[test]
    fn what_an_event_tells_counts_if_it_is_newer_or_follows() {
        let held = entry(BEFORE, 1);
        let (member, nothing) = (Known::Member(&held), Known::Nothing);
        let (left, deleted) = (grave(false), grave(true));
        let (silent, follows, skips) = (None, Some(BEFORE), Some(BEFORE - 7));
        for (known, told, follows_on, expected) in [
            (member, Is::Member, silent, "- -? +"),
            (member, Is::Member, follows, "+ +? +"),
            (member, Is::Member, skips, "- -? +?"),
            (member, Is::Left, silent, "- +? +"),
            (member, Is::Left, follows, "+ +? +"),
            (member, Is::Left, skips, "- +? +?"),
            (member, Is::Deleted, silent, "-? + +"),
            (member, Is::Deleted, follows, "+ + +"),
            (member, Is::Deleted, skips, "-? + +"),
            (left, Is::Member, silent, "- -? +?"),
            (left, Is::Member, follows, "+ +? +"),
            (left, Is::Member, skips, "- -? +?"),
            (left, Is::Left, silent, "- + +"),
            (left, Is::Left, follows, "- + +"),
            (left, Is::Deleted, silent, "+ + +"),
            (deleted, Is::Member, silent, "- -? -?"),
            (deleted, Is::Member, follows, "- -? -?"),
            (deleted, Is::Member, skips, "- -? -?"),
            (deleted, Is::Left, silent, "- + +"),
            (deleted, Is::Deleted, silent, "+ + +"),
            (nothing, Is::Member, silent, "+ + +"),
            (nothing, Is::Left, silent, "+ + +"),
            (nothing, Is::Deleted, silent, "+ + +"),
        ] {
            let verdicts = verdicts(|entry| judge_event(known, told, entry, follows_on));
            assert_eq!(
                verdicts, expected,
                "{known:?} is known, an event tells {told:?}, {follows_on:?}"
            );
        }
    }

    #[test]
    fn what_a_fetch_read_counts_unless_what_is_known_is_newer() {
        let held = entry(BEFORE, 1);
        let (member, nothing) = (Known::Member(&held), Known::Nothing);
        let (left, deleted) = (grave(false), grave(true));
        for (known, by, expected) in [
            (member, Read::WithAll, "-? + +"),
            (member, Read::Alone, "+ + +"),
            (member, Read::AfterEvent, "- -? +"),
            (left, Read::WithAll, "-? + +"),
            (left, Read::Alone, "+ + +"),
            (left, Read::AfterEvent, "- -? +"),
            (deleted, Read::WithAll, "-? -? +"),
            (deleted, Read::Alone, "+ + +"),
            (deleted, Read::AfterEvent, "- - -?"),
            (nothing, Read::WithAll, "+ + +"),
            (nothing, Read::Alone, "+ + +"),
            (nothing, Read::AfterEvent, "+ + +"),
        ] {
            let verdicts = verdicts(|entry| judge_read(known, entry, by));
            assert_eq!(verdicts, expected, "{known:?} is known, {by:?}");
        }
    }

    #[test]
    fn what_is_known_already_is_no_news() {
        let (held, same) = (entry(BEFORE, 1), entry(BEFORE, 1));
        for follows_on in [None, Some(BEFORE), Some(BEFORE - 7)] {
            let verdict = judge_event(Known::Member(&held), Is::Member, &same, follows_on);
            assert_eq!(verdict, judgement(false, false), "{follows_on:?}");
        }
        let verdict = judge_read(Known::Member(&held), &same, Read::AfterEvent);
        assert_eq!(verdict, judgement(false, false));
    }
}
