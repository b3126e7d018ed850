//! Where the members of a JSON object begin and end in its text. Decodes no value, and knows nothing of Parse.

use std::fmt;
use std::ops::Range;
use std::sync::OnceLock;

use serde::Deserializer as _;
use serde::de::{MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::decode::{decode, start_of};

/// The members of one JSON object. Every method wants the text that the index was made of.
pub(super) struct Index {
    /// In the order of the text. Of several with one key, the last one counts, as in JavaScript.
    members: Vec<Member>,
    /// Positions in `members` of those that count, sorted by key. Most objects never need it.
    sorted: OnceLock<Vec<usize>>,
}

pub(super) struct Member {
    key: Key,
    value: Range<usize>,
    /// `None` inside: it cannot be decoded.
    decoded: OnceLock<Option<Value>>,
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
        let members = serde_json::Deserializer::from_str(json).deserialize_map(Members { json });
        Self {
            members: members.unwrap_or_default(),
            sorted: OnceLock::new(),
        }
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
        decoded.as_ref()
    }
}

struct Members<'de> {
    json: &'de str,
}

impl<'de> Visitor<'de> for Members<'de> {
    type Value = Vec<Member>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<Member>, A::Error> {
        // Enough for most classes.
        let mut members = Vec::with_capacity(16);
        // The keys are taken raw as well: a key with half of a surrogate pair must not spoil the others.
        while let Some((key, value)) = map.next_entry::<&'de RawValue, &'de RawValue>()? {
            members.push(Member {
                key: self.key(key.get()),
                value: self.range_of(value.get()),
                decoded: OnceLock::new(),
            });
        }
        Ok(members)
    }
}

impl Members<'_> {
    fn key(&self, quoted: &str) -> Key {
        if quoted.contains('\\') {
            return Key::Escaped(decode(quoted).unwrap_or_default());
        }
        let Range { start, end } = self.range_of(quoted);
        Key::Plain(start + 1..end - 1)
    }

    fn range_of(&self, part: &str) -> Range<usize> {
        let start = start_of(part, self.json);
        start..start + part.len()
    }
}
