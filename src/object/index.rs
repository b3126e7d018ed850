//! Where the members of a JSON object begin and end in its text. Decodes no value, and knows nothing of Parse.

use std::ops::Range;
use std::sync::OnceLock;

use serde_json::Value;

use super::decode::{decode, start_of};
use crate::json::Members;

/// The members of one JSON object. Every method wants the text that the index was made of.
pub(super) struct Index {
    /// In the order of the text. Of several with one key, the last one counts, as in JavaScript.
    members: Vec<Member>,
    /// The text is no JSON object.
    broken: bool,
    /// Positions in `members` of those that count, sorted by key. Most objects never need it.
    sorted: OnceLock<Vec<usize>>,
}

pub(super) struct Member {
    key: Key,
    value: Range<usize>,
    /// `None` inside: it cannot be decoded. In a box since most members are never looked at.
    decoded: OnceLock<Option<Box<Value>>>,
}

enum Key {
    /// As it stands in the text, without the quotes.
    Plain(Range<usize>),
    /// It has escapes in the text.
    Escaped(Box<str>),
}

impl Index {
    /// Text that is no JSON object has no members.
    pub(super) fn new(json: &str) -> Self {
        // Enough for most classes.
        let mut members = Vec::with_capacity(16);
        let mut found = Members::new(json);
        members.extend(found.by_ref().map(|(key, value)| Member::new(json, key, value)));
        let broken = !found.is_complete();
        if broken {
            members.clear();
        }
        Self {
            members,
            broken,
            sorted: OnceLock::new(),
        }
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    pub(super) fn find(&self, json: &str, key: &str) -> Option<&Member> {
        let position = self.position(json, key)?;
        self.members.get(position)
    }

    /// Each key once, in the order of the text.
    pub(super) fn iter<'a>(&'a self, json: &'a str) -> impl Iterator<Item = (&'a str, &'a Member)> + 'a {
        let has_overwritten = self.sorted(json).len() < self.members.len();
        let counts = move |position, key| !has_overwritten || self.position(json, key) == Some(position);
        self.members
            .iter()
            .enumerate()
            .map(move |(position, member)| (position, member.key(json), member))
            .filter(move |&(position, key, _)| counts(position, key))
            .map(|(_, key, member)| (key, member))
    }

    pub(super) fn len(&self, json: &str) -> usize {
        self.sorted(json).len()
    }

    fn position(&self, json: &str, key: &str) -> Option<usize> {
        // Up to here, looking at each costs less than the sorting.
        const FEW: usize = 32;
        if self.members.len() <= FEW {
            return self.members.iter().rposition(|member| member.key(json) == key);
        }
        let sorted = self.sorted(json);
        let found = sorted.binary_search_by(|&position| self.key_at(json, position).cmp(key));
        sorted.get(found.ok()?).copied()
    }

    fn sorted(&self, json: &str) -> &[usize] {
        self.sorted.get_or_init(|| {
            let mut positions: Vec<_> = (0..self.members.len()).rev().collect();
            // A stable sort: of equal keys, the last one stays in front and is the one that is kept.
            positions.sort_by_key(|&position| self.key_at(json, position));
            positions.dedup_by_key(|position| self.key_at(json, *position));
            positions
        })
    }

    fn key_at<'a>(&'a self, json: &'a str, position: usize) -> &'a str {
        self.members.get(position).map_or("", |member| member.key(json))
    }
}

impl Member {
    fn new(json: &str, key: &str, value: &str) -> Self {
        let range = |part: &str| {
            let start = start_of(part, json);
            start..start + part.len()
        };
        let key = if key.bytes().any(|byte| byte == b'\\') {
            // With its quotes it is a string.
            let Range { start, end } = range(key);
            let quoted = json.get(start - 1..end + 1).unwrap_or_default();
            Key::Escaped(decode(quoted).unwrap_or_default())
        } else {
            Key::Plain(range(key))
        };
        Self {
            key,
            value: range(value),
            decoded: OnceLock::new(),
        }
    }

    pub(super) fn key<'a>(&'a self, json: &'a str) -> &'a str {
        match &self.key {
            Key::Plain(range) => json.get(range.clone()).unwrap_or_default(),
            Key::Escaped(key) => key,
        }
    }

    pub(super) fn value<'a>(&self, json: &'a str) -> &'a str {
        json.get(self.value.clone()).unwrap_or("null")
    }

    /// The decoded value; `failed` is told why there is none, the first time.
    pub(super) fn decoded(&self, json: &str, failed: impl FnOnce(&str)) -> Option<&Value> {
        let decoded = self.decoded.get_or_init(|| {
            decode(self.value(json))
                .map_err(|failure| failed(&failure.reason))
                .ok()
        });
        decoded.as_deref()
    }
}
