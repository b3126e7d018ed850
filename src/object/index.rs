//! The members of a JSON object by name, with their decoded values. Must not know of Parse.

use std::sync::OnceLock;

use serde_json::Value;

use super::decode::decode;
use crate::scan::Outline;

/// The members of one JSON object. Every method takes the text that the index was made from; members are
/// identified by their positions in it.
pub(super) struct Index {
    /// Of several members with one key, the last one counts, as in JavaScript.
    outline: Outline,
    /// The keys, if some of them have escapes in the text.
    keys: Option<Box<[Box<str>]>>,
    /// The text is not a JSON object.
    broken: bool,
    /// Positions of the members that count, sorted by key. Most objects never need them.
    sorted: OnceLock<Vec<usize>>,
    /// The member that is asked for first, which is often the only one.
    first: OnceLock<(usize, Option<Value>)>,
    /// The others by position, once a second one is asked for.
    others: OnceLock<Box<[Decoded]>>,
}

/// The inner `None`: it cannot be decoded. Boxed because most members are never looked at.
type Decoded = OnceLock<Option<Box<Value>>>;

impl Index {
    /// Text that is not a JSON object has no members.
    pub(super) fn of(json: &str) -> Self {
        let outline = Outline::new(json);
        let broken = outline.is_none();
        Self {
            broken,
            ..Self::new(json, outline.unwrap_or_default())
        }
    }

    #[inline]
    pub(super) fn new(json: &str, outline: Outline) -> Self {
        let unescaped = |position| {
            let key = outline.key(json, position).unwrap_or_default();
            decode(&format!("\"{key}\"")).unwrap_or_default()
        };
        let keys = outline
            .has_escapes()
            .then(|| (0..outline.len()).map(unescaped).collect());
        Self {
            outline,
            keys,
            broken: false,
            sorted: OnceLock::new(),
            first: OnceLock::new(),
            others: OnceLock::new(),
        }
    }

    /// About how many bytes it occupies on the heap, before anything is decoded.
    pub(super) fn size(&self) -> usize {
        self.outline.size()
    }

    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    pub(super) fn find(&self, json: &str, key: &str) -> Option<usize> {
        // Up to this number, a linear search costs less than the sorting.
        const FEW: usize = 32;
        let number = self.outline.len();
        if number <= FEW {
            return match &self.keys {
                Some(keys) => keys.iter().rposition(|found| **found == *key),
                None => self.outline.last(json, key),
            };
        }
        let sorted = self.sorted(json);
        let found = sorted.binary_search_by(|&position| self.key(json, position).cmp(key));
        sorted.get(found.ok()?).copied()
    }

    /// Each key once, in the order of the text.
    pub(super) fn iter<'a>(&'a self, json: &'a str) -> impl Iterator<Item = (&'a str, usize)> + 'a {
        let number = self.outline.len();
        let has_overwritten = self.sorted(json).len() < number;
        (0..number)
            .map(move |position| (self.key(json, position), position))
            .filter(move |&(key, position)| !has_overwritten || self.find(json, key) == Some(position))
    }

    /// All members as they are in the text, keys and values.
    pub(super) fn members<'a>(&'a self, json: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        (0..self.outline.len()).map(move |position| (self.key(json, position), self.value(json, position)))
    }

    pub(super) fn len(&self, json: &str) -> usize {
        self.sorted(json).len()
    }

    pub(super) fn value<'a>(&self, json: &'a str, position: usize) -> &'a str {
        self.outline.value(json, position).unwrap_or("null")
    }

    /// The decoded value; `failed` is called the first time, with the reason, if there is none.
    pub(super) fn decoded(&self, json: &str, position: usize, failed: impl FnOnce(&str)) -> Option<&Value> {
        let mut reason = None;
        let decode = |reason: &mut Option<String>| {
            decode(self.value(json, position))
                .map_err(|failure| *reason = Some(failure.reason()))
                .ok()
        };
        let (first, value) = self.first.get_or_init(|| (position, decode(&mut reason)));
        let value = if *first == position {
            value.as_ref()
        } else {
            self.others
                .get_or_init(|| (0..self.outline.len()).map(|_| Decoded::new()).collect())
                .get(position)?
                .get_or_init(|| decode(&mut reason).map(Box::new))
                .as_deref()
        };
        // Not while the value is being made: it may lead to a logger of the program, which may look at this object.
        if let Some(reason) = reason {
            failed(&reason);
        }
        value
    }

    fn sorted(&self, json: &str) -> &[usize] {
        self.sorted.get_or_init(|| {
            let mut positions: Vec<_> = (0..self.outline.len()).rev().collect();
            // The sort is stable: of equal keys, the last one stays in front and is the one that is kept.
            positions.sort_by_key(|&position| self.key(json, position));
            positions.dedup_by_key(|position| self.key(json, *position));
            positions
        })
    }

    fn key<'a>(&'a self, json: &'a str, position: usize) -> &'a str {
        let key = match &self.keys {
            Some(keys) => keys.get(position).map(|key| &**key),
            None => self.outline.key(json, position),
        };
        key.unwrap_or_default()
    }
}
