//! Which of two versions of an object counts: the one that is known, or the one that an event or a fetch brings. Only
//! this module decides that. It must not know what is shown, nor what becomes of the object.
//!
//! A version counts if it is newer than the known one (`updatedAt`), or if it follows on it: an event says what the
//! object was before (`original`). A newer version that follows on something else means that an event is missing or
//! late: Parse Server 9.10 sends events of one object out of order (ParseLiveQueryServer.ts handles each without
//! waiting for the one before), and of two saves at a time each has its own changes only. Such an object is in doubt,
//! and is fetched by its id.
//!
//! Events and fetches differ in these points, and in no others:
//!
//! - A fetch does not follow on anything: it reads whatever is there.
//! - What a fetch reads counts if no event of the object came since the fetch began. But a fetch of everything may read
//!   an older version than the known one, from a copy of the database that lags behind or with clocks that differ: then
//!   the known one stays, and is in doubt. A fetch of the objects in doubt settles that doubt with whatever it reads.
//! - Where the object is known to be gone, a newer version that does not follow on that is in doubt, since nothing says
//!   that it came back. A fetch of the objects in doubt needs no such proof.
//! - Where nothing is known, what is told counts. It is in doubt if an event of a change should have found the object
//!   known, or if an event since the fetch of everything began said that the object is gone, and nothing is left of that.
//! - An event never brings back an object that was deleted. A fetch brings back a newer version.
//! - Only an event tells that an object is gone. No page of a fetch does: what is not on it has no version.

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

/// What is told of the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Is {
    Member,
    /// It does not match the query any more.
    Left,
    Deleted,
}

/// Who tells it.
#[derive(Clone, Copy, Debug)]
pub(super) enum By {
    Event {
        /// The version that the object had before, if the event says so.
        follows_on: Option<i64>,
        /// The object was a member before, and every member is known: if this one is not, an event is missing.
        must_be_known: bool,
    },
    /// A fetch, and no event of the object came since it began.
    Fetch(Of),
    /// A fetch, and an event of the object came since it began: what is known is what that event said.
    FetchAfterEvent(Of),
}

/// What a fetch is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    Everything,
    /// The objects in doubt.
    Doubts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Judgement {
    /// What is told takes the place of what is known.
    pub(super) counts: bool,
    /// Neither may be right.
    pub(super) is_doubtful: bool,
}

/// Whether what is told counts, and whether the object is in doubt. `entry` is the version that is told.
pub(super) fn judge(known: Known<'_>, told: Is, entry: &Entry, by: By) -> Judgement {
    match (by, known) {
        (By::Fetch(Of::Everything), Known::Member(held)) => {
            let is_old = entry.version() < held.version();
            judgement(!is_old, is_old)
        }
        (By::Fetch(_), _) => judgement(true, false),
        _ if told == Is::Member => judge_member(known, entry, by),
        _ => judge_gone(known, told == Is::Deleted, entry.version(), by),
    }
}

/// It is told that the query matches the object.
fn judge_member(known: Known<'_>, entry: &Entry, by: By) -> Judgement {
    let version = entry.version();
    match known {
        Known::Nothing => judgement(
            true,
            match by {
                By::Event { must_be_known, .. } => must_be_known,
                By::Fetch(of) | By::FetchAfterEvent(of) => of == Of::Everything,
            },
        ),
        Known::Member(held) => {
            let step = Step::new(held.version(), version, by);
            if step.is_even && held.has_same_content(entry) {
                return judgement(false, false);
            }
            // Of two saves within a millisecond nobody can tell which one is the later.
            let is_doubtful = step.is_even || step.is_newer && step.skips;
            judgement(step.is_newer || step.follows, is_doubtful)
        }
        Known::Gone(grave) => {
            let step = Step::new(grave.version, version, by);
            let is_proved = step.follows || matches!(by, By::FetchAfterEvent(Of::Doubts));
            match (grave.deleted, by) {
                // Ids are not used again as a rule.
                (true, By::Event { .. }) => judgement(false, step.is_newer || step.is_even),
                (true, _) => judgement(step.is_newer, step.is_newer && !is_proved),
                (false, _) => {
                    let is_doubtful = step.is_even || step.is_newer && !is_proved;
                    judgement(step.is_newer || step.follows, is_doubtful)
                }
            }
        }
    }
}

/// It is told that the object was deleted, or that the query does not match it any more.
fn judge_gone(known: Known<'_>, is_deleted: bool, version: i64, by: By) -> Judgement {
    match known {
        Known::Nothing => judgement(true, false),
        Known::Member(held) => {
            let step = Step::new(held.version(), version, by);
            if step.is_newer || step.is_even || step.follows {
                judgement(true, !is_deleted && (step.is_even || step.skips))
            } else {
                // Late, unless it is a deletion that did not know of the last save.
                judgement(false, is_deleted)
            }
        }
        Known::Gone(grave) => judgement(is_deleted || version >= grave.version, false),
    }
}

/// How the version that is told relates to the known one.
struct Step {
    is_newer: bool,
    is_even: bool,
    /// It is said to follow on the known version.
    follows: bool,
    /// It is said to follow on another one.
    skips: bool,
}

impl Step {
    fn new(before: i64, version: i64, by: By) -> Self {
        let follows_on = match by {
            By::Event { follows_on, .. } => follows_on,
            By::Fetch(_) | By::FetchAfterEvent(_) => None,
        };
        Self {
            is_newer: version > before,
            is_even: version == before,
            follows: follows_on == Some(before),
            skips: follows_on.is_some_and(|other| other != before),
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

    fn event(follows_on: Option<i64>) -> By {
        let must_be_known = false;
        By::Event {
            follows_on,
            must_be_known,
        }
    }

    /// What becomes of a version that is older, one that is of the same time, and one that is newer: `+` if it counts,
    /// `-` if not, and `?` if the object is in doubt.
    fn verdicts(known: Known<'_>, told: Is, by: By) -> String {
        let verdict = |version| {
            let Judgement { counts, is_doubtful } = judge(known, told, &entry(version, 2), by);
            let doubt = if is_doubtful { "?" } else { "" };
            format!("{}{doubt}", if counts { "+" } else { "-" })
        };
        [BEFORE - 1, BEFORE, BEFORE + 1].map(verdict).join(" ")
    }

    fn check(table: &[(Known<'_>, Is, By, &str)]) {
        for &(known, told, by, expected) in table {
            let verdicts = verdicts(known, told, by);
            assert_eq!(verdicts, expected, "{known:?} is known, {by:?} tells {told:?}");
        }
    }

    #[test]
    fn each_difference_between_events_and_fetches_is_listed() {
        let held = entry(BEFORE, 1);
        let member = Known::Member(&held);
        let (left, deleted) = (grave(false), grave(true));
        let (silent, follows, skips) = (event(None), event(Some(BEFORE)), event(Some(BEFORE - 7)));
        let (all, doubts) = (By::Fetch(Of::Everything), By::Fetch(Of::Doubts));
        let all_after = By::FetchAfterEvent(Of::Everything);
        let doubts_after = By::FetchAfterEvent(Of::Doubts);
        check(&[
            (member, Is::Member, silent, "- -? +"),
            (member, Is::Member, follows, "+ +? +"),
            (member, Is::Member, skips, "- -? +?"),
            (member, Is::Member, all, "-? + +"),
            (member, Is::Member, doubts, "+ + +"),
            (member, Is::Member, all_after, "- -? +"),
            (member, Is::Member, doubts_after, "- -? +"),
            (left, Is::Member, silent, "- -? +?"),
            (left, Is::Member, follows, "+ +? +"),
            (left, Is::Member, skips, "- -? +?"),
            (left, Is::Member, all, "+ + +"),
            (left, Is::Member, doubts, "+ + +"),
            (left, Is::Member, all_after, "- -? +?"),
            (left, Is::Member, doubts_after, "- -? +"),
            (deleted, Is::Member, silent, "- -? -?"),
            (deleted, Is::Member, follows, "- -? -?"),
            (deleted, Is::Member, skips, "- -? -?"),
            (deleted, Is::Member, all, "+ + +"),
            (deleted, Is::Member, doubts, "+ + +"),
            (deleted, Is::Member, all_after, "- - +?"),
            (deleted, Is::Member, doubts_after, "- - +"),
            (Known::Nothing, Is::Member, silent, "+ + +"),
            (Known::Nothing, Is::Member, all, "+ + +"),
            (Known::Nothing, Is::Member, doubts, "+ + +"),
            (Known::Nothing, Is::Member, all_after, "+? +? +?"),
            (Known::Nothing, Is::Member, doubts_after, "+ + +"),
        ]);
    }

    #[test]
    fn that_an_object_is_gone_counts_unless_it_is_late() {
        let held = entry(BEFORE, 1);
        let member = Known::Member(&held);
        let (left, deleted) = (grave(false), grave(true));
        let (silent, follows, skips) = (event(None), event(Some(BEFORE)), event(Some(BEFORE - 7)));
        check(&[
            (member, Is::Left, silent, "- +? +"),
            (member, Is::Left, follows, "+ +? +"),
            (member, Is::Left, skips, "- +? +?"),
            (member, Is::Deleted, silent, "-? + +"),
            (member, Is::Deleted, follows, "+ + +"),
            (member, Is::Deleted, skips, "-? + +"),
            (left, Is::Left, silent, "- + +"),
            (left, Is::Left, follows, "- + +"),
            (left, Is::Deleted, silent, "+ + +"),
            (deleted, Is::Left, silent, "- + +"),
            (deleted, Is::Deleted, silent, "+ + +"),
            (Known::Nothing, Is::Left, silent, "+ + +"),
            (Known::Nothing, Is::Deleted, silent, "+ + +"),
        ]);
    }

    #[test]
    fn what_is_known_already_is_no_news() {
        let (held, same) = (entry(BEFORE, 1), entry(BEFORE, 1));
        let after = By::FetchAfterEvent(Of::Everything);
        for by in [event(None), event(Some(BEFORE)), event(Some(BEFORE - 7)), after] {
            let verdict = judge(Known::Member(&held), Is::Member, &same, by);
            assert_eq!(verdict, judgement(false, false), "{by:?}");
        }
    }

    #[test]
    fn a_change_of_an_unknown_object_is_in_doubt_where_all_are_known() {
        let by = By::Event {
            follows_on: None,
            must_be_known: true,
        };
        let is_new = judge(Known::Nothing, Is::Member, &entry(BEFORE, 1), by);
        assert_eq!(is_new, judgement(true, true));
    }
}
